/* SPDX-License-Identifier: MIT */
/*
 * A map of a store that has been asked for without options is found again in a table
 * with weak values, as long as somebody has it. Its iterators keep it alive, by its table,
 * and it keeps alive what it is of.
 */
#include "lua_maps.h"

#include "failure.h"
#include "iterator.h"
#include "lua_list.h"
#include "lua_many.h"
#include "lua_records.h"
#include "options.h"

#include <string.h>

#define MAP_TYPE "mmcmap.map"

enum { MAPS_NAME = 2, MAPS_OPTIONS = 3 }; /* the arguments of map() */

/* The address is the key of the metatable in Lua's registry. */
static char maps_key;

lua_store *lua_maps_at(lua_State *L, int index) {
  lua_store *map = compat_userdata_at(L, index, &maps_key);
  return map && !map->is_txn ? map : NULL;
}

/*** @submodule store */

static void maps_end(lua_store *map, const char *why) {
  children_end(&map->children, why);
  if (map->map_link) {
    *map->map_link = map->next_map;
    if (map->next_map) map->next_map->map_link = map->map_link;
    map->map_link = NULL;
  }
  mmcmap *handle = map->handle;
  map->handle = NULL;
  map->txn = NULL;
  map->ended_by = why;
  scratch_release(&map->scratch);
  (void)mmcmap_close(handle); /* not the last one of its store */
}

void lua_maps_end_all(lua_store *store, const char *why) {
  while (store->maps)
    maps_end(store->maps, why);
}

/* Pushes the table of the maps that there are of the store at index 1. */
static void maps_push_cache(lua_State *L) {
  compat_get_uservalue(L, 1);
  lua_rawgeti(L, -1, STORE_ENV_MAPS);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, STORE_ENV_MAPS);
  }
  lua_remove(L, -2);
}

bool lua_maps_read_codec(lua_State *L, int arg, bool has_codec) {
  switch (options_push_map_codec(L, arg)) {
    case OPTIONS_CODEC_NONE:
      has_codec = false;
      break;
    case OPTIONS_CODEC_OWN:
      lua_rawseti(L, -3, STORE_ENV_DECODE);
      lua_rawseti(L, -2, STORE_ENV_ENCODE);
      has_codec = true;
      break;
    default:
      break;
  }
  return has_codec;
}

/* Gives the map on top its table; whether it has a codec. */
static bool maps_set_env(lua_State *L, bool has_codec) {
  lua_createtable(L, STORE_ENV_NAME, 0);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, STORE_ENV_STORE);
  compat_get_uservalue(L, 1);
  for (int i = STORE_ENV_PATH; i <= STORE_ENV_DECODE; i++) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -3, i);
  }
  lua_rawseti(L, -2, STORE_ENV_OWNER);
  lua_pushvalue(L, MAPS_NAME);
  lua_rawseti(L, -2, STORE_ENV_NAME);
  has_codec = lua_maps_read_codec(L, MAPS_OPTIONS, has_codec);
  compat_set_uservalue(L, -2);
  return has_codec;
}

