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
  log->has_one_head = space_is_small(space);
  log->end_bytes = FRAME_HEADER_BYTES * (log->has_one_head ? 2 : 1);
  log->hasher = hasher;
  log->header = readers->share->header;
  log->connection = readers->share->connection;
  recycler_init(&log->recycler, readers);
}

void log_destroy(struct log *log) {
  recycler_destroy(&log->recycler);
  free(log->stage);
  log_free_private(log);
  memset(log, 0, sizeof *log);
}

/* ---- The working copy ---------------------------------------------------- */

/* The pages of a large value that will not be linked. What a transaction counts
   is returned to as a whole. */
static void forget_pages(struct log *log) {
  if (log->pages_size > 0 && !log->is_private)
    usage_lower_pages(log, log->space, log->pages_offset, log->pages_size);
  log->pages_size = 0;
}

void log_abandon(struct log *log) {
  log->is_current = false;
  log->stage_size = 0;
  forget_pages(log);
}

static uint64_t segment_end_of(const struct log *log, uint64_t offset) {
  return (offset / log->space->segment_size + 1) * log->space->segment_size;
}

/* What is wrong with a working copy that came from the lock file, or NULL:
   nothing is written before that has been looked at. */
static const char *bad_state(const struct log *log) {
  uint64_t segment_size = log->space->segment_size;
  uint64_t end = log->space->writable_bytes;
  if (log->space->segment_count > SLOT_OFFSET_LIMIT / segment_size ||
      !share_has_segments(log->space->readers->share,
                          log->space->segment_count))
    return "lock file: segments";
  if (log->large.offset > log->large.limit ||
      log->large.limit > log->space->segment_count * segment_size ||
      (log->large.limit > 0 &&
       log->large.offset < SEGMENT_FIRST_HEADER_OFFSET) ||
      log->large.offset % EXTENT_PAGE_BYTES != 0)
    return "lock file: large values";
  if (!log_is_started(log)) return NULL;
  if (log->epoch >= NODE_EPOCH_LIMIT) return "lock file: epoch";
  if (log->first_epoch > log->epoch ||
      log->first_epoch <= atomic_load(&log->header->commit.durable_epoch) ||
      atomic_load(&log->header->change.changed_epoch) > log->epoch)
    return "lock file: seal";
  const struct log_branches *branches = &log->branches;
  if (branches->cursor % 8 != 0 || branches->frame_offset % 8 != 0 ||
      branches->first_offset % 8 != 0 ||
      branches->cursor > branches->segment_end ||
      branches->segment_end > log->space->segment_count * segment_size ||
      (branches->cursor == 0) != (branches->segment_end == 0) ||
      (branches->cursor != 0 &&
       (branches->cursor < SEGMENT_FIRST_HEADER_OFFSET ||
        branches->segment_end - branches->cursor >
            segment_size - SEGMENT_HEADER_BYTES ||
        branches->segment_end % segment_size != 0)) ||
      (branches->frame_offset != 0 &&
       (branches->cursor > end || branches->first_offset == 0 ||
        branches->frame_offset < SEGMENT_FIRST_HEADER_OFFSET ||
        branches->cursor < branches->frame_offset + FRAME_HEADER_BYTES ||
        segment_end_of(log, branches->frame_offset) != branches->segment_end)))
    return "lock file: branches";
  if (log->frame_offset % 8 != 0 || log->cursor % 8 != 0 ||
      log->frame_offset < SEGMENT_FIRST_HEADER_OFFSET ||
      log->frame_offset > SLOT_OFFSET_LIMIT ||
      log->cursor < log->frame_offset + FRAME_HEADER_BYTES ||
      log->cursor > log->segment_end || log->cursor > end ||
      log->segment_end > log->space->segment_count * segment_size)
    return "lock file: frame";
  return NULL;
}

