/* SPDX-License-Identifier: MIT */
/*
 * What differs between two snapshots.
 */
#include <stdlib.h>
#include <string.h>

#include "snapshot.h"
#include "trie/diff.h"

struct mmcmap_diff {
  uint32_t magic;
  mmcmap_snapshot *from, *to;
  struct trie_diff diff;
};

/* Enters both. If both are pinned one pin will do. */
static int enter_both(const mmcmap_diff *diff, struct share_row **row_out) {
  int code = snapshot_enter(diff->from, row_out);
  if (code != MMCMAP_OK) return code;
  struct share_row *row;
  code = snapshot_enter(diff->to, &row);
  if (code == MMCMAP_OK && *row_out == NULL)
    *row_out = row;
  else
    snapshot_leave(code == MMCMAP_OK ? row : *row_out);
  return code;
}

/* Whether a record that both have may have expired in one of them alone. It is a
   record of either: what is known of one of them is enough. */
static bool may_expire_between(const mmcmap_snapshot *a,
                               const mmcmap_snapshot *b) {
  uint64_t last_ms =
      a->now.now_ms > b->now.now_ms ? a->now.now_ms : b->now.now_ms;
  return a->now.now_ms != b->now.now_ms && a->earliest_ms <= last_ms &&
         b->earliest_ms <= last_ms;
}

int mmcmap_diff_open(mmcmap_snapshot *from, mmcmap_snapshot *to,
                     mmcmap_diff **diff_out) {
  struct share_row *row;
  *diff_out = NULL;
  mmcmap_diff *diff = malloc(sizeof *diff);
  if (diff == NULL) return error_set(MMCMAP_ENOMEM, "diff");
  diff->from = from;
  diff->to = to;
  int code = enter_both(diff, &row);
  if (code == MMCMAP_OK) {
    snapshot_leave(row);
    if (from->store != to->store)
      code = error_set(MMCMAP_EINVAL, "snapshots of two stores");
  }
  if (code != MMCMAP_OK) {
    free(diff);
    return code;
  }
  diff->magic = DIFF_MAGIC;
  /* A file cannot hold more nodes than fit into it, and each is met once on each
     side. */
  trie_diff_init(&diff->diff, from->root, to->root,
                 2 * (space_look(&from->store->space) / NODE_HEADER_BYTES));
  diff->diff.now_ms[0] = from->now.now_ms;
  diff->diff.now_ms[1] = to->now.now_ms;
  diff->diff.skips_same = !may_expire_between(from, to);
  *diff_out = diff;
  return MMCMAP_OK;
}

/* Takes the next change; if it returns MMCMAP_OK the caller leaves `row`. */
static int next_change(mmcmap_diff *diff, struct trie_change *change_out,
                       struct share_row **row_out) {
  CHECK(diff != NULL && diff->magic == DIFF_MAGIC);
  int code = enter_both(diff, row_out);
  if (code != MMCMAP_OK) return code;
  const struct store *store = diff->from->store;
  struct node_source source = space_source(&store->space);
  code = trie_diff_next(&diff->diff, &source, &store->hasher, change_out);
  if (code != MMCMAP_OK) snapshot_leave(*row_out);
  return code;
}

static void describe(const struct trie_change *found, mmcmap_change *change) {
  const struct record_view *any =
      found->has_new ? &found->new_record : &found->old_record;
  change->key = slice_of(any->key, any->key_size);
  change->has_old = found->has_old;
  change->has_new = found->has_new;
  change->old_value =
      slice_of(found->old_record.value, found->old_record.value_size);
  change->new_value =
      slice_of(found->new_record.value, found->new_record.value_size);
}

int mmcmap_diff_next(mmcmap_diff *diff, mmcmap_change *change_out) {
  struct share_row *row;
  struct trie_change found;
  memset(change_out, 0, sizeof *change_out);
  int code = next_change(diff, &found, &row);
  if (code != MMCMAP_OK) return code;
  describe(&found, change_out);
  snapshot_leave(row);
  return MMCMAP_OK;
}

/* Copies what `change` points at, and makes it point at the copy. */
static int copy_change(mmcmap_change *change, mmcmap_buffer *bytes) {
  mmcmap_slice *const parts[] = {&change->key, &change->old_value,
                                 &change->new_value};
  size_t size = 0;
  for (int i = 0; i < 3; i++)
    size += parts[i]->size;
  int code = handle_buffer_reserve(bytes, size);
  if (code != MMCMAP_OK) return code;
  uint8_t *at = bytes->data;
  for (int i = 0; i < 3; i++) {
    if (parts[i]->size > 0) memcpy(at, parts[i]->data, parts[i]->size);
    parts[i]->data = at;
    at += parts[i]->size;
  }
  bytes->size = size;
  return MMCMAP_OK;
}

int mmcmap_diff_read(mmcmap_diff *diff, mmcmap_buffer *bytes_out,
                     mmcmap_change *change_out) {
  struct share_row *row;
  struct trie_change found;
  memset(change_out, 0, sizeof *change_out);
  bytes_out->size = 0;
  int code = next_change(diff, &found, &row);
  if (code != MMCMAP_OK) return code;
  describe(&found, change_out);
  code = copy_change(change_out, bytes_out);
  snapshot_leave(row);
  if (code != MMCMAP_OK) memset(change_out, 0, sizeof *change_out);
  return code;
}

void mmcmap_diff_close(mmcmap_diff *diff) {
  if (diff == NULL) return;
  CHECK(diff->magic == DIFF_MAGIC);
  diff->magic = 0;
  free(diff);
}
