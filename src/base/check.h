/* SPDX-License-Identifier: MIT */
/*
 * Checks for the programmer's own mistakes. CHECK() stays on in every build
 * and must be cheap; CHECK_SLOW() needs --enable-debug-checks. Bytes that come
 * from the file never reach one of these: they are answered with an error.
 */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/* Says what failed and where on standard error, and aborts. */
_Noreturn void check_failed(const char *condition, const char *file, int line);

#define CHECK(condition) \
  ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__))

#ifdef MMCMAP_DEBUG_CHECKS
#define CHECK_SLOW(condition) CHECK(condition)
#else
#define CHECK_SLOW(condition) ((void)sizeof(condition))
#endif

#define LIKELY(condition) __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#endif
