/* SPDX-License-Identifier: MIT */
/*
 * The suites.
 */
#include <string.h>

#include "workloads.h"

static work_function *const records[] = {
    work_load,          work_reopen,
    work_get,           work_get_threads,
    work_miss,          work_get_many,
    work_snapshot_get,  work_scan,
    work_overwrite,     work_size_after_overwrite,
    work_mixed_threads, work_memory,
    work_delete,        NULL};

static work_function *const batch[] = {work_batch, NULL};

static work_function *const durable[] = {work_durable, NULL};

/* D, which inserts, comes last but for E. */
static work_function *const ycsb[] = {work_load,   work_ycsb_a, work_ycsb_b,
                                      work_ycsb_c, work_ycsb_f, work_ycsb_d,
                                      work_ycsb_e, NULL};

static work_function *const original[] = {work_load, work_get, work_overwrite,
                                          work_memory, NULL};

static work_function *const crash[] = {work_crash, NULL};

const struct suite suites[] = {
    {.name = "records",
     .about = "load, read, overwrite, mix, delete; size, memory, opening",
     .workloads = records},
    {.name = "batch",
     .about = "transactions of 1,000 puts",
     .batches = true,
     .workloads = batch},
    {.name = "durable",
     .about = "puts that are on disk when they return; 1, 2 and 8 threads",
     .durable = true,
     .workloads = durable},
    {.name = "ycsb", .about = "YCSB A to F", .zipf = true, .workloads = ycsb},
    {.name = "original",
     .about = "the original's own: load, get, overwrite (use --value=key)",
     .workloads = original},
    {.name = "crash",
     .about = "opening, and the first get, after a process died",
     .crash = true,
     .workloads = crash},
    {.name = NULL}};

const struct suite *suite_by_name(const char *name) {
  for (const struct suite *suite = suites; suite->name != NULL; suite++)
    if (strcmp(suite->name, name) == 0) return suite;
  return NULL;
}
