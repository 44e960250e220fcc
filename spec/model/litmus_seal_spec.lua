-- SPDX-License-Identifier: MIT
--
-- The second dangerous race, a seal against a store in place: snapshots that are
-- taken without the writer lock, in every interleaving and three memory models.
-- (A store of one process takes all of them with the lock; this is what several
-- processes need.) It rests on R4 and R5 of docs/concurrency.md: whoever frees
-- memory scans pins first, rows of snapshots second.
--
-- A branch is a variable, A to D, and holds one slot, the number of the last
-- put; so does `count`. `root` names the branch that is alive; `m root`, `m count`
-- and `m epoch` are the sealed moment under the sequence lock `seq`. A snapshot
-- takes the moment without the writer lock if nothing has changed since it was
-- sealed, and else seals.

local interleaver = require "spec.support.interleaver"
local litmus = require "spec.support.litmus"
local load, store, fence = interleaver.load, interleaver.store,
  interleaver.fence
local check = interleaver.check
local pin, unpin, look = litmus.pin, litmus.unpin, litmus.look
local holds, finds = litmus.holds, litmus.finds

-- Writes the moment of the open epoch and opens the next. With the writer lock.
local function seal(wrong)
  local open = load("open")
  if load("changed") ~= open then return end
  local order = not wrong["writes the moment relaxed"] and "release"
  local seq = load("seq")
  store("seq", seq + 1)
  store("m root", load("root"), order)
  store("m count", load("count"), order)
  store("m epoch", open, order)
  store("seq", seq + 2, "release")
  store("open", open + 1,
    not wrong["raises the open epoch relaxed"] and "release")
end

local function load_moment(wrong)
  local seq = load("seq", "acquire")
  if seq % 2 == 1 then return nil end
  local moment = { root = load("m root", "acquire"),
    count = load("m count", "acquire"), epoch = load("m epoch", "acquire"),
    seq = seq }
  if wrong["looks at the sequence once"]
    or wrong["leaves the sequence to the second look"] then
    return moment
  end
  return load("seq") == seq and moment or nil
end

local function take_locked(row, wrong)
  local locks = not wrong["seals without the lock"]
  if locks then interleaver.lock("lock") end
  seal(wrong)
  local moment = { root = load("root"), count = load("count"),
    epoch = load("changed") }
  store(row, moment.epoch)
  if locks then interleaver.unlock("lock") end
  return moment
end

-- The row first, then a second look: the reuser's fence and this one are in one
-- order, so either it sees the row or this sees that something has changed.
local function take(row, wrong)
  local moment = load_moment(wrong)
  if moment and load("changed", "acquire") <= moment.epoch then
    store(row, moment.epoch)
    if not wrong["no fence after the row"] then fence() end
    if wrong["no second look"] or load("changed", "acquire") <= moment.epoch
      and (wrong["looks at changed_epoch alone"]
        or wrong["looks at the sequence once"]
        or load("seq", "acquire") == moment.seq) then
      return moment
    end
  end
  return take_locked(row, wrong)
end

-- A pin holds the moment's nodes until the row does.
local function take_pinned(row, wrong)
  pin("pin", wrong)
  local moment = load_moment(wrong)
  if moment and load("changed", "acquire") <= moment.epoch then
    if wrong["unpins before the row"] then unpin("pin") end
    store(row, moment.epoch)
    if not wrong["unpins before the row"] then unpin("pin") end
    return moment
  end
  unpin("pin")
  return take_locked(row, wrong)
end

local function newest_content()
  return interleaver.ghost(function(_, newest)
    return newest(newest("root"))
  end)
end

-- The way without a sealed moment: a root that is older than the open epoch is
-- sealed. Its header may be looked at only with a pin.
local function take_old_root(row, wrong)
  pin("pin", wrong)
  local late = wrong["loads the root before the open epoch"]
  local root = late and load("root", "acquire")
  local open = load("open", "acquire")
  root = root or load("root", "acquire")
  if load(root .. " epoch") < open then
    store(row, open - 1)
    unpin("pin")
    return { root = root, count = load(root) }
  end
  unpin("pin")
  return take_locked(row, wrong)
end

-- What a thread may rely on: what it could see by itself, and in c11, where
-- that is no question of time, what it did see. (Poison it would not, with a
-- pin, which is left out.)
local function what_is_known(memory)
  if memory == "c11" then
    local content = load(load("root", "acquire"), "acquire")
    return type(content) == "number" and content or 0
  end
  return newest_content()
end

-- Uses a snapshot and closes it.
local function use(root, count, known, row)
  local content = look(root)
  check(content == count, "the content is not what was counted")
  check(content >= known, "a snapshot is older than its call")
  check(content <= newest_content(), "a snapshot is newer than its return")
  check(look(root) == content, "a snapshot changes")
  store(row, 0, "release")
  return "done"
end

local function taker(way, row, wrong, memory)
  return function()
    local known = what_is_known(memory)
    local moment = way(row, wrong)
    return interleaver.again(use, moment.root, moment.count, known, row)
  end
end

