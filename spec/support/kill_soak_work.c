/* SPDX-License-Identifier: MIT */
/*
 * Work: what the threads of a process do until it is killed or told to stop.
 * A thread first settles what its predecessor has left: of each own key it gets
 * what is there, and notes that, so that from then on it knows exactly what
 * each call must find. Of what others own it checks what can be known.
 */
#include "kill_soak.h"

#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "handle.h"
#include "maint/cleaner.h"
#include "os/process.h"
#include "share/owner_lock.h"
#include "store.h"

enum { CLEAN_BYTES = 32768 };

struct worker {
  struct soak *soak;
  struct slot *slot;
  unsigned thread;
  unsigned writer;
  struct writer_notes *notes;
  struct mark *mark;
  mmcmap *store; /* a handle of its own */
  int level;
  struct chance chance;
  struct found pair[PAIR_KEYS]; /* as they are now */
  uint8_t *buffer;              /* for values that are put */
  mmcmap_buffer value;
  struct view *view;
  pthread_t id;
};

/* ---- Marks ------------------------------------------------------------------ */

void mark_begin(struct mark *mark, enum doing doing, unsigned key) {
  atomic_store(&mark->doing, (int)doing);
  atomic_store(&mark->key, key);
  atomic_store(&mark->since_ns, process_monotonic_ns());
}

void mark_end(struct soak *soak, struct mark *mark) {
  uint64_t waited_ns = process_monotonic_ns() - atomic_load(&mark->since_ns);
  uint64_t wait = waited_ns * DOINGS_MAX + (unsigned)atomic_load(&mark->doing);
  uint64_t longest = atomic_load(&soak->longest);
  while (wait > longest &&
         !atomic_compare_exchange_weak(&soak->longest, &longest, wait)) {
  }
  atomic_store(&mark->since_ns, 0);
}

/* ---- Own keys --------------------------------------------------------------- */

/* Gets a key; `found_out->number` is 0 if it is not there. */
static void get(struct worker *worker, unsigned writer, unsigned key,
                struct found *found_out) {
  struct soak *soak = worker->soak;
  char bytes[KEY_SIZE_MAX];
  mmcmap_slice slice = soak_key(soak, writer, key, bytes);
  mark_begin(worker->mark, DOING_GET, key);
  int code = mmcmap_get(worker->store, slice, &worker->value);
  mark_end(soak, worker->mark);
  memset(found_out, 0, sizeof *found_out);
  atomic_fetch_add(&soak->gets, 1);
  if (code == MMCMAP_NOTFOUND) return;
  if (code != MMCMAP_OK) soak_fail(soak, "get", code);
  mmcmap_slice value = {.data = worker->value.data, .size = worker->value.size};
  const char *wrong = soak_identify(soak, slice, value, found_out);
  if (wrong != NULL)
    soak_fault(soak, "the value of \"%s\" %s, %zu bytes", bytes, wrong,
               value.size);
}

/* The process before this one was killed: what was it doing, and was it done? */
static void settle(struct worker *worker) {
  for (unsigned key = 0; key < OWN_KEYS; key++) {
    struct note *note = &worker->notes->keys[key];
    struct found found;
    uint64_t acked = atomic_load(&note->acked);
    uint64_t begun = atomic_load(&note->begun);
    get(worker, worker->writer, key, &found);
    if (key < PAIR_KEYS) worker->pair[key] = found;
    if (acked != begun && found.number == word_value(begun))
      atomic_store(&note->acked, begun);
    else if (found.number == word_value(acked))
      atomic_store(&note->begun, acked);
    else
      soak_fault(worker->soak,
                 "slot %u, thread %u, key %u: after a kill number %llu is "
                 "there (0: none); acknowledged was %#llx, begun %#llx",
                 worker->slot->number, worker->thread, key,
                 (unsigned long long)found.number, (unsigned long long)acked,
                 (unsigned long long)begun);
  }
  bank_settle(worker->soak, worker->store, worker->writer, worker->mark);
}

