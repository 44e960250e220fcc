/* SPDX-License-Identifier: MIT */
/*
 * A frame: a run of nodes that the epochs of one commit appended to a segment.
 * All frames form one chain: each names the next and carries the checksum of the
 * one before, so that recovery accepts exactly the frames that were written one
 * after the other under one salt (the write-ahead log of SQLite has the same
 * idea). The header is completed when the epochs are committed.
 */
#ifndef FORMAT_FRAME_H
#define FORMAT_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "format/node.h"

enum {
  FRAME_HEADER_BYTES = 72,
  FRAME_KIND = 0x46,     /* where a node's header has its kind */
  FRAME_ENDS_COMMIT = 1, /* flag: root, count and content epoch are those of the
                            commit, which is complete with this frame */
  FRAME_HAS_LARGE = 2    /* flag: a record in it has pages of its own */
};

struct frame {
  uint64_t salt;
  uint64_t epoch; /* when completed: the newest of the commit */
  unsigned flags;
  uint64_t previous; /* checksum of the frame before */
  uint64_t next_offset;
  uint64_t root;
  uint64_t count;
  uint64_t content_epoch;
  uint32_t size_bytes; /* header and nodes */
};

/* Writes what must stand at the beginning of a frame that is being filled:
   salt and epoch, and a checksum that does not fit. */
void frame_begin(uint8_t *at, uint64_t salt, uint64_t epoch);

/* Whether a frame of that salt, opened or closed in that epoch or later, begins
   at `at`. */
bool frame_is_of(const uint8_t *at, uint64_t salt, uint64_t oldest_epoch);

/* Says in the header at `at` what the frame holds, when nothing is appended to
   it any more; `previous` and the checksum aside. */
void frame_close(uint8_t *at, const struct frame *frame);

/* Reads a frame that was closed but not completed: checks that it lies within
   its segment and the source. MMCMAP_ECORRUPT. */
int frame_read_closed(const struct node_source *source, uint64_t offset,
                      uint32_t segment_size, uint64_t salt,
                      struct frame *frame_out);

/* Completes the header at `at` of a closed frame, whose nodes follow it, and
   returns the checksum. Doing it again does no harm. */
uint64_t frame_complete(uint8_t *at, const struct frame *frame,
                        const struct hasher *hasher);

/*
 * Checks the frame at `offset`: that it lies within its segment and the
 * source, carries `salt` and `previous`, and that its checksum fits.
 * MMCMAP_ECORRUPT if not: then the log ends here.
 */
int frame_read(const struct node_source *source, uint64_t offset,
               uint32_t segment_size, uint64_t salt, uint64_t previous,
               const struct hasher *hasher, struct frame *frame_out,
               uint64_t *checksum_out);

#endif
