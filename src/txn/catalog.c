/* SPDX-License-Identifier: MIT */
#include "txn/catalog.h"

#include <stdlib.h>

#include "base/errors.h"

/* ---- Hanging ------------------------------------------------------------- */

/* What hangs on the store root, or would if there were one. */
static struct store_words words_of(const struct trie *trie,
                                   struct catalog_map *map) {
  struct store_words words = {
      .default_root = atomic_load_explicit(trie->top, memory_order_relaxed)};
  if (map->has_store) words = store_words_of(&map->store);
  words.next_id = map->next_id;
  return words;
}

/* Writes a store root, and publishes it. */
static int write_store(const struct trie *trie, struct catalog_map *map,
                       const struct store_words *words, bool lets_expire,
                       uint64_t count) {
  bool has_snapshots = words->snapshots_root != SLOT_EMPTY ||
                       (map->has_store && map->store.has_snapshots);
  uint64_t offset;
  int code = log_alloc(trie->log, store_root_size(has_snapshots), &offset);
  if (code != MMCMAP_OK) return code;
  store_write(log_at(trie->log, offset), trie->log->epoch, lets_expire,
              has_snapshots, words);
  code = trie_store(trie, 0, slot_of_store(offset), count);
  if (code == MMCMAP_OK && map->has_store) trie_retire_store(trie, &map->store);
  return code;
}

/* Stores `slot` in a word of the store root, if that has it and is of the open
   epoch; else in another store root. */
static int hang_in_store(const struct trie *trie, struct catalog_map *map,
                         unsigned word, uint64_t slot, uint64_t count) {
  const struct store_view *store = &map->store;
  if (map->has_store && store->epoch == trie->log->epoch &&
      (word != STORE_SNAPSHOTS_AT || store->has_snapshots))
    return trie_store(trie, store->offset + word, slot, count);
  struct store_words words = words_of(trie, map);
  if (word == STORE_DEFAULT_AT)
    words.default_root = slot;
  else if (word == STORE_CATALOG_AT)
    words.catalog_root = slot;
  else
    words.snapshots_root = slot;
  return write_store(trie, map, &words, map->has_store && store->lets_expire,
                     count);
}

static int hang_default(const struct trie *trie, uint64_t slot,
                        uint64_t count) {
  return hang_in_store(trie, trie->context, STORE_DEFAULT_AT, slot, count);
}

static int hang_catalog(const struct trie *trie, uint64_t slot,
                        uint64_t count) {
  return hang_in_store(trie, trie->context, STORE_CATALOG_AT, slot, count);
}

static int hang_snapshots(const struct trie *trie, uint64_t slot,
                          uint64_t count) {
  return hang_in_store(trie, trie->context, STORE_SNAPSHOTS_AT, slot, count);
}

static int put_map(struct catalog_map *map, const struct map_words *words) {
  struct trie_value value = {
      .data = words, .size = sizeof *words, .expires_ms = map->lets_expire};
  return trie_put_at(&map->catalog, &map->name, &map->path, &value);
}

/* The record of a map, if it is of the open epoch; else another one. The next id
   is raised before the map is seen that has taken one: if we die in between, a
   number is left out. */
static int hang_named(const struct trie *trie, uint64_t slot, uint64_t count) {
  struct catalog_map *map = trie->context;
  const struct record_view *record = &map->path.record;
  struct map_words words = {.root = slot, .count = count, .id = trie->map_id};
  if (map->is_there && record->epoch == trie->log->epoch)
    return trie_store(trie, record->offset + RECORD_MAP_ROOT_AT, slot, count);
  if (!map->is_there && map->has_store && map->store.epoch == trie->log->epoch)
    bytes_store_release(log_at(trie->log, map->store.offset + STORE_NEXT_ID_AT),
                        map->next_id);
  return put_map(map, &words);
}

/* ---- Looking up ---------------------------------------------------------- */

static void init_trie(const struct catalog *catalog, struct trie *trie,
                      uint32_t map_id, struct catalog_map *map) {
  trie->log = catalog->log;
  trie->hasher = catalog->hasher;
  trie->draft = catalog->draft;
  trie->map_id = map_id;
  trie->top = catalog->top;
  trie->context = map;
}

/* The store root, if there is one. */
static int open_store(const struct catalog *catalog, uint64_t top,
                      struct catalog_map *map) {
  struct node_source source = space_source(catalog->log->space);
  map->has_store = slot_is_store(top);
  map->next_id = MAP_ID_NAMED;
  atomic_init(&map->root, top);
  atomic_init(&map->catalog_root, SLOT_EMPTY);
  atomic_init(&map->snapshots_root, SLOT_EMPTY);
  if (!map->has_store) return MMCMAP_OK;
  int code = node_store(&source, top, &map->store);
  if (code != MMCMAP_OK) return code;
  struct store_words words = store_words_of(&map->store);
  atomic_init(&map->root, words.default_root);
  atomic_init(&map->catalog_root, words.catalog_root);
  atomic_init(&map->snapshots_root, words.snapshots_root);
  map->next_id = words.next_id;
  return MMCMAP_OK;
}

