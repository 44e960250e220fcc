/* SPDX-License-Identifier: MIT */
/*
 * The temporary store is an ordinary one with a lock file beside it, which goes
 * when the store gets its name.
 */
#include "making.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "maint/create.h"

static void forget(struct making *making) {
  free(making->path);
  free(making->temporary);
  memset(making, 0, sizeof *making);
}

static void remove_lock_file(const struct making *making) {
  size_t size = strlen(making->temporary) + sizeof "-lock";
  char *name = malloc(size);
  if (name == NULL) return;
  snprintf(name, size, "%s-lock", making->temporary);
  (void)file_unlink(name);
  free(name);
}

int making_begin(struct making *making, const char *path,
                 const mmcmap_options *options,
                 const struct store_internals *internals) {
  mmcmap_options own;
  memset(making, 0, sizeof *making);
  mmcmap_options_init(&own);
  own.durability = MMCMAP_MANUAL;
  own.exclusive = true;
  own.hash = options->hash;
  own.mode = options->mode;
  own.allow_network = options->allow_network;
  making->path = strdup(path);
  int code = making->path == NULL
                 ? error_set(MMCMAP_ENOMEM, "path")
                 : create_temporary_name(path, &making->temporary);
  if (code == MMCMAP_OK)
    code = mmcmap_open_with(making->temporary, &own, internals, &making->copy);
  if (code == MMCMAP_OK) return code;
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  if (making->temporary != NULL) { /* it may have come so far as to be there */
    (void)file_unlink(making->temporary);
    remove_lock_file(making);
  }
  forget(making);
  error_restore(&failure);
  return code;
}

/* The first record makes it, and it stays when that is deleted. */
int making_map(mmcmap *map) {
  mmcmap_slice empty = {.data = "", .size = 0};
  int code = mmcmap_put(map, empty, empty);
  return code == MMCMAP_OK ? mmcmap_delete(map, empty) : code;
}

int making_finish(struct making *making, bool replaces) {
  int code = mmcmap_close(making->copy);
  making->copy = NULL;
  remove_lock_file(making);
  if (code == MMCMAP_OK)
    code = replaces ? file_rename(making->temporary, making->path)
                    : file_link(making->temporary, making->path);
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  if (code != MMCMAP_OK || !replaces) (void)file_unlink(making->temporary);
  if (code == MMCMAP_OK)
    code = file_sync_folder_of(making->path);
  else
    error_restore(&failure);
  forget(making);
  return code;
}

void making_abandon(struct making *making) {
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  if (mmcmap_remove(making->copy) != MMCMAP_OK) {
    (void)mmcmap_close(making->copy);
    (void)file_unlink(making->temporary);
    remove_lock_file(making);
  }
  forget(making);
  error_restore(&failure);
}
