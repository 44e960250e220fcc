/* SPDX-License-Identifier: MIT */
/*
 * What is measured beside the store's own figures: how long calls take and how
 * much of that is syncs, what this process writes to the disk, the blocks of a
 * file.
 */
#ifndef BENCH_CHURN_METER_H
#define BENCH_CHURN_METER_H

#include <stdbool.h>
#include <stdint.h>

enum { LATENCY_BUCKETS = 2048 };

/* How long calls took, to a 32nd; the longest exactly. Start with zeros. */
struct latency {
  uint64_t counts[LATENCY_BUCKETS];
  uint64_t count;
  uint64_t most_ns;
  uint64_t most_unsynced_ns; /* the longest, what its syncs took aside */
};

/* A call that is being timed. */
struct lap {
  uint64_t begin_ns, begin_sync_ns;
};

struct lap lap_begin(void);
void lap_end(const struct lap *lap, struct latency *latency);

/* The time that `part` of the calls took no longer than; 0 if there were none. */
uint64_t latency_at(const struct latency *latency, double part);

uint64_t meter_now_ns(void);

/* From now on the time that threads spend in syncs is known; to be called before a
   store is opened. */
void meter_watch_syncs(void);

/* write_bytes of /proc/self/io: what this process has made the kernel write, a
   page each time that it becomes dirty, pages of mappings too. 0 where the file is
   not to be read; on file systems in memory it stays what it is. */
uint64_t meter_written_bytes(void);

/* Bytes of the blocks that a file has on its disk. */
uint64_t meter_block_bytes(const char *path);

/* Ends the program if a call has failed, or something is not as it should be. */
void must(int code, const char *what);
void must_hold(bool condition, const char *what);

#endif
