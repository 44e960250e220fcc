-- SPDX-License-Identifier: MIT
--
-- What specs need of the world: names for temporary files, whole files as
-- strings, the shell, a small file system that fills up, and a Lua process
-- that starts from nothing. All files lie below MMCMAP_TMP_DIR, which the
-- runner removes; without one, in a folder beside the system's temporary files.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"

local scratch = {}

local folder -- this spec file's: each one loads this module anew
local number = 0

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end
scratch.quoted = quoted

-- What a shell command prints, without the last line's end.
function scratch.shell(command)
  return (probe.child.shell(command):gsub("\n$", ""))
end

-- The folder of this spec file's temporary files.
function scratch.folder()
  if not folder then
    local parent = os.getenv("MMCMAP_TMP_DIR")
    if not parent then
      parent = os.tmpname()
      os.remove(parent)
    end
    folder = scratch.shell(("mkdir -p %s && mktemp -d %s/spec-XXXXXX"):format(
      quoted(parent), quoted(parent)))
    assert(folder ~= "", "no temporary folder can be made")
  end
  return folder
end

-- A path in it that nobody has used.
function scratch.path(word)
  number = number + 1
  return ("%s/%s-%d"):format(scratch.folder(), word or "file", number)
end

function scratch.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

-- The file's bytes, or nil if there is none.
function scratch.read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a")
  if file then file:close() end
  return text
end

-- Until there is such a file: for half a minute, which is less than what waits for
-- the process that waits here.
function scratch.await(path)
  local limit = probe.os.monotonic_ns() + 30e9
  while not scratch.read(path) do
    if probe.os.monotonic_ns() > limit then
      error(path .. " has not come within half a minute")
    end
    probe.os.sleep_ms(2)
  end
end

-- A store, opened by the probe: "manual", and in the smallest segments, unless the
-- options say otherwise.
scratch.SEGMENT = 131072
function scratch.open(path, options)
  local all = { durability = "manual", segment_size = scratch.SEGMENT }
  for name, value in pairs(options or {}) do all[name] = value end
  return assert(probe.store.open(path, all))
end

-- Its numbers of segments and of bytes.
function scratch.usage(db)
  local numbers = {}
  for name, hex in pairs(assert(db:usage())) do numbers[name] = binary.number(hex) end
  return numbers
end

-- Lock files are long, and nearly all of one was never written. Its pages that are
-- not zeros, {offset = bytes}, and its size.
local PAGE = 4096
function scratch.read_pages(path)
  local text, zeros, pages = assert(scratch.read(path)), ("\0"):rep(PAGE), {}
  for offset = 0, #text - 1, PAGE do
    local page = text:sub(offset + 1, offset + PAGE)
    if page ~= zeros then pages[offset] = page end
  end
  return pages, #text
end

-- The file of `size` bytes with these pages, in place.
function scratch.write_pages(path, pages, size)
  local file = assert(io.open(path, "wb"))
  file:seek("set", size - 1)
  file:write("\0")
  for offset, page in pairs(pages) do
    file:seek("set", offset)
    file:write(page)
  end
  file:close()
end

function scratch.is_root()
  return scratch.shell("id -u") == "0"
end

-- Calls f(path) with a folder on a file system of `size` ("64k") of its own;
-- false and why if it cannot be had.
function scratch.with_small_file_system(size, f)
  if not scratch.is_root() then return false, "needs root to mount a tmpfs" end
  local place = scratch.path("mount")
  local mounted = scratch.shell(("mkdir %s && mount -t tmpfs -o size=%s tmpfs "
    .. "%s 2>/dev/null && echo yes"):format(quoted(place), size, quoted(place)))
  if mounted ~= "yes" then return false, "a tmpfs cannot be mounted here" end
  local ok, message = pcall(f, place)
  scratch.shell("umount -l " .. quoted(place))
  assert(ok, message)
  return true
end

-- Runs Lua code in a new process of the same interpreter: what it printed.
-- `redirections` are the shell's.
function scratch.fresh(code, redirections)
  local file = scratch.write(scratch.path("fresh"), code)
  local preload = quoted(os.getenv("LD_PRELOAD") or "")
  return scratch.shell(('LD_PRELOAD=%s "$MMCMAP_LUA" %s %s')
    :format(preload, quoted(file), redirections or ""))
end

return scratch
