/* SPDX-License-Identifier: MIT */
/*
 * Area readers of the probe: reader tables, and threads that pin and unpin at
 * a spec's command.
 *
 *   table = new()       pin, unpin (this thread), tick, advance, row_count,
 *                       owned_rows, destroy
 *   worker = table:worker()   pin, unpin, finish: each returns when the thread
 *                             has done it
 *   table:crowd(threads, rounds)   so many threads at once that each pin and
 *                             unpin so often, while this one advances: how
 *                             many rows there were, and whether the horizon
 *                             ever passed a pin
 *   table:race(milliseconds)  a thread that pins, loads a root and looks at it,
 *                             against this one, which stores one root after the
 *                             other and gives up what the horizon has passed: how
 *                             often the thread saw that its root was given up, and
 *                             how often it looked
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "os/process.h"
#include "os/thread.h"
#include "probe.h"
#include "share/readers.h"

#define READERS_TYPE "mmcmap_probe.readers"
#define READERS_WORKER_TYPE "mmcmap_probe.readers_worker"

enum { READERS_CROWD_MAX = 400 };

/* Collected by Lua; the table itself may be gone earlier. */
struct probe_readers {
  struct share share;
  struct readers table;
  bool is_live;
};

static struct readers *readers_check(lua_State *L) {
  struct probe_readers *self = luaL_checkudata(L, 1, READERS_TYPE);
  luaL_argcheck(L, self->is_live, 1, "destroyed");
  return &self->table;
}

