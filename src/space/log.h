/* SPDX-License-Identifier: MIT */
/*
 * The log: where nodes are appended. One frame is open; a node goes behind the
 * last one, or, if the segment is full, into a new frame in a new segment.
 * Large values go to whole pages of segments of their own. Branches go to frames
 * and segments of their own, too, once the store is large enough: each commit
 * has the branches copied that are changed after it, so their segments empty by
 * themselves, which those of records, mixed with them, would not. The writer lock
 * guards everything here.
 *
 * All processes append to one log, whose state lies in the lock file (struct
 * share_log). Here is a working copy: log_enter() brings it up to date, changes
 * are made to it alone, and log_settle() hands them over at once, just before
 * the store that links what they are about. So a change that fails, or whose
 * process dies, leaves a log that knows nothing of it.
 *
 * What a change appends may be staged: put together in private memory and
 * written with one pwrite() when it is settled. A change that is committed at
 * once is cheaper that way, because a store into a page that has been synced is
 * a page fault; others are cheaper by the mapping.
 *
 * A seal changes no frame: a frame may hold nodes of all epochs since the last
 * commit was taken, and nodes of the earlier of them are recycled in the later ones.
 * log_close() ends the frames when that is to be committed. So recovery comes to
 * commits alone, and not to the seals in between.
 *
 * Invariant: behind the open frame there is room for one more frame header in
 * space that is already there, as long as the frame holds a node: so the frame
 * after a change can be opened on a full disk.
 */
#ifndef SPACE_LOG_H
#define SPACE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/frame.h"
#include "format/superblock.h"
#include "share/layout.h"
#include "space/recycler.h"
#include "space/space.h"
#include "space/usage.h"

/* A log is not gone on with at an epoch from here on, which is a file's word:
   no session can seal so often that it comes to NODE_EPOCH_LIMIT. */
#define LOG_EPOCH_MAX (NODE_EPOCH_LIMIT / 2)

/* What the newest seal has fixed. */
struct log_root {
  uint64_t epoch;
  uint64_t root;
  uint64_t count;
  uint64_t content_epoch; /* when the content was changed last */
};

/* The second head. Its frames come behind those of the first in the chain of a
   commit; the first one is opened when it is needed. */
struct log_branches {
  uint64_t frame_offset; /* the open frame; 0: none */
  uint64_t cursor;       /* 0: no segment */
  uint64_t counted_cursor;
  uint64_t segment_end;
  uint64_t first_offset; /* the first frame of the commit; 0: none */
};

/* What tells whether cleaning gains anything. */
struct log_vain {
  uint64_t changed;      /* appended by changes, */
  uint64_t own;          /* and by upkeep, when it did last; */
  uint64_t live_count;   /* least since changes filled a segment: alive, */
  uint64_t record_count; /* in use for records, */
  uint64_t count;        /* and begun, in segments; 0: nobody has looked yet */
};

struct log {
  struct space *space;
  bool has_one_head; /* in a small store */
  /* Left at the end of a segment: for the header of the next frame. With one head for
     another one, too, so that what appends nothing, clear(), can be committed where no
     segment is free. */
  uint32_t end_bytes;
  const struct hasher *hasher;
  struct share_header *header;
  uint64_t connection; /* whose working copy this is */
  bool is_current;     /* the copy was equal when this connection left it */
  bool is_moving;      /* what is changed is where nodes lie, no content */
  bool is_moved;       /* more than the cursor has changed since log_enter() */
  bool is_private;     /* log_begin_private(): what the recycler has is not of
                          the log that is shared */

  uint64_t salt;
  uint64_t epoch;          /* the open epoch */
  uint64_t first_epoch;    /* the first one that log_close() has not ended */
  uint64_t frame_offset;   /* the open frame */
  uint64_t cursor;         /* where the next node goes */
  uint64_t counted_cursor; /* what lies before it is counted as alive */
  uint64_t segment_end;
  struct log_branches branches;
  uint32_t flags;               /* SHARE_LOG_... */
  struct superblock_head large; /* where the next large value goes */
  uint64_t appended_bytes;      /* handed out since the session began */

