/* SPDX-License-Identifier: MIT */
/*
 * tkrzw's HashDBM, with a bucket for each record and the mapped file.
 */
#include <memory>
#include <string>

#include <tkrzw_dbm_hash.h>
#include <tkrzw_file_mmap.h>

#include "../engine.h"
#include "views.h"

namespace {

struct store {
  tkrzw::HashDBM dbm{std::make_unique<tkrzw::MemoryMapParallelFile>()};
  bool durable = false;
};

struct session {
  struct store *store;
  std::string value;
};

void must(const tkrzw::Status &status, const char *what) {
  if (!status.IsOK()) bench_fail("tkrzw", what, status.GetMessage().c_str());
}

void *store_open(const struct setup *setup) {
  auto *store = new struct store;
  tkrzw::HashDBM::TuningParameters tuning;
  store->durable = setup->durable;
  tuning.num_buckets = static_cast<int64_t>(setup->records) + 1000;
  must(store->dbm.OpenAdvanced(std::string(setup->folder) + "/store.tkh", true,
                               tkrzw::File::OPEN_DEFAULT, tuning),
       "open");
  return store;
}

void store_close(void *context) {
  auto *store = static_cast<struct store *>(context);
  must(store->dbm.Close(), "close");
  delete store;
}

void *attach(void *context) {
  return new session{static_cast<struct store *>(context), {}};
}

void detach(void *context) { delete static_cast<session *>(context); }

bool get(void *context, struct bytes key, struct bytes *value_out) {
  auto *session = static_cast<struct session *>(context);
  tkrzw::Status status = session->store->dbm.Get(view_of(key), &session->value);
  if (status == tkrzw::Status::NOT_FOUND_ERROR) return false;
  must(status, "get");
  *value_out = bytes_of(session->value);
  return true;
}

void put(void *context, struct bytes key, struct bytes value) {
  auto *store = static_cast<struct session *>(context)->store;
  must(store->dbm.Set(view_of(key), view_of(value)), "set");
  if (store->durable) must(store->dbm.Synchronize(true), "synchronize");
}

bool erase(void *context, struct bytes key) {
  auto *store = static_cast<struct session *>(context)->store;
  tkrzw::Status status = store->dbm.Remove(view_of(key));
  if (status == tkrzw::Status::NOT_FOUND_ERROR) return false;
  must(status, "remove");
  return true;
}

struct visitor final : tkrzw::DBM::RecordProcessor {
  record_visitor *visit;
  void *context;
  visitor(record_visitor *visit, void *context)
      : visit(visit), context(context) {}
  std::string_view ProcessFull(std::string_view key,
                               std::string_view value) override {
    visit(context, bytes_of(key), bytes_of(value));
    return NOOP;
  }
};

void scan(void *context, record_visitor *visit, void *to) {
  auto *store = static_cast<struct session *>(context)->store;
  visitor visit_to(visit, to);
  must(store->dbm.ProcessEach(&visit_to, false), "process each");
}

} // namespace

extern "C" const struct engine engine_tkrzw = {
    .name = "tkrzw",
    .about = "tkrzw HashDBM, a bucket for each record; durable: Synchronize",
    .traits = ENGINE_READ_THREADS | ENGINE_WRITE_THREADS | ENGINE_DURABLE,
    .open = store_open,
    .close = store_close,
    .attach = attach,
    .detach = detach,
    .get = get,
    .put = put,
    .erase = erase,
    .scan = scan,
    .put_batch = nullptr,
    .get_many = nullptr,
    .snapshot_get = nullptr,
    .range = nullptr,
};
