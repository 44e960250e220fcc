/* SPDX-License-Identifier: MIT */
/*
 * The public functions: they check handles and arguments, pin, and call the
 * layers. A handle adds to its store what belongs to one opening: the path as
 * given, the durability, the time-out.
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "store.h"

#define HANDLE_MAGIC UINT32_C(0x6d6d6331)
#define SNAPSHOT_MAGIC UINT32_C(0x6d6d6332)
#define CURSOR_MAGIC UINT32_C(0x6d6d6333)

struct mmcmap {
  uint32_t magic;
  bool is_readonly;
  struct store *store;
  mmcmap_options options;
  char *path;
};

/* Belongs to one thread at a time. */
struct mmcmap_snapshot {
  uint32_t magic;
  struct store *store;
  struct moment moment;
};

struct mmcmap_cursor {
  uint32_t magic;
  mmcmap_snapshot *snapshot;
  struct trie_cursor cursor;
};

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
  if (code == MMCMAP_OK)
    code = store_acquire(path, &handle->options, internals, &handle->store);
  if (code != MMCMAP_OK) {
    free(handle->path);
    free(handle);
    return code;
  }
  handle->magic = HANDLE_MAGIC;
  handle->is_readonly = handle->options.readonly;
  *store_out = handle;
  return MMCMAP_OK;
}

int mmcmap_open(const char *path, const mmcmap_options *options,
                mmcmap **store_out) {
  static const struct store_internals internals = {
      .segment_size = SEGMENT_SIZE_DEFAULT,
      .primary_mask = UINT64_MAX,
      .secondary_mask = UINT64_MAX};
  return mmcmap_open_with(path, options, &internals, store_out);
}

/* Every entry begins with this: a handle that is none is the caller's bug. */
static inline int enter(const mmcmap *handle) {
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  if (UNLIKELY(!store_is_ours(handle->store)))
    return error_set(MMCMAP_EFORK, "a handle from before fork()");
  return MMCMAP_OK;
}

static int enter_to_write(const mmcmap *handle) {
  int code = enter(handle);
  if (code == MMCMAP_OK && handle->is_readonly)
    code = error_set(MMCMAP_EREADONLY, "opened read-only");
  return code;
}

static int end_handle(mmcmap *handle, bool discard) {
  int code = store_release(handle->store, discard);
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
  int code = enter_to_write(handle);
  if (code == MMCMAP_OK) code = store_unlink(handle->store, handle->path);
  if (code != MMCMAP_OK) return code;
  return end_handle(handle, true);
}

const char *mmcmap_path(const mmcmap *handle) {
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  return handle->path;
}

/* ---- Records ------------------------------------------------------------- */

void mmcmap_buffer_free(mmcmap_buffer *buffer) {
  free(buffer->data);
  memset(buffer, 0, sizeof *buffer);
}

static int buffer_set(mmcmap_buffer *buffer, const uint8_t *data, size_t size) {
  if (buffer->capacity < size) {
    size_t capacity = size < 64 ? 64 : size + size / 4;
    void *grown = realloc(buffer->data, capacity);
    if (grown == NULL) return error_set(MMCMAP_ENOMEM, "value buffer");
    buffer->data = grown;
    buffer->capacity = capacity;
  }
  if (size > 0) memcpy(buffer->data, data, size);
  buffer->size = size;
  return MMCMAP_OK;
}

/* Finds `key` in the live map and, if `value_out` is given, copies its value
   while the pin keeps it. */
static inline int find_live(mmcmap *handle, mmcmap_slice key,
                            mmcmap_buffer *value_out) {
  struct store *store = handle->store;
  struct trie_key trie_key = trie_key_of(&store->hasher, key.data, key.size);
  struct readers_row *row;
  int code = readers_row(&store->readers, &row);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  readers_pin(&store->readers, row);
  uint64_t root = atomic_load_explicit(&store->live.root, memory_order_acquire);
  struct node_source source = space_source(&store->space);
  struct record_view record;
  code = trie_lookup(&source, &store->hasher, root, &trie_key, &record);
  if (code == MMCMAP_OK && value_out != NULL)
    code = buffer_set(value_out, record.value, record.value_size);
  readers_unpin(row);
  return code;
}

int mmcmap_get(mmcmap *handle, mmcmap_slice key, mmcmap_buffer *value_out) {
  value_out->size = 0;
  int code = enter(handle);
  return code == MMCMAP_OK ? find_live(handle, key, value_out) : code;
}

int mmcmap_has(mmcmap *handle, mmcmap_slice key) {
  int code = enter(handle);
  return code == MMCMAP_OK ? find_live(handle, key, NULL) : code;
}

