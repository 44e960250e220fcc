/* SPDX-License-Identifier: MIT */
/*
 * Opening and mapping the lock file, and its kernel locks.
 */
#include "share/lock_file.h"

#include <stddef.h>
#include <string.h>

#include "base/bytes.h"
#include "base/errors.h"
#include "os/lock.h"
#include "os/map.h"
#include "os/process.h"

enum {
  /* Of the first, private and smallest view: the table has room for 16,000,
     250 and 1 chunks. */
  VIEW_BYTES = SHARE_SEGMENTS_OFFSET,
  PRIVATE_BYTES = 1 << 20,
  VIEW_BYTES_MIN = SHARE_HEADER_BYTES + SHARE_CHUNK_BYTES
};

/* The bytes of the lock file whose locks mean something. */
#define OPENING_OFFSET (UINT64_C(1) << 50)
#define CHUNK_LOCK_OFFSET (OPENING_OFFSET + 1)

static int draw_connection(struct share *share) {
  share->connection = 0;
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && share->connection == 0)
    code = process_random(&share->connection, sizeof share->connection);
  return code;
}

int share_open_private(struct share *share_out) {
  memset(share_out, 0, sizeof *share_out);
  share_out->fd = -1;
  int code = draw_connection(share_out);
  if (code == MMCMAP_OK) code = map_anonymous(PRIVATE_BYTES, &share_out->at);
  if (code != MMCMAP_OK) return code;
  share_out->size_bytes = PRIVATE_BYTES;
  atomic_store(&share_out->known_bytes, PRIVATE_BYTES);
  share_out->header = (struct share_header *)(void *)share_out->at;
  return MMCMAP_OK;
}

/* Opens the lock file once more: a mapping has a description of its own. */
static int open_again(const char *path, const struct share *share,
                      int *fd_out) {
  struct file_identity held, mapped;
  int code = file_open(path, false, fd_out);
  if (code == MMCMAP_ENOENT) /* by who has made it, and has failed */
    return error_set(MMCMAP_EBUSY, "the lock file was removed while opening");
  if (code != MMCMAP_OK) return code;
  code = file_identify(share->fd, &held);
  if (code == MMCMAP_OK) code = file_identify(*fd_out, &mapped);
  if (code == MMCMAP_OK && memcmp(&held, &mapped, sizeof held) != 0)
    code = error_set(MMCMAP_EBUSY, "the lock file was replaced while opening");
  if (code != MMCMAP_OK) file_close(*fd_out);
  return code;
}

static int map_lock_file(const char *path, struct share *share) {
  int fd;
  int code = open_again(path, share, &fd);
  if (code != MMCMAP_OK) return code;
  code = map_open_shared(fd, 0, VIEW_BYTES, VIEW_BYTES_MIN, &share->at,
                         &share->size_bytes);
  file_close(fd);
  return code;
}

/* Really allocated: a full disk is an error here, and not a SIGBUS later. What is
   longer was allocated by those who made it so; if nobody uses it, share_reset()
   allocates it anew. */
static int allocate_header(int fd) {
  uint64_t length;
  int code = file_size(fd, &length);
  if (code == MMCMAP_OK && length < VIEW_BYTES_MIN)
    code = file_allocate(fd, 0, VIEW_BYTES_MIN);
  return code;
}

/* If it fails it says that it was this file: messages have the name of the other
   one. */
static int open_or_make(const char *path, unsigned mode,
                        struct share *share_out) {
  mmcmap_error error;
  int code =
      file_open_or_create(path, mode, &share_out->fd, &share_out->is_new);
  if (code == MMCMAP_OK) return code;
  mmcmap_last_error(&error);
  error.what = code == MMCMAP_EFORMAT ? "the lock file is no regular file"
                                      : "opening the lock file";
  error_restore(&error);
  return code;
}

/* Whether it is a lock file, or may become one: a crash leaves its magic, which is
   there before anything else and stays (share_reset()), or zeros. Somebody may be
   resetting it meanwhile: the magic is read last, so it is seen if what follows
   is. */
static int check_is_ours(int fd) {
  static const uint8_t zeros[SHARE_LINE_BYTES];
  uint8_t line[SHARE_LINE_BYTES] = {0};
  uint64_t magic;
  size_t got;
  int code = file_read(fd, line + sizeof magic, sizeof line - sizeof magic,
                       sizeof magic, &got);
  if (code == MMCMAP_OK) code = file_read(fd, line, sizeof magic, 0, &got);
  if (code != MMCMAP_OK) return code;
  memcpy(&magic, line, sizeof magic);
  if (magic == SHARE_MAGIC || memcmp(line, zeros, sizeof line) == 0)
    return MMCMAP_OK;
  return error_set(MMCMAP_EFORMAT,
                   "NAME-lock beside it is another file, and no "
                   "lock file: move it away");
}

