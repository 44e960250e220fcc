/* SPDX-License-Identifier: MIT */
/*
 * See run.h.
 */
#include "run.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mmcmap.h"

enum {
  SAMPLES_PER_DATA = 10, /* in the time in which the data's size is put */
  WARM_UP_PART = 4,      /* of the work: the first */
  LOOK_EVERY = 16,       /* changes, at the size of the file */
  STEP_EVERY = 64,       /* changes, or */
  STEP_BYTES = 65536,    /* so many bytes that are put: a step, if manual */
  STEP_NS = 1000000,
  SPOT_CHECKS = 16, /* records that are looked up at each sample */
  GRACE_MS = 500    /* in which a record may have expired or not, beside what
                       the slowest call took */
};

struct run {
  const struct plan *plan;
  struct outcome *outcome;
  mmcmap *store;
  struct churn churn;
  unsigned char *value, *expected;
  mmcmap_buffer found;
  uint64_t begin_ns, put_bytes, changes;
  uint64_t appended_before, moved_before, written_before;
  uint64_t size_most;
  uint64_t changes_sampled, changes_stepped, put_stepped;
  struct sample *samples;
  size_t sample_count, sample_room;
  mmcmap_snapshot *snapshot;
  struct record *snapshot_records; /* as they were */
  double snapshot_overhead;        /* live bytes for each byte of record */
};

static mmcmap_slice slice(const void *data, size_t size) {
  mmcmap_slice result = {data, size};
  return result;
}

static mmcmap_stat stat_of(const struct run *run) {
  mmcmap_stat stat;
  must(mmcmap_stat_get(run->store, &stat), "stat");
  return stat;
}

/* ---- Changes -------------------------------------------------------------- */

static void change(struct run *run, const struct change *change,
                   struct latency *latency) {
  struct churn *churn = &run->churn;
  struct record next = {churn->records[change->id].version + 1, change->size};
  char key_bytes[KEY_BYTES];
  uint64_t ttl_ms = churn->load->expires ? run->plan->ttl_ms : 0;
  churn_key(change->id, key_bytes);
  if (change->size > 0) churn_value(change->id, next, run->value);
  mmcmap_slice key = slice(key_bytes, sizeof key_bytes);
  mmcmap_slice value = slice(run->value, change->size);
  /* The record's time begins at some point of the call. */
  struct lap lap = lap_begin();
  uint64_t expires_ns =
      ttl_ms > 0 ? lap.begin_ns + ttl_ms * UINT64_C(1000000) : 0;
  int code = change->size == 0 ? mmcmap_delete(run->store, key)
             : ttl_ms > 0      ? mmcmap_put_ttl(run->store, key, value, ttl_ms)
                               : mmcmap_put(run->store, key, value);
  lap_end(&lap, latency);
  must(code, change->size == 0 ? "delete" : "put");
  churn_done(churn, change, expires_ns);
  if (change->size > 0) run->put_bytes += KEY_BYTES + change->size;
}

/* Fills the store, but for what expires: that begins empty. */
static void fill(struct run *run) {
  static struct latency unused;
  for (uint64_t id = 0; id < run->churn.count && !run->churn.load->expires;
       id++) {
    struct change put = {id, churn_next_size(&run->churn, id)};
    change(run, &put, &unused);
  }
  must(mmcmap_sync(run->store), "sync");
}

/* ---- Checks --------------------------------------------------------------- */

static void check_value(struct run *run, uint64_t id, struct record record,
                        mmcmap_slice value) {
  must_hold(value.size == record.size, "a value of a wrong size");
  churn_value(id, record, run->expected);
  must_hold(memcmp(value.data, run->expected, value.size) == 0,
            "a wrong value");
}

static bool may_have_expired(const struct run *run, uint64_t id) {
  uint64_t now_ns = meter_now_ns(), at_ns = run->churn.expires_ns[id];
  uint64_t grace_ns = GRACE_MS * UINT64_C(1000000);
  return run->churn.load->expires && now_ns + grace_ns > at_ns &&
         at_ns + grace_ns + run->outcome->changes.most_ns > now_ns;
}

