/* SPDX-License-Identifier: MIT */
/*
 * Opening, closing, the registry, and what happens around fork().
 */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "maint/create.h"

/* How often an opener tries again that others are in the way of: at distances
   that differ, or two could meet for ever. */
enum { RETRY_MS = 2, RETRY_SPREAD_MS = 8 };

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct store *registry;

/* ---- fork ---------------------------------------------------------------- */

static void before_fork(void) {
  pthread_mutex_lock(&registry_mutex);
  readers_fork_prepare();
}

static void after_fork_in_parent(void) {
  readers_fork_done();
  pthread_mutex_unlock(&registry_mutex);
}

/* The child lets go of the locks at once: they belong to the open file
   descriptions, and would outlive the parent. */
static void after_fork_in_child(void) {
  for (struct store *store = registry; store != NULL; store = store->next) {
    if (BROKEN(BREAK_KEEP_FORKED)) continue;
    file_close(store->fd);
    share_drop_locks(&store->share);
    store->fd = store->superblocks.fd = store->space.fd = -1;
  }
  registry = NULL;
  readers_fork_done();
  pthread_mutex_unlock(&registry_mutex);
}

/* ---- Opening ------------------------------------------------------------- */

/* Opens the file, or begins one if it is not there and that was asked for: it
   gets its name when the lock is had (make_file() in attach.c). */
static int open_file(struct store *store, const char *path,
                     const mmcmap_options *options) {
  int code = MMCMAP_ENOENT;
  store->fd = -1;
  if (!options->exclusive)
    code = file_open(path, options->readonly, &store->fd);
  if (code == MMCMAP_OK) {
    code = file_real_path(path, &store->path);
    return code == MMCMAP_ENOENT
               ? error_set(MMCMAP_EBUSY, "the file was removed while opening")
               : code;
  }
  if (code != MMCMAP_ENOENT || !options->create || options->readonly)
    return code;
  code = file_real_path_of_new(path, !options->exclusive, &store->path);
  if (code == MMCMAP_OK)
    code =
        create_begin(store->path, options->mode, &store->temporary, &store->fd);
  return code;
}

static int set_lock_path(struct store *store) {
  size_t size = strlen(store->path) + sizeof "-lock";
  store->lock_path = malloc(size);
  if (store->lock_path == NULL) return error_set(MMCMAP_ENOMEM, "path");
  snprintf(store->lock_path, size, "%s-lock", store->path);
  return MMCMAP_OK;
}

static int check_network(const struct store *store,
                         const mmcmap_options *options) {
  bool is_network;
  int code = file_is_network(store->fd, &is_network);
  if (code == MMCMAP_OK && is_network && !options->allow_network)
    code = error_set(MMCMAP_ENOTSUP, "network file system");
  return code;
}

static int open_store(const char *path, const mmcmap_options *options,
                      const struct store_internals *internals,
                      struct store **store_out) {
  struct store *store = calloc(1, sizeof *store);
  if (store == NULL) return error_set(MMCMAP_ENOMEM, "store");
  store->share.fd = -1;
  store->internals = *internals;
  store->is_readonly = options->readonly;
  store->has_lock = options->lock;
  store->fork_generation = process_fork_generation();
  int code = open_file(store, path, options);
  if (code == MMCMAP_OK) code = check_network(store, options);
  if (code == MMCMAP_OK) code = file_identify(store->fd, &store->identity);
  if (code == MMCMAP_OK) code = set_lock_path(store);
  if (code == MMCMAP_OK) code = store_attach(store, options);
  if (code == MMCMAP_OK) {
    free(store->temporary);
    store->temporary = NULL;
    *store_out = store;
    return MMCMAP_OK;
  }
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  (void)store_detach(store, true, 0);
  if (store->temporary != NULL) (void)file_unlink(store->temporary);
  free(store->temporary);
  free(store);
  error_restore(&failure);
  return code;
}

/* ---- The registry -------------------------------------------------------- */

/* An open store of that file that will do, if this process has one; the mutex
   is held. */
static struct store *find_open(const struct file_identity *identity,
                               const mmcmap_options *options) {
  struct store *store = registry;
  while (store != NULL &&
         (memcmp(&store->identity, identity, sizeof *identity) != 0 ||
          (store->is_readonly && !options->readonly) ||
          (!store->has_lock && options->lock)))
    store = store->next;
  return store;
}

/* One try, without waiting for other processes; the mutex is held. */
static int try_acquire(const char *path, const mmcmap_options *options,
                       const struct store_internals *internals,
                       struct store **store_out) {
  struct file_identity identity;
  struct store *store = NULL;
  bool is_there = file_identify_path(path, &identity) == MMCMAP_OK;
  if (is_there && options->exclusive)
    return error_set(MMCMAP_EEXIST, "exclusive");
  if (is_there) store = find_open(&identity, options);
  if (store == NULL) {
    int code = open_store(path, options, internals, &store);
    if (code != MMCMAP_OK) return code;
    store->next = registry;
    registry = store;
  }
  store->handle_count++;
  *store_out = store;
  return MMCMAP_OK;
}

static void pause_before_retry(void) {
  uint32_t spread = (uint32_t)(process_monotonic_ns() / 1000 % RETRY_SPREAD_MS);
  process_sleep_ms(RETRY_MS + spread);
}

