/* SPDX-License-Identifier: MIT */
/*
 * Records that the trie vouches for are handed on as they are met. The others
 * are collected, sorted by key and age, and handed on at the end, where they
 * override: among them are those of commits that recovery does not reach.
 */
#include "maint/salvage.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "format/frame.h"
#include "format/segment.h"
#include "maint/recovery.h"
#include "trie/trie.h"
#include "txn/catalog.h"

enum { FRAME_SALT_AT = 16, FRAME_PREVIOUS_AT = 24, SECRET_TRIAL_RECORDS = 8 };

/* ---- Lists --------------------------------------------------------------- */

/* Makes room for one more item; MMCMAP_ENOMEM. */
static int reserve(void **items, size_t count, size_t *capacity, size_t size) {
  if (count < *capacity) return MMCMAP_OK;
  size_t wanted = *capacity == 0 ? 256 : 2 * *capacity;
  void *grown = realloc(*items, wanted * size);
  if (grown == NULL) return error_set(MMCMAP_ENOMEM, "salvage");
  *items = grown;
  *capacity = wanted;
  return MMCMAP_OK;
}

static int add_frame(struct salvage *salvage, uint64_t offset, uint64_t end) {
  void *items = salvage->frames;
  int code = reserve(&items, salvage->frame_count, &salvage->frame_capacity,
                     sizeof *salvage->frames);
  salvage->frames = items;
  if (code != MMCMAP_OK) return code;
  struct salvage_range range = {.offset = offset, .end = end};
  salvage->frames[salvage->frame_count++] = range;
  return MMCMAP_OK;
}

