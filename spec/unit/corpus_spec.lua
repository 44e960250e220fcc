-- SPDX-License-Identifier: MIT
--
-- The corpus of files: sound ones of this format open with all that is in them,
-- for ever; of the broken ones spec/corpus/README.md says what is wrong and
-- what each operation answers, and so it is. Files are copied first.
--
-- What an operation answers is told in words: "all" if it was right for every
-- key, else how many keys got which other answer ("2 absent", "1 ECORRUPT F21
-- node kind"). After a change that is meant, MMCMAP_SHOW_CORPUS=1 prints the
-- lines that the README should have.

local probe = require "mmcmap_probe"
local helper = require "spec.support.helper"
local make_corpus = require "spec.support.make_corpus"
local scratch = require "spec.support.scratch"

local source = os.getenv("MMCMAP_SOURCE_DIR")
local folder = source .. "/spec/corpus/"

local function bytes_of(name)
  return assert(scratch.read(folder .. name .. ".mmc"), name)
end

local function masks_of(base)
  return base == "good-v1-collisions" and make_corpus.masks or {}
end

-- ---- What operations answer -------------------------------------------------

-- Counts answers, "all" being the right one.
local function tally()
  local counts, order = {}, {}
  local count = {}
  function count.add(answer)
    if not answer then return end
    if not counts[answer] then order[#order + 1] = answer end
    counts[answer] = (counts[answer] or 0) + 1
  end
  function count.text()
    table.sort(order)
    local words = {}
    for i, answer in ipairs(order) do words[i] = counts[answer] .. " " .. answer end
    return #words == 0 and "all" or table.concat(words, ", ")
  end
  return count
end

local function sorted_keys(content)
  local keys = {}
  for key in pairs(content) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function failure(code, what) return code .. " " .. tostring(what) end

local function get_all(db, content)
  local count = tally()
  for _, key in ipairs(sorted_keys(content)) do
    local value, code, what = db:get(key)
    if code then
      count.add(failure(code, what))
    elseif value == nil then
      count.add("absent")
    elseif value ~= content[key] then
      count.add("different")
    end
  end
  count.add(db:get("no such key") and "that is not there")
  return count.text()
end

local function pairs_all(db, content)
  local records, code, what = db:records()
  if not records then return failure(code, what) end
  local count = tally()
  for _, key in ipairs(sorted_keys(content)) do
    if records[key] == nil then
      count.add("absent")
    elseif records[key] ~= content[key] then
      count.add("different")
    end
  end
  for key in pairs(records) do
    if content[key] == nil then count.add("that is not there") end
  end
  return count.text()
end

local function change_all(db, keys, change)
  local count = tally()
  for _, key in ipairs(keys) do
    local done, code, what = change(db, key)
    if code then
      count.add(failure(code, what))
    elseif not done then
      count.add("absent")
    end
  end
  return count.text()
end

local function check(bytes, masks)
  local report, code, what = probe.verify.bytes(bytes, masks.primary_mask,
    masks.secondary_mask)
  if not report then return failure(code, what) end
  local seen, words = {}, {}
  for _, found in ipairs(report.failures) do
    local id = found.rule:match("^F%d+")
    if not seen[id] then words[#words + 1] = id end
    seen[id] = true
  end
  return #words == 0 and "ok" or table.concat(words, " ")
end

local function open(bytes, masks, readonly)
  local path = scratch.write(scratch.path("corpus"), bytes)
  local db, code, what = probe.store.open(path, { create = false,
    readonly = readonly, durability = "manual",
    primary_mask = masks.primary_mask, secondary_mask = masks.secondary_mask })
  return db, code and (code == "EVERSION" and code or failure(code, what)), path
end

-- What operations answer for a file: {open, get, pairs, put, delete, check}.
local function answers(bytes, masks, content)
  local row = { open = "ok", get = "-", pairs = "-", put = "-", delete = "-",
    check = check(bytes, masks) }
  local db, failed, path = open(bytes, masks, true)
  if not db then
    row.open = failed
    return row
  end
  row.get, row.pairs = get_all(db, content), pairs_all(db, content)
  assert.is_true(db:close())
  assert.is_true(scratch.read(path) == bytes, "reading changed the file")

  db, failed = open(bytes, masks)
  if not db then
    row.open = "to write: " .. failed
    return row
  end
  local keys = sorted_keys(content)
  keys[#keys + 1] = "a new key"
  row.put = change_all(db, keys, function(_, key)
    return db:put(key, "a new value")
  end)
  assert.is_true(db:sync())
  assert.is_true(db:close())

  db = assert(open(bytes, masks))
  keys[#keys] = nil
  row.delete = change_all(db, keys, function(_, key)
    return db:delete(key)
  end)
  assert.is_true(db:close())
  return row
end

-- ---- What the README says ---------------------------------------------------

local readme = assert(scratch.read(folder .. "README.md"))

-- {name = {rule, open, get, pairs, put, delete, check}}, of its table.
local function told()
  local rows = {}
  for line in readme:gmatch("[^\n]+") do
    local cells = {}
    for cell in line:gmatch("| ([^|]*[^| ]) ") do cells[#cells + 1] = cell end
    local name = cells[1] and cells[1]:match("^`(bad%-[%w-]+)%.mmc`$")
    if name then
      rows[name] = { rule = cells[2], open = cells[4], get = cells[5],
        pairs = cells[6], put = cells[7], delete = cells[8], check = cells[9] }
    end
  end
  return rows
end

local function show(name, rule, wrong, row)
  print(("# | `%s.mmc` | %s | %s | %s | %s | %s | %s | %s | %s |"):format(name,
    rule, wrong, row.open, row.get, row.pairs, row.put, row.delete, row.check))
end

describe("the corpus", function()
  for _, file in ipairs(make_corpus.good) do
    it("opens " .. file.name .. " with all that is in it", function()
      local content = make_corpus.content(file.name)
      local bytes = make_corpus.padded(bytes_of(file.name))
      local masks = masks_of(file.name)
      local row = answers(bytes, masks, content)
      for name, answer in pairs(row) do
        assert.equal((name == "check" or name == "open") and "ok" or "all",
          answer, name)
      end
      local db = assert(open(bytes, masks))
      assert.equal(#sorted_keys(content), db:count())
      assert.equal(not file.unclean, db:stat().was_clean)
      if file.unclean then
        assert.equal(3, db:stat().recovered_commits)
      end
      db:close()
      if not file.masks then
        local path = scratch.write(scratch.path("public"), bytes)
        local public = helper.store({ create = false }, path)
        assert.equal(file.hash or "xxh3", public:stat().hash)
        assert.same(content, (helper.records(public)))
        assert.same(file.map and { file.map.name } or {}, public:maps())
        if file.map then
          assert.same(file.map.records,
            (helper.records(public:map(file.map.name))))
        end
        public:close()
      end
    end)
  end

  local rows = told()
  local made = make_corpus.make_bad(bytes_of)

  for _, file in ipairs(made) do
    it("answers for " .. file.name .. " as its README says", function()
      local bytes = bytes_of(file.name)
      assert.is_true(bytes == file.bytes,
        "the file is not the one that make_corpus.lua makes")
      local row = answers(make_corpus.padded(bytes), masks_of(file.base),
        make_corpus.content(file.base))
      local wanted = rows[file.name]
      if os.getenv("MMCMAP_SHOW_CORPUS") then
        return show(file.name, wanted and wanted.rule or "F", "wrong", row)
      end
      assert.is_table(wanted, "README.md does not name it")
      wanted.rule = nil
      assert.same(wanted, row)
    end)
  end

  it("has a file for each rule of the format", function()
    local rules, count = assert(scratch.read(source .. "/docs/format.md")), 0
    for id in rules:gmatch("\n| (F%d+) |") do
      count = count + 1
      assert.is_truthy(readme:find("| " .. id .. " |", 1, true),
        "README.md has nothing about " .. id)
    end
    assert.is_true(count >= 36)
  end)

  it("names no file that is not there", function()
    local names = {}
    for _, file in ipairs(made) do names[file.name] = true end
    for name in pairs(rows) do assert.is_true(names[name], name) end
  end)
end)
