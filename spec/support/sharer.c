/* SPDX-License-Identifier: MIT */
/*
 * Processes that share a store: a program that needs nothing but mmcmap.h, so
 * that other C libraries and link modes can build it, too (tools/check-musl).
 *
 *   sharer write PATH NAME FIRST LAST    puts keys of NAME
 *   sharer crash PATH NAME FIRST LAST    the same, not synced, and is killed
 *   sharer check PATH NAME FIRST LAST    whether they are all there
 *   sharer crowd PATH MILLISECONDS READERS
 *       a writer, and readers that are forked off it and use its handle: what
 *       they read is whole and never goes back, and a snapshot is one moment
 *   sharer forks PATH CHILDREN THREADS
 *       forks children, one after the other, while threads write: each reads
 *       and writes through the inherited handle, and finds the inherited
 *       snapshot refused
 *   sharer starved PATH
 *       openings that take over from a dead process, each of which lacks memory at
 *       another moment: none loses anything
 *   sharer quiet PATH KEYS READS
 *       reads of all kinds, which may call nothing of the system, on pain of
 *       death by the kernel, and allocate nothing
 *
 * Exit status 0, or 1 and what was wrong; 77: it cannot be tried here.
 */
#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mmcmap.h"
#include "quiet_fork.h"

enum {
  PATIENCE_SECONDS = 120,
  CROWD_KEYS = 64,       /* written in turn */
  CROWD_GETS_MIN = 1000, /* however slow the machine is */
  THREADS_MAX = 16,
  THREAD_KEYS = 32, /* of each writing thread, in turn */
  FILL_BYTES_MAX = 700,
  HEADER_BYTES = 16,
  EXIT_SKIP = 77
};

/* Of FILL_BYTES_MAX, as many bytes as the number says. */
struct value {
  uint64_t number; /* of the put */
  uint32_t key;
  uint32_t fill_bytes;
  uint8_t fill[FILL_BYTES_MAX];
};

_Static_assert(offsetof(struct value, fill) == HEADER_BYTES, "no holes");

/* A page that all processes see. */
struct board {
  atomic_bool stops;
  _Atomic uint64_t gets;
  _Atomic uint64_t done[THREADS_MAX]; /* the number of the last finished put */
};

static mmcmap *store;
static struct board *board;

/* ---- Telling --------------------------------------------------------------- */

