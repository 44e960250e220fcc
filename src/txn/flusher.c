/* SPDX-License-Identifier: MIT */
/*
 * A failed commit is not the flusher's to report: it stops the writers, and the
 * next one says so. The flusher then has nothing left to do and sleeps.
 */
#include "txn/flusher.h"

#include <string.h>

#include "base/errors.h"
#include "os/process.h"
#include "share/owner_lock.h"

int flusher_init(struct flusher *flusher, struct committer *committer,
                 struct sweep *sweep) {
  memset(flusher, 0, sizeof *flusher);
  flusher->committer = committer;
  flusher->sweep = sweep;
  int code = thread_mutex_init(&flusher->mutex);
  if (code != MMCMAP_OK) return code;
  code = thread_condition_init(&flusher->wake);
  if (code != MMCMAP_OK) thread_mutex_destroy(&flusher->mutex);
  return code;
}

void flusher_destroy(struct flusher *flusher) {
  thread_condition_destroy(&flusher->wake);
  thread_mutex_destroy(&flusher->mutex);
}

static const struct share_header *shared(const struct flusher *flusher) {
  return flusher->committer->writer->header;
}

static uint64_t written_bytes(const struct flusher *flusher) {
  return atomic_load(&shared(flusher)->change.appended_bytes);
}

/* R8: taken under the writer lock, after the flag is cleared: a change that is
   not in it took the lock later, and so sees the flag cleared. */
static int changed_epoch(struct flusher *flusher, uint64_t *epoch_out) {
  struct writer *writer = flusher->committer->writer;
  int code = writer_enter(writer, OWNER_LOCK_FOREVER);
  if (code != MMCMAP_OK) return code;
  *epoch_out = atomic_load(&shared(flusher)->change.changed_epoch);
  writer_leave(writer);
  return MMCMAP_OK;
}

/* Sweeps for a while. */
static void sweep(struct flusher *flusher) {
  uint64_t end_ns =
      process_monotonic_ns() + FLUSHER_SWEEP_MS * UINT64_C(1000000);
  struct sweep_outcome outcome =
      sweep_run(flusher->sweep, OWNER_LOCK_FOREVER, end_ns);
  if (outcome.has_changed) atomic_store(&flusher->is_dirty, true);
  flusher->has_to_sweep = outcome.has_more;
  flusher->swept_ns = process_monotonic_ns();
}

/* In how many milliseconds there is something to sweep, as it looks now. */
static uint64_t sweep_wait_ms(const struct flusher *flusher) {
  if (flusher->has_to_sweep) return 0;
  uint64_t wait_ms = expiry_wait_ms(flusher->committer->writer->header);
  uint64_t age_ms = (process_monotonic_ns() - flusher->swept_ns) / 1000000;
  /* One that fails is not tried again and again. */
  return wait_ms < FLUSHER_SWEEP_PAUSE_MS && age_ms < FLUSHER_SWEEP_PAUSE_MS
             ? FLUSHER_SWEEP_PAUSE_MS - age_ms
             : wait_ms;
}

static void sweep_unlocked(struct flusher *flusher) {
  thread_mutex_unlock(&flusher->mutex);
  sweep(flusher);
  thread_mutex_lock(&flusher->mutex);
}

/* Lets the interval pass, unless the thread is to stop. The mutex is held, but
   for the sleeping and the sweeping. If another process's commit came in between, the interval
   counts from it: the flushers of all processes come to one commit per interval
   that way, and no change waits for longer. */
