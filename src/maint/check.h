/* SPDX-License-Identifier: MIT */
/*
 * Checking a store that is open, while others write: everything that one moment
 * leads to, the superblocks, and the log as far as it is on disk. It only reads
 * and takes no lock. What changes meanwhile is never taken for damage: nodes of
 * a sealed root and completed frames do not change, and a superblock that cannot
 * be read is looked at again.
 */
#ifndef MAINT_CHECK_H
#define MAINT_CHECK_H

#include "maint/verify.h"

struct check_input {
  struct node_source source; /* all of the file, as long as it is now */
  const struct hasher *hasher;
  const struct superblock *constant; /* for what never changes */
  bool is_readonly;
  uint64_t root; /* sealed, and kept by the caller */
  uint64_t count;
  uint64_t newest_epoch;
  const _Atomic uint64_t *durable_epoch; /* what is promised to be on disk */
};

/* Adds to a report that the caller has emptied but for `watch`. The first
   failure's code; MMCMAP_ENOMEM; what `watch->progress` has stopped it with. */
int check_store(const struct check_input *input, struct verify_report *report);

#endif
