/* SPDX-License-Identifier: MIT */
/*
 * Error codes: their names and texts, and the thread's note of what failed
 * last. Whoever first meets a failure notes it with error_set(); those above
 * only hand the code on. Nothing here allocates or calls the system.
 */
#ifndef BASE_ERRORS_H
#define BASE_ERRORS_H

#include <stdbool.h>

#include "mmcmap.h"

/* Notes the failure for mmcmap_last_error() and returns `code`. `what` is a
   constant string that names the step, such as "fdatasync". */
int error_set(int code, const char *what);

/* The same for a failed system call; `system_errno` chooses the code. */
int error_set_errno(int system_errno, const char *what);

/* MMCMAP_ECORRUPT: `what` names the format rule that the bytes at `offset` of
   the file break, such as "F24 branch level". */
int error_set_corrupt(const char *what, uint64_t offset);

/* Whether there was no space: there may be some again when room has been made. */
static inline bool error_is_full(int code) {
  return code == MMCMAP_ENOSPC || code == MMCMAP_EFULL ||
         code == MMCMAP_EADDRESS;
}

/* Notes once more what mmcmap_last_error() said before something was undone. */
void error_restore(const mmcmap_error *error);

#endif
