/* SPDX-License-Identifier: MIT */
/*
 * The version of the library that runs, which can differ from the one whose
 * header a program was compiled with.
 */
#include "mmcmap.h"

const char *mmcmap_library_version(void) { return MMCMAP_VERSION; }
