/* SPDX-License-Identifier: MIT */
/*
 * What the file system and the kernel have of free segments: blocks, or none, and in
 * which pages of memory. The writer lock is held.
 */
#ifndef SPACE_BLOCKS_H
#define SPACE_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "space/space.h"

/* Writes zeros, in writes that end where pages of `page_bytes` do. */
int blocks_write_zeros(int fd, uint64_t offset, uint64_t size,
                       uint64_t page_bytes);

/* Free segments whose blocks were given back, or may have been, get some. If the disk
   `is_full` none is asked for: what was written has some. */
int blocks_fill(struct space *space, uint64_t number, uint64_t run,
                bool is_full);

/* The same, and small pages, where space_makes_fine(). MMCMAP_ENOSPC: they have no
   blocks, or have lost them now, as their state says; others may have. */
int blocks_make_ready(struct space *space, uint64_t number, uint64_t run,
                      bool is_full);

#endif
