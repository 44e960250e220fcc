/* SPDX-License-Identifier: MIT */
/*
 * Work: the operations, and the process that does them until it is cut off.
 * Each thread has keys of its own, so its operations alone decide what they
 * hold; every value names the operation that put it and is filled with bytes
 * that follow from that, so half a value, or an old one, is told.
 *
 * A promise is noted once the engine has made it: the call has returned (sync),
 * mmcmap_sync() has, or the durable epoch has passed what was visible before.
 */
#include "power_cut.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* A value begins with it. */
struct value_head {
  uint64_t thread;
  uint64_t slot;
  uint64_t round;
  uint64_t number;
  uint64_t size;
};

struct operation work_operation(uint32_t thread, uint64_t round,
                                uint64_t number) {
  uint64_t dice = mix(mix(round * WORK_THREADS + thread) + number);
  struct operation operation = {
      .thread = thread, .round = round, .number = number};
  operation.slot = (uint32_t)(dice % WORK_SLOTS);
  operation.is_delete = dice >> 16 & 3 ? false : true;
  uint32_t size = (uint32_t)(dice >> 24) & 0xffffff;
  unsigned kind = (unsigned)(dice >> 48) & 1023;
  if (kind < 3)
    size = 200 * 1024 + size % (WORK_VALUE_MAX - 200 * 1024);
  else if (kind < 50)
    size = size % 20000;
  else
    size = size % 250;
  operation.size = size + (uint32_t)sizeof(struct value_head);
  if (operation.size > WORK_VALUE_MAX) operation.size = WORK_VALUE_MAX;
  return operation;
}

size_t work_key(uint32_t thread, uint32_t slot, char key_out[WORK_KEY_MAX]) {
  /* Keys of different lengths, with zeros in them. */
  memset(key_out, 0, WORK_KEY_MAX);
  int length =
      snprintf(key_out, WORK_KEY_MAX, "%c%u/", 'a' + (int)thread, slot);
  return (size_t)length + slot % 9;
}

static uint64_t filler_seed(const struct operation *operation) {
  return mix(mix(operation->round * WORK_THREADS + operation->thread) ^
             operation->number * UINT64_C(0x100000001b3));
}

/* Fills or compares the bytes behind the head; false if they differ. */
static bool fill(uint8_t *bytes, size_t size, uint64_t seed, bool compare) {
  for (size_t at = 0; at < size; at += 8) {
    uint64_t word = mix(seed + at);
    size_t part = size - at < 8 ? size - at : 8;
    if (!compare)
      memcpy(bytes + at, &word, part);
    else if (memcmp(bytes + at, &word, part) != 0)
      return false;
  }
  return true;
}

int work_do(mmcmap *store, const struct operation *operation, void *buffer) {
  char key_bytes[WORK_KEY_MAX];
  mmcmap_slice key = {.data = key_bytes};
  key.size = work_key(operation->thread, operation->slot, key_bytes);
  if (operation->is_delete) {
    int code = mmcmap_delete(store, key);
    return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
  }
  struct value_head head = {operation->thread, operation->slot,
                            operation->round, operation->number,
                            operation->size};
  memcpy(buffer, &head, sizeof head);
  fill((uint8_t *)buffer + sizeof head, operation->size - sizeof head,
       filler_seed(operation), false);
  mmcmap_slice value = {.data = buffer, .size = operation->size};
  return mmcmap_put(store, key, value);
}

void work_apply(const struct operation *operation, work_state state) {
  struct held *held = &state[operation->thread][operation->slot];
  held->round = operation->is_delete ? 0 : operation->round;
  held->number = operation->is_delete ? 0 : operation->number;
}

const char *work_identify(mmcmap_slice key, mmcmap_slice value,
                          struct operation *operation_out) {
  struct value_head head;
  char key_bytes[WORK_KEY_MAX];
  memset(operation_out, 0, sizeof *operation_out);
  if (value.size < sizeof head) return "a value is too short";
  memcpy(&head, value.data, sizeof head);
  if (head.thread >= WORK_THREADS) return "a value is of no thread";
  *operation_out =
      work_operation((uint32_t)head.thread, head.round, head.number);
  if (operation_out->is_delete || operation_out->slot != head.slot ||
      operation_out->size != head.size || head.size != value.size)
    return "a value is not what its operation puts";
  size_t key_size =
      work_key(operation_out->thread, operation_out->slot, key_bytes);
  if (key.size != key_size || memcmp(key.data, key_bytes, key_size) != 0)
    return "a value is under another key";
  /* Not written to when it is to be compared. */
  uint8_t *bytes = (uint8_t *)(uintptr_t)value.data + sizeof head;
  if (!fill(bytes, value.size - sizeof head, filler_seed(operation_out), true))
    return "a value is not whole";
  return NULL;
}