static int readers_new(lua_State *L) {
  /* Rows are found by serials: the table may lie anywhere. */
  struct probe_readers *self = lua_newuserdata(L, sizeof *self);
  memset(self, 0, sizeof *self);
  luaL_getmetatable(L, READERS_TYPE);
  lua_setmetatable(L, -2);
  int code = share_open_private(&self->share);
  readers_init(&self->table, &self->share);
  if (code == MMCMAP_OK) code = readers_join(&self->table);
  self->is_live = code == MMCMAP_OK;
  if (code != MMCMAP_OK) share_close(&self->share);
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int readers_do_destroy(lua_State *L) {
  struct probe_readers *self = luaL_checkudata(L, 1, READERS_TYPE);
  if (self->is_live) {
    readers_destroy(&self->table);
    share_close(&self->share);
  }
  self->is_live = false;
  return 0;
}

static int readers_change(struct readers *table, bool pin) {
  struct share_row *row;
  int code = readers_row(table, &row);
  if (code != MMCMAP_OK) return code;
  if (pin)
    readers_pin(table, row);
  else
    readers_unpin(row);
  return MMCMAP_OK;
}

static int readers_do_pin(lua_State *L) {
  return probe_result(L, readers_change(readers_check(L), true));
}

static int readers_do_unpin(lua_State *L) {
  return probe_result(L, readers_change(readers_check(L), false));
}

static int readers_do_tick(lua_State *L) {
  lua_pushnumber(L, (lua_Number)readers_tick(readers_check(L)));
  return 1;
}

static int readers_do_advance(lua_State *L) {
  lua_pushnumber(L, (lua_Number)readers_advance(readers_check(L)));
  return 1;
}

static uint32_t readers_chunk_count(const struct readers *table) {
  return atomic_load(&table->share->header->chunk_count);
}

static int readers_row_count(lua_State *L) {
  const struct readers *table = readers_check(L);
  uint32_t rows = 0;
  for (uint32_t i = 0; i < readers_chunk_count(table); i++)
    rows += atomic_load(&share_chunk(table->share, i)->row_limit);
  lua_pushnumber(L, (lua_Number)rows);
  return 1;
}

/* owned_rows(): how many rows a thread owns, and how many there are. Nobody
   may claim one meanwhile. */
static int readers_owned_rows(lua_State *L) {
  const struct readers *table = readers_check(L);
  int owned = 0, all = 0;
  for (uint32_t index = 0; index < readers_chunk_count(table); index++) {
    struct share_chunk *chunk = share_chunk(table->share, index);
    for (int i = 0; i < SHARE_ROWS_PER_CHUNK; i++) {
      owned += atomic_load(&chunk->rows[i].owned) ? 1 : 0;
      all++;
    }
  }
  lua_pushinteger(L, owned);
  lua_pushinteger(L, all);
  return 2;
}

/* ---- Workers ----------------------------------------------------------- */

enum readers_command {
  READERS_NOTHING,
  READERS_PIN,
  READERS_UNPIN,
  READERS_FINISH
};

struct readers_worker {
  struct thread_mutex mutex; /* guards `command` and `code` */
  struct thread_condition changed;
  struct readers *table;
  enum readers_command command;
  int code;
  pthread_t thread;
  bool is_running;
};

static void *readers_work(void *context) {
  struct readers_worker *worker = context;
  bool goes_on = true;
  thread_mutex_lock(&worker->mutex);
  while (goes_on) {
    while (worker->command == READERS_NOTHING)
      thread_condition_wait(&worker->changed, &worker->mutex);
    goes_on = worker->command != READERS_FINISH;
    if (goes_on)
      worker->code =
          readers_change(worker->table, worker->command == READERS_PIN);
    worker->command = READERS_NOTHING;
    thread_condition_broadcast(&worker->changed);
  }
  thread_mutex_unlock(&worker->mutex);
  return NULL;
}

static int readers_worker(lua_State *L) {
  struct readers *table = readers_check(L);
  struct readers_worker *worker = lua_newuserdata(L, sizeof *worker);
  memset(worker, 0, sizeof *worker);
  worker->table = table;
  luaL_getmetatable(L, READERS_WORKER_TYPE);
  lua_setmetatable(L, -2);
  int code = thread_mutex_init(&worker->mutex);
  if (code == MMCMAP_OK) code = thread_condition_init(&worker->changed);
  if (code == MMCMAP_OK)
    code = thread_start(&worker->thread, "worker", readers_work, worker);
  worker->is_running = code == MMCMAP_OK;
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static int readers_order(lua_State *L, enum readers_command command) {
  struct readers_worker *worker = luaL_checkudata(L, 1, READERS_WORKER_TYPE);
  luaL_argcheck(L, worker->is_running, 1, "finished");
  thread_mutex_lock(&worker->mutex);
  worker->command = command;
  thread_condition_broadcast(&worker->changed);
  while (worker->command != READERS_NOTHING)
    thread_condition_wait(&worker->changed, &worker->mutex);
  thread_mutex_unlock(&worker->mutex);
  return probe_result(L, worker->code);
}

static int readers_worker_pin(lua_State *L) {
  return readers_order(L, READERS_PIN);
}

static int readers_worker_unpin(lua_State *L) {
  return readers_order(L, READERS_UNPIN);
}

static int readers_worker_finish(lua_State *L) {
  struct readers_worker *worker = luaL_checkudata(L, 1, READERS_WORKER_TYPE);
  if (!worker->is_running) return 0;
  readers_order(L, READERS_FINISH);
  thread_join(worker->thread);
  worker->is_running = false;
  thread_condition_destroy(&worker->changed);
  thread_mutex_destroy(&worker->mutex);
  return 0;
}

/* ---- A crowd ----------------------------------------------------------- */

struct readers_crowd {
  struct readers *table;
  int rounds;
  _Atomic uint64_t horizon; /* the latest one that the main thread was told */
  atomic_int running;
  atomic_int failures;
};

static void *readers_jostle(void *context) {
  struct readers_crowd *crowd = context;
  struct share_row *row;
  for (int i = 0; i < crowd->rounds; i++) {
    if (readers_row(crowd->table, &row) != MMCMAP_OK) {
      atomic_fetch_add(&crowd->failures, 1);
      break;
    }
    /* A pin that is there keeps every later horizon from passing it. */
    uint64_t before = atomic_load(&crowd->horizon);
    readers_pin(crowd->table, row);
    readers_pin(crowd->table, row);
    uint64_t pin = atomic_load(&row->pin);
    if (pin == 0 || pin < before) atomic_fetch_add(&crowd->failures, 1);
    readers_unpin(row);
    if (atomic_load(&row->pin) != pin) atomic_fetch_add(&crowd->failures, 1);
    readers_unpin(row);
  }
  atomic_fetch_sub(&crowd->running, 1);
  return NULL;
}

static int readers_do_crowd(lua_State *L) {
  struct readers *table = readers_check(L);
  int count = probe_check_int(L, 2), started = 0;
  pthread_t threads[READERS_CROWD_MAX];
  luaL_argcheck(L, count > 0 && count <= READERS_CROWD_MAX, 2, "1 to 400");
  struct readers_crowd crowd = {.table = table,
                                .rounds = probe_check_int(L, 3)};
  atomic_store(&crowd.running, count);
  for (; started < count; started++)
    if (thread_start(&threads[started], "crowd", readers_jostle, &crowd) !=
        MMCMAP_OK)
      break;
  atomic_fetch_sub(&crowd.running, count - started);
  uint64_t last = 0;
  while (atomic_load(&crowd.running) > 0) {
    uint64_t horizon = readers_advance(table);
    if (horizon > readers_tick(table)) atomic_fetch_add(&crowd.failures, 1);
    if (horizon > last) last = horizon;
    atomic_store(&crowd.horizon, horizon);
  }
  for (int i = 0; i < started; i++)
    thread_join(threads[i]);
  lua_pushinteger(L, started);
  lua_pushinteger(L, atomic_load(&crowd.failures));
  return 2;
}

/* ---- A pin against an advance ------------------------------------------- */

enum { RACE_LINES = 8, RACE_LOOKS = 8, RACE_PAUSES = 61 };

/* Roots are numbers that go up: whoever pins and loads one may look at it until it
   unpins, and must not find meanwhile that it was given up. */
struct readers_race {
  struct readers *table;
  struct share_row *row; /* the reader's */
  uint64_t seen_late;    /* the reader's: roots that were given up too early */
  uint64_t reads;
  _Alignas(64) _Atomic uint64_t root;
  _Alignas(64) _Atomic uint64_t first_kept; /* those below are given up */
  atomic_bool stops;
  /* Lines that both write to: a processor that has to fetch them keeps its later
     stores back for as long, the pin among them. */
  struct {
    _Alignas(64) _Atomic uint64_t word;
  } lines[RACE_LINES];
};

static void race_write_lines(struct readers_race *race, uint64_t word) {
  for (int i = 0; i < RACE_LINES; i++)
    atomic_store_explicit(&race->lines[i].word, word, memory_order_relaxed);
}

static void *race_read(void *context) {
  struct readers_race *race = context;
  if (readers_row(race->table, &race->row) != MMCMAP_OK) return NULL;
  while (!atomic_load_explicit(&race->stops, memory_order_relaxed)) {
    race_write_lines(race, ++race->reads);
    readers_pin(race->table, race->row);
    uint64_t root = atomic_load_explicit(&race->root, memory_order_acquire);
    bool is_late = false;
    for (int i = 0; i < RACE_LOOKS; i++) {
      thread_pause();
      is_late |= atomic_load(&race->first_kept) > root;
    }
    readers_unpin(race->row);
    race->seen_late += is_late ? 1 : 0;
  }
  return NULL;
}

/* Puts another root in the old one's place, and gives that up if it may. */
static void race_write(struct readers_race *race, uint64_t root) {
  atomic_store_explicit(&race->root, root, memory_order_release);
  uint64_t unlinked = readers_tick(race->table);
  if (unlinked < readers_advance(race->table))
    atomic_store(&race->first_kept, root);
  race_write_lines(race, root);
  for (uint64_t i = root % RACE_PAUSES; i > 0; i--)
    thread_pause();
}

static int readers_do_race(lua_State *L) {
  struct readers_race race = {.table = readers_check(L)};
  uint64_t end_ns =
      process_monotonic_ns() + probe_check_u64(L, 2) * UINT64_C(1000000);
  pthread_t reader;
  int code = thread_start(&reader, "race", race_read, &race);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  for (uint64_t root = 1; process_monotonic_ns() < end_ns; root++)
    race_write(&race, root);
  atomic_store(&race.stops, true);
  thread_join(reader);
  if (race.row == NULL) return luaL_error(L, "the reader has no row");
  lua_pushnumber(L, (lua_Number)race.seen_late);
  lua_pushnumber(L, (lua_Number)race.reads);
  return 2;
}

void probe_readers_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"pin", readers_do_pin},          {"unpin", readers_do_unpin},
      {"tick", readers_do_tick},        {"advance", readers_do_advance},
      {"row_count", readers_row_count}, {"owned_rows", readers_owned_rows},
      {"worker", readers_worker},       {"crowd", readers_do_crowd},
      {"race", readers_do_race},        {"destroy", readers_do_destroy},
      {"__gc", readers_do_destroy},     {NULL, NULL},
  };
  static const luaL_Reg worker_methods[] = {
      {"pin", readers_worker_pin},
      {"unpin", readers_worker_unpin},
      {"finish", readers_worker_finish},
      {"__gc", readers_worker_finish},
      {NULL, NULL},
  };
  luaL_newmetatable(L, READERS_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  luaL_newmetatable(L, READERS_WORKER_TYPE);
  luaL_setfuncs(L, worker_methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
  lua_pushcfunction(L, readers_new);
  lua_setfield(L, -2, "new");
}
