-- SPDX-License-Identifier: MIT
--
-- Explores every interleaving of some small threads, in a memory model of
-- spec/support/memory_models.lua. A thread is a Lua function that makes its
-- steps by the functions below:
--
--   load(variable [, "acquire"])            its value
--   store(variable, value [, "release"])
--   fence()                                 a full one (seq_cst)
--   swap(variable, old, new)                compare-and-swap; the value found
--   lock(variable), unlock(variable)        a mutex: 0 is free, 1 is taken
--   await(variable, wanted)                 loads (acquire) when wanted(value)
--   choose(count)                           1 to count, each of them tried
--   ghost(change)                           see below
--   check(condition, message)               fails the exploration
--   return again(body, ...)                 goes on as body(...), and forgets
--                                           what it knew: for loops without end
--
-- Values are numbers and strings. A thread must depend on nothing but the
-- results of its steps: it is run again for each state that it can be in, so
-- two states are the same if all threads have had the same results since their
-- start (or `again`) and the memory is the same.
--
-- Ghosts are variables for assertions, outside of the memory model. A step
-- ghost(change) calls change(ghosts, newest) in one instant; it may change the
-- table `ghosts`; newest(variable) is the value that was stored last, of stores
-- that all threads could see. What it returns is the step's result.
--
--   explore { memory = "tso", shared = { name = value }, ghosts = { ... },
--             threads = { { "name", body, argument, ... }, ... } }
--
-- It returns { states, outcomes, failure, trace }: how many states there are;
-- the set of what the threads returned, as text, "1 0 | 2" for 1, 0 of the
-- first and 2 of the second; and what failed, if anything did, with one of the
-- shortest ways there. That nobody can go on is a failure, too, and with
-- must_finish = true, that no way leads from a state to the end of all threads.

local memory_models = require "spec.support.memory_models"

local interleaver = {}

local yield = coroutine.yield
local unpack = table.unpack or unpack -- luacheck: ignore 113

-- ---- Steps -------------------------------------------------------------------

function interleaver.load(variable, order)
  return yield { kind = "load", name = variable, order = order }
end

function interleaver.store(variable, value, order)
  return yield { kind = "store", name = variable, value = value, order = order }
end

function interleaver.fence()
  return yield { kind = "fence" }
end

function interleaver.swap(variable, old, new)
  return yield { kind = "swap", name = variable, old = old, value = new }
end

function interleaver.lock(variable)
  return yield { kind = "swap", name = variable, old = 0, value = 1,
    waits = true }
end

function interleaver.unlock(variable)
  return yield { kind = "store", name = variable, value = 0, order = "release" }
end

function interleaver.await(variable, wanted)
  return yield { kind = "await", name = variable, wanted = wanted }
end

function interleaver.choose(count)
  return yield { kind = "choose", count = count }
end

function interleaver.ghost(change)
  return yield { kind = "ghost", change = change }
end

local Failure = {}

function interleaver.check(condition, message)
  if not condition then error(setmetatable({ message = message }, Failure)) end
end

local Again = {}

function interleaver.again(body, ...)
  return setmetatable({ body = body, count = select("#", ...), ... }, Again)
end

-- ---- Threads ------------------------------------------------------------------

-- What a thread can be in: `op` is its next step, or `results` what it returned,
-- or `failure` why it failed. Positions are the nodes of a tree, whose edges are
-- results.
local Thread = {}
Thread.__index = Thread

local NOTHING = {} -- the result of a step that has none

local function new_thread(definition, indexes)
  local thread = setmetatable({ name = definition[1], indexes = indexes,
    positions = {}, starts = {} }, Thread)
  thread:start { body = definition[2], count = #definition - 2,
    unpack(definition, 3) }
  return thread
end