/* ---- The writing process -------------------------------------------------- */

struct worker {
  struct round *round;
  mmcmap *store;
  uint32_t thread;
  bool is_sync;
  pthread_t id;
};

static _Atomic bool is_stopping;

static void note_failure(struct round *round, int code, const char *where) {
  uint64_t none = 0;
  mmcmap_error error;
  mmcmap_last_error(&error);
  if (code == MMCMAP_ENOSPC || code == MMCMAP_EFULL) {
    atomic_store(&round->is_full, true);
    return;
  }
  if (!atomic_compare_exchange_strong(&round->error_ns, &none, now_ns()))
    return;
  snprintf(round->error, sizeof round->error, "%s: %s, %s, errno %d", where,
           mmcmap_error_name(code), error.what == NULL ? "" : error.what,
           error.system_errno);
}

static void raise_to(_Atomic uint64_t *number, uint64_t value) {
  uint64_t now = atomic_load(number);
  while (now < value && !atomic_compare_exchange_weak(number, &now, value)) {
  }
}

static void *write_records(void *context) {
  struct worker *worker = context;
  struct round *round = worker->round;
  struct progress *progress = &round->threads[worker->thread];
  struct chance chance = {.state = mix(round->number) + worker->thread};
  void *buffer = malloc(WORK_VALUE_MAX);
  unsigned sync_every = round->level == WORK_MANUAL ? 200 : 4000;
  uint64_t burst = 0;
  int code = MMCMAP_OK;
  for (uint64_t n = 1; n <= WORK_OPS_MAX && !atomic_load(&is_stopping); n++) {
    struct operation operation =
        work_operation(worker->thread, round->number, n);
    atomic_store(&progress->begun_ns[n], now_ns());
    atomic_store(&progress->begun, n);
    code = work_do(worker->store, &operation, buffer);
    if (code != MMCMAP_OK) break;
    atomic_store(&progress->done_ns[n], now_ns());
    atomic_store(&progress->done, n);
    if (worker->is_sync) raise_to(&progress->promised, n);
    if (chance_below(&chance, sync_every) == 0) {
      code = mmcmap_sync(worker->store);
      if (code != MMCMAP_OK) break;
      raise_to(&progress->promised, n);
    }
    if (worker->is_sync || burst-- > 0) continue;
    burst = chance_below(&chance, 60);
    sleep_us(chance_below(&chance, round->pause_us + 1));
  }
  if (code != MMCMAP_OK) note_failure(round, code, "writing");
  free(buffer);
  return NULL;
}

/* Snapshots while others write: their records are whole, and as many as they
   say. */
