/* SPDX-License-Identifier: MIT */
/* std::unordered_map of std::string, in memory. */
#include <functional>
#include <unordered_map>

#include "in_memory.h"

namespace {

struct hash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>()(text);
  }
};

} // namespace

extern "C" const struct engine engine_unordered = in_memory<
    std::unordered_map<std::string, std::string, hash, std::equal_to<>>>::
    engine("unordered", "std::unordered_map of std::string, in memory");
