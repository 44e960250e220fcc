/* SPDX-License-Identifier: MIT */
/*
 * Making and closing a store, what concerns the whole of it, and the tables
 * that make the userdata an object.
 */
#include "lua_store.h"

#include "failure.h"
#include "iterator.h"
#include "lua_diff.h"
#include "lua_maint.h"
#include "lua_many.h"
#include "lua_maps.h"
#include "lua_records.h"
#include "lua_saved.h"
#include "lua_txn.h"
#include "options.h"

#include <string.h>

#define STORE_TYPE "mmcmap"

/* To compare metatables is several times faster than luaL_checkudata(). */
lua_store *lua_store_check(lua_State *L) {
  lua_store *store = lua_touserdata(L, 1);
  if (store && lua_getmetatable(L, 1)) {
    bool same = lua_rawequal(L, -1, lua_upvalueindex(1));
    lua_pop(L, 1);
    if (same) return store;
  }
  const char *got = compat_typename(L, 1);
  lua_getfield(L, lua_upvalueindex(1), "__name");
  lua_pushfstring(L, "%s expected, got %s", lua_tostring(L, -1), got);
  luaL_argerror(L, 1, lua_tostring(L, -1));
  return NULL;
}

const char *lua_store_path(lua_State *L, int owner) {
  compat_get_uservalue(L, owner);
  lua_rawgeti(L, -1, STORE_ENV_PATH);
  lua_replace(L, -2);
  return lua_tostring(L, -1);
}

mmcmap *lua_store_handle(lua_State *L, const lua_store *store) {
  if (!store->handle && store->ended_by)
    luaL_error(L, "attempt to use a map: %s", store->ended_by);
  if (!store->handle) luaL_error(L, "attempt to use a closed store");
  return store->handle;
}

mmcmap *lua_store_writer(lua_State *L, const lua_store *store) {
  if (store->updating || (store->owner && store->owner->updating))
    luaL_error(L, "attempt to change a store inside its own update");
  return lua_store_handle(L, store);
}

mmcmap_txn *lua_store_txn(lua_State *L, const lua_store *store) {
  if (!store->txn) luaL_error(L, "attempt to use a transaction that has ended");
  return store->txn;
}

lua_store *lua_store_new(lua_State *L) {
  lua_store *store = lua_newuserdata(L, sizeof *store);
  memset(store, 0, sizeof *store);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_setmetatable(L, -2);
  lua_createtable(L, STORE_ENV_DECODE, 0);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, STORE_ENV_STORE);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, STORE_ENV_PATH);
  if (options_push_codec(L, 2)) {
    lua_rawseti(L, -3, STORE_ENV_DECODE);
    lua_rawseti(L, -2, STORE_ENV_ENCODE);
    store->has_codec = true;
  }
  compat_set_uservalue(L, -2);
  return store;
}

/* For messages: what was expected, and what there is. */
static const char *store_push_mismatch(lua_State *L, int index, bool is_value) {
  const char *got = compat_typename(L, index);
  bool has_type = is_value && !lua_isnoneornil(L, index);
  return lua_pushfstring(L, "string expected, got %s%s", got,
                         has_type ? ": other types need a codec" : "");
}

static mmcmap_slice store_check_bytes(lua_State *L, int arg, bool is_value) {
  mmcmap_slice bytes;
  bytes.data = lua_tolstring(L, arg, &bytes.size);
  if (!bytes.data) luaL_argerror(L, arg, store_push_mismatch(L, arg, is_value));
  return bytes;
}

mmcmap_slice lua_store_bytes(lua_State *L, int arg) {
  return store_check_bytes(L, arg, false);
}

mmcmap_slice lua_store_value(lua_State *L, int arg) {
  return store_check_bytes(L, arg, true);
}

mmcmap_slice lua_store_operand(lua_State *L, int index, bool is_value) {
  mmcmap_slice bytes;
  bytes.data = lua_tolstring(L, index, &bytes.size);
  if (!bytes.data)
    luaL_error(L, "bad %s (%s)", is_value ? "value" : "key",
               store_push_mismatch(L, index, is_value));
  return bytes;
}

int lua_store_fail(lua_State *L, int code) {
  return failure_return(L, lua_store_path(L, 1), code);
}

int lua_store_raise(lua_State *L, int code) {
  return failure_raise(L, lua_store_path(L, 1), code);
}

int lua_store_done(lua_State *L, int code) {
  if (code < 0 && code != MMCMAP_NOTFOUND && code != MMCMAP_MISMATCH)
    return lua_store_fail(L, code);
  lua_pushboolean(L, code == MMCMAP_OK);
  return 1;
}

