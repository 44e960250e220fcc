/* SPDX-License-Identifier: MIT */
/*
 * What is alive in each segment, and which segments may be begun again. The
 * table lies in the lock file (struct share_segment); the writer lock guards it.
 *
 * Invariant: a count is never below what the live root leads to. Counts are
 * raised before a node is linked and lowered after it was unlinked, so who dies
 * in between leaves one too high. (A segment that is not counted yet has the
 * difference since its recount began.)
 *
 * A segment that nothing lives in, and that is no head of the log, is empty. It
 * becomes free, and may be begun again, cut off or given back, when
 *   (a) no pin is older than its emptying,
 *   (b) no open snapshot's epoch lies in [when it was begun, its emptying), nor any
 *       from the lowest to the highest of the saved ones, which count as they were
 *       before a drop until that is on disk, and
 *   (c) the newest superblock that is on disk names an epoch that is not older
 *       than its emptying.
 */
#ifndef SPACE_USAGE_H
#define SPACE_USAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/testing.h"
#include "format/superblock.h"
#include "share/readers.h"
#include "space/space.h"

struct log;

/* Whether the segment was begun since the session began. */
static inline bool usage_is_of_session(const struct space *space,
                                       const struct share_segment *entry) {
  uint64_t first = atomic_load(&entry->first_epoch);
  return first != 0 &&
         first >= space->readers->share->header->upkeep.session_epoch;
}

/* What there is, after usage_sweep(). */
struct usage_totals {
  uint64_t live_bytes;          /* alive, as counted; */
  uint64_t branch_live_bytes;   /* of it, in segments of branches, */
  uint64_t large_live_bytes;    /* and of large values */
  uint64_t used_count;          /* segments that are neither free nor empty, */
  uint64_t branch_count;        /* of them, of branches, */
  uint64_t uncounted_count;     /* of them, not counted, */
  uint64_t held_count;          /* of them, that a snapshot would hold, */
  uint64_t held_live_bytes;     /* and what is alive in those */
  uint64_t stuck_count;         /* of them, cleaned in vain */
  uint64_t snapshot_count;      /* open snapshots */
  uint64_t empty_count;         /* empty, not free yet: */
  uint64_t wait_snapshot_count; /* because of (b), */
  uint64_t wait_commit_count;   /* (c), and not (b) */
  uint64_t wait_pin_count;      /* or (a) alone */
  uint64_t free_count;          /* free */
  uint64_t narrow_count; /* of them, too few side by side for a large value */
  uint64_t hole_count;   /* of them, without blocks */
  uint64_t forgotten_count; /* of them, the last ones, begun no more since */
  bool is_crowded;          /* too much is alive for another record */
  bool is_named_longer;     /* by superblocks, than what is in use */
  uint64_t spare_bytes;     /* may be written before the file must grow, */
  bool is_in_vain;          /* to clean gains nothing, */
  bool has_spare;           /* puts may begin a segment, */
  bool wants_commit;        /* so many wait for a commit, */
  bool is_late;             /* or many more: all as upkeep looks */
};

/* Why a segment may not be begun again: what takes longest of what there is. */
enum usage_refusal {
  USAGE_MAY,
  USAGE_PINNED,       /* (a) */
  USAGE_SNAPSHOT,     /* (b) */
  USAGE_NOT_COMMITTED /* (c) */
};

static inline struct share_segment *usage_entry(const struct space *space,
                                                uint64_t number) {
  return &space->readers->share->segments[number];
}

static inline uint32_t usage_state(const struct share_segment *entry) {
  return atomic_load_explicit(&entry->state, memory_order_relaxed) &
         ~(uint32_t)SHARE_SEGMENT_FINE;
}

static inline bool usage_is_fine(const struct share_segment *entry) {
  return (atomic_load_explicit(&entry->state, memory_order_relaxed) &
          SHARE_SEGMENT_FINE) != 0;
}

/* Another state, and flags, in pages as before. */
static inline void usage_set_state(struct share_segment *entry,
                                   uint32_t state) {
  uint32_t before = atomic_load_explicit(&entry->state, memory_order_relaxed);
  atomic_store_explicit(&entry->state, state | (before & SHARE_SEGMENT_FINE),
                        memory_order_release);
}

static inline bool usage_is(const struct share_segment *entry,
                            enum share_segment_state state) {
  return (usage_state(entry) & SHARE_SEGMENT_STATE_MASK) == (uint32_t)state;
}

