/* SPDX-License-Identifier: MIT */
/*
 * Transactions, and what is one in a single call. What depends on the present
 * value stands in api_change.c.
 */
#include <stdlib.h>
#include <string.h>

#include "handle.h"

/* ---- Begin and end ------------------------------------------------------- */

/* Whatever has its memory, but for the transaction's own. */
static void free_txn(mmcmap_txn *txn) {
  while (txn->maps != NULL) {
    mmcmap_txn *map = txn->maps;
    txn->maps = map->next_map;
    free((void *)(uintptr_t)map->map.data);
    map->magic = 0;
    free(map);
  }
  txn->magic = 0;
  free(txn->own);
  free(txn);
}

int mmcmap_txn_begin(mmcmap *handle, mmcmap_txn **txn_out) {
  struct store *store;
  *txn_out = NULL;
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  /* The one before has found no space: what can be made is made now. And there may be
     room for more records since somebody has looked last. */
  struct share_upkeep *upkeep = &store->share.header->upkeep;
  uint32_t is_full = atomic_exchange(&upkeep->is_full, 0);
  if (is_full != 0 || atomic_load(&upkeep->is_crowded) != 0)
    (void)handle_make_room(handle, store, MMCMAP_EFULL,
                           is_full == SHARE_FULL_FOR_DELETES, &(unsigned){0});
  mmcmap_txn *txn = calloc(1, sizeof *txn);
  if (txn != NULL) txn->own = malloc(sizeof *txn->own);
  if (txn == NULL || txn->own == NULL)
    code = error_set(MMCMAP_ENOMEM, "transaction");
  if (code == MMCMAP_OK)
    code = transaction_begin(txn->own, &store->writer, change_mode_of(handle));
  if (code != MMCMAP_OK) {
    if (txn != NULL) free_txn(txn);
    return code;
  }
  txn->magic = TXN_MAGIC;
  txn->handle = handle;
  txn->store = store;
  txn->base = txn;
  txn->is_map = handle->is_map;
  txn->map = handle->map;
  store_hold_child(store);
  *txn_out = txn;
  return MMCMAP_OK;
}

/* What is left of it has been given back. */
static void end_txn(mmcmap_txn *txn) {
  store_drop_child(txn->store);
  free_txn(txn);
}

int mmcmap_txn_commit(mmcmap_txn *txn) {
  uint64_t epoch = 0;
  int code = enter_txn(txn);
  if (txn->base != txn) return error_set(MMCMAP_EINVAL, "a map's transaction");
  mmcmap *handle = txn->handle;
  struct store *store = txn->store;
  bool may_expire = txn->may_expire;
  if (code == MMCMAP_OK)
    code = transaction_commit(txn->own, &epoch);
  else
    transaction_forget(txn->own);
  end_txn(txn);
  if (code != MMCMAP_OK || epoch == 0) return code;
  return may_expire ? finish_expiring_change(handle, store, epoch)
                    : finish_change(handle, store, epoch);
}

void mmcmap_txn_abort(mmcmap_txn *txn) {
  if (txn == NULL) return;
  CHECK(txn->magic == TXN_MAGIC && txn->base == txn);
  if (store_is_ours(txn->store))
    transaction_abort(txn->own);
  else
    transaction_forget(txn->own);
  end_txn(txn);
}

/* ---- Maps ---------------------------------------------------------------- */

/* Where the map of that name hangs in the tree, or NULL in its place: whether it is one
   that was asked for before. */
static mmcmap_txn **find_map(mmcmap_txn *base, const struct trie_key *name) {
  mmcmap_txn **place = &base->map_root;
  while (*place != NULL) {
    const struct trie_key *other = &(*place)->map;
    if (other->primary == name->primary && other->size == name->size &&
        (name->size == 0 || memcmp(other->data, name->data, name->size) == 0))
      break;
    place = &(*place)->below[name->primary > other->primary];
  }
  return place;
}

