/* SPDX-License-Identifier: MIT */
/*
 * Large values follow each other in runs of segments. A run is begun long enough
 * for what is likely to come; while somebody compacts it is begun as short as can
 * be, where it can be made longer whenever a value does not fit.
 */
#include "base/errors.h"
#include "space/log.h"

enum {
  LARGE_RUN_MORE = 7,  /* segments than one value needs */
  LARGE_RUN_MOST = 12, /* so many are not made more by a value */
  LARGE_REST_PARTS = 16,
  LARGE_REST_PARTS_COMPACTING = 64,
  LARGE_LATELY_PARTS = 8, /* of the store's size, appended since */
  LARGE_RUN_PARTS = 16    /* of the store, in which that many may be free */
};

/* How many segments side by side to begin for a value, `least` at least: so many
   that values of this size leave little of them empty. */
static uint64_t run_for(const struct space *space, uint64_t size,
                        uint64_t least) {
  uint64_t number;
  for (uint64_t run = least; run < least + LARGE_RUN_MORE; run++) {
    uint64_t bytes = run * space->segment_size - EXTENT_PAGE_BYTES;
    if (bytes % size > bytes / 10) continue;
    return usage_find_free(space, 1, run, &number) ? run : least;
  }
  return least;
}

/* How many segments side by side a value needs. */
static uint64_t run_of(const struct space *space, uint64_t size) {
  return (size + EXTENT_PAGE_BYTES + space->segment_size - 1) /
         space->segment_size;
}

/* One that is longer is remembered for as many others. */
static void note_run(struct log *log, uint64_t run) {
  uint64_t before = atomic_load(&log->large_run);
  atomic_store(&log->large_run, run >= before ? run : before - 1);
  atomic_store(&log->large_appended, log->appended_bytes);
}

bool log_has_large(const struct log *log, uint64_t count) {
  uint64_t lately = (count << log->space->segment_shift) / LARGE_LATELY_PARTS;
  uint64_t before = atomic_load(&log->large_appended);
  return atomic_load(&log->large_run) != 0 &&
         atomic_load(&log->header->change.appended_bytes) < before + lately;
}

uint64_t log_large_run(const struct log *log) {
  uint64_t count = log->space->segment_count;
  uint64_t run = atomic_load(&log->large_run);
  return run > 1 && run <= count / LARGE_RUN_PARTS && log_has_large(log, count)
             ? run
             : 1;
}

void log_leave_large(struct log *log) {
  struct superblock_head *large = &log->large;
  unsigned shift = log->space->segment_shift;
  if (large->limit > large->offset)
    usage_leave(log, large->offset >> shift,
                ((large->limit - 1) >> shift) - (large->offset >> shift) + 1,
                log->epoch);
  large->offset = large->limit = 0;
}

bool log_is_behind_large(const struct log *log, uint64_t number,
                         uint64_t *other_out) {
  const struct space *space = log->space;
  uint64_t next = log->large.limit >> space->segment_shift;
  return log->large.limit != 0 && number >= next &&
         number < next + LARGE_RUN_MORE &&
         usage_find_free(space, next + LARGE_RUN_MORE, 1, other_out) &&
         usage_state(usage_entry(space, *other_out)) == SHARE_SEGMENT_FREE;
}

static bool are_free(const struct space *space, uint64_t number, uint64_t run) {
  for (uint64_t i = number; i < number + run && i < space->segment_count; i++)
    if (!usage_is(usage_entry(space, i), SHARE_SEGMENT_FREE)) return false;
  return true;
}

/* Where a run can begin that is made longer as values come. */
static uint64_t choose_to_extend(const struct log *log, uint64_t run) {
  struct space *space = log->space;
  uint64_t number;
  if (log_phase(log) == USAGE_PHASE_OUT) return usage_segment_count(space);
  for (uint64_t most = run + LARGE_RUN_MORE; most > run; most--)
    if (usage_find_free(space, 1, most, &number)) return number;
  return space_choose_segments(space, SEGMENT_LARGE, run);
}

/* The run, which is cleaned as a whole, can end: such a part of it stays empty, or
   it is long. */
static bool may_end(const struct log *log) {
  const struct space *space = log->space;
  uint64_t first = (log->large.limit - 1) >> space->segment_shift;
  while (first > 0 &&
         (usage_state(usage_entry(space, first)) & SHARE_SEGMENT_TAIL) != 0)
    first--;
  uint64_t size = log->large.limit - (first << space->segment_shift);
  uint64_t rest = log->large.limit - log->large.offset;
  if (log_is_compacting(log)) return rest * LARGE_REST_PARTS_COMPACTING <= size;
  return rest * LARGE_REST_PARTS <= size ||
         size >> space->segment_shift >= LARGE_RUN_MOST;
}

