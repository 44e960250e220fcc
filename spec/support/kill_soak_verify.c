/* SPDX-License-Identifier: MIT */
/*
 * Comparing what a store holds with the notes, and the process that does it
 * while nobody else has the store.
 *
 * A reader takes the acked words, then reads, then takes the begun words.
 * Whatever was acknowledged before must be seen, in whatever process; and what
 * is seen must have been begun by then. If both words are the same, nothing
 * happened to the key in between, and exactly that must be there.
 */
#include "kill_soak.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>

#include "base/hash.h"
#include "maint/recovery.h"
#include "maint/verify.h"
#include "os/process.h"

/* ---- Own keys --------------------------------------------------------------- */

void view_prepare_key(const struct soak *soak, struct view *view,
                      unsigned writer, unsigned key) {
  view->acked[writer][key] =
      atomic_load(&soak->writers[writer].keys[key].acked);
}

void view_prepare(const struct soak *soak, struct view *view) {
  for (unsigned w = 0; w < soak_writer_count(soak); w++)
    for (unsigned k = 0; k < KEYS; k++)
      view_prepare_key(soak, view, w, k);
  bank_prepare(soak, view);
}

static bool is_own_allowed(const struct view *view, uint64_t acked,
                           uint64_t begun, uint64_t number) {
  if (acked == begun) return number == word_value(acked);
  if (view->is_still)
    return number == word_value(acked) || number == word_value(begun);
  if (number == 0) return true; /* of some delete in between */
  if (number == word_number(acked)) return word_value(acked) != 0;
  return number > word_number(acked) && number <= word_number(begun);
}

static void fault_own(struct soak *soak, const struct view *view,
                      unsigned writer, unsigned key, uint64_t begun,
                      uint64_t number) {
  uint64_t acked = view->acked[writer][key];
  soak_fault(soak,
             "slot %u, thread %u, key %u: number %llu is there (0: none); "
             "acknowledged was %s %llu, begun %s %llu",
             writer / soak->thread_count, writer % soak->thread_count, key,
             (unsigned long long)number,
             (acked & WORD_DELETES) != 0 ? "delete" : "put",
             (unsigned long long)word_number(acked),
             (begun & WORD_DELETES) != 0 ? "delete" : "put",
             (unsigned long long)word_number(begun));
}

void view_check_own(struct soak *soak, const struct view *view, unsigned writer,
                    unsigned key, const struct found *found) {
  uint64_t begun = atomic_load(&soak->writers[writer].keys[key].begun);
  if (!is_own_allowed(view, view->acked[writer][key], begun, found->number))
    fault_own(soak, view, writer, key, begun, found->number);
}

/* ---- Shared keys ------------------------------------------------------------ */

/* Nothing is there: somebody must have deleted it, or nobody put it yet. */
static bool may_be_absent(const struct soak *soak, const struct view *view,
                          unsigned key) {
  bool was_put = false;
  if (!view->is_still) return true;
  for (unsigned w = 0; w < soak_writer_count(soak); w++) {
    uint64_t acked = view->acked[w][key];
    uint64_t begun = atomic_load(&soak->writers[w].keys[key].begun);
    /* An operation that was cut off may have been a delete before it. */
    if ((acked & WORD_DELETES) != 0 || acked != begun) return true;
    if (acked != 0) was_put = true;
  }
  return !was_put;
}

void view_check_shared(struct soak *soak, const struct view *view, unsigned key,
                       const struct found *found) {
  if (found->number == 0) {
    if (!may_be_absent(soak, view, key))
      soak_fault(soak, "shared key %u is gone, and nobody has deleted it",
                 key - OWN_KEYS);
    return;
  }
  /* A writer's earlier puts were overwritten by its later ones. */
  uint64_t acked = view->acked[found->writer][key];
  uint64_t begun = atomic_load(&soak->writers[found->writer].keys[key].begun);
  if (found->number > word_number(begun) ||
      found->number < word_number(acked) ||
      (found->number == word_number(acked) && word_value(acked) == 0))
    soak_fault(soak,
               "shared key %u: number %llu of writer %u is there, which has "
               "begun %llu, acknowledged was %llu",
               key - OWN_KEYS, (unsigned long long)found->number, found->writer,
               (unsigned long long)word_number(begun),
               (unsigned long long)word_number(acked));
}

/* ---- Snapshots -------------------------------------------------------------- */

