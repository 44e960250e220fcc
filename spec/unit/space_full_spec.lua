-- SPDX-License-Identifier: MIT
--
-- A store that is as large as it may be, and of which a part has been deleted, here
-- and there: what is dead there becomes room again, by cleaning that may use the
-- reserve and never eats it up in vain.

local binary = require "spec.support.binary"
local helper = require "spec.support.helper"

local MIB = 1048576
local SEED = binary.seed("full")
local PUTS = 1000

-- The limit, the size of values, and the percentage that stays of what fits in.
local CASES = {
  { 12 * MIB, 32, 80 },
  { 12 * MIB, 100, 85 },
  { 24 * MIB, 100, 70 },
  { 12 * MIB, 1000, 77 },
  { 32 * MIB, 500, 77 },
  { 24 * MIB, 30000, 85 },
}

describe("a store at its max_size, from which some is deleted,", function()
  local store, keys, value

  local function fill()
    keys = {}
    while store:put("key " .. #keys + 1, value) do
      keys[#keys + 1] = "key " .. #keys + 1
    end
    for i = #keys, 2, -1 do
      local other = math.random(i)
      keys[i], keys[other] = keys[other], keys[i]
    end
    assert(store:sync())
  end

  -- Always possible.
  local function delete(count)
    for _ = 1, count do assert(store:delete(table.remove(keys))) end
  end

  local function overwrite(count)
    local done = 0
    for i = 1, count do
      if store:put(keys[math.random(#keys)], value) then done = done + 1 end
      if i % 5 == 0 then assert(store:sync()) end
    end
    return done
  end

  local function prepare(case)
    math.randomseed(SEED)
    store = helper.store { max_size = case[1], durability = "manual" }
    value = ("v"):rep(case[2])
    fill()
    delete(math.floor(#keys * (1 - case[3] / 100)))
    assert(store:sync())
  end

  after_each(helper.close_all)

  for _, case in ipairs(CASES) do
    local name = ("of %d MiB, with values of %d bytes, %d %% of which stay, ")
      :format(case[1] / MIB, case[2], case[3])

    it(name .. "takes as much again, and deletes", function()
      prepare(case)
      local done = overwrite(PUTS)
      assert.is_true(done >= 0.9 * PUTS, done .. " of " .. PUTS)
      delete(math.min(50, math.floor(#keys / 8)))
      assert.is_true(store:check())
    end)

    it(name .. "can be compacted, and be emptied then", function()
      prepare(case)
      overwrite(PUTS)
      assert(store:compact())
      assert.is_true(store:check())
      delete(#keys - 10)
      assert.equal(10, overwrite(10))
      assert.is_true(store:check())
    end)
  end
end)
