/* SPDX-License-Identifier: MIT */
/*
 * A segment: the unit of space. It begins with a header, which the first one
 * has behind the superblocks; large values' segments follow each other in a
 * run that has one header for all.
 */
#ifndef FORMAT_SEGMENT_H
#define FORMAT_SEGMENT_H

#include <stdint.h>

enum {
  SEGMENT_SIZE_DEFAULT = 1 << 17,
  /* The longest key and its headers must fit. */
  SEGMENT_SIZE_MIN = 1 << 17,
  SEGMENT_SIZE_MAX = 1 << 26,
  SEGMENT_HEADER_BYTES = 64,
  SEGMENT_FIRST_HEADER_OFFSET = 12288
};

enum segment_kind { SEGMENT_LOG = 1, SEGMENT_LARGE = 2 };

struct segment_header {
  enum segment_kind kind;
  uint64_t number;   /* its offset divided by the segment size */
  uint64_t run;      /* segments that this header is for */
  uint64_t sequence; /* the epoch in which it was begun */
};

static inline uint64_t segment_header_offset(uint64_t number,
                                             uint32_t segment_size) {
  return number == 0 ? SEGMENT_FIRST_HEADER_OFFSET : number * segment_size;
}

/* The file id is part of it, so that a header of another file is not taken. */
void segment_encode(const struct segment_header *header,
                    const uint8_t file_id[16],
                    uint8_t bytes_out[SEGMENT_HEADER_BYTES]);

/* MMCMAP_ECORRUPT if the header is not one of this file for `number`. */
int segment_decode(const uint8_t bytes[SEGMENT_HEADER_BYTES], uint64_t number,
                   const uint8_t file_id[16], uint64_t offset,
                   struct segment_header *header_out);

#endif
