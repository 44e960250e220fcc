/* SPDX-License-Identifier: MIT */
/*
 * mmcmap: the Memory Mapped Concurrent Map, an embedded key-value store.
 *
 * The model
 *   A store is one file, mapped into memory, that holds a hash array mapped
 *   trie (Bagwell, "Ideal Hash Trees", 2001) with generations (Prokopec et
 *   al., "Concurrent Tries with Efficient Non-Blocking Snapshots", 2012).
 *   Any number of threads, of any number of processes, read it without locks
 *   while one of them writes.
 *   Keys and values are byte strings of any content: keys of 0 to 65,535
 *   bytes, values of 0 to 4,294,967,295 bytes. There is no order of keys.
 *
 * Visibility and durability
 *   A put or delete is visible to all readers at one instant, before the call
 *   returns. When it is on disk depends on the durability of the store:
 *     MMCMAP_ASYNC   within `flush_interval_ms` (up to ten times that while
 *                    more than 1 MiB is written in each) and the syncs of this
 *                    commit and of one that is under way (the default); when
 *                    the call returns, if no thread can be started for that
 *                    (or with the next change, if others are in the way of it
 *                    for `timeout_ms`, and for a second at least);
 *     MMCMAP_SYNC    when the call returns;
 *     MMCMAP_MANUAL  when the next mmcmap_sync(), mmcmap_step() or
 *                    mmcmap_close() returns.
 *   A commit takes all that is visible, of all handles and processes. After a
 *   power cut or a crash of the system the store is exactly what it was at one
 *   commit.
 *
 * Threads
 *   A store handle may be used by any number of threads at once. A snapshot
 *   or a cursor belongs to one thread at a time, a transaction, with its cursors,
 *   to the thread that began it. No call may run while another
 *   thread closes the handle that it uses. A thread's first call on a store
 *   takes a row of a table, which may have to grow: MMCMAP_ENOMEM,
 *   MMCMAP_ENOSPC.
 *
 * Processes
 *   Any number of processes may have a store open, reading and writing. They
 *   share the file NAME-lock beside the data file NAME, which stays when they
 *   have closed it. One thread of one process writes at a time; a process that
 *   is killed holds up nobody, and loses nothing that a call has returned from,
 *   unless the machine fails too. If all are killed, the next to open the store
 *   goes on with what they had; that takes Linux 6.8, and the file under the same
 *   name and mount, or else counts as a crash of the system. A process that is
 *   stopped while it writes holds up the others that write.
 *
 *   Handles may be used in a child after fork(), where the first use opens the
 *   file anew, by its absolute path; snapshots, cursors and transactions answer
 *   MMCMAP_EFORK there, and can only be closed, a transaction by
 *   mmcmap_txn_abort(). Both files must not be deleted, renamed or
 *   replaced while somebody has the store open. A process that may not write the
 *   lock file can read the store while nobody shares it, and keeps writers away.
 *
 * Errors
 *   Functions that can fail return 0 (MMCMAP_OK) or a negative code.
 *   Outputs come last; on failure they are zeroed, a buffer aside, which keeps
 *   its memory. mmcmap_last_error() tells more about the failure, per thread.
 *
 * Memory
 *   Every open has a close. Pointers that point into the store (from a
 *   snapshot or cursor) are good until that snapshot is closed.
 */
#ifndef MMCMAP_H
#define MMCMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MMCMAP_API __attribute__((visibility("default")))
#else
#define MMCMAP_API
#endif

#define MMCMAP_VERSION_MAJOR 0
#define MMCMAP_VERSION_MINOR 1
#define MMCMAP_VERSION_PATCH 0
#define MMCMAP_VERSION "0.1.0"

#define MMCMAP_KEY_SIZE_MAX 65535u
#define MMCMAP_VALUE_SIZE_MAX 4294967295u

typedef struct mmcmap mmcmap;
typedef struct mmcmap_snapshot mmcmap_snapshot;
typedef struct mmcmap_cursor mmcmap_cursor;
typedef struct mmcmap_diff mmcmap_diff;
typedef struct mmcmap_txn mmcmap_txn;

/* Bytes that somebody else owns. `data` may be NULL if `size` is 0. */
typedef struct mmcmap_slice {
  const void *data;
  size_t size;
} mmcmap_slice;

/*
 * Bytes that the caller owns. Start with all zeros; calls grow it with
 * realloc() as needed and reuse it. mmcmap_buffer_free() gives it back.
 */
typedef struct mmcmap_buffer {
  void *data;
  size_t size;     /* bytes in use */
  size_t capacity; /* bytes allocated */
} mmcmap_buffer;

/* ---- Errors ------------------------------------------------------------ */

