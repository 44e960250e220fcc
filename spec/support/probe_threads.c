/* SPDX-License-Identifier: MIT */
/*
 * Threads, part of area os of the probe. Lua code cannot run in two threads of
 * one state, so each function here is a small scene of its own: it starts its
 * threads, lets them meet at a mutex or condition, joins them and returns what
 * they saw.
 */
#include "probe_threads.h"

#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/errors.h"
#include "os/process.h"
#include "os/thread.h"
#include "probe.h"

enum { THREADS_MAX = 16 };

/* What the threads of one scene share. */
struct threads_scene {
  struct thread_mutex mutex;
  struct thread_condition condition;
  uint32_t delay_ms;
  uint32_t timeout_ms;
  int rounds;
  long counter; /* guarded by mutex */
  bool flag;    /* guarded by mutex */
  atomic_bool ready;
  int code;
  uint64_t waited_ns;
  sigset_t signals;
  char name[16];
};

static void threads_check(lua_State *L, int code) {
  if (code != MMCMAP_OK) luaL_error(L, "%s", mmcmap_error_name(code));
}

static void threads_scene_init(lua_State *L, struct threads_scene *scene) {
  *scene = (struct threads_scene){.rounds = 0};
  threads_check(L, thread_mutex_init(&scene->mutex));
  threads_check(L, thread_condition_init(&scene->condition));
}

static void threads_scene_destroy(struct threads_scene *scene) {
  thread_condition_destroy(&scene->condition);
  thread_mutex_destroy(&scene->mutex);
}

static void threads_push_ms(lua_State *L, uint64_t ns) {
  lua_pushnumber(L, (lua_Number)ns / 1e6);
}

/* ---- Mutexes ----------------------------------------------------------- */

static void *threads_count(void *context) {
  struct threads_scene *scene = context;
  for (int i = 0; i < scene->rounds; i++) {
    thread_mutex_lock(&scene->mutex);
    volatile long *counter = &scene->counter;
    *counter = *counter + 1;
    thread_mutex_unlock(&scene->mutex);
  }
  return NULL;
}

/* mutex_count(threads, rounds): how far a counter got that each of so many
   threads raised so often, under the mutex. */
static int threads_mutex_count(lua_State *L) {
  struct threads_scene scene;
  pthread_t threads[THREADS_MAX];
  int count = probe_check_int(L, 1);
  luaL_argcheck(L, count >= 1 && count <= THREADS_MAX, 1, "1 to 16 threads");
  threads_scene_init(L, &scene);
  scene.rounds = probe_check_int(L, 2);
  for (int i = 0; i < count; i++)
    threads_check(L, thread_start(&threads[i], "count", threads_count, &scene));
  for (int i = 0; i < count; i++)
    thread_join(threads[i]);
  lua_pushnumber(L, (lua_Number)scene.counter);
  threads_scene_destroy(&scene);
  return 1;
}

static void *threads_lock_timed(void *context) {
  struct threads_scene *scene = context;
  uint64_t begin = process_monotonic_ns();
  scene->code = thread_mutex_lock_timed(&scene->mutex, scene->timeout_ms);
  scene->waited_ns = process_monotonic_ns() - begin;
  if (scene->code == MMCMAP_OK) thread_mutex_unlock(&scene->mutex);
  return NULL;
}

/* mutex_timed(timeout_ms, held_ms): what another thread got that tried a mutex
   which was held for held_ms: the code's name, and how long it took in ms. */
static int threads_mutex_timed(lua_State *L) {
  struct threads_scene scene;
  pthread_t thread;
  threads_scene_init(L, &scene);
  scene.timeout_ms = probe_check_u32(L, 1);
  thread_mutex_lock(&scene.mutex);
  threads_check(L, thread_start(&thread, "timed", threads_lock_timed, &scene));
  process_sleep_ms(probe_check_u32(L, 2));
  thread_mutex_unlock(&scene.mutex);
  thread_join(thread);
  threads_scene_destroy(&scene);
  lua_pushstring(L, mmcmap_error_name(scene.code));
  threads_push_ms(L, scene.waited_ns);
  return 2;
}

static void *threads_lock(void *context) {
  struct threads_scene *scene = context;
  thread_mutex_lock(&scene->mutex);
  scene->counter = scene->flag ? 1 : 0;
  thread_mutex_unlock(&scene->mutex);
  return NULL;
}

/* mutex_lock(held_ms): whether another thread that wanted the mutex waited for
   held_ms until the holder had done its work. */
static int threads_mutex_lock(lua_State *L) {
  struct threads_scene scene;
  pthread_t thread;
  threads_scene_init(L, &scene);
  thread_mutex_lock(&scene.mutex);
  threads_check(L, thread_start(&thread, "lock", threads_lock, &scene));
  process_sleep_ms(probe_check_u32(L, 1));
  scene.flag = true;
  thread_mutex_unlock(&scene.mutex);
  thread_join(thread);
  threads_scene_destroy(&scene);
  lua_pushboolean(L, scene.counter == 1);
  return 1;
}

