/* SPDX-License-Identifier: MIT */
/*
 * How failures reach a Lua program. A failure of the world (a full disk, a
 * damaged file) is `nil, message, code` where a function was called, and an
 * error where an operator was used. The message is for people: path, reason,
 * and what is known of the cause. The code is for programs: "ENOSPC".
 */
#ifndef LUA_FAILURE_H
#define LUA_FAILURE_H

#include "compat.h"

/* Both must be called before anything else fails on this thread. */

/* Pushes nil, the message and the code's name; returns 3. */
int failure_return(lua_State *L, const char *path, int code);

/* Raises the message; does not return. */
int failure_raise(lua_State *L, const char *path, int code);

#endif
