-- SPDX-License-Identifier: MIT
-- The runner of the specs: one that waits for ever ends, and says where.

local helper = require "helper"
local scratch = require "scratch"

-- What running a spec with this in it prints.
local function run(body, seconds)
  local path = helper.path("_spec.lua")
  helper.write(path, ('describe("a spec", function()\nit("that passes", function() end)\n'
    .. 'it("of this name", function()\n%s\nend) end)'):format(body))
  return "\n" .. scratch.shell(
    ("env -u MMCMAP_RUN_INNER MMCMAP_SPEC_SECONDS=%d %s %s --build %s %s; echo status=$?"):format(
      seconds, helper.quoted(helper.interpreter()),
      helper.quoted(os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/run.lua"),
      helper.quoted(os.getenv("MMCMAP_BUILD_DIR")), helper.quoted(path)))
end

-- A time to sleep for that nobody else asks for, and how many do.
local function sleeping_for()
  local seconds = ("%d.%d"):format(10000 + os.time() % 10000, math.random(1, 99999999))
  return seconds, function()
    return tonumber((scratch.shell("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o "
      .. helper.quoted("[s]leep " .. seconds) .. " | wc -l")))
  end
end

describe("the runner of the specs", function()
  it("ends one that waits for ever, with its children, and says where it was", function()
    local seconds, count = sleeping_for()
    local output = run(("os.execute('setsid sleep %s & sleep %s')"):format(seconds, seconds), 6)
    assert.truthy(output:find("\nok 1 - a spec that passes\n", 1, true), output)
    assert.truthy(output:find("\nBail out! the specs took longer than 6 s, "
      .. "in or after: a spec of this name\n", 1, true), output)
    assert.truthy(output:find("\n# +%d+ sleep " .. seconds:gsub("%.", "%%.")), output)
    assert.truthy(output:find("\nstatus=1", 1, true), output)
    assert.equal(0, count())
  end)

  it("does not wait for what a spec leaves behind", function()
    local seconds, count = sleeping_for()
    -- Once it is itself: before, it is setsid, and the shell that starts it.
    local output = run(("os.execute('setsid sleep %s & until grep -qs ^sleep /proc/$!/cmdline; "
      .. "do :; done')"):format(seconds), 100)
    assert.truthy(output:find("\n# left behind, and killed: sleep " .. seconds, 1, true), output)
    assert.truthy(output:find("\nstatus=0", 1, true), output)
    assert.equal(0, count())
  end)

  it("leaves nothing, nor anybody to watch, when it is interrupted", function()
    local seconds, count = sleeping_for()
    local within = os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/support/within.sh"
    local folder = scratch.shell("mktemp -d " .. scratch.folder() .. "/within-XXXXXX")
    local inside = folder .. "/files"
    -- A group of its own, to which the interrupt goes, as from a terminal.
    local output = scratch.shell(("mkdir %s; setsid --wait sh -c %s; echo status=$?"):format(
      inside, scratch.quoted(("(sleep 1; kill -INT 0) & exec %s 77777 %s "
        .. "env MMCMAP_TMP_DIR=%s sh -c 'trap \"\" INT; sleep %s & trap - INT; sleep %s'"):format(
        within, inside, inside, seconds, seconds))))
    assert.truthy(output:find("status=%d"), output)
    assert.equal(0, count(), output)
    assert.equal("0", scratch.shell(
      "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[s]leep 77777'"), output)
  end)

  it("says in which one the process ended early", function()
    local output = run("os.exit(3)", 100)
    assert.truthy(output:find("\nBail out! the specs' process ended early or badly, "
      .. "with status 3, in or after: a spec of this name\n", 1, true), output)
    assert.truthy(output:find("\nstatus=1", 1, true), output)
  end)
end)
