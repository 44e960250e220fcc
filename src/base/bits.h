/* SPDX-License-Identifier: MIT */
/*
 * Counting bits, which a lookup does once per branch. The oldest x86-64 has no
 * instruction for it, and compilers then call a function: this asks the
 * processor, which is a load and a branch that is always the same.
 */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <stdint.h>

static inline unsigned bits_count(uint64_t word) {
#if defined(__x86_64__) && !defined(__POPCNT__)
  if (__builtin_expect(__builtin_cpu_supports("popcnt"), 1)) {
    uint64_t count;
    __asm__("popcnt %1, %0" : "=r"(count) : "r"(word) : "cc");
    return (unsigned)count;
  }
#endif
  return (unsigned)__builtin_popcountll(word);
}

#endif
