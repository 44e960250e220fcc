/* SPDX-License-Identifier: MIT */
/*
 * The figures that the documents and the notes quote, measured on the machine
 * at hand:
 *
 *   figures load FILE [COUNT]      puts of COUNT keys of 32 random letters
 *                                  (1,000,000), value = key, then gets in
 *                                  another order, misses, overwrites, a scan,
 *                                  reopening and deletes; bytes a key
 *   figures batch FILE [COUNT]     the same keys put and overwritten one by one,
 *                                  in transactions of 10, 100 and 1,000, and
 *                                  1,000 with one call;
 *                                  one transaction that replaces them all; clear;
 *                                  batches that are each on disk
 *   figures moments FILE [COUNT]   snapshots opened and closed, of a store that stays
 *                                  as it is and of one that changes in between; the
 *                                  difference of 1,000 changes among COUNT; medians
 *   figures durable FILE [ROUNDS]  durable puts of 1, 2 and 8 threads, in turns
 *                                  with a bare loop of pwrite 4 KiB and
 *                                  fdatasync on a file written before; medians
 *
 * Every value is checked. FILE is made and removed; a second file FILE.bare
 * too. Let nothing else run meanwhile.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mmcmap.h"

enum { KEY_BYTES = 32, PAGE_BYTES = 4096, BARE_PAGES = 4096, ROUNDS_MAX = 999 };

static uint64_t random_state = 88172645463325252u;

/* xorshift64 (Marsaglia, 2003): the same keys in every run. */
static uint64_t random_next(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Ends the program if a call has failed. */
static void must(int code, const char *what) {
  if (code == MMCMAP_OK) return;
  mmcmap_error error;
  mmcmap_last_error(&error);
  fprintf(stderr, "figures: %s: %s (%s)\n", what, mmcmap_strerror(code),
          error.what == NULL ? "" : error.what);
  exit(1);
}

static void must_hold(bool condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "figures: %s\n", what);
  exit(1);
}

static mmcmap_slice slice(const void *data, size_t size) {
  mmcmap_slice result = {data, size};
  return result;
}

/* ---- load ----------------------------------------------------------------- */

struct keys {
  size_t count;
  char *bytes;
  uint32_t *order; /* another order than they are put in */
};

static mmcmap_slice key_at(const struct keys *keys, size_t index) {
  return slice(keys->bytes + KEY_BYTES * index, KEY_BYTES);
}

static void make_keys(struct keys *keys) {
  keys->bytes = malloc(keys->count * KEY_BYTES);
  keys->order = malloc(keys->count * sizeof *keys->order);
  must_hold(keys->bytes != NULL && keys->order != NULL, "no memory");
  for (size_t i = 0; i < keys->count * KEY_BYTES; i++)
    keys->bytes[i] = (char)('a' + (random_next() >> 11) % 26);
  for (size_t i = 0; i < keys->count; i++)
    keys->order[i] = (uint32_t)i;
  for (size_t i = keys->count - 1; i > 0; i--) {
    size_t j = random_next() % (i + 1);
    uint32_t swapped = keys->order[i];
    keys->order[i] = keys->order[j];
    keys->order[j] = swapped;
  }
}

static void say(const char *what, double begin, const struct keys *keys) {
  printf("%-10s %7.0f ns\n", what,
         (now_seconds() - begin) / (double)keys->count * 1e9);
}

static void say_size(mmcmap *store, const char *when, const struct keys *keys) {
  mmcmap_stat stat;
  must(mmcmap_stat_get(store, &stat), "stat");
  printf("%-10s %7.1f bytes of file a key, %u commits\n", when,
         (double)stat.size_bytes / (double)keys->count,
         (unsigned)stat.commit_count);
}

static void measure_gets(mmcmap *store, const struct keys *keys) {
  mmcmap_buffer value = {0};
  double begin = now_seconds();
  for (size_t i = 0; i < keys->count; i++) {
    mmcmap_slice key = key_at(keys, keys->order[i]);
    must(mmcmap_get(store, key, &value), "get");
    must_hold(
        value.size == key.size && memcmp(value.data, key.data, key.size) == 0,
        "a wrong value");
  }
  say("get", begin, keys);
  char missing[KEY_BYTES];
  begin = now_seconds();
  for (size_t i = 0; i < keys->count; i++) {
    memcpy(missing, key_at(keys, keys->order[i]).data, KEY_BYTES);
    missing[5] = '#';
    must_hold(
        mmcmap_get(store, slice(missing, KEY_BYTES), &value) == MMCMAP_NOTFOUND,
        "found what is not there");
  }
  say("miss", begin, keys);
  mmcmap_buffer_free(&value);
}

