-- SPDX-License-Identifier: MIT
--
-- Pages: a token of one cursor continues in another snapshot.

local scratch = require "spec.support.scratch"

local NONE, ALL = "0000000000000000", "ffffffffffffffff"

describe("mmcmap_cursor_token", function()
  local function open(masks, path)
    return scratch.open(path or scratch.path("store"),
      { primary_mask = masks[1], secondary_mask = masks[2] })
  end

  local function walk(snapshot, size)
    local keys, token, page = {}, ""
    repeat
      page, token = assert(snapshot:page(token, size))
      for _, key in ipairs(page) do keys[#keys + 1] = key end
    until #page < size
    return keys
  end

  for _, masks in ipairs { { ALL, ALL }, { "ff00000000000000", ALL },
    { NONE, ALL }, { NONE, "f000000000000000" }, { NONE, NONE } } do
    local name = masks[1] .. " " .. masks[2]

    it("gives pages of any size, hashes " .. name, function()
      local db = open(masks)
      for i = 1, 70 do assert(db:put("key " .. i, i)) end
      assert(db:put("", "empty"))
      local snapshot = assert(db:snapshot())
      local whole = walk(snapshot, 1000)
      assert.equal(71, #whole)
      for _, size in ipairs { 1, 2, 7, 71, 72 } do
        assert.same(whole, walk(snapshot, size))
      end
      snapshot:close()
      db:close()
    end)

    it("continues while records come and go, hashes " .. name, function()
      local path = scratch.path("store")
      local db = open(masks, path)
      for i = 1, 80 do assert(db:put("key " .. i, i)) end
      local seen, token, page = {}, ""
      local round = 0
      repeat
        round = round + 1
        local snapshot = assert(db:snapshot())
        page, token = assert(snapshot:page(token, 3))
        snapshot:close()
        for _, key in ipairs(page) do
          assert.is_nil(seen[key], key)
          seen[key] = true
        end
        -- The last one too, which the token names, may be gone; and there are new
        -- ones that it would be in the way of.
        if page[#page] then db:delete(page[#page]) end
        for i = 1, 3 do db:put(("new %d %d"):format(round, i), "x") end
        if round % 5 == 0 then
          assert(db:close())
          db = open(masks, path)
        end
      until #page < 3 or round > 500
      for i = 1, 80 do assert.is_true(seen["key " .. i], "key " .. i) end
      db:close()
    end)
  end

  it("is empty before the first record, and refuses what is none", function()
    local db, other = open { ALL, ALL }, open { ALL, ALL }
    local snapshot = assert(db:snapshot())
    assert.same({ {}, "" }, { snapshot:page("", 5) })
    assert.same({ {}, "" }, { snapshot:page("", 0) })
    db:put("k", "v")
    snapshot:close()
    snapshot = assert(db:snapshot())
    local page, token = snapshot:page("", 1)
    assert.same({ "k" }, page)
    assert.same({ {}, token }, { snapshot:page(token, 1) })
    for _, bad in ipairs { "x", ("x"):rep(8), ("x"):rep(100),
      token:sub(1, 7), token .. ("x"):rep(70000) } do
      assert.equal("EINVAL", (select(2, snapshot:page(bad, 1))))
    end
    local foreign = assert(other:snapshot())
    assert.equal("EINVAL", (select(2, foreign:page(token, 1))))
    foreign:close()
    snapshot:close()
    db:close()
    other:close()
  end)
end)
