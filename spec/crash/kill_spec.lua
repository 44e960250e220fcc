-- SPDX-License-Identifier: MIT
--
-- Processes that are killed: several write to one store, one after the other
-- dies at a random moment or at a point of base/testing.h, and nothing that was
-- acknowledged is missing, nothing is half there, transactions over maps neither,
-- and nobody waits for ever.
-- spec/support/kill_soak.c does it.
--
-- Lua has no part in it: builds of tools/check for Lua 5.4 do it, of them the
-- one with sanitizers at points, too.

local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"

local processes_share = true -- whether several have a store open for writing

local SKIPPED, SECONDS = 77, 120
local BREAK_WRITE_SEALED, BREAK_RECYCLE_COMMITTED = 0x400, 0x1000
local BREAK_TXN_UNSEALED, BREAK_TXN_RECYCLER = 0x8000000, 0x10000000

local kills = os.getenv("MMCMAP_LONG") and 1300 or 40

local function why_not()
  if _VERSION ~= "Lua 5.4" then return "once is enough: with Lua 5.4" end
  if (os.getenv("MMCMAP_RUN_WITH") or ""):find("valgrind", 1, true) then
    return "it is not a program that valgrind would watch"
  end
end

-- The exit status and what was printed; or nil and why it was skipped.
local function soak(processes, ...)
  local reason = why_not()
  if reason then return nil, reason end
  local program = os.getenv("MMCMAP_BUILD_DIR") .. "/kill_soak"
  if not scratch.read(program) then
    return nil, "make check builds spec/support/kill_soak.c"
  end
  local output = scratch.shell(("timeout -k 5 %d %s %s %d %d %s 2>&1; "
    .. "echo status=$?"):format(SECONDS + 100, scratch.quoted(program),
    scratch.quoted(scratch.path("soak")), SECONDS, processes,
    table.concat({ ... }, " ")))
  local text, status = output:match("^(.-)\n?status=(%d+)$")
  if tonumber(status) == SKIPPED then return nil, text end
  return status, text
end

-- Processes, threads of each, level, and what else.
local CASES = {
  { 1, 2, "sync" },
  { 1, 3, "sync", "--points" },
  { 4, 2, "sync", shares = true },
  { 4, 2, "async", "--all-die", shares = true },
  { 1, 2, "manual", shares = true },
  { 3, 2, "manual", "--points", "--all-die", shares = true },
  { 4, 3, "mixed", "--all-die", shares = true },
  { 3, 3, "mixed", "--points", shares = true },
  { 2, 2, "mixed", "--upkeep", "--all-die", shares = true },
  { 2, 2, "mixed", "--upkeep", "--points", shares = true },
}

describe("processes that are killed", function()
  local seed = binary.seed("kills")

  for index, case in ipairs(CASES) do
    local processes, threads, level = case[1], case[2], case[3]
    local rest = table.concat(case, " ", 4)
    it(("lose nothing: %d of %d threads, %s %s"):format(processes, threads,
      level, rest), function()
        if case.shares and not processes_share then
          return pending("one process at a time may write, and what it had not "
            .. "committed dies with it")
        end
        local status, text = soak(processes, "--threads=" .. threads,
          "--durability=" .. level, "--kills=" .. kills,
          "--seed=" .. seed + index, rest)
        if not status then return pending(text) end
        print("# " .. text)
        assert.equal("0", status, text)
        assert.is_true(tonumber(text:match(": (%d+) kills")) >= kills, text)
      end)
  end

  -- It would be told if something were missing.
  local function is_found(name, breaks)
    it("are seen to lose something, if " .. name, function()
      local status, text
      for try = 1, 3 do
        status, text = soak(3, "--threads=3", "--durability=mixed",
          "--kills=1000", "--seed=" .. seed + try, "--breaks=" .. breaks)
        if not status then return pending(text) end
        if status == "1" then break end
      end
      assert.equal("1", status, text)
      assert.truthy(text:find("FAULT"), text)
    end)
  end

  is_found("sealed branches are changed", BREAK_WRITE_SEALED)
  is_found("recycling lists outlive a commit", BREAK_RECYCLE_COMMITTED)
  is_found("a transaction begins without a seal", BREAK_TXN_UNSEALED)
  is_found("what an aborted transaction recycled is kept", BREAK_TXN_RECYCLER)
end)
