-- SPDX-License-Identifier: MIT
--
-- The checker of histories (spec/support/linearizable.c): right histories, wrong
-- ones, and small ones of chance, which a checker that tries every order judges
-- too.
--
--   MMCMAP_SEED    the run to repeat; printed
--   MMCMAP_LONG=1  more and longer histories

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local check = probe.history.check

local SEED = binary.seed("linearizable")
local LONG = os.getenv("MMCMAP_LONG")
local PENDING = math.huge

-- ---- Short notation ---------------------------------------------------------

-- A history from lines { client, from, to, kind, fields }.
local function history(lines)
  local operations = {}
  for i, line in ipairs(lines) do
    local operation = { client = line[1], from = line[2], kind = line[4] }
    if line[3] ~= PENDING then operation.to = line[3] end
    for name, value in pairs(line[5] or {}) do operation[name] = value end
    operations[i] = operation
  end
  return operations
end

local function is_right(lines, options)
  local verdict, report = check(history(lines), options)
  assert.equal(true, verdict, report)
end

-- Refused, and the report shows `shown` and no more than `most` operations.
local function is_wrong(lines, shown, most, options)
  local verdict, report = check(history(lines), options)
  assert.equal(false, verdict)
  assert.truthy(report:find(shown, 1, true), report)
  assert.truthy(report:find("<- cannot be", 1, true), report)
  assert.falsy(report:find("fault of the checker", 1, true), report)
  local count = tonumber(report:match("these (%d+) operations"))
  assert.is_true(count <= most, report)
end

local function put(value) return { value = value, result = true } end
local function got(value) return { result = value } end
local yes, no = { result = true }, { result = false }

-- ---- The model, once more ---------------------------------------------------

-- What the register holds afterwards, and the answer (nil: absent).
local model = {
  get = function(_, value) return value, value end,
  has = function(_, value) return value, value ~= nil end,
  put = function(operation) return operation.value, true end,
  delete = function(_, value) return nil, value ~= nil end,
  add = function(operation, value)
    if value ~= nil then return value, false end
    return operation.value, true
  end,
  replace = function(operation, value)
    if value == nil then return value, false end
    return operation.value, true
  end,
  cas = function(operation, value)
    if value ~= operation.expected then return value, false end
    return operation.value, true
  end,
  swap = function(operation, value) return operation.value, value end,
  incr = function(operation, value)
    value = value or operation.expected
    if value then value = value + operation.value end
    return value, value
  end,
}

-- ---- Every order ------------------------------------------------------------

local function fits(operation, values)
  local after = {}
  for key, value in pairs(values) do after[key] = value end
  if operation.kind == "snapshot" then
    for key, value in ipairs(operation.values) do
      if values[key - 1] ~= (value or nil) then return end
    end
    return after
  end
  local is_open = not operation.to or operation.unknown
  if operation.kind == "move" then
    local key, other = operation.key, operation.other
    if not is_open and (values[key] ~= operation.result
      or values[other] ~= operation.other_result) then return end
    after[key], after[other] = operation.value, operation.other_value
    return after
  end
  local key = operation.key or 0
  local value, answer = model[operation.kind](operation, values[key])
  if not is_open and answer ~= operation.result then return end
  after[key] = value
  return after
end

-- Whether some order of those not done goes on from `values`.
local function any_order(operations, done, values)
  local complete, first_to = true, PENDING
  for i, operation in ipairs(operations) do
    if not done[i] and operation.to then
      complete = false
      first_to = math.min(first_to, operation.to)
    end
  end
  if complete then return true end
  for i, operation in ipairs(operations) do
    local after = not done[i] and operation.from <= first_to
      and fits(operation, values)
    if after then
      done[i] = true
      local found = any_order(operations, done, after)
        or operation.unknown and any_order(operations, done, values)
      done[i] = nil
      if found then return true end
    end
  end
  return false
end

-- ---- Histories of chance ----------------------------------------------------

local KINDS = { "get", "get", "put", "delete", "has", "add", "replace", "cas",
  "cas", "swap", "incr" }

