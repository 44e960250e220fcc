/* SPDX-License-Identifier: MIT */
/*
 * Readers against writers: a program of its own, so that a thread sanitizer
 * can watch it (build with -fsanitize=thread and -DMMCMAP_ONE_VIEW).
 *
 *   stress PATH SECONDS READERS WRITERS [BREAKS [PROCESSES]]
 *
 * Writers put and delete few keys, each its own, as fast as they can; every
 * value says whose it is, which put it was, how long it is, and ends with a
 * checksum. Readers take any of them and see to it that
 *   - no read fails, and every value is whole and the key's own;
 *   - a key that is never deleted is always there;
 *   - a key never goes back to what it was;
 * snapshots are walked twice and must not have changed. One more writer fills and
 * drops two maps: one by calls, so that some first keys of one round are there,
 * and one in a transaction, so that all keys of one round are always there.
 * Threads come and go;
 * one thread syncs at times, so that there are both long epochs, in which
 * nodes are recycled, and many seals. BREAKS are those of base/testing.h, in a
 * test build: then the faults should be found. With TESTING_POISON among them,
 * which is none, who reads memory that is used again meets poison.
 *
 * If there are PROCESSES, it is they that read, each with so many threads; they
 * open the store on their own, again and again, every other one read-only.
 *
 * Prints what it did; its exit status is 1 if anything was wrong.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/testing.h"
#include "os/process.h"
#include "os/thread.h"
#include "store.h"

enum {
  STRESS_KEYS = 96,       /* of all writers together */
  STRESS_FLICKERING = 32, /* the first of them are deleted at times */
  STRESS_MAP_KEYS = 40,   /* of each map */
  STRESS_FILL_BYTES = 1200,
  STRESS_THREADS_MAX = 64,
  STRESS_PROCESSES_MAX = 32,
  STRESS_VISIT_MS = 250, /* how long a process has the store open */
  STRESS_HEADER_BYTES = 16,
  STRESS_TRAILER_BYTES = 8
};

struct stress_value {
  uint32_t key;
  uint32_t size;
  uint64_t number; /* of the put */
  uint8_t rest[STRESS_FILL_BYTES + STRESS_TRAILER_BYTES];
};

_Static_assert(offsetof(struct stress_value, rest) == STRESS_HEADER_BYTES,
               "the header has no holes");

static const mmcmap_slice stress_partial_name = {"partial", 7};
static const mmcmap_slice stress_whole_name = {"whole", 5};

static mmcmap *stress_store;
static mmcmap *stress_partial, *stress_whole; /* maps of it */
static unsigned stress_writers;
static atomic_bool stress_stops;
static atomic_ulong stress_gets, stress_puts, stress_snapshots, stress_syncs;
static atomic_ulong stress_drops;
static atomic_ulong stress_faults;

static void stress_fault(const char *what, unsigned key, int code) {
  mmcmap_error last;
  mmcmap_last_error(&last);
  if (atomic_fetch_add(&stress_faults, 1) < 10)
    printf("FAULT: %s, key %u: %s (%s at %#llx)\n", what, key,
           mmcmap_error_name(code), code == MMCMAP_OK ? "" : last.what,
           (unsigned long long)last.offset);
}

static uint32_t stress_random(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
  return (uint32_t)(*state >> 33);
}

static mmcmap_slice stress_key(unsigned key, char text[16]) {
  snprintf(text, 16, "key %u", key);
  return (mmcmap_slice){.data = text, .size = strlen(text)};
}

/* ---- Values ------------------------------------------------------------ */

static mmcmap_slice stress_make(unsigned key, uint64_t number, uint64_t *state,
                                struct stress_value *value) {
  uint32_t fill = stress_random(state) % 8 == 0
                      ? stress_random(state) % STRESS_FILL_BYTES
                      : 40 + 8 * (stress_random(state) % 4);
  value->key = key;
  value->number = number;
  value->size = STRESS_HEADER_BYTES + fill + STRESS_TRAILER_BYTES;
  memset(value->rest, (int)(number * 7 + key), fill);
  uint64_t sum = hash_plain_checksum(value, STRESS_HEADER_BYTES + fill);
  memcpy(value->rest + fill, &sum, sizeof sum);
  return (mmcmap_slice){.data = value, .size = value->size};
}

