-- SPDX-License-Identifier: MIT
--
-- A store that is as large as it may be, and of which a part has been deleted, here
-- and there: what is dead there becomes room again, by cleaning that may use the
-- reserve and never eats it up in vain.

local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local helper = require "spec.support.helper"
local peers = require "spec.support.peers"

local MIB = 1048576
local SEED = binary.seed("full")
local PUTS = crash.thinning > 1 and 200 or 1000

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

  -- Full stores commit for nearly each change: there it waits for no disk.
  local function new_path()
    local path = crash.path()
    os.remove(path)
    os.remove(path .. "-lock")
    return path
  end

  local function open_in_memory(options) return helper.store(options, new_path()) end

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
    store = open_in_memory { max_size = case[1], durability = "manual" }
    value = ("v"):rep(case[2])
    fill()
    delete(math.floor(#keys * (1 - case[3] / 100)))
    assert(store:sync())
  end

  teardown(crash.remove_folder)
  after_each(function()
    peers.kill_all()
    helper.close_all()
  end)

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
      store = open_in_memory { max_size = case[1] * MIB, durability = "manual" }
      value, keys = ("v"):rep(case[3]), {}
      local i, replaced = 0, 0
      while replaced < PUTS do
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

  -- Who has a transaction cannot make room: it may take none that deletes need.
  for _, way in ipairs { "update", "put_many" } do
    it("leaves room to delete when transactions go on, by " .. way, function()
      store, keys = open_in_memory { max_size = 16 * MIB, durability = "manual" }, {}
      value = ("v"):rep(20000)
      fill()
      local refused = 0
      for i = 1, 60 do
        local ok, _, code
        if way == "update" then
          ok, _, code = store:update(function(txn) return txn:put("more " .. i, value) end)
        else
          ok, _, code = store:put_many { ["more " .. i] = value }
        end
        if ok then
          keys[#keys + 1] = "more " .. i
        else
          assert.equal("EFULL", code)
          refused = refused + 1
        end
      end
      assert.is_true(refused > 30, refused .. " of 60 refused")
      delete(#keys)
      assert.is_true(store:check())
    end)
  end

  it("has room for a transaction at once when it has been cleared", function()
    store, value = open_in_memory { max_size = 16 * MIB }, ("v"):rep(300)
    fill()
    assert(store:clear())
    assert.is_true(store:update(function(txn)
      for i = 1, 1000 do assert(txn:put(i, value)) end
      return true
    end))
    assert.equal(1000, #store)
  end)

  -- Records may become no longer there.
  it("says EFULL, and why, and takes shorter values", function()
    store, value = open_in_memory { max_size = 16 * MIB, durability = "manual" }, ("v"):rep(300)
    fill()
    local put, message, code = store:put("another", value)
    assert.is_nil(put)
    assert.equal("EFULL", code)
    assert.truthy(message:find("leaving room to delete", 1, true), message)
    put, message, code = store:put(keys[1], value .. value)
    assert.is_nil(put)
    assert.equal("EFULL", code)
    assert.truthy(message:find("leaving room to delete", 1, true), message)
    for i = 1, 1000 do
      assert(store:put(keys[i], value))
      assert(store:put(keys[i], "short"))
    end
    assert.is_true(store:check())
  end)

  -- What is not counted then counts for nothing, or a put would wait for deletes.
  for _, level in ipairs { "manual", "async" } do
    it("takes puts after the machine went down, level " .. level, function()
      local path = new_path()
      local options = ("{ max_size = %d, durability = '%s' }"):format(32 * MIB, level)
      local peer = peers.start(path, { open = options })
      local filled = tonumber(peer:ask([[
        local value, i = ("v"):rep(...), 0
        while db:put(i + 1, value) do i = i + 1 end
        for j = 1, i, 5 do assert(db:delete(j)) end
        assert(db:sync())
        return i]], 300))
      peer:kill()
      assert(os.remove(path .. "-lock"))
      store = helper.store({ max_size = 32 * MIB, durability = level }, path)
      local done = 0
      for j = 1, 2000 do
        if store:put("after " .. j, ("v"):rep(300)) then done = done + 1 end
      end
      assert.equal(2000, done, filled)
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
        for _, stays in ipairs(crash.thinning > 1 and { 85 } or { 70, 85, 95 }) do
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
      store = open_in_memory { durability = "manual" }
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
    store = open_in_memory { durability = "manual" }
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
