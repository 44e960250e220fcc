-- SPDX-License-Identifier: MIT
--
-- Readers against writers (spec/support/stress.c, a program of its own). The
-- test build's deliberate mistakes must be found by it.

local scratch = require "spec.support.scratch"

local SECONDS = os.getenv("MMCMAP_LONG") and 60 or 2
local BREAK_WRITE_SEALED, BREAK_RECYCLE_EARLY, BREAK_NO_PIN =
  0x400, 0x800, 0x2000

local function stress(seconds, readers, writers, breaks)
  local path = scratch.path("stress")
  local output = scratch.shell(("%s/stress %s %d %d %d %s 2>&1; echo $?"):format(
    scratch.quoted(os.getenv("MMCMAP_BUILD_DIR")), path, seconds, readers,
    writers, breaks or ""))
  os.remove(path)
  return output:match("(%d+)$"), output
end

describe("a store under readers and writers", function()
  for _, crowd in ipairs { { 3, 1 }, { 12, 2 } } do
    it(("is always whole, with %d and %d of them"):format(crowd[1], crowd[2]),
      function()
        local status, output = stress(SECONDS, crowd[1], crowd[2])
        assert.equal("0", status, output)
        local recycled = tonumber(output:match("recycled (%d+)"))
        assert.is_true(recycled > 0, output)
      end)
  end

  -- Such mistakes show only at times: a few tries are allowed.
  local function is_found(name, breaks)
    it("is seen not to be, if " .. name, function()
      for _ = 1, 8 do
        local status, output = stress(2, 4, 1, breaks)
        if status == "3" then
          pending("needs --enable-debug-checks")
          return
        end
        if status ~= "0" then
          assert.truthy(output:find("FAULT"), output)
          return
        end
      end
      error("eight times nothing was noticed")
    end)
  end

  is_found("readers do not pin", BREAK_NO_PIN)
  is_found("nodes are recycled before the horizon", BREAK_RECYCLE_EARLY)
  is_found("sealed branches are changed", BREAK_WRITE_SEALED)
end)
