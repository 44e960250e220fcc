/* SPDX-License-Identifier: MIT */
/*
 * Each piece takes the writer lock anew, so that changes get their turn between
 * any two.
 */
#include "maint/upkeep.h"

#include <string.h>

#include "base/errors.h"
#include "os/process.h"

enum {
  QUANTUM_BYTES = 4096,        /* of a segment, looked through with the lock */
  QUANTA_PER_LOOK = 16,        /* until all segments are looked at again, */
  LOOK_PARTS = 256,            /* or such a part of them */
  PAY_FACTOR = 8,              /* looked through, for each byte appended; */
  PAY_FACTOR_OFTEN = 12,       /* where there are commits all the time */
  PAY_LEAST_BYTES = 512 << 10, /* at once: what is moved together shares copies
                                  of the branches above it */
  PAY_MAX_BYTES = 1 << 20,
  PAY_RECOUNT_NS = 1000000, /* of a recount, in its place */
  COMPACT_BEAT_MS = 5000,   /* so long compacting goes on by itself */
  HOLE_PARTS = 28,          /* of what is used may be empty after all phases */
  COMPACT_PARTS = 20,       /* of what is alive: longer by that it is compact */
  STUCK_MAX = 4,         /* segments, before a recount; where it is full, one */
  WAITING_PARTS_OWN = 2, /* of what is used wait: a put commits by itself */
  PAY_WAIT_MS = 8,       /* the longest that one put takes for both */
  SLIDE_WAITING_PARTS = 20, /* of what is used wait while compacting slides, */
  SLIDE_WAITING = 8,        /* and segments more, to find room side by side */
  ROOM_TRIES = 12, /* looks, until a segment's room has been made, or not, */
  ROOM_PARTS = 16  /* but such a part of it */
};

int upkeep_init(struct upkeep *upkeep, struct committer *committer) {
  memset(upkeep, 0, sizeof *upkeep);
  upkeep->writer = committer->writer;
  upkeep->committer = committer;
  return thread_mutex_init(&upkeep->turns.mutex);
}

void upkeep_give_up(struct upkeep *upkeep) {
  recount_end(&upkeep->recount, upkeep->writer->readers);
}

/* ---- Pieces --------------------------------------------------------------- */

/* What is given back where somebody looks; idly: more. */
enum look_mode { LOOK_ONLY, LOOK_AND_GIVE, LOOK_IDLY };

/* Looks at all segments; `more_out` is to be given back. */
static int look_as(struct upkeep *upkeep, uint32_t timeout_ms,
                   enum look_mode mode, struct usage_totals *totals_out,
                   bool *more_out) {
  struct writer *writer = upkeep->writer;
  struct log *log = &writer->log;
  int code = writer_enter(writer, timeout_ms);
  memset(totals_out, 0, sizeof *totals_out);
  *more_out = false;
  if (code != MMCMAP_OK) return code;
  if (log_is_started(log)) {
    log_sweep(log, totals_out);
    upkeep->seen_count = totals_out->used_count;
    upkeep->seen_often = log_commits_often(&upkeep->writer->log);
    upkeep->seen_cleaned = writer->header->upkeep.cleaned_count;
    if (mode != LOOK_ONLY)
      code = log_give_back(log, totals_out, mode == LOOK_IDLY, more_out);
    totals_out->is_named_longer = log_is_named_longer(log, totals_out);
    /* Others may change what this comes from as soon as the lock is free. */
    totals_out->spare_bytes = log_spare_bytes(log, totals_out);
    totals_out->has_spare = space_has_room_for_puts(log->space);
    totals_out->wants_commit = log_wants_commit(log, totals_out);
    totals_out->is_in_vain = log_cleans_in_vain(log, totals_out);
    totals_out->is_late =
        log_is_late(log, totals_out->wait_commit_count, totals_out->used_count);
  }
  return writer_end_change(writer, code);
}

static int look(struct upkeep *upkeep, uint32_t timeout_ms,
                struct usage_totals *totals_out) {
  bool more;
  return look_as(upkeep, timeout_ms, LOOK_AND_GIVE, totals_out, &more);
}

