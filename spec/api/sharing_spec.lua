-- SPDX-License-Identifier: MIT
--
-- Several processes with one store: what they see of each other, and what is
-- left of one that is killed.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"

local it_if_shared = helper.it_if_shared(it, function(why) pending(why) end)

local SIGSTOP = 19
local MANUAL = { open = "{ durability = 'manual' }" }
local LEVELS = { "async", "manual", "sync" }

local path

local function prepare() path = helper.path() end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

-- A loop sees as many records as are counted.
local function assert_whole(db)
  assert.equal(db:count(), select(2, helper.records(db)))
end

local function eventually(test)
  for _ = 1, 400 do
    if test() then return true end
    probe.os.sleep_ms(25)
  end
  return false
end

describe("a store in several processes", function()
  before_each(prepare)
  after_each(clean_up)

  it_if_shared("is opened by any number of them at once", function()
    local crowd = {}
    for i = 1, 6 do
      crowd[i] = peers.start(path, { open = "{ timeout = 0 }" })
      assert.equal("true", crowd[i]:ask("return db:put(...)", i, "of " .. i))
    end
    for i = 1, 6 do
      assert.equal("6", crowd[i]:ask("return db:count()"))
      for j = 1, 6 do
        assert.equal("of " .. j, crowd[i]:ask("return db:get(...)", j))
      end
    end
    for i = 1, 6 do crowd[i]:finish() end
    assert.equal(6, #helper.store(nil, path))
  end)

  it_if_shared("is made by one of many that open it at once", function()
    for _ = 1, 4 do
      prepare()
      local crowd = {}
      for i = 1, 6 do crowd[i] = peers.launch(path) end
      for i = 1, 6 do
        crowd[i]:tell([[
          db = assert(mmcmap.open(path))
          return db:put(..., "v")
        ]], i)
      end
      for i = 1, 6 do assert.equal("true", crowd[i]:answer()) end
      for i = 1, 6 do
        assert.equal("6", crowd[i]:ask("return db:count()"))
        crowd[i]:finish()
      end
      assert.same({}, peers.faults(path))
    end
  end)

  it_if_shared("shows a put of one to the others at once", function()
    local db, other = helper.store(nil, path), peers.start(path)
    for i = 1, 200 do
      db:put("ball", i)
      assert.equal(tostring(i), other:ask(
        "local seen = db:get('ball') db:put('back', ...) return seen", -i))
      assert.equal(tostring(-i), db:get("back"))
    end
  end)

  it_if_shared("shows a delete of one to the others at once", function()
    local db, other = helper.store(nil, path), peers.start(path)
    for i = 1, 50 do
      db:put("k", i)
      assert.equal("true", other:ask("return db:delete('k')"))
      assert.is_nil(db:get("k"))
      assert.equal(0, #db)
    end
  end)

  for _, level in ipairs(LEVELS) do
    it_if_shared("loses none of what they write together, level " .. level,
      function()
        local count = level == "sync" and 150 or 2000
        local crowd = {}
        for i = 1, 4 do
          crowd[i] = peers.start(path, { open = ("{ durability = '%s', "
            .. "timeout = 60 }"):format(level) })
        end
        for i = 1, 4 do
          crowd[i]:tell([[
            local name, count = ...
            for i = 1, count do
              assert(db:put(name .. i, ("value " .. i):rep(i % 9)))
              if i % 3 == 0 then assert(db:delete(name .. i - 1)) end
              assert(db:put("all", name .. i))
            end
          ]], "name " .. i .. " ", count)
        end
        for i = 1, 4 do crowd[i]:answer() end
        for i = 1, 4 do crowd[i]:finish() end
        local db = helper.store(nil, path)
        for i = 1, 4 do
          for j = 1, count do
            local wanted
            if j % 3 ~= 2 or j == count then wanted = ("value " .. j):rep(j % 9) end
            assert.equal(wanted, db:get("name " .. i .. " " .. j))
          end
        end
        assert_whole(db)
        assert(db:close())
        assert.same({}, peers.faults(path))
      end)
  end

  it_if_shared("grows and is read in all of them", function()
    local db, other = helper.store(nil, path), peers.start(path)
    local large = helper.bytes(3000000)
    for i = 1, 5 do db:put("large " .. i, large) end
    assert.equal("15000000", other:ask([[
      local sum = 0
      for _, value in db:pairs() do sum = sum + #value end
      return ("%d"):format(sum)
    ]]))
    assert.equal("true", other:ask("return db:put('after', 'it')"))
    assert.equal("it", db:get("after"))
    assert.is_true(db:get("large 5") == large)
  end)

  it_if_shared("is iterated as at one moment while another writes", function()
    local db, other = helper.store(nil, path), peers.start(path)
    for i = 1, 500 do db:put("key " .. i, "old") end
    local next_record, state = db:pairs()
    local seen = 0
    assert.equal("old", select(2, next_record(state)))
    other:ask([[
      for round = 1, 20 do
        for i = 1, 500 do db:put("key " .. i, "new " .. round) end
      end
    ]])
    for _, value in next_record, state do
      assert.equal("old", value)
      seen = seen + 1
    end
    assert.equal(499, seen)
    assert.equal("new 20", db:get("key 7"))
  end)

  it_if_shared("gives EBUSY to a writer who waits for longer than its timeout",
    function()
      if not probe.crash.has_hooks then
        return pending("needs --enable-debug-checks")
      end
      local db = helper.store({ timeout = 0.3 }, path)
      db:put("k", "v")
      local holder = peers.launch(path)
      holder:ask("db = assert(probe.store.open(path))")
      holder:ask("probe.crash.die_at_point(1, ...)", SIGSTOP)
      holder:tell("return db:put('of the', 'holder')")
      holder:await_stopped()
      local begin = probe.os.monotonic_ns()
      local ok, message, code = db:put("k", "changed")
      local waited = (probe.os.monotonic_ns() - begin) / 1e9
      assert.is_nil(ok)
      assert.equal("EBUSY", code, message)
      assert.is_true(waited >= 0.3 and waited < 60, waited .. " seconds")
      assert.equal("v", db:get("k")) -- reading does not wait
      holder:go_on()
      assert.equal("true", holder:answer())
      assert.is_true(db:put("k", "changed"))
      assert.equal("holder", db:get("of the"))
      assert.equal(2, #db)
    end)

  -- One has looked how long the file is, and is about to write zeros behind that.
  it_if_shared("becomes longer by one of them at a time", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    local ahead, writer = peers.launch(path), peers.launch(path)
    for _, peer in ipairs { ahead, writer } do
      peer:ask("db = assert(probe.store.open(path, { durability = 'manual' }))")
    end
    ahead:ask("probe.crash.die_at_point(1, tonumber((...)), 'ahead')", SIGSTOP)
    ahead:tell([[
      for i = 1, 300 do
        assert(db:put("ahead " .. i, ("a"):rep(2000)))
        assert(db:sync())
      end
    ]])
    ahead:await_stopped()
    writer:tell([[
      for i = 1, 30 do assert(db:put("writer " .. i, ("w"):rep(20000))) end
    ]])
    probe.os.sleep_ms(200) -- it has to wait, and without the lock it is done
    ahead:go_on()
    writer:answer()
    ahead:answer()
    local db = helper.store({ durability = "manual" }, path)
    for i = 1, 30 do assert.is_true(db:get("writer " .. i) == ("w"):rep(20000)) end
    for i = 1, 300 do assert.is_true(db:get("ahead " .. i) == ("a"):rep(2000)) end
    assert.is_true(db:check())
  end)

  it_if_shared("is on disk after sync() in any of them", function()
    local db, other = helper.store({ durability = "manual" }, path),
      peers.start(path, MANUAL)
    other:ask("db:put('k', 'v')")
    assert(db:sync())
    db:put("k2", "v2")
    other:ask("assert(db:sync())")
    local copy = helper.path()
    helper.run("cp %s %s", path, copy)
    local copied = helper.store(nil, copy)
    assert.equal("v", copied:get("k"))
    assert.equal("v2", copied:get("k2"))
  end)

  it_if_shared("is on disk in time, whoever wrote", function()
    local other = peers.start(path, { open = "{ flush_interval = 0.05 }" })
    helper.store({ durability = "manual" }, path)
    other:ask("db:put('k', 'v')")
    assert.is_true(eventually(function()
      local copy = helper.path()
      helper.run("cp %s %s", path, copy)
      local copied = helper.store(nil, copy)
      local found = copied:get("k")
      copied:close()
      return found == "v"
    end))
  end)

  -- Each of them has a flusher, and one commits for all.
  it_if_shared("is committed once per interval, however many write", function()
    local db, interval = helper.store({ durability = "manual" }, path), 0.05
    db:put("k", "v")
    assert(db:sync())
    local crowd = {}
    for i = 1, 6 do
      crowd[i] = peers.start(path, { open = "{ flush_interval = 0.05 }" })
    end
    -- How many times as many as one for all would make.
    local function times_as_many()
      local before, begin = db:stat().commit_count, probe.os.monotonic_ns()
      for i = 1, 6 do
        crowd[i]:tell([[
          local i, limit = 0, probe.os.monotonic_ns() + 1.5e9
          repeat
            i = i + 1
            assert(db:put(... .. i % 100, i))
            probe.os.sleep_ms(1)
          until probe.os.monotonic_ns() > limit
        ]], i .. " ")
      end
      for i = 1, 6 do crowd[i]:answer() end
      local commits = db:stat().commit_count - before
      assert.is_true(commits > 2)
      return commits / ((probe.os.monotonic_ns() - begin) / 1e9 / interval)
    end
    -- Where the processor has other things to do, a flusher comes late.
    local least, tries = math.huge, 0
    repeat
      least, tries = math.min(least, times_as_many()), tries + 1
    until least < 1.6 or tries == 5
    assert.is_true(least < (probe.sanitizer and 2.4 or 1.6), least)
  end)

  -- One leads, and stands still before its sync; the others have put by then, and wait.
  local function crowd_behind_a_leader()
    local leader, crowd = peers.launch(path), {}
    local open = "db = assert(probe.store.open(path, { durability = 'sync' }))"
    leader:ask(open)
    leader:ask("assert(db:put('k', 'v'))")
    for i = 1, 6 do
      crowd[i] = peers.launch(path)
      crowd[i]:ask(open)
    end
    leader:ask("probe.crash.die_at_point(1, tonumber((...)), 'sync')", SIGSTOP)
    leader:tell("return db:put('leader', 'v')")
    leader:await_stopped()
    for i = 1, 6 do crowd[i]:tell("return db:put('of ' .. ..., 'v')", i) end
    local db = helper.store({ durability = "manual" }, path)
    assert.is_true(eventually(function() return db:count() == 8 end))
    return db, leader, crowd
  end

  it_if_shared("is synced once for all that wait for it", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    local db, leader, crowd = crowd_behind_a_leader()
    local before = db:stat().commit_count
    leader:go_on()
    assert.equal("true", leader:answer())
    for i = 1, 6 do assert.equal("true", crowd[i]:answer()) end
    assert.equal(before + 2, db:stat().commit_count) -- the leader's, and theirs
  end)

  it_if_shared("is synced by another if the leader is killed", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    local db, leader, crowd = crowd_behind_a_leader()
    leader:kill()
    for i = 1, 6 do assert.equal("true", crowd[i]:answer()) end
    local copy = helper.path()
    helper.run("cp %s %s", path, copy)
    local copied = helper.store(nil, copy)
    for i = 1, 6 do assert.equal("v", copied:get("of " .. i)) end
    assert.equal(8, #db)
  end)

  it_if_shared("is on disk in time if the one whose flusher commits is killed", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    local first, other = peers.launch(path),
      peers.start(path, { open = "{ flush_interval = 0.05 }" })
    first:ask("db = assert(probe.store.open(path, { durability = 'async' }))")
    first:ask("assert(db:put('k', 'v'))")
    first:ask("assert(db:sync())")
    first:ask("probe.crash.die_at_point(1, tonumber((...)), 'sync')", SIGSTOP)
    first:tell("return db:put('first', 'v')")
    first:await_stopped()
    other:ask("db:put('other', 'v')")
    probe.os.sleep_ms(200) -- its flusher has found one that leads
    first:kill()
    assert.is_true(eventually(function()
      local copy = helper.path()
      helper.run("cp %s %s", path, copy)
      local copied = helper.store(nil, copy)
      local found = copied:get("first") == "v" and copied:get("other") == "v"
      copied:close()
      return found
    end))
  end)

  it_if_shared("is on disk in the end if only the one that is killed has changed it", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert(db:sync())
    probe.os.sleep_ms(2500) -- its flusher has looked for upkeep, and found none
    local other = peers.start(path, { open = "{ flush_interval = 3600 }" })
    other:ask("assert(db:put('other', 'v'))")
    other:kill()
    assert.is_true(db:stat().durable_epoch < db:version())
    assert.is_true(eventually(function() return db:stat().durable_epoch >= db:version() end))
    assert(db:close())
  end)

  it_if_shared("is a clean file once the last of them has closed it", function()
    local db, other = helper.store(nil, path), peers.start(path)
    db:put("k", "v")
    other:ask("db:put('k2', 'v2')")
    assert(db:close())
    assert.equal("v", other:ask("return db:get('k')"))
    other:finish()
    os.remove(path .. "-lock")
    db = helper.store({ readonly = true, lock = false }, path)
    assert.is_true(db:stat().was_clean)
    assert.equal("v2", db:get("k2"))
  end)
end)

describe("a process that is killed", function()
  before_each(prepare)
  after_each(clean_up)

  local WORK = [[
    for i = 1, 1000000 do
      assert(db:put("key " .. i, "value " .. i))
      reports(i)
    end
  ]]

  -- Who takes the lock over counts what was not counted any more.
  local function assert_all(db, last)
    for i = 1, last do assert.equal("value " .. i, db:get("key " .. i)) end
    assert.is_true(#db == last or #db == last + 1)
    assert.is_true(db:put("afterwards", "v"))
    assert_whole(db)
    assert.is_true(#db == last + 1 or #db == last + 2)
  end

  for _, level in ipairs(LEVELS) do
    local open = { open = ("{ durability = '%s' }"):format(level) }

    it_if_shared("loses nothing while another lives on, level " .. level,
      function()
        local db = helper.store({ durability = "manual" }, path)
        local victim = peers.start(path, open)
        victim:count(WORK, 300)
        assert_all(db, victim:kill_counting())
        assert(db:close())
        assert.same({}, peers.faults(path))
      end)

    it_if_shared("loses nothing if it was the only one, level " .. level,
      function()
        local victim = peers.start(path, open)
        victim:count(WORK, 300)
        local last = victim:kill_counting()
        local db = helper.store(nil, path)
        assert_all(db, last)
        assert(db:close())
        assert.same({}, peers.faults(path))
      end)
  end

  for _, lives_on in ipairs { true, false } do
    it_if_shared("at any point of a change is survived by the store, "
      .. (lives_on and "with others" or "alone"), function()
        if not probe.crash.has_hooks then
          return pending("needs --enable-debug-checks")
        end
        for n = 1, 12 do
          prepare()
          local db = lives_on and helper.store({ timeout = 20 }, path)
          local victim = peers.launch(path)
          victim:ask([[db = assert(probe.store.open(path,
            { durability = "manual" }))]])
          victim:ask("probe.crash.die_at_point(tonumber((...)))", n)
          victim:tell(WORK)
          local last = victim:end_counting()
          assert.is_true(last < n)
          db = db or helper.store(nil, path)
          assert_all(db, last)
          assert(db:close())
          assert.same({}, peers.faults(path))
        end
      end)
  end

  it_if_shared("while it opens or closes leaves a store that others open",
    function()
      helper.store(nil, path):close()
      for n = 1, 40 do
        local victim = peers.launch(path)
        victim:ask("probe.os.die('*', tonumber((...)))", n)
        victim:tell([[
          db = assert(probe.store.open(path))
          db:put("k", "v")
          db:close()
        ]])
        pcall(victim.answer, victim)
        victim:kill()
        local db = assert(mmcmap.open(path, { timeout = 0 }))
        assert.is_true(db:put("n", n))
        assert(db:close())
        assert.same({}, peers.faults(path))
      end
    end)

  it_if_shared("gives its place as a reader back", function()
    local db = helper.store(nil, path)
    for i = 1, 300 do db:put("key " .. i, ("x"):rep(200)) end
    for _ = 1, 30 do
      local reader = peers.start(path)
      reader:ask("next_record, state = db:pairs() next_record(state)")
      reader:kill()
    end
    -- What the dead have read is not kept for them.
    local before = db:size()
    for round = 1, 60 do
      for i = 1, 300 do db:put("key " .. i, ("x"):rep(200) .. round % 10) end
    end
    assert.is_true(db:size() <= before + 8 * 1048576, db:size())
  end)
end)

describe("a store that is open read-only", function()
  before_each(prepare)
  after_each(clean_up)

  it_if_shared("shares with writers and shows their puts at once", function()
    helper.store(nil, path):close()
    local db = helper.store({ readonly = true }, path)
    local writer = peers.start(path, { open = "{ timeout = 0 }" })
    local reader = peers.start(path, { open = "{ readonly = true }" })
    for i = 1, 50 do
      writer:ask("db:put('k', ...)", i)
      assert.equal(tostring(i), db:get("k"))
      assert.equal(tostring(i), reader:ask("return db:get('k')"))
    end
    assert.equal("EREADONLY", select(3, db:put("k", "v")))
    writer:kill()
    assert.equal("50", db:get("k"))
  end)

  it_if_shared("with lock = false does not touch the lock file", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert(db:close())
    local bytes = helper.read(path .. "-lock")
    db = helper.store({ readonly = true, lock = false }, path)
    assert.equal("v", db:get("k"))
    assert.is_true(helper.read(path .. "-lock") == bytes)
    assert.equal("true", peers.start(path, { open = "{ timeout = 0 }" })
      :ask("return db:put('k2', 'v2')")) -- nor does it keep anybody away
    assert(db:close())
    peers.kill_all()
    assert(os.remove(path .. "-lock"))
    db = helper.store({ readonly = true, lock = false }, path)
    assert.equal("v", db:get("k"))
    assert.is_false(helper.exists(path .. "-lock"))
  end)

  it_if_shared("needs no lock file on a medium that is mounted read-only",
    function()
      local folder = helper.folder()
      path = folder .. "/store.mmc"
      local through = { "unshare", "--mount", "sh", "-c",
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
        folder }
      if not helper.run("unshare --mount sh -c 'mount --bind %s %s && echo yes'",
        folder, folder):find("yes") then
        return pending("needs a mount namespace of one's own")
      end
      helper.store(nil, path):put("k", "v")
      helper.close_all()
      os.remove(path .. "-lock")
      local reader = peers.start(path, { open = "{ readonly = true }",
        through = through })
      assert.equal("v", reader:ask("return db:get('k')"))
      assert.equal("EREADONLY", peers.launch(path, { through = through })
        :ask("return select(3, mmcmap.open(path))"))
      assert.is_false(helper.exists(path .. "-lock"))
    end)
end)
