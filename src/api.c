/* SPDX-License-Identifier: MIT */
/*
 * The public functions: they check handles and arguments, pin, and call the
 * layers. A handle adds to its store what belongs to one opening: the path as
 * given, the durability, the time-out.
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "handle.h"

/* ---- Opening and closing ------------------------------------------------- */

void mmcmap_options_init(mmcmap_options *options_out) {
  memset(options_out, 0, sizeof *options_out);
  options_out->struct_size = sizeof *options_out;
  options_out->durability = MMCMAP_ASYNC;
  options_out->flush_interval_ms = 100;
  options_out->create = true;
  options_out->lock = true;
  options_out->mode = 0600;
  options_out->timeout_ms = 5000;
  options_out->hash = MMCMAP_HASH_XXH3;
}

static const char *bad_option(const mmcmap_options *options) {
  if (options->struct_size != sizeof *options) return "option struct_size";
  if (options->durability < MMCMAP_ASYNC || options->durability > MMCMAP_MANUAL)
    return "option durability";
  if (options->hash < MMCMAP_HASH_XXH3 || options->hash > MMCMAP_HASH_MURMUR3)
    return "option hash";
  if (options->flush_interval_ms == 0) return "option flush_interval_ms";
  if (!options->lock && !options->readonly) return "option lock";
  if (options->exclusive && (options->readonly || !options->create))
    return "option exclusive";
  if ((options->mode & ~0777u) != 0) return "option mode";
  if (options->max_size_bytes != 0 &&
      options->max_size_bytes < MMCMAP_MAX_SIZE_MIN)
    return "option max_size_bytes";
  return NULL;
}

int mmcmap_open_with(const char *path, const mmcmap_options *options,
                     const struct store_internals *internals,
                     mmcmap **store_out) {
  *store_out = NULL;
  if (path == NULL || path[0] == '\0') return error_set(MMCMAP_EINVAL, "path");
  mmcmap *handle = calloc(1, sizeof *handle);
  if (handle == NULL) return error_set(MMCMAP_ENOMEM, "handle");
  if (options != NULL)
    handle->options = *options;
  else
    mmcmap_options_init(&handle->options);
  const char *bad = bad_option(&handle->options);
  int code = bad != NULL ? error_set(MMCMAP_EINVAL, bad) : MMCMAP_OK;
  if (code == MMCMAP_OK) {
    handle->path = strdup(path);
    if (handle->path == NULL) code = error_set(MMCMAP_ENOMEM, "path");
  }
  struct store *store;
  if (code == MMCMAP_OK)
    code = store_acquire(path, &handle->options, internals, &store);
  if (code != MMCMAP_OK) {
    free(handle->path);
    free(handle);
    return code;
  }
  atomic_init(&handle->store, store);
  handle->magic = HANDLE_MAGIC;
  handle->is_readonly = handle->options.readonly;
  /* What the dead have left, and nobody has committed. */
  const struct share_header *header = store->share.header;
  if (handle->options.durability == MMCMAP_ASYNC && !handle->is_readonly &&
      atomic_load(&header->change.changed_epoch) >
          atomic_load(&header->commit.durable_epoch))
    notify_flusher(handle, store);
  *store_out = handle;
  return MMCMAP_OK;
}

/* Of a file with a limit there are enough segments for some to be empty while
   others are cleaned. */
static uint32_t segment_size_of_new(const mmcmap_options *options) {
  uint32_t size = SEGMENT_SIZE_DEFAULT;
  while (options != NULL && options->max_size_bytes != 0 &&
         size > SEGMENT_SIZE_MIN && size > options->max_size_bytes / 128)
    size /= 2;
  return size;
}

int mmcmap_open(const char *path, const mmcmap_options *options,
                mmcmap **store_out) {
  const struct store_internals internals = {
      .segment_size = segment_size_of_new(options),
      .primary_mask = UINT64_MAX,
      .secondary_mask = UINT64_MAX};
  return mmcmap_open_with(path, options, &internals, store_out);
}

int handle_copy_name(const struct store *store, mmcmap_slice name,
                     struct trie_key *key_out) {
  if (name.size > MMCMAP_KEY_SIZE_MAX)
    return error_set(MMCMAP_ETOOBIG, "name of a map");
  char *copy = malloc(name.size + 1);
  if (copy == NULL) return error_set(MMCMAP_ENOMEM, "name of a map");
  if (name.size > 0) memcpy(copy, name.data, name.size);
  *key_out = trie_key_of(&store->hasher, copy, name.size);
  return MMCMAP_OK;
}

