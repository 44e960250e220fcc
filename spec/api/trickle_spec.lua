-- SPDX-License-Identifier: MIT
--
-- Few changes between two commits, in a store that was filled at once: the kernel has
-- the file in pages of up to 2 MiB, and writes all of one that anything was stored into.
-- What is written then lies in pages of 4 KiB, and a commit costs some of these. Where
-- the kernel has small pages alone, this is so by itself.

local helper = require "spec.support.helper"

local MIB = 1048576

-- Bytes that this process has made the kernel write, or nil.
local function written()
  local file = io.open("/proc/self/io")
  local text = file and file:read("*a") or ""
  if file then file:close() end
  return tonumber(text:match("\nwrite_bytes: (%d+)"))
end

describe("few changes in a large store", function()
  after_each(helper.close_all)

  local function fill(db)
    local value = ("v"):rep(1000)
    for i = 1, 30000 do db:put("key " .. i, value .. i) end
    assert(db:sync())
    assert(db:size() > 30 * MIB)
  end

  -- The end of the file has just been written, and grows.
  local function just_filled(path, durability)
    local db = helper.store({ durability = "async", flush_interval = 60000 }, path)
    fill(db)
    return durability == "manual" and db or helper.store({ durability = durability }, path)
  end

  -- Segments in the middle are free, and are used again.
  local function opened_again(path, durability)
    local db = helper.store({ durability = "async", flush_interval = 60000 }, path)
    fill(db)
    for i = 1001, 10000 do assert(db:delete("key " .. i)) end
    assert(db:close())
    return helper.store({ durability = durability }, path)
  end

  local function put(db, i) db:put("key " .. i, "changed " .. i) end

  local CASES = {
    { "a put", put },
    { "a put that is durable by itself", put, durability = "sync" },
    { "a transaction", function(db, i)
      db:update(function(tx)
        tx:put("key " .. i, "changed " .. i)
        tx:put("new " .. i, "new")
      end)
    end },
    { "a put into a map", function(db, i)
      put(db, i)
      db:map("map"):put("key " .. i, "changed " .. i)
    end },
    { "a large value", function(db, i)
      put(db, i)
      db:put("large " .. i % 20, ("L"):rep(40000))
    end, most = 400000 },
  }
  for _, case in ipairs(CASES) do
    for word, make in pairs { ["just filled"] = just_filled,
      ["opened again"] = opened_again } do
      it(("make a commit write little: %s, %s"):format(case[1], word), function()
        if not written() then return pending("needs /proc/self/io") end
        local path = helper.path()
        local db = make(path, case.durability or "manual")
        local function change(first, last)
          for i = first, last do
            case[2](db, i)
            assert(db:sync())
          end
        end
        change(1, 20) -- until it is known that commits are small
        local before, count = written(), 200
        change(21, 20 + count)
        local each = (written() - before) / count
        assert.is_true(each < (case.most or 60000), ("%.0f bytes"):format(each))
        for i = 1, 20 + count do assert.equal("changed " .. i, db:get("key " .. i)) end
        assert.is_true(db:check())
        helper.close_all()
        db = helper.store({}, path)
        assert.equal("changed 7", db:get("key 7"))
        assert.equal(("v"):rep(1000) .. 30000, db:get("key 30000"))
        assert.is_true(db:check())
      end)
    end
  end

  -- The file is then written to in large pieces again.
  it("do not make much slower what comes after them", function()
    if not written() then return pending("needs /proc/self/io") end
    local db = helper.store { durability = "manual" }
    fill(db)
    for i = 1, 20 do
      db:put("key " .. i, "changed")
      assert(db:sync())
    end
    local size, value = db:size(), ("w"):rep(1000)
    for i = 1, 20000 do db:put("more " .. i, value) end
    assert.is_true(db:size() > size + 15 * MIB)
    assert.equal(0, db:size() % (2 * MIB))
  end)
end)
