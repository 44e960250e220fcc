/* SPDX-License-Identifier: MIT */
/*
 * The table is short (32 bytes for each segment), so it is looked through as a
 * whole, whenever a 64th of all segments has been begun.
 */
#include "space/usage.h"

#include <string.h>

#include "base/bytes.h"
#include "base/errors.h"
#include "base/testing.h"
#include "space/log.h"

int usage_ensure(struct space *space) {
  return share_ensure_segments(space->readers->share, space->segment_count);
}

static uint64_t number_of(const struct space *space, uint64_t offset) {
  return offset >> space->segment_shift;
}

/* ---- Heads --------------------------------------------------------------- */

static bool is_within(const struct space *space,
                      const struct superblock_head *large, uint64_t number) {
  return large->limit > large->offset &&
         number >= number_of(space, large->offset) &&
         number <= number_of(space, large->limit - 1);
}

static bool is_branch_head(const struct space *space, uint64_t segment_end,
                           uint64_t number) {
  return segment_end != 0 && number == number_of(space, segment_end - 1);
}

/* Whether the log goes on in that segment: as this change will leave it, or as
   it is if the change fails. */
static bool is_head(const struct log *log, uint64_t number) {
  const struct space *space = log->space;
  const struct share_log *shared = log_shared(log);
  struct superblock_head large = {.offset = shared->large_offset,
                                  .limit = shared->large_limit};
  return number == number_of(space, log->frame_offset) ||
         number == number_of(space, shared->frame_offset) ||
         is_branch_head(space, log->branches.segment_end, number) ||
         is_branch_head(space, shared->branch_segment_end, number) ||
         is_within(space, &log->large, number) ||
         is_within(space, &large, number);
}

void usage_begin(const struct space *space, uint64_t number, uint64_t run,
                 enum share_segment_state state, uint64_t epoch) {
  struct share_upkeep *upkeep = &space->readers->share->header->upkeep;
  if (upkeep->victim < number + run + 1 &&
      number + 1 < upkeep->victim + upkeep->victim_run)
    upkeep->victim = 0; /* it has become empty by itself */
  for (uint64_t i = number; i < number + run; i++) {
    struct share_segment *entry = usage_entry(space, i);
    usage_set_state(entry, SHARE_SEGMENT_FREE);
    atomic_store_explicit(&entry->live_words, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->first_epoch, epoch, memory_order_relaxed);
    atomic_store_explicit(&entry->last_epoch, UINT64_MAX, memory_order_relaxed);
    /* A run is longer than a segment for the sake of one value. */
    usage_set_state(entry,
                    (uint32_t)state | (i > number ? SHARE_SEGMENT_TAIL : 0));
  }
}

/* ---- Becoming empty ------------------------------------------------------ */

static bool is_in_use(const struct share_segment *entry) {
  return usage_is(entry, SHARE_SEGMENT_LOG) ||
         usage_is(entry, SHARE_SEGMENT_LARGE);
}

/* Recovery may come through frames that lie in it until a superblock has the epoch
   in which the log left it. */
static void make_empty(const struct log *log, struct share_segment *entry) {
  uint64_t epoch = log->epoch;
  uint64_t left =
      atomic_load_explicit(&entry->last_epoch, memory_order_relaxed);
  if (!log->is_private)
    epoch = atomic_load_explicit(&log->header->change.changed_epoch,
                                 memory_order_relaxed);
  if (left != UINT64_MAX && left > epoch) epoch = left;
  atomic_store_explicit(&entry->last_epoch, epoch, memory_order_relaxed);
  atomic_store_explicit(&entry->tick, readers_tick(log->space->readers),
                        memory_order_relaxed);
  usage_set_state(entry, SHARE_SEGMENT_EMPTY);
  log->header->upkeep.emptied_count++;
}

void usage_emptied(struct log *log, uint64_t number) {
  struct share_segment *entry = usage_entry(log->space, number);
  if (!is_in_use(entry) ||
      (usage_state(entry) & SHARE_SEGMENT_UNCOUNTED) != 0 ||
      is_head(log, number))
    return;
  make_empty(log, entry);
}

void usage_leave(struct log *log, uint64_t number, uint64_t run,
                 uint64_t epoch) {
  for (uint64_t i = number; i < number + run && i < log->space->segment_count;
       i++)
    atomic_store_explicit(&usage_entry(log->space, i)->last_epoch, epoch,
                          memory_order_relaxed);
}

/* ---- Pages of large values ------------------------------------------------ */

