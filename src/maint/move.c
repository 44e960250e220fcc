/* SPDX-License-Identifier: MIT */
#include "maint/move.h"

#include <stddef.h>
#include <string.h>

#include "base/errors.h"

enum {
  EXTENT_MAP_ID_AT = 8,
  EXTENT_PRIMARY_AT = 16,
  COMPANIONS_MAX = 128,
  COMPANION_BYTES_MAX =
      256,                 /* a larger one takes more than copies of branches */
  SMALL_BRANCH_SLOTS = 16, /* so few hardly share the copy of one */
  COMPANION_LIVE_TENTHS = 8 /* of a segment, alive at most */
};

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

/* ---- Companions ----------------------------------------------------------- */

/* Nodes below a branch which is copied anyway. */
struct companions {
  uint64_t slots[COMPANIONS_MAX];
  unsigned count;
};

/* Of what hangs from the branch, that which is in segments so empty that they will
   soon be cleaned. */
static void add_slots(const struct log *log, const struct branch_view *branch,
                      struct companions *companions) {
  const struct space *space = log->space;
  int64_t most = space->segment_size / 10 * COMPANION_LIVE_TENTHS;
  if (branch->level == COLLISION_LEVEL) return;
  for (unsigned i = 0; i < branch->slot_count; i++) {
    uint64_t slot = branch_slot(branch, i);
    uint64_t number = slot_offset(slot) >> space->segment_shift;
    if (companions->count == COMPANIONS_MAX || number >= space->segment_count ||
        usage_live_bytes(usage_entry(space, number)) > most ||
        !usage_may_be_cleaned(log, number))
      continue;
    __builtin_prefetch(space->map.write + slot_offset(slot));
    companions->slots[companions->count++] = slot;
  }
}

/* The same of what hangs from the small branches below it, too. */
static void add_below(const struct trie *trie, const struct branch_view *branch,
                      struct companions *companions) {
  struct node_source source = trie_source(trie);
  add_slots(trie->log, branch, companions);
  if (branch->level >= BRANCH_SECONDARY_LEVEL) return;
  for (unsigned i = 0; i < branch->slot_count; i++) {
    uint64_t offset = slot_offset(branch_slot(branch, i));
    if (offset < source.size) __builtin_prefetch(source.base + offset);
  }
  for (unsigned i = 0; i < branch->slot_count; i++) {
    uint64_t slot = branch_slot(branch, i);
    struct branch_view child;
    if (!slot_is_record(slot) &&
        node_branch(&source, slot_offset(slot), branch->level + 1, &child) ==
            MMCMAP_OK &&
        child.slot_count < SMALL_BRANCH_SLOTS)
      add_slots(trie->log, &child, companions);
  }
}

/* By the first record: where they are long, or there are none, moving them together
   saves little. */
static bool are_worth_it(const struct trie *trie,
                         const struct companions *companions) {
  struct node_source source = trie_source(trie);
  struct record_view record;
  for (unsigned i = 0; i < companions->count; i++)
    if (slot_is_record(companions->slots[i]))
      return node_record(&source, slot_offset(companions->slots[i]), &record) ==
                 MMCMAP_OK &&
             record_size_of(&record) <= COMPANION_BYTES_MAX;
  return false;
}

/* For a node at the end of `path`, and the branch that it is, if it is one. */
static void find_companions(const struct trie *trie,
                            const struct trie_path *path,
                            const struct branch_view *branch,
                            struct companions *companions) {
  const struct log *log = trie->log;
  if (LIKELY(companions == NULL || !log_commits_often(log)) || path->depth == 0)
    return;
  /* What is left is for what frees space at once. */
  if (atomic_load(&log->header->upkeep.is_full) != 0 ||
      log->space->claim != SPACE_FOR_UPKEEP)
    return;
  const struct trie_step *step = &path->steps[path->depth - 1];
  if (step->epoch == log->epoch || log->victims.has_held ||
      log_is_compacting(log))
    return;
  if (step->branch.slot_count < SMALL_BRANCH_SLOTS && path->depth > 1 &&
      step[-1].epoch != log->epoch)
    step--;
  add_below(trie, &step->branch, companions);
  if (branch != NULL && branch->slot_count >= SMALL_BRANCH_SLOTS)
    add_slots(log, branch, companions);
  if (!are_worth_it(trie, companions)) companions->count = 0;
}

/* ---- Nodes ---------------------------------------------------------------- */

