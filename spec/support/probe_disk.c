/* SPDX-License-Identifier: MIT */
/*
 * Recording. The store's mapping is compared with what was there at the last
 * look, so a store into it needs no help from the engine to be noticed; the
 * test points of the debug build only make the looks more frequent.
 */
#include "probe_disk.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/testing.h"
#include "os/calls.h"

enum {
  SECTORS_PER_PAGE = DISK_PAGE_BYTES / DISK_SECTOR_BYTES,
  PAGES_MAX = DISK_BYTES_MAX / DISK_PAGE_BYTES
};

struct disk {
  char path[512];
  int fd; /* of our own, to look through; -1 before the file is opened */
  const uint8_t *view;
  uint8_t *cache;   /* the file at the last look, zeros behind its end */
  uint8_t *durable; /* the oldest version of each sector that may be there */
  bool is_dirty[PAGES_MAX];
  uint64_t extent; /* no byte behind it was ever other than zero */
  struct disk_change *changes;
  size_t change_count;
  size_t change_capacity;
  uint64_t sizes[DISK_SIZES_MAX]; /* the last one is the present length */
  int size_count;
  bool fails_next;
  int promised;
  int done;
  struct disk_window *windows;
  size_t window_count;
  size_t window_capacity;
};

static struct disk *recording; /* the one that the hooks serve */
static struct os_calls real;   /* the table while we record */

/* Of all hooks: the flusher of a world may sweep. */
static pthread_mutex_t recorder = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static void *need(void *memory) {
  if (memory != NULL) return memory;
  fprintf(stderr, "probe_disk: no memory\n");
  abort();
}

/* ---- Looking ------------------------------------------------------------- */

static void add_change(struct disk *disk, uint64_t sector,
                       const uint8_t *data) {
  if (disk->change_count == disk->change_capacity) {
    disk->change_capacity = disk->change_capacity * 2 + 64;
    disk->changes = need(
        realloc(disk->changes, disk->change_capacity * sizeof *disk->changes));
  }
  struct disk_change *change = &disk->changes[disk->change_count++];
  change->sector = (uint32_t)sector;
  memcpy(change->data, data, DISK_SECTOR_BYTES);
}

/* Notes what has changed in one page, whose bytes now are `now`. */
static void look_at_page(struct disk *disk, uint64_t page, const uint8_t *now) {
  uint8_t *cache = disk->cache + page * DISK_PAGE_BYTES;
  if (memcmp(cache, now, DISK_PAGE_BYTES) == 0) return;
  disk->is_dirty[page] = true;
  for (uint64_t i = 0; i < SECTORS_PER_PAGE; i++) {
    uint64_t at = i * DISK_SECTOR_BYTES;
    if (memcmp(cache + at, now + at, DISK_SECTOR_BYTES) == 0) continue;
    memcpy(cache + at, now + at, DISK_SECTOR_BYTES);
    add_change(disk, page * SECTORS_PER_PAGE + i, cache + at);
  }
}

static void look_at_all(struct disk *disk) {
  static const uint8_t zeros[DISK_PAGE_BYTES];
  struct stat stat;
  if (disk->fd < 0 || fstat(disk->fd, &stat) != 0) return;
  uint64_t size = (uint64_t)stat.st_size;
  if (size > DISK_BYTES_MAX) {
    fprintf(stderr, "probe_disk: the file is too long\n");
    abort();
  }
  if (size != disk->sizes[disk->size_count - 1]) {
    if (disk->size_count == DISK_SIZES_MAX) disk->size_count--;
    disk->sizes[disk->size_count++] = size;
  }
  uint64_t end = (size + DISK_PAGE_BYTES - 1) / DISK_PAGE_BYTES;
  uint64_t pages = disk->extent / DISK_PAGE_BYTES;
  if (pages < end) pages = end;
  disk->extent = pages * DISK_PAGE_BYTES;
  for (uint64_t page = 0; page < pages; page++)
    look_at_page(disk, page,
                 page < end ? disk->view + page * DISK_PAGE_BYTES : zeros);
}

static void look(struct disk *disk) {
  pthread_mutex_lock(&recorder);
  look_at_all(disk);
  pthread_mutex_unlock(&recorder);
}

