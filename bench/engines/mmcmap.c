/* SPDX-License-Identifier: MIT */
/*
 * mmcmap, as a user has it: the default options, or `durability = sync`.
 */
#include <stdlib.h>

#include "../engine.h"
#include "mmcmap.h"

struct session {
  mmcmap *store;
  mmcmap_buffer value;
};

static void must(int code, const char *what) {
  if (code != MMCMAP_OK) bench_fail("mmcmap", what, mmcmap_strerror(code));
}

static mmcmap_slice slice(struct bytes bytes) {
  mmcmap_slice result = {bytes.data, bytes.size};
  return result;
}

static struct bytes bytes_of(mmcmap_slice slice) {
  /* A value may be empty and have no address, but it is there. */
  struct bytes result = {slice.data == NULL ? "" : slice.data, slice.size};
  return result;
}

static void *store_open(const struct setup *setup) {
  char *path = bench_path(setup->folder, "store.mmc");
  mmcmap_options options;
  mmcmap *store;
  mmcmap_options_init(&options);
  if (setup->durable) options.durability = MMCMAP_SYNC;
  must(mmcmap_open(path, &options, &store), "open");
  free(path);
  return store;
}

static void store_close(void *store) { must(mmcmap_close(store), "close"); }

static void *attach(void *store) {
  struct session *session = bench_new(1, sizeof *session);
  session->store = store;
  return session;
}

static void detach(void *context) {
  struct session *session = context;
  mmcmap_buffer_free(&session->value);
  free(session);
}

static bool get(void *context, struct bytes key, struct bytes *value_out) {
  struct session *session = context;
  int code = mmcmap_get(session->store, slice(key), &session->value);
  if (code == MMCMAP_NOTFOUND) return false;
  must(code, "get");
  value_out->data = session->value.data;
  value_out->size = session->value.size;
  return true;
}

static void put(void *context, struct bytes key, struct bytes value) {
  struct session *session = context;
  must(mmcmap_put(session->store, slice(key), slice(value)), "put");
}

static bool erase(void *context, struct bytes key) {
  struct session *session = context;
  int code = mmcmap_delete(session->store, slice(key));
  if (code == MMCMAP_NOTFOUND) return false;
  must(code, "delete");
  return true;
}

static void scan(void *context, record_visitor *visit, void *to) {
  struct session *session = context;
  mmcmap_snapshot *snapshot;
  mmcmap_cursor *cursor;
  mmcmap_slice key, value;
  int code;
  must(mmcmap_snapshot_open(session->store, &snapshot), "snapshot");
  must(mmcmap_cursor_open(snapshot, &cursor), "cursor");
  while ((code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK)
    visit(to, bytes_of(key), bytes_of(value));
  if (code != MMCMAP_NOTFOUND) must(code, "cursor");
  mmcmap_cursor_close(cursor);
  mmcmap_snapshot_close(snapshot);
}

static void snapshot_get(void *context, struct bytes key, value_visitor *visit,
                         void *to) {
  struct session *session = context;
  mmcmap_snapshot *snapshot;
  mmcmap_slice value;
  must(mmcmap_snapshot_open(session->store, &snapshot), "snapshot");
  int code = mmcmap_snapshot_get(snapshot, slice(key), &value);
  if (code != MMCMAP_NOTFOUND) {
    must(code, "get of a snapshot");
    visit(to, 0, bytes_of(value));
  }
  mmcmap_snapshot_close(snapshot);
}

static void put_batch(void *context, const struct bytes *keys,
                      const struct bytes *values, size_t count) {
  struct session *session = context;
  mmcmap_txn *txn;
  must(mmcmap_txn_begin(session->store, &txn), "txn_begin");
  for (size_t i = 0; i < count; i++)
    must(mmcmap_txn_put(txn, slice(keys[i]), slice(values[i])), "txn_put");
  must(mmcmap_txn_commit(txn), "txn_commit");
}

enum { MANY_MAX = 64 };

struct visit {
  value_visitor *visit;
  void *context;
};

static int visit_slice(void *context, size_t index, mmcmap_slice value) {
  const struct visit *visit = context;
  visit->visit(visit->context, index, bytes_of(value));
  return MMCMAP_OK;
}

static void get_many(void *context, const struct bytes *keys, size_t count,
                     value_visitor *visit, void *to) {
  struct session *session = context;
  struct visit visit_to = {visit, to};
  mmcmap_slice slices[MANY_MAX];
  if (count > MANY_MAX) bench_fail("mmcmap", "get_many", "too many keys");
  for (size_t i = 0; i < count; i++)
    slices[i] = slice(keys[i]);
  must(mmcmap_get_many(session->store, slices, count, visit_slice, &visit_to),
       "get_many");
}

const struct engine engine_mmcmap = {
    .name = "mmcmap",
    .about = "default options (async); durable: sync",
    .traits = ENGINE_READ_THREADS | ENGINE_WRITE_THREADS | ENGINE_DURABLE,
    .open = store_open,
    .close = store_close,
    .attach = attach,
    .detach = detach,
    .get = get,
    .put = put,
    .erase = erase,
    .scan = scan,
    .put_batch = put_batch,
    .get_many = get_many,
    .snapshot_get = snapshot_get,
};
