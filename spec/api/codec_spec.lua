-- SPDX-License-Identifier: MIT
--
-- A codec turns values into bytes and back, at every place where values pass.

local helper = require "spec.support.helper"

-- Lists of strings, as text; other types fail.
local codec = {}

function codec.encode(value)
  if type(value) ~= "table" then
    error("cannot encode a " .. type(value), 0)
  end
  return table.concat(value, ",")
end

function codec.decode(text)
  if text:find("!", 1, true) then error("cannot decode '" .. text .. "'", 0) end
  local list = {}
  for word in text:gmatch("[^,]+") do list[#list + 1] = word end
  return list
end

describe("a codec", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ codec = codec }, path)
  end)
  after_each(helper.close_all)

  -- The bytes that the file holds.
  local function raw() return helper.store(nil, path) end

  it("encodes on put and decodes on get", function()
    assert.is_true(db:put("k", { "a", "b" }))
    assert.same({ "a", "b" }, db:get("k"))
    assert.equal("a,b", raw():get("k"))
  end)

  it("works through operators and iteration", function()
    db.k = { "a", "b" }
    db[5] = { "c" }
    assert.same({ "a", "b" }, db.k)
    assert.same({ "c" }, db[5])
    assert.same({ k = { "a", "b" }, ["5"] = { "c" } }, (helper.records(db)))
    db.k = nil
    assert.is_nil(db.k)
    assert.equal(1, #db)
  end)

  it("leaves keys alone", function()
    db:put("k", { "a" })
    for key, value in db:keys() do
      assert.equal("k", key)
      assert.is_nil(value)
    end
    assert.is_true(db:has("k"))
    assert.is_true(db:delete("k"))
    assert.has_error(function() db:put({ "k" }, { "a" }) end)
  end)

  it("leaves the default alone", function()
    assert.equal("a,b", db:get("nobody", "a,b"))
  end)

  it("does not take nil for a value", function()
    assert.has_error(function() db:put("k", nil) end)
    assert.has_error(function() db:put("k") end)
    assert.equal(0, #db)
  end)

  it("'s errors reach the caller of put and change nothing", function()
    db:put("k", { "a" })
    local version = db:version()
    for _, call in ipairs {
      function() db:put("k", 5) end,
      function() db.k = "five" end,
    } do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.is_truthy(message:find("cannot encode a", 1, true), message)
    end
    assert.same({ "a" }, db:get("k"))
    assert.equal(version, db:version())
  end)

  it("'s errors reach the caller of get and of a loop", function()
    raw():put("k", "a!")
    for _, call in ipairs {
      function() return db:get("k") end,
      function() return db.k end,
      function() for _ in db:pairs() do error("a record?") end end,
    } do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.is_truthy(message:find("cannot decode 'a!'", 1, true), message)
    end
    assert.is_true(db:put("k", { "good" }))
    assert.same({ "good" }, db:get("k"))
  end)

  -- swap used to put first and to decode what it returns then: the error came when the
  -- old value was gone.
  it("that fails to decode the old value leaves it to swap", function()
    local function keeps_it(where, bytes)
      bytes:put("k", "a!", { ttl = 100 })
      local ok, message = pcall(where.swap, where, "k", { "new" })
      assert.is_false(ok)
      assert.is_truthy(message:find("cannot decode 'a!'", 1, true), message)
      assert.equal("a!", bytes:get("k"))
      assert.is_true(bytes:ttl("k") > 50)
      assert.is_true(where:put("k", { "old" }))
      assert.same({ "old" }, where:swap("k", { "new" }))
      assert.same({ "new" }, where:get("k"))
      assert.is_nil(where:ttl("k"))
    end
    local map, plain = db:map("m"), db:map("m", { codec = false })
    keeps_it(map, plain)
    db:update(function(tx)
      keeps_it(tx:map("m"), tx:map("m", { codec = false }))
    end)
  end)

  it("may change what swap has found: the value before it is returned", function()
    local other, tries
    other = helper.store { codec = { encode = tostring, decode = function(text)
      tries = tries + 1
      if tries == 1 then other:put("k", "second") end
      if tries == 2 then other:delete("k") end
      return text
    end } }
    other:put("k", "first")
    tries = 0
    assert.equal(nil, other:swap("k", "last"))
    assert.equal(2, tries)
    assert.equal("last", other:get("k"))
  end)

  it("'s error objects arrive as they are", function()
    local problem = {}
    local other = helper.store { codec = {
      encode = function() error(problem) end,
      decode = function() error(problem) end,
    } }
    local ok, message = pcall(other.put, other, "k", "v")
    assert.is_false(ok)
    assert.equal(problem, message)
  end)

  it("must encode to a string", function()
    for _, result in ipairs { {}, true, print } do
      local other = helper.store { codec = {
        encode = function() return result end, decode = print } }
      local ok, message = pcall(other.put, other, "k", "v")
      assert.is_false(ok)
      assert.is_truthy(message:find("encode must return a string", 1, true))
      assert.is_false(pcall(function() other.k = "v" end))
      assert.equal(0, #other)
    end
    local silent = helper.store {
      codec = { encode = function() end, decode = print } }
    assert.is_false(pcall(silent.put, silent, "k", "v"))
  end)

  it("may decode to anything, nil and false included", function()
    local result
    local other = helper.store { codec = {
      encode = tostring, decode = function() return result, "more" end } }
    other:put("k", "v")
    for _, value in ipairs { false, 5, {} } do
      result = value
      assert.equal(value, other:get("k"))
      assert.equal(value, other.k)
      assert.equal(1, select("#", other:get("k")))
    end
    result = nil
    assert.is_nil(other:get("k", "default"))
  end)

  it("may be any object whose functions can be called", function()
    local callable = setmetatable({}, {
      __call = function(_, value) return "<" .. value .. ">" end })
    local inheriting = setmetatable({},
      { __index = { encode = callable, decode = callable } })
    local other = helper.store { codec = inheriting }
    other:put("k", "v")
    assert.equal("<<v>>", other:get("k"))
  end)

  it("may use the store itself", function()
    local other
    other = helper.store { codec = {
      encode = function(value)
        other.log = nil
        return value
      end,
      decode = function(text)
        if text == "outer" then return text .. "+" .. other:get("inner") end
        return text
      end,
    } }
    other:put("inner", "inner")
    other:put("outer", "outer")
    assert.equal("outer+inner", other:get("outer"))
    local records = helper.records(other)
    assert.equal("outer+inner", records.outer)
  end)

  it("may close the store, which the caller then hears of", function()
    local other
    local closing = { encode = function(value)
      other:close()
      return value
    end, decode = function(text)
      other:close()
      return text
    end }
    other = helper.store { codec = closing }
    local ok, message = pcall(other.put, other, "k", "v")
    assert.is_false(ok)
    assert.is_truthy(message:find("closed store", 1, true))

    other = helper.store({ codec = closing }, path)
    raw():put("k", "v")
    assert.equal("v", other:get("k"))
    assert.equal("mmcmap (closed)", tostring(other))
    other = helper.store({ codec = closing }, path)
    local next_record, state = other:pairs()
    assert.equal("k", (next_record(state)))
    assert.is_false(pcall(next_record, state))
  end)

  it("may be a table that refers to its store, and is collected", function()
    local weak = setmetatable({}, { __mode = "v" })
    do
      local mine = { encode = tostring, decode = tostring }
      local other = helper.store { codec = mine }
      mine.store = other
      mine.encode = function(value) return tostring(mine.store) .. value end
      weak.codec, weak.store = mine, other
    end
    collectgarbage()
    collectgarbage()
    collectgarbage()
    assert.is_nil(weak.store)
  end)

  it("is read when the store is opened", function()
    local mine = { encode = tostring, decode = tostring }
    local other = helper.store { codec = mine }
    mine.encode, mine.decode = nil, nil
    other:put("k", 5)
    assert.equal("5", other:get("k"))
  end)

  it("may be cjson", function()
    local found, cjson = pcall(require, "cjson")
    if not found then
      pending("cjson is not there")
      return
    end
    local other = helper.store { codec = cjson }
    local value = { name = "Ada", levels = { 1, 2.5, 3 }, open = true }
    assert.is_true(other:put("player", value))
    assert.same(value, other:get("player"))
    other.list = { "a", "b" }
    assert.same({ "a", "b" }, other.list)
    other.null = cjson.null
    assert.equal(cjson.null, other.null)
    other.flag = false
    assert.is_false(other.flag)
    other.text = "text"
    assert.equal("text", other.text)
    local ok = pcall(function() other.player = { print } end)
    assert.is_false(ok)
    assert.same(value, other.player)
    assert.same({ player = value, list = { "a", "b" }, null = cjson.null,
      flag = false, text = "text" }, (helper.records(other)))
  end)
end)

describe("a codec of a map", function()
  local db
  -- Of the store: lists. Of the map: upper case.
  local upper = { encode = string.upper, decode = string.lower }

  before_each(function() db = helper.store { codec = codec } end)
  after_each(helper.close_all)

  local function raw(where) return where:map("m", { codec = false }) end

  it("is its own, in all that passes values", function()
    local map = db:map("m", { codec = upper })
    assert.is_true(map:put("a", "x"))
    map.b = "y"
    assert.is_true(map:put_many { c = "z" })
    assert.is_true(map:add("d", "w"))
    assert.is_true(map:replace("d", "v"))
    assert.is_true(map:cas("d", "v", "u"))
    assert.equal("u", map:swap("d", "t"))
    local wanted = { a = "x", b = "y", c = "z", d = "t" }
    assert.equal("x", map:get("a"))
    assert.equal("y", map.b)
    assert.same(wanted, map:get_many { "a", "b", "c", "d" })
    assert.same(wanted, (helper.records(map)))
    assert.same({ a = "X", b = "Y", c = "Z", d = "T" }, (helper.records(raw(db))))
    assert.same({ "X" }, db:map("m"):get("a"))
    db.a = { "the", "store" }
    assert.same({ "the", "store" }, db.a)
  end)

  it("belongs to the object, which is not shared then", function()
    local plain, own = db:map("m"), db:map("m", { codec = upper })
    assert.equal(plain, db:map("m"))
    assert.not_equal(plain, own)
    assert.not_equal(own, db:map("m", { codec = upper }))
    assert.same({ "t" }, (function() plain.k = { "t" } return db:map("m").k end)())
    assert.same({ "t" }, db:map("m", {}).k)
    assert.same({ "t" }, db:map("m", nil).k)
  end)

  it("is to be had in an update, and changes nothing if it fails", function()
    db:update(function(tx)
      local map = tx:map("m", { codec = upper })
      map.a = "x"
      assert.equal("x", map.a)
      assert.equal("X", raw(tx).a)
      assert.same({ "X" }, tx:map("m").a)
      for _, value in map:pairs() do assert.equal("x", value) end
      assert.same({ a = "x" }, map:get_many { "a" })
    end)
    local failing = db:map("m", { codec = {
      encode = function() error("no words for it", 0) end, decode = error } })
    local version = db:version()
    for _, call in ipairs {
      function() failing.a = "y" end,
      function() failing:put("a", "y") end,
      function() failing:add("b", "y") end,
      function() failing:replace("a", "y") end,
      function() failing:cas("a", nil, "y") end,
      function() failing:swap("a", "y") end,
      function() failing:put_many { a = "y", b = "y" } end,
    } do
      helper.raises("no words for it", call)
    end
    assert.equal(version, db:version())
    helper.raises("X", failing.get, failing, "a") -- error() itself
  end)

  it("is to be had of a snapshot, whose differences are decoded by both", function()
    raw(db).a = "X"
    local before = db:snapshot()
    raw(db).a = "Y"
    raw(db).b = "Z"
    local map = before:map("m", { codec = upper })
    assert.equal("x", map.a)
    assert.equal("x", map:get("a"))
    assert.same({ a = "x" }, map:get_many { "a", "b" })
    assert.same({ a = "x" }, (helper.records(map)))
    assert.equal("X", raw(before).a)
    assert.same({ "X" }, before:map("m").a)
    local after, found = raw(db:snapshot()), {}
    for key, old, new in db:diff(map, after) do found[key] = { old or false, new } end
    assert.same({ a = { "x", "Y" }, b = { false, "Z" } }, found)
  end)

  it("is there where the store has none", function()
    local plain = helper.store()
    plain:map("m", { codec = codec }).a = { "1", "2" }
    assert.equal("1,2", plain:map("m").a)
    assert.same({ "1", "2" }, plain:map("m", { codec = codec }).a)
    local map = plain:snapshot():map("m", { codec = codec })
    assert.same({ a = { "1", "2" } }, map:get_many { "a" })
    assert.same({ a = { "1", "2" } }, (helper.records(map)))
    for _, _, new in plain:diff(plain:snapshot():map("other"), map) do
      assert.same({ "1", "2" }, new)
    end
  end)

  it("is misused with an error", function()
    local raises, snap = helper.raises, db:snapshot()
    for _, where in ipairs { db, snap } do
      raises("table expected, got string", where.map, where, "m", "codec")
      raises("unknown option 'coded': the only option is 'codec'", where.map, where,
        "m", { coded = upper })
      raises("the only option is 'codec'", where.map, where, "m", { upper })
      raises("an object with encode and decode, got boolean", where.map, where, "m",
        { codec = true })
      raises("no function 'decode'", where.map, where, "m",
        { codec = { encode = print } })
    end
    assert.same({}, db:maps())
    local closing = setmetatable({}, { __index = function()
      db:close()
      return upper
    end })
    raises("closed store", db.map, db, "m", closing)
  end)
end)
