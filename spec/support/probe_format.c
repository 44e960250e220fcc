/* SPDX-License-Identifier: MIT */
/*
 * Area format of the probe: superblocks, segment headers, frames and nodes.
 * Structures go in and out as Lua tables with the names of their C fields,
 * encoded ones as strings. What is decoded is copied into memory of exactly
 * its size first, so that a sanitizer sees a read beyond its end.
 *
 * The hasher is one of a fixed secret: every byte is its index, as a number
 * modulo 251.
 */
#include <stdlib.h>
#include <string.h>

#include "format/frame.h"
#include "format/node.h"
#include "format/segment.h"
#include "format/superblock.h"
#include "probe.h"
#include "probe_fields.h"

static const struct hasher *format_hasher(void) {
  static struct hasher hasher;
  uint8_t secret[HASH_SECRET_BYTES];
  for (int i = 0; i < HASH_SECRET_BYTES; i++)
    secret[i] = (uint8_t)(i % 251);
  hasher_init(&hasher, MMCMAP_HASH_XXH3, secret);
  return &hasher;
}

/* ---- Images ------------------------------------------------------------ */

/* A copy of the string at `arg`; the caller frees it. */
static uint8_t *format_image(lua_State *L, int arg,
                             struct node_source *source_out) {
  size_t size;
  const char *text = luaL_checklstring(L, arg, &size);
  /* malloc() tells a sanitizer the exact size, lua_newuserdata() does not. */
  uint8_t *copy = malloc(size == 0 ? 1 : size);
  if (copy == NULL) luaL_error(L, "no memory");
  if (size > 0) memcpy(copy, text, size);
  source_out->base = copy;
  source_out->size = size;
  source_out->refresh = NULL;
  source_out->is_cut = false;
  return copy;
}

/* ---- Superblocks ------------------------------------------------------- */

static void format_check_heads(lua_State *L, int arg,
                               struct superblock *superblock) {
  lua_getfield(L, arg, "heads");
  if (lua_istable(L, -1))
    for (int i = 0; i < SUPERBLOCK_HEADS; i++) {
      lua_rawgeti(L, -1, i + 1);
      if (lua_istable(L, -1)) {
        int head = lua_gettop(L);
        superblock->heads[i].offset = fields_u64(L, head, "offset");
        superblock->heads[i].limit = fields_u64(L, head, "limit");
      }
      lua_pop(L, 1);
    }
  lua_pop(L, 1);
}

static int format_superblock_encode(lua_State *L) {
  struct superblock superblock = {
      .salt = fields_u64(L, 1, "salt"),
      .segment_size = (uint32_t)fields_u64(L, 1, "segment_size"),
      .hash = (int)fields_u64(L, 1, "hash"),
      .sequence = fields_u64(L, 1, "sequence"),
      .flags = (uint32_t)fields_u64(L, 1, "flags"),
      .epoch = fields_u64(L, 1, "epoch"),
      .root = fields_u64(L, 1, "root"),
      .count = fields_u64(L, 1, "count"),
      .content_epoch = fields_u64(L, 1, "content_epoch"),
      .chain = fields_u64(L, 1, "chain"),
      .next_epoch = fields_u64(L, 1, "next_epoch"),
      .segment_count = fields_u64(L, 1, "segment_count"),
      .used_bytes = fields_u64(L, 1, "used_bytes"),
      .usage_offset = fields_u64(L, 1, "usage_offset"),
      .usage_count = fields_u64(L, 1, "usage_count"),
      .usage_checksum = fields_u64(L, 1, "usage_checksum")};
  fields_bytes(L, 1, "file_id", superblock.file_id, sizeof superblock.file_id);
  fields_bytes(L, 1, "secret", superblock.secret, sizeof superblock.secret);
  format_check_heads(L, 1, &superblock);
  uint8_t page[SUPERBLOCK_BYTES];
  superblock_encode(&superblock, page);
  lua_pushlstring(L, (const char *)page, sizeof page);
  return 1;
}

