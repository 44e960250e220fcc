/* SPDX-License-Identifier: MIT */
/*
 * The keyed hashes of a store. The primary hash places a key in the trie; the
 * secondary one goes on where its 64 bits are used up. Both are keyed by the
 * file's secret. Checksums use other bytes of that secret, so that what the
 * file shows of them says nothing about the placement of keys.
 *
 *   kind     primary                                  secondary
 *   xxh3     XXH3_64bits_withSecret(secret[0,192))    SipHash-2-4
 *   siphash  SipHash-2-4(secret[0,16))                SipHash-2-4
 *   murmur3  two MurmurHash3_x86_32, seeds from       SipHash-2-4
 *            secret[0,4) (high half), [4,8) (low)
 * The secondary key is secret[192,208), the checksums' XXH3 secret is
 * secret[208,400).
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/murmur3.h"
#include "base/siphash.h"
#include "mmcmap.h"

enum {
  HASH_PRIMARY_SECRET_BYTES = 192,
  HASH_SECONDARY_KEY_BYTES = 16,
  HASH_CHECKSUM_SECRET_BYTES = 192,
  HASH_SECRET_BYTES = 400 /* the sum of the three, in this order */
};

/* Never changes after hasher_init(); shared by all threads. The masks are all
   ones; specs narrow them to make keys collide. */
struct hasher {
  int kind; /* enum mmcmap_hash_kind */
  uint64_t primary_mask;
  uint64_t secondary_mask;
  uint8_t secret[HASH_SECRET_BYTES];
};

/* MMCMAP_EINVAL if `kind` is none of enum mmcmap_hash_kind. */
int hasher_init(struct hasher *hasher, int kind,
                const uint8_t secret[HASH_SECRET_BYTES]);

/* The primary hash of the kinds other than xxh3. */
uint64_t hasher_primary_other(const struct hasher *hasher, const void *key,
                              size_t size);

static inline uint64_t hasher_primary(const struct hasher *hasher,
                                      const void *key, size_t size) {
  if (hasher->kind == MMCMAP_HASH_XXH3)
    return XXH3_64bits_withSecret(key, size, hasher->secret,
                                  HASH_PRIMARY_SECRET_BYTES) &
           hasher->primary_mask;
  return hasher_primary_other(hasher, key, size) & hasher->primary_mask;
}

uint64_t hasher_secondary(const struct hasher *hasher, const void *key,
                          size_t size);

/* The checksum of nodes, frames and large values. */
static inline uint64_t hasher_checksum(const struct hasher *hasher,
                                       const void *data, size_t size) {
  return XXH3_64bits_withSecret(
      data, size,
      hasher->secret + HASH_PRIMARY_SECRET_BYTES + HASH_SECONDARY_KEY_BYTES,
      HASH_CHECKSUM_SECRET_BYTES);
}

/* The checksum of what must be read before the secret is known. */
static inline uint64_t hash_plain_checksum(const void *data, size_t size) {
  return XXH3_64bits(data, size);
}

#endif
