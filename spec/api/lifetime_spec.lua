-- SPDX-License-Identifier: MIT
--
-- Closed stores, and the garbage collector in every order.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local probe = require "mmcmap_probe"

local function collect()
  collectgarbage()
  collectgarbage()
end

describe("a closed store", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store(nil, path)
    db:put("k", "v")
  end)
  after_each(helper.close_all)

  it("may be closed again", function()
    assert.is_true(db:close())
    assert.is_true(db:close())
    assert.is_true(db:close())
  end)

  it("says that it is closed", function()
    assert.equal("mmcmap (" .. path .. ")", tostring(db))
    db:close()
    assert.equal("mmcmap (closed)", tostring(db))
  end)

  it("raises from every method but close", function()
    db:close()
    local calls = {
      function() return db:get("k") end,
      function() return db:get("k", "default") end,
      function() return db:put("k", "v") end,
      function() return db:delete("k") end,
      function() return db:has("k") end,
      function() return db:count() end,
      function() return db:pairs() end,
      function() return db:keys() end,
      function() return db:size() end,
      function() return db:sync() end,
      function() return db:remove() end,
      function() return db:version() end,
      function() return db:stat() end,
      function() return db:snapshot() end,
      function() return db:get_many { "k" } end,
      function() return db:view(print) end,
      function() return db.k end,
      function() db.k = "v" end,
      function() db.k = nil end,
      function() return #db end,
    }
    if helper.has_pairs_metamethod then
      calls[#calls + 1] = function() return pairs(db) end
    end
    for i, call in ipairs(calls) do
      local ok, message = pcall(call)
      assert.is_false(ok, "call " .. i)
      assert.is_truthy(message:find("attempt to use a closed store", 1, true),
        message)
    end
  end)

  it("still has its methods", function()
    db:close()
    assert.equal("function", type(db.get))
  end)
end)

