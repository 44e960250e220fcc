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
#include "os/process.h"
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

static int crash_put_ttl(mmcmap *store, int key, uint32_t tag,
                         uint64_t ttl_ms) {
  mmcmap *map;
  mmcmap_slice value = crash_value(key, tag);
  if (!is_in_map(key))
    return mmcmap_put_ttl(store, crash_key(key), value, ttl_ms);
  int code = mmcmap_map(store, crash_map_name, &map);
  if (code == MMCMAP_OK)
    code = mmcmap_put_ttl(map, crash_key(key), value, ttl_ms);
  (void)mmcmap_close(map);
  return code;
}

int crash_put(mmcmap *store, int key, uint32_t tag) {
  return crash_put_ttl(store, key, tag, 0);
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
  int code = mmcmap_open_with(path, &options, &internals, store_out);
  if (code == MMCMAP_OK) (*store_out)->store->flusher.upkeep = NULL;
  return code;
}

/* ---- Models ---------------------------------------------------------------- */

/* What is compared with a model: a store now, or a snapshot of its moment. */
struct crash_view {
  mmcmap *store;
  mmcmap_snapshot *snapshot; /* NULL: the store */
  uint64_t now_ms;
};

static int view_get(const struct crash_view *view, int key,
                    mmcmap_buffer *value_out, uint64_t *ttl_ms_out) {
  int code =
      view->snapshot != NULL
          ? mmcmap_snapshot_read(view->snapshot, crash_key(key), value_out)
          : mmcmap_get(view->store, crash_key(key), value_out);
  if (code != MMCMAP_OK) return code;
  return view->snapshot != NULL
             ? mmcmap_snapshot_ttl(view->snapshot, crash_key(key), ttl_ms_out)
             : mmcmap_ttl(view->store, crash_key(key), ttl_ms_out);
}

static int view_count(const struct crash_view *view, uint64_t *count_out) {
  if (view->snapshot == NULL) return mmcmap_count(view->store, count_out);
  *count_out = mmcmap_snapshot_count(view->snapshot);
  return MMCMAP_OK;
}

static bool view_has(const struct crash_view *view, int key, uint32_t tag,
                     uint64_t end_ms) {
  mmcmap_buffer buffer = {NULL, 0, 0};
  uint64_t ttl_ms;
  mmcmap_slice value = crash_value(key, tag);
  bool same = view_get(view, key, &buffer, &ttl_ms) == MMCMAP_OK &&
              ttl_ms == (end_ms == 0 ? 0 : end_ms - view->now_ms) &&
              buffer.size == value.size &&
              memcmp(buffer.data, value.data, value.size) == 0;
  mmcmap_buffer_free(&buffer);
  return same;
}

/* Whether the keys from `first` on are as they should be; the view is of their map. What
   has expired may be counted still. */
static bool map_matches(const struct crash_view *view,
                        const struct crash_content *content, int first,
                        int end) {
  uint64_t count, present = 0, expired = 0, ttl_ms;
  mmcmap_buffer buffer = {NULL, 0, 0};
  for (int key = first; key < end; key++) {
    uint64_t end_ms = content->ends_ms[key];
    bool is_past = end_ms != 0 && end_ms <= view->now_ms;
    if (content->tags[key] != 0 && !is_past) {
      if (!view_has(view, key, content->tags[key], end_ms)) return false;
      present++;
      continue;
    }
    expired += is_past;
    int code = view_get(view, key, &buffer, &ttl_ms);
    mmcmap_buffer_free(&buffer);
    if (code != MMCMAP_NOTFOUND) return false;
  }
  return view_count(view, &count) == MMCMAP_OK && count >= present &&
         count <= present + expired;
}

static bool content_matches(const struct crash_view *view,
                            const struct crash_content *content) {
  struct crash_view map = *view;
  int code =
      view->snapshot != NULL
          ? mmcmap_snapshot_map(view->snapshot, crash_map_name, &map.snapshot)
          : mmcmap_map(view->store, crash_map_name, &map.store);
  if (code != MMCMAP_OK) return false;
  bool same = map_matches(view, content, 0, CRASH_FIRST_IN_MAP) &&
              map_matches(&map, content, CRASH_FIRST_IN_MAP, CRASH_KEYS);
  if (view->snapshot != NULL)
    mmcmap_snapshot_close(map.snapshot);
  else
    (void)mmcmap_close(map.store);
  return same;
}

