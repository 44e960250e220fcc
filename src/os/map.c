/* SPDX-License-Identifier: MIT */
/*
 * Views of a file. Mapping more than the file holds costs address space only,
 * so one mmap() per view both reserves the range and maps the file; what is
 * added to the file appears there by itself. All views of a mapping are
 * granted, or none.
 */
#include "os/map.h"

#include <errno.h>
#include <stdatomic.h>
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

/* The addresses of a process on most 64-bit systems; where there are fewer, ranges
   are not granted. */
#define MAP_ADDRESSES (UINT64_C(1) << 47)

/* The default range is halved for each of these that is taken: since twice as many
   files take one more of them, 4,000 take three quarters of all addresses. */
#define MAP_STEP_BYTES (UINT64_C(8) << 40)

enum {
  MAP_FULL_STEPS = 1, /* taken before the first halving */
  MAP_HALVINGS = 10
};

/* What all mappings of this process take. A forked child inherits them. */
static _Atomic uint64_t map_taken_bytes;

uint64_t map_default_bytes(void) {
  uint64_t steps = atomic_load(&map_taken_bytes) / MAP_STEP_BYTES;
  uint64_t halvings = steps > MAP_FULL_STEPS ? steps - MAP_FULL_STEPS : 0;
  if (halvings > MAP_HALVINGS) halvings = MAP_HALVINGS;
  return MAP_SIZE_MAX_BYTES >> halvings;
}

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

/* The largest view that leaves the host program room: under its RLIMIT_AS, or with
   all addresses beside what our other mappings take. */
static uint64_t map_fair_bytes(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    uint64_t taken = atomic_load(&map_taken_bytes);
    return taken < MAP_ADDRESSES ? (MAP_ADDRESSES - taken) / 32 : 0;
  }
  uint64_t used = map_used_bytes();
  return limit.rlim_cur > used ? (limit.rlim_cur - used) / 4 : 0;
}

static uint64_t map_half(uint64_t size, uint64_t least) {
  uint64_t half = size / 2 / process_page_size() * process_page_size();
  return half > least ? half : least;
}

/* What a mapping consists of. */
enum map_kind {
  MAP_READ_VIEW,
  MAP_TWO_VIEWS,
  MAP_ONE_VIEW, /* for reading and writing */
};

/* mmap() at any address; NULL and errno if it is not granted. */
static void *map_bytes(int fd, uint64_t offset, uint64_t size, int protection,
                       int flags) {
  if (size > SIZE_MAX / 2) {
    errno = ENOMEM;
    return NULL;
  }
  void *at =
      os_calls.mmap(NULL, (size_t)size, protection, flags, fd, (off_t)offset);
  if (at == MAP_FAILED) return NULL;
  atomic_fetch_add(&map_taken_bytes, size);
  return at;
}

static void unmap_bytes(void *at, uint64_t size) {
  os_calls.munmap(at, (size_t)size);
  atomic_fetch_sub(&map_taken_bytes, size);
}

static void *map_view(int fd, uint64_t offset, uint64_t size, int protection) {
  void *at =
      map_bytes(fd, offset, size, protection, MAP_SHARED | MAP_NORESERVE);
  /* Where the page cache holds large pieces of the file, one entry of the
     processor's page tables will do for each. Without it all is as well. */
  if (at != NULL) os_calls.madvise(at, (size_t)size, MADV_HUGEPAGE);
  return at;
}

/* All views of `size` bytes, or none and the errno. */
static int map_views(int fd, enum map_kind kind, uint64_t offset, uint64_t size,
                     struct map *map_out) {
  struct map map = {NULL, NULL, size};

  if (kind == MAP_ONE_VIEW) {
    map.write = map_view(fd, offset, size, PROT_READ | PROT_WRITE);
    if (map.write == NULL) return errno;
    map.read = map.write;
    *map_out = map;
    return 0;
  }

  map.read = map_view(fd, offset, size, PROT_READ);
  if (map.read == NULL) return errno;
  if (kind == MAP_TWO_VIEWS) {
    map.write = map_view(fd, offset, size, PROT_READ | PROT_WRITE);
    if (map.write == NULL) {
      int failure = errno;
      map_close(&map);
      return failure;
    }
  }
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

/* The largest views from `wanted` down to `least` that are granted. */
static int map_largest(int fd, enum map_kind kind, uint64_t offset,
                       uint64_t wanted, uint64_t least, struct map *map_out) {
  uint64_t fair = map_fair_bytes();
  uint64_t size = wanted;

  *map_out = (struct map){NULL, NULL, 0};
  while (size > fair && size > least)
    size = map_half(size, least);

  for (;;) {
    int failure = map_views(fd, kind, offset, size, map_out);
    if (failure == 0) return MMCMAP_OK;
    if (!map_not_granted(failure)) return error_set_errno(failure, "mmap");
    if (size <= least) return error_set(MMCMAP_EADDRESS, "mmap");
    size = map_half(size, least);
  }
}

int map_open(int fd, bool writable, uint64_t wanted_bytes, uint64_t least_bytes,
             struct map *map_out) {
#ifdef MMCMAP_ONE_VIEW
  enum map_kind kind_of_writable = MAP_ONE_VIEW;
#else
  enum map_kind kind_of_writable = MAP_TWO_VIEWS;
#endif
  return map_largest(fd, writable ? kind_of_writable : MAP_READ_VIEW, 0,
                     wanted_bytes, least_bytes, map_out);
}

int map_open_shared(int fd, uint64_t offset, uint64_t wanted_bytes,
                    uint64_t least_bytes, uint8_t **at_out,
                    uint64_t *size_out) {
  struct map map;
  int code =
      map_largest(fd, MAP_ONE_VIEW, offset, wanted_bytes, least_bytes, &map);
  *at_out = map.write;
  *size_out = map.size_bytes;
  return code;
}

int map_anonymous(uint64_t size, uint8_t **at_out) {
  *at_out = map_bytes(-1, 0, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS);
  if (*at_out != NULL) return MMCMAP_OK;
  int failure = errno;
  return error_set_errno(map_not_granted(failure) ? ENOMEM : failure, "mmap");
}

void map_close_shared(uint8_t *at, uint64_t size) {
  if (at != NULL) unmap_bytes(at, size);
}

void map_close(struct map *map) {
  uint8_t *read = (uint8_t *)(uintptr_t)map->read;
  if (map->write != NULL && map->write != read)
    unmap_bytes(map->write, map->size_bytes);
  if (read != NULL) unmap_bytes(read, map->size_bytes);
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

int map_sync(const struct map *map, uint64_t offset, uint64_t size) {
  if (os_calls.msync(map->write + offset, (size_t)size, MS_SYNC) != 0)
    return error_set_errno(errno, "msync");
  return MMCMAP_OK;
}
