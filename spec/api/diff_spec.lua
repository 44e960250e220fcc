-- SPDX-License-Identifier: MIT
--
-- diff: what differs between two snapshots, and nothing else.

local helper = require "spec.support.helper"
local peers = require "spec.support.peers"

local db, path

local function prepare()
  path = helper.path()
  db = helper.store({ durability = "manual" }, path)
end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

local raises = helper.raises

-- {key = {old, new}} by a loop; false stands for nil.
local function differences(a, b, store)
  local found = {}
  for key, old, new in (store or db):diff(a, b) do
    assert.is_nil(found[key], key)
    assert.is_truthy(old or new)
    found[key] = { old or false, new or false }
  end
  return found
end

-- The same of two tables.
local function expected(a, b)
  local wanted = {}
  for key, old in pairs(a) do
    if b[key] ~= old then wanted[key] = { old, b[key] or false } end
  end
  for key, new in pairs(b) do
    if a[key] == nil then wanted[key] = { false, new } end
  end
  return wanted
end

describe("diff", function()
  before_each(prepare)
  after_each(clean_up)

  it("tells what is new, changed and gone", function()
    for i = 1, 500 do db:put("key " .. i, "value " .. i) end
    local a = db:snapshot()
    db:put("new", "n")
    db:put("key 1", "changed")
    db:delete("key 2")
    local b = db:snapshot()
    db:put("key 3", "later")
    assert.same({ new = { false, "n" }, ["key 1"] = { "value 1", "changed" },
      ["key 2"] = { "value 2", false } }, differences(a, b))
    assert.same({ new = { "n", false }, ["key 1"] = { "changed", "value 1" },
      ["key 2"] = { false, "value 2" } }, differences(b, a))
  end)

  it("of the same is nothing", function()
    for i = 1, 100 do db:put("key " .. i, "value " .. i) end
    local a, b = db:snapshot(), db:snapshot()
    assert.same({}, differences(a, a))
    assert.same({}, differences(a, b))
  end)

  it("leaves out what is as it was, however it came to be", function()
    for i = 1, 300 do db:put("key " .. i, "value " .. i) end
    db:put("large", ("x"):rep(400000))
    db:put("empty", "")
    local a = db:snapshot()
    for i = 1, 300 do
      if i % 2 == 0 then db:put("key " .. i, "other") else db:delete("key " .. i) end
    end
    db:delete("large")
    db:delete("empty")
    local count = 0
    for _ in db:diff(a, db:snapshot()) do count = count + 1 end
    assert.equal(302, count)
    for i = 300, 1, -1 do db:put("key " .. i, "value " .. i) end
    db:put("large", ("x"):rep(400000))
    db:put("empty", "")
    assert.same({}, differences(a, db:snapshot()))
    db:put("large", ("x"):rep(399999) .. "y")
    local found = differences(a, db:snapshot())
    assert.is_true(found.large[2] == ("x"):rep(399999) .. "y")
    assert.is_true(found.large[1] == ("x"):rep(400000))
    found.large = nil
    assert.same({}, found)
  end)

  it("goes from nothing, to nothing, and by single records", function()
    local nothing = db:snapshot()
    db:put("a", "1")
    local one = db:snapshot()
    db:delete("a")
    db:put("b", "2")
    local other = db:snapshot()
    for i = 1, 200 do db:put("key " .. i, i) end
    local many = db:snapshot()
    assert.same({}, differences(nothing, nothing))
    assert.same({ a = { false, "1" } }, differences(nothing, one))
    assert.same({ a = { "1", false } }, differences(one, nothing))
    assert.same({ a = { "1", false }, b = { false, "2" } },
      differences(one, other))
    local content = helper.records(many)
    assert.same(expected({}, content), differences(nothing, many))
    assert.same(expected(content, {}), differences(many, nothing))
    assert.same(expected({ a = "1" }, content), differences(one, many))
    assert.same(expected(content, { a = "1" }), differences(many, one))
    assert.same(expected({ b = "2" }, content), differences(other, many))
  end)

  it("is right for any pair of many random moments", function()
    local seed = tonumber(os.getenv("MMCMAP_SEED") or "") or os.time()
    print("# MMCMAP_SEED=" .. seed)
    math.randomseed(seed)
    local moments, contents, content = {}, {}, {}
    for i = 1, 25 do
      local changes = math.random(0, i % 5 == 0 and 2000 or 30)
      for _ = 1, changes do
        local key = "key " .. math.random(1, 600)
        if math.random(3) == 1 then
          db:delete(key)
          content[key] = nil
        else
          content[key] = "value " .. math.random(1, 3)
          db:put(key, content[key])
        end
      end
      if i % 4 == 0 then assert(db:sync()) end
      moments[i] = db:snapshot()
      contents[i] = {}
      for key, value in pairs(content) do contents[i][key] = value end
    end
    for _ = 1, 60 do
      local a, b = math.random(1, 25), math.random(1, 25)
      assert.same(expected(contents[a], contents[b]),
        differences(moments[a], moments[b]))
    end
  end)

  it("is right across sessions", function()
    for i = 1, 100 do db:put("key " .. i, i) end
    assert(db:close())
    db = helper.store({ durability = "manual" }, path)
    local a = db:snapshot()
    db:put("key 5", "changed")
    assert.same({ ["key 5"] = { "5", "changed" } },
      differences(a, db:snapshot()))
  end)

  it("is right while another process writes", function()
    for i = 1, 400 do db:put("key " .. i, 0) end
    local writer = peers.start(path, { open = "{ durability = 'manual' }" })
    writer:tell([[
      for round = 1, 60 do
        for i = 1, 400 do db:put("key " .. i, round) end
        for i = 1, 400, 3 do db:delete("key " .. i) end
        if round % 10 == 0 then db:sync() end
      end
    ]])
    local before = db:snapshot()
    for _ = 1, 40 do
      local after = db:snapshot()
      assert.same(expected(helper.records(before), (helper.records(after))),
        differences(before, after))
      before:close()
      before = after
    end
    writer:answer()
  end)

  it("decodes with the codec, whose errors reach the loop", function()
    local codec = { encode = tostring, decode = function(text)
      if text == "bad" then error("cannot decode", 0) end
      return { text }
    end }
    local other = helper.store { codec = codec }
    other:put("k", 1)
    other:put("gone", 2)
    local a = other:snapshot()
    other:put("k", 3)
    other:delete("gone")
    other:put("new", 4)
    assert.same({ k = { { "1" }, { "3" } }, gone = { { "2" }, false },
      new = { false, { "4" } } }, differences(a, other:snapshot(), other))
    other:put("k", "bad")
    raises("cannot decode", differences, a, other:snapshot(), other)
    assert.equal("1", other:view(function() return a:get("k")[1] end))
  end)

  it("takes snapshots of another handle of the same file", function()
    db:put("k", "v")
    local a = db:snapshot()
    local other = helper.store(nil, path)
    other:put("k", "w")
    assert.same({ k = { "v", "w" } }, differences(a, other:snapshot()))
    local next_change, state = db:diff(a, other:snapshot())
    other:close()
    raises("closed", next_change, state)
  end)

  it("refuses what is no pair of snapshots of one store", function()
    local a = db:snapshot()
    raises("mmcmap.snapshot expected", db.diff, db)
    raises("mmcmap.snapshot expected", db.diff, db, a)
    raises("mmcmap.snapshot expected, got mmcmap", db.diff, db, a, db)
    raises("mmcmap.snapshot expected", db.diff, db, io.stdout, a)
    raises("mmcmap expected", db.diff, a, a, a)
    local other = helper.store()
    raises("two stores", db.diff, db, a, other:snapshot())
    local b = db:snapshot()
    b:close()
    raises("closed snapshot", db.diff, db, a, b)
    raises("closed snapshot", db.diff, db, b, a)
    db:close()
    raises("closed store", db.diff, db, a, a)
  end)

  it("returns what a loop needs, and says what it is", function()
    db:put("k", "v")
    local a = db:snapshot()
    db:put("k", "w")
    local next_change, state, first, closed = db:diff(a, db:snapshot())
    assert.equal("function", type(next_change))
    assert.is_nil(first)
    assert.equal(state, closed)
    assert.equal("mmcmap.diff (" .. path .. ")", tostring(state))
    assert.same({ "k", "v", "w" }, { next_change(state) })
    assert.is_nil(next_change(state))
    assert.is_nil(next_change(state))
    assert.equal("mmcmap.diff (closed)", tostring(state))
    raises("mmcmap.diff expected", next_change)
    raises("mmcmap.diff expected", next_change, db)
    raises("mmcmap.diff expected", state.close, a)
  end)

  it("ends with either snapshot, or the store, and says so", function()
    for i = 1, 10 do db:put("key " .. i, i) end
    for which = 1, 2 do
      local a = db:snapshot()
      for i = 1, 10 do db:put("key " .. i, which .. i) end
      local b = db:snapshot()
      local next_change, state = db:diff(a, b)
      next_change(state)
      if which == 1 then a:close() else b:close() end
      raises("a snapshot is closed", next_change, state)
      state:close()
      raises("a snapshot is closed", next_change, state)
      if which == 1 then b:close() else a:close() end
    end
    local a = db:snapshot()
    db:put("key 1", "x")
    local next_change, state = db:diff(a, db:snapshot())
    state:close()
    state:close()
    raises("closed diff", next_change, state)
    next_change, state = db:diff(a, a)
    db:close()
    raises("the store is closed", next_change, state)
  end)

  it("keeps its snapshots until it is collected", function()
    for i = 1, 300 do db:put("key " .. i, i) end
    local function loop()
      local a = db:snapshot()
      for i = 1, 300 do db:put("key " .. i, "new " .. i) end
      return db:diff(a, db:snapshot())
    end
    local count = 0
    for _ in loop() do
      count = count + 1
      if count % 60 == 0 then collectgarbage() end
    end
    assert.equal(300, count)
    do
      local next_change, state = loop()
      next_change(state)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(0, db:stat().snapshot_count)
  end)

  it("works with a step of the collector after each call", function()
    collectgarbage("stop")
    local before = db:snapshot()
    for i = 1, 40 do
      for j = 1, 20 do db:put("key " .. j, ("x"):rep(i * j)) end
      local after, count = db:snapshot(), 0
      for key, old, new in db:diff(before, after) do
        collectgarbage("step")
        count = count + 1
        local j = tonumber(key:match("%d+"))
        assert.equal(i * j, #new)
        assert.equal((i - 1) * j, old and #old or 0)
      end
      assert.equal(20, count)
      before = after
      collectgarbage("step")
    end
    collectgarbage("restart")
  end)

  it("raises in a child after fork()", function()
    db:put("k", "v")
    local a = db:snapshot()
    db:put("k", "w")
    local next_change, state = db:diff(a, db:snapshot())
    local child = peers.fork { next_change = next_change, state = state,
      db = db, a = a }
    assert.is_truthy(child:ask("return pcall(next_change, state)")
      :find("^false .*fork"))
    assert.is_truthy(child:ask("return pcall(db.diff, db, a, a)")
      :find("^false .*fork"))
    child:ask("state:close() a:close()")
    child:finish()
    assert.equal("k", (next_change(state)))
  end)

  it("raises when a snapshot has become too old", function()
    local other = helper.store({ max_snapshot_age = 0.02 }, path)
    other:put("k", "v")
    local a = other:snapshot()
    other:put("k", "w")
    local next_change, state = other:diff(a, other:snapshot())
    require("mmcmap_probe").os.sleep_ms(40)
    raises("max_snapshot_age", next_change, state)
    assert.is_nil(next_change(state))
  end)
end)
