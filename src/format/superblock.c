/* SPDX-License-Identifier: MIT */
/*
 * Encoding and decoding of superblocks. The offsets are those of
 * docs/format.md.
 */
#include "format/superblock.h"

#include <string.h>

#include "base/bytes.h"
#include "base/errors.h"
#include "format/node.h"
#include "format/segment.h"

enum {
  AT_MAGIC = 0,
  AT_VERSION = 8,
  AT_BYTE_ORDER = 12,
  AT_COMPAT = 16,
  AT_READONLY_COMPAT = 24,
  AT_INCOMPAT = 32,
  AT_FILE_ID = 40,
  AT_SALT = 56,
  AT_SEGMENT_SIZE = 64,
  AT_HASH = 68,
  AT_SEQUENCE = 72,
  AT_FLAGS = 80,
  AT_HEAD_COUNT = 84,
  AT_EPOCH = 88,
  AT_ROOT = 96,
  AT_COUNT = 104,
  AT_CONTENT_EPOCH = 112,
  AT_CHAIN = 120,
  AT_NEXT_EPOCH = 128,
  AT_SEGMENT_COUNT = 136,
  AT_USED_BYTES = 144,
  AT_USAGE_OFFSET = 152,
  AT_USAGE_COUNT = 160,
  AT_USAGE_CHECKSUM = 168,
  AT_HEADS = 176,
  HEAD_BYTES = 16,
  AT_SECRET = AT_HEADS + SUPERBLOCK_HEADS * HEAD_BYTES,
  AT_RESERVED = AT_SECRET + HASH_SECRET_BYTES,
  AT_CHECKSUM = SUPERBLOCK_BYTES - 8
};

_Static_assert(AT_SECRET == 240 && AT_RESERVED == 640,
               "the offsets of docs/format.md");

static const uint8_t magic[8] = {0x89, 'm', 'm', 'c', 'm', 'a', 'p', '\n'};

#define BYTE_ORDER_MARK UINT32_C(0x01020304)

void superblock_encode(const struct superblock *superblock,
                       uint8_t page_out[SUPERBLOCK_BYTES]) {
  uint8_t *page = page_out;
  memset(page, 0, SUPERBLOCK_BYTES);
  memcpy(page + AT_MAGIC, magic, sizeof magic);
  bytes_set_u32(page + AT_VERSION, SUPERBLOCK_FORMAT_VERSION);
  bytes_set_u32(page + AT_BYTE_ORDER, BYTE_ORDER_MARK);
  memcpy(page + AT_FILE_ID, superblock->file_id, SUPERBLOCK_FILE_ID_BYTES);
  bytes_set_u64(page + AT_SALT, superblock->salt);
  bytes_set_u32(page + AT_SEGMENT_SIZE, superblock->segment_size);
  bytes_set_u32(page + AT_HASH, (uint32_t)superblock->hash);
  bytes_set_u64(page + AT_SEQUENCE, superblock->sequence);
  bytes_set_u32(page + AT_FLAGS, superblock->flags);
  bytes_set_u32(page + AT_HEAD_COUNT, SUPERBLOCK_HEADS);
  bytes_set_u64(page + AT_EPOCH, superblock->epoch);
  bytes_set_u64(page + AT_ROOT, superblock->root);
  bytes_set_u64(page + AT_COUNT, superblock->count);
  bytes_set_u64(page + AT_CONTENT_EPOCH, superblock->content_epoch);
  bytes_set_u64(page + AT_CHAIN, superblock->chain);
  bytes_set_u64(page + AT_NEXT_EPOCH, superblock->next_epoch);
  bytes_set_u64(page + AT_SEGMENT_COUNT, superblock->segment_count);
  bytes_set_u64(page + AT_USED_BYTES, superblock->used_bytes);
  bytes_set_u64(page + AT_USAGE_OFFSET, superblock->usage_offset);
  bytes_set_u64(page + AT_USAGE_COUNT, superblock->usage_count);
  bytes_set_u64(page + AT_USAGE_CHECKSUM, superblock->usage_checksum);
  for (int i = 0; i < SUPERBLOCK_HEADS; i++) {
    uint8_t *at = page + AT_HEADS + i * HEAD_BYTES;
    bytes_set_u64(at, superblock->heads[i].offset);
    bytes_set_u64(at + 8, superblock->heads[i].limit);
  }
  memcpy(page + AT_SECRET, superblock->secret, HASH_SECRET_BYTES);
  bytes_set_u64(page + AT_CHECKSUM, hash_plain_checksum(page, AT_CHECKSUM));
}

