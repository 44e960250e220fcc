/* SPDX-License-Identifier: MIT */
/*
 * Salvage: reads whatever records are whole out of the bytes of a damaged file.
 * Every aligned place of the file is looked at; what has the form of a record and
 * its keyed checksum is one. Which version of a key counts is told by the newest
 * trie whose root is found, if it leads to one, or if the branches on the key's way
 * lie in frames that are whole; else the newest whole record of the key does. So
 * what was deleted, or put by a transaction that was aborted, which may lie in a
 * recycled place, comes back only where the frames are damaged that say so.
 *
 * A record names its map by id. The names of maps are those of the newest catalogue,
 * if all of it can be walked; then other ids are those of maps that were dropped.
 * Else whatever records of catalogues are whole tell names, and the maps of other
 * ids have lost theirs.
 *
 * It only reads. A file of any content ends it in time proportional to the file.
 */
#ifndef MAINT_SALVAGE_H
#define MAINT_SALVAGE_H

#include "format/node.h"
#include "format/superblock.h"

/* Where the bytes of a superblock's parts are, for one that is damaged. */
enum { SALVAGE_HASH_AT = 68, SALVAGE_SECRET_AT = 240 };

struct salvage_range {
  uint64_t offset;
  uint64_t end;
};

struct salvage_map {
  uint64_t id;
  const uint8_t *name; /* NULL: the default map, or a map without its name */
  size_t name_size;
  uint64_t root; /* of the newest version that was found */
  uint64_t root_epoch;
  uint64_t offset; /* of its first record, if it has lost its name */
  void *user;      /* NULL, for the caller */
};

struct salvage_record {
  const uint8_t *at;
  uint64_t offset;
  uint64_t primary;
  uint64_t epoch;
};

struct salvage {
  struct node_source source;
  struct hasher hasher;
  bool has_superblock;
  struct superblock superblock; /* the newest valid one */
  uint32_t segment_size;
  uint64_t top; /* of the newest commit that was found: a store's root */
  uint64_t top_epoch;
  bool has_all_maps;        /* ids that are not among them were dropped */
  struct salvage_map *maps; /* the default one first; by id */
  size_t map_count, map_capacity;
  struct salvage_range *frames; /* whole ones, by offset */
  size_t frame_count, frame_capacity;
  struct salvage_record *records; /* those that the trie says nothing about */
  size_t record_count, record_capacity;
};

/* Finds the secret, the frames, the root and the maps. MMCMAP_EFORMAT: nothing of a store
   is to be seen; MMCMAP_ENOMEM. */
int salvage_open(struct salvage *salvage, const struct node_source *source);
void salvage_close(struct salvage *salvage);

/* Calls `take` for one record of each key of each map. A code of it but MMCMAP_OK ends the
   calls and is returned; MMCMAP_ENOMEM. */
int salvage_read(struct salvage *salvage,
                 int (*take)(void *context, struct salvage_map *map,
                             const struct record_view *record),
                 void *context);

#endif
