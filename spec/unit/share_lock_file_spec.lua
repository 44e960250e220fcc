-- SPDX-License-Identifier: MIT
--
-- The lock file: how it is made and mapped, who has begun opening, and which
-- connection owns which chunk of the table. Two connections of one process are
-- to each other as those of two processes.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local share = probe.share

local HEADER, CHUNK = 4096, 4096
local VIEW = 64 * 1024 * 1024
local FULL_FIRST = HEADER + CHUNK
local MAGIC = "mmclock\n"
local EMPTY = MAGIC .. ("\0"):rep(FULL_FIRST - #MAGIC) -- after a reset

describe("share.lock_file", function()
  local data, path, opened

  before_each(function()
    data = scratch.write(scratch.path("data"), "the data file")
    path = data .. "-lock"
    opened = {}
  end)

  after_each(function()
    probe.os.restore()
    for _, connection in ipairs(opened) do connection:close() end
  end)

  local function connect()
    local connection = assert(share.connect(path, data))
    opened[#opened + 1] = connection
    return connection
  end

  local function permissions_of(name)
    return ("%o"):format((probe.os.stat(name)))
  end

  local function size_of(name)
    return (select(3, probe.os.stat(name)))
  end

  -- ---- Making it --------------------------------------------------------------

  describe("opening", function()
    it("makes it with the data file's permission bits", function()
      for _, mode in ipairs { "600", "640", "666", "664" } do
        scratch.shell(("chmod %s %s"):format(mode, scratch.quoted(data)))
        local umask = probe.os.umask(63) -- 077
        connect():close()
        probe.os.umask(umask)
        assert.equal(mode, permissions_of(path))
        os.remove(path)
      end
    end)

    it("leaves the permission bits of one that is there", function()
      connect():close()
      scratch.shell("chmod 644 " .. scratch.quoted(path))
      connect():close()
      assert.equal("644", permissions_of(path))
    end)

    it("makes room for the header and a chunk, which are zero", function()
      local connection = connect()
      local _, allocated, size = probe.os.stat(path)
      assert.equal(FULL_FIRST, size)
      assert.is_true(allocated >= FULL_FIRST)
      assert.equal(("\0"):rep(FULL_FIRST), scratch.read(path))
      assert.same({ VIEW, FULL_FIRST }, { connection:size() })
      assert.is_true(connection:has_chunk(0))
      assert.is_false(connection:has_chunk(1))
    end)

    it("shows all connections the same bytes, and names each", function()
      local first, second = connect(), connect()
      first:set("live.tick", 77)
      assert.equal(first:get("live.tick"), second:get("live.tick"))
      assert.not_equal(first:id(), second:id())
      assert.not_equal(("0"):rep(16), first:id())
      second:set("live.tick", 78)
      assert.equal(("%016x"):format(78), first:get("live.tick"))
    end)

    it("keeps what a connection has left", function()
      local connection = connect()
      connection:set("change.count", 99)
      connection:close()
      assert.equal(("%016x"):format(99), connect():get("change.count"))
    end)

    it("makes one whole that is empty, cut off, or holds anything", function()
      local garbage = MAGIC .. ("\255garbage"):rep(1000)
      for _, before in ipairs { "", "\0", ("\0"):rep(100), MAGIC,
        ("\0"):rep(64) .. garbage, garbage:sub(1, 4096), garbage:sub(1, 5000),
        garbage } do
        scratch.write(path, before)
        local connection = connect()
        local after = scratch.read(path)
        assert.equal(math.max(#before, FULL_FIRST), #after)
        assert.equal(before, after:sub(1, #before))
        assert.is_nil(after:find("[^%z]", #before + 1))
        assert.is_true(connection:has_chunk(0))
        connection:reset()
        assert.equal(EMPTY, scratch.read(path))
        connection:close()
      end
    end)

    it("leaves a file alone that begins with anything but the magic or zeros",
      function()
        for _, before in ipairs { "x", "precious notes\n", MAGIC:sub(1, 7),
          MAGIC:sub(1, 7) .. "x", "\0\0\0\0\0\0\0\1", ("\0"):rep(8) .. "notes",
          ("\0"):rep(63) .. "x", ("\255"):rep(9000) } do
          scratch.write(path, before)
          probe.os.watch()
          local ok, code, what = share.connect(path, data)
          local calls = table.concat(probe.os.trace(), " ")
          probe.os.restore()
          assert.is_nil(ok)
          assert.equal("EFORMAT", code)
          assert.is_truthy(what:find("move it away", 1, true), what)
          assert.equal(before, scratch.read(path))
          assert.is_nil(calls:find("fallocate") or calls:find("pwrite")
            or calls:find("ftruncate") or calls:find("fchown")
            or calls:find("fchmod"))
        end
      end)

    -- Somebody else may be making it one while we look.
    it("sees the magic if it sees what was written after it", function()
      local child = probe.child.start(function()
        probe.child.say("begun")
        for _ = 1, 5000 do
          os.remove(path)
          local own = share.connect(path, data)
          if own then
            own:reset()
            own:set("device", 7)
            own:close()
          end
        end
        probe.child.hear()
      end)
      assert.equal("begun", child:line())
      for _ = 1, 5000 do
        local connection, code = share.connect(path, data)
        assert.not_equal("EFORMAT", code)
        if connection then connection:close() end
      end
      child:tell("end")
      child:wait()
    end)

    it("refuses what is not a regular file", function()
      local function code_of() return (select(2, share.connect(path, data))) end
      scratch.shell("mkdir " .. scratch.quoted(path))
      assert.equal("EFORMAT", code_of())
      scratch.shell("rmdir " .. scratch.quoted(path))
      scratch.shell(("ln -s %s %s"):format(scratch.quoted(data),
        scratch.quoted(path)))
      assert.equal("EFORMAT", code_of())
      os.remove(path)
      scratch.shell("mkfifo " .. scratch.quoted(path))
      assert.equal("EFORMAT", code_of())
      os.remove(path)
    end)

    it("needs the folder", function()
      local ok, code = share.connect(scratch.folder() .. "/none/lock", data)
      assert.is_nil(ok)
      assert.equal("ENOENT", code)
    end)
  end)

  -- ---- Failing ----------------------------------------------------------------

  -- Descriptors, and mappings of the file, that this process has.
  local function held()
    local _, mappings = scratch.read("/proc/self/maps"):gsub(
      path:gsub("%p", "%%%0"), "")
    return ("%d descriptors, %d mappings"):format(probe.os.descriptor_count(),
      mappings)
  end

  it("gives back everything, whichever system call of opening fails",
    function()
      for _, is_new in ipairs { true, false } do
        connect():close()
        if is_new then os.remove(path) end
        collectgarbage()
        local before = held()
        probe.os.watch()
        connect():close()
        local calls = probe.os.trace()
        probe.os.restore()
        assert.is_true(#calls > 10)
        local failures = 0
        for n = 1, #calls do
          if is_new then os.remove(path) end
          probe.os.fail("*", n, "EIO")
          local connection, code = share.connect(path, data)
          probe.os.restore()
          if connection then
            connection:close()
          else
            failures = failures + 1
            assert.is_string(code)
          end
          collectgarbage() -- what Lua has open for itself
          assert.equal(before, held(), ("call %d, %s"):format(n, calls[n]))
          connect():close()
        end
        assert.is_true(failures > 5)
      end
    end)

  it("tells that the disk is full, unless the room is there already",
    function()
      probe.os.fail("fallocate", 1, "ENOSPC", 0)
      local ok, code = share.connect(path, data)
      assert.is_nil(ok)
      assert.equal("ENOSPC", code)
      probe.os.restore()
      connect():close()
      probe.os.fail("fallocate", 1, "ENOSPC", 0)
      connect()
    end)

  it("takes a smaller view where addresses are short", function()
    probe.os.fail("mmap", 1, "ENOMEM", 13)
    local connection = connect()
    assert.equal(FULL_FIRST, (connection:size()))
    assert.is_true(connection:take_chunk(0))
    local ok, code = connection:take_chunk(1)
    assert.is_nil(ok)
    assert.equal("EADDRESS", code)
    assert.equal(FULL_FIRST, size_of(path))
    -- Others, who see more, may have more chunks; they are none to this one.
    local other = connect()
    assert.is_true(other:take_chunk(1))
    assert.is_true(other:has_chunk(1))
    assert.is_false(connection:has_chunk(1))
  end)

  it("cannot be opened where not even the smallest view is granted",
    function()
      probe.os.fail("mmap", 1, "ENOMEM", 0)
      local ok, code = share.connect(path, data)
      assert.is_nil(ok)
      assert.equal("EADDRESS", code)
    end)

  -- ---- Opening, one at a time -------------------------------------------------

  it("lets one connection at a time be opening", function()
    local first, second = connect(), connect()
    assert.is_true(first:begin_opening())
    local ok, code = second:begin_opening()
    assert.is_nil(ok)
    assert.equal("EBUSY", code)
    assert.equal("EBUSY", select(2, second:begin_opening(30)))
    first:end_opening()
    assert.is_true(second:begin_opening())
    assert.equal("EBUSY", select(2, first:begin_opening()))
    second:close()
    assert.is_true(first:begin_opening())
    first:end_opening()
  end)

  it("waits for another process that is opening", function()
    local child = probe.child.start(function()
      local own = assert(share.connect(path, data))
      assert(own:begin_opening())
      probe.child.say("begun")
      probe.os.sleep_ms(50)
      own:end_opening()
      probe.child.hear()
    end)
    local connection = connect()
    assert.equal("begun", child:line())
    assert.is_true(connection:begin_opening(60000))
    child:tell("end")
    child:wait()
  end)

  it("is not held up by a process that was killed while opening", function()
    local child = probe.child.start(function()
      local own = assert(share.connect(path, data))
      assert(own:begin_opening())
      probe.child.say("begun")
      probe.child.hear()
    end)
    local connection = connect()
    assert.equal("begun", child:line())
    assert.equal("EBUSY", select(2, connection:begin_opening()))
    child:kill()
    child:wait()
    assert.is_true(connection:begin_opening())
    connection:end_opening()
  end)

  -- ---- Chunks -----------------------------------------------------------------

  describe("chunks", function()
    it("belong to one connection, and are given back", function()
      local first, second = connect(), connect()
      assert.is_true(first:take_chunk(0))
      assert.is_false(second:take_chunk(0))
      assert.is_true(second:take_chunk(1))
      assert.is_false(first:take_chunk(1))
      assert.equal(2, first:get("chunk_count"))
      first:give_chunk(0)
      assert.is_true(second:take_chunk(0))
      assert.is_false(first:take_chunk(0))
      second:give_chunk(0)
      assert.is_true(first:take_chunk(0))
      assert.equal(2, second:get("chunk_count"))
    end)

    it("are counted up to the last that was ever taken", function()
      local first, second = connect(), connect()
      assert.is_true(first:take_chunk(4))
      assert.equal(5, second:get("chunk_count"))
      assert.is_true(second:take_chunk(2))
      assert.equal(5, second:get("chunk_count"))
      first:close()
      assert.equal(5, second:get("chunk_count"))
      assert.is_true(second:take_chunk(4))
      assert.equal(5, second:get("chunk_count"))
    end)

    it("of others are seen, one's own are not", function()
      local first, second = connect(), connect()
      assert.is_true(first:is_unused())
      assert.is_true(first:begin_opening()) -- is no chunk
      assert.is_true(second:is_unused())
      first:end_opening()
      assert.is_true(first:take_chunk(0))
      assert.is_true(first:is_unused())
      assert.is_false(second:is_unused())
      assert.is_true(second:take_chunk(1000))
      assert.is_false(first:is_unused())
      first:give_chunk(0)
      assert.is_true(second:is_unused())
      assert.is_false(first:is_unused())
      second:close()
      assert.is_true(first:is_unused())
    end)

    it("make the file longer, for all connections", function()
      local first, second = connect(), connect()
      for index = 0, 40 do
        assert.is_true(first:take_chunk(index))
        assert.is_true(size_of(path) >= HEADER + (index + 1) * CHUNK)
        assert.is_true(second:has_chunk(index))
      end
      assert.is_false(second:has_chunk(41))
      assert.equal(41, second:get("chunk_count"))
      assert.equal(0, second:chunk(40).state)
      local _, allocated, size = probe.os.stat(path)
      assert.equal(HEADER + 41 * CHUNK, size)
      assert.is_true(allocated >= size)
    end)

    it("end with the view", function()
      local connection = connect()
      local last = (VIEW - HEADER) / CHUNK - 1
      local ok, code = connection:take_chunk(last + 1)
      assert.is_nil(ok)
      assert.equal("EADDRESS", code)
      assert.equal("EADDRESS", select(2, connection:take_chunk(4294967295)))
      assert.is_false(connection:has_chunk(4294967295))
      assert.is_true(connect():take_chunk(last))
    end)

    it("are not taken where the file cannot grow, nor kept locked", function()
      local first, second = connect(), connect()
      assert.is_true(first:take_chunk(0))
      probe.os.fail("fallocate", 1, "ENOSPC", 0)
      local ok, code = first:take_chunk(1)
      assert.is_nil(ok)
      assert.equal("ENOSPC", code)
      probe.os.restore()
      assert.equal(1, first:get("chunk_count"))
      assert.is_false(first:has_chunk(1))
      assert.is_true(second:take_chunk(1))
      assert.is_false(first:take_chunk(1))
    end)

    it("are not taken where the kernel refuses the lock", function()
      local connection = connect()
      probe.os.fail("lock", 1, "ENOLCK")
      local ok, code = connection:take_chunk(0)
      probe.os.restore()
      assert.is_nil(ok)
      assert.is_string(code)
      assert.equal(0, connection:get("chunk_count"))
    end)

    it("are given back when a process is killed", function()
      local child = probe.child.start(function()
        local own = assert(share.connect(path, data))
        assert(own:take_chunk(0) and own:take_chunk(3))
        probe.child.say("taken")
        probe.child.hear()
      end)
      local connection = connect()
      assert.equal("taken", child:line())
      assert.is_false(connection:take_chunk(0))
      assert.is_false(connection:is_unused())
      child:kill()
      child:wait()
      assert.is_true(connection:is_unused())
      assert.is_true(connection:take_chunk(0))
      assert.is_true(connection:take_chunk(3))
    end)

    -- The mapping keeps the description of the descriptor that it was made
    -- through; the locks belong to that of another one.
    it("are given back although a forked child still has the mapping",
      function()
        local stop, seen = scratch.path("stop"), scratch.path("seen")
        local function be_the_grandchild(inherited)
          inherited:drop_locks()
          probe.child.say("dropped")
          scratch.await(stop)
          scratch.write(seen, inherited:get("live.tick"))
        end
        local child = probe.child.start(function()
          local own = assert(share.connect(path, data))
          assert(own:take_chunk(0))
          local grandchild = probe.child.start(function()
            be_the_grandchild(own)
          end)
          assert(grandchild:line() == "dropped")
          probe.child.say("taken")
          probe.child.hear()
        end)
        local connection = connect()
        assert.equal("taken", child:line())
        assert.is_false(connection:is_unused())
        child:kill()
        for _ = 1, 5000 do
          if connection:is_unused() then break end
          probe.os.sleep_ms(2)
        end
        assert.is_true(connection:is_unused())
        assert.is_true(connection:take_chunk(0))
        connection:set("live.tick", 1234)
        assert.is_nil(scratch.read(seen))
        scratch.write(stop, "stop")
        child:wait() -- the grandchild has its end of the socket, too
        assert.equal(("%016x"):format(1234),
          scratch.read(seen) or "the grandchild has waited in vain")
      end)
  end)

  it("is made zero by a reset but for the magic, and short again", function()
    local connection = connect()
    assert.is_true(connection:take_chunk(5))
    for name, field in pairs(share.fields) do
      local size = field[2]
      connection:set(name, size == 4 and 7 or size == 8 and 7 or ("x"):rep(size))
    end
    connection:set_row(5, 62, { pin = 9, snapshot = 8 })
    assert.is_true(connection:reset())
    assert.equal(EMPTY, scratch.read(path))
    assert.is_false(connection:has_chunk(1))
    assert.equal(0, connection:get("chunk_count"))
  end)

  it("can be memory of one process alone", function()
    local connection = assert(share.private())
    opened[1] = connection
    assert.same({ 1048576, 1048576 }, { connection:size() })
    assert.not_equal(("0"):rep(16), connection:id())
    for index = 0, 254 do assert.is_true(connection:take_chunk(index)) end
    assert.is_true(connection:has_chunk(254))
    assert.equal(255, connection:get("chunk_count"))
    assert.equal("EADDRESS", select(2, connection:take_chunk(255)))
    assert.is_false(connection:has_chunk(255))
    connection:give_chunk(3)
    assert.equal("alone", probe.child.run(function()
      connection:set("live.tick", 5) -- a child has a copy
      return "alone"
    end))
    assert.equal(("0"):rep(16), connection:get("live.tick"))
  end)
end)