static void check_record(struct run *run, uint64_t id) {
  struct record record = run->churn.records[id];
  char key[KEY_BYTES];
  if (may_have_expired(run, id)) return;
  churn_key(id, key);
  int code = mmcmap_get(run->store, slice(key, sizeof key), &run->found);
  if (record.size == 0) {
    must_hold(code == MMCMAP_NOTFOUND, "a record that should not be there");
    return;
  }
  must(code, "get");
  check_value(run, id, record, slice(run->found.data, run->found.size));
}

static uint64_t known_count(const struct run *run) {
  return run->churn.load->expires ? run->churn.position : run->churn.count;
}

static void check_all(struct run *run) {
  uint64_t there = 0, count;
  churn_expire(&run->churn, meter_now_ns());
  for (uint64_t id = 0; id < known_count(run); id++) {
    there += run->churn.records[id].size > 0;
    check_record(run, id);
  }
  must(mmcmap_count(run->store, &count), "count");
  must_hold(run->churn.load->expires || count == there,
            "a wrong number of records");
  must(mmcmap_check(run->store, NULL, NULL, NULL), "check");
}

/* ---- The snapshot --------------------------------------------------------- */

static void open_snapshot(struct run *run) {
  size_t bytes = run->churn.count * sizeof *run->snapshot_records;
  mmcmap_stat stat = stat_of(run);
  must(mmcmap_snapshot_open(run->store, &run->snapshot), "snapshot");
  run->snapshot_records = malloc(bytes);
  must_hold(run->snapshot_records != NULL, "no memory");
  memcpy(run->snapshot_records, run->churn.records, bytes);
  run->snapshot_overhead =
      (double)stat.live_bytes / (double)run->churn.logical_bytes;
  run->outcome->snapshot_before = stat.size_bytes;
}

/* Every byte of it must still be there. */
static void close_snapshot(struct run *run) {
  uint64_t replaced = 0;
  for (uint64_t id = 0; id < run->churn.count; id++) {
    struct record then = run->snapshot_records[id];
    char key[KEY_BYTES];
    mmcmap_slice value;
    churn_key(id, key);
    must(mmcmap_snapshot_get(run->snapshot, slice(key, sizeof key), &value),
         "get from the snapshot");
    check_value(run, id, then, value);
    if (run->churn.records[id].version != then.version)
      replaced += KEY_BYTES + then.size;
  }
  run->outcome->snapshot_held =
      (uint64_t)((double)replaced * run->snapshot_overhead);
  mmcmap_snapshot_close(run->snapshot);
  free(run->snapshot_records);
  run->snapshot = NULL;
}

static void turn_snapshot(struct run *run, double done) {
  if (!run->churn.load->has_snapshot) return;
  if (run->outcome->snapshot_before == 0 && done >= 1.0 / 3) open_snapshot(run);
  if (run->snapshot != NULL && done >= 2.0 / 3) close_snapshot(run);
}

/* ---- Samples -------------------------------------------------------------- */

void run_write_heading(FILE *timeline) {
  fputs("load,level,seconds,changes,work,size_over_alive,size_bytes,"
        "size_most_bytes,block_bytes,live_bytes,alive_bytes,alive_most_bytes,"
        "logical_bytes,"
        "put_bytes,appended_bytes,moved_bytes,written_bytes,used_segments,"
        "held_segments,waiting_segments,free_segments\n",
        timeline);
}

static double ratio(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : (double)part / (double)whole;
}

