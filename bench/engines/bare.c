/* SPDX-License-Identifier: MIT */
/*
 * No store: what the disk does at best. A durable put is a pwrite of 4 KiB and
 * an fdatasync, into a file that was written and synced before.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "../engine.h"

enum { PAGE_BYTES = 4096, PAGES = 16384 };

struct store {
  int fd;
  _Atomic size_t next;
};

static void must_hold(bool condition, const char *what) {
  if (!condition) bench_fail("bare", what, NULL);
}

static void *store_open(const struct setup *setup) {
  struct store *store = bench_new(1, sizeof *store);
  char *path = bench_path(setup->folder, "bare");
  char page[PAGE_BYTES] = {0};
  store->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  must_hold(store->fd >= 0, "open");
  for (int i = 0; i < PAGES; i++)
    must_hold(write(store->fd, page, sizeof page) == PAGE_BYTES, "write");
  must_hold(fsync(store->fd) == 0, "fsync");
  free(path);
  return store;
}

static void store_close(void *context) {
  struct store *store = context;
  must_hold(close(store->fd) == 0, "close");
  free(store);
}

static void *attach(void *store) { return store; }
static void detach(void *session) { (void)session; }

static void put(void *context, struct bytes key, struct bytes value) {
  struct store *store = context;
  char page[PAGE_BYTES] = {0};
  page[0] = *(const char *)key.data;
  page[1] = *(const char *)value.data;
  size_t index = atomic_fetch_add(&store->next, 1) % PAGES;
  must_hold(pwrite(store->fd, page, sizeof page, (off_t)(index * PAGE_BYTES)) ==
                PAGE_BYTES,
            "pwrite");
  must_hold(fdatasync(store->fd) == 0, "fdatasync");
}

const struct engine engine_bare = {
    .name = "bare",
    .about = "pwrite of 4 KiB and fdatasync, no store",
    .traits = ENGINE_BARE | ENGINE_DURABLE | ENGINE_READ_THREADS |
              ENGINE_WRITE_THREADS,
    .open = store_open,
    .close = store_close,
    .attach = attach,
    .detach = detach,
    .put = put,
};
