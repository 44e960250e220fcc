/* SPDX-License-Identifier: MIT */
/*
 * The search. Its place is an event (a call or a return) and a state: which of
 * the operations that are open there are done, and what the registers hold. A
 * state needs a decision at the return of an operation that is not done. Each
 * decision is a frame of a stack, with the options that are left.
 */
#include "linearizable.h"

#include <stdlib.h>
#include <string.h>

#include "counterexample.h"
#include "provenance.h"
#include "timeline.h"

/* Of a window; and some more for each of its events. */
enum { SEARCH_STATES_MAX = 100000, SEARCH_STATES_OF_EVENT = 8 };

struct search_frame {
  size_t at;      /* the event: a return */
  uint64_t done;  /* of the open ones */
  uint64_t first; /* options: open operations to do next */
  uint64_t rest;  /* options, when there is nothing left of those */
  bool may_drop;  /* the option that the operation never took effect */
  uint64_t values[LINEARIZABLE_KEYS_MAX];
};

struct search {
  const struct linearizable_history *history;
  struct timeline timeline;

  size_t at;                             /* the next event */
  uint32_t slots[LINEARIZABLE_OPEN_MAX]; /* their operations */
  uint64_t open, reads, done;            /* slots; `reads` only read */
  uint64_t values[LINEARIZABLE_KEYS_MAX];
  size_t window_at; /* the first event after the last cut */
  struct provenance provenance;

  struct search_frame *frames;
  size_t frame_count, frame_capacity;

  /* A hash table of the states seen since the last cut; an entry is
     generation and event, done, values. */
  uint64_t *table;
  size_t table_size, table_used; /* entries; the size is a power of two */
  uint32_t generation;
  struct linearizable_result *result;
};

static bool search_give_up(struct search *search, const char *why) {
  search->result->verdict = LINEARIZABLE_UNDECIDED;
  search->result->why = why;
  return false;
}

/* ---- States that were seen --------------------------------------------- */

static size_t search_stride(const struct search *search) {
  return 2 + search->history->key_count;
}

static uint64_t search_hash(const uint64_t *entry, size_t stride) {
  uint64_t hash = 0;
  for (size_t i = 0; i < stride; i++) {
    hash = (hash ^ entry[i]) * UINT64_C(0x9e3779b97f4a7c15);
    hash ^= hash >> 29;
  }
  return hash;
}

/* The entry's place, or that of an empty one. */
static uint64_t *search_place(const struct search *search,
                              const uint64_t *entry) {
  size_t stride = search_stride(search), mask = search->table_size - 1;
  for (size_t i = search_hash(entry, stride) & mask;; i = (i + 1) & mask) {
    uint64_t *place = search->table + i * stride;
    if (place[0] >> 32 != search->generation ||
        memcmp(place, entry, stride * sizeof *entry) == 0)
      return place;
  }
}

static bool search_grow_table(struct search *search) {
  size_t stride = search_stride(search), old_size = search->table_size;
  size_t size = old_size == 0 ? 1024 : 2 * old_size;
  uint64_t *old = search->table;
  search->table = calloc(size * stride, sizeof *old);
  if (search->table == NULL) {
    search->table = old;
    return search_give_up(search, "no memory");
  }
  search->table_size = size;
  for (size_t i = 0; i < old_size; i++)
    if (old[i * stride] >> 32 == search->generation)
      memcpy(search_place(search, old + i * stride), old + i * stride,
             stride * sizeof *old);
  free(old);
  return true;
}

/* Whether the present state is new; it is noted. */
static bool search_is_new(struct search *search, bool *is_new_out) {
  uint64_t entry[2 + LINEARIZABLE_KEYS_MAX];
  size_t stride = search_stride(search);
  if (search->table_used >
      SEARCH_STATES_MAX +
          SEARCH_STATES_OF_EVENT * (search->at - search->window_at))
    return search_give_up(search, "too many states");
  if (2 * search->table_used >= search->table_size &&
      !search_grow_table(search))
    return false;
  entry[0] = (uint64_t)search->generation << 32 | search->at;
  entry[1] = search->done;
  memcpy(entry + 2, search->values, (stride - 2) * sizeof *entry);
  uint64_t *place = search_place(search, entry);
  *is_new_out = place[0] >> 32 != search->generation;
  if (*is_new_out) {
    memcpy(place, entry, stride * sizeof *entry);
    search->table_used++;
    search->result->visited++;
  }
  return true;
}

