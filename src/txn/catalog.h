/* SPDX-License-Identifier: MIT */
/*
 * The catalogue: how the maps of a store hang together. The root of a store is
 * that of its default map, until there has been a named map, a record that
 * expires, or a saved snapshot; from then on it is a store root, a node with that
 * slot and the slot of the catalogue's root.
 * The catalogue is a trie whose keys are the names of maps, and whose records hold
 * root, count and id of each.
 *
 * So publishing goes upward: from the branch of a map to the map's record, the
 * branch of the catalogue, the store root and the store's root. It ends with one
 * store at the first of these that is of the open epoch: what is above it is of
 * that epoch, too.
 *
 * Beside the catalogue hangs a trie with what snapshots were saved.
 *
 * An id is never given twice. A map that was dropped is nobody's: its nodes are
 * those whose id no record of the catalogue has.
 */
#ifndef TXN_CATALOG_H
#define TXN_CATALOG_H

#include <stdbool.h>

#include "trie/trie.h"

/* The maps of the live store, or of a transaction; the lock guards them. */
struct catalog {
  struct log *log;
  const struct hasher *hasher;
  struct trie_draft *draft; /* or NULL */
  _Atomic uint64_t *top;    /* the root of the store */
  _Atomic uint64_t *count;  /* records in the default map */
};

/* One map, looked up for one change: then it has to be looked up again. It does
   not move. */
struct catalog_map {
  struct trie trie; /* the map */
  bool is_there;    /* the default map always */
  bool lets_expire; /* its records may; set it to make a map that does */

  struct trie catalog; /* the trie of the catalogue */
  struct trie_key name;
  struct trie_path path; /* of the name */
  uint64_t next_id;      /* once the change has been made */
  bool has_store;        /* there is a store root */
  struct store_view store;
  _Atomic uint64_t root; /* what stands in the file, as are the next three */
  _Atomic uint64_t count;
  _Atomic uint64_t catalog_root;
  _Atomic uint64_t map_count; /* not known, and not counted */
  _Atomic uint64_t snapshots_root;
};

/* Looks up the map `name`, or the default one if it is NULL. One that is not
   there is empty; a change of its trie makes it. MMCMAP_ECORRUPT. */
int catalog_open(const struct catalog *catalog, const struct trie_key *name,
                 struct catalog_map *map_out);

/* The same for a change after which a record of the map may expire. If it says
   otherwise, what says so is changed first, which is published like any change:
   whoever takes marks of the log takes them after this. */
int catalog_open_to_expire(const struct catalog *catalog,
                           const struct trie_key *name,
                           struct catalog_map *map_out);

/* Says of a map, just opened, that no record of it expires, which is published. */
int catalog_end_expiry(const struct catalog *catalog,
                       const struct trie_key *name, struct catalog_map *map);

/* Gives the trie of the saved snapshots (txn/saved.h). */
int catalog_open_snapshots(const struct catalog *catalog,
                           struct catalog_map *map_out);

/* Drops a map; MMCMAP_NOTFOUND. Nothing is retired: the map's nodes are told by
   their id. */
int catalog_drop(const struct catalog *catalog, const struct trie_key *name);

/*
 * The names of all maps by their ids, for whoever has nodes and wants their maps.
 * Zeros are an empty one. It keeps what it has read until an id is asked for that
 * is younger, which costs a walk through the catalogue.
 */
struct catalog_name {
  uint64_t id;
  size_t size;
  void *data;
};

struct catalog_names {
  struct catalog_name *items;
  size_t count;
  size_t capacity;
  uint64_t next_id; /* ids from here on have not been looked for */
};

void catalog_names_free(struct catalog_names *names);

/* Looks up the trie whose nodes have `map_id`, the catalogue's among them.
   `trie_out` points into `map_out`; NULL: there is no such map any more.
   MMCMAP_ECORRUPT, MMCMAP_ENOMEM. */
int catalog_open_id(const struct catalog *catalog, struct catalog_names *names,
                    uint32_t map_id, struct catalog_map *map_out,
                    const struct trie **trie_out);

/* Writes another store root, if the live one lies at `offset`, and publishes
   it. */
int catalog_move_store(const struct catalog *catalog, uint64_t offset,
                       bool *moved_out);

/* ---- Reading; `top` is the root of a store ------------------------------- */

/* The part of catalog_default_root() for stores with named maps. */
int catalog_default_root_of(const struct node_source *source, uint64_t top,
                            uint64_t *root_out);

static inline int catalog_default_root(const struct node_source *source,
                                       uint64_t top, uint64_t *root_out) {
  *root_out = top;
  if (LIKELY(!slot_is_store(top))) return MMCMAP_OK;
  return catalog_default_root_of(source, top, root_out);
}

/* The root of the catalogue's trie; SLOT_EMPTY if there are no named maps. */
int catalog_root(const struct node_source *source, uint64_t top,
                 uint64_t *root_out);

/* The root of the snapshots' trie; SLOT_EMPTY if there are none. */
int catalog_snapshots_root(const struct node_source *source, uint64_t top,
                           uint64_t *root_out);

/* What there is to know of a map, or the default one if `name` is NULL, whose count
   is not set. MMCMAP_NOTFOUND: it is empty. */
struct catalog_words {
  uint64_t root;
  uint64_t count;
  bool lets_expire;
};

int catalog_look(const struct node_source *source, const struct hasher *hasher,
                 uint64_t top, const struct trie_key *name,
                 struct catalog_words *words_out);

/* The words of a named map; MMCMAP_NOTFOUND. */
int catalog_find(const struct node_source *source, const struct hasher *hasher,
                 uint64_t top, const struct trie_key *name,
                 struct map_words *words_out);

#endif
