/* SPDX-License-Identifier: MIT */
/*
 * Moving what is alive: a copy of a node takes its place, by an ordinary change,
 * published by one store, that nobody sees. The branches that lead to it are copied,
 * as for any change; if there are few other changes between two commits, this is
 * most of what moving writes. So what hangs from a branch that is copied, and will
 * soon have to be moved itself, is moved with it.
 *
 * The writer lock is held, and changes may be made. What is no node of the live trie
 * is left alone: MMCMAP_OK. Else MMCMAP_ENOSPC, MMCMAP_EFULL, MMCMAP_ECORRUPT.
 */
#ifndef MAINT_MOVE_H
#define MAINT_MOVE_H

#include <stdint.h>

#include "txn/writer.h"

/* What looks like a node of this kind, within the source. */
int move_node(struct writer *writer, const struct node_source *source,
              uint64_t offset, enum node_kind kind);

/* The large value that begins with the page at `offset`, within the source: its
   header tells whose it is. */
int move_large_value(struct writer *writer, const struct node_source *source,
                     uint64_t offset);

#endif
