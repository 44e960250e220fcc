-- SPDX-License-Identifier: MIT
--
-- open(): each option, each wrong option, and files that are not stores.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"

-- open() fails as the world does: nil, a message with the path, and the code.
local function refused(code, path, options)
  local db, message, found = mmcmap.open(path, options)
  if db then db:close() end
  assert.is_nil(db)
  assert.equal(code, found)
  assert.equal("string", type(message))
  assert.is_truthy(message:find(path, 1, true),
    "the message does not name the file: " .. message)
  assert.is_true(#message > #path + 4, "the message tells no reason")
  return message
end

-- open() raises, as for a mistake in the program.
local function raises(words, ...)
  local arguments = { ... }
  local count = select("#", ...)
  helper.raises(words, function()
    local db = mmcmap.open((unpack or table.unpack)(arguments, 1, count)) -- luacheck: ignore 113
    if db then db:close() end
  end)
end

describe("open", function()
  local path

  before_each(function() path = helper.path() end)
  after_each(helper.close_all)

  it("makes a file that is not there", function()
    local db = assert(mmcmap.open(path))
    assert.is_true(helper.exists(path))
    assert.equal(0, #db)
    assert.is_true(db:close())
    assert.is_true(helper.exists(path))
  end)

  it("makes a small file", function()
    local db = helper.store(nil, path)
    db:put("hello", "world")
    assert.is_true(db:size() <= 131072)
    assert.equal(db:size(), db:stat().size_bytes)
    db:close()
    assert.is_true(#helper.read(path) <= 131072)
  end)

  it("takes nil and an empty table for no options", function()
    assert.is_true(assert(mmcmap.open(path, nil)):close())
    assert.is_true(assert(mmcmap.open(path, {})):close())
  end)

  it("takes paths with spaces, quotes and other bytes", function()
    local odd = helper.path(" it's \"ö\" \255.mmc")
    local db = helper.store(nil, odd)
    db:put("k", "v")
    assert.equal("mmcmap (" .. odd .. ")", tostring(db))
    db:close()
    assert.equal("v", helper.store(nil, odd):get("k"))
  end)

  it("takes options by inheritance", function()
    local defaults = { durability = "manual" }
    local db = helper.store(setmetatable({}, { __index = defaults }), path)
    assert.equal("manual", db:stat().durability)
  end)

  describe("raises for", function()
    it("a path that is none", function()
      raises("string expected")
      raises("string expected", nil)
      raises("string expected", {})
      raises("zero byte", path .. "\0x")
      raises("empty", "")
    end)

    it("options that are no table", function()
      raises("table expected", path, 5)
      raises("table expected", path, "readonly")
      raises("table expected", path, true)
    end)

    it("options that do not exist", function()
      raises("'durabilty'", path, { durabilty = "sync" })
      raises("'ttl'", path, { readonly = true, ttl = 5 })
      raises("got number", path, { "readonly" })
      raises("got boolean", path, { [true] = true })
    end)

    it("options of a wrong type", function()
      for _, name in ipairs { "readonly", "create", "exclusive", "lock" } do
        raises("'" .. name .. "' must be a boolean, got string", path,
          { [name] = "true" })
        raises("'" .. name .. "' must be a boolean, got number", path,
          { [name] = 1 })
      end
      for _, name in ipairs { "flush_interval", "timeout", "mode",
        "max_size" } do
        raises("'" .. name .. "' must be a number, got boolean", path,
          { [name] = true })
        raises("'" .. name .. "' must be a number, got string", path,
          { [name] = "5" })
      end
      for _, name in ipairs { "durability", "hash" } do
        raises("'" .. name .. "' must be a string, got boolean", path,
          { [name] = true })
        raises("'" .. name .. "' must be a string, got number", path,
          { [name] = 1 })
      end
      raises("'codec' must be an object", path, { codec = "cjson" })
      raises("'codec' must be an object", path, { codec = print })
    end)

    it("options out of their range", function()
      local nan, huge = 0 / 0, math.huge
      raises("'durability' must be 'async', 'sync' or 'manual', got 'fast'",
        path, { durability = "fast" })
      raises("'hash'", path, { hash = "md5" })
      raises("'hash'", path, { hash = "" })
      raises("'flush_interval' is out of range", path, { flush_interval = -1 })
      raises("'flush_interval' is out of range", path,
        { flush_interval = huge })
      raises("'flush_interval' is out of range", path, { flush_interval = nan })
      raises("'flush_interval' must be more than 0", path, { flush_interval = 0 })
      raises("'timeout' is out of range", path, { timeout = -0.001 })
      raises("'timeout' is out of range", path, { timeout = nan })
      raises("'mode'", path, { mode = 600 }) -- octal digits read as decimal
      raises("'mode'", path, { mode = -1 })
      raises("'mode'", path, { mode = 0.5 })
      raises("'mode'", path, { mode = nan })
      raises("'max_size'", path, { max_size = 131071 })
      raises("'max_size'", path, { max_size = -131072 })
      raises("'max_size'", path, { max_size = 200000.5 })
      raises("'max_size'", path, { max_size = huge })
      raises("'max_size'", path, { max_size = nan })
      raises("'lock'", path, { lock = false })
    end)

    it("a codec that lacks a function", function()
      raises("no function 'encode'", path, { codec = {} })
      raises("no function 'decode'", path, { codec = { encode = print } })
      raises("no function 'encode'", path, { codec = { decode = print } })
      raises("no function 'decode'", path,
        { codec = { encode = print, decode = 5 } })
    end)

    it("and makes no file then", function()
      pcall(mmcmap.open, path, { hash = "md5" })
      assert.is_false(helper.exists(path))
    end)
  end)

  describe("durability", function()
    for _, durability in ipairs { "async", "sync", "manual" } do
      it(durability .. " keeps what was put", function()
        local db = helper.store({ durability = durability }, path)
        assert.equal(durability, db:stat().durability)
        for i = 1, 30 do assert.is_true(db:put("k" .. i, i)) end
        assert.is_true(db:delete("k7"))
        assert.is_true(db:close())
        db = helper.store(nil, path)
        assert.equal(29, #db)
        assert.equal("30", db:get("k30"))
        assert.is_false(db:has("k7"))
      end)
    end

    it("is async unless something else is asked for", function()
      assert.equal("async", helper.store(nil, path):stat().durability)
    end)

    it("sync has synced when put returns", function()
      local db = helper.store({ durability = "sync" }, path)
      local before = db:stat().sync_count
      db:put("a", "1")
      db:put("b", "2")
      assert.is_true(db:stat().sync_count >= before + 2)
    end)

    it("manual syncs at sync()", function()
      local db = helper.store({ durability = "manual" }, path)
      local before = db:stat()
      db:put("a", "1")
      assert.equal(before.commit_count, db:stat().commit_count)
      assert.is_true(db:sync())
      assert.is_true(db:stat().commit_count > before.commit_count)
      assert.is_true(db:stat().durable_epoch > before.durable_epoch)
    end)
  end)

  describe("flush_interval", function()
    it("takes fractions of a second", function()
      for _, seconds in ipairs { 0.0001, 0.01, 0.1, 1, 2.5, 3600 } do
        local db = helper.store({ flush_interval = seconds }, path)
        assert.is_true(db:put("k", seconds))
        assert.is_true(db:close())
      end
    end)

    it("lets async commit by itself", function()
      local db = helper.store({ flush_interval = 0.01 }, path)
      local before = db:stat().commit_count
      db:put("k", "v")
      for _ = 1, 500 do
        if db:stat().commit_count > before then break end
        os.execute("sleep 0.01")
      end
      assert.is_true(db:stat().commit_count > before)
    end)
  end)

  describe("the thread that commits", function()
    -- The signals that each thread of that name blocks, a bit each.
    local function threads()
      local pid = helper.read("/proc/self/stat"):match("^%d+")
      local found = {}
      for id in helper.output_of("ls /proc/" .. pid .. "/task"):gmatch("%d+") do
        local status = helper.read(("/proc/%s/task/%s/status"):format(pid, id)) or ""
        if status:find("^Name:%s*mmcmap%-flusher\n") then
          found[#found + 1] = status:match("\nSigBlk:%s*%x*(%x%x%x%x%x%x%x%x)\n")
        end
      end
      return found
    end

    -- A thread that was waited for may be told of for a moment yet.
    local function are_gone()
      for _ = 1, 100 do
        if #threads() == 0 then return true end
        os.execute("sleep 0.01")
      end
    end

    it("is there from the first change to close, and takes no signal", function()
      local db = helper.store(nil, path)
      assert.is_nil(db:get("k"))
      assert.is_true(are_gone())
      db:put("k", "v")
      local found = threads()
      assert.equal(1, #found)
      -- All of the first 31 but KILL and STOP; the last bit is the C library's.
      assert.truthy(found[1]:find("^[7f]ffbfeff$"), found[1])
      db:put("k", "w")
      assert.equal(1, #threads())
      db:close()
      assert.is_true(are_gone())
    end)

    it("is not there without async", function()
      for _, durability in ipairs { "sync", "manual" } do
        local db = helper.store({ durability = durability }, path)
        db:put("k", "v")
        assert.is_true(are_gone())
        db:close()
      end
    end)
  end)

  describe("readonly", function()
    it("reads and refuses to write", function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      db:close()
      local bytes = helper.read(path)

      db = helper.store({ readonly = true }, path)
      assert.is_true(db:stat().readonly)
      assert.equal("v", db:get("k"))
      assert.equal("v", db.k)
      assert.equal(1, #db)
      assert.same({ k = "v" }, (helper.records(db)))
      for _, name in ipairs { "k", "new" } do
        local ok, message, code = db:put(name, "w")
        assert.is_nil(ok)
        assert.equal("EREADONLY", code)
        assert.is_truthy(message:find(path, 1, true))
      end
      local ok, _, code = db:delete("k")
      assert.is_nil(ok)
      assert.equal("EREADONLY", code)
      assert.has_error(function() db.k = "w" end)
      assert.has_error(function() db.k = nil end)
      ok, _, code = db:remove()
      assert.is_nil(ok)
      assert.equal("EREADONLY", code)
      assert.equal("v", db:get("k"))
      assert.is_true(db:close())
      assert.is_true(bytes == helper.read(path), "the file has changed")
    end)

    it("does not make a file", function()
      refused("ENOENT", path, { readonly = true })
      assert.is_false(helper.exists(path))
    end)

    it("can go without a lock", function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      db:close()
      db = helper.store({ readonly = true, lock = false }, path)
      assert.equal("v", db:get("k"))
    end)

    it("is kept per handle of one store", function()
      local writer = helper.store(nil, path)
      local reader = helper.store({ readonly = true }, path)
      writer:put("k", "v")
      assert.equal("v", reader:get("k"))
      assert.equal("EREADONLY", select(3, reader:put("k", "w")))
      assert.is_true(writer:put("k", "x"))
      assert.equal("x", reader:get("k"))
    end)
  end)

  describe("create", function()
    it("false refuses a file that is not there", function()
      refused("ENOENT", path, { create = false })
      assert.is_false(helper.exists(path))
    end)

    it("false opens a file that is there", function()
      helper.store(nil, path):close()
      assert.is_true(assert(mmcmap.open(path, { create = false })):close())
    end)
  end)

  describe("exclusive", function()
    it("makes a new file", function()
      assert.is_true(assert(mmcmap.open(path, { exclusive = true })):close())
    end)

    it("refuses a file that is there", function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      refused("EEXIST", path, { exclusive = true }) -- while it is open
      db:close()
      refused("EEXIST", path, { exclusive = true })
      assert.equal("v", helper.store(nil, path):get("k"))
    end)

    it("makes no sense where nothing is to be made", function()
      local message = "'exclusive' is for a file that is to be made"
      raises(message, path, { exclusive = true, readonly = true })
      raises(message, path, { exclusive = true, create = false })
      assert.is_false(helper.exists(path))
    end)

    it("refuses any other file, too", function()
      helper.write(path, "something")
      refused("EEXIST", path, { exclusive = true })
      assert.equal("something", helper.read(path))
    end)
  end)

  describe("mode", function()
    local function mode_of(file)
      return helper.output_of("stat -c %a " .. helper.quoted(file)):match("%d+")
    end

    it("is 600 unless something else is asked for", function()
      helper.store(nil, path)
      assert.equal("600", mode_of(path))
    end)

    it("gives a new file its permissions", function()
      helper.store({ mode = tonumber("640", 8) }, path)
      local umask = tonumber(helper.output_of("umask"):match("%d+"), 8)
      if umask == tonumber("22", 8) then assert.equal("640", mode_of(path)) end
    end)

    it("leaves a file alone that is there", function()
      helper.store(nil, path):close()
      helper.store({ mode = tonumber("644", 8) }, path)
      assert.equal("600", mode_of(path))
    end)
  end)

  describe("max_size", function()
    local function fill(db)
      for i = 1, 100000 do
        local ok, message, code = db:put("key " .. i, ("x"):rep(1000))
        if not ok then return i - 1, message, code end
      end
    end

    it("ends put with EFULL; what is there can be read", function()
      local max_size = 4 * 1024 * 1024
      local db = helper.store({ max_size = max_size }, path)
      assert.equal(max_size, db:stat().max_size_bytes)
      local count, message, code = fill(db)
      assert.equal("EFULL", code)
      assert.is_truthy(message:find(path, 1, true))
      assert.is_true(count > 100, "only " .. tostring(count) .. " records")
      assert.equal(count, #db)
      assert.is_true(db:size() <= max_size)
      for i = 1, count do assert.equal(1000, #db:get("key " .. i)) end
      assert.equal(count, select(2, helper.records(db)))
      local ok, raised = pcall(function() db.another = ("x"):rep(300000) end)
      assert.is_false(ok)
      assert.is_truthy(raised:find(path, 1, true))
      assert.is_true(db:close())
      db = helper.store(nil, path)
      assert.equal(count, #db)
      assert.is_true(db:put("another", "x"))
    end)

    -- Cleaning had moved what was alive to another segment, which had room left then; but
    -- as no more segments could be begun than before, the put failed, and worked the next
    -- time.
    it("ends only such puts as fail the next time, too", function()
      local db = helper.store({ max_size = 1024 * 1024, durability = "manual" }, path)
      local function put(key, value)
        if db:put(key, value) then return true end
        local ok, _, code = db:put(key, value)
        assert.is_nil(ok)
        assert.equal("EFULL", code)
      end
      local count = 0
      while put(count, ("x"):rep(3000)) do count = count + 1 end
      for _ = 1, 5 do
        for i = 0, count - 1, 2 do assert(db:delete(i) ~= nil) end
        for i = 0, count - 1, 2 do
          if not put(i, ("y"):rep(3000)) then break end
        end
      end
      assert.is_true(db:check())
    end)

    it("refuses one value that is too large for it", function()
      local db = helper.store({ max_size = 2 * 1024 * 1024 }, path)
      db:put("small", "1")
      local ok, _, code = db:put("large", ("x"):rep(3 * 1024 * 1024))
      assert.is_nil(ok)
      assert.equal("EFULL", code)
      assert.equal("1", db:get("small"))
      assert.is_nil(db:get("large"))
      assert.equal(1, #db)
    end)

    it("below the length of the file ends put alone", function()
      local db = helper.store({ durability = "manual" }, path)
      for i = 1, 3 do assert(db:put("key " .. i, ("x"):rep(1024 * 1024))) end
      assert(db:close())
      for _, readonly in ipairs { false, true } do
        db = helper.store({ max_size = 131072, readonly = readonly }, path)
        for i = 1, 3 do assert.equal(1024 * 1024, #db:get("key " .. i)) end
        local _, _, code = db:put("another", ("x"):rep(1024 * 1024))
        assert.equal(readonly and "EREADONLY" or "EFULL", code)
        assert.is_true(db:close())
      end
    end)

    it("0 is no limit", function()
      assert.equal(0, helper.store({ max_size = 0 }, path):stat().max_size_bytes)
    end)
  end)

  describe("hash", function()
    for _, hash in ipairs { "xxh3", "siphash", "murmur3" } do
      it(hash .. " finds everything again", function()
        local db = helper.store({ hash = hash }, path)
        assert.equal(hash, db:stat().hash)
        for i = 1, 2000 do db:put("key " .. i, i) end
        db:close()
        db = helper.store(nil, path)
        assert.equal(hash, db:stat().hash)
        assert.equal(2000, #db)
        for i = 1, 2000 do assert.equal(tostring(i), db:get("key " .. i)) end
      end)
    end

    it("is fixed when the file is made", function()
      helper.store({ hash = "siphash" }, path):close()
      assert.equal("siphash", helper.store({ hash = "xxh3" }, path):stat().hash)
    end)
  end)

  describe("refuses", function()
    it("a file that is something else, and leaves it alone", function()
      for _, bytes in ipairs { "x", "hello, world\n", ("\0"):rep(70000),
        helper.bytes(300000), "SQLite format 3\0" .. ("\0"):rep(5000) } do
        helper.write(path, bytes)
        local message = refused("EFORMAT", path)
        assert.is_truthy(message:find("not a mmcmap", 1, true), message)
        assert.is_true(helper.read(path) == bytes)
      end
    end)

    it("a folder", function()
      local folder = helper.folder()
      assert.is_nil((mmcmap.open(folder)))
      assert.equal("string", type((select(3, mmcmap.open(folder)))))
    end)

    it("a path in a folder that is not there", function()
      refused("ENOENT", helper.temporary_folder() .. "/nowhere/a.mmc")
    end)

    it("a path below a file", function()
      helper.write(path, "")
      assert.is_nil((mmcmap.open(path .. "/a.mmc")))
    end)

    it("a file without permission", function()
      if helper.is_root() then
        pending("root may read every file")
        return
      end
      helper.store(nil, path):close()
      os.execute("chmod 000 " .. helper.quoted(path))
      refused("EACCES", path)
    end)

    it("a folder without permission", function()
      if helper.is_root() then
        pending("root may write to every folder")
        return
      end
      local folder = helper.folder()
      os.execute("chmod 555 " .. helper.quoted(folder))
      refused("EACCES", folder .. "/a.mmc")
    end)
  end)

  it("makes a store of an empty file", function()
    helper.write(path, "")
    local db = helper.store(nil, path)
    assert.equal(0, #db)
    assert.is_true(db:put("k", "v"))
    assert.is_true(db:close())
    assert.equal("v", helper.store(nil, path):get("k"))
  end)

  it("does not make one if it may only read", function()
    helper.write(path, "")
    refused("EFORMAT", path, { readonly = true })
    assert.equal("", helper.read(path))
  end)

  describe("one path opened twice in one process", function()
    it("is one store", function()
      local a, b = helper.store(nil, path), helper.store(nil, path)
      a:put("k", "v")
      assert.equal("v", b:get("k"))
      b.k = nil
      assert.is_false(a:has("k"))
      a:put("x", "1")
      assert.equal(1, #b)
      assert.equal(a:version(), b:version())
    end)

    it("stays open until the last handle is closed", function()
      local a, b = helper.store(nil, path), helper.store(nil, path)
      assert.is_true(a:close())
      assert.is_true(b:put("k", "v"))
      assert.equal("v", b:get("k"))
      assert.has_error(function() a:get("k") end)
      assert.is_true(b:close())
      assert.equal("v", helper.store(nil, path):get("k"))
    end)

    it("is one store by another name, too", function()
      local a = helper.store(nil, path)
      local other = helper.path()
      os.execute(("ln -s %s %s"):format(helper.quoted(path),
        helper.quoted(other)))
      local b = helper.store(nil, other)
      a:put("k", "v")
      assert.equal("v", b:get("k"))
    end)
  end)

  describe("by a symbolic link that leads nowhere", function()
    local folder

    before_each(function()
      folder = helper.folder()
      path = folder .. "/link"
    end)

    local function link(target, name)
      helper.run("ln -s %s %s", target, folder .. "/" .. name)
    end

    local function names()
      return (helper.run("ls %s", folder):gsub("\n", " "))
    end

    it("makes the file that it names, and the lock file there", function()
      helper.run("mkdir %s", folder .. "/sub")
      for _, target in ipairs { "sub/store", "sub/../sub/store",
        folder .. "/sub/store", "other" } do
        link(target, "link")
        if target == "other" then link("sub/another", "other") end
        if target == "other" then link("store", "sub/another") end
        local a = helper.store({ timeout = 0 }, path)
        assert.is_true(helper.exists(folder .. "/sub/store-lock"))
        assert.is_false(helper.exists(path .. "-lock"))
        local b = helper.store({ timeout = 0 }, folder .. "/sub/store")
        a:put("k", "v")
        assert.equal("v", b:get("k"))
        helper.close_all()
        assert.equal("v", helper.store(nil, path):get("k"))
        helper.close_all()
        helper.run("rm -f %s %s", folder .. "/sub/store", folder .. "/sub/store-lock")
        helper.run("rm %s", path)
      end
    end)

    it("says so if the folder is not there", function()
      link("none/store", "link")
      local message = refused("ENOENT", path)
      assert.is_truthy(message:find("folder", 1, true), message)
      message = refused("ENOENT", folder .. "/none/store")
      assert.is_truthy(message:find("folder", 1, true), message)
      assert.equal("link", names())
    end)

    it("makes nothing that is to be there, or new by that name", function()
      link("store", "link")
      refused("ENOENT", path, { create = false })
      refused("ENOENT", path, { readonly = true })
      refused("EEXIST", path, { exclusive = true })
      assert.equal("link", names())
    end)

    it("removes the file, not the link", function()
      link("store", "link")
      local db = helper.store(nil, path)
      assert.equal("link store store-lock ", names() .. " ")
      assert.is_true(db:remove())
      assert.equal("link", names())
    end)

    it("refuses a circle", function()
      link("link", "link")
      refused("ESYSTEM", path)
      assert.equal("link", names())
    end)
  end)

  describe("a file that is there already", function()
    local function write(bytes)
      local file = assert(io.open(path, "wb"))
      file:write(bytes)
      file:close()
    end

    -- 64 KiB with zeros behind the first page were taken for an unfinished
    -- store, and written over.
    it("is left alone if it is somebody else's, of a new store's size",
      function()
        for _, at in ipairs { 0, 5000, 9000 } do
          local bytes = ("\0"):rep(at) .. "precious" ..
            ("\0"):rep(65536 - 8 - at)
          write(bytes)
          local db, _, code = mmcmap.open(path)
          assert.is_nil(db, at)
          assert.equal("EFORMAT", code)
          assert.equal(bytes, helper.read(path))
        end
      end)

    it("becomes a store if it ends in its first allocation", function()
      write(("\0"):rep(4096))
      local db = helper.store(nil, path)
      assert.is_true(db:put("k", "v"))
    end)
  end)

  describe("lock = false, then a handle that wants the lock", function()
    -- The second one shared the store of the first, without a lock, and
    -- another process could write to the file under it.
    it("is a store of its own", function()
      local db = helper.store(nil, path)
      db:put("k", "before")
      db:close()
      local unlocked = helper.store({ readonly = true, lock = false }, path)
      local again = helper.store({ readonly = true, lock = false }, path)
      db = helper.store(nil, path)
      assert.is_true(db:put("k", "after"))
      assert.equal("after", db:get("k"))
      -- What nobody was to write: only that nothing breaks is promised.
      assert.is_string(unlocked:get("k"))
      unlocked:close()
      again:close()
      assert.equal("after", db:get("k"))
    end)
  end)
end)
