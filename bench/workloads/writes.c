/* SPDX-License-Identifier: MIT */
/*
 * Puts and deletes that need not be on disk when they return. What was written
 * is read again, without a clock.
 */
#include <stdlib.h>

#include "workloads.h"

enum { BATCH = 1000, READS_PERCENT = 80 };

/* ---- Loading -------------------------------------------------------------- */

static void put_new(struct worker *worker, size_t index) {
  struct bytes key = data_key(worker->data, index);
  worker->engine->put(worker->session, key,
                      data_value(worker->data, key, 0, worker->value));
}

static void put_batch(struct worker *worker, size_t index) {
  struct bytes keys[BATCH], values[BATCH];
  size_t first = index * BATCH, size = worker->data->value_bytes;
  static unsigned char *buffers;
  if (buffers == NULL) buffers = bench_new(BATCH, size);
  for (size_t i = 0; i < BATCH; i++) {
    keys[i] = data_key(worker->data, first + i);
    values[i] = data_value(worker->data, keys[i], 0, buffers + i * size);
  }
  worker->engine->put_batch(worker->session, keys, values, BATCH);
}

/* Where an engine is so slow that time is up, the rest follows without. */
static void put_rest(struct run *run, size_t from) {
  struct worker worker = {.run = run, .data = run->data, .engine = run->engine};
  worker.value = bench_new(1, run->data->value_bytes);
  worker.session = run->engine->attach(run->store);
  while (from < run->data->records) {
    if (run->engine->put_batch != NULL && from % BATCH == 0 &&
        run->data->records - from >= BATCH) {
      put_batch(&worker, from / BATCH);
      from += BATCH;
    } else {
      put_new(&worker, from++);
    }
  }
  run->engine->detach(worker.session);
  free(worker.value);
}

void work_load(struct run *run) {
  struct timing timing = run_timed(run, 1, run->data->records, put_new);
  run_report_timing(run, "put", 1, timing);
  put_rest(run, timing.operations);
}

/* ---- Transactions --------------------------------------------------------- */

static void check_loaded(struct worker *worker, size_t index) {
  struct bytes key = data_key(worker->data, index), value = {NULL, 0};
  (void)worker->engine->get(worker->session, key, &value);
  run_check(worker, key, value, 0, 0);
}

void work_batch(struct run *run) {
  size_t batches = run->data->records / BATCH;
  if (run->engine->put_batch == NULL || batches == 0) return;
  struct timing timing = run_timed(run, 1, batches, put_batch);
  timing.ns /= BATCH;
  timing.cpu_ns /= BATCH;
  timing.operations *= BATCH;
  run_report_timing(run, "batch_1000", 1, timing);
  run_untimed(run, timing.operations, check_loaded);
}

/* ---- Overwriting ---------------------------------------------------------- */

static void overwrite(struct worker *worker, size_t index) {
  struct bytes key = data_shuffled_key(worker->data, index);
  worker->engine->put(worker->session, key,
                      data_value(worker->data, key, 1, worker->value));
}

static void check_overwritten(struct worker *worker, size_t index) {
  struct bytes key = data_shuffled_key(worker->data, index);
  struct bytes value = {NULL, 0};
  unsigned version = index < worker->run->overwritten;
  (void)worker->engine->get(worker->session, key, &value);
  run_check(worker, key, value, version, version);
}

void work_overwrite(struct run *run) {
  struct timing timing = run_timed(run, 1, run->data->records, overwrite);
  run_report_timing(run, "overwrite", 1, timing);
  run->overwritten = timing.operations;
  run_untimed(run, run->data->records, check_overwritten);
}

static void mix(struct worker *worker, size_t index) {
  const struct data *data = worker->data;
  uint64_t number = random_next(&worker->random);
  struct bytes value = {NULL, 0};
  struct bytes key = data_shuffled_key(data, index % data->records);
  if (number % 100 >= READS_PERCENT) {
    value = data_value(data, key, 2, worker->value);
    worker->engine->put(worker->session, key, value);
    return;
  }
  (void)worker->engine->get(worker->session, key, &value);
  run_check(worker, key, value, 0, 2);
}

/* The same records in both threads, half of them apart. */
void work_mixed_threads(struct run *run) {
  if (!(run->engine->traits & ENGINE_WRITE_THREADS)) return;
  size_t count = run->data->records + run->data->records / 2;
  run_report_timing(run, "mixed_80_20", 2, run_timed(run, 2, count, mix));
}

/* ---- Deleting ------------------------------------------------------------- */

static void erase(struct worker *worker, size_t index) {
  if (!worker->engine->erase(worker->session,
                             data_shuffled_key(worker->data, index)))
    run_wrong(worker->run, "a record to be deleted is not there");
}

static void check_deleted(struct worker *worker, size_t index) {
  struct bytes value;
  if (worker->engine->get(worker->session,
                          data_shuffled_key(worker->data, index), &value))
    run_wrong(worker->run, "a record that was deleted is there");
}

void work_delete(struct run *run) {
  struct timing timing = run_timed(run, 1, run->data->records, erase);
  run_report_timing(run, "delete", 1, timing);
  run_untimed(run, timing.operations, check_deleted);
}
