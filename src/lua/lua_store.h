/* SPDX-License-Identifier: MIT */
/*
 * The store as a Lua object: a userdata that owns one handle of the engine. And
 * a transaction, and a named map of either: objects of the same kind, since they
 * have the same methods. Each knows the snapshots and iterators that read from it,
 * and ends them before the handle.
 *
 * The rule that keeps its functions safe: anything that may run Lua code (a
 * finalizer at any allocation, a codec) may close the store. So each one first
 * takes its arguments, and asks for the handle last, by lua_store_handle(),
 * with nothing of Lua's between that and the call of the engine.
 */
#ifndef LUA_STORE_H
#define LUA_STORE_H

#include "children.h"
#include "compat.h"
#include "mmcmap.h"
#include "scratch.h"

/*
 * Its user value is a table that its snapshots and iterators share, which keeps
 * the store alive as long as they are: see enum lua_store_env. Owned by Lua; used by one
 * thread of the system at a time, as a lua_State is.
 */
typedef struct lua_store {
  mmcmap *handle;             /* NULL once it is closed; not of a transaction */
  bool is_txn;                /* a transaction, or a map of one */
  mmcmap_txn *txn;            /* then: NULL once it has ended */
  struct lua_store *owner;    /* of a transaction its store, of a map what it is
                                 of: good as long as it has not ended */
  struct lua_store *updating; /* the transaction that is under way, or NULL */
  struct lua_store *maps;     /* those that have been asked for, a list */
  struct lua_store *next_map; /* of a map, in that list, */
  struct lua_store **map_link; /* and what points here, or NULL */
  struct lua_child *children;  /* snapshots, and iterators under way */
  const char *ended_by;        /* of a map: what has, see children.h */
  struct scratch scratch;
  unsigned
      calls; /* of the engine that call Lua back: it stays open meanwhile */
  bool has_codec;
} lua_store;

/* The indices of that table. A map has one of its own. */
enum lua_store_env {
  STORE_ENV_STORE = 1,
  STORE_ENV_PATH = 2,
  STORE_ENV_ENCODE = 3, /* absent without a codec */
  STORE_ENV_DECODE = 4,
  STORE_ENV_PARENT = 5, /* of an iterator of a snapshot: the snapshot */
  STORE_ENV_MAPS = 6,   /* of a store: its maps by name, with weak values */
  STORE_ENV_OWNER = 7,  /* of a map: the table of what it is of, */
  STORE_ENV_NAME = 8    /* and its name */
};

/* Makes the metatable and pushes it. Once per state. */
void lua_store_register(lua_State *L);

/* Pushes a store without a handle, for the arguments of open(), which are on
   the stack: the path and the options. The first upvalue of the function that
   runs must be the metatable. */
lua_store *lua_store_new(lua_State *L);

/* The store at index 1; raises if there is something else. The first upvalue
   of the function that runs must be the metatable. */
lua_store *lua_store_check(lua_State *L);

/* The handle; raises if the store is closed. */
mmcmap *lua_store_handle(lua_State *L, const lua_store *store);

/* The same, to change, commit or close it; raises within update(), too. */
mmcmap *lua_store_writer(lua_State *L, const lua_store *store);

/* Of a transaction; raises if it has ended. */
mmcmap_txn *lua_store_txn(lua_State *L, const lua_store *store);

/* Adds the functions to the table on top, each with the metatable at the index
   `metatable` for an upvalue. */
void lua_store_add(lua_State *L, const luaL_Reg *functions, int metatable);

/* The argument of a method as bytes, which live as long as it is there: a key or a
   name; or a value, which a codec would have made bytes of. */
mmcmap_slice lua_store_bytes(lua_State *L, int arg);
mmcmap_slice lua_store_value(lua_State *L, int arg);

/* The same of what has no argument number: a key, or a value. */
mmcmap_slice lua_store_operand(lua_State *L, int index, bool is_value);

/* As failure_return() and failure_raise(), for the store, or what reads from it,
   at index 1. */
int lua_store_fail(lua_State *L, int code);
int lua_store_raise(lua_State *L, int code);

/* Pushes true or false for what was done, or found, or was not; else as
   lua_store_fail(). */
int lua_store_done(lua_State *L, int code);

/* Pushes the path as it was given to open(), and returns it. `owner` is the
   index of the store, or of what reads from it. The engine's own copy of the
   path would not do: it ends with the handle, which a finalizer may close. */
const char *lua_store_path(lua_State *L, int owner);

#endif
