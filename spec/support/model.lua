-- SPDX-License-Identifier: MIT
--
-- A store beside plain tables: a run makes changes of chance in both, and
-- compares what both answer. What is to be compared more is one more function in
--   changes    what changes one key, and what it should answer
--   looks      what reads, and changes nothing
--   acts       what is done now and then
--
-- A world is what a store should hold: {[name] = map}, the default map under
-- model.DEFAULT; a map is {records = {key = value}, count =, exists =}. A run is
-- always at one map, `here`; `db` is the handle of that map, of the store or of
-- a transaction, and `map` what it should hold.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"
local open = probe.store.open

local model = { DEFAULT = 0 }
local DEFAULT = model.DEFAULT

-- ---- Worlds -----------------------------------------------------------------

local function new_map() return { records = {}, count = 0, exists = false } end

local function copy_map(map)
  local records = {}
  for key, value in pairs(map.records) do records[key] = value end
  return { records = records, count = map.count, exists = map.exists }
end

local function copy_world(world)
  local copy = {}
  for name, map in pairs(world) do copy[name] = copy_map(map) end
  return copy
end

local function fail(format, ...) error(format:format(...), 0) end

local function compare_map(view, map, what)
  local records, met = assert(view:records())
  if met ~= map.count or view:count() ~= map.count then
    fail("%s: %d records met, %d counted, %d expected", what, met, view:count(),
      map.count)
  end
  for key, value in pairs(map.records) do
    if records[key] ~= value then fail("%s: the record of %q", what, key) end
  end
end

-- `view`: a store, a snapshot or a transaction.
local function compare(view, world, what)
  compare_map(view, world[DEFAULT], what)
  local names, met = assert(view:maps())
  for name, map in pairs(world) do
    if name ~= DEFAULT then
      if (names[name] ~= nil) ~= map.exists then
        fail("%s: whether there is a map %q", what, name)
      end
      met = met - (map.exists and 1 or 0)
      local other = assert(view:map(name))
      compare_map(other, map, ("%s, map %q"):format(what, name))
      if other.close then other:close() end
    end
  end
  assert(met == 0, "maps that nobody made")
end

-- ---- Numbers as text --------------------------------------------------------

-- Of an integer below 2^53, as the probe takes it.
local function signed_hex(number)
  local high = math.floor(number / 4294967296)
  return ("%08x%08x"):format(high % 4294967296, number - high * 4294967296)
end

-- The number, and whether it is a float; nil if the text is none.
local function number_of(text)
  if #text > 400 or not text:find("^[-+]?[%d.]+[eE]?[-+]?%d*$") then return end
  if text:find("^[-+]?%d+$") then return tonumber((text:gsub("^%+", ""))), false end
  return tonumber((text:gsub("^%+", ""))), true
end

local function float_text(number)
  local text
  for digits = 15, 17 do
    text = ("%." .. digits .. "g"):format(number)
    if tonumber(text) == number then break end
  end
  return text:find("[.e]") and text or text .. ".0"
end

-- ---- A run ------------------------------------------------------------------

local Run = {}
Run.__index = Run

-- `case`: {name =, key = function(random), value = function(random), maps = {name,
-- ...}, deletes = of 100 changes, rarity = of so many operations one is an act,
-- options = of open()}.
function model.new(case, seed)
  local run = setmetatable({ case = case, random = binary.random(seed),
    path = scratch.path("model"), steps = 0, versions = {}, held = {},
    world = { [DEFAULT] = new_map() } }, Run)
  for _, name in ipairs(case.maps) do run.world[name] = new_map() end
  run:open()
  return run
end

function Run:open()
  self.owner = assert(open(self.path, self.case.options))
  self.handles = { [DEFAULT] = self.owner }
  self:go_to(DEFAULT)
end

function Run:close()
  self:let_go()
  for name, handle in pairs(self.handles) do
    if name ~= DEFAULT then assert(handle:close()) end
  end
  assert(self.owner:close())
end

function Run:go_to(name)
  if not self.handles[name] then
    self.handles[name] = assert(self.owner:map(name))
  end
  self.here, self.map, self.db = name, self.world[name], self.handles[name]
end

-- The world is another one: of before a savepoint, a transaction.
function Run:be_in(world)
  self.world = world
  self.map = world[self.here]
end

function Run:compare(what) compare(self.owner, self.world, what) end

