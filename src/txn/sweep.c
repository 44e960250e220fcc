/* SPDX-License-Identifier: MIT */
/*
 * The walk goes through a trie that others change. A record that stays as it is
 * while it goes by is met: its place follows from its key, and copies of a branch
 * have it, too. What is put meanwhile notes its time itself, after the round has
 * begun. So the earliest time that a round has met is a bound for all that it
 * leaves.
 */
#include "txn/sweep.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "os/process.h"
#include "share/owner_lock.h"

/* Pauses between rounds; and after a failure. */
#define PAUSE_MIN_NS UINT64_C(100000000)
#define PAUSE_MAX_NS UINT64_C(60000000000)
#define PAUSE_FAILED_NS UINT64_C(1000000000)

/* So many times as long as a round took is the pause after it, if it was mostly
   in vain. */
enum { PAUSE_FACTOR = 4 };

void sweep_init(struct sweep *sweep, struct writer *writer) {
  memset(sweep, 0, sizeof *sweep);
  sweep->writer = writer;
  sweep->pause_ns = PAUSE_MIN_NS;
}

void sweep_destroy(struct sweep *sweep) {
  free(sweep->name.data);
  free(sweep->key.data);
  free(sweep->expired.data);
  memset(sweep, 0, sizeof *sweep);
}

/* ---- Bytes --------------------------------------------------------------- */

static int reserve(struct sweep_bytes *bytes, size_t size) {
  if (size <= bytes->capacity) return MMCMAP_OK;
  uint8_t *grown = realloc(bytes->data, size);
  if (grown == NULL) return error_set(MMCMAP_ENOMEM, "sweep");
  bytes->data = grown;
  bytes->capacity = size;
  return MMCMAP_OK;
}

static int copy(struct sweep_bytes *bytes, const uint8_t *data, size_t size) {
  int code = reserve(bytes, size + 1);
  if (code != MMCMAP_OK) return code;
  if (size > 0) memcpy(bytes->data, data, size);
  bytes->size = size;
  return MMCMAP_OK;
}

/* ---- Rounds -------------------------------------------------------------- */

static struct share_header *shared(const struct sweep *sweep) {
  return sweep->writer->header;
}

static int begin_round(struct sweep *sweep, uint32_t timeout_ms) {
  int code = writer_enter(sweep->writer, timeout_ms);
  if (code != MMCMAP_OK) return code;
  /* Another process may have been faster. */
  if (expiry_is_due(shared(sweep)))
    sweep->round = expiry_begin_round(shared(sweep));
  writer_leave(sweep->writer);
  sweep->work_ns = 0;
  sweep->earliest_ms = UINT64_MAX;
  sweep->looked_count = sweep->deleted_count = 0;
  sweep->is_in_map = sweep->is_named = sweep->is_behind_key = false;
  sweep->has_met = false;
  return code;
}

/* The pause that follows a round: what has expired and is still there should be
   about an eighth of all. */
static uint64_t choose_pause(struct sweep *sweep) {
  uint64_t looked = sweep->looked_count, deleted = sweep->deleted_count;
  if (deleted >= looked / 4 && deleted > 0) {
    sweep->pause_ns = PAUSE_MIN_NS;
    return 0;
  }
  if (deleted >= looked / 8)
    sweep->pause_ns /= 2;
  else if (deleted < looked / 16)
    sweep->pause_ns *= 2;
  uint64_t least = PAUSE_FACTOR * sweep->work_ns;
  if (sweep->pause_ns < least) sweep->pause_ns = least;
  if (sweep->pause_ns < PAUSE_MIN_NS) sweep->pause_ns = PAUSE_MIN_NS;
  if (sweep->pause_ns > PAUSE_MAX_NS) sweep->pause_ns = PAUSE_MAX_NS;
  return sweep->pause_ns;
}

/* Ends the round, whole or not. */
static void end_round(struct sweep *sweep, uint32_t timeout_ms, bool is_whole) {
  uint64_t pause_ns = is_whole ? choose_pause(sweep) : PAUSE_FAILED_NS;
  if (writer_enter(sweep->writer, timeout_ms) == MMCMAP_OK) {
    uint64_t earliest = is_whole
                            ? sweep->earliest_ms
                            : atomic_load(&shared(sweep)->expiry.before_ms);
    expiry_end_round(shared(sweep), sweep->round, earliest, pause_ns);
    writer_leave(sweep->writer);
  }
  sweep->round = 0;
}

/* ---- Maps ---------------------------------------------------------------- */

static uint64_t live_root(const struct sweep *sweep) {
  return atomic_load_explicit(&shared(sweep)->live.root, memory_order_acquire);
}

/* Goes to the next named map whose records may expire, behind the last one;
   MMCMAP_NOTFOUND. The caller is pinned, here and below. */
