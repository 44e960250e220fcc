/* SPDX-License-Identifier: MIT */
/*
 * Area vm of the probe: other Lua states in this process, as hosts have them
 * that throw a state away and begin a new one, or give each thread its own.
 *
 *   vm = open()
 *   vm:run(code, ...)   the code's one result as a string, or raises its error;
 *                       the code gets the other arguments, strings, as `...`
 *   vm:close()          the state with all that is in it
 *   run_in_thread(code)   a state of its own in a thread of its own, both of
 *                       which have ended when this returns: whether the code
 *                       raised no error
 */
#include <lualib.h>
#include <pthread.h>
#include <string.h>

#include "probe.h"

#define VM_TYPE "mmcmap_probe.vm"

struct vm {
  lua_State *state; /* NULL once it is closed */
};

static int vm_open(lua_State *L) {
  struct vm *vm = lua_newuserdata(L, sizeof *vm);
  vm->state = NULL;
  luaL_getmetatable(L, VM_TYPE);
  lua_setmetatable(L, -2);
  vm->state = luaL_newstate();
  if (vm->state == NULL) return luaL_error(L, "no memory for a state");
  luaL_openlibs(vm->state);
  return 1;
}

/* Moves the text on top of the other state to this one. */
static void vm_take_text(lua_State *L, lua_State *from) {
  size_t size;
  if (lua_isboolean(from, -1))
    lua_pushstring(from, lua_toboolean(from, -1) ? "true" : "false");
  const char *text = lua_tolstring(from, -1, &size);
  if (text == NULL)
    lua_pushstring(L, luaL_typename(from, -1));
  else
    lua_pushlstring(L, text, size);
  lua_settop(from, 0);
}

static int vm_run(lua_State *L) {
  struct vm *vm = luaL_checkudata(L, 1, VM_TYPE);
  int count = lua_gettop(L);
  luaL_argcheck(L, vm->state != NULL, 1, "closed");
  const char *code = luaL_checkstring(L, 2);
  int status = luaL_loadbuffer(vm->state, code, strlen(code), "=vm");
  for (int i = 3; status == 0 && i <= count; i++) {
    size_t size;
    const char *text = luaL_checklstring(L, i, &size);
    lua_pushlstring(vm->state, text, size);
  }
  if (status == 0) status = lua_pcall(vm->state, count - 2, 1, 0);
  vm_take_text(L, vm->state);
  return status == 0 ? 1 : lua_error(L);
}

static int vm_close(lua_State *L) {
  struct vm *vm = luaL_checkudata(L, 1, VM_TYPE);
  lua_State *state = vm->state;
  vm->state = NULL;
  if (state != NULL) lua_close(state);
  return 0;
}

struct vm_task {
  const char *code;
  bool has_succeeded;
};

static void *vm_work(void *context) {
  struct vm_task *task = context;
  lua_State *state = luaL_newstate();
  if (state == NULL) return NULL;
  luaL_openlibs(state);
  task->has_succeeded =
      luaL_loadbuffer(state, task->code, strlen(task->code), "=vm") == 0 &&
      lua_pcall(state, 0, 0, 0) == 0;
  lua_close(state);
  return NULL;
}

static int vm_run_in_thread(lua_State *L) {
  struct vm_task task = {.code = luaL_checkstring(L, 1)};
  pthread_t thread;
  if (pthread_create(&thread, NULL, vm_work, &task) != 0)
    return luaL_error(L, "no thread");
  pthread_join(thread, NULL);
  lua_pushboolean(L, task.has_succeeded);
  return 1;
}

void probe_vm_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"run", vm_run}, {"close", vm_close}, {"__gc", vm_close}, {NULL, NULL}};
  luaL_newmetatable(L, VM_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  lua_pushcfunction(L, vm_open);
  lua_setfield(L, -2, "open");
  lua_pushcfunction(L, vm_run_in_thread);
  lua_setfield(L, -2, "run_in_thread");
}
