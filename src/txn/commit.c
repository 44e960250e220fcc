/* SPDX-License-Identifier: MIT */
/*
 * What a leader does, in order: let the others join; seal; complete headers,
 * each with the checksum of the one before; sync; say so. A superblock is
 * written only after the sync that made its epoch durable, and needs none of
 * its own: until it is on disk, recovery rolls forward from the one before.
 */
#include "txn/commit.h"

#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "os/file.h"
#include "os/map.h"
#include "os/process.h"
#include "os/thread.h"
#include "share/owner_lock.h"

enum {
  SUPERBLOCK_INTERVAL_MIN = 1 << 20,  /* bytes of log between superblocks: */
  SUPERBLOCK_INTERVAL_MAX = 64 << 20, /* an eighth of the file, in between */
  COPY_BYTES = 8192,
  GATHER_MAX_NS = 2000000,
  FOLLOWER_TIMEOUT_MS = 100 /* then a follower looks after the leader */
};

/* What the leader takes out of the writer lock. */
struct batch {
  uint64_t end_offset; /* the open frame: those before it are closed */
  uint64_t log_end;
  uint64_t appended_bytes;
  bool is_staging;          /* as the log's */
  bool in_pieces;           /* as the space's */
  struct superblock state;  /* as of the last frame, but for the chain */
  struct share_chain chain; /* as it will be when the batch is on disk */
};

void committer_init(struct committer *committer, struct writer *writer,
                    struct superblocks *superblocks) {
  committer->writer = writer;
  committer->superblocks = superblocks;
  committer->shared = &writer->header->commit;
}

/* ---- How far the log is on disk ------------------------------------------ */

static struct share_chain load_chain(const struct committer *committer) {
  return committer->writer->header
      ->chain[atomic_load(&committer->shared->chain_index) & 1];
}

static void store_chain(struct committer *committer,
                        const struct share_chain *chain) {
  uint32_t index = (atomic_load(&committer->shared->chain_index) & 1) ^ 1;
  committer->writer->header->chain[index] = *chain;
  atomic_store_explicit(&committer->shared->chain_index, index,
                        memory_order_release);
}

void committer_install(struct committer *committer,
                       const struct superblock *state) {
  struct share_chain chain = {.checksum = state->chain,
                              .durable_epoch = state->epoch};
  store_chain(committer, &chain);
  atomic_store(&committer->shared->failed, 0);
  atomic_store(&committer->shared->durable_epoch, state->epoch);
  atomic_store(&committer->shared->superblock_epoch, state->epoch);
  atomic_store(&committer->shared->superblock_used_bytes, state->used_bytes);
  atomic_store(&committer->shared->recovery_epoch, 0);
}

/* ---- Superblocks --------------------------------------------------------- */

/* The present state as a superblock has it; the writer lock is held and the
   open epoch has no changes. */
static void describe_state(struct committer *committer,
                           struct superblock *state_out) {
  const struct share_header *header = committer->writer->header;
  const struct log *log = &committer->writer->log;
  struct superblock *state = state_out;
  *state = committer->superblocks->constant;
  state->flags = 0;
  state->salt = log->salt;
  state->epoch = atomic_load(&header->change.changed_epoch);
  state->content_epoch = writer_content_epoch(header);
  state->root = atomic_load(&header->live.root);
  state->count = atomic_load(&header->change.count);
  state->next_epoch = log->epoch;
  state->segment_count = usage_segment_count(log->space);
  state->heads[HEAD_LOG] = log_head(log);
  state->heads[HEAD_LARGE] = log->large;
  state->heads[HEAD_BRANCH] = log_branch_head(log);
  state->usage_offset = state->usage_count = state->usage_checksum = 0;
  state->used_bytes = usage_end(log);
  /* It is about to be written: from now on the file must have that much. */
  if (atomic_load(&committer->shared->superblock_used_bytes) <
      state->used_bytes)
    atomic_store(&committer->shared->superblock_used_bytes, state->used_bytes);
}