int mmcmap_map(mmcmap *handle, mmcmap_slice name, mmcmap **map_out) {
  struct store *store;
  *map_out = NULL;
  int code = enter(handle, &store);
  if (code != MMCMAP_OK) return code;
  mmcmap *map = calloc(1, sizeof *map);
  if (map == NULL) return error_set(MMCMAP_ENOMEM, "handle");
  map->path = strdup(handle->path);
  code = map->path != NULL ? handle_copy_name(store, name, &map->map)
                           : error_set(MMCMAP_ENOMEM, "path");
  if (code != MMCMAP_OK) {
    free(map->path);
    free(map);
    return code;
  }
  atomic_init(&map->store, store);
  map->options = handle->options;
  map->is_readonly = handle->is_readonly;
  map->is_map = true;
  map->magic = HANDLE_MAGIC;
  store_hold_handle(store);
  *map_out = map;
  return MMCMAP_OK;
}

static int end_handle(mmcmap *handle, bool discard) {
  int code = store_release(atomic_load(&handle->store), discard,
                           handle->options.timeout_ms);
  if (handle->is_map) free((void *)(uintptr_t)handle->map.data);
  handle->magic = 0;
  free(handle->path);
  free(handle);
  return code;
}

int mmcmap_close(mmcmap *handle) {
  if (handle == NULL) return MMCMAP_OK;
  CHECK(handle->magic == HANDLE_MAGIC);
  return end_handle(handle, false);
}

int mmcmap_remove(mmcmap *handle) {
  struct store *store;
  int code = enter_to_write(handle, &store);
  if (code == MMCMAP_OK) code = store_unlink(store, handle->path);
  if (code != MMCMAP_OK) return code;
  return end_handle(handle, true);
}

const char *mmcmap_path(const mmcmap *handle) {
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  return handle->path;
}

/* ---- Records ------------------------------------------------------------- */

void mmcmap_buffer_free(mmcmap_buffer *buffer) {
  if (buffer == NULL) return;
  free(buffer->data);
  memset(buffer, 0, sizeof *buffer);
}

int handle_buffer_reserve(mmcmap_buffer *buffer, size_t size) {
  if (buffer->capacity >= size) return MMCMAP_OK;
  size_t capacity = size < 64 ? 64 : size + size / 4;
  void *grown = realloc(buffer->data, capacity);
  if (grown == NULL) return error_set(MMCMAP_ENOMEM, "value buffer");
  buffer->data = grown;
  buffer->capacity = capacity;
  return MMCMAP_OK;
}

int handle_buffer_set(mmcmap_buffer *buffer, const uint8_t *data, size_t size) {
  int code = handle_buffer_reserve(buffer, size);
  if (code != MMCMAP_OK) return code;
  if (size > 0) memcpy(buffer->data, data, size);
  buffer->size = size;
  return MMCMAP_OK;
}

/* The root of a map now; the thread is pinned. A map that is not there has no
   records. */
int handle_find_root(struct store *store, const struct node_source *source,
                     const struct trie_key *map, uint64_t *root_out) {
  struct map_words words;
  uint64_t top = atomic_load_explicit(&store->share.header->live.root,
                                      memory_order_acquire);
  if (LIKELY(map == NULL)) return catalog_default_root(source, top, root_out);
  int code = catalog_find(source, &store->hasher, top, map, &words);
  *root_out = words.root;
  return code;
}

/* What find_live() is asked for; each may be NULL. */
struct wanted {
  mmcmap_buffer *value_out;
  uint64_t *ttl_ms_out;
};

/* Finds `key` under a root. */
static inline int find_record(const struct store *store,
                              const struct node_source *source, uint64_t root,
                              struct trie_key *key, struct wanted wanted) {
  struct record_view record;
  int code = trie_lookup(source, &store->hasher, root, key, &record);
  if (code != MMCMAP_OK) return code;
  if (UNLIKELY(record.expires_ms != 0)) {
    struct expiry_reading now = reading_of(store);
    if (expiry_is_past(&now, record.expires_ms)) return MMCMAP_NOTFOUND;
    if (wanted.ttl_ms_out != NULL)
      *wanted.ttl_ms_out = record.expires_ms - now.now_ms;
  }
  if (wanted.value_out == NULL) return code;
  return handle_buffer_set(wanted.value_out, record.value, record.value_size);
}

