/* SPDX-License-Identifier: MIT */
/*
 * Area store of the probe: mmcmap_open_with(), which takes small segments and
 * narrowed hashes, and the public functions on what it opens.
 *
 *   open(path [, {durability=, flush_interval_ms=, readonly=, create=, lock=,
 *       max_size=, timeout_ms=, hash=, segment_size=, primary_mask=,
 *       secondary_mask=}])
 * Store: backup, check, compact, get_many, put, get, has, delete, add, replace, cas, swap,
 * incr, ttl, expire, count, version, size, path, sync, step, stat, snapshot, save, saved,
 * open_saved, drop_saved, records, map, maps, drop, ended, close, remove; and see
 * probe_txn.c, probe_space.c.
 *   salvage(from, to)   how many records
 * Snapshot: diff, dump, get, get_many, ttl, count, version, page, records, map, maps, close.
 * records() returns {key = value} and how many records a cursor met.
 */
#include <limits.h>
#include <string.h>

#include "probe.h"
#include "probe_fields.h"
#include "probe_store.h"
#include "snapshot.h"
#include "store.h"

#define STORE_TYPE "mmcmap_probe.store"
#define STORE_SNAPSHOT_TYPE "mmcmap_probe.snapshot"

struct probe_store {
  mmcmap *handle;
  mmcmap_buffer value;
};

static struct probe_store *store_check(lua_State *L) {
  struct probe_store *store = luaL_checkudata(L, 1, STORE_TYPE);
  luaL_argcheck(L, store->handle != NULL, 1, "closed");
  return store;
}

mmcmap *probe_store_handle(lua_State *L) { return store_check(L)->handle; }

static mmcmap_slice store_slice(lua_State *L, int arg) {
  mmcmap_slice slice;
  slice.data = luaL_checklstring(L, arg, &slice.size);
  return slice;
}

/* ---- Opening and closing ----------------------------------------------- */

static bool store_flag(lua_State *L, const char *name, bool otherwise) {
  lua_getfield(L, 2, name);
  bool flag = lua_isnil(L, -1) ? otherwise : lua_toboolean(L, -1);
  lua_pop(L, 1);
  return flag;
}

static uint64_t store_number(lua_State *L, const char *name,
                             uint64_t otherwise) {
  lua_getfield(L, 2, name);
  uint64_t number = probe_opt_u64(L, lua_gettop(L), otherwise);
  lua_pop(L, 1);
  return number;
}

static int store_word(lua_State *L, const char *name,
                      const char *const words[]) {
  lua_getfield(L, 2, name);
  int index = luaL_checkoption(L, lua_gettop(L), words[0], words);
  lua_pop(L, 1);
  return index;
}

static void store_read_options(lua_State *L, mmcmap_options *options,
                               struct store_internals *internals) {
  static const char *const durabilities[] = {"async", "sync", "manual", NULL};
  static const char *const hashes[] = {"xxh3", "siphash", "murmur3", NULL};
  options->durability = store_word(L, "durability", durabilities);
  options->hash = store_word(L, "hash", hashes);
  options->flush_interval_ms =
      (uint32_t)store_number(L, "flush_interval_ms", 100);
  options->readonly = store_flag(L, "readonly", false);
  options->create = store_flag(L, "create", true);
  options->lock = store_flag(L, "lock", true);
  options->allow_network = store_flag(L, "allow_network", false);
  options->max_size_bytes = store_number(L, "max_size", 0);
  options->timeout_ms = (uint32_t)store_number(L, "timeout_ms", 5000);
  internals->segment_size =
      (uint32_t)store_number(L, "segment_size", SEGMENT_SIZE_DEFAULT);
  internals->primary_mask = store_number(L, "primary_mask", UINT64_MAX);
  internals->secondary_mask = store_number(L, "secondary_mask", UINT64_MAX);
}

