/* SPDX-License-Identifier: MIT */
/*
 * Whatever a scan meets is looked up before it is believed: bytes that are no
 * node of the trie, whatever they look like, are dead.
 */
#include "maint/cleaner.h"

#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "format/frame.h"
#include "format/segment.h"

enum { FRAME_SIZE_AT = 64, EXTENT_MAP_ID_AT = 8, EXTENT_PRIMARY_AT = 16 };

/* ---- Moving --------------------------------------------------------------- */

/* The node at the end of `path`, or of its first `depth` steps, has a copy at
   `slot`: that takes its place. */
static int replace(const struct trie *trie, const struct trie_path *path,
                   unsigned depth, uint64_t slot, uint64_t size) {
  int code = trie_publish(trie, path, depth, slot, 0);
  if (code == MMCMAP_OK) trie->log->header->upkeep.moved_bytes += size;
  return code;
}

static int move_record(const struct trie *trie, const struct trie_key *key,
                       const struct trie_path *path) {
  const struct record_view *record = &path->record;
  struct log *log = trie->log;
  uint64_t size = record_size_of(record);
  uint64_t offset;
  int code = log_alloc(log, size, &offset);
  if (code != MMCMAP_OK) return code;
  memmove(log_at(log, offset), record->at, (size_t)size);
  if (record->is_large) log_note_large(log);
  code = replace(trie, path, path->depth, slot_of_record(offset, key->primary),
                 size);
  if (code == MMCMAP_OK) usage_lower(log, log->space, record->offset, size);
  return code;
}

static int clean_record(const struct trie *trie,
                        const struct node_source *source, uint64_t offset) {
  struct record_view record;
  struct trie_path path;
  /* It may be no record of ours: the trie decides. */
  if (node_record(source, offset, &record) != MMCMAP_OK) return MMCMAP_OK;
  struct trie_key key = trie_key_of(trie->hasher, record.key, record.key_size);
  int code = trie_find_path(trie, &key, &path);
  if (code != MMCMAP_OK) return code;
  if (path.ending != TRIE_ENDS_SAME || path.record.offset != offset)
    return MMCMAP_OK;
  return move_record(trie, &key, &path);
}

static int move_branch(const struct trie *trie, const struct trie_path *path,
                       const struct branch_view *branch) {
  uint64_t offset;
  int code = trie_copy_branch(trie, branch, &offset);
  if (code != MMCMAP_OK) return code;
  uint64_t size = branch_size(branch->slot_count, branch->level);
  code = replace(trie, path, path->depth, slot_of_branch(offset), size);
  if (code == MMCMAP_OK)
    usage_lower(trie->log, trie->log->space, branch->offset, size);
  return code;
}

static int clean_branch(const struct trie *trie,
                        const struct node_source *source, uint64_t offset) {
  struct trie_path path;
  struct branch_view branch;
  bool found;
  unsigned level =
      node_meta_flags(bytes_load_relaxed(source->base + offset + NODE_META_AT));
  if (level > COLLISION_LEVEL ||
      node_branch(source, offset, level, &branch) != MMCMAP_OK)
    return MMCMAP_OK;
  struct branch_place place = branch_read_place(&branch);
  int code = trie_find_branch(trie, &place, offset, &path, &found);
  return code == MMCMAP_OK && found ? move_branch(trie, &path, &branch) : code;
}

static int clean_store(struct writer *writer, uint64_t offset) {
  bool is_moved;
  int code = catalog_move_store(&writer->catalog, offset, &is_moved);
  if (is_moved) writer->header->upkeep.moved_bytes += store_root_size(false);
  return code;
}

static int clean_node(struct writer *writer, const struct node_source *source,
                      uint64_t offset, enum node_kind kind) {
  struct catalog_map map;
  const struct trie *trie;
  uint32_t map_id = bytes_u32(source->base + offset + NODE_MAP_ID_AT);
  if (kind == NODE_STORE) return clean_store(writer, offset);
  int code =
      catalog_open_id(&writer->catalog, &writer->names, map_id, &map, &trie);
  if (code != MMCMAP_OK || trie == NULL) return code;
  return kind == NODE_RECORD ? clean_record(trie, source, offset)
                             : clean_branch(trie, source, offset);
}

/* ---- Large values ---------------------------------------------------------- */

