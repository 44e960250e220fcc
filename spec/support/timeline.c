/* SPDX-License-Identifier: MIT */
/*
 * Events are sorted by time; at the same time, calls come first, so that what
 * only touches counts as overlapping.
 */
#include "timeline.h"

#include <stdlib.h>

static int timeline_compare(const void *left, const void *right) {
  const struct timeline_event *a = left, *b = right;
  if (a->time_ns != b->time_ns) return a->time_ns < b->time_ns ? -1 : 1;
  if (a->is_end != b->is_end) return a->is_end ? 1 : -1;
  return a->operation < b->operation ? -1 : a->operation > b->operation;
}

/* Operations that say nothing, or that are part of another, have no events. */
static bool timeline_has_events(const struct linearizable_history *history,
                                const struct operation *operation) {
  if ((operation->is_unknown || operation->is_optional) &&
      operation_only_reads(operation))
    return false;
  return history->key_count == 1 || !operation_is_joint(operation) ||
         operation->parts > 0;
}

static const char *timeline_list(struct timeline *self) {
  const struct linearizable_history *history = self->history;
  if (history->count > UINT32_MAX / 2) return "too many operations";
  self->events = malloc((2 * history->count + 1) * sizeof *self->events);
  if (self->events == NULL) return "no memory";
  for (size_t i = 0; i < history->count; i++) {
    const struct operation *operation = &history->operations[i];
    if (operation->end_ns < operation->begin_ns)
      return "an operation returned before it was called";
    if (!timeline_has_events(history, operation)) continue;
    self->events[self->count++] = (struct timeline_event){
        .time_ns = operation->begin_ns, .operation = (uint32_t)i};
    if (operation->end_ns != OPERATION_NEVER)
      self->events[self->count++] =
          (struct timeline_event){.time_ns = operation->end_ns,
                                  .operation = (uint32_t)i,
                                  .is_end = true};
  }
  qsort(self->events, self->count, sizeof *self->events, timeline_compare);
  return NULL;
}

static const char *timeline_give_slots(struct timeline *self,
                                       struct linearizable_result *result) {
  uint64_t taken = 0;
  uint8_t *slot_of = malloc(self->history->count + 1);
  bool fits = slot_of != NULL;
  unsigned open = 0;
  for (size_t i = 0; i < self->count && fits; i++) {
    struct timeline_event *event = &self->events[i];
    if (event->is_end) {
      event->slot = slot_of[event->operation];
      taken &= ~timeline_bit(event->slot);
      open--;
    } else if (~taken == 0) {
      fits = false;
    } else {
      event->slot = (uint8_t)__builtin_ctzll(~taken);
      slot_of[event->operation] = event->slot;
      taken |= timeline_bit(event->slot);
      if (++open > result->widest) result->widest = open;
    }
  }
  free(slot_of);
  return fits ? NULL : "too many operations at once";
}

/* The keys, as a mask, that it is about. */
static uint64_t timeline_keys(const struct linearizable_history *history,
                              const struct operation *operation) {
  uint64_t keys = 0;
  for (int i = 0; i < timeline_parts(history, operation); i++)
    keys |= timeline_bit(timeline_key(history, &operation[i]));
  return keys;
}

/* The keys whose values are known once it was alone. */
static uint64_t timeline_shows(const struct linearizable_history *history,
                               const struct operation *operation) {
  if (operation->is_unknown || operation->is_optional) return 0;
  uint64_t keys = timeline_keys(history, operation);
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_GET:
    case OPERATION_DELETE:
    case OPERATION_SWAP:
    case OPERATION_INCR:
    case OPERATION_SNAPSHOT:
    case OPERATION_MOVE:
      return keys;
    case OPERATION_HAS:
      return operation->result == 0 ? keys : 0;
    case OPERATION_PUT:
    case OPERATION_ADD:
    case OPERATION_REPLACE:
    case OPERATION_CAS:
      return operation->result != 0 ? keys : 0;
  }
  return 0;
}

static void timeline_end_window(struct linearizable_result *result,
                                size_t *operations) {
  if (*operations > 1) {
    result->windows++;
    result->in_windows += *operations;
  }
  if (*operations > result->longest_window)
    result->longest_window = *operations;
  *operations = 0;
}

static void timeline_find_cuts(struct timeline *self,
                               struct linearizable_result *result) {
  uint64_t all = timeline_bit(self->history->key_count) - 1, known = 0;
  size_t open = 0, in_window = 0;
  for (size_t i = 0; i < self->count; i++) {
    struct timeline_event *event = &self->events[i];
    const struct operation *operation =
        &self->history->operations[event->operation];
    if (!event->is_end) {
      in_window++;
      open++;
      if (!operation_only_reads(operation))
        known &= ~timeline_keys(self->history, operation);
      continue;
    }
    if (--open > 0) continue;
    if (self->events[i - 1].operation == event->operation)
      known |= timeline_shows(self->history, operation);
    event->is_cut = known == all;
    if (event->is_cut) timeline_end_window(result, &in_window);
  }
  timeline_end_window(result, &in_window);
}

/* From the operations before it that were alone. */
void timeline_values(const struct timeline *self, size_t cut,
                     uint64_t *values) {
  uint64_t missing = timeline_bit(self->history->key_count) - 1;
  for (size_t i = cut; missing != 0 && i > 0; i--) {
    const struct operation *operation =
        &self->history->operations[self->events[i].operation];
    if (!self->events[i].is_end ||
        self->events[i - 1].operation != self->events[i].operation)
      continue;
    uint64_t shown = missing & timeline_shows(self->history, operation);
    for (int part = 0; part < timeline_parts(self->history, operation);
         part++) {
      unsigned key = timeline_key(self->history, &operation[part]);
      if (shown & timeline_bit(key))
        values[key] = operation_shown(&operation[part]);
    }
    missing &= ~shown;
  }
}

const char *timeline_init(struct timeline *self,
                          const struct linearizable_history *history,
                          struct linearizable_result *result) {
  *self = (struct timeline){.history = history};
  const char *why = timeline_list(self);
  if (why == NULL) why = timeline_give_slots(self, result);
  if (why == NULL) timeline_find_cuts(self, result);
  return why;
}

void timeline_destroy(struct timeline *self) { free(self->events); }
