/* SPDX-License-Identifier: MIT */
/*
 * Locks on bytes of a file that the kernel releases when the last descriptor
 * of the open file description goes, whatever ends the process: Linux open
 * file description locks (fcntl F_OFD_SETLK). They conflict between two
 * descriptors of one process as between two processes.
 */
#ifndef OS_LOCK_H
#define OS_LOCK_H

#include <stdint.h>

enum lock_kind { LOCK_SHARED, LOCK_EXCLUSIVE };

/* Takes the lock on byte `offset` without waiting; MMCMAP_EBUSY if somebody
   else holds it, MMCMAP_ENOTSUP where there are no such locks. Replaces a
   lock of the other kind that this descriptor holds. */
int lock_try(int fd, uint64_t offset, enum lock_kind kind);

/* The same, tried again until `timeout_ms` have passed. */
int lock_wait(int fd, uint64_t offset, enum lock_kind kind,
              uint32_t timeout_ms);

void lock_release(int fd, uint64_t offset);

#endif
