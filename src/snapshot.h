/* SPDX-License-Identifier: MIT */
/*
 * What the public functions that read a snapshot share: its struct, and how a
 * call on it begins and ends.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "handle.h"

/* Belongs to one thread at a time. */
struct mmcmap_snapshot {
  uint32_t magic;
  struct store *store;
  struct share_row *row;
  uint64_t mark; /* of the row, as long as the snapshot has not been ended */
  struct moment moment;
  struct expiry_reading now; /* taken when it was opened */
  uint64_t root;             /* of the map that it is of */
  uint64_t count;
  uint64_t earliest_ms; /* no record of the map expires earlier */
  bool is_view;         /* of another snapshot, which has the row */
  bool may_end;         /* by anybody, when it is older than it may become */
};

/* A snapshot of a store with a row, which is to be marked; it may become as old as
   `limit_ns` says, 0: any age. MMCMAP_ENOMEM, ... */
int snapshot_begin(mmcmap *handle, uint64_t limit_ns,
                   mmcmap_snapshot **snapshot_out);

/* The moment has been taken and the row marked, or that failed with `code`: then,
   and if the map cannot be read, nothing is left of it. */
int snapshot_finish(mmcmap *handle, int code, mmcmap_snapshot **snapshot);

/* As mmcmap_snapshot_open(), of one that may become as old as it will. */
int snapshot_open_for_long(mmcmap *handle, mmcmap_snapshot **snapshot_out);

static inline void snapshot_leave(struct share_row *row) {
  if (UNLIKELY(row != NULL)) readers_unpin(row);
}

/* Makes sure that the snapshot has not been ended for its age, and that what it
   sees stays there until snapshot_leave(): if it may be ended meanwhile, by a
   pin, whose row is given. Of others the row is NULL: they have a row that keeps
   it. */
static inline int snapshot_enter(const mmcmap_snapshot *snapshot,
                                 struct share_row **row_out) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  struct readers *readers = &snapshot->store->readers;
  if (UNLIKELY(!store_is_ours(snapshot->store)))
    return error_set(MMCMAP_EFORK, "a snapshot from before fork()");
  *row_out = NULL;
  if (UNLIKELY(snapshot->may_end)) {
    int code = readers_row(readers, row_out);
    if (code != MMCMAP_OK) return code;
    readers_end_if_old(snapshot->row, process_monotonic_ns());
    readers_pin(readers, *row_out);
  }
  if (LIKELY(readers_has_snapshot(snapshot->row, snapshot->mark)))
    return MMCMAP_OK;
  snapshot_leave(*row_out);
  return error_set(MMCMAP_EEXPIRED, "max_snapshot_age");
}

#endif
