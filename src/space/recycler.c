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

/* After a change of the ring's count. */
static void note_spare(struct recycler *recycler, int class) {
  if (class >= BRANCH_WAYS) return;
  uint64_t bit = UINT64_C(1) << class;
  if (recycler->rings[class].count >= RECYCLER_SPARE)
    recycler->spare |= bit;
  else
    recycler->spare &= ~bit;
}

static void put(struct recycler *recycler, int class, uint64_t offset,
                uint64_t tick, uint64_t epoch) {
  if (class < 0) return;
  CHECK(class < RECYCLER_CLASSES);
  struct recycler_ring *ring = &recycler->rings[class];
  if (ring->count == ring->capacity && !ring_grow(ring)) return;
  struct recycled *item = ring_item(ring, ring->count++);
  item->offset = offset;
  item->tick = tick;
  item->epoch = epoch;
  note_spare(recycler, class);
}

void recycler_put(struct recycler *recycler, int class, uint64_t offset,
                  uint64_t epoch) {
  put(recycler, class, offset, readers_tick(recycler->readers), epoch);
  recycler->came++;
}

void recycler_put_unseen(struct recycler *recycler, int class,
                         uint64_t offset) {
  put(recycler, class, offset, UNSEEN_TICK, 0);
}

void recycler_put_rest(struct recycler *recycler, uint32_t slot_count,
                       uint64_t offset) {
  /* Nobody could see the branch that it was cut from. */
  recycler_put_unseen(recycler, recycler_class_of_branch(slot_count), offset);
}

/* R18: the oldest snapshot that may have a node that is here, open or saved. */
static uint64_t find_held_epoch(const struct recycler *recycler,
                                const struct readers_held *held) {
  const struct share_upkeep *upkeep = &recycler->readers->share->header->upkeep;
  uint64_t first = recycler->first_epoch;
  uint64_t held_epoch = UINT64_MAX;
  if (atomic_load(&upkeep->ended_tick) >= recycler->horizon) return 0;
  if (upkeep->saved_newest >= first) held_epoch = first;
  if (held->count > READERS_HELD_MAX && held->newest >= first) return first;
  for (uint32_t i = 0; i < held->count && i < READERS_HELD_MAX; i++)
    if (held->epochs[i] >= first && held->epochs[i] < held_epoch)
      held_epoch = held->epochs[i];
  return held_epoch;
}

static bool is_held(const struct recycler *recycler,
                    const struct recycled *item) {
  return item->epoch > recycler->held_epoch && !BROKEN(BREAK_RECYCLE_HELD);
}

static bool is_usable(const struct recycler *recycler,
                      const struct recycled *item) {
  return item->tick == UNSEEN_TICK || BROKEN(BREAK_RECYCLE_EARLY) ||
         (item->tick < recycler->horizon && !is_held(recycler, item));
}

static void drop_oldest(struct recycler_ring *ring) {
  ring->first = (ring->first + 1) & (ring->capacity - 1);
  ring->count--;
}

/* Looks for readers again. What a snapshot holds is dropped:
   it keeps nothing back that was unlinked later. */
static void look(struct recycler *recycler, struct recycler_ring *ring) {
  recycler->tries = recycler->came = 0;
  struct readers_held held;
  recycler->horizon = readers_look(recycler->readers, &held);
  recycler->held_epoch = find_held_epoch(recycler, &held);
  while (ring->count > 0 && ring_item(ring, 0)->tick < recycler->horizon &&
         is_held(recycler, ring_item(ring, 0)))
    drop_oldest(ring);
}

static bool take_oldest(struct recycler *recycler, int class,
                        uint64_t *offset_out) {
  struct recycler_ring *ring = &recycler->rings[class];
  bool is_there = is_usable(recycler, ring_item(ring, 0));
  if (!is_there) {
    if (++recycler->tries < RECYCLER_NODES_PER_LOOK &&
        recycler->came < RECYCLER_NODES_PER_LOOK)
      return false;
    look(recycler, ring);
    is_there = ring->count > 0 && is_usable(recycler, ring_item(ring, 0));
  }
  if (is_there) {
    *offset_out = ring_item(ring, 0)->offset;
    drop_oldest(ring);
  }
  note_spare(recycler, class);
  return is_there;
}

bool recycler_take(struct recycler *recycler, int class, uint64_t *offset_out) {
  *offset_out = 0;
  if (class < 0) return false;
  CHECK(class < RECYCLER_CLASSES);
  return recycler->rings[class].count > 0 &&
         take_oldest(recycler, class, offset_out);
}

bool recycler_take_larger_branch(struct recycler *recycler, uint32_t slot_count,
                                 uint64_t *offset_out, uint32_t *rest_out) {
  const uint32_t header_slots = NODE_HEADER_BYTES / 8;
  int least = recycler_class_of_branch(slot_count + header_slots + 1);
  *offset_out = 0;
  *rest_out = 0;
  if (least >= BRANCH_WAYS || recycler->spare >> least == 0) return false;
  int class = least + __builtin_ctzll(recycler->spare >> least);
  *rest_out = (uint32_t)(class - least) + 1;
  return take_oldest(recycler, class, offset_out);
}

void recycler_clear(struct recycler *recycler, uint64_t first_epoch) {
  recycler->first_epoch = first_epoch;
  if (BROKEN(BREAK_RECYCLE_COMMITTED)) return;
  for (int i = 0; i < RECYCLER_CLASSES; i++)
    recycler->rings[i].count = 0;
  recycler->spare = 0;
}
