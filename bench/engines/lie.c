/* SPDX-License-Identifier: MIT */
/*
 * mmcmap behind a liar, to see that the driver notices: each engine here is
 * wrong in one kind of call, now and then. They run only if asked for by name.
 */
#include <stdlib.h>
#include <string.h>

#include "../engine.h"

extern const struct engine engine_mmcmap;

enum { TRUTHS = 97, VALUE_MAX = 1 << 17 };

static unsigned calls;

static bool lies(void) { return ++calls % TRUTHS == 0; }

/* The value with its last bit wrong. */
static struct bytes wrong(struct bytes value) {
  static unsigned char bytes[VALUE_MAX];
  if (value.size == 0 || value.size > VALUE_MAX) return value;
  memcpy(bytes, value.data, value.size);
  bytes[value.size - 1] ^= 1;
  return (struct bytes){bytes, value.size};
}

static bool get_wrong(void *session, struct bytes key,
                      struct bytes *value_out) {
  bool found = engine_mmcmap.get(session, key, value_out);
  if (found && lies()) *value_out = wrong(*value_out);
  return found;
}

static bool get_absent(void *session, struct bytes key,
                       struct bytes *value_out) {
  if (engine_mmcmap.get(session, key, value_out)) return true;
  *value_out = key;
  return lies();
}

static void put_nothing(void *session, struct bytes key, struct bytes value) {
  if (!lies()) engine_mmcmap.put(session, key, value);
}

static bool erase_nothing(void *session, struct bytes key) {
  return lies() || engine_mmcmap.erase(session, key);
}

static void get_many_wrong(void *session, const struct bytes *keys,
                           size_t count, value_visitor *visit, void *context) {
  for (size_t i = 0; i < count; i++) {
    struct bytes value;
    if (engine_mmcmap.get(session, keys[i], &value))
      visit(context, i, lies() ? wrong(value) : value);
  }
}

struct visit {
  record_visitor *visit;
  void *context;
};

static void visit_most(void *context, struct bytes key, struct bytes value) {
  const struct visit *visit = context;
  if (!lies()) visit->visit(visit->context, key, value);
}

static void scan_most(void *session, record_visitor *visit, void *context) {
  struct visit visit_to = {visit, context};
  engine_mmcmap.scan(session, visit_most, &visit_to);
}

/* The engine's own functions are constants of another file, which C lets no
   initializer read. */
static void *store_open(const struct setup *setup) {
  return engine_mmcmap.open(setup);
}
static void store_close(void *store) { engine_mmcmap.close(store); }
static void *attach(void *store) { return engine_mmcmap.attach(store); }
static void detach(void *session) { engine_mmcmap.detach(session); }
static bool get(void *session, struct bytes key, struct bytes *value_out) {
  return engine_mmcmap.get(session, key, value_out);
}
static void put(void *session, struct bytes key, struct bytes value) {
  engine_mmcmap.put(session, key, value);
}
static bool erase(void *session, struct bytes key) {
  return engine_mmcmap.erase(session, key);
}
static void scan(void *session, record_visitor *visit, void *context) {
  engine_mmcmap.scan(session, visit, context);
}

#define LIAR(kind, get_, put_, erase_, scan_, get_many_) \
  const struct engine engine_lie_##kind = { \
      .name = "lie-" #kind, \
      .about = "mmcmap, but wrong now and then", \
      .traits = ENGINE_HIDDEN, \
      .open = store_open, \
      .close = store_close, \
      .attach = attach, \
      .detach = detach, \
      .get = get_, \
      .put = put_, \
      .erase = erase_, \
      .scan = scan_, \
      .get_many = get_many_, \
  }

LIAR(get, get_wrong, put, erase, scan, NULL);
LIAR(miss, get_absent, put, erase, scan, NULL);
LIAR(many, get, put, erase, scan, get_many_wrong);
LIAR(scan, get, put, erase, scan_most, NULL);
LIAR(put, get, put_nothing, erase, scan, NULL);
LIAR(erase, get, put, erase_nothing, scan, NULL);
