/* SPDX-License-Identifier: MIT */
/*
 * Transactions of what area store of the probe has opened.
 *
 *   store:begin()    a transaction
 *   store:put_many({key, value, ...} [, ttl_ms]), store:clear()
 *   store:leave_open(key, value)   a thread begins a transaction, puts, and ends;
 *                                  what it has left
 *   store:from_thread(name)   what calls "put", "sync" or "begin" of the store
 *                             give in another thread; or "step" while this one has
 *                             the cleaner's turn, and the last error there after it
 * Transaction: get, has, ttl, put, delete, add, replace, cas, swap, incr, expire, put_many,
 * clear, count, records, walk (a function that gives key and value), savepoint,
 * rollback_to, release, map, maps, drop, commit, abort. They answer as their namesakes of a store
 * do; records() gives {key = value} and how many there were.
 */
#include <pthread.h>
#include <string.h>

#include "handle.h"
#include "probe.h"
#include "probe_store.h"

#define TXN_TYPE "mmcmap_probe.transaction"
#define TXN_WALK_TYPE "mmcmap_probe.walk"

struct probe_txn {
  mmcmap_txn *txn;
  bool is_map; /* it ends with another one */
  mmcmap_buffer value;
};

static mmcmap_slice txn_slice(lua_State *L, int arg) {
  mmcmap_slice slice;
  slice.data = luaL_checklstring(L, arg, &slice.size);
  return slice;
}

static struct probe_txn *txn_new(lua_State *L) {
  struct probe_txn *txn = lua_newuserdata(L, sizeof *txn);
  memset(txn, 0, sizeof *txn);
  luaL_getmetatable(L, TXN_TYPE);
  lua_setmetatable(L, -2);
  return txn;
}

static mmcmap_txn *txn_check(lua_State *L) {
  struct probe_txn *txn = luaL_checkudata(L, 1, TXN_TYPE);
  luaL_argcheck(L, txn->txn != NULL, 1, "ended");
  return txn->txn;
}

