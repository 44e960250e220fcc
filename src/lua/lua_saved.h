/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that are kept in the file under a name: methods of a store.
 */
#ifndef LUA_SAVED_H
#define LUA_SAVED_H

#include "lua_store.h"

/* Saves under the name at index 2. Upvalue: the store's metatable. */
int lua_saved_save(lua_State *L);

/* snapshots, open_snapshot, drop_snapshot. */
extern const luaL_Reg lua_saved_methods[];

#endif
