/* SPDX-License-Identifier: MIT */
/*
 * Verifying a whole file that lies in memory, for the areas verify and crash
 * of the probe.
 */
#ifndef SUPPORT_PROBE_VERIFY_H
#define SUPPORT_PROBE_VERIFY_H

#include <stdint.h>

#include "maint/verify.h"

struct verify_masks {
  uint64_t primary;
  uint64_t secondary;
};

/* Chooses a superblock and verifies what it leads to. The code of the first
   thing that is wrong; `report_out` is empty if no superblock is good. */
int verify_image(const uint8_t *bytes, uint64_t size,
                 const struct verify_masks *masks,
                 struct verify_report *report_out);

#endif