static int store_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mmcmap_options options;
  struct store_internals internals;
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  mmcmap_options_init(&options);
  store_read_options(L, &options, &internals);
  struct probe_store *store = lua_newuserdata(L, sizeof *store);
  memset(store, 0, sizeof *store);
  luaL_getmetatable(L, STORE_TYPE);
  lua_setmetatable(L, -2);
  int code = mmcmap_open_with(path, &options, &internals, &store->handle);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int store_close(lua_State *L) {
  struct probe_store *store = luaL_checkudata(L, 1, STORE_TYPE);
  mmcmap *handle = store->handle;
  store->handle = NULL;
  mmcmap_buffer_free(&store->value);
  return probe_result(L, mmcmap_close(handle));
}

static int store_salvage(lua_State *L) {
  uint64_t count;
  int code = mmcmap_salvage(luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                            NULL, NULL, &count);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushnumber(L, (lua_Number)count);
  return 1;
}

static int store_remove(lua_State *L) {
  struct probe_store *store = store_check(L);
  int code = mmcmap_remove(store->handle);
  if (code == MMCMAP_OK) store->handle = NULL;
  return probe_result(L, code);
}

/* ---- Records ----------------------------------------------------------- */

/* put(key, value [, ttl_ms]) */
static int store_put(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_slice key = store_slice(L, 2), value = store_slice(L, 3);
  if (lua_isnoneornil(L, 4))
    return probe_result(L, mmcmap_put(store->handle, key, value));
  return probe_result(
      L, mmcmap_put_ttl(store->handle, key, value, probe_check_u64(L, 4)));
}

/* ttl(key): milliseconds, 0 if it never expires; nil alone if there is none. */
int probe_store_push_ttl(lua_State *L, int code, uint64_t ttl_ms) {
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  if (code == MMCMAP_OK)
    lua_pushnumber(L, (lua_Number)ttl_ms);
  else
    lua_pushnil(L);
  return 1;
}

static int store_ttl(lua_State *L) {
  uint64_t ttl_ms = 99;
  struct probe_store *store = store_check(L);
  int code = mmcmap_ttl(store->handle, store_slice(L, 2), &ttl_ms);
  return probe_store_push_ttl(L, code, ttl_ms);
}

/* get(key): the value; nil alone if there is none. */
static int store_get(lua_State *L) {
  struct probe_store *store = store_check(L);
  int code = mmcmap_get(store->handle, store_slice(L, 2), &store->value);
  if (code == MMCMAP_NOTFOUND) {
    lua_pushnil(L);
    return 1;
  }
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, store->value.data, store->value.size);
  return 1;
}

/* has(key), delete(key): true, false if it is not there. */
static int store_found(lua_State *L, int code) {
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  lua_pushboolean(L, code == MMCMAP_OK);
  return 1;
}

static int store_has(lua_State *L) {
  struct probe_store *store = store_check(L);
  return store_found(L, mmcmap_has(store->handle, store_slice(L, 2)));
}

static int store_delete(lua_State *L) {
  struct probe_store *store = store_check(L);
  return store_found(L, mmcmap_delete(store->handle, store_slice(L, 2)));
}

/* ---- Changes that depend on the present value --------------------------- */

/* A value, which is NULL if it has no bytes. */
static mmcmap_slice store_bare_slice(lua_State *L, int arg) {
  mmcmap_slice slice = store_slice(L, arg);
  if (slice.size == 0) slice.data = NULL;
  return slice;
}

/* add, replace, cas: true, else the code's name alone. */
static int store_decided(lua_State *L, int code) {
  if (code != MMCMAP_MISMATCH && code != MMCMAP_NOTFOUND)
    return probe_result(L, code);
  lua_pushstring(L, mmcmap_error_name(code));
  return 1;
}

