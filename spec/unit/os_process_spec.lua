-- SPDX-License-Identifier: MIT
--
-- Forks, clocks and randomness. The fork handlers are installed once in a
-- process and for good, so specs of them start one of their own.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local os_ = probe.os

describe("os.process", function()
  describe("forks", function()
    it("are counted, and handlers run around them in order", function()
      local output = scratch.fresh [[
        local probe = require "mmcmap_probe"
        local os_, child = probe.os, probe.child
        assert(os_.watch_forks("log"))
        assert(os_.fork_generation() == 0)
        local inner
        local text = child.run(function()
          local log = os_.fork_log()
          return log .. " " .. os_.fork_generation() .. " then "
            .. child.run(function()
              return os_.fork_log() .. " " .. os_.fork_generation()
            end)
        end)
        print(text)
        print(os_.fork_log() .. " " .. os_.fork_generation())
      ]]
      -- p: before, f: in the parent, c: in the child; each with the generation
      -- that the handler saw.
      assert.equal("p0c1 1 then p0c1p1c2 2\np0f0 0", (output:gsub("%.0", "")))
    end)

    it("call the handlers of the first that asked", function()
      local output = scratch.fresh [[
        local probe = require "mmcmap_probe"
        local os_ = probe.os
        assert(os_.watch_forks("log"))
        assert(os_.watch_forks("other"))
        assert(os_.watch_forks("none"))
        print((probe.child.run(os_.fork_log)))
        print((probe.child.run(os_.fork_generation)))
      ]]
      assert.equal("p0c1\n1", (output:gsub("%.0", "")))
    end)

    it("need no handlers", function()
      local output = scratch.fresh [[
        local probe = require "mmcmap_probe"
        assert(probe.os.watch_forks("none"))
        print((probe.child.run(probe.os.fork_generation)))
      ]]
      assert.equal("1", (output:gsub("%.0", "")))
    end)
  end)

  describe("randomness", function()
    after_each(os_.restore)

    it("differs", function()
      local one, other = os_.random(32), os_.random(32)
      assert.equal(32, #one)
      assert.are_not.equal(one, other)
      assert.equal("", os_.random(0))
    end)

    it("fills large buffers", function()
      local data = os_.random(100000)
      assert.equal(100000, #data)
      local _, zeros = data:gsub("%z%z%z%z", "")
      assert.is_true(zeros <= 1)
    end)

    it("carries on after signals and short answers", function()
      os_.short("getrandom", 1, 5)
      local data = os_.random(400)
      assert.equal(2, os_.counts().getrandom)
      assert.is_nil(data:find(("\0"):rep(16), 1, true))
      os_.fail("getrandom", 1, "EINTR", 2)
      assert.equal(400, #os_.random(400))
      assert.equal(5, os_.counts().getrandom)
    end)

    it("says when there is none", function()
      os_.fail("getrandom", 1, "ENOSYS")
      assert.same({ n = 3, nil, "ENOTSUP", "getrandom" },
        { n = 3, os_.random(16) })
      os_.short("getrandom", 1, 0)
      assert.same({ n = 3, nil, "EIO", "getrandom of nothing" },
        { n = 3, os_.random(16) })
    end)
  end)

  it("has a clock that goes forward", function()
    local begin = os_.monotonic_ns()
    os_.sleep_ms(0)
    os_.sleep_ms(20)
    local passed = (os_.monotonic_ns() - begin) / 1e6
    assert.is_true(passed >= 20, passed)
    assert.is_true(passed < 60000, passed) -- the unit is right
  end)

  it("knows the size of a page", function()
    assert.equal(tonumber(scratch.shell("getconf PAGESIZE")), os_.page_size())
  end)

  describe("the boot's number", function()
    after_each(os_.restore)

    it("is the kernel's, and the same in another process", function()
      local text = scratch.read("/proc/sys/kernel/random/boot_id")
      if not text then return pending("no /proc here") end
      local id = assert(os_.boot_id())
      assert.equal(16, #id)
      local hex = id:gsub(".", function(byte)
        return ("%02x"):format(byte:byte())
      end)
      assert.equal((text:gsub("[-\n]", "")), hex)
      assert.equal(id, (probe.child.run(os_.boot_id)))
    end)

    it("is read in pieces", function()
      local id = os_.boot_id()
      if not id then return pending("no /proc here") end
      os_.short("pread", 1, 7)
      assert.equal(id, os_.boot_id())
      os_.fail("pread", 1, "EINTR")
      assert.equal(id, os_.boot_id())
    end)

    it("is missed where it cannot be read", function()
      local without = { n = 3, nil, "ENOTSUP",
        "/proc/sys/kernel/random/boot_id" }
      os_.fail("open", 1, "ENOENT")
      assert.same(without, { n = 3, os_.boot_id() })
      os_.fail("pread", 1, "EIO")
      assert.same(without, { n = 3, os_.boot_id() })
      assert.equal(2, os_.counts().open)
      os_.restore()
      os_.short("pread", 1, 0) -- an empty file
      assert.same(without, { n = 3, os_.boot_id() })
      assert.equal(1, os_.counts().close)
    end)

    it("is not missed where it cannot be read just now", function()
      for name, code in pairs { EMFILE = "ESYSTEM", ENOMEM = "ENOMEM" } do
        os_.fail("open", 1, name)
        assert.equal(code, select(2, os_.boot_id()))
      end
    end)
  end)

  it("has a number, and so has each thread", function()
    local process, thread = os_.process_ids()
    assert.equal(process, thread) -- the main one
    assert.equal(process, tonumber(scratch.shell("echo $PPID")))
    local other = select(5, os_.thread("other"))
    assert.are_not.equal(thread, other)
    assert.are_not.equal(process, tonumber((probe.child.run(function()
      return (os_.process_ids())
    end))))
  end)
end)
