-- SPDX-License-Identifier: MIT
--
-- Other processes that do what a spec tells them. A peer reads code, runs it
-- and sends back what it returned; all in one line each way.
--
--   peer = peers.start(path, options)  a new program that has opened the store;
--                   options.open: the source of open()'s options;
--                   options.through: words put before its command
--   peer = peers.fork(scope)  a fork of this process: the code sees the scope
--   peers.orphan(f)           a fork of this process that runs f() and may outlive
--                   it; its pid. f() gets a function that waits for a moment
--                   and says whether to go on: for half a minute
--   peers.is_alive(pid)
--   peer:ask(code, ...)       what the code returned, as text ("nil", "v EBUSY");
--                             raises its error. The code gets the other
--                             arguments, as text, for `...`
--   peer:tell(code, ...) peer:answer()    the same in two halves
--   peer:kill([signal])       it is gone when this returns
--   peer:stop() peer:go_on()  SIGSTOP, returning once it is stopped; SIGCONT
--   peer:count(code, least)   runs code that reports(i) how far it is, until that
--                             is `least`
--   peer:kill_counting()      kill(); the last that it reported.
--   peer:end_counting()       the same, of one that ends by itself
--   peer:finish()             an end in good order: the state is closed
--   peers.kill_all()          for after_each
--   peers.faults(path)        what a check of the closed file finds: an empty
--                             table
--
-- The code sees path, db, mmcmap, reports, probe, helper, peers, and what earlier code
-- has assigned. It has no comments, since it becomes one line.

local helper = require "spec.support.helper"
local probe = require "mmcmap_probe"

local peers = {}

local SIGKILL, SIGCONT, SIGSTOP = 9, 18, 19

local Peer = {}
Peer.__index = Peer

local running = {}

-- ---- Lines ------------------------------------------------------------------

local function encoded(text)
  return (tostring(text):gsub("[%%\t\r\n]", function(byte)
    return ("%%%02x"):format(byte:byte())
  end))
end

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

local function packed(...) return { n = select("#", ...), ... } end

local function loaded(code, scope)
  if setfenv then -- luacheck: ignore 113
    local f, message = loadstring(code, "=peer") -- luacheck: ignore 113
    return f and setfenv(f, scope), message -- luacheck: ignore 113
  end
  return load(code, "=peer", "t", scope)
end

