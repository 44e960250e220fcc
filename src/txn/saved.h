/* SPDX-License-Identifier: MIT */
/*
 * Saved snapshots: moments that stay in the file under a name, until they are
 * dropped. A trie beside the catalogue has a record for each, whose value is what
 * struct saved_words says; it is written in an epoch after the moment's, which has
 * been sealed. So what is under the root of one never changes, and none of it may
 * be used again. The lowest and the highest epoch of all saved snapshots stand in
 * the lock file (note_saved() in txn/writer.c): whatever lived at any time between
 * them is held, that is, each segment but for those that were begun after the
 * highest, or whose last node was unlinked before the lowest. Of segments that are
 * older than the session neither is known: they are held. When one is dropped, what
 * the two were stays in force until a superblock on disk knows of the drop
 * (usage_leave_saved()): recovery may find it again.
 *
 * What hangs on the store root of a saved snapshot as snapshots is no part of it:
 * those that are there now are those of the live store root.
 */
#ifndef TXN_SAVED_H
#define TXN_SAVED_H

#include "txn/catalog.h"

/* One of them; the name is in the file. */
struct saved {
  const uint8_t *name;
  uint16_t name_size;
  uint64_t root;    /* of the store: a store root, or that of the default map */
  uint64_t count;   /* records in the default map */
  uint64_t epoch;   /* of the last change in it */
  uint64_t time_ms; /* the clock when it was saved */
  uint64_t content_epoch; /* of the last change that was no move */
};

/* Saves the moment in `saved` under its name. The lock is held, changes may be
   made, and nothing has changed since that moment. MMCMAP_EEXIST: there is one of
   that name. */
int saved_put(const struct catalog *catalog, const struct saved *saved);

/* Whether there is one of that name: MMCMAP_OK or MMCMAP_NOTFOUND. */
int saved_look(const struct catalog *catalog, const void *name, size_t size);

/* Forgets it; MMCMAP_NOTFOUND. */
int saved_drop(const struct catalog *catalog, const void *name, size_t size);

/* ---- Reading; `top` is the root of a store ------------------------------- */

/* MMCMAP_NOTFOUND; MMCMAP_ECORRUPT. */
int saved_find(const struct node_source *source, const struct hasher *hasher,
               uint64_t top, const void *name, size_t size,
               struct saved *saved_out);

/* Calls `visit` for each, in no order, until it returns anything but MMCMAP_OK,
   which is returned then. `saved` is good during the call. */
int saved_each(const struct node_source *source, uint64_t top,
               int (*visit)(void *context, const struct saved *saved),
               void *context);

/* How many there are. */
int saved_count(const struct node_source *source, uint64_t top,
                uint64_t *count_out);

#endif
