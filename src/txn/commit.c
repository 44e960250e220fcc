/* SPDX-License-Identifier: MIT */
/*
 * What a leader does, in order: let the others join; seal; complete headers,
 * each with the checksum of the one before; sync; say so. A superblock is
 * written only after the sync that made its epoch durable, and needs none of
 * its own: until it is on disk, recovery rolls forward from the one before.
 */
#include "txn/commit.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "os/file.h"
#include "os/process.h"
#include "os/thread.h"

enum {
  SUPERBLOCK_INTERVAL_MIN = 1 << 20,  /* bytes of log between superblocks: */
  SUPERBLOCK_INTERVAL_MAX = 64 << 20, /* an eighth of the file, in between */
  GATHER_MAX_NS = 2000000,
  FOLLOWER_TIMEOUT_MS = 1000 /* then a follower looks again for itself */
};

/* What the leader takes out of the writer lock. */
struct batch {
  struct log_frame *frames;
  size_t frame_count;
  uint64_t log_end;
  struct superblock state; /* as of the last frame, but for the chain */
};

void committer_init(struct committer *committer, struct writer *writer,
                    struct superblocks *superblocks) {
  memset(committer, 0, sizeof *committer);
  committer->writer = writer;
  committer->superblocks = superblocks;
  committer->chain = superblocks->current.chain;
  atomic_store(&committer->superblock_epoch, superblocks->current.epoch);
}

/* The present state as a superblock has it; the writer lock is held and the
   open epoch has no changes. */
static void describe_state(struct committer *committer,
                           struct superblock *state_out) {
  const struct writer *writer = committer->writer;
  const struct log *log = &writer->log;
  struct superblock *state = state_out;
  *state = committer->superblocks->current;
  state->flags = 0;
  state->salt = log->salt;
  state->epoch = atomic_load(&writer->live->changed_epoch);
  state->root = atomic_load(&writer->live->root);
  state->count = atomic_load(&writer->live->count);
  state->next_epoch = log->epoch;
  state->segment_count = log->space->segment_count;
  state->heads[HEAD_LOG] = log_head(log);
  state->heads[HEAD_LARGE] = log->large;
  state->used_bytes = state->heads[HEAD_LOG].offset > log->large.offset
                          ? state->heads[HEAD_LOG].offset
                          : log->large.offset;
}

static int take_batch(struct committer *committer, struct batch *batch_out) {
  struct writer *writer = committer->writer;
  memset(batch_out, 0, sizeof *batch_out);
  thread_mutex_lock(&writer->mutex);
  int code = writer_seal(writer);
  if (code == MMCMAP_OK) {
    batch_out->frames = log_take_closed(&writer->log, &batch_out->frame_count);
    batch_out->log_end = log_end(&writer->log);
    describe_state(committer, &batch_out->state);
  }
  thread_mutex_unlock(&writer->mutex);
  return code;
}

/* Completes the headers of the batch and returns their bytes. */
static uint64_t complete_frames(struct committer *committer,
                                const struct batch *batch) {
  const struct log *log = &committer->writer->log;
  uint64_t bytes = 0;
  for (size_t i = 0; i < batch->frame_count; i++) {
    if (BROKEN(BREAK_LEAVE_FRAME) && i + 1 < batch->frame_count) continue;
    struct log_frame *closed = &batch->frames[i];
    closed->frame.previous = committer->chain;
    committer->chain = frame_complete(log_at(log, closed->offset),
                                      &closed->frame, log->hasher);
    bytes += closed->frame.size_bytes;
  }
  return bytes;
}

static int sync_file(struct committer *committer) {
  atomic_fetch_add_explicit(&committer->sync_count, 1, memory_order_relaxed);
  TEST_POINT("sync");
  if (BROKEN(BREAK_DROP_SYNC)) return MMCMAP_OK;
  int code = file_sync(committer->superblocks->fd);
  return BROKEN(BREAK_IGNORE_SYNC_ERROR) ? MMCMAP_OK : code;
}

