/* SPDX-License-Identifier: MIT */
/*
 * The writer: one thread of one process at a time changes the map, under the
 * writer lock. Each change is published by one store before the lock is
 * released. A seal closes the open epoch, whose nodes then never change, and
 * opens the next.
 *
 * If a writer dies, whoever comes to the lock next inherits and repairs it. The
 * first change of a session starts it: the caller's hook draws a salt and
 * writes a superblock before anything is written to the log.
 */
#ifndef TXN_WRITER_H
#define TXN_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "share/readers.h"
#include "space/log.h"
#include "trie/trie.h"
#include "txn/catalog.h"
#include "txn/change.h"

/* How a change is made: how long it waits for the lock; whether its caller is
   about to commit it, which makes staging worth while (space/log.h) and pieces of
   the file (space/piece.h) dear; whether no caller asked for it, so that the file
   grows as it did for the last one who did; what it has to leave for others; and how
   long what it puts is to live. */
struct change_mode {
  uint32_t timeout_ms;
  bool is_synced;
  bool is_background;
  enum space_claim claim;
  struct change_life life; /* of what is put */
};

/* A moment that stays: a root whose epoch is sealed. */
struct moment {
  uint64_t root;
  uint64_t count;
  uint64_t epoch;         /* of the last change in it */
  uint64_t content_epoch; /* of the last that was no move: what users call the
                             version */
  uint64_t earliest_ms;   /* no record in it expires earlier; 0: not known */
};

/* The code of the commit that failed, or 0; anybody may have written the word. */
static inline int commit_failure(const struct share_commit *commit) {
  int code = atomic_load_explicit(&commit->failed, memory_order_relaxed);
  return code <= 0 && code >= MMCMAP_ENUMBER ? code : MMCMAP_EIO;
}

struct writer {
  struct readers *readers;
  struct share_header *header;
  struct log log;              /* this, and what is below, the lock guards */
  struct catalog catalog;      /* of the live store */
  struct catalog_names names;  /* of its maps, for the cleaner */
  int (*start)(void *context); /* called with the lock held */
  void *start_context;
  uint64_t last_transaction;    /* serials of transactions of this process */
  _Atomic uint64_t transaction; /* the one under way; 0: none, or its thread has
                                   ended and the lock was taken since. Looked at
                                   by whoever has a transaction at hand */
};

void writer_init(struct writer *writer, struct space *space,
                 struct readers *readers, const struct hasher *hasher);
void writer_destroy(struct writer *writer);

/* Takes the writer lock, repairs what a dead owner left, and brings the working
   copy of the log up to date. MMCMAP_EBUSY after `timeout_ms`, which may be
   OWNER_LOCK_FOREVER; MMCMAP_ENOMEM, MMCMAP_ECORRUPT. */
int writer_enter(struct writer *writer, uint32_t timeout_ms);
void writer_leave(struct writer *writer);

/* Sees to it that changes may be made; the lock is held. Starts the session and
   opens a frame, if need be. */
int writer_prepare(struct writer *writer, struct change_mode mode);

/* Names the transaction that has just taken the lock; its end. */
uint64_t writer_begin_transaction(struct writer *writer);
void writer_end_transaction(struct writer *writer);

static inline bool writer_has_transaction(const struct writer *writer,
                                          uint64_t serial) {
  return atomic_load_explicit(&writer->transaction, memory_order_relaxed) ==
         serial;
}

/* Takes the lock and sees to it that changes may be made, and releases it: for
   changes that are made of the trie's own functions. Unless `code` is MMCMAP_OK
   what was appended is forgotten. */
int writer_begin_change(struct writer *writer, struct change_mode mode);
int writer_end_change(struct writer *writer, int code);

/* Sets a key. `map` is the name of its map, or NULL, here and below.
   MMCMAP_ETOOBIG, MMCMAP_EBUSY after the time-out, MMCMAP_ENOSPC, MMCMAP_EFULL,
   ...: nothing has changed. `epoch_out` is the epoch that the
   change belongs to. */
int writer_put(struct writer *writer, const struct trie_key *map,
               const void *key, size_t key_size, const void *value,
               size_t value_size, struct change_mode mode, uint64_t *epoch_out);

/* Deletes a key; MMCMAP_NOTFOUND. */
int writer_delete(struct writer *writer, const struct trie_key *map,
                  const void *key, size_t key_size, struct change_mode mode,
                  uint64_t *epoch_out);

/* Changes a key as `decide` says, at one instant. `epoch_out` is 0 if nothing
   has changed. */
int writer_change(struct writer *writer, const struct trie_key *map,
                  const void *key, size_t key_size, decide_fn *decide,
                  void *context, struct change_mode mode, uint64_t *epoch_out);

/* The epoch of the last change that was no move; of two words that are stored one
   after the other it is the first, so a death may leave it ahead (R17). */
static inline uint64_t writer_content_epoch(const struct share_header *header) {
  uint64_t changed = atomic_load(&header->change.changed_epoch);
  uint64_t content = atomic_load(&header->content_epoch);
  return content < changed ? content : changed;
}

/* Says of a map that no record of it expires, which round `round` has found, unless
   another one has begun, or such a record was put meanwhile. */
int writer_end_expiry(struct writer *writer, const struct trie_key *map,
                      uint64_t round, struct change_mode mode);

/* Deletes those of `count` keys that have expired, `deleted_out` of them;
   `epoch_out` is 0 if there were none. What fails ends it. */
int writer_delete_expired(struct writer *writer, const struct trie_key *map,
                          struct trie_key *keys, size_t count,
                          struct change_mode mode, size_t *deleted_out,
                          uint64_t *epoch_out);

/* Saves the store as it is at this moment under a name (txn/saved.h), or forgets
   what was saved. MMCMAP_EEXIST, MMCMAP_NOTFOUND, and as writer_put(). */
int writer_save(struct writer *writer, const void *name, size_t name_size,
                struct change_mode mode, uint64_t *epoch_out);
int writer_drop_saved(struct writer *writer, const void *name, size_t name_size,
                      struct change_mode mode, uint64_t *epoch_out);

/* Seals the open epoch if it has changes. The lock is held. */
void writer_seal(struct writer *writer);

/* Seals, and closes the log: what has been changed since that was done last is one
   commit, and nothing of it is recycled any more. With the writer lock. */
int writer_close_log(struct writer *writer);

/* Makes the state that recovery found the one that all processes share. */
void writer_install(struct writer *writer, const struct superblock *state);

/* The store at this moment: the sealed one, if nothing has changed since; else
   it takes the lock and seals what is open. */
int writer_take_moment(struct writer *writer, uint32_t timeout_ms,
                       struct moment *moment_out);

/* With the lock: seals, and marks a snapshot's row with what is sealed then. */
int writer_hold_moment(struct writer *writer, struct share_row *row,
                       struct moment *moment_out);

/* The same, and marks a snapshot's row with it (share_mark()), so that it
   stays. */
int writer_open_snapshot(struct writer *writer, struct share_row *row,
                         uint32_t timeout_ms, struct moment *moment_out);

#endif
