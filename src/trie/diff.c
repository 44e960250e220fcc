/* SPDX-License-Identifier: MIT */
/*
 * The form of a trie follows from its keys, so at one position both sides hold
 * the same part of the keys. Where one has a branch and the other a single
 * record, the record is taken down along the way of its own key until the sides
 * part, or meet as records.
 */
#include "trie/diff.h"

#include "base/errors.h"

void trie_diff_init(struct trie_diff *diff, uint64_t old_root,
                    uint64_t new_root, uint64_t node_count) {
  diff->roots[0] = old_root;
  diff->roots[1] = new_root;
  diff->now_ms[0] = diff->now_ms[1] = 0;
  diff->skips_same = true;
  diff->left = node_count;
  diff->begun = false;
  diff->has_pending = false;
  diff->depth = 0;
}

static int count_node(struct trie_diff *diff, uint64_t slot) {
  if (diff->left == 0)
    return error_set_corrupt("F38 nodes overlap", slot_offset(slot));
  diff->left--;
  return MMCMAP_OK;
}

/* The way of a record's key through a branch of `level`. */
static int way_of_record(const struct node_source *source,
                         const struct hasher *hasher, uint64_t slot,
                         unsigned level, unsigned *way_out) {
  struct record_view record;
  *way_out = 0;
  int code = node_record(source, slot_offset(slot), &record);
  if (code != MMCMAP_OK) return code;
  struct trie_key key = trie_key_of(hasher, record.key, record.key_size);
  *way_out = trie_way(hasher, &key, level);
  return MMCMAP_OK;
}

/* What the slot of one side leads to, `level` steps below the root. */
static int enter_side(struct trie_diff *diff, const struct node_source *source,
                      const struct hasher *hasher, uint64_t slot,
                      unsigned level, struct trie_diff_side *side) {
  unsigned way;
  side->is_branch = slot != SLOT_EMPTY && !slot_is_record(slot);
  side->slot = slot;
  side->bitmap = 0;
  side->next = 0;
  if (side->is_branch) {
    int code = count_node(diff, slot);
    if (code == MMCMAP_OK)
      code = node_branch(source, slot_offset(slot), level, &side->branch);
    if (code == MMCMAP_OK) side->bitmap = side->branch.bitmap;
    return code;
  }
  if (slot == SLOT_EMPTY || level == COLLISION_LEVEL) return MMCMAP_OK;
  int code = way_of_record(source, hasher, slot, level, &way);
  if (code == MMCMAP_OK) side->bitmap = UINT64_C(1) << way;
  return code;
}

static uint64_t take_slot(struct trie_diff_side *side) {
  return side->is_branch ? branch_slot(&side->branch, side->next++)
                         : side->slot;
}

/* Of the slots of a branch on each side those of the next way. */
static void take_way(struct trie_diff_step *step, uint64_t slots_out[2]) {
  uint64_t bit = step->ways_left & -step->ways_left;
  step->ways_left &= ~bit;
  for (int i = 0; i < 2; i++)
    slots_out[i] =
        (step->sides[i].bitmap & bit) != 0 ? take_slot(&step->sides[i]) : 0;
}

static bool is_skipped(const struct trie_diff *diff, const uint64_t slots[2]) {
  return slots[0] == slots[1] && diff->skips_same;
}

/* As in cursor.c; of what both sides have only as far as it tells when a record
   expires. */
static void prefetch_way(const struct node_source *source,
                         const uint64_t slots[2]) {
  bool is_same = slots[0] == slots[1];
  for (int i = 0; i < (is_same ? 1 : 2); i++) {
    uint64_t offset = slot_offset(slots[i]);
    if (offset >= source->size) continue;
    bytes_prefetch(source->base + offset);
    bytes_prefetch(source->base + offset + (is_same ? NODE_HEADER_BYTES : 64));
  }
}

