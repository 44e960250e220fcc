/* SPDX-License-Identifier: MIT */
/*
 * The pieces in which a large file grows. The kernel keeps each in one page of
 * its memory, and a sync writes all of a page that anything was stored in. So
 * the segments of one piece are begun one after the other, and cleaned together.
 * The writer lock is held.
 */
#ifndef SPACE_PIECE_H
#define SPACE_PIECE_H

#include <stdbool.h>
#include <stdint.h>

#include "space/space.h"

/* How many segments a piece has; 1 where pieces do not matter: in a store that is
   small, or full, or about to become shorter. */
uint64_t piece_segments(const struct space *space);

/* The segments of the piece of `size` that this one is in, from *begin_out on. */
void piece_bounds(const struct space *space, uint64_t number, uint64_t size,
                  uint64_t *begin_out, uint64_t *end_out);

/* Where a head that leaves segment `left` goes on: in the same piece, or where
   most of one is free. False: nothing is, pieces do not matter, or there is no
   such segment. */
bool piece_find_free(const struct space *space, uint64_t left,
                     uint64_t *number_out);

#endif
