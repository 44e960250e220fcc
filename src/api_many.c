/* SPDX-License-Identifier: MIT */
/*
 * Reading several keys with one call, in groups that are looked up side by
 * side: under one pin, or within a transaction.
 */
#include "snapshot.h"

static int visit_group(const struct store *store, uint64_t root,
                       const mmcmap_slice *keys, size_t first, size_t end,
                       struct expiry_reading *now, mmcmap_visit visit,
                       void *context) {
  struct trie_lane lanes[TRIE_LANES];
  struct node_source source = space_source(&store->space);
  unsigned count = (unsigned)(end - first);
  for (unsigned i = 0; i < count; i++)
    lanes[i].key =
        trie_key_of(&store->hasher, keys[first + i].data, keys[first + i].size);
  trie_lookup_many(&source, &store->hasher, root, lanes, count);
  for (unsigned i = 0; i < count; i++) {
    int code = lanes[i].code;
    if (code == MMCMAP_NOTFOUND ||
        (code == MMCMAP_OK && expiry_is_past(now, lanes[i].record.expires_ms)))
      continue;
    if (code == MMCMAP_OK)
      code = visit(context, first + i,
                   slice_of(lanes[i].record.value, lanes[i].record.value_size));
    if (code != MMCMAP_OK) return code;
  }
  return MMCMAP_OK;
}

/* The caller sees to it that what stands under the root stays: it is pinned, and
   has loaded the root after that; or the root is its transaction's. */
static int visit_all(const struct store *store, uint64_t root,
                     const mmcmap_slice *keys, size_t count,
                     struct expiry_reading now, mmcmap_visit visit,
                     void *context) {
  int code = MMCMAP_OK;
  for (size_t first = 0; first < count && code == MMCMAP_OK;
       first += TRIE_LANES) {
    size_t left = count - first;
    size_t end = first + (left < TRIE_LANES ? left : TRIE_LANES);
    code = visit_group(store, root, keys, first, end, &now, visit, context);
  }
  return code;
}

int mmcmap_get_many(mmcmap *handle, const mmcmap_slice *keys, size_t count,
                    mmcmap_visit visit, void *context) {
  struct store *store;
  struct share_row *row;
  int code = enter(handle, &store);
  if (code == MMCMAP_OK) code = readers_row(&store->readers, &row);
  if (code != MMCMAP_OK) return code;
  readers_pin(&store->readers, row);
  struct node_source source = space_source(&store->space);
  uint64_t root;
  code = handle_find_root(store, &source, map_of(handle), &root);
  if (code == MMCMAP_OK)
    code =
        visit_all(store, root, keys, count, reading_of(store), visit, context);
  else if (code == MMCMAP_NOTFOUND) /* A map that is not there is empty. */
    code = MMCMAP_OK;
  readers_unpin(row);
  return code;
}

int mmcmap_snapshot_get_many(mmcmap_snapshot *snapshot,
                             const mmcmap_slice *keys, size_t count,
                             mmcmap_visit visit, void *context) {
  struct share_row *row;
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  code = visit_all(snapshot->store, snapshot->root, keys, count, snapshot->now,
                   visit, context);
  snapshot_leave(row);
  return code;
}

int mmcmap_txn_get_many(mmcmap_txn *txn, const mmcmap_slice *keys, size_t count,
                        mmcmap_visit visit, void *context) {
  uint64_t root, records;
  int code = enter_txn(txn);
  if (code == MMCMAP_OK)
    code =
        transaction_look(transaction_of(txn), map_of_txn(txn), &root, &records);
  if (code != MMCMAP_OK) return code;
  return visit_all(txn->store, root, keys, count, transaction_of(txn)->now,
                   visit, context);
}
