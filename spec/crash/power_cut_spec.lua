-- SPDX-License-Identifier: MIT
--
-- Power cuts that happen: a file system in an image is shut down while several
-- threads write to a store on it, so that what was not synced is gone; then it
-- is mounted again, and the store must be what was promised, exactly the state
-- at one commit, and go on. spec/support/power_cut.c does it. It needs root
-- and loop devices; elsewhere this is skipped.
--
-- Lua has no part in it, so one build of tools/check does it: that of Lua 5.4
-- without a checking tool.

local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"

local SKIPPED = 77

local is_long = os.getenv("MMCMAP_LONG") ~= nil

local function why_not()
  if _VERSION ~= "Lua 5.4" then return "once is enough: with Lua 5.4" end
  if os.getenv("MMCMAP_RUN_WITH") or os.getenv("LD_PRELOAD") then
    return "too slow under a checking tool"
  end
end

-- What the program printed, or nil and why it was skipped.
local function power_cut(...)
  local reason = why_not()
  if reason then return nil, reason end
  local program = os.getenv("MMCMAP_BUILD_DIR") .. "/power_cut"
  if not scratch.read(program) then
    return nil, "make check builds spec/support/power_cut.c"
  end
  local words = { "timeout -k 5 3000", scratch.quoted(program) }
  for i = 1, select("#", ...) do
    words[#words + 1] = scratch.quoted(tostring((select(i, ...))))
  end
  local output = scratch.shell(table.concat(words, " ")
    .. " 2>&1; echo status=$?")
  local text, status = output:match("^(.-)\n?status=(%d+)$")
  if tonumber(status) == SKIPPED then return nil, text end
  assert(status == "0", text .. " (status " .. status .. ")")
  return text
end

describe("a power cut", function()
  local seed = binary.seed("power cuts")

  for index, kind in ipairs { "ext4", "xfs" } do
    it("on " .. kind .. " loses nothing that was promised", function()
      local count = is_long and 200 or 12
      local text, reason = power_cut("cuts", kind, scratch.folder(), count,
        seed + index)
      if not text then return pending(reason) end
      print("# " .. text)
      assert.equal(count, tonumber(text:match(": (%d+) cuts")))
    end)
  end

  it("leaves a large store that opens at once", function()
    if not is_long then return pending("in the long form only") end
    local text, reason = power_cut("open", "ext4", scratch.folder(), 1000000)
    if not text then return pending(reason) end
    print("# " .. text)
  end)
end)