int mmcmap_txn_map(mmcmap_txn *txn, mmcmap_slice name, mmcmap_txn **map_out) {
  *map_out = NULL;
  int code = enter_txn(txn);
  if (code == MMCMAP_OK) code = transaction_check(transaction_of(txn));
  if (code != MMCMAP_OK) return code;
  mmcmap_txn *base = txn->base;
  struct trie_key key = trie_key_of(&txn->store->hasher, name.data, name.size);
  mmcmap_txn **place = find_map(base, &key);
  *map_out = *place;
  if (*map_out != NULL) return MMCMAP_OK;
  mmcmap_txn *map = calloc(1, sizeof *map);
  if (map == NULL) return error_set(MMCMAP_ENOMEM, "transaction");
  code = handle_copy_name(txn->store, name, &map->map);
  if (code != MMCMAP_OK) {
    free(map);
    return code;
  }
  map->magic = TXN_MAGIC;
  map->handle = txn->handle;
  map->store = txn->store;
  map->base = base;
  map->is_map = true;
  map->next_map = base->maps;
  base->maps = map;
  *place = map;
  *map_out = map;
  return MMCMAP_OK;
}

int mmcmap_txn_drop(mmcmap_txn *txn, mmcmap_slice name) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  if (name.size > MMCMAP_KEY_SIZE_MAX) return MMCMAP_NOTFOUND;
  struct trie_key key = trie_key_of(&txn->store->hasher, name.data, name.size);
  return transaction_drop(transaction_of(txn), &key);
}

/* ---- Records ------------------------------------------------------------- */

int mmcmap_txn_get(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice *value_out) {
  struct record_view record;
  *value_out = slice_of(NULL, 0);
  int code = enter_txn(txn);
  if (code == MMCMAP_OK)
    code = transaction_get(transaction_of(txn), map_of_txn(txn), key.data,
                           key.size, &record);
  if (code == MMCMAP_OK) *value_out = slice_of(record.value, record.value_size);
  return code;
}

int mmcmap_txn_has(mmcmap_txn *txn, mmcmap_slice key) {
  mmcmap_slice value;
  return mmcmap_txn_get(txn, key, &value);
}

int mmcmap_txn_ttl(mmcmap_txn *txn, mmcmap_slice key, uint64_t *ttl_ms_out) {
  struct record_view record = {.expires_ms = 0};
  *ttl_ms_out = 0;
  int code = enter_txn(txn);
  if (code == MMCMAP_OK)
    code = transaction_get(transaction_of(txn), map_of_txn(txn), key.data,
                           key.size, &record);
  if (code == MMCMAP_OK && record.expires_ms != 0)
    *ttl_ms_out = record.expires_ms - transaction_of(txn)->now.now_ms;
  return code;
}

int mmcmap_txn_put_ttl(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice value,
                       uint64_t ttl_ms) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  if (ttl_ms != 0) txn->base->may_expire = true;
  return transaction_put(transaction_of(txn), map_of_txn(txn), key.data,
                         key.size, value.data, value.size, life_of(ttl_ms));
}

int mmcmap_txn_put(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice value) {
  return mmcmap_txn_put_ttl(txn, key, value, 0);
}

int mmcmap_txn_delete(mmcmap_txn *txn, mmcmap_slice key) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_delete(transaction_of(txn), map_of_txn(txn), key.data,
                            key.size);
}

int mmcmap_txn_clear(mmcmap_txn *txn) {
  int code = enter_txn(txn);
  return code == MMCMAP_OK
             ? transaction_clear(transaction_of(txn), map_of_txn(txn))
             : code;
}

int mmcmap_txn_count(mmcmap_txn *txn, uint64_t *count_out) {
  *count_out = 0;
  int code = enter_txn(txn);
  uint64_t root;
  if (code != MMCMAP_OK) return code;
  return transaction_look(transaction_of(txn), map_of_txn(txn), &root,
                          count_out);
}

/* ---- Savepoints ---------------------------------------------------------- */

int mmcmap_txn_savepoint(mmcmap_txn *txn, size_t *savepoint_out) {
  *savepoint_out = 0;
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_savepoint(transaction_of(txn), savepoint_out);
}

