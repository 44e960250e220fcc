-- SPDX-License-Identifier: MIT
--
-- Keys and values of every awkward size, of any bytes: around the hash's
-- block sizes, pages, and the places where a record is laid out differently.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"

local MIB = 1024 * 1024

local key_sizes = { 0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64,
  65, 127, 128, 129, 240, 241, 255, 256, 257, 1023, 1024, 4095, 4096, 4097,
  32767, 32768, 65534, 65535 }

local value_sizes = { 0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 127, 128, 255, 256,
  4095, 4096, 4097, 65535, 65536, 65537, MIB / 4 - 1, MIB / 4, MIB / 4 + 1,
  MIB / 2, MIB - 1, MIB, MIB + 1, 3 * MIB + 5, 9 * MIB }

-- Not assert.equal: it would print megabytes.
local function same(expected, found, what)
  assert.equal("string", type(found), what)
  assert.equal(#expected, #found, what)
  assert.is_true(expected == found, what .. " has other bytes")
end

describe("sizes:", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
  end)
  after_each(helper.close_all)

  local function reopen()
    assert(db:close())
    db = helper.store(nil, path)
  end

  it("keys of 0 to 65,535 bytes", function()
    for _, size in ipairs(key_sizes) do
      assert.is_true(db:put(helper.bytes(size), "value of " .. size))
    end
    for _ = 1, 2 do
      assert.equal(#key_sizes, #db)
      for _, size in ipairs(key_sizes) do
        assert.equal("value of " .. size, db:get(helper.bytes(size)))
      end
      reopen()
    end
    local records, count = helper.records(db)
    assert.equal(#key_sizes, count)
    for _, size in ipairs(key_sizes) do
      assert.equal("value of " .. size, records[helper.bytes(size)])
      assert.is_true(db:delete(helper.bytes(size)))
    end
    assert.equal(0, #db)
  end)

  it("keys that differ in their last byte only", function()
    for _, size in ipairs(key_sizes) do
      if size > 0 then
        local stem = helper.bytes(size - 1)
        db:put(stem .. "\1", "one")
        db:put(stem .. "\2", "two")
        assert.equal("one", db:get(stem .. "\1"))
        assert.equal("two", db:get(stem .. "\2"))
        assert.is_nil(db:get(stem .. "\3"))
      end
    end
  end)

  it("a key of 65,536 bytes is refused and changes nothing", function()
    local key = helper.bytes(65536)
    local version = db:version()
    local ok, message, code = db:put(key, "value")
    assert.is_nil(ok)
    assert.equal("ETOOBIG", code)
    assert.matches("too long", message, 1, true)
    assert.is_truthy(message:find(path, 1, true))
    assert.equal(0, #db)
    assert.equal(version, db:version())
    assert.is_nil((db:get(key)))
    assert.is_falsy((db:has(key)))
    assert.is_falsy((db:delete(key)))
    assert.has_error(function() db[key] = "value" end)
  end)

  it("values of 0 bytes to some MiB", function()
    for _, size in ipairs(value_sizes) do
      assert.is_true(db:put("v" .. size, helper.bytes(size)))
      same(helper.bytes(size), db:get("v" .. size), "value of " .. size)
    end
    reopen()
    assert.equal(#value_sizes, #db)
    for _, size in ipairs(value_sizes) do
      same(helper.bytes(size), db:get("v" .. size), "value of " .. size)
    end
    local records = helper.records(db)
    for _, size in ipairs(value_sizes) do
      same(helper.bytes(size), records["v" .. size], "value of " .. size)
    end
  end)

  it("every value size under one key, up and down", function()
    for i = 1, #value_sizes do
      local size = value_sizes[i]
      db:put("key", helper.bytes(size, 1))
      same(helper.bytes(size, 1), db:get("key"), "value of " .. size)
    end
    for i = #value_sizes, 1, -1 do
      local size = value_sizes[i]
      db:put("key", helper.bytes(size, 2))
      same(helper.bytes(size, 2), db:get("key"), "value of " .. size)
    end
    assert.equal(1, #db)
    reopen()
    same(helper.bytes(0), db:get("key"), "the last value")
  end)

  it("long keys with large values", function()
    local sizes = { MIB / 4 - 65536, MIB / 4 - 65535, MIB / 4, MIB, 2 * MIB }
    for _, size in ipairs(sizes) do
      db:put(helper.bytes(65535, size), helper.bytes(size))
    end
    reopen()
    for _, size in ipairs(sizes) do
      same(helper.bytes(size), db:get(helper.bytes(65535, size)),
        "value of " .. size)
    end
  end)

  it("records just around a quarter of a segment, in one key's steps",
    function()
      for size = MIB / 4 - 70, MIB / 4 + 10 do
        db:put("border", helper.bytes(size))
        same(helper.bytes(size), db:get("border"), "value of " .. size)
      end
    end)

  it("every byte in keys and values", function()
    for byte = 0, 255 do
      local char = string.char(byte)
      db:put(char, char:rep(3) .. "\0" .. char)
    end
    reopen()
    assert.equal(256, #db)
    for byte = 0, 255 do
      local char = string.char(byte)
      assert.equal(char:rep(3) .. "\0" .. char, db:get(char))
    end
  end)

  it("large values are read by another process", function()
    db:put("large", helper.bytes(3 * MIB + 5))
    assert(db:close())
    assert.equal("3145733 " .. mmcmap.murmur3(helper.bytes(3 * MIB + 5)),
      helper.child([[
        local db = assert(mmcmap.open((...)))
        local value = db:get("large")
        io.write(#value, " ", mmcmap.murmur3(value))
      ]], path))
  end)

  it("make the file longer by pieces of 2 MiB once it is large", function()
    local piece, big = 2097152, ("v"):rep(200000)
    local store = helper.store({ flush_interval = 100 })
    local count = 0
    repeat
      count = count + 1
      assert(store:put(count, big))
    until store:size() > 9 * piece
    assert.equal(0, store:size() % piece)
    for i = 1, count do assert.equal(big, store:get(i)) end
  end)

  -- A sync writes all of a piece: where each change waits for one, the file is not
  -- to have any, whoever makes it longer.
  it("make the file longer by small steps where each change is synced", function()
    local piece, big = 2097152, ("v"):rep(60000)
    local store = helper.store({ durability = "sync" })
    local size, count, steps, whole = store:size(), 0, 0, 0
    local function look()
      if store:size() > size and size > 8 * piece then
        steps = steps + 1
        if store:size() % piece == 0 then whole = whole + 1 end
      end
      size = store:size()
    end
    local function put_two(txn)
      count = count + 2
      txn:put(count - 1, big)
      txn:put(count, big)
    end
    repeat
      store:update(put_two)
      look()
    until size > 10 * piece
    assert.is_true(whole <= steps / 4, ("%d of %d"):format(whole, steps))
    steps, whole = 0, 0
    -- Much of it dies: there is upkeep all the while.
    while size < 18 * piece do
      put_two(store)
      for i = 1, 2 do assert(store:put(count // 2 + i, big)) end
      look()
    end
    assert.is_true(store:stat().moved_bytes > 0)
    assert.is_true(whole <= steps / 4, ("%d of %d"):format(whole, steps))
  end)

  -- Where there is a commit every few changes, branches are copied for each of them,
  -- and were for each record that the cleaner moves: it did not keep up.
  for _, case in ipairs { { "every few puts", 150000 }, { "every few puts to a map", 0 } } do
    it("stay below what is alive and a half, though a commit is made " .. case[1], function()
      local store = helper.store({ durability = "manual" }, helper.path())
      local map = assert(store:map("a map"))
      local random = require("spec.support.binary").random(4711)
      local count = case[2]
      store:update(function(txn)
        local within = txn:map("a map")
        for i = 1, count do txn:put("key " .. i, ("v"):rep(60)) end
        for i = count + 1, 200000 do within:put("key " .. i, ("v"):rep(60)) end
      end)
      for i = 1, 100000 do
        local id = random(200000)
        local where = id <= count and store or map
        assert(where:put("key " .. id, ("w"):rep(60)))
        if i % 20 == 0 then assert(store:sync()) end
      end
      local stat = store:stat()
      assert.equal(count, store:count())
      assert.equal(200000 - count, map:count())
      assert.is_true(stat.size_bytes < 1.6 * stat.live_bytes,
        stat.size_bytes .. " of " .. stat.live_bytes)
      assert.is_true(store:check())
      store:close()
    end)
  end

  -- Values with pages of their own leave some empty between them, and are cleaned by
  -- runs of segments: what that empties has to be free before more is begun.
  for _, case in ipairs {
    { "up to 128 KB", 400, function(random) return 2 ^ (random(110) / 10 + 6) end, 1.45 },
    { "longer than a segment", 50, function(random) return 100000 + random(100000) end, 1.5 }
  } do
    it("stay below what is alive and a half on average, where values are " .. case[1],
      function()
        local store = helper.store({ durability = "sync" }, helper.path())
        local random = require("spec.support.binary").random(4711)
        local count, live = case[2], {}
        local alive, sum, looks = 0, 0, 0
        local function overwrite(id)
          local value = ("v"):rep(math.floor(case[3](random)))
          assert(store:put("key " .. id, value))
          -- Of large ones whole pages, with a header.
          local size = #value < 20000 and #value or math.ceil((#value + 64) / 4096) * 4096
          alive = alive + size - (live[id] or 0)
          live[id] = size
        end
        for id = 1, count do overwrite(id) end
        for i = 1, 20 * count do
          overwrite(random(count))
          if i > 5 * count and i % 10 == 0 then
            sum, looks = sum + store:size() / alive, looks + 1
          end
        end
        assert.is_true(sum / looks < case[4], sum / looks .. " times what is alive")
        assert.is_true(store:check())
        store:close()
      end)
  end

  it("make the file no longer than max_size, whatever the piece", function()
    local limit, big = 17 * 1048576 + 65536, ("v"):rep(200000)
    local store = helper.store({ max_size = limit, durability = "manual" })
    local function fill(count)
      local ok, _, code = store:put(count, big)
      if ok then return fill(count + 1) end
      return count, code
    end
    local count, code = fill(1)
    assert.equal("EFULL", code)
    assert.equal(count - 1, #store)
    -- Without what is left for deletes.
    assert.is_true(store:size() > 0.9 * limit and store:size() <= limit)
    assert.is_true(store:check())
  end)
end)
