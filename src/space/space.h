/* SPDX-License-Identifier: MIT */
/*
 * The space of the data file: how long it is, which segments have been begun,
 * growing it by really allocated bytes, and giving back what is free. Free
 * segments are begun again, the lowest first, or those of one piece after each
 * other (space/piece.h). The writer lock guards all but the
 * length, which readers compare offsets with and which changes under a lock of
 * its own; it becomes less under both.
 *
 * Invariant: no root that anybody may look at leads beyond the end of the file.
 * `known_bytes` bounds what a damaged file can lead to; it may be too high for a
 * moment after another process has cut the file. The length that all processes
 * share is compared with the file before it is believed.
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

/*
 * The kernel has a file in memory in pages as large as the pieces that it was first
 * written or read in. Large ones are read faster, because one translation of an
 * address does for more; but a sync writes all of a page that anything was stored
 * into. So a file that much is written to grows in large pieces, and where there is
 * little from one commit to the next, what is written lies in segments whose pages
 * are small: they are made so when they are begun.
 */
enum {
  SPACE_FILE_SIZE_MIN = 65536,         /* of a new file */
  SPACE_GROWTH_MIN = 65536,            /* the file grows by at least this, */
  SPACE_PUNCH_MAX = 4 << 20,           /* given back at once at most */
  SPACE_AHEAD_MAX = 1 << 20,           /* written ahead at once at most */
  SPACE_GROWTH_MAX = 32 * 1024 * 1024, /* at most this, a 64th in between */
  SPACE_PIECE_BYTES = 2 << 20,      /* what a processor maps at once; files */
  SPACE_PIECES_FROM = 16 << 20,     /* of this size may grow in such pieces, */
  SPACE_PIECES_AHEAD_MAX = 8 << 20, /* so much of them ahead */
  SPACE_RESERVE_SEGMENTS = 6,       /* more than one in each quarter (below) */
  SPACE_RESERVE_MIN = 32768,        /* kept for what frees space, at least, */
  SPACE_RESERVE_MAX = 64 << 20      /* and at most, if the file may grow */
};

/* Who appends, and how many quarters of the reserve are left for those below. */
enum space_claim {
  SPACE_FOR_PUTS,    /* all four */
  SPACE_FOR_UPKEEP,  /* three */
  SPACE_FOR_DELETES, /* two */
  SPACE_FOR_ROOM,    /* one: what makes room for puts */
  SPACE_AT_LAST,     /* none, what makes room for deletes; but a segment for */
  SPACE_FOR_COMMITS  /* commits, without which nothing becomes free */
};

