/* SPDX-License-Identifier: MIT */
/*
 * What reading costs, measured on the machine at hand:
 *
 *   reads FILE [COUNT]   a store of COUNT keys of 32 random letters
 *                        (1,000,000), value = key: opening and closing a
 *                        snapshot; get_many against get; the
 *                        difference of two snapshots; what a pin costs; two
 *                        threads that read; one that reads beside one that
 *                        writes; how soon another process sees a put
 *
 * Every value is checked. FILE is made and removed. Let nothing else run
 * meanwhile, and compare figures of one run only.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

/* ---- Beside others ------------------------------------------------------- */

/* What a thread does until it is told to stop, and how often it has. */
struct work {
  void (*once)(struct work *work);
  mmcmap *store;
  mmcmap_snapshot *snapshot;
  const struct keys *keys;
  uint64_t random_state;
  mmcmap_buffer value;
  double each_ns; /* of the thread's own time on a processor */
  uint64_t count;
};

static atomic_bool stops;

static mmcmap_slice next_key(struct work *work) {
  work->random_state ^= work->random_state << 13;
  work->random_state ^= work->random_state >> 7;
  work->random_state ^= work->random_state << 17;
  return key_at(work->keys,
                (size_t)(work->random_state >> 11) % work->keys->count);
}

static void check_own_value(const struct work *work, mmcmap_slice key) {
  must_hold(work->value.size == key.size &&
                memcmp(work->value.data, key.data, key.size) == 0,
            "a wrong value");
}

static void get_once(struct work *work) {
  mmcmap_slice key = next_key(work);
  must(mmcmap_get(work->store, key, &work->value), "get");
  check_own_value(work, key);
}

static void get_sealed_once(struct work *work) {
  mmcmap_slice key = next_key(work);
  must(mmcmap_snapshot_read(work->snapshot, key, &work->value), "read");
  check_own_value(work, key);
}

static void put_once(struct work *work) {
  mmcmap_slice key = next_key(work);
  must(mmcmap_put(work->store, key, key), "put");
}

static void spin_once(struct work *work) { (void)next_key(work); }

static double thread_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void *run_work(void *context) {
  struct work *work = context;
  double begin = thread_ns();
  for (; !atomic_load_explicit(&stops, memory_order_relaxed); work->count++)
    work->once(work);
  work->each_ns = (thread_ns() - begin) / (double)work->count;
  return NULL;
}

/* Does both at once for a while, or the first alone if there is no other. The
   processors' time counts: there may be more to do than there are of them. */
static void run_both(struct work *work, struct work *other) {
  const struct timespec while_ = {0, 400000000};
  pthread_t threads[2];
  struct work *works[2] = {work, other};
  int count = other == NULL ? 1 : 2;
  atomic_store(&stops, false);
  for (int i = 0; i < count; i++) {
    works[i]->count = 0;
    must_hold(pthread_create(&threads[i], NULL, run_work, works[i]) == 0,
              "no thread");
  }
  nanosleep(&while_, NULL);
  atomic_store(&stops, true);
  for (int i = 0; i < count; i++)
    pthread_join(threads[i], NULL);
}