enum mmcmap_error_code {
  MMCMAP_OK = 0,
  MMCMAP_NOTFOUND = -1, /* the key is not there; not a failure */
  MMCMAP_EINVAL = -2,   /* an argument is out of its range */
  MMCMAP_ENOMEM = -3,   /* no memory */
  MMCMAP_EIO = -4,      /* the medium failed */
  MMCMAP_ENOSPC = -5,   /* the disk or the quota is full */
  MMCMAP_EFULL = -6,    /* the store has reached its max_size */
  MMCMAP_EBUSY = -7,    /* in use: somebody else has the lock, or the file
                             open */
  MMCMAP_ECORRUPT = -8, /* the file is damaged */
  MMCMAP_EEXIST = -9,   /* the file exists, and `exclusive` was asked for; or a
                             snapshot of that name */
  MMCMAP_ENOENT = -10,  /* no such file, and it was not to be created; or no
                             snapshot of that name */
  MMCMAP_EACCES = -11,  /* permission denied */
  MMCMAP_EREADONLY = -12, /* the store is open read-only */
  MMCMAP_EFORMAT = -13,   /* not a mmcmap file, or NAME-lock is another file */
  MMCMAP_EVERSION = -14,  /* a mmcmap file of a version or with features that
                             this library does not know */
  MMCMAP_EADDRESS = -15,  /* the file is larger than the range of addresses
                             that this process was granted */
  MMCMAP_ETOOBIG = -16,   /* a key, value or name is too long */
  MMCMAP_EFORK = -17,     /* opened before fork(), and of no use after it */
  MMCMAP_ENOTSUP = -18,   /* this file system or system cannot do it */
  MMCMAP_ESYSTEM = -19,   /* another error of the system, see
                             mmcmap_last_error() */
  MMCMAP_EEXPIRED = -20,  /* the snapshot was open for longer than
                             `max_snapshot_age_ms` and has been ended */
  MMCMAP_MISMATCH = -21,  /* the record is not as was expected; not a failure */
  MMCMAP_ENUMBER = -22    /* the value is not a number, or the sum too large */
};

/* The code's short name, such as "ECORRUPT"; "EUNKNOWN" for no code of ours.
   A constant string. */
MMCMAP_API const char *mmcmap_error_name(int code);

/* A sentence for people, without a full stop. A constant string. */
MMCMAP_API const char *mmcmap_strerror(int code);

/* What is known about the last call that failed on this thread. Calls that
   succeed leave it as it is. */
typedef struct mmcmap_error {
  int code;
  int system_errno; /* errno of the system call that failed, or 0 */
  const char *what; /* the step or rule that failed, a constant string */
  uint64_t offset;  /* where in the file, for MMCMAP_ECORRUPT; else 0 */
} mmcmap_error;

MMCMAP_API void mmcmap_last_error(mmcmap_error *error_out);

/* ---- Opening and closing ----------------------------------------------- */

enum mmcmap_durability { MMCMAP_ASYNC = 0, MMCMAP_SYNC = 1, MMCMAP_MANUAL = 2 };

enum mmcmap_hash_kind {
  MMCMAP_HASH_XXH3 = 0,    /* XXH3 with a secret of the file's own */
  MMCMAP_HASH_SIPHASH = 1, /* SipHash-2-4: for keys that strangers choose */
  MMCMAP_HASH_MURMUR3 = 2  /* MurmurHash3, as the original mmcmap had */
};

typedef struct mmcmap_options {
  size_t struct_size;           /* set by mmcmap_options_init() */
  int durability;               /* enum mmcmap_durability; MMCMAP_ASYNC */
  uint32_t flush_interval_ms;   /* async: longest time between commits; 100 */
  bool readonly;                /* false; true: the file is never written */
  bool create;                  /* true: make the file if it is not there */
  bool exclusive;               /* false; true: fail if the file is there */
  bool lock;                    /* true; false (read-only stores only): take no
                                  lock and use no lock file, for media that
                                  nobody writes */
  bool allow_network;           /* false; true: open it on a network file system
                                  too, which is sound as long as all processes
                                  that use it run on one machine */
  unsigned mode;                /* permission bits of a new file; 0600 */
  uint64_t max_size_bytes;      /* of the file; 0: no limit. At least
                                  MMCMAP_MAX_SIZE_MIN. It also bounds what this
                                  process can use of the file: all processes
                                  should give the same. Without it that is 1 TiB,
                                  and less for what is opened beside eight other
                                  stores or more (MMCMAP_EADDRESS beyond it; see
                                  address_bytes of mmcmap_stat_get()) */
  uint32_t timeout_ms;          /* to wait for another writer, or for
                                  others that open or close; 5000. Closing waits
                                  for a second at least */
  int hash;                     /* enum mmcmap_hash_kind, for a new file;
                                  MMCMAP_HASH_XXH3 */
  uint32_t max_snapshot_age_ms; /* 0: none; else snapshots of this handle that
                                  have been open for longer may be ended, so
                                  that a forgotten one cannot hold space for
                                  ever */
} mmcmap_options;

#define MMCMAP_MAX_SIZE_MIN 131072u

MMCMAP_API void mmcmap_options_init(mmcmap_options *options_out);

/*
 * Opens the store in the file `path`, which is made if it is not there (by a
 * symbolic link: the file that it names; not if `exclusive` is set). If this fails
 * it leaves no file that was not there before.
 * `options` may be NULL: the defaults. The same file opened again in one
 * process is the same store with one more reference (unless it is open read-only
 * or without locks, and the new handle wants more: then it is to the first as
 * that of another process). Options that differ between such opens are kept per
 * handle, but for hash, mode and max_size_bytes, which only the first one in the
 * process sets, and flush_interval_ms, of which the shortest counts.
 *   MMCMAP_ENOENT, MMCMAP_EEXIST, MMCMAP_EACCES; MMCMAP_EBUSY: the processes
 *   that have it open use another lock file, because one of the two files was
 *   replaced, or one of them or this one may not write the lock file, or others
 *   are opening it all the time; MMCMAP_EFORMAT, MMCMAP_EVERSION,
 *   MMCMAP_ECORRUPT; MMCMAP_EIO, MMCMAP_ENOSPC, MMCMAP_ENOMEM, MMCMAP_ENOTSUP,
 *   MMCMAP_ESYSTEM; MMCMAP_EINVAL: an option out of its range.
 */
MMCMAP_API int mmcmap_open(const char *path, const mmcmap_options *options,
                           mmcmap **store_out);