/* By the id, among `map_count` others. */
static size_t place_of_map(const struct salvage *salvage, uint64_t id) {
  size_t low = 0, high = salvage->map_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (salvage->maps[middle].id < id)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static struct salvage_map *find_map(const struct salvage *salvage,
                                    uint64_t id) {
  size_t place = place_of_map(salvage, id);
  return place < salvage->map_count && salvage->maps[place].id == id
             ? &salvage->maps[place]
             : NULL;
}

/* In the place of an older version of it. */
static int add_map(struct salvage *salvage, const struct salvage_map *map) {
  struct salvage_map *known = find_map(salvage, map->id);
  if (known != NULL) {
    if (known->root_epoch <= map->root_epoch) *known = *map;
    return MMCMAP_OK;
  }
  void *items = salvage->maps;
  int code = reserve(&items, salvage->map_count, &salvage->map_capacity,
                     sizeof *salvage->maps);
  salvage->maps = items;
  if (code != MMCMAP_OK) return code;
  size_t place = place_of_map(salvage, map->id);
  memmove(&salvage->maps[place + 1], &salvage->maps[place],
          (salvage->map_count - place) * sizeof *salvage->maps);
  salvage->maps[place] = *map;
  salvage->map_count++;
  return MMCMAP_OK;
}

static int add_record(struct salvage *salvage, const struct record_view *record,
                      uint64_t primary) {
  void *items = salvage->records;
  int code = reserve(&items, salvage->record_count, &salvage->record_capacity,
                     sizeof *salvage->records);
  salvage->records = items;
  if (code != MMCMAP_OK) return code;
  struct salvage_record item = {.at = record->at,
                                .offset = record->offset,
                                .primary = primary,
                                .epoch = record->epoch};
  salvage->records[salvage->record_count++] = item;
  return MMCMAP_OK;
}

/* ---- Records ------------------------------------------------------------- */

/* Whether a whole record is at `offset`, of a map or, if `is_of_map`, the record
   of a map in a catalogue. */
static bool is_record_of(const struct node_source *source,
                         const struct hasher *hasher, uint64_t offset,
                         bool is_of_map, struct record_view *record_out) {
  if (!bytes_within(offset, NODE_HEADER_BYTES, source->size)) return false;
  uint64_t meta = bytes_load_relaxed(source->base + offset + NODE_META_AT);
  uint32_t map_id = bytes_u32(source->base + offset + NODE_MAP_ID_AT);
  bool fits = is_of_map
                  ? map_id == MAP_ID_CATALOG
                  : map_id == MAP_ID_DEFAULT ||
                        (map_id >= MAP_ID_NAMED && map_id != MAP_ID_SNAPSHOTS);
  if (node_meta_kind(meta) != NODE_RECORD || !fits ||
      ((node_meta_flags(meta) & RECORD_MAP) != 0) != is_of_map)
    return false;
  return node_record(source, offset, record_out) == MMCMAP_OK &&
         record_verify(source, record_out, hasher) == MMCMAP_OK;
}

static bool is_record(const struct node_source *source,
                      const struct hasher *hasher, uint64_t offset,
                      struct record_view *record_out) {
  return is_record_of(source, hasher, offset, false, record_out);
}

static uint64_t map_id_at(const struct salvage *salvage, uint64_t offset) {
  return bytes_u32(salvage->source.base + offset + NODE_MAP_ID_AT);
}

static uint64_t end_of(const struct record_view *record) {
  return record->offset + record_size_of(record);
}

/* ---- The secret ---------------------------------------------------------- */

/* Takes the superblock at `offset`, if it is valid and the newest. */
static void try_superblock(struct salvage *salvage, uint64_t offset) {
  struct superblock superblock;
  const struct node_source *source = &salvage->source;
  if (!bytes_within(offset, SUPERBLOCK_BYTES, source->size) ||
      superblock_decode(source->base + offset, offset, true, &superblock) !=
          MMCMAP_OK ||
      (salvage->has_superblock &&
       superblock.sequence < salvage->superblock.sequence))
    return;
  salvage->superblock = superblock;
  salvage->has_superblock = true;
}

/* Whether records fit the secret that stands in a damaged superblock. */
static bool try_secret(struct salvage *salvage, uint64_t offset) {
  const struct node_source *source = &salvage->source;
  struct record_view record;
  if (!bytes_within(offset, SUPERBLOCK_BYTES, source->size)) return false;
  uint32_t hash = bytes_u32(source->base + offset + SALVAGE_HASH_AT);
  if (hash > MMCMAP_HASH_MURMUR3) hash = MMCMAP_HASH_XXH3;
  if (hasher_init(&salvage->hasher, (int)hash,
                  source->base + offset + SALVAGE_SECRET_AT) != MMCMAP_OK)
    return false;
  int found = 0;
  for (uint64_t at = SEGMENT_FIRST_HEADER_OFFSET; at < source->size; at += 8)
    if (is_record(source, &salvage->hasher, at, &record) &&
        ++found == SECRET_TRIAL_RECORDS)
      break;
  return found > 0;
}

static int find_secret(struct salvage *salvage) {
  try_superblock(salvage, SUPERBLOCK_A_OFFSET);
  try_superblock(salvage, SUPERBLOCK_B_OFFSET);
  if (salvage->has_superblock) {
    salvage->segment_size = salvage->superblock.segment_size;
    return hasher_init(&salvage->hasher, salvage->superblock.hash,
                       salvage->superblock.secret);
  }
  salvage->segment_size = SEGMENT_SIZE_MAX;
  if (try_secret(salvage, SUPERBLOCK_A_OFFSET) ||
      try_secret(salvage, SUPERBLOCK_B_OFFSET))
    return MMCMAP_OK;
  return error_set(MMCMAP_EFORMAT, "F4 both superblocks");
}

/* ---- Frames and the root ------------------------------------------------- */

/* Whether a whole frame begins at `offset`, whatever came before it. */
static bool is_frame(const struct salvage *salvage, uint64_t offset,
                     struct frame *frame_out) {
  const struct node_source *source = &salvage->source;
  uint64_t checksum;
  if (!bytes_within(offset, FRAME_HEADER_BYTES, source->size)) return false;
  const uint8_t *at = source->base + offset;
  if (node_meta_kind(bytes_u64(at + NODE_META_AT)) != FRAME_KIND) return false;
  return frame_read(source, offset, salvage->segment_size,
                    bytes_u64(at + FRAME_SALT_AT),
                    bytes_u64(at + FRAME_PREVIOUS_AT), &salvage->hasher,
                    frame_out, &checksum) == MMCMAP_OK;
}

static int find_frames(struct salvage *salvage) {
  uint64_t at = SEGMENT_FIRST_HEADER_OFFSET;
  while (at < salvage->source.size) {
    struct frame frame;
    if (!is_frame(salvage, at, &frame)) {
      at += 8;
      continue;
    }
    int code = add_frame(salvage, at, at + frame.size_bytes);
    if (code != MMCMAP_OK) return code;
    if ((frame.flags & FRAME_ENDS_COMMIT) != 0 &&
        frame.epoch >= salvage->top_epoch) {
      salvage->top = frame.root;
      salvage->top_epoch = frame.epoch;
    }
    at += frame.size_bytes;
  }
  return MMCMAP_OK;
}

/* ---- Maps ---------------------------------------------------------------- */

/* The default map; if its root is damaged, it stays what is no root of a map, and
   says nothing of any record. */
static int add_default_map(struct salvage *salvage) {
  struct salvage_map map = {.id = MAP_ID_DEFAULT,
                            .root = salvage->top,
                            .root_epoch = salvage->top_epoch};
  uint64_t root;
  if (catalog_default_root(&salvage->source, salvage->top, &root) == MMCMAP_OK)
    map.root = root;
  return add_map(salvage, &map);
}

static int add_named_map(struct salvage *salvage,
                         const struct record_view *record, uint64_t epoch) {
  struct map_words words = record_map_words(record);
  struct salvage_map map = {.id = words.id,
                            .name = record->key,
                            .name_size = record->key_size,
                            .root = words.root,
                            .root_epoch = epoch};
  return words.id < MAP_ID_NAMED ? MMCMAP_OK : add_map(salvage, &map);
}

/* Those of the newest catalogue; whether all of it could be walked. */
static int walk_catalog(struct salvage *salvage, bool *is_whole_out) {
  struct trie_cursor cursor;
  struct record_view record;
  uint64_t root;
  *is_whole_out = false;
  if (salvage->top_epoch == 0 ||
      catalog_root(&salvage->source, salvage->top, &root) != MMCMAP_OK)
    return MMCMAP_OK;
  trie_cursor_init(&cursor, root, salvage->source.size / NODE_HEADER_BYTES);
  for (;;) {
    int code = trie_cursor_next(&cursor, &salvage->source, &record);
    *is_whole_out = code == MMCMAP_NOTFOUND;
    if (code != MMCMAP_OK || !record.is_map ||
        record_verify(&salvage->source, &record, &salvage->hasher) != MMCMAP_OK)
      return MMCMAP_OK;
    code = add_named_map(salvage, &record, salvage->top_epoch);
    if (code != MMCMAP_OK) return code;
  }
}

/* Those of all catalogues that there have been, as far as they are whole. */
static int scan_catalogs(struct salvage *salvage) {
  int code = MMCMAP_OK;
  uint64_t at = SEGMENT_FIRST_HEADER_OFFSET;
  while (at < salvage->source.size && code == MMCMAP_OK) {
    struct record_view record;
    if (is_record_of(&salvage->source, &salvage->hasher, at, true, &record)) {
      code = add_named_map(salvage, &record, record.epoch);
      at = end_of(&record);
    } else {
      at += 8;
    }
  }
  return code;
}

static int find_maps(struct salvage *salvage) {
  int code = add_default_map(salvage);
  if (code == MMCMAP_OK) code = walk_catalog(salvage, &salvage->has_all_maps);
  if (code == MMCMAP_OK && !salvage->has_all_maps)
    code = scan_catalogs(salvage);
  return code;
}

/* The map of a record; NULL, if it was dropped. */
static int map_of(struct salvage *salvage, const struct record_view *record,
                  struct salvage_map **map_out) {
  uint64_t id = map_id_at(salvage, record->offset);
  struct salvage_map lost = {.id = id, .offset = record->offset};
  int code = MMCMAP_OK;
  *map_out = find_map(salvage, id);
  if (*map_out != NULL || salvage->has_all_maps) return MMCMAP_OK;
  code = add_map(salvage, &lost);
  if (code == MMCMAP_OK) *map_out = find_map(salvage, id);
  return code;
}

int salvage_open(struct salvage *salvage, const struct node_source *source) {
  struct recovered recovered;
  memset(salvage, 0, sizeof *salvage);
  salvage->source = *source;
  int code = find_secret(salvage);
  if (code == MMCMAP_OK && salvage->has_superblock) {
    code = recovery_roll_forward(source, &salvage->hasher, &salvage->superblock,
                                 &recovered);
    if (code != MMCMAP_OK) return code;
    salvage->top = recovered.state.root;
    salvage->top_epoch = recovered.state.epoch;
    recovered_forget(&recovered);
  }
  if (code == MMCMAP_OK) code = find_frames(salvage);
  if (code == MMCMAP_OK) code = find_maps(salvage);
  if (code != MMCMAP_OK) salvage_close(salvage);
  return code;
}

void salvage_close(struct salvage *salvage) {
  free(salvage->frames);
  free(salvage->records);
  free(salvage->maps);
  salvage->maps = NULL;
  salvage->frames = NULL;
  salvage->records = NULL;
}

/* ---- What the trie says about a key -------------------------------------- */

static bool is_in_whole_frame(const struct salvage *salvage, uint64_t offset) {
  size_t low = 0, high = salvage->frame_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (salvage->frames[middle].end <= offset)
      low = middle + 1;
    else
      high = middle;
  }
  return low < salvage->frame_count && salvage->frames[low].offset <= offset;
}

