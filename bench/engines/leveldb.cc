/* SPDX-License-Identifier: MIT */
/*
 * LevelDB, with a Bloom filter and a cache of 256 MiB.
 */
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/filter_policy.h>
#include <leveldb/write_batch.h>

#include "log_structured.h"

namespace {

struct policy {
  static constexpr const char *name = "leveldb";
  using slice = leveldb::Slice;
  using status = leveldb::Status;
  using iterator = leveldb::Iterator;
  using batch = leveldb::WriteBatch;
  struct value : std::string {
    const std::string &view() const { return *this; }
  };

  std::unique_ptr<leveldb::Cache> cache;
  std::unique_ptr<const leveldb::FilterPolicy> filter;
  std::unique_ptr<leveldb::DB> db; /* goes before what it uses */
  leveldb::ReadOptions read;
  leveldb::WriteOptions write;

  status open(const std::string &path, const struct setup *) {
    leveldb::Options options;
    cache.reset(leveldb::NewLRUCache(256 << 20));
    filter.reset(leveldb::NewBloomFilterPolicy(10));
    options.create_if_missing = true;
    options.block_cache = cache.get();
    options.filter_policy = filter.get();
    leveldb::DB *opened = nullptr;
    status status = leveldb::DB::Open(options, path, &opened);
    db.reset(opened);
    return status;
  }

  status get(const leveldb::ReadOptions &options, const slice &key,
             value *value_out) {
    return db->Get(options, key, value_out);
  }
};

} // namespace

extern "C" const struct engine engine_leveldb = log_structured<policy>::engine(
    "LevelDB, Bloom filter, 256 MiB cache; durable: sync");
