/* SPDX-License-Identifier: MIT */
/*
 * The list of adapters, in the order of the tables, and what they share.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"

/* One line for each adapter: configure's name for it, and the engines in it.
   An adapter that is left out is not declared, too. */
extern const struct engine engine_mmcmap, engine_bare;
extern const struct engine engine_lie_get, engine_lie_miss, engine_lie_many,
    engine_lie_scan, engine_lie_put, engine_lie_erase;
#ifdef BENCH_LMDB
extern const struct engine engine_lmdb_writemap, engine_lmdb;
#endif
#ifdef BENCH_TKRZW
extern const struct engine engine_tkrzw;
#endif
#ifdef BENCH_KYOTO
extern const struct engine engine_kyoto;
#endif
#ifdef BENCH_TDB
extern const struct engine engine_tdb_nolock, engine_tdb;
#endif
#ifdef BENCH_GDBM
extern const struct engine engine_gdbm;
#endif
#ifdef BENCH_LEVELDB
extern const struct engine engine_leveldb;
#endif
#ifdef BENCH_ROCKSDB
extern const struct engine engine_rocksdb;
#endif
#ifdef BENCH_SQLITE
extern const struct engine engine_sqlite;
#endif
#ifdef BENCH_ABSL
extern const struct engine engine_absl;
#endif
#ifdef BENCH_CXX
extern const struct engine engine_unordered;
#endif

const struct engine *const engines[] = {
    &engine_mmcmap,
#ifdef BENCH_LMDB
    &engine_lmdb_writemap, &engine_lmdb,
#endif
#ifdef BENCH_TKRZW
    &engine_tkrzw,
#endif
#ifdef BENCH_KYOTO
    &engine_kyoto,
#endif
#ifdef BENCH_TDB
    &engine_tdb_nolock,    &engine_tdb,
#endif
#ifdef BENCH_GDBM
    &engine_gdbm,
#endif
#ifdef BENCH_LEVELDB
    &engine_leveldb,
#endif
#ifdef BENCH_ROCKSDB
    &engine_rocksdb,
#endif
#ifdef BENCH_SQLITE
    &engine_sqlite,
#endif
#ifdef BENCH_ABSL
    &engine_absl,
#endif
#ifdef BENCH_CXX
    &engine_unordered,
#endif
    &engine_bare,          &engine_lie_get, &engine_lie_miss,  &engine_lie_many,
    &engine_lie_scan,      &engine_lie_put, &engine_lie_erase, NULL};

const char engines_left_out[] = BENCH_LEFT_OUT;

const struct engine *engine_by_name(const char *name) {
  for (size_t i = 0; engines[i] != NULL; i++)
    if (strcmp(engines[i]->name, name) == 0) return engines[i];
  return NULL;
}

void bench_fail(const char *who, const char *what, const char *why) {
  fprintf(stderr, "driver: %s: %s%s%s\n", who, what, why == NULL ? "" : ": ",
          why == NULL ? "" : why);
  fflush(stderr);
  _exit(1);
}

void *bench_new(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory == NULL) bench_fail("driver", "no memory", NULL);
  return memory;
}

char *bench_path(const char *folder, const char *name) {
  size_t size = strlen(folder) + strlen(name) + 2;
  char *path = bench_new(size, 1);
  snprintf(path, size, "%s/%s", folder, name);
  return path;
}
