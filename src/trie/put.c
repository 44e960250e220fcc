/* SPDX-License-Identifier: MIT */
/*
 * Putting: the record is written first, then the branches that are needed,
 * all of it out of sight; one store makes it visible.
 */
#include "base/errors.h"
#include "base/testing.h"
#include "trie/trie.h"

/* A record that takes a greater part of a segment has pages of its own: what is
   left at the end of a segment is lost. */
enum { LARGE_PARTS = 6 };

/* Pages first, then the record that names them. */
static int write_large_record(const struct trie *trie,
                              const struct trie_key *key, const void *value,
                              struct record_parts *parts,
                              uint64_t *offset_out) {
  struct log *log = trie->log;
  uint64_t extent_offset;
  int code =
      log_alloc_large(log, extent_size(parts->value_size), &extent_offset);
  if (code != MMCMAP_OK) return code;
  parts->is_large = true;
  parts->extent_offset = extent_offset;
  parts->extent_checksum =
      extent_write(log_at(log, extent_offset), trie->map_id, key->primary,
                   value, parts->value_size, trie->hasher);
  code = log_alloc(log,
                   record_size(parts->key_size, parts->value_size, true,
                               parts->expires_ms != 0),
                   offset_out);
  if (code != MMCMAP_OK) return code;
  record_write(log_at(log, *offset_out), parts, trie->hasher);
  log_note_large(log);
  return MMCMAP_OK;
}

static struct record_parts parts_of(const struct trie *trie,
                                    const struct trie_key *key,
                                    const struct trie_value *value) {
  struct record_parts parts = {.map_id = trie->map_id,
                               .epoch = trie->log->epoch,
                               .key = key->data,
                               .value = value->data,
                               .key_size = (uint16_t)key->size,
                               .value_size = value->size,
                               .expires_ms = value->expires_ms,
                               .is_map = trie->map_id == MAP_ID_CATALOG};
  return parts;
}

static uint64_t small_size(const struct record_parts *parts) {
  return record_size(parts->key_size, parts->value_size, false,
                     parts->expires_ms != 0 && !parts->is_map);
}

static int write_record(const struct trie *trie, const struct trie_key *key,
                        const struct trie_value *value, uint64_t *slot_out) {
  struct log *log = trie->log;
  struct record_parts parts = parts_of(trie, key, value);
  uint64_t size = small_size(&parts);
  uint64_t offset = 0;
  int code = MMCMAP_OK;
  if (size > log->space->segment_size / LARGE_PARTS &&
      value->size > EXTENT_PAGE_BYTES && !parts.is_map) {
    code = write_large_record(trie, key, value->data, &parts, &offset);
  } else {
    if (recycler_take(&log->recycler, recycler_class_of_record(size),
                      &offset)) {
      trie_poison(trie, offset, size);
      log_revive(log, offset, size);
      log->recycler.reused_bytes += size;
    } else {
      code = log_alloc(log, size, &offset);
    }
    if (code == MMCMAP_OK && !BROKEN(BREAK_PUBLISH_EARLY))
      record_write(log_at(log, offset), &parts, trie->hasher);
  }
  *slot_out = slot_of_record(offset, key->primary);
  return code;
}

/* What BREAK_PUBLISH_EARLY left out of write_record(). */
static void write_record_late(const struct trie *trie,
                              const struct trie_key *key,
                              const struct trie_value *value, uint64_t slot) {
  struct record_parts parts = parts_of(trie, key, value);
  if (small_size(&parts) <= trie->log->space->segment_size / LARGE_PARTS)
    record_write(log_at(trie->log, slot_offset(slot)), &parts, trie->hasher);
}

/* A copy of the last branch of `path` with `slot` inserted. */
static int write_wider_branch(const struct trie *trie, struct trie_key *key,
                              const struct trie_step *step, uint64_t slot,
                              uint64_t *offset_out) {
  const struct branch_view *old = &step->branch;
  uint64_t bitmap = 0;
  if (old->level != COLLISION_LEVEL)
    bitmap = old->bitmap | UINT64_C(1)
                               << trie_way(trie->hasher, key, old->level);
  else if (old->slot_count == COLLISION_SLOTS_MAX)
    return error_set(MMCMAP_EFULL, "keys with the same hashes");
  int code =
      trie_alloc_branch(trie, old->slot_count + 1, old->level, offset_out);
  if (code != MMCMAP_OK) return code;
  uint8_t *at = log_at(trie->log, *offset_out);
  const uint8_t *slots = old->at + NODE_HEADER_BYTES;
  struct branch_place place = branch_read_place(old);
  branch_write_frame_of_slots(at, &place, trie->log->epoch, bitmap,
                              old->slot_count + 1);
  /* With a damaged lock file the two may overlap. */
  memmove(branch_slot_at(at, 0), slots, 8 * (size_t)step->index);
  bytes_set_u64(branch_slot_at(at, step->index), slot);
  memmove(branch_slot_at(at, step->index + 1), slots + 8 * (size_t)step->index,
          8 * (size_t)(old->slot_count - step->index));
  return MMCMAP_OK;
}

