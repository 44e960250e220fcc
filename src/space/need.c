/* SPDX-License-Identifier: MIT */
/*
 * How much there is to do for space, which is looked at when some segments
 * have been begun: what is used beside what is alive, and what is kept in reserve.
 */
#include "base/testing.h"
#include "os/process.h"
#include "space/log.h"
#include "space/piece.h"

/* How many percent more than what is alive may be in use until upkeep is worth
   while: when nothing else is to do, soon, and at once. Cleaning is the dearer
   the earlier it comes. */
static const uint64_t slack_percent[] = {
    [SHARE_NEED_IDLE] = 15, [SHARE_NEED_SOON] = 22, [SHARE_NEED_NOW] = 27};

enum {
  SLACK_SEGMENTS = 3,
  WAITING_PARTS = 20,        /* of what is used: as many segments wait for a
                                commit until it is made, */
  WAITING_PARTS_PIECES = 12, /* where whole pieces are cleaned, */
  WAITING_PARTS_LATE = 11,   /* or those who make changes wait for it; */
  CROWDED_PARTS = 16, /* of the limit are not alive, beside the reserve; */
  WASTE_RUN_MOST = 3, /* segments: longer values lie in runs of their own */
  GAIN_PARTS = 8,     /* of what is used: after a commit it may be moved */
  WAITING_COPY_BYTES =
      32, /* of branches for a record: so much waits where there
                                is no space, in whole segments, */
  WAITING_COPIES_MOST = 32, /* so many at most; */
  VAIN_TIMES = 8,           /* what is used has been moved since, in vain; */
  WAITING_PARTS_OUT = 32,   /* or fewer, and */
  OUT_SEGMENTS = 2,         /* more, if not more are free */
  OFTEN_PARTS = 64,     /* of the store, appended from one commit to the next */
  OFTEN_SEGMENTS = 128, /* in a smaller store enough is copied together, and one
                           commit frees a great part of all; */
  OFTEN_RECORD_BYTES =
      384,            /* beside larger records copies of branches are little */
  LITTLE_COMMITS = 8, /* of little, and others like them may be expected */
  BEGUN_PARTS = 64,   /* one of so many is begun between two looks at all */
  DROPPED_RECORD_BYTES = 64, /* is the least that one takes with branches */
  BRANCH_BYTES_PER_RECORD = 16,
  SPARSE_SEGMENTS = 2,    /* so many may be free in any store */
  FALL_NS = 1000000000,   /* in which time one of */
  FALL_PARTS = 16,        /* parts has been deleted: cleaning waits, */
  FALL_APPENDED_PARTS = 8 /* but not while so much has been appended meanwhile
                             that this is such a part of it */
};

bool log_has_dropped(const struct log *log, const struct usage_totals *totals) {
  uint64_t bytes = log->header->upkeep.dropped_records * DROPPED_RECORD_BYTES;
  return bytes > totals->live_bytes / 16 + log->space->segment_size;
}

void log_drop_unknown(struct log *log) {
  const struct space *space = log->space;
  log->header->upkeep.dropped_records +=
      (space->segment_count << space->segment_shift) / DROPPED_RECORD_BYTES;
}

bool log_is_compacting(const struct log *log) {
  return space_is_compacting(log->space);
}

enum usage_phase log_phase(const struct log *log) {
  int phase = atomic_load_explicit(&log->slide.phase, memory_order_relaxed);
  if (phase == USAGE_PHASE_NONE ||
      process_monotonic_ns() > atomic_load(&log->slide.until_ns))
    return USAGE_PHASE_NONE;
  return (enum usage_phase)phase;
}

/* Segments that the log goes on in. */
static uint64_t head_count(const struct log *log) {
  const struct superblock_head *large = &log->large;
  uint64_t segment = log->space->segment_size;
  uint64_t count = log->branches.segment_end != 0 ? 2 : 1;
  return count + (large->limit - large->offset + segment - 1) / segment;
}

/* The heads are never full, and what has become free waits to be used: a small
   store has the less slack for that, but half of it and the heads. */
static uint64_t slack_of(const struct log *log, uint64_t live,
                         enum share_need need) {
  uint64_t segment = log->space->segment_size;
  uint64_t slack = live / 100 * slack_percent[need];
  uint64_t fixed = SLACK_SEGMENTS * segment;
  uint64_t least = slack / 2 + head_count(log) * segment;
  return slack > fixed + least ? slack - fixed : least;
}