static int take_batch(struct committer *committer, uint64_t end_ns,
                      struct batch *batch_out) {
  struct writer *writer = committer->writer;
  memset(batch_out, 0, sizeof *batch_out);
  int code = writer_enter(writer, owner_lock_left_ms(end_ns));
  if (code != MMCMAP_OK) return code;
  space_set_claim(writer->log.space, SPACE_FOR_COMMITS);
  code = writer_close_log(writer);
  if (code == MMCMAP_OK) {
    batch_out->end_offset = writer->log.frame_offset;
    batch_out->log_end = log_end(&writer->log);
    batch_out->appended_bytes = writer->log.appended_bytes;
    batch_out->is_staging = writer->log.is_staging;
    batch_out->in_pieces = writer->log.space->in_pieces;
    describe_state(committer, &batch_out->state);
  }
  writer_leave(writer);
  return code;
}

/* Completes the header of one frame. A small one that was staged is hashed in a
   copy, and its header written with pwrite(), for the same reason. */
static int complete_frame(const struct log *log, bool is_staging,
                          uint64_t offset, struct frame *frame,
                          uint64_t *checksum_out) {
  /* The stage is the writer's: a closed frame is not in it. */
  uint8_t *at = log->space->map.write + offset;
  uint8_t copy[COPY_BYTES];
  if (!is_staging || frame->size_bytes > sizeof copy) {
    *checksum_out = frame_complete(at, frame, log->hasher);
    return MMCMAP_OK;
  }
  memcpy(copy, at, frame->size_bytes);
  *checksum_out = frame_complete(copy, frame, log->hasher);
  return file_write(log->space->fd, copy, FRAME_HEADER_BYTES, offset);
}

/* The epoch that the last frame of a commit has, `first` being the first one. */
static int find_commit_epoch(const struct node_source *source,
                             const struct batch *batch, uint32_t segment_size,
                             uint64_t first_offset, const struct frame *first,
                             uint64_t *epoch_out) {
  struct frame frame = *first;
  uint64_t offset = first_offset;
  uint64_t left = source->size;
  *epoch_out = 0;
  while ((frame.flags & FRAME_ENDS_COMMIT) == 0) {
    offset = frame.next_offset;
    int code = offset == batch->end_offset || frame.size_bytes > left
                   ? error_set_corrupt("F16 frame size", offset)
                   : frame_read_closed(source, offset, segment_size,
                                       batch->state.salt, &frame);
    if (code != MMCMAP_OK) return code;
    left -= frame.size_bytes;
  }
  /* 0 would not be known again. */
  if (frame.epoch == 0 || frame.epoch > batch->state.epoch)
    return error_set_corrupt("F15 frame salt and chain", offset);
  *epoch_out = frame.epoch;
  return MMCMAP_OK;
}

/* Completes the headers of the frames that were closed and are not durable,
   one behind the other. They are read from the file: what cannot be ends it. */
static int complete_frames(struct committer *committer, struct batch *batch) {
  const struct log *log = &committer->writer->log;
  struct share_chain chain = load_chain(committer);
  uint64_t left = space_look(log->space);
  struct node_source source = space_source(log->space);
  uint32_t segment_size = log->space->segment_size;
  uint64_t epoch = 0; /* of the commit that the frame is of; 0: of the next */
  while (chain.next_offset != batch->end_offset) {
    struct frame frame;
    int code = frame_read_closed(&source, chain.next_offset, segment_size,
                                 batch->state.salt, &frame);
    if (code == MMCMAP_OK && epoch == 0)
      code = find_commit_epoch(&source, batch, segment_size, chain.next_offset,
                               &frame, &epoch);
    if (code != MMCMAP_OK) return code;
    frame.epoch = epoch;
    if ((frame.flags & FRAME_ENDS_COMMIT) != 0) epoch = 0;
    if (frame.size_bytes > left)
      return error_set_corrupt("F16 frame size", chain.next_offset);
    left -= frame.size_bytes;
    if (!BROKEN(BREAK_LEAVE_FRAME) || frame.next_offset == batch->end_offset) {
      frame.previous = chain.checksum;
      code = complete_frame(log, batch->is_staging, chain.next_offset, &frame,
                            &chain.checksum);
      if (code != MMCMAP_OK) return code;
    }
    chain.next_offset = frame.next_offset;
  }
  chain.durable_epoch = batch->state.epoch;
  batch->chain = chain;
  batch->state.chain = chain.checksum;
  return MMCMAP_OK;
}

