/* SPDX-License-Identifier: MIT */
/*
 * What a transaction has unlinked is retired when it is published, and
 * forgotten if it is not. A whole trie is kept as its root alone, and walked
 * then.
 */
#include <stdlib.h>

#include "base/errors.h"
#include "trie/trie.h"

/* An item for a whole trie: no node begins at offset 0. */
enum { WHOLE_TRIE_OFFSET = 0 };

static void add(struct trie_draft *draft, const struct trie_unlinked *item) {
  if (draft->count == draft->capacity) {
    size_t capacity = draft->capacity == 0 ? 64 : 2 * draft->capacity;
    struct trie_unlinked *items =
        realloc(draft->items, capacity * sizeof *items);
    if (items == NULL) return;
    draft->items = items;
    draft->capacity = capacity;
  }
  draft->items[draft->count++] = *item;
}

void trie_draft_add(struct trie_draft *draft, const uint8_t *at,
                    uint64_t offset) {
  struct trie_unlinked item = {.offset = offset,
                               .meta = bytes_load_relaxed(at + NODE_META_AT),
                               .shape = bytes_load_relaxed(at + NODE_SHAPE_AT)};
  add(draft, &item);
}

void trie_draft_add_all(struct trie_draft *draft, uint64_t root) {
  struct trie_unlinked item = {.offset = WHOLE_TRIE_OFFSET, .shape = root};
  if (root != SLOT_EMPTY) add(draft, &item);
}

void trie_draft_free(struct trie_draft *draft) {
  free(draft->items);
  memset(draft, 0, sizeof *draft);
}

/* ---- Retiring ------------------------------------------------------------ */

static void retire_record(const struct trie *trie,
                          const struct node_source *source, uint64_t offset) {
  struct record_view record;
  if (node_record(source, offset, &record) == MMCMAP_OK)
    trie_retire_record(trie, &record);
}

/* Of the nodes under a root that nothing leads to any more, all that can be
   read; a file has no more nodes than fit into it. */
static void retire_trie(const struct trie *trie,
                        const struct node_source *source, uint64_t root) {
  struct trie_cursor_step steps[COLLISION_LEVEL + 1];
  unsigned depth = 0;
  uint64_t slot = root, left = source->size / NODE_HEADER_BYTES;
  for (;;) {
    if (slot_is_record(slot)) {
      retire_record(trie, source, slot_offset(slot));
    } else if (depth <= COLLISION_LEVEL &&
               node_branch(source, slot_offset(slot), depth,
                           &steps[depth].branch) == MMCMAP_OK) {
      steps[depth++].next = 0;
    }
    while (depth > 0 &&
           steps[depth - 1].next == steps[depth - 1].branch.slot_count) {
      const struct branch_view *branch = &steps[--depth].branch;
      trie_retire_branch(trie, branch, node_epoch(branch->at));
    }
    if (depth == 0 || left-- == 0) return;
    slot = branch_slot(&steps[depth - 1].branch, steps[depth - 1].next++);
  }
}

static void retire_item(const struct trie *trie,
                        const struct node_source *source,
                        const struct trie_unlinked *item) {
  struct branch_view branch = {.at = source->base + item->offset,
                               .offset = item->offset,
                               .level = node_meta_flags(item->meta)};
  if (item->offset == WHOLE_TRIE_OFFSET) {
    retire_trie(trie, source, item->shape);
  } else if (node_meta_kind(item->meta) == NODE_RECORD) {
    retire_record(trie, source, item->offset);
  } else if (node_meta_kind(item->meta) == NODE_STORE) {
    struct store_view store = {.at = branch.at,
                               .offset = item->offset,
                               .epoch = node_meta_epoch(item->meta)};
    trie_retire_store(trie, &store);
  } else {
    bool is_collision = node_meta_kind(item->meta) == NODE_COLLISION;
    branch.bitmap = is_collision ? 0 : item->shape;
    branch.slot_count =
        is_collision ? (uint32_t)item->shape : bits_count(item->shape);
    trie_retire_branch(trie, &branch, node_meta_epoch(item->meta));
  }
}

void trie_retire_draft(const struct trie *trie, struct trie_draft *draft) {
  struct node_source source = space_source(trie->log->space);
  CHECK(trie->draft == NULL);
  for (size_t i = 0; i < draft->count; i++)
    retire_item(trie, &source, &draft->items[i]);
  draft->count = 0;
}
