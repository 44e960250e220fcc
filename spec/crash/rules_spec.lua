-- SPDX-License-Identifier: MIT
--
-- Rules that were found by breaking an earlier design, each broken by a switch of
-- src/base/testing.h: a spec that passes with the rule fails without it. It runs
-- in a process of its own, with the switch in its environment.
--
-- A spec that only takes too long has not noticed anything: it has to say what is
-- wrong. Some rules keep it from waiting for ever, and without one of those it does.

local probe = require "mmcmap_probe"
local helper = require "spec.support.helper"

-- Rule, switch, spec, and words of its name; `hangs`: without the rule it waits for
-- ever, and may be stopped.
local CASES = {
  { "a seal changes the lock file alone", "SEAL_CLOSES",
    "unit/txn_writer", "lets a read.only process seal" },
  { "the log's state is flipped by one store", "ONE_LOG",
    "unit/txn_writer", "dies while it stores the state of the log" },
  { "a thread never waits for itself", "WAIT_FOR_SELF",
    "unit/txn_transaction", "answers its own thread at once", hangs = true },
  { "a snapshot waits for no transaction", "TXN_UNSEALED",
    "unit/txn_transaction", "does not hold up snapshots" },
  { "whoever looks for what may be used again scans pins before rows", "ROWS_FIRST",
    "api/snapshot", "is not overlooked when a pin" },
  { "the file's length is changed under a lock", "GROW_UNLOCKED",
    "api/sharing", "becomes longer by one" },
  { "only the outermost pin's end is the end", "FLAT_PINS",
    "unit/share_readers", "nests pins" },
  { "a lock's owner is dead by the kernel's lock, not by its number", "TRUST_PIDS",
    "api/limits", "killed with the lock, in a third space" },
  { "rows are given up by the kernel's lock, not by a number", "TRUST_PIDS",
    "api/limits", "leave each other's places alone" },
  { "rows of the living stay", "BURY_ALIVE",
    "api/limits", "leave each other's places alone" },
  { "a child closes the locks that it inherits", "KEEP_FORKED",
    "api/fork", "leaves a child that goes on" },
  { "a child does not use what it inherits", "IGNORE_FORK",
    "api/fork", "answers with EFORK" },
  { "users of a file know each other by the data file", "TRUST_LOCK_FILE",
    "api/lock_file", "lets nobody in while the store is open" },
  { "a failed sync stops the writers of all processes", "OWN_FAILURE",
    "unit/txn_commit", "takes no more changes after a failed sync" },
  { "a small range of addresses is no damage", "CUT_IS_DAMAGE",
    "api/limits", "beyond its range" },
  { "takeover asks for more than the boot", "TRUST_BOOT",
    "unit/maint_takeover", "differs in the mount id" },
  { "takeover looks at the last change", "TRUST_LAST_CHANGE",
    "api/lock_file", "from before one change" },
  { "a record is whole before it is linked", "PUBLISH_EARLY",
    "unit/txn_writer", "a new key that was" },
  { "what is appended is counted as alive", "COUNT_LOW",
    "unit/space_usage", "is exact among changes" },
  { "an empty segment whose nodes are recycled is none", "NO_REVIVAL",
    "unit/space_usage", "when nodes of an empty segment" },
  { "space that a reader may look at is not used again", "REUSE_PINNED",
    "unit/space_usage", "waits for whoever looks" },
  { "whoever looks ahead of the cleaner is pinned", "AHEAD_UNPINNED",
    "unit/space_usage", "keeps what it looks at" },
  { "whoever looks ahead of the cleaner leaves the pages of large values alone",
    "AHEAD_LARGE", "unit/space_usage", "does not touch the pages" },
  { "space that a snapshot holds is not used again", "REUSE_HELD",
    "unit/space_usage", "leaves every byte of snapshots" },
  { "space that a saved snapshot holds is not used again", "REUSE_HELD",
    "unit/space_churn", "of a saved snapshot stays" },
  { "the last segments are kept for what frees space", "NO_RESERVE",
    "unit/space_full", "is a cache of values of 300" },
  { "what is alive leaves room to clean", "NO_CROWD",
    "unit/space_full", "is a cache of values of 40" },
  { "closing does not forget what was dropped", "FORGET_MAP",
    "unit/space_churn", "of a map of few records" },
}

local SECONDS, SECONDS_TO_HANG = 100, 6
local TOOK_LONG = "\nBail out! the specs took longer"

-- Whether all passed, and what was printed, after a new line.
local function run(break_name, spec, filter, seconds)
  local output = helper.output_of(("env -u MMCMAP_RUN_INNER %s MMCMAP_SPEC_SECONDS=%d %s %s "
    .. "--build %s --filter=%s %s; echo status=$?"):format(
    break_name and "MMCMAP_BREAKS=" .. probe.crash.break_mask(break_name) or "",
    seconds,
    helper.quoted(helper.interpreter()),
    helper.quoted(os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/run.lua"),
    helper.quoted(os.getenv("MMCMAP_BUILD_DIR")),
    helper.quoted((filter:gsub(" ", "."))),
    helper.quoted(os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/" .. spec .. "_spec.lua")))
  return output:match("status=(%d+)%s*$") == "0", "\n" .. output
end

describe("without the rule that", function()
  for _, case in ipairs(CASES) do
    local rule, switch, spec, filter = case[1], case[2], case[3], case[4]
    local hangs = case.hangs
    it(rule .. ", a spec fails", function()
      if not probe.crash.has_hooks then
        return pending("needs --enable-debug-checks")
      end
      local passes, output = run(nil, spec, filter, SECONDS)
      assert.is_true(passes, output)
      assert.truthy(output:find("\nok %d"), output)
      if output:find("# SKIP", 1, true) then
        return pending("the spec cannot be tried here")
      end
      passes, output = run(switch, spec, filter, hangs and SECONDS_TO_HANG or SECONDS)
      assert.is_false(passes, output)
      if hangs and output:find(TOOK_LONG, 1, true) then return end
      assert.is_nil(output:find(TOOK_LONG, 1, true), output)
      assert.truthy(output:find("\nnot ok %d"), output)
    end)
  end
end)
