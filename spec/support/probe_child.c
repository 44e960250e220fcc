/* SPDX-License-Identifier: MIT */
/*
 * Area child of the probe: Lua functions that run in a forked process, for
 * what would disturb the specs' own (limits, kills, forks) and for what needs
 * two processes. Parent and child talk in lines over a socket pair; the child
 * leaves with _exit(), so that nothing of the parent's is finished twice.
 *
 *   child = start(f)     runs f in a child
 *   child:line()         the next line that the child said; nil at its end
 *   child:tell(text)     a line for the child's hear()
 *   child:kill([signal]) 9 if not given
 *   child:wait()         what f returned (or its error message), "exit" or
 *                        "signal", the status (0, 1 after an error) or signal
 *   child:pid()
 *   child:forget()       leaves it to itself; its pid
 *   run(f)               start(f):wait()
 *   exec(program, ...)   a child that is another program: tell() is what it
 *                        reads, line() what it prints
 *   signal(pid, signal)  to any process; whether it is there
 *   shell(command)       what /bin/sh printed. It runs without LD_PRELOAD,
 *                        unlike that of io.popen(): a preloaded sanitizer can
 *                        be the end of a program that was built without it
 * Within the child: say(text), hear(), limit(name, number), raise(signal),
 * ignore(signal), chdir(path), become(program, ...); leave(): lets go of what
 * its parent waits for, the standard streams too.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"
#include "quiet_fork.h"

#define CHILD_TYPE "mmcmap_probe.child"

enum { CHILD_PATIENCE_MS = 60000 };

struct child {
  pid_t pid;   /* 0 once it was waited for */
  pid_t owner; /* whose child it is: not that of a fork of its parent */
  int fd;      /* our end of the socket pair */
};

/* In a child, its end of the socket pair. */
static int child_parent_fd = -1;

static struct child *child_check(lua_State *L) {
  return luaL_checkudata(L, 1, CHILD_TYPE);
}

/* ---- Lines ------------------------------------------------------------- */

static void child_send(int fd, const char *text, size_t size) {
  while (size > 0) {
    ssize_t n = send(fd, text, size, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) return; /* the other side is gone */
    if (n > 0) {
      text += n;
      size -= (size_t)n;
    }
  }
}

static int child_send_line(lua_State *L, int fd, int arg) {
  size_t size;
  luaL_checkstring(L, arg);
  lua_pushvalue(L, arg);
  lua_pushliteral(L, "\n");
  lua_concat(L, 2);
  const char *line = lua_tolstring(L, -1, &size);
  child_send(fd, line, size);
  return 0;
}

/* Up to `size` bytes; 0 at the end, -1 if nothing comes for too long. */
static ssize_t child_receive(int fd, char *data, size_t size) {
  struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
  for (;;) {
    int ready = poll(&poll_fd, 1, CHILD_PATIENCE_MS);
    if (ready == 0) return -1;
    ssize_t n = ready < 0 ? -1 : recv(fd, data, size, 0);
    if (n >= 0) return n;
    if (errno != EINTR)
      return 0; /* the other side died with something unread */
  }
}

static int child_receive_line(lua_State *L, int fd) {
  luaL_Buffer buffer;
  char byte;
  luaL_buffinit(L, &buffer);
  for (size_t size = 0;; size++) {
    ssize_t n = child_receive(fd, &byte, 1);
    if (n < 0) return luaL_error(L, "no line within a minute");
    if (n == 0 && size == 0) return 0;
    if (n == 0 || byte == '\n') break;
    luaL_addchar(&buffer, byte);
  }
  luaL_pushresult(&buffer);
  return 1;
}

/* ---- The parent -------------------------------------------------------- */

