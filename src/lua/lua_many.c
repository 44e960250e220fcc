/* SPDX-License-Identifier: MIT */
/*
 * The methods of a store, or of a transaction, that deal with all of its records
 * or with many of them.
 */
#include "lua_records.h"

#include "iterator.h"
#include "lua_target.h"

/*** @submodule store */

/***
The number of records now. The same as `#db`, which raises if it fails.
@function count
@treturn[1] number
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage print(db:count(), #db)
*/
static int many_count(lua_State *L) {
  lua_store *store = lua_store_check(L);
  uint64_t count;
  int code = target_count(L, store, &count);
  if (code < 0) return lua_store_fail(L, code);
  compat_push_u64(L, count);
  return 1;
}

int lua_records_len(lua_State *L) {
  lua_store *store = lua_store_check(L);
  uint64_t count;
  int code = target_count(L, store, &count);
  if (code < 0) return lua_store_raise(L, code);
  compat_push_u64(L, count);
  return 1;
}

/***
Iterates over keys and values, in no order. The loop sees the store as it was
at the call, whatever is put or deleted meanwhile. The snapshot is let go of at
the end of the loop and, in Lua 5.4, when the loop is left early. (There
`pairs(db)` cannot: Lua's `pairs` drops the value that closes it, so its
snapshot waits for the garbage collector, as before 5.4. For loops that may be
left early, use `db:pairs()`.) Raises if it fails.
@function pairs
@treturn function `iterator.next`
@treturn iterator
@usage
for key, value in db:pairs() do print(key, value) end
for key, value in pairs(db) do print(key, value) end  -- not in Lua 5.1
*/
int lua_records_pairs(lua_State *L) {
  return iterator_open(L, lua_store_check(L), false);
}

/***
Iterates like `pairs`, over the keys only, and does not read the values.
@function keys
@treturn function `iterator.next`
@treturn iterator
@usage for key in db:keys() do print(key) end
*/
static int many_keys(lua_State *L) {
  return iterator_open(L, lua_store_check(L), true);
}

/* ---- Putting ------------------------------------------------------------- */

/* Lays the keys and values of the table at index 2 one after the other into the
   table at index 3, and returns how many of both there are. Runs no Lua code. */
static size_t many_collect(lua_State *L) {
  size_t count = 0;
  for (lua_pushnil(L); lua_next(L, 2);) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, 3, (int)++count);
    lua_rawseti(L, 3, (int)++count);
  }
  return count;
}

/* Makes item `index` of the table at index 3 a string, which it keeps alive. */
static void many_make_string(lua_State *L, const lua_store *store, size_t index,
                             bool is_value) {
  lua_rawgeti(L, 3, (int)index);
  if (is_value && store->has_codec) lua_records_encode(L);
  if (!lua_tostring(L, -1))
    luaL_error(L, "bad %s (string expected, got %s)",
               is_value ? "value" : "key", luaL_typename(L, -1));
  lua_rawseti(L, 3, (int)index);
}

/***
Puts many records, at one instant: all of them or, if it fails, none.
@function put_many
@tparam table records keys and their values, as for `put`
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage db:put_many { hello = "world", [7] = "seven" }
*/
static int many_put(lua_State *L) {
  lua_store *store = lua_store_check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  lua_newtable(L);
  size_t count = many_collect(L);
  mmcmap_slice *slices = lua_newuserdata(L, (count + 1) * sizeof *slices);
  for (size_t i = 0; i < count; i++)
    many_make_string(L, store, i + 1, i % 2 == 1);
  for (size_t i = 0; i < count; i++) {
    mmcmap_slice *slice = &slices[i % 2 * (count / 2) + i / 2];
    lua_rawgeti(L, 3, (int)i + 1);
    slice->data = lua_tolstring(L, -1, &slice->size);
    lua_pop(L, 1);
  }
  int code = target_put_many(L, store, slices, slices + count / 2, count / 2);
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

/***
Deletes all records, at one instant. It then takes some time for each of those
that there were.
@function clear
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage assert(db:clear())
*/
static int many_clear(lua_State *L) {
  lua_store *store = lua_store_check(L);
  int code = target_clear(L, store);
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

const luaL_Reg lua_many_methods[] = {
    {"count", many_count},  {"pairs", lua_records_pairs}, {"keys", many_keys},
    {"put_many", many_put}, {"clear", many_clear},        {NULL, NULL},
};
