/* SPDX-License-Identifier: MIT */
/*
 * What reading costs, measured on the machine at hand:
 *
 *   reads FILE [COUNT]   a store of COUNT keys of 32 random letters
 *                        (1,000,000), value = key: opening and closing a
 *                        snapshot; get_many against get; the
 *                        difference of two snapshots
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

/* ---- get_many ------------------------------------------------------------ */

/* What the values are compared with: both ways read every byte. */
static int check_value(void *context, size_t index, mmcmap_slice value) {
  const mmcmap_slice *keys = context;
  must_hold(value.size == KEY_BYTES &&
                memcmp(value.data, keys[index].data, KEY_BYTES) == 0,
            "a wrong value");
  return MMCMAP_OK;
}

enum { BATCH = 256, BATCHES = 2000 };

struct batch {
  char bytes[BATCH][KEY_BYTES];
  mmcmap_slice keys[BATCH];
};

/* Keys that the processor has at hand: their records it has not. */
static void draw(struct batch *batch, const struct keys *keys) {
  for (int i = 0; i < BATCH; i++) {
    memcpy(batch->bytes[i], any_key(keys).data, KEY_BYTES);
    batch->keys[i] = (mmcmap_slice){batch->bytes[i], KEY_BYTES};
  }
}

/* ns a key: `size` keys with one call, or gets if it is 0. */
static double measure_batches(mmcmap *store, const struct keys *keys,
                              size_t size) {
  static struct batch batch;
  static mmcmap_buffer value;
  double inside = 0;
  for (int i = 0; i < BATCHES; i++) {
    draw(&batch, keys);
    double begin = now_ns();
    for (size_t j = 0; j < BATCH; j += size == 0 ? 1 : size) {
      if (size > 0) {
        must(mmcmap_get_many(store, batch.keys + j, size, check_value,
                             batch.keys + j),
             "get_many");
        continue;
      }
      must(mmcmap_get(store, batch.keys[j], &value), "get");
      check_value(batch.keys, j, (mmcmap_slice){value.data, value.size});
    }
    inside += now_ns() - begin;
  }
  return inside / BATCHES / BATCH;
}

static void measure_get_many(mmcmap *store, const struct keys *keys) {
  static const size_t sizes[] = {0, 1, 4, 8, 16, 32, 64, 256};
  enum { SIZES = sizeof sizes / sizeof sizes[0] };
  double best[SIZES];
  for (int round = 0; round < ROUNDS; round++)
    for (int s = 0; s < SIZES; s++) {
      double each = measure_batches(store, keys, sizes[s]);
      if (round == 0 || each < best[s]) best[s] = each;
    }
  printf("get                                %7.0f ns a key\n", best[0]);
  for (int s = 1; s < SIZES; s++)
    printf("get_many of %3u                    %7.0f ns a key, %.2f of get\n",
           (unsigned)sizes[s], best[s], best[s] / best[0]);
}

/* ---- diff ---------------------------------------------------------------- */

static void measure_diff(mmcmap *store, const struct keys *keys, int changes) {
  mmcmap_snapshot *before, *after;
  mmcmap_diff *diff;
  mmcmap_change change;
  double best = 1e18;
  for (int round = 0; round < ROUNDS; round++) {
    must(mmcmap_snapshot_open(store, &before), "snapshot");
    for (int i = 0; i < changes; i++) {
      char value[KEY_BYTES];
      snprintf(value, sizeof value, "%d in round %d", i, round);
      must(mmcmap_put(store, any_key(keys),
                      (mmcmap_slice){value, strlen(value)}),
           "put");
    }
    must(mmcmap_snapshot_open(store, &after), "snapshot");
    double begin = now_ns();
    int count = 0, code;
    must(mmcmap_diff_open(before, after, &diff), "diff");
    while ((code = mmcmap_diff_next(diff, &change)) == MMCMAP_OK)
      count += change.has_old && change.has_new;
    mmcmap_diff_close(diff);
    double each = now_ns() - begin;
    must_hold(code == MMCMAP_NOTFOUND && count <= changes &&
                  count > changes - changes / 50 - 1,
              "not the differences there are");
    if (each < best) best = each;
    mmcmap_snapshot_close(before);
    mmcmap_snapshot_close(after);
  }
  printf("diff of %5d changes               %7.0f us\n", changes, best / 1000);
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
  measure_get_many(store, &keys);
  measure_diff(store, &keys, 1);
  measure_diff(store, &keys, 1000);
  must(mmcmap_remove(store), "remove");
  free(keys.bytes);
  return 0;
}