local function perform(line, scope)
  local words = {}
  for word in (line .. "\t"):gmatch("([^\t]*)\t") do
    words[#words + 1] = decoded(word)
  end
  local f, message = loaded(words[1], scope)
  if not f then return "error\t" .. encoded(message) end
  local results = packed(pcall(f, (unpack or table.unpack)(words, 2))) -- luacheck: ignore 113
  local texts = {}
  for i = 2, results.n do texts[i - 1] = tostring(results[i]) end
  return (results[1] and "ok\t" or "error\t")
    .. encoded(table.concat(texts, " "))
end

-- The other process's side: does what it reads until it is told to end.
function peers.serve(scope, read, write)
  scope.probe, scope.helper, scope.peers = probe, helper, peers
  setmetatable(scope, { __index = _G })
  for line in read do
    if line == "end" then return end
    write(perform(line, scope))
  end
end

-- ---- Processes --------------------------------------------------------------

local SCRIPT = [[
local function say(line) io.write(line .. "\n") end
io.stdout:setvbuf("no")
require("spec.support.peers").serve({ mmcmap = require "mmcmap",
  path = arg[1], reports = say }, function() return io.read("*l") end, say)
]]

local script

local function remember(child)
  local peer = setmetatable({ child = child }, Peer)
  running[peer] = true
  return peer
end

-- The process that does the work: the last one of a chain of wrappers.
local function last_of_chain(pid)
  while true do
    local file = io.open(("/proc/%d/task/%d/children"):format(pid, pid))
    local below = file and file:read("*a"):match("%d+")
    if file then file:close() end
    if not below then return pid end
    pid = tonumber(below)
  end
end

-- A peer that has opened nothing yet.
function peers.launch(path, options)
  script = script or helper.write(helper.path(".lua"), table.concat({
    ("package.path = %q"):format(package.path),
    ("package.cpath = %q"):format(package.cpath), SCRIPT }, "\n"))
  local words = {}
  local preload = os.getenv("LD_PRELOAD") -- of a sanitizer: not for wrappers
  if options and options.through then
    words = { "env", "-u", "LD_PRELOAD" }
    for _, word in ipairs(options.through) do words[#words + 1] = word end
    if preload then
      words[#words + 1] = "env"
      words[#words + 1] = "LD_PRELOAD=" .. preload
    end
  end
  words[#words + 1] = helper.interpreter()
  words[#words + 1] = script
  words[#words + 1] = path or ""
  local peer = remember(probe.child.exec((unpack or table.unpack)(words))) -- luacheck: ignore 113
  peer:ask("return 1")
  peer.pid = last_of_chain(peer.child:pid())
  return peer
end

function peers.start(path, options)
  local peer = peers.launch(path, options)
  peer:ask("db = assert(mmcmap.open(path, "
    .. (options and options.open or "nil") .. "))")
  return peer
end

function peers.fork(scope)
  io.stdout:flush()
  local peer = remember(probe.child.start(function()
    scope.reports = function(number) probe.child.say(tostring(number)) end
    peers.serve(scope, probe.child.hear, probe.child.say)
  end))
  peer.pid = peer.child:pid()
  return peer
end

-- It lets go of what it could be waited for by.
function peers.orphan(f)
  local child = probe.child.start(function()
    local limit = probe.os.monotonic_ns() + 30e9
    probe.child.leave()
    f(function() -- whether there is time left
      probe.os.sleep_ms(5)
      return probe.os.monotonic_ns() < limit
    end)
  end)
  return child:forget()
end

-- "R", "S", "T" (stopped), "Z" (ended) and so on, or nil if there is no such
-- process.
function peers.state_of(pid)
  local file = io.open(("/proc/%d/stat"):format(pid))
  if not file then return nil end
  local state = file:read("*a"):match("%) (%a)")
  file:close()
  return state
end

function peers.is_alive(pid)
  local state = peers.state_of(pid)
  return state ~= nil and state ~= "Z"
end

function peers.kill_all()
  for peer in pairs(running) do peer:kill() end
end

-- What a check of the closed file finds.
function peers.faults(path)
  return assert(probe.verify.bytes(helper.read(path))).failures
end

-- ---- Methods ----------------------------------------------------------------

function Peer:tell(code, ...)
  local words = { encoded(code) }
  for i = 1, select("#", ...) do
    words[i + 1] = encoded((select(i, ...)))
  end
  self.child:tell(table.concat(words, "\t"))
end

function Peer:answer()
  local line = self.child:line()
  if not line then error("the process has ended", 2) end
  local verdict, text = line:match("^(%w+)\t(.*)$")
  if not verdict then error("the process said: " .. line, 2) end
  if verdict ~= "ok" then error("in the process: " .. decoded(text), 2) end
  return decoded(text)
end

function Peer:ask(code, ...)
  self:tell(code, ...)
  local ok, text = pcall(self.answer, self)
  if not ok then error(text, 2) end
  return text
end

-- How the process ended: "exit" or "signal", its status, and what it had said
-- that was not read.
function Peer:wait()
  running[self] = nil
  local text, how, status = self.child:wait()
  return how, status, text
end

function Peer:kill(signal)
  probe.child.signal(self.pid or self.child:pid(), signal or SIGKILL)
  return self:wait()
end

function Peer:count(code, least)
  self:tell(code)
  local line
  repeat
    line = self.child:line() or error("the process has ended", 2)
    self.reported = tonumber(line) or error(decoded(line), 2)
  until self.reported >= least
end

-- The last that it reported before its end.
function Peer:end_counting()
  local _, _, text = self:wait()
  local last = self.reported or 0
  for number in text:gmatch("(%d+)\n") do last = tonumber(number) end
  return last
end

function Peer:kill_counting()
  probe.child.signal(self.pid, SIGKILL)
  return self:end_counting()
end

function Peer:finish()
  self.child:tell("end")
  local how, status = self:wait()
  if how ~= "exit" or status ~= 0 then
    error(("the process ended with %s %d"):format(how, status), 2)
  end
end

function Peer:await_stopped()
  for _ = 1, 2000 do
    if peers.state_of(self.pid) == "T" then return end
    probe.os.sleep_ms(5)
  end
  error("the process has not stopped", 2)
end

function Peer:stop()
  probe.child.signal(self.pid, SIGSTOP)
  self:await_stopped()
end

function Peer:go_on() probe.child.signal(self.pid, SIGCONT) end

return peers
