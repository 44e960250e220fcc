-- SPDX-License-Identifier: MIT
--
-- The interleaver of the litmus specs on tests whose outcomes are known: those
-- of Sewell and others, "x86-TSO" (2010), and of Alglave and others, "Herding
-- cats" (2014).

local interleaver = require "spec.support.interleaver"
local load, store, fence = interleaver.load, interleaver.store,
  interleaver.fence
local swap, check = interleaver.swap, interleaver.check
local explore = interleaver.explore

local MEMORIES = { "tso", "pso", "c11" }

local function outcomes_of(memory, shared, ...)
  local threads = {}
  for i, body in ipairs { ... } do threads[i] = { "thread " .. i, body } end
  local result = explore { memory = memory, shared = shared,
    threads = threads }
  assert.is_nil(result.failure)
  return result.outcomes
end

local function sorted(set)
  local words = {}
  for word in pairs(set) do words[#words + 1] = word end
  table.sort(words)
  return words
end

-- Stores to one variable, then loads of another.
local function store_and_load(mine, other, between)
  return function()
    store(mine, 1)
    if between then between() end
    return (load(other))
  end
end

local function sender(order)
  return function()
    store("data", 1)
    store("flag", 1, order)
    return ""
  end
end

local function receiver(order)
  return function()
    local flag = load("flag", order)
    return flag, (load("data"))
  end
end

describe("interleaver", function()
  for _, memory in ipairs(MEMORIES) do
    describe("in " .. memory, function()
      it("lets a load overtake an earlier store (SB)", function()
        local set = outcomes_of(memory, { x = 0, y = 0 },
          store_and_load("x", "y"), store_and_load("y", "x"))
        assert.same({ "0 | 0", "0 | 1", "1 | 0", "1 | 1" }, sorted(set))
      end)

      it("holds it back by two fences, not by one", function()
        local function both(first, second)
          return outcomes_of(memory, { x = 0, y = 0 },
            store_and_load("x", "y", first), store_and_load("y", "x", second))
        end
        assert.same({ "0 | 1", "1 | 0", "1 | 1" }, sorted(both(fence, fence)))
        assert.is_true(both(fence, nil)["0 | 0"])
        assert.is_true(both(nil, fence)["0 | 0"])
      end)

      it("shows a message that was released and acquired (MP)", function()
        local set = outcomes_of(memory, { data = 0, flag = 0 },
          sender "release", receiver "acquire")
        assert.same({ " | 0 0", " | 0 1", " | 1 1" }, sorted(set))
      end)

      it("shows a message between two fences", function()
        local set = outcomes_of(memory, { data = 0, flag = 0 },
          function()
            store("data", 1)
            fence()
            store("flag", 1)
            return ""
          end, function()
            local flag = load("flag")
            fence()
            return flag, (load("data"))
          end)
        assert.is_nil(set[" | 1 0"])
      end)

      it("keeps the stores to one variable in order (CoRR, CoWR)", function()
        local set = outcomes_of(memory, { x = 0 }, function()
          store("x", 1)
          store("x", 2)
          return (load("x"))
        end, function()
          local first = load("x")
          return first, (load("x"))
        end)
        assert.same({ "2 | 0 0", "2 | 0 1", "2 | 0 2", "2 | 1 1", "2 | 1 2",
          "2 | 2 2" }, sorted(set))
      end)

      it("shows a thread its own stores at once", function()
        local set = outcomes_of(memory, { x = 0, y = 0 }, function()
          store("x", 1)
          return load("x"), (load("y"))
        end, function()
          store("y", 1)
          return load("y"), (load("x"))
        end)
        assert.is_true(set["1 0 | 1 0"])
        assert.is_nil(set["0 0 | 1 0"])
      end)

      it("lets one of two swaps succeed", function()
        local function body() return (swap("x", 0, 1)) end
        assert.same({ "0 | 1", "1 | 0" },
          sorted(outcomes_of(memory, { x = 0 }, body, body)))
      end)

      it("loses no count that is swapped in", function()
        local function count()
          local value = load("x")
          local found = swap("x", value, value + 1)
          if found ~= value then return interleaver.again(count) end
          return ""
        end
        local function reader() return (load("x")) end
        local set = outcomes_of(memory, { x = 0 }, count, count, reader)
        assert.same({ " |  | 0", " |  | 1", " |  | 2" }, sorted(set))
      end)

      it("keeps a mutex's holders apart and hands on what they did", function()
        local function body()
          interleaver.lock("mutex")
          local value = load("x")
          store("x", value + 1)
          interleaver.unlock("mutex")
          return value
        end
        assert.same({ "0 | 1", "1 | 0" },
          sorted(outcomes_of(memory, { mutex = 0, x = 0 }, body, body)))
      end)

      it("hands on what was seen of a third thread (WRC)", function()
        local set = outcomes_of(memory, { x = 0, y = 0 },
          function()
            store("x", 1, "release")
            return ""
          end, function()
            local seen = load("x", "acquire")
            if seen == 1 then store("y", 1, "release") end
            return ""
          end, function()
            local seen = load("y", "acquire")
            return seen, (load("x"))
          end)
        assert.is_nil(set[" |  | 1 0"])
        assert.is_true(set[" |  | 1 1"])
      end)

      it("tells the steps to a failure", function()
        local result = explore { memory = memory, shared = { x = 0 },
          threads = {
            { "one", function() store("x", 1) return "" end },
            { "two", function() check(load("x") == 0, "x changed") end },
          } }
        assert.equal("x changed", result.failure)
        local last = { tso = "one: the others now see x: 1",
          pso = "one: the others now see x: 1", c11 = "one: stores x: 1" }
        assert.truthy(result.trace:find(last[memory]
          .. "\ntwo: loads x: 1\nx changed", 1, true), result.trace)
      end)

      it("finds that nobody can go on", function()
        local function body(first, second)
          interleaver.lock(first)
          interleaver.lock(second)
          interleaver.unlock(second)
          interleaver.unlock(first)
          return ""
        end
        local result = explore { memory = memory, shared = { a = 0, b = 0 },
          threads = { { "one", body, "a", "b" }, { "two", body, "b", "a" } } }
        assert.equal("nobody can go on", result.failure)
      end)

      it("tries all choices, and waits", function()
        local set = outcomes_of(memory, { x = 0 }, function()
          local choice = interleaver.choose(2)
          store("x", 1)
          store("x", choice + 1)
          return choice
        end, function()
          return (interleaver.await("x", function(x) return x >= 2 end))
        end)
        assert.same({ "1 | 2", "2 | 3" }, sorted(set))
      end)
    end)
  end

  it("keeps messages in order in tso, and not in pso and c11", function()
    local function seen(memory, store_order, load_order)
      return outcomes_of(memory, { data = 0, flag = 0 }, sender(store_order),
        receiver(load_order))[" | 1 0"]
    end
    assert.is_nil(seen("tso"))
    assert.is_true(seen("pso"))
    assert.is_nil(seen("pso", "release"))
    assert.is_true(seen("pso", nil, "acquire"))
    assert.is_true(seen("c11"))
    assert.is_true(seen("c11", "release"))
    assert.is_true(seen("c11", nil, "acquire"))
  end)

  it("has one order of all stores in tso and pso alone (IRIW)", function()
    local function writer(name)
      return function()
        store(name, 1, "release")
        return ""
      end
    end
    local function watcher(first, second)
      return function()
        local found = load(first, "acquire")
        return found, (load(second, "acquire"))
      end
    end
    for _, memory in ipairs(MEMORIES) do
      local set = outcomes_of(memory, { x = 0, y = 0 }, writer "x", writer "y",
        watcher("x", "y"), watcher("y", "x"))
      assert.equal(memory == "c11" or nil, set[" |  | 1 0 | 1 0"])
    end
  end)

  it("finds that two threads wait for each other for ever", function()
    local function body(mine, other)
      local function wait()
        if load(other) == 0 then return interleaver.again(wait) end
        store(mine, 1)
        return ""
      end
      return wait
    end
    local case = { memory = "tso", shared = { x = 0, y = 0 },
      threads = { { "one", body("x", "y") }, { "two", body("y", "x") } } }
    assert.is_nil(explore(case).failure)
    case.must_finish = true
    assert.equal("this never ends", explore(case).failure)
    case.shared.x = 1
    assert.is_nil(explore(case).failure)
  end)

  it("sees ghosts change in one instant, outside of the memory", function()
    local function body()
      store("x", 1)
      return (interleaver.ghost(function(ghosts, newest)
        ghosts.count = ghosts.count + 1
        return ghosts.count .. newest("x")
      end))
    end
    local result = explore { memory = "tso", shared = { x = 0 },
      ghosts = { count = 0 }, threads = { { "one", body }, { "two", body } } }
    assert.same({ "10 | 20", "10 | 21", "11 | 21", "20 | 10", "21 | 10",
      "21 | 11" }, sorted(result.outcomes))
  end)

  it("does not take a slip in a thread for a failure", function()
    assert.has_error(function()
      explore { memory = "tso", shared = { x = 0 },
        threads = { { "one", function() load("y") end } } }
    end)
    assert.has_error(function()
      explore { memory = "tso", shared = { x = 0 },
        threads = { { "one", function() return load("x") + nil end } } }
    end)
  end)
end)