/* ---- The whole store --------------------------------------------------- */

/*** @submodule store */

/* Pushes the figure that `read` finds. */
static int store_figure(lua_State *L, int (*read)(mmcmap *, uint64_t *)) {
  lua_store *store = lua_store_check(L);
  uint64_t figure;
  int code = read(lua_store_handle(L, store), &figure);
  if (code < 0) return lua_store_fail(L, code);
  compat_push_u64(L, figure);
  return 1;
}

/***
Bytes of the file.
@function size
@treturn[1] number
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage print(db:size() / 1024 .. " KiB")
*/
static int store_size(lua_State *L) { return store_figure(L, mmcmap_size); }

/***
A number that changes with the content: as long as it is the same, so is the
content, across closing and opening too, but for what expires: that changes the
number when it is swept.
@function version
@treturn[1] number
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
if db:version() ~= seen then
  seen = db:version()
  redraw()
end
*/
static int store_version(lua_State *L) {
  return store_figure(L, mmcmap_version);
}

/***
Returns when all that was put or deleted before, by any process, is on disk. A
read-only store commits nothing.
@function sync
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
db:put("score", 1000)
assert(db:sync())
*/
static int store_sync(lua_State *L) {
  lua_store *store = lua_store_check(L);
  int code = mmcmap_sync(lua_store_writer(L, store));
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

/***
Does what upkeep there is to do: for hosts that want no thread of the library,
with the durability `"manual"`, once per frame or timer. Deletes some of what has
expired, commits if something has changed since the last commit, and makes space usable
again until the time is over, or there is nothing more to do. The syncs that this needs,
mostly one, are not bounded.
@function step
@tparam number seconds how long it may work; 0 does nothing
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
function love.update() assert(db:step(0.001)) end
*/
static int store_step(lua_State *L) {
  lua_store *store = lua_store_check(L);
  lua_Number seconds = luaL_checknumber(L, 2);
  luaL_argcheck(L, seconds >= 0 && seconds <= 1e9, 2, "seconds out of range");
  int code = mmcmap_step(lua_store_writer(L, store), (uint64_t)(seconds * 1e9));
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

/* The figures of mmcmap_stat that are plain numbers, by their names. */
#define FIGURE(name) \
  { #name, offsetof(mmcmap_stat, name) }
static const struct store_stat_field {
  const char *name;
  size_t offset;
} store_stat_fields[] = {
    FIGURE(count),
    FIGURE(size_bytes),
    FIGURE(used_bytes),
    FIGURE(log_bytes),
    FIGURE(large_bytes),
    FIGURE(recycled_bytes),
    FIGURE(segment_bytes),
    FIGURE(segment_count),
    FIGURE(epoch),
    FIGURE(durable_epoch),
    FIGURE(version),
    FIGURE(superblock_epoch),
    FIGURE(commit_count),
    FIGURE(sync_count),
    FIGURE(snapshot_count),
    FIGURE(process_count),
    FIGURE(reader_count),
    FIGURE(max_size_bytes),
    FIGURE(recovered_commits),
    FIGURE(address_bytes),
    FIGURE(live_bytes),
    FIGURE(live_segments),
    FIGURE(held_segments),
    FIGURE(uncounted_segments),
    FIGURE(waiting_for_pins),
    FIGURE(waiting_for_snapshots),
    FIGURE(waiting_for_commit),
    FIGURE(free_segments),
    FIGURE(hole_segments),
    FIGURE(reserve_bytes),
    FIGURE(moved_bytes),
    FIGURE(cleaned_segments),
};

/***
A table of figures. They are `count`, `size_bytes`, `used_bytes`, `log_bytes`,
`large_bytes`, `recycled_bytes`, `segment_bytes`, `segment_count`, `epoch`,
`durable_epoch`, `superblock_epoch`, `version`, `commit_count`, `sync_count`,
`snapshot_count`, `process_count`, `reader_count`, `recovered_commits`,
`max_size_bytes`, `address_bytes`, `live_bytes`, `live_segments`, `held_segments`,
`uncounted_segments`, `waiting_for_pins`, `waiting_for_snapshots`,
`waiting_for_commit`, `free_segments`, `hole_segments`, `reserve_bytes`,
`moved_bytes`, `cleaned_segments` (numbers), `hash`, `durability` (strings),
`readonly`, `was_clean` (booleans). `mmcmap.h` says what each means.
@function stat
@treturn[1] table
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
for name, figure in pairs(db:stat()) do print(name, figure) end
*/
static int store_stat(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_stat stat;
  int code = mmcmap_stat_get(lua_store_handle(L, store), &stat);
  if (code < 0) return lua_store_fail(L, code);
  size_t count = sizeof store_stat_fields / sizeof store_stat_fields[0];
  lua_createtable(L, 0, (int)count + 4);
  for (size_t i = 0; i < count; i++) {
    const void *field = (const char *)&stat + store_stat_fields[i].offset;
    compat_push_u64(L, *(const uint64_t *)field);
    lua_setfield(L, -2, store_stat_fields[i].name);
  }
  lua_pushstring(L, options_hash_name(stat.hash));
  lua_setfield(L, -2, "hash");
  lua_pushstring(L, options_durability_name(stat.durability));
  lua_setfield(L, -2, "durability");
  lua_pushboolean(L, stat.readonly);
  lua_setfield(L, -2, "readonly");
  lua_pushboolean(L, stat.was_clean);
  lua_setfield(L, -2, "was_clean");
  return 1;
}

/* What the engine reports, as far as there is room for it. */
struct reader_list {
  mmcmap_reader *items;
  size_t capacity;
  size_t count;
};

static void add_reader(void *context, const mmcmap_reader *reader) {
  struct reader_list *list = context;
  if (list->count < list->capacity) list->items[list->count] = *reader;
  list->count++;
}

static void push_reader(lua_State *L, const mmcmap_reader *reader) {
  lua_createtable(L, 0, 7);
  lua_pushstring(L, reader->is_snapshot ? "snapshot" : "process");
  lua_setfield(L, -2, "kind");
  lua_pushboolean(L, reader->is_ours);
  lua_setfield(L, -2, "ours");
  lua_pushinteger(L, (lua_Integer)reader->process);
  lua_setfield(L, -2, "process");
  lua_pushnumber(L, (lua_Number)reader->age_ns / 1e9);
  lua_setfield(L, -2, "age");
  if (reader->is_snapshot) {
    lua_pushinteger(L, (lua_Integer)reader->thread);
    lua_setfield(L, -2, "thread");
    compat_push_u64(L, reader->version);
    lua_setfield(L, -2, "version");
    compat_push_u64(L, reader->held_bytes);
    lua_setfield(L, -2, "held_bytes");
  } else {
    lua_pushinteger(L, (lua_Integer)reader->thread_count);
    lua_setfield(L, -2, "thread_count");
    lua_pushinteger(L, (lua_Integer)reader->pinned_count);
    lua_setfield(L, -2, "pinned_count");
  }
}

/***
Who uses the store now: an array with a table for each process that has it open,
and after it one for each snapshot of its own (iterators hold one, too). All have
`kind` (`"process"` or `"snapshot"`), `process` (its number, as it sees it
itself), `ours` (of this store in this process) and `age` in seconds. Processes
have `thread_count`, threads that have used the store, and `pinned_count`, those
of them that are in a call; snapshots have `thread`, `version` (that of the snapshot, or
higher if the cleaner has only moved something since), and `held_bytes`, what has been
appended to the log since it was opened.
@function readers
@treturn[1] table an array of tables
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
for _, reader in ipairs(db:readers()) do
  print(reader.kind, reader.process, reader.age)
end
*/
static int store_readers(lua_State *L) {
  lua_store *store = lua_store_check(L);
  struct reader_list list = {NULL, 0, 0};
  /* Room first, which may run a finalizer; then the report, which may have become
     longer, and may not run anything of Lua's. */
  int code = mmcmap_readers(lua_store_handle(L, store), add_reader, &list);
  if (code < 0) return lua_store_fail(L, code);
  list.capacity = list.count + 64;
  list.items = lua_newuserdata(L, list.capacity * sizeof *list.items);
  list.count = 0;
  code = mmcmap_readers(lua_store_handle(L, store), add_reader, &list);
  if (code < 0) return lua_store_fail(L, code);
  lua_newtable(L);
  for (size_t i = 0; i < list.count && i < list.capacity; i++) {
    push_reader(L, &list.items[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int store_tostring(lua_State *L) {
  lua_store *store = lua_store_check(L);
  lua_pushfstring(L, STORE_TYPE " (%s)",
                  store->handle ? lua_store_path(L, 1) : "closed");
  return 1;
}

/* ---- The end ----------------------------------------------------------- */

/* Closes the handle and all that reads from it. Does not touch Lua. */
static int store_end(lua_store *store) {
  mmcmap *handle = store->handle;
  lua_txn_abort(store);
  lua_maps_end_all(store, CHILDREN_STORE_CLOSED);
  children_end(&store->children, CHILDREN_STORE_CLOSED);
  store->handle = NULL;
  scratch_release(&store->scratch);
  return mmcmap_close(handle);
}

static void store_check_idle(lua_State *L, const lua_store *store) {
  if (store->calls > 0)
    luaL_error(L, "attempt to close a store from within a call of it");
}

/* Closes the store. If that fails, pushes nil, message, code. */
static int store_end_or_push(lua_State *L, lua_store *store) {
  store_check_idle(L, store);
  if (store->handle) (void)lua_store_writer(L, store);
  int code = store->handle ? store_end(store) : MMCMAP_OK;
  if (code < 0) lua_store_fail(L, code);
  return code;
}

/***
Closes the store: writes to disk what is not there yet, and ends its snapshots
and iterators.
A closed store may be closed again. The store is closed even if this fails,
which means that the last changes may not be on disk; with EBUSY, that others, who
have it open, were in the way of their commit for as long as `timeout` says. A store
is also closed at the end of the scope of a `local db <close>`, which raises if that
fails, and when it is collected.
@function close
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage assert(db:close())
*/
static int store_close(lua_State *L) {
  if (store_end_or_push(L, lua_store_check(L)) < 0) return 3;
  lua_pushboolean(L, 1);
  return 1;
}

/* An error that is already under way is worth more than ours. */
static int store_close_scope(lua_State *L) {
  lua_settop(L, 2);
  if (store_end_or_push(L, lua_store_check(L)) < 0 && lua_isnil(L, 2))
    return luaL_error(L, "%s", lua_tostring(L, -2));
  return 0;
}

static int store_gc(lua_State *L) {
  lua_store *store = lua_store_check(L);
  store_check_idle(L, store); /* it was called by hand */
  if (store->handle) (void)store_end(store);
  scratch_free(&store->scratch);
  return 0;
}

/***
Closes the store and deletes its file and its lock file. Fails with `"EBUSY"` if
the file is open elsewhere too, in this process or another. If it fails the store stays
open, but its snapshots, maps and iterators have ended before: ask for them again.
@function remove
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage assert(db:remove())
*/
static int store_remove(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap *handle = lua_store_writer(L, store);
  store_check_idle(L, store);
  lua_maps_end_all(store, CHILDREN_STORE_REMOVED);
  children_end(&store->children, CHILDREN_STORE_REMOVED);
  int code = mmcmap_remove(handle);
  if (code < 0) return lua_store_fail(L, code); /* the handle lives on */
  store->handle = NULL;
  scratch_release(&store->scratch);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- Registration ------------------------------------------------------ */

static const luaL_Reg store_methods[] = {
    {"size", store_size},         {"sync", store_sync},
    {"step", store_step},         {"close", store_close},
    {"remove", store_remove},     {"version", store_version},
    {"stat", store_stat},         {"readers", store_readers},
    {"diff", lua_diff_open},      {"check", lua_maint_check},
    {"backup", lua_maint_backup}, {"compact", lua_maint_compact},
    {"update", lua_txn_update},   {NULL, NULL},
};

static const luaL_Reg store_metamethods[] = {
    {"__newindex", lua_records_newindex},
    {"__len", lua_many_len},
    {"__pairs", lua_many_pairs},
    {"__tostring", store_tostring},
    {"__gc", store_gc},
    {"__close", store_close_scope},
    {NULL, NULL},
};

void lua_store_add(lua_State *L, const luaL_Reg *functions, int metatable) {
  for (; functions->name; functions++) {
    lua_pushvalue(L, metatable);
    lua_pushcclosure(L, functions->func, 1);
    lua_setfield(L, -2, functions->name);
  }
}

void lua_store_register(lua_State *L) {
  lua_txn_register(L);
  lua_maps_register(L);
  lua_createtable(L, 0, 8);
  int metatable = lua_gettop(L);
  lua_store_add(L, store_metamethods, metatable);
  lua_pushliteral(L, STORE_TYPE);
  lua_setfield(L, metatable, "__name");
  lua_pushvalue(L, metatable);
  lua_createtable(L, 0, 32);
  lua_store_add(L, store_methods, metatable);
  lua_store_add(L, lua_records_methods, metatable);
  lua_store_add(L, lua_many_methods, metatable);
  lua_store_add(L, lua_maps_methods, metatable);
  lua_store_add(L, lua_saved_methods, metatable);
  lua_pushcclosure(L, lua_records_index, 2);
  lua_setfield(L, metatable, "__index");
}
