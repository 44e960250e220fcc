/* SPDX-License-Identifier: MIT */
/*
 * The store as a Lua object: a userdata that owns one handle of the engine.
 * It knows the iterators that read from it, and ends them before the handle.
 */
#ifndef LUA_STORE_H
#define LUA_STORE_H

#include "compat.h"
#include "mmcmap.h"
#include "scratch.h"

struct lua_iterator;

/*
 * Its user value is a table that its iterators share, which keeps the store
 * alive as long as they are: see enum lua_store_env. Owned by Lua; used by one
 * thread of the system at a time, as a lua_State is.
 */
typedef struct lua_store {
  mmcmap *handle;                /* NULL once it is closed */
  struct lua_iterator *children; /* the iterators that are under way */
  struct scratch scratch;
  bool has_codec;
} lua_store;

/* The indices of that table. */
enum lua_store_env {
  STORE_ENV_STORE = 1,
  STORE_ENV_PATH = 2,
  STORE_ENV_ENCODE = 3, /* absent without a codec */
  STORE_ENV_DECODE = 4
};

/* Makes the metatable, and pushes the function open(). Once per state. */
void lua_store_register(lua_State *L);

/* Pushes the path as it was given to open(), and returns it. `owner` is the
   index of the store, or of an iterator of it. The engine's own copy of the
   path would not do: it ends with the handle, which a finalizer may close. */
const char *lua_store_path(lua_State *L, int owner);

/* Replaces the encoded value on top of the stack by the decoded one. Runs
   Lua code. */
void lua_store_decode(lua_State *L, int owner);

#endif
