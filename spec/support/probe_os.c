/* SPDX-License-Identifier: MIT */
/*
 * Area os of the probe: files, mappings, locks and the process. Descriptors
 * are plain numbers that the spec closes; a mapping is a userdata that closes
 * itself. The threads' part is in probe_threads.c, that of failing system
 * calls in probe_faults.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "mmcmap.h"
#include "os/file.h"
#include "os/lock.h"
#include "os/map.h"
#include "os/process.h"
#include "probe.h"
#include "probe_faults.h"
#include "probe_threads.h"

#define OS_MAP_TYPE "mmcmap_probe.map"

/* The number on success, else as probe_fail(). */
static int os_number_or_fail(lua_State *L, int code, uint64_t value) {
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, value);
  return 1;
}

static int os_fd_or_fail(lua_State *L, int code, int fd) {
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushinteger(L, fd);
  return 1;
}

/* ---- Files ------------------------------------------------------------- */

/* file_open(path, readonly): descriptor */
static int os_file_open(lua_State *L) {
  int fd;
  int code = file_open(luaL_checkstring(L, 1), probe_check_bool(L, 2), &fd);
  return os_fd_or_fail(L, code, fd);
}

/* file_create(path, mode): descriptor */
static int os_file_create(lua_State *L) {
  int fd;
  int code = file_create(luaL_checkstring(L, 1), probe_check_u32(L, 2), &fd);
  return os_fd_or_fail(L, code, fd);
}

/* file_open_or_create(path, mode): descriptor, whether it was made; closes what a
   failure leaves. */
static int os_file_open_or_create(lua_State *L) {
  int fd;
  bool is_made;
  const char *path = luaL_checkstring(L, 1);
  int code = file_open_or_create(path, probe_check_u32(L, 2), &fd, &is_made);
  if (code != MMCMAP_OK) {
    if (fd >= 0) file_close(fd);
    return probe_fail(L, code);
  }
  lua_pushinteger(L, fd);
  lua_pushboolean(L, is_made);
  return 2;
}

static int os_file_close(lua_State *L) {
  file_close(probe_check_int(L, 1));
  return 0;
}

/* file_read(fd, size, offset): string */
static int os_file_read(lua_State *L) {
  int fd = probe_check_int(L, 1);
  size_t size = probe_check_size(L, 2), got;
  uint64_t offset = probe_check_u64(L, 3);
  char *data = lua_newuserdata(L, size + 1);
  int code = file_read(fd, data, size, offset, &got);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, data, got);
  return 1;
}

/* file_write(fd, string, offset) */
static int os_file_write(lua_State *L) {
  size_t size;
  int fd = probe_check_int(L, 1);
  const char *data = luaL_checklstring(L, 2, &size);
  return probe_result(L, file_write(fd, data, size, probe_check_u64(L, 3)));
}

static int os_file_sync(lua_State *L) {
  return probe_result(L, file_sync(probe_check_int(L, 1)));
}

static int os_file_sync_folder_of(lua_State *L) {
  return probe_result(L, file_sync_folder_of(luaL_checkstring(L, 1)));
}

static int os_file_size(lua_State *L) {
  uint64_t size;
  int code = file_size(probe_check_int(L, 1), &size);
  return os_number_or_fail(L, code, size);
}

/* file_allocate(fd, offset, size) */
static int os_file_allocate(lua_State *L) {
  return probe_result(
      L, file_allocate(probe_check_int(L, 1), probe_check_u64(L, 2),
                       probe_check_u64(L, 3)));
}

/* file_truncate(fd, size) */
static int os_file_truncate(lua_State *L) {
  return probe_result(
      L, file_truncate(probe_check_int(L, 1), probe_check_u64(L, 2)));
}

static int os_identity_or_fail(lua_State *L, int code,
                               struct file_identity identity) {
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, identity.device);
  probe_push_u64(L, identity.inode);
  return 2;
}

/* file_available(fd): bytes, or nil if the file system does not tell */
static int os_file_available(lua_State *L) {
  uint64_t bytes;
  int code = file_available(probe_check_int(L, 1), &bytes);
  if (code != MMCMAP_OK || bytes != UINT64_MAX)
    return os_number_or_fail(L, code, bytes);
  lua_pushnil(L);
  return 1;
}

