/* SPDX-License-Identifier: MIT */
/*
 * The scratch of a store, and the ones that calls from finalizers make for
 * themselves. Those are freed by their __gc at the latest.
 */
#include "scratch.h"

#include <stdlib.h>
#include <string.h>

/* A buffer that has grown beyond this is not kept for the next call. */
#define SCRATCH_KEEP_BYTES ((size_t)1 << 20)

/* The address is the key of the metatable in Lua's registry. */
static char scratch_key;

void scratch_free(struct scratch *scratch) {
  mmcmap_buffer_free(&scratch->buffer);
  mmcmap_buffer_free(&scratch->key);
}

static int scratch_gc(lua_State *L) {
  scratch_free(lua_touserdata(L, 1));
  return 0;
}

void scratch_register(lua_State *L) {
  lua_pushlightuserdata(L, &scratch_key);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, scratch_gc);
  lua_setfield(L, -2, "__gc");
  lua_rawset(L, LUA_REGISTRYINDEX);
}

struct scratch *scratch_take(lua_State *L, struct scratch *own) {
  if (!own->busy) return own;
  struct scratch *other = lua_newuserdata(L, sizeof *other);
  memset(other, 0, sizeof *other);
  lua_pushlightuserdata(L, &scratch_key);
  lua_rawget(L, LUA_REGISTRYINDEX);
  lua_setmetatable(L, -2);
  return other;
}

int scratch_append(struct scratch *scratch, mmcmap_slice bytes) {
  mmcmap_buffer *buffer = &scratch->buffer;
  if (bytes.size > SIZE_MAX / 2 - buffer->size) return MMCMAP_ENOMEM;
  size_t size = buffer->size + bytes.size;
  if (size > buffer->capacity) {
    void *data = realloc(buffer->data, 2 * size);
    if (!data) return MMCMAP_ENOMEM;
    buffer->data = data;
    buffer->capacity = 2 * size;
  }
  if (bytes.size)
    memcpy((char *)buffer->data + buffer->size, bytes.data, bytes.size);
  buffer->size = size;
  return MMCMAP_OK;
}

void scratch_begin_pushing(struct scratch *scratch) { scratch->busy = true; }

void scratch_end_pushing(struct scratch *scratch) {
  scratch->busy = false;
  if (scratch->buffer.capacity > SCRATCH_KEEP_BYTES)
    mmcmap_buffer_free(&scratch->buffer);
}

/* lua_pushlstring() wants a pointer even for no bytes. */
void scratch_push_bytes(lua_State *L, const mmcmap_buffer *buffer, size_t from,
                        size_t size) {
  const char *bytes = buffer->data ? buffer->data : "";
  lua_pushlstring(L, bytes + from, size);
}

void scratch_push(lua_State *L, struct scratch *scratch) {
  scratch_begin_pushing(scratch);
  scratch_push_bytes(L, &scratch->buffer, 0, scratch->buffer.size);
  scratch_end_pushing(scratch);
}

void scratch_push_record(lua_State *L, struct scratch *scratch) {
  scratch_begin_pushing(scratch);
  scratch_push_bytes(L, &scratch->key, 0, scratch->key.size);
  scratch_push_bytes(L, &scratch->buffer, 0, scratch->buffer.size);
  scratch_end_pushing(scratch);
}

void scratch_release(struct scratch *scratch) {
  if (!scratch->busy) scratch_free(scratch);
}
