/* SPDX-License-Identifier: MIT */
/*
 * Area engine of the probe: a bare engine over a file, see probe_engine.h.
 *
 *   new{path=, segment_size=, max_size=, address_bytes=, primary_mask=,
 *       secondary_mask=, epoch=, head=, limit=}
 * Methods: close, state, ensure, begin_segments, begin_next, set_segment,
 * set_upkeep, victim, alloc, alloc_large, note_large, seal, frames, bytes, poke,
 * recycler_put, recycler_take, recycler_clear, tick, advance, pin, unpin,
 * hold_snapshot, let_snapshot_go; and those of the trie (probe_trie.c).
 */
#include "probe_engine.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "os/file.h"
#include "probe.h"
#include "probe_fields.h"

struct engine *engine_check(lua_State *L) {
  struct engine *engine = luaL_checkudata(L, 1, ENGINE_TYPE);
  luaL_argcheck(L, engine->is_open, 1, "closed");
  return engine;
}

static void engine_init_hasher(lua_State *L, struct engine *engine) {
  uint8_t secret[HASH_SECRET_BYTES];
  for (int i = 0; i < HASH_SECRET_BYTES; i++)
    secret[i] = (uint8_t)(i % 251);
  hasher_init(&engine->hasher, MMCMAP_HASH_XXH3, secret);
  lua_getfield(L, 1, "primary_mask");
  engine->hasher.primary_mask = probe_opt_u64(L, -1, UINT64_MAX);
  lua_getfield(L, 1, "secondary_mask");
  engine->hasher.secondary_mask = probe_opt_u64(L, -1, UINT64_MAX);
  lua_pop(L, 2);
}

static int engine_init_space(lua_State *L, struct engine *engine) {
  struct space *space = &engine->space;
  lua_getfield(L, 1, "path");
  const char *path = luaL_checkstring(L, -1);
  lua_getfield(L, 1, "address_bytes");
  uint64_t address_bytes = probe_opt_u64(L, -1, UINT64_C(1) << 32);
  space->segment_size = (uint32_t)fields_u64(L, 1, "segment_size");
  space->max_size_bytes = fields_u64(L, 1, "max_size");
  space->segment_count = 1;
  int code = file_create(path, 0600, &space->fd);
  if (code == MMCMAP_OK)
    code = file_allocate(space->fd, 0, SPACE_FILE_SIZE_MIN);
  if (code == MMCMAP_OK)
    code = map_open(space->fd, true, address_bytes, SPACE_FILE_SIZE_MIN,
                    &space->map);
  if (code == MMCMAP_OK) space_set_size(space, SPACE_FILE_SIZE_MIN);
  return code;
}

static int engine_new(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  struct engine *engine = lua_newuserdata(L, sizeof *engine);
  memset(engine, 0, sizeof *engine);
  engine->space.fd = -1;
  luaL_getmetatable(L, ENGINE_TYPE);
  lua_setmetatable(L, -2);
  int self = lua_gettop(L);
  engine_init_hasher(L, engine);
  engine->is_open = true;
  engine->space.readers = &engine->readers;
  int code = share_open_private(&engine->share);
  readers_init(&engine->readers, &engine->share);
  if (code == MMCMAP_OK) code = readers_join(&engine->readers);
  if (code == MMCMAP_OK) code = engine_init_space(L, engine);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  engine->space.segment_shift =
      (unsigned)__builtin_ctz(engine->space.segment_size);
  code = share_map_segments(&engine->share, NULL, 0, 4096);
  if (code == MMCMAP_OK) code = usage_ensure(&engine->space);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  /* What is kept in reserve is tried on stores. */
  engine->space.claim = SPACE_FOR_COMMITS;
  space_enter(&engine->space);
  usage_install_uncounted(&engine->space, true);
  log_init(&engine->log, &engine->space, &engine->readers, &engine->hasher);
  engine->trie.log = &engine->log;
  engine->trie.hasher = &engine->hasher;
  engine->trie.map_id = MAP_ID_DEFAULT;
  engine->trie.root = &engine->root;
  engine->trie.count = &engine->count;
  engine->trie.top = &engine->root;
  struct superblock_head heads[SUPERBLOCK_HEADS] = {{0, 0}};
  lua_getfield(L, 1, "head");
  heads[HEAD_LOG].offset =
      probe_opt_u64(L, -1, SEGMENT_FIRST_HEADER_OFFSET + SEGMENT_HEADER_BYTES);
  heads[HEAD_LOG].limit = engine->space.segment_size;
  lua_getfield(L, 1, "epoch");
  uint64_t epoch = probe_opt_u64(L, -1, 1);
  code = log_prepare(&engine->log, UINT64_C(0x5a17), epoch, heads);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  log_start(&engine->log);
  engine->first_frame = engine->log.frame_offset;
  lua_settop(L, self);
  return 1;
}