/* Pushes a map without a handle, with the options of map(). */
static lua_store *maps_new(lua_State *L, const lua_store *store) {
  lua_store *map = lua_newuserdata(L, sizeof *map);
  memset(map, 0, sizeof *map);
  map->is_txn = store->is_txn;
  lua_pushlightuserdata(L, &maps_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_setmetatable(L, -2);
  map->has_codec = maps_set_env(L, store->has_codec);
  return map;
}

static int maps_open(lua_State *L, lua_store *store, mmcmap_slice name,
                     lua_store *map) {
  int code = store->is_txn
                 ? mmcmap_txn_map(lua_store_txn(L, store), name, &map->txn)
                 : mmcmap_map(lua_store_handle(L, store), name, &map->handle);
  if (code < 0) return code;
  map->owner = store;
  map->next_map = store->maps;
  map->map_link = &store->maps;
  if (map->next_map) map->next_map->map_link = &map->next_map;
  store->maps = map;
  return code;
}

/***
A named map of the store: records of its own, beside those of the store itself.
It has the methods and operators of a store that deal with records: `get`, `put`,
`delete`, `has`, `add`, `replace`, `cas`, `swap`, `incr`, `ttl`, `expire`, `get_many`,
`put_many`, `pairs`, `keys`, `count`, `clear`. The first record that is put into it makes
it; until then it is empty. It lives as long as the store is open; a `<close>` does not
end it, since there is one object for all who ask for it. In `update`, the transaction has
the same method.

Values pass through the codec of the store, or through one of the map's own, which
belongs to this object: nothing of it is in the file.
@function map
@tparam string name of any bytes, up to 65,535
@tparam[opt] table options `codec`: an object as for `open`, or false: values are
strings, whatever the store has
@treturn[1] map
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local users = db:map("users")
users.alice = "admin"
print(db:map("users"):get("alice"), #users)
local pages = db:map("pages", { codec = require "cjson" })
pages.home = { title = "Home", links = { "news", "about" } }
*/
static int maps_map(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice name = lua_store_bytes(L, 2);
  lua_settop(L, MAPS_OPTIONS);
  /* A transaction knows its maps itself, and is short. */
  bool is_shared = !store->is_txn && lua_isnil(L, MAPS_OPTIONS);
  if (is_shared) {
    maps_push_cache(L);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    const lua_store *found = lua_touserdata(L, -1);
    if (found && found->handle) return 1;
    lua_pop(L, 1);
  }
  lua_store *map = maps_new(L, store);
  int code = maps_open(L, store, name, map);
  if (code < 0) return lua_store_fail(L, code);
  if (!is_shared) return 1;
  lua_pushvalue(L, 2);
  lua_pushvalue(L, -2);
  lua_rawset(L, MAPS_OPTIONS + 1);
  return 1;
}

/* ---- All of them --------------------------------------------------------- */

static int maps_walk(mmcmap_cursor *cursor, struct lua_list *list) {
  mmcmap_slice name, nothing;
  int code;
  while ((code = mmcmap_cursor_next(cursor, &name, &nothing)) == MMCMAP_OK)
    lua_list_add(list, NULL, name);
  mmcmap_cursor_close(cursor);
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

static void maps_push_name(lua_State *L, const void *item, mmcmap_slice name) {
  (void)item;
  lua_pushlstring(L, name.data, name.size);
}

int lua_maps_list(lua_State *L, lua_maps_open_names *open, void *self) {
  struct lua_list list = {.item_size = 0};
  do {
    mmcmap_snapshot *own;
    mmcmap_cursor *cursor;
    int code = open(L, self, &own, &cursor);
    if (code == MMCMAP_OK) code = maps_walk(cursor, &list);
    mmcmap_snapshot_close(own);
    if (code < 0) return lua_store_fail(L, code);
  } while (!lua_list_fits(L, &list));
  return lua_list_push(L, &list, maps_push_name);
}

/* Of a store, or a transaction. */
static int maps_open_names(lua_State *L, void *self, mmcmap_snapshot **own_out,
                           mmcmap_cursor **cursor_out) {
  const lua_store *store = self;
  *own_out = NULL;
  if (store->is_txn)
    return mmcmap_txn_maps(lua_store_txn(L, store), cursor_out);
  int code = mmcmap_snapshot_open(lua_store_handle(L, store), own_out);
  return code == MMCMAP_OK ? mmcmap_snapshot_maps(*own_out, cursor_out) : code;
}

/***
The names of all named maps, at one moment.
@function maps
@treturn[1] table an array of names, in no order
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
for _, name in ipairs(db:maps()) do print(name, #db:map(name)) end
*/
static int maps_maps(lua_State *L) {
  return lua_maps_list(L, maps_open_names, lua_store_check(L));
}

/***
Drops a named map with all its records, in constant time. Who has the map sees an
empty one, which can be put into again. Its space comes back when so much was dropped
that counting all records is worth it, or after the next opening.
@function drop
@tparam string name
@treturn[1] boolean true if it was there, else false
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage db:drop("users")
*/
static int maps_drop(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice name = lua_store_bytes(L, 2);
  int code = store->is_txn ? mmcmap_txn_drop(lua_store_txn(L, store), name)
                           : mmcmap_drop(lua_store_writer(L, store), name);
  return lua_store_done(L, code);
}

/* ---- Registration ------------------------------------------------------ */

const luaL_Reg lua_maps_methods[] = {
    {"map", maps_map}, {"maps", maps_maps}, {"drop", maps_drop}, {NULL, NULL}};

static int maps_tostring(lua_State *L) {
  lua_store *map = lua_store_check(L);
  if (!map->handle && !map->txn) {
    lua_pushliteral(L, MAP_TYPE " (closed)");
    return 1;
  }
  lua_pushfstring(L, MAP_TYPE " (%s: ", lua_store_path(L, 1));
  compat_get_uservalue(L, 1);
  lua_rawgeti(L, -1, STORE_ENV_NAME); /* may have zeros in it */
  lua_replace(L, -2);
  lua_pushliteral(L, ")");
  lua_concat(L, 3);
  return 1;
}

static int maps_gc(lua_State *L) {
  lua_store *map = lua_store_check(L);
  maps_end(map, NULL);
  mmcmap_buffer_free(&map->scratch.buffer);
  return 0;
}

int lua_maps_leave_scope(lua_State *L) {
  (void)lua_store_check(L);
  return 0;
}

void lua_maps_register(lua_State *L) {
  static const luaL_Reg metamethods[] = {
      {"__newindex", lua_records_newindex},
      {"__len", lua_many_len},
      {"__pairs", lua_many_pairs},
      {"__tostring", maps_tostring},
      {"__gc", maps_gc},
      {"__close", lua_maps_leave_scope},
      {NULL, NULL},
  };
  lua_pushlightuserdata(L, &maps_key);
  lua_createtable(L, 0, 8);
  int metatable = lua_gettop(L);
  lua_store_add(L, metamethods, metatable);
  lua_pushliteral(L, MAP_TYPE);
  lua_setfield(L, metatable, "__name");
  lua_pushvalue(L, metatable);
  lua_createtable(L, 0, 16);
  lua_store_add(L, lua_records_methods, metatable);
  lua_store_add(L, lua_many_methods, metatable);
  lua_pushcclosure(L, lua_records_index, 2);
  lua_setfield(L, metatable, "__index");
  lua_rawset(L, LUA_REGISTRYINDEX);
}
