-- SPDX-License-Identifier: MIT
--
-- The first dangerous race of docs/concurrency.md, a pin against the reuse of
-- memory (R1 to R5), in every interleaving and three memory models.
--
-- No memory model lets a store overtake an earlier load (see
-- spec/support/memory_models.lua), so the release of R2 and the acquire loads of
-- R4's scan are not put to the test; the mistake "unpins before the last load"
-- is what they prevent.

local interleaver = require "spec.support.interleaver"
local litmus = require "spec.support.litmus"
local load, store, fence = interleaver.load, interleaver.store,
  interleaver.fence
local check = interleaver.check
local pin, unpin, look = litmus.pin, litmus.unpin, litmus.look
local holds, finds = litmus.holds, litmus.finds

-- Nodes are the variables A, B and C; the value of `root` names one. A node
-- that is written anew is poison for a moment.

local function load_root(wrong)
  return load("root", not wrong["loads the root relaxed"] and "acquire") -- R5
end

local function get(row, wrong)
  pin(row, wrong)
  local root = load_root(wrong)
  local content = look(root)
  if wrong["unpins before the last load"] then unpin(row) end
  check(look(root) == content, "a reader sees poison: a node changes")
  if not wrong["unpins before the last load"] then unpin(row) end
  return content
end

local function reader(row, wrong)
  return function()
    get(row, wrong)
    return "done"
  end
end

-- The writer with its recycler (src/space/recycler.c). `rows` returns the rows
-- to scan.
local function new_writer(rows, wrong)
  local self = { tick = 1, horizon = 1, unlinked = {}, root = "A",
    fresh = { "B", "C" }, version = 1 }

  local function scan()
    local lowest = math.huge
    for _, row in ipairs(rows()) do
      local found = load(row, "acquire")
      check(type(found) == "number", "the scan sees " .. found)
      if found ~= 0 then lowest = math.min(lowest, found) end
    end
    return lowest
  end

  local function raise()
    self.tick = self.tick + 1
    store("tick", self.tick,
      not wrong["raises the tick relaxed"] and "release")
  end

  -- R4, readers_advance().
  local function advance()
    local lowest
    if wrong["scans before the tick is raised and the fence"] then
      lowest = scan()
      raise()
      fence()
    elseif wrong["scans behind the fence, before the tick is raised"] then
      fence()
      lowest = scan()
      raise()
    else
      raise()
      if not wrong["no fence in the writer"] then fence() end
      lowest = scan()
    end
    self.horizon = math.min(self.tick, lowest)
  end

  -- A node that nobody can see.
  local function take()
    local oldest = self.unlinked[1]
    if not oldest then return table.remove(self.fresh, 1) end
    local late = wrong["reuses what is pinned at its own tick"] and 1 or 0
    if oldest.tick >= self.horizon + late then advance() end
    if oldest.tick >= self.horizon + late then
      return table.remove(self.fresh, 1)
    end
    return table.remove(self.unlinked, 1).node
  end

  local function write(node)
    store(node, "poison")
    self.version = self.version + 1
    store(node, self.version)
  end

  function self.put()
    local before = self.tick
    local node = take()
    if not node then return end
    write(node)
    store("root", node, not wrong["publishes relaxed"] and "release") -- R5
    self.unlinked[#self.unlinked + 1] = { node = self.root,
      tick = wrong["notes the tick before the unlinking"] and before
        or self.tick }
    self.root = node
  end

  -- The last node that may be had is poisoned for good.
  function self.poison()
    local node = take()
    if node then store(node, "poison") end
  end

  return self
end

local function writer(rows, wrong, puts)
  return function()
    local self = new_writer(function() return rows end, wrong)
    for _ = 1, puts do self.put() end
    self.poison()
    return "done"
  end
end

local function nodes_and(more)
  local shared = { tick = 1, root = "A", A = 1, B = "blank", C = "blank" }
  for name, value in pairs(more) do shared[name] = value end
  return shared
end

local function one_reader(wrong)
  return { shared = nodes_and { row = 0 }, threads = {
    { "reader", reader("row", wrong) },
    { "writer", writer({ "row" }, wrong, 3) },
  } }
end

