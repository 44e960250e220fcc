/* SPDX-License-Identifier: MIT */
/*
 * The flusher: the thread that commits for `async` stores; a `sync` one starts
 * it with its first record that expires, so that somebody sweeps. It sleeps as
 * long as nothing has changed; after the first change it lets the interval pass,
 * then commits. While much is being written it waits up to
 * FLUSHER_INTERVALS_MAX intervals, because each seal makes writers copy the
 * branches that they touch next. After that it sweeps for a while, and does
 * upkeep; if there is more to do, it goes on, and commits in between. While it
 * waits it sweeps whenever something may have expired.
 *
 * Each process that changes something has one; which of them comes to commit is
 * decided by the leadership (txn/commit.h): who finds that another leads, or has
 * just committed, lets an interval pass again.
 */
#ifndef TXN_FLUSHER_H
#define TXN_FLUSHER_H

#include <stdbool.h>
#include <stdint.h>

#include "os/thread.h"
#include "txn/commit.h"
#include "txn/sweep.h"

enum {
  FLUSHER_INTERVALS_MAX = 10,
  FLUSHER_BUSY_BYTES = 1 << 20, /* per interval: more than that is "much" */
  FLUSHER_UPKEEP_MS = 5,        /* of upkeep at a time */
  FLUSHER_SWEEP_MS = 5,         /* of sweeping at a time, */
  FLUSHER_SWEEP_PAUSE_MS = 10,  /* with such pauses, if it was done */
  FLUSHER_LOOK_MS = 1000        /* how often a flusher without work looks for
                                   changes that a dead process has left */
};

struct flusher {
  struct thread_mutex mutex; /* guards all below, but reading `is_dirty` */
  struct thread_condition wake;
  struct committer *committer;
  /* Does upkeep for a while; whether there is more to do. NULL: there is none. */
  bool (*upkeep)(void *context, uint64_t end_ns);
  void *upkeep_context;
  struct sweep *sweep;
  pthread_t thread;
  uint32_t interval_ms;
  uint64_t dirty_ns;  /* when `is_dirty` was last set, monotonic */
  bool has_committed; /* since it has looked for upkeep; the thread's own, as */
  bool has_to_sweep;  /* that there is more to sweep at once, */
  uint64_t swept_ns;  /* and when it swept last */
  bool is_running;
  bool is_stopping;
  _Atomic bool is_dirty;  /* there may be changes that nobody has committed */
  _Atomic bool is_called; /* for upkeep */
};

int flusher_init(struct flusher *flusher, struct committer *committer,
                 struct sweep *sweep);

/* Stops the thread, if there is one, and waits for its end. Then the flusher
   can be started again. */
void flusher_stop(struct flusher *flusher);
void flusher_destroy(struct flusher *flusher);

/* The part of flusher_notify() that wakes the thread, or starts it at the first
   call. */
void flusher_wake(struct flusher *flusher, uint32_t interval_ms,
                  uint32_t timeout_ms);

/* Has the thread, if it runs, do upkeep at once. */
void flusher_call_upkeep(struct flusher *flusher);

/* Called after each change, outside the writer lock. If the thread cannot be
   started the change is committed before this returns, unless others are in the way
   for `timeout_ms` (and for COMMIT_LEAST_MS at least), and the next one tries again:
   nobody is told that a change has failed that has been made.
   R8: what this loads was stored before the writer lock was taken for the
   change, or after: changed_epoch() in flusher.c has the other side. */
static inline void flusher_notify(struct flusher *flusher, uint32_t interval_ms,
                                  uint32_t timeout_ms) {
  if (LIKELY(atomic_load_explicit(&flusher->is_dirty, memory_order_relaxed)))
    return;
  flusher_wake(flusher, interval_ms, timeout_ms);
}

#endif
