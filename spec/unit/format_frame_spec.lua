-- SPDX-License-Identifier: MIT
--
-- Frames: begun, completed, read; each of the rules F14 to F18 broken alone,
-- with the checksum made to fit again; cut off at every length.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local format = probe.format

local SEGMENT = 131072
local AT = 12352
local SALT, PREVIOUS = "1122334455667788", "8877665544332211"
local NODES = format.record_write { map_id = 1, epoch = 6, key = "key",
  value = "value" }
local HEADER = 72

local function fields(changes)
  local all = { salt = SALT, epoch = 6, flags = 1, previous = PREVIOUS,
    next_offset = 20000, root = "0007000000000c01", count = 1, content_epoch = 0 }
  for name, value in pairs(changes or {}) do all[name] = value end
  return all
end

-- A file with the frame at AT.
local function image(frame, at)
  return ("\0"):rep(at or AT) .. frame
end

local function read(file, at, salt, previous)
  return format.frame_read(file, at or AT, SEGMENT, salt or SALT,
    previous or PREVIOUS)
end

local function refused(rule, ...)
  local frame, code, what = read(...)
  assert.is_nil(frame)
  assert.equal("ECORRUPT", code)
  assert.equal(rule, what:match("^F%d+"))
end

-- The frame's bytes with some changed and the checksum made to fit.
local function changed(frame, offset, bytes)
  frame = binary.patch(frame, offset, bytes)
  return binary.patch(frame, 0, binary.u64(format.checksum(frame:sub(9))))
end

describe("format.frame", function()
  it("gives back what was completed", function()
    local frame, checksum = format.frame_complete(fields(), NODES)
    assert.equal(HEADER + #NODES, #frame)
    local got = assert(read(image(frame)))
    assert.same({ salt = SALT, epoch = binary.hex(6), flags = binary.hex(1),
      previous = PREVIOUS, next_offset = binary.hex(20000),
      root = "0007000000000c01", count = binary.hex(1), content_epoch = binary.hex(0),
      size_bytes = binary.hex(#frame), checksum = checksum }, got)
    assert.equal(checksum, binary.u64_at(frame, 0))
    assert.equal(NODES, frame:sub(HEADER + 1))
  end)

  it("takes empty frames, flags in any mixture that makes sense", function()
    assert(read(image((format.frame_complete(fields(), "")))))
    for flags = 0, 3 do
      local ends = flags % 2 == 1
      local frame = format.frame_complete(fields { flags = flags,
        root = ends and 9 or 0, count = ends and 3 or 0 }, NODES)
      assert(read(image(frame)))
    end
    assert(read(image((format.frame_complete(fields { root = 0, count = 0 },
      NODES)))))
  end)

  it("is not accepted while it is only begun", function()
    local begun = format.frame_begin(SALT, 6)
    assert.equal(HEADER, #begun)
    refused("F16", image(begun))
    -- The chain of a new file begins with 0, as an open frame's field does.
    refused("F16", image(begun), AT, SALT, 0)
    refused("F16", image(begun .. NODES .. ("\0"):rep(200)), AT, SALT, 0)
  end)

  it("keeps F14: within the file, behind the superblocks, aligned", function()
    local frame = format.frame_complete(fields(), NODES)
    local file = image(frame)
    refused("F14", file, #file - HEADER + 8)
    refused("F14", file, #file)
    refused("F14", file, "fffffffffffffff8")
    refused("F14", file, AT + 4)
    refused("F14", file, 0)
    refused("F14", image(frame, 12280), 12280)
    assert(read(image(frame, 12288), 12288))
    for length = 0, HEADER - 1 do refused("F14", file:sub(1, AT + length)) end
  end)

  it("keeps F15: kind, salt, chain", function()
    local frame = format.frame_complete(fields(), NODES)
    refused("F15", image(changed(frame, 15, "\1")))
    refused("F15", image(changed(frame, 15, "\0")))
    refused("F15", image(frame), AT, "1122334455667789")
    refused("F15", image(frame), AT, SALT, "0877665544332211")
    refused("F15", image(frame), AT, SALT, 0)
    refused("F15", ("\0"):rep(20000))
  end)

  it("keeps F16: sizes", function()
    local frame = format.frame_complete(fields(), NODES)
    for _, size in ipairs { 0, 8, 64, 71, HEADER + 1, #frame - 1, #frame + 8,
      SEGMENT, 2 ^ 32 + #frame, "ffffffffffffffff", "fffffffffffffff8",
      "7ffffffffffffff8", "8000000000000000" } do
      refused("F16", image(binary.patch(frame, 64, binary.u64(size))))
    end
    for length = HEADER, #frame - 1 do
      refused("F16", image(frame):sub(1, AT + length))
    end
    -- It may end with its segment, not reach into the next one.
    local at = SEGMENT - #frame
    assert(read(image(frame, at), at))
    refused("F16", image(frame, at + 8) .. ("\0"):rep(99), at + 8)
    -- A header alone fits in what is left.
    assert(read(image((format.frame_complete(fields(), "")), SEGMENT - HEADER),
      SEGMENT - HEADER))
  end)

  it("keeps F17: every bit that is flipped", function()
    local frame = format.frame_complete(fields(), NODES)
    for offset = 0, #frame - 1 do
      for bit = 0, 7 do
        assert.is_nil((read(image(binary.flip(frame, offset, bit)))))
      end
    end
    refused("F17", image(binary.flip(frame, 0)))
    refused("F17", image(binary.flip(frame, 8)))
    refused("F17", image(binary.flip(frame, 48)))
    refused("F17", image(binary.flip(frame, #frame - 1, 7)))
  end)

  it("keeps F18: flags", function()
    local frame = format.frame_complete(fields(), NODES)
    for _, flags in ipairs { 4, 5, 128, 255 } do
      refused("F18", image(changed(frame, 14, string.char(flags))))
    end
    for _, changes in ipairs { { flags = 0 }, { flags = 0, root = 0 },
      { flags = 0, root = 0, count = 0, content_epoch = 8 }, { flags = 2, count = 0 },
      { root = 0 }, { count = 0 }, { content_epoch = 8 } } do
      refused("F18", image((format.frame_complete(fields(changes), NODES))))
    end
  end)

  it("is chained by its checksum to the one before", function()
    local first, chain = format.frame_complete(fields(), NODES)
    local second = format.frame_complete(fields { previous = chain, epoch = 7 },
      NODES)
    local file = image(first) .. second
    assert(read(file))
    assert(read(file, AT + #first, SALT, chain))
    refused("F15", file, AT + #first, SALT, PREVIOUS)
  end)
end)
