/* SPDX-License-Identifier: MIT */
#include "txn/transaction.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "share/owner_lock.h"

/* ---- Begin and end ------------------------------------------------------- */

int transaction_begin(struct transaction *transaction, struct writer *writer,
                      struct change_mode mode) {
  const struct share_header *header = writer->header;
  memset(transaction, 0, sizeof *transaction);
  int code = readers_owner(writer->readers, &transaction->owner);
  if (code == MMCMAP_OK) code = writer_enter(writer, mode.timeout_ms);
  if (code != MMCMAP_OK) return code;
  if (!BROKEN(BREAK_TXN_UNSEALED)) writer_seal(writer);
  transaction->writer = writer;
  transaction->is_synced = mode.is_synced;
  transaction->serial = writer_begin_transaction(writer);
  transaction->catalog = writer->catalog;
  transaction->catalog.draft = &transaction->draft;
  transaction->catalog.top = &transaction->root;
  transaction->catalog.count = &transaction->count;
  transaction->now.header = writer->header;
  (void)expiry_now(&transaction->now);
  atomic_init(&transaction->root, atomic_load(&header->live.root));
  atomic_init(&transaction->count, atomic_load(&header->change.count));
  return MMCMAP_OK;
}

void transaction_forget(struct transaction *transaction) {
  trie_draft_free(&transaction->draft);
  free(transaction->queue);
  free(transaction->savepoints);
  transaction->queue = NULL;
  transaction->savepoints = NULL;
  transaction->savepoint_count = transaction->savepoint_capacity = 0;
}

/* Whether the lock is the transaction's: if its thread has ended, the lock was
   left to be inherited. */
static bool has_lock(const struct transaction *transaction) {
  const struct writer *writer = transaction->writer;
  return owner_lock_is_owned(&writer->header->writer_lock,
                             transaction->owner) &&
         writer_has_transaction(writer, transaction->serial);
}

/* Gives the lock back, if it still is the transaction's. */
static void leave(struct transaction *transaction) {
  if (has_lock(transaction)) {
    writer_end_transaction(transaction->writer);
    writer_leave(transaction->writer);
  }
  transaction_forget(transaction);
}

void transaction_abort(struct transaction *transaction) {
  if (transaction->is_writing && has_lock(transaction))
    log_abandon_private(&transaction->writer->log);
  leave(transaction);
}

int transaction_check(const struct transaction *transaction) {
  uint32_t owner;
  int code = readers_owner(transaction->writer->readers, &owner);
  if (code != MMCMAP_OK) return code;
  if (LIKELY(owner == transaction->owner && has_lock(transaction)))
    return MMCMAP_OK;
  return error_set(MMCMAP_EBUSY, "the transaction is another thread's");
}

/* ---- Changes ------------------------------------------------------------- */

/* The first change opens a frame, and starts the session if need be. */
static int begin_writing(struct transaction *transaction,
                         enum space_claim claim) {
  const struct change_mode mode = {.is_synced = transaction->is_synced,
                                   .claim = claim};
  struct log *log = &transaction->writer->log;
  int code = MMCMAP_OK;
  if (UNLIKELY(!transaction->is_writing)) {
    code = log_enter(log);
    if (code == MMCMAP_OK) code = writer_prepare(transaction->writer, mode);
    if (code == MMCMAP_OK) {
      /* The heads may have moved: the moment stays sealed. */
      if (!BROKEN(BREAK_TXN_UNSEALED)) writer_seal(transaction->writer);
      log_begin_private(log);
      transaction->is_writing = true;
    }
  }
  space_set_claim(log->space, claim);
  return code;
}

/* The map, to be changed, and where to return to if that fails. */
static int open_map(struct transaction *transaction, const struct trie_key *map,
                    bool may_expire, struct catalog_map *found,
                    struct log_mark *mark_out) {
  struct log *log = &transaction->writer->log;
  *mark_out = log_mark(log);
  if (LIKELY(!may_expire))
    return catalog_open(&transaction->catalog, map, found);
  int code = catalog_open_to_expire(&transaction->catalog, map, found);
  if (code != MMCMAP_OK) log_return_to(log, mark_out);
  *mark_out = log_mark(log);
  return code;
}

