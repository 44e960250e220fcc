-- SPDX-License-Identifier: MIT
--
-- The corpus of files in spec/corpus: sound ones, good-*.mmc, which are kept
-- for ever, and broken ones, bad-<what>.mmc, each made from a sound one by
-- breaking one rule of docs/format.md and mending the checksums above it.
-- Zeros at the end of a file are left out; make_corpus.padded() puts them back.
--
--   LUA_CPATH='build/lua5.4/module/?.so' LUA_PATH='lua/?.lua;?.lua' \
--     lua5.4 spec/support/make_corpus.lua           makes the broken files anew
--     lua5.4 spec/support/make_corpus.lua --good    sound ones that are missing
--
-- As a module it gives the same as tables: the broken files follow from the
-- sound ones byte for byte.

local probe = require "mmcmap_probe"
local binary = require "spec.support.binary"

local make_corpus = {}

local SEGMENT = 131072
local HEADER = 12288
local FIRST_FRAME = HEADER + 64
local FRAME_BYTES = 72
local PLACES = { 0, 8192 }
local BRANCH, RECORD, COLLISION = 1, 2, 3

local patch, u64, u32 = binary.patch, binary.u64, binary.u32
local number_at = binary.number_at

-- ---- What is in the sound files ---------------------------------------------

local LARGE = ("a line of a large value, 34 bytes\n"):rep(1000)