/* Goes on with a recount, if it is this process that does it. */
static int recount(struct upkeep *upkeep, uint32_t timeout_ms, uint64_t end_ns,
                   bool *more) {
  bool is_done;
  if (atomic_exchange(&upkeep->is_recounting, true)) {
    *more = false;
    return MMCMAP_OK;
  }
  int code = MMCMAP_OK;
  *more = recount_is_ours(&upkeep->recount, upkeep->writer);
  if (!*more && upkeep->recount.serial != 0)
    recount_end(&upkeep->recount, upkeep->writer->readers);
  if (*more)
    code = recount_continue(&upkeep->recount, upkeep->writer, timeout_ms,
                            end_ns, &is_done);
  atomic_store(&upkeep->is_recounting, false);
  return code;
}

static struct change_mode background(uint32_t timeout_ms) {
  struct change_mode mode = {.timeout_ms = timeout_ms,
                             .is_background = true,
                             .claim = SPACE_FOR_UPKEEP};
  return mode;
}

/* One hold of the lock. */
static int clean_some(struct upkeep *upkeep, struct change_mode mode,
                      struct cleaner_ahead *ahead, bool goes_on,
                      bool *found_out) {
  struct writer *writer = upkeep->writer;
  int code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  _Atomic uint64_t *appended = &writer->header->change.appended_bytes;
  uint64_t before = atomic_load(appended);
  code = cleaner_clean_ahead(writer, ahead, QUANTUM_BYTES, goes_on, found_out);
  atomic_fetch_add(&writer->header->upkeep.own_bytes,
                   atomic_load(appended) - before);
  return writer_end_change(writer, code);
}

/* To move more would make the file longer, while a commit would free some. */
static bool has_run_out(const struct upkeep *upkeep) {
  const struct log *log = &upkeep->writer->log;
  const struct share_upkeep *shared = &upkeep->writer->header->upkeep;
  uint64_t waiting =
      atomic_load(&shared->coming_count) + atomic_load(&shared->emptied_count);
  return log_has_run_out(log, waiting, upkeep->seen_count) &&
         atomic_load(&shared->is_full) == 0 && !log_is_compacting(log);
}

/* `left` bytes, or fewer if it is not to go on; what has been looked at is moved. */
static int clean(struct upkeep *upkeep, struct change_mode mode, uint64_t *left,
                 uint64_t end_ns, bool *found_out) {
  struct cleaner_ahead ahead;
  bool has_turn =
      cleaner_take_turn(&upkeep->turns, mode.timeout_ms, end_ns, left);
  bool goes_on = *left > 0;
  int code = MMCMAP_OK;
  memset(&ahead, 0, sizeof ahead);
  *found_out = true;
  while (code == MMCMAP_OK && *found_out &&
         (goes_on || cleaner_is_ahead(&ahead))) {
    bool was_ahead = cleaner_is_ahead(&ahead);
    uint64_t beside = ahead.beside_bytes;
    code = clean_some(upkeep, mode, &ahead, goes_on, found_out);
    uint64_t looked = was_ahead ? 0 : QUANTUM_BYTES;
    if (ahead.is_pinned) {
      cleaner_look_ahead(upkeep->writer, &ahead);
      looked = ahead.to.offset - ahead.from.offset;
    }
    looked += ahead.beside_bytes - beside;
    atomic_fetch_add(&upkeep->turns.looked_bytes, looked);
    *left -= *left < looked ? *left : looked;
    goes_on =
        *left > 0 && process_monotonic_ns() < end_ns && !has_run_out(upkeep);
  }
  if (has_turn) thread_mutex_unlock(&upkeep->turns.mutex);
  return code;
}

/* A commit costs copies of all branches that are changed after it: it is not
   made before enough waits for it. */
static bool wants_commit(const struct upkeep *upkeep,
                         const struct usage_totals *totals) {
  uint64_t least = 0;
  /* What a phase leaves is not used again before the next one. */
  if (log_phase(&upkeep->writer->log) != USAGE_PHASE_NONE) return false;
  if (atomic_load(&upkeep->writer->log.slide.end) != 0)
    least = totals->used_count / SLIDE_WAITING_PARTS + SLIDE_WAITING;
  return totals->wait_commit_count > least && totals->wants_commit &&
         commit_frees(upkeep->committer);
}

