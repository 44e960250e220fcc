-- SPDX-License-Identifier: MIT
--
-- Named maps in C: that each is a store of its own, that a transaction spans
-- them, and what is left of them when processes die.

local probe = require "mmcmap_probe"
local crash = require "spec.support.crash"
local scratch = require "spec.support.scratch"
local binary = require "spec.support.binary"
local SEGMENT = scratch.SEGMENT
local SIGKILL = 9

describe("txn.catalog", function()
  local path, db

  before_each(function() path = scratch.path("store") end)
  teardown(crash.remove_folder)
  after_each(function()
    if crash.has_hooks then probe.crash.breaks() end
    if db then db:close() end
    db = nil
  end)

  local function open(options)
    db = scratch.open(path, options)
    return db
  end

  local function size_of(records)
    local size = 0
    for _ in pairs(records) do size = size + 1 end
    return size
  end

  local function holds(map, model)
    assert.same(model, (assert(map:records())))
    assert.equal(size_of(model), map:count())
    for key, value in pairs(model) do assert.equal(value, map:get(key)) end
    assert.is_nil(map:get("what nobody has put"))
  end

  -- `model` has the default map as `model[1]`, the others by name.
  local function all_holds(model)
    holds(db, model[1])
    local names = {}
    for name, records in pairs(model) do
      if name ~= 1 then
        names[name] = ""
        local map = assert(db:map(name))
        holds(map, records)
        map:close()
      end
    end
    assert.same(names, (assert(db:maps())))
  end

  local function verify(options)
    options = options or {}
    local report = assert(probe.verify.bytes(scratch.read(path),
      options.primary_mask, options.secondary_mask))
    assert.same({}, report.failures)
    return report
  end

  local function is_sound_on_disk(model)
    assert(db:close())
    local report = verify()
    local records = 0
    for _, map in pairs(model) do records = records + size_of(map) end
    assert.equal(size_of(model) - 1, report.map_count)
    assert.equal(records, report.record_count)
    open()
    all_holds(model)
  end

  it("keeps maps apart", function()
    open()
    local a, b = assert(db:map("a")), assert(db:map("b"))
    assert.same({}, (db:maps()))
    holds(a, {})
    assert(db:put("key", "default"))
    assert.is_nil(a:get("key"))
    assert.is_false(a:delete("key"))
    assert.same({}, (db:maps()))
    assert(a:put("key", "of a"))
    assert(b:put("key", "of b"))
    assert(b:put("other", ("L"):rep(50000)))
    assert.is_true(a:has("key"))
    assert.equal(1, a:count())
    local again = assert(db:map("a"))
    assert.equal("of a", again:get("key"))
    again:close()
    assert.is_true(a:delete("key"))
    all_holds { { key = "default" }, a = {},
      b = { key = "of b", other = ("L"):rep(50000) } }
    a:close()
    b:close()
    is_sound_on_disk { { key = "default" }, a = {},
      b = { key = "of b", other = ("L"):rep(50000) } }
  end)

  it("has every method of a store", function()
    open()
    local map = assert(db:map("m"))
    assert.equal(db:path(), map:path())
    assert.is_true(map:add("a", "1"))
    assert.equal("MISMATCH", map:add("a", "1"))
    assert.is_true(map:replace("a", "2"))
    assert.is_true(map:cas("a", "2", "3"))
    assert.equal("3", (map:swap("a", "4")))
    assert(map:incr("n", "0000000000000005", "0000000000000000"))
    assert(map:put_many { "x", "1", "y", "2" })
    holds(map, { a = "4", n = "5", x = "1", y = "2" })
    local txn = assert(map:begin())
    assert(txn:put("a", "5"))
    assert.is_true(txn:delete("x"))
    assert.equal(3, txn:count())
    assert(txn:commit())
    holds(map, { a = "5", n = "5", y = "2" })
    local snapshot = assert(map:snapshot())
    assert(map:clear())
    holds(map, {})
    assert.equal(3, snapshot:count())
    assert.equal("5", snapshot:get("a"))
    local other = assert(snapshot:map("nobody"))
    assert.equal(0, other:count())
    other:close()
    snapshot:close()
    holds(db, {})
    map:close()
    is_sound_on_disk { {}, m = {} }
  end)

  it("takes names of any bytes", function()
    open()
    local model = { {} }
    for _, name in ipairs { "", "\0", "\0\0", ("n"):rep(65535), "a/b", "\255" } do
      local map = assert(db:map(name))
      assert(map:put("key", "of " .. #name .. name:sub(1, 3)))
      model[name] = { key = "of " .. #name .. name:sub(1, 3) }
      map:close()
    end
    local _, code = db:map(("n"):rep(65536))
    assert.equal("ETOOBIG", code)
    all_holds(model)
    is_sound_on_disk(model)
  end)

  it("tells their names as long as the visitor wants them", function()
    open()
    assert.same({ {}, 0 }, { db:maps() })
    for i = 1, 3 do
      local map = assert(db:map("map " .. i))
      assert(map:put("k", "v"))
      map:close()
    end
    assert.same({ { ["map 1"] = "", ["map 2"] = "", ["map 3"] = "" }, 3 }, { db:maps() })
    assert.equal(3, select(2, db:maps(3)))
    assert.equal("NOTFOUND", (select(2, db:maps(2))))
    assert.equal(0, db:stat().snapshot_count)
  end)

  it("drops maps, whose names may come again", function()
    open()
    local map = assert(db:map("m"))
    assert.is_false(db:drop("m"))
    for i = 1, 300 do assert(map:put("key " .. i, "v")) end
    local snapshot = assert(db:snapshot())
    assert.is_true(db:drop("m"))
    assert.is_false(db:drop("m"))
    assert.same({}, (db:maps()))
    holds(map, {})
    assert.same({ m = "" }, (snapshot:maps()))
    local old = assert(snapshot:map("m"))
    assert.equal(300, old:count())
    assert.equal("v", old:get("key 7"))
    old:close()
    snapshot:close()
    assert(map:put("new", "one"))
    holds(map, { new = "one" })
    map:close()
    is_sound_on_disk { {}, m = { new = "one" } }
  end)

  it("keeps thousands of maps", function()
    open { segment_size = 1048576 }
    local count = crash.thinning > 1 and 500 or 3000
    for i = 1, count do
      local map = assert(db:map("map " .. i))
      assert(map:put("key", "value " .. i))
      assert(map:put("key " .. i % 7, "value"))
      map:close()
    end
    assert.equal(count, select(2, db:maps()))
    for i = 1, count, 3 do assert.is_true(db:drop("map " .. i)) end
    assert(db:close())
    local report = verify()
    assert.equal(count - math.ceil(count / 3), report.map_count)
    open()
    local map = assert(db:map("map 2"))
    assert.equal("value 2", map:get("key"))
    assert.equal(2, map:count())
    map:close()
  end)

  it("changes thousands of maps in a transaction", function()
    open { segment_size = 1048576 }
    local count = crash.thinning > 1 and 500 or 3000
    local txn = assert(db:begin())
    for round = 1, 2 do -- in the second they are found again
      for i = 0, count do
        local map = assert(txn:map(("x"):rep(i % 2) .. (i > 0 and i or "")))
        if round == 2 then assert.equal("value " .. i, map:get("key")) end
        assert(map:put("key", "value " .. i))
        assert.equal(1, map:count())
      end
    end
    assert(txn:commit())
    assert.equal(count + 1, select(2, db:maps()))
    assert(db:close())
    assert.equal(count + 1, verify().map_count)
    open()
    local map = assert(db:map(""))
    assert.equal("value 0", map:get("key"))
    map:close()
  end)

  it("changes several in a transaction, or none", function()
    open()
    local a = assert(db:map("a"))
    assert(a:put("x", "1"))
    assert(db:put("d", "1"))
    local model = { { d = "1" }, a = { x = "1" } }
    for round = 1, 2 do
      local txn = assert(db:begin())
      local in_a, in_b = assert(txn:map("a")), assert(txn:map("b"))
      assert(txn:put("d", "2"))
      assert(in_a:put("x", "2"))
      assert(in_a:put("y", "2"))
      assert(in_b:put("z", "2"))
      assert.equal(2, in_a:count())
      assert.same({ a = "", b = "" }, (txn:maps()))
      local savepoint = assert(txn:savepoint())
      assert.is_true(txn:drop("a"))
      assert.equal(0, in_a:count())
      assert(in_b:put("z", "3"))
      assert(txn:map("c"):put("k", "v"))
      assert(txn:rollback_to(savepoint))
      assert.equal("2", in_a:get("y"))
      assert.equal("2", in_b:get("z"))
      assert.equal("EINVAL", select(2, in_b:commit())) -- that is for the whole of it
      assert(txn:map("c"):put("k", "v"))
      assert.is_true(txn:drop("c"))
      all_holds(model)
      if round == 1 then
        txn:abort()
        all_holds(model)
      else
        assert(txn:commit())
        model = { { d = "2" }, a = { x = "2", y = "2" }, b = { z = "2" } }
      end
    end
    a:close()
    all_holds(model)
    is_sound_on_disk(model)
  end)

  it("walks a map in a transaction as it was", function()
    open()
    local txn = assert(db:begin())
    local map = assert(txn:map("m"))
    for i = 1, 20 do assert(map:put("key " .. i, "v")) end
    local count = 0
    for key in map:walk() do
      assert(map:put(key .. " more", "v"))
      count = count + 1
    end
    collectgarbage()
    assert.equal(20, count)
    assert.equal(40, map:count())
    assert(txn:commit())
  end)

  it("is used by other processes, and after fork", function()
    open()
    local map = assert(db:map("m"))
    assert(map:put("a", "1"))
    local text = probe.child.run(function()
      assert.equal("1", map:get("a"))
      assert(map:put("b", "2"))
      assert(db:map("n"):put("c", "3"))
      probe.child.say("done")
    end)
    assert.equal("done\n", text)
    map:close()
    all_holds { {}, m = { a = "1", b = "2" }, n = { c = "3" } }
  end)

  -- ---- Dying ----------------------------------------------------------------

  -- A process dies at the n-th test point of that name.
  local function die_at(point, n, act)
    local text, how, status = probe.child.run(function()
      db = nil -- luacheck: ignore
      local own = assert(probe.store.open(path, { durability = "manual",
        segment_size = SEGMENT }))
      local map = assert(own:map("m"))
      map:get("key 1")
      probe.crash.die_at_point(n, SIGKILL, point)
      act(map, own)
    end)
    assert.same({ "", "signal", SIGKILL }, { text, how, status })
  end

  for _, is_sealed in ipairs { false, true } do
    it("sets the count of a map whose writer died"
      .. (is_sealed and ", after a seal" or ""), function()
        if not crash.has_hooks then
          return pending("needs --enable-debug-checks")
        end
        for _, case in ipairs {
          { "a new map", function(_, own) own:map("n"):put("a", "b") end,
            function(model) model.n = { a = "b" } end },
          { "a new key", function(map) map:put("new", "one") end,
            function(model) model.m.new = "one" end },
          { "another value", function(map) map:put("key 7", "other") end,
            function(model) model.m["key 7"] = "other" end },
          { "a deletion", function(map) map:delete("key 7") end,
            function(model) model.m["key 7"] = nil end },
          { "the default map", function(_, own) own:put("d", "2") end,
            function(model) model[1].d = "2" end },
          { "a dropped map", function(_, own) own:drop("m") end,
            function(model) model.m = nil end },
          { "a cleared map", function(map) map:clear() end,
            function(model) model.m = {} end },
        } do
          open()
          local model = { { d = "1" }, m = {} }
          assert(db:put("d", "1"))
          local map = assert(db:map("m"))
          for i = 1, 12 do
            assert(map:put("key " .. i, "v"))
            model.m["key " .. i] = "v"
          end
          map:close()
          if is_sealed then db:version() end
          for _, point in ipairs { "publish", "published" } do
            die_at(point, 1, case[2])
            if point == "published" then case[3](model) end
            assert(db:put("afterwards", "x"))
            assert.is_true(db:delete("afterwards"))
            all_holds(model)
          end
          is_sound_on_disk(model)
          -- Now with nobody else: the next one takes over.
          local other = assert(db:map("m"))
          assert(other:put("key 7", "again"))
          model.m = model.m or {}
          model.m["key 7"] = "again"
          other:close()
          assert(db:close())
          die_at("published", 1, function(m) m:put("last", "one") end)
          model.m.last = "one"
          open()
          all_holds(model)
          is_sound_on_disk(model)
          assert(db:close())
          os.remove(path)
        end
        db = nil
      end)
  end

  it("finds a wrong count, if nobody sets it", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    open()
    local map = assert(db:map("m"))
    for i = 1, 12 do assert(map:put("key " .. i, "v")) end
    die_at("published", 1, function(own) own:put("new", "one") end)
    probe.crash.breaks("NO_INTENT")
    assert(db:put("d", "1"))
    assert.equal(12, map:count())
    map:close()
    assert(db:close())
    local report = assert(probe.verify.bytes(scratch.read(path)))
    assert.equal("F36 more records than counted", report.failures[1].rule)
    db = nil
  end)

  it("does not let one that may only read repair a count", function()
    if not crash.has_hooks then return pending("needs --enable-debug-checks") end
    open()
    local map = assert(db:map("m"))
    for i = 1, 12 do assert(map:put("key " .. i, "v")) end
    map:close()
    die_at("published", 1, function(own) own:put("new", "one") end)
    local text = probe.child.run(function()
      db = nil -- luacheck: ignore
      local reader = assert(probe.store.open(path, { readonly = true,
        segment_size = SEGMENT }))
      local _, code = reader:snapshot()
      probe.child.say(tostring(code))
    end)
    assert.equal("EREADONLY\n", text)
    map = assert(db:map("m"))
    assert(map:put("more", "x"))
    assert.equal(14, map:count())
    map:close()
  end)

  -- ---- Bytes that anybody may have written -----------------------------------

  it("answers, whatever stands in the file", function()
    open()
    assert(db:put("d", "1"))
    for i = 1, 2 do
      local map = assert(db:map("map " .. i))
      assert(map:put("key", "value"))
      assert(map:put("other", "value"))
      map:close()
    end
    assert(db:close())
    local bytes = scratch.read(path)
    local used = #bytes
    while bytes:byte(used) == 0 do used = used - 1 end
    local rules, seen = {}, {}
    for at = 12352, used - 8, 8 do
      for i, change in ipairs(crash.words) do
        if (at / 8 + i) % (crash.thinning > 1 and 9 or 1) == 0 then
          local hostile = binary.patch(bytes, at, change(bytes:sub(at + 1, at + 8)))
          local report = assert(probe.verify.bytes(hostile))
          for _, failure in ipairs(report.failures) do rules[failure.rule] = true end
          scratch.write(path, hostile)
          db = probe.store.open(path, { readonly = true, lock = false,
            segment_size = SEGMENT })
          if db then
            db:get("d")
            db:records()
            db:maps()
            local map = assert(db:map("map 1"))
            local value = map:get("key")
            seen[tostring(value)] = true
            map:count()
            map:records()
            map:close()
            db:close()
          end
        end
      end
    end
    db = nil
    if crash.thinning > 1 then return end
    assert.is_true(seen["value"] and seen["nil"])
    assert.is_true(rules["F41 record of a map"] and rules["F42 store root"]
      and rules["F22 node map id"] and rules["F29 record checksum"])
  end)

  it("answers when it writes, whatever stands in the file", function()
    open()
    assert(db:put("d", "1"))
    local map = assert(db:map("m"))
    for i = 1, 3 do assert(map:put("key " .. i, "value")) end
    map:close()
    assert(db:close())
    local bytes = scratch.read(path)
    local used = #bytes
    while bytes:byte(used) == 0 do used = used - 1 end
    for at = 12352, used - 8, 8 do
      for i, change in ipairs(crash.words) do
        if (at / 8 + i) % (crash.thinning > 1 and 60 or 3) == 0 then
          scratch.write(path, binary.patch(bytes, at,
            change(bytes:sub(at + 1, at + 8))))
          os.remove(path .. "-lock")
          db = probe.store.open(path, { durability = "manual",
            segment_size = SEGMENT })
          if db then
            db:put("d", "2")
            map = assert(db:map("m"))
            map:put("key 2", "other")
            map:put("new", "one")
            map:delete("key 1")
            map:clear()
            map:close()
            db:drop("m")
            db:map("n"):put("a", "b")
            collectgarbage()
            db:close()
          end
        end
      end
    end
    db = nil
  end)

  -- ---- At random ------------------------------------------------------------

  for name, options in pairs { plain = {},
    ["weak hashes"] = { primary_mask = "f0000000000000ff",
      secondary_mask = "8000000000000001" } } do
    it("agrees with tables: " .. name, function()
      open(options)
      local random = binary.random(binary.seed("catalog " .. name))
      local model = { {} }
      local function copy()
        local other = {}
        for map, records in pairs(model) do
          other[map] = {}
          for key, value in pairs(records) do other[map][key] = value end
        end
        return other
      end
      -- `top` is the store or a transaction.
      local function change(top, close)
        local map_name = random(6) > 1 and "map " .. random(8)
        local map = map_name and assert(top:map(map_name)) or top
        local records = model[map_name or 1]
        local key = "key " .. random(20)
        local choice = random(24)
        if choice <= 12 then
          records = records or {}
          model[map_name or 1] = records
          records[key] = ("v"):rep(random(200)) .. random(1000)
          assert(map:put(key, records[key]))
        elseif choice <= 20 then
          local was_there = records ~= nil and records[key] ~= nil
          assert(map:delete(key) == was_there)
          if records then records[key] = nil end
        elseif choice == 21 and map_name then
          assert(top:drop(map_name) == (records ~= nil))
          model[map_name] = nil
        elseif choice == 22 and random(4) == 1 then
          assert(map:clear())
          if records then model[map_name or 1] = {} end
        else
          assert(map:count() == size_of(records or {}))
        end
        if map_name and close then map:close() end
      end
      for _ = 1, crash.thinning > 1 and 60 or 400 do
        if random(2) == 1 then
          for _ = 1, random(20) do change(db, true) end
        else
          local txn, before = assert(db:begin()), copy()
          for _ = 1, random(30) do change(txn) end
          local savepoint, saved = assert(txn:savepoint()), copy()
          for _ = 1, random(10) do change(txn) end
          if random(2) == 1 then
            assert(txn:rollback_to(savepoint))
            model = saved
          end
          if random(3) == 1 then txn:abort() model = before else assert(txn:commit()) end
        end
        local choice = random(30)
        if choice == 1 then
          assert(db:close())
          verify(options)
          open(options)
          all_holds(model)
        elseif choice <= 4 then
          all_holds(model)
        elseif choice <= 8 then
          assert(db:sync())
        elseif choice <= 12 then
          assert(db:version())
        end
      end
      all_holds(model)
      assert(db:close())
      verify(options)
      open(options)
      all_holds(model)
    end)
  end
end)
