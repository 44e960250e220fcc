-- SPDX-License-Identifier: MIT
--
-- Snapshots: reading many things of one moment while others write, telling what has
-- changed since, and keeping a moment in the file.
--
--   lua5.4 examples/04-snapshots.lua [FILE]
--
-- FILE (default: one with the other temporary files) must not exist; it is
-- deleted at the end.

local mmcmap = require "mmcmap"

local path = arg[1]
if not path then
  path = os.tmpname()
  os.remove(path)
  path = path .. ".mmc"
end
local db = assert(mmcmap.open(path, { exclusive = true }))

-- A shop: what there is, and how many.
local stock = { apples = 12, pears = 7, plums = 30 }
for fruit, number in pairs(stock) do assert(db:put(fruit, number)) end

-- A snapshot stays as it is, whatever is sold meanwhile.
local morning = assert(db:snapshot())
db:incr("apples", -5)
db:put("cherries", 80)
db:delete("plums")
print(("this morning: %d kinds, %s apples"):format(#morning, morning.apples))
print(("now:          %d kinds, %s apples"):format(#db, db.apples))
assert(morning.apples == "12" and db.apples == "7" and not morning.cherries)

-- Several keys with one call. Of a store they may be of different moments; of a
-- snapshot they are of one.
local found = morning:get_many { "apples", "plums", "cherries" }
assert(found.apples == "12" and found.plums == "30" and not found.cherries)

-- view() closes its snapshot, also after an error, and passes on what is returned.
local sum = db:view(function(snap)
  local pieces = 0
  for _, number in snap:pairs() do pieces = pieces + number end
  return pieces
end)
print(("%d pieces of fruit"):format(sum))
assert(sum == 7 + 7 + 80)

-- What has changed since the morning. That takes time for each change, and none
-- for what has not changed, however much that is.
local evening = assert(db:snapshot())
local lines = {}
for fruit, old, new in db:diff(morning, evening) do
  lines[#lines + 1] = ("%-9s %s -> %s"):format(fruit, old or "none", new or "none")
end
table.sort(lines)
print(table.concat(lines, "\n"))
assert(#lines == 3)

-- The same version means the same content, so nothing has to be compared.
assert(evening:version() == db:version())
assert(morning:version() ~= evening:version())

morning:close()
evening:close()

-- With a name, a snapshot is kept in the file: all maps as they are now, until it is
-- dropped, also when the store has been closed.
db:map("prices").apples = "0.30"
assert(db:snapshot("closing time"))
db:put("apples", 0)
assert(db:drop("prices"))
assert(db:close())

db = assert(mmcmap.open(path))
for _, saved in ipairs(db:snapshots()) do
  print(("kept: %s, %d kinds"):format(saved.name, saved.count))
end
local closing = assert(db:open_snapshot("closing time"))
print(("apples: %s at %s, now %s"):format(closing.apples,
  closing:map("prices").apples, db.apples))
assert(closing.apples == "7" and closing:maps()[1] == "prices")
for fruit, old, new in db:diff(closing, assert(db:snapshot())) do
  assert(fruit == "apples" and old == "7" and new == "0")
end
closing:close()
assert(db:drop_snapshot("closing time") and #db:snapshots() == 0)
assert(db:remove())
