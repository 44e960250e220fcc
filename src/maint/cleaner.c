/* SPDX-License-Identifier: MIT */
/*
 * Whatever a scan meets is looked up before it is believed: bytes that are no
 * node of the trie, whatever they look like, are dead.
 */
#include "maint/cleaner.h"

#include <stddef.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "format/frame.h"
#include "format/segment.h"
#include "maint/move.h"
#include "maint/scan.h"
#include "os/process.h"

enum { TURN_WAIT_MS = 8 }; /* the flusher's turns are shorter */

/* ---- Pages ---------------------------------------------------------------- */

static int clean_pages(struct writer *writer, uint64_t segment_end,
                       uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  struct node_source source = space_source(writer->log.space);
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && *limit > 0 &&
         upkeep->victim_offset < segment_end) {
    uint64_t moved = upkeep->moved_bytes;
    if (bytes_within(upkeep->victim_offset, EXTENT_PAGE_BYTES, source.size))
      code = move_large_value(writer, &source, upkeep->victim_offset);
    if (code == MMCMAP_OK) upkeep->victim_offset += EXTENT_PAGE_BYTES;
    moved = upkeep->moved_bytes - moved + 64;
    *limit -= moved < *limit ? moved : *limit;
  }
  return code;
}

/* ---- Frames ---------------------------------------------------------------- */

/* Which nodes are dead, of the map that the first one is of: what is dead stays
   so. */
static int find_dead(struct writer *writer, const struct node_source *source,
                     struct scan_batch *batch) {
  struct catalog_map map;
  const struct trie *trie;
  if (batch->count == 0) return MMCMAP_OK;
  uint32_t map_id =
      bytes_u32(source->base + batch->nodes[0].offset + NODE_MAP_ID_AT);
  int code =
      catalog_open_id(&writer->catalog, &writer->names, map_id, &map, &trie);
  if (code != MMCMAP_OK || trie == NULL) return code;
  scan_find_dead(trie->hasher, trie->map_id,
                 atomic_load_explicit(trie->root, memory_order_relaxed), source,
                 batch);
  return MMCMAP_OK;
}

/* Other nodes may have been moved with one. */
static void use_up(uint64_t *limit, uint64_t size, uint64_t moved) {
  uint64_t used = moved > size ? moved : size;
  *limit -= used < *limit ? used : *limit;
}

static int clean_batch(struct writer *writer, const struct node_source *source,
                       const struct scan_batch *batch, uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  for (unsigned i = 0; i < batch->count; i++) {
    uint64_t size = batch->nodes[i].size, moved = upkeep->moved_bytes;
    int code = batch->nodes[i].is_dead
                   ? MMCMAP_OK
                   : move_node(writer, source, batch->nodes[i].offset,
                               batch->nodes[i].kind);
    if (code != MMCMAP_OK) return code;
    upkeep->victim_offset = batch->nodes[i].offset + size;
    use_up(limit, size, upkeep->moved_bytes - moved);
  }
  return MMCMAP_OK;
}

/* Goes on in the victim's frames; `segment_end` is where they end at the
   latest. */
static int clean_frames(struct writer *writer, uint64_t segment_end,
                        uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  struct node_source source = space_source(writer->log.space);
  struct scan_batch batch;
  source.base = writer->log.space->map.write;
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && *limit > 0 &&
         upkeep->victim_offset < segment_end) {
    uint64_t at = upkeep->victim_offset;
    if (at >= upkeep->victim_frame_end) {
      uint64_t end = segment_end - at < FRAME_HEADER_BYTES
                         ? 0
                         : scan_frame_end(&source, at, segment_end);
      upkeep->victim_frame_end = end;
      upkeep->victim_offset = end == 0 ? segment_end : at + FRAME_HEADER_BYTES;
      continue;
    }
    scan_gather(&source, at, upkeep->victim_frame_end, *limit, &batch);
    code = find_dead(writer, &source, &batch);
    if (code == MMCMAP_OK) code = clean_batch(writer, &source, &batch, limit);
    if (code == MMCMAP_OK && batch.is_broken)
      upkeep->victim_offset = segment_end;
  }
  return code;
}

/* ---- Ahead ----------------------------------------------------------------- */

static struct cleaner_position position_of(const struct share_upkeep *upkeep) {
  struct cleaner_position position = {
      .victim = atomic_load(&upkeep->victim),
      .run = atomic_load(&upkeep->victim_run),
      .cleaned_count = atomic_load(&upkeep->cleaned_count),
      .offset = atomic_load(&upkeep->victim_offset),
      .frame_end = atomic_load(&upkeep->victim_frame_end)};
  return position;
}

