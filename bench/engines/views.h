/* SPDX-License-Identifier: MIT */
/*
 * Between the driver's bytes and what stores in C++ take: std::string_view, or
 * a Slice of their own that has data() and size().
 */
#ifndef BENCH_ENGINES_VIEWS_H
#define BENCH_ENGINES_VIEWS_H

#include <string_view>

#include "../engine.h"

template <class View = std::string_view>
inline View view_of(const struct bytes &bytes) {
  return View(static_cast<const char *>(bytes.data), bytes.size);
}

/* Bytes that are there, even if they are none. */
template <class View> inline struct bytes bytes_of(const View &view) {
  const void *data = view.data();
  return {data == nullptr ? "" : data, view.size()};
}

#endif