struct space {
  int fd;
  struct map map;
  uint32_t segment_size;
  unsigned segment_shift; /* its binary logarithm */
  uint8_t file_id[16];
  uint64_t max_size_bytes; /* 0: no limit */
  uint64_t segment_count;  /* begun: the writer's working copy */
  bool in_pieces;          /* grow in pieces: of the writer, too */
  bool is_fine;            /* begin segments in small pages: the same */
  uint64_t refused_ns;     /* the disk was full for that: monotonic, or 0 */
  struct readers *readers; /* whose share has the length and its lock */
  _Atomic uint64_t known_bytes; /* of the file, within the mapping */
  _Atomic uint32_t claim;       /* enum space_claim, of whoever has the writer
                                   lock; who writes ahead reads it without */
  uint64_t granted_bytes;  /* how far the writer may append without asking */
  uint64_t writable_bytes; /* how far the writer may store: guarded by its lock,
                              under which alone the file becomes shorter */
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

/* The kernel may have the file up to `end` in large pages. */
void space_note_coarse(struct space *space, uint64_t end);

/* Whoever opens the store says how long the file is, which it has seen. */
void space_set_size(struct space *space, uint64_t size_bytes);

/*
 * Makes the file at least `end` bytes long, and as much longer, or has as much in
 * free segments, as is kept in reserve: so what frees space finds some when the
 * disk or the store is full. MMCMAP_EFULL beyond the limit, MMCMAP_EADDRESS beyond
 * the mapping, MMCMAP_ENOSPC.
 */
int space_ensure(struct space *space, uint64_t end);

/* Whether so much can be appended, beyond the reserve, before anything has to be asked
   of the file system. The writer lock is held. */
bool space_has_spare(const struct space *space, uint64_t size);

/* Notes how much is kept in reserve: `wanted`, as far as that is no great part of
   the file. */
void space_set_reserve(struct space *space, uint64_t wanted_bytes);

/* Who appends from now on. The writer lock is held. */
void space_set_claim(struct space *space, enum space_claim claim);

/* In fewer segments, which is all that the limit allows, the log has one head: another
   for branches would take one of them. */
enum { SPACE_SMALL_SEGMENTS = 16 };

static inline bool space_is_small(const struct space *space) {
  return space->max_size_bytes != 0 &&
         space->max_size_bytes >> space->segment_shift < SPACE_SMALL_SEGMENTS;
}

/* How long the file can become, by its limit, or where the disk is nearly full; 0: it
   is not known to end. */
uint64_t space_limit(const struct space *space);

/* Looks how much the disk has, if little was left. Under the writer lock. */
void space_look_at_disk(struct space *space);

/* Whether puts may begin a segment. */
bool space_has_room_for_puts(const struct space *space);

/* Whether whoever appends leaves no room for more records, so that deleting goes on to
   work. */
bool space_is_crowded(const struct space *space);

/* MMCMAP_EFULL or MMCMAP_ENOSPC if it is. */
int space_check_crowd(const struct space *space);

/* Whether whoever appends may use all there is: what it takes has to come back. */
static inline bool space_is_at_last(const struct space *space) {
  uint32_t claim = atomic_load_explicit(&space->claim, memory_order_relaxed);
  return claim == SPACE_AT_LAST || claim == SPACE_FOR_ROOM;
}

/* Whether segments that are free already may be begun: MMCMAP_OK, or as of
   space_ensure(), if what would be left is less than the reserve. */
int space_check_reserve(struct space *space, uint64_t number, uint64_t run);

/*
 * Grows the file by zeros that are written, not only allocated, if little is
 * left behind `end`: a sync of space that was never written costs the file
 * system a commit of its journal. In small writes, because a change to a large
 * folio would write all of it; or, `in_pieces`, in large ones, if it is seldom
 * synced: then it is read by far fewer translations of addresses. It ends after a
 * millisecond or one piece. Failing is no error: the file then grows when it must.
 */
void space_write_ahead(struct space *space, uint64_t end, bool in_pieces);

/* Where `run` segments may be begun: free ones, or new ones behind those that
   there are. The first one of the file is for the log alone. Free ones that had
   no blocks may have got some. */
uint64_t space_choose_segments(struct space *space, enum segment_kind kind,
                               uint64_t run);

/* Where one segment may be begun for the log, by a head that leaves segment
   `left`: as of piece_find_free(), or as of space_choose_segments(). */
uint64_t space_choose_next(struct space *space, uint64_t left);

/* Whether somebody compacts the store. */
bool space_is_compacting(const struct space *space);

/* Whether so many segments, side by side, would be begun in small pages: not where the
   blocks that they have cannot be missed. */
bool space_makes_fine(const struct space *space, uint64_t run);

/* So many segments that have blocks are not free any more. */
void space_use_free(struct space *space, uint64_t count);

/* Begins the segments that space_choose_segments() has chosen, in the open epoch
   `epoch`, with blocks up to `end`, and writes their header. */
int space_begin_segments(struct space *space, enum segment_kind kind,
                         uint64_t number, uint64_t run, uint64_t end,
                         uint64_t epoch);

/* The writer lock has been taken after somebody else had it. */
void space_enter(struct space *space);

/* Gives the file's end from `end` on back to the file system, but for the reserve,
   if that is worth it; or `at_all`, all of it. The writer lock is held, nothing
   behind `end` is in use. */
int space_cut(struct space *space, uint64_t end, bool at_all);

/* Gives the blocks of some free segments back, of those after the first `kept`: so
   many as does not take long. Whether there are more. The writer lock is held. */
bool space_punch(struct space *space, uint64_t kept);

/* Cuts the file down to what lies before `end`. Nobody else may use the store
   any more: the end of the file moves below pages that were mapped. */
int space_trim(struct space *space, uint64_t end);

#endif
