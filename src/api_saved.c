/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that are kept in the file under a name.
 */
#include <stdlib.h>
#include <string.h>

#include "snapshot.h"
#include "txn/saved.h"

int mmcmap_snapshot_save(mmcmap *handle, mmcmap_slice name) {
  struct store *store;
  uint64_t epoch = 0;
  unsigned tries = 0;
  int code = enter_to_write(handle, &store);
  if (code == MMCMAP_OK && name.size > MMCMAP_KEY_SIZE_MAX)
    code = error_set(MMCMAP_ETOOBIG, "name of a snapshot");
  if (code != MMCMAP_OK) return code;
  do
    code = writer_save(&store->writer, name.data, name.size,
                       change_mode_of(handle), &epoch);
  while (code != MMCMAP_OK &&
         handle_make_room(handle, store, code, false, &tries));
  return code == MMCMAP_OK ? finish_change(handle, store, epoch) : code;
}

int mmcmap_drop_snapshot(mmcmap *handle, mmcmap_slice name) {
  struct store *store;
  uint64_t epoch = 0;
  unsigned tries = 0;
  struct change_mode mode = change_mode_of(handle);
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  do
    code =
        writer_drop_saved(&store->writer, name.data, name.size, mode, &epoch);
  while (code != MMCMAP_OK &&
         handle_try_to_free(handle, store, code, &mode, &tries));
  return code == MMCMAP_OK ? finish_change(handle, store, epoch) : code;
}

/* ---- Opening ------------------------------------------------------------- */

/* The one of that name now; the thread is pinned. */
static int find_saved(struct store *store, mmcmap_slice name,
                      struct saved *saved_out) {
  struct node_source source = space_source(&store->space);
  uint64_t top = atomic_load_explicit(&store->share.header->live.root,
                                      memory_order_acquire);
  if (name.size > MMCMAP_KEY_SIZE_MAX) return MMCMAP_NOTFOUND;
  return saved_find(&source, &store->hasher, top, name.data, name.size,
                    saved_out);
}

/* Marks the snapshot's row with the epoch of what was saved, so that it stays even
   if it is dropped. R13: if it is still there after that, whoever uses its space
   again sees the row. */
static int take_saved(mmcmap_snapshot *snapshot, mmcmap_slice name) {
  struct store *store = snapshot->store;
  struct share_row *row;
  struct saved saved, again = {.epoch = 0};
  int code = readers_row(&store->readers, &row);
  if (code != MMCMAP_OK) return code;
  readers_pin(&store->readers, row);
  do {
    code = find_saved(store, name, &saved);
    if (code != MMCMAP_OK) break;
    atomic_store(&snapshot->row->snapshot,
                 share_mark(snapshot->row, saved.epoch));
    atomic_thread_fence(memory_order_seq_cst);
    code = find_saved(store, name, &again);
  } while (code == MMCMAP_OK &&
           (again.epoch != saved.epoch || again.root != saved.root));
  readers_unpin(row);
  if (code != MMCMAP_OK) {
    atomic_store(&snapshot->row->snapshot, 0);
    return code == MMCMAP_NOTFOUND
               ? error_set(MMCMAP_ENOENT, "no snapshot of that name")
               : code;
  }
  snapshot->moment.root = saved.root;
  snapshot->moment.count = saved.count;
  snapshot->moment.epoch = saved.epoch;
  snapshot->moment.content_epoch = saved.content_epoch;
  snapshot->now = reading_of(store);
  snapshot->now.now_ms = saved.time_ms;
  return MMCMAP_OK;
}

int mmcmap_open_snapshot(mmcmap *handle, mmcmap_slice name,
                         mmcmap_snapshot **snapshot_out) {
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  int code = snapshot_begin(
      handle, handle->options.max_snapshot_age_ms * UINT64_C(1000000),
      snapshot_out);
  if (code != MMCMAP_OK) return code;
  return snapshot_finish(handle, take_saved(*snapshot_out, name), snapshot_out);
}

/* ---- All of them --------------------------------------------------------- */

struct listing {
  int (*visit)(void *context, const mmcmap_saved *saved);
  void *context;
};

static int list_one(void *context, const struct saved *saved) {
  const struct listing *listing = context;
  mmcmap_saved told = {.name = slice_of(saved->name, saved->name_size),
                       .time_ms = saved->time_ms,
                       .version = saved->content_epoch,
                       .count = saved->count};
  return listing->visit(listing->context, &told);
}

int mmcmap_snapshots(mmcmap *handle,
                     int (*visit)(void *context, const mmcmap_saved *saved),
                     void *context) {
  mmcmap_snapshot *snapshot;
  struct share_row *row;
  struct listing listing = {.visit = visit, .context = context};
  int code = snapshot_open_for_long(handle, &snapshot);
  if (code != MMCMAP_OK) return code;
  code = snapshot_enter(snapshot, &row);
  if (code == MMCMAP_OK) {
    struct node_source source = space_source(&snapshot->store->space);
    code = saved_each(&source, snapshot->moment.root, list_one, &listing);
    snapshot_leave(row);
  }
  mmcmap_snapshot_close(snapshot);
  return code;
}
