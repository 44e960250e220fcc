/* SPDX-License-Identifier: MIT */
/*
 * Embedding in C: counts the words of standard input, in addition to those that
 * were counted before, and tells what is new.
 *
 *   cc 08-embedding.c -o embedding $(pkg-config --cflags --libs mmcmap)
 *   echo to be or not to be | ./embedding words.mmc
 *   echo to be, to be | ./embedding words.mmc
 *
 * The words of one input are counted in one transaction: if the program is killed,
 * or the power fails, the store has all of them or none. Any number of these
 * programs may use the same store at the same time.
 */
#include <mmcmap.h>

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static mmcmap_slice text(const char *string) {
  mmcmap_slice slice = {string, strlen(string)};
  return slice;
}

/* What the last call that failed has left, on this thread. */
static void complain(const char *path) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  fprintf(stderr, "%s: %s (%s)\n", path, mmcmap_strerror(error.code),
          error.what ? error.what : "");
}

/* ---- Counting ------------------------------------------------------------ */

/* The next word of `input`, in lower case; its size, 0 at the end. */
static size_t read_word(FILE *input, char *word, size_t room) {
  size_t size = 0;
  int c;
  while ((c = getc(input)) != EOF) {
    if (isalnum(c)) {
      if (size < room) word[size++] = (char)tolower(c);
    } else if (size > 0) {
      break;
    }
  }
  return size;
}

/* A number for each word in the map "words", and for all of them in the default
   map. The transaction is seen by others when it is committed. */
static int count_words(mmcmap_txn *txn, FILE *input) {
  const mmcmap_number one = {false, 1, 0}, zero = {false, 0, 0};
  mmcmap_txn *words; /* ends with the transaction */
  mmcmap_number sum;
  char word[64];
  size_t size;
  int code = mmcmap_txn_map(txn, text("words"), &words);
  while (code == MMCMAP_OK &&
         (size = read_word(input, word, sizeof word)) > 0) {
    mmcmap_slice key = {word, size};
    code = mmcmap_txn_incr(words, key, one, zero, &sum);
    if (code == MMCMAP_OK)
      code = mmcmap_txn_incr(txn, text("total"), one, zero, &sum);
  }
  return code;
}

static int count_input(mmcmap *store, FILE *input) {
  mmcmap_txn *txn;
  int code = mmcmap_txn_begin(store, &txn);
  if (code != MMCMAP_OK) return code;
  code = count_words(txn, input);
  if (code == MMCMAP_OK) return mmcmap_txn_commit(txn);
  mmcmap_txn_abort(txn); /* nothing has happened */
  return code;
}

/* ---- Telling ------------------------------------------------------------- */

/* Each word whose number is another than before. Slices point into the store, no
   byte is copied: they are good until the snapshots are closed, and end without a
   zero. */
static int tell_changes(mmcmap_snapshot *before, mmcmap_snapshot *after) {
  mmcmap_diff *diff;
  mmcmap_change change;
  int code = mmcmap_diff_open(before, after, &diff);
  if (code != MMCMAP_OK) return code;
  while ((code = mmcmap_diff_next(diff, &change)) == MMCMAP_OK) {
    printf("  %.*s: ", (int)change.key.size, (const char *)change.key.data);
    if (change.has_old)
      printf("%.*s -> ", (int)change.old_value.size,
             (const char *)change.old_value.data);
    printf("%.*s\n", (int)change.new_value.size,
           (const char *)change.new_value.data);
  }
  mmcmap_diff_close(diff);
  return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code; /* the end */
}

static int tell(mmcmap_snapshot *before, mmcmap_snapshot *after) {
  mmcmap_snapshot *old_words = NULL, *words = NULL;
  mmcmap_slice total;
  int code = mmcmap_snapshot_get(after, text("total"), &total);
  if (code == MMCMAP_NOTFOUND) total = text("no");
  if (code == MMCMAP_OK || code == MMCMAP_NOTFOUND)
    code = mmcmap_snapshot_map(before, text("words"), &old_words);
  if (code == MMCMAP_OK)
    code = mmcmap_snapshot_map(after, text("words"), &words);
  if (code == MMCMAP_OK) {
    printf("%.*s words, %llu different ones\n", (int)total.size,
           (const char *)total.data,
           (unsigned long long)mmcmap_snapshot_count(words));
    code = tell_changes(old_words, words);
  }
  mmcmap_snapshot_close(words); /* NULL is allowed */
  mmcmap_snapshot_close(old_words);
  return code;
}

/* ---- All of it ----------------------------------------------------------- */

static int run(mmcmap *store, FILE *input) {
  mmcmap_snapshot *before, *after = NULL;
  int code = mmcmap_snapshot_open(store, &before);
  if (code == MMCMAP_OK) code = count_input(store, input);
  if (code == MMCMAP_OK) code = mmcmap_snapshot_open(store, &after);
  if (code == MMCMAP_OK) code = tell(before, after);
  mmcmap_snapshot_close(after);
  mmcmap_snapshot_close(before);
  return code;
}

int main(int argc, char **argv) {
  mmcmap_options options;
  mmcmap *store;
  if (argc != 2) {
    fprintf(stderr, "usage: %s STORE < TEXT\n", argv[0]);
    return 2;
  }
  mmcmap_options_init(&options);
  options.durability = MMCMAP_SYNC; /* on disk when the commit returns */
  int code = mmcmap_open(argv[1], &options, &store);
  if (code != MMCMAP_OK) {
    complain(argv[1]);
    return 1;
  }
  code = run(store, stdin);
  if (code != MMCMAP_OK) complain(argv[1]);
  int closed = mmcmap_close(store); /* it is gone, whatever that returns */
  if (closed != MMCMAP_OK) complain(argv[1]);
  return code != MMCMAP_OK || closed != MMCMAP_OK;
}