enum verdict { VERDICT_CURRENT, VERDICT_PAST, VERDICT_UNKNOWN };

/* Whether all branches on the way of a key lie in whole frames, so that the key
   is where they lead to or nowhere. */
static bool is_way_whole(const struct salvage *salvage, uint64_t root,
                         struct trie_key *key) {
  struct branch_view branch;
  uint64_t slot = root;
  for (unsigned level = 0; slot != SLOT_EMPTY && !slot_is_record(slot);
       level++) {
    if (!is_in_whole_frame(salvage, slot_offset(slot)) ||
        node_branch(&salvage->source, slot_offset(slot), level, &branch) !=
            MMCMAP_OK)
      return false;
    if (level == COLLISION_LEVEL) return true;
    unsigned way = trie_way(&salvage->hasher, key, level);
    if ((branch.bitmap >> way & 1) == 0) return true;
    slot = branch_slot(&branch, branch_index(branch.bitmap, way));
  }
  return true;
}

/* Whether the trie holds that record for its key, or another one or none, or
   cannot be relied upon there. A way that leads to a record of the key is right,
   whatever else is damaged. */
static enum verdict ask_trie(const struct salvage *salvage,
                             const struct salvage_map *map,
                             struct trie_key *key, uint64_t offset) {
  struct record_view found;
  if (map->root_epoch == 0) return VERDICT_UNKNOWN;
  int code =
      trie_lookup(&salvage->source, &salvage->hasher, map->root, key, &found);
  if (code == MMCMAP_OK)
    return found.offset == offset ? VERDICT_CURRENT : VERDICT_PAST;
  return code == MMCMAP_NOTFOUND && is_way_whole(salvage, map->root, key)
             ? VERDICT_PAST
             : VERDICT_UNKNOWN;
}

