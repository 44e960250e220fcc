/* SPDX-License-Identifier: MIT */
/*
 * Area history of the probe: the checker of histories.
 *
 *   check(operations, options)   true, false, or nil where it gave up; the
 *                                report on a fault; a table of figures
 *
 * options: keys = 1 (how many), joint = false, initial = {value of key 0, ...}
 * (absent). An operation is a table:
 *   kind ("get"), client = 0, key = 0, from and to in ns (no `to`: pending),
 *   value, expected (numbers; absent if missing), result (true, false, a number
 *   or nothing: absent), unknown = false;
 *   a snapshot: values = {value of key 0 or false, ...} for `result`;
 *   a move: other, other_value, other_result, of a second key.
 */
#include <stdlib.h>
#include <string.h>

#include "linearizable.h"
#include "probe.h"
#include "probe_fields.h"

/* true, false, a number, or nothing. */
static uint64_t history_value(lua_State *L, int index) {
  if (lua_isnil(L, index)) return OPERATION_ABSENT;
  if (lua_isboolean(L, index)) return lua_toboolean(L, index) ? 1 : 0;
  lua_Number number = luaL_checknumber(L, index);
  return number < 0 ? (uint64_t)(int64_t)number : (uint64_t)number;
}

static uint64_t history_field(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  uint64_t value = history_value(L, lua_gettop(L));
  lua_pop(L, 1);
  return value;
}

static uint64_t history_number(lua_State *L, int table, const char *name,
                               uint64_t otherwise) {
  uint64_t value = history_field(L, table, name);
  return value == OPERATION_ABSENT ? otherwise : value;
}

static uint8_t history_kind(lua_State *L, int table) {
  int kind = 0;
  lua_getfield(L, table, "kind");
  const char *name = luaL_checkstring(L, -1);
  while (kind < OPERATION_KINDS &&
         strcmp(name, operation_name((enum operation_kind)kind)) != 0)
    kind++;
  if (kind == OPERATION_KINDS) luaL_error(L, "no kind of operation: %s", name);
  lua_pop(L, 1);
  return (uint8_t)kind;
}

static size_t history_take_snapshot(lua_State *L, struct operation *out,
                                    size_t key_count) {
  struct operation operation = *out;
  lua_getfield(L, -1, "values");
  luaL_checktype(L, -1, LUA_TTABLE);
  for (size_t key = 0; key < key_count; key++) {
    lua_rawgeti(L, -1, (int)key + 1);
    out[key] = operation;
    out[key].key = (uint16_t)key;
    out[key].parts = key == 0 ? (uint16_t)key_count : 0;
    out[key].result = lua_isboolean(L, -1) ? OPERATION_ABSENT
                                           : history_value(L, lua_gettop(L));
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return key_count;
}

static size_t history_take_move(lua_State *L, struct operation *out,
                                size_t key_count) {
  int table = lua_gettop(L);
  out[1] = out[0];
  out[0].parts = 2;
  out[1].key = (uint16_t)history_number(L, table, "other", 0);
  out[1].argument = history_field(L, table, "other_value");
  out[1].result = history_field(L, table, "other_result");
  if (out[1].key >= key_count || out[1].key == out[0].key)
    luaL_error(L, "no such other key");
  return 2;
}

/* The table on top of the stack, as so many operations at `out`. */
static size_t history_take(lua_State *L, struct operation *out,
                           size_t key_count) {
  int table = lua_gettop(L);
  struct operation operation = {
      .begin_ns = history_number(L, table, "from", 0),
      .end_ns = history_number(L, table, "to", OPERATION_NEVER),
      .argument = history_field(L, table, "value"),
      .expected = history_field(L, table, "expected"),
      .result = history_field(L, table, "result"),
      .key = (uint16_t)history_number(L, table, "key", 0),
      .client = (uint16_t)history_number(L, table, "client", 0),
      .kind = history_kind(L, table)};
  operation.is_unknown = operation.end_ns == OPERATION_NEVER ||
                         history_number(L, table, "unknown", 0) == 1;
  if (operation.key >= key_count) luaL_error(L, "no such key");
  *out = operation;
  if (operation.kind == OPERATION_SNAPSHOT)
    return history_take_snapshot(L, out, key_count);
  if (operation.kind == OPERATION_MOVE)
    return history_take_move(L, out, key_count);
  return 1;
}

static int history_push(lua_State *L, const struct linearizable_result *result,
                        const char *report, size_t size) {
  if (result->verdict == LINEARIZABLE_UNDECIDED)
    lua_pushnil(L);
  else
    lua_pushboolean(L, result->verdict == LINEARIZABLE_RIGHT);
  lua_pushlstring(L, report, size);
  lua_newtable(L);
  lua_pushnumber(L, (lua_Number)result->windows);
  lua_setfield(L, -2, "windows");
  lua_pushnumber(L, (lua_Number)result->longest_window);
  lua_setfield(L, -2, "longest_window");
  lua_pushnumber(L, (lua_Number)result->widest);
  lua_setfield(L, -2, "widest");
  lua_pushnumber(L, (lua_Number)result->visited);
  lua_setfield(L, -2, "visited");
  return 3;
}

static int history_check(lua_State *L) {
  struct linearizable_result result;
  uint64_t initial[LINEARIZABLE_KEYS_MAX];
  luaL_checktype(L, 1, LUA_TTABLE);
  if (lua_isnoneornil(L, 2)) {
    lua_settop(L, 1);
    lua_newtable(L);
  }
  size_t given = fields_length(L, 1), count = 0, size;
  size_t keys = (size_t)history_number(L, 2, "keys", 1);
  bool is_joint = history_number(L, 2, "joint", 0) == 1;
  luaL_argcheck(L, keys > 0 && keys <= LINEARIZABLE_KEYS_MAX, 2,
                "1 to 16 keys");
  /* Collected by Lua, for errors may leave this function. */
  struct operation *operations =
      lua_newuserdata(L, (given * keys + 1) * sizeof *operations);
  for (size_t i = 0; i < given; i++) {
    lua_rawgeti(L, 1, (int)i + 1);
    count += history_take(L, operations + count, keys);
    lua_pop(L, 1);
  }
  lua_getfield(L, 2, "initial");
  for (size_t key = 0; key < keys; key++) {
    initial[key] = OPERATION_ABSENT;
    if (!lua_istable(L, -1)) continue;
    lua_rawgeti(L, -1, (int)key + 1);
    initial[key] = history_value(L, lua_gettop(L));
    lua_pop(L, 1);
  }
  char *report = NULL;
  FILE *stream = open_memstream(&report, &size);
  if (stream == NULL) return luaL_error(L, "no memory");
  linearizable_check_all(operations, count, (unsigned)keys, is_joint, initial,
                         stream, &result);
  fclose(stream);
  int pushed = history_push(L, &result, report, size);
  free(report);
  return pushed;
}

void probe_history_open(lua_State *L) {
  lua_pushcfunction(L, history_check);
  lua_setfield(L, -2, "check");
}