static uint64_t part_in_segment(const struct space *space, uint64_t offset,
                                uint64_t size) {
  uint64_t left = space->segment_size - offset % space->segment_size;
  return size < left ? size : left;
}

void usage_raise_pages(const struct space *space, uint64_t offset,
                       uint64_t size) {
  while (size > 0) {
    uint64_t part = part_in_segment(space, offset, size);
    usage_raise(space, offset, part);
    offset += part;
    size -= part;
  }
}

void usage_lower_pages(struct log *log, const struct space *space,
                       uint64_t offset, uint64_t size) {
  while (size > 0) {
    uint64_t part = part_in_segment(space, offset, size);
    usage_lower(log, space, offset, part);
    offset += part;
    size -= part;
  }
}

/* ---- Transactions -------------------------------------------------------- */

static void mark_segment(const struct space *space, uint64_t number,
                         struct share_counts *mark, int index) {
  bool is_there = number < space->segment_count;
  mark->numbers[index] = is_there ? number : UINT64_MAX;
  mark->live_words[index] =
      is_there ? atomic_load(&usage_entry(space, number)->live_words) : 0;
}

void usage_mark(const struct log *log, struct share_counts *mark_out) {
  const struct space *space = log->space;
  const struct superblock_head *large = &log->large;
  uint64_t next = number_of(space, large->offset);
  uint64_t end = large->limit > large->offset
                     ? number_of(space, large->limit - 1) + 1
                     : next;
  mark_segment(space, number_of(space, log->segment_end - 1), mark_out, 0);
  mark_segment(space, number_of(space, log->branches.segment_end - 1), mark_out,
               1);
  for (int i = 2; i < SHARE_COUNTS; i++)
    mark_segment(space, next < end ? next++ : UINT64_MAX, mark_out, i);
  atomic_store(&mark_out->epoch, log->epoch);
}

static bool is_marked(const struct share_counts *mark, uint64_t number) {
  for (int i = 0; i < SHARE_COUNTS; i++)
    if (mark->numbers[i] == number) return true;
  return false;
}

void usage_return_to(struct log *log, const struct share_counts *mark) {
  const struct space *space = log->space;
  uint64_t epoch = atomic_load(&mark->epoch);
  for (int i = 0; i < SHARE_COUNTS; i++)
    if (mark->numbers[i] < space->segment_count)
      atomic_store(&usage_entry(space, mark->numbers[i])->live_words,
                   mark->live_words[i]);
  for (uint64_t i = 0; i < space->segment_count; i++) {
    struct share_segment *entry = usage_entry(space, i);
    bool is_begun = is_in_use(entry) || usage_is(entry, SHARE_SEGMENT_EMPTY);
    if (!is_begun || atomic_load(&entry->first_epoch) < epoch ||
        is_marked(mark, i))
      continue;
    atomic_store(&entry->live_words, 0);
    if (is_head(log, i)) continue;
    atomic_store(&entry->last_epoch, UINT64_MAX); /* no frame there counts */
    make_empty(log, entry);
  }
}

/* ---- Becoming free -------------------------------------------------------- */

/* What decides. */
struct limits {
  uint64_t horizon;
  uint64_t ended_tick;
  uint64_t recovery_epoch;
  struct readers_held held;
};

static bool lies_in(uint64_t oldest, uint64_t newest, uint64_t first,
                    uint64_t end) {
  return newest != 0 && newest >= first && oldest < end;
}

/* By snapshots that are open, or saved. */
static bool is_held(const struct log *log, const struct readers_held *held,
                    uint64_t first, uint64_t end) {
  const struct share_upkeep *upkeep = &log->header->upkeep;
  return readers_is_held(held, first, end) ||
         lies_in(upkeep->saved_oldest, upkeep->saved_newest, first, end);
}

/* Whether the last drop of a saved snapshot is on disk. */
static bool is_drop_kept(const struct log *log) {
  return atomic_load(&log->header->upkeep.left_epoch) <=
         atomic_load_explicit(&log->header->commit.recovery_epoch,
                              memory_order_acquire);
}

/* By saved snapshots that would be there again if the power failed now: a commit
   ends that. */
static bool is_left(const struct log *log, uint64_t first, uint64_t end) {
  const struct share_upkeep *upkeep = &log->header->upkeep;
  return !BROKEN(BREAK_FORGET_DROPPED) && !is_drop_kept(log) &&
         lies_in(upkeep->left_oldest, upkeep->left_newest, first, end);
}