static void *read_snapshots(void *context) {
  struct worker *worker = context;
  struct round *round = worker->round;
  while (!atomic_load(&is_stopping)) {
    mmcmap_snapshot *snapshot;
    mmcmap_cursor *cursor;
    mmcmap_slice key, value;
    struct operation operation;
    uint64_t count = 0;
    int code = mmcmap_snapshot_open(worker->store, &snapshot);
    if (code != MMCMAP_OK) {
      note_failure(round, code, "opening a snapshot");
      break;
    }
    code = mmcmap_cursor_open(snapshot, &cursor);
    while (code == MMCMAP_OK &&
           (code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK) {
      const char *wrong = work_identify(key, value, &operation);
      if (wrong != NULL) note_failure(round, MMCMAP_ECORRUPT, wrong);
      count++;
    }
    if (code != MMCMAP_NOTFOUND)
      note_failure(round, code, "iterating");
    else if (count != mmcmap_snapshot_count(snapshot))
      note_failure(round, MMCMAP_ECORRUPT, "counting a snapshot");
    mmcmap_cursor_close(cursor);
    mmcmap_snapshot_close(snapshot);
    sleep_us(3000);
  }
  return NULL;
}

/* Sees how long syncs take: one is under way if more were begun than the
   commits and the superblocks of the beginning account for. */
static void watch_syncs(struct round *round, const mmcmap_stat *stat,
                        uint64_t *least) {
  uint64_t excess = stat->sync_count - stat->commit_count;
  uint64_t since = atomic_load(&round->sync_since_ns);
  uint64_t now = now_ns();
  if (stat->commit_count == 0) return; /* a session begins by syncs, too */
  if (excess < *least) *least = excess;
  if (excess > *least) {
    if (since == 0) atomic_store(&round->sync_since_ns, since = now);
  } else if (since != 0) {
    atomic_store(&round->sync_since_ns, 0);
  }
  if (since != 0) raise_to(&round->longest_sync_ns, now - since);
}

/* Turns what the engine says about its durable epoch into promises. */
static void *watch_promises(void *context) {
  struct worker *worker = context;
  struct round *round = worker->round;
  uint64_t seen[WORK_THREADS], version = 0, least = UINT64_MAX;
  bool is_waiting = false;
  while (!atomic_load(&is_stopping)) {
    mmcmap_stat stat;
    if (!is_waiting) {
      for (int i = 0; i < WORK_THREADS; i++)
        seen[i] = atomic_load(&round->threads[i].done);
      if (mmcmap_version(worker->store, &version) != MMCMAP_OK) break;
      is_waiting = true;
    }
    if (mmcmap_stat_get(worker->store, &stat) != MMCMAP_OK) break;
    watch_syncs(round, &stat, &least);
    if (stat.durable_epoch >= version) {
      for (int i = 0; i < WORK_THREADS; i++)
        raise_to(&round->threads[i].promised, seen[i]);
      is_waiting = false;
    }
    sleep_us(500);
  }
  return NULL;
}

static int open_level(struct round *round, bool is_sync, mmcmap **store_out) {
  mmcmap_options options;
  mmcmap_options_init(&options);
  options.durability = round->level == WORK_MIXED
                           ? (is_sync ? MMCMAP_SYNC : MMCMAP_ASYNC)
                           : round->level;
  options.flush_interval_ms = round->interval_ms;
  int code = mmcmap_open(round->path, &options, store_out);
  if (code != MMCMAP_OK) note_failure(round, code, "opening");
  return code;
}

static _Noreturn void wait_for_the_end(void) {
  for (;;)
    pause();
}

_Noreturn void work_write(struct round *round) {
  struct worker workers[WORK_THREADS + 2];
  int code = MMCMAP_OK;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  atomic_store(&is_stopping, false);
  atomic_store(&round->phase, PHASE_OPENING);
  for (uint32_t i = 0; i < WORK_THREADS + 2; i++) {
    struct worker *worker = &workers[i];
    bool is_sync =
        round->level == WORK_SYNC || (round->level == WORK_MIXED && i % 2 == 0);
    *worker = (struct worker){.round = round, .thread = i, .is_sync = is_sync};
    code = open_level(round, is_sync, &worker->store);
    if (code != MMCMAP_OK) wait_for_the_end();
  }
  atomic_store(&round->phase, PHASE_WRITING);
  for (uint32_t i = 0; i < WORK_THREADS + 2; i++)
    if (pthread_create(&workers[i].id, NULL,
                       i < WORK_THREADS    ? write_records
                       : i == WORK_THREADS ? read_snapshots
                                           : watch_promises,
                       &workers[i]) != 0)
      die("pthread_create");
  sleep_us(UINT64_C(1000) * round->write_ms);
  atomic_store(&is_stopping, true);
  for (uint32_t i = 0; i < WORK_THREADS + 2; i++)
    pthread_join(workers[i].id, NULL);
  atomic_store(&round->phase, PHASE_CLOSING);
  for (uint32_t i = 0; i < WORK_THREADS + 2; i++) {
    code = mmcmap_close(workers[i].store);
    if (code != MMCMAP_OK) note_failure(round, code, "closing");
  }
  /* After a clean close nothing may be lost at all. */
  if (code == MMCMAP_OK && !atomic_load(&round->is_full))
    for (int i = 0; i < WORK_THREADS; i++)
      raise_to(&round->threads[i].promised,
               atomic_load(&round->threads[i].done));
  atomic_store(&round->phase, PHASE_CLOSED);
  wait_for_the_end();
}
