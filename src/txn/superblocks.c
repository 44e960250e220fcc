/* SPDX-License-Identifier: MIT */
/*
 * Writing in turn: a torn write can only spoil the older superblock.
 */
#include "txn/superblocks.h"

#include "base/check.h"
#include "base/testing.h"
#include "os/file.h"

int superblocks_write(struct superblocks *superblocks,
                      const struct superblock *next) {
  CHECK(superblocks->is_synced);
  struct superblock superblock = *next;
  superblock.sequence = superblocks->current.sequence + 1;
  uint8_t page[SUPERBLOCK_BYTES];
  superblock_encode(&superblock, page);
  unsigned place = 1 - superblocks->place;
  if (BROKEN(BREAK_SAME_SUPERBLOCK)) place = 0;
  TEST_POINT("superblock");
  int code =
      file_write(superblocks->fd, page, sizeof page, superblocks_offset(place));
  if (code != 0) return code;
  superblocks->current = superblock;
  superblocks->place = place;
  superblocks->is_synced = false;
  return code;
}
