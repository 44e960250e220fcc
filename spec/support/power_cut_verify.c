/* SPDX-License-Identifier: MIT */
/*
 * Looking at what is left after a cut. Each thread's keys tell after which of
 * its operations they can be as they are: the candidates. What was recovered is
 * the state at one commit if a candidate can be chosen for every thread so that
 * no operation is missing that had returned before one began that is there.
 */
#include "power_cut.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "txn/flusher.h"

enum {
  GOING_ON = 20, /* operations after a cut */
  /* For what cannot be measured: threads that wait for a processor. */
  LATE_MS = 500
};

static void *new_buffer(void) {
  void *buffer = malloc(WORK_VALUE_MAX);
  if (buffer == NULL) die("no memory");
  return buffer;
}

static _Noreturn void die_of(const char *what, int code) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  die("%s: %s, %s, offset %llu, errno %d", what, mmcmap_error_name(code),
      error.what == NULL ? "" : error.what, (unsigned long long)error.offset,
      error.system_errno);
}

static mmcmap *open_store(const char *path, bool readonly) {
  mmcmap_options options;
  mmcmap *store;
  mmcmap_options_init(&options);
  options.create = false;
  options.readonly = readonly;
  options.durability = MMCMAP_MANUAL;
  int code = mmcmap_open(path, &options, &store);
  if (code != MMCMAP_OK) die_of("opening after a cut", code);
  return store;
}

/* All records, each of them whole. */
static uint64_t read_state(mmcmap *store, work_state state) {
  mmcmap_snapshot *snapshot;
  mmcmap_cursor *cursor;
  mmcmap_slice key, value;
  uint64_t records = 0;
  memset(state, 0, sizeof(work_state));
  int code = mmcmap_snapshot_open(store, &snapshot);
  if (code == MMCMAP_OK) code = mmcmap_cursor_open(snapshot, &cursor);
  if (code != MMCMAP_OK) die_of("iterating", code);
  while ((code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK) {
    struct operation operation;
    const char *wrong = work_identify(key, value, &operation);
    if (wrong != NULL) die("after a cut: %s", wrong);
    work_apply(&operation, state);
    records++;
  }
  if (code != MMCMAP_NOTFOUND) die_of("iterating", code);
  if (records != mmcmap_snapshot_count(snapshot))
    die("%llu records, counted as %llu", (unsigned long long)records,
        (unsigned long long)mmcmap_snapshot_count(snapshot));
  mmcmap_cursor_close(cursor);
  mmcmap_snapshot_close(snapshot);
  return records;
}

/* Every key by get(), too. */
static void check_gets(mmcmap *store, work_state state) {
  char key_bytes[WORK_KEY_MAX];
  mmcmap_buffer value = {NULL, 0, 0};
  for (uint32_t t = 0; t < WORK_THREADS; t++)
    for (uint32_t i = 0; i < WORK_SLOTS; i++) {
      mmcmap_slice key = {.data = key_bytes};
      key.size = work_key(t, i, key_bytes);
      int code = mmcmap_get(store, key, &value);
      if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) die_of("get", code);
      if ((code == MMCMAP_OK) != (state[t][i].number != 0))
        die("get and iteration do not agree");
      if (code != MMCMAP_OK) continue;
      struct operation operation;
      mmcmap_slice slice = {.data = value.data, .size = value.size};
      const char *wrong = work_identify(key, slice, &operation);
      if (wrong != NULL) die("get: %s", wrong);
      if (operation.number != state[t][i].number ||
          operation.round != state[t][i].round)
        die("get and iteration find different values");
    }
  mmcmap_buffer_free(&value);
}

/* ---- Candidates ------------------------------------------------------------ */

struct candidates {
  uint64_t begun;
  uint64_t least; /* that may be chosen now */
  bool fits[WORK_OPS_MAX + 1];
  bool changes[WORK_OPS_MAX + 1]; /* not the delete of an absent key */
};

static bool is_same(const struct held *a, const struct held *b) {
  return a->round == b->round && a->number == b->number;
}

/* After which operations of `thread` its keys are as they were found. */
static void find_candidates(const struct round *round, uint32_t thread,
                            work_state before, work_state found,
                            struct candidates *candidates) {
  const struct progress *progress = &round->threads[thread];
  uint64_t different = 0;
  candidates->begun = atomic_load(&progress->begun);
  candidates->least = progress->kept;
  for (uint32_t i = 0; i < WORK_SLOTS; i++)
    different += !is_same(&before[thread][i], &found[thread][i]);
  candidates->fits[0] = different == 0;
  for (uint64_t n = 1; n <= candidates->begun; n++) {
    struct operation operation = work_operation(thread, round->number, n);
    struct held *now = &before[thread][operation.slot];
    const struct held *wanted = &found[thread][operation.slot];
    candidates->changes[n] = !operation.is_delete || now->number != 0;
    different -= !is_same(now, wanted);
    work_apply(&operation, before);
    different += !is_same(now, wanted);
    candidates->fits[n] = different == 0;
  }
}

/* Raises `least` to the next candidate. */
static void choose(struct candidates *candidates, uint32_t thread,
                   const char *why) {
  while (candidates->least <= candidates->begun &&
         !candidates->fits[candidates->least])
    candidates->least++;
  if (candidates->least > candidates->begun)
    die("thread %u's keys are not as after any of its operations that %s",
        thread, why);
}

