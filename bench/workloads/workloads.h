/* SPDX-License-Identifier: MIT */
/*
 * What is measured. A workload is a function on a run whose store is open; it
 * reports what it measured, and leaves out what the engine cannot do. A suite is
 * a list of them, in an order that makes sense on one store.
 */
#ifndef BENCH_WORKLOADS_H
#define BENCH_WORKLOADS_H

#include "../run.h"

typedef void work_function(struct run *run);

struct suite {
  const char *name;
  const char *about;
  bool durable;                    /* the store is opened so */
  bool batches;                    /* it is filled by put_batch */
  bool zipf;                       /* it needs data.zipf */
  bool crash;                      /* for engines that have a file alone */
  work_function *const *workloads; /* NULL at the end */
};

extern const struct suite suites[]; /* without a name at the end */
const struct suite *suite_by_name(const char *name);

/* reads.c: of a store that is loaded */
work_function work_get, work_get_threads, work_miss, work_get_many,
    work_snapshot_get, work_scan;

/* writes.c */
work_function work_load, work_batch, work_overwrite, work_mixed_threads,
    work_delete;

/* durable.c: puts of new records */
work_function work_durable;

/* ycsb.c: of a store that is loaded */
work_function work_ycsb_a, work_ycsb_b, work_ycsb_c, work_ycsb_d, work_ycsb_e,
    work_ycsb_f;

/* lifecycle.c: sizes, opening, memory. work_reopen closes the store and opens
   it again; work_crash lets a process die with it open. */
work_function work_reopen, work_size_after_overwrite, work_memory, work_crash;

#endif