/* The same in a live map, while the pin keeps it. */
static inline int find_live(struct store *store, const struct trie_key *map,
                            mmcmap_slice key, struct wanted wanted) {
  struct trie_key trie_key = trie_key_of(&store->hasher, key.data, key.size);
  struct share_row *row;
  uint64_t root;
  int code = readers_row(&store->readers, &row);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  readers_pin(&store->readers, row);
  struct node_source source = space_source(&store->space);
  code = handle_find_root(store, &source, map, &root);
  if (LIKELY(code == MMCMAP_OK))
    code = find_record(store, &source, root, &trie_key, wanted);
  readers_unpin(row);
  return code;
}

/* A change has been made whatever becomes of upkeep: only that the store takes
   no more changes is of interest, and the next change says it. */
void handle_upkeep(const mmcmap *handle, struct store *store) {
  enum share_need need = upkeep_need(store->share.header);
  bool has_flusher = handle->options.durability == MMCMAP_ASYNC;
  if (need >= SHARE_NEED_SOON && has_flusher)
    flusher_call_upkeep(&store->flusher);
  if (need == SHARE_NEED_NOW || (handle->options.durability == MMCMAP_SYNC &&
                                 upkeep_is_due(store->share.header)))
    (void)upkeep_pay(&store->upkeep, handle->options.timeout_ms, has_flusher);
}

/* Of threads that come here with two epochs the later one counts. */
void handle_note_change(struct store *store, uint64_t epoch) {
  uint64_t noted = atomic_load(&store->own_epoch);
  while (noted < epoch &&
         !atomic_compare_exchange_weak(&store->own_epoch, &noted, epoch))
    continue;
}

enum { ROOM_TRIES_MAX = 32 };

bool handle_make_room(const mmcmap *handle, struct store *store, int code,
                      bool for_delete, unsigned *tries) {
  const _Atomic uint64_t *moved = &store->share.header->upkeep.own_bytes;
  mmcmap_error failure;
  if (!error_is_full(code) || (*tries)++ >= ROOM_TRIES_MAX) return false;
  mmcmap_last_error(&failure);
  uint64_t before = atomic_load(moved);
  if (upkeep_make_room(&store->upkeep, handle->options.timeout_ms, for_delete,
                       !for_delete && *tries == 1))
    return true;
  error_restore(&failure);
  if (space_limit(&store->space) == 0 || atomic_load(moved) == before)
    return false;
  *tries = ROOM_TRIES_MAX; /* there may be room behind what has been moved */
  return true;
}

bool handle_try_to_free(const mmcmap *handle, struct store *store, int code,
                        struct change_mode *mode, unsigned *tries) {
  if (!error_is_full(code) || mode->claim == SPACE_AT_LAST) return false;
  if (!handle_make_room(handle, store, code, true, tries))
    mode->claim = SPACE_AT_LAST;
  return true;
}

int mmcmap_get(mmcmap *handle, mmcmap_slice key, mmcmap_buffer *value_out) {
  struct store *store;
  value_out->size = 0;
  struct wanted wanted = {.value_out = value_out};
  int code = enter(handle, &store);
  return code == MMCMAP_OK ? find_live(store, map_of(handle), key, wanted)
                           : code;
}

int mmcmap_has(mmcmap *handle, mmcmap_slice key) {
  struct store *store;
  struct wanted wanted = {.value_out = NULL};
  int code = enter(handle, &store);
  return code == MMCMAP_OK ? find_live(store, map_of(handle), key, wanted)
                           : code;
}

int mmcmap_ttl(mmcmap *handle, mmcmap_slice key, uint64_t *ttl_ms_out) {
  struct store *store;
  struct wanted wanted = {.ttl_ms_out = ttl_ms_out};
  *ttl_ms_out = 0;
  int code = enter(handle, &store);
  return code == MMCMAP_OK ? find_live(store, map_of(handle), key, wanted)
                           : code;
}

