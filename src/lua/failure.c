/* SPDX-License-Identifier: MIT */
/*
 * Failures of the engine as texts for people. The detail that
 * mmcmap_last_error() keeps is used only if it belongs to the code at hand.
 */
#include "failure.h"

#include "mmcmap.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Pushes what is known beyond the code, in brackets, or an empty string. */
static void failure_push_detail(lua_State *L, int code) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  const char *what = error.what ? error.what : "";
  if (error.code != code || (!*what && !error.system_errno)) {
    lua_pushliteral(L, "");
  } else if (error.system_errno) {
    lua_pushfstring(L, " (%s: %s)", what, strerror(error.system_errno));
  } else if (code == MMCMAP_ECORRUPT) {
    char offset[24];
    snprintf(offset, sizeof offset, "%" PRIu64, error.offset);
    lua_pushfstring(L, " (%s, at byte %s)", what, offset);
  } else {
    lua_pushfstring(L, " (%s)", what);
  }
}

static void failure_push_message(lua_State *L, const char *path, int code) {
  failure_push_detail(L, code);
  lua_pushfstring(L, "%s: %s%s", path, mmcmap_strerror(code),
                  lua_tostring(L, -1));
  lua_remove(L, -2);
}

int failure_return(lua_State *L, const char *path, int code) {
  lua_pushnil(L);
  failure_push_message(L, path, code);
  lua_pushstring(L, mmcmap_error_name(code));
  return 3;
}

int failure_raise(lua_State *L, const char *path, int code) {
  failure_push_message(L, path, code);
  return luaL_error(L, "%s", lua_tostring(L, -1));
}
