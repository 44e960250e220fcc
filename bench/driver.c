/* SPDX-License-Identifier: MIT */
/*
 * Measures key-value stores with the same keys, checks and clock: engines take
 * turns, round by round, each in a process of its own with a store of its own on
 * the same file system. See bench/README.md.
 */
#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data.h"
#include "options.h"
#include "results.h"
#include "run.h"

enum { ZIPF_MAX = 1000000 };

/* ---- Folders -------------------------------------------------------------- */

static void remove_folder(const char *folder) {
  char *paths[] = {(char *)folder, NULL};
  FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
  if (walk == NULL) return;
  for (FTSENT *entry; (entry = fts_read(walk)) != NULL;) {
    if (entry->fts_info == FTS_D || entry->fts_info == FTS_NS) continue;
    if (remove(entry->fts_accpath) != 0)
      bench_fail("driver", "cannot remove", entry->fts_path);
  }
  fts_close(walk);
}

static void make_folder(const char *folder) {
  if (mkdir(folder, 0700) != 0) bench_fail("driver", folder, strerror(errno));
}

/* ---- One engine in one round ---------------------------------------------- */

static bool takes_part(const struct engine *engine, const struct suite *suite) {
  bool has_file = !(engine->traits & ENGINE_IN_MEMORY);
  if (suite->durable) return (engine->traits & ENGINE_DURABLE) != 0;
  if (suite->batches && engine->put_batch == NULL) return false;
  if (suite->crash && !has_file) return false;
  return !(engine->traits & ENGINE_BARE);
}

static void run_suite(const struct options *options, const struct data *data,
                      const struct engine *engine, const char *folder,
                      int result_fd) {
  struct run run = {.engine = engine,
                    .data = data,
                    .setup = {.folder = folder,
                              .fresh = true,
                              .durable = options->suite->durable,
                              .batches = options->suite->batches,
                              .records = data->records,
                              .key_bytes = data->key_bytes,
                              .value_bytes = data->value_bytes},
                    .seconds = options->seconds,
                    .result_fd = result_fd,
                    .memory_own = status_bytes("RssAnon:"),
                    .memory_all = status_bytes("VmRSS:")};
  run_open(&run);
  for (size_t i = 0; options->suite->workloads[i] != NULL; i++)
    options->suite->workloads[i](&run);
  run_close(&run);
}

/* False: the engine failed, and has said so. */
static bool run_in_child(const struct options *options, const struct data *data,
                         const struct engine *engine, size_t round,
                         struct results *results) {
  char *folder = bench_path(options->folder, engine->name);
  int ends[2], status;
  char line[256];
  make_folder(folder);
  if (pipe(ends) != 0) bench_fail("driver", "no pipe", strerror(errno));
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) bench_fail("driver", "no process", strerror(errno));
  if (child == 0) {
    close(ends[0]);
    run_suite(options, data, engine, folder, ends[1]);
    exit(0);
  }
  close(ends[1]);
  FILE *pipe = fdopen(ends[0], "r");
  while (pipe != NULL && fgets(line, sizeof line, pipe) != NULL)
    if (!results_add(results, engine->name, round, line))
      bench_fail("driver", "not a result", line);
  if (pipe != NULL) fclose(pipe);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR)
    continue;
  remove_folder(folder);
  free(folder);
  if (status == 0) return true;
  fprintf(stderr, "driver: %s failed in round %zu\n", engine->name, round);
  return false;
}

/* ---- All of them ---------------------------------------------------------- */

static bool run_rounds(const struct options *options, struct results *results) {
  struct data data;
  bool failed[ENGINES_MAX] = {false}, all_well = true;
  data_make(&data, options->records, options->key_bytes, options->value_bytes,
            options->value_is_key);
  if (options->suite->zipf)
    data_make_zipf(&data,
                   options->records < ZIPF_MAX ? options->records : ZIPF_MAX);
  for (size_t round = 1; round <= options->rounds; round++)
    for (size_t i = 0; options->engines[i] != NULL; i++) {
      if (failed[i] || !takes_part(options->engines[i], options->suite))
        continue;
      if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: round %zu of %zu: %s\033[K",
                options->suite->name, round, options->rounds,
                options->engines[i]->name);
      failed[i] =
          !run_in_child(options, &data, options->engines[i], round, results);
      if (!failed[i]) continue;
      results_drop(results, options->engines[i]->name);
      all_well = false;
    }
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
  data_free(&data);
  return all_well;
}

static void print_list(void) {
  puts("engines:");
  for (size_t i = 0; engines[i] != NULL; i++)
    if (!(engines[i]->traits & ENGINE_HIDDEN))
      printf("  %-14s %s\n", engines[i]->name, engines[i]->about);
  if (engines_left_out[0] != '\0')
    printf("left out, for want of these packages: %s\n", engines_left_out);
  puts("suites:");
  for (const struct suite *suite = suites; suite->name != NULL; suite++)
    printf("  %-14s %s\n", suite->name, suite->about);
}

int main(int argc, char **argv) {
  struct options options;
  struct results results = {0};
  if (!options_read(&options, argc, argv)) return 2;
  if (options.list) {
    print_list();
    return 0;
  }
  if (options.engines[0] == NULL) return 0;
  struct circumstances about = {.suite = options.suite->name,
                                .baseline = options.engines[0]->name,
                                .records = options.records,
                                .key_bytes = options.key_bytes,
                                .value_bytes = options.value_bytes,
                                .rounds = options.rounds};
  make_folder(options.folder);
  bool all_well = run_rounds(&options, &results);
  remove_folder(options.folder);
  results_print(&results, &about, stdout);
  if (options.out != NULL) results_write(&results, &about, options.out);
  results_free(&results);
  return all_well ? 0 : 1;
}