  bool is_staging;     /* what is appended is staged, if it fits */
  uint8_t *stage;      /* LOG_STAGE_BYTES, once something was staged */
  uint64_t stage_base; /* the offset of the first byte, */
  uint64_t stage_size; /* if it is not empty */

  uint64_t pages_offset; /* of a large value that is not linked yet */
  uint64_t pages_size;   /* 0: none */

  struct log_changes {
    int32_t
        *words; /* what a transaction has changed in the counts of the segments
                       that there were when it began */
    uint64_t count; /* of segments; 0: no transaction, or no memory */
    uint64_t capacity;
    uint64_t *touched; /* segments that it has changed words of, some twice */
    size_t touched_count;
    size_t touched_capacity;
  } changes;

  struct recycler recycler;
  struct usage_victims victims;
  struct usage_slide slide;
  uint64_t large_bytes; /* by this connection, for large values */
  _Atomic uint64_t
      large_run; /* segments side by side that one has needed, lately; 0: none */
  _Atomic uint64_t large_appended; /* with so many bytes appended */
  _Atomic uint64_t narrow_count;   /* free segments that are too few for that */
  uint64_t mean_bytes; /* of a record, when all was last looked at */
  struct log_vain vain;
};

enum {
  LOG_STAGE_BYTES = 16384,
  LOG_BRANCH_SEGMENTS =
      6,                /* from so many segments on, branches have their own */
  LOG_COPY_BYTES = 128, /* of the branches above a record that is moved alone */
  LOG_FEW_SEGMENTS = 256,    /* so few that parts of one count */
  LOG_LITTLE_BYTES = 1 << 20 /* in a commit: less than the large pages that it
                                would change */
};

void log_init(struct log *log, struct space *space, struct readers *readers,
              const struct hasher *hasher);
void log_destroy(struct log *log);

/* The good one of the two. */
static inline struct share_log *log_shared(const struct log *log) {
  uint32_t index = atomic_load_explicit(&log->header->change.log_index,
                                        memory_order_acquire);
  return &log->header->log[index & 1];
}

static inline bool log_is_started(const struct log *log) {
  return (log->flags & SHARE_LOG_STARTED) != 0;
}

/* The part of log_enter() that reads the lock file. */
int log_load(struct log *log);

/* Brings the working copy up to date; first of all under the writer lock.
   MMCMAP_ECORRUPT: what the lock file says cannot be. */
static inline int log_enter(struct log *log) {
  uint64_t last = atomic_load_explicit(&log->header->change.last_writer,
                                       memory_order_relaxed);
  if (LIKELY(log->is_current && last == log->connection)) return MMCMAP_OK;
  return log_load(log);
}

/* Forgets what was done to the working copy since it was last settled. */
void log_abandon(struct log *log);

/* Writes what is staged. */
int log_flush_stage(struct log *log);

/* The part of log_settle() that hands over everything. */
void log_store(struct log *log);

/* Counts what was appended to the open frames as alive. What a transaction has
   given back there may have been counted already. */
static inline void log_count(struct log *log) {
  struct log_branches *branches = &log->branches;
  if (log->cursor > log->counted_cursor) {
    if (!BROKEN(BREAK_COUNT_LOW))
      usage_raise(log->space, log->frame_offset,
                  log->cursor - log->counted_cursor);
    log->counted_cursor = log->cursor;
  }
  if (branches->cursor > branches->counted_cursor) {
    if (!BROKEN(BREAK_COUNT_LOW))
      usage_raise(log->space, branches->frame_offset,
                  branches->cursor - branches->counted_cursor);
    branches->counted_cursor = branches->cursor;
  }
}

/*
 * Hands over what has been appended. R12: the nodes are written before the
 * cursor moves beyond them, and it moves before one of them is linked: who
 * inherits the lock in between finds no node that it would write over.
 */
