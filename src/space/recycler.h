/* SPDX-License-Identifier: MIT */
/*
 * Nodes that were born and unlinked since the log was last closed for a commit,
 * kept by kind and exact size until no reader and no snapshot can see them, then
 * handed out again. Exact sizes keep a frame scannable: a node is only ever written
 * over by one of its kind and size, or a branch by two that fill its place.
 * Everything is forgotten when the log is closed, because then the frames are about
 * to be committed. The writer lock guards it.
 *
 * A node that was unlinked in the epoch of its birth is in no sealed moment. One
 * that was unlinked in a later epoch is in those between, which a snapshot may have.
 */
#ifndef SPACE_RECYCLER_H
#define SPACE_RECYCLER_H

#include <stdbool.h>
#include <stdint.h>

#include "format/node.h"
#include "share/readers.h"

enum {
  RECYCLER_RECORD_SIZE_MAX = 4096,
  RECYCLER_CLASSES = BRANCH_WAYS + RECYCLER_RECORD_SIZE_MAX / 8 + 1,
  /* Looking for the horizon costs a line per reader: not more often than once
     per so many tries that could use it, or nodes that came. */
  RECYCLER_NODES_PER_LOOK = 32,
  /* A branch is cut in two only if so many of its size are to spare. */
  RECYCLER_SPARE = 32
};

struct recycled {
  uint64_t offset;
  uint64_t tick;  /* when it was unlinked */
  uint64_t epoch; /* in which; 0: that of its birth */
};

/* A queue, oldest first; `capacity` is 0 or a power of two. */
struct recycler_ring {
  struct recycled *items;
  uint32_t first;
  uint32_t count;
  uint32_t capacity;
};

struct recycler {
  struct readers *readers;
  uint64_t horizon;    /* what was unlinked at ticks below may be used, */
  uint64_t held_epoch; /* if it is not of a later epoch than that: of the oldest
                           snapshot that may hold it */
  uint64_t first_epoch; /* no node here is older */
  uint32_t tries;       /* since that was found */
  uint32_t came;
  uint64_t reused_bytes; /* since the store was opened */
  uint64_t spare;        /* a bit for each class of branches of which there are
                            RECYCLER_SPARE or more */
  struct recycler_ring rings[RECYCLER_CLASSES];
};

/* The class of a branch with `slot_count` slots and no trailer, or of a record
   of `size` bytes with no flags; -1 if there is none. */
static inline int recycler_class_of_branch(uint32_t slot_count) {
  return (int)slot_count - 1;
}

static inline int recycler_class_of_record(uint64_t size) {
  return size <= RECYCLER_RECORD_SIZE_MAX ? (int)(BRANCH_WAYS + size / 8) : -1;
}

void recycler_init(struct recycler *recycler, struct readers *readers);
void recycler_destroy(struct recycler *recycler);

/* Keeps a node that has just been unlinked, in `epoch`, or, if that is 0, in the
   epoch of its birth. Without memory it is dropped. */
void recycler_put(struct recycler *recycler, int class, uint64_t offset,
                  uint64_t epoch);

/* The same for a node that nobody could ever see. */
void recycler_put_unseen(struct recycler *recycler, int class, uint64_t offset);

/* True and a node of this class that nobody can see, if there is one. */
bool recycler_take(struct recycler *recycler, int class, uint64_t *offset_out);

/*
 * The same for a branch of more slots, if there are many of that size: its
 * place holds a branch of `slot_count` slots and behind it one of
 * `rest_out` >= 1 slots, which the caller gives back by recycler_put_rest()
 * once it can be told from the file where it begins.
 */
bool recycler_take_larger_branch(struct recycler *recycler, uint32_t slot_count,
                                 uint64_t *offset_out, uint32_t *rest_out);
void recycler_put_rest(struct recycler *recycler, uint32_t slot_count,
                       uint64_t offset);

/* Forgets all nodes: what comes from now on is not older than `first_epoch`. */
void recycler_clear(struct recycler *recycler, uint64_t first_epoch);

#endif
