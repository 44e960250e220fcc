/* SPDX-License-Identifier: MIT */
/*
 * Encoding and decoding of segment headers. The offsets are those of
 * docs/format.md.
 */
#include "format/segment.h"

#include <string.h>

#include "base/bytes.h"
#include "base/errors.h"
#include "base/hash.h"

enum {
  AT_MAGIC = 0,
  AT_KIND = 8,
  AT_NUMBER = 16,
  AT_RUN = 24,
  AT_SEQUENCE = 32,
  AT_FILE_ID = 40,
  AT_CHECKSUM = 56
};

#define SEGMENT_MAGIC UINT64_C(0x0a676573636d6d8b) /* "\x8bmmcseg\n" */

void segment_encode(const struct segment_header *header,
                    const uint8_t file_id[16],
                    uint8_t bytes_out[SEGMENT_HEADER_BYTES]) {
  memset(bytes_out, 0, SEGMENT_HEADER_BYTES);
  bytes_set_u64(bytes_out + AT_MAGIC, SEGMENT_MAGIC);
  bytes_set_u32(bytes_out + AT_KIND, header->kind);
  bytes_set_u64(bytes_out + AT_NUMBER, header->number);
  bytes_set_u64(bytes_out + AT_RUN, header->run);
  bytes_set_u64(bytes_out + AT_SEQUENCE, header->sequence);
  memcpy(bytes_out + AT_FILE_ID, file_id, 16);
  bytes_set_u64(bytes_out + AT_CHECKSUM,
                hash_plain_checksum(bytes_out, AT_CHECKSUM));
}

int segment_decode(const uint8_t bytes[SEGMENT_HEADER_BYTES], uint64_t number,
                   const uint8_t file_id[16], uint64_t offset,
                   struct segment_header *header_out) {
  memset(header_out, 0, sizeof *header_out);
  uint32_t kind = bytes_u32(bytes + AT_KIND);
  if (bytes_u64(bytes + AT_MAGIC) != SEGMENT_MAGIC ||
      bytes_u64(bytes + AT_CHECKSUM) != hash_plain_checksum(bytes, AT_CHECKSUM))
    return error_set_corrupt("F12 segment checksum", offset);
  if (bytes_u64(bytes + AT_NUMBER) != number ||
      memcmp(bytes + AT_FILE_ID, file_id, 16) != 0 ||
      (kind != SEGMENT_LOG && kind != SEGMENT_LARGE) ||
      bytes_u64(bytes + AT_RUN) == 0 ||
      (kind == SEGMENT_LOG && bytes_u64(bytes + AT_RUN) != 1))
    return error_set_corrupt("F13 segment header", offset);
  header_out->kind = (enum segment_kind)kind;
  header_out->number = number;
  header_out->run = bytes_u64(bytes + AT_RUN);
  header_out->sequence = bytes_u64(bytes + AT_SEQUENCE);
  return MMCMAP_OK;
}