static int engine_close(lua_State *L) {
  struct engine *engine = luaL_checkudata(L, 1, ENGINE_TYPE);
  if (!engine->is_open) return 0;
  engine->is_open = false;
  if (engine->log.space != NULL) log_destroy(&engine->log);
  readers_destroy(&engine->readers);
  share_close(&engine->share);
  map_close(&engine->space.map);
  if (engine->space.fd >= 0) file_close(engine->space.fd);
  return 0;
}

/* ---- Space and log ----------------------------------------------------- */

static int engine_state(lua_State *L) {
  struct engine *engine = engine_check(L);
  const struct log *log = &engine->log;
  lua_newtable(L);
  fields_set_u64(L, "size", space_size(&engine->space));
  fields_set_u64(L, "segment_count", engine->space.segment_count);
  fields_set_u64(L, "epoch", log->epoch);
  fields_set_u64(L, "frame_offset", log->frame_offset);
  fields_set_u64(L, "cursor", log->cursor);
  fields_set_u64(L, "segment_end", log->segment_end);
  fields_set_u64(L, "branch_end", log->branches.segment_end);
  fields_set_u64(L, "large_offset", log->large.offset);
  fields_set_u64(L, "large_limit", log->large.limit);
  fields_set_u64(L, "written_bytes", log->appended_bytes);
  fields_set_u64(L, "end", log_end(log));
  fields_set_u64(L, "root", atomic_load(&engine->root));
  fields_set_u64(L, "count", atomic_load(&engine->count));
  return 1;
}

static int engine_ensure(lua_State *L) {
  struct engine *engine = engine_check(L);
  return probe_result(L, space_ensure(&engine->space, probe_check_u64(L, 2)));
}

/* begin_segments(kind, run): the first one's number. */
static int engine_begin_segments(lua_State *L) {
  struct engine *engine = engine_check(L);
  enum segment_kind kind = (enum segment_kind)probe_check_int(L, 2);
  uint64_t run = probe_check_u64(L, 3);
  uint64_t number = space_choose_segments(&engine->space, kind, run);
  uint64_t end = (number << engine->space.segment_shift) + EXTENT_PAGE_BYTES;
  int code = space_begin_segments(&engine->space, kind, number, run, end,
                                  engine->log.epoch);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, number);
  return 1;
}

/* begin_next(left): the segment that a head which leaves that one begins. */
static int engine_begin_next(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t number = space_choose_next(&engine->space, probe_check_u64(L, 2));
  uint64_t end = (number << engine->space.segment_shift) + EXTENT_PAGE_BYTES;
  int code = space_begin_segments(&engine->space, SEGMENT_LOG, number, 1, end,
                                  engine->log.epoch);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, number);
  return 1;
}

/* set_segment(number, state, live_bytes): as if it had been left long ago. */
static int engine_set_segment(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct share_segment *entry =
      usage_entry(&engine->space, probe_check_u64(L, 2));
  atomic_store(&entry->first_epoch, 1);
  atomic_store(&entry->last_epoch, 0);
  atomic_store(&entry->live_words, probe_check_int(L, 4) / 8);
  atomic_store(&entry->state, probe_check_u32(L, 3));
  return 0;
}

/* set_upkeep{is_sparse=, is_full=, compacting_ns=, first_free=} */
static int engine_set_upkeep(lua_State *L) {
  struct share_upkeep *upkeep = &engine_check(L)->share.header->upkeep;
  upkeep->is_sparse = (uint32_t)fields_u64(L, 2, "is_sparse");
  upkeep->is_full = (uint32_t)fields_u64(L, 2, "is_full");
  upkeep->compacting_ns = fields_u64(L, 2, "compacting_ns");
  upkeep->first_free = fields_u64(L, 2, "first_free");
  return 0;
}

