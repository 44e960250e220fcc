-- SPDX-License-Identifier: MIT
--
-- Runs specs with busted and prints TAP. It works under every Lua that the
-- module works under: the one that runs this file runs the specs.
--
--   lua5.4 spec/run.lua [--build DIR] [OPTION ...] [SPEC ...]
--
-- The build folder is --build, else $MMCMAP_BUILD_DIR, else the folder that
-- one is in. Without SPEC, all of spec/ is run.
--
-- The process started by hand (or by make) makes a temporary folder, runs a
-- second one in it with a clean environment, and removes the folder again,
-- whatever becomes of the second. Specs find
--   MMCMAP_BUILD_DIR, MMCMAP_SOURCE_DIR   absolute
--   MMCMAP_TMP_DIR                        the only place to write in
--   MMCMAP_LUA                            the interpreter, for further processes
-- MMCMAP_RUN_WITH is put before the second process's command (valgrind ...).
-- It and its children are killed after MMCMAP_SPEC_SECONDS (300, 900 with
-- MMCMAP_LONG or MMCMAP_RUN_WITH; 0 for never).
-- Options are busted's, with '=' (--filter=word).
--
-- It exits with 0 only if at least one test ran and all passed.

local FAILED = 3 -- the second process's status when the TAP tells of failures

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function output_of(command)
  local pipe = assert(io.popen(command))
  local line = pipe:read("*l")
  pipe:close()
  return line
end

local function absolute(folder)
  local path = output_of("cd " .. quoted(folder) .. " 2>/dev/null && pwd -P")
  if not path then
    io.stderr:write("spec/run.lua: no such folder: ", folder, "\n")
    os.exit(2)
  end
  return path
end

local function interpreter()
  local lowest = 0
  while arg[lowest - 1] do lowest = lowest - 1 end
  return arg[lowest]
end

-- ---- The first process ------------------------------------------------------

-- The command's exit status; os.execute() tells it in three different ways.
local function status_of(command, status_file)
  os.execute(command .. "; echo $? >" .. quoted(status_file))
  local file = assert(io.open(status_file))
  local status = file:read("*n")
  file:close()
  return status
end

