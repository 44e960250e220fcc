/* SPDX-License-Identifier: MIT */
/*
 * Area share of the probe: connections to a lock file, without a store. Two of
 * one process are to each other as those of two processes.
 *
 *   connect(path, like)   a connection to the lock file `path`; `like` is the
 *                         path of the data file
 *   private()             one to memory of this process alone
 *   fields                {name = {offset, size}}: the header's words
 * Methods: close, drop_locks, begin_opening, end_opening, is_unused, reset,
 * take_chunk, give_chunk, has_chunk, size, known, id, get, set, join; locks:
 * owner, acquire, try, inherit, release, word, set_word; and those of
 * probe_share_rows.c and probe_share_threads.c.
 *
 * Chunks and rows are counted from 0, as the engine does it. Words of 64 bits
 * are 16 hexadecimal digits, those of 32 are numbers.
 */
#include "probe_share.h"

#include <string.h>

#include "base/errors.h"
#include "os/file.h"
#include "share/owner_lock.h"

struct connection *connection_check(lua_State *L, int arg) {
  struct connection *connection = luaL_checkudata(L, arg, CONNECTION_TYPE);
  luaL_argcheck(L, connection->is_open, arg, "closed");
  return connection;
}

/* ---- Opening and closing ------------------------------------------------- */

static struct connection *connection_new(lua_State *L) {
  /* Tables are found by their address: a userdata does not move. */
  struct connection *connection = lua_newuserdata(L, sizeof *connection);
  memset(connection, 0, sizeof *connection);
  connection->share.fd = -1;
  luaL_getmetatable(L, CONNECTION_TYPE);
  lua_setmetatable(L, -2);
  return connection;
}

static int connection_opened(lua_State *L, struct connection *connection,
                             int code) {
  if (code != MMCMAP_OK) return probe_fail(L, code);
  readers_init(&connection->readers, &connection->share);
  connection->is_open = true;
  return 1;
}

static int share_connect(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  int like_fd;
  int code = file_open(luaL_checkstring(L, 2), true, &like_fd);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  struct connection *connection = connection_new(L);
  code = share_open(path, like_fd, &connection->share);
  mmcmap_error failure;
  mmcmap_last_error(&failure);
  file_close(like_fd);
  if (code != MMCMAP_OK) error_restore(&failure);
  return connection_opened(L, connection, code);
}

static int share_private(lua_State *L) {
  struct connection *connection = connection_new(L);
  return connection_opened(L, connection,
                           share_open_private(&connection->share));
}

static int connection_close(lua_State *L) {
  struct connection *connection = luaL_checkudata(L, 1, CONNECTION_TYPE);
  if (!connection->is_open) return 0;
  connection->is_open = false;
  readers_destroy(&connection->readers);
  share_close(&connection->share);
  return 0;
}

static int connection_drop_locks(lua_State *L) {
  share_drop_locks(&connection_check(L, 1)->share);
  return 0;
}

static int connection_join(lua_State *L) {
  return probe_result(L, readers_join(&connection_check(L, 1)->readers));
}

/* ---- The file ------------------------------------------------------------ */

static int connection_begin_opening(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  uint32_t timeout_ms = (uint32_t)probe_opt_u64(L, 2, 0);
  return probe_result(L, share_begin_opening(&connection->share, timeout_ms));
}

static int connection_end_opening(lua_State *L) {
  share_end_opening(&connection_check(L, 1)->share);
  return 0;
}

static int connection_is_unused(lua_State *L) {
  bool unused;
  int code = share_is_unused(&connection_check(L, 1)->share, &unused);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushboolean(L, unused);
  return 1;
}

static int connection_reset(lua_State *L) {
  return probe_result(L, share_reset(&connection_check(L, 1)->share));
}

/* take_chunk(index): true, false if somebody has it, or as probe_fail(). */
static int connection_take_chunk(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  int code;
  bool taken =
      share_take_chunk(&connection->share, probe_check_u32(L, 2), &code);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushboolean(L, taken);
  return 1;
}

static int connection_give_chunk(lua_State *L) {
  share_give_chunk(&connection_check(L, 1)->share, probe_check_u32(L, 2));
  return 0;
}

static int connection_has_chunk(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  lua_pushboolean(
      L, share_chunk(&connection->share, probe_check_u32(L, 2)) != NULL);
  return 1;
}

/* size(): of the view, and how much of the file is known to be there. */
static int connection_size(lua_State *L) {
  const struct share *share = &connection_check(L, 1)->share;
  lua_pushnumber(L, (lua_Number)share->size_bytes);
  lua_pushnumber(L, (lua_Number)atomic_load(&share->known_bytes));
  return 2;
}

static int connection_id(lua_State *L) {
  probe_push_u64(L, connection_check(L, 1)->share.connection);
  return 1;
}

/* ---- The header's words -------------------------------------------------- */

