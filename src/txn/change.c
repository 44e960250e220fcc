/* SPDX-License-Identifier: MIT */
#include "txn/change.h"

#include "base/errors.h"

int change_check_sizes(size_t key_size, size_t value_size) {
  if (UNLIKELY(key_size > MMCMAP_KEY_SIZE_MAX))
    return error_set(MMCMAP_ETOOBIG, "key");
  if (UNLIKELY(value_size > MMCMAP_VALUE_SIZE_MAX))
    return error_set(MMCMAP_ETOOBIG, "value");
  return MMCMAP_OK;
}

int change_put(const struct trie *trie, struct trie_key *key, const void *value,
               size_t value_size) {
  bool created;
  return trie_put(trie, key, value, (uint32_t)value_size, &created);
}

/* A record more than counted must not make the count less than none. */
static int check_count(const struct trie *trie) {
  if (LIKELY(atomic_load_explicit(trie->count, memory_order_relaxed) > 0))
    return MMCMAP_OK;
  return error_set_corrupt("F36 more records than counted", 0);
}

int change_delete(const struct trie *trie, struct trie_key *key) {
  if (atomic_load_explicit(trie->root, memory_order_relaxed) == SLOT_EMPTY)
    return MMCMAP_NOTFOUND;
  int code = check_count(trie);
  return code == MMCMAP_OK ? trie_remove(trie, key) : code;
}

int change_decided(const struct trie *trie, struct trie_key *key,
                   decide_fn *decide, void *context, bool *changed_out) {
  struct trie_path path;
  enum decision decision = DECIDE_KEEP;
  const void *value = NULL;
  size_t value_size = 0;
  *changed_out = false;
  int code = trie_find_path(trie, key, &path);
  if (code != MMCMAP_OK) return code;
  bool is_there = path.ending == TRIE_ENDS_SAME;
  if (is_there) code = check_count(trie);
  if (code == MMCMAP_OK)
    code = decide(context, is_there ? path.record.value : NULL,
                  is_there ? path.record.value_size : 0, &decision, &value,
                  &value_size);
  if (code != MMCMAP_OK || decision == DECIDE_KEEP) return code;
  *changed_out = true;
  if (decision == DECIDE_DELETE) return trie_remove_at(trie, &path);
  code = change_check_sizes(0, value_size);
  if (code != MMCMAP_OK) return code;
  return trie_put_at(trie, key, &path, value, (uint32_t)value_size);
}