static void *threads_try(void *context) {
  struct threads_scene *scene = context;
  scene->flag = thread_mutex_try(&scene->mutex);
  if (scene->flag) thread_mutex_unlock(&scene->mutex);
  return NULL;
}

/* mutex_try(held): whether another thread could have the mutex. */
static int threads_mutex_try(lua_State *L) {
  struct threads_scene scene;
  pthread_t thread;
  bool held = probe_check_bool(L, 1);
  threads_scene_init(L, &scene);
  if (held) thread_mutex_lock(&scene.mutex);
  threads_check(L, thread_start(&thread, "try", threads_try, &scene));
  thread_join(thread);
  if (held) thread_mutex_unlock(&scene.mutex);
  threads_scene_destroy(&scene);
  lua_pushboolean(L, scene.flag);
  return 1;
}

/* ---- Conditions -------------------------------------------------------- */

static void *threads_wake(void *context) {
  struct threads_scene *scene = context;
  process_sleep_ms(scene->delay_ms);
  thread_mutex_lock(&scene->mutex);
  scene->flag = true;
  thread_condition_broadcast(&scene->condition);
  thread_mutex_unlock(&scene->mutex);
  return NULL;
}

/* condition_wait_timed(timeout_ms [, delay_ms]): what a wait returned, and how
   long it took in ms, if another thread set the flag after delay_ms; without
   that, nobody does. */
static int threads_condition_wait_timed(lua_State *L) {
  struct threads_scene scene;
  pthread_t thread;
  uint32_t timeout_ms = probe_check_u32(L, 1);
  bool wakes = !lua_isnoneornil(L, 2);
  bool in_time = true;
  threads_scene_init(L, &scene);
  scene.delay_ms = wakes ? probe_check_u32(L, 2) : 0;

  uint64_t begin = process_monotonic_ns();
  thread_mutex_lock(&scene.mutex);
  if (wakes)
    threads_check(L, thread_start(&thread, "wake", threads_wake, &scene));
  while (in_time && !scene.flag)
    in_time =
        thread_condition_wait_timed(&scene.condition, &scene.mutex, timeout_ms);
  thread_mutex_unlock(&scene.mutex);
  uint64_t waited_ns = process_monotonic_ns() - begin;
  if (wakes) thread_join(thread);
  threads_scene_destroy(&scene);
  lua_pushboolean(L, in_time);
  threads_push_ms(L, waited_ns);
  return 2;
}

static void *threads_wait(void *context) {
  struct threads_scene *scene = context;
  thread_mutex_lock(&scene->mutex);
  while (!scene->flag)
    thread_condition_wait(&scene->condition, &scene->mutex);
  scene->counter++;
  thread_mutex_unlock(&scene->mutex);
  return NULL;
}

/* condition_broadcast(threads): how many waiting threads one call woke. */
static int threads_condition_broadcast(lua_State *L) {
  struct threads_scene scene;
  pthread_t threads[THREADS_MAX];
  int count = probe_check_int(L, 1);
  luaL_argcheck(L, count >= 1 && count <= THREADS_MAX, 1, "1 to 16 threads");
  threads_scene_init(L, &scene);
  for (int i = 0; i < count; i++)
    threads_check(L, thread_start(&threads[i], "wait", threads_wait, &scene));
  scene.delay_ms = 20;
  threads_wake(&scene);
  for (int i = 0; i < count; i++)
    thread_join(threads[i]);
  lua_pushnumber(L, (lua_Number)scene.counter);
  threads_scene_destroy(&scene);
  return 1;
}

/* ---- Words ------------------------------------------------------------- */

enum { THREADS_PATIENCE_MS = 60000 };

static struct {
  _Atomic uint32_t first, second; /* words that never change */
  atomic_int woken;
} threads_words;

static void *threads_sleep(void *context) {
  thread_wait_for_change(&threads_words.first, 0, THREADS_PATIENCE_MS);
  atomic_fetch_add(&threads_words.woken, 1);
  return context;
}

/* Moves whoever sleeps on the first word to the second: how many. The only way
   to know that a thread sleeps. */
static int threads_move_sleepers(void) {
  long moved = syscall(SYS_futex, &threads_words.first, FUTEX_CMP_REQUEUE, 0,
                       (void *)(intptr_t)INT_MAX, &threads_words.second, 0);
  return moved > 0 ? (int)moved : 0;
}

/* How many have been woken, once these are `least`. */
static int threads_woken(int least) {
  for (int ms = 0; ms < THREADS_PATIENCE_MS; ms++) {
    if (atomic_load(&threads_words.woken) >= least) break;
    process_sleep_ms(1);
  }
  process_sleep_ms(20); /* for those that should not be */
  return atomic_load(&threads_words.woken);
}

/* wake(threads): how many of so many threads asleep on a word had been woken
   after thread_wake_one(), after it once more, and after thread_wake_all(). */
