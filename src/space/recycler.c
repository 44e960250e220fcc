/* SPDX-License-Identifier: MIT */
/*
 * One ring per class. A ring that grew keeps its memory until the store is
 * closed.
 */
#include "space/recycler.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

void recycler_init(struct recycler *recycler, struct readers *readers) {
  memset(recycler, 0, sizeof *recycler);
  recycler->readers = readers;
}

void recycler_destroy(struct recycler *recycler) {
  for (int i = 0; i < RECYCLER_CLASSES; i++) free(recycler->rings[i].items);
  memset(recycler, 0, sizeof *recycler);
}

static struct recycled *ring_item(struct recycler_ring *ring, uint32_t index) {
  return &ring->items[(ring->first + index) & (ring->capacity - 1)];
}

static bool ring_grow(struct recycler_ring *ring) {
  uint32_t capacity = ring->capacity == 0 ? 16 : ring->capacity * 2;
  if (capacity < ring->capacity) return false;
  struct recycled *items = malloc(capacity * sizeof *items);
  if (items == NULL) return false;
  for (uint32_t i = 0; i < ring->count; i++) items[i] = *ring_item(ring, i);
  free(ring->items);
  ring->items = items;
  ring->first = 0;
  ring->capacity = capacity;
  return true;
}

void recycler_put(struct recycler *recycler, int class, uint64_t offset) {
  if (class < 0) return;
  CHECK(class < RECYCLER_CLASSES);
  struct recycler_ring *ring = &recycler->rings[class];
  if (ring->count == ring->capacity && !ring_grow(ring)) return;
  struct recycled *item = ring_item(ring, ring->count++);
  item->offset = offset;
  item->tick = readers_tick(recycler->readers);
}

bool recycler_take(struct recycler *recycler, int class,
                   uint64_t *offset_out) {
  *offset_out = 0;
  if (class < 0) return false;
  CHECK(class < RECYCLER_CLASSES);
  struct recycler_ring *ring = &recycler->rings[class];
  if (ring->count == 0) return false;
  struct recycled *oldest = ring_item(ring, 0);
  if (oldest->tick >= recycler->horizon) {
    if (++recycler->tries < RECYCLER_TRIES_PER_ADVANCE) return false;
    recycler->tries = 0;
    recycler->horizon = readers_advance(recycler->readers);
    if (oldest->tick >= recycler->horizon) return false;
  }
  *offset_out = oldest->offset;
  ring->first = (ring->first + 1) & (ring->capacity - 1);
  ring->count--;
  return true;
}

void recycler_clear(struct recycler *recycler) {
  for (int i = 0; i < RECYCLER_CLASSES; i++) recycler->rings[i].count = 0;
}
