/* SPDX-License-Identifier: MIT */
/*
 * Reads of a store that is loaded and not overwritten yet. Every value is
 * compared with what was put.
 */
#include <stdlib.h>

#include "workloads.h"

enum { MANY = 32 };

static void get(struct worker *worker, size_t index) {
  struct bytes key = data_shuffled_key(worker->data, index);
  struct bytes value = {NULL, 0};
  (void)worker->engine->get(worker->session, key, &value);
  run_check(worker, key, value, 0, 0);
}

void work_get(struct run *run) {
  run_report_timing(run, "get", 1, run_timed(run, 1, run->data->records, get));
}

/* Each of two threads goes over its half, as often as a thread alone would. */
static void get_either(struct worker *worker, size_t index) {
  get(worker, index % worker->data->records);
}

void work_get_threads(struct run *run) {
  if (!(run->engine->traits & ENGINE_READ_THREADS)) return;
  run_report_timing(run, "get", 2,
                    run_timed(run, 2, 2 * run->data->records, get_either));
}

static void miss(struct worker *worker, size_t index) {
  struct bytes key = data_missing_key(worker->data, index, worker->key);
  struct bytes value;
  if (worker->engine->get(worker->session, key, &value))
    run_wrong(worker->run, "a record is there that nobody put");
}

void work_miss(struct run *run) {
  run_report_timing(run, "miss", 1,
                    run_timed(run, 1, run->data->records, miss));
}

/* ---- Many at once --------------------------------------------------------- */

struct many {
  struct worker *worker;
  const struct bytes *keys;
  size_t seen; /* a bit for each */
};

static void check_one(void *context, size_t index, struct bytes value) {
  struct many *many = context;
  run_check(many->worker, many->keys[index], value, 0, 0);
  many->seen |= (size_t)1 << index;
}

static void get_one_by_one(struct worker *worker, const struct bytes *keys,
                           struct many *many) {
  for (size_t i = 0; i < MANY; i++) {
    struct bytes value;
    if (worker->engine->get(worker->session, keys[i], &value))
      check_one(many, i, value);
  }
}

static void get_many(struct worker *worker, size_t index) {
  struct bytes keys[MANY];
  struct many many = {worker, keys, 0};
  for (size_t i = 0; i < MANY; i++)
    keys[i] = data_shuffled_key(worker->data, index * MANY + i);
  if (worker->engine->get_many != NULL)
    worker->engine->get_many(worker->session, keys, MANY, check_one, &many);
  else
    get_one_by_one(worker, keys, &many);
  if (many.seen != ((size_t)1 << MANY) - 1)
    run_wrong(worker->run, "get_many: a record is not there");
}

/* An engine that has no call for it is asked for one after the other. */
void work_get_many(struct run *run) {
  struct timing timing = run_timed(run, 1, run->data->records / MANY, get_many);
  timing.ns /= MANY;
  timing.cpu_ns /= MANY;
  timing.operations *= MANY;
  run_report_timing(run, "get_many_32", 1, timing);
}

/* ---- Snapshots and scans -------------------------------------------------- */

static void snapshot_get(struct worker *worker, size_t index) {
  struct bytes key = data_shuffled_key(worker->data, index);
  struct many many = {worker, &key, 0};
  worker->engine->snapshot_get(worker->session, key, check_one, &many);
  if (many.seen != 1) run_wrong(worker->run, "a record is not in a snapshot");
}

void work_snapshot_get(struct run *run) {
  if (run->engine->snapshot_get == NULL) return;
  run_report_timing(run, "snapshot_get", 1,
                    run_timed(run, 1, run->data->records, snapshot_get));
}

static void sum_record(void *context, struct bytes key, struct bytes value) {
  struct seen *seen = context;
  seen->sum += data_record_sum(key, value);
  seen->count++;
}

static void scan(struct worker *worker, size_t index) {
  struct seen *seen = &worker->run->seen;
  (void)index;
  worker->engine->scan(worker->session, sum_record, seen);
}

void work_scan(struct run *run) {
  const struct data *data = run->data;
  struct seen expected = {0, 0};
  unsigned char *buffer = bench_new(1, data->value_bytes);
  run->seen = (struct seen){0, 0};
  struct timing timing = run_timed(run, 1, 1, scan);
  for (size_t i = 0; i < data->records; i++) {
    struct bytes key = data_key(data, i);
    sum_record(&expected, key, data_value(data, key, 0, buffer));
  }
  free(buffer);
  if (run->seen.count != expected.count || run->seen.sum != expected.sum)
    run_wrong(run, "a scan saw other records than were put");
  timing.ns /= (double)data->records;
  timing.cpu_ns /= (double)data->records;
  timing.operations = data->records;
  run_report_timing(run, "scan", 1, timing);
}