/* The number of the put that made the value; 0 if it is not whole. */
static uint64_t stress_look(unsigned key, const void *data, size_t size) {
  struct stress_value value;
  uint64_t sum;
  if (size < STRESS_HEADER_BYTES + STRESS_TRAILER_BYTES || size > sizeof value)
    return 0;
  memcpy(&value, data, size);
  memcpy(&sum, (const uint8_t *)&value + size - STRESS_TRAILER_BYTES,
         sizeof sum);
  if (value.key != key || value.size != size ||
      sum != hash_plain_checksum(&value, size - STRESS_TRAILER_BYTES))
    return 0;
  return value.number;
}

/* ---- Threads ----------------------------------------------------------- */

static void *stress_write(void *context) {
  unsigned first = *(const unsigned *)context;
  uint64_t state = first + 1, number = 1;
  struct stress_value value;
  char text[16];
  while (!atomic_load(&stress_stops)) {
    for (unsigned key = first; key < STRESS_KEYS; key += stress_writers) {
      mmcmap_slice slice = stress_key(key, text);
      bool deletes = key < STRESS_FLICKERING && stress_random(&state) % 4 == 0;
      int code = deletes
                     ? mmcmap_delete(stress_store, slice)
                     : mmcmap_put(stress_store, slice,
                                  stress_make(key, ++number, &state, &value));
      if (code != MMCMAP_OK && !(deletes && code == MMCMAP_NOTFOUND))
        stress_fault("a change failed", key, code);
    }
    atomic_fetch_add(&stress_puts, STRESS_KEYS / stress_writers);
  }
  return NULL;
}

/* Refills the map that is always whole. */
static int stress_replace_map(uint64_t number, uint64_t *state) {
  struct stress_value value;
  mmcmap_txn *txn, *map;
  char text[16];
  int code = mmcmap_txn_begin(stress_store, &txn);
  if (code != MMCMAP_OK) return code;
  code = mmcmap_txn_drop(txn, stress_whole_name);
  if (code == MMCMAP_NOTFOUND) code = MMCMAP_OK; /* the first time */
  if (code == MMCMAP_OK) code = mmcmap_txn_map(txn, stress_whole_name, &map);
  for (unsigned key = 0; key < STRESS_MAP_KEYS && code == MMCMAP_OK; key++)
    code = mmcmap_txn_put(map, stress_key(key, text),
                          stress_make(key, number, state, &value));
  if (code == MMCMAP_OK) return mmcmap_txn_commit(txn);
  mmcmap_txn_abort(txn);
  return code;
}

static void *stress_drop(void *context) {
  uint64_t state = 3, number = 1;
  struct stress_value value;
  char text[16];
  (void)context;
  while (!atomic_load(&stress_stops)) {
    int code = MMCMAP_OK;
    number++;
    for (unsigned key = 0; key < STRESS_MAP_KEYS && code == MMCMAP_OK; key++)
      code = mmcmap_put(stress_partial, stress_key(key, text),
                        stress_make(key, number, &state, &value));
    if (code == MMCMAP_OK)
      code = mmcmap_drop(stress_store, stress_partial_name);
    if (code == MMCMAP_OK) code = stress_replace_map(number, &state);
    if (code != MMCMAP_OK) stress_fault("a map is not refilled", 0, code);
    atomic_fetch_add(&stress_drops, 2);
  }
  return NULL;
}

/* Keys of a map that is refilled never go back to an earlier round. */
static void stress_read_map(mmcmap *map, uint64_t *state, uint64_t *round,
                            mmcmap_buffer *buffer) {
  char text[16];
  unsigned key = stress_random(state) % STRESS_MAP_KEYS;
  int code = mmcmap_get(map, stress_key(key, text), buffer);
  if (code == MMCMAP_NOTFOUND && map == stress_partial) return;
  if (code != MMCMAP_OK) {
    stress_fault("a get of a map failed", key, code);
    return;
  }
  uint64_t number = stress_look(key, buffer->data, buffer->size);
  if (number == 0) stress_fault("a map's value is not whole", key, MMCMAP_OK);
  if (number < *round) stress_fault("a map went back", key, MMCMAP_OK);
  *round = number;
}

