/* SPDX-License-Identifier: MIT */
/*
 * One engine in one round: what a workload is given, and the loop that times it.
 * A run has a process of its own, so that engines do not share a heap and the
 * peak of memory is the engine's. Results go to the parent through a pipe.
 */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include "data.h"
#include "engine.h"

/* What a scan has seen. */
struct seen {
  uint64_t sum;
  size_t count;
};

struct run {
  const struct engine *engine;
  const struct data *data;
  struct setup setup;
  void *store;        /* NULL: not open */
  double seconds;     /* the longest that one workload is timed */
  int result_fd;      /* to the parent */
  size_t overwritten; /* of the shuffled keys, how many have version 1 */
  size_t inserted;    /* of the extra keys */
  struct seen seen;   /* by the last scan */
  size_t first;       /* durable puts: the record that a step begins with */
  double memory_own;  /* bytes resident before the engine was opened, that */
  double memory_all;  /* are this process's own, and with mapped files */
};

/* One thread of a workload. */
struct worker {
  struct run *run;
  const struct data *data;
  const struct engine *engine;
  void *session;
  uint64_t random;
  unsigned char *key;   /* of key_bytes */
  unsigned char *value; /* of value_bytes */
  size_t thread;
  size_t threads;
};

typedef void work_step(struct worker *worker, size_t index);

struct timing {
  double ns;         /* for an operation, by one thread's clock */
  double cpu_ns;     /* the same in its processor's time: what another program
                        took away does not count, nor what it waited for */
  size_t operations; /* of all threads: fewer than asked for if time was up */
  size_t first_done; /* of the first thread */
};

void run_open(struct run *run);
void run_close(struct run *run);

/* Calls `step` for 0 .. count - 1, each thread a part of them, until that
   is done or run->seconds are over. */
struct timing run_timed(struct run *run, size_t threads, size_t count,
                        work_step *step);

/* The same without a clock, and always all of them. */
void run_untimed(struct run *run, size_t count, work_step *step);

/* Tells the parent. `operations`: that `value` is the mean of, or 1. */
void run_report(const struct run *run, const char *workload, size_t threads,
                const char *unit, double value, size_t operations);
void run_report_timing(const struct run *run, const char *workload,
                       size_t threads, struct timing timing);

/* Ends the run: the engine was caught. */
_Noreturn void run_wrong(const struct run *run, const char *what);

/* Ends the run unless the value is the key's, of one of these versions. */
void run_check(const struct worker *worker, struct bytes key,
               struct bytes value, unsigned first, unsigned last);

/* A field of /proc/self/status, such as "VmHWM:", in bytes. */
double status_bytes(const char *field);

double clock_seconds(void);

#endif
