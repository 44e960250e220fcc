/* SPDX-License-Identifier: MIT */
/*
 * The workloads of the Yahoo! Cloud Serving Benchmark (Cooper et al., 2010), by
 * one thread: which record is asked for follows Zipf's law.
 *   A  50 % reads, 50 % updates        D  95 % reads of the newest, 5 % inserts
 *   B  95 % reads, 5 % updates         E  95 % scans of up to 100, 5 % inserts
 *   C  reads                           F  50 % reads, 50 % read, change, write
 */
#include "workloads.h"

enum { RANGE_MAX = 100 };

static struct bytes zipf_key(const struct worker *worker, size_t index) {
  const struct data *data = worker->data;
  return data_key(data, data->zipf[index % data->zipf_count]);
}

static void read_key(struct worker *worker, struct bytes key) {
  struct bytes value = {NULL, 0};
  (void)worker->engine->get(worker->session, key, &value);
  run_check(worker, key, value, 0, 2);
}

static void update_key(struct worker *worker, struct bytes key) {
  unsigned version = 1 + (unsigned)(random_next(&worker->random) & 1);
  worker->engine->put(worker->session, key,
                      data_value(worker->data, key, version, worker->value));
}

/* False: there is no key left. */
static bool insert_next(struct worker *worker) {
  const struct data *data = worker->data;
  struct run *run = worker->run;
  if (run->inserted == data->extra) return false;
  struct bytes key = data_key(data, data->records + run->inserted);
  worker->engine->put(worker->session, key,
                      data_value(data, key, 0, worker->value));
  run->inserted++;
  return true;
}

static bool falls(struct worker *worker, unsigned percent) {
  return random_next(&worker->random) % 100 < percent;
}

static void read_or_update(struct worker *worker, size_t index,
                           unsigned reads_percent) {
  struct bytes key = zipf_key(worker, index);
  if (falls(worker, reads_percent))
    read_key(worker, key);
  else
    update_key(worker, key);
}

static void a(struct worker *worker, size_t index) {
  read_or_update(worker, index, 50);
}

static void b(struct worker *worker, size_t index) {
  read_or_update(worker, index, 95);
}

static void c(struct worker *worker, size_t index) {
  read_key(worker, zipf_key(worker, index));
}

/* The newest is asked for most, so the law is over the age. */
static void d(struct worker *worker, size_t index) {
  const struct data *data = worker->data;
  if (!falls(worker, 95) && insert_next(worker)) return;
  size_t there = data->records + worker->run->inserted;
  size_t age = data->zipf_age[index % data->zipf_count];
  read_key(worker, data_key(data, there - 1 - age));
}

struct checked {
  struct worker *worker;
  size_t count;
};

static void check_record(void *context, struct bytes key, struct bytes value) {
  struct checked *checked = context;
  run_check(checked->worker, key, value, 0, 2);
  checked->count++;
}

static void e(struct worker *worker, size_t index) {
  struct checked checked = {worker, 0};
  if (!falls(worker, 95) && insert_next(worker)) return;
  size_t count = 1 + random_next(&worker->random) % RANGE_MAX;
  worker->engine->range(worker->session, zipf_key(worker, index), count,
                        check_record, &checked);
  if (checked.count == 0 || checked.count > count)
    run_wrong(worker->run, "a range of another size");
}

static void f(struct worker *worker, size_t index) {
  struct bytes key = zipf_key(worker, index);
  read_key(worker, key);
  if (falls(worker, 50)) update_key(worker, key);
}

static void measure(struct run *run, const char *name, work_step *step) {
  run_report_timing(run, name, 1,
                    run_timed(run, 1, run->data->zipf_count, step));
}

void work_ycsb_a(struct run *run) { measure(run, "ycsb_a", a); }
void work_ycsb_b(struct run *run) { measure(run, "ycsb_b", b); }
void work_ycsb_c(struct run *run) { measure(run, "ycsb_c", c); }
void work_ycsb_d(struct run *run) { measure(run, "ycsb_d", d); }
void work_ycsb_f(struct run *run) { measure(run, "ycsb_f", f); }

void work_ycsb_e(struct run *run) {
  if (run->engine->range != NULL) measure(run, "ycsb_e", e);
}
