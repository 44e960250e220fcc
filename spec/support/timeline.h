/* SPDX-License-Identifier: MIT */
/*
 * A history as a row of events, calls and returns, for the search of
 * linearizable.c. Every operation has a slot while it is open, so that sets of
 * open operations are masks of 64 bits. A cut comes after a return that leaves
 * nothing open, when the last operations on each key were alone and have shown
 * its value.
 */
#ifndef SUPPORT_TIMELINE_H
#define SUPPORT_TIMELINE_H

#include "linearizable.h"

struct timeline_event {
  uint64_t time_ns;
  uint32_t operation;
  uint8_t slot;
  bool is_end;
  bool is_cut; /* after it */
};

struct timeline {
  const struct linearizable_history *history;
  struct timeline_event *events;
  size_t count;
};

static inline uint64_t timeline_bit(unsigned slot) {
  return UINT64_C(1) << slot;
}

/* Which of the values that are looked at the operation is about. */
static inline unsigned timeline_key(const struct linearizable_history *history,
                                    const struct operation *operation) {
  return history->key_count == 1 ? 0 : operation->key;
}

/* How many of the entries from this one on are one operation. */
static inline int timeline_parts(const struct linearizable_history *history,
                                 const struct operation *operation) {
  return history->key_count > 1 && operation_is_joint(operation)
             ? operation->parts
             : 1;
}

/* Also fills in the result's figures. NULL, or why it cannot be done. */
const char *timeline_init(struct timeline *self,
                          const struct linearizable_history *history,
                          struct linearizable_result *result);
void timeline_destroy(struct timeline *self);

/* The values after the event, which is a cut. */
void timeline_values(const struct timeline *self, size_t cut, uint64_t *values);

#endif
