/* SPDX-License-Identifier: MIT */
/*
 * One ring per class. A ring that grew keeps its memory until the store is
 * closed.
 */
#include "space/recycler.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/testing.h"

/* Below every tick that a pin can have. */
enum { UNSEEN_TICK = 0 };

void recycler_init(struct recycler *recycler, struct readers *readers) {
  memset(recycler, 0, sizeof *recycler);
  recycler->readers = readers;
}

void recycler_destroy(struct recycler *recycler) {
  for (int i = 0; i < RECYCLER_CLASSES; i++)
    free(recycler->rings[i].items);
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
  for (uint32_t i = 0; i < ring->count; i++)
    items[i] = *ring_item(ring, i);
  /* A child that is forked now frees what it finds here. */
  struct recycled *before = ring->items;
  ring->items = items;
  ring->first = 0;
  ring->capacity = capacity;
  free(before);
  return true;
}

static void put(struct recycler *recycler, int class, uint64_t offset,
                uint64_t tick) {
  if (class < 0) return;
  CHECK(class < RECYCLER_CLASSES);
  struct recycler_ring *ring = &recycler->rings[class];
  if (ring->count == ring->capacity && !ring_grow(ring)) return;
  struct recycled *item = ring_item(ring, ring->count++);
  item->offset = offset;
  item->tick = tick;
}

void recycler_put(struct recycler *recycler, int class, uint64_t offset) {
  put(recycler, class, offset, readers_tick(recycler->readers));
}

void recycler_put_unseen(struct recycler *recycler, int class,
                         uint64_t offset) {
  put(recycler, class, offset, UNSEEN_TICK);
}

void recycler_put_rest(struct recycler *recycler, uint32_t slot_count,
                       uint64_t offset) {
  /* Nobody could see the branch that it was cut from. */
  recycler_put_unseen(recycler, recycler_class_of_branch(slot_count), offset);
}

static bool take_oldest(struct recycler *recycler, struct recycler_ring *ring,
                        uint64_t *offset_out) {
  struct recycled *oldest = ring_item(ring, 0);
  if (oldest->tick != UNSEEN_TICK && oldest->tick >= recycler->horizon &&
      !BROKEN(BREAK_RECYCLE_EARLY)) {
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

bool recycler_take(struct recycler *recycler, int class, uint64_t *offset_out) {
  *offset_out = 0;
  if (class < 0) return false;
  CHECK(class < RECYCLER_CLASSES);
  struct recycler_ring *ring = &recycler->rings[class];
  return ring->count > 0 && take_oldest(recycler, ring, offset_out);
}

bool recycler_take_larger_branch(struct recycler *recycler, uint32_t slot_count,
                                 uint64_t *offset_out, uint32_t *rest_out) {
  const uint32_t header_slots = NODE_HEADER_BYTES / 8;
  *offset_out = 0;
  *rest_out = 0;
  for (uint32_t larger = slot_count + header_slots + 1; larger <= BRANCH_WAYS;
       larger++) {
    struct recycler_ring *ring =
        &recycler->rings[recycler_class_of_branch(larger)];
    if (ring->count < RECYCLER_SPARE) continue;
    *rest_out = larger - slot_count - header_slots;
    return take_oldest(recycler, ring, offset_out);
  }
  return false;
}

void recycler_clear(struct recycler *recycler) {
  if (BROKEN(BREAK_RECYCLE_SEALED)) return;
  for (int i = 0; i < RECYCLER_CLASSES; i++)
    recycler->rings[i].count = 0;
}
