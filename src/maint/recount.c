/* SPDX-License-Identifier: MIT */
/*
 * The walk is depth first. It trusts nothing: a count that is too low would give
 * away what is alive, so whatever cannot be read ends it.
 */
#include "maint/recount.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "os/process.h"

enum {
  NODES_PER_LOOK = 256, /* between looks at the clock */
  HEADERS_PER_LOOK = 16,
  DEAD_AFTER_MS = 2000 /* so long without going on */
};

bool recount_is_ours(const struct recount *recount,
                     const struct writer *writer) {
  const struct share_upkeep *upkeep = &writer->header->upkeep;
  uint64_t age_ns = process_monotonic_ns() - upkeep->recount_ns;
  return (recount->serial != 0 && recount->serial == upkeep->recount_serial) ||
         upkeep->recounter == 0 ||
         upkeep->recounter == writer->log.connection ||
         age_ns > DEAD_AFTER_MS * UINT64_C(1000000);
}

static void forget(struct recount *recount) {
  free(recount->roots);
  free(recount->found);
  memset(recount, 0, sizeof *recount);
}

void recount_end(struct recount *recount, struct readers *readers) {
  if (recount->row != NULL) readers_give_back_snapshot(readers, recount->row);
  forget(recount);
}

/* ---- The walk -------------------------------------------------------------- */

static void add(struct recount *recount, const struct space *space,
                uint64_t offset, uint64_t size, bool is_pages) {
  recount->total_bytes += size;
  for (bool is_first = true; size > 0; is_first = false) {
    uint64_t number = offset >> space->segment_shift;
    uint64_t part = space->segment_size - offset % space->segment_size;
    if (part > size) part = size;
    if (number < recount->segment_count) {
      recount->found[number].live_bytes += part;
      recount->found[number].has_pages |= is_pages;
      recount->found[number].is_tail |= is_pages && !is_first;
    }
    offset += part;
    size -= part;
  }
}

static int add_root(struct recount *recount, uint64_t root) {
  if (root == SLOT_EMPTY) return MMCMAP_OK;
  if (recount->root_count == recount->root_capacity) {
    size_t capacity =
        recount->root_capacity == 0 ? 16 : 2 * recount->root_capacity;
    uint64_t *roots = realloc(recount->roots, capacity * sizeof *roots);
    if (roots == NULL) return error_set(MMCMAP_ENOMEM, "recount");
    recount->roots = roots;
    recount->root_capacity = capacity;
  }
  recount->roots[recount->root_count++] = root;
  return MMCMAP_OK;
}

/* The root of a store, and what hangs on it; maps follow from the catalogue. */
static int add_top(struct recount *recount, const struct space *space,
                   uint64_t top) {
  struct node_source source = space_source(space);
  struct store_view store;
  if (!slot_is_store(top)) return add_root(recount, top);
  int code = node_store(&source, top, &store);
  if (code != MMCMAP_OK) return code;
  struct store_words words = store_words_of(&store);
  add(recount, space, store.offset, store_root_size(store.has_snapshots),
      false);
  code = add_root(recount, words.default_root);
  return code == MMCMAP_OK ? add_root(recount, words.catalog_root) : code;
}

struct saved_roots {
  struct recount *recount;
  const struct space *space;
};

/* What a saved snapshot shares with others is counted for each of them: too much
   holds a segment for longer, too little would give it away. */
static int add_saved(void *context, const struct saved *saved) {
  const struct saved_roots *roots = context;
  return add_top(roots->recount, roots->space, saved->root);
}

static int add_store(struct recount *recount, const struct space *space,
                     uint64_t top) {
  struct node_source source = space_source(space);
  struct saved_roots roots = {.recount = recount, .space = space};
  uint64_t snapshots;
  int code = add_top(recount, space, top);
  if (code == MMCMAP_OK)
    code = catalog_snapshots_root(&source, top, &snapshots);
  if (code == MMCMAP_OK) code = add_root(recount, snapshots);
  if (code == MMCMAP_OK) code = saved_each(&source, top, add_saved, &roots);
  return code;
}

