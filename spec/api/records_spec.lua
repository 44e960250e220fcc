-- SPDX-License-Identifier: MIT
--
-- put, get, delete, has, count, and the operators that stand for them.

local helper = require "spec.support.helper"

describe("a store's records:", function()
  local db

  before_each(function() db = helper.store() end)
  after_each(helper.close_all)

  describe("put and get", function()
    it("finds what was put", function()
      assert.is_true(db:put("hello", "world"))
      assert.equal("world", db:get("hello"))
    end)

    it("returns nothing but nil for an absent key", function()
      assert.equal(1, select("#", db:get("nobody")))
      assert.is_nil(db:get("nobody"))
    end)

    it("returns the default for an absent key only", function()
      assert.equal("moon", db:get("hello", "moon"))
      assert.is_false(db:get("hello", false))
      local default = {}
      assert.equal(default, db:get("hello", default))
      db:put("hello", "world")
      assert.equal("world", db:get("hello", "moon"))
      db:put("empty", "")
      assert.equal("", db:get("empty", "moon"))
    end)

    it("overwrites, with shorter, longer and equal values", function()
      for _, value in ipairs { "one", "a longer value than before", "", "x",
        "x", ("y"):rep(5000), "z" } do
        assert.is_true(db:put("key", value))
        assert.equal(value, db:get("key"))
        assert.equal(1, db:count())
      end
    end)

    it("keeps keys apart that begin alike", function()
      local keys = { "", "\0", "\0\0", "a", "a\0", "a\0b", "ab", "A", " a" }
      for i, key in ipairs(keys) do db:put(key, "value " .. i) end
      assert.equal(#keys, #db)
      for i, key in ipairs(keys) do
        assert.equal("value " .. i, db:get(key))
      end
    end)

    it("takes numbers as Lua's string functions do", function()
      assert.is_true(db:put(17, 4))
      assert.equal("4", db:get("17"))
      assert.equal("4", db:get(17))
      assert.is_true(db:has(17))
      db:put("half", 0.5)
      assert.equal("0.5", db:get("half"))
      assert.is_true(db:delete(17))
      assert.is_nil(db:get("17"))
    end)

    it("keeps 14 digits of a number, as they do; but integers whole", function()
      db:put("now", 1764518400.123456)
      assert.equal("1764518400.1235", db:get("now"))
      db:put("now", ("%.17g"):format(1764518400.123456))
      assert.equal(1764518400.123456, tonumber(db:get("now")))
      db:put(1234567890123456, "first")
      db:put(1234567890123457, "second")
      local has_integers = math.type ~= nil -- luacheck: ignore 143
      assert.equal(has_integers and "first" or "second", db:get(1234567890123456))
      assert.equal(has_integers and "first" or nil, db:get("1234567890123456"))
    end)

    it("does not change the caller's number into a string", function()
      local key, value = 1, 2
      db:put(key, value)
      db:get(key)
      assert.equal("number", type(key))
      assert.equal("number", type(value))
    end)
  end)

  describe("delete", function()
    it("says whether the key was there", function()
      db:put("hello", "world")
      assert.is_true(db:delete("hello"))
      assert.is_nil(db:get("hello"))
      assert.is_false(db:delete("hello"))
      assert.is_false(db:delete("nobody"))
    end)

    it("leaves the others", function()
      for i = 1, 300 do db:put("k" .. i, i) end
      for i = 1, 300, 2 do assert.is_true(db:delete("k" .. i)) end
      assert.equal(150, #db)
      for i = 1, 300 do
        assert.equal(i % 2 == 0 and tostring(i) or nil, db:get("k" .. i))
      end
    end)

    it("lets a key be put again", function()
      for i = 1, 50 do
        db:put("again", i)
        assert.equal(tostring(i), db:get("again"))
        assert.is_true(db:delete("again"))
        assert.equal(0, #db)
      end
    end)
  end)

  describe("has", function()
    it("is true for what is there, also for an empty value", function()
      db:put("empty", "")
      assert.is_true(db:has("empty"))
      assert.is_false(db:has("nobody"))
      db:delete("empty")
      assert.is_false(db:has("empty"))
    end)
  end)

  describe("count and #", function()
    it("tells the number of records", function()
      assert.equal(0, db:count())
      assert.equal(0, #db)
      for i = 1, 1000 do
        db:put("k" .. i, "v")
        assert.equal(i, #db)
      end
      db:put("k1", "another")
      assert.equal(1000, db:count())
      for i = 1, 1000 do
        db:delete("k" .. i)
        db:delete("k" .. i)
      end
      assert.equal(0, db:count())
    end)
  end)

  describe("operators", function()
    it("put, get and delete", function()
      db.hello = "moon"
      assert.equal("moon", db.hello)
      assert.equal("moon", db["hello"])
      assert.equal("moon", db:get("hello"))
      db.hello = nil
      assert.is_nil(db.hello)
      assert.is_false(db:has("hello"))
      db.hello = nil -- absent already: no error
    end)

    it("take numbers as keys and values", function()
      db[1] = 2
      assert.equal("2", db[1])
      assert.equal("2", db["1"])
      db[1] = nil
      assert.equal(0, #db)
    end)

    it("find methods before keys of the same name", function()
      local get = db.get
      db.get = 1
      db.close = "the door"
      assert.equal(get, db.get)
      assert.equal("function", type(db.close))
      assert.equal("1", db:get("get"))
      assert.equal("the door", db:get("close"))
      assert.equal(2, #db)
      db.get = nil
      assert.is_false(db:has("get"))
    end)

    it("take names of metamethods for keys like others", function()
      db.__index = "a key"
      assert.equal("a key", db.__index)
      assert.equal("a key", db:get("__index"))
      assert.is_nil(db.__gc)
    end)

    it("raise what the methods return", function()
      local ok, message = pcall(function() db[("x"):rep(65536)] = "1" end)
      assert.is_false(ok)
      assert.matches("too long", message, 1, true)
    end)
  end)

  it("works from several coroutines in turn", function()
    local function writer(name)
      return coroutine.wrap(function()
        for i = 1, 20 do
          db:put(name .. i, name)
          coroutine.yield(db:get(name .. i))
        end
      end)
    end
    local a, b = writer("a"), writer("b")
    for _ = 1, 20 do
      assert.equal("a", a())
      assert.equal("b", b())
    end
    assert.equal(40, #db)
  end)
end)