void fields_push_superblock(lua_State *L, const struct superblock *in) {
  lua_newtable(L);
  fields_set_bytes(L, "file_id", in->file_id, sizeof in->file_id);
  fields_set_bytes(L, "secret", in->secret, sizeof in->secret);
  fields_set_u64(L, "salt", in->salt);
  fields_set_u64(L, "segment_size", in->segment_size);
  fields_set_u64(L, "hash", (uint64_t)in->hash);
  fields_set_u64(L, "sequence", in->sequence);
  fields_set_u64(L, "flags", in->flags);
  fields_set_u64(L, "epoch", in->epoch);
  fields_set_u64(L, "root", in->root);
  fields_set_u64(L, "count", in->count);
  fields_set_u64(L, "content_epoch", in->content_epoch);
  fields_set_u64(L, "chain", in->chain);
  fields_set_u64(L, "next_epoch", in->next_epoch);
  fields_set_u64(L, "segment_count", in->segment_count);
  fields_set_u64(L, "used_bytes", in->used_bytes);
  fields_set_u64(L, "usage_offset", in->usage_offset);
  fields_set_u64(L, "usage_count", in->usage_count);
  fields_set_u64(L, "usage_checksum", in->usage_checksum);
  lua_newtable(L);
  for (int i = 0; i < SUPERBLOCK_HEADS; i++) {
    lua_newtable(L);
    fields_set_u64(L, "offset", in->heads[i].offset);
    fields_set_u64(L, "limit", in->heads[i].limit);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "heads");
}

/* superblock_decode(page, offset, readonly): its fields. */
static int format_superblock_decode(lua_State *L) {
  struct superblock superblock;
  struct node_source source;
  uint64_t offset = probe_check_u64(L, 2);
  bool readonly = probe_check_bool(L, 3);
  luaL_argcheck(L, fields_length(L, 1) == SUPERBLOCK_BYTES, 1, "not a page");
  uint8_t *page = format_image(L, 1, &source);
  int code = superblock_decode(page, offset, readonly, &superblock);
  free(page);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  fields_push_superblock(L, &superblock);
  return 1;
}

/* plain_checksum(string): of superblocks and segment headers. */
static int format_plain_checksum(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  probe_push_u64(L, hash_plain_checksum(text, size));
  return 1;
}

/* checksum(string [, secret]): of frames and nodes. */
static int format_checksum(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  struct hasher hasher = *format_hasher();
  if (!lua_isnoneornil(L, 2))
    memcpy(hasher.secret, luaL_checkstring(L, 2), HASH_SECRET_BYTES);
  probe_push_u64(L, hasher_checksum(&hasher, text, size));
  return 1;
}

/* ---- Segments ---------------------------------------------------------- */

static int format_segment_encode(lua_State *L) {
  struct segment_header header = {
      .kind = (enum segment_kind)fields_u64(L, 1, "kind"),
      .number = fields_u64(L, 1, "number"),
      .run = fields_u64(L, 1, "run"),
      .sequence = fields_u64(L, 1, "sequence")};
  uint8_t file_id[16] = {0}, bytes[SEGMENT_HEADER_BYTES];
  fields_bytes(L, 1, "file_id", file_id, sizeof file_id);
  segment_encode(&header, file_id, bytes);
  lua_pushlstring(L, (const char *)bytes, sizeof bytes);
  return 1;
}

/* segment_decode(bytes, number, file_id): its fields. */
static int format_segment_decode(lua_State *L) {
  struct segment_header header;
  struct node_source source;
  uint64_t number = probe_check_u64(L, 2);
  uint8_t file_id[16];
  memcpy(file_id, luaL_checkstring(L, 3), sizeof file_id);
  luaL_argcheck(L, fields_length(L, 1) == SEGMENT_HEADER_BYTES, 1,
                "wrong size");
  uint8_t *bytes = format_image(L, 1, &source);
  int code = segment_decode(bytes, number, file_id, 0, &header);
  free(bytes);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_newtable(L);
  fields_set_u64(L, "kind", header.kind);
  fields_set_u64(L, "number", header.number);
  fields_set_u64(L, "run", header.run);
  fields_set_u64(L, "sequence", header.sequence);
  return 1;
}

