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

#include <stdint.h>

/* The one value tied to a full userdata: a table, as 5.1 and 5.2 ask for. */
#if LUA_VERSION_NUM < 502
#define compat_get_uservalue(L, index) lua_getfenv(L, index)
#define compat_set_uservalue(L, index) ((void)lua_setfenv(L, index))
#else
#define compat_get_uservalue(L, index) ((void)lua_getuservalue(L, index))
#define compat_set_uservalue(L, index) ((void)lua_setuservalue(L, index))
#endif

/* Pushes a count or a size: an integer where Lua has them. */
static inline void compat_push_u64(lua_State *L, uint64_t value) {
#if LUA_VERSION_NUM >= 503
  lua_pushinteger(L, (lua_Integer)value);
#else
  lua_pushnumber(L, (lua_Number)value);
#endif
}

#endif
