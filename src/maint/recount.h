/* SPDX-License-Identifier: MIT */
/*
 * Recounting what is alive: after a power cut, when the counts are lost, and
 * when they are known to be too high. It walks all that a sealed root leads to,
 * in small steps, without the writer lock, while others go on: what they link
 * and unlink meanwhile is in the table already (space/usage.h), and is added to.
 *
 * One process at a time recounts. One that has not gone on for a while is taken
 * for dead: another begins anew, and what the first one found is not used.
 */
#ifndef MAINT_RECOUNT_H
#define MAINT_RECOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "format/node.h"
#include "txn/saved.h"
#include "txn/writer.h"

struct recount_step {
  struct branch_view branch;
  unsigned next;
};

struct recount {
  uint64_t serial; /* 0: not under way */
  struct share_row *row;
  uint64_t mark;   /* of the snapshot that keeps what is walked */
  uint64_t *roots; /* of tries, as they are found; the first ones have been */
  size_t root_count;
  size_t root_capacity;
  size_t roots_begun;
  unsigned depth;
  struct recount_step steps[COLLISION_LEVEL + 1];
  struct usage_found *found; /* in each segment, so far */
  uint64_t segment_count;
  uint64_t dated; /* segments of which it is known when they were begun */
  _Atomic uint64_t *alive_ns; /* where it says that it goes on; NULL: nowhere */
  uint64_t total_bytes;       /* more than the file has: the trie is no trie */
};

/* Whether nobody else recounts. */
bool recount_is_ours(const struct recount *recount,
                     const struct writer *writer);

/* Goes on, or begins, until it is done or `end_ns` has come. MMCMAP_OK:
   `done_out` tells. MMCMAP_EBUSY, MMCMAP_ENOMEM, MMCMAP_ECORRUPT: it has been
   given up; nothing is free as long as it has not been done. */
int recount_continue(struct recount *recount, struct writer *writer,
                     uint32_t timeout_ms, uint64_t end_ns, bool *done_out);

/* All of it, for the root of a store that nobody changes. MMCMAP_ENOMEM, MMCMAP_ECORRUPT: the
   segments stay uncounted. */
int recount_at_once(const struct space *space, uint64_t root);

/* Gives it up. */
void recount_end(struct recount *recount, struct readers *readers);

#endif
