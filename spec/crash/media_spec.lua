-- SPDX-License-Identifier: MIT
--
-- Media that cannot be written: mounted read-only, a file without the
-- permission, a file system that is full. Each case is Lua code that runs in a
-- process of its own, with a new file system at PLACE that nobody else sees and
-- that is gone with it (power_cut inside, spec/support/power_cut.c). It needs
-- root and loop devices; elsewhere this is skipped. A quota that is used up is
-- not tried: kernels without quotas are common, and its error, EDQUOT, takes
-- the same way as ENOSPC.

local helper = require "spec.support.helper"
local scratch = require "spec.support.scratch"

local MEGABYTE = 1048576

local PREFACE = [[
  local mmcmap = require "mmcmap"
  local place = os.getenv("PLACE")
  local path = place .. "/store.mmc"
  local function shell(command)
    local pipe = io.popen("cd '" .. place .. "'; (" .. command .. ") 2>&1")
    local text = pipe:read("*a")
    pipe:close()
    return text
  end
  local function equal(wanted, got, what)
    if wanted ~= got then
      error(("%s: %s wanted, got %s"):format(what or "value",
        tostring(wanted), tostring(got)), 2)
    end
  end
  local function value_of(i) return ("value " .. i .. " "):rep(i % 50 + 1) end
  local function fill(db, first, last)
    for i = first, last do assert(db:put("key " .. i, value_of(i))) end
  end
  local function check(db, first, last)
    for i = first, last do equal(value_of(i), db:get("key " .. i), i) end
    local seen = 0
    for _ in db:pairs() do seen = seen + 1 end
    equal(#db, seen, "records")
  end
]]

-- Runs the code; skips the test if there can be no such file system.
local function inside(kind, megabytes, code)
  local program = os.getenv("MMCMAP_BUILD_DIR") .. "/power_cut"
  if os.getenv("MMCMAP_RUN_WITH") or os.getenv("LD_PRELOAD") then
    return pending("the program for it is not for checking tools")
  end
  if not scratch.read(program) then
    return pending("make check builds spec/support/power_cut.c")
  end
  local script = scratch.write(scratch.path("case"),
    PREFACE .. code .. '\nprint("all of it is as it should be")\n')
  local words = { scratch.quoted(program), "inside", kind,
    scratch.quoted(scratch.folder()), tostring(megabytes * MEGABYTE),
    scratch.quoted(helper.interpreter()), scratch.quoted(script) }
  local output = scratch.shell("timeout -k 5 300 " .. table.concat(words, " ")
    .. " 2>&1; echo status=$?")
  local text, status = output:match("^(.-)\n?status=(%d+)$")
  if status == "77" then return pending(text) end
  assert.equal("all of it is as it should be", text)
  assert.equal("0", status)
end

-- The least size that a file system of the kind can have.
for _, case in ipairs { { "ext4", 20 }, { "xfs", 320 } } do
  local kind, least = case[1], case[2]
  describe("on " .. kind, function()
    it("a read-only medium is read, with a lock and without", function()
      inside(kind, least, [[
        local db = assert(mmcmap.open(path))
        fill(db, 1, 500)
        assert(db:put("large", ("x"):rep(600000)))
        assert(db:close())
        -- Never closed, with commits that no superblock knows yet.
        local live = assert(mmcmap.open(place .. "/live.mmc",
          { durability = "sync" }))
        fill(live, 1, 60)
        assert(live:put("large", ("y"):rep(600000)))
        shell("cp live.mmc unclean.mmc")
        assert(live:close())
        equal("", shell("mount -o remount,ro ."))
        for _, options in ipairs { { readonly = true },
          { readonly = true, lock = false } } do
          db = assert(mmcmap.open(path, options))
          check(db, 1, 500)
          equal(501, #db)
          equal(true, db:stat().was_clean)
          equal(600000, #db:get("large"))
          equal("EREADONLY", select(3, db:put("a", "b")))
          equal("EREADONLY", select(3, db:delete("key 1")))
          assert(db:close())
          db = assert(mmcmap.open(place .. "/unclean.mmc", options))
          equal(false, db:stat().was_clean)
          equal(61, db:stat().recovered_commits)
          check(db, 1, 60)
          equal(("y"):rep(600000), db:get("large"))
          assert(db:close())
        end
        -- Writing is refused, at once, and so is making a store.
        local got, message, code = mmcmap.open(path)
        equal(nil, got)
        equal("EREADONLY", code, message)
        got, message, code = mmcmap.open(place .. "/new.mmc")
        equal(nil, got)
        equal("EREADONLY", code, message)
        got, message, code = mmcmap.open(place .. "/new.mmc",
          { readonly = true })
        equal(nil, got)
        equal("ENOENT", code, message)
      ]])
    end)

    it("a full medium refuses to write, and can be read", function()
      inside(kind, least, [[
        local db = assert(mmcmap.open(path))
        fill(db, 1, 500)
        assert(db:sync())
        -- Leaves about six megabytes.
        local free = tonumber(shell("df --output=avail -k . | tail -n 1"))
        shell(("fallocate -l %dk ballast"):format(free - 6 * 1024))
        local last, code = 500, nil
        for i = 501, 1000000 do
          local ok
          ok, _, code = db:put("key " .. i, value_of(i))
          if not ok then break end
          last = i
        end
        equal("ENOSPC", code)
        assert(last > 5000, last)
        -- Nothing of the refused put, everything before it.
        equal(last, #db)
        check(db, 1, last)
        equal(nil, db:get("key " .. last + 1))
        equal("ENOSPC", select(3, db:put("large", ("x"):rep(5000000))))
        equal(last, #db)
        -- Room again: it goes on without being opened anew.
        shell("rm ballast && sync -f .")
        fill(db, last + 1, last + 1000)
        assert(db:put("large", ("x"):rep(5000000)))
        assert(db:sync())
        check(db, 1, last + 1000)
        assert(db:close())
        db = assert(mmcmap.open(path))
        equal(true, db:stat().was_clean)
        equal(last + 1001, #db)
        check(db, 1, last + 1000)
        equal(5000000, #db:get("large"))
        assert(db:close())
      ]])
    end)

    it("a full medium holds a cache, which deletes until a put works", function()
      inside(kind, least, [[
        local db = assert(mmcmap.open(path))
        local free = tonumber(shell("df --output=avail -k . | tail -n 1"))
        shell(("fallocate -l %dk ballast"):format(free - 8 * 1024))
        local keys, replaced, i = {}, 0, 0
        while replaced < 300 do
          i = i + 1
          local tries = 0
          while true do
            local ok, message, code = db:put("key " .. i, value_of(i))
            if ok then break end
            equal("ENOSPC", code, message)
            tries = tries + 1
            assert(tries < 1000, message)
            local other = math.random(#keys)
            keys[other], keys[#keys] = keys[#keys], keys[other]
            assert(db:delete("key " .. table.remove(keys)))
          end
          keys[#keys + 1] = i
          if tries > 0 then replaced = replaced + 1 end
        end
        for _, key in ipairs(keys) do equal(value_of(key), db:get("key " .. key), key) end
        equal(#keys, #db)
        assert(db:check())
        assert(db:close())
      ]])
    end)

    -- XFS may have given away what the last commit needs.
    it("a full medium lets a store be closed and opened", function()
      inside(kind, least, ("local may_fail = %s\n"):format(kind == "xfs") .. [[
        local db = assert(mmcmap.open(path, { durability = "manual" }))
        fill(db, 1, 500)
        local free = tonumber(shell("df --output=avail -k . | tail -n 1"))
        shell(("fallocate -l %dk ballast"):format(free - 2 * 1024))
        local last, code = 500, nil
        for i = 501, 1000000 do
          local ok
          ok, _, code = db:put("key " .. i, value_of(i))
          if not ok then break end
          last = i
        end
        equal("ENOSPC", code)
        shell("cat /dev/zero >filler") -- to the brim
        local closed, message, close_code = db:close()
        -- The last commit may want room that is not there, and says so.
        db = assert(mmcmap.open(path, { readonly = true }))
        if closed then
          equal(last, #db, message)
          check(db, 1, last)
        end
        local count = #db
        assert(db:close())
        shell("rm filler ballast && sync -f .")
        db = assert(mmcmap.open(path))
        equal(count, #db)
        fill(db, last + 1, last + 100)
        assert(db:close())
        if not closed and may_fail then equal("ENOSPC", close_code, message)
        else equal(true, closed, message) end
      ]])
    end)

    it("a store cannot be made where nothing fits", function()
      inside(kind, least, [[
        shell("cat /dev/zero >filler")
        local got, message, code = mmcmap.open(path)
        equal(nil, got)
        equal("ENOSPC", code, message)
        equal("filler\nlost+found\n", (shell("ls | cat"):gsub("^filler\n$",
          "filler\nlost+found\n")))
        shell("rm filler && sync -f .")
        local db = assert(mmcmap.open(path))
        fill(db, 1, 10)
        assert(db:close())
      ]])
    end)
  end)
end

describe("a file without permission to write", function()
  it("is read", function()
    local path = helper.path()
    local db = helper.store(nil, path)
    db:put("k", "v")
    db:close()
    scratch.shell("chmod 444 " .. scratch.quoted(path))
    for _, lock in ipairs { true, false } do
      db = helper.store({ readonly = true, lock = lock }, path)
      assert.equal("v", db:get("k"))
      assert.equal("EREADONLY", select(3, db:put("k", "w")))
      db:close()
    end
  end)

  it("is not opened for writing by a user", function()
    -- Root may write anything: go on as nobody.
    local user = scratch.is_root()
      and "setpriv --reuid=65534 --regid=65534 --clear-groups" or ""
    local path = scratch.shell("mktemp -d") .. "/store.mmc"
    helper.store(nil, path):close()
    scratch.shell(("chmod 755 $(dirname %s); chmod 444 %s"):format(path, path))
    local script = scratch.write(path .. ".lua", ([[
      local ok, mmcmap = pcall(require, "mmcmap")
      if not ok then print("unreadable") return end
      local db = mmcmap.open(%q, { readonly = true })
      print(db and db:close(), (select(3, mmcmap.open(%q))))
    ]]):format(path, path))
    local output = scratch.shell(("LD_PRELOAD=%s %s %s %s 2>&1"):format(
      scratch.quoted(os.getenv("LD_PRELOAD") or ""), user,
      scratch.quoted(helper.interpreter()), scratch.quoted(script)))
    scratch.shell("rm -r $(dirname " .. path .. ")")
    if output:find("unreadable") or output:find("setpriv") then
      return pending("another user cannot read the module here")
    end
    assert.equal("true\tEACCES", output)
  end)
end)
