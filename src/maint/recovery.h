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
   shorter than the superblock says. */
int recovery_choose_superblock(int fd, uint64_t file_size, bool readonly,
                               struct superblock *superblock_out,
                               unsigned *place_out);

struct recovered {
  struct superblock state; /* as a superblock would have it that were written
                              after the newest commit */
  uint64_t commits;        /* that were rolled forward */
  bool was_clean;
};

/* Rolls forward from `superblock` in a file whose bytes are `source`. A torn or
   stale tail is where the log ends, never an error. */
void recovery_roll_forward(const struct node_source *source,
                           const struct hasher *hasher,
                           const struct superblock *superblock,
                           struct recovered *recovered_out);

#endif
