/* SPDX-License-Identifier: MIT */
/*
 * A transaction lives for one call of a function, under lua_pcall(), which
 * nothing can be yielded across in any Lua. So it always ends where it began, but
 * for one case: os.exit() may close the Lua state in the middle, and then the
 * finalizers, whichever comes first, end it.
 */
#include "lua_txn.h"

#include "failure.h"
#include "lua_many.h"
#include "lua_maps.h"
#include "lua_records.h"

#include <string.h>

#define TXN_TYPE "mmcmap.transaction"

/* The address is the key of the metatable in Lua's registry. */
static char txn_key;

/* Ends the transaction, which is `store`'s, and all that reads from it. */
static void txn_leave(lua_store *store, lua_store *txn) {
  lua_maps_end_all(txn, NULL);
  children_end(&txn->children, NULL);
  txn->txn = NULL;
  store->updating = NULL;
}

void lua_txn_abort(lua_store *store) {
  lua_store *txn = store->updating;
  if (!txn) return;
  mmcmap_txn *open = txn->txn;
  txn_leave(store, txn);
  mmcmap_txn_abort(open);
}

/* Pushes the object, which has no transaction yet. */
static lua_store *txn_new(lua_State *L, lua_store *store) {
  lua_store *txn = lua_newuserdata(L, sizeof *txn);
  memset(txn, 0, sizeof *txn);
  txn->is_txn = true;
  txn->has_codec = store->has_codec;
  txn->owner = store;
  lua_pushlightuserdata(L, &txn_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_setmetatable(L, -2);
  compat_get_uservalue(L, 1);
  compat_set_uservalue(L, -2);
  return txn;
}

/* The message handler: where a string was raised is lost when it is raised
   again, so that goes into it. */
static int txn_add_traceback(lua_State *L) {
  if (lua_type(L, 1) == LUA_TSTRING) compat_traceback(L, lua_tostring(L, 1));
  return 1;
}

/*** @submodule store */

/***
Calls a function with a transaction: all that it changes through it is seen by
everybody else at one instant, when the function has returned; or never, if it
raises an error. Other threads and processes that change the store wait meanwhile, so it
should be short; those who read do not wait, and see nothing of it before.

A call in the function that fails returns `nil`, a message and a code, as everywhere, and
that alone undoes nothing: what was changed before it is kept, unless the function raises.
So write `assert(tx:put(key, value))`, or `tx.key = value`, which raises by itself. Nothing
that the function returns gives up, either.

The transaction has the methods of a store that deal with records: `get`, `put`,
`delete`, `has`, `add`, `replace`, `cas`, `swap`, `incr`, `ttl`, `expire`,
`get_many`, `put_many`, `pairs`, `keys`, `count`, `clear`, and the operators;
`tx:map(name)` gives a named map with the same, and `maps` and `drop` are there, too.
They see what it has changed itself.
The store itself can be read in the function, and shows what was before; to
change, commit, or close it there raises. So does using the transaction
afterwards. The function cannot yield.

An error of the function is raised again; if it is a string, with its traceback. A call
in it that fails with `"ENOSPC"` or `"EFULL"` has not cleaned, as one outside would have:
the next `update` begins with that.
@function update
@tparam function f is called with the transaction
@return[1] what the function has returned; true if it has returned nothing, so that
`assert(db:update(f))` raises only if the commit fails
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
assert(db:update(function(tx)
  assert(tx:incr("bob", 10))
  if assert(tx:incr("alice", -10)) < 0 then error("not enough") end
end))
*/
int lua_txn_update(lua_State *L) {
  lua_store *store = lua_store_check(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  lua_pushcfunction(L, txn_add_traceback);
  lua_store *txn = txn_new(L, store);
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 4); /* what the function gets it may drop */
  mmcmap *handle = lua_store_writer(L, store);
  int code = mmcmap_txn_begin(handle, &txn->txn);
  if (code < 0) return lua_store_fail(L, code);
  store->updating = txn;
  if (lua_pcall(L, 1, LUA_MULTRET, 3) != 0) {
    lua_txn_abort(store);
    return lua_error(L);
  }
  mmcmap_txn *open = lua_store_txn(L, txn); /* a finalizer called by hand */
  txn_leave(store, txn);
  code = mmcmap_txn_commit(open);
  if (code < 0) return lua_store_fail(L, code);
  if (lua_gettop(L) == 4) lua_pushboolean(L, 1); /* or assert() would raise */
  return lua_gettop(L) - 4;
}

static int txn_tostring(lua_State *L) {
  lua_store *txn = lua_store_check(L);
  lua_pushfstring(L, TXN_TYPE " (%s)",
                  txn->txn ? lua_store_path(L, 1) : "ended");
  return 1;
}

static int txn_gc(lua_State *L) {
  lua_store *txn = lua_store_check(L);
  if (txn->txn) lua_txn_abort(txn->owner);
  scratch_free(&txn->scratch);
  return 0;
}

void lua_txn_register(lua_State *L) {
  static const luaL_Reg metamethods[] = {
      {"__newindex", lua_records_newindex},
      {"__len", lua_many_len},
      {"__pairs", lua_many_pairs},
      {"__tostring", txn_tostring},
      {"__gc", txn_gc},
      {"__close", lua_maps_leave_scope},
      {NULL, NULL},
  };
  lua_pushlightuserdata(L, &txn_key);
  lua_createtable(L, 0, 8);
  int metatable = lua_gettop(L);
  lua_store_add(L, metamethods, metatable);
  lua_pushliteral(L, TXN_TYPE);
  lua_setfield(L, metatable, "__name");
  lua_pushvalue(L, metatable);
  lua_createtable(L, 0, 16);
  lua_store_add(L, lua_records_methods, metatable);
  lua_store_add(L, lua_many_methods, metatable);
  lua_store_add(L, lua_maps_methods, metatable);
  lua_pushcclosure(L, lua_records_index, 2);
  lua_setfield(L, metatable, "__index");
  lua_rawset(L, LUA_REGISTRYINDEX);
}
