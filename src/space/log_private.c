/* SPDX-License-Identifier: MIT */
/*
 * A log that only a transaction sees, and going back in it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "space/log.h"

/* All words are 0 between transactions. */
static void forget(struct log_changes *changes) {
  for (size_t i = 0; i < changes->touched_count; i++)
    changes->words[changes->touched[i]] = 0;
  changes->touched_count = 0;
  changes->count = 0;
}

/* Here and below memory is freed last: a child that is forked meanwhile frees what it
   finds. */
static bool make_room(struct log_changes *changes, uint64_t count) {
  if (count > changes->capacity) {
    int32_t *words = calloc(count, sizeof *words);
    if (words == NULL) return false;
    int32_t *before = changes->words;
    changes->words = words;
    changes->capacity = count;
    free(before);
  }
  changes->count = count;
  return true;
}

static bool grow_touched(struct log_changes *changes) {
  size_t capacity =
      changes->touched_capacity == 0 ? 64 : 2 * changes->touched_capacity;
  uint64_t *touched = malloc(capacity * sizeof *touched);
  if (touched == NULL) return false;
  uint64_t *before = changes->touched;
  if (before != NULL)
    memcpy(touched, before, changes->touched_count * sizeof *touched);
  changes->touched = touched;
  free(before);
  changes->touched_capacity = capacity;
  return true;
}

void log_free_private(struct log *log) {
  free(log->changes.words);
  free(log->changes.touched);
}

void log_begin_private(struct log *log) {
  CHECK(log->stage_size == 0);
  log->is_current = false;
  log->is_staging = false; /* what it has written is read before it settles */
  log->is_private = true;
  log->is_moved = true;
  usage_mark(log, &log->header->upkeep.begun);
  forget(&log->changes);
  if (!make_room(&log->changes, log->space->segment_count))
    /* What cannot be taken back is not begun. */
    recycler_clear(&log->recycler, log->first_epoch);
}

void log_end_private(struct log *log) {
  log->is_private = false;
  log->is_moved = true;
  forget(&log->changes);
  atomic_store(&log->header->upkeep.begun.epoch, 0);
}

/* What lies in the segments of the heads, or in later ones, is set back as a whole
   by whoever loads the log (usage_return_to()). */
void log_abandon_private(struct log *log) {
  log->is_private = false; /* what is empty again is so since the last change */
  for (size_t i = 0; i < log->changes.touched_count; i++) {
    uint64_t number = log->changes.touched[i];
    int32_t words = log->changes.words[number];
    uint64_t offset = number << log->space->segment_shift;
    log->changes.words[number] = 0;
    if (words > 0)
      usage_lower(log, log->space, offset, 8 * (uint64_t)words);
    else
      usage_raise(log->space, offset, 8 * (uint64_t)-words);
  }
  log->is_private = true;
  forget(&log->changes);
  log_abandon(log);
}

/* What there is no memory for stays counted too high. */
void log_note_private(struct log *log, uint64_t offset, int64_t size) {
  struct log_changes *changes = &log->changes;
  uint64_t number = offset >> log->space->segment_shift;
  if (number >= changes->count) return;
  if (changes->words[number] == 0) {
    if (changes->touched_count == changes->touched_capacity &&
        !grow_touched(changes))
      return;
    changes->touched[changes->touched_count++] = number;
  }
  changes->words[number] += (int32_t)(size / 8);
}

void log_lower_private(struct log *log, uint64_t offset, uint64_t size) {
  log_count(log); /* it may have been appended since the last time */
  log_note_private(log, offset, -(int64_t)size);
  usage_lower(log, log->space, offset, size);
}

int log_next_epoch(struct log *log) {
  if (log->epoch + 1 >= NODE_EPOCH_LIMIT)
    return error_set(MMCMAP_EFULL, "epochs are used up");
  log_count(log);
  log->epoch++;
  log->is_moved = true;
  recycler_clear(&log->recycler, log->first_epoch);
  return MMCMAP_OK;
}

/* ---- Marks ------------------------------------------------------------------ */

struct log_mark log_mark(const struct log *log) {
  struct log_mark mark = {.frame_offset = log->frame_offset,
                          .cursor = log->cursor,
                          .branch_frame_offset = log->branches.frame_offset,
                          .branch_cursor = log->branches.cursor,
                          .appended_bytes = log->appended_bytes,
                          .large = log->large,
                          .flags = log->flags};
  return mark;
}

void log_return_to(struct log *log, const struct log_mark *mark) {
  struct log_branches *branches = &log->branches;
  if (log->pages_size > 0)
    usage_lower_pages(log, log->space, log->pages_offset, log->pages_size);
  log->pages_size = 0;
  if (branches->frame_offset == mark->branch_frame_offset &&
      branches->frame_offset != 0)
    branches->cursor = mark->branch_cursor;
  if (log->frame_offset != mark->frame_offset) return;
  log->cursor = mark->cursor;
  log->flags = mark->flags;
  if (log->large.limit == mark->large.limit) {
    log->large = mark->large;
    log->appended_bytes = mark->appended_bytes;
  }
}

void log_return_counts(struct log *log, const struct share_counts *counts) {
  usage_return_to(log, counts);
  log->counted_cursor = log->cursor;
  log->branches.counted_cursor = log->branches.cursor;
}