static bool wants_recount(const struct upkeep *upkeep,
                          const struct usage_totals *totals) {
  const struct share_header *header = upkeep->writer->header;
  uint64_t appended = atomic_load(&header->change.appended_bytes) -
                      header->upkeep.recount_appended;
  uint64_t stuck_most =
      atomic_load(&header->upkeep.is_full) != 0 ? 0 : STUCK_MAX;
  if (atomic_load(&header->upkeep.is_uncountable) != 0) return false;
  /* What is stuck may be so for another reason: not again and again. */
  return totals->uncounted_count > 0 ||
         (totals->stuck_count > stuck_most &&
          appended > totals->live_bytes / STUCK_MAX) ||
         log_has_dropped(&upkeep->writer->log, totals);
}

/* One thing that may make room; whether there was one. */
static int make_some_room(struct upkeep *upkeep, uint32_t timeout_ms,
                          bool for_delete, const struct usage_totals *totals,
                          bool *found_out) {
  const struct log *log = &upkeep->writer->log;
  struct change_mode mode = background(timeout_ms);
  bool more;
  mode.claim = log_claim_for_room(log, totals, for_delete);
  *found_out = true;
  if (totals->wait_commit_count > log_waiting_at_last(log) &&
      commit_frees(upkeep->committer))
    return commit_superblock(upkeep->committer);
  if (wants_recount(upkeep, totals))
    return recount(upkeep, timeout_ms, UINT64_MAX, &more);
  uint64_t bytes = log->space->segment_size;
  int code = clean(upkeep, mode, &bytes, UINT64_MAX, found_out);
  if ((code != MMCMAP_OK && !error_is_full(code)) ||
      (code == MMCMAP_OK && *found_out))
    return code;
  *found_out = (for_delete || log_gains_by_commit(log, totals)) &&
               commit_frees(upkeep->committer);
  return *found_out ? commit_superblock(upkeep->committer) : code;
}

/* ---- Together ------------------------------------------------------------- */

/* Has the log go on further down, where there is room, in another epoch. */
static int descend(struct upkeep *upkeep, uint32_t timeout_ms,
                   enum usage_phase phase) {
  struct writer *writer = upkeep->writer;
  struct change_mode mode = background(timeout_ms);
  mode.claim = SPACE_AT_LAST;
  int code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  code = writer_close_log(writer);
  writer->header->upkeep.compact_epoch = writer->log.epoch;
  if (code == MMCMAP_OK)
    code = phase == USAGE_PHASE_NONE ? log_descend(&writer->log)
                                     : log_begin_phase(&writer->log, phase);
  if (code == MMCMAP_OK) code = writer_close_log(writer);
  return writer_end_change(writer, code);
}

/* How much to clean until all segments are looked at again. */
static uint64_t look_bytes(const struct upkeep *upkeep,
                           const struct usage_totals *totals) {
  uint64_t used = totals->used_count * upkeep->writer->log.space->segment_size;
  uint64_t least = QUANTA_PER_LOOK * QUANTUM_BYTES;
  return used / LOOK_PARTS > least ? used / LOOK_PARTS : least;
}

static void end_slide(struct usage_slide *slide) {
  atomic_store(&slide->end, 0);
  atomic_store(&slide->phase, USAGE_PHASE_NONE);
}

