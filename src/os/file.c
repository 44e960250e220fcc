/* SPDX-License-Identifier: MIT */
/*
 * Files, through the table of calls.h. A call that a signal interrupts is made
 * again, a short read or write is carried on with, and errno turns into a code
 * in the line after the call, before anything else can change it. Syncs are
 * the exception: they are made once, whatever they answer.
 */
#include "os/file.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/errors.h"
#include "base/testing.h"
#include "os/calls.h"

/* The kernel's numbers, which not all headers have names for. */
#ifndef FALLOC_FL_ZERO_RANGE
#define FALLOC_FL_ZERO_RANGE 0x10
#endif
#ifndef SEEK_HOLE
#define SEEK_HOLE 4
#endif

enum {
  FILE_DESCRIPTOR_MIN = 3,
  FILE_ZERO_CHUNK_BYTES = 65536,
  FILE_LINKS_MAX = 40, /* that are followed, as the kernel does */
  FILE_RACE_MAX = 100  /* how often a name may come and go meanwhile */
};

/* Moves a descriptor out of the way of the standard streams: a program that
   closed them and prints a message would print it into the store. */
static int file_leave_standard_streams(int fd, int *fd_out) {
  if (fd >= FILE_DESCRIPTOR_MIN) {
    *fd_out = fd;
    return MMCMAP_OK;
  }
  int moved = os_calls.duplicate(fd, FILE_DESCRIPTOR_MIN);
  int code = moved < 0 ? error_set_errno(errno, "fcntl F_DUPFD") : MMCMAP_OK;
  file_close(fd);
  *fd_out = moved;
  return code;
}

static int file_check_regular(int fd) {
  struct stat stat;
  if (os_calls.fstat(fd, &stat) != 0) return error_set_errno(errno, "fstat");
  if (!S_ISREG(stat.st_mode))
    return error_set(MMCMAP_EFORMAT, "not a regular file");
  return MMCMAP_OK;
}

/* open() as often as signals interrupt it; -1 and errno. */
static int file_call_open(const char *path, int flags, mode_t mode) {
  int fd;

  do
    fd = os_calls.open(path, flags | O_CLOEXEC | O_NOCTTY, mode);
  while (fd < 0 && errno == EINTR);
  return fd;
}

/* The code for an open() that failed. */
static int file_open_failed(int failure, int flags) {
  bool link = failure == ELOOP && (flags & O_NOFOLLOW) != 0;
  if (failure == EISDIR || failure == ENXIO || link)
    return error_set(MMCMAP_EFORMAT, "not a regular file");
  return error_set_errno(failure, "open");
}

/* Hands out what open() gave, if it is a file; else closes it. */
static int file_take_regular(int fd, int *fd_out) {
  int code = file_check_regular(fd);
  if (code != MMCMAP_OK) {
    file_close(fd);
    return code;
  }
  return file_leave_standard_streams(fd, fd_out);
}

