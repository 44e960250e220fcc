/* SPDX-License-Identifier: MIT */
/*
 * A commit is accepted when all frames of its epoch fit: salt, chain, checksum,
 * and the pages of every large value that they name. What comes after the
 * last accepted commit is not looked at again.
 */
#include "maint/recovery.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "format/frame.h"
#include "format/segment.h"
#include "os/file.h"

/* After an unclean end there may have been epochs that were seen but not
   committed: their numbers are never given again, so that equal versions mean
   equal content. */
#define RECOVERY_EPOCH_SKIP (UINT64_C(1) << 28)

static int read_superblock(int fd, uint64_t offset, bool readonly,
                           struct superblock *superblock_out) {
  uint8_t page[SUPERBLOCK_BYTES];
  size_t got;
  memset(page, 0, sizeof page);
  int code = file_read(fd, page, sizeof page, offset, &got);
  if (code != MMCMAP_OK) return code;
  return superblock_decode(page, offset, readonly, superblock_out);
}

/* It may be the newer one. */
static bool was_not_read(int code) {
  return code == MMCMAP_EIO || code == MMCMAP_ENOMEM || code == MMCMAP_ESYSTEM;
}

int recovery_choose_superblock(int fd, uint64_t file_size, bool readonly,
                               struct superblock *superblock_out,
                               unsigned *place_out) {
  struct superblock found[SUPERBLOCK_COUNT];
  memset(superblock_out, 0, sizeof *superblock_out);
  *place_out = 0;
  int a = read_superblock(fd, SUPERBLOCK_A_OFFSET, readonly, &found[0]);
  if (was_not_read(a)) return a;
  int b = read_superblock(fd, SUPERBLOCK_B_OFFSET, readonly, &found[1]);
  if (was_not_read(b)) return b;
  /* It may be the newer one, of a later version of the library. */
  if (a == MMCMAP_EVERSION || b == MMCMAP_EVERSION) return MMCMAP_EVERSION;
  if (a != MMCMAP_OK && b != MMCMAP_OK)
    return a == MMCMAP_EFORMAT && b == MMCMAP_EFORMAT
               ? error_set(MMCMAP_EFORMAT, "F1 magic")
               : error_set_corrupt("F4 both superblocks", 0);
  unsigned place = a != MMCMAP_OK ? 1 : 0;
  if (a == MMCMAP_OK && b == MMCMAP_OK && found[1].sequence > found[0].sequence)
    place = 1;
  if (found[place].used_bytes > file_size)
    return error_set_corrupt("F10 file shorter than used", file_size);
  *superblock_out = found[place];
  *place_out = place;
  return MMCMAP_OK;
}

int recovered_add(struct recovered *recovered, uint64_t offset, uint64_t size) {
  if (recovered->range_count == recovered->range_capacity) {
    size_t capacity =
        recovered->range_capacity == 0 ? 64 : recovered->range_capacity * 2;
    struct recovered_range *ranges =
        realloc(recovered->ranges, capacity * sizeof *ranges);
    if (ranges == NULL) return error_set(MMCMAP_ENOMEM, "recovery");
    recovered->ranges = ranges;
    recovered->range_capacity = capacity;
  }
  struct recovered_range *range = &recovered->ranges[recovered->range_count++];
  range->offset = offset;
  range->size = size;
  return MMCMAP_OK;
}

/* The file has the segment that `offset` lies in. */
static void take_segment(struct superblock *state, uint64_t offset) {
  uint64_t number = offset / state->segment_size;
  if (state->segment_count <= number) state->segment_count = number + 1;
}

/* Takes the segment that a frame at `offset` lies in. If it is the first one
   there, the segment was begun with it: the header was written with the commit,
   and may be missing like anything of it. MMCMAP_ECORRUPT: it is. */
