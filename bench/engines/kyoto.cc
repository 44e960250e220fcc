/* SPDX-License-Identifier: MIT */
/*
 * Kyoto Cabinet's HashDB, with two buckets for each record and a map as large as
 * the file will be.
 */
#include <algorithm>
#include <string>
#include <vector>

#include <kchashdb.h>

#include "../engine.h"
#include "views.h"

namespace {

struct store {
  kyotocabinet::HashDB db;
  size_t value_bytes;
  bool durable;
};

struct session {
  struct store *store;
  std::vector<char> value;
};

void must(struct store *store, bool done, const char *what) {
  if (!done) bench_fail("kyoto", what, store->db.error().message());
}

bool is_absent(struct store *store) {
  return store->db.error().code() == kyotocabinet::BasicDB::Error::NOREC;
}

void *store_open(const struct setup *setup) {
  auto *store = new struct store;
  const auto records = static_cast<int64_t>(setup->records) + 1000;
  const auto bytes =
      static_cast<int64_t>(setup->key_bytes + setup->value_bytes + 32);
  store->durable = setup->durable;
  store->value_bytes = setup->value_bytes;
  store->db.tune_buckets(records * 2);
  store->db.tune_map(std::max<int64_t>(records * (bytes + 16), 1 << 26));
  must(store,
       store->db.open(
           std::string(setup->folder) + "/store.kch",
           kyotocabinet::HashDB::OWRITER | kyotocabinet::HashDB::OCREATE),
       "open");
  return store;
}

void store_close(void *context) {
  auto *store = static_cast<struct store *>(context);
  must(store, store->db.close(), "close");
  delete store;
}

void *attach(void *context) {
  auto *store = static_cast<struct store *>(context);
  return new session{store, std::vector<char>(store->value_bytes + 1)};
}

void detach(void *context) { delete static_cast<session *>(context); }

bool get(void *context, struct bytes key, struct bytes *value_out) {
  auto *session = static_cast<struct session *>(context);
  int32_t size =
      session->store->db.get(static_cast<const char *>(key.data), key.size,
                             session->value.data(), session->value.size());
  if (size < 0) {
    must(session->store, is_absent(session->store), "get");
    return false;
  }
  value_out->data = session->value.data();
  value_out->size = static_cast<size_t>(size);
  return true;
}

void put(void *context, struct bytes key, struct bytes value) {
  auto *store = static_cast<struct session *>(context)->store;
  must(store,
       store->db.set(static_cast<const char *>(key.data), key.size,
                     static_cast<const char *>(value.data), value.size),
       "set");
  if (store->durable) must(store, store->db.synchronize(true), "synchronize");
}

bool erase(void *context, struct bytes key) {
  auto *store = static_cast<struct session *>(context)->store;
  if (store->db.remove(static_cast<const char *>(key.data), key.size))
    return true;
  must(store, is_absent(store), "remove");
  return false;
}

struct visitor final : kyotocabinet::DB::Visitor {
  record_visitor *visit;
  void *context;
  visitor(record_visitor *visit, void *context)
      : visit(visit), context(context) {}
  const char *visit_full(const char *key, size_t key_size, const char *value,
                         size_t value_size, size_t *) override {
    visit(context, {key, key_size}, {value, value_size});
    return NOP;
  }
};

void scan(void *context, record_visitor *visit, void *to) {
  auto *store = static_cast<struct session *>(context)->store;
  visitor visit_to(visit, to);
  must(store, store->db.iterate(&visit_to, false), "iterate");
}

void put_batch(void *context, const struct bytes *keys,
               const struct bytes *values, size_t count) {
  auto *store = static_cast<struct session *>(context)->store;
  must(store, store->db.begin_transaction(store->durable), "begin");
  for (size_t i = 0; i < count; i++)
    must(store,
         store->db.set(static_cast<const char *>(keys[i].data), keys[i].size,
                       static_cast<const char *>(values[i].data),
                       values[i].size),
         "set");
  must(store, store->db.end_transaction(true), "commit");
}

} // namespace

extern "C" const struct engine engine_kyoto = {
    .name = "kyoto",
    .about = "Kyoto Cabinet HashDB, tuned to the size; durable: synchronize",
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
    .get_many = nullptr,
    .snapshot_get = nullptr,
    .range = nullptr,
};