static int next_named(struct sweep *sweep, const struct node_source *source,
                      uint64_t *root_out) {
  const struct hasher *hasher = sweep->writer->catalog.hasher;
  struct trie_cursor cursor;
  struct record_view record;
  uint64_t catalog;
  int code = catalog_root(source, live_root(sweep), &catalog);
  trie_cursor_init(&cursor, catalog, source->size / NODE_HEADER_BYTES);
  if (code == MMCMAP_OK && sweep->is_named) {
    struct trie_key key =
        trie_key_of(hasher, sweep->name.data, sweep->name.size);
    code = trie_cursor_seek(&cursor, source, hasher, &key);
  }
  while (code == MMCMAP_OK) {
    code = trie_cursor_next(&cursor, source, &record);
    if (code != MMCMAP_OK || !record.is_map || !record.lets_expire) continue;
    *root_out = record_map_words(&record).root;
    sweep->is_named = sweep->is_in_map = true;
    sweep->is_behind_key = false;
    return copy(&sweep->name, record.key, record.key_size);
  }
  return code;
}

/* The root of the default map, if its records may expire; MMCMAP_NOTFOUND. */
static int default_map(struct sweep *sweep, const struct node_source *source,
                       uint64_t *root_out) {
  struct store_view store;
  uint64_t top = live_root(sweep);
  if (!slot_is_store(top)) return MMCMAP_NOTFOUND;
  int code = node_store(source, top, &store);
  if (code != MMCMAP_OK) return code;
  if (!store.lets_expire) return MMCMAP_NOTFOUND;
  sweep->is_in_map = true;
  *root_out = bytes_load_acquire(store.at + STORE_DEFAULT_AT);
  return MMCMAP_OK;
}

/* The root of the map that the round is at, or comes to; MMCMAP_NOTFOUND at its
   end. */
static int find_map(struct sweep *sweep, const struct node_source *source,
                    uint64_t *root_out) {
  const struct hasher *hasher = sweep->writer->catalog.hasher;
  struct map_words words;
  int code = MMCMAP_NOTFOUND;
  if (!sweep->is_named && (sweep->is_in_map || !sweep->is_behind_key)) {
    code = default_map(sweep, source, root_out);
  } else if (sweep->is_in_map) {
    struct trie_key key =
        trie_key_of(hasher, sweep->name.data, sweep->name.size);
    code = catalog_find(source, hasher, live_root(sweep), &key, &words);
    *root_out = words.root;
  }
  return code == MMCMAP_NOTFOUND ? next_named(sweep, source, root_out) : code;
}

/* ---- Looking ------------------------------------------------------------- */

/* Keeps the key for deletion; `kept_out` is false if there is no room. */
static int keep_expired(struct sweep *sweep, const struct record_view *record,
                        bool *kept_out) {
  struct sweep_bytes *bytes = &sweep->expired;
  size_t end = bytes->size + record->key_size;
  *kept_out = sweep->batch_count == 0 ||
              (sweep->batch_count < SWEEP_BATCH && end <= bytes->capacity);
  if (!*kept_out) return MMCMAP_OK;
  int code = reserve(bytes, end < SWEEP_KEY_BYTES ? SWEEP_KEY_BYTES : end);
  if (code != MMCMAP_OK) return code;
  uint8_t *at = bytes->data + bytes->size;
  memcpy(at, record->key, record->key_size);
  sweep->batch[sweep->batch_count++] =
      trie_key_of(sweep->writer->catalog.hasher, at, record->key_size);
  bytes->size = end;
  return MMCMAP_OK;
}

/* Looks at records until the batch is full or so many have been looked at;
   MMCMAP_NOTFOUND at the end of the map. */
static int look(struct sweep *sweep, const struct node_source *source,
                uint64_t root, uint64_t now_ms) {
  const struct hasher *hasher = sweep->writer->catalog.hasher;
  struct trie_cursor cursor;
  struct record_view record, last = {.key_size = 0};
  bool has_room = true;
  int looks = 0, code = MMCMAP_OK;
  trie_cursor_init(&cursor, root, source->size / NODE_HEADER_BYTES);
  if (sweep->is_behind_key) {
    struct trie_key key = trie_key_of(hasher, sweep->key.data, sweep->key.size);
    code = trie_cursor_seek(&cursor, source, hasher, &key);
  }
  while (code == MMCMAP_OK && looks < SWEEP_LOOKS) {
    code = trie_cursor_next(&cursor, source, &record);
    if (code != MMCMAP_OK) break;
    if (record_is_past(&record, now_ms)) {
      code = keep_expired(sweep, &record, &has_room);
      if (code != MMCMAP_OK || !has_room) break;
    } else if (record.expires_ms != 0) {
      sweep->has_met = true;
      if (record.expires_ms < sweep->earliest_ms)
        sweep->earliest_ms = record.expires_ms;
    }
    last = record;
    looks++;
  }
  sweep->looked_count += (uint64_t)looks;
  if (code != MMCMAP_OK || looks == 0) return code;
  sweep->is_behind_key = true;
  return copy(&sweep->key, last.key, last.key_size);
}

