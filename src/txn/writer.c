/* SPDX-License-Identifier: MIT */
/*
 * Changes and seals. The hash of a key is computed before the lock is taken.
 */
#include "txn/writer.h"

#include <string.h>

#include "base/errors.h"
#include "share/owner_lock.h"
#include "txn/saved.h"

void writer_init(struct writer *writer, struct space *space,
                 struct readers *readers, const struct hasher *hasher) {
  memset(writer, 0, sizeof *writer);
  writer->readers = readers;
  writer->header = readers->share->header;
  log_init(&writer->log, space, readers, hasher);
  writer->catalog.log = &writer->log;
  writer->catalog.hasher = hasher;
  writer->catalog.top = &writer->header->live.root;
  writer->catalog.count = &writer->header->change.count;
}

void writer_destroy(struct writer *writer) {
  log_destroy(&writer->log);
  catalog_names_free(&writer->names);
}

/* ---- Moments ------------------------------------------------------------- */

static void store_moment(struct share_header *header,
                         const struct moment *moment) {
  struct share_sealed *sealed = &header->sealed;
  uint64_t sequence =
      atomic_load_explicit(&sealed->sequence, memory_order_relaxed) | 1;
  atomic_store_explicit(&sealed->sequence, sequence, memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
  atomic_store_explicit(&sealed->root, moment->root, memory_order_relaxed);
  atomic_store_explicit(&sealed->count, moment->count, memory_order_relaxed);
  atomic_store_explicit(&sealed->epoch, moment->epoch, memory_order_relaxed);
  atomic_store_explicit(&sealed->content_epoch, moment->content_epoch,
                        memory_order_relaxed);
  atomic_store_explicit(&sealed->sequence, sequence + 1, memory_order_release);
}

/* That of now, as whoever has the writer lock knows it. */
static struct moment live_moment(const struct share_header *header) {
  struct moment moment = {
      .root = atomic_load_explicit(&header->live.root, memory_order_relaxed),
      .count =
          atomic_load_explicit(&header->change.count, memory_order_relaxed),
      .epoch = atomic_load_explicit(&header->change.changed_epoch,
                                    memory_order_relaxed),
      .content_epoch = writer_content_epoch(header)};
  return moment;
}

/* R10: the sealed moment is that of now if nothing was changed after it. False
   if something was, or if it is being replaced. */
static bool load_moment(const struct share_header *header,
                        struct moment *moment_out) {
  const struct share_sealed *sealed = &header->sealed;
  uint64_t sequence =
      atomic_load_explicit(&sealed->sequence, memory_order_acquire);
  struct moment moment = {
      .root = atomic_load_explicit(&sealed->root, memory_order_relaxed),
      .count = atomic_load_explicit(&sealed->count, memory_order_relaxed),
      .epoch = atomic_load_explicit(&sealed->epoch, memory_order_relaxed),
      .content_epoch =
          atomic_load_explicit(&sealed->content_epoch, memory_order_relaxed),
      .earliest_ms = UINT64_MAX};
  atomic_thread_fence(memory_order_acquire);
  if ((sequence & 1) != 0 ||
      sequence != atomic_load_explicit(&sealed->sequence, memory_order_relaxed))
    return false;
  /* Before it is seen that nothing was changed since: so no round of the sweep has
     left out what is in the moment. */
  if (UNLIKELY(slot_is_store(moment.root)))
    moment.earliest_ms = expiry_earliest_ms(header);
  *moment_out = moment;
  return atomic_load_explicit(&header->change.changed_epoch,
                              memory_order_acquire) == moment.epoch;
}

/* ---- The lock ------------------------------------------------------------ */

/* Whether the slot that the intent names was stored. */
static bool was_published(struct writer *writer) {
  const struct share_header *header = writer->header;
  uint64_t place = atomic_load(&header->change.intent_place);
  uint64_t slot = atomic_load(&header->change.intent_slot);
  if (place == 0) return atomic_load(&header->live.root) == slot;
  if (place % 8 != 0 || !bytes_within(place, 8, space_look(writer->log.space)))
    return false;
  return bytes_load_acquire(writer->log.space->map.read + place) == slot;
}

/* Sets the count of a change that was published. Of a named map it stands in the
   data file, which this process may not be allowed to write. */
static int repair_count(struct writer *writer) {
  struct share_header *header = writer->header;
  const struct map *mapped = &writer->log.space->map;
  uint64_t count = atomic_load(&header->change.intent_count);
  uint64_t place = atomic_load(&header->intent_count_place);
  if (place == TRIE_COUNT_IN_CELL) atomic_store(&header->change.count, count);
  if (place % 8 != 0 || place == TRIE_COUNT_IN_CELL ||
      !bytes_within(place, 8, space_look(writer->log.space)) ||
      bytes_load_relaxed(mapped->read + place) == count)
    return MMCMAP_OK;
  if (mapped->write == NULL)
    return error_set(MMCMAP_EREADONLY, "a writer has to repair a count");
  bytes_store_release(mapped->write + place, count);
  return MMCMAP_OK;
}

static int widen(void *context, const struct saved *saved) {
  struct share_upkeep *upkeep = context;
  if (upkeep->saved_newest == 0 || saved->epoch < upkeep->saved_oldest)
    upkeep->saved_oldest = saved->epoch;
  if (saved->epoch > upkeep->saved_newest) upkeep->saved_newest = saved->epoch;
  return MMCMAP_OK;
}

/* Which epochs saved snapshots hold; if that cannot be read, all. */
static void note_saved(struct writer *writer) {
  struct share_upkeep *upkeep = &writer->header->upkeep;
  struct node_source source = space_source(writer->log.space);
  upkeep->saved_oldest = upkeep->saved_newest = 0;
  if (saved_each(&source, atomic_load(&writer->header->live.root), widen,
                 upkeep) != MMCMAP_OK)
    upkeep->saved_newest = UINT64_MAX;
}

/* The change that was announced will not be made: what was announced is what is
   there, as after any other change, in case that we die before the next one. */
static void take_intent_back(struct writer *writer) {
  struct share_header *header = writer->header;
  uint64_t place = atomic_load(&header->change.intent_place);
  uint64_t slot = atomic_load(&header->live.root);
  if (place % 8 != 0 || !bytes_within(place, 8, space_look(writer->log.space)))
    atomic_store(&header->change.intent_place, 0);
  else if (place != 0)
    slot = bytes_load_acquire(writer->log.space->map.read + place);
  atomic_store(&header->change.intent_slot, slot);
}

/* R11: what a writer that died has left. Its nodes that are not linked lie
   behind the cursor; doing this again does no harm. */
static int repair(struct writer *writer) {
  struct share_header *header = writer->header;
  bool is_published = was_published(writer);
  int code = MMCMAP_OK;
  if (is_published && !BROKEN(BREAK_NO_INTENT)) code = repair_count(writer);
  if (code != MMCMAP_OK) return code;
  note_saved(writer);
  /* The next intent may be half written over this one. */
  atomic_store(&header->intent_count_place, TRIE_COUNT_NOWHERE);
  if (!is_published) take_intent_back(writer);
  /* It may have handed over a log that goes on in another frame, and not said that
     there is a change, so that nobody would close the log for a commit; or it has
     sealed, and not said what. An epoch without a change is sealed anew. */
  const struct share_log *log = log_shared(&writer->log);
  if ((atomic_load(&log->flags) & SHARE_LOG_STARTED) != 0)
    atomic_store(&header->change.changed_epoch, log->epoch);
  return MMCMAP_OK;
}

int writer_enter(struct writer *writer, uint32_t timeout_ms) {
  uint32_t owner;
  bool inherited;
  int code = readers_owner(writer->readers, &owner);
  if (LIKELY(code == MMCMAP_OK))
    code = owner_lock_acquire(writer->readers, &writer->header->writer_lock,
                              owner, timeout_ms, &inherited);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  TEST_POINT("locked");
  if (UNLIKELY(!writer_has_transaction(writer, 0)))
    writer_end_transaction(writer); /* its thread has ended */
  if (UNLIKELY(inherited)) {
    log_abandon(&writer->log);
    code = space_check_range(writer->log.space);
    if (code == MMCMAP_OK) code = repair(writer);
    if (code != MMCMAP_OK) {
      owner_lock_abandon(&writer->header->writer_lock);
      return code;
    }
  }
  code = log_enter(&writer->log);
  if (UNLIKELY(code != MMCMAP_OK)) writer_leave(writer);
  return code;
}

void writer_leave(struct writer *writer) {
  owner_lock_release(&writer->header->writer_lock);
}

/* ---- Transactions -------------------------------------------------------- */

uint64_t writer_begin_transaction(struct writer *writer) {
  uint64_t serial = ++writer->last_transaction;
  atomic_store_explicit(&writer->transaction, serial, memory_order_relaxed);
  return serial;
}

void writer_end_transaction(struct writer *writer) {
  atomic_store_explicit(&writer->transaction, 0, memory_order_relaxed);
}

/* ---- Changes ------------------------------------------------------------- */

int writer_prepare(struct writer *writer, struct change_mode mode) {
  int code = MMCMAP_OK;
  space_set_claim(writer->log.space, mode.claim);
  int failed = commit_failure(&writer->header->commit);
  if (UNLIKELY(failed != MMCMAP_OK))
    code = error_set(failed, "an earlier commit failed");
  else if (UNLIKELY(!log_is_started(&writer->log)))
    code = writer->start(writer->start_context);
  writer->log.is_staging = mode.is_synced;
  struct space *space = writer->log.space;
  space->is_fine = log_commits_little(&writer->log);
  if (!mode.is_background)
    space->in_pieces = !mode.is_synced && !space->is_fine;
  if (code == MMCMAP_OK && UNLIKELY(space->is_fine))
    code = log_leave_coarse(&writer->log);
  return code;
}

int writer_begin_change(struct writer *writer, struct change_mode mode) {
  int code = writer_enter(writer, mode.timeout_ms);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  code = writer_prepare(writer, mode);
  if (UNLIKELY(code != MMCMAP_OK)) writer_leave(writer);
  return code;
}

int writer_end_change(struct writer *writer, int code) {
  if (UNLIKELY(code != MMCMAP_OK)) log_abandon(&writer->log);
  writer_leave(writer);
  return code;
}

/* The same, and tells the epoch of the change. */
static int end_change(struct writer *writer, int code, uint64_t *epoch_out) {
  if (LIKELY(code == MMCMAP_OK)) *epoch_out = writer->log.epoch;
  return writer_end_change(writer, code);
}

static struct expiry_reading reading_of(const struct writer *writer) {
  struct expiry_reading now = {.header = writer->header};
  return now;
}

/* The map, to be changed. */
static int open_map(const struct writer *writer, const struct trie_key *map,
                    const struct change_life *life, struct catalog_map *found) {
  return UNLIKELY(change_may_expire(life))
             ? catalog_open_to_expire(&writer->catalog, map, found)
             : catalog_open(&writer->catalog, map, found);
}

int writer_put(struct writer *writer, const struct trie_key *map,
               const void *key, size_t key_size, const void *value,
               size_t value_size, struct change_mode mode,
               uint64_t *epoch_out) {
  *epoch_out = 0;
  int code = change_check_sizes(key_size, value_size);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  struct trie_key trie_key = trie_key_of(writer->catalog.hasher, key, key_size);
  code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  struct catalog_map found;
  struct expiry_reading now = reading_of(writer);
  code = open_map(writer, map, &mode.life, &found);
  if (LIKELY(code == MMCMAP_OK))
    code =
        change_put(&found.trie, &trie_key, value, value_size, mode.life, &now);
  return end_change(writer, code, epoch_out);
}

int writer_delete(struct writer *writer, const struct trie_key *map,
                  const void *key, size_t key_size, struct change_mode mode,
                  uint64_t *epoch_out) {
  *epoch_out = 0;
  if (key_size > MMCMAP_KEY_SIZE_MAX) return MMCMAP_NOTFOUND;
  struct trie_key trie_key = trie_key_of(writer->catalog.hasher, key, key_size);
  if (mode.claim == SPACE_FOR_PUTS) mode.claim = SPACE_FOR_DELETES;
  int code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  struct catalog_map found;
  struct expiry_reading now = reading_of(writer);
  code = catalog_open(&writer->catalog, map, &found);
  if (LIKELY(code == MMCMAP_OK))
    code = change_delete(&found.trie, &trie_key, &now);
  return end_change(writer, code, epoch_out);
}

int writer_delete_expired(struct writer *writer, const struct trie_key *map,
                          struct trie_key *keys, size_t count,
                          struct change_mode mode, size_t *deleted_out,
                          uint64_t *epoch_out) {
  *deleted_out = 0;
  *epoch_out = 0;
  mode.claim = SPACE_FOR_DELETES;
  int code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  struct expiry_reading now = reading_of(writer);
  for (size_t i = 0; i < count && code == MMCMAP_OK; i++) {
    struct catalog_map found;
    code = catalog_open(&writer->catalog, map, &found);
    if (code == MMCMAP_OK)
      code = change_delete_expired(&found.trie, &keys[i], &now);
    if (code == MMCMAP_OK)
      ++*deleted_out;
    else if (code == MMCMAP_NOTFOUND)
      code = MMCMAP_OK; /* somebody has put it again, or deleted it */
  }
  uint64_t epoch = writer->log.epoch, unused;
  code = end_change(writer, code, &unused);
  if (*deleted_out > 0) *epoch_out = epoch;
  return code;
}

int writer_end_expiry(struct writer *writer, const struct trie_key *map,
                      uint64_t round, struct change_mode mode) {
  mode.claim = SPACE_FOR_DELETES;
  int code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  struct catalog_map found;
  writer->log.is_moving = true; /* the content stays as it is */
  code = catalog_open(&writer->catalog, map, &found);
  if (code == MMCMAP_OK && found.lets_expire &&
      !expiry_was_noted(writer->header, found.trie.map_id, round))
    code = catalog_end_expiry(&writer->catalog, map, &found);
  writer->log.is_moving = false;
  return writer_end_change(writer, code);
}

int writer_change(struct writer *writer, const struct trie_key *map,
                  const void *key, size_t key_size, decide_fn *decide,
                  void *context, struct change_mode mode, uint64_t *epoch_out) {
  bool has_changed = false;
  *epoch_out = 0;
  int code = change_check_sizes(key_size, 0);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  struct trie_key trie_key = trie_key_of(writer->catalog.hasher, key, key_size);
  code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  struct catalog_map found;
  struct expiry_reading now = reading_of(writer);
  code = open_map(writer, map, &mode.life, &found);
  if (LIKELY(code == MMCMAP_OK))
    code = change_decided(&found.trie, &trie_key, decide, context, mode.life,
                          &now, &has_changed);
  code = end_change(writer, code, epoch_out);
  if (!has_changed) *epoch_out = 0;
  return code;
}

/* ---- Seals --------------------------------------------------------------- */

void writer_seal(struct writer *writer) {
  struct share_header *header = writer->header;
  uint64_t epoch = writer->log.epoch;
  if (!log_is_started(&writer->log) ||
      atomic_load_explicit(&header->change.changed_epoch,
                           memory_order_relaxed) != epoch)
    return;
  struct moment moment = live_moment(header);
  log_seal(&writer->log);
  TEST_POINT("sealed");
  store_moment(header, &moment);
}

int writer_close_log(struct writer *writer) {
  writer_seal(writer);
  struct moment moment = live_moment(writer->header);
  if (!log_is_started(&writer->log) || moment.epoch < writer->log.first_epoch)
    return MMCMAP_OK;
  struct log_root root = {.epoch = moment.epoch,
                          .root = moment.root,
                          .count = moment.count,
                          .content_epoch = moment.content_epoch};
  return log_close(&writer->log, &root);
}

/* The moment is sealed; then the next epoch, which has the record, is opened. */
static int save_moment(struct writer *writer, const void *name,
                       size_t name_size, struct change_mode mode) {
  struct expiry_reading now = reading_of(writer);
  struct moment moment;
  int code = saved_look(&writer->catalog, name, name_size);
  if (code == MMCMAP_OK)
    return error_set(MMCMAP_EEXIST, "a snapshot of that name");
  if (code != MMCMAP_NOTFOUND) return code;
  writer_seal(writer);
  if (!load_moment(writer->header, &moment))
    return error_set(MMCMAP_ECORRUPT, "lock file: sealed moment");
  code = writer_prepare(writer, mode);
  if (code != MMCMAP_OK) return code;
  struct saved saved = {.name = name,
                        .name_size = (uint16_t)name_size,
                        .root = moment.root,
                        .count = moment.count,
                        .epoch = moment.epoch,
                        .time_ms = expiry_now(&now),
                        .content_epoch = moment.content_epoch};
  /* Before it is there: what it holds must not be freed if we die. */
  struct share_upkeep *upkeep = &writer->header->upkeep;
  if (upkeep->saved_newest == 0 || moment.epoch < upkeep->saved_oldest)
    upkeep->saved_oldest = moment.epoch;
  if (moment.epoch > upkeep->saved_newest) upkeep->saved_newest = moment.epoch;
  return saved_put(&writer->catalog, &saved);
}

int writer_save(struct writer *writer, const void *name, size_t name_size,
                struct change_mode mode, uint64_t *epoch_out) {
  *epoch_out = 0;
  int code = change_check_sizes(name_size, 0);
  if (code == MMCMAP_OK) code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  code = save_moment(writer, name, name_size, mode);
  if (code != MMCMAP_OK) note_saved(writer); /* it holds nothing */
  return end_change(writer, code, epoch_out);
}

int writer_drop_saved(struct writer *writer, const void *name, size_t name_size,
                      struct change_mode mode, uint64_t *epoch_out) {
  *epoch_out = 0;
  if (name_size > MMCMAP_KEY_SIZE_MAX) return MMCMAP_NOTFOUND;
  if (mode.claim == SPACE_FOR_PUTS) mode.claim = SPACE_FOR_DELETES;
  int code = writer_begin_change(writer, mode);
  if (code != MMCMAP_OK) return code;
  /* Before it is gone: recovery may find it again until the drop is on disk. */
  usage_leave_saved(&writer->log);
  code = saved_drop(&writer->catalog, name, name_size);
  if (code == MMCMAP_OK) {
    /* What it held is found by a recount. */
    log_drop_unknown(&writer->log);
    note_saved(writer);
  }
  return end_change(writer, code, epoch_out);
}

void writer_install(struct writer *writer, const struct superblock *state) {
  struct share_header *header = writer->header;
  struct moment moment = {.root = state->root,
                          .count = state->count,
                          .epoch = state->epoch,
                          .content_epoch = state->content_epoch};
  atomic_store(&header->content_epoch, state->content_epoch);
  log_install(&writer->log, state);
  atomic_store(&header->live.root, state->root);
  atomic_store(&header->change.count, state->count);
  atomic_store(&header->change.changed_epoch, state->epoch);
  atomic_store(&header->change.intent_slot, state->root);
  atomic_store(&header->change.intent_place, 0);
  atomic_store(&header->change.intent_count, state->count);
  atomic_store(&header->intent_count_place, TRIE_COUNT_IN_CELL);
  note_saved(writer);
  store_moment(header, &moment);
}

int writer_hold_moment(struct writer *writer, struct share_row *row,
                       struct moment *moment_out) {
  writer_seal(writer);
  if (!load_moment(writer->header, moment_out))
    return error_set(MMCMAP_ECORRUPT, "lock file: sealed moment");
  if (row != NULL)
    atomic_store(&row->snapshot, share_mark(row, moment_out->epoch));
  return MMCMAP_OK;
}

/* Takes the lock for it. */
static int seal_moment(struct writer *writer, struct share_row *row,
                       uint32_t timeout_ms, struct moment *moment_out) {
  int code = writer_enter(writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  code = writer_hold_moment(writer, row, moment_out);
  writer_leave(writer);
  return code;
}

int writer_take_moment(struct writer *writer, uint32_t timeout_ms,
                       struct moment *moment_out) {
  memset(moment_out, 0, sizeof *moment_out);
  if (load_moment(writer->header, moment_out)) return MMCMAP_OK;
  return seal_moment(writer, NULL, timeout_ms, moment_out);
}

int writer_open_snapshot(struct writer *writer, struct share_row *row,
                         uint32_t timeout_ms, struct moment *moment_out) {
  struct moment again;
  memset(moment_out, 0, sizeof *moment_out);
  if (load_moment(writer->header, moment_out)) {
    TEST_POINT("moment");
    atomic_store_explicit(&row->snapshot, share_mark(row, moment_out->epoch),
                          memory_order_relaxed);
    /* R13: the row is seen by whoever looks for what may be used again, or
       what it has used again is seen here. */
    atomic_thread_fence(memory_order_seq_cst);
    if (BROKEN(BREAK_NO_RECHECK) || (load_moment(writer->header, &again) &&
                                     again.epoch == moment_out->epoch))
      return MMCMAP_OK;
  }
  int code = seal_moment(writer, row, timeout_ms, moment_out);
  if (code != MMCMAP_OK) atomic_store(&row->snapshot, 0);
  return code;
}
