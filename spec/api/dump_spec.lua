-- SPDX-License-Identifier: MIT
--
-- dump: the trie as text.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"

describe("dump", function()
  local db, path

  before_each(function()
    path = helper.path()
    db = helper.store({ durability = "manual" }, path)
  end)
  after_each(helper.close_all)

  it("shows every record, and the branches above them", function()
    for i = 1, 200 do db:put("key " .. i, "value " .. i) end
    local text = mmcmap.dump(db)
    assert.is_truthy(text:find("^200 records, version %d+\nbranch of %d+, epoch %d+"))
    assert.is_truthy(text:find("\n    %d%d: "), text) -- a second level
    for i = 1, 200 do
      assert.is_truthy(text:find(('"key %d" = "value %d"'):format(i, i), 1, true))
    end
    assert.equal("\n", text:sub(-1))
    assert.equal(0, db:stat().snapshot_count)
  end)

  it("shows nothing, one record, and bytes of any kind", function()
    assert.is_truthy(mmcmap.dump(db):find("^0 records, version %d+\n$"))
    db:put("a\"\n", ("x"):rep(41))
    assert.is_truthy(mmcmap.dump(db):find('\n"a\\x22\\x0a" = "' .. ("x"):rep(40)
      .. '"... (41 bytes)  epoch ', 1, true))
    db:put("a\"\n", ("\255"):rep(300000))
    assert.is_truthy(mmcmap.dump(db):find(("\\xff"):rep(40)
      .. '"... (300000 bytes)', 1, true))
    assert.is_truthy(mmcmap.dump(db):find(", large\n", 1, true))
  end)

  it("takes a map, of a store or of a snapshot", function()
    local map = db:map("m")
    assert.is_truthy(mmcmap.dump(map):find("^0 records, "))
    map.k = "of the map"
    db.k = "of the store"
    local snap = db:snapshot()
    map.k = "changed"
    assert.is_truthy(mmcmap.dump(map):find('^1 records, version %d+\n"k" = "changed"'))
    assert.is_truthy(mmcmap.dump(snap:map("m")):find('"k" = "of the map"', 1, true))
    assert.is_truthy(mmcmap.dump(db):find('"k" = "of the store"', 1, true))
    snap:close()
    assert.equal(0, db:stat().snapshot_count)
    db:close()
    helper.raises("the store is closed", mmcmap.dump, map)
  end)

  it("takes a snapshot, and nothing else", function()
    db:put("k", "old")
    local snap = db:snapshot()
    db:put("k", "new")
    assert.is_truthy(mmcmap.dump(snap):find('"k" = "old"', 1, true))
    assert.is_truthy(mmcmap.dump(db):find('"k" = "new"', 1, true))
    assert.equal(1, db:stat().snapshot_count)
    local raises = helper.raises
    raises("mmcmap expected, got no value", mmcmap.dump)
    raises("mmcmap expected, got table", mmcmap.dump, {})
    raises("mmcmap expected, got string", mmcmap.dump, "x")
    db:update(function(tx)
      raises("mmcmap expected, got mmcmap.transaction", mmcmap.dump, tx)
      raises("mmcmap expected, got mmcmap.map", mmcmap.dump, tx:map("m"))
    end)
    raises("dump_spec.lua:", function() assert(mmcmap.dump(5)) end)
    snap:close()
    raises("closed snapshot", mmcmap.dump, snap)
    db:close()
    raises("closed store", mmcmap.dump, db)
  end)

  it("reports damage", function()
    local folder = os.getenv("MMCMAP_SOURCE_DIR") .. "/spec/corpus/"
    local make_corpus = require "spec.support.make_corpus"
    local copy = helper.write(helper.path(), make_corpus.padded(
      helper.read(folder .. "bad-branch-kind.mmc")))
    local text, message, code = mmcmap.dump(helper.store({ readonly = true }, copy))
    assert.is_nil(text)
    assert.equal("ECORRUPT", code)
    assert.is_truthy(message:find("F21", 1, true))
  end)
end)
