/* SPDX-License-Identifier: MIT */
/*
 * Frames are opened and closed here; their headers are completed by whoever
 * commits them.
 */
#include "space/log.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "os/map.h"

void log_init(struct log *log, struct space *space, struct readers *readers,
              const struct hasher *hasher) {
  memset(log, 0, sizeof *log);
  log->space = space;
  log->hasher = hasher;
  recycler_init(&log->recycler, readers);
}

void log_destroy(struct log *log) {
  recycler_destroy(&log->recycler);
  free(log->closed);
  memset(log, 0, sizeof *log);
}

static void open_frame(struct log *log, uint64_t offset) {
  frame_begin(log_at(log, offset), log->salt, log->epoch);
  log->frame_offset = offset;
  log->cursor = offset + FRAME_HEADER_BYTES;
  log->frame_has_large = false;
  log->written_bytes += FRAME_HEADER_BYTES;
}

static uint64_t segment_end_of(const struct log *log, uint64_t offset) {
  return (offset / log->space->segment_size + 1) * log->space->segment_size;
}

/* Begins a segment with room for a frame that can hold `size` bytes; the frame
   is not opened yet. */
static int begin_segment(struct log *log, uint64_t size, uint64_t epoch,
                         uint64_t *frame_offset_out) {
  uint64_t number;
  uint64_t first = segment_header_offset(log->space->segment_count,
                                         log->space->segment_size) +
                   SEGMENT_HEADER_BYTES;
  *frame_offset_out = first;
  /* The space first: a segment that was begun but cannot be used is lost. */
  int code = space_ensure(log->space, first + 2 * FRAME_HEADER_BYTES + size);
  if (code != MMCMAP_OK) return code;
  return space_begin_segments(log->space, SEGMENT_LOG, 1, epoch, &number);
}

/* Room in the array, so that closing a frame cannot fail half way. */
static int reserve_closed(struct log *log) {
  if (log->closed_count < log->closed_capacity) return MMCMAP_OK;
  size_t capacity = log->closed_capacity == 0 ? 16 : log->closed_capacity * 2;
  struct log_frame *closed = realloc(log->closed, capacity * sizeof *closed);
  if (closed == NULL) return error_set(MMCMAP_ENOMEM, "list of frames");
  log->closed = closed;
  log->closed_capacity = capacity;
  return MMCMAP_OK;
}

/* Needs reserve_closed(). `root` is NULL if the epoch goes on. */
static void close_frame(struct log *log, uint64_t next_offset,
                        const struct log_root *root) {
  CHECK(log->closed_count < log->closed_capacity);
  struct log_frame *closed = &log->closed[log->closed_count++];
  memset(closed, 0, sizeof *closed);
  closed->offset = log->frame_offset;
  struct frame *frame = &closed->frame;
  frame->salt = log->salt;
  frame->epoch = log->epoch;
  frame->next_offset = next_offset;
  frame->size_bytes = (uint32_t)(log->cursor - log->frame_offset);
  if (log->frame_has_large) frame->flags |= FRAME_HAS_LARGE;
  if (root == NULL) return;
  frame->flags |= FRAME_ENDS_EPOCH;
  frame->root = root->root;
  frame->count = root->count;
  frame->catalog = root->catalog;
}

int log_prepare(struct log *log, uint64_t salt, uint64_t epoch,
                const struct superblock_head heads[SUPERBLOCK_HEADS]) {
  if (epoch >= LOG_EPOCH_MAX)
    return error_set(MMCMAP_EFULL, "epochs are used up");
  log->salt = salt;
  log->epoch = epoch;
  log->large = heads[HEAD_LARGE];
  uint64_t offset = heads[HEAD_LOG].offset;
  uint64_t segment_end = heads[HEAD_LOG].limit;
  if (segment_end - offset < 2 * FRAME_HEADER_BYTES) {
    int code = begin_segment(log, 0, epoch, &offset);
    if (code != MMCMAP_OK) return code;
    segment_end = segment_end_of(log, offset);
  }
  int code = space_ensure(log->space, offset + 2 * FRAME_HEADER_BYTES);
  if (code != MMCMAP_OK) return code;
  log->segment_end = segment_end;
  log->frame_offset = log->cursor = offset;
  return MMCMAP_OK;
}

void log_start(struct log *log) {
  CHECK(log->frame_offset != 0);
  open_frame(log, log->frame_offset);
}

int log_make_room(struct log *log, uint64_t size) {
  CHECK(log->frame_offset != 0 && size % 8 == 0 &&
        size <= log_node_size_max(log));
  uint64_t end = log->cursor + size + FRAME_HEADER_BYTES;
  if (end <= log->segment_end) return space_ensure(log->space, end);
  int code = reserve_closed(log);
  if (code != MMCMAP_OK) return code;
  uint64_t offset;
  code = begin_segment(log, size, log->epoch, &offset);
  if (code != MMCMAP_OK) return code;
  close_frame(log, offset, NULL);
  open_frame(log, offset);
  log->segment_end = segment_end_of(log, offset);
  return MMCMAP_OK;
}

int log_alloc_large(struct log *log, uint64_t size, uint64_t *offset_out) {
  *offset_out = 0;
  CHECK(size % EXTENT_PAGE_BYTES == 0 && size > 0);
  struct superblock_head *large = &log->large;
  if (large->limit - large->offset < size) {
    uint64_t segment_size = log->space->segment_size;
    uint64_t run = (size + EXTENT_PAGE_BYTES + segment_size - 1) / segment_size;
    uint64_t begin = segment_header_offset(log->space->segment_count,
                                           (uint32_t)segment_size) +
                     EXTENT_PAGE_BYTES;
    uint64_t number;
    int code = space_ensure(log->space, begin + size);
    if (code == MMCMAP_OK)
      code = space_begin_segments(log->space, SEGMENT_LARGE, run, log->epoch,
                                  &number);
    if (code != MMCMAP_OK) return code;
    large->offset = begin;
    large->limit = (number + run) * segment_size;
  }
  int code = space_ensure(log->space, large->offset + size);
  if (code != MMCMAP_OK) return code;
  *offset_out = large->offset;
  large->offset += size;
  log->written_bytes += size;
  log->large_bytes += size;
  return MMCMAP_OK;
}

int log_seal(struct log *log, const struct log_root *root,
             uint64_t next_epoch) {
  CHECK(next_epoch > log->epoch && next_epoch < NODE_EPOCH_LIMIT);
  int code = reserve_closed(log);
  if (code != MMCMAP_OK) return code;
  uint64_t next = log->cursor;
  if (next + FRAME_HEADER_BYTES > log->segment_end) {
    code = begin_segment(log, 0, next_epoch, &next);
    if (code != MMCMAP_OK) return code;
  }
  code = space_ensure(log->space, next + FRAME_HEADER_BYTES);
  if (code != MMCMAP_OK) return code;
  close_frame(log, next, root);
  recycler_clear(&log->recycler);
  log->epoch = next_epoch;
  log->segment_end = segment_end_of(log, next);
  open_frame(log, next);
  return MMCMAP_OK;
}

struct log_frame *log_take_closed(struct log *log, size_t *count_out) {
  struct log_frame *closed = log->closed;
  *count_out = log->closed_count;
  log->closed = NULL;
  log->closed_count = log->closed_capacity = 0;
  return closed;
}

struct superblock_head log_head(const struct log *log) {
  struct superblock_head head = {.offset = log->frame_offset,
                                 .limit = log->segment_end};
  return head;
}

uint64_t log_end(const struct log *log) {
  return log->cursor > log->large.offset ? log->cursor : log->large.offset;
}