static int compare_doubles(const void *a, const void *b) {
  const double *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

enum { PAIRS = 15 };

static double median(double *values) {
  qsort(values, PAIRS, sizeof values[0], compare_doubles);
  return values[PAIRS / 2];
}

/* Figures of one round are compared with each other; then medians. */
static void measure_beside(mmcmap *store, const struct keys *keys) {
  struct work reader = {.once = get_once, .store = store, .keys = keys};
  struct work second = reader, sealed = reader, writer = reader, busy = reader;
  double get[PAIRS], pin[PAIRS], two[PAIRS], loop[PAIRS], beside[PAIRS],
      puts[PAIRS];
  struct work *works[] = {&reader, &second, &sealed, &writer, &busy};
  for (size_t i = 0; i < sizeof works / sizeof works[0]; i++)
    works[i]->random_state = 88172645463325252u + i;
  sealed.once = get_sealed_once;
  writer.once = put_once;
  busy.once = spin_once;
  for (int i = 0; i < PAIRS; i++) {
    must(mmcmap_snapshot_open(store, &sealed.snapshot), "snapshot");
    run_both(&sealed, NULL);
    mmcmap_snapshot_close(sealed.snapshot);
    run_both(&reader, NULL);
    double alone = get[i] = reader.each_ns;
    pin[i] = alone - sealed.each_ns;
    run_both(&reader, &second);
    two[i] = alone / reader.each_ns + alone / second.each_ns;
    run_both(&reader, &busy);
    loop[i] = reader.each_ns / alone;
    double beside_loop = reader.each_ns;
    run_both(&reader, &writer);
    beside[i] = reader.each_ns / beside_loop;
    puts[i] = writer.each_ns;
    must(mmcmap_sync(store), "sync");
  }
  printf("get                                %7.0f ns\n", median(get));
  printf("get - the same of a snapshot       %7.0f ns\n", median(pin));
  printf("two threads that get               %7.2f of one\n", median(two));
  printf("a get beside a loop                %7.2f of one alone\n",
         median(loop));
  printf("a get beside puts                  %7.2f of one beside a loop\n",
         median(beside));
  printf("those puts                         %7.0f ns\n", median(puts));
  for (size_t i = 0; i < sizeof works / sizeof works[0]; i++)
    mmcmap_buffer_free(&works[i]->value);
}

/* ---- Another process ----------------------------------------------------- */

/* A page that both see. */
struct meeting {
  _Atomic uint64_t begun; /* the number of the put that has begun, */
  _Atomic uint64_t done;  /* and of the last that has returned */
  _Atomic uint64_t seen;  /* the last that the other has found */
};

static uint64_t number_of(mmcmap *store, mmcmap_buffer *value) {
  uint64_t number;
  must(mmcmap_get(store, (mmcmap_slice){"ball", 4}, value), "get");
  must_hold(value->size == sizeof number, "a wrong value");
  memcpy(&number, value->data, sizeof number);
  return number;
}

/* The child: looks until it sees each. Whoever looks when the put has returned must
   see it. */
static void watch(mmcmap *store, struct meeting *meeting, uint64_t last) {
  static mmcmap_buffer value;
  for (uint64_t seen = 0; seen < last;) {
    uint64_t done = atomic_load(&meeting->done);
    uint64_t found = number_of(store, &value);
    must_hold(found >= done, "a put that had returned was not seen");
    must_hold(found >= seen && found <= atomic_load(&meeting->begun),
              "a number that was not put");
    seen = found;
    atomic_store(&meeting->seen, seen);
  }
}

static void measure_another_process(mmcmap *store) {
  enum { PUTS = 100000, RARELY = 1000 };
  static double waits[PUTS];
  struct meeting *meeting = mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  uint64_t number = 0;
  must_hold(meeting != MAP_FAILED, "no memory");
  mmcmap_slice key = {"ball", 4}, value = {&number, sizeof number};
  must(mmcmap_put(store, key, value), "put");
  fflush(stdout);
  pid_t child = fork();
  must_hold(child >= 0, "fork");
  if (child == 0) {
    watch(store, meeting, PUTS);
    _exit(0);
  }
  for (number = 1; number <= PUTS; number++) {
    double begin = now_ns();
    atomic_store(&meeting->begun, number);
    must(mmcmap_put(store, key, value), "put");
    atomic_store(&meeting->done, number);
    while (atomic_load(&meeting->seen) < number)
      ;
    waits[number - 1] = now_ns() - begin;
  }
  int status;
  must_hold(waitpid(child, &status, 0) == child && status == 0, "the child");
  qsort(waits, PUTS, sizeof waits[0], compare_doubles);
  printf("a put and another process's look   %7.0f ns, 1 in %d %.0f ns\n",
         waits[PUTS / 2], RARELY, waits[PUTS - PUTS / RARELY]);
  munmap(meeting, sizeof *meeting);
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
  measure_beside(store, &keys);
  measure_another_process(store);
  measure_diff(store, &keys, 1);
  measure_diff(store, &keys, 1000);
  must(mmcmap_remove(store), "remove");
  free(keys.bytes);
  return 0;
}