/* Makes durable what has been written to the file, or of it the superblocks. */
static int sync_pages(struct committer *committer, bool only_superblocks) {
  atomic_fetch_add_explicit(&committer->shared->sync_count, 1,
                            memory_order_relaxed);
  TEST_POINT("sync");
  if (BROKEN(BREAK_DROP_SYNC) ||
      (only_superblocks && BROKEN(BREAK_SUPERBLOCK_UNSYNCED)))
    return MMCMAP_OK;
  /* If we are killed in there, nobody is told whether it has failed. */
  atomic_store(&committer->shared->is_syncing, 1);
  int code = only_superblocks ? map_sync(&committer->writer->log.space->map, 0,
                                         SUPERBLOCK_B_OFFSET + SUPERBLOCK_BYTES)
                              : file_sync(committer->superblocks->fd);
  if (code == MMCMAP_OK) atomic_store(&committer->shared->is_syncing, 0);
  TEST_POINT("synced");
  return BROKEN(BREAK_IGNORE_SYNC_ERROR) ? MMCMAP_OK : code;
}

static int sync_file(struct committer *committer) {
  return sync_pages(committer, false);
}

static uint64_t superblock_interval(const struct superblock *state) {
  uint64_t interval = state->used_bytes / 8;
  if (TESTING_SUPERBLOCK_INTERVAL != 0) return TESTING_SUPERBLOCK_INTERVAL;
  if (interval < SUPERBLOCK_INTERVAL_MIN) interval = SUPERBLOCK_INTERVAL_MIN;
  if (interval > SUPERBLOCK_INTERVAL_MAX) interval = SUPERBLOCK_INTERVAL_MAX;
  return interval;
}

/* A sync that began after the newest superblock was written has succeeded. */
static void note_synced_superblock(struct committer *committer) {
  struct share_commit *shared = committer->shared;
  superblocks_set_synced(committer->superblocks, true);
  atomic_store(&shared->recovery_used_bytes,
               atomic_load(&shared->superblock_used_bytes));
  atomic_store_explicit(&shared->recovery_epoch,
                        atomic_load(&shared->superblock_epoch),
                        memory_order_release);
}

/* `appended_bytes` is as of the state. */
static int write_superblock(struct committer *committer,
                            const struct superblock *state,
                            uint64_t appended_bytes) {
  int code = superblocks_write(committer->superblocks, state);
  if (code != MMCMAP_OK) return code;
  struct share_chain chain = load_chain(committer);
  chain.superblock_bytes = appended_bytes;
  store_chain(committer, &chain);
  atomic_store(&committer->shared->superblock_epoch, state->epoch);
  atomic_store(&committer->shared->superblock_used_bytes, state->used_bytes);
  atomic_store(&committer->shared->wants_superblock, 0);
  if (BROKEN(BREAK_REUSE_UNSYNCED)) note_synced_superblock(committer);
  return MMCMAP_OK;
}

/* Writes a superblock that is on disk on return; no leader is under way. */
static int write_superblock_now(struct committer *committer,
                                struct superblock *state) {
  struct superblocks *blocks = committer->superblocks;
  int code = MMCMAP_OK;
  if (!superblocks_are_synced(blocks) && !BROKEN(BREAK_STATE_UNSYNCED))
    code = sync_file(committer);
  if (code != MMCMAP_OK) return code;
  note_synced_superblock(committer);
  state->chain = load_chain(committer).checksum;
  code = write_superblock(
      committer, state,
      atomic_load(&committer->writer->header->change.appended_bytes));
  if (code == MMCMAP_OK) code = sync_file(committer);
  if (code == MMCMAP_OK) note_synced_superblock(committer);
  return code;
}

/* ---- Leading ------------------------------------------------------------- */

/* Lets those who were woken last make their next change and join: waiting for
   them half as long as a sync takes costs less than another sync. */
static void gather(struct share_commit *shared) {
  uint64_t wait_ns = shared->sync_ns / 2;
  if (wait_ns > GATHER_MAX_NS) wait_ns = GATHER_MAX_NS;
  uint64_t end_ns = process_monotonic_ns() + wait_ns;
  while (atomic_load_explicit(&shared->waiting, memory_order_relaxed) <
             shared->expected &&
         process_monotonic_ns() < end_ns)
    thread_yield();
  shared->carried = atomic_exchange(&shared->waiting, 0);
}

/* R6: the sync comes before; pairs with is_durable(). */
static void raise_durable(struct committer *committer) {
  atomic_store_explicit(&committer->shared->durable_epoch,
                        load_chain(committer).durable_epoch,
                        memory_order_release);
}