int share_open(const char *path, int like_fd, struct share *share_out) {
  unsigned mode;
  memset(share_out, 0, sizeof *share_out);
  share_out->fd = -1;
  int code = draw_connection(share_out);
  if (code == MMCMAP_OK) code = file_mode(like_fd, &mode);
  if (code == MMCMAP_OK) code = open_or_make(path, mode, share_out);
  if (code == MMCMAP_OK) code = check_is_ours(share_out->fd);
  if (code == MMCMAP_OK) code = file_follow_owner(share_out->fd, like_fd);
  if (code == MMCMAP_OK) code = allocate_header(share_out->fd);
  if (code == MMCMAP_OK) code = map_lock_file(path, share_out);
  if (code != MMCMAP_OK) {
    mmcmap_error failure;
    mmcmap_last_error(&failure);
    share_discard(share_out, path);
    share_close(share_out);
    error_restore(&failure);
    return code;
  }
  atomic_store(&share_out->known_bytes, VIEW_BYTES_MIN);
  share_out->header = (struct share_header *)(void *)share_out->at;
  return MMCMAP_OK;
}

int share_map_segments(struct share *share, const char *path, uint64_t least,
                       uint64_t count) {
  uint64_t page = process_page_size();
  uint64_t wanted = bytes_align_up(count * sizeof *share->segments, page);
  uint8_t *at;
  int fd, code;
  if (share->fd < 0) {
    code = map_anonymous(wanted, &at);
    share->segments_size_bytes = wanted;
  } else {
    code = open_again(path, share, &fd);
    if (code != MMCMAP_OK) return code;
    code =
        map_open_shared(fd, SHARE_SEGMENTS_OFFSET, wanted,
                        bytes_align_up(least * sizeof *share->segments, page),
                        &at, &share->segments_size_bytes);
    file_close(fd);
  }
  if (code == MMCMAP_OK) share->segments = (struct share_segment *)(void *)at;
  return code;
}

int share_ensure_segments(struct share *share, uint64_t count) {
  uint64_t end = count * sizeof *share->segments;
  if (count <= share->segment_count) return MMCMAP_OK;
  if (end > share->segments_size_bytes)
    return error_set(MMCMAP_EADDRESS, "table of segments");
  /* Others may have: allocating what is there changes nothing. */
  end = bytes_align_up(end, SHARE_CHUNK_BYTES);
  int code = share->fd < 0
                 ? MMCMAP_OK
                 : file_allocate(share->fd, SHARE_SEGMENTS_OFFSET, end);
  if (code == MMCMAP_OK) share->segment_count = end / sizeof *share->segments;
  return code;
}

bool share_has_segments(struct share *share, uint64_t count) {
  uint64_t length;
  /* Private memory, of who only reads, has no table. */
  if (count <= share->segment_count || share->fd < 0) return true;
  if (share->segments == NULL || file_size(share->fd, &length) != MMCMAP_OK ||
      length < SHARE_SEGMENTS_OFFSET)
    return false;
  length -= SHARE_SEGMENTS_OFFSET;
  if (length > share->segments_size_bytes) length = share->segments_size_bytes;
  share->segment_count = length / sizeof *share->segments;
  return count <= share->segment_count;
}

/* Whether somebody who had the lock has left what a takeover needs: it may be all that
   there is of changes that were made. */
static bool holds_state(const struct share *share) {
  uint32_t state = SHARE_READY;
  size_t got;
  int code = file_read(share->fd, &state, sizeof state,
                       offsetof(struct share_header, state), &got);
  if (code == MMCMAP_OK && got < sizeof state) state = 0;
  return state == SHARE_READY;
}

void share_unlink(const struct share *share, const char *path) {
  struct file_identity held, named;
  if (file_identify(share->fd, &held) == MMCMAP_OK &&
      file_identify_path(path, &named) == MMCMAP_OK &&
      memcmp(&held, &named, sizeof held) == 0)
    (void)file_unlink(path);
}

void share_discard(struct share *share, const char *path) {
  bool is_unused;
  /* With the opening lock, as remove() does it: who has opened the file meanwhile
     gets the lock later, and finds that the name is gone. */
  if (share->is_new && share_begin_opening(share, 0) == MMCMAP_OK &&
      share_is_unused(share, &is_unused) == MMCMAP_OK && is_unused &&
      !holds_state(share))
    share_unlink(share, path);
}

