/* SPDX-License-Identifier: MIT */
/*
 * A backup: the records of a snapshot, put one after the other into a new store.
 * So it is compact, whatever the state of the one that it is made from, and a
 * record that is damaged is not passed on.
 */
#include <string.h>

#include "making.h"
#include "os/lock.h"
#include "snapshot.h"

enum { BACKUP_PROGRESS_STEP = 1024 };

/* ---- What has the name already ------------------------------------------- */

/* Whether the file is a store that nobody has open. */
static int look_at_target(int fd) {
  uint8_t magic[8], wanted[SUPERBLOCK_BYTES];
  struct superblock empty;
  size_t got;
  bool is_free;
  memset(&empty, 0, sizeof empty);
  superblock_encode(&empty, wanted);
  int code = file_read(fd, magic, sizeof magic, 0, &got);
  if (code == MMCMAP_OK &&
      (got < sizeof magic || memcmp(magic, wanted, sizeof magic) != 0))
    code = error_set(MMCMAP_EEXIST, "a file that is no store");
  if (code == MMCMAP_OK) code = lock_is_free(fd, STORE_GROUP_OFFSET, &is_free);
  if (code == MMCMAP_OK && !is_free)
    code = error_set(MMCMAP_EBUSY, "a store that somebody has open");
  return code;
}

/* Whether `path` may be given to the backup of `store`. */
static int check_target(const struct store *store, const char *path) {
  struct file_identity identity;
  int fd;
  if (path == NULL || path[0] == '\0') return error_set(MMCMAP_EINVAL, "path");
  int code = file_identify_path(path, &identity);
  if (code == MMCMAP_ENOENT) return MMCMAP_OK;
  if (code == MMCMAP_OK &&
      memcmp(&identity, &store->identity, sizeof identity) == 0)
    return error_set(MMCMAP_EINVAL, "a backup over the store itself");
  if (code == MMCMAP_OK) code = file_open(path, true, &fd);
  if (code == MMCMAP_EFORMAT)
    return error_set(MMCMAP_EEXIST, "not a regular file");
  if (code != MMCMAP_OK) return code;
  code = look_at_target(fd);
  file_close(fd);
  return code;
}

/* ---- Copying ------------------------------------------------------------- */

struct copying {
  mmcmap_snapshot *snapshot; /* of the map that is being copied */
  mmcmap *copy;              /* of that map, too */
  mmcmap_progress progress;
  void *context;
  uint64_t done;  /* records, of all maps, */
  uint64_t total; /* and how many there are in those that have been begun */
};

static int tell_progress(const struct copying *copying) {
  uint64_t total = copying->total;
  if (copying->progress == NULL) return MMCMAP_OK;
  return copying->progress(
      copying->context, copying->done < total ? copying->done : total, total);
}

/* Puts the next record of the cursor, with its time, unless it has expired;
   MMCMAP_NOTFOUND at the end. */
static int copy_next(struct copying *copying, struct trie_cursor *cursor) {
  const struct store *store = copying->snapshot->store;
  struct share_row *row;
  struct record_view record;
  int code = snapshot_enter(copying->snapshot, &row);
  if (code != MMCMAP_OK) return code;
  struct node_source source = space_source(&store->space);
  code = trie_cursor_next(cursor, &source, &record);
  if (code == MMCMAP_OK) code = record_verify(&source, &record, &store->hasher);
  struct change_life life = {.expires_ms = record.expires_ms};
  if (code == MMCMAP_OK &&
      !record_is_past(&record, copying->snapshot->now.now_ms))
    code = handle_put(copying->copy, slice_of(record.key, record.key_size),
                      slice_of(record.value, record.value_size), life);
  snapshot_leave(row);
  return code;
}

