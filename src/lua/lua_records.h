/* SPDX-License-Identifier: MIT */
/*
 * The part of the interface that deals with single records, as functions to be
 * registered for stores and for transactions; of many, see lua_many.h.
 */
#ifndef LUA_RECORDS_H
#define LUA_RECORDS_H

#include "lua_store.h"

/* get, put, delete, has, add, replace, cas, swap, incr; ends with NULL. Upvalue: the
   metatable. */
extern const luaL_Reg lua_records_methods[];

/* __index. Upvalues: the metatable, and the table of methods. */
int lua_records_index(lua_State *L);

/* __newindex. Upvalue: the metatable. */
int lua_records_newindex(lua_State *L);

/* Replaces the value on top of the stack by its encoding, a string or a number;
   the store is at index 1. Runs Lua code. */
void lua_records_encode(lua_State *L);

/* Replaces the encoded value on top of the stack by the decoded one. `owner`
   is the index of the store, or of an iterator of it. Runs Lua code. */
void lua_records_decode(lua_State *L, int owner);

/* Pushes the seconds of a time to live; nil if there is none. */
void lua_records_push_ttl(lua_State *L, uint64_t ttl_ms);

#endif
