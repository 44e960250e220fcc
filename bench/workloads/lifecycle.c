/* SPDX-License-Identifier: MIT */
/*
 * Sizes on disk, opening, and memory.
 */
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workloads.h"

/* ---- Bytes of file -------------------------------------------------------- */

/* What the disk gives to them: holes cost nothing. Lock files count as well. */
static double folder_bytes(const char *folder) {
  char *paths[] = {(char *)folder, NULL};
  FTS *walk = fts_open(paths, FTS_PHYSICAL, NULL);
  double bytes = 0;
  if (walk == NULL) bench_fail("driver", "cannot read", folder);
  for (FTSENT *entry; (entry = fts_read(walk)) != NULL;)
    if (entry->fts_info == FTS_F)
      bytes += (double)entry->fts_statp->st_blocks * 512;
  fts_close(walk);
  return bytes;
}

static void report_size(struct run *run, const char *workload) {
  if (run->engine->traits & ENGINE_IN_MEMORY) return;
  run_report(run, workload, 1, "bytes",
             folder_bytes(run->setup.folder) / (double)run->data->records,
             run->data->records);
}

/* ---- Opening -------------------------------------------------------------- */

/* The time to open, and that to the first value. */
static void open_and_get(struct run *run, const char *open_name,
                         const char *first_name) {
  struct bytes key = data_shuffled_key(run->data, run->data->records / 2);
  struct bytes value = {NULL, 0};
  double begin = clock_seconds();
  run_open(run);
  double opened = clock_seconds();
  void *session = run->engine->attach(run->store);
  (void)run->engine->get(session, key, &value);
  double got = clock_seconds();
  if (!data_is_value(run->data, key, value, 0, VERSION_MAX))
    run_wrong(run, "not the value that was put, after opening");
  run->engine->detach(session);
  run_report(run, open_name, 1, "ms", (opened - begin) * 1e3, 1);
  run_report(run, first_name, 1, "ms", (got - begin) * 1e3, 1);
}

void work_reopen(struct run *run) {
  if (run->engine->traits & ENGINE_IN_MEMORY) return;
  run_close(run);
  report_size(run, "size_loaded");
  open_and_get(run, "open", "first_get");
}

void work_size_after_overwrite(struct run *run) {
  if (run->engine->traits & ENGINE_IN_MEMORY) return;
  run_close(run);
  if (run->overwritten == run->data->records)
    report_size(run, "size_overwritten");
  run_open(run);
}

/* ---- Memory --------------------------------------------------------------- */

/* The peak of what was resident, mapped pages of files among it, and what is
   the process's own now. Without what was there before the engine. */
void work_memory(struct run *run) {
  double own = status_bytes("RssAnon:") - run->memory_own;
  double all = status_bytes("VmHWM:") - run->memory_all;
  run_report(run, "memory_peak", 1, "bytes",
             (all > 0 ? all : 0) / (double)run->data->records,
             run->data->records);
  run_report(run, "memory_own", 1, "bytes",
             (own > 0 ? own : 0) / (double)run->data->records,
             run->data->records);
}

/* ---- A process that dies -------------------------------------------------- */

enum { SETTLE_MICROSECONDS = 1500000 };

/* Long enough after the last put for what is written in the background, and a
   put after that. */
static void load_and_die(struct run *run) {
  void *session = run->engine->attach(run->store);
  unsigned char *buffer = bench_new(1, run->data->value_bytes);
  for (size_t i = 0; i < run->data->records; i++) {
    struct bytes key = data_key(run->data, i);
    run->engine->put(session, key, data_value(run->data, key, 0, buffer));
  }
  usleep(SETTLE_MICROSECONDS);
  struct bytes key = data_key(run->data, run->data->records);
  run->engine->put(session, key, data_value(run->data, key, 0, buffer));
  _exit(0);
}

/* What only the living share: without it the engine must do what it would do
   after the machine has lost its power. */
static void forget_lock_files(const char *folder) {
  const char *const names[] = {"store.mmc-lock", "store.lmdb-lock",
                               "store.sqlite-shm"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *path = bench_path(folder, names[i]);
    (void)unlink(path);
    free(path);
  }
}

void work_crash(struct run *run) {
  int status;
  run_close(run);
  pid_t child = fork();
  if (child < 0) bench_fail("driver", "no process", NULL);
  if (child == 0) {
    run_open(run);
    load_and_die(run);
  }
  if (waitpid(child, &status, 0) != child || status != 0)
    bench_fail(run->engine->name, "cannot load", NULL);
  forget_lock_files(run->setup.folder);
  open_and_get(run, "open_after_crash", "first_get_after_crash");
}
