/* SPDX-License-Identifier: MIT */
/*
 * Each step leaves out a part and keeps to it only if the checker refuses the
 * rest, whatever the keys may have held before.
 */
#include "counterexample.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "provenance.h"

/* A value that nobody writes. */
#define COUNTEREXAMPLE_OTHER UINT64_C(0x5bd1e995a3c59ac3)

/* The client of what is not printed. */
#define COUNTEREXAMPLE_NOBODY UINT16_MAX

enum {
  COUNTEREXAMPLE_VALUES_MAX = 512, /* that a key may have held before */
  COUNTEREXAMPLE_TRIES_MAX = 3000,
  COUNTEREXAMPLE_LINES_MAX = 300
};

struct counterexample {
  struct operation *operations; /* in order of their calls */
  size_t count;
  unsigned key_count;
  bool is_any;                         /* before: any value; else `values` */
  const struct provenance *provenance; /* of the whole history */
  uint64_t values[LINEARIZABLE_KEYS_MAX];
};

/* ---- Is it still wrong? ------------------------------------------------ */

static bool counterexample_refused(const struct counterexample *self,
                                   const uint64_t *values) {
  struct linearizable_history history = {.operations = self->operations,
                                         .count = self->count,
                                         .key_count = self->key_count};
  struct linearizable_result result;
  memcpy(history.initial, values, self->key_count * sizeof *values);
  linearizable_check(&history, &result);
  return result.verdict == LINEARIZABLE_WRONG;
}

static bool counterexample_add(uint64_t *values, size_t *count,
                               uint64_t value) {
  for (size_t i = 0; i < *count; i++)
    if (values[i] == value) return true;
  if (*count == COUNTEREXAMPLE_VALUES_MAX) return false;
  values[(*count)++] = value;
  return true;
}

/* All values before that could make a difference, one of no meaning first;
   0 if they cannot be told. */
static size_t counterexample_list_values(const struct counterexample *self,
                                         uint64_t *values) {
  size_t count = 2;
  values[0] = COUNTEREXAMPLE_OTHER;
  values[1] = OPERATION_ABSENT;
  for (size_t i = 0; i < self->count; i++) {
    const struct operation *operation = &self->operations[i];
    uint64_t value = operation->result;
    bool is_incr = operation->kind == OPERATION_INCR;
    if (is_incr && operation->is_unknown) return 0;
    if (is_incr && value != OPERATION_ABSENT) value -= operation->argument;
    if (operation->kind == OPERATION_CAS) value = operation->expected;
    if (operation->kind != OPERATION_GET && operation->kind != OPERATION_CAS &&
        operation->kind != OPERATION_SWAP && !is_incr &&
        !operation_is_joint(operation))
      continue;
    if (!provenance_is_possible(self->provenance, 0, value)) continue;
    if (!counterexample_add(values, &count, value)) return 0;
  }
  return count;
}

static bool counterexample_is_wrong(const struct counterexample *self) {
  uint64_t values[COUNTEREXAMPLE_VALUES_MAX];
  if (!self->is_any || self->key_count > 1)
    return counterexample_refused(self, self->values);
  size_t count = counterexample_list_values(self, values);
  for (size_t i = 0; i < count; i++)
    if (!counterexample_refused(self, &values[i])) return false;
  return count > 0;
}

/* ---- Leaving out ------------------------------------------------------- */

static struct counterexample
counterexample_copy(const struct counterexample *from) {
  struct counterexample to = *from;
  to.operations =
      malloc((2 * from->count + from->key_count) * sizeof *to.operations);
  if (to.operations == NULL) abort();
  memcpy(to.operations, from->operations, from->count * sizeof *to.operations);
  return to;
}

/* Without those of nobody. */
static size_t counterexample_size(const struct counterexample *self) {
  size_t size = 0;
  for (size_t i = 0; i < self->count; i++)
    size += self->operations[i].client != COUNTEREXAMPLE_NOBODY;
  return size;
}

