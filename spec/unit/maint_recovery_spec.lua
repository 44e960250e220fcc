-- SPDX-License-Identifier: MIT
--
-- Recovery. A copy of the file taken while the store is open is what a crash
-- leaves; bytes of it are zeroed, flipped or cut off as a power cut might do.
-- The store that opens must be the one of a commit, and of the newest that is
-- still whole.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"
local peers = require "spec.support.peers"
local scratch = require "spec.support.scratch"
local format, open = probe.format, probe.store.open

local A_AT, B_AT, PAGE = 0, 8192, 4096
local SEGMENT, SEGMENT_HEADER = 131072, 64
local FILE_SIZE_MIN = 65536

local function options(changes)
  local all = { durability = "manual", segment_size = SEGMENT }
  for name, value in pairs(changes or {}) do all[name] = value end
  return all
end

local opened = {}

local function open_store(path, changes)
  local db, code, what = open(path, options(changes))
  if db then opened[#opened + 1] = db end
  return db, code, what
end

local function open_bytes(bytes, changes)
  return open_store(scratch.write(scratch.path("crash"), bytes), changes)
end

local function refused(code, rule, bytes, changes)
  local db, name, what = open_bytes(bytes, changes)
  assert.is_nil(db)
  assert.equal(code, name)
  if rule then assert.equal(rule, what:match("^F%d+")) end
end

local function copy(records)
  local other = {}
  for key, value in pairs(records) do other[key] = value end
  return other
end

-- ---- What is in a file ------------------------------------------------------

local function superblock_at(bytes, at)
  return (format.superblock_decode(bytes:sub(at + 1, at + PAGE), at, false))
end

-- The valid superblock with the higher sequence, and where it is.
local function newest(bytes)
  local a, b = superblock_at(bytes, A_AT), superblock_at(bytes, B_AT)
  if a and (not b or a.sequence > b.sequence) then return a, A_AT end
  return b, B_AT
end

-- The frames that recovery can see from the newest superblock on.
local function frames(bytes)
  local superblock = newest(bytes)
  local at, found = binary.number(superblock.heads[1].offset), {}
  while true do
    local size = binary.number_at(bytes, at + 64)
    if size == 0 or bytes:byte(at + 16) ~= 0x46 or
      binary.u64_at(bytes, at + 16) ~= superblock.salt then
      return found
    end
    found[#found + 1] = { at = at, size = size, flags = bytes:byte(at + 15),
      ends = bytes:byte(at + 15) % 2 == 1 }
    at = binary.number_at(bytes, at + 32)
  end
end

local function with_superblock(bytes, at, change)
  local superblock = superblock_at(bytes, at)
  change(superblock)
  return binary.patch(bytes, at, format.superblock_encode(superblock))
end

local function damaged(bytes, at)
  return binary.flip(bytes, at + 100)
end

-- ---- A store to crash -------------------------------------------------------

local db, path, model

local function put(key, value)
  assert(db:put(key, value))
  model[key] = value
end

-- The model as of the sync.
local function sync()
  assert(db:sync())
  return copy(model)
end

local function crash()
  return (assert(scratch.read(path)))
end

local function holds(expected, bytes)
  local other = assert(open_bytes(bytes))
  assert.same(expected, (assert(other:records())))
  local count = 0
  for _ in pairs(expected) do count = count + 1 end
  assert.equal(count, other:count())
  local stat = other:stat()
  assert(other:close())
  return stat
end

-- Two commits, the second of so many values of that size: both contents, and the file,
-- with its frames, after a crash.
local function two_commits(count, size)
  put("a", "1")
  local first = sync()
  for i = 1, count do put("key" .. i, binary.bytes(size, i)) end
  local second = sync()
  local bytes = crash()
  return first, second, bytes, frames(bytes)
end

describe("maint.recovery", function()
  before_each(function()
    path = scratch.path("store")
    db = assert(open_store(path))
    model = {}
  end)

  after_each(function()
    for _, store in ipairs(opened) do store:close() end
    opened = {}
  end)

  it("finds the last commit in a copy, and nothing later", function()
    put("a", "1")
    holds({}, crash())
    local first = sync()
    assert.equal(1, holds(first, crash()).recovered_commits)
    put("a", "2")
    put("b", "3")
    holds(first, crash())
    assert(db:version()) -- seals, commits nothing
    holds(first, crash())
    local second = sync()
    assert.equal(2, holds(second, crash()).recovered_commits)
    assert(db:close())
    local stat = holds(second, crash())
    assert.is_true(stat.was_clean)
    assert.equal(0, stat.recovered_commits)
  end)

  -- The one of the states that these bytes hold.
  local function held_one(states, bytes)
    local other = assert(open_bytes(bytes))
    local records = assert(other:records())
    assert(other:close())
    for i = #states, 1, -1 do
      local same = true
      for key, value in pairs(records) do same = same and states[i][key] == value end
      for key in pairs(states[i]) do same = same and records[key] ~= nil end
      if same then return states[i] end
    end
    error("what was recovered is none of " .. #states .. " states")
  end

  it("holds at any moment of a random run", function()
    local random = binary.random(binary.seed("maint.recovery"))
    -- After each change since the last sync: upkeep may have committed any.
    local states = { {} }
    for step = 1, 400 do
      local key = "key" .. random(60)
      local choice = random(20)
      if choice <= 11 then
        put(key, binary.bytes(random(choice == 1 and 70000 or 600), step))
        states[#states + 1] = copy(model)
      elseif choice <= 15 then
        assert.is_boolean(db:delete(key))
        model[key] = nil
        states[#states + 1] = copy(model)
      elseif choice <= 17 then
        states = { sync() }
      elseif choice == 18 then
        assert(db:version())
      elseif choice == 19 then
        held_one(states, crash())
      elseif random(4) == 1 then
        -- The crash is taken for real: it goes on from the copy.
        local bytes = crash()
        assert(db:close())
        path = scratch.write(scratch.path("store"), bytes)
        db = assert(open_store(path))
        model = copy(held_one(states, bytes))
        states = { copy(model) }
      else
        assert(db:close())
        db = assert(open_store(path))
        states = { copy(model) }
      end
      assert.equal(model[key], (db:get(key)))
    end
    held_one(states, crash())
  end)

  it("cuts off a torn last frame, wherever it is torn", function()
    local first, second, bytes, all = two_commits(40, 100)
    local last = all[#all]
    assert.is_true(last.size > 4096)
    holds(second, bytes)
    for at = last.at - last.at % 512, last.at + last.size - 1, 512 do
      local torn = math.max(at, last.at)
      local size = last.at + last.size - torn
      -- The rest never arrived; or the file ends there; or one sector is old.
      holds(first, binary.patch(bytes, torn, ("\0"):rep(size)))
      holds(first, bytes:sub(1, torn))
      holds(first, binary.patch(bytes, torn,
        ("\255"):rep(math.min(512, size))))
    end
  end)

  it("takes an epoch whole or not at all, in many frames", function()
    local first, second, bytes, all = two_commits(60, 8000)
    assert.is_true(#all > 4)
    holds(second, bytes)
    for i = 2, #all do
      holds(first, binary.flip(bytes, all[i].at + all[i].size - 1))
      holds(first, binary.patch(bytes, all[i].at, ("\0"):rep(72)))
    end
    holds({}, binary.flip(bytes, all[1].at + all[1].size - 1))
  end)

  it("takes no commit that goes on in a segment without its header", function()
    local first, second, bytes = two_commits(30, 8000)
    local begun = 0
    for _, frame in ipairs(frames(bytes)) do
      local at = frame.at - SEGMENT_HEADER
      if at % SEGMENT == 0 then
        begun = begun + 1
        local header = { number = at / SEGMENT, kind = 1, run = 1,
          file_id = newest(bytes).file_id }
        local function with(changes)
          for name, value in pairs(changes) do header[name] = value end
          return binary.patch(bytes, at, (format.segment_encode(header)))
        end
        holds(second, with {})
        holds(first, binary.flip(bytes, at + 20))
        holds(first, with { kind = 2 }) -- of large values
        holds(first, with { kind = 1, number = header.number + 1 })
      end
    end
    assert.is_true(begun > 0)
  end)

  -- The frames with other epochs, checksums and the chain made to fit again.
  local function with_epochs(bytes, list, epochs)
    local superblock = newest(bytes)
    local chain = superblock.chain
    for i, frame in ipairs(list) do
      if epochs[i] then bytes = binary.patch(bytes, frame.at + 8, epochs[i]) end
      bytes = binary.patch(bytes, frame.at + 24, binary.u64(chain))
      chain = format.checksum(bytes:sub(frame.at + 9, frame.at + frame.size),
        superblock.secret)
      bytes = binary.patch(bytes, frame.at, binary.u64(chain))
    end
    return bytes
  end

  local function epoch_of(bytes, frame) return bytes:sub(frame.at + 9, frame.at + 14) end

  it("takes no commit of an epoch that is over", function()
    local first, second, bytes, all = two_commits(1, 1)
    assert.equal(2, #all)
    assert.is_true(with_epochs(bytes, all, {}) == bytes)
    assert.equal(2, holds(second, bytes).recovered_commits)
    -- The content epoch, which cannot be newer, goes with it.
    local again = binary.patch(bytes, all[2].at + 56, epoch_of(bytes, all[1]) .. "\0\0")
    again = with_epochs(again, all, { nil, epoch_of(bytes, all[1]) })
    assert.equal(1, holds(first, again).recovered_commits)
  end)

  it("takes no commit whose epochs fall from one frame to the next", function()
    local first, second, bytes, all = two_commits(20, 8000)
    assert.is_true(#all > 2)
    local epoch = epoch_of(bytes, all[2])
    assert.equal(epoch, epoch_of(bytes, all[#all]))
    local later = string.char(epoch:byte() + 1) .. epoch:sub(2)
    -- Rising ones are those of an earlier writer.
    holds(second, with_epochs(bytes, all, { [#all] = later }))
    holds(first, with_epochs(bytes, all, { nil, later }))
  end)

  it("takes no commit after which the log could not go on", function()
    local first, second, bytes, all = two_commits(1, 1)
    for next_offset, expected in pairs { [0] = first, [8] = first, [PAGE] = first,
      [12280] = first, [SEGMENT - 64] = first, [SEGMENT - 72] = second } do
      local other = binary.patch(bytes, all[2].at + 32, binary.u64(binary.hex(next_offset)))
      assert.equal(expected == second and 2 or 1,
        holds(expected, with_epochs(other, all, {})).recovered_commits)
    end
  end)

  it("verifies the large values that a frame names", function()
    put("a", "1")
    local first = sync()
    put("large", binary.bytes(300000, 1))
    local second = sync()
    local bytes = crash()
    local at = bytes:find(binary.bytes(300000, 1):sub(1, 64), 1, true) - 1
    assert.equal(64, at % PAGE)
    assert.is_true(holds(second, bytes).used_bytes >= at + 300000)
    holds(first, binary.flip(bytes, at))
    holds(first, binary.flip(bytes, at + 299999))
    holds(first, binary.flip(bytes, at - 64))
    holds(first, bytes:sub(1, at + 299990))
  end)

  -- Their pages are as new as those of a value that is put. If they are not whole, the
  -- commit before is found, and the values where they were.
  it("verifies the large values that the cleaner has moved", function()
    for i = 1, 9 do put("large " .. i, i .. binary.bytes(40000, i)) end
    sync()
    for i = 1, 8 do
      if i % 3 > 0 then
        assert.is_true(db:delete("large " .. i))
        model["large " .. i] = nil
      end
    end
    local expected, before = sync(), crash()
    for _ = 1, 20 do assert(db:clean(100000)) end
    sync()
    local bytes, moved = crash(), 0
    local function is_right(crashed)
      local other = assert(open_bytes(crashed))
      for i = 3, 9, 3 do
        assert.is_true(other:get("large " .. i) == expected["large " .. i], i)
      end
      assert(other:close())
    end
    for i = 3, 9, 3 do
      local word = expected["large " .. i]:sub(1, 64)
      local at = bytes:find(word, 1, true)
      while at do
        if before:sub(at, at + 63) ~= word then
          moved = moved + 1
          is_right(binary.flip(bytes, at))
          is_right(binary.flip(bytes, at + 39999))
        end
        at = bytes:find(word, at + 1, true)
      end
    end
    assert.is_true(moved > 0)
    is_right(bytes)
  end)

  -- The superblock says where the cleaner's branches end. What has been committed behind
  -- that since must not be written over.
  it("keeps the branches that were committed behind the superblock's head", function()
    local BRANCHES = 3
    local function clean(store)
      for _ = 1, 20 do assert(store:clean(100000)) end
      assert(store:sync())
    end
    local function put_some(from)
      for i = from, from + 299 do put("key" .. i, binary.bytes(400, i)) end
      sync()
      for i = from, from + 299 do
        if i % 4 > 0 then
          assert(db:delete("key" .. i))
          model["key" .. i] = nil
        end
      end
      sync()
    end
    local bytes, round = nil, 0
    -- Whether the first of them is where the superblock says.
    local function is_behind()
      bytes = crash()
      local head = binary.number(newest(bytes).heads[BRANCHES].offset)
      for _, frame in ipairs(frames(bytes)) do
        if frame.at == head then return true end
      end
    end
    repeat
      if round > 0 then
        assert(db:close()) -- superblocks that name the head
        db = assert(open_store(path))
      end
      round = round + 1
      put_some(round * 1000)
      clean(db)
    until is_behind() or round > 30
    assert.is_true(round <= 30)
    local expected = copy(model)
    holds(expected, bytes)
    path = scratch.write(scratch.path("crash"), bytes)
    assert(db:close())
    db = assert(open_store(path))
    model = copy(expected)
    put_some(2000)
    clean(db)
    assert.same(model, (assert(db:records())))
    assert.same({}, db:check())
  end)

  -- What a roll-forward finds of large values lies behind the log. It did not
  -- say so to the log, which took its own end for that of the file: the first
  -- proper close after a crash cut the large values off.
  it("keeps large values of before a crash when it closes", function()
    put("a", "1")
    put("large", binary.bytes(300000, 1))
    put("larger", binary.bytes(700000, 2))
    local expected = sync()
    path = scratch.write(scratch.path("store"), crash())
    assert(db:close())
    db = assert(open_store(path))
    put("b", "2")
    expected.b = "2"
    assert(db:close())
    assert.is_true(holds(expected, crash()).was_clean)
    -- The next large value must not be laid over them.
    db = assert(open_store(path))
    put("more", binary.bytes(200000, 3))
    expected.more = model.more
    assert(db:close())
    holds(expected, crash())
  end)

  it("accepts no frame under another salt", function()
    put("a", "1")
    sync()
    local bytes = crash()
    local _, at = newest(bytes)
    local other = with_superblock(bytes, at, function(superblock)
      superblock.salt = "0123456789abcdef"
    end)
    assert.equal(0, holds({}, other).recovered_commits)
  end)

  it("does not take up a lost future again", function()
    put("a", "1")
    local first = sync()
    for i = 1, 3 do
      put("b" .. i, "lost")
      sync()
    end
    local all = frames(crash())
    assert.equal(4, #all)
    -- The second commit is lost, so the third and fourth are too.
    local bytes = binary.patch(crash(), all[2].at, ("\0"):rep(512))
    holds(first, bytes)
    assert(db:close())
    path = scratch.write(scratch.path("store"), bytes)
    db = assert(open_store(path))
    model = copy(first)
    put("b1", "kept")
    local second = sync()
    assert.equal(all[2].at, frames(crash())[1].at)
    assert.equal(all[2].size, frames(crash())[1].size)
    assert.equal(1, holds(second, crash()).recovered_commits)
  end)

  it("goes on with one superblock when the other is damaged", function()
    put("a", "1")
    local first = sync()
    local bytes = crash()
    local _, at = newest(bytes)
    holds(first, damaged(bytes, A_AT + B_AT - at))
    assert(db:close())
    bytes = crash()
    -- The newer one says that all is clean; the older one rolls forward.
    _, at = newest(bytes)
    assert.is_true(holds(first, damaged(bytes, A_AT + B_AT - at)).was_clean)
    local stat = holds(first, damaged(bytes, at))
    assert.is_false(stat.was_clean)
    assert.equal(1, stat.recovered_commits)
    holds(first, binary.patch(bytes, at, ("\0"):rep(PAGE)))
    -- Both places serve again after a session on either.
    for _, place in ipairs { A_AT, B_AT } do
      local again = assert(open_bytes(damaged(bytes, place)))
      assert(again:put("b", "2"))
      assert(again:close())
    end
  end)

  -- A later version of the library may have written it last, and this one the other.
  it("goes on with neither superblock when one is of another version", function()
    put("a", "1")
    sync()
    local bytes = crash()
    for _, at in ipairs { A_AT, B_AT } do
      local page = binary.patch(bytes:sub(at + 1, at + PAGE), 8, binary.u32(2))
      page = binary.patch(page, 4088, binary.u64(format.plain_checksum(page:sub(1, 4088))))
      refused("EVERSION", "F2", binary.patch(bytes, at, page))
    end
  end)

  it("says so when both superblocks are damaged", function()
    put("a", "1")
    sync()
    assert(db:close())
    local bytes = damaged(damaged(crash(), A_AT), B_AT)
    refused("ECORRUPT", "F4", bytes)
    refused("ECORRUPT", "F4", bytes, { readonly = true })
    refused("EFORMAT", "F1", ("no mmcmap file "):rep(5000))
    refused("EFORMAT", "F1", "x")
  end)

  it("says so when the file is shorter than it was", function()
    for i = 1, 30 do put("key" .. i, binary.bytes(9000, i)) end
    sync()
    assert(db:close())
    local bytes = crash()
    local used = binary.number(newest(bytes).used_bytes)
    assert.is_true(used > FILE_SIZE_MIN)
    holds(model, bytes:sub(1, used))
    for _, size in ipairs { used - 1, FILE_SIZE_MIN, 20000, 12288 } do
      refused("ECORRUPT", "F10", bytes:sub(1, size))
    end
  end)

  it("never gives the number of an epoch again", function()
    put("a", "1")
    sync()
    local seen = { [db:version()] = "committed" }
    local bytes = crash()
    for i = 1, 5 do
      put("a", "lost " .. i)
      seen[db:version()] = "lost"
    end
    local other = assert(open_bytes(bytes))
    assert.equal("committed", seen[other:version()])
    assert(other:put("a", "new"))
    assert.is_nil(seen[other:version()])
    local version = other:version()
    assert(other:close())
    assert(db:close())
    assert.is_nil(seen[version])
  end)

  -- A file's epochs are any 48 bits. Near their end a seal, or the numbers left
  -- out after a crash, came to one that is too large: an assertion ended the
  -- process.
  it("answers changes with EFULL when the epochs are used up", function()
    put("a", "1")
    local first = sync()
    assert(db:close())
    for flags = 0, 1 do
      for _, epoch in ipairs { "0000800000000000", "0000fffff0000000",
        "0000ffffffffffff" } do
        local bytes = crash()
        local _, at = newest(bytes)
        bytes = with_superblock(bytes, at, function(superblock)
          superblock.flags, superblock.next_epoch = flags, epoch
        end)
        local other = assert(open_bytes(bytes))
        assert.same(first, (other:records()))
        local _, code, what = other:put("b", "2")
        assert.equal("EFULL", code)
        assert.equal("epochs are used up", what)
        _, code = other:delete("a")
        assert.equal("EFULL", code)
        assert(other:sync())
        assert.is_string(other:version())
        assert.same(first, (other:records()))
        assert(other:close())
      end
    end
  end)

  it("does not write when it only reads", function()
    put("a", "1")
    local first = sync()
    put("a", "2")
    local bytes = crash()
    local place = scratch.write(scratch.path("crash"), bytes)
    local other = assert(open_store(place, { readonly = true }))
    assert.same(first, (other:records()))
    assert.is_true(other:version() > ("0"):rep(16))
    assert(other:close())
    assert.is_true(bytes == scratch.read(place))
  end)

  -- Who opens a file first recovers what all see, and it may be another that makes the
  -- first change.
  describe("of one, and the first change of another,", function()
    local place, reader, writer

    local function two_open(bytes)
      place = scratch.write(scratch.path("crash"), bytes)
      reader = assert(open_store(place))
      writer = peers.launch(place)
      writer:ask("db = assert(probe.store.open(path, { durability = 'manual', "
        .. "segment_size = tonumber((...)) }))", SEGMENT)
    end

    after_each(peers.kill_all)

    it("keep all that was recovered", function()
      for i = 1, 40 do put("k" .. i, ("v"):rep(10000)) end
      local expected = sync()
      two_open(crash())
      local stat = reader:stat()
      assert.is_true(stat.used_bytes > 400000)
      for _, name in ipairs { "used_bytes", "segment_count", "version", "durable_epoch",
        "recovered_commits" } do
        assert.equal(tostring(stat[name]), writer:ask("return db:stat()[...]", name), name)
      end
      writer:ask([[
        for i = 1, 40 do assert(db:put("new " .. i, ("n"):rep(10000))) end
        assert(db:sync())
      ]])
      for i = 1, 40 do expected["new " .. i] = ("n"):rep(10000) end
      assert.same(expected, (assert(reader:records())))
      writer:finish()
      assert(reader:close())
      assert.same({}, peers.faults(place))
    end)

    it("is refused where the file is another by then", function()
      put("a", "1")
      sync()
      put("a", "2")
      sync()
      local bytes = crash()
      local all = frames(bytes)
      two_open(bytes)
      local file = assert(io.open(place, "r+b"))
      file:seek("set", all[#all].at)
      file:write(("\0"):rep(8)) -- of its header: the last commit was never made
      file:close()
      assert.equal("nil ECORRUPT",
        writer:ask("local _, code = db:put('b', '3') return _, code"))
      writer:finish()
    end)
  end)
end)

describe("maint.create", function()
  after_each(function()
    for _, store in ipairs(opened) do store:close() end
    opened = {}
  end)

  local function new_file()
    local place = scratch.path("new")
    assert(assert(open(place, options())):close())
    return assert(scratch.read(place))
  end

  local function is_new(bytes)
    local store = assert(open_bytes(bytes))
    assert.equal(0, store:count())
    assert(store:put("a", "1"))
    assert(store:close())
  end

  it("makes 64 KiB with two superblocks", function()
    local bytes = new_file()
    assert.equal(FILE_SIZE_MIN, #bytes)
    local a, b = superblock_at(bytes, A_AT), superblock_at(bytes, B_AT)
    assert.equal(binary.hex(1), a.sequence)
    assert.equal(binary.hex(2), b.sequence)
    assert.is_not_nil(format.segment_decode(bytes:sub(12289, 12352), 0,
      a.file_id))
    is_new(bytes)
  end)

  it("draws another id, salt and secret for each file", function()
    local first, second = newest(new_file()), newest(new_file())
    assert.not_equal(first.file_id, second.file_id)
    assert.not_equal(first.salt, second.salt)
    for at = 0, 384, 16 do
      assert.not_equal(first.secret:sub(at + 1, at + 16),
        second.secret:sub(at + 1, at + 16))
    end
  end)

  it("finishes what was left unfinished, in the order of writing", function()
    local bytes = new_file()
    local zeros = ("\0"):rep(FILE_SIZE_MIN)
    is_new("")
    is_new(zeros)
    local header = binary.patch(zeros, 12288, bytes:sub(12289, 12352))
    is_new(header)
    local page = bytes:sub(1, PAGE)
    for size = 512, PAGE, 512 do
      is_new(binary.patch(header, A_AT, page:sub(1, size)))
    end
    local with_a = binary.patch(header, A_AT, page)
    for size = 512, PAGE, 512 do
      is_new(binary.patch(with_a, B_AT, bytes:sub(B_AT + 1, B_AT + size)))
    end
  end)

  it("gives a file its name when it is a store, and not before", function()
    local deaths, found = 0, { none = 0, whole = 0 }
    repeat
      local place = scratch.path("dying" .. deaths)
      local text, how, status = probe.child.run(function()
        probe.os.die("*", deaths + 1)
        assert(open(place, options()))
      end)
      if how == "signal" then deaths = deaths + 1 else assert.equal(0, status, text) end
      local store, code = open_store(place, { create = false })
      if store then assert.equal(0, store:count()) else assert.equal("ENOENT", code) end
      local word = store and "whole" or "none"
      found[word] = found[word] + 1
      if store then assert(store:close()) end
    until how == "exit"
    assert.is_true(found.none > 10 and found.whole > 3)
  end)

  -- What made the file was killed when it had a name, which was not on disk yet; or the
  -- file was made by somebody else. Puts that were synced were lost with the name.
  it("has the name on disk before anything is put, whoever made the file", function()
    local function folder_syncs(place, changes)
      probe.os.watch()
      local store = assert(open_store(place, changes))
      local syncs = probe.os.counts().fsync
      probe.os.restore()
      if not (changes or {}).readonly then assert(store:put("a", "1") and store:sync()) end
      assert(store:close())
      return syncs
    end
    local place = scratch.path("killed")
    assert.same({ "", "signal", 9 }, { probe.child.run(function()
      probe.os.die("fsync", 1)
      open(place, options())
    end) })
    assert.equal(binary.hex(2), newest(scratch.read(place)).sequence)
    assert.equal(0, folder_syncs(place, { readonly = true }))
    assert.equal(1, folder_syncs(place))
    assert.equal(0, folder_syncs(place))
    place = scratch.write(scratch.path("empty"), "")
    assert.equal(1, folder_syncs(place))
    assert.equal(0, folder_syncs(place))
    assert.equal(1, folder_syncs(scratch.path("new")))
  end)

  it("makes a store of an empty file, which others then share", function()
    local place = scratch.write(scratch.path("empty"), "")
    local store = assert(open_store(place))
    local other = peers.launch(place)
    other:ask([[
      db = assert(probe.store.open(path, { durability = "manual", timeout_ms = 0 }))
      assert(db:put("k", "v"))
    ]])
    assert.equal("v", store:get("k"))
    other:finish()
  end)

  it("does not take a damaged store for an unfinished one", function()
    local bytes = new_file()
    refused("ECORRUPT", nil, damaged(damaged(bytes, A_AT), B_AT))
    refused("EFORMAT", nil, ("\0"):rep(FILE_SIZE_MIN + 4096))
    refused("EFORMAT", nil, ("\0"):rep(FILE_SIZE_MIN), { create = false })
    refused("EFORMAT", nil, "", { create = false })
  end)
end)