static void measure_scan(mmcmap *store, const struct keys *keys) {
  mmcmap_snapshot *snapshot;
  mmcmap_cursor *cursor;
  mmcmap_slice key, value;
  size_t seen = 0;
  double begin = now_seconds();
  must(mmcmap_snapshot_open(store, &snapshot), "snapshot");
  must(mmcmap_cursor_open(snapshot, &cursor), "cursor");
  while (mmcmap_cursor_next(cursor, &key, &value) == MMCMAP_OK)
    seen++;
  say("scan", begin, keys);
  must_hold(seen == keys->count, "not every key was seen");
  mmcmap_cursor_close(cursor);
  mmcmap_snapshot_close(snapshot);
}

static void load(const char *path, size_t count) {
  struct keys keys = {.count = count};
  mmcmap *store;
  make_keys(&keys);
  must(mmcmap_open(path, NULL, &store), "open");
  double begin = now_seconds();
  for (size_t i = 0; i < count; i++)
    must(mmcmap_put(store, key_at(&keys, i), key_at(&keys, i)), "put");
  say("put", begin, &keys);
  say_size(store, "loaded", &keys);
  measure_gets(store, &keys);
  begin = now_seconds();
  for (size_t i = 0; i < count; i++)
    must(mmcmap_put(store, key_at(&keys, keys.order[i]),
                    key_at(&keys, keys.order[count - 1 - i])),
         "put");
  say("overwrite", begin, &keys);
  say_size(store, "overwritten", &keys);
  measure_scan(store, &keys);
  must(mmcmap_close(store), "close");
  begin = now_seconds();
  must(mmcmap_open(path, NULL, &store), "open");
  printf("%-10s %7.2f ms\n", "open", (now_seconds() - begin) * 1e3);
  begin = now_seconds();
  for (size_t i = 0; i < count; i++)
    must(mmcmap_delete(store, key_at(&keys, keys.order[i])), "delete");
  say("delete", begin, &keys);
  must(mmcmap_remove(store), "remove");
  free(keys.bytes);
  free(keys.order);
}

/* ---- batch ---------------------------------------------------------------- */

/* Puts all keys, `step` in a transaction, or each by itself if that is 0. */
static void put_in_batches(mmcmap *store, const struct keys *keys, size_t step,
                           const char *what) {
  mmcmap_txn *txn = NULL;
  double begin = now_seconds();
  for (size_t i = 0; i < keys->count; i++) {
    mmcmap_slice key = key_at(keys, keys->order[i]);
    if (step != 0 && i % step == 0)
      must(mmcmap_txn_begin(store, &txn), "begin");
    must(
        step == 0 ? mmcmap_put(store, key, key) : mmcmap_txn_put(txn, key, key),
        "put");
    if (step != 0 && ((i + 1) % step == 0 || i + 1 == keys->count))
      must(mmcmap_txn_commit(txn), "commit");
  }
  printf("%5u in one: ", (unsigned)step);
  say(what, begin, keys);
}

/* The same with one call for each 1,000. */
static void put_many(mmcmap *store, const struct keys *keys, const char *what) {
  enum { MANY = 1000 };
  mmcmap_slice slices[MANY];
  double begin = now_seconds();
  for (size_t i = 0; i < keys->count;) {
    size_t count = 0;
    for (; count < MANY && i < keys->count; i++)
      slices[count++] = key_at(keys, keys->order[i]);
    must(mmcmap_put_many(store, slices, slices, count), "put_many");
  }
  printf("%5d many:   ", MANY);
  say(what, begin, keys);
}

static void put_durable_batches(const char *path, size_t step) {
  enum { BATCHES = 200 };
  mmcmap_options options;
  mmcmap *store;
  mmcmap_options_init(&options);
  options.durability = MMCMAP_SYNC;
  must(mmcmap_open(path, &options, &store), "open");
  struct keys keys = {.count = BATCHES * step};
  make_keys(&keys);
  double begin = now_seconds();
  put_in_batches(store, &keys, step == 1 ? 0 : step, "durable");
  printf("              %7.0f us a batch\n",
         (now_seconds() - begin) / BATCHES * 1e6);
  must(mmcmap_remove(store), "remove");
  free(keys.bytes);
  free(keys.order);
}