/* A mean of the last ones, with the pages of their own. */
static void note_size(struct share_upkeep *upkeep,
                      const struct record_view *record) {
  uint64_t before = upkeep->record_bytes;
  uint64_t size = record_size_of(record);
  if (record->is_large) size += extent_size(record->value_size);
  atomic_store_explicit(&upkeep->record_bytes,
                        before == 0 ? size : before - before / 16 + size / 16,
                        memory_order_relaxed);
}

/* If none has been moved yet: where branches are most of what is written, that takes
   its time. */
static void sample_size(const struct trie *trie,
                        const struct branch_view *branch) {
  struct share_upkeep *upkeep = &trie->log->header->upkeep;
  struct node_source source = trie_source(trie);
  struct record_view record;
  for (unsigned i = 0; i < branch->slot_count && upkeep->record_bytes == 0;
       i++) {
    uint64_t slot = branch_slot(branch, i);
    if (slot_is_record(slot) &&
        node_record(&source, slot_offset(slot), &record) == MMCMAP_OK)
      note_size(upkeep, &record);
  }
}

static int clean_record(const struct trie *trie,
                        const struct node_source *source, uint64_t offset,
                        struct companions *companions) {
  struct record_view record;
  struct trie_path path;
  /* It may be no record of ours: the trie decides. */
  if (node_record(source, offset, &record) != MMCMAP_OK) return MMCMAP_OK;
  struct trie_key key = trie_key_of(trie->hasher, record.key, record.key_size);
  int code = trie_find_path(trie, &key, &path);
  if (code != MMCMAP_OK) return code;
  if (path.ending != TRIE_ENDS_SAME || path.record.offset != offset ||
      (companions == NULL && record_size_of(&record) > COMPANION_BYTES_MAX))
    return MMCMAP_OK;
  if (companions != NULL) note_size(&trie->log->header->upkeep, &record);
  find_companions(trie, &path, NULL, companions);
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
                        const struct node_source *source, uint64_t offset,
                        struct companions *companions) {
  struct trie_path path;
  struct branch_view branch;
  bool found;
  if (!bytes_within(offset, NODE_HEADER_BYTES, source->size)) return MMCMAP_OK;
  unsigned level =
      node_meta_flags(bytes_load_relaxed(source->base + offset + NODE_META_AT));
  if (level > COLLISION_LEVEL ||
      node_branch(source, offset, level, &branch) != MMCMAP_OK)
    return MMCMAP_OK;
  struct branch_place place = branch_read_place(&branch);
  int code = trie_find_branch(trie, &place, offset, &path, &found);
  if (code != MMCMAP_OK || !found) return code;
  sample_size(trie, &branch);
  find_companions(trie, &path, &branch, companions);
  return move_branch(trie, &path, &branch);
}

static int clean_store(struct writer *writer, uint64_t offset) {
  bool is_moved;
  int code = catalog_move_store(&writer->catalog, offset, &is_moved);
  if (is_moved) writer->header->upkeep.moved_bytes += store_root_size(false);
  return code;
}

/* The trie is opened for each node: moving one may change the map's root. */
static int clean_node(struct writer *writer, const struct node_source *source,
                      uint32_t map_id, uint64_t offset, enum node_kind kind,
                      struct companions *companions) {
  struct catalog_map map;
  const struct trie *trie;
  int code =
      catalog_open_id(&writer->catalog, &writer->names, map_id, &map, &trie);
  if (code != MMCMAP_OK || trie == NULL) return code;
  return kind == NODE_RECORD ? clean_record(trie, source, offset, companions)
                             : clean_branch(trie, source, offset, companions);
}

int move_node(struct writer *writer, const struct node_source *source,
              uint64_t offset, enum node_kind kind) {
  struct companions companions;
  uint32_t map_id = bytes_u32(source->base + offset + NODE_MAP_ID_AT);
  if (kind == NODE_STORE) return clean_store(writer, offset);
  companions.count = 0; /* to clear them all would take as long as the rest */
  int code = clean_node(writer, source, map_id, offset, kind, &companions);
  if (code != MMCMAP_OK) return code;
  /* What happens to them is no business of this one's. */
  for (unsigned i = 0; code == MMCMAP_OK && i < companions.count; i++) {
    uint64_t slot = companions.slots[i];
    if (slot_offset(slot) == offset) continue;
    code = clean_node(writer, source, map_id, slot_offset(slot),
                      slot_is_record(slot) ? NODE_RECORD : NODE_BRANCH, NULL);
  }
  return MMCMAP_OK;
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
int move_large_value(struct writer *writer, const struct node_source *source,
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