static bool is_at(const struct share_upkeep *upkeep,
                  const struct cleaner_position *position) {
  struct cleaner_position now = position_of(upkeep);
  return now.victim == position->victim && now.run == position->run &&
         now.cleaned_count == position->cleaned_count &&
         now.offset == position->offset && now.frame_end == position->frame_end;
}

/* The first of several may be empty by now. */
static bool has_pages(const struct writer *writer) {
  const struct share_upkeep *upkeep = &writer->header->upkeep;
  for (uint64_t i = 0; i < upkeep->victim_run; i++)
    if (usage_is(usage_entry(writer->log.space, upkeep->victim - 1 + i),
                 SHARE_SEGMENT_LARGE))
      return true;
  return false;
}

bool cleaner_is_ahead(const struct cleaner_ahead *ahead) {
  return ahead->to.offset != ahead->from.offset;
}

/* With the writer lock: what is there stays as it is until it has been looked at.
   False if there are no frames, or no more of them. */
static bool begin_ahead(struct writer *writer, struct cleaner_ahead *ahead) {
  const struct share_upkeep *upkeep = &writer->header->upkeep;
  uint64_t end = (upkeep->victim - 1 + upkeep->victim_run)
                 << writer->log.space->segment_shift;
  struct share_row *row;
  if (upkeep->victim_offset >= end || has_pages(writer) ||
      readers_row(writer->readers, &row) != MMCMAP_OK)
    return false;
  ahead->from = ahead->to = position_of(&writer->header->upkeep);
  ahead->is_pinned = true;
  if (!BROKEN(BREAK_AHEAD_UNPINNED)) readers_pin(writer->readers, row);
  return true;
}

static void note_ahead(struct cleaner_ahead *ahead,
                       const struct scan_batch *batch, uint64_t frame_end) {
  for (unsigned i = 0; i < batch->count; i++) {
    struct cleaner_node *node = &ahead->nodes[ahead->count++];
    node->offset = batch->nodes[i].offset;
    node->size = batch->nodes[i].size;
    node->kind = batch->nodes[i].kind;
    node->is_dead = batch->nodes[i].is_dead;
    node->frame_end = frame_end;
  }
}

/* R19: what is found dead stays dead, so that nothing keeps others from changing
   the store. */
static void look_ahead(const struct writer *writer,
                       struct cleaner_ahead *ahead) {
  const struct space *space = writer->log.space;
  struct node_source source = space_source(space);
  source.base = space->map.write;
  struct cleaner_position *to = &ahead->to;
  uint64_t begin = to->offset;
  uint64_t end = (to->victim - 1 + to->run) << space->segment_shift;
  uint64_t root;
  struct scan_batch batch;
  uint64_t top =
      atomic_load_explicit(&writer->header->live.root, memory_order_acquire);
  if (catalog_default_root(&source, top, &root) != MMCMAP_OK) return;
  while (to->offset < end && to->offset - begin < CLEANER_AHEAD_BYTES &&
         ahead->count <= CLEANER_AHEAD_NODES - TRIE_LANES) {
    if (to->offset >= to->frame_end) {
      to->frame_end = end - to->offset < FRAME_HEADER_BYTES
                          ? 0
                          : scan_frame_end(&source, to->offset, end);
      to->offset = to->frame_end == 0 ? end : to->offset + FRAME_HEADER_BYTES;
      continue;
    }
    scan_gather(&source, to->offset, to->frame_end, CLEANER_AHEAD_BYTES,
                &batch);
    scan_find_dead(writer->log.hasher, MAP_ID_DEFAULT, root, &source, &batch);
    note_ahead(ahead, &batch, to->frame_end);
    if (batch.is_broken)
      to->offset = end;
    else if (batch.count > 0)
      to->offset = ahead->nodes[ahead->count - 1].offset +
                   ahead->nodes[ahead->count - 1].size;
  }
}

void cleaner_look_ahead(struct writer *writer, struct cleaner_ahead *ahead) {
  struct share_row *row;
  if (!ahead->is_pinned) return;
  TEST_POINT("look ahead");
  look_ahead(writer, ahead);
  ahead->is_in_vain = !cleaner_is_ahead(ahead);
  ahead->is_pinned = false;
  if (!BROKEN(BREAK_AHEAD_UNPINNED) &&
      readers_row(writer->readers, &row) == MMCMAP_OK)
    readers_unpin(row);
}

