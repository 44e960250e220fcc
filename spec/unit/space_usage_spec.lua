-- SPDX-License-Identifier: MIT
--
-- What is counted as alive in each segment, and the cleaner: counts are never
-- too low, whatever is done, and nothing that anybody may look at is used again.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"

local SEGMENT = scratch.SEGMENT
local SEED = binary.seed("usage")
local SIGSTOP = 19

local path, db

local function open(options)
  db = scratch.open(path, options)
  return db
end

local function usage() return scratch.usage(db) end

-- How many segments wait for who looks at them, and for a commit.
local function waiting()
  local stat = assert(db:stat())
  return stat.waiting_for_pins, stat.waiting_for_commit
end

-- The cleaner, until it finds nothing: how many bytes it has moved.
local function clean_all()
  local moved = 0
  for _ = 1, 10000 do
    local bytes, found = assert(db:clean(16384))
    moved = moved + binary.number(bytes)
    if not found then return moved end
  end
  error("the cleaner never ends")
end

local function copy(model)
  local other = {}
  for name, map in pairs(model) do
    other[name] = {}
    for key, value in pairs(map) do other[name][key] = value end
  end
  return other
end

-- ---- A model ------------------------------------------------------------------

local NAMES = { "", "a", "b" } -- of maps; the first one is the store itself

local function target(handle, name)
  return name == "" and handle or assert(handle:map(name))
end

-- The handle, a store, a snapshot, or a transaction, holds what the model says.
local function holds(handle, model, where)
  for _, name in ipairs(NAMES) do
    local map = target(handle, name)
    local records = assert(map:records())
    for key, value in pairs(model[name]) do
      if records[key] ~= value then
        error(("%s: %q of map %q is wrong"):format(where, key, name))
      end
    end
    for key in pairs(records) do
      if model[name][key] == nil then
        error(("%s: %q of map %q should not be there"):format(where, key, name))
      end
    end
    if name ~= "" and map.close then map:close() end
  end
end

local function is_sound(model, where)
  assert(db:close())
  local report = assert(probe.verify.bytes(scratch.read(path)))
  assert.same({}, report.failures, where)
  open()
  holds(db, model, where)
end

-- A play: random operations on a store and on the model of it.
local function new_play(seed, options)
  local play = { random = binary.random(seed), model = {}, stamp = 0, moved = 0,
    options = options, is_exact = true, where = "seed " .. seed }
  for _, name in ipairs(NAMES) do play.model[name] = {} end
  return play
end

local function value_of(play)
  local size = play.random(300)
  if play.random(60) == 1 then size = play.random(70000) end
  play.stamp = play.stamp + 1
  return play.stamp .. ":" .. ("v"):rep(size)
end

