/* SPDX-License-Identifier: MIT */
/*
 * Histories: a program that has threads of several processes change few keys,
 * and checks that all they saw is linearizable.
 *
 *   history PATH SECONDS PROCESSES THREADS KEYS [--snapshots] [--transactions]
 *           [--durability=async|sync|manual] [--seed=N] [--breaks=N]
 *
 * Each process opens the store for itself. Each thread is a client: it calls
 * what HISTORY_CALLS lists, with keys and values of chance, and writes down
 * each call with the times before and after it. Now and then all clients pause
 * and the first one reads all keys: there the checker cuts the history
 * (linearizable.h). When a log is full, the clients wait while the parent
 * checks all that was done. With --snapshots, clients also read all keys of a
 * snapshot, which must be those of one moment. With --transactions, every other
 * key lies in a named map, and clients move amounts between two keys, or abort
 * that, having read both.
 *
 * BREAKS are those of base/testing.h, in a test build: then faults should be
 * found. Prints what was checked; its exit status is 1 if the history is wrong,
 * a client failed or more than one window in a hundred is undecided (which
 * comes with joint checks and more than 16 clients), 2 for wrong arguments, 3 for
 * breaks in another build.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/testing.h"
#include "history_log.h"
#include "linearizable.h"
#include "mmcmap.h"
#include "os/process.h"

/*
 * CALL(kind, how often, what to call). `map` is that of the key. `key` and `value`
 * are slices; `expected` points to one, or is NULL: absent. history_done() takes
 * the code of what is done (MMCMAP_OK) or not (MMCMAP_NOTFOUND, MMCMAP_MISMATCH);
 * history_value() of what puts a value into self->buffer. `wanted` points to
 * `value`, or is NULL: it is to be deleted.
 */
#define HISTORY_CALLS(CALL) \
  CALL(GET, 40, history_value(self, mmcmap_get(map, key, &self->buffer))) \
  CALL(HAS, 8, history_done(self, mmcmap_has(map, key))) \
  CALL(PUT, 36, history_done(self, mmcmap_put(map, key, value))) \
  CALL(DELETE, 16, history_done(self, mmcmap_delete(map, key))) \
  CALL(ADD, 10, history_done(self, mmcmap_add(map, key, value))) \
  CALL(REPLACE, 10, history_done(self, mmcmap_replace(map, key, value))) \
  CALL(CAS, 24, history_done(self, mmcmap_cas(map, key, expected, wanted))) \
  CALL(SWAP, 10, history_swap(self, map, key, value)) \
  CALL(INCR, 16, history_incr(self, map, key, &operation))

enum {
  HISTORY_ROUND = 1000,         /* calls of a client between two pauses */
  HISTORY_JOINT_ROUND = 1600,   /* if the check is joint: of all clients */
  HISTORY_SNAPSHOT_ONE_IN = 16, /* with --snapshots: of all calls */
  HISTORY_MOVE_ONE_IN = 6,      /* with --transactions: of all calls */
  HISTORY_SYNC_ONE_IN = 2000,
  HISTORY_CLIENTS_MAX = 48, /* fewer than LINEARIZABLE_OPEN_MAX */
  HISTORY_PATIENCE_S = 60,  /* then the clients hang */
  HISTORY_NUMBER_BYTES = 24
};

struct history_client {
  struct history_shared *shared;
  struct history_log *log;
  mmcmap *store;
  mmcmap *map; /* of every other key, with --transactions */
  uint16_t number;
  uint64_t random;
  uint64_t written;            /* values made up so far */
  struct operation *operation; /* under way */
  mmcmap_buffer buffer;
  uint64_t seen[LINEARIZABLE_KEYS_MAX]; /* for what a cas expects */
};

/* As the arguments say; never changed after the first fork. */
static struct {
  const char *path;
  unsigned seconds, processes, threads, keys, durability, breaks;
  uint64_t seed;
  bool snapshots, transactions;
} history_run;

static bool history_is_joint(void) {
  return history_run.snapshots || history_run.transactions;
}

static const mmcmap_slice history_map_name = {"map", 3};

static bool history_is_in_map(unsigned key) {
  return history_run.transactions && key % 2 == 1;
}