/* ---- Steps ------------------------------------------------------------- */

static const struct operation *search_at(const struct search *search,
                                         unsigned slot) {
  return &search->history->operations[search->slots[slot]];
}

/* Does one operation to `values`, if its answer allows it now. */
static bool search_apply(const struct search *search,
                         const struct operation *operation, uint64_t *values) {
  for (int i = 0; i < timeline_parts(search->history, operation); i++) {
    uint64_t *value = &values[timeline_key(search->history, &operation[i])];
    if (!operation_apply(&operation[i], *value, value)) return false;
  }
  return true;
}

/* Does all open operations that only read and whose answers fit now. */
static void search_settle(struct search *search) {
  uint64_t waiting = search->open & search->reads & ~search->done;
  for (; waiting != 0; waiting &= waiting - 1) {
    unsigned slot = (unsigned)__builtin_ctzll(waiting);
    if (search_apply(search, search_at(search, slot), search->values))
      search->done |= timeline_bit(slot);
  }
}

static void search_cut(struct search *search, size_t at) {
  struct linearizable_result *result = search->result;
  search->window_at = at + 1;
  search->frame_count = search->table_used = 0;
  search->generation++;
  result->has_cut = true;
  result->cut_ns = search->timeline.events[at].time_ns;
  memcpy(result->values, search->values, sizeof result->values);
}

/* To the next return that needs a decision; false at the end. */
static bool search_advance(struct search *search) {
  for (; search->at < search->timeline.count; search->at++) {
    const struct timeline_event *event = &search->timeline.events[search->at];
    uint64_t bit = timeline_bit(event->slot);
    if (!event->is_end) {
      const struct operation *operation =
          &search->history->operations[event->operation];
      search->slots[event->slot] = event->operation;
      search->open |= bit;
      search->reads &= ~bit;
      if (operation_only_reads(operation)) search->reads |= bit;
      search_settle(search);
    } else {
      if (!(search->done & bit)) return true;
      search->done &= ~bit;
      search->open &= ~bit;
    }
    if (event->is_cut) search_cut(search, search->at);
  }
  return false;
}

/* Takes back events, so that slots are those of an earlier one. */
static void search_rewind(struct search *search, size_t at) {
  while (search->at > at) {
    const struct timeline_event *event = &search->timeline.events[--search->at];
    uint64_t bit = timeline_bit(event->slot);
    search->reads &= ~bit;
    search->open &= ~bit;
    if (!event->is_end) continue;
    search->slots[event->slot] = event->operation;
    search->open |= bit;
    if (operation_only_reads(search_at(search, event->slot)))
      search->reads |= bit;
  }
}

/* ---- Decisions --------------------------------------------------------- */

/*
 * The open changes that may have to come before `operation`. What shares no
 * key with it can wait, unless an operation of several keys waits too: between
 * those of one key each, only those of the same key are in each other's way.
 */
static uint64_t search_candidates(const struct search *search,
                                  const struct operation *operation) {
  uint64_t changes = search->open & ~search->reads & ~search->done;
  uint64_t waiting = search->open & ~search->done, related = 0;
  if (search->history->key_count == 1) return changes;
  for (; waiting != 0; waiting &= waiting - 1)
    if (operation_is_joint(
            search_at(search, (unsigned)__builtin_ctzll(waiting))))
      return changes;
  for (uint64_t left = changes; left != 0; left &= left - 1) {
    unsigned slot = (unsigned)__builtin_ctzll(left);
    if (search_at(search, slot)->key == operation->key)
      related |= timeline_bit(slot);
  }
  return related;
}

/* The promising options first: the operation itself, else what makes it
   possible. */
static void search_list_options(const struct search *search,
                                struct search_frame *frame) {
  unsigned slot = search->timeline.events[search->at].slot;
  const struct operation *operation = search_at(search, slot);
  uint64_t values[LINEARIZABLE_KEYS_MAX];
  frame->may_drop = operation->is_unknown || operation->is_optional;
  frame->rest = search_candidates(search, operation);
  frame->first = frame->rest & timeline_bit(slot);
  memcpy(values, search->values, sizeof values);
  if (frame->first == 0 || !search_apply(search, operation, values)) {
    frame->first = 0;
    for (uint64_t left = frame->rest; left != 0; left &= left - 1) {
      unsigned other = (unsigned)__builtin_ctzll(left);
      memcpy(values, search->values, sizeof values);
      if (other != slot &&
          search_apply(search, search_at(search, other), values) &&
          search_apply(search, operation, values))
        frame->first |= timeline_bit(other);
    }
  }
  frame->rest &= ~frame->first;
}

