/* SPDX-License-Identifier: MIT */
/*
 * Faults on purpose, part of area os of the probe: while it watches, every
 * entry of os_calls is a function of this file that counts the call, and may
 * refuse it, cut it short or die in it. Calls are numbered from 1, per entry,
 * from the moment that a fault was asked for.
 *
 *   fail(name, nth, errno [, times])  the nth call, and the next times - 1
 *                                     ones (0: all), fail with errno; EINTR
 *                                     makes an interrupted call
 *   short(name, nth, bytes)           the nth pread, pwrite or getrandom does
 *                                     at most that many bytes
 *   die(name, nth [, bytes])          the process is killed at the nth call,
 *                                     a pwrite after that many bytes
 *   pretend_file_system(magic)        fstatfs answers with this f_type
 *   pretend_old_statx()               statx knows no unique numbers of mounts
 *   pretend_full_disk()               nothing is allocated, not even what is there;
 *                                     what is to be zeroed loses its blocks (XFS)
 *   watch()                           only counts
 *   counts()                          {name = calls}, "*" for all together
 *   trace()                           the names of the calls, in order
 *   writes()                          {offset, size, ...} of each pwrite, in order
 *   restore()                         the real calls again, counts forgotten
 * The name "*" stands for calls of any entry. One fault per name at a time.
 * Threads of the engine may be calling meanwhile: all cells are atomic.
 */
#include "probe_faults.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "os/calls.h"
#include "probe.h"

/* clang-format off */
#define FAULTS_ENTRIES(ENTRY) \
  ENTRY(open) ENTRY(close) ENTRY(duplicate) ENTRY(pread) ENTRY(pwrite) \
  ENTRY(fdatasync) ENTRY(fsync) ENTRY(ftruncate) ENTRY(fallocate) ENTRY(lseek) \
  ENTRY(fstat) ENTRY(stat) ENTRY(statx) ENTRY(fstatfs) ENTRY(fchmod) \
  ENTRY(fchown) ENTRY(realpath) ENTRY(readlink) ENTRY(link) \
  ENTRY(rename) ENTRY(unlink) ENTRY(lock) \
  ENTRY(mmap) ENTRY(munmap) ENTRY(madvise) ENTRY(msync) \
  ENTRY(getrandom) ENTRY(thread)
/* clang-format on */

#define FAULTS_ENUM(name) FAULTS_##name,
#define FAULTS_NAME(name) #name,
#define FAULTS_FUNCTION(name) .name = faults_##name,

enum { FAULTS_ENTRIES(FAULTS_ENUM) FAULTS_ANY, FAULTS_COUNT };

_Static_assert(sizeof(struct os_calls) == FAULTS_ANY * sizeof(void (*)(void)),
               "every entry of os_calls needs a line in FAULTS_ENTRIES");

enum { FAULTS_TRACE_MAX = 65536, FAULTS_WRITES_MAX = 4096 };

enum faults_kind { FAULTS_NONE, FAULTS_FAIL, FAULTS_SHORT, FAULTS_DIE };

static const char *const faults_names[] = {FAULTS_ENTRIES(FAULTS_NAME) "*",
                                           NULL};

static struct faults_entry {
  atomic_long count; /* since watch() */
  atomic_int kind;   /* enum faults_kind; written last */
  atomic_long first; /* the count at which the fault begins */
  atomic_long last;  /* ... and ends */
  atomic_int system_errno;
  atomic_size_t bytes;
} faults_entries[FAULTS_COUNT];

static atomic_uchar faults_trace[FAULTS_TRACE_MAX];
static struct {
  atomic_long offset;
  atomic_long size;
} faults_written[FAULTS_WRITES_MAX];
static atomic_uint faults_magic; /* what fstatfs answers; 0: the truth */
static atomic_uint faults_statx_missing; /* bits that statx never answers */
static atomic_bool faults_disk_is_full;
static bool faults_watching;
static struct os_calls faults_real; /* the table while we watch */

/* ---- What happens at a call -------------------------------------------- */

static _Noreturn void faults_die(void) {
  kill(getpid(), SIGKILL);
  for (;;)
    pause();
}

