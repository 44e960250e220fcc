/* SPDX-License-Identifier: MIT */
/*
 * The command line of kill_soak, see kill_soak.h, and the parent, which starts
 * processes, kills them, watches those that wait, and every now and then lets
 * all end and one look at the store alone.
 *
 *   kill_soak PATH SECONDS PROCESSES [OPTION ...]
 *     --kills=N       ends after N kills, if they come before SECONDS
 *     --durability=async|sync|manual|mixed
 *     --threads=N     of each process
 *     --seed=N
 *     --points        processes die at points of base/testing.h (a build with
 *                     debug checks)
 *     --upkeep        the cleaner runs after every operation, and stores are
 *                     compacted and backed up all the time
 *     --all-die       at times all are killed before new ones are started
 *     --breaks=N      deliberate mistakes of base/testing.h (the same)
 *
 * The parent never opens the store. Status 0 and a summary; 1 and what went
 * wrong; 2: usage; 77 and what is missing.
 */
#include "kill_soak.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/testing.h"
#include "os/process.h"

#define STORE_BYTES_MAX (UINT64_C(128) << 20) /* then a new one is begun */

enum {
  EXIT_SKIP = 77,
  KILLS_PER_CHECK = 20,
  FAULTS_SHOWN = 10,
  POINT_PATIENCE_MS = 200 /* for a process to come to its point */
};

struct parent {
  struct soak *soak;
  struct chance chance;
  bool all_die;
  uint64_t end_ns;
  uint64_t kill_limit;
  uint64_t next_kill_ns;
  bool waits_for_work; /* the next to be killed must have opened the store */
  uint64_t next_check; /* number of kills */

  uint64_t kills, random_kills, restarts, retired, stopped;
  uint64_t all_deaths, takeovers, checks, stores;
};

void sleep_us(uint64_t us) {
  struct timespec time = {.tv_sec = (time_t)(us / 1000000),
                          .tv_nsec = (long)(us % 1000000) * 1000};
  while (nanosleep(&time, &time) != 0) {
  }
}

/* One write, so that nobody else's words come in between. It is counted when it
   has been told: who sees the count kills us. */
void soak_fault(struct soak *soak, const char *format, ...) {
  char text[1000] = "FAULT: ";
  size_t size = strlen(text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + size, sizeof text - size - 1, format, arguments);
  va_end(arguments);
  size = strlen(text);
  text[size] = '\n';
  bool is_shown = atomic_load(&soak->faults) < FAULTS_SHOWN;
  ssize_t written = is_shown ? write(STDOUT_FILENO, text, size + 1) : 0;
  (void)written;
  atomic_fetch_add(&soak->faults, 1);
}

_Noreturn void soak_fail(struct soak *soak, const char *what, int code) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  soak_fault(soak, "%s: %s, %s, offset %#llx, errno %d (process %d)", what,
             mmcmap_error_name(code), error.what == NULL ? "" : error.what,
             (unsigned long long)error.offset, error.system_errno,
             (int)getpid());
  _exit(1);
}

/* ---- Processes that come and go ---------------------------------------------- */

static struct slot *verifier(struct soak *soak) {
  return &soak->slots[SLOTS_MAX];
}

static void start(struct parent *parent, struct slot *slot,
                  void (*body)(struct soak *soak, struct slot *slot)) {
  struct soak *soak = parent->soak;
  memset(slot->marks, 0, sizeof slot->marks);
  atomic_store(&slot->phase, PHASE_OPENING);
  atomic_store(&slot->dying_at, 0);
  slot->was_killed = false;
  slot->life++;
  slot->started_ns = process_monotonic_ns();
  slot->end_ns = 0;
  if (chance_below(&parent->chance, 8) == 0)
    slot->end_ns = slot->started_ns +
                   UINT64_C(1000000) * (1 + chance_below(&parent->chance, 60));
  points_choose(soak, slot, &parent->chance);
  mark_begin(&slot->marks[soak->thread_count], DOING_START, 0);
  fflush(stdout);
  pid_t pid = fork(); /* the slot is shared: the child leaves it alone */
  if (pid == 0) body(soak, slot);
  if (pid < 0) soak_fault(soak, "fork: %s", strerror(errno));
  slot->pid = pid < 0 ? 0 : pid;
}

