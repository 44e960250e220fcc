/* SPDX-License-Identifier: MIT */
/*
 * What the clients of history.c, threads of several processes, share with the
 * parent that checks them: a log each, and a barrier. All of it lies in one
 * anonymous mapping that is made before the first fork, so that a log outlives
 * the process that wrote it.
 *
 * Logs are written by their clients alone, and read and emptied by others only
 * while all clients wait at the barrier, or are gone.
 */
#ifndef SUPPORT_HISTORY_LOG_H
#define SUPPORT_HISTORY_LOG_H

#include <stdatomic.h>

#include "operation.h"

enum { HISTORY_LOG_CAPACITY = 25000 }; /* operations of a client in a batch */

struct history_log {
  _Atomic size_t count; /* the last one may be pending */
  struct operation operations[HISTORY_LOG_CAPACITY];
};

struct history_shared {
  unsigned client_count;
  atomic_uint arrived, turn;   /* the barrier's */
  atomic_bool is_over;         /* set between two barriers */
  atomic_bool is_aborted;      /* nobody waits any longer */
  atomic_uint filled, checked; /* batches, by client 0 and by the parent */
  atomic_ulong faults;
  struct history_log logs[];
};

/* NULL if there is no memory. It is never given back. */
struct history_shared *history_log_share(unsigned client_count);

/* Waits for all clients; false if that is pointless. */
bool history_log_meet(struct history_shared *shared);

/* Client 0, while the others are between two barriers: has the parent check and
   empty all logs. */
void history_log_hand_over(struct history_shared *shared);

/* Whether every log has room for so many operations. */
bool history_log_has_room(const struct history_shared *shared, size_t count);

/* Adds a pending operation: its client fills in the end. A snapshot has `parts`
   of them. NULL if the log is full. */
struct operation *history_log_add(struct history_log *log,
                                  const struct operation *operation,
                                  unsigned parts);

/* A copy of all logs, to be freed; NULL if there is no memory. */
struct operation *history_log_gather(const struct history_shared *shared,
                                     size_t *count_out);

#endif
