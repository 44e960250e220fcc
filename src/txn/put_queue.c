/* SPDX-License-Identifier: MIT */
#include "txn/put_queue.h"

#include <string.h>

#include "base/check.h"
#include "base/testing.h"

bool put_queue_has_room(const struct put_queue *queue,
                        const struct trie_key *map,
                        const struct queued_put *put) {
  if (queue->count == 0) return true;
  return queue->map == map && !put_queue_is_full(queue) &&
         put->key.size + put->value_size <= PUT_QUEUE_BYTES - queue->used;
}

static const void *keep(struct put_queue *queue, const void *data,
                        size_t size) {
  uint8_t *at = queue->bytes + queue->used;
  if (size > 0) memcpy(at, data, size);
  queue->used += (unsigned)size;
  return at;
}

void put_queue_add(struct put_queue *queue, const struct trie_key *map,
                   const struct queued_put *put) {
  CHECK(put->key.size + put->value_size <= PUT_QUEUE_RECORD_MAX &&
        put_queue_has_room(queue, map, put));
  struct queued_put *kept = &queue->puts[queue->count++];
  *kept = *put;
  kept->key.data = keep(queue, put->key.data, put->key.size);
  kept->value = keep(queue, put->value, put->value_size);
  queue->map = map;
  TEST_POINT("waiting");
}
