/* SPDX-License-Identifier: MIT */
/*
 * What is saved is listed in two passes: the engine's report may not run anything
 * of Lua's, so it is copied into memory that was asked for before.
 */
#include "lua_saved.h"

#include "lua_snapshot.h"

#include <string.h>

/*** @submodule store */

static mmcmap_slice saved_name(lua_State *L) {
  mmcmap_slice name;
  name.data = luaL_checklstring(L, 2, &name.size);
  return name;
}

int lua_saved_save(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice name = saved_name(L);
  int code = mmcmap_snapshot_save(lua_store_writer(L, store), name);
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- All of them --------------------------------------------------------- */

/* Items one behind the other, each followed by its name, as far as there is
   room. */
struct saved_list {
  char *bytes;
  size_t capacity;
  size_t size; /* that it would take */
  size_t count;
};

static int saved_add(void *context, const mmcmap_saved *saved) {
  struct saved_list *list = context;
  size_t end = list->size + sizeof *saved + saved->name.size;
  if (end <= list->capacity) {
    memcpy(list->bytes + list->size, saved, sizeof *saved);
    if (saved->name.size > 0)
      memcpy(list->bytes + list->size + sizeof *saved, saved->name.data,
             saved->name.size);
  }
  list->size = end;
  list->count++;
  return MMCMAP_OK;
}

/* Pushes a table for the item at `at`; the offset of the next one. */
static size_t saved_push(lua_State *L, const struct saved_list *list,
                         size_t at) {
  mmcmap_saved saved;
  memcpy(&saved, list->bytes + at, sizeof saved);
  at += sizeof saved;
  lua_createtable(L, 0, 4);
  lua_pushlstring(L, list->bytes + at, saved.name.size);
  lua_setfield(L, -2, "name");
  lua_pushnumber(L, (lua_Number)saved.time_ms / 1000);
  lua_setfield(L, -2, "time");
  compat_push_u64(L, saved.version);
  lua_setfield(L, -2, "version");
  compat_push_u64(L, saved.count);
  lua_setfield(L, -2, "count");
  return at + saved.name.size;
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
  struct saved_list list = {NULL, 0, 0, 0};
  for (;;) {
    list.size = list.count = 0;
    int code = mmcmap_snapshots(lua_store_handle(L, store), saved_add, &list);
    if (code < 0) return lua_store_fail(L, code);
    if (list.size <= list.capacity) break;
    list.capacity = list.size + 1024; /* some may come meanwhile */
    list.bytes = lua_newuserdata(L, list.capacity);
  }
  lua_newtable(L);
  size_t at = 0;
  for (size_t i = 0; i < list.count; i++) {
    at = saved_push(L, &list, at);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
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
  mmcmap_slice name = saved_name(L);
  lua_settop(L, 2);
  lua_snapshot *snapshot = lua_snapshot_new(L, store);
  int code = mmcmap_snapshot_open_saved(lua_store_handle(L, store), name,
                                        &snapshot->snapshot);
  if (code < 0) return lua_store_fail(L, code);
  children_add(&store->children, &snapshot->child);
  return 1;
}

/***
Forgets a snapshot that is kept in the file; whoever has it open can read it on. Unless
others hold it, its space comes back after some more changes, by `compact`, or at the
latest after the next opening.
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
  mmcmap_slice name = saved_name(L);
  int code = mmcmap_snapshot_drop(lua_store_writer(L, store), name);
  if (code < 0 && code != MMCMAP_NOTFOUND) return lua_store_fail(L, code);
  lua_pushboolean(L, code == MMCMAP_OK);
  return 1;
}

const luaL_Reg lua_saved_methods[] = {{"snapshots", saved_list},
                                      {"open_snapshot", saved_open},
                                      {"drop_snapshot", saved_drop},
                                      {NULL, NULL}};
