/* SPDX-License-Identifier: MIT */
/*
 * The model of a register, and operations as text for people.
 */
#include "operation.h"

#include <inttypes.h>
#include <stdio.h>

bool operation_is_joint(const struct operation *operation) {
  return operation->kind == OPERATION_SNAPSHOT ||
         operation->kind == OPERATION_MOVE;
}

bool operation_only_reads(const struct operation *operation) {
  if (operation->is_unknown)
    return operation->kind == OPERATION_GET ||
           operation->kind == OPERATION_HAS ||
           operation->kind == OPERATION_SNAPSHOT;
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_GET:
    case OPERATION_HAS:
    case OPERATION_SNAPSHOT:
      return true;
    case OPERATION_PUT:
    case OPERATION_DELETE:
    case OPERATION_ADD:
    case OPERATION_REPLACE:
    case OPERATION_CAS:
      return operation->result == 0;
    case OPERATION_INCR:
      return operation->result == OPERATION_ABSENT;
    case OPERATION_SWAP:
    case OPERATION_MOVE:
      break;
  }
  return false;
}

/* What the register would hold, and answer if the operation is done or gives
   a value. */
static uint64_t operation_run(const struct operation *operation, uint64_t value,
                              uint64_t *answer_out) {
  uint64_t argument = operation->argument;
  bool is_there = value != OPERATION_ABSENT, done = true;
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_GET:
    case OPERATION_SNAPSHOT:
      *answer_out = value;
      return value;
    case OPERATION_HAS:
      *answer_out = is_there;
      return value;
    case OPERATION_SWAP:
    case OPERATION_MOVE:
      *answer_out = value;
      return argument;
    case OPERATION_INCR:
      if (!is_there) value = operation->expected;
      if (value != OPERATION_ABSENT) value += argument;
      *answer_out = value;
      return value;
    case OPERATION_DELETE:
      argument = OPERATION_ABSENT;
      done = is_there;
      break;
    case OPERATION_ADD:
      done = !is_there;
      break;
    case OPERATION_REPLACE:
      done = is_there;
      break;
    case OPERATION_CAS:
      done = value == operation->expected;
      break;
    case OPERATION_PUT:
      break;
  }
  *answer_out = done;
  return done ? argument : value;
}

bool operation_apply(const struct operation *operation, uint64_t value,
                     uint64_t *value_out) {
  uint64_t answer;
  *value_out = value;
  if (operation->kind == OPERATION_PUT && !operation->is_unknown &&
      operation->result == 0)
    return true;
  uint64_t after = operation_run(operation, value, &answer);
  if (!operation->is_unknown && answer != operation->result) return false;
  *value_out = after;
  return true;
}

uint64_t operation_shown(const struct operation *operation) {
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_GET:
    case OPERATION_SNAPSHOT:
    case OPERATION_INCR:
      return operation->result;
    case OPERATION_PUT:
    case OPERATION_ADD:
    case OPERATION_REPLACE:
    case OPERATION_CAS:
    case OPERATION_SWAP:
    case OPERATION_MOVE:
      return operation->argument;
    case OPERATION_HAS:
    case OPERATION_DELETE:
      break;
  }
  return OPERATION_ABSENT;
}

/* ---- Text -------------------------------------------------------------- */

const char *operation_name(enum operation_kind kind) {
  static const char *const names[OPERATION_KINDS] = {
      [OPERATION_GET] = "get",   [OPERATION_HAS] = "has",
      [OPERATION_PUT] = "put",   [OPERATION_DELETE] = "delete",
      [OPERATION_ADD] = "add",   [OPERATION_REPLACE] = "replace",
      [OPERATION_CAS] = "cas",   [OPERATION_SWAP] = "swap",
      [OPERATION_INCR] = "incr", [OPERATION_SNAPSHOT] = "snapshot",
      [OPERATION_MOVE] = "move",
  };
  return names[kind];
}

const char *operation_value(uint64_t value, char text[24]) {
  if (value == OPERATION_ABSENT)
    snprintf(text, 24, "absent");
  else
    snprintf(text, 24, "%" PRIu64, value);
  return text;
}

static const char *operation_answer(const struct operation *operation,
                                    char text[24]) {
  bool done = operation->result != 0;
  if (operation->is_unknown) return "?";
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_HAS:
    case OPERATION_DELETE:
      return done ? "it was there" : "it was absent";
    case OPERATION_PUT:
      return done ? "done" : "failed";
    case OPERATION_ADD:
    case OPERATION_REPLACE:
    case OPERATION_CAS:
      return done ? "done" : "not done";
    case OPERATION_GET:
    case OPERATION_SNAPSHOT:
    case OPERATION_SWAP:
    case OPERATION_INCR:
    case OPERATION_MOVE:
      break;
  }
  return operation_value(operation->result, text);
}

void operation_print(const struct operation *operation, char *text,
                     size_t size) {
  char argument[24], expected[24], answer[24], words[64] = "";
  operation_value(operation->argument, argument);
  operation_value(operation->expected, expected);
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_PUT:
    case OPERATION_ADD:
    case OPERATION_REPLACE:
    case OPERATION_SWAP:
    case OPERATION_MOVE:
      snprintf(words, sizeof words, " %s", argument);
      break;
    case OPERATION_CAS:
      snprintf(words, sizeof words, " %s -> %s", expected, argument);
      break;
    case OPERATION_INCR:
      snprintf(words, sizeof words, " %" PRId64 " (init %s)",
               (int64_t)operation->argument, expected);
      break;
    case OPERATION_GET:
    case OPERATION_HAS:
    case OPERATION_DELETE:
    case OPERATION_SNAPSHOT:
      break;
  }
  snprintf(text, size, "%s%s: %s", operation_name(operation->kind), words,
           operation_answer(operation, answer));
}
