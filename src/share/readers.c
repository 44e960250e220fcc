/* SPDX-License-Identifier: MIT */
/*
 * Rows and chunks are claimed and given back under one mutex of this copy of
 * the library, which also guards the list of live tables and every use of the
 * kernel's locks on chunks; a thread gives back its rows when it ends, those of
 * tables that are gone being skipped by their serials.
 */
#include "share/readers.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "base/testing.h"
#include "os/process.h"
#include "share/owner_lock.h"

enum {
  /* How often the same horizon is found before its holder is looked after. */
  STUCK_COUNT_MAX = 64
};

_Thread_local struct readers_cached readers_cache[READERS_CACHE_SLOTS];

/* A thread's rows, one per table that it has used. */
struct owned_row {
  struct owned_row *next;
  uint64_t serial;
  struct share_row *row;
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

/* A lock that a thread still owns when it ends is left for the next to repair,
   as if its process had died. */
static void abandon_locks(struct readers *table, const struct share_row *row) {
  struct share_header *header = table->share->header;
  struct share_lock *locks[] = {&header->writer_lock, &header->growth_lock,
                                &header->commit.leader};
  uint32_t owner = readers_owner_of_row(table, row);
  for (size_t i = 0; i < sizeof locks / sizeof locks[0]; i++) {
    uint32_t word = atomic_load(&locks[i]->word);
    if ((word & ~OWNER_LOCK_WAITED) == owner) owner_lock_abandon(locks[i]);
  }
}

static void release_rows_of_thread(void *first) {
  pthread_mutex_lock(&claims);
  for (struct owned_row *owned = first; owned != NULL;) {
    struct owned_row *next = owned->next;
    struct readers *table = find_live(owned->serial);
    if (table != NULL) {
      abandon_locks(table, owned->row);
      atomic_store_explicit(&owned->row->pin, 0, memory_order_release);
      atomic_store(&owned->row->owned, SHARE_OWNER_NONE);
    }
    free(owned);
    owned = next;
  }
  pthread_mutex_unlock(&claims);
  memset(readers_cache, 0, sizeof readers_cache);
}

static void make_key(void) {
  key_error = pthread_key_create(&owned_key, release_rows_of_thread);
}

/* ---- Chunks; the mutex is held ------------------------------------------- */

static bool owns_chunk(const struct readers *readers, uint32_t index) {
  for (uint32_t i = 0; i < readers->chunk_count; i++)
    if (readers->chunks[i] == index) return true;
  return false;
}

static uint32_t chunk_of_owner(uint32_t owner) {
  return (uint32_t)(((uint64_t)owner * SHARE_LINE_BYTES - SHARE_HEADER_BYTES) /
                    SHARE_CHUNK_BYTES);
}

static bool is_row(uint32_t owner) {
  return owner >= SHARE_HEADER_BYTES / SHARE_LINE_BYTES &&
         owner < OWNER_LOCK_DEAD;
}

/* Whether a lock still names a row of the chunk, whose process is dead: it is
   not used again before the lock has been inherited. */
static bool owns_lock(const struct readers *readers, uint32_t index) {
  const struct share_header *header = readers->share->header;
  const struct share_lock *locks[] = {
      &header->writer_lock, &header->growth_lock, &header->commit.leader};
  if (BROKEN(BREAK_CLAIM_OWNER)) return false;
  for (size_t i = 0; i < sizeof locks / sizeof locks[0]; i++) {
    uint32_t owner = atomic_load(&locks[i]->word) & ~OWNER_LOCK_WAITED;
    if (is_row(owner) && chunk_of_owner(owner) == index) return true;
  }
  return false;
}

/* Clears the rows of a process that is gone. The chunk's lock is held. */
static void clear_chunk(struct share_chunk *chunk) {
  atomic_store(&chunk->state, SHARE_CHUNK_FREE);
  for (int i = 0; i < SHARE_ROWS_PER_CHUNK; i++) {
    struct share_row *row = &chunk->rows[i];
    atomic_store_explicit(&row->pin, 0, memory_order_relaxed);
    atomic_store_explicit(&row->snapshot, 0, memory_order_relaxed);
    atomic_store_explicit(&row->owned, SHARE_OWNER_NONE, memory_order_relaxed);
  }
  atomic_store(&chunk->row_limit, 0);
}

/* Takes chunk `index` if nobody has it, and makes it ours. */
static bool try_chunk(struct readers *readers, uint32_t index, int *code_out) {
  struct share *share = readers->share;
  if (!share_take_chunk(share, index, code_out)) return false;
  struct share_chunk *chunk = share_chunk(share, index);
  if (chunk == NULL || owns_lock(readers, index)) {
    share_give_chunk(share, index);
    return false;
  }
  clear_chunk(chunk);
  TEST_POINT("chunk");
  atomic_store(&chunk->process, process_id());
  atomic_store(&chunk->connection, readers->share->connection);
  atomic_store(&chunk->is_further, readers->chunk_count > 0);
  atomic_store(&chunk->since_ns, process_monotonic_ns());
  /* R3: whoever scans finds the rows empty. */
  atomic_store_explicit(&chunk->state, SHARE_CHUNK_OWNED, memory_order_release);
  readers->chunks[readers->chunk_count++] = index;
  return true;
}

/* One more chunk of our own: the first that nobody has. */
static int take_chunk(struct readers *readers) {
  uint32_t *chunks = realloc(
      readers->chunks, (readers->chunk_count + 1) * sizeof readers->chunks[0]);
  if (chunks == NULL) return error_set(MMCMAP_ENOMEM, "reader table");
  readers->chunks = chunks;
  for (uint32_t index = 0;; index++) {
    int code = MMCMAP_OK;
    if (owns_chunk(readers, index)) continue;
    if (try_chunk(readers, index, &code)) return MMCMAP_OK;
    if (code != MMCMAP_OK) return code;
  }
}

void readers_init(struct readers *readers, struct share *share) {
  memset(readers, 0, sizeof *readers);
  readers->share = share;
}

int readers_join(struct readers *readers) {
  pthread_once(&key_once, make_key);
  if (key_error != 0) return error_set_errno(key_error, "pthread_key_create");
  uint64_t none = 0;
  atomic_compare_exchange_strong(&readers->share->header->live.tick, &none, 1);
  pthread_mutex_lock(&claims);
  int code = take_chunk(readers);
  if (code == MMCMAP_OK) {
    readers->serial = ++last_serial;
    readers->next_live = live_tables;
    live_tables = readers;
  }
  pthread_mutex_unlock(&claims);
  return code;
}

void readers_forget(struct readers *readers) {
  free(readers->chunks);
  memset(readers, 0, sizeof *readers);
}

void readers_destroy(struct readers *readers) {
  if (readers->serial == 0) return;
  pthread_mutex_lock(&claims);
  struct readers **link = &live_tables;
  while (*link != NULL && *link != readers)
    link = &(*link)->next_live;
  if (*link != NULL) *link = readers->next_live;
  for (uint32_t i = 0; i < readers->chunk_count; i++) {
    struct share_chunk *chunk = share_chunk(readers->share, readers->chunks[i]);
    if (chunk != NULL) clear_chunk(chunk);
    share_give_chunk(readers->share, readers->chunks[i]);
  }
  pthread_mutex_unlock(&claims);
  readers_forget(readers);
}

/* ---- Rows ---------------------------------------------------------------- */

/* A row that nobody owns, with the mutex held. */
static int claim_row(struct readers *readers, enum share_owner owner,
                     struct share_row **row_out) {
  *row_out = NULL;
  for (uint32_t i = 0;; i++) {
    if (i == readers->chunk_count) {
      int code = take_chunk(readers);
      if (code != MMCMAP_OK) return code;
    }
    struct share_chunk *chunk = share_chunk(readers->share, readers->chunks[i]);
    if (chunk == NULL) return error_set(MMCMAP_EIO, "lock file is shorter");
    for (uint32_t j = 0; j < SHARE_ROWS_PER_CHUNK; j++) {
      struct share_row *row = &chunk->rows[j];
      if (atomic_load(&row->owned) != SHARE_OWNER_NONE) continue;
      atomic_store(&row->owned, owner);
      TEST_POINT("row");
      row->depth = owner == SHARE_OWNER_SNAPSHOT ? row->depth + 1 : 0;
      if (atomic_load(&chunk->row_limit) <= j)
        atomic_store(&chunk->row_limit, j + 1);
      *row_out = row;
      return MMCMAP_OK;
    }
  }
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
                            struct share_row **row_out) {
  struct owned_row *owned = malloc(sizeof *owned);
  if (owned == NULL) return error_set(MMCMAP_ENOMEM, "reader row");
  owned->serial = readers->serial;
  pthread_mutex_lock(&claims);
  owned->next = drop_dead_rows(pthread_getspecific(owned_key));
  int code = claim_row(readers, SHARE_OWNER_THREAD, &owned->row);
  if (code == MMCMAP_OK && pthread_setspecific(owned_key, owned) != 0) {
    atomic_store(&owned->row->owned, SHARE_OWNER_NONE);
    code = error_set(MMCMAP_ENOMEM, "reader row");
  }
  if (code != MMCMAP_OK) {
    (void)pthread_setspecific(owned_key, owned->next);
    free(owned);
  } else {
    atomic_store(&owned->row->thread, process_thread_id());
    *row_out = owned->row;
  }
  pthread_mutex_unlock(&claims);
  return code;
}

int readers_row_slow(struct readers *readers, struct share_row **row_out) {
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

int readers_claim_snapshot(struct readers *readers, uint64_t limit_ns,
                           struct share_row **row_out) {
  pthread_mutex_lock(&claims);
  int code = claim_row(readers, SHARE_OWNER_SNAPSHOT, row_out);
  pthread_mutex_unlock(&claims);
  if (code != MMCMAP_OK) return code;
  struct share_row *row = *row_out;
  const struct share_change *change = &readers->share->header->change;
  atomic_store(&row->thread, process_thread_id());
  atomic_store(&row->since_ns, process_monotonic_ns());
  atomic_store(&row->limit_ns, limit_ns);
  atomic_store(&row->log_bytes, atomic_load(&change->appended_bytes));
  return MMCMAP_OK;
}

void readers_give_back_snapshot(struct readers *readers,
                                struct share_row *row) {
  (void)readers;
  atomic_store_explicit(&row->snapshot, 0, memory_order_release);
  pthread_mutex_lock(&claims);
  atomic_store(&row->owned, SHARE_OWNER_NONE);
  pthread_mutex_unlock(&claims);
}

/* ---- The horizon --------------------------------------------------------- */

/* Chunk `index` if somebody owns it, and its rows that were ever owned. */
static struct share_chunk *owned_chunk(const struct readers *readers,
                                       uint32_t index, uint32_t *rows_out) {
  struct share_chunk *chunk = share_chunk(readers->share, index);
  *rows_out = 0;
  if (chunk == NULL ||
      atomic_load_explicit(&chunk->state, memory_order_acquire) !=
          SHARE_CHUNK_OWNED)
    return NULL;
  uint32_t rows = atomic_load_explicit(&chunk->row_limit, memory_order_acquire);
  *rows_out = rows < SHARE_ROWS_PER_CHUNK ? rows : SHARE_ROWS_PER_CHUNK;
  return chunk;
}

static uint64_t scan_pins(const struct readers *readers, uint64_t horizon) {
  uint32_t count = atomic_load_explicit(&readers->share->header->chunk_count,
                                        memory_order_acquire);
  for (uint32_t index = 0; index < count; index++) {
    uint32_t rows;
    const struct share_chunk *chunk = owned_chunk(readers, index, &rows);
    /* A count that nobody could have stored: nothing is used again. */
    if (chunk == NULL && share_chunk(readers->share, index) == NULL) return 0;
    for (uint32_t i = 0; i < rows; i++) {
      uint64_t pin =
          atomic_load_explicit(&chunk->rows[i].pin, memory_order_acquire);
      if (pin != 0 && pin < horizon) horizon = pin;
    }
  }
  return horizon;
}

uint64_t readers_advance(struct readers *readers) {
  _Atomic uint64_t *cell = &readers->share->header->live.tick;
  uint64_t tick = atomic_load_explicit(cell, memory_order_relaxed) + 1;
  atomic_store_explicit(cell, tick, memory_order_release);
  /* R4: a reader whose pin this scan misses loads the root after the unlinking
     stores that came before. Pairs with the fence of readers_pin(). */
  atomic_thread_fence(memory_order_seq_cst);
  uint64_t horizon = scan_pins(readers, tick);
  if (horizon == tick || horizon != readers->stuck_horizon) {
    readers->stuck_horizon = horizon;
    readers->stuck_count = 0;
  } else if (++readers->stuck_count == STUCK_COUNT_MAX) {
    readers->stuck_count = 0;
    readers_bury_dead(readers);
  }
  return horizon;
}

/* ---- The dead ------------------------------------------------------------ */

bool readers_is_nobody(struct readers *readers, uint32_t owner) {
  uint32_t count = atomic_load(&readers->share->header->chunk_count);
  uint32_t lines = SHARE_CHUNK_BYTES / SHARE_LINE_BYTES;
  if (!is_row(owner) || chunk_of_owner(owner) >= count) return true;
  uint32_t line = (owner - SHARE_HEADER_BYTES / SHARE_LINE_BYTES) % lines;
  if (line == 0) return true;
  pthread_mutex_lock(&claims);
  uint32_t index = chunk_of_owner(owner);
  struct share_chunk *chunk = share_chunk(readers->share, index);
  bool is_nobody =
      chunk == NULL ||
      (owns_chunk(readers, index) &&
       atomic_load(&chunk->rows[line - 1].owned) != SHARE_OWNER_THREAD);
  pthread_mutex_unlock(&claims);
  return is_nobody;
}

/* Whether the process of chunk `index` is dead: then the chunk's lock is held. */
static bool hold_if_dead(struct readers *readers, uint32_t index) {
  int code;
#ifdef MMCMAP_DEBUG_CHECKS
  if (BROKEN(BREAK_TRUST_PIDS))
    return !process_exists(
        atomic_load(&share_chunk(readers->share, index)->process));
#endif
  return share_take_chunk(readers->share, index, &code);
}

bool readers_hold_dead(struct readers *readers, uint32_t owner) {
  if (!is_row(owner) || readers->share->fd < 0) return false;
  uint32_t index = chunk_of_owner(owner);
  pthread_mutex_lock(&claims);
  if (!owns_chunk(readers, index) &&
      index < atomic_load(&readers->share->header->chunk_count) &&
      hold_if_dead(readers, index))
    return true;
  pthread_mutex_unlock(&claims);
  return false;
}

void readers_let_dead_go(struct readers *readers, uint32_t owner) {
  share_give_chunk(readers->share, chunk_of_owner(owner));
  pthread_mutex_unlock(&claims);
}

/* With the mutex held. */
static void bury_if_dead(struct readers *readers, uint32_t index) {
  struct share *share = readers->share;
  uint32_t rows;
  if (owns_chunk(readers, index)) return;
  if (owned_chunk(readers, index, &rows) == NULL) return;
  if (!BROKEN(BREAK_BURY_ALIVE) && !hold_if_dead(readers, index)) return;
  struct share_chunk *chunk = share_chunk(share, index);
  if (chunk != NULL && !owns_lock(readers, index)) clear_chunk(chunk);
  if (!BROKEN(BREAK_BURY_ALIVE)) share_give_chunk(share, index);
}

void readers_bury_dead(struct readers *readers) {
  if (readers->share->fd < 0) return;
  pthread_mutex_lock(&claims);
  uint32_t count = atomic_load(&readers->share->header->chunk_count);
  for (uint32_t index = 0;
       index < count && share_chunk(readers->share, index) != NULL; index++)
    bury_if_dead(readers, index);
  pthread_mutex_unlock(&claims);
}

/* ---- Old snapshots ------------------------------------------------------- */

void readers_end_if_old(struct share_row *row, uint64_t now_ns) {
  uint64_t snapshot = atomic_load(&row->snapshot);
  uint64_t limit_ns = atomic_load(&row->limit_ns);
  uint64_t since_ns = atomic_load(&row->since_ns);
  if (snapshot == 0 || limit_ns == 0 || now_ns < since_ns ||
      now_ns - since_ns <= limit_ns)
    return;
  /* By exchange: the row may belong to another snapshot by now. */
  atomic_compare_exchange_strong(&row->snapshot, &snapshot,
                                 snapshot | SHARE_MARK_ENDED);
}

void readers_end_old_snapshots(struct readers *readers) {
  uint64_t now_ns = process_monotonic_ns();
  uint32_t count = atomic_load(&readers->share->header->chunk_count);
  for (uint32_t index = 0; index < count; index++) {
    uint32_t rows;
    struct share_chunk *chunk = owned_chunk(readers, index, &rows);
    if (chunk == NULL && share_chunk(readers->share, index) == NULL) return;
    for (uint32_t i = 0; i < rows; i++)
      readers_end_if_old(&chunk->rows[i], now_ns);
  }
}

/* ---- What snapshots hold ------------------------------------------------- */

/* R16: whoever has looked at the row before it was marked is pinned at this tick
   or an earlier one. */
static void bury_ended(struct share_header *header, struct share_row *row,
                       uint64_t mark) {
  atomic_store(&header->upkeep.ended_tick, atomic_load(&header->live.tick));
  atomic_compare_exchange_strong(&row->snapshot, &mark, 0);
}

static void add_held(struct readers_held *held, uint64_t epoch) {
  if (held->count == 0 || epoch < held->oldest) held->oldest = epoch;
  if (held->count == 0 || epoch > held->newest) held->newest = epoch;
  if (held->count < READERS_HELD_MAX) held->epochs[held->count] = epoch;
  held->count++;
}

/* Some that cannot be read may hold anything. */
static void hold_all(struct readers_held *held) {
  held->count = READERS_HELD_MAX + 1;
  held->oldest = 0;
  held->newest = UINT64_MAX;
}

void readers_find_held(struct readers *readers, struct readers_held *held_out) {
  uint32_t count = atomic_load(&readers->share->header->chunk_count);
  held_out->count = 0;
  for (uint32_t index = 0; index < count; index++) {
    uint32_t rows;
    struct share_chunk *chunk = owned_chunk(readers, index, &rows);
    if (chunk == NULL && share_chunk(readers->share, index) == NULL) {
      hold_all(held_out);
      return;
    }
    for (uint32_t i = 0; i < rows; i++) {
      uint64_t snapshot = atomic_load(&chunk->rows[i].snapshot);
      if ((snapshot & SHARE_MARK_ENDED) != 0)
        bury_ended(readers->share->header, &chunk->rows[i], snapshot);
      else if (snapshot != 0)
        add_held(held_out, share_mark_epoch(snapshot));
    }
  }
}

bool readers_is_held(const struct readers_held *held, uint64_t first,
                     uint64_t end) {
  if (held->count == 0 || held->oldest >= end || held->newest < first)
    return false;
  if (held->count > READERS_HELD_MAX) return true;
  for (uint32_t i = 0; i < held->count; i++)
    if (held->epochs[i] >= first && held->epochs[i] < end) return true;
  return false;
}

/* ---- Report -------------------------------------------------------------- */

static void count_threads(const struct share_chunk *chunk, uint32_t rows,
                          struct readers_entry *entry) {
  for (uint32_t i = 0; i < rows; i++) {
    const struct share_row *row = &chunk->rows[i];
    if (atomic_load(&row->owned) != SHARE_OWNER_THREAD) continue;
    entry->thread_rows++;
    if (atomic_load(&row->pin) != 0) entry->pinned_rows++;
  }
}

static bool report_snapshot(const struct readers *readers,
                            const struct share_chunk *chunk, uint32_t row_index,
                            struct readers_entry *entry) {
  const struct share_row *row = &chunk->rows[row_index];
  uint64_t snapshot = atomic_load(&row->snapshot);
  if (snapshot == 0 || (snapshot & SHARE_MARK_ENDED) != 0) return false;
  memset(entry, 0, sizeof *entry);
  entry->is_snapshot = true;
  entry->process = atomic_load(&chunk->process);
  entry->thread = atomic_load(&row->thread);
  entry->since_ns = atomic_load(&row->since_ns);
  entry->epoch = share_mark_epoch(snapshot);
  entry->log_bytes =
      atomic_load(&readers->share->header->change.appended_bytes) -
      atomic_load(&row->log_bytes);
  return true;
}

/* Reports a process by its first chunk: the threads of all its chunks, then the
   snapshots of all. */
static void report_connection(const struct readers *readers, uint32_t count,
                              const struct share_chunk *first,
                              void (*visit)(void *context,
                                            const struct readers_entry *entry),
                              void *context) {
  uint64_t connection = atomic_load(&first->connection);
  bool is_ours = connection == readers->share->connection;
  struct readers_entry entry;
  memset(&entry, 0, sizeof entry);
  entry.process = atomic_load(&first->process);
  entry.since_ns = atomic_load(&first->since_ns);
  entry.is_ours = is_ours;
  for (int pass = 0; pass < 2; pass++) {
    for (uint32_t index = 0; index < count; index++) {
      uint32_t rows;
      const struct share_chunk *chunk = owned_chunk(readers, index, &rows);
      if (chunk == NULL && share_chunk(readers->share, index) == NULL) break;
      if (chunk == NULL || atomic_load(&chunk->connection) != connection)
        continue;
      if (pass == 0) count_threads(chunk, rows, &entry);
      for (uint32_t i = 0; pass == 1 && i < rows; i++) {
        if (!report_snapshot(readers, chunk, i, &entry)) continue;
        entry.is_ours = is_ours;
        visit(context, &entry);
      }
    }
    if (pass == 0) visit(context, &entry);
  }
}

void readers_report(struct readers *readers,
                    void (*visit)(void *context,
                                  const struct readers_entry *entry),
                    void *context) {
  readers_bury_dead(readers);
  uint32_t count = atomic_load(&readers->share->header->chunk_count);
  for (uint32_t index = 0; index < count; index++) {
    uint32_t rows;
    const struct share_chunk *chunk = owned_chunk(readers, index, &rows);
    if (chunk == NULL && share_chunk(readers->share, index) == NULL) return;
    if (chunk != NULL && atomic_load(&chunk->is_further) == 0)
      report_connection(readers, count, chunk, visit, context);
  }
}

/* ---- fork() -------------------------------------------------------------- */

void readers_fork_prepare(void) { pthread_mutex_lock(&claims); }

/* A child lets go of its parent's tables: they lie in stores whose memory it
   may free. Threads that end then take them for gone. */
void readers_fork_done(void) {
  uint32_t generation = process_fork_generation();
  if (tables_generation != generation) live_tables = NULL;
  tables_generation = generation;
  pthread_mutex_unlock(&claims);
}
