/* SPDX-License-Identifier: MIT */
/*
 * TDB, with its locks between processes and without. One handle is for one
 * thread, and one process may not open a file twice: no threads.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <signal.h>
#include <tdb.h>

#include "../engine.h"

struct store {
  TDB_CONTEXT *tdb;
  bool durable;
  TDB_DATA value; /* of the last get, malloc()ed */
};

static void must(const struct store *store, int code, const char *what) {
  if (code != 0) bench_fail("tdb", what, tdb_errorstr(store->tdb));
}

static TDB_DATA data_of(struct bytes bytes) {
  TDB_DATA result = {(unsigned char *)bytes.data, bytes.size};
  return result;
}

static void *open_with(const struct setup *setup, int flags) {
  struct store *store = bench_new(1, sizeof *store);
  char *path = bench_path(setup->folder, "store.tdb");
  store->durable = setup->durable;
  if (!setup->durable) flags |= TDB_NOSYNC;
  store->tdb = tdb_open_ex(path, (int)setup->records + 1000, flags,
                           O_RDWR | O_CREAT, 0600, NULL, tdb_jenkins_hash);
  if (store->tdb == NULL) bench_fail("tdb", "open", NULL);
  free(path);
  return store;
}

static void *open_locking(const struct setup *setup) {
  return open_with(setup, TDB_DEFAULT);
}

static void *open_without_locks(const struct setup *setup) {
  return open_with(setup, TDB_NOLOCK);
}

static void store_close(void *context) {
  struct store *store = context;
  free(store->value.dptr);
  if (tdb_close(store->tdb) != 0) bench_fail("tdb", "close", NULL);
  free(store);
}

static void *attach(void *store) { return store; }
static void detach(void *session) { (void)session; }

static bool get(void *context, struct bytes key, struct bytes *value_out) {
  struct store *store = context;
  free(store->value.dptr);
  store->value = tdb_fetch(store->tdb, data_of(key));
  if (store->value.dptr == NULL) return false;
  value_out->data = store->value.dptr;
  value_out->size = store->value.dsize;
  return true;
}

static void put_batch(void *context, const struct bytes *keys,
                      const struct bytes *values, size_t count) {
  struct store *store = context;
  must(store, tdb_transaction_start(store->tdb), "begin");
  for (size_t i = 0; i < count; i++)
    must(store,
         tdb_store(store->tdb, data_of(keys[i]), data_of(values[i]),
                   TDB_REPLACE),
         "store");
  must(store, tdb_transaction_commit(store->tdb), "commit");
}

static void put(void *context, struct bytes key, struct bytes value) {
  struct store *store = context;
  if (store->durable) {
    put_batch(store, &key, &value, 1);
    return;
  }
  must(store, tdb_store(store->tdb, data_of(key), data_of(value), TDB_REPLACE),
       "store");
}

static bool erase(void *context, struct bytes key) {
  struct store *store = context;
  if (tdb_delete(store->tdb, data_of(key)) == 0) return true;
  if (tdb_error(store->tdb) != TDB_ERR_NOEXIST) must(store, -1, "delete");
  return false;
}

struct visit {
  record_visitor *visit;
  void *context;
};

static int visit_record(TDB_CONTEXT *tdb, TDB_DATA key, TDB_DATA value,
                        void *context) {
  const struct visit *visit = context;
  (void)tdb;
  visit->visit(visit->context, (struct bytes){key.dptr, key.dsize},
               (struct bytes){value.dptr, value.dsize});
  return 0;
}

static void scan(void *context, record_visitor *visit, void *to) {
  struct store *store = context;
  struct visit visit_to = {visit, to};
  if (tdb_traverse_read(store->tdb, visit_record, &visit_to) < 0)
    must(store, -1, "traverse");
}

#define COMMON \
  .close = store_close, .attach = attach, .detach = detach, .get = get, \
  .put = put, .erase = erase, .scan = scan, .put_batch = put_batch

const struct engine engine_tdb_nolock = {
    .name = "tdb-nolock",
    .about = "TDB, a bucket for each record, NOLOCK, NOSYNC",
    .traits = 0,
    .open = open_without_locks,
    COMMON,
};

const struct engine engine_tdb = {
    .name = "tdb",
    .about = "TDB, a bucket for each record, NOSYNC; durable: transactions",
    .traits = ENGINE_DURABLE,
    .open = open_locking,
    COMMON,
};