int handle_put(mmcmap *handle, mmcmap_slice key, mmcmap_slice value,
               struct change_life life) {
  struct store *store;
  uint64_t epoch;
  struct change_mode mode = change_mode_of(handle);
  unsigned tries = 0;
  mode.life = life;
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  do
    code = writer_put(&store->writer, map_of(handle), key.data, key.size,
                      value.data, value.size, mode, &epoch);
  while (UNLIKELY(code != MMCMAP_OK) &&
         handle_make_room(handle, store, code, false, &tries));
  if (code != MMCMAP_OK) return code;
  return LIKELY(!change_may_expire(&life))
             ? finish_change(handle, store, epoch)
             : finish_expiring_change(handle, store, epoch);
}

int mmcmap_put(mmcmap *handle, mmcmap_slice key, mmcmap_slice value) {
  return handle_put(handle, key, value, life_of(0));
}

int mmcmap_put_ttl(mmcmap *handle, mmcmap_slice key, mmcmap_slice value,
                   uint64_t ttl_ms) {
  return handle_put(handle, key, value, life_of(ttl_ms));
}

int mmcmap_delete(mmcmap *handle, mmcmap_slice key) {
  struct store *store;
  uint64_t epoch;
  struct change_mode mode = change_mode_of(handle);
  unsigned tries = 0;
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  do
    code = writer_delete(&store->writer, map_of(handle), key.data, key.size,
                         mode, &epoch);
  while (UNLIKELY(code != MMCMAP_OK) &&
         handle_try_to_free(handle, store, code, &mode, &tries));
  return code == MMCMAP_OK ? finish_change(handle, store, epoch) : code;
}

/* A map that is not there has none. */
static int count_map(struct store *store, const struct trie_key *map,
                     uint64_t *count_out) {
  struct share_row *row;
  struct map_words words;
  int code = readers_row(&store->readers, &row);
  if (code != MMCMAP_OK) return code;
  readers_pin(&store->readers, row);
  struct node_source source = space_source(&store->space);
  uint64_t top = atomic_load_explicit(&store->share.header->live.root,
                                      memory_order_acquire);
  code = catalog_find(&source, &store->hasher, top, map, &words);
  *count_out = words.count;
  readers_unpin(row);
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

int mmcmap_count(mmcmap *handle, uint64_t *count_out) {
  struct store *store;
  *count_out = 0;
  int code = enter(handle, &store);
  if (code == MMCMAP_OK && handle->is_map)
    return count_map(store, map_of(handle), count_out);
  if (code == MMCMAP_OK)
    *count_out = atomic_load_explicit(&store->share.header->change.count,
                                      memory_order_relaxed);
  return code;
}

int mmcmap_version(mmcmap *handle, uint64_t *version_out) {
  struct store *store;
  struct moment moment;
  *version_out = 0;
  int code = enter(handle, &store);
  if (code == MMCMAP_OK)
    code =
        writer_take_moment(&store->writer, handle->options.timeout_ms, &moment);
  if (code == MMCMAP_OK) *version_out = moment.content_epoch;
  return code;
}

int mmcmap_size(mmcmap *handle, uint64_t *size_bytes_out) {
  struct store *store;
  *size_bytes_out = 0;
  int code = enter(handle, &store);
  if (code == MMCMAP_OK) *size_bytes_out = space_look(&store->space);
  return code;
}

int mmcmap_sync(mmcmap *handle) {
  struct store *store;
  int code = enter(handle, &store);
  if (code == MMCMAP_OK && !store->is_readonly)
    code = commit_all(&store->committer);
  return code;
}

int mmcmap_step(mmcmap *handle, uint64_t budget_ns) {
  struct store *store;
  bool more;
  uint64_t end_ns = process_monotonic_ns() + budget_ns;
  int code = enter(handle, &store);
  if (code != MMCMAP_OK || budget_ns == 0 || store->is_readonly) return code;
  /* What it does not come to, for whatever reason, is left to the next step. */
  (void)sweep_run(&store->sweep, handle->options.timeout_ms, end_ns);
  const struct share_header *header = store->share.header;
  bool is_idle = atomic_load(&header->change.changed_epoch) <=
                 atomic_load(&header->commit.durable_epoch);
  code = commit_all_within(&store->committer, handle->options.timeout_ms);
  if (code != MMCMAP_OK) return code;
  code = upkeep_run(&store->upkeep, is_idle ? SHARE_NEED_IDLE : SHARE_NEED_SOON,
                    handle->options.timeout_ms, end_ns, &more);
  return error_is_full(code) ? MMCMAP_OK : code; /* puts say that */
}
