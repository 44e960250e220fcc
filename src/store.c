/* SPDX-License-Identifier: MIT */
/*
 * Opening, closing, the registry, and what happens around fork().
 *
 * Opening takes the file's lock, makes the file if need be, chooses a
 * superblock, maps the file, rolls forward, and wires the layers to the state
 * that comes out. It writes nothing: the first change starts a session.
 */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "maint/create.h"
#include "os/lock.h"

/* How often the lock of another process is tried. */
enum { LOCK_RETRY_MS = 5 };

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
   description, and would outlive the parent. */
static void after_fork_in_child(void) {
  for (struct store *store = registry; store != NULL; store = store->next) {
    file_close(store->fd);
    store->fd = store->superblocks.fd = store->space.fd = -1;
  }
  registry = NULL;
  readers_fork_done();
  pthread_mutex_unlock(&registry_mutex);
}

/* ---- Opening ------------------------------------------------------------- */

static int start_session(void *context) {
  struct store *store = context;
  struct node_source source = space_source(&store->space);
  int code = recovery_rewrite(store->fd, &source,
                              superblocks_offset(store->superblocks.place),
                              &store->recovered);
  if (code == MMCMAP_OK)
    code =
        commit_start_session(&store->committer, store->recovered.state.heads);
  if (code == MMCMAP_OK) recovered_forget(&store->recovered);
  return code;
}

/* Waits neither for the lock nor for anything else: MMCMAP_EBUSY. */
static int open_existing(const char *path, const mmcmap_options *options,
                         const struct create_options *create, int *fd_out) {
  bool is_network, is_unfinished;
  struct file_identity by_fd, by_path;
  int fd;
  *fd_out = -1;
  int code = file_open(path, options->readonly, &fd);
  if (code != MMCMAP_OK) return code;
  code = file_is_network(fd, &is_network);
  if (code == MMCMAP_OK && is_network)
    code = error_set(MMCMAP_ENOTSUP, "network file system");
  if (code == MMCMAP_OK && options->lock)
    code = lock_try(fd, STORE_LOCK_OFFSET,
                    options->readonly ? LOCK_SHARED : LOCK_EXCLUSIVE);
  /* The name may have been given to another file while we came to the lock. */
  if (code == MMCMAP_OK) code = file_identify(fd, &by_fd);
  if (code == MMCMAP_OK) code = file_identify_path(path, &by_path);
  if (code == MMCMAP_OK && memcmp(&by_fd, &by_path, sizeof by_fd) != 0)
    code = error_set(MMCMAP_EBUSY, "the file was replaced while opening");
  if (code == MMCMAP_OK && !options->readonly && options->create) {
    code = create_is_unfinished(fd, &is_unfinished);
    if (code == MMCMAP_OK && is_unfinished) code = create_in_place(fd, create);
  }
  if (code != MMCMAP_OK) {
    file_close(fd);
    return code;
  }
  *fd_out = fd;
  return MMCMAP_OK;
}

/* Opens the file, or makes it if that was asked for. */
static int open_file(const char *path, const mmcmap_options *options,
                     const struct store_internals *internals, int *fd_out) {
  struct create_options create = {.hash = options->hash,
                                  .mode = options->mode,
                                  .segment_size = internals->segment_size};
  int code = MMCMAP_ENOENT;
  if (!options->exclusive) code = open_existing(path, options, &create, fd_out);
  if (code != MMCMAP_ENOENT || !options->create || options->readonly)
    return code;
  code = create_file(path, &create, STORE_LOCK_OFFSET, fd_out);
  /* Somebody else was faster: the next try finds that file. */
  if (code == MMCMAP_EEXIST && !options->exclusive)
    return error_set(MMCMAP_EBUSY, "another process makes the file");
  return code;
}

static void close_parts(struct store *store) {
  if (store->committer.writer != NULL) {
    flusher_destroy(&store->flusher);
    writer_destroy(&store->writer);
  }
  readers_destroy(&store->readers);
  recovered_forget(&store->recovered);
  if (store->space.segment_size != 0)
    thread_mutex_destroy(&store->space.growth);
  map_close(&store->space.map);
  if (store->fd >= 0) file_close(store->fd);
  free(store);
}

