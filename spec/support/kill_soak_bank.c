/* SPDX-License-Identifier: MIT */
/*
 * Transactions over named maps. A writer moves amounts between accounts in two
 * maps, and in the same transaction writes the number of the move into the
 * ledger, a third map, and into a map of its own, its log, which it drops every
 * few moves. So at any moment
 *   - all accounts together hold nothing, since nothing was ever paid in;
 *   - the ledger has, of each writer, the move that it was told of last, or one
 *     that it has begun since;
 *   - a log holds the moves since it was dropped, up to the one in the ledger.
 */
#include "kill_soak.h"

#include <stdio.h>
#include <string.h>

enum { BANKS = 2, ACCOUNTS = 12, LOG_LENGTH = 8 };

static const mmcmap_slice bank_names[BANKS] = {{"bank a", 6}, {"bank b", 6}};
static const mmcmap_slice ledger_name = {"ledger", 6};

static mmcmap_slice bank_text(char bytes_out[KEY_SIZE_MAX], const char *what,
                              unsigned number) {
  int length = snprintf(bytes_out, KEY_SIZE_MAX, "%s %u", what, number);
  return (mmcmap_slice){.data = bytes_out, .size = (size_t)length};
}

/* A code, or what is no number of eight bytes as MMCMAP_EINVAL; absent: 0. */
static int bank_read(int code, mmcmap_slice value, int64_t *number_out) {
  *number_out = 0;
  if (code == MMCMAP_NOTFOUND) return MMCMAP_OK;
  if (code != MMCMAP_OK) return code;
  if (value.size != sizeof *number_out) return MMCMAP_EINVAL;
  memcpy(number_out, value.data, sizeof *number_out);
  return MMCMAP_OK;
}

/* ---- Moves --------------------------------------------------------------- */

static int bank_add(mmcmap_txn *map, mmcmap_slice key, int64_t amount,
                    int64_t *sum_out) {
  mmcmap_slice value;
  int code = mmcmap_txn_get(map, key, &value);
  code = bank_read(code, value, sum_out);
  if (code != MMCMAP_OK) return code;
  *sum_out += amount;
  return mmcmap_txn_put(
      map, key, (mmcmap_slice){.data = sum_out, .size = sizeof *sum_out});
}

static int bank_pay(mmcmap_txn *txn, struct chance *chance, int64_t amount) {
  char bytes[KEY_SIZE_MAX];
  mmcmap_txn *bank;
  int64_t rest;
  unsigned account = (unsigned)chance_below(chance, ACCOUNTS);
  int code =
      mmcmap_txn_map(txn, bank_names[chance_below(chance, BANKS)], &bank);
  if (code != MMCMAP_OK) return code;
  return bank_add(bank, bank_text(bytes, "account", account), amount, &rest);
}

static int bank_log(mmcmap_txn *txn, unsigned writer, int64_t number) {
  char bytes[KEY_SIZE_MAX];
  mmcmap_txn *log;
  mmcmap_slice name = bank_text(bytes, "log", writer);
  unsigned place = (unsigned)(number % LOG_LENGTH);
  int code = place == 0 ? mmcmap_txn_drop(txn, name) : MMCMAP_OK;
  if (code == MMCMAP_OK) code = mmcmap_txn_map(txn, name, &log);
  if (code != MMCMAP_OK) return code;
  return mmcmap_txn_put(log, bank_text(bytes, "place", place),
                        (mmcmap_slice){.data = &number, .size = sizeof number});
}

/* All but the end; the number of the move. */
static int bank_work(mmcmap_txn *txn, unsigned writer, struct chance *chance,
                     int64_t *number_out) {
  char bytes[KEY_SIZE_MAX];
  mmcmap_txn *ledger;
  int64_t amount = 1 + (int64_t)chance_below(chance, 1000);
  *number_out = 0;
  int code = bank_pay(txn, chance, -amount);
  if (code == MMCMAP_OK) code = bank_pay(txn, chance, amount);
  if (code == MMCMAP_OK) code = mmcmap_txn_map(txn, ledger_name, &ledger);
  if (code == MMCMAP_OK)
    code = bank_add(ledger, bank_text(bytes, "writer", writer), 1, number_out);
  return code == MMCMAP_OK ? bank_log(txn, writer, *number_out) : code;
}

void bank_move(struct soak *soak, mmcmap *store, unsigned writer,
               struct chance *chance, struct mark *mark) {
  struct note *note = &soak->writers[writer].moves;
  uint64_t done = atomic_load(&note->acked);
  bool aborts = chance_below(chance, 8) == 0;
  int64_t number = 0;
  mmcmap_txn *txn;
  mark_begin(mark, DOING_MOVE, 0);
  int code = mmcmap_txn_begin(store, &txn);
  if (code == MMCMAP_OK) code = bank_work(txn, writer, chance, &number);
  if (code == MMCMAP_OK && (uint64_t)number != done + 1)
    soak_fault(soak, "writer %u begins move %lld, and was told of %llu", writer,
               (long long)number, (unsigned long long)done);
  if (code == MMCMAP_OK && !aborts) {
    atomic_store(&note->begun, (uint64_t)number);
    code = mmcmap_txn_commit(txn);
  } else {
    mmcmap_txn_abort(txn);
  }
  mark_end(soak, mark);
  if (code != MMCMAP_OK) soak_fail(soak, "a move", code);
  if (aborts) return;
  atomic_store(&note->acked, (uint64_t)number);
  atomic_fetch_add(&soak->moves, 1);
}

/* ---- Looking ------------------------------------------------------------- */

