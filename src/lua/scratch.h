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
  mmcmap_buffer buffer; /* a value, or several */
  mmcmap_buffer key;
  bool busy; /* strings are being made of the buffers */
};

/* Makes the metatable of scratches that are userdata. Once per state. */
void scratch_register(lua_State *L);

/* Returns `own`, or if it is busy another, whose userdata is pushed. */
struct scratch *scratch_take(lua_State *L, struct scratch *own);

/* Copies `bytes` behind those in the buffer. MMCMAP_ENOMEM. */
int scratch_append(struct scratch *scratch, mmcmap_slice bytes);

/* Pushes the bytes in the buffer as a string. */
void scratch_push(lua_State *L, struct scratch *scratch);

/* Pushes the key as a string, and the bytes in the buffer as another. */
void scratch_push_record(lua_State *L, struct scratch *scratch);

/* Around making strings of a part of the buffers: scratch_push_bytes(). */
void scratch_begin_pushing(struct scratch *scratch);
void scratch_end_pushing(struct scratch *scratch);
void scratch_push_bytes(lua_State *L, const mmcmap_buffer *buffer, size_t from,
                        size_t size);

/* Frees the memory, for good, whatever is made of it. */
void scratch_free(struct scratch *scratch);

/* Frees the memory, unless it is busy. */
void scratch_release(struct scratch *scratch);

#endif
