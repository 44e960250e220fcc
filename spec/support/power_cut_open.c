/* SPDX-License-Identifier: MIT */
/*
 * How long opening takes after a cut: a large store is loaded on an image, the
 * power cut while more is being written, and the store opened with nothing of
 * it in memory. The time should follow the log's tail, not the store's size.
 */
#include "power_cut.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEY_BYTES = 32 };

struct load {
  char path[4096];
  uint64_t keys;
  _Atomic bool is_loaded;
  _Atomic bool has_failed;
  _Atomic uint64_t superblock_epoch;
  _Atomic uint64_t log_at_superblock; /* bytes of log when it was written */
  _Atomic uint64_t log_bytes;
};

/* Notes how long the log is behind the newest superblock. */
static void note_log(struct load *load, mmcmap *store) {
  mmcmap_stat stat;
  if (mmcmap_stat_get(store, &stat) != MMCMAP_OK) return;
  if (stat.superblock_epoch != atomic_load(&load->superblock_epoch)) {
    atomic_store(&load->superblock_epoch, stat.superblock_epoch);
    atomic_store(&load->log_at_superblock, stat.log_bytes);
  }
  atomic_store(&load->log_bytes, stat.log_bytes);
}

static void make_key(uint64_t number, uint64_t key_out[KEY_BYTES / 8]) {
  for (uint64_t i = 0; i < KEY_BYTES / 8; i++)
    key_out[i] = mix(number * (KEY_BYTES / 8) + i);
}

/* Loads, and goes on writing until it is cut off. */
static _Noreturn void load_store(struct load *load) {
  mmcmap *store;
  uint64_t key[KEY_BYTES / 8];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  int code = mmcmap_open(load->path, NULL, &store);
  for (uint64_t n = 1; code == MMCMAP_OK; n++) {
    make_key(n <= load->keys ? n : n % load->keys + 1, key);
    mmcmap_slice slice = {.data = key, .size = KEY_BYTES};
    code = mmcmap_put(store, slice, slice);
    if (n % 1000 == 0) note_log(load, store);
    if (n == load->keys) atomic_store(&load->is_loaded, true);
  }
  atomic_store(&load->has_failed, true);
  for (;;)
    pause();
}

static void report(const struct load *load) {
  mmcmap *store;
  mmcmap_stat stat;
  mmcmap_options options;
  mmcmap_options_init(&options);
  options.create = false;
  uint64_t before_ns = now_ns();
  int code = mmcmap_open(load->path, &options, &store);
  uint64_t open_ns = now_ns() - before_ns;
  if (code != MMCMAP_OK) die("opening: %s", mmcmap_error_name(code));
  if (mmcmap_stat_get(store, &stat) != MMCMAP_OK) die("stat");
  uint64_t tail =
      atomic_load(&load->log_bytes) - atomic_load(&load->log_at_superblock);
  printf("%llu keys, %.0f MB; opened after a cut in %.1f ms; at most %.1f MB "
         "of log behind the superblock, %llu commits rolled forward; ",
         (unsigned long long)stat.count, (double)stat.used_bytes / 1e6,
         (double)open_ns / 1e6, (double)tail / 1e6,
         (unsigned long long)stat.recovered_commits);
  mmcmap_close(store);
  before_ns = now_ns();
  code = mmcmap_open(load->path, &options, &store);
  printf("a second time, from memory, in %.1f ms\n",
         (double)(now_ns() - before_ns) / 1e6);
  if (code == MMCMAP_OK) mmcmap_close(store);
}

int open_measure(const char *kind, const char *folder, uint64_t keys) {
  static struct image image;
  struct load *load = mmap(NULL, sizeof *load, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (load == MAP_FAILED) die("mmap: %s", strerror(errno));
  load->keys = keys;
  /* With room for what is written again and again until the cut. */
  image_create(&image, kind, folder,
               (UINT64_C(2) << 30) + keys * UINT64_C(1000));
  image_mount(&image);
  snprintf(load->path, sizeof load->path, "%s/store.mmc", image.place);
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) die("fork: %s", strerror(errno));
  if (child == 0) load_store(load);
  while (!atomic_load(&load->is_loaded)) {
    if (atomic_load(&load->has_failed) || waitpid(child, NULL, WNOHANG) != 0)
      die("loading failed");
    sleep_us(1000);
  }
  sleep_us(1500000);
  image_cut(&image);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  image_unmount(&image);
  image_mount(&image);
  report(load);
  image_destroy(&image);
  return 0;
}
