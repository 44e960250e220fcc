/* SPDX-License-Identifier: MIT */
/*
 * Paths: finding where a key is or would be, and storing a slot there so that
 * readers see either all of a change or nothing of it.
 */
#include "base/errors.h"
#include "base/testing.h"
#include "trie/trie.h"

static int end_at_record(const struct node_source *source,
                         const struct trie_key *key, uint64_t slot,
                         struct trie_path *path) {
  path->slot = slot;
  int code = node_record(source, slot_offset(slot), &path->record);
  if (code != MMCMAP_OK) return code;
  path->ending = record_has_key(&path->record, key->data, key->size)
                     ? TRIE_ENDS_SAME
                     : TRIE_ENDS_OTHER;
  return MMCMAP_OK;
}

/* Chooses the slot of `step`, whose branch has been read; whether there is
   one. */
static int choose_slot(const struct trie *trie,
                       const struct node_source *source, struct trie_key *key,
                       struct trie_step *step, bool *found_out) {
  const struct branch_view *branch = &step->branch;
  if (branch->level == COLLISION_LEVEL)
    return trie_search_collision(source, branch, key, &step->index, found_out);
  unsigned way = trie_way(trie->hasher, key, branch->level);
  step->index = branch_index(branch->bitmap, way);
  *found_out = branch->bitmap >> way & 1;
  return MMCMAP_OK;
}

int trie_find_path(const struct trie *trie, struct trie_key *key,
                   struct trie_path *path_out) {
  struct node_source source = trie_source(trie);
  struct trie_path *path = path_out;
  path->depth = 0;
  uint64_t slot = atomic_load_explicit(trie->root, memory_order_relaxed);
  if (slot == SLOT_EMPTY) {
    path->ending = TRIE_ENDS_EMPTY;
    return MMCMAP_OK;
  }
  while (!slot_is_record(slot)) {
    if (path->depth > COLLISION_LEVEL)
      return error_set_corrupt("F34 collision slots", slot_offset(slot));
    struct trie_step *step = &path->steps[path->depth];
    int code =
        node_branch(&source, slot_offset(slot), path->depth, &step->branch);
    if (code != MMCMAP_OK) return code;
    step->epoch = node_epoch(step->branch.at);
    path->depth++;
    bool found;
    code = choose_slot(trie, &source, key, step, &found);
    if (code != MMCMAP_OK) return code;
    if (!found) {
      path->ending = TRIE_ENDS_VACANT;
      return MMCMAP_OK;
    }
    slot = branch_slot(&step->branch, step->index);
  }
  return end_at_record(&source, key, slot, path);
}

/* Follows a hash down to `level`, or to where it ends. */
static int follow_hash(const struct trie *trie, uint64_t primary,
                       uint64_t secondary, unsigned level,
                       struct trie_path *path, uint64_t *slot_out) {
  struct node_source source = trie_source(trie);
  uint64_t slot = atomic_load_explicit(trie->root, memory_order_relaxed);
  path->depth = 0;
  path->ending = TRIE_ENDS_VACANT;
  *slot_out = SLOT_EMPTY;
  while (slot != SLOT_EMPTY && !slot_is_record(slot) && path->depth < level) {
    struct trie_step *step = &path->steps[path->depth];
    int code =
        node_branch(&source, slot_offset(slot), path->depth, &step->branch);
    if (code != MMCMAP_OK) return code;
    unsigned way = branch_way(primary, secondary, path->depth);
    step->epoch = node_epoch(step->branch.at);
    step->index = branch_index(step->branch.bitmap, way);
    path->depth++;
    if ((step->branch.bitmap >> way & 1) == 0) return MMCMAP_OK;
    slot = branch_slot(&step->branch, step->index);
  }
  *slot_out = slot;
  return MMCMAP_OK;
}

int trie_find_branch(const struct trie *trie, const struct branch_place *place,
                     uint64_t offset, struct trie_path *path_out,
                     bool *found_out) {
  uint64_t slot;
  int code = follow_hash(trie, place->primary, place->secondary, place->level,
                         path_out, &slot);
  *found_out = code == MMCMAP_OK && path_out->depth == place->level &&
               slot == slot_of_branch(offset);
  return code;
}