static int open_default(const struct catalog *catalog,
                        struct catalog_map *map) {
  struct trie *trie = &map->trie;
  uint64_t top = atomic_load_explicit(catalog->top, memory_order_relaxed);
  init_trie(catalog, trie, MAP_ID_DEFAULT, map);
  trie->count = catalog->count;
  trie->count_place = TRIE_COUNT_IN_CELL;
  trie->root = catalog->top;
  trie->hang = NULL;
  map->is_there = true;
  map->lets_expire = false;
  if (LIKELY(!slot_is_store(top))) return MMCMAP_OK;
  trie->root = &map->root;
  trie->hang = hang_default;
  int code = open_store(catalog, top, map);
  map->lets_expire = code == MMCMAP_OK && map->store.lets_expire;
  return code;
}

/* The trie of the catalogue itself. */
static int open_catalog_trie(const struct catalog *catalog,
                             struct catalog_map *map) {
  struct trie *trie = &map->catalog;
  init_trie(catalog, trie, MAP_ID_CATALOG, map);
  trie->root = &map->catalog_root;
  trie->count = &map->map_count;
  trie->count_place = TRIE_COUNT_NOWHERE;
  trie->hang = hang_catalog;
  atomic_init(&map->map_count, UINT32_MAX);
  return open_store(
      catalog, atomic_load_explicit(catalog->top, memory_order_relaxed), map);
}

/* Finds the name in the catalogue. */
static int open_catalog(const struct catalog *catalog,
                        const struct trie_key *name, struct catalog_map *map) {
  map->name = *name;
  int code = open_catalog_trie(catalog, map);
  if (code == MMCMAP_OK)
    code = trie_find_path(&map->catalog, &map->name, &map->path);
  if (code != MMCMAP_OK) return code;
  map->is_there = map->path.ending == TRIE_ENDS_SAME;
  map->lets_expire = map->is_there && map->path.record.lets_expire;
  if (map->is_there && !map->path.record.is_map)
    code = error_set_corrupt("F41 record of a map", map->path.record.offset);
  return code;
}

static int open_named(const struct catalog *catalog,
                      const struct trie_key *name, struct catalog_map *map) {
  struct trie *trie = &map->trie;
  int code = open_catalog(catalog, name, map);
  if (code != MMCMAP_OK) return code;
  struct map_words words = {.id = map->next_id};
  if (map->is_there)
    words = record_map_words(&map->path.record);
  else
    map->next_id++;
  if (words.id < MAP_ID_NAMED || words.id >= UINT32_MAX)
    return error_set(MMCMAP_EFULL, "map ids are used up");
  init_trie(catalog, trie, (uint32_t)words.id, map);
  atomic_init(&map->root, words.root);
  atomic_init(&map->count, words.count);
  trie->root = &map->root;
  trie->count = &map->count;
  trie->count_place = TRIE_COUNT_NOWHERE;
  trie->hang = hang_named;
  if (map->is_there && map->path.record.epoch == catalog->log->epoch)
    trie->count_place = map->path.record.offset + RECORD_MAP_COUNT_AT;
  return MMCMAP_OK;
}

int catalog_open(const struct catalog *catalog, const struct trie_key *name,
                 struct catalog_map *map_out) {
  return LIKELY(name == NULL) ? open_default(catalog, map_out)
                              : open_named(catalog, name, map_out);
}

/* The same root and count once more, hanging on what says whether its records may
   expire. */
static int let_expire(const struct catalog *catalog, struct catalog_map *map,
                      const struct trie_key *name, bool lets_expire) {
  if (name != NULL) {
    struct map_words words = record_map_words(&map->path.record);
    map->lets_expire = lets_expire;
    return put_map(map, &words);
  }
  uint64_t top = atomic_load_explicit(catalog->top, memory_order_relaxed);
  int code = open_store(catalog, top, map);
  if (code != MMCMAP_OK) return code;
  struct store_words words = words_of(&map->trie, map);
  return write_store(
      &map->trie, map, &words, lets_expire,
      atomic_load_explicit(catalog->count, memory_order_relaxed));
}

int catalog_open_to_expire(const struct catalog *catalog,
                           const struct trie_key *name,
                           struct catalog_map *map_out) {
  int code = catalog_open(catalog, name, map_out);
  if (code != MMCMAP_OK || LIKELY(map_out->lets_expire)) return code;
  if (!map_out->is_there) {
    map_out->lets_expire = true;
    return MMCMAP_OK;
  }
  code = let_expire(catalog, map_out, name, true);
  return code == MMCMAP_OK ? catalog_open(catalog, name, map_out) : code;
}

