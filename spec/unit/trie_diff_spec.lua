-- SPDX-License-Identifier: MIT
--
-- The walk through two tries side by side: keys with equal hashes, the number of
-- nodes that it looks at, and tries that no writer has made.

local binary = require "spec.support.binary"
local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"

local NONE = "0000000000000000"
local ALL = "ffffffffffffffff"
local SEGMENT = 131072

local engine

local function open(options)
  options = options or {}
  engine = assert(probe.engine.new { path = scratch.path("engine"),
    segment_size = SEGMENT, primary_mask = options[1],
    secondary_mask = options[2] })
end

-- The root now, sealed.
local function moment()
  local root = engine:state().root
  assert(engine:seal())
  return root
end

local function content_of(root, count)
  return (assert(engine:records(root, count or 1000000)))
end

local function expected(a, b)
  local wanted = {}
  for key, old in pairs(a) do
    if b[key] ~= old then wanted[key] = { old, b[key] or false } end
  end
  for key, new in pairs(b) do
    if a[key] == nil then wanted[key] = { false, new } end
  end
  return wanted
end

describe("trie.diff", function()
  after_each(function() engine:close() end)

  for _, masks in ipairs { { ALL, ALL }, { "ff00000000000000", ALL },
    { NONE, ALL }, { NONE, "f000000000000000" }, { NONE, NONE },
    { "fff0000000000000", NONE } } do
    it("is right with hashes narrowed to " .. masks[1] .. " " .. masks[2],
      function()
        open(masks)
        local seed = 7
        local function random(n)
          seed = (seed * 16807) % 2147483647
          return seed % n + 1
        end
        local roots = { NONE }
        for i = 2, 12 do
          for _ = 1, random(i % 3 == 0 and 90 or 6) do
            local key = "key " .. random(70)
            if random(3) == 1 then
              engine:remove(key)
            else
              assert(engine:put(key, "value " .. random(2)) ~= nil)
            end
          end
          roots[i] = moment()
        end
        for a = 1, 12 do
          for b = 1, 12 do
            local found, count = assert(engine:diff(roots[a], roots[b]))
            local wanted = expected(content_of(roots[a]), content_of(roots[b]))
            assert.same(wanted, found)
            local keys = 0
            for _ in pairs(wanted) do keys = keys + 1 end
            assert.equal(keys, count)
          end
        end
      end)
  end

  it("looks at the changed part alone", function()
    open()
    for i = 1, 5000 do assert(engine:put("key " .. i, "value") ~= nil) end
    local a = moment()
    for i = 1, 10 do assert(engine:put("key " .. i, "changed") ~= nil) end
    local b = moment()
    -- Of each changed record both versions, and the branches on the way.
    local _, count = assert(engine:diff(a, b, 10 * 2 + 2 * (1 + 10 + 10)))
    assert.equal(10, count)
    assert.equal(0, (select(2, assert(engine:diff(a, a, 0)))))
  end)

  it("reports what is damaged, once", function()
    open()
    for i = 1, 200 do assert(engine:put("key " .. i, "value") ~= nil) end
    local a = moment()
    for i = 1, 200 do assert(engine:put("key " .. i, "changed") ~= nil) end
    local b = moment()
    local at = math.floor(binary.number("0000" .. b:sub(5)) / 2) * 8
    for _, case in ipairs {
      { 15, "\2", "F21 node kind" }, { 14, "\1", "F24 branch level" },
      { 16, ("\0"):rep(8), "F25 branch slots" },
      { 24, binary.u64("0000ffffffffffff"), "F20 slot beyond the file" },
    } do
      local whole = engine:bytes(at + case[1], #case[2])
      engine:poke(at + case[1], case[2])
      local found, code, what = engine:diff(a, b)
      assert.is_nil(found)
      assert.equal("ECORRUPT", code)
      assert.equal(case[3], what)
      engine:poke(at + case[1], whole)
    end
    assert.equal(200, (select(2, assert(engine:diff(a, b)))))
  end)

  it("ends on a trie whose branches lead to each other many times", function()
    open { NONE, NONE }
    -- Chains of branches with one slot; made wide, each slot the same.
    for i = 1, 3 do assert(engine:put("key " .. i, "value") ~= nil) end
    local a = moment()
    for i = 1, 3 do assert(engine:put("key " .. i, "changed") ~= nil) end
    local b = moment()
    local found, code, what = engine:diff(a, b, 20)
    assert.is_nil(found)
    assert.equal("ECORRUPT", code)
    assert.equal("F38 nodes overlap", what)
  end)
end)
