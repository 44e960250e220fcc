-- SPDX-License-Identifier: MIT
--
-- Segments that share a page of the kernel: where the heads of the log go on in a
-- large store, and which segments are cleaned first there.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"

local SEGMENT = 262144
local PIECE = 8 -- segments
local COUNT = 80
local LARGE = 2
local FREE, IN_USE, BRANCHES, UNCOUNTED, HOLE = 0, 1, 1 + 256, 1 + 16, 64
local FULL = SEGMENT - 512

local engine

-- `count` segments, all of them full, but for the first one, where the log is.
local function new_engine(count)
  engine = assert(probe.engine.new { path = scratch.path("piece"),
    segment_size = SEGMENT, epoch = 5 })
  assert(engine:ensure(count * SEGMENT))
  assert(engine:begin_segments(LARGE, count - 1))
  for i = 1, count - 1 do engine:set_segment(i, IN_USE, FULL) end
  engine:set_upkeep { first_free = 1 }
end

local function set(state, live, ...)
  for _, number in ipairs { ... } do engine:set_segment(number, state, live) end
end

local function set_piece(number, state, live)
  for i = number * PIECE, number * PIECE + PIECE - 1 do
    engine:set_segment(i, state, live)
  end
end

local function begun(left)
  return binary.number(assert(engine:begin_next(left)))
end

local function victim()
  return binary.number(assert(engine:victim(SEGMENT)))
end

after_each(function()
  probe.os.restore()
  if engine then engine:close() end
  engine = nil
end)
teardown(crash.remove_folder)

