/* SPDX-License-Identifier: MIT */
/*
 * The methods and operators of a store that read and write one record. Values
 * of a store with a codec pass through it: encoded before anything is asked of
 * the engine, decoded after it has answered. See lua_store.h for the order in
 * which each function does things.
 */
#include "lua_records.h"

#include "lua_target.h"
#include "options.h"

#include <math.h>

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

void lua_records_encode(lua_State *L) {
  records_convert(L, 1, STORE_ENV_ENCODE);
  if (!lua_isstring(L, -1))
    luaL_error(L, "codec: encode must return a string, got %s",
               luaL_typename(L, -1));
}

/* Argument 3 as the bytes to be put, which live as long as it is there. */
static mmcmap_slice records_value(lua_State *L, const lua_store *store) {
  if (store->has_codec && !lua_isnoneornil(L, 3)) {
    lua_settop(L, 3);
    lua_records_encode(L);
  }
  return lua_store_value(L, 3);
}

/* ---- Records ----------------------------------------------------------- */

/* Pushes the value if the key is there. */
static int records_lookup(lua_State *L, lua_store *store, mmcmap_slice key) {
  struct scratch *scratch = scratch_take(L, &store->scratch);
  int code = target_get(L, store, key, scratch);
  if (code == MMCMAP_OK) {
    scratch_push(L, scratch);
    if (store->has_codec) lua_records_decode(L, 1);
  }
  return code;
}

/***
A store: an open file of records, each a key and a value. Keys and values are
strings of any bytes. Functions that can fail return `nil`, a message and a short code
such as `"ENOSPC"`; used through an operator they raise the message. Wrong arguments
and the use of a closed store raise.

Numbers are taken as Lua's own string functions take them: as text of 14 digits, but for
the integers of Lua 5.3 and later. Where more digits matter (ids of 15 digits and more in
LuaJIT and before Lua 5.3, times with fractions) give strings, such as
`("%d"):format(id)` or `("%.17g"):format(x)`.
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
  mmcmap_slice key = lua_store_bytes(L, 2);
  lua_settop(L, 3);
  int code = records_lookup(L, store, key);
  if (code == MMCMAP_NOTFOUND)
    lua_settop(L, 3);
  else if (code < 0)
    return lua_store_fail(L, code);
  return 1;
}

/***
Sets the value of a key, new or known. With `{ttl = seconds}` the record expires so
long after: then it is absent for everybody, and later it is swept. Without, it does
not, whatever the record before it did.
@function put
@tparam string key up to 65,535 bytes
@tparam string value up to 4,294,967,295 bytes; with a codec any value but nil
@tparam[opt] table options `ttl`: seconds to live, more than 0; rounded up to
milliseconds
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
assert(db:put("hello", "world"))
assert(db:put("session 7", "alice", { ttl = 1800 }))   -- for half an hour
*/
static int records_put(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  uint64_t ttl_ms = options_ttl(L, 4);
  mmcmap_slice value = records_value(L, store);
  return lua_store_done(L, target_put(L, store, key, value, ttl_ms));
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
  mmcmap_slice key = lua_store_bytes(L, 2);
  return lua_store_done(L, target_delete(L, store, key));
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
  mmcmap_slice key = lua_store_bytes(L, 2);
  return lua_store_done(L, target_has(L, store, key));
}

/* ---- Changes that depend on the present value --------------------------- */

/***
Sets the value of a key only if it is absent. Of all threads and processes that
do so at once, one gets true. This function and the next four each happen at
one instant: nobody comes between what they find and what they put.
@function add
@tparam string key
@tparam string value as for `put`
@tparam[opt] table options as for `put`
@treturn[1] boolean true if it was put, false if the key was there
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
if db:add("job 17", "mine") then work(17) end
if db:add("lock", "mine", { ttl = 10 }) then work(18) end   -- for ten seconds at most
*/
static int records_add(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  uint64_t ttl_ms = options_ttl(L, 4);
  mmcmap_slice value = records_value(L, store);
  return lua_store_done(L, target_add(L, store, key, value, ttl_ms));
}

/***
Sets the value of a key only if it is there.
@function replace
@tparam string key
@tparam string value as for `put`
@tparam[opt] table options as for `put`
@treturn[1] boolean true if it was put, false if the key was absent
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
db:replace("nobody", "x")  -- false
db:put("moon", "Moon")
db:replace("moon", "Luna") -- true
*/
static int records_replace(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  uint64_t ttl_ms = options_ttl(L, 4);
  mmcmap_slice value = records_value(L, store);
  return lua_store_done(L, target_replace(L, store, key, value, ttl_ms));
}

