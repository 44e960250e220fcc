/* SPDX-License-Identifier: MIT */
/*
 * A lock between threads of all processes that survives its owner's death: a
 * futex word that names the owner's row in the reader table. It spins for some
 * microseconds before it sleeps, because it is mostly held for less than a
 * sleep and a wake-up cost. A waiter that has slept for a while asks the kernel
 * whether the owner's process still lives, by the lock on its chunk, and takes
 * the lock over if not: it then has inherited it, and must repair what the lock
 * guards before it uses it. (A robust mutex of POSIX threads names its owner by
 * a thread id, which means nothing in another pid namespace.)
 */
#ifndef SHARE_OWNER_LOCK_H
#define SHARE_OWNER_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "os/process.h"
#include "share/readers.h"

#define OWNER_LOCK_WAITED UINT32_C(0x80000000)
#define OWNER_LOCK_DEAD UINT32_C(0x7fffffff)
#define OWNER_LOCK_FOREVER UINT32_MAX

/* When a time-out that begins now is over, and how much of it is left; 0 for what is
   never over. */
static inline uint64_t owner_lock_end_ns(uint32_t timeout_ms) {
  if (timeout_ms == OWNER_LOCK_FOREVER) return 0;
  return process_monotonic_ns() + timeout_ms * UINT64_C(1000000);
}

static inline uint32_t owner_lock_left_ms(uint64_t end_ns) {
  if (end_ns == 0) return OWNER_LOCK_FOREVER;
  uint64_t now_ns = process_monotonic_ns();
  return now_ns < end_ns ? (uint32_t)((end_ns - now_ns + 999999) / 1000000) : 0;
}

/* MMCMAP_EBUSY if it cannot be had within `timeout_ms` (OWNER_LOCK_FOREVER: as long
   as this process does not leave, see `leave_ns` of the readers), or at once if this
   very row has it. `owner` is what readers_owner() gave. */
int owner_lock_acquire(struct readers *readers, struct share_lock *lock,
                       uint32_t owner, uint32_t timeout_ms,
                       bool *inherited_out);

/* Takes the lock if it is free or abandoned; whether it did. */
bool owner_lock_try(struct share_lock *lock, uint32_t owner,
                    bool *inherited_out);

/* Takes the lock over if its owner is dead; whether it did. */
bool owner_lock_inherit(struct readers *readers, struct share_lock *lock,
                        uint32_t owner);

/* Whether that row has the lock. */
static inline bool owner_lock_is_owned(const struct share_lock *lock,
                                       uint32_t owner) {
  return (atomic_load_explicit(&lock->word, memory_order_relaxed) &
          ~OWNER_LOCK_WAITED) == owner;
}

void owner_lock_release(struct share_lock *lock);

/* Gives the lock up with what it guards as it is: who takes it next inherits. */
void owner_lock_abandon(struct share_lock *lock);

#endif
