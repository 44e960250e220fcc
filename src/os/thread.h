/* SPDX-License-Identifier: MIT */
/*
 * Threads of this process: a mutex that spins briefly before it sleeps, a
 * condition, words to sleep on, and background threads. Initialisation can
 * fail, locking cannot (a time-out aside).
 */
#ifndef OS_THREAD_H
#define OS_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct thread_mutex {
  pthread_mutex_t mutex;
};

struct thread_condition {
  pthread_cond_t condition; /* waits on the monotonic clock */
};

int thread_mutex_init(struct thread_mutex *mutex);
void thread_mutex_destroy(struct thread_mutex *mutex);
void thread_mutex_lock(struct thread_mutex *mutex);
bool thread_mutex_try(struct thread_mutex *mutex);

/* MMCMAP_EBUSY if it cannot be had within `timeout_ms`. */
int thread_mutex_lock_timed(struct thread_mutex *mutex, uint32_t timeout_ms);
void thread_mutex_unlock(struct thread_mutex *mutex);

int thread_condition_init(struct thread_condition *condition);
void thread_condition_destroy(struct thread_condition *condition);
void thread_condition_wait(struct thread_condition *condition,
                           struct thread_mutex *mutex);

/* Returns false if `timeout_ms` passed without a signal. */
bool thread_condition_wait_timed(struct thread_condition *condition,
                                 struct thread_mutex *mutex,
                                 uint32_t timeout_ms);
void thread_condition_broadcast(struct thread_condition *condition);

/* Tells the processor that this is a loop that waits: no barrier, and no
   call of the system. */
static inline void thread_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield" ::: "memory");
#elif defined(__powerpc__)
  __asm__ volatile("or 27,27,27" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

/* Lets other threads run. */
void thread_yield(void);

/* Sleeps until somebody wakes the word, if it still holds `seen` (a futex:
   Franke et al., "Fuss, futexes and furwocks", 2002). Returns at any moment,
   after `timeout_ms` at the latest: the caller looks again. The word may lie
   in a shared mapping of a file: whoever waits on the same byte of the same
   file is woken, in whatever process. */
void thread_wait_for_change(_Atomic uint32_t *word, uint32_t seen,
                            uint32_t timeout_ms);
void thread_wake_all(_Atomic uint32_t *word);

/* Wakes one of those who sleep. It may be one that is about to give up, or to
   die: what one alone must do, the others look for after their time-out. */
void thread_wake_one(_Atomic uint32_t *word);

/* Starts `run(context)` in a thread with all signals blocked, named `name`
   (15 characters at most) where the system shows names. */
int thread_start(pthread_t *thread_out, const char *name, void *(*run)(void *),
                 void *context);
void thread_join(pthread_t thread);

#endif