/* The threads' parts; they are destroyed together, so all or none. */
static int init_threads(struct store *store) {
  int code = writer_init(&store->writer, &store->space, &store->readers,
                         &store->hasher, &store->live);
  if (code != MMCMAP_OK) return code;
  store->writer.start = start_session;
  store->writer.start_context = store;
  committer_init(&store->committer, &store->writer, &store->superblocks);
  code = flusher_init(&store->flusher, &store->committer);
  if (code == MMCMAP_OK) return code;
  writer_destroy(&store->writer);
  store->committer.writer = NULL;
  return code;
}

static int map_file(struct store *store, uint64_t file_bytes,
                    uint64_t max_size_bytes) {
  uint64_t page = process_page_size();
  uint64_t least = bytes_align_up(file_bytes, page);
  uint64_t wanted = MAP_SIZE_MAX_BYTES;
  if (max_size_bytes != 0 && max_size_bytes < wanted)
    wanted = bytes_align_up(max_size_bytes, page);
  /* A store that is only read does not grow, but its writer may be another
     handle's future: the range is the same. */
  if (wanted < least) wanted = least;
  int code = map_open(store->fd, !store->is_readonly, wanted, least,
                      &store->space.map);
  atomic_store(&store->space.size_bytes, file_bytes);
  return code;
}

/* Installs what recovery found. */
static void install_state(struct store *store, unsigned place) {
  const struct superblock *state = &store->recovered.state;
  store->superblocks.fd = store->fd;
  store->superblocks.current = *state;
  store->superblocks.place = place;
  /* Whoever wrote it may have been killed before the sync. */
  store->superblocks.is_synced = BROKEN(BREAK_NO_REWRITE);
  store->space.fd = store->fd;
  store->space.segment_count = state->segment_count;
  atomic_store(&store->live.root, state->root);
  atomic_store(&store->live.count, state->count);
  atomic_store(&store->live.open_epoch, state->next_epoch);
  atomic_store(&store->live.changed_epoch, state->epoch);
  atomic_store(&store->live.durable_epoch, state->epoch);
}

static int load(struct store *store, const mmcmap_options *options,
                const struct store_internals *internals) {
  uint64_t file_bytes;
  struct superblock superblock;
  unsigned place;
  int code = file_size(store->fd, &file_bytes);
  if (code == MMCMAP_OK)
    code = recovery_choose_superblock(store->fd, file_bytes, store->is_readonly,
                                      &superblock, &place);
  if (code == MMCMAP_OK)
    code = hasher_init(&store->hasher, superblock.hash, superblock.secret);
  if (code != MMCMAP_OK) return code;
  store->hasher.primary_mask = internals->primary_mask;
  store->hasher.secondary_mask = internals->secondary_mask;
  code = thread_mutex_init(&store->space.growth);
  if (code != MMCMAP_OK) return code;
  store->space.segment_size = superblock.segment_size;
  store->space.max_size_bytes = options->max_size_bytes;
  memcpy(store->space.file_id, superblock.file_id, SUPERBLOCK_FILE_ID_BYTES);
  code = map_file(store, file_bytes, options->max_size_bytes);
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&store->space);
  code = recovery_roll_forward(&source, &store->hasher, &superblock,
                               &store->recovered);
  if (code == MMCMAP_OK) install_state(store, place);
  return code;
}

/* Opens the store behind `fd`, which it takes over. */
static int open_store(int fd, const mmcmap_options *options,
                      const struct store_internals *internals,
                      struct store **store_out) {
  struct store *store = calloc(1, sizeof *store);
  if (store == NULL) {
    file_close(fd);
    return error_set(MMCMAP_ENOMEM, "store");
  }
  store->fd = fd;
  store->is_readonly = options->readonly;
  store->has_lock = options->lock;
  store->fork_generation = process_fork_generation();
  int code = file_identify(fd, &store->identity);
  if (code == MMCMAP_OK) code = load(store, options, internals);
  if (code == MMCMAP_OK) code = readers_init(&store->readers);
  if (code == MMCMAP_OK) code = init_threads(store);
  if (code != MMCMAP_OK) {
    close_parts(store);
    return code;
  }
  *store_out = store;
  return MMCMAP_OK;
}

