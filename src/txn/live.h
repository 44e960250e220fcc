/* SPDX-License-Identifier: MIT */
/*
 * The live state of a store: what readers load and writers publish. The root
 * changes by one store per change; whoever needs root and count of the same
 * moment takes them under the writer lock.
 */
#ifndef TXN_LIVE_H
#define TXN_LIVE_H

#include <stdatomic.h>
#include <stdint.h>

struct live {
  _Atomic uint64_t root;          /* R5: stored with release, loaded with
                                     acquire after the pin */
  _Atomic uint64_t count;         /* stored after the root */
  _Atomic uint64_t open_epoch;    /* the epoch being written */
  _Atomic uint64_t changed_epoch; /* the epoch of the last change */
  _Atomic uint64_t durable_epoch; /* no change up to it can be lost */
};

/* A moment that stays: a root whose epoch is sealed. */
struct moment {
  uint64_t root;
  uint64_t count;
  uint64_t epoch; /* of the last change in it */
};

#endif
