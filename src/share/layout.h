/* SPDX-License-Identifier: MIT */
/*
 * What the processes that use a store share: the layout of the lock file,
 * NAME-lock, which every one of them maps. It holds what is lost with the
 * machine: who writes, who leads, who reads, and the live state of the store.
 * Whoever changes this file's structs raises SHARE_LAYOUT.
 *
 * Fixed-size types at fixed offsets, so that programs built by different
 * compilers against different C libraries agree. Anybody may have written the
 * bytes: whoever takes an offset or index from here checks it.
 */
#ifndef SHARE_LAYOUT_H
#define SHARE_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SHARE_MAGIC UINT64_C(0x0a6b636f6c636d6d) /* "mmclock\n" */

enum {
  SHARE_LAYOUT = 12,
  SHARE_LINE_BYTES = 64,
  SHARE_HEADER_BYTES = 4096,
  SHARE_CHUNK_BYTES = 4096,
  SHARE_ROWS_PER_CHUNK = 63,
  SHARE_SEGMENTS_OFFSET = 64 << 20 /* of the table of segments */
};

enum share_state {
  SHARE_RESET = 0, /* nobody's: the data file tells all */
  SHARE_READY = 1  /* the live state is here */
};

/*
 * A lock that survives its owner: 0, or the owner's row (its offset in the
 * file, in lines), or SHARE_LOCK_DEAD, and SHARE_LOCK_WAITED if somebody may
 * sleep on it. See share/owner_lock.h.
 */
struct share_lock {
  _Atomic uint32_t word;
};

/* What every get loads. */
struct share_live {
  _Alignas(SHARE_LINE_BYTES) _Atomic uint64_t root; /* R5 */
  _Atomic uint64_t tick;       /* of memory reuse; begins at 1 */
  _Atomic uint64_t size_bytes; /* of the data file: at least that */
  _Atomic uint64_t clock_ms;   /* the latest that it has been, R14 */
};

/* The newest sealed moment, guarded by the writer lock; who reads it without
   the lock compares `sequence`, which is odd while it changes (R10). */
struct share_sealed {
  _Alignas(SHARE_LINE_BYTES) _Atomic uint64_t sequence;
  _Atomic uint64_t root;
  _Atomic uint64_t count;
  _Atomic uint64_t epoch;         /* of the last change in it */
  _Atomic uint64_t content_epoch; /* and of the last that was no move */
};

/* What each change writes, under the writer lock. The intent says which slot
   is about to be stored where: if its writer dies, whoever inherits the lock
   sees whether it was, and sets the count (R11). */
struct share_change {
  _Alignas(SHARE_LINE_BYTES) _Atomic uint64_t count;
  _Atomic uint64_t changed_epoch; /* of the last change: stored before it */
  _Atomic uint64_t intent_slot;   /* 0: none */
  _Atomic uint64_t intent_place;  /* offset in the data file; 0: the root */
  _Atomic uint64_t intent_count;
  _Atomic uint64_t last_writer;    /* connection that changed `log` last */
  _Atomic uint64_t appended_bytes; /* to the log, since it was started */
  _Atomic uint32_t log_index;      /* which of the two `log` is good */
};

/* When something may have expired, and who looks for it (txn/sweep.h). Written
   under the writer lock, but for `active_ns`. */
struct share_expiry {
  _Atomic uint64_t earliest_ms; /* no record that was put since the round began
                                   expires earlier */
  _Atomic uint64_t before_ms;   /* nor one of before; 0: not known */
  _Atomic uint64_t round;       /* how many rounds have begun */
  _Atomic uint64_t
      active_ns;            /* when the round last went on; 0: there is none */
  _Atomic uint64_t next_ns; /* when the next one may begin, monotonic */
};

enum {
  SHARE_LOG_STARTED = 1,  /* the session has begun: there is an open frame */
  SHARE_LOG_HAS_LARGE = 4 /* a record of the frame has pages of its own */
};

/* Where the log is; nothing behind `cursor` is linked. Guarded by the writer
   lock. There are two: what changes together is written to the one that is not
   good, and `log_index` flipped. `cursor` and SHARE_LOG_HAS_LARGE also change
   in place. */
struct share_log {
  _Alignas(SHARE_LINE_BYTES) _Atomic uint64_t cursor;
  uint64_t epoch; /* the open epoch */
  uint64_t salt;
  uint64_t frame_offset;
  uint64_t segment_count;
  uint64_t large_offset;
  uint64_t large_limit;
  uint64_t first_epoch;   /* of those that the next commit is made of */
  _Atomic uint32_t flags; /* SHARE_LOG_... */
  /* The second head, for branches. */
  _Alignas(8) _Atomic uint64_t branch_cursor; /* 0: it has no segment */
  uint64_t branch_frame; /* the open frame; 0: there is none */
  uint64_t branch_segment_end;
  uint64_t branch_first; /* the first frame since then; 0: none */
};

