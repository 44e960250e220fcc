/* SPDX-License-Identifier: MIT */
/*
 * The cursor: a depth-first walk. Every record of a sound trie comes exactly
 * once. Every chain of branches ends at a record or at an error, so the bound
 * on records bounds the walk through a hostile trie.
 */
#include "base/errors.h"
#include "trie/trie.h"

void trie_cursor_init(struct trie_cursor *cursor, uint64_t root,
                      uint64_t count) {
  cursor->root = root;
  cursor->left = count;
  cursor->begun = false;
  cursor->depth = 0;
}

static int enter_branch(struct trie_cursor *cursor,
                        const struct node_source *source, uint64_t slot) {
  unsigned level = cursor->depth;
  if (level > COLLISION_LEVEL)
    return error_set_corrupt("F34 collision slots", slot_offset(slot));
  struct trie_cursor_step *step = &cursor->steps[level];
  int code = node_branch(source, slot_offset(slot), level, &step->branch);
  if (code != MMCMAP_OK) return code;
  step->next = 0;
  cursor->depth++;
  /* The nodes below lie anywhere: fetch them side by side. */
  for (unsigned i = 0; i < step->branch.slot_count; i++) {
    uint64_t offset = slot_offset(branch_slot(&step->branch, i));
    if (offset < source->size) __builtin_prefetch(source->base + offset);
  }
  return MMCMAP_OK;
}

/* The slot to take next; false at the end. */
static bool next_slot(struct trie_cursor *cursor, uint64_t *slot_out) {
  if (!cursor->begun) {
    cursor->begun = true;
    *slot_out = cursor->root;
    return cursor->root != SLOT_EMPTY;
  }
  while (cursor->depth > 0) {
    struct trie_cursor_step *step = &cursor->steps[cursor->depth - 1];
    if (step->next < step->branch.slot_count) {
      *slot_out = branch_slot(&step->branch, step->next++);
      return true;
    }
    cursor->depth--;
  }
  return false;
}

/* Whether a record comes behind the key in the order of the walk. */
static int is_behind(const struct node_source *source,
                     const struct hasher *hasher, uint64_t slot,
                     struct trie_key *key, bool *behind_out) {
  struct record_view record;
  *behind_out = false;
  int code = node_record(source, slot_offset(slot), &record);
  if (code != MMCMAP_OK) return code;
  struct trie_key other = trie_key_of(hasher, record.key, record.key_size);
  if (other.primary != key->primary) {
    *behind_out = other.primary > key->primary;
    return MMCMAP_OK;
  }
  uint64_t a = trie_key_secondary(hasher, key);
  uint64_t b = trie_key_secondary(hasher, &other);
  *behind_out = a != b ? b > a : trie_compare_keys(key, &record) < 0;
  return MMCMAP_OK;
}

int trie_cursor_seek(struct trie_cursor *cursor,
                     const struct node_source *source,
                     const struct hasher *hasher, struct trie_key *key) {
  uint64_t slot = cursor->root;
  bool found, behind = false;
  int code = MMCMAP_OK;
  if (slot == SLOT_EMPTY) return MMCMAP_OK;
  cursor->begun = true;
  while (code == MMCMAP_OK && !slot_is_record(slot)) {
    code = enter_branch(cursor, source, slot);
    if (code != MMCMAP_OK) break;
    struct trie_cursor_step *step = &cursor->steps[cursor->depth - 1];
    if (step->branch.level == COLLISION_LEVEL) {
      code = trie_search_collision(source, &step->branch, key, &step->next,
                                   &found);
      step->next += code == MMCMAP_OK && found;
      return code;
    }
    unsigned way = trie_way(hasher, key, step->branch.level);
    step->next = branch_index(step->branch.bitmap, way);
    if ((step->branch.bitmap >> way & 1) == 0) return MMCMAP_OK;
    slot = branch_slot(&step->branch, step->next++);
  }
  if (code == MMCMAP_OK) code = is_behind(source, hasher, slot, key, &behind);
  if (!behind) return code;
  if (cursor->depth == 0)
    cursor->begun = false;
  else
    cursor->steps[cursor->depth - 1].next--;
  return MMCMAP_OK;
}

int trie_cursor_next(struct trie_cursor *cursor,
                     const struct node_source *source,
                     struct record_view *record_out) {
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK) {
    uint64_t slot;
    if (!next_slot(cursor, &slot)) return MMCMAP_NOTFOUND;
    if (!slot_is_record(slot)) {
      code = enter_branch(cursor, source, slot);
      continue;
    }
    if (cursor->left == 0) {
      code =
          error_set_corrupt("F36 more records than counted", slot_offset(slot));
      break;
    }
    cursor->left--;
    code = node_record(source, slot_offset(slot), record_out);
    if (code == MMCMAP_OK) return code;
  }
  cursor->depth = 0;
  return code;
}
