/* SPDX-License-Identifier: MIT */
/*
 * Encoding and checking of frame headers. The offsets are those of
 * docs/format.md.
 */
#include "format/frame.h"

#include <string.h>

#include "base/bytes.h"
#include "base/errors.h"
#include "base/testing.h"
#include "format/segment.h"

enum {
  AT_CHECKSUM = 0, /* of all that follows it in the frame */
  AT_META = 8,     /* kind << 56 | flags << 48 | epoch, as in a node */
  AT_SALT = 16,
  AT_PREVIOUS = 24,
  AT_NEXT = 32,
  AT_ROOT = 40,
  AT_COUNT = 48,
  AT_CONTENT_EPOCH = 56,
  AT_SIZE = 64
};

_Static_assert((int)AT_META == (int)NODE_META_AT,
               "frames and nodes are told apart");

void frame_begin(uint8_t *at, uint64_t salt, uint64_t epoch) {
  memset(at, 0, FRAME_HEADER_BYTES);
  bytes_set_u64(at + AT_META, (uint64_t)FRAME_KIND << 56 | epoch);
  bytes_set_u64(at + AT_SALT, salt);
}

bool frame_is_of(const uint8_t *at, uint64_t salt, uint64_t oldest_epoch) {
  uint64_t meta = bytes_u64(at + AT_META);
  return node_meta_kind(meta) == FRAME_KIND &&
         node_meta_epoch(meta) >= oldest_epoch &&
         bytes_u64(at + AT_SALT) == salt;
}

/* The cleaner, and a check, may be looking whether there is a frame. */
static void set_meta(uint8_t *at, const struct frame *frame) {
  bytes_store_relaxed(at + AT_META, (uint64_t)FRAME_KIND << 56 |
                                        (uint64_t)frame->flags << 48 |
                                        frame->epoch);
}

void frame_close(uint8_t *at, const struct frame *frame) {
  CHECK(frame->size_bytes >= FRAME_HEADER_BYTES && frame->size_bytes % 8 == 0);
  set_meta(at, frame);
  bytes_set_u64(at + AT_SALT, frame->salt);
  bytes_set_u64(at + AT_NEXT, frame->next_offset);
  bytes_set_u64(at + AT_ROOT, frame->root);
  bytes_set_u64(at + AT_COUNT, frame->count);
  bytes_set_u64(at + AT_CONTENT_EPOCH, frame->content_epoch);
  bytes_set_u64(at + AT_SIZE, frame->size_bytes);
}

uint64_t frame_complete(uint8_t *at, const struct frame *frame,
                        const struct hasher *hasher) {
  set_meta(at, frame);
  bytes_set_u64(at + AT_PREVIOUS, frame->previous);
  uint64_t checksum =
      hasher_checksum(hasher, at + AT_META, frame->size_bytes - AT_META);
  bytes_store_release(at + AT_CHECKSUM, checksum);
  return checksum;
}

static bool flags_are_good(const struct frame *frame) {
  if ((frame->flags & ~(unsigned)(FRAME_ENDS_COMMIT | FRAME_HAS_LARGE)) != 0)
    return false;
  if ((frame->flags & FRAME_ENDS_COMMIT) == 0)
    return frame->root == 0 && frame->count == 0 && frame->content_epoch == 0;
  return slot_fits_count(frame->root, frame->count) &&
         frame->content_epoch <= frame->epoch;
}

int frame_read_closed(const struct node_source *source, uint64_t offset,
                      uint32_t segment_size, uint64_t salt,
                      struct frame *frame_out) {
  memset(frame_out, 0, sizeof *frame_out);
  if (offset % 8 != 0 || offset < SEGMENT_FIRST_HEADER_OFFSET ||
      !bytes_within(offset, FRAME_HEADER_BYTES, source->size))
    return error_set_corrupt("F14 frame beyond the file", offset);
  const uint8_t *at = source->base + offset;
  uint64_t meta = bytes_u64(at + AT_META);
  if (node_meta_kind(meta) != FRAME_KIND || bytes_u64(at + AT_SALT) != salt)
    return error_set_corrupt("F15 frame salt and chain", offset);
  uint64_t size = bytes_u64(at + AT_SIZE);
  uint64_t room = segment_size - offset % segment_size;
  if (size < FRAME_HEADER_BYTES || size % 8 != 0 || size > room ||
      !bytes_within(offset, size, source->size))
    return error_set_corrupt("F16 frame size", offset);
  struct frame frame = {.salt = salt,
                        .epoch = node_meta_epoch(meta),
                        .flags = node_meta_flags(meta),
                        .previous = bytes_u64(at + AT_PREVIOUS),
                        .next_offset = bytes_u64(at + AT_NEXT),
                        .root = bytes_u64(at + AT_ROOT),
                        .count = bytes_u64(at + AT_COUNT),
                        .content_epoch = bytes_u64(at + AT_CONTENT_EPOCH),
                        .size_bytes = (uint32_t)size};
  *frame_out = frame;
  return MMCMAP_OK;
}

int frame_read(const struct node_source *source, uint64_t offset,
               uint32_t segment_size, uint64_t salt, uint64_t previous,
               const struct hasher *hasher, struct frame *frame_out,
               uint64_t *checksum_out) {
  struct frame frame;
  memset(frame_out, 0, sizeof *frame_out);
  *checksum_out = 0;
  int code = frame_read_closed(source, offset, segment_size, salt, &frame);
  if (code != MMCMAP_OK) return code;
  if (frame.previous != previous)
    return error_set_corrupt("F15 frame salt and chain", offset);
  const uint8_t *at = source->base + offset;
  uint64_t checksum =
      hasher_checksum(hasher, at + AT_META, frame.size_bytes - AT_META);
  if (checksum != bytes_u64(at + AT_CHECKSUM) &&
      !BROKEN(BREAK_SKIP_FRAME_CHECKSUM))
    return error_set_corrupt("F17 frame checksum", offset);
  if (!flags_are_good(&frame))
    return error_set_corrupt("F18 frame flags and next", offset);
  *frame_out = frame;
  *checksum_out = BROKEN(BREAK_SKIP_FRAME_CHECKSUM)
                      ? bytes_u64(at + AT_CHECKSUM)
                      : checksum;
  return MMCMAP_OK;
}