/* `trial` takes the place of `self`, or goes. */
static bool counterexample_take(struct counterexample *self,
                                struct counterexample *trial) {
  bool takes = counterexample_size(trial) < counterexample_size(self) &&
               counterexample_is_wrong(trial);
  if (takes) {
    free(self->operations);
    *self = *trial;
  } else {
    free(trial->operations);
  }
  return takes;
}

static int counterexample_compare(const void *left, const void *right) {
  const struct operation *a = left, *b = right;
  if (a->begin_ns != b->begin_ns) return a->begin_ns < b->begin_ns ? -1 : 1;
  if (a->client != b->client) return a->client < b->client ? -1 : 1;
  if (a->parts != b->parts) return a->parts > b->parts ? -1 : 1;
  return a->key < b->key ? -1 : a->key > b->key;
}

static int counterexample_compare_ns(const void *left, const void *right) {
  uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
  return a < b ? -1 : a > b;
}

/* Whether the value of a key is made by one operation, which is in there. */
static bool counterexample_makes(const struct counterexample *self,
                                 unsigned key, uint64_t value) {
  if (!provenance_is_unique(self->provenance, key, value)) return false;
  for (size_t i = 0; i < self->count; i++) {
    const struct operation *operation = &self->operations[i];
    if (operation->key == key && !operation_only_reads(operation) &&
        operation->kind != OPERATION_DELETE && operation->argument == value)
      return true;
  }
  return false;
}

static void counterexample_perhaps(struct counterexample *self, unsigned key,
                                   uint64_t value, uint64_t ns) {
  struct operation perhaps = {.begin_ns = ns,
                              .end_ns = ns,
                              .argument = value,
                              .result = 1,
                              .key = (uint16_t)key,
                              .client = COUNTEREXAMPLE_NOBODY,
                              .kind = OPERATION_PUT,
                              .is_optional = true};
  if (value == OPERATION_ABSENT) perhaps.kind = OPERATION_DELETE;
  for (size_t i = 0; i < self->count; i++)
    if (self->operations[i].client == COUNTEREXAMPLE_NOBODY &&
        self->operations[i].key == key && self->operations[i].argument == value)
      return;
  self->operations[self->count++] = perhaps;
}

/* For a joint check: keys hold what nobody writes, and operations of nobody at
   `ns` may change that to all that is seen later. False if that cannot be told.
   There has to be room for as many more. */
static bool counterexample_allow_any(struct counterexample *self, uint64_t ns) {
  size_t count = self->count;
  uint64_t value;
  for (unsigned key = 0; key < self->key_count; key++) {
    self->values[key] = COUNTEREXAMPLE_OTHER;
    counterexample_perhaps(self, key, OPERATION_ABSENT, ns);
  }
  for (size_t i = 0; i < count; i++) {
    struct operation operation = self->operations[i];
    if (operation.kind == OPERATION_INCR) return false;
    operation.is_optional = false;
    if (provenance_need(&operation, &value) &&
        provenance_is_possible(self->provenance, operation.key, value) &&
        !counterexample_makes(self, operation.key, value))
      counterexample_perhaps(self, operation.key, value, ns);
  }
  qsort(self->operations, self->count, sizeof *self->operations,
        counterexample_compare);
  return true;
}

/* Leaves out what had returned at `ns`; the keys may then hold anything. */
static bool counterexample_begin_at(struct counterexample *self, uint64_t ns) {
  struct counterexample trial = counterexample_copy(self);
  trial.count = 0;
  trial.is_any = true;
  for (size_t i = 0; i < self->count; i++) {
    struct operation operation = self->operations[i];
    if (operation.end_ns <= ns) continue;
    if (operation.begin_ns <= ns) operation.is_optional = true;
    if (operation.is_optional && operation_only_reads(&operation)) continue;
    if (operation.client != COUNTEREXAMPLE_NOBODY)
      trial.operations[trial.count++] = operation;
  }
  if (self->key_count > 1 && !counterexample_allow_any(&trial, ns))
    trial.count = self->count;
  return counterexample_take(self, &trial);
}

