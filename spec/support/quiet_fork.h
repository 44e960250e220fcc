/* SPDX-License-Identifier: MIT */
/*
 * fork() for test programs whose process may have further threads, such as a
 * store's flusher. A C library takes its allocator's locks around fork(). The
 * allocator of AddressSanitizer does not (GCC 12's), and a child that is made
 * while a thread is in it, as each is when it starts, may wait for ever.
 */
#ifndef SUPPORT_QUIET_FORK_H
#define SUPPORT_QUIET_FORK_H

#include <sys/types.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline bool quiet_fork_is_asleep(const char *thread) {
  char path[64], line[256];
  snprintf(path, sizeof path, "/proc/self/task/%.20s/stat", thread);
  FILE *file = fopen(path, "r");
  if (file == NULL) return true; /* it has ended */
  const char *end =
      fgets(line, sizeof line, file) == NULL ? NULL : strrchr(line, ')');
  fclose(file);
  return end == NULL || end[1] != ' ' || end[2] == 'S';
}

static inline bool quiet_fork_is_quiet(void) {
  bool is_quiet = true;
  DIR *threads = opendir("/proc/self/task");
  if (threads == NULL) return true;
  for (struct dirent *entry; (entry = readdir(threads)) != NULL;)
    if (entry->d_name[0] != '.' && atoi(entry->d_name) != (int)gettid())
      is_quiet = is_quiet && quiet_fork_is_asleep(entry->d_name);
  closedir(threads);
  return is_quiet;
}

#endif

/* Waits for the other threads to sleep, but not for those that never do. */
static inline pid_t quiet_fork(void) {
#ifdef __SANITIZE_ADDRESS__
  const struct timespec pause = {.tv_nsec = 1000000};
  for (int i = 0; i < 3000 && !quiet_fork_is_quiet(); i++)
    nanosleep(&pause, NULL);
#endif
  return fork();
}

#endif
