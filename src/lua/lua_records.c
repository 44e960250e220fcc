/* SPDX-License-Identifier: MIT */
/*
 * The methods and operators of a store that read and write one record. Values
 * of a store with a codec pass through it: encoded before anything is asked of
 * the engine, decoded after it has answered. See lua_store.h for the order in
 * which each function does things.
 */
#include "lua_records.h"

/* The argument of a method as bytes, which live as long as it is there. */
static mmcmap_slice records_bytes(lua_State *L, int arg) {
  mmcmap_slice bytes;
  bytes.data = luaL_checklstring(L, arg, &bytes.size);
  return bytes;
}

/* The same for an operand, which has no argument number. */
static mmcmap_slice records_operand(lua_State *L, int index, const char *what) {
  mmcmap_slice bytes;
  bytes.data = lua_tolstring(L, index, &bytes.size);
  if (!bytes.data)
    luaL_error(L, "bad %s (string expected, got %s)", what,
               luaL_typename(L, index));
  return bytes;
}

/* ---- Codec ------------------------------------------------------------- */

/* Replaces the value on top of the stack by what function `which` of the codec
   makes of it. */
static void records_convert(lua_State *L, int owner, int which) {
  compat_get_uservalue(L, owner);
  lua_rawgeti(L, -1, which);
  lua_replace(L, -2);
  lua_insert(L, -2);
  lua_call(L, 1, 1);
}

void lua_records_decode(lua_State *L, int owner) {
  records_convert(L, owner, STORE_ENV_DECODE);
}

/* Replaces the value on top of the stack by its encoding. */
static void records_encode(lua_State *L) {
  records_convert(L, 1, STORE_ENV_ENCODE);
  if (!lua_isstring(L, -1))
    luaL_error(L, "codec: encode must return a string, got %s",
               luaL_typename(L, -1));
}

/* ---- Records ----------------------------------------------------------- */

/* Pushes the value if the key is there. */
static int records_lookup(lua_State *L, lua_store *store, mmcmap_slice key) {
  struct scratch *scratch = scratch_take(L, &store->scratch);
  int code = mmcmap_get(lua_store_handle(L, store), key, &scratch->buffer);
  if (code == MMCMAP_OK) {
    scratch_push(L, scratch);
    if (store->has_codec) lua_records_decode(L, 1);
  }
  return code;
}

/***
A store: an open file of records, each a key and a value. Keys and values are
strings of any bytes; numbers are taken as Lua's own string functions take
them. Functions that can fail return `nil`, a message and a short code such as
`"ENOSPC"`; used through an operator they raise the message. Wrong arguments
and the use of a closed store raise.
@classmod store
*/

/***
The value of a key.
@function get
@tparam string key
@param[opt] default what to return if the key is absent
@return[1] the value, or `default`
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
db:get("hello")       -- "world"
db:get("nobody")      -- nil
db:get("nobody", 0)   -- 0
*/
static int records_get(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = records_bytes(L, 2);
  lua_settop(L, 3);
  int code = records_lookup(L, store, key);
  if (code == MMCMAP_NOTFOUND)
    lua_settop(L, 3);
  else if (code < 0)
    return lua_store_fail(L, code);
  return 1;
}

/***
Sets the value of a key, new or known.
@function put
@tparam string key up to 65,535 bytes
@tparam string value up to 4,294,967,295 bytes; with a codec any value but nil
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage assert(db:put("hello", "world"))
*/
static int records_put(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = records_bytes(L, 2);
  luaL_argcheck(L, lua_isnoneornil(L, 4), 4,
                "options of put are not supported yet");
  if (store->has_codec && !lua_isnoneornil(L, 3)) {
    lua_settop(L, 3);
    records_encode(L);
  }
  mmcmap_slice value = records_bytes(L, 3);
  int code = mmcmap_put(lua_store_handle(L, store), key, value);
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

/***
Deletes a key.
@function delete
@tparam string key
@treturn[1] boolean true if it was there, else false
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
db:delete("hello")  -- true
db:delete("hello")  -- false
*/
static int records_delete(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = records_bytes(L, 2);
  int code = mmcmap_delete(lua_store_handle(L, store), key);
  if (code < 0 && code != MMCMAP_NOTFOUND) return lua_store_fail(L, code);
  lua_pushboolean(L, code == MMCMAP_OK);
  return 1;
}

/***
Tells whether a key is there, without reading its value.
@function has
@tparam string key
@treturn[1] boolean
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage if not db:has("level") then db:put("level", 1) end
*/
static int records_has(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = records_bytes(L, 2);
  int code = mmcmap_has(lua_store_handle(L, store), key);
  if (code < 0 && code != MMCMAP_NOTFOUND) return lua_store_fail(L, code);
  lua_pushboolean(L, code == MMCMAP_OK);
  return 1;
}

/***
`db.key` and `db[key]`: the method of that name, else the value of that key,
else nil. For keys that may have a method's name use `get`.
@function __index
@usage
db.hello = "moon"
print(db.hello)       -- moon
print(db["a b"])      -- nil
*/
int lua_records_index(lua_State *L) {
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(2));
  if (!lua_isnil(L, -1)) return 1;
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = records_operand(L, 2, "key");
  int code = records_lookup(L, store, key);
  if (code == MMCMAP_NOTFOUND)
    lua_pushnil(L);
  else if (code < 0)
    return lua_store_raise(L, code);
  return 1;
}

/***
`db.key = value`: put, or delete if the value is nil. Raises if it fails.
@function __newindex
@usage
db.hello = "moon"
db.hello = nil
*/
int lua_records_newindex(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = records_operand(L, 2, "key");
  lua_settop(L, 3);
  int code;
  if (lua_isnil(L, 3)) {
    code = mmcmap_delete(lua_store_handle(L, store), key);
  } else {
    if (store->has_codec) records_encode(L);
    mmcmap_slice value = records_operand(L, 3, "value");
    code = mmcmap_put(lua_store_handle(L, store), key, value);
  }
  if (code < 0 && code != MMCMAP_NOTFOUND) return lua_store_raise(L, code);
  return 0;
}

/* ---- Registration ------------------------------------------------------ */

const luaL_Reg lua_records_methods[] = {
    {"get", records_get}, {"put", records_put}, {"delete", records_delete},
    {"has", records_has}, {NULL, NULL},
};
