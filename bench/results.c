/* SPDX-License-Identifier: MIT */
/*
 * See results.h.
 */
#include "results.h"

#include <stdlib.h>
#include <string.h>

#include "engine.h"

bool results_add(struct results *results, const char *engine, size_t round,
                 const char *line) {
  struct result result = {.engine = engine, .round = round};
  if (sscanf(line, "%31s %zu %7s %lf %zu", result.workload, &result.threads,
             result.unit, &result.value, &result.operations) != 5)
    return false;
  if (results->count == results->capacity) {
    size_t capacity = results->capacity * 2 + 64;
    struct result *list =
        realloc(results->list, capacity * sizeof *results->list);
    if (list == NULL) bench_fail("driver", "no memory", NULL);
    results->list = list;
    results->capacity = capacity;
  }
  results->list[results->count++] = result;
  return true;
}

void results_drop(struct results *results, const char *engine) {
  size_t kept = 0;
  for (size_t i = 0; i < results->count; i++)
    if (strcmp(results->list[i].engine, engine) != 0)
      results->list[kept++] = results->list[i];
  results->count = kept;
}

void results_free(struct results *results) {
  free(results->list);
  *results = (struct results){0};
}

/* ---- Medians -------------------------------------------------------------- */

struct median {
  double middle, least, most;
  size_t rounds; /* 0: the engine did not do it */
};

static bool same_line(const struct result *a, const struct result *b) {
  return a->threads == b->threads && strcmp(a->workload, b->workload) == 0 &&
         strcmp(a->unit, b->unit) == 0;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static struct median median_of(const struct results *results,
                               const struct result *line, const char *engine) {
  struct median median = {0, 0, 0, 0};
  double *values = bench_new(results->count + 1, sizeof *values);
  size_t count = 0;
  for (size_t i = 0; i < results->count; i++) {
    const struct result *result = &results->list[i];
    if (same_line(result, line) && strcmp(result->engine, engine) == 0)
      values[count++] = result->value;
  }
  if (count > 0) {
    qsort(values, count, sizeof *values, compare_doubles);
    median =
        (struct median){values[count / 2], values[0], values[count - 1], count};
    if (count % 2 == 0)
      median.middle = (values[count / 2 - 1] + values[count / 2]) / 2;
  }
  free(values);
  return median;
}

/* Whether it is the first of its workload, or of its workload and engine. */
static bool is_first(const struct results *results, size_t index,
                     bool by_engine) {
  const struct result *line = &results->list[index];
  for (size_t i = 0; i < index; i++)
    if (same_line(&results->list[i], line) &&
        (!by_engine || strcmp(results->list[i].engine, line->engine) == 0))
      return false;
  return true;
}

/* ---- CSV ------------------------------------------------------------------ */

static FILE *append_to(const char *folder, const char *name,
                       const char *header) {
  char *path = bench_path(folder, name);
  FILE *file = fopen(path, "a");
  if (file == NULL) bench_fail("driver", "cannot write", path);
  if (ftell(file) == 0) fprintf(file, "%s\n", header);
  free(path);
  return file;
}

static void write_results(const struct results *results,
                          const struct circumstances *about, FILE *file) {
  for (size_t i = 0; i < results->count; i++) {
    const struct result *result = &results->list[i];
    fprintf(file, "%s,%s,%s,%zu,%zu,%zu,%zu,%zu,%s,%.4f,%zu\n", about->suite,
            result->engine, result->workload, result->threads, about->records,
            about->key_bytes, about->value_bytes, result->round, result->unit,
            result->value, result->operations);
  }
}

static void write_summary(const struct results *results,
                          const struct circumstances *about, FILE *file) {
  for (size_t i = 0; i < results->count; i++) {
    const struct result *line = &results->list[i];
    if (!is_first(results, i, true)) continue;
    struct median ours = median_of(results, line, about->baseline);
    struct median median = median_of(results, line, line->engine);
    fprintf(file, "%s,%s,%s,%zu,%zu,%zu,%zu,%zu,%s,%.4f,%.4f,%.4f,",
            about->suite, line->engine, line->workload, line->threads,
            about->records, about->key_bytes, about->value_bytes, median.rounds,
            line->unit, median.middle, median.least, median.most);
    if (ours.rounds > 0 && ours.middle > 0)
      fprintf(file, "%.3f", median.middle / ours.middle);
    fputc('\n', file);
  }
}

static void close_file(FILE *file) {
  bool bad = ferror(file) != 0;
  if (fclose(file) != 0 || bad) bench_fail("driver", "cannot write", NULL);
}

void results_write(const struct results *results,
                   const struct circumstances *about, const char *folder) {
  FILE *file = append_to(folder, "results.csv",
                         "suite,engine,workload,threads,records,key_bytes,"
                         "value_bytes,round,unit,value,operations");
  write_results(results, about, file);
  close_file(file);
  file = append_to(folder, "summary.csv",
                   "suite,engine,workload,threads,records,key_bytes,"
                   "value_bytes,rounds,unit,median,least,most,ratio");
  write_summary(results, about, file);
  close_file(file);
}

/* ---- A table for people --------------------------------------------------- */

static void print_line(const struct results *results, size_t index,
                       const struct circumstances *about, FILE *file) {
  const struct result *line = &results->list[index];
  struct median ours = median_of(results, line, about->baseline);
  char name[64];
  snprintf(name, sizeof name, "%s%s", line->workload,
           line->threads == 1   ? ""
           : line->threads == 2 ? ", 2 threads"
                                : ", 8 threads");
  fprintf(file, "%-24s", name);
  if (ours.rounds > 0)
    fprintf(file, "%10.1f %-5s", ours.middle, line->unit);
  else
    fprintf(file, "%16s", "");
  for (size_t i = 0; i < results->count; i++) {
    const struct result *other = &results->list[i];
    if (!same_line(other, line) || !is_first(results, i, true) ||
        strcmp(other->engine, about->baseline) == 0)
      continue;
    struct median median = median_of(results, other, other->engine);
    if (ours.rounds > 0 && ours.middle > 0)
      fprintf(file, "  %s x%.2f", other->engine, median.middle / ours.middle);
    else
      fprintf(file, "  %s %.1f %s", other->engine, median.middle, line->unit);
  }
  fputc('\n', file);
}

void results_print(const struct results *results,
                   const struct circumstances *about, FILE *file) {
  fprintf(file,
          "\n%s: %zu records, keys of %zu bytes, values of %zu, "
          "medians of %zu rounds\n",
          about->suite, about->records, about->key_bytes, about->value_bytes,
          about->rounds);
  fprintf(file, "%-24s%16s  others: times that\n", "", about->baseline);
  for (size_t i = 0; i < results->count; i++)
    if (is_first(results, i, false)) print_line(results, i, about, file);
}
