/* SPDX-License-Identifier: MIT */
/*
 * The sweep: deletes what has expired. A round looks at every record of the maps
 * that say that theirs may expire, piece by piece, in the order of a cursor: it
 * walks the live trie under a pin, without a lock, notes some keys that have
 * expired, and then deletes those that still have, under the writer lock, each by
 * a store of its own. So it may be left at every point, and nobody waits for it
 * for longer than some deletions take.
 *
 * Of a map in which it has found nothing that expires it notes that, so that the
 * next rounds leave it out, and a diff need not look at what did not change.
 *
 * A round begins when something may have expired (share/expiry.h), and after a
 * pause: none, if the last round found much to delete, else one that grows with
 * what looking in vain has cost. One process at a time is about it. Where a round is
 * up to is known to its process alone: if that dies, another begins anew.
 *
 * May be called by any thread: one at a time works, the others return at once.
 */
#ifndef TXN_SWEEP_H
#define TXN_SWEEP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "txn/writer.h"

enum {
  SWEEP_BATCH = 32, /* keys that are deleted while the lock is held, and */
  SWEEP_KEY_BYTES = 8192, /* bytes of them, but for the first */
  SWEEP_LOOKS = 512       /* records that are looked at under one pin */
};

/* A copy of bytes; zeros are an empty one. */
struct sweep_bytes {
  uint8_t *data;
  size_t size;
  size_t capacity;
};

/* Guarded by `is_busy`. */
struct sweep {
  struct writer *writer;
  _Atomic bool is_busy;
  uint64_t round;   /* the one under way; 0: none */
  uint64_t work_ns; /* how long it has taken so far */
  uint64_t pause_ns;
  uint64_t earliest_ms; /* of the records that it has met, and left */
  uint64_t looked_count;
  uint64_t deleted_count;
  bool is_in_map;             /* it has come to a map: */
  bool is_behind_map;         /* or has just been through it, */
  bool has_met;               /* and met what expires, and has left it */
  bool is_named;              /* not the default one, but `name` */
  bool is_behind_key;         /* and in it behind `key` */
  struct sweep_bytes name;    /* of the last named map */
  struct sweep_bytes key;     /* the last one that was looked at */
  struct sweep_bytes expired; /* keys, one behind the other */
  struct trie_key batch[SWEEP_BATCH]; /* the same, in `expired` */
  size_t batch_count;
};

/* What a call has come to. */
struct sweep_outcome {
  bool has_changed; /* something was deleted, and is to be committed */
  bool has_more;    /* and there is more to do at once */
};

void sweep_init(struct sweep *sweep, struct writer *writer);
void sweep_destroy(struct sweep *sweep);

/* Goes on until `end_ns`, monotonic, or until there is nothing to do. What cannot
   be deleted is left for later. */
struct sweep_outcome sweep_run(struct sweep *sweep, uint32_t timeout_ms,
                               uint64_t end_ns);

#endif
