-- SPDX-License-Identifier: MIT
--
-- Nodes: slots, branches, collision nodes, records, large values, and what a
-- scan steps by; each at its bounds, cut off at every byte, of the wrong kind,
-- with lengths that overflow. Then random bytes, read as everything.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local format = probe.format

local hex, u64 = binary.hex, binary.u64
local META_AT, SHAPE_AT = 8, 16
local FAR = "fffffffffffffff8"

local function refused(rule, result, code, what)
  assert.is_nil(result)
  assert.equal("ECORRUPT", code)
  assert.equal(rule, what:match("^F%d+"))
end

local function meta(kind, flags, epoch)
  return u64(epoch or 5):sub(1, 6) .. string.char(flags, kind)
end

-- What is true of records with a time and without, whose header ends at `from`;
-- `record` writes one.
local function sizes_hold(from, record, key_sizes, value_sizes, time)
  for _, key_size in ipairs(key_sizes) do
    for _, value_size in ipairs(value_sizes) do
      local key = binary.bytes(key_size, 1)
      local value = binary.bytes(value_size, 2)
      local bytes = record(key, value)
      assert.equal(math.ceil((from + key_size + value_size) / 8) * 8, #bytes)
      assert.equal(hex(#bytes),
        format.record_size(key_size, value_size, false, from == 32))
      local got = assert(format.record_read(bytes, 0, true))
      assert.is_true(key == got.key)
      assert.is_true(value == got.value)
      assert.equal(hex(99), got.epoch)
      if time then assert.equal(time, got.expires_ms) end
      local kind, size = format.node_measure(bytes, 0, #bytes)
      assert.equal(2, kind)
      assert.equal(hex(#bytes), size)
    end
  end
end

local function notices_flips(from, bytes, content_size)
  for offset = 0, from + content_size - 1 do
    for bit = 0, 7 do
      local got, code = format.record_read(binary.flip(bytes, offset, bit), 0, true)
      assert.is_nil(got)
      assert.equal("ECORRUPT", code)
    end
  end
end

local function refuses_cuts(from, bytes, content_size)
  for length = 0, from + content_size - 1 do
    refused(length < 24 and "F20" or "F28",
      format.record_read(bytes:sub(1, length), 0))
  end
  assert(format.record_read(bytes, 0))
end

describe("format.slot", function()
  it("holds an offset, a tag and a kind", function()
    for _, offset in ipairs { 8, 12352, 2 ^ 32 + 8, 2 ^ 50 - 8 } do
      local got, tag, is_record = format.slot_parts(
        format.slot_of_branch(offset))
      assert.equal(hex(offset), got)
      assert.equal(0, tag)
      assert.is_false(is_record)
      got, tag, is_record = format.slot_parts(
        format.slot_of_record(offset, "123456789abcdef0"))
      assert.equal(hex(offset), got)
      assert.equal(0xdef0, tag)
      assert.is_true(is_record)
    end
  end)

  it("has room for no more than 50 bits of offset", function()
    local got, tag, is_record = format.slot_parts("ffffffffffffffff")
    assert.equal("0003fffffffffff8", got)
    assert.equal(65535, tag)
    assert.is_true(is_record)
  end)
end)

describe("format.branch", function()
  local SLOTS = { "0000000000000c10", "1234000000000c21", "0000000000000c30" }

  local function branch(changes)
    local fields = { map_id = 7, level = 0, primary = 0, secondary = 0,
      epoch = 123456789, bitmap = "8000000000000011", slots = SLOTS }
    for name, value in pairs(changes or {}) do fields[name] = value end
    return format.branch_write(fields)
  end

  it("gives back what was written, at every level", function()
    for level = 0, 21 do
      local primary, secondary = format.branch_place_of(level,
        "fedcba9876543210", "f0e1d2c3b4a59687")
      local bytes = branch { level = level, primary = primary,
        secondary = secondary }
      assert.equal(24 + 3 * 8 + (level >= 6 and 16 or 0), #bytes)
      local got = assert(format.branch_read(bytes, 0, level))
      assert.same(SLOTS, got.slots)
      assert.equal("8000000000000011", got.bitmap)
      assert.equal(hex(123456789), got.epoch)
      assert.equal(hex(7), got.map_id)
      assert.equal(primary, got.primary)
      assert.equal(secondary, got.secondary)
      local kind, size = format.node_measure(bytes, 0, #bytes)
      assert.equal(1, kind)
      assert.equal(hex(#bytes), size)
    end
  end)

  it("takes the bits of the hashes from the top, six at a level", function()
    local ways = {}
    for level = 0, 21 do
      ways[level] = format.branch_way("fedcba9876543210", "0123456789abcdef",
        level)
    end
    -- fedcba98... in groups of six bits.
    assert.equal(63, ways[0])
    assert.equal(45, ways[1])
    assert.equal(50, ways[2])
    assert.equal(58, ways[3])
    assert.equal(0, ways[10]) -- four bits are left: 0000, then 00
    assert.equal(0, ways[11])
    assert.equal(18, ways[12])
    assert.equal(60, ways[21]) -- 1111, then 00
  end)

  it("knows the bits that lead to a level, no others", function()
    for level, expected in pairs {
      [0] = { "0000000000000000", "0000000000000000" },
      [1] = { "fc00000000000000", "0000000000000000" },
      [5] = { "fffffffc00000000", "0000000000000000" },
      [10] = { "fffffffffffffff0", "0000000000000000" },
      [11] = { "ffffffffffffffff", "0000000000000000" },
      [12] = { "ffffffffffffffff", "fc00000000000000" },
      [22] = { "ffffffffffffffff", "ffffffffffffffff" },
    } do
      assert.same(expected, { format.branch_place_of(level,
        "ffffffffffffffff", "ffffffffffffffff") })
    end
  end)

  it("is refused when it is cut off, or lies beyond the end", function()
    for _, level in ipairs { 0, 6, 21 } do
      local bytes = branch { level = level }
      for length = 0, #bytes - 1 do
        refused(length < 24 and "F20" or "F25",
          format.branch_read(bytes:sub(1, length), 0, level))
      end
      refused("F20", format.branch_read(bytes, #bytes, level))
      refused("F20", format.branch_read(bytes, #bytes - 16, level))
      refused("F20", format.branch_read(bytes, FAR, level))
      refused("F20", format.branch_read(bytes, "0003fffffffffff8", level))
    end
  end)

  it("is refused if kind or level are others", function()
    local bytes = branch { level = 3 }
    refused("F24", format.branch_read(bytes, 0, 2))
    refused("F24", format.branch_read(bytes, 0, 4))
    refused("F21", format.branch_read(bytes, 0, 22))
    for kind = 0, 255 do
      if kind ~= 1 then
        refused("F21", format.branch_read(
          binary.patch(bytes, META_AT, meta(kind, 3)), 0, 3))
      end
    end
    refused("F24", format.branch_read(
      binary.patch(bytes, META_AT, meta(1, 255)), 0, 3))
  end)

  it("is refused without slots, and may have all 64", function()
    refused("F25", format.branch_read(
      binary.patch(branch(), SHAPE_AT, u64(0)), 0, 0))
    local slots = {}
    for i = 1, 64 do slots[i] = hex(i * 64) end
    local full = branch { bitmap = "ffffffffffffffff", slots = slots }
    assert.same(slots, assert(format.branch_read(full, 0, 0)).slots)
    refused("F25", format.branch_read(full:sub(1, -2), 0, 0))
  end)

  it("may be a collision node of 1 to 8192 slots", function()
    local slots = {}
    for i = 1, 8192 do slots[i] = hex(i * 2 + 1) end
    for _, count in ipairs { 1, 2, 65, 8192 } do
      local some = {}
      for i = 1, count do some[i] = slots[i] end
      local bytes = branch { level = 22, primary = "fedcba9876543210",
        secondary = "f0e1d2c3b4a59687", slots = some }
      assert.equal(40 + 8 * count, #bytes)
      local got = assert(format.branch_read(bytes, 0, 22))
      assert.same(some, got.slots)
      assert.equal(hex(0), got.bitmap)
      assert.equal("fedcba9876543210", got.primary)
      assert.equal("f0e1d2c3b4a59687", got.secondary)
      refused("F25", format.branch_read(bytes:sub(1, -2), 0, 22))
      local kind, size = format.node_measure(bytes, 0, #bytes)
      assert.equal(3, kind)
      assert.equal(hex(#bytes), size)
      for _, wrong in ipairs { 0, 8193, 2 ^ 32 + 1, "2000000000000001",
        "ffffffffffffffff", "8000000000000000" } do
        local hostile = binary.patch(bytes, SHAPE_AT, u64(wrong))
        refused("F25", format.branch_read(hostile, 0, 22))
        if wrong ~= 0 then
          refused("F34", format.node_measure(hostile, 0, #hostile))
        end
      end
    end
  end)
end)

describe("format.record", function()
  local function record(key, value, changes)
    local fields = { map_id = 1, epoch = 99, key = key, value = value }
    for name, given in pairs(changes or {}) do fields[name] = given end
    return format.record_write(fields)
  end

  it("gives back what was written, of every size", function()
    sizes_hold(24, record, { 0, 1, 7, 8, 9, 255, 256, 65535 },
      { 0, 1, 7, 8, 15, 16, 17, 100, 70000 })
  end)

  it("fills the padding with zeros", function()
    assert.equal("keyvalue!" .. ("\0"):rep(7),
      record("key", "value!"):sub(25))
    assert.equal(24, #record("", ""))
  end)

  it("notices every flipped bit", function()
    local bytes = record("some key", "some value")
    notices_flips(24, bytes, 18)
    refused("F29", format.record_read(binary.flip(bytes, 0), 0, true))
    refused("F29", format.record_read(binary.flip(bytes, 4), 0, true))
    refused("F29", format.record_read(binary.flip(bytes, 8), 0, true))
    refused("F29", format.record_read(binary.flip(bytes, 41), 0, true))
    -- One byte more of value and one less of key is another record.
    local moved = binary.patch(bytes, SHAPE_AT, binary.u32(11) .. binary.u32(7))
    assert(format.record_read(moved, 0))
    refused("F29", format.record_read(moved, 0, true))
  end)

  it("is refused when it is cut off, or lies beyond the end", function()
    local bytes = record("key", "value")
    refuses_cuts(24, bytes, 8)
    refused("F20", format.record_read(bytes, #bytes))
    refused("F20", format.record_read(bytes, FAR))
  end)

  it("is refused with another kind, with flags, with wrong lengths", function()
    local bytes = record("key", "value")
    for _, kind in ipairs { 0, 1, 3, 0x46, 255 } do
      refused("F21", format.record_read(
        binary.patch(bytes, META_AT, meta(kind, 0)), 0))
    end
    for _, flags in ipairs { 3, 7, 8, 128, 255 } do
      local hostile = binary.patch(bytes, META_AT, meta(2, flags))
      refused("F28", format.record_read(hostile, 0))
      refused("F28", format.node_measure(hostile, 0, #hostile))
    end
    for _, shape in ipairs { { 4, 5 }, { 65535, 0 }, { 65536, 0 },
      { 4294967295, 0 }, { 0, 4294967295 }, { 65535, 4294967295 },
      { 4294967295, 4294967295 } } do
      local hostile = binary.patch(bytes, SHAPE_AT,
        binary.u32(shape[2]) .. binary.u32(shape[1]))
      if shape[1] + shape[2] > 8 then
        refused("F28", format.record_read(hostile, 0))
      end
      if shape[1] > 65535 then
        refused("F28", format.node_measure(hostile, 0, #hostile))
      elseif shape[1] + shape[2] > 16 then
        refused("F19", format.node_measure(hostile, 0, #hostile))
      end
    end
  end)
end)

describe("format.record that expires", function()
  local TIME = "0000019b2c3d4e5f"

  local function record(key, value, time)
    return format.record_write { map_id = 1, epoch = 99, key = key,
      value = value, expires_ms = time or TIME }
  end

  it("gives back what was written, of every size", function()
    sizes_hold(32, record, { 0, 1, 7, 8, 9, 65535 },
      { 0, 1, 7, 8, 15, 16, 17, 70000 }, TIME)
  end)

  it("has its time behind the header, as part of the value's length", function()
    local bytes = record("key", "value!")
    assert.equal(binary.u64(TIME) .. "keyvalue!" .. ("\0"):rep(7),
      bytes:sub(25))
    assert.equal(hex(3):sub(9) .. hex(14):sub(9),
      binary.u64_at(bytes, SHAPE_AT))
  end)

  -- A recycled record is written over by one of the same size. If the process
  -- dies between the two words of the header, a scan of the frame must still
  -- step over it: the size follows from the second word alone.
  it("has the size of a plain one with the same lengths", function()
    local bytes = record("key", "value!")
    for _, shape in ipairs { { 3, 14 }, { 17, 0 }, { 10, 7 }, { 0, 17 } } do
      local half = binary.patch(bytes, SHAPE_AT,
        binary.u32(shape[2]) .. binary.u32(shape[1]))
      for _, flags in ipairs { 0, 4 } do
        local kind, size = format.node_measure(
          binary.patch(half, META_AT, meta(2, flags)), 0, #bytes)
        assert.equal(2, kind)
        assert.equal(hex(#bytes), size)
      end
    end
  end)

  it("is refused with a time out of range, or none", function()
    for _, time in ipairs { "8000000000000000", ("f"):rep(16) } do
      refused("F45", format.record_read(record("k", "v", time), 0))
    end
    local bytes = record("k", "v")
    refused("F45", format.record_read(
      binary.patch(bytes, 24, ("\0"):rep(8)), 0))
    assert(format.record_read(record("k", "v", "7fffffffffffffff"), 0))
    assert(format.record_read(record("k", "v", hex(1)), 0))
    for value_size = 0, 7 do
      refused("F28", format.record_read(binary.patch(bytes, SHAPE_AT,
        binary.u32(value_size) .. binary.u32(1)), 0))
    end
  end)

  it("notices every flipped bit", function()
    notices_flips(32, record("some key", "some value"), 18)
  end)

  it("is refused when it is cut off", function()
    refuses_cuts(32, record("key", "value"), 8)
  end)

  it("may have pages of its own", function()
    local value = binary.bytes(5000, 3)
    local pages, checksum = format.extent_write(value, "fedcba9876543210")
    local bytes = format.record_write { map_id = 1, epoch = 7, key = "key",
      value_size = #value, extent_offset = 4096, extent_checksum = checksum,
      expires_ms = TIME }
    assert.equal(56, #bytes)
    local file = bytes .. ("\0"):rep(4096 - #bytes) .. pages
    local got = assert(format.record_read(file, 0, true))
    assert.equal(TIME, got.expires_ms)
    assert.is_true(got.is_large and got.key == "key" and got.value == value)
    local _, size = format.node_measure(file, 0, 56)
    assert.equal(hex(56), size)
  end)
end)

describe("format.extent", function()
  -- A file of a record at 0 and the pages of its value behind it.
  local function large(key, value)
    local pages, checksum = format.extent_write(value, "fedcba9876543210")
    local bytes = format.record_write { map_id = 1, epoch = 7, key = key,
      value_size = #value, extent_offset = 4096, extent_checksum = checksum }
    return bytes .. ("\0"):rep(4096 - #bytes) .. pages, #bytes
  end

  it("gives back what was written", function()
    for _, size in ipairs { 0, 1, 4031, 4032, 4033, 8128, 100000 } do
      local value = binary.bytes(size, 3)
      local file, node_size = large("key", value)
      assert.equal(48, node_size)
      assert.equal(4096 + math.ceil((size + 64) / 4096) * 4096, #file)
      assert.equal(hex(#file - 4096), format.extent_size(size))
      local got = assert(format.record_read(file, 0, true))
      assert.is_true(got.is_large)
      assert.equal("key", got.key)
      assert.is_true(value == got.value)
      local kind, measured = format.node_measure(file, 0, node_size)
      assert.equal(2, kind)
      assert.equal(hex(node_size), measured)
    end
  end)

  it("has room for the largest value", function()
    assert.equal(hex(2 ^ 32 + 4096), format.extent_size(4294967295))
    assert.equal(hex(24 + 16 + 65536), format.record_size(65535, 4294967295,
      true))
    local record = format.record_write { map_id = 1, epoch = 7, key = "",
      value_size = 4294967295, extent_offset = 4096, extent_checksum = 0 }
    refused("F31", format.record_read(record .. ("\0"):rep(20000), 0))
  end)

  it("is refused beyond the file, off its page, cut off", function()
    local file = large("key", binary.bytes(5000, 4))
    for _, offset in ipairs { 4095, 4104, 8192, 2 ^ 40, FAR,
      "fffffffffffff000", "ffffffffffffe000" } do
      refused("F31", format.record_read(binary.patch(file, 24, u64(offset)),
        0))
    end
    for _, length in ipairs { 4096, 5000, 8192, #file - 1 } do
      refused("F31", format.record_read(file:sub(1, length), 0))
    end
    for length = 24, 24 + 16 + 3 - 1 do
      refused("F28", format.record_read(file:sub(1, length), 0))
    end
    -- Another page of the file is no large value.
    refused("F32", format.record_read(
      binary.patch(file .. ("\0"):rep(8192), 24, u64(8192)), 0))
  end)

  it("is refused with a header that does not fit", function()
    local file = large("key", binary.bytes(5000, 4))
    refused("F32", format.record_read(binary.flip(file, 4096), 0))
    refused("F32", format.record_read(binary.flip(file, 4096 + 24), 0))
    refused("F32", format.record_read(binary.flip(file, 4096 + 31, 7), 0))
    -- The record's length against the one in the pages.
    refused("F32", format.record_read(
      binary.patch(file, SHAPE_AT, binary.u32(4999)), 0))
  end)

  it("notices every flipped byte", function()
    local value = binary.bytes(300, 5)
    local file = large("key", value)
    for offset = 0, 42 do
      assert.is_nil((format.record_read(binary.flip(file, offset, offset % 8),
        0, true)))
    end
    for offset = 4096, 4096 + 64 + #value - 1 do
      assert.is_nil((format.record_read(binary.flip(file, offset, offset % 8),
        0, true)))
    end
    refused("F33", format.record_read(binary.flip(file, 4096 + 8), 0, true))
    refused("F33", format.record_read(binary.flip(file, 4096 + 64), 0, true))
    refused("F29", format.record_read(binary.flip(file, 32), 0, true))
    -- Behind the value nothing is covered, nothing read.
    assert(format.record_read(binary.flip(file, 4096 + 64 + 300), 0, true))
  end)
end)

describe("format.node_measure", function()
  it("steps over the nodes of a frame and ends where it ends", function()
    local nodes = {
      format.record_write { map_id = 1, epoch = 1, key = "k", value = "v" },
      format.branch_write { map_id = 1, level = 0, epoch = 1,
        bitmap = "0000000000000003", slots = { 9, 17 } },
      format.branch_write { map_id = 1, level = 22, epoch = 1, bitmap = 0,
        slots = { 9, 17, 33 } },
      format.record_write { map_id = 1, epoch = 1, key = "", value = "" },
    }
    local bytes = table.concat(nodes)
    local at = 0
    for _, node in ipairs(nodes) do
      local _, size = assert(format.node_measure(bytes, at, #bytes))
      assert.equal(hex(#node), size)
      -- It may not reach beyond its frame, wherever the file ends.
      refused("F19", format.node_measure(bytes .. bytes, at, at + #node - 1))
      at = at + #node
    end
    assert.equal(#bytes, at)
    refused("F19", format.node_measure(bytes, at, at))
    refused("F19", format.node_measure(bytes, FAR, at))
  end)

  it("knows no other kinds", function()
    local bytes = format.record_write { map_id = 1, epoch = 1, key = "k",
      value = "v" }
    for kind = 0, 255 do
      if kind < 1 or kind > 4 then
        refused("F21", format.node_measure(
          binary.patch(bytes, META_AT, meta(kind, 0)), 0, #bytes))
      end
    end
  end)
end)

describe("format, given random bytes,", function()
  it("answers, and reads nothing beyond them", function()
    local seed = binary.seed("format")
    local rounds = os.getenv("MMCMAP_LONG") and 60000 or 3000
    assert.is_true(format.fuzz(seed, rounds) > rounds)
  end)
end)
