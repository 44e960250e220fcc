/* SPDX-License-Identifier: MIT */
/*
 * A snapshot as a Lua object: a userdata that owns one of the engine's. It is a
 * child of its store, which it keeps alive and whose end is its end; it knows
 * the iterators that read from it. The rule of lua_store.h holds here too: ask
 * for the engine's snapshot last.
 */
#ifndef LUA_SNAPSHOT_H
#define LUA_SNAPSHOT_H

#include "lua_store.h"

typedef struct lua_snapshot {
  struct lua_child child;
  struct lua_child *children; /* iterators under way, maps */
  mmcmap_snapshot *snapshot;  /* NULL once it is closed */
  lua_store *store;           /* good as long as this userdata is */
  const char *ended_by;       /* if it was the store; else NULL */
  bool has_codec;
} lua_snapshot;

/* Makes the metatable. Once per state. */
void lua_snapshot_register(lua_State *L);

/* Pushes one that has nothing of the engine's yet, of the store at index 1, whose
   child it is to become then. */
lua_snapshot *lua_snapshot_new(lua_State *L, lua_store *store);

/* The method snapshot() of a store, without a name. Upvalue: its metatable. */
int lua_snapshot_open(lua_State *L);

/* The text of the snapshot, or store, at index 1. Upvalue: the store's metatable. */
int lua_snapshot_dump(lua_State *L);

/* The snapshot at `index`; raises if there is something else. */
lua_snapshot *lua_snapshot_check(lua_State *L, int index);

/* The engine's snapshot; raises if it is closed. */
mmcmap_snapshot *lua_snapshot_handle(lua_State *L,
                                     const lua_snapshot *snapshot);

#endif
