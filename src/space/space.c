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
#include "os/process.h"
#include "share/owner_lock.h"
#include "space/blocks.h"
#include "space/piece.h"
#include "space/usage.h"

/* Of fewer segments none can be spared. */
enum { LIMIT_SEGMENTS_MIN = 4 };

/* Writing ahead begins nothing more after so long: who commits may be in a hurry. */
enum { AHEAD_NS = 1000000 };

/* A disk with less than such a part of the file is nearly full. */
enum { LITTLE_PARTS = 4 };

static _Atomic uint64_t *shared_size(const struct space *space) {
  return &space->readers->share->header->live.size_bytes;
}

uint64_t space_look(struct space *space) {
  uint64_t real;
  uint64_t shared =
      atomic_load_explicit(shared_size(space), memory_order_acquire);
  if (shared == space_size(space)) return shared;
  /* Another process, or anybody, has written that number. */
  if (file_size(space->fd, &real) != MMCMAP_OK) return space_size(space);
  if (shared > real) shared = real;
  if (shared > space->map.size_bytes) shared = space->map.size_bytes;
  atomic_store_explicit(&space->known_bytes, shared, memory_order_release);
  return shared;
}

/* ---- The reserve --------------------------------------------------------- */

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Others may have another limit, and anybody may have written the word. On a small disk
   there is as much to spare as below a small limit. */
uint64_t space_limit(const struct space *space) {
  uint64_t disk = atomic_load_explicit(
      &space->readers->share->header->upkeep.disk_bytes, memory_order_relaxed);
  uint64_t limit = space->max_size_bytes;
  if (disk >> space->segment_shift < SPACE_SMALL_SEGMENTS) return limit;
  if (disk < space_size(space)) disk = space_size(space);
  return limit == 0 || disk < limit ? disk : limit;
}

static uint64_t reserve_limit(const struct space *space) {
  uint64_t limit = space_limit(space);
  if (limit == 0) return SPACE_RESERVE_MAX;
  return space->max_size_bytes != 0 ? limit / 4
                                    : least(limit / 4, SPACE_RESERVE_MAX);
}

/* What puts leave in all; anybody may have written the word. */
static uint64_t whole_reserve(const struct space *space) {
  uint64_t reserve =
      atomic_load_explicit(&space->readers->share->header->upkeep.reserve_bytes,
                           memory_order_relaxed);
  /* It is not known yet, in a session that has just begun. */
  if (reserve == 0 && space->max_size_bytes != 0 && !BROKEN(BREAK_NO_RESERVE))
    reserve = SPACE_RESERVE_SEGMENTS * (uint64_t)space->segment_size;
  reserve = least(reserve, reserve_limit(space));
  return reserve < SPACE_RESERVE_MIN ? SPACE_RESERVE_MIN : reserve;
}

static enum space_claim claim_of(const struct space *space) {
  return (enum space_claim)atomic_load_explicit(&space->claim,
                                                memory_order_relaxed);
}

/* In a store that may not grow a commit has to find a segment to go on in. A small one,
   with one head, can always be committed in the segment of the open frame, and needs the
   other to make room. */
static uint64_t for_commits(const struct space *space) {
  enum space_claim last =
      space_is_small(space) ? SPACE_AT_LAST : SPACE_FOR_COMMITS;
  bool has_limit =
      space_limit(space) / LIMIT_SEGMENTS_MIN >= space->segment_size;
  return has_limit && claim_of(space) < last ? space->segment_size : 0;
}

/* What whoever has the writer lock leaves. */
static uint64_t reserve_bytes(const struct space *space) {
  static const uint64_t quarters[] = {
      [SPACE_FOR_PUTS] = 4, [SPACE_FOR_UPKEEP] = 3, [SPACE_FOR_DELETES] = 2,
      [SPACE_FOR_ROOM] = 1, [SPACE_AT_LAST] = 0,    [SPACE_FOR_COMMITS] = 0};
  return whole_reserve(space) / 4 * quarters[claim_of(space)] +
         for_commits(space);
}

/* Free segments that have blocks, as they were when all were last looked at. */
static uint64_t free_bytes_of(const struct space *space) {
  return atomic_load_explicit(&space->readers->share->header->upkeep.free_count,
                              memory_order_relaxed) *
         space->segment_size;
}