static uint64_t history_deadline_ns;
static pid_t history_children[HISTORY_CLIENTS_MAX]; /* 0: gone */

static void history_fault(struct history_shared *shared, const char *what,
                          int code) {
  mmcmap_error last;
  mmcmap_last_error(&last);
  if (atomic_fetch_add(&shared->faults, 1) < 10)
    printf("FAULT: %s: %s (%s)\n", what, mmcmap_error_name(code),
           code == MMCMAP_OK ? "" : last.what);
  atomic_store(&shared->is_aborted, true);
}

static unsigned history_random(struct history_client *self, unsigned below) {
  self->random =
      self->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
  return (unsigned)(self->random >> 33) % below;
}

/* ---- Keys and values --------------------------------------------------- */

static mmcmap_slice history_key(unsigned key, char *text) {
  int size = snprintf(text, HISTORY_NUMBER_BYTES, "key %u", key);
  return (mmcmap_slice){.data = text, .size = (size_t)size};
}

static mmcmap_slice history_number(uint64_t number, char *text) {
  int size = snprintf(text, HISTORY_NUMBER_BYTES, "%" PRIu64, number);
  return (mmcmap_slice){.data = text, .size = (size_t)size};
}

/* OPERATION_ABSENT if it is no number: no client ever writes that. */
static uint64_t history_parse(const void *data, size_t size) {
  const char *digits = data;
  uint64_t number = 0;
  if (size == 0 || size > 19) return OPERATION_ABSENT;
  for (size_t i = 0; i < size; i++) {
    if (digits[i] < '0' || digits[i] > '9') return OPERATION_ABSENT;
    number = number * 10 + (uint64_t)(digits[i] - '0');
  }
  return number;
}

/* ---- Calls ------------------------------------------------------------- */

/* First of all when a call has returned. */
static void history_end(struct history_client *self, int code,
                        uint64_t result) {
  struct operation *operation = self->operation;
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND && code != MMCMAP_MISMATCH) {
    history_fault(self->shared, operation_name(operation->kind), code);
    return;
  }
  operation->result = result;
  operation->is_unknown = false;
}

static void history_done(struct history_client *self, int code) {
  self->operation->end_ns = process_monotonic_ns();
  history_end(self, code, code == MMCMAP_OK);
}

static void history_value(struct history_client *self, int code) {
  uint64_t value = OPERATION_ABSENT;
  self->operation->end_ns = process_monotonic_ns();
  if (code == MMCMAP_OK) {
    value = history_parse(self->buffer.data, self->buffer.size);
    if (value == OPERATION_ABSENT)
      history_fault(self->shared, "a value is no number", MMCMAP_OK);
  }
  history_end(self, code, value);
  self->seen[self->operation->key] = value;
}

static void history_swap(struct history_client *self, mmcmap *map,
                         mmcmap_slice key, mmcmap_slice value) {
  bool found;
  int code = mmcmap_swap(map, key, value, &self->buffer, &found);
  if (code == MMCMAP_OK && !found) code = MMCMAP_NOTFOUND;
  history_value(self, code);
}

static void history_incr(struct history_client *self, mmcmap *map,
                         mmcmap_slice key, const struct operation *operation) {
  mmcmap_number by = {.integer = (int64_t)operation->argument};
  mmcmap_number init = {.integer = (int64_t)operation->expected};
  mmcmap_number sum;
  int code = mmcmap_incr(map, key, by, init, &sum);
  self->operation->end_ns = process_monotonic_ns();
  history_end(self, code, (uint64_t)sum.integer);
  self->seen[self->operation->key] = (uint64_t)sum.integer;
}

/* A number that nobody else makes up. */
static uint64_t history_fresh(struct history_client *self) {
  return ++self->written * self->shared->client_count + self->number;
}

/* The operation with its arguments, but for the times. */
static struct operation history_make(struct history_client *self,
                                     enum operation_kind kind, unsigned key) {
  struct operation operation = {.key = (uint16_t)key,
                                .client = self->number,
                                .kind = (uint8_t)kind,
                                .expected = OPERATION_ABSENT,
                                .argument = history_fresh(self)};
  if (kind == OPERATION_INCR) {
    operation.argument = 1 + history_random(self, 9);
    operation.expected = history_random(self, 3);
  } else if (kind == OPERATION_CAS) {
    operation.expected = self->seen[key];
    if (history_random(self, 4) == 0) operation.argument = OPERATION_ABSENT;
  }
  return operation;
}