/* add, replace: (key, value [, ttl_ms]) */
static int store_add(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_slice key = store_slice(L, 2), value = store_bare_slice(L, 3);
  if (lua_isnoneornil(L, 4))
    return store_decided(L, mmcmap_add(store->handle, key, value));
  return store_decided(
      L, mmcmap_add_ttl(store->handle, key, value, probe_check_u64(L, 4)));
}

static int store_replace(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_slice key = store_slice(L, 2), value = store_bare_slice(L, 3);
  if (lua_isnoneornil(L, 4))
    return store_decided(L, mmcmap_replace(store->handle, key, value));
  return store_decided(
      L, mmcmap_replace_ttl(store->handle, key, value, probe_check_u64(L, 4)));
}

/* expire(key, ttl_ms): true, false if it is not there. */
static int store_expire(lua_State *L) {
  struct probe_store *store = store_check(L);
  return store_found(L, mmcmap_expire(store->handle, store_slice(L, 2),
                                      probe_check_u64(L, 3)));
}

static int store_cas(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_slice expected, value;
  bool expects = !lua_isnoneornil(L, 3), puts = !lua_isnoneornil(L, 4);
  if (expects) expected = store_bare_slice(L, 3);
  if (puts) value = store_bare_slice(L, 4);
  return store_decided(
      L, mmcmap_cas(store->handle, store_slice(L, 2),
                    expects ? &expected : NULL, puts ? &value : NULL));
}

/* swap(key, value): the old value, or nil, and whether there was one. After a
   failure, as probe_fail(), and then these two. nil as key or value: what the last
   get() or swap() has left in the buffer, which is used again. */
static int store_swap(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_slice kept = {store->value.data, store->value.size};
  bool found = true;
  int code = mmcmap_swap(
      store->handle, lua_isnil(L, 2) ? kept : store_slice(L, 2),
      lua_isnil(L, 3) ? kept : store_bare_slice(L, 3), &store->value, &found);
  if (code != MMCMAP_OK) probe_fail(L, code);
  if (found || store->value.size > 0)
    lua_pushlstring(L, store->value.data, store->value.size);
  else
    lua_pushnil(L);
  lua_pushboolean(L, found);
  return code == MMCMAP_OK ? 2 : 5;
}

/* incr(key, by, init): the sum. After a failure, as probe_fail(), and then
   what stands in place of the sum. */
static int store_incr(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_number sum = {.is_float = true, .integer = 1, .real = 1};
  int code =
      mmcmap_incr(store->handle, store_slice(L, 2), probe_check_number(L, 3),
                  probe_check_number(L, 4), &sum);
  if (code != MMCMAP_OK) probe_fail(L, code);
  probe_push_number(L, &sum);
  return code == MMCMAP_OK ? 1 : 4;
}

/* What get_many() finds, as long as there are not too many. */
struct many {
  lua_State *L;
  lua_Integer most;
  lua_Integer count;
};

static int add_found(void *context, size_t index, mmcmap_slice value) {
  struct many *many = context;
  if (many->count == many->most) return MMCMAP_EBUSY;
  many->count++;
  lua_pushlstring(many->L, value.data, value.size);
  lua_rawseti(many->L, -2, (int)index + 1);
  return MMCMAP_OK;
}

/* get_many(keys [, most]): {[index of the key] = value}; if there are more than
   `most`, as probe_fail() with EBUSY, the last result being how many came. */
int probe_store_push_many(lua_State *L, probe_store_read_many *read,
                          void *self) {
  struct many many = {.L = L, .most = luaL_optinteger(L, 3, 1000000)};
  mmcmap_slice keys[200];
  int count = 0;
  for (lua_settop(L, 2); count < 200; count++) {
    lua_rawgeti(L, 2, count + 1);
    if (lua_isnil(L, -1)) break;
    keys[count].data = lua_tolstring(L, -1, &keys[count].size);
    lua_pop(L, 1); /* the table keeps it */
  }
  lua_newtable(L);
  int code = read(self, keys, (size_t)count, add_found, &many);
  if (code == MMCMAP_OK) return 1;
  probe_fail(L, code);
  lua_pop(L, 1);
  lua_pushinteger(L, many.count);
  return 3;
}