/*
 * Ends the handle; the last one of a process commits what is not on disk yet,
 * of whatever process, and closes the file. Snapshots, cursors and transactions
 * of the handle must have been closed before. NULL is allowed. The handle is gone whatever is
 * returned; an error says that the last commit failed. MMCMAP_EBUSY: somebody else, who
 * is alive and has the store open, was in the way of it for `timeout_ms` (and for a
 * second at least), and something that this process has changed is not on disk: it is
 * there for all, and the next commit, of whoever, takes it. Who has changed nothing
 * that is not on disk goes with MMCMAP_OK then.
 */
MMCMAP_API int mmcmap_close(mmcmap *store);

/* Ends the handle like mmcmap_close(), without a commit, and deletes the file
   that it opened, and the lock file. If it fails, the handle lives on.
   MMCMAP_EBUSY: there are snapshots, transactions or other handles of the same file, in this
   or another process; MMCMAP_ENOENT: the path names another file by now, or
   none; MMCMAP_EREADONLY, MMCMAP_EACCES. */
MMCMAP_API int mmcmap_remove(mmcmap *store);

/* The path as it was given to mmcmap_open(). Good until the handle is closed. */
MMCMAP_API const char *mmcmap_path(const mmcmap *store);

/* ---- Records ----------------------------------------------------------- */

/* Copies the value of `key` into `value_out`. MMCMAP_NOTFOUND if absent. */
MMCMAP_API int mmcmap_get(mmcmap *store, mmcmap_slice key,
                          mmcmap_buffer *value_out);

/* MMCMAP_OK if `key` is there, else MMCMAP_NOTFOUND. */
MMCMAP_API int mmcmap_has(mmcmap *store, mmcmap_slice key);

/* Called with a value of keys[index], which is good during the call. It must
   not close what it was called through. Any code but MMCMAP_OK ends the calls and
   is what the function that made them returns. */
typedef int (*mmcmap_visit)(void *context, size_t index, mmcmap_slice value);

/*
 * Calls `visit` for each of `count` keys that is there, in their order. Many keys
 * are looked up side by side: from 16 keys on that takes less than half as long
 * as a get for each, if the store is larger than the processor's caches. Each key
 * is read at a moment of its own: for one moment take a snapshot. Allocates
 * nothing. `visit` may change the store; the space of what is replaced or deleted
 * meanwhile is used again only when all is told. MMCMAP_OK, also if no key is there;
 * else the first failure.
 */
MMCMAP_API int mmcmap_get_many(mmcmap *store, const mmcmap_slice *keys,
                               size_t count, mmcmap_visit visit, void *context);

/* Sets the value of `key`, copying both.
   MMCMAP_ETOOBIG, MMCMAP_EREADONLY, MMCMAP_ENOSPC, MMCMAP_EFULL (these two only
   when cleaning has found no room, or when so much is alive that records may
   only be deleted, or replaced by such as are no longer), MMCMAP_EBUSY (no lock
   within timeout_ms): nothing has changed. With MMCMAP_SYNC also what the commit
   failed with, mostly MMCMAP_EIO: the change is visible but not known to be on
   disk; if it was the sync that failed, whatever its code, the store takes no
   more changes, from no process, until all have closed it. */
MMCMAP_API int mmcmap_put(mmcmap *store, mmcmap_slice key, mmcmap_slice value);

/* Deletes `key`. MMCMAP_NOTFOUND if absent; other errors as mmcmap_put(). */
MMCMAP_API int mmcmap_delete(mmcmap *store, mmcmap_slice key);

/* ---- Expiry ------------------------------------------------------------ */

/*
 * A record may have a time to live, in milliseconds; 0 stands for none, here and
 * below. When it is over the record is absent for all calls, in every process,
 * and later a sweep deletes it: bit by bit, by a thread of this library in a process
 * that has put something through a handle that is MMCMAP_ASYNC, or something with
 * a time to live through one that is MMCMAP_SYNC; and by mmcmap_step(). Until then
 * mmcmap_count() and the others that count include it, and mmcmap_version() changes
 * when it is swept, not when it expires.
 *
 * What is put without a time to live has none, whatever the record before it had;
 * only mmcmap_incr() leaves it as it is.
 *
 * The clock is that of the system, but it never goes back: if the system's is set
 * back, nothing expires until that has caught up. A snapshot and a transaction have
 * the time of when they were opened.
 */

/* As mmcmap_put(). */
MMCMAP_API int mmcmap_put_ttl(mmcmap *store, mmcmap_slice key,
                              mmcmap_slice value, uint64_t ttl_ms);

/* What the record has left, at least 1, or 0 if it does not expire.
   MMCMAP_NOTFOUND if absent. */
MMCMAP_API int mmcmap_ttl(mmcmap *store, mmcmap_slice key,
                          uint64_t *ttl_ms_out);

/* Gives the record another time to live, from now on. MMCMAP_NOTFOUND if absent;
   other errors as mmcmap_put(). It writes the record anew, its value too. */
MMCMAP_API int mmcmap_expire(mmcmap *store, mmcmap_slice key, uint64_t ttl_ms);

/* ---- Changes that depend on the present value; each happens at one instant
   among all threads and processes. Errors as mmcmap_put(). ------------------ */

/* Puts only if `key` is absent, else MMCMAP_MISMATCH. */
MMCMAP_API int mmcmap_add(mmcmap *store, mmcmap_slice key, mmcmap_slice value);

/* Puts only if `key` is there, else MMCMAP_NOTFOUND. */
MMCMAP_API int mmcmap_replace(mmcmap *store, mmcmap_slice key,
                              mmcmap_slice value);

/* The same with a time to live. */
MMCMAP_API int mmcmap_add_ttl(mmcmap *store, mmcmap_slice key,
                              mmcmap_slice value, uint64_t ttl_ms);
