/* SPDX-License-Identifier: MIT */
#include "space/blocks.h"

#include "base/errors.h"
#include "base/testing.h"
#include "os/file.h"
#include "os/process.h"
#include "space/usage.h"

/* So long the disk counts as full. */
static const uint64_t REFUSED_NS = UINT64_C(60000000000);

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- Blocks --------------------------------------------------------------- */

/* If the disk `is_full` nothing is asked for. What may be there may be refused, too, on
   XFS: what was written has blocks. */
static int allocate(const struct space *space, uint64_t begin, uint64_t end,
                    bool is_full, bool may_be_there) {
  int code = MMCMAP_ENOSPC;
  if (begin >= end) return MMCMAP_OK;
  if (!is_full) code = file_allocate(space->fd, begin, end - begin);
  if (code == MMCMAP_ENOSPC && may_be_there &&
      file_is_written(space->fd, begin, end - begin))
    return MMCMAP_OK;
  return code;
}

static void note_filled(const struct space *space, uint64_t number) {
  uint32_t state = atomic_fetch_and(&usage_entry(space, number)->state,
                                    ~(uint32_t)SHARE_SEGMENT_HOLE);
  if ((state & SHARE_SEGMENT_HOLE) != 0 && number < space->segment_count)
    atomic_fetch_add(&space->readers->share->header->upkeep.free_count, 1);
}

int blocks_fill(struct space *space, uint64_t number, uint64_t run,
                bool is_full) {
  for (uint64_t i = number; i < number + run; i++) {
    struct share_segment *entry = usage_entry(space, i);
    uint64_t begin = i << space->segment_shift;
    uint64_t end = least(begin + space->segment_size, space->writable_bytes);
    bool is_hole = (usage_state(entry) & SHARE_SEGMENT_HOLE) != 0;
    /* Of what was free before the session it is not known. */
    if (!is_hole && usage_is_of_session(space, entry)) continue;
    int code = allocate(space, begin, end, is_full, !is_hole);
    if (code != MMCMAP_OK) return code;
    note_filled(space, i);
  }
  return MMCMAP_OK;
}

/* ---- Pages ---------------------------------------------------------------- */

int blocks_write_zeros(int fd, uint64_t offset, uint64_t size,
                       uint64_t page_bytes) {
  static uint8_t zeros[SPACE_PIECE_BYTES]; /* not in the file of the library */
  int code = MMCMAP_OK;
  while (size > 0 && code == MMCMAP_OK) {
    uint64_t part = page_bytes - offset % page_bytes;
    if (part > size) part = size;
    code = file_write(fd, zeros, (size_t)part, offset);
    offset += part;
    size -= part;
  }
  return code;
}

bool space_makes_fine(const struct space *space, uint64_t run) {
  const struct share_upkeep *upkeep = &space->readers->share->header->upkeep;
  return space->is_fine &&
         atomic_load_explicit(&space->claim, memory_order_relaxed) <=
             SPACE_FOR_UPKEEP &&
         run << space->segment_shift <= SPACE_PIECE_BYTES &&
         atomic_load(&upkeep->is_full) == 0 &&
         (space->refused_ns == 0 ||
          process_monotonic_ns() - space->refused_ns > REFUSED_NS);
}

/* The blocks may be lost: not again for a while. The flag first, as of punch(). */
static int zero(struct space *space, uint64_t number, uint64_t begin,
                uint64_t end) {
  struct share_upkeep *upkeep = &space->readers->share->header->upkeep;
  uint64_t free_count = atomic_load(&upkeep->free_count);
  if (number < space->segment_count && free_count > 0)
    atomic_store(&upkeep->free_count, free_count - 1);
  atomic_fetch_or(&usage_entry(space, number)->state, SHARE_SEGMENT_HOLE);
  int code = file_zero(space->fd, begin, end - begin);
  if (code == MMCMAP_OK)
    (void)blocks_write_zeros(space->fd, begin, end - begin, EXTENT_PAGE_BYTES);
  else if (code == MMCMAP_ENOTSUP)
    code = MMCMAP_OK;
  else {
    space->refused_ns = process_monotonic_ns();
    code = allocate(space, begin, end, false, true);
  }
  if (code == MMCMAP_OK) note_filled(space, number);
  return code;
}