int log_load(struct log *log) {
  const struct share_log *shared = log_shared(log);
  uint64_t first_epoch_before = log->first_epoch;
  log->is_current = log->is_moved = false;
  log->stage_size = log->pages_size = 0;
  space_enter(log->space);
  log->epoch = shared->epoch;
  log->first_epoch = shared->first_epoch;
  log->salt = shared->salt;
  log->frame_offset = shared->frame_offset;
  log->cursor = atomic_load_explicit(&shared->cursor, memory_order_relaxed);
  log->counted_cursor = log->cursor;
  log->segment_end =
      log->frame_offset == 0 ? 0 : segment_end_of(log, log->frame_offset);
  log->branches.frame_offset = shared->branch_frame;
  log->branches.cursor = log->branches.counted_cursor =
      atomic_load_explicit(&shared->branch_cursor, memory_order_relaxed);
  log->branches.segment_end = shared->branch_segment_end;
  log->branches.first_offset = shared->branch_first;
  log->flags = atomic_load_explicit(&shared->flags, memory_order_relaxed);
  log->large.offset = shared->large_offset;
  log->large.limit = shared->large_limit;
  log->space->segment_count = shared->segment_count;
  log->appended_bytes = atomic_load(&log->header->change.appended_bytes);
  if (log->first_epoch != first_epoch_before ||
      (log->is_private && !BROKEN(BREAK_TXN_RECYCLER)))
    recycler_clear(&log->recycler, log->first_epoch);
  log->is_private = false;
  int code = space_check_range(log->space);
  if (code != MMCMAP_OK) return code;
  const char *bad = bad_state(log);
  if (bad != NULL) return error_set(MMCMAP_ECORRUPT, bad);
  /* Whoever had a transaction has given it up, or died with it. */
  if (UNLIKELY(atomic_load(&log->header->upkeep.begun.epoch) != 0)) {
    usage_return_to(log, &log->header->upkeep.begun);
    atomic_store(&log->header->upkeep.begun.epoch, 0);
  }
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
  shared->first_epoch = log->first_epoch;
  shared->salt = log->salt;
  shared->frame_offset = log->frame_offset;
  TEST_POINT("storing");
  atomic_store_explicit(&shared->cursor, log->cursor, memory_order_relaxed);
  shared->branch_frame = log->branches.frame_offset;
  atomic_store_explicit(&shared->branch_cursor, log->branches.cursor,
                        memory_order_relaxed);
  shared->branch_segment_end = log->branches.segment_end;
  shared->branch_first = log->branches.first_offset;
  shared->segment_count = log->space->segment_count;
  shared->large_offset = log->large.offset;
  shared->large_limit = log->large.limit;
  atomic_store_explicit(&shared->flags, log->flags, memory_order_relaxed);
  atomic_store_explicit(&change->appended_bytes, log->appended_bytes,
                        memory_order_relaxed);
  atomic_store_explicit(&change->log_index, index, memory_order_release);
  log->is_moved = false;
  log->is_current = true;
}

void log_install(struct log *log, const struct superblock *state) {
  log->salt = state->salt;
  log->epoch = log->first_epoch = state->next_epoch;
  atomic_store(&log->header->upkeep.session_epoch, log->epoch);
  log->frame_offset = log->cursor = log->segment_end = 0;
  log->flags = 0;
  log->large = state->heads[HEAD_LARGE];
  log->space->segment_count = state->segment_count;
  log->appended_bytes = 0;
  log->large_run = 0;
  log->counted_cursor = 0;
  memset(&log->branches, 0, sizeof log->branches);
  space_enter(log->space);
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
  log->cursor = log->counted_cursor = offset + FRAME_HEADER_BYTES;
  log->segment_end = segment_end_of(log, offset);
  log->flags &= ~(uint32_t)SHARE_LOG_HAS_LARGE;
  log->appended_bytes += FRAME_HEADER_BYTES;
  return MMCMAP_OK;
}

/* Begins a segment with room for a frame that can hold `size` bytes, the one that
   a head goes on in whose segment ends at `left_end` (0: the lowest that is free), or
   `behind`, if that is not 0; the frame is not opened yet. */
static int begin_segment_after(struct log *log, uint64_t left_end,
                               uint64_t behind, uint64_t size, uint64_t epoch,
                               uint64_t *frame_offset_out) {
  struct space *space = log->space;
  log_look(log, 1);
  uint64_t number =
      behind != 0
          ? behind
          : space_choose_next(space, (left_end - 1) >> space->segment_shift);
  uint64_t other;
  /* The run of large values goes on there, until all of them have been moved. */
  if (log_is_compacting(log) && log_phase(log) < USAGE_PHASE_RECORDS &&
      log_is_behind_large(log, number, &other))
    number = other;
  uint64_t first =
      segment_header_offset(number, space->segment_size) + SEGMENT_HEADER_BYTES;
  *frame_offset_out = first;
  return space_begin_segments(space, SEGMENT_LOG, number, 1,
                              first + 2 * FRAME_HEADER_BYTES + size, epoch);
}

