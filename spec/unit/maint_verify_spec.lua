-- SPDX-License-Identifier: MIT
--
-- Verification: sound files are found sound, each kind of damage is found with
-- the rule that it breaks, each single flipped bit is found, and no noise makes
-- it crash or hang.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local binary = require "spec.support.binary"
local format, verify = probe.format, probe.verify

local SEGMENT = 131072
local FIRST_FRAME, SUPERBLOCK_B = 12352, 8192

local function build(options, fill)
  local path = scratch.path("store")
  options.segment_size = SEGMENT
  options.durability = options.durability or "manual"
  local db = assert(probe.store.open(path, options))
  fill(db)
  assert(db:close())
  local image = scratch.read(path)
  os.remove(path)
  return image
end

local function put_some(db, count)
  for i = 1, count do assert(db:put("key " .. i, ("value %d"):format(i))) end
end

local function rules_of(report)
  local rules = {}
  for _, failure in ipairs(report.failures) do
    rules[failure.rule:match("^F%d+")] = failure.offset
  end
  return rules
end

local function sound(report)
  assert.same({}, report.failures)
  assert.equal(0, report.failure_count)
end

describe("maint.verify", function()
  it("finds an empty store sound", function()
    local report = assert(verify.bytes(build({}, function() end)))
    sound(report)
    assert.equal(0, report.record_count)
    assert.equal(2, report.superblock_count)
    assert.equal(0, report.segment_count)
  end)

  it("counts what a store holds", function()
    local report = assert(verify.bytes(build({}, function(db)
      put_some(db, 300)
      assert(db:sync())
      for i = 1, 100 do assert(db:put("key " .. i, "changed")) end
      for i = 101, 150 do assert(db:delete("key " .. i)) end
      assert(db:put("large", ("x"):rep(40000)))
    end)))
    sound(report)
    assert.equal(251, report.record_count)
    assert.equal(1, report.large_count)
    assert.equal(2, report.frame_count)
    assert.equal(2, report.segment_count)
    assert.is_true(report.branch_count > 1)
  end)

  it("finds a log of many segments and sessions sound", function()
    local path = scratch.path("store")
    for round = 1, 5 do
      local db = assert(probe.store.open(path, { segment_size = SEGMENT,
        durability = "manual" }))
      for i = 1, 400 do
        assert(db:put("key " .. i % 70, ("%d"):format(round):rep(300 + i)))
        if i % 100 == 0 then assert(db:sync()) end
      end
      assert(db:put("large " .. round, ("y"):rep(90000)))
      assert(db:close())
      local report = assert(verify.bytes(scratch.read(path)))
      sound(report)
      assert.equal(70 + round, report.record_count)
    end
  end)

  -- The log has a head for branches, where there are many, and one for large values:
  -- each session goes on where the last one has left them.
  it("finds branches and large values of many sessions sound", function()
    local path, heads, counts = scratch.path("store"), { {}, {}, {} }, { 0, 0, 0 }
    for round = 1, 6 do
      local db = assert(probe.store.open(path, { segment_size = SEGMENT,
        durability = "manual" }))
      for i = 1, 2000 do
        if round == 1 or i % 20 == round then
          assert(db:put("key " .. i, ("%d"):format(round):rep(600)))
        end
        if i % 400 == 0 then assert(db:sync()) end
      end
      for i = 1, 2000 do
        local last = i % 20
        if last < 2 or last > round then last = 1 end
        assert.equal(tostring(last):rep(600), db:get("key " .. i))
      end
      assert(db:put("large " .. round, tostring(round):rep(40000)))
      for i = 1, round do
        assert.is_true(db:get("large " .. i) == tostring(i):rep(40000))
      end
      assert(db:close())
      local bytes = scratch.read(path)
      sound(assert(verify.bytes(bytes)))
      for _, at in ipairs { 0, SUPERBLOCK_B } do
        local superblock = format.superblock_decode(bytes:sub(at + 1, at + 4096), at, false)
        for i = 1, 3 do heads[i][superblock.heads[i].offset] = true end
      end
    end
    for i = 1, 3 do
      for _ in pairs(heads[i]) do counts[i] = counts[i] + 1 end
      assert.is_true(counts[i] > 5, "head " .. i) -- there is one, and it goes on
    end
  end)

  it("knows keys with equal hashes", function()
    for _, masks in ipairs { { "ff00000000000000", "ffffffffffffffff" },
      { "0000000000000000", "f000000000000000" },
      { "0000000000000000", "0000000000000000" } } do
      local image = build({ primary_mask = masks[1],
        secondary_mask = masks[2] }, function(db)
        put_some(db, 60)
        assert(db:sync())
        for i = 1, 50, 3 do assert(db:delete("key " .. i)) end
      end)
      local report = assert(verify.bytes(image, masks[1], masks[2]))
      sound(report)
      assert.equal(43, report.record_count)
      -- With the true hashes the same keys are all in the wrong place.
      report = assert(verify.bytes(image))
      assert.is_true(report.failure_count > 0)
    end
  end)

  it("verifies a store that is open, with what is not committed", function()
    local path = scratch.path("store")
    local db = assert(probe.store.open(path, { segment_size = SEGMENT,
      durability = "manual" }))
    put_some(db, 100)
    local report = assert(verify.store(path))
    sound(report)
    assert.equal(100, report.record_count)
    assert(db:close())
  end)

  it("finds every single bit that is flipped", function()
    local image = build({}, function(db)
      put_some(db, 12)
      assert(db:sync())
      assert(db:put("key 3", "another value"))
      assert(db:delete("key 4"))
      assert(db:put("large", ("z"):rep(33000)))
    end)
    local report = assert(verify.bytes(image))
    sound(report)
    local log_end = FIRST_FRAME + report.frame_bytes
    -- Not the header of the segment of large values: nothing depends on it.
    for _, range in ipairs { { 0, 4096 }, { 8192, log_end } } do
      local flips, missed, first = verify.flips(image, range[1], range[2])
      assert.equal(8 * (range[2] - range[1]), flips)
      assert.equal(0, missed, ("the first at %d"):format(first))
    end
    local extent = SEGMENT + 4096
    local _, missed = verify.flips(image, extent, extent + 64)
    assert.equal(0, missed)
    _, missed = verify.flips(image, extent + 64 + 33000 - 20,
      extent + 64 + 33000)
    assert.equal(0, missed)
  end)

  it("takes any noise", function()
    local image = build({}, function(db)
      put_some(db, 200)
      assert(db:put("large", ("z"):rep(33000)))
    end)
    local seed = tonumber(os.getenv("MMCMAP_SEED") or "") or os.time()
    print("# MMCMAP_SEED=" .. seed)
    local rounds = os.getenv("MMCMAP_LONG") and 100000 or 1000
    assert.is_true(verify.noise(image, seed, rounds) > 0)
  end)

  it("takes a file of any length", function()
    local image = build({}, function(db) put_some(db, 20) end)
    local log_end = FIRST_FRAME + assert(verify.bytes(image)).frame_bytes
    for size = 0, log_end - 1, 61 do
      local report, code = verify.bytes(image:sub(1, size))
      assert.is_true(report and report.failure_count > 0 or
        code == "EFORMAT" or code == "ECORRUPT")
    end
  end)
end)

