-- SPDX-License-Identifier: MIT
--
-- A store beside plain tables: a run makes changes of chance in both, and
-- compares what both answer. What is to be compared more is one more function in
--   changes    what changes one key, and what it should answer
--   looks      what reads, and changes nothing
--   acts       what is done now and then
--
-- A world is what a store should hold: {[name] = map}, the default map under
-- model.DEFAULT; a map is {records = {key = value}, count =, exists =}, and of
-- what expires: {ends = {key = time}, now = the time that it is seen at, expired =
-- how many may not be swept yet}. A run is
-- always at one map, `here`; `db` is the handle of that map, of the store or of
-- a transaction, and `map` what it should hold.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"
local open = probe.store.open

local model = { DEFAULT = 0 }
local DEFAULT = model.DEFAULT

-- ---- Worlds -----------------------------------------------------------------

local clock = 1700000000000

local function new_map()
  return { records = {}, count = 0, exists = false, ends = {}, expired = 0,
    now = clock }
end

local function copy_map(map)
  local copy = { records = {}, ends = {} }
  for key, value in pairs(map.records) do copy.records[key] = value end
  for key, time in pairs(map.ends) do copy.ends[key] = time end
  for _, name in ipairs { "count", "exists", "expired", "now" } do
    copy[name] = map[name]
  end
  return copy
end

local function copy_world(world)
  local copy = {}
  for name, map in pairs(world) do copy[name] = copy_map(map) end
  return copy
end

local function fail(format, ...) error(format:format(...), 0) end

local function check_ttl(view, map, key, what)
  local left = map.ends[key] and map.ends[key] - map.now or 0
  if view:ttl(key) ~= left then fail("%s: when %q expires", what, key) end
end

-- What has expired may be counted, or be swept already.
local function is_count(counted, map)
  return counted >= map.count and counted <= map.count + map.expired
end

local function compare_map(view, map, what)
  local records, met = assert(view:records())
  if met ~= map.count or not is_count(view:count(), map) then
    fail("%s: %d records met, %d counted, %d expected", what, met, view:count(),
      map.count)
  end
  for key, value in pairs(map.records) do
    if records[key] ~= value then fail("%s: the record of %q", what, key) end
  end
  for key in pairs(map.ends) do check_ttl(view, map, key, what) end
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
-- options = of open(), [ttls = true: some of it expires]}.
function model.new(case, seed)
  local run = setmetatable({ case = case, random = binary.random(seed),
    path = scratch.path("model"), steps = 0, versions = {}, held = {}, saved = {},
    world = { [DEFAULT] = new_map() } }, Run)
  for _, name in ipairs(case.maps) do run.world[name] = new_map() end
  if case.ttls then run:pass(0) end
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

-- Time passes, and is over for some of what is in the world.
function Run:pass(ms)
  clock = clock + ms
  probe.os.wall_ms(clock)
  for _, map in pairs(self.world) do
    map.now = clock
    for key, time in pairs(map.ends) do
      if time <= clock then
        map.ends[key], map.records[key] = nil, nil
        map.count, map.expired = map.count - 1, map.expired + 1
      end
    end
  end
end

function Run:draw_ttl()
  if self.case.ttls and self.random(3) == 1 then return self.random(2000) end
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
-- true, the value after it, and in how many milliseconds that expires.
local changes = {}

function changes.put(run, key)
  local value, ttl = run.case.value(run.random), run:draw_ttl()
  return true, run.db:put(key, value, ttl), true, value, ttl
end

function changes.expire(run, key, old)
  local ttl = run:draw_ttl()
  return old ~= nil, run.db:expire(key, ttl or 0), old ~= nil, old, ttl
end

function changes.delete(run, key, old)
  return old ~= nil, run.db:delete(key), old ~= nil, nil
end

function changes.add(run, key, old)
  local value, ttl = run.case.value(run.random), run:draw_ttl()
  return old == nil or "MISMATCH", run.db:add(key, value, ttl), old == nil,
    value, ttl
end

function changes.replace(run, key, old)
  local value, ttl = run.case.value(run.random), run:draw_ttl()
  return old ~= nil or "NOTFOUND", run.db:replace(key, value, ttl), old ~= nil,
    value, ttl
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
  local left = run.map.ends[key] and run.map.ends[key] - run.map.now
  if is_float or by_float then
    return number, sum, true, float_text(number), left
  end
  return signed_hex(number), sum, true, ("%d"):format(number), left
