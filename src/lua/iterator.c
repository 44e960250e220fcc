/* SPDX-License-Identifier: MIT */
/*
 * An iterator is a child of what it reads from if and only if it is running. It
 * leaves at the end of its loop, at an error, when it is closed or collected,
 * and when its parent is closed. Its user value does not hold a transaction: that
 * ends in any case before update() returns, which does.
 */
#include "iterator.h"

#include "failure.h"
#include "lua_records.h"

#include <string.h>

#define ITERATOR_TYPE "mmcmap.iterator"

enum iterator_state {
  ITERATOR_NEW,      /* holds nothing yet */
  ITERATOR_RUNNING,  /* a child */
  ITERATOR_FINISHED, /* has come to its end, or failed */
  ITERATOR_CLOSED,   /* by its user */
  ITERATOR_ORPHANED, /* by its store: see ended_by */
  ITERATOR_BEREFT    /* its snapshot has been closed, its transaction ended */
};

typedef struct lua_iterator {
  struct lua_child child;
  enum iterator_state state;
  bool keys_only;
  bool has_codec;
  bool is_txn;               /* of a transaction */
  const char *ended_by;      /* what its store says of an orphan */
  mmcmap_snapshot *snapshot; /* NULL if it is not its own */
  mmcmap_cursor *cursor;
  lua_store *store;
} lua_iterator;

/* The addresses are keys of Lua's registry: of the metatable, of next(). */
static char iterator_key;
static char iterator_next_key;

static void iterator_end(lua_iterator *it, enum iterator_state state) {
  if (it->state == ITERATOR_RUNNING) {
    children_remove(&it->child);
    mmcmap_cursor_close(it->cursor);
    mmcmap_snapshot_close(it->snapshot);
    it->cursor = NULL;
    it->snapshot = NULL;
    it->store = NULL;
  }
  it->state = state;
}

static void iterator_orphan(struct lua_child *child, const char *why) {
  lua_iterator *it = (lua_iterator *)child;
  it->ended_by = why;
  iterator_end(it, why ? ITERATOR_ORPHANED : ITERATOR_BEREFT);
}

/* The first upvalue of each function here is the metatable. */
static lua_iterator *iterator_check(lua_State *L) {
  lua_iterator *it = lua_touserdata(L, 1);
  if (it && lua_getmetatable(L, 1)) {
    bool same = lua_rawequal(L, -1, lua_upvalueindex(1));
    lua_pop(L, 1);
    if (same) return it;
  }
  lua_pushfstring(L, ITERATOR_TYPE " expected, got %s", compat_typename(L, 1));
  luaL_argerror(L, 1, lua_tostring(L, -1));
  return NULL;
}

/* Builds the message first: closing the cursor would lose the cause. */
static int iterator_fail(lua_State *L, lua_iterator *it, int code) {
  failure_return(L, lua_store_path(L, 1), code);
  lua_pop(L, 1);
  iterator_end(it, ITERATOR_FINISHED);
  return luaL_error(L, "%s", lua_tostring(L, -1));
}

static int iterator_push_record(lua_State *L, const lua_iterator *it,
                                struct scratch *scratch) {
  if (it->keys_only) {
    scratch_begin_pushing(scratch);
    scratch_push_bytes(L, &scratch->key, 0, scratch->key.size);
    scratch_end_pushing(scratch);
    return 1;
  }
  scratch_push_record(L, scratch);
  if (it->has_codec) lua_records_decode(L, 1);
  return 2;
}

/* Raises unless there is a record to look for; false at the end. */
static bool iterator_running(lua_State *L, const lua_iterator *it) {
  switch (it->state) {
    case ITERATOR_RUNNING:
      return true;
    case ITERATOR_FINISHED:
      return false;
    case ITERATOR_ORPHANED:
      return luaL_error(L, "attempt to use an iterator: %s", it->ended_by);
    case ITERATOR_BEREFT:
      return luaL_error(
          L, "attempt to use an iterator: the %s",
          it->is_txn ? "transaction has ended" : "snapshot is closed");
    default:
      return luaL_error(L, "attempt to use a closed iterator");
  }
}

/***
An iteration over a store, a snapshot or a transaction. `pairs(db)`, `db:pairs()` and
`db:keys()` make one; it is the second value that they return. In a child after
`fork()`, and when it has become older than `max_snapshot_age`, it raises.
@classmod iterator
*/

/***
The next record, in no order. A `for` loop calls it by itself.
@function next
@treturn[1] string the key
@treturn[1] string the value (not from `keys`)
@treturn[2] nil at the end
@usage
local next, it = db:pairs()
print(next(it))
it:close()
*/
static int iterator_next(lua_State *L) {
  lua_iterator *it = iterator_check(L);
  struct scratch *scratch = NULL;
  if (iterator_running(L, it)) scratch = scratch_take(L, &it->store->scratch);
  int code = MMCMAP_NOTFOUND;
  if (iterator_running(L, it)) /* again: a finalizer may have come by */
    code = mmcmap_cursor_read(it->cursor, &scratch->key,
                              it->keys_only ? NULL : &scratch->buffer);
  if (code == MMCMAP_OK) return iterator_push_record(L, it, scratch);
  if (code != MMCMAP_NOTFOUND) return iterator_fail(L, it, code);
  iterator_end(it, ITERATOR_FINISHED);
  lua_pushnil(L);
  return 1;
}

