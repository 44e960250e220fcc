/* SPDX-License-Identifier: MIT */
/*
 * The state of the test build's switches; nothing in any other build.
 */
#include "base/testing.h"

#ifdef MMCMAP_DEBUG_CHECKS
#include <stdlib.h>

uint64_t testing_breaks;
uint64_t testing_superblock_interval;
void (*testing_hook)(const char *point);

__attribute__((constructor)) static void take_breaks(void) {
  const char *number = getenv("MMCMAP_BREAKS");
  if (number != NULL) testing_breaks = strtoull(number, NULL, 0);
}
#else
typedef int testing_is_not_here; /* ISO C wants a declaration */
#endif
