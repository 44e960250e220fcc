/* SPDX-License-Identifier: MIT */
/*
 * What belongs to the whole process. Its state is the generation and the fork
 * handlers; both are set once and by forks only, and the child handler runs
 * in a process with a single thread.
 */
#include "os/process.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/errors.h"
#include "os/calls.h"
#include "os/file.h"

_Atomic uint32_t process_fork_generation_cell;
_Atomic uint64_t process_wall_cell;

/* Written by the first process_watch_forks(), inside pthread_once(). */
static struct {
  pthread_once_t once;
  int failure; /* errno of pthread_atfork(), or 0 */
  void (*child)(void);
} process_forks = {.once = PTHREAD_ONCE_INIT};

/* How the arguments get into the function that pthread_once() calls without
   any: per thread, since several may be about to be the first. */
static _Thread_local struct {
  void (*prepare)(void);
  void (*parent)(void);
  void (*child)(void);
} process_forks_wanted;

static void process_in_child(void) {
  /* First, so that the handler already sees every handle as inherited. */
  atomic_fetch_add_explicit(&process_fork_generation_cell, 1,
                            memory_order_relaxed);
  if (process_forks.child != NULL) process_forks.child();
}

static void process_install_handlers(void) {
  process_forks.child = process_forks_wanted.child;
  process_forks.failure =
      pthread_atfork(process_forks_wanted.prepare, process_forks_wanted.parent,
                     process_in_child);
}

int process_watch_forks(void (*prepare)(void), void (*parent)(void),
                        void (*child)(void)) {
  process_forks_wanted.prepare = prepare;
  process_forks_wanted.parent = parent;
  process_forks_wanted.child = child;
  CHECK(pthread_once(&process_forks.once, process_install_handlers) == 0);
  if (process_forks.failure != 0)
    return error_set_errno(process_forks.failure, "pthread_atfork");
  return MMCMAP_OK;
}

int process_random(void *data, size_t size) {
  uint8_t *at = data;

  for (size_t got = 0; got < size;) {
    ssize_t n = os_calls.getrandom(at + got, size - got, 0);
    if (n == 0) return error_set_errno(EIO, "getrandom of nothing");
    if (n > 0)
      got += (size_t)n;
    else if (errno != EINTR)
      return error_set_errno(errno, "getrandom");
  }
  return MMCMAP_OK;
}

uint64_t process_monotonic_ns(void) {
  struct timespec now;
  CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t process_wall_ms(void) {
  struct timespec now;
  uint64_t set_ms =
      atomic_load_explicit(&process_wall_cell, memory_order_relaxed);
  if (set_ms != 0) return set_ms;
  CHECK(clock_gettime(CLOCK_REALTIME, &now) == 0);
  if (now.tv_sec < 0) return 0;
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t process_page_size(void) {
  long size = sysconf(_SC_PAGESIZE);
  CHECK(size > 0);
  return (uint64_t)size;
}

void process_sleep_ms(uint32_t milliseconds) {
  struct timespec left = {
      .tv_sec = (time_t)(milliseconds / 1000),
      .tv_nsec = (long)(milliseconds % 1000) * 1000000,
  };
  /* Carried on with after a signal; nothing else can fail here. */
  while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
    continue;
}

static int process_hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/* 32 digits, with dashes anywhere between two bytes. */
static bool process_parse_id(const char *text,
                             uint8_t id_out[PROCESS_BOOT_ID_BYTES]) {
  for (int i = 0; i < PROCESS_BOOT_ID_BYTES; i++) {
    if (*text == '-') text++;
    int high = process_hex_digit(text[0]);
    int low = high < 0 ? -1 : process_hex_digit(text[1]);
    if (low < 0) return false;
    id_out[i] = (uint8_t)(high << 4 | low);
    text += 2;
  }
  return *text == '\n' || *text == '\0';
}

int process_boot_id(uint8_t id_out[PROCESS_BOOT_ID_BYTES]) {
  static const char path[] = "/proc/sys/kernel/random/boot_id";
  uint8_t id[PROCESS_BOOT_ID_BYTES];
  char text[64] = "";
  size_t got;
  int fd;

  memset(id_out, 0, PROCESS_BOOT_ID_BYTES);
  int code = file_open(path, true, &fd);
  if (code == MMCMAP_OK) {
    code = file_read(fd, text, sizeof text - 1, 0, &got);
    file_close(fd);
  }
  /* No memory, or no descriptor left: another time it can be read. */
  if (code == MMCMAP_ENOMEM || code == MMCMAP_ESYSTEM) return code;
  if (code != MMCMAP_OK || !process_parse_id(text, id))
    return error_set(MMCMAP_ENOTSUP, path);
  memcpy(id_out, id, sizeof id);
  return MMCMAP_OK;
}

uint32_t process_id(void) { return (uint32_t)getpid(); }

#ifdef MMCMAP_DEBUG_CHECKS
bool process_exists(uint32_t id) {
  return kill((pid_t)id, 0) == 0 || errno != ESRCH;
}
#endif

uint32_t process_thread_id(void) {
  static _Thread_local struct {
    uint32_t id; /* 0: not known */
    uint32_t generation;
  } known;
  uint32_t generation = process_fork_generation();
  if (UNLIKELY(known.id == 0 || known.generation != generation)) {
    /* Not gettid(): C libraries of before 2019 lack it. */
    known.id = (uint32_t)syscall(SYS_gettid);
    known.generation = generation;
  }
  return known.id;
}
