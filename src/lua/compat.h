/* SPDX-License-Identifier: MIT */
/*
 * One interface for Lua 5.1, 5.2, 5.3, 5.4 and LuaJIT: the few names of Lua's
 * C interface that differ and that this module needs. Nothing else in this
 * folder asks which Lua it is compiled for.
 */
#ifndef LUA_COMPAT_H
#define LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

#include <stdbool.h>
#include <stdint.h>

/* The one value tied to a full userdata: a table, as 5.1 and 5.2 ask for. */
#if LUA_VERSION_NUM < 502
#define compat_get_uservalue(L, index) lua_getfenv(L, index)
#define compat_set_uservalue(L, index) ((void)lua_setfenv(L, index))
#define compat_rawlen(L, index) lua_objlen(L, index)
#else
#define compat_get_uservalue(L, index) ((void)lua_getuservalue(L, index))
#define compat_set_uservalue(L, index) ((void)lua_setuservalue(L, index))
#define compat_rawlen(L, index) lua_rawlen(L, index)
#endif

/* Pushes a count or a size: an integer where Lua has them. */
static inline void compat_push_u64(lua_State *L, uint64_t value) {
#if LUA_VERSION_NUM >= 503
  lua_pushinteger(L, (lua_Integer)value);
#else
  lua_pushnumber(L, (lua_Number)value);
#endif
}

/* Pushes an integer: before 5.3 as the number next to it. */
static inline void compat_push_i64(lua_State *L, int64_t value) {
#if LUA_VERSION_NUM >= 503
  lua_pushinteger(L, (lua_Integer)value);
#else
  lua_pushnumber(L, (lua_Number)value);
#endif
}

/* The userdata at the index, if its metatable is the one that the address is the key of
   in the registry; or NULL. (luaL_testudata(), which 5.1 has not, takes a name.) */
static inline void *compat_userdata_at(lua_State *L, int index, void *key) {
  void *userdata = lua_touserdata(L, index);
  if (!userdata || !lua_getmetatable(L, index)) return NULL;
  lua_pushlightuserdata(L, key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? userdata : NULL;
}

/* What the value is, for people: by the name that an object's metatable gives, as Lua's
   own messages do since 5.3. May push it. */
static inline const char *compat_typename(lua_State *L, int index) {
  if (lua_type(L, index) != LUA_TUSERDATA ||
      !luaL_getmetafield(L, index, "__name"))
    return luaL_typename(L, index);
  return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "userdata";
}

/* Pushes `message` with the traceback of the caller. */
static inline void compat_traceback(lua_State *L, const char *message) {
#if LUA_VERSION_NUM >= 502
  luaL_traceback(L, L, message, 1);
#else
  lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
  lua_getfield(L, -1, "debug");
  if (lua_istable(L, -1)) lua_getfield(L, -1, "traceback");
  bool is_there = lua_isfunction(L, -1); /* nobody took it away */
  lua_pushstring(L, message);
  lua_pushinteger(L, 2);
  if (is_there)
    lua_call(L, 2, 1);
  else
    lua_pop(L, 1);
#endif
}

#define COMPAT_2_63 9223372036854775808.0

/* Reads an argument that is a number, or a string that Lua takes for one, and
   tells whether it is an integer: before 5.3 any number that int64_t holds. */
static inline bool compat_check_number(lua_State *L, int arg,
                                       int64_t *integer_out, double *real_out) {
  lua_Number number = luaL_checknumber(L, arg);
#if LUA_VERSION_NUM >= 503
  if (lua_type(L, arg) == LUA_TSTRING) {
    lua_stringtonumber(L, lua_tostring(L, arg));
    lua_replace(L, arg);
  }
  bool is_integer = lua_isinteger(L, arg);
  *integer_out = is_integer ? (int64_t)lua_tointeger(L, arg) : 0;
#else
  bool is_integer = number >= -COMPAT_2_63 && number < COMPAT_2_63 &&
                    number == (lua_Number)(int64_t)number;
  *integer_out = is_integer ? (int64_t)number : 0;
#endif
  *real_out = is_integer ? 0 : (double)number;
  return is_integer;
}

#endif
