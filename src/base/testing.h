/* SPDX-License-Identifier: MIT */
/*
 * Switches and hooks of the test build (--enable-debug-checks); in any other
 * build all of it is gone. A break is a deliberate mistake: specs switch it on
 * to see that some test notices. A point is a moment of interest: specs hang a
 * function on it to look at the file, or to die there.
 */
#ifndef BASE_TESTING_H
#define BASE_TESTING_H

#include <stdint.h>

enum testing_break {
  BREAK_DROP_SYNC = 1 << 0,           /* commits do not sync */
  BREAK_IGNORE_SYNC_ERROR = 1 << 1,   /* a failed sync counts as done */
  BREAK_PUBLISH_EARLY = 1 << 2,       /* a record is linked, then written */
  BREAK_SKIP_FRAME_CHECKSUM = 1 << 3, /* recovery takes any frame */
  BREAK_KEEP_SALT = 1 << 4,           /* a session goes on with the old salt */
  BREAK_SAME_SUPERBLOCK = 1 << 5,     /* only place A is ever written */
  BREAK_EARLY_SUPERBLOCK = 1 << 6,    /* names an epoch before its sync */
  BREAK_LEAVE_FRAME = 1 << 7,         /* a leader leaves out a sealed epoch */
  BREAK_TRUST_LARGE_VALUES = 1 << 8,  /* recovery does not verify them */
  BREAK_NO_REWRITE = 1 << 9,          /* recovered frames are not rewritten */
  BREAK_WRITE_SEALED = 1 << 10,       /* sealed branches change in place */
  BREAK_RECYCLE_EARLY = 1 << 11,      /* pins are not looked at */
  BREAK_RECYCLE_COMMITTED = 1 << 12,  /* recycling lists outlive a commit */
  BREAK_NO_PIN = 1 << 13,             /* readers do not pin */
  BREAK_REUSE_EPOCHS = 1 << 14,       /* epochs seen before a crash return */
  BREAK_NO_FENCE = 1 << 15,           /* a pin is not fenced */
  BREAK_CLAIM_OWNER = 1 << 16,        /* rows that own a lock are used again */
  BREAK_BURY_ALIVE = 1 << 17,         /* rows are cleared unasked */
  BREAK_NO_INTENT = 1 << 18,          /* an inherited count is left as it is */
  BREAK_SETTLE_LATE = 1 << 19,  /* a node is linked before the head moves */
  BREAK_NO_RECHECK = 1 << 20,   /* a snapshot does not look again */
  BREAK_TRUST_BOOT = 1 << 21,   /* takeover looks at the boot alone */
  BREAK_TXN_UNSEALED = 1 << 27, /* a transaction begins without a seal */
  BREAK_TXN_RECYCLER = 1 << 28, /* what an aborted one recycled is kept */
  BREAK_TXN_UNFROZEN = 1 << 29, /* a savepoint freezes nothing */
  BREAK_REUSE_PINNED = 1 << 22, /* space that a reader may look at, */
  BREAK_REUSE_HELD = 1 << 23,   /* that a snapshot holds, */
  BREAK_REUSE_UNCOMMITTED =
      1 << 24,                /* or that recovery may need, is used again */
  BREAK_COUNT_LOW = 1 << 25,  /* what is appended is not counted as alive */
  BREAK_NO_REVIVAL = 1 << 26, /* an empty segment's nodes are used again */
  TESTING_POISON = 1 << 30    /* no mistake: nodes are poisoned before they are
                              used again, so that who still reads them fails */
};

