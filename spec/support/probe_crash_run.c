/* SPDX-License-Identifier: MIT */
/*
 * Playing a world, and what is promised when: at level sync each change that
 * has returned, else what was there at the last sync or close that succeeded.
 */
#include <stdio.h>
#include <string.h>

#include "base/errors.h"
#include "handle.h"
#include "maint/cleaner.h"
#include "probe_crash.h"
#include "share/owner_lock.h"
#include "store.h"

mmcmap_slice crash_key(int key) {
  static const char names[CRASH_KEYS][8] = {"alpha", "beta", "gamma", "delta"};
  mmcmap_slice slice = {names[key], strlen(names[key])};
  return slice;
}

/* ---- The two maps -------------------------------------------------------- */

static const mmcmap_slice crash_map_name = {"map", 3};

static bool is_in_map(int key) { return key >= CRASH_FIRST_IN_MAP; }

int crash_put(mmcmap *store, int key, uint32_t tag) {
  mmcmap *map;
  if (!is_in_map(key))
    return mmcmap_put(store, crash_key(key), crash_value(key, tag));
  int code = mmcmap_map(store, crash_map_name, &map);
  if (code == MMCMAP_OK)
    code = mmcmap_put(map, crash_key(key), crash_value(key, tag));
  (void)mmcmap_close(map);
  return code;
}

int crash_delete(mmcmap *store, int key) {
  mmcmap *map;
  if (!is_in_map(key)) return mmcmap_delete(store, crash_key(key));
  int code = mmcmap_map(store, crash_map_name, &map);
  if (code == MMCMAP_OK) code = mmcmap_delete(map, crash_key(key));
  (void)mmcmap_close(map);
  return code;
}

static mmcmap_txn *txn_of_key(mmcmap_txn *txn, int key) {
  mmcmap_txn *map;
  if (!is_in_map(key)) return txn;
  return mmcmap_txn_map(txn, crash_map_name, &map) == MMCMAP_OK ? map : txn;
}

uint32_t crash_tag(int number, char size) {
  return (uint32_t)number << 8 | (uint8_t)size;
}

mmcmap_slice crash_value(int key, uint32_t tag) {
  static uint8_t bytes[CRASH_LARGE_BYTES];
  char size_class = (char)(tag & 0xff);
  size_t size =
      size_class == 'P' ? CRASH_LARGE_BYTES : (size_class == 'm' ? 600 : 24);
  uint32_t seed = (tag >> 8) * 29 + (uint32_t)key * 101;
  for (size_t i = 0; i < size; i++)
    bytes[i] = (uint8_t)(seed + i * 7 + (i >> 8) * 13);
  memcpy(bytes, &tag, sizeof tag);
  mmcmap_slice slice = {bytes, size};
  return slice;
}

int crash_open(const char *path, int durability, mmcmap **store_out) {
  mmcmap_options options;
  struct store_internals internals = {CRASH_SEGMENT_BYTES, UINT64_MAX,
                                      UINT64_MAX};
  mmcmap_options_init(&options);
  options.durability = durability;
  options.flush_interval_ms = 3600000;
  return mmcmap_open_with(path, &options, &internals, store_out);
}

/* Whether the keys from `first` on are as the model has them; `store` is theirs. */
static bool map_matches(mmcmap *store, const struct crash_model *model,
                        int first, int end) {
  uint64_t count, expected = 0;
  mmcmap_buffer buffer = {NULL, 0, 0};
  bool same = true;
  for (int key = first; key < end && same; key++) {
    int code = mmcmap_get(store, crash_key(key), &buffer);
    if (model->tags[key] == 0) {
      same = code == MMCMAP_NOTFOUND;
      continue;
    }
    expected++;
    mmcmap_slice value = crash_value(key, model->tags[key]);
    same = code == MMCMAP_OK && buffer.size == value.size &&
           memcmp(buffer.data, value.data, value.size) == 0;
  }
  mmcmap_buffer_free(&buffer);
  return same && mmcmap_count(store, &count) == MMCMAP_OK && count == expected;
}

bool crash_matches(mmcmap *store, const struct crash_model *model) {
  mmcmap *map;
  if (mmcmap_map(store, crash_map_name, &map) != MMCMAP_OK) return false;
  bool same = map_matches(store, model, 0, CRASH_FIRST_IN_MAP) &&
              map_matches(map, model, CRASH_FIRST_IN_MAP, CRASH_KEYS);
  (void)mmcmap_close(map);
  return same;
}

