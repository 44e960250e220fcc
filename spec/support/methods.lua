-- SPDX-License-Identifier: MIT
--
-- Every method of every object, and for each
--   use(o, k, v, top)  does with object `o` what the method is for, with the key `k`
--             that nobody else has and the value `v`, and raises if that is not what
--             comes of it, whoever else changes the store. `top` is the transaction in
--             `update`, else the store; methods.path(top) is a path of its own
--   args      of a call that is right
--   key       true: the first of them is a key
--   wrong     calls that are refused: {words of the error, argument, ...}
--   writes    true: it is not for a store that is only read
--   own       true: inside the store's own update it is refused. All that write are
-- All objects are made by methods.make. The store has a map "bank", whose accounts
-- are worth TOTAL at every moment, and groups of records that are put together.

local mmcmap = require "mmcmap"
local helper = require "spec.support.helper"

local methods = {}

local ACCOUNTS, BALANCE = 10, 100
local TOTAL = ACCOUNTS * BALANCE
local GROUP = 20  -- records that are put at once
local NOISE = 200 -- records that another process may have put or deleted meanwhile

local function same(expected, found)
  if found ~= expected then
    error(("%s, not %s"):format(tostring(found), tostring(expected)), 2)
  end
end

-- A value that shows by itself whether it is whole.
function methods.value(n)
  return ("%d "):format(n):rep(n * 37 % 90 * (n % 5 == 0 and 90 or 1) + 1)
end

