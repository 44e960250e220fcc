/* SPDX-License-Identifier: MIT */
/*
 * The mapping of a data file: a large range of addresses is reserved once, the
 * file is mapped there, and it never moves, however the file grows. Two views
 * of the same pages: one that readers get, which cannot be written, and one
 * for the engine. (A build with MMCMAP_ONE_VIEW has a single one for both:
 * ThreadSanitizer sees races only through one mapping.)
 *
 * Smaller things are mapped once: a file that processes share words in, and
 * memory of this process in the place of such a file.
 *
 * Invariant: `read` and `write` stay as they are from map_open() to
 * map_close(). Touching a page beyond the end of the file is SIGBUS: who uses
 * the mapping compares with the file's size first.
 */
#ifndef OS_MAP_H
#define OS_MAP_H

#include <stdbool.h>
#include <stdint.h>

struct map {
  const uint8_t *read; /* the readers' view */
  uint8_t *write;      /* the engine's view; NULL if read-only */
  uint64_t size_bytes; /* of each view: how large the file can become here */
};

/* The range first asked for: 1 TiB. */
#define MAP_SIZE_MAX_BYTES (UINT64_C(1) << 40)

/* What to ask for if nobody says how long a file can become: that, as long as this
   process has few mapped; then less, down to 1 GiB, so that it can have thousands. */
uint64_t map_default_bytes(void);

/*
 * Maps `fd` with views of `wanted_bytes`, halved until they are granted
 * (RLIMIT_AS, 32-bit processes), but not below `least_bytes` (then
 * MMCMAP_EADDRESS). Both are multiples of the page size, wanted >= least > 0.
 * A range larger than a quarter of RLIMIT_AS's remainder, or than a 32nd of what
 * our own mappings leave of all addresses, would starve the host program: it is
 * halved further while it stays above `least_bytes`.
 */
int map_open(int fd, bool writable, uint64_t wanted_bytes, uint64_t least_bytes,
             struct map *map_out);

/* All zeros are allowed: nothing happens. Leaves zeros. */
void map_close(struct map *map);

/* One view of `fd` from `offset`, a multiple of the page size, on, for reading
   and writing, under the same rules. Pages beyond the end of the file appear as
   it grows. The view keeps the open file description of `fd`, and so its locks
   (os/lock.h). */
int map_open_shared(int fd, uint64_t offset, uint64_t wanted_bytes,
                    uint64_t least_bytes, uint8_t **at_out, uint64_t *size_out);

/* `size` bytes of zeros that belong to this process alone; a forked child gets
   a copy. MMCMAP_ENOMEM. */
int map_anonymous(uint64_t size, uint8_t **at_out);

/* Of either kind. NULL is allowed: nothing happens. */
void map_close_shared(uint8_t *at, uint64_t size);

/* Waits until the pages of [offset, offset + size), whole ones, are on disk: those
   alone, whatever else of the file is dirty. Errors as of file_sync(). */
int map_sync(const struct map *map, uint64_t offset, uint64_t size);

/* Faults in the pages of [offset, offset + size) for writing, as far as the
   kernel can: an optimisation that may do nothing. */
void map_populate(const struct map *map, uint64_t offset, uint64_t size);

#endif
