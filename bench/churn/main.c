/* SPDX-License-Identifier: MIT */
/*
 * Whether a file stays small: loads that overwrite, delete and let expire many
 * times what is alive, at all levels of durability, and what the file, the disk
 * and the callers have of it. See bench/README.md.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mmcmap.h"
#include "run.h"

enum { LEVELS = 3, MEGA = 1000000, PATH_BYTES = 4096 };

struct level {
  const char *name;
  int durability;
};

static const struct level levels[LEVELS] = {
    {"async", MMCMAP_ASYNC}, {"sync", MMCMAP_SYNC}, {"manual", MMCMAP_MANUAL}};

struct options {
  const char *loads, *levels; /* names, with commas; NULL: all */
  double data_mb, sync_data_mb, work;
  size_t value_bytes;
  uint64_t ttl_ms;
  const char *folder, *out;
  bool list;
};

static const char usage[] =
    "usage: churn [OPTION ...]\n"
    "  --loads=A,B       which (all); --list names them\n"
    "  --levels=A,B      of async, sync, manual (all)\n"
    "  --data=MB         keys and values that are alive (64)\n"
    "  --sync-data=MB    the same where every put is synced (8)\n"
    "  --value=BYTES     16 or more (1000); the load \"sizes\" has its own\n"
    "  --work=TIMES      so many times the data's size is put (20)\n"
    "  --ttl=MS          the life of records that expire (2000)\n"
    "  --folder=FOLDER   is made for the stores, and removed (churn-files)\n"
    "  --out=FOLDER      gets churn.csv and churn-time.csv\n"
    "  --list            say which loads there are\n";

/* ---- Options -------------------------------------------------------------- */

static bool complain(const char *what, const char *name) {
  fprintf(stderr, "churn: %s: %s\n%s", what, name, usage);
  return false;
}

static bool read_number(const char *text, double least, double most,
                        double *number_out) {
  char *end;
  *number_out = strtod(text, &end);
  if (end == text || *end != '\0' ||
      !(*number_out >= least && *number_out <= most))
    return complain("not a number that is allowed", text);
  return true;
}

/* Whether a list of names, with commas, has this one. */
static bool names(const char *list, const char *name) {
  size_t size = strlen(name);
  if (list == NULL) return true;
  while (*list != '\0') {
    size_t next = strcspn(list, ",");
    if (next == size && memcmp(list, name, size) == 0) return true;
    list += next + (list[next] == ',');
  }
  return false;
}

static bool is_level(const char *name, size_t size) {
  for (int i = 0; i < LEVELS; i++)
    if (strlen(levels[i].name) == size &&
        memcmp(levels[i].name, name, size) == 0)
      return true;
  return false;
}

static bool check_names(const char *list, bool of_loads) {
  do {
    size_t size = strcspn(list, ",");
    if (of_loads ? load_by_name(list, size) == NULL : !is_level(list, size))
      return complain(of_loads ? "no such load" : "no such level", list);
    list += size;
  } while (*list++ == ',');
  return true;
}

static bool read_one(struct options *options, int which, const char *text) {
  double number = 0;
  bool is_well = true;
  switch (which) {
    case 'l':
      options->loads = text;
      return check_names(text, true);
    case 'd':
      options->levels = text;
      return check_names(text, false);
    case 'n':
      return read_number(text, 0.001, 1e6, &options->data_mb);
    case 's':
      return read_number(text, 0.001, 1e6, &options->sync_data_mb);
    case 'w':
      return read_number(text, 1, 1e6, &options->work);
    case 'v':
      is_well = read_number(text, 16, 1 << 30, &number);
      options->value_bytes = (size_t)number;
      return is_well;
    case 't':
      is_well = read_number(text, 1, 1e9, &number);
      options->ttl_ms = (uint64_t)number;
      return is_well;
    case 'f':
      options->folder = text;
      return true;
    case 'o':
      options->out = text;
      return true;
    case 'h':
      options->list = true;
      return true;
    default:
      fputs(usage, stderr);
      return false;
  }
}

