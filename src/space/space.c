/* SPDX-License-Identifier: MIT */
/*
 * Growth. The file grows in steps that follow its size, so that a small store
 * stays small and a large one asks the file system rarely; where a full step
 * does not fit, the least that is needed is tried.
 */
#include "space/space.h"

#include "base/bytes.h"
#include "base/errors.h"
#include "base/testing.h"
#include "os/file.h"
#include "share/owner_lock.h"

static _Atomic uint64_t *shared_size(const struct space *space) {
  return &space->readers->share->header->live.size_bytes;
}

/* Lengths only grow while a store is open: a look that comes late changes
   nothing. */
static void know(struct space *space, uint64_t size) {
  _Atomic uint64_t *cell = &space->known_bytes;
  uint64_t known = atomic_load_explicit(cell, memory_order_relaxed);
  while (known < size &&
         !atomic_compare_exchange_weak_explicit(
             cell, &known, size, memory_order_release, memory_order_relaxed))
    continue;
}

uint64_t space_look(struct space *space) {
  uint64_t real;
  uint64_t shared =
      atomic_load_explicit(shared_size(space), memory_order_acquire);
  if (shared <= space_size(space)) return space_size(space);
  /* Another process, or anybody, has written that number. */
  if (file_size(space->fd, &real) != MMCMAP_OK) return space_size(space);
  if (shared > real) shared = real;
  if (shared > space->map.size_bytes) shared = space->map.size_bytes;
  know(space, shared);
  return space_size(space);
}

void space_refresh(const void *context, struct node_source *now_out) {
  struct space *space = (struct space *)(uintptr_t)context;
  now_out->base = space->map.read;
  now_out->size = space_look(space);
  now_out->refresh = NULL;
  now_out->context = NULL;
  now_out->is_cut =
      !BROKEN(BREAK_CUT_IS_DAMAGE) &&
      atomic_load_explicit(shared_size(space), memory_order_relaxed) >
          space->map.size_bytes;
}

int space_check_range(const struct space *space) {
  if (atomic_load(shared_size(space)) <= space->map.size_bytes)
    return MMCMAP_OK;
  return error_set(MMCMAP_EADDRESS, "another process has made it longer");
}

void space_set_size(struct space *space, uint64_t size_bytes) {
  atomic_store_explicit(shared_size(space), size_bytes, memory_order_release);
  atomic_store_explicit(&space->known_bytes, size_bytes, memory_order_release);
}

/* Takes the lock on the length. A dead owner has left nothing to repair: the
   file is at least as long as the number says. */
static int begin_growth(struct space *space) {
  uint32_t owner;
  bool inherited;
  int code = readers_owner(space->readers, &owner);
  if (code == MMCMAP_OK)
    code = owner_lock_acquire(space->readers,
                              &space->readers->share->header->growth_lock,
                              owner, OWNER_LOCK_FOREVER, &inherited);
  if (code == MMCMAP_OK) (void)space_look(space);
  return code;
}

static void end_growth(struct space *space) {
  owner_lock_release(&space->readers->share->header->growth_lock);
}

static uint64_t growth_step(uint64_t size) {
  uint64_t step = size / 64;
  if (step < SPACE_GROWTH_MIN) step = SPACE_GROWTH_MIN;
  if (step > SPACE_GROWTH_MAX) step = SPACE_GROWTH_MAX;
  return step;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* In writes that end where pages of that size do. */
static int write_zeros(int fd, uint64_t offset, uint64_t size,
                       uint64_t page_bytes) {
  static uint8_t zeros[SPACE_PIECE_BYTES]; /* not in the file of the library */
  int code = MMCMAP_OK;
  while (size > 0 && code == MMCMAP_OK) {
    uint64_t part = least(page_bytes - offset % page_bytes, size);
    code = file_write(fd, zeros, (size_t)part, offset);
    offset += part;
    size -= part;
  }
  return code;
}

/* To how long a file grows that must become `needed` bytes long. */
static uint64_t growth_of(const struct space *space, uint64_t size,
                          uint64_t needed, bool *in_pieces_out) {
  uint64_t step_end =
      bytes_align_up(size + growth_step(size), SPACE_GROWTH_MIN);
  *in_pieces_out = space->in_pieces && size >= SPACE_PIECES_FROM &&
                   needed - size < SPACE_PIECE_BYTES;
  if (*in_pieces_out) return bytes_align_up(needed, SPACE_PIECE_BYTES);
  return step_end < needed ? needed : step_end;
}

static int grow(struct space *space, uint64_t end) {
  uint64_t size = space_size(space);
  if (end <= size) return MMCMAP_OK;
  int code = space_check_range(space);
  if (code != MMCMAP_OK) return code;
  uint64_t limit = space->map.size_bytes;
  if (space->max_size_bytes != 0) {
    if (end > space->max_size_bytes)
      return error_set(MMCMAP_EFULL, "growing the file");
    limit = least(limit, space->max_size_bytes);
  }
  if (end > limit) return error_set(MMCMAP_EADDRESS, "growing the file");
  uint64_t needed = least(bytes_align_up(end, EXTENT_PAGE_BYTES), limit);
  bool in_pieces;
  uint64_t wanted = least(growth_of(space, size, needed, &in_pieces), limit);
  code = file_allocate(space->fd, size, wanted - size);
  if (code == MMCMAP_ENOSPC && needed < wanted) {
    wanted = needed;
    code = file_allocate(space->fd, size, wanted - size);
  }
  if (code != MMCMAP_OK) return code;
  /* So that they lie in memory side by side; if it fails they are there. */
  if (in_pieces)
    (void)write_zeros(space->fd, size, wanted - size, SPACE_PIECE_BYTES);
  space_set_size(space, wanted);
  return MMCMAP_OK;
}

int space_ensure(struct space *space, uint64_t end) {
  if (end <= space_size(space) || end <= space_look(space)) return MMCMAP_OK;
  int code = begin_growth(space);
  if (code != MMCMAP_OK) return code;
  code = grow(space, end);
  end_growth(space);
  return code;
}

void space_write_ahead(struct space *space, uint64_t end, bool in_pieces) {
  if (begin_growth(space) != MMCMAP_OK) return;
  uint64_t size = space_size(space);
  in_pieces = in_pieces && size >= SPACE_PIECES_FROM;
  uint64_t most = in_pieces ? SPACE_PIECES_AHEAD_MAX : SPACE_AHEAD_MAX;
  uint64_t unit = in_pieces ? SPACE_PIECE_BYTES : SPACE_GROWTH_MIN;
  uint64_t ahead = bytes_align_up(size + least(size / 4, most), unit) - size;
  uint64_t limit = space->map.size_bytes;
  if (space->max_size_bytes != 0) limit = least(limit, space->max_size_bytes);
  if (size == atomic_load(shared_size(space)) && end <= size &&
      size - end < ahead / 2 && size + ahead <= limit &&
      file_allocate(space->fd, size, ahead) == MMCMAP_OK &&
      write_zeros(space->fd, size, ahead,
                  in_pieces ? SPACE_PIECE_BYTES : EXTENT_PAGE_BYTES) ==
          MMCMAP_OK)
    space_set_size(space, size + ahead);
  end_growth(space);
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
  if (code == MMCMAP_OK) space_set_size(space, kept);
  return code;
}
