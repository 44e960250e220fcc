/* SPDX-License-Identifier: MIT */
/*
 * See run.h.
 */
#include "run.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY = 64, THREADS_MAX = 64, LINE_BYTES = 256 };

static double seconds_of(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double clock_seconds(void) { return seconds_of(CLOCK_MONOTONIC); }

double status_bytes(const char *field) {
  char line[256];
  double kib = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (file == NULL) bench_fail("driver", "cannot read", "/proc/self/status");
  while (fgets(line, sizeof line, file) != NULL)
    if (strncmp(line, field, strlen(field)) == 0)
      kib = strtod(line + strlen(field), NULL);
  fclose(file);
  return kib * 1024;
}

void run_open(struct run *run) {
  run->store = run->engine->open(&run->setup);
  run->setup.fresh = false;
}

void run_close(struct run *run) {
  run->engine->close(run->store);
  run->store = NULL;
}

_Noreturn void run_wrong(const struct run *run, const char *what) {
  bench_fail(run->engine->name, "WRONG", what);
}

void run_check(const struct worker *worker, struct bytes key,
               struct bytes value, unsigned first, unsigned last) {
  if (!data_is_value(worker->data, key, value, first, last))
    run_wrong(worker->run, value.data == NULL ? "a record is not there"
                                              : "not the value that was put");
}

/* ---- The loop ------------------------------------------------------------- */

struct part {
  struct worker worker;
  work_step *step;
  pthread_barrier_t *start;
  size_t from, to;
  double limit; /* seconds; 0: none */
  double took;
  double took_cpu;
  size_t done;
};

static void worker_attach(struct worker *worker, struct run *run, size_t thread,
                          size_t threads) {
  *worker = (struct worker){.run = run,
                            .data = run->data,
                            .engine = run->engine,
                            .random = thread * 7919 + 17,
                            .thread = thread,
                            .threads = threads};
  worker->key = bench_new(1, run->data->key_bytes);
  worker->value = bench_new(1, run->data->value_bytes);
  worker->session = run->engine->attach(run->store);
}

static void worker_detach(struct worker *worker) {
  worker->engine->detach(worker->session);
  free(worker->key);
  free(worker->value);
}

static void *run_part(void *context) {
  struct part *part = context;
  struct worker *worker = &part->worker;
  size_t i = part->from;
  worker_attach(worker, worker->run, worker->thread, worker->threads);
  if (part->start != NULL) pthread_barrier_wait(part->start);
  double begin_cpu = seconds_of(CLOCK_THREAD_CPUTIME_ID);
  double begin = clock_seconds(), now = begin;
  while (i < part->to) {
    size_t stop = part->to - i < LOOK_EVERY ? part->to : i + LOOK_EVERY;
    /* What syncs is slow enough to be looked at each time. */
    if (worker->run->setup.durable) stop = i + 1;
    for (; i < stop; i++)
      part->step(worker, i);
    now = clock_seconds();
    if (part->limit > 0 && now - begin > part->limit) break;
  }
  part->took = now - begin;
  part->took_cpu = seconds_of(CLOCK_THREAD_CPUTIME_ID) - begin_cpu;
  part->done = i - part->from;
  worker_detach(worker);
  return NULL;
}

static struct timing run_parts(struct run *run, size_t threads, size_t count,
                               work_step *step, double limit) {
  pthread_t ids[THREADS_MAX];
  struct part parts[THREADS_MAX];
  pthread_barrier_t start;
  struct timing timing = {0};
  double took = 0, took_cpu = 0;
  pthread_barrier_init(&start, NULL, (unsigned)threads);
  for (size_t i = 0; i < threads; i++) {
    parts[i] = (struct part){.step = step,
                             .start = &start,
                             .from = count * i / threads,
                             .to = count * (i + 1) / threads,
                             .limit = limit};
    parts[i].worker.run = run;
    parts[i].worker.thread = i;
    parts[i].worker.threads = threads;
  }
  /* One thread is this one: some engines look at who calls. */
  for (size_t i = 1; i < threads; i++)
    if (pthread_create(&ids[i], NULL, run_part, &parts[i]) != 0)
      bench_fail("driver", "no thread", NULL);
  run_part(&parts[0]);
  for (size_t i = 1; i < threads; i++)
    pthread_join(ids[i], NULL);
  pthread_barrier_destroy(&start);
  for (size_t i = 0; i < threads; i++) {
    took += parts[i].took;
    took_cpu += parts[i].took_cpu;
    timing.operations += parts[i].done;
  }
  timing.first_done = parts[0].done;
  if (timing.operations > 0) {
    timing.ns = took / (double)timing.operations * 1e9;
    timing.cpu_ns = took_cpu / (double)timing.operations * 1e9;
  }
  return timing;
}

struct timing run_timed(struct run *run, size_t threads, size_t count,
                        work_step *step) {
  return run_parts(run, threads, count, step, run->seconds);
}

void run_untimed(struct run *run, size_t count, work_step *step) {
  (void)run_parts(run, 1, count, step, 0);
}

/* ---- Results -------------------------------------------------------------- */

void run_report(const struct run *run, const char *workload, size_t threads,
                const char *unit, double value, size_t operations) {
  char line[LINE_BYTES];
  int size = snprintf(line, sizeof line, "%s %zu %s %.4f %zu\n", workload,
                      threads, unit, value, operations);
  /* Short enough to be one piece. */
  if (size < 0 || write(run->result_fd, line, (size_t)size) != size)
    bench_fail("driver", "no parent", NULL);
}

void run_report_timing(const struct run *run, const char *workload,
                       size_t threads, struct timing timing) {
  if (timing.operations == 0) return;
  run_report(run, workload, threads, "ns", timing.ns, timing.operations);
  run_report(run, workload, threads, "cpu_ns", timing.cpu_ns,
             timing.operations);
}
