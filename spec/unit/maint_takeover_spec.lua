-- SPDX-License-Identifier: MIT
--
-- What must be true before the live state that the dead have left in the lock
-- file is believed. Each condition is broken alone: then ordinary recovery runs
-- and gives the last commit. With none broken nothing is lost.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"
local share = probe.share
local WORD_STEP = crash.thinning > 1 and 40 or 8

local SEGMENT, SIGKILL, SIGSTOP = 131072, 9, 19

describe("maint.takeover", function()
  local path, lock_path, db
  local committed, all -- what the last commit has, and what was put at all

  before_each(function()
    path = scratch.path("store")
    lock_path = path .. "-lock"
  end)

  teardown(crash.remove_folder)

  after_each(function()
    peers.kill_all()
    probe.os.restore()
    probe.crash.breaks()
    if db then db:close() end
    db = nil
  end)

  local function open() return scratch.open(path) end

  -- A process that has done `act` with the store and is killed.
  local function die_after(act)
    local child = probe.child.start(function()
      local own = open()
      act(own)
      probe.child.say("done")
      probe.child.hear()
    end)
    assert.equal("done", child:line())
    child:kill()
    child:wait()
  end

  local function copy_of(records)
    local copy = {}
    for key, value in pairs(records) do copy[key] = value end
    return copy
  end

  -- Ten records are committed; then come more than one segment has room for, of a
  -- sealed epoch and of the open one: so one frame is closed, and one is open. Nothing
  -- but the commit is on the medium.
  local function leave_a_store()
    local function record(i)
      -- The later ones are longer than a segment.
      return "key " .. i, ("value " .. i):rep(i > 10 and 1900 or i)
    end
    committed = {}
    for i = 1, 10 do
      local key, value = record(i)
      committed[key] = value
    end
    all = copy_of(committed)
    for i = 11, 20 do
      local key, value = record(i)
      all[key] = value
    end
    all["key 1"] = nil
    all["key 2"] = "changed"
    die_after(function(own)
      for i = 1, 10 do assert(own:put(record(i))) end
      assert(own:sync())
      for i = 11, 15 do assert(own:put(record(i))) end
      assert(own:version()) -- seals
      for i = 16, 20 do assert(own:put(record(i))) end
      assert(own:delete("key 1"))
      assert(own:put("key 2", "changed"))
    end)
  end

  local function matches(records, state)
    for key, value in pairs(state) do
      if records[key] ~= value then return false end
    end
    for key in pairs(records) do
      if state[key] == nil then return false end
    end
    return true
  end

  -- Which of the two states the store has that is opened now; it works on, and
  -- its file is whole.
  local function opened_as()
    db = open()
    local records, met = db:records()
    local word
    if not records then
      word = met -- an error
    else
      assert.equal(met, db:count())
      word = matches(records, all) and "all"
        or matches(records, committed) and "committed" or "something else"
    end
    assert(db:put("afterwards", "it works on"))
    assert.equal("it works on", db:get("afterwards"))
    local ok = db:close()
    db = nil
    if word == "all" or word == "committed" then
      assert.is_true(ok)
      local report = assert(probe.verify.bytes(scratch.read(path)))
      assert.same({}, report.failures)
      db = open()
      assert.equal("it works on", db:get("afterwards"))
    end
    return word
  end

  -- Calls f(connection) with the lock file that the dead have left.
  local function change_lock_file(f)
    local connection = assert(share.connect(lock_path, path))
    local ok, message = pcall(f, connection)
    connection:close()
    assert(ok, message)
  end

  -- The field of the good one of two: "log", "chain".
  local function good(connection, which, field)
    local index = connection:get(which == "log" and "change.log_index"
      or "commit.chain_index") % 2
    return ("%s[%d].%s"):format(which, index, field)
  end

  local function offset_of(which, field)
    local offset
    change_lock_file(function(connection)
      offset = tonumber(connection:get(good(connection, which, field)), 16)
    end)
    return offset
  end

  local function overwrite(offset, bytes)
    local file = assert(io.open(path, "r+b"))
    file:seek("set", offset)
    file:write(bytes)
    file:close()
  end

  local has_mount_ids = (function()
    local fd = assert(probe.os.file_open(
      scratch.write(scratch.path("mounts"), ""), true))
    local id = probe.os.file_mount_id(fd)
    probe.os.file_close(fd)
    return id ~= nil
  end)()

  if not has_mount_ids then
    it("never happens where mounts have no numbers", function()
      leave_a_store()
      assert.equal("committed", opened_as())
    end)
    return
  end

  it("loses nothing if nothing has changed", function()
    leave_a_store()
    assert.equal("all", opened_as())
  end)

  it("loses nothing however often it is done", function()
    leave_a_store()
    for i = 1, 5 do
      die_after(function(own)
        assert(own:put("round " .. i, "value " .. i))
        if i == 3 then assert(own:version()) end
      end)
      all["round " .. i] = "value " .. i
    end
    die_after(function() end)
    assert.equal("all", opened_as())
  end)

  it("happens without a change, too, and after a seal alone", function()
    leave_a_store()
    die_after(function(own) assert(own:version()) end)
    change_lock_file(function(connection)
      local epoch = connection:get(good(connection, "log", "epoch"))
      assert.is_true(tonumber(connection:get("change.changed_epoch"), 16)
        < tonumber(epoch, 16))
    end)
    assert.equal("all", opened_as())
  end)

  -- Behind a savepoint it goes on in another epoch; what it has left of the open frame is
  -- closed with that.
  it("loses nothing but a transaction that has left the open frame", function()
    for _, ending in ipairs { "dies", "is aborted", "is inherited" } do
      leave_a_store()
      die_after(function(own)
        local txn = assert(own:begin())
        assert(txn:put("new", "never"))
        assert(txn:savepoint())
        for i = 1, 100 do assert(txn:put("new " .. i, ("never"):rep(1000))) end
        if ending == "is aborted" then txn:abort() end
      end)
      if ending == "is inherited" then
        die_after(function(own) assert(own:stat()) end) -- it has the lock once
      end
      assert.equal("all", opened_as())
      assert(db:close())
      db = nil
      scratch.shell("rm " .. path .. "*")
    end
  end)

  it("tells of no recovery, whatever the dead had recovered", function()
    leave_a_store()
    local copy = scratch.write(scratch.path("copy"), scratch.read(path))
    path, lock_path = copy, copy .. "-lock"
    die_after(function(own)
      assert(own:stat().recovered_commits == 1)
      assert(own:put("key 3", "changed"))
    end)
    db = open()
    assert.equal("changed", db:get("key 3"))
    assert.equal(0, db:stat().recovered_commits)
    assert.is_false(db:stat().was_clean)
  end)

  it("happens once: a store that was closed is opened as a clean one",
    function()
      leave_a_store()
      db = open()
      assert.equal(0, db:stat().recovered_commits)
      assert(db:close())
      change_lock_file(function(connection)
        assert.equal(0, connection:get("state"))
      end)
      db = open()
      assert.is_true(db:stat().was_clean)
      db:close()
      assert.equal("all", opened_as())
    end)

  -- ---- The lock file ------------------------------------------------------------

  -- What is done to the lock file, by name.
  local BROKEN = {
    { "the layout", function(c) c:set("layout", c:get("layout") + 1) end },
    { "the state", function(c) c:set("state", 0) end },
    { "the state, to no known one", function(c) c:set("state", 2) end },
    { "the boot id", function(c) c:set("boot_id", ("\1"):rep(16)) end },
    { "one bit of the boot id", function(c)
      local id = c:get("boot_id")
      c:set("boot_id", id:sub(1, 15) .. string.char((id:byte(16) + 1) % 256))
    end },
    { "the mount id", function(c)
      c:set("mount_id", tonumber(c:get("mount_id"):sub(9), 16) + 1)
    end },
    { "the mount id, to none", function(c) c:set("mount_id", 0) end },
    { "the device", function(c) c:set("device", 1) end },
    { "the inode", function(c) c:set("inode", 1) end },
    { "the lock file's own device", function(c) c:set("lock_device", 1) end },
    { "the lock file's own inode", function(c) c:set("lock_inode", 1) end },
    { "the number of the superblock", function(c)
      local word = tonumber(c:get("commit.superblock"), 16)
      c:set("commit.superblock", word + 4)
    end },
    { "the number of the superblock, by two less", function(c)
      local word = tonumber(c:get("commit.superblock"), 16)
      c:set("commit.superblock", word - 8)
    end },
    { "the file id", function(c) c:set("file_id", ("\2"):rep(16)) end },
    { "the flag of a failed commit", function(c)
      c:set("commit.failed", 4294967292) -- MMCMAP_EIO
    end },
    { "that the session has begun", function(c)
      c:set(good(c, "log", "flags"), 0)
    end },
    { "the salt", function(c) c:set(good(c, "log", "salt"), 1) end },
    { "the epoch", function(c) c:set(good(c, "log", "epoch"), 1) end },
    { "the first epoch that is not committed", function(c)
      local epoch = tonumber(c:get(good(c, "log", "epoch")), 16)
      c:set(good(c, "log", "first_epoch"), epoch + 1)
    end },
    { "the same, of what is committed", function(c)
      c:set(good(c, "log", "first_epoch"), c:get("commit.durable_epoch"))
    end },
    { "where the frame is", function(c)
      local name = good(c, "log", "frame_offset")
      c:set(name, tonumber(c:get(name), 16) + 8)
    end },
    { "where the chain begins", function(c)
      local name = good(c, "chain", "next_offset")
      c:set(name, tonumber(c:get(name), 16) + 8)
    end },
    { "where the chain begins, to nowhere", function(c)
      c:set(good(c, "chain", "next_offset"), 0)
    end },
    { "where the chain begins, beyond the file", function(c)
      c:set(good(c, "chain", "next_offset"), "7ffffffffffffff8")
    end },
  }
  for _, cursor in ipairs { "0000000000000000", "0000000000000007",
    "0000000000004001", "00000000ffffff00", "7fffffffffffff00",
    "fffffffffffffff8", "ffffffffffffffff" } do
    BROKEN[#BROKEN + 1] = { "the cursor, to " .. cursor, function(c)
      c:set(good(c, "log", "cursor"), cursor)
    end }
  end
  for _, distance in ipairs { -8, -24, 8, 64, 4096 } do
    BROKEN[#BROKEN + 1] = { ("the cursor, by %d"):format(distance),
      function(c)
        local name = good(c, "log", "cursor")
        c:set(name, tonumber(c:get(name), 16) + distance)
      end }
  end

  for _, case in ipairs(BROKEN) do
    it("does not believe a lock file that differs in " .. case[1], function()
      leave_a_store()
      change_lock_file(case[2])
      assert.equal("committed", opened_as())
    end)
  end

  it("does not need what it can do without", function()
    leave_a_store()
    change_lock_file(function(connection)
      connection:set("chunk_count", 4294967295)
      connection:set("change.last_writer", 99)
      for _, lock in ipairs { "writer", "growth", "leader" } do
        connection:set_word(4242, lock)
      end
    end)
    assert.equal("all", opened_as())
  end)

  it("does not happen where the system tells no boot or mount", function()
    leave_a_store()
    probe.os.pretend_old_statx()
    assert.equal("committed", opened_as())
  end)

  it("does not happen with a lock file that is new, empty or cut off",
    function()
      for _, size in ipairs { -1, 0, 100, 4096 } do
        leave_a_store()
        local before = scratch.read(lock_path)
        if size < 0 then os.remove(lock_path) end
        if size >= 0 then scratch.write(lock_path, before:sub(1, size)) end
        -- Even if the header is whole: the table of segments is not there.
        assert.equal("committed", opened_as())
        db:close()
        db = nil
        os.remove(path)
      end
    end)

  it("does not happen with a lock file full of anything", function()
    for _, byte in ipairs { "\0", "\1", "\127", "\255" } do
      leave_a_store()
      local magic = byte ~= "\0" and "mmclock\n" or ""
      scratch.write(lock_path, magic .. byte:rep(20480))
      assert.equal("committed", opened_as())
      db:close()
      db = nil
      os.remove(path)
    end
  end)

  -- Every word of the header, one after the other: nothing may crash, hang or
  -- be worse than an error. (The content is believed where the words agree.)
  it("bears any word of the lock file", function()
    path = crash.path("any-word")
    lock_path = path .. "-lock"
    leave_a_store()
    local image = scratch.read(path)
    local pages, lock_size = scratch.read_pages(lock_path)
    local header = pages[0]
    assert.equal("all", opened_as()) -- it is believed as it is
    db:close()
    db = nil
    local function try(offset, change)
      scratch.write(path, image)
      pages[0] = header:sub(1, offset)
        .. change(header:sub(offset + 1, offset + 8)) .. header:sub(offset + 9)
      scratch.write_pages(lock_path, pages, lock_size)
      local text, how, status = probe.child.run(function()
        local own, code = probe.store.open(path, { durability = "manual",
          segment_size = SEGMENT, timeout_ms = 100 })
        if not own then return code end
        own:records()
        own:put("another", "record")
        own:get("another")
        own:delete("key 5")
        own:version()
        own:close()
        return "well"
      end)
      if how == "exit" and status == 0 then return end
      return ("%d: %s %d %s"):format(offset, how, status, text)
    end
    local failures = {}
    for offset = 128 + os.time() * 8 % WORD_STEP, 960, WORD_STEP do
      for _, change in ipairs(crash.words) do
        failures[#failures + 1] = try(offset, change)
      end
    end
    assert.same({}, failures)
  end)

  -- ---- The data file ------------------------------------------------------------

  it("does not believe it if an older copy was put in the file's place",
    function()
      die_after(function(own)
        assert(own:put("old", "record"))
        assert(own:sync())
      end)
      committed, all = { old = "record" }, nil
      -- What opens it now begins a session of its own, with another salt.
      os.remove(lock_path)
      local image = scratch.read(path)
      local expected = committed
      die_after(function(own)
        assert(own:put("new", "record"))
        assert(own:sync())
        assert(own:put("newer", "record"))
      end)
      scratch.write(path, image) -- in place: the inode is the same
      committed, all = expected, { old = "record", new = "record",
        newer = "record" }
      assert.equal("committed", opened_as())
    end)

  it("does not believe an older copy of the lock file", function()
    leave_a_store()
    local lock_image = scratch.read(lock_path)
    db = open()
    assert(db:put("later", "than the copy"))
    assert(db:close())
    scratch.write(lock_path, lock_image) -- in place
    all["later"] = "than the copy"
    assert.equal("all", opened_as())
  end)

  it("does not believe a lock file that was copied", function()
    leave_a_store()
    local lock_image = scratch.read(lock_path)
    os.rename(lock_path, lock_path .. "-before")
    scratch.write(lock_path, lock_image)
    assert.equal("committed", opened_as())
  end)

  it("does not believe it if another file has taken the name", function()
    leave_a_store()
    local image = scratch.read(path)
    os.rename(path, path .. "-before")
    scratch.write(path, image)
    assert.equal("committed", opened_as())
  end)

  local FRAME_HEADER = 72 -- its first word, the checksum, comes last of all

  it("waits for those who use the lock file, of a file that had the name before",
    function()
      db = open()
      assert(db:put("key", "old") and db:sync())
      local other = scratch.write(scratch.path("other"), scratch.read(path))
      assert(os.rename(other, path))
      local user = peers.launch(path)
      local try = [[
        local code
        db, code = probe.store.open(path, { durability = "manual", timeout_ms = 0 })
        return code
      ]]
      assert.equal("EBUSY", user:ask(try))
      assert(db:put("key", "new"))
      assert.equal("new", db:get("key"))
      assert(db:close())
      db = nil
      assert.equal("nil", user:ask(try))
      assert.equal("old", user:ask("return db:get('key')"))
      user:finish()
    end)

  -- Two lock files for one data file would be two writers of it.
  describe("of a file that others use by another name", function()
    local other, user

    local function is_refused()
      local _, code = probe.store.open(path, { durability = "manual", timeout_ms = 0 })
      assert.equal("EBUSY", code)
      user:ask("assert(db:put('key', 'of the user'))")
      user:finish()
    end

    local function link(from, to)
      assert.equal("", scratch.shell(("ln -f %s %s 2>&1"):format(
        scratch.quoted(from), scratch.quoted(to))))
    end

    before_each(function() other = path .. "-other" end)

    local function use_other()
      user = peers.launch(other)
      user:ask("db = assert(probe.store.open(path, { durability = 'manual' }))")
    end

    it("is not joined by what the dead have left", function()
      leave_a_store()
      link(path, other)
      use_other()
      is_refused()
    end)

    it("is not joined by the lock file of another one", function()
      local owner = peers.launch(path)
      owner:ask("db = assert(probe.store.open(path, { durability = 'manual' }))")
      owner:ask("assert(db:put('key', 'of the owner'))")
      use_other()
      link(other, path)
      is_refused()
      assert.equal("of the owner", owner:ask("return db:get('key')"))
      owner:finish()
    end)
  end)

  it("does not believe it if the open frame is not there", function()
    for _, zeros in ipairs { 16, FRAME_HEADER, 200, 4096 } do
      leave_a_store()
      overwrite(offset_of("log", "frame_offset"), ("\0"):rep(zeros))
      assert.equal("committed", opened_as())
      db:close()
      db = nil
      os.remove(path)
    end
  end)

  it("does not believe it if the open frame ends too early", function()
    leave_a_store()
    local from, to = offset_of("log", "frame_offset"),
      offset_of("log", "cursor")
    assert.is_true(to - from > 400)
    overwrite(to - 200, ("\0"):rep(200))
    assert.equal("committed", opened_as())
  end)

  -- Recovery would not come to what has not been committed.
  it("does not believe it if a frame of the last commit is not there", function()
    leave_a_store()
    local record = "key 5" .. committed["key 5"]
    overwrite(scratch.read(path):find(record, 1, true) - 1, "K")
    db = open()
    assert.same({}, (db:records()))
    assert(db:put("afterwards", "it works on"))
  end)

  it("does not believe it if a closed frame is not there", function()
    for _, bytes in ipairs { ("\0"):rep(FRAME_HEADER), ("\255"):rep(16),
      ("\255"):rep(FRAME_HEADER) } do
      leave_a_store()
      local first = offset_of("chain", "next_offset")
      assert.not_equal(first, offset_of("log", "frame_offset"))
      overwrite(first, bytes)
      assert.equal("committed", opened_as())
      db:close()
      db = nil
      os.remove(path)
    end
  end)

  -- ---- What the dead owned --------------------------------------------------------

  if not probe.crash.has_hooks then return end

  it("leaves locks to be inherited, and what they guard is repaired",
    function()
      leave_a_store()
      local text, how, status = probe.child.run(function()
        local own = open()
        probe.crash.die_at_point(1, SIGKILL, "published")
        own:put("last", "was stored, and not counted")
      end)
      assert.same({ "", "signal", SIGKILL }, { text, how, status })
      all["last"] = "was stored, and not counted"
      local count = 0
      for _ in pairs(all) do count = count + 1 end
      db = scratch.open(path, { readonly = true })
      assert.equal(count, db:count()) -- before anybody asks for the lock
      assert(db:close())
      assert.equal("all", opened_as())
    end)

  it("loses nothing if the heir of a change that was not made dies, too",
    function()
      leave_a_store()
      for _, act in ipairs { function(own) own:put("key 3", "never") end,
        function(own) own:put("new", "never") end } do
        local text, how, status = probe.child.run(function()
          local own = open()
          probe.crash.die_at_point(1, SIGKILL, "publish")
          act(own)
        end)
        assert.same({ "", "signal", SIGKILL }, { text, how, status })
        die_after(function(own) assert(own:stat()) end) -- it has the lock once
        die_after(function() end)
      end
      assert.equal("all", opened_as())
    end)

  it("takes a commit over that was under way", function()
    for _, point in ipairs { "led", "sync", "sealed", "locked" } do
      leave_a_store()
      local text, how, status = probe.child.run(function()
        local own = open()
        probe.crash.die_at_point(1, SIGKILL, point)
        own:sync()
      end)
      assert.same({ "", "signal", SIGKILL }, { text, how, status })
      assert.equal("all", opened_as(), point)
      db:close()
      db = nil
      os.remove(path)
    end
  end)

  -- The kernel may have dropped pages that it could not write, and have told nobody:
  -- the next sync would succeed without them.
  for when, die in pairs {
    ["was being synced"] = function() probe.os.die("fdatasync", 1) end,
    ["a sync has failed for, which nobody was told"] = function()
      probe.os.fail("fdatasync", 1, "EIO")
      probe.crash.die_at_point(1, SIGKILL, "synced")
    end,
  } do
    it("writes again what " .. when .. ", where it may write", function()
      leave_a_store()
      local text, how, status = probe.child.run(function()
        local own = open()
        die()
        own:sync()
      end)
      assert.same({ "", "signal", SIGKILL }, { text, how, status })
      probe.os.watch()
      db = scratch.open(path, { readonly = true })
      assert.equal(0, probe.os.counts().pwrite)
      assert.same(all, (db:records()))
      assert(db:close())
      db = open()
      assert.is_true(probe.os.counts().pwrite > 2) -- a superblock, and frames
      assert(db:close())
      db = nil
      probe.os.restore()
      assert.equal("all", opened_as())
    end)
  end

  -- What is in frames that nobody has closed yet the kernel may have dropped as well, and
  -- the pages of large values.
  it("writes again what has been put since the sync that failed began", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local large = binary.bytes(300000, 1)
    local one = peers.launch(path)
    one:ask([[
      db = assert(probe.store.open(path, { durability = "manual", segment_size = 131072 }))
      for i = 1, 2000 do assert(db:put("key " .. i, ("v"):rep(200))) end
      assert(db:sync() and db:put("before", (...)))
      probe.os.fail("fdatasync", 1, "EIO")
      probe.crash.die_at_point(1, 19, "synced")
    ]], large)
    one:tell("db:sync()")
    one:await_stopped()
    local other = peers.launch(path)
    other:ask([[
      db = assert(probe.store.open(path, { durability = "manual", segment_size = 131072 }))
      for i = 1, 2000 do
        if i % 4 > 0 then assert(db:delete("key " .. i)) end
      end
      for _ = 1, 40 do assert(db:clean(100000)) end
      assert(db:put("since", "s" .. (...)))
    ]], large)
    other:kill()
    one:kill()
    local bytes, wanted = scratch.read(path), {}
    local function want(first, last) wanted[#wanted + 1] = { first, last } end
    local branches = offset_of("log", "branch_frame")
    assert.is_true(branches > 0)
    want(branches, offset_of("log", "branch_cursor"))
    want(offset_of("log", "branch_first"), offset_of("log", "branch_first") + FRAME_HEADER)
    want(offset_of("log", "frame_offset"), offset_of("log", "cursor"))
    for _, value in ipairs { large, "s" .. large } do
      local at = bytes:find(value, 1, true) - 1
      want(at - 64, at + #value)
    end
    probe.os.watch()
    db = open()
    local writes, from = probe.os.writes(), {}
    for i = 1, #writes, 2 do from[writes[i]] = writes[i] + writes[i + 1] end
    for _, range in ipairs(wanted) do
      local at = range[1]
      while at < range[2] do
        at = assert(from[at], ("%d of %d to %d"):format(at, range[1], range[2]))
      end
    end
  end)

  -- The opener has looked at the file, and stands still before it asks who else is
  -- there. What it has seen is two superblocks old then, or names more than there is.
  for _, case in ipairs { "longer", "shorter" } do
    it("goes by what all left that died while it opened: a " .. case .. " file", function()
      if not crash.has_hooks then return pending("needs --enable-debug-checks") end
      local user, opener = peers.launch(path), peers.launch(path)
      user:ask([[
        db = assert(probe.store.open(path, { durability = "manual" }))
        function fill(value)
          for i = 1, 400 do
            assert(db:put("key " .. i % 100, value:rep(20000)))
            if i % 20 == 0 then assert(db:sync()) end
          end
        end
        if (...) == "shorter" then fill("a") end
        assert(db:put("key", "old") and db:sync())
      ]], case)
      opener:ask("probe.crash.die_at_point(1, tonumber((...)), 'looked at')", SIGSTOP)
      opener:tell([[
        db = assert(probe.store.open(path, { durability = "manual" }))
        local problems = db:check()
        return db:get("key") .. " " .. #problems
      ]])
      opener:await_stopped()
      user:ask([[
        if (...) == "longer" then fill("b") end
        for i = 0, 99 do db:delete("key " .. i) end
        if (...) == "shorter" then for _ = 1, 4 do assert(db:step(1000)) end end
        assert(db:put("key", "new") and db:sync())
        assert(db:put("key", "newest"))
      ]], case)
      user:kill(SIGKILL)
      opener:go_on()
      assert.equal("newest 0", opener:answer())
      opener:finish()
    end)
  end

  -- As many addresses as it may take, or the file had: those who were there might take
  -- more.
  it("gives up if it has too few addresses for what all left that died meanwhile",
    function()
      if not crash.has_hooks then return pending("needs --enable-debug-checks") end
      local user, opener = peers.launch(path), peers.launch(path)
      user:ask([[
        db = assert(probe.store.open(path, { durability = "manual" }))
        assert(db:put("key", "old") and db:sync())
      ]])
      opener:ask([[
        function open()
          local code
          db, code = probe.store.open(path, { durability = "manual", max_size = 1048576 })
          return db and db:get("key") or code
        end
        probe.crash.die_at_point(1, tonumber((...)), 'looked at')
      ]], SIGSTOP)
      opener:tell("return open()")
      opener:await_stopped()
      user:ask([[
        assert(db:put("large", ("l"):rep(4000000)) and db:sync())
        assert(db:put("key", "new"))
      ]])
      user:kill(SIGKILL)
      opener:go_on()
      assert.equal("EADDRESS", opener:answer())
      assert.equal("new", opener:ask("return open()"))
      opener:finish()
    end)

  -- The same of an opener that has read a superblock and not yet asked how long the
  -- file is: the others go on.
  it("is not misled by those who make the file shorter while it opens", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local user, opener = peers.launch(path), peers.launch(path)
    user:ask([[
      db = assert(probe.store.open(path, { durability = "manual" }))
      for i = 1, 100 do assert(db:put("key " .. i, ("a"):rep(40000))) end
      assert(db:sync() and db:put("key", "old") and db:step(1000) and db:sync())
    ]])
    opener:ask("probe.crash.die_at_point(1, tonumber((...)), 'superblock read')", SIGSTOP)
    opener:tell([[
      local message
      db, message = probe.store.open(path, { durability = "manual" })
      return db and db:get("key") or message
    ]])
    opener:await_stopped()
    local before = #scratch.read(path)
    user:ask([[
      for i = 1, 100 do db:delete("key " .. i) end
      for _ = 1, 4 do assert(db:step(1000)) end
      assert(db:put("key", "new") and db:sync())
    ]])
    assert.is_true(#scratch.read(path) < before / 2)
    opener:go_on()
    assert.equal("new", opener:answer())
    opener:finish()
    user:finish()
  end)

  -- It has read a superblock of the one, and would map the other.
  it("opens the file that takes the name meanwhile, and no mixture of two", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local other = path .. "-other"
    for name, count in pairs { [path] = 10, [other] = 1000 } do
      local own = scratch.open(name)
      for i = 1, count do assert(own:put("key " .. i, "of " .. count)) end
      assert(own:close())
    end
    local opener = peers.launch(path)
    opener:ask("probe.crash.die_at_point(2, tonumber((...)), 'superblock read')", SIGSTOP)
    opener:tell([[
      db = assert(probe.store.open(path, { durability = "manual" }))
      return db:get("key 1"), db:count() == 1000, #db:check()
    ]])
    opener:await_stopped()
    assert(os.rename(other, path))
    opener:go_on()
    assert.equal("of 1000 true 0", opener:answer())
    opener:finish()
  end)

  it("makes a new store where the file is removed meanwhile", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local own, opener = open(), peers.launch(path)
    assert(own:put("key", "old"))
    assert(own:close())
    opener:ask("probe.crash.die_at_point(1, tonumber((...)), 'superblock read')", SIGSTOP)
    opener:tell([[
      db = assert(probe.store.open(path, { durability = "manual" }))
      return db:get("key"), db:put("key", "new")
    ]])
    opener:await_stopped()
    assert(os.remove(path))
    opener:go_on()
    assert.equal("nil true", opener:answer())
    opener:finish()
    db = open()
    assert.equal("new", db:get("key"))
  end)

  -- Else the next ones would have another, and be told that it is not that of its users.
  for _, what in ipairs { "removed", "replaced" } do
    it("uses the lock file of that name if it was " .. what .. " meanwhile", function()
      if not crash.has_hooks then return pending("needs --enable-debug-checks") end
      leave_a_store()
      local opener = peers.launch(path)
      opener:ask("probe.crash.die_at_point(1, tonumber((...)), 'lock file')", SIGSTOP)
      opener:tell("db = assert(probe.store.open(path, { durability = 'manual' }))")
      opener:await_stopped()
      assert(os.remove(lock_path))
      if what == "replaced" then scratch.write(lock_path, "") end
      opener:go_on()
      opener:answer()
      db = assert(scratch.open(path, { timeout_ms = 0 }))
      opener:ask("assert(db:put('key 3', 'from there'))")
      assert.equal("from there", db:get("key 3"))
      opener:finish()
    end)
  end

  -- ---- A deliberate mistake -----------------------------------------------------

  it("shows it if the boot alone is looked at", function()
    local function zeros_in_the_frame()
      leave_a_store()
      local from = offset_of("log", "frame_offset")
      overwrite(from, ("\0"):rep(offset_of("log", "cursor") - from))
      db = open()
      local records = db:records()
      return records and matches(records, committed)
    end
    assert.is_true(zeros_in_the_frame())
    db:close()
    os.remove(path)
    probe.crash.breaks("TRUST_BOOT")
    assert.falsy(zeros_in_the_frame())
  end)
end)
