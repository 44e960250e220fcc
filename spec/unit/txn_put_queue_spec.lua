-- SPDX-License-Identifier: MIT
--
-- Puts of a transaction that wait for each other: when they do, and what becomes of
-- the transaction if one of them fails later. That nothing else shows is in
-- txn_transaction_spec.lua, where all examples run with it, too.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"
local SEGMENT = scratch.SEGMENT
local SIGKILL = 9

describe("txn.put_queue", function()
  local path, db

  before_each(function() path = scratch.path("store") end)
  teardown(crash.remove_folder)
  after_each(function()
    if crash.has_hooks then probe.crash.breaks() end
    if db then db:close() end
    db = nil
  end)

  if not crash.has_hooks then
    it("is seen", function() pending("needs --enable-debug-checks") end)
    return
  end

  local function open(options)
    db = scratch.open(path, options)
    return db
  end

  local function refuses(word, ok, code, what)
    assert.is_falsy(ok)
    assert.equal(word, code)
    return what
  end

  -- A store of some 20 MB, which grows in pieces of 2 MiB.
  local function open_large()
    open { durability = "async" }
    local value = ("v"):rep(100000)
    for i = 1, 200 do assert(db:put("large " .. i, value)) end
  end

  -- Whether a put waited while a child did this to the store.
  local function waits(act)
    local own -- opened before hooks are set, left open by the death
    local _, how, status = probe.child.run(function()
      own = assert(probe.store.open(path, { durability = "manual",
        segment_size = SEGMENT }))
      probe.crash.die_at_point(1, SIGKILL, "waiting")
      local txn = assert(own:begin())
      act(txn)
      assert(txn:commit())
      assert(own:close())
    end)
    if how == "exit" then assert.equal(0, status) end
    return how == "signal" and status == SIGKILL
  end

  local function puts(size)
    return function(txn) assert(txn:put("key", ("x"):rep(size))) end
  end

  it("keeps small puts, of large stores alone", function()
    open()
    assert.is_false(waits(puts(20)))
    assert(db:close())
    os.remove(path)
    open_large()
    -- A good part of a piece has to be left.
    local more = 0
    while not waits(puts(20)) do
      more = more + 1
      assert(more < 30)
      assert(db:put("more " .. more, ("v"):rep(100000)))
    end
    assert.is_true(waits(puts(2000)))
    assert.is_false(waits(puts(3000)))
    assert.is_false(waits(function(txn) assert(txn:put_many { a = "b", c = "d" }) end))
    assert.is_false(waits(function(txn) txn:swap("a", "b") end))
    assert.equal(("x"):rep(3000), db:get("key"))
  end)

  it("keeps none where the store may not become much larger", function()
    open_large()
    local size = #scratch.read(path)
    assert(db:close())
    local function is_refused_at_once(rest)
      open { max_size = size + rest }
      local txn = assert(db:begin())
      local i, ok, code = 0
      repeat
        i = i + 1
        ok, code = txn:put("small " .. i, ("x"):rep(1500))
      until not ok
      assert.equal("EFULL", code)
      local count = assert(txn:count())
      -- The put that was refused is the only one that is not there.
      for j = 1, i - 1 do assert.equal(1500, #txn:get("small " .. j)) end
      assert.is_nil(txn:get("small " .. i))
      assert.equal(199 + i, count)
      assert(txn:commit())
      assert.equal(count, db:count())
      assert(db:close())
    end
    is_refused_at_once(3000000)
  end)

  it("sees what waits, in every way of looking", function()
    probe.crash.breaks("QUEUE")
    open()
    local txn = assert(db:begin())
    local other = assert(txn:map("other"))
    local function put()
      assert(txn:put("a", "1"))
      assert(txn:put("b", "2"))
      assert(txn:put("a", "3"))
      assert(other:put("a", "4"))
      assert(txn:put("c", "5"))
    end
    local looks = {
      function() assert.equal("3", txn:get("a")) end,
      function() assert.equal("4", other:get("a")) end,
      function() assert.is_true(txn:has("c")) end,
      function() assert.equal(3, txn:count()) end,
      function() assert.equal(1, other:count()) end,
      function() assert.same({ a = "3", b = "2", c = "5" }, (txn:records())) end,
      function() assert.same({ "3", "5" }, (txn:get_many { "a", "c" })) end,
      function() assert.is_true(txn:delete("b")) end,
      function() assert.equal("MISMATCH", (txn:add("b", "x"))) end,
      function() assert.equal("5", (txn:swap("c", "6"))) end,
      function() assert.is_true(txn:cas("a", "3", "7")) end,
      function() assert.same({ other = "" }, (txn:maps())) end,
    }
    for i, look in ipairs(looks) do
      if i > 1 then
        assert(txn:clear())
        assert(txn:drop("other"))
      end
      put()
      look()
    end
    txn:abort()
    assert.equal(0, db:count())
  end)

  describe("when one fails that has waited", function()
    local model

    before_each(function()
      probe.crash.breaks("QUEUE")
      open { max_size = 262144 }
      assert(db:put("key", "value"))
      model = assert(db:records())
    end)

    -- Puts until a call fails, which need not be about the put that failed.
    local function fail(txn)
      local ok, code
      repeat ok, code = txn:put("k" .. math.random(1e9), ("x"):rep(500)) until not ok
      assert.equal("EFULL", code)
    end

    it("the transaction fails as a whole", function()
      local txn = assert(db:begin())
      fail(txn)
      refuses("EFULL", txn:get("key"))
      refuses("EFULL", txn:put("a", "b"))
      refuses("EFULL", txn:delete("key"))
      refuses("EFULL", txn:savepoint())
      refuses("EFULL", txn:put_many { a = "b" })
      local what = refuses("EFULL", txn:count())
      assert.truthy(what:find("an earlier put", 1, true), what)
      refuses("EFULL", txn:commit())
      assert.same(model, (db:records()))
      assert(db:put("key", "after"))
      assert.equal("after", db:get("key"))
    end)

    it("a savepoint of before can be returned to", function()
      local txn = assert(db:begin())
      assert(txn:put("kept", "1"))
      local savepoint = assert(txn:savepoint())
      fail(txn)
      assert(txn:rollback_to(savepoint))
      assert.equal("1", txn:get("kept"))
      fail(txn)
      assert(txn:rollback_to(savepoint))
      assert.equal(2, txn:count())
      assert.is_true(txn:delete("key")) -- for which space is kept
      assert(txn:commit())
      assert.same({ kept = "1" }, (db:records()))
    end)

    it("it can be aborted", function()
      local txn = assert(db:begin())
      fail(txn)
      txn:abort()
      assert.same(model, (db:records()))
    end)
  end)
end)
