/* SPDX-License-Identifier: MIT */
/*
 * Frames are opened and closed here; their headers are completed by whoever
 * commits them, who finds them one behind the other by what closing writes into
 * them.
 */
#include "space/log.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "os/file.h"

void log_init(struct log *log, struct space *space, struct readers *readers,
              const struct hasher *hasher) {
  memset(log, 0, sizeof *log);
  log->space = space;
  log->hasher = hasher;
  log->header = readers->share->header;
  log->connection = readers->share->connection;
  recycler_init(&log->recycler, readers);
}

void log_destroy(struct log *log) {
  recycler_destroy(&log->recycler);
  free(log->stage);
  memset(log, 0, sizeof *log);
}

/* ---- The working copy ---------------------------------------------------- */

static uint64_t segment_end_of(const struct log *log, uint64_t offset) {
  return (offset / log->space->segment_size + 1) * log->space->segment_size;
}

/* What is wrong with a working copy that came from the lock file, or NULL:
   nothing is written before that has been looked at. */
static const char *bad_state(const struct log *log) {
  uint64_t segment_size = log->space->segment_size;
  uint64_t end = space_look(log->space);
  if (log->space->segment_count > SLOT_OFFSET_LIMIT / segment_size)
    return "lock file: segments";
  if (log->large.offset > log->large.limit ||
      log->large.limit > log->space->segment_count * segment_size ||
      (log->large.limit > 0 &&
       log->large.offset < SEGMENT_FIRST_HEADER_OFFSET) ||
      log->large.offset % EXTENT_PAGE_BYTES != 0)
    return "lock file: large values";
  if (!log_is_started(log)) return NULL;
  if (log->epoch >= NODE_EPOCH_LIMIT) return "lock file: epoch";
  if ((log->flags & SHARE_LOG_SEALED) != 0 &&
      (log->sealed_epoch >= log->epoch ||
       atomic_load(&log->header->change.changed_epoch) > log->sealed_epoch))
    return "lock file: seal";
  if (log->frame_offset % 8 != 0 || log->cursor % 8 != 0 ||
      log->frame_offset < SEGMENT_FIRST_HEADER_OFFSET ||
      log->frame_offset > SLOT_OFFSET_LIMIT ||
      log->cursor < log->frame_offset + FRAME_HEADER_BYTES ||
      log->cursor > log->segment_end || log->cursor > end ||
      log->segment_end != segment_end_of(log, log->frame_offset) ||
      log->segment_end > log->space->segment_count * segment_size)
    return "lock file: frame";
  return NULL;
}

int log_load(struct log *log) {
  const struct share_log *shared = log_shared(log);
  uint64_t epoch_before = log->epoch;
  log->is_current = log->is_moved = false;
  log->stage_size = 0;
  log->epoch = shared->epoch;
  log->salt = shared->salt;
  log->frame_offset = shared->frame_offset;
  log->cursor = atomic_load_explicit(&shared->cursor, memory_order_relaxed);
  log->segment_end = shared->segment_end;
  log->flags = atomic_load_explicit(&shared->flags, memory_order_relaxed);
  log->large.offset = shared->large_offset;
  log->large.limit = shared->large_limit;
  log->sealed_epoch = shared->sealed_epoch;
  log->sealed.root = shared->sealed_root;
  log->sealed.count = shared->sealed_count;
  log->sealed.catalog = 0;
  log->space->segment_count = shared->segment_count;
  log->appended_bytes = atomic_load(&log->header->change.appended_bytes);
  if (log->epoch != epoch_before ||
      (log->is_private && !BROKEN(BREAK_TXN_RECYCLER)))
    recycler_clear(&log->recycler);
  log->is_private = false;
  int code = space_check_range(log->space);
  if (code != MMCMAP_OK) return code;
  const char *bad = bad_state(log);
  if (bad != NULL) return error_set(MMCMAP_ECORRUPT, bad);
  log->is_current = true;
  atomic_store_explicit(&log->header->change.last_writer, log->connection,
                        memory_order_relaxed);
  return MMCMAP_OK;
}

