/* SPDX-License-Identifier: MIT */
/*
 * A history that is not linearizable, cut down to what people can read: the
 * operations around the failure that are wrong by themselves. Only such are
 * left out as can be without making a right history look wrong:
 *   - all that was called after the return that no order allows;
 *   - all up to a cut whose values are known;
 *   - all that had returned at a moment when the keys may have held anything;
 *     what was open then may have taken effect before, or not (perhaps);
 *   - operations that only read.
 */
#ifndef SUPPORT_COUNTEREXAMPLE_H
#define SUPPORT_COUNTEREXAMPLE_H

#include <stdio.h>

#include "linearizable.h"

/* `result` is that of linearizable_check(): LINEARIZABLE_WRONG. `name` says
   what `history` is of. */
void counterexample_print(const struct linearizable_history *history,
                          const struct linearizable_result *result,
                          const char *name, FILE *to);

#endif