static int format_segment_header_offset(lua_State *L) {
  probe_push_u64(
      L, segment_header_offset(probe_check_u64(L, 1), probe_check_u32(L, 2)));
  return 1;
}

/* ---- Frames ------------------------------------------------------------ */

/* frame_begin(salt, epoch): what stands at the beginning of an open frame. */
static int format_frame_begin(lua_State *L) {
  _Alignas(8) uint8_t bytes[FRAME_HEADER_BYTES];
  memset(bytes, 0xee, sizeof bytes);
  frame_begin(bytes, probe_check_u64(L, 1), probe_check_u64(L, 2));
  lua_pushlstring(L, (const char *)bytes, sizeof bytes);
  return 1;
}

/* frame_complete(fields, nodes): header and nodes, and the checksum. */
static int format_frame_complete(lua_State *L) {
  size_t size;
  const char *nodes = luaL_checklstring(L, 2, &size);
  struct frame frame = {.salt = fields_u64(L, 1, "salt"),
                        .epoch = fields_u64(L, 1, "epoch"),
                        .flags = (unsigned)fields_u64(L, 1, "flags"),
                        .previous = fields_u64(L, 1, "previous"),
                        .next_offset = fields_u64(L, 1, "next_offset"),
                        .root = fields_u64(L, 1, "root"),
                        .count = fields_u64(L, 1, "count"),
                        .content_epoch = fields_u64(L, 1, "content_epoch"),
                        .size_bytes = (uint32_t)(FRAME_HEADER_BYTES + size)};
  uint8_t *bytes = lua_newuserdata(L, FRAME_HEADER_BYTES + size);
  memset(bytes, 0xee, FRAME_HEADER_BYTES);
  memcpy(bytes + FRAME_HEADER_BYTES, nodes, size);
  frame_close(bytes, &frame);
  uint64_t checksum = frame_complete(bytes, &frame, format_hasher());
  lua_pushlstring(L, (const char *)bytes, FRAME_HEADER_BYTES + size);
  probe_push_u64(L, checksum);
  return 2;
}

/* frame_read(image, offset, segment_size, salt, previous): its fields, among
   them `checksum`. */
static int format_frame_read(lua_State *L) {
  struct node_source source;
  struct frame frame;
  uint64_t checksum;
  uint64_t offset = probe_check_u64(L, 2);
  uint32_t segment_size = probe_check_u32(L, 3);
  uint64_t salt = probe_check_u64(L, 4);
  uint64_t previous = probe_check_u64(L, 5);
  uint8_t *image = format_image(L, 1, &source);
  int code = frame_read(&source, offset, segment_size, salt, previous,
                        format_hasher(), &frame, &checksum);
  free(image);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_newtable(L);
  fields_set_u64(L, "salt", frame.salt);
  fields_set_u64(L, "epoch", frame.epoch);
  fields_set_u64(L, "flags", frame.flags);
  fields_set_u64(L, "previous", frame.previous);
  fields_set_u64(L, "next_offset", frame.next_offset);
  fields_set_u64(L, "root", frame.root);
  fields_set_u64(L, "count", frame.count);
  fields_set_u64(L, "content_epoch", frame.content_epoch);
  fields_set_u64(L, "size_bytes", frame.size_bytes);
  fields_set_u64(L, "checksum", checksum);
  return 1;
}

/* ---- Slots ------------------------------------------------------------- */

static int format_slot_of_branch(lua_State *L) {
  probe_push_u64(L, slot_of_branch(probe_check_u64(L, 1)));
  return 1;
}

static int format_slot_of_record(lua_State *L) {
  probe_push_u64(L,
                 slot_of_record(probe_check_u64(L, 1), probe_check_u64(L, 2)));
  return 1;
}

