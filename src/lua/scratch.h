/* SPDX-License-Identifier: MIT */
/*
 * Bytes on their way from the engine to Lua. Making a Lua string may raise for
 * want of memory, and may run finalizers that call the same store again or
 * close it. So a value is first copied out of the engine into memory that a
 * userdata owns, and only then made a string: nothing leaks, nothing is
 * locked, and no pointer into the mapped file is used any more.
 *
 * Every store has one scratch and reuses it. While a string is being made of
 * it, it is busy, and a call from a finalizer takes another one, anchored on
 * its own Lua stack. After an error for want of memory it stays busy for good:
 * the store then works on, with a scratch for each call.
 */
#ifndef LUA_SCRATCH_H
#define LUA_SCRATCH_H

#include "compat.h"
#include "mmcmap.h"

struct scratch {
  mmcmap_buffer buffer;
  bool busy; /* strings are being made of `buffer` */
};

/* Makes the metatable of scratches that are userdata. Once per state. */
void scratch_register(lua_State *L);

/* Returns `own`, or if it is busy another, whose userdata is pushed. */
struct scratch *scratch_take(lua_State *L, struct scratch *own);

/* Copies `first` and `second`, one after the other. MMCMAP_ENOMEM. */
int scratch_fill(struct scratch *scratch, mmcmap_slice first,
                 mmcmap_slice second);

/* Pushes the bytes in the buffer as a string. */
void scratch_push(lua_State *L, struct scratch *scratch);

/* Pushes the first `first_size` bytes as a string and the rest as another. */
void scratch_push_two(lua_State *L, struct scratch *scratch, size_t first_size);

/* Frees the memory, unless it is busy. */
void scratch_release(struct scratch *scratch);

#endif