static _Noreturn void fail(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
static _Noreturn void fail(const char *format, ...) {
  va_list arguments;
  printf("FAULT in process %ld: ", (long)getpid());
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  printf("\n");
  fflush(stdout);
  _exit(1);
}

static void expect(int code, int wanted, const char *what) {
  mmcmap_error last;
  if (code == wanted) return;
  mmcmap_last_error(&last);
  fail("%s: %s, not %s (%s, errno %d)", what, mmcmap_error_name(code),
       mmcmap_error_name(wanted),
       last.code == code && last.what ? last.what : "",
       last.code == code ? last.system_errno : 0);
}

static uint64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static unsigned long number_of(const char *text) {
  char *end;
  unsigned long number = strtoul(text, &end, 10);
  if (end == text || *end != '\0') fail("%s is no number", text);
  return number;
}

static void open_store(const char *path, int durability) {
  mmcmap_options options;
  mmcmap_options_init(&options);
  options.durability = durability;
  options.timeout_ms = 60000;
  expect(mmcmap_open(path, &options, &store), MMCMAP_OK, "open");
}

static void open_board(void) {
  board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (board == MAP_FAILED) fail("mmap: %s", strerror(errno));
}

/* ---- Keys and values ------------------------------------------------------- */

static mmcmap_slice key_of(const char *name, unsigned long number,
                           char text[64]) {
  int size = snprintf(text, 64, "%.40s %lu", name, number);
  return (mmcmap_slice){.data = text, .size = (size_t)size};
}

static uint8_t fill_byte(uint64_t number, uint32_t key, uint32_t i) {
  return (uint8_t)(number * 31 + key * 7 + i * 13);
}

static void put_value(const char *name, uint32_t key, uint64_t number) {
  char text[64];
  struct value value = {.number = number, .key = key};
  value.fill_bytes = (uint32_t)(number * 2654435761u % FILL_BYTES_MAX);
  for (uint32_t i = 0; i < value.fill_bytes; i++)
    value.fill[i] = fill_byte(number, key, i);
  mmcmap_slice slice = {.data = &value,
                        .size = HEADER_BYTES + value.fill_bytes};
  expect(mmcmap_put(store, key_of(name, key, text), slice), MMCMAP_OK, "put");
}

/* The value's number, if all of it is as put_value() made it. */
static uint64_t number_in(const char *name, uint32_t key, mmcmap_slice got) {
  struct value value;
  if (got.size < HEADER_BYTES || got.size > sizeof value)
    fail("%s %u has %zu bytes", name, key, got.size);
  memcpy(&value, got.data, got.size);
  if (value.key != key || value.fill_bytes != got.size - HEADER_BYTES)
    fail("%s %u has the head of another value", name, key);
  for (uint32_t i = 0; i < value.fill_bytes; i++)
    if (value.fill[i] != fill_byte(value.number, key, i))
      fail("%s %u is not whole at byte %u", name, key, i);
  return value.number;
}

static uint64_t get_number(const char *name, uint32_t key) {
  static _Thread_local mmcmap_buffer buffer;
  char text[64];
  expect(mmcmap_get(store, key_of(name, key, text), &buffer), MMCMAP_OK, "get");
  return number_in(name, key,
                   (mmcmap_slice){.data = buffer.data, .size = buffer.size});
}

/* ---- Write, crash, check --------------------------------------------------- */

static void write_keys(const char *name, unsigned long first,
                       unsigned long last) {
  for (unsigned long i = first; i <= last; i++)
    put_value(name, (uint32_t)i, i);
}

static void check_keys(const char *name, unsigned long first,
                       unsigned long last) {
  for (unsigned long i = first; i <= last; i++)
    if (get_number(name, (uint32_t)i) != i) fail("%s %lu is another", name, i);
}

/* ---- Crowd ----------------------------------------------------------------- */

/* The numbers of all keys lie within one round of the writer's. */
static void read_snapshot(void) {
  mmcmap_snapshot *snapshot;
  uint64_t least = UINT64_MAX, most = 0;
  expect(mmcmap_snapshot_open(store, &snapshot), MMCMAP_OK, "snapshot");
  for (uint32_t key = 0; key < CROWD_KEYS; key++) {
    char text[64];
    mmcmap_slice got;
    expect(mmcmap_snapshot_get(snapshot, key_of("key", key, text), &got),
           MMCMAP_OK, "snapshot_get");
    uint64_t number = number_in("key", key, got);
    if (number < least) least = number;
    if (number > most) most = number;
  }
  if (most - least >= CROWD_KEYS)
    fail("a snapshot of two moments: %llu and %llu", (unsigned long long)least,
         (unsigned long long)most);
  mmcmap_snapshot_close(snapshot);
}

static _Noreturn void read_crowd(uint32_t reader) {
  uint64_t seen[CROWD_KEYS] = {0};
  alarm(PATIENCE_SECONDS);
  for (uint64_t i = reader; !atomic_load(&board->stops); i += 7) {
    uint32_t key = (uint32_t)(i % CROWD_KEYS);
    uint64_t number = get_number("key", key);
    if (number < seen[key]) fail("key %u went back", key);
    seen[key] = number;
    if (i % 16 == 0) read_snapshot();
    atomic_fetch_add(&board->gets, 1);
  }
  expect(mmcmap_close(store), MMCMAP_OK, "close in a reader");
  _exit(0);
}

static int wait_for(pid_t child) {
  int status;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) fail("waitpid: %s", strerror(errno));
  if (WIFSIGNALED(status)) {
    printf("FAULT: a child died of signal %d\n", WTERMSIG(status));
    return 1;
  }
  return WEXITSTATUS(status);
}

static pid_t fork_child(void) {
  fflush(stdout);
  pid_t child = quiet_fork();
  if (child < 0) fail("fork: %s", strerror(errno));
  return child;
}

static int crowd(const char *path, unsigned long ms, unsigned long readers) {
  pid_t children[256];
  uint64_t number = 0;
  int status = 0;
  if (readers < 1 || readers > 256) fail("1 to 256 readers");
  alarm(PATIENCE_SECONDS + (unsigned)ms / 1000);
  open_store(path, MMCMAP_ASYNC);
  open_board();
  for (uint32_t key = 0; key < CROWD_KEYS; key++)
    put_value("key", key, ++number);
  for (unsigned long i = 0; i < readers; i++) {
    children[i] = fork_child();
    if (children[i] == 0) read_crowd((uint32_t)i);
  }
  for (uint64_t end_ms = now_ms() + ms;
       now_ms() < end_ms || atomic_load(&board->gets) < CROWD_GETS_MIN;)
    for (uint32_t key = 0; key < CROWD_KEYS; key++)
      put_value("key", key, ++number);
  atomic_store(&board->stops, true);
  for (unsigned long i = 0; i < readers; i++)
    status |= wait_for(children[i]);
  expect(mmcmap_close(store), MMCMAP_OK, "close");
  printf("puts %llu gets %llu\n", (unsigned long long)number,
         (unsigned long long)atomic_load(&board->gets));
  return status;
}

