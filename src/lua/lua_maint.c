/* SPDX-License-Identifier: MIT */
/*
 * The engine calls back in the middle of these: what Lua's function raises then
 * is caught, ends the call of the engine, and is raised again when that has
 * returned. Until then the store cannot be closed.
 */
#include "lua_maint.h"

#include "failure.h"

#include <string.h>

enum { MAINT_FAULTS_MAX = 256 };

/* One call. It lies in a userdata: the list is long. */
struct maint {
  lua_State *L;
  int progress; /* index of the function; 0: none */
  bool has_raised;
  uint64_t fault_count; /* all of them; the first are kept */
  mmcmap_fault faults[MAINT_FAULTS_MAX];
};

/* Pushes a new one, for the function at `progress`, which may be nil. */
static struct maint *maint_new(lua_State *L, int progress) {
  if (lua_isnoneornil(L, progress))
    progress = 0;
  else
    luaL_checktype(L, progress, LUA_TFUNCTION);
  struct maint *maint = lua_newuserdata(L, sizeof *maint);
  maint->L = L;
  maint->progress = progress;
  maint->has_raised = false;
  maint->fault_count = 0;
  luaL_checkstack(L, LUA_MINSTACK, "progress");
  return maint;
}

/* An error stays on the stack. */
static int maint_progress(void *context, uint64_t done, uint64_t total) {
  struct maint *maint = context;
  lua_State *L = maint->L;
  if (!maint->progress) return MMCMAP_OK;
  lua_pushvalue(L, maint->progress);
  compat_push_u64(L, done);
  compat_push_u64(L, total);
  maint->has_raised = lua_pcall(L, 2, 0, 0) != 0;
  return maint->has_raised ? MMCMAP_EINVAL : MMCMAP_OK;
}

static void maint_report(void *context, const mmcmap_fault *fault) {
  struct maint *maint = context;
  if (maint->fault_count < MAINT_FAULTS_MAX)
    maint->faults[maint->fault_count] = *fault;
  maint->fault_count++;
}

/* Pushes the report as a table. */
static void maint_push_report(lua_State *L, const struct maint *maint) {
  lua_newtable(L);
  for (int i = 0; i < MAINT_FAULTS_MAX && (uint64_t)i < maint->fault_count;
       i++) {
    const mmcmap_fault *fault = &maint->faults[i];
    lua_createtable(L, 0, 3);
    lua_pushstring(L, mmcmap_error_name(fault->code));
    lua_setfield(L, -2, "code");
    lua_pushstring(L, fault->rule ? fault->rule : "");
    lua_setfield(L, -2, "rule");
    compat_push_u64(L, fault->offset);
    lua_setfield(L, -2, "offset");
    lua_rawseti(L, -2, i + 1);
  }
  compat_push_u64(L, maint->fault_count);
  lua_setfield(L, -2, "count");
}

/*** @submodule store */

/***
Compares the store with every rule of its format, byte for byte, while others read
and write: all that it holds now, the superblocks, and the log as far as it is on
disk. Never changes anything, and what changes meanwhile is no fault.

The report is an array of faults, each a table with `code` (`"ECORRUPT"`), `rule`
(`"F29 record checksum"`, of docs/format.md) and `offset` in the file; its field
`count` tells how many there are, of which it holds the first 256.
@function check
@tparam[opt] function progress is called now and then with two numbers: how much is
done of how much. Its error ends the check and is raised again
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message the first fault
@treturn[2] table report; or a code if it was not possible to check
@usage
local sound, message, report = db:check(function(done, total)
  io.write(("\r%3d %%"):format(100 * done / total))
end)
if not sound then
  print(message)
  for _, fault in ipairs(report) do print(fault.rule, fault.offset) end
end
*/
int lua_maint_check(lua_State *L) {
  lua_store *store = lua_store_check(L);
  lua_settop(L, 2);
  struct maint *maint = maint_new(L, 2);
  mmcmap *handle = lua_store_handle(L, store);
  store->calls++;
  int code = mmcmap_check(handle, maint_progress, maint_report, maint);
  store->calls--;
  if (maint->has_raised) return lua_error(L);
  if (code == MMCMAP_OK) {
    lua_pushboolean(L, 1);
    return 1;
  }
  lua_store_fail(L, code);
  if (maint->fault_count == 0) return 3;
  lua_pop(L, 1);
  maint_push_report(L, maint);
  return 3;
}

