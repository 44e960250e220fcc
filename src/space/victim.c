/* SPDX-License-Identifier: MIT */
/*
 * What to clean: the segments in which least is alive ("greedy": Rosenblum and
 * Ousterhout, "The design and implementation of a log-structured file system",
 * 1992, who found better ones for long-lived data; here branches, which die
 * young, have segments of their own).
 */
#include "space/piece.h"
#include "space/log.h"

enum {
  LARGE_WASTE_PARTS = 6,   /* of what is alive there */
  BRANCH_WEIGHT_PARTS = 8, /* tenths that a branch's byte counts more for */
  BRANCH_COPIES = 2,       /* bytes of those above it, for one of a branch */
  SLIDE_PARTS = 28,   /* of what is alive: so much too much is worth a slide */
  SLIDE_SEGMENTS = 1, /* and so many segments, */
  SLIDE_AGAIN_PARTS = 12, /* more, in another pass, */
  SLIDE_LARGE_PARTS = 16, /* if such a part is for large values */
  PIECE_PARTS = 5,
  PIECE_PARTS_MOST =
      4 /* of a segment may be alive, if it is to come earlier for
                          the sake of its piece */
};

/* A value that is longer than a segment moves as a whole. */
static uint64_t run_at(const struct space *space, uint64_t number) {
  uint64_t end = number + 1;
  /* A segment that comes before the rest of an older run is none of it. */
  bool is_large = usage_is(usage_entry(space, number), SHARE_SEGMENT_LARGE);
  while (is_large && end < space->segment_count) {
    const struct share_segment *entry = usage_entry(space, end);
    if (!usage_is(entry, SHARE_SEGMENT_LARGE) ||
        (usage_state(entry) & SHARE_SEGMENT_TAIL) == 0)
      break;
    end++;
  }
  return end - number;
}

/* Compacting looks at each segment once: not at those that it has filled. */
static bool was_compacted(const struct log *log,
                          const struct share_segment *entry) {
  return log_is_compacting(log) &&
         atomic_load(&entry->first_epoch) >= log->header->upkeep.compact_epoch;
}

static bool run_may_be_victim(const struct log *log, bool tail,
                              const struct usage_victim *run,
                              const struct readers_held *held) {
  for (uint64_t i = run->number; i < run->number + run->run; i++)
    if (!usage_may_be_moved(log, i, held) ||
        (!tail && was_compacted(log, usage_entry(log->space, i))))
      return false;
  return true;
}

/* Whether a run that begins in a lower segment goes on there. */
static bool is_within_run(const struct space *space, uint64_t number) {
  return number > 0 &&
         (usage_state(usage_entry(space, number)) & SHARE_SEGMENT_TAIL) != 0 &&
         usage_is(usage_entry(space, number - 1), SHARE_SEGMENT_LARGE);
}

/* How much of a segment it takes to move what is alive in it, on average: of
   those for large values some stays empty. The first one has less room. */
static int64_t live_in(const struct space *space,
                       const struct usage_victim *run) {
  int64_t live = 0;
  for (uint64_t i = run->number; i < run->number + run->run; i++)
    live += usage_live_bytes(usage_entry(space, i));
  if (usage_is(usage_entry(space, run->number), SHARE_SEGMENT_LARGE))
    live += live / LARGE_WASTE_PARTS;
  if (run->number == 0) live += SEGMENT_FIRST_HEADER_OFFSET;
  return live / (int64_t)run->run;
}

/* Copies of branches for the sake of moving that, if nothing else is moved: what has been
   copied once is not copied again before the next commit. */
static int64_t copies_for(const struct log *log,
                          const struct usage_victim *run) {
  const struct share_segment *entry = usage_entry(log->space, run->number);
  if (usage_is(entry, SHARE_SEGMENT_LARGE)) return LOG_COPY_BYTES;
  if ((usage_state(entry) & SHARE_SEGMENT_BRANCHES) != 0)
    return run->live_bytes * BRANCH_COPIES;
  return run->live_bytes * LOG_COPY_BYTES / (int64_t)(log->mean_bytes + 1);
}

bool usage_find_last(const struct log *log, uint64_t behind,
                     struct usage_victim *victim_out) {
  const struct space *space = log->space;
  struct readers_held held;
  struct usage_victim run = {0};
  readers_find_held(space->readers, &held);
  for (run.number = space->segment_count; run.number > 0;) {
    run.number--;
    if (is_within_run(space, run.number)) continue;
    run.run = run_at(space, run.number);
    uint32_t state = usage_state(usage_entry(space, run.number));
    if ((state & SHARE_SEGMENT_BRANCHES) != 0 && run.number <= behind) continue;
    if (!run_may_be_victim(log, true, &run, &held)) continue;
    run.live_bytes = live_in(space, &run);
    *victim_out = run;
    return true;
  }
  return false;
}

/* Branches are a small part of what is alive and the larger part of what is
   written: the cost of cleaning all is least if they have more of what is dead
   beside them than records have (in proportion to the root of size times rate). */