MMCMAP_API int mmcmap_replace_ttl(mmcmap *store, mmcmap_slice key,
                                  mmcmap_slice value, uint64_t ttl_ms);

/* Puts `value`, or deletes the key if it is NULL, if the present value is
   `expected` (NULL: the key is absent); else MMCMAP_MISMATCH. */
MMCMAP_API int mmcmap_cas(mmcmap *store, mmcmap_slice key,
                          const mmcmap_slice *expected,
                          const mmcmap_slice *value);

/* Puts, and copies the value that there was before into `old_out`, which is
   empty with `found_out` false if the key was absent. `key` and `value` may lie in
   `old_out`. */
MMCMAP_API int mmcmap_swap(mmcmap *store, mmcmap_slice key, mmcmap_slice value,
                           mmcmap_buffer *old_out, bool *found_out);

/* A number that is kept as text. */
typedef struct mmcmap_number {
  bool is_float;
  int64_t integer; /* if not is_float */
  double real;     /* if is_float */
} mmcmap_number;

/* Adds `by` to the number that is kept as text under `key`, or to `init` if it
   is absent, and gives the sum: an integer if both are, else a float.
   MMCMAP_ENUMBER: the value is no number, or the sum does not fit. */
MMCMAP_API int mmcmap_incr(mmcmap *store, mmcmap_slice key, mmcmap_number by,
                           mmcmap_number init, mmcmap_number *sum_out);

/* ---- Many changes at one instant --------------------------------------- */

/* Puts `count` records: all of them or, if it fails, none. Of a key that comes
   twice the last value counts. In a large store it puts new keys faster than one by
   one, in a transaction or not: the way to several of them is walked side by side.
   Errors as mmcmap_put(). */
MMCMAP_API int mmcmap_put_many(mmcmap *store, const mmcmap_slice *keys,
                               const mmcmap_slice *values, size_t count);

/* The same, all of them with that time to live. */
MMCMAP_API int mmcmap_put_many_ttl(mmcmap *store, const mmcmap_slice *keys,
                                   const mmcmap_slice *values, size_t count,
                                   uint64_t ttl_ms);

/* Deletes all records of the map. Readers see that at one instant; the call then takes time
   for each of the records that there were. Errors as mmcmap_put(). */
MMCMAP_API int mmcmap_clear(mmcmap *store);

/*
 * Transactions: any number of changes that all readers see at one instant, when
 * mmcmap_txn_commit() publishes them, in all maps, or never. Reads within a transaction see
 * its own changes; nobody else sees anything of it before. If the thread or its
 * process ends, so does the transaction, as by mmcmap_txn_abort().
 *
 * There is one at a time: it holds the lock that all changes need. Other threads
 * and processes read on, and open snapshots of what was before; their changes
 * and commits, mmcmap_sync() and the flusher's among them, wait until it ends,
 * changes for `timeout_ms`. So it should be short. The thread that has begun it
 * gets MMCMAP_EBUSY, at once, from changes, commits and mmcmap_stat_get() of the
 * store itself; it may read there, and open snapshots, which see the store as it
 * was before.
 *
 * A call that fails has changed nothing: the transaction can go on. For want of
 * space (MMCMAP_ENOSPC, MMCMAP_EFULL) it fails without cleaning, which needs the
 * same lock: the next mmcmap_txn_begin() cleans first. In a large store small puts may
 * return before their records are in place, to be put side by side; for that there is
 * space. Should one fail even so, because of damage (MMCMAP_ECORRUPT) or the disk, the
 * call that comes upon it fails, and all calls after it with the same code, but
 * mmcmap_txn_rollback_to() a savepoint of before, and mmcmap_txn_abort(). On all calls but
 * the two that end it: MMCMAP_EBUSY if it is another thread's, or if its thread has ended;
 * MMCMAP_EFORK.
 */
MMCMAP_API int mmcmap_txn_begin(mmcmap *store, mmcmap_txn **txn_out);

/* Makes all changes visible, then as durable as mmcmap_put() would. The
   transaction is gone whatever is returned. If it fails, nothing has changed;
   but for MMCMAP_SYNC, where what mmcmap_put() says about that holds here.
   MMCMAP_EINVAL, and nothing is done: it is what mmcmap_txn_map() gives. */
MMCMAP_API int mmcmap_txn_commit(mmcmap_txn *txn);

/* Forgets all changes. NULL is allowed. */
MMCMAP_API void mmcmap_txn_abort(mmcmap_txn *txn);

/* Points at the value, without a copy: good until the transaction changes
   something, or ends. MMCMAP_NOTFOUND if absent. */
MMCMAP_API int mmcmap_txn_get(mmcmap_txn *txn, mmcmap_slice key,
                              mmcmap_slice *value_out);
MMCMAP_API int mmcmap_txn_has(mmcmap_txn *txn, mmcmap_slice key);

/* As mmcmap_get_many(). `visit` must not change anything. */
MMCMAP_API int mmcmap_txn_get_many(mmcmap_txn *txn, const mmcmap_slice *keys,
                                   size_t count, mmcmap_visit visit,
                                   void *context);

/* As their namesakes above. Keys and values may be what mmcmap_txn_get() has
   pointed at. Memory is needed for each record of before that is replaced or
   deleted: 24 bytes, and as much for its way to the root. */
MMCMAP_API int mmcmap_txn_put(mmcmap_txn *txn, mmcmap_slice key,
                              mmcmap_slice value);
MMCMAP_API int mmcmap_txn_delete(mmcmap_txn *txn, mmcmap_slice key);
MMCMAP_API int mmcmap_txn_add(mmcmap_txn *txn, mmcmap_slice key,
                              mmcmap_slice value);
MMCMAP_API int mmcmap_txn_replace(mmcmap_txn *txn, mmcmap_slice key,
                                  mmcmap_slice value);