uint64_t log_behind_all(const struct log *log) {
  const struct space *space = log->space;
  uint64_t behind = space->segment_count;
  bool is_few =
      behind <= LOG_FEW_SEGMENTS || log_phase(log) != USAGE_PHASE_NONE;
  if (!is_few || !log_is_compacting(log)) return 0;
  /* Those of branches, and what is soon free, may come in between; free ones come
     before. */
  for (uint64_t i = behind; i-- > 0;) {
    const struct share_segment *entry = usage_entry(space, i);
    if (usage_is(entry, SHARE_SEGMENT_FREE))
      behind = i;
    else if (!usage_is(entry, SHARE_SEGMENT_EMPTY) &&
             (usage_state(entry) & SHARE_SEGMENT_BRANCHES) == 0)
      break;
  }
  return behind;
}

static int begin_segment(struct log *log, uint64_t size, uint64_t epoch,
                         uint64_t *frame_offset_out) {
  enum usage_phase phase = log_phase(log);
  int code = MMCMAP_ENOSPC;
  if (phase == USAGE_PHASE_OUT || phase == USAGE_PHASE_LARGE)
    code = begin_segment_after(log, 0, usage_segment_count(log->space), size,
                               epoch, frame_offset_out);
  if (error_is_full(code))
    code = begin_segment_after(log, log->segment_end, 0, size, epoch,
                               frame_offset_out);
  return code;
}

/* The log leaves the segment of the open frame. */
static void leave_segment(struct log *log, uint64_t epoch) {
  log_count(log);
  usage_leave(log, log->frame_offset >> log->space->segment_shift, 1, epoch);
}

/* Says in the header of an open frame, which ends at `end`, what it holds. A small one that is
   staged is written by one pwrite() with what follows it. `root` is NULL if it is
   not the last one of the commit. */
static int close_frame(struct log *log, uint64_t frame_offset, uint64_t end,
                       uint64_t next_offset, const struct log_root *root) {
  struct frame frame;
  memset(&frame, 0, sizeof frame);
  frame.salt = log->salt;
  frame.epoch = root != NULL ? root->epoch : log->epoch;
  frame.next_offset = next_offset;
  frame.size_bytes = (uint32_t)(end - frame_offset);
  if ((log->flags & SHARE_LOG_HAS_LARGE) != 0) frame.flags |= FRAME_HAS_LARGE;
  if (root != NULL) {
    frame.flags |= FRAME_ENDS_COMMIT;
    frame.root = root->root;
    frame.count = root->count;
    frame.content_epoch = root->content_epoch;
  }
  if (!log->is_staging || frame.size_bytes > LOG_STAGE_BYTES) {
    frame_close(log_at(log, frame_offset), &frame);
    return MMCMAP_OK;
  }
  int code = log->stage_size > 0 ? log_flush_stage(log) : MMCMAP_OK;
  if (code == MMCMAP_OK) code = log_stage(log, frame_offset, frame.size_bytes);
  if (code != MMCMAP_OK) return code;
  uint8_t *at = log_at(log, frame_offset);
  if (log->stage_size > 0)
    memcpy(at, log->space->map.read + frame_offset, frame.size_bytes);
  frame_close(at, &frame);
  return MMCMAP_OK;
}

int log_prepare(struct log *log, uint64_t salt, uint64_t epoch,
                const struct superblock_head heads[SUPERBLOCK_HEADS]) {
  if (epoch >= LOG_EPOCH_MAX)
    return error_set(MMCMAP_EFULL, "epochs are used up");
  log->salt = salt;
  log->epoch = log->first_epoch = epoch;
  log->large = heads[HEAD_LARGE];
  memset(&log->branches, 0, sizeof log->branches);
  if (!log->has_one_head) {
    log->branches.cursor = log->branches.counted_cursor =
        heads[HEAD_BRANCH].offset;
    log->branches.segment_end = heads[HEAD_BRANCH].limit;
  }
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
  recycler_clear(&log->recycler, log->first_epoch);
  log_store(log);
}

int log_make_room(struct log *log, uint64_t size) {
  CHECK(log->frame_offset != 0 && size % 8 == 0 &&
        size <= log_node_size_max(log));
  uint64_t end = log->cursor + size + log->end_bytes;
  uint64_t offset;
  int full = MMCMAP_OK;
  if (end <= log->segment_end) {
    full = space_ensure(log->space, end);
    /* What is left of the segment has no blocks; a free one has. */
    if (full == MMCMAP_OK || !usage_find_free(log->space, 0, 1, &offset))
      return full;
  }
  int code = begin_segment(log, size, log->epoch, &offset);
  if (code != MMCMAP_OK) return full != MMCMAP_OK ? full : code;
  leave_segment(log, log->epoch);
  code = close_frame(log, log->frame_offset, log->cursor, offset, NULL);
  if (code == MMCMAP_OK) code = open_frame(log, offset);
  log->is_moved = true;
  return code;
}