static void history_call(struct history_client *self, enum operation_kind kind,
                         unsigned key_number) {
  char texts[3][HISTORY_NUMBER_BYTES];
  struct operation operation = history_make(self, kind, key_number);
  mmcmap *map = history_is_in_map(key_number) ? self->map : self->store;
  mmcmap_slice key = history_key(key_number, texts[0]);
  mmcmap_slice value = history_number(operation.argument, texts[1]);
  mmcmap_slice expects = history_number(operation.expected, texts[2]);
  const mmcmap_slice *expected =
      operation.expected == OPERATION_ABSENT ? NULL : &expects;
  const mmcmap_slice *wanted =
      operation.argument == OPERATION_ABSENT ? NULL : &value;
  operation.begin_ns = process_monotonic_ns();
  self->operation = history_log_add(self->log, &operation, 1);
  if (self->operation == NULL) abort();
  switch (kind) {
#define HISTORY_CASE(name, often, call) \
  case OPERATION_##name: \
    call; \
    break;
    HISTORY_CALLS(HISTORY_CASE)
    default:
      abort();
  }
}

/* What was read, or with MMCMAP_NOTFOUND was not there. */
static uint64_t history_read(struct history_client *self, int code,
                             mmcmap_slice value) {
  if (code != MMCMAP_OK) return OPERATION_ABSENT;
  uint64_t number = history_parse(value.data, value.size);
  if (number == OPERATION_ABSENT)
    history_fault(self->shared, "a value that was read is no number",
                  MMCMAP_OK);
  return number;
}

static int history_read_snapshot(struct history_client *self,
                                 mmcmap_snapshot *snapshot,
                                 struct operation *parts) {
  char text[HISTORY_NUMBER_BYTES];
  mmcmap_snapshot *map;
  int code = mmcmap_snapshot_map(snapshot, history_map_name, &map);
  for (unsigned i = 0; i < history_run.keys; i++) {
    mmcmap_slice value;
    if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) break;
    code = mmcmap_snapshot_get(history_is_in_map(i) ? map : snapshot,
                               history_key(i, text), &value);
    parts[i].result = history_read(self, code, value);
  }
  mmcmap_snapshot_close(map);
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

/* Its moment is that of the opening; it may be read later. */
static void history_snapshot(struct history_client *self) {
  struct operation operation = {.kind = OPERATION_SNAPSHOT,
                                .client = self->number};
  mmcmap_snapshot *snapshot;
  operation.begin_ns = process_monotonic_ns();
  struct operation *parts =
      history_log_add(self->log, &operation, history_run.keys);
  if (parts == NULL) abort();
  int code = mmcmap_snapshot_open(self->store, &snapshot);
  uint64_t end_ns = process_monotonic_ns();
  if (code == MMCMAP_OK) {
    if (history_random(self, 8) == 0) process_sleep_ms(1);
    code = history_read_snapshot(self, snapshot, parts);
    mmcmap_snapshot_close(snapshot);
  }
  if (code != MMCMAP_OK) {
    history_fault(self->shared, "snapshot", code);
    return;
  }
  for (unsigned i = 0; i < history_run.keys; i++) {
    parts[i].end_ns = end_ns;
    parts[i].is_unknown = false;
  }
}

/* ---- Transactions ------------------------------------------------------ */

/* What a transaction does to its two keys: an amount is moved from the first to
   the second, if that is possible, else they are made. */
static void history_plan(struct history_client *self, struct operation *parts) {
  uint64_t from = parts[0].result, to = parts[1].result;
  uint64_t amount = 1 + history_random(self, 9);
  bool can_move = from != OPERATION_ABSENT && to != OPERATION_ABSENT;
  can_move = can_move && from >= amount;
  parts[0].argument = can_move ? from - amount : history_fresh(self);
  parts[1].argument = can_move ? to + amount : history_fresh(self);
}