/* Moves what was not dead, as long as nobody else has gone on with the victim. */
static int clean_ahead(struct writer *writer, struct cleaner_ahead *ahead,
                       uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  struct node_source source = space_source(writer->log.space);
  source.base = writer->log.space->map.write;
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK && *limit > 0 && ahead->next < ahead->count) {
    const struct cleaner_node *node = &ahead->nodes[ahead->next];
    uint64_t moved = upkeep->moved_bytes;
    if (!node->is_dead) {
      code = move_node(writer, &source, node->offset, node->kind);
      moved = upkeep->moved_bytes - moved;
      use_up(limit, node->size, moved);
      if (moved > node->size) ahead->beside_bytes += moved - node->size;
    }
    if (code != MMCMAP_OK) break;
    ahead->next++;
    upkeep->victim_frame_end = node->frame_end;
    upkeep->victim_offset = node->offset + node->size;
  }
  if (code == MMCMAP_OK && ahead->next == ahead->count) {
    upkeep->victim_frame_end = ahead->to.frame_end;
    upkeep->victim_offset = ahead->to.offset;
  }
  ahead->from = position_of(upkeep);
  return code;
}

/* ---- Victims --------------------------------------------------------------- */

/* Whether cleaning a segment gains enough: less than this many of 64 parts are
   alive in it. */
enum {
  WORTH_PARTS = 61,
  WORTH_PARTS_COMPACTING = 63,
  WORTH_PARTS_LAST = 60 /* when what is written has to be found first */
};

static int64_t worth_bytes(const struct writer *writer) {
  int64_t part = writer->log.space->segment_size / 64;
  if (space_is_at_last(writer->log.space)) return part * WORTH_PARTS_LAST;
  return part * (log_is_compacting(&writer->log) ? WORTH_PARTS_COMPACTING
                                                 : WORTH_PARTS);
}

/* The last one, if it can be moved down, so that the file ends earlier: it takes
   what is in it, and copies of branches. */
static bool find_last(const struct log *log, struct usage_victim *victim_out) {
  uint64_t lower, more, behind = log_behind_all(log);
  if (!usage_find_last(log, behind, victim_out) ||
      !usage_find_free(log->space, 0, victim_out->run, &lower))
    return false;
  if (behind != 0) return lower < victim_out->number;
  uint64_t end = lower + victim_out->run;
  return usage_find_free(log->space, end, 1, &more) &&
         more < victim_out->number;
}

static bool choose_victim(struct writer *writer) {
  struct log *log = &writer->log;
  struct share_upkeep *upkeep = &log->header->upkeep;
  const struct space *space = log->space;
  struct usage_victim victim;
  int64_t worth = worth_bytes(writer);
  bool last_first =
      upkeep->is_sparse != 0 ||
      (atomic_load(&log->slide.was_one) && log_is_compacting(log));
  enum usage_phase phase = log_phase(log);
  usage_note_claim(log);
  bool slides = usage_find_next(log, &victim);
  if (!slides && phase != USAGE_PHASE_NONE) return false;
  if (!slides && !(last_first && find_last(log, &victim))) {
    if (!usage_find_victim(log, worth, &victim) &&
        (space_is_at_last(space) || !find_last(log, &victim)))
      return false; /* the last one gains no space by itself */
  }
  upkeep->victim = victim.number + 1;
  upkeep->victim_run = victim.run;
  upkeep->victim_frame_end = 0;
  upkeep->victim_offset =
      usage_is(usage_entry(space, victim.number), SHARE_SEGMENT_LOG)
          ? segment_header_offset(victim.number, space->segment_size) +
                SEGMENT_HEADER_BYTES
          : victim.number << space->segment_shift;
  return true;
}

/* The victim is left, all of it having been looked at, or not being readable.
   What is still counted was counted too high by somebody who died, or could not
   be read. */
static void finish_victim(struct writer *writer) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  uint64_t number = upkeep->victim - 1;
  for (uint64_t i = number; i < number + upkeep->victim_run; i++) {
    struct share_segment *entry = usage_entry(writer->log.space, i);
    if (!usage_is(entry, SHARE_SEGMENT_EMPTY) &&
        !usage_is(entry, SHARE_SEGMENT_FREE))
      atomic_fetch_or(&entry->state, SHARE_SEGMENT_STUCK);
  }
  upkeep->cleaned_count += upkeep->victim_run;
  upkeep->victim = 0;
}

/* Whether the victim that the lock file names is one: it may have become empty
   by itself, and anybody may have written those words. */