static inline int log_settle(struct log *log) {
  if (UNLIKELY(log->stage_size > 0)) {
    int code = log_flush_stage(log);
    if (code != MMCMAP_OK) return code;
  }
  if (BROKEN(BREAK_SETTLE_LATE)) return MMCMAP_OK;
  log_count(log);
  log->pages_size = 0;
  if (UNLIKELY(log->is_moved)) {
    log_store(log);
    return MMCMAP_OK;
  }
  struct share_log *shared = log_shared(log);
  atomic_store_explicit(&shared->flags, log->flags, memory_order_release);
  atomic_store_explicit(&shared->branch_cursor, log->branches.cursor,
                        memory_order_release);
  atomic_store_explicit(&shared->cursor, log->cursor, memory_order_release);
  atomic_store_explicit(&log->header->change.appended_bytes,
                        log->appended_bytes, memory_order_relaxed);
  return MMCMAP_OK;
}

/*
 * Says which slot is about to be stored at `place` (0: the root), what the
 * count will be then, and where that is kept (enum trie_count_place). R11: in this
 * order, the slot last to become true: an intent that is half the one before
 * matches nothing, or what is done already.
 */
static inline int log_announce(struct log *log, uint64_t place, uint64_t slot,
                               uint64_t count, uint64_t count_place) {
  struct share_change *change = &log->header->change;
  int code = log_settle(log);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  TEST_POINT("settled");
  /* R17: the content's first, so that nobody takes a change for a move. */
  if (LIKELY(!log->is_moving))
    atomic_store_explicit(&log->header->content_epoch, log->epoch,
                          memory_order_relaxed);
  atomic_store_explicit(&change->changed_epoch, log->epoch,
                        memory_order_release);
  atomic_store_explicit(&change->intent_slot, slot, memory_order_release);
  atomic_store_explicit(&change->intent_place, place, memory_order_release);
  atomic_store_explicit(&change->intent_count, count, memory_order_release);
  atomic_store_explicit(&log->header->intent_count_place, count_place,
                        memory_order_release);
  return MMCMAP_OK;
}

/* Installs a log that has not been started, as recovery found it. */
void log_install(struct log *log, const struct superblock *state);

/* Makes ready to go on at the heads that recovery found, which lie in segments
   that have been begun, or in a new segment if there is no room. Nothing in the
   log is written yet: log_head() is where it will go on. */
int log_prepare(struct log *log, uint64_t salt, uint64_t epoch,
                const struct superblock_head heads[SUPERBLOCK_HEADS]);

/* Opens the first frame, after a superblock with the salt is on disk. */
void log_start(struct log *log);

/* The part of log_alloc() that opens a new segment or grows the file. */
int log_make_room(struct log *log, uint64_t size);

/* The part of log_alloc() that stages what was allocated. */
int log_stage(struct log *log, uint64_t offset, uint64_t size);

/* Space for a node of `size` bytes, a multiple of 8, at most a segment less
   its headers. The caller fills it before it allocates again. */
static inline int log_alloc(struct log *log, uint64_t size,
                            uint64_t *offset_out) {
  uint64_t end = log->cursor + size + log->end_bytes;
  if (UNLIKELY(end > log->segment_end || end > log->space->granted_bytes)) {
    int code = log_make_room(log, size);
    if (code != MMCMAP_OK) {
      *offset_out = 0;
      return code;
    }
  }
  *offset_out = log->cursor;
  log->cursor += size;
  log->appended_bytes += size;
  return LIKELY(!log->is_staging) ? MMCMAP_OK
                                  : log_stage(log, *offset_out, size);
}

/* Where the next segment for branches begins while a store of few segments is
   compacted: behind all others, so that what the last of them does not need is cut
   off. 0: it is not compacted, or has more. */
uint64_t log_behind_all(const struct log *log);

/* The part of log_alloc_branch() that opens a frame, or a segment. */
int log_make_branch_room(struct log *log, uint64_t size);

/* The same for a branch. What is staged goes to one place, to be one write. */
static inline int log_alloc_branch(struct log *log, uint64_t size,
                                   uint64_t *offset_out) {
  struct log_branches *branches = &log->branches;
  if (log->is_staging || log->has_one_head ||
      log->space->segment_count < LOG_BRANCH_SEGMENTS)
    return log_alloc(log, size, offset_out);
  uint64_t end = branches->cursor + size;
  if (UNLIKELY(branches->frame_offset == 0 || end > branches->segment_end ||
               end > log->space->granted_bytes)) {
    int code = log_make_branch_room(log, size);
    if (code != MMCMAP_OK) {
      *offset_out = 0;
      return code;
    }
  }
  *offset_out = branches->cursor;
  branches->cursor += size;
  log->appended_bytes += size;
  return MMCMAP_OK;
}

