/* SPDX-License-Identifier: MIT */
/*
 * GDBM, mapped and with a cache that grows. One handle is for one thread. It
 * writes in place: a durable put is not atomic.
 */
#include <gdbm.h>
#include <stdlib.h>

#include "../engine.h"

struct store {
  GDBM_FILE file;
  bool durable;
  datum value; /* of the last get, malloc()ed */
};

static void must(int code, const char *what) {
  if (code != 0) bench_fail("gdbm", what, gdbm_strerror(gdbm_errno));
}

static datum datum_of(struct bytes bytes) {
  datum result = {(char *)bytes.data, (int)bytes.size};
  return result;
}

static void *store_open(const struct setup *setup) {
  struct store *store = bench_new(1, sizeof *store);
  char *path = bench_path(setup->folder, "store.gdbm");
  store->durable = setup->durable;
  store->file = gdbm_open(path, 4096, GDBM_WRCREAT, 0600, NULL);
  if (store->file == NULL)
    bench_fail("gdbm", "open", gdbm_strerror(gdbm_errno));
  free(path);
  return store;
}

static void store_close(void *context) {
  struct store *store = context;
  free(store->value.dptr);
  must(gdbm_close(store->file), "close");
  free(store);
}

static void *attach(void *store) { return store; }
static void detach(void *session) { (void)session; }

static bool get(void *context, struct bytes key, struct bytes *value_out) {
  struct store *store = context;
  free(store->value.dptr);
  store->value = gdbm_fetch(store->file, datum_of(key));
  if (store->value.dptr == NULL) {
    must(gdbm_errno == GDBM_ITEM_NOT_FOUND ? 0 : -1, "fetch");
    return false;
  }
  value_out->data = store->value.dptr;
  value_out->size = (size_t)store->value.dsize;
  return true;
}

static void put(void *context, struct bytes key, struct bytes value) {
  struct store *store = context;
  must(
      gdbm_store(store->file, datum_of(key), datum_of(value), GDBM_REPLACE) < 0,
      "store");
  if (store->durable) must(gdbm_sync(store->file), "sync");
}

static bool erase(void *context, struct bytes key) {
  struct store *store = context;
  if (gdbm_delete(store->file, datum_of(key)) == 0) return true;
  must(gdbm_errno == GDBM_ITEM_NOT_FOUND ? 0 : -1, "delete");
  return false;
}

static void scan(void *context, record_visitor *visit, void *to) {
  struct store *store = context;
  datum key = gdbm_firstkey(store->file);
  while (key.dptr != NULL) {
    datum value = gdbm_fetch(store->file, key);
    if (value.dptr == NULL) must(-1, "fetch");
    visit(to, (struct bytes){key.dptr, (size_t)key.dsize},
          (struct bytes){value.dptr, (size_t)value.dsize});
    datum next = gdbm_nextkey(store->file, key);
    free(value.dptr);
    free(key.dptr);
    key = next;
  }
}

const struct engine engine_gdbm = {
    .name = "gdbm",
    .about = "GDBM, mapped; durable: a sync after each put, not atomic",
    .traits = ENGINE_DURABLE,
    .open = store_open,
    .close = store_close,
    .attach = attach,
    .detach = detach,
    .get = get,
    .put = put,
    .erase = erase,
    .scan = scan,
};
