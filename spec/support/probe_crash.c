/* SPDX-License-Identifier: MIT */
/*
 * Area crash of the probe: every state that a power cut may leave.
 *
 *   world{path=, ops=, durability=, bound=, second=, second_ops=,
 *         second_bound=, seed=, start=, since=, interval=}
 * plays the operations `ops` (see probe_crash.h), and for each window of the
 * recording builds the states that the medium may hold, all of them if there
 * are not more than `bound`, else that many: omissions, moments, chance. Each is
 * verified and opened; its content must be that of a commit no older than what
 * was promised; 20 more operations and another opening must work. A state that
 * was opened before is not opened again: it holds what it held. Every
 * `second`-th state (0: none) is the beginning of a second recording in which
 * `second_ops`, or the same ones, are tried and cut too. `start` is "empty"
 * for a file that is there already. Of the windows only those are looked at that
 * end in operation `since` (0) or later. `interval` is how many bytes of log are
 * between superblocks (0: as it is; it takes has_hooks). The result has states,
 * second_states (those opened), repeated, windows, exhausted (windows whose states
 * were all built), superblocks (windows in which one was written) and failure, the
 * first one found.
 *
 *   breaks(name ...)   switches on the deliberate mistakes (testing.h), and all
 *                      others off
 *   has_hooks          whether this build has those and the test points
 *   points()           test points passed since the last die_at_point()
 *   die_at_point(n [, signal [, name]])   sends itself the signal (9: it dies;
 *                      19: it stops) at the n-th test point of a change, or of
 *                      that name; 0: only counts
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/errors.h"
#include "base/hash.h"
#include "base/testing.h"
#include "format/superblock.h"
#include "os/calls.h"
#include "os/process.h"
#include "probe.h"
#include "probe_crash.h"
#include "probe_verify.h"

enum {
  SECTORS_MAX = DISK_BYTES_MAX / DISK_SECTOR_BYTES,
  MORE_OPS = 20,
  DAMAGED = 4,
  RANGE_BYTES = 512 << 20, /* of addresses: more takes long to give back */
  SEEN_FIRST = 256
};

#define CRASH_BEGIN_MS UINT64_C(1700000000000)

/* The states of one recording that have been opened: a hash table. */
struct seen {
  struct seen_state {
    uint64_t checksum; /* 0: none */
    int model;         /* that it held */
  } * states;
  size_t capacity;
  size_t count;
};

struct crash {
  char path[512];   /* of the states */
  char second[512]; /* of second recordings */
  const char *ops;
  const char *second_ops;
  uint64_t bound;
  uint64_t second_bound;
  uint64_t second_every;
  uint64_t phase; /* the first of them, from the seed */
  uint64_t random;
  uint64_t states;
  uint64_t second_states;
  uint64_t repeated;
  uint64_t windows;
  uint64_t exhausted;
  uint64_t superblocks;
  int since;
  struct seen seen;
  const char *where; /* for messages */
  char failure[512];
  uint8_t *image;
};

/* A window sorted by sector: which versions each may have. */
struct choices {
  const struct disk_window *window;
  size_t count;                  /* sectors */
  size_t *versions;              /* indices of changes, sector by sector */
  size_t first[SECTORS_MAX + 1]; /* of a sector's versions */
  size_t chosen[SECTORS_MAX];    /* 0: base, else the n-th version */
  int size_index;
  bool damage; /* some of the chosen sectors are torn or zeroed */
};

static uint64_t draw(struct crash *crash, uint64_t below) {
  crash->random ^= crash->random << 13;
  crash->random ^= crash->random >> 7;
  crash->random ^= crash->random << 17;
  return (crash->random >> 11) % below;
}

static void fail(struct crash *crash, const struct disk_window *window,
                 const char *what, int code) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  if (crash->failure[0] != '\0') return;
  snprintf(crash->failure, sizeof crash->failure,
           "%s, promised %d, done %d: %s: %s (%s at %llu)", crash->where,
           window->promised, window->done, what, mmcmap_error_name(code),
           code != MMCMAP_OK && error.what != NULL ? error.what : "",
           (unsigned long long)error.offset);
}

/* ---- One state ----------------------------------------------------------- */