describe("a pin against reuse", function()
  holds("one reader sees no poison", 1500, one_reader)

  holds("two readers see no poison", 5000, function(right)
    return { shared = nodes_and { one = 0, two = 0 }, threads = {
      { "reader 1", reader("one", right) },
      { "reader 2", reader("two", right) },
      { "writer", writer({ "one", "two" }, right, litmus.long and 2 or 1) },
    } }
  end)

  holds("a reader that pins twice in turn sees no poison", 5000,
    function(right)
      return { shared = nodes_and { row = 0 }, threads = {
        { "reader", function()
          local before = get("row", right)
          check(get("row", right) >= before, "a reader goes back")
          return "done"
        end },
        { "writer", writer({ "row" }, right, 3) },
      } }
    end)

  local function nested(wrong)
    return { shared = nodes_and { row = 0 }, threads = {
      { "reader", function()
        local depth = 0
        local function enter()
          depth = depth + 1
          if depth == 1 then pin("row", wrong) end
        end
        local function leave()
          depth = depth - 1
          if depth == 0 or wrong["an inner pin withdraws the outer one"] then
            unpin("row")
          end
        end
        enter()
        local outer = load_root(wrong)
        enter()
        look(load_root(wrong))
        leave()
        look(outer)
        leave()
        return "done"
      end },
      { "writer", writer({ "row" }, wrong, 2) },
    } }
  end
  holds("nested pins are one", 1000, nested)
  finds("an inner pin withdraws the outer one", "tso pso c11", "poison", nested)

  -- R3: the row's chunk is new; its memory was something else before.
  local function new_chunk(wrong)
    return { shared = nodes_and { row = "dirt", next = 0 }, threads = {
      { "reader", function()
        local function link()
          store("next", 1, not wrong["links a chunk relaxed"] and "release")
        end
        if not wrong["zeroes a chunk after linking it"] then store("row", 0) end
        if not wrong["links a chunk after the pin"] then link() end
        if wrong["zeroes a chunk after linking it"] then store("row", 0) end
        pin("row", wrong)
        if wrong["links a chunk after the pin"] then link() end
        local root = load_root(wrong)
        look(root)
        look(root)
        unpin("row")
        return "done"
      end },
      { "writer", function()
        local self = new_writer(function()
          return load("next", "acquire") == 1 and { "row" } or {}
        end, wrong)
        self.put()
        self.put()
        self.poison()
        return "done"
      end },
    } }
  end
  holds("a row in a new chunk counts", 1000, new_chunk)
  finds("links a chunk relaxed", "pso c11", "dirt", new_chunk)
  finds("zeroes a chunk after linking it", "tso pso c11", "dirt", new_chunk)
  finds("links a chunk after the pin", "tso pso c11", "poison", new_chunk)

  -- A row changes hands under the mutex of the claims.
  local function handed_on(wrong)
    local function give_back()
      if wrong["gives a row back relaxed"] then
        store("owned", 0)
      else
        store("owned", 0, "release")
      end
    end
    return { shared = nodes_and { row = 0, owned = 1 }, threads = {
      { "reader 1", function()
        get("row", wrong)
        give_back()
        return "done"
      end },
      { "reader 2", function()
        interleaver.lock("owned")
        get("row", wrong)
        return "done"
      end },
      { "writer", writer({ "row" }, wrong, 1) },
    } }
  end
  holds("a row may be handed on", 500, handed_on)
  -- In c11 a store never comes before one that was made earlier.
  finds("gives a row back relaxed", "pso", "poison", handed_on)

  for _, mistake in ipairs { "no fence in the reader", "no fence in the writer",
    "notes the tick before the unlinking", "unpins before the last load",
    "reuses what is pinned at its own tick",
    "scans before the tick is raised and the fence" } do
    finds(mistake, "tso pso c11", "poison", one_reader)
  end
  -- Case two of R4.
  finds("raises the tick relaxed", "pso c11", "poison", one_reader)
  -- The fence of R4 and that of R1 order the scan before the root's load.
  finds("scans behind the fence, before the tick is raised", "", "", one_reader)
  -- The fence of R1 makes an acquire load of every load before it.
  finds("loads the tick relaxed", "", "", one_reader)
  finds("publishes relaxed", "pso c11", "a reader sees", one_reader)
  finds("loads the root relaxed", "c11", "a reader sees", one_reader)
end)
