/* SPDX-License-Identifier: MIT */
/*
 * The loads: which record is changed next, and how; and what must be in the store
 * after that. A record's key and value follow from its number, its version and its
 * size, so that every byte can be checked without a copy of it.
 */
#ifndef BENCH_CHURN_LOADS_H
#define BENCH_CHURN_LOADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KEY_BYTES = 16 };

struct record {
  uint32_t version; /* how often it has been put */
  uint32_t size;    /* of its value; 0: it is not there */
};

struct change {
  uint64_t id;
  uint32_t size; /* of the value to be put; 0: to be deleted */
};

struct churn;

struct load {
  const char *name;
  const char *about;
  /* The next change; the model is told of it by churn_done(). */
  void (*next)(struct churn *churn, struct change *change_out);
  size_t data_bytes; /* 0: as is asked for */
  bool has_snapshot; /* one is open from a third of the work to two thirds */
  bool expires;      /* each key once, with a time to live, at a steady rate */
  bool values_grow;  /* and shrink */
};

/* NULL at the end. */
extern const struct load *const loads[];
const struct load *load_by_name(const char *name, size_t size);

/* What a load is working on. */
struct churn {
  const struct load *load;
  size_t count;       /* records that are alive, in the long run */
  size_t data_bytes;  /* their keys and values */
  size_t value_bytes; /* unless they grow */
  uint64_t random;
  uint64_t position; /* of what goes round */
  struct record *records;
  size_t room;          /* of them: more than `count` if each key comes once */
  uint64_t *expires_ns; /* of each, by the monotonic clock, if they do */
  size_t first_alive;   /* those before it have expired */
  uint64_t logical_bytes; /* keys and values that are there */
};

/* About `data_bytes` of keys and values; up to `work` times that will be put. */
void churn_init(struct churn *churn, const struct load *load, size_t data_bytes,
                size_t value_bytes, double work);
void churn_free(struct churn *churn);

uint64_t churn_random(struct churn *churn, uint64_t below);

/* The size of a record's value when it is put once more. */
uint32_t churn_next_size(const struct churn *churn, uint64_t id);

/* The change was made, `expires_ns` being when it ends, or 0. */
void churn_done(struct churn *churn, const struct change *change,
                uint64_t expires_ns);

/* Takes those that have expired by now off what is there. */
void churn_expire(struct churn *churn, uint64_t now_ns);

void churn_key(uint64_t id, char key_out[KEY_BYTES]);
void churn_value(uint64_t id, struct record record, unsigned char *value_out);

/* Of any value of the load. */
size_t churn_most_bytes(const struct churn *churn);

#endif
