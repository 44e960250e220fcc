/* SPDX-License-Identifier: MIT */
/*
 * MurmurHash3_x86_32: every 4 bytes are scrambled and folded into one 32-bit
 * state, the 1 to 3 left over likewise without the fold, then the length and
 * a final avalanche. Blocks are little-endian, so that the hash of a key is
 * the same on every machine.
 */
#include "base/murmur3.h"

#include "base/bytes.h"
#include "mmcmap.h"

enum { MURMUR3_BLOCK_BYTES = 4 };

static inline uint32_t murmur3_rotate(uint32_t value, unsigned bits) {
  return value << bits | value >> (32 - bits);
}

static inline uint32_t murmur3_scramble(uint32_t block) {
  return murmur3_rotate(block * 0xcc9e2d51u, 15) * 0x1b873593u;
}

/* Lets every bit of the state change every other. */
static inline uint32_t murmur3_avalanche(uint32_t h) {
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

uint32_t murmur3_32(const void *data, size_t size, uint32_t seed) {
  const uint8_t *at = data;
  uint32_t h = seed;

  for (size_t n = size / MURMUR3_BLOCK_BYTES; n > 0; n--) {
    h ^= murmur3_scramble(bytes_u32(at));
    h = murmur3_rotate(h, 13) * 5 + 0xe6546b64u;
    at += MURMUR3_BLOCK_BYTES;
  }

  uint32_t rest = 0;
  for (size_t i = 0; i < size % MURMUR3_BLOCK_BYTES; i++)
    rest |= (uint32_t)at[i] << (8 * i);
  h ^= murmur3_scramble(rest); /* of 0 it is 0 */

  return murmur3_avalanche(h ^ (uint32_t)size);
}

uint32_t mmcmap_murmur3(mmcmap_slice data, uint32_t seed) {
  return murmur3_32(data.data, data.size, seed);
}