static int history_put_part(mmcmap_txn *txn, unsigned key, uint64_t value) {
  char texts[2][HISTORY_NUMBER_BYTES];
  return mmcmap_txn_put(txn, history_key(key, texts[0]),
                        history_number(value, texts[1]));
}

/* Puts both, at times a second time after the first was undone. */
static int history_put_parts(struct history_client *self, mmcmap_txn *txn,
                             mmcmap_txn *const maps[2],
                             const struct operation *parts) {
  size_t savepoint;
  int code = MMCMAP_OK;
  if (history_random(self, 4) == 0) {
    code = mmcmap_txn_savepoint(txn, &savepoint);
    for (unsigned i = 0; i < 2 && code == MMCMAP_OK; i++)
      code = history_put_part(maps[i], parts[i].key, history_fresh(self));
    if (code == MMCMAP_OK) code = mmcmap_txn_rollback_to(txn, savepoint);
  }
  for (unsigned i = 0; i < 2 && code == MMCMAP_OK; i++)
    code = history_put_part(maps[i], parts[i].key, parts[i].argument);
  return code;
}

static int history_work(struct history_client *self, mmcmap_txn *txn,
                        struct operation *parts) {
  char text[HISTORY_NUMBER_BYTES];
  mmcmap_txn *map, *maps[2];
  int code = mmcmap_txn_map(txn, history_map_name, &map);
  for (unsigned i = 0; i < 2; i++) {
    mmcmap_slice value;
    if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return code;
    maps[i] = history_is_in_map(parts[i].key) ? map : txn;
    code = mmcmap_txn_get(maps[i], history_key(parts[i].key, text), &value);
    parts[i].result = history_read(self, code, value);
  }
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return code;
  history_plan(self, parts);
  return history_put_parts(self, txn, maps, parts);
}

/* One that is aborted has read two keys at one moment. */
static void history_transaction(struct history_client *self) {
  struct operation operation = {.kind = OPERATION_MOVE,
                                .client = self->number,
                                .begin_ns = process_monotonic_ns()};
  mmcmap_txn *txn;
  struct operation *parts = history_log_add(self->log, &operation, 2);
  if (parts == NULL) abort();
  parts[0].key = (uint16_t)history_random(self, history_run.keys);
  parts[1].key = (uint16_t)((parts[0].key + 1 +
                             history_random(self, history_run.keys - 1)) %
                            history_run.keys);
  bool aborts = history_random(self, 6) == 0;
  if (aborts) parts[0].kind = parts[1].kind = OPERATION_SNAPSHOT;
  int code = mmcmap_txn_begin(self->store, &txn);
  if (code == MMCMAP_OK) code = history_work(self, txn, parts);
  if (code == MMCMAP_OK && !aborts)
    code = mmcmap_txn_commit(txn);
  else
    mmcmap_txn_abort(txn);
  uint64_t end_ns = process_monotonic_ns();
  if (code != MMCMAP_OK) {
    history_fault(self->shared, "transaction", code);
    return;
  }
  for (unsigned i = 0; i < 2; i++) {
    parts[i].end_ns = end_ns;
    parts[i].is_unknown = false;
    self->seen[parts[i].key] = aborts ? parts[i].result : parts[i].argument;
  }
}

/* ---- One call of chance ------------------------------------------------ */