/* Asks for what a branch leads to that both sides share, and that is about to be
   looked at: mostly a few records, too few to be fetched side by side alone. */
static void prefetch_shared(const struct node_source *source, uint64_t slot,
                            unsigned level) {
  struct branch_view branch;
  if (slot_is_record(slot) || level >= COLLISION_LEVEL ||
      node_branch(source, slot_offset(slot), level, &branch) != MMCMAP_OK)
    return;
  for (unsigned i = 0; i < branch.slot_count; i++) {
    uint64_t child = branch_slot(&branch, i);
    prefetch_way(source, (uint64_t[2]){child, child});
  }
}

/* Asks for all that the step leads to: it lies anywhere. */
static void look_ahead(const struct trie_diff *diff,
                       const struct node_source *source,
                       const struct trie_diff_step *step) {
  struct trie_diff_step ahead = *step;
  uint64_t slots[2];
  while (ahead.ways_left != 0) {
    take_way(&ahead, slots);
    if (!is_skipped(diff, slots)) prefetch_way(source, slots);
  }
  if (diff->skips_same) return;
  for (ahead = *step; ahead.ways_left != 0;) {
    take_way(&ahead, slots);
    if (slots[0] == slots[1])
      prefetch_shared(source, slots[0], diff->depth + 1);
  }
}

static int enter_step(struct trie_diff *diff, const struct node_source *source,
                      const struct hasher *hasher, const uint64_t slots[2]) {
  unsigned level = diff->depth;
  if (level > COLLISION_LEVEL)
    return error_set_corrupt("F34 collision slots", slot_offset(slots[0]));
  struct trie_diff_step *step = &diff->steps[level];
  for (int i = 0; i < 2; i++) {
    int code =
        enter_side(diff, source, hasher, slots[i], level, &step->sides[i]);
    if (code != MMCMAP_OK) return code;
  }
  step->ways_left = step->sides[0].bitmap | step->sides[1].bitmap;
  look_ahead(diff, source, step);
  diff->depth++;
  return MMCMAP_OK;
}

/* ---- The pair of slots to look at next ----------------------------------- */

/* The slot that a side of a collision node has next; SLOT_EMPTY at its end. */
static int peek_collision(const struct node_source *source,
                          const struct trie_diff_side *side, uint64_t *slot_out,
                          struct record_view *record_out) {
  uint32_t count = side->is_branch ? side->branch.slot_count
                                   : (uint32_t)(side->slot != SLOT_EMPTY);
  *slot_out = SLOT_EMPTY;
  if (side->next >= count) return MMCMAP_OK;
  uint64_t slot =
      side->is_branch ? branch_slot(&side->branch, side->next) : side->slot;
  if (!slot_is_record(slot))
    return error_set_corrupt("F34 collision slots", slot_offset(slot));
  *slot_out = slot;
  return node_record(source, slot_offset(slot), record_out);
}

/* Merges the slots of both sides by their keys. Both empty: the end. */
static int take_collision(const struct node_source *source,
                          struct trie_diff_step *step, uint64_t slots_out[2]) {
  struct record_view records[2];
  for (int i = 0; i < 2; i++) {
    int code =
        peek_collision(source, &step->sides[i], &slots_out[i], &records[i]);
    if (code != MMCMAP_OK) return code;
  }
  if (slots_out[0] != SLOT_EMPTY && slots_out[1] != SLOT_EMPTY) {
    struct trie_key key = {.data = records[0].key, .size = records[0].key_size};
    int order = trie_compare_keys(&key, &records[1]);
    if (order != 0) slots_out[order < 0 ? 1 : 0] = SLOT_EMPTY;
  }
  for (int i = 0; i < 2; i++)
    if (slots_out[i] != SLOT_EMPTY) step->sides[i].next++;
  return MMCMAP_OK;
}

