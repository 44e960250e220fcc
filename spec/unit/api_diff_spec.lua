-- SPDX-License-Identifier: MIT
--
-- A diff where records expire: it tells what has expired between its snapshots, and
-- looks at what they share only where something can have.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"

local now
local function pass(ms)
  now = now + ms
  probe.os.wall_ms(now)
end

local db, path

local function open()
  return assert(probe.store.open(path, { durability = "manual" }))
end

before_each(function()
  now = 1700000000000
  pass(0)
  path = scratch.path("diff")
  db = open()
end)

after_each(function()
  peers.kill_all()
  db:close()
  probe.os.wall_ms(0)
end)

local function write_at(offset, bytes)
  local file = assert(io.open(path, "r+b"))
  assert(file:seek("set", offset))
  assert(file:write(bytes))
  file:close()
end

-- Where the record of a key of that name begins, which is in the file once.
local function record_of(key)
  local file = assert(io.open(path, "rb"))
  local at = file:read("a"):find(key, 1, true)
  file:close()
  return at - 1 - 24
end

-- The difference that f() makes in a map.
local function difference(f, map)
  local a = assert((map or db):snapshot())
  f()
  local b = assert((map or db):snapshot())
  local changes, code, what = a:diff(b)
  a:close()
  b:close()
  return changes, code, what
end

-- Whether the diff looks at a record that does not expire and stays as it is: it is
-- damaged meanwhile.
local function looks_at(key, f, map)
  local at = record_of(key)
  local changes, code, what = difference(function()
    f()
    write_at(at + 15, "\255")
  end, map)
  write_at(at + 15, "\2")
  if changes then return false end
  assert.same({ "ECORRUPT", "F21 node kind" }, { code, what })
  return true
end

local function lock_word(offset)
  local file = assert(io.open(path .. "-lock", "rb"))
  assert(file:seek("set", offset))
  local word = binary.number_at(file:read(8), 0)
  file:close()
  return word
end

-- A whole round of the sweep, which is due now or in a moment.
local function sweep()
  local rounds = lock_word(296)
  local stop = probe.os.monotonic_ns() + 20e9
  repeat
    assert(probe.os.monotonic_ns() < stop, "no round comes to its end")
    assert(db:step(20))
  until lock_word(296) > rounds and lock_word(304) == 0
end

describe("a diff", function()
  it("agrees with its snapshots about what has expired in between", function()
    for i = 1, 300 do assert(db:put("stays " .. i, "v")) end
    for i = 1, 300 do assert(db:put("later " .. i, "v", 1000)) end
    assert(db:put("goes", "v", 100))
    assert(db:put("is replaced", "v", 100))
    assert(db:put("has gone", "v", 1))
    pass(1)
    local changes, count = difference(function()
      pass(100)
      assert(db:put("is replaced", "w"))
      assert(db:put("has gone", "again"))
    end)
    assert.same({ goes = { old = "v" }, ["is replaced"] = { old = "v", new = "w" },
      ["has gone"] = { new = "again" } }, changes)
    assert.equal(3, count)
    assert.same({}, (difference(function() end)))
  end)

  it("takes another time for no difference", function()
    assert(db:put("k", "v", 100))
    assert.same({}, (difference(function() assert(db:expire("k", 500)) end)))
    assert.same({}, (difference(function() assert(db:expire("k", 0)) end)))
  end)

  it("is right in all maps, whatever expires when", function()
    local maps = { db, assert(db:map("a")), assert(db:map("b")) }
    for round = 1, 12 do
      local wanted = { {}, {}, {} }
      for m, map in ipairs(maps) do
        for i = 1, 40 do
          local ttl = round % (m + 1) > 0 and (m * round + i) % 4 * 10 or 0
          assert(map:put(round .. " " .. i, "v", ttl))
          if ttl > 0 and ttl <= 20 then
            wanted[m][round .. " " .. i] = { old = "v" }
          end
        end
      end
      local before = {}
      for m, map in ipairs(maps) do before[m] = assert(map:snapshot()) end
      pass(20)
      if round % 3 == 0 then assert(db:step(20)) end
      for m, map in ipairs(maps) do
        local after = assert(map:snapshot())
        assert.same(wanted[m], (before[m]:diff(after)))
        local count = 0
        for _, change in pairs((after:diff(before[m]))) do
          assert.same({ new = "v" }, change)
          count = count + 1
        end
        assert.same(count, select(2, before[m]:diff(after)))
        after:close()
        before[m]:close()
      end
      pass(20) -- and what is left
    end
    for m = 2, 3 do maps[m]:close() end
    assert.same({}, db:check())
  end)
end)

