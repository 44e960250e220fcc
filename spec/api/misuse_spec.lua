-- SPDX-License-Identifier: MIT
--
-- Wrong arguments raise, with messages as those of Lua's own libraries, and
-- change nothing.

local helper = require "spec.support.helper"

describe("misuse:", function()
  local db

  before_each(function()
    db = helper.store()
    db:put("k", "v")
  end)
  after_each(helper.close_all)

  local function raises(word, call, ...)
    local ok, message = pcall(call, ...)
    assert.is_false(ok, "no error; expected: " .. word)
    assert.is_truthy(tostring(message):find(word, 1, true),
      ("%q is not in %q"):format(word, tostring(message)))
  end

  it("keys that are neither strings nor numbers", function()
    for _, method in ipairs { "get", "has", "delete" } do
      raises("string expected, got no value", db[method], db)
      raises("string expected, got nil", db[method], db, nil)
      raises("string expected, got table", db[method], db, {})
      raises("string expected, got boolean", db[method], db, true)
      raises("string expected, got function", db[method], db, print)
      raises("string expected, got mmcmap.snapshot", db[method], db, db:snapshot())
    end
    raises("string expected, got table", db.put, db, {}, "v")
    raises("string expected, got nil", db.put, db, nil, "v")
  end)

  it("values that are neither strings nor numbers", function()
    raises("string expected, got no value", db.put, db, "k")
    raises("string expected, got nil", db.put, db, "k", nil)
    local words = "string expected, got table: other types need a codec"
    raises(words, db.put, db, "k", {})
    raises(words, db.cas, db, "k", "v", {})
    raises("bad value (" .. words .. ")", function() db.k = {} end)
    raises("string expected, got boolean", db.put, db, "k", true)
    assert.equal("v", db:get("k"))
  end)

  it("the method and the argument are named", function()
    local ok, message = pcall(function() db:put({}, "v") end)
    assert.is_false(ok)
    assert.matches("bad argument", message, 1, true)
    assert.matches("put", message, 1, true)
  end)

  it("operands that are neither strings nor numbers", function()
    raises("bad key (string expected, got table)",
      function() return db[{}] end)
    raises("bad key (string expected, got boolean)",
      function() return db[true] end)
    raises("bad key (string expected, got table)",
      function() db[{}] = "v" end)
    raises("bad key (string expected, got boolean)",
      function() db[false] = nil end)
    raises("bad value (string expected, got boolean: other types need a codec)",
      function() db.k = false end)
    raises("bad key (string expected, got nil)",
      function() return db[nil] end)
    assert.equal("v", db.k)
    assert.equal(1, #db)
  end)

  it("options that put does not have", function()
    raises("unknown option 'tll': the only option is 'ttl'", db.put, db, "k", "w",
      { tll = 5 })
    raises("table expected", db.put, db, "k", "w", 5)
    raises("table expected", db.put, db, "k", "w", false)
    assert.equal("v", db:get("k"))
    assert.is_true(db:put("k", "w", nil))
  end)

  it("methods of a store called on something else", function()
    local stranger = setmetatable({}, getmetatable(db))
    local file = getmetatable(io.stdout).__name or "userdata" -- has one since 5.3
    for _, method in ipairs { "get", "put", "delete", "has", "count", "pairs",
      "keys", "size", "sync", "close", "remove", "version", "stat", "update",
      "put_many", "clear", "map", "maps", "drop" } do
      raises("mmcmap expected, got string", db[method], "k", "v")
      raises("mmcmap expected, got no value", db[method])
      raises("mmcmap expected, got table", db[method], {}, "k", "v")
      raises("mmcmap expected, got " .. file, db[method], io.stdout, "k", "v")
      raises("mmcmap expected, got mmcmap.snapshot", db[method], db:snapshot(), "k")
      raises("mmcmap expected, got table", db[method], stranger, "k", "v")
    end
    raises("mmcmap expected", getmetatable(db).__len, stranger)
    raises("mmcmap expected", function() return tostring(stranger) end)
    raises("mmcmap expected", function() return stranger.k end)
    raises("mmcmap expected", function() stranger.k = "v" end)
    setmetatable(stranger, nil)
  end)

  it("a dot in place of a colon", function()
    raises("mmcmap expected", function() db.get("k") end)
  end)

  it("metamethods called by hand without arguments", function()
    local mt = getmetatable(db)
    for _, name in ipairs { "__index", "__newindex", "__len", "__tostring",
      "__pairs", "__gc", "__close" } do
      assert.is_false(pcall(mt[name]), name)
    end
    assert.is_false(pcall(mt.__index, db))
    assert.is_false(pcall(mt.__newindex, db))
    mt.__newindex(db, "k")
    assert.is_false(db:has("k"))
    mt.__close(db)
    assert.equal("mmcmap (closed)", tostring(db))
  end)
end)