-- ---- Changes ----------------------------------------------------------------

-- What the store would do with a key whose value is `old` (nil: absent), and
-- what it does: the answer expected, the answer, and, if something was written,
-- true and the value after it.
local changes = {}

function changes.put(run, key)
  local value = run.case.value(run.random)
  return true, run.db:put(key, value), true, value
end

function changes.delete(run, key, old)
  return old ~= nil, run.db:delete(key), old ~= nil, nil
end

function changes.add(run, key, old)
  local value = run.case.value(run.random)
  return old == nil or "MISMATCH", run.db:add(key, value), old == nil, value
end

function changes.replace(run, key, old)
  local value = run.case.value(run.random)
  return old ~= nil or "NOTFOUND", run.db:replace(key, value), old ~= nil, value
end

function changes.cas(run, key, old)
  local random, expected, value = run.random, old, nil
  if random(4) == 1 then expected = run.case.value(random) end
  if random(4) == 1 then expected = nil end
  if random(100) > run.case.deletes then value = run.case.value(random) end
  local matches = expected == old
  return matches or "MISMATCH", run.db:cas(key, expected, value),
    matches and (old or value) ~= nil, value
end

function changes.swap(run, key, old)
  local value = run.case.value(run.random)
  local found, was_there = run.db:swap(key, value)
  assert(was_there == (old ~= nil), "whether swap found something")
  return old, found, true, value
end

function changes.incr(run, key, old)
  local by, by_float = run.random(2000) - 1000, run.random(4) == 1
  if by_float then by = by / 8 end -- without rounding
  local sum, code = run.db:incr(key, by_float and by or signed_hex(by),
    signed_hex(7))
  local number, is_float = number_of(old or "7")
  if not number then return "ENUMBER", sum or code, false end
  number = number + by
  if is_float or by_float then return number, sum, true, float_text(number) end
  return signed_hex(number), sum, true, ("%d"):format(number)
end

local conditional = { "add", "replace", "cas", "cas", "swap", "incr" }

-- A key's value in the model is `value` from now on; nil: it is absent.
function Run:note(key, value)
  local map = self.map
  map.count = map.count + (value and 1 or 0) - (map.records[key] and 1 or 0)
  map.records[key] = value
  map.exists = true
  self.has_changed = true
end

