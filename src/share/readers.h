/* SPDX-License-Identifier: MIT */
/*
 * The reader table: who may still be looking at memory that was unlinked.
 *
 * A reader pins before it loads the root: it writes the current tick into its
 * own row. Memory that was unlinked at tick t may be used again when every pin
 * is younger than t (epoch-based reclamation: Fraser, "Practical lock-freedom",
 * 2004). The ordering rules stand in docs/concurrency.md.
 *
 * The table lies in the lock file, in chunks that belong to one process each;
 * it grows without bound. Each thread has a row of its own per table, a cache
 * line, found through thread-local storage; a thread's first pin may take a
 * chunk, later ones call nothing. Each snapshot has a row too. The rows of a
 * process that died are found by the kernel's lock on their chunk, never by a
 * process number.
 */
#ifndef SHARE_READERS_H
#define SHARE_READERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/testing.h"
#include "os/thread.h"
#include "share/lock_file.h"

struct readers {
  struct share *share;
  uint64_t serial;           /* names this table for ever in this process */
  struct readers *next_live; /* in the list of live tables */
  uint32_t *chunks;          /* those that this process owns */
  uint32_t chunk_count;
  uint64_t stuck_horizon; /* the writer's: the same horizon, found so often */
  uint32_t stuck_count;
  _Atomic uint64_t leave_ns; /* this process is about to leave: until when those
                                of its threads wait for others who would wait for
                                ever (monotonic); 0: it is not */
};

/* A connection to the table of `share`, which must outlive it. */
void readers_init(struct readers *readers, struct share *share);

/* Takes a first chunk: from then on the process is one of the table's users. */
int readers_join(struct readers *readers);

/* Gives back all rows of this process. No thread may be pinned. */
void readers_destroy(struct readers *readers);

/* The same for a parent's table in a child: frees memory alone. */
void readers_forget(struct readers *readers);

/* This thread's row that was found last, per slot of a small cache. */
struct readers_cached {
  uint64_t serial;
  struct share_row *row;
};
enum { READERS_CACHE_SLOTS = 4 };
extern _Thread_local struct readers_cached readers_cache[READERS_CACHE_SLOTS];

/* Finds or claims this thread's row; MMCMAP_ENOMEM, MMCMAP_ENOSPC. */
int readers_row_slow(struct readers *readers, struct share_row **row_out);

static inline int readers_row(struct readers *readers,
                              struct share_row **row_out) {
  struct readers_cached *cached =
      &readers_cache[readers->serial % READERS_CACHE_SLOTS];
  if (UNLIKELY(cached->serial != readers->serial))
    return readers_row_slow(readers, row_out);
  *row_out = cached->row;
  return 0;
}

/* R1: the pin is published before anything is loaded from the map. The fence
   pairs with that of readers_advance(). */
static inline void readers_pin(struct readers *readers, struct share_row *row) {
  if (row->depth++ > 0 || BROKEN(BREAK_NO_PIN)) return;
  uint64_t tick = atomic_load_explicit(&readers->share->header->live.tick,
                                       memory_order_acquire);
  atomic_store_explicit(&row->pin, tick, memory_order_relaxed);
  if (!BROKEN(BREAK_NO_FENCE)) atomic_thread_fence(memory_order_seq_cst);
}

/* R2: all loads from the map come before the pin is withdrawn. */
static inline void readers_unpin(struct share_row *row) {
  CHECK_SLOW(row->depth > 0);
  if (--row->depth > 0 && !BROKEN(BREAK_FLAT_PINS)) return;
  atomic_store_explicit(&row->pin, 0, memory_order_release);
}

/* The tick for memory that has been unlinked just now. */
static inline uint64_t readers_tick(const struct readers *readers) {
  return atomic_load_explicit(&readers->share->header->live.tick,
                              memory_order_relaxed);
}

/*
 * Raises the tick and returns the horizon: memory that was unlinked at a tick
 * below it can be seen by nobody. Only the writer calls this. Rows of the dead
 * are given up when they have held the horizon back for a while.
 */
uint64_t readers_advance(struct readers *readers);

/* ---- Rows as owners of locks ------------------------------------------- */

