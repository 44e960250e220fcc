-- SPDX-License-Identifier: MIT
--
-- update, put_many and clear: all of it at one instant, or nothing; what goes
-- wrong inside; and that none of it can be left half-way.

local mmcmap = require "mmcmap"
local crash = require "spec.support.crash"
local helper = require "spec.support.helper"

local unpack_ = table.unpack or unpack -- luacheck: ignore 113

local fails, raises = helper.fails, helper.raises

-- What another process has printed, once it has printed anything.
local function output_in(file)
  for _ = 1, 200 do
    if helper.read(file) ~= "" then break end
    os.execute("sleep 0.05")
  end
  return helper.read(file)
end

describe("a store's update", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
  end)
  after_each(helper.close_all)

  it("makes all changes visible when the function has returned", function()
    db.a, db.b = "1", "2"
    local version = db:version()
    db:update(function(tx)
      assert.is_true(tx:put("a", "changed"))
      assert.is_true(tx:delete("b"))
      assert.is_false(tx:delete("b"))
      assert.is_true(tx:put("c", "new"))
      assert.same({ "1", "2", nil }, { db:get("a"), db:get("b"), db:get("c") })
      assert.equal(2, #db)
      assert.equal(version, db:version())
      assert.same({ a = "1", b = "2" }, helper.records(db))
    end)
    assert.same({ a = "changed", c = "new" }, (helper.records(db)))
    assert.not_equal(version, db:version())
  end)

  it("passes on what the function returns", function()
    local function count(...) return select("#", ...), ... end
    assert.same({ 3, 1, nil, "x" },
      { count(db:update(function() return 1, nil, "x" end)) })
    local many = {}
    for i = 1, 200 do many[i] = i end
    assert.same(many, { db:update(function() return unpack_(many) end) })
    assert.same({ 1, nil }, { count(db:update(function() return nil end)) })
    assert.same({ 1, false }, { count(db:update(function() return false end)) })
  end)

  it("returns true where the function returns nothing: for assert()", function()
    local function count(...) return select("#", ...), ... end
    assert.same({ 1, true }, { count(db:update(function(tx) tx.a = "1" end)) })
    assert.is_true(assert(db:update(function(tx) tx.a = "2" return end)))
    assert.equal("2", db.a)
  end)

  it("undoes nothing of what was before a failure that is only returned", function()
    db:put_many { alice = 50, bob = "twenty" }
    db:update(function(tx)
      tx:incr("alice", -10)
      fails("ENUMBER", tx:incr("bob", 10))
    end)
    assert.equal("40", db.alice)
    raises("not a number", db.update, db, function(tx)
      assert(tx:incr("alice", -10))
      assert(tx:incr("bob", 10))
    end)
    raises("too long", db.update, db, function(tx)
      tx.alice = 0
      tx[("k"):rep(65536)] = "an operator raises by itself"
    end)
    assert.equal("40", db.alice)
  end)

  it("gives the transaction the methods and operators of records", function()
    db.a = "1"
    db:update(function(tx)
      assert.equal("1", tx:get("a"))
      assert.equal("1", tx.a)
      assert.is_nil(tx:get("b"))
      assert.is_nil(tx.b)
      assert.equal("else", tx:get("b", "else"))
      assert.is_true(tx:has("a"))
      assert.is_false(tx:has("b"))
      assert.is_true(tx:add("b", "2"))
      assert.is_false(tx:add("b", "3"))
      assert.is_true(tx:replace("b", "4"))
      assert.is_false(tx:replace("c", "4"))
      assert.is_true(tx:cas("b", "4", "5"))
      assert.is_false(tx:cas("b", "4", "6"))
      assert.is_true(tx:cas("d", nil, "6"))
      assert.is_true(tx:cas("d", "6", nil))
      assert.equal("5", tx:swap("b", "7"))
      assert.is_nil(tx:swap("e", "8"))
      assert.equal(9, tx:incr("e"))
      assert.equal(0.5, tx:incr("f", 0.5))
      tx.g, tx.h = "9", "10"
      tx.h = nil
      assert.is_true(tx:put_many { i = 11, [12] = "13" })
      assert.equal(7, tx:count())
      if helper.has_to_be_closed or _VERSION ~= "Lua 5.1" then
        assert.equal(7, #tx)
      end
      assert.is_truthy(tostring(tx):find("mmcmap.transaction (" .. path, 1, true))
    end)
    assert.same({ a = "1", b = "7", e = "9", f = "0.5", g = "9", i = "11",
      ["12"] = "13" }, (helper.records(db)))
    db:update(function(tx)
      assert.is_true(tx:clear())
      assert.equal(0, tx:count())
      tx.only = "one"
    end)
    assert.same({ only = "one" }, (helper.records(db)))
  end)

  it("leaves nothing of a function that raises", function()
    db.a = "1"
    local version = db:version()
    for _, problem in ipairs { "a string", 7, { "a table" }, false } do
      local ok, message = pcall(db.update, db, function(tx)
        for i = 1, 500 do tx["key " .. i] = "value" end
        tx:clear()
        error(problem, 0)
      end)
      assert.is_false(ok)
      if type(problem) == "string" then
        assert.equal(1, message:find("a string\n", 1, true))
        assert.is_truthy(message:find("stack traceback", 1, true))
        assert.is_truthy(message:find("update_spec.lua", 1, true))
      else
        assert.equal(problem, message)
      end
      assert.same({ a = "1" }, (helper.records(db)))
      assert.equal(version, db:version())
    end
    local ok, message = pcall(db.update, db, function() error() end)
    assert.is_false(ok)
    assert.is_nil(message)
    db.a = "still works"
    assert(db:close())
    assert.equal("still works", helper.store(nil, path).a)
  end)

  it("takes a million puts, which all are there at once, or never", function()
    local count = crash.thinning > 1 and 20000 or 1000000
    for _, is_kept in ipairs { false, true } do
      local ok = pcall(db.update, db, function(tx)
        for i = 1, count do tx[i] = i end
        assert(tx:count() == count and db:count() == 0)
        if not is_kept then error("no more") end
      end)
      assert.equal(is_kept, ok)
      assert.equal(is_kept and count or 0, db:count())
    end
    assert(db:close())
    db = helper.store(nil, path)
    assert.equal(count, db:count())
    for i = 1, count, 997 do assert.equal(tostring(i), db[i]) end
    assert.is_true(db:check())
  end)

  it("says where the error was, also without the debug library", function()
    local traceback = debug.traceback
    debug.traceback = nil -- luacheck: ignore
    local _, message = pcall(db.update, db, function() error("oh") end)
    debug.traceback = traceback -- luacheck: ignore
    assert.is_truthy(message:find("update_spec.lua:%d+: oh"))
  end)

  it("takes a function only", function()
    raises("function expected", db.update, db)
    raises("function expected", db.update, db, {})
    raises("mmcmap expected, got nil", db.update, nil, print)
    db:update(function(tx)
      raises("mmcmap.transaction expected, got nil", tx.put, nil, "a", "b")
      raises("mmcmap.transaction expected, got mmcmap", tx.put, db, "a", "b")
      raises("string expected", tx.put, tx, {}, "b")
      raises("mmcmap expected", db.put, tx, "a", "b")
      assert.is_nil(tx.update)
      assert.is_nil(tx.sync)
      assert.is_nil(tx.close)
    end)
  end)

  it("does not let the store be changed inside", function()
    local other = helper.store({ durability = "manual", timeout = 60 }, path)
    db.a = "1"
    db:update(function(tx)
      tx.a = "2"
      local word = "inside its own update"
      raises(word, db.put, db, "b", "c")
      raises(word, db.delete, db, "a")
      raises(word, db.add, db, "b", "c")
      raises(word, db.replace, db, "a", "c")
      raises(word, db.cas, db, "a", "1", "c")
      raises(word, db.swap, db, "a", "c")
      raises(word, db.incr, db, "a")
      raises(word, db.put_many, db, { b = "c" })
      raises(word, db.clear, db)
      raises(word, db.update, db, function() end)
      raises(word, db.sync, db)
      raises(word, db.step, db, 1)
      raises(word, db.close, db)
      raises(word, db.remove, db)
      raises(word, function() db.b = "c" end)
      fails("EBUSY", db:stat())
      -- Another handle of the same store cannot wait for itself either.
      fails("EBUSY", other:put("b", "c"))
      fails("EBUSY", other:update(function() error("never called") end))
      fails("EBUSY", other:sync())
      assert.equal("1", other:get("a"))
    end)
    assert.same({ a = "2" }, (helper.records(db)))
    assert.is_true(other:put("b", "c"))
    assert(db:sync())
  end)

  it("lets other stores be changed inside", function()
    local other = helper.store({ durability = "manual" })
    db:update(function(tx)
      other:update(function(inner)
        inner.a, tx.a = "1", "2"
      end)
      other.b = "3"
    end)
    assert.same({ a = "1", b = "3" }, (helper.records(other)))
    assert.same({ a = "2" }, (helper.records(db)))
  end)

  it("gives a transaction that is of no use afterwards", function()
    local kept, failed
    db:update(function(tx) kept = tx end)
    pcall(db.update, db, function(tx) failed = tx error("x") end)
    for _, tx in ipairs { kept, failed } do
      raises("has ended", tx.put, tx, "a", "b")
      raises("has ended", tx.get, tx, "a")
      raises("has ended", tx.has, tx, "a")
      raises("has ended", tx.count, tx)
      raises("has ended", tx.clear, tx)
      raises("has ended", tx.get_many, tx, { "a" })
      raises("has ended", tx.put_many, tx, { a = "b" })
      raises("has ended", tx.pairs, tx)
      raises("has ended", function() return tx.a end)
      raises("has ended", function() tx.a = "b" end)
      assert.equal("mmcmap.transaction (ended)", tostring(tx))
    end
    assert.equal(0, #db)
  end)

  it("cannot be yielded across", function()
    db.a = "1"
    local thread = coroutine.create(function()
      db:update(function(tx)
        tx.a = "2"
        coroutine.yield("out")
      end)
    end)
    local ok, message = coroutine.resume(thread)
    assert.is_false(ok)
    assert.is_truthy(tostring(message):find("yield", 1, true))
    assert.equal("1", db:get("a"))
    db.a = "3"
    -- Coroutines inside are another matter.
    db:update(function(tx)
      for i in coroutine.wrap(function()
        for i = 1, 3 do tx["key " .. i] = i coroutine.yield(i) end
      end) do
        assert.equal(tostring(i), tx["key " .. i])
      end
    end)
    assert.equal(4, #db)
  end)

  it("can be called from a coroutine, whose end it does not wait for", function()
    local resume = coroutine.wrap(function()
      for i = 1, 3 do
        coroutine.yield(db:update(function(tx) tx.a = i return i end))
      end
    end)
    for i = 1, 3 do
      assert.equal(i, resume())
      assert.equal(tostring(i), db:get("a"))
    end
  end)

  it("iterates over what the transaction saw when the loop began", function()
    for i = 1, 30 do db["key " .. i] = i end
    db:update(function(tx)
      tx["key 1"], tx.new = "changed", "one"
      local seen, count = {}, 0
      for key, value in tx:pairs() do
        seen[key], count = value, count + 1
        tx[key .. " more"] = value
        tx[key] = nil
      end
      assert.equal(31, count)
      assert.equal("changed", seen["key 1"])
      local keys = 0
      for key in tx:keys() do
        assert.is_truthy(key:find(" more", 1, true))
        keys = keys + 1
      end
      assert.equal(31, keys)
    end)
    assert.equal(31, #db)
  end)

  it("ends its loops", function()
    db.a, db.b = "1", "2"
    local next_one, it
    db:update(function(tx)
      next_one, it = tx:pairs()
      assert.is_truthy(next_one(it))
    end)
    raises("the transaction has ended", next_one, it)
    assert.is_truthy(tostring(it):find("closed", 1, true))
    it:close()
    collectgarbage()
  end)

  -- The function's own argument was once all that kept the transaction, which the
  -- collector then ended under it.
  it("goes on when the function has dropped the transaction", function()
    assert.equal("done", db:update(function(tx)
      tx.a = "1"
      tx = nil -- luacheck: ignore 311
      collectgarbage()
      collectgarbage()
      return "done"
    end))
    assert.same({ a = "1" }, (helper.records(db)))
  end)

  it("raises when its transaction was ended by hand", function()
    for _, finalize in ipairs {
      function(tx) getmetatable(tx).__gc(tx) end,
      function() getmetatable(db).__gc(db) end } do
      raises("has ended", db.update, db, function(tx)
        tx.a = "1"
        finalize(tx)
      end)
    end
    assert.same({}, (helper.records(helper.store(nil, path))))
  end)

  it("gets many of the transaction's own values", function()
    local keys, values = {}, {}
    for i = 1, 200 do keys[i] = "key " .. i end
    for i = 1, 150 do values["key " .. i] = "value " .. i end
    db:put_many(values)
    db:update(function(tx)
      assert.same(values, tx:get_many(keys))
      for i = 100, 180 do values["key " .. i] = "new " .. i end
      tx:put_many(values)
      tx:delete("key 1")
      values["key 1"] = nil
      assert.same(values, tx:get_many(keys))
      assert.same({ ["key 1"] = "value 1" }, db:get_many { "key 1", "key 170" })
      tx:clear()
      assert.same({}, tx:get_many(keys))
    end)
    assert.equal(0, #db)
  end)

  it("lets the store be read inside, as it was before", function()
    local copy = helper.path()
    db.a, db.b = "1", "2"
    local before = db:snapshot()
    db.b = "3"
    db:update(function(tx)
      tx.a, tx.c = "4", "5"
      local now = assert(db:snapshot())
      assert.same({ a = "1", b = "3" }, (helper.records(now)))
      assert.equal("1", db:view(function(snapshot) return snapshot.a end))
      local changes = {}
      for key, old, new in db:diff(before, now) do changes[key] = { old, new } end
      assert.same({ b = { "2", "3" } }, changes)
      assert.is_true(db:check())
      assert.is_true(db:backup(copy))
      now:close()
      assert.equal("5", tx.c)
    end)
    assert.same({ a = "4", b = "3", c = "5" }, (helper.records(db)))
    assert.same({ a = "1", b = "3" }, (helper.records(helper.store(nil, copy))))
    assert.is_true(db:check())
  end)

  it("encodes and decodes", function()
    local coded = helper.store { durability = "manual", codec = {
      encode = function(value) return "<" .. value .. ">" end,
      decode = function(text) return text:sub(2, -2) end } }
    coded:update(function(tx)
      tx:put("a", "1")
      assert.equal("1", tx:get("a"))
      tx:put_many { b = "2", c = "3" }
      assert.equal("2", tx.b)
      for _, value in tx:pairs() do assert.equal(1, #value) end
      assert.is_true(tx:cas("b", "2", "4"))
    end)
    assert.equal("4", coded:get("b"))
    local broken = helper.store { durability = "manual", codec = {
      encode = function() error("no words for it") end, decode = tostring } }
    raises("no words for it", broken.update, broken, function(tx) tx.a = "b" end)
    raises("no words for it", broken.put_many, broken, { a = "b" })
    assert.equal(0, #broken)
  end)

  it("says that a read-only store cannot", function()
    db.a = "1"
    assert(db:close())
    local reader = helper.store({ readonly = true }, path)
    fails("EREADONLY", reader:update(function() error("never called") end))
    fails("EREADONLY", reader:put_many { a = "b" })
    fails("EREADONLY", reader:clear())
  end)

  it("raises when the store is closed", function()
    db:close()
    raises("closed store", db.update, db, function() end)
    raises("closed store", db.put_many, db, {})
    raises("closed store", db.clear, db)
  end)

  it("goes on after a put that failed, if the function does", function()
    local small = helper.store { durability = "manual", max_size = 131072 }
    small.a = "1"
    small:update(function(tx)
      tx.b = "2"
      fails("EFULL", tx:put("c", ("x"):rep(200000)))
      raises("EFULL", function()
        local _, _, code = tx:put("c", ("x"):rep(200000))
        error(code)
      end)
      tx.d = "4"
    end)
    assert.same({ a = "1", b = "2", d = "4" }, (helper.records(small)))
  end)

  it("survives a collector that runs all the time", function()
    local stop = collectgarbage("setpause", 0)
    local multiplier = collectgarbage("setstepmul", 10000)
    for i = 1, 20 do
      db:update(function(tx)
        tx["key " .. i] = ("v"):rep(i)
        for _ in tx:pairs() do collectgarbage() end
        tx:pairs()
        setmetatable({}, { __gc = function() db:get("key 1") end })
      end)
    end
    collectgarbage("setpause", stop)
    collectgarbage("setstepmul", multiplier)
    assert.equal(20, #db)
  end)

  for how, code in pairs { ["os.exit()"] = "os.exit(0)",
    ["os.exit() that closes the state"] = "os.exit(0, true)",
    ["a signal"] = "os.execute('kill -9 $PPID') os.execute('sleep 9')" } do
    it("leaves a good store, and nothing of it, by " .. how, function()
      db.a = "1"
      assert(db:close())
      helper.child(([[
        local db = assert(mmcmap.open((...)))
        db.before = "kept"
        db:update(function(tx)
          for i = 1, 2000 do tx["key " .. i] = ("v"):rep(i) end
          local kept = tx:pairs()
          tx.a = "2"
          %s
        end)
      ]]):format(code), path)
      db = helper.store({ durability = "manual" }, path)
      assert.same({ a = "1", before = "kept" }, (helper.records(db)))
      db:update(function(tx) tx.a = "3" end)
      assert(db:close())
      assert.equal("3", helper.store(nil, path).a)
    end)
  end

  it("is seen by other processes as a whole", function()
    local output = helper.path(".txt")
    helper.write(output, "")
    local script = helper.write(helper.path(".lua"), ([[
      package.path, package.cpath = %q, %q
      local db = assert(require "mmcmap".open(%q, { durability = "manual" }))
      local rounds, bad = 0, 0
      repeat
        local sum, count, done = 0, 0, false
        for key, value in db:pairs() do
          if key == "done" then done = true
          else sum, count = sum + tonumber(value), count + 1 end
        end
        if not done and (sum ~= 1000 or count ~= 10) then bad = bad + 1 end
        rounds = rounds + 1
      until done
      print(rounds > 0, bad)
    ]]):format(package.path, package.cpath, path))
    db:update(function(tx)
      for i = 1, 10 do tx[i] = 100 end
    end)
    os.execute(("%s %s > %s 2>&1 &"):format(helper.quoted(helper.interpreter()),
      helper.quoted(script), helper.quoted(output)))
    for round = 1, 3000 do
      db:update(function(tx)
        local from, to = round % 10 + 1, round * 7 % 10 + 1
        tx:incr(from, -5)
        tx:incr(to, 5)
      end)
    end
    db.done = "yes"
    assert.equal("true\t0\n", output_in(output))
  end)

  it("is a hundred times put_many", function()
    for round = 1, 100 do
      local records = {}
      for i = 1, 100 do records["key " .. i] = round end
      assert.is_true(db:put_many(records))
    end
    assert.equal(100, #db)
    assert.equal("100", db["key 7"])
  end)

  describe("put_many", function()
    it("puts all or nothing", function()
      assert.is_true(db:put_many {})
      assert.is_true(db:put_many { a = "1", b = 2, [3] = "c" })
      assert.same({ a = "1", b = "2", ["3"] = "c" }, (helper.records(db)))
      fails("ETOOBIG", db:put_many { d = "1", [("k"):rep(70000)] = "2" })
      assert.equal(3, #db)
      raises("table expected", db.put_many, db)
      raises("bad key (string expected, got boolean)", db.put_many, db,
        { [true] = "1" })
      raises("bad value (string expected, got table: other types need a codec)", db.put_many, db,
        { a = {}, d = "1" })
      assert.equal(3, #db)
    end)

    it("leaves the table as it was", function()
      local records = { [1] = 2, [2.5] = 3, x = "y" }
      assert.is_true(db:put_many(records))
      assert.same({ [1] = 2, [2.5] = 3, x = "y" }, records)
      assert.equal("3", db["2.5"])
    end)
  end)

  it("needs no update for clear", function()
    for i = 1, 1000 do db[i] = ("v"):rep(i) end
    local it, state = db:pairs()
    assert.is_true(db:clear())
    assert.equal(0, #db)
    assert.is_nil(db[1])
    local count = 0
    for _ in it, state do count = count + 1 end
    assert.equal(1000, count)
    assert.is_true(db:clear())
    db.a = "1"
    assert(db:close())
    assert.same({ a = "1" }, (helper.records(helper.store(nil, path))))
    assert.is_truthy(mmcmap)
  end)
end)

describe("put_many, clear, drop and compact", function()
  after_each(helper.close_all)

  it("are seen by other processes all at once", function()
    local path, output = helper.path(), helper.path(".txt")
    helper.write(output, "")
    local script = helper.write(helper.path(".lua"), ([[
      package.path, package.cpath = %q, %q
      local db = assert(require "mmcmap".open(%q, { durability = "manual" }))
      local map, rounds, bad, full = db:map("m"), 0, 0, 0
      repeat
        local count = map:count()
        if count ~= 0 and count ~= 100 then bad = bad + 1 end
        db:view(function(snap)
          local first, met = nil, 0
          for _, value in snap:map("m"):pairs() do
            first, met = first or value, met + 1
            if value ~= first then bad = bad + 1 end
          end
          if met ~= 0 and met ~= 100 then bad = bad + 1 end
          if met == 100 then full = full + 1 end
        end)
        rounds = rounds + 1
      until db:has("done")
      print(bad, rounds > 0 and full > 0)
    ]]):format(package.path, package.cpath, path))
    local db = helper.store({ durability = "manual" }, path)
    local map = db:map("m")
    os.execute(("%s %s > %s 2>&1 &"):format(helper.quoted(helper.interpreter()),
      helper.quoted(script), helper.quoted(output)))
    for round = 1, 1500 do
      local records = {}
      for i = 1, 100 do records[i] = ("round %d "):format(round):rep(5) end
      assert.is_true(map:put_many(records))
      if round % 5 == 1 then assert.is_true(map:clear()) end
      if round % 5 == 3 then assert.is_true(db:drop("m")) end
      if round % 100 == 0 then assert.is_true(db:compact()) end
    end
    db.done = "yes"
    assert.equal("0\ttrue\n", output_in(output))
    assert.is_true(db:check())
  end)
end)
