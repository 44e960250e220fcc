/* SPDX-License-Identifier: MIT */
/*
 * What is on disk is judged by what recovery would make of it: from the newest
 * superblock on it must come at least to the epoch that was durable before the
 * superblock was read. If it does not, and the superblock is still the newest,
 * frames are damaged.
 */
#include "maint/check.h"

#include <stdlib.h>
#include <string.h>

#include "base/errors.h"
#include "format/frame.h"
#include "format/segment.h"
#include "maint/recovery.h"
#include "os/process.h"

/* How often what may be in the middle of being written is looked at again, with
   a pause of 1 ms between. */
enum { CHECK_TRIES = 50 };

/* Reads one superblock; somebody may be writing it. */
static int read_superblock(const struct check_input *input, uint64_t offset,
                           struct superblock *superblock_out) {
  uint8_t page[SUPERBLOCK_BYTES];
  const struct superblock *constant = input->constant;
  if (!bytes_within(offset, SUPERBLOCK_BYTES, input->source.size))
    return error_set_corrupt("F10 file shorter than used", input->source.size);
  memcpy(page, input->source.base + offset, sizeof page);
  int code =
      superblock_decode(page, offset, input->is_readonly, superblock_out);
  if (code == MMCMAP_OK &&
      (memcmp(superblock_out->file_id, constant->file_id,
              SUPERBLOCK_FILE_ID_BYTES) != 0 ||
       memcmp(superblock_out->secret, constant->secret, HASH_SECRET_BYTES) !=
           0 ||
       superblock_out->segment_size != constant->segment_size))
    code = error_set_corrupt("F4 superblock checksum", offset);
  return code;
}

static int read_superblock_patiently(const struct check_input *input,
                                     uint64_t offset,
                                     struct superblock *superblock_out) {
  int code = read_superblock(input, offset, superblock_out);
  for (int i = 0; code != MMCMAP_OK && i < CHECK_TRIES; i++) {
    process_sleep_ms(1);
    code = read_superblock(input, offset, superblock_out);
  }
  return code;
}

/* Notes what the thread's last error says. */
static void note_failure(struct verify_report *report, int code,
                         uint64_t offset) {
  mmcmap_error error;
  mmcmap_last_error(&error);
  /* The medium's word, whatever recovery would call it. */
  verify_fail(report, code == MMCMAP_EFORMAT ? MMCMAP_ECORRUPT : code,
              error.what, error.offset != 0 ? error.offset : offset);
}

/* The newest superblock, and in `report`, unless that is NULL, what is wrong
   with either. False if there is none. */
static bool choose_superblock(const struct check_input *input,
                              struct superblock *superblock_out,
                              struct verify_report *report) {
  static const uint64_t offsets[] = {SUPERBLOCK_A_OFFSET, SUPERBLOCK_B_OFFSET};
  bool found = false;
  for (int i = 0; i < SUPERBLOCK_COUNT; i++) {
    struct superblock superblock;
    int code = read_superblock_patiently(input, offsets[i], &superblock);
    if (code != MMCMAP_OK) {
      if (report != NULL) note_failure(report, code, offsets[i]);
      continue;
    }
    if (report != NULL) report->superblock_count++;
    if (!found || superblock.sequence > superblock_out->sequence)
      *superblock_out = superblock;
    found = true;
  }
  return found;
}

/* Why recovery did not get beyond `state`. */
static void note_end_of_log(const struct check_input *input,
                            const struct superblock *state,
                            struct verify_report *report) {
  struct frame frame;
  uint64_t checksum, offset = state->heads[HEAD_LOG].offset;
  int code =
      frame_read(&input->source, offset, state->segment_size, state->salt,
                 state->chain, input->hasher, &frame, &checksum);
  if (code != MMCMAP_OK)
    note_failure(report, code, offset);
  else /* its large values, or what it names as next */
    verify_fail(report, MMCMAP_ECORRUPT, "F17 frame checksum", offset);
}

/* The file as it is now: whatever is durable lies within it. */
static struct node_source source_now(const struct check_input *input) {
  struct node_source now = input->source;
  if (input->source.refresh != NULL)
    input->source.refresh(input->source.context, &now);
  return now;
}

/* Rolls forward, and takes what it comes to if that is all that is durable. If it
   is not, says so once nothing has changed meanwhile. */
static int recover_durable(const struct check_input *input,
                           struct recovered *recovered_out,
                           struct verify_report *report) {
  struct superblock superblock, again;
  uint64_t durable =
      atomic_load_explicit(input->durable_epoch, memory_order_acquire);
  if (!choose_superblock(input, &superblock, report)) return MMCMAP_ECORRUPT;
  for (int i = 0; i < CHECK_TRIES; i++) {
    struct node_source source = source_now(input);
    int code = recovery_roll_forward(&source, input->hasher, &superblock,
                                     recovered_out);
    if (code != MMCMAP_OK) return code;
    if (recovered_out->state.epoch >= durable) return MMCMAP_OK;
    bool found = choose_superblock(input, &again, NULL);
    if (!found || again.sequence == superblock.sequence) break;
    recovered_forget(recovered_out);
    superblock = again;
  }
  note_end_of_log(input, &recovered_out->state, report);
  recovered_forget(recovered_out);
  return MMCMAP_ECORRUPT;
}

static int check_with_uses(const struct check_input *input,
                           struct verify_report *report) {
  struct recovered recovered;
  verify_trie_into(&input->source, input->hasher, MAP_ID_DEFAULT, input->root,
                   input->count, input->newest_epoch, report);
  if (report->stopped != 0) return verify_outcome(report);
  int code = recover_durable(input, &recovered, report);
  if (code == MMCMAP_ENOMEM) return code;
  if (code == MMCMAP_OK) {
    struct node_source source = source_now(input);
    verify_log_into(&source, input->hasher, &recovered.state,
                    input->newest_epoch, report);
    recovered_forget(&recovered);
  }
  return verify_outcome(report);
}

int check_store(const struct check_input *input, struct verify_report *report) {
  uint32_t segment_size = input->constant->segment_size;
  uint64_t count = input->source.size / segment_size + 1;
  report->uses = calloc((size_t)count, sizeof *report->uses);
  if (report->uses == NULL) return error_set(MMCMAP_ENOMEM, "check");
  report->use_count = count;
  report->segment_size = segment_size;
  int code = check_with_uses(input, report);
  free(report->uses);
  report->uses = NULL;
  return code;
}