/* The number of a new operation on a key, which is then begun. */
static uint64_t begin(struct worker *worker, unsigned key, uint64_t flags) {
  uint64_t number = atomic_load(&worker->notes->last_number) + 1;
  atomic_store(&worker->notes->last_number, number);
  atomic_store(&worker->notes->keys[key].begun, number | flags);
  return number;
}

static void acknowledge(struct worker *worker, unsigned key) {
  struct note *note = &worker->notes->keys[key];
  atomic_store(&note->acked, atomic_load(&note->begun));
  atomic_fetch_add(&worker->soak->acknowledged, 1);
}

/* Mostly little; at times so much that it lies on pages of its own. */
static size_t choose_size(struct chance *chance) {
  uint64_t dice = chance_below(chance, 1000);
  if (dice < 3) return 260 * 1024 + chance_below(chance, 130 * 1024);
  if (dice < 50) return chance_below(chance, 20000);
  return 16 + chance_below(chance, dice < 300 ? 3000 : 200);
}

static void put(struct worker *worker, unsigned key, uint64_t pair) {
  char bytes[KEY_SIZE_MAX];
  size_t size = choose_size(&worker->chance);
  struct found what = {.writer = worker->writer, .key = key, .pair = pair};
  mmcmap_slice slice = soak_key(worker->soak, worker->writer, key, bytes);
  what.number = begin(worker, key, 0);
  mmcmap_slice value = soak_value(&what, size, worker->buffer);
  mark_begin(worker->mark, DOING_PUT, key);
  int code = mmcmap_put(worker->store, slice, value);
  mark_end(worker->soak, worker->mark);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "put", code);
  acknowledge(worker, key);
  if (key < PAIR_KEYS) worker->pair[key] = what;
}

static void delete (struct worker *worker, unsigned key) {
  char bytes[KEY_SIZE_MAX];
  mmcmap_slice slice = soak_key(worker->soak, worker->writer, key, bytes);
  bool was_there =
      word_value(atomic_load(&worker->notes->keys[key].acked)) != 0;
  begin(worker, key, WORD_DELETES);
  mark_begin(worker->mark, DOING_DELETE, key);
  int code = mmcmap_delete(worker->store, slice);
  mark_end(worker->soak, worker->mark);
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND)
    soak_fail(worker->soak, "delete", code);
  if (key < OWN_KEYS && (code == MMCMAP_OK) != was_there)
    soak_fault(worker->soak, "slot %u, thread %u, key %u: delete says %s",
               worker->slot->number, worker->thread, key,
               mmcmap_error_name(code));
  acknowledge(worker, key);
}

static void put_pair(struct worker *worker) {
  const struct found *first = &worker->pair[PAIR_FIRST];
  const struct found *second = &worker->pair[PAIR_SECOND];
  if (first->number == second->pair)
    put(worker, PAIR_FIRST, second->number);
  else
    put(worker, PAIR_SECOND, first->number);
}

/* ---- Anybody's keys --------------------------------------------------------- */

static void get_own(struct worker *worker, unsigned writer, unsigned key) {
  struct found found;
  view_prepare_key(worker->soak, worker->view, writer, key);
  get(worker, writer, key, &found);
  view_check_own(worker->soak, worker->view, writer, key, &found);
}

static void get_shared(struct worker *worker, unsigned key) {
  struct found found;
  for (unsigned w = 0; w < soak_writer_count(worker->soak); w++)
    view_prepare_key(worker->soak, worker->view, w, key);
  get(worker, worker->writer, key, &found);
  view_check_shared(worker->soak, worker->view, key, &found);
}

static void count(struct worker *worker) {
  uint64_t records = 0;
  mark_begin(worker->mark, DOING_COUNT, 0);
  int code = mmcmap_count(worker->store, &records);
  mark_end(worker->soak, worker->mark);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "count", code);
  if (records > soak_writer_count(worker->soak) * OWN_KEYS + SHARED_KEYS)
    soak_fault(worker->soak, "count says %llu", (unsigned long long)records);
}

