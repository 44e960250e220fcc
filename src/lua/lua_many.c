/* SPDX-License-Identifier: MIT */
/*
 * The methods of a store, or of a transaction, that deal with all of its records
 * or with many of them.
 */
#include "lua_many.h"

#include "iterator.h"
#include "lua_records.h"
#include "lua_target.h"
#include "options.h"

/*** @submodule store */

/***
The number of records now, with those that have expired and are not swept yet. The same
as `#db`, which raises if it fails.
@function count
@treturn[1] number
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage print(db:count(), #db)
*/
static int many_count(lua_State *L) {
  lua_store *store = lua_store_check(L);
  uint64_t count;
  int code = target_count(L, store, &count);
  if (code < 0) return lua_store_fail(L, code);
  compat_push_u64(L, count);
  return 1;
}

int lua_many_len(lua_State *L) {
  lua_store *store = lua_store_check(L);
  uint64_t count;
  int code = target_count(L, store, &count);
  if (code < 0) return lua_store_raise(L, code);
  compat_push_u64(L, count);
  return 1;
}

/***
Iterates over keys and values, in no order. The loop sees the store as it was
at the call, whatever is put or deleted meanwhile. The snapshot is let go of at
the end of the loop and, in Lua 5.4, when the loop is left early. (There
`pairs(db)` cannot: Lua's `pairs` drops the value that closes it, so its
snapshot waits for the garbage collector, as before 5.4. For loops that may be
left early, use `db:pairs()`.) Raises if it fails.
@function pairs
@treturn function `iterator.next`
@treturn iterator
@usage
for key, value in db:pairs() do print(key, value) end
for key, value in pairs(db) do print(key, value) end  -- not in Lua 5.1
*/
int lua_many_pairs(lua_State *L) {
  return iterator_open(L, lua_store_check(L), NULL, false);
}

/***
Iterates like `pairs`, over the keys only, and does not read the values.
@function keys
@treturn function `iterator.next`
@treturn iterator
@usage for key in db:keys() do print(key) end
*/
static int many_keys(lua_State *L) {
  return iterator_open(L, lua_store_check(L), NULL, true);
}

/* ---- Getting ------------------------------------------------------------- */

/*
 * Keys go to the engine in groups, so that neither Lua's stack nor the memory of
 * the call grows with their number. Of each group the values are first copied
 * one behind the other into the scratch, then made strings, and then decoded and
 * put into the table: while code of Lua's may run nothing is pinned, and none of
 * the scratch's bytes is needed any more.
 */
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
static int many_get_group(lua_State *L, const struct lua_many_source *source,
                          int first, int count) {
  struct many many = {.scratch = NULL};
  int bottom = lua_gettop(L);
  for (int i = 0; i < count; i++)
    many_push_key(L, first + i, &many.keys[i]);
  many.scratch = scratch_take(L, &source->store->scratch);
  many.scratch->buffer.size = 0;
  int code =
      source->read(L, source->self, many.keys, (size_t)count, many_copy, &many);
  if (code < 0) return code;
  int value = lua_gettop(L);
  many_push_values(L, &many, count);
  for (int i = 0; i < count; i++) {
    if (!many.found[i]) continue;
    lua_pushvalue(L, bottom + 1 + 2 * i);
    lua_pushvalue(L, ++value);
    if (source->has_codec) lua_records_decode(L, 1);
    lua_rawset(L, MANY_RESULT);
  }
  return MMCMAP_OK;
}

int lua_many_get(lua_State *L, const struct lua_many_source *source) {
  luaL_checktype(L, MANY_KEYS, LUA_TTABLE);
  lua_settop(L, MANY_KEYS);
  int count = (int)compat_rawlen(L, MANY_KEYS);
  lua_createtable(L, 0, count);
  luaL_checkstack(L, 3 * MANY_GROUP + LUA_MINSTACK, "get_many");
  for (int first = 1; first <= count; first += MANY_GROUP) {
    int left = count - first + 1;
    int code =
        many_get_group(L, source, first, left < MANY_GROUP ? left : MANY_GROUP);
    if (code < 0) return lua_store_fail(L, code);
    lua_settop(L, MANY_RESULT);
  }
  return 1;
}

static int many_read(lua_State *L, void *self, const mmcmap_slice *keys,
                     size_t count, mmcmap_visit visit, void *context) {
  return target_get_many(L, self, keys, count, visit, context);
}

/***
The values of several keys with one call, which takes less time than a `get` for
each. Not all are read at the same moment: for that use `snapshot:get_many`.
@function get_many
@tparam {string,...} keys an array
@treturn[1] table of those that are there: `{[key] = value, ...}`, the keys as they
were given
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage
local found = db:get_many { "hello", "nobody" }
print(found.hello, found.nobody)   -- world   nil
*/
static int many_get(lua_State *L) {
  lua_store *store = lua_store_check(L);
  struct lua_many_source source = {store, store->has_codec, many_read, store};
  return lua_many_get(L, &source);
}

/* ---- Putting ------------------------------------------------------------- */

/* Lays the keys and values of the table at index 2 one after the other into the
   table at index 3, and returns how many of both there are. Runs no Lua code. */
static size_t many_collect(lua_State *L) {
  size_t count = 0;
  for (lua_pushnil(L); lua_next(L, 2);) {
    lua_pushvalue(L, -2);
    lua_rawseti(L, 3, (int)++count);
    lua_rawseti(L, 3, (int)++count);
  }
  return count;
}

/* Makes item `index` of the table at index 3 a string, which it keeps alive. */
static void many_make_string(lua_State *L, const lua_store *store, size_t index,
                             bool is_value) {
  lua_rawgeti(L, 3, (int)index);
  if (is_value && store->has_codec) lua_records_encode(L);
  (void)lua_store_operand(L, lua_gettop(L), is_value);
  lua_rawseti(L, 3, (int)index);
}

/***
Puts many records, at one instant: all of them or, if it fails, none.
@function put_many
@tparam table records keys and their values, as for `put`
@tparam[opt] table options as for `put`, for all of them
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage db:put_many { hello = "world", [7] = "seven" }
*/
static int many_put(lua_State *L) {
  lua_store *store = lua_store_check(L);
  luaL_checktype(L, 2, LUA_TTABLE);
  uint64_t ttl_ms = options_ttl(L, 3);
  lua_settop(L, 2);
  lua_newtable(L);
  size_t count = many_collect(L);
  mmcmap_slice *slices = lua_newuserdata(L, (count + 1) * sizeof *slices);
  for (size_t i = 0; i < count; i++)
    many_make_string(L, store, i + 1, i % 2 == 1);
  for (size_t i = 0; i < count; i++) {
    mmcmap_slice *slice = &slices[i % 2 * (count / 2) + i / 2];
    lua_rawgeti(L, 3, (int)i + 1);
    slice->data = lua_tolstring(L, -1, &slice->size);
    lua_pop(L, 1);
  }
  int code =
      target_put_many(L, store, slices, slices + count / 2, count / 2, ttl_ms);
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

/***
Deletes all records, at one instant. It then takes some time for each of those
that there were.
@function clear
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage assert(db:clear())
*/
static int many_clear(lua_State *L) {
  lua_store *store = lua_store_check(L);
  int code = target_clear(L, store);
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

const luaL_Reg lua_many_methods[] = {
    {"count", many_count},  {"pairs", lua_many_pairs}, {"keys", many_keys},
    {"get_many", many_get}, {"put_many", many_put},    {"clear", many_clear},
    {NULL, NULL},
};
