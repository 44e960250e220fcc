/* SPDX-License-Identifier: MIT */
/*
 * Salvage: from a damaged file, which is not opened as a store, into a new one.
 */
#include <stdio.h>
#include <string.h>

#include "maint/salvage.h"
#include "maint/verify.h"
#include "making.h"
#include "os/lock.h"
#include "snapshot.h"

/* Tells the caller what is wrong with the file. */
struct telling {
  mmcmap_report report;
  void *context;
};

static void tell(void *context, const struct verify_failure *failure) {
  const struct telling *telling = context;
  mmcmap_fault fault = {
      .code = failure->code, .rule = failure->rule, .offset = failure->offset};
  telling->report(telling->context, &fault);
}

static void tell_superblock(const struct telling *telling,
                            const struct node_source *source, uint64_t offset) {
  struct superblock superblock;
  mmcmap_error error;
  if (bytes_within(offset, SUPERBLOCK_BYTES, source->size) &&
      superblock_decode(source->base + offset, offset, true, &superblock) ==
          MMCMAP_OK)
    return;
  mmcmap_last_error(&error);
  struct verify_failure failure = {.code = MMCMAP_ECORRUPT,
                                   .rule = "F4 superblock checksum",
                                   .offset = offset};
  tell((void *)(uintptr_t)telling, &failure);
}

static void tell_faults(const struct salvage *salvage,
                        const struct telling *telling) {
  struct verify_watch watch = {.found = tell,
                               .context = (void *)(uintptr_t)telling};
  if (telling->report == NULL) return;
  tell_superblock(telling, &salvage->source, SUPERBLOCK_A_OFFSET);
  tell_superblock(telling, &salvage->source, SUPERBLOCK_B_OFFSET);
  if (salvage->has_superblock)
    verify_file_watched(&salvage->source, &salvage->hasher,
                        &salvage->superblock, &watch);
}

/* The store that is being made, or a handle of the map in it, which the map keeps.
   One without its name is given another. */
static int map_in_copy(mmcmap *copy, struct salvage_map *map,
                       mmcmap **handle_out) {
  char text[48];
  *handle_out = map->user != NULL ? map->user : copy;
  if (map->user != NULL || map->id == MAP_ID_DEFAULT) return MMCMAP_OK;
  mmcmap_slice name = slice_of(map->name, map->name_size);
  if (map->name == NULL) {
    int size = snprintf(text, sizeof text, "salvaged map %llu",
                        (unsigned long long)map->id);
    name = (mmcmap_slice){.data = text, .size = (size_t)size};
  }
  int code = mmcmap_map(copy, name, handle_out);
  if (code == MMCMAP_OK) map->user = *handle_out;
  return code;
}

/* All that have names: those too of which no record is left. */
static int make_maps(struct salvage *salvage, mmcmap *copy) {
  for (size_t i = 0; i < salvage->map_count; i++) {
    mmcmap *map;
    if (salvage->maps[i].name == NULL) continue;
    int code = map_in_copy(copy, &salvage->maps[i], &map);
    if (code == MMCMAP_OK) code = making_map(map);
    if (code != MMCMAP_OK) return code;
  }
  return MMCMAP_OK;
}

/* Closes the handles of maps; the number of records in all. */
static int close_maps(struct salvage *salvage, mmcmap *copy,
                      uint64_t *count_out) {
  int code = mmcmap_count(copy, count_out);
  for (size_t i = 0; i < salvage->map_count; i++) {
    uint64_t count = 0;
    mmcmap *handle = salvage->maps[i].user;
    if (handle == NULL) continue;
    int counted = mmcmap_count(handle, &count);
    int closed = mmcmap_close(handle);
    *count_out += count;
    if (code == MMCMAP_OK) code = counted != MMCMAP_OK ? counted : closed;
  }
  return code;
}

static void tell_lost_names(const struct salvage *salvage,
                            const struct telling *telling) {
  for (size_t i = 0; i < salvage->map_count && telling->report != NULL; i++) {
    const struct salvage_map *map = &salvage->maps[i];
    if (map->name != NULL || map->id == MAP_ID_DEFAULT) continue;
    struct verify_failure failure = {.code = MMCMAP_ECORRUPT,
                                     .rule = "a map has lost its name",
                                     .offset = map->offset};
    tell((void *)(uintptr_t)telling, &failure);
  }
}

