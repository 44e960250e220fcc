/* SPDX-License-Identifier: MIT */
/*
 * Changes that depend on the present value. Each is decided under the writer
 * lock by a function below, so it is atomic among all threads and processes. A
 * transaction, which has the lock, is decided about in the same way.
 */
#include <stdlib.h>
#include <string.h>

#include "base/number.h"
#include "handle.h"

/* What is changed: the live store, or a transaction. */
struct target {
  mmcmap *handle;
  mmcmap_txn *txn;
  struct change_life life; /* of what is put */
};

static struct target live(mmcmap *handle) {
  struct target target = {.handle = handle};
  return target;
}

static struct target within(mmcmap_txn *txn) {
  struct target target = {.txn = txn};
  return target;
}

static struct target lives(struct target target, uint64_t ttl_ms) {
  target.life = life_of(ttl_ms);
  return target;
}

/* What it puts lives as long as what was there before. */
static struct target keeps_life(struct target target) {
  target.life.is_kept = true;
  return target;
}

static int change_live(const struct target *target, mmcmap_slice key,
                       decide_fn *decide, void *context) {
  struct store *store;
  mmcmap *handle = target->handle;
  uint64_t epoch = 0;
  struct change_mode mode = change_mode_of(handle);
  unsigned tries = 0;
  mode.life = target->life;
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  do
    code = writer_change(&store->writer, map_of(handle), key.data, key.size,
                         decide, context, mode, &epoch);
  while (UNLIKELY(code != MMCMAP_OK) &&
         handle_make_room(handle, store, code, false, &tries));
  if (code != MMCMAP_OK || epoch == 0) return code;
  return change_may_expire(&target->life)
             ? finish_expiring_change(handle, store, epoch)
             : finish_change(handle, store, epoch);
}

static int change(struct target target, mmcmap_slice key, decide_fn *decide,
                  void *context) {
  if (target.txn == NULL) return change_live(&target, key, decide, context);
  int code = enter_txn(target.txn);
  if (code != MMCMAP_OK) return code;
  if (change_may_expire(&target.life)) target.txn->base->may_expire = true;
  return transaction_change(transaction_of(target.txn), map_of_txn(target.txn),
                            key.data, key.size, decide, context, target.life);
}

/* ---- add, replace -------------------------------------------------------- */

static int decide_add(void *context, const uint8_t *value, uint32_t value_size,
                      enum decision *decision_out, const void **value_out,
                      size_t *value_size_out) {
  const mmcmap_slice *wanted = context;
  (void)value_size;
  if (value != NULL) return MMCMAP_MISMATCH;
  *decision_out = DECIDE_PUT;
  *value_out = wanted->data;
  *value_size_out = wanted->size;
  return MMCMAP_OK;
}

int mmcmap_add(mmcmap *handle, mmcmap_slice key, mmcmap_slice value) {
  return change(live(handle), key, decide_add, &value);
}

int mmcmap_txn_add(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice value) {
  return change(within(txn), key, decide_add, &value);
}

int mmcmap_add_ttl(mmcmap *handle, mmcmap_slice key, mmcmap_slice value,
                   uint64_t ttl_ms) {
  return change(lives(live(handle), ttl_ms), key, decide_add, &value);
}

int mmcmap_txn_add_ttl(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice value,
                       uint64_t ttl_ms) {
  return change(lives(within(txn), ttl_ms), key, decide_add, &value);
}

static int decide_replace(void *context, const uint8_t *value,
                          uint32_t value_size, enum decision *decision_out,
                          const void **value_out, size_t *value_size_out) {
  const mmcmap_slice *wanted = context;
  (void)value_size;
  if (value == NULL) return MMCMAP_NOTFOUND;
  *decision_out = DECIDE_PUT;
  *value_out = wanted->data;
  *value_size_out = wanted->size;
  return MMCMAP_OK;
}

int mmcmap_replace(mmcmap *handle, mmcmap_slice key, mmcmap_slice value) {
  return change(live(handle), key, decide_replace, &value);
}

int mmcmap_txn_replace(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice value) {
  return change(within(txn), key, decide_replace, &value);
}

int mmcmap_replace_ttl(mmcmap *handle, mmcmap_slice key, mmcmap_slice value,
                       uint64_t ttl_ms) {
  return change(lives(live(handle), ttl_ms), key, decide_replace, &value);
}

int mmcmap_txn_replace_ttl(mmcmap_txn *txn, mmcmap_slice key,
                           mmcmap_slice value, uint64_t ttl_ms) {
  return change(lives(within(txn), ttl_ms), key, decide_replace, &value);
}

/* ---- cas ----------------------------------------------------------------- */

struct cas {
  const mmcmap_slice *expected; /* NULL: absent */
  const mmcmap_slice *wanted;   /* NULL: delete */
};

static int decide_cas(void *context, const uint8_t *value, uint32_t value_size,
                      enum decision *decision_out, const void **value_out,
                      size_t *value_size_out) {
  const struct cas *cas = context;
  bool matches =
      value == NULL
          ? cas->expected == NULL
          : cas->expected != NULL && cas->expected->size == value_size &&
                (value_size == 0 ||
                 memcmp(cas->expected->data, value, value_size) == 0);
  if (!matches) return MMCMAP_MISMATCH;
  if (cas->wanted != NULL) {
    *decision_out = DECIDE_PUT;
    *value_out = cas->wanted->data;
    *value_size_out = cas->wanted->size;
  } else if (value != NULL) {
    *decision_out = DECIDE_DELETE;
  }
  return MMCMAP_OK;
}