int log_make_branch_room(struct log *log, uint64_t size) {
  struct log_branches *branches = &log->branches;
  uint64_t offset = branches->cursor;
  uint64_t needed =
      size + (branches->frame_offset == 0 ? FRAME_HEADER_BYTES : 0);
  int code = MMCMAP_OK;
  int full = MMCMAP_OK;
  bool fits = branches->cursor + needed <= branches->segment_end;
  uint64_t number;
  if (fits) {
    full = space_ensure(log->space, branches->cursor + needed);
    fits = full == MMCMAP_OK || !usage_find_free(log->space, 0, 1, &number);
  }
  if (fits) {
    if (full != MMCMAP_OK || branches->frame_offset != 0) return full;
  } else {
    uint64_t behind = log_behind_all(log);
    code = begin_segment_after(log, branches->segment_end, behind, size,
                               log->epoch, &offset);
    /* The file cannot grow: wherever there is room. */
    if (error_is_full(code) && behind != 0)
      code = begin_segment_after(log, branches->segment_end, 0, size,
                                 log->epoch, &offset);
    if (code != MMCMAP_OK) return full != MMCMAP_OK ? full : code;
    usage_note_branches(log->space, offset >> log->space->segment_shift);
    log_count(log);
    if (branches->cursor != 0)
      usage_leave(log, (branches->segment_end - 1) >> log->space->segment_shift,
                  1, log->epoch);
    if (branches->frame_offset != 0)
      code = close_frame(log, branches->frame_offset, branches->cursor, offset,
                         NULL);
    if (code != MMCMAP_OK) return code;
  }
  frame_begin(log_at(log, offset), log->salt, log->epoch);
  branches->frame_offset = offset;
  if (branches->first_offset == 0) branches->first_offset = offset;
  branches->cursor = branches->counted_cursor = offset + FRAME_HEADER_BYTES;
  branches->segment_end = segment_end_of(log, offset);
  log->appended_bytes += FRAME_HEADER_BYTES;
  log->is_moved = true;
  return MMCMAP_OK;
}

/* Which heads go on elsewhere. */
struct leaving {
  bool branches;
  bool large;
  bool log;
};

static int leave_heads(struct log *log, const struct leaving *leaving) {
  struct log_branches *branches = &log->branches;
  uint64_t offset;
  int code = MMCMAP_OK;
  if (!leaving->branches && !leaving->large && !leaving->log) return MMCMAP_OK;
  if (leaving->log) code = begin_segment(log, 0, log->epoch, &offset);
  if (code != MMCMAP_OK) return code;
  if (leaving->branches && branches->cursor != 0) {
    usage_leave(log, (branches->segment_end - 1) >> log->space->segment_shift,
                1, log->epoch);
    branches->cursor = branches->counted_cursor = branches->segment_end = 0;
  }
  if (leaving->large) log_leave_large(log);
  log->is_moved = true;
  if (leaving->log) {
    leave_segment(log, log->epoch);
    code = close_frame(log, log->frame_offset, log->cursor, offset, NULL);
    if (code == MMCMAP_OK) code = open_frame(log, offset);
  }
  /* A change, though of nothing that anybody sees: recovery needs what has been
     left until a superblock has this epoch. */
  if (code == MMCMAP_OK)
    atomic_store(&log->header->change.changed_epoch, log->epoch);
  return code == MMCMAP_OK ? log_settle(log) : code;
}

int log_descend(struct log *log) {
  unsigned shift = log->space->segment_shift;
  const struct log_branches *branches = &log->branches;
  uint64_t lower;
  if (branches->frame_offset != 0 || !usage_find_free(log->space, 0, 1, &lower))
    return MMCMAP_OK;
  struct leaving leaving = {
      .branches =
          branches->cursor != 0 && lower < (branches->segment_end - 1) >> shift,
      .large = log->large.limit != 0 && lower < (log->large.limit - 1) >> shift,
      .log = lower < log->frame_offset >> shift};
  return leave_heads(log, &leaving);
}

static bool is_coarse(const struct log *log, uint64_t offset) {
  const struct space *space = log->space;
  return !usage_is_fine(usage_entry(space, offset >> space->segment_shift));
}

/* Whether nothing has been written to the file since the last sync. */
static bool is_clean(const struct log *log) {
  return log->branches.frame_offset == 0 &&
         log->cursor == log->frame_offset + FRAME_HEADER_BYTES &&
         atomic_load(&log->header->commit.durable_epoch) + 1 >=
             log->first_epoch;
}