/* True if thread a's next operation, which is missing, had returned before
   thread b's last change began, which is there. */
static bool is_out_of_order(const struct round *round,
                            const struct candidates *all, uint32_t a,
                            uint32_t b) {
  uint64_t missing = all[a].least + 1, there = all[b].least;
  while (there > 0 && !all[b].changes[there])
    there--;
  if (missing > atomic_load(&round->threads[a].done) || there == 0)
    return false;
  return atomic_load(&round->threads[a].done_ns[missing]) <
         atomic_load(&round->threads[b].begun_ns[there]);
}

static void choose_commit(const struct round *round, struct candidates *all) {
  bool has_changed = true;
  for (uint32_t t = 0; t < WORK_THREADS; t++)
    choose(&all[t], t, "keep what was promised");
  while (has_changed) {
    has_changed = false;
    for (uint32_t a = 0; a < WORK_THREADS; a++)
      for (uint32_t b = 0; b < WORK_THREADS; b++)
        if (a != b && is_out_of_order(round, all, a, b)) {
          all[a].least++;
          choose(&all[a], a, "agree with the other threads");
          has_changed = true;
        }
  }
}

/* How much was lost, and how old it was at the cut. */
static void measure_loss(const struct round *round, uint64_t cut_ns,
                         const struct candidates *all,
                         struct findings *findings) {
  for (uint32_t t = 0; t < WORK_THREADS; t++) {
    const struct progress *progress = &round->threads[t];
    /* The last candidate: those after the first may be there as well. */
    uint64_t last = all[t].least;
    for (uint64_t n = last; n <= all[t].begun; n++)
      if (all[t].fits[n]) last = n;
    uint64_t done = atomic_load(&progress->done);
    if (done <= last) continue;
    findings->lost += done - last;
    uint64_t oldest_ns = atomic_load(&progress->done_ns[last + 1]);
    if (oldest_ns < cut_ns && cut_ns - oldest_ns > findings->age_ns)
      findings->age_ns = cut_ns - oldest_ns;
  }
  if (round->level == WORK_MANUAL || atomic_load(&round->is_full)) return;
  /* A change waits for a sync that is under way, then as long as the flusher
     lets the intervals grow, then for its own. */
  uint64_t limit_ns =
      UINT64_C(1000000) *
          (FLUSHER_INTERVALS_MAX * round->interval_ms + LATE_MS) +
      2 * atomic_load(&round->longest_sync_ns);
  if (findings->age_ns > limit_ns)
    die("a change is lost that was made %llu ms before the cut (interval "
        "%u ms, longest sync %llu ms)",
        (unsigned long long)(findings->age_ns / 1000000), round->interval_ms,
        (unsigned long long)(atomic_load(&round->longest_sync_ns) / 1000000));
}

void verify_round(const struct round *round, uint64_t cut_ns, work_state state,
                  struct findings *findings_out) {
  static work_state found;
  static struct candidates all[WORK_THREADS];
  mmcmap_stat stat;
  memset(findings_out, 0, sizeof *findings_out);
  uint64_t before_ns = now_ns();
  /* A recovery that may not write finds the same as one that may. */
  mmcmap *store = open_store(round->path, round->number % 3 == 0);
  findings_out->open_ns = now_ns() - before_ns;
  if (mmcmap_stat_get(store, &stat) != MMCMAP_OK) die("stat");
  findings_out->was_clean = stat.was_clean;
  findings_out->recovered_commits = stat.recovered_commits;
  findings_out->file_bytes = stat.size_bytes;
  findings_out->records = read_state(store, found);
  check_gets(store, found);
  bool has_promise = false;
  for (uint32_t t = 0; t < WORK_THREADS; t++) {
    find_candidates(round, t, state, found, &all[t]);
    if (all[t].least > 0) has_promise = true;
  }
  if (has_promise && stat.was_clean &&
      atomic_load(&round->phase) == PHASE_WRITING)
    die("the store says that it was closed properly");
  choose_commit(round, all);
  measure_loss(round, cut_ns, all, findings_out);
  memcpy(state, found, sizeof found);
  int code = mmcmap_close(store);
  if (code != MMCMAP_OK) die_of("closing", code);
}

void verify_goes_on(struct round *round, work_state state) {
  static work_state found;
  mmcmap_stat stat;
  void *buffer = new_buffer();
  mmcmap *store = open_store(round->path, false);
  round->number++; /* these are a round of their own */
  for (uint64_t n = 1; n <= GOING_ON; n++) {
    struct operation operation =
        work_operation((uint32_t)n % WORK_THREADS, round->number, n);
    int code = work_do(store, &operation, buffer);
    if (code != MMCMAP_OK) die_of("writing after a cut", code);
    work_apply(&operation, state);
  }
  free(buffer);
  int code = mmcmap_close(store);
  if (code != MMCMAP_OK) die_of("closing", code);
  store = open_store(round->path, false);
  if (mmcmap_stat_get(store, &stat) != MMCMAP_OK || !stat.was_clean)
    die("not clean after closing");
  read_state(store, found);
  if (memcmp(found, state, sizeof found) != 0)
    die("operations after a cut are not as they should be");
  code = mmcmap_close(store);
  if (code != MMCMAP_OK) die_of("closing", code);
}
