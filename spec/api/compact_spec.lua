-- SPDX-License-Identifier: MIT
--
-- compact: the file becomes as small as it can be, while others go on.

local binary = require "spec.support.binary"
local helper = require "spec.support.helper"
local peers = require "spec.support.peers"

local MIB = 1048576

local db, path

local function fill(first, last, size)
  for i = first, last do assert(db:put("key " .. i, (i .. " "):rep(size))) end
end

local function holds(first, last, size)
  for i = first, last do
    assert.equal((i .. " "):rep(size), db:get("key " .. i))
  end
end

local function delete_all_but_each(step, last)
  for i = 1, last do
    if i % step ~= 0 then assert.is_true(db:delete("key " .. i)) end
  end
end

-- ---- How small ----------------------------------------------------------------

local random -- from 1 to n

local function value(size)
  return ("%08d"):format(random(100000000) - 1):rep(math.ceil(size / 8))
end

-- Puts `total` bytes, then overwrites records and deletes some, in no order.
local function churn(size_of, total)
  local expected, put = {}, 0
  local count = 0
  random = binary.random(4711)
  while put < total do
    count = count + 1
    expected[count] = value(size_of())
    put = put + #expected[count]
    assert(db:put("key " .. count, expected[count]))
  end
  for _ = 1, count do
    local id = random(count)
    if random(3) == 1 then
      expected[id] = nil
      db:delete("key " .. id)
    else
      expected[id] = value(size_of())
      assert(db:put("key " .. id, expected[id]))
    end
  end
  return expected
end

local function holds_all(expected)
  for id, is in pairs(expected) do
    if db:get("key " .. id) ~= is then error("another value of " .. id) end
  end
  assert.is_true(db:check())
end

-- The most that a file may have that is compact.
local function most(factor)
  return factor * db:stat().live_bytes
end

local sizes = {
  { "100 bytes", function() return 100 end, 8 * MIB, 1.02 },
  -- A segment is a fortieth of it, and two of them are not full.
  { "1 KB, of 6 MB", function() return 1000 end, 6 * MIB, 1.035 },
  { "5 KB", function() return 5000 end, 24 * MIB, 1.02 },
  -- What is longer than a quarter of a segment has pages of its own.
  { "40 KB", function() return 40000 end, 24 * MIB, 1.03 },
  -- Too much to be moved as a whole.
  { "300 KB", function() return 300000 end, 48 * MIB, 1.04 },
  { "64 bytes to 128 KB", function()
    return 64 * 2 ^ (random(11) - 1)
  end, 32 * MIB, 1.04 },
  { "1 KB to 1 MB", function()
    return 1000 + random(1000) ^ 2
  end, 48 * MIB, 1.04 },
}

