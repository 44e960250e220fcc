/* SPDX-License-Identifier: MIT */
/*
 * A superblock: one page that says what the file is and where recovery
 * starts. There are two places for it, written in turn, so that a torn write
 * of one leaves the other. Valid if and only if magic, version, byte order
 * and checksum fit and every field is within its bounds; the valid one with
 * the higher sequence counts.
 */
#ifndef FORMAT_SUPERBLOCK_H
#define FORMAT_SUPERBLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"

enum {
  SUPERBLOCK_BYTES = 4096,
  SUPERBLOCK_COUNT = 2,
  SUPERBLOCK_FORMAT_VERSION = 1,
  SUPERBLOCK_FILE_ID_BYTES = 16,
  SUPERBLOCK_HEADS = 4,
  SUPERBLOCK_CLEAN = 1 /* flag: the store was closed properly */
};

/* Not on adjacent pages. */
#define SUPERBLOCK_A_OFFSET UINT64_C(0)
#define SUPERBLOCK_B_OFFSET UINT64_C(8192)

/* Which head is whose: heads[HEAD_LOG] is where the frame after `epoch`
   begins, heads[HEAD_LARGE] where the next large value may go, and
   heads[HEAD_BRANCH] where the next frame of branches may begin. The last one is
   0 in this version. */
enum { HEAD_LOG = 0, HEAD_LARGE = 1, HEAD_BRANCH = 2 };

struct superblock_head {
  uint64_t offset;
  uint64_t limit; /* end of the space that the head has */
};

struct superblock {
  uint8_t file_id[SUPERBLOCK_FILE_ID_BYTES];
  uint64_t salt;
  uint32_t segment_size;
  int hash; /* enum mmcmap_hash_kind */
  uint8_t secret[HASH_SECRET_BYTES];
  uint64_t sequence;
  uint32_t flags;
  uint64_t epoch; /* the newest epoch in it that was changed and durable */
  uint64_t root;  /* slot of the default map's root */
  uint64_t count; /* records in the default map */
  uint64_t content_epoch; /* of the last change that was not the cleaner's */
  uint64_t chain;         /* checksum of the last frame of `epoch` */
  uint64_t next_epoch;    /* no frame younger than this epoch exists yet */
  uint64_t segment_count; /* segments begun */
  uint64_t used_bytes;    /* the file is at least this long */
  uint64_t usage_offset;  /* of the usage table; 0: usage is unknown */
  uint64_t usage_count;
  uint64_t usage_checksum;
  struct superblock_head heads[SUPERBLOCK_HEADS];
};

void superblock_encode(const struct superblock *superblock,
                       uint8_t page_out[SUPERBLOCK_BYTES]);

/*
 * Checks a page and decodes it. `offset` is where it was read, for messages.
 * MMCMAP_EFORMAT: no superblock of ours; MMCMAP_EVERSION: one of another
 * version, or with features that must be known (readers may go on with unknown
 * `readonly_compat` features, writers not); MMCMAP_ECORRUPT.
 */
int superblock_decode(const uint8_t page[SUPERBLOCK_BYTES], uint64_t offset,
                      bool readonly, struct superblock *superblock_out);

#endif
