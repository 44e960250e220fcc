/* SPDX-License-Identifier: MIT */
/*
 * A simulated disk below one store file, for the crash harness. While it
 * records, it looks at the file at every system call and test point, notes
 * each version of each 512-byte sector, and knows which of them a sync has put
 * on the medium. Just before each sync it keeps a window: all that the medium
 * may hold if the power fails at any moment up to the end of that sync.
 *
 * The rules of the medium: a sync that succeeds writes the pages (4096 bytes)
 * that were written to since the last one, whether that one succeeded or not: a
 * sync that fails forgets which pages are dirty, though the page cache keeps
 * what is in them. A sector that has not been synced may be any of its versions
 * since it last was; so may the length of the file. Of a sector that is being
 * written, only the bytes that change are at risk.
 *
 * One thread, one recorded file at a time.
 */
#ifndef SUPPORT_PROBE_DISK_H
#define SUPPORT_PROBE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  DISK_SECTOR_BYTES = 512,
  DISK_PAGE_BYTES = 4096,
  DISK_BYTES_MAX = 2 << 20,
  DISK_SIZES_MAX = 64
};

/* A version of a sector, younger than the one before it in its array. */
struct disk_change {
  uint32_t sector;
  uint8_t data[DISK_SECTOR_BYTES];
};

/* What the medium may hold: `base` with any choice of changes. */
struct disk_window {
  uint8_t *base;
  uint64_t base_bytes; /* zeros behind it */
  struct disk_change *changes;
  size_t change_count;
  uint64_t sizes[DISK_SIZES_MAX]; /* lengths that the file may have */
  int size_count;
  int promised; /* of the recorder's user, see disk_note() */
  int done;
};

struct disk; /* one recording */

/* Starts recording the file `path`, whose present bytes (or none, if there is
   no file) are on the medium. Exits the process if it has no memory. */
struct disk *disk_start(const char *path);

/* What to put in the windows from now on. */
void disk_note(struct disk *disk, int promised, int done);

/* The next `fdatasync` fails with EIO. */
void disk_fail_next_sync(struct disk *disk);

/* Keeps a window as of now. */
void disk_cut(struct disk *disk);

/* Ends the recording; the windows stay until disk_free(). */
void disk_stop(struct disk *disk);
void disk_free(struct disk *disk);

size_t disk_window_count(const struct disk *disk);
const struct disk_window *disk_window_at(const struct disk *disk, size_t index);

#endif