int probe_txn_begin(lua_State *L) {
  mmcmap *handle = probe_store_handle(L);
  struct probe_txn *txn = txn_new(L);
  int code = mmcmap_txn_begin(handle, &txn->txn);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

/* ---- Its end ------------------------------------------------------------- */

static mmcmap_txn *txn_take(lua_State *L) {
  struct probe_txn *txn = luaL_checkudata(L, 1, TXN_TYPE);
  mmcmap_txn *taken = txn->is_map ? NULL : txn->txn;
  txn->txn = NULL;
  mmcmap_buffer_free(&txn->value);
  return taken;
}

static int txn_abort(lua_State *L) {
  mmcmap_txn_abort(txn_take(L));
  return 0;
}

static int txn_commit(lua_State *L) {
  mmcmap_txn *txn = txn_check(L);
  const struct probe_txn *self = lua_touserdata(L, 1);
  if (self->is_map)
    return probe_result(L, mmcmap_txn_commit(txn)); /* refused */
  return probe_result(L, mmcmap_txn_commit(txn_take(L)));
}

/* ---- Records ------------------------------------------------------------- */

static int txn_get(lua_State *L) {
  mmcmap_slice value;
  int code = mmcmap_txn_get(txn_check(L), txn_slice(L, 2), &value);
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  if (code == MMCMAP_NOTFOUND)
    lua_pushnil(L);
  else
    lua_pushlstring(L, value.data, value.size);
  return 1;
}

static int txn_read_many(void *self, const mmcmap_slice *keys, size_t count,
                         mmcmap_visit visit, void *context) {
  return mmcmap_txn_get_many(self, keys, count, visit, context);
}

static int txn_get_many(lua_State *L) {
  return probe_store_push_many(L, txn_read_many, txn_check(L));
}

static int txn_found(lua_State *L, int code) {
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  lua_pushboolean(L, code == MMCMAP_OK);
  return 1;
}

static int txn_has(lua_State *L) {
  return txn_found(L, mmcmap_txn_has(txn_check(L), txn_slice(L, 2)));
}

static int txn_delete(lua_State *L) {
  return txn_found(L, mmcmap_txn_delete(txn_check(L), txn_slice(L, 2)));
}

/* put, add, replace: (key, value [, ttl_ms]) */
static int txn_put(lua_State *L) {
  mmcmap_txn *txn = txn_check(L);
  mmcmap_slice key = txn_slice(L, 2), value = txn_slice(L, 3);
  if (lua_isnoneornil(L, 4))
    return probe_result(L, mmcmap_txn_put(txn, key, value));
  return probe_result(
      L, mmcmap_txn_put_ttl(txn, key, value, probe_check_u64(L, 4)));
}

static int txn_ttl(lua_State *L) {
  uint64_t ttl_ms = 99;
  int code = mmcmap_txn_ttl(txn_check(L), txn_slice(L, 2), &ttl_ms);
  return probe_store_push_ttl(L, code, ttl_ms);
}

static int txn_expire(lua_State *L) {
  return txn_found(L, mmcmap_txn_expire(txn_check(L), txn_slice(L, 2),
                                        probe_check_u64(L, 3)));
}

/* put_from(key, other): puts the bytes that get(other) points at. */
static int txn_put_from(lua_State *L) {
  mmcmap_slice value;
  int code = mmcmap_txn_get(txn_check(L), txn_slice(L, 3), &value);
  if (code == MMCMAP_OK)
    code = mmcmap_txn_put(txn_check(L), txn_slice(L, 2), value);
  return probe_result(L, code);
}

static int txn_decided(lua_State *L, int code) {
  if (code != MMCMAP_MISMATCH && code != MMCMAP_NOTFOUND)
    return probe_result(L, code);
  lua_pushstring(L, mmcmap_error_name(code));
  return 1;
}

static int txn_add(lua_State *L) {
  mmcmap_txn *txn = txn_check(L);
  mmcmap_slice key = txn_slice(L, 2), value = txn_slice(L, 3);
  if (lua_isnoneornil(L, 4))
    return txn_decided(L, mmcmap_txn_add(txn, key, value));
  return txn_decided(
      L, mmcmap_txn_add_ttl(txn, key, value, probe_check_u64(L, 4)));
}

static int txn_replace(lua_State *L) {
  mmcmap_txn *txn = txn_check(L);
  mmcmap_slice key = txn_slice(L, 2), value = txn_slice(L, 3);
  if (lua_isnoneornil(L, 4))
    return txn_decided(L, mmcmap_txn_replace(txn, key, value));
  return txn_decided(
      L, mmcmap_txn_replace_ttl(txn, key, value, probe_check_u64(L, 4)));
}

static int txn_cas(lua_State *L) {
  mmcmap_slice expected, value;
  bool expects = !lua_isnoneornil(L, 3), puts = !lua_isnoneornil(L, 4);
  if (expects) expected = txn_slice(L, 3);
  if (puts) value = txn_slice(L, 4);
  return txn_decided(
      L, mmcmap_txn_cas(txn_check(L), txn_slice(L, 2),
                        expects ? &expected : NULL, puts ? &value : NULL));
}

static int txn_swap(lua_State *L) {
  bool found;
  mmcmap_txn *txn = txn_check(L);
  mmcmap_buffer *old = &((struct probe_txn *)lua_touserdata(L, 1))->value;
  int code =
      mmcmap_txn_swap(txn, txn_slice(L, 2), txn_slice(L, 3), old, &found);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  if (found)
    lua_pushlstring(L, old->data, old->size);
  else
    lua_pushnil(L);
  lua_pushboolean(L, found);
  return 2;
}

static int txn_incr(lua_State *L) {
  mmcmap_number sum;
  int code =
      mmcmap_txn_incr(txn_check(L), txn_slice(L, 2), probe_check_number(L, 3),
                      probe_check_number(L, 4), &sum);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_number(L, &sum);
  return 1;
}

static int txn_count(lua_State *L) {
  uint64_t count;
  int code = mmcmap_txn_count(txn_check(L), &count);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushnumber(L, (lua_Number)count);
  return 1;
}

static int txn_clear(lua_State *L) {
  return probe_result(L, mmcmap_txn_clear(txn_check(L)));
}

/* ---- Maps ---------------------------------------------------------------- */

/* map(name): must not be used when the transaction has ended. */
static int txn_map(lua_State *L) {
  mmcmap_txn *txn = txn_check(L);
  struct probe_txn *map = txn_new(L);
  map->is_map = true;
  int code = mmcmap_txn_map(txn, txn_slice(L, 2), &map->txn);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int txn_drop(lua_State *L) {
  return txn_found(L, mmcmap_txn_drop(txn_check(L), txn_slice(L, 2)));
}

static int txn_maps(lua_State *L) {
  mmcmap_cursor *cursor;
  int code = mmcmap_txn_maps(txn_check(L), &cursor);
  return code == MMCMAP_OK ? probe_store_push_records(L, cursor)
                           : probe_fail(L, code);
}

/* ---- Many at once -------------------------------------------------------- */

/* The keys and values at index 2; the slices are pushed, too. */
static size_t txn_pairs(lua_State *L, mmcmap_slice **keys_out,
                        mmcmap_slice **values_out) {
  luaL_checktype(L, 2, LUA_TTABLE);
  size_t count = 0;
  for (lua_rawgeti(L, 2, 1); !lua_isnil(L, -1);
       lua_rawgeti(L, 2, (int)(2 * count) + 1)) {
    lua_pop(L, 1);
    count++;
  }
  lua_pop(L, 1);
  mmcmap_slice *slices = lua_newuserdata(L, (2 * count + 1) * sizeof *slices);
  for (size_t i = 0; i < 2 * count; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    slices[i % 2 * count + i / 2] = txn_slice(L, lua_gettop(L));
    lua_pop(L, 1); /* the table keeps it */
  }
  *keys_out = slices;
  *values_out = slices + count;
  return count;
}

static int txn_put_many(lua_State *L) {
  mmcmap_slice *keys, *values;
  mmcmap_txn *txn = txn_check(L);
  lua_settop(L, 3);
  size_t count = txn_pairs(L, &keys, &values);
  if (lua_isnoneornil(L, 3))
    return probe_result(L, mmcmap_txn_put_many(txn, keys, values, count));
  return probe_result(L, mmcmap_txn_put_many_ttl(txn, keys, values, count,
                                                 probe_check_u64(L, 3)));
}

int probe_txn_store_put_many(lua_State *L) {
  mmcmap_slice *keys, *values;
  mmcmap *handle = probe_store_handle(L);
  lua_settop(L, 3);
  size_t count = txn_pairs(L, &keys, &values);
  if (lua_isnoneornil(L, 3))
    return probe_result(L, mmcmap_put_many(handle, keys, values, count));
  return probe_result(L, mmcmap_put_many_ttl(handle, keys, values, count,
                                             probe_check_u64(L, 3)));
}

int probe_txn_store_clear(lua_State *L) {
  return probe_result(L, mmcmap_clear(probe_store_handle(L)));
}

/* ---- Cursors ------------------------------------------------------------- */

static int txn_records(lua_State *L) {
  mmcmap_cursor *cursor;
  int code = mmcmap_txn_cursor_open(txn_check(L), &cursor);
  return code == MMCMAP_OK ? probe_store_push_records(L, cursor)
                           : probe_fail(L, code);
}

static int walk_next(lua_State *L) {
  mmcmap_cursor **cursor = lua_touserdata(L, lua_upvalueindex(1));
  mmcmap_slice key, value;
  int code = mmcmap_cursor_next(*cursor, &key, &value);
  if (code == MMCMAP_NOTFOUND) return 0;
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, key.data, key.size);
  lua_pushlstring(L, value.data, value.size);
  return 2;
}

static int walk_gc(lua_State *L) {
  mmcmap_cursor **cursor = lua_touserdata(L, 1);
  mmcmap_cursor_close(*cursor);
  return 0;
}

static int txn_walk(lua_State *L) {
  mmcmap_txn *txn = txn_check(L);
  mmcmap_cursor **cursor = lua_newuserdata(L, sizeof(mmcmap_cursor *));
  *cursor = NULL;
  luaL_getmetatable(L, TXN_WALK_TYPE);
  lua_setmetatable(L, -2);
  int code = mmcmap_txn_cursor_open(txn, cursor);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushcclosure(L, walk_next, 1);
  return 1;
}

/* ---- Savepoints ---------------------------------------------------------- */

static int txn_savepoint(lua_State *L) {
  size_t savepoint;
  int code = mmcmap_txn_savepoint(txn_check(L), &savepoint);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushinteger(L, (lua_Integer)savepoint);
  return 1;
}

static int txn_rollback_to(lua_State *L) {
  return probe_result(
      L, mmcmap_txn_rollback_to(txn_check(L), (size_t)probe_check_int(L, 2)));
}

static int txn_release(lua_State *L) {
  return probe_result(
      L, mmcmap_txn_release(txn_check(L), (size_t)probe_check_int(L, 2)));
}

/* ---- Other threads ------------------------------------------------------- */

struct scene {
  mmcmap *handle;
  mmcmap_txn *txn;
  mmcmap_slice key;
  mmcmap_slice value;
  const char *call;
  int code;
  mmcmap_error error; /* known after it */
};

static void *leave_open(void *context) {
  struct scene *scene = context;
  scene->code = mmcmap_txn_begin(scene->handle, &scene->txn);
  if (scene->code == MMCMAP_OK)
    scene->code = mmcmap_txn_put(scene->txn, scene->key, scene->value);
  return NULL;
}

static void play(lua_State *L, struct scene *scene, void *(*run)(void *)) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, scene) != 0)
    luaL_error(L, "no thread");
  pthread_join(thread, NULL);
}