static void wait_interval(struct flusher *flusher) {
  uint64_t interval_ns = flusher->interval_ms * UINT64_C(1000000);
  uint64_t begin_ns = process_monotonic_ns();
  while (!flusher->is_stopping && !atomic_load(&flusher->is_called)) {
    uint64_t last_ns = atomic_load(&shared(flusher)->commit.last_ns);
    uint64_t end_ns =
        interval_ns + (last_ns > begin_ns && last_ns - begin_ns < interval_ns
                           ? last_ns
                           : begin_ns);
    uint64_t now_ns = process_monotonic_ns();
    if (now_ns >= end_ns) return;
    uint64_t left_ms = (end_ns - now_ns + 999999) / 1000000;
    uint64_t sweep_ms = sweep_wait_ms(flusher);
    if (sweep_ms == 0)
      sweep_unlocked(flusher);
    else
      (void)thread_condition_wait_timed(
          &flusher->wake, &flusher->mutex,
          (uint32_t)(left_ms < sweep_ms ? left_ms : sweep_ms));
  }
}

static void wait_for_load(struct flusher *flusher) {
  uint64_t before = written_bytes(flusher);
  for (int i = 0; i < FLUSHER_INTERVALS_MAX && !flusher->is_stopping; i++) {
    wait_interval(flusher);
    if (atomic_load(&flusher->is_called)) return;
    uint64_t now = written_bytes(flusher);
    if (now - before < FLUSHER_BUSY_BYTES) return;
    before = now;
  }
}

/* What there is to do for space was found some segments ago: it is looked for once
   more when nothing has changed for a while. A need that another has found
   meanwhile stays. */
static void look_again(struct flusher *flusher) {
  uint32_t nothing = SHARE_NEED_NOTHING;
  if (flusher->has_committed)
    (void)atomic_compare_exchange_strong(
        &flusher->committer->writer->header->upkeep.need, &nothing,
        SHARE_NEED_IDLE);
  flusher->has_committed = false;
}

/* Sleeps until something has changed, here or in a process that was killed before
   its own flusher came to it; or may have expired. */
static void wait_for_change(struct flusher *flusher) {
  const struct share_header *header = shared(flusher);
  uint64_t sweep_ms = sweep_wait_ms(flusher);
  bool is_short = sweep_ms < FLUSHER_LOOK_MS;
  if (sweep_ms == 0) return;
  bool was_told = thread_condition_wait_timed(
      &flusher->wake, &flusher->mutex,
      is_short ? (uint32_t)sweep_ms : FLUSHER_LOOK_MS);
  if (was_told || is_short || atomic_load(&header->commit.failed) != 0) return;
  look_again(flusher);
  uint64_t age_ns =
      process_monotonic_ns() - atomic_load(&header->commit.last_ns);
  if (atomic_load(&header->change.changed_epoch) >
          atomic_load(&header->commit.durable_epoch) &&
      age_ns > FLUSHER_LOOK_MS * UINT64_C(1000000))
    atomic_store(&flusher->is_dirty, true);
}

/* Upkeep, for a while; the thread is called again if there is more. What can
   wait is left as long as there are changes. */
static void do_upkeep(struct flusher *flusher) {
  uint32_t need = atomic_load(&shared(flusher)->upkeep.need);
  if (need == SHARE_NEED_NOTHING ||
      (need == SHARE_NEED_IDLE && atomic_load(&flusher->is_dirty))) {
    atomic_store(&flusher->is_called, false);
    return;
  }
  uint64_t end_ns =
      process_monotonic_ns() + FLUSHER_UPKEEP_MS * UINT64_C(1000000);
  atomic_store(&flusher->is_called, false);
  if (flusher->upkeep != NULL &&
      flusher->upkeep(flusher->upkeep_context, end_ns))
    atomic_store(&flusher->is_called, true);
}

static void commit(struct flusher *flusher) {
  uint64_t epoch;
  bool is_left = false;
  atomic_store(&flusher->is_dirty, false);
  int code = changed_epoch(flusher, &epoch);
  if (code == MMCMAP_OK)
    code = commit_as_flusher(flusher->committer, epoch, &is_left);
  /* A seal that found no space or memory is tried again. */
  if (is_left ||
      (code != MMCMAP_OK && atomic_load(&shared(flusher)->commit.failed) == 0))
    atomic_store(&flusher->is_dirty, true);
  flusher->has_committed = true;
}

/* Whether the oldest change that is not committed has waited for long enough,
   upkeep having kept the thread busy. */