static int copy_map(struct copying *copying) {
  struct trie_cursor cursor;
  const mmcmap_snapshot *snapshot = copying->snapshot;
  uint64_t before = copying->done;
  copying->total += snapshot->count;
  trie_cursor_init(&cursor, snapshot->root, snapshot->count);
  int code = MMCMAP_OK;
  while (code == MMCMAP_OK) {
    if (copying->done % BACKUP_PROGRESS_STEP == 0) {
      code = tell_progress(copying);
      if (code != MMCMAP_OK) return code; /* it may be MMCMAP_NOTFOUND */
    }
    code = copy_next(copying, &cursor);
    if (code == MMCMAP_OK) copying->done++;
  }
  if (code != MMCMAP_NOTFOUND) return code;
  if (copying->done - before != snapshot->count)
    return error_set_corrupt("F40 fewer records than counted", 0);
  return MMCMAP_OK;
}

static int copy_named(const struct copying *all, mmcmap_slice name,
                      struct copying *copying) {
  int code = mmcmap_snapshot_map(all->snapshot, name, &copying->snapshot);
  if (code != MMCMAP_OK) return code;
  code = mmcmap_map(all->copy, name, &copying->copy);
  if (code == MMCMAP_OK) {
    code = making_map(copying->copy);
    if (code == MMCMAP_OK) code = copy_map(copying);
    (void)mmcmap_close(copying->copy); /* not the last handle */
  }
  mmcmap_snapshot_close(copying->snapshot);
  return code;
}

/* The default map, then those that have names. */
static int copy_all(struct copying *copying) {
  mmcmap_cursor *names;
  mmcmap_slice name, nothing;
  int code = copy_map(copying);
  if (code != MMCMAP_OK) return code;
  code = mmcmap_snapshot_maps(copying->snapshot, &names);
  if (code != MMCMAP_OK) return code;
  int copied = MMCMAP_OK;
  while (copied == MMCMAP_OK &&
         (code = mmcmap_cursor_next(names, &name, &nothing)) == MMCMAP_OK) {
    struct copying map = *copying;
    copied = copy_named(copying, name, &map);
    copying->done = map.done;
    copying->total = map.total;
  }
  mmcmap_cursor_close(names);
  if (copied != MMCMAP_OK) return copied;
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

/* Makes the copy that is to be `path`, but does not give it that name yet. */
static int fill_copy(mmcmap_snapshot *snapshot, struct making *making,
                     mmcmap_progress progress, void *context) {
  struct copying copying = {.snapshot = snapshot,
                            .copy = making->copy,
                            .progress = progress,
                            .context = context};
  int code = copy_all(&copying);
  if (code == MMCMAP_OK) code = mmcmap_sync(making->copy);
  /* The last word, before there is anything to be seen. */
  if (code == MMCMAP_OK) code = tell_progress(&copying);
  return code;
}

int mmcmap_backup(mmcmap *handle, const char *path, mmcmap_progress progress,
                  void *context) {
  mmcmap_snapshot *snapshot;
  struct making making;
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  if (handle->is_map)
    return error_set(MMCMAP_EINVAL, "a backup of a named map");
  int code = snapshot_open_for_long(handle, &snapshot);
  if (code != MMCMAP_OK) return code;
  const struct store *store = snapshot->store;
  mmcmap_options options = handle->options;
  options.hash = store->hasher.kind;
  struct store_internals internals = store->internals;
  internals.segment_size = store->space.segment_size;
  code = check_target(store, path);
  if (code == MMCMAP_OK) code = file_mode(store->fd, &options.mode);
  if (code == MMCMAP_OK)
    code = making_begin(&making, path, &options, &internals);
  if (code == MMCMAP_OK) {
    code = fill_copy(snapshot, &making, progress, context);
    if (code == MMCMAP_OK) code = check_target(store, path);
    if (code == MMCMAP_OK)
      code = making_finish(&making, true);
    else
      making_abandon(&making);
  }
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  mmcmap_snapshot_close(snapshot);
  if (code != MMCMAP_OK) error_restore(&failure);
  return code;
}
