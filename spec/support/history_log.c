/* SPDX-License-Identifier: MIT */
/*
 * The barrier is a counter that is polled: its users may die, or give up, at
 * any time, and nobody may then wait for them.
 */
#include "history_log.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "os/process.h"

struct history_shared *history_log_share(unsigned client_count) {
  struct history_shared *shared;
  size_t size = sizeof *shared + client_count * sizeof shared->logs[0];
  shared = mmap(NULL, size, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (shared == MAP_FAILED) return NULL;
  shared->client_count = client_count;
  return shared;
}

static void history_log_pause(unsigned *tries) {
  if (++*tries < 100)
    sched_yield();
  else
    process_sleep_ms(1);
}

bool history_log_meet(struct history_shared *shared) {
  unsigned tries = 0, turn = atomic_load(&shared->turn);
  if (atomic_fetch_add(&shared->arrived, 1) + 1 == shared->client_count) {
    atomic_store(&shared->arrived, 0);
    atomic_store(&shared->turn, turn + 1);
  }
  while (atomic_load(&shared->turn) == turn) {
    if (atomic_load(&shared->is_aborted)) return false;
    history_log_pause(&tries);
  }
  return !atomic_load(&shared->is_aborted);
}

void history_log_hand_over(struct history_shared *shared) {
  unsigned filled = atomic_fetch_add(&shared->filled, 1) + 1;
  while (atomic_load(&shared->checked) != filled &&
         !atomic_load(&shared->is_aborted))
    process_sleep_ms(1);
}

bool history_log_has_room(const struct history_shared *shared, size_t count) {
  for (unsigned i = 0; i < shared->client_count; i++)
    if (atomic_load(&shared->logs[i].count) + count > HISTORY_LOG_CAPACITY)
      return false;
  return true;
}

struct operation *history_log_add(struct history_log *log,
                                  const struct operation *operation,
                                  unsigned parts) {
  size_t count = atomic_load_explicit(&log->count, memory_order_relaxed);
  if (count + parts > HISTORY_LOG_CAPACITY) return NULL;
  struct operation *added = &log->operations[count];
  for (unsigned i = 0; i < parts; i++) {
    added[i] = *operation;
    added[i].end_ns = OPERATION_NEVER;
    added[i].is_unknown = true;
    if (parts == 1) continue;
    added[i].key = (uint16_t)i;
    added[i].parts = i == 0 ? (uint16_t)parts : 0;
  }
  atomic_store_explicit(&log->count, count + parts, memory_order_release);
  return added;
}

struct operation *history_log_gather(const struct history_shared *shared,
                                     size_t *count_out) {
  size_t count = 0;
  for (unsigned i = 0; i < shared->client_count; i++)
    count += atomic_load(&shared->logs[i].count);
  struct operation *all = malloc((count + 1) * sizeof *all);
  *count_out = 0;
  if (all == NULL) return NULL;
  for (unsigned i = 0; i < shared->client_count; i++) {
    const struct history_log *log = &shared->logs[i];
    size_t own = atomic_load(&log->count);
    memcpy(all + *count_out, log->operations, own * sizeof *all);
    *count_out += own;
  }
  return all;
}
