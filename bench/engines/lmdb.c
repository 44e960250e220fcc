/* SPDX-License-Identifier: MIT */
/*
 * LMDB, with a map of its own for writing (WRITEMAP) and without. A get renews
 * the session's read transaction, so that it sees what was put before.
 */
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

#include "../engine.h"

struct store {
  MDB_env *env;
  MDB_dbi dbi;
};

struct session {
  struct store *store;
  MDB_txn *reader; /* NULL before the first get */
  bool reading;    /* it is renewed, not reset */
};

static void must(int code, const char *what) {
  if (code != 0) bench_fail("lmdb", what, mdb_strerror(code));
}

static MDB_val val(struct bytes bytes) {
  MDB_val result = {bytes.size, (void *)bytes.data};
  return result;
}

static struct bytes bytes_of(MDB_val val) {
  struct bytes result = {val.mv_data, val.mv_size};
  return result;
}

static void *open_with(const struct setup *setup, unsigned flags) {
  struct store *store = bench_new(1, sizeof *store);
  char *path = bench_path(setup->folder, "store.lmdb");
  MDB_txn *txn;
  /* Several times what it needs; it is an address range and no more. */
  size_t map_size =
      ((size_t)1 << 30) + 8 * (setup->records + 100000) *
                              (setup->key_bytes + setup->value_bytes + 64);
  if (setup->durable) flags &= ~(unsigned)(MDB_NOSYNC | MDB_MAPASYNC);
  must(mdb_env_create(&store->env), "create");
  must(mdb_env_set_mapsize(store->env, map_size), "map size");
  must(mdb_env_open(store->env, path, flags | MDB_NOSUBDIR | MDB_NOTLS, 0600),
       "open");
  must(mdb_txn_begin(store->env, NULL, 0, &txn), "begin");
  must(mdb_dbi_open(txn, NULL, 0, &store->dbi), "open the database");
  must(mdb_txn_commit(txn), "commit");
  free(path);
  return store;
}

static void *open_writemap(const struct setup *setup) {
  return open_with(setup, MDB_WRITEMAP | MDB_NOSYNC | MDB_MAPASYNC);
}

static void *open_plain(const struct setup *setup) {
  return open_with(setup, MDB_NOSYNC);
}

static void store_close(void *context) {
  struct store *store = context;
  mdb_env_close(store->env);
  free(store);
}

static void *attach(void *store) {
  struct session *session = bench_new(1, sizeof *session);
  session->store = store;
  return session;
}

static void detach(void *context) {
  struct session *session = context;
  if (session->reader != NULL) mdb_txn_abort(session->reader);
  free(session);
}

static void stop_reading(struct session *session) {
  if (session->reading) mdb_txn_reset(session->reader);
  session->reading = false;
}

static MDB_txn *begin_reading(struct session *session) {
  stop_reading(session);
  if (session->reader == NULL)
    must(mdb_txn_begin(session->store->env, NULL, MDB_RDONLY, &session->reader),
         "begin reading");
  else
    must(mdb_txn_renew(session->reader), "renew");
  session->reading = true;
  return session->reader;
}

static bool read_one(struct session *session, MDB_txn *txn, struct bytes key,
                     struct bytes *value_out) {
  MDB_val wanted = val(key), found;
  int code = mdb_get(txn, session->store->dbi, &wanted, &found);
  if (code == MDB_NOTFOUND) return false;
  must(code, "get");
  *value_out = bytes_of(found);
  return true;
}

/* The transaction goes on until this session's next call, so that others who
   write meanwhile leave the value alone. */
static bool get(void *context, struct bytes key, struct bytes *value_out) {
  struct session *session = context;
  return read_one(session, begin_reading(session), key, value_out);
}

static MDB_txn *begin_writing(struct session *session) {
  MDB_txn *txn;
  stop_reading(session);
  must(mdb_txn_begin(session->store->env, NULL, 0, &txn), "begin");
  return txn;
}

static void put_batch(void *context, const struct bytes *keys,
                      const struct bytes *values, size_t count) {
  struct session *session = context;
  MDB_txn *txn = begin_writing(session);
  for (size_t i = 0; i < count; i++) {
    MDB_val key = val(keys[i]), value = val(values[i]);
    must(mdb_put(txn, session->store->dbi, &key, &value, 0), "put");
  }
  must(mdb_txn_commit(txn), "commit");
}

static void put(void *context, struct bytes key, struct bytes value) {
  put_batch(context, &key, &value, 1);
}

static bool erase(void *context, struct bytes key) {
  struct session *session = context;
  MDB_txn *txn = begin_writing(session);
  MDB_val wanted = val(key);
  int code = mdb_del(txn, session->store->dbi, &wanted, NULL);
  if (code != MDB_NOTFOUND) must(code, "delete");
  must(mdb_txn_commit(txn), "commit");
  return code == 0;
}

static void walk(struct session *session, MDB_val *first, size_t count,
                 record_visitor *visit, void *to) {
  MDB_txn *txn;
  MDB_cursor *cursor;
  MDB_val key = {0, NULL}, value;
  if (first != NULL) key = *first;
  must(mdb_txn_begin(session->store->env, NULL, MDB_RDONLY, &txn), "begin");
  must(mdb_cursor_open(txn, session->store->dbi, &cursor), "cursor");
  int code = mdb_cursor_get(cursor, &key, &value,
                            first == NULL ? MDB_FIRST : MDB_SET_RANGE);
  while (code == 0 && count-- > 0) {
    visit(to, bytes_of(key), bytes_of(value));
    code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  if (code != MDB_NOTFOUND) must(code, "cursor");
  mdb_cursor_close(cursor);
  mdb_txn_abort(txn);
}

static void scan(void *context, record_visitor *visit, void *to) {
  walk(context, NULL, SIZE_MAX, visit, to);
}

static void range(void *context, struct bytes first, size_t count,
                  record_visitor *visit, void *to) {
  MDB_val key = val(first);
  walk(context, &key, count, visit, to);
}

static void get_many(void *context, const struct bytes *keys, size_t count,
                     value_visitor *visit, void *to) {
  struct session *session = context;
  MDB_txn *txn = begin_reading(session);
  for (size_t i = 0; i < count; i++) {
    struct bytes value;
    if (read_one(session, txn, keys[i], &value)) visit(to, i, value);
  }
}

static void snapshot_get(void *context, struct bytes key, value_visitor *visit,
                         void *to) {
  struct session *session = context;
  struct bytes value;
  MDB_txn *txn;
  must(mdb_txn_begin(session->store->env, NULL, MDB_RDONLY, &txn), "begin");
  if (read_one(session, txn, key, &value)) visit(to, 0, value);
  mdb_txn_abort(txn);
}

#define COMMON \
  .traits = ENGINE_READ_THREADS | ENGINE_WRITE_THREADS | ENGINE_DURABLE, \
  .close = store_close, .attach = attach, .detach = detach, .get = get, \
  .put = put, .erase = erase, .scan = scan, .put_batch = put_batch, \
  .get_many = get_many, .snapshot_get = snapshot_get, .range = range

const struct engine engine_lmdb_writemap = {
    .name = "lmdb-writemap",
    .about = "LMDB, WRITEMAP, MAPASYNC, NOSYNC; durable: WRITEMAP alone",
    .open = open_writemap,
    COMMON,
};

const struct engine engine_lmdb = {
    .name = "lmdb",
    .about = "LMDB, NOSYNC; durable: no flag",
    .open = open_plain,
    COMMON,
};
