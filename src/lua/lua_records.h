/* SPDX-License-Identifier: MIT */
/*
 * The part of the interface that deals with records, as functions to be
 * registered for stores and for transactions: single ones (lua_records.c), and
 * many (lua_many.c).
 */
#ifndef LUA_RECORDS_H
#define LUA_RECORDS_H

#include "lua_store.h"

/* get, put, delete, has, add, replace, cas, swap, incr; count, pairs, keys,
   put_many, clear. Each ends with NULL. Upvalue: the metatable. */
extern const luaL_Reg lua_records_methods[];
extern const luaL_Reg lua_many_methods[];

/* __index. Upvalues: the metatable, and the table of methods. */
int lua_records_index(lua_State *L);

/* __newindex, __len, __pairs. Upvalue: the metatable. */
int lua_records_newindex(lua_State *L);
int lua_records_len(lua_State *L);
int lua_records_pairs(lua_State *L);

/* Replaces the value on top of the stack by its encoding, a string or a number;
   the store is at index 1. Runs Lua code. */
void lua_records_encode(lua_State *L);

/* Replaces the encoded value on top of the stack by the decoded one. `owner`
   is the index of the store, or of an iterator of it. Runs Lua code. */
void lua_records_decode(lua_State *L, int owner);

#endif
