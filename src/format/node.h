/* SPDX-License-Identifier: MIT */
/*
 * Nodes: branches, collision nodes and records, as docs/format.md lays them
 * out. Reading checks every bound before it hands out a view; a view's fields
 * were read once and stay as they are even if the bytes change. Nothing here
 * has state or knows where nodes come from.
 *
 * All nodes begin with the same 24 bytes and are aligned to 8:
 *   0  u32  branch: hash prefix; record: checksum
 *   4  u32  map id
 *   8  u64  meta: kind << 56 | flags or level << 48 | epoch
 *   16 u64  branch: bitmap; collision: slot count; record: lengths
 * Kind and size can be told from the words at 8 and 16 at every instant, so
 * that a frame can always be scanned.
 */
#ifndef FORMAT_NODE_H
#define FORMAT_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/errors.h"
#include "base/hash.h"
#include "format/slot.h"
#include "mmcmap.h"

enum node_kind {
  NODE_BRANCH = 1,
  NODE_RECORD = 2,
  NODE_COLLISION = 3,
  NODE_STORE = 4 /* a store root: what several tries hang on */
};

enum {
  NODE_MAP_ID_AT = 4,
  NODE_META_AT = 8,
  NODE_SHAPE_AT = 16,
  NODE_HEADER_BYTES = 24,

  BRANCH_PREFIX_AT = 0,
  BRANCH_WAYS = 64,
  BRANCH_LEVEL_BITS = 6,
  BRANCH_TRAILER_BYTES = 16,
  /* Levels from here on carry a trailer with both hashes' prefixes: the 32
     bits of prefix in the header name the place of those above. */
  BRANCH_TRAILER_LEVEL = 6,
  /* Levels 0..10 use the primary hash, 11..21 the secondary. */
  BRANCH_SECONDARY_LEVEL = 11,
  COLLISION_LEVEL = 22,
  COLLISION_SLOTS_MAX = 8192,

  RECORD_CHECKSUM_AT = 0,
  RECORD_CHECKSUM_FROM = 4, /* the checksum covers from here to the end */
  RECORD_LARGE = 1,         /* flag: the value has pages of its own */
  RECORD_LARGE_BYTES = 16,  /* extent offset and checksum, before the key */
  RECORD_MAP = 2,     /* flag: it stands for a named map, whose name is the
                               key; root, count and id come before it */
  RECORD_EXPIRES = 4, /* flag: it expires, at a time that comes before all
                         that; of a map: records in it may */
  RECORD_EXPIRY_BYTES = 8,
  RECORD_MAP_ROOT_AT = 24,
  RECORD_MAP_COUNT_AT = 32,
  RECORD_MAP_ID_AT = 40,
  RECORD_MAP_BYTES = 24,

  STORE_DEFAULT_AT = 24,   /* slot of the default map's root */
  STORE_CATALOG_AT = 32,   /* slot of the catalogue's root */
  STORE_NEXT_ID_AT = 40,   /* the id of the map that is made next */
  STORE_SNAPSHOTS_AT = 48, /* slot of the root of the snapshots' trie, with */
  STORE_HAS_SNAPSHOTS = 2, /* this flag */
  STORE_EXPIRES = 1,       /* flag: records of the default map may expire */

  /* A large value's pages begin with this header. */
  EXTENT_HEADER_BYTES = 64,
  EXTENT_PAGE_BYTES = 4096
};

#define NODE_EPOCH_LIMIT (UINT64_C(1) << 48)
/* Milliseconds since 1970: below this, and not 0. */
#define RECORD_EXPIRY_LIMIT (UINT64_C(1) << 63)
#define EXTENT_MAGIC UINT64_C(0x0a656772616c636d) /* "mclarge\n" */

/* The map ids of a store; named maps come after them. */
enum {
  MAP_ID_NONE = 0,
  MAP_ID_DEFAULT = 1,
  MAP_ID_CATALOG = 2,
  MAP_ID_NAMED = 3
};
#define MAP_ID_SNAPSHOTS UINT32_MAX

/* Where nodes are read: the first `size` bytes at `base` are mapped. A writer
   may make the file longer while a reader walks, and store slots there that the
   reader then meets: what lies beyond `size` is looked at again with the source
   of that moment, which `refresh` gives (NULL: it does not grow). */
struct node_source {
  const uint8_t *base;
  uint64_t size;
  void (*refresh)(const void *context, struct node_source *now_out);
  const void *context;
  bool is_cut; /* the file is longer than what could be mapped */
};

static inline uint64_t node_meta(enum node_kind kind, unsigned flags,
                                 uint64_t epoch) {
  return (uint64_t)kind << 56 | (uint64_t)flags << 48 | epoch;
}