static const struct share_field {
  const char *name;
  size_t offset;
  size_t size;
} share_fields[] = {
#define SHARE_FIELD(field) \
  { \
#field, offsetof(struct share_header, field), \
        sizeof(((struct share_header *)NULL)->field) \
  }
    SHARE_FIELD(magic),
    SHARE_FIELD(layout),
    SHARE_FIELD(state),
    SHARE_FIELD(boot_id),
    SHARE_FIELD(file_id),
    SHARE_FIELD(device),
    SHARE_FIELD(inode),
    SHARE_FIELD(mount_id),
    SHARE_FIELD(lock_device),
    SHARE_FIELD(lock_inode),
    SHARE_FIELD(chunk_count),
    SHARE_FIELD(live.root),
    SHARE_FIELD(live.tick),
    SHARE_FIELD(live.size_bytes),
    SHARE_FIELD(live.clock_ms),
    SHARE_FIELD(expiry.earliest_ms),
    SHARE_FIELD(expiry.before_ms),
    SHARE_FIELD(expiry.round),
    SHARE_FIELD(expiry.active_ns),
    SHARE_FIELD(expiry.next_ns),
    SHARE_FIELD(sealed.sequence),
    SHARE_FIELD(sealed.count),
    SHARE_FIELD(sealed.epoch),
    SHARE_FIELD(writer_lock.word),
    SHARE_FIELD(change.count),
    SHARE_FIELD(change.changed_epoch),
    SHARE_FIELD(change.intent_slot),
    SHARE_FIELD(change.intent_place),
    SHARE_FIELD(change.intent_count),
    SHARE_FIELD(change.last_writer),
    SHARE_FIELD(change.appended_bytes),
    SHARE_FIELD(change.log_index),
    SHARE_FIELD(log[0].cursor),
    SHARE_FIELD(log[0].epoch),
    SHARE_FIELD(log[0].first_epoch),
    SHARE_FIELD(log[0].salt),
    SHARE_FIELD(log[0].frame_offset),
    SHARE_FIELD(log[0].branch_frame),
    SHARE_FIELD(log[0].branch_cursor),
    SHARE_FIELD(log[0].branch_first),
    SHARE_FIELD(log[0].flags),
    SHARE_FIELD(log[1].cursor),
    SHARE_FIELD(log[1].epoch),
    SHARE_FIELD(log[1].first_epoch),
    SHARE_FIELD(log[1].salt),
    SHARE_FIELD(log[1].frame_offset),
    SHARE_FIELD(log[1].branch_frame),
    SHARE_FIELD(log[1].branch_cursor),
    SHARE_FIELD(log[1].branch_first),
    SHARE_FIELD(log[1].flags),
    SHARE_FIELD(growth_lock.word),
    SHARE_FIELD(commit.leader.word),
    SHARE_FIELD(commit.failed),
    SHARE_FIELD(commit.superblock),
    SHARE_FIELD(commit.durable_epoch),
    SHARE_FIELD(commit.chain_index),
    SHARE_FIELD(commit.recovery_used_bytes),
    SHARE_FIELD(commit.superblock_used_bytes),
    SHARE_FIELD(chain[0].next_offset),
    SHARE_FIELD(chain[1].next_offset),
    SHARE_FIELD(upkeep.compacting_ns),
    SHARE_FIELD(upkeep.compact_epoch),
    SHARE_FIELD(upkeep.is_full),
    SHARE_FIELD(upkeep.commit_bytes),
#undef SHARE_FIELD
};

enum { SHARE_FIELDS = sizeof share_fields / sizeof share_fields[0] };

static const struct share_field *share_check_field(lua_State *L, int arg) {
  const char *name = luaL_checkstring(L, arg);
  for (int i = 0; i < SHARE_FIELDS; i++)
    if (strcmp(name, share_fields[i].name) == 0) return &share_fields[i];
  luaL_argerror(L, arg, "no such field");
  return NULL;
}

/* get(name): a number or 16 digits, by its size; an id as bytes. */
static int connection_get(lua_State *L) {
  const uint8_t *at = connection_check(L, 1)->share.at;
  const struct share_field *field = share_check_field(L, 2);
  uint64_t word;
  uint32_t half;
  at += field->offset;
  if (field->size == sizeof half) {
    memcpy(&half, at, sizeof half);
    lua_pushnumber(L, (lua_Number)half);
  } else if (field->size == sizeof word) {
    memcpy(&word, at, sizeof word);
    probe_push_u64(L, word);
  } else {
    lua_pushlstring(L, (const char *)at, field->size);
  }
  return 1;
}

static int connection_set(lua_State *L) {
  uint8_t *at = connection_check(L, 1)->share.at;
  const struct share_field *field = share_check_field(L, 2);
  at += field->offset;
  if (field->size == sizeof(uint32_t)) {
    uint32_t half = probe_check_u32(L, 3);
    memcpy(at, &half, sizeof half);
  } else if (field->size == sizeof(uint64_t)) {
    uint64_t word = probe_check_u64(L, 3);
    memcpy(at, &word, sizeof word);
  } else {
    size_t size;
    const char *bytes = luaL_checklstring(L, 3, &size);
    luaL_argcheck(L, size == field->size, 3, "not as long as the field");
    memcpy(at, bytes, size);
  }
  return 0;
}

