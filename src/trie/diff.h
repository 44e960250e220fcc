/* SPDX-License-Identifier: MIT */
/*
 * The difference between two sealed roots of one map: a walk through both side
 * by side that skips what is the same slot on both sides. What did not change is
 * mostly shared, so the time follows the change. A record that was written anew
 * with the same content, or moved, is no change.
 *
 * A record that both sides share differs if it has expired on one of them. Where
 * that may be, what is shared is looked at, too.
 */
#ifndef TRIE_DIFF_H
#define TRIE_DIFF_H

#include "trie/trie.h"

/* What one side has below the walk's position: a branch, or one record, which
   stands for a branch that leads to it alone, or nothing. */
struct trie_diff_side {
  bool is_branch;
  uint64_t slot;   /* the record's; SLOT_EMPTY: nothing */
  uint64_t bitmap; /* the ways that are taken; 0 at COLLISION_LEVEL */
  struct branch_view branch;
  unsigned next; /* index of the slot to take next */
};

struct trie_diff_step {
  struct trie_diff_side sides[2];
  uint64_t ways_left; /* of either side */
};

/* Good as long as both roots are. */
struct trie_diff {
  uint64_t roots[2];
  uint64_t now_ms[2]; /* what has expired by then is not there */
  bool skips_same;    /* what both share does not differ */
  uint64_t left;      /* nodes that there can still be: bounds hostile tries */
  bool begun;
  bool has_pending;
  struct record_view pending; /* comes next, with nothing on the old side */
  unsigned depth;
  struct trie_diff_step steps[COLLISION_LEVEL + 1];
};

struct trie_change {
  bool has_old, has_new; /* one of them at least */
  struct record_view old_record, new_record;
};

/* `node_count` is a number of nodes that both together do not exceed. Set `now_ms`
   if something may have expired; and clear `skips_same` if what has expired on one
   side alone may be shared. */
void trie_diff_init(struct trie_diff *diff, uint64_t old_root,
                    uint64_t new_root, uint64_t node_count);

/* The next record that differs, each key once; MMCMAP_NOTFOUND at the end. After
   an error the walk stays at its end. */
int trie_diff_next(struct trie_diff *diff, const struct node_source *source,
                   const struct hasher *hasher, struct trie_change *change_out);

#endif
