-- SPDX-License-Identifier: MIT
--
-- The front door of the Lua module. The work is done by "mmcmap.core", the C
-- module; its sources in src/lua carry the documentation of each function. What
-- is written here calls functions of the program's that may yield: Lua's own
-- pcall() lets them, where the version of Lua can.

local core = require "mmcmap.core"
local methods = core.methods -- of a store

-- Closes the snapshot of view(); an error is raised again as it was. Nothing becomes
-- true, as with update(): to assert() it would be a failure.
local function end_view(snapshot, ok, ...)
  snapshot:close()
  if not ok then error((...), 0) end
  if select("#", ...) == 0 then return true end
  return ...
end

function methods.view(db, f)
  if type(f) ~= "function" then
    error("bad argument #1 to 'view' (function expected, got " .. type(f) .. ")", 2)
  end
  local snapshot, message, code = methods.snapshot(db)
  if not snapshot then return nil, message, code end
  return end_view(snapshot, pcall(f, snapshot))
end

return {
  _VERSION = core._VERSION,
  backend = "c", -- how the engine is reached
  dump = core.dump,
  murmur3 = core.murmur3,
  open = core.open,
  salvage = core.salvage,
}
