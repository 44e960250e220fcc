/* SPDX-License-Identifier: MIT */
/*
 * Making a new store, so that a crash at any moment leaves no file that cannot
 * be opened: a new file is made under a temporary name and linked when it is
 * whole; an empty file that is there already is filled in an order that tells
 * an unfinished one from a damaged one.
 */
#ifndef MAINT_CREATE_H
#define MAINT_CREATE_H

#include <stdbool.h>
#include <stdint.h>

struct create_options {
  int hash; /* enum mmcmap_hash_kind */
  uint32_t segment_size;
};

/* A name beside `path` that nobody else uses; the caller frees it. */
int create_temporary_name(const char *path, char **name_out);

/* Makes an empty file beside `path`, under a temporary name, which the caller
   frees. */
int create_begin(const char *path, unsigned mode, char **name_out, int *fd_out);

/* Makes it a store, and gives it the name `path` when it is complete and synced.
   MMCMAP_EEXIST if that is taken. If this fails it may have either name. */
int create_finish(int fd, const char *name, const char *path,
                  const struct create_options *options);

/* True if the file behind `fd` is empty, or is what a crash of
   create_in_place() left. */
int create_is_unfinished(int fd, bool *unfinished_out);

/* Makes a store of the empty or unfinished file, which nobody else uses. */
int create_in_place(int fd, const struct create_options *options);

#endif