/* Segments that the next commit frees. */
static uint64_t coming_bytes(const struct space *space) {
  return atomic_load_explicit(
             &space->readers->share->header->upkeep.coming_count,
             memory_order_relaxed) *
         space->segment_size;
}

/* What of a reserve has to be free already: after a commit, for which some is,
   the rest is. */
static uint64_t reserve_now(const struct space *space, uint64_t reserve) {
  uint64_t coming = coming_bytes(space);
  uint64_t floor = SPACE_RESERVE_MIN + for_commits(space);
  if (reserve <= floor) return reserve;
  return reserve - floor > coming ? reserve - coming : floor;
}

/* What of a reserve the file must have behind all that is used: what is free
   counts. */
static uint64_t behind(const struct space *space, uint64_t reserve) {
  uint64_t free_bytes = free_bytes_of(space);
  reserve = reserve_now(space, reserve);
  return reserve > free_bytes ? reserve - free_bytes : 0;
}

/* What is free beyond the reserve, or soon will be. */
static uint64_t spare_bytes(const struct space *space) {
  uint64_t reserve = whole_reserve(space);
  uint64_t free_bytes = free_bytes_of(space) + coming_bytes(space);
  return free_bytes > reserve ? free_bytes - reserve : 0;
}

static uint64_t reserve_behind(const struct space *space) {
  return behind(space, reserve_bytes(space));
}

static void grant(struct space *space) {
  uint64_t kept = reserve_behind(space);
  space->granted_bytes =
      space->writable_bytes > kept ? space->writable_bytes - kept : 0;
}

bool space_has_spare(const struct space *space, uint64_t size) {
  uint64_t begun = space->segment_count << space->segment_shift;
  uint64_t behind_all =
      space->writable_bytes > begun ? space->writable_bytes - begun : 0;
  return free_bytes_of(space) + behind_all >=
         reserve_now(space, reserve_bytes(space)) + size;
}

/* What is free, and what the file may still grow by. */
static uint64_t room_of(const struct space *space) {
  uint64_t begun = space->segment_count << space->segment_shift;
  uint64_t end = space_limit(space);
  if (end < space->writable_bytes) end = space->writable_bytes;
  return free_bytes_of(space) + (end > begun ? end - begun : 0);
}

bool space_has_room_for_puts(const struct space *space) {
  uint64_t kept = whole_reserve(space) + space->segment_size; /* for commits */
  return room_of(space) >= reserve_now(space, kept) + space->segment_size;
}

void space_set_reserve(struct space *space, uint64_t wanted_bytes) {
  uint64_t most = reserve_limit(space);
  if (space_limit(space) == 0) most = least(space->writable_bytes / 16, most);
  atomic_store_explicit(&space->readers->share->header->upkeep.reserve_bytes,
                        least(wanted_bytes, most), memory_order_relaxed);
  grant(space);
}

void space_set_claim(struct space *space, enum space_claim claim) {
  if (LIKELY(claim_of(space) == claim)) return;
  atomic_store_explicit(&space->claim, claim, memory_order_relaxed);
  grant(space);
}

/* -------------------------------------------------------------------------- */