/* Who begins the next one makes room for it, and for deletes if one was refused. */
static void note_full(struct log *log) {
  uint32_t is_full = log->space->claim == SPACE_FOR_DELETES
                         ? SHARE_FULL_FOR_DELETES
                         : SHARE_FULL;
  if (atomic_load(&log->header->upkeep.is_full) < is_full)
    atomic_store(&log->header->upkeep.is_full, is_full);
}

static int end_change(struct transaction *transaction, int code,
                      const struct log_mark *mark) {
  struct log *log = &transaction->writer->log;
  if (code == MMCMAP_OK) return code;
  log_return_to(log, mark);
  if (error_is_full(code)) note_full(log);
  return code;
}

/* begin_writing() has been called. */
static int put_one(struct transaction *transaction, const struct trie_key *map,
                   struct queued_put *put) {
  struct log_mark mark;
  struct catalog_map found;
  int code = change_check_sizes(put->key.size, put->value_size);
  if (code == MMCMAP_OK)
    code = open_map(transaction, map, change_may_expire(&put->life), &found,
                    &mark);
  if (code != MMCMAP_OK) return code;
  code = change_put(&found.trie, &put->key, put->value, put->value_size,
                    put->life, &transaction->now);
  return end_change(transaction, code, &mark);
}

/* ---- Puts ------------------------------------------------------------------ */

/* Walks to where the keys of a group are or will be, side by side: then putting them
   one after the other need not wait for memory. */
static int look_ahead(struct transaction *transaction,
                      const struct trie_key *map, const struct queued_put *puts,
                      unsigned count) {
  struct trie_key keys[TRIE_LANES];
  struct catalog_map found;
  int code = catalog_open(&transaction->catalog, map, &found);
  if (code != MMCMAP_OK) return code;
  struct node_source source = trie_source(&found.trie);
  for (unsigned i = 0; i < count; i++)
    keys[i] = puts[i].key;
  trie_look_ahead(&source, atomic_load(found.trie.root), keys, count);
  return MMCMAP_OK;
}

static int put_group(struct transaction *transaction,
                     const struct trie_key *map, struct queued_put *puts,
                     unsigned count) {
  int code = begin_writing(transaction, SPACE_FOR_PUTS);
  if (code == MMCMAP_OK && count > 1)
    code = look_ahead(transaction, map, puts, count);
  for (unsigned i = 0; i < count && code == MMCMAP_OK; i++)
    code = put_one(transaction, map, &puts[i]);
  return code;
}

/* Puts what waits. Whoever has put it was told that this is done, so if one fails all
   of the transaction has. */
static int empty_queue(struct transaction *transaction) {
  struct put_queue *queue = transaction->queue;
  if (queue == NULL || queue->count == 0) return MMCMAP_OK;
  transaction->failed =
      put_group(transaction, queue->map, queue->puts, queue->count);
  put_queue_clear(queue);
  return transaction->failed;
}

/* Whether this thread may go on with it. */
static int check_alive(const struct transaction *transaction) {
  int code = transaction_check(transaction);
  if (code == MMCMAP_OK && UNLIKELY(transaction->failed != MMCMAP_OK))
    code = error_set(transaction->failed,
                     "an earlier put of the transaction failed");
  return code;
}

/* Every use of the transaction begins with this, but a put that may wait. */
static int settle(struct transaction *transaction) {
  int code = check_alive(transaction);
  return code == MMCMAP_OK ? empty_queue(transaction) : code;
}

/* Where all is in the caches there is nothing to wait for; and where space may run out
   the put that it fails is to be told so itself. */
static bool may_wait(struct transaction *transaction,
                     const struct queued_put *put) {
  const struct space *space = transaction->writer->log.space;
  bool is_worth_it = space_size(space) >= SPACE_PIECES_FROM &&
                     space_has_spare(space, PUT_QUEUE_ROOM_BYTES) &&
                     !space_is_crowded(space);
  if (!is_worth_it && !BROKEN(TESTING_QUEUE)) return false;
  if (put->key.size + put->value_size > PUT_QUEUE_RECORD_MAX) return false;
  if (transaction->queue == NULL) {
    transaction->queue = malloc(sizeof *transaction->queue);
    if (transaction->queue == NULL) return false;
    put_queue_clear(transaction->queue);
  }
  return true;
}