/* Small pages for a free segment, behind what the first one has before its header:
   those that the kernel has are dropped, and written anew one by one. Where the
   file system cannot do that they stay as they are. */
static int make_fine(struct space *space, uint64_t number) {
  struct share_segment *entry = usage_entry(space, number);
  uint64_t begin = segment_header_offset(number, space->segment_size);
  uint64_t end =
      least((number + 1) << space->segment_shift, space->writable_bytes);
  uint64_t coarse_bytes =
      atomic_load_explicit(&space->readers->share->header->upkeep.coarse_bytes,
                           memory_order_relaxed);
  bool is_coarse = begin < coarse_bytes && !usage_is_fine(entry);
  int code = MMCMAP_OK;
  if (begin < end && (is_coarse || BROKEN(TESTING_FINE)))
    code = zero(space, number, begin, end);
  if (code == MMCMAP_OK) atomic_fetch_or(&entry->state, SHARE_SEGMENT_FINE);
  return code;
}

int blocks_make_ready(struct space *space, uint64_t number, uint64_t run,
                      bool is_full) {
  int code = blocks_fill(space, number, run, is_full);
  /* Small pages may cost the blocks: there are others, and the reserve. */
  bool is_fine = code == MMCMAP_OK && space_makes_fine(space, run) &&
                 space_check_reserve(space, number, run) == MMCMAP_OK;
  for (uint64_t i = number; i < number + run && code == MMCMAP_OK; i++) {
    /* What the table says of those behind all others is of before the file was cut. */
    if (i >= space->segment_count)
      atomic_fetch_and(&usage_entry(space, i)->state,
                       ~(uint32_t)SHARE_SEGMENT_FINE);
    if (is_fine) code = make_fine(space, i);
  }
  return code;
}

/* ---- Giving back --------------------------------------------------------- */

static bool may_be_punched(const struct space *space, uint64_t number) {
  uint64_t end = (number + 1) << space->segment_shift;
  return number > 0 && end <= space->writable_bytes &&
         usage_state(usage_entry(space, number)) == SHARE_SEGMENT_FREE;
}

/* The flags first: who dies in between leaves no hole that looks like blocks. */
static bool punch(struct space *space, uint64_t number, uint64_t run) {
  /* It is in no pages now, and not known to be in small ones when it is used again. */
  for (uint64_t i = number; i < number + run; i++)
    atomic_store(&usage_entry(space, i)->state,
                 SHARE_SEGMENT_FREE | SHARE_SEGMENT_HOLE);
  if (file_punch(space->fd, number << space->segment_shift,
                 run << space->segment_shift) == MMCMAP_OK) {
    space_use_free(space, run);
    return true;
  }
  for (uint64_t i = number; i < number + run; i++)
    usage_set_state(usage_entry(space, i), SHARE_SEGMENT_FREE);
  return false;
}

bool space_punch(struct space *space, uint64_t kept) {
  uint64_t left = SPACE_PUNCH_MAX >> space->segment_shift;
  uint64_t run = 0;
  if (left == 0) left = 1;
  for (uint64_t i = 0; i < space->segment_count; i++) {
    if (usage_state(usage_entry(space, i)) == SHARE_SEGMENT_FREE && kept > 0) {
      kept--;
      continue;
    }
    if (!may_be_punched(space, i)) continue;
    if (left == 0) return true;
    for (run = 1; run < left && i + run < space->segment_count &&
                  may_be_punched(space, i + run);)
      run++;
    if (!punch(space, i, run)) return false;
    left -= run;
    i += run - 1;
  }
  return false;
}
