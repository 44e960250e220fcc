/* SPDX-License-Identifier: MIT */
/*
 * Area base of the probe: errors, checks, bytes, hashes and numbers as text. Byte strings go in
 * and out as Lua strings; an offset into one counts from 0, and may be odd, so
 * that specs reach addresses that are not aligned.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/errors.h"
#include "base/hash.h"
#include "base/number.h"
#include "probe.h"

/* ---- Errors ------------------------------------------------------------ */

/* The engine keeps only a pointer to a text; this one lives long enough. */
static const char *base_lasting_text(lua_State *L, int arg) {
  static _Thread_local char text[64];
  strncpy(text, luaL_checkstring(L, arg), sizeof text - 1);
  return text;
}

static int base_error_name(lua_State *L) {
  lua_pushstring(L, mmcmap_error_name(probe_check_int(L, 1)));
  return 1;
}

static int base_strerror(lua_State *L) {
  lua_pushstring(L, mmcmap_strerror(probe_check_int(L, 1)));
  return 1;
}

/* error_set(code, what): the code. */
static int base_error_set(lua_State *L) {
  int code = probe_check_int(L, 1);
  lua_pushinteger(L, error_set(code, base_lasting_text(L, 2)));
  return 1;
}

/* error_set_errno(errno, what): the code's name. */
static int base_error_set_errno(lua_State *L) {
  int code = error_set_errno(probe_check_errno(L, 1), base_lasting_text(L, 2));
  lua_pushstring(L, mmcmap_error_name(code));
  return 1;
}

/* error_set_corrupt(what, offset): the code's name. */
static int base_error_set_corrupt(lua_State *L) {
  int code = error_set_corrupt(base_lasting_text(L, 1), probe_check_u64(L, 2));
  lua_pushstring(L, mmcmap_error_name(code));
  return 1;
}

/* last_error(): {code, name, system_errno, what, offset}. */
static int base_last_error(lua_State *L) {
  mmcmap_error last;
  mmcmap_last_error(&last);
  lua_newtable(L);
  lua_pushinteger(L, last.code);
  lua_setfield(L, -2, "code");
  lua_pushstring(L, mmcmap_error_name(last.code));
  lua_setfield(L, -2, "name");
  if (last.system_errno != 0) {
    probe_push_errno(L, last.system_errno);
    lua_setfield(L, -2, "system_errno");
  }
  lua_pushstring(L, last.what);
  lua_setfield(L, -2, "what");
  probe_push_u64(L, last.offset);
  lua_setfield(L, -2, "offset");
  return 1;
}

static int base_library_version(lua_State *L) {
  lua_pushstring(L, mmcmap_library_version());
  lua_pushstring(L, MMCMAP_VERSION);
  return 2;
}