MMCMAP_API int mmcmap_txn_cas(mmcmap_txn *txn, mmcmap_slice key,
                              const mmcmap_slice *expected,
                              const mmcmap_slice *value);
MMCMAP_API int mmcmap_txn_swap(mmcmap_txn *txn, mmcmap_slice key,
                               mmcmap_slice value, mmcmap_buffer *old_out,
                               bool *found_out);
MMCMAP_API int mmcmap_txn_incr(mmcmap_txn *txn, mmcmap_slice key,
                               mmcmap_number by, mmcmap_number init,
                               mmcmap_number *sum_out);
MMCMAP_API int mmcmap_txn_put_many(mmcmap_txn *txn, const mmcmap_slice *keys,
                                   const mmcmap_slice *values, size_t count);
MMCMAP_API int mmcmap_txn_put_ttl(mmcmap_txn *txn, mmcmap_slice key,
                                  mmcmap_slice value, uint64_t ttl_ms);
MMCMAP_API int mmcmap_txn_add_ttl(mmcmap_txn *txn, mmcmap_slice key,
                                  mmcmap_slice value, uint64_t ttl_ms);
MMCMAP_API int mmcmap_txn_replace_ttl(mmcmap_txn *txn, mmcmap_slice key,
                                      mmcmap_slice value, uint64_t ttl_ms);
MMCMAP_API int mmcmap_txn_put_many_ttl(mmcmap_txn *txn,
                                       const mmcmap_slice *keys,
                                       const mmcmap_slice *values, size_t count,
                                       uint64_t ttl_ms);
MMCMAP_API int mmcmap_txn_ttl(mmcmap_txn *txn, mmcmap_slice key,
                              uint64_t *ttl_ms_out);
MMCMAP_API int mmcmap_txn_expire(mmcmap_txn *txn, mmcmap_slice key,
                                 uint64_t ttl_ms);
MMCMAP_API int mmcmap_txn_clear(mmcmap_txn *txn);
MMCMAP_API int mmcmap_txn_count(mmcmap_txn *txn, uint64_t *count_out);

/* Walks the records that the transaction sees now, whatever it changes later.
   The cursor must be closed before the transaction ends. */
MMCMAP_API int mmcmap_txn_cursor_open(mmcmap_txn *txn,
                                      mmcmap_cursor **cursor_out);

/*
 * Savepoints: mmcmap_txn_rollback_to() undoes all changes since the savepoint was
 * made, and forgets those made after it; it stays, and can be returned to again.
 * mmcmap_txn_release() forgets it, and those made after it, and undoes nothing.
 * MMCMAP_EINVAL: there is no such savepoint any more.
 */
MMCMAP_API int mmcmap_txn_savepoint(mmcmap_txn *txn, size_t *savepoint_out);
MMCMAP_API int mmcmap_txn_rollback_to(mmcmap_txn *txn, size_t savepoint);
MMCMAP_API int mmcmap_txn_release(mmcmap_txn *txn, size_t savepoint);

/* ---- Named maps -------------------------------------------------------- */

/*
 * A store can have any number of maps beside its default map, each with a name of
 * any bytes, 0 to 65,535 of them. Keys of different maps have nothing to do with
 * each other. The map's handle is one like that of the store: all calls on
 * records, counts, cursors, snapshots and transactions are about the map then;
 * the others, such as mmcmap_sync() and mmcmap_version(), about the store. It
 * counts as a handle of the store, and is closed by mmcmap_close().
 *
 * A map is made by the first record that is put into it; before that it is empty.
 * It stays when its last record is deleted, until it is dropped.
 */
MMCMAP_API int mmcmap_map(mmcmap *store, mmcmap_slice name, mmcmap **map_out);

/* Deletes a map with all its records, in constant time; MMCMAP_NOTFOUND. Handles
   of the map stay good: it is empty, and can be made again. Its space comes back when
   so much was dropped that a recount is worth it, or after the next opening. */
MMCMAP_API int mmcmap_drop(mmcmap *store, mmcmap_slice name);

/* The map of that name in the transaction, with which all calls on records are
   about the map. It ends with the transaction, and is not committed or aborted
   itself. */
MMCMAP_API int mmcmap_txn_map(mmcmap_txn *txn, mmcmap_slice name,
                              mmcmap_txn **map_out);
MMCMAP_API int mmcmap_txn_drop(mmcmap_txn *txn, mmcmap_slice name);

/* The map of that name at the moment of the snapshot; to be closed before it. */
MMCMAP_API int mmcmap_snapshot_map(mmcmap_snapshot *snapshot, mmcmap_slice name,
                                   mmcmap_snapshot **map_out);

/* Calls `visit` with the name of each map that there is now, in no order; `name` is
   good during the call. Any code but MMCMAP_OK ends the calls and is returned. The
   default map has no name. */
MMCMAP_API int mmcmap_maps(mmcmap *store,
                           int (*visit)(void *context, mmcmap_slice name),
                           void *context);

/* Walks the names of the maps, in no order: they are what mmcmap_cursor_next()
   gives as keys, without values. */
MMCMAP_API int mmcmap_snapshot_maps(mmcmap_snapshot *snapshot,
                                    mmcmap_cursor **cursor_out);
MMCMAP_API int mmcmap_txn_maps(mmcmap_txn *txn, mmcmap_cursor **cursor_out);

/* ---- The whole store --------------------------------------------------- */

/* The number of records of the map now, with those that have expired and are not
   swept yet. */
MMCMAP_API int mmcmap_count(mmcmap *store, uint64_t *count_out);

/* A number that changes with the content: as long as it is the same, so is the
   content, across closing and reopening too, but for what expires. Below 2^48. */
