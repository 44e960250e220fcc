/* SPDX-License-Identifier: MIT */
/*
 * The walk keeps the way from the root, at most one branch per level, and the
 * bits of both hashes that the way stands for. Each node must say that it
 * belongs where it was found, so one that is reached twice is wrong in one of
 * the two places.
 */
#include "maint/verify.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "trie/trie.h"
#include "txn/saved.h"

/* At levels 10 and 21 four bits are left: the lower two of a way are 0. */
#define LAST_LEVEL_WAYS UINT64_C(0x1111111111111111)

/* Nodes, or frames, between two calls of the progress function. */
enum { PROGRESS_STEP = 1024 };

struct step {
  struct branch_view branch;
  uint64_t epoch;
  uint64_t ways_left; /* bits of the bitmap whose slots come next */
  unsigned next;      /* index of the next slot */
};

struct walk {
  const struct node_source *source;
  const struct hasher *hasher;
  struct verify_report *report;
  uint32_t map_id;
  bool lets_expire;     /* the map says that its records may */
  bool is_saved;        /* of a snapshot, whose own snapshots do not count */
  uint64_t count;       /* of records */
  uint64_t count_limit; /* how many there may be in the report */
  uint64_t newest_epoch;
  uint64_t steps_taken;
  unsigned depth;
  bool is_over; /* it would not end */
  /* The bits of the hashes that lead to steps[depth - 1]'s child. */
  uint64_t primary;
  uint64_t secondary;
  struct step steps[COLLISION_LEVEL + 1];
};

void verify_fail(struct verify_report *report, int code, const char *rule,
                 uint64_t offset) {
  struct verify_failure failure = {
      .code = code, .rule = rule, .offset = offset};
  uint64_t index = report->failure_count++;
  if (index < VERIFY_FAILURES_MAX) report->failures[index] = failure;
  if (report->watch != NULL && report->watch->found != NULL)
    report->watch->found(report->watch->context, &failure);
}

bool verify_goes_on(struct verify_report *report, uint64_t number) {
  if (report->stopped == 0 && report->watch != NULL &&
      report->watch->progress != NULL && number % PROGRESS_STEP == 0)
    report->stopped = report->watch->progress(
        report->watch->context, report->node_bytes + report->frame_bytes);
  return report->stopped == 0;
}

static void fail_walk(struct walk *walk, const char *rule, uint64_t offset) {
  verify_fail(walk->report, MMCMAP_ECORRUPT, rule, offset);
}

void verify_fail_as_noted(struct verify_report *report, int code) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  verify_fail(report, code, error.what, error.offset);
}

int verify_outcome(const struct verify_report *report) {
  if (report->stopped != 0) return report->stopped;
  if (report->failure_count == 0) return MMCMAP_OK;
  const struct verify_failure *first = &report->failures[0];
  if (first->code == MMCMAP_ECORRUPT)
    return error_set_corrupt(first->rule, first->offset);
  return error_set(first->code, first->rule);
}

/* ---- Nodes --------------------------------------------------------------- */

/* Counts the bytes of a node; false if there are more than the file has. */
static bool count_bytes(struct walk *walk, uint64_t size, uint64_t offset) {
  walk->report->node_bytes += size;
  if (walk->report->node_bytes - walk->report->earlier_bytes <=
      walk->source->size)
    return true;
  fail_walk(walk, "F38 nodes overlap", offset);
  walk->is_over = true;
  return false;
}

static void note_node(struct verify_report *report, uint64_t offset,
                      uint64_t size) {
  if (report->uses == NULL ||
      offset / report->segment_size >= report->use_count)
    return;
  struct verify_use *use = &report->uses[offset / report->segment_size];
  use->node_bytes += size;
  if (use->nodes_end < offset + size) use->nodes_end = offset + size;
}

static void note_pages(struct verify_report *report, uint64_t offset,
                       uint64_t size) {
  while (report->uses != NULL && size > 0) {
    uint64_t number = offset / report->segment_size;
    uint64_t part = report->segment_size - offset % report->segment_size;
    if (part > size) part = size;
    if (number >= report->use_count) return;
    report->uses[number].page_bytes += part;
    offset += part;
    size -= part;
  }
}