/* What snapshots hold is left out, and what waits for them. What waits for a
   commit is soon free, by itself as long as there are changes. What is free but too
   narrow for a large value is as good as used. */
static enum share_need need_to_clean(const struct log *log,
                                     const struct usage_totals *totals) {
  uint64_t segment = log->space->segment_size;
  uint64_t live = totals->live_bytes - totals->held_live_bytes;
  uint64_t used = (totals->used_count - totals->uncounted_count -
                   totals->held_count + totals->narrow_count) *
                  segment;
  uint64_t waiting = totals->wait_commit_count * segment;
  for (int need = SHARE_NEED_NOW; need > SHARE_NEED_IDLE; need--)
    if (used > live + slack_of(log, live, (enum share_need)need))
      return (enum share_need)need;
  return used + waiting > live + slack_of(log, live, SHARE_NEED_IDLE)
             ? SHARE_NEED_IDLE
             : SHARE_NEED_NOTHING;
}

/* What is free is used first; if it is too much, the file may end earlier. */
static enum share_need need_to_shrink(const struct usage_totals *totals) {
  uint64_t used = totals->used_count;
  if (totals->free_count > used / 4 + 2 * SPARSE_SEGMENTS)
    return SHARE_NEED_SOON;
  return totals->free_count > used / 8 + SPARSE_SEGMENTS ? SHARE_NEED_IDLE
                                                         : SHARE_NEED_NOTHING;
}

/* By changes, since there were so many. */
static uint64_t appended_since(const struct log *log, uint64_t bytes) {
  uint64_t done = bytes + atomic_load_explicit(&log->header->upkeep.own_bytes,
                                               memory_order_relaxed);
  uint64_t appended = log->header->change.appended_bytes;
  return appended > done ? appended - done : 0;
}

uint64_t log_uncommitted_bytes(const struct log *log) {
  return appended_since(log,
                        atomic_load_explicit(&log->header->upkeep.closed_bytes,
                                             memory_order_relaxed));
}

bool log_commits_often(const struct log *log) {
  const struct share_upkeep *upkeep = &log->header->upkeep;
  uint64_t size = log->space->segment_count << log->space->segment_shift;
  uint64_t most = size / OFTEN_PARTS;
  uint64_t record =
      atomic_load_explicit(&upkeep->record_bytes, memory_order_relaxed);
  return log->space->segment_count > OFTEN_SEGMENTS && record != 0 &&
         record < OFTEN_RECORD_BYTES &&
         atomic_load_explicit(&upkeep->commit_bytes, memory_order_relaxed) <
             most &&
         log_uncommitted_bytes(log) < most;
}

/* Whether what waits for a commit is looked at closely: in a store of few segments, or
   of large values, it is soon a great part of all. */
static bool has_waves(const struct log *log, uint64_t used) {
  return used <= OFTEN_SEGMENTS || log_has_large(log, used);
}

bool log_has_run_out(const struct log *log, uint64_t waiting, uint64_t used) {
  uint64_t narrow = atomic_load(&log->narrow_count);
  return has_waves(log, used) &&
         atomic_load(&log->header->upkeep.free_count) <=
             narrow + OUT_SEGMENTS &&
         waiting > used / WAITING_PARTS_OUT + OUT_SEGMENTS;
}

bool log_has_little(const struct log *log) {
  return log->appended_bytes -
             atomic_load_explicit(&log->header->upkeep.committed_bytes,
                                  memory_order_relaxed) <
         LOG_LITTLE_BYTES;
}

bool log_commits_little(const struct log *log) {
  if (BROKEN(TESTING_FINE)) return true;
  return space_size(log->space) >= SPACE_PIECES_FROM &&
         atomic_load_explicit(&log->header->upkeep.little_commits,
                              memory_order_relaxed) >= LITTLE_COMMITS &&
         log_has_little(log);
}

bool log_wants_commit(const struct log *log,
                      const struct usage_totals *totals) {
  bool has_pieces = piece_segments(log->space) > 1;
  uint64_t parts = has_pieces ? WAITING_PARTS_PIECES : WAITING_PARTS;
  uint64_t waiting = totals->wait_commit_count, used = totals->used_count;
  return waiting > used / parts || log_has_run_out(log, waiting, used);
}

