/* SPDX-License-Identifier: MIT */
/*
 * Several lookups side by side, or walks ahead of several puts. Nearly all of the
 * time of a walk in a large trie is spent waiting for memory, at each level once for
 * the branch and once for its slot. Here all keys take the same level together, and
 * what each needs next is fetched while the others are served.
 */
#include "base/errors.h"
#include "trie/trie.h"

/* The first bytes of a node: what decides where to look next. */
static void prefetch_node(const struct node_source *source, uint64_t slot) {
  uint64_t offset = slot_offset(slot);
  if (!bytes_within(offset, NODE_HEADER_BYTES, source->size)) return;
  const uint8_t *at = source->base + offset;
  bytes_prefetch(at + NODE_META_AT);
  bytes_prefetch(at + NODE_SHAPE_AT);
  if (!slot_is_record(slot)) return;
  bytes_prefetch(at + NODE_HEADER_BYTES);
  bytes_prefetch(at + NODE_HEADER_BYTES + 64); /* perhaps of the value */
}

/* The slot that `way` leads to, as far as can be told without asking twice. */
static void prefetch_slot(const struct node_source *source, uint64_t slot,
                          unsigned way) {
  uint64_t offset = slot_offset(slot);
  if (!bytes_within(offset, NODE_HEADER_BYTES, source->size)) return;
  const uint8_t *at = source->base + offset;
  uint64_t bitmap = bytes_load_relaxed(at + NODE_SHAPE_AT);
  bytes_prefetch(at + NODE_HEADER_BYTES +
                 8 * (size_t)branch_index(bitmap, way));
}

/* Takes the step of one key through a branch of `level`; whether it goes on. */
static bool take_step(const struct node_source *source,
                      const struct hasher *hasher, unsigned level,
                      struct trie_lane *lane) {
  unsigned way = trie_way(hasher, &lane->key, level);
  lane->code = node_branch_find(source, slot_offset(lane->slot), level, way,
                                &lane->slot);
  if (lane->code != MMCMAP_OK) return false;
  if (slot_is_record(lane->slot) &&
      slot_tag(lane->slot) != slot_tag_of_hash(lane->key.primary)) {
    lane->code = MMCMAP_NOTFOUND;
    return false;
  }
  prefetch_node(source, lane->slot);
  return !slot_is_record(lane->slot);
}

/* Looks at the record that the walk has come to. */
static void take_record(const struct node_source *source,
                        struct trie_lane *lane) {
  if (lane->code != MMCMAP_OK) return;
  lane->code = node_record(source, slot_offset(lane->slot), &lane->record);
  if (lane->code == MMCMAP_OK &&
      !record_has_key(&lane->record, lane->key.data, lane->key.size))
    lane->code = MMCMAP_NOTFOUND;
}

void trie_lookup_many(const struct node_source *source,
                      const struct hasher *hasher, uint64_t root,
                      struct trie_lane *lanes, unsigned count) {
  CHECK(count <= TRIE_LANES);
  uint8_t walking[TRIE_LANES] = {0};
  unsigned walking_count = 0;
  for (unsigned i = 0; i < count; i++) {
    lanes[i].slot = root;
    lanes[i].code = root == SLOT_EMPTY ? MMCMAP_NOTFOUND : MMCMAP_OK;
    if (root == SLOT_EMPTY || slot_is_record(root)) continue;
    walking[walking_count++] = (uint8_t)i;
  }
  for (unsigned level = 0; walking_count > 0 && level < COLLISION_LEVEL;
       level++) {
    for (unsigned i = 0; i < walking_count; i++) {
      struct trie_lane *lane = &lanes[walking[i]];
      prefetch_slot(source, lane->slot, trie_way(hasher, &lane->key, level));
    }
    unsigned staying_count = 0;
    for (unsigned i = 0; i < walking_count; i++)
      if (take_step(source, hasher, level, &lanes[walking[i]]))
        walking[staying_count++] = walking[i];
    walking_count = staying_count;
  }
  /* Those that have come to a collision node: rare, and looked up anew. */
  for (unsigned i = 0; i < walking_count; i++) {
    struct trie_lane *lane = &lanes[walking[i]];
    lane->code = trie_lookup(source, hasher, root, &lane->key, &lane->record);
  }
  for (unsigned i = 0; i < count; i++)
    if (slot_is_record(lanes[i].slot)) take_record(source, &lanes[i]);
}

