/* SPDX-License-Identifier: MIT */
/*
 * What the runs have reported: kept, summed up by medians, and written as a
 * table for people and as two CSV files for programs (bench/README.md says what
 * their columns are).
 */
#ifndef BENCH_RESULTS_H
#define BENCH_RESULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct result {
  const char *engine;
  char workload[32];
  char unit[8];
  size_t threads;
  size_t round;
  double value;
  size_t operations;
};

struct results {
  struct result *list;
  size_t count, capacity;
};

/* What was the same for all of them. */
struct circumstances {
  const char *suite;
  const char *baseline; /* the engine that others are compared with */
  size_t records, key_bytes, value_bytes, rounds;
};

/* Takes a line that run_report() has written. False: it is not one. */
bool results_add(struct results *results, const char *engine, size_t round,
                 const char *line);

/* Forgets what an engine has reported: it was wrong, or failed. */
void results_drop(struct results *results, const char *engine);

/* `folder` gets results.csv and summary.csv, or more lines in them. */
void results_write(const struct results *results,
                   const struct circumstances *about, const char *folder);
void results_print(const struct results *results,
                   const struct circumstances *about, FILE *file);
void results_free(struct results *results);

#endif
