/* SPDX-License-Identifier: MIT */
/*
 * Transactions, and what is one in a single call. What depends on the present
 * value stands in api_change.c.
 */
#include <stdlib.h>

#include "handle.h"

/* ---- Begin and end ------------------------------------------------------- */

int mmcmap_txn_begin(mmcmap *handle, mmcmap_txn **txn_out) {
  struct store *store;
  *txn_out = NULL;
  int code = enter_to_write(handle, &store);
  if (code != MMCMAP_OK) return code;
  mmcmap_txn *txn = malloc(sizeof *txn);
  if (txn == NULL) return error_set(MMCMAP_ENOMEM, "transaction");
  code = transaction_begin(&txn->transaction, &store->writer,
                           handle->options.timeout_ms);
  if (code != MMCMAP_OK) {
    free(txn);
    return code;
  }
  txn->magic = TXN_MAGIC;
  txn->handle = handle;
  txn->store = store;
  store_hold_child(store);
  *txn_out = txn;
  return MMCMAP_OK;
}

/* What is left of it has been given back. */
static void free_txn(mmcmap_txn *txn) {
  store_drop_child(txn->store);
  txn->magic = 0;
  free(txn);
}

int mmcmap_txn_commit(mmcmap_txn *txn) {
  uint64_t epoch = 0;
  int code = enter_txn(txn);
  mmcmap *handle = txn->handle;
  struct store *store = txn->store;
  if (code == MMCMAP_OK)
    code = transaction_commit(&txn->transaction, &epoch);
  else
    transaction_forget(&txn->transaction);
  free_txn(txn);
  if (code != MMCMAP_OK || epoch == 0) return code;
  return finish_change(handle, store, epoch);
}

void mmcmap_txn_abort(mmcmap_txn *txn) {
  if (txn == NULL) return;
  CHECK(txn->magic == TXN_MAGIC);
  if (store_is_ours(txn->store))
    transaction_abort(&txn->transaction);
  else
    transaction_forget(&txn->transaction);
  free_txn(txn);
}

/* ---- Records ------------------------------------------------------------- */

int mmcmap_txn_get(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice *value_out) {
  struct record_view record;
  *value_out = slice_of(NULL, 0);
  int code = enter_txn(txn);
  if (code == MMCMAP_OK)
    code = transaction_get(&txn->transaction, key.data, key.size, &record);
  if (code == MMCMAP_OK) *value_out = slice_of(record.value, record.value_size);
  return code;
}

int mmcmap_txn_has(mmcmap_txn *txn, mmcmap_slice key) {
  mmcmap_slice value;
  return mmcmap_txn_get(txn, key, &value);
}

int mmcmap_txn_put(mmcmap_txn *txn, mmcmap_slice key, mmcmap_slice value) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_put(&txn->transaction, key.data, key.size, value.data,
                         value.size);
}

int mmcmap_txn_delete(mmcmap_txn *txn, mmcmap_slice key) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_delete(&txn->transaction, key.data, key.size);
}

int mmcmap_txn_clear(mmcmap_txn *txn) {
  int code = enter_txn(txn);
  return code == MMCMAP_OK ? transaction_clear(&txn->transaction) : code;
}

int mmcmap_txn_count(mmcmap_txn *txn, uint64_t *count_out) {
  *count_out = 0;
  int code = enter_txn(txn);
  if (code == MMCMAP_OK) code = transaction_check(&txn->transaction);
  if (code == MMCMAP_OK) *count_out = atomic_load(&txn->transaction.count);
  return code;
}

/* ---- Savepoints ---------------------------------------------------------- */

int mmcmap_txn_savepoint(mmcmap_txn *txn, size_t *savepoint_out) {
  *savepoint_out = 0;
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_savepoint(&txn->transaction, savepoint_out);
}

int mmcmap_txn_rollback_to(mmcmap_txn *txn, size_t savepoint) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_rollback_to(&txn->transaction, savepoint);
}

int mmcmap_txn_release(mmcmap_txn *txn, size_t savepoint) {
  int code = enter_txn(txn);
  if (code != MMCMAP_OK) return code;
  return transaction_release(&txn->transaction, savepoint);
}

/* ---- Many at once -------------------------------------------------------- */

static int put_all(mmcmap_txn *txn, const mmcmap_slice *keys,
                   const mmcmap_slice *values, size_t count) {
  int code = MMCMAP_OK;
  for (size_t i = 0; i < count && code == MMCMAP_OK; i++)
    code = mmcmap_txn_put(txn, keys[i], values[i]);
  return code;
}

int mmcmap_txn_put_many(mmcmap_txn *txn, const mmcmap_slice *keys,
                        const mmcmap_slice *values, size_t count) {
  size_t savepoint;
  int code = mmcmap_txn_savepoint(txn, &savepoint);
  if (code != MMCMAP_OK) return code;
  code = put_all(txn, keys, values, count);
  if (code != MMCMAP_OK) (void)mmcmap_txn_rollback_to(txn, savepoint);
  (void)mmcmap_txn_release(txn, savepoint);
  return code;
}

/* The first failure counts: what it has told stays told. */
static int end_txn(mmcmap_txn *txn, int code) {
  if (code == MMCMAP_OK) return mmcmap_txn_commit(txn);
  mmcmap_txn_abort(txn);
  return code;
}

int mmcmap_put_many(mmcmap *handle, const mmcmap_slice *keys,
                    const mmcmap_slice *values, size_t count) {
  mmcmap_txn *txn;
  int code = mmcmap_txn_begin(handle, &txn);
  if (code != MMCMAP_OK) return code;
  return end_txn(txn, put_all(txn, keys, values, count));
}

int mmcmap_clear(mmcmap *handle) {
  mmcmap_txn *txn;
  int code = mmcmap_txn_begin(handle, &txn);
  return code == MMCMAP_OK ? end_txn(txn, mmcmap_txn_clear(txn)) : code;
}
