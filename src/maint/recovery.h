/* SPDX-License-Identifier: MIT */
/*
 * Recovery: finds the newest commit in a file. It starts at the newer valid
 * superblock and rolls forward over the frames that fit, one after the other,
 * so its time follows the tail of the log and never the size of the store. It
 * only reads, and returns a value that the store installs.
 */
#ifndef MAINT_RECOVERY_H
#define MAINT_RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "format/superblock.h"
#include "format/node.h"

/* Reads both superblocks through `fd` and chooses. MMCMAP_EFORMAT: no mmcmap
   file; MMCMAP_EVERSION; MMCMAP_ECORRUPT: both are damaged, or the file is
   shorter than the superblock says; MMCMAP_EIO, MMCMAP_ENOMEM, MMCMAP_ESYSTEM: one
   was not read. */
int recovery_choose_superblock(int fd, uint64_t file_size, bool readonly,
                               struct superblock *superblock_out,
                               unsigned *place_out);

/* A run of bytes that belongs to a commit that was rolled forward. */
struct recovered_range {
  uint64_t offset;
  uint64_t size;
};

struct recovered {
  struct superblock state; /* as a superblock would have it that were written
                              after the newest commit */
  uint64_t commits;        /* that were rolled forward */
  bool was_clean;
  struct recovered_range *ranges; /* of those commits; recovered_forget() */
  size_t range_count;
  size_t range_capacity;
};

/* Rolls forward from `superblock` in a file whose bytes are `source`. A torn or
   stale tail is where the log ends, never an error. MMCMAP_ENOMEM. */
int recovery_roll_forward(const struct node_source *source,
                          const struct hasher *hasher,
                          const struct superblock *superblock,
                          struct recovered *recovered_out);

/*
 * Writes the bytes that recovery has built upon once more, the superblock at
 * `superblock_offset` and the commits that were rolled forward, so that the
 * next sync puts them on disk: if the sync of whoever wrote them failed, they
 * may stand in the page cache alone, which takes them for clean.
 */
int recovery_rewrite(int fd, const struct node_source *source,
                     uint64_t superblock_offset,
                     const struct recovered *recovered);

/* Adds a run of bytes that is to be written again. MMCMAP_ENOMEM. */
int recovered_add(struct recovered *recovered, uint64_t offset, uint64_t size);

/* Frees the list of ranges. */
void recovered_forget(struct recovered *recovered);

#endif