static bool write_image(const char *path, const uint8_t *image, uint64_t size) {
  uint64_t used = size;
  struct stat stat;
  /* Pages that are there already are written over: making them takes longer. */
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  bool good = fstat(fd, &stat) == 0;
  uint64_t old = (uint64_t)stat.st_size < size ? (uint64_t)stat.st_size : size;
  while (used > old && image[used - 1] == 0)
    used--;
  good = good && ftruncate(fd, (off_t)size) == 0 &&
         pwrite(fd, image, used, 0) == (ssize_t)used;
  close(fd);
  return good;
}

static int read_and_verify(const char *path) {
  static const struct verify_masks masks = {UINT64_MAX, UINT64_MAX};
  struct verify_report report;
  struct stat stat;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &stat) != 0) return MMCMAP_EIO;
  uint8_t *bytes = malloc((size_t)stat.st_size + 1);
  int code = MMCMAP_EIO;
  if (bytes != NULL &&
      pread(fd, bytes, (size_t)stat.st_size, 0) == (ssize_t)stat.st_size)
    code = verify_image(bytes, (uint64_t)stat.st_size, &masks, &report);
  free(bytes);
  close(fd);
  return code;
}

/* Changes the store, and keeps the model in step. */
static int do_more(struct crash *crash, mmcmap *store,
                   struct crash_model *model) {
  static const char sizes[] = "ppmp";
  int code = MMCMAP_OK;
  for (int i = 0; i < MORE_OPS && code == MMCMAP_OK; i++) {
    int key = (int)draw(crash, CRASH_KEYS);
    if (i == MORE_OPS / 2) {
      code = crash_toggle_saved(store, model, key % CRASH_SAVED);
    } else if (draw(crash, 4) == 0) {
      code = crash_delete(store, key);
      if (code == MMCMAP_NOTFOUND) code = MMCMAP_OK;
      crash_set(model, key, 0);
    } else {
      uint32_t tag = crash_tag(900 + i, sizes[draw(crash, 4)]);
      code = crash_put(store, key, tag);
      crash_set(model, key, tag);
    }
    if (code == MMCMAP_OK && i % 8 == 7) code = mmcmap_sync(store);
  }
  return code;
}

/* Opens what lies at crash->path; the index of the model that it holds, -1 if
   something is wrong. */
static int check_file(struct crash *crash, const struct crash_run *run,
                      const struct disk_window *window) {
  mmcmap *store;
  int code = crash_open(crash->path, MMCMAP_MANUAL, &store);
  if (code != MMCMAP_OK) {
    fail(crash, window, "open", code);
    return -1;
  }
  int found = crash_match(run, window, store);
  const char *wrong = found < 0 ? "content is of no commit" : NULL;
  struct crash_model model = run->models[found < 0 ? 0 : found];
  if (wrong == NULL && (code = do_more(crash, store, &model)) != MMCMAP_OK)
    wrong = "more operations";
  if (wrong == NULL && !crash_matches(store, &model))
    wrong = "content after more operations";
  int closed = mmcmap_close(store);
  if (wrong == NULL && closed != MMCMAP_OK) {
    wrong = "close";
    code = closed;
  }
  if (wrong == NULL && (code = read_and_verify(crash->path)) != MMCMAP_OK)
    wrong = "verification after more operations";
  if (wrong == NULL) {
    code = crash_open(crash->path, MMCMAP_MANUAL, &store);
    if (code != MMCMAP_OK) {
      wrong = "open again";
    } else {
      if (!crash_matches(store, &model)) wrong = "content after reopening";
      (void)mmcmap_close(store);
    }
  }
  if (wrong != NULL) fail(crash, window, wrong, code);
  return wrong == NULL ? found : -1;
}

static int check_state(struct crash *crash, const struct crash_run *run,
                       const struct disk_window *window, uint64_t size) {
  static const struct verify_masks masks = {UINT64_MAX, UINT64_MAX};
  struct verify_report report;
  int code = MMCMAP_OK;
  if (window->promised >= 0)
    code = verify_image(crash->image, size, &masks, &report);
  if (code != MMCMAP_OK) {
    fail(crash, window, "verification", code);
    return -1;
  }
  if (!write_image(crash->path, crash->image, size)) {
    fail(crash, window, "writing the state", MMCMAP_EIO);
    return -1;
  }
  return check_file(crash, run, window);
}

