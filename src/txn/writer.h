/* SPDX-License-Identifier: MIT */
/*
 * The writer: one thread at a time changes the map, under the writer lock.
 * Each change is published by one store before the lock is released. A seal
 * closes the open epoch, whose nodes then never change, and opens the next.
 *
 * The first change of a session starts it: the caller's hook draws a salt and
 * writes a superblock before anything is written to the log.
 */
#ifndef TXN_WRITER_H
#define TXN_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "os/thread.h"
#include "space/log.h"
#include "trie/trie.h"
#include "txn/live.h"

struct writer {
  struct thread_mutex mutex; /* the writer lock: guards all below */
  struct log log;
  struct trie trie;
  struct live *live;
  int failed; /* the code that every change is answered with, once a commit
                 has failed; else 0 */
  bool started;
  int (*start)(void *context); /* called with the lock held */
  void *start_context;
};

int writer_init(struct writer *writer, struct space *space,
                struct readers *readers, const struct hasher *hasher,
                struct live *live);
void writer_destroy(struct writer *writer);

/* Sets a key. MMCMAP_ETOOBIG, MMCMAP_EBUSY after `timeout_ms`, MMCMAP_ENOSPC,
   MMCMAP_EFULL, ...: nothing has changed. `epoch_out` is the epoch that the
   change belongs to. */
int writer_put(struct writer *writer, const void *key, size_t key_size,
               const void *value, size_t value_size, uint32_t timeout_ms,
               uint64_t *epoch_out);

/* Deletes a key; MMCMAP_NOTFOUND. */
int writer_delete(struct writer *writer, const void *key, size_t key_size,
                  uint32_t timeout_ms, uint64_t *epoch_out);

/* Seals the open epoch if it has changes. The lock is held. */
int writer_seal(struct writer *writer);

/* The store at this moment: seals what is open. */
int writer_take_moment(struct writer *writer, uint32_t timeout_ms,
                       struct moment *moment_out);

#endif
