/* SPDX-License-Identifier: MIT */
/*
 * Every system call that the library makes on files, mappings and locks, and the
 * start of a thread, go through this table, so that tests can count calls, fail
 * them or die in them
 * (after SQLite's unix syscall table). Only folder os includes it. The entries
 * have the meaning of the calls they are named after; -1 and errno on failure.
 * Only tests, and programs that measure, write to the table, before they open a
 * store.
 */
#ifndef OS_CALLS_H
#define OS_CALLS_H

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* The kernel's struct statx, of which older headers lack what we need. */
struct calls_statx {
  uint32_t mask; /* what the kernel has filled in: CALLS_STATX_... */
  uint32_t before[35];
  uint64_t mount_id;
  uint64_t after[13];
};

/* STATX_MNT_ID_UNIQUE (Linux 6.8) */
#define CALLS_STATX_MOUNT_ID_UNIQUE UINT32_C(0x4000)

struct os_calls {
  int (*open)(const char *path, int flags, mode_t mode);
  int (*close)(int fd);
  int (*duplicate)(int fd, int least); /* fcntl F_DUPFD_CLOEXEC */
  ssize_t (*pread)(int fd, void *data, size_t size, off_t offset);
  ssize_t (*pwrite)(int fd, const void *data, size_t size, off_t offset);
  int (*fdatasync)(int fd);
  int (*fsync)(int fd);
  int (*ftruncate)(int fd, off_t size);
  int (*fallocate)(int fd, int mode, off_t offset, off_t size);
  off_t (*lseek)(int fd, off_t offset, int whence);
  int (*fstat)(int fd, struct stat *stat_out);
  int (*stat)(const char *path, struct stat *stat_out);
  int (*statx)(int fd, const char *path, int flags, unsigned mask,
               struct calls_statx *statx_out);
  int (*fstatfs)(int fd, struct statfs *statfs_out);
  int (*fchmod)(int fd, mode_t mode);
  int (*fchown)(int fd, uid_t owner, gid_t group);
  char *(*realpath)(const char *path, char *resolved_out);
  ssize_t (*readlink)(const char *path, char *target_out, size_t size);
  int (*link)(const char *from, const char *to);
  int (*rename)(const char *from, const char *to);
  int (*unlink)(const char *path);
  int (*lock)(int fd, int command, struct flock *lock); /* fcntl F_OFD_* */
  void *(*mmap)(void *at, size_t size, int protection, int flags, int fd,
                off_t offset);
  int (*munmap)(void *at, size_t size);
  int (*madvise)(void *at, size_t size, int advice);
  int (*msync)(void *at, size_t size, int flags);
  ssize_t (*getrandom)(void *data, size_t size, unsigned flags);
  int (*thread)(pthread_t *thread_out, void *(*run)(void *), void *context);
};

extern struct os_calls os_calls;

#endif