/* file_identify(fd): device, inode */
static int os_file_identify(lua_State *L) {
  struct file_identity identity;
  int code = file_identify(probe_check_int(L, 1), &identity);
  return os_identity_or_fail(L, code, identity);
}

/* file_identify_path(path): device, inode */
static int os_file_identify_path(lua_State *L) {
  struct file_identity identity;
  int code = file_identify_path(luaL_checkstring(L, 1), &identity);
  return os_identity_or_fail(L, code, identity);
}

static int os_file_mount_id(lua_State *L) {
  uint64_t id;
  int code = file_mount_id(probe_check_int(L, 1), &id);
  return os_number_or_fail(L, code, id);
}

/* file_mode(fd): permission bits */
static int os_file_mode(lua_State *L) {
  unsigned mode;
  int code = file_mode(probe_check_int(L, 1), &mode);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushinteger(L, (lua_Integer)mode);
  return 1;
}

/* file_follow_owner(fd, like_fd) */
static int os_file_follow_owner(lua_State *L) {
  return probe_result(
      L, file_follow_owner(probe_check_int(L, 1), probe_check_int(L, 2)));
}

/* file_real_path(path): string */
static int os_file_real_path(lua_State *L) {
  char *absolute;
  int code = file_real_path(luaL_checkstring(L, 1), &absolute);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushstring(L, absolute);
  free(absolute);
  return 1;
}

/* file_real_path_of_new(path, follows): string */
static int os_file_real_path_of_new(lua_State *L) {
  char *absolute;
  int code = file_real_path_of_new(luaL_checkstring(L, 1), lua_toboolean(L, 2),
                                   &absolute);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushstring(L, absolute);
  free(absolute);
  return 1;
}

/* umask(mask): the one before */
static int os_umask(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)umask((mode_t)probe_check_u32(L, 1)));
  return 1;
}

/* become(user, group): what root can, for the rest of a child */
static int os_become(lua_State *L) {
  uid_t user = (uid_t)probe_check_u32(L, 1);
  gid_t group = (gid_t)probe_check_u32(L, 2);
  if (setgroups(0, NULL) != 0 || setgid(group) != 0 || setuid(user) != 0)
    return luaL_error(L, "become: %s", strerror(errno));
  return 0;
}

/* chdir(folder) */
static int os_chdir(lua_State *L) {
  if (chdir(luaL_checkstring(L, 1)) != 0)
    return luaL_error(L, "chdir: %s", strerror(errno));
  return 0;
}

/* file_is_network(fd): boolean */
static int os_file_is_network(lua_State *L) {
  bool network;
  int code = file_is_network(probe_check_int(L, 1), &network);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushboolean(L, network);
  return 1;
}

/* file_link(from, to) */
static int os_file_link(lua_State *L) {
  const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2);
  return probe_result(L, file_link(from, to));
}

static int os_file_rename(lua_State *L) {
  return probe_result(
      L, file_rename(luaL_checkstring(L, 1), luaL_checkstring(L, 2)));
}

static int os_file_unlink(lua_State *L) {
  return probe_result(L, file_unlink(luaL_checkstring(L, 1)));
}

/* stat(path): permission bits, bytes allocated, bytes long; nil if there is no
   such file. */
static int os_stat(lua_State *L) {
  struct stat file;
  if (stat(luaL_checkstring(L, 1), &file) != 0) return 0;
  lua_pushinteger(L, (lua_Integer)(file.st_mode & 07777));
  lua_pushnumber(L, (lua_Number)file.st_blocks * 512);
  lua_pushnumber(L, (lua_Number)file.st_size);
  return 3;
}

/* is_close_on_exec(fd) */
static int os_is_close_on_exec(lua_State *L) {
  int flags = fcntl(probe_check_int(L, 1), F_GETFD);
  lua_pushboolean(L, flags >= 0 && (flags & FD_CLOEXEC) != 0);
  return 1;
}

/* ---- Mappings ---------------------------------------------------------- */

static struct map *os_check_map(lua_State *L, uint64_t offset, uint64_t size) {
  struct map *map = luaL_checkudata(L, 1, OS_MAP_TYPE);
  luaL_argcheck(L, bytes_within(offset, size, map->size_bytes), 2,
                "beyond the mapping");
  return map;
}

