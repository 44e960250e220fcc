/* SPDX-License-Identifier: MIT */
#include "lua_saved.h"

#include "lua_list.h"
#include "lua_snapshot.h"

#include <string.h>

/*** @submodule store */

static int saved_save(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice name = lua_store_bytes(L, 2);
  return lua_store_done(L,
                        mmcmap_snapshot_save(lua_store_writer(L, store), name));
}

/***
The store as it is now, to be read as long as it is kept: a moment, without a
copy. Cheap enough to take one per request. It keeps the space of what it sees
from being used again, so close it, or leave that to `<close>`, the collector, or
`view`. Closing the store closes it.

With a name the moment is kept in the file, until `drop_snapshot`, whoever closes the
store or dies: all of it, named maps included. Then the result is true, and
`open_snapshot` gives it. Whatever was there at any time between the oldest and the newest
of several stays in the file, too. Fails with `"EEXIST"` if there is one of that name.
@function snapshot
@tparam[opt] string name of any bytes, up to 65,535
@treturn[1] snapshot (with a name: true)
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local snap = assert(db:snapshot())
db:put("hello", "moon")
print(snap:get("hello"), #snap)   -- as it was
snap:close()
assert(db:snapshot("monday"))     -- kept
*/
static int saved_snapshot(lua_State *L) {
  return lua_isnoneornil(L, 2) ? lua_snapshot_open(L) : saved_save(L);
}

/***
Calls a function with a snapshot, and closes that when it returns or raises.
@function view
@tparam function f is called with the snapshot
@return[1] what `f` returns, true if that is nothing; its error is raised again
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local from, to = db:view(function(snap)   -- both at one moment
  return snap:get("account 1"), snap:get("account 2")
end)
*/

/* ---- All of them --------------------------------------------------------- */

static int saved_add(void *context, const mmcmap_saved *saved) {
  lua_list_add(context, saved, saved->name);
  return MMCMAP_OK;
}

static void saved_push(lua_State *L, const void *item, mmcmap_slice name) {
  mmcmap_saved saved;
  memcpy(&saved, item, sizeof saved);
  lua_createtable(L, 0, 4);
  lua_pushlstring(L, name.data, name.size);
  lua_setfield(L, -2, "name");
  lua_pushnumber(L, (lua_Number)saved.time_ms / 1000);
  lua_setfield(L, -2, "time");
  compat_push_u64(L, saved.version);
  lua_setfield(L, -2, "version");
  compat_push_u64(L, saved.count);
  lua_setfield(L, -2, "count");
}

/***
The snapshots that are kept in the file: an array of tables with `name`, `time` (when
it was saved, in seconds as of `os.time`), `version` (as `snapshot:version`) and
`count` (of the store's own records), in no order.
@function snapshots
@treturn[1] table
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
for _, saved in ipairs(db:snapshots()) do
  print(saved.name, os.date("%c", math.floor(saved.time)), saved.count)
end
*/
static int saved_list(lua_State *L) {
  lua_store *store = lua_store_check(L);
  struct lua_list list = {.item_size = sizeof(mmcmap_saved)};
  do {
    int code = mmcmap_snapshots(lua_store_handle(L, store), saved_add, &list);
    if (code < 0) return lua_store_fail(L, code);
  } while (!lua_list_fits(L, &list));
  return lua_list_push(L, &list, saved_push);
}

/* ---- One of them --------------------------------------------------------- */

/***
Opens a snapshot that is kept in the file, to be read like one that `snapshot` gives.
It stays as it is if it is dropped meanwhile. Fails with `"ENOENT"` if there is none
of that name.
@function open_snapshot
@tparam string name
@treturn[1] snapshot
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local monday = assert(db:open_snapshot("monday"))
for key, old, new in db:diff(monday, db:snapshot()) do print(key, old, new) end
monday:close()
*/
static int saved_open(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice name = lua_store_bytes(L, 2);
  lua_settop(L, 2);
  lua_snapshot *snapshot = lua_snapshot_new(L, store);
  int code = mmcmap_open_snapshot(lua_store_handle(L, store), name,
                                  &snapshot->snapshot);
  if (code < 0) return lua_store_fail(L, code);
  children_add(&store->children, &snapshot->child);
  return 1;
}

/***
Forgets a snapshot that is kept in the file; whoever has it open can read it on. Unless
others hold it, its space comes back in the background, when all records have been
counted.
@function drop_snapshot
@tparam string name
@treturn[1] boolean true if it was there, else false
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage db:drop_snapshot("monday")
*/
static int saved_drop(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice name = lua_store_bytes(L, 2);
  int code = mmcmap_drop_snapshot(lua_store_writer(L, store), name);
  return lua_store_done(L, code);
}

const luaL_Reg lua_saved_methods[] = {{"snapshot", saved_snapshot},
                                      {"snapshots", saved_list},
                                      {"open_snapshot", saved_open},
                                      {"drop_snapshot", saved_drop},
                                      {NULL, NULL}};
