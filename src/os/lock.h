/* SPDX-License-Identifier: MIT */
/*
 * Locks on bytes of a file that the kernel releases when the open file
 * description goes, whatever ends the process: Linux open file description
 * locks (fcntl F_OFD_SETLK). They conflict between two descriptors of one
 * process as between two processes.
 *
 * A description goes with the last that refers to it: descriptors, those that
 * a forked child inherited included, and mappings. A view of the file made
 * through a descriptor keeps its description, and the locks of that, until the
 * view is unmapped, here and in every forked child, whether or not the
 * descriptor is closed. Whoever wants the locks to go with the descriptor maps
 * the file through another one, or calls lock_release() first.
 */
#ifndef OS_LOCK_H
#define OS_LOCK_H

#include <stdbool.h>
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

/* Whether no other open file description holds a lock of either kind on the
   byte now. Takes nothing, and does not see the locks of `fd` itself; any
   descriptor will do, read-only ones too. MMCMAP_ENOTSUP where there are no
   such locks. */
int lock_is_free(int fd, uint64_t offset, bool *free_out);

/* The same for that byte and all behind it. */
int lock_is_free_from(int fd, uint64_t offset, bool *free_out);

#endif
