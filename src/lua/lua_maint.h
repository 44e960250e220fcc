/* SPDX-License-Identifier: MIT */
/*
 * Upkeep on request: the methods of a store that take long and tell how far they
 * are.
 */
#ifndef LUA_MAINT_H
#define LUA_MAINT_H

#include "lua_store.h"

/* The methods check(), backup() and compact() of a store. Upvalue: its metatable. */
int lua_maint_check(lua_State *L);
int lua_maint_backup(lua_State *L);
int lua_maint_compact(lua_State *L);

/* The module's function salvage(). */
int lua_maint_salvage(lua_State *L);

/* The argument at index `arg` as a path; raises if it is none. */
const char *lua_maint_path(lua_State *L, int arg);

#endif
