/* SPDX-License-Identifier: MIT */
/*
 * kill_soak: a program that kills processes. Several of them write to one
 * store; one after the other, or all at once, is killed at a random moment or
 * at a chosen point and replaced. Nothing that was acknowledged may be missing,
 * nothing may be half there, and nobody may wait for ever.
 *
 * What was acknowledged is noted outside the store, in memory that the parent
 * shares with its children. A worker has a slot, and each of its threads is a
 * writer: it outlives the process, for the replacement's thread goes on where
 * the dead one stopped. A writer has keys of its own, which nobody else
 * changes, and all change the shared keys. For each pair of writer and key the
 * note is two words, each written by one store:
 *   begun   what the writer has begun to do to the key last
 *   acked   what it has last been told to be done
 * so that begun is stored before the call and acked after it, and a kill
 * between any two instructions leaves a note that says what may be there:
 * acked, or, if they differ, what was begun. Transactions over named maps have
 * such a note, too.
 */
#ifndef SUPPORT_KILL_SOAK_H
#define SUPPORT_KILL_SOAK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "mmcmap.h"

enum {
  SLOTS_MAX = 16,
  THREADS_MAX = 8,
  WRITERS_MAX = SLOTS_MAX * THREADS_MAX,
  OWN_KEYS = 24, /* of each writer */
  SHARED_KEYS = 16,
  KEYS = OWN_KEYS + SHARED_KEYS, /* shared keys come after the own ones */
  KEY_SIZE_MAX = 40,
  VALUE_SIZE_MAX = 400 * 1024,
  POINTS_MAX = 64,
  POINT_NAME_MAX = 32,
  SPARE_MS = 20,         /* who has waited longer is not killed: it may hang */
  STUCK_MS = 10000,      /* who has waited longer does */
  SEGMENT_BYTES = 131072 /* with --upkeep */
};

/* The first two own keys are a pair, put in turn and never deleted: the first
   holds which put of the second came before it, the second which put of the
   first. So a snapshot that has a put, but not the one before it, is seen. */
enum { PAIR_FIRST, PAIR_SECOND, PAIR_KEYS };

enum { LEVEL_MIXED = MMCMAP_MANUAL + 1 }; /* each thread has another level */

/* ---- Notes --------------------------------------------------------------- */

/* What is done to a key: the writer's own number of it, or'ed with
   WORD_DELETES; 0: nothing ever. */
#define WORD_DELETES (UINT64_C(1) << 63)

static inline uint64_t word_number(uint64_t word) {
  return word & ~WORD_DELETES;
}

/* The number that the value of the key has then; 0: there is none. */
static inline uint64_t word_value(uint64_t word) {
  return (word & WORD_DELETES) != 0 ? 0 : word;
}

struct note {
  _Atomic uint64_t begun;
  _Atomic uint64_t acked;
};

struct writer_notes {
  _Atomic uint64_t last_number; /* given to an operation */
  struct note keys[KEYS];
  struct note moves; /* numbers of transactions, see kill_soak_bank.c */
};

enum doing {
  DOING_NOTHING, /* of the library's */
  DOING_START,
  DOING_OPEN,
  DOING_GET,
  DOING_PUT,
  DOING_DELETE,
  DOING_MOVE,
  DOING_COUNT,
  DOING_SYNC,
  DOING_STEP,
  DOING_SNAPSHOT,
  DOING_WALK,
  DOING_CLOSE,
  DOING_EXIT,
  DOING_VERIFY,
  DOING_CLEAN,
  DOING_COMPACT,
  DOING_BACKUP,
  DOINGS,
  DOINGS_MAX = 32
};

/* What a thread is doing, for the watch. */
struct mark {
  _Atomic uint64_t since_ns; /* 0: nothing */
  _Atomic int doing;         /* enum doing */
  _Atomic unsigned key;
  _Atomic int thread_id; /* the system's; 0: not started yet */
};

enum phase { PHASE_OPENING, PHASE_WORKING, PHASE_CLOSING, PHASE_CLOSED };

/* A process that comes and goes. */
struct slot {
  unsigned number;
  pid_t pid;           /* the parent's: 0 if there is none */
  uint64_t started_ns; /* the parent's */
  bool was_killed;     /* the parent's: it has sent SIGKILL */
  uint64_t life;       /* how many processes there were */
  uint64_t end_ns;     /* then the process ends by itself; 0: it does not */
  uint64_t point_hash; /* where it is to die, if point_turn is not 0; 0: at
                          any point */
  uint64_t point_turn; /* the how manieth passing that is */
  _Atomic int phase;
  _Atomic unsigned dying_at;          /* point's index + 1 */
  struct mark marks[THREADS_MAX + 1]; /* threads[thread_count]: main's */
};

/* A point of base/testing.h that was passed. */
struct point {
  _Atomic uint64_t hash; /* of the name; 0: none */
  char name[POINT_NAME_MAX];
  _Atomic uint64_t passings;
  uint64_t deaths; /* the parent's */
};

/* All that the processes share. */
struct soak {
  char path[4000];
  unsigned slot_count;
  unsigned thread_count; /* of each worker */
  int level;             /* enum mmcmap_durability or LEVEL_MIXED */
  bool has_points;
  bool
      has_upkeep; /* the cleaner runs after every operation, in small segments */
  uint64_t seed;

