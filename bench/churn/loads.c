/* SPDX-License-Identifier: MIT */
/*
 * See loads.h.
 */
#include "loads.h"

#include <stdlib.h>
#include <string.h>

#include "meter.h"

/* ---- Which record is next ------------------------------------------------- */

static void put_any(struct churn *churn, struct change *change_out) {
  change_out->id = churn_random(churn, churn->count);
  change_out->size = churn_next_size(churn, change_out->id);
}

/* Nine of ten are of the first tenth. */
static void put_hot(struct churn *churn, struct change *change_out) {
  size_t hot = churn->count / 10;
  bool is_hot = churn_random(churn, 10) != 0;
  change_out->id = churn_random(churn, is_hot ? hot : churn->count);
  change_out->size = churn_next_size(churn, change_out->id);
}

/* All are deleted, then all are put again. */
static void take_turns(struct churn *churn, struct change *change_out) {
  uint64_t turn = churn->position / churn->count;
  change_out->id = churn->position++ % churn->count;
  change_out->size = turn % 2 == 0 ? 0 : churn_next_size(churn, change_out->id);
}

static void put_new(struct churn *churn, struct change *change_out) {
  must_hold(churn->position < churn->room, "more keys than were planned");
  change_out->id = churn->position++;
  change_out->size = churn_next_size(churn, change_out->id);
}

static const struct load uniform = {
    .name = "uniform", .about = "overwrites of any record", .next = put_any};
static const struct load hot = {
    .name = "hot",
    .about = "overwrites, nine of ten of a tenth of the records",
    .next = put_hot};
static const struct load turns = {
    .name = "turns",
    .about = "all records are deleted, then all are inserted, in turns",
    .next = take_turns};
static const struct load sizes = {
    .name = "sizes",
    .about = "overwrites by values that grow from 64 bytes to 128 KiB, and "
             "shrink again",
    .next = put_any,
    .values_grow = true};
static const struct load snapshot = {
    .name = "snapshot",
    .about = "overwrites of any record; a snapshot is open from a third of the "
             "work to two thirds",
    .next = put_any,
    .has_snapshot = true};
static const struct load session = {
    .name = "session",
    .about = "each key is put once, with a time to live, and never deleted",
    .next = put_new,
    .expires = true};
static const struct load small = {
    .name = "small",
    .about = "overwrites of any record of a store of 5 MB",
    .next = put_any,
    .data_bytes = 5000000};

const struct load *const loads[] = {&uniform,  &hot,     &turns, &sizes,
                                    &snapshot, &session, &small, NULL};

const struct load *load_by_name(const char *name, size_t size) {
  for (size_t i = 0; loads[i] != NULL; i++)
    if (strlen(loads[i]->name) == size &&
        memcmp(loads[i]->name, name, size) == 0)
      return loads[i];
  return NULL;
}

/* ---- Sizes ---------------------------------------------------------------- */

enum { LEAST_BYTES = 64, DOUBLINGS = 10 };

/* SplitMix64 (Steele, Lea, Flood, 2014). */
static uint64_t mix(uint64_t number) {
  number += UINT64_C(0x9e3779b97f4a7c15);
  number = (number ^ (number >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  number = (number ^ (number >> 27)) * UINT64_C(0x94d049bb133111eb);
  return number ^ (number >> 31);
}

/* Twice as large each time, then half as large each time, and anything in between;
   records are at different points of that from the beginning. */
static uint32_t wave(uint64_t id, uint32_t version) {
  uint64_t step = (mix(id) + version) % (2 * DOUBLINGS);
  uint64_t doubled = step <= DOUBLINGS ? step : 2 * DOUBLINGS - step;
  uint32_t least = (uint32_t)LEAST_BYTES << doubled;
  return least + (uint32_t)(mix(id ^ ((uint64_t)version << 40)) % least);
}

static size_t mean_of_wave(void) {
  size_t sum = 0;
  for (int step = 0; step < 2 * DOUBLINGS; step++)
    sum += (size_t)LEAST_BYTES
           << (step <= DOUBLINGS ? step : 2 * DOUBLINGS - step);
  return sum / (2 * DOUBLINGS) * 3 / 2;
}

uint32_t churn_next_size(const struct churn *churn, uint64_t id) {
  if (!churn->load->values_grow) return (uint32_t)churn->value_bytes;
  return wave(id, churn->records[id].version + 1);
}

size_t churn_most_bytes(const struct churn *churn) {
  return churn->load->values_grow ? (size_t)LEAST_BYTES << (DOUBLINGS + 1)
                                  : churn->value_bytes;
}

/* ---- What is there -------------------------------------------------------- */

void churn_init(struct churn *churn, const struct load *load, size_t data_bytes,
                size_t value_bytes, double work) {
  size_t mean = load->values_grow ? mean_of_wave() : value_bytes;
  memset(churn, 0, sizeof *churn);
  churn->load = load;
  churn->count = data_bytes / (KEY_BYTES + mean);
  if (churn->count < 10) churn->count = 10;
  churn->data_bytes = churn->count * (KEY_BYTES + mean);
  churn->value_bytes = value_bytes;
  churn->random = 88172645463325252u;
  churn->room = churn->count;
  if (load->expires)
    churn->room = (size_t)((double)(churn->count + 1) * (work + 1));
  churn->records = calloc(churn->room, sizeof *churn->records);
  churn->expires_ns = calloc(churn->room, sizeof *churn->expires_ns);
  must_hold(churn->records != NULL && churn->expires_ns != NULL, "no memory");
}

void churn_free(struct churn *churn) {
  free(churn->records);
  free(churn->expires_ns);
}

/* xorshift64 (Marsaglia, 2003): the same changes in every run. */
uint64_t churn_random(struct churn *churn, uint64_t below) {
  churn->random ^= churn->random << 13;
  churn->random ^= churn->random >> 7;
  churn->random ^= churn->random << 17;
  return (churn->random >> 11) % below;
}

static void count_out(struct churn *churn, struct record *record) {
  if (record->size > 0) churn->logical_bytes -= KEY_BYTES + record->size;
  record->size = 0;
}

void churn_done(struct churn *churn, const struct change *change,
                uint64_t expires_ns) {
  struct record *record = &churn->records[change->id];
  count_out(churn, record);
  if (change->size == 0) return;
  record->version++;
  record->size = change->size;
  churn->logical_bytes += KEY_BYTES + record->size;
  churn->expires_ns[change->id] = expires_ns;
}

void churn_expire(struct churn *churn, uint64_t now_ns) {
  if (!churn->load->expires) return;
  while (churn->first_alive < churn->position &&
         churn->expires_ns[churn->first_alive] <= now_ns)
    count_out(churn, &churn->records[churn->first_alive++]);
}

void churn_key(uint64_t id, char key_out[KEY_BYTES]) {
  uint64_t mixed = mix(id);
  for (int i = 0; i < KEY_BYTES; i++)
    key_out[i] = "0123456789abcdef"[mixed >> (4 * i) & 15];
}

void churn_value(uint64_t id, struct record record, unsigned char *value_out) {
  uint64_t word = mix(id ^ ((uint64_t)record.version << 40));
  for (size_t i = 0; i < record.size; i += sizeof word) {
    size_t left = record.size - i;
    memcpy(value_out + i, &word, left < sizeof word ? left : sizeof word);
    word = word * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  }
}