/* Runs the function at index 1 and never returns. */
static _Noreturn void child_call(lua_State *L, int fd) {
  size_t size;
  child_parent_fd = fd;
  lua_pushvalue(L, 1);
  int status = lua_pcall(L, 0, 1, 0) == 0 ? 0 : 1;
  if (lua_isboolean(L, -1))
    lua_pushstring(L, lua_toboolean(L, -1) ? "true" : "false");
  const char *text = lua_tolstring(L, -1, &size);
  if (text != NULL) child_send(fd, text, size);
  _exit(status);
}

/* Runs the command at index 1 and never returns. */
static _Noreturn void child_exec_shell(lua_State *L, int fd) {
  const char *command = lua_tostring(L, 1);
  unsetenv("LD_PRELOAD");
  if (dup2(fd, STDOUT_FILENO) >= 0)
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
  _exit(127);
}

enum { CHILD_WORDS_MAX = 32 };

/* Becomes the program at index 1, with the words after it, and never returns.
   `fd` is its standard input and output, unless it is -1. */
static _Noreturn void child_exec_program(lua_State *L, int fd) {
  char *words[CHILD_WORDS_MAX + 1] = {NULL};
  int count = 0;
  while (count < CHILD_WORDS_MAX && lua_isstring(L, count + 1)) {
    words[count] = (char *)(uintptr_t)lua_tostring(L, count + 1);
    count++;
  }
  if (fd < 0 || (dup2(fd, STDIN_FILENO) >= 0 && dup2(fd, STDOUT_FILENO) >= 0))
    execvp(words[0], words);
  _exit(127);
}

/* Pushes a child that runs `main` with what is on the stack. */
static int child_fork(lua_State *L, void (*main)(lua_State *L, int fd)) {
  int fds[2];
  struct child *child = lua_newuserdata(L, sizeof *child);
  *child = (struct child){.pid = 0, .owner = getpid(), .fd = -1};
  luaL_getmetatable(L, CHILD_TYPE);
  lua_setmetatable(L, -2);

  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
    return luaL_error(L, "socketpair: %s", strerror(errno));
  pid_t pid = quiet_fork();
  if (pid == 0) {
    close(fds[0]);
    main(L, fds[1]);
  }
  close(fds[1]);
  child->fd = fds[0];
  if (pid < 0) return luaL_error(L, "fork: %s", strerror(errno));
  child->pid = pid;
  return 1;
}

static int child_start(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  return child_fork(L, child_call);
}

static int child_exec(lua_State *L) {
  for (int i = 1; i <= lua_gettop(L); i++)
    luaL_checkstring(L, i);
  luaL_argcheck(L, lua_gettop(L) <= CHILD_WORDS_MAX, 1, "too many words");
  return child_fork(L, child_exec_program);
}

static int child_line(lua_State *L) {
  return child_receive_line(L, child_check(L)->fd);
}

static int child_tell(lua_State *L) {
  return child_send_line(L, child_check(L)->fd, 2);
}

static int child_kill(lua_State *L) {
  struct child *child = child_check(L);
  int number = lua_isnoneornil(L, 2) ? SIGKILL : probe_check_int(L, 2);
  if (child->pid > 0) kill(child->pid, number);
  return 0;
}

static int child_forget(lua_State *L) {
  struct child *child = child_check(L);
  lua_pushinteger(L, child->pid);
  if (child->fd >= 0) close(child->fd);
  child->pid = 0;
  child->fd = -1;
  return 1;
}

static int child_pid(lua_State *L) {
  lua_pushinteger(L, child_check(L)->pid);
  return 1;
}

static int child_reap(struct child *child) {
  int status = 0;
  while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
    continue;
  close(child->fd);
  child->pid = 0;
  child->fd = -1;
  return status;
}

static int child_wait(lua_State *L) {
  struct child *child = child_check(L);
  luaL_Buffer buffer;
  char data[512];
  ssize_t n;
  if (child->pid == 0) return luaL_error(L, "the child was waited for already");
  luaL_buffinit(L, &buffer);
  while ((n = child_receive(child->fd, data, sizeof data)) > 0)
    luaL_addlstring(&buffer, data, (size_t)n);
  luaL_pushresult(&buffer);
  if (n < 0) kill(child->pid, SIGKILL); /* it hangs; the status says so */

  int status = child_reap(child);
  bool exited = WIFEXITED(status);
  lua_pushstring(L, exited ? "exit" : "signal");
  lua_pushinteger(L, exited ? WEXITSTATUS(status) : WTERMSIG(status));
  return 3;
}

