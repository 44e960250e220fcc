/* SPDX-License-Identifier: MIT */
/*
 * The table of system calls as a store uses it: each entry the call itself.
 * Those that are variadic, or that C libraries declare with attributes or
 * macros in the way, have a plain function in front.
 */
#include "os/calls.h"

#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "build with _FILE_OFFSET_BITS=64");

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

static int calls_lock(int fd, int command, struct flock *lock) {
  return fcntl(fd, command, lock);
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
    .fstat = calls_fstat,
    .stat = calls_stat,
    .fstatfs = fstatfs,
    .fchmod = fchmod,
    .link = link,
    .unlink = unlink,
    .lock = calls_lock,
    .mmap = mmap,
    .munmap = munmap,
    .madvise = madvise,
    .getrandom = getrandom,
};