static void stress_read_some(uint64_t *state, uint64_t seen[STRESS_KEYS],
                             mmcmap_buffer *buffer) {
  char text[16];
  for (int i = 0; i < 200; i++) {
    unsigned key = stress_random(state) % STRESS_KEYS;
    int code = mmcmap_get(stress_store, stress_key(key, text), buffer);
    if (code == MMCMAP_NOTFOUND && key < STRESS_FLICKERING) continue;
    if (code != MMCMAP_OK) {
      stress_fault("a get failed", key, code);
      continue;
    }
    uint64_t number = stress_look(key, buffer->data, buffer->size);
    if (number == 0)
      stress_fault("a value is not whole", key, MMCMAP_OK);
    else if (number < seen[key])
      stress_fault("a key went back", key, MMCMAP_OK);
    seen[key] = number;
  }
  atomic_fetch_add(&stress_gets, 200);
}

static void *stress_read(void *context) {
  uint64_t state = 77 + *(const unsigned *)context, seen[STRESS_KEYS] = {0};
  uint64_t partial = 0, whole = 0;
  mmcmap_buffer buffer = {NULL, 0, 0};
  while (!atomic_load(&stress_stops)) {
    stress_read_some(&state, seen, &buffer);
    for (int i = 0; i < 20; i++) {
      stress_read_map(stress_partial, &state, &partial, &buffer);
      stress_read_map(stress_whole, &state, &whole, &buffer);
    }
  }
  mmcmap_buffer_free(&buffer);
  return NULL;
}

/* One walk: a number for all that was there, in its order. */
static uint64_t stress_walk(mmcmap_snapshot *snapshot, uint64_t *count_out) {
  mmcmap_cursor *cursor;
  mmcmap_slice key, value;
  uint64_t sum = 0;
  *count_out = 0;
  int code = mmcmap_cursor_open(snapshot, &cursor);
  if (code != MMCMAP_OK) {
    stress_fault("no cursor", 0, code);
    return 0;
  }
  while ((code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK) {
    char text[16] = {0};
    memcpy(text, key.data, key.size < 15 ? key.size : 15);
    unsigned number = (unsigned)strtoul(text + 4, NULL, 10);
    uint64_t put = stress_look(number, value.data, value.size);
    if (put == 0) stress_fault("a value of a snapshot", number, MMCMAP_OK);
    sum = sum * 31 + number * 1000003 + put;
    ++*count_out;
  }
  if (code != MMCMAP_NOTFOUND) stress_fault("a walk failed", 0, code);
  mmcmap_cursor_close(cursor);
  return sum;
}

/* A map of a snapshot: the first keys of one round, or all of them. */
static void stress_walk_map(mmcmap_snapshot *snapshot, mmcmap_slice name,
                            bool is_whole) {
  mmcmap_snapshot *map;
  mmcmap_slice value;
  uint64_t round = 0, count = 0;
  char text[16];
  int code = mmcmap_snapshot_map(snapshot, name, &map);
  if (code != MMCMAP_OK) {
    stress_fault("no map of a snapshot", 0, code);
    return;
  }
  for (unsigned key = 0; key < STRESS_MAP_KEYS; key++) {
    code = mmcmap_snapshot_get(map, stress_key(key, text), &value);
    if (code != MMCMAP_OK) break;
    uint64_t number = stress_look(key, value.data, value.size);
    if (number == 0 || (round != 0 && number != round))
      stress_fault("a map of two rounds", key, MMCMAP_OK);
    round = number;
    count++;
  }
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND)
    stress_fault("a get of a snapshot's map failed", 0, code);
  if (count != mmcmap_snapshot_count(map) ||
      (is_whole && count != STRESS_MAP_KEYS))
    stress_fault("a map is not whole", (unsigned)count, MMCMAP_OK);
  mmcmap_snapshot_close(map);
}

static void *stress_take_snapshots(void *context) {
  (void)context;
  while (!atomic_load(&stress_stops)) {
    mmcmap_snapshot *snapshot;
    uint64_t first_count, second_count;
    int code = mmcmap_snapshot_open(stress_store, &snapshot);
    if (code != MMCMAP_OK) {
      stress_fault("no snapshot", 0, code);
      continue;
    }
    uint64_t first = stress_walk(snapshot, &first_count);
    stress_walk_map(snapshot, stress_partial_name, false);
    process_sleep_ms(5);
    stress_walk_map(snapshot, stress_whole_name, true);
    uint64_t second = stress_walk(snapshot, &second_count);
    if (first != second || first_count != second_count ||
        first_count != mmcmap_snapshot_count(snapshot))
      stress_fault("a snapshot changed", 0, MMCMAP_OK);
    mmcmap_snapshot_close(snapshot);
    atomic_fetch_add(&stress_snapshots, 1);
  }
  return NULL;
}