end

local conditional = { "add", "replace", "cas", "cas", "swap", "incr" }

-- A key's value in the model is `value` from now on; nil: it is absent.
function Run:note(key, value, ttl)
  local map = self.map
  map.ends[key] = ttl and map.now + ttl
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
  if self.case.ttls and random(10) == 1 then name = "expire" end
  local old = self.map.records[key]
  if lost then old = self.db:get(key) end
  local expected, answer, is_written, value, ttl = changes[name](self, key, old)
  if answer ~= expected then
    fail("%s of %q: %s, not %s", name, key, tostring(answer), tostring(expected))
  end
  if is_written and not lost then self:note(key, value, ttl) end
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
  local keys = {}
  for i = 1, run.random(40) do keys[i] = run.case.key(run.random) end
  local values = assert(run.db:get_many(keys))
  for i, key in ipairs(keys) do
    assert(values[i] == run.map.records[key], "what get_many says")
  end
end

function looks.ttl(run)
  local key = run.case.key(run.random)
  if run.map.records[key] == nil then
    assert(run.db:ttl(key) == nil, "what ttl says of nothing")
  else
    check_ttl(run.db, run.map, key, "what ttl says")
  end
end

function Run:look()
  if self.case.ttls and self.random(8) == 1 then return looks.ttl(self) end
  local choice = self.random(32)
  looks[choice == 1 and "get_many" or choice <= 4 and "has" or "get"](self)
end

-- ---- Acts of any map, in a transaction too ----------------------------------

local function clear(run)
  assert(run.db:clear())
  if run.map.count > 0 then run.has_changed = true end
  if run.map.expired > 0 then run.may_have_changed = true end
  run.map.records, run.map.count = {}, 0
  run.map.ends, run.map.expired = {}, 0
end

local function put_many(run)
  local list, keys, values = {}, {}, {}
  for i = 1, run.random(30) do
    keys[i], values[i] = run.case.key(run.random), run.case.value(run.random)
    list[2 * i - 1], list[2 * i] = keys[i], values[i]
  end
  local ttl = run:draw_ttl()
  assert(run.db:put_many(list, ttl))
  for i, key in ipairs(keys) do run:note(key, values[i], ttl) end
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
  map.ends, map.expired = {}, 0
end

-- ---- Acts -------------------------------------------------------------------

local acts = {}

