/* SPDX-License-Identifier: MIT */
/*
 * What is done to one key of a trie, live or of a transaction: the lock is held,
 * and changes may be made (txn/writer.h).
 */
#ifndef TXN_CHANGE_H
#define TXN_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "share/expiry.h"
#include "trie/trie.h"

/* What a change that depends on the present value comes to. */
enum decision { DECIDE_KEEP, DECIDE_PUT, DECIDE_DELETE };

/*
 * Decides about a record under the writer lock: `value` is the present one, NULL
 * if the key is absent, and good during the call. With DECIDE_PUT `value_out` is
 * the new value, which must stay until the change has been made. Any code but
 * MMCMAP_OK ends the change; nothing has happened then. It must not block.
 */
typedef int decide_fn(void *context, const uint8_t *value, uint32_t value_size,
                      enum decision *decision_out, const void **value_out,
                      size_t *value_size_out);

/* MMCMAP_ETOOBIG. */
int change_check_sizes(size_t key_size, size_t value_size);

/* How long a record that is put is to live: for ever, if all is 0. */
struct change_life {
  uint64_t ttl_ms;     /* from now on */
  uint64_t expires_ms; /* or until then */
  bool is_kept;        /* or as long as the record of before */
  bool is_promised;    /* there was room for it when that was said */
};

static inline bool change_may_expire(const struct change_life *life) {
  return life->ttl_ms != 0 || life->expires_ms != 0;
}

/*
 * A change of a map happens at one moment of the clock: whatever has expired by
 * then is absent. On failure nothing has changed.
 */

/* Sets a key; sizes have been checked. */
int change_put(const struct trie *trie, struct trie_key *key, const void *value,
               size_t value_size, struct change_life life,
               struct expiry_reading *now);

/* Deletes a key; MMCMAP_NOTFOUND. */
int change_delete(const struct trie *trie, struct trie_key *key,
                  struct expiry_reading *now);

/* Deletes a key if it has expired; MMCMAP_NOTFOUND. */
int change_delete_expired(const struct trie *trie, struct trie_key *key,
                          struct expiry_reading *now);

/* Changes a key as `decide` says; `changed_out` tells whether it did. */
int change_decided(const struct trie *trie, struct trie_key *key,
                   decide_fn *decide, void *context, struct change_life life,
                   struct expiry_reading *now, bool *changed_out);

#endif