int trie_find_hash(const struct trie *trie, uint64_t primary,
                   struct trie_path *path_out, bool *found_out) {
  struct node_source source = trie_source(trie);
  uint64_t slot;
  *found_out = false;
  int code =
      follow_hash(trie, primary, 0, BRANCH_SECONDARY_LEVEL, path_out, &slot);
  if (code != MMCMAP_OK || slot == SLOT_EMPTY || !slot_is_record(slot))
    return code;
  path_out->slot = slot;
  path_out->ending = TRIE_ENDS_SAME;
  code = node_record(&source, slot_offset(slot), &path_out->record);
  *found_out =
      code == MMCMAP_OK && hasher_primary(trie->hasher, path_out->record.key,
                                          path_out->record.key_size) == primary;
  return code;
}

/* Cuts a recycled branch in two. The rest gets its header first; the store that
   narrows the front then makes it visible to a scan of the frame. */
static bool cut_larger_branch(const struct trie *trie, uint32_t slot_count,
                              unsigned level, uint64_t *offset_out) {
  struct recycler *recycler = &trie->log->recycler;
  uint32_t rest;
  if (!recycler_take_larger_branch(recycler, slot_count, offset_out, &rest))
    return false;
  uint64_t rest_offset = *offset_out + branch_size(slot_count, level);
  trie_poison(trie, *offset_out,
              branch_size(slot_count, level) + branch_size(rest, level));
  struct branch_place place = {.map_id = trie->map_id, .level = level};
  branch_write_frame_of_slots(log_at(trie->log, rest_offset), &place,
                              trie->log->epoch, UINT64_MAX >> (64 - rest),
                              rest);
  bytes_store_release(log_at(trie->log, *offset_out) + NODE_SHAPE_AT,
                      UINT64_MAX >> (64 - slot_count));
  recycler_put_rest(recycler, rest, rest_offset);
  return true;
}

int trie_alloc_branch(const struct trie *trie, uint32_t slot_count,
                      unsigned level, uint64_t *offset_out) {
  struct recycler *recycler = &trie->log->recycler;
  uint64_t size = branch_size(slot_count, level);
  if (level < BRANCH_TRAILER_LEVEL) {
    bool is_whole = recycler_take(
        recycler, recycler_class_of_branch(slot_count), offset_out);
    if (is_whole) trie_poison(trie, *offset_out, size);
    if (is_whole || cut_larger_branch(trie, slot_count, level, offset_out)) {
      log_revive(trie->log, *offset_out, size);
      recycler->reused_bytes += size;
      return MMCMAP_OK;
    }
  }
  return log_alloc_branch(trie->log, size, offset_out);
}

int trie_copy_branch(const struct trie *trie, const struct branch_view *branch,
                     uint64_t *offset_out) {
  int code =
      trie_alloc_branch(trie, branch->slot_count, branch->level, offset_out);
  if (code != MMCMAP_OK) return code;
  uint8_t *at = log_at(trie->log, *offset_out);
  struct branch_place place = branch_read_place(branch);
  branch_write_frame_of_slots(at, &place, trie->log->epoch, branch->bitmap,
                              branch->slot_count);
  memmove(branch_slot_at(at, 0), branch->at + NODE_HEADER_BYTES,
          8 * (size_t)branch->slot_count);
  return MMCMAP_OK;
}

/* Copies a sealed branch into the open epoch, one slot replaced. */
static int copy_branch(const struct trie *trie, const struct trie_step *step,
                       uint64_t slot, uint64_t *offset_out) {
  int code = trie_copy_branch(trie, &step->branch, offset_out);
  if (code == MMCMAP_OK)
    bytes_set_u64(branch_slot_at(log_at(trie->log, *offset_out), step->index),
                  slot);
  return code;
}

