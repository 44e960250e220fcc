-- SPDX-License-Identifier: MIT
--
-- Every method of every object (spec/support/methods.lua has the table): what it does, what
-- it refuses, that it does the same while another process writes and with a collector
-- that runs after each call, and what a process leaves that is killed in the middle of it.

local helper = require "spec.support.helper"
local methods = require "spec.support.methods"
local peers = require "spec.support.peers"
local binary = require "spec.support.binary"
local probe = require "mmcmap_probe"

local raises, fails = helper.raises, helper.fails
local unpack_ = table.unpack or unpack -- luacheck: ignore 113

local OPEN = "{ durability = 'manual' }"

-- Calls f(type, name, method) for all of them, in the same order every time.
local function each(f)
  for kind, list in helper.sorted(methods.of) do
    for name, method in helper.sorted(list) do f(kind, name, method) end
  end
end

describe("every method", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
    methods.found(db)
  end)
  after_each(function()
    peers.kill_all()
    helper.close_all()
  end)

  local function args_of(method)
    if type(method.args) == "function" then return method.args(db) end
    return method.args
  end

  local function call(object, name, args)
    local f, count = methods.get(object, name), args.n or #args
    if type(object) == "table" then return f(unpack_(args, 1, count)) end -- the module
    return f(object, unpack_(args, 1, count))
  end

  it("is in the table, and nothing else", function()
    for kind, list in pairs(methods.of) do
      methods.with(kind, db, function(object)
        for name in pairs(list) do
          assert.equal("function", type(methods.get(object, name)), name)
        end
        for name, value in pairs(methods.list(object) or {}) do
          assert.is_true(list[name] ~= nil or type(value) ~= "function",
            name .. " of " .. kind)
        end
      end)
    end
  end)

  it("does what it is for", function()
    each(function(kind, name)
      for n = 1, 3 do methods.use(db, kind, name, n, "alone") end
    end)
    methods.check(db)
  end)

  it("refuses what is no object of its type", function()
    each(function(kind, name, method)
      if kind == "the module" then return end
      methods.with(kind, db, function(object)
        local f = methods.get(object, name)
        local words = kind .. " expected, got "
        local args = args_of(method)
        if #args == 0 then raises(words .. "no value", f) end
        local stranger = kind == "mmcmap" and db:map("own") or db
        for _, other in ipairs { "k", {}, io.stdout, print, stranger } do
          local called = type(other) == "userdata" and getmetatable(other).__name
          raises(words .. (called or type(other)), f, other,
            unpack_(args, 1, args.n or #args))
        end
      end)
    end)
  end)

  it("refuses wrong arguments, and changes nothing", function()
    local version = db:version()
    each(function(kind, name, method)
      methods.with(kind, db, function(object)
        if method.key then
          for _, wrong in ipairs { {}, { {} }, { true }, { print } } do
            raises("string expected, got ", call, object, name, wrong)
          end
        end
        for _, wrong in ipairs(method.wrong or {}) do
          raises(wrong[1], call, object, name, { unpack_(wrong, 2) })
        end
      end)
    end)
    assert.equal(version, db:version())
  end)

  it("refuses to change a store that is only read", function()
    db:put("k", "1")
    db:map("own"):put("k", "1")
    db:close()
    db = helper.store({ readonly = true }, path)
    each(function(kind, name, method)
      if not method.writes or kind == "mmcmap.transaction" then return end
      methods.with(kind, db, function(object)
        fails("EREADONLY", call(object, name, args_of(method)))
      end)
    end)
  end)

  it("refuses to change the store inside its own update", function()
    local own = db:map("own")
    db:update(function(tx)
      each(function(kind, name, method)
        if not method.writes and not method.own then return end
        local object = kind == "mmcmap" and db or kind == "mmcmap.map" and own
        if object then
          raises("inside its own update", call, object, name, args_of(method))
        end
      end)
      tx.k = "v"
    end)
    assert.equal("v", db.k)
  end)

  it("refuses to work when it has been closed", function()
    local last
    db:update(function(tx) last = tx end)
    local words = { ["mmcmap"] = "closed store", ["mmcmap.map"] = "the store is closed",
      ["mmcmap.transaction"] = "has ended", ["mmcmap.snapshot"] = "the store is closed",
      ["mmcmap.iterator"] = "the store is closed" }
    local objects, args = { ["mmcmap.transaction"] = last }, {}
    each(function(kind, _, method)
      if not words[kind] then return end
      if not objects[kind] then
        methods.with(kind, db, function(object) objects[kind] = object end)
      end
      args[method] = args_of(method)
    end)
    db:close()
    each(function(kind, name, method)
      if words[kind] and name ~= "close" then
        raises(words[kind], call, objects[kind], name, args[method])
      elseif words[kind] then
        call(objects[kind], name, {}) -- and again: no error
      end
    end)
  end)

  it("does what it is for while another process writes", function()
    local writer = peers.start(path, { open = OPEN })
    writer:tell([[
      local methods, n = require("spec.support.methods"), 0
      local stop = path .. "-stop"
      repeat
        n = n + 1
        methods.disturb(db, n)
      until n % 16 == 0 and helper.exists(stop)
      return n
    ]])
    for n = 1, 4 do
      each(function(kind, name) methods.use(db, kind, name, n, "disturbed") end)
    end
    helper.write(path .. "-stop", "")
    assert.is_true(tonumber(writer:answer()) > 100)
    methods.check(db)
  end)

  -- In a process of its own, whose state is small: there all of it is collected.
  it("does what it is for while the collector runs after every call", function()
    local peer = peers.start(path, { open = OPEN })
    assert.equal("true", peer:ask([[
      local methods, collections = require("spec.support.methods"), 0
      local getinfo, collect = debug.getinfo, collectgarbage
      debug.sethook(function()
        if getinfo(2, "S").what == "C" then
          collections = collections + 1
          collect()
        end
      end, "r")
      for kind, list in pairs(methods.of) do
        for name in pairs(list) do
          for n = 1, 2 do methods.use(db, kind, name, n, "collected") end
        end
      end
      debug.sethook()
      methods.check(db)
      return collections > 1000 or rawget(_G, "jit") ~= nil
    ]]))
    peer:finish()
    methods.check(db)
  end)

  -- No value is there by half, no group of them in part, and the accounts agree.
  for _, kind in ipairs { "mmcmap", "mmcmap.map", "mmcmap.transaction" } do
    it("leaves a whole store when its process is killed: " .. kind, function()
      local random = binary.random(binary.seed("kills in methods of " .. kind))

      local function kill_in(name)
        local me = "killed in " .. name
        local peer = peers.start(path, { open = OPEN })
        peer:count(([[
          local methods = require "spec.support.methods"
          for n = 1, 1e6 do
            methods.use(db, %q, %q, n, %q)
            reports(n)
          end
        ]]):format(kind, name, me), random(20))
        probe.os.sleep_ms(random(8) - 1)
        local last = peer:kill_counting()
        if random(2) == 1 then
          db:close()
          db = helper.store({ durability = "manual" }, path)
        end
        local ok, message = pcall(methods.check, db)
        assert.is_true(ok, ("%s, %d: %s"):format(me, last, tostring(message)))
        for _, saved in ipairs(db:snapshots()) do db:drop_snapshot(saved.name) end
        methods.use(db, kind, name, last + 2, me)
      end

      for _ = 1, os.getenv("MMCMAP_LONG") and 20 or 1 do
        for name, method in helper.sorted(methods.of[kind]) do
          if method.writes or method.own or name == "snapshot" then kill_in(name) end
        end
      end
      db:close()
      assert.same({}, peers.faults(path))
    end)
  end
end)
