/* SPDX-License-Identifier: MIT */
/*
 * Reading a store at one moment. A snapshot is a child of its store if and only
 * if it is open.
 */
#include "lua_snapshot.h"

#include "failure.h"
#include "iterator.h"
#include "lua_many.h"
#include "lua_maps.h"
#include "lua_records.h"

#include <string.h>

#define SNAPSHOT_TYPE "mmcmap.snapshot"

/* The address is the key of the metatable in Lua's registry. */
static char snapshot_key;

/* ---- The object ---------------------------------------------------------- */

static void snapshot_end(lua_snapshot *snapshot, const char *why) {
  if (!snapshot->snapshot) return;
  children_remove(&snapshot->child);
  children_end(&snapshot->children, why);
  mmcmap_snapshot_close(snapshot->snapshot);
  snapshot->snapshot = NULL;
  snapshot->ended_by = why;
}

static void snapshot_orphan(struct lua_child *child, const char *why) {
  snapshot_end((lua_snapshot *)child, why);
}

static int snapshot_raise_type(lua_State *L, int index) {
  lua_pushfstring(L, SNAPSHOT_TYPE " expected, got %s",
                  compat_typename(L, index));
  return luaL_argerror(L, index, lua_tostring(L, -1));
}

/* NULL if there is something else. */
static lua_snapshot *snapshot_at(lua_State *L, int index) {
  return compat_userdata_at(L, index, &snapshot_key);
}

lua_snapshot *lua_snapshot_check(lua_State *L, int index) {
  lua_snapshot *snapshot = snapshot_at(L, index);
  if (!snapshot) snapshot_raise_type(L, index);
  return snapshot;
}

/* The same for index 1. The first upvalue of each function below is the
   metatable, which is faster. */
static lua_snapshot *snapshot_self(lua_State *L) {
  lua_snapshot *snapshot = lua_touserdata(L, 1);
  if (snapshot && lua_getmetatable(L, 1)) {
    bool same = lua_rawequal(L, -1, lua_upvalueindex(1));
    lua_pop(L, 1);
    if (same) return snapshot;
  }
  snapshot_raise_type(L, 1);
  return NULL;
}

mmcmap_snapshot *lua_snapshot_handle(lua_State *L,
                                     const lua_snapshot *snapshot) {
  if (!snapshot->snapshot && snapshot->ended_by)
    luaL_error(L, "attempt to use a snapshot: %s", snapshot->ended_by);
  if (!snapshot->snapshot) luaL_error(L, "attempt to use a closed snapshot");
  return snapshot->snapshot;
}

