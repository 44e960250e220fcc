/* SPDX-License-Identifier: MIT */
#include "lua_list.h"

#include <string.h>

void lua_list_add(struct lua_list *list, const void *item, mmcmap_slice name) {
  size_t size = sizeof name.size + list->item_size + name.size;
  if (list->size + size <= list->capacity) {
    char *at = list->bytes + list->size;
    memcpy(at, &name.size, sizeof name.size);
    at += sizeof name.size;
    if (list->item_size > 0) memcpy(at, item, list->item_size);
    if (name.size > 0) memcpy(at + list->item_size, name.data, name.size);
  }
  list->size += size;
  list->count++;
}

bool lua_list_fits(lua_State *L, struct lua_list *list) {
  if (list->size <= list->capacity) return true;
  list->capacity = list->size + 1024; /* some may come meanwhile */
  list->bytes = lua_newuserdata(L, list->capacity);
  list->size = list->count = 0;
  return false;
}

int lua_list_push(lua_State *L, const struct lua_list *list,
                  void (*push)(lua_State *L, const void *item,
                               mmcmap_slice name)) {
  const char *at = list->bytes;
  lua_createtable(L, (int)list->count, 0);
  for (size_t i = 0; i < list->count; i++) {
    mmcmap_slice name;
    memcpy(&name.size, at, sizeof name.size);
    const char *item = at + sizeof name.size;
    name.data = item + list->item_size;
    push(L, item, name);
    lua_rawseti(L, -2, (int)i + 1);
    at = item + list->item_size + name.size;
  }
  return 1;
}
