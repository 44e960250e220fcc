/* SPDX-License-Identifier: MIT */
/*
 * Threads that use a connection at a spec's command, part of area share of the
 * probe.
 *
 *   thread = connection:thread()
 *   thread:acquire(timeout_ms [, lock])   begins and returns at once
 *   thread:is_busy()     whether it still waits
 *   thread:result()      waits for it: whether it inherited, or nil, code, step
 *   thread:release([lock]), pin(), owner()   return when it is done
 *   thread:finish()      ends the thread, whatever it owns
 */
#include <string.h>

#include "base/errors.h"
#include "os/thread.h"
#include "probe_share.h"
#include "share/owner_lock.h"

#define SHARE_THREAD_TYPE "mmcmap_probe.share_thread"

enum share_command {
  COMMAND_NOTHING,
  COMMAND_ACQUIRE,
  COMMAND_RELEASE,
  COMMAND_PIN,
  COMMAND_OWNER,
  COMMAND_FINISH
};

struct share_thread {
  struct thread_mutex mutex; /* guards all that follows but `thread` */
  struct thread_condition changed;
  struct connection *connection;
  enum share_command command;
  struct share_lock *lock;
  uint32_t timeout_ms;
  uint32_t owner;
  int code;
  bool inherited;
  mmcmap_error failure;
  bool is_running;
  pthread_t thread;
};

static int share_thread_do(struct share_thread *thread) {
  struct readers *readers = &thread->connection->readers;
  struct share_row *row;
  int code = readers_owner(readers, &thread->owner);
  if (code != MMCMAP_OK) return code;
  switch (thread->command) {
    case COMMAND_ACQUIRE:
      return owner_lock_acquire(readers, thread->lock, thread->owner,
                                thread->timeout_ms, &thread->inherited);
    case COMMAND_RELEASE:
      owner_lock_release(thread->lock);
      return MMCMAP_OK;
    case COMMAND_PIN:
      code = readers_row(readers, &row);
      if (code == MMCMAP_OK) readers_pin(readers, row);
      return code;
    default:
      return MMCMAP_OK;
  }
}

static void *share_thread_work(void *context) {
  struct share_thread *thread = context;
  thread_mutex_lock(&thread->mutex);
  while (thread->command != COMMAND_FINISH) {
    if (thread->command == COMMAND_NOTHING) {
      thread_condition_wait(&thread->changed, &thread->mutex);
      continue;
    }
    thread_mutex_unlock(&thread->mutex);
    int code = share_thread_do(thread);
    thread_mutex_lock(&thread->mutex);
    thread->code = code;
    mmcmap_last_error(&thread->failure);
    thread->command = COMMAND_NOTHING;
    thread_condition_broadcast(&thread->changed);
  }
  thread_mutex_unlock(&thread->mutex);
  return NULL;
}

static int connection_thread(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  struct share_thread *thread = lua_newuserdata(L, sizeof *thread);
  memset(thread, 0, sizeof *thread);
  thread->connection = connection;
  luaL_getmetatable(L, SHARE_THREAD_TYPE);
  lua_setmetatable(L, -2);
  int code = thread_mutex_init(&thread->mutex);
  if (code == MMCMAP_OK) code = thread_condition_init(&thread->changed);
  if (code == MMCMAP_OK)
    code = thread_start(&thread->thread, "share", share_thread_work, thread);
  thread->is_running = code == MMCMAP_OK;
  return code == MMCMAP_OK ? 1 : probe_fail(L, code);
}

static struct share_thread *share_thread_check(lua_State *L) {
  struct share_thread *thread = luaL_checkudata(L, 1, SHARE_THREAD_TYPE);
  luaL_argcheck(L, thread->is_running, 1, "finished");
  return thread;
}

static void share_thread_order(struct share_thread *thread,
                               enum share_command command) {
  thread_mutex_lock(&thread->mutex);
  while (thread->command != COMMAND_NOTHING)
    thread_condition_wait(&thread->changed, &thread->mutex);
  thread->command = command;
  thread_condition_broadcast(&thread->changed);
  thread_mutex_unlock(&thread->mutex);
}

static int share_thread_await(struct share_thread *thread) {
  thread_mutex_lock(&thread->mutex);
  while (thread->command != COMMAND_NOTHING)
    thread_condition_wait(&thread->changed, &thread->mutex);
  int code = thread->code;
  thread_mutex_unlock(&thread->mutex);
  if (code != MMCMAP_OK) error_restore(&thread->failure);
  return code;
}

static int share_thread_acquire(lua_State *L) {
  struct share_thread *thread = share_thread_check(L);
  thread->timeout_ms = probe_check_u32(L, 2);
  thread->lock = connection_lock(L, thread->connection, 3);
  share_thread_order(thread, COMMAND_ACQUIRE);
  return 0;
}

static int share_thread_is_busy(lua_State *L) {
  struct share_thread *thread = share_thread_check(L);
  thread_mutex_lock(&thread->mutex);
  lua_pushboolean(L, thread->command != COMMAND_NOTHING);
  thread_mutex_unlock(&thread->mutex);
  return 1;
}

static int share_thread_result(lua_State *L) {
  struct share_thread *thread = share_thread_check(L);
  int code = share_thread_await(thread);
  return connection_push_acquired(L, code, thread->inherited);
}

static int share_thread_release(lua_State *L) {
  struct share_thread *thread = share_thread_check(L);
  thread->lock = connection_lock(L, thread->connection, 2);
  share_thread_order(thread, COMMAND_RELEASE);
  return probe_result(L, share_thread_await(thread));
}

static int share_thread_pin(lua_State *L) {
  struct share_thread *thread = share_thread_check(L);
  share_thread_order(thread, COMMAND_PIN);
  return probe_result(L, share_thread_await(thread));
}

static int share_thread_owner(lua_State *L) {
  struct share_thread *thread = share_thread_check(L);
  share_thread_order(thread, COMMAND_OWNER);
  int code = share_thread_await(thread);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushnumber(L, (lua_Number)thread->owner);
  return 1;
}

static int share_thread_finish(lua_State *L) {
  struct share_thread *thread = luaL_checkudata(L, 1, SHARE_THREAD_TYPE);
  if (!thread->is_running) return 0;
  share_thread_order(thread, COMMAND_FINISH);
  thread_join(thread->thread);
  thread->is_running = false;
  thread_condition_destroy(&thread->changed);
  thread_mutex_destroy(&thread->mutex);
  return 0;
}

void probe_share_threads_methods(lua_State *L) {
  lua_pushcfunction(L, connection_thread);
  lua_setfield(L, -2, "thread");
}

void probe_share_threads_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"acquire", share_thread_acquire},
      {"is_busy", share_thread_is_busy},
      {"result", share_thread_result},
      {"release", share_thread_release},
      {"pin", share_thread_pin},
      {"owner", share_thread_owner},
      {"finish", share_thread_finish},
      {"__gc", share_thread_finish},
      {NULL, NULL},
  };
  luaL_newmetatable(L, SHARE_THREAD_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
