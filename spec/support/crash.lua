-- SPDX-License-Identifier: MIT
--
-- What the crash specs share: where their files lie, worlds and their totals,
-- and the seed.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"

local crash = {}

crash.has_hooks = probe.crash.has_hooks
crash.is_long = os.getenv("MMCMAP_LONG") ~= nil

-- Memory, if there is some that is a folder: no disk is part of these specs.
local folder
function crash.path(word)
  if not folder then
    folder = scratch.shell("mktemp -d /dev/shm/mmcmap-crash-XXXXXX 2>/dev/null")
    if folder == "" then folder = scratch.folder() end
  end
  return folder .. "/" .. (word or "store")
end

function crash.remove_folder()
  if folder then scratch.shell("rm -rf " .. scratch.quoted(folder)) end
  folder = nil
end

function crash.seed()
  local seed = tonumber(os.getenv("MMCMAP_SEED") or "") or os.time()
  print("# MMCMAP_SEED=" .. seed)
  return seed
end

-- How much slower than plain this run is, or shorter it is to be: worlds are left out
-- accordingly.
crash.thinning = (probe.sanitizer and 8 or os.getenv("MMCMAP_BRIEF") and 2 or 1)
  * ((os.getenv("LD_PRELOAD") or ""):find("vgpreload", 1, true) and 40 or 1)

-- What a word of eight bytes that anybody may have written is turned into, to
-- see that nothing crashes.
local function adds(at, number)
  return function(word)
    return word:sub(1, at - 1)
      .. string.char((word:byte(at) + number) % 256) .. word:sub(at + 1)
  end
end

crash.words = {
  function() return ("\255"):rep(8) end,
  function() return ("\0"):rep(8) end,
  adds(1, 1), adds(1, 8), adds(1, -8), adds(3, 1), adds(6, 64),
}

crash.totals = { worlds = 0, states = 0, second_states = 0, repeated = 0,
  windows = 0, exhausted = 0, superblocks = 0 }

-- Runs one world; its failure, or nil. A checking tool sees nothing in one state that
-- it does not see in another, so it gets fewer, and so does a brief run, unless all count.
function crash.world(world, all_count)
  world.path = world.path or crash.path()
  if crash.thinning > 1 and not all_count then world.bound = math.ceil(world.bound / 5) end
  local result = probe.crash.world(world)
  local totals = crash.totals
  totals.worlds = totals.worlds + 1
  for name, number in pairs(result) do
    if totals[name] then totals[name] = totals[name] + number end
  end
  return result.failure and ("%s, seed %s: %s"):format(world.durability,
    tostring(world.seed), result.failure)
end

local function print_totals(what)
  local totals = crash.totals
  print(("# %s: %d worlds, %d windows (%d with all their states, %d with a superblock), "
    .. "%d states opened, %d after a second cut, %d as before"):format(what,
    totals.worlds, totals.windows, totals.exhausted, totals.superblocks, totals.states,
    totals.second_states, totals.repeated))
  io.stdout:flush()
end

-- Prints what has been counted, and forgets it.
function crash.report(what)
  print_totals(what)
  for name in pairs(crash.totals) do crash.totals[name] = 0 end
end

-- Prints it now and then, in the long form.
function crash.report_progress(what)
  if crash.is_long and crash.totals.worlds % 2000 == 0 then print_totals(what) end
end

-- Calls f(text) with every sequence of 1 to `length` of the words.
function crash.each_sequence(words, length, f)
  local function extend(text, left)
    if text ~= "" then f(text) end
    if left == 0 then return end
    for _, word in ipairs(words) do extend(text .. word, left - 1) end
  end
  extend("", length)
end

return crash
