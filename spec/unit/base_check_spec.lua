-- SPDX-License-Identifier: MIT
--
-- A broken rule of the program's own ends the process and says where.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"

local SIGABRT = 6

describe("base.check", function()
  it("lets a true condition pass", function()
    assert.is_true(probe.base.check(true))
  end)

  it("aborts at a false one", function()
    local _, how, number = probe.child.run(function()
      probe.os.file_close(2) -- keeps the message out of the output
      probe.base.check(false)
    end)
    assert.same({ "signal", SIGABRT }, { how, number })
  end)

  it("says the condition, the file and the line", function()
    local output = scratch.fresh(
      'require("mmcmap_probe").base.check(false)', "2>&1")
    assert.is_truthy(output:find(
      "mmcmap: [^\n]*probe_base%.c:%d+: check failed: answer_is_42"), output)
  end)
end)
