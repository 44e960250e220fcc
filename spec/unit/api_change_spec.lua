-- SPDX-License-Identifier: MIT
--
-- add, replace, cas, swap and incr in C: the outputs and edges that Lua does not
-- show, failures halfway, and processes that are killed in the middle.
-- spec/unit/history_spec.lua has them called by threads and processes at once.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"

local MAX, MIN = "7fffffffffffffff", "8000000000000000"
local ONE, NIL, MINUS_ONE = binary.hex(1), binary.hex(0), ("f"):rep(16)
local HUGE = 1e308 * 10

local function open(options, path)
  return assert(probe.store.open(path or scratch.path("change"),
    options or { durability = "manual" }))
end

describe("a change that depends on the value", function()
  local db

  before_each(function() db = open() end)
  after_each(function() db:close() end)

  it("tells by its code why it was not made", function()
    assert.is_true(db:add("k", "v"))
    assert.equal("MISMATCH", db:add("k", "w"))
    assert.equal("NOTFOUND", db:replace("nobody", "v"))
    assert.equal("MISMATCH", db:cas("k", "w", "x"))
    assert.equal("MISMATCH", db:cas("k", nil, "x"))
    assert.equal("MISMATCH", db:cas("k", "w", nil))
    assert.equal("MISMATCH", db:cas("k", nil, nil))
    assert.equal("MISMATCH", db:cas("nobody", "v", "x"))
    assert.equal("MISMATCH", db:cas("nobody", "v", nil))
    assert.equal("MISMATCH", db:cas("nobody", "", nil))
    assert.same({ { k = "v" }, 1 }, { db:records() })
  end)

  it("lets NULL be closed, and buffers be freed that are none", function()
    assert.is_true(probe.store.close_nothing())
  end)

  it("takes values of size 0 with a NULL pointer", function()
    assert.is_true(db:add("", ""))
    assert.equal("", db:get(""))
    assert.is_true(db:replace("", ""))
    assert.is_true(db:cas("", "", ""))
    assert.same({ "", true }, { db:swap("", "") })
    assert.is_true(db:cas("", "", nil))
    assert.equal(0, db:count())
    assert.is_true(db:cas("", nil, ""))
    assert.equal(1, db:count())
  end)

  it("leaves the version alone if it writes nothing", function()
    db:add("k", "v")
    local version = db:version()
    db:add("k", "w")
    db:replace("nobody", "v")
    db:cas("k", "w", "x")
    db:cas("nobody", nil, nil)
    db:incr("k", ONE, NIL)
    db:incr("nobody", MAX, ONE)
    assert.equal(version, db:version())
    assert.is_true(db:cas("k", "v", "v"))
    assert.not_equal(version, db:version())
  end)

  it("notes nothing if it is not made, which is no failure", function()
    db:get(("x"):rep(65536))
    db:put(("x"):rep(65536), "")
    db:add("k", "v")
    db:add("k", "w")
    db:cas("k", "w", nil)
    db:replace("nobody", "v")
    assert.equal("ETOOBIG", probe.base.last_error().name)
  end)

  describe("swap", function()
    it("tells an empty value from none", function()
      assert.same({ nil, false }, { db:swap("k", "") })
      assert.same({ "", true }, { db:swap("k", "v") })
      assert.same({ "v", true }, { db:swap("k", "") })
      assert.same({ nil, false }, { db:swap("other", "v") })
    end)

    it("uses its buffer again, shorter and longer", function()
      local old = ""
      db:put("k", old)
      for _, size in ipairs { 1, 63, 64, 65, 5000, 3, 300000, 0, 70, 2000000,
        1 } do
        local value = binary.bytes(size)
        local found = db:swap("k", value)
        assert.is_true(found == old, "before " .. size)
        old = value
      end
    end)

    -- The old value was copied over the new one before that was put.
    it("hands values on from key to key in one buffer", function()
      local values = {}
      for i = 1, 20 do
        values[i] = binary.bytes(i * 1237 % 2900 + 1)
        db:put(i, values[i])
      end
      assert.equal(values[20], db:get(20))
      for i = 1, 20 do assert.equal(values[i], (db:swap(i, nil))) end
      for i = 2, 20 do assert.equal(values[i - 1], db:get(i)) end
      assert.equal(values[20], db:get(1))
    end)

    it("goes from key to key in one buffer", function()
      local function key(i) return string.char(64 + i):rep(i) end
      for i = 1, 19 do db:put(key(i), key(i * 7 % 19 + 1)) end
      db:put("first", key(1))
      db:get("first")
      for _, i in ipairs { 1, 8, 19 } do
        local following = key(i * 7 % 19 + 1)
        assert.equal(following, (db:swap(nil, "been")))
        assert.equal("been", db:get(key(i)))
        assert.equal("been", (db:swap(key(i), following)))
        db:get(key(i))
      end
      assert.equal(20, db:count())
    end)

    it("empties its outputs when it fails", function()
      local small = open { durability = "manual", max_size = 1048576,
        segment_size = 131072 }
      assert.is_true(small:put("k", "old"))
      small:get("k") -- fills the buffer
      assert.same({ nil, "EFULL", "growing the file", nil, false },
        { small:swap("k", ("x"):rep(2000000)) })
      assert.equal("old", small:get("k"))
      assert.same({ nil, "ETOOBIG", "key", nil, false },
        { small:swap(("x"):rep(65536), "v") })
      assert.same({ "old", true }, { small:swap("k", "new") })
      small:close()
    end)

    it("empties its outputs when the commit fails, and has happened",
      function()
        local sync = open { durability = "sync" }
        assert.is_true(sync:put("k", "old"))
        probe.os.fail("fdatasync", 1, "EIO", 0)
        local ok, name, _, old, found = sync:swap("k", "new")
        probe.os.restore()
        assert.same({ nil, "EIO", nil, false }, { ok, name, old, found })
        assert.equal("new", sync:get("k"))
        assert.equal("EIO", select(2, sync:add("other", "v")))
        assert.equal("EIO", select(2, sync:cas("k", "new", nil)))
        assert.same({ nil, "EIO", "an earlier commit failed", NIL },
          { sync:incr("n", ONE, ONE) })
        assert.equal("new", sync:get("k"))
        sync:close()
      end)
  end)

  describe("incr", function()
    it("counts to every edge of 64 bits", function()
      assert.equal(MAX, db:incr("n", NIL, MAX))
      assert.equal("9223372036854775807", db:get("n"))
      assert.same({ nil, "ENUMBER", "overflow of 64 bits", NIL },
        { db:incr("n", ONE, NIL) })
      assert.equal("9223372036854775807", db:get("n"))
      assert.equal("7ffffffffffffffe", db:incr("n", MINUS_ONE, NIL))
      assert.equal(MINUS_ONE, db:incr("m", MAX, MIN))
      assert.equal(MIN, db:incr("m", "8000000000000001", NIL))
      assert.equal("-9223372036854775808", db:get("m"))
      assert.equal("ENUMBER", select(2, db:incr("m", MINUS_ONE, NIL)))
      assert.equal(NIL, db:incr("m", "4000000000000000", NIL)
        and db:incr("m", "4000000000000000", NIL))
    end)

    it("puts no sum that does not fit", function()
      assert.equal("ENUMBER", select(2, db:incr("n", MAX, ONE)))
      assert.equal("ENUMBER", select(2, db:incr("n", 1e308, 1e308)))
      assert.is_nil(db:get("n"))
    end)

    it("refuses what is no number, by whomever", function()
      for _, number in ipairs { HUGE, -HUGE, HUGE - HUGE } do
        assert.same({ nil, "ENUMBER", "overflow", NIL },
          { db:incr("n", number, NIL) })
        assert.equal("ENUMBER", select(2, db:incr("n", NIL, number)))
        assert.is_nil(db:get("n"))
        db:put("present", "5")
        assert.equal("ENUMBER", select(2, db:incr("present", number, NIL)))
        assert.equal(binary.hex(5), db:incr("present", NIL, number))
      end
      db:put("text", "five")
      assert.same({ nil, "ENUMBER", "no number of 64 bits", NIL },
        { db:incr("text", ONE, NIL) })
      assert.equal("five", db:get("text"))
    end)

    it("does not read a large value through to see that it is none",
      function()
        db:put("large", ("a"):rep(4000000))
        assert.equal("ENUMBER", select(2, db:incr("large", ONE, NIL)))
        db:put("zeros", ("0"):rep(4000000) .. "7")
        assert.equal(binary.hex(8), db:incr("zeros", ONE, NIL))
        assert.equal("8", db:get("zeros"))
      end)
  end)
end)

