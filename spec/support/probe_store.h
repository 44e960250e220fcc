/* SPDX-License-Identifier: MIT */
/*
 * What the files of area store of the probe share.
 */
#ifndef SUPPORT_PROBE_STORE_H
#define SUPPORT_PROBE_STORE_H

#include "mmcmap.h"
#include "probe.h"

/* The handle of the store at index 1; raises if it is closed. */
mmcmap *probe_store_handle(lua_State *L);

/* What ttl() of a store, transaction or snapshot returns. */
int probe_store_push_ttl(lua_State *L, int code, uint64_t ttl_ms);

/* Pushes {key = value} and how many records the cursor met, and closes it. */
int probe_store_push_records(lua_State *L, mmcmap_cursor *cursor);

/* get_many(keys [, most]) by a function like mmcmap_get_many(), for `self`. */
typedef int probe_store_read_many(void *self, const mmcmap_slice *keys,
                                  size_t count, mmcmap_visit visit,
                                  void *context);
int probe_store_push_many(lua_State *L, probe_store_read_many *read,
                          void *self);

/* Methods of a store, and the types behind them. */
void probe_txn_open(lua_State *L);
int probe_txn_begin(lua_State *L);
int probe_txn_store_put_many(lua_State *L);
int probe_txn_store_clear(lua_State *L);
int probe_txn_leave_open(lua_State *L);
int probe_txn_from_thread(lua_State *L);
int probe_space_usage(lua_State *L);
int probe_space_ahead(lua_State *L);
int probe_space_clean_ahead(lua_State *L);
int probe_space_clean(lua_State *L);
int probe_space_await(lua_State *L);
int probe_space_pin(lua_State *L);
int probe_space_unpin(lua_State *L);

#endif