int crash_match(const struct crash_run *run, const struct disk_window *window,
                mmcmap *store) {
  int first = window->promised < 0 ? 0 : window->promised;
  for (int i = first; i <= window->done; i++)
    if ((i == first || run->is_commit[i]) &&
        crash_matches(store, &run->models[i]))
      return i;
  return -1;
}

/* ---- Playing ------------------------------------------------------------- */

static bool go_wrong(struct crash_run *run, const char *what, int code) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  snprintf(run->failure, sizeof run->failure, "operation %d: %s: %s (%s)",
           run->done, what, mmcmap_error_name(code),
           error.what == NULL ? "" : error.what);
  return false;
}

static void promise(struct crash_run *run) {
  run->promised = run->done;
  run->is_commit[run->done] = true;
  disk_note(run->disk, run->promised, run->done);
}

/* After an error the change may have become visible: then it stands. */
static bool settle_change(struct crash_run *run, mmcmap *store, int code) {
  struct crash_model *now = &run->models[run->done];
  if (code == MMCMAP_NOTFOUND) code = MMCMAP_OK;
  if (code == MMCMAP_OK && run->durability == MMCMAP_SYNC) promise(run);
  if (crash_matches(store, now)) return true;
  if (code == MMCMAP_OK) return go_wrong(run, "not visible", code);
  *now = run->models[run->done - 1];
  return crash_matches(store, now) || go_wrong(run, "half visible", code);
}

static bool play_change(struct crash_run *run, mmcmap *store, char op,
                        int key) {
  int code;
  struct crash_model *now = &run->models[run->done];
  run->is_commit[run->done] = run->durability == MMCMAP_SYNC;
  now->tags[key] = op == 'd' ? 0 : crash_tag(run->done, op);
  if (op == 'd')
    code = crash_delete(store, key);
  else
    code = crash_put(store, key, now->tags[key]);
  return settle_change(run, store, code);
}

static int put_in_txn(mmcmap_txn *txn, int key, uint32_t tag) {
  return mmcmap_txn_put(txn_of_key(txn, key), crash_key(key),
                        crash_value(key, tag));
}

/* Of a transaction: a put, a put that is undone, a deletion, a put. */
static int change_in_txn(mmcmap_txn *txn, const struct crash_run *run, int key,
                         const int others[2], char op) {
  const struct crash_model *now = &run->models[run->done];
  size_t savepoint;
  int code = put_in_txn(txn, key, now->tags[key]);
  if (code == MMCMAP_OK) code = mmcmap_txn_savepoint(txn, &savepoint);
  if (code == MMCMAP_OK)
    code = put_in_txn(txn, others[0], crash_tag(run->done, op));
  if (code == MMCMAP_OK) code = mmcmap_txn_rollback_to(txn, savepoint);
  if (code == MMCMAP_OK)
    code = mmcmap_txn_delete(txn_of_key(txn, others[0]), crash_key(others[0]));
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return code;
  return put_in_txn(txn, others[1], now->tags[others[1]]);
}

/* The moment before it is sealed when it begins. */
static bool play_txn(struct crash_run *run, mmcmap *store, char op, int key) {
  int others[2] = {(key + 1) % CRASH_KEYS, (key + 2) % CRASH_KEYS};
  bool is_aborted = op == 'a';
  struct crash_model *now = &run->models[run->done];
  mmcmap_txn *txn;
  run->is_commit[run->done - 1] = true;
  run->is_commit[run->done] = run->durability == MMCMAP_SYNC;
  now->tags[key] = crash_tag(run->done, op == 'T' ? 'P' : 'm');
  now->tags[others[0]] = 0;
  now->tags[others[1]] = crash_tag(run->done, 'p');
  int code = mmcmap_txn_begin(store, &txn);
  if (code != MMCMAP_OK) return go_wrong(run, "begin", code);
  code = change_in_txn(txn, run, key, others, op == 'T' ? 'P' : 'm');
  if (!is_aborted && code == MMCMAP_OK)
    return settle_change(run, store, mmcmap_txn_commit(txn));
  mmcmap_txn_abort(txn);
  *now = run->models[run->done - 1];
  return crash_matches(store, now) || go_wrong(run, "not aborted", code);
}

