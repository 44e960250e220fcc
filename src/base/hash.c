/* SPDX-License-Identifier: MIT */
/*
 * Which bytes of a file's secret key which hash: the table at the head of
 * hash.h, and the hashes that are too long to be inlined.
 */
#include "base/hash.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/errors.h"

_Static_assert(HASH_PRIMARY_SECRET_BYTES + HASH_SECONDARY_KEY_BYTES +
                       HASH_CHECKSUM_SECRET_BYTES ==
                   HASH_SECRET_BYTES,
               "the secret is the sum of its parts");
_Static_assert(HASH_PRIMARY_SECRET_BYTES >= XXH3_SECRET_SIZE_MIN &&
                   HASH_CHECKSUM_SECRET_BYTES >= XXH3_SECRET_SIZE_MIN,
               "XXH3 needs secrets of a certain length");

int hasher_init(struct hasher *hasher, int kind,
                const uint8_t secret[HASH_SECRET_BYTES]) {
  memset(hasher, 0, sizeof *hasher);
  if (kind != MMCMAP_HASH_XXH3 && kind != MMCMAP_HASH_SIPHASH &&
      kind != MMCMAP_HASH_MURMUR3)
    return error_set(MMCMAP_EINVAL, "hash kind");
  hasher->kind = kind;
  hasher->primary_mask = UINT64_MAX;
  hasher->secondary_mask = UINT64_MAX;
  memcpy(hasher->secret, secret, HASH_SECRET_BYTES);
  return MMCMAP_OK;
}

uint64_t hasher_primary_other(const struct hasher *hasher, const void *key,
                              size_t size) {
  if (hasher->kind == MMCMAP_HASH_SIPHASH)
    return siphash24(key, size, hasher->secret);
  CHECK(hasher->kind == MMCMAP_HASH_MURMUR3);
  uint32_t high = murmur3_32(key, size, bytes_u32(hasher->secret));
  uint32_t low = murmur3_32(key, size, bytes_u32(hasher->secret + 4));
  return (uint64_t)high << 32 | low;
}

uint64_t hasher_secondary(const struct hasher *hasher, const void *key,
                          size_t size) {
  return siphash24(key, size, hasher->secret + HASH_PRIMARY_SECRET_BYTES) &
         hasher->secondary_mask;
}
