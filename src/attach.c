/* SPDX-License-Identifier: MIT */
/*
 * Joining and leaving the processes that use a file.
 *
 * All of them hold a shared lock on a byte of the data file, and own a chunk of
 * the reader table in the lock file. Who opens or closes does so alone, under
 * the lock file's opening lock. So an opener can tell:
 *   - somebody owns a chunk, and the lock file is the data file's: it joins;
 *   - nobody owns a chunk and nobody holds the data file's lock: it is the
 *     first, and takes the live state over or recovers;
 *   - anything else: the lock file is not that of those who use the data file,
 *     because somebody has deleted or replaced one of the two.
 *
 * Opening writes nothing to the data file: the first change starts a session.
 */
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "maint/create.h"
#include "maint/takeover.h"
#include "maint/usage_table.h"
#include "os/lock.h"
#include "share/owner_lock.h"
#include "store.h"

/* ---- The session --------------------------------------------------------- */

/* The newest superblock, and the length of the file after it was read: another
   process may make it longer, and then write a superblock that says so; or write
   others, and then make it shorter. */
static int choose_superblock(struct store *store,
                             struct superblock *superblock_out,
                             unsigned *place_out, uint64_t *file_bytes_out) {
  for (uint64_t before = UINT64_MAX;;) {
    int code = recovery_choose_superblock(
        store->fd, UINT64_MAX, store->is_readonly, superblock_out, place_out);
    TEST_POINT("superblock read");
    if (code == MMCMAP_OK) code = file_size(store->fd, file_bytes_out);
    if (code != MMCMAP_OK || superblock_out->used_bytes <= *file_bytes_out)
      return code;
    if (superblock_out->sequence == before)
      return error_set_corrupt("F10 file shorter than used", *file_bytes_out);
    before = superblock_out->sequence;
  }
}

/* Recovery once more, for a process that is about to write the first change but
   was not the one that opened first. */
static int recover_again(struct store *store) {
  struct superblock superblock;
  unsigned place;
  uint64_t file_bytes;
  int code = choose_superblock(store, &superblock, &place, &file_bytes);
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&store->space);
  code = recovery_roll_forward(&source, &store->hasher, &superblock,
                               &store->recovered);
  if (code != MMCMAP_OK) return code;
  store->has_recovered = true;
  const struct share_header *header = store->share.header;
  if (store->recovered.state.epoch !=
          atomic_load(&header->change.changed_epoch) ||
      store->recovered.state.root != atomic_load(&header->live.root))
    return error_set(MMCMAP_ECORRUPT, "the file has changed since opening");
  return MMCMAP_OK;
}

static int start_session(void *context) {
  struct store *store = context;
  struct node_source source = space_source(&store->space);
  int code = store->has_recovered ? MMCMAP_OK : recover_again(store);
  if (code == MMCMAP_OK)
    code = recovery_rewrite(
        store->fd, &source,
        superblocks_offset(superblocks_place(&store->superblocks)),
        &store->recovered);
  if (code == MMCMAP_OK)
    code = commit_start_session(&store->committer, &store->recovered.state);
  if (code == MMCMAP_OK) recovered_forget(&store->recovered);
  return code;
}

/* What is empty is free with the next superblock, and may then be cut off. */
static int free_what_is_empty(struct store *store) {
  struct usage_totals totals;
  int code = writer_enter(&store->writer, OWNER_LOCK_FOREVER);
  if (code != MMCMAP_OK) return code;
  log_sweep(&store->writer.log, &totals);
  writer_leave(&store->writer);
  return totals.wait_commit_count == 0 ? MMCMAP_OK
                                       : commit_superblock(&store->committer);
}

/* Commits and leaves the file as a clean one; nobody else uses it. */
static int finish_session(struct store *store) {
  struct usage_table table;
  /* The lock first: who inherits it may find something to commit. */
  int code = writer_enter(&store->writer, OWNER_LOCK_FOREVER);
  if (code != MMCMAP_OK) return code;
  bool is_started = log_is_started(&store->writer.log);
  writer_leave(&store->writer);
  if (!is_started) return MMCMAP_OK;
  code = commit_all(&store->committer);
  if (code == MMCMAP_OK) code = free_what_is_empty(store);
  /* Without a table all is recounted. */
  if (code == MMCMAP_OK) usage_table_write(&store->writer.log, &table);
  if (code == MMCMAP_OK) code = commit_end_session(&store->committer, &table);
  /* Nobody else has the file mapped: its end may come down. */
  if (code == MMCMAP_OK) code = space_trim(&store->space, table.file_end);
  return code;
}

