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
  COMPACT_PASSES =
      6, /* the last ones empty what the heads of the log were in; */
  COMPACT_PASSES_FEW = 12 /* in a store of few segments */
};

/* One pass; `done` counts bytes. */
static int compact_once(const mmcmap *handle, struct store *store,
                        enum compact_from from, struct watch *caller,
                        uint64_t *done) {
  bool more = true;
  int code = MMCMAP_OK;
  for (; code == MMCMAP_OK && more; from = COMPACT_ON) {
    uint64_t end_ns =
        process_monotonic_ns() + COMPACT_SLICE_MS * UINT64_C(1000000);
    uint64_t before = store->share.header->upkeep.moved_bytes;
    code = upkeep_compact(&store->upkeep, handle->options.timeout_ms, end_ns,
                          from, &more);
    *done += store->share.header->upkeep.moved_bytes - before;
    if (code == MMCMAP_OK && more) code = tell_progress(caller, *done);
  }
  return code;
}

/* As long as something moves. */
static int passes_of(struct store *store) {
  uint64_t few = (uint64_t)LOG_FEW_SEGMENTS << store->space.segment_shift;
  return space_look(&store->space) <= few ? COMPACT_PASSES_FEW : COMPACT_PASSES;
}

int mmcmap_compact(mmcmap *handle, mmcmap_progress progress, void *context) {
  struct store *store;
  struct watch caller = {.progress = progress, .context = context};
  uint64_t done = 0;
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  code = commit_all(&store->committer);
  caller.total = space_look(&store->space);
  bool goes_on = true;
  for (int i = 0; goes_on && code == MMCMAP_OK; i++) {
    uint64_t before = done;
    code = compact_once(handle, store, i == 0 ? COMPACT_FIRST : COMPACT_AGAIN,
                        &caller, &done);
    goes_on = i == 0 || (done > before && i + 1 < passes_of(store));
  }
  if (code == MMCMAP_OK) code = tell_progress(&caller, caller.total);
  if (code != MMCMAP_OK) upkeep_end_compacting(&store->upkeep);
  return code;
}
