/* SPDX-License-Identifier: MIT */
/*
 * The records that all engines are given: keys and values that depend on the
 * shape and nothing else, so that any value can be checked without a copy of it.
 * Made once, before the engines run; read-only from then on.
 *
 * A value carries a version: 0 when it is loaded, more when it is overwritten.
 */
#ifndef BENCH_DATA_H
#define BENCH_DATA_H

#include "engine.h"

enum { VERSION_MAX = 3 };

struct data {
  size_t records;     /* that are loaded */
  size_t extra;       /* further keys, for what inserts later */
  size_t key_bytes;   /* 8: any bytes; else random letters */
  size_t value_bytes; /* at least 8 */
  bool value_is_key;  /* and versions are all the same */

  unsigned char *keys;     /* records + extra, in the order of loading */
  unsigned char *shuffled; /* the records' keys, in another order */
  unsigned char *pool;     /* that large values are pieces of */
  uint32_t *zipf;          /* indexes of records, some much more often */
  uint32_t *zipf_age;      /* the same, the smaller the more often */
  size_t zipf_count;
};

/* key_bytes >= 8, value_bytes >= 8. */
void data_make(struct data *data, size_t records, size_t key_bytes,
               size_t value_bytes, bool value_is_key);
void data_make_zipf(struct data *data, size_t count);
void data_free(struct data *data);

struct bytes data_key(const struct data *data, size_t index);
struct bytes data_shuffled_key(const struct data *data, size_t index);

/* A key that is not there; `buffer` has key_bytes. */
struct bytes data_missing_key(const struct data *data, size_t index,
                              unsigned char *buffer);

/* `buffer` has value_bytes, and may or may not be what is returned. */
struct bytes data_value(const struct data *data, struct bytes key,
                        unsigned version, unsigned char *buffer);

/* Whether it is the key's value of one of the versions first..last. */
bool data_is_value(const struct data *data, struct bytes key,
                   struct bytes value, unsigned first, unsigned last);

/* A number for a record, to sum up what a scan has seen in any order. */
uint64_t data_record_sum(struct bytes key, struct bytes value);

/* A generator (SplitMix64; Steele, Lea and Flood, 2014). */
uint64_t random_next(uint64_t *state);
double random_fraction(uint64_t *state);

#endif