static void watch_file(struct disk *disk, int fd) {
  char name[64];
  if (disk->fd >= 0) close(disk->fd);
  if (disk->view != NULL) munmap((void *)(uintptr_t)disk->view, DISK_BYTES_MAX);
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  /* A description of its own: it must not keep the store's locks. */
  disk->fd = open(name, O_RDONLY | O_CLOEXEC);
  disk->view = mmap(NULL, DISK_BYTES_MAX, PROT_READ, MAP_SHARED, disk->fd, 0);
  if (disk->fd < 0 || disk->view == MAP_FAILED) need(NULL);
  look(disk);
}

/* ---- Windows ------------------------------------------------------------- */

void disk_cut(struct disk *disk) {
  pthread_mutex_lock(&recorder);
  look(disk);
  if (disk->window_count == disk->window_capacity) {
    disk->window_capacity = disk->window_capacity * 2 + 16;
    disk->windows = need(
        realloc(disk->windows, disk->window_capacity * sizeof *disk->windows));
  }
  struct disk_window *window = &disk->windows[disk->window_count++];
  memset(window, 0, sizeof *window);
  window->base_bytes = disk->extent;
  window->base = need(malloc(disk->extent + 1));
  memcpy(window->base, disk->durable, disk->extent);
  size_t bytes = disk->change_count * sizeof *disk->changes;
  window->changes = need(malloc(bytes + 1));
  if (bytes > 0) memcpy(window->changes, disk->changes, bytes);
  window->change_count = disk->change_count;
  memcpy(window->sizes, disk->sizes, sizeof window->sizes);
  window->size_count = disk->size_count;
  window->promised = disk->promised;
  window->done = disk->done;
  pthread_mutex_unlock(&recorder);
}

/* All dirty pages are on the medium. */
static void settle(struct disk *disk) {
  size_t kept = 0;
  for (size_t i = 0; i < disk->change_count; i++) {
    uint64_t sector = disk->changes[i].sector;
    if (disk->is_dirty[sector / SECTORS_PER_PAGE]) continue;
    if (kept != i) disk->changes[kept] = disk->changes[i];
    kept++;
  }
  disk->change_count = kept;
  for (uint64_t page = 0; page < disk->extent / DISK_PAGE_BYTES; page++)
    if (disk->is_dirty[page])
      memcpy(disk->durable + page * DISK_PAGE_BYTES,
             disk->cache + page * DISK_PAGE_BYTES, DISK_PAGE_BYTES);
  disk->sizes[0] = disk->sizes[disk->size_count - 1];
  disk->size_count = 1;
}

/* ---- The hooks ----------------------------------------------------------- */

#ifdef MMCMAP_DEBUG_CHECKS
static void at_point(const char *point) {
  (void)point;
  if (recording != NULL) look(recording);
}
#endif

static int disk_open(const char *path, int flags, mode_t mode) {
  int fd = real.open(path, flags, mode);
  size_t size = strlen(recording->path);
  /* The lock file is lost with the machine. */
  if (fd >= 0 && strncmp(path, recording->path, size) == 0 &&
      strcmp(path + size, "-lock") != 0 && (flags & O_ACCMODE) == O_RDWR)
    watch_file(recording, fd);
  return fd;
}

static ssize_t disk_pwrite(int fd, const void *data, size_t size,
                           off_t offset) {
  pthread_mutex_lock(&recorder);
  look(recording);
  ssize_t n = real.pwrite(fd, data, size, offset);
  int failure = errno;
  look(recording);
  /* Written again, even if the bytes are the same. */
  for (off_t at = offset; n > 0 && at < offset + n;
       at = at / DISK_PAGE_BYTES * DISK_PAGE_BYTES + DISK_PAGE_BYTES)
    recording->is_dirty[at / DISK_PAGE_BYTES] = true;
  pthread_mutex_unlock(&recorder);
  errno = failure;
  return n;
}

static int disk_fdatasync(int fd) {
  (void)fd; /* the real disk is no part of this */
  pthread_mutex_lock(&recorder);
  bool fails = recording->fails_next;
  disk_cut(recording);
  recording->fails_next = false;
  if (!fails) settle(recording);
  memset(recording->is_dirty, 0, sizeof recording->is_dirty);
  pthread_mutex_unlock(&recorder);
  errno = EIO;
  return fails ? -1 : 0;
}