describe("maint.verify of a trie", function()
  local engine

  before_each(function()
    engine = assert(probe.engine.new { path = scratch.path("engine"),
      segment_size = SEGMENT, epoch = 5 })
  end)
  after_each(function() engine:close() end)

  local function u64(number) return binary.u64(number) end
  local function root_offset()
    local root = engine:state().root
    return math.floor(binary.number("0000" .. root:sub(5)) / 2) * 8
  end

  local function check(rule, root, count, newest)
    local report = assert(verify.trie(engine, root, count, newest))
    if not rule then
      sound(report)
    else
      assert.is_true(report.failure_count > 0, rule .. " is not found")
      local rules = rules_of(report)
      assert.truthy(rules[rule], rule .. " expected, found "
        .. report.failures[1].rule)
    end
    return report
  end

  it("walks a sound one", function()
    for i = 1, 50 do assert(engine:put("key " .. i, "value")) end
    check(nil)
    check("F36", nil, 49)
    check("F40", nil, 51)
    check("F27", nil, nil, 4)
  end)

  it("names the rule that a branch breaks", function()
    for i = 1, 50 do assert(engine:put("key " .. i, "value")) end
    check(nil)
    local at = root_offset()
    local head = engine:bytes(at, 32)
    for _, case in ipairs {
      { "F23", 0, "\1" }, { "F22", 4, "\2" }, { "F27", 8, "\6" },
      { "F27", 8, "\0" }, { "F24", 14, "\1" }, { "F21", 15, "\2" },
      { "F25", 16, ("\0"):rep(8) },
      { "F20", 24, ("\0"):rep(8) }, { "F20", 24, u64("0000ffffffffffff") },
    } do
      engine:poke(at + case[2], case[3])
      check(case[1])
      engine:poke(at, head)
      check(nil)
    end
  end)

  it("names the rule that a record breaks", function()
    assert(engine:put("key", "value"))
    check(nil)
    local at = root_offset()
    local whole = engine:bytes(at, 32)
    for _, case in ipairs {
      { "F29", 0, "?" }, { "F22", 4, "\2" }, { "F27", 8, "\6" },
      { "F28", 14, "\2" }, { "F21", 15, "\1" }, { "F28", 20, "\255\255\1" },
      { "F29", 24, "K" }, { "F30", 24, "K" }, { "F29", 27, "V" },
    } do
      engine:poke(at + case[2], case[3])
      check(case[1])
      engine:poke(at, whole)
      check(nil)
    end
  end)

  it("wants the padding to be zero", function()
    assert(engine:put("key", "value!"))
    check(nil)
    engine:poke(root_offset() + 24 + 9, "\1")
    check("F37")
  end)

  it("wants the canonical form", function()
    assert(engine:put("a", "1"))
    assert(engine:put("b", "2"))
    check(nil)
    -- Of the two slots one is taken away: the bitmap keeps its lowest bit.
    local at = root_offset()
    local bitmap = engine:bytes(at + 16, 8)
    for byte = 1, 8 do
      local bits = bitmap:byte(byte)
      if bits ~= 0 then
        local low = 1
        while bits % (2 * low) == 0 do low = 2 * low end
        engine:poke(at + 16, ("\0"):rep(byte - 1) .. string.char(low)
          .. ("\0"):rep(8 - byte))
        break
      end
    end
    check("F26")
  end)
end)

describe("maint.verify of collision nodes", function()
  it("wants their slots in order, and of records", function()
    local none = "0000000000000000"
    local engine = assert(probe.engine.new { path = scratch.path("engine"),
      segment_size = SEGMENT, epoch = 5, primary_mask = none,
      secondary_mask = none })
    for i = 1, 5 do assert(engine:put("key " .. i, "value")) end
    sound(assert(verify.trie(engine)))
    -- Branches with one slot lead down to the only node with five.
    local root = engine:state().root
    local at
    for _ = 0, 22 do
      at = math.floor(binary.number("0000" .. root:sub(5)) / 2) * 8
      root = binary.u64_at(engine:bytes(at + 24, 8), 0)
    end
    local slots = engine:bytes(at + 24, 16)
    local swapped = slots:sub(9) .. slots:sub(1, 8)
    for rule, bytes in pairs { F35 = swapped, F34 = binary.u64(at / 4) } do
      engine:poke(at + 24, bytes)
      local report = assert(verify.trie(engine))
      assert.truthy(rules_of(report)[rule], rule)
      engine:poke(at + 24, slots)
    end
    sound(assert(verify.trie(engine)))
    engine:close()
  end)
end)
