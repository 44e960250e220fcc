-- SPDX-License-Identifier: MIT
--
-- What threads may see of each other's stores, for spec/support/interleaver.lua.
--
--   tso   x86: each thread's stores pass through a queue of its own, first in,
--         first out. The thread itself sees them at once, the others when they
--         leave the queue, at any time.
--   pso   the same, but stores to different variables leave in any order. A
--         release store leaves after all that were made before it.
--   c11   a variable remembers all its stores, and a thread may load any that
--         is not older than what it has seen. A release store hands on what its
--         thread has seen to an acquire load that finds it. This is the
--         operational model of Kang and others ("A promising semantics", 2017)
--         without promises.
--
-- In all of them a full fence is what it is in C: in the first two it waits for
-- the queue to be empty, in the last all fences are in one order, and each
-- thread has seen at its fence what others had seen at earlier ones. A
-- compare-and-swap waits for the queue, too; in c11 it is no more than acquire
-- and release.
--
-- No model lets a store overtake an earlier load of its thread (tso and pso no
-- load overtake another one, either), or, c11, a store come before an older one
-- in its variable's order. What depends on that is to be modelled by writing the
-- steps down in the wrong order.
--
-- A state is an array of small integers, so that equal states are found by
-- their text; queues, views and lists of stores are numbered as they turn up. A
-- model's part of it begins after index `base`.

local models = {}

-- ---- Things with numbers -----------------------------------------------------

-- Values and lists that are equal have the same number.
local numbers, values = {}, {}

local function number_of(value)
  local number = numbers[value]
  if not number then
    assert(type(value) == "number" or type(value) == "string",
      "a value is a number or a string")
    number = #values + 1
    numbers[value], values[number] = number, value
  end
  return number
end

local unpack = table.unpack or unpack -- luacheck: ignore 113

local function copy(list) return { unpack(list) } end

local function numbered_lists()
  local lists, by_text = {}, {}
  return lists, function(list)
    local text = table.concat(list, ",")
    local number = by_text[text]
    if not number then
      number = #lists + 1
      by_text[text], lists[number] = number, list
    end
    return number
  end
end

-- ---- Queues of stores: tso and pso ---------------------------------------------

