/* SPDX-License-Identifier: MIT */
/*
 * The C module "mmcmap.core". `require "mmcmap"` is what programs use; it is
 * lua/mmcmap.lua, which adds nothing but names. This is the only symbol that
 * Lua needs of the shared object.
 */
#include "compat.h"
#include "failure.h"
#include "iterator.h"
#include "lua_diff.h"
#include "lua_maint.h"
#include "lua_snapshot.h"
#include "lua_store.h"
#include "mmcmap.h"
#include "options.h"
#include "scratch.h"

#include <string.h>

/***
An embedded key-value store: one memory-mapped file that holds a hash array
mapped trie.
@module mmcmap
@usage
local mmcmap = require "mmcmap"
local db = assert(mmcmap.open("game.mmc"))
db:put("hello", "world")
print(db:get("hello"), #db)
db:close()
*/

/***
MurmurHash3 (x86, 32 bits) of a string.
@function murmur3
@tparam string data
@tparam[opt=0] number seed an integer from 0 to 2^32 - 1
@treturn number an integer from 0 to 2^32 - 1
@usage print(mmcmap.murmur3("hello"))  -- 613153351
*/
static int module_murmur3(lua_State *L) {
  mmcmap_slice data;
  data.data = luaL_checklstring(L, 1, &data.size);
  lua_Number seed = luaL_optnumber(L, 2, 0);
  luaL_argcheck(
      L, seed >= 0 && seed <= UINT32_MAX && seed == (lua_Number)(uint32_t)seed,
      2, "integer from 0 to 2^32 - 1 expected");
  compat_push_u64(L, mmcmap_murmur3(data, (uint32_t)seed));
  return 1;
}

/***
Opens the store in a file, which is made if it is not there. The same file
opened twice in one process is one store, and other processes may have it open,
too. Beside the file there is its lock file, with `-lock` behind the name, which
they share. In a child after `fork()` the store may be used: its first call opens
the file anew. An option that does not exist raises.
@function open
@tparam string path
@tparam[opt] table options
@tparam[opt="async"] string options.durability a change is on disk: `"async"` within
`flush_interval`, `"sync"` when put returns, `"manual"` at `sync`, `step` and `close`
@tparam[opt=0.1] number options.flush_interval seconds
@tparam[opt=false] boolean options.readonly never write to the file
@tparam[opt=true] boolean options.create make the file if it is not there
@tparam[opt=false] boolean options.exclusive fail if the file is there
@tparam[opt=384] number options.mode the permission bits of a new file (octal 600)
@tparam[opt=0] number options.max_size bytes that the file may have, at least 131072;
where cleaning finds no room within it, `put` fails with `"EFULL"`. 0: no limit
@tparam[opt=5] number options.timeout seconds to wait for somebody else who writes, opens
or closes
@tparam[opt="xxh3"] string options.hash of a new file: `"xxh3"`, `"siphash"` (for keys that
strangers choose) or `"murmur3"`
@tparam[opt] table options.codec an object with functions `encode` and `decode`, such as
`require "cjson"`: values are encoded by `put` and decoded by `get`
@tparam[opt=true] boolean options.lock false for read-only stores on media that nobody
writes: takes no lock and uses no lock file
@tparam[opt=false] boolean options.allow_network open files on network file systems too,
for processes on one machine
@tparam[opt=0] number options.max_snapshot_age seconds after which a snapshot or iterator
may be ended, so that a forgotten one does not hold space for ever. 0: never
@treturn[1] store
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local mmcmap = require "mmcmap"
local db = assert(mmcmap.open("game.mmc", { durability = "sync" }))
*/
static int module_open(lua_State *L) {
  size_t path_size;
  const char *path = luaL_checklstring(L, 1, &path_size);
  luaL_argcheck(L, path_size > 0, 1, "path is empty");
  luaL_argcheck(L, strlen(path) == path_size, 1, "path contains a zero byte");
  lua_settop(L, 2);
  mmcmap_options options;
  options_read(L, 2, &options);
  lua_store *store = lua_store_new(L);
  int code = mmcmap_open(path, &options, &store->handle);
  if (code == MMCMAP_EINVAL) return failure_raise(L, path, code);
  return code < 0 ? failure_return(L, path, code) : 1;
}

/* The others are in other files; LDoc takes one page from each. */

/***
The trie of a store, a map or a snapshot as indented text, for people: a line for each
branch, with its slots below it, and for each record. Its form may change with any
version.
@function dump
@tparam store|map|snapshot db
@treturn[1] string
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage print(mmcmap.dump(db))
*/

/***
Reads whatever records are whole out of a file that may be damaged anywhere, into a
new one, and tells what is wrong with it. Of each key the current value is taken, as
far as that can be told; where the part of the log is damaged that tells it, the newest
whole one is: what was deleted may come back, and what a transaction had put that
failed. A named map whose name is lost gets one: `"salvaged map "` and a number; the
report says so with the rule `"a map has lost its name"`. Saved snapshots are left out,
and what has expired. The damaged file is only read.
@function salvage
@tparam string from the damaged file, which nobody may have open
@tparam string to a new file
@treturn[1] number of records, in all maps
@treturn[1] table report, as of `store:check`
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local count, report = assert(mmcmap.salvage("game.mmc", "saved.mmc"))
print(count .. " records saved", report.count .. " faults found")
*/

MMCMAP_API int luaopen_mmcmap_core(lua_State *L);

int luaopen_mmcmap_core(lua_State *L) {
  scratch_register(L);
  iterator_register(L);
  lua_snapshot_register(L);
  lua_diff_register(L);
  lua_createtable(L, 0, 4);
  lua_store_register(L);
  lua_getfield(L, -1, "__index");
  lua_getupvalue(L, -1, 2);
  lua_setfield(L, -4, "methods");
  lua_pop(L, 1);
  lua_pushvalue(L, -1);
  lua_pushcclosure(L, module_open, 1);
  lua_setfield(L, -3, "open");
  lua_pushcclosure(L, lua_snapshot_dump, 1);
  lua_setfield(L, -2, "dump");
  lua_pushcfunction(L, lua_maint_salvage);
  lua_setfield(L, -2, "salvage");
  lua_pushcfunction(L, module_murmur3);
  lua_setfield(L, -2, "murmur3");
  lua_pushfstring(L, "mmcmap %s", mmcmap_library_version());
  lua_setfield(L, -2, "_VERSION");
  return 1;
}