void space_enter(struct space *space) {
  space->writable_bytes = space_look(space);
  grant(space);
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

/* In large pages, as far as anybody knows. */
void space_note_coarse(struct space *space, uint64_t end) {
  _Atomic uint64_t *coarse =
      &space->readers->share->header->upkeep.coarse_bytes;
  if (atomic_load_explicit(coarse, memory_order_relaxed) < end)
    atomic_store_explicit(coarse, end, memory_order_relaxed);
}

void space_set_size(struct space *space, uint64_t size_bytes) {
  atomic_store_explicit(shared_size(space), size_bytes, memory_order_release);
  atomic_store_explicit(&space->known_bytes, size_bytes, memory_order_release);
}

/* Takes the lock on the length. A dead owner has left nothing to repair: the
   file is at least as long as the number says. */
static int begin_growth(struct space *space, uint64_t *size_out) {
  uint32_t owner;
  bool inherited;
  int code = readers_owner(space->readers, &owner);
  if (code == MMCMAP_OK && !BROKEN(BREAK_GROW_UNLOCKED))
    code = owner_lock_acquire(space->readers,
                              &space->readers->share->header->growth_lock,
                              owner, OWNER_LOCK_FOREVER, &inherited);
  *size_out = code == MMCMAP_OK ? space_look(space) : 0;
  return code;
}

static void end_growth(struct space *space) {
  if (BROKEN(BREAK_GROW_UNLOCKED)) return;
  owner_lock_release(&space->readers->share->header->growth_lock);
}

static uint64_t growth_step(uint64_t size) {
  uint64_t step = size / 64;
  if (step < SPACE_GROWTH_MIN) step = SPACE_GROWTH_MIN;
  if (step > SPACE_GROWTH_MAX) step = SPACE_GROWTH_MAX;
  return step;
}

static int append_zeros(int fd, uint64_t size, uint64_t more,
                        uint64_t page_bytes) {
  int code = file_allocate(fd, size, more);
  TEST_POINT("ahead");
  return code == MMCMAP_OK ? blocks_write_zeros(fd, size, more, page_bytes)
                           : code;
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

/* Under the growth lock, or the writer lock: what is little is noted, and told anew by
   every look, until it is no more. What a quota leaves is not told. */
static void note_disk(struct space *space, uint64_t size) {
  uint64_t bytes;
  mmcmap_error before;
  mmcmap_last_error(&before);
  if (file_available(space->fd, &bytes) != MMCMAP_OK) {
    error_restore(&before);
    return;
  }
  bool is_little = bytes < size / LITTLE_PARTS;
  atomic_store(&space->readers->share->header->upkeep.disk_bytes,
               is_little ? size + bytes : 0);
}

void space_look_at_disk(struct space *space) {
  if (atomic_load(&space->readers->share->header->upkeep.disk_bytes) != 0)
    note_disk(space, space_size(space));
}

bool space_is_crowded(const struct space *space) {
  return claim_of(space) == SPACE_FOR_PUTS &&
         atomic_load_explicit(&space->readers->share->header->upkeep.is_crowded,
                              memory_order_relaxed) != 0 &&
         space_limit(space) != 0 && !space_is_small(space);
}

int space_check_crowd(const struct space *space) {
  if (LIKELY(!space_is_crowded(space))) return MMCMAP_OK;
  uint64_t limit = space->max_size_bytes;
  bool is_of_disk = limit == 0 || space_limit(space) < limit;
  return error_set(is_of_disk ? MMCMAP_ENOSPC : MMCMAP_EFULL,
                   "leaving room to delete");
}

static int allocate(struct space *space, uint64_t size, uint64_t needed,
                    uint64_t *wanted) {
  int code = file_allocate(space->fd, size, *wanted - size);
  if (code == MMCMAP_ENOSPC && needed < *wanted) {
    *wanted = needed;
    code = file_allocate(space->fd, size, *wanted - size);
  }
  note_disk(space, code == MMCMAP_OK ? *wanted : size);
  return code;
}

static int grow(struct space *space, uint64_t size, uint64_t end) {
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
  code = allocate(space, size, needed, &wanted);
  if (code != MMCMAP_OK) return code;
  /* So that they lie in memory side by side, or, for who syncs each change, that
     they have been written before: else the first sync of each page would have the
     file system commit that, too. If it fails they are there. */
  if (in_pieces || wanted - size > SPACE_AHEAD_MAX)
    space_note_coarse(space, wanted);
  if (in_pieces)
    (void)blocks_write_zeros(space->fd, size, wanted - size, SPACE_PIECE_BYTES);
  else if (!space->in_pieces && wanted - size <= SPACE_AHEAD_MAX)
    (void)blocks_write_zeros(space->fd, size, wanted - size, EXTENT_PAGE_BYTES);
  space_set_size(space, wanted);
  return MMCMAP_OK;
}

int space_ensure(struct space *space, uint64_t end) {
  uint64_t size;
  if (end <= space->granted_bytes) return MMCMAP_OK;
  int code = begin_growth(space, &size);
  if (code != MMCMAP_OK) return code;
  code = grow(space, size, end + reserve_behind(space));
  if (code == MMCMAP_OK)
    space->writable_bytes = atomic_load(shared_size(space));
  end_growth(space);
  grant(space);
  if (code == MMCMAP_OK && end > space->granted_bytes)
    code = space_ensure(space, end); /* the reserve grows with the file */
  return code;
}

/* Fills holes, other than these segments, until `wanted` bytes are, or none is
   left or can be: how many. */
static uint64_t fill_holes(struct space *space, uint64_t number, uint64_t run,
                           uint64_t wanted) {
  uint64_t filled = 0;
  for (uint64_t i = 1; i < space->segment_count && filled < wanted; i++) {
    uint32_t state = usage_state(usage_entry(space, i));
    if (state != (SHARE_SEGMENT_FREE | SHARE_SEGMENT_HOLE) ||
        (i >= number && i < number + run))
      continue;
    if (blocks_fill(space, i, 1, false) != MMCMAP_OK) break;
    filled += space->segment_size;
  }
  return filled;
}

int space_check_reserve(struct space *space, uint64_t number, uint64_t run) {
  uint64_t free_count = atomic_load_explicit(
      &space->readers->share->header->upkeep.free_count, memory_order_relaxed);
  uint64_t begun = space->segment_count << space->segment_shift;
  uint64_t reserve = reserve_now(space, reserve_bytes(space));
  uint64_t left =
      free_count > run ? (free_count - run) << space->segment_shift : 0;
  if (number >= space->segment_count || left >= reserve) return MMCMAP_OK;
  left += fill_holes(space, number, run, reserve - left);
  if (left >= reserve) return MMCMAP_OK;
  uint64_t size;
  int code = begin_growth(space, &size);
  if (code != MMCMAP_OK) return code;
  code = grow(space, size, begun + reserve - left);
  if (code == MMCMAP_OK)
    space->writable_bytes = atomic_load(shared_size(space));
  end_growth(space);
  grant(space);
  return code;
}

/* How much is written ahead of what is used, in such units. */
static uint64_t ahead_of(uint64_t size, bool in_pieces, uint64_t *unit_out) {
  *unit_out = in_pieces ? SPACE_PIECE_BYTES : SPACE_GROWTH_MIN;
  return least(size / 16, in_pieces ? SPACE_PIECES_AHEAD_MAX : SPACE_AHEAD_MAX);
}

/* The next part of it, up to `target`, which is 0 at first: whether there is more. */
static bool write_part_ahead(struct space *space, uint64_t end, bool in_pieces,
                             uint64_t *target) {
  uint64_t size, unit;
  if (begin_growth(space, &size) != MMCMAP_OK) return false;
  in_pieces = in_pieces && size >= SPACE_PIECES_FROM;
  uint64_t wanted = ahead_of(size, in_pieces, &unit);
  uint64_t ahead = bytes_align_up(size + wanted, unit) - size;
  uint64_t limit = space->map.size_bytes;
  if (space->max_size_bytes != 0) limit = least(limit, space->max_size_bytes);
  bool is_little = *target != 0 ||
                   size - end < behind(space, whole_reserve(space)) + ahead / 2;
  if (*target == 0) *target = size + ahead;
  uint64_t next = in_pieces ? size - size % unit + unit : *target;
  /* What is free comes first. */
  bool grows =
      size < *target && spare_bytes(space) == 0 && is_little &&
      size == atomic_load(shared_size(space)) && end <= size && next <= limit &&
      append_zeros(space->fd, size, next - size,
                   in_pieces ? SPACE_PIECE_BYTES : EXTENT_PAGE_BYTES) ==
          MMCMAP_OK;
  if (grows && in_pieces) space_note_coarse(space, next);
  if (grows) space_set_size(space, next);
  end_growth(space);
  return grows && next < *target;
}

void space_write_ahead(struct space *space, uint64_t end, bool in_pieces) {
  uint64_t end_ns = process_monotonic_ns() + AHEAD_NS, target = 0;
  /* Whoever has to grow the file himself waits for a part alone. */
  while (write_part_ahead(space, end, in_pieces, &target) &&
         process_monotonic_ns() < end_ns)
    ;
}

/* ---- Segments ------------------------------------------------------------ */

bool space_is_compacting(const struct space *space) {
  uint64_t until_ns =
      atomic_load(&space->readers->share->header->upkeep.compacting_ns);
  return until_ns != 0 && process_monotonic_ns() < until_ns;
}

static _Atomic uint64_t *first_free(const struct space *space) {
  return &space->readers->share->header->upkeep.first_free;
}

uint64_t space_choose_next(struct space *space, uint64_t left) {
  uint64_t number;
  if (piece_find_free(space, left, &number) &&
      blocks_make_ready(space, number, 1, false) == MMCMAP_OK)
    return number;
  return space_choose_segments(space, SEGMENT_LOG, 1);
}

uint64_t space_choose_segments(struct space *space, enum segment_kind kind,
                               uint64_t run) {
  uint64_t first = kind == SEGMENT_LOG ? 0 : 1;
  uint64_t number;
  bool has_failed = false;
  /* On a full disk holes stay holes, and what has blocks is taken. */
  while (usage_find_free(space, first, run, &number)) {
    if (blocks_make_ready(space, number, run, has_failed) == MMCMAP_OK) {
      /* It is the lowest, but for holes that cannot be filled, which the next
         sweep finds again; below a longer run there may be others. */
      if (kind == SEGMENT_LOG) *first_free(space) = number;
      return number;
    }
    has_failed = true;
    first = number + 1;
  }
  number = space->segment_count;
  while (!has_failed && number > 1 &&
         usage_is(usage_entry(space, number - 1), SHARE_SEGMENT_FREE))
    number--;
  return number;
}

void space_use_free(struct space *space, uint64_t count) {
  struct share_upkeep *upkeep = &space->readers->share->header->upkeep;
  uint64_t free_count = atomic_load(&upkeep->free_count);
  atomic_store(&upkeep->free_count,
               free_count > count ? free_count - count : 0);
  grant(space);
}

int space_begin_segments(struct space *space, enum segment_kind kind,
                         uint64_t number, uint64_t run, uint64_t end,
                         uint64_t epoch) {
  uint64_t offset = segment_header_offset(number, space->segment_size);
  if (run > SLOT_OFFSET_LIMIT / space->segment_size - number)
    return error_set(MMCMAP_EFULL, "beginning a segment");
  uint64_t count = number + run;
  if (count < space->segment_count) count = space->segment_count;
  int code = space_check_reserve(space, number, run);
  if (code == MMCMAP_OK) code = space_ensure(space, end);
  if (code == MMCMAP_OK)
    code = share_ensure_segments(space->readers->share, count);
  if (code == MMCMAP_OK) code = blocks_make_ready(space, number, run, false);
  if (code != MMCMAP_OK) return code;
  struct segment_header header = {
      .kind = kind, .number = number, .run = run, .sequence = epoch};
  segment_encode(&header, space->file_id, space->map.write + offset);
  usage_begin(space, number, run,
              kind == SEGMENT_LOG ? SHARE_SEGMENT_LOG : SHARE_SEGMENT_LARGE,
              epoch);
  if (number < space->segment_count) space_use_free(space, run);
  if (number == *first_free(space)) *first_free(space) = number + 1;
  space->segment_count = count;
  return MMCMAP_OK;
}

/* ---- Giving back --------------------------------------------------------- */

/* The most that space_write_ahead() leaves, and somebody may be about to use: much
   that is free is used first, and then none of it is left. */
static uint64_t left_ahead(const struct space *space, uint64_t size) {
  uint64_t unit;
  uint64_t ahead = ahead_of(size, size >= SPACE_PIECES_FROM, &unit);
  return spare_bytes(space) > ahead ? 0 : ahead + ahead / 2 + unit;
}

int space_cut(struct space *space, uint64_t end, bool at_all) {
  uint64_t size;
  if (!at_all) end += behind(space, whole_reserve(space));
  uint64_t kept =
      bytes_align_up(end, at_all ? EXTENT_PAGE_BYTES : SPACE_GROWTH_MIN);
  if (kept < SPACE_FILE_SIZE_MIN) kept = SPACE_FILE_SIZE_MIN;
  int code = begin_growth(space, &size);
  if (code != MMCMAP_OK) return code;
  uint64_t slack = at_all ? 0 : growth_step(kept) + left_ahead(space, size);
  if (size > kept && size - kept > slack) {
    /* The number first: who dies in between leaves a longer file. */
    space_set_size(space, kept);
    space->writable_bytes = kept;
    grant(space);
    code = file_truncate(space->fd, kept);
  }
  end_growth(space);
  return code;
}

int space_trim(struct space *space, uint64_t end) {
  uint64_t kept = bytes_align_up(end, SPACE_GROWTH_MIN);
  if (kept >= space_size(space)) return MMCMAP_OK;
  int code = file_truncate(space->fd, kept);
  if (code != MMCMAP_OK) return code;
  space_set_size(space, kept);
  space->writable_bytes = kept;
  grant(space);
  return MMCMAP_OK;
}