int file_open(const char *path, bool readonly, int *fd_out) {
  /* O_NONBLOCK: a FIFO must not make us wait; regular files ignore it. */
  int flags = (readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK;

  *fd_out = -1;
  int fd = file_call_open(path, flags, 0);
  if (fd < 0) return file_open_failed(errno, flags);
  return file_take_regular(fd, fd_out);
}

int file_create(const char *path, unsigned mode, int *fd_out) {
  *fd_out = -1;
  int fd = file_call_open(path, O_RDWR | O_CREAT | O_EXCL, (mode_t)mode);
  if (fd < 0) return error_set_errno(errno, "open");

  int code = file_leave_standard_streams(fd, fd_out);
  if (code != MMCMAP_OK)
    os_calls.unlink(path); /* a failed call changes nothing */
  return code;
}

/* Permission bits that the umask has no part in. EPERM, for a file of our own,
   is how a file system says that it keeps no such bits. */
static int file_set_mode(int fd, unsigned mode) {
  if (os_calls.fchmod(fd, (mode_t)mode) == 0 || errno == EPERM ||
      errno == EOPNOTSUPP)
    return MMCMAP_OK;
  return error_set_errno(errno, "fchmod");
}

int file_open_or_create(const char *path, unsigned mode, int *fd_out,
                        bool *made_out) {
  /* Apart, since O_CREAT without O_EXCL would not say who made the file, and
     is refused in folders like /tmp for a file of somebody else's
     (fs.protected_regular). */
  int flags = O_RDWR | O_NONBLOCK | O_NOFOLLOW;
  int fd = -1;

  *fd_out = -1;
  *made_out = false;
  for (int i = 0; i < FILE_RACE_MAX; i++) {
    fd = file_call_open(path, flags, 0);
    if (fd >= 0) return file_take_regular(fd, fd_out);
    if (errno != ENOENT) break;

    fd = file_call_open(path, flags | O_CREAT | O_EXCL, (mode_t)mode);
    if (fd >= 0) break;
    if (errno != EEXIST) break;
  }
  if (fd < 0) return file_open_failed(errno, flags);

  *made_out = true;
  int code = file_leave_standard_streams(fd, fd_out);
  return code == MMCMAP_OK ? file_set_mode(*fd_out, mode) : code;
}

void file_close(int fd) {
  /* Not again after EINTR: on Linux the descriptor is gone by then. */
  os_calls.close(fd);
}

int file_read(int fd, void *data, size_t size, uint64_t offset,
              size_t *got_out) {
  uint8_t *at = data;
  size_t got = 0;

  *got_out = 0;
  while (got < size) {
    ssize_t n = os_calls.pread(fd, at + got, size - got, (off_t)(offset + got));
    if (n == 0) break;
    if (n > 0)
      got += (size_t)n;
    else if (errno != EINTR)
      return error_set_errno(errno, "pread");
  }
  *got_out = got;
  return MMCMAP_OK;
}

int file_write(int fd, const void *data, size_t size, uint64_t offset) {
  const uint8_t *at = data;

  for (size_t done = 0; done < size;) {
    ssize_t n =
        os_calls.pwrite(fd, at + done, size - done, (off_t)(offset + done));
    if (n == 0) /* no reason given; trying for ever would be worse */
      return error_set_errno(EIO, "pwrite of nothing");
    if (n > 0)
      done += (size_t)n;
    else if (errno != EINTR)
      return error_set_errno(errno, "pwrite");
  }
  return MMCMAP_OK;
}

int file_sync(int fd) {
  if (os_calls.fdatasync(fd) != 0) return error_set_errno(errno, "fdatasync");
  return MMCMAP_OK;
}

/* The path up to its last slash, "." without one, "/" for names in the root
   folder. */
static int file_folder_of(const char *path, char folder_out[PATH_MAX]) {
  const char *slash = strrchr(path, '/');
  size_t size = slash == NULL ? 0 : (size_t)(slash - path);

  if (slash == NULL || slash == path) {
    strcpy(folder_out, slash == NULL ? "." : "/");
    return MMCMAP_OK;
  }
  if (size >= PATH_MAX)
    return error_set_errno(ENAMETOOLONG, "folder of a path");
  memcpy(folder_out, path, size);
  folder_out[size] = '\0';
  return MMCMAP_OK;
}

int file_sync_folder_of(const char *path) {
  char folder[PATH_MAX];
  int fd;

  int code = file_folder_of(path, folder);
  if (code != MMCMAP_OK) return code;
  do
    fd = os_calls.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    int failure = errno; /* a folder may be writable and not readable */
    if (failure == EACCES || failure == EPERM) return MMCMAP_OK;
    return error_set_errno(failure, "open of a folder");
  }

  if (os_calls.fsync(fd) != 0 && errno != EINVAL && errno != EOPNOTSUPP)
    code = error_set_errno(errno, "fsync of a folder");
  file_close(fd);
  return code;
}

int file_size(int fd, uint64_t *size_out) {
  struct stat stat;

  *size_out = 0;
  if (os_calls.fstat(fd, &stat) != 0) return error_set_errno(errno, "fstat");
  *size_out = (uint64_t)stat.st_size;
  return MMCMAP_OK;
}

/* Writes zeros from the end of the file to `end`. Only what is new is written:
   somebody may be using the bytes before it. */
static int file_extend_with_zeros(int fd, uint64_t end) {
  static const uint8_t zeros[FILE_ZERO_CHUNK_BYTES];
  uint64_t at;

  int code = file_size(fd, &at);
  while (code == MMCMAP_OK && at < end) {
    size_t size = sizeof zeros - (size_t)(at % sizeof zeros);
    if (size > end - at) size = (size_t)(end - at);
    code = file_write(fd, zeros, size, at);
    at += size;
  }
  return code;
}

int file_allocate(int fd, uint64_t offset, uint64_t size) {
  int result;

  do
    result = os_calls.fallocate(fd, 0, (off_t)offset, (off_t)size);
  while (result != 0 && errno == EINTR);
  if (result == 0) return MMCMAP_OK;
  if (errno == EOPNOTSUPP || errno == ENOSYS)
    return file_extend_with_zeros(fd, offset + size);
  return error_set_errno(errno, "fallocate");
}

bool file_is_written(int fd, uint64_t offset, uint64_t size) {
  off_t hole = os_calls.lseek(fd, (off_t)offset, SEEK_HOLE);
  return hole >= 0 && (uint64_t)hole >= offset + size;
}

