/* SPDX-License-Identifier: MIT */
/*
 * A snapshot's trie as text, for people who want to see how it is built.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "snapshot.h"

enum { DUMP_BYTES_SHOWN = 40, DUMP_LINE_BYTES = 5 * DUMP_BYTES_SHOWN };

struct dump {
  struct node_source source;
  mmcmap_buffer *text;
  uint64_t left; /* nodes that there can still be */
  uint64_t now_ms;
};

static int add_bytes(struct dump *dump, const char *bytes, size_t size) {
  mmcmap_buffer *text = dump->text;
  int code = handle_buffer_reserve(text, text->size + size);
  if (code != MMCMAP_OK) return code;
  memcpy((char *)text->data + text->size, bytes, size);
  text->size += size;
  return MMCMAP_OK;
}

__attribute__((format(printf, 2, 3))) static int add(struct dump *dump,
                                                     const char *format, ...) {
  char line[DUMP_LINE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  int size = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  return add_bytes(dump, line,
                   (size_t)size < sizeof line ? (size_t)size : sizeof line - 1);
}

/* The beginning of the bytes in quotes; what is not plain ASCII as \xx. */
static int add_quoted(struct dump *dump, const uint8_t *bytes, uint64_t size) {
  char text[4 * DUMP_BYTES_SHOWN + 3], *end = text;
  *end++ = '"';
  for (uint64_t i = 0; i < size && i < DUMP_BYTES_SHOWN; i++) {
    bool is_plain = bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '"' &&
                    bytes[i] != '\\';
    if (is_plain)
      *end++ = (char)bytes[i];
    else
      end += snprintf(end, 5, "\\x%02x", bytes[i]);
  }
  *end++ = '"';
  int code = add_bytes(dump, text, (size_t)(end - text));
  if (code == MMCMAP_OK && size > DUMP_BYTES_SHOWN)
    code = add(dump, "... (%" PRIu64 " bytes)", size);
  return code;
}

static int add_record(struct dump *dump, uint64_t slot) {
  struct record_view record;
  int code = node_record(&dump->source, slot_offset(slot), &record);
  if (code == MMCMAP_OK) code = add_quoted(dump, record.key, record.key_size);
  if (code == MMCMAP_OK) code = add(dump, " = ");
  if (code == MMCMAP_OK)
    code = add_quoted(dump, record.value, record.value_size);
  if (code == MMCMAP_OK)
    code = add(dump, "  epoch %" PRIu64 ", at %" PRIu64 "%s", record.epoch,
               record.offset, record.is_large ? ", large" : "");
  if (code == MMCMAP_OK && record_is_past(&record, dump->now_ms))
    code = add(dump, ", expired");
  else if (code == MMCMAP_OK && record.expires_ms != 0)
    code = add(dump, ", expires in %" PRIu64 " ms",
               record.expires_ms - dump->now_ms);
  return code == MMCMAP_OK ? add(dump, "\n") : code;
}

static int add_slot(struct dump *dump, uint64_t slot, unsigned level);

static int add_branch(struct dump *dump, uint64_t slot, unsigned level) {
  struct branch_view branch;
  if (level > COLLISION_LEVEL)
    return error_set_corrupt("F34 collision slots", slot_offset(slot));
  int code = node_branch(&dump->source, slot_offset(slot), level, &branch);
  if (code == MMCMAP_OK)
    code =
        add(dump, "%s of %u, epoch %" PRIu64 ", at %" PRIu64 "\n",
            level == COLLISION_LEVEL ? "collision node" : "branch",
            (unsigned)branch.slot_count, node_epoch(branch.at), branch.offset);
  uint64_t ways = branch.bitmap;
  for (unsigned i = 0; code == MMCMAP_OK && i < branch.slot_count; i++) {
    code = add(dump, "%*s", 2 * ((int)level + 1), "");
    if (code == MMCMAP_OK && level < COLLISION_LEVEL)
      code = add(dump, "%02d: ", __builtin_ctzll(ways));
    ways &= ways - 1;
    if (code == MMCMAP_OK)
      code = add_slot(dump, branch_slot(&branch, i), level + 1);
  }
  return code;
}

static int add_slot(struct dump *dump, uint64_t slot, unsigned level) {
  if (dump->left == 0)
    return error_set_corrupt("F38 nodes overlap", slot_offset(slot));
  dump->left--;
  return slot_is_record(slot) ? add_record(dump, slot)
                              : add_branch(dump, slot, level);
}

int mmcmap_snapshot_dump(mmcmap_snapshot *snapshot, mmcmap_buffer *text_out) {
  struct share_row *row;
  text_out->size = 0;
  int code = snapshot_enter(snapshot, &row);
  if (code != MMCMAP_OK) return code;
  const struct moment *moment = &snapshot->moment;
  struct dump dump = {.source = space_source(&snapshot->store->space),
                      .text = text_out,
                      .now_ms = snapshot->now.now_ms};
  dump.left = dump.source.size / NODE_HEADER_BYTES;
  code = add(&dump, "%" PRIu64 " records, version %" PRIu64 "\n",
             snapshot->count, moment->content_epoch);
  if (code == MMCMAP_OK && snapshot->root != SLOT_EMPTY)
    code = add_slot(&dump, snapshot->root, 0);
  snapshot_leave(row);
  if (code != MMCMAP_OK) text_out->size = 0;
  return code;
}
