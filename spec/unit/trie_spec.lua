-- SPDX-License-Identifier: MIT
--
-- The trie over a bare engine, with whole hashes and with narrowed ones, where
-- most keys or all of them collide: against a plain table; its form, which
-- must not tell its history; its sealed nodes, which must not change; and
-- tries of any content, which must end a walk with an error.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"
local format = probe.format

local hex = binary.hex
local NONE, ALL = ("0"):rep(16), ("f"):rep(16)

-- What is left of the primary and of the secondary hash.
local MASKS = {
  ["whole hashes"] = { ALL, ALL },
  ["equal hashes"] = { NONE, NONE },
  ["eight low bits, no secondary"] = { "00000000000000ff", NONE },
  ["six top bits"] = { "fc00000000000000", NONE },
  ["the secondary hash alone"] = { NONE, ALL },
  ["few bits of both"] = { "8000000000000001", "0800000000000010" },
  ["the last bits of the secondary"] = { "0000000000000003",
    "0000000000000007" },
}

local engines = {}

local function new_engine(masks, changes)
  local options = { path = scratch.path("trie"), segment_size = 131072,
    primary_mask = masks[1], secondary_mask = masks[2] }
  for name, value in pairs(changes or {}) do options[name] = value end
  local engine = assert(probe.engine.new(options))
  engines[#engines + 1] = engine
  return engine
end

local function sorted(records)
  local keys = {}
  for key in pairs(records) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- The form that the keys have when they are put in their order.
local function form_of(masks, records)
  local engine = new_engine(masks)
  for _, key in ipairs(sorted(records)) do
    assert.is_true(engine:put(key, "other value"))
  end
  local shape = assert(engine:shape())
  engine:close()
  return shape
end

local function holds(engine, model)
  local records, count = engine:records()
  assert.same(model, assert(records))
  assert.equal(#sorted(model), count)
  assert.equal(count, binary.number(engine:state().count))
end

describe("trie", function()
  after_each(function()
    for _, engine in ipairs(engines) do engine:close() end
    engines = {}
  end)

  for name, masks in pairs(MASKS) do
    it("is a map, and canonical, with " .. name, function()
      local random = binary.random(binary.seed("trie, " .. name))
      local engine = new_engine(masks)
      local model = {}
      for step = 1, 3000 do
        local key = ("k"):rep(random(3)) .. random(step % 900 < 450 and 12
          or 150)
        local choice = random(10)
        if choice <= (step % 600 < 300 and 7 or 4) then
          local value = binary.bytes(random(40), step)
          assert.equal(model[key] == nil, engine:put(key, value))
          model[key] = value
        elseif choice <= 9 then
          local removed, code = engine:remove(key)
          if model[key] then
            assert.is_true(removed)
          else
            assert.equal("NOTFOUND", code)
          end
          model[key] = nil
        elseif random(3) == 1 then
          assert(engine:seal())
        end
        assert.equal(model[key], (engine:get(key)))
        if step % 300 == 0 then
          holds(engine, model)
          assert.equal(form_of(masks, model), assert(engine:shape()))
        end
      end
      for _, key in ipairs(binary.shuffle(sorted(model), random)) do
        assert.is_true(engine:remove(key))
      end
      assert.equal("", engine:shape())
      assert.equal(NONE, engine:state().root)
    end)
  end

  it("holds some thousands of keys whose hashes are all equal", function()
    local engine = new_engine(MASKS["equal hashes"])
    local count = 2500
    local keys = {}
    for i = 1, count do keys[i] = ("key %d"):format(i) end
    local random = binary.random(binary.seed("trie, collisions"))
    for _, key in ipairs(binary.shuffle(keys, random)) do
      assert.is_true(engine:put(key, key))
    end
    for _, key in ipairs(keys) do assert.equal(key, (engine:get(key))) end
    assert.is_nil((engine:get("key 0")))
    local _, found = engine:records()
    assert.equal(count, found)
    for i = 1, count - 1 do assert.is_true(engine:remove(keys[i])) end
    assert.equal(keys[count], (engine:get(keys[count])))
    assert.equal(("0000:%s;"):format(keys[count]), engine:shape())
  end)

  it("refuses more equal hashes than a node holds, and goes on", function()
    local engine = new_engine(MASKS["equal hashes"])
    -- 8192 slots, written as one node rather than one by one.
    assert(engine:put("", "first"))
    local first = engine:offset_of("")
    local slots = {}
    for i = 1, 8192 do slots[i] = format.slot_of_record(first, 0) end
    local at = assert(engine:alloc(65576))
    local node = format.branch_write { map_id = 1, level = 22, epoch = 1,
      bitmap = 0, slots = slots }
    assert.equal(65576, #node)
    engine:poke(at, node)
    local child = format.slot_of_branch(at)
    for level = 21, 0, -1 do
      local place = assert(engine:alloc(level >= 6 and 48 or 32))
      engine:poke(place, format.branch_write { map_id = 1, level = level,
        epoch = 1, bitmap = hex(1), slots = { child } })
      child = format.slot_of_branch(place)
    end
    engine:set_root(child, 8192)
    local before = engine:shape()
    local _, code, what = engine:put("zz", "one too many")
    assert.equal("EFULL", code)
    assert.equal("keys with the same hashes", what)
    assert.is_true(before == engine:shape())
    assert.equal("first", (engine:get("")))
    assert.is_false(engine:put("", "second"))
  end)

  it("tells all sizes and contents of keys apart", function()
    for _, name in ipairs { "whole hashes", "equal hashes" } do
      local engine = new_engine(MASKS[name])
      local keys = { "", "\0", "\0\0", "a", "a\0", "\255", "\255\255",
        binary.bytes(255, 1), binary.bytes(65535, 2),
        binary.bytes(65534, 2) }
      for i, key in ipairs(keys) do
        assert.is_true(engine:put(key, "value " .. i))
      end
      for i, key in ipairs(keys) do
        assert.equal("value " .. i, (engine:get(key)))
      end
      for _, key in ipairs(keys) do assert.is_true(engine:remove(key)) end
      assert.equal(NONE, engine:state().root)
    end
  end)

  it("copies a sealed way once in an epoch", function()
    local engine = new_engine { "fff0000000000000", NONE }
    for i = 1, 300 do assert(engine:put("key" .. i, "old")) end
    assert(engine:seal())
    local epochs = engine:branch_epochs("key7")
    assert.is_true(#epochs >= 2)
    for _, epoch in ipairs(epochs) do assert.equal(1, epoch) end
    assert.is_false(engine:put("key7", "new"))
    for _, epoch in ipairs(engine:branch_epochs("key7")) do
      assert.equal(2, epoch)
    end
    local cursor = binary.number(engine:state().cursor)
    assert.is_false(engine:put("key7", "new"))
    -- The record alone: 24 + 4 + 3 bytes, rounded up.
    assert.equal(32, binary.number(engine:state().cursor) - cursor)
  end)

  it("never changes what is sealed", function()
    for _, name in ipairs { "whole hashes", "eight low bits, no secondary",
      "few bits of both", "equal hashes" } do
      local random = binary.random(binary.seed("trie, sealed, " .. name))
      local engine = new_engine(MASKS[name])
      local model, kept = {}, {}
      local bodies = {}
      for round = 1, 12 do
        for step = 1, 120 do
          local key = "key" .. random(80)
          if random(3) > 1 then
            local value = binary.bytes(random(60), round * 1000 + step)
            assert.is_boolean(engine:put(key, value))
            model[key] = value
          else
            engine:remove(key)
            model[key] = nil
          end
        end
        assert(engine:seal())
        for _, frame in ipairs(engine:frames()) do
          assert.is_number(engine:scan(frame.offset, frame.size_bytes))
          bodies[#bodies + 1] = { frame = frame, bytes = engine:bytes(
            frame.offset, frame.size_bytes) }
        end
        local copy = {}
        for key, value in pairs(model) do copy[key] = value end
        kept[#kept + 1] = { root = engine:state().root, records = copy,
          count = engine:state().count, shape = engine:shape() }
      end
      for _, body in ipairs(bodies) do
        assert.is_true(body.bytes == engine:bytes(body.frame.offset,
          body.frame.size_bytes))
      end
      for _, moment in ipairs(kept) do
        assert.same(moment.records, (engine:records(moment.root,
          moment.count)))
        assert.is_true(moment.shape == engine:shape(moment.root))
      end
    end
  end)

  it("puts large values on pages of their own", function()
    local engine = new_engine(MASKS["whole hashes"])
    local sizes = { 17, 32768 - 24 - 4, 32768 - 24 - 3, 131072, 500000 }
    for i, size in ipairs(sizes) do
      assert(engine:put("key" .. i, binary.bytes(size, i)))
    end
    for i, size in ipairs(sizes) do
      assert.is_true(binary.bytes(size, i) == engine:get("key" .. i))
    end
    assert(engine:seal())
    local large = 0
    for _, frame in ipairs(engine:frames()) do
      if binary.number(frame.flags) >= 2 then large = large + 1 end
    end
    assert.is_true(large >= 1)
  end)

  -- A reader takes the file's size once. The writer then made the file longer
  -- and stored a slot for a node there in a branch that the reader was about
  -- to look at: the reader called the file damaged (F20), about once in ten
  -- million reads of a store that grew.
  it("lets a reader see what lies beyond the size that it took", function()
    for _, size in ipairs { 10, 200000 } do
      local engine = new_engine(MASKS["whole hashes"])
      local value = binary.bytes(size, 3)
      assert(engine:put("a", "old"))
      assert(engine:put("b", "old"))
      assert.equal(value, (engine:get_during("a", function()
        local before = engine:state().size
        while engine:state().size == before do
          assert(engine:alloc(4096))
        end
        assert.is_false(engine:put("a", value))
      end)))
      -- A branch beyond it as well: one more key takes the same way.
      local beside = 1
      while format.branch_way(engine:primary("a"), 0, 0) ~=
        format.branch_way(engine:primary("key" .. beside), 0, 0) do
        beside = beside + 1
      end
      assert.equal(value, (engine:get_during("a", function()
        local before = engine:state().size
        while engine:state().size == before do
          assert(engine:alloc(4096))
        end
        assert.is_true(engine:put("key" .. beside, "new"))
      end)))
    end
  end)

  it("changes nothing when there is no space", function()
    local engine = new_engine(MASKS["eight low bits, no secondary"],
      { max_size = 65536 })
    local model, refused = {}, 0
    for i = 1, 4000 do
      local key = "key" .. i % 700
      local value = binary.bytes(i % 90, i)
      local created, code = engine:put(key, value)
      if created == nil then
        assert.equal("EFULL", code)
        refused = refused + 1
      else
        model[key] = value
      end
      if refused > 50 then break end
    end
    assert.equal(51, refused)
    holds(engine, model)
    assert.equal(form_of(MASKS["eight low bits, no secondary"], model),
      engine:shape())
    assert(engine:seal())
    holds(engine, model)
  end)
end)

-- ---- Tries that nobody has written ------------------------------------------

describe("a hostile trie", function()
  local engine

  before_each(function()
    engine = new_engine(MASKS["whole hashes"])
  end)

  after_each(function() engine:close() end)

  local function place(size)
    return assert(engine:alloc(size))
  end

  local function branch(at, level, bitmap, slots, changes)
    local fields = { map_id = 1, level = level, epoch = 1, bitmap = bitmap,
      slots = slots }
    for name, value in pairs(changes or {}) do fields[name] = value end
    engine:poke(at, format.branch_write(fields))
    return format.slot_of_branch(at)
  end

  -- Everything that walks ends with ECORRUPT, or what `code` says.
  local function answers(root, code)
    engine:set_root(root, 1000)
    for i = 1, 100 do
      local value, name = engine:get("key" .. i)
      assert.is_nil(value)
      assert.is_true(name == "ECORRUPT" or name == "NOTFOUND")
    end
    for i = 1, 20 do
      engine:put("key" .. i, "x")
      engine:set_root(root, 1000)
      engine:remove("key" .. i)
      engine:set_root(root, 1000)
    end
    local _, name = engine:walk(root, 1000)
    assert.equal(code or "ECORRUPT", name)
  end

  local function full(slot)
    local slots = {}
    for i = 1, 64 do slots[i] = slot end
    return slots
  end

  it("with a branch below itself ends", function()
    local at = place(24 + 8 * 64)
    answers(branch(at, 0, ALL, full(format.slot_of_branch(at))))
  end)

  it("with two branches that lead to each other ends", function()
    local a, b = place(24 + 8 * 64), place(24 + 8 * 64)
    branch(b, 1, ALL, full(format.slot_of_branch(a)))
    answers(branch(a, 0, ALL, full(format.slot_of_branch(b))))
  end)

  it("with wrong levels ends", function()
    for _, level in ipairs { 1, 2, 21, 22, 255 } do
      local at = place(24 + 8 * 64 + 16)
      answers(branch(at, level, ALL, full(format.slot_of_branch(at))))
    end
  end)

  it("with an empty branch ends", function()
    local at = place(24)
    answers(branch(at, 0, NONE, {}))
  end)

  it("with slots to nowhere ends", function()
    for _, slot in ipairs { "0000000000000002", "0000fffffffffffe",
      "fffffffffffffffe", "ffffffffffffffff", "0000000000000001", NONE } do
      answers(branch(place(24 + 8 * 64), 0, ALL, full(slot)))
      if slot ~= NONE then answers(slot) end
    end
  end)

  it("with a slot to a record that is a branch, or the other way, ends",
    function()
      local inner = place(24 + 8 * 64)
      local slot = branch(inner, 1, ALL, full(ALL))
      local as_record = binary.patch(("0"):rep(16), 0, slot:sub(1, 15)) .. ""
      as_record = as_record:sub(1, 15) .. ("%x"):format(
        tonumber(as_record:sub(16), 16) + 1)
      answers(branch(place(24 + 8 * 64), 0, ALL, full(as_record)))
      local record = place(32)
      answers(branch(place(24 + 8 * 64), 0, ALL,
        full(format.slot_of_branch(record))))
    end)

  it("with a branch below a collision node ends", function()
    local child = format.slot_of_branch(place(40))
    local slot = branch(place(40 + 16), 22, NONE, { child, child })
    for level = 21, 0, -1 do
      slot = branch(place(24 + 8 * 64 + (level >= 6 and 16 or 0)), level, ALL,
        full(slot))
    end
    answers(slot)
    -- A collision node that is not where one may be.
    answers(branch(place(56), 22, NONE, { child, child }))
  end)

  -- 64 ways at every level: the walk must end by the number of records.
  it("of endless breadth ends", function()
    local record = place(32)
    engine:poke(record, format.record_write { map_id = 1, epoch = 1,
      key = "key", value = "val" })
    local slot = format.slot_of_record(record, 0)
    for level = 21, 0, -1 do
      slot = branch(place(24 + 8 * 64 + (level >= 6 and 16 or 0)), level, ALL,
        full(slot))
    end
    local count, name = engine:walk(slot, 5000)
    assert.equal(5000, count)
    assert.equal("ECORRUPT", name)
    answers(slot)
  end)

  -- The walk is some records ahead of what it has given.
  it("gives the records before what is damaged, and no more", function()
    local record = place(32)
    engine:poke(record, format.record_write { map_id = 1, epoch = 1,
      key = "key", value = "val" })
    local slot = format.slot_of_record(record, 0)
    local hole = place(32)
    engine:poke(hole, ("\0"):rep(32))
    for _, bad in ipairs { format.slot_of_branch(hole),
      format.slot_of_record(hole, 0) } do
      for at = 1, 64 do
        local slots = full(slot)
        slots[at] = bad
        local root = branch(place(24 + 8 * 64), 0, ALL, slots)
        local count, name = engine:walk(root, 1000)
        assert.equal(at - 1, count)
        assert.equal("ECORRUPT", name)
      end
    end
  end)

  it("with a branch of one record answers a removal", function()
    assert(engine:put("key", "value"))
    local record = engine:state().root
    local slots = full(record)
    engine:set_root(branch(place(24 + 8 * 64), 0, ALL, slots), 64)
    assert.equal("value", (engine:get("key")))
    assert(engine:remove("key"))
    local way = format.branch_way(engine:primary("key"), 0, 0)
    local bit = hex(0)
    bit = bit:sub(1, 15 - math.floor(way / 4)) ..
      ("%x"):format(2 ^ (way % 4)) .. bit:sub(17 - math.floor(way / 4))
    engine:set_root(branch(place(32), 0, bit, { record }), 1)
    local _, name, what = engine:remove("key")
    assert.equal("ECORRUPT", name)
    assert.equal("F26", what:match("^F%d+"))
    assert.equal("value", (engine:get("key")))
  end)

  it("of random bytes ends", function()
    local random = binary.random(binary.seed("a hostile trie"))
    for i = 1, 400 do assert(engine:put("key" .. i, "value" .. i)) end
    local state = engine:state()
    local from = binary.number(state.frame_offset) + 72
    local size = binary.number(state.cursor) - from
    local good = engine:bytes(from, size)
    for _ = 1, 300 do
      for _ = 1, random(8) do
        engine:poke(from + 8 * (random(math.floor(size / 8)) - 1) +
          random(8) - 1, string.char(random(256) - 1))
      end
      local _, name = engine:walk(state.root, 1000)
      assert.is_true(name == "ECORRUPT" or name == "NOTFOUND")
      for i = 1, 30 do
        engine:get("key" .. i)
        if i % 3 == 0 then engine:put("key" .. i, "other") end
        if i % 3 == 1 then engine:remove("key" .. i) end
      end
      engine:set_root(state.root, 400)
      engine:poke(from, good)
    end
  end)
end)
