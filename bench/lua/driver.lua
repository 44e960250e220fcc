-- SPDX-License-Identifier: MIT
--
-- mmcmap from Lua, beside a plain table and what other bindings there are: the
-- same keys, values and clock, in turns, medians, every value checked.
--
--   lua5.4 bench/lua/driver.lua [--records=N] [--rounds=N] [--passes=N]
--                               [--folder=FOLDER] [--out=FOLDER] [--engines=A,B]
--
-- What only reads is done so many times over (passes), to measure few records that
-- are in the caches.
-- LUA_PATH must lead to this folder, and LUA_PATH and LUA_CPATH to mmcmap. The
-- columns of what it writes are those of the C driver.

local engines = require "engines"

local options = { records = 100000, rounds = 5, passes = 1, folder = ".", engines = "" }
for _, word in ipairs(arg) do
  local name, value = word:match("^%-%-(%w+)=(.*)$")
  if not name then
    io.stderr:write("lua driver: what is this: ", word, "\n")
    os.exit(2)
  end
  options[name] = tonumber(value) or value
end

-- By the wall clock, where a module has one: the processor's time counts what
-- other threads do as well.
local clock, clock_name = os.clock, "processor"
local has_luv, luv = pcall(require, "luv")
if has_luv then
  clock = function() return luv.hrtime() * 1e-9 end
  clock_name = "wall"
end

local runtime = jit and "LuaJIT" or _VERSION -- luacheck: ignore 113

-- ---- Records ----------------------------------------------------------------

local state = 88172645

local function random(limit)
  state = state * 16807 % 2147483647
  return state % limit
end

local function letters(size)
  local bytes = {}
  for i = 1, size do bytes[i] = string.char(97 + random(26)) end
  return table.concat(bytes)
end

-- keys[i] has values[i]; they are in another order than they are put in.
local function make_records(count)
  local keys, values, order, missing = {}, {}, {}, {}
  for i = 1, count do
    keys[i], order[i] = letters(32), i
    values[i] = letters(32)
    missing[i] = letters(5) .. "#" .. letters(26)
  end
  for i = count, 2, -1 do
    local j = random(i) + 1
    order[i], order[j] = order[j], order[i]
  end
  local shuffled = { keys = {}, values = {} }
  for i = 1, count do
    shuffled.keys[i], shuffled.values[i] = keys[order[i]], values[order[i]]
  end
  return { count = count, keys = keys, values = values, shuffled = shuffled,
    missing = missing }
end

-- ---- Workloads --------------------------------------------------------------
-- An engine gives the loops, so that each is as its user would write it.

local READING = { get = true, index = true, miss = true, pairs = true }

local results = {}
local order = {}

local function report(engine, workload, round, ns, operations)
  local id = engine .. "," .. workload
  if not results[id] then
    results[id] = { engine = engine, workload = workload, rounds = {} }
    order[#order + 1] = results[id]
  end
  table.insert(results[id].rounds, { round = round, ns = ns,
    operations = operations })
end

local function run(engine, records, round)
  local path = ("%s/lua-%s.store"):format(options.folder, engine.name)
  local store = engine.open(path)
  for _, step in ipairs(engine.steps) do
    collectgarbage()
    collectgarbage()
    local passes = READING[step.name] and options.passes or 1
    local operations, good = passes * records.count, 0
    local begin = clock()
    for _ = 1, passes do good = good + step.loop(store, records) end
    local ns = (clock() - begin) / operations * 1e9
    if good ~= operations then
      error(("%s: %s: WRONG: %s of %d"):format(engine.name, step.name,
        tostring(good), operations), 0)
    end
    report(engine.name, step.name, round, ns, operations)
  end
  engine.close(store, path)
end

-- ---- Results ----------------------------------------------------------------

local function median(rounds)
  local values = {}
  for i, round in ipairs(rounds) do values[i] = round.ns end
  table.sort(values)
  local middle = (#values + 1) / 2
  return (values[math.floor(middle)] + values[math.ceil(middle)]) / 2,
    values[1], values[#values]
end

local function ratio_of(result)
  local ours = results["mmcmap," .. result.workload]
  return ours and median(result.rounds) / median(ours.rounds)
end

local function print_table()
  print(("\n%s, %s clock: %d records, keys and values of 32 bytes, medians of "
    .. "%d rounds"):format(runtime, clock_name, options.records,
    options.rounds))
  for _, result in ipairs(order) do
    local ratio = ratio_of(result)
    print(("%-12s %-12s %9.1f ns%s"):format(result.workload, result.engine,
      (median(result.rounds)),
      ratio and ("   x%.2f"):format(ratio) or ""))
  end
end

local function append(name, header)
  local file = assert(io.open(options.out .. "/" .. name, "a"))
  if file:seek("end") == 0 then file:write(header, "\n") end
  return file
end

local function write_csv()
  local suite = runtime:gsub(" ", "-"):lower()
  local shape = ("%d,32,32"):format(options.records)
  local raw = append("results.csv", "suite,engine,workload,threads,records,"
    .. "key_bytes,value_bytes,round,unit,value,operations")
  local summary = append("summary.csv", "suite,engine,workload,threads,records,"
    .. "key_bytes,value_bytes,rounds,unit,median,least,most,ratio")
  for _, result in ipairs(order) do
    local head = table.concat({ suite, result.engine, result.workload, "1",
      shape }, ",")
    for _, round in ipairs(result.rounds) do
      raw:write(("%s,%d,ns,%.4f,%d\n"):format(head, round.round, round.ns,
        round.operations))
    end
    local ratio = ratio_of(result)
    summary:write(("%s,%d,ns,%.4f,%.4f,%.4f,%s\n"):format(head,
      #result.rounds, (median(result.rounds)),
      select(2, median(result.rounds)), select(3, median(result.rounds)),
      ratio and ("%.3f"):format(ratio) or ""))
  end
  assert(raw:close())
  assert(summary:close())
end

-- ---- All of it --------------------------------------------------------------

local records = make_records(options.records)
for round = 1, options.rounds do
  for _, engine in ipairs(engines) do
    local asked = ("," .. options.engines .. ","):find("," .. engine.name
      .. ",", 1, true)
    if asked or options.engines == "" and not engine.hidden then
      run(engine, records, round)
    end
  end
end
print_table()
if options.out then write_csv() end