/* What all nodes have in common. */
static void check_header(struct walk *walk, const uint8_t *at,
                         uint64_t offset) {
  uint64_t limit = walk->depth == 0 ? walk->newest_epoch
                                    : walk->steps[walk->depth - 1].epoch;
  uint64_t epoch = node_epoch(at);
  if (epoch == 0 || epoch > limit) fail_walk(walk, "F27 node epoch", offset);
  if (bytes_u32(at + NODE_MAP_ID_AT) != walk->map_id)
    fail_walk(walk, "F22 node map id", offset);
}

static bool place_is(const struct branch_place *a,
                     const struct branch_place *b) {
  return a->map_id == b->map_id && a->level == b->level &&
         a->primary == b->primary && a->secondary == b->secondary;
}

/* The place of what the walk has come to. */
static struct branch_place place_here(const struct walk *walk) {
  return branch_place_of(walk->map_id, walk->depth, walk->primary,
                         walk->secondary);
}

static void check_extent(struct walk *walk, const struct record_view *record,
                         uint64_t primary) {
  const uint8_t *extent = walk->source->base + record->extent_offset;
  walk->report->large_count++;
  note_pages(walk->report, record->extent_offset,
             extent_size(record->value_size));
  if (bytes_u32(extent + 8) != walk->map_id ||
      bytes_u64(extent + 16) != primary)
    fail_walk(walk, "F32 large value header", record->extent_offset);
  if (record->extent_offset < SEGMENT_FIRST_HEADER_OFFSET)
    fail_walk(walk, "F31 large value beyond the file", record->offset);
}

static void check_padding(struct walk *walk, const struct record_view *record,
                          uint64_t size) {
  const uint8_t *end = record->is_large || record->is_map
                           ? record->key + record->key_size
                           : record->value + record->value_size;
  for (; end < record->at + size; end++)
    if (*end != 0) {
      fail_walk(walk, "F37 record padding", record->offset);
      return;
    }
}

/* The hashes of the record's key lead to where it was found. */
static void check_record_place(struct walk *walk,
                               const struct record_view *record, uint64_t slot,
                               uint64_t primary) {
  uint64_t secondary = 0;
  if (walk->depth > BRANCH_SECONDARY_LEVEL)
    secondary = hasher_secondary(walk->hasher, record->key, record->key_size);
  struct branch_place here = place_here(walk);
  struct branch_place of_key =
      branch_place_of(walk->map_id, walk->depth, primary, secondary);
  if (slot_tag(slot) != slot_tag_of_hash(primary) || !place_is(&here, &of_key))
    fail_walk(walk, "F30 record place", record->offset);
}

static bool keys_are_in_order(const struct record_view *a,
                              const struct record_view *b) {
  size_t common = a->key_size < b->key_size ? a->key_size : b->key_size;
  int order = common == 0 ? 0 : memcmp(a->key, b->key, common);
  return order != 0 ? order < 0 : a->key_size < b->key_size;
}

/* Of a collision node's slots, all but the first come behind the one before. */
static void check_order(struct walk *walk, const struct record_view *record) {
  const struct step *step =
      walk->depth == 0 ? NULL : &walk->steps[walk->depth - 1];
  if (step == NULL || step->branch.level != COLLISION_LEVEL || step->next < 2)
    return;
  struct record_view before;
  uint64_t slot = branch_slot(&step->branch, step->next - 2);
  if (slot_is_record(slot) &&
      node_record(walk->source, slot_offset(slot), &before) == MMCMAP_OK &&
      !keys_are_in_order(&before, record))
    fail_walk(walk, "F35 collision order", step->branch.offset);
}

