/* SPDX-License-Identifier: MIT */
/*
 * Area verify of the probe: verification of files and of open stores.
 *
 *   bytes(image [, primary_mask, secondary_mask])  of a file's bytes
 *   store(path)      of the live root of a store that this process has open
 *   trie(engine [, root, count, newest_epoch])  of an engine's trie, its own
 *                    state being what is not given
 *   flips(image, from, to)  flips each bit of bytes [from, to), one at a time:
 *                    how many there were, how many were not found, and the
 *                    offset of the first of those
 *   noise(image, seed, rounds)  overwrites bytes at random, verifies, restores:
 *                    rounds in which something was found
 * The first three give a report as a table, with failures = {{code, rule,
 * offset}}, or nil, code and what failed if no superblock is good.
 */
#include "probe_verify.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "probe.h"
#include "probe_engine.h"
#include "store.h"

static int choose_superblock(const uint8_t *bytes, uint64_t size,
                             struct superblock *chosen_out) {
  struct superblock found[SUPERBLOCK_COUNT];
  if (size < SEGMENT_FIRST_HEADER_OFFSET)
    return error_set(MMCMAP_EFORMAT, "F1 magic");
  int a = superblock_decode(bytes + SUPERBLOCK_A_OFFSET, SUPERBLOCK_A_OFFSET,
                            true, &found[0]);
  int b = superblock_decode(bytes + SUPERBLOCK_B_OFFSET, SUPERBLOCK_B_OFFSET,
                            true, &found[1]);
  if (a != MMCMAP_OK && b != MMCMAP_OK) return b;
  bool second = a != MMCMAP_OK ||
                (b == MMCMAP_OK && found[1].sequence > found[0].sequence);
  *chosen_out = found[second];
  return MMCMAP_OK;
}

int verify_image(const uint8_t *bytes, uint64_t size,
                 const struct verify_masks *masks,
                 struct verify_report *report_out) {
  struct superblock superblock;
  struct hasher hasher;
  memset(report_out, 0, sizeof *report_out);
  int code = choose_superblock(bytes, size, &superblock);
  if (code == MMCMAP_OK)
    code = hasher_init(&hasher, superblock.hash, superblock.secret);
  if (code != MMCMAP_OK) return code;
  hasher.primary_mask = masks->primary;
  hasher.secondary_mask = masks->secondary;
  struct node_source source = {.base = bytes, .size = size};
  return verify_file(&source, &hasher, &superblock, report_out);
}

