/* SPDX-License-Identifier: MIT */
/*
 * The part of area os of the probe that replaces system calls.
 */
#ifndef SUPPORT_PROBE_FAULTS_H
#define SUPPORT_PROBE_FAULTS_H

#include "compat.h"

/* Adds fail(), short(), die(), ... to the table on top of the stack. */
void probe_faults_open(lua_State *L);

#endif