/* Whether somebody must still find the value of `key` that the change in `slot`
   would do away with, and that would not come back. */
static bool search_is_needed(const struct search *search, unsigned slot,
                             unsigned key) {
  uint64_t value = search->values[key], need;
  uint64_t open = search->open & ~search->done & ~timeline_bit(slot);
  if (!provenance_is_unique(&search->provenance, key, value)) return false;
  if (provenance_is_needed(&search->provenance, key, value, search->at))
    return true;
  for (; open != 0; open &= open - 1) {
    const struct operation *other =
        search_at(search, (unsigned)__builtin_ctzll(open));
    for (int i = 0; i < timeline_parts(search->history, other); i++)
      if (timeline_key(search->history, &other[i]) == key &&
          provenance_need(&other[i], &need) && need == value)
        return true;
  }
  return false;
}

static bool search_is_too_early(const struct search *search, unsigned slot) {
  const struct operation *change = search_at(search, slot);
  for (int i = 0; i < timeline_parts(search->history, change); i++)
    if (search_is_needed(search, slot,
                         timeline_key(search->history, &change[i])))
      return true;
  return false;
}

static bool search_push(struct search *search) {
  if (search->frame_count == search->frame_capacity) {
    size_t capacity = search->frame_capacity * 2 + 64;
    void *frames = realloc(search->frames, capacity * sizeof *search->frames);
    if (frames == NULL) return search_give_up(search, "no memory");
    search->frames = frames;
    search->frame_capacity = capacity;
  }
  struct search_frame *frame = &search->frames[search->frame_count++];
  frame->at = search->at;
  frame->done = search->done;
  memcpy(frame->values, search->values, sizeof frame->values);
  search_list_options(search, frame);
  return true;
}

/* Takes one option of a frame, if it is possible. */
static bool search_take(struct search *search, struct search_frame *frame) {
  uint64_t *from = frame->first != 0 ? &frame->first : &frame->rest;
  unsigned slot = (unsigned)__builtin_ctzll(*from);
  *from &= *from - 1;
  if (search_is_too_early(search, slot) ||
      !search_apply(search, search_at(search, slot), search->values))
    return false;
  search->done |= timeline_bit(slot);
  search_settle(search);
  return true;
}

/* Takes the next option of the newest decision that has one left. */
static bool search_choose(struct search *search) {
  while (search->frame_count > 0) {
    struct search_frame *frame = &search->frames[search->frame_count - 1];
    search_rewind(search, frame->at);
    search->done = frame->done;
    memcpy(search->values, frame->values, sizeof frame->values);
    if (frame->may_drop) {
      frame->may_drop = false;
      search->done |= timeline_bit(search->timeline.events[frame->at].slot);
      return true;
    }
    if ((frame->first | frame->rest) == 0)
      search->frame_count--;
    else if (search_take(search, frame))
      return true;
  }
  return false;
}

/* ---- The whole --------------------------------------------------------- */

static bool search_trace_values(struct search *search) {
  const struct linearizable_history *history = search->history;
  struct provenance *provenance = &search->provenance;
  if (!provenance_init(provenance, history->count + history->key_count))
    return search_give_up(search, "no memory");
  for (unsigned key = 0; key < history->key_count; key++)
    provenance_begin(provenance, key, history->initial[key]);
  for (size_t i = 0; i < history->count; i++)
    provenance_note_maker(
        provenance, &history->operations[i],
        timeline_key(search->history, &history->operations[i]));
  for (size_t i = 0; i < search->timeline.count; i++) {
    const struct operation *operation =
        &history->operations[search->timeline.events[i].operation];
    if (search->timeline.events[i].is_end) continue;
    for (int part = 0; part < timeline_parts(search->history, operation);
         part++)
      provenance_note_need(provenance, &operation[part],
                           timeline_key(search->history, &operation[part]),
                           i + 1);
  }
  return true;
}

