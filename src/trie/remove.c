/* SPDX-License-Identifier: MIT */
/*
 * Removing, so that the form stays canonical: a branch that would be left with
 * one record gives way to that record, and so does every branch above that led
 * to nothing else.
 */
#include "base/errors.h"
#include "trie/trie.h"

/* A copy of the last branch without the slot that the path took. */
static int write_narrower_branch(const struct trie *trie,
                                 const struct trie_step *step,
                                 uint64_t *offset_out) {
  const struct branch_view *old = &step->branch;
  uint64_t bitmap = old->bitmap;
  if (old->level != COLLISION_LEVEL) {
    /* The index-th bit that is set is the one to go. */
    uint64_t bits = bitmap;
    for (unsigned i = 0; i < step->index; i++)
      bits &= bits - 1;
    bitmap &= ~(bits & -bits);
  }
  int code =
      trie_alloc_branch(trie, old->slot_count - 1, old->level, offset_out);
  if (code != MMCMAP_OK) return code;
  uint8_t *at = log_at(trie->log, *offset_out);
  const uint8_t *slots = old->at + NODE_HEADER_BYTES;
  struct branch_place place = branch_read_place(old);
  branch_write_frame_of_slots(at, &place, trie->log->epoch, bitmap,
                              old->slot_count - 1);
  memmove(branch_slot_at(at, 0), slots,
          8 * (size_t)step->index); /* as in put.c */
  memmove(branch_slot_at(at, step->index),
          slots + 8 * (size_t)(step->index + 1),
          8 * (size_t)(old->slot_count - 1 - step->index));
  return MMCMAP_OK;
}

/* Publishes `slot`, a record or nothing, in place of the branches from `depth`
   down, and of those above that led only there. */
static int fold(const struct trie *trie, const struct trie_path *path,
                uint64_t slot) {
  unsigned depth = path->depth - 1;
  while (depth > 0 && path->steps[depth - 1].branch.slot_count == 1)
    depth--;
  int code = trie_publish(trie, path, depth, slot, -1);
  if (code != MMCMAP_OK) return code;
  for (unsigned i = depth; i < path->depth; i++)
    trie_retire_branch(trie, &path->steps[i].branch, path->steps[i].epoch);
  return MMCMAP_OK;
}

int trie_remove_at(const struct trie *trie, const struct trie_path *path) {
  int code;
  if (path->ending != TRIE_ENDS_SAME) return MMCMAP_NOTFOUND;
  if (path->depth == 0) {
    code = trie_publish(trie, path, 0, SLOT_EMPTY, -1);
  } else {
    const struct trie_step *step = &path->steps[path->depth - 1];
    uint32_t slot_count = step->branch.slot_count;
    if (slot_count == 1)
      return error_set_corrupt("F26 branch with one record",
                               step->branch.offset);
    uint64_t sibling =
        slot_count == 2 ? branch_slot(&step->branch, 1 - step->index) : 0;
    if (slot_count == 2 && slot_is_record(sibling)) {
      code = fold(trie, path, sibling);
    } else {
      uint64_t offset;
      code = write_narrower_branch(trie, step, &offset);
      if (code == MMCMAP_OK)
        code = trie_publish(trie, path, path->depth - 1, slot_of_branch(offset),
                            -1);
      if (code == MMCMAP_OK)
        trie_retire_branch(trie, &step->branch, step->epoch);
    }
  }
  if (code == MMCMAP_OK) trie_retire_record(trie, &path->record);
  return code;
}

int trie_remove(const struct trie *trie, struct trie_key *key) {
  struct trie_path path;
  int code = trie_find_path(trie, key, &path);
  return code == MMCMAP_OK ? trie_remove_at(trie, &path) : code;
}
