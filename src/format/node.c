/* SPDX-License-Identifier: MIT */
/*
 * Nodes: the parts of reading that are off the hot path, and writing. Writing
 * fills bytes that nobody can reach yet; the words that tell kind and size go
 * in by single stores, because a node that is written over a recycled one must
 * be measurable at every instant.
 */
#include "format/node.h"

_Static_assert(BRANCH_WAYS == 1 << BRANCH_LEVEL_BITS, "ways and bits agree");
_Static_assert((BRANCH_SECONDARY_LEVEL - 1) * BRANCH_LEVEL_BITS < 64 &&
                   BRANCH_SECONDARY_LEVEL * BRANCH_LEVEL_BITS >= 64,
               "the primary hash is used up where the secondary begins");
_Static_assert(COLLISION_LEVEL == 2 * BRANCH_SECONDARY_LEVEL,
               "both hashes have as many levels");
_Static_assert((BRANCH_TRAILER_LEVEL - 1) * BRANCH_LEVEL_BITS <= 32,
               "the short prefix names every level without a trailer");

/* Whether the file is longer now than `source` says; the source of now, which
   is final: what does not fit there never will. The slot was loaded before the
   size is, and the size was raised before the slot was stored. */
static bool source_has_grown(const struct node_source *source,
                             struct node_source *now_out) {
  if (source->refresh == NULL) return false;
  source->refresh(source->context, now_out);
  now_out->refresh = NULL;
  return now_out->size > source->size || now_out->is_cut;
}

static int beyond(const struct node_source *source, uint64_t offset) {
  if (source->is_cut)
    return error_set(MMCMAP_EADDRESS, "the file is longer than the mapping");
  return error_set_corrupt("F20 slot beyond the file", offset);
}

int node_branch_other(const struct node_source *source, uint64_t offset,
                      unsigned level, struct branch_view *view_out) {
  struct node_source now;
  if (source_has_grown(source, &now))
    return node_branch(&now, offset, level, view_out);
  if (!bytes_within(offset, NODE_HEADER_BYTES, source->size))
    return beyond(source, offset);
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  unsigned kind = level == COLLISION_LEVEL ? NODE_COLLISION : NODE_BRANCH;
  if (node_meta_kind(meta) != kind)
    return error_set_corrupt("F21 node kind", offset);
  if (node_meta_flags(meta) != level)
    return error_set_corrupt("F24 branch level", offset);
  return error_set_corrupt("F25 branch slots", offset);
}

int node_branch_find_other(const struct node_source *source, uint64_t offset,
                           unsigned level, unsigned way, uint64_t *slot_out) {
  struct branch_view branch;
  int code = node_branch(source, offset, level, &branch);
  if (code != MMCMAP_OK) return code;
  if ((branch.bitmap >> way & 1) == 0) return MMCMAP_NOTFOUND;
  *slot_out = branch_slot(&branch, branch_index(branch.bitmap, way));
  return MMCMAP_OK;
}

/* `hash` with only the bits that lead to `level` of its own trie. */
static uint64_t prefix_bits(uint64_t hash, unsigned level) {
  unsigned used = BRANCH_LEVEL_BITS * level;
  if (used == 0) return 0;
  return used >= 64 ? hash : hash >> (64 - used) << (64 - used);
}

struct branch_place branch_place_of(uint32_t map_id, unsigned level,
                                    uint64_t primary, uint64_t secondary) {
  struct branch_place place = {.map_id = map_id, .level = level};
  place.primary = prefix_bits(primary, level);
  if (level > BRANCH_SECONDARY_LEVEL)
    place.secondary = prefix_bits(secondary, level - BRANCH_SECONDARY_LEVEL);
  return place;
}

struct branch_place branch_read_place(const struct branch_view *branch) {
  struct branch_place place = {.map_id = bytes_u32(branch->at + NODE_MAP_ID_AT),
                               .level = branch->level};
  if (branch->level >= BRANCH_TRAILER_LEVEL) {
    const uint8_t *trailer =
        branch->at + NODE_HEADER_BYTES + 8 * (size_t)branch->slot_count;
    place.primary = bytes_u64(trailer);
    place.secondary = bytes_u64(trailer + 8);
  } else {
    place.primary = (uint64_t)bytes_u32(branch->at + BRANCH_PREFIX_AT) << 32;
  }
  return place;
}

