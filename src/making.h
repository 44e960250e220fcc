/* SPDX-License-Identifier: MIT */
/*
 * A store that is made whole before it gets its name: opened under a temporary
 * one, filled through its handle, then closed, which leaves it clean and synced,
 * and only then renamed or linked. Until then nothing of it is to be seen at the
 * name, whatever happens.
 */
#ifndef MAKING_H
#define MAKING_H

#include "store.h"

struct making {
  mmcmap *copy; /* to be filled */
  char *path;
  char *temporary;
};

/* Begins a store that is to be `path`. Of `options` hash, mode and allow_network
   count. MMCMAP_ENOMEM, and as mmcmap_open(). */
int making_begin(struct making *making, const char *path,
                 const mmcmap_options *options,
                 const struct store_internals *internals);

/* Of a map of the copy that has no records yet, by its handle: it is there from now
   on, even if none is put. As mmcmap_put(). */
int making_map(mmcmap *map);

/* Gives it its name, in place of a file that has it if `replaces` is set, else
   MMCMAP_EEXIST. On failure there is nothing of it left. */
int making_finish(struct making *making, bool replaces);

/* Forgets it; what the thread's last error says stays. */
void making_abandon(struct making *making);

#endif
