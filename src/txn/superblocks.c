/* SPDX-License-Identifier: MIT */
/*
 * Writing in turn: a torn write can only spoil the older superblock.
 */
#include "txn/superblocks.h"

#include "base/check.h"
#include "base/testing.h"
#include "os/file.h"

int superblocks_write(struct superblocks *blocks,
                      const struct superblock *next) {
  CHECK(superblocks_are_synced(blocks));
  struct superblock superblock = *next;
  superblock.sequence = superblocks_sequence(blocks) + 1;
  uint8_t page[SUPERBLOCK_BYTES];
  superblock_encode(&superblock, page);
  unsigned place = 1 - superblocks_place(blocks);
  if (BROKEN(BREAK_SAME_SUPERBLOCK)) place = 0;
  TEST_POINT("superblock");
  int code =
      file_write(blocks->fd, page, sizeof page, superblocks_offset(place));
  if (code == 0) superblocks_set(blocks, superblock.sequence, place, false);
  return code;
}