-- The position after `results` since the start.
function Thread:run(start, results)
  local position = { start = start, past = results, next = {} }
  local thread = coroutine.create(start.body)
  local outcome = { coroutine.resume(thread, unpack(start, 1, start.count)) }
  for _, result in ipairs(results) do
    if result == NOTHING then result = nil end
    outcome = { coroutine.resume(thread, result) }
  end
  local good, value = outcome[1], outcome[2]
  if not good then
    if getmetatable(value) ~= Failure then
      error(debug.traceback(thread, tostring(value)), 0)
    end
    position.failure = value.message or "check failed"
  elseif coroutine.status(thread) == "suspended" then
    position.op = value
    if value.name then
      value.variable = self.indexes[value.name]
        or error("no such variable: " .. tostring(value.name))
    end
  elseif getmetatable(value) == Again then
    return self:start(value)
  else
    position.results = table.concat(outcome, " ", 2)
  end
  self.positions[#self.positions + 1] = position
  position.number = #self.positions
  return position
end

function Thread:start(start)
  local of_body = self.starts[start.body] or {}
  self.starts[start.body] = of_body
  local text = table.concat(start, ",")
  of_body[text] = of_body[text] or self:run(start, {})
  return of_body[text]
end

function Thread:after(position, result)
  if result == nil then result = NOTHING end
  local next_position = position.next[result]
  if not next_position then
    local results = { unpack(position.past) }
    results[#results + 1] = result
    next_position = self:run(position.start, results)
    position.next[result] = next_position
  end
  return next_position
end

-- ---- Exploration -----------------------------------------------------------------

local Exploration = {}
Exploration.__index = Exploration

local function sorted_names(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function new_exploration(case)
  local self = setmetatable({ seen = {}, queue = {}, count = 0, head = 0,
    parents = {}, steps = {}, outcomes = {}, threads = {}, moved = false,
    names = sorted_names(case.shared), indexes = {},
    ghost_names = sorted_names(case.ghosts or {}), ends = {},
    before = case.must_finish and {} or nil }, Exploration)
  local initial = {}
  for index, name in ipairs(self.names) do
    self.indexes[name], initial[index] = index, case.shared[name]
  end
  local state = {}
  for index, definition in ipairs(case.threads) do
    self.threads[index] = new_thread(definition, self.indexes)
    state[index] = 1
  end
  for _, name in ipairs(self.ghost_names) do
    state[#state + 1] = case.ghosts[name]
  end
  self.model = memory_models[case.memory](#state, #self.threads, initial)
  self.model.extend(state)
  self:arrive(state)
  return self
end

-- A step has led to this state.
function Exploration:arrive(state, thread, op, result)
  self.moved = true
  local text = table.concat(state, ",")
  local known = self.seen[text]
  if self.before then
    local before = self.before[known or self.count + 1] or {}
    self.before[known or self.count + 1] = before
    before[#before + 1] = self.head
  end
  if known then return end
  self.count = self.count + 1
  self.seen[text] = self.count
  self.queue[self.count] = state
  self.parents[self.count] = self.head
  self.steps[self.count] = { thread, op, result }
end

function Exploration:step_ghost(state, op, emit)
  local thread_count = #self.threads
  local ghosts, new = {}, { unpack(state) }
  for i, name in ipairs(self.ghost_names) do
    ghosts[name] = state[thread_count + i]
  end
  local result = op.change(ghosts, function(name)
    return self.model.newest(state, self.indexes[name])
  end)
  for i, name in ipairs(self.ghost_names) do
    new[thread_count + i] = ghosts[name]
  end
  emit(new, result)
end

function Exploration:step(state, index, op)
  local thread = self.threads[index]
  local position = thread.positions[state[index]]
  local function emit(new, result)
    local next_position = thread:after(position, result)
    new[index] = next_position.number
    self:arrive(new, thread, op, result)
    if next_position.failure and not self.failure then
      self.failure, self.failed_at = next_position.failure, self.count
    end
  end
  if op.kind == "choose" then
    for choice = 1, op.count do emit({ unpack(state) }, choice) end
  elseif op.kind == "ghost" then
    self:step_ghost(state, op, emit)
  else
    self.model.step[op.kind](state, index, op, emit)
  end
end

-- A step that no other thread can see need not be tried later than at once.
function Exploration:step_unseen(state)
  for index, thread in ipairs(self.threads) do
    local op = thread.positions[state[index]].op
    if op and (op.kind == "choose" or self.model.invisible[op.kind]) then
      self:step(state, index, op)
      return true
    end
  end
end

function Exploration:finish(state)
  local results = {}
  for index, thread in ipairs(self.threads) do
    results[index] = thread.positions[state[index]].results
    if not results[index] then
      self.failure, self.failed_at = "nobody can go on", self.head
      return
    end
  end
  self.outcomes[table.concat(results, " | ")] = true
  self.ends[#self.ends + 1] = self.head
end

-- Walks back from the ends; what is not met leads to none.
function Exploration:look_for_endless()
  local met, list, at = {}, self.ends, 0
  for _, number in ipairs(list) do met[number] = true end
  while at < #list do
    at = at + 1
    for _, number in ipairs(self.before[list[at]] or {}) do
      if number > 0 and not met[number] then
        met[number] = true
        list[#list + 1] = number
      end
    end
  end
  for number = 1, self.count do
    if not met[number] then
      self.failure, self.failed_at = "this never ends", number
      return
    end
  end
end

function Exploration:expand(state)
  if self:step_unseen(state) then return end
  self.moved = false
  for index, thread in ipairs(self.threads) do
    local op = thread.positions[state[index]].op
    if op then self:step(state, index, op) end
    self.model.background(state, index, function(new, variable, value)
      self:arrive(new, thread, { kind = "reach", name = self.names[variable] },
        value)
    end)
  end
  if not self.moved then self:finish(state) end
end

local describe_step = {
  load = function(op, result) return "loads", op.name, result end,
  await = function(op, result) return "waits for", op.name, result end,
  store = function(op)
    return "stores" .. (op.order == "release" and " with release" or ""),
      op.name, op.value
  end,
  reach = function(op, result) return "the others now see", op.name, result end,
  swap = function(op, result)
    return ("swaps %s for %s in"):format(op.old, op.value), op.name, result
  end,
  fence = function() return "passes a fence" end,
  choose = function(_, result) return "chooses " .. result end,
  ghost = function(_, result)
    return "(ghost" .. (result and ": " .. result or "") .. ")"
  end,
}

function Exploration:trace()
  local lines, at = {}, self.failed_at
  while at > 1 do
    local thread, op, result = unpack(self.steps[at], 1, 3)
    local what, name, value = describe_step[op.kind](op, result)
    local line = thread.name .. ": " .. what
    if name then line = line .. " " .. name .. ": " .. tostring(value) end
    table.insert(lines, 1, line)
    at = self.parents[at]
  end
  lines[#lines + 1] = self.failure
  return table.concat(lines, "\n")
end

function interleaver.explore(case)
  local self = new_exploration(case)
  local limit = case.limit or 1000000
  while self.head < self.count and not self.failure do
    self.head = self.head + 1
    local state = self.queue[self.head]
    self.queue[self.head] = false
    self:expand(state)
    if self.count > limit then error("more than " .. limit .. " states") end
  end
  if case.must_finish and not self.failure then self:look_for_endless() end
  return { states = self.count, outcomes = self.outcomes,
    failure = self.failure, trace = self.failure and self:trace() }
end

return interleaver
