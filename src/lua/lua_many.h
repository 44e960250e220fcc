/* SPDX-License-Identifier: MIT */
/*
 * The part of the interface that deals with all records or with many, as
 * functions to be registered for stores and for transactions; and get_many() for
 * snapshots too.
 */
#ifndef LUA_MANY_H
#define LUA_MANY_H

#include "lua_store.h"

/* count, pairs, keys, get_many, put_many, clear; ends with NULL. Upvalue: the
   metatable. */
extern const luaL_Reg lua_many_methods[];

/* __len, __pairs. Upvalue: the metatable. */
int lua_many_len(lua_State *L);
int lua_many_pairs(lua_State *L);

/* What reads: calls mmcmap_get_many() or its like, after all that may run code
   of Lua's. `self` is the object at index 1. */
typedef int lua_many_read(lua_State *L, void *self, const mmcmap_slice *keys,
                          size_t count, mmcmap_visit visit, void *context);

/* The method, for the object at index 1, of `store` or what reads from it: takes
   the keys in the table at index 2. */
int lua_many_get(lua_State *L, lua_store *store, lua_many_read *read,
                 void *self);

#endif