static bool play_snapshot(struct crash_run *run, mmcmap *store) {
  mmcmap_snapshot *snapshot;
  run->is_commit[run->done] = true;
  int code = mmcmap_snapshot_open(store, &snapshot);
  if (code != MMCMAP_OK) return go_wrong(run, "snapshot", code);
  mmcmap_snapshot_close(snapshot);
  return true;
}

static bool play_reopen(struct crash_run *run, const char *path,
                        mmcmap **store) {
  run->is_commit[run->done] = true;
  int code = mmcmap_close(*store);
  *store = NULL;
  if (code == MMCMAP_OK) promise(run);
  int again = crash_open(path, run->durability, store);
  if (again != MMCMAP_OK) return go_wrong(run, "open again", again);
  struct disk_window window = {.promised = run->promised, .done = run->done};
  int found = crash_match(run, &window, *store);
  if (found < 0) return go_wrong(run, "content after reopening", code);
  run->models[run->done] = run->models[found];
  return true;
}

/* The cleaner, until it finds nothing. */
static bool play_clean(struct crash_run *run, mmcmap *store) {
  const struct change_mode mode = {.timeout_ms = OWNER_LOCK_FOREVER};
  struct writer *writer = &store->store->writer;
  bool found = true;
  int code = MMCMAP_OK;
  for (int i = 0; i < CRASH_QUANTA && code == MMCMAP_OK && found; i++) {
    code = writer_begin_change(writer, mode);
    if (code != MMCMAP_OK) break;
    code = cleaner_clean(writer, CRASH_QUANTUM_BYTES, &found);
    code = writer_end_change(writer, code);
  }
  /* After a sync that failed nothing is changed. */
  if (code == MMCMAP_EIO) code = MMCMAP_OK;
  return code == MMCMAP_OK ? crash_matches(store, &run->models[run->done]) ||
                                 go_wrong(run, "not as before cleaning", code)
                           : go_wrong(run, "clean", code);
}

static bool begin_op(struct crash_run *run) {
  if (run->done == CRASH_OPS_MAX) return false;
  run->done++;
  run->models[run->done] = run->models[run->done - 1];
  run->is_commit[run->done] = false;
  disk_note(run->disk, run->promised, run->done);
  return true;
}

static bool play_op(struct crash_run *run, const char *path, mmcmap **store,
                    char op, char argument) {
  int key = argument - '0';
  int code;
  if (op == 'f') {
    disk_fail_next_sync(run->disk);
    return true;
  }
  for (int i = op == 'c' ? CRASH_CHURN : 1; i > 1; i--)
    if (!begin_op(run) || !play_change(run, *store, 'p', key)) return false;
  if (!begin_op(run)) return go_wrong(run, "too many operations", 0);
  switch (op) {
    case 's':
      run->is_commit[run->done] = true;
      code = mmcmap_sync(*store);
      if (code == MMCMAP_OK) promise(run);
      return true;
    case 'n':
      return play_snapshot(run, *store);
    case 'v':
      return play_clean(run, *store);
    case 'r':
      return play_reopen(run, path, store);
    case 't':
    case 'T':
    case 'a':
      return play_txn(run, *store, op, key);
    default:
      return play_change(run, *store, op == 'c' ? 'p' : op, key);
  }
}

bool crash_play(struct crash_run *run, const char *path, const char *ops,
                const struct crash_model *start) {
  mmcmap *store;
  run->done = 0;
  run->failure[0] = '\0';
  memset(&run->models[0], 0, sizeof run->models[0]);
  if (start != NULL) run->models[0] = *start;
  run->promised = start == NULL ? -1 : 0;
  run->is_commit[0] = true;
  run->disk = disk_start(path);
  disk_note(run->disk, run->promised, 0);
  int code = crash_open(path, run->durability, &store);
  if (code != MMCMAP_OK) {
    disk_stop(run->disk);
    return go_wrong(run, "open", code);
  }
  promise(run);
  bool good = crash_matches(store, &run->models[0]) ||
              go_wrong(run, "content at the beginning", 0);
  for (; good && ops[0] != '\0' && ops[1] != '\0'; ops += 2)
    good = play_op(run, path, &store, ops[0], ops[1]);
  disk_cut(run->disk);
  if (store != NULL && good) {
    good = begin_op(run);
    run->is_commit[run->done] = true;
    if (mmcmap_close(store) == MMCMAP_OK) promise(run);
    disk_cut(run->disk);
  } else if (store != NULL) {
    (void)mmcmap_close(store);
  }
  disk_stop(run->disk);
  return good;
}