static void read_fields(const uint8_t *page, struct superblock *out) {
  memcpy(out->file_id, page + AT_FILE_ID, SUPERBLOCK_FILE_ID_BYTES);
  memcpy(out->secret, page + AT_SECRET, HASH_SECRET_BYTES);
  out->salt = bytes_u64(page + AT_SALT);
  out->segment_size = bytes_u32(page + AT_SEGMENT_SIZE);
  out->hash = (int)bytes_u32(page + AT_HASH);
  out->sequence = bytes_u64(page + AT_SEQUENCE);
  out->flags = bytes_u32(page + AT_FLAGS);
  out->epoch = bytes_u64(page + AT_EPOCH);
  out->root = bytes_u64(page + AT_ROOT);
  out->count = bytes_u64(page + AT_COUNT);
  out->content_epoch = bytes_u64(page + AT_CONTENT_EPOCH);
  out->chain = bytes_u64(page + AT_CHAIN);
  out->next_epoch = bytes_u64(page + AT_NEXT_EPOCH);
  out->segment_count = bytes_u64(page + AT_SEGMENT_COUNT);
  out->used_bytes = bytes_u64(page + AT_USED_BYTES);
  out->usage_offset = bytes_u64(page + AT_USAGE_OFFSET);
  out->usage_count = bytes_u64(page + AT_USAGE_COUNT);
  out->usage_checksum = bytes_u64(page + AT_USAGE_CHECKSUM);
  for (int i = 0; i < SUPERBLOCK_HEADS; i++) {
    const uint8_t *at = page + AT_HEADS + i * HEAD_BYTES;
    out->heads[i].offset = bytes_u64(at);
    out->heads[i].limit = bytes_u64(at + 8);
  }
}

static bool segment_size_is_good(uint32_t size) {
  return size >= SEGMENT_SIZE_MIN && size <= SEGMENT_SIZE_MAX &&
         (size & (size - 1)) == 0;
}

/* A head lies within what is used and within the segments begun, or is not
   there. */
static bool head_is_good(const struct superblock *superblock, int index) {
  const struct superblock_head *head = &superblock->heads[index];
  uint64_t end = superblock->segment_count * superblock->segment_size;
  if (index != HEAD_LOG && head->offset == 0) return head->limit == 0;
  if (index == HEAD_LARGE && head->offset % EXTENT_PAGE_BYTES != 0)
    return false;
  if (head->limit % superblock->segment_size != 0 ||
      (index != HEAD_LARGE &&
       head->limit - head->offset > superblock->segment_size))
    return false;
  return index <= HEAD_BRANCH && head->offset >= SEGMENT_FIRST_HEADER_OFFSET &&
         head->offset % 8 == 0 && head->offset <= head->limit &&
         head->offset <= superblock->used_bytes && head->limit <= end;
}

/* The segments begun reach no further beyond what is used than the largest
   value would. */
static bool segment_count_is_good(const struct superblock *superblock) {
  uint64_t segment_size = superblock->segment_size;
  uint64_t beyond = extent_size(MMCMAP_VALUE_SIZE_MAX) / segment_size + 2;
  return superblock->segment_count > 0 &&
         superblock->segment_count <= SLOT_OFFSET_LIMIT / segment_size &&
         superblock->used_bytes <= superblock->segment_count * segment_size &&
         superblock->segment_count <=
             superblock->used_bytes / segment_size + beyond;
}

/* NULL, or the rule that the decoded fields break. */
static const char *broken_rule(const struct superblock *superblock) {
  if (!segment_size_is_good(superblock->segment_size)) return "F6 segment size";
  if (superblock->hash < MMCMAP_HASH_XXH3 ||
      superblock->hash > MMCMAP_HASH_MURMUR3)
    return "F7 hash kind";
  if (superblock->epoch >= superblock->next_epoch ||
      superblock->next_epoch >= NODE_EPOCH_LIMIT)
    return "F8 epoch";
  if (!slot_fits_count(superblock->root, superblock->count))
    return "F9 root and count";
  if (superblock->content_epoch > superblock->epoch) return "F8 epoch";
  if (!segment_count_is_good(superblock)) return "F10 segments and size";
  for (int i = 0; i < SUPERBLOCK_HEADS; i++)
    if (!head_is_good(superblock, i)) return "F11 heads";
  return NULL;
}

int superblock_decode(const uint8_t page[SUPERBLOCK_BYTES], uint64_t offset,
                      bool readonly, struct superblock *superblock_out) {
  memset(superblock_out, 0, sizeof *superblock_out);
  if (memcmp(page + AT_MAGIC, magic, sizeof magic) != 0)
    return error_set(MMCMAP_EFORMAT, "F1 magic");
  /* First of all: in every version the checksum is where it is now, so that a
     damaged page is told from one of another version. */
  if (bytes_u64(page + AT_CHECKSUM) != hash_plain_checksum(page, AT_CHECKSUM))
    return error_set_corrupt("F4 superblock checksum", offset);
  if (bytes_u32(page + AT_VERSION) != SUPERBLOCK_FORMAT_VERSION)
    return error_set(MMCMAP_EVERSION, "F2 format version");
  if (bytes_u32(page + AT_BYTE_ORDER) != BYTE_ORDER_MARK)
    return error_set(MMCMAP_EVERSION, "F3 byte order");
  if (bytes_u64(page + AT_INCOMPAT) != 0 ||
      (!readonly && bytes_u64(page + AT_READONLY_COMPAT) != 0) ||
      bytes_u32(page + AT_HEAD_COUNT) != SUPERBLOCK_HEADS)
    return error_set(MMCMAP_EVERSION, "F5 features");
  struct superblock superblock;
  read_fields(page, &superblock);
  const char *rule = broken_rule(&superblock);
  if (rule != NULL) return error_set_corrupt(rule, offset);
  *superblock_out = superblock;
  return MMCMAP_OK;
}
