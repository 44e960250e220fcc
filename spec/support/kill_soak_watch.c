/* SPDX-License-Identifier: MIT */
/*
 * Watching for threads that hang, and dying at points of base/testing.h. The
 * names of the points are collected as they are passed, so new ones need no
 * list here.
 */
#include "kill_soak.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/testing.h"
#include "os/process.h"

/* ---- Threads that hang ------------------------------------------------------- */

const char *watch_name(enum doing doing) {
  static const char *const names[DOINGS] = {
      "nothing", "start", "open",   "get",   "put",      "delete",
      "move",    "count", "sync",   "step",  "snapshot", "walk",
      "close",   "exit",  "verify", "clean", "compact",  "backup"};
  return names[doing];
}

static uint64_t mark_wait_ns(const struct mark *mark, uint64_t now_ns) {
  uint64_t since_ns = atomic_load(&mark->since_ns);
  return since_ns == 0 || since_ns > now_ns ? 0 : now_ns - since_ns;
}

uint64_t watch_wait_ns(const struct soak *soak, const struct slot *slot) {
  uint64_t now_ns = process_monotonic_ns(), longest_ns = 0;
  for (unsigned i = 0; i <= soak->thread_count; i++) {
    uint64_t wait_ns = mark_wait_ns(&slot->marks[i], now_ns);
    if (wait_ns > longest_ns) longest_ns = wait_ns;
  }
  return longest_ns;
}

static void print_file(pid_t pid, int thread_id, const char *name) {
  char path[100], line[300];
  snprintf(path, sizeof path, "/proc/%d/task/%d/%s", (int)pid, thread_id, name);
  FILE *file = fopen(path, "re");
  if (file == NULL) return;
  while (fgets(line, sizeof line, file) != NULL)
    printf("  %s: %s%s", name, line, strchr(line, '\n') != NULL ? "" : "\n");
  fclose(file);
}

static void print_hanging(const struct soak *soak, const struct slot *slot) {
  uint64_t now_ns = process_monotonic_ns();
  for (unsigned i = 0; i <= soak->thread_count; i++) {
    const struct mark *mark = &slot->marks[i];
    uint64_t wait_ns = mark_wait_ns(mark, now_ns);
    int thread_id = atomic_load(&mark->thread_id);
    printf("  slot %u (process %d), thread %u%s: ", slot->number,
           (int)slot->pid, i, i == soak->thread_count ? " (main)" : "");
    if (wait_ns == 0) {
      printf("in no call\n");
      continue;
    }
    printf("%s, key %u, for %.3f s\n",
           watch_name((enum doing)atomic_load(&mark->doing)),
           atomic_load(&mark->key), (double)wait_ns / 1e9);
    if (wait_ns < UINT64_C(1000000) * SPARE_MS || thread_id == 0) continue;
    print_file(slot->pid, thread_id, "wchan");
    print_file(slot->pid, thread_id, "syscall");
    print_file(slot->pid, thread_id, "stack");
  }
}

static void print_backtrace(const struct slot *slot) {
  char command[200];
  snprintf(command, sizeof command,
           "timeout 30 gdb -q -batch -p %d -ex 'thread apply all bt 20' "
           "2>/dev/null | grep -E '^(Thread|#)'",
           (int)slot->pid);
  if (system(command) != 0) printf("  (no backtrace: gdb is not there)\n");
}

void watch_slot(struct soak *soak, const struct slot *slot) {
  if (watch_wait_ns(soak, slot) < UINT64_C(1000000) * STUCK_MS) return;
  soak_fault(soak, "a thread of slot %u has been waiting for more than %d s",
             slot->number, STUCK_MS / 1000);
  /* Of all, as it may be another one that it waits for. */
  for (unsigned i = 0; i <= SLOTS_MAX; i++) {
    if (soak->slots[i].pid == 0) continue;
    print_hanging(soak, &soak->slots[i]);
    fflush(stdout);
    print_backtrace(&soak->slots[i]);
  }
  fflush(stdout);
}

/* ---- Points ------------------------------------------------------------------ */

void points_choose(struct soak *soak, struct slot *slot,
                   struct chance *chance) {
  unsigned indices[POINTS_MAX], count = 0;
  slot->point_hash = slot->point_turn = 0;
  if (!soak->has_points || chance_below(chance, 5) == 0) return;
  for (unsigned i = 0; i < POINTS_MAX; i++)
    if (atomic_load(&soak->points[i].hash) != 0) indices[count++] = i;
  uint64_t usual = 16; /* passings in a process's life */
  uint64_t which = chance_below(chance, count + 1);
  if (which < count) {
    const struct point *point = &soak->points[indices[which]];
    uint64_t lives = 1;
    for (unsigned i = 0; i < soak->slot_count; i++)
      lives += soak->slots[i].life;
    slot->point_hash = atomic_load(&point->hash);
    usual = 1 + atomic_load(&point->passings) / lives;
  }
  unsigned bits = 1;
  while (bits < 20 && usual >> bits != 0)
    bits++;
  /* The first ones most often. */
  slot->point_turn =
      1 + chance_below(chance, UINT64_C(1) << chance_below(chance, bits + 1));
}

#ifdef MMCMAP_DEBUG_CHECKS

static struct soak *points_soak;
static struct slot *points_slot;
static _Atomic uint64_t points_turns;

/* The point's index; POINTS_MAX if there are too many. */
static unsigned points_find(const char *name, uint64_t hash) {
  for (unsigned i = 0; i < POINTS_MAX; i++) {
    struct point *point = &points_soak->points[(hash + i) % POINTS_MAX];
    uint64_t none = 0;
    if (atomic_load(&point->hash) != hash &&
        !atomic_compare_exchange_strong(&point->hash, &none, hash) &&
        none != hash)
      continue;
    /* Each that comes first writes the same. */
    if (point->name[0] == 0)
      snprintf(point->name, sizeof point->name, "%s", name);
    return (unsigned)((hash + i) % POINTS_MAX);
  }
  return POINTS_MAX;
}

static void points_pass(const char *name) {
  struct slot *slot = points_slot;
  uint64_t hash = hash_plain_checksum(name, strlen(name)) | 1;
  unsigned index = points_find(name, hash);
  if (index == POINTS_MAX) return;
  atomic_fetch_add(&points_soak->points[index].passings, 1);
  if (slot->point_turn == 0 ||
      (slot->point_hash != 0 && slot->point_hash != hash))
    return;
  uint64_t turn = atomic_fetch_add(&points_turns, 1) + 1;
  /* A thread that hangs would not be seen if its process died. */
  if (turn < slot->point_turn ||
      watch_wait_ns(points_soak, slot) > UINT64_C(1000000) * SPARE_MS)
    return;
  atomic_store(&slot->dying_at, index + 1);
  /* At times others come to wait for it first. */
  if (slot->life % 3 == 0) sleep_us(mix(slot->life) % 5000);
  raise(SIGKILL);
}

void points_arm(struct soak *soak, struct slot *slot) {
  if (!soak->has_points) return;
  points_soak = soak;
  points_slot = slot;
  testing_hook = points_pass;
}

#else

void points_arm(struct soak *soak, struct slot *slot) {
  (void)soak;
  (void)slot;
}

#endif