static void start_missing(struct parent *parent) {
  struct soak *soak = parent->soak;
  for (unsigned i = 0; i < soak->slot_count; i++) {
    if (soak->slots[i].pid != 0) continue;
    if (soak->slots[i].life > 0) parent->restarts++;
    start(parent, &soak->slots[i], soak_work);
  }
}

static unsigned count_living(const struct soak *soak) {
  unsigned count = 0;
  for (unsigned i = 0; i < soak->slot_count; i++)
    count += soak->slots[i].pid != 0;
  return count;
}

static void account(struct parent *parent, struct slot *slot, int status) {
  struct soak *soak = parent->soak;
  unsigned point = atomic_load(&slot->dying_at);
  if (WIFEXITED(status)) {
    if (WEXITSTATUS(status) != 0 || atomic_load(&slot->phase) != PHASE_CLOSED)
      soak_fault(soak, "a process of slot %u has ended with status %d",
                 slot->number, WEXITSTATUS(status));
    else if (slot != verifier(soak))
      parent->retired++;
  } else if (WTERMSIG(status) != SIGKILL || (point == 0 && !slot->was_killed)) {
    soak_fault(soak, "a process of slot %u has ended by signal %d",
               slot->number, WTERMSIG(status));
  } else {
    parent->kills++;
    if (slot->was_killed)
      parent->random_kills++;
    else
      soak->points[point - 1].deaths++;
    if (count_living(soak) == 0) parent->takeovers++;
  }
}

/* Takes notice of what has ended; whether it was the one waited for. */
static bool reap(struct parent *parent, struct slot *slot) {
  int status;
  if (slot->pid == 0 || waitpid(slot->pid, &status, WNOHANG) != slot->pid)
    return false;
  slot->pid = 0;
  account(parent, slot, status);
  return true;
}

static void reap_and_watch(struct parent *parent) {
  struct soak *soak = parent->soak;
  for (unsigned i = 0; i <= SLOTS_MAX; i++) {
    struct slot *slot = &soak->slots[i];
    if (slot->pid != 0 && !reap(parent, slot)) watch_slot(soak, slot);
    if (atomic_load(&soak->faults) != 0) return;
  }
}

static void kill_slot(struct slot *slot) {
  if (slot->pid == 0) return;
  slot->was_killed = true;
  kill(slot->pid, SIGKILL);
}

static void kill_everything(struct soak *soak) {
  for (unsigned i = 0; i <= SLOTS_MAX; i++) {
    if (soak->slots[i].pid == 0) continue;
    kill(soak->slots[i].pid, SIGKILL);
    waitpid(soak->slots[i].pid, NULL, 0);
    soak->slots[i].pid = 0;
  }
}

static bool has_fault(const struct parent *parent) {
  return atomic_load(&parent->soak->faults) != 0;
}

/* ---- Kills ------------------------------------------------------------------- */

/* Whether it may be killed now. What waits for long may hang, which a kill
   would hide. */
static bool is_spared(const struct parent *parent, const struct slot *slot) {
  const struct soak *soak = parent->soak;
  return slot->pid == 0 || slot->was_killed ||
         watch_wait_ns(soak, slot) > UINT64_C(1000000) * SPARE_MS;
}

static struct slot *pick(struct parent *parent) {
  struct soak *soak = parent->soak;
  uint64_t first = chance_below(&parent->chance, soak->slot_count);
  for (unsigned i = 0; i < soak->slot_count; i++) {
    struct slot *slot = &soak->slots[(first + i) % soak->slot_count];
    uint64_t age_ns = process_monotonic_ns() - slot->started_ns;
    if (is_spared(parent, slot)) continue;
    if (parent->waits_for_work && atomic_load(&slot->phase) == PHASE_OPENING)
      continue;
    if (slot->point_turn != 0 && age_ns < UINT64_C(1000000) * POINT_PATIENCE_MS)
      continue;
    return slot;
  }
  return NULL;
}