/* What commits. */
struct share_commit {
  _Alignas(SHARE_LINE_BYTES) struct share_lock leader; /* guards the rest of
                                        this and `chain`, but for the first
                                        words, which anybody loads */
  _Atomic uint32_t sequence;      /* futex: raised when a leader has finished */
  _Atomic uint32_t waiting;       /* callers whom the next batch will carry */
  _Atomic int32_t failed;         /* the code of the commit that failed, or 0 */
  _Atomic uint64_t durable_epoch; /* no change up to it can be lost */
  _Atomic uint64_t superblock;    /* sequence << 2 | place << 1 | is synced */
  _Atomic uint64_t superblock_epoch;
  _Atomic uint64_t last_ns; /* when the last commit began, monotonic */
  uint32_t carried;         /* callers carried by the batch under way */
  uint32_t expected;        /* callers there were when the last one finished */

  _Alignas(SHARE_LINE_BYTES) uint64_t sync_ns; /* how long the last one took */
  _Atomic uint64_t commit_count;
  _Atomic uint64_t sync_count;
  _Atomic uint32_t chain_index; /* which of the two `chain` is good */
  _Atomic uint32_t is_syncing;  /* a sync has begun, and has not succeeded */

  /* What the newest superblock says that a sync has put on disk: the space that
     its epoch does not need may be used again. */
  _Alignas(SHARE_LINE_BYTES) _Atomic uint64_t recovery_epoch;
  _Atomic uint64_t recovery_used_bytes;
  _Atomic uint64_t superblock_used_bytes; /* of the newest one written */
  _Atomic uint32_t wants_superblock;      /* space waits for one */
};

/* What was counted in the segments of the log's heads when an epoch began. */
enum { SHARE_COUNTS = 10 }; /* two, and what a run of large values has left */
struct share_counts {
  _Atomic uint64_t epoch; /* 0: nothing is noted */
  uint64_t numbers[SHARE_COUNTS];
  int32_t live_words[SHARE_COUNTS];
};

enum share_full {
  SHARE_FULL = 1,
  SHARE_FULL_FOR_DELETES = 2 /* for deletes, too */
};

/* Upkeep of space, by whatever process comes to it. Guarded by the writer lock,
   but for these, which are read without it, and some of them written, as
   docs/concurrency.md tells: need, compacting_ns, paid_bytes, recounter,
   recount_serial, recount_ns, recount_appended, is_uncountable, is_full,
   is_sparse, is_emptying, is_crowded, reserve_bytes, free_count, coming_count,
   session_epoch, saved_newest, dropped_records, own_bytes, moved_bytes,
   cleaned_count, coarse_bytes, disk_bytes. */