/* Whether it is less than ever, or counts anew. */
static bool falls(uint64_t now, bool is_anew, uint64_t *least) {
  if (now >= *least && !is_anew) return false;
  *least = now;
  return true;
}

/* So much has been moved since changes have filled a segment, or less than ever since
   was alive, was used for records, or lay before the end. Of small records the copies
   of branches may take as much as is freed. */
bool log_cleans_in_vain(struct log *log, const struct usage_totals *totals) {
  struct log_vain *vain = &log->vain;
  unsigned shift = log->space->segment_shift;
  uint64_t own = atomic_load(&log->header->upkeep.own_bytes);
  uint64_t changed = log->appended_bytes - own;
  uint64_t records = totals->used_count - totals->branch_count;
  bool is_anew = vain->count == 0 || log_is_compacting(log) ||
                 (changed - vain->changed) >> shift > 0;
  bool has_less =
      falls(totals->live_bytes >> shift, is_anew, &vain->live_count);
  has_less |= falls(records, is_anew, &vain->record_count);
  has_less |= falls(log->space->segment_count, is_anew, &vain->count);
  if (has_less) {
    vain->changed = changed;
    vain->own = own;
  }
  return (own - vain->own) >> shift > VAIN_TIMES * totals->used_count;
}

/* On a disk that is full, where others take what is there, and in a small store, where all
   copies of branches may take a segment, deletes need what cleaning leaves of the reserve,
   unless so much is dead that it comes back at once. With a limit a part of it, by what
   is copied beside records. */
enum space_claim log_claim_for_room(const struct log *log,
                                    const struct usage_totals *totals,
                                    bool for_delete) {
  const struct space *space = log->space;
  uint64_t used = totals->used_count << space->segment_shift;
  bool is_mostly_alive = totals->live_bytes / 7 * 10 > used;
  if (for_delete || !is_mostly_alive) return SPACE_AT_LAST;
  if (space_limit(space) == 0 || space_is_small(space)) return SPACE_FOR_UPKEEP;
  return log_is_compacting(log) ? SPACE_AT_LAST : SPACE_FOR_ROOM;
}

/* After a commit all branches above what is moved are copied anew: of many small
   records that may be more than what a few segments give. */
uint64_t log_waiting_at_last(const struct log *log) {
  uint64_t bytes = atomic_load(&log->header->change.count) * WAITING_COPY_BYTES;
  uint64_t count = bytes >> log->space->segment_shift;
  if (space_limit(log->space) == 0) return 0;
  return count < WAITING_COPIES_MOST ? count : WAITING_COPIES_MOST;
}

/* Below its limit the file may grow, or others make room on the disk: then what the
   commit copies anew is not taken from deletes. */
bool log_gains_by_commit(const struct log *log,
                         const struct usage_totals *totals) {
  const struct space *space = log->space;
  uint64_t bytes = log_uncommitted_bytes(log);
  uint64_t segment = space->segment_size;
  uint64_t limit = space_limit(space);
  bool is_at_limit = limit != 0 && space->writable_bytes + segment > limit;
  return !is_at_limit || log->has_one_head || totals->wait_commit_count > 0 ||
         bytes >= segment || bytes >= totals->used_count * segment / GAIN_PARTS;
}

bool log_is_late(const struct log *log, uint64_t waiting, uint64_t used) {
  return waiting > used / WAITING_PARTS_LATE ||
         log_has_run_out(log, waiting, used);
}

/* Whoever deletes most of what there is would have the rest moved again and again,
   while whole segments soon become empty by themselves. Who puts as much falls
   back now and then, too, where values are of all sizes. */
static bool is_emptying(const struct log *log, uint64_t live) {
  struct share_upkeep *upkeep = &log->header->upkeep;
  uint64_t now_ns = process_monotonic_ns();
  uint64_t from = upkeep->fall_bytes;
  uint64_t appended = appended_since(log, upkeep->fall_appended);
  bool has_fallen = live < from - from / FALL_PARTS;
  if (has_fallen || live > from || now_ns - upkeep->fall_ns > FALL_NS ||
      (appended > from / FALL_APPENDED_PARTS &&
       appended / FALL_APPENDED_PARTS > from - live)) {
    atomic_store(&upkeep->is_emptying, has_fallen);
    upkeep->fall_ns = now_ns;
    upkeep->fall_bytes = live;
    upkeep->fall_appended = appended_since(log, 0);
  }
  return atomic_load(&upkeep->is_emptying) != 0;
}

