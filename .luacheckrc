-- SPDX-License-Identifier: MIT
-- "max": what any of Lua 5.1 to 5.4 and LuaJIT has, for code that asks.
std = "max"
max_line_length = 100
files["spec"].std = "max+busted"
