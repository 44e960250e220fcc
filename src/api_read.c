/* SPDX-License-Identifier: MIT */
/*
 * Snapshots and cursors.
 */
#include <stdlib.h>
#include <string.h>

#include "snapshot.h"

/* Over a snapshot, or over a transaction at a moment. */
struct mmcmap_cursor {
  uint32_t magic;
  mmcmap_snapshot *snapshot;
  mmcmap_txn *txn; /* or NULL */
  struct trie_cursor cursor;
  mmcmap_buffer position; /* the key behind which it is, if it has_position */
  const uint8_t *last;    /* the same in the snapshot, of the last record */
  size_t last_size;
  bool has_position;
};

/* Finds the map in the moment; one that is not there is empty. */
static int choose_map(mmcmap_snapshot *snapshot, const struct trie_key *map) {
  const struct moment *moment = &snapshot->moment;
  struct node_source source = space_source(&snapshot->store->space);
  struct catalog_words words;
  int code = catalog_look(&source, &snapshot->store->hasher, moment->root, map,
                          &words);
  snapshot->root = words.root;
  snapshot->count = map == NULL ? moment->count : words.count;
  snapshot->earliest_ms = words.lets_expire ? moment->earliest_ms : UINT64_MAX;
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

/* Without a store root nothing in it expires, and every time will do. */
static void freeze_clock(mmcmap_snapshot *snapshot) {
  snapshot->now = reading_of(snapshot->store);
  if (slot_is_store(snapshot->moment.root))
    (void)expiry_now(&snapshot->now);
  else
    snapshot->now.now_ms = 1;
}

int snapshot_begin(mmcmap *handle, uint64_t limit_ns,
                   mmcmap_snapshot **snapshot_out) {
  struct store *store;
  *snapshot_out = NULL;
  int code = enter(handle, &store);
  if (code != MMCMAP_OK) return code;
  mmcmap_snapshot *snapshot = calloc(1, sizeof *snapshot);
  if (snapshot == NULL) return error_set(MMCMAP_ENOMEM, "snapshot");
  code = readers_claim_snapshot(&store->readers, limit_ns, &snapshot->row);
  if (code != MMCMAP_OK) {
    free(snapshot);
    return code;
  }
  snapshot->store = store;
  snapshot->may_end = limit_ns != 0;
  *snapshot_out = snapshot;
  return MMCMAP_OK;
}

int snapshot_finish(mmcmap *handle, int code, mmcmap_snapshot **snapshot) {
  mmcmap_snapshot *begun = *snapshot;
  if (code == MMCMAP_OK) code = choose_map(begun, map_of(handle));
  if (code != MMCMAP_OK) {
    readers_give_back_snapshot(&begun->store->readers, begun->row);
    free(begun);
    *snapshot = NULL;
    return code;
  }
  begun->mark = share_mark(begun->row, begun->moment.epoch);
  begun->magic = SNAPSHOT_MAGIC;
  store_hold_child(begun->store);
  return MMCMAP_OK;
}

static int open_snapshot(mmcmap *handle, uint64_t limit_ns,
                         mmcmap_snapshot **snapshot_out) {
  int code = snapshot_begin(handle, limit_ns, snapshot_out);
  if (code != MMCMAP_OK) return code;
  mmcmap_snapshot *snapshot = *snapshot_out;
  code = writer_open_snapshot(&snapshot->store->writer, snapshot->row,
                              handle->options.timeout_ms, &snapshot->moment);
  freeze_clock(snapshot);
  return snapshot_finish(handle, code, snapshot_out);
}

int mmcmap_snapshot_open(mmcmap *handle, mmcmap_snapshot **snapshot_out) {
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  return open_snapshot(handle,
                       handle->options.max_snapshot_age_ms * UINT64_C(1000000),
                       snapshot_out);
}

int snapshot_open_for_long(mmcmap *handle, mmcmap_snapshot **snapshot_out) {
  return open_snapshot(handle, 0, snapshot_out);
}

void mmcmap_snapshot_close(mmcmap_snapshot *snapshot) {
  if (snapshot == NULL) return;
  CHECK(snapshot->magic == SNAPSHOT_MAGIC);
  if (!snapshot->is_view && store_is_ours(snapshot->store))
    readers_give_back_snapshot(&snapshot->store->readers, snapshot->row);
  store_drop_child(snapshot->store);
  snapshot->magic = 0;
  free(snapshot);
}

int mmcmap_snapshot_map(mmcmap_snapshot *snapshot, mmcmap_slice name,
                        mmcmap_snapshot **map_out) {
  struct share_row *row;
  *map_out = NULL;
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  mmcmap_snapshot *view = malloc(sizeof *view);
  if (view == NULL) code = error_set(MMCMAP_ENOMEM, "snapshot");
  if (code == MMCMAP_OK) {
    struct trie_key key =
        trie_key_of(&snapshot->store->hasher, name.data, name.size);
    *view = *snapshot;
    view->is_view = true;
    code = choose_map(view, &key);
  }
  snapshot_leave(row);
  if (code != MMCMAP_OK) {
    free(view);
    return code;
  }
  store_hold_child(view->store);
  *map_out = view;
  return MMCMAP_OK;
}

/* Finds `key` in the snapshot; the caller has entered it. */
static int find_sealed(const mmcmap_snapshot *snapshot, mmcmap_slice key,
                       struct record_view *record_out) {
  struct store *store = snapshot->store;
  struct trie_key trie_key = trie_key_of(&store->hasher, key.data, key.size);
  struct node_source source = space_source(&store->space);
  int code = trie_lookup(&source, &store->hasher, snapshot->root, &trie_key,
                         record_out);
  if (code == MMCMAP_OK && record_is_past(record_out, snapshot->now.now_ms))
    code = MMCMAP_NOTFOUND;
  return code;
}

int mmcmap_snapshot_ttl(mmcmap_snapshot *snapshot, mmcmap_slice key,
                        uint64_t *ttl_ms_out) {
  struct share_row *row;
  struct record_view record;
  *ttl_ms_out = 0;
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  code = find_sealed(snapshot, key, &record);
  if (code == MMCMAP_OK && record.expires_ms != 0)
    *ttl_ms_out = record.expires_ms - snapshot->now.now_ms;
  snapshot_leave(row);
  return code;
}

int mmcmap_snapshot_get(mmcmap_snapshot *snapshot, mmcmap_slice key,
                        mmcmap_slice *value_out) {
  struct share_row *row;
  struct record_view record;
  *value_out = slice_of(NULL, 0);
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  code = find_sealed(snapshot, key, &record);
  if (code == MMCMAP_OK) *value_out = slice_of(record.value, record.value_size);
  snapshot_leave(row);
  return code;
}

int mmcmap_snapshot_read(mmcmap_snapshot *snapshot, mmcmap_slice key,
                         mmcmap_buffer *value_out) {
  struct share_row *row;
  struct record_view record;
  value_out->size = 0;
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  code = find_sealed(snapshot, key, &record);
  if (code == MMCMAP_OK)
    code = handle_buffer_set(value_out, record.value, record.value_size);
  snapshot_leave(row);
  return code;
}

uint64_t mmcmap_snapshot_count(const mmcmap_snapshot *snapshot) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  return snapshot->count;
}

