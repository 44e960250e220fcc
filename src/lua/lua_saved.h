/* SPDX-License-Identifier: MIT */
/*
 * Snapshots, open or kept in the file under a name: methods of a store.
 */
#ifndef LUA_SAVED_H
#define LUA_SAVED_H

#include "lua_store.h"

/* snapshot, snapshots, open_snapshot, drop_snapshot. */
extern const luaL_Reg lua_saved_methods[];

#endif