struct share_upkeep {
  _Alignas(SHARE_LINE_BYTES) _Atomic uint32_t need; /* enum share_need */
  _Atomic uint32_t is_emptying;   /* what is alive falls fast: cleaning waits */
  _Atomic uint64_t compacting_ns; /* until then (monotonic) victims are what is
                                     not full; 0: not at all */
  _Atomic uint64_t compact_epoch; /* and was begun before that epoch */
  _Atomic uint64_t victim;     /* the segment being cleaned, plus 1; 0: none */
  _Atomic uint64_t victim_run; /* segments that are cleaned together */
  _Atomic uint64_t victim_offset;    /* how far it has been looked through */
  _Atomic uint64_t victim_frame_end; /* of the frame that this is in */
  _Atomic uint64_t paid_bytes;     /* appended_bytes for which puts have paid */
  _Atomic uint64_t recounter;      /* connection that recounts, */
  _Atomic uint64_t recount_serial; /* which of all recounts it is, */
  _Atomic uint64_t recount_ns; /* and when it last went on, monotonic; written
                                  without the lock */
  _Atomic uint64_t
      recount_appended;            /* appended_bytes when the last one began */
  _Atomic uint32_t is_uncountable; /* a recount has found the file damaged */
  _Atomic uint32_t is_full;   /* somebody has found no space: enum share_full */
  _Atomic uint32_t is_sparse; /* much is free: the last segments are emptied */
  _Atomic uint32_t is_crowded;    /* too much is alive for more records */
  _Atomic uint64_t reserve_bytes; /* kept for what frees space */
  _Atomic uint64_t free_count;   /* free segments that have blocks, as they were
                                  when all were last looked at */
  _Atomic uint64_t coming_count; /* empty ones, that the next commit frees */
  _Atomic uint64_t begun_count;  /* segments that were begun since then */
  _Atomic uint64_t first_free;   /* no segment below that one is free, as far as
                                    was known then */
  _Atomic uint64_t
      session_epoch; /* the session's first: what was begun earlier is
                                     of before it */
  _Atomic uint64_t saved_oldest; /* epochs of the saved snapshots: what lies
                                  between them is held, too */
  _Atomic uint64_t saved_newest; /* 0: there are none */
  _Atomic uint64_t left_oldest;  /* the same of before one was dropped, */
  _Atomic uint64_t left_newest;
  _Atomic uint64_t left_epoch; /* which counts as long as no superblock on disk
                                  has that epoch */
  _Atomic uint64_t
      dropped_records; /* of maps and saved snapshots, that are counted as alive
                          until the next recount */
  _Atomic uint64_t ended_tick; /* when a snapshot was last ended for its age */
  _Atomic uint64_t own_bytes;  /* appended by the cleaner, */
  _Atomic uint64_t
      moved_bytes; /* and what it has moved, since the session began */
  _Atomic uint64_t cleaned_count; /* segments that it has gone through */
  struct share_counts begun;      /* by the transaction that is under way */
  _Atomic uint64_t fall_ns; /* since then (monotonic) it is looked whether what
                                  is alive falls fast, */
  _Atomic uint64_t fall_bytes;   /* from that much */
  _Atomic uint64_t commit_bytes; /* appended between two commits, lately */
  _Atomic uint64_t closed_bytes; /* appended_bytes at the last one */
  _Atomic uint64_t record_bytes; /* of a record that is moved, on average; 0: it
                                    is not known yet */
  _Atomic uint64_t
      fall_appended; /* bytes that changes had appended when fall_bytes
                                     was noted */
  _Atomic uint64_t
      emptied_count; /* segments that have become empty since all were
                                     last looked at */
  _Atomic uint32_t
      is_late; /* too much waits for a commit, but there is nothing to
                               clean: who makes a change waits, too */
  _Atomic uint64_t committed_bytes; /* appended_bytes at the last commit */
  _Atomic uint64_t little_commits;  /* so many of the last ones, one after the
                                      other, had little in them */
  _Atomic uint64_t coarse_bytes;    /* the kernel may have in large pages what
                                      lies before that */
  uint64_t expiring_maps; /* bit n: since the last round of the sweep began, a
                             record that expires was put into a map whose id is
                             n modulo 64 */
  _Atomic uint64_t disk_bytes; /* how long the file can become on a disk that is
                                  nearly full; 0: it is not */
};

enum share_need {
  SHARE_NEED_NOTHING = 0,
  SHARE_NEED_IDLE = 1, /* when nothing else is to do */
  SHARE_NEED_SOON = 2, /* whoever does upkeep should */
  SHARE_NEED_NOW = 3   /* whoever changes something does its part */
};

/* A segment of the data file: what is alive in it. Guarded by the writer lock.
   Of several stores to an entry that of `state` comes last: who dies in between
   leaves at worst an entry that counts too much. */
struct share_segment {
  _Atomic int32_t live_words;   /* 8 bytes each; while it is not counted: less
                                   what was unlinked since the recount began */
  _Atomic uint32_t state;       /* enum share_segment_state and flags */
  _Atomic uint64_t first_epoch; /* the open epoch when it was begun */
  _Atomic uint64_t last_epoch;  /* the open epoch when the log left it; if it is
                                   empty: the last change's when it became so,
                                   if that is later */
  _Atomic uint64_t tick;        /* when it became empty */
};

enum share_segment_state {
  SHARE_SEGMENT_FREE = 0,  /* may be begun */
  SHARE_SEGMENT_LOG = 1,   /* frames */
  SHARE_SEGMENT_LARGE = 2, /* values on pages of their own */
  SHARE_SEGMENT_EMPTY = 3, /* nothing in it is alive: will be free */
  SHARE_SEGMENT_STATE_MASK = 15,
  SHARE_SEGMENT_UNCOUNTED = 16, /* flag: it is not known what is alive */
  SHARE_SEGMENT_STUCK = 32,     /* flag: cleaned, and yet not empty */
  SHARE_SEGMENT_HOLE = 64,      /* flag, if free: its blocks are given back */
  SHARE_SEGMENT_TAIL = 128, /* flag, of large values: it begins within one */
  SHARE_SEGMENT_BRANCHES = 256, /* flag, of frames: was begun for branches */
  SHARE_SEGMENT_FINE = 512 /* flag, whatever the state is: the kernel has it
                                   in small pages */
};

_Static_assert(sizeof(struct share_segment) == 32, "fixed");