static inline unsigned node_meta_kind(uint64_t meta) {
  return (unsigned)(meta >> 56);
}

static inline unsigned node_meta_flags(uint64_t meta) {
  return (unsigned)(meta >> 48) & 0xff;
}

static inline uint64_t node_meta_epoch(uint64_t meta) {
  return meta & (NODE_EPOCH_LIMIT - 1);
}

/* The epoch of the node at `at`, which has been checked before. */
static inline uint64_t node_epoch(const uint8_t *at) {
  return node_meta_epoch(bytes_load_relaxed(at + NODE_META_AT));
}

/* ---- Branches and collision nodes ------------------------------------- */

struct branch_view {
  const uint8_t *at; /* the node */
  uint64_t offset;   /* of the node in the file */
  uint64_t bitmap;   /* which ways have a slot; 0 for a collision node */
  uint32_t slot_count;
  uint32_t level; /* COLLISION_LEVEL for a collision node */
};

/* The way that a key takes through a branch of `level`. */
static inline unsigned branch_way(uint64_t primary, uint64_t secondary,
                                  unsigned level) {
  uint64_t hash = primary;
  if (UNLIKELY(level >= BRANCH_SECONDARY_LEVEL)) {
    hash = secondary;
    level -= BRANCH_SECONDARY_LEVEL;
  }
  unsigned used = BRANCH_LEVEL_BITS * level;
  return (unsigned)(hash << used >> (64 - BRANCH_LEVEL_BITS));
}

static inline uint64_t branch_size(uint32_t slot_count, unsigned level) {
  return NODE_HEADER_BYTES + UINT64_C(8) * slot_count +
         (level >= BRANCH_TRAILER_LEVEL ? BRANCH_TRAILER_BYTES : 0);
}

/* The index of `way`'s slot among the slots that are there. */
static inline unsigned branch_index(uint64_t bitmap, unsigned way) {
  return bits_count(bitmap & ((UINT64_C(1) << way) - 1));
}

static inline uint8_t *branch_slot_at(uint8_t *branch, unsigned index) {
  return branch + NODE_HEADER_BYTES + 8 * (size_t)index;
}

static inline uint64_t branch_slot(const struct branch_view *branch,
                                   unsigned index) {
  return bytes_load_acquire(branch->at + NODE_HEADER_BYTES + 8 * (size_t)index);
}

/* What node_branch() does when a check fails: finds out which, notes it; or
   gives the view, if the file has grown. */
int node_branch_other(const struct node_source *source, uint64_t offset,
                      unsigned level, struct branch_view *view_out);

/*
 * Checks the branch (or, at COLLISION_LEVEL, the collision node) at `offset`
 * and gives a view of it. MMCMAP_ECORRUPT if it does not lie within the
 * source, or is not of this level.
 */
static inline int node_branch(const struct node_source *source, uint64_t offset,
                              unsigned level, struct branch_view *view_out) {
  if (UNLIKELY(!bytes_within(offset, NODE_HEADER_BYTES, source->size)))
    return node_branch_other(source, offset, level, view_out);
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  uint64_t shape = bytes_load_relaxed(at + NODE_SHAPE_AT);
  uint32_t slot_count = bits_count(shape);
  unsigned kind = NODE_BRANCH;
  if (UNLIKELY(level == COLLISION_LEVEL)) {
    kind = NODE_COLLISION;
    slot_count = shape <= COLLISION_SLOTS_MAX ? (uint32_t)shape : 0;
    shape = 0;
  }
  if (UNLIKELY(
          meta >> 48 != (kind << 8 | level) || slot_count == 0 ||
          !bytes_within(offset, branch_size(slot_count, level), source->size)))
    return node_branch_other(source, offset, level, view_out);
  view_out->at = at;
  view_out->offset = offset;
  view_out->bitmap = shape;
  view_out->slot_count = slot_count;
  view_out->level = level;
  return MMCMAP_OK;
}

/* The part of node_branch_find() that takes longer. */
int node_branch_find_other(const struct node_source *source, uint64_t offset,
                           unsigned level, unsigned way, uint64_t *slot_out);

/* The slot of `way` in the branch at `offset`, for lookups: as node_branch(),
   but only the slot need lie within the source. MMCMAP_NOTFOUND if the branch
   has none. */
static inline int node_branch_find(const struct node_source *source,
                                   uint64_t offset, unsigned level,
                                   unsigned way, uint64_t *slot_out) {
  if (UNLIKELY(!bytes_within(offset, NODE_HEADER_BYTES + 8 * BRANCH_WAYS,
                             source->size)))
    return node_branch_find_other(source, offset, level, way, slot_out);
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  uint64_t bitmap = bytes_load_relaxed(at + NODE_SHAPE_AT);
  if (UNLIKELY(meta >> 48 != (NODE_BRANCH << 8 | level) || bitmap == 0))
    return node_branch_find_other(source, offset, level, way, slot_out);
  if ((bitmap >> way & 1) == 0) return MMCMAP_NOTFOUND;
  *slot_out = bytes_load_acquire(at + NODE_HEADER_BYTES +
                                 8 * (size_t)branch_index(bitmap, way));
  return MMCMAP_OK;
}