static void *stress_read_once(void *context) {
  uint64_t state = *(const unsigned *)context, seen[STRESS_KEYS] = {0};
  mmcmap_buffer buffer = {NULL, 0, 0};
  stress_read_some(&state, seen, &buffer);
  mmcmap_buffer_free(&buffer);
  return NULL;
}

/* Syncs, and lets a thread read that ends at once. */
static void *stress_sync(void *context) {
  unsigned number = 0;
  (void)context;
  while (!atomic_load(&stress_stops)) {
    pthread_t thread;
    process_sleep_ms(number++ % 8 == 0 ? 100 : 3);
    int code = mmcmap_sync(stress_store);
    if (code != MMCMAP_OK) stress_fault("a sync failed", 0, code);
    atomic_fetch_add(&stress_syncs, 1);
    if (pthread_create(&thread, NULL, stress_read_once, &number) == 0)
      pthread_join(thread, NULL);
  }
  return NULL;
}

/* ---- A run -------------------------------------------------------------- */

static int stress_fill(void) {
  struct stress_value value;
  uint64_t state = 5;
  char text[16];
  for (unsigned key = 0; key < STRESS_KEYS; key++) {
    int code = mmcmap_put(stress_store, stress_key(key, text),
                          stress_make(key, 1, &state, &value));
    if (code != MMCMAP_OK) return code;
  }
  /* A run that was killed may have left it, with the values of its last round. */
  int code = mmcmap_drop(stress_store, stress_partial_name);
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return code;
  return stress_replace_map(1, &state);
}

/* `writers` are none in a process that only reads; it does not sync either. */
static void stress_run(unsigned milliseconds, unsigned readers,
                       unsigned writers) {
  pthread_t threads[2 * STRESS_THREADS_MAX + 3];
  unsigned numbers[2 * STRESS_THREADS_MAX];
  size_t count = 0;
  atomic_store(&stress_stops, false);
  for (unsigned i = 0; i < readers + writers; i++) {
    bool writes = i < writers;
    numbers[i] = writes ? i : i - writers;
    if (pthread_create(&threads[count], NULL,
                       writes ? stress_write : stress_read, &numbers[i]) == 0)
      count++;
  }
  if (writers > 0 &&
      pthread_create(&threads[count], NULL, stress_sync, NULL) == 0)
    count++;
  if (writers > 0 &&
      pthread_create(&threads[count], NULL, stress_drop, NULL) == 0)
    count++;
  if (pthread_create(&threads[count], NULL, stress_take_snapshots, NULL) == 0)
    count++;
  process_sleep_ms(milliseconds);
  atomic_store(&stress_stops, true);
  for (size_t i = 0; i < count; i++)
    pthread_join(threads[i], NULL);
}

static int stress_open(const char *path, bool readonly) {
  static const struct store_internals internals = {
      .segment_size = SEGMENT_SIZE_MIN,
      .primary_mask = UINT64_MAX,
      .secondary_mask = UINT64_MAX};
  mmcmap_options options;
  mmcmap_options_init(&options);
  options.durability = MMCMAP_MANUAL;
  options.readonly = readonly;
  int code = mmcmap_open_with(path, &options, &internals, &stress_store);
  if (code == MMCMAP_OK)
    code = mmcmap_map(stress_store, stress_partial_name, &stress_partial);
  if (code == MMCMAP_OK)
    code = mmcmap_map(stress_store, stress_whole_name, &stress_whole);
  return code;
}

static int stress_close(void) {
  int code = mmcmap_close(stress_partial);
  if (code == MMCMAP_OK) code = mmcmap_close(stress_whole);
  return code == MMCMAP_OK ? mmcmap_close(stress_store) : code;
}

static void stress_report(const char *who, const mmcmap_stat *stat) {
  printf("%s: gets %lu, puts %lu, drops %lu, snapshots %lu, syncs %lu, "
         "recycled %llu, "
         "log %llu, faults %lu\n",
         who, atomic_load(&stress_gets), atomic_load(&stress_puts),
         atomic_load(&stress_drops), atomic_load(&stress_snapshots),
         atomic_load(&stress_syncs), (unsigned long long)stat->recycled_bytes,
         (unsigned long long)stat->log_bytes, atomic_load(&stress_faults));
  fflush(stdout);
}

/* ---- Processes that read ------------------------------------------------- */

