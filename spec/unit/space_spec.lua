-- SPDX-License-Identifier: MIT
--
-- Space and log over a bare engine: how the file grows, what is said when it
-- cannot, where nodes go at the end of a segment, how frames are chained,
-- where large values go; and the recycler.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"
local format = probe.format

local SEGMENT, KIB64 = 131072, 65536
local FRAME, SEGMENT_HEADER = 72, 64
local FIRST = 12288 + SEGMENT_HEADER -- where the first frame begins
local LOG, LARGE = 1, 2

local engine

local function new_engine(changes)
  if engine then engine:close() end
  local options = { path = scratch.path("space"), segment_size = SEGMENT }
  for name, value in pairs(changes or {}) do options[name] = value end
  engine = assert(probe.engine.new(options))
  return engine
end

local function state()
  local numbers = {}
  for name, hex in pairs(engine:state()) do numbers[name] = binary.number(hex) end
  return numbers
end

local function refused(code, result, name)
  assert.is_nil(result)
  assert.equal(code, name)
end

-- Fills the open segment so that exactly `left` bytes are behind the cursor.
local function fill_to(left)
  local room = state().segment_end - state().cursor - left
  assert.is_true(room >= 24 and room % 8 == 0)
  while room > 0 do
    local size = room > 60000 and 40000 or room
    assert(engine:alloc(size))
    room = room - size
  end
  assert.equal(left, state().segment_end - state().cursor)
end

local function number(hex) return binary.number(hex) end

after_each(function()
  probe.os.restore()
  if engine then engine:close() end
  engine = nil
end)

describe("space", function()
  it("grows in steps, never less than asked for", function()
    new_engine()
    assert.equal(KIB64, state().size)
    assert(engine:ensure(KIB64))
    assert.equal(KIB64, state().size)
    local last = KIB64
    for _, wanted in ipairs { KIB64 + 1, 200000, 1000001, 1000002, 5000000,
      40000000 } do
      assert(engine:ensure(wanted))
      local size = state().size
      assert.is_true(size >= wanted and size >= last)
      assert.equal(0, size % 4096)
      last = size
    end
    local before = state().size
    assert(engine:ensure(100))
    assert.equal(before, state().size)
    -- Really allocated, and readable to the last byte.
    assert.equal(("\0"):rep(16), engine:bytes(before - 16, 16))
  end)

  it("has what it grows by written, page by page, for who syncs each change",
    function()
      new_engine()
      probe.os.watch()
      assert(engine:ensure(KIB64 + 1))
      assert.equal(2 * KIB64, state().size)
      assert.equal(KIB64 / 4096, probe.os.counts().pwrite)
      -- Much at once is as long as what will be written there.
      assert(engine:ensure(5000000))
      assert.equal(KIB64 / 4096, probe.os.counts().pwrite)
    end)

  it("says EFULL at max_size, not before", function()
    for _, most in ipairs { KIB64, 131072, 131072 + 4096, 200000, 200001 } do
      new_engine { max_size = most }
      assert(engine:ensure(most))
      assert.equal(most, state().size)
      refused("EFULL", engine:ensure(most + 1))
      refused("EFULL", engine:ensure("7fffffffffffffff"))
      assert.equal(most, state().size)
      assert(engine:ensure(most))
    end
  end)

  it("says EADDRESS beyond the mapping", function()
    new_engine { address_bytes = 1048576 }
    assert(engine:ensure(1048576))
    assert.equal(1048576, state().size)
    refused("EADDRESS", engine:ensure(1048577))
    refused("EADDRESS", engine:ensure("ffffffffffffffff"))
    assert.equal(1048576, state().size)
  end)

  it("tries the least that is needed when a step does not fit", function()
    new_engine()
    assert(engine:ensure(10000000))
    local size = state().size
    probe.os.fail("fallocate", 1, "ENOSPC")
    assert(engine:ensure(size + 1))
    assert.equal(2, probe.os.counts().fallocate)
    assert.equal(size + 4096, state().size)
  end)

  it("changes nothing when there is no space", function()
    new_engine()
    for _, failure in ipairs { { "ENOSPC", "ENOSPC" }, { "EDQUOT", "ENOSPC" },
      { "EIO", "EIO" } } do
      local before = engine:state()
      probe.os.fail("fallocate", 1, failure[1], 0)
      refused(failure[2], engine:ensure(KIB64 + 1))
      refused(failure[2], engine:alloc(60000))
      refused(failure[2], engine:alloc_large(4096))
      refused(failure[2], engine:begin_segments(LOG, 1))
      assert.same(before, engine:state())
      probe.os.restore()
    end
    assert(engine:alloc(60000))
  end)

  it("begins segments one behind the other, with a header", function()
    new_engine()
    for i, run in ipairs { 1, 3, 1 } do
      local before = state().segment_count
      local at = number(assert(engine:begin_segments(run == 1 and LOG or LARGE,
        run)))
      assert.equal(before, at)
      assert.equal(before + run, state().segment_count)
      local header = assert(format.segment_decode(
        engine:bytes(at * SEGMENT, 64), at, ("\0"):rep(16)), i)
      assert.equal(run, number(header.run))
      assert.equal(run == 1 and LOG or LARGE, number(header.kind))
      assert.equal(1, number(header.sequence))
    end
    refused("EFULL", engine:begin_segments(LARGE, 2 ^ 50 / SEGMENT))
    refused("EFULL", engine:begin_segments(LARGE, "ffffffffffffffff"))
    assert.equal(6, state().segment_count)
  end)

  it("is cut down to what is in use", function()
    new_engine()
    assert(engine:ensure(3000000))
    assert(engine:trim(100001))
    assert.equal(131072, state().size)
    assert(engine:trim(200000))
    assert.equal(131072, state().size)
    assert(engine:ensure(131073))
    assert.is_true(state().size > 131072)
  end)
end)