void usage_leave_saved(struct log *log) {
  struct share_upkeep *upkeep = &log->header->upkeep;
  bool is_kept = is_drop_kept(log);
  if (upkeep->saved_newest == 0) return;
  if (is_kept || upkeep->saved_oldest < upkeep->left_oldest)
    upkeep->left_oldest = upkeep->saved_oldest;
  if (is_kept || upkeep->saved_newest > upkeep->left_newest)
    upkeep->left_newest = upkeep->saved_newest;
  upkeep->left_epoch = log->epoch;
}

static void find_limits(const struct log *log, struct limits *limits_out) {
  struct readers *readers = log->space->readers;
  const struct share_header *header = log->header;
  limits_out->horizon = readers_look(readers, &limits_out->held);
  limits_out->ended_tick =
      atomic_load_explicit(&header->upkeep.ended_tick, memory_order_acquire);
  limits_out->recovery_epoch = atomic_load_explicit(
      &header->commit.recovery_epoch, memory_order_acquire);
}

static enum usage_refusal refusal(const struct log *log,
                                  const struct share_segment *entry,
                                  const struct limits *limits) {
  uint64_t first =
      atomic_load_explicit(&entry->first_epoch, memory_order_relaxed);
  uint64_t last =
      atomic_load_explicit(&entry->last_epoch, memory_order_relaxed);
  uint64_t tick = atomic_load_explicit(&entry->tick, memory_order_relaxed);
  if (!BROKEN(BREAK_REUSE_HELD) && is_held(log, &limits->held, first, last))
    return USAGE_SNAPSHOT;
  /* Before pins: those are soon gone, a commit has to be made. */
  if (!BROKEN(BREAK_REUSE_UNCOMMITTED) &&
      (last > limits->recovery_epoch || is_left(log, first, last)))
    return USAGE_NOT_COMMITTED;
  if (!BROKEN(BREAK_REUSE_PINNED) &&
      (tick >= limits->horizon || limits->ended_tick >= limits->horizon))
    return USAGE_PINNED;
  return USAGE_MAY;
}

static void add_in_use(const struct log *log, const struct share_segment *entry,
                       const struct limits *limits,
                       struct usage_totals *totals) {
  uint32_t state = usage_state(entry);
  int64_t live = usage_live_bytes(entry);
  totals->used_count++;
  totals->branch_count += (state & SHARE_SEGMENT_BRANCHES) != 0;
  if ((state & SHARE_SEGMENT_UNCOUNTED) != 0) {
    totals->uncounted_count++;
    return;
  }
  if ((state & SHARE_SEGMENT_STUCK) != 0) totals->stuck_count++;
  totals->live_bytes += live > 0 ? (uint64_t)live : 0;
  if (live > 0 && (state & SHARE_SEGMENT_BRANCHES) != 0)
    totals->branch_live_bytes += (uint64_t)live;
  if (live > 0 && usage_is(entry, SHARE_SEGMENT_LARGE))
    totals->large_live_bytes += (uint64_t)live;
  uint64_t first =
      atomic_load_explicit(&entry->first_epoch, memory_order_relaxed);
  if (!is_held(log, &limits->held, first, UINT64_MAX) &&
      !is_left(log, first, UINT64_MAX))
    return;
  totals->held_count++;
  totals->held_live_bytes += live > 0 ? (uint64_t)live : 0;
}

static void free_if_possible(const struct log *log, struct share_segment *entry,
                             const struct limits *limits,
                             struct usage_totals *totals) {
  totals->empty_count++;
  switch (refusal(log, entry, limits)) {
    case USAGE_PINNED:
      totals->wait_pin_count++;
      return;
    case USAGE_SNAPSHOT:
      totals->wait_snapshot_count++;
      return;
    case USAGE_NOT_COMMITTED:
      totals->wait_commit_count++;
      return;
    case USAGE_MAY:
      break;
  }
  totals->empty_count--;
  totals->free_count++;
  usage_set_state(entry, SHARE_SEGMENT_FREE);
}