/* slot_parts(slot): its offset, its tag, whether it is a record's. */
static int format_slot_parts(lua_State *L) {
  uint64_t slot = probe_check_u64(L, 1);
  probe_push_u64(L, slot_offset(slot));
  lua_pushinteger(L, slot_tag(slot));
  lua_pushboolean(L, slot_is_record(slot));
  return 3;
}

/* ---- Branches ---------------------------------------------------------- */

/* branch_way(primary, secondary, level) */
static int format_branch_way(lua_State *L) {
  lua_pushinteger(
      L, (lua_Integer)branch_way(probe_check_u64(L, 1), probe_check_u64(L, 2),
                                 probe_check_u32(L, 3)));
  return 1;
}

/* branch_place_of(level, primary, secondary): the bits of both that count. */
static int format_branch_place_of(lua_State *L) {
  struct branch_place place = branch_place_of(
      7, probe_check_u32(L, 1), probe_check_u64(L, 2), probe_check_u64(L, 3));
  probe_push_u64(L, place.primary);
  probe_push_u64(L, place.secondary);
  return 2;
}

/* branch_write{map_id=, level=, primary=, secondary=, epoch=, bitmap=,
   slots={...}}: its bytes. */
static int format_branch_write(lua_State *L) {
  struct branch_place place = {.map_id = (uint32_t)fields_u64(L, 1, "map_id"),
                               .level = (uint32_t)fields_u64(L, 1, "level"),
                               .primary = fields_u64(L, 1, "primary"),
                               .secondary = fields_u64(L, 1, "secondary")};
  lua_getfield(L, 1, "slots");
  luaL_checktype(L, -1, LUA_TTABLE);
  int slots = lua_gettop(L);
  uint32_t slot_count = (uint32_t)fields_length(L, slots);
  uint64_t size = branch_size(slot_count, place.level);
  uint8_t *at = lua_newuserdata(L, size);
  memset(at, 0xee, size);
  branch_write_frame_of_slots(at, &place, fields_u64(L, 1, "epoch"),
                              fields_u64(L, 1, "bitmap"), slot_count);
  for (uint32_t i = 0; i < slot_count; i++) {
    lua_rawgeti(L, slots, (int)i + 1);
    bytes_set_u64(branch_slot_at(at, i), probe_check_u64(L, -1));
    lua_pop(L, 1);
  }
  lua_pushlstring(L, (const char *)at, size);
  return 1;
}

