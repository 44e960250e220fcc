-- SPDX-License-Identifier: MIT
--
-- Segment headers: rules F12 and F13.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local format = probe.format

local ID = "fedcba9876543210"

local function encode(changes)
  local fields = { kind = 1, number = 5, run = 1, sequence = 9, file_id = ID }
  for name, value in pairs(changes or {}) do fields[name] = value end
  return format.segment_encode(fields)
end

local function refused(rule, bytes, number, id)
  local header, code, what = format.segment_decode(bytes, number or 5, id or ID)
  assert.is_nil(header)
  assert.equal("ECORRUPT", code)
  assert.equal(rule, what:match("^F%d+"))
end

describe("format.segment", function()
  it("gives back what was encoded", function()
    local bytes = encode()
    assert.equal(64, #bytes)
    assert.same({ kind = binary.hex(1), number = binary.hex(5),
      run = binary.hex(1), sequence = binary.hex(9) },
      format.segment_decode(bytes, 5, ID))
    local large = encode { kind = 2, run = 17, number = 2 ^ 30 }
    assert.equal(binary.hex(17),
      assert(format.segment_decode(large, 2 ^ 30, ID)).run)
  end)

  it("lies behind the superblocks in the first segment", function()
    assert.equal(binary.hex(12288), format.segment_header_offset(0, 131072))
    assert.equal(binary.hex(131072), format.segment_header_offset(1, 131072))
    assert.equal(binary.hex(2 ^ 49), format.segment_header_offset(2 ^ 29,
      2 ^ 20))
  end)

  it("keeps F12: every flipped byte", function()
    local bytes = encode()
    for offset = 0, 63 do
      refused("F12", binary.flip(bytes, offset, offset % 8))
    end
    refused("F12", ("\0"):rep(64))
  end)

  it("keeps F13: of this file, for this number, of a kind", function()
    refused("F13", encode(), 6)
    refused("F13", encode(), "ffffffffffffffff")
    refused("F13", encode(), 5, "fedcba9876543211")
    refused("F13", encode { kind = 0 })
    refused("F13", encode { kind = 3 })
    refused("F13", encode { kind = 4294967295 })
    refused("F13", encode { run = 0 })
    refused("F13", encode { run = 2 })
    refused("F13", encode { kind = 2, run = 0 })
  end)
end)