/* ---- The parts ----------------------------------------------------------- */

/* How long the file may become here, if that is granted. A store that is only read
   does not grow, but its writer may be another process: the range is the same. */
static uint64_t wanted_range(uint64_t least, uint64_t max_size_bytes) {
  uint64_t wanted = MAP_SIZE_MAX_BYTES;
  if (max_size_bytes == 0) {
    wanted = map_default_bytes();
    if (wanted / 2 < least) wanted = 2 * least; /* there is room to grow */
  } else if (max_size_bytes < wanted) {
    wanted = bytes_align_up(max_size_bytes, process_page_size());
  }
  return wanted < least ? least : wanted;
}

/* Maps the file through an open file description of its own: a mapping keeps
   its description, and the locks on it, alive in a forked child. */
static int map_file(struct store *store, uint64_t file_bytes,
                    uint64_t max_size_bytes) {
  struct file_identity identity;
  uint64_t least = bytes_align_up(file_bytes, process_page_size());
  uint64_t wanted = wanted_range(least, max_size_bytes);
  int fd;
  int code = file_open(store->path, store->is_readonly, &fd);
  if (code == MMCMAP_ENOENT)
    return error_set(MMCMAP_EBUSY, "the file was removed while opening");
  if (code != MMCMAP_OK) return code;
  code = file_identify(fd, &identity);
  if (code == MMCMAP_OK &&
      memcmp(&identity, &store->identity, sizeof identity) != 0)
    code = error_set(MMCMAP_EBUSY, "the file was replaced while opening");
  if (code == MMCMAP_OK)
    code = map_open(fd, !store->is_readonly, wanted, least, &store->space.map);
  file_close(fd);
  return code;
}

/* What does not change as long as the store is open: hash, sizes, mapping. */
static int load_constants(struct store *store, const mmcmap_options *options,
                          struct superblock *superblock_out,
                          unsigned *place_out, uint64_t *file_bytes_out) {
  int code =
      choose_superblock(store, superblock_out, place_out, file_bytes_out);
  if (code == MMCMAP_OK)
    code = hasher_init(&store->hasher, superblock_out->hash,
                       superblock_out->secret);
  if (code != MMCMAP_OK) return code;
  store->hasher.primary_mask = store->internals.primary_mask;
  store->hasher.secondary_mask = store->internals.secondary_mask;
  store->superblocks.fd = store->fd;
  store->superblocks.constant = *superblock_out;
  store->superblocks.state = &store->share.header->commit.superblock;
  store->space.fd = store->fd;
  store->space.readers = &store->readers;
  store->space.segment_size = superblock_out->segment_size;
  store->space.segment_shift =
      (unsigned)__builtin_ctz(superblock_out->segment_size);
  store->space.max_size_bytes = options->max_size_bytes;
  memcpy(store->space.file_id, superblock_out->file_id,
         SUPERBLOCK_FILE_ID_BYTES);
  code = map_file(store, *file_bytes_out, options->max_size_bytes);
  if (code == MMCMAP_OK && store->is_shared)
    code = share_map_segments(
        &store->share, store->lock_path,
        (*file_bytes_out >> store->space.segment_shift) + 1,
        (store->space.map.size_bytes >> store->space.segment_shift) + 1);
  return code;
}

static bool do_upkeep(void *context, uint64_t end_ns) {
  struct store *store = context;
  bool more;
  /* As long as there are changes only as much as has to be done. */
  enum share_need least =
      atomic_load(&store->flusher.is_dirty) ? SHARE_NEED_SOON : SHARE_NEED_IDLE;
  int code =
      upkeep_run(&store->upkeep, least, OWNER_LOCK_FOREVER, end_ns, &more);
  return code == MMCMAP_OK && more;
}