static enum faults_kind faults_judge(struct faults_entry *entry,
                                     size_t *bytes_out) {
  long number = atomic_fetch_add(&entry->count, 1) + 1;
  enum faults_kind kind = (enum faults_kind)atomic_load(&entry->kind);
  if (kind == FAULTS_NONE || number < atomic_load(&entry->first) ||
      number > atomic_load(&entry->last))
    return FAULTS_NONE;
  *bytes_out = atomic_load(&entry->bytes);
  if (kind == FAULTS_FAIL) errno = atomic_load(&entry->system_errno);
  return kind;
}

/* Counts the call; what is to become of it, and of how many bytes. */
static enum faults_kind faults_meet(int index, size_t *bytes_out) {
  size_t bytes_any = 0;
  long number = atomic_load(&faults_entries[FAULTS_ANY].count);
  if (number < FAULTS_TRACE_MAX)
    atomic_store(&faults_trace[number], (unsigned char)index);
  enum faults_kind any = faults_judge(&faults_entries[FAULTS_ANY], &bytes_any);
  int errno_any = errno;
  enum faults_kind kind = faults_judge(&faults_entries[index], bytes_out);
  if (kind == FAULTS_NONE && any != FAULTS_NONE) {
    *bytes_out = bytes_any;
    errno = errno_any;
    return any;
  }
  return kind;
}

/* For calls without a size: true if the call is to fail. */
static bool faults_refuse(int index) {
  size_t bytes;
  enum faults_kind kind = faults_meet(index, &bytes);
  if (kind == FAULTS_DIE) faults_die();
  return kind == FAULTS_FAIL;
}

/* For calls with one: the same, and the size is cut down. */
static bool faults_refuse_some(int index, size_t *size) {
  size_t bytes = 0;
  enum faults_kind kind = faults_meet(index, &bytes);
  if (kind == FAULTS_DIE) faults_die();
  if (kind == FAULTS_SHORT && *size > bytes) *size = bytes;
  return kind == FAULTS_FAIL;
}

/* ---- The calls --------------------------------------------------------- */

static int faults_open(const char *path, int flags, mode_t mode) {
  return faults_refuse(FAULTS_open) ? -1 : faults_real.open(path, flags, mode);
}

static int faults_close(int fd) {
  /* A close that fails has closed, as on Linux. */
  bool refused = faults_refuse(FAULTS_close);
  int failure = errno;
  int result = faults_real.close(fd);
  if (refused) errno = failure;
  return refused ? -1 : result;
}

static int faults_duplicate(int fd, int least) {
  return faults_refuse(FAULTS_duplicate) ? -1
                                         : faults_real.duplicate(fd, least);
}

static ssize_t faults_pread(int fd, void *data, size_t size, off_t offset) {
  return faults_refuse_some(FAULTS_pread, &size)
             ? -1
             : faults_real.pread(fd, data, size, offset);
}

static ssize_t faults_pwrite(int fd, const void *data, size_t size,
                             off_t offset) {
  size_t bytes = 0;
  long number = atomic_load(&faults_entries[FAULTS_pwrite].count);
  if (number < FAULTS_WRITES_MAX) {
    atomic_store(&faults_written[number].offset, (long)offset);
    atomic_store(&faults_written[number].size, (long)size);
  }
  switch (faults_meet(FAULTS_pwrite, &bytes)) {
    case FAULTS_FAIL:
      return -1;
    case FAULTS_DIE: /* a torn write */
      faults_real.pwrite(fd, data, bytes < size ? bytes : size, offset);
      faults_die();
    case FAULTS_SHORT:
      return faults_real.pwrite(fd, data, bytes < size ? bytes : size, offset);
    default:
      return faults_real.pwrite(fd, data, size, offset);
  }
}

static int faults_fdatasync(int fd) {
  return faults_refuse(FAULTS_fdatasync) ? -1 : faults_real.fdatasync(fd);
}

static int faults_fsync(int fd) {
  return faults_refuse(FAULTS_fsync) ? -1 : faults_real.fsync(fd);
}

static int faults_ftruncate(int fd, off_t size) {
  return faults_refuse(FAULTS_ftruncate) ? -1 : faults_real.ftruncate(fd, size);
}

static int faults_fallocate(int fd, int mode, off_t offset, off_t size) {
  if (faults_refuse(FAULTS_fallocate)) return -1;
  if (!atomic_load(&faults_disk_is_full) || (mode & FALLOC_FL_PUNCH_HOLE) != 0)
    return faults_real.fallocate(fd, mode, offset, size);
  if (mode != 0)
    (void)faults_real.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                offset, size);
  errno = ENOSPC;
  return -1;
}

