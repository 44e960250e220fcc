/* SPDX-License-Identifier: MIT */
/*
 * What lies in the frames of a segment, and what of it is dead. Nothing here needs
 * the writer lock; whoever has not got it is pinned.
 */
#ifndef MAINT_SCAN_H
#define MAINT_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "trie/trie.h"

/* Nodes that follow each other in a frame, and what is known of them. */
struct scan_batch {
  struct {
    uint64_t offset;
    uint64_t size;
    enum node_kind kind;
    bool is_dead;
  } nodes[TRIE_LANES];
  unsigned count;
  bool is_broken; /* what follows is no node */
};

/* The end of the frame at `offset`; 0 if there is none. */
uint64_t scan_frame_end(const struct node_source *source, uint64_t offset,
                        uint64_t segment_end);

/* Nodes from `offset` on, up to `end`, until `limit` bytes have been gone through. */
void scan_gather(const struct node_source *source, uint64_t offset,
                 uint64_t end, uint64_t limit, struct scan_batch *batch_out);

/* Finds out which nodes of a map whose trie has that root are dead, all at once: it
   has another node in their place, or none. The way to the others is in the caches
   then. */
void scan_find_dead(const struct hasher *hasher, uint32_t map_id, uint64_t root,
                    const struct node_source *source, struct scan_batch *batch);

#endif
