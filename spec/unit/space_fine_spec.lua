-- SPDX-License-Identifier: MIT
--
-- Segments that get small pages when they are begun, and heads that leave those in large
-- ones, in the smallest store. What that is for is in api/trickle_spec.lua.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"

describe("small pages", function()
  local path, db

  if not crash.has_hooks then
    it("are made", function() pending("needs --enable-debug-checks") end)
    return
  end

  before_each(function() path = scratch.path("store") end)
  teardown(crash.remove_folder)
  after_each(function()
    probe.crash.breaks()
    if db then db:close() end
    db = nil
  end)

  for _, level in ipairs { "manual", "sync" } do
    it("leave the superblocks in the first segment alone: " .. level, function()
      probe.crash.breaks("FINE")
      db = scratch.open(path, { durability = level })
      local magic = scratch.read(path):sub(1, 8)
      local value, small = ("v"):rep(3000), 0
      for i = 1, 1500 do
        assert(db:put("key " .. i % 60, value .. i))
        if i % 10 == 0 then
          assert(db:sync())
          assert(db:step(1000))
          local bytes = scratch.read(path)
          assert.is_true(bytes:sub(1, 8) == magic, "the magic is gone after " .. i)
          small = math.max(small, #bytes)
        end
      end
      assert.is_true(small < 1500 * 3000 / 2) -- all segments have been used again
      local copy = assert(probe.verify.bytes(scratch.read(path)))
      assert.same({}, copy.failures)
      for i = 1441, 1500 do assert.equal(value .. i, db:get("key " .. i % 60)) end
    end)
  end

  it("let snapshots be taken without the lock while a transaction changes something",
    function()
      db = scratch.open(path)
      for i = 1, 20 do assert(db:put("key " .. i, "before")) end
      assert(db:sync())
      probe.crash.breaks("FINE") -- the first change leaves the heads
      local version = db:version()
      local txn = assert(db:begin())
      assert(txn:put("key 1", "changed"))
      assert.equal(version, db:version())
      local snapshot = assert(db:snapshot())
      assert.equal("before", snapshot:get("key 1"))
      assert(txn:commit())
      assert.equal("before", snapshot:get("key 1"))
      snapshot:close()
      assert.equal("changed", db:get("key 1"))
    end)
end)
