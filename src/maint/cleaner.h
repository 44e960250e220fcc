/* SPDX-License-Identifier: MIT */
/*
 * The cleaner: empties segments in which little is alive, by copying that to the
 * head of the log, so that they can be begun again (the segment cleaner of
 * Rosenblum and Ousterhout, "The design and implementation of a log-structured
 * file system", 1992). It scans a segment's frames, asks the trie of each node
 * whether it is still in its place, and replaces those that are by copies: an
 * ordinary change, published by one store, that nobody sees. A record keeps its
 * epoch, because nobody has changed it.
 *
 * It works in small quanta, under the writer lock as far as it changes something.
 * How far it has come stands in the lock file, so all processes go on with the same
 * segment.
 */
#ifndef MAINT_CLEANER_H
#define MAINT_CLEANER_H

#include <stdbool.h>
#include <stdint.h>

#include "os/thread.h"
#include "txn/writer.h"

/*
 * Looks at nodes of the present victim, or of a new one, until `limit_bytes` of
 * the segment have been looked through; the lock is held, and changes may be
 * made. `found_out`: false if there is nothing worth cleaning. MMCMAP_ENOSPC,
 * MMCMAP_EFULL, MMCMAP_ECORRUPT.
 */
int cleaner_clean(struct writer *writer, uint64_t limit_bytes, bool *found_out);

/* Where the cleaner is, as the lock file has it. */
struct cleaner_position {
  uint64_t victim;
  uint64_t run;
  uint64_t cleaned_count;
  uint64_t offset;
  uint64_t frame_end;
};

enum { CLEANER_AHEAD_BYTES = 8192, CLEANER_AHEAD_NODES = 192 };

/* Nodes before the cleaner; begins as zeros. */
struct cleaner_ahead {
  struct cleaner_position from; /* it must be here for the rest of them */
  struct cleaner_position to;   /* and is here when it is through */
  bool is_pinned;               /* they are to be looked at yet */
  bool is_in_vain;              /* nothing came of looking */
  unsigned next;
  unsigned count;
  struct cleaner_node {
    uint64_t offset;
    uint64_t size;
    uint64_t frame_end;
    enum node_kind kind;
    bool is_dead;
  } nodes[CLEANER_AHEAD_NODES];
  /* Moved beyond what was looked at, or asked for: never set to 0 here. */
  uint64_t beside_bytes;
};

/* As cleaner_clean(), but goes by what cleaner_look_ahead() has found, as long as
   nobody else has gone on meanwhile; of that, `limit_bytes` are moved. When nothing
   is left of it, and it `goes_on`, the thread is pinned (is_pinned), and calls
   cleaner_look_ahead() as soon as it has let the lock go. */
int cleaner_clean_ahead(struct writer *writer, struct cleaner_ahead *ahead,
                        uint64_t limit_bytes, bool goes_on, bool *found_out);

/* Looks, without the writer lock, which nodes before the cleaner are dead: most of
   the work. The thread is not pinned any more. */
void cleaner_look_ahead(struct writer *writer, struct cleaner_ahead *ahead);

/* Whether something of it is left. */
bool cleaner_is_ahead(const struct cleaner_ahead *ahead);

/* The threads of a process clean in turn: two at once would look ahead in vain, each
   at what the other moves, and take the writer lock from each other all the time. */
struct cleaner_turns {
  struct thread_mutex mutex;     /* before the writer lock */
  _Atomic uint64_t looked_bytes; /* through which all of them have looked */
};

/* Waits for its turn, but not long, and until `end_ns` at the latest; whether it has
   come, and the mutex is held. What others have cleaned meanwhile is taken from
   `left`. */
bool cleaner_take_turn(struct cleaner_turns *turns, uint32_t timeout_ms,
                       uint64_t end_ns, uint64_t *left);

#endif
