/* SPDX-License-Identifier: MIT */
/*
 * An open store and the handles to it. Here the parts are wired together; no
 * layer knows this file. One process has one struct store per data file,
 * however often it is opened: the registry finds it by device and inode. (A
 * second one, if one handle only reads and opened first, or takes no lock: they
 * are to each other as two processes are.)
 */
#ifndef STORE_H
#define STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/testing.h"
#include "base/hash.h"
#include "maint/recovery.h"
#include "maint/upkeep.h"
#include "mmcmap.h"
#include "os/file.h"
#include "os/process.h"
#include "share/readers.h"
#include "space/space.h"
#include "txn/commit.h"
#include "txn/flusher.h"
#include "txn/sweep.h"
#include "txn/writer.h"

/* Bytes of the data file whose locks mean something. They lie beyond every
   offset that a slot can name. All who share a lock file hold the first, shared;
   those who only read, and share nothing, the second. */
#define STORE_GROUP_OFFSET SLOT_OFFSET_LIMIT
#define STORE_ALONE_OFFSET (SLOT_OFFSET_LIMIT + 1)

/* What a handle is opened with beyond the public options; for specs. */
struct store_internals {
  uint32_t segment_size; /* of a new file */
  uint64_t primary_mask; /* narrows the hashes so that keys collide: the same
                            at every opening of a file */
  uint64_t secondary_mask;
};

struct store {
  struct store *next;    /* in the registry */
  unsigned handle_count; /* guarded by the registry */
  struct file_identity identity;
  struct store_internals internals;
  uint32_t fork_generation; /* of the process that opened it */
  char *path;               /* absolute, without symbolic links */
  char *lock_path;
  char *temporary; /* name of the file that is being made; else NULL */
  int fd;
  bool is_readonly;
  bool has_lock;  /* opened with the option `lock` */
  bool is_shared; /* by a lock file: false if it only reads, and no lock file
                     can be written, or was asked for */

  struct hasher hasher;
  struct share share;
  struct space space;
  struct readers readers;
  struct recovered recovered; /* empty unless this process has recovered */
  bool has_recovered;
  struct superblocks superblocks;
  struct writer writer;
  struct committer committer;
  struct sweep sweep;
  struct flusher flusher;
  _Atomic uint64_t
      own_epoch; /* of the last change that was made through it; changes
                                 look at it, and at the end of the flusher */
  struct upkeep upkeep;
  bool has_threads; /* the flusher, writer and committer are initialised */
  _Atomic uint64_t child_count; /* snapshots and transactions */
  bool is_ghost;
  struct store *ghosts; /* structs of a parent's, by `next`, which a thread may
                           still be looking at */
};

/* ---- attach.c: a store and the others that use its file ------------------ */

/* Makes the store usable whose descriptor, paths and kind are set: as one more
   user of the live state, by taking it over from the dead, or by recovery.
   MMCMAP_EBUSY: not now, or not with this lock file. */
int store_attach(struct store *store, const mmcmap_options *options);

/* Ends this process's use: the last user leaves a file that needs no recovery. With
   `discard` set it goes as a process that dies: the store was not opened, after all, or
   is no more. Gives back everything but `store` itself. MMCMAP_EBUSY:
   what this process has changed is not on disk, because others were in the way for so
   long, and for a second at least. */
int store_detach(struct store *store, bool discard, uint32_t timeout_ms);

/* Gives back the memory of a parent's store. */
void store_forget(struct store *store);

/* Whether no other process uses the file; the caller has begun opening. */
int store_is_alone(struct store *store, bool *alone_out);

/* ---- store.c ------------------------------------------------------------- */

/* Finds or opens the store at `path`. */
int store_acquire(const char *path, const mmcmap_options *options,
                  const struct store_internals *internals,
                  struct store **store_out);

/* In a child: gives the handle whose store is `*cell`, a parent's, one of its
   own. MMCMAP_EFORK: the path names another file by now. */
int store_reconnect(struct store *_Atomic *cell, const mmcmap_options *options);

/* One more reference of a handle to a store that is open. */
void store_hold_handle(struct store *store);

/* Gives one handle's reference back; the last commits and closes, unless
   `discard` is set. */
int store_release(struct store *store, bool discard, uint32_t timeout_ms);

/* The reference of a snapshot or a transaction; that of a parent's store keeps
   its memory alone. */
void store_hold_child(struct store *store);
void store_drop_child(struct store *store);

/* Deletes both files if `path` still names the data file and the caller has the
   only handle in any process, and no snapshot; MMCMAP_EBUSY. */
int store_unlink(struct store *store, const char *path);

/* False in a child that inherited the store over fork(). */
static inline bool store_is_ours(const struct store *store) {
  return BROKEN(BREAK_IGNORE_FORK) ||
         store->fork_generation == process_fork_generation();
}

/* mmcmap_open() with internals; for specs. */
int mmcmap_open_with(const char *path, const mmcmap_options *options,
                     const struct store_internals *internals,
                     mmcmap **store_out);

#endif