static inline int64_t usage_live_bytes(const struct share_segment *entry) {
  return (int64_t)atomic_load_explicit(&entry->live_words,
                                       memory_order_relaxed) *
         8;
}

/* The part of usage_lower() for a segment in which nothing is left. */
void usage_emptied(struct log *log, uint64_t number);

/* Makes the table as long as the segments that have been begun. */
int usage_ensure(struct space *space);

/* `size` bytes at `offset`, within a segment, are about to be linked. */
static inline void usage_raise(const struct space *space, uint64_t offset,
                               uint64_t size) {
  uint64_t number = offset >> space->segment_shift;
  if (UNLIKELY(number >= space->segment_count)) return;
  struct share_segment *entry = usage_entry(space, number);
  atomic_store_explicit(
      &entry->live_words,
      atomic_load_explicit(&entry->live_words, memory_order_relaxed) +
          (int32_t)(size / 8),
      memory_order_relaxed);
}

/* The same for a node of the open epoch that is used again. Its segment may have
   become empty since; nothing frees it as long as the epoch is open. */
static inline void usage_revive(const struct space *space, uint64_t offset,
                                uint64_t size, uint64_t open_epoch) {
  usage_raise(space, offset, size);
  struct share_segment *entry =
      usage_entry(space, offset >> space->segment_shift);
  if (LIKELY(!usage_is(entry, SHARE_SEGMENT_EMPTY)) || BROKEN(BREAK_NO_REVIVAL))
    return;
  atomic_store_explicit(&entry->last_epoch, open_epoch, memory_order_relaxed);
  usage_set_state(entry, SHARE_SEGMENT_LOG);
}

/* They have been unlinked. */
static inline void usage_lower(struct log *log, const struct space *space,
                               uint64_t offset, uint64_t size) {
  uint64_t number = offset >> space->segment_shift;
  if (UNLIKELY(number >= space->segment_count)) return;
  struct share_segment *entry = usage_entry(space, number);
  int32_t left =
      atomic_load_explicit(&entry->live_words, memory_order_relaxed) -
      (int32_t)(size / 8);
  atomic_store_explicit(&entry->live_words, left, memory_order_relaxed);
  if (UNLIKELY(left <= 0)) usage_emptied(log, number);
}

/* The same for the pages of a large value, in however many segments. */
void usage_raise_pages(const struct space *space, uint64_t offset,
                       uint64_t size);
void usage_lower_pages(struct log *log, const struct space *space,
                       uint64_t offset, uint64_t size);

/* The segment has been begun for branches. */
static inline void usage_note_branches(const struct space *space,
                                       uint64_t number) {
  atomic_fetch_or(&usage_entry(space, number)->state, SHARE_SEGMENT_BRANCHES);
}

/* The log has gone on from these segments to others; `epoch` is that of the last
   node in them, or a later one. */
void usage_leave(struct log *log, uint64_t number, uint64_t run,
                 uint64_t epoch);

/* Begins entries for segments; they are heads from the next settling on. */
void usage_begin(const struct space *space, uint64_t number, uint64_t run,
                 enum share_segment_state state, uint64_t epoch);

/* Notes what is counted in the segments of the heads, all that was appended being
   counted, at the beginning of an epoch; `mark` may be in the lock file. */
void usage_mark(const struct log *log, struct share_counts *mark_out);

/* Nothing that was appended since, to those and to segments that were begun, is
   alive any more; what is older has not been lowered since. */
void usage_return_to(struct log *log, const struct share_counts *mark);

/* A saved snapshot is about to be dropped: until that is on disk, what lies among
   the epochs of the saved ones stays held. */
void usage_leave_saved(struct log *log);

/* Looks at all segments: finds those that are empty, frees those that may be,
   and adds up. */
void usage_sweep(struct log *log, struct usage_totals *totals_out);

/* The lowest `run` free segments side by side, from `first` on. */
bool usage_find_free(const struct space *space, uint64_t first, uint64_t run,
                     uint64_t *number_out);

/* One more than the highest segment that is not free. */
uint64_t usage_segment_count(const struct space *space);

/* Where the space that is in use ends: the file is at least that long. */
uint64_t usage_end(const struct log *log);

/* Whether the segment may be looked through by the cleaner, */
bool usage_may_be_cleaned(const struct log *log, uint64_t number);

/* and whether it could be free if it were empty, with these snapshots open. */
bool usage_may_be_moved(const struct log *log, uint64_t number,
                        const struct readers_held *held);