/* Writes the value to other pages, and a record that names them. */
static int move_large(const struct trie *trie, uint64_t primary,
                      const struct trie_path *path) {
  const struct record_view *record = &path->record;
  struct log *log = trie->log;
  struct record_parts parts = {.map_id = trie->map_id,
                               .epoch = record->epoch,
                               .key = record->key,
                               .key_size = record->key_size,
                               .value_size = record->value_size,
                               .is_large = true,
                               .expires_ms = record->expires_ms,
                               .extent_checksum = record->extent_checksum};
  uint64_t pages = extent_size(record->value_size);
  uint64_t size = record_size_of(record);
  uint64_t offset;
  int code = log_alloc_large(log, pages, &parts.extent_offset);
  if (code == MMCMAP_OK) code = log_alloc(log, size, &offset);
  if (code != MMCMAP_OK) return code;
  memmove(log_at(log, parts.extent_offset),
          log->space->map.read + record->extent_offset, (size_t)pages);
  record_write(log_at(log, offset), &parts, trie->hasher);
  log_note_large(log);
  code = replace(trie, path, path->depth, slot_of_record(offset, primary),
                 size + pages);
  if (code == MMCMAP_OK) {
    usage_lower(log, log->space, record->offset, size);
    usage_lower_pages(log, log->space, record->extent_offset, pages);
  }
  return code;
}

/* The pages at `offset` may begin a large value: its header tells whose. */
static int clean_page(struct writer *writer, const struct node_source *source,
                      uint64_t offset) {
  const uint8_t *at = source->base + offset;
  struct catalog_map map;
  const struct trie *trie;
  struct trie_path path;
  bool found;
  if (bytes_u64(at) != EXTENT_MAGIC) return MMCMAP_OK;
  int code = catalog_open_id(&writer->catalog, &writer->names,
                             bytes_u32(at + EXTENT_MAP_ID_AT), &map, &trie);
  if (code != MMCMAP_OK || trie == NULL) return code;
  uint64_t primary = bytes_u64(at + EXTENT_PRIMARY_AT);
  code = trie_find_hash(trie, primary, &path, &found);
  if (code != MMCMAP_OK || !found || !path.record.is_large ||
      path.record.extent_offset != offset)
    return code;
  return move_large(trie, primary, &path);
}

static int clean_pages(struct writer *writer, uint64_t segment_end,
                       uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  struct node_source source = space_source(writer->log.space);
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && *limit > 0 &&
         upkeep->victim_offset < segment_end) {
    uint64_t moved = upkeep->moved_bytes;
    if (bytes_within(upkeep->victim_offset, EXTENT_PAGE_BYTES, source.size))
      code = clean_page(writer, &source, upkeep->victim_offset);
    upkeep->victim_offset += EXTENT_PAGE_BYTES;
    moved = upkeep->moved_bytes - moved + 64;
    *limit -= moved < *limit ? moved : *limit;
  }
  return code;
}

/* ---- Frames ---------------------------------------------------------------- */

