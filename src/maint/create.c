/* SPDX-License-Identifier: MIT */
/*
 * The order in place: space and segment header, sync, superblock A, sync,
 * superblock B, sync. So a store that was ever in use has a second superblock;
 * a file of the first size without one, without a valid first, and with nothing
 * behind the segment header was never finished.
 */
#include "maint/create.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "format/segment.h"
#include "format/superblock.h"
#include "os/file.h"
#include "os/process.h"
#include "space/space.h"

static int describe_new_store(const struct create_options *options,
                              struct superblock *superblock_out) {
  struct superblock *superblock = superblock_out;
  memset(superblock, 0, sizeof *superblock);
  superblock->segment_size = options->segment_size;
  superblock->hash = options->hash;
  superblock->sequence = 1;
  superblock->flags = SUPERBLOCK_CLEAN;
  superblock->epoch = 0;
  superblock->next_epoch = 1;
  superblock->segment_count = 1;
  superblock->heads[HEAD_LOG].offset =
      SEGMENT_FIRST_HEADER_OFFSET + SEGMENT_HEADER_BYTES;
  superblock->heads[HEAD_LOG].limit = options->segment_size;
  superblock->used_bytes = superblock->heads[HEAD_LOG].offset;
  int code = process_random(superblock->file_id, sizeof superblock->file_id);
  if (code == MMCMAP_OK)
    code = process_random(&superblock->salt, sizeof superblock->salt);
  if (code == MMCMAP_OK)
    code = process_random(superblock->secret, sizeof superblock->secret);
  return code;
}

static int write_superblock(int fd, struct superblock *superblock,
                            uint64_t offset) {
  uint8_t page[SUPERBLOCK_BYTES];
  superblock_encode(superblock, page);
  superblock->sequence++;
  int code = file_write(fd, page, sizeof page, offset);
  return code == MMCMAP_OK ? file_sync(fd) : code;
}

int create_in_place(int fd, const struct create_options *options) {
  struct superblock superblock;
  uint8_t header_bytes[SEGMENT_HEADER_BYTES];
  int code = describe_new_store(options, &superblock);
  if (code != MMCMAP_OK) return code;
  struct segment_header header = {.kind = SEGMENT_LOG, .run = 1};
  segment_encode(&header, superblock.file_id, header_bytes);
  code = file_allocate(fd, 0, SPACE_FILE_SIZE_MIN);
  if (code == MMCMAP_OK)
    code = file_write(fd, header_bytes, sizeof header_bytes,
                      SEGMENT_FIRST_HEADER_OFFSET);
  if (code == MMCMAP_OK) code = file_sync(fd);
  if (code == MMCMAP_OK)
    code = write_superblock(fd, &superblock, SUPERBLOCK_A_OFFSET);
  if (code == MMCMAP_OK)
    code = write_superblock(fd, &superblock, SUPERBLOCK_B_OFFSET);
  return code;
}

static bool is_zero(const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != 0) return false;
  return true;
}

/* Whether the file holds nothing but zeros from `offset` on. */
static int is_zero_behind(int fd, uint64_t offset, bool *zero_out) {
  uint8_t bytes[SUPERBLOCK_BYTES];
  size_t got = sizeof bytes;
  int code = MMCMAP_OK;
  *zero_out = true;
  for (; code == MMCMAP_OK && *zero_out && got == sizeof bytes; offset += got) {
    code = file_read(fd, bytes, sizeof bytes, offset, &got);
    if (code == MMCMAP_OK) *zero_out = is_zero(bytes, got);
  }
  if (code != MMCMAP_OK) *zero_out = false;
  return code;
}

/* Place A of an unfinished store: nothing yet, or a superblock that is torn,
   perhaps without its beginning. Anything else belongs to somebody. */
static bool is_unfinished_page(const uint8_t page[SUPERBLOCK_BYTES]) {
  struct superblock superblock;
  return is_zero(page, 8) || superblock_decode(page, SUPERBLOCK_A_OFFSET, true,
                                               &superblock) == MMCMAP_ECORRUPT;
}

int create_is_unfinished(int fd, bool *unfinished_out) {
  uint8_t head[SEGMENT_FIRST_HEADER_OFFSET];
  uint64_t size;
  size_t got;
  *unfinished_out = false;
  int code = file_size(fd, &size);
  if (code != MMCMAP_OK || size > SPACE_FILE_SIZE_MIN) return code;
  /* A crash or a full disk may have ended the very first allocation. */
  if (size < SPACE_FILE_SIZE_MIN) return is_zero_behind(fd, 0, unfinished_out);
  code = file_read(fd, head, sizeof head, 0, &got);
  if (code != MMCMAP_OK || !is_unfinished_page(head) ||
      !is_zero(head + SUPERBLOCK_BYTES, sizeof head - SUPERBLOCK_BYTES))
    return code;
  return is_zero_behind(fd, SEGMENT_FIRST_HEADER_OFFSET + SEGMENT_HEADER_BYTES,
                        unfinished_out);
}

int create_temporary_name(const char *path, char **name_out) {
  uint64_t random;
  *name_out = NULL;
  int code = process_random(&random, sizeof random);
  if (code != MMCMAP_OK) return code;
  size_t size = strlen(path) + sizeof ".new-0123456789abcdef";
  char *name = malloc(size);
  if (name == NULL) return error_set(MMCMAP_ENOMEM, "temporary name");
  snprintf(name, size, "%s.new-%016llx", path, (unsigned long long)random);
  *name_out = name;
  return MMCMAP_OK;
}

int create_begin(const char *path, unsigned mode, char **name_out,
                 int *fd_out) {
  *fd_out = -1;
  int code = create_temporary_name(path, name_out);
  if (code == MMCMAP_OK) code = file_create(*name_out, mode, fd_out);
  if (code == MMCMAP_OK) return code;
  free(*name_out);
  *name_out = NULL;
  return code;
}

int create_finish(int fd, const char *name, const char *path,
                  const struct create_options *options) {
  int code = create_in_place(fd, options);
  if (code == MMCMAP_OK) code = file_link(name, path);
  if (code != MMCMAP_OK) return code;
  (void)file_unlink(name);
  return file_sync_folder_of(path);
}
