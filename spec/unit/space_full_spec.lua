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
  { 4 * MIB, 4, 90 },
  { 16 * MIB, 4, 92 },
  { 12 * MIB, 32, 80 },
  { 12 * MIB, 100, 85 },
  { 24 * MIB, 100, 70 },
  { 12 * MIB, 1000, 77 },
  { 32 * MIB, 500, 77 },
  { 24 * MIB, 30000, 85 },
  { 24 * MIB, 150000, 77 },
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

  -- Until nothing more is to be done.
  local function settle()
    local before
    for _ = 1, 60 do
      if store:stat().log_bytes == before then break end
      before = store:stat().log_bytes
      assert(store:step(0.2))
    end
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

  -- Of which some are deleted until a put works: none of those may cost more than comes
  -- back.
  for _, case in ipairs { { 4, 500, 500 }, { 4, 20, 2000 }, { 16, 40, 40 }, { 24, 300, 300 },
    { 8, 30000, 30000 } } do
    local name = ("of %d MiB, is a cache of values of %d to %d bytes"):format(
      case[1], case[2], case[3])
    it(name, function()
      math.randomseed(SEED)
      store = helper.store { max_size = case[1] * MIB, durability = "manual" }
      value, keys = ("v"):rep(case[3]), {}
      local i, replaced = 0, 0
      while replaced < 1000 do
        i = i + 1
        local size = math.random(case[2], case[3])
        for tries = 1, 50 do
          if store:put(i, value:sub(1, size)) then
            keys[#keys + 1] = i
            if tries > 1 then replaced = replaced + 1 end
            break
          end
          local other = math.random(#keys)
          keys[other], keys[#keys] = keys[#keys], keys[other]
          delete(1)
        end
        if i % 300 == 0 then assert(store:step(0.001)) end
      end
      assert.is_true(store:check())
    end)
  end

  -- Where all that is moved becomes no room that anybody could use.
  it("comes to rest when nothing is changed", function()
    prepare { 8 * MIB, 4, 92 }
    overwrite(PUTS)
    local before = store:stat().moved_bytes
    assert(store:step(20)) -- seconds; it ends when nothing is to be done
    local moved = store:stat().moved_bytes - before
    assert.is_true(moved <= 8 * 8 * MIB, moved .. " bytes moved")
    assert.is_true(store:check())
  end)

  -- Of a few segments one head, the reserve and what waits for a commit take most. Puts
  -- may fail there, deletes not, and what they free is room again.
  for _, kib in ipairs { 512, 640, 768, 1024, 1536 } do
    it(("of %d KiB, deletes all"):format(kib), function()
      for _, size in ipairs { 4, 40, 100, 500, 5000 } do
        for _, stays in ipairs { 70, 85, 95 } do
          prepare { kib * 1024, size, stays }
          local count = #keys
          overwrite(500)
          delete(#keys)
          assert(store:sync())
          fill()
          assert.is_true(#keys >= 0.7 * count, #keys .. " of " .. count)
          helper.close_all()
        end
      end
    end)
  end

  -- What it has moved before does not count where it has gained something since.
  for _, bytes in ipairs { 4, 16, 40 } do
    it("or after most of it has been deleted, values of " .. bytes .. " bytes", function()
      math.randomseed(SEED)
      store = helper.store { durability = "manual" }
      value = ("v"):rep(bytes)
      for i = 1, 200000 do assert(store:put(i, value)) end
      for i = 1, 200000 do
        if math.random() < 0.9 then assert(store:delete(i)) end
        if i % 20000 == 0 then assert(store:sync()) end
      end
      settle()
      local alive = store:stat().live_bytes
      assert.is_true(store:size() <= 1.7 * alive + MIB, store:size() .. " for " .. alive)
      assert.is_true(store:check())
    end)
  end

  -- Nor where much has been emptied.
  it("or without one, goes on giving space back as it is emptied", function()
    math.randomseed(SEED)
    store = helper.store { durability = "manual" }
    local left, large = {}, ("v"):rep(600000)
    for i = 1, 300 do
      assert(store:put(i, large))
      table.insert(left, math.random(i), i)
    end
    while #left > 8 do
      for _ = 1, math.ceil(#left / 5) do assert(store:delete(table.remove(left))) end
      settle()
    end
    local alive = store:stat().live_bytes
    assert.is_true(store:size() <= 1.7 * alive + 8 * MIB, store:size() .. " for " .. alive)
  end)
end)
