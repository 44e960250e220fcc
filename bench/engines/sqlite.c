/* SPDX-License-Identifier: MIT */
/*
 * SQLite: one table of keys and values in its primary index, a connection and
 * prepared statements for each session, a write-ahead log, no sync (durable:
 * synchronous = FULL), mapped.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "../engine.h"

enum statement {
  GET,
  PUT,
  ERASE,
  SCAN,
  RANGE,
  BEGIN,
  BEGIN_READ,
  COMMIT,
  COUNT
};

static const char *const texts[COUNT] = {
    "SELECT v FROM kv WHERE k = ?1",
    "INSERT INTO kv VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = ?2",
    "DELETE FROM kv WHERE k = ?1",
    "SELECT k, v FROM kv",
    "SELECT k, v FROM kv WHERE k >= ?1 ORDER BY k LIMIT ?2",
    "BEGIN IMMEDIATE",
    "BEGIN",
    "COMMIT",
};

struct store {
  char *path;
  bool durable;
};

struct session {
  sqlite3 *db;
  sqlite3_stmt *statements[COUNT];
  sqlite3_stmt *unfinished; /* whose row was handed out */
};

_Noreturn static void fail(sqlite3 *db, const char *what) {
  bench_fail("sqlite", what, sqlite3_errmsg(db));
}

static void run(sqlite3 *db, const char *text) {
  if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK) fail(db, text);
}

static void *attach(void *context) {
  struct store *store = context;
  struct session *session = bench_new(1, sizeof *session);
  if (sqlite3_open_v2(
          store->path, &session->db,
          SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
          NULL) != SQLITE_OK)
    fail(session->db, "open");
  sqlite3_busy_timeout(session->db, 60000);
  run(session->db, "PRAGMA journal_mode = WAL");
  run(session->db, store->durable ? "PRAGMA synchronous = FULL"
                                  : "PRAGMA synchronous = OFF");
  run(session->db,
      "PRAGMA mmap_size = 17179869184; PRAGMA cache_size = -65536");
  run(session->db, "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) "
                   "WITHOUT ROWID");
  for (int i = 0; i < COUNT; i++)
    if (sqlite3_prepare_v3(session->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                           &session->statements[i], NULL) != SQLITE_OK)
      fail(session->db, "prepare");
  return session;
}

static void detach(void *context) {
  struct session *session = context;
  for (int i = 0; i < COUNT; i++)
    sqlite3_finalize(session->statements[i]);
  if (sqlite3_close(session->db) != SQLITE_OK) fail(session->db, "close");
  free(session);
}

static void *store_open(const struct setup *setup) {
  struct store *store = bench_new(1, sizeof *store);
  store->path = bench_path(setup->folder, "store.sqlite");
  store->durable = setup->durable;
  detach(attach(store));
  return store;
}

static void store_close(void *context) {
  struct store *store = context;
  free(store->path);
  free(store);
}

/* Ends what the last call has left open, and binds the key of this one. */
static sqlite3_stmt *prepare(struct session *session, enum statement which,
                             struct bytes key) {
  if (session->unfinished != NULL) sqlite3_reset(session->unfinished);
  session->unfinished = NULL;
  sqlite3_stmt *statement = session->statements[which];
  if (key.data != NULL &&
      sqlite3_bind_blob(statement, 1, key.data, (int)key.size, SQLITE_STATIC) !=
          SQLITE_OK)
    fail(session->db, "bind");
  return statement;
}

static void do_once(struct session *session, enum statement which,
                    struct bytes key) {
  sqlite3_stmt *statement = prepare(session, which, key);
  if (sqlite3_step(statement) != SQLITE_DONE) fail(session->db, texts[which]);
  sqlite3_reset(statement);
}

static bool get(void *context, struct bytes key, struct bytes *value_out) {
  struct session *session = context;
  sqlite3_stmt *statement = prepare(session, GET, key);
  int code = sqlite3_step(statement);
  session->unfinished = statement;
  if (code == SQLITE_DONE) return false;
  if (code != SQLITE_ROW) fail(session->db, "get");
  value_out->data = sqlite3_column_blob(statement, 0);
  value_out->size = (size_t)sqlite3_column_bytes(statement, 0);
  return true;
}

static void put(void *context, struct bytes key, struct bytes value) {
  struct session *session = context;
  sqlite3_bind_blob(session->statements[PUT], 2, value.data, (int)value.size,
                    SQLITE_STATIC);
  do_once(session, PUT, key);
}

static const struct bytes none = {NULL, 0};

static void put_batch(void *context, const struct bytes *keys,
                      const struct bytes *values, size_t count) {
  do_once(context, BEGIN, none);
  for (size_t i = 0; i < count; i++)
    put(context, keys[i], values[i]);
  do_once(context, COMMIT, none);
}

static bool erase(void *context, struct bytes key) {
  struct session *session = context;
  do_once(session, ERASE, key);
  return sqlite3_changes(session->db) == 1;
}

static void visit_rows(struct session *session, sqlite3_stmt *statement,
                       record_visitor *visit, void *to) {
  int code;
  while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
    struct bytes key = {sqlite3_column_blob(statement, 0),
                        (size_t)sqlite3_column_bytes(statement, 0)};
    struct bytes value = {sqlite3_column_blob(statement, 1),
                          (size_t)sqlite3_column_bytes(statement, 1)};
    visit(to, key, value);
  }
  if (code != SQLITE_DONE) fail(session->db, "scan");
  sqlite3_reset(statement);
}

static void scan(void *context, record_visitor *visit, void *to) {
  struct session *session = context;
  visit_rows(session, prepare(session, SCAN, none), visit, to);
}

static void range(void *context, struct bytes first, size_t count,
                  record_visitor *visit, void *to) {
  struct session *session = context;
  sqlite3_stmt *statement = prepare(session, RANGE, first);
  sqlite3_bind_int64(statement, 2, (sqlite3_int64)count);
  visit_rows(session, statement, visit, to);
}

static void get_many(void *context, const struct bytes *keys, size_t count,
                     value_visitor *visit, void *to) {
  struct session *session = context;
  do_once(session, BEGIN_READ, none);
  for (size_t i = 0; i < count; i++) {
    struct bytes value;
    if (get(session, keys[i], &value)) visit(to, i, value);
  }
  do_once(session, COMMIT, none);
}

static void snapshot_get(void *context, struct bytes key, value_visitor *visit,
                         void *to) {
  get_many(context, &key, 1, visit, to);
}

const struct engine engine_sqlite = {
    .name = "sqlite",
    .about = "SQLite, WAL, synchronous OFF, mapped; durable: synchronous FULL",
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
    .range = range,
};
