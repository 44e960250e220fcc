-- SPDX-License-Identifier: MIT
--
-- Bytes and chance, in every Lua alike: little-endian numbers in strings, the
-- probe's 16 hexadecimal digits, and random numbers from a seed that can be
-- given (MMCMAP_SEED) and is printed.

local binary = {}

-- ---- Numbers ----------------------------------------------------------------

-- 16 hexadecimal digits of a number below 2^53.
function binary.hex(number)
  local high = math.floor(number / 4294967296)
  return ("%08x%08x"):format(high, number - high * 4294967296)
end

-- The number of 16 digits, if it is below 2^53.
function binary.number(hex)
  return tonumber(hex:sub(1, 8), 16) * 4294967296 + tonumber(hex:sub(9), 16)
end

-- The bytes of 16 hexadecimal digits (or of a number below 2^53).
function binary.u64(hex)
  if type(hex) == "number" then hex = binary.hex(hex) end
  local bytes = {}
  for at = 15, 1, -2 do
    bytes[#bytes + 1] = string.char(tonumber(hex:sub(at, at + 1), 16))
  end
  return table.concat(bytes)
end

function binary.u32(number)
  return binary.u64(number):sub(1, 4)
end

-- The 16 digits of the 8 bytes at `offset`, counted from 0.
function binary.u64_at(bytes, offset)
  local digits = {}
  for at = offset + 8, offset + 1, -1 do
    digits[#digits + 1] = ("%02x"):format(bytes:byte(at))
  end
  return table.concat(digits)
end

function binary.number_at(bytes, offset)
  return binary.number(binary.u64_at(bytes, offset))
end

-- `bytes` with `new` written over what stands at `offset`.
function binary.patch(bytes, offset, new)
  return bytes:sub(1, offset) .. new .. bytes:sub(offset + #new + 1)
end

-- With one bit of the byte at `offset` turned over.
function binary.flip(bytes, offset, bit)
  local byte = bytes:byte(offset + 1)
  local mask = 2 ^ (bit or 0)
  local set = math.floor(byte / mask) % 2 == 1
  return binary.patch(bytes, offset,
    string.char(set and byte - mask or byte + mask))
end

-- ---- Chance -----------------------------------------------------------------

-- A seed for this run: MMCMAP_SEED, or the time. It is printed.
function binary.seed(what)
  local seed = tonumber(os.getenv("MMCMAP_SEED") or "")
  if not seed then
    seed = (os.time() * 1000 + math.floor(os.clock() * 1000000)) % 2147483646
  end
  print(("# %s: MMCMAP_SEED=%d"):format(what, seed))
  return seed
end

-- A function like math.random(n), of Park and Miller's generator.
function binary.random(seed)
  local state = seed % 2147483646 + 1
  return function(n)
    state = state * 48271 % 2147483647
    return math.floor((state - 1) / 2147483646 * n) + 1
  end
end

-- Puts the array in another order.
function binary.shuffle(array, random)
  for i = #array, 2, -1 do
    local j = random(i)
    array[i], array[j] = array[j], array[i]
  end
  return array
end

-- Bytes without a period that could hide a wrong length or offset.
function binary.bytes(size, seed)
  local words, random = {}, binary.random((seed or 0) * 7919 + size)
  for i = 1, math.min(size, 4099) do words[i] = string.char(random(256) - 1) end
  local block = table.concat(words)
  if size <= #block then return block end
  return block:rep(math.floor(size / #block) + 1):sub(1, size)
end

return binary