/* The place of a branch in its trie: the bits of both hashes that lead to it,
   those that do not being 0. */
struct branch_place {
  uint32_t map_id;
  uint32_t level;
  uint64_t primary;
  uint64_t secondary;
};

/* The place of a branch of `level` on the way of a key with these hashes. */
struct branch_place branch_place_of(uint32_t map_id, unsigned level,
                                    uint64_t primary, uint64_t secondary);

/* Reads the place out of a checked branch; above BRANCH_TRAILER_LEVEL only 32
   bits of the primary hash are known, which is enough there. */
struct branch_place branch_read_place(const struct branch_view *branch);

/* Writes all but the slots: header and, if the level has one, the trailer. */
void branch_write_frame_of_slots(uint8_t *at, const struct branch_place *place,
                                 uint64_t epoch, uint64_t bitmap,
                                 uint32_t slot_count);

/* ---- Records ----------------------------------------------------------- */

struct record_view {
  const uint8_t *at;
  uint64_t offset;
  uint64_t epoch; /* of the last change */
  const uint8_t *key;
  const uint8_t *value;
  uint32_t value_size;
  uint16_t key_size;
  bool is_large;
  bool is_map;
  bool lets_expire;         /* if of a map */
  uint64_t expires_ms;      /* 0: never */
  uint64_t extent_offset;   /* if large */
  uint64_t extent_checksum; /* if large */
};

/* Of a record that expires, `value_size` is 8 more than that of its value. */
static inline uint64_t record_shape(uint16_t key_size, uint32_t value_size) {
  return (uint64_t)key_size << 32 | value_size;
}

/* Bytes of the node, rounded up to 8. */
static inline uint64_t record_size(uint16_t key_size, uint32_t value_size,
                                   bool is_large, bool is_expiring) {
  uint64_t payload = is_large ? RECORD_LARGE_BYTES : value_size;
  if (is_expiring) payload += RECORD_EXPIRY_BYTES;
  return bytes_align_up(NODE_HEADER_BYTES + payload + key_size, 8);
}

static inline uint64_t record_size_of(const struct record_view *record) {
  return record_size(record->key_size, record->value_size, record->is_large,
                     record->expires_ms != 0);
}

/* Bytes of the pages of a large value of `value_size`, whole pages. */
static inline uint64_t extent_size(uint32_t value_size) {
  return bytes_align_up(EXTENT_HEADER_BYTES + (uint64_t)value_size,
                        EXTENT_PAGE_BYTES);
}

/* Checks and views a record that node_record() leaves alone: one with a flag,
   one that breaks a rule, or one beyond what the file's size was. */
int node_record_other(const struct node_source *source, uint64_t offset,
                      struct record_view *view_out);

/* Checks the record at `offset`, and of a large one the header of its pages,
   and gives a view of it. Its checksum is not looked at. */
static inline int node_record(const struct node_source *source, uint64_t offset,
                              struct record_view *view_out) {
  if (UNLIKELY(!bytes_within(offset, NODE_HEADER_BYTES, source->size)))
    return node_record_other(source, offset, view_out);
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  uint64_t shape = bytes_load_relaxed(at + NODE_SHAPE_AT);
  uint64_t key_size = shape >> 32;
  uint64_t value_size = (uint32_t)shape;
  if (UNLIKELY(meta >> 48 != NODE_RECORD << 8 ||
               key_size > MMCMAP_KEY_SIZE_MAX ||
               !bytes_within(offset, NODE_HEADER_BYTES + key_size + value_size,
                             source->size)))
    return node_record_other(source, offset, view_out);
  view_out->at = at;
  view_out->offset = offset;
  view_out->epoch = node_meta_epoch(meta);
  view_out->key = at + NODE_HEADER_BYTES;
  view_out->value = at + NODE_HEADER_BYTES + key_size;
  view_out->value_size = (uint32_t)value_size;
  view_out->key_size = (uint16_t)key_size;
  view_out->is_large = view_out->is_map = view_out->lets_expire = false;
  view_out->expires_ms = 0;
  view_out->extent_offset = 0;
  view_out->extent_checksum = 0;
  return MMCMAP_OK;
}

/* Whether the record has expired by `now_ms`; never by 0. */
static inline bool record_is_past(const struct record_view *record,
                                  uint64_t now_ms) {
  return UNLIKELY(record->expires_ms != 0) && record->expires_ms <= now_ms;
}