int catalog_end_expiry(const struct catalog *catalog,
                       const struct trie_key *name, struct catalog_map *map) {
  return let_expire(catalog, map, name, false);
}

int catalog_open_snapshots(const struct catalog *catalog,
                           struct catalog_map *map_out) {
  struct catalog_map *map = map_out;
  struct trie *trie = &map->trie;
  int code = open_store(
      catalog, atomic_load_explicit(catalog->top, memory_order_relaxed), map);
  if (code != MMCMAP_OK) return code;
  init_trie(catalog, trie, MAP_ID_SNAPSHOTS, map);
  trie->root = &map->snapshots_root;
  trie->count = &map->map_count;
  trie->count_place = TRIE_COUNT_NOWHERE;
  trie->hang = hang_snapshots;
  atomic_init(&map->map_count, UINT32_MAX);
  map->is_there = true;
  map->lets_expire = false;
  return MMCMAP_OK;
}

int catalog_drop(const struct catalog *catalog, const struct trie_key *name) {
  struct catalog_map map;
  int code = open_catalog(catalog, name, &map);
  if (code != MMCMAP_OK) return code;
  uint64_t count = map.is_there ? record_map_words(&map.path.record).count : 0;
  code = trie_remove_at(&map.catalog, &map.path);
  if (code == MMCMAP_OK)
    catalog->log->header->upkeep.dropped_records += count + 1;
  return code;
}

/* ---- By id --------------------------------------------------------------- */

void catalog_names_free(struct catalog_names *names) {
  for (size_t i = 0; i < names->count; i++)
    free(names->items[i].data);
  free(names->items);
  memset(names, 0, sizeof *names);
}

static int add_name(struct catalog_names *names, uint64_t id,
                    const struct record_view *record) {
  if (names->count == names->capacity) {
    size_t capacity = names->capacity == 0 ? 16 : 2 * names->capacity;
    struct catalog_name *items =
        realloc(names->items, capacity * sizeof *items);
    if (items == NULL) return error_set(MMCMAP_ENOMEM, "names of maps");
    names->items = items;
    names->capacity = capacity;
  }
  void *data = malloc((size_t)record->key_size + 1);
  if (data == NULL) return error_set(MMCMAP_ENOMEM, "names of maps");
  memcpy(data, record->key, record->key_size);
  struct catalog_name *item = &names->items[names->count++];
  *item =
      (struct catalog_name){.id = id, .size = record->key_size, .data = data};
  return MMCMAP_OK;
}

static int compare_names(const void *a, const void *b) {
  const struct catalog_name *left = a, *right = b;
  return (left->id > right->id) - (left->id < right->id);
}

static int read_names(const struct node_source *source, uint64_t catalog_root,
                      uint64_t next_id, struct catalog_names *names) {
  struct trie_cursor cursor;
  struct record_view record;
  int code;
  catalog_names_free(names);
  trie_cursor_init(&cursor, catalog_root, source->size / NODE_HEADER_BYTES);
  while ((code = trie_cursor_next(&cursor, source, &record)) == MMCMAP_OK) {
    if (record.is_map)
      code = add_name(names, record_map_words(&record).id, &record);
    if (code != MMCMAP_OK) break;
  }
  if (code != MMCMAP_NOTFOUND) {
    catalog_names_free(names);
    return code;
  }
  if (names->count > 1)
    qsort(names->items, names->count, sizeof *names->items, compare_names);
  names->next_id = next_id;
  return MMCMAP_OK;
}

/* An id is never given twice, and a map keeps its name: what has been read
   stays true, but that a map may have been dropped. */
static int find_name(const struct catalog *catalog, struct catalog_names *names,
                     uint32_t id, struct catalog_map *map,
                     const struct catalog_name **name_out) {
  struct node_source source = space_source(catalog->log->space);
  struct catalog_name wanted = {.id = id};
  *name_out = NULL;
  int code = open_catalog_trie(catalog, map);
  if (code == MMCMAP_OK && id >= names->next_id && id < map->next_id)
    code = read_names(&source, atomic_load(&map->catalog_root), map->next_id,
                      names);
  if (code == MMCMAP_OK && names->count > 0)
    *name_out = bsearch(&wanted, names->items, names->count,
                        sizeof *names->items, compare_names);
  return code;
}

