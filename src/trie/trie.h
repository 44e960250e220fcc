/* SPDX-License-Identifier: MIT */
/*
 * The trie of one map: 64-way branches over the bits of a key's hash (Bagwell's
 * hash array mapped trie), each node with the epoch of its birth (the
 * generations of Prokopec's Ctrie).
 *
 * Invariants
 *   - A node of a sealed epoch never changes. A node of the open epoch is
 *     changed only by one atomic store to one of its slots.
 *   - Whatever a slot refers to was written before the slot was stored.
 *   - The form is canonical: it depends on the keys, not on their history. A
 *     branch has two slots or more, or one that leads to a branch.
 *   - A branch of level n is n steps below the root.
 *
 * Writing needs the writer lock; lookups need nothing but a pin, or a root
 * whose epoch is sealed.
 */
#ifndef TRIE_TRIE_H
#define TRIE_TRIE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "base/testing.h"
#include "format/node.h"
#include "space/log.h"

/* A key and its hashes; the secondary one is computed when it is needed. */
struct trie_key {
  const void *data;
  size_t size;
  uint64_t primary;
  uint64_t secondary;
  bool has_secondary;
};

static inline struct trie_key trie_key_of(const struct hasher *hasher,
                                          const void *data, size_t size) {
  struct trie_key key = {.data = data, .size = size};
  key.primary = hasher_primary(hasher, data, size);
  return key;
}

static inline uint64_t trie_key_secondary(const struct hasher *hasher,
                                          struct trie_key *key) {
  if (!key->has_secondary) {
    key->secondary = hasher_secondary(hasher, key->data, key->size);
    key->has_secondary = true;
  }
  return key->secondary;
}

/* The way of `key` through a branch of `level`. */
static inline unsigned trie_way(const struct hasher *hasher,
                                struct trie_key *key, unsigned level) {
  if (UNLIKELY(level >= BRANCH_SECONDARY_LEVEL))
    return branch_way(0, trie_key_secondary(hasher, key), level);
  return branch_way(key->primary, 0, level);
}

/* A node that was unlinked but may not be retired yet: the words of its header
   that tell all. */
struct trie_unlinked {
  uint64_t offset;
  uint64_t meta;
  uint64_t shape;
};

/*
 * What a transaction unlinks: nodes that others still see, because it is not
 * published, and nodes of its own from before it froze them. A node that is
 * left out for want of memory is never retired: its space is counted as alive
 * for longer. Owned by the transaction, which the writer lock guards.
 */
struct trie_draft {
  struct trie_unlinked *items;
  size_t count;
  size_t capacity;
};

/* What a trie is written with. */
struct trie {
  struct log *log;
  const struct hasher *hasher;
  uint32_t map_id;
  struct trie_draft *draft; /* not NULL: the nodes of the open epoch, and the
                               two cells, are private */
  _Atomic uint64_t *root;   /* the cell of the root's slot */
  _Atomic uint64_t *count;  /* the cell of the number of records, */
  uint64_t count_place;     /* and where it is stored: an offset in the file, or
                              enum trie_count_place */
  _Atomic uint64_t *top;    /* the root of the store: the place 0 */
  /* Stores another root; NULL: it is the root of the store. */
  int (*hang)(const struct trie *trie, uint64_t slot, uint64_t count);
  void *context; /* for that function */
};

/* No offset of a count: in the trie's cell, or with something else that is
   stored. */
enum trie_count_place { TRIE_COUNT_IN_CELL = 0, TRIE_COUNT_NOWHERE = 1 };

/* ---- lookup.c ---------------------------------------------------------- */

/* Finds a key's record under `root`. MMCMAP_NOTFOUND, MMCMAP_ECORRUPT. */
int trie_lookup(const struct node_source *source, const struct hasher *hasher,
                uint64_t root, struct trie_key *key,
                struct record_view *record_out);

/* Compares keys as the slots of a collision node are sorted: bytes first, then
   length. */
int trie_compare_keys(const struct trie_key *key,
                      const struct record_view *record);

/* Looks for `key` among the sorted slots of a collision node: the index where
   it is or belongs, and whether it is there. */
int trie_search_collision(const struct node_source *source,
                          const struct branch_view *node,
                          const struct trie_key *key, unsigned *index_out,
                          bool *found_out);

/* ---- lookup_many.c ------------------------------------------------------ */

enum { TRIE_LANES = 32 };

/* One of several lookups. The caller sets the key; `code` and `record` are the
   outcome, as of trie_lookup(). */
struct trie_lane {
  struct trie_key key;
  struct record_view record;
  uint64_t slot;
  int code;
};

/* Looks up `count` keys, at most TRIE_LANES, under one root. */
void trie_lookup_many(const struct node_source *source,
                      const struct hasher *hasher, uint64_t root,
                      struct trie_lane *lanes, unsigned count);

/* Walks to where `count` keys, at most TRIE_LANES, are or would be, so that what
   trie_find_path() reads there is at hand. Nothing depends on it. */
