/* SPDX-License-Identifier: MIT */
/*
 * Changes and seals. The hash of a key is computed before the lock is taken.
 */
#include "txn/writer.h"

#include <string.h>

#include "base/errors.h"

int writer_init(struct writer *writer, struct space *space,
                struct readers *readers, const struct hasher *hasher,
                struct live *live) {
  memset(writer, 0, sizeof *writer);
  int code = thread_mutex_init(&writer->mutex);
  if (code != MMCMAP_OK) return code;
  log_init(&writer->log, space, readers, hasher);
  writer->live = live;
  writer->trie.log = &writer->log;
  writer->trie.hasher = hasher;
  writer->trie.map_id = MAP_ID_DEFAULT;
  writer->trie.root = &live->root;
  return MMCMAP_OK;
}

void writer_destroy(struct writer *writer) {
  log_destroy(&writer->log);
  thread_mutex_destroy(&writer->mutex);
}

/* Takes the lock and sees to it that changes may be made. */
static int begin_change(struct writer *writer, uint32_t timeout_ms) {
  int code = thread_mutex_lock_timed(&writer->mutex, timeout_ms);
  if (code != MMCMAP_OK) return code;
  if (UNLIKELY(writer->failed != 0))
    code = error_set(writer->failed, "an earlier commit failed");
  else if (UNLIKELY(!writer->started))
    code = writer->start(writer->start_context);
  if (UNLIKELY(code != MMCMAP_OK)) thread_mutex_unlock(&writer->mutex);
  return code;
}

/* Notes the change that has been published and releases the lock. */
static void end_change(struct writer *writer, uint64_t count,
                       uint64_t *epoch_out) {
  struct live *live = writer->live;
  uint64_t epoch = writer->log.epoch;
  atomic_store_explicit(&live->count, count, memory_order_relaxed);
  atomic_store_explicit(&live->changed_epoch, epoch, memory_order_relaxed);
  *epoch_out = epoch;
  thread_mutex_unlock(&writer->mutex);
}

int writer_put(struct writer *writer, const void *key, size_t key_size,
               const void *value, size_t value_size, uint32_t timeout_ms,
               uint64_t *epoch_out) {
  *epoch_out = 0;
  if (UNLIKELY(key_size > MMCMAP_KEY_SIZE_MAX))
    return error_set(MMCMAP_ETOOBIG, "key");
  if (UNLIKELY(value_size > MMCMAP_VALUE_SIZE_MAX))
    return error_set(MMCMAP_ETOOBIG, "value");
  struct trie_key trie_key = trie_key_of(writer->trie.hasher, key, key_size);
  int code = begin_change(writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  bool created;
  code =
      trie_put(&writer->trie, &trie_key, value, (uint32_t)value_size, &created);
  if (code != MMCMAP_OK) {
    thread_mutex_unlock(&writer->mutex);
    return code;
  }
  uint64_t count =
      atomic_load_explicit(&writer->live->count, memory_order_relaxed);
  end_change(writer, count + (created ? 1 : 0), epoch_out);
  return MMCMAP_OK;
}

int writer_delete(struct writer *writer, const void *key, size_t key_size,
                  uint32_t timeout_ms, uint64_t *epoch_out) {
  *epoch_out = 0;
  if (key_size > MMCMAP_KEY_SIZE_MAX) return MMCMAP_NOTFOUND;
  struct trie_key trie_key = trie_key_of(writer->trie.hasher, key, key_size);
  int code = begin_change(writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  uint64_t count =
      atomic_load_explicit(&writer->live->count, memory_order_relaxed);
  if (LIKELY(count > 0))
    code = trie_remove(&writer->trie, &trie_key);
  else if (atomic_load_explicit(&writer->live->root, memory_order_relaxed) ==
           SLOT_EMPTY)
    code = MMCMAP_NOTFOUND;
  else
    code = error_set_corrupt("F36 more records than counted", 0);
  if (code != MMCMAP_OK) {
    thread_mutex_unlock(&writer->mutex);
    return code;
  }
  end_change(writer, count - 1, epoch_out);
  return MMCMAP_OK;
}

int writer_seal(struct writer *writer) {
  struct live *live = writer->live;
  uint64_t epoch = writer->log.epoch;
  if (!writer->started ||
      atomic_load_explicit(&live->changed_epoch, memory_order_relaxed) != epoch)
    return MMCMAP_OK;
  struct log_root root = {
      .root = atomic_load_explicit(&live->root, memory_order_relaxed),
      .count = atomic_load_explicit(&live->count, memory_order_relaxed)};
  int code = log_seal(&writer->log, &root, epoch + 1);
  if (code == MMCMAP_OK)
    atomic_store_explicit(&live->open_epoch, epoch + 1, memory_order_relaxed);
  return code;
}

int writer_take_moment(struct writer *writer, uint32_t timeout_ms,
                       struct moment *moment_out) {
  memset(moment_out, 0, sizeof *moment_out);
  struct live *live = writer->live;
  int code = thread_mutex_lock_timed(&writer->mutex, timeout_ms);
  if (code != MMCMAP_OK) return code;
  code = writer_seal(writer);
  if (code == MMCMAP_OK) {
    moment_out->root = atomic_load_explicit(&live->root, memory_order_relaxed);
    moment_out->count =
        atomic_load_explicit(&live->count, memory_order_relaxed);
    moment_out->epoch =
        atomic_load_explicit(&live->changed_epoch, memory_order_relaxed);
  }
  thread_mutex_unlock(&writer->mutex);
  return code;
}
