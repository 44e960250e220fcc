-- SPDX-License-Identifier: MIT
--
-- Who reads a store whose lock file cannot be written: without one, alone or beside
-- others that only read. And what is left by an opening that fails.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"

local SIGKILL, SIGSTOP = 9, 19
local LOCK_FILE = 2 -- the second that is opened, behind the data file

-- What the dead have left is not taken over where mounts have no numbers.
local has_takeover = (function()
  local fd = assert(probe.os.file_open(scratch.write(scratch.path("mounts"), ""), true))
  local id = probe.os.file_mount_id(fd)
  probe.os.file_close(fd)
  return id ~= nil
end)()

describe("a store whose lock file cannot be written", function()
  local path, db, loner

  before_each(function()
    path = scratch.path("store")
    db = scratch.open(path)
    assert(db:put("key", "value"))
    assert(db:close())
    db, loner = nil, nil
  end)

  after_each(function()
    peers.kill_all()
    if db then db:close() end
  end)

  -- What a process that cannot open the lock file is told.
  local function open_as_loner(options, system_error)
    loner = peers.launch(path)
    local answer = loner:ask(([[
      probe.os.fail("open", %d, "%s", 1)
      local code, what
      db, code, what = probe.store.open(path, { durability = "manual", timeout_ms = 0, %s })
      probe.os.restore()
      return code, what
    ]]):format(LOCK_FILE, system_error or "EACCES", options))
    return answer:match("^(%S+) ?(.*)$")
  end

  local function try_to_open(options)
    options.timeout_ms, options.durability = 0, "manual"
    local own, code = probe.store.open(path, options)
    if own then assert(own:close()) end
    return code or "opened"
  end

  for system_error, code in pairs { EACCES = "EACCES", EROFS = "EREADONLY",
    ENOSPC = "ENOSPC" } do
    it("is read, not written: " .. system_error, function()
      for _ = 1, 2 do -- there is a lock file, and there is none
        assert.equal(code, (open_as_loner("readonly = false", system_error)))
        assert.equal("nil", (open_as_loner("readonly = true", system_error)))
        assert.equal("value", loner:ask("return db:get('key')"))
        assert.equal("nil EREADONLY",
          loner:ask("local _, code = db:put('key', '') return _, code"))
        loner:finish()
        os.remove(path .. "-lock")
      end
    end)
  end

  it("is not read where anything else is wrong", function()
    assert.equal("EIO", (open_as_loner("readonly = true", "EIO")))
  end)

  it("is not written by others meanwhile, but read", function()
    assert.equal("nil", (open_as_loner("readonly = true")))
    assert.equal("EBUSY", try_to_open {})
    assert.equal("opened", try_to_open { readonly = true })
    assert.equal("value", loner:ask("return db:get('key')"))
    loner:finish()
    assert.equal("opened", try_to_open {})
  end)

  it("is not read while others share it", function()
    db = scratch.open(path)
    local code, what = open_as_loner("readonly = true")
    assert.equal("EBUSY", code)
    assert.is_truthy(what:find("chmod 666 NAME-lock", 1, true), what)
    loner:finish()
    code, what = open_as_loner("readonly = true", "EROFS") -- chmod is no help
    assert.equal("EBUSY", code)
    assert.is_nil(what:find("chmod", 1, true))
    loner:finish()
    assert(db:close())
    db = nil
    assert.equal("nil", (open_as_loner("readonly = true")))
  end)
end)

describe("an opening whose file's name goes meanwhile", function()
  local path, db

  before_each(function()
    path = scratch.path("store")
    db = nil
    probe.os.restore() -- calls that are counted already would be counted on
  end)

  after_each(function()
    probe.os.restore()
    peers.kill_all()
    if db then db:close() end
  end)

  local function try_to_open(timeout_ms)
    return probe.store.open(path, { durability = "manual", timeout_ms = timeout_ms })
  end

  -- Whoever asks for a name that is gone, for one moment: the file's, or the lock file's.
  it("is tried again, and fails with EBUSY if it may not be", function()
    local ASK = { open = true, stat = true, realpath = true }
    db = scratch.open(path)
    assert(db:put("key", "value"))
    assert(db:close())
    probe.os.watch()
    assert(assert(try_to_open(0)):close())
    local calls, refused = probe.os.trace(), 0
    for n = 1, #calls do
      if ASK[calls[n]] then
        local where = ("call %d, %s"):format(n, calls[n])
        probe.os.fail("*", n, "ENOENT")
        local code
        db, code = try_to_open(0)
        if not db then
          refused = refused + 1
          assert.equal("EBUSY", code, where)
          probe.os.fail("*", n, "ENOENT")
          db, code = try_to_open(5000)
        end
        probe.os.restore()
        assert.equal("nil", tostring(code), where)
        assert.equal("value", db:get("key"), where)
        assert(db:close())
      end
    end
    assert.is_true(refused > 4, refused)
  end)

  for _, create in ipairs { true, false } do
    it("makes another one, or finds none: " .. tostring(create), function()
      if not crash.has_hooks then return pending("needs --enable-debug-checks") end
      db = scratch.open(path)
      assert(db:put("key", "value"))
      assert(db:close())
      db = nil
      local late = peers.launch(path)
      -- It has read the superblock for the second time, and is about to map the file.
      late:ask("probe.crash.die_at_point(2, tonumber((...)), 'superblock read')", SIGSTOP)
      late:tell([[
        local code
        db, code = probe.store.open(path, { create = (...) == "true" })
        return code
      ]], tostring(create))
      late:await_stopped()
      assert(os.remove(path))
      late:go_on()
      assert.equal(create and "nil" or "ENOENT", late:answer())
      if create then assert.equal("nil", late:ask("return (db:get('key'))")) end
      late:finish()
    end)
  end
end)