describe("a store", function()
  local path

  before_each(function() path = helper.path() end)
  after_each(function()
    helper.close_all()
    collect()
  end)

  -- Whether nobody has the file open: only then remove() works.
  local function is_free()
    local db = assert(mmcmap.open(path))
    local free = db:remove()
    db:close()
    return free
  end

  it("is closed when it is collected", function()
    local db = assert(mmcmap.open(path))
    db:put("k", "v")
    db = nil -- luacheck: ignore 311
    collect()
    assert.equal("v", helper.child([[
      io.write(assert(mmcmap.open((...), { timeout = 0 })):get("k"))
    ]], path))
    assert.is_true(is_free())
  end)

  it("is collected together with its iterators", function()
    for _ = 1, 20 do
      local db = assert(mmcmap.open(path))
      for i = 1, 20 do db:put("k" .. i, i) end
      for _ = 1, 5 do
        local next_record, state = db:pairs()
        next_record(state)
      end
      for _ in db:keys() do break end -- luacheck: ignore 512
    end
    collect()
    assert.is_true(is_free())
  end)

  it("lives as long as one of its iterators", function()
    local db = assert(mmcmap.open(path))
    for i = 1, 20 do db:put("k" .. i, i) end
    local next_record, state = db:pairs()
    db = nil -- luacheck: ignore 311
    collect()
    assert.is_false(is_free() == true)
    local count = 0
    for _ in next_record, state do count = count + 1 end
    assert.equal(20, count)
    next_record, state = nil, nil -- luacheck: ignore 311
    collect()
    assert.is_true(is_free())
  end)

  it("may be closed with iterators that are collected later", function()
    local db = assert(mmcmap.open(path))
    for i = 1, 20 do db:put("k" .. i, i) end
    local iterators = {}
    for i = 1, 10 do
      local next_record, state = db:pairs()
      next_record(state)
      iterators[i] = state
    end
    iterators[3]:close()
    iterators[10]:close()
    iterators[1]:close()
    iterators[5] = nil
    collect()
    assert.is_true(db:close())
    for i = 1, 10 do iterators[i] = nil end
    collect()
    assert.is_true(is_free())
  end)

  it("survives finalizers that are called by hand", function()
    local db = assert(mmcmap.open(path))
    db:put("k", "v")
    local _, state = db:pairs()
    local store_gc = getmetatable(db).__gc
    local iterator_gc = getmetatable(state).__gc
    iterator_gc(state)
    iterator_gc(state)
    store_gc(db)
    store_gc(db)
    iterator_gc(state)
    assert.is_false(pcall(db.get, db, "k"))
    assert.is_false(pcall(store_gc, state))
    assert.is_false(pcall(iterator_gc, db))
    assert.is_false(pcall(store_gc))
    assert.is_true(db:close())
  end)

  it("works while the collector runs all the time", function()
    local pause = collectgarbage("setpause", 1)
    local multiplier = collectgarbage("setstepmul", 1000)
    local ok, message = pcall(function()
      local db = assert(mmcmap.open(path, { durability = "manual" }))
      for i = 1, 400 do
        db:put("k" .. i, ("v" .. i):rep(i))
        local count = 0
        for key, value in db:pairs() do
          if db:get(key) ~= value then error(key) end
          count = count + 1
          if count > 20 then break end
        end
        local found = db:get("k" .. i)
        if found ~= ("v" .. i):rep(i) then error("k" .. i) end
        local other = assert(mmcmap.open(path))
        if i % 3 == 0 then other:close() end
      end
      assert(db:close())
    end)
    collectgarbage("setpause", pause)
    collectgarbage("setstepmul", multiplier)
    assert.is_true(ok, message)
    collect()
    assert.is_true(is_free())
  end)

  it("may be used by finalizers of other objects", function()
    -- Making the string of a value may run the collector, which then asks
    -- the same store for other values. The call itself is not reading any more: it
    -- has no pin that a finalizer, or an error, would keep.
    local db = helper.store({ durability = "manual" }, path)
    local large = {}
    for i = 1, 8 do
      large[i] = helper.bytes(5000 * i * i, i)
      db:put("large " .. i, large[i])
    end
    local calls, wrong, pinned = 0, 0, 0
    local function finalizer()
      calls = calls + 1
      local i = calls % 8 + 1
      pinned = pinned + db:readers()[1].pinned_count
      if db:get("large " .. i) ~= large[i] then wrong = wrong + 1 end
      for _, value in db:pairs() do -- luacheck: ignore 512
        if #value < 5000 then wrong = wrong + 1 end
        break
      end
    end
    local function garbage()
      if newproxy then -- luacheck: ignore 113
        getmetatable(newproxy(true)).__gc = finalizer -- luacheck: ignore 113
      else
        setmetatable({}, { __gc = finalizer })
      end
    end
    local pause = collectgarbage("setpause", 50)
    for round = 1, 400 do
      garbage()
      local i = round % 8 + 1
      assert.is_true(db:get("large " .. i) == large[i])
      local found = db:get_many { "large 1", "large 2", "large " .. i }
      assert.is_true(found["large " .. i] == large[i])
      for key, value in db:pairs() do
        assert.is_true(value == large[tonumber(key:match("%d+"))])
        garbage()
      end
    end
    collectgarbage("setpause", pause)
    collect()
    assert.is_true(calls > 100, calls .. " finalizers")
    assert.equal(0, wrong)
    assert.equal(0, pinned)
  end)

  it("may be closed by finalizers of other objects", function()
    for round = 1, 30 do
      local db = helper.store { durability = "manual" }
      for i = 1, 50 do db:put("k" .. i, ("x"):rep(2000)) end
      local function finalizer() db:close() end
      if newproxy then -- luacheck: ignore 113
        getmetatable(newproxy(true)).__gc = finalizer -- luacheck: ignore 113
      else
        setmetatable({}, { __gc = finalizer })
      end
      local ok, message = pcall(function()
        local garbage = 0
        while true do
          for key, value in db:pairs() do
            garbage = garbage + 1
            db:get(("y"):rep(20000) .. garbage)
            if #value ~= 2000 or #db:get(key) ~= 2000 then
              error("round " .. round)
            end
            db:put(key .. "/new", value)
            db:delete(key .. "/new")
          end
        end
      end)
      assert.is_false(ok)
      assert.is_truthy(message:find("closed", 1, true), message)
    end
  end)

  it("may be opened many times", function()
    local handles = {}
    for i = 1, 200 do handles[i] = assert(mmcmap.open(path)) end
    handles[1]:put("k", "v")
    for i = 1, 200, 2 do assert.is_true(handles[i]:close()) end
    assert.equal("v", handles[200]:get("k"))
    handles = nil -- luacheck: ignore 311
    collect()
    assert.is_true(is_free())
  end)

  it("leaves nothing behind when it is opened and closed often", function()
    assert(assert(mmcmap.open(path)):close())
    local before = probe.os.descriptor_count()
    for _ = 1, 100 do
      local db = assert(mmcmap.open(path))
      db:put("k", "v")
      local next_record, state = db:pairs()
      next_record(state)
      assert.is_true(db:close())
      assert.is_nil((mmcmap.open(path, { exclusive = true })))
    end
    assert.is_true(probe.os.descriptor_count() <= before + 2)
  end)

  it("is safe at the end of the state in any order", function()
    assert.equal("done", helper.child([[
      local stores, iterators = {}, {}
      for i = 1, 50 do
        stores[i] = assert(mmcmap.open((...)))
        stores[i]:put("k" .. i, i)
        for j = 1, 5 do
          local next_record, state = stores[i]:pairs()
          next_record(state)
          iterators[#iterators + 1] = state
        end
        if i % 4 == 0 then stores[i]:close() end
        if i % 5 == 0 then stores[i] = false end
        if i % 7 == 0 then iterators[#iterators] = false end
      end
      global_stores, global_iterators = stores, iterators
      io.write("done")
    ]], path))
  end)
end)

describe("<close>", function()
  after_each(helper.close_all)

  local function only_54()
    if helper.has_to_be_closed then return true end
    pending("only Lua 5.4 has variables to be closed")
  end

  it("closes the store at the end of its scope", function()
    if not only_54() then return end
    local run = helper.load([[
      local mmcmap, path = ...
      local kept
      do
        local db <close> = assert(mmcmap.open(path))
        db.k = "v"
        kept = db
      end
      return tostring(kept)
    ]])
    local path = helper.path()
    assert.equal("mmcmap (closed)", run(mmcmap, path))
    assert.equal("v", helper.store(nil, path):get("k"))
  end)

  it("closes the store at an error, which goes on", function()
    if not only_54() then return end
    local run = helper.load([[
      local mmcmap, path, keep = ...
      local db <close> = assert(mmcmap.open(path))
      keep.db = db
      db.k = "v"
      error("an error of the user's", 0)
    ]])
    local keep = {}
    local ok, message = pcall(run, mmcmap, helper.path(), keep)
    assert.is_false(ok)
    assert.equal("an error of the user's", message)
    assert.equal("mmcmap (closed)", tostring(keep.db))
  end)

  it("takes a store that is closed already", function()
    if not only_54() then return end
    local run = helper.load([[
      local mmcmap, path = ...
      local db <close> = assert(mmcmap.open(path))
      return db:close()
    ]])
    assert.is_true(run(mmcmap, helper.path()))
  end)

  it("closes an iterator", function()
    if not only_54() then return end
    local run = helper.load([[
      local db = ...
      do
        local next_record, state <close> = db:pairs()
        next_record(state)
      end
      return db:stat().snapshot_count
    ]])
    local db = helper.store()
    db.k = "v"
    assert.equal(0, run(db))
  end)

  it("closes a snapshot, one of a map, and a diff", function()
    if not only_54() then return end
    local run = helper.load([[
      local db, kept = ..., {}
      do
        local snap <close> = db:snapshot()
        do
          local map <close> = snap:map("m")
          local _, diff <close> = db:diff(snap, snap)
          kept[1], kept[2], kept[3] = snap, map, diff
        end
        kept.after = snap.k
      end
      return kept
    ]])
    local db = helper.store()
    db.k = "v"
    local kept = run(db)
    assert.equal("v", kept.after)
    for i = 1, 3 do assert.is_truthy(tostring(kept[i]):find("(closed)", 1, true)) end
    assert.equal(0, db:stat().snapshot_count)
  end)

  it("takes maps and transactions, which go on for all who have them", function()
    if not only_54() then return end
    local run = helper.load([[
      local db = ...
      local users = db:map("users")
      do
        local map <close> = db:map("users")
        local own <close> = db:map("users", { codec = false })
        map.alice, own.bob = "1", "2"
      end
      users.carol = "3"
      return users, db:update(function(tx)
        do
          local same <close> = tx
          local map <close> = tx:map("users")
          same.k, map.dan = "v", "4"
        end
        return tx.k
      end)
    ]])
    local db = helper.store()
    local users, k = run(db)
    assert.equal("v", k)
    assert.equal("v", db.k)
    assert.same({ alice = "1", bob = "2", carol = "3", dan = "4" }, (helper.records(users)))
  end)
end)