/* victim(worth_bytes): the best one, all segments being looked at; nil. */
static int engine_victim(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct usage_victim victim;
  engine->log.victims.count = engine->log.victims.next = 0;
  if (!usage_find_victim(&engine->log, probe_check_int(L, 2), &victim))
    return 0;
  probe_push_u64(L, victim.number);
  return 1;
}

static int engine_trim(lua_State *L) {
  struct engine *engine = engine_check(L);
  return probe_result(L, space_trim(&engine->space, probe_check_u64(L, 2)));
}

/* alloc(size): a record of that size, so that the frame can be scanned; its
   offset. */
static int engine_alloc(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t offset, size = probe_check_u64(L, 2);
  luaL_argcheck(L, size >= NODE_HEADER_BYTES && size % 8 == 0, 2, "no node");
  int code = log_alloc(&engine->log, size, &offset);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  struct record_parts parts = {
      .epoch = engine->log.epoch,
      .value_size = (uint32_t)(size - NODE_HEADER_BYTES)};
  parts.value = calloc(1, size);
  if (parts.value == NULL) return luaL_error(L, "no memory");
  record_write(log_at(&engine->log, offset), &parts, &engine->hasher);
  free((void *)(uintptr_t)parts.value);
  probe_push_u64(L, offset);
  return 1;
}

static int engine_alloc_large(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t offset;
  int code = log_alloc_large(&engine->log, probe_check_u64(L, 2), &offset);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, offset);
  return 1;
}

static int engine_note_large(lua_State *L) {
  log_note_large(&engine_check(L)->log);
  return 0;
}

/* seal(): with root and count as they are; and the next epoch's frame. */
static int engine_seal(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct log_root root = {.epoch = engine->log.epoch,
                          .root = atomic_load(&engine->root),
                          .count = atomic_load(&engine->count)};
  if (engine->log.epoch == root.epoch) log_seal(&engine->log);
  return probe_result(L, log_close(&engine->log, &root));
}

/* frames(): the frames closed since the last call: {offset=, epoch=, ...}. */
static int engine_frames(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct node_source source = space_source(&engine->space);
  lua_newtable(L);
  for (int i = 1; engine->first_frame != engine->log.frame_offset; i++) {
    struct frame frame;
    int code =
        frame_read_closed(&source, engine->first_frame,
                          engine->space.segment_size, engine->log.salt, &frame);
    if (code != MMCMAP_OK) return probe_fail(L, code);
    lua_newtable(L);
    fields_set_u64(L, "offset", engine->first_frame);
    fields_set_u64(L, "salt", frame.salt);
    fields_set_u64(L, "epoch", frame.epoch);
    fields_set_u64(L, "flags", frame.flags);
    fields_set_u64(L, "next_offset", frame.next_offset);
    fields_set_u64(L, "root", frame.root);
    fields_set_u64(L, "count", frame.count);
    fields_set_u64(L, "size_bytes", frame.size_bytes);
    lua_rawseti(L, -2, i);
    engine->first_frame = frame.next_offset;
  }
  return 1;
}

/* bytes(offset, size): through the readers' view. */
static int engine_bytes(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t offset = probe_check_u64(L, 2), size = probe_check_u64(L, 3);
  luaL_argcheck(L, bytes_within(offset, size, space_size(&engine->space)), 3,
                "beyond the file");
  lua_pushlstring(L, (const char *)engine->space.map.read + offset, size);
  return 1;
}

/* poke(offset, bytes): whatever the specs want the file to hold. */
static int engine_poke(lua_State *L) {
  struct engine *engine = engine_check(L);
  size_t size;
  uint64_t offset = probe_check_u64(L, 2);
  const char *bytes = luaL_checklstring(L, 3, &size);
  luaL_argcheck(L, bytes_within(offset, size, space_size(&engine->space)), 3,
                "beyond the file");
  memcpy(engine->space.map.write + offset, bytes, size);
  return 0;
}

/* scan(offset): the nodes of the frame there that is `size` long, checked one
   behind the other: how many, or what failed. */