static int put_later(struct transaction *transaction,
                     const struct trie_key *map, const struct queued_put *put) {
  int code = MMCMAP_OK;
  if (!put_queue_has_room(transaction->queue, map, put))
    code = empty_queue(transaction);
  if (code != MMCMAP_OK) return code;
  struct queued_put promised = *put;
  promised.life.is_promised = true;
  put_queue_add(transaction->queue, map, &promised);
  return MMCMAP_OK;
}

int transaction_put(struct transaction *transaction, const struct trie_key *map,
                    const void *key, size_t key_size, const void *value,
                    size_t value_size, struct change_life life) {
  const struct hasher *hasher = transaction->catalog.hasher;
  struct queued_put put = {
      .value = value, .value_size = value_size, .life = life};
  int code = change_check_sizes(key_size, value_size);
  if (code == MMCMAP_OK) code = check_alive(transaction);
  if (code == MMCMAP_OK) code = begin_writing(transaction, SPACE_FOR_PUTS);
  if (code != MMCMAP_OK) return code;
  put.key = trie_key_of(hasher, key, key_size);
  if (may_wait(transaction, &put)) return put_later(transaction, map, &put);
  code = empty_queue(transaction);
  return code == MMCMAP_OK ? put_one(transaction, map, &put) : code;
}

int transaction_put_many(struct transaction *transaction,
                         const struct trie_key *map, const mmcmap_slice *keys,
                         const mmcmap_slice *values, size_t count,
                         struct change_life life) {
  const struct hasher *hasher = transaction->catalog.hasher;
  struct queued_put puts[TRIE_LANES];
  int code = settle(transaction);
  for (size_t i = 0; i < count && code == MMCMAP_OK;) {
    unsigned group = 0;
    for (; group < TRIE_LANES && i < count; i++, group++) {
      struct queued_put *put = &puts[group];
      put->key = trie_key_of(hasher, keys[i].data, keys[i].size);
      put->value = values[i].data;
      put->value_size = values[i].size;
      put->life = life;
    }
    code = put_group(transaction, map, puts, group);
  }
  return code;
}

/* ---- The end ----------------------------------------------------------------- */

/* The store's root, to publish with, and to retire what nobody sees then. */
static struct trie trie_of_top(struct writer *writer) {
  struct trie trie = {.log = &writer->log,
                      .hasher = writer->catalog.hasher,
                      .top = writer->catalog.top,
                      .count = writer->catalog.count,
                      .count_place = TRIE_COUNT_IN_CELL};
  return trie;
}

/* What is unlinked may be counted as dead from now on. */
static int publish(struct transaction *transaction) {
  struct trie trie = trie_of_top(transaction->writer);
  log_end_private(trie.log);
  int code = trie_store(&trie, 0, atomic_load(&transaction->root),
                        atomic_load(&transaction->count));
  if (code == MMCMAP_OK) trie_retire_draft(&trie, &transaction->draft);
  return code;
}

int transaction_commit(struct transaction *transaction, uint64_t *epoch_out) {
  const struct writer *writer = transaction->writer;
  *epoch_out = 0;
  int code = settle(transaction);
  bool has_changed =
      transaction->is_writing && atomic_load(&transaction->root) !=
                                     atomic_load(&writer->header->live.root);
  int failed = commit_failure(&writer->header->commit);
  if (code == MMCMAP_OK && has_changed && failed != MMCMAP_OK)
    code = error_set(failed, "an earlier commit failed");
  if (code == MMCMAP_OK && has_changed) code = publish(transaction);
  if (code != MMCMAP_OK || !has_changed) {
    transaction_abort(transaction);
    return code;
  }
  *epoch_out = writer->log.epoch;
  leave(transaction);
  return MMCMAP_OK;
}

/* ---- Other changes ----------------------------------------------------------- */