static int take_log_segment(const struct node_source *source, uint64_t offset,
                            struct superblock *state,
                            struct recovered *recovered) {
  uint64_t number = offset / state->segment_size;
  uint64_t at = segment_header_offset(number, state->segment_size);
  struct segment_header header;
  if (offset > source->size)
    return error_set_corrupt("F14 frame beyond the file", offset);
  take_segment(state, offset);
  if (offset != at + SEGMENT_HEADER_BYTES) return MMCMAP_OK;
  if (!bytes_within(at, SEGMENT_HEADER_BYTES, source->size))
    return error_set_corrupt("F12 segment checksum", at);
  int code =
      segment_decode(source->base + at, number, state->file_id, at, &header);
  if (code == MMCMAP_OK && header.kind != SEGMENT_LOG)
    code = error_set_corrupt("F13 segment header", at);
  if (code == MMCMAP_OK)
    code = recovered_add(recovered, at, SEGMENT_HEADER_BYTES);
  return code;
}

/* Verifies the large values of a frame, and notes where they are and how far
   they reach. MMCMAP_ECORRUPT: one does not fit. */
static int take_large_values(const struct node_source *source,
                             const struct hasher *hasher, uint64_t offset,
                             const struct frame *frame,
                             struct superblock *state,
                             struct recovered *recovered) {
  uint64_t at = offset + FRAME_HEADER_BYTES;
  uint64_t end = offset + frame->size_bytes;
  while (at < end) {
    enum node_kind kind;
    uint64_t size;
    struct record_view record;
    int code = node_measure(source, at, end, &kind, &size);
    bool is_large =
        code == MMCMAP_OK && node_is_large_record(source->base + at);
    if (is_large) code = node_record(source, at, &record);
    if (code != MMCMAP_OK) return code;
    at += size;
    if (!is_large) continue;
    if (!BROKEN(BREAK_TRUST_LARGE_VALUES))
      code = record_verify(source, &record, hasher);
    uint64_t extent_bytes = extent_size(record.value_size);
    if (code == MMCMAP_OK)
      code = recovered_add(recovered, record.extent_offset, extent_bytes);
    if (code != MMCMAP_OK) return code;
    uint64_t extent_end = record.extent_offset + extent_bytes;
    take_segment(state, extent_end - 1);
    if (extent_end > state->used_bytes) state->used_bytes = extent_end;
    /* What is left of its run is not known. */
    state->heads[HEAD_LARGE].offset = state->heads[HEAD_LARGE].limit = 0;
  }
  return MMCMAP_OK;
}

/* Where the log goes on after `frame`. */
static int follow(const struct node_source *source, uint64_t offset,
                  const struct frame *frame, struct superblock *state,
                  struct recovered *recovered) {
  uint64_t next = frame->next_offset;
  uint64_t segment_size = state->segment_size;
  if (next % 8 != 0 || next < SEGMENT_FIRST_HEADER_OFFSET ||
      next > SLOT_OFFSET_LIMIT - segment_size ||
      segment_size - next % segment_size < FRAME_HEADER_BYTES)
    return error_set_corrupt("F18 frame flags and next", offset);
  state->heads[HEAD_LOG].offset = next;
  state->heads[HEAD_LOG].limit = (next / segment_size + 1) * segment_size;
  return take_log_segment(source, next, state, recovered);
}

/* Takes the commit that begins at the head of `state`. MMCMAP_ECORRUPT if there
   is none: nothing is changed then. */
