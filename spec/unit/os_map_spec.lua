-- SPDX-License-Identifier: MIT
--
-- The two views of a data file, how much address space they take, and the one
-- view of what is shared in small.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local os_ = probe.os

local PAGE = os_.page_size()
local MIB = 1048576
local GIB = 1024 * MIB

local function number(hex)
  return tonumber(hex, 16)
end

-- Bytes of address space that this process uses.
local function used_bytes()
  local file = assert(io.open("/proc/self/statm"))
  local pages = file:read("*n")
  file:close()
  return pages * PAGE
end

describe("os.map", function()
  local fd, path

  before_each(function()
    path = scratch.path()
    fd = assert(os_.file_create(path, 384))
    assert(os_.file_allocate(fd, 0, 2 * PAGE))
  end)

  after_each(function()
    os_.restore()
    os_.file_close(fd)
  end)

  it("shows the file through two views of the same pages", function()
    local map = assert(os_.map_open(fd, true, 64 * PAGE, PAGE))
    assert.equal(64 * PAGE, number(map:size()))
    assert.is_truthy(({ one = true, two = true })[map:views()])
    map:write(PAGE + 5, "written")
    assert.equal("written", map:read(PAGE + 5, 7))
    assert.equal("written", os_.file_read(fd, 7, PAGE + 5))
    assert(os_.file_write(fd, "pwrite", 0))
    assert.equal("pwrite", map:read(0, 6))
    assert.is_true(map:close())
  end)

  it("shows what the file grows by without being told", function()
    local map = assert(os_.map_open(fd, true, 64 * PAGE, PAGE))
    assert(os_.file_allocate(fd, 0, 40 * PAGE))
    map:write(39 * PAGE, "grown")
    assert.equal("grown", map:read(39 * PAGE, 5))
    assert.equal("grown", os_.file_read(fd, 5, 39 * PAGE))
  end)

  it("does not let readers write", function()
    local map = assert(os_.map_open(fd, true, 64 * PAGE, PAGE))
    if map:views() == "one" then return pending("a build with one view") end
    local text, how, status = probe.child.run(function()
      os_.file_close(2)
      map:write_through_readers_view()
      return "survived"
    end)
    assert.are_not.equal("survived", text)
    assert.is_true(how == "signal" or status ~= 0)
  end)

  it("maps a file that may only be read", function()
    assert(os_.file_write(fd, "text", 0))
    local readonly = assert(os_.file_open(path, true))
    local map = assert(os_.map_open(readonly, false, 64 * PAGE, PAGE))
    os_.file_close(readonly) -- the mapping does not need it
    assert.equal("read", map:views())
    assert.equal("text", map:read(0, 4))
    map:populate(0, PAGE) -- does nothing
    assert.is_true(map:close())
    assert.equal("none", map:views())
  end)

  it("refuses to map for writing what was opened for reading", function()
    local readonly = assert(os_.file_open(path, true))
    os_.watch()
    local map, code, step = os_.map_open(readonly, true, 64 * PAGE, PAGE)
    assert.same({ "EACCES", "mmap" }, { code, step })
    assert.is_nil(map)
    local counts = os_.counts()
    assert.is_true(counts.mmap - counts.munmap == 1) -- the one that failed
    os_.file_close(readonly)
  end)

  it("grants a terabyte where nothing limits it", function()
    if probe.sanitizer then return pending("not with a sanitizer") end
    if scratch.shell("ulimit -v") ~= "unlimited" then
      return pending("the address space is limited here")
    end
    local map = assert(os_.map_open(fd, true, 1024 * GIB, PAGE))
    local address_bits = scratch.shell("getconf LONG_BIT")
    if address_bits == "64" then
      assert.equal(1024 * GIB, number(map:size()))
    end
    map:close()
  end)

  it("halves the range until it is granted", function()
    for refused = 1, 5 do
      os_.fail("mmap", 1, "ENOMEM", refused)
      local map = assert(os_.map_open(fd, true, 1024 * PAGE, PAGE))
      assert.equal(1024 / 2 ^ refused * PAGE, number(map:size()))
      map:close()
    end
  end)

  it("gives the first view back if the second is refused", function()
    local two = os_.map_open(fd, true, PAGE, PAGE):views() == "two"
    if not two then return pending("a build with one view") end
    collectgarbage() -- the mapping above is closed before calls are counted
    os_.fail("mmap", 2, "ENOMEM")
    local map = assert(os_.map_open(fd, true, 16 * PAGE, PAGE))
    assert.equal(8 * PAGE, number(map:size()))
    assert.equal(4, os_.counts().mmap)
    assert.equal(1, os_.counts().munmap)
  end)

  it("does not go below what is needed, but down to exactly that", function()
    os_.fail("mmap", 1, "ENOMEM", 2)
    local map = assert(os_.map_open(fd, true, 16 * PAGE, 5 * PAGE))
    assert.equal(5 * PAGE, number(map:size()))
    os_.fail("mmap", 1, "ENOMEM", 0)
    assert.same({ n = 3, nil, "EADDRESS", "mmap" },
      { n = 3, os_.map_open(fd, true, 16 * PAGE, 5 * PAGE) })
  end)

  it("keeps halves on page bounds", function()
    os_.fail("mmap", 1, "ENOMEM")
    local map = assert(os_.map_open(fd, true, 7 * PAGE, PAGE))
    assert.equal(3 * PAGE, number(map:size()))
  end)

  it("does not halve when the failure is another one", function()
    for errno, code in pairs { ENODEV = "ENOTSUP", EACCES = "EACCES" } do
      os_.fail("mmap", 1, errno, 0)
      local before = os_.counts().mmap
      assert.same({ n = 3, nil, code, "mmap" },
        { n = 3, os_.map_open(fd, true, 64 * PAGE, PAGE) })
      assert.equal(before + 1, os_.counts().mmap)
    end
  end)

  describe("beside many others", function()
    local TIB = 1024 * GIB

    -- What is asked for by default, and what is granted of `wanted`, beside so many
    -- maps of a terabyte, and after they are closed.
    local function beside(count, wanted)
      return probe.child.run(function()
        local maps = {}
        for i = 1, count do
          maps[i] = assert(os_.map_open(fd, true, TIB, PAGE))
          if maps[i]:views() ~= "two" then return "a build with one view" end
        end
        local default = number(os_.map_default_bytes())
        local map = assert(os_.map_open(fd, true, wanted, PAGE))
        local granted = number(map:size())
        map:close()
        for i = 1, count do maps[i]:close() end
        local again = number(os_.map_default_bytes())
        return ("%g %g %g"):format(default / GIB, granted / GIB, again / GIB)
      end)
    end

    local function expect(expected, count, wanted)
      local text = beside(count, wanted)
      if text:find("one view") then return end
      assert.equal(expected, text)
    end

    it("asks for a terabyte first, and then for less and less", function()
      if probe.sanitizer then return pending("not with a sanitizer") end
      expect("1024 1 1024", 0, GIB)
      expect("1024 1 1024", 7, GIB)
      expect("512 1 1024", 8, GIB)
      expect("256 1 1024", 12, GIB)
      expect("8 1 1024", 32, GIB)
      expect("1 1 1024", 50, GIB)
    end)

    it("grants a 32nd of what is left at most", function()
      if probe.sanitizer then return pending("not with a sanitizer") end
      expect("1 1024 1024", 47, TIB)
      expect("1 512 1024", 50, TIB)
    end)
  end)

  describe("under a limit of address space", function()
    -- The size granted in a process that may use `more` bytes more than now.
    local function granted_with(more, wanted, least)
      return probe.child.run(function()
        probe.child.limit("as", used_bytes() + more)
        local map, code = os_.map_open(fd, true, wanted, least)
        return map and ("%.0f"):format(number(map:size())) or code
      end)
    end

    it("leaves the host program its room", function()
      if probe.sanitizer then return pending("not with a sanitizer") end
      local size = tonumber((granted_with(GIB, 1024 * GIB, PAGE)))
      assert.is_true(size <= GIB / 4)
      assert.is_true(size >= GIB / 16)
    end)

    it("takes more than its share if the file is that large", function()
      if probe.sanitizer then return pending("not with a sanitizer") end
      local text = granted_with(GIB, 1024 * GIB, 400 * MIB)
      assert.equal(("%.0f"):format(400 * MIB), text)
    end)

    it("says when even the file does not fit", function()
      if probe.sanitizer then return pending("not with a sanitizer") end
      assert.equal("EADDRESS", (granted_with(GIB, 1024 * GIB, GIB)))
    end)

    it("works without /proc", function()
      if probe.sanitizer then return pending("not with a sanitizer") end
      local text = probe.child.run(function()
        probe.child.limit("as", used_bytes() + GIB)
        os_.fail("open", 1, "ENOENT")
        local map = assert(os_.map_open(fd, true, 1024 * GIB, PAGE))
        return tostring(number(map:size()) >= 64 * MIB)
      end)
      assert.equal("true", text)
    end)
  end)

  describe("of one view", function()
    it("reads and writes the file, and what it grows by", function()
      local map = assert(os_.map_open_shared(fd, 64 * PAGE, PAGE))
      assert.equal(64 * PAGE, number(map:size()))
      assert.equal("one", map:views())
      map:write(5, "written")
      assert.equal("written", os_.file_read(fd, 7, 5))
      assert(os_.file_allocate(fd, 0, 40 * PAGE))
      assert(os_.file_write(fd, "grown", 39 * PAGE))
      assert.equal("grown", map:read(39 * PAGE, 5))
      map:close_shared()
      assert.equal("written", os_.file_read(fd, 7, 5))
    end)

    it("is shared with other processes", function()
      local map = assert(os_.map_open_shared(fd, PAGE, PAGE))
      local text = probe.child.run(function()
        local own = assert(os_.file_open(path, false))
        local other = assert(os_.map_open_shared(own, PAGE, PAGE))
        os_.file_close(own) -- the view does not need it
        other:write(0, "from the child")
      end)
      assert.equal("", text)
      assert.equal("from the child", map:read(0, 14))
      map:close_shared()
    end)

    it("takes one range, and gives it back", function()
      os_.watch()
      local map = assert(os_.map_open_shared(fd, PAGE, PAGE))
      assert.equal(1, os_.counts().mmap)
      map:close_shared()
      assert.equal(1, os_.counts().munmap)
    end)

    it("is halved until it is granted", function()
      os_.fail("mmap", 1, "ENOMEM", 2)
      local map = assert(os_.map_open_shared(fd, 16 * PAGE, 5 * PAGE))
      assert.equal(5 * PAGE, number(map:size()))
      map:close_shared()
      os_.fail("mmap", 1, "ENOMEM", 0)
      assert.same({ n = 3, nil, "EADDRESS", "mmap" },
        { n = 3, os_.map_open_shared(fd, 16 * PAGE, PAGE) })
    end)

    it("is refused for what was opened for reading", function()
      local readonly = assert(os_.file_open(path, true))
      assert.same({ n = 3, nil, "EACCES", "mmap" },
        { n = 3, os_.map_open_shared(readonly, PAGE, PAGE) })
      os_.file_close(readonly)
    end)
  end)

  describe("of no file", function()
    it("is zeros to read and write", function()
      local map = assert(os_.map_anonymous(2 * PAGE))
      assert.equal(("\0"):rep(2 * PAGE), map:read(0, 2 * PAGE))
      map:write(PAGE - 2, "text")
      assert.equal("text", map:read(PAGE - 2, 4))
      os_.watch()
      map:close_shared()
      assert.equal(1, os_.counts().munmap)
    end)

    it("is not shared with a forked child", function()
      local map = assert(os_.map_anonymous(PAGE))
      map:write(0, "before")
      assert.equal("before", (probe.child.run(function()
        local text = map:read(0, 6)
        map:write(0, "within")
        return text
      end)))
      assert.equal("before", map:read(0, 6))
      map:close_shared()
    end)

    it("says when there is no memory", function()
      for _, errno in ipairs { "ENOMEM", "EAGAIN" } do
        os_.fail("mmap", 1, errno)
        assert.same({ n = 3, nil, "ENOMEM", "mmap" },
          { n = 3, os_.map_anonymous(PAGE) })
      end
      assert.same({ n = 3, nil, "ENOMEM", "mmap" },
        { n = 3, os_.map_anonymous("fffffffffffff000") })
    end)
  end)

  describe("populate", function()
    it("faults pages in and changes nothing", function()
      local map = assert(os_.map_open(fd, true, 64 * PAGE, PAGE))
      map:write(0, "text")
      os_.watch()
      map:populate(0, 2 * PAGE)
      map:populate(1, PAGE) -- from within a page
      assert.equal(2, os_.counts().madvise)
      assert.equal("text", map:read(0, 4))
    end)

    it("survives pages beyond the file and beyond the mapping", function()
      local map = assert(os_.map_open(fd, true, 64 * PAGE, PAGE))
      map:populate(0, 64 * PAGE)
      map:populate(PAGE, "fffffffffffff000")
      map:populate(64 * PAGE, PAGE)
      map:populate("fffffffffffff000", PAGE)
      assert.equal(2 * PAGE, number(os_.file_size(fd)))
    end)

    it("does without where the kernel cannot", function()
      local map = assert(os_.map_open(fd, true, 64 * PAGE, PAGE))
      os_.fail("madvise", 1, "EINVAL")
      map:populate(0, PAGE)
      map:write(0, "text")
      assert.equal("text", map:read(0, 4))
    end)
  end)

  it("closes what was never opened", function()
    os_.watch()
    os_.map_close_zeros()
    assert.equal(0, os_.counts().munmap)
  end)
end)
