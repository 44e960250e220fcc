/* SPDX-License-Identifier: MIT */
/*
 * Threads on POSIX threads. What a writer holds the mutex for is shorter than
 * a sleep and a wake-up, so a thread that finds it taken tries again for a few
 * microseconds before it sleeps. Time-outs run on the monotonic clock wherever
 * the C library allows it: setting the wall clock ends no wait.
 */
#include "os/thread.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/errors.h"
#include "os/calls.h"

enum {
  THREAD_SPIN_COUNT = 300,
  THREAD_NAME_BYTES = 16 /* the kernel's limit, the end included */
};

/* gcc's ThreadSanitizer does not see what pthread_mutex_clocklock() locks. */
#if defined(__GLIBC_PREREQ) && !defined(__SANITIZE_THREAD__)
#if __GLIBC_PREREQ(2, 30)
#define THREAD_HAS_CLOCKLOCK
#endif
#endif

#ifdef THREAD_HAS_CLOCKLOCK
#define THREAD_MUTEX_CLOCK CLOCK_MONOTONIC
#else
#define THREAD_MUTEX_CLOCK CLOCK_REALTIME
#endif

static struct timespec thread_deadline(clockid_t clock, uint32_t timeout_ms) {
  struct timespec at;
  CHECK(clock_gettime(clock, &at) == 0);
  at.tv_sec += (time_t)(timeout_ms / 1000);
  at.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
  if (at.tv_nsec >= 1000000000) {
    at.tv_nsec -= 1000000000;
    at.tv_sec++;
  }
  return at;
}

/* POSIX threads say EAGAIN for want of some resource, which elsewhere means a
   lock that is taken. */
static int thread_error(int failure, const char *what) {
  return error_set_errno(failure == EAGAIN ? ENOMEM : failure, what);
}

/* ---- Mutex ------------------------------------------------------------- */

int thread_mutex_init(struct thread_mutex *mutex) {
  int failure = pthread_mutex_init(&mutex->mutex, NULL);
  if (failure != 0) return thread_error(failure, "pthread_mutex_init");
  return MMCMAP_OK;
}

void thread_mutex_destroy(struct thread_mutex *mutex) {
  CHECK(pthread_mutex_destroy(&mutex->mutex) == 0);
}

bool thread_mutex_try(struct thread_mutex *mutex) {
  return pthread_mutex_trylock(&mutex->mutex) == 0;
}

static bool thread_mutex_spin(struct thread_mutex *mutex) {
  for (int i = 0; i < THREAD_SPIN_COUNT; i++) {
    if (thread_mutex_try(mutex)) return true;
    thread_pause();
  }
  return false;
}

void thread_mutex_lock(struct thread_mutex *mutex) {
  if (!thread_mutex_spin(mutex)) CHECK(pthread_mutex_lock(&mutex->mutex) == 0);
}

int thread_mutex_lock_timed(struct thread_mutex *mutex, uint32_t timeout_ms) {
  if (thread_mutex_spin(mutex)) return MMCMAP_OK;
  struct timespec deadline = thread_deadline(THREAD_MUTEX_CLOCK, timeout_ms);
#ifdef THREAD_HAS_CLOCKLOCK
  int failure =
      pthread_mutex_clocklock(&mutex->mutex, THREAD_MUTEX_CLOCK, &deadline);
#else
  int failure = pthread_mutex_timedlock(&mutex->mutex, &deadline);
#endif
  if (failure == ETIMEDOUT)
    return error_set(MMCMAP_EBUSY, "time-out of a mutex");
  CHECK(failure == 0);
  return MMCMAP_OK;
}

void thread_mutex_unlock(struct thread_mutex *mutex) {
  CHECK(pthread_mutex_unlock(&mutex->mutex) == 0);
}

/* ---- Condition --------------------------------------------------------- */

int thread_condition_init(struct thread_condition *condition) {
  pthread_condattr_t attributes;
  int failure = pthread_condattr_init(&attributes);
  if (failure != 0) return thread_error(failure, "pthread_condattr_init");
  failure = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  if (failure == 0)
    failure = pthread_cond_init(&condition->condition, &attributes);
  pthread_condattr_destroy(&attributes);
  if (failure != 0) return thread_error(failure, "pthread_cond_init");
  return MMCMAP_OK;
}

void thread_condition_destroy(struct thread_condition *condition) {
  CHECK(pthread_cond_destroy(&condition->condition) == 0);
}

void thread_condition_wait(struct thread_condition *condition,
                           struct thread_mutex *mutex) {
  CHECK(pthread_cond_wait(&condition->condition, &mutex->mutex) == 0);
}

bool thread_condition_wait_timed(struct thread_condition *condition,
                                 struct thread_mutex *mutex,
                                 uint32_t timeout_ms) {
  struct timespec deadline = thread_deadline(CLOCK_MONOTONIC, timeout_ms);
  int failure =
      pthread_cond_timedwait(&condition->condition, &mutex->mutex, &deadline);
  CHECK(failure == 0 || failure == ETIMEDOUT);
  return failure == 0;
}

void thread_condition_broadcast(struct thread_condition *condition) {
  CHECK(pthread_cond_broadcast(&condition->condition) == 0);
}

/* ---- Threads ----------------------------------------------------------- */

int thread_start(pthread_t *thread_out, const char *name, void *(*run)(void *),
                 void *context) {
  char short_name[THREAD_NAME_BYTES] = "";
  sigset_t all, before;

  memset(thread_out, 0, sizeof *thread_out);
  /* A new thread begins with its creator's mask. */
  sigfillset(&all);
  CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
  int failure = os_calls.thread(thread_out, run, context) == 0 ? 0 : errno;
  CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
  if (failure != 0) return thread_error(failure, "pthread_create");

  strncat(short_name, name, sizeof short_name - 1);
  pthread_setname_np(*thread_out, short_name); /* for people only */
  return MMCMAP_OK;
}

void thread_join(pthread_t thread) { CHECK(pthread_join(thread, NULL) == 0); }

void thread_yield(void) { sched_yield(); }

/* Not private to the process: the words may lie in shared memory. */
void thread_wait_for_change(_Atomic uint32_t *word, uint32_t seen,
                            uint32_t timeout_ms) {
  struct timespec timeout = {.tv_sec = timeout_ms / 1000,
                             .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
  (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, NULL, 0);
}

static void thread_wake(_Atomic uint32_t *word, int count) {
  (void)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

void thread_wake_all(_Atomic uint32_t *word) { thread_wake(word, INT_MAX); }

void thread_wake_one(_Atomic uint32_t *word) { thread_wake(word, 1); }