/* The writer's last move in a snapshot. */
static int bank_last_move(mmcmap_snapshot *ledger, unsigned writer,
                          int64_t *number_out) {
  char bytes[KEY_SIZE_MAX];
  mmcmap_slice value;
  int code =
      mmcmap_snapshot_get(ledger, bank_text(bytes, "writer", writer), &value);
  return bank_read(code, value, number_out);
}

void bank_settle(struct soak *soak, mmcmap *store, unsigned writer,
                 struct mark *mark) {
  struct note *note = &soak->writers[writer].moves;
  uint64_t acked = atomic_load(&note->acked), begun = atomic_load(&note->begun);
  mmcmap_snapshot *snapshot, *ledger = NULL;
  int64_t number = 0;
  mark_begin(mark, DOING_SNAPSHOT, 0);
  int code = mmcmap_snapshot_open(store, &snapshot);
  if (code == MMCMAP_OK)
    code = mmcmap_snapshot_map(snapshot, ledger_name, &ledger);
  if (code == MMCMAP_OK) code = bank_last_move(ledger, writer, &number);
  mmcmap_snapshot_close(ledger);
  mmcmap_snapshot_close(snapshot);
  mark_end(soak, mark);
  if (code != MMCMAP_OK) soak_fail(soak, "the ledger", code);
  if ((uint64_t)number != acked && (uint64_t)number != begun)
    soak_fault(soak,
               "writer %u: after a kill move %lld is the last; acknowledged "
               "was %llu, begun %llu",
               writer, (long long)number, (unsigned long long)acked,
               (unsigned long long)begun);
  atomic_store(&note->acked, (uint64_t)number);
  atomic_store(&note->begun, (uint64_t)number);
}

/* Adds up all numbers of a map. */
static int bank_sum(mmcmap_snapshot *snapshot, mmcmap_slice name,
                    struct view *view, int64_t *sum) {
  mmcmap_snapshot *map;
  mmcmap_cursor *cursor = NULL;
  mmcmap_slice key, value;
  int64_t number;
  int code = mmcmap_snapshot_map(snapshot, name, &map);
  if (code == MMCMAP_OK) code = mmcmap_cursor_open(map, &cursor);
  while (code == MMCMAP_OK &&
         (code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK) {
    code = bank_read(MMCMAP_OK, value, &number);
    *sum += number;
    view->map_records++;
    view->digest = mix(view->digest ^ (uint64_t)number) + key.size;
  }
  mmcmap_cursor_close(cursor);
  mmcmap_snapshot_close(map);
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
}

/* The log of a writer holds the last moves, one after the other. */
static int bank_check_log(struct soak *soak, mmcmap_snapshot *snapshot,
                          struct view *view, unsigned writer, int64_t last) {
  char bytes[KEY_SIZE_MAX];
  int64_t sum = 0, wanted = 0;
  uint64_t before = view->map_records;
  uint64_t length = 0;
  int code = bank_sum(snapshot, bank_text(bytes, "log", writer), view, &sum);
  for (int64_t move = last - last % LOG_LENGTH; move <= last; move++) {
    wanted += move;
    length += move > 0;
  }
  if (code == MMCMAP_OK &&
      (sum != wanted || view->map_records - before != length))
    soak_fault(soak,
               "writer %u has moved %lld times; its log is of %llu, not "
               "%llu, with the sum %lld, not %lld",
               writer, (long long)last,
               (unsigned long long)(view->map_records - before),
               (unsigned long long)length, (long long)sum, (long long)wanted);
  return code;
}

static int bank_check_writer(struct soak *soak, mmcmap_snapshot *snapshot,
                             struct view *view, mmcmap_snapshot *ledger,
                             unsigned writer) {
  struct note *note = &soak->writers[writer].moves;
  int64_t last;
  uint64_t acked = view->moved[writer];
  int code = bank_last_move(ledger, writer, &last);
  if (code != MMCMAP_OK) return code;
  uint64_t begun = atomic_load(&note->begun);
  if ((uint64_t)last < acked || (uint64_t)last > begun)
    soak_fault(soak,
               "writer %u: move %lld is the last; acknowledged was %llu, begun "
               "%llu",
               writer, (long long)last, (unsigned long long)acked,
               (unsigned long long)begun);
  return bank_check_log(soak, snapshot, view, writer, last);
}

void bank_prepare(const struct soak *soak, struct view *view) {
  for (unsigned w = 0; w < soak_writer_count(soak); w++)
    view->moved[w] = atomic_load(&soak->writers[w].moves.acked);
}

int bank_check(struct soak *soak, mmcmap_snapshot *snapshot,
               struct view *view) {
  int64_t sum = 0, ignored = 0;
  mmcmap_snapshot *ledger;
  int code = MMCMAP_OK;
  for (unsigned i = 0; i < BANKS && code == MMCMAP_OK; i++)
    code = bank_sum(snapshot, bank_names[i], view, &sum);
  if (code == MMCMAP_OK && sum != 0)
    soak_fault(soak, "all accounts together hold %lld, not nothing",
               (long long)sum);
  if (code == MMCMAP_OK) code = bank_sum(snapshot, ledger_name, view, &ignored);
  if (code != MMCMAP_OK) return code;
  code = mmcmap_snapshot_map(snapshot, ledger_name, &ledger);
  for (unsigned w = 0; w < soak_writer_count(soak) && code == MMCMAP_OK; w++)
    code = bank_check_writer(soak, snapshot, view, ledger, w);
  mmcmap_snapshot_close(ledger);
  return code;
}
