/* SPDX-License-Identifier: MIT */
#include "share/owner_lock.h"

#include "base/errors.h"
#include "base/testing.h"
#include "os/process.h"
#include "os/thread.h"

enum {
  SPIN_COUNT = 300,
  PROBE_MS = 50 /* how long a waiter sleeps before it looks after the owner */
};

static uint32_t owner_of(uint32_t word) { return word & ~OWNER_LOCK_WAITED; }

/* Takes a lock that nobody has, or that a thread left behind when it ended.
   `flags` is OWNER_LOCK_WAITED if others may sleep on it. */
static bool take(struct share_lock *lock, uint32_t owner, uint32_t flags,
                 bool *inherited_out) {
  uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
  uint32_t before = owner_of(word);
  if (before != 0 && before != OWNER_LOCK_DEAD) return false;
  flags |= word & OWNER_LOCK_WAITED;
  if (!atomic_compare_exchange_strong_explicit(
          &lock->word, &word, owner | flags, memory_order_acquire,
          memory_order_relaxed))
    return false;
  *inherited_out = before == OWNER_LOCK_DEAD;
  return true;
}

bool owner_lock_try(struct share_lock *lock, uint32_t owner,
                    bool *inherited_out) {
  *inherited_out = false;
  return take(lock, owner, 0, inherited_out);
}

bool owner_lock_inherit(struct readers *readers, struct share_lock *lock,
                        uint32_t owner) {
  uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
  uint32_t dead = owner_of(word);
  if (dead == 0 || dead == OWNER_LOCK_DEAD || dead == owner) return false;
  if (readers_is_nobody(readers, dead))
    return atomic_compare_exchange_strong_explicit(
        &lock->word, &word, owner | OWNER_LOCK_WAITED, memory_order_acquire,
        memory_order_relaxed);
  if (!readers_hold_dead(readers, dead)) return false;
  /* R9: as long as we hold the lock of the dead owner's chunk nobody else can
     own a row of it: a word that still names the row names the dead. */
  word = atomic_load_explicit(&lock->word, memory_order_relaxed);
  bool inherited = owner_of(word) == dead &&
                   atomic_compare_exchange_strong_explicit(
                       &lock->word, &word, owner | OWNER_LOCK_WAITED,
                       memory_order_acquire, memory_order_relaxed);
  readers_let_dead_go(readers, dead);
  return inherited;
}

static bool spin(struct share_lock *lock, uint32_t owner, bool *inherited_out) {
  for (int i = 0; i < SPIN_COUNT; i++) {
    if (take(lock, owner, 0, inherited_out)) return true;
    thread_pause();
  }
  return false;
}

/* Sleeps until the lock changes or `wait_ms` have passed. */
static void sleep_on(struct share_lock *lock, uint32_t wait_ms) {
  uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);
  uint32_t owner = owner_of(word);
  if (owner == 0 || owner == OWNER_LOCK_DEAD) return;
  if ((word & OWNER_LOCK_WAITED) == 0 &&
      !atomic_compare_exchange_strong_explicit(
          &lock->word, &word, word | OWNER_LOCK_WAITED, memory_order_relaxed,
          memory_order_relaxed))
    return;
  thread_wait_for_change(&lock->word, word | OWNER_LOCK_WAITED, wait_ms);
}

/* Whether who began to wait `waited_ms` ago has done so for long enough. */
static bool is_long_enough(const struct readers *readers, uint32_t timeout_ms,
                           uint64_t waited_ms, uint64_t now_ns) {
  if (timeout_ms != OWNER_LOCK_FOREVER) return waited_ms >= timeout_ms;
  uint64_t leave_ns = atomic_load(&readers->leave_ns);
  return leave_ns != 0 && now_ns >= leave_ns;
}

static int wait_for(struct readers *readers, struct share_lock *lock,
                    uint32_t owner, uint32_t timeout_ms, bool *inherited_out) {
  uint64_t begin_ns = process_monotonic_ns();
  uint64_t probed_ns = begin_ns;
  for (;;) {
    /* Woken, it cannot know whether others still sleep. */
    if (take(lock, owner, OWNER_LOCK_WAITED, inherited_out)) return MMCMAP_OK;
    uint64_t now_ns = process_monotonic_ns();
    uint64_t waited_ms = (now_ns - begin_ns) / 1000000;
    bool is_over = is_long_enough(readers, timeout_ms, waited_ms, now_ns);
    if (is_over || now_ns - probed_ns >= PROBE_MS * UINT64_C(1000000)) {
      if (owner_lock_inherit(readers, lock, owner)) {
        *inherited_out = true;
        return MMCMAP_OK;
      }
      probed_ns = now_ns;
    }
    if (is_over) return error_set(MMCMAP_EBUSY, "no lock within the time-out");
    uint64_t left_ms = timeout_ms - waited_ms;
    sleep_on(lock, left_ms < PROBE_MS ? (uint32_t)left_ms : PROBE_MS);
  }
}

int owner_lock_acquire(struct readers *readers, struct share_lock *lock,
                       uint32_t owner, uint32_t timeout_ms,
                       bool *inherited_out) {
  *inherited_out = false;
  if (LIKELY(take(lock, owner, 0, inherited_out))) return MMCMAP_OK;
  if (owner_of(atomic_load(&lock->word)) == owner &&
      !BROKEN(BREAK_WAIT_FOR_SELF))
    return error_set(MMCMAP_EBUSY, "this thread has the lock");
  if (spin(lock, owner, inherited_out)) return MMCMAP_OK;
  return wait_for(readers, lock, owner, timeout_ms, inherited_out);
}

void owner_lock_release(struct share_lock *lock) {
  uint32_t word =
      atomic_exchange_explicit(&lock->word, 0, memory_order_release);
  if (UNLIKELY((word & OWNER_LOCK_WAITED) != 0)) thread_wake_one(&lock->word);
}

void owner_lock_abandon(struct share_lock *lock) {
  atomic_store(&lock->word, OWNER_LOCK_DEAD | OWNER_LOCK_WAITED);
  thread_wake_all(&lock->word);
}