uint64_t mmcmap_snapshot_version(const mmcmap_snapshot *snapshot) {
  CHECK(snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC);
  return snapshot->moment.content_epoch;
}

/* A cursor over what stands under a root, which does not change any more. */
static int open_cursor(const struct store *store, uint64_t root, uint64_t count,
                       mmcmap_cursor **cursor_out) {
  mmcmap_cursor *cursor = calloc(1, sizeof *cursor);
  if (cursor == NULL) return error_set(MMCMAP_ENOMEM, "cursor");
  cursor->magic = CURSOR_MAGIC;
  /* A file cannot hold more records than fit into it, whatever it says. */
  uint64_t most = space_size(&store->space) / NODE_HEADER_BYTES;
  trie_cursor_init(&cursor->cursor, root, count < most ? count : most);
  *cursor_out = cursor;
  return MMCMAP_OK;
}

int mmcmap_cursor_open(mmcmap_snapshot *snapshot, mmcmap_cursor **cursor_out) {
  struct share_row *row;
  *cursor_out = NULL;
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  snapshot_leave(row);
  code =
      open_cursor(snapshot->store, snapshot->root, snapshot->count, cursor_out);
  if (code == MMCMAP_OK) (*cursor_out)->snapshot = snapshot;
  return code;
}

/* A cursor over the names of maps. */
static int open_names(const struct store *store, uint64_t top,
                      mmcmap_cursor **cursor_out) {
  struct node_source source = space_source(&store->space);
  uint64_t root;
  int code = catalog_root(&source, top, &root);
  return code == MMCMAP_OK ? open_cursor(store, root, UINT64_MAX, cursor_out)
                           : code;
}

int mmcmap_snapshot_maps(mmcmap_snapshot *snapshot,
                         mmcmap_cursor **cursor_out) {
  struct share_row *row;
  *cursor_out = NULL;
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  code = open_names(snapshot->store, snapshot->moment.root, cursor_out);
  snapshot_leave(row);
  if (code == MMCMAP_OK) (*cursor_out)->snapshot = snapshot;
  return code;
}

