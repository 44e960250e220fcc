/* SPDX-License-Identifier: MIT */
/*
 * The trie's methods of the bare engine (probe_engine.h):
 *
 *   put(key, value)      true if the key is new, false if not
 *   remove(key)          true, or nil, "NOTFOUND"
 *   get(key [, root])    the value, or nil and the code's name
 *   get_during(key, f)   the same, of a reader that has loaded the root and the
 *                        file's size when f() is called
 *   records([root [, count]])  {key = value}, and how many, by a cursor
 *   walk(root, most)     how many records a cursor finds, up to `most`, and
 *                        the name of what ended it
 *   diff(old root, new root [, nodes])  {key = {old, new}}, false for what is not
 *                        there, and how many
 *   shape([root])        the form of the trie without any offset or epoch
 *   set_root(slot, count)
 *   primary(key), secondary(key)
 *   offset_of(key)       of its record
 *   branch_epochs(key)   of the branches on the key's way, from the root
 */
#include <string.h>

#include "base/errors.h"
#include "probe.h"
#include "probe_engine.h"
#include "probe_fields.h"
#include "trie/diff.h"

static struct trie_key trie_check_key(lua_State *L, struct engine *engine) {
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  return trie_key_of(&engine->hasher, data, size);
}

static uint64_t trie_opt_root(lua_State *L, struct engine *engine, int arg) {
  return probe_opt_u64(L, arg, atomic_load(&engine->root));
}

static int trie_do_put(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct trie_key key = trie_check_key(L, engine);
  size_t size;
  bool created;
  const char *value = luaL_checklstring(L, 3, &size);
  int code = trie_put(&engine->trie, &key, value, (uint32_t)size, &created);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushboolean(L, created);
  return 1;
}

static int trie_do_remove(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct trie_key key = trie_check_key(L, engine);
  int code = trie_remove(&engine->trie, &key);
  return probe_result(L, code);
}

static int trie_get(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct trie_key key = trie_check_key(L, engine);
  struct node_source source = space_source(&engine->space);
  struct record_view record;
  int code = trie_lookup(&source, &engine->hasher, trie_opt_root(L, engine, 3),
                         &key, &record);
  if (code == MMCMAP_OK)
    code = record_verify(&source, &record, &engine->hasher);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, (const char *)record.value, record.value_size);
  return 1;
}

static int trie_get_during(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct trie_key key = trie_check_key(L, engine);
  uint64_t root = atomic_load(&engine->root);
  struct node_source source = space_source(&engine->space);
  struct record_view record;
  lua_settop(L, 3);
  lua_call(L, 0, 0);
  int code = trie_lookup(&source, &engine->hasher, root, &key, &record);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, (const char *)record.value, record.value_size);
  return 1;
}

static int trie_offset_of(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct trie_key key = trie_check_key(L, engine);
  struct node_source source = space_source(&engine->space);
  struct record_view record;
  int code = trie_lookup(&source, &engine->hasher, atomic_load(&engine->root),
                         &key, &record);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, record.offset);
  return 1;
}

