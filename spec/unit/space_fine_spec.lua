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
    probe.os.restore()
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

  -- Records that are alive, and segments that are free.
  local function fill()
    local value = ("v"):rep(3000)
    db = scratch.open(path)
    for i = 0, 999 do assert(db:put("key " .. i, value .. i)) end
    assert(db:sync())
    for i = 200, 599 do assert(db:delete("key " .. i)) end
    assert(db:sync())
    assert(db:step(1000))
    assert.is_true(scratch.usage(db).free >= 2)
  end

  -- On XFS a segment that is to be zeroed can lose its blocks to other files.
  it("cost one segment on a full disk, which says so", function()
    fill()
    local holes = scratch.usage(db).holes
    probe.crash.breaks("FINE")
    probe.os.pretend_full_disk()
    for i = 1, 200 do
      assert(db:put("key " .. i % 60, "small " .. i))
      assert(db:sync())
      local _, blocks, size = probe.os.stat(path)
      local now = scratch.usage(db).holes
      assert.is_true(blocks + now * scratch.SEGMENT >= size)
      assert.is_true(now <= holes + 1, "holes: " .. now)
    end
    for i = 0, 59 do assert(db:delete("key " .. i)) end
    assert(db:sync())
    probe.os.restore()
    for i = 1, 60 do assert(db:put("key " .. i, "new")) end
    assert(db:sync())
    assert.same({}, assert(probe.verify.bytes(scratch.read(path))).failures)
  end)

  -- XFS refuses to allocate even what is there.
  it("are not needed for a store that is opened on a full disk", function()
    fill()
    assert(db:close())
    db = scratch.open(path)
    probe.os.pretend_full_disk()
    for i = 1, 100 do assert(db:put("key " .. i % 60, "small " .. i)) end
    assert(db:sync())
    local counts = probe.os.counts()
    assert.is_true(counts.fallocate < 100, counts.fallocate .. " calls")
    for i = 41, 100 do assert.equal("small " .. i, db:get("key " .. i % 60)) end
  end)

  -- A head would leave its segment after each commit.
  it("are not made of segments that are larger than a page of the kernel", function()
    db = scratch.open(path, { segment_size = 4194304 })
    for i = 1, 100 do assert(db:put("key " .. i, ("v"):rep(1000))) end
    assert(db:sync())
    probe.crash.breaks("FINE")
    for i = 1, 20 do
      assert(db:put("key " .. i, "changed"))
      assert(db:sync())
    end
    assert.is_true(db:size() < 4194304, "it is " .. db:size())
  end)
end)
