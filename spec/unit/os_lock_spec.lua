-- SPDX-License-Identifier: MIT
--
-- Locks on bytes of a file: who excludes whom, and when they go.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local os_ = probe.os

local SIGKILL = 9

describe("os.lock", function()
  local path, first, second

  before_each(function()
    path = scratch.write(scratch.path(), "")
    first = assert(os_.file_open(path, false))
    second = assert(os_.file_open(path, false))
  end)

  after_each(function()
    os_.restore()
    os_.file_close(first)
    os_.file_close(second)
  end)

  -- What a try with this descriptor gives: "OK" or the code's name.
  local function try(fd, offset, kind)
    local ok, code = os_.lock_try(fd, offset, kind)
    return ok and "OK" or code
  end

  it("lets one have it exclusively", function()
    assert.equal("OK", try(first, 0, "exclusive"))
    assert.equal("EBUSY", try(second, 0, "exclusive"))
    assert.equal("EBUSY", try(second, 0, "shared"))
    assert.equal("EAGAIN", probe.base.last_error().system_errno)
  end)

  it("lets many share it", function()
    assert.equal("OK", try(first, 0, "shared"))
    assert.equal("OK", try(second, 0, "shared"))
    assert.equal("EBUSY", try(first, 0, "exclusive"))
  end)

  it("is about single bytes, far beyond the end of the file too", function()
    local far = "7ffffffffffffff0"
    assert.equal("OK", try(first, 1, "exclusive"))
    assert.equal("OK", try(second, 0, "exclusive"))
    assert.equal("OK", try(second, 2, "exclusive"))
    assert.equal("OK", try(first, far, "exclusive"))
    assert.equal("EBUSY", try(second, far, "shared"))
    assert.equal("OK", try(second, "7fffffffffffffef", "shared"))
  end)

  it("replaces the lock that the same descriptor has", function()
    assert.equal("OK", try(first, 0, "exclusive"))
    assert.equal("OK", try(first, 0, "exclusive"))
    assert.equal("OK", try(first, 0, "shared"))
    assert.equal("OK", try(second, 0, "shared"))
    os_.lock_release(second, 0)
    assert.equal("OK", try(first, 0, "exclusive"))
    assert.equal("EBUSY", try(second, 0, "shared"))
  end)

  it("goes when it is released", function()
    assert.equal("OK", try(first, 0, "exclusive"))
    os_.lock_release(first, 1) -- another one
    assert.equal("EBUSY", try(second, 0, "exclusive"))
    os_.lock_release(first, 0)
    assert.equal("OK", try(second, 0, "exclusive"))
  end)

  it("goes when the descriptor is closed, and not with another one",
    function()
      local third = assert(os_.file_open(path, false))
      assert.equal("OK", try(third, 0, "exclusive"))
      os_.file_close(assert(os_.file_open(path, false)))
      assert.equal("EBUSY", try(first, 0, "exclusive"))
      os_.file_close(third)
      assert.equal("OK", try(first, 0, "exclusive"))
    end)

  it("excludes other processes", function()
    assert.equal("OK", try(first, 0, "exclusive"))
    local text = probe.child.run(function()
      local own = assert(os_.file_open(path, false))
      return try(own, 0, "exclusive") .. " " .. try(own, 1, "exclusive")
    end)
    assert.equal("EBUSY OK", text)
    assert.equal("OK", try(second, 1, "exclusive"))
  end)

  it("goes with the process, however that ends", function()
    local child = probe.child.start(function()
      local own = assert(os_.file_open(path, false))
      probe.child.say(try(own, 0, "exclusive"))
      probe.child.hear()
    end)
    assert.equal("OK", child:line())
    assert.equal("EBUSY", try(first, 0, "shared"))
    child:kill(SIGKILL)
    child:wait()
    assert.equal("OK", try(first, 0, "exclusive"))
  end)

  it("stays with a forked child that has the descriptor still", function()
    assert.equal("OK", try(first, 0, "exclusive"))
    local child = probe.child.start(function()
      probe.child.say("ready")
      probe.child.hear()
      os_.file_close(first)
      probe.child.say("closed")
      probe.child.hear()
    end)
    assert.equal("ready", child:line())
    os_.file_close(first)
    assert.equal("EBUSY", try(second, 0, "exclusive"))
    child:tell("close it")
    assert.equal("closed", child:line())
    assert.equal("OK", try(second, 0, "exclusive"))
    child:tell("end")
    child:wait()
    first = assert(os_.file_open(path, false))
  end)

  it("stays with a view that was mapped through the closed descriptor",
    function()
      local page = os_.page_size()
      assert(os_.file_allocate(first, 0, page))
      local third = assert(os_.file_open(path, false))
      local map = assert(os_.map_open(third, true, page, page))
      assert.equal("OK", try(third, 0, "exclusive"))
      os_.file_close(third)
      assert.equal("EBUSY", try(second, 0, "exclusive"))
      assert.is_false(os_.lock_is_free(second, 0))
      assert.is_true(map:close())
      assert.is_true(os_.lock_is_free(second, 0))
      assert.equal("OK", try(second, 0, "exclusive"))
    end)

  it("stays with a view that a forked child has still", function()
    local page = os_.page_size()
    assert(os_.file_allocate(first, 0, page))
    local third = assert(os_.file_open(path, false))
    local map = assert(os_.map_open(third, true, page, page))
    assert.equal("OK", try(third, 0, "exclusive"))
    local child = probe.child.start(function()
      os_.file_close(third)
      probe.child.say("closed")
      probe.child.hear()
    end)
    assert.equal("closed", child:line())
    os_.file_close(third)
    map:close()
    assert.equal("EBUSY", try(second, 0, "exclusive"))
    child:tell("end")
    child:wait()
    assert.equal("OK", try(second, 0, "exclusive"))
  end)

  it("goes from under a view when it is released", function()
    local page = os_.page_size()
    assert(os_.file_allocate(first, 0, page))
    local map = assert(os_.map_open(first, true, page, page))
    assert.equal("OK", try(first, 0, "exclusive"))
    os_.lock_release(first, 0)
    assert.equal("OK", try(second, 0, "exclusive"))
    map:close()
  end)

  describe("looked at", function()
    it("is free, or somebody else has it", function()
      assert.is_true(os_.lock_is_free(second, 0))
      for _, kind in ipairs { "exclusive", "shared" } do
        assert.equal("OK", try(first, 0, kind))
        assert.is_false(os_.lock_is_free(second, 0), kind)
        assert.is_true(os_.lock_is_free(second, 1), kind)
        assert.is_true(os_.lock_is_free(first, 0), kind) -- its own
      end
      os_.lock_release(first, 0)
      assert.is_true(os_.lock_is_free(second, 0))
    end)

    it("is not taken", function()
      assert.is_true(os_.lock_is_free(second, 0))
      assert.equal("OK", try(first, 0, "exclusive"))
      os_.lock_release(first, 0)
      assert.equal("OK", try(second, 0, "shared"))
      assert.is_true(os_.lock_is_free(second, 0))
      assert.equal("OK", try(first, 0, "shared")) -- still a shared one
    end)

    it("needs no permission to write", function()
      local readonly = assert(os_.file_open(path, true))
      assert.is_true(os_.lock_is_free(readonly, 0))
      assert.equal("OK", try(first, 0, "shared"))
      assert.is_false(os_.lock_is_free(readonly, 0))
      os_.file_close(readonly)
    end)

    it("is another process's", function()
      assert.equal("OK", try(first, 0, "shared"))
      assert.equal("false true", (probe.child.run(function()
        local own = assert(os_.file_open(path, true))
        return tostring(os_.lock_is_free(own, 0)) .. " "
          .. tostring(os_.lock_is_free(own, 1))
      end)))
    end)

    it("carries on after signals", function()
      os_.fail("lock", 1, "EINTR", 2)
      assert.is_true(os_.lock_is_free(first, 0))
      assert.equal(3, os_.counts().lock)
    end)

    it("says when it cannot be known", function()
      for errno, code in pairs { EINVAL = "ENOTSUP", ENOLCK = "ENOTSUP",
        EIO = "EIO" } do
        os_.fail("lock", 1, errno)
        assert.same({ n = 3, nil, code, "fcntl F_OFD_GETLK" },
          { n = 3, os_.lock_is_free(first, 0) })
      end
    end)
  end)

  it("waits as long as it is told to", function()
    assert.equal("OK", try(first, 0, "exclusive"))
    for _, timeout in ipairs { 0, 30, 100 } do
      local begin = os_.monotonic_ns()
      local ok, code = os_.lock_wait(second, 0, "shared", timeout)
      local waited = (os_.monotonic_ns() - begin) / 1e6
      assert.is_nil(ok)
      assert.equal("EBUSY", code)
      assert.is_true(waited >= timeout, waited)
      assert.is_true(waited < 60000, waited) -- the unit is right
    end
  end)

  it("gets it as soon as the other lets go", function()
    local child = probe.child.start(function()
      local own = assert(os_.file_open(path, false))
      probe.child.say(try(own, 0, "exclusive"))
      os_.sleep_ms(50)
    end)
    assert.equal("OK", child:line())
    assert.is_true(os_.lock_wait(first, 0, "exclusive", 4294967295))
    child:wait()
  end)

  it("carries on after signals", function()
    os_.fail("lock", 1, "EINTR", 2)
    assert.equal("OK", try(first, 0, "exclusive"))
    assert.equal(3, os_.counts().lock)
    os_.fail("lock", 1, "EINTR")
    os_.lock_release(first, 0)
    assert.equal("OK", try(second, 0, "exclusive"))
  end)

  it("says where there are no such locks", function()
    for errno, code in pairs { EINVAL = "ENOTSUP", EOPNOTSUPP = "ENOTSUP",
      ENOLCK = "ENOTSUP", ENOSYS = "ENOTSUP", EACCES = "EBUSY", EIO = "EIO" }
    do
      os_.fail("lock", 1, errno)
      assert.equal(code, try(first, 0, "exclusive"), errno)
    end
  end)

  it("does not wait for what waiting cannot bring", function()
    os_.fail("lock", 1, "ENOLCK", 0)
    local ok, code = os_.lock_wait(first, 0, "exclusive", 60000)
    assert.is_nil(ok)
    assert.equal("ENOTSUP", code)
    assert.equal(1, os_.counts().lock)
  end)
end)