static void plan_kill(struct parent *parent) {
  struct chance *chance = &parent->chance;
  uint64_t us = chance_below(chance, UINT64_C(2000) << chance_below(chance, 6));
  parent->next_kill_ns = process_monotonic_ns() + us * 1000;
  parent->waits_for_work = chance_below(chance, 4) != 0;
}

/* All at once: nobody is left to take anything over. */
static bool kill_all(struct parent *parent) {
  struct soak *soak = parent->soak;
  for (unsigned i = 0; i < soak->slot_count; i++)
    if (soak->slots[i].pid != 0 && is_spared(parent, &soak->slots[i]))
      return false;
  for (unsigned i = 0; i < soak->slot_count; i++)
    kill_slot(&soak->slots[i]);
  while (count_living(soak) > 0 && !has_fault(parent)) {
    sleep_us(100);
    reap_and_watch(parent);
  }
  parent->all_deaths++;
  return true;
}

/* A process that stands still is no dead one: nobody may take its locks. */
static void stop_for_a_while(struct parent *parent, struct slot *slot) {
  struct chance *chance = &parent->chance;
  uint64_t us =
      chance_below(chance, chance_below(chance, 10) == 0 ? 300000 : 30000);
  kill(slot->pid, SIGSTOP);
  sleep_us(us);
  kill(slot->pid, SIGCONT);
  parent->stopped++;
}

static void kill_if_time(struct parent *parent) {
  struct chance *chance = &parent->chance;
  if (process_monotonic_ns() < parent->next_kill_ns) return;
  if (parent->all_die && chance_below(chance, 10) == 0) {
    if (kill_all(parent)) plan_kill(parent);
    return;
  }
  struct slot *slot = pick(parent);
  if (slot == NULL) return;
  uint64_t dice = chance_below(chance, 16);
  if (dice < 2) stop_for_a_while(parent, slot);
  if (dice != 0) kill_slot(slot);
  plan_kill(parent);
}

/* ---- Looking at the store ---------------------------------------------------- */

static uint64_t store_size(const struct soak *soak) {
  struct stat stat_now;
  return stat(soak->path, &stat_now) == 0 ? (uint64_t)stat_now.st_size : 0;
}

/* Lets all end: by closing the store, or by a kill. */
static void stop_all(struct parent *parent) {
  struct soak *soak = parent->soak;
  struct chance *chance = &parent->chance;
  if (parent->all_die && chance_below(chance, 3) == 0 && kill_all(parent))
    return;
  uint64_t kill_ns =
      chance_below(chance, 2) == 0
          ? process_monotonic_ns() + chance_below(chance, 5000000)
          : UINT64_MAX;
  atomic_store(&soak->stops, true);
  while (count_living(soak) > 0 && !has_fault(parent)) {
    if (process_monotonic_ns() > kill_ns) {
      struct slot *slot = pick(parent);
      if (slot != NULL) kill_slot(slot);
      kill_ns = UINT64_MAX;
    }
    sleep_us(200);
    reap_and_watch(parent);
  }
  atomic_store(&soak->stops, false);
}

/* The store, and what the killed have left beside it. */
static void remove_store(struct parent *parent) {
  char folder[sizeof parent->soak->path], path[sizeof folder + 300];
  snprintf(folder, sizeof folder, "%s", parent->soak->path);
  char *slash = strrchr(folder, '/');
  const char *name = slash == NULL ? folder : slash + 1;
  size_t size = strlen(name);
  if (slash != NULL) *slash = 0;
  DIR *handle = opendir(slash == NULL ? "." : folder);
  if (handle == NULL) return;
  for (struct dirent *entry; (entry = readdir(handle)) != NULL;) {
    const char *rest = entry->d_name + size;
    if (strncmp(entry->d_name, name, size) != 0 ||
        (rest[0] != 0 && strcmp(rest, "-lock") != 0 &&
         strncmp(rest, ".new-", 5) != 0))
      continue;
    snprintf(path, sizeof path, "%s/%s", slash == NULL ? "." : folder,
             entry->d_name);
    unlink(path);
  }
  closedir(handle);
}

