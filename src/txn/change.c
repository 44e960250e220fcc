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

/* When what is put expires; `before` is the record that there is, or NULL. Noted
   before it is published. */
static uint64_t end_of(const struct trie *trie, struct change_life life,
                       const struct record_view *before,
                       struct expiry_reading *now) {
  uint64_t expires_ms = life.expires_ms;
  if (life.is_kept && before != NULL) expires_ms = before->expires_ms;
  if (life.ttl_ms != 0) expires_ms = expiry_after(expiry_now(now), life.ttl_ms);
  if (expires_ms != 0) expiry_note(now->header, trie->map_id, expires_ms);
  return expires_ms;
}

/* Where little space is left records are replaced by such as are no longer. */
static int check_crowd(const struct trie *trie, const struct trie_path *path,
                       size_t value_size, const struct change_life *life) {
  if (life->is_promised ||
      (path->ending == TRIE_ENDS_SAME && value_size <= path->record.value_size))
    return MMCMAP_OK;
  return space_check_crowd(trie->log->space);
}

int change_put(const struct trie *trie, struct trie_key *key, const void *value,
               size_t value_size, struct change_life life,
               struct expiry_reading *now) {
  struct trie_path path;
  int code = trie_find_path(trie, key, &path);
  if (code == MMCMAP_OK) code = check_crowd(trie, &path, value_size, &life);
  if (code != MMCMAP_OK) return code;
  struct trie_value to_put = {.data = value, .size = (uint32_t)value_size};
  if (UNLIKELY(change_may_expire(&life)))
    to_put.expires_ms = end_of(trie, life, NULL, now);
  return trie_put_at(trie, key, &path, &to_put);
}

/* A record more than counted must not make the count less than none. */
static int check_count(const struct trie *trie) {
  if (LIKELY(atomic_load_explicit(trie->count, memory_order_relaxed) > 0))
    return MMCMAP_OK;
  return error_set_corrupt("F36 more records than counted", 0);
}

/* Deletes a key if it has expired, or if it has not. */
static int delete_if(const struct trie *trie, struct trie_key *key,
                     struct expiry_reading *now, bool is_past) {
  struct trie_path path;
  if (atomic_load_explicit(trie->root, memory_order_relaxed) == SLOT_EMPTY)
    return MMCMAP_NOTFOUND;
  int code = check_count(trie);
  if (code == MMCMAP_OK) code = trie_find_path(trie, key, &path);
  if (code != MMCMAP_OK) return code;
  if (path.ending != TRIE_ENDS_SAME ||
      expiry_is_past(now, path.record.expires_ms) != is_past)
    return MMCMAP_NOTFOUND;
  return trie_remove_at(trie, &path);
}

int change_delete(const struct trie *trie, struct trie_key *key,
                  struct expiry_reading *now) {
  return delete_if(trie, key, now, false);
}

int change_delete_expired(const struct trie *trie, struct trie_key *key,
                          struct expiry_reading *now) {
  return delete_if(trie, key, now, true);
}

int change_decided(const struct trie *trie, struct trie_key *key,
                   decide_fn *decide, void *context, struct change_life life,
                   struct expiry_reading *now, bool *changed_out) {
  struct trie_path path;
  enum decision decision = DECIDE_KEEP;
  const void *value = NULL;
  size_t value_size = 0;
  *changed_out = false;
  int code = trie_find_path(trie, key, &path);
  if (code != MMCMAP_OK) return code;
  bool is_there = path.ending == TRIE_ENDS_SAME &&
                  !expiry_is_past(now, path.record.expires_ms);
  if (is_there) code = check_count(trie);
  if (code == MMCMAP_OK)
    code = decide(context, is_there ? path.record.value : NULL,
                  is_there ? path.record.value_size : 0, &decision, &value,
                  &value_size);
  if (code != MMCMAP_OK || decision == DECIDE_KEEP) return code;
  *changed_out = true;
  if (decision == DECIDE_DELETE) return trie_remove_at(trie, &path);
  code = change_check_sizes(0, value_size);
  if (code == MMCMAP_OK) code = check_crowd(trie, &path, value_size, &life);
  if (code != MMCMAP_OK) return code;
  struct trie_value to_put = {
      .data = value,
      .size = (uint32_t)value_size,
      .expires_ms = end_of(trie, life, is_there ? &path.record : NULL, now)};
  return trie_put_at(trie, key, &path, &to_put);
}
