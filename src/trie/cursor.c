/* SPDX-License-Identifier: MIT */
/*
 * The cursor: a depth-first walk, some records ahead of what is returned, so
 * that memory which lies anywhere is fetched side by side. Every record of a
 * sound trie comes exactly once. Every chain of branches ends at a record or at
 * an error, so the bound on records bounds the walk through a hostile trie.
 */
#include "base/errors.h"
#include "trie/trie.h"

void trie_cursor_init(struct trie_cursor *cursor, uint64_t root,
                      uint64_t count) {
  cursor->root = root;
  cursor->left = count;
  cursor->begun = false;
  cursor->failure.code = MMCMAP_OK;
  cursor->depth = 0;
  cursor->ahead_begin = 0;
  cursor->ahead_end = 0;
}

/* Two lines: a leaf branch, or a small record, mostly has no more. What lies
   beyond the file is never touched, only asked for. */
static void prefetch_node(const struct node_source *source, uint64_t slot) {
  uint64_t offset = slot_offset(slot);
  if (offset >= source->size) return;
  bytes_prefetch(source->base + offset);
  bytes_prefetch(source->base + offset + 64);
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
  unsigned count = step->branch.slot_count;
  if (count > BRANCH_WAYS) count = BRANCH_WAYS; /* of a collision node */
  for (unsigned i = 0; i < count; i++)
    prefetch_node(source, branch_slot(&step->branch, i));
  return MMCMAP_OK;
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

/* Notes a record that the walk has come to. */
static inline int push_record(struct trie_cursor *cursor, uint64_t slot) {
  if (UNLIKELY(cursor->left == 0))
    return error_set_corrupt("F36 more records than counted",
                             slot_offset(slot));
  cursor->left--;
  cursor->ahead[cursor->ahead_end++ % TRIE_RECORDS_AHEAD] = slot;
  return MMCMAP_OK;
}

static inline int take_slot(struct trie_cursor *cursor,
                            const struct node_source *source, uint64_t slot) {
  return slot_is_record(slot) ? push_record(cursor, slot)
                              : enter_branch(cursor, source, slot);
}

/* Walks on until enough records are ahead, or to the end. */
static int walk_ahead(struct trie_cursor *cursor,
                      const struct node_source *source) {
  int code = MMCMAP_OK;
  if (!cursor->begun) {
    cursor->begun = true;
    if (cursor->root != SLOT_EMPTY)
      code = take_slot(cursor, source, cursor->root);
  }
  while (code == MMCMAP_OK && cursor->depth > 0 &&
         cursor->ahead_end - cursor->ahead_begin < TRIE_RECORDS_AHEAD) {
    struct trie_cursor_step *step = &cursor->steps[cursor->depth - 1];
    if (step->next < step->branch.slot_count)
      code =
          take_slot(cursor, source, branch_slot(&step->branch, step->next++));
    else
      cursor->depth--;
  }
  return code;
}

int trie_cursor_walk(struct trie_cursor *cursor,
                     const struct node_source *source) {
  /* A failure comes when all before it has come. */
  if (cursor->failure.code == MMCMAP_OK &&
      walk_ahead(cursor, source) != MMCMAP_OK)
    mmcmap_last_error(&cursor->failure);
  if (cursor->ahead_end != cursor->ahead_begin) return MMCMAP_OK;
  if (cursor->failure.code == MMCMAP_OK) return MMCMAP_NOTFOUND;
  error_restore(&cursor->failure);
  return cursor->failure.code;
}

int trie_cursor_fail(struct trie_cursor *cursor) {
  mmcmap_last_error(&cursor->failure);
  cursor->ahead_begin = cursor->ahead_end;
  return cursor->failure.code;
}
