-- SPDX-License-Identifier: MIT
--
-- Transactions in C: all of it at one instant or nothing, whoever looks,
-- whatever fails, whoever dies. What single methods do is in the model spec, too.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"
local binary = require "spec.support.binary"
local SEGMENT = scratch.SEGMENT
local SIGKILL = 9
local unpack_ = table.unpack or unpack -- luacheck: ignore 113

local function transactions()
  local path, db

  before_each(function() path = scratch.path("store") end)
  teardown(crash.remove_folder)
  after_each(function()
    if crash.has_hooks then probe.crash.breaks() end
    if db then db:close() end
    db = nil
  end)

  local function open(options)
    db = scratch.open(path, options)
    return db
  end

  local function fill(count, size)
    for i = 1, count do
      assert(db:put("key " .. i, ("v"):rep(size or 20) .. i))
    end
  end

  local function copy(records)
    local other = {}
    for key, value in pairs(records) do other[key] = value end
    return other
  end

  -- The store is sound, and holds just these records.
  local function holds(model)
    local records = assert(db:records())
    assert.same(model, records)
    local size = 0
    for _ in pairs(model) do size = size + 1 end
    assert.equal(size, db:count())
  end

  local function is_sound_on_disk(model)
    assert(db:close())
    local report = assert(probe.verify.bytes(scratch.read(path)))
    assert.same({}, report.failures)
    open()
    holds(model)
  end

  local function refuses(word, ok, code, what)
    assert.is_nil(ok)
    assert.equal(word, code)
    return what
  end

  it("is seen by nobody before the commit, and by all after it", function()
    open()
    fill(100)
    local before = assert(db:records())
    local version = db:version()
    local txn = assert(db:begin())
    for i = 1, 100, 2 do assert(txn:put("key " .. i, "changed")) end
    for i = 2, 100, 10 do assert.is_true(txn:delete("key " .. i)) end
    assert(txn:put("new", "one"))
    assert.equal("changed", txn:get("key 1"))
    assert.is_nil(txn:get("key 2"))
    assert.is_false(txn:has("key 2"))
    assert.equal(91, txn:count())
    holds(before)
    assert.equal(before["key 1"], db:get("key 1"))
    assert.equal(version, db:version())
    local after = assert(txn:records())
    assert(txn:commit())
    holds(after)
    assert.not_equal(version, db:version())
    is_sound_on_disk(after)
  end)

  it("leaves nothing when it is aborted, and what comes then is sound", function()
    open()
    fill(100)
    local model = assert(db:records())
    local version = db:version()
    for round = 1, 5 do
      local txn = assert(db:begin())
      for i = 1, 300 do assert(txn:put("key " .. i, ("r"):rep(round * 50) .. i)) end
      for i = 1, 50 do assert(txn:delete("key " .. i)) end
      assert(txn:put("large", ("L"):rep(50000)))
      txn:abort()
      holds(model)
      assert.equal(version, db:version())
    end
    for i = 1, 200 do
      assert(db:put("key " .. i, "after " .. i))
      model["key " .. i] = "after " .. i
    end
    holds(model)
    is_sound_on_disk(model)
  end)

  it("forgets what an aborted one has recycled", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local function story()
      open()
      fill(200)
      local model = assert(db:records())
      local txn = assert(db:begin())
      for _ = 1, 3 do
        for i = 1, 200 do assert(txn:put("key " .. i, ("x"):rep(20) .. i)) end
      end
      txn:abort()
      return pcall(function()
        for i = 1, 2000 do
          model["key " .. i] = ("y"):rep(20) .. i
          assert(db:put("key " .. i, model["key " .. i]))
        end
        holds(model)
      end)
    end
    assert.is_true(story())
    assert(db:close())
    os.remove(path)
    probe.crash.breaks("TXN_RECYCLER")
    assert.is_false(story())
  end)

  it("does not change what readers of the epoch before see", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local function story()
      open()
      fill(100)
      local txn = assert(db:begin())
      for i = 1, 100 do assert(txn:put("key " .. i, "changed")) end
      local seen = db:get("key 7")
      txn:abort()
      return seen
    end
    assert.equal(("v"):rep(20) .. 7, story())
    assert(db:close())
    os.remove(path)
    probe.crash.breaks("TXN_UNSEALED")
    assert.equal("changed", story())
  end)

  it("writes nothing, not even a session, when nothing is changed", function()
    open()
    fill(10)
    assert(db:close())
    open()
    local bytes = scratch.read(path)
    local version = db:version()
    local txn = assert(db:begin())
    assert.equal(("v"):rep(20) .. 3, txn:get("key 3"))
    assert(txn:clear() and txn:count() == 0)
    txn:abort()
    txn = assert(db:begin())
    assert.equal(10, txn:count())
    assert(txn:commit())
    assert.equal(version, db:version())
    assert(db:close())
    open()
    assert.equal(10, db:count())
    assert.equal(version, db:version())
    assert.equal(#bytes, #scratch.read(path))
  end)

  it("changes no version if it ends as it began", function()
    open()
    local txn = assert(db:begin())
    assert(txn:put("a", "b"))
    assert.is_true(txn:delete("a"))
    local version = db:version()
    assert(txn:commit())
    assert.equal(version, db:version())
    assert.equal(0, db:count())
    is_sound_on_disk({})
  end)

  it("takes a million changes, and as many records", function()
    open { segment_size = 1048576 }
    local count = crash.thinning > 1 and 20000 or 1000000
    local txn = assert(db:begin())
    for i = 1, count do assert(txn:put("key " .. i, "value " .. i)) end
    assert.equal(0, db:count())
    assert.equal(count, txn:count())
    for i = 1, count, 3 do assert(txn:delete("key " .. i)) end
    assert(txn:commit())
    local left = count - math.ceil(count / 3)
    assert.equal(left, db:count())
    local _, met = db:records()
    assert.equal(left, met)
    assert(db:close())
    local report = assert(probe.verify.bytes(scratch.read(path)))
    assert.same({}, report.failures)
    open()
    assert.equal(left, db:count())
    assert.equal("value 2", db:get("key 2"))
    assert.is_nil(db:get("key 4"))
  end)

  it("uses its own nodes again at once", function()
    open()
    local txn = assert(db:begin())
    for i = 1, 100 do assert(txn:put("key " .. i, ("v"):rep(50))) end
    for _ = 1, 100 do
      for i = 1, 100 do assert(txn:put("key " .. i, ("w"):rep(50))) end
    end
    assert(txn:commit())
    assert.is_true(db:stat().log_bytes < 40000)
    assert.equal(("w"):rep(50), db:get("key 50"))
  end)

  local function overwrite_all(count, times)
    for time = 1, times do
      local txn = assert(db:begin())
      for i = 1, count do
        assert(txn:put("key " .. i, ("w"):rep(20) .. i .. " " .. time % 10))
      end
      assert(txn:commit())
    end
  end

  it("uses nodes of those before it again, as long as nothing is committed",
    function()
      open { durability = "manual" }
      fill(500)
      overwrite_all(500, 5)
      local before = db:stat().log_bytes
      overwrite_all(500, 200)
      assert.is_true(db:stat().log_bytes - before < before, db:stat().log_bytes)
      local records = db:records()
      for i = 1, 500 do
        assert.equal(("w"):rep(20) .. i .. " 0", records["key " .. i])
      end
      -- Of what has been committed nothing is written over.
      before = db:stat().log_bytes
      for _ = 1, 20 do
        assert(db:sync())
        overwrite_all(500, 1)
      end
      assert.is_true(db:stat().log_bytes - before > 20 * 500 * 40)
      is_sound_on_disk(assert(db:records()))
    end)

  -- A snapshot of the midst of transactions, and one that is saved.
  local function hold_between(hold)
    open { durability = "manual" }
    fill(300)
    overwrite_all(300, 3)
    local model = assert(db:records())
    local held = hold()
    overwrite_all(300, 20)
    local records = held:records()
    held:close()
    overwrite_all(300, 20)
    return records ~= nil and pcall(assert.same, model, records)
  end

  it("leaves to snapshots what they see of it", function()
    assert.is_true(hold_between(function() return assert(db:snapshot()) end))
    is_sound_on_disk(assert(db:records()))
    db:close()
    os.remove(path)
    assert.is_true(hold_between(function()
      assert(db:save("then"))
      return assert(db:open_saved("then"))
    end))
    assert(db:drop_saved("then"))
    is_sound_on_disk(assert(db:records()))
    if not crash.has_hooks then return end
    db:close()
    os.remove(path)
    probe.crash.breaks("RECYCLE_HELD")
    assert.is_false(hold_between(function() return assert(db:snapshot()) end))
  end)

  it("leaves to a saved snapshot what nobody has open", function()
    open { durability = "manual" }
    fill(300)
    local model = assert(db:records())
    assert(db:save("then"))
    overwrite_all(300, 30)
    local held = assert(db:open_saved("then"))
    assert.same(model, held:records())
    held:close()
    is_sound_on_disk(assert(db:records()))
    held = assert(db:open_saved("then"))
    assert.same(model, held:records())
    held:close()
  end)

  -- What comes after going back may end just where what was forgotten has ended.
  it("freezes what is put after going back", function()
    open()
    fill(50)
    local txn = assert(db:begin())
    assert(txn:put("a", "aaa"))
    local a = assert(txn:savepoint())
    assert(txn:put("k", "one"))
    assert(txn:savepoint())
    assert(txn:rollback_to(a))
    assert(txn:put("k", "two"))
    local c = assert(txn:savepoint())
    assert(txn:put("k", "thr"))
    assert(txn:rollback_to(c))
    assert(txn:put("l", "xxx"))
    assert.equal("two", txn:get("k"))
    assert(txn:commit())
    local model = assert(db:records())
    assert.equal("two", model.k)
    is_sound_on_disk(model)
  end)

  it("puts what it has pointed at itself", function()
    open()
    local txn = assert(db:begin())
    assert(txn:put("a", "some bytes"))
    assert(txn:put_from("a", "a"))
    assert(txn:put_from("b", "a"))
    assert(txn:commit())
    holds { a = "some bytes", b = "some bytes" }
  end)

  -- ---- Many at once -------------------------------------------------------

  it("puts many records, or none", function()
    open { max_size = 262144 }
    assert(db:put_many { "a", "1", "b", "2", "a", "3" })
    holds { a = "3", b = "2" }
    assert(db:put_many {})
    local too_much = { "c", "4" }
    for i = 1, 40 do
      too_much[#too_much + 1] = "key " .. i
      too_much[#too_much + 1] = ("x"):rep(20000)
    end
    refuses("EFULL", db:put_many(too_much))
    holds { a = "3", b = "2" }
    refuses("ETOOBIG", db:put_many { "c", "4", ("k"):rep(65536), "5" })
    holds { a = "3", b = "2" }
    local txn = assert(db:begin())
    assert(txn:put("c", "own"))
    refuses("EFULL", txn:put_many(too_much))
    assert.equal("own", txn:get("c"))
    assert.equal(3, txn:count())
    assert(txn:put_many { "d", "4", "e", "5" })
    assert(txn:commit())
    local model = { a = "3", b = "2", c = "own", d = "4", e = "5" }
    holds(model)
    is_sound_on_disk(model)
  end)

  -- Of which those that are put together are walked to together.
  it("puts any number of records with one call", function()
    open()
    local random = binary.random(binary.seed("put_many"))
    local txn = assert(db:begin())
    local targets = { { txn, {} }, { assert(txn:map("map")), {} } }
    for _, count in ipairs { 1, 2, 31, 32, 33, 64, 1000, 2500 } do
      for _, target in ipairs(targets) do
        local map, model = target[1], target[2]
        local pairs_to_put = {}
        for i = 1, count do
          local key, value = "key " .. random(3 * count), count .. " " .. i
          pairs_to_put[2 * i - 1], pairs_to_put[2 * i] = key, value
          model[key] = value
        end
        assert(map:put_many(pairs_to_put))
        assert.same(model, (map:records()))
        -- The last one but one cannot be put: so none is.
        local bad = copy(pairs_to_put)
        for i = 2, #bad, 2 do bad[i] = "bad" end
        table.insert(bad, #bad - 1, "value")
        table.insert(bad, #bad - 2, ("k"):rep(65536))
        refuses("ETOOBIG", map:put_many(bad))
        assert.same(model, (map:records()))
      end
    end
    assert(txn:commit())
    holds(targets[1][2])
    is_sound_on_disk(targets[1][2])
  end)

  it("clears", function()
    open()
    assert(db:clear())
    fill(500)
    assert(db:put("large", ("L"):rep(50000)))
    assert(db:sync())
    fill(250)
    local snapshot = assert(db:snapshot())
    assert(db:clear())
    holds {}
    assert.equal(501, snapshot:count())
    assert.equal(("v"):rep(20) .. 400, snapshot:get("key 400"))
    snapshot:close()
    fill(3)
    local model = assert(db:records())
    is_sound_on_disk(model)
    local txn = assert(db:begin())
    assert(txn:put("x", "y"))
    assert(txn:clear())
    assert.equal(0, txn:count())
    assert(txn:put("z", "after"))
    assert(txn:commit())
    is_sound_on_disk { z = "after" }
  end)

  -- ---- Savepoints and cursors ----------------------------------------------

  it("goes back to savepoints", function()
    open()
    fill(50)
    local states = {}
    local txn = assert(db:begin())
    states[0] = assert(txn:records())
    assert.equal(0, txn:savepoint())
    for number = 1, 4 do
      for i = number, 50, 3 do assert(txn:put("key " .. i, number .. " is new")) end
      assert(txn:delete("key " .. number * 5))
      assert(txn:put("large " .. number, (tostring(number)):rep(40000)))
      states[number] = assert(txn:records())
      assert.equal(number, txn:savepoint())
    end
    assert(txn:put("x", "after all"))
    assert(txn:rollback_to(3))
    assert.same(states[3], (assert(txn:records())))
    refuses("EINVAL", txn:rollback_to(4))
    assert(txn:put("x", "again"))
    assert(txn:rollback_to(3))
    assert.same(states[3], (assert(txn:records())))
    assert(txn:release(2))
    assert.same(states[3], (assert(txn:records())))
    refuses("EINVAL", txn:rollback_to(2))
    assert(txn:rollback_to(1))
    assert.same(states[1], (assert(txn:records())))
    assert(txn:put("y", "kept"))
    local model = copy(states[1])
    model.y = "kept"
    assert(txn:commit())
    holds(model)
    is_sound_on_disk(model)
  end)

  it("goes back at once, time and again", function()
    open()
    fill(300)
    local model = assert(db:records())
    local txn = assert(db:begin())
    assert(txn:put("kept", "yes"))
    model.kept = "yes"
    local savepoint = assert(txn:savepoint())
    for round = 1, 200 do
      for i = 1, 30 do assert(txn:put("key " .. i * round % 300, ("r"):rep(100))) end
      assert(txn:rollback_to(savepoint))
    end
    assert(txn:commit())
    holds(model)
    assert.is_true(db:stat().log_bytes < 200000)
    is_sound_on_disk(model)
  end)

  it("sees its own records as they were when a walk began", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    local function story()
      open()
      fill(60)
      local txn = assert(db:begin())
      for i = 1, 60, 2 do assert(txn:put("key " .. i, "own " .. i)) end
      local expected = assert(txn:records())
      local seen, count = {}, 0
      local walk = assert(txn:walk())
      for key, value in walk do
        seen[key], count = value, count + 1
        assert(txn:put(key, "changed"))
        assert(txn:put(key .. " more", "new"))
        if count % 3 == 0 then assert(txn:delete(key)) end
      end
      walk = nil -- luacheck: ignore
      collectgarbage()
      local model = assert(txn:records())
      assert(txn:commit())
      is_sound_on_disk(model)
      local same = count == 60
      for key, value in pairs(expected) do same = same and seen[key] == value end
      return same
    end
    assert.is_true(story())
    probe.crash.breaks("TXN_UNFROZEN")
    -- With some secrets of a file the walk is never behind the changes.
    local ok, same = true, true
    for _ = 1, 10 do
      if db then db:close() end
      os.remove(path)
      ok, same = pcall(story)
      if not (ok and same) then break end
    end
    assert.is_false(ok and same)
  end)

  -- ---- Failing in the middle ------------------------------------------------

  it("goes on after a call that found no space", function()
    open { max_size = 262144 }
    fill(20)
    local model = assert(db:records())
    local txn = assert(db:begin())
    for i = 1, 10 do
      assert(txn:put("before " .. i, "b"))
      model["before " .. i] = "b"
    end
    for _ = 1, 5 do
      refuses("EFULL", txn:put("large", ("x"):rep(300000)))
      refuses("EFULL", txn:swap("key 1", ("x"):rep(250000)))
    end
    local i = 0
    repeat
      i = i + 1
      local ok, code = txn:put("filling " .. i, ("x"):rep(3000))
      if ok then model["filling " .. i] = ("x"):rep(3000) end
    until not ok and code == "EFULL"
    assert.is_true(i > 20)
    -- Not by a cursor: that freezes what is there, for which it may take space.
    for key, value in pairs(model) do assert.equal(value, txn:get(key)) end
    if txn:delete("filling 1") then model["filling 1"] = nil end
    assert(txn:commit())
    holds(model)
    is_sound_on_disk(model)
  end)

  it("can be aborted when there is no space", function()
    open { max_size = 262144 }
    fill(20)
    local model = assert(db:records())
    for _ = 1, 3 do
      local txn = assert(db:begin())
      repeat until not txn:put("k" .. math.random(1e9), ("x"):rep(5000))
      txn:abort()
      holds(model)
    end
    assert(db:put("key 1", "changed"))
    model["key 1"] = "changed"
    is_sound_on_disk(model)
  end)

  it("publishes nothing after a commit that failed", function()
    open()
    fill(5)
    local model = assert(db:records())
    local txn = assert(db:begin())
    assert(txn:put("x", "y"))
    assert(txn:commit())
    model.x = "y"
    probe.os.fail("fdatasync", 1, "EIO")
    refuses("EIO", db:sync())
    txn = assert(db:begin())
    refuses("EIO", txn:put("z", "y"))
    refuses("EIO", txn:put("z", "y"))
    assert.equal("y", txn:get("x"))
    assert(txn:commit())
    refuses("EIO", db:put_many { "a", "b" })
    holds(model)
  end)

  -- ---- Who may do what ------------------------------------------------------

  it("answers its own thread at once when it uses the store", function()
    open { timeout_ms = 60000 }
    fill(5)
    local txn = assert(db:begin())
    assert(txn:put("key 1", "own"))
    refuses("EBUSY", db:put("key 2", "x"))
    refuses("EBUSY", db:delete("key 2"))
    refuses("EBUSY", db:incr("n", "0000000000000001", "0000000000000000"))
    refuses("EBUSY", db:put_many { "a", "b" })
    refuses("EBUSY", db:clear())
    refuses("EBUSY", db:begin())
    refuses("EBUSY", db:stat())
    refuses("EBUSY", db:remove())
    assert(db:version())
    assert.equal(("v"):rep(20) .. 1, db:get("key 1"))
    local snapshot = assert(db:snapshot())
    assert.equal(("v"):rep(20) .. 1, snapshot:get("key 1"))
    snapshot:close()
    refuses("EBUSY", db:sync())
    assert(txn:commit())
    assert(db:sync())
    assert.equal("own", db:get("key 1"))
  end)

  it("lets other threads wait, and read", function()
    open { timeout_ms = 30 }
    fill(5)
    local txn = assert(db:begin())
    assert(txn:put("key 1", "own"))
    refuses("EBUSY", db:from_thread("put"))
    refuses("EBUSY", db:from_thread("begin"))
    refuses("EBUSY", txn:use_from_thread())
    assert(txn:commit())
    assert(db:from_thread("put"))
    assert(db:from_thread("begin"))
    assert.equal("thread", db:get("thread"))
  end)

  it("ends with its thread", function()
    open()
    fill(5)
    local model = assert(db:records())
    local left = assert(db:leave_open("key 1", "lost"))
    for _, call in ipairs { { "put", "k", "v" }, { "get", "k" }, { "has", "k" },
      { "ttl", "k" }, { "delete", "k" }, { "add", "k", "v" }, { "replace", "k", "v" },
      { "cas", "k", nil, "v", n = 4 }, { "swap", "k", "v" }, { "expire", "k", 9 },
      { "incr", "k", "0000000000000001", "0000000000000000" },
      { "put_many", { "k", "v" } }, { "clear" }, { "count" }, { "records" }, { "walk" },
      { "savepoint" }, { "rollback_to", 1 }, { "release", 1 }, { "map", "m" },
      { "maps" }, { "drop", "m" } } do
      local name = call[1]
      local result, code = left[name](left, unpack_(call, 2, call.n or #call))
      assert.same({ nil, "EBUSY" }, { result, code }, name)
    end
    assert(db:put("key 3", "by another"))
    model["key 3"] = "by another"
    refuses("EBUSY", left:put("key 2", "x"))
    holds(model)
    left:abort()
    holds(model)
    left = assert(db:leave_open("key 1", "lost"))
    refuses("EBUSY", left:commit())
    left = assert(db:leave_open("key 1", "lost"))
    local txn = assert(db:begin())
    assert(txn:put("key 4", "mine"))
    left:abort()
    assert(txn:put("key 5", "mine"))
    assert(txn:commit())
    model["key 4"], model["key 5"] = "mine", "mine"
    is_sound_on_disk(model)
  end)

  it("is of no use in a child, and goes on in the parent", function()
    open()
    fill(5)
    local model = assert(db:records())
    local txn = assert(db:begin())
    assert(txn:put("key 1", "own"))
    local text = probe.child.run(function()
      local _, code = txn:put("key 2", "x")
      local _, code2 = txn:get("key 2")
      txn:abort()
      local other = assert(probe.store.open(path, { durability = "manual",
        segment_size = SEGMENT, timeout_ms = 20 }))
      local seen = other:get("key 1")
      local _, code3 = other:put("key 2", "x")
      -- Closing it would commit, and so wait for the transaction.
      probe.child.say(table.concat({ code, code2, seen, code3 }, " "))
    end)
    assert.equal("EFORK EFORK " .. model["key 1"] .. " EBUSY\n", text)
    assert(txn:put("key 3", "own"))
    assert(txn:commit())
    model["key 1"], model["key 3"] = "own", "own"
    is_sound_on_disk(model)
  end)

  it("does not hold up snapshots of other processes", function()
    open()
    fill(5)
    local model = assert(db:records())
    assert(db:put("key 2", "newer")) -- no moment is sealed that has it
    model["key 2"] = "newer"
    local txn = assert(db:begin())
    for i = 1, 500 do assert(txn:put("key " .. i, "own")) end
    local text = probe.child.run(function()
      db = nil -- luacheck: ignore
      local other = assert(probe.store.open(path, { durability = "manual",
        segment_size = SEGMENT, timeout_ms = 0 }))
      local records = assert(other:records())
      probe.child.say(tostring(records["key 1"] == model["key 1"]
        and records["key 2"] == "newer" and records["key 6"] == nil
        and other:version() ~= nil))
    end)
    assert.equal("true\n", text)
    txn:abort()
    holds(model)
  end)

  -- ---- Dying ----------------------------------------------------------------

  -- Kills a child at the n-th test point of that name; what is left.
  local function die_at(point, n, act)
    local _, how, status = probe.child.run(function()
      db = nil -- luacheck: ignore
      local own = assert(probe.store.open(path, { durability = "manual",
        segment_size = SEGMENT }))
      probe.crash.die_at_point(n, SIGKILL, point)
      act(own)
      own = nil -- luacheck: ignore
    end)
    return how == "signal" and status == SIGKILL
  end

  it("is lost, or there, as a whole when its process dies", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    open()
    fill(40)
    local before = assert(db:records())
    local after = copy(before)
    for i = 1, 60 do after["key " .. i] = ("a"):rep(i * 40) end
    after["key 5"], after.large = nil, ("L"):rep(60000)
    local function act(own)
      local txn = assert(own:begin())
      for i = 1, 60 do assert(txn:put("key " .. i, ("a"):rep(i * 40))) end
      assert(txn:delete("key 5"))
      local savepoint = assert(txn:savepoint())
      assert(txn:put("key 9", "to be undone"))
      assert(txn:rollback_to(savepoint))
      assert(txn:put("large", ("L"):rep(60000)))
      assert(txn:commit())
    end
    for _, case in ipairs { { "locked", 1, before }, { "draft", 1, before },
      { "drafted", 30, before }, { "drafted", 62, before },
      { "publish", 1, before }, { "published", 1, after } } do
      assert.is_true(die_at(case[1], case[2], act), case[1])
      holds(case[3])
      assert(db:put("afterwards", case[1]))
      assert(db:delete("afterwards"))
      is_sound_on_disk(case[3])
    end
    -- Nobody else has it open: the next opener takes the live state over.
    assert(db:close())
    assert.is_true(die_at("drafted", 20, act))
    open()
    holds(after)
    is_sound_on_disk(after)
  end)

  it("agrees with a table, with everything that there is", function()
    open()
    local random = binary.random(binary.seed("transaction"))
    local model = {}
    local function change(txn, now)
      local key, choice = "key " .. random(60), random(10)
      if choice <= 5 then
        now[key] = ("v"):rep(random(300)) .. random(1000)
        assert(txn:put(key, now[key]))
      elseif choice <= 8 then
        assert(txn:delete(key) == (now[key] ~= nil))
        now[key] = nil
      elseif choice == 9 then
        now[key] = ("L"):rep(33000 + random(1000))
        if random(10) == 1 then assert(txn:put(key, now[key])) else now[key] = txn:get(key) end
      elseif random(10) == 1 then
        for other in pairs(now) do now[other] = nil end
        assert(txn:clear())
      end
    end
    for _ = 1, crash.thinning > 1 and 40 or 300 do
      local txn, now, saved = assert(db:begin()), copy(model), {}
      for _ = 1, random(80) do
        local choice = random(30)
        if choice == 1 then
          saved[assert(txn:savepoint()) + 1] = copy(now)
        elseif choice == 2 and #saved > 0 then
          local number = random(#saved)
          assert(txn:rollback_to(number - 1))
          now = copy(saved[number])
          for i = number + 1, #saved do saved[i] = nil end
        elseif choice == 3 and #saved > 0 then
          local number = random(#saved)
          assert(txn:release(number - 1))
          for i = number, #saved do saved[i] = nil end
        elseif choice == 4 then
          assert.same(now, (assert(txn:records())))
        else
          change(txn, now)
        end
      end
      assert.same(now, (assert(txn:records())))
      if random(3) == 1 then txn:abort() else assert(txn:commit()); model = now end
      if random(3) == 1 then
        local key = "key " .. random(60)
        model[key] = "single " .. random(100)
        assert(db:put(key, model[key]))
      end
      if random(6) == 1 then assert(db:sync()) end
      if random(20) == 1 then is_sound_on_disk(model) else holds(model) end
    end
    is_sound_on_disk(model)
  end)
end

describe("txn.transaction", transactions)

-- Nobody can tell, but by the time it takes.
if crash.has_hooks then
  describe("txn.transaction, with puts that wait for each other,", function()
    before_each(function() probe.crash.breaks("QUEUE") end)
    transactions()
  end)
end