-- ---- Kills -------------------------------------------------------------------

-- What step i of the child puts: small, and larger than a quarter of a segment.
local SEGMENT = 131072
local function text_of(i) return ("%d:"):format(i) .. ("v"):rep(i * 37 % 500) end
local function large_of(i) return binary.bytes(70000 + i % 7 * 11, i % 5) .. i end

-- One step: each function once, in this order; the answers are checked. The
-- numbers are those before it, `i - 1`, and after it, `i`.
local STEP = {
  { "counter", function(db, i)
    return db:incr("counter", ONE, NIL) == binary.hex(i)
  end, tostring },
  { "cas", function(db, i)
    return db:cas("cas", i > 1 and text_of(i - 1) or nil, text_of(i)) == true
  end, text_of },
  { "swap", function(db, i)
    return db:swap("swap", large_of(i)) == (i > 1 and large_of(i - 1) or nil)
  end, large_of },
  { "replace", function(db, i)
    return i > 1 and db:replace("replace", large_of(i)) == true
      or db:add("replace", large_of(i)) == true
  end, large_of },
  { "toggle", function(db, i)
    if i % 2 == 1 then return db:add("toggle", large_of(i)) == true end
    return db:cas("toggle", large_of(i - 1), nil) == true
  end, function(i) return i % 2 == 1 and large_of(i) or nil end },
}

