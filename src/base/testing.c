/* SPDX-License-Identifier: MIT */
/*
 * The state of the test build's switches; nothing in any other build.
 */
#include "base/testing.h"

#ifdef MMCMAP_DEBUG_CHECKS
unsigned testing_breaks;
void (*testing_hook)(const char *point);
#else
typedef int testing_is_not_here; /* ISO C wants a declaration */
#endif