/* What has expired overrides an older version that has not. */
static int put_record(void *context, struct salvage_map *map,
                      const struct record_view *record) {
  mmcmap *copy;
  int found = map_in_copy(context, map, &copy);
  if (found != MMCMAP_OK) return found;
  mmcmap_slice key = slice_of(record->key, record->key_size);
  struct change_life life = {.expires_ms = record->expires_ms};
  struct expiry_reading now = reading_of(atomic_load(&copy->store));
  if (expiry_is_past(&now, record->expires_ms)) {
    int code = mmcmap_delete(copy, key);
    return code == MMCMAP_NOTFOUND ? MMCMAP_OK : code;
  }
  return handle_put(copy, key, slice_of(record->value, record->value_size),
                    life);
}

/* From the file that is mapped into the store that is being made. */
static int salvage_into(struct salvage *salvage, const char *to, unsigned mode,
                        const struct telling *telling, uint64_t *count_out) {
  static const struct store_internals internals = {
      .segment_size = SEGMENT_SIZE_DEFAULT,
      .primary_mask = UINT64_MAX,
      .secondary_mask = UINT64_MAX};
  struct making making;
  mmcmap_options options;
  mmcmap_options_init(&options);
  options.hash = salvage->hasher.kind;
  options.mode = mode | 0600;
  int code = making_begin(&making, to, &options, &internals);
  if (code != MMCMAP_OK) return code;
  code = make_maps(salvage, making.copy);
  if (code == MMCMAP_OK) code = salvage_read(salvage, put_record, making.copy);
  int closed = close_maps(salvage, making.copy, count_out);
  if (code == MMCMAP_OK) code = closed;
  if (code != MMCMAP_OK) {
    making_abandon(&making);
    return code;
  }
  tell_faults(salvage, telling);
  tell_lost_names(salvage, telling);
  return making_finish(&making, false);
}

static int salvage_mapped(int fd, const struct map *map, uint64_t size,
                          const char *to, const struct telling *telling,
                          uint64_t *count_out) {
  struct salvage salvage;
  struct node_source source = {.base = map->read, .size = size};
  unsigned mode;
  int code = file_mode(fd, &mode);
  if (code == MMCMAP_OK) code = salvage_open(&salvage, &source);
  if (code != MMCMAP_OK) return code;
  code = salvage_into(&salvage, to, mode, telling, count_out);
  salvage_close(&salvage);
  return code;
}

/* Whether nobody has the file open, and its length. */
static int look_at_source(int fd, uint64_t *size_out) {
  bool is_free;
  int code = lock_is_free(fd, STORE_GROUP_OFFSET, &is_free);
  if (code == MMCMAP_OK && !is_free)
    code = error_set(MMCMAP_EBUSY, "somebody has it open");
  if (code == MMCMAP_OK) code = file_size(fd, size_out);
  if (code == MMCMAP_OK && *size_out < SUPERBLOCK_BYTES)
    code = error_set(MMCMAP_EFORMAT, "too short");
  return code;
}

int mmcmap_salvage(const char *from, const char *to, mmcmap_report report,
                   void *context, uint64_t *count_out) {
  struct telling telling = {.report = report, .context = context};
  struct file_identity identity;
  struct map map = {0};
  uint64_t size, page = process_page_size();
  int fd;
  *count_out = 0;
  if (from == NULL || from[0] == '\0' || to == NULL || to[0] == '\0')
    return error_set(MMCMAP_EINVAL, "path");
  if (file_identify_path(to, &identity) == MMCMAP_OK)
    return error_set(MMCMAP_EEXIST, "the file to be made");
  int code = file_open(from, true, &fd);
  if (code != MMCMAP_OK) return code;
  code = look_at_source(fd, &size);
  if (code == MMCMAP_OK)
    code = map_open(fd, false, bytes_align_up(size, page),
                    bytes_align_up(size, page), &map);
  if (code == MMCMAP_OK)
    code = salvage_mapped(fd, &map, size, to, &telling, count_out);
  if (code != MMCMAP_OK) *count_out = 0;
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  map_close(&map);
  file_close(fd);
  if (code != MMCMAP_OK) error_restore(&failure);
  return code;
}
