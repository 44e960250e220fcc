/* SPDX-License-Identifier: MIT */
/*
 * What the methods of records do, to the live store or to a transaction. Each
 * function asks for the handle itself, and so raises if it is closed: see
 * lua_store.h for what must not come between that and the call.
 */
#ifndef LUA_TARGET_H
#define LUA_TARGET_H

#include "lua_store.h"

static inline int target_put(lua_State *L, const lua_store *store,
                             mmcmap_slice key, mmcmap_slice value,
                             uint64_t ttl_ms) {
  if (store->is_txn)
    return mmcmap_txn_put_ttl(lua_store_txn(L, store), key, value, ttl_ms);
  return mmcmap_put_ttl(lua_store_writer(L, store), key, value, ttl_ms);
}

static inline int target_delete(lua_State *L, const lua_store *store,
                                mmcmap_slice key) {
  if (store->is_txn) return mmcmap_txn_delete(lua_store_txn(L, store), key);
  return mmcmap_delete(lua_store_writer(L, store), key);
}

static inline int target_has(lua_State *L, const lua_store *store,
                             mmcmap_slice key) {
  if (store->is_txn) return mmcmap_txn_has(lua_store_txn(L, store), key);
  return mmcmap_has(lua_store_handle(L, store), key);
}

/* Copies the value into `scratch`. */
static inline int target_get(lua_State *L, const lua_store *store,
                             mmcmap_slice key, struct scratch *scratch) {
  mmcmap_slice value;
  if (!store->is_txn)
    return mmcmap_get(lua_store_handle(L, store), key, &scratch->buffer);
  int code = mmcmap_txn_get(lua_store_txn(L, store), key, &value);
  scratch->buffer.size = 0;
  return code == MMCMAP_OK ? scratch_append(scratch, value) : code;
}

static inline int target_get_many(lua_State *L, const lua_store *store,
                                  const mmcmap_slice *keys, size_t count,
                                  mmcmap_visit visit, void *context) {
  if (store->is_txn)
    return mmcmap_txn_get_many(lua_store_txn(L, store), keys, count, visit,
                               context);
  return mmcmap_get_many(lua_store_handle(L, store), keys, count, visit,
                         context);
}

static inline int target_add(lua_State *L, const lua_store *store,
                             mmcmap_slice key, mmcmap_slice value,
                             uint64_t ttl_ms) {
  if (store->is_txn)
    return mmcmap_txn_add_ttl(lua_store_txn(L, store), key, value, ttl_ms);
  return mmcmap_add_ttl(lua_store_writer(L, store), key, value, ttl_ms);
}

static inline int target_replace(lua_State *L, const lua_store *store,
                                 mmcmap_slice key, mmcmap_slice value,
                                 uint64_t ttl_ms) {
  if (store->is_txn)
    return mmcmap_txn_replace_ttl(lua_store_txn(L, store), key, value, ttl_ms);
  return mmcmap_replace_ttl(lua_store_writer(L, store), key, value, ttl_ms);
}

static inline int target_cas(lua_State *L, const lua_store *store,
                             mmcmap_slice key, const mmcmap_slice *expected,
                             const mmcmap_slice *value) {
  if (store->is_txn)
    return mmcmap_txn_cas(lua_store_txn(L, store), key, expected, value);
  return mmcmap_cas(lua_store_writer(L, store), key, expected, value);
}

static inline int target_swap(lua_State *L, const lua_store *store,
                              mmcmap_slice key, mmcmap_slice value,
                              mmcmap_buffer *old_out, bool *found_out) {
  if (store->is_txn)
    return mmcmap_txn_swap(lua_store_txn(L, store), key, value, old_out,
                           found_out);
  return mmcmap_swap(lua_store_writer(L, store), key, value, old_out,
                     found_out);
}

static inline int target_incr(lua_State *L, const lua_store *store,
                              mmcmap_slice key, mmcmap_number by,
                              mmcmap_number init, mmcmap_number *sum_out) {
  if (store->is_txn)
    return mmcmap_txn_incr(lua_store_txn(L, store), key, by, init, sum_out);
  return mmcmap_incr(lua_store_writer(L, store), key, by, init, sum_out);
}

static inline int target_put_many(lua_State *L, const lua_store *store,
                                  const mmcmap_slice *keys,
                                  const mmcmap_slice *values, size_t count,
                                  uint64_t ttl_ms) {
  if (store->is_txn)
    return mmcmap_txn_put_many_ttl(lua_store_txn(L, store), keys, values, count,
                                   ttl_ms);
  return mmcmap_put_many_ttl(lua_store_writer(L, store), keys, values, count,
                             ttl_ms);
}

static inline int target_ttl(lua_State *L, const lua_store *store,
                             mmcmap_slice key, uint64_t *ttl_ms_out) {
  if (store->is_txn)
    return mmcmap_txn_ttl(lua_store_txn(L, store), key, ttl_ms_out);
  return mmcmap_ttl(lua_store_handle(L, store), key, ttl_ms_out);
}

static inline int target_expire(lua_State *L, const lua_store *store,
                                mmcmap_slice key, uint64_t ttl_ms) {
  if (store->is_txn)
    return mmcmap_txn_expire(lua_store_txn(L, store), key, ttl_ms);
  return mmcmap_expire(lua_store_writer(L, store), key, ttl_ms);
}

static inline int target_clear(lua_State *L, const lua_store *store) {
  if (store->is_txn) return mmcmap_txn_clear(lua_store_txn(L, store));
  return mmcmap_clear(lua_store_writer(L, store));
}

static inline int target_count(lua_State *L, const lua_store *store,
                               uint64_t *count_out) {
  if (store->is_txn)
    return mmcmap_txn_count(lua_store_txn(L, store), count_out);
  return mmcmap_count(lua_store_handle(L, store), count_out);
}

#endif
