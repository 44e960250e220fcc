/* SPDX-License-Identifier: MIT */
/*
 * Puts of a transaction that wait for more of them, so that the ways to all of
 * their keys can be walked side by side (trie_look_ahead()), where each by itself
 * would wait for memory. Nobody sees a transaction before its end, so it shows
 * nowhere but in the time they take.
 */
#ifndef TXN_PUT_QUEUE_H
#define TXN_PUT_QUEUE_H

#include "trie/trie.h"
#include "txn/change.h"

enum {
  PUT_QUEUE_BYTES = 16 << 10, /* of keys and values, in all */
  PUT_QUEUE_RECORD_MAX = PUT_QUEUE_BYTES / 8,
  /* The most that the puts of a full queue append: the records, and for each of
     them a branch at twelve levels. */
  PUT_QUEUE_ROOM_BYTES = 256 << 10
};

/* One put. */
struct queued_put {
  struct trie_key key;
  const void *value;
  size_t value_size;
  struct change_life life;
};

struct put_queue {
  const struct trie_key *map; /* of all of them; NULL: the default one */
  unsigned count;
  unsigned used; /* of the bytes */
  struct queued_put puts[TRIE_LANES];
  uint8_t bytes[PUT_QUEUE_BYTES];
};

static inline bool put_queue_is_full(const struct put_queue *queue) {
  return queue->count == TRIE_LANES;
}

/* Whether it can take the put without being emptied before. */
bool put_queue_has_room(const struct put_queue *queue,
                        const struct trie_key *map,
                        const struct queued_put *put);

/* Keeps a copy of the put, its key and its value, for which there is room. `map`
   is good until the queue is empty. */
void put_queue_add(struct put_queue *queue, const struct trie_key *map,
                   const struct queued_put *put);

/* Forgets all of them. */
static inline void put_queue_clear(struct put_queue *queue) {
  queue->count = queue->used = 0;
}

#endif
