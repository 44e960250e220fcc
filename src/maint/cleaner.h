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
 * It works in small quanta under the writer lock. How far it has come stands in
 * the lock file, so all processes go on with the same segment.
 */
#ifndef MAINT_CLEANER_H
#define MAINT_CLEANER_H

#include <stdbool.h>
#include <stdint.h>

#include "txn/writer.h"

/*
 * Looks at nodes of the present victim, or of a new one, until `limit_bytes` of
 * the segment have been looked through; the lock is held, and changes may be
 * made. `found_out`: false if there is nothing worth cleaning. MMCMAP_ENOSPC,
 * MMCMAP_EFULL, MMCMAP_ECORRUPT.
 */
int cleaner_clean(struct writer *writer, uint64_t limit_bytes, bool *found_out);

#endif
