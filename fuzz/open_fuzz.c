/* SPDX-License-Identifier: MIT */
/*
 * A libFuzzer target: files that nobody has written. An input is a list of
 * edits to a small good store, of which there are several. After the edits
 * the checksums are made to fit again (unless the input says no), so that the
 * fuzzer gets past them and into roll-forward, trie and log. The store is then
 * opened, read, walked, written, synced, closed, and opened again to read, its
 * named maps too; now and then it is checked, copied, and salvaged.
 *
 * Nothing of that may crash, hang, leak, or touch what is not the store's; the
 * answers may be anything. Built by `make fuzz`; see README.md.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "format/frame.h"
#include "format/segment.h"
#include "format/superblock.h"
#include "store.h"

enum {
  FUZZ_SEEDS = 7,
  FUZZ_EDIT_BYTES = 12,
  FUZZ_EDITS_MAX = 64,
  FUZZ_FILE_BYTES_MAX = 1 << 21,
  FUZZ_FRAMES_MAX = 64,
  FUZZ_RECORDS_MAX = 3000,
  FUZZ_KEYS = 24,
  FUZZ_MAPS = 5,
  FUZZ_MAP_KEYS = 6
};

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_image {
  uint8_t *bytes;
  size_t size;
  uint64_t masks[2]; /* of the hashes */
};

static struct fuzz_image fuzz_seeds[FUZZ_SEEDS];
static char fuzz_path[64], fuzz_other_path[80];

/* ---- The good stores --------------------------------------------------- */

static mmcmap *fuzz_open(const uint64_t masks[2], bool readonly) {
  mmcmap_options options;
  mmcmap *store;
  struct store_internals internals = {.segment_size = SEGMENT_SIZE_MIN,
                                      .primary_mask = masks[0],
                                      .secondary_mask = masks[1]};
  mmcmap_options_init(&options);
  options.durability = MMCMAP_MANUAL;
  options.timeout_ms = 0;
  options.max_size_bytes = FUZZ_FILE_BYTES_MAX;
  options.readonly = readonly;
  int code = mmcmap_open_with(fuzz_path, &options, &internals, &store);
  return code == MMCMAP_OK ? store : NULL;
}

static mmcmap_slice fuzz_key(unsigned number, char text[16]) {
  snprintf(text, 16, "key%u", number);
  return (mmcmap_slice){.data = text, .size = strlen(text)};
}

static int fuzz_put(mmcmap *store, unsigned number, size_t size) {
  static char value[200000];
  char key[16];
  memset(value, (int)number, sizeof value);
  return mmcmap_put(store, fuzz_key(number, key),
                    (mmcmap_slice){.data = value, .size = size});
}

static void fuzz_read_file(struct fuzz_image *image) {
  struct stat stat_of_file;
  int fd = open(fuzz_path, O_RDONLY);
  if (fd < 0 || fstat(fd, &stat_of_file) != 0) abort();
  image->size = (size_t)stat_of_file.st_size;
  image->bytes = malloc(image->size);
  if (image->bytes == NULL ||
      read(fd, image->bytes, image->size) != (ssize_t)image->size)
    abort();
  close(fd);
}

static mmcmap_slice fuzz_name(unsigned number, char text[16]) {
  snprintf(text, 16, "map%u", number);
  return (mmcmap_slice){.data = text, .size = strlen(text)};
}

/* Some maps, of which one is dropped, in a transaction. */
static int fuzz_put_maps(mmcmap *store) {
  char texts[2][16];
  mmcmap_txn *txn, *map;
  int code = mmcmap_txn_begin(store, &txn);
  if (code != MMCMAP_OK) return code;
  for (unsigned i = 0; i < FUZZ_MAPS * FUZZ_MAP_KEYS && code == MMCMAP_OK;
       i++) {
    mmcmap_slice key = fuzz_key(i / FUZZ_MAPS, texts[0]);
    code = mmcmap_txn_map(txn, fuzz_name(i % FUZZ_MAPS, texts[1]), &map);
    if (code == MMCMAP_OK) code = mmcmap_txn_put(map, key, key);
  }
  if (code == MMCMAP_OK) code = mmcmap_txn_drop(txn, fuzz_name(2, texts[0]));
  if (code == MMCMAP_OK) return mmcmap_txn_commit(txn);
  mmcmap_txn_abort(txn);
  return code;
}

/* Seed 0 is empty and 1 clean, as is 5, which has maps; of the others, which are
   not, 2 has large values, 3 equal hashes, 4 an epoch of several frames, 6
   maps. */