void branch_write_frame_of_slots(uint8_t *at, const struct branch_place *place,
                                 uint64_t epoch, uint64_t bitmap,
                                 uint32_t slot_count) {
  unsigned level = place->level;
  bool is_collision = level == COLLISION_LEVEL;
  bytes_set_u32(at + BRANCH_PREFIX_AT, (uint32_t)(place->primary >> 32));
  bytes_set_u32(at + NODE_MAP_ID_AT, place->map_id);
  bytes_store_relaxed(
      at + NODE_META_AT,
      node_meta(is_collision ? NODE_COLLISION : NODE_BRANCH, level, epoch));
  bytes_store_relaxed(at + NODE_SHAPE_AT, is_collision ? slot_count : bitmap);
  if (level >= BRANCH_TRAILER_LEVEL) {
    uint8_t *trailer = branch_slot_at(at, slot_count);
    bytes_set_u64(trailer, place->primary);
    bytes_set_u64(trailer + 8, place->secondary);
  }
}

/* Checks the pages of a large value and completes the view with them. */
static int view_extent(const struct node_source *source,
                       struct record_view *view) {
  uint64_t offset = view->extent_offset;
  struct node_source now;
  if (offset % EXTENT_PAGE_BYTES != 0 ||
      !bytes_within(offset, extent_size(view->value_size), source->size)) {
    if (source_has_grown(source, &now)) return view_extent(&now, view);
    if (source->is_cut) return beyond(source, offset);
    return error_set_corrupt("F31 large value beyond the file", view->offset);
  }
  const uint8_t *at = source->base + offset;
  if (bytes_u64(at) != EXTENT_MAGIC || bytes_u64(at + 24) != view->value_size)
    return error_set_corrupt("F32 large value header", offset);
  view->value = at + EXTENT_HEADER_BYTES;
  return MMCMAP_OK;
}

/* Any of them, but not large and map together. */
static bool record_flags_are_good(unsigned flags) {
  unsigned both = RECORD_LARGE | RECORD_MAP;
  return flags <= (both | RECORD_EXPIRES) && (flags & both) != both;
}

static int fail_lengths(uint64_t offset) {
  return error_set_corrupt("F28 record lengths and flags", offset);
}

/* Views the record of a map, whose header lies within the source. */
static int view_map(const struct node_source *source, uint64_t offset,
                    struct record_view *view) {
  const uint8_t *at = view->at;
  view->key = at + NODE_HEADER_BYTES + RECORD_MAP_BYTES;
  view->value = at + NODE_HEADER_BYTES;
  view->is_map = true;
  if (view->value_size != RECORD_MAP_BYTES ||
      !bytes_within(offset,
                    record_size(view->key_size, RECORD_MAP_BYTES, false, false),
                    source->size))
    return fail_lengths(offset);
  return MMCMAP_OK;
}

/* Views a record with its time, or pages of its own, or both. */
static int view_parts(const struct node_source *source, uint64_t offset,
                      bool is_expiring, bool is_large,
                      struct record_view *view) {
  const uint8_t *at = view->at + NODE_HEADER_BYTES;
  view->is_large = is_large;
  if (is_expiring && !is_large) {
    if (view->value_size < RECORD_EXPIRY_BYTES) return fail_lengths(offset);
    view->value_size -= RECORD_EXPIRY_BYTES;
  }
  if (!bytes_within(
          offset,
          record_size(view->key_size, view->value_size, is_large, is_expiring),
          source->size))
    return fail_lengths(offset);
  if (is_expiring) {
    view->expires_ms = bytes_u64(at);
    if (view->expires_ms == 0 || view->expires_ms >= RECORD_EXPIRY_LIMIT)
      return error_set_corrupt("F45 record expiry", offset);
    at += RECORD_EXPIRY_BYTES;
  }
  if (is_large) {
    view->extent_offset = bytes_u64(at);
    view->extent_checksum = bytes_u64(at + 8);
    at += RECORD_LARGE_BYTES;
  }
  view->key = at;
  view->value = at + view->key_size;
  return is_large ? view_extent(source, view) : MMCMAP_OK;
}

