-- SPDX-License-Identifier: MIT
--
-- Files as src/os/file.h promises them, and what becomes of calls that are
-- interrupted, cut short or refused.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local os_ = probe.os

local SIGXFSZ = 25

local function number(hex)
  return tonumber(hex, 16)
end

-- The results of a call that failed, its errno behind them.
local function failure(...)
  local result, code, step = ...
  assert.is_nil(result)
  return { code, step, probe.base.last_error().system_errno }
end

describe("os.file", function()
  local open_fds

  -- Remembers a descriptor, so that the test leaves none open.
  local function keep(fd, ...)
    assert(fd, ...)
    open_fds[#open_fds + 1] = fd
    return fd
  end

  local function new_file(text)
    local path = scratch.path()
    local fd = keep(os_.file_create(path, 384)) -- 0600
    if text then assert(os_.file_write(fd, text, 0)) end
    return fd, path
  end

  before_each(function() open_fds = {} end)

  after_each(function()
    os_.restore()
    for _, fd in ipairs(open_fds) do os_.file_close(fd) end
  end)

  describe("open", function()
    it("opens a file for reading and writing", function()
      local path = scratch.write(scratch.path(), "before")
      local fd = keep(os_.file_open(path, false))
      assert.is_true(os_.file_write(fd, "B", 0))
      assert.equal("Before", os_.file_read(fd, 100, 0))
    end)

    it("opens a file for reading only", function()
      local fd = keep(os_.file_open(scratch.write(scratch.path(), "x"), true))
      assert.equal("x", os_.file_read(fd, 100, 0))
      assert.same({ "ESYSTEM", "pwrite", "EBADF" },
        failure(os_.file_write(fd, "y", 0)))
    end)

    it("makes descriptors that a program started later does not get",
      function()
        local fd, path = new_file()
        assert.is_true(os_.is_close_on_exec(fd))
        assert.is_true(os_.is_close_on_exec(keep(os_.file_open(path, true))))
      end)

    it("says when there is no such file or folder", function()
      assert.same({ "ENOENT", "open", "ENOENT" },
        failure(os_.file_open(scratch.path(), false)))
      assert.same({ "ENOENT", "open", "ENOENT" },
        failure(os_.file_open(scratch.path() .. "/file", true)))
      local file = scratch.write(scratch.path(), "")
      assert.same({ "ENOENT", "open", "ENOTDIR" },
        failure(os_.file_open(file .. "/file", true)))
    end)

    it("refuses what is no regular file, and does not wait for it", function()
      local fifo = scratch.path("fifo")
      scratch.shell("mkfifo " .. scratch.quoted(fifo))
      for _, path in ipairs { scratch.folder(), fifo, "/dev/null" } do
        for _, readonly in ipairs { true, false } do
          assert.same({ "EFORMAT", "not a regular file" },
            failure(os_.file_open(path, readonly)), path)
        end
      end
    end)

    it("says when it is not allowed", function()
      os_.fail("open", 1, "EACCES")
      assert.same({ "EACCES", "open", "EACCES" },
        failure(os_.file_open(scratch.write(scratch.path(), ""), true)))
    end)

    it("closes again what it cannot use", function()
      local path = scratch.write(scratch.path(), "")
      os_.fail("fstat", 1, "EIO")
      assert.same({ "EIO", "fstat", "EIO" },
        failure(os_.file_open(path, true)))
      assert.equal(1, os_.counts().close)
    end)

    it("carries on after a signal", function()
      local path = scratch.write(scratch.path(), "")
      os_.fail("open", 1, "EINTR", 3)
      keep(os_.file_open(path, true))
      assert.equal(4, os_.counts().open)
    end)

    -- A program that has closed standard error and prints to it would write
    -- its messages into the store.
    it("never uses the standard streams' numbers", function()
      local path = scratch.path()
      local text = probe.child.run(function()
        for fd = 0, 2 do os_.file_close(fd) end
        local created = assert(os_.file_create(path, 384))
        local opened = assert(os_.file_open(path, false))
        assert(os_.file_write(created, "through the moved one", 0))
        return ("%d %d %s"):format(created > 2 and 1 or 0,
          opened > 2 and 1 or 0, tostring(os_.is_close_on_exec(opened)))
      end)
      assert.equal("1 1 true", text)
      assert.equal("through the moved one", scratch.read(path))
    end)

    it("leaves no new file behind if its descriptor cannot be moved",
      function()
        local path = scratch.path()
        local text = probe.child.run(function()
          os_.file_close(0)
          os_.fail("duplicate", 1, "EMFILE")
          local _, code, step = os_.file_create(path, 384)
          return code .. " " .. step
        end)
        assert.equal("ESYSTEM fcntl F_DUPFD", text)
        assert.is_nil(scratch.read(path))
      end)
  end)

  describe("create", function()
    it("makes an empty file with the permission bits", function()
      for _, mode in ipairs { 384, 256, 448 } do -- 0600, 0400, 0700
        local path = scratch.path()
        local fd = keep(os_.file_create(path, mode))
        assert.equal(0, number(os_.file_size(fd)))
        assert.equal(mode, (os_.stat(path)))
        assert.is_true(os_.file_write(fd, "x", 0))
      end
    end)

    it("leaves a file alone that is there", function()
      local path = scratch.write(scratch.path(), "old")
      assert.same({ "EEXIST", "open", "EEXIST" },
        failure(os_.file_create(path, 384)))
      assert.equal("old", scratch.read(path))
    end)

    it("does not follow a dangling symbolic link", function()
      local link = scratch.path()
      scratch.shell("ln -s nowhere " .. scratch.quoted(link))
      assert.same({ "EEXIST", "open", "EEXIST" },
        failure(os_.file_create(link, 384)))
    end)
  end)

  describe("open_or_create", function()
    it("makes an empty file, whose bits the umask has no part in", function()
      for _, mode in ipairs { 384, 438, 432 } do -- 0600, 0666, 0660
        local path = scratch.path()
        local before = os_.umask(63) -- 077
        local fd, is_made = os_.file_open_or_create(path, mode)
        os_.umask(before)
        assert.is_true(is_made)
        keep(fd)
        assert.equal(0, number(os_.file_size(fd)))
        assert.equal(mode, (os_.stat(path)))
        assert.equal(mode, os_.file_mode(fd))
        assert.is_true(os_.is_close_on_exec(fd))
        assert.is_true(os_.file_write(fd, "x", 0))
      end
    end)

    it("opens the file that is there, and leaves its bits", function()
      local path = scratch.write(scratch.path(), "before")
      scratch.shell("chmod 0640 " .. scratch.quoted(path))
      os_.watch()
      local fd, is_made = os_.file_open_or_create(path, 438)
      keep(fd)
      assert.is_false(is_made)
      assert.equal("before", os_.file_read(fd, 100, 0))
      assert.is_true(os_.file_write(fd, "B", 0))
      assert.equal(416, (os_.stat(path))) -- 0640
      assert.equal(0, os_.counts().fchmod)
      assert.is_true(os_.is_close_on_exec(fd))
    end)

    it("refuses what is no regular file, symbolic links too", function()
      local fifo, link = scratch.path("fifo"), scratch.path("link")
      local dangling = scratch.path("link")
      local target = scratch.write(scratch.path(), "")
      scratch.shell("mkfifo " .. scratch.quoted(fifo))
      scratch.shell(("ln -s %s %s"):format(scratch.quoted(target),
        scratch.quoted(link)))
      scratch.shell("ln -s nowhere " .. scratch.quoted(dangling))
      for _, path in ipairs { scratch.folder(), fifo, link, dangling,
        "/dev/null" } do
        assert.same({ "EFORMAT", "not a regular file" },
          failure(os_.file_open_or_create(path, 384)), path)
      end
      assert.is_nil(scratch.read(scratch.folder() .. "/nowhere"))
    end)

    it("tells a read-only file system from a refusal", function()
      local path = scratch.path()
      os_.fail("open", 2, "EROFS")
      assert.same({ "EREADONLY", "open", "EROFS" },
        failure(os_.file_open_or_create(path, 384)))
      os_.fail("open", 2, "EACCES")
      assert.same({ "EACCES", "open", "EACCES" },
        failure(os_.file_open_or_create(path, 384)))
      scratch.write(path, "")
      os_.fail("open", 1, "EROFS")
      assert.same({ "EREADONLY", "open", "EROFS" },
        failure(os_.file_open_or_create(path, 384)))
      assert.same({ "ENOENT", "open", "ENOENT" },
        failure(os_.file_open_or_create(scratch.path() .. "/file", 384)))
    end)

    it("says so on a real read-only file system", function()
      local done, why = scratch.with_small_file_system("64k", function(place)
        scratch.write(place .. "/there", "")
        scratch.shell("mount -o remount,ro " .. scratch.quoted(place))
        for _, name in ipairs { "/there", "/new" } do
          assert.same({ "EREADONLY", "open", "EROFS" },
            failure(os_.file_open_or_create(place .. name, 384)))
        end
      end)
      if not done then pending(why) end
    end)

    it("opens what somebody else made meanwhile", function()
      local path = scratch.write(scratch.path(), "theirs")
      os_.fail("open", 1, "ENOENT")
      local fd = keep(os_.file_open_or_create(path, 384))
      assert.equal("theirs", os_.file_read(fd, 100, 0))
      assert.equal(3, os_.counts().open)
    end)

    it("makes what somebody else took away meanwhile", function()
      local path = scratch.path()
      os_.fail("open", 2, "EEXIST")
      keep(os_.file_open_or_create(path, 384))
      assert.equal("", scratch.read(path))
    end)

    it("is one file for all that make it at a time", function()
      local path = scratch.path()
      local children = {}
      for i = 1, 8 do
        children[i] = probe.child.start(function()
          probe.child.hear()
          local fd = assert(os_.file_open_or_create(path, 384))
          return select(2, os_.file_identify(fd))
        end)
      end
      for _, child in ipairs(children) do child:tell("go") end
      for _, child in ipairs(children) do
        local inode = child:wait()
        assert.equal(select(2, os_.file_identify_path(path)), inode)
      end
    end)

    it("carries on after signals", function()
      for n = 1, 2 do
        os_.restore()
        os_.fail("open", n, "EINTR", 3)
        keep(os_.file_open_or_create(scratch.path(), 384))
        assert.equal(5, os_.counts().open)
      end
    end)

    it("does without permission bits where there are none", function()
      for _, errno in ipairs { "EPERM", "EOPNOTSUPP" } do
        os_.fail("fchmod", 1, errno)
        keep(os_.file_open_or_create(scratch.path(), 384))
      end
    end)

    it("leaves a new file to others when it cannot go on", function()
      local path = scratch.path()
      os_.fail("fchmod", 1, "EIO")
      assert.same({ "EIO", "fchmod", "EIO" },
        failure(os_.file_open_or_create(path, 384)))
      assert.equal(1, os_.counts().close)
      assert.equal("", scratch.read(path))
      keep(os_.file_open_or_create(path, 384))
    end)

    it("never uses the standard streams' numbers", function()
      local path = scratch.path()
      assert.equal("true true", (probe.child.run(function()
        for fd = 0, 2 do os_.file_close(fd) end
        local created = assert(os_.file_open_or_create(path, 384))
        local opened = assert(os_.file_open_or_create(path, 384))
        return tostring(created > 2) .. " " .. tostring(opened > 2)
      end)))
    end)
  end)

  describe("mount_id", function()
    -- Not before Linux 6.8.
    local function has_none(id, code)
      return not id and code == "ENOTSUP"
    end

    it("is the same for all files of a mount", function()
      local fd = new_file()
      local id = os_.file_mount_id(fd)
      if has_none(os_.file_mount_id(fd)) then return pending("none here") end
      assert.is_true(number(id) > 0)
      assert.equal(id, os_.file_mount_id((new_file())))
    end)

    it("is another one for another mount, and never comes again", function()
      if has_none(os_.file_mount_id((new_file()))) then
        return pending("none here")
      end
      local ids = { [os_.file_mount_id((new_file()))] = true }
      for _ = 1, 3 do
        local done, why = scratch.with_small_file_system("64k",
          function(place)
            local fd = assert(os_.file_create(place .. "/file", 384))
            local id = os_.file_mount_id(fd)
            os_.file_close(fd)
            assert.is_nil(ids[id])
            ids[id] = true
          end)
        if not done then return pending(why) end
      end
    end)

    it("says when the kernel has none", function()
      local fd = new_file()
      os_.pretend_old_statx()
      assert.same({ "ENOTSUP", "statx of a mount", "EOPNOTSUPP" },
        failure(os_.file_mount_id(fd)))
      for _, errno in ipairs { "ENOSYS", "EPERM" } do
        os_.fail("statx", 1, errno)
        assert.same({ "ENOTSUP", "statx", "ENOSYS" },
          failure(os_.file_mount_id(fd)))
      end
      os_.fail("statx", 1, "EIO")
      assert.same({ "EIO", "statx", "EIO" }, failure(os_.file_mount_id(fd)))
    end)
  end)

  describe("mode", function()
    it("is the nine bits", function()
      local fd, path = new_file()
      for text, mode in pairs { ["0640"] = 416, ["4755"] = 493,
        ["0000"] = 0 } do
        scratch.shell(("chmod %s %s"):format(text, scratch.quoted(path)))
        assert.equal(mode, os_.file_mode(fd))
      end
      os_.fail("fstat", 1, "EIO")
      assert.same({ "EIO", "fstat", "EIO" }, failure(os_.file_mode(fd)))
    end)
  end)

  describe("follow_owner", function()
    local function owner(path)
      return scratch.shell("stat -c %u:%g " .. scratch.quoted(path))
    end

    local function of(who)
      local fd, path = new_file()
      scratch.shell(("chown %s %s"):format(who, scratch.quoted(path)))
      return fd, path
    end

    it("gives a file to the owner and group of another", function()
      if not scratch.is_root() then return pending("needs root") end
      local fd, path = new_file()
      local like = of("65534:65533")
      assert.is_true(os_.file_follow_owner(fd, like))
      assert.equal("65534:65533", owner(path))
      assert.is_true(os_.file_follow_owner(fd, (of("65534:0"))))
      assert.equal("65534:0", owner(path))
    end)

    it("does nothing where they are the same", function()
      os_.watch()
      assert.is_true(os_.file_follow_owner((new_file()), (new_file())))
      assert.equal(0, os_.counts().fchown)
    end)

    it("gives it the group alone if that is what it may", function()
      if not scratch.is_root() then return pending("needs root") end
      local fd, path = of("65534:65534")
      local like = of("0:65533")
      assert.equal("true", (probe.child.run(function()
        os_.become(65534, 65533)
        return os_.file_follow_owner(fd, like)
      end)))
      assert.equal("65534:65533", owner(path))
    end)

    it("leaves it where it may not", function()
      if not scratch.is_root() then return pending("needs root") end
      local fd, path = of("65534:65534")
      local like = of("0:0")
      assert.equal("true", (probe.child.run(function()
        os_.become(65534, 65534)
        return os_.file_follow_owner(fd, like)
      end)))
      assert.equal("65534:65534", owner(path))
    end)

    it("reports other failures", function()
      if not scratch.is_root() then return pending("needs root") end
      local fd, like = new_file(), of("65534:65534")
      os_.fail("fchown", 1, "EIO")
      assert.same({ "EIO", "fchown", "EIO" },
        failure(os_.file_follow_owner(fd, like)))
      os_.fail("fstat", 2, "EIO")
      assert.same({ "EIO", "fstat", "EIO" },
        failure(os_.file_follow_owner(fd, like)))
    end)
  end)

  describe("real_path", function()
    local function here()
      return scratch.shell("cd " .. scratch.quoted(scratch.folder())
        .. " && pwd -P")
    end

    it("names the same file from anywhere", function()
      local folder, file = here(), scratch.path()
      scratch.write(file, "")
      local name = file:match("[^/]+$")
      local text = probe.child.run(function()
        os_.chdir(folder)
        for _, path in ipairs { name, "./" .. name, folder .. "//.//" .. name }
        do
          assert.equal(folder .. "/" .. name, os_.file_real_path(path))
        end
        return "done"
      end)
      assert.equal("done", text)
      assert.equal("/", os_.file_real_path("/"))
    end)

    it("follows links", function()
      local file, link = scratch.path(), scratch.path("link")
      scratch.write(file, "")
      scratch.shell(("ln -s %s %s"):format(scratch.quoted(file),
        scratch.quoted(link)))
      assert.equal(here() .. "/" .. file:match("[^/]+$"),
        os_.file_real_path(link))
    end)

    it("says when there is no such file", function()
      for _, path in ipairs { "", scratch.path() } do
        assert.same({ "ENOENT", "realpath", "ENOENT" },
          failure(os_.file_real_path(path)))
      end
      os_.fail("realpath", 1, "ENOMEM")
      assert.same({ "ENOMEM", "realpath", "ENOMEM" },
        failure(os_.file_real_path("name")))
      assert.same({ "ESYSTEM", "realpath", "ENAMETOOLONG" },
        failure(os_.file_real_path(("x"):rep(4096))))
    end)
  end)

  describe("real_path_of_new", function()
    local folder

    before_each(function()
      folder = scratch.path("folder")
      scratch.shell("mkdir " .. scratch.quoted(folder))
      folder = os_.file_real_path(folder)
    end)

    local function link(target, name)
      scratch.shell(("ln -s %s %s"):format(scratch.quoted(target),
        scratch.quoted(folder .. "/" .. name)))
    end

    local function of(name, follows)
      return os_.file_real_path_of_new(folder .. "/" .. name, follows)
    end

    it("is that of a name in a folder that is there", function()
      assert.equal(folder .. "/new", of("new", true))
      assert.equal(folder .. "/new", of("./..//" .. folder:match("[^/]+$") .. "/new",
        true))
      assert.equal("/new", os_.file_real_path_of_new("/new", true))
      local text = probe.child.run(function()
        os_.chdir(folder)
        return os_.file_real_path_of_new("new", true)
      end)
      assert.equal(folder .. "/new", text)
      link(".", "here")
      assert.equal(folder .. "/new", of("here/new", false))
    end)

    it("is what links lead to, if they are followed", function()
      scratch.shell("mkdir " .. scratch.quoted(folder .. "/sub"))
      link("sub/two", "one")
      link("../three", "sub/two")
      link(folder .. "/sub/four", "three")
      assert.equal(folder .. "/sub/four", of("one", true))
      assert.equal(folder .. "/one", of("one", false))
      assert.equal(folder .. "/sub/two", of("sub/two", false))
    end)

    it("is that of a file that has come meanwhile", function()
      scratch.write(folder .. "/file", "")
      assert.equal(folder .. "/file", of("file", true))
    end)

    it("needs the folder and a name", function()
      link("none/file", "one")
      for _, name in ipairs { "one", "none/file", "none/", "" } do
        local path, code = of(name, true)
        assert.is_nil(path)
        assert.equal("ENOENT", code)
      end
    end)

    it("ends with the 41st link", function()
      for i = 1, 41 do link(("%d"):format(i + 1), ("%d"):format(i)) end
      assert.equal(folder .. "/42", of("2", true))
      link("self", "self")
      local ELOOP = 40
      for _, name in ipairs { "1", "self" } do
        assert.same({ "ESYSTEM", "readlink", ELOOP }, failure(of(name, true)))
      end
    end)

    it("is not longer than paths may be", function()
      local name = ("x"):rep(200)
      local dots = math.floor((4095 - #folder - 1 - #name) / 2)
      local long = folder .. ("/."):rep(dots) .. "/" .. name
      assert.equal(folder .. "/" .. name, os_.file_real_path_of_new(long, true))
      link(long, "absolute")
      assert.equal(folder .. "/" .. name, of("absolute", true))
      link(("./"):rep(1940) .. name, "relative")
      local path = folder .. ("/."):rep(100) .. "/relative"
      assert.equal("ENAMETOOLONG", failure(os_.file_real_path_of_new(path, true))[3])
      assert.equal("ENAMETOOLONG",
        failure(os_.file_real_path_of_new(("x"):rep(4096), true))[3])
    end)

    it("tells what fails", function()
      for _, call in ipairs { "readlink", "realpath" } do
        os_.fail(call, 1, "EACCES")
        assert.same({ "EACCES", call, "EACCES" }, failure(of("new", true)))
        os_.restore()
      end
    end)
  end)

  describe("read", function()
    it("reads what there is, and less only at the end", function()
      local fd = new_file("0123456789")
      assert.equal("0123", os_.file_read(fd, 4, 0))
      assert.equal("89", os_.file_read(fd, 4, 8))
      assert.equal("", os_.file_read(fd, 4, 10))
      assert.equal("", os_.file_read(fd, 4, 1000))
      assert.equal("", os_.file_read(fd, 0, 0))
    end)

    it("carries on after signals and short reads", function()
      local fd = new_file("0123456789")
      os_.short("pread", 1, 3)
      assert.equal("0123456789", os_.file_read(fd, 10, 0))
      assert.equal(2, os_.counts().pread)
      os_.fail("pread", 1, "EINTR", 2)
      assert.equal("0123456789", os_.file_read(fd, 10, 0))
      assert.equal(5, os_.counts().pread)
    end)

    it("returns nothing after an error halfway", function()
      local fd = new_file("0123456789")
      os_.short("pread", 1, 3)
      os_.fail("*", 2, "EIO")
      assert.same({ "EIO", "pread", "EIO" },
        failure(os_.file_read(fd, 10, 0)))
    end)
  end)

  describe("write", function()
    it("writes at an offset, beyond the end too", function()
      local fd, path = new_file("abc")
      assert.is_true(os_.file_write(fd, "X", 1))
      assert.is_true(os_.file_write(fd, "Y", 5))
      assert.is_true(os_.file_write(fd, "", 100))
      assert.equal("aXc\0\0Y", scratch.read(path))
    end)

    it("carries on after signals and short writes", function()
      local fd, path = new_file()
      os_.short("pwrite", 1, 4)
      assert.is_true(os_.file_write(fd, "0123456789", 2))
      assert.equal("\0\0" .. "0123456789", scratch.read(path))
      assert.equal(2, os_.counts().pwrite)
      os_.fail("pwrite", 1, "EINTR")
      assert.is_true(os_.file_write(fd, "ab", 0))
      assert.equal("ab0123456789", scratch.read(path))
      assert.equal(4, os_.counts().pwrite)
    end)

    it("takes a write of nothing for an error", function()
      local fd = new_file()
      os_.short("pwrite", 1, 0)
      assert.same({ "EIO", "pwrite of nothing", "EIO" },
        failure(os_.file_write(fd, "x", 0)))
      assert.equal(1, os_.counts().pwrite)
    end)

    it("says when the disk or the quota is full", function()
      local fd = new_file()
      for _, errno in ipairs { "ENOSPC", "EDQUOT", "EFBIG" } do
        os_.fail("pwrite", 1, errno)
        assert.same({ "ENOSPC", "pwrite", errno },
          failure(os_.file_write(fd, "x", 0)))
      end
    end)

    it("is torn where the process dies in it", function()
      local fd, path = new_file("----------")
      local _, how = probe.child.run(function()
        os_.die("pwrite", 2, 3)
        os_.file_write(fd, "whole", 0)
        os_.file_write(fd, "half", 5)
      end)
      assert.equal("signal", how)
      assert.equal("wholehal--", scratch.read(path))
    end)
  end)

  describe("sync", function()
    it("calls fdatasync once", function()
      local fd = new_file("x")
      os_.watch()
      assert.is_true(os_.file_sync(fd))
      assert.same({ "fdatasync" }, os_.trace())
    end)

    it("does not try again, whatever the failure", function()
      local fd = new_file("x")
      local codes = { EIO = "EIO", ENOSPC = "ENOSPC", EINTR = "ESYSTEM" }
      for errno, code in pairs(codes) do
        os_.restore()
        os_.fail("fdatasync", 1, errno)
        assert.same({ code, "fdatasync", errno },
          failure(os_.file_sync(fd)))
        assert.equal(1, os_.counts().fdatasync)
      end
    end)
  end)

  describe("sync_folder_of", function()
    it("syncs the folder that the name is in", function()
      local _, path = new_file()
      os_.watch()
      for _, name in ipairs { path, "/name", "name", "./name" } do
        assert.is_true(os_.file_sync_folder_of(name), name)
      end
      assert.equal(4, os_.counts().fsync)
      assert.equal(4, os_.counts().close)
    end)

    it("says when there is no such folder", function()
      local nowhere = scratch.path()
      assert.same({ "ENOENT", "open of a folder", "ENOENT" },
        failure(os_.file_sync_folder_of(nowhere .. "/name")))
      local file = scratch.write(nowhere, "")
      assert.same({ "ENOENT", "open of a folder", "ENOTDIR" },
        failure(os_.file_sync_folder_of(file .. "/name")))
      assert.same({ "ESYSTEM", "folder of a path", "ENAMETOOLONG" },
        failure(os_.file_sync_folder_of(("x/"):rep(2100) .. "name")))
    end)

    it("lets a folder be that cannot be opened or synced", function()
      local _, path = new_file()
      for _, case in ipairs {
        { "open", "EACCES" }, { "open", "EPERM" },
        { "fsync", "EINVAL" }, { "fsync", "EOPNOTSUPP" },
      } do
        os_.fail(case[1], 1, case[2])
        assert.is_true(os_.file_sync_folder_of(path), case[2])
      end
    end)

    it("reports a failed sync, and closes the folder", function()
      local _, path = new_file()
      os_.fail("fsync", 1, "EIO")
      assert.same({ "EIO", "fsync of a folder", "EIO" },
        failure(os_.file_sync_folder_of(path)))
      assert.equal(1, os_.counts().close)
    end)
  end)

  describe("allocate", function()
    it("allocates space and extends the file", function()
      local fd, path = new_file("abc")
      assert.is_true(os_.file_allocate(fd, 0, 65536))
      local _, allocated, size = os_.stat(path)
      assert.equal(65536, size)
      assert.is_true(allocated >= 65536)
      assert.equal("abc\0", os_.file_read(fd, 4, 0))
    end)

    it("carries on after signals", function()
      local fd = new_file()
      os_.fail("fallocate", 1, "EINTR", 2)
      assert.is_true(os_.file_allocate(fd, 0, 4096))
      assert.equal(3, os_.counts().fallocate)
      assert.equal(4096, number(os_.file_size(fd)))
    end)

    it("says when the disk is full", function()
      local fd = new_file()
      os_.fail("fallocate", 1, "ENOSPC")
      assert.same({ "ENOSPC", "fallocate", "ENOSPC" },
        failure(os_.file_allocate(fd, 0, 4096)))
    end)

    for _, errno in ipairs { "EOPNOTSUPP", "ENOSYS" } do
      it("writes zeros behind the end after " .. errno, function()
        local fd, path = new_file("abc")
        os_.fail("fallocate", 1, errno)
        assert.is_true(os_.file_allocate(fd, 0, 200000))
        assert.equal("abc" .. ("\0"):rep(199997), scratch.read(path))
        local _, allocated = os_.stat(path)
        assert.is_true(allocated >= 200000)
        assert.is_true(os_.counts().pwrite <= 5)
      end)
    end

    it("writes nothing within the file, and no hole before the range",
      function()
        local fd, path = new_file(("x"):rep(10000))
        os_.fail("fallocate", 1, "EOPNOTSUPP", 0)
        assert.is_true(os_.file_allocate(fd, 100, 200))
        assert.is_true(os_.file_allocate(fd, 0, 10000))
        assert.equal(0, os_.counts().pwrite)
        assert.is_true(os_.file_allocate(fd, 150000, 10))
        assert.equal(("x"):rep(10000) .. ("\0"):rep(140010),
          scratch.read(path))
        local _, allocated = os_.stat(path)
        assert.is_true(allocated >= 150010)
      end)

    it("reports it when the zeros do not fit", function()
      local fd = new_file()
      os_.fail("fallocate", 1, "EOPNOTSUPP")
      os_.fail("pwrite", 2, "ENOSPC")
      assert.same({ "ENOSPC", "pwrite", "ENOSPC" },
        failure(os_.file_allocate(fd, 0, 200000)))
    end)

    it("says when the process may not have so large a file", function()
      local fd = new_file()
      local text = probe.child.run(function()
        probe.child.ignore(SIGXFSZ)
        probe.child.limit("fsize", 65536)
        local _, code = os_.file_allocate(fd, 0, 131072)
        local _, code_of_write = os_.file_write(fd, "x", 65536)
        return code .. " " .. code_of_write
      end)
      assert.equal("ENOSPC ENOSPC", text)
    end)

    it("says when a real file system is full", function()
      local done, why = scratch.with_small_file_system("64k", function(place)
        local fd = assert(os_.file_create(place .. "/file", 384))
        assert.same({ "ENOSPC", "fallocate", "ENOSPC" },
          failure(os_.file_allocate(fd, 0, 131072)))
        assert.is_true(os_.file_allocate(fd, 0, 65536))
        assert.same({ "ENOSPC", "pwrite", "ENOSPC" },
          failure(os_.file_write(fd, ("x"):rep(4096), 65536)))
        os_.file_close(fd)
      end)
      if not done then pending(why) end
    end)
  end)

  describe("size and names", function()
    it("tells and changes the size", function()
      local fd, path = new_file("0123456789")
      assert.equal(10, number(os_.file_size(fd)))
      os_.fail("ftruncate", 1, "EINTR")
      assert.is_true(os_.file_truncate(fd, 4))
      assert.equal("0123", scratch.read(path))
      assert.is_true(os_.file_truncate(fd, 6))
      assert.equal("0123\0\0", scratch.read(path))
      os_.fail("ftruncate", 1, "EIO")
      assert.same({ "EIO", "ftruncate", "EIO" },
        failure(os_.file_truncate(fd, 0)))
    end)

    it("knows a file by any of its names", function()
      local fd, path = new_file()
      local other = scratch.path()
      assert.is_true(os_.file_link(path, other))
      local identity = { os_.file_identify(fd) }
      assert.equal(2, #identity)
      assert.same(identity, { os_.file_identify_path(path) })
      assert.same(identity, { os_.file_identify_path(other) })
      assert.are_not.same(identity, { os_.file_identify((new_file())) })
      assert.same({ "ENOENT", "stat", "ENOENT" },
        failure(os_.file_identify_path(scratch.path())))
      os_.fail("fstat", 1, "EIO")
      assert.same({ "EIO", "fstat", "EIO" }, failure(os_.file_identify(fd)))
    end)

    it("gives a further name, unless it is taken", function()
      local _, path = new_file("text")
      local taken = scratch.write(scratch.path(), "taken")
      assert.same({ "EEXIST", "link", "EEXIST" },
        failure(os_.file_link(path, taken)))
      assert.equal("taken", scratch.read(taken))
      assert.same({ "ENOENT", "link", "ENOENT" },
        failure(os_.file_link(scratch.path(), scratch.path())))
    end)

    it("tells a file system without further names from a refusal", function()
      local _, path = new_file()
      os_.fail("link", 1, "EPERM")
      assert.same({ "ENOTSUP", "link", "EOPNOTSUPP" },
        failure(os_.file_link(path, scratch.path())))
      os_.fail("link", 1, "EACCES")
      assert.same({ "EACCES", "link", "EACCES" },
        failure(os_.file_link(path, scratch.path())))
    end)

    it("gives a name to another file, in place of its own", function()
      local _, path = new_file()
      local other = scratch.write(scratch.path(), "other")
      assert.is_true(os_.file_rename(path, other))
      assert.is_nil(scratch.read(path))
      assert.not_equal("other", scratch.read(other))
      assert.same({ "ENOENT", "rename", "ENOENT" },
        failure(os_.file_rename(path, other)))
      os_.fail("rename", 1, "EACCES")
      assert.same({ "EACCES", "rename", "EACCES" },
        failure(os_.file_rename(other, path)))
    end)

    it("takes a name away", function()
      local _, path = new_file()
      assert.is_true(os_.file_unlink(path))
      assert.is_nil(scratch.read(path))
      assert.same({ "ENOENT", "unlink", "ENOENT" },
        failure(os_.file_unlink(path)))
    end)

    it("takes a local file system for one", function()
      local fd = new_file()
      local remote = scratch.shell("stat -f -c %T "
        .. scratch.quoted(scratch.folder()))
      if remote:find("nfs") or remote:find("v9fs") then
        return pending("the temporary folder is on " .. remote)
      end
      assert.is_false(os_.file_is_network(fd))
      os_.fail("fstatfs", 1, "EINTR")
      assert.is_false(os_.file_is_network(fd))
      os_.fail("fstatfs", 1, "ENOSYS")
      assert.same({ "ENOTSUP", "fstatfs", "ENOSYS" },
        failure(os_.file_is_network(fd)))
    end)

    it("knows what a file system has left, if it tells", function()
      local fd = new_file()
      local left = tonumber((os_.file_available(fd)), 16)
      local told = scratch.shell("stat -f -c '%a %S' "
        .. scratch.quoted(scratch.folder()))
      local blocks, size = told:match("(%d+) (%d+)")
      local other = blocks * size
      assert.is_true(math.abs(left - other) < 0.01 * other + 64 * 1048576,
        left .. " bytes, " .. other)
      os_.fail("fstatfs", 1, "EINTR")
      assert.truthy((os_.file_available(fd)))
      local nowhere = assert(os_.file_open("/proc/version", true))
      assert.is_nil((os_.file_available(nowhere)))
      os_.file_close(nowhere)
      os_.fail("fstatfs", 1, "ENOSYS")
      assert.same({ "ENOTSUP", "fstatfs", "ENOSYS" },
        failure(os_.file_available(fd)))
    end)

    it("knows the file systems of other machines", function()
      local fd = new_file()
      for _, magic in ipairs { 0x6969, 0x517b, 0xff534d42, 0xfe534d42,
        0x00c36400, 0x01021997, 0x5346414f, 0x6b414653 } do
        os_.pretend_file_system(magic)
        assert.is_true(os_.file_is_network(fd), magic)
      end
      for _, magic in ipairs { 0xef53, 0x01021994, 0x65735546, 0x9123683e } do
        os_.pretend_file_system(magic) -- ext4, tmpfs, FUSE, btrfs
        assert.is_false(os_.file_is_network(fd), magic)
      end
    end)

    it("keeps a store off them, unless it is allowed there", function()
      local path = scratch.path()
      assert(assert(probe.store.open(path)):close())
      os_.pretend_file_system(0x6969)
      assert.equal("ENOTSUP", (select(2, probe.store.open(path))))
      local db = assert(probe.store.open(path, { allow_network = true }))
      assert(db:put("k", "v"))
      assert(db:close())
    end)
  end)
end)