/* The more is left out, the more is allowed: so the last moment that will do
   is found by halves. */
static void counterexample_leave_out_begin(struct counterexample *self) {
  size_t count = self->count, low = 0, step = 8;
  uint64_t *ends = malloc((count + 1) * sizeof *ends);
  if (ends == NULL) abort();
  for (size_t i = 0; i < count; i++)
    ends[i] = self->operations[i].end_ns;
  qsort(ends, count, sizeof *ends, counterexample_compare_ns);
  while (count > 0 && ends[count - 1] == OPERATION_NEVER)
    count--;
  size_t high = count; /* this many are too many to leave out */
  for (; step < count; step *= 2) {
    if (counterexample_begin_at(self, ends[count - step - 1])) {
      low = count - step;
      break;
    }
    high = count - step;
  }
  while (low + 1 < high) {
    size_t middle = low + (high - low) / 2;
    if (counterexample_begin_at(self, ends[middle - 1]))
      low = middle;
    else
      high = middle;
  }
  free(ends);
}

static void counterexample_leave_out_reads(struct counterexample *self) {
  unsigned tries = 0;
  for (size_t size = self->count; size > 0; size /= 2) {
    for (size_t at = 0; at < self->count;) {
      struct counterexample trial = counterexample_copy(self);
      trial.count = 0;
      for (size_t i = 0; i < self->count; i++) {
        size_t whole = i; /* parts of an operation go together */
        while (self->key_count > 1 && whole > 0 &&
               operation_is_joint(&self->operations[whole]) &&
               self->operations[whole].parts == 0)
          whole--;
        if (whole < at || whole >= at + size ||
            !operation_only_reads(&self->operations[whole]))
          trial.operations[trial.count++] = self->operations[i];
      }
      if (++tries > COUNTEREXAMPLE_TRIES_MAX) {
        free(trial.operations);
        return;
      }
      if (!counterexample_take(self, &trial)) at += size;
    }
  }
}

/* ---- Printing ---------------------------------------------------------- */

/* What lies between the last cut and the return at `end_ns`. What was open
   then may take effect later. */
static struct counterexample
counterexample_until(const struct linearizable_history *from,
                     const struct linearizable_result *result,
                     uint64_t end_ns) {
  struct counterexample self = {.key_count = from->key_count};
  self.operations = malloc((from->count + 1) * sizeof *self.operations);
  if (self.operations == NULL) abort();
  memcpy(self.values, result->values, sizeof self.values);
  for (size_t i = 0; i < from->count; i++) {
    struct operation operation = from->operations[i];
    if (operation.begin_ns > end_ns ||
        (result->has_cut && operation.end_ns <= result->cut_ns))
      continue;
    if (operation.end_ns > end_ns) operation.is_optional = true;
    if (operation.is_optional && operation_only_reads(&operation)) continue;
    self.operations[self.count++] = operation;
  }
  qsort(self.operations, self.count, sizeof *self.operations,
        counterexample_compare);
  return self;
}

/* The first return that no order allows, by halves: what is right up to a
   return is right up to each earlier one. */
static uint64_t
counterexample_find_end(const struct linearizable_history *history,
                        const struct linearizable_result *result) {
  size_t count = 0, low = 0;
  uint64_t *ends = malloc((history->count + 1) * sizeof *ends);
  if (ends == NULL) abort();
  for (size_t i = 0; i < history->count; i++) {
    uint64_t end_ns = history->operations[i].end_ns;
    if (end_ns != OPERATION_NEVER &&
        (!result->has_cut || end_ns > result->cut_ns))
      ends[count++] = end_ns;
  }
  qsort(ends, count, sizeof *ends, counterexample_compare_ns);
  /* The operations up to ends[high] are wrong. */
  for (size_t high = count; low < high;) {
    size_t middle = low + (high - low) / 2;
    struct counterexample trial =
        counterexample_until(history, result, ends[middle]);
    if (counterexample_is_wrong(&trial))
      high = middle;
    else
      low = middle + 1;
    free(trial.operations);
  }
  uint64_t end_ns = low < count ? ends[low] : OPERATION_NEVER;
  free(ends);
  return end_ns;
}