-- Puts, with a time to live or without, and deletes in their order; "sync"
-- commits, "save" saves the snapshot "a snapshot".
local function small_changes()
  local changes = { { "gone 1", "never to be seen" }, { "", "the empty key" },
    { "\0\1\255\n", "any bytes: \0\255\r\n" }, { "empty value", "" } }
  for i = 1, 12 do
    changes[#changes + 1] = { "key " .. i, "an old value" }
  end
  changes[#changes + 1] = "sync"
  for i = 1, 24 do
    changes[#changes + 1] = { "key " .. i, ("value " .. i .. " "):rep(i % 5) }
  end
  changes[#changes + 1] = { ("long key "):rep(30), "with a value" }
  changes[#changes + 1] = { "gone 2", "x" }
  changes[#changes + 1] = "sync"
  changes[#changes + 1] = { "gone 1" }
  changes[#changes + 1] = { "key 3", "changed in the last commit" }
  changes[#changes + 1] = { "gone 2" }
  changes[#changes + 1] = { "key 25", "new in the last commit" }
  changes[#changes + 1] = "sync"
  return changes
end

local function with_large()
  local changes = small_changes()
  table.insert(changes, #changes, { "large", LARGE })
  return changes
end

local function expiring()
  local changes = small_changes()
  table.insert(changes, #changes, { "until then", "will expire", 2 ^ 52 })
  table.insert(changes, #changes, { "until then, too", "", 2 ^ 52 })
  return changes
end

local function with_snapshot()
  local changes = small_changes()
  table.insert(changes, #changes - 5, "save")
  return changes
end

local function colliding()
  local changes = {}
  for i = 1, 6 do changes[i] = { "key " .. i, "value " .. i } end
  changes[7] = { "", "" }
  changes[8] = "sync"
  return changes
end

-- Masks with which all keys collide.
make_corpus.masks = { primary_mask = 0, secondary_mask = 0 }

make_corpus.good = {
  { name = "good-v1", changes = with_large() },
  { name = "good-v1-unclean", changes = small_changes(), unclean = true },
  { name = "good-v1-siphash", changes = small_changes(), hash = "siphash" },
  { name = "good-v1-murmur3", changes = small_changes(), hash = "murmur3" },
  { name = "good-v1-collisions", changes = colliding(),
    masks = make_corpus.masks },
  { name = "good-v1-maps", changes = small_changes(),
    map = { name = "a map", records = { first = "1", second = "2",
      third = "3" } } },
  { name = "good-v1-expiry", changes = expiring() },
  { name = "good-v1-snapshots", changes = with_snapshot() },
}

-- The content of a sound file, as {key = value}.
function make_corpus.content(name)
  for _, file in ipairs(make_corpus.good) do
    if file.name == name then
      local content = {}
      for _, change in ipairs(file.changes) do
        if type(change) == "table" then content[change[1]] = change[2] end
      end
      return content
    end
  end
  error("no such file: " .. name)
end

function make_corpus.padded(bytes)
  local size = math.max(1, math.ceil(#bytes / 65536)) * 65536
  return bytes .. ("\0"):rep(size - #bytes)
end

local function trimmed(bytes)
  local length = #bytes
  while length > 0 and bytes:byte(length) == 0 do length = length - 1 end
  return bytes:sub(1, length)
end

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

-- Makes a sound file from nothing: each time another one, by its secret.
function make_corpus.make_good(file, path)
  local options = { segment_size = SEGMENT, durability = "manual",
    hash = file.hash }
  for name, mask in pairs(file.masks or {}) do options[name] = mask end
  os.remove(path)
  local db = assert(probe.store.open(path, options))
  for _, change in ipairs(file.changes) do
    if change == "sync" then
      assert(db:sync())
    elseif change == "save" then
      assert(db:save("a snapshot"))
    elseif change[2] then
      assert(db:put(change[1], change[2], change[3]))
    else
      assert(db:delete(change[1]))
    end
  end
  if file.map then
    local map = assert(db:map(file.map.name))
    for key, value in pairs(file.map.records) do assert(map:put(key, value)) end
    assert(map:close())
  end
  -- Written, but not part of any commit.
  if file.unclean then assert(db:put("never committed", "x")) end
  local bytes = file.unclean and read(path)
  assert(db:close())
  bytes = bytes or read(path)
  os.remove(path)
  return trimmed(bytes)
end

-- ---- Looking into a file ----------------------------------------------------

-- The place of the newer superblock.
local function newest(bytes)
  return number_at(bytes, PLACES[1] + 72) > number_at(bytes, PLACES[2] + 72)
    and PLACES[1] or PLACES[2]
end

local function checksum(bytes, from, to)
  local secret = bytes:sub(newest(bytes) + 449, newest(bytes) + 640)
  return probe.base.xxh3_with_secret(secret, bytes:sub(from + 1, to))
end

local function slot_offset(slot)
  local low = tonumber(slot:sub(5), 16)
  return (low - low % 2) * 4, low % 2 == 1
end

local function slot_to(slot, offset)
  return slot:sub(1, 4) .. binary.hex(offset / 4
    + tonumber(slot:sub(16), 16) % 2):sub(5)
end

-- All nodes, a parent before its children: {kind, level, at, slot_at, parent},
-- and of records key, size, is_large.
local function nodes(bytes)
  local found = {}
  local function visit(slot_at, level, parent)
    local at, is_record = slot_offset(binary.u64_at(bytes, slot_at))
    local node = { at = at, slot_at = slot_at, parent = parent, level = level,
      kind = bytes:byte(at + 16) }
    found[#found + 1] = node
    if is_record then
      local key_size = tonumber(binary.u64_at(bytes, at + 16):sub(1, 8), 16)
      local value_size = tonumber(binary.u64_at(bytes, at + 16):sub(9), 16)
      node.is_large = bytes:byte(at + 15) == 1
      node.payload = key_size + (node.is_large and 16 or value_size)
      local key_at = at + 24 + (node.is_large and 16 or 0)
        + (bytes:byte(at + 15) == 4 and 8 or 0)
      node.key = bytes:sub(key_at + 1, key_at + key_size)
      node.value_at = key_at + key_size
      return
    end
    node.count = 0
    if node.kind == COLLISION then
      node.count = number_at(bytes, at + 16)
    else
      for byte = 17, 24 do
        local bits = bytes:byte(at + byte)
        while bits > 0 do
          node.count, bits = node.count + bits % 2, math.floor(bits / 2)
        end
      end
    end
    for i = 1, node.count do visit(at + 16 + 8 * i, level + 1, node) end
  end
  local root_at = newest(bytes) + 96
  local is_store_root = binary.u64_at(bytes, root_at):sub(1, 4) == "0001"
  if is_store_root then
    root_at = slot_offset(binary.u64_at(bytes, root_at)) + 24
  end
  visit(root_at, 0, nil)
  return found
end

local function find(bytes, wanted)
  for _, node in ipairs(nodes(bytes)) do
    if wanted(node) then return node end
  end
  error("no such node in the file")
end

local function record_of(bytes, key)
  return find(bytes, function(node) return node.key == key end)
end

-- A branch with at least two records, at this level or any.
local function branch_of(bytes, level, kind)
  local node = find(bytes, function(candidate)
    return candidate.kind == (kind or BRANCH)
      and (not level or candidate.level == level)
  end)
  return node
end

-- The store root, and the record of the one map, which is the root of the
-- catalogue.
local function store_root_of(bytes)
  return { at = slot_offset(binary.u64_at(bytes, newest(bytes) + 96)) }
end

local function map_record_of(bytes)
  local store = store_root_of(bytes)
  return { at = slot_offset(binary.u64_at(bytes, store.at + 32)), is_map = true }
end

-- The record of the one snapshot, which is the root of its trie.
local function snapshot_record_of(bytes)
  local store = store_root_of(bytes)
  return { at = slot_offset(binary.u64_at(bytes, store.at + 48)), kind = RECORD,
    payload = #"a snapshot" + 40 }
end

-- The frames of the log, as offsets, from the first to the end.
local function frames(bytes)
  local offsets, at = {}, FIRST_FRAME
  local is_clean = bytes:byte(newest(bytes) + 81) == 1
  local head = number_at(bytes, newest(bytes) + 176)
  while is_clean and at ~= head
    or not is_clean and number_at(bytes, at + 64) ~= 0 do
    offsets[#offsets + 1] = at
    at = number_at(bytes, at + 32)
  end
  return offsets
end

-- ---- Mending ----------------------------------------------------------------

local function mend_superblocks(bytes)
  for _, place in ipairs(PLACES) do
    bytes = patch(bytes, place + 4088, u64(probe.format.plain_checksum(
      bytes:sub(place + 1, place + 4088))))
  end
  return bytes
end

-- With a table that says how many words are alive in the first segment, and that
-- nobody has counted the others.
local function with_usage_table(bytes, words, is_damaged)
  local at = #bytes + -#bytes % 8
  local count = number_at(bytes, newest(bytes) + 136)
  bytes = bytes .. ("\0"):rep(at - #bytes) .. u32(words) .. u32(1)
    .. (u32(0) .. u32(17)):rep(count - 1)
  local sum = checksum(bytes, at, #bytes)
  for _, place in ipairs(PLACES) do
    bytes = patch(bytes, place + 152, u64(at))
    bytes = patch(bytes, place + 160, u64(count))
    bytes = patch(bytes, place + 168, u64(is_damaged and 1 or sum))
  end
  return mend_superblocks(bytes)
end

local function mend_record(bytes, record)
  local sum = checksum(bytes, record.at + 4, record.at + 24 + record.payload)
  return patch(bytes, record.at, u64(sum):sub(1, 4))
end

local function mend_map_record(bytes, record)
  local key_size = number_at(bytes, record.at + 20) % 65536
  local rest = checksum(bytes, record.at + 40, record.at + 48 + key_size)
  local head = bytes:sub(record.at + 5, record.at + 24) .. u64(rest)
  local secret = bytes:sub(newest(bytes) + 449, newest(bytes) + 640)
  return patch(bytes, record.at,
    u64(probe.base.xxh3_with_secret(secret, head)):sub(1, 4))
end

-- The checksums of all frames from the first on, each with that of the one
-- before it, and the chain of a superblock that knows the last one. `offsets`
-- are those of the sound file, sizes too, if they are what is broken.
local function mend_frames(bytes, offsets, sizes)
  local chain
  for i, at in ipairs(offsets) do
    if chain then bytes = patch(bytes, at + 24, u64(chain)) end
    local size = sizes and sizes[i] or number_at(bytes, at + 64)
    chain = checksum(bytes, at + 8, at + size)
    bytes = patch(bytes, at, u64(chain))
  end
  local place = newest(bytes)
  if bytes:byte(place + 81) == 1 then
    bytes = patch(bytes, place + 120, u64(chain))
  end
  return mend_superblocks(bytes)
end

-- ---- Breaking ---------------------------------------------------------------

-- Both superblocks, each by patches {offset, bytes}.
local function break_superblocks(patches, keep_checksum)
  return function(bytes)
    for _, place in ipairs(PLACES) do
      for _, change in ipairs(patches) do
        bytes = patch(bytes, place + change[1], change[2])
      end
    end
    return keep_checksum and bytes or mend_superblocks(bytes)
  end
end

-- A node, changed by f(bytes, node) and mended.
local function break_node(select, f)
  return function(bytes)
    local offsets = frames(bytes)
    local node = select(bytes)
    bytes = f(bytes, node)
    if node.is_map then bytes = mend_map_record(bytes, node) end
    if node.kind == RECORD and not node.keep_checksum then
      bytes = mend_record(bytes, node)
    end
    return mend_frames(bytes, offsets)
  end
end

local function break_record(key, f)
  return break_node(function(bytes) return record_of(bytes, key) end, f)
end

local function break_branch(level, f, kind)
  return break_node(function(bytes)
    return branch_of(bytes, level, kind)
  end, f)
end

-- The last frame but `back`, changed by f(bytes, offset, the next one).
-- `is_mended`: with checksums that fit again.
local function break_frame(back, f, is_mended)
  return function(bytes)
    local offsets = frames(bytes)
    local index = #offsets - back
    local sizes = {}
    for i, at in ipairs(offsets) do sizes[i] = number_at(bytes, at + 64) end
    bytes = f(bytes, offsets[index], offsets[index + 1])
    return is_mended and mend_frames(bytes, offsets, sizes) or bytes
  end
end

local function set(offset, value)
  return function(bytes, at) return patch(bytes, at + offset, value) end
end

local function set_in_node(offset, value)
  return function(bytes, node) return patch(bytes, node.at + offset, value) end
end

local function set_checked(offset, value)
  return function(bytes, node)
    node.keep_checksum = true
    return patch(bytes, node.at + offset, value)
  end
end

-- The slot that refers to the record, changed.
local function break_slot(key, f)
  return break_node(function(bytes)
    local record = record_of(bytes, key)
    return { kind = BRANCH, slot_at = record.slot_at }
  end, function(bytes, node)
    local slot = binary.u64_at(bytes, node.slot_at)
    return patch(bytes, node.slot_at, u64(f(slot, bytes)))
  end)
end

local function swap_slots(bytes, a, b)
  local first, second = bytes:sub(a + 1, a + 8), bytes:sub(b + 1, b + 8)
  return patch(patch(bytes, a, second), b, first)
end

local FAR = 1099511627776 -- 2^40, beyond every file here

-- Each {name, the sound file it is made from, how}. README.md says what is
-- wrong with it.
local bad = {
  { "magic", "siphash", break_superblocks({ { 0, "\0\0\0\0\0\0\0\0" } }) },
  { "version", "siphash", break_superblocks({ { 8, u32(2) } }) },
  { "byte-order", "siphash", break_superblocks({ { 12, "\1\2\3\4" } }) },
  { "superblock-checksum", "siphash",
    break_superblocks({ { 700, "x" } }, true) },
  { "newer-superblock", "siphash", function(bytes)
    return patch(bytes, newest(bytes) + 700, "x")
  end },
  { "features-read", "siphash", break_superblocks({ { 32, u64(1) } }) },
  { "features-write", "siphash", break_superblocks({ { 24, u64(1) } }) },
  { "head-count", "siphash", break_superblocks({ { 84, u32(5) } }) },
  { "segment-size", "siphash", break_superblocks({ { 64, u32(65536) } }) },
  { "hash-kind", "siphash", break_superblocks({ { 68, u32(3) } }) },
  { "epoch", "siphash", break_superblocks({ { 88, u64(9) },
    { 128, u64(9) } }) },
  { "root-and-count", "siphash", break_superblocks({ { 96, u64(0) },
    { 104, u64(1) } }) },
  { "content-epoch", "siphash", break_superblocks({ { 112, u64(2 ^ 40) } }) },
  { "no-segments", "siphash", break_superblocks({ { 136, u64(0) } }) },
  { "segment-count", "siphash", break_superblocks({ { 136, u64(9) } }) },
  { "shorter", "siphash", break_superblocks({ { 144, u64(65537) } }) },
  { "head", "siphash", break_superblocks({ { 176, u64(12353) } }) },
  { "head-3", "siphash", break_superblocks({ { 224, u64(16384) },
    { 232, u64(16384) } }) },
  { "usage-table", "siphash", function(bytes)
    return (with_usage_table(bytes, 1000, true))
  end },
  { "usage-count", "siphash", function(bytes)
    return (with_usage_table(bytes, 0))
  end },
  { "fewer-records", "siphash", function(bytes)
    local at = newest(bytes) + 104
    return mend_superblocks(patch(bytes, at, u64(number_at(bytes, at) + 1)))
  end },
  { "more-records", "siphash", function(bytes)
    local at = newest(bytes) + 104
    return mend_superblocks(patch(bytes, at, u64(number_at(bytes, at) - 1)))
  end },
  { "segment-checksum", "siphash", function(bytes)
    return patch(bytes, HEADER + 16, u64(1))
  end },
  { "segment-header", "siphash", function(bytes)
    bytes = patch(bytes, HEADER + 16, u64(1))
    return patch(bytes, HEADER + 56, u64(probe.format.plain_checksum(
      bytes:sub(HEADER + 1, HEADER + 56))))
  end },

  -- Frames in the middle of a log that has been closed: only a check sees it.
  { "log-size", "siphash", break_frame(1, set(64, u64(SEGMENT)), true) },
  { "log-checksum", "siphash", break_frame(1, set(47, "x")) },
  { "log-flags", "siphash", break_frame(1, set(14, "\5"), true) },
  { "log-nodes", "siphash", break_record("key 25", function(bytes, node)
    node.payload = #"key 25" + 4000
    return patch(bytes, node.at + 16, u32(4000))
  end) },

  -- The last commit of a log that is rolled forward: the one before it counts.
  { "tail-next", "unclean", break_frame(1, set(32, u64(FAR)), true) },
  { "tail-unaligned", "unclean", break_frame(1, set(32, u64(12355)), true) },
  { "tail-salt", "unclean", break_frame(0, set(16, u64(7)), true) },
  { "tail-chain", "unclean", break_frame(0, set(24, u64(7))) },
  { "tail-size", "unclean", break_frame(0, set(64, u64(SEGMENT)), true) },
  { "tail-checksum", "unclean", break_frame(0, set(FRAME_BYTES + 30, "x")) },
  { "tail-flags", "unclean", break_frame(0, set(14, "\7"), true) },
  { "tail-nodes", "unclean", break_frame(0, set(FRAME_BYTES + 15, "\9"),
    true) },
  { "tail-large", "v1", function(bytes)
    bytes = patch(bytes, newest(bytes) + 700, "x")
    return patch(bytes, SEGMENT + 4096 + 5000, "x")
  end },

  -- Slots and nodes.
  { "slot-offset", "siphash", break_slot("key 7", function(slot)
    return slot_to(slot, FAR)
  end) },
  { "slot-zero", "siphash", break_slot("key 7", function() return 0 end) },
  { "slot-tag", "siphash", break_slot("key 7", function(slot)
    return (slot:sub(1, 4) == "0000" and "0001" or "0000") .. slot:sub(5)
  end) },
  { "slot-of-branch", "siphash", break_node(function(bytes)
    return branch_of(bytes, 1)
  end, function(bytes, node) return patch(bytes, node.slot_at + 7, "x") end) },
  { "record-kind", "siphash", break_record("key 7",
    set_in_node(15, "\9")) },
  { "map-id", "siphash", break_record("key 7", set_in_node(4, u32(2))) },
  { "node-epoch", "siphash", break_record("key 7",
    set_in_node(8, u64(1000):sub(1, 6))) },
  { "record-flags", "siphash", break_record("key 7", set_in_node(14, "\2")) },
  { "record-key-length", "siphash", break_record("key 7",
    set_checked(20, u32(65536))) },
  { "record-value-length", "siphash", break_record("key 7",
    set_checked(16, u32(4294967295))) },
  { "record-checksum", "siphash", break_record("key 7",
    function(bytes, node)
      node.keep_checksum = true
      return patch(bytes, node.value_at, "V")
    end) },
  { "record-padding", "siphash", break_record("key 7",
    function(bytes, node)
      assert((24 + node.payload) % 8 ~= 0)
      return patch(bytes, node.at + 24 + node.payload, "x")
    end) },
  { "record-place", "siphash", break_branch(0, function(bytes, node)
    local at
    for i = 1, node.count - 1 do
      at = node.at + 16 + 8 * i
      local _, first = slot_offset(binary.u64_at(bytes, at))
      local _, second = slot_offset(binary.u64_at(bytes, at + 8))
      if first and second then break end
    end
    return swap_slots(bytes, at, at + 8)
  end) },
  { "branch-kind", "siphash", break_branch(1, set_in_node(15, "\9")) },
  { "branch-level", "siphash", break_branch(1, set_in_node(14, "\3")) },
  { "branch-place", "siphash", break_branch(1, set_in_node(0, u32(1))) },
  { "branch-empty", "siphash", break_branch(1, set_in_node(16, u64(0))) },
  { "branch-of-one", "siphash", break_branch(1, set_in_node(16,
    u64("0000000000000001"))) },
  { "branch-loop", "siphash", break_branch(1, function(bytes, node)
    return patch(bytes, node.slot_at, u64(slot_to("0000000000000000",
      node.parent.at)))
  end) },

  -- Large values.
  { "large-offset", "v1", break_record("large", set_in_node(24, u64(FAR))) },
  { "large-unaligned", "v1", break_record("large",
    set_in_node(24, u64(SEGMENT + 4104))) },
  { "large-header", "v1", break_record("large", function(bytes)
    return patch(bytes, SEGMENT + 4096, "x")
  end) },
  { "large-length", "v1", break_record("large", function(bytes)
    return patch(bytes, SEGMENT + 4096 + 24, u64(5))
  end) },
  { "large-checksum", "v1", break_record("large", function(bytes)
    return patch(bytes, SEGMENT + 4096 + 5000, "x")
  end) },
  { "overlap", "v1", break_branch(0, function(bytes, node)
    local slot = binary.u64_at(bytes, record_of(bytes, "large").slot_at)
    return patch(bytes, node.at + 24, u64(slot):rep(node.count))
  end) },

  -- Named maps.
  { "map-record", "maps", break_node(map_record_of, set_in_node(40, u64(0))) },
  { "map-checksum", "maps", break_node(map_record_of, function(bytes, node)
    node.is_map = nil
    return patch(bytes, node.at, "none")
  end) },
  { "map-count", "maps", break_node(map_record_of, set_in_node(32, u64(2))) },
  { "store-root", "maps", break_node(store_root_of, set_in_node(16, u64(1))) },

  -- Expiry.
  { "record-expiry", "expiry", break_record("until then",
    set_in_node(24, u64(0))) },
  { "expiry-map", "expiry", break_node(store_root_of, set_in_node(14, "\0")) },

  -- Snapshots.
  { "snapshot-record", "snapshots", break_node(snapshot_record_of,
    set_in_node(24 + #"a snapshot" + 16, u64("0000ffffffffffff"))) },
  { "snapshot-root", "snapshots", break_node(snapshot_record_of,
    set_in_node(24 + #"a snapshot", u64("00000000ffffff02"))) },

  -- The collision node.
  { "collision-branch", "collisions", break_branch(nil,
    function(bytes, node)
      return patch(bytes, node.at + 24 + 7, "\0"):sub(1, node.at + 24)
        .. u64(slot_to("0000000000000000", node.at))
        .. bytes:sub(node.at + 33)
    end, COLLISION) },
  { "collision-count", "collisions", break_branch(nil,
    set_in_node(16, u64(8193)), COLLISION) },
  { "collision-empty", "collisions", break_branch(nil,
    set_in_node(16, u64(0)), COLLISION) },
  { "collision-order", "collisions", break_branch(nil,
    function(bytes, node)
      return swap_slots(bytes, node.at + 24, node.at + 32)
    end, COLLISION) },
}

-- All broken files, made from the sound ones: good(name) gives their bytes.
-- Each {name, base, bytes}.
function make_corpus.make_bad(good)
  local made = {}
  for _, case in ipairs(bad) do
    local base = case[2] == "v1" and "good-v1" or "good-v1-" .. case[2]
    made[#made + 1] = { name = "bad-" .. case[1], base = base,
      bytes = trimmed(case[3](make_corpus.padded(good(base)))) }
  end
  return made
end

if ... == "spec.support.make_corpus" then return make_corpus end

-- ---- As a program -----------------------------------------------------------

local FOLDER = "spec/corpus/"

local function write(name, bytes)
  local file = assert(io.open(FOLDER .. name .. ".mmc", "wb"))
  assert(file:write(bytes))
  file:close()
end

if ... == "--good" then
  for _, file in ipairs(make_corpus.good) do
    if not io.open(FOLDER .. file.name .. ".mmc") then
      write(file.name, make_corpus.make_good(file, os.tmpname()))
    end
  end
end
for _, file in ipairs(make_corpus.make_bad(function(name)
  return read(FOLDER .. name .. ".mmc")
end)) do
  write(file.name, file.bytes)
end