static int look_pinned(struct sweep *sweep) {
  struct readers *readers = sweep->writer->readers;
  struct share_row *row;
  uint64_t root, now_ms = expiry_read_clock(shared(sweep));
  int code = readers_row(readers, &row);
  if (code != MMCMAP_OK) return code;
  sweep->batch_count = sweep->expired.size = 0;
  sweep->is_behind_map = false;
  readers_pin(readers, row);
  struct node_source source = space_source(sweep->writer->log.space);
  code = find_map(sweep, &source, &root);
  if (code == MMCMAP_OK) {
    code = look(sweep, &source, root, now_ms);
    if (code == MMCMAP_NOTFOUND) { /* of this map */
      sweep->is_in_map = false;
      sweep->is_behind_map = true;
      sweep->is_behind_key = !sweep->is_named;
      code = MMCMAP_OK;
    }
  }
  readers_unpin(row);
  return code;
}

/* ---- Deleting ------------------------------------------------------------ */

static int delete_batch(struct sweep *sweep, const struct trie_key *map,
                        struct change_mode mode,
                        struct sweep_outcome *outcome) {
  uint64_t epoch;
  size_t deleted;
  if (sweep->batch_count == 0) return MMCMAP_OK;
  int code = writer_delete_expired(sweep->writer, map, sweep->batch,
                                   sweep->batch_count, mode, &deleted, &epoch);
  sweep->deleted_count += deleted;
  if (epoch != 0) outcome->has_changed = true;
  return code;
}

/* Deletes what it has looked for; and behind a map, notes if it has left nothing
   that expires, which may as well wait for another round. */
static int finish_piece(struct sweep *sweep, uint32_t timeout_ms,
                        struct sweep_outcome *outcome) {
  struct change_mode mode = {.timeout_ms = timeout_ms, .is_background = true};
  struct trie_key name;
  if (sweep->is_named)
    name = trie_key_of(sweep->writer->catalog.hasher, sweep->name.data,
                       sweep->name.size);
  const struct trie_key *map = sweep->is_named ? &name : NULL;
  int code = delete_batch(sweep, map, mode, outcome);
  if (code != MMCMAP_OK || !sweep->is_behind_map) return code;
  if (!sweep->has_met)
    (void)writer_end_expiry(sweep->writer, map, sweep->round, mode);
  sweep->has_met = false;
  return MMCMAP_OK;
}

/* One piece of the round; MMCMAP_NOTFOUND at its end. */
static int go_on(struct sweep *sweep, uint32_t timeout_ms,
                 struct sweep_outcome *outcome) {
  if (!expiry_go_on(shared(sweep), sweep->round)) return MMCMAP_NOTFOUND;
  int code = look_pinned(sweep);
  TEST_POINT("sweep");
  int finished = finish_piece(sweep, timeout_ms, outcome);
  return code == MMCMAP_OK ? finished : code;
}

static struct sweep_outcome run(struct sweep *sweep, uint32_t timeout_ms,
                                uint64_t end_ns) {
  struct sweep_outcome outcome = {.has_more = true};
  uint64_t begin_ns = process_monotonic_ns();
  for (uint64_t now_ns = begin_ns; now_ns < end_ns; begin_ns = now_ns) {
    int code = MMCMAP_OK;
    if (sweep->round == 0) {
      if (expiry_is_due(shared(sweep))) code = begin_round(sweep, timeout_ms);
      outcome.has_more = sweep->round != 0;
      if (!outcome.has_more) break;
    }
    code = go_on(sweep, timeout_ms, &outcome);
    now_ns = process_monotonic_ns();
    sweep->work_ns += now_ns - begin_ns;
    if (code == MMCMAP_OK) continue;
    end_round(sweep, timeout_ms, code == MMCMAP_NOTFOUND);
    outcome.has_more = code == MMCMAP_NOTFOUND;
    if (!outcome.has_more) break;
  }
  return outcome;
}

struct sweep_outcome sweep_run(struct sweep *sweep, uint32_t timeout_ms,
                               uint64_t end_ns) {
  struct sweep_outcome outcome = {.has_changed = false};
  if (atomic_exchange(&sweep->is_busy, true)) return outcome;
  mmcmap_error before;
  mmcmap_last_error(&before);
  outcome = run(sweep, timeout_ms, end_ns);
  error_restore(&before);
  atomic_store(&sweep->is_busy, false);
  return outcome;
}
