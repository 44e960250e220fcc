-- SPDX-License-Identifier: MIT
--
-- Counters that several processes raise at once, without a lock of their own:
-- add, incr, cas and swap each happen at one instant.
--
--   lua5.4 examples/06-counters.lua [FILE [WORKERS [ROUNDS]]]
--
-- FILE (default: one with the other temporary files) must not exist; it is
-- deleted at the end. The program starts WORKERS (4) processes of itself, each
-- of which visits ROUNDS (2000) pages.

local mmcmap = require "mmcmap"

local path, workers, rounds, me = arg[1], tonumber(arg[2] or 4),
  tonumber(arg[3] or 2000), arg[4]

local function page(i) return "page " .. i % 10 end

-- ---- A worker ---------------------------------------------------------------

-- The longest visit so far: a change that no method has. Read, decide, and write
-- only if nobody has come between; else read again.
local function raise(db, key, number)
  repeat
    local old = db:get(key)
    if old and tonumber(old) >= number then return end
    local done, message = db:cas(key, old, number)
    if done == nil then error(message) end
  until done
end

if me then
  local db = assert(mmcmap.open(path, { create = false }))
  if db:add("first", me) then print("worker " .. me .. " was first") end
  for i = 1, rounds do
    local seconds = (i * 7919 + me * 104729) % 1000 / 8
    assert(db:incr(page(i)))              -- an integer
    assert(db:incr("seconds", seconds))   -- a float, as soon as one is added
    raise(db, "longest", seconds)
  end
  local before = db:swap("last", me)
  print(("worker %s ended after %s"):format(me, before or "nobody"))
  assert(db:close())
  return
end

-- ---- The program that starts them -------------------------------------------

if not path then
  path = os.tmpname()
  os.remove(path)
  path = path .. ".mmc"
end
local db = assert(mmcmap.open(path, { exclusive = true }))

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end
local lowest = 0
while arg[lowest - 1] do lowest = lowest - 1 end

local pipes = {}
for i = 1, workers do
  pipes[i] = assert(io.popen(("%s %s %s %d %d %d"):format(quoted(arg[lowest]),
    quoted(arg[0]), quoted(path), workers, rounds, i)))
end
for i = 1, workers do
  for line in pipes[i]:lines() do print(line) end
  pipes[i]:close()
end

-- What it comes to if each counted alone.
local visits, seconds, longest = {}, 0, 0
for worker = 1, workers do
  for i = 1, rounds do
    local stay = (i * 7919 + worker * 104729) % 1000 / 8
    visits[page(i)] = (visits[page(i)] or 0) + 1
    seconds, longest = seconds + stay, math.max(longest, stay)
  end
end

for name, count in pairs(visits) do
  assert(db:get(name) == ("%d"):format(count), name)
end
assert(tonumber(db:get("seconds")) == seconds)
assert(tonumber(db:get("longest")) == longest)
print(("%d visits by %d processes, %.3f seconds, the longest %.3f: none is lost")
  :format(workers * rounds, workers, seconds, longest))

-- A counter that holds something else is left alone.
db:put("page 0", "closed")
local sum, message, code = db:incr("page 0")
assert(sum == nil and code == "ENUMBER" and db:get("page 0") == "closed")
print(message)
assert(db:replace("page 0", 0) and db:incr("page 0") == 1)
assert(db:remove())