static void write_sample(const struct run *run, const struct sample *now) {
  const struct plan *plan = run->plan;
  if (plan->timeline == NULL) return;
  fprintf(plan->timeline, "%s,%s,%.3f,%llu,%.3f,%.4f", plan->load->name,
          plan->level, (double)now->ns * 1e-9, (unsigned long long)now->changes,
          ratio(now->put, run->churn.data_bytes),
          ratio(now->size, now->alive_most));
  const uint64_t rest[] = {
      now->size,       now->size_most, now->blocks, now->live,     now->alive,
      now->alive_most, now->logical,   now->put,    now->appended, now->moved,
      now->written,    now->used,      now->held,   now->waiting,  now->free};
  for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
    fprintf(plan->timeline, ",%llu", (unsigned long long)rest[i]);
  fputc('\n', plan->timeline);
}

/* What has expired and is not swept counts as dead: records that expire are all of
   one size. */
static uint64_t alive_of(const struct run *run, const mmcmap_stat *stat) {
  uint64_t there = run->churn.position - run->churn.first_alive;
  if (!run->churn.load->expires || stat->count <= there)
    return stat->live_bytes;
  return (uint64_t)((double)stat->live_bytes * ratio(there, stat->count));
}

/* What was alive while as much was put as there is: where all is deleted in turns,
   the file need not follow at once. */
static uint64_t alive_most(const struct run *run, const struct sample *now) {
  uint64_t most = now->alive;
  for (size_t i = run->sample_count; i > 0; i--) {
    const struct sample *then = &run->samples[i - 1];
    if (then->put + run->churn.data_bytes < now->put) break;
    if (then->alive > most) most = then->alive;
  }
  return most;
}

static void keep_sample(struct run *run, const struct sample *now) {
  if (run->sample_count == run->sample_room) {
    run->sample_room = run->sample_room * 2 + 256;
    run->samples =
        realloc(run->samples, run->sample_room * sizeof *run->samples);
    must_hold(run->samples != NULL, "no memory");
  }
  run->samples[run->sample_count++] = *now;
}

static void take_sample(struct run *run) {
  mmcmap_stat stat = stat_of(run);
  struct sample now = {
      .ns = meter_now_ns() - run->begin_ns,
      .changes = run->changes,
      .put = run->put_bytes,
      .size = stat.size_bytes,
      .size_most =
          stat.size_bytes > run->size_most ? stat.size_bytes : run->size_most,
      .blocks = meter_block_bytes(run->plan->path),
      .live = stat.live_bytes,
      .appended = stat.log_bytes - run->appended_before,
      .moved = stat.moved_bytes - run->moved_before,
      .written = meter_written_bytes() - run->written_before,
      .used = stat.live_segments,
      .free = stat.free_segments,
      .held = stat.held_segments,
      .waiting = stat.waiting_for_pins + stat.waiting_for_snapshots +
                 stat.waiting_for_commit};
  churn_expire(&run->churn, meter_now_ns());
  now.logical = run->churn.logical_bytes;
  now.alive = alive_of(run, &stat);
  now.alive_most = alive_most(run, &now);
  run->size_most = 0;
  if (run->snapshot != NULL && now.size_most > run->outcome->snapshot_most)
    run->outcome->snapshot_most = now.size_most;
  double done = ratio(now.put, run->churn.data_bytes) / run->plan->work;
  double peak = ratio(now.size_most, now.alive_most);
  if (done >= 1.0 / WARM_UP_PART && peak > run->outcome->most_ratio)
    run->outcome->most_ratio = peak;
  keep_sample(run, &now);
  write_sample(run, &now);
  run->outcome->end = now;
  for (int i = 0; i < SPOT_CHECKS && known_count(run) > 0; i++)
    check_record(run, churn_random(&run->churn, known_count(run)));
  turn_snapshot(run, done);
}

/* ---- The churn ------------------------------------------------------------ */

/* As many records in the time that each lives as there are to be. */
static void wait_for_turn(const struct run *run) {
  if (!run->churn.load->expires) return;
  uint64_t each_ns = run->plan->ttl_ms * 1000000 / run->churn.count;
  uint64_t due_ns = run->begin_ns + run->changes * each_ns;
  uint64_t now_ns = meter_now_ns();
  if (now_ns >= due_ns) return;
  struct timespec pause = {(time_t)((due_ns - now_ns) / 1000000000),
                           (long)((due_ns - now_ns) % 1000000000)};
  nanosleep(&pause, NULL);
}

