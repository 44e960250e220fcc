-- SPDX-License-Identifier: MIT
--
-- A store against a plain table: random operations, closings and crashes, with
-- keys few and many, sizes awkward, hashes weak and segments small, at every
-- durability.
--
--   MMCMAP_SEED              the run to repeat; printed
--   MMCMAP_MODEL_OPERATIONS  how many operations in all; a million and more
--   MMCMAP_LONG=1            twenty times as many

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"
local open = probe.store.open

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

-- ---- Numbers as text --------------------------------------------------------

-- Of an integer below 2^53, as the probe takes it.
local function signed_hex(number)
  local high = math.floor(number / 4294967296)
  return ("%08x%08x"):format(high % 4294967296, number - high * 4294967296)
end

-- The number, and whether it is a float; nil if the text is none.
local function number_of(text)
  if #text > 400 or not text:find("^[-+]?[%d.]+[eE]?[-+]?%d*$") then return end
  if text:find("^[-+]?%d+$") then return tonumber((text:gsub("^%+", ""))), false end
  return tonumber((text:gsub("^%+", ""))), true
end

local function float_text(number)
  local text
  for digits = 15, 17 do
    text = ("%." .. digits .. "g"):format(number)
    if tonumber(text) == number then break end
  end
  return text:find("[.e]") and text or text .. ".0"
end

-- ---- One run ----------------------------------------------------------------

local Run = {}
Run.__index = Run

