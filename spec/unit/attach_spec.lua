-- SPDX-License-Identifier: MIT
--
-- Who reads a store whose lock file cannot be written: without one, alone or beside
-- others that only read.

local probe = require "mmcmap_probe"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"

local LOCK_FILE = 2 -- the second that is opened, behind the data file

describe("a store whose lock file cannot be written", function()
  local path, db, loner

  before_each(function()
    path = scratch.path("store")
    db = scratch.open(path)
    assert(db:put("key", "value"))
    assert(db:close())
    db, loner = nil, nil
  end)

  after_each(function()
    peers.kill_all()
    if db then db:close() end
  end)

  -- What a process that cannot open the lock file is told.
  local function open_as_loner(options, system_error)
    loner = peers.launch(path)
    local answer = loner:ask(([[
      probe.os.fail("open", %d, "%s", 1)
      local code, what
      db, code, what = probe.store.open(path, { durability = "manual", timeout_ms = 0, %s })
      probe.os.restore()
      return code, what
    ]]):format(LOCK_FILE, system_error or "EACCES", options))
    return answer:match("^(%S+) ?(.*)$")
  end

  local function try_to_open(options)
    options.timeout_ms, options.durability = 0, "manual"
    local own, code = probe.store.open(path, options)
    if own then assert(own:close()) end
    return code or "opened"
  end

  for system_error, code in pairs { EACCES = "EACCES", EROFS = "EREADONLY",
    ENOSPC = "ENOSPC" } do
    it("is read, not written: " .. system_error, function()
      for _ = 1, 2 do -- there is a lock file, and there is none
        assert.equal(code, (open_as_loner("readonly = false", system_error)))
        assert.equal("nil", (open_as_loner("readonly = true", system_error)))
        assert.equal("value", loner:ask("return db:get('key')"))
        assert.equal("nil EREADONLY",
          loner:ask("local _, code = db:put('key', '') return _, code"))
        loner:finish()
        os.remove(path .. "-lock")
      end
    end)
  end

  it("is not read where anything else is wrong", function()
    assert.equal("EIO", (open_as_loner("readonly = true", "EIO")))
  end)

  it("is not written by others meanwhile, but read", function()
    assert.equal("nil", (open_as_loner("readonly = true")))
    assert.equal("EBUSY", try_to_open {})
    assert.equal("opened", try_to_open { readonly = true })
    assert.equal("value", loner:ask("return db:get('key')"))
    loner:finish()
    assert.equal("opened", try_to_open {})
  end)

  it("is not read while others share it", function()
    db = scratch.open(path)
    local code, what = open_as_loner("readonly = true")
    assert.equal("EBUSY", code)
    assert.is_truthy(what:find("chmod 666 NAME-lock", 1, true), what)
    loner:finish()
    code, what = open_as_loner("readonly = true", "EROFS") -- chmod is no help
    assert.equal("EBUSY", code)
    assert.is_nil(what:find("chmod", 1, true))
    loner:finish()
    assert(db:close())
    db = nil
    assert.equal("nil", (open_as_loner("readonly = true")))
  end)
end)
