-- SPDX-License-Identifier: MIT
--
-- stat, size, version and the module's own fields.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"

local numbers = { "count", "size_bytes", "used_bytes", "log_bytes",
  "large_bytes", "recycled_bytes", "segment_bytes", "segment_count", "epoch",
  "durable_epoch", "superblock_epoch", "version", "commit_count", "sync_count",
  "snapshot_count", "process_count", "reader_count", "recovered_commits", "max_size_bytes",
  "address_bytes", "live_bytes", "live_segments", "held_segments",
  "uncounted_segments", "waiting_for_pins", "waiting_for_snapshots",
  "waiting_for_commit", "free_segments", "hole_segments", "reserve_bytes",
  "moved_bytes", "cleaned_segments" }

describe("the module", function()
  it("has these fields and no more", function()
    local names = {}
    for name in pairs(mmcmap) do names[#names + 1] = name end
    table.sort(names)
    assert.same({ "_VERSION", "backend", "dump", "murmur3", "open", "salvage" },
      names)
    assert.equal("c", mmcmap.backend)
    assert.matches("^mmcmap %d+%.%d+%.%d+$", mmcmap._VERSION)
  end)

  it("sets no globals", function()
    assert.equal("", helper.child([[
      local before = {}
      package.loaded["mmcmap"], package.loaded["mmcmap.core"] = nil, nil
      for name in pairs(_G) do before[name] = true end
      require "mmcmap"
      for name in pairs(_G) do
        if not before[name] then io.write(name) end
      end
    ]]))
  end)

  it("may be loaded again, and both copies work", function()
    assert.equal("v w", helper.child([[
      package.loaded["mmcmap"], package.loaded["mmcmap.core"] = nil, nil
      local again = require "mmcmap"
      assert(again ~= mmcmap)
      local a = assert(mmcmap.open((...)))
      local b = assert(again.open((...)))
      a.k = "v"
      io.write(b.k, " ")
      b.k = "w"
      io.write(a.k)
      collectgarbage()
    ]], helper.path()))
  end)

  it("computes MurmurHash3", function()
    assert.equal(0, mmcmap.murmur3(""))
    assert.equal(613153351, mmcmap.murmur3("hello"))
    assert.equal(1364076727, mmcmap.murmur3("", 1))
    assert.equal(2180083513, mmcmap.murmur3("", 4294967295))
    assert.equal(mmcmap.murmur3("17", 0), mmcmap.murmur3(17))
    for _, seed in ipairs { -1, 0.5, 4294967296, 0 / 0 } do
      assert.has_error(function() mmcmap.murmur3("x", seed) end)
    end
    assert.has_error(function() mmcmap.murmur3() end)
    assert.has_error(function() mmcmap.murmur3({}) end)
    assert.has_error(function() mmcmap.murmur3("x", "y") end)
  end)
end)

describe("stat", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store(nil, path)
  end)
  after_each(helper.close_all)

  it("has every field of mmcmap_stat by its name, and no more", function()
    local stat = db:stat()
    for _, name in ipairs(numbers) do
      assert.equal("number", type(stat[name]), name)
      assert.is_true(stat[name] >= 0 and stat[name] % 1 == 0, name)
      stat[name] = nil
    end
    assert.same({ hash = "xxh3", durability = "async", readonly = false,
      was_clean = true }, stat)
  end)

  it("agrees with the methods", function()
    for i = 1, 100 do db:put("k" .. i, i) end
    local stat = db:stat()
    assert.equal(100, stat.count)
    assert.equal(db:count(), stat.count)
    assert.equal(db:size(), stat.size_bytes)
    assert.equal(db:version(), stat.version)
    assert.is_true(stat.used_bytes > 0)
    assert.is_true(stat.used_bytes <= stat.size_bytes
      or stat.used_bytes <= stat.segment_count * stat.segment_bytes)
    assert.is_true(stat.address_bytes >= stat.size_bytes)
  end)

  it("counts snapshots", function()
    local _, first = db:pairs()
    local _, second = db:keys()
    assert.equal(2, db:stat().snapshot_count)
    first:close()
    assert.equal(1, db:stat().snapshot_count)
    second:close()
    assert.equal(0, db:stat().snapshot_count)
  end)

  it("counts large values", function()
    db:put("small", ("x"):rep(1000))
    assert.equal(0, db:stat().large_bytes)
    db:put("large", ("x"):rep(1000000))
    assert.is_true(db:stat().large_bytes >= 1000000)
    assert.is_true(db:stat().log_bytes >= 1001000)
  end)

  it("counts commits", function()
    local before = db:stat()
    db:put("k", "v")
    assert(db:sync())
    local after = db:stat()
    assert.is_true(after.commit_count > before.commit_count)
    assert.is_true(after.sync_count > before.sync_count)
    assert.is_true(after.durable_epoch > before.durable_epoch)
    assert.is_true(after.durable_epoch <= after.epoch)
  end)
end)

describe("step", function()
  after_each(helper.close_all)

  it("commits what has changed, and only that", function()
    local db = helper.store({ durability = "manual" })
    local before = db:stat()
    assert.is_true(db:step(0.001))
    assert.equal(before.sync_count, db:stat().sync_count)
    db:put("k", "v")
    assert.is_true(db:step(0))
    assert.equal(before.commit_count, db:stat().commit_count)
    assert.is_true(db:step(0.001))
    assert.equal(before.commit_count + 1, db:stat().commit_count)
    assert.equal(db:version(), db:stat().durable_epoch)
  end)

  it("refuses what is no time", function()
    local db = helper.store()
    assert.has_error(function() db:step() end)
    assert.has_error(function() db:step("soon") end)
    assert.has_error(function() db:step(-1) end)
  end)
end)