void log_store(struct log *log) {
  struct share_change *change = &log->header->change;
  uint32_t index =
      (atomic_load_explicit(&change->log_index, memory_order_relaxed) & 1) ^ 1;
  if (BROKEN(BREAK_ONE_LOG)) index ^= 1;
  struct share_log *shared = &log->header->log[index];
  shared->epoch = log->epoch;
  shared->salt = log->salt;
  shared->frame_offset = log->frame_offset;
  TEST_POINT("storing");
  atomic_store_explicit(&shared->cursor, log->cursor, memory_order_relaxed);
  shared->segment_end = log->segment_end;
  shared->segment_count = log->space->segment_count;
  shared->large_offset = log->large.offset;
  shared->large_limit = log->large.limit;
  shared->sealed_epoch = log->sealed_epoch;
  shared->sealed_root = log->sealed.root;
  shared->sealed_count = log->sealed.count;
  atomic_store_explicit(&shared->flags, log->flags, memory_order_relaxed);
  atomic_store_explicit(&change->appended_bytes, log->appended_bytes,
                        memory_order_relaxed);
  atomic_store_explicit(&change->log_index, index, memory_order_release);
  log->is_moved = false;
  log->is_current = true;
}

void log_install(struct log *log, const struct superblock *state) {
  log->salt = state->salt;
  log->epoch = state->next_epoch;
  log->frame_offset = log->cursor = log->segment_end = 0;
  log->flags = 0;
  log->large = state->heads[HEAD_LARGE];
  log->sealed_epoch = 0;
  memset(&log->sealed, 0, sizeof log->sealed);
  log->space->segment_count = state->segment_count;
  log->appended_bytes = 0;
  log_store(log);
}

/* ---- Staging ------------------------------------------------------------- */

int log_flush_stage(struct log *log) {
  uint64_t size = log->stage_size;
  log->stage_size = 0;
  return file_write(log->space->fd, log->stage, (size_t)size, log->stage_base);
}

int log_stage(struct log *log, uint64_t offset, uint64_t size) {
  if (log->stage == NULL) log->stage = malloc(LOG_STAGE_BYTES);
  bool fits = log->stage_size == 0
                  ? size <= LOG_STAGE_BYTES
                  : offset == log->stage_base + log->stage_size &&
                        size <= LOG_STAGE_BYTES - log->stage_size;
  if (!fits && log->stage_size > 0) {
    int code = log_flush_stage(log);
    if (code != MMCMAP_OK) return code;
  }
  /* Too large, or no memory: by the mapping. */
  if (log->stage == NULL || size > LOG_STAGE_BYTES) return MMCMAP_OK;
  if (log->stage_size == 0) log->stage_base = offset;
  log->stage_size += size;
  return MMCMAP_OK;
}

/* ---- Frames -------------------------------------------------------------- */