static void view_take(struct soak *soak, struct view *view, mmcmap_slice key,
                      mmcmap_slice value) {
  struct found found;
  const char *wrong = soak_identify(soak, key, value, &found);
  if (wrong != NULL) {
    soak_fault(soak, "a record of a snapshot %s: key \"%.*s\", %zu bytes",
               wrong, (int)key.size, (const char *)key.data, value.size);
    return;
  }
  view->records++;
  view->digest =
      mix(view->digest ^ (found.number * KEYS + found.key)) + found.writer;
  if (found.key < OWN_KEYS)
    view->own[found.writer][found.key] = found;
  else
    view->shared[found.key - OWN_KEYS] = found;
}

static int view_walk(struct soak *soak, mmcmap_snapshot *snapshot,
                     struct view *view) {
  mmcmap_cursor *cursor;
  mmcmap_slice key, value;
  view->records = view->map_records = view->digest = 0;
  memset(view->own, 0, sizeof view->own);
  memset(view->shared, 0, sizeof view->shared);
  int code = mmcmap_cursor_open(snapshot, &cursor);
  if (code != MMCMAP_OK) return code;
  while ((code = mmcmap_cursor_next(cursor, &key, &value)) == MMCMAP_OK)
    view_take(soak, view, key, value);
  mmcmap_cursor_close(cursor);
  if (code != MMCMAP_NOTFOUND) return code;
  if (view->records != mmcmap_snapshot_count(snapshot))
    soak_fault(soak, "a snapshot of %llu records says that it has %llu",
               (unsigned long long)view->records,
               (unsigned long long)mmcmap_snapshot_count(snapshot));
  return bank_check(soak, snapshot, view);
}

static void check_pair(struct soak *soak, const struct view *view,
                       unsigned writer) {
  const struct found *first = &view->own[writer][PAIR_FIRST];
  const struct found *second = &view->own[writer][PAIR_SECOND];
  if (second->number == 0
          ? first->pair == 0
          : second->pair == first->number || second->number == first->pair)
    return;
  soak_fault(soak,
             "writer %u's pair is of no moment: first %llu after second %llu, "
             "second %llu after first %llu",
             writer, (unsigned long long)first->number,
             (unsigned long long)first->pair,
             (unsigned long long)second->number,
             (unsigned long long)second->pair);
}

static void view_compare(struct soak *soak, const struct view *view) {
  for (unsigned w = 0; w < soak_writer_count(soak); w++) {
    for (unsigned k = 0; k < OWN_KEYS; k++)
      view_check_own(soak, view, w, k, &view->own[w][k]);
    check_pair(soak, view, w);
  }
  for (unsigned k = OWN_KEYS; k < KEYS; k++)
    view_check_shared(soak, view, k, &view->shared[k - OWN_KEYS]);
}

int view_snapshot(struct soak *soak, mmcmap *store, struct view *view,
                  struct mark *mark) {
  mmcmap_snapshot *snapshot;
  view_prepare(soak, view);
  mark_begin(mark, DOING_SNAPSHOT, 0);
  int code = mmcmap_snapshot_open(store, &snapshot);
  mark_end(soak, mark);
  if (code != MMCMAP_OK) return code;
  mark_begin(mark, DOING_WALK, 0);
  code = view_walk(soak, snapshot, view);
  uint64_t digest = view->digest;
  if (code == MMCMAP_OK) view_compare(soak, view);
  if (code == MMCMAP_OK) code = view_walk(soak, snapshot, view);
  if (code == MMCMAP_OK && view->digest != digest)
    soak_fault(soak, "a snapshot has changed");
  mark_end(soak, mark);
  mark_begin(mark, DOING_CLOSE, 0);
  mmcmap_snapshot_close(snapshot);
  mark_end(soak, mark);
  atomic_fetch_add(&soak->snapshots, 1);
  return code;
}

/* ---- The verifying process --------------------------------------------------- */

static bool is_nothing_acknowledged(const struct view *view) {
  for (unsigned w = 0; w < WRITERS_MAX; w++)
    for (unsigned k = 0; k < KEYS; k++)
      if (view->acked[w][k] != 0 || view->moved[w] != 0) return false;
  return true;
}

static mmcmap *open_alone(struct soak *soak, struct mark *mark) {
  mmcmap_options options;
  mmcmap *store;
  mmcmap_options_init(&options);
  options.create = false;
  options.durability = MMCMAP_MANUAL;
  mark_begin(mark, DOING_OPEN, 0);
  int code = mmcmap_open(soak->path, &options, &store);
  mark_end(soak, mark);
  if (code == MMCMAP_ENOENT) return NULL;
  if (code != MMCMAP_OK) soak_fail(soak, "the verifier opens", code);
  return store;
}

static void close_alone(struct soak *soak, mmcmap *store, struct mark *mark) {
  mark_begin(mark, DOING_CLOSE, 0);
  int code = mmcmap_close(store);
  mark_end(soak, mark);
  if (code != MMCMAP_OK) soak_fail(soak, "the verifier closes", code);
}