static uint64_t superblock_interval(const struct superblock *state) {
  uint64_t interval = state->used_bytes / 8;
  if (interval < SUPERBLOCK_INTERVAL_MIN) interval = SUPERBLOCK_INTERVAL_MIN;
  if (interval > SUPERBLOCK_INTERVAL_MAX) interval = SUPERBLOCK_INTERVAL_MAX;
  return interval;
}

static int write_superblock(struct committer *committer,
                            struct superblock *state) {
  int code = superblocks_write(committer->superblocks, state);
  if (code != MMCMAP_OK) return code;
  committer->bytes_since_superblock = 0;
  atomic_store(&committer->superblock_epoch, state->epoch);
  return MMCMAP_OK;
}

/* Writes a superblock that is on disk on return; no leader is under way. */
static int write_superblock_now(struct committer *committer,
                                struct superblock *state) {
  int code = MMCMAP_OK;
  if (!committer->superblocks->is_synced) code = sync_file(committer);
  if (code != MMCMAP_OK) return code;
  committer->superblocks->is_synced = true;
  state->chain = committer->chain;
  code = write_superblock(committer, state);
  if (code == MMCMAP_OK) code = sync_file(committer);
  if (code == MMCMAP_OK) committer->superblocks->is_synced = true;
  return code;
}

/* Lets those who were woken last make their next change and join: waiting for
   them half as long as a sync takes costs less than another sync. */
static void gather(struct committer *committer) {
  uint64_t wait_ns = committer->sync_ns / 2;
  if (wait_ns > GATHER_MAX_NS) wait_ns = GATHER_MAX_NS;
  uint64_t end_ns = process_monotonic_ns() + wait_ns;
  while (atomic_load_explicit(&committer->waiting, memory_order_relaxed) <
             committer->expected &&
         process_monotonic_ns() < end_ns)
    thread_yield();
  committer->carried = atomic_exchange(&committer->waiting, 0);
}

/* The batch's sync has succeeded. It began after the newest superblock was
   written, so that is on disk too. */
static int publish_batch(struct committer *committer, struct batch *batch) {
  committer->superblocks->is_synced = true;
  /* R6: the sync comes before; pairs with is_durable(). */
  atomic_store_explicit(&committer->writer->live->durable_epoch,
                        batch->state.epoch, memory_order_release);
  atomic_fetch_add_explicit(&committer->commit_count, 1, memory_order_relaxed);
  if (committer->bytes_since_superblock < superblock_interval(&batch->state))
    return MMCMAP_OK;
  return write_superblock(committer, &batch->state);
}

/* After a failure it is not known what is on disk, and a failed sync is never
   tried again, because the kernel may have dropped the pages (Rebello et al.,
   "Can applications recover from fsync failures?", 2020): no change may build
   on it. */
static int fail(struct committer *committer, int code) {
  atomic_store(&committer->failed, code);
  thread_mutex_lock(&committer->writer->mutex);
  committer->writer->failed = code;
  thread_mutex_unlock(&committer->writer->mutex);
  return code;
}

static int sync_batch(struct committer *committer, struct batch *batch) {
  committer->bytes_since_superblock += complete_frames(committer, batch);
  batch->state.chain = committer->chain;
  if (BROKEN(BREAK_EARLY_SUPERBLOCK) && committer->superblocks->is_synced)
    (void)write_superblock(committer, &batch->state);
  uint64_t begin_ns = process_monotonic_ns();
  int code = sync_file(committer);
  committer->sync_ns = process_monotonic_ns() - begin_ns;
  if (code == MMCMAP_OK) code = publish_batch(committer, batch);
  free(batch->frames);
  return code == MMCMAP_OK ? code : fail(committer, code);
}

