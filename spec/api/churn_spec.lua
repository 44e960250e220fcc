-- SPDX-License-Identifier: MIT
--
-- The program that measures whether a file stays small runs all its loads, on a few
-- records: what it writes is well formed and adds up. No time and no size is
-- asserted that a busy machine, or a store of so few records, could change.

local helper = require "spec.support.helper"

local build = os.getenv("MMCMAP_BUILD_DIR") or "."
local source = os.getenv("MMCMAP_SOURCE_DIR") or "."
local program = build .. "/churn"
local TINY = "--data=0.2 --sync-data=0.01 --value=100 --ttl=100 --out=."

-- Runs it in a folder of its own; the folder, the output, the status.
local function run(options)
  local folder = helper.folder()
  local output = helper.run("{ cd %s && %s " .. options
    .. "; echo status $?; }", folder, program)
  return folder, output, tonumber(output:match("status (%d+)$"))
end

-- Of one of its files, whose other columns are numbers.
local function rows_of(path)
  local rows = helper.rows_of(path)
  for _, row in ipairs(rows) do
    for name, field in pairs(row) do
      if name ~= "load" and name ~= "level" then
        row[name] = assert(tonumber(field), name)
      end
    end
  end
  return rows
end

local function ordered(row, ...)
  local names = { ... }
  for i = 2, #names do
    assert.is_true(row[names[i - 1]] <= row[names[i]],
      names[i - 1] .. " is more than " .. names[i])
  end
end

local function about(expected, found, name)
  assert.is_true(math.abs(found - expected) <= 0.01 * expected + 0.001,
    ("%s: %s, not %s"):format(name, found, expected))
end

local loads = { "uniform", "hot", "turns", "sizes", "snapshot", "session",
  "small" }