static bool is_superblock_due(const struct committer *committer,
                              const struct batch *batch) {
  return batch->appended_bytes - batch->chain.superblock_bytes >=
             superblock_interval(&batch->state) ||
         atomic_load(&committer->shared->wants_superblock) != 0;
}

/* The batch's sync has succeeded. It began after the newest superblock was
   written, so that is on disk too. */
static int publish_batch(struct committer *committer, struct batch *batch) {
  note_synced_superblock(committer);
  store_chain(committer, &batch->chain);
  raise_durable(committer);
  atomic_fetch_add_explicit(&committer->shared->commit_count, 1,
                            memory_order_relaxed);
  return is_superblock_due(committer, batch)
             ? write_superblock(committer, &batch->state, batch->appended_bytes)
             : MMCMAP_OK;
}

static int sync_batch(struct committer *committer, struct batch *batch) {
  if (BROKEN(BREAK_EARLY_SUPERBLOCK) &&
      superblocks_are_synced(committer->superblocks))
    (void)write_superblock(committer, &batch->state, batch->appended_bytes);
  uint64_t begin_ns = process_monotonic_ns();
  atomic_store(&committer->shared->last_ns, begin_ns);
  int code = MMCMAP_OK;
  if (!BROKEN(BREAK_LOG_UNSYNCED) || !is_superblock_due(committer, batch))
    code = sync_file(committer);
  committer->shared->sync_ns = process_monotonic_ns() - begin_ns;
  if (code == MMCMAP_OK) code = publish_batch(committer, batch);
  return code;
}

static uint64_t durable_epoch(const struct committer *committer) {
  return atomic_load_explicit(&committer->shared->durable_epoch,
                              memory_order_acquire);
}

static bool is_durable(const struct committer *committer, uint64_t epoch) {
  return durable_epoch(committer) >= epoch;
}

/* Makes durable all that is visible. A seal that finds no space has spoilt nothing. After
   another failure it is not known what is on disk, and a failed sync is never tried again,
   because the kernel may have dropped the pages (Rebello et al., "Can applications recover
   from fsync failures?", 2020): no change in any process may build on it. */
static int lead(struct committer *committer, uint64_t end_ns,
                uint64_t *log_end_out, bool *in_pieces_out) {
  struct batch batch;
  gather(committer->shared);
  readers_end_old_snapshots(committer->writer->readers);
  int code = take_batch(committer, end_ns, &batch);
  if (code != MMCMAP_OK) return code;
  *log_end_out = batch.log_end;
  *in_pieces_out = batch.in_pieces;
  code = complete_frames(committer, &batch);
  if (code == MMCMAP_OK) code = sync_batch(committer, &batch);
  if (code != MMCMAP_OK && !BROKEN(BREAK_OWN_FAILURE))
    atomic_store(&committer->shared->failed, code);
  return code;
}

static void end_leadership(struct committer *committer) {
  struct share_commit *shared = committer->shared;
  shared->expected =
      shared->carried +
      atomic_load_explicit(&shared->waiting, memory_order_relaxed);
  /* R7: who is woken finds the leadership free. */
  owner_lock_release(&shared->leader);
  atomic_fetch_add_explicit(&shared->sequence, 1, memory_order_release);
  thread_wake_all(&shared->sequence);
}

/* Becomes the leader if there is none, or if the one there was is dead: that
   is looked into only if `probe` is set. */
static int become_leader(struct committer *committer, bool probe,
                         bool *leads_out) {
  struct readers *readers = committer->writer->readers;
  struct share_lock *leader = &committer->shared->leader;
  uint32_t owner;
  bool inherited = false;
  *leads_out = false;
  int code = readers_owner(readers, &owner);
  if (code != MMCMAP_OK) return code;
  *leads_out = owner_lock_try(leader, owner, &inherited);
  if (!*leads_out && probe)
    *leads_out = inherited = owner_lock_inherit(readers, leader, owner);
  /* It may have died between noting that a batch is on disk and saying so. */
  if (inherited) raise_durable(committer);
  if (*leads_out) TEST_POINT("led");
  return MMCMAP_OK;
}