int mmcmap_cas(mmcmap *handle, mmcmap_slice key, const mmcmap_slice *expected,
               const mmcmap_slice *value) {
  struct cas cas = {.expected = expected, .wanted = value};
  return change(live(handle), key, decide_cas, &cas);
}

int mmcmap_txn_cas(mmcmap_txn *txn, mmcmap_slice key,
                   const mmcmap_slice *expected, const mmcmap_slice *value) {
  struct cas cas = {.expected = expected, .wanted = value};
  return change(within(txn), key, decide_cas, &cas);
}

/* ---- swap ---------------------------------------------------------------- */

struct swap {
  mmcmap_slice wanted;
  mmcmap_buffer *old_out;
  bool was_there;
};

static int decide_swap(void *context, const uint8_t *value, uint32_t value_size,
                       enum decision *decision_out, const void **value_out,
                       size_t *value_size_out) {
  struct swap *swap = context;
  swap->was_there = value != NULL;
  if (value != NULL) {
    int code = handle_buffer_set(swap->old_out, value, value_size);
    if (code != MMCMAP_OK) return code;
  }
  *decision_out = DECIDE_PUT;
  *value_out = swap->wanted.data;
  *value_size_out = swap->wanted.size;
  return MMCMAP_OK;
}

static bool is_within(const mmcmap_buffer *buffer, mmcmap_slice slice) {
  return (uintptr_t)slice.data - (uintptr_t)buffer->data < buffer->capacity;
}

/* What is put may lie where the old value is copied to, as when values are handed on
   from key to key: that is put first. */
static int swap_in(struct target target, mmcmap_slice key, mmcmap_slice value,
                   mmcmap_buffer *old_out, bool *found_out) {
  mmcmap_buffer other = {0};
  bool is_apart = is_within(old_out, key) || is_within(old_out, value);
  struct swap swap = {.wanted = value, .old_out = is_apart ? &other : old_out};
  old_out->size = 0;
  *found_out = false;
  int code = change(target, key, decide_swap, &swap);
  if (code == MMCMAP_OK && other.data != NULL) {
    mmcmap_buffer before = *old_out;
    *old_out = other;
    other = before;
  }
  mmcmap_buffer_free(&other);
  if (code == MMCMAP_OK)
    *found_out = swap.was_there;
  else
    old_out->size = 0;
  return code;
}

int mmcmap_swap(mmcmap *handle, mmcmap_slice key, mmcmap_slice value,
                mmcmap_buffer *old_out, bool *found_out) {
  return swap_in(live(handle), key, value, old_out, found_out);
}

int mmcmap_txn_swap(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice value,
                    mmcmap_buffer *old_out, bool *found_out) {
  return swap_in(within(txn), key, value, old_out, found_out);
}

/* ---- incr ---------------------------------------------------------------- */

/* It may be decided about more than once, if room has to be made. */
struct incr {
  mmcmap_number by;
  mmcmap_number init; /* what an absent key begins with */
  mmcmap_number sum;  /* the outcome */
  char text[NUMBER_TEXT_BYTES];
};

static int decide_incr(void *context, const uint8_t *value, uint32_t value_size,
                       enum decision *decision_out, const void **value_out,
                       size_t *value_size_out) {
  struct incr *incr = context;
  mmcmap_number present = incr->init;
  int code = MMCMAP_OK;
  if (value != NULL) code = number_read(value, value_size, &present);
  if (code == MMCMAP_OK) code = number_add(&present, &incr->by, &incr->sum);
  if (code != MMCMAP_OK) return code;
  *decision_out = DECIDE_PUT;
  *value_size_out = number_write(&incr->sum, incr->text);
  *value_out = incr->text;
  return MMCMAP_OK;
}

static int incr_in(struct target target, mmcmap_slice key, mmcmap_number by,
                   mmcmap_number init, mmcmap_number *sum_out) {
  struct incr incr = {.by = by, .init = init};
  memset(sum_out, 0, sizeof *sum_out);
  int code = change(target, key, decide_incr, &incr);
  if (code == MMCMAP_OK) *sum_out = incr.sum;
  return code;
}

int mmcmap_incr(mmcmap *handle, mmcmap_slice key, mmcmap_number by,
                mmcmap_number init, mmcmap_number *sum_out) {
  return incr_in(keeps_life(live(handle)), key, by, init, sum_out);
}

int mmcmap_txn_incr(mmcmap_txn *txn, mmcmap_slice key, mmcmap_number by,
                    mmcmap_number init, mmcmap_number *sum_out) {
  return incr_in(keeps_life(within(txn)), key, by, init, sum_out);
}

/* ---- expire -------------------------------------------------------------- */

static int decide_expire(void *context, const uint8_t *value,
                         uint32_t value_size, enum decision *decision_out,
                         const void **value_out, size_t *value_size_out) {
  (void)context;
  if (value == NULL) return MMCMAP_NOTFOUND;
  *decision_out = DECIDE_PUT;
  *value_out = value;
  *value_size_out = value_size;
  return MMCMAP_OK;
}

int mmcmap_expire(mmcmap *handle, mmcmap_slice key, uint64_t ttl_ms) {
  return change(lives(live(handle), ttl_ms), key, decide_expire, NULL);
}

int mmcmap_txn_expire(mmcmap_txn *txn, mmcmap_slice key, uint64_t ttl_ms) {
  return change(lives(within(txn), ttl_ms), key, decide_expire, NULL);
}