/* Opens the store, reads, and closes it, until `end_ns`. */
static void stress_visit(const char *path, uint64_t end_ns, unsigned readers,
                         bool readonly) {
  while (process_monotonic_ns() < end_ns) {
    int code = stress_open(path, readonly);
    if (code != MMCMAP_OK) {
      stress_fault("a process cannot open the store", 0, code);
      return;
    }
    stress_run(STRESS_VISIT_MS, readers, 0);
    code = stress_close();
    if (code != MMCMAP_OK)
      stress_fault("a process cannot close the store", 0, code);
  }
}

/* Begins when the other end of `gate_fd` is closed. */
static _Noreturn void stress_be_a_process(const char *path, unsigned number,
                                          unsigned seconds, unsigned readers,
                                          int gate_fd) {
  static const mmcmap_stat none;
  char who[32], byte;
  while (read(gate_fd, &byte, 1) > 0)
    continue;
  stress_visit(path, process_monotonic_ns() + seconds * UINT64_C(1000000000),
               readers, number % 2 == 1);
  snprintf(who, sizeof who, "process %u", number);
  stress_report(who, &none);
  _exit(atomic_load(&stress_faults) == 0 ? 0 : 1);
}

/* Before this process has a thread, or the store open. */
static void stress_start_processes(const char *path, unsigned count,
                                   unsigned seconds, unsigned readers,
                                   pid_t processes[STRESS_PROCESSES_MAX],
                                   int *gate_fd_out) {
  int fds[2];
  *gate_fd_out = -1;
  if (count == 0 || pipe(fds) != 0) return;
  for (unsigned i = 0; i < count; i++) {
    processes[i] = fork();
    if (processes[i] != 0) continue;
    close(fds[1]);
    stress_be_a_process(path, i, seconds, readers, fds[0]);
  }
  close(fds[0]);
  *gate_fd_out = fds[1];
}

static void stress_await_processes(const pid_t *processes, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    int status;
    if (processes[i] <= 0 || waitpid(processes[i], &status, 0) < 0 ||
        !WIFEXITED(status) || WEXITSTATUS(status) != 0)
      stress_fault("a process has ended badly", i, MMCMAP_OK);
  }
}

/* ---- The program --------------------------------------------------------- */

#ifdef MMCMAP_DEBUG_CHECKS
/* Time for a reader to meet the poison. */
static void stress_linger(const char *point) {
  if (strcmp(point, "recycled") != 0) return;
  for (int i = 0; i < 200; i++)
    thread_pause();
}
#endif

/* False if nothing can be broken in this build. */
static bool stress_break(uint64_t breaks) {
#ifdef MMCMAP_DEBUG_CHECKS
  testing_breaks = breaks;
  testing_hook = stress_linger;
  return true;
#else
  return breaks == 0;
#endif
}

int main(int argc, char **argv) {
  pid_t processes[STRESS_PROCESSES_MAX];
  int gate_fd;
  if (argc < 5) return 2;
  unsigned seconds = (unsigned)strtoul(argv[2], NULL, 10);
  unsigned readers = (unsigned)strtoul(argv[3], NULL, 10);
  stress_writers = (unsigned)strtoul(argv[4], NULL, 10);
  uint64_t breaks = argc > 5 ? strtoull(argv[5], NULL, 0) : 0;
  unsigned count = argc > 6 ? (unsigned)strtoul(argv[6], NULL, 10) : 0;
  if (readers > STRESS_THREADS_MAX || stress_writers == 0 ||
      stress_writers > STRESS_THREADS_MAX || count > STRESS_PROCESSES_MAX)
    return 2;
  if (!stress_break(breaks)) return 3;
  stress_start_processes(argv[1], count, seconds, readers, processes, &gate_fd);
  int code = stress_open(argv[1], false);
  if (code == MMCMAP_OK) code = stress_fill();
  if (code != MMCMAP_OK) {
    stress_fault("the store cannot be filled", 0, code);
    return 2;
  }
  if (gate_fd >= 0) close(gate_fd);
  stress_run(seconds * 1000, count > 0 ? 0 : readers, stress_writers);
  stress_await_processes(processes, count);
  mmcmap_stat stat;
  mmcmap_stat_get(stress_store, &stat);
  code = stress_close();
  if (code != MMCMAP_OK) stress_fault("the store cannot be closed", 0, code);
  stress_report("all", &stat);
  return atomic_load(&stress_faults) == 0 ? 0 : 1;
}