/* Goes on after the present window; false if there is none. */
static bool search_skip(struct search *search) {
  size_t cut = search->at;
  search->result->undecided_windows++;
  while (cut < search->timeline.count && !search->timeline.events[cut].is_cut)
    cut++;
  if (cut == search->timeline.count) return false;
  timeline_values(&search->timeline, cut, search->values);
  search->at = cut + 1;
  search->open = search->done = search->reads = 0;
  search_cut(search, cut);
  return true;
}

static void search_run(struct search *search) {
  struct linearizable_result *result = search->result;
  bool is_new;
  while (search_advance(search)) {
    if (!search_is_new(search, &is_new) || (is_new && !search_push(search))) {
      if (!search_skip(search)) return;
    } else if (!search_choose(search)) {
      result->verdict = LINEARIZABLE_WRONG;
      return;
    }
  }
  if (result->undecided_windows == 0) result->verdict = LINEARIZABLE_RIGHT;
  memcpy(result->values, search->values, sizeof result->values);
}

void linearizable_check(const struct linearizable_history *history,
                        struct linearizable_result *result_out) {
  struct search search = {.history = history, .result = result_out};
  memset(result_out, 0, sizeof *result_out);
  search.generation = 1;
  memcpy(search.values, history->initial, sizeof search.values);
  memcpy(result_out->values, history->initial, sizeof search.values);
  const char *why = timeline_init(&search.timeline, history, result_out);
  if (why != NULL) {
    search_give_up(&search, why);
    result_out->undecided_windows = 1;
  } else if (search_trace_values(&search)) {
    search_run(&search);
  } else {
    result_out->undecided_windows = 1;
  }
  timeline_destroy(&search.timeline);
  free(search.frames);
  free(search.table);
  provenance_destroy(&search.provenance);
}

/* ---- All keys ---------------------------------------------------------- */

/* False if the history is wrong; what is undecided stays so. */
static bool linearizable_step(const struct linearizable_history *history,
                              const char *name, FILE *report,
                              struct linearizable_result *sum) {
  struct linearizable_result result;
  linearizable_check(history, &result);
  if (result.verdict != LINEARIZABLE_RIGHT) {
    sum->verdict = result.verdict;
    sum->why = result.why;
  }
  if (history->key_count == 1) {
    sum->windows += result.windows;
    sum->in_windows += result.in_windows;
  }
  sum->visited += result.visited;
  sum->undecided_windows += result.undecided_windows;
  if (result.longest_window > sum->longest_window)
    sum->longest_window = result.longest_window;
  if (result.widest > sum->widest) sum->widest = result.widest;
  memcpy(sum->values, result.values, sizeof sum->values);
  if (result.verdict == LINEARIZABLE_WRONG && report != NULL)
    counterexample_print(history, &result, name, report);
  if (result.verdict == LINEARIZABLE_UNDECIDED && report != NULL)
    fprintf(report, "undecided: %zu windows of %s: %s\n",
            result.undecided_windows, name, result.why);
  return result.verdict != LINEARIZABLE_WRONG;
}

static size_t linearizable_pick(const struct operation *operations,
                                size_t count, unsigned key,
                                struct operation *out) {
  size_t picked = 0;
  for (size_t i = 0; i < count; i++)
    if (operations[i].key == key) out[picked++] = operations[i];
  return picked;
}

void linearizable_check_all(const struct operation *operations, size_t count,
                            unsigned key_count, bool is_joint,
                            uint64_t *initial, FILE *report,
                            struct linearizable_result *result_out) {
  struct operation *own = malloc((count + 1) * sizeof *own);
  struct linearizable_history one = {.operations = own, .key_count = 1};
  struct linearizable_history all = {
      .operations = operations, .count = count, .key_count = key_count};
  bool goes_on = own != NULL;
  memset(result_out, 0, sizeof *result_out);
  if (own == NULL) {
    result_out->verdict = LINEARIZABLE_UNDECIDED;
    result_out->why = "no memory";
  }
  if (is_joint) memcpy(all.initial, initial, key_count * sizeof *initial);
  for (unsigned key = 0; key < key_count && goes_on; key++) {
    char name[32];
    snprintf(name, sizeof name, "key %u", key);
    one.count = linearizable_pick(operations, count, key, own);
    one.initial[0] = initial[key];
    goes_on = linearizable_step(&one, name, report, result_out);
    if (goes_on) initial[key] = result_out->values[0];
  }
  if (goes_on && is_joint && key_count > 1)
    linearizable_step(&all, "all keys", report, result_out);
  free(own);
}