/* A change has been published: makes it durable as the handle promises. */
static int finish_change(mmcmap *handle, uint64_t epoch) {
  struct store *store = handle->store;
  switch (handle->options.durability) {
    case MMCMAP_SYNC:
      return commit_epoch(&store->committer, epoch);
    case MMCMAP_ASYNC:
      return flusher_notify(&store->flusher, handle->options.flush_interval_ms);
    default:
      return MMCMAP_OK;
  }
}

int mmcmap_put(mmcmap *handle, mmcmap_slice key, mmcmap_slice value) {
  uint64_t epoch;
  int code = enter_to_write(handle);
  if (code == MMCMAP_OK)
    code = writer_put(&handle->store->writer, key.data, key.size, value.data,
                      value.size, handle->options.timeout_ms, &epoch);
  return code == MMCMAP_OK ? finish_change(handle, epoch) : code;
}

int mmcmap_delete(mmcmap *handle, mmcmap_slice key) {
  uint64_t epoch;
  int code = enter_to_write(handle);
  if (code == MMCMAP_OK)
    code = writer_delete(&handle->store->writer, key.data, key.size,
                         handle->options.timeout_ms, &epoch);
  return code == MMCMAP_OK ? finish_change(handle, epoch) : code;
}

int mmcmap_count(mmcmap *handle, uint64_t *count_out) {
  *count_out = 0;
  int code = enter(handle);
  if (code == MMCMAP_OK)
    *count_out =
        atomic_load_explicit(&handle->store->live.count, memory_order_relaxed);
  return code;
}

int mmcmap_version(mmcmap *handle, uint64_t *version_out) {
  struct moment moment;
  *version_out = 0;
  int code = enter(handle);
  if (code == MMCMAP_OK)
    code = writer_take_moment(&handle->store->writer,
                              handle->options.timeout_ms, &moment);
  if (code == MMCMAP_OK) *version_out = moment.epoch;
  return code;
}

int mmcmap_size(mmcmap *handle, uint64_t *size_bytes_out) {
  *size_bytes_out = 0;
  int code = enter(handle);
  if (code == MMCMAP_OK) *size_bytes_out = space_size(&handle->store->space);
  return code;
}

int mmcmap_sync(mmcmap *handle) {
  int code = enter(handle);
  if (code == MMCMAP_OK && !handle->store->is_readonly)
    code = commit_all(&handle->store->committer);
  return code;
}

int mmcmap_step(mmcmap *handle, uint64_t budget_ns) {
  return budget_ns == 0 ? enter(handle) : mmcmap_sync(handle);
}

/* ---- Snapshots and cursors ----------------------------------------------- */

int mmcmap_snapshot_open(mmcmap *handle, mmcmap_snapshot **snapshot_out) {
  struct moment moment;
  *snapshot_out = NULL;
  int code = enter(handle);
  if (code == MMCMAP_OK)
    code = writer_take_moment(&handle->store->writer,
                              handle->options.timeout_ms, &moment);
  if (code != MMCMAP_OK) return code;
  mmcmap_snapshot *snapshot = malloc(sizeof *snapshot);
  if (snapshot == NULL) return error_set(MMCMAP_ENOMEM, "snapshot");
  snapshot->magic = SNAPSHOT_MAGIC;
  snapshot->store = handle->store;
  snapshot->moment = moment;
  atomic_fetch_add(&handle->store->snapshot_count, 1);
  *snapshot_out = snapshot;
  return MMCMAP_OK;
}

static int enter_snapshot(const mmcmap_snapshot *snapshot) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  if (UNLIKELY(!store_is_ours(snapshot->store)))
    return error_set(MMCMAP_EFORK, "a snapshot from before fork()");
  return MMCMAP_OK;
}

void mmcmap_snapshot_close(mmcmap_snapshot *snapshot) {
  if (snapshot == NULL) return;
  CHECK(snapshot->magic == SNAPSHOT_MAGIC);
  atomic_fetch_sub(&snapshot->store->snapshot_count, 1);
  snapshot->magic = 0;
  free(snapshot);
}

static mmcmap_slice slice_of(const uint8_t *data, size_t size) {
  mmcmap_slice slice = {.data = data, .size = size};
  return slice;
}

int mmcmap_snapshot_get(mmcmap_snapshot *snapshot, mmcmap_slice key,
                        mmcmap_slice *value_out) {
  *value_out = slice_of(NULL, 0);
  int code = enter_snapshot(snapshot);
  if (code != MMCMAP_OK) return code;
  struct store *store = snapshot->store;
  struct trie_key trie_key = trie_key_of(&store->hasher, key.data, key.size);
  struct node_source source = space_source(&store->space);
  struct record_view record;
  code = trie_lookup(&source, &store->hasher, snapshot->moment.root, &trie_key,
                     &record);
  if (code == MMCMAP_OK) *value_out = slice_of(record.value, record.value_size);
  return code;
}

