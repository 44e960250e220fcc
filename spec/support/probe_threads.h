/* SPDX-License-Identifier: MIT */
/*
 * The part of area os of the probe that starts threads.
 */
#ifndef SUPPORT_PROBE_THREADS_H
#define SUPPORT_PROBE_THREADS_H

#include "compat.h"

/* Adds the thread functions to the table on top of the stack. */
void probe_threads_open(lua_State *L);

#endif
