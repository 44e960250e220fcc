-- SPDX-License-Identifier: MIT
--
-- Superblocks: what is encoded comes back, and a page that breaks any one of
-- the rules F1 to F11 is refused with that rule's name, although its checksum
-- fits.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local format = probe.format

local SEGMENT = 1048576
local CHECKSUM_AT = 4088

local function fields(changes)
  local all = {
    file_id = ("0123456789abcdef"), secret = binary.bytes(400, 1),
    salt = "fedcba9876543210", segment_size = SEGMENT, hash = 1, sequence = 77,
    flags = 1, epoch = 41, root = "0001000000004001", count = 12345678901,
    content_epoch = 41, chain = "0123456789abcdef", next_epoch = 43,
    segment_count = 9, used_bytes = 3 * SEGMENT, usage_offset = 5,
    usage_count = 6, usage_checksum = "8000000000000001",
    heads = { { offset = 2 * SEGMENT + 64, limit = 3 * SEGMENT },
      { offset = 2 * SEGMENT, limit = 9 * SEGMENT } },
  }
  for name, value in pairs(changes or {}) do all[name] = value end
  return all
end

local function with_checksum(page)
  return binary.patch(page, CHECKSUM_AT,
    binary.u64(format.plain_checksum(page:sub(1, CHECKSUM_AT))))
end

local function decode(page, readonly)
  return format.superblock_decode(page, 0, readonly or false)
end

local function refused(page, code, rule, readonly)
  local superblock, name, what = decode(page, readonly)
  assert.is_nil(superblock)
  assert.equal(code, name)
  assert.equal(rule, what:match("^F%d+"))
end

-- The page of good fields with some of them changed.
local function refused_fields(changes, rule)
  refused(format.superblock_encode(fields(changes)), "ECORRUPT", rule)
end