/* Waits for a leader, which is alive if it was `probed`; MMCMAP_EBUSY. */
static int follow(struct committer *committer, uint32_t sequence, bool probed,
                  uint64_t end_ns) {
  if (end_ns == 0) end_ns = atomic_load(&committer->writer->readers->leave_ns);
  uint32_t left_ms = owner_lock_left_ms(end_ns);
  if (left_ms == 0 && probed)
    return error_set(MMCMAP_EBUSY, "no commit within the time-out");
  if (left_ms > FOLLOWER_TIMEOUT_MS) left_ms = FOLLOWER_TIMEOUT_MS;
  thread_wait_for_change(&committer->shared->sequence, sequence, left_ms);
  return MMCMAP_OK;
}

/* Leads unless somebody else does, or has just done it all. */
static int try_to_lead(struct committer *committer, uint64_t epoch,
                       uint64_t end_ns, bool probe, bool *led_out) {
  uint64_t log_end = 0;
  bool in_pieces = false;
  int code = become_leader(committer, probe, led_out);
  if (code != MMCMAP_OK || !*led_out) return code;
  if (atomic_load(&committer->shared->failed) == 0 &&
      !is_durable(committer, epoch))
    code = lead(committer, end_ns, &log_end, &in_pieces);
  end_leadership(committer);
  if (code == MMCMAP_OK && log_end != 0)
    space_write_ahead(committer->writer->log.space, log_end, in_pieces);
  return code;
}

/* A leader may be waiting for the writer lock: whoever has it does not wait for
   that leader. */
static int check_waits_for_nobody(struct committer *committer) {
  struct writer *writer = committer->writer;
  uint32_t owner;
  int code = readers_owner(writer->readers, &owner);
  if (code == MMCMAP_OK && !BROKEN(BREAK_WAIT_FOR_SELF) &&
      owner_lock_is_owned(&writer->header->writer_lock, owner))
    code = error_set(MMCMAP_EBUSY, "this thread has a transaction under way");
  return code;
}

/* Unless `left_out` is NULL, it is enough that a leader that was waited for has
   committed something: what that has left out is younger than its commit. */
static int commit_or_follow(struct committer *committer, uint64_t epoch,
                            uint64_t end_ns, bool *left_out) {
  struct share_commit *shared = committer->shared;
  uint64_t before = durable_epoch(committer);
  if (is_durable(committer, epoch)) return MMCMAP_OK;
  int allowed = check_waits_for_nobody(committer);
  if (UNLIKELY(allowed != MMCMAP_OK)) return allowed;
  atomic_fetch_add_explicit(&shared->waiting, 1, memory_order_relaxed);
  for (bool probe = false;;) {
    uint32_t sequence =
        atomic_load_explicit(&shared->sequence, memory_order_acquire);
    if (is_durable(committer, epoch)) return MMCMAP_OK;
    int code = commit_failure(shared);
    if (code != MMCMAP_OK) return error_set(code, "an earlier commit failed");
    bool led;
    code = try_to_lead(committer, epoch, end_ns, probe, &led);
    if (code == MMCMAP_OK && !led)
      code = follow(committer, sequence, probe, end_ns);
    if (code != MMCMAP_OK) return code;
    if (led) continue;
    /* Nobody has finished in all that time: perhaps nobody leads. */
    probe = atomic_load(&shared->sequence) == sequence;
    uint64_t now = durable_epoch(committer);
    if (left_out == NULL || now == before) continue;
    *left_out = now < epoch;
    return MMCMAP_OK;
  }
}

int commit_epoch(struct committer *committer, uint64_t epoch) {
  return commit_or_follow(committer, epoch, 0, NULL);
}

int commit_as_flusher(struct committer *committer, uint64_t epoch,
                      bool *left_out) {
  *left_out = false;
  return commit_or_follow(committer, epoch, 0, left_out);
}

void commit_await(struct committer *committer, uint32_t most_ms) {
  struct share_commit *shared = committer->shared;
  uint64_t before = atomic_load(&shared->recovery_epoch);
  uint64_t end_ns = process_monotonic_ns() + most_ms * UINT64_C(1000000);
  TEST_POINT("await");
  for (;;) {
    uint32_t sequence =
        atomic_load_explicit(&shared->sequence, memory_order_acquire);
    uint64_t now_ns = process_monotonic_ns();
    if (atomic_load(&shared->recovery_epoch) != before || now_ns >= end_ns ||
        commit_failure(shared) != MMCMAP_OK)
      return;
    thread_wait_for_change(&shared->sequence, sequence,
                           (uint32_t)((end_ns - now_ns) / 1000000 + 1));
  }
}