/* ---- Forks ----------------------------------------------------------------- */

static const char *const thread_names[THREADS_MAX] = {
    "a", "b", "c", "d", "e", "f", "g", "h",
    "i", "j", "k", "l", "m", "n", "o", "p"};

static void *write_thread(void *context) {
  size_t thread = (size_t)context;
  for (uint64_t number = THREAD_KEYS; !atomic_load(&board->stops); number++) {
    put_value(thread_names[thread], (uint32_t)(number % THREAD_KEYS), number);
    atomic_store(&board->done[thread], number);
  }
  return NULL;
}

static _Noreturn void forked(unsigned long child, unsigned long threads,
                             mmcmap_snapshot *snapshot) {
  char text[64];
  mmcmap_slice got;
  alarm(PATIENCE_SECONDS);
  if (child % 4 == 0) _exit(0); /* one that never touches the store */
  for (size_t thread = 0; thread < threads; thread++) {
    uint64_t done = atomic_load(&board->done[thread]);
    uint32_t key = (uint32_t)(done % THREAD_KEYS);
    if (get_number(thread_names[thread], key) < done)
      fail("%s %u is older than a put that had returned", thread_names[thread],
           key);
  }
  put_value("child", (uint32_t)child, child);
  if (get_number("child", (uint32_t)child) != child)
    fail("its own put is lost");
  if (snapshot != NULL) {
    expect(mmcmap_snapshot_get(snapshot, key_of("first", 1, text), &got),
           MMCMAP_EFORK, "an inherited snapshot");
    mmcmap_snapshot_close(snapshot);
  }
  if (child % 2 == 0)
    expect(mmcmap_close(store), MMCMAP_OK, "close in a child");
  _exit(0);
}

static int forks(const char *path, unsigned long children,
                 unsigned long threads) {
  pthread_t handles[THREADS_MAX];
  mmcmap_snapshot *snapshot;
  char text[64];
  mmcmap_slice got;
  int status = 0;
  if (threads > THREADS_MAX) fail("at most %d threads", THREADS_MAX);
  open_store(path, MMCMAP_ASYNC);
  open_board();
  for (size_t i = 0; i < threads; i++)
    write_keys(thread_names[i], 0, THREAD_KEYS - 1);
  put_value("first", 1, 1);
  expect(mmcmap_snapshot_open(store, &snapshot), MMCMAP_OK, "snapshot");
  put_value("first", 1, 2);
  for (size_t i = 0; i < threads; i++)
    if (pthread_create(&handles[i], NULL, write_thread, (void *)i) != 0)
      fail("pthread_create");

  for (unsigned long i = 1; i <= children; i++) {
    pid_t child = fork_child();
    if (child == 0) forked(i, threads, snapshot);
    status |= wait_for(child);
    if (i % 4 != 0 && get_number("child", (uint32_t)i) != i)
      fail("child %lu's put is lost", i);
    expect(mmcmap_snapshot_get(snapshot, key_of("first", 1, text), &got),
           MMCMAP_OK, "the parent's snapshot");
    if (number_in("first", 1, got) != 1) fail("the snapshot has changed");
  }
  atomic_store(&board->stops, true);
  for (size_t i = 0; i < threads; i++)
    pthread_join(handles[i], NULL);
  mmcmap_snapshot_close(snapshot);
  expect(mmcmap_close(store), MMCMAP_OK, "close");
  return status;
}

/* ---- Memory ------------------------------------------------------------------ */

/* The linker gives these the calls of all of the program. */
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *memory, size_t size);

static _Atomic uint64_t allocations;
static _Atomic uint64_t refused; /* the one that fails; 0: none */

static bool may_allocate(void) {
  uint64_t number = atomic_fetch_add(&allocations, 1) + 1;
  if (number != atomic_load(&refused)) return true;
  errno = ENOMEM;
  return false;
}

void *__wrap_malloc(size_t size) {
  return may_allocate() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size) {
  return may_allocate() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *memory, size_t size) {
  return may_allocate() ? __real_realloc(memory, size) : NULL;
}

/* A process puts two keys, commits the first, and dies. The next opening is refused
   one allocation; the one after it finds both keys. Whether there was such an
   allocation. */
