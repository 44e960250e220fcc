-- SPDX-License-Identifier: MIT
--
-- What threads and processes see of one store is linearizable, and a snapshot and
-- a transaction are one moment (spec/support/history.c, a program of its own). The deliberate
-- mistakes of the test build that break this must be found.
--
--   MMCMAP_SEED    the calls to repeat, if not their interleaving; printed
--   MMCMAP_LONG=1  a minute each

local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"

local processes_share = true -- several processes may write to one store

local SEED = binary.seed("history")
local SECONDS = os.getenv("MMCMAP_LONG") and 60 or 2
local BREAK_WRITE_SEALED, BREAK_TXN_UNSEALED = 0x400, 0x8000000

-- The exit status and what was printed.
local function history(seconds, processes, threads, keys, options)
  local path = scratch.path("history")
  local output = scratch.shell(
    ("%s/history %s %d %d %d %d --seed=%d %s 2>&1; echo $?"):format(
      scratch.quoted(os.getenv("MMCMAP_BUILD_DIR")), path, seconds, processes,
      threads, keys, SEED, options or ""))
  os.remove(path)
  return output:match("(%d+)$"), output
end

local function is_linearizable(...)
  local status, output = history(...)
  assert.equal("0", status, output)
  local overlapping, widest =
    output:match("overlapping (%d+) in.*widest (%d+),")
  print("# " .. output:gsub("\n.*", ""))
  assert.is_true(tonumber(overlapping) > 0 and tonumber(widest) > 1, output)
end

describe("a history", function()
  it("of threads is linearizable", function()
    is_linearizable(SECONDS, 1, 4, 2)
  end)

  it("of threads with snapshots is linearizable", function()
    is_linearizable(SECONDS, 1, 4, 4, "--snapshots")
  end)

  it("of threads with transactions over maps is linearizable", function()
    is_linearizable(SECONDS, 1, 4, 4, "--transactions")
  end)

  for _, options in ipairs { "", "--snapshots --transactions",
    "--durability=manual" } do
    it("of processes is linearizable " .. options, function()
      if not processes_share then
        pending("one process at a time may write")
        return
      end
      is_linearizable(SECONDS, 4, 2, 4, options)
    end)
  end

  local function is_found(name, breaks, options)
    it("is seen not to be, if " .. name, function()
      for _ = 1, 8 do
        local status, output = history(1, 1, 4, 4,
          ("%s --breaks=%d"):format(options, breaks))
        if status == "3" then
          pending("needs --enable-debug-checks")
          return
        end
        if status ~= "0" then
          assert.truthy(output:find("not linearizable") or output:find("FAULT"),
            output)
          return
        end
      end
      error("eight times nothing was noticed")
    end)
  end

  is_found("sealed branches are changed", BREAK_WRITE_SEALED, "--snapshots")
  is_found("a transaction begins without a seal", BREAK_TXN_UNSEALED,
    "--transactions")
end)