/* The end of the frame at `offset`; 0 if there is none. */
static uint64_t frame_end(const struct node_source *source, uint64_t offset,
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

/* Nodes that follow each other in a frame, and what is known of them. */
struct batch {
  struct {
    uint64_t offset;
    uint64_t size;
    enum node_kind kind;
    bool is_dead;
  } nodes[TRIE_LANES];
  unsigned count;
  bool is_broken; /* what follows is no node */
};

static void gather(const struct node_source *source, uint64_t offset,
                   uint64_t end, uint64_t limit, struct batch *batch_out) {
  struct batch *batch = batch_out;
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

/* Where the trie would have the node; whether that can be told from it alone. */
static bool lead_to(const struct trie *trie, const struct node_source *source,
                    uint64_t offset, enum node_kind kind,
                    struct trie_lead *lead_out) {
  struct record_view record;
  struct branch_view branch;
  if (bytes_u32(source->base + offset + NODE_MAP_ID_AT) != trie->map_id)
    return false;
  lead_out->level = COLLISION_LEVEL;
  if (kind == NODE_RECORD) {
    if (node_record(source, offset, &record) != MMCMAP_OK) return false;
    lead_out->primary =
        hasher_primary(trie->hasher, record.key, record.key_size);
    return true;
  }
  unsigned level =
      node_meta_flags(bytes_load_relaxed(source->base + offset + NODE_META_AT));
  if (kind != NODE_BRANCH || level >= BRANCH_SECONDARY_LEVEL ||
      node_branch(source, offset, level, &branch) != MMCMAP_OK)
    return false;
  lead_out->level = level;
  lead_out->primary = branch_read_place(&branch).primary;
  return true;
}

/* Finds out which nodes are dead, all at once: what is dead stays so. And the
   way to the others is in the caches then. */
static int find_dead(struct writer *writer, const struct node_source *source,
                     struct batch *batch) {
  struct trie_lead leads[TRIE_LANES];
  uint8_t nodes[TRIE_LANES];
  unsigned count = 0;
  struct catalog_map map;
  const struct trie *trie;
  if (batch->count == 0) return MMCMAP_OK;
  uint32_t map_id =
      bytes_u32(source->base + batch->nodes[0].offset + NODE_MAP_ID_AT);
  int code =
      catalog_open_id(&writer->catalog, &writer->names, map_id, &map, &trie);
  if (code != MMCMAP_OK || trie == NULL) return code;
  for (unsigned i = 0; i < batch->count; i++)
    if (lead_to(trie, source, batch->nodes[i].offset, batch->nodes[i].kind,
                &leads[count]))
      nodes[count++] = (uint8_t)i;
  trie_follow_many(source,
                   atomic_load_explicit(trie->root, memory_order_relaxed),
                   leads, count);
  for (unsigned i = 0; i < count; i++)
    batch->nodes[nodes[i]].is_dead =
        leads[i].is_known &&
        (leads[i].slot == SLOT_EMPTY ||
         slot_offset(leads[i].slot) != batch->nodes[nodes[i]].offset);
  return MMCMAP_OK;
}

static int clean_batch(struct writer *writer, const struct node_source *source,
                       const struct batch *batch, uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  for (unsigned i = 0; i < batch->count; i++) {
    uint64_t size = batch->nodes[i].size;
    int code = batch->nodes[i].is_dead
                   ? MMCMAP_OK
                   : clean_node(writer, source, batch->nodes[i].offset,
                                batch->nodes[i].kind);
    if (code != MMCMAP_OK) return code;
    upkeep->victim_offset = batch->nodes[i].offset + size;
    *limit -= size < *limit ? size : *limit;
  }
  return MMCMAP_OK;
}

/* Goes on in the victim's frames; `segment_end` is where they end at the
   latest. */
static int clean_frames(struct writer *writer, uint64_t segment_end,
                        uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  struct node_source source = space_source(writer->log.space);
  struct batch batch;
  source.base = writer->log.space->map.write;
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && *limit > 0 &&
         upkeep->victim_offset < segment_end) {
    uint64_t at = upkeep->victim_offset;
    if (at >= upkeep->victim_frame_end) {
      uint64_t end = segment_end - at < FRAME_HEADER_BYTES
                         ? 0
                         : frame_end(&source, at, segment_end);
      upkeep->victim_frame_end = end;
      upkeep->victim_offset = end == 0 ? segment_end : at + FRAME_HEADER_BYTES;
      continue;
    }
    gather(&source, at, upkeep->victim_frame_end, *limit, &batch);
    code = find_dead(writer, &source, &batch);
    if (code == MMCMAP_OK) code = clean_batch(writer, &source, &batch, limit);
    if (code == MMCMAP_OK && batch.is_broken)
      upkeep->victim_offset = segment_end;
  }
  return code;
}

/* ---- Victims --------------------------------------------------------------- */

/* Whether cleaning a segment gains enough: less than this many of 64 parts are
   alive in it. */
enum {
  WORTH_PARTS = 61,
  WORTH_PARTS_COMPACTING = 63,
  WORTH_PARTS_FULL = 54 /* when what is written has to be found first */
};

static uint64_t worth_parts(const struct writer *writer) {
  const struct share_upkeep *upkeep = &writer->header->upkeep;
  if (atomic_load(&upkeep->is_full) != 0) return WORTH_PARTS_FULL;
  return log_is_compacting(&writer->log) ? WORTH_PARTS_COMPACTING : WORTH_PARTS;
}

/* The last one, if it can be moved down, so that the file ends earlier: it takes
   what is in it, and copies of branches. */
static bool find_last(const struct log *log, struct usage_victim *victim_out) {
  uint64_t lower, more, behind = log_behind_all(log);
  if (!usage_find_last(log, behind, victim_out) ||
      !usage_find_free(log->space, 0, victim_out->run, &lower))
    return false;
  if (behind != 0) return lower < victim_out->number;
  uint64_t end = lower + victim_out->run;
  return usage_find_free(log->space, end, 1, &more) &&
         more < victim_out->number;
}

static bool choose_victim(struct writer *writer) {
  struct log *log = &writer->log;
  struct share_upkeep *upkeep = &log->header->upkeep;
  const struct space *space = log->space;
  struct usage_victim victim;
  int64_t worth = (int64_t)(space->segment_size / 64 * worth_parts(writer));
  bool last_first =
      upkeep->is_sparse != 0 ||
      (atomic_load(&log->slide.was_one) && log_is_compacting(log));
  bool slides = usage_find_next(log, &victim);
  if (!slides && !(last_first && find_last(log, &victim))) {
    if (!usage_find_victim(log, worth, &victim) && !find_last(log, &victim))
      return false;
  }
  upkeep->victim = victim.number + 1;
  upkeep->victim_run = victim.run;
  upkeep->victim_frame_end = 0;
  upkeep->victim_offset =
      usage_is(usage_entry(space, victim.number), SHARE_SEGMENT_LOG)
          ? segment_header_offset(victim.number, space->segment_size) +
                SEGMENT_HEADER_BYTES
          : victim.number << space->segment_shift;
  return true;
}

/* The victim is left, all of it having been looked at, or not being readable.
   What is still counted was counted too high by somebody who died, or could not
   be read. */
static void finish_victim(struct writer *writer) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  uint64_t number = upkeep->victim - 1;
  for (uint64_t i = number; i < number + upkeep->victim_run; i++) {
    struct share_segment *entry = usage_entry(writer->log.space, i);
    if (!usage_is(entry, SHARE_SEGMENT_EMPTY) &&
        !usage_is(entry, SHARE_SEGMENT_FREE))
      atomic_fetch_or(&entry->state, SHARE_SEGMENT_STUCK);
  }
  upkeep->cleaned_count += upkeep->victim_run;
  upkeep->victim = 0;
}