static int begin_change(struct transaction *transaction,
                        const struct trie_key *map, enum space_claim claim,
                        struct catalog_map *found, struct log_mark *mark_out) {
  int code = settle(transaction);
  if (code == MMCMAP_OK) code = begin_writing(transaction, claim);
  if (code != MMCMAP_OK) return code;
  return open_map(transaction, map, false, found, mark_out);
}

int transaction_delete(struct transaction *transaction,
                       const struct trie_key *map, const void *key,
                       size_t key_size) {
  struct log_mark mark;
  struct catalog_map found;
  int code = begin_change(transaction, map, SPACE_FOR_DELETES, &found, &mark);
  if (code != MMCMAP_OK) return code;
  if (key_size > MMCMAP_KEY_SIZE_MAX) return MMCMAP_NOTFOUND;
  struct trie_key trie_key = trie_key_of(found.trie.hasher, key, key_size);
  code = change_delete(&found.trie, &trie_key, &transaction->now);
  return end_change(transaction, code, &mark);
}

int transaction_change(struct transaction *transaction,
                       const struct trie_key *map, const void *key,
                       size_t key_size, decide_fn *decide, void *context,
                       struct change_life life) {
  struct log_mark mark;
  struct catalog_map found;
  bool has_changed;
  int code = change_check_sizes(key_size, 0);
  if (code == MMCMAP_OK) code = settle(transaction);
  if (code == MMCMAP_OK) code = begin_writing(transaction, SPACE_FOR_PUTS);
  if (code == MMCMAP_OK)
    code = open_map(transaction, map, change_may_expire(&life), &found, &mark);
  if (code != MMCMAP_OK) return code;
  struct trie_key trie_key = trie_key_of(found.trie.hasher, key, key_size);
  code = change_decided(&found.trie, &trie_key, decide, context, life,
                        &transaction->now, &has_changed);
  return end_change(transaction, code, &mark);
}

int transaction_clear(struct transaction *transaction,
                      const struct trie_key *map) {
  struct log_mark mark;
  struct catalog_map found;
  uint64_t root, count;
  int code = transaction_look(transaction, map, &root, &count);
  if (code != MMCMAP_OK || root == SLOT_EMPTY) return code;
  code = begin_change(transaction, map, SPACE_FOR_DELETES, &found, &mark);
  if (code != MMCMAP_OK) return code;
  code = trie_publish_root(&found.trie, SLOT_EMPTY, 0);
  if (code == MMCMAP_OK) trie_draft_add_all(&transaction->draft, root);
  return end_change(transaction, code, &mark);
}

int transaction_drop(struct transaction *transaction,
                     const struct trie_key *map) {
  struct log_mark mark;
  struct catalog_map found;
  int code = begin_change(transaction, map, SPACE_FOR_DELETES, &found, &mark);
  if (code != MMCMAP_OK) return code;
  code = catalog_drop(&transaction->catalog, map);
  return end_change(transaction, code, &mark);
}