/* branch_read(image, offset, level): what a view and its place say. */
static int format_branch_read(lua_State *L) {
  struct node_source source;
  struct branch_view view;
  uint64_t offset = probe_check_u64(L, 2);
  uint32_t level = probe_check_u32(L, 3);
  uint8_t *image = format_image(L, 1, &source);
  int code = node_branch(&source, offset, level, &view);
  if (code != MMCMAP_OK) {
    free(image);
    return probe_fail(L, code);
  }
  struct branch_place place = branch_read_place(&view);
  lua_newtable(L);
  fields_set_u64(L, "offset", view.offset);
  fields_set_u64(L, "bitmap", view.bitmap);
  fields_set_u64(L, "level", view.level);
  fields_set_u64(L, "map_id", place.map_id);
  fields_set_u64(L, "primary", place.primary);
  fields_set_u64(L, "secondary", place.secondary);
  fields_set_u64(L, "epoch", node_epoch(view.at));
  lua_newtable(L);
  for (uint32_t i = 0; i < view.slot_count; i++) {
    probe_push_u64(L, branch_slot(&view, i));
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_setfield(L, -2, "slots");
  free(image);
  return 1;
}

/* ---- Records ----------------------------------------------------------- */

/* record_write{map_id=, epoch=, key=, value=, [value_size=, extent_offset=,
   extent_checksum=, expires_ms=]}: its bytes. */
static int format_record_write(lua_State *L) {
  size_t key_size, value_size = 0;
  lua_getfield(L, 1, "key");
  lua_getfield(L, 1, "value");
  lua_getfield(L, 1, "extent_offset");
  bool is_large = !lua_isnil(L, -1);
  const char *key = luaL_checklstring(L, -3, &key_size);
  const char *value = is_large ? NULL : luaL_checklstring(L, -2, &value_size);
  struct record_parts parts = {
      .map_id = (uint32_t)fields_u64(L, 1, "map_id"),
      .epoch = fields_u64(L, 1, "epoch"),
      .key = key,
      .value = value,
      .key_size = (uint16_t)key_size,
      .value_size = is_large ? (uint32_t)fields_u64(L, 1, "value_size")
                             : (uint32_t)value_size,
      .is_large = is_large,
      .expires_ms = fields_u64(L, 1, "expires_ms"),
      .extent_offset = fields_u64(L, 1, "extent_offset"),
      .extent_checksum = fields_u64(L, 1, "extent_checksum")};
  uint64_t size = record_size(parts.key_size, parts.value_size, is_large,
                              parts.expires_ms != 0);
  uint8_t *at = lua_newuserdata(L, size);
  memset(at, 0xee, size);
  record_write(at, &parts, format_hasher());
  lua_pushlstring(L, (const char *)at, size);
  return 1;
}

static void format_push_record(lua_State *L, const struct record_view *view) {
  lua_newtable(L);
  fields_set_u64(L, "offset", view->offset);
  fields_set_u64(L, "epoch", view->epoch);
  fields_set_u64(L, "value_size", view->value_size);
  fields_set_bytes(L, "key", view->key, view->key_size);
  fields_set_bytes(L, "value", view->value, view->value_size);
  lua_pushboolean(L, view->is_large);
  lua_setfield(L, -2, "is_large");
  fields_set_u64(L, "expires_ms", view->expires_ms);
}

/* record_read(image, offset [, verify]): what a view says. */
static int format_record_read(lua_State *L) {
  struct node_source source;
  struct record_view view;
  uint64_t offset = probe_check_u64(L, 2);
  uint8_t *image = format_image(L, 1, &source);
  int code = node_record(&source, offset, &view);
  if (code == MMCMAP_OK && lua_toboolean(L, 3))
    code = record_verify(&source, &view, format_hasher());
  if (code == MMCMAP_OK) format_push_record(L, &view);
  free(image);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

/* extent_write(value, primary): the pages' bytes, whole pages, and their
   checksum. */
static int format_extent_write(lua_State *L) {
  size_t value_size;
  const char *value = luaL_checklstring(L, 1, &value_size);
  uint64_t primary = probe_check_u64(L, 2);
  uint64_t size = extent_size((uint32_t)value_size);
  uint8_t *at = lua_newuserdata(L, size);
  memset(at, 0xee, size);
  uint64_t checksum = extent_write(at, MAP_ID_DEFAULT, primary, value,
                                   (uint32_t)value_size, format_hasher());
  lua_pushlstring(L, (const char *)at, size);
  probe_push_u64(L, checksum);
  return 2;
}

/* record_size(key_size, value_size, is_large, is_expiring),
   extent_size(value_size) */
static int format_record_size(lua_State *L) {
  probe_push_u64(
      L, record_size((uint16_t)probe_check_u32(L, 1), probe_check_u32(L, 2),
                     probe_check_bool(L, 3), lua_toboolean(L, 4)));
  return 1;
}

static int format_extent_size(lua_State *L) {
  probe_push_u64(L, extent_size(probe_check_u32(L, 1)));
  return 1;
}

/* ---- Any node ---------------------------------------------------------- */

/* node_measure(image, offset, limit): its kind and size. */
static int format_node_measure(lua_State *L) {
  struct node_source source;
  enum node_kind kind;
  uint64_t size;
  uint64_t offset = probe_check_u64(L, 2);
  uint64_t limit = probe_check_u64(L, 3);
  uint8_t *image = format_image(L, 1, &source);
  int code = node_measure(&source, offset, limit, &kind, &size);
  free(image);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushinteger(L, kind);
  probe_push_u64(L, size);
  return 2;
}

/* One image of random bytes, read as everything at every offset. */
static uint64_t format_fuzz_image(const struct node_source *source) {
  uint64_t accepted = 0, size, checksum;
  struct branch_view branch;
  struct record_view record;
  struct frame frame;
  enum node_kind kind;
  const struct hasher *hasher = format_hasher();
  for (uint64_t offset = 0; offset <= source->size; offset += 8) {
    for (unsigned level = 0; level <= COLLISION_LEVEL; level++)
      if (node_branch(source, offset, level, &branch) == MMCMAP_OK) {
        struct branch_place place = branch_read_place(&branch);
        for (uint32_t i = 0; i < branch.slot_count; i++)
          accepted += branch_slot(&branch, i) + place.primary != 0;
      }
    if (node_record(source, offset, &record) == MMCMAP_OK)
      accepted += record_verify(source, &record, hasher) == MMCMAP_OK ||
                  record_has_key(&record, "key", 3) || record.epoch > 0;
    accepted +=
        node_measure(source, offset, source->size, &kind, &size) == MMCMAP_OK;
    accepted += frame_read(source, offset, 1 << 17, bytes_u64(source->base),
                           bytes_u64(source->base + 8), hasher, &frame,
                           &checksum) == MMCMAP_OK;
  }
  return accepted;
}

static uint64_t format_random(uint64_t *state) {
  *state += UINT64_C(0x9e3779b97f4a7c15);
  uint64_t z = *state;
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* Random words, most of which look like something. */
static uint64_t format_random_word(uint64_t *state) {
  uint64_t word = format_random(state);
  switch (format_random(state) % 8) {
    case 0:
      return node_meta(NODE_BRANCH, (unsigned)(word % 24), word >> 40);
    case 1:
      return node_meta(NODE_RECORD, (unsigned)(word % 9), word >> 40);
    case 2:
      return node_meta(NODE_COLLISION, COLLISION_LEVEL, word >> 40);
    case 3:
      return record_shape((uint16_t)(word % 40), (uint32_t)(word >> 32) % 90);
    case 4:
      return word >> word % 64;
    case 5:
      return word % 9 * EXTENT_PAGE_BYTES;
    case 6:
      return (uint64_t)FRAME_KIND << 56 | (word % 4) << 48 | (word >> 40);
    default:
      return word;
  }
}

/* fuzz(seed, rounds): how often something was accepted. */
static int format_fuzz(lua_State *L) {
  uint64_t state = probe_check_u64(L, 1), accepted = 0;
  int rounds = probe_check_int(L, 2);
  for (int round = 0; round < rounds; round++) {
    size_t words = 3 + format_random(&state) % 100;
    uint64_t *image = malloc(words * 8);
    if (image == NULL) return luaL_error(L, "no memory");
    for (size_t i = 0; i < words; i++)
      image[i] = format_random_word(&state);
    struct node_source source = {.base = (const uint8_t *)image,
                                 .size = words * 8 - format_random(&state) % 8};
    accepted += format_fuzz_image(&source);
    free(image);
  }
  lua_pushnumber(L, (lua_Number)accepted);
  return 1;
}

void probe_format_open(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"superblock_encode", format_superblock_encode},
      {"superblock_decode", format_superblock_decode},
      {"plain_checksum", format_plain_checksum},
      {"checksum", format_checksum},
      {"segment_encode", format_segment_encode},
      {"segment_decode", format_segment_decode},
      {"segment_header_offset", format_segment_header_offset},
      {"frame_begin", format_frame_begin},
      {"frame_complete", format_frame_complete},
      {"frame_read", format_frame_read},
      {"slot_of_branch", format_slot_of_branch},
      {"slot_of_record", format_slot_of_record},
      {"slot_parts", format_slot_parts},
      {"branch_way", format_branch_way},
      {"branch_place_of", format_branch_place_of},
      {"branch_write", format_branch_write},
      {"branch_read", format_branch_read},
      {"record_write", format_record_write},
      {"record_read", format_record_read},
      {"record_size", format_record_size},
      {"extent_write", format_extent_write},
      {"extent_size", format_extent_size},
      {"node_measure", format_node_measure},
      {"fuzz", format_fuzz},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
}
