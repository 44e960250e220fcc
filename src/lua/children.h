/* SPDX-License-Identifier: MIT */
/*
 * Objects of Lua that read from another one, which has a list of them: the
 * iterators and snapshots of a store, the iterators of a snapshot. The parent
 * ends them before it ends itself, so finalizers may run in any order: theirs
 * then find nothing to do.
 *
 * A child is in its parent's list if and only if it holds something of the
 * parent's. While it is there the parent's memory is good: the child's user
 * value holds the parent, whose finalizer clears the list.
 */
#ifndef LUA_CHILDREN_H
#define LUA_CHILDREN_H

#include <stdbool.h>
#include <stddef.h>

/* The first member of a child's struct. */
struct lua_child {
  struct lua_child *next;
  struct lua_child **link; /* what points here; NULL: in no list */
  /* Lets go of what it holds: its parent ends. It has left the list. Does not touch
     Lua. `why`: one of the words below, or NULL if the parent ends for itself. */
  void (*orphan)(struct lua_child *child, const char *why);
};

/* What has ended all that reads from a store; for messages. remove() does so before it
   is known whether it will fail: the engine removes only what nobody uses. */
#define CHILDREN_STORE_CLOSED "the store is closed"
#define CHILDREN_STORE_REMOVED "remove() of the store has ended it"

static inline void children_add(struct lua_child **list,
                                struct lua_child *child) {
  child->next = *list;
  child->link = list;
  if (child->next) child->next->link = &child->next;
  *list = child;
}

static inline void children_remove(struct lua_child *child) {
  if (!child->link) return;
  *child->link = child->next;
  if (child->next) child->next->link = child->link;
  child->next = NULL;
  child->link = NULL;
}

static inline void children_end(struct lua_child **list, const char *why) {
  while (*list) {
    struct lua_child *child = *list;
    children_remove(child);
    child->orphan(child, why);
  }
}

#endif