static int child_run(lua_State *L) {
  child_start(L);
  lua_replace(L, 1);
  lua_settop(L, 1);
  return child_wait(L);
}

static int child_shell(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 1);
  child_fork(L, child_exec_shell);
  lua_replace(L, 1);
  lua_settop(L, 1);
  child_wait(L);
  lua_settop(L, 2);
  return 1;
}

/* A child that nobody waited for does not outlive its handle. */
static int child_gc(lua_State *L) {
  struct child *child = child_check(L);
  if (child->pid > 0 && child->owner == getpid()) {
    kill(child->pid, SIGKILL);
    child_reap(child);
  }
  return 0;
}

static int child_signal(lua_State *L) {
  pid_t pid = probe_check_int(L, 1);
  luaL_argcheck(L, pid > 1, 1, "one process");
  lua_pushboolean(L, kill(pid, probe_check_int(L, 2)) == 0);
  return 1;
}

/* ---- The child --------------------------------------------------------- */

static int child_say(lua_State *L) {
  return child_send_line(L, child_parent_fd, 1);
}

static int child_hear(lua_State *L) {
  return child_receive_line(L, child_parent_fd);
}

/* limit("as" or "fsize" or "nofile", number): lowers the soft limit. */
static int child_limit(lua_State *L) {
  static const char *const names[] = {"as", "fsize", "nofile", NULL};
  static const unsigned resources[] = {RLIMIT_AS, RLIMIT_FSIZE, RLIMIT_NOFILE};
  unsigned resource = resources[luaL_checkoption(L, 1, NULL, names)];
  struct rlimit limit;
  if (getrlimit(resource, &limit) != 0)
    return luaL_error(L, "getrlimit: %s", strerror(errno));
  limit.rlim_cur = (rlim_t)probe_check_u64(L, 2);
  if (setrlimit(resource, &limit) != 0)
    return luaL_error(L, "setrlimit: %s", strerror(errno));
  return 0;
}

static int child_raise(lua_State *L) {
  kill(getpid(), probe_check_int(L, 1));
  return 0;
}

/* ignore(signal) */
static int child_ignore(lua_State *L) {
  signal(probe_check_int(L, 1), SIG_IGN);
  return 0;
}

static int child_become(lua_State *L) { child_exec_program(L, -1); }

static int child_leave(lua_State *L) {
  int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd < 0 || dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0 ||
      dup2(fd, STDERR_FILENO) < 0)
    return luaL_error(L, "/dev/null: %s", strerror(errno));
  close(fd);
  close(child_parent_fd);
  child_parent_fd = -1;
  return 0;
}

static int child_chdir(lua_State *L) {
  if (chdir(luaL_checkstring(L, 1)) != 0)
    return luaL_error(L, "chdir: %s", strerror(errno));
  return 0;
}

void probe_child_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"line", child_line}, {"tell", child_tell}, {"kill", child_kill},
      {"pid", child_pid},   {"wait", child_wait}, {"forget", child_forget},
      {"__gc", child_gc},   {NULL, NULL},
  };
  static const luaL_Reg functions[] = {
      {"start", child_start},   {"run", child_run},
      {"say", child_say},       {"hear", child_hear},
      {"limit", child_limit},   {"raise", child_raise},
      {"ignore", child_ignore}, {"shell", child_shell},
      {"exec", child_exec},     {"signal", child_signal},
      {"chdir", child_chdir},   {"become", child_become},
      {"leave", child_leave},   {NULL, NULL},
  };
  luaL_newmetatable(L, CHILD_TYPE);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