static int threads_wake_words(lua_State *L) {
  pthread_t threads[THREADS_MAX];
  int count = probe_check_int(L, 1), asleep = 0;
  luaL_argcheck(L, count >= 2 && count <= THREADS_MAX, 1, "2 to 16 threads");
  atomic_store(&threads_words.woken, 0);
  for (int i = 0; i < count; i++)
    threads_check(L, thread_start(&threads[i], "sleep", threads_sleep, NULL));
  for (int ms = 0; asleep < count && ms < THREADS_PATIENCE_MS; ms++) {
    asleep += threads_move_sleepers();
    process_sleep_ms(1);
  }
  for (int i = 1; i <= 2; i++) {
    thread_wake_one(&threads_words.second);
    lua_pushinteger(L, threads_woken(i));
  }
  thread_wake_all(&threads_words.second);
  lua_pushinteger(L, threads_woken(count));
  for (int i = 0; i < count; i++)
    thread_join(threads[i]);
  return 3;
}

/* wait_for_change(value, seen, timeout_ms): how long a wait took in ms on a
   word that holds `value`, which nobody wakes. */
static int threads_wait_for_change(lua_State *L) {
  _Atomic uint32_t word = probe_check_u32(L, 1);
  uint32_t seen = probe_check_u32(L, 2), timeout_ms = probe_check_u32(L, 3);
  uint64_t begin = process_monotonic_ns();
  thread_wait_for_change(&word, seen, timeout_ms);
  threads_push_ms(L, process_monotonic_ns() - begin);
  return 1;
}

/* ---- Threads ----------------------------------------------------------- */

static void *threads_look(void *context) {
  struct threads_scene *scene = context;
  pthread_sigmask(SIG_SETMASK, NULL, &scene->signals);
  while (!atomic_load(&scene->ready)) /* the name is given from outside */
    process_sleep_ms(1);
  prctl(PR_GET_NAME, scene->name);
  scene->counter = (long)process_thread_id();
  return NULL;
}

static int threads_unblocked(const sigset_t *signals) {
  int count = 0;
  for (int i = 1; i < NSIG; i++)
    if (i != SIGKILL && i != SIGSTOP && (i < 32 || i >= SIGRTMIN) &&
        sigismember(signals, i) == 0)
      count++;
  return count;
}

/* thread(name): its name as the kernel has it, how many signals it does not
   block, and how many its creator does not, before and after; its number. */
static int threads_thread(lua_State *L) {
  struct threads_scene scene;
  sigset_t before, after;
  pthread_t thread;
  const char *name = luaL_checkstring(L, 1);
  threads_scene_init(L, &scene);
  pthread_sigmask(SIG_SETMASK, NULL, &before);
  threads_check(L, thread_start(&thread, name, threads_look, &scene));
  pthread_sigmask(SIG_SETMASK, NULL, &after);
  atomic_store(&scene.ready, true);
  thread_join(thread);
  threads_scene_destroy(&scene);
  lua_pushstring(L, scene.name);
  lua_pushinteger(L, threads_unblocked(&scene.signals));
  lua_pushinteger(L, threads_unblocked(&before));
  lua_pushinteger(L, threads_unblocked(&after));
  lua_pushnumber(L, (lua_Number)scene.counter);
  return 5;
}

static void *threads_nothing(void *context) { return context; }

/* thread_start(): true if a thread can be had, else as probe_fail(). */
static int threads_start(lua_State *L) {
  pthread_t thread;
  int code = thread_start(&thread, "nothing", threads_nothing, NULL);
  if (code == MMCMAP_OK) thread_join(thread);
  return probe_result(L, code);
}

static void *threads_fail(void *context) {
  struct threads_scene *scene = context;
  mmcmap_error last;
  mmcmap_last_error(&last);
  scene->counter = last.code; /* what a new thread begins with */
  error_set(MMCMAP_EIO, "another thread");
  return NULL;
}

/* thread_error(): the last error that a new thread began with, before it noted
   one of its own. */
static int threads_error(lua_State *L) {
  struct threads_scene scene;
  pthread_t thread;
  threads_scene_init(L, &scene);
  threads_check(L, thread_start(&thread, "fail", threads_fail, &scene));
  thread_join(thread);
  threads_scene_destroy(&scene);
  lua_pushinteger(L, scene.counter);
  return 1;
}

void probe_threads_open(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"mutex_count", threads_mutex_count},
      {"mutex_lock", threads_mutex_lock},
      {"mutex_timed", threads_mutex_timed},
      {"mutex_try", threads_mutex_try},
      {"condition_wait_timed", threads_condition_wait_timed},
      {"condition_broadcast", threads_condition_broadcast},
      {"wake", threads_wake_words},
      {"wait_for_change", threads_wait_for_change},
      {"thread", threads_thread},
      {"thread_start", threads_start},
      {"thread_error", threads_error},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
}
