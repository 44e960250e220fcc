/* SPDX-License-Identifier: MIT */
/* absl::flat_hash_map of std::string, in memory. */
#include <absl/container/flat_hash_map.h>
#include <absl/strings/string_view.h>

#include "in_memory.h"

extern "C" const struct engine engine_absl = in_memory<
    absl::flat_hash_map<std::string, std::string>,
    absl::string_view>::engine("absl",
                               "absl::flat_hash_map of std::string, in memory");