/* The largest node that log_alloc() can give. */
static inline uint64_t log_node_size_max(const struct log *log) {
  return log->space->segment_size - SEGMENT_HEADER_BYTES -
         2 * FRAME_HEADER_BYTES;
}

/* Whole pages for a large value; `size` is a multiple of the page size. */
int log_alloc_large(struct log *log, uint64_t size, uint64_t *offset_out);

/* Whether there have been large values lately, for a store of `count` segments. */
bool log_has_large(const struct log *log, uint64_t count);

/* How many segments side by side large values need; 1 if there have been none for a
   while, or they are too large for that to be of use. */
uint64_t log_large_run(const struct log *log);

/* Nothing more goes to the pages that are left. */
void log_leave_large(struct log *log);

/* Whether a segment is to be left to the run of large values before it, so that it
   can be made longer; and one, free too, that need not be. */
bool log_is_behind_large(const struct log *log, uint64_t number,
                         uint64_t *other_out);

/* The node allocated last refers to pages of log_alloc_large(). */
static inline void log_note_large(struct log *log) {
  log->flags |= SHARE_LOG_HAS_LARGE;
}

/* Where the engine writes what stands at `offset`. */
static inline uint8_t *log_at(const struct log *log, uint64_t offset) {
  if (UNLIKELY(offset - log->stage_base < log->stage_size))
    return log->stage + (offset - log->stage_base);
  return log->space->map.write + offset;
}

/* Seals the open epoch, and opens the next. Only the lock file is written, so a
   process that may not write the data file can do it. */
void log_seal(struct log *log);

/* Closes the open frames, so that all that was sealed is one commit, of `root`, and
   opens a frame for the next. The open epoch has no change yet. On failure nothing
   has changed. */
int log_close(struct log *log, const struct log_root *root);

/*
 * A transaction appends to the working copy alone for as long as it likes, and
 * settles it in the end with log_settle(), or abandons it. Until then nobody may
 * go on with this copy as with the shared one, or with what the recycler gets:
 * whoever comes to the lock next, after a thread's end perhaps, loads it anew.
 */
void log_begin_private(struct log *log);
void log_free_private(struct log *log); /* in log_destroy() */
void log_end_private(struct log *log);

/* Instead of log_abandon() for whoever has had the lock since it began: takes back,
   too, what it has changed in the counts of older segments. (Of one that died these
   stay too high.) */
void log_abandon_private(struct log *log);

/* The part of log_revive() for a transaction. */
void log_note_private(struct log *log, uint64_t offset, int64_t size);

/* `size` bytes at `offset` that were recycled are alive again; or, in a draft, are not
   alive any more. */
static inline void log_revive(struct log *log, uint64_t offset, uint64_t size) {
  usage_revive(log->space, offset, size, log->epoch);
  if (UNLIKELY(log->is_private)) log_note_private(log, offset, (int64_t)size);
}
void log_lower_private(struct log *log, uint64_t offset, uint64_t size);

/* Within a transaction: goes on in the next epoch, so that what was born before is
   as good as sealed. MMCMAP_EFULL: there is none. */
int log_next_epoch(struct log *log);

/* How far a frame, and the large values, are filled. */
struct log_mark {
  uint64_t frame_offset;
  uint64_t cursor;
  uint64_t branch_frame_offset;
  uint64_t branch_cursor;
  uint64_t appended_bytes;
  struct superblock_head large;
  uint32_t flags;
};
struct log_mark log_mark(const struct log *log);

/* Gives back what was appended since `mark`, nothing of which may be linked, or
   in the recycler; as far as it lies in the same frame, and in the same run of
   large values. Else it stays, as nodes that nothing refers to. */
void log_return_to(struct log *log, const struct log_mark *mark);