static int init_parts(struct store *store) {
  readers_init(&store->readers, &store->share);
  writer_init(&store->writer, &store->space, &store->readers, &store->hasher);
  store->writer.start = start_session;
  store->writer.start_context = store;
  committer_init(&store->committer, &store->writer, &store->superblocks);
  sweep_init(&store->sweep, &store->writer);
  int code = upkeep_init(&store->upkeep, &store->committer);
  if (code == MMCMAP_OK) {
    code = flusher_init(&store->flusher, &store->committer, &store->sweep);
    if (code != MMCMAP_OK) upkeep_destroy(&store->upkeep);
  }
  store->flusher.upkeep = do_upkeep;
  store->flusher.upkeep_context = store;
  store->has_threads = code == MMCMAP_OK;
  if (code != MMCMAP_OK) writer_destroy(&store->writer);
  return code;
}

/* ---- Joining, taking over, recovering ------------------------------------ */

/* Makes what recovery finds the state that is shared. */
static int recover(struct store *store, const struct superblock *superblock,
                   unsigned place, uint64_t file_bytes) {
  space_set_size(&store->space, file_bytes);
  struct node_source source = space_source(&store->space);
  int code = recovery_roll_forward(&source, &store->hasher, superblock,
                                   &store->recovered);
  if (code != MMCMAP_OK) return code;
  store->has_recovered = true;
  const struct superblock *state = &store->recovered.state;
  struct share_header *header = store->share.header;
  atomic_store(&header->was_clean, store->recovered.was_clean);
  atomic_store(&header->recovered_commits, store->recovered.commits);
  /* Whoever wrote it may have been killed before the sync. */
  superblocks_set(&store->superblocks, superblock->sequence, place,
                  BROKEN(BREAK_NO_REWRITE));
  committer_install(&store->committer, state);
  writer_install(&store->writer, state);
  if (!store->is_shared) return MMCMAP_OK;
  return usage_table_install(&store->space, &source, &store->hasher, state);
}

/* Goes on where the dead have left. */
static int take_over(struct store *store, const struct superblock *superblock,
                     unsigned place) {
  struct share_header *header = store->share.header;
  int code = MMCMAP_OK;
  takeover_bury_all(&store->share);
  atomic_store(&header->was_clean, 0);
  atomic_store(&header->recovered_commits, 0);
  /* It may have been written by a leader that died before it said so. */
  superblocks_set(&store->superblocks, superblock->sequence, place, false);
  if (atomic_load(&header->commit.is_syncing) != 0 && !store->is_readonly)
    code = takeover_rewrite(&store->writer.log, store->fd,
                            superblocks_offset(place));
  if (code == MMCMAP_OK) code = readers_join(&store->readers);
  /* Whoever died with the writer lock has left it to be repaired. */
  if (code == MMCMAP_OK) code = writer_enter(&store->writer, 0);
  if (code == MMCMAP_OK) writer_leave(&store->writer);
  return code;
}

/* The first user of the file: takes over what the dead have left, if it belongs
   to the bytes, or recovers. They may have written since we looked at the file for
   what does not change, so we look again, now that there is nobody else. */
static int become_first(struct store *store,
                        const struct takeover_identity *identity) {
  struct share *share = &store->share;
  struct superblock superblock;
  uint64_t file_bytes;
  unsigned place;
  bool is_possible = false;
  int code = choose_superblock(store, &superblock, &place, &file_bytes);
  if (code != MMCMAP_OK) return code;
  if (file_bytes > store->space.map.size_bytes)
    return error_set(MMCMAP_EADDRESS, "the file has grown while opening");
  space_set_size(&store->space, file_bytes);
  if (takeover_matches(share->header, identity))
    code = takeover_is_possible(&store->writer.log, identity, &superblock,
                                &store->hasher, &is_possible);
  if (code != MMCMAP_OK) return code;
  if (is_possible) return take_over(store, &superblock, place);
  code = share_reset(share);
  if (code != MMCMAP_OK) return code;
  log_abandon(&store->writer.log);
  takeover_mark(share->header, identity);
  space_note_coarse(&store->space, file_bytes);
  code = readers_join(&store->readers);
  if (code == MMCMAP_OK) code = recover(store, &superblock, place, file_bytes);
  if (code == MMCMAP_OK) atomic_store(&share->header->state, SHARE_READY);
  return code;
}