/* map_open(fd, writable, wanted, least): a map */
static int os_map_open(lua_State *L) {
  int fd = probe_check_int(L, 1);
  bool writable = probe_check_bool(L, 2);
  uint64_t wanted = probe_check_u64(L, 3), least = probe_check_u64(L, 4);
  struct map *map = lua_newuserdata(L, sizeof *map);
  int code = map_open(fd, writable, wanted, least, map);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  luaL_getmetatable(L, OS_MAP_TYPE);
  lua_setmetatable(L, -2);
  return 1;
}

/* map_default_bytes() */
static int os_map_default_bytes(lua_State *L) {
  probe_push_u64(L, map_default_bytes());
  return 1;
}

/* A view or memory that map_close_shared() closes, as a map of one view. */
static int os_push_shared(lua_State *L, int code, uint8_t *at, uint64_t size) {
  if (code != MMCMAP_OK) {
    if (at != NULL || size != 0) return luaL_error(L, "something is left");
    return probe_fail(L, code);
  }
  struct map *map = lua_newuserdata(L, sizeof *map);
  *map = (struct map){at, at, size};
  luaL_getmetatable(L, OS_MAP_TYPE);
  lua_setmetatable(L, -2);
  return 1;
}

/* map_open_shared(fd, wanted, least): a map */
static int os_map_open_shared(lua_State *L) {
  uint8_t *at;
  uint64_t size;
  int code = map_open_shared(probe_check_int(L, 1), 0, probe_check_u64(L, 2),
                             probe_check_u64(L, 3), &at, &size);
  return os_push_shared(L, code, at, size);
}

/* map_anonymous(size): a map */
static int os_map_anonymous(lua_State *L) {
  uint8_t *at;
  uint64_t size = probe_check_u64(L, 1);
  int code = map_anonymous(size, &at);
  return os_push_shared(L, code, at, code == MMCMAP_OK ? size : 0);
}

/* map:close_shared(): its view, with map_close_shared() */
static int os_map_close_shared(lua_State *L) {
  struct map *map = os_check_map(L, 0, 0);
  map_close_shared(map->write, map->size_bytes);
  *map = (struct map){NULL, NULL, 0};
  return 0;
}

/* map:close(): whether all zeros are left */
static int os_map_close(lua_State *L) {
  static const struct map nothing;
  struct map *map = os_check_map(L, 0, 0);
  map_close(map);
  lua_pushboolean(L, map->read == nothing.read && map->write == nothing.write &&
                         map->size_bytes == 0);
  return 1;
}

static int os_map_size(lua_State *L) {
  probe_push_u64(L, os_check_map(L, 0, 0)->size_bytes);
  return 1;
}

/* map:views(): "none", "read", "one" or "two" */
static int os_map_views(lua_State *L) {
  struct map *map = os_check_map(L, 0, 0);
  lua_pushstring(L, map->read == NULL         ? "none"
                    : map->write == NULL      ? "read"
                    : map->read == map->write ? "one"
                                              : "two");
  return 1;
}

/* map:read(offset, size): string */
static int os_map_read(lua_State *L) {
  uint64_t offset = probe_check_u64(L, 2), size = probe_check_u64(L, 3);
  struct map *map = os_check_map(L, offset, size);
  lua_pushlstring(L, (const char *)map->read + offset, (size_t)size);
  return 1;
}

/* map:write(offset, string) */
static int os_map_write(lua_State *L) {
  size_t size;
  uint64_t offset = probe_check_u64(L, 2);
  const char *data = luaL_checklstring(L, 3, &size);
  struct map *map = os_check_map(L, offset, size);
  luaL_argcheck(L, map->write != NULL, 1, "read-only");
  memcpy(map->write + offset, data, size);
  return 0;
}

/* map:write_through_readers_view(): a byte where none may be written */
static int os_map_write_wrongly(lua_State *L) {
  struct map *map = os_check_map(L, 0, 1);
  volatile uint8_t *at = (volatile uint8_t *)(uintptr_t)map->read;
  *at = 1;
  return 0;
}