int probe_txn_leave_open(lua_State *L) {
  struct scene scene = {.handle = probe_store_handle(L),
                        .key = txn_slice(L, 2),
                        .value = txn_slice(L, 3)};
  struct probe_txn *txn = txn_new(L);
  play(L, &scene, leave_open);
  txn->txn = scene.txn;
  return scene.code == MMCMAP_OK ? 1 : probe_fail(L, scene.code);
}

static void *call_store(void *context) {
  struct scene *scene = context;
  mmcmap_slice word = {"thread", 6};
  mmcmap_txn *txn = NULL;
  if (strcmp(scene->call, "put") == 0)
    scene->code = mmcmap_put(scene->handle, word, word);
  else if (strcmp(scene->call, "sync") == 0)
    scene->code = mmcmap_sync(scene->handle);
  else if (strcmp(scene->call, "step") == 0)
    scene->code = mmcmap_step(scene->handle, UINT64_C(1000000000));
  else if (strcmp(scene->call, "use") == 0)
    scene->code = mmcmap_txn_put(scene->txn, word, word);
  else
    scene->code = mmcmap_txn_begin(scene->handle, &txn);
  mmcmap_last_error(&scene->error);
  mmcmap_txn_abort(txn);
  return NULL;
}

int probe_txn_from_thread(lua_State *L) {
  struct scene scene = {.handle = probe_store_handle(L),
                        .call = luaL_checkstring(L, 2)};
  struct store *store = atomic_load(&scene.handle->store);
  bool is_step = strcmp(scene.call, "step") == 0;
  if (is_step) thread_mutex_lock(&store->upkeep.turns.mutex);
  play(L, &scene, call_store);
  if (is_step) thread_mutex_unlock(&store->upkeep.turns.mutex);
  if (scene.code != MMCMAP_OK || !is_step) return probe_result(L, scene.code);
  lua_pushboolean(L, true);
  lua_pushstring(L, mmcmap_error_name(scene.error.code));
  return 2;
}