void trie_look_ahead(const struct node_source *source, uint64_t root,
                     const struct trie_key *keys, unsigned count);

/* Where a hash leads: the caller sets `primary`, and the level at which to stop,
   BRANCH_SECONDARY_LEVEL at most. */
struct trie_lead {
  uint64_t primary;
  uint64_t slot; /* there, or of the record before; SLOT_EMPTY: there is none */
  unsigned level;
  bool is_known; /* false: the way goes on, or could not be read */
};

/* Follows `count` hashes, at most TRIE_LANES, side by side. */
void trie_follow_many(const struct node_source *source, uint64_t root,
                      struct trie_lead *leads, unsigned count);

/* ---- path.c ------------------------------------------------------------ */

struct trie_step {
  struct branch_view branch;
  uint64_t epoch;
  unsigned index; /* of the slot taken, or where a new one belongs */
};

enum trie_ending {
  TRIE_ENDS_EMPTY,  /* there is no root */
  TRIE_ENDS_VACANT, /* the last branch has no slot for the key */
  TRIE_ENDS_SAME,   /* the slot is the record of this key */
  TRIE_ENDS_OTHER   /* the slot is the record of another key */
};

/* The way from the root to where a key is or would be. */
struct trie_path {
  struct trie_step steps[COLLISION_LEVEL + 1];
  unsigned depth; /* steps taken */
  enum trie_ending ending;
  uint64_t slot; /* the record's, if it ends at one */
  struct record_view record;
};

/* What a writer walks through: the engine's view, which it is about to store
   into, so that the processor translates its addresses once and not for both. */
static inline struct node_source trie_source(const struct trie *trie) {
  const struct space *space = trie->log->space;
  struct node_source source = space_source(space);
  if (LIKELY(space->map.write != NULL)) source.base = space->map.write;
  return source;
}

int trie_find_path(const struct trie *trie, struct trie_key *key,
                   struct trie_path *path_out);

/* The way to the slot that the branch at `offset` hangs from, if there is one in
   its place. */
int trie_find_branch(const struct trie *trie, const struct branch_place *place,
                     uint64_t offset, struct trie_path *path_out,
                     bool *found_out);

/* The way to the record of a key with this hash, if no other key has it. */
int trie_find_hash(const struct trie *trie, uint64_t primary,
                   struct trie_path *path_out, bool *found_out);

/* A copy of a branch, of the open epoch, that is not linked. */
int trie_copy_branch(const struct trie *trie, const struct branch_view *branch,
                     uint64_t *offset_out);

/*
 * Stores `slot` where the step before `depth` leads, or as the root: in place
 * if that branch is of the open epoch, else in a copy of it, and so on upward;
 * the last store publishes everything. Then the count is changed. On failure
 * nothing is published.
 */
int trie_publish(const struct trie *trie, const struct trie_path *path,
                 unsigned depth, uint64_t slot, int count_change);

/* Stores another root, whose nodes are written, and its count. */
int trie_publish_root(const struct trie *trie, uint64_t slot, uint64_t count);

/* The one store that makes a change visible: of `slot` at an offset of the file,
   or at `place` 0, the store's root; and the count after it. */
int trie_store(const struct trie *trie, uint64_t place, uint64_t slot,
               uint64_t count);

/* Of nodes that are to be used again: fills all but what a scan of the frame
   reads, in a test build that was told to. */
static inline void trie_poison(const struct trie *trie, uint64_t offset,
                               uint64_t size) {
  if (!BROKEN(TESTING_POISON)) return;
  memset(log_at(trie->log, offset) + NODE_HEADER_BYTES, 0xdb,
         size - NODE_HEADER_BYTES);
  TEST_POINT("recycled");
}

/* Space for a branch, a recycled one if there is one of its size. */
int trie_alloc_branch(const struct trie *trie, uint32_t slot_count,
                      unsigned level, uint64_t *offset_out);

/* Called after a node has been unlinked by a published store: it is not alive any
   more, and is recycled if it was born in the open epoch. In a draft, if it was
   not: it is kept for trie_retire_draft(). */
void trie_retire_branch(const struct trie *trie,
                        const struct branch_view *branch, uint64_t epoch);
void trie_retire_record(const struct trie *trie,
                        const struct record_view *record);
void trie_retire_store(const struct trie *trie, const struct store_view *store);

/* ---- draft.c ----------------------------------------------------------- */

/* Keeps a node of `draft` that was unlinked; dropped without memory. */
void trie_draft_add(struct trie_draft *draft, const uint8_t *at,
                    uint64_t offset);

/* Keeps all nodes under `root`, of which nothing is used any more. */
void trie_draft_add_all(struct trie_draft *draft, uint64_t root);

/* Retires what `draft` has kept, now that it is published by `trie`, which has
   no draft. */
void trie_retire_draft(const struct trie *trie, struct trie_draft *draft);

