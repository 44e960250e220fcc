-- SPDX-License-Identifier: MIT
--
-- A lock that processes share and that outlives its owner's death, in every
-- interleaving and three memory models. (A store of one process does not need
-- it; this is for several.)
--
-- The lock's word is 0, or twice the owner's row, plus 1 if somebody waits. A
-- process holds the kernel's lock of its row as long as it lives; 0 is free.
-- Who dies leaves the word as it is.

local interleaver = require "spec.support.interleaver"
local litmus = require "spec.support.litmus"
local load, store, fence = interleaver.load, interleaver.store,
  interleaver.fence
local check, swap = interleaver.check, interleaver.swap
local holds, finds = litmus.holds, litmus.finds

local function row_of(word) return math.floor(word / 2) end

local function kernel_lock(row) return "kernel " .. row end

-- The steps of a process that has a row, or claims it, and takes the lock once.
local function new_process(row, wrong, tries)
  local self = {}
  local again = interleaver.again
  local mine = 2 * row

  -- With the lock. `entered` tells how many were here, or 0 for too many.
  function self.work()
    local entered = interleaver.ghost(function(ghosts)
      ghosts.inside = ghosts.inside + 1
      ghosts.entered = ghosts.entered + 1
      return ghosts.inside == 1 and ghosts.entered or 0
    end)
    check(entered > 0, "two live owners")
    check(load("data") == entered - 1, "an owner misses what the last one did")
    store("data", entered)
    local dies = interleaver.choose(2) == 2
    interleaver.ghost(function(ghosts)
      ghosts.inside = ghosts.inside - 1
    end)
    if not dies then store("word", 0, "release") end
    return again(self.exit)
  end

  function self.exit()
    fence() -- a system call
    store(kernel_lock(row), 0, "release")
    return "done"
  end

  local function retry(body, count)
    if tries and count >= tries then return again(self.exit) end
    return again(body, tries and count + 1 or 1)
  end

  -- Whether the lock is had; `kernel`, of the dead owner's row, is held.
  local function take_over(kernel, word)
    local owner = row_of(word)
    if wrong["takes over without the kernel's lock"] then
      store(kernel, 0, "release")
      return swap("word", word, mine + 1) == word
    end
    if not wrong["does not read the word again"] then
      word = load("word", "acquire")
    end
    local had = row_of(word) == owner
      and swap("word", word, mine + 1) == word
    store(kernel, 0, "release")
    return had
  end

  function self.acquire(count)
    local word = load("word", "acquire")
    if word == 0 then
      if swap("word", 0, mine) == 0 then return again(self.work) end
      return retry(self.acquire, count)
    end
    local kernel = kernel_lock(row_of(word))
    if swap(kernel, 0, row) == 0 then
      if take_over(kernel, word) then return again(self.work) end
    elseif word % 2 == 0 then
      swap("word", word, word + 1)
    end
    return retry(self.acquire, count)
  end

  -- A new process claims a row whose process is dead.
  function self.claim(count)
    local kernel = kernel_lock(row)
    if swap(kernel, 0, row) ~= 0 then
      if tries and count >= tries then return "done" end
      return again(self.claim, tries and count + 1 or 1)
    end
    if row_of(load("word", "acquire")) == row
      and not wrong["claims a row that owns the lock"] then
      store(kernel, 0, "release")
      if tries and count >= tries then return "done" end
      return again(self.claim, tries and count + 1 or 1)
    end
    return again(self.acquire, 1)
  end

  return self
end

-- Row 1 owns the lock; its process is dead, or is inside. Processes of other
-- rows want it, and a new one wants row 1. In c11 a history would grow without
-- end, so they give up after one try, and what never ends is not found.
local function processes(first, waiters)
  return function(wrong, memory)
    local tries = memory == "c11" and 1 or nil
    local shared = { word = 2, data = 0 }
    shared[kernel_lock(1)] = first and 1 or 0
    local threads = { { "new", new_process(1, wrong, tries).claim, 1 } }
    for row = 2, waiters + 1 do
      shared[kernel_lock(row)] = row
      threads[row] = { "waiter " .. row,
        new_process(row, wrong, tries).acquire, 1 }
    end
    if first then
      threads[#threads + 1] = { "first", new_process(1, wrong, tries).work }
    end
    return { shared = shared, threads = threads, must_finish = true,
      ghosts = { inside = 0, entered = 0 } }
  end
end

describe("the lock of processes", function()
  local dead_owner = processes(false, 2)
  holds("has one live owner after a death", 5000, dead_owner)
  holds("has one live owner when that may die", 500, processes(true, 1))
  finds("takes over without the kernel's lock", "tso pso c11",
    "two live owners", dead_owner)
  -- The lock is lost: its owner lives and waits for itself.
  finds("claims a row that owns the lock", "tso pso", "this never ends",
    dead_owner)
  -- The swap compares it.
  finds("does not read the word again", "", "", dead_owner)
end)
