/* SPDX-License-Identifier: MIT */
/*
 * What verification looks at beside the tries: superblocks, and headers and frames
 * of the segments that the tries have nodes in.
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "format/frame.h"
#include "format/segment.h"
#include "maint/recovery.h"
#include "maint/usage_table.h"
#include "maint/verify.h"

enum { FRAME_CHECKSUM_AT = 0, FRAME_SALT_AT = 16, FRAME_PREVIOUS_AT = 24 };

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

/* The header of a segment that has nodes of the trie. */
static bool check_segment_header(const struct node_source *source,
                                 const struct superblock *state,
                                 uint64_t number,
                                 struct verify_report *report) {
  struct segment_header header;
  uint64_t offset = segment_header_offset(number, state->segment_size);
  if (!bytes_within(offset, SEGMENT_HEADER_BYTES, source->size)) {
    verify_fail(report, MMCMAP_ECORRUPT, "F10 segments and size", offset);
    return false;
  }
  int code = segment_decode(source->base + offset, number, state->file_id,
                            offset, &header);
  if (code != MMCMAP_OK)
    verify_fail_as_noted(report, code);
  else if (header.kind != SEGMENT_LOG)
    verify_fail(report, MMCMAP_ECORRUPT, "F13 segment header", offset);
  return code == MMCMAP_OK;
}

/* The nodes of a frame fill it. */
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
    at += size;
  }
}

/* Reads a frame as its own header says that it was written. */
static int read_frame(const struct node_source *source,
                      const struct hasher *hasher,
                      const struct superblock *state, uint64_t offset,
                      struct frame *frame_out) {
  uint64_t salt = 0, previous = 0, checksum;
  if (bytes_within(offset, FRAME_HEADER_BYTES, source->size)) {
    salt = bytes_u64(source->base + offset + FRAME_SALT_AT);
    previous = bytes_u64(source->base + offset + FRAME_PREVIOUS_AT);
  }
  return frame_read(source, offset, state->segment_size, salt, previous, hasher,
                    frame_out, &checksum);
}

/* Whether the frame may be one that has not been committed yet. One that was closed
   after the moment, by a transaction that goes on or whose writer has died too, is
   of a later epoch, though it holds nodes of the moment; it has no checksum yet. */
static bool is_unfinished(const struct node_source *source, uint64_t offset,
                          uint64_t durable_epoch, uint64_t newest_epoch) {
  if (!bytes_within(offset, FRAME_HEADER_BYTES, source->size)) return false;
  const uint8_t *at = source->base + offset;
  uint64_t epoch = node_epoch(at);
  return epoch > durable_epoch &&
         (epoch <= newest_epoch ||
          bytes_load_acquire(at + FRAME_CHECKSUM_AT) == 0);
}

/* Reads the frames of a segment, one behind the other, as far as there are nodes
   of the trie. What comes behind them may be of an earlier use, or torn. */
static void check_frames(const struct node_source *source,
                         const struct hasher *hasher,
                         const struct superblock *state, uint64_t number,
                         uint64_t newest_epoch, struct verify_report *report) {
  uint64_t nodes_end = report->uses[number].nodes_end;
  uint64_t offset =
      segment_header_offset(number, state->segment_size) + SEGMENT_HEADER_BYTES;
  while (offset < nodes_end) {
    struct frame frame;
    if (is_unfinished(source, offset, state->epoch, newest_epoch)) return;
    int code = read_frame(source, hasher, state, offset, &frame);
    if (code != MMCMAP_OK) {
      verify_fail_as_noted(report, code);
      return;
    }
    report->frame_count++;
    report->frame_bytes += frame.size_bytes;
    check_nodes(source, offset, &frame, report);
    if (!verify_goes_on(report, report->frame_count)) return;
    offset += frame.size_bytes;
  }
}

void verify_log_into(const struct node_source *source,
                     const struct hasher *hasher,
                     const struct superblock *state, uint64_t newest_epoch,
                     struct verify_report *report) {
  for (uint64_t i = 0; i < report->use_count && report->stopped == 0; i++) {
    const struct verify_use *use = &report->uses[i];
    if (use->node_bytes + use->page_bytes > 0) report->segment_count++;
    if (use->node_bytes > 0 && check_segment_header(source, state, i, report))
      check_frames(source, hasher, state, i, newest_epoch, report);
  }
}

/* The table of a store that was closed properly counts all that is alive. */
static void check_usage(const struct node_source *source,
                        const struct hasher *hasher,
                        const struct superblock *superblock,
                        struct verify_report *report) {
  if ((superblock->flags & SUPERBLOCK_CLEAN) == 0 ||
      superblock->usage_offset == 0)
    return;
  const uint8_t *table = usage_table_find(source, hasher, superblock);
  if (table == NULL) {
    verify_fail(report, MMCMAP_ECORRUPT, "F43 usage table",
                superblock->usage_offset);
    return;
  }
  for (uint64_t i = 0; i < superblock->segment_count; i++) {
    const uint8_t *entry = table + i * USAGE_ENTRY_BYTES;
    const struct verify_use *use = &report->uses[i];
    uint64_t live_bytes = UINT64_C(8) * bytes_u32(entry);
    if ((bytes_u32(entry + 4) & SHARE_SEGMENT_UNCOUNTED) == 0 &&
        live_bytes < use->node_bytes + use->page_bytes)
      verify_fail(report, MMCMAP_ECORRUPT, "F44 more alive than counted",
                  superblock->usage_offset + i * USAGE_ENTRY_BYTES);
  }
}

static int verify_file_into(const struct node_source *source,
                            const struct hasher *hasher,
                            const struct superblock *superblock,
                            struct verify_report *report_out) {
  struct recovered recovered;
  int code = recovery_roll_forward(source, hasher, superblock, &recovered);
  if (code != MMCMAP_OK) return code;
  const struct superblock *state = &recovered.state;
  report_out->uses =
      calloc((size_t)state->segment_count, sizeof *report_out->uses);
  if (report_out->uses == NULL) {
    recovered_forget(&recovered);
    return error_set(MMCMAP_ENOMEM, "verification");
  }
  report_out->use_count = state->segment_count;
  report_out->segment_size = state->segment_size;
  verify_trie_into(source, hasher, MAP_ID_DEFAULT, state->root, state->count,
                   state->epoch, report_out);
  if (superblock->used_bytes > source->size)
    verify_fail(report_out, MMCMAP_ECORRUPT, "F10 file shorter than used",
                source->size);
  check_superblocks(source, report_out);
  verify_log_into(source, hasher, state, state->epoch, report_out);
  check_usage(source, hasher, superblock, report_out);
  free(report_out->uses);
  report_out->uses = NULL;
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
