/* SPDX-License-Identifier: MIT */
/*
 * Keys go to the engine in groups, so that neither Lua's stack nor the memory of
 * the call grows with their number. Of each group the values are first copied
 * one behind the other into the scratch, then made strings, and then decoded and
 * put into the table: while code of Lua's may run nothing is pinned, and none of
 * the scratch's bytes is needed any more.
 */
#include "lua_many.h"

#include "lua_records.h"

enum { MANY_GROUP = 64, MANY_KEYS = 2, MANY_RESULT = 3 };

struct many {
  struct scratch *scratch;
  mmcmap_slice keys[MANY_GROUP];
  size_t sizes[MANY_GROUP]; /* of the values */
  bool found[MANY_GROUP];
};

static int many_copy(void *context, size_t index, mmcmap_slice value) {
  struct many *many = context;
  many->found[index] = true;
  many->sizes[index] = value.size;
  return scratch_append(many->scratch, value);
}

/* Pushes key `i` of the caller's, as it is and as a string. */
static void many_push_key(lua_State *L, int i, mmcmap_slice *key) {
  lua_rawgeti(L, MANY_KEYS, i);
  lua_pushvalue(L, -1);
  key->data = lua_tolstring(L, -1, &key->size);
  if (!key->data)
    luaL_error(L, "bad key #%d (string expected, got %s)", i,
               luaL_typename(L, -1));
}

/* Makes the values strings, on top of the stack. */
static void many_push_values(lua_State *L, const struct many *many, int count) {
  size_t from = 0;
  scratch_begin_pushing(many->scratch);
  for (int i = 0; i < count; i++) {
    if (!many->found[i]) continue;
    scratch_push_bytes(L, &many->scratch->buffer, from, many->sizes[i]);
    from += many->sizes[i];
  }
  scratch_end_pushing(many->scratch);
}

/* One group, keys `first` and the next. What it pushes, the caller pops. */
static int many_get_group(lua_State *L, lua_store *store, lua_many_read *read,
                          void *self, int first, int count) {
  struct many many = {.scratch = NULL};
  int bottom = lua_gettop(L);
  for (int i = 0; i < count; i++)
    many_push_key(L, first + i, &many.keys[i]);
  many.scratch = scratch_take(L, &store->scratch);
  many.scratch->buffer.size = 0;
  int code = read(L, self, many.keys, (size_t)count, many_copy, &many);
  if (code < 0) return code;
  int value = lua_gettop(L);
  many_push_values(L, &many, count);
  for (int i = 0; i < count; i++) {
    if (!many.found[i]) continue;
    lua_pushvalue(L, bottom + 1 + 2 * i);
    lua_pushvalue(L, ++value);
    if (store->has_codec) lua_records_decode(L, 1);
    lua_rawset(L, MANY_RESULT);
  }
  return MMCMAP_OK;
}

int lua_many_get(lua_State *L, lua_store *store, lua_many_read *read,
                 void *self) {
  luaL_checktype(L, MANY_KEYS, LUA_TTABLE);
  lua_settop(L, MANY_KEYS);
  int count = (int)compat_rawlen(L, MANY_KEYS);
  lua_createtable(L, 0, count);
  luaL_checkstack(L, 3 * MANY_GROUP + LUA_MINSTACK, "get_many");
  for (int first = 1; first <= count; first += MANY_GROUP) {
    int left = count - first + 1;
    int code = many_get_group(L, store, read, self, first,
                              left < MANY_GROUP ? left : MANY_GROUP);
    if (code < 0) return lua_store_fail(L, code);
    lua_settop(L, MANY_RESULT);
  }
  return 1;
}
