/* SPDX-License-Identifier: MIT */
/*
 * Commits: making sealed epochs durable with one fdatasync for all that wait
 * (group commit: DeWitt et al., "Implementation techniques for main memory
 * database systems", 1984), in whichever process. One leader at a time seals
 * what is open, completes the headers of all frames that are not durable,
 * syncs, and wakes the others, who wait on a futex and take no lock.
 *
 * Leadership is a lock that survives its owner (share/owner_lock.h). A leader
 * that died has left frames that the next completes again, to the same bytes.
 *
 * Lock order: leadership before the writer lock. The leader does not hold the
 * writer lock while it hashes and syncs.
 */
#ifndef TXN_COMMIT_H
#define TXN_COMMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "txn/superblocks.h"
#include "txn/writer.h"

/* How long a commit is waited for at least, whatever the option says: who would not
   wait for a change waits for what has been made to be on disk. */
enum { COMMIT_LEAST_MS = 1000 };

struct committer {
  struct writer *writer;
  struct superblocks *superblocks;
  struct share_commit *shared;
};

void committer_init(struct committer *committer, struct writer *writer,
                    struct superblocks *superblocks);

/* What recovery found is on disk, and nothing else. */
void committer_install(struct committer *committer,
                       const struct superblock *state);

/* Returns when `epoch` is durable. MMCMAP_EIO and others: it is not known to
   be, and the store takes no more changes. MMCMAP_ENOSPC, MMCMAP_EFULL,
   MMCMAP_ENOMEM: it is not, and may be tried again. MMCMAP_EBUSY, at once: this
   thread has the writer lock, for a transaction; or when this process is about to
   leave, and the time for that is over (share/readers.h). */
int commit_epoch(struct committer *committer, uint64_t epoch);

/* The same for a flusher, of which one is to commit for all: if it finds another
   leader, and that one commits, it leaves `epoch` to the next interval. */
int commit_as_flusher(struct committer *committer, uint64_t epoch,
                      bool *left_out);

/* Like commit_epoch() for all that was visible before the call. */
int commit_all(struct committer *committer);

/* The same, but MMCMAP_EBUSY if others are in the way for as long. */
int commit_all_within(struct committer *committer, uint32_t timeout_ms);

/* Commits, and has a superblock on disk that names the last change: then the
   space that became empty before may be used again (space/usage.h). */
int commit_superblock(struct committer *committer);

/* Writes both superblocks, whatever has changed: then neither names more of the
   file than is used now. */
int commit_superblocks_again(struct committer *committer);

/* Waits until somebody's commit has freed something, `most_ms` at most. */
void commit_await(struct committer *committer, uint32_t most_ms);

/* Whether commit_superblock() would do anything. */
bool commit_frees(const struct committer *committer);

/* The first thing that a session does, with the writer lock held: draws a
   salt, and has a superblock with it and the present state on disk, before the
   log is written to. It goes on from `recovered`, which an earlier process may
   have come to know better than the lock file, if it died here. */
int commit_start_session(struct committer *committer,
                         const struct superblock *recovered);

/* The last: a superblock that says that there is nothing to recover, and where
   the table of what is alive has been written. All is durable, nobody else uses
   the store. */
int commit_end_session(struct committer *committer,
                       const struct usage_table *table);

#endif