describe("compact", function()
  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
  end)
  after_each(function()
    peers.kill_all()
    helper.close_all()
  end)

  it("gives back what is not alive, and keeps what is", function()
    fill(1, 40000, 40)
    delete_all_but_each(10, 40000)
    assert.is_true(db:sync())
    local version, before = db:version(), db:size()
    assert.is_true(db:compact())
    local stat = db:stat()
    assert.is_true(db:size() < before / 2, db:size())
    assert.is_true(db:size() < 1.05 * stat.live_bytes + 5 * MIB, db:size())
    assert.is_true(stat.moved_bytes > 0)
    assert.equal(version, db:version())
    for i = 10, 40000, 10 do holds(i, i, 40) end
    assert.equal(4000, db:count())
    assert.is_true(db:check())
    assert(db:close())
    db = helper.store({ durability = "manual" }, path)
    for i = 10, 40000, 10 do holds(i, i, 40) end
    assert.is_true(db:check())
  end)

  it("moves large values, and maps", function()
    local map = assert(db:map("a map"))
    for i = 1, 40 do
      assert(db:put("large " .. i, (i .. " "):rep(100000)))
      for n = 1, 100 do assert(map:put(i .. " " .. n, ("v"):rep(n))) end
    end
    for i = 1, 40 do if i % 5 > 0 then db:delete("large " .. i) end end
    assert.is_true(db:compact())
    for i = 5, 40, 5 do assert.equal((i .. " "):rep(100000), db:get("large " .. i)) end
    for n = 1, 100 do assert.equal(("v"):rep(n), map:get("7 " .. n)) end
    assert.equal(4000, map:count())
    assert.is_true(db:check())
  end)

  it("leaves what a snapshot sees", function()
    fill(1, 5000, 40)
    local snapshot = assert(db:snapshot())
    delete_all_but_each(50, 5000)
    assert.is_true(db:compact())
    for i = 1, 5000, 7 do
      assert.equal((i .. " "):rep(40), snapshot:get("key " .. i))
    end
    snapshot:close()
    local before = db:size()
    assert.is_true(db:compact())
    assert.is_true(db:size() < before)
    assert.equal(100, db:count())
  end)

  it("does not make the file longer because of a snapshot", function()
    fill(1, 20000, 40)
    for i = 1, 20000, 3 do assert.is_true(db:delete("key " .. i)) end
    local snapshot = assert(db:snapshot())
    local before = db:size()
    assert.is_true(db:compact())
    assert.is_true(db:size() <= before + 4 * db:stat().segment_bytes, db:size())
    snapshot:close()
  end)

  -- All that is younger could be moved out of the way, but the file not be cut.
  it("does not move all that is younger than a snapshot behind the file", function()
    assert(db:put("old", "est"))
    local snapshot = assert(db:snapshot())
    fill(1, 5000, 200)
    for i = 1, 5000, 3 do assert.is_true(db:delete("key " .. i)) end
    local before = db:size()
    assert.is_true(db:compact())
    assert.is_true(db:size() <= 1.25 * before, db:size() .. " was " .. before)
    assert.equal("est", snapshot:get("old"))
    snapshot:close()
    assert.is_true(db:compact())
    assert.is_true(db:size() <= most(1.1), db:size() .. " of " .. most(1.1))
  end)

  it("does not end worse for a snapshot that comes in between", function()
    for at = 1, 5 do
      db:close()
      os.remove(path)
      db = helper.store({ durability = "manual" }, path)
      fill(1, 20000, 200)
      for i = 1, 20000, 3 do assert.is_true(db:delete("key " .. i)) end
      local before, calls, snapshot = db:size(), 0, nil
      assert.is_true(db:compact(function(done, all)
        if done == all then return end
        calls = calls + 1
        if calls == at then snapshot = assert(db:snapshot()) end
        if calls == at + 1 and snapshot then
          snapshot:close()
          snapshot = nil
        end
      end))
      if snapshot then -- it has seen the end
        snapshot:close()
        assert.is_true(db:compact())
      end
      assert.is_true(db:size() < before, db:size() .. " was " .. before)
      assert.is_true(db:size() <= most(1.1), db:size() .. " at " .. at)
    end
  end)

  it("leaves a compact store as it is, also when it is the first call", function()
    fill(1, 20000, 40)
    for i = 1, 20000, 3 do assert.is_true(db:delete("key " .. i)) end
    assert.is_true(db:compact())
    local moved = db:stat().moved_bytes
    assert.is_true(moved > db:stat().live_bytes)
    local size = db:size()
    assert.is_true(db:compact())
    assert.equal(moved, db:stat().moved_bytes)
    assert.equal(size, db:size())
    assert(db:close())
    db = helper.store({ durability = "manual" }, path)
    assert.is_true(db:compact())
    assert.equal(0, db:stat().moved_bytes)
  end)

  it("gives back what the file has grown ahead by, too", function()
    fill(1, 20000, 200)
    assert.is_true(db:compact())
    db:update(function(txn)
      for i = 1, 100 do txn:put("new " .. i, ("v"):rep(1000)) end
    end)
    assert(db:sync())
    assert.is_true(db:size() > most(1.05), db:size() .. " of " .. most(1.05))
    local moved = db:stat().moved_bytes
    assert.is_true(db:compact())
    assert.is_true(db:size() <= most(1.04), db:size() .. " of " .. most(1.04))
    assert.equal(moved, db:stat().moved_bytes)
  end)

  it("moves what is longer by more than a 20th, in small stores, too", function()
    for _, count in ipairs { 2800, 3000 } do
      db:close()
      os.remove(path)
      db = helper.store({ durability = "manual" }, path)
      db:update(function(txn)
        for i = 1, count do txn:put("key " .. i, ("v"):rep(500)) end
      end)
      assert.is_true(db:compact())
      assert.is_true(db:size() <= most(1.07), count .. ": " .. db:size() .. " of " .. most(1.07))
    end
  end)

  -- One that is a little too large for its few segments is moved each time.
  it("ends each time as it did, where that is all that there is", function()
    for _, count in ipairs { 30, 90 } do
      db:close()
      os.remove(path)
      db = helper.store({ durability = "manual" }, path)
      for i = 1, count do assert(db:put("old " .. i, (i .. " "):rep(8000))) end
      fill(1, count, 8000)
      for i = 1, count, 3 do assert.is_true(db:delete("key " .. i)) end
      assert.is_true(db:compact())
      local size = db:size()
      assert.is_true(size <= most(1.08), size .. " of " .. most(1.08))
      for _ = 1, 4 do
        assert.is_true(db:compact())
        assert.is_true(db:size() <= size, db:size() .. " was " .. size)
      end
      assert.is_true(db:check())
    end
  end)

  it("does not move what saved snapshots hold again and again", function()
    fill(1, 20000, 40)
    assert(db:snapshot("before"))
    for i = 1, 20000, 3 do assert.is_true(db:delete("key " .. i)) end
    assert.is_true(db:compact())
    local moved = db:stat().moved_bytes
    assert.is_true(db:compact())
    assert.is_true(db:stat().moved_bytes - moved < db:stat().live_bytes / 2)
  end)

  it("tells how far it is, and ends where that is not wanted", function()
    fill(1, 20000, 40)
    delete_all_but_each(3, 20000)
    local last, total
    assert.is_true(db:compact(function(done, all)
      assert.is_true(done >= (last or 0) and done <= all)
      last, total = done, all
    end))
    assert.equal(total, last)
    fill(1, 20000, 40)
    delete_all_but_each(3, 20000)
    local ok, message = pcall(db.compact, db, function() error("enough", 0) end)
    assert.is_false(ok)
    assert.equal("enough", message)
    assert.equal(6666, db:count())
    assert.is_true(db:check())
  end)

  it("is for whoever may write", function()
    fill(1, 10, 1)
    assert(db:close())
    local reader = helper.store({ readonly = true }, path)
    local result, _, code = reader:compact()
    assert.is_nil(result)
    assert.equal("EREADONLY", code)
  end)

  it("has nothing to do in an empty store", function()
    assert.is_true(db:compact())
    assert.is_true(db:size() <= MIB, db:size())
  end)

  for _, case in ipairs(sizes) do
    it("leaves little beside values of " .. case[1], function()
      local expected = churn(case[2], case[3])
      assert.is_true(db:compact())
      assert.is_true(db:size() <= most(case[4]),
        ("%.0f of %.0f"):format(db:size(), most(case[4])))
      holds_all(expected)
    end)
  end

  -- Who comes after the death of all took the dead one's recount for one under way, for
  -- two seconds, and until then nothing was given back.
  it("makes small what is left by one that died while it recounted", function()
    db:close()
    local peer = peers.start(path, { open = "{ durability = 'manual' }" })
    assert.is_true(tonumber(peer:ask([[
      for i = 1, 60 do
        local records = {}
        for j = 1, 500 do records[i .. " " .. j] = ("v"):rep(100) end
        db:put_many(records)
      end
      db:snapshot("s")
      db:drop_snapshot("s")
      db:sync()
      for i = 1, 1000 do
        db:step(1e-4)
        if db:stat().uncounted_segments > 0 then break end
      end
      return db:stat().uncounted_segments
    ]])) > 0)
    peer:kill()
    db = helper.store({ durability = "manual" }, path)
    assert.is_true(db:clear())
    assert.is_true(db:compact())
    local stat = db:stat()
    assert.equal(0, stat.uncounted_segments)
    assert.is_true(stat.size_bytes < MIB, stat.size_bytes)
  end)

  it("leaves little while others write", function()
    local expected = churn(sizes[6][2], sizes[6][3])
    local calls = 0
    assert.is_true(db:compact(function(done, all)
      if done == all then return end
      calls = calls + 1
      for _ = 1, 5 do
        local id = random(100)
        expected[id] = value(sizes[6][2]())
        assert(db:put("key " .. id, expected[id]))
      end
    end))
    if calls == 0 then return pending("it was compact at once") end
    -- Puts have the file grow ahead of them.
    assert.is_true(db:size() <= most(1.05) + 2 * MIB,
      ("%.0f of %.0f"):format(db:size(), most(1.05)))
    holds_all(expected)
  end)

  -- What is moved beside it would lie in its way, and the file end a segment later.
  it("has steps move nothing meanwhile, which commit", function()
    local expected = churn(sizes[1][2], sizes[1][3])
    local calls = 0
    assert.is_true(db:compact(function(done, all)
      if done == all then return end
      calls = calls + 1
      expected[1] = value(100)
      assert(db:put("key 1", expected[1]))
      for _ = 1, 2 do
        local before = db:stat().moved_bytes
        assert(db:step(0.1))
        assert.equal(before, db:stat().moved_bytes)
        assert.is_true(db:stat().durable_epoch + 1 >= db:stat().epoch)
      end
    end))
    assert.is_true(calls > 0)
    holds_all(expected)
  end)

  it("holds nobody up when it has died", function()
    churn(sizes[1][2], sizes[1][3])
    assert(db:close())
    local peer = peers.start(path, { open = "{ durability = 'manual' }" })
    peer:count("db:compact(function(done, all) if done == all then return end "
      .. "reports(1); probe.os.sleep_ms(60000) end)", 1)
    peer:kill_counting()
    db = helper.store({ durability = "manual" }, path)
    local before = db:stat().moved_bytes
    assert(db:step(20))
    assert.is_true(db:stat().moved_bytes > before)
  end)

  it("works in a store that has no room to grow", function()
    for _, max_size in ipairs { 4 * MIB, 6 * MIB, 8 * MIB } do
      db:close()
      os.remove(path)
      db = helper.store({ durability = "manual", max_size = max_size }, path)
      local count = 0
      while db:put("key " .. count, ("v"):rep(300)) do count = count + 1 end
      for i = 1, count, 3 do db:delete("key " .. i) end
      assert(db:sync())
      assert.is_true(db:compact())
      -- Passes alone: where the heads of the log are decides about one segment, of 16
      -- that the smallest has.
      local least = most(1.08) + db:stat().segment_bytes
      assert.is_true(db:size() <= least, db:size() .. " of " .. least)
      assert.is_true(db:check())
      for i = 0, count - 1 do assert.equal(i % 3 ~= 1, db:has("key " .. i)) end
    end
  end)
end)