/* More of them, of the same kind: an enumerator has no more bits. */
#define BREAK_OF_BIT(bit) (UINT64_C(1) << (bit))
#define BREAK_SEAL_CLOSES BREAK_OF_BIT(40)   /* a seal writes a frame header */
#define BREAK_ONE_LOG BREAK_OF_BIT(41)       /* the log's state has one copy */
#define BREAK_WAIT_FOR_SELF BREAK_OF_BIT(42) /* nobody asks who has a lock */
#define BREAK_KEEP_FORKED BREAK_OF_BIT(43)   /* a child keeps locks */
#define BREAK_IGNORE_FORK BREAK_OF_BIT(44)   /* and uses what it inherited */
#define BREAK_TRUST_LOCK_FILE BREAK_OF_BIT(45) /* not the data file's users */
#define BREAK_OWN_FAILURE BREAK_OF_BIT(46)     /* a failed sync is not shared */
#define BREAK_TRUST_LAST_CHANGE BREAK_OF_BIT(48) /* takeover does not look */
#define BREAK_CUT_IS_DAMAGE BREAK_OF_BIT(47) /* few addresses are no reason */
#define BREAK_RECYCLE_HELD BREAK_OF_BIT(49)  /* what a snapshot holds */
#define BREAK_FLAT_PINS BREAK_OF_BIT(50) /* an inner pin's end is the outer's */
#define BREAK_TRUST_PIDS BREAK_OF_BIT(51) /* a process is dead by its number */
#define BREAK_GROW_UNLOCKED \
  BREAK_OF_BIT(52)                        /* two make the file longer at once */
#define BREAK_ROWS_FIRST BREAK_OF_BIT(53) /* rows are scanned before pins */
/* A superblock is written before what it names is synced: where a session begins
   and ends, */
#define BREAK_STATE_UNSYNCED BREAK_OF_BIT(54)
#define BREAK_LOG_UNSYNCED BREAK_OF_BIT(57) /* or in the middle of the log */
/* One counts as on disk, and space is used again, when it has been written, */
#define BREAK_REUSE_UNSYNCED BREAK_OF_BIT(55)
/* or where space waits for it, and only the log has been synced. */
#define BREAK_SUPERBLOCK_UNSYNCED BREAK_OF_BIT(56)
#define BREAK_UNCHAIN_HEAD \
  BREAK_OF_BIT(58) /* frames of branches are left out */
#define BREAK_TRUST_COUNTS BREAK_OF_BIT(59) /* what is not counted is empty */
#define BREAK_FORGET_DROPPED \
  BREAK_OF_BIT(60) /* a drop that is not on disk holds nothing */
#define BREAK_NO_RESERVE BREAK_OF_BIT(61) /* the last space is for anything */
#define BREAK_NO_CROWD BREAK_OF_BIT(31)   /* puts fill all but the reserve */
#define BREAK_FORGET_MAP \
  BREAK_OF_BIT(62) /* closing forgets that a map was dropped */
/* Who looks ahead of the cleaner is not pinned, */
#define BREAK_AHEAD_UNPINNED BREAK_OF_BIT(63)
/* or looks at the pages of large values. */
#define BREAK_AHEAD_LARGE BREAK_OF_BIT(39)
/* No mistake: puts of a transaction wait for each other in the smallest store. */
#define TESTING_QUEUE BREAK_OF_BIT(38)
/* None either: what is written goes to segments of small pages in any store. */
#define TESTING_FINE BREAK_OF_BIT(37)

#ifdef MMCMAP_DEBUG_CHECKS

#include <stddef.h>

/* Set by specs only, while no store is in use; at the start of a program, what
   the environment's MMCMAP_BREAKS says, a number. */
extern uint64_t testing_breaks; /* of the above, or-ed */
/* Bytes of log between superblocks; 0: as txn/commit.c has it. */
extern uint64_t testing_superblock_interval;
extern void (*testing_hook)(const char *point);

#define BROKEN(which) ((testing_breaks & (uint64_t)(which)) != 0)
#define TESTING_SUPERBLOCK_INTERVAL testing_superblock_interval
#define TEST_POINT(name) \
  do { \
    if (testing_hook != NULL) testing_hook(name); \
  } while (0)

#else

#define BROKEN(which) 0
#define TESTING_SUPERBLOCK_INTERVAL UINT64_C(0)
#define TEST_POINT(name) ((void)0)

#endif

#endif
