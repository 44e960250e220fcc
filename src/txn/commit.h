/* SPDX-License-Identifier: MIT */
/*
 * Commits: making sealed epochs durable with one fdatasync for all that wait
 * (group commit: DeWitt et al., "Implementation techniques for main memory
 * database systems", 1984). A leader seals what is open, completes the headers
 * of all frames that nobody has taken yet, and syncs; the others wait for it.
 * Syncs overlap on many devices, so a further leader may be under way; an epoch
 * counts as durable only when all before it do.
 *
 * Lock order: the commit lock before the writer lock. Nothing is held during a
 * sync.
 */
#ifndef TXN_COMMIT_H
#define TXN_COMMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "os/thread.h"
#include "txn/superblocks.h"
#include "txn/writer.h"

enum { COMMIT_LEADERS_MAX = 2 };

struct committer {
  struct thread_mutex mutex; /* the commit lock: guards all that follows, but
                                reading the figures */
  struct thread_condition changed;
  unsigned leader_count; /* leaders that have not finished */
  uint64_t taken_epoch;  /* the newest epoch that a leader has taken */
  uint64_t next_ticket;  /* batches are numbered as they are taken, */
  uint64_t done_ticket;  /* and finish in that order */
  int failed;            /* the code of the commit that failed; none is tried
                            after it */
  uint64_t chain;        /* checksum of the last frame that was completed */
  uint64_t bytes_since_superblock; /* of frames */
  uint64_t superblock_ticket; /* the first batch whose sync covers the newest
                                 superblock */
  struct writer *writer;
  struct superblocks *superblocks;

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