/* ---- Puts ----------------------------------------------------------------- */

/* Takes the step of one key from a branch of `level`; whether it goes on. */
static bool take_step_ahead(const struct node_source *source, unsigned level,
                            const struct trie_key *key, uint64_t *slot) {
  if (node_branch_find(source, slot_offset(*slot), level,
                       branch_way(key->primary, 0, level), slot) != MMCMAP_OK)
    return false;
  prefetch_node(source, *slot);
  return !slot_is_record(*slot);
}

void trie_look_ahead(const struct node_source *source, uint64_t root,
                     const struct trie_key *keys, unsigned count) {
  CHECK(count <= TRIE_LANES);
  uint64_t slots[TRIE_LANES];
  uint8_t walking[TRIE_LANES];
  unsigned walking_count = 0;
  if (root == SLOT_EMPTY || slot_is_record(root)) return;
  for (; walking_count < count; walking_count++) {
    slots[walking_count] = root;
    walking[walking_count] = (uint8_t)walking_count;
  }
  for (unsigned level = 0; walking_count > 0 && level < BRANCH_SECONDARY_LEVEL;
       level++) {
    for (unsigned i = 0; i < walking_count; i++)
      prefetch_slot(source, slots[walking[i]],
                    branch_way(keys[walking[i]].primary, 0, level));
    unsigned staying_count = 0;
    for (unsigned i = 0; i < walking_count; i++)
      if (take_step_ahead(source, level, &keys[walking[i]], &slots[walking[i]]))
        walking[staying_count++] = walking[i];
    walking_count = staying_count;
  }
}

/* ---- Hashes --------------------------------------------------------------- */

/* Takes one more step of a hash from a branch of `level`; whether it goes on. */
static bool take_lead(const struct node_source *source, unsigned level,
                      struct trie_lead *lead) {
  int code = node_branch_find(source, slot_offset(lead->slot), level,
                              branch_way(lead->primary, 0, level), &lead->slot);
  if (code == MMCMAP_NOTFOUND) lead->slot = SLOT_EMPTY;
  lead->is_known = code == MMCMAP_NOTFOUND ||
                   (code == MMCMAP_OK &&
                    (slot_is_record(lead->slot) || level + 1 == lead->level));
  if (code != MMCMAP_OK || lead->is_known) return false;
  prefetch_node(source, lead->slot);
  return true;
}

void trie_follow_many(const struct node_source *source, uint64_t root,
                      struct trie_lead *leads, unsigned count) {
  CHECK(count <= TRIE_LANES);
  uint8_t walking[TRIE_LANES];
  unsigned walking_count = 0;
  for (unsigned i = 0; i < count; i++) {
    leads[i].slot = root;
    leads[i].is_known =
        root == SLOT_EMPTY || slot_is_record(root) || leads[i].level == 0;
    if (!leads[i].is_known) walking[walking_count++] = (uint8_t)i;
  }
  for (unsigned level = 0; walking_count > 0 && level < BRANCH_SECONDARY_LEVEL;
       level++) {
    for (unsigned i = 0; i < walking_count; i++) {
      const struct trie_lead *lead = &leads[walking[i]];
      prefetch_slot(source, lead->slot, branch_way(lead->primary, 0, level));
    }
    unsigned staying_count = 0;
    for (unsigned i = 0; i < walking_count; i++)
      if (take_lead(source, level, &leads[walking[i]]))
        walking[staying_count++] = walking[i];
    walking_count = staying_count;
  }
}