MMCMAP_API int mmcmap_version(mmcmap *store, uint64_t *version_out);

/* Bytes of the data file. */
MMCMAP_API int mmcmap_size(mmcmap *store, uint64_t *size_bytes_out);

/* Commits: returns when all that was visible before the call is on disk. A store
   that is open read-only in this process has nothing to commit, and leaves that
   to those who write. */
MMCMAP_API int mmcmap_sync(mmcmap *store);

/*
 * Does what upkeep there is to do, for hosts that want no thread of ours: with
 * MMCMAP_MANUAL, once per frame or timer. Deletes some of what has expired, commits
 * if something has changed since the last commit, and cleans, unless somebody compacts.
 * `budget_ns` bounds the work, but for the syncs that it needs, mostly one; 0 does
 * nothing. MMCMAP_EBUSY: others were in the way of it for `timeout_ms`. That there is no
 * space to clean is no error here: the next put says so.
 */
MMCMAP_API int mmcmap_step(mmcmap *store, uint64_t budget_ns);

/* Gives its memory back; it can be used again. NULL is allowed. */
MMCMAP_API void mmcmap_buffer_free(mmcmap_buffer *buffer);

/* ---- Snapshots and cursors --------------------------------------------- */

/* The store at this moment, in constant time and without a copy. */
MMCMAP_API int mmcmap_snapshot_open(mmcmap *store,
                                    mmcmap_snapshot **snapshot_out);

/* NULL is allowed. Cursors of the snapshot must have been closed before. A
   snapshot may be closed in a child after fork() too: it frees memory alone. */
MMCMAP_API void mmcmap_snapshot_close(mmcmap_snapshot *snapshot);

/* Points `value_out` at the value, without a copy. MMCMAP_NOTFOUND if absent;
   MMCMAP_EEXPIRED: the snapshot has been ended, and what it pointed at may be
   used again. */
MMCMAP_API int mmcmap_snapshot_get(mmcmap_snapshot *snapshot, mmcmap_slice key,
                                   mmcmap_slice *value_out);

/* The same, but copies the value, which is good then whatever becomes of the
   snapshot. */
MMCMAP_API int mmcmap_snapshot_read(mmcmap_snapshot *snapshot, mmcmap_slice key,
                                    mmcmap_buffer *value_out);

/*
 * Saved snapshots: kept in the file under a name of any bytes, 0 to 65,535 of them,
 * until they are dropped, whoever closes or dies. Each holds the content of all maps
 * at the moment when it was saved, with the time of then, so what had not expired
 * stays. Saving takes constant time; what is replaced or deleted later stays in the
 * file as long as the snapshot does, and so does whatever was there at any time
 * between the oldest and the newest of several. As long as there are any, what was
 * there when the first process opened the store is not cleaned. A backup, and what is
 * salvaged, leave them out.
 */

/* Saves the store as it is now, of whatever map the handle is. MMCMAP_EEXIST: there
   is one of that name; MMCMAP_ETOOBIG; other errors as mmcmap_put(). Saving and
   dropping change mmcmap_version(), which the snapshot has from before. */
MMCMAP_API int mmcmap_snapshot_save(mmcmap *store, mmcmap_slice name);

/* Opens one, to be read like any other, and closed. It can be compared by
   mmcmap_diff_open() with others. MMCMAP_ENOENT: there is none of that name. */
MMCMAP_API int mmcmap_open_snapshot(mmcmap *store, mmcmap_slice name,
                                    mmcmap_snapshot **snapshot_out);

/* Forgets one; those that have it open can go on reading it. Unless others hold it,
   its space comes back in the background, when what is alive has been recounted and
   a superblock tells of the drop. MMCMAP_NOTFOUND. */
MMCMAP_API int mmcmap_drop_snapshot(mmcmap *store, mmcmap_slice name);

typedef struct mmcmap_saved {
  mmcmap_slice name;
  uint64_t time_ms; /* when it was saved, milliseconds since 1970 */
  uint64_t version; /* as mmcmap_snapshot_version() */
  uint64_t count;   /* records in the default map */
} mmcmap_saved;

/* Calls `visit` for each that is saved now, in no order; `saved` is good during the
   call. Any code but MMCMAP_OK ends the calls and is returned. */
MMCMAP_API int mmcmap_snapshots(mmcmap *store,
                                int (*visit)(void *context,
                                             const mmcmap_saved *saved),
                                void *context);

/* As mmcmap_ttl(), from that moment on. */
MMCMAP_API int mmcmap_snapshot_ttl(mmcmap_snapshot *snapshot, mmcmap_slice key,
                                   uint64_t *ttl_ms_out);

/* As mmcmap_get_many(), at the one moment. */
MMCMAP_API int mmcmap_snapshot_get_many(mmcmap_snapshot *snapshot,
                                        const mmcmap_slice *keys, size_t count,
                                        mmcmap_visit visit, void *context);

/* The number of records in it, with those that had expired and were not swept, and
   what mmcmap_version() was. */
MMCMAP_API uint64_t mmcmap_snapshot_count(const mmcmap_snapshot *snapshot);
MMCMAP_API uint64_t mmcmap_snapshot_version(const mmcmap_snapshot *snapshot);

/* Walks all records of a snapshot once, in no order. */
MMCMAP_API int mmcmap_cursor_open(mmcmap_snapshot *snapshot,
                                  mmcmap_cursor **cursor_out);

/* Points at the next record, without a copy. MMCMAP_NOTFOUND at the end. */
MMCMAP_API int mmcmap_cursor_next(mmcmap_cursor *cursor, mmcmap_slice *key_out,
                                  mmcmap_slice *value_out);

