-- SPDX-License-Identifier: MIT
--
-- The file stays small, whatever is written to it: churn of several kinds, a
-- store that is emptied, maps and saved snapshots that are dropped, and what
-- happens when there is no room left.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"

local SEGMENT, MIB = scratch.SEGMENT, 1048576
local SEED = binary.seed("churn")
local FEW = 12 * SEGMENT -- segments beside what is alive, and the file's growth

-- What is asked for: so many times what is alive, and so many segments.
local BOUNDS = {
  used = { 1.15, 6 },        -- segments in use, when upkeep has nothing more to do
  used_by_large = { 1.15, 14 }, -- where many values have pages of their own
  file = { 1.6, 14 },        -- the file then
  file_at_most = { 2, 24 },  -- the file while it is written to
  blocks = { 1, 18 },        -- on the disk, of what is used then, with the reserve
}
local FILLED = 0.5 -- of a store without room: the part that values take
local AGAIN = 0.8  -- of what is deleted there: the part that can be put again

local function within(bound, bytes, alive)
  local most = bound[1] * alive + bound[2] * SEGMENT
  if bytes > most then
    error(("%.0f bytes, not %.0f, with %.0f alive"):format(bytes, most, alive), 2)
  end
end

local path, db

local function open(options)
  db = scratch.open(path, options)
  return db
end

local function usage() return scratch.usage(db) end

local function blocks_of(file)
  return tonumber(scratch.shell("stat -c %b " .. scratch.quoted(file))) * 512
end

-- Upkeep until it finds no more to do.
local function settle()
  local before = {}
  for _ = 1, 50 do
    assert(db:step(1000))
    local now = usage()
    now.size = db:size()
    if now.uncounted == 0 and now.free == before.free and now.used == before.used
      and now.empty == before.empty and now.size == before.size then
      return now
    end
    before = now
  end
  error("does not settle")
end

local function is_tight(now, bound)
  assert.equal(0, now.uncounted)
  assert.equal(0, now.low)
  within(bound or BOUNDS.used, now.used * SEGMENT, now.live_bytes)
end

local function is_small()
  local now = settle()
  is_tight(now)
  within(BOUNDS.file, now.size, now.live_bytes)
  return now
end

-- The blocks of what is neither free nor kept in reserve.
local function has_few_blocks(now)
  within(BOUNDS.blocks, blocks_of(path), (now.used + now.empty) * SEGMENT)
end

local function is_sound(options)
  local records = assert(db:records())
  assert(db:close())
  local report = assert(probe.verify.bytes(scratch.read(path)))
  assert.same({}, report.failures)
  open(options)
  local now = assert(db:records())
  for key, value in pairs(records) do
    if now[key] ~= value then error("wrong after opening again: " .. key) end
    now[key] = nil
  end
  assert.is_nil(next(now))
end

before_each(function() path = crash.path("churn") os.remove(path) end)
teardown(crash.remove_folder)
after_each(function()
  if db then db:close() end
  db = nil
end)