static int64_t rank_of(const struct share_segment *entry, int64_t live) {
  return (usage_state(entry) & SHARE_SEGMENT_BRANCHES) == 0
             ? live
             : live + live * BRANCH_WEIGHT_PARTS / 10;
}

/* The piece that was looked at last. */
struct seen_piece {
  uint64_t size;
  uint64_t begin;
  uint64_t end; /* 0: none yet */
  int64_t rank; /* of a segment of it, on average */
};

static void see_piece(const struct space *space, uint64_t number,
                      struct seen_piece *piece) {
  int64_t sum = 0;
  piece_bounds(space, number, piece->size, &piece->begin, &piece->end);
  for (uint64_t i = piece->begin; i < piece->end; i++) {
    const struct share_segment *entry = usage_entry(space, i);
    int64_t live = usage_live_bytes(entry);
    if ((usage_state(entry) & SHARE_SEGMENT_UNCOUNTED) != 0)
      live = space->segment_size;
    if (live > 0) sum += rank_of(entry, live);
  }
  piece->rank = sum / (int64_t)(piece->end - piece->begin);
}

/* A segment whose neighbours are nearly empty comes earlier, so that all of its
   piece is free in the end: unless it is nearly full itself. */
static int64_t rank_in_piece(const struct space *space,
                             const struct usage_victim *run,
                             struct seen_piece *piece) {
  int64_t rank = rank_of(usage_entry(space, run->number), run->live_bytes);
  if (piece->size == 1 ||
      run->live_bytes > space->segment_size / PIECE_PARTS * PIECE_PARTS_MOST)
    return rank;
  if (run->number < piece->begin || run->number >= piece->end)
    see_piece(space, run->number, piece);
  return (rank + piece->rank) / 2;
}

/* Whether a segment is, or soon will be, free. */
static bool is_or_comes_free(const struct space *space, uint64_t number) {
  const struct share_segment *entry = usage_entry(space, number);
  return usage_is(entry, SHARE_SEGMENT_FREE) ||
         usage_is(entry, SHARE_SEGMENT_EMPTY);
}

/* Where large values need several segments side by side, a run counts for more with
   what is free beside it. */
static int64_t rank_beside(const struct log *log,
                           const struct usage_victim *run) {
  const struct space *space = log->space;
  uint64_t wanted = log_large_run(log), first = run->number;
  uint64_t end = first + run->run;
  if (wanted == 1) return run->rank;
  while (first > 1 && run->number - first < wanted &&
         is_or_comes_free(space, first - 1))
    first--;
  while (end < space->segment_count && end - run->number < run->run + wanted &&
         is_or_comes_free(space, end))
    end++;
  return run->rank * (int64_t)run->run / (int64_t)(end - first);
}

/* Sorted in, by rank, unless the list has better ones. */
static void add_victim(struct usage_victims *list, unsigned most,
                       const struct usage_victim *victim) {
  unsigned i = list->count;
  if (i == most && victim->rank >= list->all[i - 1].rank) return;
  if (i == most)
    i--;
  else
    list->count++;
  for (; i > 0 && list->all[i - 1].rank > victim->rank; i--)
    list->all[i] = list->all[i - 1];
  list->all[i] = *victim;
}

static void list_victims(const struct log *log, const struct readers_held *held,
                         struct usage_victims *list) {
  const struct space *space = log->space;
  bool is_at_last = space_is_at_last(space);
  uint64_t most = space->segment_count / USAGE_VICTIM_PARTS + 1;
  struct usage_victim run = {0};
  struct seen_piece piece = {.size = piece_segments(space)};
  if (most > USAGE_VICTIMS) most = USAGE_VICTIMS;
  list->count = list->next = 0;
  list->has_held = held->count > 0 || log->header->upkeep.saved_newest != 0;
  for (; run.number < space->segment_count; run.number += run.run) {
    run.run = run_at(space, run.number);
    if (!run_may_be_victim(log, false, &run, held)) continue;
    run.live_bytes = live_in(space, &run);
    run.copies = copies_for(log, &run);
    run.rank = is_at_last ? run.live_bytes + run.copies
                          : rank_in_piece(space, &run, &piece);
    run.rank = rank_beside(log, &run);
    add_victim(list, (unsigned)most, &run);
  }
}

void usage_note_claim(struct log *log) {
  struct usage_victims *list = &log->victims;
  bool is_at_last = space_is_at_last(log->space);
  if (list->is_at_last != is_at_last) list->count = list->next = 0;
  list->is_at_last = is_at_last;
}

