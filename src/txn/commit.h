/* SPDX-License-Identifier: MIT */
/*
 * Commits: making sealed epochs durable with one fdatasync for all that wait
 * (group commit: DeWitt et al., "Implementation techniques for main memory
 * database systems", 1984). One leader at a time seals what is open, completes
 * the headers of all frames that are not durable, outside the writer lock, and
 * syncs; the others wait for it.
 *
 * Lock order: the commit lock before the writer lock; the leader holds neither
 * while it hashes and syncs.
 */
#ifndef TXN_COMMIT_H
#define TXN_COMMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "os/thread.h"
#include "txn/superblocks.h"
#include "txn/writer.h"

struct committer {
  struct thread_mutex mutex; /* guards `leading` and `failed` */
  struct thread_condition changed;
  bool leading;
  int failed; /* the code of the commit that failed; no other is tried */

  /* The leader's alone, and of whoever opens and closes the store. */
  struct writer *writer;
  struct superblocks *superblocks;
  uint64_t chain;                  /* checksum of the last durable frame */
  uint64_t bytes_since_superblock; /* of frames */

  _Atomic uint64_t commit_count;
  _Atomic uint64_t sync_count;
  _Atomic uint64_t superblock_epoch;
};

int committer_init(struct committer *committer, struct writer *writer,
                   struct superblocks *superblocks);
void committer_destroy(struct committer *committer);

/* Returns when `epoch` is durable. MMCMAP_EIO and others: it is not known to
   be, and the store takes no more changes. */
int commit_epoch(struct committer *committer, uint64_t epoch);

/* The same for all that was visible before the call. */
int commit_all(struct committer *committer);

/* The first thing that a session does, with the writer lock held: draws a
   salt, and has a superblock with it and the present state on disk, before the
   log is written to. */
int commit_start_session(struct committer *committer,
                         const struct superblock_head heads[SUPERBLOCK_HEADS]);

/* The last: a superblock that says that there is nothing to recover. All is
   durable, nobody else uses the store. */
int commit_end_session(struct committer *committer);

#endif