/* In a draft nobody else sees it, and nothing has to be left to an heir. */
int trie_store(const struct trie *trie, uint64_t place, uint64_t slot,
               uint64_t count) {
  bool is_draft = trie->draft != NULL;
  int code =
      is_draft ? MMCMAP_OK
               : log_announce(trie->log, place, slot, count, trie->count_place);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  TEST_POINT(is_draft ? "draft" : "publish");
  if (place == 0)
    atomic_store_explicit(trie->top, slot, memory_order_release);
  else
    bytes_store_release(log_at(trie->log, place), slot);
  TEST_POINT(is_draft ? "drafted" : "published");
  if (is_draft) trie->log->pages_size = 0; /* what it had is linked */
  if (LIKELY(trie->count_place == TRIE_COUNT_IN_CELL))
    atomic_store_explicit(trie->count, count, memory_order_release);
  else if (trie->count_place != TRIE_COUNT_NOWHERE)
    bytes_store_release(log_at(trie->log, trie->count_place), count);
  return MMCMAP_OK;
}

int trie_publish_root(const struct trie *trie, uint64_t slot, uint64_t count) {
  if (LIKELY(trie->hang == NULL)) return trie_store(trie, 0, slot, count);
  return trie->hang(trie, slot, count);
}

int trie_publish(const struct trie *trie, const struct trie_path *path,
                 unsigned depth, uint64_t slot, int count_change) {
  uint64_t count = atomic_load_explicit(trie->count, memory_order_relaxed) +
                   (uint64_t)(int64_t)count_change;
  uint64_t place = 0;
  unsigned top = depth;
  while (top > 0) {
    const struct trie_step *step = &path->steps[top - 1];
    if (step->epoch == trie->log->epoch || BROKEN(BREAK_WRITE_SEALED)) {
      place =
          step->branch.offset + NODE_HEADER_BYTES + 8 * (uint64_t)step->index;
      break;
    }
    uint64_t offset;
    int code = copy_branch(trie, step, slot, &offset);
    if (code != MMCMAP_OK) return code;
    slot = slot_of_branch(offset);
    top--;
  }
  int code = place != 0 ? trie_store(trie, place, slot, count)
                        : trie_publish_root(trie, slot, count);
  if (code != MMCMAP_OK) return code;
  for (unsigned i = top; i < depth; i++)
    trie_retire_branch(trie, &path->steps[i].branch, path->steps[i].epoch);
  return MMCMAP_OK;
}

/* ---- Retiring ------------------------------------------------------------ */

/* Keeps a node of no commit to be used again; of a draft at once. */
static void recycle(const struct trie *trie, int class, uint64_t offset,
                    uint64_t epoch) {
  struct log *log = trie->log;
  if (trie->draft != NULL)
    recycler_put_unseen(&log->recycler, class, offset);
  else
    recycler_put(&log->recycler, class, offset,
                 epoch == log->epoch ? 0 : log->epoch);
}

/* It is not alive any more. */
static void lower(const struct trie *trie, uint64_t offset, uint64_t size) {
  if (trie->draft != NULL)
    log_lower_private(trie->log, offset, size);
  else
    usage_lower(trie->log, trie->log->space, offset, size);
}

void trie_retire_branch(const struct trie *trie,
                        const struct branch_view *branch, uint64_t epoch) {
  if (trie->draft != NULL && epoch != trie->log->epoch) {
    trie_draft_add(trie->draft, branch->at, branch->offset);
    return;
  }
  lower(trie, branch->offset, branch_size(branch->slot_count, branch->level));
  if (epoch < trie->log->first_epoch || branch->level >= BRANCH_TRAILER_LEVEL)
    return;
  recycle(trie, recycler_class_of_branch(branch->slot_count), branch->offset,
          epoch);
}

void trie_retire_record(const struct trie *trie,
                        const struct record_view *record) {
  struct log *log = trie->log;
  if (trie->draft != NULL && record->epoch != log->epoch) {
    trie_draft_add(trie->draft, record->at, record->offset);
    return;
  }
  uint64_t size = record_size_of(record);
  lower(trie, record->offset, size);
  if (record->is_large)
    usage_lower_pages(log, log->space, record->extent_offset,
                      extent_size(record->value_size));
  if (record->epoch < log->first_epoch || record->is_large) return;
  recycle(trie, recycler_class_of_record(size), record->offset, record->epoch);
}

void trie_retire_store(const struct trie *trie,
                       const struct store_view *store) {
  if (trie->draft != NULL && store->epoch != trie->log->epoch)
    trie_draft_add(trie->draft, store->at, store->offset);
  else
    lower(trie, store->offset, store_root_size(store->has_snapshots));
}
