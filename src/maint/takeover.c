/* SPDX-License-Identifier: MIT */
/*
 * The same boot and the same inode do not tell whether a file system was
 * unmounted, or cut off, and mounted again with fewer of its bytes; the mount
 * id does, and so does a look at the bytes.
 */
#include "maint/takeover.h"

#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "format/frame.h"
#include "maint/recovery.h"
#include "os/file.h"
#include "os/process.h"
#include "share/owner_lock.h"

int takeover_identify(int fd, const uint8_t file_id[16], int lock_fd,
                      struct takeover_identity *identity_out) {
  struct file_identity identity;
  memset(identity_out, 0, sizeof *identity_out);
  int code = file_identify(fd, &identity);
  if (code != MMCMAP_OK) return code;
  identity_out->device = identity.device;
  identity_out->inode = identity.inode;
  code = file_identify(lock_fd, &identity);
  if (code != MMCMAP_OK) return code;
  identity_out->lock_device = identity.device;
  identity_out->lock_inode = identity.inode;
  memcpy(identity_out->file_id, file_id, sizeof identity_out->file_id);
  /* Where the system tells neither boot nor mount, nothing is taken over. That it
     cannot tell just now is another matter: what the dead have left would be lost. */
  code = process_boot_id(identity_out->boot_id);
  if (code == MMCMAP_OK) code = file_mount_id(fd, &identity_out->mount_id);
  return code == MMCMAP_ENOTSUP ? MMCMAP_OK : code;
}

void takeover_mark(struct share_header *header,
                   const struct takeover_identity *identity) {
  header->layout = SHARE_LAYOUT;
  memcpy(header->boot_id, identity->boot_id, sizeof header->boot_id);
  memcpy(header->file_id, identity->file_id, sizeof header->file_id);
  header->device = identity->device;
  header->inode = identity->inode;
  header->mount_id = identity->mount_id;
  header->lock_device = identity->lock_device;
  header->lock_inode = identity->lock_inode;
}

bool takeover_matches(const struct share_header *header,
                      const struct takeover_identity *identity) {
  return header->layout == SHARE_LAYOUT &&
         atomic_load(&header->state) == SHARE_READY &&
         header->device == identity->device &&
         header->inode == identity->inode &&
         header->lock_device == identity->lock_device &&
         header->lock_inode == identity->lock_inode &&
         memcmp(header->file_id, identity->file_id, sizeof header->file_id) ==
             0;
}

static bool nodes_are_there(const struct node_source *source,
                            const struct log *log, uint64_t frame_offset,
                            uint64_t end) {
  uint64_t offset = frame_offset + FRAME_HEADER_BYTES;
  /* A transaction that came to nothing may have left it, in an epoch of its own. */
  if (!frame_is_of(source->base + frame_offset, log->salt, log->first_epoch))
    return false;
  while (offset < end) {
    enum node_kind kind;
    uint64_t size;
    if (node_measure(source, offset, end, &kind, &size) != MMCMAP_OK)
      return false;
    offset += size;
  }
  return offset == end;
}

/* Whether the bytes of the open frames are nodes up to the cursors. */
static bool frame_is_there(const struct log *log) {
  struct node_source source = space_source(log->space);
  const struct log_branches *branches = &log->branches;
  return nodes_are_there(&source, log, log->frame_offset, log->cursor) &&
         (branches->frame_offset == 0 ||
          nodes_are_there(&source, log, branches->frame_offset,
                          branches->cursor));
}

/* Whether the frames that are closed but not durable lead to the open one, and
   recovery comes to one of them: to the first, or further, if a leader died when
   it had completed some. MMCMAP_ENOMEM. */
static int chain_is_there(const struct log *log,
                          const struct superblock *superblock,
                          const struct hasher *hasher, bool *there_out) {
  const struct share_header *header = log->header;
  const struct share_chain *chain =
      &header->chain[atomic_load(&header->commit.chain_index) & 1];
  struct node_source source = space_source(log->space);
  struct recovered recovered;
  *there_out = false;
  int code = recovery_roll_forward(&source, hasher, superblock, &recovered);
  if (code != MMCMAP_OK) return code == MMCMAP_ENOMEM ? code : MMCMAP_OK;
  uint64_t recovered_to = recovered.state.heads[HEAD_LOG].offset;
  recovered_forget(&recovered);
  bool meets = false;
  uint64_t left = source.size;
  for (uint64_t offset = chain->next_offset;;) {
    struct frame frame;
    meets = meets || offset == recovered_to;
    if (offset == log->frame_offset) {
      *there_out = meets;
      return MMCMAP_OK;
    }
    if (frame_read_closed(&source, offset, log->space->segment_size, log->salt,
                          &frame) != MMCMAP_OK ||
        frame.size_bytes > left)
      return MMCMAP_OK;
    left -= frame.size_bytes;
    offset = frame.next_offset;
  }
}

/* ---- Writing again ------------------------------------------------------- */

/* The frame's bytes, and the pages of its large values. */
static int add_frame(const struct node_source *source, uint64_t offset,
                     uint64_t end, struct recovered *ranges) {
  int code = recovered_add(ranges, offset, end - offset);
  struct record_view record;
  memset(&record, 0, sizeof record);
  for (uint64_t at = offset + FRAME_HEADER_BYTES;
       code == MMCMAP_OK && at < end;) {
    enum node_kind kind;
    uint64_t size;
    code = node_measure(source, at, end, &kind, &size);
    bool is_large =
        code == MMCMAP_OK && node_is_large_record(source->base + at);
    if (is_large) code = node_record(source, at, &record);
    if (code == MMCMAP_OK && is_large)
      code = recovered_add(ranges, record.extent_offset,
                           extent_size(record.value_size));
    at += size;
  }
  return code;
}

