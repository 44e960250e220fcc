/* SPDX-License-Identifier: MIT */
/*
 * Fields of Lua tables for the areas of the probe that show whole structures:
 * numbers as 16 hexadecimal digits (as probe.h has it; plain numbers are taken
 * too, and a missing field is 0), byte strings as strings.
 */
#ifndef SUPPORT_PROBE_FIELDS_H
#define SUPPORT_PROBE_FIELDS_H

#include <stdint.h>
#include <string.h>

#include "format/superblock.h"
#include "probe.h"

/* Bytes of a string, length of an array. */
static inline size_t fields_length(lua_State *L, int index) {
#if LUA_VERSION_NUM < 502
  return lua_objlen(L, index);
#else
  return lua_rawlen(L, index);
#endif
}

static inline uint64_t fields_u64(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  uint64_t value = probe_opt_u64(L, lua_gettop(L), 0);
  lua_pop(L, 1);
  return value;
}

/* Leaves `out` as it is if the field is missing; pads with zeros. */
static inline void fields_bytes(lua_State *L, int table, const char *name,
                                uint8_t *out, size_t size) {
  size_t got;
  lua_getfield(L, table, name);
  const char *bytes = lua_tolstring(L, -1, &got);
  if (bytes != NULL) memcpy(out, bytes, got < size ? got : size);
  lua_pop(L, 1);
}

/* These set a field of the table on top of the stack. */
static inline void fields_set_u64(lua_State *L, const char *name,
                                  uint64_t value) {
  probe_push_u64(L, value);
  lua_setfield(L, -2, name);
}

static inline void fields_set_bytes(lua_State *L, const char *name,
                                    const void *bytes, size_t size) {
  lua_pushlstring(L, bytes, size);
  lua_setfield(L, -2, name);
}

/* Pushes a table of all fields. Defined in probe_format.c. */
void fields_push_superblock(lua_State *L, const struct superblock *in);

#endif