/* Of the first `size` bytes of the file: nothing else is synced that way. */
static int disk_msync(void *at, size_t size, int flags) {
  static bool others[PAGES_MAX];
  (void)at, (void)flags;
  pthread_mutex_lock(&recorder);
  bool fails = recording->fails_next;
  size_t pages = size / DISK_PAGE_BYTES;
  uint64_t sizes[DISK_SIZES_MAX];
  disk_cut(recording);
  recording->fails_next = false;
  memcpy(others, recording->is_dirty, sizeof others);
  memset(others, 0, pages * sizeof others[0]);
  memset(recording->is_dirty + pages, 0,
         (PAGES_MAX - pages) * sizeof recording->is_dirty[0]);
  int size_count = recording->size_count;
  memcpy(sizes, recording->sizes, sizeof sizes);
  if (!fails) settle(recording);
  memcpy(recording->sizes, sizes, sizeof sizes);
  recording->size_count = size_count;
  memcpy(recording->is_dirty, others, sizeof others);
  pthread_mutex_unlock(&recorder);
  errno = EIO;
  return fails ? -1 : 0;
}

static int disk_fsync(int fd) {
  (void)fd; /* of the folder */
  return 0;
}

static int disk_ftruncate(int fd, off_t size) {
  look(recording);
  int result = real.ftruncate(fd, size);
  look(recording);
  return result;
}

static int disk_fallocate(int fd, int mode, off_t offset, off_t size) {
  look(recording);
  int result = real.fallocate(fd, mode, offset, size);
  int failure = errno;
  look(recording);
  errno = failure;
  return result;
}

/* ---- Recording ----------------------------------------------------------- */

struct disk *disk_start(const char *path) {
  struct disk *disk = need(calloc(1, sizeof *disk));
  snprintf(disk->path, sizeof disk->path, "%s", path);
  disk->fd = -1;
  disk->cache = need(calloc(1, DISK_BYTES_MAX));
  disk->durable = need(calloc(1, DISK_BYTES_MAX));
  disk->size_count = 1;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    watch_file(disk, fd);
    close(fd);
    memset(disk->is_dirty, 1, sizeof disk->is_dirty);
    settle(disk);
    memset(disk->is_dirty, 0, sizeof disk->is_dirty);
  }
  recording = disk;
  real = os_calls;
  os_calls.open = disk_open;
  os_calls.pwrite = disk_pwrite;
  os_calls.fdatasync = disk_fdatasync;
  os_calls.msync = disk_msync;
  os_calls.fsync = disk_fsync;
  os_calls.ftruncate = disk_ftruncate;
  os_calls.fallocate = disk_fallocate;
#ifdef MMCMAP_DEBUG_CHECKS
  testing_hook = at_point;
#endif
  return disk;
}

void disk_note(struct disk *disk, int promised, int done) {
  disk->promised = promised;
  disk->done = done;
}

void disk_fail_next_sync(struct disk *disk) { disk->fails_next = true; }

void disk_stop(struct disk *disk) {
  if (recording != disk) return;
#ifdef MMCMAP_DEBUG_CHECKS
  testing_hook = NULL;
#endif
  os_calls = real;
  recording = NULL;
  if (disk->fd >= 0) close(disk->fd);
  if (disk->view != NULL) munmap((void *)(uintptr_t)disk->view, DISK_BYTES_MAX);
  disk->fd = -1;
  disk->view = NULL;
}

void disk_free(struct disk *disk) {
  disk_stop(disk);
  for (size_t i = 0; i < disk->window_count; i++) {
    free(disk->windows[i].base);
    free(disk->windows[i].changes);
  }
  free(disk->windows);
  free(disk->changes);
  free(disk->cache);
  free(disk->durable);
  free(disk);
}

size_t disk_window_count(const struct disk *disk) { return disk->window_count; }

const struct disk_window *disk_window_at(const struct disk *disk,
                                         size_t index) {
  return &disk->windows[index];
}
