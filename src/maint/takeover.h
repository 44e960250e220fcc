/* SPDX-License-Identifier: MIT */
/*
 * Takeover: after the death of all processes, but not of the machine, the pages
 * of the data file are still those that the last one left, and the lock file
 * tells the live state: nothing is lost. Here is what has to be true before the
 * lock file is believed; if it is not, ordinary recovery runs.
 */
#ifndef MAINT_TAKEOVER_H
#define MAINT_TAKEOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "format/superblock.h"
#include "share/layout.h"
#include "space/log.h"

/* What a lock file belongs to. */
struct takeover_identity {
  uint8_t boot_id[16];
  uint8_t file_id[16];
  uint64_t device;
  uint64_t inode;
  uint64_t mount_id; /* 0: not known; then nothing is taken over */
  uint64_t lock_device;
  uint64_t lock_inode;
};

/* Of the data file `fd` with that file id, and the lock file `lock_fd`, now.
   MMCMAP_ENOMEM, MMCMAP_ESYSTEM (mostly no descriptor is left): it cannot be told. */
int takeover_identify(int fd, const uint8_t file_id[16], int lock_fd,
                      struct takeover_identity *identity_out);

/* Writes it into a header that has been reset, or compares: whether the header
   is one of ours, is ready, and is that file's. The boot and the mount are
   looked at by takeover_is_possible() alone. */
void takeover_mark(struct share_header *header,
                   const struct takeover_identity *identity);
bool takeover_matches(const struct share_header *header,
                      const struct takeover_identity *identity);

/*
 * Whether the live state that a matching header tells belongs to the bytes of
 * the data file: same boot and mount; no failed commit; `superblock`, the
 * newest in the file, of the same session, which has not been closed, and not
 * younger than the lock file knows; recovery comes from it to what the lock file
 * says is durable, or on to what is complete behind; every frame that is not
 * there, one leading to the next up to the open one, and that one full of nodes
 * up to its cursor; the slot that the last change has stored. Brings the log's
 * working copy up to date. MMCMAP_ENOMEM: it is not known.
 */
int takeover_is_possible(struct log *log,
                         const struct takeover_identity *identity,
                         const struct superblock *superblock,
                         const struct hasher *hasher, bool *possible_out);

/*
 * Writes what is not durable once more, and the newest superblock, at
 * `superblock_offset`: whoever died in a sync has told nobody whether it failed,
 * and pages that it dropped would stand in the page cache alone.
 */
int takeover_rewrite(const struct log *log, int fd, uint64_t superblock_offset);

/* Everybody is dead: empties the reader table and leaves the locks to be
   inherited by whoever comes first. */
void takeover_bury_all(struct share *share);

#endif
