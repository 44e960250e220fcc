/* SPDX-License-Identifier: MIT */
/*
 * Figures, and who uses a store.
 */
#include <string.h>

#include "handle.h"

/* The lock is held. Before the first change nobody looks after segments. */
static void stat_of_space(struct store *store, mmcmap_stat *stat_out) {
  const struct share_upkeep *upkeep = &store->share.header->upkeep;
  struct usage_totals totals;
  if (store->is_readonly || !log_is_started(&store->writer.log)) return;
  log_sweep(&store->writer.log, &totals);
  stat_out->live_bytes = totals.live_bytes;
  stat_out->live_segments = totals.used_count;
  stat_out->held_segments = totals.held_count;
  stat_out->uncounted_segments = totals.uncounted_count;
  stat_out->waiting_for_pins = totals.wait_pin_count;
  stat_out->waiting_for_snapshots = totals.wait_snapshot_count;
  stat_out->waiting_for_commit = totals.wait_commit_count;
  stat_out->free_segments = totals.free_count;
  stat_out->hole_segments = totals.hole_count;
  stat_out->reserve_bytes = atomic_load(&upkeep->reserve_bytes);
  stat_out->moved_bytes = upkeep->moved_bytes;
  stat_out->cleaned_segments = upkeep->cleaned_count;
}

/* What the writer lock guards. */
static int stat_of_writer(struct store *store, uint32_t timeout_ms,
                          mmcmap_stat *stat_out) {
  struct writer *writer = &store->writer;
  const struct share_header *header = store->share.header;
  int code = writer_enter(writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  stat_out->count = atomic_load(&header->change.count);
  stat_out->version = writer_content_epoch(header);
  stat_out->epoch = writer->log.epoch;
  stat_out->segment_count = store->space.segment_count;
  /* Before the first change it is what whoever opened first has recovered. */
  stat_out->used_bytes =
      log_is_started(&writer->log)
          ? usage_end(&writer->log)
          : atomic_load(&header->commit.superblock_used_bytes);
  stat_out->log_bytes = writer->log.appended_bytes;
  stat_out->large_bytes = writer->log.large_bytes;
  stat_out->recycled_bytes = writer->log.recycler.reused_bytes;
  stat_of_space(store, stat_out);
  writer_leave(writer);
  return MMCMAP_OK;
}

static void count_reader(void *context, const struct readers_entry *entry) {
  mmcmap_stat *stat = context;
  if (entry->is_snapshot) {
    stat->snapshot_count++;
  } else {
    stat->process_count++;
    stat->reader_count += entry->thread_rows;
  }
}

int mmcmap_stat_get(mmcmap *handle, mmcmap_stat *stat_out) {
  struct store *store;
  memset(stat_out, 0, sizeof *stat_out);
  int code = enter(handle, &store);
  if (code == MMCMAP_OK)
    code = stat_of_writer(store, handle->options.timeout_ms, stat_out);
  if (code != MMCMAP_OK) return code;
  const struct share_commit *commit = &store->share.header->commit;
  readers_report(&store->readers, count_reader, stat_out);
  stat_out->size_bytes = space_look(&store->space);
  stat_out->segment_bytes = store->space.segment_size;
  stat_out->durable_epoch = atomic_load(&commit->durable_epoch);
  stat_out->superblock_epoch = atomic_load(&commit->superblock_epoch);
  stat_out->commit_count = atomic_load(&commit->commit_count);
  stat_out->sync_count = atomic_load(&commit->sync_count);
  stat_out->recovered_commits =
      atomic_load(&store->share.header->recovered_commits);
  stat_out->max_size_bytes = store->space.max_size_bytes;
  stat_out->address_bytes = store->space.map.size_bytes;
  stat_out->hash = store->hasher.kind;
  stat_out->durability = handle->options.durability;
  stat_out->readonly = handle->is_readonly;
  stat_out->was_clean = atomic_load(&store->share.header->was_clean) != 0;
  return MMCMAP_OK;
}

/* What readers_report() calls back with, and whom to hand it on to. */
struct report {
  void (*visit)(void *context, const mmcmap_reader *reader);
  void *context;
  uint64_t now_ns;
};

static void report_reader(void *context, const struct readers_entry *entry) {
  const struct report *report = context;
  mmcmap_reader reader = {.is_snapshot = entry->is_snapshot,
                          .is_ours = entry->is_ours,
                          .process = entry->process,
                          .thread = entry->thread,
                          .thread_count = entry->thread_rows,
                          .pinned_count = entry->pinned_rows,
                          .age_ns = report->now_ns - entry->since_ns,
                          .version = entry->epoch,
                          .held_bytes = entry->log_bytes};
  report->visit(report->context, &reader);
}

int mmcmap_readers(mmcmap *handle,
                   void (*visit)(void *context, const mmcmap_reader *reader),
                   void *context) {
  struct store *store;
  int code = enter(handle, &store);
  if (code != MMCMAP_OK) return code;
  struct report report = {
      .visit = visit, .context = context, .now_ns = process_monotonic_ns()};
  readers_report(&store->readers, report_reader, &report);
  return MMCMAP_OK;
}