describe("a head that leaves a segment", function()
  it("goes on in the same piece, as long as anything is free there", function()
    new_engine(COUNT)
    set(FREE, 0, 5, 18, 21, 22)
    set_piece(4, FREE, 0)
    assert.equal(18, begun(23))
    assert.equal(21, begun(18))
    assert.equal(22, begun(21))
    assert.equal(32, begun(22))
  end)

  it("goes on where a whole piece is free, the lowest", function()
    new_engine(COUNT)
    set(FREE, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
    set_piece(4, FREE, 0)
    set_piece(3, FREE, 0)
    assert.equal(24, begun(40))
  end)

  it("goes on where most of a piece is free, if none is wholly", function()
    new_engine(COUNT)
    set(FREE, 0, 5, 17, 19, 33, 34, 35, 41, 42, 43, COUNT - 1)
    assert.equal(33, begun(71))
  end)

  it("leaves nothing that is free out", function()
    new_engine(COUNT)
    set(FREE, 0, 5, 6, 17, 30, 31)
    local seen, left = {}, 63
    for _ = 1, 5 do
      left = begun(left)
      assert.is_nil(seen[left])
      seen[left] = true
    end
    assert.same({ [5] = true, [6] = true, [17] = true, [30] = true, [31] = true },
      seen)
    assert.equal(COUNT, begun(left))
  end)

  it("goes on in the lowest where pieces do not matter", function()
    local function is_lowest(count, upkeep)
      new_engine(count)
      set(FREE, 0, 5, 6, 17, 18, 19)
      upkeep.first_free = 1
      engine:set_upkeep(upkeep)
      assert.equal(5, begun(16))
      assert.equal(6, begun(16))
      assert.equal(17, begun(5))
      engine:close()
    end
    is_lowest(63, {})
    is_lowest(COUNT, { is_sparse = 1 })
    is_lowest(COUNT, { is_full = 1 })
    is_lowest(COUNT, { compacting_ns = "7fffffffffffffff" })
    new_engine(64)
    set(FREE, 0, 5, 17, 18)
    assert.equal(17, begun(16))
    -- Who compacted has died.
    engine:set_upkeep { first_free = 1, compacting_ns = 1 }
    assert.equal(18, begun(16))
    -- It leaves none.
    set(FREE, 0, 17, 18)
    assert.equal(5, begun("ffffffffffffffff"))
  end)

  it("goes on in the lowest that has blocks, where the disk is full", function()
    new_engine(COUNT)
    set(HOLE, 0, 5, 17, 18, 19)
    set(FREE, 0, 9, 10)
    probe.os.fail("fallocate", 1, "ENOSPC", 0)
    assert.equal(9, begun(30))
    local tried = probe.os.counts().fallocate
    assert.equal(10, begun(30))
    assert.equal(tried + 1, probe.os.counts().fallocate)
    probe.os.restore()
    assert.equal(17, begun(16))
  end)

  it("may have been begun for branches", function()
    new_engine(2 * COUNT) -- few of them are free
    set(FREE, 0, 12, 13)
    set_piece(3, FREE, 0)
    set_piece(4, FREE, 0)
    local seen = {}
    for round = 1, 16 do
      for i = 1, 3000 do
        assert(engine:put(i, round) ~= nil)
        local at = binary.number(engine:state().branch_end) // SEGMENT - 1
        if at >= 0 and at ~= seen[#seen] then seen[#seen + 1] = at end
      end
      assert(engine:seal())
    end
    assert.same({ 12, 13, 32, 33 }, seen)
  end)

  it("is the log, too", function()
    new_engine(COUNT)
    set(FREE, 0, 12)
    set_piece(3, FREE, 0)
    local seen = {}
    for _ = 1, 40 do
      assert(engine:alloc(60000))
      local at = binary.number(engine:state().frame_offset) // SEGMENT
      if at ~= seen[#seen] then seen[#seen + 1] = at end
    end
    assert.same({ 0, 24, 25, 26, 27, 28, 29, 30, 31, 12 }, seen)
  end)
end)

describe("the first victim", function()
  local HALF = SEGMENT / 2

  -- All alike, so that the lowest would be the first one.
  local function halves()
    new_engine(COUNT)
    for i = PIECE, COUNT - 1 do engine:set_segment(i, IN_USE, HALF) end
  end

  it("is one whose piece is nearly empty", function()
    halves()
    set_piece(4, FREE, 0)
    set(IN_USE, 0.7 * SEGMENT // 8 * 8, 33)
    assert.equal(33, victim())
    -- Unless it is nearly full itself.
    set(IN_USE, 0.82 * SEGMENT // 8 * 8, 33)
    assert.equal(PIECE, victim())
  end)

  it("is the emptiest, in pieces that are alike", function()
    halves()
    set(IN_USE, HALF - 8000, 44)
    assert.equal(44, victim())
  end)

  it("is in a piece of which all is counted", function()
    halves()
    set_piece(4, UNCOUNTED, 0)
    set(IN_USE, HALF - 8000, 33)
    set(IN_USE, HALF - 800, 44)
    assert.equal(44, victim())
  end)

  it("is beside records, rather than beside branches", function()
    halves()
    set_piece(4, BRANCHES, HALF)
    set(IN_USE, HALF - 8000, 33)
    set(IN_USE, HALF - 800, 44)
    assert.equal(44, victim())
  end)

  it("is beside what is free, where large values need more than a segment", function()
    new_engine(COUNT / 2)
    set(FREE, 0, 20)
    set(IN_USE, HALF, 21)
    set(IN_USE, 80000, 30)
    assert.equal(30, victim())
    assert(engine:alloc_large(SEGMENT))
    assert.equal(21, victim())
    set(IN_USE, FULL, 21)
    set(IN_USE, HALF, 19)
    assert.equal(19, victim())
    -- What is not needed lately, or is a great part of the store, does not matter.
    assert(engine:alloc_large(20 * SEGMENT))
    assert.equal(30, victim())
  end)

  it("is the emptiest where pieces do not matter", function()
    halves()
    set_piece(4, FREE, 0)
    set(IN_USE, HALF + 800, 33)
    set(IN_USE, HALF - 800, 44)
    assert.equal(33, victim())
    engine:set_upkeep { is_sparse = 1 }
    assert.equal(44, victim())
  end)

  it("is none that a snapshot holds", function()
    halves()
    assert(engine:hold_snapshot(1))
    assert.is_nil(engine:victim(SEGMENT))
    engine:let_snapshot_go()
    assert.equal(PIECE, victim())
  end)

  -- Segments that a large value holds together are one: what is alive in one of them
  -- is their mean, and something for what such values leave empty.
  describe("where there are large values", function()
    local REST = LARGE + 128 -- begins within one

    local function set_live(number, state, tenths)
      engine:set_segment(number, state, tenths * SEGMENT / 10 // 8 * 8)
    end

    before_each(function()
      new_engine(40) -- pieces do not matter
      for i = 1, 39 do engine:set_segment(i, IN_USE, HALF) end
    end)

    it("is all of a run", function()
      set_live(20, LARGE, 9.9)
      set_live(21, REST, 0.5)
      set_live(22, REST, 1)
      assert.equal(20, victim())
    end)

    it("is not the emptiest part of a run", function()
      set_live(20, LARGE, 2)
      set_live(21, REST, 9)
      set_live(22, REST, 9)
      assert.equal(1, victim())
    end)

    it("is no run of which something is not known", function()
      set_live(20, LARGE, 2)
      set_live(21, REST + 16, 0) -- uncounted
      assert.equal(1, victim())
    end)

    it("is not one with as much alive as others", function()
      set_live(20, LARGE, 4.9)
      assert.equal(1, victim())
      set_live(20, LARGE, 4)
      assert.equal(20, victim())
    end)

    it("has nothing to do with the rest of a run behind it", function()
      set_live(20, IN_USE, 4)
      set_live(21, REST, 9.9)
      assert.equal(20, victim())
    end)
  end)
end)