static bool victim_is_good(const struct writer *writer) {
  const struct share_upkeep *upkeep = &writer->header->upkeep;
  const struct space *space = writer->log.space;
  uint64_t number = upkeep->victim - 1, run = upkeep->victim_run;
  if (upkeep->victim == 0 || number >= space->segment_count || run == 0 ||
      run > space->segment_count - number)
    return false;
  uint64_t begin = number << space->segment_shift;
  uint64_t end = (number + run) << space->segment_shift;
  if (upkeep->victim_offset < begin || upkeep->victim_offset > end ||
      upkeep->victim_offset % 8 != 0 || upkeep->victim_frame_end > end ||
      upkeep->victim_frame_end > space->writable_bytes)
    return false;
  /* Chosen while there was space, it may take too much now. */
  if (space_is_at_last(space) && !writer->log.victims.is_at_last) return false;
  for (uint64_t i = number; i < number + run; i++)
    if (usage_may_be_cleaned(&writer->log, i)) return true;
  return false;
}

/* `ahead` is NULL if nobody has looked. */
static int go_on(struct writer *writer, struct cleaner_ahead *ahead,
                 uint64_t *limit) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  const struct space *space = writer->log.space;
  uint64_t number = upkeep->victim - 1;
  uint64_t end = (number + upkeep->victim_run) << space->segment_shift;
  int code;
  if (ahead != NULL)
    code = clean_ahead(writer, ahead, limit);
  else if (has_pages(writer))
    code = clean_pages(writer, end, limit);
  else
    code = clean_frames(writer, end, limit);
  TEST_POINT("cleaned");
  /* Damage is for check to find; the segment stays as it is. */
  if (code == MMCMAP_OK ? upkeep->victim_offset >= end
                        : code == MMCMAP_ECORRUPT)
    finish_victim(writer);
  if (error_is_full(code)) upkeep->victim = 0;
  return code == MMCMAP_ECORRUPT ? MMCMAP_OK : code;
}

static int clean(struct writer *writer, uint64_t limit_bytes, bool *found_out) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  uint64_t limit = limit_bytes;
  int code = MMCMAP_OK;
  *found_out = true;
  while (limit > 0 && code == MMCMAP_OK) {
    if (!victim_is_good(writer)) upkeep->victim = 0;
    if (upkeep->victim == 0 && !choose_victim(writer)) {
      *found_out = limit < limit_bytes;
      return MMCMAP_OK;
    }
    code = go_on(writer, NULL, &limit);
  }
  return code;
}

int cleaner_clean(struct writer *writer, uint64_t limit_bytes,
                  bool *found_out) {
  writer->log.is_moving = true;
  int code = clean(writer, limit_bytes, found_out);
  writer->log.is_moving = false;
  return code;
}

int cleaner_clean_ahead(struct writer *writer, struct cleaner_ahead *ahead,
                        uint64_t limit_bytes, bool goes_on, bool *found_out) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  uint64_t limit = limit_bytes;
  int code = MMCMAP_OK;
  *found_out = true;
  if (!victim_is_good(writer)) upkeep->victim = 0;
  if (cleaner_is_ahead(ahead) && is_at(upkeep, &ahead->from)) {
    writer->log.is_moving = true;
    code = go_on(writer, ahead, &limit);
    writer->log.is_moving = false;
    if (code != MMCMAP_OK || cleaner_is_ahead(ahead)) return code;
  }
  bool is_in_vain = ahead->is_in_vain;
  memset(ahead, 0, offsetof(struct cleaner_ahead, nodes));
  if (!goes_on) return code;
  if (upkeep->victim == 0) *found_out = choose_victim(writer);
  if (!*found_out || (!is_in_vain && begin_ahead(writer, ahead))) return code;
  uint64_t moved = upkeep->moved_bytes;
  code = cleaner_clean(writer, limit_bytes, found_out);
  moved = upkeep->moved_bytes - moved;
  /* A large value is moved as a whole. */
  if (moved > limit_bytes) ahead->beside_bytes += moved - limit_bytes;
  return code;
}

bool cleaner_take_turn(struct cleaner_turns *turns, uint32_t timeout_ms,
                       uint64_t end_ns, uint64_t *left) {
  uint64_t before = atomic_load(&turns->looked_bytes);
  uint64_t now_ns = process_monotonic_ns();
  uint64_t wait_ms = end_ns > now_ns ? (end_ns - now_ns) / 1000000 : 0;
  if (wait_ms > TURN_WAIT_MS) wait_ms = TURN_WAIT_MS;
  if (wait_ms > timeout_ms) wait_ms = timeout_ms;
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  bool is_mine =
      thread_mutex_lock_timed(&turns->mutex, (uint32_t)wait_ms) == MMCMAP_OK;
  if (!is_mine) error_restore(&failure); /* it cleans all the same */
  uint64_t looked = atomic_load(&turns->looked_bytes) - before;
  *left -= *left < looked ? *left : looked;
  return is_mine;
}