/* Somebody's: the length is theirs to tell. */
static int join(struct store *store, uint64_t file_bytes) {
  uint64_t shared = atomic_load(&store->share.header->live.size_bytes);
  atomic_store(&store->space.known_bytes,
               shared < file_bytes ? shared : file_bytes);
  return readers_join(&store->readers);
}

int store_is_alone(struct store *store, bool *alone_out) {
  *alone_out = true;
  if (!store->is_shared) return MMCMAP_OK;
  int code = lock_is_free(store->fd, STORE_GROUP_OFFSET, alone_out);
  if (code == MMCMAP_OK && *alone_out)
    code = share_is_unused(&store->share, alone_out);
  return code;
}

static struct create_options creation(const struct store *store,
                                      const mmcmap_options *options) {
  return (struct create_options){.hash = options->hash,
                                 .segment_size = store->internals.segment_size};
}

/* What the file held before it was a store's, or a crash left of one. */
static int finish_creation(struct store *store, const mmcmap_options *options) {
  struct create_options create = creation(store, options);
  bool is_unfinished;
  if (options->readonly || !options->create) return MMCMAP_OK;
  int code = create_is_unfinished(store->fd, &is_unfinished);
  if (code != MMCMAP_OK || !is_unfinished) return code;
  code = lock_try(store->fd, STORE_GROUP_OFFSET, LOCK_EXCLUSIVE);
  if (code == MMCMAP_OK) code = create_in_place(store->fd, &create);
  if (code == MMCMAP_OK)
    code = lock_try(store->fd, STORE_GROUP_OFFSET, LOCK_SHARED);
  return code;
}

static int check_name(const char *path, const struct file_identity *held,
                      const char *what) {
  struct file_identity named;
  int code = file_identify_path(path, &named);
  if (code == MMCMAP_ENOENT ||
      (code == MMCMAP_OK && memcmp(&named, held, sizeof named) != 0))
    code = error_set(MMCMAP_EBUSY, what);
  return code;
}

static int check_lock_name(struct store *store) {
  struct file_identity held;
  int code = file_identify(store->share.fd, &held);
  return code == MMCMAP_OK
             ? check_name(store->lock_path, &held,
                          "the lock file was replaced while opening")
             : code;
}

/* The names may have been given to other files while we came to the locks. */
static int check_names(struct store *store) {
  int code = check_name(store->path, &store->identity,
                        "the file was replaced while opening");
  return code == MMCMAP_OK && store->is_shared ? check_lock_name(store) : code;
}

/* Gives a new file its name: only now, with the opening lock and the data file's, so
   that nobody else can be using it if something fails (discard_file()). */
static int make_file(struct store *store, const mmcmap_options *options) {
  struct create_options create = creation(store, options);
  bool is_unused;
  int code = check_lock_name(store);
  if (code == MMCMAP_OK) code = share_is_unused(&store->share, &is_unused);
  if (code == MMCMAP_OK && !is_unused)
    code = error_set(MMCMAP_EBUSY,
                     "others use the lock file, for a file that had the name");
  if (code == MMCMAP_OK)
    code = create_finish(store->fd, store->temporary, store->path, &create);
  TEST_POINT("file made");
  /* Somebody else was faster: the next try finds that file. */
  if (code == MMCMAP_EEXIST && !options->exclusive)
    code = error_set(MMCMAP_EBUSY, "another process makes the file");
  return code;
}

/* An opening that fails leaves no file. Whoever has found it by name comes to the
   locks after this, and finds that the name is gone. */
static void discard_file(struct store *store) {
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  if (store->temporary != NULL && check_names(store) == MMCMAP_OK)
    (void)file_unlink(store->path);
  share_discard(&store->share, store->lock_path);
  error_restore(&failure);
}

/* Whoever gave the file its name may have died before the name was on disk. As long as
   there has been no session, who may begin one sees to that; before anything is put. */
