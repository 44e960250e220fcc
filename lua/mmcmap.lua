-- SPDX-License-Identifier: MIT
--
-- The front door of the Lua module. The work is done by "mmcmap.core", the C
-- module; its sources in src/lua carry the documentation of each function.

local core = require "mmcmap.core"

return {
  _VERSION = core._VERSION,
  backend = "c", -- how the engine is reached
  murmur3 = core.murmur3,
  open = core.open,
}
