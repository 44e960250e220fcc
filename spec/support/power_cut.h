/* SPDX-License-Identifier: MIT */
/*
 * power_cut: a program that cuts the power for real. It makes a file system in
 * an image, lets processes write to a store on it, shuts the file system down
 * in full flight, so that all that was not synced is gone, mounts it again and
 * looks at what the store is then.
 *
 * Nothing of it stays behind, however it ends: the image has no name once it
 * is in use, its loop devices go when they are closed, and mounts are seen in
 * this process and its children alone, which die with it.
 */
#ifndef SUPPORT_POWER_CUT_H
#define SUPPORT_POWER_CUT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmcmap.h"

enum { EXIT_SKIP = 77 };

/* Ends the program: with a message and status 1, or as skipped. */
_Noreturn void die(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
_Noreturn void skip(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

uint64_t now_ns(void);
void sleep_us(uint64_t us);

/* ---- Chance (power_cut.c) ------------------------------------------------ */

/* SplitMix64: a number that looks random, from one that does not. */
static inline uint64_t mix(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

struct chance {
  uint64_t state;
};

/* A number below `limit`. */
static inline uint64_t chance_below(struct chance *chance, uint64_t limit) {
  return mix(chance->state++) % limit;
}

/* ---- Images (power_cut_image.c) ------------------------------------------ */

struct image {
  char kind[64];       /* "ext4" or "xfs" */
  const char *options; /* of mounting; NULL: none */
  int fd;              /* of the file, which has no name any more */
  char place[4000];    /* where it is mounted */
  bool is_mounted;
};

/* Makes the image in `folder` and a folder to mount it at. `kind` may name
   options of mounting, too: "xfs:prjquota". */
void image_create(struct image *image, const char *kind, const char *folder,
                  uint64_t size_bytes);
void image_mount(struct image *image);

/* Shuts the file system down: what was not synced never reaches the image. */
void image_cut(struct image *image);
void image_unmount(struct image *image);
void image_destroy(struct image *image);

/* ---- Work (power_cut_work.c) --------------------------------------------- */

enum {
  WORK_THREADS = 4,
  WORK_SLOTS = 300,       /* keys of each thread */
  WORK_OPS_MAX = 1 << 16, /* operations of a thread between two cuts */
  WORK_VALUE_MAX = 700 * 1024,
  WORK_KEY_MAX = 32
};

enum work_level {
  WORK_SYNC = MMCMAP_SYNC,
  WORK_ASYNC = MMCMAP_ASYNC,
  WORK_MANUAL = MMCMAP_MANUAL,
  WORK_MIXED, /* half of the threads sync, the others async */
  WORK_LEVELS
};

enum work_phase {
  PHASE_NONE,
  PHASE_OPENING,
  PHASE_WRITING,
  PHASE_CLOSING,
  PHASE_CLOSED
};

/* What a key holds: operation `number` of round `round` has put it there;
   number 0: nothing. */
struct held {
  uint64_t round;
  uint64_t number;
};

typedef struct held work_state[WORK_THREADS][WORK_SLOTS];

/* An operation follows from its thread, round and number. */
struct operation {
  uint32_t thread;
  uint32_t slot;
  uint64_t round;
  uint64_t number;
  bool is_delete;
  uint32_t size; /* of the value */
};

struct operation work_operation(uint32_t thread, uint64_t round,
                                uint64_t number);
size_t work_key(uint32_t thread, uint32_t slot, char key_out[WORK_KEY_MAX]);

/* Does it; MMCMAP_OK for the delete of an absent key, too. `buffer` has
   WORK_VALUE_MAX bytes. */
int work_do(mmcmap *store, const struct operation *operation, void *buffer);
void work_apply(const struct operation *operation, work_state state);

/* Checks that a record is one that work_do() has put, whole, and says which.
   NULL, or what is wrong. */
const char *work_identify(mmcmap_slice key, mmcmap_slice value,
                          struct operation *operation_out);

/* One thread's progress in a round, noted outside the image. Operations are
   numbered from 1. */
struct progress {
  _Atomic uint64_t begun;
  _Atomic uint64_t done;     /* acknowledged */
  _Atomic uint64_t promised; /* said by the engine to be on disk */
  uint64_t kept;             /* what was promised before the cut began */
  _Atomic uint64_t begun_ns[WORK_OPS_MAX + 1];
  _Atomic uint64_t done_ns[WORK_OPS_MAX + 1];
};

/* Shared by the processes of a round. */
struct round {
  uint64_t number;
  int level; /* enum work_level */
  uint32_t interval_ms;
  uint32_t write_ms; /* then the writer closes the store */
  uint32_t pause_us; /* between bursts of operations, at most */
  char path[4096];
  _Atomic int phase; /* enum work_phase */
  _Atomic bool is_full;
  _Atomic uint64_t longest_sync_ns;
  _Atomic uint64_t sync_since_ns; /* a sync is under way; else 0 */
  _Atomic uint64_t error_ns;      /* of the first failure; else 0 */
  char error[256];
  struct progress threads[WORK_THREADS];
};

/* The writing process, which never returns. */
_Noreturn void work_write(struct round *round);

/* ---- Looking at what is left (power_cut_verify.c) ------------------------ */

struct findings {
  uint64_t records;
  uint64_t recovered_commits;
  uint64_t open_ns;
  uint64_t lost;   /* acknowledged operations that are gone, */
  uint64_t age_ns; /* and how long before the cut the oldest was one */
  uint64_t file_bytes;
  bool was_clean;
};

/* Opens the store that a round was cut off at and compares it with the state
   before the round and its progress; `state` is then what was found. Dies if
   anything is not as promised. */
void verify_round(const struct round *round, uint64_t cut_ns, work_state state,
                  struct findings *findings_out);

/* 20 more operations, close, reopen, compare. */
void verify_goes_on(struct round *round, work_state state);

/* ---- Sub-commands -------------------------------------------------------- */

/* Loads a store of `keys` keys, cuts, and tells the time of opening. */
int open_measure(const char *kind, const char *folder, uint64_t keys);

#endif