-- A queue is a list of variable, value, release (1 or 0), and so on.
local function queued(ordered)
  return function(base, thread_count, initial)
    local queues, queue_number = numbered_lists()
    local EMPTY = queue_number {}
    local memory = base + thread_count

    local model = { invisible = { store = true } }

    function model.extend(state)
      for thread = 1, thread_count do state[base + thread] = EMPTY end
      for variable, value in ipairs(initial) do
        state[memory + variable] = number_of(value)
      end
    end

    function model.newest(state, variable)
      return values[state[memory + variable]]
    end

    local function seen(state, thread, variable)
      local queue = queues[state[base + thread]]
      for i = #queue - 2, 1, -3 do
        if queue[i] == variable then return values[queue[i + 1]] end
      end
      return values[state[memory + variable]]
    end

    local step = {}

    function step.load(state, thread, op, emit)
      emit(copy(state), seen(state, thread, op.variable))
    end

    function step.await(state, thread, op, emit)
      local value = seen(state, thread, op.variable)
      if op.wanted(value) then emit(copy(state), value) end
    end

    function step.store(state, thread, op, emit)
      local queue = copy(queues[state[base + thread]])
      queue[#queue + 1] = op.variable
      queue[#queue + 1] = number_of(op.value)
      queue[#queue + 1] = op.order == "release" and 1 or 0
      local new = copy(state)
      new[base + thread] = queue_number(queue)
      emit(new)
    end

    function step.fence(state, thread, _, emit)
      if state[base + thread] == EMPTY then emit(copy(state)) end
    end

    function step.swap(state, thread, op, emit)
      if state[base + thread] ~= EMPTY then return end
      local value = values[state[memory + op.variable]]
      if op.waits and value ~= op.old then return end
      local new = copy(state)
      if value == op.old then new[memory + op.variable] = number_of(op.value) end
      emit(new, value)
    end

    model.step = step

    -- Whether the store at `index` may leave the queue.
    local function may_leave(queue, index)
      if index == 1 then return true end
      if ordered or queue[index + 2] == 1 then return false end
      for i = 1, index - 3, 3 do
        if queue[i] == queue[index] then return false end
      end
      return true
    end

    -- Stores reach memory.
    function model.background(state, thread, emit)
      local queue = queues[state[base + thread]]
      for index = 1, #queue, 3 do
        if may_leave(queue, index) then
          local rest = {}
          for i = 1, #queue do
            if i < index or i > index + 2 then rest[#rest + 1] = queue[i] end
          end
          local new = copy(state)
          new[base + thread] = queue_number(rest)
          new[memory + queue[index]] = queue[index + 1]
          emit(new, queue[index], values[queue[index + 1]])
        end
      end
    end

    return model
  end
end

models.tso = queued(true)
models.pso = queued(false)

-- ---- Views of histories: c11 ----------------------------------------------------

-- A view tells for each variable how many of its stores are known to be made.
-- A thread has three: what it has seen; what an acquire fence would add; what
-- its last fence hands on with relaxed stores. A variable's history is a list
-- of value, view, and so on.
function models.c11(base, thread_count, initial)
  local views, view_number = numbered_lists()
  local histories, history_number = numbered_lists()
  local joins = {}

  local function join(a, b)
    if a == b then return a end
    local of_a = joins[a]
    if not of_a then
      of_a = {}
      joins[a] = of_a
    end
    local number = of_a[b]
    if not number then
      local view_a, view_b, view = views[a], views[b], {}
      for i = 1, #view_a do view[i] = math.max(view_a[i], view_b[i]) end
      number = view_number(view)
      of_a[b] = number
    end
    return number
  end

  local function with(view, variable, count)
    if views[view][variable] >= count then return view end
    local new = copy(views[view])
    new[variable] = count
    return view_number(new)
  end

  local pending_base, handed_base = base + thread_count, base + 2 * thread_count
  local fences = base + 3 * thread_count + 1
  local memory = fences

  local model = { invisible = {} }

  function model.extend(state)
    local first = {}
    for variable = 1, #initial do first[variable] = 1 end
    local view = view_number(first)
    for i = base + 1, fences do state[i] = view end
    for variable, value in ipairs(initial) do
      state[memory + variable] = history_number { number_of(value), view }
    end
  end

  function model.newest(state, variable)
    local history = histories[state[memory + variable]]
    return values[history[#history - 1]]
  end

  local step = {}

  -- The thread has found store `count` of the variable.
  local function find(state, thread, variable, count, order)
    local new = copy(state)
    local view = histories[state[memory + variable]][2 * count]
    local seen = with(state[base + thread], variable, count)
    if order == "acquire" then seen = join(seen, view) end
    new[base + thread] = seen
    new[pending_base + thread] = join(join(new[pending_base + thread], view),
      seen)
    return new
  end

  -- Changes `state`: the thread adds a store, which hands on `view`, too.
  local function add(state, thread, variable, value, view)
    local history = copy(histories[state[memory + variable]])
    local count = math.floor(#history / 2) + 1
    local seen = with(state[base + thread], variable, count)
    state[base + thread] = seen
    state[pending_base + thread] = join(state[pending_base + thread], seen)
    history[#history + 1] = number_of(value)
    history[#history + 1] = with(view, variable, count)
    state[memory + variable] = history_number(history)
  end

  local function each_load(state, thread, op, order, wanted, emit)
    local history = histories[state[memory + op.variable]]
    for count = views[state[base + thread]][op.variable], math.floor(#history / 2) do
      local value = values[history[2 * count - 1]]
      if not wanted or wanted(value) then
        emit(find(state, thread, op.variable, count, order), value)
      end
    end
  end

  function step.load(state, thread, op, emit)
    each_load(state, thread, op, op.order, nil, emit)
  end

  function step.await(state, thread, op, emit)
    each_load(state, thread, op, "acquire", op.wanted, emit)
  end

  function step.store(state, thread, op, emit)
    local new = copy(state)
    local view = op.order == "release" and base or handed_base
    add(new, thread, op.variable, op.value, new[view + thread])
    emit(new)
  end

  function step.fence(state, thread, _, emit)
    local new = copy(state)
    local view = join(join(state[base + thread], state[pending_base + thread]),
      state[fences])
    new[base + thread], new[pending_base + thread] = view, view
    new[handed_base + thread], new[fences] = view, view
    emit(new)
  end

  -- It succeeds on the newest store only; it may fail on an older one.
  function step.swap(state, thread, op, emit)
    local history = histories[state[memory + op.variable]]
    if values[history[#history - 1]] == op.old then
      local count = math.floor(#history / 2)
      local new = find(state, thread, op.variable, count, "acquire")
      local view = join(new[base + thread], history[#history])
      add(new, thread, op.variable, op.value, view)
      emit(new, op.old)
    end
    if op.waits then return end
    each_load(state, thread, op, "acquire",
      function(value) return value ~= op.old end, emit)
  end

  model.step = step

  function model.background() end

  return model
end

return models