int mmcmap_txn_rollback_to(mmcmap_txn *txn, size_t savepoint) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_rollback_to(transaction_of(txn), savepoint);
}

int mmcmap_txn_release(mmcmap_txn *txn, size_t savepoint) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_release(transaction_of(txn), savepoint);
}

/* ---- Many at once -------------------------------------------------------- */

static int put_all(mmcmap_txn *txn, const mmcmap_slice *keys,
                   const mmcmap_slice *values, size_t count, uint64_t ttl_ms) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  if (ttl_ms != 0) txn->base->may_expire = true;
  return transaction_put_many(transaction_of(txn), map_of_txn(txn), keys,
                              values, count, life_of(ttl_ms));
}

int mmcmap_txn_put_many(mmcmap_txn *txn, const mmcmap_slice *keys,
                        const mmcmap_slice *values, size_t count) {
  return mmcmap_txn_put_many_ttl(txn, keys, values, count, 0);
}

int mmcmap_txn_put_many_ttl(mmcmap_txn *txn, const mmcmap_slice *keys,
                            const mmcmap_slice *values, size_t count,
                            uint64_t ttl_ms) {
  size_t savepoint;
  int code = mmcmap_txn_savepoint(txn, &savepoint);
  if (code != MMCMAP_OK) return code;
  code = put_all(txn, keys, values, count, ttl_ms);
  if (code != MMCMAP_OK) (void)mmcmap_txn_rollback_to(txn, savepoint);
  (void)mmcmap_txn_release(txn, savepoint);
  return code;
}

/* The first failure counts: what it has told stays told. */
static int finish_txn(mmcmap_txn *txn, int code) {
  if (code == MMCMAP_OK) return mmcmap_txn_commit(txn);
  mmcmap_txn_abort(txn);
  return code;
}

/* What is done in a transaction of its own. */
struct alone {
  const mmcmap_slice *keys; /* to be put, */
  const mmcmap_slice *values;
  size_t count;
  uint64_t ttl_ms;
  mmcmap_slice name; /* or to be dropped */
};

/* `frees` says that it frees space. If there is none, room is made and it is tried
   again. */
static int run_alone(mmcmap *handle, const struct alone *what, bool frees,
                     int (*body)(mmcmap_txn *txn, const struct alone *what)) {
  mmcmap_txn *txn;
  struct store *store;
  unsigned tries = 0;
  int code;
  do {
    code = mmcmap_txn_begin(handle, &txn);
    if (code != MMCMAP_OK) return code;
    store = txn->store;
    code = finish_txn(txn, body(txn, what));
  } while (code != MMCMAP_OK &&
           handle_make_room(handle, store, code, frees, &tries));
  return code;
}

static int put_many_alone(mmcmap_txn *txn, const struct alone *what) {
  return put_all(txn, what->keys, what->values, what->count, what->ttl_ms);
}

static int clear_alone(mmcmap_txn *txn, const struct alone *what) {
  (void)what;
  return mmcmap_txn_clear(txn);
}

static int drop_alone(mmcmap_txn *txn, const struct alone *what) {
  return mmcmap_txn_drop(txn, what->name);
}

int mmcmap_put_many(mmcmap *handle, const mmcmap_slice *keys,
                    const mmcmap_slice *values, size_t count) {
  return mmcmap_put_many_ttl(handle, keys, values, count, 0);
}

int mmcmap_put_many_ttl(mmcmap *handle, const mmcmap_slice *keys,
                        const mmcmap_slice *values, size_t count,
                        uint64_t ttl_ms) {
  const struct alone what = {
      .keys = keys, .values = values, .count = count, .ttl_ms = ttl_ms};
  return run_alone(handle, &what, false, put_many_alone);
}

int mmcmap_clear(mmcmap *handle) {
  return run_alone(handle, NULL, true, clear_alone);
}

int mmcmap_drop(mmcmap *handle, mmcmap_slice name) {
  const struct alone what = {.name = name};
  return run_alone(handle, &what, true, drop_alone);
}
