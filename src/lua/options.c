/* SPDX-License-Identifier: MIT */
/*
 * One table says which options there are, and one function per type of value
 * reads one of them. Options are read with their table's metamethods, so that
 * defaults may be inherited; only its own keys are checked for their names.
 */
#include "options.h"

#include <string.h>

#define OPTIONS_MODE_MAX 0777u
#define OPTIONS_EXACT_MAX 9007199254740992.0 /* 2^53 */

static const char *const durability_names[] = {"async", "sync", "manual", NULL};
static const char *const hash_names[] = {"xxh3", "siphash", "murmur3", NULL};

struct option {
  const char *name;
  /* Reads the value on top of the stack. */
  void (*read)(lua_State *L, int arg, const struct option *option, void *field);
  size_t offset;            /* of the field in mmcmap_options */
  const char *const *words; /* for read_word() */
};

static void raise_option(lua_State *L, int arg, const struct option *option,
                         const char *problem) {
  lua_pushfstring(L, "option '%s' %s", option->name, problem);
  luaL_argerror(L, arg, lua_tostring(L, -1));
}

static void raise_type(lua_State *L, int arg, const struct option *option,
                       const char *expected) {
  lua_pushfstring(L, "must be %s, got %s", expected, luaL_typename(L, -1));
  raise_option(L, arg, option, lua_tostring(L, -1));
}

static lua_Number read_number(lua_State *L, int arg,
                              const struct option *option) {
  if (lua_type(L, -1) != LUA_TNUMBER) raise_type(L, arg, option, "a number");
  return lua_tonumber(L, -1);
}

static void read_boolean(lua_State *L, int arg, const struct option *option,
                         void *field) {
  if (!lua_isboolean(L, -1)) raise_type(L, arg, option, "a boolean");
  *(bool *)field = lua_toboolean(L, -1);
}

static void read_word(lua_State *L, int arg, const struct option *option,
                      void *field) {
  if (lua_type(L, -1) != LUA_TSTRING) raise_type(L, arg, option, "a string");
  for (int i = 0; option->words[i]; i++) {
    if (strcmp(lua_tostring(L, -1), option->words[i]) == 0) {
      *(int *)field = i;
      return;
    }
  }
  lua_pushfstring(L, "must be '%s', '%s' or '%s', got '%s'", option->words[0],
                  option->words[1], option->words[2], lua_tostring(L, -1));
  raise_option(L, arg, option, lua_tostring(L, -1));
}

/* To the nearest millisecond, but never from something to nothing. */
static void read_seconds(lua_State *L, int arg, const struct option *option,
                         void *field) {
  lua_Number ms = read_number(L, arg, option) * 1000;
  if (!(ms >= 0 && ms <= UINT32_MAX))
    raise_option(L, arg, option, "is out of range (0 to 4294967 seconds)");
  *(uint32_t *)field = ms > 0 && ms < 1 ? 1 : (uint32_t)(ms + (lua_Number)0.5);
}

/* Like read_seconds(), but a wait may be for ever, which is 49 days. */
static void read_timeout(lua_State *L, int arg, const struct option *option,
                         void *field) {
  if (read_number(L, arg, option) * 1000 >= UINT32_MAX)
    *(uint32_t *)field = UINT32_MAX;
  else
    read_seconds(L, arg, option, field);
}

static void read_mode(lua_State *L, int arg, const struct option *option,
                      void *field) {
  lua_Number mode = read_number(L, arg, option);
  if (!(mode >= 0 && mode <= OPTIONS_MODE_MAX) ||
      mode != (lua_Number)(unsigned)mode)
    raise_option(L, arg, option,
                 "must be an integer from 0 to 511 (octal 777)");
  *(unsigned *)field = (unsigned)mode;
}

static void read_max_size(lua_State *L, int arg, const struct option *option,
                          void *field) {
  lua_Number size = read_number(L, arg, option);
  if (!(size >= 0 && size <= (lua_Number)OPTIONS_EXACT_MAX) ||
      size != (lua_Number)(uint64_t)size ||
      (size > 0 && size < MMCMAP_MAX_SIZE_MIN))
    raise_option(L, arg, option,
                 "must be an integer from 131072 (bytes), or 0 for no limit");
  *(uint64_t *)field = (uint64_t)size;
}

#define FIELD(name) offsetof(mmcmap_options, name)

static const struct option options[] = {
    {"durability", read_word, FIELD(durability), durability_names},
    {"flush_interval", read_seconds, FIELD(flush_interval_ms), NULL},
    {"readonly", read_boolean, FIELD(readonly), NULL},
    {"create", read_boolean, FIELD(create), NULL},
    {"exclusive", read_boolean, FIELD(exclusive), NULL},
    {"mode", read_mode, FIELD(mode), NULL},
    {"max_size", read_max_size, FIELD(max_size_bytes), NULL},
    {"timeout", read_timeout, FIELD(timeout_ms), NULL},
    {"hash", read_word, FIELD(hash), hash_names},
    {"lock", read_boolean, FIELD(lock), NULL},
    {"allow_network", read_boolean, FIELD(allow_network), NULL},
    {"max_snapshot_age", read_seconds, FIELD(max_snapshot_age_ms), NULL},
};

#define OPTION_COUNT (sizeof options / sizeof options[0])

static bool option_exists(const char *name) {
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    if (strcmp(options[i].name, name) == 0) return true;
  }
  return strcmp(name, "codec") == 0;
}

