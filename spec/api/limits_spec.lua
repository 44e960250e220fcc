-- SPDX-License-Identifier: MIT
--
-- Crowds, namespaces, processes that stand still, and processes that are given
-- too little: descriptors, addresses, size of files.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"

local it_if_shared = helper.it_if_shared(it, function(why) pending(why) end)

local SIGSTOP, SIGXFSZ = 19, 25
local MIB = 1048576

local path

local function prepare() path = helper.path() end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

-- A process number space of its own, in which the peer is not number 1: that
-- one could not be stopped or killed from within.
local PID_SPACE = { "unshare", "--pid", "--fork", "--kill-child", "sh", "-c",
  '"$@"; exit $?', "sh" }

-- A container that sees the folder at another place, and its own processes.
local function container(folder, place)
  return { "unshare", "--pid", "--mount", "--fork", "--kill-child",
    "--mount-proc", "sh", "-c",
    'mount --bind "$1" "$2" && shift 2 && { "$@"; exit $?; }', "sh", folder,
    place }
end

local function has_namespaces()
  return scratch.shell("unshare --pid --mount --fork --mount-proc echo yes "
    .. "2>/dev/null") == "yes"
end

local function it_in_namespaces(name, test)
  it_if_shared(name, function()
    if not has_namespaces() then
      return pending("namespaces of one's own are not allowed here")
    end
    return test()
  end)
end

-- A peer that stops within a put that is not finished.
local function start_holder(options)
  local holder = peers.launch(path, options)
  holder:ask("db = assert(probe.store.open(path, { timeout_ms = 60000 }))")
  holder:ask("probe.crash.die_at_point(1, tonumber((...)))", SIGSTOP)
  holder:tell("return db:put('of the', 'holder')")
  holder:await_stopped()
  return holder
end

local function is_hookless()
  if not probe.crash.has_hooks then
    pending("needs --enable-debug-checks")
    return true
  end
end

describe("a crowd", function()
  before_each(prepare)
  after_each(clean_up)

  for _, readers in ipairs { 1, 16 } do
    it_if_shared(("of a writer and %d forked readers sees whole values that "
      .. "never go back"):format(readers), function()
        local ms = os.getenv("MMCMAP_LONG") and 30000 or 1000
        local output = scratch.shell(("%s crowd %s %d %d 2>&1; echo status=$?")
          :format(scratch.quoted(os.getenv("MMCMAP_BUILD_DIR") .. "/sharer"),
            scratch.quoted(path), ms, readers))
        local puts, gets = output:match("^puts (%d+) gets (%d+)\nstatus=0$")
        assert.is_truthy(puts, output)
        assert.is_true(tonumber(puts) > 100 and tonumber(gets) > 100, output)
        assert.same({}, peers.faults(path))
      end)
  end

  it_if_shared("of more readers than any table begins with is no error",
    function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      local crowd = {}
      for i = 1, 150 do
        crowd[i] = peers.fork { db = db }
        crowd[i]:ask("next_record, state = db:pairs()")
      end
      db:put("k", "w")
      for i = 1, 150 do
        assert.equal("w v", crowd[i]:ask(
          "return db:get('k'), (select(2, next_record(state)))"))
      end
    end)
end)

describe("a reader", function()
  it("calls nothing of the system, and allocates nothing", function()
    prepare()
    if os.getenv("MMCMAP_RUN_WITH") or os.getenv("LD_PRELOAD") then
      return pending("checking tools call the system")
    end
    local output = scratch.shell(("%s quiet %s 2000 20000 2>&1; echo status=$?")
      :format(scratch.quoted(os.getenv("MMCMAP_BUILD_DIR") .. "/sharer"),
        scratch.quoted(path)))
    if output == "status=77" then return pending("needs seccomp") end
    assert.equal("status=0", output)
  end)
end)