-- The writer. It frees branches of sealed epochs, too, as the reuse of a
-- segment would, and does not wait for a superblock.
local function new_changer(rows, wrong, has_epochs)
  local self = { content = 1, root = "A", born = { A = 1 }, tick = 1,
    fresh = { "B", "C", "D" }, unlinked = {} }

  local function publish(open, variable, value)
    local late = wrong["stores changed_epoch after the publishing store"]
    if not late then store("changed", open) end
    store(variable, value, "release")
    if late then store("changed", open) end
  end

  function self.put(grows)
    self.content = self.content + 1
    local open = load("open")
    local root = self.root
    if not grows and self.born[root] == open
      or wrong["stores in place into a sealed branch"] then
      publish(open, root, self.content)
    else
      local branch = table.remove(self.fresh, 1)
      store(branch, self.content)
      if has_epochs then store(branch .. " epoch", open) end
      self.born[branch], self.root = open, branch
      publish(open, "root", branch)
      self.unlinked[#self.unlinked + 1] = { node = root,
        first = self.born[root], emptied = open, tick = self.tick }
    end
    store("count", self.content)
  end

  -- The root gets wider, which takes a new branch.
  function self.grow()
    self.put(true)
  end

  function self.seal()
    seal(wrong)
  end

  local function is_pinned(old)
    local found = load("pin", "acquire")
    return found ~= 0 and found <= old.tick
  end

  local function is_in_a_row(old)
    for _, row in ipairs(rows) do
      local epoch = load(row, "acquire")
      if epoch >= old.first and epoch < old.emptied then return true end
    end
  end

  -- Pins first, rows second.
  local function is_seen(old)
    if wrong["scans rows before pins"] then
      return is_in_a_row(old) or is_pinned(old)
    end
    return is_pinned(old) or is_in_a_row(old)
  end

  function self.reuse()
    local old = table.remove(self.unlinked, 1)
    if not old then return end
    self.tick = self.tick + 1
    store("tick", self.tick, "release")
    if not wrong["no fence before the scan"] then fence() end
    if not is_seen(old) then store(old.node, "poison") end
  end

  return self
end

-- What the writer does: words of put, grow, seal and reuse; those that are joined by
-- "+" it does without letting the lock go.
local function changer(words, rows, wrong, has_epochs)
  return function()
    local self = new_changer(rows, wrong, has_epochs)
    for group in words:gmatch("%S+") do
      interleaver.lock("lock")
      for word in group:gmatch("%a+") do self[word]() end
      interleaver.unlock("lock")
    end
    return "done"
  end
end

local function sealing(words, ...)
  local ways = { ... }
  return function(wrong, memory)
    local shared = { lock = 0, seq = 0, ["m root"] = "A", ["m count"] = 1,
      ["m epoch"] = 1, changed = 1, open = 2, root = "A", count = 1,
      tick = 1, pin = 0, A = 1, B = "blank", C = "blank", D = "blank" }
    local rows, threads = {}, {}
    local has_epochs = ways[1] == take_old_root
    for node, epoch in pairs { A = 1, B = 0, C = 0, D = 0 } do
      if has_epochs then shared[node .. " epoch"] = epoch end
    end
    for i, way in ipairs(ways) do
      rows[i] = "row " .. i
      shared[rows[i]] = 0
      threads[i] = { "taker " .. i, taker(way, rows[i], wrong, memory) }
    end
    threads[#threads + 1] = { "writer",
      changer(words, rows, wrong, has_epochs) }
    return { shared = shared, threads = threads }
  end
end

describe("a seal against a store in place", function()
  holds("a snapshot stays and is of its time", 10000,
    sealing("put put+reuse seal put+reuse", take))
  holds("one that was pinned first does, too", 1000,
    sealing("put put+reuse", take_pinned))
  holds("one stays while branches are recycled in the open epoch", 1000,
    sealing("put grow+reuse+reuse", take_pinned))
  holds("two snapshots stay", 50000, sealing("put+reuse", take, take))
  if litmus.long then
    holds("two of several changes stay", 200000,
      sealing("put put+reuse", take, take))
    holds("two, one of them pinned first, stay", 200000,
      sealing("put+reuse", take, take_pinned))
  end

  local plain = sealing("put put+reuse", take)
  finds("stores changed_epoch after the publishing store", "tso pso c11",
    "older than its call", plain)
  finds("no second look", "tso pso c11", "poison", plain)
  finds("no fence after the row", "tso pso c11", "poison", plain)
  local at_once = sealing("put+reuse", take)
  finds("no fence before the scan", "tso pso c11", "poison", at_once)
  finds("stores in place into a sealed branch", "tso pso c11", "", plain)
  finds("seals without the lock", "tso pso c11", "", plain)
  finds("scans rows before pins", "", "", plain) -- the second look is enough

  -- One look more at the sequence or at changed_epoch is needed, not two.
  finds("looks at changed_epoch alone", "", "", plain)
  local sealed = sealing("put seal put seal", take)
  finds("leaves the sequence to the second look", "", "", sealed)
  finds("looks at the sequence once", "tso pso c11", "", sealed)
  finds("writes the moment relaxed", "pso c11", "", sealed)

  local pinned = sealing("put put+reuse", take_pinned)
  finds("scans rows before pins", "tso pso c11", "poison", pinned)
  finds("unpins before the row", "tso pso c11", "poison", pinned)
  finds("no fence in the reader", "tso pso c11", "poison", pinned)

  local growing = sealing("put grow+seal+reuse+reuse", take_old_root)
  holds("an old root stays and is of its time", 5000, growing)
  finds("loads the root before the open epoch", "tso pso c11", "", growing)
  finds("raises the open epoch relaxed", "pso c11", "", growing)
end)