local function check_summary(row, work)
  local name = row.load .. " " .. row.level
  assert.is_true(row.records >= 10, name)
  assert.equal(row.load == "turns", row.deletes > 0, name)
  if row.load ~= "sizes" then
    about(row.records * work, row.puts, name)
    assert.equal(row.puts * 116, row.put_bytes, name)
  end
  if row.load ~= "sizes" and row.load ~= "session" then
    assert.equal(row.records * 116, row.logical_bytes, name)
  end
  -- Less than was put: what is overwritten before a commit gives its place.
  assert.is_true(row.appended_over_put > 0, name)
  ordered(row, "alive_bytes", "live_bytes")
  -- All that is alive is in the file.
  ordered(row, "logical_bytes", "size_bytes")
  if row.load ~= "session" then
    ordered(row, "logical_bytes", "compacted_size_bytes")
  end
  assert.is_true(row.most_over_alive >= row.size_over_alive - 0.0001, name)
  if row.load ~= "session" then
    ordered(row, "logical_bytes", "live_bytes")
    about(row.size_bytes / row.logical_bytes, row.size_over_logical, name)
  end
  ordered(row, "call_p50_ms", "call_p99_ms", "call_p9999_ms", "call_most_ms")
  ordered(row, "call_most_unsynced_ms", "call_most_ms")
  ordered(row, "step_p50_ms", "step_p99_ms", "step_most_ms")
  ordered(row, "step_most_unsynced_ms", "step_most_ms")
  assert.equal(row.level == "manual", row.steps > 0, name)
  assert.equal(row.level == "manual", row.step_most_ms > 0, name)
  -- A put of a synced store waits for its sync, and that is known. (Where records
  -- expire a thread of the store's own may make it.)
  if row.level == "sync" and row.load ~= "session" then
    assert.is_true(row.call_most_unsynced_ms < row.call_most_ms, name)
  end
  local has_snapshot = row.load == "snapshot"
  assert.equal(has_snapshot, row.snapshot_before_bytes > 0, name)
  assert.equal(has_snapshot, row.snapshot_held_bytes > 0, name)
  assert.equal(has_snapshot, row.snapshot_most_bytes > 0, name)
end

-- The samples of one load at one level, in their order.
local function check_samples(samples, summary, work)
  local name = summary.load .. " " .. summary.level
  local first, last = samples[1], samples[#samples]
  assert.is_true(#samples >= work * 10, name)
  assert.equal(0, first.changes, name)
  assert.equal(0, first.put_bytes, name)
  assert.is_true(last.work >= work - 0.001, name)
  assert.equal(summary.puts + summary.deletes, last.changes, name)
  assert.equal(summary.put_bytes, last.put_bytes, name)
  assert.equal(summary.size_bytes, last.size_bytes, name)
  about(last.size_bytes / last.alive_most_bytes, summary.size_over_alive, name)
  for i, row in ipairs(samples) do
    ordered(row, "alive_bytes", "alive_most_bytes")
    ordered(row, "alive_bytes", "live_bytes")
    ordered(row, "logical_bytes", "size_bytes", "size_most_bytes")
    ordered(row, "moved_bytes", "appended_bytes")
    local before = samples[i - 1] or row
    for _, grows in ipairs { "seconds", "changes", "put_bytes",
      "appended_bytes", "moved_bytes", "written_bytes" } do
      assert.is_true(before[grows] <= row[grows], name .. " " .. grows)
    end
  end
end

-- The other builds do not make it.
local function it_once(name, act)
  it(name, _VERSION == "Lua 5.4" and act or function()
    pending("once is enough: with Lua 5.4")
  end)
end

describe("the measuring of churn", function()
  it_once("runs every load at every level of durability", function()
    local work = 6
    local folder, output, status = run(TINY .. " --work=" .. work)
    assert.equal(0, status, output)
    local samples, seen = {}, {}
    for _, row in ipairs(rows_of(folder .. "/churn-time.csv")) do
      local id = row.load .. " " .. row.level
      samples[id] = samples[id] or {}
      table.insert(samples[id], row)
    end
    for _, row in ipairs(rows_of(folder .. "/churn.csv")) do
      seen[#seen + 1] = row.load .. " " .. row.level
      check_summary(row, work)
      check_samples(samples[seen[#seen]], row, work)
    end
    local expected = {}
    for _, level in ipairs { "async", "sync", "manual" } do
      for _, load in ipairs(loads) do
        expected[#expected + 1] = load .. " " .. level
      end
    end
    assert.same(expected, seen)
    for _, load in ipairs(loads) do
      assert.is_truthy(output:find("\n" .. load .. " +async "), load)
    end
    -- Nothing is left behind but what it writes.
    assert.equal("churn-time.csv\nchurn.csv",
      helper.run("LC_ALL=C ls -A %s", folder))
  end)

  it_once("knows what has expired, though it may not be swept", function()
    -- What may have expired by half a second more or less is not looked up: some
    -- records live for longer.
    local folder, output, status = run(TINY:gsub("ttl=100", "ttl=1500")
      .. " --loads=session --levels=manual --work=2")
    assert.equal(0, status, output)
    local rows = rows_of(folder .. "/churn-time.csv")
    local data = rows_of(folder .. "/churn.csv")[1].records * 116
    local last = rows[#rows]
    assert.is_true(last.logical_bytes < last.put_bytes)
    for _, row in ipairs(rows) do
      -- Headers and branches are less than the records.
      if row.logical_bytes > data / 2 then
        assert.is_true(row.alive_bytes <= row.logical_bytes * 2)
      end
    end
  end)

  it_once("runs what it is asked for", function()
    local folder, output, status = run(TINY
      .. " --work=1 --loads=small,hot --levels=manual,async")
    assert.equal(0, status, output)
    local seen = {}
    for _, row in ipairs(rows_of(folder .. "/churn.csv")) do
      seen[#seen + 1] = row.load .. " " .. row.level
    end
    assert.same({ "hot async", "small async", "hot manual", "small manual" },
      seen)
    local list = helper.run("%s --list", program)
    local listed = {}
    for name in ("\n" .. list):gmatch("\n(%S+)") do
      listed[#listed + 1] = name
    end
    assert.same(loads, listed)
  end)

  it_once("says what it does not understand", function()
    for _, option in ipairs { "--loads=none", "--levels=none", "--loads=hot,",
      "--data=0", "--data=x", "--value=15", "--work=0", "--what", "word" } do
      local _, output, status = run(option)
      assert.equal(2, status, option)
      assert.is_truthy(output:find("usage", 1, true))
    end
  end)

  it_once("is drawn", function()
    if helper.run("command -v gnuplot") == "" then return pending("no gnuplot") end
    local folder = run(TINY .. " --work=2 --loads=uniform,turns")
    local output = helper.run("%s --churn %s %s", source .. "/tools/bench-plot",
      folder .. "/churn-time.csv", folder)
    local picture = helper.read(folder .. "/churn.svg")
    assert.is_truthy(picture:find("<svg", 1, true), output)
    assert.is_truthy(picture:find("</svg>", 1, true), output)
    for _, word in ipairs { "uniform", "turns", "async", "sync", "manual" } do
      assert.is_truthy(picture:find(">" .. word .. "<", 1, true), word)
    end
  end)
end)
