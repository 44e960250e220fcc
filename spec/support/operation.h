/* SPDX-License-Identifier: MIT */
/*
 * What a client did to one key and what it was told, with the times of both:
 * the entries of a history (linearizable.h). And the model: what an atomic
 * register, which holds a 64-bit number or nothing, would have answered.
 */
#ifndef SUPPORT_OPERATION_H
#define SUPPORT_OPERATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum operation_kind {
  OPERATION_GET,     /* result: the value, or absent */
  OPERATION_HAS,     /* result: whether it was there */
  OPERATION_PUT,     /* result: done or failed; failed changes nothing */
  OPERATION_DELETE,  /* result: whether it was there */
  OPERATION_ADD,     /* put if absent; result: done or not */
  OPERATION_REPLACE, /* put if present; result: done or not */
  OPERATION_CAS,     /* `expected` (or absent) becomes `argument` (or absent);
                        result: done or not */
  OPERATION_SWAP,    /* put; result: the old value, or absent */
  OPERATION_INCR,    /* adds `argument`; an absent key counts as `expected`, and
                        stays absent if that is absent too; result: the new
                        value, or absent */
  OPERATION_SNAPSHOT, /* result: the value, or absent, at the moment of all its
                         parts */
  OPERATION_MOVE      /* put, of all its parts at one moment; result: the old
                         value, or absent: a transaction */
};

enum { OPERATION_KINDS = OPERATION_MOVE + 1 };

#define OPERATION_ABSENT UINT64_MAX /* no value of a key */
#define OPERATION_NEVER UINT64_MAX  /* when a pending operation ends */

struct operation {
  uint64_t begin_ns; /* before the call */
  uint64_t end_ns;   /* after it; OPERATION_NEVER if it did not return */
  uint64_t argument;
  uint64_t expected;
  uint64_t result;
  uint16_t key;
  uint16_t client;
  uint8_t kind;     /* enum operation_kind */
  bool is_unknown;  /* nobody was told the result: it may have taken effect
                      between begin_ns and end_ns, or never */
  bool is_optional; /* it may have taken effect outside of what is looked at;
                       if within, with this result */
  uint16_t parts;   /* of a snapshot or a move, a key each, side by side in the
                      history: their number in the first of them, 0 in others */
};

/* It may be about several keys at one moment. */
bool operation_is_joint(const struct operation *operation);

/* It changes nothing, whatever the register holds. */
bool operation_only_reads(const struct operation *operation);

/* Whether a register that holds `value` could have answered so, and what it
   holds then. An unknown result could always be. */
bool operation_apply(const struct operation *operation, uint64_t value,
                     uint64_t *value_out);

/* What the register holds after an operation that only reads and says so, or
   that has changed it. */
uint64_t operation_shown(const struct operation *operation);

const char *operation_name(enum operation_kind kind);

/* Such as "cas 17 -> absent: done", cut to `size`. */
void operation_print(const struct operation *operation, char *text,
                     size_t size);

/* A value, or "absent". */
const char *operation_value(uint64_t value, char text[24]);

#endif