/* The frames of branches that are not closed for a commit: nothing in the chain
   leads to them yet. */
static int add_branch_frames(const struct log *log,
                             const struct node_source *source,
                             struct recovered *ranges) {
  const struct log_branches *branches = &log->branches;
  uint64_t offset = branches->first_offset;
  uint64_t left = source->size / FRAME_HEADER_BYTES;
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && offset != branches->frame_offset) {
    struct frame frame;
    if (left-- == 0)
      return error_set_corrupt("F15 frame salt and chain", offset);
    code = frame_read_closed(source, offset, log->space->segment_size,
                             log->salt, &frame);
    if (code != MMCMAP_OK) break;
    code = recovered_add(ranges, offset, frame.size_bytes);
    offset = frame.next_offset;
  }
  if (code == MMCMAP_OK && offset != 0)
    code = recovered_add(ranges, offset, branches->cursor - offset);
  return code;
}

int takeover_rewrite(const struct log *log, int fd,
                     uint64_t superblock_offset) {
  const struct share_header *header = log->header;
  struct node_source source = space_source(log->space);
  struct recovered ranges;
  memset(&ranges, 0, sizeof ranges);
  uint64_t offset =
      header->chain[atomic_load(&header->commit.chain_index) & 1].next_offset;
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && offset != log->frame_offset) {
    struct frame frame;
    code = frame_read_closed(&source, offset, log->space->segment_size,
                             log->salt, &frame);
    if (code != MMCMAP_OK) break;
    code = add_frame(&source, offset, offset + frame.size_bytes, &ranges);
    offset = frame.next_offset;
  }
  if (code == MMCMAP_OK)
    code = add_frame(&source, log->frame_offset, log->cursor, &ranges);
  if (code == MMCMAP_OK) code = add_branch_frames(log, &source, &ranges);
  if (code == MMCMAP_OK)
    code = recovery_rewrite(fd, &source, superblock_offset, &ranges);
  recovered_forget(&ranges);
  return code;
}

/* Whether the slot that the last change has stored is as it said. If somebody
   died with the writer lock, that may not have happened yet. */
static bool last_change_is_there(const struct log *log) {
  const struct share_header *header = log->header;
  uint64_t place = atomic_load(&header->change.intent_place);
  if (place == 0 || atomic_load(&header->writer_lock.word) != 0) return true;
  if (BROKEN(BREAK_TRUST_LAST_CHANGE)) return true;
  return place % 8 == 0 && bytes_within(place, 8, space_size(log->space)) &&
         bytes_load_acquire(log->space->map.read + place) ==
             atomic_load(&header->change.intent_slot);
}

/* Whether the superblock is the one that the lock file knows, or the next one,
   written by a leader that died before it said so: else one of the two files is
   an older copy. */
static bool is_of_this_time(const struct share_header *header,
                            const struct superblock *superblock) {
  uint64_t known = atomic_load(&header->commit.superblock) >> 2;
  return (superblock->flags & SUPERBLOCK_CLEAN) == 0 &&
         (superblock->sequence == known || superblock->sequence == known + 1) &&
         superblock->epoch <= atomic_load(&header->commit.durable_epoch);
}

int takeover_is_possible(struct log *log,
                         const struct takeover_identity *identity,
                         const struct superblock *superblock,
                         const struct hasher *hasher, bool *possible_out) {
  const struct share_header *header = log->header;
  *possible_out = false;
  if (memcmp(header->boot_id, identity->boot_id, sizeof header->boot_id) != 0)
    return MMCMAP_OK;
  if (BROKEN(BREAK_TRUST_BOOT)) {
    *possible_out = log_load(log) == MMCMAP_OK;
    return MMCMAP_OK;
  }
  if (identity->mount_id == 0 || header->mount_id != identity->mount_id ||
      atomic_load(&header->commit.failed) != 0 || log_load(log) != MMCMAP_OK ||
      !log_is_started(log) || superblock->salt != log->salt ||
      !is_of_this_time(header, superblock) || !frame_is_there(log) ||
      !last_change_is_there(log))
    return MMCMAP_OK;
  return chain_is_there(log, superblock, hasher, possible_out);
}

static void leave_to_heirs(struct share_lock *lock) {
  if (atomic_load(&lock->word) != 0) atomic_store(&lock->word, OWNER_LOCK_DEAD);
}

void takeover_bury_all(struct share *share) {
  struct share_header *header = share->header;
  /* What is durable stands in the chain; the word beside it is for others. */
  atomic_store(&header->commit.durable_epoch,
               header->chain[atomic_load(&header->commit.chain_index) & 1]
                   .durable_epoch);
  uint32_t count = atomic_load(&header->chunk_count);
  for (uint32_t i = 0; i < count; i++) {
    struct share_chunk *chunk = share_chunk(share, i);
    if (chunk == NULL) break;
    memset(chunk, 0, sizeof *chunk);
  }
  atomic_store(&header->chunk_count, 0);
  /* Or they would be waited for. */
  atomic_store(&header->upkeep.recounter, 0);
  atomic_store(&header->upkeep.compacting_ns, 0);
  leave_to_heirs(&header->writer_lock);
  leave_to_heirs(&header->growth_lock);
  leave_to_heirs(&header->commit.leader);
}