/* `clean_end_ns` is when a piece of cleaning ends though it is not done. */
static int run_once(struct upkeep *upkeep, enum share_need least,
                    uint32_t timeout_ms, uint64_t end_ns, uint64_t clean_end_ns,
                    bool *more_out) {
  struct share_header *header = upkeep->writer->header;
  struct usage_totals totals;
  bool gives;
  *more_out = false;
  int code = look_as(upkeep, timeout_ms,
                     least == SHARE_NEED_IDLE ? LOOK_IDLY : LOOK_AND_GIVE,
                     &totals, &gives);
  if (code != MMCMAP_OK || totals.used_count == 0) return code;
  if (wants_recount(upkeep, &totals))
    return recount(upkeep, timeout_ms, end_ns, more_out);
  if (wants_commit(upkeep, &totals)) {
    *more_out = true;
    return commit_superblock(upkeep->committer);
  }
  *more_out = gives;
  if (gives || upkeep_need(header) < least) return MMCMAP_OK;
  if (header->upkeep.is_sparse != 0 && least == SHARE_NEED_IDLE &&
      !log_is_compacting(&upkeep->writer->log))
    code = descend(upkeep, timeout_ms, USAGE_PHASE_NONE);
  if (code != MMCMAP_OK) return code;
  uint64_t bytes = look_bytes(upkeep, &totals);
  struct change_mode mode = background(timeout_ms);
  if (!totals.is_in_vain)
    code = clean(upkeep, mode, &bytes, clean_end_ns, more_out);
  if (error_is_full(code)) {
    atomic_store(&upkeep->writer->log.slide.is_ended, true);
    end_slide(&upkeep->writer->log.slide); /* it takes more room */
    return make_some_room(upkeep, timeout_ms, false, &totals, more_out);
  }
  if (code != MMCMAP_OK || *more_out) return code;
  if (totals.wait_commit_count > 0 && commit_frees(upkeep->committer)) {
    *more_out = true;
    return commit_superblock(upkeep->committer);
  }
  if (least == SHARE_NEED_IDLE && totals.is_named_longer) {
    *more_out = true;
    return commit_superblocks_again(upkeep->committer);
  }
  /* Nothing can be done until a segment is begun, or what is open is committed. */
  if (!log_is_compacting(&upkeep->writer->log) &&
      !commit_frees(upkeep->committer))
    atomic_store(&header->upkeep.need, SHARE_NEED_NOTHING);
  return code;
}

int upkeep_run(struct upkeep *upkeep, enum share_need least,
               uint32_t timeout_ms, uint64_t end_ns, bool *more_out) {
  int code = MMCMAP_OK;
  *more_out = !log_is_compacting(&upkeep->writer->log); /* or be in its way */
  while (code == MMCMAP_OK && *more_out) {
    code = run_once(upkeep, least, timeout_ms, end_ns, end_ns, more_out);
    if (process_monotonic_ns() >= end_ns) break;
  }
  return code;
}

/* It is being compacted, for the next while. */
static void beat(struct upkeep *upkeep) {
  uint64_t until_ns =
      process_monotonic_ns() + COMPACT_BEAT_MS * UINT64_C(1000000);
  atomic_store(&upkeep->writer->log.slide.until_ns, until_ns);
  atomic_store(&upkeep->writer->header->upkeep.compacting_ns, until_ns);
}

/* How small the store becomes must not come from how long anything takes: whole
   pieces only, and no sync is so long that it is not compacting any more. A phase is
   over when all has been moved; what writers leave meanwhile is not its business. */
static int compact_on(struct upkeep *upkeep, uint32_t timeout_ms,
                      uint64_t end_ns, bool *more_out) {
  struct usage_slide *slide = &upkeep->writer->log.slide;
  bool is_phase = atomic_load(&slide->phase) != USAGE_PHASE_NONE;
  int code = MMCMAP_OK;
  do {
    beat(upkeep);
    code = run_once(upkeep, SHARE_NEED_IDLE, timeout_ms, end_ns, UINT64_MAX,
                    more_out);
    bool is_through = atomic_load(&slide->end) == 0;
    if (is_phase && !is_through && !*more_out)
      atomic_store(&slide->is_ended, true);
    if (is_phase && is_through) *more_out = false;
  } while (code == MMCMAP_OK && *more_out && process_monotonic_ns() < end_ns);
  return code;
}

