-- SPDX-License-Identifier: MIT
--
-- Error codes as src/base/errors.h and mmcmap.h promise them.

local probe = require "mmcmap_probe"
local base = probe.base

local NAMES = {
  [0] = "OK", "NOTFOUND", "EINVAL", "ENOMEM", "EIO", "ENOSPC", "EFULL", "EBUSY",
  "ECORRUPT", "EEXIST", "ENOENT", "EACCES", "EREADONLY", "EFORMAT", "EVERSION",
  "EADDRESS", "ETOOBIG", "EFORK", "ENOTSUP", "ESYSTEM", "EEXPIRED",
  "MISMATCH", "ENUMBER",
}

local CODE_OF_ERRNO = {
  ENOSPC = "ENOSPC", EDQUOT = "ENOSPC", EFBIG = "ENOSPC",
  EIO = "EIO",
  EACCES = "EACCES", EPERM = "EACCES",
  EROFS = "EREADONLY",
  ENOMEM = "ENOMEM",
  EEXIST = "EEXIST",
  ENOENT = "ENOENT", ENOTDIR = "ENOENT",
  EAGAIN = "EBUSY", EBUSY = "EBUSY", ETXTBSY = "EBUSY",
  EOPNOTSUPP = "ENOTSUP", ENOSYS = "ENOTSUP", ENODEV = "ENOTSUP",
  ENOLCK = "ENOTSUP",
  EBADF = "ESYSTEM", EINVAL = "ESYSTEM", EMFILE = "ESYSTEM",
  EINTR = "ESYSTEM", EFAULT = "ESYSTEM", ENAMETOOLONG = "ESYSTEM",
}

describe("base.errors", function()
  it("gives each code its name", function()
    for number, name in pairs(NAMES) do
      assert.equal(name, base.error_name(-number))
    end
  end)

  it("gives each code a text of its own, without a full stop", function()
    local seen = {}
    for number, name in pairs(NAMES) do
      local text = base.strerror(-number)
      assert.is_true(#text >= 5, name)
      assert.is_nil(seen[text], name .. " has the text of another code")
      assert.is_nil(text:find("%.$"), name)
      assert.is_nil(text:find("  ", 1, true), name)
      seen[text] = name
    end
  end)

  it("answers numbers that are no codes of ours", function()
    for _, code in ipairs { 1, 2147483647, -(#NAMES + 1), -1000, -2147483648 }
    do
      assert.equal("EUNKNOWN", base.error_name(code))
      assert.equal("unknown error code", base.strerror(code))
    end
  end)

  it("turns each errno into a code and keeps it", function()
    for errno, name in pairs(CODE_OF_ERRNO) do
      assert.equal(name, base.error_set_errno(errno, "a call"), errno)
      local last = base.last_error()
      assert.equal(name, last.name)
      assert.equal(errno, last.system_errno)
      assert.equal("a call", last.what)
      assert.equal(("0"):rep(16), last.offset)
    end
  end)

  it("notes a failure without an errno, and forgets the one before", function()
    base.error_set_errno("EIO", "pwrite")
    assert.equal(-7, base.error_set(-7, "a step"))
    local last = base.last_error()
    assert.same({ code = -7, name = "EBUSY", what = "a step",
      offset = ("0"):rep(16) }, last)
  end)

  it("notes where the file is damaged", function()
    assert.equal("ECORRUPT",
      base.error_set_corrupt("F12 branch level", "0123456789abcdef"))
    local last = base.last_error()
    assert.equal(-8, last.code)
    assert.equal("F12 branch level", last.what)
    assert.equal("0123456789abcdef", last.offset)
    assert.is_nil(last.system_errno)
    base.error_set(-2, "next")
    assert.equal(("0"):rep(16), base.last_error().offset)
  end)

  it("keeps a note per thread", function()
    base.error_set(-11, "this thread")
    assert.equal(0, probe.os.thread_error()) -- what a new thread starts with
    assert.equal("this thread", base.last_error().what)
  end)

  it("knows the version of the library", function()
    local library, header = base.library_version()
    assert.equal(header, library)
    assert.is_truthy(library:find("^%d+%.%d+%.%d+$"))
  end)
end)
