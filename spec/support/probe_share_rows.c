/* SPDX-License-Identifier: MIT */
/*
 * The reader table of a connection, part of area share of the probe.
 *
 *   pin, unpin, tick, advance, bury_dead      of this thread, of this process
 *   chunk(index)          {state, row_limit, process, is_further, since_ns}, or
 *                         nil if it does not lie in the file
 *   row(chunk, index)     {pin, snapshot, since_ns, limit_ns, log_bytes, thread,
 *                         depth, owned}; set_row(chunk, index, fields)
 *   claim_snapshot(limit_ns)   a row, to be named, has_snapshot, give_back and
 *                         end_if_old; place(row): its chunk and index
 *   end_old               of all processes
 *   report()              a table for each entry of readers_report()
 */
#include <string.h>

#include "base/errors.h"
#include "os/process.h"
#include "probe_fields.h"
#include "probe_share.h"

static int rows_change(lua_State *L, bool pin) {
  struct readers *readers = &connection_check(L, 1)->readers;
  struct share_row *row;
  int code = readers_row(readers, &row);
  if (code == MMCMAP_OK && pin) readers_pin(readers, row);
  if (code == MMCMAP_OK && !pin) readers_unpin(row);
  return probe_result(L, code);
}

static int rows_pin(lua_State *L) { return rows_change(L, true); }
static int rows_unpin(lua_State *L) { return rows_change(L, false); }

static int rows_tick(lua_State *L) {
  lua_pushnumber(L, (lua_Number)readers_tick(&connection_check(L, 1)->readers));
  return 1;
}

static int rows_advance(lua_State *L) {
  lua_pushnumber(L,
                 (lua_Number)readers_advance(&connection_check(L, 1)->readers));
  return 1;
}

static int rows_bury_dead(lua_State *L) {
  readers_bury_dead(&connection_check(L, 1)->readers);
  return 0;
}

/* ---- Chunks and rows ----------------------------------------------------- */

static struct share_chunk *rows_chunk_at(lua_State *L, int arg) {
  return share_chunk(&connection_check(L, 1)->share, probe_check_u32(L, arg));
}

static void rows_set_number(lua_State *L, const char *name, uint64_t value) {
  lua_pushnumber(L, (lua_Number)value);
  lua_setfield(L, -2, name);
}

static int rows_chunk(lua_State *L) {
  const struct share_chunk *chunk = rows_chunk_at(L, 2);
  if (chunk == NULL) return 0;
  lua_newtable(L);
  rows_set_number(L, "state", atomic_load(&chunk->state));
  rows_set_number(L, "row_limit", atomic_load(&chunk->row_limit));
  rows_set_number(L, "process", atomic_load(&chunk->process));
  rows_set_number(L, "is_further", atomic_load(&chunk->is_further));
  rows_set_number(L, "since_ns", atomic_load(&chunk->since_ns));
  return 1;
}

static struct share_row *rows_row_at(lua_State *L) {
  struct share_chunk *chunk = rows_chunk_at(L, 2);
  uint32_t index = probe_check_u32(L, 3);
  luaL_argcheck(L, chunk != NULL, 2, "not in the file");
  luaL_argcheck(L, index < SHARE_ROWS_PER_CHUNK, 3, "no such row");
  return &chunk->rows[index];
}

static int rows_row(lua_State *L) {
  const struct share_row *row = rows_row_at(L);
  lua_newtable(L);
  rows_set_number(L, "pin", atomic_load(&row->pin));
  fields_set_u64(L, "snapshot", atomic_load(&row->snapshot));
  rows_set_number(L, "since_ns", atomic_load(&row->since_ns));
  rows_set_number(L, "limit_ns", atomic_load(&row->limit_ns));
  rows_set_number(L, "log_bytes", atomic_load(&row->log_bytes));
  rows_set_number(L, "thread", atomic_load(&row->thread));
  rows_set_number(L, "depth", row->depth);
  rows_set_number(L, "owned", atomic_load(&row->owned));
  return 1;
}

/* The field's value in the table at 4, or `otherwise`. */
static uint64_t rows_field(lua_State *L, const char *name, uint64_t otherwise) {
  lua_getfield(L, 4, name);
  uint64_t value = probe_opt_u64(L, lua_gettop(L), otherwise);
  lua_pop(L, 1);
  return value;
}

