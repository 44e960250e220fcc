/* SPDX-License-Identifier: MIT */
/*
 * What a leader does, in order: seal; complete headers, each with the checksum
 * of the one before; sync; wait for the leaders before it; say so. A superblock
 * is written only after the sync that made its epoch durable, and needs none of
 * its own: until it is on disk, recovery rolls forward from the one before.
 */
#include "txn/commit.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "os/file.h"
#include "os/process.h"

enum {
  SUPERBLOCK_INTERVAL_MIN = 1 << 20, /* bytes of log between superblocks: */
  SUPERBLOCK_INTERVAL_MAX = 64 << 20 /* an eighth of the file, between these */
};

/* What the leader takes out of the writer lock. */
struct batch {
  uint64_t ticket;
  struct log_frame *frames;
  size_t frame_count;
  uint64_t log_end;
  struct superblock state; /* as of the last frame, but for the chain */
};

int committer_init(struct committer *committer, struct writer *writer,
                   struct superblocks *superblocks) {
  memset(committer, 0, sizeof *committer);
  int code = thread_mutex_init(&committer->mutex);
  if (code != MMCMAP_OK) return code;
  code = thread_condition_init(&committer->changed);
  if (code != MMCMAP_OK) {
    thread_mutex_destroy(&committer->mutex);
    return code;
  }
  committer->writer = writer;
  committer->superblocks = superblocks;
  committer->chain = superblocks->current.chain;
  atomic_store(&committer->superblock_epoch, superblocks->current.epoch);
  return MMCMAP_OK;
}

void committer_destroy(struct committer *committer) {
  thread_condition_destroy(&committer->changed);
  thread_mutex_destroy(&committer->mutex);
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
    batch_out->frames =
        log_take_closed(&writer->log, &batch_out->frame_count);
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
  committer->superblock_ticket = committer->next_ticket;
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

/* Takes all that is sealed, sealing what is open, and makes its frames
   complete: the commit lock is held, so batches chain in their order. */
static int begin_batch(struct committer *committer, struct batch *batch_out) {
  int code = take_batch(committer, batch_out);
  if (code != MMCMAP_OK) return code;
  CHECK(batch_out->frame_count > 0);
  committer->bytes_since_superblock += complete_frames(committer, batch_out);
  batch_out->state.chain = committer->chain;
  batch_out->ticket = committer->next_ticket++;
  committer->taken_epoch = batch_out->state.epoch;
  committer->leader_count++;
  return MMCMAP_OK;
}

/* The batch's sync has succeeded, and all before it have. */
static int publish_batch(struct committer *committer, struct batch *batch) {
  struct superblocks *superblocks = committer->superblocks;
  atomic_store_explicit(&committer->writer->live->durable_epoch,
                        batch->state.epoch, memory_order_release);
  atomic_fetch_add_explicit(&committer->commit_count, 1, memory_order_relaxed);
  if (batch->ticket >= committer->superblock_ticket)
    superblocks->is_synced = true;
  if (!superblocks->is_synced || committer->bytes_since_superblock <
                                     superblock_interval(&batch->state))
    return MMCMAP_OK;
  return write_superblock(committer, &batch->state);
}

/* After a failure it is not known what is on disk, and a failed sync is never
   tried again, because the kernel may have dropped the pages (Rebello et al.,
   "Can applications recover from fsync failures?", 2020): no change may build
   on it. */
static void fail(struct committer *committer, int code) {
  if (committer->failed == 0) committer->failed = code;
  thread_mutex_lock(&committer->writer->mutex);
  committer->writer->failed = committer->failed;
  thread_mutex_unlock(&committer->writer->mutex);
}

/* Makes durable all that is visible. The commit lock is held, but for the
   sync. A seal that finds no space has spoilt nothing. */
static int lead(struct committer *committer) {
  struct batch batch;
  int code = begin_batch(committer, &batch);
  if (code != MMCMAP_OK) return code;
  if (BROKEN(BREAK_EARLY_SUPERBLOCK) && committer->superblocks->is_synced)
    (void)write_superblock(committer, &batch.state);
  thread_mutex_unlock(&committer->mutex);
  int sync_code = sync_file(committer);
  thread_mutex_lock(&committer->mutex);
  while (committer->done_ticket != batch.ticket && !BROKEN(BREAK_OVERTAKE))
    thread_condition_wait(&committer->changed, &committer->mutex);
  if (sync_code != MMCMAP_OK) fail(committer, sync_code);
  if (committer->failed == 0) {
    code = publish_batch(committer, &batch);
    if (code != MMCMAP_OK) fail(committer, code);
  }
  committer->done_ticket++;
  committer->leader_count--;
  thread_condition_broadcast(&committer->changed);
  free(batch.frames);
  if (committer->failed == 0) {
    thread_mutex_unlock(&committer->mutex);
    space_write_ahead(committer->writer->log.space, batch.log_end);
    thread_mutex_lock(&committer->mutex);
  }
  return sync_code != MMCMAP_OK ? sync_code : code;
}

static bool is_durable(const struct committer *committer, uint64_t epoch) {
  return atomic_load_explicit(&committer->writer->live->durable_epoch,
                              memory_order_acquire) >= epoch;
}

int commit_epoch(struct committer *committer, uint64_t epoch) {
  int code = MMCMAP_OK;
  thread_mutex_lock(&committer->mutex);
  while (!is_durable(committer, epoch) && code == MMCMAP_OK) {
    if (committer->failed != 0)
      code = error_set(committer->failed, "an earlier commit failed");
    else if (committer->taken_epoch >= epoch ||
             committer->leader_count == COMMIT_LEADERS_MAX)
      thread_condition_wait(&committer->changed, &committer->mutex);
    else
      code = lead(committer);
  }
  thread_mutex_unlock(&committer->mutex);
  return code;
}

int commit_all(struct committer *committer) {
  return commit_epoch(
      committer, atomic_load_explicit(&committer->writer->live->changed_epoch,
                                      memory_order_relaxed));
}

int commit_start_session(
    struct committer *committer,
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
  return write_superblock_now(committer, &state);
}