static void history_call_any(struct history_client *self) {
#define HISTORY_OFTEN(name, often, call) +often
  unsigned all = HISTORY_CALLS(HISTORY_OFTEN);
  unsigned key = history_random(self, history_run.keys);
  unsigned pick = history_random(self, all);
  if (history_random(self, HISTORY_SYNC_ONE_IN) == 0) {
    int code = mmcmap_sync(self->store);
    if (code != MMCMAP_OK) history_fault(self->shared, "sync", code);
  }
  if (history_run.snapshots &&
      history_random(self, HISTORY_SNAPSHOT_ONE_IN) == 0) {
    history_snapshot(self);
    return;
  }
  if (history_run.transactions &&
      history_random(self, HISTORY_MOVE_ONE_IN) == 0) {
    history_transaction(self);
    return;
  }
#define HISTORY_PICK(name, often, call) \
  if (pick < (often)) { \
    history_call(self, OPERATION_##name, key); \
    return; \
  } \
  pick -= (often);
  HISTORY_CALLS(HISTORY_PICK)
}

/* In a test build, writers dawdle at times where a change is about to be seen,
   or has just been: so that more overlaps. */
#ifdef MMCMAP_DEBUG_CHECKS
static void history_dawdle(const char *point) {
  static _Thread_local uint32_t state;
  (void)point;
  state = state * 1664525 + 1013904223;
  if (state >> 26 == 0)
    sched_yield();
  else if (state >> 23 == 300)
    process_sleep_ms(1);
}
#endif

/* ---- Clients ----------------------------------------------------------- */

/* Joint checks need short windows. */
static unsigned history_round(void) {
  unsigned shared =
      HISTORY_JOINT_ROUND / (history_run.processes * history_run.threads);
  return history_is_joint() && shared < HISTORY_ROUND ? shared : HISTORY_ROUND;
}

/* All clients pause; the first one reads all keys, and at times hands the logs
   over. False at the end. */
static bool history_pause(struct history_client *self) {
  struct history_shared *shared = self->shared;
  if (!history_log_meet(shared)) return false;
  if (self->number == 0) {
    size_t round = (history_round() + 2) * (size_t)history_run.keys;
    for (unsigned key = 0; key < history_run.keys; key++)
      history_call(self, OPERATION_GET, key);
    if (process_monotonic_ns() >= history_deadline_ns)
      atomic_store(&shared->is_over, true);
    if (atomic_load(&shared->is_over) || !history_log_has_room(shared, round))
      history_log_hand_over(shared);
  }
  return history_log_meet(shared) && !atomic_load(&shared->is_over);
}

static void *history_be_client(void *context) {
  struct history_client *self = context;
  while (history_pause(self))
    for (unsigned i = 0; i < history_round(); i++) {
      if (atomic_load(&self->shared->is_aborted)) break;
      history_call_any(self);
    }
  mmcmap_buffer_free(&self->buffer);
  return NULL;
}

/* ---- Processes --------------------------------------------------------- */

static void history_start_clients(struct history_shared *shared, mmcmap *store,
                                  mmcmap *map, unsigned process) {
  static struct history_client clients[HISTORY_CLIENTS_MAX];
  pthread_t threads[HISTORY_CLIENTS_MAX];
  unsigned started = 0;
  for (; started < history_run.threads; started++) {
    struct history_client *client = &clients[started];
    unsigned number = process * history_run.threads + started;
    *client = (struct history_client){
        .shared = shared,
        .log = &shared->logs[number],
        .store = store,
        .map = map,
        .number = (uint16_t)number,
        .random = (history_run.seed + number) * UINT64_C(0x9e3779b97f4a7c15)};
    if (pthread_create(&threads[started], NULL, history_be_client, client) !=
        0) {
      history_fault(shared, "no thread", MMCMAP_ENOMEM);
      break;
    }
  }
  for (unsigned i = 0; i < started; i++)
    pthread_join(threads[i], NULL);
}

/* What a child does. */
static void history_be_process(struct history_shared *shared,
                               unsigned process) {
  mmcmap_options options;
  mmcmap *store, *map;
  mmcmap_options_init(&options);
  options.durability = (int)history_run.durability;
#ifdef MMCMAP_DEBUG_CHECKS
  testing_breaks = history_run.breaks;
  testing_hook = history_dawdle;
#endif
  int code = mmcmap_open(history_run.path, &options, &store);
  if (code == MMCMAP_OK) code = mmcmap_map(store, history_map_name, &map);
  if (code != MMCMAP_OK) {
    history_fault(shared, "open", code);
    return;
  }
  history_start_clients(shared, store, map, process);
  code = mmcmap_close(map);
  if (code == MMCMAP_OK) code = mmcmap_close(store);
  if (code != MMCMAP_OK) history_fault(shared, "close", code);
}

static unsigned history_start_processes(struct history_shared *shared) {
  unsigned started = 0;
  for (; started < history_run.processes; started++) {
    pid_t pid = fork();
    if (pid == 0) {
      history_be_process(shared, started);
      fflush(stdout);
      _exit(0);
    }
    if (pid < 0) {
      history_fault(shared, "no process", MMCMAP_ENOMEM);
      break;
    }
    history_children[started] = pid;
  }
  return started;
}

/* True if a child has ended; it may have to be said how. */
static bool history_reap(struct history_shared *shared) {
  int status;
  pid_t pid = waitpid(-1, &status, WNOHANG);
  if (pid <= 0) return false;
  for (unsigned i = 0; i < history_run.processes; i++)
    if (history_children[i] == pid) history_children[i] = 0;
  if (WIFSIGNALED(status)) {
    char what[64];
    snprintf(what, sizeof what, "a process was ended by signal %d",
             WTERMSIG(status));
    history_fault(shared, what, MMCMAP_OK);
  } else if (WEXITSTATUS(status) != 0) {
    history_fault(shared, "a process has failed", MMCMAP_OK);
  }
  return true;
}

/* ---- Checking ---------------------------------------------------------- */

struct history_sum {
  bool has_begun; /* `values` are known */
  uint64_t values[LINEARIZABLE_KEYS_MAX];
  size_t operations, windows, in_windows, longest_window, undecided_windows;
  bool is_wrong;
  unsigned widest;
  uint64_t visited, checker_ns;
};

/* The first thing ever called is client 0's reading of all keys. */
static bool history_begin(const struct history_shared *shared,
                          struct history_sum *sum) {
  const struct history_log *log = &shared->logs[0];
  if (sum->has_begun) return true;
  if (atomic_load(&log->count) < history_run.keys) return false;
  for (unsigned key = 0; key < history_run.keys; key++) {
    if (log->operations[key].is_unknown) return false;
    sum->values[key] = log->operations[key].result;
  }
  sum->has_begun = true;
  return true;
}

/* Checks what is in the logs, and empties them. */
static void history_check(struct history_shared *shared,
                          struct history_sum *sum) {
  struct linearizable_result result;
  uint64_t begin_ns = process_monotonic_ns();
  size_t count;
  if (!history_begin(shared, sum)) return;
  struct operation *operations = history_log_gather(shared, &count);
  if (operations == NULL) {
    history_fault(shared, "check", MMCMAP_ENOMEM);
    return;
  }
  linearizable_check_all(operations, count, history_run.keys,
                         history_is_joint(), sum->values, stdout, &result);
  free(operations);
  for (unsigned i = 0; i < shared->client_count; i++)
    atomic_store(&shared->logs[i].count, 0);
  sum->operations += count;
  sum->windows += result.windows;
  sum->in_windows += result.in_windows;
  sum->visited += result.visited;
  if (result.longest_window > sum->longest_window)
    sum->longest_window = result.longest_window;
  if (result.widest > sum->widest) sum->widest = result.widest;
  sum->undecided_windows += result.undecided_windows;
  if (result.verdict == LINEARIZABLE_WRONG) {
    sum->is_wrong = true;
    atomic_store(&shared->is_aborted, true);
  }
  sum->checker_ns += process_monotonic_ns() - begin_ns;
}

/* Ends processes that have not met for long: a call of theirs does not return.
   `last_ns` is when they met last. */
static void history_end_hanging(struct history_shared *shared, unsigned *turn,
                                uint64_t *last_ns) {
  uint64_t now_ns = process_monotonic_ns();
  if (*turn != atomic_load(&shared->turn)) {
    *turn = atomic_load(&shared->turn);
    *last_ns = now_ns;
  }
  if (now_ns - *last_ns < HISTORY_PATIENCE_S * UINT64_C(1000000000)) return;
  history_fault(shared, "the clients hang", MMCMAP_OK);
  for (unsigned i = 0; i < history_run.processes; i++)
    if (history_children[i] != 0) kill(history_children[i], SIGKILL);
  *last_ns = now_ns;
}

/* While there are processes; what they left at a sudden end, too. */
static void history_watch(struct history_shared *shared, unsigned processes,
                          struct history_sum *sum) {
  uint64_t last_ns = process_monotonic_ns();
  unsigned turn = 0;
  while (processes > 0) {
    while (processes > 0 && history_reap(shared))
      processes--;
    if (atomic_load(&shared->filled) != atomic_load(&shared->checked)) {
      history_check(shared, sum);
      atomic_store(&shared->checked, atomic_load(&shared->filled));
      last_ns = process_monotonic_ns();
    }
    history_end_hanging(shared, &turn, &last_ns);
    process_sleep_ms(1);
  }
  if (!sum->is_wrong) history_check(shared, sum);
}

/* ---- The program ------------------------------------------------------- */

static bool history_option(const char *word) {
  static const char *const durabilities[] = {"async", "sync", "manual"};
  const char *value = strchr(word, '=');
  value = value == NULL ? "" : value + 1;
  if (strcmp(word, "--snapshots") == 0) {
    history_run.snapshots = true;
    return true;
  }
  if (strcmp(word, "--transactions") == 0) {
    history_run.transactions = true;
    return true;
  }
  if (strncmp(word, "--seed=", 7) == 0) {
    history_run.seed = strtoull(value, NULL, 0);
    return true;
  }
  if (strncmp(word, "--breaks=", 9) == 0) {
    history_run.breaks = (unsigned)strtoul(value, NULL, 0);
    return true;
  }
  if (strncmp(word, "--durability=", 13) != 0) return false;
  for (unsigned i = 0; i < 3; i++) {
    if (strcmp(value, durabilities[i]) != 0) continue;
    history_run.durability = i;
    return true;
  }
  return false;
}

static bool history_arguments(int argc, char **argv) {
  unsigned *numbers[] = {&history_run.seconds, &history_run.processes,
                         &history_run.threads, &history_run.keys};
  if (argc < 6) return false;
  history_run.path = argv[1];
  history_run.seed = process_monotonic_ns() % 1000000007;
  for (int i = 0; i < 4; i++)
    *numbers[i] = (unsigned)strtoul(argv[i + 2], NULL, 10);
  for (int i = 6; i < argc; i++)
    if (!history_option(argv[i])) return false;
  return history_run.processes > 0 && history_run.threads > 0 &&
         history_run.processes <= HISTORY_CLIENTS_MAX &&
         history_run.threads <= HISTORY_CLIENTS_MAX &&
         history_run.processes * history_run.threads <= HISTORY_CLIENTS_MAX &&
         history_run.keys > (history_run.transactions ? 1 : 0) &&
         history_run.keys <= LINEARIZABLE_KEYS_MAX;
}

/* A window in a hundred may be undecided. */
static bool history_tell(const struct history_shared *shared,
                         const struct history_sum *sum, uint64_t begin_ns) {
  double checker = (double)sum->checker_ns / 1e9;
  double all = (double)(process_monotonic_ns() - begin_ns) / 1e9;
  unsigned long faults = atomic_load(&shared->faults);
  const char *verdict = "linearizable";
  if (sum->undecided_windows > 0 &&
      sum->undecided_windows >= sum->windows / 100)
    verdict = "UNDECIDED";
  if (faults > 0) verdict = "FAILED";
  if (sum->is_wrong) verdict = "WRONG";
  printf("seed %" PRIu64 ", operations %zu (%.0f a second), overlapping %zu in "
         "%zu windows, longest %zu, undecided %zu, widest %u, states %" PRIu64
         ", checker %.2f s, faults %lu: %s\n",
         history_run.seed, sum->operations,
         (double)sum->operations / (all - checker), sum->in_windows,
         sum->windows, sum->longest_window, sum->undecided_windows, sum->widest,
         sum->visited, checker, faults, verdict);
  return strcmp(verdict, "linearizable") == 0;
}

int main(int argc, char **argv) {
  struct history_sum sum = {0};
  if (!history_arguments(argc, argv)) return 2;
#ifndef MMCMAP_DEBUG_CHECKS
  if (history_run.breaks != 0) return 3; /* nothing can be broken */
#endif
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  struct history_shared *shared =
      history_log_share(history_run.processes * history_run.threads);
  if (shared == NULL) return 2;
  uint64_t begin_ns = process_monotonic_ns();
  history_deadline_ns = begin_ns + history_run.seconds * UINT64_C(1000000000);
  history_watch(shared, history_start_processes(shared), &sum);
  return history_tell(shared, &sum, begin_ns) ? 0 : 1;
}