  _Atomic bool stops; /* workers are to close the store and end */
  _Atomic uint64_t faults;
  _Atomic uint64_t acknowledged; /* operations */
  _Atomic uint64_t longest;      /* wait in ns * DOINGS_MAX + enum doing */
  _Atomic uint64_t gets, snapshots, moves;

  struct slot slots[SLOTS_MAX + 1]; /* the last one is the verifier's */
  struct writer_notes writers[WRITERS_MAX];
  struct point points[POINTS_MAX];
};

static inline unsigned soak_writer_count(const struct soak *soak) {
  return soak->slot_count * soak->thread_count;
}

/* ---- Tools (kill_soak.c) ------------------------------------------------- */

/* SplitMix64: a number that looks random, from one that does not. */
static inline uint64_t mix(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

struct chance {
  uint64_t state;
};

/* A number below `limit`. */
static inline uint64_t chance_below(struct chance *chance, uint64_t limit) {
  return mix(chance->state++) % limit;
}

void sleep_us(uint64_t us);

/* Prints and counts a violation; the parent then ends the run. */
void soak_fault(struct soak *soak, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same of a call that failed, with what the library says about it, and ends
   the process. */
_Noreturn void soak_fail(struct soak *soak, const char *what, int code);

/* ---- Values (kill_soak_value.c) ------------------------------------------ */

/* What a value says about itself. */
struct found {
  unsigned writer;
  unsigned key;
  uint64_t number; /* of the writer's operation; 0: there is no value */
  uint64_t pair;
};

/* The key that `writer` knows as `key`. */
mmcmap_slice soak_key(const struct soak *soak, unsigned writer, unsigned key,
                      char bytes_out[KEY_SIZE_MAX]);

/* Makes a value of `size` bytes or a few more in `buffer` (VALUE_SIZE_MAX). */
mmcmap_slice soak_value(const struct found *what, size_t size, void *buffer);

/* Checks that a value is whole and belongs to the key, and tells what it is.
   NULL, or what is wrong. */
const char *soak_identify(const struct soak *soak, mmcmap_slice key,
                          mmcmap_slice value, struct found *found_out);

/* ---- Comparing with the notes (kill_soak_verify.c) ----------------------- */

/*
 * What a snapshot holds, and what had been acknowledged before it was taken.
 * While writers write, a key may hold what was acknowledged before or anything
 * that was begun by then; when nobody does (`is_still`), only the one or the
 * other.
 */
struct view {
  bool is_still;
  uint64_t acked[WRITERS_MAX][KEYS]; /* before */
  struct found own[WRITERS_MAX][OWN_KEYS];
  struct found shared[SHARED_KEYS];
  uint64_t moved[WRITERS_MAX]; /* before */
  uint64_t records;
  uint64_t map_records; /* of all named maps */
  uint64_t digest;      /* of all in its order */
};

/* Before reading a key: notes what must be seen at least. */
void view_prepare_key(const struct soak *soak, struct view *view,
                      unsigned writer, unsigned key);
void view_prepare(const struct soak *soak, struct view *view);

/* After it: faults if it may not be so. */
void view_check_own(struct soak *soak, const struct view *view, unsigned writer,
                    unsigned key, const struct found *found);
void view_check_shared(struct soak *soak, const struct view *view, unsigned key,
                       const struct found *found);

/* Takes a snapshot, walks it twice, and compares all of it. A code. */
int view_snapshot(struct soak *soak, mmcmap *store, struct view *view,
                  struct mark *mark);

/* The verifying process, which never returns. */
_Noreturn void soak_verify(struct soak *soak, struct slot *slot);

/* ---- Transactions over maps (kill_soak_bank.c) --------------------------- */

/* One transaction; at times it is aborted. */
void bank_move(struct soak *soak, mmcmap *store, unsigned writer,
               struct chance *chance, struct mark *mark);

/* After a kill: faults if the writer's last one is not as was noted, and notes
   what it is. */
void bank_settle(struct soak *soak, mmcmap *store, unsigned writer,
                 struct mark *mark);

/* As view_prepare(), and comparing a snapshot with it. A code. */
void bank_prepare(const struct soak *soak, struct view *view);
int bank_check(struct soak *soak, mmcmap_snapshot *snapshot, struct view *view);

/* ---- Workers (kill_soak_work.c) ------------------------------------------ */

/* Around each call: what is done, and since when. */
void mark_begin(struct mark *mark, enum doing doing, unsigned key);
void mark_end(struct soak *soak, struct mark *mark);

/* A working process, which never returns. */
_Noreturn void soak_work(struct soak *soak, struct slot *slot);

/* ---- Watching and points (kill_soak_watch.c) ------------------------------ */

const char *watch_name(enum doing doing);

/* The longest that a thread of the process has been waiting, as of now. */
uint64_t watch_wait_ns(const struct soak *soak, const struct slot *slot);

/* Faults if a thread hangs, after printing all that can be found out. */
void watch_slot(struct soak *soak, const struct slot *slot);

/* Chooses where the slot's next process is to die. */
void points_choose(struct soak *soak, struct slot *slot, struct chance *chance);

/* In a process: lets it die there. */
void points_arm(struct soak *soak, struct slot *slot);

#endif