describe("size", function()
  after_each(helper.close_all)

  it("is the size of the file", function()
    local path = helper.path()
    local db = helper.store(nil, path)
    assert.equal(#helper.read(path), db:size())
    for i = 1, 5000 do db:put("k" .. i, ("x"):rep(500)) end
    assert(db:sync())
    assert.equal(#helper.read(path), db:size())
    assert.is_true(db:size() >= 2500000)
  end)
end)

describe("version", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store(nil, path)
    db:put("k", "v")
  end)
  after_each(function()
    peers.kill_all()
    helper.close_all()
  end)

  local function changes(call, ...)
    local before = db:version()
    call(...)
    return db:version() ~= before
  end

  it("changes when the content does", function()
    assert.is_true(changes(db.put, db, "new", "v"))
    assert.is_true(changes(db.put, db, "k", "w"))
    assert.is_true(changes(db.delete, db, "k"))
    assert.is_true(changes(function() db.k = "x" end))
    assert.is_true(changes(function() db.k = nil end))
    assert.is_true(changes(db.put, db, "large", ("x"):rep(1000000)))
  end)

  it("stays when nothing changes", function()
    assert.is_false(changes(db.get, db, "k"))
    assert.is_false(changes(db.has, db, "k"))
    assert.is_false(changes(db.delete, db, "nobody"))
    assert.is_false(changes(db.count, db))
    assert.is_false(changes(db.stat, db))
    assert.is_false(changes(db.sync, db))
    assert.is_false(changes(function() helper.records(db) end))
    assert.is_false(changes(function() db.nobody = nil end))
    assert.is_false(changes(pcall, db.put, db, "k", {}))
    assert.is_false(changes(db.put, db, ("x"):rep(65536), "v"))
  end)

  it("never comes back", function()
    local seen = {}
    for round = 1, 200 do
      db:put("k", round % 2 == 0 and "a" or "b")
      if round % 7 == 0 then db:sync() end
      if round % 11 == 0 then for _ in db:keys() do end end -- luacheck: ignore 512
      if round % 50 == 0 then
        db:close()
        db = helper.store(nil, path)
      end
      local version = db:version()
      assert.is_nil(seen[version], "seen before: " .. version)
      seen[version] = true
    end
  end)

  it("is the same before and after only if nothing came between, by another process",
    function()
      local writer = peers.start(path, { open = "{ durability = 'manual' }" })
      writer:tell([[
        local n = 0
        repeat
          n = n + 1
          if n % 2 == 0 then db:put("k", n) else db:update(function(tx) tx.k = n end) end
        until n % 64 == 0 and helper.exists(path .. "-stop")
        return n
      ]])
      local equal, different, limit = 0, 0, probe.os.monotonic_ns() + 60e9
      repeat
        local before, first = db:version(), db:get("k")
        for _ = 1, 20 do db:get("other") end
        local second, after = db:get("k"), db:version()
        if before == after then
          assert.equal(first, second)
          equal = equal + 1
        else
          different = different + (first ~= second and 1 or 0)
        end
        assert.is_true(before <= after)
      until equal > 500 and different > 500 or probe.os.monotonic_ns() > limit
      helper.write(path .. "-stop", "")
      assert.is_true(tonumber(writer:answer()) > 500)
      assert.is_true(equal > 500 and different > 500, equal .. ", " .. different)
    end)

  it("stays across closing and opening", function()
    local version = db:version()
    assert(db:close())
    db = helper.store(nil, path)
    assert.equal(version, db:version())
    assert(db:close())
    db = helper.store({ readonly = true }, path)
    assert.equal(version, db:version())
  end)
end)

describe("readers", function()
  local path, db

  before_each(function()
    path = helper.path()
    db = helper.store({ max_snapshot_age = 0.2 }, path)
    for i = 1, 10 do db:put("k" .. i, i) end
  end)
  after_each(helper.close_all)

  it("are the processes that have the store open, and their snapshots",
    function()
      local next_record, state = db:pairs()
      assert.is_truthy(next_record(state))
      local found = db:readers()
      assert.equal(2, #found)
      assert.equal("process", found[1].kind)
      assert.is_true(found[1].ours)
      local threads = found[1].thread_count -- the flusher has a place when it commits
      assert.is_true(threads == 1 or threads == 2, threads)
      assert.equal(0, found[1].pinned_count)
      assert.equal("snapshot", found[2].kind)
      assert.equal(found[1].process, found[2].process)
      assert.equal(db:version(), found[2].version)
      assert.equal(0, found[2].held_bytes)
      db:put("k1", ("x"):rep(5000))
      assert.is_true(db:readers()[2].held_bytes >= 5000)
      assert.is_true(db:readers()[2].age >= found[2].age)
      assert.equal("2", helper.child([[
        local readers, processes = assert(mmcmap.open((...))):readers(), 0
        for _, reader in ipairs(readers) do
          if reader.kind == "process" then processes = processes + 1 end
        end
        io.write(processes)
      ]], path))
      assert.equal(1, db:stat().snapshot_count)
    end)

  it("end their snapshots when those are older than they may become",
    function()
      local next_record, state = db:pairs()
      assert.is_truthy(next_record(state))
      os.execute("sleep 0.5")
      local ok, message = pcall(next_record, state)
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find("age", 1, true))
      assert.equal(1, #db:readers())
      assert.equal(0, db:stat().snapshot_count)
      local count = 0
      for _ in db:pairs() do count = count + 1 end
      assert.equal(10, count)
    end)
end)
