-- SPDX-License-Identifier: MIT
--
-- An index of every word in the text files below some folders, kept in one
-- store. Run again, it looks only at the files that are new, changed or gone.
--
-- A store has no order of keys, so whatever is asked for must be a key:
--
--   "w\0" word   -> "12:3 40:1 "    file 12 has the word 3 times, file 40 once
--   "f\0" path   -> "12 5021 1700000000.25"    its number, size and time
--   "i\0" number -> path            counting up finds all files
--   "t\0" number -> its words, a line each: what to clear when it is gone
--   "n"          -> how many numbers were given; none is given twice
--
-- Nothing is durable between two calls of sync() in a store that is opened
-- with durability = "manual" by its only writer, so a power cut leaves the index as it was after
-- one batch. Ctrl-C may leave half a batch: entries of files without an "i".
-- They are passed over, and those files come again, under a new number.
--
-- Any number of processes may look words up while one brings the index up to
-- date; two that do so at the same time would give numbers twice.

local mmcmap = require "mmcmap"

local USAGE = [[
usage: lua 02-word-index.lua [OPTION ...] [FOLDER ...] [--find WORD ...]

Indexes the words of the text files below the folders (by default below
/usr/share/common-licenses and /usr/share/doc; not those that end in .gz), or
brings the index up to date. With --find it shows the files that contain all of
the words; without a folder it then only looks them up.

  --store FILE   where the index is kept (words.mmc)
  --limit N      only the first N files, in the order of their names
  --help         this text

Needs GNU find.
]]

local DEFAULT_FOLDERS = { "/usr/share/common-licenses", "/usr/share/doc" }
local DEFAULT_QUERIES = { { "warranty", "merchantability" }, { "lua" },
  { "hash", "table", "collision" } }
local WORD = "[%w\128-\255]+" -- ASCII letters and digits, and all of UTF-8's
local WORD_SIZE_MAX = 64      -- longer ones are data, not words
local FILE_SIZE_MAX = 64 * 1024 * 1024
local BATCH_ENTRIES = 1000000 -- (word, file) pairs that are kept in memory
local RESULTS_SHOWN = 5

-- ---- The command line -------------------------------------------------------

local function fail(...)
  io.stderr:write("02-word-index: ", string.format(...), "\n")
  os.exit(1)
end

local function read_arguments()
  local options = { store = "words.mmc", limit = math.huge, folders = {} }
  local i = 1
  while arg[i] do
    local word = arg[i]
    if word == "--help" then
      io.write(USAGE)
      os.exit(0)
    elseif word == "--find" then
      options.words = {}
      for n = i + 1, #arg do
        for part in arg[n]:gmatch(WORD) do
          table.insert(options.words, part:lower())
        end
      end
      if #options.words == 0 then fail("--find needs a word") end
      break
    elseif word == "--store" or word == "--limit" then
      i = i + 1
      options[word:sub(3)] = arg[i] or fail("%s needs a value", word)
    elseif word:sub(1, 1) == "-" then
      io.stderr:write(USAGE)
      os.exit(2)
    else
      table.insert(options.folders, word)
    end
    i = i + 1
  end
  options.limit = tonumber(options.limit) or fail("--limit needs a number")
  options.only_find = options.words ~= nil and #options.folders == 0
  return options
end

-- ---- Files ------------------------------------------------------------------

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function output_of(command)
  local pipe = assert(io.popen(command))
  local output = pipe:read("*a")
  pipe:close()
  return output
end

