/* SPDX-License-Identifier: MIT */
/*
 * SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
 * 2012): a keyed hash that strangers who choose the keys cannot collide.
 */
#ifndef BASE_SIPHASH_H
#define BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* The 64-bit hash of `size` bytes at `data` under the 16-byte key `key`. */
uint64_t siphash24(const void *data, size_t size, const uint8_t key[16]);

#endif