describe("an opening that fails", function()
  local folder, path

  before_each(function()
    folder = scratch.path("folder")
    scratch.shell("mkdir " .. scratch.quoted(folder))
    path = folder .. "/store"
  end)

  after_each(function()
    probe.os.restore()
    peers.kill_all()
  end)

  local function names()
    return (scratch.shell("ls " .. scratch.quoted(folder)):gsub("\n", " "))
  end

  local function try_to_open(options)
    local all = { durability = "manual", timeout_ms = 0 }
    for name, value in pairs(options or {}) do all[name] = value end
    return probe.store.open(path, all)
  end

  it("leaves nothing behind, whichever system call of it fails", function()
    probe.os.watch()
    assert(assert(try_to_open()):remove())
    local calls = probe.os.trace()
    probe.os.restore()
    assert.equal("", names())
    local failures = 0
    for n = 1, #calls do
      probe.os.fail("*", n, "EIO")
      local db, code = try_to_open()
      probe.os.restore()
      if db then
        assert(db:close())
        scratch.shell(("rm -f %s/*"):format(scratch.quoted(folder)))
      else
        failures = failures + 1
        assert.is_string(code)
        assert.equal("", names(), ("call %d, %s"):format(n, calls[n]))
      end
    end
    assert.is_true(failures > 30)
  end)

  it("leaves nothing where only the lock file is lacking room, or addresses",
    function()
      probe.os.fail("fallocate", 1, "ENOSPC", 0)
      assert.equal("ENOSPC", select(2, try_to_open()))
      probe.os.restore()
      assert.equal("", names())
      probe.os.fail("mmap", 2, "ENOMEM", 0)
      assert.equal("EADDRESS", select(2, try_to_open()))
      probe.os.restore()
      assert.equal("", names())
    end)

  it("makes no file beside a lock file that is somebody else's", function()
    scratch.write(path .. "-lock", "precious notes\n")
    assert.equal("EFORMAT", select(2, try_to_open()))
    assert.equal("store-lock", names())
    assert.equal("precious notes\n", scratch.read(path .. "-lock"))
  end)

  for _, exclusive in ipairs { false, true } do
    it("makes no file where others have one that was deleted"
      .. (exclusive and ", nor exclusively" or ""), function()
        local user = peers.launch(path)
        user:ask("db = assert(probe.store.open(path, { durability = 'manual' }))")
        assert(os.remove(path))
        local db, code = try_to_open { timeout_ms = 50, exclusive = exclusive }
        assert.is_nil(db)
        assert.equal("EBUSY", code)
        assert.equal("store-lock", names())
        user:finish()
        db = assert(try_to_open { exclusive = exclusive })
        assert(db:close())
      end)
  end

  it("leaves a lock file that others use, or have used", function()
    local db = scratch.open(path)
    assert(db:close())
    assert(os.remove(path))
    probe.os.fail("mmap", 2, "ENOMEM", 0)
    assert.equal("EADDRESS", select(2, try_to_open()))
    probe.os.restore()
    assert.equal("store-lock", names())
  end)

  -- Who has made the lock file comes late: the other one has made the store meanwhile,
  -- and died. What it has put is in the lock file alone.
  it("leaves a lock file that is all there is of a change", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    if not has_takeover then return pending("no takeover here") end
    local late, quick = peers.launch(path), peers.launch(path)
    late:ask("probe.crash.die_at_point(1, tonumber((...)), 'lock file')", SIGSTOP)
    late:tell([[
      local code
      db, code = probe.store.open(path, { durability = "manual" })
      return code or db:get("key")
    ]])
    late:await_stopped()
    quick:ask([[
      db = assert(probe.store.open(path, { durability = "manual" }))
      assert(db:put("key", "value"))
    ]])
    quick:kill()
    late:go_on()
    assert.equal("value", late:answer())
    late:finish()
  end)

  -- A process has put something, and died in a change.
  local function leave_a_dead_one(n)
    path = ("%s/store-%d"):format(folder, n)
    local child = probe.child.start(function()
      local db = scratch.open(path)
      assert(db:put("key", "committed"))
      assert(db:sync())
      assert(db:put("key", "value"))
      probe.child.say("done")
      if crash.has_hooks then probe.crash.die_at_point(1, SIGKILL, "locked") end
      db:put("another", "value")
      probe.child.hear()
    end)
    assert.equal("done", child:line())
    if not crash.has_hooks then child:kill() end
    child:wait()
  end

  -- Whoever was without a descriptor, or memory, just when it asked for the number of the
  -- boot, went on as if there was none: all that was not committed was gone, and nobody
  -- said so.
  it("or not, loses nothing that the dead have left, whichever call of it fails",
    function()
      if not has_takeover then return pending("no takeover here") end
      leave_a_dead_one(0)
      probe.os.watch()
      local db = scratch.open(path)
      local calls = probe.os.trace()
      probe.os.restore()
      assert(db:close())
      for _, name in ipairs { "EMFILE", "ENOMEM" } do
        for n = 1, #calls do
          if calls[n] ~= "fstat" then -- of a file that is open: it does not fail
            leave_a_dead_one(n)
            probe.os.fail("*", n, name)
            db = try_to_open()
            probe.os.restore()
            db = db or scratch.open(path)
            assert.equal("value", db:get("key"),
              ("%s, call %d, %s"):format(name, n, calls[n]))
            assert(db:remove())
          end
        end
      end
    end)

  it("or not, loses nothing that the dead have left, whatever memory it lacks",
    function()
      if not has_takeover then return pending("no takeover here") end
      local output = scratch.shell(("%s starved %s 2>&1; echo status=$?"):format(
        scratch.quoted(os.getenv("MMCMAP_BUILD_DIR") .. "/sharer"),
        scratch.quoted(path)))
      local count = output:match("^allocations (%d+)\nstatus=0$")
      assert.is_truthy(count, output)
      assert.is_true(tonumber(count) > 3, output)
    end)

  -- There were addresses for the file, but not for the table of its segments.
  it("for want of addresses does not discard what the dead have left", function()
    if not has_takeover then return pending("no takeover here") end
    local db
    for refused = 14, 20 do -- of the attempts to map the table: each is for half as much
      path = ("%s/store-%d"):format(folder, refused)
      local child = probe.child.start(function()
        local own = scratch.open(path)
        for i = 1, 150 do -- more segments than one page of the table has
          assert(own:put("large " .. i, ("x"):rep(120000)))
        end
        assert(own:sync())
        assert(own:put("key", "value"))
        probe.child.say("done")
        probe.child.hear()
      end)
      assert.equal("done", child:line())
      child:kill()
      child:wait()
      probe.os.fail("mmap", 4, "ENOMEM", refused) -- 1 is the file's, 3 the lock file's
      local code
      db, code = try_to_open()
      probe.os.restore()
      if not db then
        assert.equal("EADDRESS", code)
        db = scratch.open(path)
      end
      assert.equal("value", db:get("key"))
      assert(db:remove())
    end
  end)

  -- It went in good order, and left a lock file without what it had not got to.
  it("late does not discard what the dead have left", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    if not has_takeover then return pending("no takeover here") end
    leave_a_dead_one(0)
    local late = peers.launch(path)
    late:ask("probe.crash.die_at_point(1, tonumber((...)), 'locked')", SIGSTOP)
    late:tell([[
      local code
      db, code = probe.store.open(path, { durability = "manual" })
      return code
    ]])
    late:await_stopped()
    local connection = assert(probe.share.connect(path .. "-lock", path))
    local size = connection:get("live.size_bytes")
    connection:set("live.size_bytes", 2 ^ 50)
    late:go_on()
    assert.equal("EADDRESS", late:answer())
    connection:set("live.size_bytes", size)
    connection:close()
    late:finish()
    assert.equal("value", scratch.open(path):get("key"))
  end)

  -- One makes the file and fails; somebody else has found it in between.
  it("takes its file from nobody who has found it", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    for _, first in ipairs { "maker", "finder" } do
      local maker, finder = peers.launch(path), peers.launch(path)
      maker:ask([[
        probe.crash.die_at_point(1, tonumber((...)), "file made")
        probe.os.fail("fsync", 1, "EIO") -- of the folder
      ]], SIGSTOP)
      maker:tell([[
        local code
        db, code = probe.store.open(path, { durability = "manual" })
        return code
      ]])
      maker:await_stopped()
      assert.is_truthy(scratch.read(path))
      if first == "finder" then -- it holds a descriptor of that file
        finder:ask([[
          probe.crash.die_at_point(1, tonumber((...)), "lock file")
        ]], SIGSTOP)
      end
      finder:tell([[
        db = assert(probe.store.open(path, { durability = "manual" }))
        return db:put("key", "value")
      ]])
      if first == "finder" then finder:await_stopped() else probe.os.sleep_ms(30) end
      maker:go_on()
      assert.equal("EIO", maker:answer())
      if first == "finder" then finder:go_on() end
      assert.equal("true", finder:answer())
      maker:ask("probe.os.restore()")
      assert.equal("nil", maker:ask([[
        local code
        db, code = probe.store.open(path, { durability = "manual" })
        return code
      ]]))
      assert.equal("value", maker:ask("return db:get('key')"))
      maker:finish()
      finder:finish()
      scratch.shell(("rm %s/*"):format(scratch.quoted(folder)))
    end
  end)
end)