static void begin_store(struct parent *parent) {
  struct soak *soak = parent->soak;
  remove_store(parent);
  for (unsigned w = 0; w < WRITERS_MAX; w++)
    for (unsigned k = 0; k < KEYS; k++) {
      atomic_store(&soak->writers[w].keys[k].begun, 0);
      atomic_store(&soak->writers[w].keys[k].acked, 0);
    }
  for (unsigned w = 0; w < WRITERS_MAX; w++) {
    atomic_store(&soak->writers[w].moves.begun, 0);
    atomic_store(&soak->writers[w].moves.acked, 0);
  }
  parent->stores++;
}

static void check(struct parent *parent) {
  struct soak *soak = parent->soak;
  struct slot *slot = verifier(soak);
  stop_all(parent);
  if (has_fault(parent)) return;
  start(parent, slot, soak_verify);
  while (slot->pid != 0 && !has_fault(parent)) {
    sleep_us(200);
    reap_and_watch(parent);
  }
  parent->checks++;
  parent->next_check = parent->kills + KILLS_PER_CHECK;
  if (!has_fault(parent) && store_size(soak) > STORE_BYTES_MAX)
    begin_store(parent);
}

/* ---- The program ------------------------------------------------------------- */

static void run(struct parent *parent) {
  begin_store(parent);
  parent->next_check = KILLS_PER_CHECK;
  plan_kill(parent);
  while (!has_fault(parent) && process_monotonic_ns() < parent->end_ns &&
         parent->kills < parent->kill_limit) {
    start_missing(parent);
    sleep_us(200);
    kill_if_time(parent);
    reap_and_watch(parent);
    if (parent->kills >= parent->next_check ||
        store_size(parent->soak) > STORE_BYTES_MAX)
      check(parent);
  }
  if (!has_fault(parent)) check(parent);
  kill_everything(parent->soak);
}

static void print_summary(const struct parent *parent) {
  const struct soak *soak = parent->soak;
  uint64_t faults = atomic_load(&soak->faults);
  uint64_t longest = atomic_load(&soak->longest);
  printf(
      "seed %llu: %llu kills (%llu at random, %llu at points), %llu ended "
      "by themselves, %llu restarts, %llu stopped for a while; "
      "%llu operations acknowledged, %llu transactions, %llu gets, "
      "%llu snapshots; "
      "%llu verifications, %llu takeovers (%llu times all were killed), "
      "%llu stores; longest wait %.1f ms (%s); ",
      (unsigned long long)soak->seed, (unsigned long long)parent->kills,
      (unsigned long long)parent->random_kills,
      (unsigned long long)(parent->kills - parent->random_kills),
      (unsigned long long)parent->retired, (unsigned long long)parent->restarts,
      (unsigned long long)parent->stopped,
      (unsigned long long)atomic_load(&soak->acknowledged),
      (unsigned long long)atomic_load(&soak->moves),
      (unsigned long long)atomic_load(&soak->gets),
      (unsigned long long)atomic_load(&soak->snapshots),
      (unsigned long long)parent->checks, (unsigned long long)parent->takeovers,
      (unsigned long long)parent->all_deaths,
      (unsigned long long)parent->stores, (double)(longest / DOINGS_MAX) / 1e6,
      watch_name((enum doing)(longest % DOINGS_MAX)));
  const char *separator = "deaths at points:";
  for (unsigned i = 0; i < POINTS_MAX; i++) {
    const struct point *point = &soak->points[i];
    if (atomic_load(&point->hash) == 0) continue;
    printf("%s %s %llu of %llu", separator, point->name,
           (unsigned long long)point->deaths,
           (unsigned long long)atomic_load(&point->passings));
    separator = ",";
  }
  if (soak->has_points) printf("; ");
  if (faults == 0)
    printf("nothing is missing\n");
  else
    printf("%llu faults\n", (unsigned long long)faults);
}