/* What not every file system can do, to bytes that the file has. */
static int change_blocks(int fd, int mode, uint64_t offset, uint64_t size) {
  int result;

  do
    result = os_calls.fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                                (off_t)size);
  while (result != 0 && errno == EINTR);
  if (result == 0) return MMCMAP_OK;
  if (errno == EOPNOTSUPP || errno == ENOSYS)
    return error_set(MMCMAP_ENOTSUP, "fallocate");
  return error_set_errno(errno, "fallocate");
}

int file_punch(int fd, uint64_t offset, uint64_t size) {
  return change_blocks(fd, FALLOC_FL_PUNCH_HOLE, offset, size);
}

int file_zero(int fd, uint64_t offset, uint64_t size) {
  int code = change_blocks(fd, FALLOC_FL_ZERO_RANGE, offset, size);
  /* In memory there is no such call. */
  if (code == MMCMAP_ENOTSUP && BROKEN(TESTING_FINE)) {
    code = change_blocks(fd, FALLOC_FL_PUNCH_HOLE, offset, size);
    if (code == MMCMAP_OK) code = file_allocate(fd, offset, size);
  }
  return code;
}

int file_truncate(int fd, uint64_t size) {
  int result;

  do
    result = os_calls.ftruncate(fd, (off_t)size);
  while (result != 0 && errno == EINTR);
  if (result != 0) return error_set_errno(errno, "ftruncate");
  return MMCMAP_OK;
}

static struct file_identity file_identity_of(const struct stat *stat) {
  return (struct file_identity){(uint64_t)stat->st_dev, (uint64_t)stat->st_ino};
}

int file_identify(int fd, struct file_identity *identity_out) {
  struct stat stat;

  *identity_out = (struct file_identity){0, 0};
  if (os_calls.fstat(fd, &stat) != 0) return error_set_errno(errno, "fstat");
  *identity_out = file_identity_of(&stat);
  return MMCMAP_OK;
}

int file_identify_path(const char *path, struct file_identity *identity_out) {
  struct stat stat;

  *identity_out = (struct file_identity){0, 0};
  if (os_calls.stat(path, &stat) != 0) return error_set_errno(errno, "stat");
  *identity_out = file_identity_of(&stat);
  return MMCMAP_OK;
}

int file_mount_id(int fd, uint64_t *id_out) {
  struct calls_statx statx;

  *id_out = 0;
  memset(&statx, 0, sizeof statx);
  if (os_calls.statx(fd, "", AT_EMPTY_PATH, CALLS_STATX_MOUNT_ID_UNIQUE,
                     &statx) != 0)
    /* EPERM for an open file is a sandbox that does not know the call. */
    return error_set_errno(errno == EPERM ? ENOSYS : errno, "statx");
  if ((statx.mask & CALLS_STATX_MOUNT_ID_UNIQUE) == 0)
    return error_set_errno(EOPNOTSUPP, "statx of a mount");
  *id_out = statx.mount_id;
  return MMCMAP_OK;
}

int file_mode(int fd, unsigned *mode_out) {
  struct stat stat;

  *mode_out = 0;
  if (os_calls.fstat(fd, &stat) != 0) return error_set_errno(errno, "fstat");
  *mode_out = stat.st_mode & 0777;
  return MMCMAP_OK;
}

int file_follow_owner(int fd, int like_fd) {
  struct stat stat, like;

  if (os_calls.fstat(fd, &stat) != 0 || os_calls.fstat(like_fd, &like) != 0)
    return error_set_errno(errno, "fstat");
  if (stat.st_uid == like.st_uid && stat.st_gid == like.st_gid)
    return MMCMAP_OK;
  if (os_calls.fchown(fd, like.st_uid, like.st_gid) == 0) return MMCMAP_OK;
  /* EINVAL: users whom this container has no numbers for. */
  if (errno != EPERM && errno != EINVAL && errno != EOPNOTSUPP)
    return error_set_errno(errno, "fchown");
  /* An owner may choose among the groups that he is in. */
  if (stat.st_gid != like.st_gid)
    (void)os_calls.fchown(fd, (uid_t)-1, like.st_gid);
  return MMCMAP_OK;
}

int file_real_path(const char *path, char **real_out) {
  char resolved[PATH_MAX];
  *real_out = NULL;
  if (os_calls.realpath(path, resolved) == NULL)
    return error_set_errno(errno, "realpath");
  *real_out = strdup(resolved);
  return *real_out != NULL ? MMCMAP_OK : error_set(MMCMAP_ENOMEM, "realpath");
}

/* Puts what the symbolic link names in its place; `link_out` is false if the name
   is none, or free. */
