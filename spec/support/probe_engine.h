/* SPDX-License-Identifier: MIT */
/*
 * A bare engine for specs: space, log, readers and one trie over a file of its
 * own, without superblocks, commits and threads. probe_engine.c makes it and
 * drives space and log, probe_trie.c its trie.
 */
#ifndef SUPPORT_PROBE_ENGINE_H
#define SUPPORT_PROBE_ENGINE_H

#include "base/hash.h"
#include "compat.h"
#include "share/readers.h"
#include "space/log.h"
#include "space/space.h"
#include "trie/trie.h"

#define ENGINE_TYPE "mmcmap_probe.engine"

struct engine {
  bool is_open;
  struct space space;
  struct share share;
  struct readers readers;
  struct hasher hasher;
  struct log log;
  struct trie trie;
  _Atomic uint64_t root;
  _Atomic uint64_t count;
  uint64_t first_frame;   /* that frames() has not seen */
  struct share_row *held; /* of hold_snapshot() */
};

struct engine *engine_check(lua_State *L);

/* Adds the trie's methods to the table on top of the stack. */
void probe_trie_methods(lua_State *L);

#endif