static bool read_options(struct options *options, int argc, char **argv) {
  static const struct option known[] = {
      {"loads", required_argument, NULL, 'l'},
      {"levels", required_argument, NULL, 'd'},
      {"data", required_argument, NULL, 'n'},
      {"sync-data", required_argument, NULL, 's'},
      {"value", required_argument, NULL, 'v'},
      {"work", required_argument, NULL, 'w'},
      {"ttl", required_argument, NULL, 't'},
      {"folder", required_argument, NULL, 'f'},
      {"out", required_argument, NULL, 'o'},
      {"list", no_argument, NULL, 'h'},
      {NULL, 0, NULL, 0}};
  int which;
  *options = (struct options){.data_mb = 64,
                              .sync_data_mb = 8,
                              .work = 20,
                              .value_bytes = 1000,
                              .ttl_ms = 2000,
                              .folder = "churn-files"};
  while ((which = getopt_long(argc, argv, "", known, NULL)) != -1)
    if (!read_one(options, which, optarg)) return false;
  return optind == argc || complain("what is this", argv[optind]);
}

/* ---- Results -------------------------------------------------------------- */

static FILE *open_csv(const char *folder, const char *name) {
  char path[PATH_BYTES];
  int size = snprintf(path, sizeof path, "%s/%s", folder, name);
  must_hold(size > 0 && (size_t)size < sizeof path, "a path that is too long");
  FILE *file = fopen(path, "w");
  if (file == NULL) fprintf(stderr, "%s: %s\n", path, strerror(errno));
  must_hold(file != NULL, "no file for results");
  return file;
}

static double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

static double ms(uint64_t ns) { return (double)ns * 1e-6; }

static void write_heading(FILE *file) {
  fputs("load,level,data_bytes,records,puts,deletes,seconds,segment_bytes,"
        "size_bytes,block_bytes,live_bytes,alive_bytes,logical_bytes,"
        "size_over_alive,most_over_alive,size_over_logical,"
        "compacted_size_bytes,compacted_block_bytes,compacted_live_bytes,"
        "compacted_over_live,compact_ms,put_bytes,written_over_put,"
        "appended_over_put,moved_over_put,call_p50_ms,call_p99_ms,"
        "call_p9999_ms,call_most_ms,call_most_unsynced_ms,steps,step_p50_ms,"
        "step_p99_ms,step_most_ms,step_most_unsynced_ms,"
        "snapshot_before_bytes,snapshot_most_bytes,snapshot_held_bytes\n",
        file);
}

static void write_count(FILE *file, uint64_t count) {
  fprintf(file, ",%llu", (unsigned long long)count);
}

static void write_latency(FILE *file, const struct latency *latency) {
  fprintf(file, ",%.5f,%.5f", ms(latency_at(latency, 0.5)),
          ms(latency_at(latency, 0.99)));
}

static void write_outcome(FILE *file, const struct plan *plan,
                          const struct outcome *outcome) {
  const struct sample *end = &outcome->end;
  double put = (double)end->put;
  fprintf(file, "%s,%s", plan->load->name, plan->level);
  write_count(file, plan->data_bytes);
  write_count(file, outcome->records);
  write_count(file, outcome->puts);
  write_count(file, outcome->deletes);
  fprintf(file, ",%.3f", ms(end->ns) / 1000);
  write_count(file, outcome->segment_bytes);
  write_count(file, end->size);
  write_count(file, end->blocks);
  write_count(file, end->live);
  write_count(file, end->alive);
  write_count(file, end->logical);
  fprintf(file, ",%.4f,%.4f,%.4f",
          ratio((double)end->size, (double)end->alive_most),
          outcome->most_ratio, ratio((double)end->size, (double)end->logical));
  write_count(file, outcome->compacted_size);
  write_count(file, outcome->compacted_blocks);
  write_count(file, outcome->compacted_live);
  fprintf(
      file, ",%.4f,%.1f",
      ratio((double)outcome->compacted_size, (double)outcome->compacted_live),
      outcome->compact_seconds * 1000);
  write_count(file, end->put);
  fprintf(file, ",%.4f,%.4f,%.4f", ratio((double)end->written, put),
          ratio((double)end->appended, put), ratio((double)end->moved, put));
  write_latency(file, &outcome->changes);
  fprintf(file, ",%.5f,%.5f,%.5f", ms(latency_at(&outcome->changes, 0.9999)),
          ms(outcome->changes.most_ns), ms(outcome->changes.most_unsynced_ns));
  write_count(file, outcome->steps.count);
  write_latency(file, &outcome->steps);
  fprintf(file, ",%.5f,%.5f", ms(outcome->steps.most_ns),
          ms(outcome->steps.most_unsynced_ns));
  write_count(file, outcome->snapshot_before);
  write_count(file, outcome->snapshot_most);
  write_count(file, outcome->snapshot_held);
  fputc('\n', file);
  fflush(file);
}