static void step_if_due(struct run *run) {
  if (run->plan->durability != MMCMAP_MANUAL) return;
  if (run->changes - run->changes_stepped < STEP_EVERY &&
      run->put_bytes - run->put_stepped < STEP_BYTES)
    return;
  run->changes_stepped = run->changes;
  run->put_stepped = run->put_bytes;
  struct lap lap = lap_begin();
  int code = mmcmap_step(run->store, STEP_NS);
  lap_end(&lap, &run->outcome->steps);
  must(code, "step");
}

static void look_at_size(struct run *run) {
  uint64_t size;
  if (run->changes % LOOK_EVERY != 0) return;
  must(mmcmap_size(run->store, &size), "size");
  if (size > run->size_most) run->size_most = size;
}

static void work(struct run *run) {
  uint64_t last = (uint64_t)(run->plan->work * (double)run->churn.data_bytes);
  uint64_t every = run->churn.count / SAMPLES_PER_DATA;
  run->put_bytes = 0;
  run->begin_ns = meter_now_ns();
  take_sample(run);
  while (run->put_bytes < last) {
    struct change next;
    wait_for_turn(run);
    run->churn.load->next(&run->churn, &next);
    change(run, &next, &run->outcome->changes);
    run->changes++;
    if (next.size > 0)
      run->outcome->puts++;
    else
      run->outcome->deletes++;
    step_if_due(run);
    look_at_size(run);
    if (run->changes - run->changes_sampled < every) continue;
    run->changes_sampled = run->changes;
    take_sample(run);
  }
  take_sample(run);
}

/* ---- All of it ------------------------------------------------------------ */

static void open_store(struct run *run) {
  mmcmap_options options;
  mmcmap_options_init(&options);
  options.durability = run->plan->durability;
  options.exclusive = true;
  must(mmcmap_open(run->plan->path, &options, &run->store), run->plan->path);
}

static void begin(struct run *run) {
  fill(run);
  mmcmap_stat stat = stat_of(run);
  run->appended_before = stat.log_bytes;
  run->moved_before = stat.moved_bytes;
  run->written_before = meter_written_bytes();
  run->outcome->segment_bytes = stat.segment_bytes;
  run->outcome->records = run->churn.count;
}

static void compact(struct run *run) {
  uint64_t begin_ns = meter_now_ns();
  must(mmcmap_compact(run->store, NULL, NULL), "compact");
  run->outcome->compact_seconds = (double)(meter_now_ns() - begin_ns) * 1e-9;
  mmcmap_stat stat = stat_of(run);
  churn_expire(&run->churn, meter_now_ns());
  run->outcome->compacted_size = stat.size_bytes;
  run->outcome->compacted_live = stat.live_bytes;
  run->outcome->compacted_logical = run->churn.logical_bytes;
  run->outcome->compacted_blocks = meter_block_bytes(run->plan->path);
}

void run_churn(const struct plan *plan, struct outcome *outcome_out) {
  struct run run = {.plan = plan, .outcome = outcome_out};
  memset(outcome_out, 0, sizeof *outcome_out);
  churn_init(&run.churn, plan->load, plan->data_bytes, plan->value_bytes,
             plan->work);
  run.value = malloc(churn_most_bytes(&run.churn));
  run.expected = malloc(churn_most_bytes(&run.churn));
  must_hold(run.value != NULL && run.expected != NULL, "no memory");
  open_store(&run);
  begin(&run);
  work(&run);
  compact(&run);
  check_all(&run);
  must(mmcmap_remove(run.store), "remove");
  churn_free(&run.churn);
  mmcmap_buffer_free(&run.found);
  free(run.samples);
  free(run.expected);
  free(run.value);
}
