/* SPDX-License-Identifier: MIT */
/*
 * Growth. The file grows in steps that follow its size, so that a small store
 * stays small and a large one asks the file system rarely; where a full step
 * does not fit, the least that is needed is tried.
 */
#include "space/space.h"

#include "base/bytes.h"
#include "base/errors.h"
#include "os/file.h"

static uint64_t growth_step(uint64_t size) {
  uint64_t step = size / 64;
  if (step < SPACE_GROWTH_MIN) step = SPACE_GROWTH_MIN;
  if (step > SPACE_GROWTH_MAX) step = SPACE_GROWTH_MAX;
  return step;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static int grow(struct space *space, uint64_t end) {
  uint64_t size = space_size(space);
  if (end <= size) return MMCMAP_OK;
  uint64_t limit = space->map.size_bytes;
  if (space->max_size_bytes != 0) {
    if (end > space->max_size_bytes)
      return error_set(MMCMAP_EFULL, "growing the file");
    limit = least(limit, space->max_size_bytes);
  }
  if (end > limit) return error_set(MMCMAP_EADDRESS, "growing the file");
  uint64_t needed = least(bytes_align_up(end, EXTENT_PAGE_BYTES), limit);
  uint64_t wanted = bytes_align_up(size + growth_step(size), SPACE_GROWTH_MIN);
  wanted = least(wanted < needed ? needed : wanted, limit);
  int code = file_allocate(space->fd, size, wanted - size);
  if (code == MMCMAP_ENOSPC && needed < wanted) {
    wanted = needed;
    code = file_allocate(space->fd, size, wanted - size);
  }
  if (code != MMCMAP_OK) return code;
  atomic_store_explicit(&space->size_bytes, wanted, memory_order_release);
  return MMCMAP_OK;
}

int space_ensure(struct space *space, uint64_t end) {
  if (end <= space_size(space)) return MMCMAP_OK;
  thread_mutex_lock(&space->growth);
  int code = grow(space, end);
  thread_mutex_unlock(&space->growth);
  return code;
}

static int write_zeros(int fd, uint64_t offset, uint64_t size) {
  static const uint8_t zeros[EXTENT_PAGE_BYTES];
  int code = MMCMAP_OK;
  for (uint64_t done = 0; done < size && code == MMCMAP_OK;
       done += sizeof zeros)
    code = file_write(fd, zeros, sizeof zeros, offset + done);
  return code;
}

void space_write_ahead(struct space *space, uint64_t end) {
  thread_mutex_lock(&space->growth);
  uint64_t size = space_size(space);
  uint64_t ahead =
      bytes_align_up(least(size / 4, SPACE_AHEAD_MAX), SPACE_GROWTH_MIN);
  uint64_t limit = space->map.size_bytes;
  if (space->max_size_bytes != 0) limit = least(limit, space->max_size_bytes);
  if (end <= size && size - end < ahead / 2 && size + ahead <= limit &&
      file_allocate(space->fd, size, ahead) == MMCMAP_OK &&
      write_zeros(space->fd, size, ahead) == MMCMAP_OK)
    atomic_store_explicit(&space->size_bytes, size + ahead,
                          memory_order_release);
  thread_mutex_unlock(&space->growth);
}

int space_begin_segments(struct space *space, enum segment_kind kind,
                         uint64_t run, uint64_t epoch, uint64_t *number_out) {
  *number_out = 0;
  uint64_t number = space->segment_count;
  uint64_t offset = segment_header_offset(number, space->segment_size);
  if (run > SLOT_OFFSET_LIMIT / space->segment_size - number)
    return error_set(MMCMAP_EFULL, "beginning a segment");
  int code = space_ensure(space, offset + SEGMENT_HEADER_BYTES);
  if (code != MMCMAP_OK) return code;
  struct segment_header header = {
      .kind = kind, .number = number, .run = run, .sequence = epoch};
  segment_encode(&header, space->file_id, space->map.write + offset);
  space->segment_count += run;
  *number_out = number;
  return MMCMAP_OK;
}

int space_trim(struct space *space, uint64_t end) {
  uint64_t kept = bytes_align_up(end, SPACE_GROWTH_MIN);
  if (kept >= space_size(space)) return MMCMAP_OK;
  int code = file_truncate(space->fd, kept);
  if (code == MMCMAP_OK)
    atomic_store_explicit(&space->size_bytes, kept, memory_order_release);
  return code;
}