/* check(condition): true, or the end of the process. */
static int base_check(lua_State *L) {
  bool answer_is_42 = probe_check_bool(L, 1);
  CHECK(answer_is_42);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- Bytes ------------------------------------------------------------- */

/* bytes_get(string, offset, bits): the number. */
static int base_bytes_get(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  size_t offset = probe_check_size(L, 2);
  int bits = probe_check_int(L, 3);
  luaL_argcheck(L, bits == 16 || bits == 32 || bits == 64, 3, "no such size");
  luaL_argcheck(L, bytes_within(offset, (uint64_t)bits / 8, size), 2,
                "beyond the end");
  if (bits == 16)
    probe_push_u64(L, bytes_u16(text + offset));
  else if (bits == 32)
    probe_push_u64(L, bytes_u32(text + offset));
  else
    probe_push_u64(L, bytes_u64(text + offset));
  return 1;
}

/* bytes_set(offset, bits, number): 16 bytes '.' with the number among them. */
static int base_bytes_set(lua_State *L) {
  char text[16];
  size_t offset = probe_check_size(L, 1);
  int bits = probe_check_int(L, 2);
  uint64_t value = probe_check_u64(L, 3);
  luaL_argcheck(L, offset <= sizeof text - 8, 1, "beyond the end");
  memset(text, '.', sizeof text);
  if (bits == 16)
    bytes_set_u16(text + offset, (uint16_t)value);
  else if (bits == 32)
    bytes_set_u32(text + offset, (uint32_t)value);
  else
    bytes_set_u64(text + offset, value);
  lua_pushlstring(L, text, sizeof text);
  return 1;
}

/* bytes_atomic(number): the bytes after a release store and after a relaxed
   one, and what an acquire load and a relaxed one make of them. */
static int base_bytes_atomic(lua_State *L) {
  _Alignas(8) uint8_t released[8];
  _Alignas(8) uint8_t relaxed[8];
  uint64_t value = probe_check_u64(L, 1);
  bytes_store_release(released, value);
  bytes_store_relaxed(relaxed, value);
  lua_pushlstring(L, (const char *)released, sizeof released);
  lua_pushlstring(L, (const char *)relaxed, sizeof relaxed);
  probe_push_u64(L, bytes_load_acquire(released));
  probe_push_u64(L, bytes_load_relaxed(relaxed));
  return 4;
}

static int base_bytes_align_up(lua_State *L) {
  probe_push_u64(L,
                 bytes_align_up(probe_check_u64(L, 1), probe_check_u64(L, 2)));
  return 1;
}

/* bytes_add(a, b): the sum, or nil if it does not fit. */
static int base_bytes_add(lua_State *L) {
  uint64_t sum;
  if (!bytes_add(probe_check_u64(L, 1), probe_check_u64(L, 2), &sum)) return 0;
  probe_push_u64(L, sum);
  return 1;
}

/* bytes_mul(a, b): the product, or nil if it does not fit. */
static int base_bytes_mul(lua_State *L) {
  uint64_t product;
  if (!bytes_mul(probe_check_u64(L, 1), probe_check_u64(L, 2), &product))
    return 0;
  probe_push_u64(L, product);
  return 1;
}

/* bytes_within(offset, size, limit) */
static int base_bytes_within(lua_State *L) {
  lua_pushboolean(L, bytes_within(probe_check_u64(L, 1), probe_check_u64(L, 2),
                                  probe_check_u64(L, 3)));
  return 1;
}

/* ---- Hashes ------------------------------------------------------------ */

/* The string at `arg` from the offset at `arg + 1` (0 if there is none) on. */
static const char *base_check_data(lua_State *L, int arg, size_t *size_out) {
  const char *data = luaL_checklstring(L, arg, size_out);
  size_t offset = (size_t)probe_opt_u64(L, arg + 1, 0);
  luaL_argcheck(L, offset <= *size_out, arg + 1, "beyond the end");
  *size_out -= offset;
  return data + offset;
}

/* siphash24(key, data [, offset]) */
static int base_siphash24(lua_State *L) {
  size_t key_size, size;
  const char *key = luaL_checklstring(L, 1, &key_size);
  const char *data = base_check_data(L, 2, &size);
  luaL_argcheck(L, key_size == 16, 1, "not 16 bytes");
  probe_push_u64(L, siphash24(data, size, (const uint8_t *)key));
  return 1;
}

/* murmur3_32(seed, data [, offset]) */
static int base_murmur3_32(lua_State *L) {
  size_t size;
  uint32_t seed = probe_check_u32(L, 1);
  const char *data = base_check_data(L, 2, &size);
  lua_pushnumber(L, (lua_Number)murmur3_32(data, size, seed));
  return 1;
}

/* The same by way of the public function. */
static int base_mmcmap_murmur3(lua_State *L) {
  mmcmap_slice slice;
  uint32_t seed = probe_check_u32(L, 1);
  slice.data = base_check_data(L, 2, &slice.size);
  lua_pushnumber(L, (lua_Number)mmcmap_murmur3(slice, seed));
  return 1;
}

/* plain_checksum(data [, offset]) */
static int base_plain_checksum(lua_State *L) {
  size_t size;
  const char *data = base_check_data(L, 1, &size);
  probe_push_u64(L, hash_plain_checksum(data, size));
  return 1;
}

/* xxh3_with_secret(secret, data): straight from the library. */
static int base_xxh3_with_secret(lua_State *L) {
  size_t secret_size, size;
  const char *secret = luaL_checklstring(L, 1, &secret_size);
  const char *data = luaL_checklstring(L, 2, &size);
  luaL_argcheck(L, secret_size >= XXH3_SECRET_SIZE_MIN, 1, "too short");
  probe_push_u64(L, XXH3_64bits_withSecret(data, size, secret, secret_size));
  return 1;
}

/* hasher(kind, secret, key [, primary mask, secondary mask]): the primary
   hash, the secondary one, the checksum. */
static int base_hasher(lua_State *L) {
  struct hasher hasher;
  size_t secret_size, size;
  int kind = probe_check_int(L, 1);
  const char *secret = luaL_checklstring(L, 2, &secret_size);
  const char *key = luaL_checklstring(L, 3, &size);
  luaL_argcheck(L, secret_size == HASH_SECRET_BYTES, 2, "not 400 bytes");

  int code = hasher_init(&hasher, kind, (const uint8_t *)secret);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  hasher.primary_mask = probe_opt_u64(L, 4, hasher.primary_mask);
  hasher.secondary_mask = probe_opt_u64(L, 5, hasher.secondary_mask);
  probe_push_u64(L, hasher_primary(&hasher, key, size));
  probe_push_u64(L, hasher_secondary(&hasher, key, size));
  probe_push_u64(L, hasher_checksum(&hasher, key, size));
  return 3;
}

/* ---- Numbers as text --------------------------------------------------- */

/* number_read(text): an integer as 16 digits, a float as a number. */
static int base_number_read(lua_State *L) {
  size_t size;
  mmcmap_number number;
  const char *text = luaL_checklstring(L, 1, &size);
  int code = number_read(text, size, &number);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_number(L, &number);
  return 1;
}

/* number_write(number): the text. */
static int base_number_write(lua_State *L) {
  char text[NUMBER_TEXT_BYTES];
  mmcmap_number number = probe_check_number(L, 1);
  size_t size = number_write(&number, text);
  lua_pushlstring(L, text, size);
  lua_pushboolean(L, text[size] == '\0');
  return 2;
}

/* number_add(a, b): the sum. */
static int base_number_add(lua_State *L) {
  mmcmap_number sum;
  mmcmap_number a = probe_check_number(L, 1), b = probe_check_number(L, 2);
  int code = number_add(&a, &b, &sum);
  if (code != MMCMAP_OK) return probe_fail(L, code);
  probe_push_number(L, &sum);
  return 1;
}

void probe_base_open(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"error_name", base_error_name},
      {"strerror", base_strerror},
      {"error_set", base_error_set},
      {"error_set_errno", base_error_set_errno},
      {"error_set_corrupt", base_error_set_corrupt},
      {"last_error", base_last_error},
      {"library_version", base_library_version},
      {"check", base_check},
      {"bytes_get", base_bytes_get},
      {"bytes_set", base_bytes_set},
      {"bytes_atomic", base_bytes_atomic},
      {"bytes_align_up", base_bytes_align_up},
      {"bytes_add", base_bytes_add},
      {"bytes_mul", base_bytes_mul},
      {"bytes_within", base_bytes_within},
      {"siphash24", base_siphash24},
      {"murmur3_32", base_murmur3_32},
      {"mmcmap_murmur3", base_mmcmap_murmur3},
      {"plain_checksum", base_plain_checksum},
      {"xxh3_with_secret", base_xxh3_with_secret},
      {"hasher", base_hasher},
      {"number_read", base_number_read},
      {"number_write", base_number_write},
      {"number_add", base_number_add},
      {NULL, NULL},
  };
  luaL_setfuncs(L, functions, 0);
}