static void batch(const char *path, size_t count) {
  static const size_t steps[] = {0, 10, 100, 1000};
  struct keys keys = {.count = count};
  mmcmap *store;
  make_keys(&keys);
  for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    must(mmcmap_open(path, NULL, &store), "open");
    put_in_batches(store, &keys, steps[i], "put");
    put_in_batches(store, &keys, steps[i], "overwrite");
    if (steps[i] == 1000) put_in_batches(store, &keys, count, "overwrite");
    double begin = now_seconds();
    if (steps[i] == 1000) must(mmcmap_clear(store), "clear");
    if (steps[i] == 1000) say("clear", begin, &keys);
    must(mmcmap_remove(store), "remove");
  }
  must(mmcmap_open(path, NULL, &store), "open");
  put_many(store, &keys, "put");
  put_many(store, &keys, "overwrite");
  must(mmcmap_remove(store), "remove");
  free(keys.bytes);
  free(keys.order);
  put_durable_batches(path, 1);
  put_durable_batches(path, 1000);
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare_doubles);
  return values[count / 2];
}

/* ---- moments -------------------------------------------------------------- */

enum { MOMENTS = 100000, CHANGES = 1000, MOMENT_ROUNDS = 21 };

/* What is done between one snapshot and the next. */
enum moment_kind { MOMENT_ALONE, MOMENT_GET, MOMENT_PUT, MOMENT_PUT_ALONE };

/* Nanoseconds for one of many. */
static double open_moments(mmcmap *store, const struct keys *keys,
                           enum moment_kind kind) {
  double begin = now_seconds();
  for (size_t i = 0; i < MOMENTS; i++) {
    mmcmap_slice key = key_at(keys, keys->order[i % keys->count]), value;
    mmcmap_snapshot *snapshot;
    if (kind == MOMENT_PUT || kind == MOMENT_PUT_ALONE)
      must(mmcmap_put(store, key, key), "put");
    if (kind == MOMENT_PUT_ALONE) continue;
    must(mmcmap_snapshot_open(store, &snapshot), "snapshot");
    if (kind == MOMENT_GET)
      must(mmcmap_snapshot_get(snapshot, key, &value), "get");
    mmcmap_snapshot_close(snapshot);
  }
  return (now_seconds() - begin) / MOMENTS * 1e9;
}

/* Seconds for the difference that so many changes of random keys make. */
static double walk_changes(mmcmap *store, const struct keys *keys,
                           unsigned round) {
  mmcmap_snapshot *before, *after;
  mmcmap_diff *diff;
  mmcmap_change change;
  size_t seen = 0;
  must(mmcmap_snapshot_open(store, &before), "snapshot");
  for (size_t i = 0; i < CHANGES; i++)
    must(mmcmap_put(store, key_at(keys, keys->order[i]),
                    slice(&round, sizeof round)),
         "put");
  must(mmcmap_snapshot_open(store, &after), "snapshot");
  double begin = now_seconds();
  must(mmcmap_diff_open(before, after, &diff), "diff");
  while (mmcmap_diff_next(diff, &change) == MMCMAP_OK)
    seen++;
  mmcmap_diff_close(diff);
  double seconds = now_seconds() - begin;
  must_hold(seen == CHANGES, "not every change was seen");
  mmcmap_snapshot_close(after);
  mmcmap_snapshot_close(before);
  return seconds;
}

static void moments(const char *path, size_t count) {
  static const char *const names[] = {"open, close", "open, get, close",
                                      "put, open, close", "put"};
  struct keys keys = {.count = count};
  double values[MOMENT_ROUNDS];
  mmcmap *store;
  make_keys(&keys);
  must(mmcmap_open(path, NULL, &store), "open");
  for (size_t i = 0; i < count; i++)
    must(mmcmap_put(store, key_at(&keys, i), key_at(&keys, i)), "put");
  must(mmcmap_sync(store), "sync");
  for (int kind = MOMENT_ALONE; kind <= MOMENT_PUT_ALONE; kind++) {
    for (int i = 0; i < MOMENT_ROUNDS; i++)
      values[i] = open_moments(store, &keys, (enum moment_kind)kind);
    printf("%-17s %7.0f ns\n", names[kind], median(values, MOMENT_ROUNDS));
  }
  for (int i = 0; i < MOMENT_ROUNDS; i++)
    values[i] = walk_changes(store, &keys, (unsigned)i);
  printf("diff of %u %12.0f us\n", (unsigned)CHANGES,
         median(values, MOMENT_ROUNDS) * 1e6);
  must(mmcmap_remove(store), "remove");
  free(keys.bytes);
  free(keys.order);
}

/* ---- durable -------------------------------------------------------------- */

enum { PUTS_PER_THREAD = 200, THREADS_MAX = 8 };

struct putter {
  mmcmap *store;
  unsigned seed;
};