int store_acquire(const char *path, const mmcmap_options *options,
                  const struct store_internals *internals,
                  struct store **store_out) {
  *store_out = NULL;
  int code = process_watch_forks(before_fork, after_fork_in_parent,
                                 after_fork_in_child);
  if (code != MMCMAP_OK) return code;
  uint64_t end_ns =
      process_monotonic_ns() + options->timeout_ms * UINT64_C(1000000);
  for (;;) {
    pthread_mutex_lock(&registry_mutex);
    code = try_acquire(path, options, internals, store_out);
    pthread_mutex_unlock(&registry_mutex);
    if (code != MMCMAP_EBUSY || process_monotonic_ns() >= end_ns) return code;
    pause_before_retry();
  }
}

/* A parent's store whose handles, snapshots and transactions in this process are
   gone. */
static void free_inherited(struct store *store) {
  if (store->handle_count > 0 || atomic_load(&store->child_count) > 0) return;
  store_forget(store);
  if (!store->is_ghost) free(store);
}

/* Frees an open store of ours, whose parts have been given back. */
static void free_store(struct store *store) {
  while (store->ghosts != NULL) {
    struct store *ghost = store->ghosts;
    store->ghosts = ghost->next;
    ghost->is_ghost = false;
    free_inherited(ghost);
  }
  free(store);
}

/* One try; the mutex is held. */
static int try_reconnect(struct store *_Atomic *cell,
                         const mmcmap_options *options) {
  struct store *inherited = atomic_load(cell);
  struct store *store;
  if (store_is_ours(inherited)) return MMCMAP_OK; /* another thread did it */
  mmcmap_options again = *options;
  again.create = again.exclusive = false;
  int code =
      try_acquire(inherited->path, &again, &inherited->internals, &store);
  if (code == MMCMAP_ENOENT)
    return error_set(MMCMAP_EFORK, "the file was removed after fork()");
  if (code != MMCMAP_OK) return code;
  if (memcmp(&store->identity, &inherited->identity, sizeof store->identity) !=
      0) {
    store->handle_count--;
    if (store->handle_count == 0) {
      registry = store->next;
      (void)store_detach(store, false, options->timeout_ms);
      free_store(store);
    }
    return error_set(MMCMAP_EFORK, "the file was replaced after fork()");
  }
  atomic_store(cell, store);
  /* Another thread may have loaded the cell before, and look at the old one's
     generation: it stays until the handle's store is closed. */
  inherited->handle_count--;
  if (!inherited->is_ghost) {
    inherited->is_ghost = true;
    inherited->next = store->ghosts;
    store->ghosts = inherited;
  }
  free_inherited(inherited);
  return MMCMAP_OK;
}

int store_reconnect(struct store *_Atomic *cell,
                    const mmcmap_options *options) {
  uint64_t end_ns =
      process_monotonic_ns() + options->timeout_ms * UINT64_C(1000000);
  for (;;) {
    pthread_mutex_lock(&registry_mutex);
    int code = try_reconnect(cell, options);
    pthread_mutex_unlock(&registry_mutex);
    if (code != MMCMAP_EBUSY || process_monotonic_ns() >= end_ns) return code;
    pause_before_retry();
  }
}

void store_hold_handle(struct store *store) {
  pthread_mutex_lock(&registry_mutex);
  store->handle_count++;
  pthread_mutex_unlock(&registry_mutex);
}

int store_release(struct store *store, bool discard, uint32_t timeout_ms) {
  int code = MMCMAP_OK;
  pthread_mutex_lock(&registry_mutex);
  store->handle_count--;
  if (!store_is_ours(store)) {
    free_inherited(store);
  } else if (store->handle_count == 0) {
    struct store **link = &registry;
    while (*link != store)
      link = &(*link)->next;
    *link = store->next;
    code = store_detach(store, discard, timeout_ms);
    free_store(store);
  }
  pthread_mutex_unlock(&registry_mutex);
  return code;
}

void store_hold_child(struct store *store) {
  atomic_fetch_add(&store->child_count, 1);
}

void store_drop_child(struct store *store) {
  atomic_fetch_sub(&store->child_count, 1);
  if (store_is_ours(store)) return;
  pthread_mutex_lock(&registry_mutex);
  free_inherited(store);
  pthread_mutex_unlock(&registry_mutex);
}

/* With the registry's mutex and the opening lock. */
static int unlink_both(struct store *store, const char *path) {
  struct file_identity identity;
  bool is_alone;
  char *real = NULL;
  int code = store_is_alone(store, &is_alone);
  if (code == MMCMAP_OK && !is_alone)
    code = error_set(MMCMAP_EBUSY, "another process has it open");
  if (code == MMCMAP_OK) code = file_identify_path(path, &identity);
  if (code == MMCMAP_OK &&
      memcmp(&identity, &store->identity, sizeof identity) != 0)
    code = error_set(MMCMAP_ENOENT, "the path names another file");
  /* By a link, too: the store is what is removed. */
  if (code == MMCMAP_OK) code = file_real_path(path, &real);
  if (code == MMCMAP_OK) code = file_unlink(real);
  free(real);
  /* The name is gone, so this has not failed; a power cut may bring it back. */
  if (code != MMCMAP_OK) return code;
  share_unlink(&store->share, store->lock_path);
  (void)file_sync_folder_of(store->path);
  return MMCMAP_OK;
}

int store_unlink(struct store *store, const char *path) {
  pthread_mutex_lock(&registry_mutex);
  int code = MMCMAP_OK;
  if (store->handle_count > 1 || atomic_load(&store->child_count) > 0)
    code = error_set(MMCMAP_EBUSY, "other handles, snapshots or transactions");
  if (code == MMCMAP_OK) code = share_begin_opening(&store->share, 0);
  if (code == MMCMAP_OK) {
    code = unlink_both(store, path);
    share_end_opening(&store->share);
  }
  pthread_mutex_unlock(&registry_mutex);
  return code;
}
