-- SPDX-License-Identifier: MIT
--
-- What the litmus specs share: how a model is checked as it is meant to be, and
-- with deliberate mistakes, which must be found; and the pins, which two of them
-- use.
--
--   MMCMAP_LITMUS_REPORT=1      prints states and seconds; =trace prints the
--                               ways to the mistakes, too
--   MMCMAP_LONG=1               larger models
--
-- A model is make(wrong, memory): what interleaver.explore() takes, less the
-- memory. `wrong` is a set, empty or of one mistake.

local assert = require "luassert"
local it = require("busted").it
local interleaver = require "spec.support.interleaver"
local load, store, fence = interleaver.load, interleaver.store,
  interleaver.fence

local litmus = { long = os.getenv("MMCMAP_LONG") ~= nil }

local MEMORIES = { "tso", "pso", "c11" }
local WEAK = { "pso", "c11" } -- all that tso does, pso does

local REPORT = os.getenv("MMCMAP_LITMUS_REPORT")

local function explore(name, case)
  local began = os.clock()
  local result = interleaver.explore(case)
  if REPORT then
    io.stderr:write(("%-60s %s %7d states %5.2f s %s\n"):format(name,
      case.memory, result.states, os.clock() - began, result.failure or ""))
    if result.trace and REPORT == "trace" then
      io.stderr:write(result.trace, "\n")
    end
  end
  return result
end

-- Right: nothing fails, after at least so many states.
function litmus.holds(name, states, make)
  for _, memory in ipairs(WEAK) do
    local case = make({}, memory)
    case.memory = memory
    it(name .. " (" .. memory .. ")", function()
      local result = explore(name, case)
      assert.is_nil(result.failure, result.trace)
      assert.is_true(result.states >= states, result.states .. " states")
    end)
  end
end

local STATES_MIN = 500 -- or a model that sees no harm was empty

-- A mistake: a failure in the memory models named, and in no other.
function litmus.finds(mistake, memories, message, make)
  for _, memory in ipairs(MEMORIES) do
    local found = memories:find(memory, 1, true)
    it((found and "finds: " or "sees no harm in: ") .. mistake .. " ("
      .. memory .. ")", function()
      local wrong = { [mistake] = true }
      local case = make(wrong, memory)
      case.memory = memory
      local result = explore(mistake, case)
      if found then
        assert.truthy(result.failure, "not found")
        assert.truthy(result.trace:find(message, 1, true), result.trace)
      else
        assert.is_nil(result.failure, result.trace)
        assert.is_true(result.states >= STATES_MIN, result.states .. " states")
      end
    end)
  end
end

-- ---- Pins ----------------------------------------------------------------------

-- R1.
function litmus.pin(row, wrong)
  local tick = load("tick", not wrong["loads the tick relaxed"] and "acquire")
  store(row, tick)
  if not wrong["no fence in the reader"] then fence() end
end

-- R2.
function litmus.unpin(row)
  store(row, 0, "release")
end

-- The content of a node, which must not be poison, nor blank as it was before
-- it was first written.
function litmus.look(node)
  local content = load(node)
  interleaver.check(type(content) == "number", "a reader sees " .. content)
  return content
end

return litmus