/* The same, but copies; `value_out` may be NULL: the key alone. */
MMCMAP_API int mmcmap_cursor_read(mmcmap_cursor *cursor, mmcmap_buffer *key_out,
                                  mmcmap_buffer *value_out);

/*
 * A token of where the cursor is, for a later cursor, of another snapshot of the
 * same file too, in whatever process: that walks what comes behind in the order of
 * all cursors, which is that of the keys' hashes. So pages that are read one after
 * the other hold every record that is there all the time exactly once. Bytes of no
 * meaning, a few more than the last key has.
 */
MMCMAP_API int mmcmap_cursor_token(mmcmap_cursor *cursor,
                                   mmcmap_buffer *token_out);

/* A cursor that goes on behind a token; an empty one is the beginning.
   MMCMAP_EINVAL: no token of this file. */
MMCMAP_API int mmcmap_cursor_resume(mmcmap_snapshot *snapshot,
                                    mmcmap_slice token,
                                    mmcmap_cursor **cursor_out);
/* NULL is allowed. */
MMCMAP_API void mmcmap_cursor_close(mmcmap_cursor *cursor);

/* The snapshot's trie as indented text, for people, all of it in memory. Its form
   may change with any version. */
MMCMAP_API int mmcmap_snapshot_dump(mmcmap_snapshot *snapshot,
                                    mmcmap_buffer *text_out);

/* ---- The difference between two snapshots ------------------------------- */

/* A record that is not the same in two snapshots: what it was and what it is,
   one of which may be missing. */
typedef struct mmcmap_change {
  mmcmap_slice key;
  bool has_old, has_new;
  mmcmap_slice old_value, new_value; /* empty if missing */
} mmcmap_change;

/*
 * Walks what differs between two snapshots of one store, each key once, in no
 * order; either may be the older one. The time follows the number of differences,
 * whatever the size of the store. What was put again with the same value is no
 * difference, with another time to live neither. What has expired in between is
 * missing in the newer one. In a map whose records have times to live, finding that
 * takes a look at every record, unless it is known that there is none to be found:
 * what had expired was swept (by the thread, or mmcmap_step()) before one of the two was
 * opened, which is not a saved one, and what is left expires later than both. Both
 * snapshots must stay open until the diff is closed.
 * MMCMAP_EINVAL: snapshots of two stores.
 */
MMCMAP_API int mmcmap_diff_open(mmcmap_snapshot *from, mmcmap_snapshot *to,
                                mmcmap_diff **diff_out);

/* Points at the next difference, without a copy, in both snapshots.
   MMCMAP_NOTFOUND at the end; MMCMAP_EEXPIRED, MMCMAP_EFORK: of one of them. */
MMCMAP_API int mmcmap_diff_next(mmcmap_diff *diff, mmcmap_change *change_out);

/* The same, but copies the bytes, one behind the other, into `bytes_out`, which
   `change_out` points into until it is used again. */
MMCMAP_API int mmcmap_diff_read(mmcmap_diff *diff, mmcmap_buffer *bytes_out,
                                mmcmap_change *change_out);

/* NULL is allowed. */
MMCMAP_API void mmcmap_diff_close(mmcmap_diff *diff);

/* ---- Figures ----------------------------------------------------------- */

typedef struct mmcmap_stat {
  uint64_t count;             /* records in the default map */
  uint64_t size_bytes;        /* of the data file */
  uint64_t used_bytes;        /* of it: where what is in use ends */
  uint64_t log_bytes;         /* appended to the log since the first change */
  uint64_t large_bytes;       /* by this process, in values on pages of their
                                 own */
  uint64_t recycled_bytes;    /* by this process, handed out again within an
                                 epoch */
  uint64_t segment_bytes;     /* size of a segment */
  uint64_t segment_count;     /* segments begun */
  uint64_t epoch;             /* the open epoch */
  uint64_t durable_epoch;     /* the newest epoch on disk */
  uint64_t superblock_epoch;  /* the epoch that recovery would start from */
  uint64_t version;           /* as mmcmap_version() */
  uint64_t commit_count;      /* commits since the first process opened it */
  uint64_t sync_count;        /* fdatasync calls since then */
  uint64_t snapshot_count;    /* snapshots open, in all processes */
  uint64_t process_count;     /* processes that have the store open */
  uint64_t reader_count;      /* threads of theirs that have used it */
  uint64_t recovered_commits; /* rolled forward when the store was opened */
  uint64_t max_size_bytes;    /* 0: no limit */
  uint64_t address_bytes;     /* the range of addresses granted: how long the
                                 file can become in this process */
  uint64_t live_bytes;        /* in segments, as counted: it may be too much */
  uint64_t live_segments; /* that something is alive in, or the log goes on */
  uint64_t held_segments; /* of them, that snapshots hold as they are */
  uint64_t uncounted_segments; /* of them, that are to be counted first */
  uint64_t waiting_for_pins; /* segments that are empty, but that a call may be
                                 looking at still, and nothing else keeps, */
  uint64_t waiting_for_snapshots; /* that a snapshot holds, */
  uint64_t waiting_for_commit;    /* or that recovery may need */
  uint64_t free_segments;         /* that will be used next */
  uint64_t hole_segments;         /* of them, whose blocks were given back */
  uint64_t reserve_bytes;         /* that puts leave for what frees space */
  uint64_t moved_bytes; /* by cleaning, since the first process opened it */
  uint64_t cleaned_segments; /* since then */
  int hash;                  /* enum mmcmap_hash_kind */
  int durability;            /* enum mmcmap_durability of this handle */
  bool readonly;
  bool was_clean; /* the store had been closed properly */
} mmcmap_stat;