static void check_record(struct walk *walk, uint64_t slot) {
  struct verify_report *report = walk->report;
  uint64_t offset = slot_offset(slot);
  struct record_view record;
  if (++report->record_count > walk->count_limit) {
    fail_walk(walk, "F36 more records than counted", offset);
    walk->is_over = true;
    return;
  }
  int code = node_record(walk->source, offset, &record);
  if (code != MMCMAP_OK) {
    verify_fail_as_noted(report, code);
    return;
  }
  uint64_t size = record_size_of(&record);
  uint64_t pages = record.is_large ? extent_size(record.value_size) : 0;
  if (!bytes_within(offset, size, walk->source->size)) {
    fail_walk(walk, "F28 record lengths and flags", offset);
    return;
  }
  if (!count_bytes(walk, size + pages, offset)) return;
  note_node(report, offset, size);
  uint64_t primary = hasher_primary(walk->hasher, record.key, record.key_size);
  check_header(walk, record.at, offset);
  check_record_place(walk, &record, slot, primary);
  check_order(walk, &record);
  check_padding(walk, &record, size);
  if (record.is_map && walk->map_id != MAP_ID_CATALOG)
    fail_walk(walk, "F41 record of a map", offset);
  if (record.expires_ms != 0 && !walk->lets_expire)
    fail_walk(walk, "F46 expiry in a map without", offset);
  if (record.is_large) check_extent(walk, &record, primary);
  code = record_verify(walk->source, &record, walk->hasher);
  if (code != MMCMAP_OK) verify_fail_as_noted(report, code);
}

static void check_slots(struct walk *walk, const struct branch_view *branch) {
  bool is_collision = branch->level == COLLISION_LEVEL;
  bool is_last_of_hash = branch->level == BRANCH_SECONDARY_LEVEL - 1 ||
                         branch->level == COLLISION_LEVEL - 1;
  if (is_last_of_hash && (branch->bitmap & ~LAST_LEVEL_WAYS) != 0)
    fail_walk(walk, "F25 branch slots", branch->offset);
  if (branch->slot_count == 1 &&
      (is_collision || slot_is_record(branch_slot(branch, 0))))
    fail_walk(walk, "F26 branch with one record", branch->offset);
}

static void enter_branch(struct walk *walk, uint64_t slot) {
  uint64_t offset = slot_offset(slot);
  unsigned level = walk->depth;
  struct step *step = &walk->steps[level];
  if (level > COLLISION_LEVEL) {
    fail_walk(walk, "F34 collision slots", offset);
    return;
  }
  if (slot_tag(slot) != 0) fail_walk(walk, "F39 slot of a branch", offset);
  int code = node_branch(walk->source, offset, level, &step->branch);
  if (code != MMCMAP_OK) {
    verify_fail_as_noted(walk->report, code);
    return;
  }
  const struct branch_view *branch = &step->branch;
  if (!count_bytes(walk, branch_size(branch->slot_count, level), offset))
    return;
  note_node(walk->report, offset, branch_size(branch->slot_count, level));
  if (level == COLLISION_LEVEL)
    walk->report->collision_count++;
  else
    walk->report->branch_count++;
  check_header(walk, branch->at, offset);
  check_slots(walk, branch);
  struct branch_place here = place_here(walk);
  struct branch_place place = branch_read_place(branch);
  place.map_id = walk->map_id; /* looked at above */
  if (!place_is(&place, &here) ||
      bytes_u32(branch->at + BRANCH_PREFIX_AT) != here.primary >> 32) {
    fail_walk(walk, "F23 branch place", offset);
    return;
  }
  step->epoch = node_epoch(branch->at);
  step->ways_left = branch->bitmap;
  step->next = 0;
  walk->depth++;
}

/* ---- The walk ------------------------------------------------------------ */

/* `hash` with the six bits that `level` of its trie looks at set to `way`, and
   those behind them to 0. */
static uint64_t with_way(uint64_t hash, unsigned level, unsigned way) {
  unsigned above = BRANCH_LEVEL_BITS * level;
  uint64_t bits = (uint64_t)way << (64 - BRANCH_LEVEL_BITS) >> above;
  return (above == 0 ? 0 : hash >> (64 - above) << (64 - above)) | bits;
}

