/* SPDX-License-Identifier: MIT */
/*
 * Snapshots and cursors.
 */
#include <stdlib.h>
#include <string.h>

#include "handle.h"

/* Belongs to one thread at a time. */
struct mmcmap_snapshot {
  uint32_t magic;
  struct store *store;
  struct share_row *row;
  uint64_t mark; /* of the row, as long as the snapshot has not been ended */
  struct moment moment;
  uint64_t root; /* of the map that it is of */
  uint64_t count;
  bool is_view; /* of another snapshot, which has the row */
};

/* Over a snapshot, or over a transaction at a moment. */
struct mmcmap_cursor {
  uint32_t magic;
  mmcmap_snapshot *snapshot;
  mmcmap_txn *txn; /* or NULL */
  struct trie_cursor cursor;
};

/* Finds the map in the moment; one that is not there is empty. */
static int choose_map(mmcmap_snapshot *snapshot, const struct trie_key *map) {
  struct node_source source = space_source(&snapshot->store->space);
  struct map_words words;
  uint64_t top = snapshot->moment.root;
  snapshot->count = snapshot->moment.count;
  if (map == NULL) return catalog_default_root(&source, top, &snapshot->root);
  int code = catalog_find(&source, &snapshot->store->hasher, top, map, &words);
  snapshot->root = words.root;
  snapshot->count = words.count;
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

int mmcmap_snapshot_open(mmcmap *handle, mmcmap_snapshot **snapshot_out) {
  struct store *store;
  *snapshot_out = NULL;
  int code = enter(handle, &store);
  if (code != MMCMAP_OK) return code;
  mmcmap_snapshot *snapshot = calloc(1, sizeof *snapshot);
  if (snapshot == NULL) return error_set(MMCMAP_ENOMEM, "snapshot");
  const mmcmap_options *options = &handle->options;
  code = readers_claim_snapshot(
      &store->readers, options->max_snapshot_age_ms * UINT64_C(1000000),
      &snapshot->row);
  if (code == MMCMAP_OK) {
    code = writer_open_snapshot(&store->writer, snapshot->row,
                                options->timeout_ms, &snapshot->moment);
    snapshot->store = store;
    if (code == MMCMAP_OK) code = choose_map(snapshot, map_of(handle));
    if (code != MMCMAP_OK)
      readers_give_back_snapshot(&store->readers, snapshot->row);
  }
  if (code != MMCMAP_OK) {
    free(snapshot);
    return code;
  }
  snapshot->mark = share_mark(snapshot->row, snapshot->moment.epoch);
  snapshot->magic = SNAPSHOT_MAGIC;
  store_hold_child(store);
  *snapshot_out = snapshot;
  return MMCMAP_OK;
}

/* Pins, so that what the snapshot sees stays there until leave_snapshot(), and
   makes sure that it has not been ended for its age. */
static int enter_snapshot(const mmcmap_snapshot *snapshot,
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

void mmcmap_snapshot_close(mmcmap_snapshot *snapshot) {
  if (snapshot == NULL) return;
  CHECK(snapshot->magic == SNAPSHOT_MAGIC);
  if (!snapshot->is_view && store_is_ours(snapshot->store))
    readers_give_back_snapshot(&snapshot->store->readers, snapshot->row);
  store_drop_child(snapshot->store);
  snapshot->magic = 0;
  free(snapshot);
}

int mmcmap_snapshot_map(mmcmap_snapshot *snapshot, mmcmap_slice name,
                        mmcmap_snapshot **map_out) {
  struct share_row *row;
  *map_out = NULL;
  int code = enter_snapshot(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  mmcmap_snapshot *view = malloc(sizeof *view);
  if (view == NULL) code = error_set(MMCMAP_ENOMEM, "snapshot");
  if (code == MMCMAP_OK) {
    struct trie_key key =
        trie_key_of(&snapshot->store->hasher, name.data, name.size);
    *view = *snapshot;
    view->is_view = true;
    code = choose_map(view, &key);
  }
  readers_unpin(row);
  if (code != MMCMAP_OK) {
    free(view);
    return code;
  }
  store_hold_child(view->store);
  *map_out = view;
  return MMCMAP_OK;
}

int mmcmap_snapshot_get(mmcmap_snapshot *snapshot, mmcmap_slice key,
                        mmcmap_slice *value_out) {
  struct share_row *row;
  *value_out = slice_of(NULL, 0);
  int code = enter_snapshot(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  struct store *store = snapshot->store;
  struct trie_key trie_key = trie_key_of(&store->hasher, key.data, key.size);
  struct node_source source = space_source(&store->space);
  struct record_view record;
  code =
      trie_lookup(&source, &store->hasher, snapshot->root, &trie_key, &record);
  if (code == MMCMAP_OK) *value_out = slice_of(record.value, record.value_size);
  readers_unpin(row);
  return code;
}

uint64_t mmcmap_snapshot_count(const mmcmap_snapshot *snapshot) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  return snapshot->count;
}

uint64_t mmcmap_snapshot_version(const mmcmap_snapshot *snapshot) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  return snapshot->moment.epoch;
}

/* A cursor over what stands under a root, which does not change any more. */
static int open_cursor(const struct store *store, uint64_t root, uint64_t count,
                       mmcmap_cursor **cursor_out) {
  mmcmap_cursor *cursor = calloc(1, sizeof *cursor);
  if (cursor == NULL) return error_set(MMCMAP_ENOMEM, "cursor");
  cursor->magic = CURSOR_MAGIC;
  /* A file cannot hold more records than fit into it, whatever it says. */
  uint64_t most = space_size(&store->space) / NODE_HEADER_BYTES;
  trie_cursor_init(&cursor->cursor, root, count < most ? count : most);
  *cursor_out = cursor;
  return MMCMAP_OK;
}

int mmcmap_cursor_open(mmcmap_snapshot *snapshot, mmcmap_cursor **cursor_out) {
  struct share_row *row;
  *cursor_out = NULL;
  int code = enter_snapshot(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  readers_unpin(row);
  code =
      open_cursor(snapshot->store, snapshot->root, snapshot->count, cursor_out);
  if (code == MMCMAP_OK) (*cursor_out)->snapshot = snapshot;
  return code;
}

/* A cursor over the names of maps. */
static int open_names(const struct store *store, uint64_t top,
                      mmcmap_cursor **cursor_out) {
  struct node_source source = space_source(&store->space);
  uint64_t root;
  int code = catalog_root(&source, top, &root);
  return code == MMCMAP_OK ? open_cursor(store, root, UINT64_MAX, cursor_out)
                           : code;
}

int mmcmap_snapshot_maps(mmcmap_snapshot *snapshot,
                         mmcmap_cursor **cursor_out) {
  struct share_row *row;
  *cursor_out = NULL;
  int code = enter_snapshot(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  code = open_names(snapshot->store, snapshot->moment.root, cursor_out);
  readers_unpin(row);
  if (code == MMCMAP_OK) (*cursor_out)->snapshot = snapshot;
  return code;
}

int mmcmap_txn_maps(mmcmap_txn *txn, mmcmap_cursor **cursor_out) {
  *cursor_out = NULL;
  int code = enter_txn(txn);
  if (code == MMCMAP_OK) code = transaction_freeze(transaction_of(txn));
  if (code == MMCMAP_OK)
    code = open_names(txn->store, atomic_load(&transaction_of(txn)->root),
                      cursor_out);
  if (code == MMCMAP_OK) (*cursor_out)->txn = txn->base;
  return code;
}

int mmcmap_txn_cursor_open(mmcmap_txn *txn, mmcmap_cursor **cursor_out) {
  *cursor_out = NULL;
  int code = enter_txn(txn);
  uint64_t root, count;
  if (code == MMCMAP_OK) code = transaction_freeze(transaction_of(txn));
  if (code == MMCMAP_OK)
    code =
        transaction_look(transaction_of(txn), map_of_txn(txn), &root, &count);
  if (code == MMCMAP_OK)
    code = open_cursor(txn->store, root, count, cursor_out);
  if (code == MMCMAP_OK) (*cursor_out)->txn = txn->base;
  return code;
}

static int next_of_snapshot(mmcmap_cursor *cursor,
                            struct record_view *record_out) {
  struct share_row *row;
  int code = enter_snapshot(cursor->snapshot, &row);
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&cursor->snapshot->store->space);
  code = trie_cursor_next(&cursor->cursor, &source, record_out);
  readers_unpin(row);
  return code;
}

static int next_of_txn(mmcmap_cursor *cursor, struct record_view *record_out) {
  int code = enter_txn(cursor->txn);
  if (code == MMCMAP_OK) code = transaction_check(transaction_of(cursor->txn));
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&cursor->txn->store->space);
  return trie_cursor_next(&cursor->cursor, &source, record_out);
}

int mmcmap_cursor_next(mmcmap_cursor *cursor, mmcmap_slice *key_out,
                       mmcmap_slice *value_out) {
  CHECK(cursor != NULL && cursor->magic == CURSOR_MAGIC);
  struct record_view record;
  *key_out = *value_out = slice_of(NULL, 0);
  int code = cursor->txn == NULL ? next_of_snapshot(cursor, &record)
                                 : next_of_txn(cursor, &record);
  if (code != MMCMAP_OK) return code;
  *key_out = slice_of(record.key, record.key_size);
  if (!record.is_map) *value_out = slice_of(record.value, record.value_size);
  return MMCMAP_OK;
}

void mmcmap_cursor_close(mmcmap_cursor *cursor) {
  if (cursor == NULL) return;
  CHECK(cursor->magic == CURSOR_MAGIC);
  cursor->magic = 0;
  free(cursor);
}