/* map:populate(offset, size) */
static int os_map_populate(lua_State *L) {
  struct map *map = os_check_map(L, 0, 0);
  map_populate(map, probe_check_u64(L, 2), probe_check_u64(L, 3));
  return 0;
}

/* map_close_zeros(): closes a struct and a view that were never opened */
static int os_map_close_zeros(lua_State *L) {
  struct map map = {NULL, NULL, 0};
  (void)L;
  map_close(&map);
  map_close_shared(NULL, 0);
  return 0;
}

/* ---- Locks ------------------------------------------------------------- */

static enum lock_kind os_check_kind(lua_State *L, int arg) {
  static const char *const names[] = {"shared", "exclusive", NULL};
  return luaL_checkoption(L, arg, NULL, names) == 0 ? LOCK_SHARED
                                                    : LOCK_EXCLUSIVE;
}

/* lock_try(fd, offset, kind) */
static int os_lock_try(lua_State *L) {
  return probe_result(L, lock_try(probe_check_int(L, 1), probe_check_u64(L, 2),
                                  os_check_kind(L, 3)));
}

/* lock_wait(fd, offset, kind, timeout_ms) */
static int os_lock_wait(lua_State *L) {
  return probe_result(L, lock_wait(probe_check_int(L, 1), probe_check_u64(L, 2),
                                   os_check_kind(L, 3), probe_check_u32(L, 4)));
}

/* lock_release(fd, offset) */
static int os_lock_release(lua_State *L) {
  lock_release(probe_check_int(L, 1), probe_check_u64(L, 2));
  return 0;
}

/* lock_is_free(fd, offset): boolean */
static int os_lock_is_free(lua_State *L) {
  bool free;
  int code = lock_is_free(probe_check_int(L, 1), probe_check_u64(L, 2), &free);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushboolean(L, free);
  return 1;
}

/* ---- Process ----------------------------------------------------------- */

/* What the fork handlers did, in order, and at which generation. */
static char os_fork_log[64];

static void os_log(char letter) {
  size_t size = strlen(os_fork_log);
  if (size + 2 >= sizeof os_fork_log) return;
  os_fork_log[size] = letter;
  os_fork_log[size + 1] = (char)('0' + process_fork_generation() % 10);
}

static void os_log_prepare(void) { os_log('p'); }
static void os_log_parent(void) { os_log('f'); }
static void os_log_child(void) { os_log('c'); }
static void os_log_other(void) { os_log('x'); }

/* watch_forks("log"): handlers that write letters (p, f, c) and generations to
   fork_log(); "other": ones that write x; "none". Only the first call in a
   process counts, the engine's own included. */
static int os_watch_forks(lua_State *L) {
  static const char *const names[] = {"log", "other", "none", NULL};
  switch (luaL_checkoption(L, 1, NULL, names)) {
    case 0:
      return probe_result(
          L, process_watch_forks(os_log_prepare, os_log_parent, os_log_child));
    case 1:
      return probe_result(
          L, process_watch_forks(os_log_other, os_log_other, os_log_other));
    default:
      return probe_result(L, process_watch_forks(NULL, NULL, NULL));
  }
}

static int os_fork_log_text(lua_State *L) {
  lua_pushstring(L, os_fork_log);
  return 1;
}

static int os_fork_generation(lua_State *L) {
  lua_pushnumber(L, (lua_Number)process_fork_generation());
  return 1;
}

/* random(size): string */
static int os_random(lua_State *L) {
  size_t size = probe_check_size(L, 1);
  char *data = lua_newuserdata(L, size + 1);
  int code = process_random(data, size);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, data, size);
  return 1;
}

/* monotonic_ns(): a number, exact enough for differences */
static int os_monotonic_ns(lua_State *L) {
  lua_pushnumber(L, (lua_Number)process_monotonic_ns());
  return 1;
}

/* wall_ms([ms]): the wall's clock, after setting it; 0: the system's again. */
static int os_wall_ms(lua_State *L) {
  if (!lua_isnoneornil(L, 1))
    atomic_store(&process_wall_cell, probe_check_u64(L, 1));
  lua_pushnumber(L, (lua_Number)process_wall_ms());
  return 1;
}