static int settle_name(const struct store *store,
                       const struct superblock *superblock) {
  bool is_made_here = store->temporary != NULL;
  return superblock->sequence > SUPERBLOCK_COUNT || is_made_here ||
                 store->is_readonly
             ? MMCMAP_OK
             : file_sync_folder_of(store->path);
}

/* With the opening lock. */
static int attach_shared(struct store *store, const mmcmap_options *options) {
  struct superblock superblock;
  struct takeover_identity identity;
  unsigned place;
  uint64_t file_bytes;
  bool is_alone, is_unused, has_no_loners = true;
  int code = lock_try(store->fd, STORE_GROUP_OFFSET, LOCK_SHARED);
  if (code == MMCMAP_OK && store->temporary != NULL)
    code = make_file(store, options);
  if (code == MMCMAP_OK) code = check_names(store);
  if (code == MMCMAP_OK && !store->is_readonly)
    code = lock_is_free(store->fd, STORE_ALONE_OFFSET, &has_no_loners);
  if (code == MMCMAP_OK && !has_no_loners)
    code = error_set(MMCMAP_EBUSY, "a process reads it without the lock file");
  if (code == MMCMAP_OK) code = finish_creation(store, options);
  if (code == MMCMAP_OK)
    code = load_constants(store, options, &superblock, &place, &file_bytes);
  if (code == MMCMAP_OK) code = settle_name(store, &superblock);
  if (code == MMCMAP_OK)
    code = takeover_identify(store->fd, superblock.file_id, store->share.fd,
                             &identity);
  if (code == MMCMAP_OK) code = init_parts(store);
  TEST_POINT("looked at");
  if (code == MMCMAP_OK)
    code = lock_is_free(store->fd, STORE_GROUP_OFFSET, &is_alone);
  if (code == MMCMAP_OK) code = share_is_unused(&store->share, &is_unused);
  if (code != MMCMAP_OK) return code;
  if (BROKEN(BREAK_TRUST_LOCK_FILE)) is_alone = is_unused;
  if (is_alone && is_unused) return become_first(store, &identity);
  if (!is_alone && !is_unused &&
      takeover_matches(store->share.header, &identity))
    return join(store, file_bytes);
  return error_set(MMCMAP_EBUSY, "the lock file is not that of its users");
}

/* Without a lock file: the state is this process's own. */
static int attach_alone(struct store *store, const mmcmap_options *options) {
  struct superblock superblock;
  unsigned place;
  uint64_t file_bytes;
  int code = share_open_private(&store->share);
  if (code == MMCMAP_OK) code = check_names(store);
  if (code == MMCMAP_OK)
    code = load_constants(store, options, &superblock, &place, &file_bytes);
  if (code == MMCMAP_OK) code = init_parts(store);
  if (code == MMCMAP_OK) code = readers_join(&store->readers);
  if (code == MMCMAP_OK) code = recover(store, &superblock, place, file_bytes);
  return code;
}

/* A lock file cannot be written here. That is as good if nobody writes the
   store, and nobody can come to write it as long as we are here. `why` is the
   code of the attempt. */
static int attach_loner(struct store *store, const mmcmap_options *options,
                        int why) {
  bool is_free;
  int code = lock_try(store->fd, STORE_ALONE_OFFSET, LOCK_SHARED);
  if (code == MMCMAP_OK)
    code = lock_is_free(store->fd, STORE_GROUP_OFFSET, &is_free);
  if (code == MMCMAP_OK && !is_free)
    code = error_set(MMCMAP_EBUSY,
                     why == MMCMAP_EACCES
                         ? "others share it, and this process may not write "
                           "its lock file: chmod 666 NAME-lock"
                         : "this process cannot write its lock file");
  return code == MMCMAP_OK ? attach_alone(store, options) : code;
}

/* A file that is no store gets no lock file beside it. */
static int look_at_file(struct store *store, const mmcmap_options *options) {
  struct superblock superblock;
  uint64_t file_bytes;
  unsigned place;
  bool is_unfinished = false;
  int code = MMCMAP_OK;
  if (options->create && !options->readonly)
    code = create_is_unfinished(store->fd, &is_unfinished);
  if (code != MMCMAP_OK || is_unfinished) return code;
  return choose_superblock(store, &superblock, &place, &file_bytes);
}

