/* SPDX-License-Identifier: MIT */
/*
 * What processes share about expiry: one clock, and when something may have
 * expired.
 *
 * The clock is that of the wall, in milliseconds, but it never goes back, for
 * whatever process: R14. So what somebody has seen as expired stays so. If the
 * system's clock is set back, this one stands still until the other has caught up.
 *
 * The time of the earliest expiry is a bound, not the truth: puts lower it, and a
 * round of the sweep (txn/sweep.h), which looks at everything, raises it.
 */
#ifndef SHARE_EXPIRY_H
#define SHARE_EXPIRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/check.h"
#include "share/layout.h"

/* One reading of the clock, taken when it is first needed: what is decided by it
   is decided as of one moment. */
struct expiry_reading {
  struct share_header *header;
  uint64_t now_ms; /* 0: not taken yet */
};

/* The clock now. */
uint64_t expiry_read_clock(struct share_header *header);

static inline uint64_t expiry_now(struct expiry_reading *reading) {
  if (reading->now_ms == 0)
    reading->now_ms = expiry_read_clock(reading->header);
  return reading->now_ms;
}

/* Whether what expires then (0: never) has expired. */
static inline bool expiry_is_past(struct expiry_reading *reading,
                                  uint64_t expires_ms) {
  return UNLIKELY(expires_ms != 0) && expires_ms <= expiry_now(reading);
}

/* The time that is so much later, as far as times go. */
uint64_t expiry_after(uint64_t now_ms, uint64_t ttl_ms);

/* A record of the map that expires then is about to be published; the writer lock
   is held. */
void expiry_note(struct share_header *header, uint32_t map_id,
                 uint64_t expires_ms);

/* Whether one of the map was since the round began, as far as is known, or another
   round has begun. The writer lock is held. */
bool expiry_was_noted(const struct share_header *header, uint32_t map_id,
                      uint64_t round);

/* No record that there is expires earlier; 0: that is not known. */
uint64_t expiry_earliest_ms(const struct share_header *header);

/* ---- Rounds ---------------------------------------------------------------- */

/* In how many milliseconds a round should begin, as it looks now: something may have
   expired, the pause after the last one is over, and nobody is about it, alive.
   UINT64_MAX: nothing expires. */
uint64_t expiry_wait_ms(struct share_header *header);

static inline bool expiry_is_due(struct share_header *header) {
  return expiry_wait_ms(header) == 0;
}

/* Begins a round: its number, not 0. The writer lock is held. */
uint64_t expiry_begin_round(struct share_header *header);

/* Says that the round goes on; false if another one has begun since. Like the
   question before, without a lock. */
bool expiry_go_on(struct share_header *header, uint64_t round);

/* Ends it: no record that it has met, and left, expires before `earliest_ms`
   (UINT64_MAX: never). Nothing is done if another one has begun since. The writer
   lock is held. */
void expiry_end_round(struct share_header *header, uint64_t round,
                      uint64_t earliest_ms, uint64_t pause_ns);

#endif
