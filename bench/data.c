/* SPDX-License-Identifier: MIT */
/*
 * See data.h. A value of up to SMALL_BYTES is made word by word from the key and
 * the version, with the version in its first word; a larger one is a piece of a
 * pool of random bytes, so that handing it over costs no engine a copy by us.
 */
#include "data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_BYTES = 256, POOL_STARTS = 1 << 20 };

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* A bijection, so that different numbers give different keys of 8 bytes. */
static uint64_t mix(uint64_t word) {
  word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
  return word ^ (word >> 31);
}

uint64_t random_next(uint64_t *state) { return mix(*state += GOLDEN); }

double random_fraction(uint64_t *state) {
  return (double)(random_next(state) >> 11) * 0x1p-53;
}

static uint64_t word_at(const void *bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

static uint64_t seed_of(struct bytes key) {
  const unsigned char *bytes = key.data;
  uint64_t last = word_at(bytes + key.size - sizeof last);
  return mix(word_at(bytes) ^ (last << 9 | last >> 55));
}

/* ---- Keys ----------------------------------------------------------------- */

static void make_key(unsigned char *key, size_t size, uint64_t index) {
  if (size == sizeof index) {
    uint64_t word = mix(index + GOLDEN);
    memcpy(key, &word, sizeof word);
    return;
  }
  uint64_t state = mix(index + 1), word = 0;
  for (size_t i = 0; i < size; i++) {
    if (i % 8 == 0) word = random_next(&state);
    key[i] = (unsigned char)('a' + (word & 255) * 26 / 256);
    word >>= 8;
  }
}

static void shuffle(struct data *data) {
  uint32_t *order = bench_new(data->records, sizeof *order);
  uint64_t state = 1;
  for (size_t i = 0; i < data->records; i++)
    order[i] = (uint32_t)i;
  for (size_t i = data->records; i > 1; i--) {
    size_t j = random_next(&state) % i;
    uint32_t last = order[i - 1];
    order[i - 1] = order[j];
    order[j] = last;
  }
  for (size_t i = 0; i < data->records; i++)
    memcpy(data->shuffled + i * data->key_bytes,
           data->keys + order[i] * data->key_bytes, data->key_bytes);
  free(order);
}

void data_make(struct data *data, size_t records, size_t key_bytes,
               size_t value_bytes, bool value_is_key) {
  size_t extra = records / 4 + 1000;
  *data = (struct data){.records = records,
                        .extra = extra,
                        .key_bytes = key_bytes,
                        .value_bytes = value_is_key ? key_bytes : value_bytes,
                        .value_is_key = value_is_key};
  data->keys = bench_new(records + extra, key_bytes);
  data->shuffled = bench_new(records, key_bytes);
  for (size_t i = 0; i < records + extra; i++)
    make_key(data->keys + i * key_bytes, key_bytes, i);
  shuffle(data);
  if (data->value_bytes > SMALL_BYTES) {
    uint64_t state = 2;
    size_t words = (POOL_STARTS + data->value_bytes) / 8 + 1;
    data->pool = bench_new(words, 8);
    for (size_t i = 0; i < words; i++) {
      uint64_t word = random_next(&state);
      memcpy(data->pool + i * 8, &word, sizeof word);
    }
  }
}

void data_free(struct data *data) {
  free(data->keys);
  free(data->shuffled);
  free(data->pool);
  free(data->zipf);
  free(data->zipf_age);
}

static struct bytes key_in(const struct data *data, const unsigned char *keys,
                           size_t index) {
  struct bytes key = {keys + index * data->key_bytes, data->key_bytes};
  return key;
}

struct bytes data_key(const struct data *data, size_t index) {
  return key_in(data, data->keys, index);
}

struct bytes data_shuffled_key(const struct data *data, size_t index) {
  return key_in(data, data->shuffled, index);
}

/* As like to one that is there as can be: no engine can tell by a glance. */
struct bytes data_missing_key(const struct data *data, size_t index,
                              unsigned char *buffer) {
  struct bytes key = {buffer, data->key_bytes};
  if (data->key_bytes == 8) {
    make_key(buffer, 8, index + (UINT64_C(1) << 40));
  } else {
    memcpy(buffer, data->shuffled + index * data->key_bytes, data->key_bytes);
    buffer[5] = '#';
  }
  return key;
}

/* ---- Values --------------------------------------------------------------- */

static const unsigned char *piece_of_pool(const struct data *data,
                                          uint64_t seed, unsigned version) {
  return data->pool + mix(seed + version * GOLDEN) % POOL_STARTS;
}

static void make_small(unsigned char *buffer, size_t size, uint64_t seed,
                       unsigned version) {
  uint64_t word = seed ^ version, state = seed + version;
  memcpy(buffer, &word, sizeof word);
  for (size_t at = 8; at < size; at += 8) {
    word = random_next(&state);
    memcpy(buffer + at, &word, size - at < 8 ? size - at : 8);
  }
}

struct bytes data_value(const struct data *data, struct bytes key,
                        unsigned version, unsigned char *buffer) {
  struct bytes value = {buffer, data->value_bytes};
  if (data->value_is_key) return key;
  if (data->pool != NULL)
    value.data = piece_of_pool(data, seed_of(key), version);
  else
    make_small(buffer, data->value_bytes, seed_of(key), version);
  return value;
}

static bool same(struct bytes a, const void *b, size_t size) {
  return a.size == size && memcmp(a.data, b, size) == 0;
}

bool data_is_value(const struct data *data, struct bytes key,
                   struct bytes value, unsigned first, unsigned last) {
  unsigned char made[SMALL_BYTES];
  if (value.data == NULL || value.size != data->value_bytes) return false;
  if (data->value_is_key) return same(value, key.data, key.size);
  uint64_t seed = seed_of(key);
  if (data->pool != NULL) {
    for (unsigned version = first; version <= last; version++)
      if (same(value, piece_of_pool(data, seed, version), data->value_bytes))
        return true;
    return false;
  }
  uint64_t version = word_at(value.data) ^ seed;
  if (version < first || version > last) return false;
  make_small(made, data->value_bytes, seed, (unsigned)version);
  return same(value, made, data->value_bytes);
}

uint64_t data_record_sum(struct bytes key, struct bytes value) {
  uint64_t first = word_at(key.data), word = word_at(value.data);
  return mix(first + GOLDEN * word + value.size);
}

/* ---- Zipf ----------------------------------------------------------------- */

/* As YCSB's scrambled generator, with its constant 0.99 (Gray et al., "Quickly
   Generating Billion-Record Synthetic Databases", 1994). */
void data_make_zipf(struct data *data, size_t count) {
  const double theta = 0.99, n = (double)data->records;
  double zeta = 0;
  uint64_t state = 3;
  for (size_t i = 1; i <= data->records; i++)
    zeta += 1 / pow((double)i, theta);
  double two = 1 + pow(0.5, theta), alpha = 1 / (1 - theta);
  double eta = (1 - pow(2 / n, 1 - theta)) / (1 - two / zeta);
  data->zipf = bench_new(count, sizeof *data->zipf);
  data->zipf_age = bench_new(count, sizeof *data->zipf_age);
  data->zipf_count = count;
  for (size_t i = 0; i < count; i++) {
    double u = random_fraction(&state), place = u * zeta;
    double rank = place < 1     ? 0
                  : place < two ? 1
                                : n * pow(eta * u - eta + 1, alpha);
    uint64_t age = (uint64_t)rank % data->records;
    data->zipf_age[i] = (uint32_t)age;
    data->zipf[i] = (uint32_t)(mix(age) % data->records);
  }
}