/* Views a record whose header lies within the source. */
static int view_record(const struct node_source *source, uint64_t offset,
                       struct record_view *view_out) {
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  uint64_t shape = bytes_load_relaxed(at + NODE_SHAPE_AT);
  unsigned flags = node_meta_flags(meta);
  if (node_meta_kind(meta) != NODE_RECORD)
    return error_set_corrupt("F21 node kind", offset);
  if (!record_flags_are_good(flags) || shape >> 32 > MMCMAP_KEY_SIZE_MAX)
    return fail_lengths(offset);
  struct record_view view = {.at = at,
                             .offset = offset,
                             .epoch = node_meta_epoch(meta),
                             .value_size = (uint32_t)shape,
                             .key_size = (uint16_t)(shape >> 32),
                             .lets_expire = (flags & RECORD_MAP) != 0 &&
                                            (flags & RECORD_EXPIRES) != 0};
  int code = (flags & RECORD_MAP) != 0
                 ? view_map(source, offset, &view)
                 : view_parts(source, offset, (flags & RECORD_EXPIRES) != 0,
                              (flags & RECORD_LARGE) != 0, &view);
  if (code == MMCMAP_OK) *view_out = view;
  return code;
}

/* Whether a record that expires, and has no pages of its own, lies within the
   source. */
static bool is_whole_and_expires(const struct node_source *source,
                                 uint64_t offset) {
  if (!bytes_within(offset, NODE_HEADER_BYTES, source->size)) return false;
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  uint64_t shape = bytes_load_relaxed(at + NODE_SHAPE_AT);
  return meta >> 48 == (NODE_RECORD << 8 | RECORD_EXPIRES) &&
         bytes_within(offset,
                      NODE_HEADER_BYTES + (shape >> 32) + (uint32_t)shape,
                      source->size);
}

int node_record_other(const struct node_source *source, uint64_t offset,
                      struct record_view *view_out) {
  struct node_source now;
  if (LIKELY(is_whole_and_expires(source, offset)))
    return view_record(source, offset, view_out);
  if (source_has_grown(source, &now))
    return node_record(&now, offset, view_out);
  if (!bytes_within(offset, NODE_HEADER_BYTES, source->size))
    return beyond(source, offset);
  return view_record(source, offset, view_out);
}

static uint32_t record_checksum(const uint8_t *at, uint64_t payload_size,
                                const struct hasher *hasher) {
  return (uint32_t)hasher_checksum(
      hasher, at + RECORD_CHECKSUM_FROM,
      NODE_HEADER_BYTES - RECORD_CHECKSUM_FROM + payload_size);
}

/* Without what changes in place: of the words of a map only its id. */
static uint32_t map_checksum(const uint8_t *at, uint16_t key_size,
                             const struct hasher *hasher) {
  uint8_t bytes[NODE_HEADER_BYTES - RECORD_CHECKSUM_FROM + 8];
  memcpy(bytes, at + RECORD_CHECKSUM_FROM, sizeof bytes - 8);
  bytes_set_u64(
      bytes + sizeof bytes - 8,
      hasher_checksum(hasher, at + RECORD_MAP_ID_AT, 8 + (size_t)key_size));
  return (uint32_t)hasher_checksum(hasher, bytes, sizeof bytes);
}

static void write_map_record(uint8_t *at, const struct record_parts *parts,
                             const struct hasher *hasher) {
  struct map_words words;
  memcpy(&words, parts->value, sizeof words);
  bytes_store_relaxed(at + RECORD_MAP_ROOT_AT, words.root);
  bytes_store_relaxed(at + RECORD_MAP_COUNT_AT, words.count);
  bytes_set_u64(at + RECORD_MAP_ID_AT, words.id);
  if (parts->key_size > 0)
    memcpy(at + NODE_HEADER_BYTES + RECORD_MAP_BYTES, parts->key,
           parts->key_size);
  bytes_set_u32(at + RECORD_CHECKSUM_AT,
                map_checksum(at, parts->key_size, hasher));
}