int log_leave_coarse(struct log *log) {
  const struct log_branches *branches = &log->branches;
  /* The kernel cannot take apart a large page that waits to be written. */
  if (!is_clean(log) || log_is_compacting(log) ||
      log->space->claim != SPACE_FOR_PUTS || !space_makes_fine(log->space, 1))
    return MMCMAP_OK;
  CHECK(!log->is_moved);
  struct leaving leaving = {
      .log = is_coarse(log, log->frame_offset),
      .branches =
          branches->cursor != 0 && is_coarse(log, branches->segment_end - 1),
      .large = log->large.limit != 0 && is_coarse(log, log->large.limit - 1)};
  int code = leave_heads(log, &leaving);
  if (error_is_full(code) && !log->is_moved) return MMCMAP_OK;
  if (code != MMCMAP_OK) log_abandon(log);
  return code;
}

int log_begin_phase(struct log *log, enum usage_phase phase) {
  bool is_all = phase == USAGE_PHASE_OUT || phase == USAGE_PHASE_LARGE;
  struct leaving leaving = {.branches = is_all || phase == USAGE_PHASE_BRANCHES,
                            .large = is_all,
                            .log = is_all || phase == USAGE_PHASE_RECORDS};
  if (log->branches.frame_offset != 0) return MMCMAP_OK;
  usage_begin_phase(log, phase);
  return leave_heads(log, &leaving);
}

void log_seal(struct log *log) {
  CHECK(log_is_started(log));
  log_count(log);
  if (BROKEN(BREAK_SEAL_CLOSES))
    (void)close_frame(log, log->frame_offset, log->cursor, log->cursor, NULL);
  log->epoch++;
  log_store(log);
}

/* Closes the open frames: those of branches come last. */
static int close_frames(struct log *log, uint64_t next,
                        const struct log_root *root) {
  struct log_branches *branches = &log->branches;
  if (branches->frame_offset == 0 || BROKEN(BREAK_UNCHAIN_HEAD))
    return close_frame(log, log->frame_offset, log->cursor, next, root);
  int code = close_frame(log, log->frame_offset, log->cursor,
                         branches->first_offset, NULL);
  if (code == MMCMAP_OK)
    code =
        close_frame(log, branches->frame_offset, branches->cursor, next, root);
  branches->frame_offset = branches->first_offset = 0;
  return code;
}

/* How much changes append from one commit to the next: the most, falling slowly. */
static void note_commit(const struct log *log) {
  struct share_upkeep *upkeep = &log->header->upkeep;
  uint64_t before = upkeep->commit_bytes, bytes = log_uncommitted_bytes(log);
  before -= before / 16;
  upkeep->little_commits = log_has_little(log) ? upkeep->little_commits + 1 : 0;
  upkeep->committed_bytes = log->appended_bytes;
  atomic_store(&upkeep->commit_bytes, bytes > before ? bytes : before);
  atomic_store(&upkeep->closed_bytes, upkeep->closed_bytes + bytes);
}

int log_close(struct log *log, const struct log_root *root) {
  CHECK(root->epoch >= log->first_epoch && root->epoch < log->epoch);
  uint64_t next = log->cursor;
  int code = MMCMAP_OK;
  log->space->is_fine = log_commits_little(log);
  if (next + FRAME_HEADER_BYTES > log->segment_end)
    code = begin_segment(log, 0, log->epoch, &next);
  else
    code = space_ensure(log->space, next + FRAME_HEADER_BYTES);
  if (code != MMCMAP_OK) return code;
  if (next != log->cursor) leave_segment(log, log->epoch);
  code = close_frames(log, next, root);
  if (code == MMCMAP_OK) code = open_frame(log, next);
  if (code == MMCMAP_OK && log->stage_size > 0) code = log_flush_stage(log);
  if (code != MMCMAP_OK) {
    log_abandon(log);
    return code;
  }
  note_commit(log);
  log->first_epoch = log->epoch;
  recycler_clear(&log->recycler, log->first_epoch);
  log_store(log);
  return MMCMAP_OK;
}

struct superblock_head log_head(const struct log *log) {
  struct superblock_head head = {.offset = log->frame_offset,
                                 .limit = log->segment_end};
  return head;
}

struct superblock_head log_branch_head(const struct log *log) {
  struct superblock_head head = {.offset = log->branches.cursor,
                                 .limit = log->branches.segment_end};
  return head;
}

uint64_t log_end(const struct log *log) {
  uint64_t end = log->cursor;
  if (end < log->large.offset) end = log->large.offset;
  return end < log->branches.cursor ? log->branches.cursor : end;
}
