-- SPDX-License-Identifier: MIT
--
-- The benchmarks run with every engine that was built, on a few records: what
-- they write is well formed, and a wrong value is noticed. No time is asserted.

local helper = require "spec.support.helper"

local build = os.getenv("MMCMAP_BUILD_DIR") or "."
local source = os.getenv("MMCMAP_SOURCE_DIR") or "."
local program = build .. "/bench_driver"

-- Runs the driver in a folder of its own; the folder, the output, the status.
local function drive(format, ...)
  local folder = helper.folder()
  local output = helper.run("{ cd %s && %s --out=. " .. format
    .. "; echo status $?; }", folder, program, ...)
  return folder, output, tonumber(output:match("status (%d+)$"))
end

local rows_of = helper.rows_of

local function engines_built()
  local names = {}
  local list = helper.run("%s --list", program)
  local engines = list:match("engines:\n(.-)\nsuites:")
  for name in ("\n" .. engines):gmatch("\n  (%S+)") do names[name] = true end
  return names
end

local suites = {
  records = { "put", "get", "miss", "get_many_32", "snapshot_get", "scan",
    "overwrite", "mixed_80_20", "delete", "open", "first_get", "size_loaded",
    "size_overwritten", "memory_peak", "memory_own" },
  batch = {},
  durable = { "durable_put" },
  ycsb = { "put", "ycsb_a", "ycsb_b", "ycsb_c", "ycsb_d", "ycsb_f" },
  original = { "put", "get", "overwrite" },
}

local function check_rows(folder, suite, rounds)
  local seen = {}
  for _, row in ipairs(rows_of(folder .. "/results.csv")) do
    assert.equal(suite, row.suite)
    assert.is_true(tonumber(row.value) >= 0)
    assert.is_true(tonumber(row.operations) >= 1)
    if row.workload == "put" then assert.is_true(tonumber(row.value) > 0) end
    assert.is_truthy(({ ns = true, cpu_ns = true, ms = true,
      bytes = true })[row.unit])
    local id = row.engine .. " " .. row.workload .. " " .. row.threads
    if row.unit == "cpu_ns" then id = id .. " cpu" end
    seen[id] = (seen[id] or 0) + 1
    assert.equal(seen[id], tonumber(row.round), id)
  end
  local summed = 0
  for _, row in ipairs(rows_of(folder .. "/summary.csv")) do
    local id = row.engine .. " " .. row.workload .. " " .. row.threads
    if row.unit == "cpu_ns" then id = id .. " cpu" end
    assert.equal(rounds, seen[id], id)
    assert.is_true(tonumber(row.least) <= tonumber(row.median), id)
    assert.is_true(tonumber(row.median) <= tonumber(row.most), id)
    if row.engine == "mmcmap" and tonumber(row.median) > 0 then
      assert.equal(1, tonumber(row.ratio))
    end
    summed = summed + 1
  end
  local ids = 0
  for _ in pairs(seen) do ids = ids + 1 end
  assert.equal(ids, summed)
  return seen
end

