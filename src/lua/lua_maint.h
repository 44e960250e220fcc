/* SPDX-License-Identifier: MIT */
/*
 * Upkeep on request: the methods of a store that take long and tell how far they
 * are.
 */
#ifndef LUA_MAINT_H
#define LUA_MAINT_H

#include "lua_store.h"

/* The method check() of a store. Upvalue: the store's metatable. */
int lua_maint_check(lua_State *L);

#endif
