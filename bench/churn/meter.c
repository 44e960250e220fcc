/* SPDX-License-Identifier: MIT */
/*
 * See meter.h.
 */
#include "meter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "mmcmap.h"
#include "os/calls.h"

void must_hold(bool condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "churn: %s\n", what);
  exit(1);
}

void must(int code, const char *what) {
  mmcmap_error error;
  if (code == MMCMAP_OK) return;
  mmcmap_last_error(&error);
  fprintf(stderr, "churn: %s: %s (%s)\n", what, mmcmap_strerror(code),
          error.what == NULL ? "" : error.what);
  exit(1);
}

uint64_t meter_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Syncs ---------------------------------------------------------------- */

static _Thread_local uint64_t sync_ns; /* that this thread has waited */
static int (*plain_fdatasync)(int fd);

static int timed_fdatasync(int fd) {
  uint64_t begin_ns = meter_now_ns();
  int result = plain_fdatasync(fd);
  sync_ns += meter_now_ns() - begin_ns;
  return result;
}

void meter_watch_syncs(void) {
  plain_fdatasync = os_calls.fdatasync;
  os_calls.fdatasync = timed_fdatasync;
}

/* ---- Latencies ------------------------------------------------------------ */

/* 32 buckets for each power of two; up to 63 a bucket for each number. */
enum { PARTS = 32, PARTS_SHIFT = 5 };

static unsigned bucket_of(uint64_t ns) {
  if (ns < PARTS) return (unsigned)ns;
  unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - PARTS_SHIFT;
  return shift * PARTS + (unsigned)(ns >> shift);
}

/* The longest time that belongs to it. */
static uint64_t bucket_most(unsigned bucket) {
  if (bucket < 2 * PARTS) return bucket;
  unsigned shift = bucket / PARTS - 1;
  return ((uint64_t)(bucket % PARTS + PARTS + 1) << shift) - 1;
}

struct lap lap_begin(void) {
  struct lap lap = {.begin_sync_ns = sync_ns, .begin_ns = meter_now_ns()};
  return lap;
}

void lap_end(const struct lap *lap, struct latency *latency) {
  uint64_t ns = meter_now_ns() - lap->begin_ns;
  uint64_t unsynced_ns = ns - (sync_ns - lap->begin_sync_ns);
  latency->count++;
  latency->counts[bucket_of(ns)]++;
  if (ns > latency->most_ns) latency->most_ns = ns;
  if (unsynced_ns > latency->most_unsynced_ns)
    latency->most_unsynced_ns = unsynced_ns;
}

uint64_t latency_at(const struct latency *latency, double part) {
  uint64_t seen = 0;
  if (latency->count == 0) return 0;
  for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
    seen += latency->counts[i];
    if ((double)seen < part * (double)latency->count) continue;
    uint64_t most_ns = bucket_most(i);
    return most_ns < latency->most_ns ? most_ns : latency->most_ns;
  }
  return latency->most_ns;
}

/* ---- Files ---------------------------------------------------------------- */

uint64_t meter_written_bytes(void) {
  FILE *file = fopen("/proc/self/io", "r");
  unsigned long long bytes = 0;
  char line[128];
  while (file != NULL && fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "write_bytes: %llu", &bytes) == 1) break;
  if (file != NULL) fclose(file);
  return bytes;
}

uint64_t meter_block_bytes(const char *path) {
  struct stat about;
  must_hold(stat(path, &about) == 0, "the file is not there");
  return (uint64_t)about.st_blocks * 512;
}
