-- SPDX-License-Identifier: MIT
--
-- pairs and keys: each record once, at one moment, whatever else happens.

local helper = require "spec.support.helper"

describe("iteration", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store(nil, path)
  end)
  after_each(helper.close_all)

  local function fill(count)
    for i = 1, count do db:put("key " .. i, "value " .. i) end
  end

  local function snapshots() return db:stat().snapshot_count end

  it("over nothing ends at once", function()
    for _ in db:pairs() do error("a record?") end
    for _ in db:keys() do error("a key?") end
    assert.equal(0, snapshots())
  end)

  it("gives every one of 10,000 records exactly once", function()
    fill(10000)
    local seen, count = {}, 0
    for key, value in db:pairs() do
      assert.is_nil(seen[key])
      seen[key] = value
      count = count + 1
    end
    assert.equal(10000, count)
    for i = 1, 10000 do assert.equal("value " .. i, seen["key " .. i]) end
    assert.equal(0, snapshots())
  end)

  it("gives every key exactly once, and no values", function()
    fill(2000)
    local seen, count = {}, 0
    for key, value in db:keys() do
      assert.is_nil(value)
      assert.is_nil(seen[key])
      seen[key] = true
      count = count + 1
    end
    assert.equal(2000, count)
    for i = 1, 2000 do assert.is_true(seen["key " .. i]) end
  end)

  it("is what pairs() does where Lua asks for it", function()
    if not helper.has_pairs_metamethod then
      pending("this Lua's pairs knows no __pairs")
      return
    end
    fill(100)
    local count = 0
    for key, value in pairs(db) do
      assert.equal(value, db:get(key))
      count = count + 1
    end
    assert.equal(100, count)
  end)

  it("returns a function, a state, nil and what closes it", function()
    fill(1)
    local next_record, state, first, closed = db:pairs()
    assert.equal("function", type(next_record))
    assert.equal("userdata", type(state))
    assert.is_nil(first)
    assert.equal(state, closed)
    assert.equal("mmcmap.iterator (" .. path .. ")", tostring(state))
    assert.equal("key 1", (next_record(state, nil)))
    assert.is_nil(next_record(state, "key 1"))
    assert.is_nil(next_record(state)) -- and again
    assert.equal("mmcmap.iterator (closed)", tostring(state))
  end)

  it("sees the store as it was at the call", function()
    fill(500)
    local next_record, state = db:pairs()
    for i = 1, 500, 2 do db:delete("key " .. i) end
    for i = 2, 500, 2 do db:put("key " .. i, "changed") end
    for i = 501, 900 do db:put("key " .. i, "new") end
    db:sync()
    local seen, count = {}, 0
    for key, value in next_record, state do
      seen[key] = value
      count = count + 1
    end
    assert.equal(500, count)
    for i = 1, 500 do assert.equal("value " .. i, seen["key " .. i]) end
    assert.equal(650, #db)
    assert.equal("changed", db:get("key 2"))
  end)

  it("lets the loop delete and write", function()
    fill(3000)
    local count = 0
    for key in db:pairs() do
      count = count + 1
      assert.is_true(db:delete(key))
      db:put("new " .. key, "x")
      db:put("new " .. key, "y")
    end
    assert.equal(3000, count)
    assert.equal(3000, #db)
    for key, value in db:pairs() do
      assert.equal("new ", key:sub(1, 4))
      assert.equal("y", value)
    end
  end)

  it("can be nested", function()
    fill(30)
    local count = 0
    for key in db:keys() do
      for other in db:keys() do
        count = count + (key == other and 1 or 0)
      end
    end
    assert.equal(30, count)
    assert.equal(0, snapshots())
  end)

  it("mixes several at different moments", function()
    local iterators = {}
    for i = 1, 20 do
      db:put("k" .. i, "v")
      local next_record, state = db:pairs()
      iterators[i] = { next_record, state }
    end
    assert.equal(20, snapshots())
    for i = 20, 1, -1 do
      local count = 0
      for _ in iterators[i][1], iterators[i][2] do count = count + 1 end
      assert.equal(i, count)
    end
    assert.equal(0, snapshots())
  end)

  it("lets go of its snapshot when it is closed early", function()
    fill(10)
    local next_record, state = db:pairs()
    next_record(state)
    assert.equal(1, snapshots())
    state:close()
    state:close()
    assert.equal(0, snapshots())
    local ok, message = pcall(next_record, state)
    assert.is_false(ok)
    assert.is_truthy(message:find("closed iterator", 1, true))
  end)

  it("lets go of its snapshot when it is collected", function()
    fill(10)
    for _ in db:pairs() do break end -- luacheck: ignore 512
    for _ in db:keys() do break end -- luacheck: ignore 512
    pcall(function()
      for _ in db:pairs() do error("left by an error") end
    end)
    collectgarbage()
    collectgarbage()
    assert.equal(0, snapshots())
  end)

  it("lets go of its snapshot at break, return and error in Lua 5.4",
    function()
      if not helper.has_to_be_closed then
        pending("only Lua 5.4 closes the state of a loop")
        return
      end
      fill(10)
      collectgarbage("stop")
      for _ in db:pairs() do break end -- luacheck: ignore 512
      for _ in db:keys() do break end -- luacheck: ignore 512
      assert.equal(0, snapshots())
      local function first()
        for key in db:keys() do return key end -- luacheck: ignore 512
      end
      assert.equal("string", type(first()))
      assert.is_false(pcall(function()
        for _ in db:pairs() do error("left by an error") end
      end))
      assert.equal(0, snapshots())
      collectgarbage("restart")
    end)

  it("runs in a coroutine that may be left", function()
    fill(10)
    local co = coroutine.wrap(function()
      for key in db:keys() do coroutine.yield(key) end
    end)
    assert.equal("string", type(co()))
    assert.equal("string", type(co()))
    assert.equal(1, snapshots())
    co = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.equal(0, snapshots())
  end)

  it("ends when the store is closed, and says so", function()
    fill(10)
    local next_record, state = db:pairs()
    next_record(state)
    db:close()
    local ok, message = pcall(next_record, state)
    assert.is_false(ok)
    assert.is_truthy(message:find("the store is closed", 1, true))
    state:close()
    assert.is_false(pcall(next_record, state))
  end)

  it("ends when the loop closes the store", function()
    fill(10)
    local count = 0
    local ok, message = pcall(function()
      for _ in db:pairs() do
        count = count + 1
        db:close()
      end
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("the store is closed", 1, true))
    assert.equal(1, count)
  end)

  it("keeps its store alive", function()
    fill(1000)
    local next_record, state = db:pairs()
    db = nil
    local count = 0
    for _ in next_record, state do
      count = count + 1
      if count % 100 == 0 then collectgarbage() end
    end
    assert.equal(1000, count)
    assert.equal("mmcmap.iterator (closed)", tostring(state))
  end)

  it("does not take other things for iterators", function()
    local next_record, state = db:pairs()
    assert.has_error(function() next_record() end)
    assert.has_error(function() next_record({}) end)
    assert.has_error(function() next_record(db) end)
    assert.has_error(function() next_record(io.stdout) end)
    assert.has_error(function() state.close("x") end)
    state:close()
  end)

  it("gives large records whole", function()
    local value = helper.bytes(1300000)
    db:put("large", value)
    for i = 1, 20 do db:put("small " .. i, i) end
    local records, count = helper.records(db)
    assert.equal(21, count)
    assert.is_true(records.large == value)
    assert.equal("20", records["small 20"])
  end)
end)
