/* SPDX-License-Identifier: MIT */
/*
 * Keys and values. A value says who has put it, under which key and by which
 * operation, how long it is, and ends with a checksum: half a value, another
 * key's or none that was ever put is told.
 */
#include "kill_soak.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

/* A value begins with it; its checksum comes last. */
struct value_head {
  uint32_t writer;
  uint32_t key;
  uint64_t number;
  uint64_t pair;
  uint64_t size;
};

enum { CHECKSUM_SIZE = 8 };

mmcmap_slice soak_key(const struct soak *soak, unsigned writer, unsigned key,
                      char bytes_out[KEY_SIZE_MAX]) {
  int length;
  /* Keys of different lengths, with zeros in them. */
  memset(bytes_out, 0, KEY_SIZE_MAX);
  if (key >= OWN_KEYS)
    length = snprintf(bytes_out, KEY_SIZE_MAX, "shared/%u", key - OWN_KEYS);
  else
    length =
        snprintf(bytes_out, KEY_SIZE_MAX, "slot %u/%u/%u",
                 writer / soak->thread_count, writer % soak->thread_count, key);
  return (mmcmap_slice){.data = bytes_out, .size = (size_t)length + key % 7};
}

mmcmap_slice soak_value(const struct found *what, size_t size, void *buffer) {
  struct value_head head = {what->writer, what->key, what->number, what->pair,
                            size};
  uint8_t *bytes = buffer;
  if (size < sizeof head + CHECKSUM_SIZE) size = sizeof head + CHECKSUM_SIZE;
  if (size > VALUE_SIZE_MAX) size = VALUE_SIZE_MAX;
  head.size = size;
  memcpy(bytes, &head, sizeof head);
  uint64_t state = mix(what->number * WRITERS_MAX + what->writer);
  size_t end = size - CHECKSUM_SIZE;
  for (size_t at = sizeof head; at < end; at += 8) {
    size_t part = end - at < 8 ? end - at : 8;
    memcpy(bytes + at, &state, part);
    state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
  }
  uint64_t sum = hash_plain_checksum(bytes, end);
  memcpy(bytes + end, &sum, sizeof sum);
  return (mmcmap_slice){.data = bytes, .size = size};
}

const char *soak_identify(const struct soak *soak, mmcmap_slice key,
                          mmcmap_slice value, struct found *found_out) {
  struct value_head head;
  uint64_t sum;
  char bytes[KEY_SIZE_MAX];
  memset(found_out, 0, sizeof *found_out);
  if (value.size < sizeof head + CHECKSUM_SIZE) return "is too short";
  memcpy(&head, value.data, sizeof head);
  if (head.size != value.size) return "has a wrong length";
  size_t end = value.size - CHECKSUM_SIZE;
  memcpy(&sum, (const uint8_t *)value.data + end, sizeof sum);
  if (sum != hash_plain_checksum(value.data, end)) return "is not whole";
  if (head.writer >= soak_writer_count(soak) || head.key >= KEYS ||
      head.number == 0)
    return "is of nobody";
  mmcmap_slice wanted = soak_key(soak, head.writer, head.key, bytes);
  if (key.size != wanted.size || memcmp(key.data, wanted.data, key.size) != 0)
    return "is under another key";
  *found_out = (struct found){head.writer, head.key, head.number, head.pair};
  return NULL;
}
