/* SPDX-License-Identifier: MIT */
/*
 * mmcmap_probe: a Lua module for the specs only, which shows them the inside
 * of the engine. It is a table with one table per area; an area is a file
 * probe_<area>.c and one line in PROBE_AREAS below.
 *
 * 64-bit numbers travel as strings of 16 hexadecimal digits, since Lua 5.1 and
 * LuaJIT have no such integers. Functions of the engine that return a code
 * return true, or what they are asked for, on success; else nil, the code's
 * name ("ENOSPC") and the step that failed.
 */
#ifndef SUPPORT_PROBE_H
#define SUPPORT_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "compat.h"
#include "mmcmap.h"

#define PROBE_AREAS(AREA) \
  AREA(base) \
  AREA(child) \
  AREA(crash) \
  AREA(engine) \
  AREA(format) \
  AREA(history) \
  AREA(os) \
  AREA(readers) \
  AREA(share) \
  AREA(store) \
  AREA(verify) \
  AREA(vm)

/* Adds the area's functions to the table on top of the stack. */
#define PROBE_DECLARE(area) void probe_##area##_open(lua_State *L);
PROBE_AREAS(PROBE_DECLARE)

/* Takes 16 hexadecimal digits, or a number without a fraction. */
uint64_t probe_check_u64(lua_State *L, int arg);
uint64_t probe_opt_u64(lua_State *L, int arg, uint64_t otherwise);
void probe_push_u64(lua_State *L, uint64_t value);

/* A number without a fraction that fits. */
int probe_check_int(lua_State *L, int arg);
uint32_t probe_check_u32(lua_State *L, int arg);
size_t probe_check_size(lua_State *L, int arg);
bool probe_check_bool(lua_State *L, int arg);

/* An integer travels as 16 digits (those of uint64_t), a float as a number. */
mmcmap_number probe_check_number(lua_State *L, int arg);
void probe_push_number(lua_State *L, const mmcmap_number *number);

/* A name such as "ENOSPC", or the number. */
int probe_check_errno(lua_State *L, int arg);

/* "ENOSPC", or the number where the probe knows no name. */
void probe_push_errno(lua_State *L, int system_errno);

/* nil, the code's name, the step that failed: three results. */
int probe_fail(lua_State *L, int code);

/* True on success, else as probe_fail(). The number of results. */
int probe_result(lua_State *L, int code);

#endif