/* The argument, encoded if there is a codec, in `bytes`, which are returned;
   NULL if it is nil. */
static const mmcmap_slice *records_optional(lua_State *L,
                                            const lua_store *store, int arg,
                                            mmcmap_slice *bytes) {
  if (lua_isnil(L, arg)) return NULL;
  if (store->has_codec) {
    lua_pushvalue(L, arg);
    lua_records_encode(L);
    lua_replace(L, arg);
  }
  *bytes = lua_store_value(L, arg);
  return bytes;
}

/***
Compares and sets: puts a new value only if the present one is as expected.
With a codec both are encoded, and the bytes are compared, not the objects: an
encoding of the same object must always be the same. (cjson, for one, writes the
fields of a table in no order.)
@function cas
@tparam string key
@tparam ?string expected nil: the key is absent
@tparam ?string new nil: delete it
@treturn[1] boolean true if it was as expected, and is now `new`; else false
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
repeat -- add a line, whoever else does so
  local old = db:get("lines")
until db:cas("lines", old, (old or "") .. "one more\n")
*/
static int records_cas(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  mmcmap_slice bytes[2];
  lua_settop(L, 4);
  const mmcmap_slice *expected = records_optional(L, store, 3, &bytes[0]);
  const mmcmap_slice *value = records_optional(L, store, 4, &bytes[1]);
  return lua_store_done(L, target_cas(L, store, key, expected, value));
}

/* As swap with a codec: the old value is decoded before it is replaced, so that an
   error of `decode` changes nothing, and replaced only if it is still the same. The
   new one is encoded already. */
static int records_swap_decoded(lua_State *L, lua_store *store,
                                mmcmap_slice key, mmcmap_slice value) {
  mmcmap_slice old;
  int code;
  do {
    lua_settop(L, 3);
    struct scratch *scratch = scratch_take(L, &store->scratch);
    code = target_get(L, store, key, scratch);
    if (code < 0 && code != MMCMAP_NOTFOUND) break;
    bool found = code == MMCMAP_OK;
    if (found) {
      scratch_push(L, scratch);
      old.data = lua_tolstring(L, -1, &old.size);
      lua_pushvalue(L, -1);
      lua_records_decode(L, 1);
    } else {
      lua_pushnil(L);
    }
    code = target_cas(L, store, key, found ? &old : NULL, &value);
  } while (code == MMCMAP_MISMATCH);
  return code < 0 ? lua_store_fail(L, code) : 1;
}

/***
Sets the value of a key, which does not expire then, and returns the one that it had.
Nil means that it had none if no message follows. With a codec the old value is decoded
first: if `decode` raises an error, nothing is changed.
@function swap
@tparam string key
@tparam string value as for `put`
@return[1] the old value; nil, and nothing after it, if the key was absent
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local old, message = db:swap("owner", "me")
if message then error(message) end
print(old or "nobody")
*/
static int records_swap(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  luaL_argcheck(L, lua_isnoneornil(L, 4), 4, "swap has no options");
  mmcmap_slice value = records_value(L, store);
  if (store->has_codec) return records_swap_decoded(L, store, key, value);
  struct scratch *scratch = scratch_take(L, &store->scratch);
  bool found;
  int code = target_swap(L, store, key, value, &scratch->buffer, &found);
  if (code < 0) return lua_store_fail(L, code);
  if (found)
    scratch_push(L, scratch);
  else
    lua_pushnil(L);
  return 1;
}

static mmcmap_number records_number(lua_State *L, int arg, int64_t otherwise) {
  mmcmap_number number = {.integer = otherwise};
  if (lua_isnoneornil(L, arg)) return number;
  number.is_float = !compat_check_number(L, arg, &number.integer, &number.real);
  luaL_argcheck(L, !number.is_float || isfinite(number.real), arg,
                "finite number expected");
  return number;
}

enum { RECORDS_SHOWN = 64 }; /* bytes of a key in a message */

/* As lua_store_fail(), where it is the record that is at fault: with its key. */
static int records_fail_number(lua_State *L, mmcmap_slice key) {
  bool is_long = key.size > RECORDS_SHOWN;
  lua_store_fail(L, MMCMAP_ENUMBER);
  lua_pushvalue(L, -2);
  lua_pushliteral(L, ": \"");
  lua_pushlstring(L, key.data, is_long ? RECORDS_SHOWN : key.size);
  lua_pushstring(L, is_long ? "\"..." : "\"");
  lua_concat(L, 4);
  lua_replace(L, -3);
  return 3;
}