lua_snapshot *lua_snapshot_new(lua_State *L, lua_store *store) {
  lua_snapshot *snapshot = lua_newuserdata(L, sizeof *snapshot);
  memset(snapshot, 0, sizeof *snapshot);
  snapshot->child.orphan = snapshot_orphan;
  snapshot->store = store;
  snapshot->has_codec = store->has_codec;
  lua_pushlightuserdata(L, &snapshot_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_setmetatable(L, -2);
  compat_get_uservalue(L, 1);
  compat_set_uservalue(L, -2);
  return snapshot;
}

int lua_snapshot_open(lua_State *L) {
  lua_store *store = lua_store_check(L);
  lua_settop(L, 1);
  lua_snapshot *snapshot = lua_snapshot_new(L, store);
  int code =
      mmcmap_snapshot_open(lua_store_handle(L, store), &snapshot->snapshot);
  if (code < 0) return lua_store_fail(L, code);
  children_add(&store->children, &snapshot->child);
  return 1;
}

/***
A store as it was when `snapshot` or `view` was called, or, opened by `open_snapshot`,
when it was saved; or one of its maps. It has the reading methods of a store, and its
operators: `snap.key`, `#snap`, `pairs(snap)`. In a child after `fork()` they fail with
`"EFORK"`, and when it has been open for longer than `max_snapshot_age` with
`"EEXPIRED"`.
@classmod snapshot
*/

/* ---- Records ------------------------------------------------------------- */

/* Pushes the value if the key is there. */
static int snapshot_lookup(lua_State *L, lua_snapshot *snapshot,
                           mmcmap_slice key) {
  struct scratch *scratch = scratch_take(L, &snapshot->store->scratch);
  int code = mmcmap_snapshot_read(lua_snapshot_handle(L, snapshot), key,
                                  &scratch->buffer);
  if (code == MMCMAP_OK) {
    scratch_push(L, scratch);
    if (snapshot->has_codec) lua_records_decode(L, 1);
  }
  return code;
}

/***
The value of a key at that moment.
@function get
@tparam string key
@param[opt] default what to return if the key was absent
@return[1] the value, or `default`
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage print(snap:get("hello"), snap:get("nobody", 0))
*/
static int snapshot_get(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  lua_settop(L, 3);
  int code = snapshot_lookup(L, snapshot, key);
  if (code == MMCMAP_NOTFOUND)
    lua_settop(L, 3);
  else if (code < 0)
    return lua_store_fail(L, code);
  return 1;
}

/***
Tells whether a key was there.
@function has
@tparam string key
@treturn[1] boolean
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage if snap:has("hello") then print "hello" end
*/
static int snapshot_has(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  mmcmap_slice key = lua_store_bytes(L, 2), value;
  int code = mmcmap_snapshot_get(lua_snapshot_handle(L, snapshot), key, &value);
  return lua_store_done(L, code);
}

/***
Seconds that a record had left at that moment; nil if the key was absent, or if it
did not expire. A snapshot's clock stands still: what was there stays.
@function ttl
@tparam string key
@treturn[1] number
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage print(snap:ttl("session 7"))
*/
static int snapshot_ttl(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  uint64_t ttl_ms;
  int code =
      mmcmap_snapshot_ttl(lua_snapshot_handle(L, snapshot), key, &ttl_ms);
  if (code < 0 && code != MMCMAP_NOTFOUND) return lua_store_fail(L, code);
  lua_records_push_ttl(L, ttl_ms);
  return 1;
}

static int snapshot_read_many(lua_State *L, void *self,
                              const mmcmap_slice *keys, size_t count,
                              mmcmap_visit visit, void *context) {
  mmcmap_snapshot *snapshot = lua_snapshot_handle(L, self);
  return mmcmap_snapshot_get_many(snapshot, keys, count, visit, context);
}

/***
The values of several keys with one call, like `store:get_many`, all of the one
moment.
@function get_many
@tparam {string,...} keys an array
@treturn[1] table `{[key] = value, ...}`
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
for key, value in pairs(snap:get_many { "from", "to" }) do print(key, value) end
*/
static int snapshot_get_many(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  struct lua_many_source source = {snapshot->store, snapshot->has_codec,
                                   snapshot_read_many, snapshot};
  return lua_many_get(L, &source);
}

/***
`snap.key` and `snap[key]`: the method of that name, else the value that the key
had, else nil. For keys that may have a method's name use `get`.
@function __index
@usage print(snap.hello)
*/
static int snapshot_index(lua_State *L) {
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(2));
  if (!lua_isnil(L, -1)) return 1;
  lua_snapshot *snapshot = snapshot_self(L);
  mmcmap_slice key = lua_store_operand(L, 2, false);
  int code = snapshot_lookup(L, snapshot, key);
  if (code == MMCMAP_NOTFOUND)
    lua_pushnil(L);
  else if (code < 0)
    return lua_store_raise(L, code);
  return 1;
}

static int snapshot_newindex(lua_State *L) {
  (void)snapshot_self(L);
  return luaL_error(L, "attempt to change a snapshot");
}

/* ---- The whole ----------------------------------------------------------- */

/***
The number of records at that moment, with those that had expired and were not swept yet.
The same as `#snap`.
@function count
@treturn number
@usage print(snap:count(), #snap)
*/
static int snapshot_count(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  compat_push_u64(L, mmcmap_snapshot_count(lua_snapshot_handle(L, snapshot)));
  return 1;
}

/***
What `db:version()` was at that moment: of two snapshots of a store with the same
version the content is the same.
@function version
@treturn number
@usage if snap:version() == db:version() then print "nothing has changed" end
*/
static int snapshot_version(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  compat_push_u64(L, mmcmap_snapshot_version(lua_snapshot_handle(L, snapshot)));
  return 1;
}

/***
Iterates over keys and values, in no order, like `store:pairs`. Closing the
snapshot ends the loop with an error.
@function pairs
@treturn function `iterator.next`
@treturn iterator
@usage for key, value in snap:pairs() do print(key, value) end
*/
static int snapshot_pairs(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  return iterator_open(L, snapshot->store, snapshot, false);
}

/***
Iterates over the keys only.
@function keys
@treturn function `iterator.next`
@treturn iterator
@usage for key in snap:keys() do print(key) end
*/
static int snapshot_keys(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  return iterator_open(L, snapshot->store, snapshot, true);
}

/* ---- Maps ---------------------------------------------------------------- */

/* Gives the map on top a table that keeps the snapshot at index 1 alive; whether it has
   a codec. */