void trie_draft_free(struct trie_draft *draft);

/* ---- put.c, remove.c --------------------------------------------------- */

/* Sets a key's value; `created_out` tells whether it is a new key. Sizes have
   been checked. On failure nothing has changed. */
int trie_put(const struct trie *trie, struct trie_key *key, const void *value,
             uint32_t value_size, bool *created_out);

/* What is put. */
struct trie_value {
  const void *data;
  uint32_t size;
  uint64_t expires_ms; /* as in struct record_parts */
};

/* The same where trie_find_path() has led, nothing having changed since. */
int trie_put_at(const struct trie *trie, struct trie_key *key,
                const struct trie_path *path, const struct trie_value *value);
int trie_remove_at(const struct trie *trie, const struct trie_path *path);

/* Removes a key. MMCMAP_NOTFOUND; on failure nothing has changed. */
int trie_remove(const struct trie *trie, struct trie_key *key);

/* ---- cursor.c ---------------------------------------------------------- */

struct trie_cursor_step {
  struct branch_view branch;
  unsigned next; /* index of the slot to take next */
};

/* How many records at most are fetched ahead of the one that is returned: a power
   of two. */
enum { TRIE_RECORDS_AHEAD = 16 };

/* Walks a sealed root; good as long as the root is. */
struct trie_cursor {
  uint64_t root;
  uint64_t left; /* records that there can still be: bounds hostile tries */
  bool begun;
  mmcmap_error failure; /* its code is not MMCMAP_OK: where the walk ended */
  unsigned depth;
  struct trie_cursor_step steps[COLLISION_LEVEL + 1];
  /* Records that the walk has come to, and that were not returned yet. */
  uint64_t ahead[TRIE_RECORDS_AHEAD];
  unsigned ahead_end; /* both count on: indices modulo TRIE_RECORDS_AHEAD */
  unsigned ahead_begin;
};

void trie_cursor_init(struct trie_cursor *cursor, uint64_t root,
                      uint64_t count);

/* Puts a new cursor behind where `key` is or would be: the order is that of the
   primary hash, then the secondary, then the keys themselves. */
int trie_cursor_seek(struct trie_cursor *cursor,
                     const struct node_source *source,
                     const struct hasher *hasher, struct trie_key *key);

/* Walks on, as far as it goes; MMCMAP_NOTFOUND if no record is ahead. */
int trie_cursor_walk(struct trie_cursor *cursor,
                     const struct node_source *source);

/* Ends the walk at the failure that was noted last. */
int trie_cursor_fail(struct trie_cursor *cursor);

/* Takes the next record if that needs nothing but a look at it: one that does not
   expire, stands for no map, and has its value beside it. What trie_cursor_next()
   is for otherwise has not been done then. */
static inline bool trie_cursor_take(struct trie_cursor *cursor,
                                    const struct node_source *source,
                                    mmcmap_slice *key_out,
                                    mmcmap_slice *value_out) {
  if (UNLIKELY(cursor->ahead_end - cursor->ahead_begin <=
               TRIE_RECORDS_AHEAD / 2))
    return false;
  uint64_t offset =
      slot_offset(cursor->ahead[cursor->ahead_begin % TRIE_RECORDS_AHEAD]);
  if (UNLIKELY(!bytes_within(offset, NODE_HEADER_BYTES, source->size)))
    return false;
  const uint8_t *at = source->base + offset;
  uint64_t shape = bytes_load_relaxed(at + NODE_SHAPE_AT);
  uint64_t key_size = shape >> 32, value_size = (uint32_t)shape;
  if (UNLIKELY(bytes_load_relaxed(at + NODE_META_AT) >> 48 != NODE_RECORD
                                                                  << 8 ||
               key_size > MMCMAP_KEY_SIZE_MAX ||
               !bytes_within(offset, NODE_HEADER_BYTES + key_size + value_size,
                             source->size)))
    return false;
  cursor->ahead_begin++;
  key_out->data = at + NODE_HEADER_BYTES;
  key_out->size = (size_t)key_size;
  value_out->data = at + NODE_HEADER_BYTES + key_size;
  value_out->size = (size_t)value_size;
  return true;
}

/* The next record; MMCMAP_NOTFOUND at the end. After an error the cursor stays
   there. */
static inline int trie_cursor_next(struct trie_cursor *cursor,
                                   const struct node_source *source,
                                   struct record_view *record_out) {
  int code = MMCMAP_OK;
  if (cursor->ahead_end - cursor->ahead_begin <= TRIE_RECORDS_AHEAD / 2)
    code = trie_cursor_walk(cursor, source);
  if (UNLIKELY(code != MMCMAP_OK)) return code;
  uint64_t slot = cursor->ahead[cursor->ahead_begin++ % TRIE_RECORDS_AHEAD];
  code = node_record(source, slot_offset(slot), record_out);
  return LIKELY(code == MMCMAP_OK) ? code : trie_cursor_fail(cursor);
}

#endif