const char *lua_maint_path(lua_State *L, int arg) {
  size_t size;
  const char *path = luaL_checklstring(L, arg, &size);
  luaL_argcheck(L, size > 0, arg, "path is empty");
  luaL_argcheck(L, strlen(path) == size, arg, "path contains a zero byte");
  return path;
}

/***
Writes what the store holds now to another file, as a store of its own: compact, and
while others read and write. It has all maps; what has expired, and saved snapshots, are
left out. The file has its name once it is whole and on disk; a store that had that name is
replaced. It has no lock file and can be copied. Fails
with `"EEXIST"` if something that is no store has the name, with `"EBUSY"` if
somebody has that store open, with `"ECORRUPT"` if a record is damaged.
@function backup
@tparam string path not that of the store itself
@tparam[opt] function progress is called now and then with two numbers: how much is
done of how much. Its error ends the backup, leaves nothing, and is raised again
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage assert(db:backup("game-" .. os.date("%A") .. ".mmc"))
*/
int lua_maint_backup(lua_State *L) {
  lua_store *store = lua_store_check(L);
  const char *path = lua_maint_path(L, 2);
  lua_settop(L, 3);
  struct maint *maint = maint_new(L, 3);
  mmcmap *handle = lua_store_handle(L, store);
  store->calls++;
  int code = mmcmap_backup(handle, path, maint_progress, maint);
  store->calls--;
  if (maint->has_raised) return lua_error(L);
  if (code == MMCMAP_EINVAL) return failure_raise(L, path, code);
  if (code == MMCMAP_ECORRUPT || code == MMCMAP_EFORK)
    return lua_store_fail(L, code);
  if (code < 0) return failure_return(L, path, code);
  lua_pushboolean(L, 1);
  return 1;
}

/***
Makes the file as small as it can be, while others read and write: moves what is
alive together, and gives the rest back. Meanwhile the file may become longer by what is
alive, up to 32 MiB, and stays so if the work ends halfway. What snapshots hold stays
where it is, and as long as any is open, in whatever process, the file does not become
shorter.
@function compact
@tparam[opt] function progress is called now and then with two numbers: how much is
done of how much. Its error ends the work halfway, which does no harm, and is raised
again
@treturn[1] boolean true
@treturn[2] nil
@treturn[2] string message
@treturn[2] string code
@usage assert(db:compact())
*/
int lua_maint_compact(lua_State *L) {
  lua_store *store = lua_store_check(L);
  lua_settop(L, 2);
  struct maint *maint = maint_new(L, 2);
  mmcmap *handle = lua_store_writer(L, store);
  store->calls++;
  int code = mmcmap_compact(handle, maint_progress, maint);
  store->calls--;
  if (maint->has_raised) return lua_error(L);
  if (code < 0) return lua_store_fail(L, code);
  lua_pushboolean(L, 1);
  return 1;
}

int lua_maint_salvage(lua_State *L) {
  const char *from = lua_maint_path(L, 1), *to = lua_maint_path(L, 2);
  uint64_t count;
  lua_settop(L, 2);
  struct maint *maint = maint_new(L, 3);
  int code = mmcmap_salvage(from, to, maint_report, maint, &count);
  if (code < 0)
    return failure_return(L, code == MMCMAP_EEXIST ? to : from, code);
  compat_push_u64(L, count);
  maint_push_report(L, maint);
  return 2;
}
