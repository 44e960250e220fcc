/* SPDX-License-Identifier: MIT */
/*
 * Upkeep on request: checking and compacting. (Committing and steps are in api.c.)
 */
#include <string.h>

#include "maint/check.h"
#include "os/process.h"
#include "snapshot.h"

/* The caller's functions, behind those that the layers call. */
struct watch {
  mmcmap_progress progress;
  mmcmap_report report;
  void *context;
  uint64_t total;
};

static int tell_progress(void *context, uint64_t bytes) {
  const struct watch *watch = context;
  if (watch->progress == NULL) return MMCMAP_OK;
  return watch->progress(watch->context,
                         bytes < watch->total ? bytes : watch->total,
                         watch->total);
}

static void tell_fault(void *context, const struct verify_failure *failure) {
  const struct watch *watch = context;
  mmcmap_fault fault = {
      .code = failure->code, .rule = failure->rule, .offset = failure->offset};
  if (watch->report != NULL) watch->report(watch->context, &fault);
}

/* ---- check --------------------------------------------------------------- */

static int check_moment(struct store *store, const struct moment *moment,
                        struct verify_report *report) {
  struct check_input input = {
      .source = space_source(&store->space),
      .hasher = &store->hasher,
      .constant = &store->superblocks.constant,
      .is_readonly = store->is_readonly,
      .root = moment->root,
      .count = moment->count,
      .newest_epoch = moment->epoch,
      .durable_epoch = &store->share.header->commit.durable_epoch};
  return check_store(&input, report);
}

int mmcmap_check(mmcmap *handle, mmcmap_progress progress, mmcmap_report report,
                 void *context) {
  mmcmap_snapshot *snapshot;
  struct share_row *row;
  int code = snapshot_open_for_long(handle, &snapshot);
  if (code != MMCMAP_OK) return code;
  struct store *store = snapshot->store;
  struct watch caller = {.progress = progress,
                         .report = report,
                         .context = context,
                         /* The trie once, and the log once. */
                         .total = 2 * space_look(&store->space)};
  struct verify_watch watch = {
      .progress = tell_progress, .found = tell_fault, .context = &caller};
  struct verify_report found;
  memset(&found, 0, sizeof found);
  found.watch = &watch;
  /* The pin keeps what is replaced meanwhile from being written over. */
  code = snapshot_enter(snapshot, &row);
  if (code == MMCMAP_OK) {
    code = check_moment(store, &snapshot->moment, &found);
    snapshot_leave(row);
  }
  if (code == MMCMAP_OK) code = tell_progress(&caller, caller.total);
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  mmcmap_snapshot_close(snapshot);
  if (code != MMCMAP_OK) error_restore(&failure);
  return code;
}

/* ---- compact ------------------------------------------------------------- */

enum {
  COMPACT_SLICE_MS = 20,
  COMPACT_IDLE_SLICES = 500,
  COMPACT_PASSES = 12,     /* at most */
  COMPACT_IN_VAIN = 4,     /* passes, of which none makes the file smaller */
  COMPACT_GOOD_PARTS = 128 /* of the best: so near to it is as good */
};

/* One pass, or phase; `done` counts bytes. Beside writers it could go on for ever: it
   ends when nothing has moved for long, or all of it twice. */
static int compact_once(const mmcmap *handle, struct store *store,
                        enum compact_from from, struct watch *caller,
                        uint64_t *done) {
  uint64_t most = *done + 2 * space_look(&store->space);
  bool more = true;
  int code = MMCMAP_OK;
  for (int idle = 0; code == MMCMAP_OK && more; from = COMPACT_ON) {
    uint64_t end_ns =
        process_monotonic_ns() + COMPACT_SLICE_MS * UINT64_C(1000000);
    uint64_t before = store->share.header->upkeep.moved_bytes;
    code = upkeep_compact(&store->upkeep, handle->options.timeout_ms, end_ns,
                          from, &more);
    uint64_t moved = store->share.header->upkeep.moved_bytes - before;
    *done += moved;
    idle = moved > 0 ? 0 : idle + 1;
    if (more && (idle > COMPACT_IDLE_SLICES || *done > most)) break;
    if (code == MMCMAP_OK && more) code = tell_progress(caller, *done);
  }
  if (code == MMCMAP_OK && more) upkeep_end_compacting(&store->upkeep);
  return code;
}

/* All phases, if the store is small and there is room. */
static int compact_by_phases(const mmcmap *handle, struct store *store,
                             struct watch *caller, uint64_t *done) {
  static const enum compact_from phases[] = {COMPACT_OUT, COMPACT_LARGE,
                                             COMPACT_RECORDS, COMPACT_BRANCHES};
  int code = MMCMAP_OK;
  for (unsigned i = 0;
       code == MMCMAP_OK && i < sizeof phases / sizeof phases[0]; i++)
    code = compact_once(handle, store, phases[i], caller, done);
  return code;
}

/* Passes, until nothing moves, or several have been in vain: one may well end
   worse than another before it, and is not the last then. */
static int compact_by_passes(const mmcmap *handle, struct store *store,
                             struct watch *caller, uint64_t *done) {
  enum compact_from from = COMPACT_FIRST;
  uint64_t best = space_look(&store->space);
  for (int i = 0, in_vain = 0; i < COMPACT_PASSES; i++) {
    uint64_t before = *done;
    int code = compact_once(handle, store, from, caller, done);
    if (code != MMCMAP_OK) return code;
    uint64_t size = space_look(&store->space);
    bool is_good = size <= best + best / COMPACT_GOOD_PARTS;
    in_vain = size < best ? 0 : in_vain + 1;
    from = size < best ? COMPACT_AGAIN : COMPACT_ANEW;
    if (size < best) best = size;
    if (i > 0 && *done == before) break;
    if (in_vain >= COMPACT_IN_VAIN && is_good) break;
  }
  return MMCMAP_OK;
}

int mmcmap_compact(mmcmap *handle, mmcmap_progress progress, void *context) {
  struct store *store;
  struct watch caller = {.progress = progress, .context = context};
  uint64_t done = 0;
  bool is_compact = false;
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  code = commit_all(&store->committer);
  caller.total = space_look(&store->space);
  if (code == MMCMAP_OK)
    code = upkeep_is_compact(&store->upkeep, handle->options.timeout_ms,
                             &is_compact);
  if (code == MMCMAP_OK && !is_compact)
    code = compact_by_phases(handle, store, &caller, &done);
  if (code == MMCMAP_OK && !is_compact && upkeep_wants_passes(&store->upkeep))
    code = compact_by_passes(handle, store, &caller, &done);
  if (code == MMCMAP_OK) code = tell_progress(&caller, caller.total);
  if (code != MMCMAP_OK) upkeep_end_compacting(&store->upkeep);
  return code;
}
