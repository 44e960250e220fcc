/* SPDX-License-Identifier: MIT */
#include "txn/saved.h"

#include "base/errors.h"

/* ---- Changes ------------------------------------------------------------- */

/* Finds the name in the live trie. */
static int open_at(const struct catalog *catalog, const void *name, size_t size,
                   struct catalog_map *map, struct trie_key *key,
                   struct trie_path *path) {
  int code = catalog_open_snapshots(catalog, map);
  if (code != MMCMAP_OK) return code;
  *key = trie_key_of(catalog->hasher, name, size);
  return trie_find_path(&map->trie, key, path);
}

int saved_look(const struct catalog *catalog, const void *name, size_t size) {
  struct catalog_map map;
  struct trie_key key;
  struct trie_path path;
  int code = open_at(catalog, name, size, &map, &key, &path);
  if (code != MMCMAP_OK) return code;
  return path.ending == TRIE_ENDS_SAME ? MMCMAP_OK : MMCMAP_NOTFOUND;
}

int saved_put(const struct catalog *catalog, const struct saved *saved) {
  struct catalog_map map;
  struct trie_key key;
  struct trie_path path;
  struct saved_words words = {.root = saved->root,
                              .count = saved->count,
                              .epoch = saved->epoch,
                              .time_ms = saved->time_ms,
                              .content_epoch = saved->content_epoch};
  struct trie_value value = {.data = &words, .size = sizeof words};
  int code = open_at(catalog, saved->name, saved->name_size, &map, &key, &path);
  if (code != MMCMAP_OK) return code;
  if (path.ending == TRIE_ENDS_SAME)
    return error_set(MMCMAP_EEXIST, "a snapshot of that name");
  return trie_put_at(&map.trie, &key, &path, &value);
}

int saved_drop(const struct catalog *catalog, const void *name, size_t size) {
  struct catalog_map map;
  struct trie_key key;
  struct trie_path path;
  int code = open_at(catalog, name, size, &map, &key, &path);
  return code == MMCMAP_OK ? trie_remove_at(&map.trie, &path) : code;
}

/* ---- Reading ------------------------------------------------------------- */

static int read_record(const struct record_view *record,
                       struct saved *saved_out) {
  struct saved_words words;
  if (record->is_map || record->is_large || record->value_size != sizeof words)
    return error_set_corrupt("F47 record of a snapshot", record->offset);
  words.root = bytes_u64(record->value);
  words.count = bytes_u64(record->value + 8);
  words.epoch = bytes_u64(record->value + 16);
  words.time_ms = bytes_u64(record->value + 24);
  words.content_epoch = bytes_u64(record->value + 32);
  if (!slot_fits_count(words.root, words.count) ||
      words.epoch >= record->epoch || words.content_epoch > words.epoch ||
      words.time_ms == 0 || words.time_ms >= RECORD_EXPIRY_LIMIT)
    return error_set_corrupt("F47 record of a snapshot", record->offset);
  saved_out->name = record->key;
  saved_out->name_size = record->key_size;
  saved_out->root = words.root;
  saved_out->count = words.count;
  saved_out->epoch = words.epoch;
  saved_out->time_ms = words.time_ms;
  saved_out->content_epoch = words.content_epoch;
  return MMCMAP_OK;
}

int saved_find(const struct node_source *source, const struct hasher *hasher,
               uint64_t top, const void *name, size_t size,
               struct saved *saved_out) {
  struct trie_key key = trie_key_of(hasher, name, size);
  struct record_view record;
  uint64_t root;
  int code = catalog_snapshots_root(source, top, &root);
  if (code == MMCMAP_OK)
    code = trie_lookup(source, hasher, root, &key, &record);
  return code == MMCMAP_OK ? read_record(&record, saved_out) : code;
}

int saved_each(const struct node_source *source, uint64_t top,
               int (*visit)(void *context, const struct saved *saved),
               void *context) {
  struct trie_cursor cursor;
  struct record_view record;
  struct saved saved;
  uint64_t root;
  int code = catalog_snapshots_root(source, top, &root);
  trie_cursor_init(&cursor, root, source->size / NODE_HEADER_BYTES);
  while (code == MMCMAP_OK) {
    code = trie_cursor_next(&cursor, source, &record);
    if (code == MMCMAP_NOTFOUND) return MMCMAP_OK;
    if (code == MMCMAP_OK) code = read_record(&record, &saved);
    if (code == MMCMAP_OK) code = visit(context, &saved);
  }
  return code;
}

static int count_one(void *context, const struct saved *saved) {
  (void)saved;
  ++*(uint64_t *)context;
  return MMCMAP_OK;
}

int saved_count(const struct node_source *source, uint64_t top,
                uint64_t *count_out) {
  *count_out = 0;
  return saved_each(source, top, count_one, count_out);
}