static void sweep(struct log *log, const struct limits *limits,
                  struct usage_totals *totals) {
  memset(totals, 0, sizeof *totals);
  totals->snapshot_count = limits->held.count;
  uint64_t first_free = log->space->segment_count;
  uint64_t wanted = log_large_run(log), side_by_side = 0;
  for (uint64_t i = 0; i < log->space->segment_count; i++) {
    struct share_segment *entry = usage_entry(log->space, i);
    bool is_open = is_head(log, i);
    if (is_in_use(entry) && !is_open) {
      if (usage_live_bytes(entry) <= 0 &&
          (usage_state(entry) & SHARE_SEGMENT_UNCOUNTED) == 0)
        make_empty(log, entry);
      else if (atomic_load_explicit(&entry->last_epoch, memory_order_relaxed) ==
               UINT64_MAX)
        /* Whoever began it has died, or failed, before others saw that. */
        usage_leave(log, i, 1, log->epoch);
    }
    if (is_in_use(entry))
      add_in_use(log, entry, limits, totals);
    else if (usage_is(entry, SHARE_SEGMENT_EMPTY))
      free_if_possible(log, entry, limits, totals);
    else
      totals->free_count++;
    if (!usage_is(entry, SHARE_SEGMENT_FREE)) {
      if (side_by_side < wanted) totals->narrow_count += side_by_side;
      side_by_side = 0;
      continue;
    }
    side_by_side++;
    if (i < first_free) first_free = i;
    if ((usage_state(entry) & SHARE_SEGMENT_HOLE) != 0) totals->hole_count++;
  }
  log->header->upkeep.first_free = first_free;
}

void usage_sweep(struct log *log, struct usage_totals *totals_out) {
  struct limits limits;
  find_limits(log, &limits);
  sweep(log, &limits, totals_out);
  if (totals_out->wait_snapshot_count == 0) return;
  /* Perhaps of processes that are dead. */
  uint32_t count = limits.held.count;
  readers_bury_dead(log->space->readers);
  find_limits(log, &limits);
  if (limits.held.count < count) sweep(log, &limits, totals_out);
}

/* ---- Choosing ------------------------------------------------------------- */

bool usage_find_free(const struct space *space, uint64_t first, uint64_t run,
                     uint64_t *number_out) {
  const struct share_upkeep *upkeep = &space->readers->share->header->upkeep;
  uint64_t found = 0;
  if (first < upkeep->first_free) first = upkeep->first_free;
  for (uint64_t i = first; i < space->segment_count; i++) {
    found = usage_is(usage_entry(space, i), SHARE_SEGMENT_FREE) ? found + 1 : 0;
    if (found < run) continue;
    *number_out = i + 1 - run;
    return true;
  }
  *number_out = 0;
  return false;
}

uint64_t usage_segment_count(const struct space *space) {
  uint64_t count = space->segment_count;
  while (count > 1 &&
         usage_is(usage_entry(space, count - 1), SHARE_SEGMENT_FREE))
    count--;
  return count;
}

uint64_t usage_end(const struct log *log) {
  const struct space *space = log->space;
  uint64_t count = usage_segment_count(space);
  uint64_t end = count << space->segment_shift;
  uint64_t last = count - 1;
  if (last == number_of(space, log->frame_offset))
    end = log->cursor;
  else if (is_branch_head(space, log->branches.segment_end, last))
    end = log->branches.cursor;
  else if (log->large.limit > log->large.offset &&
           last == number_of(space, log->large.limit - 1))
    end = log->large.offset;
  uint64_t heads = log_end(log);
  if (end < heads) end = heads;
  return end < space->writable_bytes ? end : space->writable_bytes;
}

bool usage_may_be_moved(const struct log *log, uint64_t number,
                        const struct readers_held *held) {
  const struct share_segment *entry = usage_entry(log->space, number);
  uint32_t state = usage_state(entry);
  uint64_t first =
      atomic_load_explicit(&entry->first_epoch, memory_order_relaxed);
  state &= ~(uint32_t)(SHARE_SEGMENT_TAIL | SHARE_SEGMENT_BRANCHES);
  return (state == SHARE_SEGMENT_LOG || state == SHARE_SEGMENT_LARGE) &&
         !is_head(log, number) &&
         atomic_load_explicit(&entry->last_epoch, memory_order_relaxed) <
             log->first_epoch &&
         !is_held(log, held, first, UINT64_MAX) &&
         !is_left(log, first, UINT64_MAX);
}

bool usage_may_be_cleaned(const struct log *log, uint64_t number) {
  static const struct readers_held nothing = {0};
  return usage_may_be_moved(log, number, &nothing);
}

/* ---- Counting ------------------------------------------------------------- */

void usage_uncount_all(const struct space *space) {
  for (uint64_t i = 0; i < space->segment_count; i++) {
    struct share_segment *entry = usage_entry(space, i);
    if (!is_in_use(entry)) continue;
    uint32_t state =
        usage_state(entry) & (SHARE_SEGMENT_STATE_MASK | SHARE_SEGMENT_TAIL);
    usage_set_state(entry, state | SHARE_SEGMENT_UNCOUNTED);
    atomic_store_explicit(&entry->live_words, 0, memory_order_relaxed);
  }
}