describe("churn", function()
  local KEYS, SIZE = math.max(600, math.floor(2000 / crash.thinning)), 1000

  -- So many that what is written is four times what the file may become.
  local function rounds_within(bound)
    return math.ceil(4 * (bound[1] + bound[2] * SEGMENT / (KEYS * SIZE)))
  end

  local function value(i, round)
    return ("%d of %d: "):format(i, round) .. ("v"):rep(SIZE)
  end

  -- Many times what is alive, key by key as `which` says.
  local function overwrite(level, which)
    local random = binary.random(SEED)
    local model, largest = {}, 0
    open { durability = level, flush_interval_ms = 20 }
    for round = 1, rounds_within(BOUNDS.file_at_most) do
      for i = 1, KEYS do
        local key = "k" .. (round == 1 and i or which(random))
        model[key] = value(i, round)
        assert(db:put(key, model[key]))
        if level == "manual" and i % 50 == 0 then assert(db:step(5)) end
      end
      largest = math.max(largest, db:size())
    end
    local live = usage().live_bytes
    assert.is_true(live <= 1.15 * KEYS * SIZE)
    within(BOUNDS.file_at_most, largest, live)
    is_small()
    for key, expected in pairs(model) do assert.equal(expected, db:get(key)) end
    is_sound()
  end

  for _, level in ipairs { "manual", "async", "sync" } do
    it("of all keys leaves the file small, " .. level, function()
      overwrite(level, function(random) return random(KEYS) end)
    end)

    it("of a tenth of the keys leaves the file small, " .. level, function()
      overwrite(level, function(random)
        return random(10) == 1 and random(KEYS) or random(KEYS / 10)
      end)
    end)
  end

  -- Large enough for pieces of the file to be used as a whole.
  it("of a large store leaves the file small", function()
    local keys, size, random = 6000, 4000, binary.random(SEED)
    local rounds, largest = crash.thinning > 1 and 2 or 4, 0
    open { segment_size = 262144 }
    local model = {}
    for i = 1, keys * rounds do
      local key = "k" .. (i <= keys and i or random(keys))
      model[key] = ("%d: "):format(i) .. ("v"):rep(size)
      assert(db:put(key, model[key]))
      if i % 100 == 0 then largest = math.max(largest, db:size()) end
    end
    assert.is_true(largest <= 1.6 * usage().live_bytes, largest .. " bytes")
    local now = settle()
    assert.equal(0, now.low)
    assert.is_true(now.used * 262144 <= 1.15 * now.live_bytes + 6 * 262144)
    assert.same(model, (assert(db:records())))
    is_sound()
  end)

  for _, level in ipairs { "manual", "async", "sync" } do
    it("of insertion and deletion in turns leaves the file small, " .. level,
      function()
        open { durability = level, flush_interval_ms = 20 }
        local most = 0
        for round = 1, rounds_within(BOUNDS.file_at_most) do
          for i = 1, KEYS do assert(db:put("k" .. i, value(i, round))) end
          most = math.max(most, db:size())
          for i = 1, KEYS do assert.is_true(db:delete("k" .. i)) end
          if level == "manual" then assert(db:step(100)) end
        end
        within(BOUNDS.file_at_most, most, KEYS * SIZE)
        assert.equal(0, db:count())
        assert(db:put("last", "one"))
        -- The heads may still be at the file's end.
        local now = settle()
        is_tight(now)
        assert.is_true(now.size <= most + FEW, ("%d bytes, were %d"):format(now.size, most))
        has_few_blocks(now)
        is_sound()
        assert.equal("one", db:get("last"))
        assert.is_true(db:size() <= 2 * FEW)
      end)
  end

  -- What is written ahead stays, and is grown into.
  it("of nothing, but insertion in bursts, seldom changes its length", function()
    open { durability = "manual", segment_size = 262144 }
    local size, changes = db:size(), 0
    for burst = 1, 60 do
      for i = 1, 1000 do assert(db:put(burst .. "," .. i, value(i, burst))) end
      assert(db:step(100))
      if db:size() ~= size and burst > 20 then changes = changes + 1 end
      size = db:size()
    end
    -- Of 40 bursts, of a megabyte each: a piece of 2 MiB at least is written ahead.
    assert.is_true(changes <= 26, changes .. " changes")
  end)

  -- Without a commit nothing becomes free: there is always a segment for one.
  it("of small records in a store that is full never ends all changes", function()
    local random = binary.random(SEED)
    for _ = 1, math.ceil((crash.is_long and 60 or 20) / crash.thinning) do
      open { durability = "manual", segment_size = 131072,
        max_size = 131072 * (10 + random(4)) }
      local count = 0
      while db:put("k" .. count, ("v"):rep(random(8))) do count = count + 1 end
      local kept = math.floor(count * (75 + random(25)) / 100)
      for i = kept, count - 1 do db:delete("k" .. i) end
      for i = 1, 20000 do
        if not db:put("k" .. random(kept), ("w"):rep(random(8)))
          and random(20) == 1 then
          db:delete("k" .. random(kept))
        end
        if i % 2000 == 0 then db:step(5) end
      end
      assert(db:sync())
      assert(db:clear())
      assert(db:put("again", ("here"):rep(25000)))
      assert.same({}, db:check())
      db:close()
      os.remove(path)
    end
  end)

  -- So many segments that not all are looked at each time that one is begun.
  it("in a store that is full makes room again and again", function()
    local random = binary.random(SEED + 2)
    open { durability = "manual", segment_size = 131072, max_size = 131072 * 100 }
    local count = 0
    while db:put("k" .. count, ("v"):rep(1000)) do count = count + 1 end
    for i = math.floor(count * 0.7), count - 1 do assert(db:delete("k" .. i)) end
    for _ = 1, 3 * count do
      assert(db:put("k" .. random(math.floor(count * 0.7) - 1), ("w"):rep(random(1000))))
    end
    -- A transaction makes no room: the next one does, before it begins.
    local function transact()
      local txn = assert(db:begin())
      for _ = 1, 200 do
        local key = "k" .. random(math.floor(count * 0.7) - 1)
        if not txn:put(key, ("x"):rep(1000)) then return txn:abort() end
      end
      return assert(txn:commit())
    end
    for _ = 1, 30 do
      local tries = 1
      while not transact() do
        tries = tries + 1
        assert.is_true(tries <= 6)
      end
    end
    is_sound()
  end)

  it("of values that grow and shrink leaves the file small", function()
    open()
    local random = binary.random(SEED + 1)
    local model = {}
    for i = 1, math.ceil(3000 / crash.thinning) do
      local key = "k" .. random(200)
      local size = random(3) == 1 and random(45000) or random(2000)
      model[key] = binary.bytes(size, i % 7)
      assert(db:put(key, model[key]))
      if i % 20 == 0 then assert(db:step(20)) end
    end
    -- The end of the file is free, but for a segment or two.
    local now = settle()
    is_tight(now, BOUNDS.used_by_large)
    has_few_blocks(now)
    for key, expected in pairs(model) do
      if db:get(key) ~= expected then error("wrong: " .. key) end
    end
    is_sound()
  end)
end)

