/* SPDX-License-Identifier: MIT */
/*
 * What verification looks at beside the tries: superblocks, segment headers, and
 * the log, frame by frame from the first one on.
 */
#include <string.h>

#include "base/errors.h"
#include "format/frame.h"
#include "format/segment.h"
#include "maint/recovery.h"
#include "maint/verify.h"

enum { FRAME_SALT_AT = 16 };

static void check_superblocks(const struct node_source *source,
                              struct verify_report *report) {
  static const uint64_t offsets[] = {SUPERBLOCK_A_OFFSET, SUPERBLOCK_B_OFFSET};
  struct superblock superblock;
  for (int i = 0; i < SUPERBLOCK_COUNT; i++)
    if (bytes_within(offsets[i], SUPERBLOCK_BYTES, source->size) &&
        superblock_decode(source->base + offsets[i], offsets[i], true,
                          &superblock) == MMCMAP_OK)
      report->superblock_count++;
}

static void check_segments(const struct node_source *source,
                           const struct superblock *state,
                           struct verify_report *report) {
  uint64_t number = 0;
  while (number < state->segment_count) {
    struct segment_header header;
    uint64_t offset = segment_header_offset(number, state->segment_size);
    if (!bytes_within(offset, SEGMENT_HEADER_BYTES, source->size)) {
      verify_fail(report, MMCMAP_ECORRUPT, "F10 segments and size", offset);
      return;
    }
    int code = segment_decode(source->base + offset, number, state->file_id,
                              offset, &header);
    if (code != MMCMAP_OK) verify_fail_as_noted(report, code);
    report->segment_count++;
    number +=
        code == MMCMAP_OK && header.run < state->segment_count ? header.run : 1;
  }
}

/* The nodes of a frame fill it and are of its epoch. */
static void check_nodes(const struct node_source *source, uint64_t offset,
                        const struct frame *frame,
                        struct verify_report *report) {
  uint64_t at = offset + FRAME_HEADER_BYTES;
  uint64_t end = offset + frame->size_bytes;
  while (at < end) {
    enum node_kind kind;
    uint64_t size;
    int code = node_measure(source, at, end, &kind, &size);
    if (code != MMCMAP_OK) {
      verify_fail_as_noted(report, code);
      return;
    }
    if (node_epoch(source->base + at) != frame->epoch)
      verify_fail(report, MMCMAP_ECORRUPT, "F27 node epoch", at);
    at += size;
  }
}

/* Where a session goes on that finds no room at the head: in the next log
   segment. 0 if there is none. */
static uint64_t next_log_segment(const struct node_source *source,
                                 const struct superblock *state,
                                 uint64_t offset) {
  uint64_t number = offset / state->segment_size + 1;
  while (number < state->segment_count) {
    struct segment_header header;
    uint64_t at = number * state->segment_size;
    if (!bytes_within(at, SEGMENT_HEADER_BYTES, source->size) ||
        segment_decode(source->base + at, number, state->file_id, at,
                       &header) != MMCMAP_OK ||
        header.run > state->segment_count)
      return 0;
    if (header.kind == SEGMENT_LOG) return at + SEGMENT_HEADER_BYTES;
    number += header.run;
  }
  return 0;
}

static bool has_no_room(const struct superblock *state, uint64_t offset) {
  return state->segment_size - offset % state->segment_size <
         2 * FRAME_HEADER_BYTES;
}

/* The salt that the frame itself names; 0 if there is none. */
static uint64_t frame_salt(const struct node_source *source, uint64_t offset) {
  return bytes_within(offset, FRAME_HEADER_BYTES, source->size)
             ? bytes_u64(source->base + offset + FRAME_SALT_AT)
             : 0;
}

/* Reads the whole log up to the head of `state`. */
static void check_log(const struct node_source *source,
                      const struct hasher *hasher,
                      const struct superblock *state,
                      struct verify_report *report) {
  uint64_t offset = SEGMENT_FIRST_HEADER_OFFSET + SEGMENT_HEADER_BYTES;
  uint64_t end = state->heads[HEAD_LOG].offset;
  uint64_t chain = 0, epoch = 0;
  while (offset != end) {
    struct frame frame;
    uint64_t checksum;
    uint64_t salt = frame_salt(source, offset);
    int code = frame_read(source, offset, state->segment_size, salt, chain,
                          hasher, &frame, &checksum);
    if (code != MMCMAP_OK && has_no_room(state, offset)) {
      offset = next_log_segment(source, state, offset);
      continue;
    }
    if (code != MMCMAP_OK) {
      verify_fail_as_noted(report, code);
      return;
    }
    chain = checksum;
    report->frame_count++;
    report->frame_bytes += frame.size_bytes;
    if (frame.epoch < epoch || report->frame_bytes > source->size) {
      verify_fail(report, MMCMAP_ECORRUPT, "F15 frame salt and chain", offset);
      return;
    }
    check_nodes(source, offset, &frame, report);
    if (!verify_goes_on(report, report->frame_count)) return;
    epoch = frame.epoch;
    offset = frame.next_offset;
  }
  if (chain != state->chain)
    verify_fail(report, MMCMAP_ECORRUPT, "F15 frame salt and chain", end);
}

void verify_log_into(const struct node_source *source,
                     const struct hasher *hasher,
                     const struct superblock *state,
                     struct verify_report *report) {
  check_segments(source, state, report);
  check_log(source, hasher, state, report);
}

static int verify_file_into(const struct node_source *source,
                            const struct hasher *hasher,
                            const struct superblock *superblock,
                            struct verify_report *report_out) {
  struct recovered recovered;
  int code = recovery_roll_forward(source, hasher, superblock, &recovered);
  if (code != MMCMAP_OK) return code;
  const struct superblock *state = &recovered.state;
  verify_trie_into(source, hasher, MAP_ID_DEFAULT, state->root, state->count,
                   state->epoch, report_out);
  if (superblock->used_bytes > source->size)
    verify_fail(report_out, MMCMAP_ECORRUPT, "F10 file shorter than used",
                source->size);
  check_superblocks(source, report_out);
  verify_log_into(source, hasher, state, report_out);
  recovered_forget(&recovered);
  return verify_outcome(report_out);
}

int verify_file(const struct node_source *source, const struct hasher *hasher,
                const struct superblock *superblock,
                struct verify_report *report_out) {
  memset(report_out, 0, sizeof *report_out);
  return verify_file_into(source, hasher, superblock, report_out);
}

void verify_file_watched(const struct node_source *source,
                         const struct hasher *hasher,
                         const struct superblock *superblock,
                         const struct verify_watch *watch) {
  struct verify_report report;
  memset(&report, 0, sizeof report);
  report.watch = watch;
  (void)verify_file_into(source, hasher, superblock, &report);
}
