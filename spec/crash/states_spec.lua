-- SPDX-License-Identifier: MIT
--
-- Every state that a power cut may leave of a small store: verified, opened,
-- its content compared with what was promised, written to, opened again, and
-- cut again while it recovers. probe_crash.h tells how worlds are written.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"

local LEVELS = { "sync", "manual", "async" }
-- Keys are as good as each other, so the first one named is 0, and so on.
local WORDS = { "p0", "p1", "P2", "d0", "s_", "n_" }
local MORE_WORDS = { "p0", "p2", "d2", "e0", "e2", "x_", "w_", "S0", "k_", "s_" }

-- How many states of a window are tried, where there are more.
local BOUND = crash.is_long and 150 or 50

describe("crash states", function()
  teardown(crash.remove_folder)

  -- The stories of what was found.
  for name, ops in pairs {
    ["the header of a segment that a commit begins"] = "p0P1s_p2",
    ["a commit of two frames, the first one lost"] = "m0n_m1s_m0d1",
    ["a deletion back to nothing"] = "p0s_d0s_p0",
    ["closing and opening again and again"] = "p0r_p1r_d0r_P1r_",
    ["a session without changes"] = "p0r_r_s_r_",
    ["large values only"] = "P0s_P1s_P0s_d1s_",
    ["a store that overwrites one key"] = "c0s_c0",
    ["a sync that fails"] = "p0s_m1f_s_r_p2s_",
    ["a sync that fails with a large value"] = "p0s_P1f_s_r_p2s_P3s_",
    ["a sync that fails at the first change"] = "f_p0s_r_p1s_",
    ["a transaction"] = "p0p1t0s_t2p3",
    ["a transaction with a large value"] = "p0s_T1d1T3s_",
    ["an aborted transaction"] = "p0a1p2s_a0m3s_",
    ["a transaction first of all"] = "t0r_a0r_T1",
    ["transactions one after the other"] = "t0t1t2a3t0s_T1t3",
    ["a sync that fails after a transaction"] = "p0s_t1f_s_r_t2s_",
    ["a sync that fails while closing"] = "p0p1f_r_p2s_r_",
    ["what expires, and is swept"] = "e0e2s_x_w_p0s_",
    ["what has expired, and is there still"] = "e0e2p1s_x_d0p2r_w_",
    ["a sync that fails while what has expired is swept"] = "e0p1s_x_f_w_s_r_e2w_",
    ["a map that is dropped, and comes again"] = "p0p2P3s_k_s_p3k_p2r_",
    ["a saved snapshot, and its drop"] = "p0S0p0s_S0s_p1",
    ["saved snapshots of what expires, in a transaction and a map"] =
      "e0e3S0x_t1w_S1k_s_S0r_S1",
    ["a saved snapshot first of all"] = "S0p0S1r_S0",
    ["a sync that fails after a snapshot was saved"] = "p0s_S0f_s_r_S0s_S1",
  } do
    it("keep the promise: " .. name, function()
      for _, level in ipairs(LEVELS) do
        assert.is_nil(crash.world { ops = ops, durability = level, bound = BOUND,
          second = ops:find("c") and 400 or 37, second_bound = 4, seed = 1 })
      end
      crash.report(ops)
    end)
  end

  it("keep the promise: segments that get small pages when they are begun", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    finally(function() probe.crash.breaks() end)
    probe.crash.breaks("FINE")
    for _, ops in ipairs { "p0P1s_p2r_p0s_", ("P0P1w_"):rep(4), "p0t1T2s_a0S1P0s_P0s_" } do
      for _, level in ipairs(LEVELS) do
        assert.is_nil(crash.world { ops = ops, durability = level, bound = 40,
          second = 37, second_bound = 4, seed = 1, interval = 1 })
      end
      crash.report(ops)
    end
  end)

  -- About 160 commits fill a segment; those before are as in other worlds.
  it("keep the promise: a log that goes on in another segment", function()
    assert.is_nil(crash.world { ops = ("m0m1"):rep(85), durability = "sync", since = 140,
      bound = 150, second = 97, second_bound = 3, seed = 1 })
    crash.report("a log of two segments")
  end)

  for _, case in ipairs {
    { "large values that are cleaned away", 12,
      "P0P1p2P0v_P1s_v_P0d1v_s_P0v_r_P1v_s_" },
    { "space that a saved snapshot held is used again", 3,
      "P0P1s_S0P0P1w_P0P1w_S0P0P1P0P1P0P1P0P1P0P1" },
  } do
    it("keep the promise: " .. case[1], function()
      for _, level in ipairs(LEVELS) do
        assert.is_nil(crash.world { ops = case[3], durability = level,
          bound = case[2], second = 97, second_bound = 3, seed = 1 })
      end
      crash.report(case[1])
    end)
  end

  -- Superblocks come after a mebibyte of log. Here they come after each commit, or
  -- after some, so that there are cuts before, between and behind them.
  for _, case in ipairs {
    { "small changes", 100, "p0p1s_p0d1s_p2m1s_p1p0s_" },
    { "transactions", 60, "p0s_t1T0s_a2t3s_p1" },
    { "snapshots, maps, and what expires", 60, "p0p2S0s_p0k_s_p3S0s_e1x_w_" },
    { "a sync that fails", 60, "p0s_m1f_s_r_p2s_m2s_" },
    { "closing and opening", 60, "p0r_p1p0r_d0r_P1r_" },
    { "large values, over and over", 12, ("P0P1w_"):rep(5), { 0, 1, 50000, 130000 } },
    { "space that a saved snapshot held", 3,
      "P0P1s_S0P0P1w_P0P1w_S0P0P1P0P1P0P1P0P1P0P1", { 0, 1, 50000, 130000 } },
  } do
    it("keep the promise with many superblocks: " .. case[1], function()
      if not crash.has_hooks then return pending("needs --enable-debug-checks") end
      local windows, intervals = {}, case[4] or { 0, 1, 600, 1500 }
      for _, interval in ipairs(intervals) do
        local before = crash.totals.superblocks
        for _, level in ipairs(LEVELS) do
          assert.is_nil(crash.world { ops = case[3], durability = level,
            interval = interval, bound = case[2], second = 97, second_bound = 3,
            seed = 1 })
        end
        windows[interval] = crash.totals.superblocks - before
      end
      assert.is_true(windows[1] > windows[intervals[4]])
      assert.is_true(windows[1] > windows[0] + 3)
      crash.report(case[1])
    end)
  end

  it("keep the promise: a file that was there, and empty", function()
    assert.is_nil(crash.world { ops = "p0p1s_", durability = "sync",
      start = "empty", bound = 2000, second = 3, second_bound = 40 })
    crash.report("p0p1s_ in an empty file")
  end)

  -- Of those of n operations one of rarity[n], never the same ones. In the long form
  -- the shorter ones are all there: what is new in one comes of its last operation, and
  -- of closing.
  local function short_worlds(words, rarity, seed, interval)
    local number = 0
    for _, level in ipairs(LEVELS) do
      crash.each_sequence(words, #rarity, function(ops)
        number = number + 1
        if (number + seed) % (rarity[#ops / 2] * crash.thinning) ~= 0 then return end
        assert.is_nil(crash.world { ops = ops, durability = level,
          bound = 64, second = 61, second_bound = 6, seed = number,
          interval = interval, since = crash.is_long and #ops / 2 or 0 })
        crash.report_progress(level .. ", " .. ops)
      end)
    end
  end

  it("of all short worlds keep the promise", function()
    local seed, is_long = crash.seed(), crash.is_long
    short_worlds(WORDS, is_long and { 1, 1, 1, 1, 1 } or { 1, 1, 40 }, seed)
    short_worlds(MORE_WORDS, is_long and { 1, 1, 1, 4 } or { 1, 16, 400 }, seed)
    if crash.has_hooks then
      short_worlds(WORDS, is_long and { 1, 1, 1, 1 } or { 1, 8, 200 }, seed, 1)
    end
    crash.report(is_long and "all worlds of 1 to 5 operations"
      or "all worlds of 2 operations, some of 3")
  end)

  it("of random worlds keep the promise", function()
    local seed = crash.seed()
    math.randomseed(seed)
    local words = { "p0", "p1", "p2", "p3", "m0", "m1", "m3", "P0", "P2", "d0",
      "d1", "d2", "s_", "s_", "n_", "r_", "c1", "t0", "t1", "T2", "a3", "e0", "e3",
      "x_", "w_", "S0", "S1", "k_" }
    local rounds = math.ceil((crash.is_long and 4000 or 20) / crash.thinning)
    for round = 1, rounds do
      local ops = {}
      for i = 1, math.random(5, 14) do ops[i] = words[math.random(#words)] end
      assert.is_nil(crash.world { ops = table.concat(ops), bound = 16,
        durability = LEVELS[round % 3 + 1], second = 61, second_bound = 4,
        interval = crash.has_hooks and ({ 0, 1, 1000, 80000 })[round % 4 + 1] or 0,
        seed = seed + round })
      crash.report_progress(("%d of %d"):format(round, rounds))
    end
    crash.report("random worlds")
  end)
end)