describe("processes of several number spaces", function()
  before_each(prepare)
  after_each(clean_up)

  it_in_namespaces("share a store, whatever their numbers", function()
    local db = helper.store(nil, path)
    local a = peers.start(path, { through = PID_SPACE })
    local b = peers.start(path, { through = PID_SPACE })
    for i = 1, 30 do
      assert(db:put("k", i))
      assert.equal(tostring(i), a:ask("return db:get('k')"))
      a:ask("db:put('a', ...)", i)
      assert.equal(tostring(i), b:ask("return db:get('a')"))
      b:ask("db:put('b', ...)", i)
      assert.equal(tostring(i), db:get("b"))
    end
    for _, peer in ipairs { a, b } do
      peer:tell([[
        for i = 1, 2000 do assert(db:put(... .. i, i)) end
      ]], peer == a and "of a " or "of b ")
    end
    a:answer()
    b:answer()
    a:finish()
    b:finish()
    assert.equal(4003, #db)
    assert(db:close())
    assert.same({}, peers.faults(path))
  end)

  for _, survivor in ipairs { "outside", "in a third space" } do
    it_in_namespaces("survive one that is killed with the lock, " .. survivor,
      function()
        if is_hookless() then return end
        local holder = start_holder { through = PID_SPACE }
        local other = peers.start(path, { open = "{ timeout = 0.2 }",
          through = survivor ~= "outside" and PID_SPACE or nil })
        assert.equal("EBUSY",
          other:ask("return (select(3, db:put('k', 'v')))"))
        holder:kill()
        assert.equal("true v", other:ask([[
          return db:put("k", "v"), db:get("k")
        ]]))
        other:finish()
        assert.same({}, peers.faults(path))
      end)
  end

  -- The reader's number is one that nobody has in the other's space.
  it_in_namespaces("leave each other's places alone", function()
    local db = helper.store(nil, path)
    for i = 1, 100 do db:put("key " .. i, ("old "):rep(50)) end
    local words = { (unpack or table.unpack)(PID_SPACE) } -- luacheck: ignore 113
    words[#words - 1] = "for i in 1 2 3 4 5 6 7 8; do (exit 0); done; "
      .. words[#words - 1]
    local reader = peers.start(path, { through = words })
    local other = peers.start(path, { through = PID_SPACE })
    reader:ask("next_record, state = db:pairs() next_record(state)")
    assert.equal("4", other:ask([[
      for round = 1, 200 do
        for i = 1, 100 do db:put("key " .. i, ("new "):rep(50)) end
      end
      return #db:readers()
    ]]))
    assert.equal("99", reader:ask([[
      local count = 0
      for key, value in next_record, state do
        assert(value == ("old "):rep(50), "the snapshot moved")
        count = count + 1
      end
      return count
    ]]))
  end)

  it_in_namespaces("survive one that is killed while it waits", function()
    if is_hookless() then return end
    local holder = start_holder { through = PID_SPACE }
    local waiting, third = {}, peers.start(path, { open = "{ timeout = 60 }" })
    for i = 1, 3 do
      waiting[i] = peers.start(path, { open = "{ timeout = 60 }",
        through = PID_SPACE })
      waiting[i]:tell("return db:put(..., 'v')", "waiting " .. i)
    end
    third:tell("return db:put('third', 'v')")
    probe.os.sleep_ms(200)
    waiting[1]:kill()
    waiting[2]:kill()
    holder:go_on()
    assert.equal("true", holder:answer())
    assert.equal("true", waiting[3]:answer())
    assert.equal("true", third:answer())
    assert.equal("nil nil v holder", third:ask([[
      return db:get("waiting 1"), db:get("waiting 2"), db:get("third"),
        db:get("of the")
    ]]))
    for _, peer in ipairs { waiting[3], third, holder } do peer:finish() end
    assert.same({}, peers.faults(path))
  end)

  it_in_namespaces("and file spaces are two containers that share a store",
    function()
      local folder, place = helper.folder(), helper.folder()
      path = folder .. "/store.mmc"
      local a = peers.start(place .. "/store.mmc",
        { through = container(folder, place) })
      local b = peers.start(path, { through = container(folder, folder) })
      for i = 1, 30 do
        a:ask("db:put('a', ...)", i)
        assert.equal(tostring(i), b:ask("return db:get('a')"))
        b:ask("db:put('b', ...)", i)
        assert.equal(tostring(i), a:ask("return db:get('b')"))
      end
      local db = helper.store(nil, path)
      assert.equal("30", db:get("a"))
      assert.equal("EBUSY", a:ask("return (select(3, db:remove()))"))
      a:kill()
      assert.equal("true", b:ask("return db:put('c', 1)"))
      assert.equal("1", db:get("c"))
      assert(db:sync())
      assert(db:close())
      b:kill()
      db = helper.store(nil, path)
      assert.equal("1", db:get("c"))
      assert.equal(3, #db)
    end)
end)

describe("a process that stands still", function()
  before_each(prepare)
  after_each(clean_up)

  it_if_shared("with the writer lock is waited for, not robbed", function()
    if is_hookless() then return end
    local holder = start_holder()
    local db = helper.store({ timeout = 0.5 }, path)
    for _ = 1, 3 do
      assert.equal("EBUSY", (select(3, db:put("k", "v"))))
    end
    assert.equal(0, #db)
    holder:go_on()
    assert.equal("true", holder:answer())
    assert.is_true(db:put("k", "v"))
    assert.equal(2, #db)
  end)

  -- One that has put something and begun a transaction, and stands still in it.
  local stuck
  local function start_stuck()
    stuck = peers.launch(path)
    stuck:ask([[
      db = assert(probe.store.open(path, { durability = "manual" }))
      assert(db:put("of the", "stuck"))
    ]])
  end

  local function get_stuck()
    stuck:ask("txn = assert(db:begin()) assert(txn:put('more', 'of it'))")
    stuck:stop()
  end

  local function finish_stuck()
    stuck:go_on()
    assert.equal("true true", stuck:ask("return txn:commit(), db:close()"))
    stuck:finish()
  end

  -- How long the peer took for the code, whose answer is as expected.
  local function ask_timed(expected, peer, code)
    local begin = probe.os.monotonic_ns()
    assert.equal(expected, peer:ask(code))
    return (probe.os.monotonic_ns() - begin) / 1e9
  end

  local CLOSE = [[
    local ok, message, code = db:close()
    return tostring(ok), tostring(code)
  ]]

  it_if_shared("in a transaction holds up no close of who has changed nothing",
    function()
      local others = {}
      start_stuck()
      for i, options in ipairs { "durability = 'async'", "durability = 'sync'",
        "durability = 'manual'", "readonly = true" } do
        others[i] = peers.start(path,
          { open = ("{ timeout = 1.5, %s }"):format(options) })
        assert.equal("stuck", others[i]:ask("return db:get('of the')"))
      end
      get_stuck()
      for _, other in ipairs(others) do
        assert.is_true(ask_timed("true nil", other, CLOSE) < 6)
        other:finish()
      end
      finish_stuck()
      local db = helper.store(nil, path)
      assert.equal("stuck of it", db:get("of the") .. " " .. db:get("more"))
      assert.is_true(db:stat().was_clean)
      assert.same({}, peers.faults(path))
    end)

  -- With `async`, its flusher is waiting, too, when it is closed.
  for level, options in pairs {
    async = "durability = 'async', flush_interval = 2",
    manual = "durability = 'manual'" } do
    it_if_shared(("in a transaction holds up a close of who has changed something "
      .. "as long as is allowed: %s"):format(level), function()
        start_stuck()
        local other = peers.start(path,
          { open = ("{ timeout = 1.5, %s }"):format(options) })
        assert.equal("true", other:ask("return db:put('of the', 'other')"))
        get_stuck()
        if level == "async" then probe.os.sleep_ms(2300) end
        local seconds = ask_timed("nil EBUSY", other, CLOSE)
        assert.is_true(seconds > 1.4 and seconds < 6, seconds)
        other:finish()
        local late = helper.store({ timeout = 0 }, path)
        assert.equal("other", late:get("of the"))
        finish_stuck()
        assert(late:close())
        late = helper.store(nil, path)
        assert.equal("other of it", late:get("of the") .. " " .. late:get("more"))
      end)
  end

  it_if_shared("in a transaction, and is killed then, leaves a close its commit",
    function()
      start_stuck()
      local other = peers.start(path,
        { open = "{ timeout = 20, durability = 'manual' }" })
      assert.equal("true", other:ask("return db:put('of the', 'other')"))
      get_stuck()
      other:tell(CLOSE)
      probe.os.sleep_ms(300)
      stuck:kill()
      assert.equal("true nil", other:answer())
      other:finish()
      local db = helper.store(nil, path)
      assert.is_true(db:stat().was_clean)
      assert.equal("other", db:get("of the"))
      assert.is_nil(db:get("more"))
    end)

  it_if_shared("in a transaction holds up no flusher that is to end", function()
    start_stuck()
    local other = peers.start(path,
      { open = "{ timeout = 1.5, flush_interval = 0.01 }" })
    assert.equal("true", other:ask("return db:put('of the', 'other', { ttl = 0.1 })"))
    get_stuck()
    probe.os.sleep_ms(300)
    assert.is_true(ask_timed("true", other,
      "return db:close() ~= false and true") < 6)
    other:finish()
    finish_stuck()
  end)

  it_if_shared("and leads a commit holds up a close, and a step, no longer",
    function()
      if is_hookless() then return end
      start_stuck()
      local options = { open = "{ timeout = 1.5, durability = 'manual' }" }
      local reader, other = peers.start(path, options), peers.start(path, options)
      assert.equal("true", other:ask("return db:put('of the', 'other')"))
      stuck:ask("probe.crash.die_at_point(1, tonumber((...)), 'led')", SIGSTOP)
      stuck:tell("return db:sync()")
      stuck:await_stopped()
      assert.is_true(ask_timed("EBUSY", other,
        "return (select(3, db:step(0.01)))") < 6)
      assert.is_true(ask_timed("true nil", reader, CLOSE) < 6)
      assert.is_true(ask_timed("nil EBUSY", other, CLOSE) < 6)
      stuck:go_on()
      assert.equal("true", stuck:answer())
      for _, peer in ipairs { reader, other, stuck } do peer:finish() end
      assert.equal("other", helper.store(nil, path):get("of the"))
      assert.same({}, peers.faults(path))
    end)

  -- It has to commit by itself, at the put and at the opening.
  it_if_shared("and leads a commit holds up who can start no flusher no longer",
    function()
      if is_hookless() then return end
      start_stuck()
      stuck:ask("probe.crash.die_at_point(1, tonumber((...)), 'led')", SIGSTOP)
      stuck:tell("return db:sync()")
      stuck:await_stopped()
      local other = peers.launch(path)
      assert.is_true(ask_timed("", other, [[
        probe.os.fail("thread", 1, "EAGAIN", 0)
        db = assert(probe.store.open(path, { timeout_ms = 1500 }))
      ]]) < 6)
      assert.is_true(ask_timed("true", other, "return db:put('of the', 'other')") < 6)
      stuck:go_on()
      assert.equal("true", stuck:answer())
      assert.equal("true", other:ask("return db:put('of the', 'other')"))
      stuck:kill()
      other:kill()
      os.remove(path .. "-lock")
      assert.equal("other", helper.store(nil, path):get("of the"))
    end)

  it_if_shared("while it opens holds up a close as long as is allowed", function()
    if is_hookless() then return end
    local other = peers.start(path, { open = "{ timeout = 1.5 }" })
    assert.equal("true", other:ask("return db:put('of the', 'other')"))
    stuck = peers.launch(path)
    stuck:ask("probe.crash.die_at_point(1, tonumber((...)), 'looked at')", SIGSTOP)
    stuck:tell("db = assert(probe.store.open(path)) return db:get('of the')")
    stuck:await_stopped()
    assert.is_true(ask_timed("true nil", other, CLOSE) < 6)
    other:finish()
    stuck:go_on()
    assert.equal("other", stuck:answer())
    assert.equal("true", stuck:ask("return db:close()"))
    stuck:finish()
    assert.is_true(helper.store(nil, path):stat().was_clean)
  end)

  it_if_shared("in a transaction holds up a step as long as is allowed", function()
    start_stuck()
    local other = peers.start(path,
      { open = "{ timeout = 0.5, durability = 'manual' }" })
    get_stuck()
    local seconds = ask_timed("nil EBUSY", other, [[
      local ok, message, code = db:step(0.01)
      return tostring(ok), tostring(code)
    ]])
    assert.is_true(seconds > 0.4 and seconds < 5, seconds)
    assert.equal("true nil", other:ask(CLOSE))
    other:finish()
    finish_stuck()
  end)

  -- A reader that is stopped at some moment of its reading, for two seconds.
  it_if_shared("while it reads does not stop the writer, nor is it misled",
    function()
      local db = helper.store({ durability = "async" }, path)
      for i = 1, 200 do db:put("key " .. i, ("0 "):rep(100)) end
      local reader = peers.start(path)
      reader:count([[
        local snapshot = {}
        snapshot.next_record, snapshot.state = db:pairs()
        snapshot.next_record(snapshot.state)
        local last, go_on = {}, true
        for i = 1, math.huge do
          local key = "key " .. i % 200 + 1
          local value = assert(db:get(key))
          local round = value:match("^(%d+) ")
          assert(value == (round .. " "):rep(100), "not whole")
          assert(tonumber(round) >= (last[key] or 0), "went back")
          last[key] = tonumber(round)
          if i % 100 == 0 then reports(i) end
          if db:get("end") then break end
        end
        local count = 1
        for key, value in snapshot.next_record, snapshot.state do
          assert(key == "end" or value == ("0 "):rep(100), "the snapshot moved")
          count = count + 1
        end
        return "saw " .. count
      ]], 500)
      reader:stop()
      local begin, round = probe.os.monotonic_ns(), 0
      while probe.os.monotonic_ns() - begin < 2e9 or round < 100 do
        round = round + 1
        for i = 1, 200 do
          assert(db:put("key " .. i, (round .. " "):rep(100)))
        end
      end
      assert.equal("T", peers.state_of(reader.pid))
      reader:go_on()
      db:put("end", "1")
      local line
      repeat line = reader.child:line() until not tonumber(line)
      assert.equal("ok\tsaw 200", line)
      reader:finish()
      assert(db:close())
      assert.same({}, peers.faults(path))
    end)
end)

describe("a process that is given too little", function()
  before_each(prepare)
  after_each(clean_up)

  -- Runs f in a child; what it returned.
  local function run(f)
    io.stdout:flush()
    local text, how, status = probe.child.run(f)
    assert.equal("exit 0", how .. " " .. status .. (status ~= 0 and text or ""))
    return text
  end

  local function descriptor_count()
    local count = 0
    for fd = 0, 255 do
      local file = io.open(("/proc/self/fd/%d"):format(fd))
      if file then
        count = count + 1
        file:close()
      end
    end
    return count
  end

  -- Raises the limit one by one until f() succeeds; each failure before must
  -- be a clear one. How many failures there were.
  local function until_enough(f)
    for failures = 0, 40 do
      probe.child.limit("nofile", 3 + failures)
      local result, message, code = f()
      if result then return failures end
      assert(type(code) == "string" and code ~= "ECORRUPT" and
        code ~= "EFORMAT" and code ~= "ENOENT", code)
      assert(message:find("Too many open files", 1, true), message)
    end
    error("never enough")
  end

  for _, what in ipairs { "makes", "opens" } do
    it("of descriptors says so when it " .. what .. " a store, and can then",
      function()
        if what == "opens" then
          helper.store(nil, path):put("k", "v")
          helper.close_all()
        end
        local found = run(function()
          local db
          local failures = until_enough(function()
            local message, code
            db, message, code = mmcmap.open(path)
            return db, message, code
          end)
          assert(db:put("k", "v") and db:get("k") == "v" and db:sync())
          for _ in db:pairs() do end -- luacheck: ignore 542
          assert(db:close())
          return failures > 0
        end)
        assert.equal("true", found)
        assert.equal("v", helper.store({ timeout = 0 }, path):get("k"))
        assert(helper.store(nil, path):close())
      end)
  end

  it_if_shared("of descriptors after a fork says so, and can then", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert.equal("true", run(function()
      local failures = until_enough(function() return db:get("k") end)
      assert(db:get("k") == "v" and db:put("k", "w") and db:sync())
      return failures > 0
    end))
    assert.equal("w", db:get("k"))
    assert.is_true(db:put("k", "x"))
  end)

  it("of descriptors goes on with a store that it has open", function()
    assert.equal("v", run(function()
      local db = assert(mmcmap.open(path))
      assert(db:put("k", "v") and db:sync())
      probe.child.limit("nofile", descriptor_count() > 0 and 0)
      assert(db:put("large", ("x"):rep(3 * MIB)) and db:sync())
      local found = db:get("k")
      assert(db:close())
      return found
    end))
    assert.equal(2, #helper.store(nil, path))
  end)

  local function used_bytes()
    local file = assert(io.open("/proc/self/status"))
    local kilobytes = file:read("*a"):match("VmSize:%s*(%d+) kB")
    file:close()
    return tonumber(kilobytes) * 1024
  end

  -- The stack has its size before there are no addresses left for it.
  local function touch_stack(depth)
    if depth > 0 then pcall(touch_stack, depth - 1) end
  end

  it("of addresses opens with a smaller range, or says so", function()
    if probe.sanitizer or (os.getenv("LD_PRELOAD") or "") ~= "" then
      return pending("a checking tool takes the addresses")
    end
    local value = ("x"):rep(10000)
    local db = helper.store(nil, path)
    for i = 1, 300 do db:put("key " .. i, value) end
    assert(db:close())
    local opened, refused = 0, 0
    for _, more in ipairs { 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 200, 1000 }
    do
      local text = run(function()
        touch_stack(150)
        collectgarbage()
        probe.child.limit("as", used_bytes() + more * MIB)
        local found, message, code = mmcmap.open(path)
        if not found then
          assert(code == "ENOMEM" or code == "EADDRESS", message)
          return code
        end
        assert(found:stat().address_bytes <= more * MIB)
        assert(found:get("key 300") == value)
        local ok
        for i = 1, 3000 do
          ok, message, code = found:put("more " .. i, value)
          if not ok then break end
        end
        assert(ok or code == "EADDRESS" or code == "ENOMEM", message)
        assert(found:get("key 1") == value and found:get("more 1") == value
          or not ok)
        assert(found:delete("key 2"))
        assert(found:close())
        return "opened"
      end)
      if text == "opened" then opened = opened + 1 else refused = refused + 1 end
      db = helper.store({ timeout = 0 }, path) -- nothing is left of it
      assert.equal(value, db:get("key 300"))
      if text == "opened" then assert.is_nil(db:get("key 2")) end
      assert(db:put("key 2", value))
      for key in db:keys() do if key:find("more") then db:delete(key) end end
      assert(db:close())
    end
    assert.is_true(opened > 0 and refused > 0, opened .. " " .. refused)
  end)

  -- A transaction cannot make room itself.
  it("of addresses has room made for the next transaction", function()
    if probe.sanitizer or (os.getenv("LD_PRELOAD") or "") ~= "" then
      return pending("a checking tool takes the addresses")
    end
    local text = run(function()
      probe.child.limit("as", used_bytes() + 24 * MIB)
      local db = assert(probe.store.open(path, { durability = "manual" }))
      local value, count = ("x"):rep(3000), 0
      local ok, code
      repeat
        ok, code = db:put("key " .. count, value)
        if ok then count = count + 1 end
      until not ok
      assert(code == "EADDRESS" and count > 300, code .. " " .. count)
      assert(db:sync())
      local txn = assert(db:begin())
      assert(select(2, txn:put("more", value)) == "EADDRESS")
      txn:abort()
      for i = 1, count - 1 do assert(db:delete("key " .. i)) end
      txn = assert(db:begin())
      for i = 1, count / 2 do assert(txn:put("new " .. i, value)) end
      assert(txn:commit())
      assert(db:close())
      return "half of it"
    end)
    assert.equal("half of it", text)
  end)

  it("of addresses tells so what others put beyond its range", function()
    if probe.sanitizer or (os.getenv("LD_PRELOAD") or "") ~= "" then
      return pending("a checking tool takes the addresses")
    end
    local value = ("x"):rep(100000)
    local db = helper.store(nil, path)
    assert(db:put("early", value))
    local peer = peers.launch(path)
    assert.equal("yes", peer:ask([[
      local file = assert(io.open("/proc/self/status"))
      local kilobytes = file:read("*a"):match("VmSize:%s*(%d+) kB")
      file:close()
      probe.child.limit("as", kilobytes * 1024 + 24 * 1048576)
      db = assert(probe.store.open(path))
      return db:get("early") and "yes"
    ]]))
    for i = 1, 600 do assert(db:put("late " .. i, value)) end
    assert.equal("nil EADDRESS", peer:ask([[
      local found, code = db:get("late 600")
      return tostring(found), code
    ]]))
    assert.equal("nil EADDRESS", peer:ask([[
      local found, code = db:put("of the peer", "v")
      return tostring(found), code
    ]]))
    peer:ask("db:close()")
    peer:finish()
    assert.same({}, peers.faults(path))
  end)

  -- Without a limit: as many stores as there are tenants, say.
  it("of addresses is not what hundreds of stores take up", function()
    if probe.sanitizer or (os.getenv("LD_PRELOAD") or "") ~= "" then
      return pending("a checking tool takes the addresses")
    end
    local GIB = 1024 * MIB
    local text = run(function()
      local stores = {}
      for i = 1, 250 do
        -- Every tenth one has a thread.
        stores[i] = assert(mmcmap.open(path .. i,
          { durability = i % 10 == 0 and "async" or "manual" }))
        assert(stores[i]:put("key", "value"))
        local range = stores[i]:stat().address_bytes
        assert(range >= (i <= 8 and 1024 or 4) * GIB, i .. ": " .. range)
      end
      local strings = {}
      for i = 1, 4 do strings[i] = ("x"):rep(64 * MIB) end
      for _, db in ipairs(stores) do assert(db:put("more", "value")) end
      for _, db in ipairs(stores) do
        assert(db:get("more") == "value" and db:close())
      end
      local last = assert(mmcmap.open(path .. 1))
      return ("%d, %g"):format(#strings, last:stat().address_bytes / GIB)
    end)
    assert.equal("4, 1024", text)
  end)

  it("of addresses is asked for what max_size says, however many there are",
    function()
      if probe.sanitizer or (os.getenv("LD_PRELOAD") or "") ~= "" then
        return pending("a checking tool takes the addresses")
      end
      local text = run(function()
        local stores = {}
        for i = 1, 20 do stores[i] = assert(mmcmap.open(path .. i)) end
        local default = stores[20]:stat().address_bytes
        local large = assert(mmcmap.open(path, { max_size = 2 ^ 40 }))
        return tostring(large:stat().address_bytes / default)
      end)
      assert.is_true(tonumber(text) > 1, text)
    end)

  it("of addresses leaves a long file as much again to grow by", function()
    if probe.sanitizer or (os.getenv("LD_PRELOAD") or "") ~= "" then
      return pending("a checking tool takes the addresses")
    end
    assert(mmcmap.open(path)):close()
    local length = 1500 * MIB
    scratch.shell(("truncate -s %d %s"):format(length, scratch.quoted(path)))
    local text = run(function()
      local fd, maps = assert(probe.os.file_open(path, false)), {}
      for i = 1, 50 do
        maps[i] = assert(probe.os.map_open(fd, true, 1048576 * MIB, 4096))
      end
      local db = assert(probe.store.open(path))
      local text = tostring(db:stat().address_bytes / length)
      for _, map in ipairs(maps) do map:close() end
      return text
    end)
    assert.equal(2, tonumber(text), text)
  end)

  it("of file size refuses to grow, and goes on when it may", function()
    local text = run(function()
      probe.child.ignore(SIGXFSZ)
      local db = assert(mmcmap.open(path))
      assert(db:put("k", "v") and db:sync())
      probe.child.limit("fsize", db:size())
      local ok, message, code, last
      for i = 1, 3000 do
        ok, message, code = db:put("key " .. i, ("x"):rep(10000))
        if not ok then break end
        last = i
      end
      assert(not ok and code ~= "ECORRUPT" and code ~= "EBUSY", code)
      assert(message:find(path, 1, true))
      assert(db:get("k") == "v" and #db == 1 + (last or 0))
      probe.child.limit("fsize", 1e9)
      for i = 1, 100 do assert(db:put("key " .. i, ("y"):rep(10000))) end
      assert(db:close())
      return code
    end)
    assert.is_truthy(text:find("^E%u+$"), text)
    local db = helper.store({ timeout = 0 }, path)
    assert.equal(("y"):rep(10000), db:get("key 100"))
    assert(db:close())
    assert.same({}, peers.faults(path))
  end)

  it("of file size to make a store says so, and leaves nothing behind",
    function()
      local folder = helper.folder()
      path = folder .. "/store.mmc"
      for _, size in ipairs { 0, 100, 4096, 20000 } do
        local code = run(function()
          probe.child.ignore(SIGXFSZ)
          probe.child.limit("fsize", size)
          local db, message, code = mmcmap.open(path)
          if not db then
            assert(message:find(path, 1, true), message)
            return code
          end
          assert(db:close())
          return "made"
        end)
        assert.is_truthy(code == "made" or code:find("^E%u+$"), code)
        assert.not_equal("made", size < 4096 and code)
        assert(assert(mmcmap.open(path, { timeout = 0 })):remove())
        assert.equal("", helper.output_of("ls -A " .. helper.quoted(folder)))
      end
    end)

  it_if_shared("of file size does not hinder others", function()
    local db = helper.store({ timeout = 20 }, path)
    db:put("k", "v")
    local child = peers.fork { db = db }
    child:ask("probe.child.ignore(...)", SIGXFSZ)
    child:ask("probe.child.limit('fsize', 70000)")
    child:ask("for i = 1, 300 do db:put('child ' .. i, ('x'):rep(10000)) end")
    for i = 1, 300 do assert(db:put("key " .. i, ("x"):rep(10000))) end
    assert.equal("10000", child:ask("return #assert(db:get('key 300'))"))
    child:finish()
    assert.is_true(#db >= 301)
  end)
end)