/* What to clean: a segment, or several side by side that a large value holds
   together. */
struct usage_victim {
  uint64_t number;
  uint64_t run;
  int64_t live_bytes; /* of one segment, on average */
  int64_t copies;     /* of branches, for the sake of moving it */
  int64_t rank;       /* those with the least come first */
};

/* Several, those with least alive first: all segments are not looked at again for
   each of them. */
enum { USAGE_VICTIMS = 32, USAGE_VICTIM_PARTS = 128 };
struct usage_victims {
  struct usage_victim all[USAGE_VICTIMS];
  unsigned count;
  unsigned next;
  bool has_held; /* some segments are none, because of snapshots */
  bool
      is_at_last; /* the last one was chosen by whoever has claimed all there is */
};

/* A small store is compacted by moving all of it twice: out of the way, then what is
   of one kind after the other to the beginning, side by side. */
enum usage_phase {
  USAGE_PHASE_NONE,
  USAGE_PHASE_OUT, /* everything, behind all there is */
  USAGE_PHASE_LARGE, /* large values; what has to be written with them goes behind */
  USAGE_PHASE_RECORDS,  /* records; branches go behind */
  USAGE_PHASE_BRANCHES, /* which follow the records then */
};

/* Compacting may take all segments, from the first on, so that what is moved finds
   room side by side further down. */
struct usage_slide {
  _Atomic int phase; /* enum usage_phase: it takes what that is for */
  _Atomic uint64_t
      until_ns; /* so long, whoever compacts may have left (monotonic) */
  _Atomic bool is_ended; /* phases are not, or no more, made */
  uint64_t next;
  _Atomic uint64_t end; /* 0: it does not */
  int64_t gap_bytes;    /* what was empty further down */
  int64_t worth_bytes;  /* from so much on also what is full is moved */
  _Atomic bool
      was_one; /* this pass moves the last down, as far as there is room */
};

/* The next one of a slide; false: it has come to its end, or there is none. */
bool usage_find_next(struct log *log, struct usage_victim *victim_out);

/* Begins a slide if large values leave too much empty, in their segments and in free
   ones between them. False: they leave little. In the first pass they have to be a
   part of all that counts. */
bool usage_begin_slide(struct log *log, const struct usage_totals *totals,
                       bool is_first);

/* The same for a phase. */
void usage_begin_phase(struct log *log, enum usage_phase phase);

/* Who has claimed what there is, before a victim is chosen: others were listed for
   another one. */
void usage_note_claim(struct log *log);

/* Of those that could be free if they were empty, and have less than that alive,
   the one with least, or one of the 128th of all with least, as they were a while
   ago. For whoever has claimed all there is, it is one of several which together
   give more than it takes to move them, with copies of branches. */
bool usage_find_victim(struct log *log, int64_t worth_bytes,
                       struct usage_victim *victim_out);

/* The last of them; one of branches only if it lies behind segment `behind`, or that
   is 0. */
bool usage_find_last(const struct log *log, uint64_t behind,
                     struct usage_victim *victim_out);

/* Begins a recount: nothing is counted, and what changes from now on is noted. */
void usage_uncount_all(const struct space *space);

/* What a recount has found alive in a segment. */
struct usage_found {
  uint64_t live_bytes;
  uint64_t first_epoch; /* when it was begun; 0: it is not known */
  bool has_pages;       /* of large values */
  bool is_tail;         /* it begins within one */
};

/* Takes what a recount has found: what was alive when it began. */
void usage_count(const struct space *space, uint64_t number,
                 const struct usage_found *found);

/* ---- The table in the file of a store that was closed properly ------------ */

enum { USAGE_ENTRY_BYTES = 8 };

/* Where it has been written. */
struct usage_table {
  uint64_t file_end; /* nothing behind it is used, the table included */
  uint64_t offset;   /* 0: there is none */
  uint64_t count;    /* of segments */
  uint64_t checksum; /* of the table */
};

/* Writes the table, count times USAGE_ENTRY_BYTES. */
void usage_encode(const struct space *space, uint8_t *table_out);

/* Takes it; what is wrong with it counts as not counted. */
void usage_decode(const struct space *space, const uint8_t *table);

/* The log will go on there, whatever the table says. */
void usage_claim(const struct space *space, const struct superblock_head *head);

/* There is none; if the store is empty, that says enough. */
void usage_install_uncounted(const struct space *space, bool is_empty);

#endif