/* ---- States that were opened before -------------------------------------- */

/* Where a checksum is, or is to be put. */
static struct seen_state *seen_at(const struct seen *seen, uint64_t checksum) {
  size_t index = checksum % seen->capacity;
  while (seen->states[index].checksum != 0 &&
         seen->states[index].checksum != checksum)
    index = (index + 1) % seen->capacity;
  return &seen->states[index];
}

static struct seen_state *find_seen(struct seen *seen, uint64_t checksum) {
  if (seen->count < seen->capacity / 2) return seen_at(seen, checksum);
  struct seen larger = {NULL, seen->capacity * 2 + SEEN_FIRST, seen->count};
  larger.states = calloc(larger.capacity, sizeof *larger.states);
  if (larger.states == NULL) abort();
  for (size_t i = 0; i < seen->capacity; i++)
    if (seen->states[i].checksum != 0)
      *seen_at(&larger, seen->states[i].checksum) = seen->states[i];
  free(seen->states);
  *seen = larger;
  return seen_at(seen, checksum);
}

static void forget_seen(struct seen *seen) {
  free(seen->states);
  memset(seen, 0, sizeof *seen);
}

/* Of the bytes, the length, and whether it was to be verified. */
static uint64_t state_checksum(const struct crash *crash,
                               const struct disk_window *window,
                               uint64_t size) {
  uint64_t parts[3] = {hash_plain_checksum(crash->image, size), size,
                       window->promised >= 0};
  return hash_plain_checksum(parts, sizeof parts) | 1;
}

/* ---- The states of a window ---------------------------------------------- */