void usage_count(const struct space *space, uint64_t number,
                 const struct usage_found *found) {
  struct share_segment *entry = usage_entry(space, number);
  if ((usage_state(entry) & SHARE_SEGMENT_UNCOUNTED) == 0) return;
  /* What many saved snapshots share has been found for each of them: the count of
     it would become less than none. */
  uint64_t live_bytes = found->live_bytes < space->segment_size
                            ? found->live_bytes
                            : space->segment_size;
  usage_raise(space, number << space->segment_shift, live_bytes);
  if (atomic_load(&entry->first_epoch) == 0) /* of before the session */
    atomic_store(&entry->first_epoch, found->first_epoch);
  uint32_t state = usage_state(entry) & ~(uint32_t)SHARE_SEGMENT_UNCOUNTED;
  if (found->has_pages)
    state = SHARE_SEGMENT_LARGE | (state & SHARE_SEGMENT_TAIL);
  if (found->is_tail) state |= SHARE_SEGMENT_TAIL;
  usage_set_state(entry, state);
}

/* ---- The table in the file ------------------------------------------------ */

void usage_encode(const struct space *space, uint8_t *table_out) {
  for (uint64_t i = 0; i < space->segment_count; i++) {
    const struct share_segment *entry = usage_entry(space, i);
    int64_t words = usage_live_bytes(entry) / 8;
    uint32_t state =
        usage_state(entry) & (SHARE_SEGMENT_STATE_MASK |
                              SHARE_SEGMENT_UNCOUNTED | SHARE_SEGMENT_TAIL);
    /* Whoever opens it next finds nobody who could see what is empty. */
    if (state == SHARE_SEGMENT_EMPTY) state = SHARE_SEGMENT_FREE;
    if (state == SHARE_SEGMENT_FREE || words < 0) words = 0;
    bytes_set_u32(table_out + i * USAGE_ENTRY_BYTES, (uint32_t)words);
    bytes_set_u32(table_out + i * USAGE_ENTRY_BYTES + 4, state);
  }
}

static void install(const struct space *space, uint64_t number, int32_t words,
                    uint32_t state) {
  struct share_segment *entry = usage_entry(space, number);
  atomic_store_explicit(&entry->live_words, words, memory_order_relaxed);
  atomic_store_explicit(&entry->first_epoch, 0, memory_order_relaxed);
  atomic_store_explicit(&entry->last_epoch, 0, memory_order_relaxed);
  atomic_store_explicit(&entry->tick, 0, memory_order_relaxed);
  usage_set_state(entry, state);
}

void usage_decode(const struct space *space, const uint8_t *table) {
  for (uint64_t i = 0; i < space->segment_count; i++) {
    uint32_t words = bytes_u32(table + i * USAGE_ENTRY_BYTES);
    uint32_t state = bytes_u32(table + i * USAGE_ENTRY_BYTES + 4);
    bool is_free = state == SHARE_SEGMENT_FREE && words == 0;
    uint32_t kind = state & ~(uint32_t)SHARE_SEGMENT_TAIL;
    bool is_counted =
        (kind == SHARE_SEGMENT_LOG || kind == SHARE_SEGMENT_LARGE) &&
        words <= space->segment_size / 8;
    if (is_free || is_counted)
      install(space, i, (int32_t)words, state);
    else
      install(space, i, 0, SHARE_SEGMENT_LOG | SHARE_SEGMENT_UNCOUNTED);
  }
}

void usage_claim(const struct space *space,
                 const struct superblock_head *head) {
  if (head->limit == 0) return;
  uint64_t number = number_of(space, head->limit - 1);
  if (number < space->segment_count &&
      usage_is(usage_entry(space, number), SHARE_SEGMENT_FREE))
    install(space, number, 0, SHARE_SEGMENT_LOG | SHARE_SEGMENT_UNCOUNTED);
}

void usage_install_uncounted(const struct space *space, bool is_empty) {
  uint32_t flag =
      is_empty || BROKEN(BREAK_TRUST_COUNTS) ? 0 : SHARE_SEGMENT_UNCOUNTED;
  for (uint64_t i = 0; i < space->segment_count; i++)
    install(space, i, 0, SHARE_SEGMENT_LOG | flag);
}