static void fuzz_make_seed(int number) {
  struct fuzz_image *image = &fuzz_seeds[number];
  image->masks[0] = image->masks[1] = number == 3 ? 0 : UINT64_MAX;
  unlink(fuzz_path);
  mmcmap *store = fuzz_open(image->masks, false);
  if (store == NULL) abort();
  for (unsigned i = 0; number > 0 && i < FUZZ_KEYS; i++) {
    size_t size = number == 2 && i % 8 == 0 ? 40000 : number == 4 ? 9000 : i;
    if (fuzz_put(store, i, size) != MMCMAP_OK) abort();
    if (i % 6 == 5 && number != 4) mmcmap_sync(store);
    if (number >= 5 && i % 12 == 0 && fuzz_put_maps(store) != MMCMAP_OK)
      abort();
  }
  bool is_clean = number <= 1 || number == 5;
  mmcmap_sync(store);
  if (!is_clean) fuzz_read_file(image);
  mmcmap_close(store);
  if (is_clean) fuzz_read_file(image);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  snprintf(fuzz_path, sizeof fuzz_path, "/dev/shm/mmcmap-fuzz-%ld",
           (long)getpid());
  snprintf(fuzz_other_path, sizeof fuzz_other_path, "%s-other", fuzz_path);
  for (int i = 0; i < FUZZ_SEEDS; i++)
    fuzz_make_seed(i);
  return 0;
}

/* ---- The edits --------------------------------------------------------- */

/* What words are worth trying, beside those that the input has. */
static uint64_t fuzz_word(uint64_t value, uint64_t old) {
  static const uint64_t words[] = {0,
                                   1,
                                   8,
                                   12288,
                                   12352,
                                   131072,
                                   UINT32_MAX,
                                   NODE_EPOCH_LIMIT - 1,
                                   NODE_EPOCH_LIMIT,
                                   SLOT_OFFSET_LIMIT,
                                   INT64_MAX,
                                   UINT64_MAX,
                                   UINT64_MAX - 7};
  switch (value >> 61) {
    case 0:
      return words[value % (sizeof words / sizeof words[0])];
    case 1:
      return old + (value & 0xffff) - 0x8000;
    case 2:
      return old ^ UINT64_C(1) << value % 64;
    case 3:
      return (old & 0xffff) | value << 16;
    default:
      return value;
  }
}

/* How many bytes of the file lie before its log's unused end. */
static size_t fuzz_used(const struct fuzz_image *image) {
  size_t used = image->size;
  while (used > 13000 && image->bytes[used - 1] == 0)
    used--;
  return used;
}

static void fuzz_edit(struct fuzz_image *image, const uint8_t *edit,
                      size_t used) {
  uint64_t index = bytes_u16(edit + 2), value = bytes_u64(edit + 4);
  uint64_t at = 0;
  switch (edit[0] % 8) {
    case 0:
      at = SUPERBLOCK_A_OFFSET + index % 80 * 8;
      break;
    case 1:
      at = SUPERBLOCK_B_OFFSET + index % 80 * 8;
      break;
    case 2: /* cut off, or longer */
      image->size = (size_t)(index * 32 % (image->size + 4096));
      return;
    case 3:
      at = SEGMENT_FIRST_HEADER_OFFSET + index % 24 * 8;
      break;
    default:
      at = (index % (used / 8)) * 8;
      break;
  }
  if (!bytes_within(at, 8, image->size)) return;
  bytes_set_u64(image->bytes + at,
                fuzz_word(value, bytes_u64(image->bytes + at)));
}

/* ---- Checksums --------------------------------------------------------- */

static void fuzz_mend_superblock(struct fuzz_image *image, uint64_t offset) {
  if (!bytes_within(offset, SUPERBLOCK_BYTES, image->size)) return;
  uint8_t *page = image->bytes + offset;
  bytes_set_u64(page + SUPERBLOCK_BYTES - 8,
                hash_plain_checksum(page, SUPERBLOCK_BYTES - 8));
}

