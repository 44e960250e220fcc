/* SPDX-License-Identifier: MIT */
/*
 * The options of open() as a Lua table. Whatever is not understood raises, so
 * that a misspelt option is noticed: an unknown name, a wrong type, a value
 * out of its range.
 */
#ifndef LUA_OPTIONS_H
#define LUA_OPTIONS_H

#include "compat.h"
#include "mmcmap.h"

/* Reads the table at the stack index `arg`, which may be none or nil, into
   `options_out`. The codec is not among them: see options_push_codec(). */
void options_read(lua_State *L, int arg, mmcmap_options *options_out);

/* Pushes the codec's encode and decode and returns true; or nothing and false
   if the options at `arg` name no codec. */
bool options_push_codec(lua_State *L, int arg);

enum options_codec {
  OPTIONS_CODEC_INHERITED,
  OPTIONS_CODEC_NONE,
  OPTIONS_CODEC_OWN
};

/* The same for the options of map(), which name nothing else: `codec` may be false,
   for none, or missing, for that of the store. */
enum options_codec options_push_map_codec(lua_State *L, int arg);

/* The option's word for a value of enum mmcmap_durability. */
const char *options_durability_name(int durability);

/* The option's word for a value of enum mmcmap_hash_kind. */
const char *options_hash_name(int hash);

/* A time to live in milliseconds: that of the seconds at `arg`, more than 0; 0 if
   there is nil. */
uint64_t options_seconds(lua_State *L, int arg);

/* The same for the `ttl` in the table at `arg`, which may be missing; raises if
   there is anything else in it. */
uint64_t options_ttl(lua_State *L, int arg);

#endif
