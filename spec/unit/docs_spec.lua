-- SPDX-License-Identifier: MIT
--
-- The documents and the code say the same: format rules, ordering rules, error
-- codes, options; links lead somewhere; the first example of the README runs.

local helper = require "spec.support.helper"
local mmcmap = require "mmcmap"
local methods = require "spec.support.methods"

local source = os.getenv("MMCMAP_SOURCE_DIR") or "."

local function read(name) return helper.read(source .. "/" .. name) end

local function files(command)
  local names = {}
  for name in helper.output_of("cd " .. helper.quoted(source) .. " && "
    .. command):gmatch("[^\n]+") do
    names[#names + 1] = name
  end
  assert(#names > 0, "no files: " .. command)
  return names
end

-- All of src/ as one text.
local function sources()
  local texts = {}
  for _, name in ipairs(files("find src -name '*.[ch]'")) do
    texts[#texts + 1] = read(name)
  end
  return table.concat(texts, "\n")
end

local function without_comments(text) return (text:gsub("/%*.-%*/", " ")) end

-- The keys of `a` that `b` has not, as a text.
local function missing(a, b)
  local names = {}
  for name in pairs(a) do
    if not b[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return table.concat(names, "; ")
end

local function assert_same_names(documented, used)
  assert.is_truthy(next(used))
  assert.equal("", missing(used, documented), "not in the document")
  assert.equal("", missing(documented, used), "only in the document")
end

-- The first column of the tables under a heading; `pattern` finds the names.
local function names_in_section(text, heading, pattern)
  local _, stop = text:find("\n" .. heading .. "\n", 1, true)
  assert(stop, heading)
  local section = text:sub(stop):match("^(.-)\n## ") or text:sub(stop)
  local names = {}
  for column in section:gmatch("\n| ([^|]*) |") do
    for name in column:gmatch(pattern) do names[name] = true end
  end
  return names
end

describe("docs/format.md", function()
  local text = read("docs/format.md")

  it("has each rule of the code with its text, and no other", function()
    local documented, used = {}, {}
    for id, words in text:gmatch("\n| (F%d+) | ([^|]-) |") do
      local rule = id .. " " .. words
      assert.is_nil(documented[rule], rule .. " stands there twice")
      documented[rule] = true
    end
    for rule in without_comments(sources()):gmatch('"(F%d+ [^"]+)"') do
      used[rule] = true
    end
    assert_same_names(documented, used)
  end)

  it("refers to rules that it has", function()
    for id in text:gmatch("%f[%w]F%d+%f[%W]") do
      assert.is_truthy(text:find("\n| " .. id .. " | ", 1, true), id)
    end
  end)

  it("has tables without gaps and overlaps", function()
    local rows = 0
    local expected
    for line in text:gmatch("[^\n]+") do
      local offset, size = line:match("^| (%d+) | (%d+) | ")
      if offset and not line:find("^| %d+ | %d+ | [^|]+ |$") then
        offset, size = tonumber(offset), tonumber(size)
        assert.equal(offset == 0 and 0 or expected, offset, line)
        expected = offset + size
        rows = rows + 1
      end
    end
    assert.is_true(rows > 50)
  end)
end)

describe("docs/format.md and CHANGELOG.md", function()
  it("name the layout of the lock file", function()
    local layout = read("src/share/layout.h"):match("SHARE_LAYOUT = (%d+)")
    local text = read("docs/format.md")
    assert.equal(layout, text:match("This is its layout (%d+)"))
    assert.equal(layout, text:match("| 8 | 4 | layout | (%d+) |"))
    assert.equal(layout, read("CHANGELOG.md"):match("layout (%d+) of the lock file"))
  end)
end)

describe("docs/concurrency.md", function()
  it("has each ordering rule that the code cites, and no other", function()
    local documented, used = {}, {}
    for id in read("docs/concurrency.md"):gmatch("\n%*%*(R%d+)%. ") do
      documented[id] = true
    end
    for id in sources():gmatch("%f[%w]R%d+%f[%W]") do used[id] = true end
    assert_same_names(documented, used)
  end)
end)

-- What makes the calls of a spec, where that is not itself.
local support = { ["api/methods"] = "methods.lua", ["unit/history"] = "history.c",
  ["unit/stress"] = "stress.c", ["crash/kill"] = "kill_soak_work.c" }

local function spec_text(name)
  local path = "spec/" .. name .. "_spec.lua"
  assert.is_true(helper.exists(source .. "/" .. path), path)
  return read(path) .. (support[name] and read("spec/support/" .. support[name]) or "")
end

-- The rows of the tables of docs/api.md, each {lua = names, c = names, proofs = what
-- stands in the columns behind them, texts = of the specs in each of these}.
local function api_rows()
  local rows = {}
  for line in read("docs/api.md"):gmatch("\n|([^\n]+)|") do
    local lua, c, proofs = line:match("^([^|]*)|([^|]*)|(.+)$")
    if lua:find("`") or c:find("`mmcmap_") then
      local row = { lua = {}, c = {}, proofs = {}, texts = {}, line = line }
      for name in lua:gmatch("`([%a_0-9]+)`") do row.lua[#row.lua + 1] = name end
      for name in c:gmatch("`([%a_0-9]+)`") do row.c[#row.c + 1] = name end
      for proof in proofs:gmatch("[^|]+") do
        local texts = {}
        for name in proof:gmatch("%l+/[%l_]+") do texts[#texts + 1] = spec_text(name) end
        row.proofs[#row.proofs + 1], row.texts[#row.texts + 1] = proof, table.concat(texts)
      end
      rows[#rows + 1] = row
    end
  end
  return rows
end

local function names_of(rows, field)
  local names = {}
  for _, row in ipairs(rows) do
    for _, name in ipairs(row[field]) do names[name] = true end
  end
  return names
end

describe("docs/api.md", function()
  local rows = api_rows()

  it("has each function of mmcmap.h, and no other", function()
    local used = {}
    for name in read("src/mmcmap.symbols"):gmatch("[%a_0-9]+") do used[name] = true end
    assert_same_names(names_of(rows, "c"), used)
  end)

  it("has each method of the Lua module, and no other", function()
    local used = {} -- of spec/support/methods.lua: its spec says that this is all
    for _, list in pairs(methods.of) do
      for name in pairs(list) do used[name] = true end
    end
    assert_same_names(names_of(rows, "lua"), used)
  end)

  it("says of each what it does, refuses, and bears", function()
    for _, row in ipairs(rows) do
      assert.equal(4, #row.proofs, row.line)
      for _, proof in ipairs(row.proofs) do
        assert.is_truthy(proof:find("%l+/[%l_]+") or proof:find("^ it %l+ %l+")
          or proof:find("the last error is each thread's own"), proof .. " in" .. row.line)
      end
    end
  end)

  it("says of no method that it changes nothing if it does", function()
    for _, row in ipairs(rows) do
      for _, list in pairs(row.proofs[4]:find("it changes nothing") and methods.of or {}) do
        for _, name in ipairs(row.lua) do
          local method = name ~= "close" and list[name] -- of many things
          assert.is_falsy(method and (method.writes or method.own), row.line)
        end
      end
    end
  end)

  -- By their names, or by those that the probe and C have for them.
  it("names in each column specs that use the methods", function()
    local others = { next = "next_", view = "snapshot", snapshot = '"save"', snapshots = "saved",
      open_snapshot = "open_saved", drop_snapshot = "drop_saved" }
    local function uses(text, name)
      return text:find("[:.]" .. name .. "[^%w_]") or text:find('"' .. name .. '"', 1, true)
        or text:find("mmcmap_" .. name .. "(", 1, true)
        or others[name] and text:find(others[name], 1, true)
    end
    local function writes(name)
      for _, list in pairs(methods.of) do
        if list[name] and (list[name].writes or list[name].own) then return true end
      end
    end
    for _, row in ipairs(rows) do
      assert.is_true(#table.concat(row.texts) > 0, row.line)
      for i, text in ipairs(row.texts) do
        for _, name in ipairs(row.lua) do
          if text ~= "" and (i < 4 or writes(name)) then -- the last is of crashes
            assert.is_truthy(uses(text, name), ("%s of%s:%s"):format(name, row.line,
              row.proofs[i]))
          end
        end
      end
    end
  end)

  it("has no function of mmcmap.h that no spec calls", function()
    local called = {}
    for _, name in ipairs(files("ls spec/support/*.c src/lua/*.c src/lua/*.h")) do
      for word in without_comments(read(name)):gmatch("mmcmap_[%a_0-9]+") do
        called[word] = true
      end
    end
    assert.equal("", missing(names_of(rows, "c"), called))
  end)

  -- It calls functions of C, by the names that the probe has for them.
  it("has no method that the model does not know", function()
    local model = read("spec/support/model.lua")
    local in_c = { pairs = "records", keys = "page", next = "page", update = "begin",
      view = "snapshot", snapshots = "saved", open_snapshot = "open_saved",
      drop_snapshot = "drop_saved" }
    local of_no_content = { murmur3 = true, readers = true }
    for name in pairs(names_of(rows, "lua")) do
      local known = in_c[name] or name
      assert.is_truthy(of_no_content[name] or model:find(":" .. known .. "%(")
        or model:find("probe%.store%." .. known), name)
    end
  end)
end)

describe("the pages that ldoc makes", function()
  local texts = {}
  for _, name in ipairs(files("ls src/lua/*.c")) do texts[#texts + 1] = read(name) end
  local text = table.concat(texts)

  it("have each function that is registered, in front of it", function()
    local count = 0
    for name, f in text:gmatch('{"(%l[%a_0-9]*)", ([%a_]+)}') do
      local before = text:match("^(.*)\n[%l ]*int " .. f .. "%(lua_State %*L%) {")
      local page = before and before:match(".*/%*%*%*(.-)%*/$") or ""
      assert.is_truthy(page:find("@function [%a:]*" .. name .. "\n"), name)
      count = count + 1
    end
    assert.is_true(count > 40)
  end)

  it("have an example of each", function()
    local seen = {}
    for page in text:gmatch("/%*%*%*(.-)%*/") do
      local name = page:match("@function ([^\n]+)")
      if name then
        assert.is_truthy(page:find("\n@usage[ \n]+%S"), name)
        seen[name:match("[%a_0-9]+$")] = true
      end
    end
    for _, list in pairs(methods.of) do
      for name in pairs(list) do assert.is_true(seen[name], name) end
    end
  end)

  -- In a store that has what they ask for. cjson may not be there.
  it("have examples that run", function()
    local names = "local db, snap, mmcmap, print, io, work, login, redraw, love, seen = ... "
    local function nothing() end
    local has_cjson, count = pcall(require, "cjson"), 0
    for page in text:gmatch("/%*%*%*(.-)%*/") do
      local code = page:match("\n@usage[ \n]+(.+)")
      if code and (has_cjson or not code:find("cjson", 1, true))
        and (helper.has_pairs_metamethod or not code:find("pairs(db)", 1, true)) then
        local folder = helper.folder()
        local db = helper.store(nil, folder .. "/game.mmc")
        db:put_many { hello = "world", ["account 1"] = 10, ["account 2"] = 20,
          alice = 50 }
        if code:find("open_snapshot", 1, true) then db:snapshot("monday") end
        local snap = db:snapshot()
        if code:find("mmcmap[.][os]") then db:close() end -- it opens the file itself
        code = code:gsub('"%a+[-.]', ("%q .. %%0"):format(folder .. "/"))
        local ok, message = pcall(helper.load(names .. code), db, snap, mmcmap, nothing,
          { write = nothing }, nothing, nothing, nothing, {})
        assert.is_true(ok, ("%s: %s"):format(code, tostring(message)))
        helper.close_all()
        count = count + 1
      end
    end
    assert.is_true(count > 40)
  end)

  it("are made by it, without a warning, with each method once, on its page", function()
    if helper.run("command -v ldoc") == "" then return pending("needs ldoc") end
    local folder = helper.folder()
    local output = helper.run("cd %s && env -u LUA_PATH -u LUA_CPATH "
      .. "ldoc --fatalwarnings -d %s . 2>&1; echo $?", source, folder)
    assert.equal("0", output:match("%d+$"), output)
    for kind, page in pairs { ["the module"] = "modules/mmcmap",
      ["mmcmap"] = "classes/store", ["mmcmap.snapshot"] = "classes/snapshot",
      ["mmcmap.iterator"] = "classes/iterator" } do
      local html = helper.read(("%s/%s.html"):format(folder, page))
      for name in pairs(methods.of[kind]) do
        local full = kind == "the module" and name or page:match("%a+$") .. ":" .. name
        local _, count = html:gsub('<a name = "' .. full .. '">', "")
        assert.equal(1, count, full)
      end
    end
  end)
end)

-- What is returned undoes nothing, and an example is what people copy.
describe("what is shown of update", function()
  it("raises what fails in it", function()
    local changes = {}
    for name, method in pairs(methods.of["mmcmap.transaction"]) do
      changes[name] = method.writes
    end
    local shown = 0
    for _, name in ipairs(files("ls README.md examples/*.lua src/lua/*.c")) do
      for line in read(name):gmatch("[^\n]+") do
        for call in line:gmatch("tx:[%w:()\" ]-(%a+)%(") do
          local is_prose = line:find("^%s*%-%-") or line:find("`", 1, true)
          if changes[call] and not is_prose then
            assert.is_truthy(line:find("assert(tx", 1, true), name .. ": " .. line)
            shown = shown + 1
          end
        end
      end
    end
    assert.is_true(shown > 8, shown)
  end)
end)

describe("README.md", function()
  local text = read("README.md")

  it("has each error code that Lua programs can meet", function()
    local used = {}
    for name in read("src/mmcmap.h"):gmatch("\n  MMCMAP_(E%u+) = %-") do
      used[name] = true
    end
    used.EINVAL = nil -- raised
    assert_same_names(names_in_section(text, "## When something fails",
      "`(E%u+)`"), used)
  end)

  it("has each option", function()
    local used = { codec = true }
    for name in read("src/lua/options.c"):gmatch('\n    {"([%a_]+)", read_') do
      used[name] = true
    end
    assert_same_names(names_in_section(text, "## Options of `open`",
      "`([%a_]+)`"), used)
    local described = {}
    for name in read("src/lua/module.c"):gmatch(" options%.([%a_]+) ") do
      described[name] = true
    end
    assert_same_names(described, used)
  end)

  it("has each method", function()
    local used = {}
    for kind, list in pairs(methods.of) do
      for name in pairs(list) do
        if kind ~= "mmcmap.iterator" and kind ~= "mmcmap.diff" then used[name] = true end
      end
    end
    assert_same_names(names_in_section(text, "## All methods", "`([%a_][%w_]*)[(`{]"), used)
    for name in pairs(methods.of["mmcmap.iterator"]) do
      assert.is_truthy(text:match("\n## All methods\n.-\n## "):find("`" .. name .. "`"), name)
    end
  end)

  it("begins with an example that runs", function()
    local code = assert(text:match("\n```lua\n(.-)\n```"))
    local folder = helper.folder()
    local path = folder .. "/game.mmc"
    code = code:gsub('"game%.mmc([%w.]*)"', function(rest)
      return ("%q"):format(path .. rest)
    end)
    assert.is_truthy(code:find(path, 1, true))
    assert.equal("Luna\t1\nadmin\t1\n2\tadmin\n", helper.child(code))
    assert.equal(20, #helper.store(nil, path))
    helper.close_all()
  end)
end)

describe("relative links", function()
  for _, name in ipairs(files("ls *.md docs/*.md")) do
    it("of " .. name .. " lead to files", function()
      local folder = name:match("^.*/") or ""
      for target in read(name):gmatch("%]%(([^)]+)%)") do
        if not target:find("^%a+:") then
          assert.is_true(helper.exists(("%s/%s%s"):format(source, folder,
            target:match("^[^#]+"))), target)
        end
      end
    end)
  end
end)
