/* SPDX-License-Identifier: MIT */
/*
 * One load at one level of durability, in a store of its own: loaded, worked on,
 * looked at all the while, compacted, checked, removed.
 */
#ifndef BENCH_CHURN_RUN_H
#define BENCH_CHURN_RUN_H

#include <stdio.h>

#include "loads.h"
#include "meter.h"

struct plan {
  const struct load *load;
  const char *level; /* "async", "sync", "manual" */
  int durability;
  size_t data_bytes; /* keys and values that are alive */
  size_t value_bytes;
  double work;     /* times the data's size that is put */
  uint64_t ttl_ms; /* if records expire */
  const char *path;
  FILE *timeline; /* gets a line for each sample; NULL: none */
};

/* The store at one moment of the churn; bytes unless it says otherwise. */
struct sample {
  uint64_t ns;         /* since the churn began */
  uint64_t changes;    /* their number */
  uint64_t put;        /* keys and values, so far */
  uint64_t size;       /* of the file */
  uint64_t size_most;  /* since the last sample */
  uint64_t blocks;     /* of the file on its disk */
  uint64_t live;       /* in segments, as the store counts */
  uint64_t alive;      /* of it, what has not expired */
  uint64_t alive_most; /* since so much was put as the data's size is */
  uint64_t logical;    /* keys and values */
  uint64_t appended;   /* to the log, so far, */
  uint64_t moved;      /* of it by cleaning */
  uint64_t written;    /* by the kernel, so far */
  uint64_t used, free; /* segments: that something is alive in; for the next */
  uint64_t held;       /* of those in use, as they are, by snapshots, */
  uint64_t waiting;    /* and empty ones, for pins, snapshots, or a commit */
};

struct outcome {
  uint64_t records, puts, deletes;
  uint64_t segment_bytes;
  struct sample end; /* right after the last change */
  double most_ratio; /* of size_most and alive_most, warm-up aside */
  double compact_seconds;
  uint64_t compacted_size, compacted_blocks, compacted_live, compacted_logical;
  /* Of the snapshot: the file when it was opened, the largest while it was open,
     and what it held at its end that was replaced, with its share of branches and
     headers. */
  uint64_t snapshot_before, snapshot_most, snapshot_held;
  struct latency changes; /* puts and deletes */
  struct latency steps;   /* mmcmap_step(1 ms) */
};

void run_churn(const struct plan *plan, struct outcome *outcome_out);

void run_write_heading(FILE *timeline);

#endif