local function environment(source, build, temporary)
  local path = table.concat({ source .. "/lua/?.lua", source .. "/?.lua",
    source .. "/spec/support/?.lua", "" }, ";") .. ";"
  local cpath = build .. "/module/?.so;;"
  local words = { "env" }
  for _, version in ipairs { "5_2", "5_3", "5_4" } do
    words[#words + 1] = "-u LUA_INIT_" .. version
    words[#words + 1] = "-u LUA_PATH_" .. version
    words[#words + 1] = "-u LUA_CPATH_" .. version
  end
  words[#words + 1] = "-u LUA_INIT"
  for name, value in pairs {
    LUA_PATH = path, LUA_CPATH = cpath,
    MMCMAP_BUILD_DIR = build, MMCMAP_SOURCE_DIR = source,
    MMCMAP_TMP_DIR = temporary, MMCMAP_RUN_INNER = "yes",
    MMCMAP_LUA = interpreter(),
  } do
    words[#words + 1] = name .. "=" .. quoted(value)
  end
  return table.concat(words, " ")
end

local function outer()
  local source = absolute((arg[0]:match("^(.*)/[^/]*$") or ".") .. "/..")
  local build = os.getenv("MMCMAP_BUILD_DIR") or "."
  local words, index = {}, 1
  while arg[index] do
    if arg[index] == "--build" then
      build, index = arg[index + 1] or ".", index + 1
    else
      words[#words + 1] = quoted(arg[index])
    end
    index = index + 1
  end
  build = absolute(build)

  local temporary = output_of(
    'mktemp -d "${TMPDIR:-/tmp}/mmcmap-spec-XXXXXX" 2>/dev/null')
  if not temporary then
    io.stderr:write("spec/run.lua: cannot make a temporary folder\n")
    os.exit(2)
  end
  local inside = temporary .. "/files"
  os.execute("mkdir " .. quoted(inside))
  local is_slow = os.getenv("MMCMAP_LONG") or os.getenv("MMCMAP_RUN_WITH")
  local limit = os.getenv("MMCMAP_SPEC_SECONDS") or is_slow and "900" or "300"
  local command = table.concat({
    quoted(source .. "/spec/support/within.sh"), quoted(limit), quoted(inside),
    environment(source, build, inside),
    os.getenv("MMCMAP_RUN_WITH") or "",
    quoted(interpreter()), quoted(source .. "/spec/run.lua"),
    table.concat(words, " ") }, " ")
  local status = status_of(command, temporary .. "/status")
  local finished = io.open(temporary .. "/finished")
  if finished then finished:close() end
  local file = io.open(temporary .. "/test")
  local test = file and file:read("*a") or "(none)"
  if file then file:close() end
  os.execute("chmod -R u+rwx " .. quoted(temporary) .. " 2>/dev/null; rm -rf "
    .. quoted(temporary))
  if not finished or status ~= 0 and status ~= FAILED then
    -- It died, a spec or a checking tool ended it: no test says so.
    print((status == 124 and "Bail out! the specs took longer than " .. limit .. " s"
      or "Bail out! the specs' process ended early or badly, with status "
        .. tostring(status)) .. ", in or after: " .. test)
    os.exit(1)
  end
  os.exit(status == 0 and 0 or 1)
end

-- ---- The second process -----------------------------------------------------

-- The assertions that specs make by the ten thousand. What plainly holds is not
-- handed to luassert, which takes long over it, above all under valgrind; what
-- does not, and what is called with anything else, it judges and tells.
local function hasten(luassert)
  local function hasten_one(name, holds)
    rawset(luassert, name, function(...)
      if holds(...) then return ... end
      return luassert.state()[name](...)
    end)
  end
  hasten_one("equal", function(...)
    local a, b = ...
    return select("#", ...) >= 2 and rawequal(a, b) and select("#", ...) <= 3
  end)
  hasten_one("is_true", function(value) return value == true end)
  hasten_one("is_false", function(value) return value == false end)
  hasten_one("is_nil", function(...)
    return select("#", ...) >= 1 and (...) == nil
  end)
end

local function one_line(text)
  return (tostring(text):gsub("%s+", " "):gsub("#", "\\#"))
end

-- An output handler for busted. Its own TAP handler stops at names with a '#'.
local function tap_handler(totals)
  return function()
    local busted = require "busted"
    local handler = require "busted.outputHandlers.base"()

    local function say(...)
      io.stdout:write(...)
      io.stdout:write("\n")
      io.stdout:flush()
    end

    local function comment(text)
      say("# ", (tostring(text):gsub("\n", "\n# ")))
    end

    local function result(verdict, name, directive)
      totals.count = totals.count + 1
      say(verdict, " ", totals.count, " - ", one_line(name), directive or "")
    end

    local function not_ok(failure)
      totals.failed = totals.failed + 1
      result("not ok", failure.name)
      comment(failure.message or "no message")
      local trace = failure.trace and failure.trace.traceback
      if trace then comment(trace) end
    end

    -- For the first process, which tells of it if this one dies.
    function handler.test_start(element)
      local file = assert(io.open(os.getenv("MMCMAP_TMP_DIR") .. "/../test", "w"))
      file:write(one_line(handler.getFullName(element)))
      file:close()
      return nil, true
    end

    function handler.test_end(element, _, status)
      if status == "success" then
        result("ok", handler.getFullName(element))
      elseif status == "pending" then
        local pending = handler.pendings[#handler.pendings]
        result("ok", handler.getFullName(element),
          " # SKIP " .. one_line(pending.message or ""))
      elseif status == "failure" then
        not_ok(handler.failures[#handler.failures])
      else
        not_ok(handler.errors[#handler.errors])
      end
      return nil, true
    end

    -- What fails outside of a test: loading a file, setup, teardown.
    function handler.outside(element)
      if element.descriptor ~= "it" then
        not_ok(handler.errors[#handler.errors])
      end
      return nil, true
    end

    function handler.suite_end()
      if totals.count == 0 then
        say("Bail out! no test was found")
      else
        say("1..", totals.count)
      end
      return nil, true
    end

    hasten(require "luassert")
    busted.subscribe({ "test", "start" }, handler.test_start)
    busted.subscribe({ "test", "end" }, handler.test_end)
    busted.subscribe({ "error" }, handler.outside)
    busted.subscribe({ "failure" }, handler.outside)
    busted.subscribe({ "suite", "end" }, handler.suite_end)
    return handler
  end
end

local function inner()
  local totals = { count = 0, failed = 0 }
  local closes = _VERSION ~= "Lua 5.1" or rawget(_G, "jit")
  local function finish()
    local good = totals.count > 0 and totals.failed == 0
    local file = assert(io.open(os.getenv("MMCMAP_TMP_DIR") .. "/../finished",
      "w"))
    file:close()
    -- The state is closed, so that finalizers run and leaks are seen. 5.1 can
    -- close it only by returning.
    if not good or closes then os.exit(good and 0 or FAILED, true) end
  end

  local found, message = pcall(require, "busted.compatibility")
  if not found then
    print("Bail out! busted is missing for " .. _VERSION
      .. " (Debian: lua-busted): " .. message:match("^[^\n]*"))
    os.exit(FAILED)
  end
  require("busted.compatibility").exit = function(status)
    if status ~= 0 and totals.failed == 0 then os.exit(2) end
    finish()
  end
  package.preload["busted.outputHandlers.mmcmap"] = function()
    return tap_handler(totals)
  end
  table.insert(arg, 1, "--output=mmcmap")
  local named
  for _, word in ipairs(arg) do
    named = named or not word:find("^%-")
  end
  if not named then
    table.insert(arg, os.getenv("MMCMAP_SOURCE_DIR") .. "/spec")
  end
  require "busted.runner" { standalone = false }
  finish()
end

if os.getenv("MMCMAP_RUN_INNER") then inner() else outer() end