static int trie_records(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct node_source source = space_source(&engine->space);
  struct trie_cursor cursor;
  struct record_view record;
  int code, count = 0;
  trie_cursor_init(&cursor, trie_opt_root(L, engine, 2),
                   probe_opt_u64(L, 3, engine->count));
  lua_newtable(L);
  while ((code = trie_cursor_next(&cursor, &source, &record)) == MMCMAP_OK) {
    lua_pushlstring(L, (const char *)record.key, record.key_size);
    lua_pushlstring(L, (const char *)record.value, record.value_size);
    lua_rawset(L, -3);
    count++;
  }
  if (code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  if (trie_cursor_next(&cursor, &source, &record) != MMCMAP_NOTFOUND)
    return luaL_error(L, "the cursor left its end");
  lua_pushinteger(L, count);
  return 2;
}

static int trie_walk(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct node_source source = space_source(&engine->space);
  struct trie_cursor cursor;
  struct record_view record;
  uint64_t most = probe_check_u64(L, 3), count = 0;
  int code = MMCMAP_OK;
  trie_cursor_init(&cursor, probe_check_u64(L, 2), most);
  while ((code = trie_cursor_next(&cursor, &source, &record)) == MMCMAP_OK)
    count++;
  if (trie_cursor_next(&cursor, &source, &record) != code)
    return luaL_error(L, "the cursor left its end");
  lua_pushnumber(L, (lua_Number)count);
  lua_pushstring(L, mmcmap_error_name(code));
  return 2;
}

static void trie_push_value(lua_State *L, bool is_there,
                            const struct record_view *record, int index) {
  if (is_there)
    lua_pushlstring(L, (const char *)record->value, record->value_size);
  else
    lua_pushboolean(L, false);
  lua_rawseti(L, -2, index);
}

static int trie_do_diff(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct node_source source = space_source(&engine->space);
  struct trie_diff diff;
  struct trie_change change;
  int code, count = 0;
  trie_diff_init(&diff, probe_check_u64(L, 2), probe_check_u64(L, 3),
                 probe_opt_u64(L, 4, 1000000));
  lua_newtable(L);
  while ((code = trie_diff_next(&diff, &source, &engine->hasher, &change)) ==
         MMCMAP_OK) {
    const struct record_view *any =
        change.has_new ? &change.new_record : &change.old_record;
    lua_pushlstring(L, (const char *)any->key, any->key_size);
    lua_newtable(L);
    trie_push_value(L, change.has_old, &change.old_record, 1);
    trie_push_value(L, change.has_new, &change.new_record, 2);
    lua_rawset(L, -3);
    count++;
  }
  if (code != MMCMAP_NOTFOUND) return probe_fail(L, code);
  lua_pushinteger(L, count);
  return 2;
}

/* Adds the form below `slot` to the buffer: a branch as its level, bitmap,
   place and children, a record as its tag and key. */
static int trie_add_shape(lua_State *L, luaL_Buffer *buffer,
                          const struct node_source *source, uint64_t slot,
                          unsigned level) {
  char text[120];
  if (slot_is_record(slot)) {
    struct record_view record;
    int code = node_record(source, slot_offset(slot), &record);
    if (code != MMCMAP_OK) return code;
    snprintf(text, sizeof text, "%04x:", slot_tag(slot));
    luaL_addstring(buffer, text);
    luaL_addlstring(buffer, (const char *)record.key, record.key_size);
    luaL_addchar(buffer, ';');
    return MMCMAP_OK;
  }
  struct branch_view branch;
  int code = level > COLLISION_LEVEL
                 ? MMCMAP_ECORRUPT
                 : node_branch(source, slot_offset(slot), level, &branch);
  if (code != MMCMAP_OK) return code;
  struct branch_place place = branch_read_place(&branch);
  snprintf(text, sizeof text, "[%u %llx %llx %llx %u ", level,
           (unsigned long long)branch.bitmap, (unsigned long long)place.primary,
           (unsigned long long)place.secondary, place.map_id);
  luaL_addstring(buffer, text);
  for (unsigned i = 0; code == MMCMAP_OK && i < branch.slot_count; i++)
    code =
        trie_add_shape(L, buffer, source, branch_slot(&branch, i), level + 1);
  luaL_addchar(buffer, ']');
  return code;
}

static int trie_shape(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct node_source source = space_source(&engine->space);
  uint64_t root = trie_opt_root(L, engine, 2);
  luaL_Buffer buffer;
  lua_settop(L, 1);
  luaL_buffinit(L, &buffer);
  int code = root == SLOT_EMPTY ? MMCMAP_OK
                                : trie_add_shape(L, &buffer, &source, root, 0);
  luaL_pushresult(&buffer);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int trie_set_root(lua_State *L) {
  struct engine *engine = engine_check(L);
  atomic_store(&engine->root, probe_check_u64(L, 2));
  engine->count = probe_check_u64(L, 3);
  return 0;
}

static int trie_primary(lua_State *L) {
  struct engine *engine = engine_check(L);
  probe_push_u64(L, trie_check_key(L, engine).primary);
  return 1;
}

static int trie_secondary(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct trie_key key = trie_check_key(L, engine);
  probe_push_u64(L, trie_key_secondary(&engine->hasher, &key));
  return 1;
}

static int trie_branch_epochs(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct trie_key key = trie_check_key(L, engine);
  struct trie_path path;
  int code = trie_find_path(&engine->trie, &key, &path);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_newtable(L);
  for (unsigned i = 0; i < path.depth; i++) {
    lua_pushinteger(L, (lua_Integer)path.steps[i].epoch);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

void probe_trie_methods(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"put", trie_do_put},
      {"remove", trie_do_remove},
      {"get", trie_get},
      {"get_during", trie_get_during},
      {"records", trie_records},
      {"walk", trie_walk},
      {"shape", trie_shape},
      {"diff", trie_do_diff},
      {"set_root", trie_set_root},
      {"primary", trie_primary},
      {"secondary", trie_secondary},
      {"offset_of", trie_offset_of},
      {"branch_epochs", trie_branch_epochs},
      {NULL, NULL},
  };
  luaL_setfuncs(L, methods, 0);
}
