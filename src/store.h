/* SPDX-License-Identifier: MIT */
/*
 * An open store and the handles to it. Here the parts are wired together; no
 * layer knows this file. One process has one struct store per data file,
 * however often it is opened: the registry finds it by device and inode.
 *
 * Lock order: registry, commit lock, writer lock. The flusher takes the last
 * two.
 */
#ifndef STORE_H
#define STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "maint/recovery.h"
#include "mmcmap.h"
#include "os/file.h"
#include "os/process.h"
#include "share/readers.h"
#include "space/space.h"
#include "txn/commit.h"
#include "txn/flusher.h"
#include "txn/live.h"
#include "txn/writer.h"

/* The byte of the data file whose lock makes a process its only user. It lies
   beyond every offset that a slot can name. */
#define STORE_LOCK_OFFSET SLOT_OFFSET_LIMIT

struct store {
  struct store *next;    /* in the registry */
  unsigned handle_count; /* guarded by the registry */
  struct file_identity identity;
  uint32_t fork_generation; /* of the process that opened it */
  int fd;
  bool is_readonly;
  bool has_lock;

  struct hasher hasher;
  struct space space;
  struct readers readers;
  struct live live;
  struct recovered recovered;
  struct superblocks superblocks;
  struct writer writer;
  struct committer committer;
  struct flusher flusher;
  _Atomic uint64_t snapshot_count;
};

/* What a handle is opened with beyond the public options; for specs. */
struct store_internals {
  uint32_t segment_size; /* of a new file */
  uint64_t primary_mask; /* narrows the hashes so that keys collide: the same
                            at every opening of a file */
  uint64_t secondary_mask;
};

/* Finds or opens the store at `path`. */
int store_acquire(const char *path, const mmcmap_options *options,
                  const struct store_internals *internals,
                  struct store **store_out);

/* Gives one handle's reference back; the last commits and closes, unless
   `discard` is set. */
int store_release(struct store *store, bool discard);

/* Deletes the file if `path` still names it and the caller has the only handle
   and no snapshot; MMCMAP_EBUSY. */
int store_unlink(struct store *store, const char *path);

/* False in a child that inherited the store over fork(). */
static inline bool store_is_ours(const struct store *store) {
  return store->fork_generation == process_fork_generation();
}

/* mmcmap_open() with internals; for specs. */
int mmcmap_open_with(const char *path, const mmcmap_options *options,
                     const struct store_internals *internals,
                     mmcmap **store_out);

#endif
