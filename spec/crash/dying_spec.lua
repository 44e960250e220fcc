-- SPDX-License-Identifier: MIT
--
-- A process that is killed at its n-th system call, or just before or after
-- the n-th store that publishes a change, for every n until it gets through.
-- Another process then finds all that calls of the first have returned from, and
-- goes on: at every level, because the machine lives.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"

local SEGMENT = 131072

-- What the process does, call by call: put, delete, sync, a transaction, which
-- is a list of puts and deletions, put_many, changes of a map, the saving of a snapshot,
-- compact, clear, or a step, which sweeps what has expired. What is put with a time to live
-- has expired for whoever comes after the process.
local calls = {}
for i = 1, 6 do calls[#calls + 1] = { "put", "key " .. i, ("v"):rep(i * 90) } end
calls[#calls + 1] = { "sync" }
calls[#calls + 1] = { "put", "key 2", "changed" }
calls[#calls + 1] = { "delete", "key 3" }
calls[#calls + 1] = { "put", "large", ("large"):rep(7000) }
calls[#calls + 1] = { "sync" }
calls[#calls + 1] = { "delete", "key 1" }
calls[#calls + 1] = { "put", "key 7", ("grow"):rep(8000) }
calls[#calls + 1] = { "put", "key 8", ("grow"):rep(8000) }
calls[#calls + 1] = { "sync" }
calls[#calls + 1] = { "clean" }
calls[#calls + 1] = { "update", { { "put", "key 2", "of the transaction" },
  { "delete", "key 4" }, { "put", "large", ("L"):rep(40000) },
  { "put", "key 9", ("grow"):rep(15000) }, { "put", "key 2", "again" } } }
calls[#calls + 1] = { "update", { { "put", "key 3", "more" },
  { "delete", "key 5" } } }
calls[#calls + 1] = { "sync" }
calls[#calls + 1] = { "clean" }
calls[#calls + 1] = { "put", "key 7", "after cleaning" }
calls[#calls + 1] = { "map_put", "key 1", "of the map" }
calls[#calls + 1] = { "put_many", { "many 1", "one", "key 7", "two", "many 3", "three" } }
calls[#calls + 1] = { "map_put", "key 2", "of the map, too" }
calls[#calls + 1] = { "map_clear" }
calls[#calls + 1] = { "map_put", "key 3", "alone in the map" }
calls[#calls + 1] = { "drop", "a map" }
calls[#calls + 1] = { "map_put", "key 1", "of a map that came again" }

for i = 1, 3 do calls[#calls + 1] = { "put", "gone " .. i, "soon", 50 } end
calls[#calls + 1] = { "expire", "key 2", 50 }
calls[#calls + 1] = { "update", { { "put", "gone 4", "soon", 50 },
  { "put", "gone 5", "soon", 50 } } }
calls[#calls + 1] = { "add", "gone 6", "soon", 50 }
calls[#calls + 1] = { "replace", "gone 6", "soon, too", 50 }
calls[#calls + 1] = { "put_many", { "gone 7", "soon", "gone 8", "soon" }, 50 }
calls[#calls + 1] = { "pass" }
calls[#calls + 1] = { "step" }
calls[#calls + 1] = { "put", "key 2", "back again" }
calls[#calls + 1] = { "sync" }
calls[#calls + 1] = { "save", "a snapshot" }
calls[#calls + 1] = { "put", "key 2", "after that" }
calls[#calls + 1] = { "save", "another" }
calls[#calls + 1] = { "delete", "key 3" }
calls[#calls + 1] = { "drop_saved", "a snapshot" }
calls[#calls + 1] = { "sync" }
calls[#calls + 1] = { "compact" }
calls[#calls + 1] = { "put", "key 2", "in the compact store" }
calls[#calls + 1] = { "clear" }
calls[#calls + 1] = { "put", "key 1", "after all" }

local BEGIN = 1700000000000

-- What a store holds, as one text; saved snapshots, and records of the map, are under
-- such names.
local SAVED, IN_MAP = "saved: ", "in map: "

local function text_of(records)
  local lines = {}
  for key, value in pairs(records) do
    if not key:find("^saved: ") and not key:find("^in map: ") then
      lines[#lines + 1] = key .. "=" .. value
    end
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

local function contents(db)
  local records = assert(db:records())
  for name in pairs(assert(db:saved())) do
    local snapshot = assert(db:open_saved(name))
    records[SAVED .. name] = text_of((snapshot:records()))
    snapshot:close()
  end
  local map = assert(db:map("a map"))
  for key, value in pairs((assert(map:records()))) do records[IN_MAP .. key] = value end
  map:close()
  return records
end

-- What a call does to the records, but for one that changes one of them.
local effects = {}

function effects.put_many(records, list, ttl)
  for i = 1, #list, 2 do records[list[i]] = not ttl and list[i + 1] or nil end
end

function effects.clear(records)
  for key in pairs(records) do
    if not key:find("^saved: ") and not key:find("^in map: ") then records[key] = nil end
  end
end

function effects.map_put(records, key, value) records[IN_MAP .. key] = value end

function effects.map_clear(records)
  for key in pairs(records) do
    if key:sub(1, #IN_MAP) == IN_MAP then records[key] = nil end
  end
end

effects.drop = effects.map_clear

-- models[i]: after call i - 1.
local function models_of()
  local models, now = { {} }, {}
  for i, call in ipairs(calls) do
    local next_model = {}
    for key, value in pairs(now) do next_model[key] = value end
    local changes = call[1] == "update" and call[2] or { call }
    if effects[call[1]] then
      effects[call[1]](next_model, call[2], call[3])
      changes = {}
    end
    for _, change in ipairs(changes) do
      local name, key, value = change[1], change[2], change[3]
      if name == "save" then value = text_of(now) end
      if name == "save" or name == "drop_saved" then key = SAVED .. key end
      if name == "expire" or change[4] then value = nil end
      if key then next_model[key] = value end
    end
    now = next_model
    models[i + 1] = now
  end
  return models
end

local function update(db, changes)
  local txn = assert(db:begin())
  for _, change in ipairs(changes) do
    assert(txn[change[1]](txn, change[2], change[3], change[4]))
  end
  return txn:commit()
end

local function pass() return probe.os.wall_ms(BEGIN + 100) end

-- The cleaner, for a while.
local function clean(db) return db:clean(300000) end

local function in_map(method)
  return function(db, ...)
    local map = assert(db:map("a map"))
    local result = assert(map[method](map, ...))
    assert(map:close())
    return result
  end
end

local others = { update = update, pass = pass, clean = clean, map_put = in_map("put"),
  map_clear = in_map("clear") }

local function work(path, level, plan)
  probe.os.wall_ms(BEGIN)
  plan()
  local db = assert(probe.store.open(path, { segment_size = SEGMENT,
    durability = level }))
  for i, call in ipairs(calls) do
    assert((others[call[1]] or db[call[1]])(db, call[2], call[3], call[4]))
    probe.child.say(tostring(i))
  end
  assert(db:close())
end

local function matches(records, model)
  for key, value in pairs(records) do
    if model[key] ~= value then return false end
  end
  for key in pairs(model) do
    if records[key] == nil then return false end
  end
  return true
end

-- Runs work() in a child with `plan`; whether the child got through.
local function die_and_recover(level, plan, where)
  local path = crash.path("dying")
  os.remove(path)
  local child = probe.child.start(function() work(path, level, plan) end)
  local returned = 0
  for line in function() return child:line() end do
    returned = tonumber(line) or returned
  end
  local text, how, status = child:wait()
  if how == "exit" then assert.equal(0, status, text) end
  probe.os.wall_ms(BEGIN + 100)
  local models = models_of()
  local db = assert(probe.store.open(path, { segment_size = SEGMENT }))
  local records = contents(db)
  -- Nothing counts what saved snapshots hold.
  if next((assert(db:saved()))) == nil then
    assert.equal(("0"):rep(16), assert(db:usage()).low, where)
  end
  local found
  for i = returned, math.min(returned + 1, #calls) do
    if matches(records, models[i + 1]) then found = i end
  end
  assert.truthy(found, ("%s, %s: returned %d, found something else")
    :format(level, where, returned))
  assert(db:put("afterwards", where))
  local left = select(2, db:records())
  local stop = probe.os.monotonic_ns() + 20e9
  while db:count() > left do
    assert(probe.os.monotonic_ns() < stop, "not swept: " .. db:count() - left)
    assert(db:step(100))
  end
  assert(db:close())
  local report = assert(probe.verify.bytes(scratch.read(path)))
  assert.same({}, report.failures)
  os.remove(path)
  return how == "exit"
end

-- At every one in the long form; else at some, at others the next time.
local function die_at_every(what, plan_of, level)
  local step = crash.is_long and 1 or crash.thinning > 1 and 5 or 2
  local n, deaths = os.time() % step + 1, 0
  while not die_and_recover(level, plan_of(n), ("%s %d"):format(what, n)) do
    deaths = deaths + 1
    assert.is_true(n < 5000)
    n = n + step
  end
  print(("# %s, level %s: died %d times"):format(what, level, deaths))
  assert.is_true(deaths > 3)
end

describe("a process that dies", function()
  teardown(function()
    probe.os.wall_ms(0)
    crash.remove_folder()
  end)

  for _, level in ipairs { "sync", "manual" } do
    it("loses nothing promised: each system call, level " .. level, function()
      die_at_every("system call", function(n)
        return function() probe.os.die("*", n) end
      end, level)
    end)

    it("loses nothing promised: within each pwrite, level " .. level,
      function()
        die_at_every("half a pwrite", function(n)
          return function() probe.os.die("pwrite", n, 700) end
        end, level)
      end)

    it("loses nothing promised: each published store, level " .. level,
      function()
        if not crash.has_hooks then
          pending("needs --enable-debug-checks")
          return
        end
        die_at_every("published store", function(n)
          return function() probe.crash.die_at_point(n) end
        end, level)
      end)
  end

  -- It deletes two files, the data file first.
  it("leaves the whole store, or none, when it dies removing it", function()
    local path, deaths, found = crash.path("removing"), 0, { whole = 0, none = 0 }
    repeat
      os.remove(path)
      os.remove(path .. "-lock")
      local child = probe.child.start(function()
        local db = assert(probe.store.open(path, { segment_size = SEGMENT,
          durability = "manual" }))
        for i = 1, 20 do assert(db:put("key " .. i, ("v"):rep(i * 90))) end
        assert(db:sync())
        assert(db:put("key 1", "not on disk yet"))
        probe.os.die("*", deaths + 1)
        assert(db:remove())
      end)
      local text, how, status = child:wait()
      if how == "exit" then assert.equal(0, status, text) else deaths = deaths + 1 end
      local is_whole = scratch.read(path) ~= nil
      local db = assert(probe.store.open(path, { segment_size = SEGMENT }))
      assert.equal(is_whole and 20 or 0, db:count())
      assert.equal(is_whole and "not on disk yet" or nil, (db:get("key 1")))
      assert(db:put("afterwards", "it works on"))
      assert(db:close())
      assert.same({}, assert(probe.verify.bytes(scratch.read(path))).failures)
      local word = is_whole and "whole" or "none"
      found[word] = found[word] + 1
    until how == "exit"
    print(("# removing: died %d times"):format(deaths))
    assert.is_true(found.whole > 0 and found.none > 1)
  end)

  it("leaves a whole file, or none, when it dies salvaging", function()
    local from, to, deaths = crash.path("damaged"), crash.path("salvaged"), 0
    local db = assert(probe.store.open(from, { segment_size = SEGMENT }))
    for i = 1, 20 do assert(db:put("key " .. i, ("v"):rep(i * 90))) end
    assert(db:put("large", ("large"):rep(20000)))
    assert(db:close())
    local bytes = scratch.read(from)
    local through
    repeat
      os.remove(to)
      local child = probe.child.start(function()
        probe.os.die("*", deaths + 1)
        assert.equal(21, probe.store.salvage(from, to))
      end)
      local text, how, status = child:wait()
      through = how == "exit"
      if through then assert.equal(0, status, text) else deaths = deaths + 1 end
      if through or scratch.read(to) then
        local rescued = assert(probe.store.open(to, { create = false }))
        assert.equal(21, rescued:count())
        assert.same({}, rescued:check())
        assert(rescued:remove())
      end
      assert.is_true(scratch.read(from) == bytes)
    until through
    print(("# salvaging: died %d times"):format(deaths))
    assert.is_true(deaths > 10)
  end)
end)
