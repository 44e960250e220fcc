-- SPDX-License-Identifier: MIT
--
-- System calls that fail: each kind, with each errno that it may have, at the
-- n-th call for every n of a fixed piece of work. The call of ours that fails
-- says so and leaves no trace; what was acknowledged stays; after a failed sync
-- nothing is written any more; a fresh opening finds what was promised.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"

local SEGMENT = 131072

local CODES = {
  EIO = { EIO = true }, ENOSPC = { ENOSPC = true }, EDQUOT = { ENOSPC = true },
  ENOMEM = { ENOMEM = true, EADDRESS = true }, EINTR = {},
}

-- Each with the errnos that are tried.
local FAULTS = {
  pwrite = { "EIO", "ENOSPC", "EDQUOT", "EINTR" },
  fdatasync = { "EIO", "ENOSPC", "EDQUOT" },
  fallocate = { "EIO", "ENOSPC", "EDQUOT", "EINTR" },
  ftruncate = { "EIO", "EINTR" },
  mmap = { "ENOMEM" },
  open = { "EIO", "ENOMEM", "EINTR" },
  pread = { "EIO", "EINTR" },
  fstat = { "EIO" },
  fsync = { "EIO", "ENOSPC" },
  link = { "EIO", "ENOSPC" },
  unlink = { "EIO" },
  getrandom = { "EIO", "EINTR" },
  close = { "EIO", "EINTR" },
}

