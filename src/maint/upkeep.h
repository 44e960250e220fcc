/* SPDX-License-Identifier: MIT */
/*
 * Upkeep of space: recounting, committing so that empty segments become free,
 * cleaning, and giving the end of the file back. Whoever calls it bounds its
 * time: the flusher between commits, step(), and, when much more is used than is
 * alive, whoever makes a change, in proportion to what it appends.
 */
#ifndef MAINT_UPKEEP_H
#define MAINT_UPKEEP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "maint/cleaner.h"
#include "maint/recount.h"
#include "txn/commit.h"

struct upkeep {
  struct writer *writer;
  struct committer *committer;
  _Atomic bool is_recounting; /* a thread uses the next */
  struct recount recount;
  /* Segments in use, and those gone through, at the last look. */
  _Atomic uint64_t seen_count;
  _Atomic uint64_t seen_cleaned;
  _Atomic bool seen_often; /* whether commits came often then (space/log.h) */
  struct cleaner_turns turns;
};

int upkeep_init(struct upkeep *upkeep, struct committer *committer);

static inline void upkeep_destroy(struct upkeep *upkeep) {
  thread_mutex_destroy(&upkeep->turns.mutex);
}

/* Gives up what is under way. */
void upkeep_give_up(struct upkeep *upkeep);

/* What there is to do, as it was found at the last look at all segments. */
static inline enum share_need upkeep_need(const struct share_header *header) {
  return (enum share_need)atomic_load_explicit(&header->upkeep.need,
                                               memory_order_relaxed);
}

/* Whether who has no flusher to wait for does it now. */
static inline bool upkeep_is_due(const struct share_header *header) {
  enum share_need need = upkeep_need(header);
  return need >= SHARE_NEED_SOON ||
         (need == SHARE_NEED_IDLE &&
          atomic_load_explicit(&header->upkeep.is_emptying,
                               memory_order_relaxed) != 0);
}

/*
 * Does upkeep that is needed `least` so much until there is none, or `end_ns`
 * (monotonic) has come, or nothing more can be done now: `more_out` is false
 * then. It may commit, which takes as long as a sync does. MMCMAP_OK, or why it
 * had to stop.
 */
int upkeep_run(struct upkeep *upkeep, enum share_need least,
               uint32_t timeout_ms, uint64_t end_ns, bool *more_out);

/* Where compacting is: at the beginning of a phase, for a small store; or at that of a
   pass, which goes on with what is still worth it or, if that has gained nothing, with
   all of it once more; or within one. */
enum compact_from {
  COMPACT_OUT = USAGE_PHASE_OUT, /* the phases in turn (space/usage.h) */
  COMPACT_LARGE = USAGE_PHASE_LARGE,
  COMPACT_RECORDS = USAGE_PHASE_RECORDS,
  COMPACT_BRANCHES = USAGE_PHASE_BRANCHES,
  COMPACT_FIRST,
  COMPACT_AGAIN,
  COMPACT_ANEW,
  COMPACT_ON
};

/* Compacts for a while, as upkeep_run(). What is full but for a 64th stays where it
   is, unless it can be moved towards the beginning, or large values slide. */
int upkeep_compact(struct upkeep *upkeep, uint32_t timeout_ms, uint64_t end_ns,
                   enum compact_from from, bool *more_out);

/* Whether moving anything would gain too little, and may well end worse. What the file
   is longer than its segments is cut off then. */
int upkeep_is_compact(struct upkeep *upkeep, uint32_t timeout_ms,
                      bool *is_compact_out);

/* After the phases: whether they have not been made, because the store is too large,
   has a snapshot, or has had no room. */
bool upkeep_wants_passes(const struct upkeep *upkeep);

/* Ends it early. */
void upkeep_end_compacting(struct upkeep *upkeep);

/* The part of whoever has made a change, when it is needed now. With a flusher that
   has been called it waits for no sync, unless much waits for one already. */
int upkeep_pay(struct upkeep *upkeep, uint32_t timeout_ms, bool has_flusher);

/* Makes room where there is none left, with what is kept in reserve (as of
   log_claim_for_room()): whether a change may be tried again. For the first try of a put
   it is enough that a look has found some. */
bool upkeep_make_room(struct upkeep *upkeep, uint32_t timeout_ms,
                      bool for_delete, bool is_first);

#endif