static int put_in_vacant_slot(const struct trie *trie, struct trie_key *key,
                              const struct trie_path *path, uint64_t slot) {
  const struct trie_step *step = &path->steps[path->depth - 1];
  uint64_t offset;
  int code = write_wider_branch(trie, key, step, slot, &offset);
  if (code == MMCMAP_OK)
    code = trie_publish(trie, path, path->depth - 1, slot_of_branch(offset), 1);
  if (code == MMCMAP_OK) trie_retire_branch(trie, &step->branch, step->epoch);
  return code;
}

/* Writes a branch of `level` on the way of `key` with these slots. */
static int write_branch(const struct trie *trie, struct trie_key *key,
                        unsigned level, uint64_t bitmap, const uint64_t *slots,
                        uint32_t slot_count, uint64_t *slot_out) {
  uint64_t offset;
  int code = trie_alloc_branch(trie, slot_count, level, &offset);
  if (code != MMCMAP_OK) return code;
  uint64_t secondary = level > BRANCH_SECONDARY_LEVEL
                           ? trie_key_secondary(trie->hasher, key)
                           : 0;
  struct branch_place place =
      branch_place_of(trie->map_id, level, key->primary, secondary);
  uint8_t *at = log_at(trie->log, offset);
  branch_write_frame_of_slots(at, &place, trie->log->epoch, bitmap, slot_count);
  for (uint32_t i = 0; i < slot_count; i++)
    bytes_set_u64(branch_slot_at(at, i), slots[i]);
  *slot_out = slot_of_branch(offset);
  return MMCMAP_OK;
}

/* The branch where two keys part, with both slots in their order. */
static int write_fork(const struct trie *trie, struct trie_key *key,
                      uint64_t slot, struct trie_key *other,
                      uint64_t other_slot, unsigned level, uint64_t *fork_out) {
  uint64_t bitmap = 0;
  bool key_first;
  if (level == COLLISION_LEVEL) {
    size_t common = key->size < other->size ? key->size : other->size;
    int order = common == 0 ? 0 : memcmp(key->data, other->data, common);
    key_first = order != 0 ? order < 0 : key->size < other->size;
  } else {
    unsigned way = trie_way(trie->hasher, key, level);
    unsigned other_way = trie_way(trie->hasher, other, level);
    bitmap = UINT64_C(1) << way | UINT64_C(1) << other_way;
    key_first = way < other_way;
  }
  uint64_t slots[2] = {key_first ? slot : other_slot,
                       key_first ? other_slot : slot};
  return write_branch(trie, key, level, bitmap, slots, 2, fork_out);
}

/* The path ends at another key's record: branches down to the level where the
   two keys part take its place. */
static int put_beside_other(const struct trie *trie, struct trie_key *key,
                            const struct trie_path *path, uint64_t slot) {
  struct trie_key other =
      trie_key_of(trie->hasher, path->record.key, path->record.key_size);
  unsigned level = path->depth;
  if (level > COLLISION_LEVEL)
    return error_set_corrupt("F35 collision order", path->record.offset);
  while (level < COLLISION_LEVEL && trie_way(trie->hasher, key, level) ==
                                        trie_way(trie->hasher, &other, level))
    level++;
  uint64_t child;
  int code = write_fork(trie, key, slot, &other, path->slot, level, &child);
  while (code == MMCMAP_OK && level > path->depth) {
    level--;
    code = write_branch(trie, key, level,
                        UINT64_C(1) << trie_way(trie->hasher, key, level),
                        &child, 1, &child);
  }
  if (code != MMCMAP_OK) return code;
  return trie_publish(trie, path, path->depth, child, 1);
}

int trie_put_at(const struct trie *trie, struct trie_key *key,
                const struct trie_path *path, const struct trie_value *value) {
  uint64_t slot;
  int code = write_record(trie, key, value, &slot);
  if (code != MMCMAP_OK) return code;
  switch (path->ending) {
    case TRIE_ENDS_EMPTY:
      code = trie_publish(trie, path, 0, slot, 1);
      break;
    case TRIE_ENDS_VACANT:
      code = put_in_vacant_slot(trie, key, path, slot);
      break;
    case TRIE_ENDS_OTHER:
      code = put_beside_other(trie, key, path, slot);
      break;
    case TRIE_ENDS_SAME:
      code = trie_publish(trie, path, path->depth, slot, 0);
      if (code == MMCMAP_OK) trie_retire_record(trie, &path->record);
      break;
  }
  if (BROKEN(BREAK_PUBLISH_EARLY)) write_record_late(trie, key, value, slot);
  return code;
}

int trie_put(const struct trie *trie, struct trie_key *key, const void *value,
             uint32_t value_size, bool *created_out) {
  CHECK(key->size <= MMCMAP_KEY_SIZE_MAX);
  *created_out = false;
  struct trie_path path;
  struct trie_value to_put = {.data = value, .size = value_size};
  int code = trie_find_path(trie, key, &path);
  if (code == MMCMAP_OK) code = trie_put_at(trie, key, &path, &to_put);
  *created_out = code == MMCMAP_OK && path.ending != TRIE_ENDS_SAME;
  return code;
}