static void need_checks(const char *what) {
#ifndef MMCMAP_DEBUG_CHECKS
  printf("%s needs a build with debug checks\n", what);
  exit(EXIT_SKIP);
#else
  (void)what;
#endif
}

static int level_of(const char *name) {
  static const char *const names[] = {[MMCMAP_ASYNC] = "async",
                                      [MMCMAP_SYNC] = "sync",
                                      [MMCMAP_MANUAL] = "manual",
                                      [LEVEL_MIXED] = "mixed"};
  for (int i = 0; i <= LEVEL_MIXED; i++)
    if (strcmp(name, names[i]) == 0) return i;
  return -1;
}

/* What follows `name` in `option`; NULL if it is another one. */
static const char *after(const char *option, const char *name) {
  size_t size = strlen(name);
  return strncmp(option, name, size) == 0 ? option + size : NULL;
}

static bool take_option(struct parent *parent, const char *option) {
  struct soak *soak = parent->soak;
  const char *text;
  if ((text = after(option, "--kills=")) != NULL) {
    parent->kill_limit = strtoull(text, NULL, 0);
  } else if ((text = after(option, "--durability=")) != NULL) {
    soak->level = level_of(text);
  } else if ((text = after(option, "--threads=")) != NULL) {
    soak->thread_count = (unsigned)strtoul(text, NULL, 0);
  } else if ((text = after(option, "--seed=")) != NULL) {
    soak->seed = strtoull(text, NULL, 0);
  } else if (strcmp(option, "--points") == 0) {
    need_checks(option);
    soak->has_points = true;
  } else if (strcmp(option, "--upkeep") == 0) {
    soak->has_upkeep = true;
  } else if (strcmp(option, "--all-die") == 0) {
    parent->all_die = true;
  } else if ((text = after(option, "--breaks=")) != NULL) {
    need_checks(option);
#ifdef MMCMAP_DEBUG_CHECKS
    testing_breaks = strtoull(text, NULL, 0);
#endif
  } else {
    return false;
  }
  return true;
}

static bool take_arguments(struct parent *parent, int argc, char **argv) {
  struct soak *soak = parent->soak;
  if (argc < 4 || strlen(argv[1]) + 32 > sizeof soak->path) return false;
  snprintf(soak->path, sizeof soak->path, "%s", argv[1]);
  parent->end_ns = process_monotonic_ns() +
                   UINT64_C(1000000000) * strtoull(argv[2], NULL, 10);
  soak->slot_count = (unsigned)strtoul(argv[3], NULL, 10);
  for (int i = 4; i < argc; i++)
    if (!take_option(parent, argv[i])) return false;
  return soak->slot_count > 0 && soak->slot_count <= SLOTS_MAX &&
         soak->thread_count > 0 && soak->thread_count <= THREADS_MAX &&
         soak->level >= 0;
}

int main(int argc, char **argv) {
  static struct parent parent;
  struct soak *soak = mmap(NULL, sizeof *soak, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (soak == MAP_FAILED) return 2;
  parent.soak = soak;
  parent.kill_limit = UINT64_MAX;
  soak->thread_count = 2;
  soak->level = MMCMAP_ASYNC;
  soak->seed = process_monotonic_ns();
  for (unsigned i = 0; i <= SLOTS_MAX; i++)
    soak->slots[i].number = i;
  if (!take_arguments(&parent, argc, argv)) {
    fprintf(stderr, "usage: see the head of kill_soak.c\n");
    return 2;
  }
  parent.chance.state = mix(soak->seed);
  run(&parent);
  print_summary(&parent);
  return atomic_load(&soak->faults) == 0 ? 0 : 1;
}