int mmcmap_maps(mmcmap *handle, int (*visit)(void *context, mmcmap_slice name),
                void *context) {
  mmcmap_snapshot *snapshot;
  mmcmap_cursor *cursor;
  mmcmap_slice name, nothing;
  int next = MMCMAP_OK, code = snapshot_open_for_long(handle, &snapshot);
  if (code != MMCMAP_OK) return code;
  code = mmcmap_snapshot_maps(snapshot, &cursor);
  while (code == MMCMAP_OK && next == MMCMAP_OK) {
    next = mmcmap_cursor_next(cursor, &name, &nothing);
    if (next == MMCMAP_OK) code = visit(context, name);
  }
  mmcmap_cursor_close(cursor);
  mmcmap_snapshot_close(snapshot);
  return code == MMCMAP_OK && next != MMCMAP_NOTFOUND ? next : code;
}

int mmcmap_txn_maps(mmcmap_txn *txn, mmcmap_cursor **cursor_out) {
  *cursor_out = NULL;
  int code = enter_txn(txn);
  if (code == MMCMAP_OK) code = transaction_freeze(transaction_of(txn));
  if (code == MMCMAP_OK)
    code = open_names(txn->store, atomic_load(&transaction_of(txn)->root),
                      cursor_out);
  if (code == MMCMAP_OK) (*cursor_out)->txn = txn->base;
  return code;
}

int mmcmap_txn_cursor_open(mmcmap_txn *txn, mmcmap_cursor **cursor_out) {
  *cursor_out = NULL;
  int code = enter_txn(txn);
  uint64_t root, count;
  if (code == MMCMAP_OK) code = transaction_freeze(transaction_of(txn));
  if (code == MMCMAP_OK)
    code =
        transaction_look(transaction_of(txn), map_of_txn(txn), &root, &count);
  if (code == MMCMAP_OK)
    code = open_cursor(txn->store, root, count, cursor_out);
  if (code == MMCMAP_OK) (*cursor_out)->txn = txn->base;
  return code;
}

/* The next record that has not expired. */
static inline int next_present(struct trie_cursor *cursor,
                               const struct node_source *source,
                               uint64_t now_ms,
                               struct record_view *record_out) {
  int code = trie_cursor_next(cursor, source, record_out);
  while (code == MMCMAP_OK && record_is_past(record_out, now_ms))
    code = trie_cursor_next(cursor, source, record_out);
  return code;
}

static inline int next_of_snapshot(mmcmap_cursor *cursor,
                                   struct record_view *record_out,
                                   struct share_row **row_out) {
  int code = snapshot_enter(cursor->snapshot, row_out);
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&cursor->snapshot->store->space);
  code = next_present(&cursor->cursor, &source, cursor->snapshot->now.now_ms,
                      record_out);
  if (code == MMCMAP_OK) {
    cursor->last = record_out->key;
    cursor->last_size = record_out->key_size;
    cursor->has_position = true;
  } else {
    snapshot_leave(*row_out);
  }
  return code;
}

static inline int next_of_txn(mmcmap_cursor *cursor,
                              struct record_view *record_out) {
  int code = enter_txn(cursor->txn);
  if (code == MMCMAP_OK) code = transaction_check(transaction_of(cursor->txn));
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&cursor->txn->store->space);
  return next_present(&cursor->cursor, &source,
                      transaction_of(cursor->txn)->now.now_ms, record_out);
}

/* Takes the next record; if it returns MMCMAP_OK the caller then calls
   snapshot_leave() with `row`, which is NULL for a transaction. */
static inline int next_record(mmcmap_cursor *cursor,
                              struct record_view *record_out,
                              struct share_row **row_out) {
  CHECK(cursor != NULL && cursor->magic == CURSOR_MAGIC);
  *row_out = NULL;
  if (cursor->txn != NULL) return next_of_txn(cursor, record_out);
  return next_of_snapshot(cursor, record_out, row_out);
}

/* The same where nothing is out of the ordinary: most of a scan. */
static inline bool take_plain(mmcmap_cursor *cursor, mmcmap_slice *key_out,
                              mmcmap_slice *value_out) {
  CHECK(cursor != NULL && cursor->magic == CURSOR_MAGIC);
  const mmcmap_snapshot *snapshot = cursor->snapshot;
  if (UNLIKELY(snapshot == NULL || snapshot->magic != SNAPSHOT_MAGIC ||
               snapshot->may_end || !store_is_ours(snapshot->store) ||
               !readers_has_snapshot(snapshot->row, snapshot->mark)))
    return false;
  struct node_source source = space_source(&snapshot->store->space);
  if (UNLIKELY(!trie_cursor_take(&cursor->cursor, &source, key_out, value_out)))
    return false;
  cursor->last = key_out->data;
  cursor->last_size = key_out->size;
  cursor->has_position = true;
  return true;
}