static enum share_need need_of(struct log *log,
                               const struct usage_totals *totals) {
  struct share_upkeep *upkeep = &log->header->upkeep;
  enum share_need to_clean = need_to_clean(log, totals);
  enum share_need to_shrink = need_to_shrink(totals);
  upkeep->is_sparse = to_shrink != SHARE_NEED_NOTHING && to_shrink >= to_clean;
  bool is_falling = is_emptying(log, totals->live_bytes);
  atomic_store(&upkeep->is_late, 0);
  if (is_falling) {
    if (to_clean > SHARE_NEED_IDLE) to_clean = SHARE_NEED_IDLE;
    if (to_shrink > SHARE_NEED_IDLE) to_shrink = SHARE_NEED_IDLE;
  }
  if (atomic_load(&upkeep->is_uncountable) == 0 &&
      (totals->uncounted_count > 0 || log_has_dropped(log, totals)))
    return SHARE_NEED_SOON;
  /* What waits is not there: the file would grow. */
  bool waits = log_wants_commit(log, totals) &&
               totals->wait_commit_count > totals->free_count;
  bool is_late =
      waits && !is_falling && has_waves(log, totals->used_count) &&
      log_is_late(log, totals->wait_commit_count, totals->used_count);
  atomic_store(&upkeep->is_late, is_late && to_clean < SHARE_NEED_SOON);
  if (is_late) return SHARE_NEED_NOW;
  if ((log_is_compacting(log) || waits) && to_clean < SHARE_NEED_SOON)
    return SHARE_NEED_SOON;
  return to_clean > to_shrink ? to_clean : to_shrink;
}

/* What has to be there for space to be freed at all: branches are copied before
   the old ones can be, all of them if changes are spread. */
static uint64_t reserve_of(const struct log *log,
                           const struct usage_totals *totals) {
  uint64_t branches =
      BRANCH_BYTES_PER_RECORD * atomic_load(&log->header->change.count);
  uint64_t most = totals->live_bytes / 4;
  uint64_t count = SPACE_RESERVE_SEGMENTS;
  /* Runs of segments for large values are moved as a whole. */
  if (space_limit(log->space) != 0 &&
      totals->large_live_bytes > totals->live_bytes / 2)
    count *= 2;
  return (count << log->space->segment_shift) +
         (branches < most ? branches : most);
}

/* What no record can use: at the end of a segment, or of a run of them, there is no room
   for half of one on average. */
static uint64_t waste_of(const struct log *log, uint64_t alive) {
  uint64_t segment = log->space->segment_size;
  uint64_t record =
      log->mean_bytes < segment / 3 ? log->mean_bytes : segment / 3;
  return log_large_run(log) <= WASTE_RUN_MOST ? alive / segment * record / 2
                                              : 0;
}

/* What snapshots hold is as good as alive; what is not counted counts for nothing until
   it is. What is left beside the reserve has to be enough for cleaning to give more than
   it takes, and for deletes, each of which copies branches. */
static bool is_crowded(const struct log *log,
                       const struct usage_totals *totals) {
  const struct space *space = log->space;
  uint64_t limit = space_limit(space);
  uint64_t held = totals->held_count + totals->wait_snapshot_count;
  uint64_t alive = totals->live_bytes - totals->held_live_bytes +
                   (held << space->segment_shift);
  alive += waste_of(log, alive);
  uint64_t reserve = reserve_of(log, totals);
  uint64_t kept =
      (reserve < limit / 4 ? reserve : limit / 4) + limit / CROWDED_PARTS;
  /* What has no blocks takes some of the disk's. */
  if (limit != space->max_size_bytes)
    kept += totals->hole_count << space->segment_shift;
  return limit != 0 && !space_is_small(space) && !BROKEN(BREAK_NO_CROWD) &&
         alive + kept > limit;
}

/* What may be written without growing the file, or as far as it may grow: to segments
   that may be begun, and where the log goes on. */
uint64_t log_spare_bytes(const struct log *log,
                         const struct usage_totals *totals) {
  const struct space *space = log->space;
  uint64_t limit = space_limit(space);
  uint64_t end = limit != 0 ? limit : space->writable_bytes;
  uint64_t more = end >> space->segment_shift;
  more = more > space->segment_count ? more - space->segment_count : 0;
  more += totals->free_count - totals->forgotten_count;
  return (more << space->segment_shift) + log->segment_end - log->cursor;
}

