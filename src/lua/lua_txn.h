/* SPDX-License-Identifier: MIT */
/*
 * Transactions of Lua: db:update(), and the object that the function gets, which
 * has the methods of records (lua_records.h).
 */
#ifndef LUA_TXN_H
#define LUA_TXN_H

#include "lua_store.h"

/* Makes the metatable. Once per state. */
void lua_txn_register(lua_State *L);

/* db:update(f). Upvalue: the metatable of stores. */
int lua_txn_update(lua_State *L);

/* Ends the store's transaction, if it has one under way, without touching
   Lua. */
void lua_txn_abort(lua_store *store);

#endif