local function is_whole(value)
  local word = value:match("^%d+ ")
  return word == nil or value == word:rep(#value / #word)
end

-- ---- The bank ---------------------------------------------------------------

function methods.found(db)
  db:update(function(tx)
    local bank = tx:map("bank")
    for i = 1, ACCOUNTS do bank["account " .. i] = BALANCE end
  end)
end

local function worth(top)
  local sum = 0
  for _, value in top:map("bank"):pairs() do sum = sum + tonumber(value) end
  return sum
end

local function transfer(tx, n)
  local bank = tx:map("bank")
  bank:incr("account " .. n % ACCOUNTS + 1, -(n % 7))
  bank:incr("account " .. n * 7 % ACCOUNTS + 1, n % 7)
end

-- What another process does meanwhile, again and again.
function methods.disturb(db, n)
  db:update(function(tx)
    transfer(tx, n)
    transfer(tx, 3 * n + 1)
    tx["noise " .. n % 50] = methods.value(n)
  end)
  db:put("noise " .. n % 40, n)
  db:map("own"):put("noise " .. n % 30, methods.value(n))
  db:delete("noise " .. n % 20)
  if n % 20 == 0 then db:sync() end
  if n % 50 == 1 then db:snapshot("of a disturber") end
  if n % 50 == 40 then db:drop_snapshot("of a disturber") end
  if n % 100 == 0 then db:compact() end
end

local function sound(db, progress)
  local is_sound, message, report = db:check(progress)
  if is_sound then return end
  local words = { tostring(message) }
  for _, fault in ipairs(type(report) == "table" and report or {}) do
    words[#words + 1] = ("%s at %d"):format(fault.rule, fault.offset)
  end
  error(table.concat(words, "; "), 2)
end

-- Raises unless the store is whole.
function methods.check(db)
  sound(db)
  local snapshot = assert(db:snapshot())
  same(TOTAL, worth(snapshot))
  for _, where in ipairs { snapshot, snapshot:map("own") } do
    local groups = {}
    for key, value in where:pairs() do
      if not is_whole(value) then error("not whole: " .. key) end
      local group = key:match("^(.*) of a group ")
      if group then groups[group] = (groups[group] or 0) + 1 end
    end
    for group, size in pairs(groups) do
      if size ~= GROUP then error(("%d of the group %s"):format(size, group)) end
    end
  end
  snapshot:close()
end

-- ---- Records: of a store, a map, a transaction ------------------------------

local NO_VALUE = { { "string expected, got no value", "k" },
  { "string expected, got table", "k", {} } }
local NO_OPTIONS = { { "string expected, got boolean", "k", true },
  { "the only option is 'ttl'", "k", "v", { tll = 5 } },
  { "'ttl' must be more than 0", "k", "v", { ttl = 0 } },
  { "table expected", "k", "v", 5 } }

local function group_of(k, v)
  local group = {}
  for i = 1, GROUP do group[k .. " of a group " .. i] = v end
  return group
end

local function difference(a, b) return math.abs(a - b) <= NOISE end

local records = {
  get = { key = true, args = { "k" }, use = function(o, k, v)
    o[k] = v
    same(v, o:get(k))
    same(v, o[k])
    same("else", o:get(k .. " not", "else"))
  end },
  put = { key = true, writes = true, args = { "k", "v" }, use = function(o, k, v)
    same(true, o:put(k, v))
    same(true, o:put(k, v .. v, { ttl = 100 }))
    same(v .. v, o:get(k))
  end, wrong = NO_OPTIONS },
  delete = { key = true, writes = true, args = { "k" }, use = function(o, k, v)
    o:put(k, v)
    same(true, o:delete(k))
    same(false, o:delete(k))
    same(nil, o:get(k))
  end },
  has = { key = true, args = { "k" }, use = function(o, k, v)
    same(false, o:has(k))
    o:put(k, v)
    same(true, o:has(k))
  end },
  add = { key = true, writes = true, args = { "k", "v" }, use = function(o, k, v)
    same(true, o:add(k, v, { ttl = 100 }))
    same(false, o:add(k, "1"))
    same(v, o:get(k))
  end, wrong = NO_OPTIONS },
  replace = { key = true, writes = true, args = { "k", "v" }, use = function(o, k, v)
    same(false, o:replace(k, "1"))
    o:put(k, "1")
    same(true, o:replace(k, v, { ttl = 100 }))
    same(v, o:get(k))
  end, wrong = NO_OPTIONS },
  cas = { key = true, writes = true, args = { "k", nil, "v", n = 3 }, use = function(o, k, v)
    same(true, o:cas(k, nil, v))
    same(false, o:cas(k, nil, "1"))
    same(true, o:cas(k, v, v .. v))
    same(v .. v, o:get(k))
    same(true, o:cas(k, v .. v, nil))
    same(false, o:has(k))
  end, wrong = { { "string expected, got table", "k", {}, "v" },
    { "string expected, got boolean", "k", "v", false } } },
  swap = { key = true, writes = true, args = { "k", "v" }, use = function(o, k, v)
    same(nil, o:swap(k, "1"))
    same("1", o:swap(k, v))
    same(v, o:swap(k, "2"))
  end, wrong = NO_VALUE },
  incr = { key = true, writes = true, args = { "k" }, use = function(o, k)
    same(17, o:incr(k, 7, 10))
    same(18, o:incr(k))
    same("18", o:get(k))
    same(17.5, o:incr(k, -0.5))
  end, wrong = { { "number expected", "k", {} }, { "number expected", "k", 1, "x" } } },
  get_many = { args = { { "k" } }, use = function(o, k, v)
    o:put_many(group_of(k, v))
    local keys, count = { "nobody" }, 0
    for key in pairs(group_of(k, v)) do keys[#keys + 1] = key end
    for key, value in pairs(o:get_many(keys)) do
      same(v, value)
      same(true, o:has(key))
      count = count + 1
    end
    same(GROUP, count)
  end, wrong = { { "table expected" }, { "table expected", "k" },
    { "bad key #2 (string expected, got boolean)", { "k", true } } } },
  put_many = { writes = true, args = { { k = "v" } }, use = function(o, k, v)
    same(true, o:put_many(group_of(k, v)))
    same(v, o:get(k .. " of a group " .. GROUP))
    same(true, o:put_many(group_of(k, v .. v), { ttl = 100 }))
    same(v .. v, o:get(k .. " of a group 1"))
  end, wrong = { { "table expected" }, { "table expected", "k" },
    { "bad key (string expected, got boolean)", { [true] = "v" } },
    { "bad value (string expected, got table: other", { k = {} } },
    { "the only option is 'ttl'", { k = "v" }, { tll = 5 } } } },
  ttl = { key = true, args = { "k" }, use = function(o, k, v)
    o:put(k, v)
    same(nil, o:ttl(k))
    o:put(k, v, { ttl = 100 })
    same(true, o:ttl(k) > 50 and o:ttl(k) <= 100)
  end },
  expire = { key = true, writes = true, args = { "k", 100 }, use = function(o, k, v)
    same(false, o:expire(k, 100))
    o:put(k, v)
    same(true, o:expire(k, 100))
    same(true, o:ttl(k) > 50)
    same(true, o:expire(k, nil))
    same(nil, o:ttl(k))
    same(v, o:get(k))
  end, wrong = { { "number or nil expected", "k" }, { "seconds must be more than 0", "k", 0 },
    { "seconds must be a number", "k", "soon" } } },
  pairs = { args = {}, use = function(o, k, v, top)
    o:put(k, v)
    local met = 0
    for key, value in o:pairs() do
      if key == k then met = met + 1 same(v, value) end
    end
    same(1, met)
    same(TOTAL, worth(top))
  end },
  keys = { args = {}, use = function(o, k, v)
    o:put(k, v)
    local met = 0
    for key, value in o:keys() do
      same(nil, value)
      if key == k then met = met + 1 end
    end
    same(1, met)
  end },
  count = { args = {}, use = function(o, k, v)
    local before = o:count()
    o:put_many(group_of(k, v))
    same(true, difference(before + GROUP, o:count()))
    if _VERSION ~= "Lua 5.1" then same(true, difference(before + GROUP, #o)) end
  end },
  clear = { writes = true, args = {}, use = function(o, k, v, top)
    o:put(k, v)
    same(true, o:clear())
    same(nil, o:get(k))
    same(true, difference(0, o:count()))
    same(TOTAL, worth(top))
  end },
}

-- ---- Named maps: of a store, a transaction ----------------------------------

local function contains(list, name)
  for _, other in ipairs(list) do
    if other == name then return true end
  end
  return false
end

local NO_MAP_OPTIONS = { { "the only option is 'codec'", "m", { x = 1 } },
  { "table expected", "m", 5 } }

local maps = {
  map = { key = true, args = { "m" }, use = function(o, k, v)
    o:map("map " .. k):put("a", v)
    same(v, o:map("map " .. k).a)
    same(nil, o:map("not " .. k).a)
    same(true, o:drop("map " .. k))
  end, wrong = NO_MAP_OPTIONS },
  maps = { args = {}, use = function(o, k, v)
    same(false, contains(o:maps(), "map " .. k))
    o:map("map " .. k).a = v
    same(true, contains(o:maps(), "map " .. k))
    same(true, contains(o:maps(), "bank"))
    o:drop("map " .. k)
  end },
  drop = { key = true, writes = true, args = { "m" }, use = function(o, k, v)
    local map = o:map("map " .. k)
    map:put_many(group_of(k, v))
    same(true, o:drop("map " .. k))
    same(false, o:drop("map " .. k))
    same(0, map:count())
    same(false, contains(o:maps(), "map " .. k))
  end },
}

-- ---- A store ----------------------------------------------------------------

local paths = 0
function methods.path(top)
  paths = paths + 1
  return ("%s-%d"):format(tostring(top):match("%((.*)%)"), paths)
end

local function no_function(word)
  return { { word, "f" }, { word, {} } }
end

-- Opens the file, calls f with the store, and removes it.
local function with_copy(path, f)
  local copy = assert(mmcmap.open(path))
  f(copy)
  same(true, copy:remove())
end

local stores = {
  size = { args = {}, use = function(db) same(true, db:size() > 0) end },
  sync = { own = true, args = {}, use = function(db, k, v)
    db:put(k, v)
    same(true, db:sync())
    same(true, db:stat().commit_count > 0)
  end },
  step = { own = true, args = { 0 }, use = function(db, k, v)
    db:put(k, v, { ttl = 0.001 })
    same(true, db:step(0.002))
    same(true, db:step(0))
  end, wrong = { { "number expected" }, { "number expected", "soon" },
    { "out of range", -1 } } },
  version = { args = {}, use = function(db, k, v)
    local version = db:version()
    db:put(k, v)
    same(false, db:version() == version)
  end },
  stat = { args = {}, use = function(db)
    local stat = assert(db:stat())
    same(true, stat.count >= 0 and stat.process_count >= 1)
  end },
  readers = { args = {}, use = function(db)
    local snapshot, ours = db:snapshot(), 0
    for _, reader in ipairs(db:readers()) do
      if reader.ours and reader.kind == "snapshot" then ours = ours + 1 end
    end
    same(true, ours >= 1)
    snapshot:close()
  end },
  snapshot = { args = {}, use = function(db, k, v)
    db:put(k, v)
    local snapshot = assert(db:snapshot())
    db:put(k, "1")
    same(v, snapshot:get(k))
    same(TOTAL, worth(snapshot))
    snapshot:close()
    same(true, db:snapshot("of " .. k))
    same(true, db:drop_snapshot("of " .. k))
  end, wrong = { { "string expected, got table", {} } } },
  snapshots = { args = {}, use = function(db, k)
    db:snapshot("of " .. k)
    local met = 0
    for _, saved in ipairs(db:snapshots()) do
      if saved.name == "of " .. k then met = met + 1 end
    end
    same(1, met)
    db:drop_snapshot("of " .. k)
  end },
  open_snapshot = { key = true, args = { "s" }, use = function(db, k, v)
    db:put(k, v)
    db:snapshot("of " .. k)
    db:delete(k)
    local snapshot = assert(db:open_snapshot("of " .. k))
    same(true, db:drop_snapshot("of " .. k))
    same(v, snapshot:get(k))
    same(TOTAL, worth(snapshot))
    snapshot:close()
    same("ENOENT", select(3, db:open_snapshot("of " .. k)))
  end },
  drop_snapshot = { key = true, writes = true, args = { "s" }, use = function(db, k)
    db:snapshot("of " .. k)
    same(true, db:drop_snapshot("of " .. k))
    same(false, db:drop_snapshot("of " .. k))
  end },
  view = { args = { function() end }, use = function(db, k, v)
    db:put(k, v)
    local kept, sum, found = db:view(function(snapshot)
      return snapshot, worth(snapshot), snapshot[k]
    end)
    same(v, found)
    same(TOTAL, sum)
    same(false, (pcall(kept.get, kept, k)))
  end, wrong = no_function("function expected") },
  diff = { args = function(db) return { db:snapshot(), db:snapshot() } end,
    use = function(db, k, v)
      local before = db:snapshot()
      db:put(k, v)
      local after, found, sum = db:snapshot(), nil, 0
      for key, old, new in db:diff(before, after) do
        if key == k then same(nil, old) found = new end
      end
      same(v, found)
      for _, old, new in db:diff(before:map("bank"), after:map("bank")) do
        sum = sum + new - old
      end
      same(0, sum)
      before:close()
      after:close()
    end, wrong = { { "mmcmap.snapshot expected, got no value" },
      { "mmcmap.snapshot expected, got table", {}, {} } } },
  check = { args = {}, use = function(db)
    local last
    sound(db, function(done, total) last = done == total end)
    same(true, last)
  end, wrong = no_function("function expected") },
  backup = { args = function(db) return { methods.path(db) } end,
    use = function(db, k, v)
      local path = methods.path(db)
      db:put(k, v)
      same(true, db:backup(path))
      with_copy(path, function(copy)
        same(v, copy:get(k))
        same(TOTAL, worth(copy))
      end)
    end, wrong = { { "string expected" }, { "path is empty", "" },
      { "function expected", "x", 5 } } },
  compact = { writes = true, args = {}, use = function(db, k, v)
    db:put_many(group_of(k, v))
    same(true, db:compact())
    same(v, db:get(k .. " of a group 1"))
  end, wrong = no_function("function expected") },
  update = { writes = true, args = { function() end }, use = function(db, k, v)
    same(v, db:update(function(tx)
      transfer(tx, #v)
      tx:put_many(group_of(k, v))
      same(TOTAL, worth(tx))
      return tx[k .. " of a group 1"]
    end))
    same(false, (pcall(db.update, db, function(tx)
      tx:put(k, v)
      tx:map("bank"):clear()
      error("no more")
    end)))
    same(nil, db:get(k))
  end, wrong = no_function("function expected") },
  close = { own = true, args = {}, use = function(db, k, v)
    local other = assert(mmcmap.open((tostring(db):match("%((.*)%)"))))
    other:put(k, v)
    same(true, other:close())
    same(true, other:close())
    same(v, db:get(k))
  end },
  remove = { own = true, args = {}, use = function(db, k, v)
    local path = methods.path(db)
    local other = assert(mmcmap.open(path))
    other:put(k, v)
    same(true, other:remove())
    same(false, helper.exists(path))
    same("ENOENT", select(3, mmcmap.open(path, { create = false })))
  end },
}

-- ---- What reads at one moment, and loops ------------------------------------

local snapshots = {
  get = { key = true, args = { "k" }, use = function(o, k)
    same(nil, o:get(k))
    same("else", o:get(k, "else"))
    same(o:map("bank"):get("account 1"), o:map("bank"):get("account 1"))
  end },
  has = { key = true, args = { "k" }, use = function(o, k)
    same(false, o:has(k))
    same(true, o:map("bank"):has("account 1"))
  end },
  ttl = { key = true, args = { "k" }, use = function(o, k)
    same(nil, o:ttl(k))
    same(nil, o:map("bank"):ttl("account 1"))
  end },
  get_many = { args = { { "k" } }, use = function(o)
    local keys, sum = {}, 0
    for i = 1, ACCOUNTS do keys[i] = "account " .. i end
    for _, value in pairs(o:map("bank"):get_many(keys)) do sum = sum + value end
    same(TOTAL, sum)
  end, wrong = { { "table expected" }, { "table expected", "k" } } },
  pairs = { args = {}, use = function(o) same(TOTAL, worth(o)) end },
  keys = { args = {}, use = function(o)
    local met = 0
    for _ in o:map("bank"):keys() do met = met + 1 end
    same(ACCOUNTS, met)
  end },
  count = { args = {}, use = function(o)
    local met = 0
    for _ in o:keys() do met = met + 1 end
    same(true, o:count() >= met)
    same(ACCOUNTS, o:map("bank"):count())
  end },
  version = { args = {}, use = function(o, k, v, top)
    local version = o:version()
    top:put(k, v)
    same(version, o:version())
    same(false, top:version() == version)
  end },
  map = { key = true, args = { "m" }, use = function(o, k)
    same(TOTAL, worth(o))
    same(0, #o:map(k))
  end, wrong = NO_MAP_OPTIONS },
  maps = { args = {}, use = function(o) same(true, contains(o:maps(), "bank")) end },
  close = { args = {}, use = function(o, k)
    local map = o:map("bank")
    o:close()
    o:close()
    same(false, (pcall(map.get, map, k)))
    same("mmcmap.snapshot (closed)", tostring(o))
  end },
}

local function close_a_loop(o)
  o:close()
  o:close()
  same(true, tostring(o):find("closed", 1, true) ~= nil)
end

local iterators = {
  next = { args = {}, use = function(o)
    local seen = {}
    for key in o.next, o do
      same(nil, seen[key])
      seen[key] = true
    end
    same(nil, o:next())
  end },
  close = { args = {}, use = function(o)
    o:next()
    close_a_loop(o)
    same(false, (pcall(o.next, o)))
  end },
}

local diffs = { close = { args = {}, use = close_a_loop } }

local module = {
  open = { args = function(db) return { (tostring(db):match("%((.*)%)")) } end,
    use = function(_, k, v, top)
      local path = tostring(top):match("%((.*)%)")
      top:put(k, v)
      local other = assert(mmcmap.open(path, { create = false }))
      same(v, other:get(k))
      other:close()
      same("EEXIST", select(3, mmcmap.open(path, { exclusive = true })))
    end, wrong = { { "string expected" }, { "path is empty", "" },
      { "unknown option 'x'", "p", { x = 1 } }, { "table expected", "p", 5 } } },
  dump = { args = function(db) return { db } end, use = function(_, k, v, top)
    top:put(k, v)
    same(true, assert(mmcmap.dump(top)):find('"' .. k .. '"', 1, true) ~= nil)
  end, wrong = { { "mmcmap expected" }, { "mmcmap expected, got table", {} } } },
  salvage = { args = { "nothing", "nowhere" }, use = function(_, k, v, top)
    local path, rescued = methods.path(top), methods.path(top)
    top:put(k, v)
    assert(top:backup(path))
    same(true, assert(mmcmap.salvage(path, rescued)) > ACCOUNTS)
    with_copy(rescued, function(copy)
      same(v, copy:get(k))
      same(TOTAL, worth(copy))
    end)
    os.remove(path)
  end, wrong = { { "string expected" }, { "path is empty", "", "x" } } },
  murmur3 = { args = { "x" }, use = function(_, k)
    same(mmcmap.murmur3(k, 7), mmcmap.murmur3(k, 7))
    same(613153351, mmcmap.murmur3("hello"))
  end, wrong = { { "string expected" }, { "integer from 0", "x", -1 } } },
}

-- ---- Objects ----------------------------------------------------------------

local function all_of(...)
  local all = {}
  for _, some in ipairs { ... } do
    for name, method in pairs(some) do all[name] = method end
  end
  return all
end

-- By the name of their type.
methods.of = {
  ["mmcmap"] = all_of(records, maps, stores),
  ["mmcmap.map"] = records,
  ["mmcmap.transaction"] = all_of(records, maps),
  ["mmcmap.snapshot"] = snapshots,
  ["mmcmap.iterator"] = iterators,
  ["mmcmap.diff"] = diffs,
  ["the module"] = module,
}

local makers = {
  ["mmcmap"] = function(db) return db end,
  ["mmcmap.map"] = function(db) return db:map("own") end,
  ["mmcmap.snapshot"] = function(db) return db:snapshot() end,
  ["mmcmap.iterator"] = function(db) return (select(2, db:pairs())) end,
  ["mmcmap.diff"] = function(db)
    local a = db:snapshot()
    return (select(2, db:diff(a, a)))
  end,
  ["the module"] = function() return mmcmap end,
}

-- Calls f(object of that type, store or transaction).
function methods.with(kind, db, f)
  if kind == "mmcmap.transaction" then
    return db:update(function(tx) f(tx, tx) end)
  end
  return f(assert(makers[kind](db)), db)
end

-- A method of the object.
function methods.get(object, name)
  if type(object) == "table" then return object[name] end
  local index = getmetatable(object).__index
  if type(index) == "table" then return index[name] end
  return index(object, name)
end

-- All of them, by name; nil in Lua 5.1, which does not tell.
function methods.list(object)
  if type(object) == "table" then return object end
  local index = getmetatable(object).__index
  if type(index) == "table" then return index end
  return (select(2, debug.getupvalue(index, 2)))
end

-- Uses a method for the n-th time; `me` tells processes apart.
function methods.use(db, kind, name, n, me)
  methods.with(kind, db, function(o, top)
    methods.of[kind][name].use(o, ("%s, %s of %s, %d"):format(me, name, kind, n),
      methods.value(n), top)
  end)
end

return methods