static int store_read_many(void *self, const mmcmap_slice *keys, size_t count,
                           mmcmap_visit visit, void *context) {
  return mmcmap_get_many(self, keys, count, visit, context);
}

static int store_get_many(lua_State *L) {
  return probe_store_push_many(L, store_read_many, store_check(L)->handle);
}

static void add_fault(void *context, const mmcmap_fault *fault) {
  lua_State *L = context;
  lua_pushstring(L, fault->rule);
  lua_rawseti(L, -2, (int)fields_length(L, -2) + 1);
}

/* check(): the rules of what is wrong. */
static int store_do_check(lua_State *L) {
  struct probe_store *store = store_check(L);
  lua_newtable(L);
  int code = mmcmap_check(store->handle, NULL, add_fault, L);
  if (code != MMCMAP_OK && code != MMCMAP_ECORRUPT) return probe_fail(L, code);
  return 1;
}

static int store_backup(lua_State *L) {
  struct probe_store *store = store_check(L);
  return probe_result(
      L, mmcmap_backup(store->handle, luaL_checkstring(L, 2), NULL, NULL));
}

/* What ends a call from its callback. */
struct ending {
  int at, code, calls;
};

static int ending_tell(void *context) {
  struct ending *ending = context;
  return ++ending->calls == ending->at ? ending->code : MMCMAP_OK;
}

static int ending_visit(void *context, size_t index, mmcmap_slice value) {
  (void)index;
  (void)value;
  return ending_tell(context);
}

static int ending_name(void *context, mmcmap_slice name) {
  (void)name;
  return ending_tell(context);
}

static int ending_saved(void *context, const mmcmap_saved *saved) {
  (void)saved;
  return ending_tell(context);
}

static int ending_progress(void *context, uint64_t done, uint64_t total) {
  (void)done;
  (void)total;
  return ending_tell(context);
}

/* ended(call, at, code, path): what the call returns whose callback returns `code`, a
   number, when it is called for the `at`th time, and how often it has been called. Keys
   are "a" to "c"; a backup goes to `path`. */
static int store_ended(lua_State *L) {
  static const mmcmap_slice keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
  mmcmap *handle = store_check(L)->handle;
  const char *call = luaL_checkstring(L, 2);
  const char *path = luaL_checkstring(L, 5);
  struct ending ending = {.at = (int)luaL_checkinteger(L, 3),
                          .code = (int)luaL_checkinteger(L, 4)};
  int code = MMCMAP_EINVAL;
  if (strcmp(call, "get_many") == 0)
    code = mmcmap_get_many(handle, keys, 3, ending_visit, &ending);
  else if (strcmp(call, "maps") == 0)
    code = mmcmap_maps(handle, ending_name, &ending);
  else if (strcmp(call, "snapshots") == 0)
    code = mmcmap_snapshots(handle, ending_saved, &ending);
  else if (strcmp(call, "check") == 0)
    code = mmcmap_check(handle, ending_progress, NULL, &ending);
  else if (strcmp(call, "backup") == 0)
    code = mmcmap_backup(handle, path, ending_progress, &ending);
  else if (strcmp(call, "compact") == 0)
    code = mmcmap_compact(handle, ending_progress, &ending);
  lua_pushinteger(L, code);
  lua_pushinteger(L, ending.calls);
  return 2;
}

static int store_count(lua_State *L) {
  uint64_t count;
  int code = mmcmap_count(store_check(L)->handle, &count);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushnumber(L, (lua_Number)count);
  return 1;
}

static int store_version(lua_State *L) {
  uint64_t version;
  int code = mmcmap_version(store_check(L)->handle, &version);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, version);
  return 1;
}

static int store_path(lua_State *L) {
  lua_pushstring(L, mmcmap_path(store_check(L)->handle));
  return 1;
}