local calls = {}
for i = 1, 5 do
  calls[#calls + 1] = { "put", "key " .. i, ("value %d "):format(i):rep(2000) }
end
calls[#calls + 1] = { "sync" }
calls[#calls + 1] = { "delete", "key 2" }
calls[#calls + 1] = { "put", "key 1", "changed" }
calls[#calls + 1] = { "put", "large", ("large"):rep(8000) }
calls[#calls + 1] = { "put", "key 6", ("more"):rep(5000) }
calls[#calls + 1] = { "sync" }

local function copy(model)
  local new = {}
  for key, value in pairs(model) do new[key] = value end
  return new
end

local function matches(db, model)
  local records = assert(db:records())
  for key, value in pairs(records) do
    if model[key] ~= value or db:get(key) ~= value then return false end
  end
  for key in pairs(model) do
    if records[key] == nil then return false end
  end
  return true
end

-- One run with one fault: the world of models that a fresh opening may find.
local function work(db, level, where, codes)
  local now, possible, stopped = {}, { {} }, nil
  for _, call in ipairs(calls) do
    local after = copy(now)
    if call[1] ~= "sync" then after[call[2]] = call[3] end
    local ok, code, what = db[call[1]](db, call[2], call[3])
    if ok then
      if call[1] ~= "sync" then
        assert.is_nil(stopped, where .. ": a change after a failed sync")
      end
      now = after
      if level == "sync" or call[1] == "sync" then
        possible = {}
      end
    elseif ok == nil then
      assert.is_true(codes[code] or false, ("%s: %s (%s)"):format(where,
        tostring(code), tostring(what)))
      if stopped then assert.equal(stopped, code, where) end
      if what == "fdatasync" then stopped = code end
      if not matches(db, now) then now = after end
    end
    possible[#possible + 1] = now
    assert.is_true(matches(db, now), where .. ": the store has changed")
  end
  return possible
end

-- Whether the fault came to pass.
local function fail_and_recover(level, name, nth, plan, codes, where)
  local path = crash.path("errors")
  os.remove(path)
  local possible = { {} }
  plan()
  local options = { segment_size = SEGMENT, durability = level }
  local db, code = probe.store.open(path, options)
  if db then
    possible = work(db, level, where, codes)
    local ok
    ok, code = db:close()
    if ok then possible = { possible[#possible] } end
    assert.is_true(ok or codes[code] or false, where .. ", close")
  else
    assert.is_true(codes[code] or false, where .. ", open: " .. tostring(code))
  end
  local came = probe.os.counts()[name] >= nth
  probe.os.restore()

  db = assert(probe.store.open(path, options))
  local found = false
  for _, model in ipairs(possible) do found = found or matches(db, model) end
  assert.is_true(found, where .. ": the next opening finds something else")
  assert(db:put("afterwards", where))
  assert(db:sync())
  assert(db:close())
  local report = assert(probe.verify.bytes(scratch.read(path)))
  assert.same({}, report.failures)
  os.remove(path)
  return came
end

local function at_every_call(name, what, codes, plan_of)
  local runs, step = 0, crash.thinning > 1 and 4 or 1
  for _, level in ipairs { "sync", "manual" } do
    local n = 1
    while fail_and_recover(level, name, n, plan_of(n), codes,
      ("%s, %s %d: %s"):format(level, name, n, what)) do
      n = n + step
      runs = runs + 1
      assert.is_true(n < 2000)
    end
  end
  return runs
end

describe("system calls that fail", function()
  after_each(function() probe.os.restore() end)
  teardown(crash.remove_folder)

  local names = {}
  for name in pairs(FAULTS) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    for _, errno in ipairs(FAULTS[name]) do
      it(("leave the last good state: %s, %s"):format(name, errno), function()
        local runs = at_every_call(name, errno, CODES[errno], function(n)
          return function() probe.os.fail(name, n, errno) end
        end)
        print(("# %s, %s: failed %d times"):format(name, errno, runs))
      end)
    end
  end

  for _, name in ipairs { "pwrite", "fallocate", "fdatasync" } do
    it(("leave the last good state: %s, from one on for ever"):format(name),
      function()
        local runs = at_every_call(name, "ENOSPC", CODES.ENOSPC, function(n)
          return function() probe.os.fail(name, n, "ENOSPC", 0) end
        end)
        print(("# %s: failed for ever %d times"):format(name, runs))
      end)
  end

  it("leave the last good state: reads and writes that are cut short",
    function()
      for _, name in ipairs { "pwrite", "pread", "getrandom" } do
        local runs = at_every_call(name, "short", {}, function(n)
          return function() probe.os.short(name, n, 7) end
        end)
        print(("# %s cut short %d times"):format(name, runs))
      end
    end)

  local function refuses(ok, code)
    assert.is_nil(ok)
    assert.equal("EIO", code)
  end

  -- Upkeep waits for a superblock alone, not for all that was written since.
  it("make the store read-only for good when the sync of a superblock fails",
    function()
      local path = crash.path("superblock")
      local db = assert(probe.store.open(path,
        { durability = "manual", segment_size = SEGMENT }))
      local ok, code = true, nil
      probe.os.fail("msync", 1, "EIO")
      for round = 1, 50 do
        for i = 1, 200 do
          if ok then ok, code = db:put("key " .. i, (round .. "."):rep(500)) end
        end
        if ok then ok, code = db:step(1000) end
      end
      refuses(ok, code)
      local wanted = assert(db:records())
      refuses(db:put("other", "value"))
      assert.equal(1, probe.os.counts().msync)
      assert.is_nil((db:close()))
      probe.os.restore()
      db = assert(probe.store.open(path, { durability = "sync" }))
      assert.same(wanted, (assert(db:records())))
      assert(db:put("other", "value"))
      assert.same({}, db:check())
      assert(db:close())
    end)

  it("make the store read-only for good when a sync fails", function()
    local path = crash.path("stopped")
    local db = assert(probe.store.open(path, { durability = "sync" }))
    assert(db:put("key", "value"))
    probe.os.fail("fdatasync", 1, "EIO")
    refuses(db:put("key", "second"))
    for _ = 1, 3 do
      refuses(db:put("other", "value"))
      refuses(db:delete("key"))
      assert.equal("second", db:get("key"))
      assert.equal(1, db:count())
    end
    refuses(db:sync())
    -- It is not tried again, not even once.
    assert.equal(1, probe.os.counts().fdatasync)
    assert.is_nil((db:close()))
    probe.os.restore()
    db = assert(probe.store.open(path, { durability = "sync" }))
    assert(db:put("other", "value"))
    assert(db:close())
  end)
end)

-- Threads that are not granted: for want of addresses, or by a limit.
describe("a flusher that cannot be started", function()
  local path, db

  local function open(level)
    path = crash.path("threadless")
    os.remove(path)
    db = assert(probe.store.open(path,
      { durability = level, segment_size = SEGMENT }))
    return db
  end

  -- What a power cut now would leave.
  local function is_committed(key)
    local left = crash.path("cut")
    scratch.write(left, scratch.read(path))
    local cut = assert(probe.store.open(left, { readonly = true }))
    local found = cut:has(key)
    cut:close()
    os.remove(left)
    return found
  end

  after_each(function()
    probe.os.restore()
    if db then db:close() end
    db = nil
  end)
  teardown(crash.remove_folder)

  it("leaves no change that is made and said to have failed", function()
    open("async")
    probe.os.fail("thread", 1, "EAGAIN", 0)
    assert(db:put("put", "value"))
    local one, zero = "0000000000000001", "0000000000000000"
    assert.equal(one, db:incr("number", one, zero))
    assert.equal("0000000000000002", db:incr("number", one, zero))
    assert.is_true(db:add("lock", "mine"))
    assert.equal("MISMATCH", db:add("lock", "another's"))
    assert.equal("value", db:swap("put", "other"))
    assert(db:delete("lock"))
    local txn = assert(db:begin())
    assert(txn:put("in a transaction", "value"))
    assert(txn:commit())
    assert(db:put_many { "many", "value" })
    assert(db:save("saved"))
    assert(db:drop_saved("saved"))
    assert.is_true(probe.os.counts().thread >= 9)
    assert(db:sync())
    assert(db:close())
    db = assert(probe.store.open(path, { durability = "manual" }))
    assert.equal("2", db:get("number"))
    assert.equal("other", db:get("put"))
    assert.is_true(db:has("in a transaction") and not db:has("lock"))
  end)

  it("leaves none of what expires, either", function()
    for _, level in ipairs { "async", "sync" } do
      open(level)
      probe.os.fail("thread", 1, "EAGAIN", 0)
      assert(db:put("put", "value", 60000))
      assert.is_true(db:add("lock", "mine", 60000))
      assert.equal("MISMATCH", db:add("lock", "another's", 60000))
      assert(db:expire("put", 30000))
      assert.is_true(probe.os.counts().thread >= 3)
      assert(db:close())
      db = nil
    end
  end)

  it("has each change committed by who makes it", function()
    open("async")
    probe.os.fail("thread", 1, "EAGAIN", 0)
    for i = 1, 3 do
      assert(db:put("key " .. i, "value"))
      assert.is_true(is_committed("key " .. i))
    end
  end)

  it("is started by a later change, as soon as it can be", function()
    open("async")
    probe.os.fail("thread", 1, "EAGAIN", 2)
    for i = 1, 5 do assert(db:put("key " .. i, "value")) end
    assert.equal(3, probe.os.counts().thread)
    local limit = probe.os.monotonic_ns() + 20e9
    while not is_committed("key 5") do
      assert.is_true(probe.os.monotonic_ns() < limit)
      probe.os.sleep_ms(20)
    end
    assert.equal(3, probe.os.counts().thread)
  end)

  it("leaves what was said of an earlier failure", function()
    open("async")
    assert.is_nil((db:put(("k"):rep(100000), "value")))
    probe.os.fail("thread", 1, "EAGAIN", 0)
    assert(db:put("key", "value"))
    assert.equal("ETOOBIG", probe.base.last_error().name)
  end)
end)

describe("a disk that is full", function()
  it("is an error from put, and no more once there is room", function()
    local ok, why = scratch.with_small_file_system("1m", function(folder)
      scratch.write(folder .. "/ballast", ("b"):rep(300000))
      local path = folder .. "/store"
      local db = assert(probe.store.open(path, { segment_size = SEGMENT,
        durability = "sync" }))
      local function put_until_full(from)
        for i = from, from + 2000 do
          local put, code = db:put("key " .. i, ("%08d"):format(i):rep(300))
          if not put then
            assert.equal("ENOSPC", code)
            return i - 1
          end
        end
        error("it was never full")
      end
      local function check(last)
        assert.equal(last, db:count())
        for i = 1, last do
          assert.equal(("%08d"):format(i):rep(300), db:get("key " .. i))
        end
      end

      local last = put_until_full(1)
      assert.is_true(last > 100)
      check(last)
      for _ = 1, 20 do
        local put, code = db:put("too much", ("x"):rep(30000))
        assert.is_nil(put)
        assert.equal("ENOSPC", code)
      end
      check(last)
      os.remove(folder .. "/ballast")
      assert(db:put("key " .. last + 1,
        ("%08d"):format(last + 1):rep(300)))
      last = put_until_full(last + 2)
      check(last)
      scratch.shell("mount -o remount,size=2m " .. scratch.quoted(folder))
      last = put_until_full(last + 1)
      check(last)
      db:close()
      db = assert(probe.store.open(path, { segment_size = SEGMENT }))
      check(last)
      db:close()
      local report = assert(probe.verify.bytes(scratch.read(path)))
      assert.same({}, report.failures)
    end)
    if not ok then pending(why) end
  end)
end)