static void check_names(lua_State *L, int arg) {
  lua_pushnil(L);
  while (lua_next(L, arg)) {
    lua_pop(L, 1);
    if (lua_type(L, -1) != LUA_TSTRING) {
      lua_pushfstring(L, "names of options are strings, got %s",
                      luaL_typename(L, -1));
      luaL_argerror(L, arg, lua_tostring(L, -1));
    } else if (!option_exists(lua_tostring(L, -1))) {
      lua_pushfstring(L, "unknown option '%s'", lua_tostring(L, -1));
      luaL_argerror(L, arg, lua_tostring(L, -1));
    }
  }
}

void options_read(lua_State *L, int arg, mmcmap_options *options_out) {
  mmcmap_options_init(options_out);
  if (lua_isnoneornil(L, arg)) return;
  luaL_checktype(L, arg, LUA_TTABLE);
  check_names(L, arg);
  for (size_t i = 0; i < OPTION_COUNT; i++) {
    lua_getfield(L, arg, options[i].name);
    if (!lua_isnil(L, -1))
      options[i].read(L, arg, &options[i],
                      (char *)options_out + options[i].offset);
    lua_pop(L, 1);
  }
  luaL_argcheck(L, options_out->lock || options_out->readonly, arg,
                "option 'lock' can be false only if 'readonly' is true");
  luaL_argcheck(L,
                !options_out->exclusive ||
                    (options_out->create && !options_out->readonly),
                arg, "option 'exclusive' is for a file that is to be made");
  luaL_argcheck(L, options_out->flush_interval_ms > 0, arg,
                "option 'flush_interval' must be more than 0");
}

/* Pushes the function `name` of the codec on top of the stack. */
static void push_function(lua_State *L, int arg, const char *name) {
  lua_getfield(L, -1, name);
  if (lua_isfunction(L, -1)) return;
  if (luaL_getmetafield(L, -1, "__call")) {
    lua_pop(L, 1);
    return;
  }
  lua_pushfstring(L, "option 'codec' has no function '%s'", name);
  luaL_argerror(L, arg, lua_tostring(L, -1));
}

bool options_push_codec(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return false;
  lua_getfield(L, arg, "codec");
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return false;
  }
  if (!lua_istable(L, -1) && !lua_isuserdata(L, -1)) {
    lua_pushfstring(L,
                    "option 'codec' must be an object with encode and "
                    "decode, got %s",
                    luaL_typename(L, -1));
    luaL_argerror(L, arg, lua_tostring(L, -1));
  }
  push_function(L, arg, "encode");
  lua_pushvalue(L, -2);
  push_function(L, arg, "decode");
  lua_remove(L, -2);
  lua_remove(L, -3);
  return true;
}

/* Raises unless the table at `arg` has no key but `name`. */
static void check_only_name(lua_State *L, int arg, const char *name) {
  luaL_checktype(L, arg, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, arg); lua_pop(L, 1)) {
    if (lua_type(L, -2) == LUA_TSTRING &&
        strcmp(lua_tostring(L, -2), name) == 0)
      continue;
    if (lua_type(L, -2) == LUA_TSTRING)
      lua_pushfstring(L, "unknown option '%s': the only option is '%s'",
                      lua_tostring(L, -2), name);
    else
      lua_pushfstring(L, "the only option is '%s'", name);
    luaL_argerror(L, arg, lua_tostring(L, -1));
  }
}

enum options_codec options_push_map_codec(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return OPTIONS_CODEC_INHERITED;
  check_only_name(L, arg, "codec");
  lua_getfield(L, arg, "codec");
  bool is_none = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (is_none) return OPTIONS_CODEC_NONE;
  return options_push_codec(L, arg) ? OPTIONS_CODEC_OWN
                                    : OPTIONS_CODEC_INHERITED;
}

const char *options_durability_name(int durability) {
  return durability_names[durability];
}

const char *options_hash_name(int hash) { return hash_names[hash]; }

/* ---- Times to live ------------------------------------------------------- */

/* More than all the time there is. */
#define OPTIONS_TTL_MAX 9e15

/* Of the number on top of the stack, which the caller knows as `name`, rounded
   up to milliseconds. */
static uint64_t read_ttl(lua_State *L, int arg, const char *name) {
  if (lua_isnil(L, -1)) return 0;
  if (lua_type(L, -1) != LUA_TNUMBER) {
    lua_pushfstring(L, "%s must be a number, got %s", name,
                    luaL_typename(L, -1));
    luaL_argerror(L, arg, lua_tostring(L, -1));
  }
  lua_Number ms = lua_tonumber(L, -1) * 1000;
  if (!(ms > 0)) {
    lua_pushfstring(L, "%s must be more than 0", name);
    luaL_argerror(L, arg, lua_tostring(L, -1));
  }
  if (ms >= OPTIONS_TTL_MAX) return (uint64_t)OPTIONS_TTL_MAX;
  uint64_t whole = (uint64_t)ms;
  return (lua_Number)whole < ms ? whole + 1 : whole;
}

uint64_t options_seconds(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return 0;
  lua_pushvalue(L, arg);
  uint64_t ttl_ms = read_ttl(L, arg, "seconds");
  lua_pop(L, 1);
  return ttl_ms;
}

uint64_t options_ttl(lua_State *L, int arg) {
  if (lua_isnoneornil(L, arg)) return 0;
  check_only_name(L, arg, "ttl");
  lua_getfield(L, arg, "ttl");
  uint64_t ttl_ms = read_ttl(L, arg, "option 'ttl'");
  lua_pop(L, 1);
  return ttl_ms;
}