static unsigned flags_of(const struct record_parts *parts) {
  return (parts->is_large ? RECORD_LARGE : 0u) |
         (parts->is_map ? RECORD_MAP : 0u) |
         (parts->expires_ms != 0 ? RECORD_EXPIRES : 0u);
}

/* The time counts as part of the value, so that the size of what may be written
   over follows from the lengths alone. */
static uint64_t shape_of(const struct record_parts *parts, bool is_expiring) {
  uint32_t value_size = parts->value_size;
  if (is_expiring && !parts->is_large) value_size += RECORD_EXPIRY_BYTES;
  return record_shape(parts->key_size, value_size);
}

void record_write(uint8_t *at, const struct record_parts *parts,
                  const struct hasher *hasher) {
  bool is_expiring = parts->expires_ms != 0 && !parts->is_map;
  uint64_t size = record_size(parts->key_size, parts->value_size,
                              parts->is_large, is_expiring);
  bytes_set_u32(at + NODE_MAP_ID_AT, parts->map_id);
  bytes_store_relaxed(at + NODE_META_AT,
                      node_meta(NODE_RECORD, flags_of(parts), parts->epoch));
  bytes_store_relaxed(at + NODE_SHAPE_AT, shape_of(parts, is_expiring));
  bytes_set_u64(at + size - 8, 0); /* padding; the payload covers the rest */
  if (parts->is_map) {
    write_map_record(at, parts, hasher);
    return;
  }
  uint8_t *end = at + NODE_HEADER_BYTES;
  if (is_expiring) {
    bytes_set_u64(end, parts->expires_ms);
    end += RECORD_EXPIRY_BYTES;
  }
  if (parts->is_large) {
    bytes_set_u64(end, parts->extent_offset);
    bytes_set_u64(end + 8, parts->extent_checksum);
    end += RECORD_LARGE_BYTES;
  }
  if (parts->key_size > 0) memcpy(end, parts->key, parts->key_size);
  end += parts->key_size;
  if (!parts->is_large && parts->value_size > 0) {
    memcpy(end, parts->value, parts->value_size);
    end += parts->value_size;
  }
  uint64_t payload_size = (uint64_t)(end - at) - NODE_HEADER_BYTES;
  bytes_set_u32(at + RECORD_CHECKSUM_AT,
                record_checksum(at, payload_size, hasher));
}

int record_verify(const struct node_source *source,
                  const struct record_view *record,
                  const struct hasher *hasher) {
  uint64_t payload_size =
      record->key_size +
      (record->is_large ? RECORD_LARGE_BYTES : (uint64_t)record->value_size) +
      (record->expires_ms != 0 ? RECORD_EXPIRY_BYTES : 0);
  uint32_t checksum = record->is_map
                          ? map_checksum(record->at, record->key_size, hasher)
                          : record_checksum(record->at, payload_size, hasher);
  if (bytes_u32(record->at + RECORD_CHECKSUM_AT) != checksum)
    return error_set_corrupt("F29 record checksum", record->offset);
  if (!record->is_large) return MMCMAP_OK;
  const uint8_t *extent = source->base + record->extent_offset;
  if (hasher_checksum(hasher, extent,
                      EXTENT_HEADER_BYTES + (size_t)record->value_size) !=
      record->extent_checksum)
    return error_set_corrupt("F33 large value checksum", record->extent_offset);
  return MMCMAP_OK;
}

uint64_t extent_write(uint8_t *at, uint32_t map_id, uint64_t primary,
                      const void *value, uint32_t value_size,
                      const struct hasher *hasher) {
  memset(at, 0, EXTENT_HEADER_BYTES);
  bytes_set_u64(at, EXTENT_MAGIC);
  bytes_set_u32(at + 8, map_id);
  bytes_set_u64(at + 16, primary);
  bytes_set_u64(at + 24, value_size);
  if (value_size > 0) memcpy(at + EXTENT_HEADER_BYTES, value, value_size);
  return hasher_checksum(hasher, at, EXTENT_HEADER_BYTES + (size_t)value_size);
}

