/* SPDX-License-Identifier: MIT */
/*
 * What the parts of area crash of the probe share. A world is a short history
 * of one store with four keys, two of them in a named map, and two saved snapshots,
 * recorded on a simulated disk; a model is what the store holds after one operation
 * of it. probe_crash_run.c plays a world, probe_crash.c builds the states that a power
 * cut may leave and opens each. The clock is ours: it goes on when a world says so, and
 * states are opened when all of the world is over.
 */
#ifndef SUPPORT_PROBE_CRASH_H
#define SUPPORT_PROBE_CRASH_H

#include "mmcmap.h"
#include "probe_disk.h"

enum {
  CRASH_KEYS = 4,
  CRASH_FIRST_IN_MAP = 2, /* the keys from here on are in a named map */
  CRASH_OPS_MAX = 400,
  CRASH_SEGMENT_BYTES = 131072,
  CRASH_LARGE_BYTES = 33000, /* just over a quarter of a segment */
  CRASH_CHURN = 40,
  CRASH_QUANTA = 200,
  CRASH_QUANTUM_BYTES = 4096,
  CRASH_SAVED = 2, /* names of snapshots */
  CRASH_TTL_MS = 50,
  CRASH_PASS_MS = 100,
  CRASH_STEP_NS = 1000000000
};

/* What stands behind each key: 0 for nothing, else what its value is made
   from; and when that expires, 0: never. */
struct crash_content {
  uint32_t tags[CRASH_KEYS];
  uint64_t ends_ms[CRASH_KEYS];
};

struct crash_model {
  struct crash_content content;
  struct crash_saved {
    uint64_t time_ms; /* 0: there is none */
    struct crash_content content;
  } saved[CRASH_SAVED];
};

struct crash_run {
  struct disk *disk;
  int durability;
  /* models[i]: after operation i, models[0] before the first. A power cut may
     leave models[i] if is_commit[i], or if it was the last that was promised
     at that moment. */
  struct crash_model models[CRASH_OPS_MAX + 1];
  bool is_commit[CRASH_OPS_MAX + 1];
  int watched;  /* the operation before the last one began there */
  int done;     /* the operation under way or done last */
  int promised; /* -1: not even that there is a store */
  char failure[256];
};

/* The value that `tag` stands for; its bytes stay until the next call. */
mmcmap_slice crash_value(int key, uint32_t tag);
uint32_t crash_tag(int number, char size);
mmcmap_slice crash_key(int key);

/* Sets what is behind a key of the model. */
void crash_set(struct crash_model *model, int key, uint32_t tag);

/* Changes of a key, in its map. */
int crash_put(mmcmap *store, int key, uint32_t tag);
int crash_delete(mmcmap *store, int key);

/* Saves a snapshot if there is none of the number in the model, else drops it, in both. */
int crash_toggle_saved(mmcmap *store, struct crash_model *model, int number);

/* Opens a store of a world, made if need be; nothing is committed behind our
   back. */
int crash_open(const char *path, int durability, mmcmap **store_out);

/* Whether the store holds just this. */
bool crash_matches(mmcmap *store, const struct crash_model *model);

/* The model that the power cut of `window` may leave and the store holds; -1
   if there is none. */
int crash_match(const struct crash_run *run, const struct disk_window *window,
                mmcmap *store);

/* Whether it may leave a store that holds what that model does. */
bool crash_allows(const struct crash_run *run, const struct disk_window *window,
                  int model);

/*
 * Plays the operations, two characters each: p, m or P and a key puts a small,
 * a medium or a large value, e a small one that expires after CRASH_TTL_MS, d deletes,
 * c overwrites CRASH_CHURN times; t and T are transactions of some changes, the second
 * one with a large value, a is one that is aborted; S and a number saves a snapshot, or
 * drops the one that there is; "k_" drops the named map; "x_" lets CRASH_PASS_MS pass,
 * "w_" is a step of upkeep, which sweeps and commits; "s_" syncs, "n_" takes a snapshot,
 * "v_" runs the cleaner until it finds nothing, "r_" closes and opens again, "f_" makes
 * the next sync fail. `start` is what the file holds already, NULL if it is to be made.
 * False, and run->failure, if an operation goes wrong.
 */
bool crash_play(struct crash_run *run, const char *path, const char *ops,
                const struct crash_model *start);

#endif