static void share_push_fields(lua_State *L) {
  lua_newtable(L);
  for (int i = 0; i < SHARE_FIELDS; i++) {
    lua_newtable(L);
    lua_pushinteger(L, (lua_Integer)share_fields[i].offset);
    lua_rawseti(L, -2, 1);
    lua_pushinteger(L, (lua_Integer)share_fields[i].size);
    lua_rawseti(L, -2, 2);
    lua_setfield(L, -2, share_fields[i].name);
  }
}

/* ---- Locks --------------------------------------------------------------- */

struct share_lock *connection_lock(lua_State *L, struct connection *connection,
                                   int arg) {
  static const char *const names[] = {"writer", "growth", "leader", NULL};
  struct share_header *header = connection->share.header;
  struct share_lock *locks[] = {&header->writer_lock, &header->growth_lock,
                                &header->commit.leader};
  return locks[luaL_checkoption(L, arg, "writer", names)];
}

int connection_push_acquired(lua_State *L, int code, bool inherited) {
  if (code != MMCMAP_OK) return probe_fail(L, code);
  lua_pushboolean(L, inherited);
  return 1;
}

static uint32_t connection_owner_here(lua_State *L,
                                      struct connection *connection) {
  uint32_t owner;
  int code = readers_owner(&connection->readers, &owner);
  if (code != MMCMAP_OK) luaL_error(L, "%s", mmcmap_error_name(code));
  return owner;
}

/* owner(): what names this thread in a lock. */
static int connection_owner(lua_State *L) {
  lua_pushnumber(L,
                 (lua_Number)connection_owner_here(L, connection_check(L, 1)));
  return 1;
}

/* acquire(timeout_ms [, lock]) */
static int connection_acquire(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  struct share_lock *lock = connection_lock(L, connection, 3);
  bool inherited;
  int code = owner_lock_acquire(&connection->readers, lock,
                                connection_owner_here(L, connection),
                                probe_check_u32(L, 2), &inherited);
  return connection_push_acquired(L, code, inherited);
}

/* try([lock]): whether it was taken, and whether inherited. */
static int connection_try(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  struct share_lock *lock = connection_lock(L, connection, 2);
  bool inherited;
  lua_pushboolean(L, owner_lock_try(lock, connection_owner_here(L, connection),
                                    &inherited));
  lua_pushboolean(L, inherited);
  return 2;
}

/* inherit([lock]): whether its owner was dead, and it was taken over. */
static int connection_inherit(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  struct share_lock *lock = connection_lock(L, connection, 2);
  lua_pushboolean(L, owner_lock_inherit(&connection->readers, lock,
                                        connection_owner_here(L, connection)));
  return 1;
}

static int connection_release(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  owner_lock_release(connection_lock(L, connection, 2));
  return 0;
}

/* word([lock]): who owns it, and whether somebody may wait; "dead" if its owner
   has left it. */
static int connection_word(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  uint32_t word = atomic_load(&connection_lock(L, connection, 2)->word);
  uint32_t owner = word & ~OWNER_LOCK_WAITED;
  if (owner == OWNER_LOCK_DEAD)
    lua_pushliteral(L, "dead");
  else
    lua_pushnumber(L, (lua_Number)owner);
  lua_pushboolean(L, (word & OWNER_LOCK_WAITED) != 0);
  return 2;
}

/* set_word(number or "dead" [, lock]) */
static int connection_set_word(lua_State *L) {
  struct connection *connection = connection_check(L, 1);
  uint32_t word =
      lua_type(L, 2) == LUA_TNUMBER ? probe_check_u32(L, 2) : OWNER_LOCK_DEAD;
  atomic_store(&connection_lock(L, connection, 3)->word, word);
  return 0;
}

/* ---- Registration -------------------------------------------------------- */

void probe_share_open(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"close", connection_close},
      {"drop_locks", connection_drop_locks},
      {"join", connection_join},
      {"begin_opening", connection_begin_opening},
      {"end_opening", connection_end_opening},
      {"is_unused", connection_is_unused},
      {"reset", connection_reset},
      {"take_chunk", connection_take_chunk},
      {"give_chunk", connection_give_chunk},
      {"has_chunk", connection_has_chunk},
      {"size", connection_size},
      {"id", connection_id},
      {"get", connection_get},
      {"set", connection_set},
      {"owner", connection_owner},
      {"acquire", connection_acquire},
      {"try", connection_try},
      {"inherit", connection_inherit},
      {"release", connection_release},
      {"word", connection_word},
      {"set_word", connection_set_word},
      {"__gc", connection_close},
      {NULL, NULL},
  };
  luaL_newmetatable(L, CONNECTION_TYPE);
  luaL_setfuncs(L, methods, 0);
  probe_share_rows_methods(L);
  probe_share_threads_methods(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
  probe_share_threads_open(L);
  lua_pushcfunction(L, share_connect);
  lua_setfield(L, -2, "connect");
  lua_pushcfunction(L, share_private);
  lua_setfield(L, -2, "private");
  share_push_fields(L);
  lua_setfield(L, -2, "fields");
}