static bool starve(const char *path, unsigned long round) {
  fflush(stdout);
  pid_t child = fork();
  if (child < 0) fail("fork: %s", strerror(errno));
  if (child == 0) {
    open_store(path, MMCMAP_MANUAL);
    write_keys("starved", 2 * round - 1, 2 * round - 1);
    expect(mmcmap_sync(store), MMCMAP_OK, "sync");
    write_keys("starved", 2 * round, 2 * round);
    raise(SIGKILL);
  }
  waitpid(child, NULL, 0);
  atomic_store(&refused, atomic_load(&allocations) + round);
  int code = mmcmap_open(path, NULL, &store);
  bool was_refused = atomic_load(&allocations) >= atomic_load(&refused);
  atomic_store(&refused, 0);
  if (code == MMCMAP_ENOMEM)
    open_store(path, MMCMAP_MANUAL);
  else
    expect(code, MMCMAP_OK, "open without memory");
  check_keys("starved", 1, 2 * round);
  expect(mmcmap_close(store), MMCMAP_OK, "close");
  return was_refused;
}

static int starved(const char *path) {
  unsigned long round = 1;
  while (starve(path, round))
    round++;
  printf("allocations %lu\n", round - 1);
  return 0;
}

/* ---- Reads that call nothing ------------------------------------------------ */

static int visit_nothing(void *context, size_t index, mmcmap_slice value) {
  (void)index;
  *(size_t *)context += value.size;
  return MMCMAP_OK;
}

/* One read of each kind; whether the key is there. */
static bool read_all_ways(mmcmap_snapshot *snapshot, mmcmap_slice key,
                          mmcmap_buffer *value) {
  mmcmap_slice sealed;
  uint64_t count;
  size_t bytes = 0;
  int code = mmcmap_get(store, key, value);
  bool agree =
      mmcmap_has(store, key) == code &&
      mmcmap_snapshot_get(snapshot, key, &sealed) == code &&
      mmcmap_get_many(store, &key, 1, visit_nothing, &bytes) == MMCMAP_OK &&
      mmcmap_count(store, &count) == MMCMAP_OK;
  if (!agree) raise(SIGKILL); /* nothing more could be said */
  return code == MMCMAP_OK;
}

static int quiet(const char *path, unsigned long keys, unsigned long reads) {
  mmcmap_snapshot *snapshot;
  mmcmap_buffer value = {.data = NULL};
  unsigned long found = 0;
  char text[64];
  open_store(path, MMCMAP_MANUAL);
  write_keys("quiet", 1, keys);
  expect(mmcmap_snapshot_open(store, &snapshot), MMCMAP_OK, "snapshot");
  /* A thread's first read claims its row, and the largest value makes room. */
  for (unsigned long i = 1; i <= keys; i++)
    (void)read_all_ways(snapshot, key_of("quiet", i, text), &value);
  uint64_t before = atomic_load(&allocations);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) return EXIT_SKIP;
  for (unsigned long i = 1; i <= reads; i++)
    found += read_all_ways(snapshot, key_of("quiet", i, text), &value);
  if (found != keys || atomic_load(&allocations) != before) raise(SIGKILL);
  syscall(SYS_exit, 0); /* that of a thread: no other may be called */
  return 1;
}

/* ---- The command line ------------------------------------------------------ */

int main(int argc, char **argv) {
  const char *command = argc > 2 ? argv[1] : "";
  alarm(PATIENCE_SECONDS);
  if (argc == 3 && strcmp(command, "starved") == 0) return starved(argv[2]);
  if (argc == 5 && strcmp(command, "crowd") == 0)
    return crowd(argv[2], number_of(argv[3]), number_of(argv[4]));
  if (argc == 5 && strcmp(command, "forks") == 0)
    return forks(argv[2], number_of(argv[3]), number_of(argv[4]));
  if (argc == 5 && strcmp(command, "quiet") == 0)
    return quiet(argv[2], number_of(argv[3]), number_of(argv[4]));
  bool crashes = strcmp(command, "crash") == 0;
  bool checks = strcmp(command, "check") == 0;
  if (argc != 6 || (!crashes && !checks && strcmp(command, "write") != 0)) {
    printf("see the head of spec/support/sharer.c\n");
    return 2;
  }
  open_store(argv[2], crashes ? MMCMAP_MANUAL : MMCMAP_ASYNC);
  if (checks)
    check_keys(argv[3], number_of(argv[4]), number_of(argv[5]));
  else
    write_keys(argv[3], number_of(argv[4]), number_of(argv[5]));
  if (crashes) raise(SIGKILL);
  expect(mmcmap_close(store), MMCMAP_OK, "close");
  return 0;
}
