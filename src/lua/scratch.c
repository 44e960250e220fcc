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

static int scratch_gc(lua_State *L) {
  struct scratch *scratch = lua_touserdata(L, 1);
  mmcmap_buffer_free(&scratch->buffer);
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

int scratch_fill(struct scratch *scratch, mmcmap_slice first,
                 mmcmap_slice second) {
  mmcmap_buffer *buffer = &scratch->buffer;
  if (second.size > SIZE_MAX - first.size) return MMCMAP_ENOMEM;
  size_t size = first.size + second.size;
  if (size > buffer->capacity) {
    size_t capacity = size <= SCRATCH_KEEP_BYTES / 2 ? 2 * size : size;
    void *data = realloc(buffer->data, capacity);
    if (!data) return MMCMAP_ENOMEM;
    buffer->data = data;
    buffer->capacity = capacity;
  }
  if (first.size) memcpy(buffer->data, first.data, first.size);
  if (second.size)
    memcpy((char *)buffer->data + first.size, second.data, second.size);
  buffer->size = size;
  return MMCMAP_OK;
}

static void scratch_done(struct scratch *scratch) {
  scratch->busy = false;
  if (scratch->buffer.capacity > SCRATCH_KEEP_BYTES)
    mmcmap_buffer_free(&scratch->buffer);
}

/* lua_pushlstring() wants a pointer even for no bytes. */
static const char *scratch_bytes(const struct scratch *scratch) {
  return scratch->buffer.data ? scratch->buffer.data : "";
}

void scratch_push(lua_State *L, struct scratch *scratch) {
  scratch->busy = true;
  lua_pushlstring(L, scratch_bytes(scratch), scratch->buffer.size);
  scratch_done(scratch);
}

void scratch_push_two(lua_State *L, struct scratch *scratch,
                      size_t first_size) {
  const char *bytes = scratch_bytes(scratch);
  scratch->busy = true;
  lua_pushlstring(L, bytes, first_size);
  lua_pushlstring(L, bytes + first_size, scratch->buffer.size - first_size);
  scratch_done(scratch);
}

void scratch_release(struct scratch *scratch) {
  if (!scratch->busy) mmcmap_buffer_free(&scratch->buffer);
}
