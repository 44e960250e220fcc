/* SPDX-License-Identifier: MIT */
/*
 * The command line of power_cut, see power_cut.h.
 *
 *   power_cut cuts KIND FOLDER COUNT SEED [BREAKS]
 *       COUNT cuts on one image of KIND (ext4, xfs) in FOLDER, at one store
 *       that lives on until it is large. BREAKS: deliberate mistakes
 *       (base/testing.h), of a build with debug checks.
 *   power_cut open KIND FOLDER KEYS
 *       the time of opening a store of KEYS keys after a cut
 *   power_cut inside KIND FOLDER BYTES COMMAND [ARGUMENT ...]
 *       runs COMMAND with a new file system, whose place is in $PLACE; its
 *       status is the command's
 *   power_cut around KIND FOLDER BYTES COMMAND [ARGUMENT ...]
 *       the same, but a second time after a cut; $ROUND is 1, then 2
 *
 * Status 0 and a summary; 1 and what went wrong; 77 and what is missing.
 */
#include "power_cut.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <dirent.h>
#include <time.h>
#include <unistd.h>

#include "base/testing.h"

#define IMAGE_BYTES (UINT64_C(400) << 20)

enum { STORE_BYTES_MAX = 120 << 20 }; /* then a new store is begun */

static char context[256]; /* what is being done, for messages */

void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("FAILED%s: ", context);
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  fflush(stdout);
  _exit(1);
}

void skip(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
  fflush(stdout);
  _exit(EXIT_SKIP);
}

uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void sleep_us(uint64_t us) {
  struct timespec time = {.tv_sec = (time_t)(us / 1000000),
                          .tv_nsec = (long)(us % 1000000) * 1000};
  while (nanosleep(&time, &time) != 0) {
  }
}

/* ---- Cuts ------------------------------------------------------------------ */

/* When the power goes. */
enum moment { AT_WRITING, AT_OPENING, AT_CLOSING, AT_CREATING, MOMENTS };

struct cutter {
  struct image image;
  struct chance chance;
  struct round *round; /* shared with the writer */
  work_state state;
  bool is_there; /* the store */
  bool is_large;
  unsigned cuts[MOMENTS];
  unsigned levels[WORK_LEVELS];
  unsigned stores;
  uint64_t acknowledged, promised, lost, commits;
  uint64_t longest_open_ns, oldest_loss_ns;
};

/* What a crash while creating may leave beside the store. */
static void remove_temporary_files(const struct cutter *cutter) {
  DIR *folder = opendir(cutter->image.place);
  if (folder == NULL) die("opendir: %s", strerror(errno));
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    if (strstr(entry->d_name, ".new-") == NULL) continue;
    unlinkat(dirfd(folder), entry->d_name, 0);
  }
  closedir(folder);
}

static void remove_store(struct cutter *cutter) {
  unlink(cutter->round->path);
  remove_temporary_files(cutter);
  int folder = open(cutter->image.place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 || syncfs(folder) != 0) die("syncfs: %s", strerror(errno));
  close(folder);
  memset(cutter->state, 0, sizeof cutter->state);
  cutter->is_there = cutter->is_large = false;
}

static void prepare_round(struct cutter *cutter, enum moment moment) {
  struct round *round = cutter->round;
  struct chance *chance = &cutter->chance;
  uint64_t number = round->number + 1;
  char path[sizeof round->path];
  memcpy(path, round->path, sizeof path);
  memset(round, 0, sizeof *round);
  memcpy(round->path, path, sizeof path);
  round->number = number;
  round->level = (int)chance_below(chance, WORK_LEVELS);
  round->interval_ms = (uint32_t)(UINT64_C(2) << chance_below(chance, 6));
  round->pause_us = (uint32_t)(UINT64_C(1000) << chance_below(chance, 5));
  round->write_ms =
      moment == AT_WRITING ? 60000 : (uint32_t)chance_below(chance, 40);
}

static pid_t start_writer(struct round *round) {
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) die("fork: %s", strerror(errno));
  if (child == 0) work_write(round);
  return child;
}

/* Some dirty pages get to the disk before others: any may. */
static void write_back_some(struct cutter *cutter, int fd) {
  struct stat stat;
  struct chance *chance = &cutter->chance;
  if (fstat(fd, &stat) != 0 || stat.st_size == 0) return;
  /* Mostly near the end, where the log is. */
  uint64_t size = (uint64_t)stat.st_size;
  uint64_t span =
      chance_below(chance, 4) == 0 || size < 1 << 20 ? size : 1 << 20;
  uint64_t offset = size - 1 - chance_below(chance, span);
  (void)sync_file_range(fd, (off_t)(offset & ~UINT64_C(4095)),
                        (off_t)(4096 << chance_below(chance, 6)),
                        SYNC_FILE_RANGE_WRITE);
}