/* Makes the chain of frames fit from where `place` says that it begins. */
static void fuzz_mend_frames(struct fuzz_image *image, uint64_t place) {
  struct superblock superblock;
  struct hasher hasher;
  if (!bytes_within(place, SUPERBLOCK_BYTES, image->size) ||
      superblock_decode(image->bytes + place, place, true, &superblock) !=
          MMCMAP_OK ||
      hasher_init(&hasher, superblock.hash, superblock.secret) != MMCMAP_OK)
    return;
  uint64_t at = superblock.heads[HEAD_LOG].offset, chain = superblock.chain;
  for (int i = 0; i < FUZZ_FRAMES_MAX; i++) {
    if (at % 8 != 0 || !bytes_within(at, FRAME_HEADER_BYTES, image->size))
      return;
    uint8_t *frame = image->bytes + at;
    uint64_t size = bytes_u64(frame + 64);
    if (size < FRAME_HEADER_BYTES || !bytes_within(at, size, image->size))
      return;
    bytes_set_u64(frame + 16, superblock.salt);
    bytes_set_u64(frame + 24, chain);
    chain = hasher_checksum(&hasher, frame + 8, size - 8);
    bytes_set_u64(frame, chain);
    at = bytes_u64(frame + 32);
  }
}

static void fuzz_mend(struct fuzz_image *image) {
  fuzz_mend_superblock(image, SUPERBLOCK_A_OFFSET);
  fuzz_mend_superblock(image, SUPERBLOCK_B_OFFSET);
  if (bytes_within(SEGMENT_FIRST_HEADER_OFFSET, SEGMENT_HEADER_BYTES,
                   image->size)) {
    uint8_t *header = image->bytes + SEGMENT_FIRST_HEADER_OFFSET;
    bytes_set_u64(header + 56, hash_plain_checksum(header, 56));
  }
  fuzz_mend_frames(image, SUPERBLOCK_A_OFFSET);
  fuzz_mend_frames(image, SUPERBLOCK_B_OFFSET);
}

/* ---- What is done with the file ---------------------------------------- */

static void fuzz_touch(mmcmap_slice slice, size_t step) {
  volatile uint8_t sum = 0;
  for (size_t at = 0; at < slice.size; at += step)
    sum = (uint8_t)(sum + ((const uint8_t *)slice.data)[at]);
}

static void fuzz_walk_map(mmcmap_snapshot *snapshot) {
  mmcmap_cursor *cursor;
  mmcmap_slice key, value;
  if (mmcmap_cursor_open(snapshot, &cursor) != MMCMAP_OK) return;
  for (int i = 0; i < FUZZ_RECORDS_MAX; i++) {
    if (mmcmap_cursor_next(cursor, &key, &value) != MMCMAP_OK) break;
    fuzz_touch(key, 1);
    fuzz_touch(value, 64);
  }
  mmcmap_cursor_close(cursor);
}

/* All maps that there are, whatever they are called. */
static void fuzz_walk(mmcmap *store) {
  mmcmap_snapshot *snapshot, *map;
  mmcmap_cursor *names;
  mmcmap_slice name, value;
  if (mmcmap_snapshot_open(store, &snapshot) != MMCMAP_OK) return;
  fuzz_walk_map(snapshot);
  if (mmcmap_snapshot_maps(snapshot, &names) == MMCMAP_OK) {
    for (int i = 0; i < FUZZ_RECORDS_MAX / 100; i++) {
      if (mmcmap_cursor_next(names, &name, &value) != MMCMAP_OK) break;
      if (mmcmap_snapshot_map(snapshot, name, &map) == MMCMAP_OK)
        fuzz_walk_map(map);
      mmcmap_snapshot_close(map);
    }
    mmcmap_cursor_close(names);
  }
  mmcmap_snapshot_close(snapshot);
}

/* What differs between two moments, of the store and of a map. */
static void fuzz_diff(mmcmap_snapshot *from, mmcmap_snapshot *to) {
  mmcmap_diff *diff;
  mmcmap_change change;
  if (mmcmap_diff_open(from, to, &diff) != MMCMAP_OK) return;
  for (int i = 0; i < FUZZ_RECORDS_MAX; i++) {
    if (mmcmap_diff_next(diff, &change) != MMCMAP_OK) break;
    fuzz_touch(change.key, 1);
    fuzz_touch(change.old_value, 64);
    fuzz_touch(change.new_value, 64);
  }
  mmcmap_diff_close(diff);
}

static void fuzz_diff_all(mmcmap_snapshot *from, mmcmap *store) {
  mmcmap_snapshot *to, *maps[2];
  char text[16];
  if (mmcmap_snapshot_open(store, &to) != MMCMAP_OK) return;
  fuzz_diff(from, to);
  if (mmcmap_snapshot_map(from, fuzz_name(1, text), &maps[0]) == MMCMAP_OK) {
    if (mmcmap_snapshot_map(to, fuzz_name(1, text), &maps[1]) == MMCMAP_OK)
      fuzz_diff(maps[0], maps[1]);
    mmcmap_snapshot_close(maps[1]);
  }
  mmcmap_snapshot_close(maps[0]);
  mmcmap_snapshot_close(to);
}