/* The slot to look at next, and its place; false at the end. */
static bool next_slot(struct walk *walk, uint64_t *slot_out) {
  while (walk->depth > 0) {
    struct step *step = &walk->steps[walk->depth - 1];
    if (step->next == step->branch.slot_count) {
      walk->depth--;
      continue;
    }
    *slot_out = branch_slot(&step->branch, step->next++);
    unsigned level = step->branch.level;
    if (level == COLLISION_LEVEL) return true;
    unsigned way = (unsigned)__builtin_ctzll(step->ways_left);
    step->ways_left &= step->ways_left - 1;
    if (level < BRANCH_SECONDARY_LEVEL) {
      walk->primary = with_way(walk->primary, level, way);
      walk->secondary = 0;
    } else {
      walk->secondary =
          with_way(walk->secondary, level - BRANCH_SECONDARY_LEVEL, way);
    }
    return true;
  }
  return false;
}

static void check_slot(struct walk *walk, uint64_t slot) {
  uint64_t offset = slot_offset(slot);
  if (slot == SLOT_EMPTY || offset < SEGMENT_FIRST_HEADER_OFFSET)
    fail_walk(walk, "F20 slot beyond the file", offset);
  else if (slot_is_record(slot))
    check_record(walk, slot);
  else
    enter_branch(walk, slot);
}

static void walk_trie(struct walk *walk, uint64_t root) {
  uint64_t slot = root;
  if (root == SLOT_EMPTY) return;
  do
    check_slot(walk, slot);
  while (!walk->is_over && verify_goes_on(walk->report, ++walk->steps_taken) &&
         next_slot(walk, &slot));
}

/* Walks the trie of one map and compares its count. */
static void verify_map(struct walk *walk, uint64_t root) {
  uint64_t before = walk->report->record_count;
  uint64_t failures = walk->report->failure_count;
  walk->count_limit = before + walk->count;
  walk_trie(walk, root);
  if (walk->report->failure_count == failures && walk->report->stopped == 0 &&
      walk->report->record_count - before < walk->count)
    verify_fail(walk->report, MMCMAP_ECORRUPT, "F40 fewer records than counted",
                0);
}

/* The rules for the record of a map, which has been looked at as a record. */
static bool check_map_record(struct verify_report *report,
                             const struct record_view *record,
                             const struct map_words *words, uint64_t next_id) {
  if (!record->is_map || words->id < MAP_ID_NAMED || words->id >= next_id ||
      words->id >= UINT32_MAX || slot_is_store(words->root) ||
      !slot_fits_count(words->root, words->count)) {
    verify_fail(report, MMCMAP_ECORRUPT, "F41 record of a map", record->offset);
    return false;
  }
  report->map_count++;
  return true;
}

/* All maps that the catalogue names, which has been walked itself. */
static void verify_maps(const struct walk *walk, uint64_t catalog_root,
                        uint64_t next_id) {
  struct trie_cursor cursor;
  struct record_view record;
  trie_cursor_init(&cursor, catalog_root,
                   walk->source->size / NODE_HEADER_BYTES);
  while (trie_cursor_next(&cursor, walk->source, &record) == MMCMAP_OK) {
    struct map_words words = {0, 0, 0};
    struct walk map = {.source = walk->source,
                       .hasher = walk->hasher,
                       .report = walk->report,
                       .newest_epoch = record.epoch};
    if (record.is_map) words = record_map_words(&record);
    if (!check_map_record(walk->report, &record, &words, next_id)) continue;
    map.map_id = (uint32_t)words.id;
    map.lets_expire = record.lets_expire;
    map.count = words.count;
    verify_map(&map, words.root);
    if (map.is_over || map.report->stopped != 0) return;
  }
}

static void verify_catalog(const struct walk *store_walk,
                           const struct store_view *store) {
  struct store_words words = store_words_of(store);
  struct verify_report *report = store_walk->report;
  uint64_t records = report->record_count, failures = report->failure_count;
  struct walk walk = {.source = store_walk->source,
                      .hasher = store_walk->hasher,
                      .report = report,
                      .map_id = MAP_ID_CATALOG,
                      .count_limit = UINT64_MAX,
                      .newest_epoch = store->epoch};
  walk_trie(&walk, words.catalog_root);
  report->record_count = records; /* names are no records */
  if (report->failure_count == failures && report->stopped == 0)
    verify_maps(&walk, words.catalog_root, words.next_id);
}

