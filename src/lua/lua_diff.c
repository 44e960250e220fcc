/* SPDX-License-Identifier: MIT */
/*
 * The object is in the lists of both its snapshots or in neither.
 */
#include "lua_diff.h"

#include "failure.h"
#include "lua_records.h"
#include "lua_snapshot.h"

#include <string.h>

#define DIFF_TYPE "mmcmap.diff"

enum diff_state {
  DIFF_NEW,      /* holds nothing yet */
  DIFF_RUNNING,  /* a child of both */
  DIFF_FINISHED, /* has come to its end, or failed */
  DIFF_CLOSED,   /* by its user */
  DIFF_ORPHANED, /* by the store: see ended_by */
  DIFF_BEREFT    /* a snapshot has been closed */
};

struct lua_diff;

struct diff_child {
  struct lua_child child; /* first, as everywhere */
  struct lua_diff *diff;
};

typedef struct lua_diff {
  struct diff_child of_from, of_to;
  enum diff_state state;
  const char *ended_by; /* what the store says of an orphan */
  mmcmap_diff *diff;
  lua_store *store;
} lua_diff;

/* The addresses are keys of Lua's registry: of the metatable, of next(). */
static char diff_key;
static char diff_next_key;

static void diff_end(lua_diff *diff, enum diff_state state) {
  if (diff->state == DIFF_RUNNING) {
    children_remove(&diff->of_from.child);
    children_remove(&diff->of_to.child);
    mmcmap_diff_close(diff->diff);
    diff->diff = NULL;
  }
  diff->state = state;
}

static void diff_orphan(struct lua_child *child, const char *why) {
  lua_diff *diff = ((struct diff_child *)child)->diff;
  diff->ended_by = why;
  diff_end(diff, why ? DIFF_ORPHANED : DIFF_BEREFT);
}

/* The first upvalue of each function here is the metatable. */
static lua_diff *diff_self(lua_State *L) {
  lua_diff *diff = lua_touserdata(L, 1);
  if (diff && lua_getmetatable(L, 1)) {
    bool same = lua_rawequal(L, -1, lua_upvalueindex(1));
    lua_pop(L, 1);
    if (same) return diff;
  }
  lua_pushfstring(L, DIFF_TYPE " expected, got %s", compat_typename(L, 1));
  luaL_argerror(L, 1, lua_tostring(L, -1));
  return NULL;
}

/* Raises unless there is something to look for; false at the end. */
static bool diff_running(lua_State *L, const lua_diff *diff) {
  switch (diff->state) {
    case DIFF_RUNNING:
      return true;
    case DIFF_FINISHED:
      return false;
    case DIFF_ORPHANED:
      return luaL_error(L, "attempt to use a diff: %s", diff->ended_by);
    case DIFF_BEREFT:
      return luaL_error(L, "attempt to use a diff: a snapshot is closed");
    default:
      return luaL_error(L, "attempt to use a closed diff");
  }
}

/* Builds the message first: ending the diff would lose the cause. */
static int diff_fail(lua_State *L, lua_diff *diff, int code) {
  failure_return(L, lua_store_path(L, 1), code);
  lua_pop(L, 1);
  diff_end(diff, DIFF_FINISHED);
  return luaL_error(L, "%s", lua_tostring(L, -1));
}

static void diff_push_value(lua_State *L, struct scratch *scratch,
                            bool is_there, mmcmap_slice value) {
  if (!is_there) {
    lua_pushnil(L);
    return;
  }
  size_t from =
      (size_t)((const char *)value.data - (const char *)scratch->buffer.data);
  scratch_push_bytes(L, &scratch->buffer, from, value.size);
}

/* Decodes the value at `index` as the snapshot does that it is of: the first one, or
   the second. */
static void diff_decode(lua_State *L, int which, int index) {
  compat_get_uservalue(L, 1);
  lua_rawgeti(L, -1, STORE_ENV_PARENT + which);
  int owner = lua_gettop(L);
  const lua_snapshot *snapshot = lua_touserdata(L, owner);
  if (snapshot->has_codec) {
    lua_pushvalue(L, index);
    lua_records_decode(L, owner);
    lua_replace(L, index);
  }
  lua_settop(L, owner - 2);
}

static int diff_push_change(lua_State *L, struct scratch *scratch,
                            const mmcmap_change *change) {
  scratch_begin_pushing(scratch);
  diff_push_value(L, scratch, true, change->key);
  diff_push_value(L, scratch, change->has_old, change->old_value);
  diff_push_value(L, scratch, change->has_new, change->new_value);
  scratch_end_pushing(scratch);
  int top = lua_gettop(L);
  if (change->has_old) diff_decode(L, 0, top - 1);
  if (change->has_new) diff_decode(L, 1, top);
  return 3;
}