/* use_from_thread(): what a put gives there. */
static int txn_use_from_thread(lua_State *L) {
  struct scene scene = {.txn = txn_check(L), .call = "use"};
  play(L, &scene, call_store);
  return probe_result(L, scene.code);
}

/* ---- Registration ------------------------------------------------------ */

void probe_txn_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"get", txn_get},
      {"get_many", txn_get_many},
      {"has", txn_has},
      {"put", txn_put},
      {"put_from", txn_put_from},
      {"delete", txn_delete},
      {"add", txn_add},
      {"replace", txn_replace},
      {"ttl", txn_ttl},
      {"expire", txn_expire},
      {"cas", txn_cas},
      {"swap", txn_swap},
      {"incr", txn_incr},
      {"put_many", txn_put_many},
      {"clear", txn_clear},
      {"count", txn_count},
      {"map", txn_map},
      {"maps", txn_maps},
      {"drop", txn_drop},
      {"records", txn_records},
      {"walk", txn_walk},
      {"savepoint", txn_savepoint},
      {"rollback_to", txn_rollback_to},
      {"release", txn_release},
      {"use_from_thread", txn_use_from_thread},
      {"commit", txn_commit},
      {"abort", txn_abort},
      {"__gc", txn_abort},
      {NULL, NULL},
  };
  luaL_newmetatable(L, TXN_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newmetatable(L, TXN_WALK_TYPE);
  lua_pushcfunction(L, walk_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 2);
}
