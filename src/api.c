/* SPDX-License-Identifier: MIT */
/*
 * The public functions: they check handles and arguments, pin, and call the
 * layers. A handle adds to its store what belongs to one opening: the path as
 * given, the durability, the time-out.
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "share/owner_lock.h"
#include "store.h"

#define HANDLE_MAGIC UINT32_C(0x6d6d6331)
#define SNAPSHOT_MAGIC UINT32_C(0x6d6d6332)
#define CURSOR_MAGIC UINT32_C(0x6d6d6333)

struct mmcmap {
  uint32_t magic;
  bool is_readonly;
  struct store *_Atomic store; /* replaced in a child, at the first use */
  mmcmap_options options;
  char *path;
};

/* Belongs to one thread at a time. */
struct mmcmap_snapshot {
  uint32_t magic;
  struct store *store;
  struct share_row *row;
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

/* Every entry begins with this: a handle that is none is the caller's bug. A
   child's first call opens the store anew. */
static inline int enter(mmcmap *handle, struct store **store_out) {
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  *store_out = atomic_load_explicit(&handle->store, memory_order_acquire);
  if (LIKELY(store_is_ours(*store_out))) return MMCMAP_OK;
  int code = store_reconnect(&handle->store, &handle->options);
  *store_out = atomic_load_explicit(&handle->store, memory_order_acquire);
  return code;
}

static inline int enter_to_write(mmcmap *handle, struct store **store_out) {
  int code = enter(handle, store_out);
  if (code == MMCMAP_OK && handle->is_readonly)
    code = error_set(MMCMAP_EREADONLY, "opened read-only");
  return code;
}

static int end_handle(mmcmap *handle, bool discard) {
  int code = store_release(atomic_load(&handle->store), discard);
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
static inline int find_live(struct store *store, mmcmap_slice key,
                            mmcmap_buffer *value_out) {
  struct trie_key trie_key = trie_key_of(&store->hasher, key.data, key.size);
  struct share_row *row;
  int code = readers_row(&store->readers, &row);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  readers_pin(&store->readers, row);
  uint64_t root = atomic_load_explicit(&store->share.header->live.root,
                                       memory_order_acquire);
  struct node_source source = space_source(&store->space);
  struct record_view record;
  code = trie_lookup(&source, &store->hasher, root, &trie_key, &record);
  if (code == MMCMAP_OK && value_out != NULL)
    code = buffer_set(value_out, record.value, record.value_size);
  readers_unpin(row);
  return code;
}

int mmcmap_get(mmcmap *handle, mmcmap_slice key, mmcmap_buffer *value_out) {
  struct store *store;
  value_out->size = 0;
  int code = enter(handle, &store);
  return code == MMCMAP_OK ? find_live(store, key, value_out) : code;
}

int mmcmap_has(mmcmap *handle, mmcmap_slice key) {
  struct store *store;
  int code = enter(handle, &store);
  return code == MMCMAP_OK ? find_live(store, key, NULL) : code;
}

/* A change has been published: makes it durable as the handle promises. */
static inline int finish_change(const mmcmap *handle, struct store *store,
                                uint64_t epoch) {
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
  struct store *store;
  uint64_t epoch;
  int code = enter_to_write(handle, &store);
  if (code == MMCMAP_OK)
    code = writer_put(&store->writer, key.data, key.size, value.data,
                      value.size, handle->options.timeout_ms, &epoch);
  return code == MMCMAP_OK ? finish_change(handle, store, epoch) : code;
}

int mmcmap_delete(mmcmap *handle, mmcmap_slice key) {
  struct store *store;
  uint64_t epoch;
  int code = enter_to_write(handle, &store);
  if (code == MMCMAP_OK)
    code = writer_delete(&store->writer, key.data, key.size,
                         handle->options.timeout_ms, &epoch);
  return code == MMCMAP_OK ? finish_change(handle, store, epoch) : code;
}

int mmcmap_count(mmcmap *handle, uint64_t *count_out) {
  struct store *store;
  *count_out = 0;
  int code = enter(handle, &store);
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
  if (code == MMCMAP_OK) *version_out = moment.epoch;
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
  return budget_ns == 0 ? enter(handle, &store) : mmcmap_sync(handle);
}

/* ---- Snapshots and cursors ----------------------------------------------- */

int mmcmap_snapshot_open(mmcmap *handle, mmcmap_snapshot **snapshot_out) {
  struct store *store;
  *snapshot_out = NULL;
  int code = enter(handle, &store);
  if (code != MMCMAP_OK) return code;
  mmcmap_snapshot *snapshot = malloc(sizeof *snapshot);
  if (snapshot == NULL) return error_set(MMCMAP_ENOMEM, "snapshot");
  const mmcmap_options *options = &handle->options;
  code = readers_claim_snapshot(
      &store->readers, options->max_snapshot_age_ms * UINT64_C(1000000),
      &snapshot->row);
  if (code == MMCMAP_OK) {
    code = writer_open_snapshot(&store->writer, snapshot->row,
                                options->timeout_ms, &snapshot->moment);
    if (code != MMCMAP_OK)
      readers_give_back_snapshot(&store->readers, snapshot->row);
  }
  if (code != MMCMAP_OK) {
    free(snapshot);
    return code;
  }
  snapshot->magic = SNAPSHOT_MAGIC;
  snapshot->store = store;
  store_hold_snapshot(store);
  *snapshot_out = snapshot;
  return MMCMAP_OK;
}

/* Pins, so that what the snapshot sees stays there until leave_snapshot(), and
   makes sure that it has not been ended for its age. */
static int enter_snapshot(const mmcmap_snapshot *snapshot,
                          struct share_row **row_out) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  struct readers *readers = &snapshot->store->readers;
  if (UNLIKELY(!store_is_ours(snapshot->store)))
    return error_set(MMCMAP_EFORK, "a snapshot from before fork()");
  int code = readers_row(readers, row_out);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  if (UNLIKELY(atomic_load(&snapshot->row->limit_ns) != 0))
    readers_end_if_old(snapshot->row, process_monotonic_ns());
  readers_pin(readers, *row_out);
  if (LIKELY(readers_has_snapshot(snapshot->row, snapshot->moment.epoch)))
    return MMCMAP_OK;
  readers_unpin(*row_out);
  return error_set(MMCMAP_EEXPIRED, "max_snapshot_age");
}

void mmcmap_snapshot_close(mmcmap_snapshot *snapshot) {
  if (snapshot == NULL) return;
  CHECK(snapshot->magic == SNAPSHOT_MAGIC);
  if (store_is_ours(snapshot->store))
    readers_give_back_snapshot(&snapshot->store->readers, snapshot->row);
  store_drop_snapshot(snapshot->store);
  snapshot->magic = 0;
  free(snapshot);
}

static mmcmap_slice slice_of(const uint8_t *data, size_t size) {
  mmcmap_slice slice = {.data = data, .size = size};
  return slice;
}

int mmcmap_snapshot_get(mmcmap_snapshot *snapshot, mmcmap_slice key,
                        mmcmap_slice *value_out) {
  struct share_row *row;
  *value_out = slice_of(NULL, 0);
  int code = enter_snapshot(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  struct store *store = snapshot->store;
  struct trie_key trie_key = trie_key_of(&store->hasher, key.data, key.size);
  struct node_source source = space_source(&store->space);
  struct record_view record;
  code = trie_lookup(&source, &store->hasher, snapshot->moment.root, &trie_key,
                     &record);
  if (code == MMCMAP_OK) *value_out = slice_of(record.value, record.value_size);
  readers_unpin(row);
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
  struct share_row *row;
  *cursor_out = NULL;
  int code = enter_snapshot(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  readers_unpin(row);
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
  struct share_row *row;
  *key_out = *value_out = slice_of(NULL, 0);
  int code = enter_snapshot(cursor->snapshot, &row);
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&cursor->snapshot->store->space);
  struct record_view record;
  code = trie_cursor_next(&cursor->cursor, &source, &record);
  readers_unpin(row);
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
static int stat_of_writer(struct store *store, mmcmap_stat *stat_out) {
  struct writer *writer = &store->writer;
  const struct share_header *header = store->share.header;
  int code = writer_enter(writer, OWNER_LOCK_FOREVER);
  if (code != MMCMAP_OK) return code;
  stat_out->count = atomic_load(&header->change.count);
  stat_out->version = atomic_load(&header->change.changed_epoch);
  stat_out->epoch = writer->log.epoch;
  stat_out->segment_count = store->space.segment_count;
  stat_out->used_bytes = log_is_started(&writer->log)
                             ? log_end(&writer->log)
                             : store->recovered.state.used_bytes;
  stat_out->log_bytes = writer->log.appended_bytes;
  stat_out->large_bytes = writer->log.large_bytes;
  stat_out->recycled_bytes = writer->log.recycler.reused_bytes;
  writer_leave(writer);
  return MMCMAP_OK;
}

static void count_reader(void *context, const struct readers_entry *entry) {
  mmcmap_stat *stat = context;
  if (entry->is_snapshot) {
    stat->snapshot_count++;
  } else {
    if (entry->is_first) stat->process_count++;
    stat->reader_count += entry->thread_rows;
  }
}

int mmcmap_stat_get(mmcmap *handle, mmcmap_stat *stat_out) {
  struct store *store;
  memset(stat_out, 0, sizeof *stat_out);
  int code = enter(handle, &store);
  if (code == MMCMAP_OK) code = stat_of_writer(store, stat_out);
  if (code != MMCMAP_OK) return code;
  const struct share_commit *commit = &store->share.header->commit;
  readers_report(&store->readers, count_reader, stat_out);
  stat_out->size_bytes = space_look(&store->space);
  stat_out->segment_bytes = store->space.segment_size;
  stat_out->durable_epoch = atomic_load(&commit->durable_epoch);
  stat_out->superblock_epoch = atomic_load(&commit->superblock_epoch);
  stat_out->commit_count = atomic_load(&commit->commit_count);
  stat_out->sync_count = atomic_load(&commit->sync_count);
  stat_out->recovered_commits = store->recovered.commits;
  stat_out->max_size_bytes = store->space.max_size_bytes;
  stat_out->address_bytes = store->space.map.size_bytes;
  stat_out->hash = store->hasher.kind;
  stat_out->durability = handle->options.durability;
  stat_out->readonly = handle->is_readonly;
  stat_out->was_clean = store->recovered.was_clean;
  return MMCMAP_OK;
}

/* What readers_report() calls back with, and whom to hand it on to. */
struct report {
  void (*visit)(void *context, const mmcmap_reader *reader);
  void *context;
  uint64_t now_ns;
};

static void report_reader(void *context, const struct readers_entry *entry) {
  const struct report *report = context;
  mmcmap_reader reader = {.is_snapshot = entry->is_snapshot,
                          .is_ours = entry->is_ours,
                          .process = entry->process,
                          .thread = entry->thread,
                          .thread_count = entry->thread_rows,
                          .pinned_count = entry->pinned_rows,
                          .age_ns = report->now_ns - entry->since_ns,
                          .version = entry->epoch,
                          .held_bytes = entry->log_bytes};
  report->visit(report->context, &reader);
}

int mmcmap_readers(mmcmap *handle,
                   void (*visit)(void *context, const mmcmap_reader *reader),
                   void *context) {
  struct store *store;
  int code = enter(handle, &store);
  if (code != MMCMAP_OK) return code;
  struct report report = {
      .visit = visit, .context = context, .now_ns = process_monotonic_ns()};
  readers_report(&store->readers, report_reader, &report);
  return MMCMAP_OK;
}