static mmcmap_slice saved_name(int number) {
  static const char names[CRASH_SAVED][8] = {"first", "second"};
  mmcmap_slice slice = {names[number], strlen(names[number])};
  return slice;
}

static bool saved_matches(mmcmap *store, const struct crash_saved *saved,
                          int number) {
  struct crash_view view = {.now_ms = saved->time_ms};
  int code = mmcmap_open_snapshot(store, saved_name(number), &view.snapshot);
  if (code != MMCMAP_OK) return saved->time_ms == 0 && code == MMCMAP_ENOENT;
  bool same = saved->time_ms != 0 && content_matches(&view, &saved->content);
  mmcmap_snapshot_close(view.snapshot);
  return same;
}

bool crash_matches(mmcmap *store, const struct crash_model *model) {
  struct crash_view view = {.store = store, .now_ms = process_wall_ms()};
  bool same = content_matches(&view, &model->content);
  for (int i = 0; i < CRASH_SAVED && same; i++)
    same = saved_matches(store, &model->saved[i], i);
  return same;
}

void crash_set(struct crash_model *model, int key, uint32_t tag) {
  struct crash_content *content = &model->content;
  bool is_past =
      content->ends_ms[key] != 0 && content->ends_ms[key] <= process_wall_ms();
  if (tag == 0 && is_past) return; /* it is absent, and may be counted still */
  content->tags[key] = tag;
  content->ends_ms[key] = 0;
}

int crash_toggle_saved(mmcmap *store, struct crash_model *model, int number) {
  struct crash_saved *saved = &model->saved[number];
  if (saved->time_ms != 0) {
    memset(saved, 0, sizeof *saved);
    return mmcmap_drop_snapshot(store, saved_name(number));
  }
  saved->time_ms = process_wall_ms();
  saved->content = model->content;
  return mmcmap_snapshot_save(store, saved_name(number));
}

/* Whether the power cut may leave models[index], from models[first] on. */
static bool may_be_left(const struct crash_run *run, int first, int index) {
  return index == first || run->is_commit[index];
}

int crash_match(const struct crash_run *run, const struct disk_window *window,
                mmcmap *store) {
  int first = window->promised < 0 ? 0 : window->promised;
  for (int i = first; i <= window->done; i++)
    if (may_be_left(run, first, i) && crash_matches(store, &run->models[i]))
      return i;
  return -1;
}

bool crash_allows(const struct crash_run *run, const struct disk_window *window,
                  int model) {
  int first = window->promised < 0 ? 0 : window->promised;
  for (int i = first; i <= window->done; i++)
    if (may_be_left(run, first, i) &&
        memcmp(&run->models[i], &run->models[model], sizeof *run->models) == 0)
      return true;
  return false;
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
  uint32_t tag = op == 'd' ? 0 : crash_tag(run->done, op);
  run->is_commit[run->done] = run->durability == MMCMAP_SYNC;
  crash_set(now, key, tag);
  if (op == 'd') {
    code = crash_delete(store, key);
  } else if (op == 'e') {
    now->content.ends_ms[key] = process_wall_ms() + CRASH_TTL_MS;
    code = crash_put_ttl(store, key, tag, CRASH_TTL_MS);
  } else {
    code = crash_put(store, key, tag);
  }
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
  int code = put_in_txn(txn, key, now->content.tags[key]);
  if (code == MMCMAP_OK) code = mmcmap_txn_savepoint(txn, &savepoint);
  if (code == MMCMAP_OK)
    code = put_in_txn(txn, others[0], crash_tag(run->done, op));
  if (code == MMCMAP_OK) code = mmcmap_txn_rollback_to(txn, savepoint);
  if (code == MMCMAP_OK)
    code = mmcmap_txn_delete(txn_of_key(txn, others[0]), crash_key(others[0]));
  if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND) return code;
  return put_in_txn(txn, others[1], now->content.tags[others[1]]);
}

