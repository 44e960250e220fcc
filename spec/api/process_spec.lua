-- SPDX-License-Identifier: MIT
--
-- What is left when a store is closed, when its process ends, and what a
-- second process sees meanwhile.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"

describe("another process", function()
  local path

  before_each(function() path = helper.path() end)
  after_each(helper.close_all)

  it("finds everything that this one closed", function()
    local db = helper.store(nil, path)
    for i = 1, 5000 do db:put("key " .. i, "value " .. i) end
    for i = 1, 5000, 5 do db:delete("key " .. i) end
    assert(db:close())
    assert.equal("4000 all", helper.child([[
      local db = assert(mmcmap.open((...)))
      for i = 1, 5000 do
        local expected = i % 5 ~= 1 and "value " .. i or nil
        if db:get("key " .. i) ~= expected then error("key " .. i) end
      end
      io.write(db:count(), " all")
      assert(db:close())
    ]], path))
  end)

  it("leaves everything to this one", function()
    assert.equal("closed", helper.child([[
      local db = assert(mmcmap.open((...)))
      for i = 1, 1000 do db["key " .. i] = i end
      assert(db:close())
      io.write("closed")
    ]], path))
    local db = helper.store(nil, path)
    assert.equal(1000, #db)
    for i = 1, 1000 do assert.equal(tostring(i), db:get("key " .. i)) end
  end)

  it("that forgets to close has everything on disk by lua_close", function()
    assert.equal("", helper.child([[
      kept = assert(mmcmap.open((...)))
      kept_too = kept:pairs()
      kept:put("k", "v")
    ]], path))
    assert.equal("v", helper.store(nil, path):get("k"))
  end)

  it("that ends after sync() has lost nothing", function()
    -- os.exit() without closing the state: no finalizer runs.
    assert.equal("", helper.child([[
      local db = assert(mmcmap.open((...), { durability = "manual" }))
      for i = 1, 1000 do db["key " .. i] = i end
      assert(db:sync())
      os.exit(0)
    ]], path))
    local db = helper.store(nil, path)
    assert.equal(1000, #db)
    for i = 1, 1000 do assert.equal(tostring(i), db:get("key " .. i)) end
  end)

  it("that is killed has lost nothing at durability sync", function()
    assert.equal("", helper.child([[
      local db = assert(mmcmap.open((...), { durability = "sync" }))
      for i = 1, 50 do assert(db:put("key " .. i, i)) end
      assert(db:delete("key 7"))
      os.exit(0)
    ]], path))
    local db = helper.store(nil, path)
    assert.equal(49, #db)
    assert.is_false(db:stat().was_clean)
    assert.equal("50", db:get("key 50"))
    assert.is_nil(db:get("key 7"))
    assert.is_true(db:put("key 7", "again"))
    assert(db:close())
    db = helper.store(nil, path)
    assert.is_true(db:stat().was_clean)
    assert.equal(50, #db)
  end)

  it("reads and writes while this one does", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert.equal("v|true|true", helper.child([[
      local db = assert(mmcmap.open((...), { timeout = 0 }))
      io.write(db:get("k"), "|", tostring(db:put("k", "changed")), "|",
        tostring(db:put("other", "new")))
    ]], path))
    assert.equal("changed", db:get("k"))
    assert.equal("new", db:get("other"))
    assert.equal(2, #db)
  end)

  it("reads what this one puts, at once, from a read-only store", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert.equal("v|EREADONLY", helper.child([[
      local db = assert(mmcmap.open((...), { readonly = true, timeout = 0 }))
      io.write(db:get("k"), "|", (select(3, db:put("k", "no"))))
    ]], path))
  end)

  it("can have it as soon as this one has closed it", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert(db:close())
    assert.equal("v", helper.child([[
      io.write(assert(mmcmap.open((...), { timeout = 0 })):get("k"))
    ]], path))
  end)

  it("shares a store with one that only reads", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert(db:close())
    db = helper.store({ readonly = true }, path)
    assert.equal("v", helper.child([[
      io.write(assert(mmcmap.open((...),
        { readonly = true, timeout = 0 })):get("k"))
    ]], path))
    assert.equal("true", helper.child([[
      local db = assert(mmcmap.open((...), { timeout = 0 }))
      io.write(tostring(db:put("k", "changed")))
    ]], path))
    assert.equal("changed", db:get("k"))
  end)

  it("has the file for itself after remove()", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert.is_true(db:remove())
    assert.equal("0", helper.child([[
      io.write(#assert(mmcmap.open((...), { timeout = 0 })))
    ]], path))
  end)
end)

describe("closing and opening", function()
  local path

  before_each(function() path = helper.path() end)
  after_each(helper.close_all)

  it("many times changes nothing", function()
    local expected = {}
    for round = 1, 30 do
      local db = helper.store(nil, path)
      assert.same(expected, (helper.records(db)))
      assert.is_true(db:stat().was_clean)
      db:put("round " .. round, tostring(round))
      expected["round " .. round] = tostring(round)
      if round % 3 == 0 then
        db:delete("round " .. round - 1)
        expected["round " .. round - 1] = nil
      end
      assert(db:close())
    end
  end)

  it("does not let the file of an unchanged store grow", function()
    local db = helper.store(nil, path)
    for i = 1, 1000 do db:put("key " .. i, i) end
    assert(db:close())
    local size = #helper.read(path)
    for _ = 1, 20 do assert(assert(mmcmap.open(path)):close()) end
    assert.is_true(#helper.read(path) <= size)
  end)

  it("does not write to a file that is only read", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert(db:close())
    local bytes = helper.read(path)
    db = helper.store(nil, path)
    assert.equal("v", db:get("k"))
    assert.equal(1, select(2, helper.records(db)))
    assert(db:close())
    assert.is_true(bytes == helper.read(path), "the file has changed")
  end)
end)

describe("remove", function()
  local path

  before_each(function() path = helper.path() end)
  after_each(helper.close_all)

  it("deletes the file and closes the store", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    assert.is_true(db:remove())
    assert.is_false(helper.exists(path))
    assert.equal("mmcmap (closed)", tostring(db))
    assert.has_error(function() db:get("k") end)
    assert.is_true(db:close())
    assert.equal(0, #helper.store(nil, path))
  end)

  it("ends iterators first", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    local next_record, state = db:pairs()
    assert.is_true(db:remove())
    assert.is_false(pcall(next_record, state))
  end)

  it("is refused while another handle is open", function()
    local a, b = helper.store(nil, path), helper.store(nil, path)
    a:put("k", "v")
    local ok, message, code = a:remove()
    assert.is_nil(ok)
    assert.equal("EBUSY", code)
    assert.is_truthy(message:find(path, 1, true))
    assert.equal("v", a:get("k"))
    assert.equal("v", b:get("k"))
    b:close()
    assert.is_true(a:remove())
    assert.is_false(helper.exists(path))
  end)

  it("has ended what reads from the store, which says so, if it fails", function()
    local a, b = helper.store(nil, path), helper.store(nil, path)
    local map, snap = a:map("m"), a:snapshot()
    map.k, a.k = "of the map", "v"
    local next_record, records = a:pairs()
    local next_of_map, of_map = map:pairs()
    local next_change, changes = a:diff(snap, snap)
    assert.equal("EBUSY", select(3, a:remove()))
    local words = "remove() of the store has ended it"
    helper.raises(words, map.get, map, "k")
    helper.raises(words, snap.get, snap, "k")
    helper.raises(words, next_record, records)
    helper.raises(words, next_of_map, of_map)
    helper.raises(words, next_change, changes)
    assert.equal("of the map", a:map("m"):get("k"))
    assert.equal("v", a:snapshot():get("k"))
    b:close()
    assert.is_true(a:remove())
  end)

  it("is refused if the path has become another file's", function()
    local db = helper.store(nil, path)
    db:put("k", "v")
    local moved = helper.path()
    assert(os.rename(path, moved))
    assert.equal("ENOENT", select(3, db:remove()))
    helper.write(path, "something else")
    assert.is_nil((db:remove()))
    assert.equal("something else", helper.read(path))
    assert.equal("v", db:get("k"))
    assert.is_true(db:close())
    assert.equal("v", helper.store(nil, moved):get("k"))
  end)

  it("leaves a lock file that is another store's by now", function()
    local folder, link = helper.path(), helper.path()
    helper.run("mkdir %s && ln -s %s %s", folder, folder, link)
    local db = helper.store(nil, link .. "/store")
    helper.run("mv %s %s.moved && mkdir %s", folder, folder, folder)
    local other = helper.store(nil, folder .. "/store")
    helper.run("ln -sfn %s.moved %s", folder, link)
    assert.is_true(db:remove())
    assert.is_false(helper.exists(folder .. ".moved/store"))
    assert.is_true(helper.exists(folder .. "/store-lock"))
    assert.is_true(other:remove())
    assert.is_false(helper.exists(folder .. "/store-lock"))
  end)
end)
