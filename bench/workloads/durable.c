/* SPDX-License-Identifier: MIT */
/*
 * Puts of new records, each on disk when the call returns, by 1, 2 and 8
 * threads. What they report is the time for one put by the wall clock, whatever
 * the number of threads: its inverse is puts per second.
 */
#include "workloads.h"

enum { WARM_UP = 50, PHASES = 3 };

static struct bytes key_at(const struct worker *worker, size_t index) {
  return data_key(worker->data, worker->run->first + index);
}

static void put_next(struct worker *worker, size_t index) {
  struct bytes key = key_at(worker, index);
  worker->engine->put(worker->session, key,
                      data_value(worker->data, key, 0, worker->value));
}

static void check_put(struct worker *worker, size_t index) {
  struct bytes key = key_at(worker, index), value = {NULL, 0};
  (void)worker->engine->get(worker->session, key, &value);
  run_check(worker, key, value, 0, 0);
}

/* Each number of threads has a third of the records, and each thread a part of
   that. Those of the first thread are checked. */
void work_durable(struct run *run) {
  const size_t threads[PHASES] = {1, 2, 8};
  const size_t count = run->data->records / PHASES;
  const bool checks = !(run->engine->traits & ENGINE_BARE);
  run_untimed(run, WARM_UP < count ? WARM_UP : count, put_next);
  for (size_t i = 0; i < PHASES; i++) {
    if (threads[i] > 1 && !(run->engine->traits & ENGINE_WRITE_THREADS)) return;
    run->first = i * count;
    struct timing timing = run_timed(run, threads[i], count, put_next);
    timing.ns /= (double)threads[i];
    timing.cpu_ns /= (double)threads[i];
    run_report_timing(run, "durable_put", threads[i], timing);
    if (checks) run_untimed(run, timing.first_done, check_put);
  }
}