int mmcmap_cursor_next(mmcmap_cursor *cursor, mmcmap_slice *key_out,
                       mmcmap_slice *value_out) {
  if (LIKELY(take_plain(cursor, key_out, value_out))) return MMCMAP_OK;
  struct share_row *row;
  struct record_view record;
  *key_out = slice_of(NULL, 0);
  *value_out = slice_of(NULL, 0);
  int code = next_record(cursor, &record, &row);
  if (code != MMCMAP_OK) return code;
  *key_out = slice_of(record.key, record.key_size);
  if (!record.is_map) *value_out = slice_of(record.value, record.value_size);
  snapshot_leave(row);
  return MMCMAP_OK;
}

int mmcmap_cursor_read(mmcmap_cursor *cursor, mmcmap_buffer *key_out,
                       mmcmap_buffer *value_out) {
  struct share_row *row;
  struct record_view record;
  key_out->size = 0;
  if (value_out != NULL) value_out->size = 0;
  int code = next_record(cursor, &record, &row);
  if (code != MMCMAP_OK) return code;
  code = handle_buffer_set(key_out, record.key, record.key_size);
  if (code == MMCMAP_OK && value_out != NULL)
    code = handle_buffer_set(value_out, record.value, record.value_size);
  snapshot_leave(row);
  if (code != MMCMAP_OK) key_out->size = 0;
  return code;
}

/* A token is the beginning of the file's id and the key behind which it is. */
enum { TOKEN_ID_BYTES = 8 };

int mmcmap_cursor_token(mmcmap_cursor *cursor, mmcmap_buffer *token_out) {
  CHECK(cursor != NULL && cursor->magic == CURSOR_MAGIC);
  struct share_row *row;
  token_out->size = 0;
  if (cursor->snapshot == NULL)
    return error_set(MMCMAP_EINVAL, "a cursor over a transaction");
  int code = snapshot_enter(cursor->snapshot, &row);
  if (code != MMCMAP_OK) return code;
  if (cursor->has_position)
    code = handle_buffer_reserve(token_out, TOKEN_ID_BYTES + cursor->last_size);
  if (code == MMCMAP_OK && cursor->has_position) {
    uint8_t *at = token_out->data;
    memcpy(at, cursor->snapshot->store->space.file_id, TOKEN_ID_BYTES);
    if (cursor->last_size > 0)
      memcpy(at + TOKEN_ID_BYTES, cursor->last, cursor->last_size);
    token_out->size = TOKEN_ID_BYTES + cursor->last_size;
  }
  snapshot_leave(row);
  return code;
}

/* Puts a new cursor behind the key in the token. */
static int seek(mmcmap_cursor *cursor, mmcmap_slice token) {
  const struct store *store = cursor->snapshot->store;
  if (token.size < TOKEN_ID_BYTES ||
      token.size > TOKEN_ID_BYTES + MMCMAP_KEY_SIZE_MAX ||
      memcmp(token.data, store->space.file_id, TOKEN_ID_BYTES) != 0)
    return error_set(MMCMAP_EINVAL, "no token of this file");
  int code = handle_buffer_set(&cursor->position,
                               (const uint8_t *)token.data + TOKEN_ID_BYTES,
                               token.size - TOKEN_ID_BYTES);
  if (code != MMCMAP_OK) return code;
  cursor->last = cursor->position.data;
  cursor->last_size = cursor->position.size;
  cursor->has_position = true;
  struct share_row *row;
  struct trie_key key =
      trie_key_of(&store->hasher, cursor->last, cursor->last_size);
  struct node_source source = space_source(&store->space);
  code = snapshot_enter(cursor->snapshot, &row);
  if (code != MMCMAP_OK) return code;
  code = trie_cursor_seek(&cursor->cursor, &source, &store->hasher, &key);
  snapshot_leave(row);
  return code;
}

int mmcmap_cursor_resume(mmcmap_snapshot *snapshot, mmcmap_slice token,
                         mmcmap_cursor **cursor_out) {
  int code = mmcmap_cursor_open(snapshot, cursor_out);
  if (code != MMCMAP_OK || token.size == 0) return code;
  code = seek(*cursor_out, token);
  if (code == MMCMAP_OK) return code;
  mmcmap_cursor_close(*cursor_out);
  *cursor_out = NULL;
  return code;
}

void mmcmap_cursor_close(mmcmap_cursor *cursor) {
  if (cursor == NULL) return;
  CHECK(cursor->magic == CURSOR_MAGIC);
  mmcmap_buffer_free(&cursor->position);
  cursor->magic = 0;
  free(cursor);
}
