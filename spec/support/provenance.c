/* SPDX-License-Identifier: MIT */
/*
 * A hash table of keys with values. That a key is absent is no value here: many
 * operations make it so.
 */
#include "provenance.h"

#include <stdlib.h>

bool provenance_init(struct provenance *self, size_t count) {
  self->unsure = 0;
  self->size = 64;
  while (self->size < 2 * count)
    self->size *= 2;
  self->values = calloc(self->size, sizeof *self->values);
  return self->values != NULL;
}

void provenance_destroy(struct provenance *self) { free(self->values); }

/* The value's entry, or an empty one. */
static struct provenance_value *provenance_find(const struct provenance *self,
                                                unsigned key, uint64_t value) {
  uint64_t hash = (value + key * UINT64_C(0x632be59bd9b4e019)) *
                  UINT64_C(0x9e3779b97f4a7c15);
  size_t i = (hash >> 24) & (self->size - 1);
  while (self->values[i].makers > 0 &&
         (self->values[i].value != value || self->values[i].key != key))
    i = (i + 1) & (self->size - 1);
  return &self->values[i];
}

void provenance_begin(struct provenance *self, unsigned key, uint64_t value) {
  if (value == OPERATION_ABSENT) return;
  struct provenance_value *entry = provenance_find(self, key, value);
  entry->value = value;
  entry->key = key;
  entry->makers++;
}

void provenance_note_maker(struct provenance *self,
                           const struct operation *operation, unsigned key) {
  bool may_do = operation->is_unknown || operation->result != 0;
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_PUT:
    case OPERATION_ADD:
    case OPERATION_REPLACE:
    case OPERATION_CAS:
      if (may_do) provenance_begin(self, key, operation->argument);
      break;
    case OPERATION_SWAP:
    case OPERATION_MOVE:
      provenance_begin(self, key, operation->argument);
      break;
    case OPERATION_INCR:
      if (operation->is_unknown)
        self->unsure |= UINT64_C(1) << key;
      else
        provenance_begin(self, key, operation->result);
      break;
    case OPERATION_GET:
    case OPERATION_HAS:
    case OPERATION_DELETE:
    case OPERATION_SNAPSHOT:
      break;
  }
}

bool provenance_need(const struct operation *operation, uint64_t *value_out) {
  *value_out = operation->result;
  if (operation->end_ns == OPERATION_NEVER || operation->is_unknown ||
      operation->is_optional)
    return false;
  switch ((enum operation_kind)operation->kind) {
    case OPERATION_GET:
    case OPERATION_SNAPSHOT:
    case OPERATION_SWAP:
    case OPERATION_MOVE:
      return true;
    case OPERATION_CAS:
      *value_out = operation->expected;
      return operation->result != 0;
    case OPERATION_HAS:
    case OPERATION_PUT:
    case OPERATION_DELETE:
    case OPERATION_ADD:
    case OPERATION_REPLACE:
    case OPERATION_INCR:
      break;
  }
  return false;
}

void provenance_note_need(struct provenance *self,
                          const struct operation *operation, unsigned key,
                          uint64_t call) {
  uint64_t value;
  if (!provenance_need(operation, &value)) return;
  struct provenance_value *entry = provenance_find(self, key, value);
  if (entry->makers > 0 && call > entry->last_needed) entry->last_needed = call;
}

bool provenance_is_possible(const struct provenance *self, unsigned key,
                            uint64_t value) {
  return (self->unsure >> key & 1) != 0 || value == OPERATION_ABSENT ||
         provenance_find(self, key, value)->makers > 0;
}

bool provenance_is_unique(const struct provenance *self, unsigned key,
                          uint64_t value) {
  return (self->unsure >> key & 1) == 0 && value != OPERATION_ABSENT &&
         provenance_find(self, key, value)->makers == 1;
}

bool provenance_is_needed(const struct provenance *self, unsigned key,
                          uint64_t value, uint64_t call) {
  return provenance_is_unique(self, key, value) &&
         provenance_find(self, key, value)->last_needed > call;
}
