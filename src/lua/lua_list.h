/* SPDX-License-Identifier: MIT */
/*
 * A list of names that the engine reports, each with an item of a fixed size. What
 * runs while it reports may not call Lua, which may raise: so they are copied into
 * memory that was asked for before, and reported again if that was too small.
 *
 *   struct lua_list list = {.item_size = sizeof(struct item)};
 *   do
 *     ... lua_list_add() for each ...
 *   while (!lua_list_fits(L, &list));
 *   return lua_list_push(L, &list, push_one);
 */
#ifndef LUA_LIST_H
#define LUA_LIST_H

#include "lua_store.h"

#include <stdbool.h>

struct lua_list {
  size_t item_size; /* 0: names alone */
  char *bytes;      /* a userdata on the stack: name's size, item, name */
  size_t capacity;
  size_t size; /* that all of it takes, which may be more */
  size_t count;
};

/* Copies one, if there is room. Does not touch Lua. */
void lua_list_add(struct lua_list *list, const void *item, mmcmap_slice name);

/* Whether there was room for all; if not the list is empty again, and has more. */
bool lua_list_fits(lua_State *L, struct lua_list *list);

/* Pushes an array, of what `push` pushes for each; returns 1. The item is not
   aligned. */
int lua_list_push(lua_State *L, const struct lua_list *list,
                  void (*push)(lua_State *L, const void *item,
                               mmcmap_slice name));

#endif
