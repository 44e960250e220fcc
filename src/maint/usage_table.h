/* SPDX-License-Identifier: MIT */
/*
 * The table of what is alive in the file of a store that was closed properly: it
 * stands behind all that is in use, and the superblock names it. Whatever is
 * wrong with it only means that all is recounted.
 */
#ifndef MAINT_USAGE_TABLE_H
#define MAINT_USAGE_TABLE_H

#include "format/superblock.h"
#include "space/log.h"

/* Makes the shared table for the state that recovery has found. MMCMAP_ENOSPC,
   MMCMAP_EADDRESS. */
int usage_table_install(struct space *space, const struct node_source *source,
                        const struct hasher *hasher,
                        const struct superblock *state);

/* Writes it into the file, and forgets the free segments at the file's end. All
   is committed and nobody else uses the store. */
void usage_table_write(struct log *log, struct usage_table *table_out);

/* The table that a clean superblock names, if it is there and whole, else NULL.
   It has usage_count entries of USAGE_ENTRY_BYTES. */
const uint8_t *usage_table_find(const struct node_source *source,
                                const struct hasher *hasher,
                                const struct superblock *state);

#endif
