/* SPDX-License-Identifier: MIT */
/*
 * The two views of a data file. Mapping more than the file holds costs address
 * space only, so one mmap() per view both reserves the range and maps the
 * file; what is added to the file appears there by itself. Both views are
 * granted, or neither.
 */
#include "os/map.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/errors.h"
#include "os/calls.h"
#include "os/process.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Bytes of address space that this process uses now; 0 if unknown. */
static uint64_t map_used_bytes(void) {
  char text[64];
  int fd = os_calls.open("/proc/self/statm", O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return 0;
  ssize_t n = os_calls.pread(fd, text, sizeof text - 1, 0);
  os_calls.close(fd);
  if (n <= 0) return 0;
  text[n] = '\0';
  return strtoull(text, NULL, 10) * process_page_size();
}

/* The largest view that leaves the host program room under its RLIMIT_AS. */
static uint64_t map_fair_bytes(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return UINT64_MAX;
  uint64_t used = map_used_bytes();
  return limit.rlim_cur > used ? (limit.rlim_cur - used) / 4 : 0;
}

static uint64_t map_half(uint64_t size, uint64_t least) {
  uint64_t half = size / 2 / process_page_size() * process_page_size();
  return half > least ? half : least;
}

/* One view; NULL and errno if it is not granted. */
static void *map_view(int fd, uint64_t size, int protection) {
  if (size > SIZE_MAX / 2) {
    errno = ENOMEM;
    return NULL;
  }
  void *view = os_calls.mmap(NULL, (size_t)size, protection,
                             MAP_SHARED | MAP_NORESERVE, fd, 0);
  return view == MAP_FAILED ? NULL : view;
}

/* Both views of `size` bytes, or none and the errno. */
static int map_views(int fd, bool writable, uint64_t size,
                     struct map *map_out) {
  struct map map = {NULL, NULL, size};
#ifdef MMCMAP_ONE_VIEW
  uint8_t *both =
      map_view(fd, size, writable ? PROT_READ | PROT_WRITE : PROT_READ);
  if (both == NULL) return errno;
  map.read = both;
  map.write = writable ? both : NULL;
#else
  map.read = map_view(fd, size, PROT_READ);
  if (map.read == NULL) return errno;
  if (writable) {
    map.write = map_view(fd, size, PROT_READ | PROT_WRITE);
    if (map.write == NULL) {
      int failure = errno;
      map_close(&map);
      return failure;
    }
  }
#endif
  *map_out = map;
  return 0;
}

/* True for the answers to a range that is too large, EAGAIN being that of
   mlockall(MCL_FUTURE). */
static bool map_not_granted(int failure) {
  /* EINVAL is how valgrind says that there is no such range. */
  return failure == ENOMEM || failure == EAGAIN || failure == EOVERFLOW ||
         failure == EINVAL;
}

int map_open(int fd, bool writable, uint64_t wanted_bytes, uint64_t least_bytes,
             struct map *map_out) {
  uint64_t fair = map_fair_bytes();
  uint64_t size = wanted_bytes;

  *map_out = (struct map){NULL, NULL, 0};
  while (size > fair && size > least_bytes)
    size = map_half(size, least_bytes);

  for (;;) {
    int failure = map_views(fd, writable, size, map_out);
    if (failure == 0) return MMCMAP_OK;
    if (!map_not_granted(failure)) return error_set_errno(failure, "mmap");
    if (size <= least_bytes) return error_set(MMCMAP_EADDRESS, "mmap");
    size = map_half(size, least_bytes);
  }
}

void map_close(struct map *map) {
  uint8_t *read = (uint8_t *)(uintptr_t)map->read;
  if (map->write != NULL && map->write != read)
    os_calls.munmap(map->write, (size_t)map->size_bytes);
  if (read != NULL) os_calls.munmap(read, (size_t)map->size_bytes);
  *map = (struct map){NULL, NULL, 0};
}

void map_populate(const struct map *map, uint64_t offset, uint64_t size) {
  uint64_t page = process_page_size();
  uint64_t begin = offset / page * page;

  if (map->write == NULL || offset >= map->size_bytes) return;
  if (size > map->size_bytes - offset) size = map->size_bytes - offset;
  /* An older kernel says EINVAL, pages beyond the end of the file EFAULT: the
     pages are then faulted in one by one, as they are written. */
  os_calls.madvise(map->write + begin, (size_t)(offset - begin + size),
                   MADV_POPULATE_WRITE);
}
