/* SPDX-License-Identifier: MIT */
/*
 * Threads of this process: a mutex that spins briefly before it sleeps, a
 * condition, and background threads. Initialisation can fail, locking cannot (a
 * time-out aside).
 */
#ifndef OS_THREAD_H
#define OS_THREAD_H

#include <pthread.h>
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

/* Starts `run(context)` in a thread with all signals blocked, named `name`
   (15 characters at most) where the system shows names. */
int thread_start(pthread_t *thread_out, const char *name, void *(*run)(void *),
                 void *context);
void thread_join(pthread_t thread);

#endif
