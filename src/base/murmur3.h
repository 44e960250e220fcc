/* SPDX-License-Identifier: MIT */
/*
 * MurmurHash3_x86_32 (Austin Appleby, 2011), the hash of the original mmcmap.
 * Fast, and no defence: keys that collide under every seed are published.
 */
#ifndef BASE_MURMUR3_H
#define BASE_MURMUR3_H

#include <stddef.h>
#include <stdint.h>

uint32_t murmur3_32(const void *data, size_t size, uint32_t seed);

#endif