describe("format.superblock", function()
  it("gives back what was encoded", function()
    local given = fields()
    local page = format.superblock_encode(given)
    assert.equal(4096, #page)
    local got = assert(decode(page))
    for name, value in pairs(given) do
      if name == "heads" then
        for i = 1, 4 do
          local head = value[i] or { offset = 0, limit = 0 }
          assert.equal(binary.hex(head.offset), got.heads[i].offset)
          assert.equal(binary.hex(head.limit), got.heads[i].limit)
        end
      else
        if type(value) == "number" then value = binary.hex(value) end
        assert.equal(value, got[name], name)
      end
    end
  end)

  it("has its fields where the format says", function()
    local page = format.superblock_encode(fields())
    assert.equal("\137mmcmap\n", page:sub(1, 8))
    assert.equal(binary.u32(1) .. binary.u32(0x01020304), page:sub(9, 16))
    assert.equal(("\0"):rep(24), page:sub(17, 40))
    assert.equal("0123456789abcdef", page:sub(41, 56))
    assert.equal("fedcba9876543210", binary.u64_at(page, 56))
    assert.equal(41, binary.number_at(page, 88))
    assert.equal(43, binary.number_at(page, 128))
    assert.equal(binary.bytes(400, 1), page:sub(241, 640))
    assert.equal(("\0"):rep(4088 - 640), page:sub(641, 4088))
  end)

  it("takes an empty map", function()
    assert(decode(format.superblock_encode(fields { root = 0, count = 0 })))
  end)

  it("refuses every flipped byte", function()
    local page = format.superblock_encode(fields())
    for offset = 0, 4095 do
      local superblock, name = decode(binary.flip(page, offset, offset % 8))
      assert.is_nil(superblock)
      local expected = offset < 8 and "EFORMAT" or "ECORRUPT"
      assert.equal(expected, name, offset)
    end
  end)

  it("keeps F1 to F3, whatever the checksum", function()
    local page = format.superblock_encode(fields())
    refused(with_checksum(binary.patch(page, 0, "\138")), "EFORMAT", "F1")
    refused(("\0"):rep(4096), "EFORMAT", "F1")
    refused(with_checksum(binary.patch(page, 8, binary.u32(2))), "EVERSION",
      "F2")
    refused(with_checksum(binary.patch(page, 8, binary.u32(0))), "EVERSION",
      "F2")
    refused(with_checksum(binary.patch(page, 12, "\1\2\3\4")), "EVERSION",
      "F3")
  end)

  it("keeps F4, the checksum", function()
    local page = format.superblock_encode(fields())
    refused(binary.flip(page, 4095, 7), "ECORRUPT", "F4")
    refused(binary.flip(page, 700, 0), "ECORRUPT", "F4")
    local last = { format.superblock_decode(binary.flip(page, 60), 8192, false) }
    assert.equal("ECORRUPT", last[2])
    assert.equal(binary.hex(8192), probe.base.last_error().offset)
  end)

  it("keeps F5: features that must be known", function()
    local page = format.superblock_encode(fields())
    local compat = with_checksum(binary.patch(page, 16, binary.u64(2 ^ 40)))
    assert(decode(compat))
    local readonly_compat = with_checksum(binary.patch(page, 24,
      "\0\0\0\0\0\0\0\128"))
    refused(readonly_compat, "EVERSION", "F5")
    assert(decode(readonly_compat, true))
    local incompat = with_checksum(binary.patch(page, 32, "\1"))
    refused(incompat, "EVERSION", "F5")
    refused(incompat, "EVERSION", "F5", true)
    refused(with_checksum(binary.patch(page, 84, binary.u32(5))), "EVERSION",
      "F5")
  end)

  it("keeps F6: segment sizes", function()
    for _, size in ipairs { 0, 1, 65536, 131071, 131073, 3 * 131072,
      2 ^ 27, 2 ^ 31 } do
      refused_fields({ segment_size = size, segment_count = 1,
        used_bytes = 0, heads = { { offset = 12352, limit = 131072 } } }, "F6")
    end
    for _, size in ipairs { 2 ^ 17, 2 ^ 20, 2 ^ 26 } do
      assert(decode(format.superblock_encode(fields { segment_size = size,
        segment_count = 1, used_bytes = 65536,
        heads = { { offset = 12352, limit = size } } })))
    end
  end)

  it("keeps F7: hash kinds", function()
    for _, hash in ipairs { 3, 4, 255, 2147483647, 2147483648, 4294967295 } do
      refused(with_checksum(binary.patch(format.superblock_encode(fields()), 68,
        binary.u32(hash))), "ECORRUPT", "F7")
    end
    for hash = 0, 2 do
      assert(decode(format.superblock_encode(fields { hash = hash })))
    end
  end)

  it("keeps F8: epochs", function()
    refused_fields({ epoch = 43, next_epoch = 43 }, "F8")
    refused_fields({ epoch = 44, next_epoch = 43 }, "F8")
    refused_fields({ epoch = 0, next_epoch = 0 }, "F8")
    refused_fields({ next_epoch = "0001000000000000" }, "F8")
    refused_fields({ next_epoch = "ffffffffffffffff" }, "F8")
    assert(decode(format.superblock_encode(fields { epoch = 42 })))
  end)

  it("keeps F9: root and count", function()
    refused_fields({ root = 0, count = 1 }, "F9")
    refused_fields({ count = 0 }, "F9")
  end)

  it("keeps F10: segments and size", function()
    refused_fields({ segment_count = 0 }, "F10")
    refused_fields({ used_bytes = 9 * SEGMENT + 1 }, "F10")
    refused_fields({ used_bytes = "ffffffffffffffff" }, "F10")
    refused_fields({ segment_count = 2 ^ 30 + 1 }, "F10")
    refused_fields({ segment_count = "ffffffffffffffff" }, "F10")
    -- 2^44 segments of 2^20 bytes: the product is 0.
    refused_fields({ segment_count = 2 ^ 44 }, "F10")
  end)

  it("keeps F11: heads within the segments begun", function()
    local log = { offset = 2 * SEGMENT + 64, limit = 3 * SEGMENT }
    local function refused_log(offset, limit)
      refused_fields({ heads = { { offset = offset, limit = limit } } }, "F11")
    end
    refused_log(0, 0)
    refused_log(12280, SEGMENT)
    refused_log(12290, SEGMENT)
    refused_log(SEGMENT + 8, SEGMENT)
    refused_log(9 * SEGMENT, 9 * SEGMENT + 8)
    refused_log("fffffffffffffff8", "ffffffffffffffff")
    for _, large in ipairs { { offset = 0, limit = SEGMENT },
      { offset = 2 * SEGMENT + 8, limit = 3 * SEGMENT },
      { offset = 3 * SEGMENT, limit = 2 * SEGMENT },
      { offset = 9 * SEGMENT, limit = 10 * SEGMENT } } do
      refused_fields({ heads = { log, large } }, "F11")
    end
    local none = { offset = 0, limit = 0 }
    for _, branches in ipairs { { offset = 0, limit = SEGMENT },
      { offset = 12290, limit = SEGMENT },
      { offset = 3 * SEGMENT + 8, limit = 4 * SEGMENT },
      { offset = 2 * SEGMENT, limit = 10 * SEGMENT } } do
      refused_fields({ heads = { log, none, branches } }, "F11")
    end
    local other = { offset = 16384, limit = SEGMENT }
    assert(decode(format.superblock_encode(
      fields { heads = { log, none, other } })))
    refused_fields({ heads = { log, none, none, other } }, "F11")
    assert(decode(format.superblock_encode(fields { heads = { log } })))
  end)

  it("answers random pages that have magic and checksum", function()
    local random = binary.random(binary.seed("format.superblock"))
    local page = format.superblock_encode(fields())
    for _ = 1, 3000 do
      local changed = page
      for _ = 1, random(6) do
        changed = binary.patch(changed, 40 + random(200) - 1,
          string.char(random(256) - 1))
      end
      local superblock, name, what = decode(with_checksum(changed))
      if not superblock then
        assert.truthy(name == "ECORRUPT" or name == "EVERSION")
        assert.truthy(what:find("^F%d"))
      end
    end
  end)
end)
