/* SPDX-License-Identifier: MIT */
/*
 * What LevelDB and RocksDB have in common, whose calls have the same names. A
 * policy says what their types are and how one is opened and read.
 */
#ifndef BENCH_ENGINES_LOG_STRUCTURED_H
#define BENCH_ENGINES_LOG_STRUCTURED_H

#include <memory>
#include <string>

#include "../engine.h"
#include "views.h"

template <class Policy> struct log_structured {
  using slice = typename Policy::slice;
  using status = typename Policy::status;

  struct session {
    Policy *store;
    typename Policy::value value;
  };

  static void must(const status &status, const char *what) {
    if (!status.ok()) bench_fail(Policy::name, what, status.ToString().c_str());
  }

  static Policy *store_of(void *context) {
    return static_cast<session *>(context)->store;
  }

  static void *store_open(const struct setup *setup) {
    auto *store = new Policy;
    store->write.sync = setup->durable;
    must(store->open(std::string(setup->folder) + "/store", setup), "open");
    return store;
  }

  static void store_close(void *context) {
    delete static_cast<Policy *>(context);
  }

  static void *attach(void *context) {
    return new session{static_cast<Policy *>(context), {}};
  }

  static void detach(void *context) { delete static_cast<session *>(context); }

  static bool get(void *context, struct bytes key, struct bytes *value_out) {
    auto *session = static_cast<struct session *>(context);
    session->value.clear();
    status status = session->store->get(session->store->read,
                                        view_of<slice>(key), &session->value);
    if (status.IsNotFound()) return false;
    must(status, "get");
    *value_out = bytes_of(session->value.view());
    return true;
  }

  static void put(void *context, struct bytes key, struct bytes value) {
    auto *store = store_of(context);
    must(store->db->Put(store->write, view_of<slice>(key),
                        view_of<slice>(value)),
         "put");
  }

  /* They delete without looking whether it was there. */
  static bool erase(void *context, struct bytes key) {
    auto *store = store_of(context);
    must(store->db->Delete(store->write, view_of<slice>(key)), "delete");
    return true;
  }

  static void walk(Policy *store, const struct bytes *first, size_t count,
                   record_visitor *visit, void *to) {
    std::unique_ptr<typename Policy::iterator> iterator(
        store->db->NewIterator(store->read));
    if (first == nullptr)
      iterator->SeekToFirst();
    else
      iterator->Seek(view_of<slice>(*first));
    for (; count > 0 && iterator->Valid(); iterator->Next(), count--)
      visit(to, bytes_of(iterator->key()), bytes_of(iterator->value()));
    must(iterator->status(), "iterate");
  }

  static void scan(void *context, record_visitor *visit, void *to) {
    walk(store_of(context), nullptr, SIZE_MAX, visit, to);
  }

  static void range(void *context, struct bytes first, size_t count,
                    record_visitor *visit, void *to) {
    walk(store_of(context), &first, count, visit, to);
  }

  static void put_batch(void *context, const struct bytes *keys,
                        const struct bytes *values, size_t count) {
    auto *store = store_of(context);
    typename Policy::batch batch;
    for (size_t i = 0; i < count; i++)
      batch.Put(view_of<slice>(keys[i]), view_of<slice>(values[i]));
    must(store->db->Write(store->write, &batch), "write");
  }

  static void snapshot_get(void *context, struct bytes key,
                           value_visitor *visit, void *to) {
    auto *session = static_cast<struct session *>(context);
    auto *store = session->store;
    auto options = store->read;
    options.snapshot = store->db->GetSnapshot();
    session->value.clear();
    status status = store->get(options, view_of<slice>(key), &session->value);
    if (!status.IsNotFound()) {
      must(status, "get");
      visit(to, 0, bytes_of(session->value.view()));
    }
    store->db->ReleaseSnapshot(options.snapshot);
  }

  static constexpr struct engine engine(const char *about) {
    return {
        .name = Policy::name,
        .about = about,
        .traits = ENGINE_READ_THREADS | ENGINE_WRITE_THREADS | ENGINE_DURABLE |
                  ENGINE_BLIND_ERASE,
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
        .snapshot_get = snapshot_get,
        .range = range,
    };
  }
};

#endif
