/* SPDX-License-Identifier: MIT */
/*
 * What is counted as alive in a store, and the cleaner, on stores of the area
 * store.
 *
 *   usage()        {low=, high=, used=, free=, empty=, uncounted=, live_bytes=,
 *                  stuck=, need=, emptying=, late=}: bytes that are alive beyond what is counted,
 *                  the opposite, numbers of segments, and what the last look at
 *                  all of them has found. Looking frees nothing.
 *   clean_ahead([bytes]) as clean(), going by what the cleaner has seen at the end of
 *                  the last call, without the lock; looks at what is next, if that
 *                  is through
 *   ahead()        how many nodes it has seen, that it has not come to, and how many
 *                  of them were dead
 *   clean([bytes]) the cleaner looks through so many bytes of victims: bytes
 *                  that it has moved, and whether there is more to do
 *   pin(), unpin() this thread looks at the map from here, to there
 *   await(ms)      waits for a commit that frees something: how many ms it took
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "handle.h"
#include "maint/cleaner.h"
#include "maint/verify.h"
#include "os/process.h"
#include "probe.h"
#include "probe_fields.h"
#include "probe_store.h"
#include "share/owner_lock.h"

static struct store *space_store(lua_State *L) {
  return probe_store_handle(L)->store;
}

static int walk_live(struct store *store, struct verify_report *report) {
  const struct share_header *header = store->share.header;
  struct node_source source = space_source(&store->space);
  memset(report, 0, sizeof *report);
  report->use_count = store->space.segment_count;
  report->segment_size = store->space.segment_size;
  report->uses = calloc((size_t)report->use_count, sizeof *report->uses);
  if (report->uses == NULL) return error_set(MMCMAP_ENOMEM, "usage");
  verify_trie_into(&source, &store->hasher, MAP_ID_DEFAULT,
                   atomic_load(&header->live.root),
                   atomic_load(&header->change.count),
                   atomic_load(&header->change.changed_epoch), report);
  return verify_outcome(report);
}

struct usage_difference {
  uint64_t low;
  uint64_t high;
};

static void compare_usage(const struct store *store,
                          const struct verify_report *report,
                          struct usage_difference *out) {
  out->low = out->high = 0;
  for (uint64_t i = 0; i < report->use_count; i++) {
    const struct share_segment *entry = usage_entry(&store->space, i);
    int64_t alive =
        (int64_t)(report->uses[i].node_bytes + report->uses[i].page_bytes);
    int64_t counted = usage_live_bytes(entry);
    bool is_used = usage_is(entry, SHARE_SEGMENT_LOG) ||
                   usage_is(entry, SHARE_SEGMENT_LARGE);
    if ((usage_state(entry) & SHARE_SEGMENT_UNCOUNTED) != 0) continue;
    if (!is_used) counted = 0;
    if (alive > counted) out->low += (uint64_t)(alive - counted);
    if (alive < counted) out->high += (uint64_t)(counted - alive);
  }
}

/* The segments as they are: what usage_sweep() adds up, without what it does. */
static void add_states(const struct space *space, struct usage_totals *totals) {
  for (uint64_t i = 0; i < space->segment_count; i++) {
    const struct share_segment *entry = usage_entry(space, i);
    if (usage_is(entry, SHARE_SEGMENT_FREE)) {
      totals->free_count++;
      if ((usage_state(entry) & SHARE_SEGMENT_HOLE) != 0) totals->hole_count++;
    } else if (usage_is(entry, SHARE_SEGMENT_EMPTY)) {
      totals->empty_count++;
    } else {
      int64_t live = usage_live_bytes(entry);
      totals->used_count++;
      if ((usage_state(entry) & SHARE_SEGMENT_STUCK) != 0)
        totals->stuck_count++;
      if ((usage_state(entry) & SHARE_SEGMENT_UNCOUNTED) != 0)
        totals->uncounted_count++;
      else if (live > 0)
        totals->live_bytes += (uint64_t)live;
    }
  }
}

