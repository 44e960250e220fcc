-- SPDX-License-Identifier: MIT
--
-- What a callback returns: anything but 0 ends the call, which returns it.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"

-- Codes of the library, the first of which is that of the end of a walk, and others.
local CODES = { 1, 77, -1000 }
for code = -1, -22, -1 do CODES[#CODES + 1] = code end

describe("a callback", function()
  local db, copy

  before_each(function()
    copy = scratch.path("copy")
    db = assert(probe.store.open(scratch.path("store"), { durability = "manual" }))
    for _, name in ipairs { "a", "b", "c" } do
      assert(db:put(name, name))
      local map = assert(db:map(name))
      for i = 1, 300 do assert(map:put("key " .. i, name)) end
      map:close()
      assert(db:save(name))
    end
  end)
  after_each(function() db:close() end)

  -- -1, MMCMAP_NOTFOUND, was taken for the end: get_many() returned MMCMAP_OK, and told of
  -- fewer than there were; backup() said that the store was damaged.
  for _, call in ipairs { "get_many", "maps", "snapshots", "check", "backup", "compact" } do
    it("ends " .. call .. " with whatever code it returns", function()
      local done, calls = db:ended(call, 0, 0, copy)
      assert.equal(0, done)
      assert.is_true(calls >= 1)
      os.remove(copy)
      if call == "compact" then calls = 1 end -- it may be called less often the next time
      for at = 1, calls do
        for _, code in ipairs(CODES) do
          assert.same({ code, at }, { db:ended(call, at, code, copy) })
          assert.is_nil(io.open(copy))
        end
      end
    end)
  end
end)
