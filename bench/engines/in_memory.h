/* SPDX-License-Identifier: MIT */
/*
 * Hash tables of strings in memory, as what a store would have to be measured
 * by if it had no file. Map is looked up by View. They take no lock: several
 * threads may read, but not write.
 */
#ifndef BENCH_ENGINES_IN_MEMORY_H
#define BENCH_ENGINES_IN_MEMORY_H

#include <string>
#include <string_view>

#include "../engine.h"
#include "views.h"

template <class Map, class View = std::string_view> struct in_memory {
  static Map *map_of(void *context) { return static_cast<Map *>(context); }

  static void *store_open(const struct setup *) { return new Map; }
  static void store_close(void *store) { delete map_of(store); }
  static void *attach(void *store) { return store; }
  static void detach(void *) {}

  static bool get(void *context, struct bytes key, struct bytes *value_out) {
    auto found = map_of(context)->find(view_of<View>(key));
    if (found == map_of(context)->end()) return false;
    *value_out = bytes_of(found->second);
    return true;
  }

  static void put(void *context, struct bytes key, struct bytes value) {
    auto found = map_of(context)->find(view_of<View>(key));
    if (found != map_of(context)->end())
      found->second.assign(static_cast<const char *>(value.data), value.size);
    else
      map_of(context)->emplace(std::string(view_of<View>(key)),
                               std::string(view_of<View>(value)));
  }

  static bool erase(void *context, struct bytes key) {
    auto found = map_of(context)->find(view_of<View>(key));
    if (found == map_of(context)->end()) return false;
    map_of(context)->erase(found);
    return true;
  }

  static void scan(void *context, record_visitor *visit, void *to) {
    for (const auto &record : *map_of(context))
      visit(to, bytes_of(record.first), bytes_of(record.second));
  }

  static constexpr struct engine engine(const char *name, const char *about) {
    return {
        .name = name,
        .about = about,
        .traits = ENGINE_IN_MEMORY | ENGINE_READ_THREADS,
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
  }
};

#endif
