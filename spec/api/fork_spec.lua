-- SPDX-License-Identifier: MIT
--
-- fork(): a store that was open before it can be used after it, in the parent
-- and in the child. The child's own rows, locks and flusher begin at its first
-- use; what it inherited of snapshots answers with EFORK.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local peers = require "spec.support.peers"
local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"

local it_if_shared = helper.it_if_shared(it, function(why) pending(why) end)

local SIGKILL = 9
local LEVELS = { "async", "manual", "sync" }

local path

local function prepare() path = helper.path() end

local function clean_up()
  peers.kill_all()
  helper.close_all()
end

-- Whether nobody has the store any more, nor the locks of one that had it.
local function is_free()
  local db = assert(mmcmap.open(path, { timeout = 0 }))
  local removed, message = db:remove()
  db:close()
  return removed == true, message
end

local function eventually(test)
  for _ = 1, 400 do
    if test() then return true end
    probe.os.sleep_ms(25)
  end
  return false
end

describe("a store that was opened before a fork", function()
  before_each(prepare)
  after_each(clean_up)

  for _, level in ipairs(LEVELS) do
    it_if_shared("is read and written in the child, level " .. level,
      function()
        local db = helper.store({ durability = level }, path)
        db:put("k", "v")
        local child = peers.fork { db = db }
        assert.equal("v", child:ask("return db:get('k')"))
        for i = 1, 30 do
          assert.equal("true", child:ask("return db:put('child', ...)", i))
          assert.equal(tostring(i), db:get("child"))
          assert.is_true(db:put("parent", i))
          assert.equal(tostring(i), child:ask("return db:get('parent')"))
        end
        assert.equal("3", child:ask("return #db"))
        assert.equal("true", child:ask("return db:sync()"))
        child:finish()
        assert(db:close())
        assert.same({}, peers.faults(path))
        assert.equal(3, #helper.store(nil, path))
      end)
  end

  it_if_shared("is used in the child first of all", function()
    local db = helper.store(nil, path)
    local child = peers.fork { db = db }
    child:ask("db:put('k', 'v')")
    assert.equal("v", db:get("k"))
    db:put("k2", "v2")
    assert.equal("v2", child:ask("return db:get('k2')"))
  end)

  it_if_shared("takes what parent and children write together", function()
    local db = helper.store({ timeout = 60 }, path)
    local children = {}
    for i = 1, 4 do
      children[i] = peers.fork { db = db }
      children[i]:tell([[
        for i = 1, 1000 do
          assert(db:put(... .. " " .. i, i))
          assert(db:get(... .. " " .. i) == tostring(i))
        end
      ]], i)
    end
    for i = 1, 1000 do assert(db:put("parent " .. i, i)) end
    for i = 1, 4 do children[i]:answer() end
    for i = 1, 4 do children[i]:finish() end
    assert.equal(5000, #db)
    for i = 1, 4 do
      for j = 1, 1000 do assert.equal(tostring(j), db:get(i .. " " .. j)) end
    end
    assert(db:close())
    assert.same({}, peers.faults(path))
  end)

  it_if_shared("works in a grandchild, whether its parent used it or not",
    function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      for _, used in ipairs { "db:get('k')", "" } do
        local child = peers.fork { db = db }
        child:ask(used .. " grandchild = peers.fork { db = db }")
        assert.equal("v true", child:ask(
          [[return grandchild:ask("return db:get('k'), db:put('g', 'w')")]]))
        assert.equal("w", db:get("g"))
        assert.equal("w", child:ask("return db:get('g')"))
        child:ask("grandchild:finish()")
        assert.is_true(db:delete("g"))
        child:finish()
      end
    end)

  it_if_shared("has a flusher of its own in the child", function()
    local db = helper.store({ flush_interval = 0.05 }, path)
    local child = peers.fork { db = db }
    child:ask("db:put('k', 'v')")
    assert.is_true(eventually(function()
      local copy = helper.path()
      helper.run("cp %s %s", path, copy)
      local copied = helper.store(nil, copy)
      local found = copied:get("k")
      copied:close()
      return found == "v"
    end))
  end)

  it_if_shared("is forked while other threads of the parent write", function()
    if probe.sanitizer == "address" then
      return pending("a child may find that allocator's locks taken for ever")
    end
    local output = scratch.shell(("%s forks %s 60 3 2>&1; echo status=$?")
      :format(scratch.quoted(os.getenv("MMCMAP_BUILD_DIR") .. "/sharer"),
        scratch.quoted(path)))
    assert.equal("status=0", output)
    assert.same({}, peers.faults(path))
  end)

  it_if_shared("is forked a hundred times, and nothing piles up", function()
    local db = helper.store(nil, path)
    local before = probe.os.descriptor_count()
    for i = 1, 100 do
      local text, _, status = probe.child.run(function()
        assert(db:put("child " .. i, i))
        return db:get("child " .. i)
      end)
      assert.equal("0 " .. i, status .. " " .. text)
    end
    assert.equal(100, #db)
    assert.is_true(probe.os.descriptor_count() <= before + 1)
  end)

  it_if_shared("may be opened anew in the child, beside the inherited handle",
    function()
      local db = helper.store(nil, path)
      local child = peers.fork { db = db, mmcmap = mmcmap, path = path }
      child:ask("new = assert(mmcmap.open(path, { timeout = 0 }))")
      child:ask("new:put('k', 'v')")
      assert.equal("v", child:ask("return db:get('k')"))
      child:ask("db:put('k', 'w')")
      assert.equal("w w", child:ask("return new:get('k'), db:get('k')"))
      child:ask("assert(db:close())")
      assert.equal("w", child:ask("return new:get('k')"))
      child:ask("assert(new:close())")
      assert.equal("w", db:get("k"))
    end)

  it_if_shared("keeps its options in the child", function()
    helper.store(nil, path):put("k", "v")
    helper.close_all()
    local db = helper.store({ readonly = true }, path)
    local writer = peers.start(path)
    local child = peers.fork { db = db }
    writer:ask("db:put('k', 'w')")
    assert.equal("w", child:ask("return db:get('k')"))
    assert.equal("EREADONLY", child:ask("return select(3, db:put('k', 'x'))"))
  end)

  it_if_shared("is found again from another working directory", function()
    local folder = helper.folder()
    local parent = peers.launch("store.mmc", { through = { "sh", "-c",
      'cd "$0" && exec "$@"', folder } })
    parent:ask("db = assert(mmcmap.open(path)) db:put('k', 'v')")
    parent:ask("child = peers.fork { db = db }")
    assert.equal("v", parent:ask([[
      child:ask("probe.child.chdir('/')")
      return child:ask("return db:get('k')")
    ]]))
    parent:ask("child:finish()")
  end)

  it_if_shared("is no other file in the child that has its name by then",
    function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      local child = peers.fork { db = db }
      assert(db:close())
      helper.run("mv %s %s.away", path, path)
      helper.run("mv %s-lock %s.away-lock", path, path)
      local other = helper.store(nil, path)
      other:put("k", "of another file")
      local found = child:ask("return db:get('k')")
      assert.not_equal("of another file", found)
      child:ask("db:put('k', 'from the child')")
      assert.equal("of another file", other:get("k"))
    end)

  it_if_shared("is an error in the child if the parent has removed it",
    function()
      local db = helper.store(nil, path)
      db:put("k", "v")
      local child = peers.fork { db = db }
      assert.is_true(db:remove())
      assert.equal("true", child:ask([[
        local value, message, code = db:get("k")
        return value == nil and type(message) == "string"
          and type(code) == "string"
      ]]))
      assert.is_false(helper.exists(path))
      child:finish()
    end)
end)

describe("what a child inherits of snapshots", function()
  before_each(prepare)
  after_each(clean_up)

  it_if_shared("answers with EFORK", function()
    local db = assert(probe.store.open(path))
    db:put("k", "v")
    local snapshot = assert(db:snapshot())
    local child = peers.fork { db = db, snapshot = snapshot }
    assert.equal("EFORK", child:ask("return (select(2, snapshot:get('k')))"))
    assert.equal("EFORK", child:ask("return (select(2, snapshot:records()))"))
    assert.equal("v", child:ask("return db:get('k')"))
    assert.equal("EFORK", child:ask("return (select(2, snapshot:get('k')))"))
    assert.equal("v", child:ask("return db:snapshot():get('k')"))
    child:ask("snapshot:close()")
    assert.equal("v", snapshot:get("k"))
    child:finish()
    snapshot:close()
    db:close()
  end)

  it_if_shared("raises from iterators, in the child alone", function()
    local db = helper.store(nil, path)
    for i = 1, 100 do db:put("key " .. i, i) end
    local next_record, state = db:pairs()
    next_record(state)
    local child = peers.fork { db = db, next_record = next_record,
      state = state }
    local answer = child:ask("return pcall(next_record, state)")
    assert.is_truthy(answer:find("^false .*fork"), answer)
    assert.equal("100", child:ask([[
      local count = 0
      for _ in db:pairs() do count = count + 1 end
      return count
    ]]))
    local count = 1
    for _ in next_record, state do count = count + 1 end
    assert.equal(100, count)
  end)

  for _, way in ipairs { "closed", "collected", "left", "killed with" } do
    it_if_shared("stays the parent's when it is " .. way .. " in the child",
      function()
        local db = helper.store({ durability = "manual" }, path)
        for i = 1, 300 do db:put("key " .. i, ("old"):rep(50)) end
        local scope = { db = db }
        scope.next_record, scope.state = db:pairs()
        local next_record, state = scope.next_record, scope.state
        next_record(state)
        local child = peers.fork(scope)
        child:ask("db:get('key 1')")
        if way == "closed" then
          child:ask("state:close() db:close()")
        elseif way == "collected" then
          child:ask([[
            getmetatable(state).__gc(state)
            getmetatable(db).__gc(db)
            collectgarbage()
            collectgarbage()
          ]])
        end
        if way == "killed with" then child:kill() else child:finish() end
        for round = 1, 40 do
          for i = 1, 300 do db:put("key " .. i, ("new"):rep(50) .. round) end
          if round % 8 == 0 then assert(db:sync()) end
        end
        local count = 1
        for _, value in next_record, state do
          assert.equal(("old"):rep(50), value)
          count = count + 1
        end
        assert.equal(300, count)
      end)
  end
end)

describe("the end of a child", function()
  before_each(prepare)
  after_each(clean_up)

  -- The parent still has the store, and its locks, and nobody else.
  local function assert_parent_goes_on(parent)
    assert.equal("v true w", parent:ask([[
      return db:get("k"), db:put("k2", "w"), db:get("k2")
    ]]))
    assert.is_false((is_free()))
    parent:finish()
    assert.is_true(is_free())
  end

  local ends = {
    ["by close()"] = "assert(db:close())",
    ["by close() after using it"] = "assert(db:put('c', 'd') and db:close())",
    ["by collection"] = "db = nil collectgarbage() collectgarbage()",
    ["by a finalizer called by hand"] = "getmetatable(db).__gc(db)",
    ["by the end of its state"] = "os.exit(0, true)",
    ["by the end of its state after using it"] =
      "assert(db:put('c', 'd')) os.exit(0, true)",
    ["by exec"] = "probe.child.become('true')",
    ["by exec after using it"] = "db:put('c', 'd') probe.child.become('true')",
    ["by a kill"] = "probe.child.raise(9)",
    ["by a kill after using it"] = "db:put('c', 'd') probe.child.raise(9)",
  }
  for way, code in helper.sorted(ends) do
    it_if_shared("does not disturb its parent: " .. way, function()
      local parent = peers.start(path)
      parent:ask("db:put('k', 'v')")
      parent:ask("probe.child.run(function() " .. code .. " end)")
      assert_parent_goes_on(parent)
    end)
  end

  it_if_shared("within a change is survived by its parent", function()
    if not probe.crash.has_hooks then
      return pending("needs --enable-debug-checks")
    end
    for n = 1, 8 do
      prepare()
      local db = assert(probe.store.open(path, { timeout_ms = 20000 }))
      db:put("k", "v")
      local child = peers.fork { db = db }
      child:ask("probe.crash.die_at_point(tonumber((...)))", n)
      child:tell("for i = 1, 100 do db:put('key ' .. i, i) reports(i) end")
      local last = child:end_counting()
      for i = 1, last do assert.equal(tostring(i), db:get("key " .. i)) end
      assert.is_true(db:put("afterwards", "v"))
      assert.equal(db:count(), select(2, db:records()))
      assert(db:close())
      assert.same({}, peers.faults(path))
    end
  end)

  it_if_shared("and its parent's remove(), the other way round", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    local child = peers.fork { db = db }
    child:ask("db:get('k')")
    assert.equal("EBUSY", select(3, db:remove()))
    assert.equal("EBUSY", child:ask("return select(3, db:remove())"))
    assert.equal("v", child:ask("return db:get('k')"))
    child:finish()
    assert.is_true(db:remove())
  end)
end)

describe("the end of a parent", function()
  before_each(prepare)
  after_each(clean_up)

  local IDLE = "return peers.orphan(function(wait) while wait() do end end)"

  for _, way in ipairs { "kill", "finish" } do
    it_if_shared("(" .. way .. ") frees the store, idle children or not",
      function()
        local parent = peers.start(path)
        parent:ask("db:put('k', 'v')")
        local idle = tonumber(parent:ask(IDLE))
        assert.is_false((is_free()))
        parent[way](parent)
        assert.is_true(is_free())
        assert.is_true(peers.is_alive(idle))
        probe.child.signal(idle, SIGKILL)
      end)

    it_if_shared("(" .. way .. ") leaves the store to others, who close it clean",
      function()
        local parent, other = peers.start(path), peers.start(path)
        local idle = tonumber(parent:ask(IDLE))
        parent:ask("db:put('k', 'v')")
        parent[way](parent)
        assert.equal("v true", other:ask("return db:get('k'), db:put('k', 'w')"))
        other:finish()
        os.remove(path .. "-lock")
        local db = helper.store({ readonly = true, lock = false }, path)
        assert.is_true(db:stat().was_clean)
        assert.equal("w", db:get("k"))
        assert.is_true(peers.is_alive(idle))
        probe.child.signal(idle, SIGKILL)
      end)

    it_if_shared("(" .. way .. ") leaves a child that goes on", function()
      for _, used in ipairs { "db:get('k')", "" } do
        prepare()
        local go, result = helper.path(".go"), helper.path(".result")
        local parent = peers.start(path, { open = "{ durability = 'manual' }" })
        parent:ask("db:put('k', 'v')")
        local orphan = tonumber(parent:ask([[
          local go, result = ...
          return peers.orphan(function(wait)
            ]] .. used .. [[
            while wait() and not helper.exists(go) do end
            helper.write(result, db:get("k") .. " "
              .. tostring(db:put("k2", "of the orphan")))
            assert(db:close())
          end)
        ]], go, result))
        if used ~= "" then probe.os.sleep_ms(100) end
        parent[way](parent)
        helper.write(go, "")
        assert.is_true(eventually(function()
          return helper.exists(result) and helper.read(result) == "v true"
        end))
        assert.is_true(eventually(function()
          return not peers.is_alive(orphan)
        end))
        local db = helper.store({ timeout = 0 }, path)
        assert.equal("of the orphan", db:get("k2"))
        assert.equal(2, #db)
      end
    end)
  end

  it_if_shared("frees the store, programs that it has started or not", function()
    local parent = peers.start(path)
    parent:ask("db:put('k', 'v')")
    parent:ask("os.execute('sleep 3 </dev/null >/dev/null 2>&1 &')")
    parent:kill()
    assert.is_true(is_free())
  end)

  it("leaves no descriptor of the store to programs", function()
    helper.store(nil, path):put("k", "v")
    local output = helper.output_of("ls -l /proc/self/fd")
    assert.is_nil(output:find(path, 1, true), output)
    output = scratch.shell("ls -l /proc/self/fd")
    assert.is_nil(output:find(path, 1, true), output)
  end)
end)
