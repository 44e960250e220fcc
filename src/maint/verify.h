/* SPDX-License-Identifier: MIT */
/*
 * Verification: walks everything that a root leads to, or a whole file, and
 * compares it with the rules of docs/format.md. It only reads, takes no lock,
 * allocates nothing but 24 bytes for each segment, and goes on behind what it
 * finds. A file of any content ends it in time proportional to the file, for each
 * saved snapshot once more: nodes, extents and frames do not overlap, so as soon as
 * those seen under one root are longer than the file, it stops.
 */
#ifndef MAINT_VERIFY_H
#define MAINT_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "format/node.h"
#include "format/superblock.h"

enum { VERIFY_FAILURES_MAX = 8 };

struct verify_failure {
  int code;         /* MMCMAP_ECORRUPT, ... */
  const char *rule; /* "F29 record checksum", a constant string */
  uint64_t offset;  /* in the file */
};

/* Who follows a verification. */
struct verify_watch {
  /* Called now and then with bytes looked at; anything but 0 stops it. NULL is
     allowed. */
  int (*progress)(void *context, uint64_t bytes);
  /* Called for each failure. NULL is allowed. */
  void (*found)(void *context, const struct verify_failure *failure);
  void *context;
};

/* What a trie has in a segment. */
struct verify_use {
  uint64_t node_bytes;
  uint64_t page_bytes; /* of large values */
  uint64_t nodes_end;  /* of the last node */
};

struct verify_report {
  /* Zeros of each segment, which are filled in, and belong to the caller; NULL:
     not asked for. */
  struct verify_use *uses;
  uint64_t use_count;
  uint32_t segment_size;

  const struct verify_watch *watch; /* NULL: nobody */
  int stopped;                      /* what `progress` has stopped it with */

  uint64_t branch_count;
  uint64_t collision_count;
  uint64_t record_count;
  uint64_t large_count;    /* records with pages of their own */
  uint64_t map_count;      /* named ones */
  uint64_t snapshot_count; /* saved ones; what is in them is not counted above,
                              but for branches */
  uint64_t node_bytes;     /* of all these, pages included, */
  uint64_t earlier_bytes;  /* and before the present root, or snapshot, began */
  uint64_t frame_count;    /* verify_file() only, as are the next ones */
  uint64_t frame_bytes;
  uint64_t segment_count;
  uint64_t superblock_count; /* valid ones: 1 after a torn write */
  uint64_t failure_count;    /* all of them; the first are kept */
  struct verify_failure failures[VERIFY_FAILURES_MAX];
};

/*
 * Verifies the trie under `root`, a root of `map_id` with `count` records, or the
 * maps of a store under its store root, the default one with `count` records, and the
 * snapshots that are saved there; none
 * of whose nodes may be younger than `newest_epoch`. The root's epoch must be
 * sealed, or the writer lock held. The first failure's code.
 */
int verify_trie(const struct node_source *source, const struct hasher *hasher,
                uint32_t map_id, uint64_t root, uint64_t count,
                uint64_t newest_epoch, struct verify_report *report_out);

/* The same, adding to a report that the caller has emptied. */
void verify_trie_into(const struct node_source *source,
                      const struct hasher *hasher, uint32_t map_id,
                      uint64_t root, uint64_t count, uint64_t newest_epoch,
                      struct verify_report *report);

/* Verifies headers and frames of the segments that the tries verified before
   have nodes in, as the report says. As long as a snapshot holds those, this may
   be called while others write: `state` is what is durable, and frames of later
   epochs, up to `newest_epoch`, need not be complete. Adds to the report. */
void verify_log_into(const struct node_source *source,
                     const struct hasher *hasher,
                     const struct superblock *state, uint64_t newest_epoch,
                     struct verify_report *report);

/* Notes a failure. */
void verify_fail(struct verify_report *report, int code, const char *rule,
                 uint64_t offset);

/* The same for what a reading function has said. */
void verify_fail_as_noted(struct verify_report *report, int code);

/* Whether to go on; `number` counts nodes or frames. */
bool verify_goes_on(struct verify_report *report, uint64_t number);

/* The first failure's code, noted as the thread's last error; or what stopped
   it; or MMCMAP_OK. */
int verify_outcome(const struct verify_report *report);

/*
 * Verifies a file that nobody writes: superblocks, the trie that recovery finds,
 * the headers and frames of the segments that it lies in, and the table of what
 * is alive. `superblock`
 * is the one that recovery has chosen. The first failure's code;
 * MMCMAP_ENOMEM.
 */
int verify_file(const struct node_source *source, const struct hasher *hasher,
                const struct superblock *superblock,
                struct verify_report *report_out);

/* The same, for one who follows it and needs no figures. */
void verify_file_watched(const struct node_source *source,
                         const struct hasher *hasher,
                         const struct superblock *superblock,
                         const struct verify_watch *watch);

#endif
