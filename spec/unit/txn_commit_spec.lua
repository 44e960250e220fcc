-- SPDX-License-Identifier: MIT
--
-- Seals and commits as the figures of a store tell of them: what seals, what
-- syncs, what each level of durability costs, and what a failure leaves.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"
local format, open = probe.format, probe.store.open

local SIGSTOP = 19
local LONG_MS = 30000 -- nobody waits for so long who need not

local db, path

local function reopen(changes)
  if db then assert(db:close()) end
  local options = { durability = "manual", segment_size = 131072 }
  for name, value in pairs(changes or {}) do options[name] = value end
  db = assert(open(path, options))
end

describe("txn.commit", function()
  before_each(function()
    path = scratch.path("txn")
    reopen()
  end)

  after_each(function()
    probe.os.restore()
    if db then db:close() end
    db = nil
  end)

  it("seals only what has changed", function()
    assert(db:put("a", "1"))
    local epoch = db:stat().epoch
    local version = db:version()
    assert.equal(epoch + 1, db:stat().epoch)
    for _ = 1, 3 do
      assert.equal(version, db:version())
      local snapshot = assert(db:snapshot())
      assert.equal(version, snapshot:version())
      snapshot:close()
    end
    assert.is_false(db:delete("not there"))
    assert.equal("1", db:get("a"))
    assert.equal(version, db:version())
    assert.equal(epoch + 1, db:stat().epoch)
    assert(db:put("a", "1"))
    assert.not_equal(version, db:version())
    assert.equal(epoch + 2, db:stat().epoch)
  end)

  it("syncs once for all that is sealed, and not for nothing", function()
    assert(db:put("a", "1"))
    local before = db:stat()
    for i = 1, 10 do
      assert(db:put("key" .. i, "x"))
      assert(db:version())
    end
    assert(db:sync())
    local after = db:stat()
    assert.equal(before.commit_count + 1, after.commit_count)
    assert.equal(before.sync_count + 1, after.sync_count)
    assert.equal(after.durable_epoch, after.version)
    for _ = 1, 3 do assert(db:sync()) end
    assert.equal(after.sync_count, db:stat().sync_count)
    assert(db:delete("key1"))
    assert.is_true(db:stat().durable_epoch < db:stat().version)
    assert(db:sync())
    assert.equal(after.commit_count + 1, db:stat().commit_count)
  end)

  -- A mebibyte, or an eighth of what is used if that is more; large values count.
  for _, size in ipairs { 3000, 30000, 100000 } do
    it("writes superblocks at intervals of log, of values of " .. size, function()
      local MIB = 1048576
      -- How many superblocks there were, and how many MiB of log.
      local function written(from, mib)
        local seen, before, log = 0, db:stat().superblock_epoch, db:stat().log_bytes
        for i = 1, math.ceil(mib * MIB / size) do
          assert(db:put("key" .. from + i, ("x"):rep(size)))
          assert(db:sync())
          local now = db:stat().superblock_epoch
          if now ~= before then seen, before = seen + 1, now end
          assert.is_true(now <= db:stat().durable_epoch)
        end
        return seen, (db:stat().log_bytes - log) / MIB
      end
      local seen, mib = written(0, 4.7)
      -- Some more come where space waits for them.
      assert.is_true(seen <= 1.5 * mib and seen > 0.85 * mib - 1, seen .. " in " .. mib)
      -- Many intervals in one commit, then longer ones.
      local before = db:stat().superblock_epoch
      for i = 1, math.ceil(30 * MIB / size) do
        assert(db:put("more" .. i, ("y"):rep(size)))
      end
      assert.equal(before, db:stat().superblock_epoch)
      assert(db:sync())
      assert.equal(db:stat().durable_epoch, db:stat().superblock_epoch)
      assert.is_true(db:stat().used_bytes > 30 * MIB)
      seen, mib = written(10000, 12)
      local parts = mib / (db:stat().used_bytes / MIB / 8)
      -- One more where the log has left large pages.
      assert.is_true(seen <= 1.5 * parts + 1 and seen > 0.85 * parts - 1,
        seen .. " of " .. parts)
    end)
  end

  -- The newest superblock names a file that is shorter, but is not on disk yet: if it
  -- were torn now, recovery would go by the one before.
  it("lets the file end no earlier than any superblock names that may be needed", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local function put_some(own)
      local txn = assert(own:begin()) -- nobody pays in between
      for i = 1, 450 do assert(txn:put("k" .. i, ("v"):rep(4000))) end
      assert(txn:commit())
      assert(own:sync())
    end
    assert(db:close())
    local _, how = probe.child.run(function()
      local own = scratch.open(path)
      assert(own:put("low", ("l"):rep(6000000)))
      assert(own:put("high", ("h"):rep(6000000)))
      assert(own:sync())
      own:delete("low")
      for _ = 1, 4 do assert(own:step(1000)) end -- the log goes on there
      put_some(own)
      put_some(own)
      own:delete("high")
      put_some(own) -- and a superblock is written, of what is not free yet;
      assert(own:put("last", "one"))
      assert(own:sync()) -- it is on disk
      put_some(own) -- another
      probe.crash.die_at_point(1, 9, "sync")
      assert(own:step(1000))
    end)
    assert.equal("signal", how)
    local bytes, newest, named, last, short = scratch.read(path), 0, 0, nil, nil
    for _, at in ipairs { 0, 8192 } do
      local page = bytes:sub(at + 1, at + 4096)
      local superblock = assert((format.superblock_decode(page, at, false)))
      local used = binary.number(superblock.used_bytes)
      named = math.max(named, used)
      if binary.number(superblock.sequence) > newest then
        newest, last, short = binary.number(superblock.sequence), at, used
      end
    end
    assert.is_true(short < named - 5000000, short .. " of " .. named)
    assert.is_true(#bytes >= named, #bytes .. " of " .. named)
    path = scratch.write(scratch.path("torn"), binary.flip(bytes, last + 100))
    db = assert(open(path, { durability = "manual" }))
    assert.equal("one", db:get("last"))
    assert.equal(451, db:count())
  end)

  it("commits each change with sync, none by itself with manual", function()
    for i = 1, 20 do assert(db:put("key" .. i, "x")) end
    assert.equal(0, db:stat().commit_count)
    reopen { durability = "sync" }
    for i = 1, 20 do assert(db:put("key" .. i, "y")) end
    assert.equal(20, db:stat().commit_count)
    assert.is_false(db:delete("not there"))
    assert.equal(20, db:stat().commit_count)
    assert.is_true(db:delete("key1"))
    assert.equal(21, db:stat().commit_count)
  end)

  it("has nothing to commit when it is opened", function()
    local function syncs_nothing()
      local before, bytes = db:stat(), scratch.read(path)
      assert.equal(before.version, before.durable_epoch)
      for _ = 1, 3 do assert(db:sync()) end
      assert.equal(before.sync_count, db:stat().sync_count)
      assert.equal(before.commit_count, db:stat().commit_count)
      assert.is_true(bytes == scratch.read(path))
    end
    syncs_nothing()
    assert(db:put("a", "1"))
    assert(db:sync())
    local crashed = scratch.read(path)
    reopen()
    syncs_nothing()
    assert(db:close())
    scratch.write(path, crashed)
    db = assert(open(path, { durability = "manual" }))
    syncs_nothing()
  end)

  it("is made by whoever closes, though others go on", function()
    local other = peers.launch(path)
    other:ask([[
      db = assert(probe.store.open(path, { durability = "manual" }))
      assert(db:put("a", "1"))
      assert(db:close())
    ]])
    assert.equal(db:stat().version, db:stat().durable_epoch)
    local copy = assert(open(scratch.write(scratch.path("copy"), scratch.read(path)), {}))
    assert.equal("1", copy:get("a"))
    assert(copy:close())
    other:finish()
  end)

  it("fails for whoever closes, though others go on", function()
    local other = peers.launch(path)
    assert.equal("nil EIO", other:ask([[
      db = assert(probe.store.open(path, { durability = "manual" }))
      assert(db:put("a", "1") and db:sync() and db:put("a", "2"))
      probe.os.fail("fdatasync", 1, "EIO")
      local closed, code = db:close()
      probe.os.restore()
      return closed, code
    ]]))
    other:finish()
    assert(db:close() == nil)
    db = nil
  end)

  it("keeps the version over closing, and content with it", function()
    assert(db:put("a", "1"))
    local version = db:version()
    reopen()
    assert.equal(version, db:version())
    reopen { readonly = true }
    assert.equal(version, db:version())
    reopen()
    assert(db:put("a", "2"))
    assert.not_equal(version, db:version())
  end)

  it("changes nothing when the disk is full", function()
    local model = {}
    for i = 1, 40 do
      model["key" .. i] = binary.bytes(200, i)
      assert(db:put("key" .. i, model["key" .. i]))
    end
    assert(db:sync())
    probe.os.fail("fallocate", 1, "ENOSPC", 0)
    local refused = 0
    for i = 1, 2000 do
      local key, value = "key" .. i % 60, binary.bytes(i % 900, i)
      local ok, code = db:put(key, value)
      if ok then
        model[key] = value
      else
        assert.equal("ENOSPC", code)
        refused = refused + 1
      end
      if refused > 20 then break end
    end
    assert.is_true(refused > 20)
    local ok, code = db:put("large", binary.bytes(100000))
    assert.is_nil(ok)
    assert.equal("ENOSPC", code)
    assert.same(model, (db:records()))
    assert(db:sync())
    probe.os.restore()
    assert(db:put("more", "x"))
    model.more = "x"
    reopen()
    assert.same(model, (db:records()))
  end)

  it("takes no more changes after a failed sync", function()
    assert(db:put("a", "1"))
    assert(db:sync())
    assert(db:put("a", "2"))
    probe.os.fail("fdatasync", 1, "EIO")
    local ok, code = db:sync()
    assert.is_nil(ok)
    assert.equal("EIO", code)
    ok, code = db:put("a", "3")
    assert.is_nil(ok)
    assert.equal("EIO", code)
    ok, code = db:sync()
    assert.is_nil(ok)
    assert.equal("EIO", code)
    assert.equal("2", db:get("a"))
    ok, code = db:close()
    assert.is_nil(ok)
    assert.equal("EIO", code)
    db = nil
  end)

  -- What a leader has closed, the next one reads from the file, where anything may be.
  local FLAGS, EPOCH, NEXT = 14, 8, 32 -- in its header
  for _, case in ipairs {
    { "is the last one of a commit of no epoch", "F15",
      function() return { [EPOCH] = ("\0"):rep(6) } end },
    { "is the last one of a commit of a later epoch", "F15",
      function() return { [EPOCH] = "\255\255\0\0\0\0" } end },
    { "is the last one, but ends no commit", "F16",
      function() return { [FLAGS] = "\0" } end },
    { "comes before itself, in one commit", "F16",
      function(offset) return { [FLAGS] = "\0", [NEXT] = offset } end },
    { "comes before itself, in many commits", "F16",
      function(offset) return { [NEXT] = offset } end },
  } do
    it("completes no frame that " .. case[1], function()
      if not crash.has_hooks then
        return pending("needs --enable-debug-checks")
      end
      assert(db:put("a", "1"))
      assert(db:sync())
      local lock_file = assert(probe.share.connect(path .. "-lock", path))
      local frame = binary.number(lock_file:get(("chain[%d].next_offset"):format(
        lock_file:get("commit.chain_index") % 2)))
      lock_file:close()
      assert(db:put("a", "2"))
      assert.same({ "", "signal", 9 }, { probe.child.run(function()
        local own = assert(open(path, { durability = "manual" }))
        probe.crash.die_at_point(1, 9, "sync")
        own:sync()
      end) })
      local file = assert(io.open(path, "r+b"))
      for at, bytes in pairs(case[3](binary.u64(frame))) do
        assert(file:seek("set", frame + at))
        assert(file:write(bytes))
      end
      assert(file:close())
      local found, code, what = db:sync()
      assert.is_nil(found)
      assert.equal("ECORRUPT", code)
      assert.truthy(what:find(case[2], 1, true), what)
      -- Nothing is known of what is on disk.
      found, code = db:put("a", "3")
      assert.is_nil(found)
      assert.equal("ECORRUPT", code)
    end)
  end

  -- A count that is too low was found out after the record had been removed:
  -- the caller was told of a failure, and the change was there.
  it("removes nothing when there are more records than counted", function()
    assert(db:put("a", "1"))
    assert(db:put("b", "2"))
    assert(db:close())
    local bytes = scratch.read(path)
    for _, at in ipairs { 0, 8192 } do
      local page = bytes:sub(at + 1, at + 4096)
      local superblock = assert(format.superblock_decode(page, at, false))
      if superblock.root ~= ("0"):rep(16) then
        superblock.count = binary.hex(1)
        bytes = binary.patch(bytes, at, format.superblock_encode(superblock))
      end
    end
    scratch.write(path, bytes)
    db = nil
    reopen()
    assert.is_true(db:delete("a"))
    for _ = 1, 2 do
      local found, code, what = db:delete("b")
      assert.is_nil(found)
      assert.equal("ECORRUPT", code)
      assert.equal("F36", what:match("^F%d+"))
      assert.equal("2", db:get("b"))
    end
  end)
end)

describe("whoever waits for a commit to free space", function()
  before_each(function()
    path = scratch.path("txn")
    reopen()
    -- The first superblock of a session, and what names it, are on disk.
    for i = 1, 2 do
      assert(db:put("first", tostring(i)))
      assert(db:sync())
    end
  end)

  after_each(function()
    peers.kill_all()
    if crash.has_hooks then probe.crash.points() end
    if db then db:close() end
    db = nil
  end)

  local function launch()
    local peer = peers.launch(path)
    peer:ask("db = assert(probe.store.open(path, { durability = 'manual', "
      .. "segment_size = tonumber((...)) }))", scratch.SEGMENT)
    return peer
  end

  -- Another process puts and commits, again and again.
  local function commits_meanwhile(size, f)
    local peer = launch()
    peer:tell([[
      repeat
        assert(db:put("k", ("v"):rep(tonumber((...)))))
        assert(db:sync())
        probe.os.sleep_ms(5)
      until db:get("enough")
    ]], size)
    f()
    assert(db:put("enough", "v"))
    peer:answer()
    peer:finish()
  end

  it("does not wait for longer than is allowed", function()
    for _, most_ms in ipairs { 0, 1, 80 } do
      local took_ms = db:await(most_ms)
      assert.is_true(took_ms >= most_ms and took_ms < LONG_MS, took_ms .. " ms")
    end
  end)

  it("waits no longer when another has committed, and a superblock is on disk", function()
    commits_meanwhile(2000000, function() -- each needs one
      local before = db:stat().superblock_epoch
      local took_ms = db:await(2 * LONG_MS)
      assert.is_true(took_ms < LONG_MS, took_ms .. " ms")
      assert.is_true(db:stat().superblock_epoch > before)
    end)
  end)

  it("goes on waiting when a commit has freed nothing", function()
    commits_meanwhile(10, function()
      local superblock_epoch, commits, tries = db:stat().superblock_epoch, 0, 0
      while commits < 2 do
        local before = db:stat().commit_count
        local took_ms = db:await(300)
        assert.is_true(took_ms >= 300, took_ms .. " ms")
        commits, tries = db:stat().commit_count - before, tries + 1
        assert.is_true(tries < 30)
      end
      assert.equal(superblock_epoch, db:stat().superblock_epoch)
    end)
  end)

  it("does not wait for a commit that has failed", function()
    local peer = launch()
    peer:tell([[
      probe.os.sleep_ms(100)
      probe.os.fail("fdatasync", 1, "EIO")
      assert(db:put("k", "v"))
      return (select(2, db:sync()))
    ]])
    for _ = 1, 2 do
      local took_ms = db:await(2 * LONG_MS)
      assert.is_true(took_ms < LONG_MS, took_ms .. " ms")
    end
    assert.equal("EIO", peer:answer())
  end)

  -- So many segments that not every put that pays makes a commit of its own. How
  -- often one has waited, and how long one took at most.
  local function overwrite_much()
    local COUNT, random, longest_ns = 9000, binary.random(1), 0
    for i = 1, COUNT do assert(db:put("k" .. i, ("v"):rep(4000))) end
    assert(db:sync())
    return function()
      probe.crash.die_at_point(0, nil, "await")
      for _ = 1, 3500 do
        local begin_ns = probe.os.monotonic_ns()
        assert(db:put("k" .. random(COUNT), ("w"):rep(4000)))
        longest_ns = math.max(longest_ns, probe.os.monotonic_ns() - begin_ns)
      end
      return probe.crash.points(), longest_ns / 1e6
    end
  end

  it("is a put, for some milliseconds, where the flusher does not keep up", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    reopen { durability = "async" }
    local overwrite = overwrite_much()
    -- Another one commits, and does not come to an end.
    local leader = launch()
    leader:ask("probe.crash.die_at_point(1, tonumber((...)), 'sync')", SIGSTOP)
    leader:tell("assert(db:put('leader', 'v')) assert(db:sync())")
    leader:await_stopped()
    local waits, longest_ms = overwrite()
    leader:go_on()
    leader:answer()
    leader:finish()
    assert.is_true(waits > 0)
    assert.is_true(longest_ms < 1000 * crash.thinning, longest_ms .. " ms")
  end)

  it("is no put where there is no flusher", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local before = db:stat()
    local waits = overwrite_much()()
    assert.equal(0, waits)
    -- It has committed itself: more than the one sync() here.
    assert.is_true(db:stat().commit_count > before.commit_count + 1)
  end)
end)
