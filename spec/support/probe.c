/* SPDX-License-Identifier: MIT */
/*
 * The frame of the test-only module: it opens the areas, and turns numbers,
 * codes and errnos into Lua's values and back for all of them.
 */
#include "probe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  int value;
} probe_errnos[] = {
#define PROBE_ERRNO(name) \
  { #name, name }
    PROBE_ERRNO(EACCES),     PROBE_ERRNO(EAGAIN),       PROBE_ERRNO(EBADF),
    PROBE_ERRNO(EBUSY),      PROBE_ERRNO(EDQUOT),       PROBE_ERRNO(EEXIST),
    PROBE_ERRNO(EFAULT),     PROBE_ERRNO(EFBIG),        PROBE_ERRNO(EINTR),
    PROBE_ERRNO(EINVAL),     PROBE_ERRNO(EIO),          PROBE_ERRNO(EISDIR),
    PROBE_ERRNO(EMFILE),     PROBE_ERRNO(ENODEV),       PROBE_ERRNO(ENOENT),
    PROBE_ERRNO(ENOLCK),     PROBE_ERRNO(ENOMEM),       PROBE_ERRNO(ENOSPC),
    PROBE_ERRNO(ENOSYS),     PROBE_ERRNO(ENOTDIR),      PROBE_ERRNO(ENXIO),
    PROBE_ERRNO(EOPNOTSUPP), PROBE_ERRNO(EPERM),        PROBE_ERRNO(EROFS),
    PROBE_ERRNO(ETXTBSY),    PROBE_ERRNO(ENAMETOOLONG),
};

enum { PROBE_ERRNO_COUNT = sizeof probe_errnos / sizeof probe_errnos[0] };

/* ---- Numbers ----------------------------------------------------------- */

static uint64_t probe_u64_of_number(lua_State *L, int arg) {
#if LUA_VERSION_NUM >= 503
  if (lua_isinteger(L, arg)) return (uint64_t)lua_tointeger(L, arg);
#endif
  lua_Number number = lua_tonumber(L, arg);
  luaL_argcheck(
      L,
      number >= 0 && number < 0x1p64 && number == (lua_Number)(uint64_t)number,
      arg, "not a 64-bit number");
  return (uint64_t)number;
}

uint64_t probe_check_u64(lua_State *L, int arg) {
  if (lua_type(L, arg) == LUA_TNUMBER) return probe_u64_of_number(L, arg);
  size_t size;
  const char *text = luaL_checklstring(L, arg, &size);
  luaL_argcheck(L, size == 16 && strspn(text, "0123456789abcdefABCDEF") == 16,
                arg, "not 16 hexadecimal digits");
  return strtoull(text, NULL, 16);
}

uint64_t probe_opt_u64(lua_State *L, int arg, uint64_t otherwise) {
  return lua_isnoneornil(L, arg) ? otherwise : probe_check_u64(L, arg);
}

void probe_push_u64(lua_State *L, uint64_t value) {
  char text[17];
  snprintf(text, sizeof text, "%016" PRIx64, value);
  lua_pushlstring(L, text, 16);
}

int probe_check_int(lua_State *L, int arg) {
  lua_Number number = luaL_checknumber(L, arg);
  luaL_argcheck(
      L,
      number >= -0x1p31 && number < 0x1p31 && number == (lua_Number)(int)number,
      arg, "not a 32-bit number");
  return (int)number;
}

uint32_t probe_check_u32(lua_State *L, int arg) {
  lua_Number number = luaL_checknumber(L, arg);
  luaL_argcheck(
      L,
      number >= 0 && number < 0x1p32 && number == (lua_Number)(uint32_t)number,
      arg, "not an unsigned 32-bit number");
  return (uint32_t)number;
}

size_t probe_check_size(lua_State *L, int arg) {
  return (size_t)probe_check_u64(L, arg);
}

bool probe_check_bool(lua_State *L, int arg) {
  luaL_checktype(L, arg, LUA_TBOOLEAN);
  return lua_toboolean(L, arg);
}

mmcmap_number probe_check_number(lua_State *L, int arg) {
  mmcmap_number number = {.is_float = lua_type(L, arg) == LUA_TNUMBER};
  if (number.is_float)
    number.real = (double)lua_tonumber(L, arg);
  else
    number.integer = (int64_t)probe_check_u64(L, arg);
  return number;
}

void probe_push_number(lua_State *L, const mmcmap_number *number) {
  if (number->is_float)
    lua_pushnumber(L, (lua_Number)number->real);
  else
    probe_push_u64(L, (uint64_t)number->integer);
}

/* ---- Errors ------------------------------------------------------------ */

int probe_check_errno(lua_State *L, int arg) {
  if (lua_type(L, arg) == LUA_TNUMBER) return probe_check_int(L, arg);
  const char *name = luaL_checkstring(L, arg);
  for (int i = 0; i < PROBE_ERRNO_COUNT; i++)
    if (strcmp(name, probe_errnos[i].name) == 0) return probe_errnos[i].value;
  return luaL_argerror(L, arg, "no errno that the probe knows");
}

void probe_push_errno(lua_State *L, int system_errno) {
  for (int i = 0; i < PROBE_ERRNO_COUNT; i++) {
    if (probe_errnos[i].value == system_errno) {
      lua_pushstring(L, probe_errnos[i].name);
      return;
    }
  }
  lua_pushinteger(L, system_errno);
}

int probe_fail(lua_State *L, int code) {
  mmcmap_error last;
  mmcmap_last_error(&last);
  lua_pushnil(L);
  lua_pushstring(L, mmcmap_error_name(code));
  lua_pushstring(L, last.code == code ? last.what : "(not noted)");
  return 3;
}

int probe_result(lua_State *L, int code) {
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- The module -------------------------------------------------------- */

/* What kind of build this is: some specs cannot work under a sanitizer. */
static const char *probe_sanitizer(void) {
#if defined(__SANITIZE_ADDRESS__)
  return "address";
#elif defined(__SANITIZE_THREAD__)
  return "thread";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  return "address";
#elif __has_feature(thread_sanitizer)
  return "thread";
#else
  return NULL;
#endif
#else
  return NULL;
#endif
}

__attribute__((visibility("default"))) int luaopen_mmcmap_probe(lua_State *L);

int luaopen_mmcmap_probe(lua_State *L) {
  lua_newtable(L);
#define PROBE_OPEN(area) \
  lua_newtable(L); \
  probe_##area##_open(L); \
  lua_setfield(L, -2, #area);
  PROBE_AREAS(PROBE_OPEN)
  lua_pushstring(L, probe_sanitizer());
  lua_setfield(L, -2, "sanitizer");
  return 1;
}
