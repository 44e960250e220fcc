/* SPDX-License-Identifier: MIT */
/*
 * SipHash-2-4 as the paper describes it: four words of state, begun from the
 * key and four constants; every 8 bytes of the message go in with two rounds;
 * the last block carries the rest of the bytes and, in its top byte, the
 * length modulo 256; four rounds end it. All numbers are little-endian.
 */
#include "base/siphash.h"

#include "base/bytes.h"

enum {
  SIPHASH_ROUNDS_PER_BLOCK = 2,
  SIPHASH_ROUNDS_AT_END = 4,
  SIPHASH_BLOCK_BYTES = 8
};

struct siphash_state {
  uint64_t v0, v1, v2, v3;
};

static inline uint64_t siphash_rotate(uint64_t value, unsigned bits) {
  return value << bits | value >> (64 - bits);
}

/* The paper's SipRound, figure 2.1. */
static inline void siphash_round(struct siphash_state *s) {
  s->v0 += s->v1;
  s->v2 += s->v3;
  s->v1 = siphash_rotate(s->v1, 13) ^ s->v0;
  s->v3 = siphash_rotate(s->v3, 16) ^ s->v2;
  s->v0 = siphash_rotate(s->v0, 32);

  s->v2 += s->v1;
  s->v0 += s->v3;
  s->v1 = siphash_rotate(s->v1, 17) ^ s->v2;
  s->v3 = siphash_rotate(s->v3, 21) ^ s->v0;
  s->v2 = siphash_rotate(s->v2, 32);
}

static inline void siphash_compress(struct siphash_state *s, uint64_t block) {
  s->v3 ^= block;
  for (int i = 0; i < SIPHASH_ROUNDS_PER_BLOCK; i++)
    siphash_round(s);
  s->v0 ^= block;
}

/* The bytes behind the last full block, and the length. */
static inline uint64_t siphash_last_block(const uint8_t *rest, size_t size) {
  uint64_t block = (uint64_t)size << 56;
  for (size_t i = 0; i < size % SIPHASH_BLOCK_BYTES; i++)
    block |= (uint64_t)rest[i] << (8 * i);
  return block;
}

uint64_t siphash24(const void *data, size_t size, const uint8_t key[16]) {
  const uint8_t *at = data;
  uint64_t k0 = bytes_u64(key);
  uint64_t k1 = bytes_u64(key + 8);
  /* "somepseudorandomlygeneratedbytes" */
  struct siphash_state s = {
      .v0 = k0 ^ UINT64_C(0x736f6d6570736575),
      .v1 = k1 ^ UINT64_C(0x646f72616e646f6d),
      .v2 = k0 ^ UINT64_C(0x6c7967656e657261),
      .v3 = k1 ^ UINT64_C(0x7465646279746573),
  };

  for (size_t n = size / SIPHASH_BLOCK_BYTES; n > 0; n--) {
    siphash_compress(&s, bytes_u64(at));
    at += SIPHASH_BLOCK_BYTES;
  }
  siphash_compress(&s, siphash_last_block(at, size));

  s.v2 ^= 0xff;
  for (int i = 0; i < SIPHASH_ROUNDS_AT_END; i++)
    siphash_round(&s);
  return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