/* Waits until the writer has come to the moment, and some time more. */
static void wait_for_moment(struct cutter *cutter, pid_t writer,
                            enum moment moment) {
  static const int phases[MOMENTS] = {PHASE_WRITING, PHASE_OPENING,
                                      PHASE_CLOSING, PHASE_OPENING};
  struct round *round = cutter->round;
  struct chance *chance = &cutter->chance;
  bool is_chaotic = chance_below(chance, 3) > 0;
  uint64_t end_ns = now_ns() + UINT64_C(60000000000);
  while (atomic_load(&round->phase) < phases[moment]) {
    if (atomic_load(&round->error_ns) != 0) return;
    if (waitpid(writer, NULL, WNOHANG) != 0) die("the writer died");
    if (now_ns() > end_ns) die("the writer hangs");
    if (moment != AT_CLOSING) sleep_us(20);
  }
  uint64_t wait_us =
      chance_below(chance, UINT64_C(16) << chance_below(chance, 9));
  if (moment == AT_WRITING)
    wait_us = chance_below(chance, UINT64_C(2000) << chance_below(chance, 10));
  end_ns = now_ns() + wait_us * 1000;
  int fd = is_chaotic ? open(round->path, O_RDONLY | O_CLOEXEC) : -1;
  while (now_ns() < end_ns) {
    if (fd >= 0 && moment == AT_WRITING) write_back_some(cutter, fd);
    uint64_t left_us = (end_ns - now_ns()) / 1000 + 1;
    sleep_us(left_us < 1000 ? left_us : 1000);
  }
  if (fd >= 0) close(fd);
}

static void count_findings(struct cutter *cutter,
                           const struct findings *findings) {
  const struct round *round = cutter->round;
  for (int i = 0; i < WORK_THREADS; i++) {
    cutter->acknowledged += atomic_load(&round->threads[i].done);
    cutter->promised += round->threads[i].kept;
  }
  cutter->lost += findings->lost;
  cutter->commits += findings->recovered_commits;
  if (findings->open_ns > cutter->longest_open_ns)
    cutter->longest_open_ns = findings->open_ns;
  if (round->level != WORK_MANUAL && findings->age_ns > cutter->oldest_loss_ns)
    cutter->oldest_loss_ns = findings->age_ns;
  cutter->is_large =
      findings->file_bytes > STORE_BYTES_MAX || atomic_load(&round->is_full);
}

/* After a cut: the store is as promised; or it was not there yet. */
static void look(struct cutter *cutter, enum moment moment, uint64_t cut_ns) {
  struct round *round = cutter->round;
  struct findings findings;
  if (!cutter->is_there && access(round->path, F_OK) != 0) {
    for (int i = 0; i < WORK_THREADS; i++)
      if (round->threads[i].kept > 0) die("the store is gone");
    remove_temporary_files(cutter);
    return;
  }
  if (!cutter->is_there) cutter->stores++;
  cutter->is_there = true;
  verify_round(round, cut_ns, cutter->state, &findings);
  count_findings(cutter, &findings);
  if (moment == AT_CREATING) remove_temporary_files(cutter);
  if (!cutter->is_large && chance_below(&cutter->chance, 2) == 0)
    verify_goes_on(round, cutter->state);
}

static void cut_once(struct cutter *cutter, unsigned index) {
  static const char *const words[MOMENTS] = {"writing", "opening", "closing",
                                             "creating"};
  static const char *const levels[WORK_LEVELS] = {[WORK_ASYNC] = "async",
                                                  [WORK_SYNC] = "sync",
                                                  [WORK_MANUAL] = "manual",
                                                  [WORK_MIXED] = "mixed"};
  struct round *round = cutter->round;
  uint64_t dice = chance_below(&cutter->chance, 10);
  enum moment moment = dice < 6   ? AT_WRITING
                       : dice < 8 ? AT_OPENING
                                  : AT_CLOSING;
  if (cutter->is_large || (index > 0 && dice == 9)) {
    remove_store(cutter);
    moment = AT_CREATING;
  }
  prepare_round(cutter, moment);
  snprintf(context, sizeof context, " (%s, cut %u, %s while %s)",
           cutter->image.kind, index + 1, levels[round->level], words[moment]);
  pid_t writer = start_writer(round);
  wait_for_moment(cutter, writer, moment);
  /* While ext4 is being shut down, a sync that is under way may succeed
     without having synced: what returns later is not held to be promised. */
  for (int i = 0; i < WORK_THREADS; i++)
    round->threads[i].kept = atomic_load(&round->threads[i].promised);
  uint64_t cut_ns = now_ns();
  image_cut(&cutter->image);
  uint64_t error_ns = atomic_load(&round->error_ns);
  if (error_ns != 0 && error_ns < cut_ns)
    die("before the cut: %s", round->error);
  /* It goes on in memory for a moment, as other processes would. */
  sleep_us(chance_below(&cutter->chance, 3000));
  kill(writer, SIGKILL);
  waitpid(writer, NULL, 0);
  image_unmount(&cutter->image);
  image_mount(&cutter->image);
  cutter->cuts[moment]++;
  cutter->levels[round->level]++;
  look(cutter, moment, cut_ns);
}

