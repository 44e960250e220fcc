-- SPDX-License-Identifier: MIT
--
-- Named maps: each a set of records of its own; one transaction for all; listed,
-- dropped, kept alive, and ended with their store.

local mmcmap = require "mmcmap"
local helper = require "spec.support.helper"

local fails, raises = helper.fails, helper.raises

local function sorted(names)
  table.sort(names)
  return names
end

describe("a store's maps", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
  end)
  after_each(helper.close_all)

  it("have records of their own", function()
    local users, pages = db:map("users"), db:map("pages")
    assert.same({}, db:maps())
    assert.equal(0, users:count())
    db.a, users.a, pages.a = "1", "2", "3"
    assert.same({ "1", "2", "3" }, { db.a, users.a, pages.a })
    assert.is_true(users:delete("a"))
    assert.same({ a = "1" }, (helper.records(db)))
    assert.same({}, (helper.records(users)))
    assert.same({ a = "3" }, (helper.records(pages)))
    assert.same({ "pages", "users" }, sorted(db:maps()))
    assert(db:close())
    db = helper.store(nil, path)
    assert.same({ "pages", "users" }, sorted(db:maps()))
    assert.equal("3", db:map("pages").a)
    assert.equal(1, #db)
  end)

  it("have the methods of records", function()
    local map = db:map("m")
    assert.is_true(map:put("a", "1"))
    assert.equal("1", map:get("a"))
    assert.equal("else", map:get("b", "else"))
    assert.is_true(map:has("a"))
    assert.is_true(map:add("b", "2"))
    assert.is_false(map:add("b", "2"))
    assert.is_true(map:replace("b", "3"))
    assert.is_true(map:cas("b", "3", "4"))
    assert.equal("4", map:swap("b", "5"))
    assert.equal(6, map:incr("b"))
    assert.is_true(map:put_many { c = 7, d = 8 })
    local keys = 0
    for key in map:keys() do assert.is_true(map:has(key)) keys = keys + 1 end
    assert.equal(4, keys)
    assert.equal(4, map:count())
    if _VERSION ~= "Lua 5.1" then assert.equal(4, #map) end
    if helper.has_pairs_metamethod then
      local seen = 0
      for _ in pairs(map) do seen = seen + 1 end
      assert.equal(4, seen)
    end
    map.e = "9"
    map.e = nil
    assert.is_nil(map.e)
    assert.is_true(map:clear())
    assert.equal(0, map:count())
    assert.same({ "m" }, db:maps())
    assert.is_nil(map.sync)
    assert.is_nil(map.close)
    assert.is_nil(map.map)
    assert.equal("mmcmap.map (" .. path .. ": m)", tostring(map))
    assert.is_truthy(tostring(db:map("\0 1")):find(": \0 1)", 1, true))
    raises("mmcmap.map expected, got nil", map.get, nil, "a")
    raises("string expected", db.map, db, {})
    raises("string expected", db.drop, db)
  end)

  it("are one object each, as long as somebody has it", function()
    assert.equal(db:map("m"), db:map("m"))
    assert.not_equal(db:map("m"), db:map("n"))
    for i = 1, 500 do
      local map = db:map("map " .. i % 7)
      map.key = i
    end
    collectgarbage()
    collectgarbage()
    assert.equal("500", db:map("map 3").key)
  end)

  it("take names of any bytes", function()
    local names = { "", "\0", "a\0b", ("n"):rep(65535), "\255", "7" }
    for i, name in ipairs(names) do db:map(name):put("key", i) end
    for i, name in ipairs(names) do
      assert.equal(tostring(i), db:map(name):get("key"))
    end
    assert.equal("6", db:map(7):get("key"))
    assert.same(sorted(names), sorted(db:maps()))
    fails("ETOOBIG", db:map(("n"):rep(65536)))
  end)

  it("are dropped at once, and can come again", function()
    local map = db:map("m")
    assert.is_false(db:drop("m"))
    for i = 1, 100 do map[i] = i end
    local next_one, it = map:pairs()
    assert.is_true(db:drop("m"))
    assert.is_false(db:drop("m"))
    assert.same({}, db:maps())
    assert.equal(0, map:count())
    assert.is_nil(map:get(7))
    local count = 0
    for _ in next_one, it do count = count + 1 end
    assert.equal(100, count)
    map.new = "one"
    assert.same({ new = "one" }, (helper.records(map)))
    assert.same({ "m" }, db:maps())
  end)

  it("are part of one transaction", function()
    local users = db:map("users")
    users.alice, db.total = "1", "1"
    local kept
    db:update(function(tx)
      local own = tx:map("users")
      kept = own
      own.bob = "2"
      assert.equal("1", own.alice)
      tx:incr("total")
      tx:map("log"):put("1", "bob came")
      assert.same({ "log", "users" }, sorted(tx:maps()))
      assert.same({ alice = "1", bob = "2" }, (helper.records(own)))
      assert.same({ alice = "1" }, (helper.records(users)))
      assert.equal("mmcmap.map (" .. path .. ": users)", tostring(own))
      raises("inside its own update", users.put, users, "a", "b")
      raises("inside its own update", db.drop, db, "users")
      assert.is_true(tx:drop("log"))
      assert.is_false(tx:drop("log"))
      tx:map("log"):put("2", "bob came")
    end)
    raises("has ended", kept.get, kept, "bob")
    raises("has ended", function() kept.a = "b" end)
    assert.same({ alice = "1", bob = "2" }, (helper.records(users)))
    assert.same({ ["2"] = "bob came" }, (helper.records(db:map("log"))))
    raises("no more", db.update, db, function(tx)
      tx:map("users"):clear()
      tx:map("other").a = "b"
      tx:drop("log")
      error("no more")
    end)
    assert.equal(2, users:count())
    assert.same({ "log", "users" }, sorted(db:maps()))
  end)

  it("end with their store, and say so", function()
    local map = db:map("m")
    map.a = "1"
    local next_one, it = map:pairs()
    assert(db:close())
    raises("the store is closed", map.get, map, "a")
    raises("the store is closed", function() map.a = "2" end)
    raises("closed store", db.map, db, "m")
    raises("closed store", db.maps, db)
    raises("closed store", db.drop, db, "m")
    raises("the store is closed", next_one, it)
    assert.equal("mmcmap.map (closed)", tostring(map))
    assert.equal("1", helper.store(nil, path):map("m").a)
  end)

  it("do not keep a store from being removed", function()
    db:map("m").a = "1"
    local map = db:map("m")
    assert(db:remove())
    raises("remove() of the store", map.get, map, "a")
    assert.is_false(helper.exists(path))
  end)

  it("keep their store alive, and their loops keep them", function()
    local map = db:map("m")
    for i = 1, 200 do map[i] = i end
    local loner = (function()
      return assert(mmcmap.open(path, { durability = "manual" })):map("m")
    end)()
    collectgarbage()
    collectgarbage()
    assert.equal("7", loner:get(7))
    local count = 0
    for _ in db:map("m"):pairs() do
      count = count + 1
      if count % 50 == 0 then map = nil collectgarbage() end
    end
    assert.equal(200, count)
    assert.is_nil(map)
    local it = (function()
      local _, iterator = assert(mmcmap.open(path, { durability = "manual" }))
        :map("m"):pairs()
      return iterator
    end)()
    collectgarbage()
    collectgarbage()
    assert.is_truthy(it:next())
    it:close()
  end)

  it("share the codec", function()
    local coded = helper.store { durability = "manual", codec = {
      encode = function(value) return "<" .. value .. ">" end,
      decode = function(text) return text:sub(2, -2) end } }
    local map = coded:map("m")
    map.a = "1"
    assert.equal("1", map:get("a"))
    for _, value in map:pairs() do assert.equal("1", value) end
    coded:update(function(tx)
      tx:map("m").b = "2"
      assert.equal("2", tx:map("m"):get("b"))
    end)
    assert.equal("2", map.b)
  end)

  it("can be read only in a read-only store", function()
    db:map("m").a = "1"
    assert(db:close())
    local reader = helper.store({ readonly = true }, path)
    assert.equal("1", reader:map("m"):get("a"))
    assert.same({ "m" }, reader:maps())
    fails("EREADONLY", reader:map("m"):put("a", "2"))
    fails("EREADONLY", reader:drop("m"))
  end)

  it("are seen by other processes", function()
    db:map("m").a = "1"
    assert.equal("1\tm\n", helper.child([[
      local db = assert(mmcmap.open((...), { durability = "manual" }))
      print(db:map("m").a, table.concat(db:maps(), ","))
      db:map("m").a = "2"
      db:map("n").b = "3"
    ]], path))
    assert.equal("2", db:map("m").a)
    assert.equal("3", db:map("n").b)
  end)

  it("survive a collector that runs all the time", function()
    local pause = collectgarbage("setpause", 0)
    local multiplier = collectgarbage("setstepmul", 10000)
    for i = 1, 60 do
      db:map("map " .. i % 5):put(i, i)
      collectgarbage("step", 0)
      for _ in db:map("map 1"):pairs() do collectgarbage("step", 0) end
      db:update(function(tx)
        tx:map("map " .. i % 3).x = i
        collectgarbage("step", 0)
        assert.equal(tostring(i), tx:map("map " .. i % 3).x)
      end)
      db:maps()
    end
    collectgarbage("setpause", pause)
    collectgarbage("setstepmul", multiplier)
    assert.equal(5, #db:maps())
  end)

  it("are read many keys at a time", function()
    local map = db:map("m")
    assert.same({}, map:get_many { "1", "2" })
    for i = 1, 100 do
      map:put(i, "m" .. i)
      db:put(i, "d" .. i)
    end
    assert.same({ ["7"] = "m7", ["50"] = "m50" },
      map:get_many { "7", "50", "101" })
    assert.same({ ["7"] = "d7" }, db:get_many { "7", "101" })
    db:update(function(tx)
      tx:map("m")["7"] = "new"
      assert.same({ ["7"] = "new", ["8"] = "m8" },
        tx:map("m"):get_many { "7", "8" })
      assert.same({ ["7"] = "d7" }, tx:get_many { "7" })
    end)
  end)

  it("leave snapshots, differences and dumps of the default map alone", function()
    db.a = "1"
    db:map("m").a = "2"
    local before = db:snapshot()
    db.a = "3"
    db:map("m").a, db:map("m").b = "4", "5"
    local after = db:snapshot()
    assert.equal("1", before.a)
    assert.equal(1, #before)
    assert.same({ a = "1" }, (helper.records(before)))
    assert.same({ a = "1" }, before:get_many { "a", "b" })
    local changes = {}
    for key, old, new in db:diff(before, after) do changes[key] = old .. new end
    assert.same({ a = "13" }, changes)
    assert.matches("^1 records, version %d+\n\"a\" = \"3\"", mmcmap.dump(db))
  end)

  it("are checked, and in a backup", function()
    local copy = helper.path()
    for i = 1, 300 do db:map("map " .. i % 3):put(i, i) end
    db.a = "1"
    db:map("").empty = "name"
    db:map("gone").a = "1"
    db:drop("gone")
    assert.is_true(db:check())
    assert.is_true(db:backup(copy))
    local backup = helper.store({ create = false }, copy)
    assert.is_true(backup:check())
    assert.same({ a = "1" }, (helper.records(backup)))
    assert.same(sorted(db:maps()), sorted(backup:maps()))
    for _, name in ipairs(db:maps()) do
      assert.same((helper.records(db:map(name))),
        (helper.records(backup:map(name))))
    end
  end)

  it("are salvaged, each by itself", function()
    local rescued = helper.path()
    for i = 1, 50 do
      db:put(i, "d" .. i)
      db:map("m"):put(i, "m" .. i)
    end
    db:delete("7")
    local wanted, in_map = helper.records(db), helper.records(db:map("m"))
    assert(db:close())
    assert.equal(99, assert(mmcmap.salvage(path, rescued)))
    db = helper.store(nil, rescued)
    assert.same(wanted, (helper.records(db)))
    assert.same(in_map, (helper.records(db:map("m"))))
    assert.same({ "m" }, db:maps())
  end)
end)