static void sync_or_step(struct worker *worker) {
  bool steps = chance_below(&worker->chance, 2) == 0;
  mark_begin(worker->mark, steps ? DOING_STEP : DOING_SYNC, 0);
  int code =
      steps ? mmcmap_step(worker->store, 1000000) : mmcmap_sync(worker->store);
  mark_end(worker->soak, worker->mark);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "sync or step", code);
}

/* ---- Upkeep ----------------------------------------------------------------- */

static void clean(struct worker *worker) {
  const struct change_mode mode = {.timeout_ms = OWNER_LOCK_FOREVER};
  struct writer *writer = &worker->store->store->writer;
  bool found;
  mark_begin(worker->mark, DOING_CLEAN, 0);
  int code = writer_begin_change(writer, mode);
  if (code == MMCMAP_OK)
    code =
        writer_end_change(writer, cleaner_clean(writer, CLEAN_BYTES, &found));
  mark_end(worker->soak, worker->mark);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "clean", code);
}

static void compact(struct worker *worker) {
  mark_begin(worker->mark, DOING_COMPACT, 0);
  int code = mmcmap_compact(worker->store, NULL, NULL);
  mark_end(worker->soak, worker->mark);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "compact", code);
}

/* What whoever was killed has left of backups. */
static void remove_files(const char *path, const char *more) {
  char pattern[sizeof((struct soak *)0)->path + 40];
  glob_t found;
  snprintf(pattern, sizeof pattern, "%s%s", path, more);
  if (glob(pattern, 0, NULL, &found) == 0)
    for (size_t i = 0; i < found.gl_pathc; i++)
      unlink(found.gl_pathv[i]);
  globfree(&found);
}

static void back_up(struct worker *worker) {
  char path[sizeof worker->soak->path + 20];
  mmcmap *copy;
  mmcmap_options options;
  snprintf(path, sizeof path, "%s-backup-%u-", worker->soak->path,
           worker->writer);
  remove_files(path, "*");
  mark_begin(worker->mark, DOING_BACKUP, 0);
  int code = mmcmap_backup(worker->store, path, NULL, NULL);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "backup", code);
  mmcmap_options_init(&options);
  options.readonly = true;
  code = mmcmap_open(path, &options, &copy);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "open a backup", code);
  code = mmcmap_check(copy, NULL, NULL, NULL);
  if (code != MMCMAP_OK) soak_fail(worker->soak, "check a backup", code);
  (void)mmcmap_close(copy);
  mark_end(worker->soak, worker->mark);
  remove_files(path, "*");
}

static void do_upkeep(struct worker *worker) {
  uint64_t dice = chance_below(&worker->chance, 1000);
  if (dice < 5)
    compact(worker);
  else if (dice < 10)
    back_up(worker);
  else
    clean(worker);
}

/* ---- Threads ---------------------------------------------------------------- */

static void work_once(struct worker *worker) {
  struct chance *chance = &worker->chance;
  uint64_t dice = chance_below(chance, 1000);
  unsigned own =
      PAIR_KEYS + (unsigned)chance_below(chance, OWN_KEYS - PAIR_KEYS);
  unsigned shared = OWN_KEYS + (unsigned)chance_below(chance, SHARED_KEYS);
  unsigned other =
      (unsigned)chance_below(chance, soak_writer_count(worker->soak));
  if (dice < 80)
    bank_move(worker->soak, worker->store, worker->writer, chance,
              worker->mark);
  else if (dice < 300)
    put(worker, own, 0);
  else if (dice < 400)
    put_pair(worker);
  else if (dice < 500)
    delete (worker, own);
  else if (dice < 580)
    put(worker, shared, 0);
  else if (dice < 620)
    delete (worker, shared);
  else if (dice < 700)
    get_own(worker, worker->writer, own);
  else if (dice < 850)
    get_own(worker, other, (unsigned)chance_below(chance, OWN_KEYS));
  else if (dice < 960)
    get_shared(worker, shared);
  else if (dice < 980)
    count(worker);
  else if (dice < 990)
    sync_or_step(worker);
  else if (worker->thread == 0) {
    int code =
        view_snapshot(worker->soak, worker->store, worker->view, worker->mark);
    if (code != MMCMAP_OK) soak_fail(worker->soak, "a snapshot", code);
  }
}