static int enter_branch(struct recount *recount, const struct space *space,
                        const struct node_source *source, uint64_t slot) {
  unsigned level = recount->depth;
  if (level > COLLISION_LEVEL)
    return error_set_corrupt("F34 collision slots", slot_offset(slot));
  struct recount_step *step = &recount->steps[level];
  int code = node_branch(source, slot_offset(slot), level, &step->branch);
  if (code != MMCMAP_OK) return code;
  step->next = 0;
  recount->depth++;
  add(recount, space, step->branch.offset,
      branch_size(step->branch.slot_count, level), false);
  for (unsigned i = 0; i < step->branch.slot_count; i++) {
    uint64_t offset = slot_offset(branch_slot(&step->branch, i));
    if (offset < source->size) __builtin_prefetch(source->base + offset);
  }
  return MMCMAP_OK;
}

static int add_record(struct recount *recount, const struct space *space,
                      const struct node_source *source, uint64_t slot) {
  struct record_view record;
  int code = node_record(source, slot_offset(slot), &record);
  if (code != MMCMAP_OK) return code;
  add(recount, space, record.offset, record_size_of(&record), false);
  if (record.is_large)
    add(recount, space, record.extent_offset, extent_size(record.value_size),
        true);
  return record.is_map ? add_root(recount, record_map_words(&record).root)
                       : MMCMAP_OK;
}

static bool next_slot(struct recount *recount, uint64_t *slot_out) {
  while (recount->depth > 0) {
    struct recount_step *step = &recount->steps[recount->depth - 1];
    if (step->next < step->branch.slot_count) {
      *slot_out = branch_slot(&step->branch, step->next++);
      return true;
    }
    recount->depth--;
  }
  if (recount->roots_begun == recount->root_count) return false;
  recount->total_bytes = 0; /* of what is under one root */
  *slot_out = recount->roots[recount->roots_begun++];
  return true;
}

static int walk(struct recount *recount, const struct space *space,
                uint64_t end_ns, bool *done_out) {
  struct node_source source = space_source(space);
  for (;;) {
    for (int i = 0; i < NODES_PER_LOOK; i++) {
      uint64_t slot;
      *done_out = !next_slot(recount, &slot);
      if (*done_out) return MMCMAP_OK;
      int code = slot_is_record(slot)
                     ? add_record(recount, space, &source, slot)
                     : enter_branch(recount, space, &source, slot);
      if (code == MMCMAP_OK && recount->total_bytes > source.size)
        code = error_set_corrupt("F38 nodes overlap", slot_offset(slot));
      if (code != MMCMAP_OK) return code;
    }
    uint64_t now_ns = process_monotonic_ns();
    if (recount->alive_ns != NULL) atomic_store(recount->alive_ns, now_ns);
    if (now_ns >= end_ns) return MMCMAP_OK;
  }
}

/* ---- Epochs ---------------------------------------------------------------- */

/* What the header of a segment that begins no value says, and of how many segments;
   0: there is none, or none of before the session. */
static uint64_t epoch_in_header(const struct recount *recount,
                                const struct space *space, uint64_t number,
                                uint64_t *run_out) {
  struct node_source source = space_source(space);
  struct segment_header header;
  uint64_t offset = segment_header_offset(number, space->segment_size);
  *run_out = 1;
  if (recount->found[number].is_tail ||
      !bytes_within(offset, SEGMENT_HEADER_BYTES, source.size) ||
      segment_decode(source.base + offset, number, space->file_id, offset,
                     &header) != MMCMAP_OK ||
      header.sequence >= space->readers->share->header->upkeep.session_epoch)
    return 0;
  if (header.run < recount->segment_count - number) *run_out = header.run;
  return header.sequence;
}

/* With what its run was made longer by for the sake of a value: the header is in its
   place, and the run's is older, if anything. */
static uint64_t run_with_tails(const struct recount *recount, uint64_t first,
                               uint64_t run) {
  while (first + run < recount->segment_count &&
         recount->found[first + run].is_tail)
    run++;
  return run;
}

/* Reads in the headers of segments when they were begun, for a while: what is
   younger than a saved snapshot is not held by it. */
static void find_epochs(struct recount *recount, const struct space *space,
                        uint64_t end_ns, bool *done_out) {
  mmcmap_error failure;
  uint64_t run, looked = 0;
  *done_out = true;
  mmcmap_last_error(&failure);
  for (; recount->dated < recount->segment_count; recount->dated += run) {
    if (++looked % HEADERS_PER_LOOK == 0) {
      uint64_t now_ns = process_monotonic_ns();
      atomic_store(recount->alive_ns, now_ns);
      *done_out = now_ns < end_ns;
      if (!*done_out) break;
    }
    uint64_t first = recount->dated;
    uint64_t epoch = epoch_in_header(recount, space, first, &run);
    run = run_with_tails(recount, first, run);
    for (uint64_t i = first; i < first + run; i++)
      if (i == first || recount->found[i].is_tail)
        recount->found[i].first_epoch = epoch;
  }
  error_restore(&failure);
}

