/* SPDX-License-Identifier: MIT */
/*
 * What the test-only module uses of Lua's C interface and not every Lua has:
 * 5.1 lacks luaL_setfuncs and lua_rawlen, 5.1 and 5.2 lack integers. LuaJIT
 * counts as 5.1 but brings luaL_setfuncs along, hence the second condition.
 */
#ifndef SUPPORT_COMPAT_H
#define SUPPORT_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <stddef.h>

#if LUA_VERSION_NUM < 502 && !defined(luaL_newlib)
static inline void luaL_setfuncs(lua_State *L, const luaL_Reg *functions,
                                 int upvalue_count) {
  (void)upvalue_count; /* the probe has none */
  for (; functions->name != NULL; functions++) {
    lua_pushcfunction(L, functions->func);
    lua_setfield(L, -2, functions->name);
  }
}
#endif

#if LUA_VERSION_NUM < 503
#define lua_isinteger(L, index) ((void)(L), (void)(index), 0)
#endif

#endif
