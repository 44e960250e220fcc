/* SPDX-License-Identifier: MIT */
/*
 * An iteration over a store as a Lua object: a userdata that owns a snapshot
 * and a cursor on it. It keeps its store alive; closing the store ends it.
 */
#ifndef LUA_ITERATOR_H
#define LUA_ITERATOR_H

#include "lua_store.h"

/* Makes the metatable. Once per state. */
void iterator_register(lua_State *L);

/* Opens an iteration over the store at index 1 of the stack and pushes the
   four values of a `for` loop: function, state, nil, and the value to be
   closed. Raises if the store is closed or fails. Returns 4. */
int iterator_open(lua_State *L, lua_store *store, bool keys_only);

/* Ends all iterations over the store, without touching Lua. */
void iterator_end_all(lua_store *store);

#endif
