-- SPDX-License-Identifier: MIT
--
-- Each example runs in a process of its own and does what it says.

local helper = require "spec.support.helper"
local probe = require "mmcmap_probe"

local source = os.getenv("MMCMAP_SOURCE_DIR") or "."

-- Runs an example and returns all that it printed. LUA_PATH and LUA_CPATH are
-- in the environment, where the example's own child finds them too.
local function run(name, ...)
  local words = { helper.quoted(helper.interpreter()),
    helper.quoted(source .. "/examples/" .. name) }
  for i = 1, select("#", ...) do
    words[i + 2] = helper.quoted(tostring((select(i, ...))))
  end
  return (helper.output_of(table.concat(words, " ")))
end

local function contains(output, text)
  assert.is_truthy(output:find(text, 1, true),
    ("%q is not in:\n%s"):format(text, output))
end

describe("examples/01-tour.lua", function()
  it("ends well and leaves nothing behind, twice", function()
    local path = helper.path()
    for _ = 1, 2 do
      contains(run("01-tour.lua", path), "All is as it should be.")
      assert.is_false(helper.exists(path))
    end
  end)

  it("takes a name of its own", function()
    contains(run("01-tour.lua"), "All is as it should be.")
  end)

  it("leaves a file alone that is there", function()
    local path = helper.write(helper.path(), "precious")
    contains(run("01-tour.lua", path), "exists")
    assert.equal("precious", helper.read(path))
  end)
end)

describe("examples/02-word-index.lua", function()
  local folder, store

  local function write(name, text) helper.write(folder .. "/" .. name, text) end

  local function index(...) return run("02-word-index.lua", "--store", store, ...) end

  before_each(function()
    folder, store = helper.folder(), helper.path()
    write("apples.txt", "An apple, an APPLE and a pear.\n")
    write("it's \"odd\" $(name).txt", "pear pear plum\n")
    write("packed.txt.gz", "pear")
    write("data.bin", "pear\0plum")
  end)

  it("finds the files that contain all words, and counts", function()
    contains(index(folder), "0 files as before, 3 new or changed")
    local output = index("--find", "pear")
    contains(output, "2 files contain pear")
    contains(output, "  2  " .. folder .. "/it's \"odd\" $(name).txt\n  1  "
      .. folder .. "/apples.txt")
    contains(index("--find", "Apple", "pear"),
      "1 files contain apple and pear\n  2 + 1  " .. folder .. "/apples.txt")
    contains(index("--find", "apple", "plum"), "0 files contain apple and plum")
    contains(index("--find", "nowhere"), "0 files contain nowhere")
  end)

  it("changes nothing when nothing has changed", function()
    local first = index(folder)
    local version = assert(first:match("Version (%d+), before 0%."), first)
    local bytes
    for _ = 1, 2 do
      local again = index(folder)
      contains(again, "3 files as before, 0 new or changed")
      contains(again, "Nothing has changed: version " .. version .. ", as before.")
      bytes = bytes or helper.read(store)
      assert.is_true(bytes == helper.read(store))
    end
    local db = helper.store({ readonly = true }, store)
    assert.equal(tonumber(version), db:version())
    db:close()
  end)

  it("follows files that change, come and go", function()
    index(folder)
    write("apples.txt", "One cherry and a pear.\n")
    write("new.txt", "plum cherry plum")
    os.remove(folder .. "/it's \"odd\" $(name).txt")
    contains(index(folder),
      "1 files as before, 2 new or changed, 2 changed or gone removed")
    contains(index("--find", "apple"), "0 files contain apple")
    contains(index("--find", "plum"), "1 files contain plum\n  2  " .. folder
      .. "/new.txt")
    contains(index("--find", "cherry"), "2 files contain cherry")
    contains(index("--find", "pear"), "1 files contain pear")
    contains(index(folder), "Nothing has changed")
    -- Nothing is left of what is gone.
    local db = helper.store({ readonly = true }, store)
    assert.is_nil(db:get("w\0apple"))
    for key, value in db:pairs() do
      assert.is_nil((key .. value):find("odd", 1, true))
    end
    db:close()
  end)

  it("leaves the files of other folders alone", function()
    local other = helper.folder()
    helper.write(other .. "/other.txt", "quince")
    index(folder, other)
    index(folder)
    contains(index("--find", "quince"), "1 files contain quince")
    os.remove(other .. "/other.txt")
    index(other)
    contains(index("--find", "quince"), "0 files contain quince")
  end)

  it("may be bounded", function()
    contains(index("--limit", "1", folder), "1 new or changed")
    contains(index("--find", "apple"), "1 files contain apple")
    contains(index("--limit", "1", folder), "Nothing has changed")
    contains(index(folder), "1 files as before, 2 new or changed")
    contains(index("--limit", "1", folder), "Nothing has changed")
  end)

  it("tells how it is used", function()
    contains(index("--help"), "usage: ")
    contains(index("--no-such-option"), "usage: ")
    contains(index("--find"), "needs a word")
    contains(index("--limit", "x", folder), "needs a number")
    contains(index(folder .. "/nowhere"), "no such folder")
    assert.is_false(helper.exists(store .. "/nowhere"))
    contains(run("02-word-index.lua", "--store", folder .. "/none.mmc", "--find",
      "x"), "it does not exist")
  end)
end)