int catalog_open_id(const struct catalog *catalog, struct catalog_names *names,
                    uint32_t map_id, struct catalog_map *map_out,
                    const struct trie **trie_out) {
  const struct catalog_name *name;
  *trie_out = NULL;
  if (LIKELY(map_id == MAP_ID_DEFAULT)) {
    *trie_out = &map_out->trie;
    return open_default(catalog, map_out);
  }
  if (map_id == MAP_ID_CATALOG) {
    *trie_out = &map_out->catalog;
    return open_catalog_trie(catalog, map_out);
  }
  if (map_id == MAP_ID_SNAPSHOTS) {
    *trie_out = &map_out->trie;
    return catalog_open_snapshots(catalog, map_out);
  }
  int code = find_name(catalog, names, map_id, map_out, &name);
  if (code != MMCMAP_OK || name == NULL) return code;
  struct trie_key key = trie_key_of(catalog->hasher, name->data, name->size);
  code = open_named(catalog, &key, map_out);
  if (code == MMCMAP_OK && map_out->is_there && map_out->trie.map_id == map_id)
    *trie_out = &map_out->trie;
  return code;
}

int catalog_move_store(const struct catalog *catalog, uint64_t offset,
                       bool *moved_out) {
  struct catalog_map map;
  uint64_t top = atomic_load_explicit(catalog->top, memory_order_relaxed);
  *moved_out = false;
  if (!slot_is_store(top) || slot_offset(top) != offset) return MMCMAP_OK;
  int code = open_default(catalog, &map);
  if (code != MMCMAP_OK) return code;
  code = hang_in_store(&map.trie, &map, STORE_DEFAULT_AT,
                       atomic_load(&map.root), atomic_load(catalog->count));
  *moved_out = code == MMCMAP_OK;
  return code;
}

/* ---- Reading ------------------------------------------------------------- */

int catalog_default_root_of(const struct node_source *source, uint64_t top,
                            uint64_t *root_out) {
  struct store_view store;
  *root_out = SLOT_EMPTY;
  int code = node_store(source, top, &store);
  if (code == MMCMAP_OK)
    *root_out = bytes_load_acquire(store.at + STORE_DEFAULT_AT);
  return code;
}

int catalog_root(const struct node_source *source, uint64_t top,
                 uint64_t *root_out) {
  struct store_view store;
  *root_out = SLOT_EMPTY;
  if (!slot_is_store(top)) return MMCMAP_OK;
  int code = node_store(source, top, &store);
  if (code == MMCMAP_OK)
    *root_out = bytes_load_acquire(store.at + STORE_CATALOG_AT);
  return code;
}

int catalog_snapshots_root(const struct node_source *source, uint64_t top,
                           uint64_t *root_out) {
  struct store_view store;
  *root_out = SLOT_EMPTY;
  if (!slot_is_store(top)) return MMCMAP_OK;
  int code = node_store(source, top, &store);
  if (code == MMCMAP_OK) *root_out = store_words_of(&store).snapshots_root;
  return code;
}

/* The record of a named map; MMCMAP_NOTFOUND. */
static int find_record(const struct node_source *source,
                       const struct hasher *hasher, uint64_t top,
                       const struct trie_key *name,
                       struct record_view *record_out) {
  struct trie_key key = *name;
  uint64_t root;
  int code = catalog_root(source, top, &root);
  if (code != MMCMAP_OK) return code;
  code = trie_lookup(source, hasher, root, &key, record_out);
  if (code == MMCMAP_OK && !record_out->is_map)
    code = error_set_corrupt("F41 record of a map", record_out->offset);
  return code;
}

int catalog_find(const struct node_source *source, const struct hasher *hasher,
                 uint64_t top, const struct trie_key *name,
                 struct map_words *words_out) {
  struct record_view record;
  memset(words_out, 0, sizeof *words_out);
  int code = find_record(source, hasher, top, name, &record);
  if (code == MMCMAP_OK) *words_out = record_map_words(&record);
  return code;
}

/* The same of the default map. */
static int look_at_default(const struct node_source *source, uint64_t top,
                           struct catalog_words *words) {
  struct store_view store;
  words->root = top;
  if (LIKELY(!slot_is_store(top))) return MMCMAP_OK;
  words->root = SLOT_EMPTY;
  int code = node_store(source, top, &store);
  if (code != MMCMAP_OK) return code;
  words->root = bytes_load_acquire(store.at + STORE_DEFAULT_AT);
  words->lets_expire = store.lets_expire;
  return MMCMAP_OK;
}

int catalog_look(const struct node_source *source, const struct hasher *hasher,
                 uint64_t top, const struct trie_key *name,
                 struct catalog_words *words_out) {
  struct record_view record;
  memset(words_out, 0, sizeof *words_out);
  if (LIKELY(name == NULL)) return look_at_default(source, top, words_out);
  int code = find_record(source, hasher, top, name, &record);
  if (code != MMCMAP_OK) return code;
  struct map_words words = record_map_words(&record);
  words_out->root = words.root;
  words_out->count = words.count;
  words_out->lets_expire = record.lets_expire;
  return MMCMAP_OK;
}