uint64_t mmcmap_snapshot_count(const mmcmap_snapshot *snapshot) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  return snapshot->moment.count;
}

uint64_t mmcmap_snapshot_version(const mmcmap_snapshot *snapshot) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  return snapshot->moment.epoch;
}

int mmcmap_cursor_open(mmcmap_snapshot *snapshot, mmcmap_cursor **cursor_out) {
  *cursor_out = NULL;
  int code = enter_snapshot(snapshot);
  if (code != MMCMAP_OK) return code;
  mmcmap_cursor *cursor = malloc(sizeof *cursor);
  if (cursor == NULL) return error_set(MMCMAP_ENOMEM, "cursor");
  cursor->magic = CURSOR_MAGIC;
  cursor->snapshot = snapshot;
  /* A file cannot hold more records than fit into it, whatever it says. */
  uint64_t most = space_size(&snapshot->store->space) / NODE_HEADER_BYTES;
  uint64_t count = snapshot->moment.count;
  trie_cursor_init(&cursor->cursor, snapshot->moment.root,
                   count < most ? count : most);
  *cursor_out = cursor;
  return MMCMAP_OK;
}

int mmcmap_cursor_next(mmcmap_cursor *cursor, mmcmap_slice *key_out,
                       mmcmap_slice *value_out) {
  CHECK(cursor != NULL && cursor->magic == CURSOR_MAGIC);
  *key_out = *value_out = slice_of(NULL, 0);
  int code = enter_snapshot(cursor->snapshot);
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&cursor->snapshot->store->space);
  struct record_view record;
  code = trie_cursor_next(&cursor->cursor, &source, &record);
  if (code != MMCMAP_OK) return code;
  *key_out = slice_of(record.key, record.key_size);
  *value_out = slice_of(record.value, record.value_size);
  return MMCMAP_OK;
}

void mmcmap_cursor_close(mmcmap_cursor *cursor) {
  if (cursor == NULL) return;
  CHECK(cursor->magic == CURSOR_MAGIC);
  cursor->magic = 0;
  free(cursor);
}

/* ---- Figures ------------------------------------------------------------- */

/* What the writer lock guards. */
static void stat_of_writer(struct store *store, mmcmap_stat *stat_out) {
  struct writer *writer = &store->writer;
  thread_mutex_lock(&writer->mutex);
  stat_out->count = atomic_load(&store->live.count);
  stat_out->version = atomic_load(&store->live.changed_epoch);
  stat_out->epoch = atomic_load(&store->live.open_epoch);
  stat_out->segment_count = store->space.segment_count;
  stat_out->used_bytes = writer->log.frame_offset != 0
                             ? log_end(&writer->log)
                             : store->recovered.state.used_bytes;
  stat_out->log_bytes = writer->log.written_bytes;
  stat_out->large_bytes = writer->log.large_bytes;
  stat_out->recycled_bytes = writer->log.recycler.reused_bytes;
  thread_mutex_unlock(&writer->mutex);
}

int mmcmap_stat_get(mmcmap *handle, mmcmap_stat *stat_out) {
  memset(stat_out, 0, sizeof *stat_out);
  int code = enter(handle);
  if (code != MMCMAP_OK) return code;
  struct store *store = handle->store;
  stat_of_writer(store, stat_out);
  stat_out->size_bytes = space_size(&store->space);
  stat_out->segment_bytes = store->space.segment_size;
  stat_out->durable_epoch = atomic_load(&store->live.durable_epoch);
  stat_out->superblock_epoch = atomic_load(&store->committer.superblock_epoch);
  stat_out->commit_count = atomic_load(&store->committer.commit_count);
  stat_out->sync_count = atomic_load(&store->committer.sync_count);
  stat_out->snapshot_count = atomic_load(&store->snapshot_count);
  stat_out->reader_count = atomic_load(&store->readers.row_count);
  stat_out->recovered_commits = store->recovered.commits;
  stat_out->max_size_bytes = store->space.max_size_bytes;
  stat_out->address_bytes = store->space.map.size_bytes;
  stat_out->hash = store->hasher.kind;
  stat_out->durability = handle->options.durability;
  stat_out->readonly = handle->is_readonly;
  stat_out->was_clean = store->recovered.was_clean;
  return MMCMAP_OK;
}
