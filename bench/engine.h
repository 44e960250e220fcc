/* SPDX-License-Identifier: MIT */
/*
 * What the driver needs of a key-value store: an adapter, one file each in
 * bench/engines. bench/README.md says how to add one.
 *
 * An adapter owns a store in a folder of its own, and a session for each thread
 * that uses it. It ends the program with bench_fail() if a call of the store
 * fails, so that its functions return answers alone. A value is handed over as
 * cheaply as the store can: by a pointer if it has one, else by a copy.
 */
#ifndef BENCH_ENGINE_H
#define BENCH_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bytes {
  const void *data; /* NULL: there is none */
  size_t size;
};

/* What is known beforehand, for stores that can be tuned to it. */
struct setup {
  const char *folder; /* exists; the store's files go there and nowhere else */
  bool fresh;         /* the folder is empty: make the store */
  bool durable;       /* every put is on disk before it returns */
  bool batches;       /* it will be filled with put_batch */
  size_t records;     /* that there will be */
  size_t key_bytes;
  size_t value_bytes;
};

typedef void value_visitor(void *context, size_t index, struct bytes value);
typedef void record_visitor(void *context, struct bytes key,
                            struct bytes value);

enum engine_trait {
  ENGINE_IN_MEMORY = 1,     /* has no file */
  ENGINE_READ_THREADS = 2,  /* several threads may read */
  ENGINE_WRITE_THREADS = 4, /* several threads may read and write */
  ENGINE_DURABLE = 8,       /* knows setup.durable */
  ENGINE_BARE = 16,         /* puts alone: no store at all */
  ENGINE_HIDDEN = 32,       /* runs only if it is asked for by name */
  ENGINE_BLIND_ERASE = 64   /* erase does not know, and says true */
};

struct engine {
  const char *name;  /* a word, for tables and options */
  const char *about; /* how it is set up */
  unsigned traits;   /* enum engine_trait */

  void *(*open)(const struct setup *setup);
  void (*close)(void *store);
  void *(*attach)(void *store); /* a session, for one thread */
  void (*detach)(void *session);

  /* The value is good until the session's next call. */
  bool (*get)(void *session, struct bytes key, struct bytes *value_out);
  void (*put)(void *session, struct bytes key, struct bytes value);
  bool (*erase)(void *session, struct bytes key); /* whether it was there */
  /* All records, in any order, at one moment if the store can. */
  void (*scan)(void *session, record_visitor *visit, void *context);

  /* What follows may be NULL: the store cannot, or has nothing for it. */

  /* All of them or none. */
  void (*put_batch)(void *session, const struct bytes *keys,
                    const struct bytes *values, size_t count);
  /* Calls `visit` for each key that is there. */
  void (*get_many)(void *session, const struct bytes *keys, size_t count,
                   value_visitor *visit, void *context);
  /* The same for one key, by a snapshot or transaction for this read alone. */
  void (*snapshot_get)(void *session, struct bytes key, value_visitor *visit,
                       void *context);
  /* Up to `count` records from `first` on, by the order of the keys. */
  void (*range)(void *session, struct bytes first, size_t count,
                record_visitor *visit, void *context);
};

/* Those that this driver was built with; NULL at the end. */
extern const struct engine *const engines[];

/* Names of packages that were not there when it was built, or "". */
extern const char engines_left_out[];

const struct engine *engine_by_name(const char *name);

/* Ends the process: `who` could not do `what`. `why` may be NULL. */
#ifdef __cplusplus
[[noreturn]]
#else
_Noreturn
#endif
void bench_fail(const char *who, const char *what, const char *why);

/* calloc() and snprintf("%s/%s") that do not fail. */
void *bench_new(size_t count, size_t size);
char *bench_path(const char *folder, const char *name);

#ifdef __cplusplus
}
#endif

#endif