/* ---- The records that are left ------------------------------------------- */

static void view_key(const struct salvage_record *record, const uint8_t **key,
                     size_t *size) {
  uint64_t meta = bytes_load_relaxed(record->at + NODE_META_AT);
  unsigned flags = node_meta_flags(meta);
  *key = record->at + NODE_HEADER_BYTES;
  if ((flags & RECORD_EXPIRES) != 0) *key += RECORD_EXPIRY_BYTES;
  if ((flags & RECORD_LARGE) != 0) *key += RECORD_LARGE_BYTES;
  *size = (size_t)(bytes_load_relaxed(record->at + NODE_SHAPE_AT) >> 32);
}

static int compare_keys(const struct salvage_record *a,
                        const struct salvage_record *b) {
  const uint8_t *key_a, *key_b;
  size_t size_a, size_b;
  uint32_t map_a = bytes_u32(a->at + NODE_MAP_ID_AT);
  uint32_t map_b = bytes_u32(b->at + NODE_MAP_ID_AT);
  if (map_a != map_b) return map_a < map_b ? -1 : 1;
  if (a->primary != b->primary) return a->primary < b->primary ? -1 : 1;
  view_key(a, &key_a, &size_a);
  view_key(b, &key_b, &size_b);
  if (size_a != size_b) return size_a < size_b ? -1 : 1;
  return size_a == 0 ? 0 : memcmp(key_a, key_b, size_a);
}

/* By key, the newest version first. */
static int compare_records(const void *left, const void *right) {
  const struct salvage_record *a = left, *b = right;
  int order = compare_keys(a, b);
  if (order != 0) return order;
  if (a->epoch != b->epoch) return a->epoch > b->epoch ? -1 : 1;
  return a->offset > b->offset ? -1 : 1;
}

static int take_left(struct salvage *salvage,
                     int (*take)(void *context, struct salvage_map *map,
                                 const struct record_view *record),
                     void *context) {
  struct salvage_record *records = salvage->records;
  if (salvage->record_count == 0) return MMCMAP_OK;
  qsort(records, salvage->record_count, sizeof *records, compare_records);
  for (size_t i = 0; i < salvage->record_count; i++) {
    struct record_view record;
    if (i > 0 && compare_keys(&records[i - 1], &records[i]) == 0) continue;
    struct salvage_map *map =
        find_map(salvage, map_id_at(salvage, records[i].offset));
    int code = node_record(&salvage->source, records[i].offset, &record);
    if (code == MMCMAP_OK) code = take(context, map, &record);
    if (code != MMCMAP_OK) return code;
  }
  return MMCMAP_OK;
}

int salvage_read(struct salvage *salvage,
                 int (*take)(void *context, struct salvage_map *map,
                             const struct record_view *record),
                 void *context) {
  uint64_t at = SEGMENT_FIRST_HEADER_OFFSET;
  while (at < salvage->source.size) {
    struct record_view record;
    struct salvage_map *map;
    if (!is_record(&salvage->source, &salvage->hasher, at, &record)) {
      at += 8;
      continue;
    }
    int code = map_of(salvage, &record, &map);
    struct trie_key key =
        trie_key_of(&salvage->hasher, record.key, record.key_size);
    enum verdict verdict = VERDICT_PAST;
    if (code == MMCMAP_OK && map != NULL)
      verdict = record.epoch > map->root_epoch
                    ? VERDICT_UNKNOWN
                    : ask_trie(salvage, map, &key, at);
    if (verdict == VERDICT_CURRENT) code = take(context, map, &record);
    if (verdict == VERDICT_UNKNOWN)
      code = add_record(salvage, &record, key.primary);
    if (code != MMCMAP_OK) return code;
    at = end_of(&record);
  }
  return take_left(salvage, take, context);
}