static int by_sector(const void *a, const void *b) {
  uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

static void sort_changes(struct choices *choices,
                         const struct disk_window *window) {
  size_t count = window->change_count;
  uint64_t *order = malloc((count + 1) * sizeof *order);
  choices->window = window;
  choices->count = 0;
  choices->versions = malloc((count + 1) * sizeof *choices->versions);
  if (order == NULL || choices->versions == NULL) abort();
  for (size_t i = 0; i < count; i++)
    order[i] = (uint64_t)window->changes[i].sector << 32 | i;
  qsort(order, count, sizeof *order, by_sector);
  for (size_t i = 0; i < count; i++) {
    if (i == 0 || order[i] >> 32 != order[i - 1] >> 32)
      choices->first[choices->count++] = i;
    choices->versions[i] = (size_t)(order[i] & UINT32_MAX);
  }
  choices->first[choices->count] = count;
  free(order);
}

static size_t version_count(const struct choices *choices, size_t index) {
  return choices->first[index + 1] - choices->first[index];
}

/* Of the bytes that `data` changes, some get on the medium, or get lost. */
static void damage_sector(struct crash *crash, uint8_t *at,
                          const uint8_t *data) {
  uint64_t edge = 8 * draw(crash, DISK_SECTOR_BYTES / 8);
  bool zeros = draw(crash, 3) == 0;
  bool reverse = draw(crash, 2) == 0;
  for (uint64_t i = 0; i < DISK_SECTOR_BYTES; i++) {
    if (at[i] == data[i] || (i < edge) == reverse) continue;
    at[i] = zeros ? 0 : data[i];
  }
}

/* Builds the chosen state; its size. */
static uint64_t build(struct crash *crash, const struct choices *choices) {
  const struct disk_window *window = choices->window;
  uint64_t size = window->sizes[choices->size_index];
  if (window->base_bytes < size)
    memset(crash->image + window->base_bytes, 0, size - window->base_bytes);
  memcpy(crash->image, window->base, window->base_bytes);
  for (size_t i = 0; i < choices->count; i++) {
    if (choices->chosen[i] == 0) continue;
    size_t version =
        choices->versions[choices->first[i] + choices->chosen[i] - 1];
    const struct disk_change *change = &window->changes[version];
    uint8_t *at = crash->image + (uint64_t)change->sector * DISK_SECTOR_BYTES;
    if (choices->damage && draw(crash, 4) == 0)
      damage_sector(crash, at, change->data);
    else
      memcpy(at, change->data, DISK_SECTOR_BYTES);
  }
  return size;
}

static void check_second(struct crash *crash, const struct crash_run *run,
                         int model, uint64_t size);

/* Builds and checks the chosen state; false at the first failure. */
static bool try_state(struct crash *crash, const struct crash_run *run,
                      const struct choices *choices, bool is_second) {
  uint64_t size = build(crash, choices);
  uint64_t checksum = state_checksum(crash, choices->window, size);
  struct seen_state *seen = find_seen(&crash->seen, checksum);
  if (seen->checksum != 0 && crash_allows(run, choices->window, seen->model)) {
    crash->repeated++;
    return true;
  }
  int found = check_state(crash, run, choices->window, size);
  crash->seen.count += seen->checksum == 0;
  *seen = (struct seen_state){checksum, found};
  uint64_t number = is_second ? crash->second_states++ : crash->states++;
  if (found >= 0 && choices->window->promised >= 0 && !is_second &&
      crash->second_every != 0 &&
      (number + crash->phase) % crash->second_every == 0)
    check_second(crash, run, found, size);
  return crash->failure[0] == '\0';
}

/* How many states there are, or more than `bound`. */
static uint64_t state_count(const struct choices *choices, uint64_t bound) {
  uint64_t count = (uint64_t)choices->window->size_count;
  for (size_t i = 0; i < choices->count && count <= bound; i++)
    count *= version_count(choices, i) + 1;
  return count;
}

/* Counts on in the mixed radix of the choices; false at the end. */
static bool next_choice(struct choices *choices) {
  for (size_t i = 0; i < choices->count; i++) {
    if (choices->chosen[i]++ < version_count(choices, i)) return true;
    choices->chosen[i] = 0;
  }
  return ++choices->size_index < choices->window->size_count;
}

static void choose_all(struct choices *choices, bool latest) {
  for (size_t i = 0; i < choices->count; i++)
    choices->chosen[i] = latest ? version_count(choices, i) : 0;
}

/* What the file was after the first `time` changes. */
static void choose_moment(struct choices *choices, size_t time) {
  for (size_t i = 0; i < choices->count; i++) {
    size_t chosen = 0;
    while (chosen < version_count(choices, i) &&
           choices->versions[choices->first[i] + chosen] < time)
      chosen++;
    choices->chosen[i] = chosen;
  }
}

static void choose_by_chance(struct crash *crash, struct choices *choices) {
  uint64_t kind = draw(crash, 4);
  for (size_t i = 0; i < choices->count; i++) {
    size_t versions = version_count(choices, i);
    uint64_t dice = draw(crash, 10);
    choices->chosen[i] = draw(crash, versions + 1);
    if (kind == 1 && dice > 0) choices->chosen[i] = versions;
    if (kind == 2 && dice > 0) choices->chosen[i] = 0;
  }
  choices->size_index = (int)draw(crash, (uint64_t)choices->window->size_count);
  choices->damage = draw(crash, 3) == 0;
}

/* At most `bound` of too many states: moments, one sector left out or alone,
   then chance. */
static void sample_states(struct crash *crash, const struct crash_run *run,
                          struct choices *choices, uint64_t bound,
                          bool is_second) {
  size_t changes = choices->window->change_count;
  uint64_t step = changes * 4 / (bound + 1) + 1, done = 0;
  int last = choices->window->size_count - 1;
  for (size_t time = 0; time <= changes; time += step, done++) {
    choose_moment(choices, time);
    choices->size_index = last;
    if (!try_state(crash, run, choices, is_second)) return;
  }
  step = choices->count * 4 / (bound + 1) + 1;
  for (size_t i = 0; i < 2 * choices->count; i += step, done++) {
    choose_all(choices, i % 2 == 0);
    choices->chosen[i / 2] = i % 2 == 0 ? 0 : version_count(choices, i / 2);
    if (!try_state(crash, run, choices, is_second)) return;
  }
  for (; done < bound; done++) {
    choose_by_chance(crash, choices);
    if (!try_state(crash, run, choices, is_second)) return;
    choices->damage = false;
  }
}

static bool has_superblock(const struct disk_window *window) {
  const uint64_t end = SUPERBLOCK_B_OFFSET + SUPERBLOCK_BYTES;
  for (size_t i = 0; i < window->change_count; i++)
    if ((uint64_t)window->changes[i].sector * DISK_SECTOR_BYTES < end)
      return true;
  return false;
}

static void check_window(struct crash *crash, const struct crash_run *run,
                         const struct disk_window *window, bool is_second) {
  struct choices *choices = calloc(1, sizeof *choices);
  if (choices == NULL) abort();
  uint64_t bound = is_second ? crash->second_bound : crash->bound;
  sort_changes(choices, window);
  if (!is_second) crash->windows++;
  if (!is_second && has_superblock(window)) crash->superblocks++;
  if (state_count(choices, bound) > bound) {
    sample_states(crash, run, choices, bound, is_second);
  } else {
    if (!is_second) crash->exhausted++;
    do
      if (!try_state(crash, run, choices, is_second)) break;
    while (next_choice(choices));
    for (int i = 0; i < DAMAGED && crash->failure[0] == '\0'; i++) {
      choose_by_chance(crash, choices);
      choices->damage = true;
      (void)try_state(crash, run, choices, is_second);
    }
  }
  free(choices->versions);
  free(choices);
}

static void check_windows(struct crash *crash, const struct crash_run *run,
                          bool is_second) {
  size_t count = disk_window_count(run->disk);
  for (size_t i = 0; i < count && crash->failure[0] == '\0'; i++) {
    const struct disk_window *window = disk_window_at(run->disk, i);
    if (is_second || window->done >= crash->since)
      check_window(crash, run, window, is_second);
  }
}

/* The power fails again while the state recovers and goes on. */
static void check_second(struct crash *crash, const struct crash_run *run,
                         int model, uint64_t size) {
  struct crash_run *second = calloc(1, sizeof *second);
  if (second == NULL) abort();
  second->durability = run->durability;
  if (!write_image(crash->second, crash->image, size)) abort();
  const char *where = crash->where;
  struct seen outer = crash->seen;
  memset(&crash->seen, 0, sizeof crash->seen);
  crash->where = "second recording";
  if (crash_play(second, crash->second, crash->second_ops, &run->models[model]))
    check_windows(crash, second, true);
  else
    snprintf(crash->failure, sizeof crash->failure, "second recording, %s",
             second->failure);
  crash->where = where;
  forget_seen(&crash->seen);
  crash->seen = outer;
  disk_free(second->disk);
  free(second);
  unlink(crash->second);
}

/* ---- From Lua ------------------------------------------------------------ */

static int no_sync(int fd) {
  (void)fd;
  return 0;
}

static void *map_little(void *at, size_t size, int protection, int flags,
                        int fd, off_t offset) {
  if (size <= RANGE_BYTES) return mmap(at, size, protection, flags, fd, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

static uint64_t crash_number(lua_State *L, const char *name,
                             uint64_t otherwise) {
  lua_getfield(L, 1, name);
  uint64_t number = probe_opt_u64(L, lua_gettop(L), otherwise);
  lua_pop(L, 1);
  return number;
}

static const char *crash_text(lua_State *L, const char *name,
                              const char *otherwise) {
  lua_getfield(L, 1, name);
  const char *text = luaL_optstring(L, -1, otherwise);
  lua_pop(L, 1); /* the table keeps it */
  return text;
}

static void push_crash(lua_State *L, const struct crash *crash) {
  lua_newtable(L);
#define CRASH_FIELD(name) \
  lua_pushnumber(L, (lua_Number)crash->name); \
  lua_setfield(L, -2, #name);
  CRASH_FIELD(states)
  CRASH_FIELD(second_states)
  CRASH_FIELD(repeated)
  CRASH_FIELD(windows)
  CRASH_FIELD(exhausted)
  CRASH_FIELD(superblocks)
#undef CRASH_FIELD
  if (crash->failure[0] == '\0') return;
  lua_pushstring(L, crash->failure);
  lua_setfield(L, -2, "failure");
}

static void set_interval(uint64_t interval) {
#ifdef MMCMAP_DEBUG_CHECKS
  testing_superblock_interval = interval;
#else
  (void)interval;
#endif
}

static void run_world(struct crash *crash, struct crash_run *run,
                      const char *path, const char *start) {
  struct os_calls saved = os_calls;
  atomic_store(&process_wall_cell, CRASH_BEGIN_MS);
  os_calls.fdatasync = os_calls.fsync = no_sync;
  os_calls.mmap = map_little;
  unlink(path);
  if (strcmp(start, "empty") == 0) (void)write_image(path, crash->image, 0);
  if (crash_play(run, path, crash->ops, NULL))
    check_windows(crash, run, false);
  else
    snprintf(crash->failure, sizeof crash->failure, "%s", run->failure);
  forget_seen(&crash->seen);
  disk_free(run->disk);
  unlink(path);
  unlink(crash->path);
  os_calls = saved;
  atomic_store(&process_wall_cell, 0);
}

static int crash_world(lua_State *L) {
  static const char *const levels[] = {"async", "sync", "manual", NULL};
  luaL_checktype(L, 1, LUA_TTABLE);
  struct crash *crash = lua_newuserdata(L, sizeof *crash);
  struct crash_run *run = lua_newuserdata(L, sizeof *run);
  memset(crash, 0, sizeof *crash);
  memset(run, 0, sizeof *run);
  crash->image = lua_newuserdata(L, DISK_BYTES_MAX);
  const char *path = crash_text(L, "path", "");
  snprintf(crash->path, sizeof crash->path, "%s-state", path);
  snprintf(crash->second, sizeof crash->second, "%s-second", path);
  crash->ops = crash_text(L, "ops", "");
  crash->second_ops = crash_text(L, "second_ops", crash->ops);
  crash->where = crash->ops;
  crash->bound = crash_number(L, "bound", 200);
  crash->since = (int)crash_number(L, "since", 0);
  crash->second_every = crash_number(L, "second", 0);
  crash->second_bound = crash_number(L, "second_bound", 8);
  crash->phase = crash_number(L, "seed", 0);
  crash->random = crash_number(L, "seed", 1) * 2654435761u + 88172645463325252u;
  lua_getfield(L, 1, "durability");
  run->durability = luaL_checkoption(L, lua_gettop(L), "manual", levels);
  set_interval(crash_number(L, "interval", 0));
  run_world(crash, run, path, crash_text(L, "start", ""));
  set_interval(0);
  push_crash(L, crash);
  return 1;
}

#ifdef MMCMAP_DEBUG_CHECKS

static const struct {
  const char *name;
  uint64_t value;
} break_names[] = {
#define CRASH_BREAK(name) \
  { #name, BREAK_##name }
    CRASH_BREAK(DROP_SYNC),
    CRASH_BREAK(IGNORE_SYNC_ERROR),
    CRASH_BREAK(PUBLISH_EARLY),
    CRASH_BREAK(SKIP_FRAME_CHECKSUM),
    CRASH_BREAK(KEEP_SALT),
    CRASH_BREAK(SAME_SUPERBLOCK),
    CRASH_BREAK(EARLY_SUPERBLOCK),
    CRASH_BREAK(LEAVE_FRAME),
    CRASH_BREAK(TRUST_LARGE_VALUES),
    CRASH_BREAK(NO_REWRITE),
    CRASH_BREAK(WRITE_SEALED),
    CRASH_BREAK(RECYCLE_EARLY),
    CRASH_BREAK(RECYCLE_COMMITTED),
    CRASH_BREAK(RECYCLE_HELD),
    CRASH_BREAK(NO_PIN),
    CRASH_BREAK(REUSE_EPOCHS),
    CRASH_BREAK(NO_FENCE),
    CRASH_BREAK(CLAIM_OWNER),
    CRASH_BREAK(BURY_ALIVE),
    CRASH_BREAK(NO_INTENT),
    CRASH_BREAK(SETTLE_LATE),
    CRASH_BREAK(NO_RECHECK),
    CRASH_BREAK(TRUST_BOOT),
    CRASH_BREAK(TXN_UNSEALED),
    CRASH_BREAK(TXN_RECYCLER),
    CRASH_BREAK(TXN_UNFROZEN),
    CRASH_BREAK(SEAL_CLOSES),
    CRASH_BREAK(ONE_LOG),
    CRASH_BREAK(WAIT_FOR_SELF),
    CRASH_BREAK(KEEP_FORKED),
    CRASH_BREAK(IGNORE_FORK),
    CRASH_BREAK(TRUST_LOCK_FILE),
    CRASH_BREAK(OWN_FAILURE),
    CRASH_BREAK(CUT_IS_DAMAGE),
    CRASH_BREAK(TRUST_LAST_CHANGE),
    CRASH_BREAK(REUSE_PINNED),
    CRASH_BREAK(REUSE_HELD),
    CRASH_BREAK(REUSE_UNCOMMITTED),
    CRASH_BREAK(COUNT_LOW),
    CRASH_BREAK(NO_REVIVAL),
    CRASH_BREAK(FLAT_PINS),
    CRASH_BREAK(TRUST_PIDS),
    CRASH_BREAK(STATE_UNSYNCED),
    CRASH_BREAK(LOG_UNSYNCED),
    CRASH_BREAK(REUSE_UNSYNCED),
    CRASH_BREAK(SUPERBLOCK_UNSYNCED),
    CRASH_BREAK(UNCHAIN_HEAD),
    CRASH_BREAK(TRUST_COUNTS),
    CRASH_BREAK(FORGET_DROPPED),
    CRASH_BREAK(NO_RESERVE),
    CRASH_BREAK(NO_CROWD),
    CRASH_BREAK(FORGET_MAP),
    CRASH_BREAK(GROW_UNLOCKED),
    CRASH_BREAK(ROWS_FIRST),
    CRASH_BREAK(AHEAD_UNPINNED),
    CRASH_BREAK(AHEAD_LARGE),
    {"QUEUE", TESTING_QUEUE},
    {"FINE", TESTING_FINE},
};

static uint64_t breaks_of_environment;

static uint64_t break_of(const char *name) {
  for (size_t i = 0; i < sizeof break_names / sizeof break_names[0]; i++)
    if (strcmp(break_names[i].name, name) == 0) return break_names[i].value;
  return 0;
}

static long points_passed;
static long points_until_death;
static int points_signal;
static char points_name[16]; /* empty: those of a change */

static void count_point(const char *point) {
  if (points_name[0] != '\0' ? strcmp(point, points_name) != 0
                             : strncmp(point, "publish", 7) != 0)
    return;
  if (++points_passed == points_until_death) kill(getpid(), points_signal);
}

/* breaks(name, ...): those and no others, but for what the environment says. */
static int crash_breaks(lua_State *L) {
  testing_breaks = breaks_of_environment;
  for (int i = 1; i <= lua_gettop(L); i++) {
    uint64_t value = break_of(luaL_checkstring(L, i));
    luaL_argcheck(L, value != 0, i, "no such break");
    testing_breaks |= value;
  }
  return 0;
}

/* break_mask(name): for MMCMAP_BREAKS. */
static int crash_break_mask(lua_State *L) {
  char text[24];
  uint64_t value = break_of(luaL_checkstring(L, 1));
  luaL_argcheck(L, value != 0, 1, "no such break");
  snprintf(text, sizeof text, "0x%llx", (unsigned long long)value);
  lua_pushstring(L, text);
  return 1;
}

static int crash_die_at_point(lua_State *L) {
  points_passed = 0;
  points_until_death = probe_check_int(L, 1);
  points_signal = lua_isnoneornil(L, 2) ? SIGKILL : probe_check_int(L, 2);
  snprintf(points_name, sizeof points_name, "%s", luaL_optstring(L, 3, ""));
  testing_hook = count_point;
  return 0;
}

static int crash_points(lua_State *L) {
  testing_hook = NULL;
  lua_pushnumber(L, (lua_Number)points_passed);
  return 1;
}

#else

static int crash_breaks(lua_State *L) {
  return lua_gettop(L) == 0 ? 0 : luaL_error(L, "this build has no breaks");
}

static int crash_die_at_point(lua_State *L) {
  return luaL_error(L, "this build has no test points");
}

#define crash_points crash_die_at_point
#define crash_break_mask crash_die_at_point

#endif

void probe_crash_open(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"world", crash_world},           {"breaks", crash_breaks},
      {"break_mask", crash_break_mask}, {"die_at_point", crash_die_at_point},
      {"points", crash_points},         {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
#ifdef MMCMAP_DEBUG_CHECKS
  breaks_of_environment = testing_breaks;
  lua_pushboolean(L, 1);
#else
  lua_pushboolean(L, 0);
#endif
  lua_setfield(L, -2, "has_hooks");
}
