/* SPDX-License-Identifier: MIT */
#include "maint/scan.h"

#include "base/bytes.h"
#include "base/errors.h"
#include "base/testing.h"
#include "format/frame.h"

enum { FRAME_SIZE_AT = 64 };

uint64_t scan_frame_end(const struct node_source *source, uint64_t offset,
                        uint64_t segment_end) {
  if (!bytes_within(offset, FRAME_HEADER_BYTES, source->size)) return 0;
  const uint8_t *at = source->base + offset;
  uint64_t size = bytes_u64(at + FRAME_SIZE_AT);
  if (node_meta_kind(bytes_load_relaxed(at + NODE_META_AT)) != FRAME_KIND ||
      size < FRAME_HEADER_BYTES || size % 8 != 0 ||
      size > segment_end - offset || !bytes_within(offset, size, source->size))
    return 0;
  return offset + size;
}

void scan_gather(const struct node_source *source, uint64_t offset,
                 uint64_t end, uint64_t limit, struct scan_batch *batch_out) {
  struct scan_batch *batch = batch_out;
  uint64_t first = offset;
  batch->count = 0;
  batch->is_broken = false;
  while (offset < end && offset - first < limit && batch->count < TRIE_LANES) {
    enum node_kind kind;
    uint64_t size;
    batch->is_broken =
        node_measure(source, offset, end, &kind, &size) != MMCMAP_OK;
    if (batch->is_broken) return;
    batch->nodes[batch->count].offset = offset;
    batch->nodes[batch->count].size = size;
    batch->nodes[batch->count].is_dead = false;
    batch->nodes[batch->count++].kind = kind;
    offset += size;
  }
}

/* Where the trie of a map would have the node; whether that can be told from it
   alone. What a dead record had pages of its own for may be cut off the file at any
   moment, unless one has the writer lock. */
static bool lead_to(const struct hasher *hasher, uint32_t map_id,
                    const struct node_source *source, uint64_t offset,
                    enum node_kind kind, struct trie_lead *lead_out) {
  struct record_view record;
  struct branch_view branch;
  if (bytes_u32(source->base + offset + NODE_MAP_ID_AT) != map_id) return false;
  lead_out->level = COLLISION_LEVEL;
  uint64_t meta = bytes_load_relaxed(source->base + offset + NODE_META_AT);
  if (kind == NODE_RECORD) {
    if ((node_meta_flags(meta) & RECORD_LARGE) != 0 &&
        !BROKEN(BREAK_AHEAD_LARGE))
      return false;
    if (node_record(source, offset, &record) != MMCMAP_OK) return false;
    lead_out->primary = hasher_primary(hasher, record.key, record.key_size);
    return true;
  }
  unsigned level = node_meta_flags(meta);
  if (kind != NODE_BRANCH || level >= BRANCH_SECONDARY_LEVEL ||
      node_branch(source, offset, level, &branch) != MMCMAP_OK)
    return false;
  lead_out->level = level;
  lead_out->primary = branch_read_place(&branch).primary;
  return true;
}

void scan_find_dead(const struct hasher *hasher, uint32_t map_id, uint64_t root,
                    const struct node_source *source,
                    struct scan_batch *batch) {
  struct trie_lead leads[TRIE_LANES];
  uint8_t nodes[TRIE_LANES];
  unsigned count = 0;
  for (unsigned i = 0; i < batch->count; i++)
    if (lead_to(hasher, map_id, source, batch->nodes[i].offset,
                batch->nodes[i].kind, &leads[count]))
      nodes[count++] = (uint8_t)i;
  trie_follow_many(source, root, leads, count);
  for (unsigned i = 0; i < count; i++)
    batch->nodes[nodes[i]].is_dead =
        leads[i].is_known &&
        (leads[i].slot == SLOT_EMPTY ||
         slot_offset(leads[i].slot) != batch->nodes[nodes[i]].offset);
}
