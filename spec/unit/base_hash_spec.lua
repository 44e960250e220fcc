-- SPDX-License-Identifier: MIT
--
-- Hashes against published vectors: those of SipHash's reference
-- implementation (vectors.h; the one of 15 bytes is in the paper's Appendix A),
-- the known ones of MurmurHash3_x86_32, a few of XXH3. Then the keyed hashes
-- of a store against their parts.

local base = require("mmcmap_probe").base

local function bytes(first, last)
  local text = {}
  for number = first, last do text[#text + 1] = string.char(number % 256) end
  return table.concat(text)
end

local function u32(text, offset)
  return tonumber(base.bytes_get(text, offset, 32), 16)
end

-- Under the key 00 01 .. 0f: the hash of no byte, of 00, of 00 01, ...
local SIPHASH = {
  "726fdb47dd0e0e31", "74f839c593dc67fd", "0d6c8009d9a94f5a",
  "85676696d7fb7e2d", "cf2794e0277187b7", "18765564cd99a68d",
  "cbc9466e58fee3ce", "ab0200f58b01d137", "93f5f5799a932462",
  "9e0082df0ba9e4b0", "7a5dbbc594ddb9f3", "f4b32f46226bada7",
  "751e8fbc860ee5fb", "14ea5627c0843d90", "f723ca908e7af2ee",
  "a129ca6149be45e5", "3f2acc7f57c29bdb", "699ae9f52cbe4794",
  "4bc1b3f0968dd39c", "bb6dc91da77961bd", "bed65cf21aa2ee98",
  "d0f2cbb02e3b67c7", "93536795e3a33e88", "a80c038ccd5ccec8",
  "b8ad50c6f649af94", "bce192de8a85b8ea", "17d835b85bbb15f3",
  "2f2e6163076bcfad", "de4daaaca71dc9a5", "a6a2506687956571",
  "ad87a3535c49ef28", "32d892fad841c342", "7127512f72f27cce",
  "a7f32346f95978e3", "12e0b01abb051238", "15e034d40fa197ae",
  "314dffbe0815a3b4", "027990f029623981", "cadcd4e59ef40c4d",
  "9abfd8766a33735c", "0e3ea96b5304a7d0", "ad0c42d6fc585992",
  "187306c89bc215a9", "d4a60abcf3792b95", "f935451de4f21df2",
  "a9538f0419755787", "db9acddff56ca510", "d06c98cd5c0975eb",
  "e612a3cb9ecba951", "c766e62cfcadaf96", "ee64435a9752fe72",
  "a192d576b245165a", "0a8787bf8ecb74b2", "81b3e73d20b49b6f",
  "7fa8220ba3b2ecea", "245731c13ca42499", "b78dbfaf3a8d83bd",
  "ea1ad565322a1a0b", "60e61c23a3795013", "6606d7e446282b93",
  "6ca4ecb15c5f91e1", "9f626da15c9625f3", "e51b38608ef25f57",
  "958a324ceb064572",
}

local SEED = 0x9747b28c

local MURMUR3 = {
  { "", 0, 0 },
  { "", 1, 0x514e28b7 },
  { "", 0xffffffff, 0x81f16f39 },
  { "\0", 0, 0x514e28b7 },
  { "\0\0", 0, 0x30f4c306 },
  { "\0\0\0", 0, 0x85f0b427 },
  { "\0\0\0\0", 0, 0x2362f9de },
  { "\255\255\255\255", 0, 0x76293b50 },
  { "\33", 0, 0x72661cf4 },
  { "\33\67", 0, 0xa0f7b07a },
  { "\33\67\101", 0, 0x7e4a8634 },
  { "\33\67\101\135", 0, 0xf55b516b },
  { "\33\67\101\135", 0x5082edee, 0x2362f9de },
  { "a", SEED, 0x7fa09ea6 },
  { "aa", SEED, 0x5d211726 },
  { "aaa", SEED, 0x283e0130 },
  { "aaaa", SEED, 0x5a97808a },
  { "ab", SEED, 0x74875592 },
  { "abc", SEED, 0xc84a62dd },
  { "abcd", SEED, 0xf0478627 },
  { "test", SEED, 0x704b81dc },
  { "Hello, world!", SEED, 0x24884cba },
  { ("\207\128"):rep(8), SEED, 0xd58063c1 },
  { ("a"):rep(256), SEED, 0x37405bdc },
  { "The quick brown fox jumps over the lazy dog", SEED, 0x2fa826cd },
}

describe("base.siphash", function()
  local key = bytes(0, 15)

  it("gives the reference vectors", function()
    assert.equal(64, #SIPHASH)
    for size = 0, 63 do
      assert.equal(SIPHASH[size + 1],
        base.siphash24(key, bytes(0, size - 1)), size .. " bytes")
    end
  end)

  it("gives the vector of the paper's Appendix A", function()
    assert.equal("a129ca6149be45e5", base.siphash24(key, bytes(0, 14)))
  end)

  it("does not care where in memory the bytes stand", function()
    for offset = 1, 8 do
      assert.equal(SIPHASH[31],
        base.siphash24(key, ("x"):rep(offset) .. bytes(0, 29), offset))
    end
  end)

  it("depends on every byte of the key", function()
    for index = 1, 16 do
      local other = key:sub(1, index - 1) .. "\255" .. key:sub(index + 1)
      assert.are_not.equal(SIPHASH[1], base.siphash24(other, ""))
    end
  end)

  it("tells zeros of different lengths apart", function()
    local seen = {}
    for _, size in ipairs { 0, 1, 7, 8, 9, 255, 256, 257, 512 } do
      local hash = base.siphash24(key, ("\0"):rep(size))
      assert.is_nil(seen[hash], size)
      seen[hash] = true
    end
  end)
end)

describe("base.murmur3", function()
  it("gives the published vectors", function()
    for _, case in ipairs(MURMUR3) do
      assert.equal(case[3], base.murmur3_32(case[2], case[1]),
        ("%q, seed %d"):format(case[1], case[2]))
    end
  end)

  it("is what mmcmap_murmur3 gives", function()
    for _, case in ipairs(MURMUR3) do
      assert.equal(case[3], base.mmcmap_murmur3(case[2], case[1]))
    end
  end)

  it("does not care where in memory the bytes stand", function()
    for offset = 1, 4 do
      assert.equal(0x24884cba,
        base.murmur3_32(SEED, ("x"):rep(offset) .. "Hello, world!", offset))
    end
  end)
end)

describe("base.hash", function()
  local XXH3, SIP, MURMUR = 0, 1, 2
  local secret = bytes(7, 406) -- 400 bytes
  local checksum_secret = secret:sub(209, 400)
  -- XXH3 takes other ways up to 16, 128 and 240 bytes.
  local keys = { "", "a", "key", ("k"):rep(16), ("k"):rep(17), ("k"):rep(128),
    ("k"):rep(129), ("k"):rep(240), ("k"):rep(241), ("k"):rep(65535) }

  it("gives the published vectors of XXH3", function()
    assert.equal("2d06800538d394c2", base.plain_checksum(""))
    assert.equal("e6c632b61e964e1f", base.plain_checksum("a"))
    assert.equal("78af5f94892f3950", base.plain_checksum("abc"))
  end)

  it("keys xxh3 with the first 192 bytes of the secret", function()
    for _, key in ipairs(keys) do
      assert.equal(base.xxh3_with_secret(secret:sub(1, 192), key),
        (base.hasher(XXH3, secret, key)))
    end
  end)

  it("keys siphash with the first 16 bytes of the secret", function()
    for _, key in ipairs(keys) do
      assert.equal(base.siphash24(secret:sub(1, 16), key),
        (base.hasher(SIP, secret, key)))
    end
  end)

  it("makes 64 bits of two murmur3, seeded from the secret", function()
    for _, key in ipairs(keys) do
      local high = base.murmur3_32(u32(secret, 0), key)
      local low = base.murmur3_32(u32(secret, 4), key)
      assert.equal(("%08x%08x"):format(high, low),
        (base.hasher(MURMUR, secret, key)))
    end
  end)

  it("has the same secondary hash and checksum for every kind", function()
    for kind = XXH3, MURMUR do
      for _, key in ipairs(keys) do
        local _, secondary, checksum = base.hasher(kind, secret, key)
        assert.equal(base.siphash24(secret:sub(193, 208), key), secondary)
        assert.equal(base.xxh3_with_secret(checksum_secret, key), checksum)
      end
    end
  end)

  it("keeps the parts of the secret apart", function()
    local key = ("k"):rep(300) -- long enough to use all of XXH3's secret
    local primary, secondary, checksum = base.hasher(XXH3, secret, key)
    local function changed(position)
      local byte = string.char((secret:byte(position) + 1) % 256)
      local p, s, c = base.hasher(XXH3, secret:sub(1, position - 1) .. byte
        .. secret:sub(position + 1), key)
      return (p ~= primary and "primary " or "")
        .. (s ~= secondary and "secondary " or "")
        .. (c ~= checksum and "checksum " or "")
    end
    for _, case in ipairs {
      { 1, "primary " }, { 30, "primary " }, { 193, "secondary " },
      { 208, "secondary " }, { 209, "checksum " }, { 240, "checksum " },
    } do
      assert.equal(case[2], changed(case[1]), case[1])
    end
  end)

  it("narrows the hashes, but not the checksum, by the masks", function()
    local zero = ("0"):rep(16)
    local primary, secondary, checksum = base.hasher(XXH3, secret, "key")
    local few, none, same =
      base.hasher(XXH3, secret, "key", "00000000000000ff", 0)
    assert.equal(("0"):rep(14) .. primary:sub(-2), few)
    assert.are_not.equal(zero, secondary)
    assert.equal(zero, none)
    assert.equal(checksum, same)
    for kind = SIP, MURMUR do
      assert.equal(zero, (base.hasher(kind, secret, "key", 0)))
    end
  end)

  it("refuses a kind that there is not", function()
    for _, kind in ipairs { -1, 3, 2147483647 } do
      assert.same({ n = 3, nil, "EINVAL", "hash kind" },
        { n = 3, base.hasher(kind, secret, "key") })
    end
  end)
end)