static void fuzz_use_maps(mmcmap *store) {
  char text[16];
  mmcmap *map;
  (void)fuzz_put_maps(store);
  for (unsigned i = 0; i < FUZZ_MAPS; i++) {
    if (mmcmap_map(store, fuzz_name(i, text), &map) != MMCMAP_OK) continue;
    (void)fuzz_put(map, i, i == 1 ? 50000 : 20);
    (void)mmcmap_delete(map, fuzz_key(i + 1, text));
    if (i == 3) (void)mmcmap_clear(map);
    (void)mmcmap_close(map);
  }
  (void)mmcmap_drop(store, fuzz_name(4, text));
}

/* What reads all of the file. */
static void fuzz_inspect(mmcmap *store) {
  mmcmap_snapshot *snapshot;
  mmcmap_buffer text = {NULL, 0, 0};
  (void)mmcmap_check(store, NULL, NULL, NULL);
  (void)mmcmap_backup(store, fuzz_other_path, NULL, NULL);
  unlink(fuzz_other_path);
  if (mmcmap_snapshot_open(store, &snapshot) != MMCMAP_OK) return;
  (void)mmcmap_snapshot_dump(snapshot, &text);
  mmcmap_buffer_free(&text);
  mmcmap_snapshot_close(snapshot);
}

static void fuzz_read(mmcmap *store) {
  mmcmap_buffer buffer = {NULL, 0, 0};
  char key[16];
  for (unsigned i = 0; i < FUZZ_KEYS + 4; i++)
    (void)mmcmap_get(store, fuzz_key(i, key), &buffer);
  mmcmap_buffer_free(&buffer);
  fuzz_walk(store);
}

static void fuzz_use(const uint64_t masks[2]) {
  char key[16];
  mmcmap_stat stat;
  mmcmap_snapshot *snapshot;
  mmcmap *store = fuzz_open(masks, false);
  if (store == NULL) return;
  fuzz_read(store);
  (void)mmcmap_snapshot_open(store, &snapshot);
  for (unsigned i = 0; i < FUZZ_KEYS + 4; i++) {
    (void)fuzz_put(store, i, i == 3 ? 50000 : i * 7);
    if (i % 5 == 0) (void)mmcmap_delete(store, fuzz_key(i / 2, key));
    if (i % 9 == 0) (void)mmcmap_sync(store);
  }
  for (unsigned i = 0; i < FUZZ_KEYS; i += 2)
    (void)mmcmap_delete(store, fuzz_key(i, key));
  fuzz_use_maps(store);
  if (snapshot != NULL) fuzz_diff_all(snapshot, store);
  mmcmap_snapshot_close(snapshot);
  (void)mmcmap_stat_get(store, &stat);
  fuzz_read(store);
  (void)mmcmap_close(store);
}

static void fuzz_salvage(void) {
  uint64_t count;
  (void)mmcmap_salvage(fuzz_path, fuzz_other_path, NULL, NULL, &count);
  unlink(fuzz_other_path);
}

static void fuzz_write_file(const struct fuzz_image *image) {
  int fd = open(fuzz_path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || write(fd, image->bytes, image->size) != (ssize_t)image->size)
    abort();
  close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1 || size > 1 + FUZZ_EDITS_MAX * FUZZ_EDIT_BYTES) return 0;
  const struct fuzz_image *seed = &fuzz_seeds[(data[0] & 0x7f) % FUZZ_SEEDS];
  struct fuzz_image image = *seed;
  image.bytes = calloc(1, seed->size + 8192);
  if (image.bytes == NULL) abort();
  memcpy(image.bytes, seed->bytes, seed->size);
  size_t used = fuzz_used(seed);
  for (size_t at = 1; at + FUZZ_EDIT_BYTES <= size; at += FUZZ_EDIT_BYTES)
    fuzz_edit(&image, data + at, used);
  if ((data[0] & 0x80) == 0) fuzz_mend(&image);
  fuzz_write_file(&image);
  free(image.bytes);
  mmcmap *store = fuzz_open(image.masks, true);
  if (store != NULL) {
    fuzz_read(store);
    if (data[size - 1] % 16 == 1) fuzz_inspect(store);
    (void)mmcmap_close(store);
  }
  if (data[size - 1] % 16 == 2) fuzz_salvage();
  fuzz_use(image.masks);
  store = fuzz_open(image.masks, true);
  if (store != NULL) {
    fuzz_read(store);
    (void)mmcmap_close(store);
  }
  unlink(fuzz_path);
  return 0;
}
