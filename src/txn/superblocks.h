/* SPDX-License-Identifier: MIT */
/*
 * The two superblocks of an open store: what was written last, and writing the
 * next one in the other place.
 */
#ifndef TXN_SUPERBLOCKS_H
#define TXN_SUPERBLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "format/superblock.h"

struct superblocks {
  int fd;
  struct superblock current; /* what the newer place holds */
  unsigned place;            /* which place that is: 0 or 1 */
  bool is_synced;            /* the file has been synced since it was written */
};

/* Writes `next`, whose sequence is set here, to the place that does not hold
   the current one, which must be synced: a power cut may tear both places
   otherwise. It is on disk after the next sync of the file. On failure the
   current one stays as it is and its place is not touched. */
int superblocks_write(struct superblocks *superblocks,
                      const struct superblock *next);

/* Where place 0 or 1 is in the file. */
static inline uint64_t superblocks_offset(unsigned place) {
  return place == 0 ? SUPERBLOCK_A_OFFSET : SUPERBLOCK_B_OFFSET;
}

#endif