-- The folders' full names, so that the index is the same from everywhere.
local function find_folders(named)
  local folders = {}
  for _, name in ipairs(#named > 0 and named or DEFAULT_FOLDERS) do
    if name:sub(1, 1) ~= "/" then name = "./" .. name end -- "-" is none of cd's
    local folder = output_of("cd " .. quoted(name) .. " 2>/dev/null && pwd -P")
    if folder ~= "" then
      folders[#folders + 1] = folder:sub(1, -2)
    elseif #named > 0 then
      fail("%s: no such folder", name)
    end
  end
  if #folders == 0 then fail("there are no folders to look at") end
  return folders
end

-- The files below the folders, by name: a list of { path, size, stamp }.
local function list_files(folders)
  local words = { "find" }
  for _, folder in ipairs(folders) do words[#words + 1] = quoted(folder) end
  words[#words + 1] = "-type f -readable ! -name '*.gz' -printf '%s %T@ %p\\0'"
  local output = output_of(table.concat(words, " "))
  local files, begin = {}, 1
  while true do
    local stop = output:find("\0", begin, true)
    if not stop then break end
    local size, time, path = output:sub(begin, stop - 1)
      :match("^(%d+) ([%d.]+) (.*)$")
    files[#files + 1] = { path = path, size = tonumber(size),
      stamp = size .. " " .. time }
    begin = stop + 1
  end
  table.sort(files, function(a, b) return a.path < b.path end)
  return files
end

-- The words of a file and how often each comes; none if it is not a text.
local function words_of(file)
  local counts = {}
  if file.size > FILE_SIZE_MAX then return counts end
  local handle = io.open(file.path, "rb")
  local text = handle and handle:read("*a") or ""
  if handle then handle:close() end
  if text:find("\0", 1, true) then return counts end
  for word in text:lower():gmatch(WORD) do
    if #word <= WORD_SIZE_MAX then counts[word] = (counts[word] or 0) + 1 end
  end
  return counts
end

-- ---- Progress ---------------------------------------------------------------

local is_terminal = (function()
  local status = os.execute("test -t 1")
  return status == true or status == 0
end)()

local last_shown = 0

-- Overwrites its own line on a terminal; elsewhere, a line now and then.
local function progress(what, done, all)
  local now = os.clock()
  if done < all and now - last_shown < (is_terminal and 0.1 or 2) then return end
  last_shown = now
  local line = ("  %s %d of %d"):format(what, done, all)
  if is_terminal then
    io.write("\r", line, done < all and "" or "\n")
  elseif done < all then
    io.write(line, "\n")
  end
  io.stdout:flush()
end

-- ---- The index --------------------------------------------------------------

local function number_count(db) return tonumber(db:get("n") or 0) end

-- A batch: what is to be done with the words and files, kept in memory.
local function new_batch(db)
  return { db = db, entries = 0, number = number_count(db), added = {},
    gone_from = {}, files = {}, gone = {} }
end

local function add_file(batch, file)
  local number, words = batch.number + 1, {}
  for word, count in pairs(words_of(file)) do
    local list = batch.added[word]
    if not list then
      list = {}
      batch.added[word] = list
    end
    list[#list + 1] = ("%d:%d "):format(number, count)
    words[#words + 1] = word
  end
  batch.number = number
  batch.entries = batch.entries + #words
  table.insert(batch.files, { number = number, path = file.path,
    stamp = file.stamp, words = words })
end

local function remove_file(batch, number, path)
  local words = batch.db:get("t\0" .. number) or ""
  for word in words:gmatch("[^\n]+") do
    batch.gone_from[word] = true
    batch.entries = batch.entries + 1
  end
  table.insert(batch.gone, { number = number, path = path })
end

-- What a word's list becomes.
local function merged_list(batch, word, is_gone)
  local list = batch.db:get("w\0" .. word, "")
  if batch.gone_from[word] then
    list = list:gsub("(%d+):%d+ ", function(number)
      if is_gone[number] then return "" end
    end)
  end
  return list .. table.concat(batch.added[word] or {})
end

local function write_words(batch)
  local is_gone = {}
  for _, file in ipairs(batch.gone) do is_gone[tostring(file.number)] = true end
  for word in pairs(batch.gone_from) do
    batch.added[word] = batch.added[word] or {}
  end
  for word in pairs(batch.added) do
    local list = merged_list(batch, word, is_gone)
    batch.db["w\0" .. word] = list ~= "" and list or nil
  end
end

-- The order matters for Ctrl-C only; see the head of this file. An operator
-- raises if it fails, so nothing is missed.
local function write_batch(batch)
  local db = batch.db
  if #batch.files + #batch.gone > 0 then
    db.n = batch.number
    for _, file in ipairs(batch.gone) do
      db["i\0" .. file.number] = nil
      db["f\0" .. file.path] = nil
    end
    write_words(batch)
    for _, file in ipairs(batch.gone) do db["t\0" .. file.number] = nil end
    for _, file in ipairs(batch.files) do
      db["t\0" .. file.number] = table.concat(file.words, "\n")
      db["i\0" .. file.number] = file.path
      db["f\0" .. file.path] = file.number .. " " .. file.stamp
    end
    assert(db:sync())
  end
  return new_batch(db)
end

local function is_below(path, folders)
  for _, folder in ipairs(folders) do
    if path:sub(1, #folder + 1) == folder .. "/" then return true end
  end
end

-- Compares the files with the index: those to be added, those to be removed.
local function plan(db, files, folders, limit)
  local exists, fresh, gone, same = {}, {}, {}, 0
  for place, file in ipairs(files) do
    exists[file.path] = true
    if place <= limit then
      local number, stamp = (db:get("f\0" .. file.path) or ""):match("^(%d+) (.*)$")
      if stamp == file.stamp then
        same = same + 1
      else
        fresh[#fresh + 1] = file
        if number then gone[#gone + 1] = { tonumber(number), file.path } end
      end
    end
  end
  for number = 1, number_count(db) do
    local path = db:get("i\0" .. number)
    if path and not exists[path] and is_below(path, folders) then
      gone[#gone + 1] = { number, path }
    end
  end
  return fresh, gone, same
end

local function update(db, options)
  local before, began = db:version(), os.clock()
  local folders = find_folders(options.folders)
  print(("Looking for text files below %s"):format(
    table.concat(folders, " and ")))
  local fresh, gone, same =
    plan(db, list_files(folders), folders, options.limit)
  local batch = new_batch(db)
  for _, file in ipairs(gone) do
    remove_file(batch, file[1], file[2])
    if batch.entries >= BATCH_ENTRIES then batch = write_batch(batch) end
  end
  for i, file in ipairs(fresh) do
    add_file(batch, file)
    progress("file", i, #fresh)
    if batch.entries >= BATCH_ENTRIES then batch = write_batch(batch) end
  end
  write_batch(batch)
  print(("%d files as before, %d new or changed, %d changed or gone removed; %.1f s")
    :format(same, #fresh, #gone, os.clock() - began))
  if db:version() == before then
    print(("Nothing has changed: version %d, as before."):format(before))
  else
    print(("Version %d, before %d."):format(db:version(), before))
  end
  print(("The index has %d records in %.1f MiB of file."):format(#db,
    db:size() / 1048576))
end

-- ---- Queries ----------------------------------------------------------------

-- The files that contain all the words: a list of { path, count of each }.
local function find(db, words)
  local found
  for place, word in ipairs(words) do
    local next_found = {}
    for number, count in db:get("w\0" .. word, ""):gmatch("(%d+):(%d+) ") do
      local counts = place == 1 and { total = 0 } or found[number]
      if counts then
        counts[place] = tonumber(count)
        counts.total = counts.total + counts[place]
        next_found[number] = counts
      end
    end
    found = next_found
  end
  local files = {}
  for number, counts in pairs(found) do
    counts.path = db:get("i\0" .. number)
    if counts.path then files[#files + 1] = counts end
  end
  table.sort(files, function(a, b)
    if a.total ~= b.total then return a.total > b.total end
    return a.path < b.path
  end)
  return files
end

local function show(db, words, shown)
  local files = find(db, words)
  print(("\n%d files contain %s"):format(#files, table.concat(words, " and ")))
  for i = 1, math.min(#files, shown) do
    print(("  %s  %s"):format(table.concat(files[i], " + "), files[i].path))
  end
  if #files > shown then print(("  and %d more"):format(#files - shown)) end
end

-- ---- The program ------------------------------------------------------------

local options = read_arguments()
local db, message = mmcmap.open(options.store, {
  durability = "manual", readonly = options.only_find })
if not db then fail("%s", message) end
if not options.only_find then update(db, options) end
if options.words then
  show(db, options.words, math.huge)
else
  for _, words in ipairs(DEFAULT_QUERIES) do show(db, words, RESULTS_SHOWN) end
end
assert(db:close())
