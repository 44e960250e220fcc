-- SPDX-License-Identifier: MIT
--
-- What the cleaner moves together with a node, and when: where commits come often, its
-- companions, which are below a branch that is copied anyway.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"

local FILLER = 140 * scratch.SEGMENT -- fewer segments are a small store
local KEYS, SIZE = 3000, 60 -- each branch above records has some 47 of them
local LOOK = 2048     -- is looked through in one turn: so much is moved,
local NODE = 600      -- and the rest of a node, if it has no companions;
local TOGETHER = 3000 -- or beside it those of one node,
local AT_MOST = 10000 -- and not those of many
local COMPANIONS = 128 -- has one node at most

local path, db

local function value_of(case, i, word)
  return word .. ("v"):rep(case.size or SIZE) .. i
end

local function is_again(case, i) return i % (case.again or 2) == 0 end

local function put_all(case, word, which)
  for i = 1, case.keys or KEYS do
    if which == nil or which(case, i) then
      assert(db:put("k" .. i, value_of(case, i, word)))
    end
    if i % (case.each or 50) == 0 then assert(db:sync()) end
  end
end

-- A store of many segments, of which those with records are in part dead. There is a
-- commit for each few changes. What case.hold() returns is to be closed.
local function make_store(case)
  db = scratch.open(path)
  assert(db:put("filler", ("f"):rep(FILLER)))
  assert(db:close()) -- what that has appended is none of the next session's
  db = scratch.open(path)
  local held = case.hold and case.hold()
  put_all(case, "a")
  put_all(case, "b", is_again)
  if case.before then case.before() end
  return held
end

-- Words of the lock file.
local function set(words)
  local connection = assert(probe.share.connect(path .. "-lock", path))
  for name, word in pairs(words) do connection:set("upkeep." .. name, word) end
  connection:close()
end

-- The most that is moved in one of so many turns.
local function most_moved(turns)
  local most = 0
  for _ = 1, turns or 400 do
    most = math.max(most, binary.number((assert(db:clean_ahead(LOOK)))))
    assert(db:sync()) -- what is moved next copies branches again
  end
  return most
end

local function is_whole(case)
  local now = scratch.usage(db)
  if not case.is_saved then assert.same({ 0, 0 }, { now.low, now.high }) end
  for i = 1, case.keys or KEYS do
    local word = is_again(case, i) and "b" or "a"
    if db:get("k" .. i) ~= value_of(case, i, word) then error("wrong: k" .. i) end
  end
  assert.same({}, db:check())
end

before_each(function() path = crash.path("move") os.remove(path) end)
teardown(crash.remove_folder)
after_each(function()
  if db then db:close() end
  db = nil
end)

describe("what is moved together with a node", function()
  it("is what hangs beside it, and counts as work that is done", function()
    make_store {}
    local most = most_moved()
    assert.is_true(most > TOGETHER, most)
    assert.is_true(most < AT_MOST, most)
    is_whole {}
  end)

  -- Where branches have few records each, what hangs from the others of the same one
  -- is moved, too: of some 600 nodes that are near.
  it("is what hangs from branches beside it, but not all of that", function()
    local case = { keys = 600, size = 200 }
    make_store(case)
    local most = most_moved(100)
    assert.is_true(most > COMPANIONS * case.size / 2, most)
    assert.is_true(most < LOOK + (COMPANIONS + 8) * (case.size + NODE / 10), most)
    is_whole(case)
  end)

  -- The root of a map that was not changed for long: no branch is above it.
  it("is nothing for the root of a map", function()
    local maps = {}
    make_store { hold = function()
      for i = 1, 4 do
        maps[i] = assert(db:map("map " .. i))
        for j = 1, 2 do assert(maps[i]:put("k" .. j, i .. " is old")) end
      end
    end }
    most_moved()
    for i, map in ipairs(maps) do
      for j = 1, 2 do assert.equal(i .. " is old", map:get("k" .. j)) end
      map:close()
    end
    is_whole {}
  end)

  local CASES = {
    { "commits are few", { before = function()
      set { commit_bytes = "1000000000000000" } -- falls slowly
    end } },
    { "records are long", { size = 400 } },
    { "records take more than branches do", { size = 240 } },
    { "little is dead in the other segments", { again = 10, each = KEYS, turns = 10 } },
    { "a snapshot holds what was there", { hold = function()
      return assert(db:snapshot())
    end } },
    { "a saved snapshot does", { is_saved = true, hold = function()
      assert(db:save("moment"))
    end } },
    { "the store is compacted", { before = function()
      set { compacting_ns = "7fffffffffffffff", compact_epoch = "7fffffffffffffff" }
    end } },
    { "there is no space", { before = function() set { is_full = 1 } end } },
  }
  for _, case in ipairs(CASES) do
    it("is nothing where " .. case[1], function()
      local held = make_store(case[2])
      local most = most_moved(case[2].turns)
      if held then held:close() end
      assert.is_true(most > LOOK / 2 and most < LOOK + NODE, most)
      is_whole(case[2])
    end)
  end
end)

describe("a large value that is moved", function()
  it("is the same, and expires when it would have", function()
    db = scratch.open(path)
    for i = 1, 9 do assert(db:put("k" .. i, binary.bytes(40000, i), 1000000 * i)) end
    for i = 1, 8 do
      if i % 3 > 0 then assert.is_true(db:delete("k" .. i)) end
    end
    assert(db:sync())
    local moved, version = 0, db:version()
    for _ = 1, 20 do moved = moved + binary.number((assert(db:clean(100000)))) end
    assert.is_true(moved > 40000)
    assert.equal(version, db:version())
    for i = 3, 9, 3 do
      assert.is_true(db:get("k" .. i) == binary.bytes(40000, i))
      local ttl = db:ttl("k" .. i)
      assert.is_true(ttl > 1000000 * i - 100000 and ttl <= 1000000 * i, ttl)
    end
    assert.same({}, db:check())
  end)
end)