describe("what does not change is left alone by a diff", function()
  local function a_moment() pass(10) end

  local function fill()
    sweep() -- until then it is not known that nothing expires
    for i = 1, 200 do assert(db:put("key " .. i, "v")) end
    assert(db:put("the canary", "v"))
  end

  it("in a map without a time to live, beside one with", function()
    fill()
    local map = assert(db:map("sessions"))
    assert(map:put("session", "v", 10))
    assert(map:put("another canary", "v"))
    assert.is_false(looks_at("the canary", a_moment))
    assert(map:put("session", "v", 10))
    assert.is_true(looks_at("another canary", a_moment, map))
    map:close()
  end)

  it("in a store with a map and a saved snapshot, where nothing expires", function()
    fill()
    assert(assert(db:map("m")):put("k", "v"))
    assert(db:save("s"))
    assert.is_false(looks_at("the canary", a_moment))
  end)

  it("before the first that expires", function()
    fill()
    for i = 1, 100 do assert(db:put("session " .. i, "v", 1000 + i)) end
    assert.is_false(looks_at("the canary", a_moment))
    assert.is_false(looks_at("the canary", function() pass(990) end)) -- until 1,000
    assert.is_true(looks_at("the canary", function() pass(1) end))
    assert.is_true(looks_at("the canary", function() pass(999) end))
  end)

  it("when all that expired is swept, until there is more", function()
    fill()
    assert(db:put("session", "v", 10))
    assert.is_true(looks_at("the canary", a_moment))
    sweep()
    assert.is_false(looks_at("the canary", a_moment))
    assert(db:put("session", "v", 10))
    assert.is_true(looks_at("the canary", a_moment))
    sweep()
    assert.is_false(looks_at("the canary", a_moment))
    assert.same({}, db:check())
  end)

  it("when nothing is left that expires, though it does in another map", function()
    fill()
    local map = assert(db:map("sessions"))
    local function looks()
      assert(map:put("s", "v", 10)) -- so that something expires
      return looks_at("the canary", a_moment)
    end
    for _, last in ipairs { "swept", "deleted", "for ever" } do
      assert(db:put("session", "v", last == "swept" and 10 or 1000))
      assert.is_true(looks())
      if last == "deleted" then assert(db:delete("session")) end
      if last == "for ever" then assert(db:expire("session", 0)) end
      sweep()
      assert.is_false(looks())
      assert.same({}, db:check())
    end
    map:close()
  end)

  it("and no content is changed when that is noted", function()
    fill()
    assert(db:put("session", "v", 10))
    assert(db:delete("session"))
    local map = assert(db:map("sessions"))
    assert(map:put("session", "v", 10))
    assert(map:expire("session", 0))
    local version = db:version()
    pass(10)
    assert.same({}, (difference(sweep)))
    assert.equal(version, db:version())
    assert.same({ 201, 1 }, { db:count(), map:count() })
    assert.same({}, db:check())
    map:close()
  end)

  it("in a map with a name as well", function()
    fill()
    local map = assert(db:map("m"))
    assert(map:put("in the map", "v"))
    assert(map:put("session", "v", 1000))
    local function looks()
      assert(db:put("s", "v", 10))
      return looks_at("in the map", a_moment, map)
    end
    assert.is_true(looks())
    assert(map:delete("session"))
    sweep()
    assert.is_false(looks())
    assert(map:put("session", "v", 10))
    assert.is_true(looks())
    assert.same({}, db:check())
    map:close()
  end)

  it("since what was saved, if nothing is waiting to be swept", function()
    fill()
    assert(db:put("stays", "v", 1000))
    assert(db:put("session", "v", 10))
    assert(db:save("then"))
    pass(10)
    sweep()
    local at = record_of("the canary")
    local a, b = assert(db:open_saved("then")), assert(db:snapshot())
    write_at(at + 15, "\255")
    local changes = a:diff(b)
    write_at(at + 15, "\2")
    assert.same({ session = { old = "v" } }, changes)
    a:close()
    b:close()
  end)

  it("not when something was put that expires while a round had none", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    assert(db:put("session", "v", 10))
    local peer = peers.launch(path)
    peer:ask("probe.os.wall_ms(tonumber((...)))", now + 10)
    peer:ask("db = assert(probe.store.open(path, { durability = 'manual' }))")
    peer:ask("probe.crash.die_at_point(1, 19, 'sweep')") -- it has looked
    peer:tell("return db:step(1000)")
    peer:await_stopped()
    pass(10)
    assert(db:put("later", "v", 20))
    peer:go_on()
    assert.equal("true", peer:answer())
    assert.same({}, db:check())
    assert.same({ later = { old = "v" } },
      (difference(function() pass(20) end)))
    peer:finish()
  end)
end)
