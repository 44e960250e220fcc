-- SPDX-License-Identifier: MIT
--
-- What the Lua driver measures. An engine has a name, open(path),
-- close(store, path) and steps, in the order in which they are done:
-- {name, loop}, where loop(store, records) returns how many records were right.

local function pairs_of(t) return pairs(t) end

-- The loops of anything that is used like a table.
local function put_by_index(t, records)
  local keys, values = records.keys, records.values
  for i = 1, records.count do t[keys[i]] = values[i] end
  return records.count
end

local function get_by_index(t, records)
  local keys, values, good = records.shuffled.keys, records.shuffled.values, 0
  for i = 1, records.count do
    if t[keys[i]] == values[i] then good = good + 1 end
  end
  return good
end

local function miss_by_index(t, records)
  local keys, good = records.missing, 0
  for i = 1, records.count do
    if t[keys[i]] == nil then good = good + 1 end
  end
  return good
end

-- The values are checked by the lengths alone, so that the loop is most of it.
local function count_pairs(next_key, state, first)
  local good = 0
  for key, value in next_key, state, first do
    if #key == 32 and #value == 32 then good = good + 1 end
  end
  return good
end

local engines = {}

-- ---- mmcmap -----------------------------------------------------------------

local mmcmap = require "mmcmap"

local function mmcmap_open(path)
  os.remove(path)
  os.remove(path .. "-lock")
  return assert(mmcmap.open(path))
end

local function mmcmap_close(db) assert(db:remove()) end

local function mmcmap_get(db, records)
  local keys, values, good = records.shuffled.keys, records.shuffled.values, 0
  for i = 1, records.count do
    if db:get(keys[i]) == values[i] then good = good + 1 end
  end
  return good
end

engines[1] = { name = "mmcmap", open = mmcmap_open, close = mmcmap_close,
  steps = {
    { name = "put", loop = function(db, records)
      local keys, values = records.keys, records.values
      for i = 1, records.count do db:put(keys[i], values[i]) end
      return records.count
    end },
    { name = "get", loop = mmcmap_get },
    { name = "index", loop = get_by_index },
    { name = "miss", loop = function(db, records)
      local keys, good = records.missing, 0
      for i = 1, records.count do
        if db:get(keys[i]) == nil then good = good + 1 end
      end
      return good
    end },
    { name = "pairs", loop = function(db)
      return count_pairs(db:pairs())
    end },
    { name = "newindex", loop = put_by_index },
  } }

-- Wrong now and then, to see that the driver notices.
engines[2] = { name = "lie", hidden = true, open = mmcmap_open,
  close = mmcmap_close, steps = {
    engines[1].steps[1],
    { name = "get", loop = function(db, records)
      db:put(records.keys[1], "another value")
      return mmcmap_get(db, records)
    end },
  } }

-- ---- A plain table ----------------------------------------------------------

engines[3] = { name = "table", open = function() return {} end,
  close = function() end, steps = {
    { name = "put", loop = put_by_index },
    { name = "get", loop = get_by_index },
    { name = "index", loop = get_by_index },
    { name = "miss", loop = miss_by_index },
    { name = "pairs", loop = function(t) return count_pairs(pairs_of(t)) end },
    { name = "newindex", loop = put_by_index },
  } }

-- ---- SQLite through luadbi --------------------------------------------------

local has_dbi, dbi = pcall(require, "DBI")
has_dbi = has_dbi and pcall(require, "dbd.sqlite3")

local function remove_sqlite(path)
  for _, suffix in ipairs { "", "-wal", "-shm" } do os.remove(path .. suffix) end
end

if has_dbi then
  engines[4] = { name = "sqlite-dbi",
    open = function(path)
      remove_sqlite(path)
      local db = assert(dbi.Connect("SQLite3", path))
      db:autocommit(true)
      local function run(text) assert(assert(db:prepare(text)):execute()) end
      run("PRAGMA journal_mode = WAL")
      run("PRAGMA synchronous = OFF")
      run("CREATE TABLE kv (k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID")
      return { db = db,
        put = assert(db:prepare("INSERT OR REPLACE INTO kv VALUES (?, ?)")),
        get = assert(db:prepare("SELECT v FROM kv WHERE k = ?")),
        pairs = assert(db:prepare("SELECT k, v FROM kv")) }
    end,
    close = function(store, path)
      store.db:close()
      remove_sqlite(path)
    end,
    steps = {
      { name = "put", loop = function(store, records)
        local keys, values, put = records.keys, records.values, store.put
        for i = 1, records.count do assert(put:execute(keys[i], values[i])) end
        return records.count
      end },
      { name = "get", loop = function(store, records)
        local keys, values = records.shuffled.keys, records.shuffled.values
        local get, good = store.get, 0
        for i = 1, records.count do
          get:execute(keys[i])
          if get:fetch()[1] == values[i] then good = good + 1 end
        end
        return good
      end },
      { name = "pairs", loop = function(store)
        local good = 0
        store.pairs:execute()
        for row in store.pairs:rows() do
          if #row[1] == 32 and #row[2] == 32 then good = good + 1 end
        end
        return good
      end },
    } }
end

-- A list without gaps.
local list = {}
for i = 1, 4 do list[#list + 1] = engines[i] end
return list