int transaction_look(struct transaction *transaction,
                     const struct trie_key *map, uint64_t *root_out,
                     uint64_t *count_out) {
  struct node_source source = space_source(transaction->writer->log.space);
  struct map_words words;
  *root_out = *count_out = 0;
  int code = settle(transaction);
  uint64_t top = atomic_load(&transaction->root);
  if (code != MMCMAP_OK) return code;
  if (map == NULL) {
    *count_out = atomic_load(&transaction->count);
    return catalog_default_root(&source, top, root_out);
  }
  code = catalog_find(&source, transaction->catalog.hasher, top, map, &words);
  *root_out = words.root;
  *count_out = words.count;
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

int transaction_get(struct transaction *transaction, const struct trie_key *map,
                    const void *key, size_t key_size,
                    struct record_view *record_out) {
  const struct hasher *hasher = transaction->catalog.hasher;
  struct node_source source = space_source(transaction->writer->log.space);
  uint64_t root, count;
  int code = transaction_look(transaction, map, &root, &count);
  if (code != MMCMAP_OK) return code;
  struct trie_key trie_key = trie_key_of(hasher, key, key_size);
  code = trie_lookup(&source, hasher, root, &trie_key, record_out);
  if (code == MMCMAP_OK && record_is_past(record_out, transaction->now.now_ms))
    code = MMCMAP_NOTFOUND;
  return code;
}

/* ---- Savepoints ---------------------------------------------------------- */

int transaction_freeze(struct transaction *transaction) {
  struct log *log = &transaction->writer->log;
  const struct log_mark *frozen = &transaction->frozen;
  int code = settle(transaction);
  if (code != MMCMAP_OK || !transaction->is_writing) return code;
  if (BROKEN(BREAK_TXN_UNFROZEN)) return MMCMAP_OK;
  /* The first node that is born after a freeze is none that was recycled. */
  if (log->frame_offset == frozen->frame_offset &&
      log->cursor == frozen->cursor &&
      log->branches.frame_offset == frozen->branch_frame_offset &&
      log->branches.cursor == frozen->branch_cursor)
    return MMCMAP_OK; /* none has been since */
  code = log_next_epoch(log);
  if (code != MMCMAP_OK) return code;
  transaction->frozen = log_mark(log);
  usage_mark(log, &transaction->frozen_counts);
  return MMCMAP_OK;
}

static int make_room(struct transaction *transaction) {
  size_t capacity = transaction->savepoint_capacity;
  if (transaction->savepoint_count < capacity) return MMCMAP_OK;
  capacity = capacity == 0 ? 8 : 2 * capacity;
  struct transaction_savepoint *savepoints =
      realloc(transaction->savepoints, capacity * sizeof *savepoints);
  if (savepoints == NULL) return error_set(MMCMAP_ENOMEM, "savepoint");
  transaction->savepoints = savepoints;
  transaction->savepoint_capacity = capacity;
  return MMCMAP_OK;
}

int transaction_savepoint(struct transaction *transaction, size_t *number_out) {
  *number_out = 0;
  int code = make_room(transaction);
  if (code == MMCMAP_OK) code = transaction_freeze(transaction);
  if (code != MMCMAP_OK) return code;
  struct transaction_savepoint *savepoint =
      &transaction->savepoints[transaction->savepoint_count];
  savepoint->root = atomic_load(&transaction->root);
  savepoint->count = atomic_load(&transaction->count);
  savepoint->unlinked_count = transaction->draft.count;
  savepoint->mark = transaction->frozen;
  savepoint->counts = transaction->frozen_counts;
  *number_out = transaction->savepoint_count++;
  return MMCMAP_OK;
}

/* The number names a savepoint, and the thread may use it. */
static int check_number(struct transaction *transaction, size_t number) {
  int code = transaction_check(transaction);
  if (code == MMCMAP_OK && number >= transaction->savepoint_count)
    code = error_set(MMCMAP_EINVAL, "no such savepoint");
  return code;
}

int transaction_rollback_to(struct transaction *transaction, size_t number) {
  struct log *log = &transaction->writer->log;
  int code = check_number(transaction, number);
  if (code != MMCMAP_OK) return code;
  const struct transaction_savepoint *savepoint =
      &transaction->savepoints[number];
  if (transaction->queue != NULL) put_queue_clear(transaction->queue);
  transaction->failed = MMCMAP_OK;
  atomic_store(&transaction->root, savepoint->root);
  atomic_store(&transaction->count, savepoint->count);
  transaction->draft.count = savepoint->unlinked_count;
  transaction->savepoint_count = number + 1;
  if (!transaction->is_writing) return MMCMAP_OK;
  /* What has been frozen later is forgotten, though the log may come to end there
     again. */
  transaction->frozen = savepoint->mark;
  transaction->frozen_counts = savepoint->counts;
  recycler_clear(&log->recycler, log->first_epoch);
  log_return_to(log, &savepoint->mark);
  log_return_counts(log, atomic_load(&savepoint->counts.epoch) != 0
                             ? &savepoint->counts
                             : &log->header->upkeep.begun);
  return MMCMAP_OK;
}

int transaction_release(struct transaction *transaction, size_t number) {
  int code = check_number(transaction, number);
  if (code == MMCMAP_OK) transaction->savepoint_count = number;
  return code;
}
