/* SPDX-License-Identifier: MIT */
/*
 * An iteration over a store, a snapshot or a transaction as a Lua object: a
 * userdata that owns a cursor, and of a store the snapshot below it. It keeps the
 * store and the snapshot that it reads from alive; closing that ends it.
 */
#ifndef LUA_ITERATOR_H
#define LUA_ITERATOR_H

#include "lua_snapshot.h"

/* Makes the metatable. Once per state. */
void iterator_register(lua_State *L);

/* Opens an iteration over the object at index 1 of the stack, which is `store`
   (or transaction) or a snapshot of it, `snapshot` (else NULL), and pushes the four values of a
   `for` loop: function, state, nil, and the value to be closed. Raises if the
   object is closed or fails. Returns 4. */
int iterator_open(lua_State *L, lua_store *store, lua_snapshot *snapshot,
                  bool keys_only);

#endif
