/* SPDX-License-Identifier: MIT */
/*
 * Where the values of a history come from and who must still find them: with
 * that, the search of linearizable.c knows at once that a value may not be
 * overwritten yet. It says so only of values that one operation can make, or
 * that are there at the beginning: no other can bring them back.
 */
#ifndef SUPPORT_PROVENANCE_H
#define SUPPORT_PROVENANCE_H

#include "operation.h"

struct provenance_value {
  uint64_t value;
  uint32_t key;
  uint32_t makers;      /* 0: the entry is empty */
  uint64_t last_needed; /* the latest call that must find it, or 0 */
};

struct provenance {
  struct provenance_value *values; /* a hash table */
  size_t size;                     /* a power of two */
  uint64_t unsure;                 /* keys, as a mask, that may hold anything */
};

/* For so many operations and initial values. False if there is no memory. */
bool provenance_init(struct provenance *self, size_t count);
void provenance_destroy(struct provenance *self);

/* `key` holds `value` at the beginning. */
void provenance_begin(struct provenance *self, unsigned key, uint64_t value);

/* An operation, or a part of a snapshot, on `key`, called as number `call` of
   all events, from 1 on. First all makers are to be noted, then all needs. */
void provenance_note_maker(struct provenance *self,
                           const struct operation *operation, unsigned key);
void provenance_note_need(struct provenance *self,
                          const struct operation *operation, unsigned key,
                          uint64_t call);

/* Whether the operation takes effect for certain, and only if it finds one
   value, which is given. */
bool provenance_need(const struct operation *operation, uint64_t *value_out);

/* Whether an operation that is called after event `call` must find `value`. */
bool provenance_is_needed(const struct provenance *self, unsigned key,
                          uint64_t value, uint64_t call);

/* Whether the key may ever hold `value`. */
bool provenance_is_possible(const struct provenance *self, unsigned key,
                            uint64_t value);

/* Whether `value`, once overwritten, cannot come back. */
bool provenance_is_unique(const struct provenance *self, unsigned key,
                          uint64_t value);

#endif