/* Whether there is room before a run that is better than what follows it. */
static bool is_better_below(const struct space *space, uint64_t number,
                            uint64_t more) {
  uint64_t lower;
  uint64_t wanted =
      number + more > space->segment_count ? more + 1 : more + LARGE_RUN_MORE;
  return usage_find_free(space, 1, wanted, &lower) && lower < number;
}

/* In a store that may not grow, whoever makes room finds as many segments side by side
   as the last value needed: those that are free one by one take none. */
static bool leaves_a_run(const struct log *log, uint64_t number, uint64_t run) {
  const struct space *space = log->space;
  uint64_t wanted = log_large_run(log), limit = space_limit(space), other;
  uint64_t end = number + run;
  if (wanted < 2 || limit == 0 || atomic_load(&space->claim) != SPACE_FOR_PUTS)
    return true;
  if (end < space->segment_count) end = space->segment_count;
  return (end + wanted) << space->segment_shift <= limit ||
         (usage_find_free(space, 1, wanted, &other) &&
          other + wanted <= number) ||
         usage_find_free(space, number + run, wanted, &other);
}

/* The run goes on in the segments behind it, if they are free: then little stays
   empty between two values. */
static bool extend_run(struct log *log, uint64_t size) {
  struct space *space = log->space;
  struct superblock_head *large = &log->large;
  uint64_t number = large->limit >> space->segment_shift;
  uint64_t more =
      (size - (large->limit - large->offset) + space->segment_size - 1) >>
      space->segment_shift;
  if (large->limit == 0 || may_end(log) || !are_free(space, number, more) ||
      is_better_below(space, number, more) || !leaves_a_run(log, number, more))
    return false;
  /* Its header lies where the value will. */
  if (space_begin_segments(space, SEGMENT_LARGE, number, more,
                           large->offset + size, log->epoch) != MMCMAP_OK)
    return false;
  atomic_fetch_or(&usage_entry(space, number)->state, SHARE_SEGMENT_TAIL);
  large->limit += more << space->segment_shift;
  return true;
}

static int begin_at(struct log *log, uint64_t number, uint64_t run,
                    uint64_t size) {
  struct space *space = log->space;
  uint64_t begin = (number << space->segment_shift) + EXTENT_PAGE_BYTES;
  if (!leaves_a_run(log, number, run))
    return error_set(MMCMAP_EFULL, "growing the file");
  int code = space_begin_segments(space, SEGMENT_LARGE, number, run,
                                  begin + size, log->epoch);
  if (code != MMCMAP_OK) return code;
  log_leave_large(log);
  log->large.offset = begin;
  log->large.limit = (number + run) << space->segment_shift;
  return MMCMAP_OK;
}

/* Begins segments for large values, side by side, the first one of which is
   `size` bytes long. */
static int begin_run(struct log *log, uint64_t size) {
  struct space *space = log->space;
  uint64_t run = run_of(space, size);
  log_look(log, run);
  bool is_short = log_is_compacting(log);
  if (!is_short) run = run_for(space, size, run);
  uint64_t number = is_short ? choose_to_extend(log, run)
                             : space_choose_segments(space, SEGMENT_LARGE, run);
  int code = begin_at(log, number, run, size);
  /* There may be holes that cannot be filled, and others. */
  if (error_is_full(code) && is_short)
    code = begin_at(log, space_choose_segments(space, SEGMENT_LARGE, run), run,
                    size);
  return code;
}

int log_alloc_large(struct log *log, uint64_t size, uint64_t *offset_out) {
  *offset_out = 0;
  CHECK(size % EXTENT_PAGE_BYTES == 0 && size > 0);
  struct superblock_head *large = &log->large;
  int code = MMCMAP_OK;
  if (large->limit - large->offset < size) {
    note_run(log, run_of(log->space, size));
    if (!extend_run(log, size)) code = begin_run(log, size);
  }
  if (code == MMCMAP_OK) code = space_ensure(log->space, large->offset + size);
  if (code != MMCMAP_OK) return code;
  *offset_out = log->pages_offset = large->offset;
  log->pages_size = size;
  usage_raise_pages(log->space, large->offset, size);
  large->offset += size;
  if (large->offset == large->limit) large->offset = large->limit = 0;
  log->is_moved = true;
  log->appended_bytes += size;
  log->large_bytes += size;
  return MMCMAP_OK;
}