static int rows_set_row(lua_State *L) {
  struct share_row *row = rows_row_at(L);
  luaL_checktype(L, 4, LUA_TTABLE);
  atomic_store(&row->pin, rows_field(L, "pin", row->pin));
  atomic_store(&row->snapshot, rows_field(L, "snapshot", row->snapshot));
  atomic_store(&row->since_ns, rows_field(L, "since_ns", row->since_ns));
  atomic_store(&row->limit_ns, rows_field(L, "limit_ns", row->limit_ns));
  return 0;
}

/* ---- Snapshots ----------------------------------------------------------- */

static int rows_claim_snapshot(lua_State *L) {
  struct readers *readers = &connection_check(L, 1)->readers;
  struct share_row *row;
  int code = readers_claim_snapshot(readers, probe_opt_u64(L, 2, 0), &row);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushlightuserdata(L, row);
  return 1;
}

static struct share_row *rows_check_claimed(lua_State *L) {
  luaL_checktype(L, 2, LUA_TLIGHTUSERDATA);
  return lua_touserdata(L, 2);
}

/* name_snapshot(row, epoch): its mark. */
static int rows_name_snapshot(lua_State *L) {
  struct share_row *row = rows_check_claimed(L);
  uint64_t mark = share_mark(row, probe_check_u64(L, 3));
  atomic_store(&row->snapshot, mark);
  probe_push_u64(L, mark);
  return 1;
}

/* has_snapshot(row, mark) */
static int rows_has_snapshot(lua_State *L) {
  lua_pushboolean(
      L, readers_has_snapshot(rows_check_claimed(L), probe_check_u64(L, 3)));
  return 1;
}

static int rows_give_back_snapshot(lua_State *L) {
  readers_give_back_snapshot(&connection_check(L, 1)->readers,
                             rows_check_claimed(L));
  return 0;
}

/* end_if_old(row, now_ns) */
static int rows_end_if_old(lua_State *L) {
  readers_end_if_old(rows_check_claimed(L), probe_check_u64(L, 3));
  return 0;
}

static int rows_end_old(lua_State *L) {
  readers_end_old_snapshots(&connection_check(L, 1)->readers);
  return 0;
}

/* place(row): its chunk and index. */
static int rows_place(lua_State *L) {
  const struct connection *connection = connection_check(L, 1);
  uint32_t line =
      readers_owner_of_row(&connection->readers, rows_check_claimed(L)) -
      SHARE_HEADER_BYTES / SHARE_LINE_BYTES;
  const uint32_t lines = SHARE_CHUNK_BYTES / SHARE_LINE_BYTES;
  lua_pushinteger(L, (lua_Integer)(line / lines));
  lua_pushinteger(L, (lua_Integer)(line % lines) - 1);
  return 2;
}

/* ---- The report ---------------------------------------------------------- */

struct rows_report {
  lua_State *L;
  int count;
};

static void rows_visit(void *context, const struct readers_entry *entry) {
  struct rows_report *report = context;
  lua_State *L = report->L;
  lua_newtable(L);
  lua_pushboolean(L, entry->is_snapshot);
  lua_setfield(L, -2, "is_snapshot");
  lua_pushboolean(L, entry->is_ours);
  lua_setfield(L, -2, "is_ours");
  rows_set_number(L, "process", entry->process);
  rows_set_number(L, "thread", entry->thread);
  rows_set_number(L, "thread_rows", entry->thread_rows);
  rows_set_number(L, "pinned_rows", entry->pinned_rows);
  rows_set_number(L, "since_ns", entry->since_ns);
  rows_set_number(L, "epoch", entry->epoch);
  rows_set_number(L, "log_bytes", entry->log_bytes);
  lua_rawseti(L, -2, ++report->count);
}

static int rows_do_report(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  struct rows_report report = {.L = L, .count = 0};
  lua_newtable(L);
  readers_report(&connection->readers, rows_visit, &report);
  return 1;
}

void probe_share_rows_methods(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"pin", rows_pin},
      {"unpin", rows_unpin},
      {"tick", rows_tick},
      {"advance", rows_advance},
      {"bury_dead", rows_bury_dead},
      {"chunk", rows_chunk},
      {"row", rows_row},
      {"set_row", rows_set_row},
      {"claim_snapshot", rows_claim_snapshot},
      {"name_snapshot", rows_name_snapshot},
      {"has_snapshot", rows_has_snapshot},
      {"give_back_snapshot", rows_give_back_snapshot},
      {"end_if_old", rows_end_if_old},
      {"end_old", rows_end_old},
      {"place", rows_place},
      {"report", rows_do_report},
      {NULL, NULL},
  };
  luaL_setfuncs(L, methods, 0);
}