/* ---- Store roots --------------------------------------------------------- */

int node_store(const struct node_source *source, uint64_t slot,
               struct store_view *view_out) {
  const unsigned flags = STORE_EXPIRES | STORE_HAS_SNAPSHOTS;
  struct node_source now;
  uint64_t offset = slot_offset(slot);
  if (!bytes_within(offset, store_root_size(true), source->size)) {
    if (source_has_grown(source, &now)) return node_store(&now, slot, view_out);
    if (!bytes_within(offset, store_root_size(false), source->size))
      return beyond(source, offset);
  }
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  if ((meta >> 48 & ~(uint64_t)flags) != NODE_STORE << 8)
    return error_set_corrupt("F21 node kind", offset);
  struct store_view view = {
      .at = at,
      .offset = offset,
      .epoch = node_meta_epoch(meta),
      .lets_expire = (node_meta_flags(meta) & STORE_EXPIRES) != 0,
      .has_snapshots = (node_meta_flags(meta) & STORE_HAS_SNAPSHOTS) != 0};
  if (!bytes_within(offset, store_root_size(view.has_snapshots), source->size))
    return beyond(source, offset);
  *view_out = view;
  return MMCMAP_OK;
}

void store_write(uint8_t *at, uint64_t epoch, bool lets_expire,
                 bool has_snapshots, const struct store_words *words) {
  unsigned flags = (lets_expire ? STORE_EXPIRES : 0u) |
                   (has_snapshots ? STORE_HAS_SNAPSHOTS : 0u);
  bytes_set_u64(at, 0); /* no map's: its id is MAP_ID_NONE */
  bytes_store_relaxed(at + NODE_META_AT, node_meta(NODE_STORE, flags, epoch));
  bytes_store_relaxed(at + NODE_SHAPE_AT, 0);
  bytes_store_relaxed(at + STORE_DEFAULT_AT, words->default_root);
  bytes_store_relaxed(at + STORE_CATALOG_AT, words->catalog_root);
  bytes_store_relaxed(at + STORE_NEXT_ID_AT, words->next_id);
  if (has_snapshots)
    bytes_store_relaxed(at + STORE_SNAPSHOTS_AT, words->snapshots_root);
}

/* ---- Any node ----------------------------------------------------------- */

int node_measure(const struct node_source *source, uint64_t offset,
                 uint64_t limit, enum node_kind *kind_out, uint64_t *size_out) {
  *kind_out = NODE_BRANCH;
  *size_out = 0;
  CHECK(limit <= source->size);
  if (!bytes_within(offset, NODE_HEADER_BYTES, limit))
    return error_set_corrupt("F19 node beyond its frame", offset);
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  uint64_t shape = bytes_load_relaxed(at + NODE_SHAPE_AT);
  unsigned flags = node_meta_flags(meta);
  uint64_t size = 0;
  switch (node_meta_kind(meta)) {
    case NODE_BRANCH:
      *kind_out = NODE_BRANCH;
      size = branch_size(bits_count(shape), flags);
      break;
    case NODE_COLLISION:
      *kind_out = NODE_COLLISION;
      if (shape > COLLISION_SLOTS_MAX)
        return error_set_corrupt("F34 collision slots", offset);
      size = branch_size((uint32_t)shape, COLLISION_LEVEL);
      break;
    case NODE_RECORD:
      *kind_out = NODE_RECORD;
      if (shape >> 32 > MMCMAP_KEY_SIZE_MAX || !record_flags_are_good(flags))
        return fail_lengths(offset);
      size = record_size((uint16_t)(shape >> 32), (uint32_t)shape,
                         flags & RECORD_LARGE,
                         flags == (RECORD_LARGE | RECORD_EXPIRES));
      break;
    case NODE_STORE:
      *kind_out = NODE_STORE;
      size = store_root_size((flags & STORE_HAS_SNAPSHOTS) != 0);
      break;
    default:
      return error_set_corrupt("F21 node kind", offset);
  }
  if (!bytes_within(offset, size, limit))
    return error_set_corrupt("F19 node beyond its frame", offset);
  *size_out = size;
  return MMCMAP_OK;
}
