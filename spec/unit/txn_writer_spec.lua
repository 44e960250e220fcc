-- SPDX-License-Identifier: MIT
--
-- What a writer that is killed leaves to the one who inherits the writer lock,
-- while another process has the store open: at each test point, count, content
-- and the moment of snapshots are right. And seals by processes that may not
-- write the data file.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"
local share = probe.share
local WORD_STEP = crash.thinning > 1 and 40 or 8
local unpack_ = table.unpack or unpack -- luacheck: ignore 113
local SIGKILL = 9

describe("txn.writer", function()
  local path, db
  local model -- what is in the store

  before_each(function()
    path = scratch.path("store")
    model = {}
  end)

  teardown(crash.remove_folder)
  after_each(function()
    probe.crash.breaks()
    if db then db:close() end
    db = nil
  end)

  local function open(options)
    options = options or {}
    options.durability = options.durability or "manual"
    return assert(probe.store.open(path, options))
  end

  local function put(key, value)
    assert(db:put(key, value))
    model[key] = value
  end

  local function open_with_some()
    db = open()
    for i = 1, 20 do put("key " .. i, "value " .. i) end
  end

  local function size_of(records)
    local size = 0
    for _ in pairs(records) do size = size + 1 end
    return size
  end

  -- What is wrong with what this process sees, or nil.
  local function complaint()
    local count = size_of(model)
    if db:count() ~= count then
      return ("count is %d, not %d"):format(db:count(), count)
    end
    local records, met = db:records()
    if not records then return tostring(met) end
    if met ~= count then return ("%d records, not %d"):format(met, count) end
    for key, value in pairs(model) do
      if records[key] ~= value then return key .. " differs in a snapshot" end
      if db:get(key) ~= value then return key .. " differs" end
    end
  end

  -- A process that dies at the n-th test point of that name in `act`.
  local function die_at(point, act, n, options)
    local text, how, status = probe.child.run(function()
      db = nil -- luacheck: ignore
      local own = open(options)
      if own:has("key 1") then own:get("key 1") end
      probe.crash.die_at_point(n or 1, SIGKILL, point)
      act(own)
      error("it came through")
    end)
    assert.same({ "", "signal", SIGKILL }, { text, how, status })
  end

  -- What the file is after all is closed.
  local function verify_the_rest()
    put("afterwards", "a value of the process that lived on")
    assert.is_nil(complaint())
    assert(db:close())
    local report = assert(probe.verify.bytes(scratch.read(path)))
    assert.same({}, report.failures)
    db = open()
    assert.is_nil(complaint())
  end

  if not probe.crash.has_hooks then
    it("repairs", function() pending("needs --enable-debug-checks") end)
  else
    local CHANGES = {
      { "a new key", function(own) own:put("new", "its value") end,
        function() model["new"] = "its value" end },
      { "another value", function(own) own:put("key 7", "another") end,
        function() model["key 7"] = "another" end },
      { "a longer value", function(own) own:put("key 7", ("l"):rep(9000)) end,
        function() model["key 7"] = ("l"):rep(9000) end },
      { "a large value", function(own) own:put("large", ("L"):rep(600000)) end,
        function() model["large"] = ("L"):rep(600000) end },
      { "a deletion", function(own) own:delete("key 7") end,
        function() model["key 7"] = nil end },
    }

    for _, change in ipairs(CHANGES) do
      local name, act, is_done = change[1], change[2], change[3]

      -- What is put with "sync" is staged: written all at once.
      for _, case in ipairs { { true, "manual" }, { false, "manual" },
        { true, "sync" }, { false, "sync" } } do
        local is_sealed, level = case[1], case[2]
        local when = (is_sealed and ", after a seal" or "") .. ", " .. level

        it(("knows nothing of %s that was not stored%s"):format(name, when),
          function()
            open_with_some()
            if is_sealed then assert(db:version()) end
            local before = db:count()
            die_at("publish", act, 1, { durability = level })
            assert.equal(before, db:count())
            assert.is_nil(complaint())
            verify_the_rest()
          end)

        it(("has %s that was stored, and counts it%s"):format(name, when),
          function()
            open_with_some()
            if is_sealed then assert(db:version()) end
            die_at("published", act, 1, { durability = level })
            is_done()
            for key, value in pairs(model) do
              assert.equal(value, db:get(key)) -- no lock is needed
            end
            put("next", "inherits the lock")
            assert.is_nil(complaint())
            verify_the_rest()
          end)
      end
    end

    -- Half of the words are written then, to the copy that is not in use.
    for name, act in pairs {
      ["a seal"] = function(own) own:version() end,
      ["a frame that opens"] = function(own)
        probe.crash.die_at_point(2, SIGKILL, "storing")
        own:sync()
      end,
      ["a segment that begins"] = function(own)
        own:put("large", ("L"):rep(600000))
      end,
    } do
      it("is survived when it dies while it stores the state of the log: " .. name,
        function()
          open_with_some()
          put("key 3", ("of a change before"):rep(20)) -- so that there is a seal
          die_at("storing", act)
          assert.is_nil(complaint())
          verify_the_rest()
        end)
    end

    -- Owned, and not yet told how; or of a chunk that is emptied, and not yet taken.
    for point, act in pairs {
      row = function(own) own:snapshot() end,
      chunk = function() probe.store.open(path, { durability = "manual" }) end,
    } do
      it("is survived when it dies with a " .. point .. " half claimed", function()
        open_with_some()
        if point == "row" then
          die_at(point, act)
        else
          assert.same({ "", "signal", SIGKILL }, { probe.child.run(function()
            db = nil -- luacheck: ignore
            probe.crash.die_at_point(1, SIGKILL, point)
            act()
          end) })
        end
        local stat = db:stat()
        assert.equal(0, stat.snapshot_count)
        assert.equal(1, stat.reader_count)
        local recycled = stat.recycled_bytes
        for i = 1, 300 do put("key 1", "value " .. i) end
        assert.is_true(db:stat().recycled_bytes > recycled)
        local child = probe.child.start(function()
          db = nil -- luacheck: ignore
          local own = open()
          probe.child.say(assert(own:get("key 1")))
          own:close()
        end)
        assert.equal("value 300", child:line())
        child:wait()
        verify_the_rest()
      end)
    end

    it("takes a snapshot of the moment at which a writer died", function()
      open_with_some()
      local before = assert(db:version())
      die_at("published", function(own) own:put("new", "its value") end)
      local snapshot = assert(db:snapshot())
      assert.equal(21, snapshot:count())
      assert.equal("its value", snapshot:get("new"))
      assert.is_true(snapshot:version() > before)
      assert.equal(snapshot:version(), db:version())
      put("later", "is not in it")
      assert.is_nil(snapshot:get("later"))
      assert.equal(21, select(2, snapshot:records()))
      snapshot:close()
      model["new"] = "its value"
      assert.is_nil(complaint())
      verify_the_rest()
    end)

    it("takes the last moment, if a writer died before its store", function()
      open_with_some()
      local before = assert(db:version())
      die_at("publish", function(own) own:put("new", "its value") end)
      local snapshot = assert(db:snapshot())
      assert.equal(20, snapshot:count())
      assert.is_nil(snapshot:get("new"))
      assert.is_true(snapshot:version() >= before)
      snapshot:close()
      verify_the_rest()
    end)

    it("ends a seal that was half told", function()
      for _, way in ipairs { "version", "snapshot", "sync" } do
        open_with_some()
        local before = assert(db:version())
        put("new", "sealed by one who dies")
        die_at("sealed", function(own) own[way](own) end)
        assert.equal(21, db:count())
        local snapshot = assert(db:snapshot())
        assert.equal(21, snapshot:count())
        assert.equal("sealed by one who dies", snapshot:get("new"))
        assert.is_true(snapshot:version() > before)
        assert.equal(snapshot:version(), db:version())
        put("later", "is not in it")
        assert.equal(21, select(2, snapshot:records()))
        snapshot:close()
        assert.is_nil(complaint())
        verify_the_rest()
        assert(db:close())
        db = nil
        os.remove(path)
        model = {}
      end
    end)

    it("goes on with changes after a seal that was half told", function()
      open_with_some()
      die_at("sealed", function(own) own:version() end)
      put("new", "opens the next frame")
      assert.is_nil(complaint())
      assert(db:sync())
      verify_the_rest()
    end)

    -- A process died in the first change after a commit when it had handed over the
    -- log, which had gone on in another segment, and had not said that there is a
    -- change. Then nobody closed the log for the commit that the frame before was of:
    -- the next leader found that its last frame was missing, and no process could
    -- write any more.
    for _, way in ipairs { "compact", "close" } do
      it("commits the frame that one left who died in a new segment: " .. way, function()
        local SEGMENT, SIZE = 131072, 20000
        db = open { segment_size = SEGMENT }
        local lock_file = assert(share.connect(path .. "-lock", path))
        local function log(field)
          return tonumber(lock_file:get(("log[%d].%s"):format(
            lock_file:get("change.log_index") % 2, field)), 16)
        end
        -- To be closed: with a segment that is empty, and waits for a superblock. To be
        -- compacted: with nothing that can be moved.
        local n = 0
        if way == "close" then
          put("key 1", ("1"):rep(SIZE))
          while log("cursor") < SEGMENT do
            assert(db:sync())
            put("key 1", ("2"):rep(SIZE))
          end
          assert(db:sync())
        end
        repeat
          n = n + 1
          put("key " .. n, (n % 10 .. ""):rep(SIZE))
        until n > 2 and SEGMENT - log("cursor") % SEGMENT < SIZE
        assert(db:sync())
        local frame = log("frame_offset")
        die_at("settled", function(own) own:put("new", ("n"):rep(SIZE)) end)
        assert.is_true(math.floor(log("frame_offset") / SEGMENT)
          > math.floor(frame / SEGMENT))
        lock_file:close()
        assert(db[way](db))
        if way == "close" then db = open() end
        verify_the_rest()
      end)
    end

    -- Who closes inherits the lock, and what is to be committed then.
    it("leaves a clean file where the closer is the heir", function()
      for _, point in ipairs { "locked", "settled", "publish", "published" } do
        open_with_some()
        assert(db:sync())
        die_at(point, function(own) own:put("key 1", "another") end)
        if point == "published" then model["key 1"] = "another" end
        assert(db:close())
        assert.same({}, assert(probe.verify.bytes(scratch.read(path))).failures)
        db = open()
        assert.is_true(db:stat().was_clean, point)
        assert.is_nil(complaint())
        verify_the_rest()
        assert(db:close())
        os.remove(path)
        model = {}
      end
    end)

    it("finds nothing to repair where only the lock was taken", function()
      open_with_some()
      for n = 1, 3 do
        die_at("locked", function(own)
          for i = 1, n do own:put("new " .. i, "value " .. i) end
        end, n)
        if n > 1 then model["new " .. n - 1] = "value " .. n - 1 end
        assert.is_nil(complaint())
      end
      verify_the_rest()
    end)

    it("repairs what was left before the session began", function()
      db = open()
      die_at("locked", function(own) own:put("key", "value") end)
      assert.is_nil(complaint())
      die_at("superblock", function(own) own:put("key", "value") end)
      assert.is_nil(complaint())
      die_at("publish", function(own) own:put("key", "value") end)
      assert.is_nil(complaint())
      die_at("published", function(own) own:put("key", "value") end)
      model["key"] = "value"
      assert(db:version())
      assert.is_nil(complaint())
      verify_the_rest()
    end)

    it("repairs again what an heir was repairing when it died", function()
      open_with_some()
      die_at("published", function(own) own:put("new", "its value") end)
      for _ = 1, 3 do
        die_at("locked", function(own) own:put("newer", "its value") end)
      end
      model["new"] = "its value"
      assert(db:version())
      assert.is_nil(complaint())
      verify_the_rest()
    end)

    it("repairs after one process after the other has died", function()
      open_with_some()
      for n = 1, 40 do
        local key = "key " .. n % 23
        die_at(n % 2 == 0 and "publish" or "published", function(own)
          if n % 5 == 0 then own:delete("key 1") end
          own:put(key, "round " .. n)
        end)
        assert(db:version())
        model = assert(db:records())
        assert.equal(size_of(model), db:count())
        if n % 2 == 1 and n % 5 ~= 0 then
          assert.equal("round " .. n, model[key])
        end
        put("key 1", "back")
      end
      assert.is_nil(complaint())
      verify_the_rest()
    end)

    -- ---- Deliberate mistakes --------------------------------------------------

    it("shows it if the count is left as it is", function()
      local function count_after_death()
        open_with_some()
        die_at("published", function(own) own:put("new", "its value") end)
        model["new"] = "its value"
        assert(db:version())
        local wrong = complaint()
        db:close()
        db = nil
        os.remove(path)
        model = {}
        return wrong
      end
      assert.is_nil(count_after_death())
      probe.crash.breaks("NO_INTENT")
      assert.equal("count is 20, not 21", count_after_death())
    end)

    it("shows it if a node is linked before the cursor has passed it",
      function()
        -- Only the one who dies does it wrong.
        local function content_after_death(...)
          local mistakes = { ... }
          open_with_some()
          die_at("published", function(own)
            probe.crash.breaks(unpack_(mistakes))
            own:put("new", "its value")
          end)
          model["new"] = "its value"
          put("next", "is written over it, if the cursor does not know")
          local wrong = complaint()
          db:close()
          db = nil
          os.remove(path)
          model = {}
          return wrong
        end
        assert.is_nil(content_after_death())
        assert.truthy(content_after_death("SETTLE_LATE"))
      end)
  end

  -- ---- Seals of readers ---------------------------------------------------------

  -- A read-only process that does what it is told, line by line, and answers.
  local function start_reader()
    local reader = probe.child.start(function()
      db = nil -- luacheck: ignore
      local own = open { readonly = true }
      for line in probe.child.hear do
        if line == "end" then break end
        local snapshot = assert(own:snapshot())
        local _, count = assert(snapshot:records())
        probe.child.say(("%d %d %s %s"):format(snapshot:count(), count,
          snapshot:version(), tostring(snapshot:get("key 1"))))
        snapshot:close()
      end
      assert(own:close())
      return "well"
    end)
    local function ask()
      reader:tell("snapshot")
      return reader:line()
    end
    local function finish()
      reader:tell("end")
      assert.same({ "well", "exit", 0 }, { reader:wait() })
    end
    return ask, finish
  end

  it("lets a read-only process seal: it writes the lock file alone", function()
    open_with_some()
    put("key 1", "changed")
    local ask, finish = start_reader()
    local image = scratch.read(path)
    local lock_file = assert(share.connect(path .. "-lock", path))
    local open_epoch = lock_file:get("change.changed_epoch")
    assert.not_equal(open_epoch, lock_file:get("sealed.epoch"))
    local seal = "20 20 " .. open_epoch .. " changed"
    assert.equal(seal, ask())
    assert.equal(open_epoch, lock_file:get("sealed.epoch"))
    assert.equal(image, scratch.read(path))
    assert.equal(seal, ask()) -- no lock, nothing to seal
    assert.equal(image, scratch.read(path))
    assert.equal(open_epoch, db:version())

    -- The next writer goes on in the same frame, in the next epoch.
    put("key 1", "changed again")
    put("new", "value")
    assert.is_nil(complaint())
    assert.equal("21 21 " .. db:version() .. " changed again", ask())
    assert.is_true(db:version() > open_epoch)
    assert(db:sync())
    finish()
    lock_file:close()
    verify_the_rest()
  end)

  it("commits what a read-only process has sealed", function()
    open_with_some()
    local ask, finish = start_reader()
    assert.equal("20 20", ask():match("^%d+ %d+"))
    assert(db:sync())
    assert.equal("20 20", ask():match("^%d+ %d+"))
    finish()
    verify_the_rest()
  end)

  -- Bytes that anybody may have written: each word of the header in turn, the
  -- three locks aside, under an open store. It may do or tell anything, but not
  -- crash or hang.
  it("bears any word of the lock file", function()
    path = crash.path("words") -- in memory: all this has to do with no disk
    local locks = {}
    for _, name in ipairs { "writer_lock.word", "growth_lock.word",
      "commit.leader.word" } do
      locks[share.fields[name][1] - share.fields[name][1] % 8] = true
    end
    local function work(own)
      own:records()
      own:put("another", "record")
      own:get("another")
      own:delete("key 5")
      own:version()
      own:put("large", ("large"):rep(100000))
      own:sync()
      own:step(2)
      own:close()
    end
    local function open_here()
      return probe.store.open(path, { durability = "manual", timeout_ms = 100 })
    end
    -- One process has the store open, another comes to it; both work.
    local scale = 1
    local function act(offset, change)
      local own = assert(open_here())
      for i = 1, 9 do assert(own:put("key " .. i, ("value"):rep(i * scale))) end
      assert(own:sync())
      assert(own:put("key 1", "changed"))
      local file = assert(io.open(path .. "-lock", "r+b"))
      file:seek("set", offset)
      local word = change(file:read(8))
      file:seek("set", offset)
      file:write(word)
      file:close()
      local text, how, status = probe.child.run(function()
        local inherited = own
        own = nil
        inherited:close()
        local joined = open_here()
        if joined then work(joined) end
        return "well"
      end)
      work(own)
      return ("%s %s %d"):format(text, how, status)
    end
    local function try(offset, change)
      os.remove(path)
      os.remove(path .. "-lock")
      local text, how, status = probe.child.run(function()
        return act(offset, change)
      end)
      if text == "well exit 0" and how == "exit" and status == 0 then return end
      return ("%d: %s; %s %d"):format(offset, text, how, status)
    end
    local failures = {}
    for offset = os.time() * 8 % WORD_STEP, 1472, WORD_STEP do
      for i, change in ipairs(crash.words) do
        local is_due = crash.is_long or (offset / 8 + i) % 3 == 0
        if is_due and not locks[offset] then
          failures[#failures + 1] = try(offset, change)
        end
      end
    end
    -- How much superblocks name decides how short the file becomes, if it is longer.
    scale = 50000
    for offset = share.fields["commit.recovery_used_bytes"][1],
      share.fields["commit.superblock_used_bytes"][1], 8 do
      for _, change in ipairs(crash.words) do
        failures[#failures + 1] = try(offset, change)
      end
    end
    assert.same({}, failures)
  end)

  if not probe.crash.has_hooks then return end

  it("ends the seal of a read-only process that died", function()
    open_with_some()
    die_at("sealed", function(own) own:snapshot() end, 1, { readonly = true })
    local snapshot = assert(db:snapshot())
    assert.equal(20, snapshot:count())
    assert.equal(20, select(2, snapshot:records()))
    snapshot:close()
    verify_the_rest()
  end)

  it("lets a read-only process inherit the writer lock", function()
    open_with_some()
    local ask, finish = start_reader()
    die_at("published", function(own) own:put("new", "its value") end)
    model["new"] = "its value"
    assert.equal("21 21", ask():match("^%d+ %d+"))
    assert.equal(21, db:count())
    assert.is_nil(complaint())
    finish()
    verify_the_rest()
  end)
end)
