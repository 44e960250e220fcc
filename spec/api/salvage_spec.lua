-- SPDX-License-Identifier: MIT
--
-- salvage: what is whole in a damaged file, in a new one.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"

local path, target

local function prepare()
  path, target = helper.path(), helper.path()
end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

-- A closed store with several commits, old versions and deletes: its content.
local function build(large)
  local db = helper.store({ durability = "manual" }, path)
  for round = 1, 5 do
    for i = 1, 200 do
      if (i + round) % 2 == 0 then db:put("key " .. i, "round " .. round .. " " .. i) end
    end
    assert(db:sync())
  end
  for i = 1, 200, 10 do db:delete("key " .. i) end
  if large then db:put("large", helper.bytes(700000)) end
  local records = helper.records(db)
  assert(db:close())
  return records
end

local function salvaged()
  os.remove(target)
  os.remove(target .. "-lock")
  local count, report, code = mmcmap.salvage(path, target)
  if not count then return nil, report, code end
  local db = helper.store({ create = false }, target)
  local records = helper.records(db)
  assert.equal(count, #db)
  assert.is_true(db:check())
  assert(db:close())
  return records, report
end

local function poke(bytes, at, with)
  return bytes:sub(1, at) .. with .. bytes:sub(at + #with + 1)
end

describe("salvage", function()
  before_each(prepare)
  after_each(clean_up)

  it("copies a sound store, and finds nothing", function()
    local wanted = build(true)
    local before = helper.read(path)
    local records, report = salvaged()
    assert.same(wanted, records)
    assert.equal(0, report.count)
    assert.is_true(helper.read(path) == before)
  end)

  it("of an empty store is empty", function()
    helper.store(nil, path):put("k", "v")
    helper.close_all()
    local db = helper.store(nil, path)
    db:delete("k")
    assert(db:close())
    assert.same({}, (salvaged()))
  end)

  it("gets back all records but those that are hit", function()
    local wanted = build(true)
    local bytes = helper.read(path)
    for key, value in pairs(wanted) do
      if #value < 100 and key:find("7$") then
        local at = bytes:find(value, 1, true) - 1
        while true do -- the last that is written is the one that counts
          local further = bytes:find(key .. value, at + 2, true)
          if not further then break end
          at = further - 1 + #key
        end
        helper.write(path, poke(bytes, at, "#"))
        local records, report = salvaged()
        assert.is_true(report.count > 0)
        assert.is_truthy(report[1].rule)
        for other, content in pairs(wanted) do
          if other ~= key then
            assert.is_true(records[other] == content, key .. " hit: " .. other)
          end
        end
        assert.not_equal(value, records[key])
      end
    end
    local at = bytes:find(helper.bytes(700000):sub(1, 50), 1, true) + 5000
    helper.write(path, poke(bytes, at, "##"))
    local records = salvaged()
    wanted.large = nil
    assert.same(wanted, records)
  end)

  it("gets them back whatever bit is flipped", function()
    local wanted = build()
    local bytes, count = helper.read(path), 0
    for key in pairs(wanted) do count = count + (key and 1 or 0) end
    local last = bytes:find("round 5 1", 1, true)
    local seed = tonumber(os.getenv("MMCMAP_SEED") or "") or os.time()
    print("# MMCMAP_SEED=" .. seed)
    math.randomseed(seed)
    for _ = 1, os.getenv("MMCMAP_LONG") and 3000 or 60 do
      local at = math.random(12288, last + 4000)
      local byte = bytes:byte(at + 1)
      local bit = 2 ^ math.random(0, 7)
      local flipped = math.floor(byte / bit) % 2 == 1 and byte - bit or byte + bit
      helper.write(path, poke(bytes, at, string.char(flipped)))
      local records = salvaged()
      local wrong = 0
      for key, value in pairs(wanted) do
        if records[key] ~= value then wrong = wrong + 1 end
      end
      assert.is_true(wrong <= 1, wrong .. " wrong at " .. at)
    end
  end)

  it("does without one superblock, or both", function()
    local wanted = build(true)
    local bytes = helper.read(path)
    for _, places in ipairs { { 100 }, { 8192 + 100 }, { 100, 8192 + 100 } } do
      local damaged = bytes
      for _, at in ipairs(places) do damaged = poke(damaged, at, ("?"):rep(30)) end
      helper.write(path, damaged)
      if #places == 2 then
        local _, message = mmcmap.open(path)
        assert.truthy(message:find("damaged: restore a backup, or salvage it", 1, true), message)
      end
      local records, report = salvaged()
      assert.same(wanted, records)
      assert.is_true(report.count >= #places)
    end
    helper.write(path, poke(bytes, 0, ("\0"):rep(4096)))
    assert.same(wanted, (salvaged()))
  end)

  it("does with what is left of a file that was cut off", function()
    local wanted = build()
    local bytes = helper.read(path)
    helper.write(path, bytes:sub(1, 12288 + 6000))
    local records, report = salvaged()
    assert.is_true(report.count > 0)
    local count = 0
    for key, value in pairs(records) do
      assert.is_truthy(value:find("^round %d " .. key:match("%d+") .. "$"))
      count = count + 1
    end
    assert.is_true(count > 20, count)
    assert.is_truthy(next(wanted))
  end)

  it("reads commits that lie behind a damaged one", function()
    local db = helper.store({ durability = "manual" }, path)
    for i = 1, 30 do
      db:put("key " .. i, "value " .. i)
      assert(db:sync())
    end
    local copy = helper.path()
    helper.run("cp %s %s", path, copy) -- as a power cut leaves it
    assert(db:close())
    local bytes = helper.read(copy)
    helper.write(path, poke(bytes, bytes:find("value 10", 1, true) - 1, "V"))
    os.remove(path .. "-lock")
    local short = helper.store(nil, path)
    assert.equal(9, #short)
    assert(short:close())
    helper.write(path, poke(bytes, bytes:find("value 10", 1, true) - 1, "V"))
    local records = salvaged()
    for i = 1, 30 do
      if i ~= 10 then assert.equal("value " .. i, records["key " .. i]) end
    end
    assert.is_nil(records["key 10"])
  end)

  it("takes the newest version where no trie tells which", function()
    local wanted = build()
    local bytes = helper.read(path)
    local function number(at, size)
      local n = 0
      for i = size, 1, -1 do n = n * 256 + bytes:byte(at + i) end
      return n
    end
    local place = number(72, 8) > number(8192 + 72, 8) and 0 or 8192
    local root = math.floor(number(place + 96, 6) / 2) * 8
    helper.write(path, poke(bytes, root + 15, "\0")) -- its kind
    local records, report = salvaged()
    assert.is_true(report.count > 0)
    for key, value in pairs(wanted) do assert.equal(value, records[key]) end
    assert.is_truthy(records["key 11"]) -- that was deleted
  end)

  -- Three maps, of which one is dropped, in several commits.
  local function build_maps()
    local db = helper.store({ durability = "manual" }, path)
    local wanted = { ["a map with a long name"] = {}, ["another map, too"] = {} }
    for round = 1, 3 do
      for name, records in pairs(wanted) do
        for i = 1, 40 do
          records["key " .. i] = ("%s %d %d"):format(name, round, i)
          db:map(name):put("key " .. i, records["key " .. i])
        end
        db:map(name):delete("key 7")
        records["key 7"] = nil
      end
      db:map("what was dropped"):put("k", "v" .. round)
      db:put("key 1", "of the default map")
      assert(db:sync())
    end
    assert(db:drop("what was dropped"))
    assert(db:close())
    return wanted
  end

  local function salvaged_maps()
    os.remove(target)
    os.remove(target .. "-lock")
    local count, report = assert(mmcmap.salvage(path, target))
    local db, maps, all = helper.store({ create = false }, target), {}, 0
    for _, name in ipairs(db:maps()) do
      maps[name] = helper.records(db:map(name))
      all = all + #db:map(name)
    end
    assert.equal(count, all + #db)
    assert.is_true(db:check())
    assert.equal("of the default map", db:get("key 1"))
    assert(db:close())
    return maps, report
  end

  local function has_lost_names(report)
    local count = 0
    for _, fault in ipairs(report) do
      if fault.rule == "a map has lost its name" then count = count + 1 end
    end
    return count
  end

  it("copies named maps, but for those that were dropped", function()
    local wanted = build_maps()
    local maps, report = salvaged_maps()
    assert.same(wanted, maps)
    assert.equal(0, report.count)
  end)

  it("keeps the maps of which no record is left", function()
    local db = helper.store({ durability = "manual" }, path)
    db:put("key 1", "of the default map")
    db:map("full"):put("", "v")
    db:map("cleared"):put("k", "v")
    db:map("cleared"):clear()
    db:map("dropped"):put("k", "v")
    db:map("expired"):put("k", "v", { ttl = 0.001 })
    assert(db:drop("dropped"))
    assert(db:close())
    probe.os.sleep_ms(10)
    local maps, report = salvaged_maps()
    assert.same({ full = { [""] = "v" }, cleared = {}, expired = {} }, maps)
    assert.equal(0, report.count)
  end)

  it("finds the names of maps in older catalogues, too", function()
    local wanted = build_maps()
    local bytes = helper.read(path)
    -- The newest record of the map in the catalogue.
    local at, from = nil, 1
    while true do
      local found = bytes:find("\0\0a map with a long name", from, true)
      if not found then break end
      at, from = found + 1, found + 1
    end
    helper.write(path, poke(bytes, at, "?"))
    local maps, report = salvaged_maps()
    assert.is_true(report.count > 0)
    assert.equal(0, has_lost_names(report))
    for name, records in pairs(wanted) do
      maps[name]["key 7"] = nil -- the frame that says so is damaged
      assert.same(records, maps[name])
    end
  end)

  it("makes names for maps that have lost theirs, and tells", function()
    local wanted = build_maps()
    local bytes = helper.read(path)
    local damaged = bytes:gsub("a map with a long name(.?.?.?.?)", function(rest)
      -- In a value a number follows.
      return (rest:find("^ %d") and "a" or "?") .. " map with a long name" .. rest
    end)
    helper.write(path, damaged)
    local maps, report = salvaged_maps()
    assert.equal(1, has_lost_names(report))
    local made_up
    for name in pairs(maps) do
      if name:find("^salvaged map %d+$") then made_up = name end
    end
    for key, value in pairs(wanted["a map with a long name"]) do
      assert.equal(value, maps[made_up][key])
    end
    maps["another map, too"]["key 7"] = nil
    assert.same(wanted["another map, too"], maps["another map, too"])
  end)

  it("refuses what it cannot read, and what would be overwritten", function()
    local function code_of(from, to)
      local count, message, code = mmcmap.salvage(from, to)
      assert.is_nil(count)
      assert.equal("string", type(message))
      return code
    end
    build()
    assert.equal("ENOENT", code_of(helper.path(), target))
    assert.equal("EEXIST", code_of(path, path))
    helper.write(target, "precious")
    assert.equal("EEXIST", code_of(path, target))
    assert.equal("precious", helper.read(target))
    os.remove(target)
    for _, content in ipairs { "", "short", ("x"):rep(70000), ("\0"):rep(70000) } do
      assert.equal("EFORMAT", code_of(helper.write(helper.path(), content), target))
      assert.is_false(helper.exists(target))
    end
    local db = helper.store(nil, path)
    assert.equal("EBUSY", code_of(path, target))
    assert(db:close())
    assert.equal("ENOENT", code_of(path, helper.path() .. "/nowhere/x.mmc"))
    assert.has_error(function() mmcmap.salvage() end)
    assert.has_error(function() mmcmap.salvage(path) end)
    assert.has_error(function() mmcmap.salvage("", target) end)
    assert.has_error(function() mmcmap.salvage(path, "a\0b") end)
    assert.is_false(helper.exists(target))
  end)

  it("takes the corpus, and noise", function()
    local make_corpus = require "spec.support.make_corpus"
    local folder = os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/corpus/"
    local files = make_corpus.make_bad(function(name)
      return helper.read(folder .. name .. ".mmc")
    end)
    for _, file in ipairs(files) do
      helper.write(path, make_corpus.padded(file.bytes))
      os.remove(target)
      local count, report = mmcmap.salvage(path, target)
      assert.is_true(count == nil or count > 0 or report.count > 0, file.name)
      if count then assert.is_true(helper.store(nil, target):check()) end
      helper.close_all()
      os.remove(target .. "-lock")
    end
  end)
end)