int probe_space_usage(lua_State *L) {
  struct store *store = space_store(L);
  const struct share_upkeep *upkeep = &store->share.header->upkeep;
  struct usage_difference difference = {0, 0};
  struct usage_totals totals;
  struct verify_report report;
  int code = writer_enter(&store->writer, OWNER_LOCK_FOREVER);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  code = walk_live(store, &report);
  if (code == MMCMAP_OK) compare_usage(store, &report, &difference);
  free(report.uses);
  memset(&totals, 0, sizeof totals);
  if (code == MMCMAP_OK && log_is_started(&store->writer.log))
    add_states(&store->space, &totals);
  writer_leave(&store->writer);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_newtable(L);
  fields_set_u64(L, "low", difference.low);
  fields_set_u64(L, "high", difference.high);
  fields_set_u64(L, "used", totals.used_count);
  fields_set_u64(L, "free", totals.free_count);
  fields_set_u64(L, "holes", totals.hole_count);
  fields_set_u64(L, "known_free", atomic_load(&upkeep->free_count));
  fields_set_u64(L, "empty", totals.empty_count);
  fields_set_u64(L, "uncounted", totals.uncounted_count);
  fields_set_u64(L, "stuck", totals.stuck_count);
  fields_set_u64(L, "live_bytes", totals.live_bytes);
  fields_set_u64(L, "need", upkeep->need);
  fields_set_u64(L, "emptying", upkeep->is_emptying);
  fields_set_u64(L, "late", upkeep->is_late);
  return 1;
}

static struct cleaner_ahead ahead;
static uint64_t ahead_of; /* the connection */

int probe_space_ahead(lua_State *L) {
  lua_Integer dead_count = 0;
  for (unsigned i = ahead.next; i < ahead.count; i++)
    dead_count += ahead.nodes[i].is_dead;
  lua_pushinteger(L, (lua_Integer)(ahead.count - ahead.next));
  lua_pushinteger(L, dead_count);
  return 2;
}

static int clean(lua_State *L, struct cleaner_ahead *by) {
  const struct change_mode mode = {.timeout_ms = OWNER_LOCK_FOREVER,
                                   .claim = SPACE_FOR_UPKEEP};
  struct store *store = space_store(L);
  struct share_upkeep *upkeep = &store->share.header->upkeep;
  uint64_t bytes = probe_opt_u64(L, 2, 4096);
  bool found;
  int code = writer_begin_change(&store->writer, mode);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  uint64_t before = upkeep->moved_bytes;
  code = by == NULL
             ? cleaner_clean(&store->writer, bytes, &found)
             : cleaner_clean_ahead(&store->writer, by, bytes, true, &found);
  uint64_t moved = upkeep->moved_bytes - before;
  code = writer_end_change(&store->writer, code);
  if (by != NULL) cleaner_look_ahead(&store->writer, by);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_u64(L, moved);
  lua_pushboolean(L, found);
  return 2;
}

int probe_space_clean(lua_State *L) { return clean(L, NULL); }

int probe_space_clean_ahead(lua_State *L) {
  uint64_t connection = space_store(L)->writer.log.connection;
  if (ahead_of != connection) memset(&ahead, 0, sizeof ahead);
  ahead_of = connection;
  return clean(L, &ahead);
}

int probe_space_await(lua_State *L) {
  struct store *store = space_store(L);
  uint64_t begin_ns = process_monotonic_ns();
  commit_await(&store->committer, probe_check_u32(L, 2));
  lua_pushnumber(L, (lua_Number)(process_monotonic_ns() - begin_ns) / 1e6);
  return 1;
}

int probe_space_pin(lua_State *L) {
  struct store *store = space_store(L);
  struct share_row *row;
  int code = readers_row(&store->readers, &row);
  if (code == MMCMAP_OK) readers_pin(&store->readers, row);
  return probe_result(L, code);
}

int probe_space_unpin(lua_State *L) {
  struct store *store = space_store(L);
  struct share_row *row;
  int code = readers_row(&store->readers, &row);
  if (code == MMCMAP_OK) readers_unpin(row);
  return probe_result(L, code);
}