describe("the benchmark's driver", function()
  for suite, workloads in helper.sorted(suites) do
    it("runs the suite " .. suite .. " with every engine there is", function()
      -- What is cut off has no figure for the size, and syncs may be slow.
      local folder, output, status = drive("--suite=%s --records=400 "
        .. "--rounds=2 --seconds=%s", suite,
        suite == "durable" and "0.05" or "0")
      assert.equal(0, status, output)
      if suite == "batch" then return end
      local seen = check_rows(folder, suite, 2)
      for _, workload in ipairs(workloads) do
        assert.equal(2, seen["mmcmap " .. workload
          .. (workload == "mixed_80_20" and " 2" or " 1")], workload)
      end
      for name in pairs(engines_built()) do
        local durable = suite == "durable"
        local first = durable and "durable_put" or "put"
        local found = seen[name .. " " .. first .. " 1"]
        if name == "bare" then
          assert.equal(durable and 2 or nil, found)
        elseif not durable then
          assert.equal(2, found, name)
        end
      end
    end)
  end

  it("puts transactions", function()
    local _, output, status = drive("--suite=batch --records=2000 --rounds=1")
    assert.equal(0, status, output)
  end)

  it("has records of other shapes", function()
    for _, shape in ipairs { { 8, 8 }, { 16, 1024 }, { 16, 65536 },
      { 40, 300 }, { 9, 13 } } do
      local folder, output, status = drive("--records=200 --rounds=1 "
        .. "--engines=mmcmap --key=%s --value=%s", tostring(shape[1]),
        tostring(shape[2]))
      assert.equal(0, status, output)
      local row = rows_of(folder .. "/summary.csv")[1]
      assert.equal(tostring(shape[1]), row.key_bytes)
      assert.equal(tostring(shape[2]), row.value_bytes)
    end
    local _, output, status = drive("--records=200 --rounds=1 --value=key "
      .. "--engines=mmcmap")
    assert.equal(0, status, output)
  end)

  it("opens a store whose process died", function()
    local folder, output, status = drive("--suite=crash --records=300 "
      .. "--rounds=1 --engines=mmcmap")
    assert.equal(0, status, output)
    assert.equal("open_after_crash",
      rows_of(folder .. "/results.csv")[1].workload)
  end)

  for _, lie in ipairs { "get", "miss", "many", "scan", "put", "erase" } do
    it("notices an engine that is wrong: " .. lie, function()
      local folder, output, status = drive("--records=400 --rounds=1 "
        .. "--engines=mmcmap,%s", "lie-" .. lie)
      assert.equal(1, status, output)
      assert.is_truthy(output:find("lie-" .. lie .. ": WRONG", 1, true), output)
      -- One that is wrong has no figures; the others have theirs.
      local engines = {}
      for _, row in ipairs(rows_of(folder .. "/results.csv")) do
        engines[row.engine] = true
      end
      assert.same({ mmcmap = true }, engines)
    end)
  end

  it("leaves nothing behind but what it writes", function()
    local folder = drive("--records=200 --rounds=1 --engines=mmcmap")
    assert.equal("results.csv\nsummary.csv", helper.run("ls -A %s", folder))
  end)

  it("says what it does not understand", function()
    for _, option in ipairs { "--suite=none", "--engines=none", "--records=0",
      "--key=7", "--value=x", "--rounds=-1", "--what", "word" } do
      local _, output, status = drive("%s", option)
      assert.equal(2, status, option)
      assert.is_truthy(output:find("usage", 1, true))
    end
  end)
end)

describe("the benchmark from Lua", function()
  local function drive_lua(arguments)
    local folder = helper.folder()
    local path = ("%s/bench/lua/?.lua;%s"):format(source, package.path)
    return folder, helper.run("{ cd %s && LUA_PATH=%s LUA_CPATH=%s %s %s "
      .. arguments .. "; echo status $?; }", folder, path, package.cpath,
      helper.interpreter(), source .. "/bench/lua/driver.lua")
  end

  it("writes the same columns", function()
    local folder, output = drive_lua("--records=300 --rounds=2 --out=. "
      .. "--engines=mmcmap,table")
    assert.is_truthy(output:find("status 0", 1, true), output)
    local seen = check_rows(folder,
      (jit and "luajit" or _VERSION:gsub(" ", "-"):lower()), 2) -- luacheck: ignore 113
    for _, workload in ipairs { "put", "get", "index", "miss", "pairs",
      "newindex" } do
      assert.equal(2, seen["mmcmap " .. workload .. " 1"])
      assert.equal(2, seen["table " .. workload .. " 1"])
    end
  end)

  it("notices a wrong value", function()
    local _, output = drive_lua("--records=300 --rounds=1 --engines=lie")
    assert.is_truthy(output:find("lie: get: WRONG: 299 of 300", 1, true),
      output)
    assert.is_truthy(output:find("status 1", 1, true), output)
  end)
end)