static off_t faults_lseek(int fd, off_t offset, int whence) {
  return faults_refuse(FAULTS_lseek) ? -1
                                     : faults_real.lseek(fd, offset, whence);
}

static int faults_fstat(int fd, struct stat *stat_out) {
  return faults_refuse(FAULTS_fstat) ? -1 : faults_real.fstat(fd, stat_out);
}

static int faults_stat(const char *path, struct stat *stat_out) {
  return faults_refuse(FAULTS_stat) ? -1 : faults_real.stat(path, stat_out);
}

static int faults_statx(int fd, const char *path, int flags, unsigned mask,
                        struct calls_statx *statx_out) {
  if (faults_refuse(FAULTS_statx)) return -1;
  int result = faults_real.statx(fd, path, flags, mask, statx_out);
  if (result == 0) statx_out->mask &= ~atomic_load(&faults_statx_missing);
  return result;
}

static int faults_fstatfs(int fd, struct statfs *statfs_out) {
  unsigned magic = atomic_load(&faults_magic);
  if (faults_refuse(FAULTS_fstatfs)) return -1;
  int result = faults_real.fstatfs(fd, statfs_out);
  if (result == 0 && magic != 0)
    statfs_out->f_type = (__typeof__(statfs_out->f_type))magic;
  return result;
}

static int faults_fchmod(int fd, mode_t mode) {
  return faults_refuse(FAULTS_fchmod) ? -1 : faults_real.fchmod(fd, mode);
}

static int faults_fchown(int fd, uid_t owner, gid_t group) {
  return faults_refuse(FAULTS_fchown) ? -1
                                      : faults_real.fchown(fd, owner, group);
}

static char *faults_realpath(const char *path, char *resolved_out) {
  return faults_refuse(FAULTS_realpath)
             ? NULL
             : faults_real.realpath(path, resolved_out);
}

static ssize_t faults_readlink(const char *path, char *target_out,
                               size_t size) {
  return faults_refuse(FAULTS_readlink)
             ? -1
             : faults_real.readlink(path, target_out, size);
}

static int faults_link(const char *from, const char *to) {
  return faults_refuse(FAULTS_link) ? -1 : faults_real.link(from, to);
}

static int faults_rename(const char *from, const char *to) {
  return faults_refuse(FAULTS_rename) ? -1 : faults_real.rename(from, to);
}

static int faults_unlink(const char *path) {
  return faults_refuse(FAULTS_unlink) ? -1 : faults_real.unlink(path);
}

static int faults_lock(int fd, int command, struct flock *lock) {
  return faults_refuse(FAULTS_lock) ? -1 : faults_real.lock(fd, command, lock);
}

static void *faults_mmap(void *at, size_t size, int protection, int flags,
                         int fd, off_t offset) {
  return faults_refuse(FAULTS_mmap)
             ? (void *)-1
             : faults_real.mmap(at, size, protection, flags, fd, offset);
}

static int faults_munmap(void *at, size_t size) {
  return faults_refuse(FAULTS_munmap) ? -1 : faults_real.munmap(at, size);
}

static int faults_msync(void *at, size_t size, int flags) {
  return faults_refuse(FAULTS_msync) ? -1 : faults_real.msync(at, size, flags);
}

static int faults_madvise(void *at, size_t size, int advice) {
  return faults_refuse(FAULTS_madvise) ? -1
                                       : faults_real.madvise(at, size, advice);
}

static ssize_t faults_getrandom(void *data, size_t size, unsigned flags) {
  return faults_refuse_some(FAULTS_getrandom, &size)
             ? -1
             : faults_real.getrandom(data, size, flags);
}

static int faults_thread(pthread_t *thread_out, void *(*run)(void *),
                         void *context) {
  return faults_refuse(FAULTS_thread)
             ? -1
             : faults_real.thread(thread_out, run, context);
}

/* ---- From Lua ---------------------------------------------------------- */

static void faults_forget(struct faults_entry *entry) {
  atomic_store(&entry->kind, FAULTS_NONE);
  atomic_store(&entry->count, 0);
}