bool usage_find_victim(struct log *log, int64_t worth_bytes,
                       struct usage_victim *victim_out) {
  const struct space *space = log->space;
  struct usage_victims *list = &log->victims;
  struct readers_held held;
  /* What has been copied is soon dead where it was; who compacts wants it at once. */
  bool counts_copies = space_is_at_last(space) && log_is_compacting(log);
  readers_find_held(space->readers, &held);
  for (int pass = 0; pass < 2; pass++) {
    while (list->next < list->count) {
      struct usage_victim *next = &list->all[list->next++];
      if (next->number >= space->segment_count ||
          next->run != run_at(space, next->number) ||
          is_within_run(space, next->number) ||
          !run_may_be_victim(log, false, next, &held) ||
          live_in(space, next) > next->live_bytes ||
          next->live_bytes + (counts_copies ? next->copies : 0) >= worth_bytes)
        continue; /* it may be another by now */
      *victim_out = *next;
      return true;
    }
    if (pass == 0) list_victims(log, &held, list);
  }
  return false;
}

/* ---- Slides --------------------------------------------------------------- */

/* Whether a slide leaves a run where it is: it is full, and little is empty before
   it. */
static bool is_left(const struct space *space, struct usage_slide *slide,
                    const struct usage_victim *run) {
  int64_t size = (int64_t)(run->run << space->segment_shift);
  int64_t empty = size;
  for (uint64_t i = run->number; i < run->number + run->run; i++)
    empty -= usage_live_bytes(usage_entry(space, i));
  slide->gap_bytes += empty;
  return empty < size / SLIDE_PARTS && slide->gap_bytes < slide->worth_bytes;
}

/* Whether it is of the kind that a phase moves. */
static bool is_of_phase(const struct space *space, enum usage_phase phase,
                        uint64_t number) {
  const struct share_segment *entry = usage_entry(space, number);
  bool is_large = usage_is(entry, SHARE_SEGMENT_LARGE);
  bool has_branches = (usage_state(entry) & SHARE_SEGMENT_BRANCHES) != 0;
  switch (phase) {
    case USAGE_PHASE_LARGE:
      return is_large;
    case USAGE_PHASE_RECORDS:
      return !is_large && !has_branches;
    case USAGE_PHASE_BRANCHES:
      return has_branches;
    default:
      return true;
  }
}

bool usage_find_next(struct log *log, struct usage_victim *victim_out) {
  const struct space *space = log->space;
  struct usage_slide *slide = &log->slide;
  struct readers_held held;
  enum usage_phase phase = log_phase(log);
  uint64_t end = atomic_load(&slide->end);
  if (end == 0 || !log_is_compacting(log)) return false;
  if (end > space->segment_count) end = space->segment_count;
  readers_find_held(space->readers, &held);
  while (slide->next < end) {
    struct usage_victim run = {.number = slide->next};
    run.run = run_at(space, run.number);
    slide->next += run.run;
    bool is_left_there = phase == USAGE_PHASE_NONE
                             ? is_left(space, slide, &run)
                             : !is_of_phase(space, phase, run.number);
    if (is_within_run(space, run.number) || is_left_there ||
        !run_may_be_victim(log, phase == USAGE_PHASE_NONE, &run, &held))
      continue;
    *victim_out = run;
    return true;
  }
  atomic_store(&slide->end, 0);
  return false;
}

static uint64_t count_large(const struct space *space) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < space->segment_count; i++)
    count += usage_is(usage_entry(space, i), SHARE_SEGMENT_LARGE);
  return count;
}

/* What is not counted may be alive. */
static bool usage_is_compact(const struct space *space,
                             const struct usage_totals *totals) {
  uint64_t live =
      totals->live_bytes + (totals->uncounted_count << space->segment_shift);
  return space->segment_count << space->segment_shift <=
         live + live / SLIDE_PARTS +
             ((uint64_t)SLIDE_SEGMENTS << space->segment_shift);
}

bool usage_begin_slide(struct log *log, const struct usage_totals *totals,
                       bool is_first) {
  const struct space *space = log->space;
  struct usage_slide *slide = &log->slide;
  uint64_t live = totals->live_bytes;
  uint64_t most = live + live / SLIDE_PARTS +
                  ((uint64_t)SLIDE_SEGMENTS << space->segment_shift);
  uint64_t least_large = is_first ? totals->used_count / SLIDE_LARGE_PARTS : 0;
  uint64_t size = space->segment_count << space->segment_shift;
  bool has_large = count_large(space) > least_large;
  atomic_store(&slide->phase, USAGE_PHASE_NONE);
  atomic_store(&slide->was_one, !is_first && has_large);
  slide->next = 0;
  slide->gap_bytes = 0;
  slide->worth_bytes = (int64_t)(live / SLIDE_PARTS / 2 + space->segment_size);
  if (!is_first) most += live / SLIDE_AGAIN_PARTS;
  atomic_store(&slide->end,
               size > most && has_large ? space->segment_count : 0);
  return !usage_is_compact(space, totals) || !has_large;
}

void usage_begin_phase(struct log *log, enum usage_phase phase) {
  struct usage_slide *slide = &log->slide;
  atomic_store(&slide->phase, phase);
  atomic_store(&slide->was_one, false);
  slide->next = 0;
  atomic_store(&slide->end, log->space->segment_count);
}