/* Whether the victim that the lock file names is one: it may have become empty
   by itself, and anybody may have written those words. */
static bool victim_is_good(const struct writer *writer) {
  const struct share_upkeep *upkeep = &writer->header->upkeep;
  const struct space *space = writer->log.space;
  uint64_t number = upkeep->victim - 1, run = upkeep->victim_run;
  if (upkeep->victim == 0 || number >= space->segment_count || run == 0 ||
      run > space->segment_count - number)
    return false;
  uint64_t begin = number << space->segment_shift;
  uint64_t end = (number + run) << space->segment_shift;
  if (upkeep->victim_offset < begin || upkeep->victim_offset > end ||
      upkeep->victim_offset % 8 != 0 || upkeep->victim_frame_end > end ||
      upkeep->victim_frame_end > space->writable_bytes)
    return false;
  for (uint64_t i = number; i < number + run; i++)
    if (usage_may_be_cleaned(&writer->log, i)) return true;
  return false;
}

/* The first of several may be empty by now. */
static bool has_pages(const struct writer *writer) {
  const struct share_upkeep *upkeep = &writer->header->upkeep;
  for (uint64_t i = 0; i < upkeep->victim_run; i++)
    if (usage_is(usage_entry(writer->log.space, upkeep->victim - 1 + i),
                 SHARE_SEGMENT_LARGE))
      return true;
  return false;
}

static int go_on(struct writer *writer, uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  const struct space *space = writer->log.space;
  uint64_t number = upkeep->victim - 1;
  uint64_t end = (number + upkeep->victim_run) << space->segment_shift;
  int code = has_pages(writer) ? clean_pages(writer, end, limit)
                               : clean_frames(writer, end, limit);
  TEST_POINT("cleaned");
  /* Damage is for check to find; the segment stays as it is. */
  if (code == MMCMAP_OK ? upkeep->victim_offset >= end
                        : code == MMCMAP_ECORRUPT)
    finish_victim(writer);
  return code == MMCMAP_ECORRUPT ? MMCMAP_OK : code;
}

static int clean(struct writer *writer, uint64_t limit_bytes, bool *found_out) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  uint64_t limit = limit_bytes;
  int code = MMCMAP_OK;
  *found_out = true;
  while (limit > 0 && code == MMCMAP_OK) {
    if (!victim_is_good(writer)) upkeep->victim = 0;
    if (upkeep->victim == 0 && !choose_victim(writer)) {
      *found_out = limit < limit_bytes;
      return MMCMAP_OK;
    }
    code = go_on(writer, &limit);
  }
  return code;
}

int cleaner_clean(struct writer *writer, uint64_t limit_bytes,
                  bool *found_out) {
  writer->log.is_moving = true;
  int code = clean(writer, limit_bytes, found_out);
  writer->log.is_moving = false;
  return code;
}