static int diff_next(lua_State *L) {
  lua_diff *diff = diff_self(L);
  struct scratch *scratch = NULL;
  mmcmap_change change;
  lua_settop(L, 1);
  if (diff_running(L, diff)) scratch = scratch_take(L, &diff->store->scratch);
  int code = MMCMAP_NOTFOUND;
  if (diff_running(L, diff)) /* again: a finalizer may have come by */
    code = mmcmap_diff_read(diff->diff, &scratch->buffer, &change);
  if (code == MMCMAP_OK) return diff_push_change(L, scratch, &change);
  if (code != MMCMAP_NOTFOUND) return diff_fail(L, diff, code);
  diff_end(diff, DIFF_FINISHED);
  lua_pushnil(L);
  return 1;
}

static int diff_close(lua_State *L) {
  lua_diff *diff = diff_self(L);
  if (diff->state != DIFF_ORPHANED && diff->state != DIFF_BEREFT)
    diff_end(diff, DIFF_CLOSED);
  return 0;
}

static int diff_tostring(lua_State *L) {
  bool running = diff_self(L)->state == DIFF_RUNNING;
  lua_pushfstring(L, DIFF_TYPE " (%s)",
                  running ? lua_store_path(L, 1) : "closed");
  return 1;
}

void lua_diff_register(lua_State *L) {
  static const luaL_Reg metamethods[] = {{"__gc", diff_close},
                                         {"__close", diff_close},
                                         {"__tostring", diff_tostring}};
  lua_pushlightuserdata(L, &diff_key);
  lua_createtable(L, 0, 6);
  lua_pushliteral(L, DIFF_TYPE);
  lua_setfield(L, -2, "__name");
  for (size_t i = 0; i < sizeof metamethods / sizeof metamethods[0]; i++) {
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, metamethods[i].func, 1);
    lua_setfield(L, -2, metamethods[i].name);
  }
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, diff_close, 1);
  lua_setfield(L, -2, "close");
  lua_setfield(L, -2, "__index");
  lua_pushlightuserdata(L, &diff_next_key);
  lua_pushvalue(L, -2);
  lua_pushcclosure(L, diff_next, 1);
  lua_rawset(L, LUA_REGISTRYINDEX);
  lua_rawset(L, LUA_REGISTRYINDEX);
}

/* A new object, whose user value keeps alive what is at indices 1 to 3. */
static lua_diff *diff_new(lua_State *L, lua_store *store) {
  lua_diff *diff = lua_newuserdata(L, sizeof *diff);
  memset(diff, 0, sizeof *diff);
  diff->store = store;
  diff->of_from.diff = diff->of_to.diff = diff;
  diff->of_from.child.orphan = diff->of_to.child.orphan = diff_orphan;
  lua_pushlightuserdata(L, &diff_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_setmetatable(L, -2);
  lua_createtable(L, STORE_ENV_PARENT + 1, 0);
  compat_get_uservalue(L, 1);
  for (int i = STORE_ENV_STORE; i < STORE_ENV_PARENT; i++) {
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -3, i);
  }
  lua_pop(L, 1);
  for (int i = 0; i < 2; i++) {
    lua_pushvalue(L, 2 + i);
    lua_rawseti(L, -2, STORE_ENV_PARENT + i);
  }
  compat_set_uservalue(L, -2);
  return diff;
}

/*** @submodule store */

/***
Iterates over what differs between two snapshots of the store: the key, what its
value was in `a`, and what it is in `b`. One of the two values is nil if the key is
only in the other snapshot. Each key comes once, in no order; the time that it takes
follows the number of differences, not the size of the store. But where records have
expired that are not swept yet, every one of the map is looked at. A value that was put
again as it was is no difference. Either snapshot may be the older one. Each value is
decoded as its snapshot does. Raises if it fails.
@function diff
@tparam snapshot a
@tparam snapshot b
@treturn function to be called by `for`
@treturn userdata with a method `close`, for loops that are left early before Lua 5.4
@usage
local before = db:snapshot()
db:put("hello", "moon")
for key, old, new in db:diff(before, db:snapshot()) do
  print(key, old, new)   -- hello   world   moon
end
*/
int lua_diff_open(lua_State *L) {
  lua_store *store = lua_store_check(L);
  lua_snapshot *from = lua_snapshot_check(L, 2);
  lua_snapshot *to = lua_snapshot_check(L, 3);
  lua_settop(L, 3);
  lua_pushlightuserdata(L, &diff_next_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_diff *diff = diff_new(L, store);
  lua_pushnil(L);
  lua_pushvalue(L, -2);
  (void)lua_store_handle(L, store);
  mmcmap_snapshot *a = lua_snapshot_handle(L, from);
  mmcmap_snapshot *b = lua_snapshot_handle(L, to);
  int code = mmcmap_diff_open(a, b, &diff->diff);
  if (code < 0) return lua_store_raise(L, code);
  children_add(&from->children, &diff->of_from.child);
  children_add(&to->children, &diff->of_to.child);
  diff->state = DIFF_RUNNING;
  return 4;
}
