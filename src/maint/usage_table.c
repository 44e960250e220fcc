/* SPDX-License-Identifier: MIT */
/*
 * It is not part of any segment: the next session writes over it.
 */
#include "maint/usage_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "maint/recount.h"
#include "os/file.h"

/* Segments that are recounted while the store is opened: it takes less time than
   to begin a thread for it. */
enum { RECOUNT_AT_ONCE_MAX = 4 };

const uint8_t *usage_table_find(const struct node_source *source,
                                const struct hasher *hasher,
                                const struct superblock *state) {
  uint64_t size = state->usage_count * USAGE_ENTRY_BYTES;
  if ((state->flags & SUPERBLOCK_CLEAN) == 0 || state->usage_offset == 0 ||
      state->usage_count != state->segment_count ||
      !bytes_within(state->usage_offset, size, source->size))
    return NULL;
  const uint8_t *table = source->base + state->usage_offset;
  return hasher_checksum(hasher, table, (size_t)size) == state->usage_checksum
             ? table
             : NULL;
}

int usage_table_install(struct space *space, const struct node_source *source,
                        const struct hasher *hasher,
                        const struct superblock *state) {
  int code = usage_ensure(space);
  if (code != MMCMAP_OK) return code;
  const uint8_t *table = usage_table_find(source, hasher, state);
  if (table != NULL) {
    usage_decode(space, table);
    for (int i = 0; i < SUPERBLOCK_HEADS; i++)
      usage_claim(space, &state->heads[i]);
  } else {
    usage_install_uncounted(space, state->root == SLOT_EMPTY);
  }
  /* What is damaged stays uncounted. */
  if (table == NULL && space->segment_count <= RECOUNT_AT_ONCE_MAX)
    (void)recount_at_once(space, state->root);
  return MMCMAP_OK;
}

void usage_table_write(struct log *log, struct usage_table *table_out) {
  struct space *space = log->space;
  struct usage_totals totals;
  struct usage_table table = {0};
  usage_sweep(log, &totals);
  space->segment_count = usage_segment_count(space);
  log_store(log);
  table.file_end = bytes_align_up(usage_end(log), 8);
  *table_out = table;
  /* A map that was dropped is counted still; what saved snapshots hold is not. */
  if ((log->header->upkeep.dropped_records > 0 && !BROKEN(BREAK_FORGET_MAP)) ||
      log->header->upkeep.saved_newest != 0)
    return;
  size_t size = (size_t)space->segment_count * USAGE_ENTRY_BYTES;
  uint8_t *bytes = malloc(size);
  if (bytes == NULL) return;
  usage_encode(space, bytes);
  table.offset = table.file_end;
  table.file_end += size;
  table.count = space->segment_count;
  table.checksum = hasher_checksum(log->hasher, bytes, size);
  if (file_write(space->fd, bytes, size, table.offset) == MMCMAP_OK)
    *table_out = table;
  free(bytes);
}
