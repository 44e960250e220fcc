-- SPDX-License-Identifier: MIT
--
-- Locks that survive their owner: who gets one, who waits, and who inherits it
-- when a process or thread is gone. Nothing here asserts a time: a waiter that
-- must get the lock waits for a minute at most, one that must not for a moment.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local share = probe.share

local MOMENT_MS, MINUTE_MS = 150, 60000
local SIGCONT, SIGSTOP = 18, 19

describe("share.owner_lock", function()
  local data, path, opened, threads, connection

  before_each(function()
    data = scratch.write(scratch.path("data"), "the data file")
    path = data .. "-lock"
    opened, threads = {}, {}
  end)

  after_each(function()
    for _, thread in ipairs(threads) do thread:finish() end
    for _, other in ipairs(opened) do other:close() end
  end)

  local function join()
    local new = assert(share.connect(path, data))
    assert(new:join())
    opened[#opened + 1] = new
    return new
  end

  before_each(function() connection = join() end)

  local function start_thread(of)
    local thread = assert((of or connection):thread())
    threads[#threads + 1] = thread
    return thread
  end

  local function wait_until(what)
    for _ = 1, 30000 do
      if what() then return end
      probe.os.sleep_ms(2)
    end
    error("it has not come to that within a minute")
  end

  -- Until somebody sleeps on the lock.
  local function wait_for_waiter()
    wait_until(function() return (select(2, connection:word())) end)
  end

  -- A process that owns the lock, says its row, and does `more` when told to.
  local function owning_child(more)
    local child = probe.child.start(function()
      local own = assert(share.connect(path, data))
      assert(own:join())
      assert(own:acquire(MINUTE_MS) == false)
      probe.child.say(tostring(own:owner()))
      probe.child.hear()
      if more then more(own) end
    end)
    return child, tonumber(child:line())
  end

  local function assert_busy(inherited, code, ...)
    assert.is_nil(inherited)
    assert.equal("EBUSY", code)
    return ...
  end

  -- ---- The living -------------------------------------------------------------

  it("is taken if it is free, and names the row", function()
    assert.equal(0, (connection:word()))
    assert.is_false(connection:acquire(0))
    assert.same({ connection:owner(), false }, { connection:word() })
    connection:release()
    assert.same({ 0, false }, { connection:word() })
    assert.same({ true, false }, { connection:try() })
    assert.same({ connection:owner(), false }, { connection:word() })
    connection:release()
  end)

  it("names rows of each connection and thread by other numbers", function()
    local seen = {}
    for _, owner in ipairs { connection:owner(), start_thread():owner(),
      start_thread():owner(), join():owner() } do
      assert.is_nil(seen[owner])
      seen[owner] = true
    end
  end)

  it("is three locks that have nothing to do with each other", function()
    local other = join()
    assert.is_false(connection:acquire(0, "writer"))
    assert.is_false(other:acquire(0, "growth"))
    assert.is_false(connection:acquire(0, "leader"))
    assert_busy(connection:acquire(0, "growth"))
    other:release("growth")
    assert.is_false(connection:acquire(0, "growth"))
    connection:release("writer")
    assert_busy(other:acquire(0, "leader"))
    connection:release("leader")
    connection:release("growth")
  end)

  it("is not had twice by one row, and not waited for", function()
    assert.is_false(connection:acquire(0))
    assert_busy(connection:acquire(0))
    assert_busy(connection:acquire(4294967295)) -- for ever, else
    assert.same({ false, false }, { connection:try() })
    assert.is_false(connection:inherit())
    assert.same({ connection:owner(), false }, { connection:word() })
    connection:release()
  end)

  it("is waited for by another thread, which gets it on release", function()
    local thread = start_thread()
    assert.is_false(connection:acquire(0))
    thread:acquire(MINUTE_MS)
    wait_for_waiter()
    assert.is_true(thread:is_busy())
    assert.equal(connection:owner(), (connection:word()))
    connection:release()
    assert.is_false(thread:result())
    assert.equal(thread:owner(), (connection:word()))
    assert_busy(connection:acquire(0))
    thread:release()
    assert.same({ 0, false }, { connection:word() })
  end)

  it("is waited for by another process, too", function()
    local child = probe.child.start(function()
      local own = assert(share.connect(path, data))
      assert(own:join())
      probe.child.say("ready")
      probe.child.hear()
      local inherited = own:acquire(MINUTE_MS)
      probe.child.say(tostring(inherited))
      own:release()
    end)
    assert.equal("ready", child:line())
    assert.is_false(connection:acquire(0))
    child:tell("acquire")
    wait_for_waiter()
    connection:release()
    assert.equal("false", child:line())
    assert.same({ "", "exit", 0 }, { child:wait() })
    assert.same({ 0, false }, { connection:word() })
  end)

  it("times out", function()
    local thread, other = start_thread(), join()
    assert.is_false(connection:acquire(0))
    for _, timeout_ms in ipairs { 0, 1, MOMENT_MS } do
      thread:acquire(timeout_ms)
      assert_busy(thread:result())
      assert_busy(other:acquire(timeout_ms))
    end
    assert.equal(connection:owner(), (connection:word()))
    connection:release()
    thread:acquire(0)
    assert.is_false(thread:result())
    thread:release()
  end)

  it("wakes all that wait, one after the other", function()
    assert.is_false(connection:acquire(0))
    local waiting, far = {}, join()
    for i = 1, 6 do
      waiting[i] = start_thread(i % 2 == 0 and far or connection)
      waiting[i]:acquire(4294967295)
    end
    wait_for_waiter()
    probe.os.sleep_ms(20)
    connection:release()
    for _ = 1, 6 do
      local got
      wait_until(function()
        for i, thread in ipairs(waiting) do
          if not thread:is_busy() then got = i return true end
        end
      end)
      local thread = table.remove(waiting, got)
      assert.is_false(thread:result())
      for _, other in ipairs(waiting) do assert.is_true(other:is_busy()) end
      thread:release()
    end
    assert.equal(0, (connection:word()))
  end)

  it("is marked as waited for only while somebody may sleep on it", function()
    local thread = start_thread()
    assert.is_false(connection:acquire(0))
    assert.is_false(select(2, connection:word()))
    thread:acquire(MOMENT_MS)
    wait_for_waiter()
    assert_busy(thread:result())
    -- Nobody sleeps any more, but the owner cannot know: it wakes nobody.
    connection:release()
    assert.same({ 0, false }, { connection:word() })
    assert.is_false(connection:acquire(0))
    assert.is_false(select(2, connection:word()))
    connection:release()
  end)

  -- ---- The dead ---------------------------------------------------------------

  it("is inherited from a process that was killed", function()
    local child, owner = owning_child()
    assert.equal(owner, (connection:word()))
    assert_busy(connection:acquire(MOMENT_MS))
    assert.is_false(connection:inherit())
    child:kill()
    child:wait()
    assert.is_false((connection:try())) -- this one asks nobody
    assert.is_true(connection:acquire(MINUTE_MS))
    assert.equal(connection:owner(), (connection:word()))
    connection:release()
    assert.equal(0, (connection:word()))
    assert.is_false(connection:acquire(0)) -- repaired, by now
    connection:release()
  end)

  it("is inherited with a time-out of 0, and by a single look", function()
    for _, way in ipairs { "acquire", "inherit" } do
      local child = owning_child()
      child:kill()
      child:wait()
      assert.is_true(connection[way](connection, way == "acquire" and 0 or nil))
      connection:release()
    end
  end)

  it("is inherited by one who waited already when its owner died", function()
    local child = owning_child()
    local thread = start_thread()
    thread:acquire(4294967295)
    wait_for_waiter()
    child:kill()
    child:wait()
    assert.is_true(thread:result())
    thread:release()
  end)

  it("is inherited by one of two who wait; the other gets it repaired",
    function()
      for _, second_of in ipairs { connection, join() } do
        local child = owning_child()
        local waiting = { start_thread(), start_thread(second_of) }
        for _, thread in ipairs(waiting) do thread:acquire(MINUTE_MS) end
        wait_for_waiter()
        child:kill()
        child:wait()
        wait_until(function()
          return not waiting[1]:is_busy() or not waiting[2]:is_busy()
        end)
        probe.os.sleep_ms(MOMENT_MS)
        assert.not_equal(waiting[1]:is_busy(), waiting[2]:is_busy())
        local heir, other = waiting[1], waiting[2]
        if heir:is_busy() then heir, other = other, heir end
        assert.is_true(heir:result())
        assert.is_true(other:is_busy())
        heir:release()
        assert.is_false(other:result())
        other:release()
      end
    end)

  it("is inherited once more if the heir dies before it has released it",
    function()
      local child = owning_child()
      child:kill()
      child:wait()
      local heir = probe.child.start(function()
        local own = assert(share.connect(path, data))
        assert(own:join())
        probe.child.say(tostring(own:acquire(MINUTE_MS)))
        probe.child.hear()
      end)
      assert.equal("true", heir:line())
      heir:kill()
      heir:wait()
      assert.is_true(connection:acquire(MINUTE_MS))
      connection:release()
    end)

  it("stays with an owner that is only stopped", function()
    local child, owner = owning_child(function(own)
      own:release()
      probe.child.say("released")
      probe.child.hear()
    end)
    child:kill(SIGSTOP)
    wait_until(function()
      return scratch.read(("/proc/%d/stat"):format(child:pid()))
        :match("%) (%a)") == "T"
    end)
    assert_busy(connection:acquire(2 * MOMENT_MS))
    assert.is_false(connection:inherit())
    assert.equal(owner, (connection:word()))
    child:kill(SIGCONT)
    child:tell("release")
    assert.equal("released", child:line())
    assert.is_false(connection:acquire(0))
    connection:release()
    child:tell("end")
    child:wait()
  end)

  -- A child that lives on has its parent's descriptors, until it drops them.
  it("is inherited although a child of the dead lives", function()
    local stop, stopped = scratch.path("stop"), scratch.path("stopped")
    local child = probe.child.start(function()
      local own = assert(share.connect(path, data))
      assert(own:join())
      assert(own:acquire(0) == false)
      local grandchild = probe.child.start(function()
        own:drop_locks()
        probe.child.say("dropped")
        scratch.await(stop)
        scratch.write(stopped, "it has lived until then")
      end)
      assert(grandchild:line() == "dropped")
      probe.child.say("ready")
      probe.child.hear()
    end)
    assert.equal("ready", child:line())
    child:kill()
    assert.is_true(connection:acquire(MINUTE_MS))
    connection:release()
    scratch.write(stop, "stop")
    child:wait() -- the grandchild has its end of the socket, too
    assert.truthy(scratch.read(stopped), "the grandchild has waited in vain")
  end)

  it("that a thread has left behind is inherited at once", function()
    for _, timeout_ms in ipairs { 0, MINUTE_MS } do
      connection:set_word("dead")
      assert.is_true(connection:acquire(timeout_ms))
      assert.equal(connection:owner(), (connection:word()))
      connection:release()
    end
    connection:set_word("dead")
    assert.is_false(connection:inherit()) -- there is nobody to ask about
    assert.same({ true, true }, { connection:try() })
    connection:release()
    assert.same({ true, false }, { connection:try() })
    connection:release()
  end)

  it("is abandoned by a thread that ends", function()
    for _, lock in ipairs { "writer", "growth", "leader" } do
      local thread = start_thread()
      thread:acquire(0, lock)
      assert.is_false(thread:result())
      thread:finish()
      assert.equal("dead", (connection:word(lock)))
      assert.is_true(connection:acquire(0, lock))
      connection:release(lock)
    end
  end)

  it("is inherited at once by who waits for a thread that ends", function()
    local owner, waiter = start_thread(), start_thread(join())
    owner:acquire(0)
    assert.is_false(owner:result())
    waiter:acquire(4294967295)
    wait_for_waiter()
    owner:finish()
    assert.is_true(waiter:result())
    waiter:release()
  end)

  it("of others is not touched by a thread that ends", function()
    local thread = start_thread()
    assert.is_false(connection:acquire(0))
    assert.is_number(thread:owner())
    thread:finish()
    assert.equal(connection:owner(), (connection:word()))
    connection:release()
  end)

  -- ---- Words that nobody can have stored --------------------------------------

  -- Such a word is repaired like one that the dead have left.
  local function assert_taken(from, word)
    for _, waited in ipairs { 0, 2147483648 } do
      from:set_word(word + waited)
      assert.is_false((from:try()))
      assert.is_true(from:inherit(), word)
      assert.equal(from:owner(), (from:word()))
      from:set_word(word + waited)
      assert.is_true(from:acquire(0))
      from:release()
      assert.equal(0, (from:word()))
    end
  end

  it("is taken from a word that names no row", function()
    local base = connection:get("chunk_count")
    for _, word in ipairs { 1, 2, 63, 64, 64 + 64 * base, 64 + 64 * base + 5,
      64 + 64 * 16383, 64 + 64 * 16384, 1048576, 1073741824, 2147483646 } do
      assert_taken(connection, word)
    end
  end)

  it("is taken from a row of one's own process that no thread has", function()
    local thread = start_thread()
    local snapshot = connection:claim_snapshot(0)
    for line = 0, 63 do
      local word = 64 + line
      if word == thread:owner() then
        connection:set_word(word)
        assert.is_false(connection:inherit())
        assert_busy(connection:acquire(0))
      elseif word ~= connection:owner() then
        assert_taken(connection, word)
      end
    end
    connection:set_word(0)
    connection:give_back_snapshot(snapshot)
  end)

  it("is taken from nobody in memory of one process, too", function()
    local private = assert(share.private())
    opened[#opened + 1] = private
    assert(private:join())
    for _, word in ipairs { 1, 64, 70, 200, 2147483646 } do
      if word ~= private:owner() then assert_taken(private, word) end
    end
    private:set_word("dead")
    assert.is_true(private:acquire(0))
    private:release()
  end)

  it("counts a row that nobody's process owns as that of the dead", function()
    local other = join()
    local word = other:owner()
    other:close()
    connection:set_word(word)
    assert.is_true(connection:acquire(0))
    connection:release()
  end)
end)
