-- SPDX-License-Identifier: MIT
--
-- The tests are tested: each deliberate mistake of src/base/testing.h that has
-- to do with durability is switched on, and something must notice.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"

local scratch = require "spec.support.scratch"

-- The world keeps its promise, but not with these mistakes.
local function notices(world, ...)
  world.bound = world.bound or 150
  assert.is_nil(crash.world(world, true))
  probe.crash.breaks(...)
  local failure = crash.world(world, true)
  probe.crash.breaks()
  assert.truthy(failure, "not noticed")
end

local CASES = {
  { "DROP_SYNC", ops = "p0", durability = "sync" },
  { "DROP_SYNC", ops = "p0s_", durability = "manual" },
  { "IGNORE_SYNC_ERROR", ops = "p0s_p1f_s_", durability = "manual" },
  { "SKIP_FRAME_CHECKSUM", ops = "m0m1", durability = "sync" },
  { "SAME_SUPERBLOCK", ops = "p0r_p1r_", durability = "manual" },
  { "EARLY_SUPERBLOCK", ops = "m0m1", durability = "sync" },
  { "LEAVE_FRAME", ops = "p0l_p1s_", durability = "manual" },
  { "TRUST_LARGE_VALUES", ops = "p0P1", durability = "sync" },
  { "NO_REWRITE", ops = "p0s_m1f_s_r_m2s_", durability = "manual" },
  { "WRITE_SEALED", ops = "p0p1p0p1", durability = "sync" },
  { "RECYCLE_COMMITTED", ops = "c0s_c0s_", durability = "manual" },
  { "STATE_UNSYNCED", ops = "p0r_p1r_", durability = "manual" },
  { "STATE_UNSYNCED", ops = "p0p1r_p2r_", durability = "sync", interval = 1 },
  { "LOG_UNSYNCED", ops = "m0m1m0m1", durability = "sync", interval = 600 },
  { "LOG_UNSYNCED", ops = "m0s_m1s_m0s_m1s_", durability = "manual", interval = 600 },
  { "REUSE_UNSYNCED", ops = ("P0P1w_"):rep(5), durability = "manual", bound = 20 },
  { "REUSE_UNSYNCED", ops = ("P0P1"):rep(8), durability = "sync", interval = 70000,
    bound = 20 },
  { "SUPERBLOCK_UNSYNCED", ops = ("P0P1w_"):rep(5), durability = "manual", bound = 20 },
  { "FORGET_DROPPED", ops = "P0P1s_S0P0P1s_P0P1s_p3s_p3s_S0P0P1P0P1P0P1P0P1P0P1",
    durability = "manual", interval = 1, bound = 12 },
  { "UNCHAIN_HEAD", ops = ("P0P1"):rep(6), durability = "manual", bound = 20 },
  { "TRUST_COUNTS", ops = ("P0P1"):rep(6), durability = "manual", bound = 20 },
}

describe("deliberate mistakes", function()
  teardown(crash.remove_folder)
  after_each(function() probe.crash.breaks() end)

  if not crash.has_hooks then
    it("are noticed", function() pending("needs --enable-debug-checks") end)
    return
  end

  for _, case in ipairs(CASES) do
    it(("are noticed: %s in %s, %s%s"):format(case[1], case.ops, case.durability,
      case.interval and ", superblocks every " .. case.interval or ""),
      function()
        notices({ ops = case.ops, durability = case.durability, bound = case.bound,
          interval = case.interval, second = 20, second_bound = 20 }, case[1])
      end)
  end

  it("are noticed: REUSE_UNCOMMITTED, large values over those before", function()
    notices({ ops = ("P0"):rep(12), durability = "sync", bound = 20, second = 0 },
      "REUSE_UNCOMMITTED")
  end)

  -- Three things stand between a stale frame and a wrong commit: the salt, the
  -- chain of checksums, which tells frames apart that differ, and the epochs,
  -- which make even those differ that hold the same. So a world goes wrong only
  -- if salt and epochs fail together; each alone is seen directly.
  it("are noticed: KEEP_SALT with REUSE_EPOCHS, a lost future comes back",
    function()
      -- Frame 1 is lost, 2 is not. The same change again makes the same frame 1.
      notices({ ops = "m0l_m1s_", durability = "manual", second = 1,
        second_ops = "m0s_", second_bound = 60 }, "KEEP_SALT", "REUSE_EPOCHS")
    end)

  local function salts_of_two_sessions()
    local path, salts = crash.path("salts"), {}
    os.remove(path)
    for i = 1, 2 do
      -- A process that dies, and the machine with it: no lock file outlives
      -- that.
      os.remove(path .. "-lock")
      probe.child.run(function()
        local db = assert(probe.store.open(path, { durability = "sync" }))
        assert(db:put("key", "value " .. i))
        probe.child.raise(9)
      end)
      local image = scratch.read(path)
      for _, at in ipairs { 0, 8192 } do
        salts[#salts + 1] = image:sub(at + 57, at + 64)
      end
    end
    os.remove(path)
    local seen, fresh = {}, 0
    for _, salt in ipairs(salts) do
      if not seen[salt] then fresh = fresh + 1 end
      seen[salt] = true
    end
    return fresh
  end

  it("are noticed: KEEP_SALT alone, by the salts of two sessions", function()
    assert.equal(3, salts_of_two_sessions()) -- creation has one, too
    probe.crash.breaks("KEEP_SALT")
    assert.equal(1, salts_of_two_sessions())
  end)

  -- A version that was seen before a crash is never that of another content.
  local function versions_around_a_crash()
    local path = crash.path("versions")
    os.remove(path)
    local child = probe.child.start(function()
      local db = assert(probe.store.open(path, { durability = "manual" }))
      assert(db:put("key", "kept"))
      assert(db:sync())
      assert(db:put("key", "lost"))
      probe.child.say(assert(db:version()))
      probe.child.raise(9)
    end)
    local before = child:line()
    child:wait()
    os.remove(path .. "-lock") -- the machine dies with it
    local db = assert(probe.store.open(path, { durability = "manual" }))
    assert.equal("kept", db:get("key"))
    assert(db:put("key", "other"))
    local after = assert(db:version())
    assert(db:close())
    os.remove(path)
    return before, after
  end

  it("are noticed: REUSE_EPOCHS, by versions around a crash", function()
    local before, after = versions_around_a_crash()
    assert.not_equal(before, after)
    probe.crash.breaks("REUSE_EPOCHS")
    before, after = versions_around_a_crash()
    assert.equal(before, after)
  end)
end)