static int cut_many(const char *kind, const char *folder, unsigned count,
                    uint64_t seed) {
  static struct cutter cutter;
  cutter.round = mmap(NULL, sizeof *cutter.round, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (cutter.round == MAP_FAILED) die("mmap: %s", strerror(errno));
  cutter.chance.state = mix(seed);
  image_create(&cutter.image, kind, folder, IMAGE_BYTES);
  image_mount(&cutter.image);
  snprintf(cutter.round->path, sizeof cutter.round->path, "%s/store.mmc",
           cutter.image.place);
  cutter.round->number = mix(seed) >> 24;
  for (unsigned i = 0; i < count; i++)
    cut_once(&cutter, i);
  image_destroy(&cutter.image);
  printf("%s, seed %llu: %u cuts (%u writing, %u opening, %u closing, "
         "%u creating; %u sync, %u async, %u manual, %u mixed) of %u stores; "
         "%llu operations returned, %llu promised, %llu lost; "
         "%llu commits rolled forward; longest opening %.1f ms; "
         "oldest loss %.1f ms before its cut\n",
         kind, (unsigned long long)seed, count, cutter.cuts[AT_WRITING],
         cutter.cuts[AT_OPENING], cutter.cuts[AT_CLOSING],
         cutter.cuts[AT_CREATING], cutter.levels[WORK_SYNC],
         cutter.levels[WORK_ASYNC], cutter.levels[WORK_MANUAL],
         cutter.levels[WORK_MIXED], cutter.stores,
         (unsigned long long)cutter.acknowledged,
         (unsigned long long)cutter.promised, (unsigned long long)cutter.lost,
         (unsigned long long)cutter.commits,
         (double)cutter.longest_open_ns / 1e6,
         (double)cutter.oldest_loss_ns / 1e6);
  return 0;
}

/* ---- A file system for a command -------------------------------------------- */

/* The command's status. */
static int run_at(const struct image *image, const char *round,
                  char **command) {
  int status = 0;
  setenv("PLACE", image->place, 1);
  setenv("ROUND", round, 1);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp(command[0], command);
    _exit(127);
  }
  if (child < 0 || waitpid(child, &status, 0) != child) die("fork");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int run_inside(const char *kind, const char *folder, uint64_t bytes,
                      bool is_cut, char **command) {
  struct image image;
  image_create(&image, kind, folder, bytes);
  image_mount(&image);
  int status = run_at(&image, "1", command);
  if (status == 0 && is_cut) {
    image_cut(&image);
    image_unmount(&image);
    image_mount(&image);
    status = run_at(&image, "2", command);
  }
  image_destroy(&image);
  return status;
}

static void set_breaks(const char *breaks) {
#ifdef MMCMAP_DEBUG_CHECKS
  testing_breaks = (unsigned)strtoul(breaks, NULL, 0);
#else
  skip("breaks %s need a build with debug checks", breaks);
#endif
}

int main(int argc, char **argv) {
  const char *command = argc > 4 ? argv[1] : "";
  uint64_t number = argc > 4 ? strtoull(argv[4], NULL, 0) : 0;
  if (strcmp(command, "cuts") == 0 && argc > 5) {
    if (argc > 6) set_breaks(argv[6]);
    return cut_many(argv[2], argv[3], (unsigned)number,
                    strtoull(argv[5], NULL, 0));
  }
  if (strcmp(command, "open") == 0)
    return open_measure(argv[2], argv[3], number);
  bool is_cut = strcmp(command, "around") == 0;
  if ((is_cut || strcmp(command, "inside") == 0) && argc > 5)
    return run_inside(argv[2], argv[3], number, is_cut, argv + 5);
  die("usage: see the head of power_cut.c");
}