int store_attach(struct store *store, const mmcmap_options *options) {
  if (!store->has_lock) return attach_alone(store, options);
  int code = look_at_file(store, options);
  if (code != MMCMAP_OK) return code;
  code = share_open(store->lock_path, store->fd, &store->share);
  if ((code == MMCMAP_EREADONLY || code == MMCMAP_EACCES ||
       code == MMCMAP_ENOSPC) &&
      store->is_readonly)
    return attach_loner(store, options, code);
  if (code != MMCMAP_OK) return code;
  TEST_POINT("lock file");
  store->is_shared = true;
  code = share_begin_opening(&store->share, 0);
  if (code == MMCMAP_OK) code = attach_shared(store, options);
  if (code == MMCMAP_OK)
    share_end_opening(&store->share);
  else /* and keep the lock until all is given back: others then find nobody */
    discard_file(store);
  return code;
}

/* ---- Leaving ------------------------------------------------------------- */

/* From now on nothing of ours waits for others for longer than that. */
static void stop_threads(struct store *store, uint32_t timeout_ms) {
  if (timeout_ms < COMMIT_LEAST_MS) timeout_ms = COMMIT_LEAST_MS;
  atomic_store(&store->readers.leave_ns, owner_lock_end_ns(timeout_ms));
  flusher_stop(&store->flusher);
  upkeep_give_up(&store->upkeep);
}

/* The last one leaves the lock file empty; with the opening lock. */
static int leave_last(struct store *store) {
  bool is_alone;
  int code = store_is_alone(store, &is_alone);
  if (code != MMCMAP_OK || !is_alone || store->is_readonly) return code;
  code = finish_session(store);
  if (code == MMCMAP_OK) atomic_store(&store->share.header->state, SHARE_RESET);
  return code;
}

/* Commits, and leaves a clean file if this is the last process. */
static int leave_in_order(struct store *store) {
  int code = MMCMAP_OK;
  if (!store->is_readonly) code = commit_all(&store->committer);
  if (!store->is_shared) return code;
  /* Without it the next opener takes over, as from a process that died. */
  uint32_t left_ms = owner_lock_left_ms(atomic_load(&store->readers.leave_ns));
  if (share_begin_opening(&store->share, left_ms) != MMCMAP_OK) return code;
  int last = leave_last(store);
  return code != MMCMAP_OK ? code : last;
}

/* Somebody who is alive may be in the way, for ever if it is stopped: it has the
   store open, so what is not committed is not lost if we go. Who has changed nothing
   that is not on disk has nothing to complain about. */
static int leave(struct store *store) {
  mmcmap_error before;
  mmcmap_last_error(&before);
  int code = leave_in_order(store);
  if (code != MMCMAP_EBUSY ||
      atomic_load(&store->own_epoch) >
          atomic_load(&store->share.header->commit.durable_epoch))
    return code;
  error_restore(&before);
  return MMCMAP_OK;
}

int store_detach(struct store *store, bool discard, uint32_t timeout_ms) {
  int code = MMCMAP_OK;
  if (store->readers.serial != 0 && store->has_threads) {
    stop_threads(store, timeout_ms);
    if (!discard) code = leave(store);
  }
  if (store->has_threads) {
    flusher_destroy(&store->flusher);
    upkeep_destroy(&store->upkeep);
    sweep_destroy(&store->sweep); /* not after fork(): it may be in use */
  }
  readers_destroy(&store->readers);
  /* The data file first: who then comes to the opening lock finds nobody. */
  if (store->fd >= 0) file_close(store->fd);
  store->fd = -1;
  store_forget(store);
  return code;
}

void store_forget(struct store *store) {
  if (store->has_threads) free(store->upkeep.recount.found);
  if (store->has_threads) writer_destroy(&store->writer);
  store->has_threads = false;
  readers_forget(&store->readers);
  recovered_forget(&store->recovered);
  map_close(&store->space.map);
  share_close(&store->share);
  free(store->path);
  free(store->lock_path);
  store->path = store->lock_path = NULL;
}