/* How far the log is on disk; two of them, flipped like `log`. */
struct share_chain {
  uint64_t next_offset; /* the first frame that is not durable */
  uint64_t checksum;    /* of the frame before it */
  uint64_t durable_epoch;
  uint64_t superblock_bytes; /* appended_bytes as of the newest superblock */
};

struct share_header {
  uint64_t magic;
  uint32_t layout;
  _Atomic uint32_t state; /* enum share_state */
  uint8_t boot_id[16];
  uint8_t file_id[16];
  uint64_t device;
  uint64_t inode;

  uint64_t mount_id;    /* 0: not known, and nothing is taken over */
  uint64_t lock_device; /* of the lock file itself */
  uint64_t lock_inode;
  _Atomic uint32_t chunk_count;
  _Atomic uint32_t was_clean;         /* when the first process opened it */
  _Atomic uint64_t recovered_commits; /* that were rolled forward then */

  struct share_live live;
  struct share_sealed sealed;
  _Alignas(SHARE_LINE_BYTES) struct share_lock writer_lock;
  _Atomic uint64_t intent_count_place; /* of `change`: where the count is; the
                                          line is that of whoever has the lock */
  _Atomic uint64_t
      content_epoch;          /* of the last change that was no move (R17) */
  struct share_expiry expiry; /* which is in that line, too */
  struct share_change change;
  struct share_log log[2];
  _Alignas(SHARE_LINE_BYTES) struct share_lock growth_lock;
  struct share_commit commit;
  struct share_chain chain[2];
  struct share_upkeep upkeep;
};

_Static_assert(sizeof(struct share_header) <= SHARE_HEADER_BYTES,
               "the header has its place");
_Static_assert(offsetof(struct share_header, live) == 128 &&
                   offsetof(struct share_header, expiry) == 280 &&
                   offsetof(struct share_header, log) == 384 &&
                   sizeof(struct share_log) == 128 &&
                   offsetof(struct share_header, commit) == 704 &&
                   offsetof(struct share_header, chain) == 896 &&
                   offsetof(struct share_header, upkeep) == 960,
               "the layout is the same for every compiler");

/*
 * A line of the reader table. A thread's row carries its pin, a snapshot's row
 * its epoch. Written by the process that owns its chunk; `snapshot` also by
 * whoever ends a snapshot that is too old.
 */
struct share_row {
  _Alignas(SHARE_LINE_BYTES) _Atomic uint64_t pin; /* a tick; 0: not pinned */
  _Atomic uint64_t snapshot;  /* share_mark(), perhaps ended; 0: none */
  _Atomic uint64_t since_ns;  /* when it was opened, monotonic */
  _Atomic uint64_t limit_ns;  /* how old it may become; 0: any age */
  _Atomic uint64_t log_bytes; /* appended_bytes when it was opened */
  _Atomic uint32_t thread;    /* the thread's number, for people */
  uint32_t depth;         /* a thread's: pins nest; a snapshot's: how often the
                              row was one, so that marks differ */
  _Atomic uint32_t owned; /* enum share_owner */
};

enum share_owner { SHARE_OWNER_NONE, SHARE_OWNER_THREAD, SHARE_OWNER_SNAPSHOT };

/* Set in a mark when the snapshot has become too old: it is ended, but holds
   what it held until the writer has noted when (R16). */
#define SHARE_MARK_ENDED (UINT64_C(1) << 63)

/* What names a snapshot in its row: in bits 48..0 its epoch, below 2^48, plus 1,
   and in bits 62..49 which snapshot of the row it is. Never 0. */
static inline uint64_t share_mark(const struct share_row *row, uint64_t epoch) {
  return ((uint64_t)row->depth << 49 & ~SHARE_MARK_ENDED) | (epoch + 1);
}

static inline uint64_t share_mark_epoch(uint64_t mark) {
  return (mark & ((UINT64_C(1) << 49) - 1)) - 1;
}

enum share_chunk_state { SHARE_CHUNK_FREE = 0, SHARE_CHUNK_OWNED = 1 };

/* Rows of one process, which holds the kernel's lock on it while it lives. */
struct share_chunk {
  _Alignas(SHARE_LINE_BYTES) _Atomic uint32_t state;
  _Atomic uint32_t row_limit;  /* rows from here on were never owned */
  _Atomic uint32_t process;    /* its number, for people */
  _Atomic uint32_t is_further; /* not the first chunk of its process */
  _Atomic uint64_t since_ns;
  _Atomic uint64_t connection; /* of the process: the same in all its chunks */
  struct share_row rows[SHARE_ROWS_PER_CHUNK];
};

_Static_assert(sizeof(struct share_row) == SHARE_LINE_BYTES,
               "rows do not share cache lines");
_Static_assert(sizeof(struct share_chunk) == SHARE_CHUNK_BYTES,
               "a chunk is a page");

#endif
