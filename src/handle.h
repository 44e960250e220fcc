/* SPDX-License-Identifier: MIT */
/*
 * What the public functions share: a handle, which adds to its store what
 * belongs to one opening (the path as given, the durability, the time-out), and
 * how a call begins and ends.
 */
#ifndef HANDLE_H
#define HANDLE_H

#include "base/errors.h"
#include "store.h"
#include "txn/transaction.h"

#define HANDLE_MAGIC UINT32_C(0x6d6d6331)
#define SNAPSHOT_MAGIC UINT32_C(0x6d6d6332)
#define CURSOR_MAGIC UINT32_C(0x6d6d6333)
#define TXN_MAGIC UINT32_C(0x6d6d6334)
#define DIFF_MAGIC UINT32_C(0x6d6d6336)

struct mmcmap {
  uint32_t magic;
  bool is_readonly;
  struct store *_Atomic store; /* replaced in a child, at the first use */
  mmcmap_options options;
  char *path;
  bool is_map;         /* of a named map: */
  struct trie_key map; /* its name, which is ours */
};

/* Belongs to the thread that began it. Each of its maps that was asked for is one
   more of these, which ends with it. */
struct mmcmap_txn {
  uint32_t magic;
  mmcmap *handle;
  struct store *store;
  bool is_map;
  struct trie_key map;  /* the name; owned by who is in the list */
  mmcmap_txn *base;     /* what has the transaction: mostly itself */
  mmcmap_txn *maps;     /* of the base: a list, for the end, */
  mmcmap_txn *next_map; /* in it, */
  mmcmap_txn *map_root; /* and a binary tree by the hash of the name: hashes */
  mmcmap_txn *below[2]; /* are random enough to keep it flat */
  bool may_expire;      /* of the base: something that it has put */
  struct transaction *own; /* of the base */
};

/* Every entry begins with this: a handle that is none is the caller's bug. A
   child's first call opens the store anew. */
static inline int enter(mmcmap *handle, struct store **store_out) {
  CHECK(handle != NULL && handle->magic == HANDLE_MAGIC);
  *store_out = atomic_load_explicit(&handle->store, memory_order_acquire);
  if (LIKELY(store_is_ours(*store_out))) return MMCMAP_OK;
  int code = store_reconnect(&handle->store, &handle->options);
  *store_out = atomic_load_explicit(&handle->store, memory_order_acquire);
  return code;
}

static inline int enter_to_write(mmcmap *handle, struct store **store_out) {
  int code = enter(handle, store_out);
  if (code == MMCMAP_OK && handle->is_readonly)
    code = error_set(MMCMAP_EREADONLY, "opened read-only");
  return code;
}

/* Every use of a transaction, but for its end, begins with this. */
static inline int enter_txn(const mmcmap_txn *txn) {
  CHECK(txn != NULL && txn->magic == TXN_MAGIC);
  if (LIKELY(store_is_ours(txn->store))) return MMCMAP_OK;
  return error_set(MMCMAP_EFORK, "a transaction from before fork()");
}

/* The name of the map that the calls are about; NULL: the default one. */
static inline const struct trie_key *map_of(const mmcmap *handle) {
  return handle->is_map ? &handle->map : NULL;
}

static inline const struct trie_key *map_of_txn(const mmcmap_txn *txn) {
  return txn->is_map ? &txn->map : NULL;
}

static inline struct transaction *transaction_of(const mmcmap_txn *txn) {
  return txn->base->own;
}

/* A copy of a map's name, to be freed with free((void *)key.data).
   MMCMAP_ETOOBIG, MMCMAP_ENOMEM. */
int handle_copy_name(const struct store *store, mmcmap_slice name,
                     struct trie_key *key_out);

/* After a change that failed with `code`: whether that was for want of space, and
   some has been made, so that it may be tried again: `tries`, of this call so far,
   are bounded, since what has been made may have been used up in vain. */
bool handle_make_room(const mmcmap *handle, struct store *store, int code,
                      bool for_delete, unsigned *tries);

/* The same for a change that frees space, which in the end takes what is kept for
   that: whether to try it again, with the `mode` as it is then. */
bool handle_try_to_free(const mmcmap *handle, struct store *store, int code,
                        struct change_mode *mode, unsigned *tries);

/* The part of finish_change() that helps with upkeep. */
void handle_upkeep(const mmcmap *handle, struct store *store);

static inline struct change_life life_of(uint64_t ttl_ms) {
  struct change_life life = {.ttl_ms = ttl_ms};
  return life;
}

/* A reading of the clock, for a call that reads. */
static inline struct expiry_reading reading_of(const struct store *store) {
  struct expiry_reading now = {.header = store->share.header};
  return now;
}

/* The part of note_change() that is seldom needed: once in each epoch. */
void handle_note_change(struct store *store, uint64_t epoch);

static inline void note_change(struct store *store, uint64_t epoch) {
  if (UNLIKELY(atomic_load_explicit(&store->own_epoch, memory_order_relaxed) <
               epoch))
    handle_note_change(store, epoch);
}

static inline void notify_flusher(const mmcmap *handle, struct store *store) {
  flusher_notify(&store->flusher, handle->options.flush_interval_ms,
                 handle->options.timeout_ms);
}

/* A change has been published: makes it durable as the handle promises. */
static inline int finish_change(const mmcmap *handle, struct store *store,
                                uint64_t epoch) {
  if (UNLIKELY(upkeep_need(store->share.header) != SHARE_NEED_NOTHING))
    handle_upkeep(handle, store);
  note_change(store, epoch);
  switch (handle->options.durability) {
    case MMCMAP_SYNC:
      return commit_epoch(&store->committer, epoch);
    case MMCMAP_ASYNC:
      notify_flusher(handle, store);
      return MMCMAP_OK;
    default:
      return MMCMAP_OK;
  }
}

static inline struct change_mode change_mode_of(const mmcmap *handle) {
  struct change_mode mode = {
      .timeout_ms = handle->options.timeout_ms,
      .is_synced = handle->options.durability == MMCMAP_SYNC};
  return mode;
}

static inline mmcmap_slice slice_of(const uint8_t *data, size_t size) {
  mmcmap_slice slice = {.data = data, .size = size};
  return slice;
}

/* As mmcmap_put(), of what lives for so long. */
int handle_put(mmcmap *handle, mmcmap_slice key, mmcmap_slice value,
               struct change_life life);

/* The same after a change that may have to be followed by a sweep: a flusher that
   has nothing to commit does that. */
static inline int finish_expiring_change(const mmcmap *handle,
                                         struct store *store, uint64_t epoch) {
  int code = finish_change(handle, store, epoch);
  if (code == MMCMAP_OK && handle->options.durability == MMCMAP_SYNC)
    notify_flusher(handle, store);
  return code;
}

/* Sees to it that the caller's buffer has room for `size` bytes; what it holds
   stays. MMCMAP_ENOMEM. */
int handle_buffer_reserve(mmcmap_buffer *buffer, size_t size);

/* The root of a live map; MMCMAP_NOTFOUND. The caller is pinned. */
int handle_find_root(struct store *store, const struct node_source *source,
                     const struct trie_key *map, uint64_t *root_out);

/* Copies into the caller's buffer, which grows as needed; MMCMAP_ENOMEM. */
int handle_buffer_set(mmcmap_buffer *buffer, const uint8_t *data, size_t size);

#endif