static int open_frame(struct log *log, uint64_t offset) {
  if (log->is_staging) {
    int code = log_stage(log, offset, FRAME_HEADER_BYTES);
    if (code != MMCMAP_OK) return code;
  }
  frame_begin(log_at(log, offset), log->salt, log->epoch);
  log->frame_offset = offset;
  log->cursor = offset + FRAME_HEADER_BYTES;
  log->segment_end = segment_end_of(log, offset);
  log->flags &= ~(uint32_t)(SHARE_LOG_HAS_LARGE | SHARE_LOG_SEALED);
  log->appended_bytes += FRAME_HEADER_BYTES;
  return MMCMAP_OK;
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

/* Says in the header of the open frame what it holds. A small one that is
   staged is written by one pwrite() with what follows it. `root` is NULL if the
   epoch goes on. */
static int close_frame(struct log *log, uint64_t epoch, uint64_t next_offset,
                       const struct log_root *root) {
  struct frame frame;
  memset(&frame, 0, sizeof frame);
  frame.salt = log->salt;
  frame.epoch = epoch;
  frame.next_offset = next_offset;
  frame.size_bytes = (uint32_t)(log->cursor - log->frame_offset);
  if ((log->flags & SHARE_LOG_HAS_LARGE) != 0) frame.flags |= FRAME_HAS_LARGE;
  if (root != NULL) {
    frame.flags |= FRAME_ENDS_EPOCH;
    frame.root = root->root;
    frame.count = root->count;
    frame.catalog = root->catalog;
  }
  if (!log->is_staging || frame.size_bytes > LOG_STAGE_BYTES) {
    frame_close(log_at(log, log->frame_offset), &frame);
    return MMCMAP_OK;
  }
  int code = log->stage_size > 0 ? log_flush_stage(log) : MMCMAP_OK;
  if (code == MMCMAP_OK)
    code = log_stage(log, log->frame_offset, frame.size_bytes);
  if (code != MMCMAP_OK) return code;
  uint8_t *at = log_at(log, log->frame_offset);
  if (log->stage_size > 0)
    memcpy(at, log->space->map.read + log->frame_offset, frame.size_bytes);
  frame_close(at, &frame);
  return MMCMAP_OK;
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
  log->is_staging = false;
  (void)open_frame(log, log->frame_offset);
  log->flags |= SHARE_LOG_STARTED;
  log_store(log);
}

int log_make_room(struct log *log, uint64_t size) {
  CHECK(log->frame_offset != 0 && size % 8 == 0 &&
        size <= log_node_size_max(log));
  uint64_t end = log->cursor + size + FRAME_HEADER_BYTES;
  if (end <= log->segment_end) return space_ensure(log->space, end);
  uint64_t offset;
  int code = begin_segment(log, size, log->epoch, &offset);
  if (code != MMCMAP_OK) return code;
  code = close_frame(log, log->epoch, offset, NULL);
  if (code == MMCMAP_OK) code = open_frame(log, offset);
  log->is_moved = true;
  return code;
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
  log->is_moved = true;
  log->appended_bytes += size;
  log->large_bytes += size;
  return MMCMAP_OK;
}

void log_seal(struct log *log, const struct log_root *root) {
  CHECK(log_is_started(log) && (log->flags & SHARE_LOG_SEALED) == 0);
  log->sealed_epoch = log->epoch;
  log->sealed = *root;
  log->flags |= SHARE_LOG_SEALED;
  if (BROKEN(BREAK_SEAL_CLOSES))
    (void)close_frame(log, log->epoch, log->cursor, root);
  log->epoch++;
  recycler_clear(&log->recycler);
  log_store(log);
}

int log_open_frame(struct log *log) {
  if ((log->flags & SHARE_LOG_SEALED) == 0) return MMCMAP_OK;
  uint64_t next = log->cursor;
  int code = MMCMAP_OK;
  if (next + FRAME_HEADER_BYTES > log->segment_end)
    code = begin_segment(log, 0, log->epoch, &next);
  else
    code = space_ensure(log->space, next + FRAME_HEADER_BYTES);
  if (code != MMCMAP_OK) return code;
  code = close_frame(log, log->sealed_epoch, next, &log->sealed);
  if (code == MMCMAP_OK) code = open_frame(log, next);
  if (code == MMCMAP_OK && log->stage_size > 0) code = log_flush_stage(log);
  if (code == MMCMAP_OK)
    log_store(log);
  else
    log_abandon(log);
  return code;
}

/* ---- Transactions -------------------------------------------------------- */

void log_begin_private(struct log *log) {
  CHECK(log->stage_size == 0);
  log->is_current = false;
  log->is_staging = false; /* what it has written is read before it settles */
  log->is_private = true;
  log->is_moved = true;
}

void log_end_private(struct log *log) {
  log->is_private = false;
  log->is_moved = true;
}

int log_next_epoch(struct log *log) {
  uint64_t next = log->cursor;
  int code = MMCMAP_OK;
  if (log->epoch + 1 >= NODE_EPOCH_LIMIT)
    return error_set(MMCMAP_EFULL, "epochs are used up");
  if (next + 2 * FRAME_HEADER_BYTES > log->segment_end)
    code = begin_segment(log, 0, log->epoch + 1, &next);
  else
    code = space_ensure(log->space, next + 2 * FRAME_HEADER_BYTES);
  if (code == MMCMAP_OK) code = close_frame(log, log->epoch, next, NULL);
  if (code != MMCMAP_OK) return code;
  log->epoch++;
  recycler_clear(&log->recycler);
  return open_frame(log, next);
}

struct log_mark log_mark(const struct log *log) {
  struct log_mark mark = {.frame_offset = log->frame_offset,
                          .cursor = log->cursor,
                          .appended_bytes = log->appended_bytes,
                          .large = log->large,
                          .flags = log->flags};
  return mark;
}

void log_return_to(struct log *log, const struct log_mark *mark) {
  if (log->frame_offset != mark->frame_offset) return;
  log->cursor = mark->cursor;
  log->flags = mark->flags;
  if (log->large.limit == mark->large.limit) {
    log->large = mark->large;
    log->appended_bytes = mark->appended_bytes;
  }
}

struct superblock_head log_head(const struct log *log) {
  struct superblock_head head = {.offset = log->frame_offset,
                                 .limit = log->segment_end};
  return head;
}

uint64_t log_end(const struct log *log) {
  return log->cursor > log->large.offset ? log->cursor : log->large.offset;
}