static bool is_overdue(struct flusher *flusher) {
  uint64_t age_ns = process_monotonic_ns() - flusher->dirty_ns;
  return age_ns >
         FLUSHER_INTERVALS_MAX * UINT64_C(1000000) * flusher->interval_ms;
}

/* Whether the last commit is an interval ago: while it sweeps, nothing else makes
   the thread wait. */
static bool is_time_to_commit(const struct flusher *flusher) {
  uint64_t last_ns = atomic_load(&shared(flusher)->commit.last_ns);
  return process_monotonic_ns() - last_ns >=
         flusher->interval_ms * UINT64_C(1000000);
}

static void *run(void *context) {
  struct flusher *flusher = context;
  thread_mutex_lock(&flusher->mutex);
  while (!flusher->is_stopping) {
    bool was_called = atomic_load(&flusher->is_called);
    bool is_due = atomic_load(&flusher->is_dirty);
    if (flusher->has_to_sweep)
      is_due = is_due && is_time_to_commit(flusher);
    else if (was_called)
      is_due = is_due && is_overdue(flusher);
    else if (is_due)
      wait_for_load(flusher);
    else
      wait_for_change(flusher);
    if (flusher->is_stopping) break;
    /* Who called has interrupted the wait. */
    if (!was_called && is_due && atomic_load(&flusher->is_called))
      is_due = is_overdue(flusher);
    thread_mutex_unlock(&flusher->mutex);
    if (is_due) commit(flusher);
    sweep(flusher);
    do_upkeep(flusher);
    thread_mutex_lock(&flusher->mutex);
  }
  thread_mutex_unlock(&flusher->mutex);
  return NULL;
}

/* The caller's change is one that is reported as made. What the commit fails with,
   the next change says, as it would if the thread had made it; if others are in the
   way, the next change tries again. */
static void commit_without_thread(struct flusher *flusher, uint32_t timeout_ms,
                                  const mmcmap_error *before) {
  if (timeout_ms < COMMIT_LEAST_MS) timeout_ms = COMMIT_LEAST_MS;
  (void)commit_all_within(flusher->committer, timeout_ms);
  error_restore(before);
}

void flusher_wake(struct flusher *flusher, uint32_t interval_ms,
                  uint32_t timeout_ms) {
  mmcmap_error before;
  mmcmap_last_error(&before);
  thread_mutex_lock(&flusher->mutex);
  if (!flusher->is_running) {
    flusher->interval_ms = interval_ms;
    flusher->is_running = thread_start(&flusher->thread, "mmcmap-flusher", run,
                                       flusher) == MMCMAP_OK;
  } else if (interval_ms < flusher->interval_ms) {
    flusher->interval_ms = interval_ms;
  }
  bool is_running = flusher->is_running;
  if (is_running) {
    if (!atomic_load(&flusher->is_dirty))
      flusher->dirty_ns = process_monotonic_ns();
    atomic_store(&flusher->is_dirty, true);
    thread_condition_broadcast(&flusher->wake);
  }
  thread_mutex_unlock(&flusher->mutex);
  if (!is_running) commit_without_thread(flusher, timeout_ms, &before);
}

void flusher_call_upkeep(struct flusher *flusher) {
  if (atomic_load_explicit(&flusher->is_called, memory_order_relaxed)) return;
  thread_mutex_lock(&flusher->mutex);
  atomic_store(&flusher->is_called, true);
  thread_condition_broadcast(&flusher->wake);
  thread_mutex_unlock(&flusher->mutex);
}

void flusher_stop(struct flusher *flusher) {
  thread_mutex_lock(&flusher->mutex);
  flusher->is_stopping = true;
  thread_condition_broadcast(&flusher->wake);
  bool was_running = flusher->is_running;
  thread_mutex_unlock(&flusher->mutex);
  if (was_running) thread_join(flusher->thread);
  flusher->is_stopping = false;
  flusher->is_running = false;
  atomic_store(&flusher->is_called, false);
  atomic_store(&flusher->is_dirty, false);
}
