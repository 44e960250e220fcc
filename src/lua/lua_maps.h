/* SPDX-License-Identifier: MIT */
/*
 * Named maps as Lua objects, of a store or of a transaction. They are of the same
 * kind as these, have their methods of records, and end with them: each store or
 * transaction has a list of those that were asked for. A map of a store owns a
 * handle of its own; one of a transaction nothing.
 */
#ifndef LUA_MAPS_H
#define LUA_MAPS_H

#include "lua_store.h"

/* Makes the metatable. Once per state. */
void lua_maps_register(lua_State *L);

/* map, maps, drop; ends with NULL. Upvalue: the metatable. */
extern const luaL_Reg lua_maps_methods[];

/* Reads the options of map() at `arg`: puts a codec that they name into the table on
   top of the stack, which has that of what the map is of, if any; whether there is one
   now. */
bool lua_maps_read_codec(lua_State *L, int arg, bool has_codec);

/* The end of a scope with a map, or a transaction, to be closed: nothing, because
   others may have the object, and something else ends it. Upvalue: its metatable. */
int lua_maps_leave_scope(lua_State *L);

/* Ends all maps of a store or transaction, and what reads from them. Does not
   touch Lua. `why`: see children.h. */
void lua_maps_end_all(lua_store *store, const char *why);

/* Opens a cursor over names of maps, and `own_out`, the snapshot that it is over, if
   that is to be closed after it; raises if `self` is closed. */
typedef int lua_maps_open_names(lua_State *L, void *self,
                                mmcmap_snapshot **own_out,
                                mmcmap_cursor **cursor_out);

/* Pushes an array of all names. */
int lua_maps_list(lua_State *L, lua_maps_open_names *open, void *self);

/* The map of a store at the index; NULL if there is something else, also that of a
   transaction. */
lua_store *lua_maps_at(lua_State *L, int index);

#endif
