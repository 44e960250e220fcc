/* SPDX-License-Identifier: MIT */
/*
 * The process: forks, clocks, randomness, page size, and which process of
 * which boot it is.
 */
#ifndef OS_PROCESS_H
#define OS_PROCESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PROCESS_BOOT_ID_BYTES = 16 };

/* How many forks lie between this process and the one that loaded the
   library: a handle that notes it can tell that it was inherited. */
extern _Atomic uint32_t process_fork_generation_cell;

static inline uint32_t process_fork_generation(void) {
  return atomic_load_explicit(&process_fork_generation_cell,
                              memory_order_relaxed);
}

/*
 * Installs, once per process, handlers that run around every fork():
 * `prepare` before it and `parent` after it in the parent, `child` in the
 * child, after the generation has been raised. Further calls do nothing and
 * succeed. Each handler may be NULL.
 */
int process_watch_forks(void (*prepare)(void), void (*parent)(void),
                        void (*child)(void));

/* Fills `data` with unpredictable bytes. */
int process_random(void *data, size_t size);

uint64_t process_monotonic_ns(void);

/* Milliseconds since 1970, as the system has them: they may jump, back too. */
uint64_t process_wall_ms(void);

/* What process_wall_ms() says instead, if it is not 0: set by tests only. */
extern _Atomic uint64_t process_wall_cell;
uint64_t process_page_size(void);
void process_sleep_ms(uint32_t milliseconds);

/* The random number that the kernel gave itself when it started: what was
   written down under another one is from before. The same in all containers of
   a machine. MMCMAP_ENOTSUP, and zeros, where it cannot be read; MMCMAP_ENOMEM,
   MMCMAP_ESYSTEM (no descriptor is left): not now. */
int process_boot_id(uint8_t id_out[PROCESS_BOOT_ID_BYTES]);

/* Numbers of this process and thread as it sees them itself, to be shown to
   people only: another container gives the same ones to somebody else, and
   none tells whether a process is still there. */
uint32_t process_id(void);
uint32_t process_thread_id(void);

#ifdef MMCMAP_DEBUG_CHECKS
/* Whether a process has that number here: for a deliberate mistake alone. */
bool process_exists(uint32_t id);
#endif

#endif