local function change(play, handle)
  local random = play.random
  local name = NAMES[random(#NAMES)]
  local map = play.model[name]
  local choice = random(40)
  if choice == 1 and name ~= "" and play.options.drops then
    if handle:drop(name) then play.is_exact = false end
    play.model[name] = {}
    return
  end
  local to = target(handle, name)
  local key = "k" .. random(600)
  if choice == 2 then
    assert(to:clear())
    play.model[name] = {}
  elseif choice < 15 then
    assert(to:delete(key) ~= nil)
    map[key] = nil
  else
    local value = value_of(play)
    assert(to:put(key, value))
    map[key] = value
  end
  if name ~= "" and to.close then to:close() end
end

local function counts_hold(play, what)
  local now = usage()
  if now.low ~= 0 or (play.is_exact and now.high ~= 0) then
    error(("%s, %s: %d too low, %d too high"):format(play.where, what, now.low,
      now.high))
  end
  -- The reserve is what is known to be free: it must be there.
  if now.known_free > now.free - now.holes then
    error(("%s, %s: %d of %d free segments, of which %d are holes"):format(play.where,
      what, now.known_free, now.free, now.holes))
  end
  return now
end

local function transaction(play)
  local random = play.random
  local before, was_exact, counted = copy(play.model), play.is_exact, usage()
  local txn = assert(db:begin())
  for _ = 1, random(60) do change(play, txn) end
  if random(2) == 1 then
    local savepoint, saved = assert(txn:savepoint()), copy(play.model)
    for _ = 1, random(200) do change(play, txn) end
    if random(2) == 1 then
      assert(txn:rollback_to(savepoint))
      play.model = saved
      for _ = 1, random(30) do change(play, txn) end
    end
  end
  if random(3) > 1 then return assert(txn:commit()) end
  txn:abort()
  play.model, play.is_exact = before, was_exact
  local now = usage()
  -- Nothing is told before a session's first change.
  if counted.used > 0 and (now.high ~= counted.high
    or now.live_bytes ~= counted.live_bytes) then
    error(("%s: an abort leaves %d bytes too high, not %d; %d alive, not %d")
      :format(play.where, now.high, counted.high, now.live_bytes,
        counted.live_bytes))
  end
end

-- A new session, and upkeep until all segments are counted, whatever was dropped.
local function recounted(play)
  is_sound(play.model, play.where)
  counts_hold(play, "opening again")
  play.stamp = play.stamp + 1
  play.model[""].wakes = tostring(play.stamp)
  assert(db:put("wakes", play.model[""].wakes))
  for _ = 1, 100 do
    if usage().uncounted == 0 then break end
    assert(db:step(1000))
  end
  play.is_exact = true
  local now = counts_hold(play, "a recount")
  assert.equal(0, now.uncounted, play.where)
  assert.is_true(now.used > 0)
end

local operations = {
  function(play) for _ = 1, play.random(20) do change(play, db) end end,
  transaction,
  function() assert(db:sync()) end,
  function(play)
    for _ = 1, play.random(10) do assert(db:clean(play.random(200000))) end
  end,
  -- The cleaner looks, without the lock; what is found may be old by then.
  function(play)
    for _ = 1, play.random(10) do
      if play.random(3) == 1 then change(play, db) end
      if play.random(4) == 1 then assert(db:clean(play.random(2000))) end
      for _ = 1, play.random(6) do assert(db:clean_ahead(play.random(4096))) end
    end
  end,
  function() assert(db:step(1000)) end,
}
local NAMED =
  { "changes", "a transaction", "sync", "cleaning", "cleaning ahead", "step" }
local OFTEN = { 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 4, 5 }

local function run(play, rounds)
  for i = 1, rounds do
    local which = OFTEN[play.random(#OFTEN)]
    operations[which](play)
    counts_hold(play, NAMED[which])
    if play.options.after then play.options.after(play, i) end
    if i % 150 == 0 then recounted(play) end
  end
  recounted(play)
  holds(db, play.model, play.where)
end

local function thinned(rounds, least)
  return math.max(math.floor(rounds / crash.thinning), least or 40)
end

before_each(function() path = crash.path("usage") os.remove(path) end)
teardown(crash.remove_folder)
after_each(function()
  peers.kill_all()
  if db then db:close() end
  db = nil
end)

describe("what is counted as alive", function()
  it("is exact among changes of all kinds", function()
    for try = 1, 3 do
      open()
      run(new_play(SEED + try, {}), thinned(450))
      db = db:close() and nil
      os.remove(path)
    end
  end)

  it("is never too low, and exact again after a recount, where maps are dropped",
    function()
      open()
      run(new_play(SEED + 10, { drops = true }), thinned(900))
    end)

  it("is known of a store that was closed, and nothing is behind that", function()
    open()
    for i = 1, 1000 do assert(db:put("k" .. i, ("v"):rep(1000))) end
    for i = 1, 1000, 3 do assert.is_true(db:delete("k" .. i)) end
    local used, size = usage().used, db:size()
    assert.is_true(used > 4) -- of fewer segments all is counted at once
    assert(db:close())
    local closed = #scratch.read(path)
    assert.is_true(closed <= used * SEGMENT + 4096, closed .. " bytes")
    assert.is_true(closed < size, closed .. " bytes, were " .. size)
    open()
    assert(db:put("first", "change"))
    local now = usage()
    assert.same({ 0, 0, 0 }, { now.uncounted, now.low, now.high })
    assert.is_true(now.used >= used)
  end)

  it("is right again when nodes of an empty segment are recycled", function()
    open()
    assert(db:put("first", "one"))
    for i = 1, 400 do assert(db:put("k" .. i, ("v"):rep(1000))) end
    for i = 1, 400 do assert.is_true(db:delete("k" .. i)) end
    assert.is_true(usage().empty > 0)
    for i = 1, 400 do assert(db:put("k" .. i, ("w"):rep(1000))) end
    local now = usage()
    assert.equal(0, now.low)
    assert.equal(0, now.high)
    for i = 1, 400 do assert.equal(("w"):rep(1000), db:get("k" .. i)) end
  end)

  -- They had become empty before it, and waited for epochs that it had opened.
  it("has segments wait no longer because an aborted transaction used them", function()
    open()
    assert(db:put("first", "one"))
    for i = 1, 400 do assert(db:put("k" .. i, ("v"):rep(1000))) end
    for i = 1, 400 do assert.is_true(db:delete("k" .. i)) end
    local empty = usage().empty
    assert.is_true(empty > 0)
    local txn = assert(db:begin())
    for i = 1, 300 do assert(txn:put("k" .. i, ("w"):rep(1000))) end
    for i = 1, 200 do
      assert(txn:savepoint())
      assert(txn:put("first", "value " .. i))
    end
    txn:abort()
    assert.equal(empty, usage().empty)
    assert(db:compact())
    assert.equal(0, usage().empty)
  end)
end)

describe("the cleaner", function()
  local function cleaned(play)
    -- What no commit has taken yet is not moved.
    if play.random(3) == 1 then assert(db:sync()) end
    play.moved = play.moved + clean_all()
    counts_hold(play, "the cleaner")
  end

  it("changes nothing, running after every operation", function()
    open()
    local play = new_play(SEED + 20, { after = cleaned })
    run(play, thinned(450, 150)) -- in a few it may find nothing to move
    assert.is_true(play.moved > 0)
  end)

  describe("that looks ahead without the lock", function()
    local KEYS = 2000

    local function put_all(word, from)
      for i = from or 1, KEYS do
        assert(db:put("k" .. i, word .. ("v"):rep(200) .. i))
      end
    end

    -- A victim half of which is alive has been chosen, and is looked at.
    local function look_at_victim()
      open { segment_size = 131072 }
      put_all("a")
      for i = 1, KEYS, 2 do assert(db:put("k" .. i, "b" .. i)) end
      assert(db:sync())
      assert(db:clean_ahead())
      return db:ahead()
    end

    local function move_all()
      local moved = 0
      for _ = 1, 1000 do
        local bytes, found = assert(db:clean_ahead(500))
        moved = moved + binary.number(bytes)
        if not found then return moved end
      end
      error("the cleaner never ends")
    end

    local function is_clean()
      local now = usage()
      assert.same({ 0, 0, 0 }, { now.low, now.high, now.stuck })
      for i = 1, KEYS do
        if not db:get("k" .. i) then error("k" .. i .. " is not there") end
      end
    end

    it("finds what is dead, and moves the rest", function()
      local count, dead_count = look_at_victim()
      assert.is_true(count > 20)
      assert.is_true(dead_count > 0.3 * count and dead_count < 0.7 * count)
      assert.is_true(move_all() > 50000)
      is_clean()
    end)

    it("moves nothing that has died since", function()
      look_at_victim()
      put_all("c")
      assert.equal(0, binary.number((assert(db:clean_ahead(100000)))))
      is_clean()
    end)

    it("leaves nothing out, whoever has gone on meanwhile", function()
      look_at_victim()
      assert(db:clean_ahead(500))
      assert(db:clean(3000))
      for _ = 1, 5 do assert(db:clean_ahead(500)) end
      move_all()
      is_clean()
      assert(db:sync())
      clean_all()
      is_clean()
      assert.same({}, db:check())
    end)

    it("leaves the victim to who has the lock, if it is of another map", function()
      open { segment_size = 131072 }
      local map = assert(db:map("a"))
      for i = 1, KEYS do assert(map:put("k" .. i, ("v"):rep(200))) end
      for i = 1, KEYS, 2 do assert(map:put("k" .. i, "b" .. i)) end
      assert(db:sync())
      assert(db:clean_ahead())
      local count, dead_count = db:ahead()
      assert.is_true(count > 20)
      assert.equal(0, dead_count)
      assert.is_true(move_all() > 50000)
      assert.equal(0, usage().low)
      assert.equal(0, usage().stuck)
      for i = 1, KEYS do assert(map:get("k" .. i)) end
      map:close()
    end)

    it("does not wait for its turn for ever, which nobody is told of", function()
      open { segment_size = 131072 }
      put_all("a")
      for i = 1, KEYS, 2 do assert(db:put("k" .. i, "b" .. i)) end
      assert(db:sync())
      local before = usage().used
      assert.same({ true, "OK" }, { db:from_thread("step") })
      assert.is_true(usage().used < before)
      is_clean()
    end)

    -- Another process has chosen a victim, and stands still before it looks; what
    -- happens then may make the file shorter. How many nodes it sees.
    local function looks_after(happens)
      local cleaner = peers.launch(path)
      cleaner:ask("db = assert(probe.store.open(path, { durability = 'manual', "
        .. "segment_size = tonumber((...)) }))", SEGMENT)
      cleaner:ask("probe.crash.die_at_point(1, tonumber((...)), 'look ahead')", SIGSTOP)
      cleaner:tell("assert(db:clean_ahead()) return (db:ahead())")
      cleaner:await_stopped()
      happens()
      cleaner:go_on()
      local ok, text = pcall(cleaner.answer, cleaner)
      if not ok then error(("%s: %s %d"):format(text, cleaner:wait())) end
      cleaner:finish()
      return tonumber(text)
    end

    local function fill(first, last)
      for i = first, last do assert(db:put("k" .. i, ("v"):rep(1000))) end
    end

    local function delete_each(step, first, last)
      for i = first, last, step do assert.is_true(db:delete("k" .. i)) end
    end

    -- The victim has the records of both large values; their pages are the last of
    -- the file, and free. A snapshot keeps it from being cut before.
    it("does not touch the pages of dead large values, which may be cut off", function()
      if not crash.has_hooks then return pending("needs --enable-debug-checks") end
      open()
      assert(db:put("filler", ("f"):rep(4000000)))
      assert(db:sync())
      assert(db:put("some", "more")) -- branches go behind the filler
      for i = 1, 2 do assert(db:put("large " .. i, ("L"):rep(2000000))) end
      assert.is_true(db:delete("filler"))
      assert(db:step(1000))
      assert(db:put("lower", ("l"):rep(200000))) -- large values go on in its place
      fill(1, 200)
      for i = 1, 2 do assert.is_true(db:delete("large " .. i)) end
      delete_each(2, 1, 200)
      local snapshot = assert(db:snapshot())
      assert(db:step(1000))
      snapshot:close()
      local before = db:size()
      local count = looks_after(function()
        assert(db:step(1000))
        assert.is_true(db:size() < before - 3000000, db:size() .. ", was " .. before)
      end)
      assert.is_true(count > 8)
      assert.same({}, db:check())
    end)

    it("keeps what it looks at, whatever becomes of it meanwhile", function()
      if not crash.has_hooks then return pending("needs --enable-debug-checks") end
      open()
      assert(db:put("filler", ("f"):rep(4000000)))
      fill(1, 300)
      assert.is_true(db:delete("filler"))
      delete_each(2, 1, 300)
      assert(db:sync())
      local count = looks_after(function()
        delete_each(2, 2, 300)
        for _ = 1, 6 do assert(db:step(1000)) end
      end)
      assert.is_true(count > 0)
      for _ = 1, 6 do assert(db:step(1000)) end
      assert.is_true(db:size() < 10 * SEGMENT, db:size() .. " bytes")
      assert.same({}, db:check())
    end)
  end)

  it("leaves every byte of snapshots, of whatever moment", function()
    open()
    local held = {}
    local function hold(play, i)
      cleaned(play)
      if i % 60 == 20 then
        held[#held + 1] = { assert(db:snapshot()), copy(play.model) }
      end
      if i % 60 == 59 or i % 150 == 149 then
        for _, moment in ipairs(held) do holds(moment[1], moment[2], play.where) end
        if #held > 2 or i % 150 == 149 then
          for _, moment in ipairs(held) do moment[1]:close() end
          held = {}
        end
      end
    end
    -- A multiple of 150: then all are closed before the store is.
    local play = new_play(SEED + 30, { after = hold })
    run(play, thinned(450, 300) - thinned(450, 300) % 150)
    assert.same({}, held)
    assert.is_true(play.moved > 0)
  end)

  it("moves records whose hashes agree to the last bit of the first one", function()
    open { primary_mask = "f000000000000000" }
    local model = {}
    for i = 1, 2000 do
      local value = ("v"):rep(500) .. i
      assert(db:put("k" .. i, value))
      if i % 4 == 0 then model["k" .. i] = value end
    end
    for i = 1, 2000 do
      if i % 4 > 0 then assert(db:delete("k" .. i)) end
    end
    assert(db:sync())
    assert.is_true(clean_all() > 100000)
    for _ = 1, 4 do assert(db:step(1000)) end
    local now = usage()
    assert.is_true(now.used * SEGMENT <= 1.2 * now.live_bytes + 6 * SEGMENT,
      ("%d used, %d bytes alive"):format(now.used, now.live_bytes))
    assert.same(model, (assert(db:records())))
  end)

  it("gives back what a snapshot held when that is closed", function()
    open()
    local function rewrite(word)
      for i = 1, 300 do assert(db:put("k" .. i, word .. ("v"):rep(2000) .. i)) end
      assert(db:put("large", ("L"):rep(100000) .. word))
    end
    rewrite("0")
    local model, snapshot = assert(db:records()), assert(db:snapshot())
    for round = 1, 10 do
      rewrite(tostring(round))
      clean_all()
      assert(db:step(1000))
      if round % 3 == 0 then assert.same(model, (snapshot:records())) end
    end
    assert.same(model, (snapshot:records()))
    local before, size = usage(), db:size()
    assert.equal(0, before.low)
    snapshot:close()
    for _ = 1, 5 do
      clean_all()
      assert(db:step(1000))
    end
    for _ = 1, 3 do assert(db:step(1000)) end -- what is empty waits for a commit
    local after = usage()
    assert.is_true(after.used + after.empty <= before.used + before.empty - 4,
      ("%d used and %d empty, were %d and %d"):format(after.used, after.empty,
        before.used, before.empty))
    assert.is_true(after.free > before.free or db:size() < size)
    -- The file ends earlier as soon as the log goes on further down.
    for round = 11, 14 do
      rewrite(tostring(round))
      assert(db:step(1000))
    end
    for _ = 1, 10 do assert(db:step(1000)) end -- with nothing else to do
    after = usage()
    assert.is_true(db:size() < size, ("%d, was %d"):format(db:size(), size))
    assert.is_true(after.used * SEGMENT <= 1.12 * after.live_bytes + 6 * SEGMENT,
      ("%d used, %d bytes alive"):format(after.used, after.live_bytes))
    assert.is_true(db:size() < 1.5 * after.live_bytes + 14 * SEGMENT)
    model = assert(db:records())
    is_sound({ [""] = model, a = {}, b = {} }, "at last")
  end)

  it("waits for whoever looks at what became empty", function()
    open()
    for i = 1, 300 do assert(db:put("k" .. i, ("v"):rep(1000))) end
    assert(db:sync())
    assert(db:pin())
    for i = 1, 300 do assert(db:put("k" .. i, ("w"):rep(1000))) end
    assert(db:sync())
    clean_all()
    assert(db:sync())
    assert(db:step(1000))
    local pinned = usage()
    assert.equal(0, pinned.free)
    assert.is_true(pinned.empty > 0)
    assert.same({ pinned.empty, 0 }, { waiting() })
    assert(db:unpin())
    assert(db:step(1000))
    local now = usage()
    assert.is_true(now.free > 0)
  end)

  it("waits for a commit of what is looked at, too", function()
    open()
    for i = 1, 300 do assert(db:put("k" .. i, ("v"):rep(1000))) end
    assert(db:sync())
    assert(db:pin())
    for i = 1, 300 do assert(db:put("k" .. i, ("w"):rep(1000))) end
    clean_all()
    local pins, commit = waiting()
    assert.equal(usage().empty, pins + commit)
    assert.is_true(commit > 0)
    for _ = 1, 3 do assert(db:step(1000)) end
    assert.same({ usage().empty, 0 }, { waiting() })
    assert(db:unpin())
  end)

  it("changes no version, and nothing that a diff tells", function()
    open()
    for i = 1, 400 do assert(db:put("k" .. i, ("v"):rep(500))) end
    local map = assert(db:map("a"))
    for i = 1, 100 do assert(map:put("k" .. i, ("v"):rep(500))) end
    map:close()
    assert(db:put("large", ("L"):rep(80000)))
    for i = 1, 400 do
      if i % 4 > 0 then assert.is_true(db:delete("k" .. i)) end
    end
    assert(db:sync())
    local version, before = assert(db:version()), assert(db:snapshot())
    local same = before:version()
    -- A snapshot would hold what is to be moved.
    before:close()
    local moved = 0
    for _ = 1, 1000 do
      local bytes, found = assert(db:clean(8192))
      moved = moved + binary.number(bytes)
      assert.equal(version, db:version())
      if not found then break end
    end
    assert.is_true(moved > 20000, "moved " .. moved)
    assert(db:sync())
    assert(db:step(1000))
    assert.equal(version, db:version())
    local saved = assert(db:snapshot())
    assert.equal(same, saved:version())
    saved:close()
    local crashed = scratch.read(path)
    for _, bytes in ipairs { false, crashed } do -- closed, and not
      assert(db:close())
      if bytes then scratch.write(path, bytes) end
      open()
      assert.equal(version, db:version())
    end
    assert(db:put("other", "one"))
    assert.not_equal(version, db:version())
  end)

  it("moves nothing that a diff of two snapshots tells", function()
    open()
    -- What is older than the first snapshot is held by it; what is put between it
    -- and the second is not, by the second alone.
    for i = 1, 400 do assert(db:put("k" .. i, ("v"):rep(500))) end
    assert(db:sync())
    local first = assert(db:snapshot())
    for i = 1, 400 do assert(db:put("new" .. i, ("n"):rep(500))) end
    for i = 1, 400 do
      if i % 8 > 0 then assert.is_true(db:delete("new" .. i)) end
    end
    assert(db:put("new8", "again"))
    assert(db:sync())
    assert.is_true(clean_all() > 0)
    assert(db:sync())
    local second = assert(db:snapshot())
    clean_all()
    local third = assert(db:snapshot())
    local changes, count = assert(second:diff(third))
    assert.same({}, changes)
    assert.equal(0, count)
    changes, count = assert(first:diff(second))
    assert.equal(50, count)
    for i = 8, 400, 8 do assert.truthy(changes["new" .. i].new) end
    for _, snapshot in ipairs { first, second, third } do snapshot:close() end
  end)
end)