function acts.another_map(run) another_map(run) end
function acts.put_many(run) put_many(run) end
function acts.sync(run) assert(run.owner:sync()) end
function acts.compare(run) run:compare("the store") end
function acts.check(run) assert(#assert(run.owner:check()) == 0, "what check says") end

function acts.pass(run)
  if run.case.ttls then run:pass(run.random(700)) end
end

-- What is swept, and whether, nobody says.
function acts.sweep(run)
  if not run.case.ttls then return end
  assert(run.owner:step(run.random(3)))
  run.may_have_changed = true
end

function acts.clear(run)
  if run.random(4) == 1 then clear(run) end
end

function acts.drop(run)
  if run.random(4) == 1 then drop(run) end
end

-- What is moved only has the same version.
function acts.compact(run) assert(run.owner:compact()) end

function acts.stat(run)
  local stat = assert(run.owner:stat())
  assert(is_count(stat.count, run.world[DEFAULT]), "what stat counts")
  assert(stat.snapshot_count >= #run.held, "the snapshots that stat counts")
  assert(run.owner:size() > 0, "what size says")
end

-- Of the text the first number.
function acts.dump(run)
  local snapshot = assert(run.owner:snapshot())
  local count = snapshot:dump():match("^(%d+) records, version %d+\n")
  assert(tonumber(count) == snapshot:count(), "what dump counts")
  snapshot:close()
end

-- Equal versions, equal content: a change makes another, nothing else does.
function acts.version(run)
  local version = assert(run.owner:version())
  local is_swept = run.case.ttls and run.case.options.durability == "async"
  assert(version == run.owner:version() or is_swept)
  if run.may_have_changed or is_swept then
    run.may_have_changed = false
  elseif run.has_changed then
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
    if run.case.ttls then -- the clock goes on, but not that of the transaction
      clock = clock + random(300)
      probe.os.wall_ms(clock)
    end
  end
  run:compare("a transaction")
  assert(is_count(store:count(), world[DEFAULT]), "what others count")
  local is_aborted = random(3) == 1
  if is_aborted then run.owner:abort() else assert(run.owner:commit()) end
  run.owner, run.handles = store, handles
  if is_aborted then run:be_in(world) end
  run:go_to(run.here)
  if run.case.ttls then
    run:pass(0)
    run.may_have_changed = true
    return
  end
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
  local snapshot = assert(run.owner:snapshot())
  local version = run.owner:version()
  if run.case.ttls then version = snapshot:version() end -- a sweep in between
  held[#held + 1] = { snapshot = snapshot, world = copy_world(run.world),
    version = version }
end

-- Compares the snapshot with its copy, and closes it; all of them without `index`.
function Run:let_go(index)
  for i = index or #self.held, index or 1, -1 do
    local held = table.remove(self.held, i)
    assert(held.snapshot:version() == held.version, "a snapshot's version")
    compare(held.snapshot, held.world, "a snapshot")
    local keys = {}
    for key, value in pairs(held.world[DEFAULT].records) do
      if held.snapshot:get(key) ~= value then fail("a snapshot's get of %q", key) end
      if #keys < 100 then keys[#keys + 1] = key end
    end
    local values = assert(held.snapshot:get_many(keys))
    for n, key in ipairs(keys) do
      if values[n] ~= held.world[DEFAULT].records[key] then
        fail("a snapshot's get_many of %q", key)
      end
    end
    held.snapshot:close()
  end
end

function acts.let_go(run)
  if #run.held > 0 then run:let_go(run.random(#run.held)) end
end

-- Saved in the file: a world that stays, whatever comes, until it is dropped.
local function any_saved(run) return "saved " .. run.random(5) end

function acts.save(run)
  local name = any_saved(run)
  local done, code = run.owner:save(name)
  if run.saved[name] then
    assert(not done and code == "EEXIST", "what save says of what is there")
    return
  end
  assert(done, code)
  run.saved[name] = copy_world(run.world)
  run.has_changed = true
end

function acts.open_saved(run)
  local name = any_saved(run)
  local snapshot, code = run.owner:open_saved(name)
  assert((run.owner:saved()[name] ~= nil) == (run.saved[name] ~= nil), name)
  if not run.saved[name] then
    assert(not snapshot and code == "ENOENT", "what opening nothing says")
    return
  end
  compare(snapshot, run.saved[name], name)
  snapshot:close()
end

function acts.drop_saved(run)
  local name = any_saved(run)
  assert(run.owner:drop_saved(name) == (run.saved[name] ~= nil), name)
  run.has_changed = run.has_changed or run.saved[name] ~= nil
  run.saved[name] = nil
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

-- Out of a copy that is sound: nothing is missing. (It knows no narrowed hashes.)
function acts.salvage(run)
  if run.case.options.primary_mask then return end
  local path, rescued = scratch.path("backup"), scratch.path("rescued")
  assert(run.owner:backup(path))
  assert(probe.store.salvage(path, rescued))
  local copy = assert(open(rescued, run.case.options))
  compare(copy, run.world, "what was salvaged")
  assert(copy:remove())
  os.remove(path)
end

function acts.reopen(run)
  local version = run.owner:version()
  run:close()
  run:open()
  assert(run.owner:version() == version or run.case.ttls,
    "the version after reopening")
  run.may_have_changed = run.case.ttls
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
  let_go = 2, diff = 2, page = 1, backup = 1, reopen = 1, crash = 1, pass = 4,
  sweep = 3, save = 2, open_saved = 2, drop_saved = 1, compact = 1, stat = 1,
  dump = 1, salvage = 1 }

local drawn = {}
for name, weight in pairs(weights) do
  assert(acts[name], name)
  for _ = 1, weight do drawn[#drawn + 1] = name end
end
for name in pairs(acts) do assert(weights[name], name) end
table.sort(drawn) -- pairs() has no order, and a seed shall repeat a run

-- ---- All of it --------------------------------------------------------------

-- In the end all that has expired is swept.
function Run:sweep_all()
  local stop = probe.os.monotonic_ns() + 60e9
  self:pass(3000)
  for name in pairs(self.world) do
    self:go_to(name)
    repeat
      assert(probe.os.monotonic_ns() < stop, "not swept")
      assert(self.owner:step(100))
    until self.db:count() == self.map.count
  end
end

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
  if self.case.ttls then self:sweep_all() end
  self:close()
  self:open()
  self:compare("the store, opened again")
  self:close()
  probe.os.wall_ms(0)
end

return model
