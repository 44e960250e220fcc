-- SPDX-License-Identifier: MIT
--
-- Snapshots: the store at one moment, whatever else happens.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"

local SIGSTOP = 19

local db, path

local function prepare()
  path = helper.path()
  db = helper.store({ durability = "manual" }, path)
end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

local function fill(count, word)
  for i = 1, count do db:put("key " .. i, (word or "value ") .. i) end
end

local raises = helper.raises

describe("a snapshot", function()
  before_each(prepare)
  after_each(clean_up)

  it("shows the store as it was, in every way", function()
    fill(500)
    local snap = assert(db:snapshot())
    local version = db:version()
    for i = 1, 500, 2 do db:delete("key " .. i) end
    for i = 2, 500, 2 do db:put("key " .. i, "changed") end
    db:put("new", "new")
    assert(db:sync())
    assert.equal("value 7", snap:get("key 7"))
    assert.equal("value 8", snap["key 8"])
    assert.is_nil(snap:get("new"))
    assert.is_nil(snap.new)
    assert.equal("default", snap:get("new", "default"))
    assert.is_true(snap:has("key 1"))
    assert.is_false(snap:has("new"))
    assert.equal(500, snap:count())
    assert.equal(500, #snap)
    assert.equal(version, snap:version())
    assert.not_equal(version, db:version())
    local records, count = helper.records(snap)
    assert.equal(500, count)
    for i = 1, 500 do assert.equal("value " .. i, records["key " .. i]) end
    count = 0
    for key, value in snap:keys() do
      assert.is_nil(value)
      assert.is_truthy(records[key])
      count = count + 1
    end
    assert.equal(500, count)
    assert.equal("changed", db:get("key 2"))
    snap:close()
  end)

  it("of nothing is empty", function()
    local snap = db:snapshot()
    db:put("k", "v")
    assert.equal(0, #snap)
    assert.is_nil(snap:get("k"))
    for _ in snap:pairs() do error("a record?") end
  end)

  it("is what pairs() asks where Lua does", function()
    if not helper.has_pairs_metamethod then
      pending("this Lua's pairs knows no __pairs")
      return
    end
    fill(10)
    local snap, count = db:snapshot(), 0
    db:put("new", "new")
    for _ in pairs(snap) do count = count + 1 end
    assert.equal(10, count)
  end)

  it("finds a method first and a key after it", function()
    db:put("get", "a value")
    local snap = db:snapshot()
    assert.equal("function", type(snap.get))
    assert.equal("a value", snap:get("get"))
  end)

  it("takes numbers for keys, and any bytes", function()
    db:put(5, "five")
    db:put("", "empty")
    db:put("\0\255", "")
    local snap = db:snapshot()
    assert.equal("five", snap:get(5))
    assert.equal("five", snap[5])
    assert.equal("empty", snap:get(""))
    assert.equal("", snap:get("\0\255"))
  end)

  it("has the version of one taken when nothing changed between", function()
    fill(3)
    local a, b = db:snapshot(), db:snapshot()
    assert.equal(a:version(), b:version())
    db:put("k", "v")
    assert.equal(a:version(), b:version())
    assert.not_equal(a:version(), db:snapshot():version())
  end)

  it("holds many moments at once", function()
    local snaps = {}
    for i = 1, 200 do
      db:put("k", i)
      snaps[i] = db:snapshot()
    end
    assert.equal(200, db:stat().snapshot_count)
    for i = 200, 1, -1 do assert.equal(tostring(i), snaps[i].k) end
    for i = 1, 200 do snaps[i]:close() end
    assert.equal(0, db:stat().snapshot_count)
  end)

  it("gives large values whole", function()
    local value = helper.bytes(1300000)
    db:put("large", value)
    local snap = db:snapshot()
    db:put("large", "small")
    assert.is_true(snap:get("large") == value)
    assert.is_true((helper.records(snap)).large == value)
  end)

  it("says what it is", function()
    local snap = db:snapshot()
    assert.equal("mmcmap.snapshot (" .. path .. ")", tostring(snap))
    snap:close()
    assert.equal("mmcmap.snapshot (closed)", tostring(snap))
  end)

  it("decodes values with the store's codec", function()
    local codec = { encode = function(value) return "<" .. value .. ">" end,
      decode = function(text)
        if text == "<bad>" then error("cannot decode", 0) end
        return { text }
      end }
    local other = helper.store { codec = codec }
    other:put("k", "v")
    local snap = other:snapshot()
    assert.same({ "<v>" }, snap:get("k"))
    assert.same({ "<v>" }, snap.k)
    for _, value in snap:pairs() do assert.same({ "<v>" }, value) end
    assert.equal("as it is", snap:get("nobody", "as it is"))
    other:put("k", "bad")
    raises("cannot decode", function() return other:snapshot().k end)
    assert.same({ "<v>" }, snap:get("k"))
  end)

  it("refuses to be changed, and what is no key", function()
    local snap = db:snapshot()
    raises("change a snapshot", function() snap.k = "v" end)
    raises("change a snapshot", function() snap.k = nil end)
    assert.is_nil(snap.put)
    raises("string expected", snap.get, snap)
    raises("string expected", snap.get, snap, {})
    raises("string expected", snap.has, snap, true)
    raises("bad key", function() return snap[{}] end)
    for _, name in ipairs { "get", "has", "pairs", "keys", "count", "version",
      "close" } do
      raises("mmcmap.snapshot expected", snap[name])
      raises("mmcmap.snapshot expected", snap[name], db, "k")
      raises("mmcmap.snapshot expected", snap[name], io.stdout, "k")
    end
    raises("mmcmap expected", db.snapshot, snap)
    raises("mmcmap expected", db.snapshot)
  end)

  it("is not disturbed by another process that writes", function()
    fill(300)
    local snap = db:snapshot()
    local writer = peers.start(path, { open = "{ durability = 'manual' }" })
    writer:tell([[
      for round = 1, 30 do
        for i = 1, 300 do db:put("key " .. i, "round " .. round .. " " .. i) end
        db:delete("key " .. round)
        db:sync()
      end
    ]])
    for _ = 1, 60 do
      for i = 1, 300 do assert.equal("value " .. i, snap:get("key " .. i)) end
      local seen = 0
      for key, value in snap:pairs() do
        assert.equal("value " .. key:match("%d+"), value)
        seen = seen + 1
      end
      assert.equal(300, seen)
    end
    writer:answer()
    assert.equal("value 1", snap["key 1"])
    writer:finish()
  end)

  it("shows both sides of a transfer, or none, while others transfer", function()
    db:put("from", 1000)
    db:put("to", 0)
    local writer = peers.start(path, { open = "{ durability = 'manual' }" })
    writer:tell([[
      for i = 1, 3000 do
        db:put("to", i)
        db:put("from", 1000 - i)
      end
    ]])
    for _ = 1, 500 do
      local snap = db:snapshot()
      local from, to = tonumber(snap.from), tonumber(snap.to)
      assert.is_true(from + to == 1000 or from + to == 1001, from .. " " .. to)
      assert.equal(tostring(from), snap.from)
      assert.equal(tostring(to), snap.to)
      snap:close()
    end
    writer:answer()
  end)

  -- It has read which moment is the newest, and then stands still for so long
  -- that the moment passes, and what it consists of is used again.
  it("is of a moment that is still there when it is opened", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    local function put_all(word)
      for i = 1, 300 do assert(db:put("key " .. i, word .. i)) end
    end
    put_all("old ")
    put_all("older ")
    local tries = 0
    local function is_whole(breaks)
      tries = tries + 1
      local last = "new" .. ("er"):rep(tries) .. " "
      db:snapshot():close()
      local reader = peers.launch(path)
      reader:ask("db = assert(probe.store.open(path))")
      reader:ask("if ... ~= 'none' then probe.crash.breaks(...) end", breaks)
      reader:ask("probe.crash.die_at_point(1, tonumber((...)), 'moment')", SIGSTOP)
      reader:tell([[
        local snapshot = assert(db:snapshot())
        local records, code = snapshot:records()
        if not records then return code end
        local word
        for key, value in pairs(records) do
          word = word or value:match("^%a+ ")
          if value ~= word .. key:match("%d+") then return "mixed" end
        end
        return word
      ]])
      reader:await_stopped()
      for round = 1, 20 do put_all(("x"):rep(round % 5 + 1) .. " ") end
      put_all(last)
      reader:go_on()
      local text = reader:answer()
      reader:kill()
      return text == last or text
    end
    assert.is_true(is_whole("none"))
    -- The newest root may have come to where the old one was.
    local is_caught = false
    for _ = 1, 5 do is_caught = is_caught or is_whole("NO_RECHECK") ~= true end
    assert.is_true(is_caught)
  end)

  -- A thread that is pinned may mark a row of the moment that it sees, and then
  -- unpin. Here it does both while a writer that looks for what it may use again is
  -- between its two scans: it has met the pin, or else it meets the row.
  it("is not overlooked when a pin becomes one", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    local file = helper.path()
    local own = assert(probe.store.open(file, { durability = "manual" }))
    for i = 1, 300 do assert(own:put("key " .. i, "old " .. i)) end
    local writer = peers.launch(file)
    writer:ask("db = assert(probe.store.open(path, { durability = 'manual' }))")
    writer:ask("for i = 1, 300 do assert(db:put('key ' .. i, 'old ' .. i)) end")
    local snapshot = assert(own:snapshot())
    assert(own:pin())
    snapshot:let_go() -- the pin alone keeps the moment now
    writer:ask("for i = 1, 300 do assert(db:put('key ' .. i, 'mid ' .. i)) end")
    writer:ask("probe.crash.die_at_point(1, tonumber((...)), 'looking')", SIGSTOP)
    writer:tell([[
      for round = 1, 5 do
        for i = 1, 300 do assert(db:put("key " .. i, "new " .. i)) end
      end
    ]])
    writer:await_stopped()
    snapshot:hold()
    assert(own:unpin())
    writer:go_on()
    writer:answer()
    local records, count = snapshot:records()
    assert.truthy(records, count)
    for i = 1, 300 do assert.equal("old " .. i, records["key " .. i]) end
    assert.equal(300, count)
    snapshot:close()
    own:close()
  end)

  it("ends when it is older than it may become", function()
    local other = helper.store({ max_snapshot_age = 0.02 }, path)
    other:put("k", "v")
    local snap = other:snapshot()
    probe.os.sleep_ms(40)
    local value, message, code = snap:get("k")
    assert.is_nil(value)
    assert.equal("EEXPIRED", code)
    assert.is_truthy(message:find(path, 1, true))
    assert.equal("EEXPIRED", (select(3, snap:has("k"))))
    raises("max_snapshot_age", function() return snap.k end)
    raises("max_snapshot_age", function() return snap:pairs() end)
    snap:close()
  end)
end)

describe("a snapshot across fork()", function()
  before_each(prepare)
  after_each(clean_up)

  it("answers with EFORK in the child, and goes on in the parent", function()
    fill(10)
    local snap = db:snapshot()
    local child = peers.fork { db = db, snap = snap }
    assert.equal("EFORK", child:ask("return select(3, snap:get('key 1'))"))
    assert.equal("EFORK", child:ask("return select(3, snap:has('key 1'))"))
    assert.is_truthy(child:ask("return pcall(function() return snap.k end)")
      :find("^false .*fork"))
    assert.equal("value 1", child:ask("return db:snapshot():get('key 1')"))
    assert.equal("10", child:ask("return db:view(function(s) return #s end)"))
    child:ask("snap:close()")
    child:finish()
    assert.equal("value 1", snap:get("key 1"))
    assert.equal(1, db:stat().snapshot_count)
  end)
end)

describe("the end of a snapshot", function()
  before_each(prepare)
  after_each(clean_up)

  local function snapshots() return db:stat().snapshot_count end

  it("comes with close(), which may be called again", function()
    fill(3)
    local snap = db:snapshot()
    assert.equal(1, snapshots())
    snap:close()
    snap:close()
    assert.equal(0, snapshots())
    for _, call in ipairs {
      function() return snap:get("k") end,
      function() return snap:has("k") end,
      function() return snap.k end,
      function() return #snap end,
      function() return snap:count() end,
      function() return snap:version() end,
      function() return snap:pairs() end,
      function() return snap:keys() end,
    } do
      raises("closed snapshot", call)
    end
    assert.equal("function", type(snap.get))
  end)

  it("ends the loops over it", function()
    fill(10)
    local snap = db:snapshot()
    local next_record, state = snap:pairs()
    next_record(state)
    snap:close()
    raises("the snapshot is closed", next_record, state)
    assert.equal("mmcmap.iterator (closed)", tostring(state))
    state:close()
    raises("the snapshot is closed", next_record, state)
    snap = db:snapshot()
    raises("the snapshot is closed", function()
      for _ in snap:keys() do snap:close() end
    end)
    assert.equal(0, snapshots())
  end)

  it("comes with the store's, and it says so", function()
    fill(10)
    local snap = db:snapshot()
    local next_record, state = snap:pairs()
    next_record(state)
    db:close()
    raises("the store is closed", snap.get, snap, "k")
    raises("the store is closed", function() return snap.k end)
    raises("the store is closed", next_record, state)
    assert.equal("mmcmap.snapshot (closed)", tostring(snap))
    snap:close()
    raises("the store is closed", snap.count, snap)
  end)

  it("is no condition for removing the store", function()
    fill(10)
    local snap = db:snapshot()
    assert.is_true(db:remove())
    raises("remove() of the store", snap.get, snap, "k")
    assert.is_false(helper.exists(path))
  end)

  it("comes with collection, and not as long as a loop runs", function()
    fill(300)
    db:snapshot()
    collectgarbage()
    collectgarbage()
    assert.equal(0, snapshots())
    local count = 0
    for _ in db:snapshot():pairs() do
      count = count + 1
      if count % 50 == 0 then collectgarbage() end
    end
    assert.equal(300, count)
    collectgarbage()
    collectgarbage()
    assert.equal(0, snapshots())
  end)

  it("does not come with the collection of the store", function()
    fill(10)
    helper.close_all()
    local snap
    do
      local other = assert(mmcmap.open(path))
      snap = other:snapshot()
    end
    collectgarbage()
    collectgarbage()
    assert.equal("value 1", snap:get("key 1"))
    assert.equal(10, (select(2, helper.records(snap))))
    snap = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    db = assert(mmcmap.open(path))
    assert.is_true(db:remove())
  end)

  it("comes at the end of its scope in Lua 5.4", function()
    if not helper.has_to_be_closed then
      return pending("only Lua 5.4 has variables to be closed")
    end
    fill(2)
    local run = helper.load([[
      local db = ...
      local kept
      do
        local snap <close> = db:snapshot()
        kept = snap
      end
      return tostring(kept)
    ]])
    assert.equal("mmcmap.snapshot (closed)", run(db))
  end)

  it("survives finalizers that are called by hand, in any order", function()
    fill(5)
    local snap = db:snapshot()
    local _, state = snap:pairs()
    local gc = getmetatable(snap).__gc
    getmetatable(db).__gc(db)
    gc(snap)
    gc(snap)
    getmetatable(state).__gc(state)
    raises("mmcmap.snapshot expected", gc, db)
    raises("mmcmap.snapshot expected", gc)
  end)

  it("may come from the finalizers of other objects", function()
    for _ = 1, 20 do
      local other = helper.store { durability = "manual" }
      for i = 1, 30 do other:put("k" .. i, ("x"):rep(3000)) end
      local snap = other:snapshot()
      local function finalizer()
        snap:close()
        other:close()
      end
      if newproxy then -- luacheck: ignore 113
        getmetatable(newproxy(true)).__gc = finalizer -- luacheck: ignore 113
      else
        setmetatable({}, { __gc = finalizer })
      end
      raises("closed", function()
        while true do
          for key, value in snap:pairs() do
            if #value ~= 3000 or #snap:get(key) ~= 3000 then error(key) end
          end
          collectgarbage("step")
        end
      end)
    end
  end)

  it("works with a step of the collector after each call", function()
    collectgarbage("stop")
    for i = 1, 60 do
      db:put("k" .. i, ("v"):rep(i * 50))
      local snap = db:snapshot()
      collectgarbage("step")
      assert.equal(i * 50, #snap:get("k" .. i))
      collectgarbage("step")
      for key, value in snap:pairs() do
        collectgarbage("step")
        assert.equal(tonumber(key:sub(2)) * 50, #value)
      end
      assert.equal(i, #snap)
      collectgarbage("step")
    end
    collectgarbage("restart")
    collectgarbage()
    collectgarbage()
    assert.equal(0, snapshots())
  end)
end)

describe("view", function()
  before_each(prepare)
  after_each(clean_up)

  local function snapshots() return db:stat().snapshot_count end

  it("passes a snapshot in and the results out", function()
    fill(3)
    local kept
    local function results(...) return select("#", ...), ... end
    local n, a, b, c = results(db:view(function(snap)
      kept = snap
      db:put("key 1", "changed")
      return snap:get("key 1"), nil, #snap
    end))
    assert.equal(3, n)
    assert.equal("value 1", a)
    assert.is_nil(b)
    assert.equal(3, c)
    assert.equal("mmcmap.snapshot (closed)", tostring(kept))
    assert.equal(0, snapshots())
    assert.same({ 1, true }, { results(db:view(function() end)) })
    assert.same({ 1, nil }, { results(db:view(function() return nil end)) })
  end)

  it("raises the function's error again, whatever it is", function()
    local problem, kept = {}
    local ok, message = pcall(db.view, db, function(snap)
      kept = snap
      error(problem)
    end)
    assert.is_false(ok)
    assert.equal(problem, message)
    raises("closed snapshot", kept.get, kept, "k")
    raises("an error of the user's", db.view, db,
      function() error("an error of the user's") end)
    assert.equal(0, snapshots())
  end)

  it("refuses what is no function, and takes no snapshot then", function()
    for _, value in ipairs { "x", 5, {}, true } do
      raises("function expected", db.view, db, value)
    end
    raises("function expected", db.view, db)
    assert.equal(0, snapshots())
    db:close()
    raises("closed store", db.view, db, function() end)
  end)

  it("may be nested, and its function may close what it likes", function()
    fill(2)
    assert.equal("value 1 changed", db:view(function(outer)
      db:put("key 1", "changed")
      return db:view(function(inner)
        return outer["key 1"] .. " " .. inner["key 1"]
      end)
    end))
    assert.equal(5, db:view(function(snap)
      snap:close()
      return 5
    end))
    assert.equal(6, db:view(function() db:close() return 6 end))
  end)

  it("lets its function yield, but in Lua 5.1", function()
    if _VERSION == "Lua 5.1" and not rawget(_G, "jit") then
      return pending("Lua 5.1's pcall cannot be yielded across")
    end
    fill(2)
    local step = coroutine.wrap(function()
      return db:view(function(snap)
        coroutine.yield(snap["key 1"])
        return snap["key 1"]
      end)
    end)
    assert.equal("value 1", step())
    db:put("key 1", "changed")
    assert.equal(1, snapshots())
    assert.equal("value 1", step())
    assert.equal(0, snapshots())
  end)
end)