describe("examples/03-accounts.lua", function()
  it("ends well and leaves nothing behind", function()
    local path = helper.path()
    local output = run("03-accounts.lua", path)
    contains(output, "refused:\tcarol does not have 1000")
    contains(output, "All is as it should be.")
    assert.is_false(helper.exists(path))
  end)
end)

describe("examples/04-snapshots.lua", function()
  it("shows what has changed, and removes its file", function()
    local path = helper.path()
    local output = run("04-snapshots.lua", path)
    contains(output, "this morning: 3 kinds, 12 apples")
    contains(output, "now:          3 kinds, 7 apples")
    contains(output, "94 pieces of fruit")
    contains(output, "apples    12 -> 7\ncherries  none -> 80\nplums     30 -> none")
    contains(output, "kept: closing time, 3 kinds")
    contains(output, "apples: 7 at 0.30, now 0")
    assert.is_false(helper.exists(path))
  end)

  it("leaves a file alone that is there", function()
    local path = helper.write(helper.path(), "precious")
    contains(run("04-snapshots.lua", path), "exists")
    assert.equal("precious", helper.read(path))
  end)
end)

describe("examples/05-maps.lua", function()
  it("ends well and leaves nothing behind", function()
    local path = helper.path()
    local output = run("05-maps.lua", path)
    contains(output, "refused:\tno pot left")
    contains(output, "orders    2 records")
    contains(output, "All is as it should be.")
    assert.is_false(helper.exists(path))
  end)
end)

describe("examples/06-counters.lua", function()
  it("counts exactly with several processes, and removes its file", function()
    local path = helper.path()
    local output = run("06-counters.lua", path, 5, 1000)
    contains(output, "5000 visits by 5 processes")
    contains(output, "none is lost")
    contains(output, "not a number")
    local _, firsts = output:gsub("worker %d was first", "")
    assert.equal(1, firsts, output)
    for worker = 1, 5 do contains(output, "worker " .. worker .. " ended after ") end
    contains(output, "ended after nobody")
    assert.is_false(helper.exists(path))
  end)

  it("takes a name and numbers of its own", function()
    contains(run("06-counters.lua"), "8000 visits by 4 processes")
  end)

  it("leaves a file alone that is there", function()
    local path = helper.write(helper.path(), "precious")
    contains(run("06-counters.lua", path), "exists")
    assert.equal("precious", helper.read(path))
  end)
end)

