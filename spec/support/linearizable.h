/* SPDX-License-Identifier: MIT */
/*
 * Is a history linearizable? It is if every operation can be given one moment
 * between its call and its return such that an atomic register, or one per key,
 * that is asked in this order gives all the answers (Herlihy and Wing, 1990).
 *
 * A history is linearizable if that of each key is: so keys are checked one by
 * one, however many operations there are. Snapshots of several keys need a
 * joint check, where all keys are one object: that is for few keys
 * (LINEARIZABLE_KEYS_MAX), and for histories that come to rest every few
 * hundred operations.
 *
 * The search (Wing and Gong, 1993; Lowe, "Testing for linearizability", 2017)
 * goes through calls and returns in order and gives an operation its moment as
 * late as it can, at its return, together with those open ones that must come
 * before it; it goes back where it is stuck, and remembers at each return which
 * open operations were done with which values, so that it never looks at one
 * state of things twice. What only reads is done as soon as it fits, which is
 * never worse. A value that somebody must still find, and that cannot come
 * back, is not overwritten (provenance.h).
 *
 * A window is what lies between two cuts: moments when nothing is open and
 * operations that were alone have shown all values (timeline.h). At a cut the
 * search forgets all that was before. It gives up a window that takes too many
 * states, which is counted as undecided, and goes on at the next cut. A joint
 * check of sixteen clients decides nearly all windows of some 1,600 operations;
 * one of twenty-four gives up a few in a hundred.
 */
#ifndef SUPPORT_LINEARIZABLE_H
#define SUPPORT_LINEARIZABLE_H

#include <stdio.h>

#include "operation.h"

enum {
  LINEARIZABLE_KEYS_MAX = 16, /* of a joint check */
  LINEARIZABLE_OPEN_MAX = 64  /* operations at once, pending ones too */
};

enum linearizable_verdict {
  LINEARIZABLE_RIGHT,
  LINEARIZABLE_WRONG,
  LINEARIZABLE_UNDECIDED /* not wrong, but some windows were given up */
};

struct linearizable_history {
  const struct operation *operations; /* in any order */
  size_t count;
  /* 1: all of them are of one key, and the parts of snapshots are gets.
     More: a joint check of the keys 0 to key_count - 1. */
  unsigned key_count;
  uint64_t initial[LINEARIZABLE_KEYS_MAX];
};

struct linearizable_result {
  enum linearizable_verdict verdict;
  const char *why; /* LINEARIZABLE_UNDECIDED: a constant string */
  size_t undecided_windows;
  bool has_cut; /* that the search has passed; then when */
  uint64_t cut_ns;
  uint64_t values[LINEARIZABLE_KEYS_MAX]; /* after the last cut; of a right
                                             history, at its end */
  size_t windows;                         /* of more than one operation */
  size_t in_windows;     /* operations in these; others were alone */
  size_t longest_window; /* in operations */
  unsigned widest;       /* operations open at once */
  uint64_t visited;      /* states that the search has looked at */
};

void linearizable_check(const struct linearizable_history *history,
                        struct linearizable_result *result_out);

/*
 * Checks each key in 0 to key_count - 1 by itself and then, if `is_joint`, all
 * of them together. `initial` is what they hold before, and if all is right,
 * what they hold afterwards. Otherwise `report` (may be NULL) is told about the
 * first fault: a window as small as was found (counterexample.h). Figures are
 * of all checks, but windows of those of one key.
 */
void linearizable_check_all(const struct operation *operations, size_t count,
                            unsigned key_count, bool is_joint,
                            uint64_t *initial, FILE *report,
                            struct linearizable_result *result_out);

#endif
