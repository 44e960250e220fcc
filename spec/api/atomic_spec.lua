-- SPDX-License-Identifier: MIT
--
-- add, replace, cas, swap and incr: what each does and refuses, and that each
-- happens at one instant among processes.

local helper = require "spec.support.helper"

local MIB = 1024 * 1024
local HUGE = 1e308 * 10
local NAN = HUGE - HUGE

local METHODS = { "add", "replace", "cas", "swap", "incr" }

-- What a method of `db` answers when it is called with a key that it takes.
local function call(db, method, key)
  if method == "cas" then return db:cas(key, "5", "6") end
  if method == "incr" then return db:incr(key) end
  return db[method](db, key, "6")
end

local fails, raises = helper.fails, helper.raises

describe("a store's changes that depend on the value:", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
  end)
  after_each(helper.close_all)

  -- Exactly one result.
  local function answers(expected, ...)
    assert.equal(1, select("#", ...))
    assert.equal(expected, (...))
  end

  describe("add", function()
    it("puts what is not there, and nothing else", function()
      answers(true, db:add("k", "v"))
      answers(false, db:add("k", "w"))
      assert.equal("v", db:get("k"))
      db:delete("k")
      answers(true, db:add("k", "w"))
      assert.equal("w", db:get("k"))
      assert.equal(1, #db)
    end)

    it("finds an empty value to be there", function()
      assert.is_true(db:add("k", ""))
      assert.is_false(db:add("k", "v"))
      assert.equal("", db:get("k"))
    end)
  end)

  describe("replace", function()
    it("puts what is there, and nothing else", function()
      answers(false, db:replace("k", "v"))
      assert.is_false(db:has("k"))
      db:put("k", "")
      answers(true, db:replace("k", "v"))
      assert.equal("v", db:get("k"))
      answers(true, db:replace("k", "v"))
      db:delete("k")
      answers(false, db:replace("k", "w"))
      assert.equal(0, #db)
    end)
  end)

  describe("cas", function()
    it("puts if the value is as expected", function()
      db:put("k", "one")
      answers(false, db:cas("k", "two", "three"))
      answers(false, db:cas("k", "on", "three"))
      answers(false, db:cas("k", "one\0", "three"))
      answers(false, db:cas("k", "", "three"))
      answers(true, db:cas("k", "one", "two"))
      answers(false, db:cas("k", "one", "three"))
      assert.equal("two", db:get("k"))
    end)

    it("takes nil for an absent key", function()
      answers(false, db:cas("k", "", "v"))
      answers(true, db:cas("k", nil, "v"))
      answers(false, db:cas("k", nil, "w"))
      assert.equal("v", db:get("k"))
      db:put("empty", "")
      answers(false, db:cas("empty", nil, "v"))
      answers(true, db:cas("empty", "", "v"))
    end)

    it("deletes for a new value of nil", function()
      db:put("k", "v")
      answers(false, db:cas("k", "w", nil))
      answers(true, db:cas("k", "v", nil))
      answers(false, db:cas("k", "v", nil))
      answers(true, db:cas("k", nil, nil))
      assert.equal(0, #db)
      db:put("k", "v")
      answers(true, db:cas("k", "v"))
      assert.is_false(db:has("k"))
    end)

    it("takes numbers as put does", function()
      db:put("k", 17)
      assert.is_false(db:cas("k", 18, 19))
      assert.is_true(db:cas("k", 17, 18))
      assert.equal("18", db:get("k"))
    end)
  end)

  describe("swap", function()
    it("puts, and returns what was there", function()
      answers(nil, db:swap("k", "one"))
      answers("one", db:swap("k", "two"))
      answers("two", db:swap("k", ""))
      answers("", db:swap("k", "three"))
      assert.equal("three", db:get("k"))
      assert.equal(1, #db)
    end)

    it("tells by a message, and by nothing else, that it failed", function()
      local small = helper.store { max_size = MIB }
      small:put("k", "v")
      assert.equal(1, select("#", small:swap("nobody", "v")))
      fails("EFULL", small:swap("k", helper.bytes(2 * MIB)))
      fails("EFULL", small:swap("other", helper.bytes(2 * MIB)))
      assert.equal("v", small:get("k"))
      assert.is_false(small:has("other"))
      assert.equal("v", small:swap("k", "w"))
    end)
  end)

  describe("incr", function()
    local function is_integer(number)
      return not math.type or math.type(number) == "integer"
    end

    it("counts from 0 by 1", function()
      for i = 1, 20 do
        local sum = db:incr("n")
        answers(i, sum)
        assert.is_true(is_integer(sum))
        assert.equal(tostring(i), db:get("n"))
      end
    end)

    it("adds what it is told, to what it is told", function()
      answers(12, db:incr("a", 12))
      answers(-88, db:incr("a", -100))
      answers(-88, db:incr("a", 0))
      answers(99, db:incr("b", -1, 100))
      answers(98, db:incr("b", -1, 100))
      answers(101, db:incr("c", nil, 100))
      answers(1, db:incr("d", nil, nil))
      answers(5, db:incr("e", 0, 5))
      assert.equal("5", db:get("e"))
    end)

    it("goes on with what put has written", function()
      for text, sum in pairs { ["41"] = 42, ["+5"] = 6, ["-1"] = 0, ["007"] = 8,
        ["-0"] = 1, ["0.5"] = 1.5, [".5"] = 1.5, ["1e3"] = 1001, ["5."] = 6 } do
        db:put("n", text)
        answers(sum, db:incr("n"))
      end
      db:put("n", 41)
      assert.equal(42, db:incr("n"))
    end)

    it("adds floats, whose text stays that of a float", function()
      answers(0.5, db:incr("x", 0.5))
      assert.equal("0.5", db:get("x"))
      answers(1, db:incr("x", 0.5))
      assert.equal("1.0", db:get("x"))
      answers(2, db:incr("x"))
      assert.equal("2.0", db:get("x"))
      answers(0.1 + 0.2, db:incr("y", 0.2, 0.1))
      assert.equal("0.30000000000000004", db:get("y"))
      answers(1e300, db:incr("z", 1e300))
      assert.equal("1e+300", db:get("z"))
      assert.equal(0.25, db:incr("w", 0.25, 0))
      assert.equal(1.25, db:incr("v", 1, 0.25))
      if math.type then
        assert.equal("float", math.type(db:incr("x")))
        assert.equal("float", math.type(db:incr("u", 1.0)))
        assert.equal("1.0", db:get("u"))
      else
        db:incr("u", 1.0)
        assert.equal("1", db:get("u"))
      end
    end)

    it("writes all digits of its sum, of which a number as value has 14", function()
      db:incr("n", 0.1)
      local sum = db:incr("n", 0.2)
      assert.equal("0.30000000000000004", db:get("n"))
      assert.equal(0.1 + 0.2, sum)
      assert.is_false(db:cas("n", sum, "5"))
      assert.is_true(db:cas("n", ("%.17g"):format(sum), "5"))
    end)

    it("takes strings that Lua takes for numbers", function()
      assert.equal(5, db:incr("n", "5"))
      assert.equal("5", db:get("n"))
      assert.equal(21, db:incr("n", " 0x10 "))
      assert.equal("21", db:get("n"))
      assert.equal(21.5, db:incr("n", "0.5"))
      assert.equal(8, db:incr("m", "1", "7"))
      assert.equal("8", db:get("m"))
      local by = "5"
      db:incr("n", by)
      assert.equal("string", type(by))
    end)

    it("keeps all digits of 64 bits", function()
      assert.is_truthy(db:incr("n", 0, 2 ^ 53))
      db:put("n", "9007199254740993")
      local sum = db:incr("n", 2)
      assert.equal("9007199254740995", db:get("n"))
      if math.type then
        assert.equal("9007199254740995", ("%d"):format(sum))
      else
        assert.is_true(math.abs(sum - 2 ^ 53) <= 4)
      end
      db:put("n", "9223372036854775800")
      assert.is_truthy(db:incr("n", 7))
      assert.equal("9223372036854775807", db:get("n"))
      db:put("n", "-9223372036854775800")
      assert.is_truthy(db:incr("n", -8))
      assert.equal("-9223372036854775808", db:get("n"))
      fails("ENUMBER", db:incr("n", -1))
      if math.type then
        assert.equal(math.mininteger, db:incr("m", math.mininteger))
        assert.equal(-1, db:incr("m", math.maxinteger))
      else -- the float next to it, which is an integer there
        assert.equal(-2 ^ 63, db:incr("m", -2 ^ 63))
        assert.equal("-9223372036854775808", db:get("m"))
        assert.equal(2 ^ 63, db:incr("l", 2 ^ 63))
        assert.is_truthy(db:get("l"):find("e+18", 1, true))
      end
    end)

    it("refuses a value that is no number, and leaves it", function()
      for _, text in ipairs { "", "-", "five", " 5", "5 ", "0x10", "1,5", "nan",
        "inf", "1e309", "5\0", "9223372036854775808", "1e", ("9"):rep(400),
        helper.bytes(MIB) } do
        db:put("n", text)
        fails("ENUMBER", db:incr("n"))
        local message = fails("ENUMBER", db:incr("n", 0.5, 7))
        assert.is_truthy(message:find(': "n"$'), message)
        assert.is_true(text == db:get("n"))
      end
    end)

    it("refuses a sum that does not fit, and leaves the value", function()
      db:put("n", "9223372036854775807")
      fails("ENUMBER", db:incr("n"))
      assert.equal("9223372036854775807", db:get("n"))
      db:put("x", "1.7e308")
      fails("ENUMBER", db:incr("x", 1.7e308))
      assert.equal("1.7e308", db:get("x"))
      fails("ENUMBER", db:incr("y", 1e308, 1e308))
      assert.is_false(db:has("y"))
    end)

    it("names the key, or how it begins, of a value that is no number", function()
      for _, key in ipairs { "", "\0", ("k"):rep(64), ("k"):rep(65) } do
        db[key] = "five"
        local shown = #key < 65 and key .. '"' or key:sub(1, 64) .. '"...'
        local message = fails("ENUMBER", db:incr(key))
        assert.is_truthy(message:find(': "' .. shown, 1, true), message)
      end
    end)

    it("raises for what is no finite number", function()
      for _, number in ipairs { HUGE, -HUGE, NAN } do
        raises("finite number expected", db.incr, db, "n", number)
        raises("finite number expected", db.incr, db, "n", 1, number)
      end
      for _, wrong in ipairs { {}, true, print, "five", "" } do
        raises("number expected", db.incr, db, "n", wrong)
        raises("number expected", db.incr, db, "n", 1, wrong)
      end
      assert.equal(0, #db)
    end)
  end)

  describe("all of them", function()
    it("are found by their names, before keys", function()
      for _, method in ipairs(METHODS) do
        assert.equal("function", type(db[method]))
        db[method] = "5"
        assert.equal("function", type(db[method]))
        assert.equal("5", db:get(method))
        call(db, method, method)
        assert.equal(method == "add" and "5" or "6", db:get(method))
      end
    end)

    it("take keys of every kind", function()
      for _, key in ipairs { "", "\0", ("\255"):rep(300), helper.bytes(65535),
        17 } do
        assert.is_true(db:add(key, "1"))
        assert.is_true(db:replace(key, "2"))
        assert.is_true(db:cas(key, "2", "3"))
        assert.equal("3", db:swap(key, "4"))
        assert.equal(5, db:incr(key))
        assert.equal("5", db:get(key))
        assert.is_true(db:cas(key, "5", nil))
        assert.equal(0, #db)
      end
    end)

    it("refuse keys that are too long", function()
      local key = helper.bytes(65536)
      local version = db:version()
      for _, method in ipairs(METHODS) do
        fails("ETOOBIG", call(db, method, key))
      end
      fails("ETOOBIG", db:cas(key, nil, nil))
      assert.equal(version, db:version())
      assert.equal(0, #db)
    end)

    it("refuse keys and values of other types", function()
      db:put("k", "v")
      for _, method in ipairs(METHODS) do
        raises("string expected, got table", db[method], db, {}, "v")
        raises("string expected, got nil", db[method], db, nil, "v")
        raises("string expected, got no value", db[method], db)
        raises("mmcmap expected", db[method], {}, "k", "v")
        raises("mmcmap expected", db[method])
      end
      for _, method in ipairs { "add", "replace", "swap" } do
        raises("string expected, got no value", db[method], db, "k")
        raises("string expected, got nil", db[method], db, "k", nil)
        raises("string expected, got boolean", db[method], db, "k", false)
        raises("option", db[method], db, "k", "v", { lifetime = 5 })
      end
      raises("string expected, got boolean", db.cas, db, "k", false, "v")
      raises("string expected, got table", db.cas, db, "k", "v", {})
      assert.equal("v", db:get("k"))
      assert.equal(1, #db)
    end)

    it("fail on a read-only store", function()
      db:put("k", "5")
      assert(db:close())
      db = helper.store({ readonly = true }, path)
      for _, method in ipairs(METHODS) do
        fails("EREADONLY", call(db, method, "k"))
        fails("EREADONLY", call(db, method, "nobody"))
      end
      assert.equal("5", db:get("k"))
    end)

    it("raise on a closed store", function()
      assert(db:close())
      for _, method in ipairs(METHODS) do
        raises("closed store", function() return call(db, method, "k") end)
      end
    end)

    it("change the version if they change the content, and else do not",
      function()
        local version = db:version()
        local function changes(is_change, ...)
          local now = db:version()
          assert.equal(is_change, now ~= version)
          version = now
          return ...
        end
        changes(true, db:add("k", "v"))
        changes(false, db:add("k", "w"))
        changes(false, db:replace("nobody", "w"))
        changes(true, db:replace("k", "w"))
        changes(false, db:cas("k", "v", "x"))
        changes(false, db:cas("k", nil, "x"))
        changes(false, db:cas("nobody", nil, nil))
        changes(false, db:incr("k"))
        changes(true, db:cas("k", "w", "1"))
        changes(true, db:swap("k", "2"))
        changes(true, db:incr("k"))
        changes(true, db:cas("k", "3", nil))
        assert.equal(0, #db)
      end)

    it("are not seen by a loop that began before", function()
      for i = 1, 50 do db:put("k" .. i, i) end
      local sum = 0
      for key, value in db:pairs() do
        db:incr(key, 1000)
        db:swap(key .. "'", "new")
        db:cas("k" .. 51 - key:sub(2), tostring(51 - key:sub(2)), nil)
        sum = sum + value
      end
      assert.equal(1275, sum)
    end)

    it("take large values", function()
      local sizes = { MIB / 4 - 1, MIB / 4 + 1, 300 * 1024, 3 * MIB + 5 }
      for round, size in ipairs(sizes) do
        local one, two = helper.bytes(size, round), helper.bytes(size, round + 9)
        local other = two:sub(1, -2) .. string.char((two:byte(-1) + 1) % 256)
        assert.is_true(db:add("k", one))
        assert.is_false(db:add("k", two))
        assert.is_true(db:swap("k", two) == one)
        assert.is_false(db:cas("k", one, "x"))
        assert.is_false(db:cas("k", other, "x")) -- in the last byte only
        assert.is_true(db:cas("k", two, one))
        assert.is_true(db:get("k") == one)
        assert.is_true(db:swap("k", "small") == one)
        assert.is_true(db:swap("k", two) == "small")
        assert.is_true(db:replace("k", one))
        fails("ENUMBER", db:incr("k"))
        assert.is_true(db:get("k") == one)
        assert(db:close())
        db = helper.store({ durability = "manual" }, path)
        assert.is_true(db:cas("k", one, nil))
        assert.is_false(db:has("k"))
      end
    end)

    it("are on disk as put is", function()
      for _, level in ipairs { "sync", "async", "manual" } do
        local other = helper.path()
        assert.equal("", helper.child(([[
          local db = assert(mmcmap.open((...), { durability = %q }))
          assert(db:add("added", "1"))
          assert(db:incr("n", 5))
          assert(db:swap("n", "6"))
          assert(db:cas("n", "6", "7"))
          assert(db:replace("added", "2"))
          assert(db:cas("gone", nil, "x") and db:cas("gone", "x", nil))
          if %q == "sync" then os.exit(0) end
          assert(db:close())
        ]]):format(level, level), other))
        local found = helper.store(nil, other)
        assert.same({ added = "2", n = "7" }, (helper.records(found)))
      end
    end)
  end)

  describe("with a codec", function()
    local lists

    before_each(function()
      lists = helper.store({ codec = {
        encode = function(list) return table.concat(list, ",") end,
        decode = function(text)
          if text == "!" then error("cannot decode", 0) end
          local list = {}
          for word in text:gmatch("[^,]+") do list[#list + 1] = word end
          return list
        end,
      } }, path)
    end)

    it("add, replace and swap encode, and swap decodes", function()
      assert.is_true(lists:add("k", { "a", "b" }))
      assert.is_false(lists:add("k", { "c" }))
      assert.equal("a,b", db:get("k"))
      assert.is_true(lists:replace("k", { "c" }))
      assert.same({ "c" }, lists:swap("k", { "d", "e" }))
      assert.equal("d,e", db:get("k"))
      answers(nil, lists:swap("new", { "f" }))
    end)

    it("cas compares what is encoded", function()
      assert.is_true(lists:cas("k", nil, { "a", "b" }))
      assert.is_false(lists:cas("k", { "a" }, { "c" }))
      assert.is_true(lists:cas("k", { "a", "b" }, { "c" }))
      assert.equal("c", db:get("k"))
      assert.is_true(lists:cas("k", { "c" }, nil))
      assert.is_false(lists:has("k"))
      db:put("k", "!")
      assert.is_true(lists:cas("k", { "!" }, { "d" })) -- decodes nothing
    end)

    it("incr has nothing to do with it", function()
      assert.equal(5, lists:incr("n", 5))
      assert.equal("5", db:get("n"))
      assert.equal(6, lists:incr("n"))
    end)

    it("errors of encode change nothing", function()
      db:put("k", "a")
      for _, method in ipairs { "add", "replace", "swap" } do
        assert.is_false(pcall(lists[method], lists, "k", 5))
      end
      assert.is_false(pcall(lists.cas, lists, "k", { "a" }, 5))
      assert.is_false(pcall(lists.cas, lists, "k", 5, { "b" }))
      assert.is_false(pcall(lists.cas, lists, "k", false, { "b" }))
      assert.same({ k = "a" }, (helper.records(db)))
    end)

    it("an error of decode is raised before swap has put", function()
      db:put("k", "!")
      raises("cannot decode", lists.swap, lists, "k", { "b" })
      assert.equal("!", db:get("k"))
      assert.is_true(lists:put("k", { "b" }))
      assert.same({ "b" }, lists:swap("k", { "c" }))
    end)

    it("a codec may use the store, or close it", function()
      local busy, closing
      busy = helper.store { codec = {
        encode = function(value)
          busy:incr("encoded")
          return tostring(value)
        end,
        decode = function(text)
          busy:incr("decoded")
          return text
        end } }
      assert.is_true(busy:add("k", 1))
      assert.is_true(busy:cas("k", 1, 2))
      assert.equal("2", busy:swap("k", 3))
      assert.equal(4, busy:incr("encoded", 0))
      assert.equal(1, busy:incr("decoded", 0))
      for _, method in ipairs { "add", "replace", "swap", "cas" } do
        closing = helper.store { codec = {
          encode = function(value)
            closing:close()
            return value
          end, decode = print } }
        raises("closed store", closing[method], closing, "k", "v", nil)
      end
    end)

    it("false is a value, nil is none", function()
      local any = helper.store { codec = { encode = tostring,
        decode = function(text)
          if text == "nil" then return nil end
          return text == "true"
        end } }
      assert.is_true(any:cas("k", nil, false))
      assert.is_true(any:cas("k", false, true))
      answers(true, any:swap("k", false))
      answers(false, any:swap("k", true))
    end)
  end)
end)

-- What each process does first: it waits until all are there.
local START = [[
  local mmcmap = require "mmcmap"
  local path, rounds, count, me = ...
  local db = assert(mmcmap.open(path, { durability = "manual" }))
  local deadline = os.time() + 60
  assert(db:incr("here"))
  repeat assert(os.time() < deadline) until db:get("here") == count
]]

-- Runs the code at once in so many processes: their outputs.
local function at_once(path, count, rounds, code)
  local pipes, outputs = {}, {}
  local script = helper.write(helper.path(".lua"), table.concat({
    ("package.path, package.cpath = %q, %q"):format(package.path,
      package.cpath),
    START, code }, "\n"))
  local command = table.concat({ helper.quoted(helper.interpreter()),
    helper.quoted(script), helper.quoted(path), rounds, count }, " ")
  for i = 1, count do
    pipes[i] = assert(io.popen(command .. " " .. i .. " 2>&1"))
  end
  for i = 1, count do
    outputs[i] = pipes[i]:read("*a")
    pipes[i]:close()
  end
  return outputs
end

describe("processes that change a store at once", function()
  local PROCESSES, ROUNDS = 5, os.getenv("MMCMAP_LONG") and 50000 or 5000
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
  end)
  after_each(helper.close_all)

  it("incr to an exact sum, and no two get the same", function()
    local outputs = at_once(path, PROCESSES, ROUNDS, [[
      local last = 0
      for _ = 1, rounds do
        local sum = assert(db:incr("n", 3, 100))
        assert(sum > last)
        io.write(("%d "):format(sum))
        last = sum
        assert(db:incr("x", -0.25))
      end
    ]])
    local seen, count = {}, 0
    for _, output in ipairs(outputs) do
      for word in output:gmatch("%S+") do
        assert.is_truthy(word:find("^%d+$"), output)
        assert.is_nil(seen[word])
        seen[word] = true
        count = count + 1
      end
    end
    assert.equal(PROCESSES * ROUNDS, count)
    assert.equal(100 + 3 * count, db:incr("n", 0))
    assert.equal(-0.25 * count, tonumber(db:get("x")))
  end)

  it("win each add once", function()
    local outputs = at_once(path, PROCESSES, ROUNDS, [[
      for i = 1, rounds do
        local won = db:add("job " .. i, me)
        assert(won ~= nil)
        if won then io.write(i, " ") end
      end
    ]])
    local count = 0
    for me, output in ipairs(outputs) do
      for i in output:gmatch("%S+") do
        assert.equal(tostring(me), db:get("job " .. i), output:sub(-200))
        count = count + 1
      end
    end
    assert.equal(ROUNDS, count)
    assert.equal(ROUNDS + 1, #db)
  end)

  it("count by cas, and lose no step", function()
    local outputs = at_once(path, PROCESSES, ROUNDS, [[
      for _ = 1, rounds do
        local done
        repeat
          local old = db:get("n")
          done = db:cas("n", old, (old or 0) + 1)
          assert(done ~= nil)
        until done
      end
      io.write("done")
    ]])
    for _, output in ipairs(outputs) do assert.equal("done", output) end
    assert.equal(PROCESSES * ROUNDS, tonumber(db:get("n")))
  end)

  it("pass a baton by swap and by cas, and drop none", function()
    -- Each takes what is there and leaves its own: every value is taken once.
    local outputs = at_once(path, PROCESSES, ROUNDS, [[
      for i = 1, rounds do
        local old, message = db:swap("baton", me .. "-" .. i
          .. (" "):rep(i % 300 * 10))
        assert(not message, message)
        io.write((old or "none"):match("%S+"), "\n")
      end
    ]])
    local taken, count = {}, 0
    for _, output in ipairs(outputs) do
      for value in output:gmatch("[^\n]+") do
        assert.is_truthy(value == "none" or value:find("^%d+%-%d+$"), value)
        assert.is_nil(taken[value], value)
        taken[value] = true
        count = count + 1
      end
    end
    assert.equal(PROCESSES * ROUNDS, count)
    assert.is_true(taken.none)
    assert.is_nil(taken[db:get("baton"):match("%S+")])
  end)

  it("add, replace and delete by turns, and the counts agree", function()
    local outputs = at_once(path, PROCESSES, ROUNDS, [[
      local added, deleted = 0, 0
      for i = 1, rounds do
        local key = "k" .. i % 7
        if db:add(key, "v") then added = added + 1 end
        db:replace(key, "w")
        if db:cas(key, "w", nil) then deleted = deleted + 1 end
      end
      io.write(added - deleted)
    ]])
    local left = 0
    for _, output in ipairs(outputs) do left = left + assert(tonumber(output)) end
    db:delete("here")
    assert.equal(left, #db)
    assert.equal(left, select(2, helper.records(db)))
  end)
end)