static bool must_stop(const struct worker *worker) {
  const struct slot *slot = worker->slot;
  return atomic_load(&worker->soak->stops) ||
         (slot->end_ns != 0 && process_monotonic_ns() > slot->end_ns);
}

static void *work_thread(void *context) {
  struct worker *worker = context;
  uint64_t burst = 0;
  atomic_store(&worker->mark->thread_id, (int)gettid());
  settle(worker);
  while (!must_stop(worker)) {
    work_once(worker);
    if (worker->soak->has_upkeep) do_upkeep(worker);
    if (burst-- > 0) continue;
    burst = chance_below(&worker->chance, 40);
    sleep_us(chance_below(&worker->chance, 2000));
  }
  return NULL;
}

/* ---- The process ------------------------------------------------------------ */

/* Each thread has its own handle, in a mixed crowd one of its own level. */
static void open_store(struct worker *worker, struct mark *mark) {
  struct soak *soak = worker->soak;
  mmcmap_options options;
  mmcmap_options_init(&options);
  worker->level = soak->level != LEVEL_MIXED
                      ? soak->level
                      : (int)((worker->slot->number + worker->thread) % 3);
  options.durability = worker->level;
  options.flush_interval_ms = (uint32_t)(1 + chance_below(&worker->chance, 40));
  /* Whoever waits too long is to be seen by the watch. */
  options.timeout_ms = 6 * STUCK_MS;
  mark_begin(mark, DOING_OPEN, 0);
  struct store_internals internals = {
      soak->has_upkeep ? SEGMENT_BYTES : SEGMENT_SIZE_DEFAULT, UINT64_MAX,
      UINT64_MAX};
  int code = mmcmap_open_with(soak->path, &options, &internals, &worker->store);
  mark_end(soak, mark);
  if (code != MMCMAP_OK) soak_fail(soak, "open", code);
}

static void prepare_worker(struct soak *soak, struct slot *slot,
                           unsigned thread, struct worker *worker) {
  unsigned writer = slot->number * soak->thread_count + thread;
  *worker = (struct worker){.soak = soak,
                            .slot = slot,
                            .thread = thread,
                            .writer = writer,
                            .notes = &soak->writers[writer],
                            .mark = &slot->marks[thread]};
  worker->chance.state = mix(mix(soak->seed + writer) + slot->life);
  worker->buffer = malloc(VALUE_SIZE_MAX);
  worker->view = calloc(1, sizeof *worker->view);
  if (worker->buffer == NULL || worker->view == NULL)
    soak_fail(soak, "a worker starts", MMCMAP_ENOMEM);
}

_Noreturn void soak_work(struct soak *soak, struct slot *slot) {
  struct worker workers[THREADS_MAX];
  struct mark *mark = &slot->marks[soak->thread_count];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  atomic_store(&mark->thread_id, (int)gettid());
  points_arm(soak, slot);
  for (unsigned i = 0; i < soak->thread_count; i++) {
    prepare_worker(soak, slot, i, &workers[i]);
    open_store(&workers[i], mark);
  }
  atomic_store(&slot->phase, PHASE_WORKING);
  for (unsigned i = 0; i < soak->thread_count; i++)
    if (pthread_create(&workers[i].id, NULL, work_thread, &workers[i]) != 0)
      soak_fail(soak, "a thread starts", MMCMAP_ESYSTEM);
  for (unsigned i = 0; i < soak->thread_count; i++)
    pthread_join(workers[i].id, NULL);
  atomic_store(&slot->phase, PHASE_CLOSING);
  for (unsigned i = 0; i < soak->thread_count; i++) {
    mark_begin(mark, DOING_CLOSE, 0);
    int code = mmcmap_close(workers[i].store);
    mark_end(soak, mark);
    if (code != MMCMAP_OK) soak_fail(soak, "close", code);
  }
  mark_begin(mark, DOING_EXIT, 0);
  atomic_store(&slot->phase, PHASE_CLOSED);
  _exit(0);
}