static void verify_root(struct walk *walk, uint64_t root);

/* A saved snapshot shares nodes with others, so it is walked like another file. */
static int verify_saved(void *context, const struct saved *saved) {
  const struct walk *live = context;
  struct verify_report *report = live->report;
  uint64_t records = report->record_count, maps = report->map_count;
  uint64_t large = report->large_count;
  struct walk walk = {.source = live->source,
                      .hasher = live->hasher,
                      .report = report,
                      .map_id = MAP_ID_DEFAULT,
                      .is_saved = true,
                      .count = saved->count,
                      .newest_epoch = saved->epoch};
  report->earlier_bytes = report->node_bytes;
  verify_root(&walk, saved->root);
  report->record_count = records;
  report->map_count = maps;
  report->large_count = large;
  report->snapshot_count++;
  return report->stopped == 0 ? MMCMAP_OK : MMCMAP_MISMATCH;
}

/* The trie of the saved snapshots, and what they are. */
static void verify_snapshots(const struct walk *store_walk,
                             const struct store_view *store, uint64_t top) {
  struct verify_report *report = store_walk->report;
  uint64_t records = report->record_count, failures = report->failure_count;
  struct walk walk = {.source = store_walk->source,
                      .hasher = store_walk->hasher,
                      .report = report,
                      .map_id = MAP_ID_SNAPSHOTS,
                      .count_limit = UINT64_MAX,
                      .newest_epoch = store->epoch};
  walk_trie(&walk, store_words_of(store).snapshots_root);
  report->record_count = records;
  if (report->failure_count != failures || report->stopped != 0) return;
  int code = saved_each(walk.source, top, verify_saved, &walk);
  if (code != MMCMAP_OK && report->stopped == 0)
    verify_fail_as_noted(report, code);
}

/* The store root, and what hangs on it. */
static void verify_store_root(struct walk *walk, uint64_t top) {
  struct store_view store;
  int code = node_store(walk->source, top, &store);
  if (code != MMCMAP_OK) {
    verify_fail_as_noted(walk->report, code);
    return;
  }
  if (!count_bytes(walk, store_root_size(store.has_snapshots), store.offset))
    return;
  note_node(walk->report, store.offset, store_root_size(store.has_snapshots));
  check_header(walk, store.at, store.offset);
  uint64_t root = store_words_of(&store).default_root;
  if (slot_is_store(root) || !slot_fits_count(root, walk->count) ||
      bytes_u64(store.at + NODE_SHAPE_AT) != 0 || bytes_u32(store.at) != 0)
    fail_walk(walk, "F42 store root", store.offset);
  walk->map_id = MAP_ID_DEFAULT;
  walk->lets_expire = store.lets_expire;
  walk->newest_epoch = store.epoch;
  verify_map(walk, root);
  if (!walk->is_over && walk->report->stopped == 0)
    verify_catalog(walk, &store);
  if (!walk->is_saved && !walk->is_over && walk->report->stopped == 0)
    verify_snapshots(walk, &store, top);
}

/* A root of the default map, or a store root. */
static void verify_root(struct walk *walk, uint64_t root) {
  if (!slot_is_store(root)) {
    verify_map(walk, root);
    return;
  }
  walk->map_id = MAP_ID_NONE;
  verify_store_root(walk, root);
}

void verify_trie_into(const struct node_source *source,
                      const struct hasher *hasher, uint32_t map_id,
                      uint64_t root, uint64_t count, uint64_t newest_epoch,
                      struct verify_report *report) {
  struct walk walk = {.source = source,
                      .hasher = hasher,
                      .report = report,
                      .map_id = map_id,
                      .count = count,
                      .newest_epoch = newest_epoch};
  verify_root(&walk, root);
}

int verify_trie(const struct node_source *source, const struct hasher *hasher,
                uint32_t map_id, uint64_t root, uint64_t count,
                uint64_t newest_epoch, struct verify_report *report_out) {
  memset(report_out, 0, sizeof *report_out);
  verify_trie_into(source, hasher, map_id, root, count, newest_epoch,
                   report_out);
  return verify_outcome(report_out);
}
