/* SPDX-License-Identifier: MIT */
/*
 * Numbers kept as text: what mmcmap_incr() adds to. Text is read and written
 * as in the C locale, whatever locale the host program has set.
 */
#ifndef BASE_NUMBER_H
#define BASE_NUMBER_H

#include <stddef.h>

#include "mmcmap.h"

enum { NUMBER_TEXT_BYTES = 40 }; /* the longest text, its end included */

/* Reads all of `text`: decimal digits with or without a sign are an integer,
   which must fit 64 bits; with a point or an exponent it is a float, which must
   be finite. MMCMAP_ENUMBER. */
int number_read(const void *text, size_t size, mmcmap_number *number_out);

/* Writes the shortest text that reads as that float again, or the integer;
   its length. */
size_t number_write(const mmcmap_number *number, char text[NUMBER_TEXT_BYTES]);

/* The sum: an integer if both are. MMCMAP_ENUMBER if it does not fit, or is
   infinite. */
int number_add(const mmcmap_number *a, const mmcmap_number *b,
               mmcmap_number *sum_out);

#endif