static int take_commit(const struct node_source *source,
                       const struct hasher *hasher, struct superblock *state,
                       struct recovered *recovered) {
  struct superblock next = *state;
  size_t ranges_before = recovered->range_count;
  uint64_t epoch = 0;
  struct frame frame;
  int code;
  do {
    uint64_t offset = next.heads[HEAD_LOG].offset;
    code = frame_read(source, offset, next.segment_size, next.salt, next.chain,
                      hasher, &frame, &next.chain);
    if (code != MMCMAP_OK) break;
    /* All frames of a commit have its epoch; earlier writers let them rise. */
    if (frame.epoch < epoch || frame.epoch < state->next_epoch)
      code = error_set_corrupt("F15 frame salt and chain", offset);
    epoch = frame.epoch;
    if (code == MMCMAP_OK && (frame.flags & FRAME_HAS_LARGE) != 0)
      code =
          take_large_values(source, hasher, offset, &frame, &next, recovered);
    if (code == MMCMAP_OK)
      code = recovered_add(recovered, offset, frame.size_bytes);
    if (next.used_bytes < offset + frame.size_bytes)
      next.used_bytes = offset + frame.size_bytes;
    if (code == MMCMAP_OK)
      code = follow(source, offset, &frame, &next, recovered);
  } while (code == MMCMAP_OK && (frame.flags & FRAME_ENDS_COMMIT) == 0);
  if (code != MMCMAP_OK) {
    recovered->range_count = ranges_before;
    return code;
  }
  /* It may have gone on, in frames that are not told from others. */
  next.heads[HEAD_BRANCH].offset = next.heads[HEAD_BRANCH].limit = 0;
  next.epoch = epoch;
  next.next_epoch = epoch + 1;
  next.root = frame.root;
  next.count = frame.count;
  next.content_epoch = frame.content_epoch;
  *state = next;
  return MMCMAP_OK;
}

int recovery_roll_forward(const struct node_source *source,
                          const struct hasher *hasher,
                          const struct superblock *superblock,
                          struct recovered *recovered_out) {
  memset(recovered_out, 0, sizeof *recovered_out);
  struct superblock state = *superblock;
  int code = MMCMAP_OK;
  recovered_out->was_clean = (state.flags & SUPERBLOCK_CLEAN) != 0;
  if (!recovered_out->was_clean) {
    while (code == MMCMAP_OK) {
      code = take_commit(source, hasher, &state, recovered_out);
      if (code == MMCMAP_OK) recovered_out->commits++;
    }
    if (!BROKEN(BREAK_REUSE_EPOCHS)) state.next_epoch += RECOVERY_EPOCH_SKIP;
  }
  for (int i = 0; i < SUPERBLOCK_HEADS; i++)
    if (state.heads[i].offset > state.used_bytes)
      state.used_bytes = state.heads[i].offset;
  recovered_out->state = state;
  if (code != MMCMAP_ENOMEM) return MMCMAP_OK;
  recovered_forget(recovered_out);
  return code;
}

/* By way of a buffer: the source is a mapping of the same pages. */
static int rewrite_range(int fd, const struct node_source *source,
                         const struct recovered_range *range) {
  uint8_t buffer[16384];
  int code = MMCMAP_OK;
  for (uint64_t done = 0; done < range->size && code == MMCMAP_OK;) {
    uint64_t size = range->size - done;
    if (size > sizeof buffer) size = sizeof buffer;
    memcpy(buffer, source->base + range->offset + done, size);
    code = file_write(fd, buffer, size, range->offset + done);
    done += size;
  }
  return code;
}

int recovery_rewrite(int fd, const struct node_source *source,
                     uint64_t superblock_offset,
                     const struct recovered *recovered) {
  if (BROKEN(BREAK_NO_REWRITE)) return MMCMAP_OK;
  struct recovered_range superblock = {.offset = superblock_offset,
                                       .size = SUPERBLOCK_BYTES};
  int code = rewrite_range(fd, source, &superblock);
  for (size_t i = 0; i < recovered->range_count && code == MMCMAP_OK; i++)
    code = rewrite_range(fd, source, &recovered->ranges[i]);
  return code;
}

void recovered_forget(struct recovered *recovered) {
  /* In this order: a child that is forked now frees what it finds. */
  struct recovered_range *ranges = recovered->ranges;
  recovered->ranges = NULL;
  recovered->range_count = recovered->range_capacity = 0;
  free(ranges);
}
