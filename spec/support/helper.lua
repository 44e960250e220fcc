-- SPDX-License-Identifier: MIT
--
-- What the black-box specs share: a place for files, a second process, and
-- what differs between the Lua versions. It needs nothing but Lua and mmcmap.
--
--   MMCMAP_TMP_DIR  where files are made; else a new folder
--   MMCMAP_LUA      the interpreter for second processes; else the one that runs

local mmcmap = require "mmcmap"

local helper = {}

-- Whether several processes may write to one store. Specs of that are pending
-- as long as they may not; those of the opposite are then left out.
local processes_share = true
helper.processes_share = processes_share

-- it() for specs of what is true only if several processes may write. `it` is
-- busted's, and skip(why) calls its pending(): only spec files see them.
function helper.it_if_shared(it, skip)
  return function(name, test)
    it(name, function()
      if not processes_share then
        return skip("one process at a time may write")
      end
      return test()
    end)
  end
end

-- Whether pairs(db) asks for __pairs: not in Lua 5.1, nor in most LuaJITs.
helper.has_pairs_metamethod = (function()
  local asked = false
  local proxy = setmetatable({}, {
    __pairs = function() asked = true return next, {} end,
  })
  for _ in pairs(proxy) do end -- luacheck: ignore 512
  return asked
end)()

helper.has_to_be_closed = _VERSION == "Lua 5.4"

-- load() for a string, in every version.
function helper.load(code)
  return assert((loadstring or load)(code)) -- luacheck: ignore 113
end

function helper.quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Like pairs(), by the order of the keys, which are strings.
function helper.sorted(t)
  local keys, i = {}, 0
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return function()
    i = i + 1
    return keys[i], t[keys[i]]
  end
end

-- ---- Files ------------------------------------------------------------------

local temporary
local file_count = 0

function helper.temporary_folder()
  if not temporary then
    temporary = os.getenv("MMCMAP_TMP_DIR")
    if not temporary then
      temporary = os.tmpname()
      os.remove(temporary)
      os.execute("mkdir -p " .. helper.quoted(temporary))
    end
  end
  return temporary
end

-- A path where nothing is yet.
function helper.path(suffix)
  file_count = file_count + 1
  local path = ("%s/api-%d%s"):format(helper.temporary_folder(), file_count,
    suffix or ".mmc")
  os.remove(path)
  os.remove(path .. "-lock")
  return path
end

function helper.folder()
  local path = helper.path(".d")
  os.execute("mkdir -p " .. helper.quoted(path))
  return path
end

function helper.exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

function helper.read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

-- The lines of a CSV file as tables, by the names of its columns.
function helper.rows_of(path)
  local rows, names = {}, nil
  for line in helper.read(path):gmatch("[^\n]+") do
    local fields = {}
    for field in (line .. ","):gmatch("([^,]*),") do
      fields[#fields + 1] = field
    end
    if not names then
      names = fields
    else
      assert(#names == #fields, line)
      local row = {}
      for i, name in ipairs(names) do row[name] = fields[i] end
      rows[#rows + 1] = row
    end
  end
  return rows
end

function helper.write(path, bytes)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  file:close()
  return path
end

function helper.output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read("*a")
  pipe:close()
  return output
end

-- The output, without the last line's end, of a command with %s for words that
-- are to be quoted.
function helper.run(format, ...)
  local words = { ... }
  for i = 1, #words do words[i] = helper.quoted(words[i]) end
  return (helper.output_of(format:format((unpack or table.unpack)(words))) -- luacheck: ignore 113
    :gsub("\n$", ""))
end

function helper.is_root()
  return helper.output_of("id -u"):match("%d+") == "0"
end

-- ---- Stores -----------------------------------------------------------------

local opened = setmetatable({}, { __mode = "k" })

-- A new store, closed by helper.close_all().
function helper.store(options, path)
  local db = assert(mmcmap.open(path or helper.path(), options))
  opened[db] = true
  return db
end

-- For after_each: what a failed test has left open.
function helper.close_all()
  for db in pairs(opened) do db:close() end
  opened = setmetatable({}, { __mode = "k" })
end

-- All records, by a loop, as a table; and how many the loop saw.
function helper.records(db)
  local records, count = {}, 0
  for key, value in db:pairs() do
    records[key] = value
    count = count + 1
  end
  return records, count
end

-- Bytes without a period that could hide a wrong length or offset.
function helper.bytes(size, seed)
  local words, state = {}, (seed or 0) * 7919 + size % 65521 + 1
  for i = 1, math.min(size, 4099) do
    state = (state * 16807) % 2147483647
    words[i] = string.char(state % 256)
  end
  local block = table.concat(words)
  if size <= #block then return block end
  return block:rep(math.floor(size / #block) + 1):sub(1, size)
end

-- ---- What is expected ---------------------------------------------------------

-- The function raises an error with these words, as they are: its message.
function helper.raises(words, f, ...)
  local ok, message = pcall(f, ...)
  if ok then error("no error; expected: " .. words, 2) end
  if not tostring(message):find(words, 1, true) then
    error(("%q is not in %q"):format(words, tostring(message)), 2)
  end
  return message
end

-- What a method returned is nil, a message, and this code: the message.
function helper.fails(code, result, message, found)
  if result ~= nil or type(message) ~= "string" or found ~= code then
    error(("expected nil, a message and %s, got %s, %s, %s"):format(code,
      tostring(result), tostring(message), tostring(found)), 2)
  end
  return message
end

-- ---- Second processes -------------------------------------------------------

function helper.interpreter()
  local named = os.getenv("MMCMAP_LUA")
  if named then return named end
  local lowest = 0
  while arg[lowest - 1] do lowest = lowest - 1 end
  return arg[lowest]
end

-- Runs `code` in another process with this one's Lua and returns all that it
-- printed, errors too. The code gets the other arguments as `...`.
function helper.child(code, ...)
  local script = helper.write(helper.path(".lua"), table.concat({
    ("package.path = %q"):format(package.path),
    ("package.cpath = %q"):format(package.cpath),
    'local mmcmap = require "mmcmap"',
    code,
  }, "\n"))
  local words = { helper.quoted(helper.interpreter()), helper.quoted(script) }
  for i = 1, select("#", ...) do
    words[i + 2] = helper.quoted(tostring((select(i, ...))))
  end
  return (helper.output_of(table.concat(words, " ")))
end

return helper