static inline uint32_t readers_owner_of_row(const struct readers *readers,
                                            const struct share_row *row) {
  return (uint32_t)((size_t)((const uint8_t *)row - readers->share->at) /
                    SHARE_LINE_BYTES);
}

/* What names this thread in a lock of share/owner_lock.h. */
static inline int readers_owner(struct readers *readers, uint32_t *owner_out) {
  struct share_row *row;
  *owner_out = 0;
  int code = readers_row(readers, &row);
  if (LIKELY(code == 0)) *owner_out = readers_owner_of_row(readers, row);
  return code;
}

/* Whether a lock's word names no row that anybody could have: nobody has written
   it who took the lock. */
bool readers_is_nobody(struct readers *readers, uint32_t owner);

/* Whether the process of a row is dead; then the kernel's lock on its chunk is
   held, so that nobody can own a row of it, until readers_let_dead_go(), which
   must follow. */
bool readers_hold_dead(struct readers *readers, uint32_t owner);
void readers_let_dead_go(struct readers *readers, uint32_t owner);

/* Gives up the chunks of processes that are dead. Locks that they own are left
   to whoever inherits them. */
void readers_bury_dead(struct readers *readers);

/* ---- Snapshots --------------------------------------------------------- */

/* A row for a snapshot, which names no epoch yet. */
int readers_claim_snapshot(struct readers *readers, uint64_t limit_ns,
                           struct share_row **row_out);
void readers_give_back_snapshot(struct readers *readers, struct share_row *row);

/* Whether the snapshot with that mark has not been ended by anybody. */
static inline bool readers_has_snapshot(const struct share_row *row,
                                        uint64_t mark) {
  return atomic_load_explicit(&row->snapshot, memory_order_acquire) == mark;
}

/* Ends the row's snapshot if it is older than it may become. What it held may be
   used again when all pins are past the tick that the writer notes when it finds
   it (R16). */
void readers_end_if_old(struct share_row *row, uint64_t now_ns);

/* Ends the snapshots, of any process, that are older than they may become. */
void readers_end_old_snapshots(struct readers *readers);

/* The epochs of all open snapshots; if there are too many, the oldest and the
   newest, and all between them count as held. */
enum { READERS_HELD_MAX = 64 };
struct readers_held {
  uint32_t count;
  uint64_t oldest; /* if count > 0, as the next */
  uint64_t newest;
  uint64_t epochs[READERS_HELD_MAX];
};

/* Only the writer calls this; to decide what may be used again, by
   readers_look(). */
void readers_find_held(struct readers *readers, struct readers_held *held_out);

/* The horizon, and what snapshots hold. R15: pins before rows. */
static inline uint64_t readers_look(struct readers *readers,
                                    struct readers_held *held_out) {
  if (BROKEN(BREAK_ROWS_FIRST)) {
    readers_find_held(readers, held_out);
    TEST_POINT("looking");
    return readers_advance(readers);
  }
  uint64_t horizon = readers_advance(readers);
  TEST_POINT("looking");
  readers_find_held(readers, held_out);
  return horizon;
}

/* Whether a snapshot's epoch lies in [first, end). */
bool readers_is_held(const struct readers_held *held, uint64_t first,
                     uint64_t end);

/* ---- Report ------------------------------------------------------------ */

struct readers_entry {
  bool is_snapshot;
  bool is_ours;     /* of this connection */
  uint32_t process; /* its number, in its own pid namespace */
  uint32_t thread;
  uint32_t thread_rows; /* of a process: threads that have a row */
  uint32_t pinned_rows; /* of them, pinned now */
  uint64_t since_ns;    /* monotonic */
  uint64_t epoch;       /* of a snapshot */
  uint64_t log_bytes;   /* appended since the snapshot was opened */
};

/* Calls `visit` for every process, and after it for its snapshots. */
void readers_report(struct readers *readers,
                    void (*visit)(void *context,
                                  const struct readers_entry *entry),
                    void *context);

/* ---- fork() ------------------------------------------------------------ */

/* The claims are held over it, so that the child finds them whole. */
void readers_fork_prepare(void);
void readers_fork_done(void);

#endif