static void print_heading(void) {
  puts("                      | file over alive          | bytes per byte put  "
       "| ms, a put or delete            | ms, a step of 1 ms\n"
       "load      level    MB |   end   most  compacted  | appended   written  "
       "|   50 %    99 %  99.99 %    most |    99 %    most  no syncs");
}

static void print_outcome(const struct plan *plan,
                          const struct outcome *outcome) {
  const struct sample *end = &outcome->end;
  const struct latency *steps = &outcome->steps;
  printf(
      "%-9s %-7s %4.0f | %5.2f  %5.2f  %9.3f  | %8.2f  %8.2f  | %6.4f "
      "%7.3f  %7.2f %7.1f",
      plan->load->name, plan->level, (double)plan->data_bytes / MEGA,
      ratio((double)end->size, (double)end->alive_most), outcome->most_ratio,
      ratio((double)outcome->compacted_size, (double)outcome->compacted_live),
      ratio((double)end->appended, (double)end->put),
      ratio((double)end->written, (double)end->put),
      ms(latency_at(&outcome->changes, 0.5)),
      ms(latency_at(&outcome->changes, 0.99)),
      ms(latency_at(&outcome->changes, 0.9999)), ms(outcome->changes.most_ns));
  if (steps->count > 0)
    printf(" | %7.2f %7.2f %9.2f", ms(latency_at(steps, 0.99)),
           ms(steps->most_ns), ms(steps->most_unsynced_ns));
  puts("");
  if (outcome->snapshot_before > 0)
    printf("  a snapshot that held %.1f MB: the file %.1f MB before, at most "
           "%.1f MB, %.1f MB at the end\n",
           (double)outcome->snapshot_held / MEGA,
           (double)outcome->snapshot_before / MEGA,
           (double)outcome->snapshot_most / MEGA, (double)end->size / MEGA);
  fflush(stdout);
}

/* ---- All of them ---------------------------------------------------------- */

static struct plan plan_of(const struct options *options,
                           const struct load *load, const struct level *level,
                           const char *path) {
  bool syncs = level->durability == MMCMAP_SYNC;
  double mb = syncs ? options->sync_data_mb : options->data_mb;
  struct plan plan = {.load = load,
                      .level = level->name,
                      .durability = level->durability,
                      .data_bytes = (size_t)(mb * MEGA),
                      .value_bytes = options->value_bytes,
                      .work = options->work,
                      .ttl_ms = options->ttl_ms,
                      .path = path};
  if (load->data_bytes > 0 && load->data_bytes < plan.data_bytes)
    plan.data_bytes = load->data_bytes;
  return plan;
}

static void run_all(const struct options *options) {
  FILE *summary = NULL, *timeline = NULL;
  char path[PATH_BYTES];
  static struct outcome outcome;
  int size = snprintf(path, sizeof path, "%s/store", options->folder);
  must_hold(size > 0 && (size_t)size < sizeof path, "a path that is too long");
  if (options->out != NULL) {
    summary = open_csv(options->out, "churn.csv");
    timeline = open_csv(options->out, "churn-time.csv");
    write_heading(summary);
    run_write_heading(timeline);
  }
  print_heading();
  for (int i = 0; i < LEVELS; i++)
    for (size_t j = 0; loads[j] != NULL; j++) {
      if (!names(options->levels, levels[i].name) ||
          !names(options->loads, loads[j]->name))
        continue;
      struct plan plan = plan_of(options, loads[j], &levels[i], path);
      plan.timeline = timeline;
      run_churn(&plan, &outcome);
      print_outcome(&plan, &outcome);
      if (summary != NULL) write_outcome(summary, &plan, &outcome);
    }
  if (summary == NULL) return;
  must_hold(fclose(summary) == 0 && fclose(timeline) == 0, "results are lost");
}

int main(int argc, char **argv) {
  struct options options;
  if (!read_options(&options, argc, argv)) return 2;
  if (options.list) {
    for (size_t i = 0; loads[i] != NULL; i++)
      printf("%-10s %s\n", loads[i]->name, loads[i]->about);
    return 0;
  }
  if (mkdir(options.folder, 0700) != 0) {
    fprintf(stderr, "%s: %s\n", options.folder, strerror(errno));
    return 1;
  }
  meter_watch_syncs();
  run_all(&options);
  must_hold(rmdir(options.folder) == 0, "the folder is not empty");
  return 0;
}
