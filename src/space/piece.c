/* SPDX-License-Identifier: MIT */
/*
 * The search ends at the first piece that is all free; if there is none, it sees
 * a bounded part of the file, beginning where something is free.
 */
#include "space/piece.h"

#include "space/usage.h"

enum { PIECES_SEEN_MAX = 256 };

uint64_t piece_segments(const struct space *space) {
  const struct share_upkeep *upkeep = &space->readers->share->header->upkeep;
  if (space->segment_count << space->segment_shift < SPACE_PIECES_FROM ||
      space->segment_size > SPACE_PIECE_BYTES || upkeep->is_sparse != 0 ||
      upkeep->is_full != 0 || space_is_compacting(space))
    return 1;
  return SPACE_PIECE_BYTES >> space->segment_shift;
}

void piece_bounds(const struct space *space, uint64_t number, uint64_t size,
                  uint64_t *begin_out, uint64_t *end_out) {
  uint64_t end = number / size * size + size;
  *begin_out = end - size;
  *end_out = end < space->segment_count ? end : space->segment_count;
}

/* How many segments are free in the piece; and the lowest of them. */
static uint64_t count_free(const struct space *space, uint64_t number,
                           uint64_t size, uint64_t *lowest_out) {
  uint64_t begin, end, count = 0;
  piece_bounds(space, number, size, &begin, &end);
  while (end-- > begin) {
    if (!usage_is(usage_entry(space, end), SHARE_SEGMENT_FREE)) continue;
    *lowest_out = end;
    count++;
  }
  return count;
}

bool piece_find_free(const struct space *space, uint64_t left,
                     uint64_t *number_out) {
  uint64_t size = piece_segments(space);
  uint64_t first = space->readers->share->header->upkeep.first_free;
  uint64_t most = 0;
  *number_out = 0;
  if (size == 1 || left >= space->segment_count) return false;
  if (count_free(space, left, size, number_out) > 0) return true;
  for (uint64_t i = 0; i < PIECES_SEEN_MAX && most < size; i++) {
    uint64_t lowest = 0;
    if (first >= space->segment_count) break;
    uint64_t count = count_free(space, first, size, &lowest);
    if (count > most) *number_out = lowest;
    if (count > most) most = count;
    first = first / size * size + size;
  }
  return most > 0;
}
