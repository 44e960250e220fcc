/* SPDX-License-Identifier: MIT */
/*
 * Rows are claimed and given back under one mutex of this copy of the library,
 * which also guards the list of live tables; a thread gives back its rows when
 * it ends, those of tables that are gone being skipped by their serials.
 */
#include "share/readers.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "os/process.h"

_Thread_local struct readers_cached readers_cache[READERS_CACHE_SLOTS];

/* A thread's rows, one per table that it has used. */
struct owned_row {
  struct owned_row *next;
  uint64_t serial;
  struct readers_row *row;
};

static pthread_mutex_t claims = PTHREAD_MUTEX_INITIALIZER;
static struct readers *live_tables;
static uint32_t tables_generation; /* of forks, to which they belong */
static uint64_t last_serial;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t owned_key;
static int key_error;

static struct readers *find_live(uint64_t serial) {
  struct readers *table = live_tables;
  while (table != NULL && table->serial != serial)
    table = table->next_live;
  return table;
}

static void release_rows_of_thread(void *first) {
  pthread_mutex_lock(&claims);
  for (struct owned_row *owned = first; owned != NULL;) {
    struct owned_row *next = owned->next;
    if (find_live(owned->serial) != NULL) owned->row->owned = false;
    free(owned);
    owned = next;
  }
  pthread_mutex_unlock(&claims);
  memset(readers_cache, 0, sizeof readers_cache);
}

static void make_key(void) {
  key_error = pthread_key_create(&owned_key, release_rows_of_thread);
}

static struct readers_chunk *new_chunk(void) {
  struct readers_chunk *chunk = aligned_alloc(
      READERS_ROW_BYTES, (sizeof *chunk + READERS_ROW_BYTES - 1) /
                             READERS_ROW_BYTES * READERS_ROW_BYTES);
  if (chunk != NULL) memset(chunk, 0, sizeof *chunk);
  return chunk;
}

int readers_init(struct readers *readers) {
  memset(readers, 0, sizeof *readers);
  pthread_once(&key_once, make_key);
  if (key_error != 0) return error_set_errno(key_error, "pthread_key_create");
  struct readers_chunk *chunk = new_chunk();
  if (chunk == NULL) return error_set(MMCMAP_ENOMEM, "reader table");
  atomic_init(&readers->tick, 1);
  atomic_init(&readers->first, chunk);
  pthread_mutex_lock(&claims);
  readers->serial = ++last_serial;
  readers->next_live = live_tables;
  live_tables = readers;
  pthread_mutex_unlock(&claims);
  return MMCMAP_OK;
}

void readers_destroy(struct readers *readers) {
  if (readers->serial == 0) return;
  pthread_mutex_lock(&claims);
  struct readers **link = &live_tables;
  while (*link != NULL && *link != readers)
    link = &(*link)->next_live;
  if (*link != NULL) *link = readers->next_live;
  pthread_mutex_unlock(&claims);
  struct readers_chunk *chunk = atomic_load(&readers->first);
  while (chunk != NULL) {
    struct readers_chunk *next = atomic_load(&chunk->next);
    free(chunk);
    chunk = next;
  }
  memset(readers, 0, sizeof *readers);
}

/* A row that nobody owns, with the mutex held; NULL without memory. */
static struct readers_row *claim_row(struct readers *readers) {
  struct readers_chunk *chunk = atomic_load(&readers->first);
  for (;;) {
    for (int i = 0; i < READERS_ROWS_PER_CHUNK; i++) {
      if (chunk->rows[i].owned) continue;
      chunk->rows[i].owned = true;
      chunk->rows[i].depth = 0;
      return &chunk->rows[i];
    }
    struct readers_chunk *next = atomic_load(&chunk->next);
    if (next == NULL) {
      next = new_chunk();
      if (next == NULL) return NULL;
      /* R3: a chunk is zeroed before whoever scans can reach it. */
      atomic_store_explicit(&chunk->next, next, memory_order_release);
    }
    chunk = next;
  }
}

static void give_back(struct readers_row *row) {
  if (row == NULL) return;
  pthread_mutex_lock(&claims);
  row->owned = false;
  pthread_mutex_unlock(&claims);
}

/* Forgets the rows that this thread had in tables that are gone, or a thread
   that opens many stores, one after the other, would keep one of each. With the
   mutex held; the list without them. */
static struct owned_row *drop_dead_rows(struct owned_row *first) {
  struct owned_row **link = &first;
  while (*link != NULL) {
    struct owned_row *owned = *link;
    if (find_live(owned->serial) != NULL) {
      link = &owned->next;
      continue;
    }
    *link = owned->next;
    free(owned);
  }
  return first;
}

static int claim_for_thread(struct readers *readers,
                            struct readers_row **row_out) {
  struct owned_row *owned = malloc(sizeof *owned);
  if (owned == NULL) return error_set(MMCMAP_ENOMEM, "reader row");
  owned->serial = readers->serial;
  pthread_mutex_lock(&claims);
  owned->next = drop_dead_rows(pthread_getspecific(owned_key));
  owned->row = claim_row(readers);
  pthread_mutex_unlock(&claims);
  if (owned->row == NULL || pthread_setspecific(owned_key, owned) != 0) {
    give_back(owned->row);
    (void)pthread_setspecific(owned_key, owned->next);
    free(owned);
    return error_set(MMCMAP_ENOMEM, "reader row");
  }
  atomic_fetch_add_explicit(&readers->row_count, 1, memory_order_relaxed);
  *row_out = owned->row;
  return MMCMAP_OK;
}

int readers_row_slow(struct readers *readers, struct readers_row **row_out) {
  *row_out = NULL;
  struct owned_row *owned = pthread_getspecific(owned_key);
  while (owned != NULL && owned->serial != readers->serial)
    owned = owned->next;
  if (owned != NULL) {
    *row_out = owned->row;
  } else {
    int code = claim_for_thread(readers, row_out);
    if (code != MMCMAP_OK) return code;
  }
  struct readers_cached *cached =
      &readers_cache[readers->serial % READERS_CACHE_SLOTS];
  cached->serial = readers->serial;
  cached->row = *row_out;
  return MMCMAP_OK;
}

uint64_t readers_advance(struct readers *readers) {
  uint64_t tick = readers_tick(readers) + 1;
  atomic_store_explicit(&readers->tick, tick, memory_order_release);
  /* R4: a reader whose pin this scan misses loads the root after the unlinking
     stores that came before. Pairs with the fence of readers_pin(). */
  atomic_thread_fence(memory_order_seq_cst);
  uint64_t horizon = tick;
  const struct readers_chunk *chunk =
      atomic_load_explicit(&readers->first, memory_order_acquire);
  for (; chunk != NULL;
       chunk = atomic_load_explicit(&chunk->next, memory_order_acquire)) {
    for (int i = 0; i < READERS_ROWS_PER_CHUNK; i++) {
      uint64_t pin =
          atomic_load_explicit(&chunk->rows[i].pin, memory_order_acquire);
      if (pin != 0 && pin < horizon) horizon = pin;
    }
  }
  return horizon;
}

void readers_fork_prepare(void) { pthread_mutex_lock(&claims); }

/* A child lets go of its parent's tables: they lie in stores whose memory it
   may free. Threads that end then take them for gone. */
void readers_fork_done(void) {
  uint32_t generation = process_fork_generation();
  if (tables_generation != generation) live_tables = NULL;
  tables_generation = generation;
  pthread_mutex_unlock(&claims);
}