static inline bool record_has_key(const struct record_view *record,
                                  const void *key, size_t key_size) {
  return record->key_size == key_size &&
         (key_size == 0 || memcmp(record->key, key, key_size) == 0);
}

/* What a record is made of. A large one names the pages that hold its value,
   which have been written before. */
struct record_parts {
  uint32_t map_id;
  uint64_t epoch;
  const void *key;
  const void *value; /* not used if large */
  uint16_t key_size;
  uint32_t value_size;
  bool is_large;
  bool is_map; /* the value is root, count and id, as struct map_words */
  uint64_t expires_ms; /* 0: never; of a map: not 0 if records in it may */
  uint64_t extent_offset;
  uint64_t extent_checksum;
};

/* Writes a record of record_size() bytes, padding and checksum included. */
void record_write(uint8_t *at, const struct record_parts *parts,
                  const struct hasher *hasher);

/* Compares a viewed record's checksum with its bytes, and of a large one its
   pages' too: MMCMAP_ECORRUPT if they differ. */
int record_verify(const struct node_source *source,
                  const struct record_view *record,
                  const struct hasher *hasher);

/* Writes the pages of a large value and returns their checksum. */
uint64_t extent_write(uint8_t *at, uint32_t map_id, uint64_t primary,
                      const void *value, uint32_t value_size,
                      const struct hasher *hasher);

/*
 * What the record of a map says. Root and count are changed in place, by single
 * stores, as long as the record is of the open epoch; so its checksum leaves them
 * out.
 */
struct map_words {
  uint64_t root;
  uint64_t count;
  uint64_t id;
};

_Static_assert(sizeof(struct map_words) == RECORD_MAP_BYTES, "no padding");

/* The words of a checked map record, as they are now. */
static inline struct map_words
record_map_words(const struct record_view *record) {
  struct map_words words = {
      .root = bytes_load_acquire(record->at + RECORD_MAP_ROOT_AT),
      .count = bytes_load_relaxed(record->at + RECORD_MAP_COUNT_AT),
      .id = bytes_u64(record->at + RECORD_MAP_ID_AT)};
  return words;
}

/* ---- Store roots --------------------------------------------------------- */

struct store_view {
  const uint8_t *at;
  uint64_t offset;
  uint64_t epoch;
  bool lets_expire;   /* records of the default map may */
  bool has_snapshots; /* there is a word for them */
};

/* What hangs on a store root. */
struct store_words {
  uint64_t default_root;
  uint64_t catalog_root;
  uint64_t next_id;
  uint64_t snapshots_root;
};

static inline uint64_t store_root_size(bool has_snapshots) {
  return has_snapshots ? STORE_SNAPSHOTS_AT + 8 : STORE_SNAPSHOTS_AT;
}

/* The words of a checked store root, as they are now. */
static inline struct store_words
store_words_of(const struct store_view *store) {
  struct store_words words = {
      .default_root = bytes_load_acquire(store->at + STORE_DEFAULT_AT),
      .catalog_root = bytes_load_acquire(store->at + STORE_CATALOG_AT),
      .next_id = bytes_load_relaxed(store->at + STORE_NEXT_ID_AT)};
  if (store->has_snapshots)
    words.snapshots_root = bytes_load_acquire(store->at + STORE_SNAPSHOTS_AT);
  return words;
}

/* Checks the store root that `slot`, of its kind, refers to. */
int node_store(const struct node_source *source, uint64_t slot,
               struct store_view *view_out);

/* Writes one. */
void store_write(uint8_t *at, uint64_t epoch, bool lets_expire,
                 bool has_snapshots, const struct store_words *words);

/* The value of the record of a snapshot that was saved. */
struct saved_words {
  uint64_t root; /* of the store */
  uint64_t count;
  uint64_t epoch;
  uint64_t time_ms;
  uint64_t content_epoch;
};

_Static_assert(sizeof(struct saved_words) == 40, "no padding");

/* Whether the node at `at`, which has been measured, is a record with pages of
   its own. One that is not may be half written over, and says nothing more. */
static inline bool node_is_large_record(const uint8_t *at) {
  uint64_t meta = bytes_load_relaxed(at + NODE_META_AT);
  return node_meta_kind(meta) == NODE_RECORD &&
         (node_meta_flags(meta) & RECORD_LARGE) != 0;
}

/* ---- Any node ----------------------------------------------------------- */

/* Tells kind and size of the node at `offset`, which must end at `limit` at
   the latest: what a scan of a frame steps by. */
int node_measure(const struct node_source *source, uint64_t offset,
                 uint64_t limit, enum node_kind *kind_out, uint64_t *size_out);

#endif
