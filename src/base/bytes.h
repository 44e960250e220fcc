/* SPDX-License-Identifier: MIT */
/*
 * Little-endian numbers in byte strings, alignment, and arithmetic that
 * notices overflow. The atomic forms need an address aligned to 8 bytes; they
 * are how every slot, node header and bitmap of the mapped file is read while
 * somebody may be writing it.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <endian.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(long long) == 8,
               "64-bit atomics must be lock-free");

static inline uint16_t bytes_u16(const void *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return le16toh(value);
}

static inline uint32_t bytes_u32(const void *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return le32toh(value);
}

static inline uint64_t bytes_u64(const void *at) {
  uint64_t value;
  memcpy(&value, at, sizeof value);
  return le64toh(value);
}

static inline void bytes_set_u16(void *at, uint16_t value) {
  value = htole16(value);
  memcpy(at, &value, sizeof value);
}

static inline void bytes_set_u32(void *at, uint32_t value) {
  value = htole32(value);
  memcpy(at, &value, sizeof value);
}

static inline void bytes_set_u64(void *at, uint64_t value) {
  value = htole64(value);
  memcpy(at, &value, sizeof value);
}

static inline uint64_t bytes_load_acquire(const void *at) {
  const _Atomic uint64_t *cell = at;
  return le64toh(atomic_load_explicit(cell, memory_order_acquire));
}

static inline uint64_t bytes_load_relaxed(const void *at) {
  const _Atomic uint64_t *cell = at;
  return le64toh(atomic_load_explicit(cell, memory_order_relaxed));
}

static inline void bytes_store_release(void *at, uint64_t value) {
  _Atomic uint64_t *cell = at;
  atomic_store_explicit(cell, htole64(value), memory_order_release);
}

static inline void bytes_store_relaxed(void *at, uint64_t value) {
  _Atomic uint64_t *cell = at;
  atomic_store_explicit(cell, htole64(value), memory_order_relaxed);
}

/* `value` rounded up to a multiple of `alignment`, a power of two. The caller
   knows that it does not overflow. */
static inline uint64_t bytes_align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

/* True, and the result, if it fits; else false. */
static inline bool bytes_add(uint64_t a, uint64_t b, uint64_t *sum_out) {
  return !__builtin_add_overflow(a, b, sum_out);
}

static inline bool bytes_mul(uint64_t a, uint64_t b, uint64_t *product_out) {
  return !__builtin_mul_overflow(a, b, product_out);
}

/* Asks for the line at an address, which need not be mapped. The empty statement
   is there because GCC takes a function that does nothing but this for one
   without effects, and leaves out the calls of it. */
static inline void bytes_prefetch(const void *at) {
  __builtin_prefetch(at);
  __asm__ volatile("");
}

/* True if [offset, offset + size) lies in [0, limit). */
static inline bool bytes_within(uint64_t offset, uint64_t size,
                                uint64_t limit) {
  return size <= limit && offset <= limit - size;
}

#endif