static void *put_durably(void *context) {
  struct putter *putter = context;
  char key[KEY_BYTES];
  for (int i = 0; i < PUTS_PER_THREAD; i++) {
    memset(key, 'k', sizeof key);
    snprintf(key, sizeof key, "%u %d", rand_r(&putter->seed), i);
    must(mmcmap_put(putter->store, slice(key, sizeof key),
                    slice(key, sizeof key)),
         "put");
  }
  return NULL;
}

/* Microseconds for a put, by the wall clock. */
static double durable_puts(mmcmap *store, int threads) {
  static unsigned seed;
  pthread_t ids[THREADS_MAX];
  struct putter putters[THREADS_MAX];
  double begin = now_seconds();
  for (int i = 0; i < threads; i++) {
    putters[i] = (struct putter){store, ++seed};
    must_hold(pthread_create(&ids[i], NULL, put_durably, &putters[i]) == 0,
              "no thread");
  }
  for (int i = 0; i < threads; i++)
    pthread_join(ids[i], NULL);
  return (now_seconds() - begin) / (threads * PUTS_PER_THREAD) * 1e6;
}

static double bare_writes(int fd) {
  static char page[PAGE_BYTES];
  static unsigned next;
  double begin = now_seconds();
  for (int i = 0; i < PUTS_PER_THREAD; i++) {
    page[0]++;
    off_t at = (off_t)(next++ % BARE_PAGES) * PAGE_BYTES;
    must_hold(
        pwrite(fd, page, sizeof page, at) == PAGE_BYTES && fdatasync(fd) == 0,
        "bare write");
  }
  return (now_seconds() - begin) / PUTS_PER_THREAD * 1e6;
}

static int open_bare(const char *path) {
  char name[4096], page[PAGE_BYTES] = {0};
  snprintf(name, sizeof name, "%s.bare", path);
  int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  must_hold(fd >= 0 && unlink(name) == 0, "bare file");
  for (int i = 0; i < BARE_PAGES; i++)
    must_hold(write(fd, page, sizeof page) == PAGE_BYTES, "bare file");
  must_hold(fsync(fd) == 0, "bare file");
  return fd;
}

static void durable(const char *path, size_t rounds) {
  static double bare[ROUNDS_MAX], one[ROUNDS_MAX], two[ROUNDS_MAX],
      eight[ROUNDS_MAX];
  mmcmap_options options;
  mmcmap *store;
  mmcmap_options_init(&options);
  options.durability = MMCMAP_SYNC;
  int fd = open_bare(path);
  must(mmcmap_open(path, &options, &store), "open");
  (void)durable_puts(store, THREADS_MAX);
  for (size_t i = 0; i < rounds; i++) {
    bare[i] = bare_writes(fd);
    one[i] = durable_puts(store, 1);
    two[i] = durable_puts(store, 2);
    eight[i] = durable_puts(store, 8);
  }
  double bare_us = median(bare, rounds), one_us = median(one, rounds);
  double two_us = median(two, rounds), eight_us = median(eight, rounds);
  printf("bare       %7.1f us  %6.0f/s\n", bare_us, 1e6 / bare_us);
  printf("1 thread   %7.1f us  %6.0f/s  %.2f x bare\n", one_us, 1e6 / one_us,
         one_us / bare_us);
  printf("2 threads  %7.1f us  %6.0f/s  %.1f x one thread\n", two_us,
         1e6 / two_us, one_us / two_us);
  printf("8 threads  %7.1f us  %6.0f/s  %.1f x one thread\n", eight_us,
         1e6 / eight_us, one_us / eight_us);
  close(fd);
  must(mmcmap_remove(store), "remove");
}

int main(int argc, char **argv) {
  size_t number = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
  if (argc >= 3 && strcmp(argv[1], "load") == 0) {
    load(argv[2], number == 0 ? 1000000 : number);
  } else if (argc >= 3 && strcmp(argv[1], "batch") == 0) {
    batch(argv[2], number == 0 ? 1000000 : number);
  } else if (argc >= 3 && strcmp(argv[1], "moments") == 0) {
    number = number == 0 ? 1000000 : number;
    moments(argv[2], number < CHANGES ? CHANGES : number);
  } else if (argc >= 3 && strcmp(argv[1], "durable") == 0 &&
             number <= ROUNDS_MAX) {
    durable(argv[2], number == 0 ? 31 : number);
  } else {
    fprintf(stderr, "usage: figures load FILE [COUNT]\n"
                    "       figures batch FILE [COUNT]\n"
                    "       figures moments FILE [COUNT]\n"
                    "       figures durable FILE [ROUNDS]\n");
    return 2;
  }
  return 0;
}