bool commit_frees(const struct committer *committer) {
  const struct share_header *header = committer->writer->header;
  return atomic_load(&header->commit.recovery_epoch) <
         atomic_load(&header->change.changed_epoch);
}

/* With the leadership. */
static int lead_to_superblock(struct committer *committer, bool again) {
  struct share_commit *shared = committer->shared;
  const struct share_header *header = committer->writer->header;
  uint64_t log_end;
  bool in_pieces;
  int code = commit_failure(shared);
  if (code != MMCMAP_OK) return error_set(code, "an earlier commit failed");
  uint64_t epoch = atomic_load(&header->change.changed_epoch);
  if (again || atomic_load(&shared->superblock_epoch) < epoch) {
    atomic_store(&shared->wants_superblock, 1);
    code = lead(committer, 0, &log_end, &in_pieces);
  }
  if (code != MMCMAP_OK || superblocks_are_synced(committer->superblocks))
    return code;
  /* What it names is durable already: who waits for space does not wait for all
     that has been written since. */
  code = sync_pages(committer, true);
  if (code == MMCMAP_OK)
    note_synced_superblock(committer);
  else
    atomic_store(&shared->failed, code);
  return code;
}

static int write_synced_superblock(struct committer *committer, bool again) {
  struct share_commit *shared = committer->shared;
  for (bool probe = false;;) {
    uint32_t sequence =
        atomic_load_explicit(&shared->sequence, memory_order_acquire);
    bool leads;
    int code = become_leader(committer, probe, &leads);
    if (code == MMCMAP_OK && leads) {
      code = lead_to_superblock(committer, again);
      end_leadership(committer);
    }
    if (code == MMCMAP_OK && !leads)
      code = follow(committer, sequence, probe, 0);
    if (code != MMCMAP_OK || leads) return code;
    probe = atomic_load(&shared->sequence) == sequence;
  }
}

int commit_superblock(struct committer *committer) {
  return write_synced_superblock(committer, false);
}

int commit_superblocks_again(struct committer *committer) {
  int code = write_synced_superblock(committer, true);
  return code == MMCMAP_OK ? write_synced_superblock(committer, true) : code;
}

int commit_all_within(struct committer *committer, uint32_t timeout_ms) {
  uint64_t epoch = atomic_load_explicit(
      &committer->writer->header->change.changed_epoch, memory_order_relaxed);
  return commit_or_follow(committer, epoch, owner_lock_end_ns(timeout_ms),
                          NULL);
}

int commit_all(struct committer *committer) {
  return commit_all_within(committer, OWNER_LOCK_FOREVER);
}

/* ---- Sessions ------------------------------------------------------------ */

int commit_start_session(struct committer *committer,
                         const struct superblock *recovered) {
  struct writer *writer = committer->writer;
  uint64_t salt;
  int code = process_random(&salt, sizeof salt);
  if (code != MMCMAP_OK) return code;
  if (BROKEN(BREAK_KEEP_SALT)) salt = writer->log.salt;
  writer->log.space->segment_count = recovered->segment_count;
  code = log_prepare(&writer->log, salt, writer->log.epoch, recovered->heads);
  if (code != MMCMAP_OK) return code;
  struct superblock state;
  describe_state(committer, &state);
  code = write_superblock_now(committer, &state);
  if (code != MMCMAP_OK) {
    atomic_store(&committer->shared->failed, code);
    return code;
  }
  struct share_chain chain = load_chain(committer);
  chain.next_offset = writer->log.frame_offset;
  store_chain(committer, &chain);
  log_start(&writer->log);
  return MMCMAP_OK;
}

int commit_end_session(struct committer *committer,
                       const struct usage_table *table) {
  struct superblock state;
  int code = writer_enter(committer->writer, OWNER_LOCK_FOREVER);
  if (code != MMCMAP_OK) return code;
  describe_state(committer, &state);
  writer_leave(committer->writer);
  state.flags = SUPERBLOCK_CLEAN;
  state.usage_offset = table->offset;
  state.usage_count = table->count;
  state.usage_checksum = table->checksum;
  /* A put that failed half-way may have grown the file since the last sync. */
  superblocks_set_synced(committer->superblocks, false);
  code = write_superblock_now(committer, &state);
  if (code != MMCMAP_OK) atomic_store(&committer->shared->failed, code);
  return code;
}
