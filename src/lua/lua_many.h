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
   of Lua's. */
typedef int lua_many_read(lua_State *L, void *self, const mmcmap_slice *keys,
                          size_t count, mmcmap_visit visit, void *context);

/* The object at index 1. */
struct lua_many_source {
  lua_store *store; /* it, or what it reads from */
  bool has_codec;
  lua_many_read *read;
  void *self;
};

/* The method: takes the keys in the table at index 2. */
int lua_many_get(lua_State *L, const struct lua_many_source *source);

#endif