/* Every key by a get: as the snapshot had it. */
static void check_gets(struct soak *soak, mmcmap *store,
                       const struct view *view) {
  char bytes[KEY_SIZE_MAX];
  mmcmap_buffer buffer = {NULL, 0, 0};
  for (unsigned w = 0; w < soak_writer_count(soak); w++)
    for (unsigned k = 0; k < (w == 0 ? KEYS : OWN_KEYS); k++) {
      const struct found *wanted =
          k < OWN_KEYS ? &view->own[w][k] : &view->shared[k - OWN_KEYS];
      struct found found = {0, 0, 0, 0};
      mmcmap_slice key = soak_key(soak, w, k, bytes);
      int code = mmcmap_get(store, key, &buffer);
      if (code != MMCMAP_OK && code != MMCMAP_NOTFOUND)
        soak_fail(soak, "the verifier gets", code);
      mmcmap_slice value = {.data = buffer.data, .size = buffer.size};
      if (code == MMCMAP_OK && soak_identify(soak, key, value, &found) != NULL)
        soak_fault(soak, "a value of get is not whole");
      if (found.number != wanted->number || found.writer != wanted->writer)
        soak_fault(soak, "get and a walk do not agree, writer %u, key %u", w,
                   k);
    }
  mmcmap_buffer_free(&buffer);
}

static uint64_t look_alone(struct soak *soak, mmcmap *store, struct view *view,
                           struct mark *mark) {
  uint64_t count;
  int code = view_snapshot(soak, store, view, mark);
  if (code != MMCMAP_OK) soak_fail(soak, "the verifier walks", code);
  mark_begin(mark, DOING_GET, 0);
  check_gets(soak, store, view);
  mark_end(soak, mark);
  code = mmcmap_count(store, &count);
  if (code != MMCMAP_OK || count != view->records)
    soak_fault(soak, "count says %llu, and %llu records are there",
               (unsigned long long)count, (unsigned long long)view->records);
  return view->digest;
}

/* The whole file, by the rules of docs/format.md. */
static void check_file(struct soak *soak, uint64_t records) {
  struct superblock superblock;
  struct hasher hasher;
  struct verify_report report;
  unsigned place;
  int fd = open(soak->path, O_RDONLY | O_CLOEXEC);
  off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
  void *bytes = MAP_FAILED;
  if (size > 0) bytes = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) {
    soak_fault(soak, "the file cannot be mapped: %s", strerror(errno));
    return;
  }
  memset(&report, 0, sizeof report);
  int code =
      recovery_choose_superblock(fd, (uint64_t)size, true, &superblock, &place);
  if (code == MMCMAP_OK)
    code = hasher_init(&hasher, superblock.hash, superblock.secret);
  struct node_source source = {.base = bytes, .size = (uint64_t)size};
  if (code == MMCMAP_OK)
    code = verify_file(&source, &hasher, &superblock, &report);
  if (code != MMCMAP_OK || report.failure_count != 0)
    soak_fault(soak,
               "the file is damaged: %s, %llu failures, first \"%s\" at "
               "%#llx",
               mmcmap_error_name(code),
               (unsigned long long)report.failure_count,
               report.failure_count > 0 ? report.failures[0].rule : "",
               (unsigned long long)report.failures[0].offset);
  else if (report.record_count != records)
    soak_fault(soak, "the file has %llu records, the store had %llu",
               (unsigned long long)report.record_count,
               (unsigned long long)records);
  munmap(bytes, (size_t)size);
  close(fd);
}

_Noreturn void soak_verify(struct soak *soak, struct slot *slot) {
  static struct view view;
  struct mark *mark = &slot->marks[soak->thread_count];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  atomic_store(&mark->thread_id, (int)gettid());
  view.is_still = true;
  mmcmap *store = open_alone(soak, mark);
  if (store == NULL) {
    view_prepare(soak, &view);
    if (!is_nothing_acknowledged(&view)) soak_fault(soak, "the store is gone");
  } else {
    uint64_t digest = look_alone(soak, store, &view, mark);
    close_alone(soak, store, mark);
    mark_begin(mark, DOING_VERIFY, 0);
    check_file(soak, view.records + view.map_records);
    mark_end(soak, mark);
    store = open_alone(soak, mark);
    if (store == NULL || look_alone(soak, store, &view, mark) != digest)
      soak_fault(soak, "closed and opened again, the store is another");
    close_alone(soak, store, mark);
  }
  mark_begin(mark, DOING_EXIT, 0);
  atomic_store(&slot->phase, PHASE_CLOSED);
  _exit(0);
}