/* ---- The registry -------------------------------------------------------- */

/* The open store behind `path`, if this process has it; the mutex is held. */
static struct store *find_open(const char *path) {
  struct file_identity identity;
  if (file_identify_path(path, &identity) != MMCMAP_OK) return NULL;
  struct store *store = registry;
  while (store != NULL &&
         memcmp(&store->identity, &identity, sizeof identity) != 0)
    store = store->next;
  return store;
}

static int share_store(struct store *store, const mmcmap_options *options) {
  if (options->exclusive) return error_set(MMCMAP_EEXIST, "exclusive");
  if (store->is_readonly && !options->readonly)
    return error_set(MMCMAP_EBUSY, "open read-only in this process");
  /* Another process may have written since, and may write now. */
  if (options->lock && !store->has_lock)
    return error_set(MMCMAP_EBUSY, "open without a lock in this process");
  store->handle_count++;
  return MMCMAP_OK;
}

/* One try, without waiting for other processes. */
static int try_acquire(const char *path, const mmcmap_options *options,
                       const struct store_internals *internals,
                       struct store **store_out) {
  int fd;
  pthread_mutex_lock(&registry_mutex);
  struct store *store = find_open(path);
  int code;
  if (store != NULL) {
    code = share_store(store, options);
  } else {
    code = open_file(path, options, internals, &fd);
    if (code == MMCMAP_OK) code = open_store(fd, options, internals, &store);
    if (code == MMCMAP_OK) {
      store->handle_count = 1;
      store->next = registry;
      registry = store;
    }
  }
  pthread_mutex_unlock(&registry_mutex);
  if (code == MMCMAP_OK) *store_out = store;
  return code;
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
    code = try_acquire(path, options, internals, store_out);
    if (code != MMCMAP_EBUSY || process_monotonic_ns() >= end_ns) return code;
    process_sleep_ms(LOCK_RETRY_MS);
  }
}

/* Commits and leaves the file as a clean one. */
static int finish_session(struct store *store) {
  int code = commit_all(&store->committer);
  if (code != MMCMAP_OK) return code;
  /* Nobody else has the file mapped: its end may come down. */
  code = space_trim(&store->space, log_end(&store->writer.log));
  if (code != MMCMAP_OK) return code;
  return commit_end_session(&store->committer);
}

int store_release(struct store *store, bool discard) {
  int code = MMCMAP_OK;
  if (!store_is_ours(store)) {
    /* The flusher's thread and the descriptor are the parent's. */
    if (--store->handle_count == 0) {
      log_destroy(&store->writer.log);
      readers_destroy(&store->readers);
      recovered_forget(&store->recovered);
      map_close(&store->space.map);
      free(store);
    }
    return MMCMAP_OK;
  }
  pthread_mutex_lock(&registry_mutex);
  if (--store->handle_count == 0) {
    struct store **link = &registry;
    while (*link != store)
      link = &(*link)->next;
    *link = store->next;
    flusher_stop(&store->flusher);
    if (store->writer.started && !discard) code = finish_session(store);
    close_parts(store);
  }
  pthread_mutex_unlock(&registry_mutex);
  return code;
}

int store_unlink(struct store *store, const char *path) {
  struct file_identity identity;
  pthread_mutex_lock(&registry_mutex);
  int code = MMCMAP_OK;
  if (store->handle_count > 1 || atomic_load(&store->snapshot_count) > 0)
    code = error_set(MMCMAP_EBUSY, "other handles or snapshots are open");
  if (code == MMCMAP_OK) code = file_identify_path(path, &identity);
  if (code == MMCMAP_OK &&
      memcmp(&identity, &store->identity, sizeof identity) != 0)
    code = error_set(MMCMAP_ENOENT, "the path names another file");
  if (code == MMCMAP_OK) code = file_unlink(path);
  /* The name is gone, so this has not failed; a power cut may bring it back. */
  if (code == MMCMAP_OK) (void)file_sync_folder_of(path);
  pthread_mutex_unlock(&registry_mutex);
  return code;
}
