-- SPDX-License-Identifier: MIT
--
-- Expiry in C, with a clock that stands still unless it is told otherwise.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"

local BEGIN = 1700000000000
local NIL, ONE = binary.hex(0), binary.hex(1)

local now
local function pass(ms)
  now = now + ms
  probe.os.wall_ms(now)
end

local function open(options, path)
  local all = { durability = "manual" }
  for name, value in pairs(options or {}) do all[name] = value end
  return assert(probe.store.open(path or scratch.path("expiry"), all))
end

-- Steps of `ms` until fewer than `count` records are counted: how many are left.
local function sweep_below(db, count, ms)
  local end_ns = probe.os.monotonic_ns() + 20e9
  while db:count() >= count do
    assert(probe.os.monotonic_ns() < end_ns, "not swept: " .. db:count())
    assert(db:step(ms))
  end
  return db:count()
end

-- Steps until `count` records are counted.
local function sweep_to(db, count)
  assert.equal(count, sweep_below(db, count + 1, 50))
end

local function assert_sound(db)
  assert.same({}, db:check())
end

local db

before_each(function() now = BEGIN pass(0) end)
after_each(function()
  if db then db:close() end
  db = nil
  probe.os.wall_ms(0)
end)

describe("expiry", function()
  before_each(function() db = open() end)

  it("ends a record when its time is over, not before", function()
    assert(db:put("k", "v", 100))
    assert.equal(100, db:ttl("k"))
    pass(99)
    assert.equal("v", db:get("k"))
    assert.is_true(db:has("k"))
    assert.equal(1, db:ttl("k"))
    pass(1)
    assert.is_nil(db:get("k"))
    assert.is_false(db:has("k"))
    assert.is_nil(db:ttl("k"))
    assert_sound(db)
  end)

  it("takes 0 for no time to live, and times beyond all bounds", function()
    assert(db:put("never", "v", 0))
    assert(db:put("late", "v", ("f"):rep(16)))
    assert(db:put("later", "v", "7fffffffffffffff"))
    assert.equal(0, db:ttl("never"))
    pass(1e12)
    assert.equal("v", db:get("never"))
    assert.equal("v", db:get("late"))
    assert.equal("v", db:get("later"))
    assert_sound(db)
  end)

  it("is absent for all that read", function()
    local map = assert(db:map("m"))
    for _, where in ipairs { db, map } do
      assert(where:put("gone", "v", 10))
      assert(where:put("stays", "w", 20))
      assert(where:put("for ever", "x"))
    end
    pass(10)
    local left = { stays = "w", ["for ever"] = "x" }
    for _, where in ipairs { db, map } do
      assert.is_nil(where:get("gone"))
      assert.same({ nil, "w", "x" },
        where:get_many { "gone", "stays", "for ever" })
      assert.same({ left, 2 }, { where:records() })
      local snapshot = assert(where:snapshot())
      assert.is_nil(snapshot:get("gone"))
      assert.is_nil(snapshot:ttl("gone"))
      assert.equal(10, snapshot:ttl("stays"))
      assert.equal(0, snapshot:ttl("for ever"))
      assert.same({ left, 2 }, { snapshot:records() })
      assert.equal(2, #snapshot:page("", 9))
      snapshot:close()
      assert.equal(3, where:count()) -- not swept yet
    end
    map:close()
  end)

  it("is absent for all that change", function()
    local function gone() assert(db:put("k", "7", 5)) pass(5) end
    gone()
    assert.is_false(db:delete("k"))
    gone()
    assert.is_false(db:expire("k", 100))
    gone()
    assert.equal("NOTFOUND", db:replace("k", "v"))
    gone()
    assert.equal("MISMATCH", db:cas("k", "7", "v"))
    assert.is_true(db:cas("k", nil, nil))
    assert.is_true(db:cas("k", nil, "new"))
    assert.equal(0, db:ttl("k"))
    gone()
    assert.is_true(db:add("k", "v"))
    assert.equal("MISMATCH", db:add("k", "w"))
    gone()
    assert.same({ nil, false }, { db:swap("k", "v") })
    assert.equal("v", db:get("k"))
    gone()
    assert.equal(ONE, db:incr("k", ONE, NIL))
    assert.equal(0, db:ttl("k"))
    assert.equal(1, db:count())
    assert_sound(db)
  end)

  it("drops the time with every put, but for that of incr", function()
    local function with_time() assert(db:put("k", "7", 500)) end
    local function has(ttl) assert.equal(ttl, db:ttl("k")) end
    with_time() assert(db:put("k", "v")) has(0)
    with_time() assert(db:replace("k", "v")) has(0)
    with_time() assert(db:cas("k", "7", "v")) has(0)
    with_time() assert(db:swap("k", "v")) has(0)
    with_time() assert(db:put_many { "k", "v" }) has(0)
    with_time() pass(100) assert(db:incr("k", ONE, NIL)) has(400)
    assert.equal("8", db:get("k"))
    assert(db:put("k", "v"))
    assert(db:replace("k", "v", 300)) has(300)
    assert(db:put_many({ "k", "v", "l", "w" }, 200)) has(200)
    assert.equal(200, db:ttl("l"))
    assert(db:delete("k"))
    assert(db:add("k", "v", 100)) has(100)
  end)

  it("can be set, and lifted, later", function()
    assert(db:put("k", "v"))
    assert.is_true(db:expire("k", 100))
    assert.equal("v", db:get("k"))
    assert.equal(100, db:ttl("k"))
    pass(50)
    assert.is_true(db:expire("k", 100))
    assert.equal(100, db:ttl("k"))
    pass(50)
    assert.is_true(db:expire("k", 0))
    assert.equal(0, db:ttl("k"))
    pass(1000)
    assert.equal("v", db:get("k"))
    assert.is_false(db:expire("nobody", 5))
    assert.is_nil(db:get("nobody"))
  end)

  it("is for keys and values of any size", function()
    for _, key in ipairs { "", "\0", ("k"):rep(65535) } do
      for _, value in ipairs { "", "v", ("v"):rep(70000),
        ("large"):rep(100000) } do
        assert(db:put(key, value, 100))
        assert.is_true(db:get(key) == value)
        assert.is_true(db:expire(key, 200))
        assert.is_true(db:get(key) == value)
        assert.equal(200, db:ttl(key))
        assert_sound(db)
        pass(200)
        assert.is_nil(db:get(key))
      end
    end
    sweep_to(db, 0)
    assert_sound(db)
  end)

  it("is part of a transaction, which has the time of its beginning", function()
    assert(db:put("old", "v", 50))
    local txn = assert(db:begin())
    assert(txn:put("a", "1", 100))
    assert(txn:put("b", "2"))
    assert(txn:expire("b", 10))
    assert.is_nil(db:get("a"))
    pass(60)
    assert.equal("v", txn:get("old"))
    assert.equal(50, txn:ttl("old"))
    assert.is_nil(db:get("old"))
    assert.equal("1", txn:get("a"))
    assert.equal(100, txn:ttl("a"))
    assert.equal(10, txn:ttl("b"))
    assert.same({ { old = "v", a = "1", b = "2" }, 3 }, { txn:records() })
    assert.equal("MISMATCH", txn:add("old", "w"))
    assert(txn:put("c", "3", 100))
    assert.equal(100, txn:ttl("c"))
    assert(txn:commit())
    assert.same({ { a = "1", c = "3" }, 2 }, { db:records() })
    assert.equal(40, db:ttl("c"))

    txn = assert(db:begin())
    assert.is_nil(txn:get("old"))
    assert.is_nil(txn:ttl("old"))
    assert.is_false(txn:delete("old"))
    assert.is_false(txn:has("b"))
    assert.is_true(txn:add("b", "again", 5))
    txn:abort()
    assert.is_nil(db:get("b"))
    assert_sound(db)
  end)

  it("comes back with a savepoint", function()
    local txn = assert(db:begin())
    assert(txn:put("a", "1"))
    local savepoint = assert(txn:savepoint())
    assert(txn:put("a", "2", 100))
    assert(txn:map("new"):put("b", "3", 100))
    assert(txn:rollback_to(savepoint))
    assert.equal(0, txn:ttl("a"))
    assert(txn:put("c", "4", 100))
    assert(txn:commit())
    assert.equal(0, db:ttl("a"))
    assert.equal(100, db:ttl("c"))
    assert_sound(db)
  end)

  it("lets many be put, or none", function()
    assert(db:put("k", "v", 100))
    local long = ("k"):rep(65536)
    assert.is_nil((db:put_many({ "k", "w", "l", "w", long, "x" }, 5)))
    assert.equal(100, db:ttl("k"))
    assert.is_nil(db:get("l"))
    local txn = assert(db:begin())
    assert.is_nil((txn:put_many({ "k", "w", long, "x" }, 5)))
    assert.equal(100, txn:ttl("k"))
    assert(txn:commit())
    assert_sound(db)
  end)

  it("does not reach into what was opened before", function()
    assert(db:put("k", "v", 100))
    local snapshot = assert(db:snapshot())
    local map = assert(snapshot:map("nobody's"))
    pass(100)
    assert.is_nil(db:get("k"))
    assert.equal("v", snapshot:get("k"))
    assert.equal(100, snapshot:ttl("k"))
    sweep_to(db, 0)
    assert.equal("v", snapshot:get("k"))
    assert.same({ { k = "v" }, 1 }, { snapshot:records() })
    map:close()
    snapshot:close()
  end)

  it("shows in the dump", function()
    assert(db:put("a", "1", 100))
    assert(db:put("b", "2", 150))
    assert(db:put("c", "3"))
    pass(100)
    local snapshot = assert(db:snapshot())
    local text = assert(snapshot:dump())
    assert.truthy(text:find('"a" = "1"[^\n]*, expired\n'))
    assert.truthy(text:find('"b" = "2"[^\n]*, expires in 50 ms\n'))
    assert.truthy(text:find('"c" = "3"[^,\n]*, at %d+\n'))
    snapshot:close()
  end)

  it("survives closing, and dying of all, with its time", function()
    local path = scratch.path("expiry")
    local other = open(nil, path)
    assert(other:put("a", "1", 100))
    assert(other:map("m"):put("b", "2", 200))
    assert(other:sync())
    local bytes = scratch.read(path)
    assert(other:close())
    pass(50)
    for _, content in ipairs { scratch.read(path), bytes } do
      other = open(nil, scratch.write(scratch.path("expiry"), content))
      assert.equal(50, other:ttl("a"))
      local map = other:map("m")
      assert.equal(150, map:ttl("b"))
      pass(50)
      assert.is_nil(other:get("a"))
      sweep_to(other, 0)
      pass(100)
      sweep_to(map, 0)
      map:close()
      assert(other:close())
      pass(-150)
      -- The clock of the next one is its own: it begins with its lock file.
    end
  end)

  it("changes the version when it is swept, not before", function()
    assert(db:put("k", "v", 100))
    local version = db:version()
    pass(100)
    assert.is_nil(db:get("k"))
    assert.equal(version, db:version())
    sweep_to(db, 0)
    assert.not_equal(version, db:version())
  end)

  it("is refused where one only reads", function()
    local path = scratch.path("expiry")
    assert(open(nil, path):close())
    local reader = open({ readonly = true }, path)
    for _, result in ipairs { { reader:put("k", "v", 5) },
      { reader:expire("k", 5) }, { reader:add("k", "v", 5) } } do
      assert.equal("EREADONLY", result[2])
    end
    assert(reader:step())
    reader:close()
  end)

  it("fails before it changes anything", function()
    local function too_big(result, code)
      assert.is_nil(result)
      assert.equal("ETOOBIG", code)
    end
    too_big(db:put(("k"):rep(65536), "v", 5))
    too_big(db:expire(("k"):rep(65536), 5))
    assert.equal(0, db:count())
    local txn = assert(db:begin())
    local result, code = db:put("k", "v", 5)
    assert.is_nil(result)
    assert.equal("EBUSY", code)
    txn:abort()
  end)
end)

describe("the clock of expiry", function()
  it("never goes back", function()
    db = open()
    assert(db:put("k", "v", 100))
    pass(100)
    assert.is_nil(db:get("k"))
    pass(-5000)
    assert.is_nil(db:get("k"))
    assert.equal("NOTFOUND", db:replace("k", "w"))
    local snapshot = assert(db:snapshot())
    assert.is_nil(snapshot:get("k"))
    snapshot:close()
    -- It stands still until the other has caught up.
    assert(db:put("l", "w", 100))
    pass(4999)
    assert.equal(100, db:ttl("l"))
    pass(101)
    assert.is_nil(db:get("l"))
  end)

  it("is that of all processes", function()
    local path = scratch.path("expiry")
    db = open(nil, path)
    assert(db:put("k", "v", 100))
    local child = probe.child.start(function()
      pass(200)
      local other = open(nil, path)
      probe.child.say(tostring(other:get("k")))
      other:close()
    end)
    assert.equal("nil", child:line())
    child:wait()
    assert.equal(BEGIN, probe.os.wall_ms()) -- here it is earlier
    assert.is_nil(db:get("k"))
  end)

  it("outlives them, as long as somebody takes over", function()
    local path = scratch.path("expiry")
    local text, how = probe.child.run(function()
      db = open(nil, path)
      assert(db:put("k", "v", 100))
      pass(200)
      assert(db:get("k") == nil)
      probe.child.raise(9)
    end)
    assert.equal("signal", how, text)
    db = open(nil, path)
    if db:stat().recovered_commits > 0 or db:count() == 0 then
      db:close()
      return pending("nothing is taken over here")
    end
    assert.is_nil(db:get("k"))
  end)
end)

describe("the sweep", function()
  it("deletes what has expired, in all maps, and nothing else", function()
    db = open()
    local maps = { db }
    for i = 1, 20 do maps[i + 1] = assert(db:map("map " .. i)) end
    for i, map in ipairs(maps) do
      for n = 1, 100 do assert(map:put("k" .. n, "v", 1000 * (n % 2 + i % 2))) end
    end
    local plain = assert(db:map("plain"))
    assert(plain:put("k", "v"))
    pass(1000)
    for _, map in ipairs(maps) do sweep_to(map, 50) end
    pass(1000)
    for i, map in ipairs(maps) do sweep_to(map, i % 2 == 0 and 50 or 0) end
    for i, map in ipairs(maps) do
      for key in pairs((map:records())) do -- i and n even: for ever
        assert.equal(0, i % 2 + tonumber(key:sub(2)) % 2)
      end
    end
    assert.equal(1, plain:count())
    assert_sound(db)
    for i = 2, #maps do maps[i]:close() end
    plain:close()
  end)

  for name, masks in pairs {
    ["equal hashes"] = { primary_mask = NIL, secondary_mask = NIL },
    ["weak hashes"] = { primary_mask = "f0000000000000ff",
      secondary_mask = "8000000000000001" } } do
    it("comes to all with " .. name, function()
      masks.segment_size = 131072
      db = open(masks)
      for m = 1, 5 do
        local map = assert(db:map("map " .. m))
        for n = 1, 300 do assert(map:put("k" .. n, "v", n % 3 * 100)) end
        map:close()
      end
      pass(100)
      for m = 1, 5 do
        local map = assert(db:map("map " .. m))
        sweep_to(map, 200)
        map:close()
      end
      assert.same({}, db:check())
    end)
  end

  it("takes keys of any length", function()
    db = open()
    for i = 1, 60 do
      assert(db:put(("k"):rep(i * 1000 + 5000) .. i, "v", 100))
    end
    assert(db:put("", "v", 100))
    pass(100)
    sweep_to(db, 0)
    assert_sound(db)
  end)

  it("works in bounded steps", function()
    db = open()
    for i = 1, 20000 do assert(db:put("k" .. i, "v", 1)) end
    pass(1)
    assert(db:step(0))
    assert.equal(20000, db:count())
    assert.is_true(sweep_below(db, 20000, 1) > 0)
    sweep_to(db, 0)
  end)

  it("lets a session cache be no larger than what is alive", function()
    db = open()
    for i = 1, 30000 do
      assert(db:put("session " .. i, "v", 1000))
      if i % 10 == 0 then pass(10) end -- a thousand in a second
      if i % 100 == 0 then assert(db:step(1)) end
      -- Those of the last ten milliseconds of a second ago have just gone. Pauses
      -- are of the real clock: they may be waited for.
      if i % 5000 == 0 then sweep_to(db, 990) end
    end
    pass(1000)
    sweep_to(db, 0)
  end)

  it("does not touch what has been put again", function()
    db = open({ durability = "async", flush_interval_ms = 1 })
    for n = 1, 300 do
      for i = 1, 200 do assert(db:put("k" .. i, "v" .. n, 2)) end
      pass(2)
      for i = 1, 200, 2 do assert(db:put("k" .. i, "w" .. n, 50000)) end
      for i = 1, 200, 2 do
        if db:get("k" .. i) ~= "w" .. n then error("lost: k" .. i) end
      end
    end
    sweep_to(db, 100)
    assert_sound(db)
  end)

  it("looks again, under the lock, before it deletes", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    local path = scratch.path("sweep")
    db = open(nil, path)
    for i = 1, 9 do assert(db:put("k" .. i, "v", 10)) end
    local peer = peers.launch(path)
    peer:ask("probe.os.wall_ms(tonumber((...)))", now + 10)
    peer:ask("db = assert(probe.store.open(path, { durability = 'manual' }))")
    peer:ask("probe.crash.die_at_point(1, 19, 'sweep')") -- it has looked
    peer:tell("return db:step(1000)")
    peer:await_stopped()
    pass(10)
    assert.equal(9, db:count())
    assert(db:put("k1", "again"))
    assert(db:put("k2", "again", 500))
    assert(db:put("k3", "again", 10))
    peer:go_on()
    assert.equal("true", peer:answer())
    assert.equal("again", db:get("k1"))
    assert.equal(500, db:ttl("k2"))
    assert.equal(10, db:ttl("k3"))
    pass(10)
    sweep_to(db, 2)
    peer:finish()
  end)

  it("is done by the flusher, at every level that has one", function()
    for _, level in ipairs { "async", "sync" } do
      db = open({ durability = level, flush_interval_ms = 5 })
      for i = 1, 20 do assert(db:put("k" .. i, "v", 10)) end
      assert(db:put_many({ "l", "v" }, 10))
      pass(10)
      local stop = probe.os.monotonic_ns() + 20e9
      repeat
        probe.os.sleep_ms(20)
        assert(probe.os.monotonic_ns() < stop, level .. ": " .. db:count())
      until db:count() == 0
      db:close()
    end
    db = nil
  end)

  it("goes on where another process has died in the middle", function()
    local path = scratch.path("sweep")
    db = open(nil, path)
    local child = probe.child.start(function()
      local other, count, left = open(nil, path), 2500
      repeat -- so many that one step does not come to the end of them
        count = 2 * count
        for i = 1, count do assert(other:put("k" .. i, "v", 10)) end
        pass(10)
        left = sweep_below(other, count, 1)
      until left > 0
      probe.child.say(("%d of %d"):format(left, count))
      probe.child.raise(9)
    end)
    local left, count = child:line():match("^(%d+) of (%d+)$")
    child:wait()
    assert.is_true(tonumber(left) < tonumber(count))
    assert.equal(tonumber(left), db:count())
    pass(1000)
    sweep_to(db, 0)
    assert_sound(db)
  end)

  it("leaves the times that it has met to the next round", function()
    db = open()
    assert(db:put("a", "v", 1000))
    assert(db:put("b", "v", 5000))
    assert(db:step()) -- a round that finds nothing
    pass(1000)
    sweep_to(db, 1)
    pass(4000)
    sweep_to(db, 0)
  end)
end)

describe("copies of what expires", function()
  local function fill(where)
    assert(where:put("gone", "v", 10))
    assert(where:put("later", "v", 1000))
    assert(where:put("large", ("large"):rep(100000), 1000))
    assert(where:put("for ever", "v"))
  end

  it("are backups with the times of what is left", function()
    db = open()
    fill(db)
    fill(assert(db:map("m")))
    pass(100)
    local path = scratch.path("backup")
    assert(db:backup(path))
    db:close()
    pass(50)
    local copy = open(nil, path)
    local map = assert(copy:map("m"))
    for _, where in ipairs { copy, map } do
      assert.equal(3, where:count())
      assert.equal(850, where:ttl("later"))
      assert.equal(850, where:ttl("large"))
      assert.equal(0, where:ttl("for ever"))
    end
    assert_sound(copy)
    map:close()
    copy:close()
  end)

  it("are salvaged with the times of what is left", function()
    local path, to = scratch.path("damaged"), scratch.path("salvaged")
    db = open(nil, path)
    fill(db)
    assert(db:sync())
    assert(db:close())
    pass(100)
    assert.equal(3, assert(probe.store.salvage(path, to)))
    local copy = open(nil, to)
    assert.equal(900, copy:ttl("later"))
    assert.equal(900, copy:ttl("large"))
    assert.equal(0, copy:ttl("for ever"))
    assert.is_nil(copy:get("gone"))
    assert_sound(copy)
    copy:close()
  end)
end)
