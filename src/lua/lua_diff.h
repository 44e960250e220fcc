/* SPDX-License-Identifier: MIT */
/*
 * diff() of stores: an iteration over what differs between two snapshots. It is
 * a child of both, which it keeps alive; the end of either is its end.
 */
#ifndef LUA_DIFF_H
#define LUA_DIFF_H

#include "lua_store.h"

/* Makes the metatable. Once per state. */
void lua_diff_register(lua_State *L);

/* The method diff() of a store. Upvalue: the store's metatable. */
int lua_diff_open(lua_State *L);

#endif
