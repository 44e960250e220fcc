/* SPDX-License-Identifier: MIT */
/*
 * The log: where nodes are appended. One frame is open; a node goes behind the
 * last one, or, if the segment is full, into a new frame in a new segment.
 * Large values go to whole pages of segments of their own. The writer lock
 * guards everything here.
 *
 * Invariant: behind the open frame there is room for one more frame header in
 * space that is already there, as long as the frame holds a node: so a seal
 * after a change cannot fail for want of space.
 */
#ifndef SPACE_LOG_H
#define SPACE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/frame.h"
#include "format/superblock.h"
#include "space/recycler.h"
#include "space/space.h"

/* A log is not gone on with at an epoch from here on, which is a file's word:
   no session can seal so often that it comes to NODE_EPOCH_LIMIT. */
#define LOG_EPOCH_MAX (NODE_EPOCH_LIMIT / 2)

/* A frame that is closed, but whose header is not complete. */
struct log_frame {
  uint64_t offset;
  struct frame frame; /* `previous` is filled in by the commit */
};

struct log {
  struct space *space;
  const struct hasher *hasher;
  uint64_t salt;
  uint64_t epoch;        /* the open epoch */
  uint64_t frame_offset; /* the open frame; 0 before log_prepare() */
  uint64_t cursor;       /* where the next node goes */
  uint64_t segment_end;
  bool frame_has_large;
  struct superblock_head large; /* where the next large value goes */
  struct log_frame *closed;     /* in the order of the chain */
  size_t closed_count;
  size_t closed_capacity;
  struct recycler recycler;
  uint64_t written_bytes; /* handed out since the store was opened, */
  uint64_t large_bytes;   /* of them for large values */
};

/* What a seal fixes of the epoch that it closes. */
struct log_root {
  uint64_t root;
  uint64_t count;
  uint64_t catalog;
};

void log_init(struct log *log, struct space *space, struct readers *readers,
              const struct hasher *hasher);
void log_destroy(struct log *log);

/* Makes ready to go on at the heads that recovery found, which lie in segments
   that have been begun, or in a new segment if there is no room. Nothing in the
   log is written yet: log_head() is where it will go on. */
int log_prepare(struct log *log, uint64_t salt, uint64_t epoch,
                const struct superblock_head heads[SUPERBLOCK_HEADS]);

/* Opens the first frame, after a superblock with the salt is on disk. */
void log_start(struct log *log);

/* The part of log_alloc() that opens a new segment or grows the file. */
int log_make_room(struct log *log, uint64_t size);

/* Space for a node of `size` bytes, a multiple of 8, at most a segment less
   its headers. The caller fills it before it allocates again. */
static inline int log_alloc(struct log *log, uint64_t size,
                            uint64_t *offset_out) {
  uint64_t end = log->cursor + size + FRAME_HEADER_BYTES;
  if (UNLIKELY(end > log->segment_end || end > space_size(log->space))) {
    int code = log_make_room(log, size);
    if (code != MMCMAP_OK) {
      *offset_out = 0;
      return code;
    }
  }
  *offset_out = log->cursor;
  log->cursor += size;
  log->written_bytes += size;
  return MMCMAP_OK;
}

/* The largest node that log_alloc() can give. */
static inline uint64_t log_node_size_max(const struct log *log) {
  return log->space->segment_size - SEGMENT_HEADER_BYTES -
         2 * FRAME_HEADER_BYTES;
}

/* Whole pages for a large value; `size` is a multiple of the page size. */
int log_alloc_large(struct log *log, uint64_t size, uint64_t *offset_out);

/* The node allocated last refers to pages of log_alloc_large(). */
static inline void log_note_large(struct log *log) {
  log->frame_has_large = true;
}

/* Where the engine writes what stands at `offset`. */
static inline uint8_t *log_at(const struct log *log, uint64_t offset) {
  return log->space->map.write + offset;
}

/* Closes the open frame as the end of its epoch and opens the next epoch,
   `next_epoch`. On failure nothing has changed. */
int log_seal(struct log *log, const struct log_root *root, uint64_t next_epoch);

/* Hands over the closed frames; the caller frees the array. */
struct log_frame *log_take_closed(struct log *log, size_t *count_out);

/* Where the open frame begins: the head that a superblock names if all closed
   frames are on disk. */
struct superblock_head log_head(const struct log *log);

/* The end of what has been handed out: the file is longer. */
uint64_t log_end(const struct log *log);

#endif