/* MMCMAP_NOTFOUND at the end of the walk. */
static int next_pair(struct trie_diff *diff, const struct node_source *source,
                     uint64_t slots_out[2]) {
  if (!diff->begun) {
    diff->begun = true;
    slots_out[0] = diff->roots[0];
    slots_out[1] = diff->roots[1];
    return MMCMAP_OK;
  }
  for (; diff->depth > 0; diff->depth--) {
    struct trie_diff_step *step = &diff->steps[diff->depth - 1];
    if (step->ways_left != 0) {
      take_way(step, slots_out);
      return MMCMAP_OK;
    }
    if (diff->depth - 1 < COLLISION_LEVEL) continue;
    int code = take_collision(source, step, slots_out);
    if (code != MMCMAP_OK) return code;
    if (slots_out[0] != SLOT_EMPTY || slots_out[1] != SLOT_EMPTY)
      return MMCMAP_OK;
  }
  return MMCMAP_NOTFOUND;
}

/* ---- Records ------------------------------------------------------------- */

/* Large values are told apart by their checksums, which they have anyway. */
static bool values_are_equal(const struct record_view *a,
                             const struct record_view *b) {
  if (a->value_size != b->value_size || a->is_large != b->is_large)
    return false;
  if (a->is_large) return a->extent_checksum == b->extent_checksum;
  return a->value_size == 0 || memcmp(a->value, b->value, a->value_size) == 0;
}

/* Compares what is at most a record on each side; whether that is a change. */
static int compare_leaves(struct trie_diff *diff,
                          const struct node_source *source,
                          const uint64_t slots[2], struct trie_change *change,
                          bool *changed_out) {
  struct record_view *records[2] = {&change->old_record, &change->new_record};
  bool *has[2] = {&change->has_old, &change->has_new};
  for (int i = 0; i < 2; i++) {
    *has[i] = slots[i] != SLOT_EMPTY;
    if (!*has[i]) continue;
    int code = count_node(diff, slots[i]);
    if (code == MMCMAP_OK)
      code = node_record(source, slot_offset(slots[i]), records[i]);
    if (code != MMCMAP_OK) return code;
    *has[i] = !record_is_past(records[i], diff->now_ms[i]);
  }
  *changed_out = change->has_old || change->has_new;
  if (!change->has_old || !change->has_new) return MMCMAP_OK;
  *changed_out = slots[0] != slots[1];
  if (!*changed_out) return MMCMAP_OK;
  if (record_has_key(records[0], records[1]->key, records[1]->key_size)) {
    *changed_out = !values_are_equal(records[0], records[1]);
    return MMCMAP_OK;
  }
  *changed_out = true;
  diff->pending = change->new_record;
  diff->has_pending = true;
  change->has_new = false;
  return MMCMAP_OK;
}

static bool is_leaf(uint64_t slot) {
  return slot == SLOT_EMPTY || slot_is_record(slot);
}

int trie_diff_next(struct trie_diff *diff, const struct node_source *source,
                   const struct hasher *hasher,
                   struct trie_change *change_out) {
  int code = MMCMAP_OK;
  memset(change_out, 0, sizeof *change_out);
  if (diff->has_pending) {
    diff->has_pending = false;
    change_out->has_new = true;
    change_out->new_record = diff->pending;
    return MMCMAP_OK;
  }
  while (code == MMCMAP_OK) {
    uint64_t slots[2];
    bool changed = false;
    code = next_pair(diff, source, slots);
    if (code == MMCMAP_NOTFOUND) return code;
    if (code != MMCMAP_OK || is_skipped(diff, slots)) continue;
    if (!is_leaf(slots[0]) || !is_leaf(slots[1])) {
      code = enter_step(diff, source, hasher, slots);
      continue;
    }
    code = compare_leaves(diff, source, slots, change_out, &changed);
    if (code == MMCMAP_OK && changed) return code;
  }
  diff->begun = true;
  diff->has_pending = false;
  diff->depth = 0;
  memset(change_out, 0, sizeof *change_out);
  return code;
}
