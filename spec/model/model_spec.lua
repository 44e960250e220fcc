-- SPDX-License-Identifier: MIT
--
-- A store against plain tables (spec/support/model.lua): every call of the
-- interface, at random, closings and crashes, with keys few and many, sizes
-- awkward, hashes weak and segments small, at every durability.
--
--   MMCMAP_SEED              the run to repeat; printed
--   MMCMAP_MODEL_OPERATIONS  how many operations in all; a million and more
--   MMCMAP_LONG=1            twenty times as many

local binary = require "spec.support.binary"
local model = require "spec.support.model"

local SEED = binary.seed("model")
local OPERATIONS = tonumber(os.getenv("MMCMAP_MODEL_OPERATIONS") or "")
  or (os.getenv("MMCMAP_LONG") and 20 or 1) * 1050000

local NONE = ("0"):rep(16)

-- ---- Keys and values --------------------------------------------------------

local function numbered(count)
  return function(random) return "key " .. random(count) end
end

local AWKWARD_KEYS = { "", "\0", "\0\0", ("\255"):rep(255), binary.bytes(256),
  binary.bytes(4096), binary.bytes(65534), binary.bytes(65535) }
local AWKWARD_SIZES = { 0, 1, 7, 8, 9, 15, 16, 17, 255, 256, 4071, 4072, 4073,
  32700, 32768, 65535, 65536, 131072, 300000 }

local function awkward_key(random)
  local i = random(40)
  return AWKWARD_KEYS[i] or ("%d"):format(i)
end

local small = {}
for i = 0, 60 do small[i] = binary.bytes(i, i) end

-- Values that differ, at little cost.
local function small_value(random)
  return small[random(61) - 1] .. random(100000)
end

local function awkward_value(random)
  local size = AWKWARD_SIZES[random(random(10) == 1 and 19 or 13)]
  return binary.bytes(size, random(3))
end

-- ---- The cases --------------------------------------------------------------

local WEAK = { durability = "manual", segment_size = 131072,
  primary_mask = "f0000000000000ff", secondary_mask = "8000000000000001" }

-- `share`: of all operations, in thousandths.
local CASES = {
  { name = "few hot keys", share = 500, rarity = 2000, deletes = 25,
    key = numbered(100), value = small_value,
    options = { durability = "manual" } },
  { name = "many keys", share = 260, rarity = 6000, deletes = 35,
    key = numbered(20000), value = small_value,
    options = { durability = "manual" } },
  { name = "small segments", share = 90, rarity = 1500, deletes = 40,
    key = numbered(1500), value = small_value,
    options = { durability = "manual", segment_size = 131072 } },
  { name = "weak hashes", share = 60, rarity = 2000, deletes = 45,
    key = numbered(300), value = small_value, options = WEAK },
  { name = "equal hashes", share = 20, rarity = 900, deletes = 48,
    key = numbered(70), value = small_value,
    options = { durability = "manual", segment_size = 131072,
      primary_mask = NONE, secondary_mask = NONE } },
  { name = "awkward sizes", share = 8, rarity = 300, deletes = 40,
    key = awkward_key, value = awkward_value,
    maps = { "", ("\255"):rep(255), binary.bytes(65535) },
    options = { durability = "manual", segment_size = 131072 } },
  { name = "a flusher", share = 60, rarity = 2000, deletes = 30,
    key = numbered(2000), value = small_value,
    options = { durability = "async", flush_interval_ms = 1,
      segment_size = 131072, hash = "siphash" } },
  { name = "what expires", share = 60, rarity = 300, deletes = 25, ttls = true,
    key = numbered(500), value = small_value,
    options = { durability = "manual", segment_size = 131072 } },
  { name = "what expires, with weak hashes", share = 20, rarity = 300,
    deletes = 25, ttls = true, key = numbered(200), value = small_value,
    options = WEAK },
  { name = "what expires, and a flusher", share = 20, rarity = 300,
    deletes = 25, ttls = true, key = numbered(500), value = small_value,
    options = { durability = "async", flush_interval_ms = 1,
      segment_size = 131072 } },
  { name = "a sync for each change", share = 2, rarity = 80, deletes = 30,
    key = numbered(50), value = small_value,
    options = { durability = "sync", segment_size = 131072,
      hash = "murmur3" } },
}

describe("a store and plain tables", function()
  for _, case in ipairs(CASES) do
    it("agree with " .. case.name, function()
      case.maps = case.maps or { "a map", "", "\0" }
      local run = model.new(case, SEED + #case.name * 7919)
      local operations = math.floor(OPERATIONS * case.share / 1000)
      local ok, message = xpcall(function() run:go(operations) end,
        debug.traceback)
      if not ok then
        error(("MMCMAP_SEED=%d, operation %d: %s"):format(SEED, run.steps,
          tostring(message)), 0)
      end
    end)
  end
end)
