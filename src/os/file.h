/* SPDX-License-Identifier: MIT */
/*
 * Files: opening, whole reads and writes at an offset, space, syncs, names.
 * Interrupted and short calls are carried on with; every failure is noted with
 * its errno (base/errors.h) and returned as a code. Descriptors are
 * close-on-exec and never those of the standard streams.
 */
#ifndef OS_FILE_H
#define OS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct file_identity {
  uint64_t device;
  uint64_t inode;
};

/* Opens an existing regular file (anything else: MMCMAP_EFORMAT, what "not a
   regular file"). MMCMAP_ENOENT, MMCMAP_EACCES, ... */
int file_open(const char *path, bool readonly, int *fd_out);

/* Makes a new file `path` for reading and writing with permission bits `mode`
   (the umask does not narrow them further than open() would);
   MMCMAP_EEXIST if the name is taken. */
int file_create(const char *path, unsigned mode, int *fd_out);

/*
 * Opens the regular file `path` for reading and writing; makes an empty one
 * with permission bits `mode`, whatever the umask, if there is none. The bits
 * of a file that is there stay. Anything else in its place, a symbolic link
 * too: MMCMAP_EFORMAT, what "not a regular file".
 *
 * Of several that find no file one makes it, and is told so; all get the same. A new file
 * has the bits that the umask leaves of `mode` for a moment; it keeps those
 * where the file system has no permission bits of its own, and if the process
 * dies in that moment. It stays if the call fails after it was made, because somebody
 * else may have opened it already: then `fd_out`, if it is not -1, is the caller's, who
 * may know whether it can be deleted.
 *
 * MMCMAP_EREADONLY if the file system is read-only, MMCMAP_EACCES if this user
 * may not write the file, or make one in the folder.
 */
int file_open_or_create(const char *path, unsigned mode, int *fd_out,
                        bool *made_out);

/* Closes; never fails in a way that a caller could act on. */
void file_close(int fd);

/* Reads up to `size` bytes; fewer only at the end of the file. */
int file_read(int fd, void *data, size_t size, uint64_t offset,
              size_t *got_out);

/* Writes all `size` bytes. */
int file_write(int fd, const void *data, size_t size, uint64_t offset);

/* fdatasync: data, and the size if it changed, are on the medium. Never
   retried: after a failure the kernel may have dropped the pages. */
int file_sync(int fd);

/* Makes the names in the folder that holds `path` durable. A folder that
   cannot be opened for reading or synced on this file system (EINVAL) is not
   an error: nothing better can be done. */
int file_sync_folder_of(const char *path);

int file_size(int fd, uint64_t *size_out);

/* Really allocates [offset, offset + size), extending the file if need be;
   existing bytes stay. Where the file system has no fallocate, zeros are
   written behind the present end. MMCMAP_ENOSPC also for quotas and
   RLIMIT_FSIZE (SIGXFSZ aside, which the host decides). */
int file_allocate(int fd, uint64_t offset, uint64_t size);

/* Whether all of [offset, offset + size) has been written, and so has blocks. False if
   it is not known. */
bool file_is_written(int fd, uint64_t offset, uint64_t size);

/* Gives the blocks of [offset, offset + size) back: the bytes read as zeros, the
   length stays. MMCMAP_ENOTSUP where the file system has no holes. */
int file_punch(int fd, uint64_t offset, uint64_t size);

/* Makes the bytes read as zeros, with blocks. What the kernel has of them in memory is
   dropped. MMCMAP_ENOTSUP where the file system cannot. After any other error they may
   have no blocks: XFS gives them back, and then asks for new ones. */
int file_zero(int fd, uint64_t offset, uint64_t size);

int file_truncate(int fd, uint64_t size);

int file_identify(int fd, struct file_identity *identity_out);

/* The same by name; MMCMAP_ENOENT if there is no such file. */
int file_identify_path(const char *path, struct file_identity *identity_out);

/* The number of the mount that the file was opened through, which no other
   mount has had since the machine started. MMCMAP_ENOTSUP on a kernel that has
   no such numbers (before Linux 6.8). */
int file_mount_id(int fd, uint64_t *id_out);

/* The permission bits: nine, without set-id and sticky bits. */
int file_mode(int fd, unsigned *mode_out);

/* Gives the file the owner and group of the file `like_fd`, or the group alone,
   as far as this process may, so that what root makes beside somebody's file
   does not shut them out. What it may not is no error. */
int file_follow_owner(int fd, int like_fd);

/* The absolute path of an existing file, without symbolic links; the caller
   frees it. MMCMAP_ENOENT, MMCMAP_ENOMEM, ... */
int file_real_path(const char *path, char **real_out);

/*
 * The same of a file that is not there but would be made by open(): what a symbolic
 * link that leads nowhere names, unless `follows` is false, in its folder, which is
 * there. MMCMAP_ENOENT: it is not.
 */
int file_real_path_of_new(const char *path, bool follows, char **real_out);

/* True on a file system that lives on another machine (NFS, CIFS/SMB, Ceph,
   9p, AFS, FUSE excluded), where mappings are not coherent between users. */
int file_is_network(int fd, bool *network_out);

/* How many bytes its file system has left for whoever has no privileges; UINT64_MAX if
   it does not tell. */
int file_available(int fd, uint64_t *bytes_out);

/* Gives the file a further name; MMCMAP_EEXIST if it is taken, MMCMAP_ENOTSUP
   on a file system where a file has one name only. */
int file_link(const char *from, const char *to);

/* Gives the file the name `to` in place of `from`, at one instant; a file that had
   it is without that name then. */
int file_rename(const char *from, const char *to);

/* MMCMAP_ENOENT if there is no such name. */
int file_unlink(const char *path);

#endif
