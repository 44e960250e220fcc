-- SPDX-License-Identifier: MIT
--
-- Mutexes, conditions, words to sleep on and background threads. Upper bounds of times are wide:
-- the machine may be busy.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local os_ = probe.os

describe("os.thread", function()
  describe("mutex", function()
    it("lets one thread in at a time", function()
      assert.equal(8 * 20000, os_.mutex_count(8, 20000))
    end)

    it("is waited for longer than a thread spins", function()
      assert.is_true(os_.mutex_lock(50))
    end)

    it("can be tried", function()
      assert.is_false(os_.mutex_try(true))
      assert.is_true(os_.mutex_try(false))
    end)

    it("is waited for no longer than told", function()
      local code, waited = os_.mutex_timed(50, 2000)
      assert.equal("EBUSY", code)
      assert.is_true(waited >= 50, waited)
      assert.is_true(waited < 1500, waited)
    end)

    it("carries full seconds of a time-out over", function()
      local code, waited = os_.mutex_timed(1999, 2500)
      assert.equal("EBUSY", code)
      assert.is_true(waited >= 1999, waited)
    end)

    it("is had in time when the holder lets go", function()
      local code, waited = os_.mutex_timed(60000, 50)
      assert.equal("OK", code)
      assert.is_true(waited < 30000, waited)
    end)
  end)

  describe("condition", function()
    it("wakes all that wait", function()
      assert.equal(8, os_.condition_broadcast(8))
    end)

    it("is waited for no longer than told", function()
      local in_time, waited = os_.condition_wait_timed(50)
      assert.is_false(in_time)
      assert.is_true(waited >= 50, waited)
      assert.is_true(waited < 5000, waited)
    end)

    it("wakes before the time is over", function()
      local in_time, waited = os_.condition_wait_timed(60000, 30)
      assert.is_true(in_time)
      assert.is_true(waited >= 25 and waited < 30000, waited)
    end)
  end)

  describe("word", function()
    it("wakes one of those who sleep on it, or all", function()
      assert.same({ 1, 2, 8 }, { os_.wake(8) })
      assert.same({ 1, 2, 2 }, { os_.wake(2) })
    end)

    it("is not waited for when it has changed already", function()
      assert.is_true(os_.wait_for_change(1, 0, 60000) < 30000)
    end)

    it("is waited for no longer than told", function()
      local waited = os_.wait_for_change(1, 1, 1050)
      assert.is_true(waited >= 1050 and waited < 10000, waited)
    end)
  end)

  describe("thread", function()
    it("blocks all signals, and its creator what it did before", function()
      local _, own, before, after = os_.thread("quiet")
      assert.equal(0, own)
      assert.equal(before, after)
      assert.is_true(before > 0)
    end)

    it("has a name of 15 characters at most", function()
      assert.equal("mmcmap-flush", (os_.thread("mmcmap-flush")))
      assert.equal("fifteen-letters", (os_.thread("fifteen-letters-and-more")))
      assert.equal("", (os_.thread("")))
    end)

    it("says when there is no memory for one", function()
      if probe.sanitizer then return pending("not with a sanitizer") end
      -- In a process that has no finished thread's stack to use again.
      assert.equal("nil ENOMEM pthread_create", scratch.fresh [[
        local probe = require "mmcmap_probe"
        probe.child.limit("as", 1)
        local ok, code, step = probe.os.thread_start()
        print(tostring(ok) .. " " .. code .. " " .. step)
      ]])
    end)
  end)
end)
