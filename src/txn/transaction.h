/* SPDX-License-Identifier: MIT */
/*
 * A transaction: many changes that become visible by one store, or never. It
 * holds the writer lock from its beginning to its end.
 *
 * It begins with a seal, so that no node that others see is of the open epoch:
 * snapshots of this moment need no lock, and whatever is written from then on
 * is private. It builds a trie of its own, whose root and count are cells here,
 * and appends to the writer's copy of the log. A commit settles the log and
 * stores the root. An abort forgets both: the next node goes where the first of
 * these was. So does whoever inherits the lock from a thread that has ended.
 *
 * What is frozen, for a savepoint or a cursor, does not change any more: the
 * transaction goes on in the next epoch, which is one commit with this one.
 *
 * Belongs to the thread that began it: to others it answers MMCMAP_EBUSY, and
 * to everybody when that thread has ended.
 */
#ifndef TXN_TRANSACTION_H
#define TXN_TRANSACTION_H

#include "txn/change.h"
#include "txn/put_queue.h"
#include "txn/writer.h"

/* What can be returned to. */
struct transaction_savepoint {
  uint64_t root;
  uint64_t count;
  size_t unlinked_count; /* in the draft */
  struct log_mark mark;
  struct share_counts counts; /* no epoch: nothing had been written */
};

struct transaction {
  struct writer *writer;
  uint64_t serial;       /* what the writer knows it by */
  uint32_t owner;        /* the row of its thread */
  bool is_synced;        /* as in struct change_mode */
  bool is_writing;       /* the log has been gone on with */
  _Atomic uint64_t root; /* of the store */
  _Atomic uint64_t count;
  struct catalog catalog;    /* of the two cells */
  struct expiry_reading now; /* taken when it began */
  struct trie_draft draft;
  struct put_queue *queue; /* puts that wait; NULL: none has yet */
  int failed;              /* what one of them failed with */
  struct log_mark frozen;  /* where the log was when it was frozen last, */
  struct share_counts frozen_counts; /* and what was counted then */
  struct transaction_savepoint *savepoints;
  size_t savepoint_count;
  size_t savepoint_capacity;
};

/* Takes the lock. MMCMAP_EBUSY after the mode's time-out, or at once if the thread has
   a transaction under way. Nothing is written to the data file before the first
   change. */
int transaction_begin(struct transaction *transaction, struct writer *writer,
                      struct change_mode mode);

/* Publishes all of it and lets go of the lock. `epoch_out` is the epoch that it
   belongs to, 0 if nothing has changed. On failure nothing was published, and
   it is aborted. */
int transaction_commit(struct transaction *transaction, uint64_t *epoch_out);

/* Forgets all of it. */
void transaction_abort(struct transaction *transaction);

/* Frees the memory alone: in a child after fork(). */
void transaction_forget(struct transaction *transaction);

/* MMCMAP_EBUSY if this thread may not use it. */
int transaction_check(const struct transaction *transaction);

/* As writer_put() and so on. What fails has changed nothing; the transaction
   can go on. */
int transaction_put(struct transaction *transaction, const struct trie_key *map,
                    const void *key, size_t key_size, const void *value,
                    size_t value_size, struct change_life life);
/* One after the other, until one fails: those before it have been put. */
int transaction_put_many(struct transaction *transaction,
                         const struct trie_key *map, const mmcmap_slice *keys,
                         const mmcmap_slice *values, size_t count,
                         struct change_life life);
int transaction_delete(struct transaction *transaction,
                       const struct trie_key *map, const void *key,
                       size_t key_size);
int transaction_change(struct transaction *transaction,
                       const struct trie_key *map, const void *key,
                       size_t key_size, decide_fn *decide, void *context,
                       struct change_life life);
int transaction_clear(struct transaction *transaction,
                      const struct trie_key *map);

/* Drops a named map; MMCMAP_NOTFOUND. */
int transaction_drop(struct transaction *transaction,
                     const struct trie_key *map);

/* The root and count of a map in the transaction's own state: 0 and 0 if it is
   not there. */
int transaction_look(struct transaction *transaction,
                     const struct trie_key *map, uint64_t *root_out,
                     uint64_t *count_out);

/* Finds a record in the transaction's own state; good until the next change. */
int transaction_get(struct transaction *transaction, const struct trie_key *map,
                    const void *key, size_t key_size,
                    struct record_view *record_out);

/* From now on the present root is one that never changes, until the end. */
int transaction_freeze(struct transaction *transaction);

/* Notes the present state under a number: 0, 1 and so on. */
int transaction_savepoint(struct transaction *transaction, size_t *number_out);

/* Makes the state what it was then, and forgets the savepoints after it.
   MMCMAP_EINVAL: there is none of that number. */
int transaction_rollback_to(struct transaction *transaction, size_t number);

/* Forgets the savepoint and those after it; the state stays. */
int transaction_release(struct transaction *transaction, size_t number);

#endif