describe("space", function()
  local function fill(handle, count, size, word)
    for i = 1, count do
      assert(handle:put("k" .. i, word .. i .. ("v"):rep(size)))
    end
  end

  it("comes back from a store that is cleared", function()
    open()
    fill(db, 3000, 1000, "a")
    assert(db:sync())
    assert.is_true(db:size() > 3 * MIB)
    local blocks = blocks_of(path)
    assert(db:clear())
    assert(db:put("last", "one"))
    local now = settle()
    assert.is_true(now.used <= 4)
    assert.is_true(blocks_of(path) < blocks / 2)
    assert.is_true(db:size() <= FEW, "size " .. db:size())
    for round = 1, 2 do
      fill(db, 300, 1000, "again " .. round)
      assert(db:clear())
      settle()
    end
    assert.is_true(db:size() <= FEW, "size " .. db:size())
    is_sound()
  end)

  -- The file's length, when nobody does anything.
  local function shrinks_to(bytes)
    for _ = 1, 200 do
      if db:size() <= bytes then return end
      scratch.shell("sleep 0.1")
    end
    error(("still %d bytes, not %d"):format(db:size(), bytes))
  end

  for name, empty in pairs {
    ["that is cleared"] = function() assert(db:clear()) end,
    ["all of whose records are deleted"] = function()
      for i = 1, 3000 do assert.is_true(db:delete("k" .. i)) end
    end,
  } do
    it("comes back by itself from a store " .. name, function()
      open { durability = "async", flush_interval_ms = 20 }
      fill(db, 3000, 1000, "a")
      assert(db:sync())
      assert.is_true(db:size() > 3 * MIB)
      empty()
      shrinks_to(FEW)
      is_sound()
    end)
  end

  it("comes back by itself from a store most of which is deleted", function()
    open { durability = "async", flush_interval_ms = 20 }
    fill(db, 3000, 1000, "a")
    for i = 1, 3000 do
      if i % 4 > 0 then assert.is_true(db:delete("k" .. i)) end
    end
    shrinks_to(BOUNDS.file[1] * 750 * 1000 + BOUNDS.file[2] * SEGMENT)
    is_sound()
  end)

  -- Else what is left would be moved again and again.
  it("is not cleaned while much is deleted, but soon after", function()
    local SOON, NOW = 2, 3
    -- At once, so that nobody pays for cleaning in between.
    local function change(first, count, value)
      local txn = assert(db:begin())
      for i = first, first + count - 1 do
        local key = "k" .. i
        if value then assert(txn:put(key, value)) else assert.is_true(txn:delete(key)) end
      end
      assert(txn:commit())
      assert(db:stat()) -- looks at all segments
      return usage()
    end
    open { durability = "manual" }
    fill(db, 3000, 1000, "a")
    settle()
    local now = change(1, 1000)
    assert.equal(1, now.emptying)
    assert.is_true(now.need < NOW) -- soon, if much waits for a commit
    scratch.shell("sleep 1.1")
    assert(db:stat())
    now = usage()
    assert.equal(0, now.emptying)
    assert.is_true(now.need >= SOON)
    now = change(1001, 500)
    assert.equal(1, now.emptying)
    assert.is_true(now.need < NOW)
    assert.equal(0, change(1, 500, ("w"):rep(1000)).emptying)
    -- It ends when much is put that does not make up for it, too.
    assert.equal(1, change(1, 500).emptying)
    assert.equal(1, change(1501, 60).emptying)
    for first = 1561, 2991, 10 do now = change(first, 10, ("w"):rep(1000)) end
    assert.equal(0, now.emptying)
    is_small()
  end)

  -- Else the file grows while the commit goes on; or, with the second seed, by all that
  -- one put moves, if what it moves of large values is not charged to it.
  for word, seed in pairs { ["any seed"] = SEED, ["one that was bad"] = 755735599 } do
    it("that waits for a commit is waited for by changes, though nothing has to be cleaned: "
      .. word, function()
      local BIG = 7 * SEGMENT -- so that segments die as a whole
      open { durability = "manual" }
      for i = 1, 30 do assert(db:put("k" .. i, ("a"):rep(BIG))) end
      assert(db:sync())
      local random = binary.random(seed)
      local largest = 0
      for _ = 1, 300 do
        local id = random(30)
        assert(db:put("k" .. id, ("b"):rep(BIG)))
        largest = math.max(largest, db:size())
      end
      within({ 1.8, 6 }, largest, usage().live_bytes)
      is_sound()
    end)
  end

  it("comes back from a map that is dropped, when all has been recounted",
    function()
      open()
      local map = assert(db:map("a"))
      fill(map, 20000, 20, "a")
      map:close()
      fill(db, 300, 1000, "b")
      assert(db:sync())
      local before = usage()
      assert.equal(0, before.high)
      assert.is_true(db:drop("a"))
      assert.is_true(usage().high > 1000000)
      assert.equal(0, usage().low)
      local now = settle()
      assert.equal(0, now.low)
      assert.equal(0, now.high)
      assert.is_true(now.used < before.used / 2)
      for round = 1, 4 do
        fill(db, 300, 1000, "b" .. round)
        settle()
      end
      is_small()
      is_sound()
    end)

  it("comes back at once from what was aborted, without another commit", function()
    open()
    for i = 1, 1000 do assert(db:put("k" .. i, ("v"):rep(1000))) end
    for i = 1, 900 do assert(db:delete("k" .. i)) end
    settle()
    local free = usage().free
    for _ = 1, 3 do
      local txn = assert(db:begin())
      for i = 1, 900 do assert(txn:put("k" .. i, ("w"):rep(1000))) end
      txn:abort()
      for _ = 1, 2 do assert(db:stat()) end -- looks at all segments
      assert.equal(0, usage().empty)
      assert.is_true(usage().free >= free)
    end
  end)

  it("of a map of few records comes back after the next opening", function()
    open()
    local map = assert(db:map("a"))
    fill(map, 20, 100000, "a")
    map:close()
    fill(db, 300, 1000, "b")
    local before = usage()
    assert.is_true(db:drop("a"))
    assert.equal(0, usage().low)
    assert(db:close())
    open()
    assert(db:put("wakes", "it up"))
    local now = settle()
    assert.equal(0, now.uncounted)
    assert.equal(0, now.low)
    assert.equal(0, now.high)
    assert.is_true(now.used < before.used / 2)
    is_sound()
  end)

  it("of a saved snapshot stays, whatever is rewritten, cleaned and opened",
    function()
      open()
      fill(db, 400, 1000, "old ")
      local map = assert(db:map("a"))
      fill(map, 50, 1000, "old ")
      map:close()
      assert(db:put("large", ("L"):rep(200000)))
      local model = assert(db:records())
      assert(db:save("then"))
      local function is_there()
        local snapshot = assert(db:open_saved("then"))
        local records = assert(snapshot:records())
        for key, value in pairs(model) do
          if records[key] ~= value then error("wrong in the snapshot: " .. key) end
          records[key] = nil
        end
        assert.is_nil(next(records))
        local saved_map = assert(snapshot:map("a"))
        local _, count = assert(saved_map:records())
        assert.equal(50, count)
        saved_map:close()
        snapshot:close()
      end
      for round = 1, 6 do
        fill(db, 400, 1000, "new " .. round .. " ")
        map = assert(db:map("a"))
        assert(map:clear())
        map:close()
        assert(db:put("large", ("l"):rep(100000 + round)))
        for _ = 1, 200 do
          local _, found = assert(db:clean(8192))
          if not found then break end
        end
        assert(db:step(200))
        is_there()
        if round % 2 == 0 then
          is_sound()
          is_there()
        end
      end
      assert(db:put("wakes", "it up"))
      local before = settle()
      is_there()
      assert.is_true(db:drop_saved("then"))
      assert(db:put("wakes", "it up again"))
      -- A recount finds what was under it.
      local dropped = settle()
      assert.equal(0, dropped.high)
      assert.is_true(dropped.used <= before.used - 3,
        ("%d segments used, were %d"):format(dropped.used, before.used))
      is_tight(dropped)
      for round = 7, 12 do
        fill(db, 400, 1000, "new " .. round .. " ")
        assert(db:put("large", ("l"):rep(100000 + round)))
        settle()
      end
      local after = is_small()
      assert.is_true(after.used + after.empty < before.used + before.empty)
      is_sound()
    end)

  it("is counted anew after a power cut, and a saved snapshot's is kept",
    function()
      local child = probe.child.start(function()
        open()
        fill(db, 400, 1000, "old ")
        assert(db:save("then"))
        for round = 1, 3 do fill(db, 400, 1000, "new " .. round) end
        assert(db:sync())
        probe.child.raise(9)
      end)
      child:wait()
      os.remove(path .. "-lock") -- the machine dies with it
      open()
      for round = 1, 4 do
        fill(db, 400, 1000, "newer " .. round)
        local now = settle()
        assert.equal(0, now.uncounted)
        assert.equal(0, now.low)
        local snapshot = assert(db:open_saved("then"))
        for i = 1, 400 do
          assert.equal("old " .. i .. ("v"):rep(1000), snapshot:get("k" .. i))
        end
        snapshot:close()
      end
      is_sound()
    end)

  -- Recovery comes through the segments that the heads have left for lower ones,
  -- until a superblock names others: they were free at once, and what was written
  -- there cost the commits after it, or all further ones.
  describe("that the heads have left", function()
    local function text(i) return ("%d:"):format(i) .. ("v"):rep(1000) end

    local function put(first, last)
      for i = first, last do assert(db:put("k" .. i, text(i))) end
    end

    local function go_down()
      assert(db:sync())
      assert(db:clear())
      assert(db:sync())
      for _ = 1, 5 do assert(db:step(100)) end
    end

    -- What is found after a power cut that loses nothing that was written.
    local function cut()
      return assert(probe.store.open(
        scratch.write(crash.path("cut"), scratch.read(path)),
        { durability = "manual", segment_size = SEGMENT }))
    end

    it("is not used again before the commits of what was written there", function()
      open()
      put(1, 1100)
      go_down()
      put(1, 1400)
      assert(db:sync())
      local other = cut()
      assert.equal(1400, other:count())
      other:close()
      is_sound()
    end)

    it("takes no large values after a power cut", function()
      open()
      put(1, 250)
      assert(db:put("large", ("x"):rep(40000)))
      put(251, 700)
      go_down()
      for last = 50, 900, 50 do
        put(last - 49, last)
        assert(db:sync())
        local other = cut()
        assert.equal(last, other:count())
        for i = 1, 3 do assert(other:put("large" .. i, ("y"):rep(40000))) end
        for i = 1, last do
          if other:get("k" .. i) ~= text(i) then error("wrong: " .. i) end
        end
        other:close()
      end
    end)
  end)
end)