-- A lost change is made in the store alone; its key may be one of the model's.
-- The key that may have been changed.
function Run:change(lost)
  local random, name = self.random, "put"
  local key = self.case.key(random)
  if random(100) <= self.case.deletes then name = "delete" end
  if random(4) == 1 then name = conditional[random(#conditional)] end
  local old = self.map.records[key]
  if lost then old = self.db:get(key) end
  local expected, answer, is_written, value = changes[name](self, key, old)
  if answer ~= expected then
    fail("%s of %q: %s, not %s", name, key, tostring(answer), tostring(expected))
  end
  if is_written and not lost then self:note(key, value) end
  return key
end

-- ---- Looks ------------------------------------------------------------------

local looks = {}

function looks.get(run)
  local key = run.case.key(run.random)
  assert(run.db:get(key) == run.map.records[key], "what get says")
end

function looks.has(run)
  local key = run.case.key(run.random)
  assert(run.db:has(key) == (run.map.records[key] ~= nil), "what has says")
end

function looks.get_many(run)
  if not run.db.get_many then return end -- a transaction
  local keys = {}
  for i = 1, run.random(40) do keys[i] = run.case.key(run.random) end
  local values = assert(run.db:get_many(keys))
  for i, key in ipairs(keys) do
    assert(values[i] == run.map.records[key], "what get_many says")
  end
end

function Run:look()
  local choice = self.random(32)
  looks[choice == 1 and "get_many" or choice <= 4 and "has" or "get"](self)
end

-- ---- Acts of any map, in a transaction too ----------------------------------

local function clear(run)
  assert(run.db:clear())
  if run.map.count > 0 then run.has_changed = true end
  run.map.records, run.map.count = {}, 0
end

local function put_many(run)
  local list, keys, values = {}, {}, {}
  for i = 1, run.random(30) do
    keys[i], values[i] = run.case.key(run.random), run.case.value(run.random)
    list[2 * i - 1], list[2 * i] = keys[i], values[i]
  end
  assert(run.db:put_many(list))
  for i, key in ipairs(keys) do run:note(key, values[i]) end
end

local function any_map(run)
  local maps = run.case.maps
  return maps[run.random(#maps + 1)] or DEFAULT
end

local function another_map(run) run:go_to(any_map(run)) end

local function drop(run)
  local name = any_map(run)
  if name == DEFAULT then return end
  local map = run.world[name]
  assert(run.owner:drop(name) == map.exists, "whether there was one to drop")
  run.has_changed = run.has_changed or map.exists
  map.records, map.count, map.exists = {}, 0, false
end

-- ---- Acts -------------------------------------------------------------------

local acts = {}

function acts.another_map(run) another_map(run) end
function acts.put_many(run) put_many(run) end
function acts.sync(run) assert(run.owner:sync()) end
function acts.compare(run) run:compare("the store") end
function acts.check(run) assert(#assert(run.owner:check()) == 0, "what check says") end

function acts.clear(run)
  if run.random(4) == 1 then clear(run) end
end

function acts.drop(run)
  if run.random(4) == 1 then drop(run) end
end

-- Equal versions, equal content: a change makes another, nothing else does.
function acts.version(run)
  local version = assert(run.owner:version())
  assert(version == run.owner:version())
  if run.has_changed then
    assert(not run.versions[version], "a version came again")
  elseif run.last_version then
    assert(version == run.last_version, "a version changed")
  end
  run.versions[version] = true
  run.last_version, run.has_changed = version, false
end

-- Changes in a transaction, which may go back to a savepoint, and is aborted now
-- and then. It is compared with the store that it leaves alone.
function acts.transaction(run)
  local random, store, handles, here = run.random, run.owner, run.handles, run.here
  local world, had_changed = run.world, run.has_changed
  local version = store:version()
  run.owner = assert(store:begin())
  run.handles = { [DEFAULT] = run.owner }
  run:be_in(copy_world(world))
  run:go_to(here)
  local function work(steps)
    for _ = 1, steps do
      local choice = random(60)
      if choice == 1 then another_map(run)
      elseif choice == 2 then put_many(run)
      elseif choice == 3 then acts.clear(run)
      elseif choice == 4 then acts.drop(run)
      elseif choice <= 10 then run:look()
      else run:change() end
    end
  end
  for _ = 1, random(3) do
    work(random(60))
    local saved = copy_world(run.world)
    local savepoint = assert(run.owner:savepoint())
    work(random(40))
    local choice = random(4)
    if choice <= 2 then
      assert(run.owner:rollback_to(savepoint))
      run:be_in(saved)
    elseif choice == 3 then
      assert(run.owner:release(savepoint))
    end
  end
  run:compare("a transaction")
  assert(store:count() == world[DEFAULT].count, "what others count")
  local is_aborted = random(3) == 1
  if is_aborted then run.owner:abort() else assert(run.owner:commit()) end
  run.owner, run.handles = store, handles
  if is_aborted then run:be_in(world) end
  run:go_to(run.here)
  if store:version() ~= version then
    assert(not is_aborted, "the version after an abort")
    return
  end
  run.has_changed = had_changed
  compare(store, world, "the same version")
end

-- ---- Snapshots --------------------------------------------------------------

-- Opened now, and compared later with a copy that it is known to equal.
function acts.snapshot(run)
  local held = run.held
  if #held == 3 then run:let_go(run.random(3)) end
  held[#held + 1] = { snapshot = assert(run.owner:snapshot()),
    world = copy_world(run.world), version = run.owner:version() }
end

-- Compares the snapshot with its copy, and closes it; all of them without `index`.
function Run:let_go(index)
  for i = index or #self.held, index or 1, -1 do
    local held = table.remove(self.held, i)
    assert(held.snapshot:version() == held.version, "a snapshot's version")
    compare(held.snapshot, held.world, "a snapshot")
    for key, value in pairs(held.world[DEFAULT].records) do
      if held.snapshot:get(key) ~= value then fail("a snapshot's get of %q", key) end
    end
    held.snapshot:close()
  end
end

function acts.let_go(run)
  if #run.held > 0 then run:let_go(run.random(#run.held)) end
end

local function compare_diff(from, to, old, new, what)
  local differences, met = assert(from:diff(to))
  for key, value in pairs(old.records) do
    local now, found = new.records[key], differences[key]
    if now == value then
      if found then fail("%s: %q is no difference", what, key) end
    else
      if not found or found.old ~= value or found.new ~= now then
        fail("%s: the difference of %q", what, key)
      end
      met = met - 1
    end
  end
  for key, value in pairs(new.records) do
    if old.records[key] == nil then
      local found = differences[key]
      if not found or found.old ~= nil or found.new ~= value then
        fail("%s: the difference of %q, which is new", what, key)
      end
      met = met - 1
    end
  end
  assert(met == 0, "differences that are none, or come twice")
end

-- Of a snapshot that is held and the present, either way, map by map.
function acts.diff(run)
  local held = run.held[run.random(3)]
  if not held then return end
  local now = { snapshot = assert(run.owner:snapshot()), world = run.world }
  local from, to = held, now
  if run.random(2) == 1 then from, to = now, held end
  compare_diff(from.snapshot, to.snapshot, from.world[DEFAULT], to.world[DEFAULT],
    "diff")
  for _, name in ipairs(run.case.maps) do
    local before, after = assert(from.snapshot:map(name)), assert(to.snapshot:map(name))
    compare_diff(before, after, from.world[name], to.world[name],
      ("diff of map %q"):format(name))
    before:close()
    after:close()
  end
  now.snapshot:close()
end

-- Page after page, each of a snapshot of its own, with changes in between: what
-- is there all the time comes once, and nothing comes twice.
function acts.page(run)
  local before, touched, seen, token = copy_map(run.map), {}, {}, ""
  local length = math.floor(before.count / (1 + run.random(5))) + 1
  repeat
    local snapshot = assert(run.db:snapshot())
    local keys, next_token = assert(snapshot:page(token, length))
    snapshot:close()
    for _, key in ipairs(keys) do
      if seen[key] then fail("a cursor gave %q twice", key) end
      if before.records[key] == nil and not touched[key] then
        fail("a cursor gave %q, which is not there", key)
      end
      seen[key] = true
    end
    token = next_token
    for _ = 1, run.random(10) do touched[run:change()] = true end
  until #keys == 0
  for key in pairs(before.records) do
    if not seen[key] and not touched[key] then fail("no cursor gave %q", key) end
  end
end

-- ---- Copies, closing, crashes -----------------------------------------------

function acts.backup(run)
  local path = scratch.path("backup")
  assert(run.owner:backup(path))
  local copy = assert(open(path, run.case.options))
  compare(copy, run.world, "a backup")
  assert(#assert(copy:check()) == 0, "what check says of a backup")
  assert(copy:put("a key", "another"))
  assert(copy:remove())
end

function acts.reopen(run)
  local version = run.owner:version()
  run:close()
  run:open()
  assert(run.owner:version() == version, "the version after reopening")
  run:compare("the store, opened again")
end

-- Leaves the store as a crash would, and goes on with that.
function acts.crash(run)
  if run.case.options.durability == "async" then return end
  assert(run.owner:sync())
  local bytes = assert(scratch.read(run.path))
  for _ = 1, run.random(30) do run:change(true) end
  run:close()
  run.path = scratch.write(scratch.path("model"), bytes)
  run:open()
  run:compare("the store after a crash")
  run.last_version = nil
end

-- Each as often as its number.
local weights = { another_map = 4, put_many = 2, transaction = 3, clear = 1,
  drop = 2, sync = 3, compare = 1, check = 1, version = 2, snapshot = 3,
  let_go = 2, diff = 2, page = 1, backup = 1, reopen = 1, crash = 1 }

local drawn = {}
for name, weight in pairs(weights) do
  assert(acts[name], name)
  for _ = 1, weight do drawn[#drawn + 1] = name end
end
for name in pairs(acts) do assert(weights[name], name) end
table.sort(drawn) -- pairs() has no order, and a seed shall repeat a run

-- ---- All of it --------------------------------------------------------------

function Run:go(operations)
  local random, rarity = self.random, self.case.rarity
  for _ = 1, operations do
    self.steps = self.steps + 1
    if random(rarity) == 1 then
      acts[drawn[random(#drawn)]](self)
    elseif random(2) == 1 then
      self:change()
    else
      self:look()
    end
  end
  self:let_go()
  self:compare("the store")
  self:close()
  self:open()
  self:compare("the store, opened again")
  self:close()
end

return model