static int push_report(lua_State *L, const struct verify_report *report) {
  lua_newtable(L);
#define VERIFY_FIELD(name) \
  lua_pushnumber(L, (lua_Number)report->name); \
  lua_setfield(L, -2, #name);
  VERIFY_FIELD(branch_count)
  VERIFY_FIELD(collision_count)
  VERIFY_FIELD(record_count)
  VERIFY_FIELD(map_count)
  VERIFY_FIELD(large_count)
  VERIFY_FIELD(node_bytes)
  VERIFY_FIELD(frame_count)
  VERIFY_FIELD(frame_bytes)
  VERIFY_FIELD(segment_count)
  VERIFY_FIELD(superblock_count)
  VERIFY_FIELD(failure_count)
#undef VERIFY_FIELD
  lua_newtable(L);
  for (unsigned i = 0; i < report->failure_count && i < VERIFY_FAILURES_MAX;
       i++) {
    lua_newtable(L);
    lua_pushstring(L, mmcmap_error_name(report->failures[i].code));
    lua_setfield(L, -2, "code");
    lua_pushstring(L, report->failures[i].rule);
    lua_setfield(L, -2, "rule");
    lua_pushnumber(L, (lua_Number)report->failures[i].offset);
    lua_setfield(L, -2, "offset");
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_setfield(L, -2, "failures");
  return 1;
}

/* A copy of the string at `arg`, aligned; freed with the Lua value. */
static uint8_t *copy_image(lua_State *L, int arg, size_t *size_out) {
  const char *bytes = luaL_checklstring(L, arg, size_out);
  uint8_t *copy = lua_newuserdata(L, *size_out + 1);
  memcpy(copy, bytes, *size_out);
  return copy;
}

static const struct verify_masks all_bits = {UINT64_MAX, UINT64_MAX};

static int verify_bytes(lua_State *L) {
  size_t size;
  struct verify_masks masks = {probe_opt_u64(L, 2, UINT64_MAX),
                               probe_opt_u64(L, 3, UINT64_MAX)};
  struct verify_report report;
  uint8_t *image = copy_image(L, 1, &size);
  int code = verify_image(image, size, &masks, &report);
  if (code != MMCMAP_OK && report.failure_count == 0)
    return probe_fail(L, code);
  return push_report(L, &report);
}

static int verify_store(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mmcmap_options options;
  struct store_internals internals = {SEGMENT_SIZE_DEFAULT, UINT64_MAX,
                                      UINT64_MAX};
  struct store *store;
  struct moment moment;
  struct verify_report report;
  mmcmap_options_init(&options);
  options.create = false;
  int code = store_acquire(path, &options, &internals, &store);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  code = writer_take_moment(&store->writer, 1000, &moment);
  struct node_source source = space_source(&store->space);
  if (code == MMCMAP_OK)
    code = verify_trie(&source, &store->hasher, MAP_ID_DEFAULT, moment.root,
                       moment.count, moment.epoch, &report);
  store_release(store, false, 5000);
  if (code != MMCMAP_OK && code != MMCMAP_ECORRUPT) return probe_fail(L, code);
  return push_report(L, &report);
}

static int verify_engine(lua_State *L) {
  struct engine *engine = engine_check(L);
  struct verify_report report;
  struct node_source source = space_source(&engine->space);
  (void)verify_trie(&source, &engine->hasher, MAP_ID_DEFAULT,
                    probe_opt_u64(L, 2, atomic_load(&engine->root)),
                    probe_opt_u64(L, 3, atomic_load(&engine->count)),
                    probe_opt_u64(L, 4, engine->log.epoch), &report);
  return push_report(L, &report);
}

/* Whether verification tells the image from the sound one that it was. */
static bool is_noticed(const uint8_t *image, size_t size) {
  struct verify_report report;
  return verify_image(image, size, &all_bits, &report) != MMCMAP_OK ||
         report.superblock_count < SUPERBLOCK_COUNT;
}

static int verify_flips(lua_State *L) {
  size_t size, from = probe_check_size(L, 2), to = probe_check_size(L, 3);
  uint8_t *image = copy_image(L, 1, &size);
  luaL_argcheck(L, from <= to && to <= size, 3, "beyond the image");
  lua_Number flips = 0, missed = 0, first = -1;
  for (size_t at = from; at < to; at++)
    for (int bit = 0; bit < 8; bit++) {
      image[at] ^= (uint8_t)(1 << bit);
      flips++;
      if (!is_noticed(image, size) && missed++ == 0) first = (lua_Number)at;
      image[at] ^= (uint8_t)(1 << bit);
    }
  lua_pushnumber(L, flips);
  lua_pushnumber(L, missed);
  lua_pushnumber(L, first);
  return 3;
}

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* Superblocks are left alone, or hardly anything behind them would be met. */
static int verify_noise(lua_State *L) {
  size_t size;
  uint64_t state = probe_check_u64(L, 2) | 1;
  int rounds = probe_check_int(L, 3), found = 0;
  uint8_t *image = copy_image(L, 1, &size);
  uint8_t *damaged = lua_newuserdata(L, size + 1);
  for (int round = 0; round < rounds; round++) {
    memcpy(damaged, image, size);
    int changes = 1 + (int)(next_random(&state) % 8);
    for (int i = 0; i < changes; i++) {
      uint64_t from = SEGMENT_FIRST_HEADER_OFFSET;
      uint64_t at = from + next_random(&state) % (size - from - 8);
      uint64_t value = next_random(&state) >> next_random(&state) % 64;
      memcpy(damaged + at / 8 * 8, &value, 1 + next_random(&state) % 8);
    }
    found += is_noticed(damaged, size);
  }
  lua_pushnumber(L, found);
  return 1;
}

void probe_verify_open(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"bytes", verify_bytes}, {"store", verify_store}, {"trie", verify_engine},
      {"flips", verify_flips}, {"noise", verify_noise}, {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
}
