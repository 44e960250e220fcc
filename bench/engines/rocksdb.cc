/* SPDX-License-Identifier: MIT */
/*
 * RocksDB, optimised for lookups of points (Bloom filter, hash index of blocks)
 * with a cache of 256 MiB, and values read in place.
 */
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include "log_structured.h"

namespace {

struct policy {
  static constexpr const char *name = "rocksdb";
  using slice = rocksdb::Slice;
  using status = rocksdb::Status;
  using iterator = rocksdb::Iterator;
  using batch = rocksdb::WriteBatch;
  struct value {
    rocksdb::PinnableSlice pinned;
    void clear() { pinned.Reset(); }
    const rocksdb::Slice &view() const { return pinned; }
  };

  std::unique_ptr<rocksdb::DB> db;
  rocksdb::ReadOptions read;
  rocksdb::WriteOptions write;

  status open(const std::string &path, const struct setup *) {
    rocksdb::Options options;
    options.OptimizeForPointLookup(256);
    options.IncreaseParallelism(2);
    options.create_if_missing = true;
    options.compression = rocksdb::kNoCompression;
    rocksdb::DB *opened = nullptr;
    status status = rocksdb::DB::Open(options, path, &opened);
    db.reset(opened);
    return status;
  }

  status get(const rocksdb::ReadOptions &options, const slice &key,
             value *value_out) {
    return db->Get(options, db->DefaultColumnFamily(), key, &value_out->pinned);
  }
};

} // namespace

extern "C" const struct engine engine_rocksdb = log_structured<policy>::engine(
    "RocksDB, optimised for point lookups, 256 MiB cache; durable: sync");
