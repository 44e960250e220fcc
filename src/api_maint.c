/* SPDX-License-Identifier: MIT */
/*
 * Upkeep on request: checking. (Committing and steps are in api.c.)
 */
#include <string.h>

#include "maint/check.h"
#include "snapshot.h"

/* The caller's functions, behind those that the layers call. */
struct upkeep {
  mmcmap_progress progress;
  mmcmap_report report;
  void *context;
  uint64_t total;
};

static int tell_progress(void *context, uint64_t bytes) {
  const struct upkeep *upkeep = context;
  if (upkeep->progress == NULL) return MMCMAP_OK;
  return upkeep->progress(upkeep->context,
                          bytes < upkeep->total ? bytes : upkeep->total,
                          upkeep->total);
}

static void tell_fault(void *context, const struct verify_failure *failure) {
  const struct upkeep *upkeep = context;
  mmcmap_fault fault = {
      .code = failure->code, .rule = failure->rule, .offset = failure->offset};
  if (upkeep->report != NULL) upkeep->report(upkeep->context, &fault);
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
  struct upkeep upkeep = {.progress = progress,
                          .report = report,
                          .context = context,
                          /* The trie once, and the log once. */
                          .total = 2 * space_look(&store->space)};
  struct verify_watch watch = {
      .progress = tell_progress, .found = tell_fault, .context = &upkeep};
  struct verify_report found;
  memset(&found, 0, sizeof found);
  found.watch = &watch;
  /* The pin keeps what is replaced meanwhile from being written over. */
  code = snapshot_enter(snapshot, &row);
  if (code == MMCMAP_OK) {
    code = check_moment(store, &snapshot->moment, &found);
    snapshot_leave(row);
  }
  if (code == MMCMAP_OK) code = tell_progress(&upkeep, upkeep.total);
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  mmcmap_snapshot_close(snapshot);
  if (code != MMCMAP_OK) error_restore(&failure);
  return code;
}
