/* SPDX-License-Identifier: MIT */
/*
 * Open file description locks on single bytes. The kernel has a way to wait
 * for one (F_OFD_SETLKW) but none with a time-out that leaves the host's
 * signals alone, so waiting is trying again, at growing distances.
 */
#include "os/lock.h"

#include <errno.h>
#include <stdio.h>

#include "base/errors.h"
#include "os/calls.h"
#include "os/process.h"

enum { LOCK_RETRY_MIN_MS = 1, LOCK_RETRY_MAX_MS = 16 };

/* The command on `size` bytes, 0 meaning all that follow: 0, or the errno.
   Leaves the answer's type. */
static int lock_call(int fd, int command, uint64_t offset, uint64_t size,
                     short *type) {
  struct flock lock = {
      .l_type = *type,
      .l_whence = SEEK_SET,
      .l_start = (off_t)offset,
      .l_len = (off_t)size,
      .l_pid = 0, /* the kernel demands it */
  };
  int result;

  do
    result = os_calls.lock(fd, command, &lock);
  while (result != 0 && errno == EINTR);
  *type = lock.l_type;
  return result == 0 ? 0 : errno;
}

static int lock_set(int fd, uint64_t offset, short type) {
  return lock_call(fd, F_OFD_SETLK, offset, 1, &type);
}

static int lock_result(int failure, const char *what) {
  switch (failure) {
    case 0:
      return MMCMAP_OK;
    case EACCES: /* POSIX lets a system say either */
      return error_set_errno(EAGAIN, what);
    case EINVAL: /* a kernel that does not know the command */
      return error_set_errno(EOPNOTSUPP, what);
    default:
      return error_set_errno(failure, what);
  }
}

int lock_try(int fd, uint64_t offset, enum lock_kind kind) {
  int failure = lock_set(fd, offset, kind == LOCK_SHARED ? F_RDLCK : F_WRLCK);
  return lock_result(failure, "fcntl F_OFD_SETLK");
}

int lock_wait(int fd, uint64_t offset, enum lock_kind kind,
              uint32_t timeout_ms) {
  uint64_t begin = process_monotonic_ns();
  uint32_t pause_ms = LOCK_RETRY_MIN_MS;

  for (;;) {
    int code = lock_try(fd, offset, kind);
    if (code != MMCMAP_EBUSY) return code;
    uint64_t waited_ms = (process_monotonic_ns() - begin) / 1000000;
    if (waited_ms >= timeout_ms) return code;
    if (pause_ms > timeout_ms - waited_ms)
      pause_ms = (uint32_t)(timeout_ms - waited_ms);
    process_sleep_ms(pause_ms);
    if (pause_ms < LOCK_RETRY_MAX_MS) pause_ms *= 2;
  }
}

void lock_release(int fd, uint64_t offset) { lock_set(fd, offset, F_UNLCK); }

static int is_free(int fd, uint64_t offset, uint64_t size, bool *free_out) {
  /* What an exclusive lock would conflict with is any lock. */
  short type = F_WRLCK;

  *free_out = false;
  int failure = lock_call(fd, F_OFD_GETLK, offset, size, &type);
  if (failure != 0) return lock_result(failure, "fcntl F_OFD_GETLK");
  *free_out = type == F_UNLCK;
  return MMCMAP_OK;
}

int lock_is_free(int fd, uint64_t offset, bool *free_out) {
  return is_free(fd, offset, 1, free_out);
}

int lock_is_free_from(int fd, uint64_t offset, bool *free_out) {
  return is_free(fd, offset, 0, free_out);
}
