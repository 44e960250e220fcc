/* SPDX-License-Identifier: MIT */
/*
 * The lock file: one process's connection to what the processes that use a
 * store share (share/layout.h). A store that is opened without a lock file has
 * the same struct in memory of its own.
 *
 * Which process owns which chunk of the reader table is told by locks of the
 * kernel on bytes of the lock file, far beyond its end: they end with their
 * process, whatever ends it, and mean the same in every pid namespace. The
 * descriptor that holds them is not the one that was mapped: a mapping keeps
 * its open file description, and the locks on it, alive in a forked child.
 */
#ifndef SHARE_LOCK_FILE_H
#define SHARE_LOCK_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "os/file.h"
#include "share/layout.h"

struct share {
  struct share_header *header;    /* at the beginning of `at` */
  uint8_t *at;                    /* the view, which never moves */
  uint64_t size_bytes;            /* of the view */
  _Atomic uint64_t known_bytes;   /* of the file, as far as it has been seen to
                                   be there */
  int fd;                         /* holds the locks; -1: private memory */
  bool is_new;                    /* this connection has made the file */
  uint64_t connection;            /* names this connection among all */
  struct share_segment *segments; /* a view of its own; NULL: only reading */
  uint64_t segments_size_bytes;   /* of that view */
  uint64_t segment_count;         /* entries that have been seen to be there;
                                     guarded by the writer lock */
};

/* Memory of this process alone, all zeros. */
int share_open_private(struct share *share_out);

/* Opens `path`, or makes it with the mode and the owner of the data file
   `like_fd`, and maps it. What it holds behind the magic has not been looked at.
   MMCMAP_EFORMAT: it is somebody else's file, and was not changed;
   MMCMAP_EACCES, MMCMAP_EREADONLY: it cannot be written. */
int share_open(const char *path, int like_fd, struct share *share_out);

/* Maps the table of segments, so that it has room for `count`, or for fewer if
   the process may not have so many addresses, but for `least`: MMCMAP_EADDRESS.
   `path` is the lock file's. A private share gets memory of this process alone. */
int share_map_segments(struct share *share, const char *path, uint64_t least,
                       uint64_t count);

/* Makes the table `count` entries long, which are zeros if they are new.
   MMCMAP_ENOSPC, MMCMAP_EADDRESS. */
int share_ensure_segments(struct share *share, uint64_t count);

/* Whether it is that long. */
bool share_has_segments(struct share *share, uint64_t count);

/* Deletes the lock file `path`, if that is this one still. */
void share_unlink(const struct share *share, const char *path);

/* The same if this connection has made it, and no other one uses it, or has left in
   it what a takeover needs. */
void share_discard(struct share *share, const char *path);

/* All zeros are allowed, and the share of a parent process in a child. */
void share_close(struct share *share);

/* Closes the descriptor alone: in a child at once after fork(). */
void share_drop_locks(struct share *share);

/* Who opens or closes the store holds this: one at a time. MMCMAP_EBUSY. */
int share_begin_opening(struct share *share, uint32_t timeout_ms);
void share_end_opening(struct share *share);

/* Whether no other connection owns a chunk. */
int share_is_unused(struct share *share, bool *unused_out);

/* Makes everything zero but the magic, the header's place allocated anew. The caller has begun
   opening and nobody else is connected. */
int share_reset(struct share *share);

/* A chunk of the table, which lies in the view and in the file; else NULL. */
struct share_chunk *share_chunk(struct share *share, uint32_t index);

/* ---- Locks on chunks; the caller sees to it that one thread at a time uses
   them, because they belong to the process --------------------------------- */

/* Takes the lock of chunk `index`, which this connection does not own; whether
   it could. The table is made longer if need be: `code_out` is why that
   failed. */
bool share_take_chunk(struct share *share, uint32_t index, int *code_out);
void share_give_chunk(struct share *share, uint32_t index);

#endif
