/* SPDX-License-Identifier: MIT */
/*
 * The table of system calls as a store uses it: each entry the call itself.
 * Those that are variadic, or that C libraries declare with attributes or
 * macros in the way, have a plain function in front.
 */
#include "os/calls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "build with _FILE_OFFSET_BITS=64");
_Static_assert(sizeof(struct calls_statx) == 256 &&
                   offsetof(struct calls_statx, mount_id) == 144,
               "the kernel's layout");

static int calls_open(const char *path, int flags, mode_t mode) {
  return open(path, flags, mode);
}

static int calls_duplicate(int fd, int least) {
  return fcntl(fd, F_DUPFD_CLOEXEC, least);
}

static int calls_fstat(int fd, struct stat *stat_out) {
  return fstat(fd, stat_out);
}

static int calls_stat(const char *path, struct stat *stat_out) {
  return stat(path, stat_out);
}

/* Not the C library's: older ones have none, or make one up from stat(). */
static int calls_statx(int fd, const char *path, int flags, unsigned mask,
                       struct calls_statx *statx_out) {
#ifdef SYS_statx
  return (int)syscall(SYS_statx, fd, path, flags, mask, statx_out);
#else
  (void)fd, (void)path, (void)flags, (void)mask, (void)statx_out;
  errno = ENOSYS;
  return -1;
#endif
}

static int calls_lock(int fd, int command, struct flock *lock) {
  return fcntl(fd, command, lock);
}

static int calls_thread(pthread_t *thread_out, void *(*run)(void *),
                        void *context) {
  errno = pthread_create(thread_out, NULL, run, context);
  return errno == 0 ? 0 : -1;
}

struct os_calls os_calls = {
    .open = calls_open,
    .close = close,
    .duplicate = calls_duplicate,
    .pread = pread,
    .pwrite = pwrite,
    .fdatasync = fdatasync,
    .fsync = fsync,
    .ftruncate = ftruncate,
    .fallocate = fallocate,
    .lseek = lseek,
    .fstat = calls_fstat,
    .stat = calls_stat,
    .statx = calls_statx,
    .fstatfs = fstatfs,
    .fchmod = fchmod,
    .fchown = fchown,
    .realpath = realpath,
    .readlink = readlink,
    .link = link,
    .rename = rename,
    .unlink = unlink,
    .lock = calls_lock,
    .mmap = mmap,
    .munmap = munmap,
    .madvise = madvise,
    .msync = msync,
    .getrandom = getrandom,
    .thread = calls_thread,
};
