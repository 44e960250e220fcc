-- SPDX-License-Identifier: MIT
--
-- Numbers in byte strings, and arithmetic at its bounds.

local base = require("mmcmap_probe").base

local MAX = ("f"):rep(16)
local ZERO = ("0"):rep(16)

local function hex(text)
  return ("0"):rep(16 - #text) .. text
end

describe("base.bytes", function()
  local text = "\1\35\69\103\137\171\205\239\16\50\84\118\152\186\220\254"

  it("reads numbers little-endian, at odd addresses too", function()
    assert.equal(hex "2301", base.bytes_get(text, 0, 16))
    assert.equal(hex "4523", base.bytes_get(text, 1, 16))
    assert.equal(hex "67452301", base.bytes_get(text, 0, 32))
    assert.equal(hex "cdab8967", base.bytes_get(text, 3, 32))
    assert.equal("efcdab8967452301", base.bytes_get(text, 0, 64))
    assert.equal("10efcdab89674523", base.bytes_get(text, 1, 64))
    assert.equal("fedcba9876543210", base.bytes_get(text, 8, 64))
  end)

  it("reads numbers with the top bit set as they are", function()
    local ones = ("\255"):rep(8)
    assert.equal(hex "ffff", base.bytes_get(ones, 0, 16))
    assert.equal(hex "ffffffff", base.bytes_get(ones, 0, 32))
    assert.equal(MAX, base.bytes_get(ones, 0, 64))
  end)

  it("writes numbers little-endian and nothing beside them", function()
    local value = "0123456789abcdef"
    assert.equal(".\239\205.............", base.bytes_set(1, 16, value))
    assert.equal("...\239\205\171\137.........", base.bytes_set(3, 32, value))
    assert.equal("........\239\205\171\137gE#\1", base.bytes_set(8, 64, value))
  end)

  it("writes and reads atomically in the same byte order", function()
    local value = "0123456789abcdef"
    local bytes = "\239\205\171\137gE#\1"
    assert.same({ bytes, bytes, value, value }, { base.bytes_atomic(value) })
  end)

  it("rounds up to a multiple of a power of two", function()
    for _, case in ipairs {
      { 0, 8, 0 }, { 1, 8, 8 }, { 7, 8, 8 }, { 8, 8, 8 }, { 9, 8, 16 },
      { 5, 1, 5 }, { 1, 4096, 4096 }, { 4096, 4096, 4096 },
      { 4097, 4096, 8192 },
    } do
      assert.equal(hex(("%x"):format(case[3])),
        base.bytes_align_up(case[1], case[2]))
    end
    assert.equal("fffffffffffff000",
      base.bytes_align_up("ffffffffffffefff", 4096))
  end)

  it("adds, and notices when the sum does not fit", function()
    assert.equal(hex "3", base.bytes_add(1, 2))
    assert.equal(MAX, base.bytes_add("fffffffffffffffe", 1))
    assert.equal(MAX, base.bytes_add(MAX, 0))
    assert.is_nil(base.bytes_add(MAX, 1))
    assert.is_nil(base.bytes_add(1, MAX))
    assert.is_nil(base.bytes_add(MAX, MAX))
    assert.is_nil(base.bytes_add("8000000000000000", "8000000000000000"))
  end)

  it("multiplies, and notices when the product does not fit", function()
    assert.equal(hex "6", base.bytes_mul(2, 3))
    assert.equal(ZERO, base.bytes_mul(MAX, 0))
    assert.equal(MAX, base.bytes_mul(MAX, 1))
    assert.equal("fffffffe00000001", base.bytes_mul(0xffffffff, 0xffffffff))
    assert.equal("8000000000000000", base.bytes_mul("4000000000000000", 2))
    assert.is_nil(base.bytes_mul("8000000000000000", 2))
    assert.is_nil(base.bytes_mul("0000000100000000", "0000000100000000"))
    assert.is_nil(base.bytes_mul(MAX, MAX))
  end)

  it("tells whether a range lies within a limit", function()
    for _, case in ipairs {
      { 0, 0, 0, true }, { 0, 1, 0, false }, { 1, 0, 0, false },
      { 0, 8, 8, true }, { 1, 8, 8, false }, { 8, 0, 8, true },
      { 9, 0, 8, false }, { 0, 9, 8, false }, { 7, 1, 8, true },
      { MAX, 0, MAX, true }, { 0, MAX, MAX, true }, { 1, MAX, MAX, false },
      { MAX, 1, MAX, false }, { MAX, MAX, MAX, false },
      { "fffffffffffffff8", 16, 64, false }, -- the end wraps around to 8
    } do
      assert.equal(case[4], base.bytes_within(case[1], case[2], case[3]),
        table.concat({ case[1], case[2], case[3] }, " "))
    end
  end)
end)
