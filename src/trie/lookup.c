/* SPDX-License-Identifier: MIT */
/*
 * Lookup: a walk from a root to a record. It takes no lock, allocates nothing
 * and never waits; every offset and size is checked before it is followed, and
 * a trie of any content ends it after COLLISION_LEVEL steps.
 */
#include "base/errors.h"
#include "trie/trie.h"

int trie_compare_keys(const struct trie_key *key,
                      const struct record_view *record) {
  size_t common = key->size < record->key_size ? key->size : record->key_size;
  int order = common == 0 ? 0 : memcmp(key->data, record->key, common);
  if (order != 0) return order;
  return (key->size > record->key_size) - (key->size < record->key_size);
}

int trie_search_collision(const struct node_source *source,
                          const struct branch_view *node,
                          const struct trie_key *key, unsigned *index_out,
                          bool *found_out) {
  unsigned low = 0, high = node->slot_count;
  *found_out = false;
  while (low < high) {
    unsigned middle = low + (high - low) / 2;
    uint64_t slot = branch_slot(node, middle);
    if (!slot_is_record(slot))
      return error_set_corrupt("F34 collision slots", node->offset);
    struct record_view record;
    int code = node_record(source, slot_offset(slot), &record);
    if (code != MMCMAP_OK) return code;
    int order = trie_compare_keys(key, &record);
    if (order == 0) {
      *found_out = true;
      low = middle;
      break;
    }
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  *index_out = low;
  return MMCMAP_OK;
}

static int lookup_collision(const struct node_source *source, uint64_t slot,
                            const struct trie_key *key,
                            struct record_view *record_out) {
  struct branch_view node;
  unsigned index;
  bool found;
  int code = node_branch(source, slot_offset(slot), COLLISION_LEVEL, &node);
  if (code == MMCMAP_OK)
    code = trie_search_collision(source, &node, key, &index, &found);
  if (code != MMCMAP_OK) return code;
  if (!found) return MMCMAP_NOTFOUND;
  return node_record(source, slot_offset(branch_slot(&node, index)),
                     record_out);
}

int trie_lookup(const struct node_source *source, const struct hasher *hasher,
                uint64_t root, struct trie_key *key,
                struct record_view *record_out) {
  uint64_t slot = root;
  if (slot == SLOT_EMPTY) return MMCMAP_NOTFOUND;
  for (unsigned level = 0; !slot_is_record(slot); level++) {
    if (UNLIKELY(level == COLLISION_LEVEL))
      return lookup_collision(source, slot, key, record_out);
    int code = node_branch_find(source, slot_offset(slot), level,
                                trie_way(hasher, key, level), &slot);
    if (UNLIKELY(code != MMCMAP_OK)) return code;
  }
  if (slot_tag(slot) != slot_tag_of_hash(key->primary)) return MMCMAP_NOTFOUND;
  int code = node_record(source, slot_offset(slot), record_out);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  return record_has_key(record_out, key->data, key->size) ? MMCMAP_OK
                                                          : MMCMAP_NOTFOUND;
}