/***
Lets go of the snapshot. Needed only for an iteration that does not run to its
end, and there only before Lua 5.4, or with `pairs(db)` in place of
`db:pairs()`; without it the garbage collector does it some time later.
@function close
@usage
local next, it = db:keys()
local any_key = next(it)
it:close()
*/
static int iterator_close(lua_State *L) {
  lua_iterator *it = iterator_check(L);
  if (it->state != ITERATOR_ORPHANED && it->state != ITERATOR_BEREFT)
    iterator_end(it, ITERATOR_CLOSED);
  return 0;
}

static int iterator_tostring(lua_State *L) {
  lua_iterator *it = iterator_check(L);
  bool running = it->state == ITERATOR_RUNNING;
  lua_pushfstring(L, ITERATOR_TYPE " (%s)",
                  running ? lua_store_path(L, 1) : "closed");
  return 1;
}

void iterator_register(lua_State *L) {
  lua_pushlightuserdata(L, &iterator_key);
  lua_createtable(L, 0, 6);
  lua_pushliteral(L, ITERATOR_TYPE);
  lua_setfield(L, -2, "__name");
  static const luaL_Reg metamethods[] = {{"__gc", iterator_close},
                                         {"__close", iterator_close},
                                         {"__tostring", iterator_tostring}};
  for (size_t i = 0; i < sizeof metamethods / sizeof metamethods[0]; i++) {
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, metamethods[i].func, 1);
    lua_setfield(L, -2, metamethods[i].name);
  }
  lua_createtable(L, 0, 2);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, iterator_close, 1);
  lua_setfield(L, -2, "close");
  lua_pushlightuserdata(L, &iterator_next_key);
  lua_pushvalue(L, -3);
  lua_pushcclosure(L, iterator_next, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, -4, "next");
  lua_rawset(L, LUA_REGISTRYINDEX);
  lua_setfield(L, -2, "__index");
  lua_rawset(L, LUA_REGISTRYINDEX);
}

/* Pushes what keeps alive the object at index 1 and what that reads from. */
static void iterator_push_env(lua_State *L, const lua_snapshot *snapshot) {
  compat_get_uservalue(L, 1);
  if (!snapshot) return;
  lua_createtable(L, STORE_ENV_PARENT, 0);
  for (int i = STORE_ENV_STORE; i < STORE_ENV_PARENT; i++) {
    lua_rawgeti(L, -2, i);
    lua_rawseti(L, -2, i);
  }
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, STORE_ENV_PARENT);
  lua_replace(L, -2);
}

static lua_iterator *iterator_new(lua_State *L, const lua_store *store,
                                  const lua_snapshot *snapshot) {
  lua_iterator *it = lua_newuserdata(L, sizeof *it);
  memset(it, 0, sizeof *it);
  it->child.orphan = iterator_orphan;
  it->has_codec = snapshot ? snapshot->has_codec : store->has_codec;
  it->is_txn = store->is_txn;
  lua_pushlightuserdata(L, &iterator_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_setmetatable(L, -2);
  iterator_push_env(L, snapshot);
  compat_set_uservalue(L, -2);
  return it;
}

/* Opens the cursor, and the snapshot if there is none and one is needed. */
static int iterator_open_cursor(lua_iterator *it, const lua_store *store,
                                const lua_snapshot *parent) {
  if (store->is_txn) return mmcmap_txn_cursor_open(store->txn, &it->cursor);
  if (parent) return mmcmap_cursor_open(parent->snapshot, &it->cursor);
  int code = mmcmap_snapshot_open(store->handle, &it->snapshot);
  if (code < 0) return code;
  code = mmcmap_cursor_open(it->snapshot, &it->cursor);
  if (code < 0) {
    mmcmap_snapshot_close(it->snapshot);
    it->snapshot = NULL;
  }
  return code;
}

/* Opens what it reads from, and joins the list. */
static int iterator_start(lua_iterator *it, lua_store *store,
                          lua_snapshot *parent) {
  int code = iterator_open_cursor(it, store, parent);
  if (code < 0) return code;
  it->store = store;
  children_add(parent ? &parent->children : &store->children, &it->child);
  it->state = ITERATOR_RUNNING;
  return MMCMAP_OK;
}

int iterator_open(lua_State *L, lua_store *store, lua_snapshot *snapshot,
                  bool keys_only) {
  lua_settop(L, 1);
  lua_pushlightuserdata(L, &iterator_next_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_iterator *it = iterator_new(L, store, snapshot);
  it->keys_only = keys_only;
  lua_pushnil(L);
  lua_pushvalue(L, -2);
  if (snapshot)
    (void)lua_snapshot_handle(L, snapshot);
  else if (store->is_txn)
    (void)lua_store_txn(L, store);
  else
    (void)lua_store_handle(L, store);
  int code = iterator_start(it, store, snapshot);
  return code < 0 ? failure_raise(L, lua_store_path(L, 1), code) : 4;
}
