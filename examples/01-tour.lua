-- SPDX-License-Identifier: MIT
--
-- A tour of mmcmap, which checks itself: each step says what it does, does it,
-- and stops with an error if the outcome is not the one it promised.
--
--   lua5.4 examples/01-tour.lua [FILE]
--
-- FILE (default: one with the other temporary files) must not exist; it is
-- deleted at the end.

local mmcmap = require "mmcmap"

local path, is_next_process = arg[1], arg[2] == "next"
if not path then
  path = os.tmpname()
  os.remove(path)
  path = path .. ".mmc"
end

local function say(...) print(string.format(...)) end

-- The next process: it finds what the first one put.
if is_next_process then
  local db = assert(mmcmap.open(path, { create = false }))
  say("   the next process finds %d records, moon = %q", #db, db.moon)
  assert(#db == 3 and db.moon == "Luna" and db.level == "7")
  assert(db:close())
  return
end

say("1. Open a store: one file, made if it is not there.")
local db = assert(mmcmap.open(path, { exclusive = true }))
say("   %s, %d KiB, %s", tostring(db), db:size() / 1024, mmcmap._VERSION)
assert(#db == 0)

say("2. Put, get, delete. Keys and values are strings of any bytes.")
assert(db:put("hello", "world"))
assert(db:get("hello") == "world")
assert(db:get("nobody") == nil and db:get("nobody", "a default") == "a default")
assert(db:has("hello") and not db:has("nobody"))
assert(db:put("\0 any \255 bytes", "\0"))
assert(db:get("\0 any \255 bytes") == "\0")
assert(db:delete("hello") == true)
assert(db:delete("hello") == false)
say("   deleting twice: true, then false")

say("3. The same through operators. Assigning nil deletes.")
db.moon = "Moon"
db.moon = "Luna"
db.level = 7 -- a number becomes its text, as in Lua's own string functions
db[1] = "one"
assert(db.moon == "Luna" and db.level == "7" and db["1"] == "one")
db[1] = nil
assert(db[1] == nil)
say("   moon = %q, level = %q, #db = %d", db.moon, db.level, #db)
assert(#db == 3 and db:count() == 3)

say("4. A loop sees the store as it was when the loop began, in no order.")
local seen = 0
for key, value in db:pairs() do
  db:put(key .. "'", value) -- not seen by this loop
  seen = seen + 1
end
assert(seen == 3 and #db == 6)
for key in db:keys() do
  if key:sub(-1) == "'" then db:delete(key) end
end
assert(#db == 3)
say("   the loop saw %d records and made as many", seen)

say("5. As long as version() is the same, so is the content.")
local before = db:version()
assert(db:version() == before)
db.level = 8
local after = db:version()
assert(after ~= before)
db.level = 7
assert(db:version() ~= after)
say("   %d, after a put %d", before, after)

say("6. sync() returns when everything is on disk. Without it, the store does")
say("   that by itself 0.1 s after a change, or at each put if it was opened")
say("   with { durability = \"sync\" }.")
assert(db:sync())
local stat = db:stat()
assert(stat.durability == "async" and stat.durable_epoch == stat.version)
say("   %d commits, %d syncs so far", stat.commit_count, stat.sync_count)

say("7. Failures of the world are nil, a message and a code; misuse raises.")
local none, message, code = mmcmap.open("no/such/folder/x.mmc")
assert(none == nil and code == "ENOENT")
say("   %s: %s", code, message)
assert(select(3, db:put(("k"):rep(65536), "v")) == "ETOOBIG")
assert(not pcall(db.put, db, {}, "a table is no key"))
assert(not pcall(mmcmap.open, path, { durabilty = "sync" })) -- misspelt

say("8. Values of any type, with a codec: an object with encode and decode,")
say("   such as require \"cjson\".")
local list_codec = {
  encode = function(list) return table.concat(list, ",") end,
  decode = function(text)
    local list = {}
    for word in text:gmatch("[^,]+") do list[#list + 1] = word end
    return list
  end,
}
-- The same file, opened twice in one process, is one store with two handles.
local lists = assert(mmcmap.open(path, { codec = list_codec }))
lists.planets = { "Mars", "Venus" }
assert(db.planets == "Mars,Venus" and lists.planets[2] == "Venus")
say("   as a list: %d planets; as bytes: %q", #lists.planets, db.planets)
lists.planets = nil
assert(lists:close())

say("9. Close, and open again in another process.")
assert(db:close())
assert(db:close()) -- again does no harm
assert(not pcall(db.get, db, "moon"))
local lowest = 0
while arg[lowest - 1] do lowest = lowest - 1 end
local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end
io.stdout:flush()
local status = os.execute(("%s %s %s next"):format(quoted(arg[lowest]),
  quoted(arg[0]), quoted(path)))
assert(status == true or status == 0, "the next process failed")

say("10. Remove the file.")
db = assert(mmcmap.open(path))
assert(db:remove())
assert(select(3, mmcmap.open(path, { create = false })) == "ENOENT")
say("All is as it should be.")
