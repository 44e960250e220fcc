/* SPDX-License-Identifier: MIT */
/*
 * The reader table: who may still be looking at memory that was unlinked.
 *
 * A reader pins before it loads the root: it writes the current tick into its
 * own row. Memory that was unlinked at tick t may be used again when every pin
 * is younger than t (epoch-based reclamation: Fraser, "Practical lock-freedom",
 * 2004). The ordering rules stand in docs/concurrency.md.
 *
 * Each thread has a row of its own per table, a cache line, found through
 * thread-local storage; a thread's first pin may allocate, later ones never
 * do. The table grows without bound. It belongs to one process.
 */
#ifndef SHARE_READERS_H
#define SHARE_READERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "base/testing.h"
#include "os/thread.h"

enum { READERS_ROW_BYTES = 64, READERS_ROWS_PER_CHUNK = 64 };

/* Written by its owner alone, the ownership flag aside, which the table's
   mutex guards; `pin` is read by whoever looks for the horizon. */
struct readers_row {
  _Alignas(READERS_ROW_BYTES) _Atomic uint64_t pin; /* 0: not pinned */
  uint32_t depth;                                   /* pins nest */
  bool owned;
};

_Static_assert(sizeof(struct readers_row) == READERS_ROW_BYTES,
               "rows do not share cache lines");

struct readers_chunk {
  struct readers_row rows[READERS_ROWS_PER_CHUNK];
  struct readers_chunk *_Atomic next; /* set once, then only followed */
};

struct readers {
  _Atomic uint64_t tick; /* begins at 1; raised by the writer */
  uint64_t serial;       /* names this table for ever in this process */
  struct readers_chunk *_Atomic first;
  _Atomic uint64_t row_count; /* rows that were ever owned */
  struct readers *next_live;  /* in the list of live tables */
};

int readers_init(struct readers *readers);

/* No thread may be pinned. Rows that threads still own are taken back. */
void readers_destroy(struct readers *readers);

/* This thread's row that was found last, per slot of a small cache. */
struct readers_cached {
  uint64_t serial;
  struct readers_row *row;
};
enum { READERS_CACHE_SLOTS = 4 };
extern _Thread_local struct readers_cached readers_cache[READERS_CACHE_SLOTS];

/* Finds or claims this thread's row; MMCMAP_ENOMEM. */
int readers_row_slow(struct readers *readers, struct readers_row **row_out);

static inline int readers_row(struct readers *readers,
                              struct readers_row **row_out) {
  struct readers_cached *cached =
      &readers_cache[readers->serial % READERS_CACHE_SLOTS];
  if (UNLIKELY(cached->serial != readers->serial))
    return readers_row_slow(readers, row_out);
  *row_out = cached->row;
  return 0;
}

/* R1: the pin is published before anything is loaded from the map. The fence
   pairs with that of readers_advance(). */
static inline void readers_pin(struct readers *readers,
                               struct readers_row *row) {
  if (row->depth++ > 0 || BROKEN(BREAK_NO_PIN)) return;
  uint64_t tick = atomic_load_explicit(&readers->tick, memory_order_acquire);
  atomic_store_explicit(&row->pin, tick, memory_order_relaxed);
  atomic_thread_fence(memory_order_seq_cst);
}

/* R2: all loads from the map come before the pin is withdrawn. */
static inline void readers_unpin(struct readers_row *row) {
  CHECK_SLOW(row->depth > 0);
  if (--row->depth > 0) return;
  atomic_store_explicit(&row->pin, 0, memory_order_release);
}

/* The tick for memory that has been unlinked just now. */
static inline uint64_t readers_tick(const struct readers *readers) {
  return atomic_load_explicit(&readers->tick, memory_order_relaxed);
}

/*
 * Raises the tick and returns the horizon: memory that was unlinked at a tick
 * below it can be seen by nobody. Only the writer calls this.
 */
uint64_t readers_advance(struct readers *readers);

/* Around fork(): the claims are held over it, so that the child finds them
   whole. */
void readers_fork_prepare(void);
void readers_fork_done(void);

#endif