void share_close(struct share *share) {
  if (share->at != NULL) map_close_shared(share->at, share->size_bytes);
  if (share->segments != NULL)
    map_close_shared((uint8_t *)share->segments, share->segments_size_bytes);
  share_drop_locks(share);
  memset(share, 0, sizeof *share);
  share->fd = -1;
}

void share_drop_locks(struct share *share) {
  if (share->fd >= 0) file_close(share->fd);
  share->fd = -1;
}

int share_begin_opening(struct share *share, uint32_t timeout_ms) {
  return lock_wait(share->fd, OPENING_OFFSET, LOCK_EXCLUSIVE, timeout_ms);
}

void share_end_opening(struct share *share) {
  lock_release(share->fd, OPENING_OFFSET);
}

int share_is_unused(struct share *share, bool *unused_out) {
  return lock_is_free_from(share->fd, CHUNK_LOCK_OFFSET, unused_out);
}

/* How much of the file is in the view, looked at anew. */
static uint64_t look_at_length(struct share *share) {
  uint64_t known = atomic_load(&share->known_bytes);
  uint64_t length;
  if (share->fd < 0 || file_size(share->fd, &length) != MMCMAP_OK) return known;
  if (length > share->size_bytes) length = share->size_bytes;
  if (length > known) atomic_store(&share->known_bytes, length);
  return length > known ? length : known;
}

int share_reset(struct share *share) {
  static const struct {
    uint64_t magic;
    uint8_t zeros[VIEW_BYTES_MIN - sizeof(uint64_t)];
  } blank = {.magic = SHARE_MAGIC};
  /* Not by the view: where the file is a hole, and the disk full, that would be
     a signal. Nor allocated first: a full file system may refuse even what is
     there already. */
  int code = file_truncate(share->fd, VIEW_BYTES_MIN);
  if (code == MMCMAP_OK) code = file_write(share->fd, &blank, sizeof blank, 0);
  atomic_store(&share->known_bytes, VIEW_BYTES_MIN);
  share->segment_count = 0;
  return code;
}

static uint64_t chunk_offset(uint32_t index) {
  return SHARE_HEADER_BYTES + (uint64_t)index * SHARE_CHUNK_BYTES;
}

struct share_chunk *share_chunk(struct share *share, uint32_t index) {
  uint64_t offset = chunk_offset(index);
  if (!bytes_within(
          offset, SHARE_CHUNK_BYTES,
          atomic_load_explicit(&share->known_bytes, memory_order_relaxed)) &&
      !bytes_within(offset, SHARE_CHUNK_BYTES, look_at_length(share)))
    return NULL;
  return (struct share_chunk *)(void *)(share->at + offset);
}

/* Chunks are counted by whoever first takes one: a higher count is only ever
   stored while its last chunk's lock is held, and counts do not fall. */
static void count_chunk(struct share *share, uint32_t index) {
  _Atomic uint32_t *count = &share->header->chunk_count;
  uint32_t seen = atomic_load(count);
  while (seen <= index &&
         !atomic_compare_exchange_weak(count, &seen, index + 1))
    continue;
}

bool share_take_chunk(struct share *share, uint32_t index, int *code_out) {
  uint64_t end = chunk_offset(index) + SHARE_CHUNK_BYTES;
  *code_out = MMCMAP_OK;
  if (end > share->size_bytes) {
    *code_out = error_set(MMCMAP_EADDRESS, "reader table");
    return false;
  }
  if (share->fd >= 0) {
    int code = lock_try(share->fd, CHUNK_LOCK_OFFSET + index, LOCK_EXCLUSIVE);
    if (code == MMCMAP_EBUSY) return false;
    /* All up to its end: whoever has taken one before may not have come to it. */
    if (code == MMCMAP_OK && end > VIEW_BYTES_MIN &&
        index >= atomic_load(&share->header->chunk_count))
      code = file_allocate(share->fd, 0, end);
    if (code != MMCMAP_OK) {
      *code_out = code;
      lock_release(share->fd, CHUNK_LOCK_OFFSET + index);
      return false;
    }
    (void)look_at_length(share);
  }
  count_chunk(share, index);
  return true;
}

void share_give_chunk(struct share *share, uint32_t index) {
  if (share->fd >= 0) lock_release(share->fd, CHUNK_LOCK_OFFSET + index);
}
