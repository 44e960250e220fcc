-- SPDX-License-Identifier: MIT
--
-- Two copies of the engine in one process, as when a program links the C
-- library and loads the Lua module too: they know nothing of each other, so
-- they must be as good as two processes. And two Lua states with one copy.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local probe = require "mmcmap_probe"

-- Another file with the same code: the loader maps it a second time.
local function copy_of_module()
  local original
  for template in package.cpath:gmatch("[^;]+") do -- 5.1 has no searchpath
    local file = io.open((template:gsub("%?", "mmcmap/core")), "rb")
    if file and not original then original = file:read("*a") end
    if file then file:close() end
  end
  local path = helper.path() .. ".so"
  local file = assert(io.open(path, "wb"))
  file:write((assert(original)))
  file:close()
  return path
end

local function load_copy()
  local open = assert(package.loadlib(copy_of_module(), "luaopen_mmcmap_core"))
  return open()
end

describe("two copies of the engine", function()
  local other = load_copy()

  after_each(helper.close_all)

  it("are two", function()
    assert.not_equal(mmcmap.open, other.open)
  end)

  it("have stores of their own side by side", function()
    local a = helper.store()
    local b = assert(other.open(helper.path()))
    a:put("k", "of a")
    b:put("k", "of b")
    assert.equal("of a", a:get("k"))
    assert.equal("of b", b:get("k"))
    assert.equal(1, #b)
    for key, value in b:pairs() do assert.equal("k=of b", key .. "=" .. value) end
    assert.is_true(b:close())
    assert.equal("of a", a:get("k"))
  end)

  it("write to one file in turn", function()
    local path = helper.path()
    local a = helper.store(nil, path)
    local b = assert(other.open(path, { timeout = 0 }))
    for i = 1, 100 do
      a:put("k", "a" .. i)
      assert.equal("a" .. i, b:get("k"))
      b:put("k", "b" .. i)
      assert.equal("b" .. i, a:get("k"))
    end
    assert.is_true(a:close())
    assert.is_true(b:put("k2", "v2"))
    assert.is_true(b:close())
    assert.equal(2, #helper.store(nil, path))
  end)

  it("have snapshots of one file that the other does not disturb", function()
    local path = helper.path()
    local a = helper.store(nil, path)
    for i = 1, 100 do a:put("key " .. i, "old") end
    local b = assert(other.open(path))
    local next_record, state = b:pairs()
    for round = 1, 50 do
      for i = 1, 100 do a:put("key " .. i, "new " .. round) end
    end
    for _, value in next_record, state do assert.equal("old", value) end
    assert.equal("new 50", b:get("key 1"))
    assert.is_true(b:close())
  end)

  it("read one file at once", function()
    local path = helper.path()
    local a = helper.store(nil, path)
    a:put("k", "v")
    a:close()
    a = helper.store({ readonly = true }, path)
    local b = assert(other.open(path, { readonly = true, timeout = 0 }))
    assert.equal("v", a:get("k"))
    assert.equal("v", b:get("k"))
    b:close()
    assert.equal("v", a:get("k"))
  end)

  it("refuse each other's objects", function()
    local a = helper.store()
    local b = assert(other.open(helper.path()))
    assert.has_error(function() b.get(a, "k") end)
    assert.has_error(function() a.get(b, "k") end)
    b:close()
  end)

  it("are collected in any order", function()
    -- Small ones: all are open at once, and where addresses are few, as under
    -- valgrind, the first ones would take them all.
    local small = { max_size = 2 ^ 20 }
    for _ = 1, 20 do
      local a, b = helper.store(small), assert(other.open(helper.path(), small))
      a:put("k", "v")
      b:put("k", "v")
      local next_a, of_a = a:pairs()
      local next_b, of_b = b:pairs()
      assert.equal("k", next_a(of_a))
      assert.equal("k", next_b(of_b))
    end
    collectgarbage()
  end)
end)

describe("two Lua states with one engine", function()
  after_each(helper.close_all)

  local function new_state()
    local vm = probe.vm.open()
    vm:run("package.path, package.cpath = ...", package.path, package.cpath)
    vm:run("mmcmap = require 'mmcmap'")
    return vm
  end

  -- As a server does that reads its configuration again: the new state opens
  -- the store before the old one's handle is collected.
  it("have a store open before the other's handle is collected", function()
    local path = helper.path()
    local old, new = new_state(), new_state()
    old:run("db = assert(mmcmap.open((...))) db:put('k', 'v')", path)
    old:run("db:pairs() db = nil")
    new:run("db = assert(mmcmap.open(..., { timeout = 0 }))", path)
    assert.equal("v", new:run("return db:get('k')"))
    new:run("assert(db:put('k', 'w'))")
    old:close()
    assert.equal("w", new:run("return db:get('k')"))
    assert.equal("true", new:run("return db:put('k', 'x')"))
    local third = new_state()
    third:run("db = assert(mmcmap.open(..., { timeout = 0 }))", path)
    assert.equal("x", third:run("return db:get('k')"))
    new:close()
    assert.equal("true", third:run("return db:remove()"))
    third:close()
    assert.is_false(helper.exists(path))
  end)

  -- A state that is closed unloads its modules; but what a thread has claimed is
  -- given back when the thread ends, and what is to happen around fork() is asked
  -- of the module for as long as the process lives.
  it("leave the code where it is when the last of them is closed", function()
    local code = ([[
      local open = assert(package.loadlib(%q, "luaopen_mmcmap_core"))
      local db = assert(open().open(%q))
      assert(db:put("k", "v") and db:get("k") == "v")
      assert(db:close())
    ]]):format(copy_of_module(), helper.path())
    local text, how, status = probe.child.run(function()
      for _ = 1, 3 do assert(probe.vm.run_in_thread(code)) end
      return "went on " .. select(3, probe.child.run(function() return "" end))
    end)
    assert.same({ "went on 0", "exit", 0 }, { text, how, status })
  end)

  it("end in any order", function()
    local path = helper.path()
    local states = {}
    for i = 1, 8 do
      states[i] = new_state()
      states[i]:run("db = assert(mmcmap.open((...)))", path)
      states[i]:run("next_record, state = db:pairs()")
      states[i]:run("assert(db:put(..., 'v'))", i)
    end
    for _, i in ipairs { 3, 8, 1, 5, 2, 7, 6 } do
      states[i]:close()
      assert.equal("8", states[4]:run("return db:count()"))
    end
    states[4]:close()
    assert.equal(8, #helper.store({ timeout = 0 }, path))
  end)
end)