void log_sweep(struct log *log, struct usage_totals *totals_out) {
  struct share_header *header = log->header;
  usage_sweep(log, totals_out);
  space_look_at_disk(log->space);
  header->upkeep.begun_count = header->upkeep.emptied_count = 0;
  atomic_store(&header->upkeep.free_count,
               totals_out->free_count - totals_out->hole_count);
  atomic_store(&header->upkeep.coming_count, totals_out->wait_commit_count);
  atomic_store(&log->narrow_count, totals_out->narrow_count);
  log->mean_bytes = (totals_out->live_bytes - totals_out->branch_live_bytes) /
                    (atomic_load(&header->change.count) | 1);
  space_set_reserve(log->space,
                    BROKEN(BREAK_NO_RESERVE) ? 0 : reserve_of(log, totals_out));
  totals_out->is_crowded = is_crowded(log, totals_out);
  atomic_store(&header->upkeep.is_crowded, totals_out->is_crowded);
  atomic_store(&header->upkeep.need, need_of(log, totals_out));
  if (totals_out->wait_commit_count > 0 && totals_out->free_count == 0)
    atomic_store(&header->commit.wants_superblock, 1);
}

void log_look(struct log *log, uint64_t count) {
  struct share_upkeep *upkeep = &log->header->upkeep;
  struct usage_totals totals;
  upkeep->begun_count += count;
  if (upkeep->begun_count * BEGUN_PARTS >= log->space->segment_count)
    log_sweep(log, &totals);
}

/* The last segments, which are free, are not begun any more. What is behind
   the last that is counts as there: so holes in the file stay begun. */
static void forget_last(struct log *log, struct usage_totals *totals) {
  struct space *space = log->space;
  uint64_t least = usage_segment_count(space);
  uint64_t count = space->segment_count;
  uint64_t hole_count = 0;
  for (; count > least; count--) {
    bool is_hole =
        (usage_state(usage_entry(space, count - 1)) & SHARE_SEGMENT_HOLE) != 0;
    if (is_hole && (count - 1) << space->segment_shift < space->writable_bytes)
      break;
    hole_count += is_hole;
  }
  uint64_t forgotten_count = space->segment_count - count;
  if (forgotten_count == 0) return;
  totals->forgotten_count += forgotten_count;
  space->segment_count = count;
  space_use_free(space, forgotten_count - hole_count);
  log_store(log);
}

/* Whether so many segments have blocks that some should be given back, but for
   `kept_out` of them. While the store is being changed, they may be needed soon. */
static bool has_too_many_blocks(const struct log *log,
                                const struct usage_totals *totals, bool is_idle,
                                uint64_t *kept_out) {
  uint64_t live_count = totals->live_bytes >> log->space->segment_shift;
  uint64_t enough = is_idle ? live_count / 4 : totals->used_count;
  *kept_out = enough / 2 + 2;
  return totals->free_count > totals->hole_count + enough + 4;
}

/* Neither of the two superblocks may name more than the file has. */
static uint64_t named_end(const struct log *log) {
  const struct share_commit *commit = &log->header->commit;
  uint64_t older = atomic_load(&commit->recovery_used_bytes);
  uint64_t newer = atomic_load(&commit->superblock_used_bytes);
  return older > newer ? older : newer;
}

bool log_is_named_longer(const struct log *log,
                         const struct usage_totals *totals) {
  uint64_t slack = totals->used_count / 8 + SPARSE_SEGMENTS;
  return named_end(log) > usage_end(log) + (slack << log->space->segment_shift);
}

int log_give_back(struct log *log, struct usage_totals *totals, bool is_idle,
                  bool *more_out) {
  struct space *space = log->space;
  uint64_t kept, named = named_end(log);
  *more_out = false;
  forget_last(log, totals);
  uint64_t end = usage_end(log) + 2 * FRAME_HEADER_BYTES;
  if (named > space_size(space)) named = space_size(space);
  if (end < named) end = named;
  /* Who has a snapshot may be checking the log, which has been left. */
  int code = totals->snapshot_count == 0
                 ? space_cut(space, end, log_is_compacting(log))
                 : MMCMAP_OK;
  forget_last(log, totals);
  if (has_too_many_blocks(log, totals, is_idle, &kept))
    *more_out = space_punch(space, kept) && is_idle;
  return code;
}