/***
Adds to a number that is kept as text: `"7"`, `"-0.5"`, `"1e+20"`. The sum is an
integer of 64 bits if both are integers, else a float, whose text has a point or
an exponent, and as many digits as the sum has: to `cas` it give what `get` returns, not
the number. A codec has no part in it. When the record expires, if it does, stays as
it is. Fails with `"ENUMBER"`, and changes
nothing, if the value is anything but one decimal number (no blanks, not
hexadecimal), or if the sum does not fit.

Before Lua 5.3, and in LuaJIT, `by` and `init` count as integers if they have no
fraction. There, sums beyond 2^53 lose digits in the number that is returned,
though not in the store: `get` shows all of them.
@function incr
@tparam string key
@tparam[opt=1] number by finite
@tparam[opt=0] number init what an absent key counts as; finite
@treturn[1] number the sum
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
db:incr("visits")           -- 1
db:incr("visits")           -- 2
db:incr("visits", 10)       -- 12
db:incr("level", -1, 100)   -- 99
db:incr("price", 0.5)       -- 0.5
db:get("visits")            -- "12"
*/
static int records_incr(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  mmcmap_number by = records_number(L, 3, 1);
  mmcmap_number init = records_number(L, 4, 0);
  mmcmap_number sum;
  int code = target_incr(L, store, key, by, init, &sum);
  if (code == MMCMAP_ENUMBER) return records_fail_number(L, key);
  if (code < 0) return lua_store_fail(L, code);
  if (sum.is_float)
    lua_pushnumber(L, (lua_Number)sum.real);
  else
    compat_push_i64(L, sum.integer);
  return 1;
}

/* ---- Expiry ------------------------------------------------------------ */

/***
Seconds until a record expires.
@function ttl
@tparam string key
@treturn[1] number a fraction, if need be; nil, and nothing after it, if the key is
absent or does not expire
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
db:put("session 7", "alice", { ttl = 1800 })
db:ttl("session 7")   -- 1800.0
db:put("hello", "world")
db:ttl("hello")       -- nil
*/
static int records_ttl(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  uint64_t ttl_ms;
  int code = target_ttl(L, store, key, &ttl_ms);
  if (code < 0 && code != MMCMAP_NOTFOUND) return lua_store_fail(L, code);
  lua_records_push_ttl(L, ttl_ms);
  return 1;
}

void lua_records_push_ttl(lua_State *L, uint64_t ttl_ms) {
  if (ttl_ms == 0)
    lua_pushnil(L);
  else
    lua_pushnumber(L, (lua_Number)ttl_ms / 1000);
}

/***
Sets when a record expires, from now on.
@function expire
@tparam string key
@tparam ?number seconds more than 0; nil: never
@treturn[1] boolean true if it was there, else false
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
if not db:expire("session 7", 1800) then login() end
db:expire("session 7", nil)   -- stays
*/
static int records_expire(lua_State *L) {
  lua_store *store = lua_store_check(L);
  mmcmap_slice key = lua_store_bytes(L, 2);
  luaL_argcheck(L, !lua_isnone(L, 3), 3, "number or nil expected");
  uint64_t ttl_ms = options_seconds(L, 3);
  return lua_store_done(L, target_expire(L, store, key, ttl_ms));
}

/* ---- Operators --------------------------------------------------------- */

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
  mmcmap_slice key = lua_store_operand(L, 2, false);
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
  mmcmap_slice key = lua_store_operand(L, 2, false);
  lua_settop(L, 3);
  int code;
  if (lua_isnil(L, 3)) {
    code = target_delete(L, store, key);
  } else {
    if (store->has_codec) lua_records_encode(L);
    mmcmap_slice value = lua_store_operand(L, 3, true);
    code = target_put(L, store, key, value, 0);
  }
  if (code < 0 && code != MMCMAP_NOTFOUND) return lua_store_raise(L, code);
  return 0;
}

/* ---- Registration ------------------------------------------------------ */

const luaL_Reg lua_records_methods[] = {
    {"get", records_get},       {"put", records_put},
    {"delete", records_delete}, {"has", records_has},
    {"add", records_add},       {"replace", records_replace},
    {"cas", records_cas},       {"swap", records_swap},
    {"incr", records_incr},     {"ttl", records_ttl},
    {"expire", records_expire}, {NULL, NULL},
};
