/* SPDX-License-Identifier: MIT */
/*
 * The command line of the driver.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "engine.h"
#include "workloads/workloads.h"

enum { ENGINES_MAX = 64 };

struct options {
  const struct engine *engines[ENGINES_MAX]; /* NULL at the end */
  const struct suite *suite;
  size_t records, key_bytes, value_bytes, rounds;
  bool value_is_key;
  double seconds;
  const char *folder; /* where stores are made */
  const char *out;    /* where results go; NULL: nowhere but the terminal */
  bool list;          /* say what there is, and no more */
};

/* False: it has said what is wrong. */
bool options_read(struct options *options, int argc, char **argv);

#endif
