-- SPDX-License-Identifier: MIT
--
-- Expiry as Lua sees it, by the system's clock; spec/unit/api_expiry_spec.lua has
-- one that can be set.

local helper = require "spec.support.helper"

local raises = helper.raises

local function wait(seconds) os.execute(("sleep %.3f"):format(seconds)) end

-- Waits until f() is true, for some seconds at most.
local function wait_for(f, what)
  for _ = 1, 400 do
    if f() then return end
    wait(0.02)
  end
  error("waited in vain: " .. what)
end

-- Between `least` and `most`, since some time has passed already.
local function between(least, number, most)
  assert.is_number(number)
  assert.is_true(least <= number and number <= most, tostring(number))
end

describe("a time to live", function()
  local db

  before_each(function() db = helper.store({ durability = "manual" }) end)
  after_each(helper.close_all)

  local function places()
    return { db, (assert(db:map("a map"))) }
  end

  it("ends what was put, in a store and in a map", function()
    for _, where in ipairs(places()) do
      assert.is_true(where:put("k", "v", { ttl = 60 }))
      assert.is_true(where:put("stays", "w"))
      assert.equal("v", where:get("k"))
      between(30, where:ttl("k"), 60)
      assert.is_nil(where:ttl("stays"))
      assert.equal(0, select("#", where:ttl("nobody")) - 1)
      assert.is_true(where:put("k", "v", { ttl = 0.005 }))
      wait(0.01)
      assert.is_nil(where:get("k"))
      assert.equal("none", where:get("k", "none"))
      assert.is_nil(where.k)
      assert.is_false(where:has("k"))
      assert.is_nil(where:ttl("k"))
      assert.is_false(where:delete("k"))
      assert.is_false(where:replace("k", "x"))
      assert.same({ stays = "w" }, where:get_many { "k", "stays" })
      assert.same({ stays = "w" }, (helper.records(where)))
      assert.equal(2, #where)
      assert.is_true(where:add("k", "again"))
      assert.is_nil(where:ttl("k"))
    end
    assert.is_true(db:check())
  end)

  it("may be given to add, replace and put_many", function()
    for _, where in ipairs(places()) do
      assert.is_true(where:add("a", 1, { ttl = 100 }))
      between(99, where:ttl("a"), 100)
      assert.is_true(where:replace("a", 2, { ttl = 200 }))
      between(199, where:ttl("a"), 200)
      assert.is_true(where:put_many({ a = 3, b = 4 }, { ttl = 300 }))
      between(299, where:ttl("a"), 300)
      between(299, where:ttl("b"), 300)
    end
  end)

  it("is dropped by whatever puts without, but not by incr", function()
    local function with_time() assert(db:put("n", 7, { ttl = 100 })) end
    with_time() db:put("n", 8) assert.is_nil(db:ttl("n"))
    with_time() db.n = 8 assert.is_nil(db:ttl("n"))
    with_time() db:swap("n", 8) assert.is_nil(db:ttl("n"))
    with_time() db:cas("n", 7, 8) assert.is_nil(db:ttl("n"))
    with_time() db:replace("n", 8) assert.is_nil(db:ttl("n"))
    with_time() db:put_many { n = 8 } assert.is_nil(db:ttl("n"))
    with_time() db:put("n", 8, {}) assert.is_nil(db:ttl("n"))
    with_time() assert.equal(8, db:incr("n")) between(99, db:ttl("n"), 100)
  end)

  it("can be set and lifted by expire", function()
    db:put("k", "v")
    assert.is_true(db:expire("k", 100))
    between(99, db:ttl("k"), 100)
    assert.is_true(db:expire("k", 0.0001))
    wait(0.01)
    assert.is_nil(db:get("k"))
    assert.is_false(db:expire("k", 100))
    db:put("k", "v", { ttl = 100 })
    assert.is_true(db:expire("k", nil))
    assert.is_nil(db:ttl("k"))
    assert.equal("v", db:get("k"))
    assert.is_true(db:expire("k", 1e300))
    assert.is_true(db:ttl("k") > 1e9)
  end)

  it("is part of an update", function()
    db:put("old", "v", { ttl = 100 })
    db:update(function(tx)
      between(99, tx:ttl("old"), 100)
      tx:put("a", "1", { ttl = 0.1 })
      tx:expire("old", nil)
      tx:map("m"):add("b", "2", { ttl = 0.1 })
      tx:put_many({ c = "3" }, { ttl = 0.1 })
      assert.is_nil(db:get("a"))
      wait(0.15) -- its clock stands still
      assert.equal("1", tx:get("a"))
      assert.equal(1, #tx:map("m"))
    end)
    assert.is_nil(db:get("a"))
    assert.is_nil(db:get("c"))
    assert.is_nil(db:map("m"):get("b"))
    assert.is_nil(db:ttl("old"))
    pcall(db.update, db, function(tx)
      tx:expire("old", 0.001)
      error("undone")
    end)
    wait(0.01)
    assert.equal("v", db:get("old"))
    assert.is_true(db:check())
  end)

  it("does not reach into snapshots and loops", function()
    -- Long enough for what is opened to be opened before it ends.
    local ttl, snap = 0.05, nil
    local iterate, iterator
    repeat
      ttl = 2 * ttl
      assert(db:put("k", "v", { ttl = ttl }))
      if snap then snap:close() end
      snap = assert(db:snapshot())
      iterate, iterator = db:pairs()
    until db:get("k") or ttl > 10
    wait(ttl + 0.02)
    assert.is_nil(db:get("k"))
    assert.equal("v", snap.k)
    between(0.001, snap:ttl("k"), ttl)
    assert.is_nil(snap:ttl("nobody"))
    assert.same({ "k", "v" }, { iterate(iterator) })
    local later = assert(db:snapshot())
    local changes = {}
    for key, old, new in db:diff(snap, later) do
      changes[#changes + 1] = { key, old, new }
    end
    assert.same({ { "k", "v" } }, changes)
    assert.is_nil(later:ttl("k"))
    later:close()
    snap:close()
  end)

  it("goes through a codec", function()
    local coded = helper.store({ codec = {
      encode = function(value) return "<" .. value .. ">" end,
      decode = function(text) return text:sub(2, -2) end } })
    assert(coded:put("k", "v", { ttl = 100 }))
    assert.equal("v", coded:get("k"))
    assert.is_true(coded:expire("k", 200))
    assert.equal("v", coded:get("k"))
    between(199, coded:ttl("k"), 200)
    assert(coded:put_many({ l = "w" }, { ttl = 5 }))
    assert.equal("w", coded.l)
  end)

  it("is misused with an error, and nothing is put", function()
    for _, method in ipairs { "put", "add", "replace" } do
      for _, ttl in ipairs { 0, -1, 0 / 0, -1 / 0 } do
        raises("option 'ttl' must be more than 0", db[method], db, "k", "v",
          { ttl = ttl })
      end
      raises("option 'ttl' must be a number, got string", db[method], db, "k",
        "v", { ttl = "5" })
      raises("the only option is 'ttl'", db[method], db, "k", "v", { 5 })
      raises("table expected", db[method], db, "k", "v", 5)
    end
    raises("unknown option 'tlt': the only option is 'ttl'", db.put_many, db,
      { k = "v" }, { tlt = 1 })
    raises("'ttl' must be more than 0", db.put_many, db, { k = "v" }, { ttl = 0 })
    raises("no options", db.swap, db, "k", "v", { ttl = 5 })
    raises("seconds must be more than 0", db.expire, db, "k", 0)
    raises("seconds must be a number, got string", db.expire, db, "k", "5")
    raises("number or nil expected", db.expire, db, "k")
    raises("string expected", db.ttl, db)
    raises("string expected", db.ttl, db, {})
    assert.equal(0, #db)
    db:close()
    raises("closed", db.ttl, db, "k")
    raises("closed", db.expire, db, "k", 5)
  end)

  it("takes the default of an options table that has one", function()
    local options = setmetatable({}, { __index = { ttl = 100 } })
    assert(db:put("k", "v", options))
    between(99, db:ttl("k"), 100)
  end)

  it("is kept by a backup, closing and opening", function()
    db:put("k", "v", { ttl = 100 })
    db:put("gone", "v", { ttl = 0.01 })
    wait(0.02)
    local path = helper.path()
    assert(db:backup(path))
    local copy = helper.store(nil, path)
    between(90, copy:ttl("k"), 100)
    assert.equal(1, #copy)
    copy:close()
    copy = helper.store(nil, path)
    between(90, copy:ttl("k"), 100)
  end)
end)

describe("what has expired", function()
  after_each(helper.close_all)

  it("is swept by the thread of an async store", function()
    local db = helper.store({ flush_interval = 0.01 })
    for i = 1, 500 do assert(db:put("k" .. i, "v", { ttl = 0.05 })) end
    assert(db:map("m"):put("k", "v", { ttl = 0.05 }))
    db.stays = "v"
    wait_for(function() return #db == 1 and #db:map("m") == 0 end, "the sweep")
    assert.equal("v", db.stays)
  end)

  it("is swept while that thread lets its interval pass", function()
    local db = helper.store({ flush_interval = 100 })
    for i = 1, 500 do assert(db:put("k" .. i, "v", { ttl = 0.05 })) end
    wait_for(function() return #db == 0 end, "the sweep")
  end)

  it("is swept by step, where there is no thread", function()
    local db = helper.store({ durability = "manual" })
    for i = 1, 500 do assert(db:put("k" .. i, "v", { ttl = 0.01 })) end
    wait(0.02)
    assert.equal(500, #db)
    wait_for(function() return assert(db:step(0.1)) and #db == 0 end, "the sweep")
  end)

  it("is gone for another process, too", function()
    local db = helper.store()
    db:put("k", "v", { ttl = 0.1 })
    db:put("l", "w", { ttl = 1000 })
    wait(0.12)
    local output = helper.child([[
      local db = assert(mmcmap.open((...)))
      print(db:get("k"), db:get("l"), db:ttl("l") < 1000)
    ]], tostring(db):match("%((.*)%)"))
    assert.equal("nil w true\n", (output:gsub("\t", " ")))
  end)

  it("belongs to one of several that add at the same time", function()
    local db = helper.store()
    local path = tostring(db):match("%((.*)%)")
    local code = [[
      local db, won = assert(mmcmap.open((...))), 0
      for i = 1, 300 do
        if db:add("lock", "mine", { ttl = 0.005 }) then
          won = won + 1
          if not db:add("held " .. db:incr("number"), "x") then print "twice" end
        end
        db:get("lock")
      end
      print(won)
    ]]
    local others = helper.child([[
      local path, code = ...
      local pipes = {}
      for i = 1, 3 do pipes[i] = io.popen(code) end
      for i = 1, 3 do io.write(pipes[i]:read("*a")) end
    ]], path, ("%s %s %s"):format(helper.quoted(helper.interpreter()),
      helper.quoted(helper.write(helper.path(".lua"), table.concat({
        ("package.path = %q"):format(package.path),
        ("package.cpath = %q"):format(package.cpath),
        'local mmcmap = require "mmcmap"', code }, "\n"))),
      helper.quoted(path)))
    local sum = 0
    for won in others:gmatch("(%d+)\n") do sum = sum + tonumber(won) end
    assert.is_nil(others:find("twice", 1, true), others)
    assert.equal(sum, tonumber(db:get("number")), others)
    assert.is_true(sum > 0)
  end)
end)
