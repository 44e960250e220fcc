/* SPDX-License-Identifier: MIT */
/*
 * A slot: the 64-bit reference from a branch (or a root) to a node.
 *
 *   bits 63..48  tag: 16 bits of the key's primary hash for a record, else 0
 *   bits 47..1   offset of the node in the file, divided by 8
 *   bit  0       1 if the node is a record, 0 if a branch or collision node
 *
 * 0 is no node: it stands for the root of an empty map only. A tag of 1 with bit
 * 0 clear is a store root, which stands only where the root of a store does.
 */
#ifndef FORMAT_SLOT_H
#define FORMAT_SLOT_H

#include <stdbool.h>
#include <stdint.h>

#define SLOT_EMPTY UINT64_C(0)
#define SLOT_OFFSET_LIMIT (UINT64_C(1) << 50)

#define SLOT_STORE_TAG (UINT64_C(1) << 48)

static inline uint64_t slot_of_store(uint64_t offset) {
  return SLOT_STORE_TAG | offset >> 2;
}

static inline bool slot_is_store(uint64_t slot) {
  return (slot & UINT64_C(0xffff000000000001)) == SLOT_STORE_TAG;
}

static inline uint64_t slot_of_branch(uint64_t offset) { return offset >> 2; }

/* `hash` is the primary hash of the record's key; the tag is its low bits,
   which the path through the trie uses last. */
static inline uint64_t slot_of_record(uint64_t offset, uint64_t hash) {
  return hash << 48 | offset >> 2 | 1;
}

/* Whether a store's root can have so many records in the default map: of a store
   root nobody knows. */
static inline bool slot_fits_count(uint64_t root, uint64_t count) {
  return slot_is_store(root) || (root == SLOT_EMPTY) == (count == 0);
}

static inline uint64_t slot_offset(uint64_t slot) {
  return (slot & UINT64_C(0x0000fffffffffffe)) << 2;
}

static inline bool slot_is_record(uint64_t slot) { return slot & 1; }

static inline uint16_t slot_tag(uint64_t slot) {
  return (uint16_t)(slot >> 48);
}

static inline uint16_t slot_tag_of_hash(uint64_t hash) {
  return (uint16_t)hash;
}

#endif
