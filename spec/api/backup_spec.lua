-- SPDX-License-Identifier: MIT
--
-- backup: a whole copy of one moment, or nothing.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"

local db, path, folder, target

local function prepare()
  folder = helper.folder()
  path, target = folder .. "/store.mmc", folder .. "/copy.mmc"
  db = helper.store({ durability = "manual" }, path)
end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

local raises = helper.raises

local function fill(store, count, word)
  for i = 1, count do store:put("key " .. i, (word or "value ") .. i) end
end

-- What stands in the folder, but for the store and its lock file.
local function others()
  local names = {}
  for name in helper.run("ls -A %s", folder):gmatch("[^\n]+") do
    if name ~= "store.mmc" and name ~= "store.mmc-lock" then
      names[#names + 1] = name
    end
  end
  return names
end

local function content(name, options)
  local store = helper.store(options or { create = false }, name)
  local records, count = helper.records(store)
  assert.equal(count, #store)
  assert.is_true(store:check())
  store:close()
  return records
end

describe("backup", function()
  before_each(prepare)
  after_each(clean_up)

  it("is a store of its own with all that there is", function()
    fill(db, 3000)
    db:put("", "")
    db:put("large", helper.bytes(700000))
    local wanted = helper.records(db)
    assert.is_true(db:backup(target))
    assert.same({ "copy.mmc" }, others())
    assert.same({}, peers.faults(target))
    assert.same(wanted, content(target))
    assert.same(wanted, (helper.records(db)))
    -- Each goes its own way.
    local copy = helper.store(nil, target)
    copy:put("key 1", "of the copy")
    db:put("key 2", "of the store")
    assert.equal("value 1", db:get("key 1"))
    assert.equal("value 2", copy:get("key 2"))
  end)

  it("of an empty store is empty", function()
    assert.is_true(db:backup(target))
    assert.same({}, content(target))
  end)

  it("has all maps, those too of which nothing is left", function()
    db:map("full"):put("k", "v")
    db:map("cleared"):put("k", "v")
    db:map("cleared"):clear()
    db:map("expired"):put("k", "v", { ttl = 0.001 })
    probe.os.sleep_ms(10)
    assert.is_true(db:backup(target))
    assert.same({}, peers.faults(target))
    local copy = helper.store(nil, target)
    local counts = {}
    for _, name in ipairs(copy:maps()) do counts[name] = #copy:map(name) end
    assert.same({ full = 1, cleared = 0, expired = 0 }, counts)
    assert.equal("v", copy:map("full").k)
  end)

  it("keeps the hash, the permissions, and encoded values", function()
    local name = helper.path()
    local codec = { encode = function(value) return "<" .. value .. ">" end,
      decode = function(text) return text:sub(2, -2) end }
    local store = helper.store({ hash = "siphash", codec = codec, mode = 384 },
      name)
    store:put("k", "v")
    assert.is_true(store:backup(target))
    local copy = helper.store({ codec = codec }, target)
    assert.equal("siphash", copy:stat().hash)
    assert.equal("v", copy:get("k"))
    assert.equal("600", helper.run("stat -c %%a %s", target))
  end)

  it("is compact, however the store was used", function()
    for round = 1, 20 do
      fill(db, 1000, ("x"):rep(80) .. round)
      assert(db:sync())
    end
    assert.is_true(db:backup(target))
    local copy = helper.store(nil, target)
    assert.is_true(copy:size() * 3 < db:size(),
      copy:size() .. " and " .. db:size())
    assert.is_true(copy:size() < 1000 * 160 + 131072, copy:size())
  end)

  it("replaces an older one, at once", function()
    fill(db, 10)
    assert.is_true(db:backup(target))
    local reader = helper.store({ readonly = true, lock = false }, target)
    fill(db, 20)
    assert.is_true(db:backup(target))
    assert.equal(20, #helper.store({ readonly = true }, target))
    assert.equal("value 7", reader:get("key 7"))
    assert.equal(10, #reader)
  end)

  it("tells how far it is", function()
    fill(db, 5000)
    local calls, last, total = 0, 0
    assert.is_true(db:backup(target, function(done, of)
      calls = calls + 1
      assert.is_true(done >= last and done <= of)
      assert.is_false(helper.exists(target))
      last, total = done, of
      db:put("later " .. calls, "v")
    end))
    assert.is_true(calls >= 5)
    assert.equal(5000, last)
    assert.equal(5000, total)
    assert.is_nil(content(target)["later 1"])
  end)

  it("raises what its function raises, and leaves nothing", function()
    fill(db, 3000)
    local problem = {}
    for stop = 1, 4 do
      local calls = 0
      local ok, message = pcall(db.backup, db, target, function()
        calls = calls + 1
        if calls == stop then error(problem) end
      end)
      assert.is_false(ok)
      assert.equal(problem, message)
      assert.same({}, others())
    end
    raises("within a call", db.backup, db, target, function() db:close() end)
    assert.same({}, others())
    assert.equal(0, db:stat().snapshot_count)
    assert.is_true(db:backup(target))
  end)

  it("refuses the store itself, by whatever name", function()
    fill(db, 10)
    helper.run("ln -s store.mmc %s", folder .. "/symbolic.mmc")
    helper.run("ln %s %s", path, folder .. "/hard.mmc")
    for _, name in ipairs { path, folder .. "/../" .. folder:match("[^/]+$")
      .. "/store.mmc", folder .. "/symbolic.mmc", folder .. "/hard.mmc" } do
      raises("the store itself", db.backup, db, name)
    end
    assert.equal("value 3", db:get("key 3"))
    assert.is_true(db:check())
  end)

  it("refuses a file that is no store, and one in use", function()
    fill(db, 10)
    helper.write(target, "precious")
    local done, message, code = db:backup(target)
    assert.is_nil(done)
    assert.equal("EEXIST", code)
    assert.is_truthy(message:find(target, 1, true))
    assert.equal("precious", helper.read(target))
    assert.equal("EEXIST", (select(3, db:backup(path .. "-lock"))))
    assert.equal("EEXIST", (select(3, db:backup(folder))))
    os.remove(target)
    local other = helper.store(nil, target)
    other:put("k", "of another")
    assert.equal("EBUSY", (select(3, db:backup(target))))
    other:close()
    local peer = peers.start(target)
    assert.equal("EBUSY", (select(3, db:backup(target))))
    assert.equal("of another", peer:ask("return db:get('k')"))
    peer:finish()
    assert.is_true(db:backup(target))
    assert.equal("ENOENT",
      (select(3, db:backup(folder .. "/nowhere/copy.mmc"))))
  end)

  it("refuses what is no path or no function", function()
    raises("string expected", db.backup, db)
    raises("path is empty", db.backup, db, "")
    raises("zero byte", db.backup, db, "a\0b")
    raises("function expected", db.backup, db, target, 5)
    db:close()
    raises("closed store", db.backup, db, target)
  end)

  it("does not pass on what is damaged", function()
    fill(db, 100)
    assert(db:sync())
    local file = assert(io.open(path, "r+b"))
    file:seek("set", helper.read(path):find("value 77", 1, true) - 1)
    file:write("V")
    file:close()
    local done, message, code = db:backup(target)
    assert.is_nil(done)
    assert.equal("ECORRUPT", code)
    assert.is_truthy(message:find(path, 1, true))
    assert.is_truthy(message:find("F29", 1, true))
    assert.same({}, others())
  end)

  it("is of one moment while other processes write", function()
    for i = 1, 200 do db:put("key " .. i, 0) end
    local writer = peers.start(path, { open = "{ durability = 'manual' }" })
    writer:tell([[
      for round = 1, 200 do
        for i = 1, 200 do db:put("key " .. i, round) end
        if round % 40 == 0 then db:sync() end
      end
    ]])
    for _ = 1, 8 do
      assert.is_true(db:backup(target))
      local records = content(target)
      local least, most = math.huge, 0
      for _, value in pairs(records) do
        least = math.min(least, tonumber(value))
        most = math.max(most, tonumber(value))
      end
      assert.is_true(most - least <= 1)
      for i = 2, 200 do -- in the order in which they were put
        assert.is_true(tonumber(records["key " .. i])
          <= tonumber(records["key " .. i - 1]))
      end
    end
    writer:answer()
  end)

  it("is made of a store that is only read, and in a child after fork()",
    function()
      fill(db, 50)
      db:sync()
      local child = peers.fork { db = db, target = target }
      assert.equal("true", child:ask("return db:backup(target)"))
      child:finish()
      assert.equal("value 7", content(target)["key 7"])
      os.remove(target)
      local reader = helper.store({ readonly = true }, path)
      assert.is_true(reader:backup(target))
      assert.equal("value 7", content(target)["key 7"])
    end)

  it("that is killed leaves no file of that name", function()
    fill(db, 4000)
    assert(db:close())
    for stop = 1, 5 do
      local peer = peers.start(path)
      peer:tell([[
        local calls, stop = 0, tonumber((...))
        db:backup((path:gsub("store.mmc$", "copy.mmc")), function()
          calls = calls + 1
          if calls == stop then probe.child.raise(9) end
        end)
      ]], stop)
      local _, status = peer:wait()
      assert.equal(9, status)
      assert.is_false(helper.exists(target), "stopped at " .. stop)
      helper.run("rm -f %s", target .. ".new-*")
    end
  end)

  it("leaves the older one whole wherever it dies or fails", function()
    helper.close_all()
    local function attempt(call, prepare_fault)
      local old = assert(probe.store.open(target))
      assert(old:put("k", "older"))
      assert(old:close())
      os.remove(target .. "-lock")
      local text = probe.child.run(function()
        local store = assert(probe.store.open(path, { durability = "manual" }))
        for i = 1, 40 do assert(store:put("key " .. i, "value " .. i)) end
        assert(store:sync())
        prepare_fault()
        local done = store:backup(target)
        return done and "done" or "failed"
      end)
      local copy = assert(probe.store.open(target, { readonly = true,
        lock = false }))
      local records = assert(copy:records())
      assert.same({}, copy:check())
      copy:close()
      if records.k then
        assert.same({ k = "older" }, records)
      else
        assert.equal("value 40", records["key 40"])
      end
      if text == "failed" and call ~= "unlink" then
        assert.same({ "copy.mmc" }, others(), call)
      end
      helper.run("rm -f %s %s-lock", target, target)
      os.execute("rm -f " .. scratch.quoted(target) .. ".new-*")
      return text
    end
    local seen = {}
    local step = os.getenv("MMCMAP_LONG") and 1 or 3
    for _, call in ipairs { "pwrite", "fdatasync", "ftruncate", "rename", "unlink",
      "fsync", "open" } do
      for n = 1, 13, step do
        local text = attempt(call, function() probe.os.die(call, n) end)
        seen[text] = true
        if text == "done" then break end
        seen[attempt(call, function() probe.os.fail(call, n, "EIO") end)] = true
      end
    end
    assert.is_true(seen.done and seen.failed and seen[""])
  end)

  it("fails on a full disk and leaves nothing", function()
    fill(db, 3000, ("x"):rep(100))
    local done, why = scratch.with_small_file_system("200k", function(place)
      local name = place .. "/copy.mmc"
      assert.equal("ENOSPC", (select(3, db:backup(name))))
      assert.equal("", helper.run("ls -A %s", place))
    end)
    if not done then pending(why) end
    assert.is_true(db:backup(target))
  end)

  it("needs no handle afterwards", function()
    fill(db, 10)
    for _ = 1, 30 do assert.is_true(db:backup(target)) end
    assert(db:close())
    assert.is_true(assert(mmcmap.open(target)):remove())
  end)
end)