static bool is_durable(const struct committer *committer, uint64_t epoch) {
  return atomic_load_explicit(&committer->writer->live->durable_epoch,
                              memory_order_acquire) >= epoch;
}

/* Makes durable all that is visible. A seal that finds no space has spoilt
   nothing. */
static int lead(struct committer *committer, uint64_t *log_end_out) {
  struct batch batch;
  gather(committer);
  int code = take_batch(committer, &batch);
  if (code != MMCMAP_OK) return code;
  *log_end_out = batch.log_end;
  CHECK(batch.frame_count > 0);
  return sync_batch(committer, &batch);
}

static void end_leadership(struct committer *committer) {
  committer->expected =
      committer->carried +
      atomic_load_explicit(&committer->waiting, memory_order_relaxed);
  /* R7: who is woken finds the leadership free. */
  atomic_store_explicit(&committer->leading, 0, memory_order_release);
  atomic_fetch_add_explicit(&committer->sequence, 1, memory_order_release);
  thread_wake_all(&committer->sequence);
}

/* Leads unless somebody else does, or has just done it all. */
static int try_to_lead(struct committer *committer, uint64_t epoch,
                       bool *led_out) {
  uint32_t nobody = 0;
  uint64_t log_end = 0;
  *led_out = atomic_compare_exchange_strong(&committer->leading, &nobody, 1);
  if (!*led_out) return MMCMAP_OK;
  int code = MMCMAP_OK;
  if (atomic_load(&committer->failed) == 0 && !is_durable(committer, epoch))
    code = lead(committer, &log_end);
  end_leadership(committer);
  if (code == MMCMAP_OK && log_end != 0)
    space_write_ahead(committer->writer->log.space, log_end);
  return code;
}

int commit_epoch(struct committer *committer, uint64_t epoch) {
  if (is_durable(committer, epoch)) return MMCMAP_OK;
  atomic_fetch_add_explicit(&committer->waiting, 1, memory_order_relaxed);
  for (;;) {
    uint32_t sequence =
        atomic_load_explicit(&committer->sequence, memory_order_acquire);
    if (is_durable(committer, epoch)) return MMCMAP_OK;
    int code = atomic_load(&committer->failed);
    if (code != MMCMAP_OK) return error_set(code, "an earlier commit failed");
    bool led;
    code = try_to_lead(committer, epoch, &led);
    if (code != MMCMAP_OK) return code;
    if (!led)
      thread_wait_for_change(&committer->sequence, sequence,
                             FOLLOWER_TIMEOUT_MS);
  }
}

int commit_all(struct committer *committer) {
  return commit_epoch(
      committer, atomic_load_explicit(&committer->writer->live->changed_epoch,
                                      memory_order_relaxed));
}

int commit_start_session(struct committer *committer,
                         const struct superblock_head heads[SUPERBLOCK_HEADS]) {
  struct writer *writer = committer->writer;
  uint64_t salt;
  int code = process_random(&salt, sizeof salt);
  if (code != MMCMAP_OK) return code;
  if (BROKEN(BREAK_KEEP_SALT)) salt = committer->superblocks->current.salt;
  code = log_prepare(&writer->log, salt, atomic_load(&writer->live->open_epoch),
                     heads);
  if (code != MMCMAP_OK) return code;
  struct superblock state;
  describe_state(committer, &state);
  code = write_superblock_now(committer, &state);
  if (code != MMCMAP_OK) {
    writer->failed = code;
    return code;
  }
  log_start(&writer->log);
  writer->started = true;
  return MMCMAP_OK;
}

int commit_end_session(struct committer *committer) {
  struct superblock state;
  thread_mutex_lock(&committer->writer->mutex);
  describe_state(committer, &state);
  thread_mutex_unlock(&committer->writer->mutex);
  state.flags = SUPERBLOCK_CLEAN;
  /* A put that failed half-way may have moved the heads since the last sync. */
  committer->superblocks->is_synced = false;
  return write_superblock_now(committer, &state);
}
