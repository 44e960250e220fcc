/* SPDX-License-Identifier: MIT */
/*
 * Of the two bounds one is for what was put before the round began and one for
 * what was put since: the first is replaced by what the round finds. If the round's
 * process dies, both are still true, and another round begins.
 */
#include "share/expiry.h"

#include "os/process.h"

/* A round that has not gone on for so long is nobody's. */
#define ROUND_DEAD_NS UINT64_C(2000000000)
#define EXPIRY_MAX ((UINT64_C(1) << 63) - 1)

uint64_t expiry_read_clock(struct share_header *header) {
  _Atomic uint64_t *clock = &header->live.clock_ms;
  uint64_t wall = process_wall_ms();
  uint64_t latest = atomic_load_explicit(clock, memory_order_acquire);
  while (wall > latest) {
    /* R14: from here on no reading is lower, in whatever process. */
    if (atomic_compare_exchange_weak_explicit(
            clock, &latest, wall, memory_order_acq_rel, memory_order_acquire))
      return wall;
  }
  return latest;
}

uint64_t expiry_after(uint64_t now_ms, uint64_t ttl_ms) {
  return now_ms >= EXPIRY_MAX || ttl_ms > EXPIRY_MAX - now_ms ? EXPIRY_MAX
                                                              : now_ms + ttl_ms;
}

static uint64_t bit_of(uint32_t map_id) { return UINT64_C(1) << map_id % 64; }

void expiry_note(struct share_header *header, uint32_t map_id,
                 uint64_t expires_ms) {
  _Atomic uint64_t *earliest = &header->expiry.earliest_ms;
  if (expires_ms < atomic_load_explicit(earliest, memory_order_relaxed))
    atomic_store_explicit(earliest, expires_ms, memory_order_release);
  header->upkeep.expiring_maps |= bit_of(map_id);
}

bool expiry_was_noted(const struct share_header *header, uint32_t map_id,
                      uint64_t round) {
  return (header->upkeep.expiring_maps & bit_of(map_id)) != 0 ||
         atomic_load(&header->expiry.round) != round;
}

uint64_t expiry_earliest_ms(const struct share_header *header) {
  /* In this order: a round that begins lowers the second, then raises the first. */
  uint64_t earliest = atomic_load(&header->expiry.earliest_ms);
  uint64_t before = atomic_load(&header->expiry.before_ms);
  return before < earliest ? before : earliest;
}

/* How long the last round, or the one under way, keeps the next from beginning. */
static uint64_t wait_for_last_ns(const struct share_expiry *expiry) {
  uint64_t next = atomic_load(&expiry->next_ns);
  uint64_t active = atomic_load(&expiry->active_ns);
  uint64_t now = process_monotonic_ns(); /* not before what is stored there */
  uint64_t wait = next > now ? next - now : 0;
  if (active != 0 && now - active < ROUND_DEAD_NS &&
      wait < ROUND_DEAD_NS - (now - active))
    wait = ROUND_DEAD_NS - (now - active);
  return wait;
}

uint64_t expiry_wait_ms(struct share_header *header) {
  const struct share_expiry *expiry = &header->expiry;
  uint64_t earliest = expiry_earliest_ms(header);
  if (earliest == UINT64_MAX) return UINT64_MAX;
  uint64_t wait_ns = wait_for_last_ns(expiry);
  uint64_t wait_ms = wait_ns / 1000000 + (wait_ns % 1000000 != 0);
  uint64_t now_ms = expiry_read_clock(header);
  return earliest > now_ms && earliest - now_ms > wait_ms ? earliest - now_ms
                                                          : wait_ms;
}

uint64_t expiry_begin_round(struct share_header *header) {
  struct share_expiry *expiry = &header->expiry;
  uint64_t earliest = atomic_load(&expiry->earliest_ms);
  uint64_t round = atomic_load(&expiry->round) + 1;
  if (round == 0) round = 1;
  /* First the one bound, then the other: who dies in between has raised
     neither. */
  if (earliest < atomic_load(&expiry->before_ms))
    atomic_store(&expiry->before_ms, earliest);
  atomic_store(&expiry->earliest_ms, UINT64_MAX);
  atomic_store(&expiry->round, round);
  /* Only now, or the last round could take it for its own. */
  header->upkeep.expiring_maps = 0;
  atomic_store(&expiry->active_ns, process_monotonic_ns());
  return round;
}

bool expiry_go_on(struct share_header *header, uint64_t round) {
  struct share_expiry *expiry = &header->expiry;
  if (atomic_load(&expiry->round) != round) return false;
  atomic_store(&expiry->active_ns, process_monotonic_ns());
  return true;
}

void expiry_end_round(struct share_header *header, uint64_t round,
                      uint64_t earliest_ms, uint64_t pause_ns) {
  struct share_expiry *expiry = &header->expiry;
  if (atomic_load(&expiry->round) != round) return;
  atomic_store(&expiry->before_ms, earliest_ms);
  atomic_store(&expiry->next_ns, process_monotonic_ns() + pause_ns);
  atomic_store(&expiry->active_ns, 0);
}