local function maybe(random, value)
  if random(4) > 1 then return value end
end

-- As an atomic register would have answered to `clients` clients; `values`
-- says how many different values there are.
local function right_history(random, count, clients, case)
  local operations, clock = {}, {}
  for i = 1, count do
    local client = random(clients)
    local from = (clock[client] or 0) + random(case.pause or 4)
    local moment = from + random(case.delay or 8) - 1
    local to = moment + random(case.delay or 8) - 1
    clock[client] = to
    local operation = { client = client, from = from, to = to, moment = moment,
      number = i, key = random(case.keys or 1) - 1,
      kind = case.snapshots and random(3) == 1 and "snapshot"
        or KINDS[random(#KINDS)],
      value = random(case.values), expected = maybe(random, random(case.values)),
    }
    if case.moves and random(3) == 1 then
      operation.kind = "move"
      operation.other = (operation.key + random(case.keys - 1)) % case.keys
      operation.other_value = random(case.values)
    end
    operations[i] = operation
  end
  table.sort(operations, function(a, b)
    if a.moment ~= b.moment then return a.moment < b.moment end
    return a.number < b.number
  end)
  local values = {}
  for _, operation in ipairs(operations) do
    local key = operation.key
    if operation.kind == "snapshot" then
      operation.values = {}
      for i = 1, case.keys do operation.values[i] = values[i - 1] or false end
    elseif operation.kind == "move" then
      local other = operation.other
      operation.result, operation.other_result = values[key], values[other]
      values[key], values[other] = operation.value, operation.other_value
    else
      values[key], operation.result =
        model[operation.kind](operation, values[key])
    end
  end
  return operations
end

-- Another answer to one of them, if it can have another one.
local function corrupt(random, operations)
  local operation = operations[random(#operations)]
  local value = maybe(random, operations[random(#operations)].value)
  if operation.kind == "snapshot" then
    operation.values[random(#operation.values)] = value or false
  elseif type(operation.result) == "boolean" then
    if operation.kind ~= "put" then operation.result = not operation.result end
  elseif operation.kind == "move" and random(2) == 1 then
    operation.other_result = value
  else
    operation.result = value
  end
end

-- ---- The specs --------------------------------------------------------------

describe("the checker of histories", function()
  it("takes what one client does in turn", function()
    is_right {
      { 1, 1, 2, "get", got(nil) }, { 1, 3, 4, "put", put(5) },
      { 1, 5, 6, "get", got(5) }, { 1, 7, 8, "delete", yes },
      { 1, 9, 10, "delete", no }, { 1, 11, 12, "has", no },
      { 1, 13, 14, "add", put(6) }, { 1, 15, 16, "add", { value = 7, result = false } },
      { 1, 17, 18, "replace", put(8) },
      { 1, 19, 20, "cas", { expected = 8, value = 9, result = true } },
      { 1, 21, 22, "cas", { expected = 8, value = 3, result = false } },
      { 1, 23, 24, "swap", { value = 10, result = 9 } },
      { 1, 25, 26, "incr", { value = 5, result = 15 } },
      { 1, 27, 28, "cas", { expected = 15, result = true } },
      { 1, 29, 30, "incr", { value = 5 } },
      { 1, 31, 32, "incr", { value = 5, expected = 1, result = 6 } },
      { 1, 33, 34, "put", { value = 1, result = false } },
      { 1, 35, 36, "get", got(6) },
    }
  end)

  it("takes either order of what overlaps", function()
    for value = 1, 2 do
      is_right {
        { 1, 1, 5, "put", put(1) }, { 2, 1, 5, "put", put(2) },
        { 3, 6, 7, "get", got(value) },
      }
    end
    is_right {
      { 1, 1, 9, "put", put(1) }, { 2, 2, 3, "get", got(nil) },
      { 2, 4, 5, "get", got(1) }, { 3, 4, 6, "get", got(nil) },
    }
  end)

  it("refuses a stale read", function()
    is_wrong({
      { 1, 1, 2, "put", put(1) }, { 1, 3, 4, "put", put(2) },
      { 2, 5, 6, "get", got(1) },
    }, "get: 1", 2)
  end)

  it("refuses values that go back", function()
    is_wrong({
      { 1, 1, 2, "put", put(1) }, { 1, 3, 20, "put", put(2) },
      { 2, 5, 6, "get", got(2) }, { 3, 7, 8, "get", got(1) },
    }, "get: 1", 4)
  end)

  it("refuses a lost update", function()
    is_wrong({
      { 1, 1, 2, "put", put(10) },
      { 1, 3, 6, "incr", { value = 1, result = 11 } },
      { 2, 3, 6, "incr", { value = 1, result = 11 } },
    }, "incr 1", 3)
    is_wrong({
      { 1, 1, 2, "put", put(10) },
      { 1, 3, 6, "incr", { value = 1, result = 11 } },
      { 2, 3, 6, "incr", { value = 1, result = 12 } },
      { 2, 7, 8, "get", got(11) },
    }, "get: 11", 4)
  end)

  it("refuses a cas that succeeds twice", function()
    is_wrong({
      { 1, 1, 2, "put", put(1) },
      { 1, 3, 6, "cas", { expected = 1, value = 2, result = true } },
      { 2, 3, 6, "cas", { expected = 1, value = 3, result = true } },
    }, "cas 1 -> ", 3)
    is_wrong({
      { 1, 3, 6, "add", put(1) }, { 2, 3, 6, "add", put(2) },
    }, "add", 2)
  end)

  it("refuses a value that nobody wrote", function()
    is_wrong({
      { 1, 1, 8, "put", put(1) }, { 2, 2, 3, "get", got(7) },
    }, "get: 7", 2)
  end)

  it("refuses a deleted key that is seen again", function()
    is_wrong({
      { 1, 1, 2, "put", put(1) }, { 1, 3, 4, "delete", yes },
      { 2, 5, 6, "has", yes },
    }, "has: it was there", 2)
    is_wrong({
      { 1, 1, 2, "put", put(1) }, { 1, 3, 6, "delete", yes },
      { 2, 3, 6, "delete", yes },
    }, "delete", 3)
  end)

  it("refuses the value of a put that failed", function()
    is_wrong({
      { 1, 1, 2, "put", put(1) },
      { 1, 3, 6, "put", { value = 2, result = false } },
      { 2, 5, 6, "get", got(2) },
    }, "get: 2", 2)
  end)

  it("lets a pending operation happen at any time, or never", function()
    for _, value in ipairs { 1, 2 } do
      is_right {
        { 1, 1, 2, "put", put(1) }, { 1, 3, PENDING, "put", put(2) },
        { 2, 50, 51, "get", got(1) }, { 2, 60, 61, "get", got(value) },
      }
    end
  end)

  it("refuses a pending operation that is undone", function()
    is_wrong({
      { 1, 1, 2, "put", put(1) }, { 1, 3, PENDING, "put", put(2) },
      { 2, 4, 5, "get", got(2) }, { 3, 6, 7, "get", got(1) },
    }, "get: 1", 4)
  end)

  it("lets an unknown result be none, but not later than it says", function()
    local unknown = { value = 2, unknown = true }
    for _, value in ipairs { 1, 2 } do
      is_right {
        { 1, 1, 2, "put", put(1) }, { 1, 3, 9, "put", unknown },
        { 2, 10, 11, "get", got(value) },
      }
    end
    is_wrong({
      { 1, 1, 2, "put", put(1) }, { 1, 3, 9, "put", unknown },
      { 2, 10, 11, "get", got(1) }, { 2, 12, 13, "get", got(2) },
    }, "get: 2", 3)
  end)

  it("knows what keys hold before", function()
    is_right({ { 1, 1, 2, "get", got(4) } }, { initial = { 4 } })
    is_wrong({ { 1, 1, 2, "get", got(nil) } }, "before: 4", 1,
      { initial = { 4 } })
  end)

  it("keeps keys apart", function()
    is_right({
      { 1, 1, 2, "put", { key = 0, value = 1, result = true } },
      { 1, 3, 4, "get", { key = 1, result = nil } },
    }, { keys = 2, joint = true })
    is_wrong({
      { 1, 1, 2, "put", { key = 0, value = 1, result = true } },
      { 1, 3, 4, "get", { key = 1, result = 1 } },
    }, "key 1", 1, { keys = 2 })
  end)

  it("refuses a snapshot of two moments", function()
    local lines = {
      { 1, 1, 2, "put", { key = 0, value = 1, result = true } },
      { 1, 3, 4, "put", { key = 1, value = 1, result = true } },
      { 1, 5, 6, "put", { key = 0, value = 2, result = true } },
      { 1, 7, 8, "put", { key = 1, value = 2, result = true } },
      { 2, 2, 9, "snapshot", { values = { 1, 2 } } },
    }
    is_right(lines, { keys = 2 }) -- each key by itself could have been so
    is_wrong(lines, "snapshot", 6, { keys = 2, joint = true })
    for _, values in ipairs { { 1, false }, { 1, 1 }, { 2, 1 }, { 2, 2 } } do
      lines[5][5].values = values
      is_right(lines, { keys = 2, joint = true })
    end
  end)

  it("refuses two snapshots that disagree on the order", function()
    is_wrong({
      { 1, 1, 9, "put", { key = 0, value = 1, result = true } },
      { 2, 1, 9, "put", { key = 1, value = 1, result = true } },
      { 3, 2, 8, "snapshot", { values = { 1, false } } },
      { 4, 2, 8, "snapshot", { values = { false, 1 } } },
    }, "snapshot", 6, { keys = 2, joint = true })
  end)

  local function move(key, value, result, other, other_value, other_result)
    return { key = key, value = value, result = result, other = other,
      other_value = other_value, other_result = other_result }
  end

  it("refuses a move that is seen half done", function()
    local lines = {
      { 1, 1, 2, "put", { key = 0, value = 9, result = true } },
      { 1, 3, 4, "put", { key = 1, value = 5, result = true } },
      { 1, 5, 9, "move", move(0, 7, 9, 1, 7, 5) },
      { 2, 6, 8, "snapshot", { values = { 7, 5 } } },
    }
    is_right(lines, { keys = 2 })
    is_wrong(lines, "snapshot", 4, { keys = 2, joint = true })
    for _, values in ipairs { { 9, 5 }, { 7, 7 } } do
      lines[4][5].values = values
      is_right(lines, { keys = 2, joint = true })
    end
    lines[4] = nil
    lines[3][3] = PENDING
    lines[4] = { 2, 6, 7, "get", { key = 0, result = 7 } }
    lines[5] = { 2, 8, 9, "get", { key = 1, result = 7 } }
    is_right(lines, { keys = 2, joint = true })
    lines[5][5].result = 5
    is_wrong(lines, "get", 5, { keys = 2, joint = true })
  end)

  it("refuses two moves that saw the same", function()
    local lines = {
      { 1, 1, 9, "move", move(0, 1, nil, 1, 2, nil) },
      { 2, 1, 9, "move", move(1, 3, 2, 2, 4, nil) },
      { 3, 1, 9, "move", move(2, 5, 4, 0, 6, 1) },
    }
    is_right(lines, { keys = 3, joint = true })
    lines[3][5].other_result = nil
    is_wrong(lines, "move", 3, { keys = 3, joint = true })
  end)

  it("finds one wrong answer among thousands, and shows few", function()
    local lines, at = {}, 0
    for i = 1, 4000 do
      for client = 1, 3 do
        lines[#lines + 1] = { client, at + client, at + 9, "get", got(i - 1) }
      end
      lines[#lines + 1] = { 4, at + 10, at + 11, "put", put(i) }
      at = at + 20
    end
    lines[10001][5] = got(2400)
    is_wrong(lines, "get: 2400", 2, { initial = { 0 } })
    lines[10001][5] = got(5000)
    is_wrong(lines, "get: 5000", 1, { initial = { 0 } })
  end)

  it("gives up where too much is open at once", function()
    local lines = {}
    for client = 1, 65 do
      lines[client] = { client, client, PENDING, "put", put(client) }
    end
    local verdict, report = check(history(lines))
    assert.equal(nil, verdict)
    assert.truthy(report:find("too many operations at once"), report)
  end)
end)

describe("the checker of histories, by chance", function()
  local random

  before_each(function() random = binary.random(SEED) end)

  it("takes what a register answered", function()
    for i = 1, LONG and 400 or 40 do
      local case = { values = random(2) == 1 and 3 or 1000, keys = random(3),
        pause = random(20), delay = random(30), snapshots = random(2) == 1 }
      case.moves = case.keys > 1 and random(2) == 1
      local operations = right_history(random, 300, random(8), case)
      local verdict, report = check(operations, { keys = case.keys,
        joint = true })
      assert.equal(true, verdict, ("history %d: %s"):format(i, report))
    end
  end)

  it("takes a long history of sixteen clients", function()
    local count = LONG and 100000 or 10000
    local case = { values = 1000, pause = 300, delay = 100 }
    local operations = right_history(random, count, 16, case)
    local begin = os.clock()
    local verdict, report, figures = check(operations)
    print(("# %d operations, widest %d, %d windows, %d states, %.2f s"):format(
      count, figures.widest, figures.windows, figures.visited,
      os.clock() - begin))
    assert.equal(true, verdict, report)
  end)

  -- Another answer may well be right: but most are not.
  it("refuses most wrong answers", function()
    local refused, tries = 0, LONG and 400 or 60
    for _ = 1, tries do
      local operations = right_history(random, 200, 4, { values = 1000 })
      local operation
      repeat operation = operations[random(#operations)]
      until operation.kind == "get" or operation.kind == "swap"
      operation.result = operation.result == 1001 and 1002 or 1001
      local verdict, report = check(operations)
      if verdict == false then refused = refused + 1 end
      assert.falsy(report:find("fault of the checker"), report)
    end
    assert.is_true(refused > tries * 0.95, refused .. " of " .. tries)
  end)

  local function agrees(name, case)
    it("agrees with every order tried" .. name, function()
      local counts = { [true] = 0, [false] = 0 }
      for i = 1, LONG and 60000 or 6000 do
        local operations = right_history(random, random(6), random(4), case)
        for _ = 1, random(3) - 1 do corrupt(random, operations) end
        for _, operation in ipairs(operations) do
          if operation.kind ~= "snapshot" then
            if random(12) == 1 then operation.to = nil end
            operation.unknown = random(12) == 1
          end
        end
        local expected = any_order(operations, {}, {})
        local verdict, report = check(operations, { keys = case.keys or 1,
          joint = true })
        if verdict ~= expected then
          local lines = {}
          for _, one in ipairs(operations) do
            lines[#lines + 1] = ("%s %s-%s key %s value %s expected %s: %s"):format(
              one.kind, one.from, tostring(one.to), one.key, tostring(one.value),
              tostring(one.expected), tostring(one.result))
          end
          error(("history %d is %s, not %s: %s\n%s"):format(i,
            tostring(expected), tostring(verdict), report,
            table.concat(lines, "\n")))
        end
        assert.falsy(report:find("fault of the checker"), report)
        counts[expected] = counts[expected] + 1
      end
      assert.is_true(counts[true] > 500 and counts[false] > 500)
    end)
  end

  agrees("", { values = 2, pause = 3, delay = 5 })
  agrees(", with more values", { values = 6, pause = 3, delay = 9 })
  agrees(", with two keys", { values = 2, keys = 2, pause = 3, delay = 5 })
  agrees(", with snapshots", { values = 2, keys = 2, snapshots = true, pause = 3,
    delay = 6 })
  agrees(", with moves", { values = 2, keys = 2, moves = true, pause = 3,
    delay = 6 })
  agrees(", with moves among three keys", { values = 4, keys = 3, moves = true,
    snapshots = true, pause = 3, delay = 9 })
  agrees(", with snapshots of more values", { values = 8, keys = 2,
    snapshots = true, pause = 3, delay = 9 })
end)