/* The same for what is counted as alive, if nothing that was appended since the
   epoch of `counts` began is used any more. */
void log_return_counts(struct log *log, const struct share_counts *counts);

/* Goes on in lower segments, where they are free, right after a seal: what the
   heads lie in can be emptied, too, after the next one. */
int log_descend(struct log *log);

/* The same where what the heads lie in is in large pages, if nothing has been written
   there since it was synced: small ones are gone on in. */
int log_leave_coarse(struct log *log);

/* The same where a phase of compacting has what follows begin (space/usage.h): the
   heads that write what it moves. */
int log_begin_phase(struct log *log, enum usage_phase phase);

/* Whether somebody compacts. */
bool log_is_compacting(const struct log *log);

/* The phase that this process compacts in. */
enum usage_phase log_phase(const struct log *log);

/* Whether so much has been dropped with maps, and with saved snapshots, that a
   recount is worth it. */
bool log_has_dropped(const struct log *log, const struct usage_totals *totals);

/* Something has been dropped of which it is not known how much it is: it may be
   most of what there is. */
void log_drop_unknown(struct log *log);

/* What changes have appended since the log was last closed for a commit; what the
   cleaner has is left out. */
uint64_t log_uncommitted_bytes(const struct log *log);

/* Whether little is changed from one commit to the next, in a store of many small
   records: then most of what is written are branches that are copied for one change,
   and committing once more costs little. */
bool log_commits_often(const struct log *log);

/* Whether little has been appended since the last commit, with what the cleaner has. */
bool log_has_little(const struct log *log);

/* Whether so little is changed from one commit to the next, in a store whose file may
   lie in large pages of the kernel, that it is to go to small ones. */
bool log_commits_little(const struct log *log);

/* Whether so many segments wait for a commit that it is worth it. */
bool log_wants_commit(const struct log *log, const struct usage_totals *totals);

/* Whether so much has been moved that it gains nothing, and would go on for ever. */
bool log_cleans_in_vain(struct log *log, const struct usage_totals *totals);

/* What of the reserve may be used to make room. */
enum space_claim log_claim_for_room(const struct log *log,
                                    const struct usage_totals *totals,
                                    bool for_delete);

/* Bytes, for usage_totals. */
uint64_t log_spare_bytes(const struct log *log,
                         const struct usage_totals *totals);

/* How many segments wait for one, where there is no space, until it is made though
   there is more to clean. */
uint64_t log_waiting_at_last(const struct log *log);

/* Whether one is worth it where there is no space: something waits for it, or a segment
   may be moved then. Each change after it copies all its branches anew. */
bool log_gains_by_commit(const struct log *log,
                         const struct usage_totals *totals);

/* Whether so many do, while so many are used, that those who make changes wait for
   it, too. */
bool log_is_late(const struct log *log, uint64_t waiting, uint64_t used);

/* Whether nearly nothing is free that large values could use, too, while of `used`
   segments as many as counts are `waiting`; in a store of few segments, or of large
   values. */
bool log_has_run_out(const struct log *log, uint64_t waiting, uint64_t used);

/* Looks at all segments, and says in the lock file whether there is upkeep to
   do. */
void log_sweep(struct log *log, struct usage_totals *totals_out);

/* The same before `count` segments are begun, if enough have been since the last
   time: a look at all of them costs little for each. */
void log_look(struct log *log, uint64_t count);

/* Whether the superblocks keep the file much longer than what is in use: both are
   to be written again then. */
bool log_is_named_longer(const struct log *log,
                         const struct usage_totals *totals);

/* Gives back what is free at the file's end, and the blocks of what is free
   beyond what will soon be used; after log_sweep(). */
int log_give_back(struct log *log, struct usage_totals *totals, bool is_idle,
                  bool *more_out);

/* Where the open frame begins: the head that a superblock names if all closed
   frames are on disk. */
struct superblock_head log_head(const struct log *log);

/* Where the next frame of branches may begin, if none is open. */
struct superblock_head log_branch_head(const struct log *log);

/* The end of what has been handed out: the file is longer. */
uint64_t log_end(const struct log *log);

#endif
