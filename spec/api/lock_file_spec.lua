-- SPDX-License-Identifier: MIT
--
-- The coordination file NAME-lock beside NAME: when it is there, what deleting
-- or replacing it does, and when what stands in it is believed.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"

local it_if_shared = helper.it_if_shared(it, function(why) pending(why) end)
local run = helper.run

local MANUAL = { open = "{ durability = 'manual' }" }

local MAGIC = "mmclock\n"

local path, lock

local function prepare()
  path = helper.path()
  lock = path .. "-lock"
end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

describe("the lock file", function()
  before_each(prepare)
  after_each(clean_up)

  it_if_shared("is named by the message if it is the one that cannot be opened",
    function()
      assert(os.execute(("mkdir '%s'"):format(lock)))
      local db, message, code = mmcmap.open(path)
      assert.is_nil(db)
      assert.equal("EFORMAT", code)
      assert.is_truthy(message:find("the lock file is no regular file", 1, true),
        message)
      assert(os.execute(("rmdir '%s'"):format(lock)))
      helper.store(nil, path)
    end)

  it_if_shared("has the data file's permission bits and stays", function()
    for _, mode in ipairs { 384, 416, 432, 438 } do -- 600, 640, 660, 666
      prepare()
      local db = helper.store({ mode = mode }, path)
      local bits = run("stat -c %%a %s", path)
      db:put("k", "v")
      assert.equal(bits, run("stat -c %%a %s", lock))
      assert(db:close())
      assert.is_true(helper.exists(lock))
    end
    prepare()
    helper.store(nil, path):close()
    os.remove(lock)
    run("chmod 664 %s", path)
    peers.start(path, { through = { "sh", "-c", 'umask 077; exec "$@"',
      "sh" } }):finish()
    assert.equal("664", run("stat -c %%a %s", lock))
  end)

  it_if_shared("goes with remove()", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert.is_true(db:remove())
    assert.is_false(helper.exists(path))
    assert.is_false(helper.exists(lock))
  end)

  it_if_shared("stays with a remove() that is refused: another has the store",
    function()
      local db, other = helper.store(nil, path), peers.start(path)
      db:put("k", "v")
      assert.equal("EBUSY", select(3, db:remove()))
      assert.equal("v", other:ask("return db:get('k')"))
      assert.is_true(db:put("k", "w"))
      other:finish()
      assert.is_true(db:remove())
      assert.is_false(helper.exists(lock))
    end)

  it_if_shared("may be deleted while nobody has the store open", function()
    helper.store(nil, path):put("k", "v")
    helper.close_all()
    assert(os.remove(lock))
    local db = helper.store(nil, path)
    assert.equal("v", db:get("k"))
    assert.is_true(db:put("k", "w"))
    assert.is_true(helper.exists(lock))
  end)

  -- Whatever lies there while others have the store open.
  local spoiled = {
    ["is deleted"] = function() assert(os.remove(lock)) end,
    ["is replaced by a copy of itself"] = function()
      run("cp -p %s %s.copy", lock, lock)
      run("mv %s.copy %s", lock, lock)
    end,
    ["is replaced by garbage"] = function()
      helper.write(lock .. ".new", MAGIC .. helper.bytes(70000))
      run("mv %s.new %s", lock, lock)
    end,
    ["is replaced by another store's"] = function()
      local other = helper.path()
      helper.store(nil, other):put("x", "y")
      helper.close_all()
      run("mv %s-lock %s", other, lock)
    end,
  }
  for what, spoil in helper.sorted(spoiled) do
    it_if_shared("that " .. what .. " lets nobody in while the store is open",
      function()
        local a, b = peers.start(path), peers.start(path)
        a:ask("db:put('k', 'v')")
        spoil()
        for _ = 1, 3 do
          local db, message, code = mmcmap.open(path, { timeout = 0.1 })
          assert.is_nil(db)
          assert.equal("EBUSY", code, message)
        end
        assert.equal("v", b:ask("return db:get('k')"))
        assert.equal("true", b:ask("return db:put('k', 'w')"))
        assert.equal("w", a:ask("return db:get('k')"))
        a:finish()
        assert.is_nil((mmcmap.open(path, { timeout = 0 })))
        b:finish()
        assert.equal("w", helper.store({ timeout = 0 }, path):get("k"))
      end)
  end

  -- A store that was killed: a is on disk, b in memory alone.
  local function kill_one(at)
    local victim = peers.start(at or path, MANUAL)
    victim:ask("db:put('a', '1') assert(db:sync()) db:put('b', '2')")
    victim:kill()
  end

  local function assert_recovered(b, at)
    local db = helper.store(nil, at or path)
    assert.equal("1", db:get("a"))
    assert.equal(b, db:get("b"))
    assert.equal(#db, select(2, helper.records(db)))
    assert.is_true(db:put("c", "3"))
    assert(db:close())
    assert.same({}, peers.faults(at or path))
  end

  it_if_shared("keeps what was in memory alone for the next opener", function()
    kill_one()
    assert_recovered("2")
  end)

  local laid_over = {
    ["the file renamed over by a copy of itself"] = function()
      kill_one()
      run("cp %s %s.copy", path, path)
      run("mv %s.copy %s", path, path)
    end,
    ["an older copy written over the file"] = function()
      local db = helper.store(nil, path)
      db:put("a", "1")
      assert(db:close())
      run("cp %s %s.copy", path, path)
      kill_one()
      run("cp %s.copy %s", path, path)
    end,
    ["an older copy renamed over the file"] = function()
      local db = helper.store(nil, path)
      db:put("a", "1")
      assert(db:close())
      run("cp -p %s %s.copy", path, path)
      kill_one()
      run("mv %s.copy %s", path, path)
    end,
    -- The same session, even the same open epoch: only later nodes are absent.
    ["a copy of moments ago written over the file"] = function()
      local victim = peers.start(path, MANUAL)
      victim:ask("db:put('a', '1') assert(db:sync()) db:put('x', '0')")
      victim:ask("db:delete('x')")
      run("cp %s %s.copy", path, path)
      victim:ask("for i = 1, 50 do db:put('b', i) db:put('b' .. i, i) end")
      victim:kill()
      run("cp %s.copy %s", path, path)
    end,
    -- The last record lies where an older one lay: only a slot was stored since.
    ["a copy from before one change written over the file"] = function()
      local victim = peers.start(path, MANUAL)
      victim:ask("db:put('a', '1') assert(db:sync()) db:put('b', '2')")
      victim:ask("for i = 1, 500 do db:put('x', i) end")
      run("cp %s %s.copy", path, path)
      victim:ask("db:put('x', 501)")
      victim:kill()
      run("cp %s.copy %s", path, path)
    end,
    ["the lock file deleted"] = function()
      kill_one()
      assert(os.remove(lock))
    end,
    ["another killed store's lock file"] = function()
      local other = helper.path()
      kill_one()
      kill_one(other)
      run("mv %s-lock %s", other, lock)
    end,
  }
  for what, lay in helper.sorted(laid_over) do
    it_if_shared("is not believed after " .. what, function()
      lay()
      assert_recovered(nil)
    end)
  end

  it_if_shared("is not believed if it is a copy from before a clean close",
    function()
      local user = peers.start(path)
      user:ask("db:put('k', 'v')")
      run("cp -p %s %s.old", lock, lock)
      user:ask("db:put('k', 'w') assert(db:sync())")
      user:finish()
      run("mv %s.old %s", lock, lock)
      local db = helper.store({ timeout = 0 }, path)
      assert.equal("w", db:get("k"))
      assert.equal(1, #db)
    end)

  it_if_shared("is not believed beside a copy of the file under another name",
    function()
      local copy = helper.path()
      kill_one()
      run("cp -p %s %s", path, copy)
      run("cp -p %s-lock %s-lock", path, copy)
      assert_recovered(nil, copy)
      assert_recovered("2")
    end)

  it_if_shared("is not believed after a power cut, whatever of it is on disk",
    function()
      local program = os.getenv("MMCMAP_BUILD_DIR") .. "/power_cut"
      if os.getenv("MMCMAP_RUN_WITH") or os.getenv("LD_PRELOAD") then
        return pending("the program for it is not for checking tools")
      end
      local script = helper.write(helper.path(".lua"), [[
        local path = os.getenv("PLACE") .. "/store.mmc"
        local db = assert(require("mmcmap").open(path,
          { durability = "manual" }))
        if os.getenv("ROUND") == "1" then
          db:put("a", "1")
          assert(db:sync())
          db:put("b", "2")
          os.execute("sync '" .. path .. "-lock' '" .. os.getenv("PLACE") .. "'")
          os.exit(0)
        end
        assert(db:get("a") == "1" and db:get("b") == nil and #db == 1)
        assert(db:put("b", "3") and db:close())
        print("recovered")
      ]])
      for _, kind in ipairs { { "ext4", 20 }, { "xfs", 320 } } do
        local output = scratch.shell(table.concat({ scratch.quoted(program),
          "around", kind[1], scratch.quoted(scratch.folder()),
          ("%d"):format(kind[2] * 1048576),
          scratch.quoted(helper.interpreter()), scratch.quoted(script),
          "2>&1; echo status=$?" }, " "))
        if output:find("status=77") then return pending(output) end
        assert.equal("recovered\nstatus=0", output)
      end
    end)

  it_if_shared("is made anew if it is not one, and nobody has the store open",
    function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      assert(db:close())
      local bytes = helper.read(lock)
      assert.equal(MAGIC, bytes:sub(1, #MAGIC))
      local cases = { "", "\0", MAGIC, bytes:sub(1, 10), bytes:sub(1, 100),
        bytes:sub(1, 4095), bytes:sub(1, -2), bytes .. "x",
        MAGIC .. helper.bytes(#bytes), ("\0"):rep(10), ("\0"):rep(#bytes),
        ("\0"):rep(4096) .. bytes:sub(4097) } -- the first page was not written
      -- The layout version is the first. Each takes half a second, so some are tried.
      local is_long = os.getenv("MMCMAP_LONG")
      for i = #MAGIC + 1, 64 do
        if is_long or i == #MAGIC + 1 or (i + os.time()) % 8 == 0 then
          cases[#cases + 1] = bytes:sub(1, i - 1)
            .. string.char((bytes:byte(i) + 1) % 256) .. bytes:sub(i + 1)
        end
      end
      for i, case in ipairs(cases) do
        helper.write(lock, case)
        db = assert(mmcmap.open(path, { timeout = 0 }))
        assert.equal("v", db:get("k"))
        assert.is_true(db:put("i", i))
        assert(db:close())
      end
    end)

  it_if_shared("is not made of a file that is something else", function()
    helper.store(nil, path):close()
    for _, before in ipairs { "precious notes\n", "x", helper.bytes(9000) } do
      helper.write(lock, before)
      for _, options in ipairs { { readonly = true }, { readonly = false } } do
        local begun = os.time()
        local db, message, code = mmcmap.open(path, options)
        assert.is_nil(db)
        assert.equal("EFORMAT", code)
        assert.is_truthy(message:find("NAME-lock", 1, true), message)
        assert.is_truthy(message:find("move it away", 1, true), message)
        assert.is_true(os.time() - begun < 4)
        assert.equal(before, helper.read(lock))
      end
    end
    run("mv %s %s.away", lock, lock)
    helper.store(nil, path)
  end)

  it_if_shared("that is garbage after a kill costs no more than the last commit",
    function()
      for _, size in ipairs { 0, 1, 64, 4096, 40000 } do
        prepare()
        kill_one()
        helper.write(lock, size > 0 and MAGIC .. helper.bytes(size, size) or "")
        assert_recovered(nil)
      end
    end)
end)
