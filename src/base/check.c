/* SPDX-License-Identifier: MIT */
/*
 * The end of a process whose program has broken a rule of its own. The text
 * goes to standard error in one piece, so that other threads' output does not
 * come between, and abort() leaves a core for the debugger.
 */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *condition, const char *file, int line) {
  fprintf(stderr, "mmcmap: %s:%d: check failed: %s\n", file, line, condition);
  abort();
}