/* Begins a pass, unless one has been made and another would gain little. */
static int begin_pass(struct upkeep *upkeep, uint32_t timeout_ms,
                      enum compact_from from, bool *more_out) {
  struct writer *writer = upkeep->writer;
  struct usage_totals totals;
  int code = writer_enter(writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  log_sweep(&writer->log, &totals);
  *more_out = usage_begin_slide(&writer->log, &totals, from != COMPACT_AGAIN) ||
              from == COMPACT_FIRST;
  code = writer_end_change(writer, code);
  return code == MMCMAP_OK && *more_out
             ? descend(upkeep, timeout_ms, USAGE_PHASE_NONE)
             : code;
}

/* Whether a phase can do what it is for. What is not counted may be alive; what a
   snapshot sees is not moved, so that the file would only become longer; and what
   comes to the beginning must find room there. */
static bool may_begin(const struct log *log, const struct usage_totals *totals,
                      enum usage_phase phase) {
  unsigned shift = log->space->segment_shift;
  uint64_t live = totals->live_bytes + (totals->uncounted_count << shift);
  bool has_saved = atomic_load(&log->header->upkeep.saved_newest) != 0;
  if (totals->snapshot_count != 0 || has_saved) return false;
  if (phase == USAGE_PHASE_LARGE) return totals->free_count << shift >= live;
  return phase != USAGE_PHASE_OUT || live >> shift <= LOG_FEW_SEGMENTS;
}

/* What there is, counted in a session, which is begun if there is none. */
static int count(struct upkeep *upkeep, uint32_t timeout_ms,
                 struct usage_totals *totals_out) {
  int code = writer_begin_change(upkeep->writer, background(timeout_ms));
  if (code != MMCMAP_OK) return code;
  log_sweep(&upkeep->writer->log, totals_out);
  return writer_end_change(upkeep->writer, code);
}

/* Begins a phase, unless there is too much for that, or has been no room. */
static int begin_phase(struct upkeep *upkeep, uint32_t timeout_ms,
                       enum usage_phase phase, bool *more_out) {
  struct log *log = &upkeep->writer->log;
  _Atomic bool *is_ended = &log->slide.is_ended;
  struct usage_totals totals;
  *more_out = false;
  if (phase == USAGE_PHASE_OUT) atomic_store(is_ended, false);
  if (atomic_load(is_ended)) return MMCMAP_OK;
  int code = count(upkeep, timeout_ms, &totals);
  if (code != MMCMAP_OK) return code;
  bool may = may_begin(log, &totals, phase);
  if (may) code = descend(upkeep, timeout_ms, phase);
  *more_out = code == MMCMAP_OK && may;
  if (!*more_out) atomic_store(is_ended, true);
  return error_is_full(code) ? MMCMAP_OK : code;
}

/* The last segments have been emptied: the file ends earlier now. */
static int end_pass(struct upkeep *upkeep, uint32_t timeout_ms, uint64_t end_ns,
                    bool *more_out) {
  struct usage_totals totals;
  int code = MMCMAP_OK;
  if (commit_frees(upkeep->committer))
    code = commit_superblock(upkeep->committer);
  if (code == MMCMAP_OK) code = look(upkeep, timeout_ms, &totals);
  if (code == MMCMAP_OK) code = commit_superblocks_again(upkeep->committer);
  *more_out = true;
  while (code == MMCMAP_OK && *more_out) {
    code = look_as(upkeep, timeout_ms, LOOK_IDLY, &totals, more_out);
    if (process_monotonic_ns() >= end_ns) break;
  }
  return code;
}

/* What has been emptied becomes free, and the file ends earlier; between phases the
   room is soon used. */
static int end_phase(struct upkeep *upkeep, uint32_t timeout_ms, bool is_last) {
  struct usage_slide *slide = &upkeep->writer->log.slide;
  struct usage_totals totals = {0};
  int code = MMCMAP_OK;
  atomic_store(&slide->phase, USAGE_PHASE_NONE);
  if (commit_frees(upkeep->committer))
    code = commit_superblock(upkeep->committer);
  if (!is_last || code != MMCMAP_OK) return code;
  code = look(upkeep, timeout_ms, &totals);
  if (code == MMCMAP_OK) code = commit_superblocks_again(upkeep->committer);
  for (bool more = true; code == MMCMAP_OK && more;)
    code = look_as(upkeep, timeout_ms, LOOK_IDLY, &totals, &more);
  if (code == MMCMAP_OK) code = look(upkeep, timeout_ms, &totals);
  /* A snapshot, or a recount, has kept something where it was. */
  uint64_t holes = totals.free_count + totals.empty_count;
  if (holes > totals.used_count / HOLE_PARTS)
    atomic_store(&slide->is_ended, true);
  return code;
}

int upkeep_compact(struct upkeep *upkeep, uint32_t timeout_ms, uint64_t end_ns,
                   enum compact_from from, bool *more_out) {
  _Atomic int *phase = &upkeep->writer->log.slide.phase;
  int code = MMCMAP_OK;
  *more_out = true;
  beat(upkeep);
  if (from <= COMPACT_BRANCHES)
    code = begin_phase(upkeep, timeout_ms, (enum usage_phase)from, more_out);
  else if (from != COMPACT_ON)
    code = begin_pass(upkeep, timeout_ms, from, more_out);
  int begun = atomic_load(phase);
  if (code == MMCMAP_OK && *more_out)
    code = compact_on(upkeep, timeout_ms, end_ns, more_out);
  else
    begun = -1;
  if (code == MMCMAP_OK && *more_out) return code;
  if (code == MMCMAP_OK && begun > USAGE_PHASE_NONE)
    code = end_phase(upkeep, timeout_ms, begun == USAGE_PHASE_BRANCHES);
  if (code == MMCMAP_OK && begun == USAGE_PHASE_NONE)
    code = end_pass(upkeep, timeout_ms, end_ns, more_out);
  if (code != MMCMAP_OK || !*more_out) upkeep_end_compacting(upkeep);
  return code;
}

int upkeep_is_compact(struct upkeep *upkeep, uint32_t timeout_ms,
                      bool *is_compact_out) {
  struct log *log = &upkeep->writer->log;
  struct usage_totals totals;
  bool is_longer, more;
  *is_compact_out = false;
  int code = writer_begin_change(upkeep->writer, background(timeout_ms));
  if (code != MMCMAP_OK) return code;
  log_sweep(log, &totals);
  uint64_t size = log->space->segment_count << log->space->segment_shift;
  bool is_compact =
      totals.uncounted_count == 0 &&
      size <= totals.live_bytes + totals.live_bytes / COMPACT_PARTS;
  is_longer = space_look(log->space) > size;
  code = writer_end_change(upkeep->writer, code);
  *is_compact_out = code == MMCMAP_OK && is_compact;
  if (!*is_compact_out || !is_longer) return code;
  /* It has grown ahead of what is written. */
  beat(upkeep);
  code = end_pass(upkeep, timeout_ms, UINT64_MAX, &more);
  upkeep_end_compacting(upkeep);
  return code;
}

bool upkeep_wants_passes(const struct upkeep *upkeep) {
  return atomic_load(&upkeep->writer->log.slide.is_ended);
}

void upkeep_end_compacting(struct upkeep *upkeep) {
  struct usage_slide *slide = &upkeep->writer->log.slide;
  uint64_t until_ns = atomic_exchange(&slide->until_ns, 0);
  /* Another process may compact, too. */
  (void)atomic_compare_exchange_strong(
      &upkeep->writer->header->upkeep.compacting_ns, &until_ns, 0);
  end_slide(slide);
  atomic_store(&slide->was_one, false);
}

/* Whether so many segments may have become empty that a commit is worth it. */
static bool is_time_to_look(const struct upkeep *upkeep) {
  uint64_t cleaned = upkeep->writer->header->upkeep.cleaned_count;
  uint64_t seen = upkeep->seen_cleaned;
  return cleaned > seen && cleaned - seen > upkeep->seen_count / 16 + 1;
}

static uint32_t left_ms(uint64_t begin_ns, uint32_t most_ms) {
  uint64_t passed_ms = (process_monotonic_ns() - begin_ns) / 1000000;
  return passed_ms < most_ms ? most_ms - (uint32_t)passed_ms : 0;
}

int upkeep_pay(struct upkeep *upkeep, uint32_t timeout_ms, bool has_flusher) {
  struct share_header *header = upkeep->writer->header;
  struct usage_totals totals;
  uint64_t appended = atomic_load(&header->change.appended_bytes) -
                      atomic_load(&header->upkeep.own_bytes);
  uint64_t paid = atomic_load(&header->upkeep.paid_bytes);
  uint64_t factor = upkeep->seen_often ? PAY_FACTOR_OFTEN : PAY_FACTOR;
  uint64_t debt = (appended - paid) * factor;
  bool found = true, more;
  if (appended <= paid || debt < PAY_LEAST_BYTES) return MMCMAP_OK;
  if (debt > PAY_MAX_BYTES) debt = PAY_MAX_BYTES;
  if (!atomic_compare_exchange_strong(&header->upkeep.paid_bytes, &paid,
                                      appended))
    return MMCMAP_OK; /* another pays */
  uint64_t begin_ns = process_monotonic_ns();
  bool is_late = atomic_load(&header->upkeep.is_late) != 0;
  int code = is_late ? MMCMAP_OK
                     : clean(upkeep, background(timeout_ms), &debt, UINT64_MAX,
                             &found);
  if (code != MMCMAP_OK) return code;
  /* The rest is paid when there is room for it. */
  if (!is_late && found)
    atomic_fetch_sub(&header->upkeep.paid_bytes, debt / factor);
  if (found && !is_late && !is_time_to_look(upkeep) && !has_run_out(upkeep) &&
      !log_is_late(&upkeep->writer->log,
                   atomic_load(&header->upkeep.coming_count),
                   upkeep->seen_count) &&
      atomic_load(&header->commit.wants_superblock) == 0)
    return MMCMAP_OK;
  /* To cut the file would wait for a sync of it that is under way. */
  bool waits = has_flusher && atomic_load(&header->commit.is_syncing) != 0;
  code = look_as(upkeep, timeout_ms, waits ? LOOK_ONLY : LOOK_AND_GIVE, &totals,
                 &more);
  if (code == MMCMAP_OK && wants_recount(upkeep, &totals))
    return recount(upkeep, timeout_ms, process_monotonic_ns() + PAY_RECOUNT_NS,
                   &more);
  /* Nothing can be done until a segment is begun. */
  if (code == MMCMAP_OK && !found)
    atomic_store(&header->upkeep.need, SHARE_NEED_SOON);
  /* The flusher commits while changes go on. If it does not keep up, several changes
     wait for one commit in turn: none of them for all of it. Of a small store it is
     soon made. */
  bool makes_it =
      totals.used_count <= LOG_FEW_SEGMENTS
          ? totals.is_late
          : totals.wait_commit_count > totals.used_count / WAITING_PARTS_OWN;
  if (has_flusher && !makes_it) {
    if (totals.is_late)
      commit_await(upkeep->committer, left_ms(begin_ns, PAY_WAIT_MS));
    return code;
  }
  if (code == MMCMAP_OK && wants_commit(upkeep, &totals))
    return commit_superblock(upkeep->committer);
  if (code == MMCMAP_OK && !found && totals.wait_commit_count > 0 &&
      commit_frees(upkeep->committer))
    return commit_superblock(upkeep->committer);
  return code;
}

bool upkeep_make_room(struct upkeep *upkeep, uint32_t timeout_ms,
                      bool for_delete, bool is_first) {
  const struct share_upkeep *shared = &upkeep->writer->header->upkeep;
  struct usage_totals totals;
  bool found = true;
  uint64_t left = atomic_load(&shared->free_count);
  bool was_crowded = atomic_load(&shared->is_crowded) != 0;
  int code = look(upkeep, timeout_ms, &totals);
  /* A look alone finds what a commit has freed, or what the change had begun; or that
     there is room for more records, or not. */
  if (code == MMCMAP_OK && is_first &&
      atomic_load(&shared->free_count) + totals.forgotten_count > left)
    return true;
  if (code == MMCMAP_OK && was_crowded && !totals.is_crowded) return true;
  if (!for_delete && totals.is_crowded && totals.has_spare) return false;
  uint64_t spare = totals.spare_bytes;
  uint64_t segment = upkeep->writer->log.space->segment_size;
  atomic_store(&upkeep->writer->header->upkeep.is_full, SHARE_FULL);
  for (int i = 0; i < ROOM_TRIES && code == MMCMAP_OK && found; i++) {
    code = make_some_room(upkeep, timeout_ms, for_delete, &totals, &found);
    if (code == MMCMAP_OK) code = look(upkeep, timeout_ms, &totals);
    if (code == MMCMAP_OK && totals.spare_bytes >= spare + segment) break;
  }
  atomic_store(&upkeep->writer->header->upkeep.is_full, 0);
  return code == MMCMAP_OK && totals.spare_bytes > spare + segment / ROOM_PARTS;
}
