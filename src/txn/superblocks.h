/* SPDX-License-Identifier: MIT */
/*
 * The two superblocks of an open store: what was written last, and writing the
 * next one in the other place. One word of the lock file says how far that has
 * come, so a process that dies in between leaves nothing half done: the place
 * that it may have torn is written again.
 */
#ifndef TXN_SUPERBLOCKS_H
#define TXN_SUPERBLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "format/superblock.h"
#include "share/layout.h"

struct superblocks {
  int fd;
  struct superblock constant; /* what never changes: file id, hash, ... */
  _Atomic uint64_t *state;    /* share_commit.superblock */
};

/* The sequence of the newest one, which place has it (0 or 1), and whether the
   file has been synced since it was written. */
static inline uint64_t superblocks_sequence(const struct superblocks *blocks) {
  return atomic_load(blocks->state) >> 2;
}

static inline unsigned superblocks_place(const struct superblocks *blocks) {
  return (unsigned)(atomic_load(blocks->state) >> 1) & 1;
}

static inline bool superblocks_are_synced(const struct superblocks *blocks) {
  return (atomic_load(blocks->state) & 1) != 0;
}

static inline void superblocks_set(struct superblocks *blocks,
                                   uint64_t sequence, unsigned place,
                                   bool is_synced) {
  atomic_store(blocks->state,
               sequence << 2 | (uint64_t)place << 1 | (is_synced ? 1 : 0));
}

static inline void superblocks_set_synced(struct superblocks *blocks,
                                          bool is_synced) {
  superblocks_set(blocks, superblocks_sequence(blocks),
                  superblocks_place(blocks), is_synced);
}

/* Writes `next`, whose sequence is set here, to the place that does not hold
   the newest one, which must be synced: a power cut may tear both places
   otherwise. It is on disk after the next sync of the file. On failure the
   newest one stays as it is and its place is not touched. */
int superblocks_write(struct superblocks *blocks,
                      const struct superblock *next);

/* Where place 0 or 1 is in the file. */
static inline uint64_t superblocks_offset(unsigned place) {
  return place == 0 ? SUPERBLOCK_A_OFFSET : SUPERBLOCK_B_OFFSET;
}

#endif
