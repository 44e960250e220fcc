-- SPDX-License-Identifier: MIT
--
-- get_many: several keys with one call, of a store and of a snapshot.

local helper = require "spec.support.helper"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"

local db, path

local raises = helper.raises

-- Keys from first to last, with one in three missing in the store.
local function names(first, last)
  local keys = {}
  for i = first, last do keys[#keys + 1] = "key " .. i end
  return keys
end

local function expected(keys, word)
  local values = {}
  for _, key in ipairs(keys) do
    local i = tonumber(key:match("%d+"))
    if i % 3 ~= 0 then values[key] = (word or "value ") .. i end
  end
  return values
end

for _, kind in ipairs { "a store", "a snapshot" } do
  describe("get_many of " .. kind, function()
    local reader

    -- What reads: the store, or a snapshot of now.
    local function read()
      reader = kind == "a store" and db or db:snapshot()
      return reader
    end

    before_each(function()
      path = helper.path()
      db = helper.store({ durability = "manual" }, path)
      for i = 1, 1000 do
        if i % 3 ~= 0 then db:put("key " .. i, "value " .. i) end
      end
    end)
    after_each(function()
      peers.kill_all()
      helper.close_all()
    end)

    it("gives what is there, for any number of keys", function()
      for _, count in ipairs { 0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129,
        1000 } do
        local keys = names(1, count)
        assert.same(expected(keys), read():get_many(keys))
      end
    end)

    it("takes an empty store", function()
      db = helper.store { durability = "manual" }
      assert.same({}, read():get_many(names(1, 100)))
      db:put("key 7", "v")
      assert.same({ ["key 7"] = "v" }, read():get_many(names(1, 100)))
    end)

    it("takes the same key twice, numbers, and any bytes", function()
      db:put("", "empty")
      db:put("\0", "")
      db:put(5, "five")
      assert.same({ [""] = "empty", ["\0"] = "", [5] = "five", ["5"] = "five",
        ["key 1"] = "value 1" },
        read():get_many { "", "\0", "key 1", 5, "5", "key 1", "x" })
    end)

    it("gives values of any size whole", function()
      local wanted, keys = {}, {}
      for i = 1, 100 do
        keys[i] = "size " .. i
        wanted[keys[i]] = helper.bytes(i % 10 == 0 and i * 10000 or i, i)
        db:put(keys[i], wanted[keys[i]])
      end
      local found = read():get_many(keys)
      for key, value in pairs(wanted) do assert.is_true(found[key] == value) end
      assert.equal("value 1", reader:get("key 1"))
    end)

    it("does not alter the table, and looks at its array alone", function()
      local keys = setmetatable({ "key 1", "key 2", x = "key 4" }, {
        __index = function() return "key 5" end,
        __newindex = function() error("written to") end })
      assert.same({ ["key 1"] = "value 1", ["key 2"] = "value 2" },
        read():get_many(keys))
      assert.equal("key 1", keys[1])
    end)

    it("refuses what is no table of keys", function()
      raises("table expected", read().get_many, reader)
      raises("table expected", reader.get_many, reader, "key 1")
      raises("bad key #2 (string expected, got boolean)", reader.get_many,
        reader, { "key 1", true })
      raises("bad key #70", reader.get_many, reader,
        (function() local t = names(1, 80) t[70] = {} return t end)())
      raises("expected", reader.get_many, {}, {})
      assert.same(expected(names(1, 50)), reader:get_many(names(1, 50)))
    end)

    it("takes keys that are too long to be there", function()
      assert.same({ ["key 1"] = "value 1" },
        read():get_many { ("x"):rep(70000), "key 1" })
    end)

    it("decodes with the codec, whose errors reach the caller", function()
      local codec = { encode = tostring, decode = function(text)
        if text == "bad" then error("cannot decode", 0) end
        if text == "none" then return nil end
        return { text }
      end }
      db = helper.store { codec = codec }
      for i = 1, 100 do db:put("k" .. i, i) end
      db:put("none", "none")
      local found = read():get_many { "k1", "k100", "none", "k101" }
      assert.same({ k1 = { "1" }, k100 = { "100" } }, found)
      db:put("k50", "bad")
      for _ = 1, 3 do
        raises("cannot decode", read().get_many, reader, { "k1", "k50" })
      end
      assert.same({ k1 = { "1" } }, reader:get_many { "k1" })
    end)

    it("says so when the store is closed, by anybody", function()
      local codec = { encode = tostring, decode = function(text)
        if text == "7" then db:close() end
        return text
      end }
      db = helper.store { codec = codec }
      local keys = {}
      for i = 1, 200 do
        keys[i] = "k" .. i
        db:put(keys[i], i)
      end
      read()
      raises("closed", reader.get_many, reader, keys)
      raises("closed", reader.get_many, reader, { "k1" })
    end)

    it("works while the collector runs, whose finalizers use it too",
      function()
        local calls = 0
        local function finalizer()
          calls = calls + 1
          local found = reader:get_many(names(1, 70))
          assert(found["key 70"] == "value 70")
        end
        local keys, wanted = names(1, 300), expected(names(1, 300))
        read()
        collectgarbage("stop")
        for _ = 1, 60 do
          if newproxy then -- luacheck: ignore 113
            getmetatable(newproxy(true)).__gc = finalizer -- luacheck: ignore 113
          else
            setmetatable({}, { __gc = finalizer })
          end
          local found = reader:get_many(keys)
          collectgarbage("step", 100)
          assert.same(wanted, found)
        end
        collectgarbage("restart")
        collectgarbage()
        assert.is_true(calls > 10, calls)
      end)

    it("is right while another process writes", function()
      local keys = {}
      for i = 1, 40 do keys[i] = "counter " .. i end
      for i = 1, 40 do db:put(keys[i], 0) end
      local writer = peers.start(path, { open = "{ durability = 'manual' }" })
      writer:tell([[
        for round = 1, 300 do
          for i = 1, 40 do db:put("counter " .. i, round) end
          for i = 1, 300 do db:put("other " .. i, round) end
          for i = 1, 300, 2 do db:delete("other " .. i) end
          if round % 50 == 0 then db:sync() end
        end
      ]])
      local last, limit = 0, probe.os.monotonic_ns() + 120e9
      repeat
        if probe.os.monotonic_ns() > limit then
          writer:answer() -- why it has ended, if it has
          error("what the writer put last is not seen, but round " .. last)
        end
        local found = read():get_many(keys)
        local least, most = math.huge, 0
        for i = 1, 40 do
          local value = tonumber(found[keys[i]])
          least, most = math.min(least, value), math.max(most, value)
        end
        assert.is_true(least >= last, least .. " after " .. last)
        if kind == "a snapshot" then
          assert.is_true(most - least <= 1)
          reader:close()
        end
        last = least
      until most == 300
      writer:answer()
      assert.equal("300", db:get("counter 1"))
    end)

    it("answers in a child after fork() as get does", function()
      read()
      local child = peers.fork { db = db, reader = reader }
      local answer = child:ask([[
        local found, _, code = reader:get_many { "key 1", "key 3" }
        return found and found["key 1"], code
      ]])
      assert.equal(kind == "a store" and "value 1 nil" or "nil EFORK", answer)
    end)

    it("may be very long", function()
      local keys = {}
      for i = 1, 20000 do keys[i] = "key " .. i end
      assert.same(expected(names(1, 1000)), read():get_many(keys))
    end)
  end)
end

describe("get_many", function()
  after_each(helper.close_all)

  it("finds keys whose hashes are the same, or nearly", function()
    for _, masks in ipairs { { "ff00000000000000", "ffffffffffffffff" },
      { "0000000000000000", "f000000000000000" },
      { "0000000000000000", "0000000000000000" } } do
      local store = assert(probe.store.open(helper.path(), { segment_size =
        131072, primary_mask = masks[1], secondary_mask = masks[2] }))
      for i = 1, 60 do assert(store:put("key " .. i, i)) end
      local keys = {}
      for i = 1, 90 do keys[i] = "key " .. i end
      local found = assert(store:get_many(keys))
      for i = 1, 60 do assert.equal(tostring(i), found[i]) end
      for i = 61, 90 do assert.is_nil(found[i]) end
      store:close()
    end
  end)

  it("ends when the visitor says so, with its code", function()
    local store = assert(probe.store.open(helper.path()))
    for i = 1, 60 do assert(store:put("key " .. i, i)) end
    local keys = {}
    for i = 1, 60 do keys[i] = "key " .. i end
    local found, code, count = store:get_many(keys, 40)
    assert.is_nil(found)
    assert.equal("EBUSY", code)
    assert.equal(40, count)
    store:close()
  end)

  it("reports damage", function()
    local folder = os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/corpus/"
    local names_of = {}
    for _, name in ipairs { "bad-branch-kind", "bad-slot-offset",
      "bad-branch-loop" } do
      local copy = helper.write(helper.path(),
        helper.read(folder .. name .. ".mmc"))
      local store = helper.store({ readonly = true }, copy)
      local keys, codes = {}, {}
      for i = 1, 200 do keys[i] = "key " .. i end
      for _, key in ipairs(keys) do
        local _, _, code = store:get(key)
        if code then codes[code] = true end
      end
      local found, message, code = store:get_many(keys)
      if next(codes) then
        names_of[#names_of + 1] = name
        assert.is_nil(found)
        assert.is_truthy(codes[code], message)
      end
    end
    assert.is_true(#names_of > 0)
  end)
end)