static bool play_txn(struct crash_run *run, mmcmap *store, char op, int key) {
  int others[2] = {(key + 1) % CRASH_KEYS, (key + 2) % CRASH_KEYS};
  bool is_aborted = op == 'a';
  struct crash_model *now = &run->models[run->done];
  mmcmap_txn *txn;
  run->is_commit[run->done] = run->durability == MMCMAP_SYNC;
  crash_set(now, key, crash_tag(run->done, op == 'T' ? 'P' : 'm'));
  crash_set(now, others[0], 0);
  crash_set(now, others[1], crash_tag(run->done, 'p'));
  int code = mmcmap_txn_begin(store, &txn);
  if (code != MMCMAP_OK) return go_wrong(run, "begin", code);
  code = change_in_txn(txn, run, key, others, op == 'T' ? 'P' : 'm');
  if (!is_aborted && code == MMCMAP_OK)
    return settle_change(run, store, mmcmap_txn_commit(txn));
  mmcmap_txn_abort(txn);
  *now = run->models[run->done - 1];
  return crash_matches(store, now) || go_wrong(run, "not aborted", code);
}

/* Saves a snapshot, or drops it. */
static bool play_saved(struct crash_run *run, mmcmap *store, int number) {
  run->is_commit[run->done] = run->durability == MMCMAP_SYNC;
  int code = crash_toggle_saved(store, &run->models[run->done], number);
  return settle_change(run, store, code);
}

/* A transaction of its own. */
static bool play_drop(struct crash_run *run, mmcmap *store) {
  run->is_commit[run->done] = run->durability == MMCMAP_SYNC;
  for (int key = CRASH_FIRST_IN_MAP; key < CRASH_KEYS; key++)
    crash_set(&run->models[run->done], key, 0);
  return settle_change(run, store, mmcmap_drop(store, crash_map_name));
}

static bool play_pass(void) {
  atomic_fetch_add(&process_wall_cell, CRASH_PASS_MS);
  return true;
}

static bool play_step(struct crash_run *run, mmcmap *store) {
  run->is_commit[run->done] = true;
  int code = mmcmap_step(store, CRASH_STEP_NS);
  if (code == MMCMAP_OK) promise(run);
  return crash_matches(store, &run->models[run->done]) ||
         go_wrong(run, "not as before a step", code);
}

/* A seal alone is no commit. */
static bool play_snapshot(struct crash_run *run, mmcmap *store) {
  mmcmap_snapshot *snapshot;
  int code = mmcmap_snapshot_open(store, &snapshot);
  if (code != MMCMAP_OK) return go_wrong(run, "snapshot", code);
  mmcmap_snapshot_close(snapshot);
  return true;
}

/* Ends what will be one commit, and leaves it to be made with the next. */
static bool play_close_log(struct crash_run *run, mmcmap *store) {
  struct writer *writer = &store->store->writer;
  run->is_commit[run->done] = true;
  int code = writer_enter(writer, OWNER_LOCK_FOREVER);
  if (code == MMCMAP_OK)
    code = writer_end_change(writer, writer_close_log(writer));
  return code == MMCMAP_OK || go_wrong(run, "close the log", code);
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
    case 'l':
      return play_close_log(run, *store);
    case 'S':
      return play_saved(run, *store, key % CRASH_SAVED);
    case 'k':
      return play_drop(run, *store);
    case 'x':
      return play_pass();
    case 'w':
      return play_step(run, *store);
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

/* The engine may have committed by itself, to make space: at any moment of the
   operation, or, if it was the flusher, of the one before. */
static bool play_op_watched(struct crash_run *run, const char *path,
                            mmcmap **store, char op, char argument) {
  const struct share_commit *commit = &(*store)->store->share.header->commit;
  uint64_t before = atomic_load(&commit->commit_count);
  int first = run->watched;
  run->watched = run->done;
  bool good = play_op(run, path, store, op, argument);
  if (op == 'r' || *store == NULL) return good;
  commit = &(*store)->store->share.header->commit;
  if (atomic_load(&commit->commit_count) == before) return good;
  for (int i = first; i <= run->done; i++)
    run->is_commit[i] = true;
  return good;
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
  run->watched = 0;
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
    good = play_op_watched(run, path, &store, ops[0], ops[1]);
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