static void counterexample_print_values(const struct counterexample *self,
                                        FILE *to) {
  char text[24];
  fprintf(to, "before:");
  if (self->is_any)
    fprintf(to, " any value that is ever there");
  else
    for (unsigned key = 0; key < self->key_count; key++)
      fprintf(to, " %s", operation_value(self->values[key], text));
  fprintf(to, "\n");
}

static void counterexample_print_line(const struct operation *operation,
                                      uint64_t first_ns, uint64_t failed_ns,
                                      FILE *to) {
  char text[160], end[24] = "-";
  operation_print(operation, text, sizeof text);
  if (operation->end_ns != OPERATION_NEVER)
    snprintf(end, sizeof end, "%" PRIu64, operation->end_ns - first_ns);
  fprintf(to, "%12" PRIu64 " %12s %7u %5u  %s%s\n",
          operation->begin_ns - first_ns, end, operation->client,
          operation->key, text,
          operation->end_ns == failed_ns ? "   <- cannot be"
          : operation->is_optional       ? "   (perhaps)"
                                         : "");
}

static bool counterexample_trace(const struct linearizable_history *history,
                                 struct provenance *provenance) {
  if (!provenance_init(provenance, history->count + history->key_count))
    return false;
  for (unsigned key = 0; key < history->key_count; key++)
    provenance_begin(provenance, key, history->initial[key]);
  for (size_t i = 0; i < history->count; i++)
    provenance_note_maker(
        provenance, &history->operations[i],
        history->key_count == 1 ? 0 : history->operations[i].key);
  return true;
}

void counterexample_print(const struct linearizable_history *history,
                          const struct linearizable_result *result,
                          const char *name, FILE *to) {
  uint64_t failed_ns = counterexample_find_end(history, result);
  struct counterexample self = counterexample_until(history, result, failed_ns);
  struct provenance provenance;
  if (!counterexample_trace(history, &provenance)) abort();
  self.provenance = &provenance;
  bool is_wrong = counterexample_is_wrong(&self);
  if (is_wrong) counterexample_leave_out_begin(&self);
  if (is_wrong) counterexample_leave_out_reads(&self);
  uint64_t first_ns = OPERATION_NEVER;
  for (size_t i = 0; i < self.count; i++)
    if (self.operations[i].client != COUNTEREXAMPLE_NOBODY &&
        self.operations[i].begin_ns < first_ns)
      first_ns = self.operations[i].begin_ns;
  fprintf(to,
          "not linearizable: %s, these %zu operations from %" PRIu64
          " ns on%s\n",
          name, counterexample_size(&self), first_ns,
          is_wrong ? "" : " (not wrong by themselves: a fault of the checker)");
  counterexample_print_values(&self, to);
  fprintf(to, "    begin ns       end ns  client   key  operation: result\n");
  size_t begin = self.count > COUNTEREXAMPLE_LINES_MAX
                     ? self.count - COUNTEREXAMPLE_LINES_MAX
                     : 0;
  if (begin > 0) fprintf(to, "         ... (%zu are not shown)\n", begin);
  for (size_t i = begin; i < self.count; i++)
    if (self.operations[i].client != COUNTEREXAMPLE_NOBODY)
      counterexample_print_line(&self.operations[i], first_ns, failed_ns, to);
  free(self.operations);
  provenance_destroy(&provenance);
}