static int store_size(lua_State *L) {
  uint64_t size_bytes;
  int code = mmcmap_size(store_check(L)->handle, &size_bytes);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushnumber(L, (lua_Number)size_bytes);
  return 1;
}

static int store_sync(lua_State *L) {
  return probe_result(L, mmcmap_sync(store_check(L)->handle));
}

/* step([budget in milliseconds]) */
static int store_step(lua_State *L) {
  mmcmap *handle = store_check(L)->handle;
  uint64_t budget_ms = probe_opt_u64(L, 2, 1000);
  return probe_result(L, mmcmap_step(handle, budget_ms * UINT64_C(1000000)));
}

static int store_compact(lua_State *L) {
  return probe_result(L, mmcmap_compact(store_check(L)->handle, NULL, NULL));
}

static int store_stat(lua_State *L) {
  mmcmap_stat stat;
  int code = mmcmap_stat_get(store_check(L)->handle, &stat);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_newtable(L);
#define STORE_FIELD(name) \
  lua_pushnumber(L, (lua_Number)stat.name); \
  lua_setfield(L, -2, #name);
  STORE_FIELD(count)
  STORE_FIELD(size_bytes)
  STORE_FIELD(used_bytes)
  STORE_FIELD(log_bytes)
  STORE_FIELD(large_bytes)
  STORE_FIELD(recycled_bytes)
  STORE_FIELD(segment_count)
  STORE_FIELD(epoch)
  STORE_FIELD(durable_epoch)
  STORE_FIELD(superblock_epoch)
  STORE_FIELD(version)
  STORE_FIELD(commit_count)
  STORE_FIELD(sync_count)
  STORE_FIELD(snapshot_count)
  STORE_FIELD(reader_count)
  STORE_FIELD(recovered_commits)
  STORE_FIELD(address_bytes)
  STORE_FIELD(waiting_for_commit)
  STORE_FIELD(waiting_for_snapshots)
  STORE_FIELD(waiting_for_pins)
#undef STORE_FIELD
  lua_pushboolean(L, stat.was_clean);
  lua_setfield(L, -2, "was_clean");
  return 1;
}

/* ---- Snapshots --------------------------------------------------------- */

static int store_snapshot(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_snapshot **snapshot = lua_newuserdata(L, sizeof *snapshot);
  *snapshot = NULL;
  luaL_getmetatable(L, STORE_SNAPSHOT_TYPE);
  lua_setmetatable(L, -2);
  int code = mmcmap_snapshot_open(store->handle, snapshot);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int store_save(lua_State *L) {
  struct probe_store *store = store_check(L);
  return probe_result(L,
                      mmcmap_snapshot_save(store->handle, store_slice(L, 2)));
}

static int store_forget_saved(lua_State *L) {
  struct probe_store *store = store_check(L);
  return store_found(L, mmcmap_drop_snapshot(store->handle, store_slice(L, 2)));
}

/* open_saved(name): a snapshot */
static int store_open_saved(lua_State *L) {
  struct probe_store *store = store_check(L);
  mmcmap_snapshot **snapshot = lua_newuserdata(L, sizeof(mmcmap_snapshot *));
  *snapshot = NULL;
  luaL_getmetatable(L, STORE_SNAPSHOT_TYPE);
  lua_setmetatable(L, -2);
  int code = mmcmap_open_snapshot(store->handle, store_slice(L, 2), snapshot);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int add_saved(void *context, const mmcmap_saved *saved) {
  lua_State *L = context;
  lua_pushlstring(L, saved->name.data, saved->name.size);
  lua_newtable(L);
  lua_pushnumber(L, (lua_Number)saved->time_ms);
  lua_setfield(L, -2, "time_ms");
  lua_pushnumber(L, (lua_Number)saved->count);
  lua_setfield(L, -2, "count");
  probe_push_u64(L, saved->version);
  lua_setfield(L, -2, "version");
  lua_rawset(L, -3);
  return MMCMAP_OK;
}

/* saved(): {name = {time_ms =, count =, version =}} */
static int store_saved(lua_State *L) {
  struct probe_store *store = store_check(L);
  lua_newtable(L);
  int code = mmcmap_snapshots(store->handle, add_saved, L);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static mmcmap_snapshot *snapshot_check(lua_State *L) {
  mmcmap_snapshot **snapshot = luaL_checkudata(L, 1, STORE_SNAPSHOT_TYPE);
  luaL_argcheck(L, *snapshot != NULL, 1, "closed");
  return *snapshot;
}

static int snapshot_close(lua_State *L) {
  mmcmap_snapshot **snapshot = luaL_checkudata(L, 1, STORE_SNAPSHOT_TYPE);
  mmcmap_snapshot_close(*snapshot);
  *snapshot = NULL;
  return 0;
}

static int snapshot_get(lua_State *L) {
  mmcmap_slice value;
  int code = mmcmap_snapshot_get(snapshot_check(L), store_slice(L, 2), &value);
  if (code == MMCMAP_NOTFOUND) {
    lua_pushnil(L);
    return 1;
  }
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, value.data, value.size);
  return 1;
}

static int snapshot_ttl(lua_State *L) {
  uint64_t ttl_ms = 99;
  int code = mmcmap_snapshot_ttl(snapshot_check(L), store_slice(L, 2), &ttl_ms);
  return probe_store_push_ttl(L, code, ttl_ms);
}

static int snapshot_count(lua_State *L) {
  lua_pushnumber(L, (lua_Number)mmcmap_snapshot_count(snapshot_check(L)));
  return 1;
}

static int snapshot_version(lua_State *L) {
  probe_push_u64(L, mmcmap_snapshot_version(snapshot_check(L)));
  return 1;
}

int probe_store_push_records(lua_State *L, mmcmap_cursor *cursor) {
  mmcmap_slice key, value;
  lua_Integer count = 0;
  int code;
  lua_newtable(L);
  while ((code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK) {
    lua_pushlstring(L, key.data, key.size);
    lua_pushlstring(L, value.data, value.size);
    lua_rawset(L, -3);
    count++;
  }
  mmcmap_cursor_close(cursor);
  if (code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  lua_pushinteger(L, count);
  return 2;
}

/* page(token, most): up to `most` keys behind the token, and the next token. */
static int snapshot_page(lua_State *L) {
  mmcmap_cursor *cursor;
  mmcmap_slice key, value;
  mmcmap_buffer token = {0};
  int most = probe_check_int(L, 3), count = 0;
  int code =
      mmcmap_cursor_resume(snapshot_check(L), store_slice(L, 2), &cursor);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_newtable(L);
  while (count < most &&
         (code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK) {
    lua_pushlstring(L, key.data, key.size);
    lua_rawseti(L, -2, ++count);
  }
  if (code == MMCMAP_OK || code == MMCMAP_NOTFOUND)
    code = mmcmap_cursor_token(cursor, &token);
  mmcmap_cursor_close(cursor);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, token.size ? token.data : "", token.size);
  mmcmap_buffer_free(&token);
  return 2;
}

static int push_records(lua_State *L, mmcmap_snapshot *snapshot) {
  mmcmap_cursor *cursor;
  int code = mmcmap_cursor_open(snapshot, &cursor);
  return code == MMCMAP_OK ? probe_store_push_records(L, cursor)
                           : probe_fail(L, code);
}

/* diff(other): {[key] = {old =, new =}}, and how many it met. */
static int snapshot_diff(lua_State *L) {
  mmcmap_snapshot *from = snapshot_check(L);
  mmcmap_snapshot **to = luaL_checkudata(L, 2, STORE_SNAPSHOT_TYPE);
  mmcmap_diff *diff;
  mmcmap_change change;
  lua_Integer count = 0;
  int code = mmcmap_diff_open(from, *to, &diff);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_newtable(L);
  while ((code = mmcmap_diff_next(diff, &change)) == MMCMAP_OK) {
    lua_pushlstring(L, change.key.data, change.key.size);
    lua_newtable(L);
    if (change.has_old) {
      lua_pushlstring(L, change.old_value.data, change.old_value.size);
      lua_setfield(L, -2, "old");
    }
    if (change.has_new) {
      lua_pushlstring(L, change.new_value.data, change.new_value.size);
      lua_setfield(L, -2, "new");
    }
    lua_rawset(L, -3);
    count++;
  }
  mmcmap_diff_close(diff);
  if (code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  lua_pushinteger(L, count);
  return 2;
}

static int snapshot_read_many(void *self, const mmcmap_slice *keys,
                              size_t count, mmcmap_visit visit, void *context) {
  return mmcmap_snapshot_get_many(self, keys, count, visit, context);
}

static int snapshot_get_many(lua_State *L) {
  return probe_store_push_many(L, snapshot_read_many, snapshot_check(L));
}

static int snapshot_dump(lua_State *L) {
  mmcmap_buffer text = {0};
  int code = mmcmap_snapshot_dump(snapshot_check(L), &text);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, text.data, text.size);
  mmcmap_buffer_free(&text);
  return 1;
}

/* map(name): to be closed before the snapshot. */
static int snapshot_map(lua_State *L) {
  mmcmap_snapshot *snapshot = snapshot_check(L);
  mmcmap_snapshot **map = lua_newuserdata(L, sizeof(mmcmap_snapshot *));
  *map = NULL;
  luaL_getmetatable(L, STORE_SNAPSHOT_TYPE);
  lua_setmetatable(L, -2);
  int code = mmcmap_snapshot_map(snapshot, store_slice(L, 2), map);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

/* maps(): {name = ""}, and how many. */
static int snapshot_maps(lua_State *L) {
  mmcmap_cursor *cursor;
  int code = mmcmap_snapshot_maps(snapshot_check(L), &cursor);
  return code == MMCMAP_OK ? probe_store_push_records(L, cursor)
                           : probe_fail(L, code);
}

struct met_maps {
  lua_State *L;
  int count, most; /* then the visitor ends the calls */
};

static int add_map(void *context, mmcmap_slice name) {
  struct met_maps *met = context;
  if (met->count == met->most) return MMCMAP_NOTFOUND;
  lua_pushlstring(met->L, name.data, name.size);
  lua_pushliteral(met->L, "");
  lua_rawset(met->L, -3);
  met->count++;
  return MMCMAP_OK;
}

/* maps([most]): the same. */
static int store_maps(lua_State *L) {
  struct met_maps met = {.L = L, .most = (int)luaL_optinteger(L, 2, INT_MAX)};
  struct probe_store *store = store_check(L);
  lua_newtable(L);
  int code = mmcmap_maps(store->handle, add_map, &met);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushinteger(L, met.count);
  return 2;
}

/* map(name): a store object, of the map. */
static int store_map(lua_State *L) {
  mmcmap *handle = store_check(L)->handle;
  struct probe_store *map = lua_newuserdata(L, sizeof *map);
  memset(map, 0, sizeof *map);
  luaL_getmetatable(L, STORE_TYPE);
  lua_setmetatable(L, -2);
  int code = mmcmap_map(handle, store_slice(L, 2), &map->handle);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int store_drop(lua_State *L) {
  struct probe_store *store = store_check(L);
  return store_found(L, mmcmap_drop(store->handle, store_slice(L, 2)));
}

/* let_go(), hold(): takes the mark off its row, and puts it there again, as it is
   before a thread that is pinned has marked it. */
static int snapshot_let_go(lua_State *L) {
  atomic_store(&snapshot_check(L)->row->snapshot, 0);
  return 0;
}

static int snapshot_hold(lua_State *L) {
  const mmcmap_snapshot *snapshot = snapshot_check(L);
  atomic_store(&snapshot->row->snapshot, snapshot->mark);
  return 0;
}

static int snapshot_records(lua_State *L) {
  return push_records(L, snapshot_check(L));
}

static int store_records(lua_State *L) {
  mmcmap_snapshot *snapshot;
  int code = mmcmap_snapshot_open(store_check(L)->handle, &snapshot);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  int results = push_records(L, snapshot);
  mmcmap_snapshot_close(snapshot);
  return results;
}

/* ---- Registration ------------------------------------------------------ */

static void store_new_type(lua_State *L, const char *name,
                           const luaL_Reg *methods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

/* close_nothing(): all that end something, of NULL. */
static int store_close_nothing(lua_State *L) {
  mmcmap_buffer_free(NULL);
  mmcmap_snapshot_close(NULL);
  mmcmap_cursor_close(NULL);
  mmcmap_diff_close(NULL);
  mmcmap_txn_abort(NULL);
  return probe_result(L, mmcmap_close(NULL));
}

static const luaL_Reg store_methods[] = {
    {"backup", store_backup},
    {"check", store_do_check},
    {"get_many", store_get_many},
    {"put", store_put},
    {"get", store_get},
    {"has", store_has},
    {"delete", store_delete},
    {"add", store_add},
    {"replace", store_replace},
    {"cas", store_cas},
    {"swap", store_swap},
    {"incr", store_incr},
    {"count", store_count},
    {"version", store_version},
    {"size", store_size},
    {"path", store_path},
    {"sync", store_sync},
    {"step", store_step},
    {"compact", store_compact},
    {"ttl", store_ttl},
    {"expire", store_expire},
    {"stat", store_stat},
    {"snapshot", store_snapshot},
    {"save", store_save},
    {"saved", store_saved},
    {"open_saved", store_open_saved},
    {"drop_saved", store_forget_saved},
    {"records", store_records},
    {"close", store_close},
    {"remove", store_remove},
    {"begin", probe_txn_begin},
    {"put_many", probe_txn_store_put_many},
    {"clear", probe_txn_store_clear},
    {"map", store_map},
    {"maps", store_maps},
    {"drop", store_drop},
    {"ended", store_ended},
    {"leave_open", probe_txn_leave_open},
    {"usage", probe_space_usage},
    {"clean", probe_space_clean},
    {"clean_ahead", probe_space_clean_ahead},
    {"ahead", probe_space_ahead},
    {"await", probe_space_await},
    {"pin", probe_space_pin},
    {"unpin", probe_space_unpin},
    {"from_thread", probe_txn_from_thread},
    {"__gc", store_close},
    {NULL, NULL},
};

static const luaL_Reg snapshot_methods[] = {
    {"get", snapshot_get},     {"get_many", snapshot_get_many},
    {"count", snapshot_count}, {"ttl", snapshot_ttl},
    {"dump", snapshot_dump},   {"version", snapshot_version},
    {"page", snapshot_page},   {"records", snapshot_records},
    {"map", snapshot_map},     {"maps", snapshot_maps},
    {"diff", snapshot_diff},   {"close", snapshot_close},
    {"hold", snapshot_hold},   {"let_go", snapshot_let_go},
    {"__gc", snapshot_close},  {NULL, NULL},
};

void probe_store_open(lua_State *L) {
  store_new_type(L, STORE_TYPE, store_methods);
  store_new_type(L, STORE_SNAPSHOT_TYPE, snapshot_methods);
  probe_txn_open(L);
  lua_pushcfunction(L, store_salvage);
  lua_setfield(L, -2, "salvage");
  lua_pushcfunction(L, store_close_nothing);
  lua_setfield(L, -2, "close_nothing");
  lua_pushcfunction(L, store_open);
  lua_setfield(L, -2, "open");
}