describe("a store without room", function()
  -- Fills it until a put fails, with `code`, and shows that deleting makes room.
  local function fill_and_go_on(room, code, size)
    local function put(i, round)
      return db:put("k" .. i, round .. ("v"):rep(size) .. i)
    end
    local count = 0
    while true do
      local ok, failed = put(count, 0)
      if not ok then
        assert.equal(code, failed)
        break
      end
      count = count + 1
    end
    assert.is_true(count * size >= FILLED * room,
      ("%d bytes of %d"):format(count * size, room))
    assert.equal(count, db:count())
    for round = 1, 2 do
      for i = 0, count - 1, 2 do
        local ok, failed = db:delete("k" .. i)
        if ok == nil then error(("delete %d: %s"):format(i, tostring(failed))) end
      end
      assert.equal(math.floor(count / 2), db:count())
      -- Most of it can be put again.
      local again = 0
      for i = 0, count - 1, 2 do
        local ok, failed = put(i, round)
        if ok then again = again + 1 else assert.equal(code, failed) end
      end
      assert.is_true(again >= AGAIN * math.floor(count / 2),
        ("%d of %d"):format(again, math.ceil(count / 2)))
      for i = 1, count - 1, 2 do
        if db:get("k" .. i) ~= 0 .. ("v"):rep(size) .. i then
          error("wrong: " .. i)
        end
      end
    end
    for i = 0, count - 1 do assert(db:delete("k" .. i) ~= nil) end
    assert(put("last", "one"))
    assert.equal(1, db:count())
    assert.equal(0, usage().low)
  end

  for _, level in ipairs { "manual", "async" } do
    it("at max_size takes deletions, and then puts again, " .. level, function()
      local options = { durability = level, max_size = 4 * MIB }
      open(options)
      fill_and_go_on(4 * MIB, "EFULL", 1000)
      assert.is_true(db:size() <= 4 * MIB)
      is_sound(options)
    end)
  end

  it("at max_size of 16 MiB, in segments of the usual size, the same", function()
    local options = { max_size = 16 * MIB, segment_size = MIB }
    open(options)
    fill_and_go_on(16 * MIB, "EFULL", 3000)
    assert.is_true(db:size() <= 16 * MIB)
    is_sound(options)
  end)

  -- A sum was formed anew when room had been made, from what it had come to before.
  it("adds once, however often it has to make room", function()
    open { max_size = 2 * MIB }
    local count, added = 0, 0
    while db:put("k" .. count, ("v"):rep(1000)) do count = count + 1 end
    for round = 0, 19 do
      for i = round, count - 1, 20 do assert(db:delete("k" .. i)) end
      repeat
        added = added + 1
        local sum = db:incr(("sum " .. added):rep(100), 1, 0)
        assert.is_true(not sum or sum == 1)
      until not sum
    end
    assert.is_true(added > 500)
  end)

  for _, level in ipairs { "manual", "async" } do
    it("on a full disk takes deletions, and then puts again, " .. level,
      function()
        local tried, why = scratch.with_small_file_system("8m", function(place)
          path = place .. "/store"
          open { durability = level }
          fill_and_go_on(8 * MIB, "ENOSPC", 1000)
          is_sound { durability = level }
          db = db:close() and nil
        end)
        if not tried then pending(why) end
      end)
  end
end)