local function new_run(case)
  local run = setmetatable({ case = case, model = {}, count = 0,
    random = binary.random(SEED + #case.name * 7919),
    path = scratch.path("model"), steps = 0, versions = {} }, Run)
  run:open()
  return run
end

function Run:open()
  self.db = assert(open(self.path, self.case.options))
end

function Run:compare()
  local records, count = assert(self.db:records())
  assert(count == self.count, "count of records")
  assert(self.db:count() == self.count, "count")
  for key, value in pairs(self.model) do
    if records[key] ~= value then error("a record differs: " .. key) end
  end
end

-- The store is compared with a copy that it is known to equal.
function Run:snapshot()
  local snapshot = assert(self.db:snapshot())
  local model = {}
  for key, value in pairs(self.model) do model[key] = value end
  local count = self.count
  local version = snapshot:version()
  for _ = 1, 50 do self:change() end
  assert(snapshot:count() == count and snapshot:version() == version)
  local records, walked = assert(snapshot:records())
  assert(walked == count, "count of a snapshot's records")
  for key, value in pairs(model) do
    if records[key] ~= value then error("a snapshot differs: " .. key) end
    if snapshot:get(key) ~= value then error("a snapshot's get: " .. key) end
  end
  snapshot:close()
end

-- Equal versions, equal content: a change makes another, nothing else does.
function Run:version()
  local version = assert(self.db:version())
  assert(version == self.db:version())
  if self.changed_since_version then
    assert(not self.versions[version], "a version came again")
  elseif self.last_version then
    assert(version == self.last_version, "a version changed")
  end
  self.versions[version] = true
  self.last_version, self.changed_since_version = version, false
end

-- Leaves the store as a crash would, and goes on with that.
function Run:crash()
  assert(self.db:sync())
  local bytes = assert(scratch.read(self.path))
  for _ = 1, self.random(30) do self:change(true) end
  assert(self.db:close())
  self.path = scratch.write(scratch.path("model"), bytes)
  self:open()
  self:compare()
  self.last_version = nil
end

-- What the store would do with a key whose value is `old` (nil: absent), and
-- what it does: the answer expected, the answer, and, if something was written,
-- true and the value after it.
local changes = {}

function changes.put(run, key)
  local value = run.case.value(run.random)
  return true, run.db:put(key, value), true, value
end

function changes.delete(run, key, old)
  return old ~= nil, run.db:delete(key), old ~= nil, nil
end

function changes.add(run, key, old)
  local value = run.case.value(run.random)
  return old == nil or "MISMATCH", run.db:add(key, value), old == nil, value
end

function changes.replace(run, key, old)
  local value = run.case.value(run.random)
  return old ~= nil or "NOTFOUND", run.db:replace(key, value), old ~= nil, value
end

function changes.cas(run, key, old)
  local random, expected, value = run.random, old, nil
  if random(4) == 1 then expected = run.case.value(random) end
  if random(4) == 1 then expected = nil end
  if random(100) > run.case.deletes then value = run.case.value(random) end
  local matches = expected == old
  return matches or "MISMATCH", run.db:cas(key, expected, value),
    matches and (old or value) ~= nil, value
end

function changes.swap(run, key, old)
  local value = run.case.value(run.random)
  local found, was_there = run.db:swap(key, value)
  assert(was_there == (old ~= nil), "whether swap found something")
  return old, found, true, value
end

function changes.incr(run, key, old)
  local by, by_float = run.random(2000) - 1000, run.random(4) == 1
  if by_float then by = by / 8 end -- without rounding
  local sum, code = run.db:incr(key, by_float and by or signed_hex(by),
    signed_hex(7))
  local number, is_float = number_of(old or "7")
  if not number then return "ENUMBER", sum or code, false end
  number = number + by
  if is_float or by_float then return number, sum, true, float_text(number) end
  return signed_hex(number), sum, true, ("%d"):format(number)
end

local conditional = { "add", "replace", "cas", "cas", "swap", "incr" }

-- Changes in a transaction, which may go back to a savepoint, and is aborted now
-- and then. It is compared with the store that it leaves alone.
function Run:transaction()
  local store, model, count = self.db, self.model, self.count
  local changed, version = self.changed_since_version, self.db:version()
  local function copy()
    local other = {}
    for key, value in pairs(self.model) do other[key] = value end
    return other, self.count
  end
  self.db, self.model = assert(store:begin()), (copy())
  for _ = 1, self.random(3) do
    for _ = 1, self.random(60) do self:change() end
    local saved, saved_count = copy()
    local savepoint = assert(self.db:savepoint())
    for _ = 1, self.random(40) do self:change() end
    if self.random(2) == 1 then
      assert(self.db:rollback_to(savepoint))
      self.model, self.count = saved, saved_count
    end
  end
  local records, met = assert(self.db:records())
  assert(met == self.count and self.db:count() == met, "count within")
  for key, value in pairs(self.model) do
    if records[key] ~= value then error("within, a record differs: " .. key) end
  end
  assert(store:count() == count, "what others count")
  local txn = self.db
  self.db = store
  if self.random(3) == 1 then
    txn:abort()
    self.model, self.count = model, count
    assert(store:version() == version, "the version after an abort")
  else
    assert(txn:commit())
  end
  if store:version() ~= version then return end
  self.changed_since_version = changed
  for key, value in pairs(self.model) do
    assert(model[key] == value, "the same version, another record")
  end
  assert(self.count == count, "the same version, another count")
end

function Run:clear()
  assert(self.db:clear())
  if self.count > 0 then self.changed_since_version = true end
  self.model, self.count = {}, 0
end

-- A lost change is made in the store alone; its key may be one of the model's.
function Run:change(lost)
  local random, name = self.random, "put"
  local key = self.case.key(random)
  if random(100) <= self.case.deletes then name = "delete" end
  if random(4) == 1 then name = conditional[random(#conditional)] end
  local old = self.model[key]
  if lost then old = self.db:get(key) end
  local expected, answer, is_written, value = changes[name](self, key, old)
  if answer ~= expected then
    error(("%s of %q: %s, not %s"):format(name, key, tostring(answer),
      tostring(expected)))
  end
  if lost or not is_written then return end
  self.count = self.count + (value and 1 or 0) - (old and 1 or 0)
  self.model[key] = value
  self.changed_since_version = true
end

function Run:look()
  local key = self.case.key(self.random)
  if self.random(8) == 1 then
    assert(self.db:has(key) == (self.model[key] ~= nil), "what has says")
  else
    assert(self.db:get(key) == self.model[key], "what get says")
  end
end

function Run:rare()
  local choice = self.random(16)
  if choice > 13 then
    self:transaction()
  elseif choice == 13 then
    if self.random(4) == 1 then self:clear() end
  elseif choice <= 3 then
    assert(self.db:sync())
  elseif choice == 4 then
    self:compare()
  elseif choice <= 6 then
    self:snapshot()
  elseif choice <= 8 then
    self:version()
  elseif choice == 9 then
    local version = self.db:version()
    assert(self.db:close())
    self:open()
    assert(self.db:version() == version, "the version after reopening")
    assert(self.db:count() == self.count)
  elseif choice == 10 and self.case.options.durability ~= "async" then
    self:crash()
  else
    assert(self.db:count() == self.count, "count")
  end
end

function Run:go(operations)
  local random, rarity = self.random, self.case.rarity
  for _ = 1, operations do
    self.steps = self.steps + 1
    if random(rarity) == 1 then
      self:rare()
    elseif random(2) == 1 then
      self:change()
    else
      self:look()
    end
  end
  self:compare()
  assert(self.db:close())
  self:open()
  self:compare()
  assert(self.db:close())
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
    options = { durability = "manual", segment_size = 131072 } },
  { name = "a flusher", share = 60, rarity = 2000, deletes = 30,
    key = numbered(2000), value = small_value,
    options = { durability = "async", flush_interval_ms = 1,
      segment_size = 131072, hash = "siphash" } },
  { name = "a sync for each change", share = 2, rarity = 80, deletes = 30,
    key = numbered(50), value = small_value,
    options = { durability = "sync", segment_size = 131072,
      hash = "murmur3" } },
}

describe("a store and a table", function()
  for _, case in ipairs(CASES) do
    it("agree with " .. case.name, function()
      local run = new_run(case)
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
