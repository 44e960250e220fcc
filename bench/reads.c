/* SPDX-License-Identifier: MIT */
/*
 * What reading costs, measured on the machine at hand:
 *
 *   reads FILE [COUNT]   a store of COUNT keys of 32 random letters
 *                        (1,000,000), value = key: opening and closing a
 *                        snapshot
 *
 * Every value is checked. FILE is made and removed. Let nothing else run
 * meanwhile, and compare figures of one run only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mmcmap.h"

enum { KEY_BYTES = 32, ROUNDS = 5 };

static uint64_t random_state = 88172645463325252u;

/* xorshift64 (Marsaglia, 2003): the same keys in every run. */
static uint64_t random_next(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

static double now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void must_hold(bool condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "reads: %s\n", what);
  exit(1);
}

static void must(int code, const char *what) {
  if (code != MMCMAP_OK) fprintf(stderr, "reads: %s: ", mmcmap_strerror(code));
  must_hold(code == MMCMAP_OK, what);
}

struct keys {
  size_t count;
  char *bytes;
};

static mmcmap_slice key_at(const struct keys *keys, size_t index) {
  mmcmap_slice key = {keys->bytes + KEY_BYTES * index, KEY_BYTES};
  return key;
}

static mmcmap_slice any_key(const struct keys *keys) {
  return key_at(keys, (size_t)(random_next() >> 11) % keys->count);
}

static void make_keys(struct keys *keys) {
  keys->bytes = malloc(keys->count * KEY_BYTES);
  must_hold(keys->bytes != NULL, "no memory");
  for (size_t i = 0; i < keys->count * KEY_BYTES; i++)
    keys->bytes[i] = (char)('a' + (random_next() >> 11) % 26);
}

/* ---- Snapshots ----------------------------------------------------------- */

static void measure_snapshots(mmcmap *store, const struct keys *keys) {
  const int count = 200000;
  mmcmap_snapshot *snapshot;
  double best = 1e18, best_changed = 1e18;
  for (int round = 0; round < ROUNDS; round++) {
    double begin = now_ns();
    for (int i = 0; i < count; i++) {
      must(mmcmap_snapshot_open(store, &snapshot), "snapshot");
      mmcmap_snapshot_close(snapshot);
    }
    double each = (now_ns() - begin) / count;
    if (each < best) best = each;
    double inside = 0;
    for (int i = 0; i < count / 10; i++) {
      mmcmap_slice key = any_key(keys);
      must(mmcmap_put(store, key, key), "put");
      begin = now_ns();
      must(mmcmap_snapshot_open(store, &snapshot), "snapshot");
      mmcmap_snapshot_close(snapshot);
      inside += now_ns() - begin;
    }
    inside /= count / 10;
    if (inside < best_changed) best_changed = inside;
  }
  printf("snapshot, open and close           %7.0f ns\n", best);
  printf("the same after a change (a seal)   %7.0f ns\n", best_changed);
}

int main(int argc, char **argv) {
  struct keys keys = {.count = 1000000};
  mmcmap_options options;
  mmcmap *store;
  if (argc < 2) {
    fputs("usage: reads FILE [COUNT]\n", stderr);
    return 2;
  }
  if (argc > 2) keys.count = strtoul(argv[2], NULL, 10);
  must_hold(keys.count > 0, "COUNT must be a number");
  make_keys(&keys);
  mmcmap_options_init(&options);
  options.exclusive = true;
  options.durability = MMCMAP_MANUAL;
  must(mmcmap_open(argv[1], &options, &store), argv[1]);
  for (size_t i = 0; i < keys.count; i++)
    must(mmcmap_put(store, key_at(&keys, i), key_at(&keys, i)), "put");
  must(mmcmap_sync(store), "sync");
  measure_snapshots(store, &keys);
  must(mmcmap_remove(store), "remove");
  free(keys.bytes);
  return 0;
}