MMCMAP_API int mmcmap_stat_get(mmcmap *store, mmcmap_stat *stat_out);

/* Who uses the store: a process, or a snapshot that one has open. */
typedef struct mmcmap_reader {
  bool is_snapshot;
  bool is_ours;          /* of this handle's store in this process */
  uint32_t process;      /* its number, as it sees it itself: processes in
                             different pid namespaces may have the same */
  uint32_t thread;       /* that opened the snapshot */
  uint32_t thread_count; /* of a process: threads that have used the store */
  uint32_t pinned_count; /* of them, in a call now */
  uint64_t age_ns;       /* since it was opened */
  uint64_t version;      /* of a snapshot: the epoch of its moment, which is
                             mmcmap_snapshot_version(), or higher if nodes were
                             only moved since that */
  uint64_t held_bytes;   /* of a snapshot: what has been appended to the log
                             since it was opened */
} mmcmap_reader;

/* Calls `visit` for each, a process before its snapshots. Processes that have
   died are not among them. `reader` is good during the call. */
MMCMAP_API int mmcmap_readers(mmcmap *store,
                              void (*visit)(void *context,
                                            const mmcmap_reader *reader),
                              void *context);

/* ---- Upkeep ------------------------------------------------------------- */

/* Called now and then during a long call, on the same thread, `done` of `total`
   being behind it (of no unit); at its end both are equal. Anything but 0 ends
   the call, which returns it. It may use the store, but not close it. */
typedef int (*mmcmap_progress)(void *context, uint64_t done, uint64_t total);

/* Something that is wrong in a file. */
typedef struct mmcmap_fault {
  int code;         /* mostly MMCMAP_ECORRUPT */
  const char *rule; /* of docs/format.md: "F29 record checksum"; a constant
                       string */
  uint64_t offset;  /* in the file */
} mmcmap_fault;

/* Called for each fault that is found; `fault` is good during the call. */
typedef void (*mmcmap_report)(void *context, const mmcmap_fault *fault);

/*
 * Makes the file as small as it can be, while others read and write: moves what is
 * alive together, to its beginning, and gives the rest back. Meanwhile the file may
 * become longer by what is alive, up to 32 MiB, and stays so if it ends halfway. What
 * snapshots hold stays where it is, and as long as any is open, in whatever process,
 * the file does not become shorter. `progress` may be NULL.
 *   MMCMAP_ENOSPC, MMCMAP_EFULL: there is not enough room to begin with;
 *   MMCMAP_EREADONLY; MMCMAP_EBUSY; what `progress` returned: it ends halfway.
 */
MMCMAP_API int mmcmap_compact(mmcmap *store, mmcmap_progress progress,
                              void *context);

/*
 * Compares the store with every rule of its format, while others read and write:
 * all that this moment holds, byte for byte, the superblocks, and the log as far
 * as it is on disk. Never changes anything, and what changes meanwhile is no
 * fault. `progress` and `report` may be NULL.
 *   MMCMAP_OK: all is sound; MMCMAP_ECORRUPT: there are faults, the first of
 *   which mmcmap_last_error() tells; what `progress` returned; MMCMAP_ENOMEM.
 */
MMCMAP_API int mmcmap_check(mmcmap *store, mmcmap_progress progress,
                            mmcmap_report report, void *context);

/*
 * Writes what the store is at this moment to a new store `path`, compact, while
 * others read and write. It is made under a temporary name beside `path`, and has
 * that name once it is whole and on disk; after a crash in between there may be a
 * file `path`.new-... that can be deleted. A store that has the name already is
 * replaced. It has all maps, those without records, too; what has expired is left
 * out, what will expire keeps its time. It has a version of its own, and none of the
 * saved snapshots. Every record's checksum is looked at.
 *   MMCMAP_EINVAL: `path` names the store itself, or the handle is of a named map;
 *   MMCMAP_EEXIST: something that is no store; MMCMAP_EBUSY: a store that somebody
 *   has open; MMCMAP_ECORRUPT: a record is damaged; what `progress` returned; as
 *   mmcmap_open(), mmcmap_put().
 */
MMCMAP_API int mmcmap_backup(mmcmap *store, const char *path,
                             mmcmap_progress progress, void *context);

/*
 * Reads whatever records are whole out of the file `from`, which may be damaged
 * anywhere, into a new store `to`, and gives their number, that of all maps. A map
 * whose name is lost is called "salvaged map " and a number there, and is reported
 * with the rule "a map has lost its name". Saved snapshots are left out, and what has
 * expired. Of a key the current version counts, as far as that can be told; where the
 * part of the log is damaged that tells it, the newest whole version does: what was
 * deleted may come back, and what a transaction had put that was aborted. `report`,
 * unless it is NULL, is called for what is wrong in the file. `from` is only read, and
 * must not be open; nothing is to be seen of `to` until it is whole.
 *   MMCMAP_EFORMAT: nothing of a store is to be seen in it; MMCMAP_EEXIST: there is
 *   a file `to`; MMCMAP_EBUSY: somebody has `from` open; MMCMAP_EINVAL, and as
 *   mmcmap_open(), mmcmap_put().
 */
MMCMAP_API int mmcmap_salvage(const char *from, const char *to,
                              mmcmap_report report, void *context,
                              uint64_t *count_out);

/* ---- Tools ------------------------------------------------------------- */

/* MurmurHash3_x86_32 (Appleby, 2011) of `data`, as the original's users
   know it. */
MMCMAP_API uint32_t mmcmap_murmur3(mmcmap_slice data, uint32_t seed);

/* MMCMAP_VERSION of the library that runs. A constant string. */
MMCMAP_API const char *mmcmap_library_version(void);

#ifdef __cplusplus
}
#endif

#endif