static int faults_watch(lua_State *L) {
  static const struct os_calls table = {FAULTS_ENTRIES(FAULTS_FUNCTION)};
  (void)L;
  if (!faults_watching) {
    for (int i = 0; i < FAULTS_COUNT; i++)
      faults_forget(&faults_entries[i]);
    faults_real = os_calls;
    os_calls = table;
    faults_watching = true;
  }
  return 0;
}

static int faults_restore(lua_State *L) {
  (void)L;
  if (faults_watching) os_calls = faults_real;
  faults_watching = false;
  atomic_store(&faults_magic, 0);
  atomic_store(&faults_statx_missing, 0);
  atomic_store(&faults_disk_is_full, false);
  return 0;
}

/* Plans a fault for the entry named at index 1 from its call number index 2
   on; `times` 0 is for ever. */
static void faults_plan(lua_State *L, enum faults_kind kind, int times,
                        int system_errno, size_t bytes) {
  int index = luaL_checkoption(L, 1, NULL, faults_names);
  int nth = probe_check_int(L, 2);
  luaL_argcheck(L, nth >= 1, 2, "calls are numbered from 1");
  faults_watch(L);

  struct faults_entry *entry = &faults_entries[index];
  long first = atomic_load(&entry->count) + nth;
  atomic_store(&entry->kind, FAULTS_NONE);
  atomic_store(&entry->first, first);
  atomic_store(&entry->last, times == 0 ? (long)1 << 30 : first + times - 1);
  atomic_store(&entry->system_errno, system_errno);
  atomic_store(&entry->bytes, bytes);
  atomic_store(&entry->kind, (int)kind);
}

static int faults_fail(lua_State *L) {
  int times = lua_isnoneornil(L, 4) ? 1 : probe_check_int(L, 4);
  faults_plan(L, FAULTS_FAIL, times, probe_check_errno(L, 3), 0);
  return 0;
}

static int faults_short(lua_State *L) {
  faults_plan(L, FAULTS_SHORT, 1, 0, probe_check_size(L, 3));
  return 0;
}

static int faults_die_at(lua_State *L) {
  faults_plan(L, FAULTS_DIE, 0, 0, (size_t)probe_opt_u64(L, 3, 0));
  return 0;
}

static int faults_pretend_file_system(lua_State *L) {
  faults_watch(L);
  atomic_store(&faults_magic, probe_check_u32(L, 1));
  return 0;
}

static int faults_pretend_old_statx(lua_State *L) {
  faults_watch(L);
  atomic_store(&faults_statx_missing, CALLS_STATX_MOUNT_ID_UNIQUE);
  return 0;
}

static int faults_pretend_full_disk(lua_State *L) {
  faults_watch(L);
  atomic_store(&faults_disk_is_full, true);
  return 0;
}

static int faults_counts(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; i < FAULTS_COUNT; i++) {
    lua_pushinteger(
        L, faults_watching ? atomic_load(&faults_entries[i].count) : 0);
    lua_setfield(L, -2, faults_names[i]);
  }
  return 1;
}

static int faults_trace_of(lua_State *L) {
  long count = atomic_load(&faults_entries[FAULTS_ANY].count);
  lua_newtable(L);
  for (int i = 0; faults_watching && i < count && i < FAULTS_TRACE_MAX; i++) {
    lua_pushstring(L, faults_names[atomic_load(&faults_trace[i])]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int faults_writes(lua_State *L) {
  long count = atomic_load(&faults_entries[FAULTS_pwrite].count);
  lua_newtable(L);
  for (int i = 0; faults_watching && i < count && i < FAULTS_WRITES_MAX; i++) {
    lua_pushnumber(L, (lua_Number)atomic_load(&faults_written[i].offset));
    lua_rawseti(L, -2, 2 * i + 1);
    lua_pushnumber(L, (lua_Number)atomic_load(&faults_written[i].size));
    lua_rawseti(L, -2, 2 * i + 2);
  }
  return 1;
}

void probe_faults_open(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"watch", faults_watch},
      {"fail", faults_fail},
      {"short", faults_short},
      {"die", faults_die_at},
      {"counts", faults_counts},
      {"trace", faults_trace_of},
      {"writes", faults_writes},
      {"restore", faults_restore},
      {"pretend_file_system", faults_pretend_file_system},
      {"pretend_old_statx", faults_pretend_old_statx},
      {"pretend_full_disk", faults_pretend_full_disk},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
}
