-- SPDX-License-Identifier: MIT
--
-- Snapshots that are kept in the file, and the maps of snapshots, as Lua sees them.

local mmcmap = require "mmcmap"
local helper = require "spec.support.helper"
local probe = require "mmcmap_probe"

local fails, raises = helper.fails, helper.raises

-- {{key, old, new}, ...}, as a loop meets them.
local function differences(db, a, b)
  local found = {}
  for key, old, new in db:diff(a, b) do found[#found + 1] = { key, old, new } end
  return found
end

describe("a snapshot with a name", function()
  local db, path

  before_each(function()
    path = helper.path()
    -- So large at most: then segments are small, and soon used again.
    db = helper.store({ durability = "manual", max_size = 16777216 }, path)
  end)
  after_each(helper.close_all)

  it("is kept until it is dropped", function()
    db.k = "1"
    db:map("m").k = "of the map"
    assert.is_true(db:snapshot("a"))
    db.k = "2"
    db:drop("m")
    assert(db:close())
    db = helper.store(nil, path)
    local snap = assert(db:open_snapshot("a"))
    assert.equal("1", snap.k)
    assert.equal("1", snap:get("k"))
    assert.equal(1, #snap)
    assert.is_true(snap:has("k"))
    assert.same({ k = "1" }, snap:get_many { "k", "x" })
    assert.same({ k = "1" }, (helper.records(snap)))
    assert.same({ "m" }, snap:maps())
    assert.equal("of the map", snap:map("m").k)
    assert.same({}, db:maps())
    assert.same({ { "k", "1", "2" } }, differences(db, snap, assert(db:snapshot())))
    snap:close()
    assert.is_true(db:drop_snapshot("a"))
    assert.is_false(db:drop_snapshot("a"))
    local message = fails("ENOENT", db:open_snapshot("a"))
    assert.is_truthy(message:find(
      "it does not exist (no snapshot of that name)", 1, true), message)
    assert.is_true(db:check())
  end)

  it("is listed with its time, version and count", function()
    assert.same({}, db:snapshots())
    local begin = os.time()
    for i = 1, 30 do
      db["k" .. i] = i
      assert(db:snapshot("s\0" .. i))
    end
    local list = db:snapshots()
    assert.equal(30, #list)
    table.sort(list, function(a, b) return a.count < b.count end)
    for i, saved in ipairs(list) do
      assert.equal("s\0" .. i, saved.name)
      assert.equal(i, saved.count)
      assert.is_true(saved.time >= begin - 1 and saved.time <= os.time() + 1)
      assert.is_true(i == 1 or saved.version > list[i - 1].version)
      local snap = assert(db:open_snapshot(saved.name))
      assert.equal(saved.version, snap:version())
      assert.equal(i, #snap)
      snap:close()
    end
  end)

  it("is made once", function()
    db.k = "1"
    assert(db:snapshot(7)) -- a number is its text
    db.k = "2"
    local message = fails("EEXIST", db:snapshot("7"))
    assert.is_truthy(message:find("a snapshot of that name", 1, true), message)
    assert.equal("1", db:open_snapshot("7").k)
    local why = fails("ETOOBIG", db:snapshot(("n"):rep(65536)))
    assert.is_truthy(why:find("(name of a snapshot)", 1, true), why)
  end)

  it("stays what it is among changes of all kinds, and an update", function()
    db.k = "1"
    db:update(function(tx)
      tx.k = "2"
      raises("inside its own update", db.snapshot, db, "a")
      raises("inside its own update", db.drop_snapshot, db, "a")
      assert.same({}, db:snapshots())
    end)
    for i = 1, 300 do db["key " .. i] = ("v"):rep(1000) end
    local wanted = helper.records(db)
    assert(db:snapshot("a"))
    local snap = assert(db:open_snapshot("a"))
    db:clear()
    db:put_many { k = "3", l = "4" }
    assert(db:drop_snapshot("a"))
    collectgarbage()
    -- What only it needs would be used again by now.
    for round = 1, 3 do
      for i = 1, 300 do db["key " .. i] = ("w"):rep(1000) .. round end
      assert.is_true(db:compact())
    end
    assert.same(wanted, (helper.records(snap)))
    local size = db:size()
    snap:close()
    assert.is_true(db:compact())
    assert.is_true(db:size() < size)
  end)

  it("ends when it is older than it may become", function()
    local other = helper.store({ max_snapshot_age = 0.02 }, path)
    db.k = "1"
    assert(db:snapshot("a"))
    local snap = assert(other:open_snapshot("a"))
    probe.os.sleep_ms(40)
    local message = fails("EEXPIRED", snap:get("k"))
    assert.is_truthy(message:find(path, 1, true))
    fails("EEXPIRED", snap:has("k"))
    raises("max_snapshot_age", function() return snap.k end)
    snap:close()
    -- What is saved is still there.
    assert.equal("1", db:open_snapshot("a").k)
  end)

  it("ends with its store, and when it is closed", function()
    db.k = "1"
    assert(db:snapshot("a"))
    local one, other = db:open_snapshot("a"), db:open_snapshot("a")
    one:close()
    raises("closed snapshot", one.get, one, "k")
    assert.equal("1", other.k)
    db:close()
    raises("the store is closed", other.get, other, "k")
    raises("closed", db.snapshots, db)
    raises("closed", db.open_snapshot, db, "a")
    raises("closed", db.drop_snapshot, db, "a")
    raises("closed", db.snapshot, db, "a")
  end)

  it("is misused with an error", function()
    raises("string expected, got table", db.snapshot, db, {})
    raises("string expected, got no value", db.open_snapshot, db)
    raises("string expected, got boolean", db.drop_snapshot, db, true)
    raises("mmcmap expected", db.snapshots, {})
    local readonly = helper.store({ readonly = true }, path)
    fails("EREADONLY", readonly:snapshot("a"))
    fails("EREADONLY", readonly:drop_snapshot("a"))
  end)

  -- Else all of them would stay where they are until it is dropped.
  it("does not hold large values that came later, after the next opening either", function()
    db.k = "1"
    assert.is_true(db:snapshot("a"))
    for i = 1, 20 do db["large " .. i] = ("l"):rep(200000) end
    local before = db:stat()
    assert(db:close())
    db = helper.store(nil, path)
    db.k = "2"
    for _ = 1, 20 do
      assert(db:step(1))
      if db:stat().uncounted_segments == 0 then break end
    end
    assert.equal(0, db:stat().uncounted_segments)
    assert.is_true(db:stat().held_segments <= before.held_segments + 2,
      db:stat().held_segments .. ", were " .. before.held_segments)
  end)

  it("is found by another process", function()
    db.k = "1"
    assert(db:snapshot("a"))
    db.k = "2"
    assert.equal("1 2 a\n", (helper.child([[
      local db = assert(mmcmap.open((...)))
      print(db:open_snapshot("a").k, db.k, db:snapshots()[1].name)
      assert(db:snapshot("of the child"))
    ]], path):gsub("\t", " ")))
    assert.equal("2", db:open_snapshot("of the child").k)
  end)

  it("goes through a codec", function()
    local coded = helper.store({ codec = {
      encode = function(value) return "<" .. value .. ">" end,
      decode = function(text) return text:sub(2, -2) end } })
    coded.k = "v"
    assert(coded:snapshot("a"))
    coded.k = nil
    assert.equal("v", coded:open_snapshot("a").k)
    assert.equal('"k" = "<v>"', mmcmap.dump(coded:open_snapshot("a"))
      :match('"k" = "[^"]*"'))
  end)
end)

describe("a map of a snapshot", function()
  local db

  before_each(function()
    db = helper.store()
    db.k = "default"
    db:map("m").k = "1"
    db:map("\0").k = "2"
  end)
  after_each(helper.close_all)

  it("is as it was then", function()
    local snap = assert(db:snapshot())
    db:map("m").k = "changed"
    db:drop("\0")
    local map, other = assert(snap:map("m")), assert(snap:map("\0"))
    assert.equal("1", map.k)
    assert.equal("1", map:get("k"))
    assert.equal("2", other.k)
    assert.equal(1, #map)
    assert.same({ k = "1" }, (helper.records(map)))
    assert.equal(0, #snap:map("nobody's"))
    local names = snap:maps()
    table.sort(names)
    assert.same({ "\0", "m" }, names)
    assert.same({ { "k", "1", "changed" } },
      differences(db, map, db:snapshot():map("m")))
  end)

  it("keeps its snapshot, and ends with it", function()
    local map = db:snapshot():map("m")
    collectgarbage()
    collectgarbage()
    assert.equal("1", map.k)
    local snap = db:snapshot()
    map = snap:map("m")
    local keys, it = map:keys()
    snap:close()
    raises("closed snapshot", map.get, map, "k")
    raises("snapshot is closed", keys, it)
    snap = db:snapshot()
    map = snap:map("m")
    map:close()
    assert.equal("default", snap.k)
    map = snap:map("m")
    db:close()
    raises("the store is closed", map.get, map, "k")
  end)

  it("is misused with an error", function()
    local snap = db:snapshot()
    raises("string expected", snap.map, snap)
    raises("snapshot expected", snap.map, db, "m")
    raises("snapshot expected", snap.maps, {})
    snap:close()
    raises("closed snapshot", snap.map, snap, "m")
    raises("closed snapshot", snap.maps, snap)
  end)
end)