static int engine_scan(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t offset = probe_check_u64(L, 2) + FRAME_HEADER_BYTES;
  uint64_t end = probe_check_u64(L, 2) + probe_check_u64(L, 3);
  struct node_source source = space_source(&engine->space);
  int nodes = 0;
  while (offset < end) {
    enum node_kind kind;
    uint64_t size;
    int code = node_measure(&source, offset, end, &kind, &size);
    if (code != MMCMAP_OK) return probe_fail(L, code);
    offset += size;
    nodes++;
  }
  lua_pushinteger(L, nodes);
  return 1;
}

/* ---- Recycler and readers ---------------------------------------------- */

/* recycler_put("branch" or "record", slots or size, offset [, epoch]) */
static int engine_class(lua_State *L) {
  static const char *const kinds[] = {"branch", "record", NULL};
  return luaL_checkoption(L, 2, NULL, kinds) == 0
             ? recycler_class_of_branch(probe_check_u32(L, 3))
             : recycler_class_of_record(probe_check_u64(L, 3));
}

static int engine_recycler_put(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t epoch = lua_isnoneornil(L, 5) ? 0 : probe_check_u64(L, 5);
  recycler_put(&engine->log.recycler, engine_class(L), probe_check_u64(L, 4),
               epoch);
  return 0;
}

/* recycler_take(kind, size): an offset; nil if there is none, now. */
static int engine_recycler_take(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t offset;
  if (!recycler_take(&engine->log.recycler, engine_class(L), &offset)) return 0;
  probe_push_u64(L, offset);
  return 1;
}

static int engine_recycler_clear(lua_State *L) {
  struct log *log = &engine_check(L)->log;
  recycler_clear(&log->recycler, log->first_epoch);
  return 0;
}

static int engine_reused_bytes(lua_State *L) {
  probe_push_u64(L, engine_check(L)->log.recycler.reused_bytes);
  return 1;
}

static int engine_pin(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct share_row *row;
  int code = readers_row(&engine->readers, &row);
  if (code == MMCMAP_OK) readers_pin(&engine->readers, row);
  return probe_result(L, code);
}

static int engine_unpin(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct share_row *row;
  int code = readers_row(&engine->readers, &row);
  if (code == MMCMAP_OK) readers_unpin(row);
  return probe_result(L, code);
}

/* hold_snapshot(epoch) */
static int engine_hold_snapshot(lua_State *L) {
  struct engine *engine = engine_check(L);
  uint64_t epoch = probe_check_u64(L, 2);
  int code = readers_claim_snapshot(&engine->readers, 0, &engine->held);
  if (code == MMCMAP_OK)
    atomic_store(&engine->held->snapshot, share_mark(engine->held, epoch));
  return probe_result(L, code);
}

static int engine_let_snapshot_go(lua_State *L) {
  struct engine *engine = engine_check(L);
  readers_give_back_snapshot(&engine->readers, engine->held);
  return 0;
}

void probe_engine_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"close", engine_close},
      {"__gc", engine_close},
      {"state", engine_state},
      {"ensure", engine_ensure},
      {"begin_segments", engine_begin_segments},
      {"begin_next", engine_begin_next},
      {"set_segment", engine_set_segment},
      {"set_upkeep", engine_set_upkeep},
      {"victim", engine_victim},
      {"trim", engine_trim},
      {"alloc", engine_alloc},
      {"alloc_large", engine_alloc_large},
      {"note_large", engine_note_large},
      {"seal", engine_seal},
      {"frames", engine_frames},
      {"bytes", engine_bytes},
      {"poke", engine_poke},
      {"scan", engine_scan},
      {"recycler_put", engine_recycler_put},
      {"recycler_take", engine_recycler_take},
      {"recycler_clear", engine_recycler_clear},
      {"reused_bytes", engine_reused_bytes},
      {"pin", engine_pin},
      {"unpin", engine_unpin},
      {"hold_snapshot", engine_hold_snapshot},
      {"let_snapshot_go", engine_let_snapshot_go},
      {NULL, NULL},
  };
  luaL_newmetatable(L, ENGINE_TYPE);
  luaL_setfuncs(L, methods, 0);
  probe_trie_methods(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, engine_new);
  lua_setfield(L, -2, "new");
}
