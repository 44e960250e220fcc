/* SPDX-License-Identifier: MIT */
/*
 * The C module "mmcmap.core". `require "mmcmap"` is what programs use; it is
 * lua/mmcmap.lua, which adds nothing but names. This is the only symbol that
 * Lua needs of the shared object.
 */
#include "compat.h"
#include "iterator.h"
#include "lua_store.h"
#include "mmcmap.h"
#include "scratch.h"

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

MMCMAP_API int luaopen_mmcmap_core(lua_State *L);

int luaopen_mmcmap_core(lua_State *L) {
  scratch_register(L);
  iterator_register(L);
  lua_createtable(L, 0, 3);
  lua_store_register(L);
  lua_setfield(L, -2, "open");
  lua_pushcfunction(L, module_murmur3);
  lua_setfield(L, -2, "murmur3");
  lua_pushfstring(L, "mmcmap %s", mmcmap_library_version());
  lua_setfield(L, -2, "_VERSION");
  return 1;
}