describe("space.log", function()
  it("begins behind the first segment's header", function()
    new_engine()
    assert.equal(FIRST, state().frame_offset)
    assert.equal(FIRST + FRAME, state().cursor)
    assert.equal(SEGMENT, state().segment_end)
    assert.equal(FIRST + FRAME, number(assert(engine:alloc(24))))
    assert.equal(FIRST + FRAME + 24, number(assert(engine:alloc(24))))
  end)

  it("fits a node that leaves room for a header, not one of 8 bytes more",
    function()
      for _, size in ipairs { 24, 104, 5000 } do
        new_engine()
        fill_to(size + FRAME)
        local at = number(assert(engine:alloc(size)))
        assert.equal(SEGMENT - FRAME - size, at)
        assert.equal(1, state().segment_count)
        assert.same({}, engine:frames())

        new_engine()
        fill_to(size + FRAME - 8)
        at = number(assert(engine:alloc(size)))
        assert.equal(SEGMENT + SEGMENT_HEADER + FRAME, at)
        assert.equal(2, state().segment_count)
        assert.equal(1, #engine:frames())
      end
    end)

  it("holds a node that fills a segment, in the middle of another", function()
    new_engine()
    local most = SEGMENT - SEGMENT_HEADER - 2 * FRAME
    for i = 1, 3 do
      assert.equal(i * SEGMENT + SEGMENT_HEADER + FRAME,
        number(assert(engine:alloc(most))))
    end
    assert(engine:alloc(24))
    assert.equal(5, state().segment_count)
  end)

  it("chains the frames of an epoch, and those of epochs", function()
    new_engine()
    local random = binary.random(binary.seed("space.log"))
    local epoch, sealed = 1, {}
    for _ = 1, 400 do
      assert(engine:alloc(24 + 8 * random(2000)))
      if random(12) == 1 then
        assert(engine:seal())
        sealed[epoch] = true
        epoch = epoch + 1
        assert.equal(epoch, state().epoch)
      end
    end
    local frames = engine:frames()
    local at, inside = FIRST, 1
    for _, frame in ipairs(frames) do
      assert.equal(at, number(frame.offset))
      assert.equal(inside, number(frame.epoch))
      local size = number(frame.size_bytes)
      assert.is_true(at % SEGMENT + size <= SEGMENT)
      assert.is_number(engine:scan(at, size))
      local ends = number(frame.flags) % 2 == 1
      if ends then
        assert.is_true(sealed[inside])
        inside = inside + 1
      end
      at = number(frame.next_offset)
      -- Begun, with the salt and its epoch.
      local begun = engine:bytes(at, FRAME)
      assert.equal(inside, number("0000" .. binary.u64_at(begun, 8):sub(5)))
      assert.equal(frame.salt, binary.u64_at(begun, 16))
    end
    assert.equal(state().frame_offset, at)
    assert.equal(0, #engine:frames())
  end)

  it("seals what leaves no room behind it, and goes on in a new segment",
    function()
      for _, left in ipairs { FRAME, FRAME + 8, FRAME + 24, 2 * FRAME - 8,
        2 * FRAME } do
        new_engine()
        fill_to(left)
        assert(engine:seal())
        assert.equal(SEGMENT - left, state().frame_offset)
        assert.equal(1, state().segment_count)
        local at = number(assert(engine:alloc(24)))
        assert.equal(SEGMENT + SEGMENT_HEADER + FRAME, at)
        local frames = engine:frames()
        assert.equal(2, #frames)
        assert.equal(FRAME, number(frames[2].size_bytes))
        assert.equal(SEGMENT + SEGMENT_HEADER, number(frames[2].next_offset))
      end
      new_engine()
      fill_to(FRAME)
      assert(engine:seal())
      assert(engine:seal())
      assert.equal(SEGMENT + SEGMENT_HEADER, state().frame_offset)
    end)

  -- So is clear() in a store that may not grow.
  it("with one head can be sealed once more when nothing has been appended", function()
    new_engine { max_size = 15 * SEGMENT }
    fill_to(2 * FRAME)
    assert(engine:seal())
    assert.equal(SEGMENT - 2 * FRAME, state().frame_offset)
    assert(engine:seal())
    assert.equal(SEGMENT - FRAME, state().frame_offset)
    assert.equal(1, state().segment_count)
    local at = number(assert(engine:alloc(24)))
    assert.equal(SEGMENT + SEGMENT_HEADER + FRAME, at)

    new_engine { max_size = 15 * SEGMENT }
    fill_to(24 + 2 * FRAME - 8)
    assert.equal(SEGMENT + SEGMENT_HEADER + FRAME, number(assert(engine:alloc(24))))
  end)

  it("can seal after a change, whatever the disk says", function()
    new_engine()
    local epoch = 1
    for size = 24, 3000, 8 do
      assert(engine:alloc(size))
      probe.os.fail("fallocate", 1, "ENOSPC", 0)
      assert(engine:seal())
      probe.os.restore()
      epoch = epoch + 1
      assert.equal(epoch, state().epoch)
    end
  end)

  it("goes on at a head, or in a new segment if there is no room", function()
    new_engine { head = 20000, epoch = 77 }
    assert.equal(20000, state().frame_offset)
    assert.equal(77, state().epoch)
    new_engine { head = SEGMENT - 2 * FRAME }
    assert.equal(SEGMENT - 2 * FRAME, state().frame_offset)
    new_engine { head = SEGMENT - 2 * FRAME + 8 }
    assert.equal(SEGMENT + SEGMENT_HEADER, state().frame_offset)
    assert.equal(2, state().segment_count)
  end)

  it("gives large values pages of segments of their own", function()
    new_engine()
    local first = number(assert(engine:alloc_large(4096)))
    assert.equal(SEGMENT + 4096, first)
    assert.equal(2, state().segment_count)
    -- The rest of the segment, to the last page.
    assert.equal(first + 4096,
      number(assert(engine:alloc_large(SEGMENT - 3 * 4096))))
    assert.equal(2 * SEGMENT - 4096, state().large_offset)
    assert.equal(2 * SEGMENT - 4096, number(assert(engine:alloc_large(4096))))
    assert.equal(0, state().large_offset) -- it is full
    -- Then a new run: exactly one segment, one page more, several.
    assert.equal(2 * SEGMENT + 4096,
      number(assert(engine:alloc_large(SEGMENT - 4096))))
    assert.equal(3, state().segment_count)
    assert.equal(3 * SEGMENT + 4096, number(assert(engine:alloc_large(SEGMENT))))
    assert.equal(5, state().segment_count)
    -- Which goes on in the segments behind it,
    assert.equal(4 * SEGMENT + 4096,
      number(assert(engine:alloc_large(5 * SEGMENT))))
    assert.equal(10, state().segment_count)
    assert.equal(10 * SEGMENT, state().large_limit)
    assert.equal(9 * SEGMENT + 4096, state().large_offset)
    assert.equal(9 * SEGMENT + 4096,
      number(assert(engine:alloc_large(6 * SEGMENT))))
    assert.equal(16 * SEGMENT, state().large_limit)
    assert.equal(15 * SEGMENT + 4096, state().large_offset)
    -- until it is long,
    assert.equal(16 * SEGMENT + 4096, number(assert(engine:alloc_large(SEGMENT))))
    assert.equal(18 * SEGMENT, state().large_limit)
    -- or there is something else.
    assert(engine:begin_segments(LOG, 1))
    assert.equal(19 * SEGMENT + 4096, number(assert(engine:alloc_large(2 * SEGMENT))))
    assert.equal(22, state().segment_count)
    assert.equal(21 * SEGMENT + 4096, state().large_offset)
    assert.equal(state().large_offset, state()["end"])
    -- The log goes on where it was.
    assert.equal(FIRST + FRAME, number(assert(engine:alloc(24))))
    assert.is_true(state().size >= state().large_offset)
  end)

  it("marks a frame that names large values", function()
    new_engine()
    assert(engine:alloc(24))
    assert(engine:seal())
    assert(engine:alloc(24))
    engine:note_large()
    assert(engine:seal())
    assert(engine:alloc(24))
    assert(engine:seal())
    local frames = engine:frames()
    assert.equal(1, number(frames[1].flags))
    assert.equal(3, number(frames[2].flags))
    assert.equal(1, number(frames[3].flags))
  end)

  it("changes nothing at max_size", function()
    new_engine { max_size = 3 * SEGMENT }
    local count = 0
    while true do
      local before = engine:state()
      local at, code = engine:alloc(5000)
      if not at then
        assert.equal("EFULL", code)
        assert.same(before, engine:state())
        break
      end
      count = count + 1
    end
    assert.equal(3, state().segment_count)
    assert.is_true(count > 70)
    local before = engine:state()
    refused("EFULL", engine:alloc_large(4096))
    refused("EFULL", engine:alloc_large(2 ^ 32))
    assert.same(before, engine:state())
    assert(engine:alloc(24))
    assert(engine:seal())
  end)
end)

describe("space.recycler", function()
  -- Takes until something comes or surely nothing does.
  local function take(kind, size)
    for _ = 1, 100 do
      local offset = engine:recycler_take(kind, size)
      if offset then return number(offset) end
    end
  end

  before_each(function() new_engine() end)

  it("hands out nodes of exactly the size, the oldest first", function()
    for i = 1, 100 do engine:recycler_put("record", 48, 1000 + 8 * i) end
    assert.is_nil(take("record", 40))
    assert.is_nil(take("record", 56))
    assert.is_nil(take("branch", 3))
    for i = 1, 100 do assert.equal(1000 + 8 * i, take("record", 48)) end
    assert.is_nil(take("record", 48))
  end)

  it("keeps branches by slots and records by size apart", function()
    for slots = 1, 64 do engine:recycler_put("branch", slots, slots * 8) end
    for size = 24, 4096, 8 do
      engine:recycler_put("record", size, 1048576 + size)
    end
    for size = 4096, 24, -8 do
      assert.equal(1048576 + size, take("record", size))
    end
    for slots = 64, 1, -1 do assert.equal(slots * 8, take("branch", slots)) end
  end)

  it("does not keep what is large", function()
    engine:recycler_put("record", 4104, 8)
    assert.is_nil(take("record", 4104))
  end)

  it("hands out nothing that a pin may still see", function()
    engine:pin()
    engine:recycler_put("record", 48, 8)
    assert.is_nil(take("record", 48))
    engine:unpin()
    engine:pin() -- later than the unlinking, and so no hindrance
    assert.equal(8, take("record", 48))
    engine:recycler_put("record", 48, 16)
    assert.is_nil(take("record", 48))
    engine:unpin()
    assert.equal(16, take("record", 48))
  end)

  it("hands out what was seen in an epoch before only past its snapshots", function()
    local epoch = state().epoch
    engine:recycler_put("record", 48, 8, epoch + 2)
    assert.equal(8, take("record", 48))
    for held = epoch, epoch + 3 do
      local is_later = held >= epoch + 2
      engine:hold_snapshot(held)
      engine:recycler_put("record", 48, 8, epoch + 2)
      engine:recycler_put("record", 48, 16) -- which nothing holds
      assert.equal(is_later and 8 or 16, take("record", 48))
      engine:let_snapshot_go()
      assert.equal(is_later and 16 or nil, (take("record", 48)))
    end
    -- One that is older than all that is kept is no hindrance.
    assert(engine:alloc(24))
    assert(engine:seal())
    engine:hold_snapshot(epoch)
    engine:recycler_put("record", 48, 8, epoch + 2)
    assert.equal(8, take("record", 48))
    engine:let_snapshot_go()
  end)

  it("forgets all when a commit is ended", function()
    for i = 1, 50 do engine:recycler_put("record", 48, 8 * i) end
    engine:recycler_put("branch", 5, 8)
    assert(engine:alloc(24))
    assert(engine:seal())
    assert.is_nil(take("record", 48))
    assert.is_nil(take("branch", 5))
    engine:recycler_put("record", 48, 4096)
    assert.equal(4096, take("record", 48))
  end)

  it("lets a hot key live in little space, and frames stay whole", function()
    for i = 1, 5000 do
      assert.is_boolean((engine:put("hot", ("value %04d"):format(i))))
      assert.is_boolean((engine:put("key" .. i % 100, ("value %04d"):format(i))))
      if i % 7 == 0 then engine:remove("key" .. i % 100) end
    end
    assert.is_true(state()["end"] < 100000)
    assert.is_true(number(engine:reused_bytes()) > 200000)
    assert(engine:seal())
    for _, frame in ipairs(engine:frames()) do
      assert.is_number(engine:scan(frame.offset, frame.size_bytes))
    end
  end)

  it("keeps what a pinned reader may be looking at", function()
    assert.is_boolean((engine:put("a", "old")))
    assert(engine:put("b", "old"))
    local root, offset = engine:state().root, number(engine:offset_of("a"))
    local bytes = engine:bytes(offset, 32)
    engine:pin()
    for i = 1, 500 do
      assert.is_boolean((engine:put("a", ("%03d"):format(i))))
      assert.is_boolean((engine:put("key" .. i, "x")))
    end
    assert.is_true(bytes == engine:bytes(offset, 32))
    assert.is_string((engine:get("a", root)))
    engine:unpin()
    local reused = false
    for i = 1, 500 do
      assert.is_boolean((engine:put("a", ("%03d"):format(i))))
      reused = reused or bytes ~= engine:bytes(offset, 32)
    end
    assert.is_true(reused)
  end)
end)