static int os_page_size(lua_State *L) {
  lua_pushnumber(L, (lua_Number)process_page_size());
  return 1;
}

static int os_sleep_ms(lua_State *L) {
  process_sleep_ms(probe_check_u32(L, 1));
  return 0;
}

/* boot_id(): a string of bytes */
static int os_boot_id(lua_State *L) {
  uint8_t id[PROCESS_BOOT_ID_BYTES];
  int code = process_boot_id(id);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlstring(L, (const char *)id, sizeof id);
  return 1;
}

/* process_ids(): of the process, of the thread */
static int os_process_ids(lua_State *L) {
  lua_pushnumber(L, (lua_Number)process_id());
  lua_pushnumber(L, (lua_Number)process_thread_id());
  return 2;
}

/* descriptor_count(): those that this process has open. Another process that
   counts them, as a shell does, may find those of the pipe to itself among
   them, since it can be running before its parent has closed its end. */
static int os_descriptor_count(lua_State *L) {
  DIR *folder = opendir("/proc/self/fd");
  if (folder == NULL)
    return luaL_error(L, "/proc/self/fd: %s", strerror(errno));
  int count = 0;
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
    count += entry->d_name[0] != '.';
  closedir(folder);
  lua_pushinteger(L, count - 1); /* not the folder's own */
  return 1;
}

/* ---- The area ---------------------------------------------------------- */

static const luaL_Reg os_functions[] = {
    {"file_open", os_file_open},
    {"file_create", os_file_create},
    {"file_open_or_create", os_file_open_or_create},
    {"file_close", os_file_close},
    {"file_read", os_file_read},
    {"file_write", os_file_write},
    {"file_sync", os_file_sync},
    {"file_sync_folder_of", os_file_sync_folder_of},
    {"file_size", os_file_size},
    {"file_allocate", os_file_allocate},
    {"file_available", os_file_available},
    {"file_truncate", os_file_truncate},
    {"file_identify", os_file_identify},
    {"file_identify_path", os_file_identify_path},
    {"file_mount_id", os_file_mount_id},
    {"file_mode", os_file_mode},
    {"file_follow_owner", os_file_follow_owner},
    {"file_real_path", os_file_real_path},
    {"file_real_path_of_new", os_file_real_path_of_new},
    {"umask", os_umask},
    {"become", os_become},
    {"chdir", os_chdir},
    {"file_is_network", os_file_is_network},
    {"file_link", os_file_link},
    {"file_rename", os_file_rename},
    {"file_unlink", os_file_unlink},
    {"stat", os_stat},
    {"is_close_on_exec", os_is_close_on_exec},
    {"map_open", os_map_open},
    {"map_default_bytes", os_map_default_bytes},
    {"map_open_shared", os_map_open_shared},
    {"map_anonymous", os_map_anonymous},
    {"map_close_zeros", os_map_close_zeros},
    {"lock_try", os_lock_try},
    {"lock_wait", os_lock_wait},
    {"lock_release", os_lock_release},
    {"lock_is_free", os_lock_is_free},
    {"watch_forks", os_watch_forks},
    {"fork_log", os_fork_log_text},
    {"fork_generation", os_fork_generation},
    {"random", os_random},
    {"monotonic_ns", os_monotonic_ns},
    {"wall_ms", os_wall_ms},
    {"page_size", os_page_size},
    {"sleep_ms", os_sleep_ms},
    {"boot_id", os_boot_id},
    {"process_ids", os_process_ids},
    {"descriptor_count", os_descriptor_count},
    {NULL, NULL},
};

static const luaL_Reg os_map_methods[] = {
    {"close", os_map_close},
    {"close_shared", os_map_close_shared},
    {"size", os_map_size},
    {"views", os_map_views},
    {"read", os_map_read},
    {"write", os_map_write},
    {"write_through_readers_view", os_map_write_wrongly},
    {"populate", os_map_populate},
    {"__gc", os_map_close},
    {NULL, NULL},
};

void probe_os_open(lua_State *L) {
  luaL_newmetatable(L, OS_MAP_TYPE);
  luaL_setfuncs(L, os_map_methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  luaL_setfuncs(L, os_functions, 0);
  probe_faults_open(L);
  probe_threads_open(L);
}
