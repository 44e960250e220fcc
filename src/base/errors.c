/* SPDX-License-Identifier: MIT */
/*
 * The table of error codes and the thread's last error. The table is indexed
 * by the negated code; a code of mmcmap.h without a row here would have no
 * name, so a static assert counts them. This is the one place where an errno
 * becomes a code of ours; errno itself is read in folder os only.
 */
#include "base/errors.h"

#include <errno.h>

static const struct error_row {
  const char *name;
  const char *text;
} error_rows[] = {
    [-MMCMAP_OK] = {"OK", "success"},
    [-MMCMAP_NOTFOUND] = {"NOTFOUND", "the key is not there"},
    [-MMCMAP_EINVAL] = {"EINVAL", "an argument is out of its range"},
    [-MMCMAP_ENOMEM] = {"ENOMEM", "out of memory"},
    [-MMCMAP_EIO] = {"EIO", "the storage medium failed"},
    [-MMCMAP_ENOSPC] = {"ENOSPC", "the disk or the quota is full"},
    [-MMCMAP_EFULL] = {"EFULL", "the store has reached its maximum size"},
    [-MMCMAP_EBUSY] = {"EBUSY", "it is in use"},
    [-MMCMAP_ECORRUPT] =
        {"ECORRUPT", "the file is damaged: restore a backup, or salvage it"},
    [-MMCMAP_EEXIST] = {"EEXIST", "it exists already"},
    [-MMCMAP_ENOENT] = {"ENOENT", "it does not exist"},
    [-MMCMAP_EACCES] = {"EACCES", "permission denied"},
    [-MMCMAP_EREADONLY] = {"EREADONLY", "the store or its file system is "
                                        "read-only"},
    [-MMCMAP_EFORMAT] = {"EFORMAT", "the file is not a mmcmap store"},
    [-MMCMAP_EVERSION] = {"EVERSION", "the file has a version or features that "
                                      "this library does not know"},
    [-MMCMAP_EADDRESS] = {"EADDRESS", "the file is larger than the range of "
                                      "addresses granted to this process"},
    [-MMCMAP_ETOOBIG] = {"ETOOBIG", "a key, value or name is too long"},
    [-MMCMAP_EFORK] = {"EFORK", "the handle was opened before a fork"},
    [-MMCMAP_ENOTSUP] = {"ENOTSUP", "this system or file system cannot do it"},
    [-MMCMAP_ESYSTEM] = {"ESYSTEM", "the operating system reported an error"},
    [-MMCMAP_MISMATCH] = {"MISMATCH", "the record is not as was expected"},
    [-MMCMAP_ENUMBER] = {"ENUMBER", "the value is not a number, or the sum is "
                                    "too large"},
    [-MMCMAP_EEXPIRED] = {"EEXPIRED",
                          "the snapshot was ended because of its age"},
};

enum { ERROR_ROW_COUNT = sizeof error_rows / sizeof error_rows[0] };

_Static_assert(ERROR_ROW_COUNT == 1 - MMCMAP_ENUMBER,
               "every error code needs a row");

static _Thread_local mmcmap_error error_last = {MMCMAP_OK, 0, "", 0};

const char *mmcmap_error_name(int code) {
  if (code > 0 || code <= -ERROR_ROW_COUNT) return "EUNKNOWN";
  return error_rows[-code].name;
}

const char *mmcmap_strerror(int code) {
  if (code > 0 || code <= -ERROR_ROW_COUNT) return "unknown error code";
  return error_rows[-code].text;
}

void mmcmap_last_error(mmcmap_error *error_out) { *error_out = error_last; }

static int error_note(int code, int system_errno, const char *what,
                      uint64_t offset) {
  error_last = (mmcmap_error){code, system_errno, what, offset};
  return code;
}

/* Codes that only a caller can tell apart (a lock that is taken, a folder
   where a file should be) are chosen there, not here. */
static int error_code_of_errno(int system_errno) {
  switch (system_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return MMCMAP_ENOSPC;
    case EIO:
      return MMCMAP_EIO;
    case EACCES:
    case EPERM:
      return MMCMAP_EACCES;
    case EROFS:
      return MMCMAP_EREADONLY;
    case ENOMEM:
      return MMCMAP_ENOMEM;
    case EEXIST:
      return MMCMAP_EEXIST;
    case ENOENT:
    case ENOTDIR:
      return MMCMAP_ENOENT;
    case EAGAIN:
    case EBUSY:
    case ETXTBSY:
      return MMCMAP_EBUSY;
    case EOPNOTSUPP:
#if ENOTSUP != EOPNOTSUPP
    case ENOTSUP:
#endif
    case ENOSYS:
    case ENODEV: /* mmap: the file system cannot map */
    case ENOLCK: /* fcntl: the file system cannot lock */
      return MMCMAP_ENOTSUP;
    default:
      return MMCMAP_ESYSTEM;
  }
}

int error_set(int code, const char *what) {
  return error_note(code, 0, what, 0);
}

int error_set_errno(int system_errno, const char *what) {
  return error_note(error_code_of_errno(system_errno), system_errno, what, 0);
}

int error_set_corrupt(const char *what, uint64_t offset) {
  return error_note(MMCMAP_ECORRUPT, 0, what, offset);
}

void error_restore(const mmcmap_error *error) { error_last = *error; }