/* ---- Beginning and ending ------------------------------------------------- */

/* Seals, so that what is walked is what is alive at one moment, and counts the
   differences from then on. */
static int begin(struct recount *recount, struct writer *writer,
                 uint32_t timeout_ms) {
  struct moment moment;
  memset(recount, 0, sizeof *recount);
  int code = readers_claim_snapshot(writer->readers, 0, &recount->row);
  if (code == MMCMAP_OK) code = writer_enter(writer, timeout_ms);
  if (code != MMCMAP_OK) {
    recount_end(recount, writer->readers);
    return code;
  }
  struct share_upkeep *upkeep = &writer->header->upkeep;
  recount->segment_count = writer->log.space->segment_count;
  recount->found =
      calloc((size_t)recount->segment_count, sizeof *recount->found);
  if (recount->found == NULL) {
    code = error_set(MMCMAP_ENOMEM, "recount");
  } else {
    code = writer_hold_moment(writer, recount->row, &moment);
    if (code == MMCMAP_OK)
      code = add_store(recount, writer->log.space, moment.root);
    recount->mark = atomic_load(&recount->row->snapshot);
  }
  if (code == MMCMAP_OK) {
    recount->serial = ++upkeep->recount_serial;
    upkeep->recounter = writer->log.connection;
    upkeep->recount_ns = process_monotonic_ns();
    upkeep->recount_appended = writer->log.appended_bytes;
    recount->alive_ns = &upkeep->recount_ns;
    upkeep->dropped_records = 0;
    usage_uncount_all(writer->log.space);
  }
  writer_leave(writer);
  if (code != MMCMAP_OK) recount_end(recount, writer->readers);
  return code;
}

/* Whether the recount that the table knows is this one; the lock is held. */
static bool is_current(const struct recount *recount,
                       const struct writer *writer) {
  return writer->header->upkeep.recount_serial == recount->serial;
}

static int install(struct recount *recount, struct writer *writer,
                   uint32_t timeout_ms) {
  int code = writer_enter(writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  struct log *log = &writer->log;
  if (is_current(recount, writer)) {
    for (uint64_t i = 0;
         i < recount->segment_count && i < log->space->segment_count; i++)
      usage_count(log->space, i, &recount->found[i]);
    writer->header->upkeep.recounter = 0;
  }
  writer_leave(writer);
  return MMCMAP_OK;
}

int recount_continue(struct recount *recount, struct writer *writer,
                     uint32_t timeout_ms, uint64_t end_ns, bool *done_out) {
  int code = MMCMAP_OK;
  *done_out = false;
  if (recount->serial == 0) code = begin(recount, writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  if (!readers_has_snapshot(recount->row, recount->mark))
    code = error_set(MMCMAP_EEXPIRED, "recount");
  if (code == MMCMAP_OK)
    code = walk(recount, writer->log.space, end_ns, done_out);
  if (code == MMCMAP_ECORRUPT)
    atomic_store(&writer->header->upkeep.is_uncountable, 1);
  if (code == MMCMAP_OK && *done_out &&
      writer->header->upkeep.saved_newest != 0)
    find_epochs(recount, writer->log.space, end_ns, done_out);
  if (code == MMCMAP_OK && *done_out)
    code = install(recount, writer, timeout_ms);
  if (code != MMCMAP_OK || *done_out) recount_end(recount, writer->readers);
  return code;
}

int recount_at_once(const struct space *space, uint64_t root) {
  struct recount recount;
  bool is_done;
  memset(&recount, 0, sizeof recount);
  recount.segment_count = space->segment_count;
  recount.found = calloc((size_t)recount.segment_count, sizeof *recount.found);
  if (recount.found == NULL) return error_set(MMCMAP_ENOMEM, "recount");
  int code = add_store(&recount, space, root);
  if (code == MMCMAP_OK) code = walk(&recount, space, UINT64_MAX, &is_done);
  for (uint64_t i = 0; i < recount.segment_count && code == MMCMAP_OK; i++)
    usage_count(space, i, &recount.found[i]);
  forget(&recount);
  return code;
}
