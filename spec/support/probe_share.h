/* SPDX-License-Identifier: MIT */
/*
 * A bare connection to a lock file for specs: a share and its reader table, no
 * store. probe_share.c opens it and shows its words, probe_share_rows.c drives
 * the reader table, probe_share_threads.c has threads that take locks.
 */
#ifndef SUPPORT_PROBE_SHARE_H
#define SUPPORT_PROBE_SHARE_H

#include "probe.h"
#include "share/readers.h"

#define CONNECTION_TYPE "mmcmap_probe.connection"

struct connection {
  bool is_open;
  struct share share;
  struct readers readers;
};

struct connection *connection_check(lua_State *L, int arg);

/* The lock that argument `arg` names: "writer", "growth", "leader". */
struct share_lock *connection_lock(lua_State *L, struct connection *connection,
                                   int arg);

/* What owner_lock_acquire() came to: whether it was inherited, or as
   probe_fail(). */
int connection_push_acquired(lua_State *L, int code, bool inherited);

/* Add methods to the table on top of the stack. */
void probe_share_rows_methods(lua_State *L);
void probe_share_threads_methods(lua_State *L);

/* Makes the type of threads known. */
void probe_share_threads_open(lua_State *L);

#endif
