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
  bool is_view; /* of another snapshot, which has the row */
};

/* Finds the map in the moment; one that is not there is empty. */
int snapshot_choose_map(mmcmap_snapshot *snapshot, const struct trie_key *map);

/* As mmcmap_snapshot_open(), of one that may become as old as it will. */
int snapshot_open_for_long(mmcmap *handle, mmcmap_snapshot **snapshot_out);

/* Pins, so that what the snapshot sees stays there until snapshot_leave(), and
   makes sure that it has not been ended for its age. */
static inline int snapshot_enter(const mmcmap_snapshot *snapshot,
                                 struct share_row **row_out) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  struct readers *readers = &snapshot->store->readers;
  if (UNLIKELY(!store_is_ours(snapshot->store)))
    return error_set(MMCMAP_EFORK, "a snapshot from before fork()");
  int code = readers_row(readers, row_out);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  if (UNLIKELY(atomic_load(&snapshot->row->limit_ns) != 0))
    readers_end_if_old(snapshot->row, process_monotonic_ns());
  readers_pin(readers, *row_out);
  if (LIKELY(readers_has_snapshot(snapshot->row, snapshot->mark)))
    return MMCMAP_OK;
  readers_unpin(*row_out);
  return error_set(MMCMAP_EEXPIRED, "max_snapshot_age");
}

static inline void snapshot_leave(struct share_row *row) { readers_unpin(row); }

#endif