static bool snapshot_set_parent(lua_State *L, bool has_codec) {
  lua_createtable(L, STORE_ENV_PARENT, 0);
  compat_get_uservalue(L, 1);
  for (int i = STORE_ENV_STORE; i < STORE_ENV_PARENT; i++) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -3, i);
  }
  lua_pop(L, 1);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, STORE_ENV_PARENT);
  has_codec = lua_maps_read_codec(L, 3, has_codec);
  compat_set_uservalue(L, -2);
  return has_codec;
}

/***
A named map at that moment: a snapshot of that map. A map that was not there is
empty. It is closed with the snapshot.
@function map
@tparam string name
@tparam[opt] table options `codec`, as for `store:map`
@treturn[1] snapshot
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage print(snap:map("users").alice)
*/
static int snapshot_map(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  mmcmap_slice name = lua_store_bytes(L, 2);
  lua_settop(L, 3);
  lua_snapshot *map = lua_snapshot_new(L, snapshot->store);
  map->has_codec = snapshot_set_parent(L, snapshot->has_codec);
  int code = mmcmap_snapshot_map(lua_snapshot_handle(L, snapshot), name,
                                 &map->snapshot);
  if (code < 0) return lua_store_fail(L, code);
  children_add(&snapshot->children, &map->child);
  return 1;
}

static int snapshot_open_names(lua_State *L, void *self,
                               mmcmap_snapshot **own_out,
                               mmcmap_cursor **cursor_out) {
  *own_out = NULL;
  return mmcmap_snapshot_maps(lua_snapshot_handle(L, self), cursor_out);
}

/***
The names of all named maps at that moment.
@function maps
@treturn[1] table an array of names, in no order
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage for _, name in ipairs(snap:maps()) do print(name, #snap:map(name)) end
*/
static int snapshot_maps(lua_State *L) {
  return lua_maps_list(L, snapshot_open_names, snapshot_self(L));
}

/***
Lets go of the moment, and ends its iterators and maps. A closed snapshot may be
closed again.
@function close
@usage snap:close()
*/
static int snapshot_close(lua_State *L) {
  snapshot_end(snapshot_self(L), NULL);
  return 0;
}

static int snapshot_tostring(lua_State *L) {
  lua_snapshot *snapshot = snapshot_self(L);
  lua_pushfstring(L, SNAPSHOT_TYPE " (%s)",
                  snapshot->snapshot ? lua_store_path(L, 1) : "closed");
  return 1;
}

/* A store, or a map of it, is dumped as it is now. */
int lua_snapshot_dump(lua_State *L) {
  const lua_snapshot *snapshot = snapshot_at(L, 1);
  lua_store *store = snapshot ? snapshot->store : lua_maps_at(L, 1);
  if (!store) store = lua_store_check(L);
  struct scratch *scratch = scratch_take(L, &store->scratch);
  mmcmap_snapshot *own = NULL;
  int code = MMCMAP_OK;
  if (!snapshot) code = mmcmap_snapshot_open(lua_store_handle(L, store), &own);
  if (code == MMCMAP_OK)
    code = mmcmap_snapshot_dump(own ? own : lua_snapshot_handle(L, snapshot),
                                &scratch->buffer);
  mmcmap_snapshot_close(own);
  if (code < 0) return lua_store_fail(L, code);
  scratch_push(L, scratch);
  return 1;
}

/* ---- Registration -------------------------------------------------------- */

static const luaL_Reg snapshot_methods[] = {
    {"get", snapshot_get},           {"has", snapshot_has},
    {"ttl", snapshot_ttl},           {"pairs", snapshot_pairs},
    {"keys", snapshot_keys},         {"count", snapshot_count},
    {"version", snapshot_version},   {"close", snapshot_close},
    {"get_many", snapshot_get_many}, {"map", snapshot_map},
    {"maps", snapshot_maps},         {NULL, NULL},
};

static const luaL_Reg snapshot_metamethods[] = {
    {"__newindex", snapshot_newindex},
    {"__len", snapshot_count},
    {"__pairs", snapshot_pairs},
    {"__tostring", snapshot_tostring},
    {"__gc", snapshot_close},
    {"__close", snapshot_close},
    {NULL, NULL},
};

void lua_snapshot_register(lua_State *L) {
  lua_pushlightuserdata(L, &snapshot_key);
  lua_createtable(L, 0, 8);
  int metatable = lua_gettop(L);
  lua_store_add(L, snapshot_metamethods, metatable);
  lua_pushliteral(L, SNAPSHOT_TYPE);
  lua_setfield(L, metatable, "__name");
  lua_pushvalue(L, metatable);
  lua_createtable(L, 0, 8);
  lua_store_add(L, snapshot_methods, metatable);
  lua_pushcclosure(L, snapshot_index, 2);
  lua_setfield(L, metatable, "__index");
  lua_rawset(L, LUA_REGISTRYINDEX);
}