local function work(path, level, steps, plan)
  if plan then plan() end
  local db = open({ durability = level, segment_size = SEGMENT }, path)
  for i = 1, steps do
    for _, part in ipairs(STEP) do
      if not part[2](db, i) then error(part[1] .. " answered wrongly") end
      probe.child.say(("%d %s"):format(i, part[1]))
    end
  end
end

-- The store after the child's death: all that it said, and perhaps one more.
local function check(db, step, part, where)
  local done = {}
  for i, entry in ipairs(STEP) do
    done[i] = i <= part and step or step - 1
    local value = db:get(entry[1])
    local function is(n)
      if n == 0 then return value == nil end
      return value == entry[3](n)
    end
    if i == part % #STEP + 1 and is(done[i] + 1) then
      done[i] = done[i] + 1 -- it was made, and could not be said any more
    end
    assert.is_true(is(done[i]), ("%s: %s after step %d, part %d"):format(where,
      entry[1], step, part))
  end
end

-- The step and the part that the child said last, of so many lines or of all.
local function listen(child, lines, step, part)
  while lines ~= 0 do
    local line = child:line()
    if not line then break end
    local number, name = line:match("^(%d+) (%a+)$")
    if not number then error("the child says: " .. line) end
    step, lines = tonumber(number), lines and lines - 1
    for i, entry in ipairs(STEP) do
      if entry[1] == name then part = i end
    end
  end
  return step, part
end

describe("a process that is killed in the middle", function()
  teardown(crash.remove_folder)

  for _, case in ipairs { { "sync", false }, { "manual", true } } do
    local level, is_watched = case[1], case[2]
    it(("leaves the old value or the new, level %s, %s"):format(level,
      is_watched and "while this one has it open" or "and is the only one"),
      function()
        local random = binary.random(binary.seed("kills, level " .. level))
        for round = 1, math.ceil((crash.is_long and 300 or 20) / crash.thinning) do
          local path = crash.path("killed-" .. level)
          os.remove(path)
          os.remove(path .. "-lock")
          local options = { durability = level, segment_size = SEGMENT }
          local db = is_watched and open(options, path)
          local child = probe.child.start(function() work(path, level, 1e6) end)
          local step, part = listen(child, random(60), 1, 0)
          child:kill()
          step, part = listen(child, nil, step, part)
          local text, how = child:wait()
          assert.equal("signal", how, text)
          db = db or open(options, path)
          check(db, step, part, "round " .. round)
          assert.is_true(db:add("afterwards", "here") == true)
          assert(db:close())
          assert.same({}, probe.verify.bytes(scratch.read(path)).failures)
        end
      end)
  end

  it("leaves the old value or the new at every published store", function()
    if not crash.has_hooks then
      pending("needs --enable-debug-checks")
      return
    end
    local points, step_width = 0, crash.thinning > 1 and 5 or 1
    repeat
      points = points + step_width
      local path = crash.path("points")
      os.remove(path)
      os.remove(path .. "-lock")
      local db = open({ durability = "manual", segment_size = SEGMENT }, path)
      local child = probe.child.start(function()
        work(path, "manual", 4, function() probe.crash.die_at_point(points) end)
      end)
      local step, part = listen(child, nil, 1, 0)
      local text, how, status = child:wait()
      if how == "exit" then assert.equal(0, status, text) end
      check(db, step, part, "point " .. points)
      assert(db:close())
    until how == "exit"
    -- Each of the 20 changes is published by one store, with a point on either
    -- side of it; so is whatever upkeep moves meanwhile.
    assert.is_true(points >= 41, points)
  end)
end)
