-- SPDX-License-Identifier: MIT
--
-- check: what it finds, and that it never takes for damage what others do
-- meanwhile.

local helper = require "spec.support.helper"
local make_corpus = require "spec.support.make_corpus"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"

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

local function sound(store)
  local ok, message, report = store:check()
  assert.is_true(ok, message and message .. " " .. tostring(report))
end

local function fill(store, count)
  for i = 1, count do store:put("key " .. i, "value " .. i) end
end

-- Changes bytes of a file that is open, as damage to the medium would.
local function poke(file, at, bytes)
  assert(file:seek("set", at))
  assert(file:write(bytes))
  assert(file:flush())
end

describe("check", function()
  before_each(prepare)
  after_each(clean_up)

  it("finds sound stores sound", function()
    sound(db)
    fill(db, 2000)
    sound(db)
    assert(db:sync())
    sound(db)
    db:put("large", ("x"):rep(3000000))
    for i = 1, 500 do db:delete("key " .. i) end
    sound(db)
    assert(db:sync())
    db:put("k", "v")
    sound(db)
    assert(db:close())
    for _, options in ipairs { {}, { readonly = true },
      { readonly = true, lock = false } } do
      local other = helper.store(options, path)
      sound(other)
      assert(other:close())
    end
  end)

  it("finds a store sound after its processes were killed", function()
    local peer = peers.start(path, { open = "{ durability = 'manual' }" })
    assert(db:close())
    peer:ask([[for i = 1, 3000 do db:put("key " .. i, i) end db:sync()]])
    peer:ask([[for i = 1, 3000 do db:put("key " .. i, -i) end]])
    peer:kill()
    db = helper.store(nil, path)
    sound(db)
    assert.equal(3000, #db)
    db:put("k", "v")
    sound(db)
  end)

  it("changes nothing", function()
    fill(db, 300)
    assert(db:close())
    local before = helper.read(path)
    db = helper.store({ durability = "manual" }, path)
    local version = db:version()
    sound(db)
    assert.is_true(helper.read(path) == before)
    assert.equal(version, db:version())
    assert.equal(0, db:stat().snapshot_count)
    assert(db:close())
    assert.is_true(helper.read(path) == before)
  end)

  it("tells how far it is", function()
    fill(db, 20000)
    assert(db:sync())
    local calls, last, total = 0, 0
    assert.is_true(db:check(function(done, of)
      calls = calls + 1
      assert.is_true(done >= last and done <= of)
      assert.equal(total or of, of)
      last, total = done, of
      db:get("key " .. calls)
      db:put("key " .. calls, "changed")
    end))
    assert.is_true(calls > 10, calls)
    assert.equal(total, last)
  end)

  it("raises what its function raises, and goes on working", function()
    fill(db, 5000)
    local problem = {}
    local ok, message = pcall(db.check, db, function() error(problem) end)
    assert.is_false(ok)
    assert.equal(problem, message)
    assert.equal(0, db:stat().snapshot_count)
    sound(db)
    raises("within a call", db.check, db, function() db:close() end)
    raises("within a call", db.check, db, function() db:remove() end)
    raises("within a call", db.check, db, function() getmetatable(db).__gc(db) end)
    sound(db)
    assert.is_true(db:check(function() collectgarbage("step") end))
    raises("function expected", db.check, db, true)
    db:close()
    raises("closed store", db.check, db)
  end)

  it("is no false alarm while other processes write", function()
    for _, level in ipairs { "manual", "async", "sync" } do
      local name = helper.path()
      local store = helper.store({ durability = level }, name)
      fill(store, 500)
      local crowd = {}
      for i = 1, 2 do
        crowd[i] = peers.start(name, { open = ("{ durability = '%s',"
          .. " flush_interval = 0.005 }"):format(level) })
        crowd[i]:tell([[
          local rounds, me = ...
          for round = 1, tonumber(rounds) do
            for i = 1, 100 do
              db:put("key " .. i, ("x"):rep(i) .. round)
              if i % 7 == 0 then db:delete("key " .. i) end
            end
            if round % 5 == 0 then
              db:sync()
              db:put("large " .. me, ("y"):rep(300000))
            end
          end
        ]], level == "sync" and 4 or 60, i)
      end
      for _ = 1, 25 do sound(store) end
      for i = 1, 2 do crowd[i]:answer() end
      sound(store)
      for i = 1, 2 do crowd[i]:finish() end
      assert(store:close())
      assert.same({}, peers.faults(name))
    end
  end)

  -- What recovery would come to was once looked for in the file as it was when the
  -- check began.
  it("is no false alarm when the file grows meanwhile", function()
    fill(db, 3000)
    assert(db:sync())
    local grown = 0
    assert(db:check(function()
      if grown == 20 then return end
      grown = grown + 1
      db:put("large " .. grown, ("y"):rep(300000))
      db:put("long " .. grown, ("y"):rep(200000))
      assert(db:sync())
    end))
    assert.is_true(grown > 0)
  end)

  -- The frame that the transaction closes is of its epoch, and holds older nodes too.
  it("is no false alarm in an update, or after one whose process has died", function()
    fill(db, 100)
    db:update(function(tx)
      for i = 1, 3000 do tx["new " .. i] = ("v"):rep(500) end
      assert(db:check())
    end)
    local peer = peers.start(path, { open = "{ durability = 'manual' }" })
    peer:count([[
      db:update(function(tx)
        for i = 1, 3000 do tx["newer " .. i] = ("v"):rep(500) end
        reports(1)
        while true do probe.os.sleep_ms(100) end
      end)
    ]], 1)
    peer:kill()
    assert(db:check())
    assert(db:put("k", "v"))
    assert(db:check())
    assert(db:sync())
    assert(db:check())
  end)

  it("finds damage, and says what and where", function()
    fill(db, 300)
    db:put("large", ("z"):rep(400000))
    assert(db:sync())
    local bytes = helper.read(path)
    local file = assert(io.open(path, "r+b"))
    local at = bytes:find("value 77", 1, true) - 1
    poke(file, at, "V")
    local ok, message, report = db:check()
    assert.is_nil(ok)
    assert.is_truthy(message:find("F29 record checksum", 1, true), message)
    assert.is_truthy(message:find(path, 1, true))
    assert.is_true(report.count >= 2)
    assert.equal(report.count, #report)
    assert.equal("ECORRUPT", report[1].code)
    assert.equal("F29 record checksum", report[1].rule)
    assert.is_true(report[1].offset < at and report[1].offset > at - 64)
    local rules = {}
    for _, fault in ipairs(report) do rules[fault.rule:match("^F%d+")] = true end
    assert.is_true(rules.F17) -- of the frame
    poke(file, at, "v")
    sound(db)
    at = bytes:find(("z"):rep(100), 1, true) + 5000
    poke(file, at, "Z")
    ok, message = db:check()
    assert.is_nil(ok)
    assert.is_truthy(message:find("F33", 1, true), message)
    poke(file, at, "z")
    for _, place in ipairs { 0, 8192 } do
      poke(file, place + 700, "?")
      ok, message, report = db:check()
      assert.is_nil(ok)
      assert.is_truthy(message:find("F4 superblock checksum", 1, true), message)
      assert.equal(place, report[1].offset)
      poke(file, place + 700, "\0")
      sound(db)
    end
    file:close()
  end)

  it("finds commits that recovery would lose", function()
    fill(db, 50)
    assert(db:sync())
    for i = 1, 10 do
      db:put("key 1", "now gone " .. i)
      assert(db:sync())
    end
    -- Nothing that can be seen now is hit, but a power cut would lose commits.
    local at = helper.read(path):find("now gone 3", 1, true) - 1
    local file = assert(io.open(path, "r+b"))
    poke(file, at, "N")
    assert.equal("now gone 10", db:get("key 1"))
    local ok, message, report = db:check()
    assert.is_nil(ok)
    assert.is_truthy(message:find("F17 frame checksum", 1, true), message)
    assert.is_true(report[1].offset < at)
    poke(file, at, "n")
    sound(db)
    file:close()
  end)

  it("keeps the first faults when there are many", function()
    fill(db, 3000)
    assert(db:sync())
    local file = assert(io.open(path, "r+b"))
    for at in helper.read(path):gmatch("()value %d+") do
      poke(file, at - 1, "V")
    end
    file:close()
    local _, _, report = db:check()
    assert.equal(256, #report)
    assert.is_true(report.count >= 3000)
  end)

  it("works in a child after fork()", function()
    fill(db, 100)
    local child = peers.fork { db = db }
    assert.equal("true", child:ask("return db:check()"))
    child:finish()
  end)
end)

describe("check of the corpus", function()
  after_each(clean_up)

  it("finds what is damaged, and nothing in what is sound", function()
    local folder = os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/corpus/"
    local function bytes_of(name) return helper.read(folder .. name .. ".mmc") end
    local readme, seen, opened = helper.read(folder .. "README.md"), 0, 0
    local files = make_corpus.make_bad(bytes_of)
    for name in readme:gmatch("`(good%-[%w-]+)%.mmc`") do
      files[#files + 1] = { name = name, base = name, bytes = bytes_of(name) }
    end
    for _, file in ipairs(files) do
      local name = file.name
      local copy = helper.write(helper.path(), make_corpus.padded(file.bytes))
      local masks = file.base == "good-v1-collisions" and make_corpus.masks or {}
      local store = probe.store.open(copy, { create = false, readonly = true,
        primary_mask = masks.primary_mask, secondary_mask = masks.secondary_mask })
      local told = readme:match("`" .. name:gsub("%-", "%%-") .. "%.mmc` |[^\n]*| ([^|\n]*) |\n")
      seen = seen + 1
      if store then
        local report = assert(store:check())
        opened = opened + 1
        -- A damaged tail is where the log ends. A superblock that is damaged is a
        -- fault for check, though the other one makes up for it.
        local others = 0
        for _, rule in ipairs(report) do
          if rule ~= "F4 superblock checksum" then others = others + 1 end
        end
        -- The table of a file that was closed is of no use any more.
        local is_bad = name:find("^bad") ~= nil and not name:find("^bad%-usage")
        assert.equal(is_bad and told ~= "ok", others > 0,
          name .. ": " .. tostring(report[1]))
        assert.is_true(is_bad or #report == 0, name)
        if name == "bad-newer-superblock" then assert.is_true(#report > 0) end
        store:close()
      else
        assert.is_truthy(name:find("^bad"), name)
      end
    end
    assert.is_true(seen > 60, seen)
    assert.is_true(opened > 40, opened)
  end)
end)

describe("check of single bits", function()
  before_each(prepare)
  after_each(clean_up)

  it("finds every one that is flipped in what is in use", function()
    fill(db, 12)
    assert(db:sync())
    db:put("key 3", "another value")
    db:delete("key 4")
    db:put("large", ("z"):rep(100000))
    assert(db:close())
    local bytes = helper.read(path)
    local log_end = 12352 + assert(probe.verify.bytes(bytes)).frame_bytes
    local extent = bytes:find("mclarge\n", 1, true) - 1
    db = helper.store({ durability = "manual" }, path)
    local file = assert(io.open(path, "r+b"))
    local step = os.getenv("MMCMAP_LONG") and 1 or 7
    local flips, missed = 0, {}
    -- Few of the superblocks: a damaged one is looked at again for a while, since
    -- somebody might be writing it.
    for _, range in ipairs { { 0, 4096, 97 }, { 8192, 12288, 97 },
      { 12288, log_end, 1 }, { extent, extent + 200, 1 } } do
      local stride = step * range[3]
      for i = range[1] * 8 + math.random(0, stride - 1), range[2] * 8 - 1, stride do
        local at, bit = math.floor(i / 8), 2 ^ (i % 8)
        local byte = bytes:byte(at + 1)
        local has = math.floor(byte / bit) % 2 == 1
        poke(file, at, string.char(byte + (has and -bit or bit)))
        if db:check() then missed[#missed + 1] = at end
        poke(file, at, string.char(byte))
        flips = flips + 1
      end
    end
    file:close()
    sound(db)
    assert.same({}, missed)
    assert.is_true(flips > 2000, flips)
  end)
end)
