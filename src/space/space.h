/* SPDX-License-Identifier: MIT */
/*
 * The space of the data file: how long it is, which segments have been begun,
 * and growing it by really allocated bytes. Segments are begun one after the
 * other; none is used again yet. The writer lock guards all but the length,
 * which readers compare offsets with and which changes under a lock of its own.
 *
 * Invariant: the file is at least `known_bytes` long as long as the store is
 * open, so that whatever lies below may be touched in the mapping. The length
 * that all processes share is compared with the file before it is believed.
 */
#ifndef SPACE_SPACE_H
#define SPACE_SPACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "format/node.h"
#include "format/segment.h"
#include "os/map.h"
#include "share/readers.h"

enum {
  SPACE_FILE_SIZE_MIN = 65536,         /* of a new file */
  SPACE_GROWTH_MIN = 65536,            /* the file grows by at least this, */
  SPACE_AHEAD_MAX = 1 << 20,           /* written ahead at once at most */
  SPACE_GROWTH_MAX = 32 * 1024 * 1024, /* at most this, a 64th in between */
  SPACE_PIECE_BYTES = 2 << 20,     /* what a processor maps at once; files */
  SPACE_PIECES_FROM = 16 << 20,    /* of this size may grow in such pieces, */
  SPACE_PIECES_AHEAD_MAX = 8 << 20 /* so much of them ahead */
};

struct space {
  int fd;
  struct map map;
  uint32_t segment_size;
  uint8_t file_id[16];
  uint64_t max_size_bytes;      /* 0: no limit */
  uint64_t segment_count;       /* begun: the writer's working copy */
  bool in_pieces;               /* grow in pieces: of the writer, too */
  struct readers *readers;      /* whose share has the length and its lock */
  _Atomic uint64_t known_bytes; /* of the file, within the mapping */
};

/* What is mapped now; given back by node_source's `refresh`. */
void space_refresh(const void *space, struct node_source *now_out);

static inline struct node_source space_source(const struct space *space) {
  struct node_source source = {
      .base = space->map.read,
      .size = atomic_load_explicit(&space->known_bytes, memory_order_acquire),
      .refresh = space_refresh,
      .context = space,
      .is_cut = false};
  return source;
}

/* How long the file is known to be. */
static inline uint64_t space_size(const struct space *space) {
  return atomic_load_explicit(&space->known_bytes, memory_order_relaxed);
}

/* The same, after a look at what other processes have made it. */
uint64_t space_look(struct space *space);

/* MMCMAP_EADDRESS if other processes have made the file longer than what could
   be mapped here. */
int space_check_range(const struct space *space);

/* Whoever opens the store says how long the file is, which it has seen. */
void space_set_size(struct space *space, uint64_t size_bytes);

/* Makes the file at least `end` bytes long. MMCMAP_EFULL beyond the limit,
   MMCMAP_EADDRESS beyond the mapping, MMCMAP_ENOSPC. */
int space_ensure(struct space *space, uint64_t end);

/*
 * Grows the file by zeros that are written, not only allocated, if little is
 * left behind `end`: a sync of space that was never written costs the file
 * system a commit of its journal. In small writes, because a change to a large
 * folio would write all of it; or, `in_pieces`, in large ones, if it is seldom
 * synced: then it is read by far fewer translations of addresses. Failing is no
 * error: the file then grows when it must.
 */
void space_write_ahead(struct space *space, uint64_t end, bool in_pieces);

/* Begins `run` segments behind those begun so far, in the open epoch `epoch`,
   and writes their header. */
int space_begin_segments(struct space *space, enum segment_kind kind,
                         uint64_t run, uint64_t epoch, uint64_t *number_out);

/* Cuts the file down to what lies before `end`. Nobody else may use the store
   any more: the end of the file moves below pages that were mapped. */
int space_trim(struct space *space, uint64_t end);

#endif