describe("examples/07-session-cache.lua", function()
  it("ends sessions, and removes its file", function()
    local path = helper.path()
    local output = run("07-session-cache.lua", path, "0.5")
    local ends = tonumber((assert(output:match("session ends in (%d%.%d) seconds"), output)))
    assert.is_true(ends > 0 and ends <= 0.5, output)
    contains(output, "still there: alice, and the operator")
    contains(output, "the lock is refused to somebody else\n"
      .. "the lock went to somebody else")
    local sessions, left = output:match("(%d+) sessions, of which (%d+) are left")
    assert.is_true(tonumber(sessions) >= 2001 and tonumber(left) < 2000, output)
    assert.is_false(helper.exists(path))
  end)

  it("leaves a file alone that is there", function()
    local path = helper.write(helper.path(), "precious")
    contains(run("07-session-cache.lua", path), "exists")
    assert.equal("precious", helper.read(path))
  end)
end)

-- Installs what C programs need of this build, and builds the example with that
-- alone, as the example says. Nil and why if it cannot be done here.
local function build_c_example(name)
  if probe.sanitizer then return nil, "the library needs the sanitizer" end
  if helper.output_of("pkg-config --version; echo $?"):match("%d+%s*$") ~= "0\n" then
    return nil, "needs pkg-config"
  end
  local build = os.getenv("MMCMAP_BUILD_DIR")
  local compiler = helper.read(build .. "/Makefile"):match("\nCC = ([^\n]*)")
  local root, program = helper.folder(), helper.path(".out")
  local output = helper.output_of(([[exec 2>&1; set -e
    root=%s
    unset MAKEFLAGS MFLAGS MAKELEVEL
    make -C %s libdir="$root/lib" includedir="$root/include" \
      pkgconfigdir="$root/lib/pkgconfig" install-includeHEADERS \
      install-pkgconfigDATA install-libLTLIBRARIES
    export PKG_CONFIG_PATH="$root/lib/pkgconfig"
    flags=$(pkg-config --cflags --libs mmcmap --define-variable=libdir="$root/lib" \
      --define-variable=includedir="$root/include")
    %s -std=c99 -Wall -Wextra -Wpedantic -Werror %s -o %s $flags -Wl,-rpath,"$root/lib"
    echo built]]):format(helper.quoted(root), helper.quoted(build), compiler,
    helper.quoted(source .. "/examples/" .. name), helper.quoted(program)))
  assert(output:find("\nbuilt\n$"), output)
  return program
end

describe("examples/08-embedding.c", function()
  it("is built with what is installed, and counts words", function()
    local program, why = build_c_example("08-embedding.c")
    if not program then return pending(why) end
    local path = helper.path()
    local function count(text)
      return helper.run("printf %s | %s %s", text, program, path)
    end
    local function lines(output)
      local found = {}
      for line in output:gmatch("[^\n]+") do found[#found + 1] = line end
      table.sort(found)
      return found
    end
    assert.equal("no words, 0 different ones", count(""))
    assert.same({ "  be: 2", "  not: 1", "  or: 1", "  to: 2",
      "6 words, 4 different ones" }, lines(count("To be, or not to be")))
    assert.same({ "  be: 2 -> 3", "  there: 1", "8 words, 5 different ones" },
      lines(count("be there")))
    -- What it leaves is a store like any other.
    local db = helper.store(nil, path)
    assert.equal("8", db.total)
    assert.same({ to = "2", be = "3", ["or"] = "1", ["not"] = "1", there = "1" },
      helper.records(db:map("words")))
    db:map("words"):put("or", "many")
    db:close()
    contains(count("to be or not to be"), "the value is not a number")
    db = helper.store(nil, path)
    assert.equal("8", db.total) -- nothing of it has been counted
    db:close()
    helper.write(path, "precious")
    contains(count("to be"), "is not a mmcmap store")
    assert.equal("precious", helper.read(path))
    contains(helper.run("%s", program), "usage: ")
  end)
end)