static int file_follow_link(char path[PATH_MAX], bool *link_out) {
  char target[PATH_MAX];
  ssize_t size = os_calls.readlink(path, target, sizeof target);
  *link_out = size >= 0;
  if (size < 0)
    return errno == EINVAL || errno == ENOENT
               ? MMCMAP_OK
               : error_set_errno(errno, "readlink");
  /* What is not absolute begins in the folder of the link. */
  char *slash = strrchr(path, '/');
  size_t before = 0;
  if (slash != NULL && (size == 0 || target[0] != '/'))
    before = (size_t)(slash - path) + 1;
  if ((size_t)size >= PATH_MAX - before)
    return error_set_errno(ENAMETOOLONG, "readlink");
  memcpy(path + before, target, (size_t)size);
  path[before + (size_t)size] = '\0';
  return MMCMAP_OK;
}

/* The folder of the path, resolved, and behind it the path's last name. */
static int file_resolve_folder(const char *path, char resolved_out[PATH_MAX]) {
  char folder[PATH_MAX];
  int code = file_folder_of(path, folder);
  if (code != MMCMAP_OK) return code;
  if (os_calls.realpath(folder, resolved_out) == NULL)
    return errno == ENOENT
               ? error_set(MMCMAP_ENOENT, "nor does the folder to make it in")
               : error_set_errno(errno, "realpath");
  const char *slash = strrchr(path, '/');
  const char *name = slash == NULL ? path : slash + 1;
  size_t size = strlen(resolved_out);
  if (*name == '\0') return error_set(MMCMAP_ENOENT, "the path has no name");
  if (resolved_out[size - 1] != '/') resolved_out[size++] = '/';
  if (strlen(name) >= PATH_MAX - size)
    return error_set_errno(ENAMETOOLONG, "realpath");
  strcpy(resolved_out + size, name);
  return MMCMAP_OK;
}

int file_real_path_of_new(const char *path, bool follows, char **real_out) {
  char name[PATH_MAX], resolved[PATH_MAX];
  bool is_link = follows;
  int code = MMCMAP_OK;
  *real_out = NULL;
  if (strlen(path) >= PATH_MAX) return error_set_errno(ENAMETOOLONG, "path");
  strcpy(name, path);
  for (int i = 0; code == MMCMAP_OK && is_link; i++) {
    if (i > FILE_LINKS_MAX) return error_set_errno(ELOOP, "readlink");
    code = file_follow_link(name, &is_link);
  }
  if (code == MMCMAP_OK) code = file_resolve_folder(name, resolved);
  if (code != MMCMAP_OK) return code;
  *real_out = strdup(resolved);
  return *real_out != NULL ? MMCMAP_OK : error_set(MMCMAP_ENOMEM, "realpath");
}

static int stat_file_system(int fd, struct statfs *statfs_out) {
  int result;
  do
    result = os_calls.fstatfs(fd, statfs_out);
  while (result != 0 && errno == EINTR);
  return result == 0 ? MMCMAP_OK : error_set_errno(errno, "fstatfs");
}

int file_is_network(int fd, bool *network_out) {
  /* As statfs(2) lists them; linux/magic.h lacks some, and C libraries other
     than glibc come without it. */
  static const uint32_t network_magics[] = {
      0x00006969, /* NFS */
      0x0000517b, /* SMB */
      0xff534d42, /* CIFS */
      0xfe534d42, /* SMB2 */
      0x00c36400, /* Ceph */
      0x01021997, /* 9p */
      0x5346414f, /* AFS */
      0x6b414653, /* AFS of kafs */
  };
  struct statfs statfs;

  *network_out = false;
  int code = stat_file_system(fd, &statfs);
  if (code != MMCMAP_OK) return code;
  for (size_t i = 0; i < sizeof network_magics / sizeof *network_magics; i++)
    if ((uint32_t)statfs.f_type == network_magics[i]) *network_out = true;
  return MMCMAP_OK;
}

int file_available(int fd, uint64_t *bytes_out) {
  struct statfs statfs;
  *bytes_out = 0;
  int code = stat_file_system(fd, &statfs);
  if (code != MMCMAP_OK) return code;
  uint64_t block =
      (uint64_t)(statfs.f_frsize != 0 ? statfs.f_frsize : statfs.f_bsize);
  *bytes_out = (uint64_t)statfs.f_bavail * block;
  if (statfs.f_blocks == 0) *bytes_out = UINT64_MAX;
  return MMCMAP_OK;
}

int file_link(const char *from, const char *to) {
  if (os_calls.link(from, to) == 0) return MMCMAP_OK;
  /* EPERM is how a file system without further names says so (link(2)). */
  return error_set_errno(errno == EPERM ? EOPNOTSUPP : errno, "link");
}

int file_rename(const char *from, const char *to) {
  if (os_calls.rename(from, to) != 0) return error_set_errno(errno, "rename");
  return MMCMAP_OK;
}

int file_unlink(const char *path) {
  if (os_calls.unlink(path) != 0) return error_set_errno(errno, "unlink");
  return MMCMAP_OK;
}
