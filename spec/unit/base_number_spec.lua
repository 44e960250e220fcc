-- SPDX-License-Identifier: MIT
--
-- Numbers as text: what is a number, and that reading gives back what was
-- written, in any locale.

local base = require("mmcmap_probe").base
local binary = require "spec.support.binary"
local scratch = require "spec.support.scratch"

local read, write, add = base.number_read, base.number_write, base.number_add

local HUGE = 1e308 * 10
local MAX, MIN = "7fffffffffffffff", "8000000000000000"
local MAX_TEXT, MIN_TEXT = "9223372036854775807", "-9223372036854775808"

-- An integer as the probe shows it: 16 digits of its two's complement.
local function hex(number)
  if number >= 0 then return binary.hex(number) end
  return ("%08x%08x"):format(math.floor(number / 4294967296) % 4294967296,
    number % 4294967296)
end

local function is_no_number(text)
  local number, name, step = read(text)
  assert.is_nil(number, ("%q"):format(text:sub(1, 60)))
  assert.equal("ENUMBER", name)
  assert.equal("no number of 64 bits", step)
end

local function is_float(expected, text)
  local number = read(text)
  assert.equal("number", type(number), text)
  assert.equal(expected, number, text)
end

describe("base.number reads", function()
  it("integers, with a sign or without", function()
    for text, number in pairs { ["0"] = 0, ["-0"] = 0, ["+0"] = 0, ["5"] = 5,
      ["+5"] = 5, ["-5"] = -5, ["007"] = 7, ["-007"] = -7,
      ["4294967296"] = 4294967296, ["-4294967297"] = -4294967297 } do
      assert.equal(hex(number), read(text), text)
    end
  end)

  it("integers of all 64 bits, and none beyond", function()
    assert.equal(MAX, read(MAX_TEXT))
    assert.equal(MAX, read("+" .. MAX_TEXT))
    assert.equal("7ffffffffffffffe", read("9223372036854775806"))
    assert.equal(MIN, read(MIN_TEXT))
    assert.equal("8000000000000001", read("-" .. MAX_TEXT))
    for _, text in ipairs { "9223372036854775808", "9223372036854775809",
      "9223372036854775810", "-9223372036854775809", "-9223372036854775810",
      "18446744073709551615", "18446744073709551616", "18446744073709551621",
      "-18446744073709551616", "92233720368547758070", "99999999999999999999",
      ("9"):rep(400) } do
      is_no_number(text)
    end
  end)

  it("integers with any number of zeros before them", function()
    assert.equal(hex(5), read(("0"):rep(1000) .. "5"))
    assert.equal(MIN, read("-" .. ("0"):rep(1000) .. MIN_TEXT:sub(2)))
    is_no_number(("0"):rep(1000) .. "9223372036854775808")
  end)

  it("floats: what has a point or an exponent", function()
    for text, number in pairs { ["0.5"] = 0.5, [".5"] = 0.5, ["5."] = 5,
      ["-.5"] = -0.5, ["+0.5"] = 0.5, ["1e3"] = 1000, ["1E3"] = 1000,
      ["1e+3"] = 1000, ["25e-2"] = 0.25, ["1.5e1"] = 15, ["1.e1"] = 10,
      ["3.0"] = 3, ["00.50"] = 0.5, ["0e0"] = 0,
      ["9223372036854775808.0"] = 2 ^ 63, ["1e-999"] = 0,
      ["1.7976931348623157e308"] = 1.7976931348623157e308,
      ["5e-324"] = 5e-324, ["2.2250738585072014e-308"] = 2 ^ -1022 } do
      is_float(number, text)
    end
    assert.equal(-HUGE, 1 / read("-0.0"))
  end)

  it("no float beyond the largest", function()
    is_no_number("1e309")
    is_no_number("-1e309")
    is_no_number("1.8e308")
    is_no_number("1e99999999999999999999")
    is_no_number(("9"):rep(350) .. ".0")
  end)

  it("floats of 400 characters at most", function()
    is_float(1, "1." .. ("0"):rep(398))
    is_float(0, "." .. ("0"):rep(399))
    is_no_number("1." .. ("0"):rep(399))
    is_no_number("0." .. ("1"):rep(100000))
    is_no_number(("."):rep(400))
  end)

  it("nothing else", function()
    for _, text in ipairs { "", "-", "+", ".", "e", "e5", ".e5", "-.", "+.e1",
      "1e", "1e+", "1e-", "1.e", "1e1.5", "1.2.3", "1..2", "--5", "+-5", "-+5",
      "--5.0", "+-5.0", "5-", "5.0-", "1-2", "1e5e5", "1e--5", " 5", "5 ",
      "5\n", "\t5", " 5.0", "5.0 ", "5 .0", "0x10", "0X10", "0x1p4", "0x.8",
      "0x1.8p1", "1p4", "nan", "NaN", "-nan", "nan(1)", "inf", "-inf", "Inf",
      "infinity", "INFINITY", "1,5", "1,000", "1_000", "1'000", "5f", "5.0f",
      "5L", "5u", "5\0", "\0005", "5.0\0", "1.\0005", "1\0.5", "one", "true",
      "٣", "５" } do
      is_no_number(text)
    end
    local others = { ["+"] = hex(1), ["-"] = hex(-1) }
    for byte = 0, 255 do
      local char = string.char(byte)
      if char ~= "." and not char:find("%d") then
        is_no_number("1" .. char)
        assert.equal(others[char], (read(char .. "1")), "byte " .. byte)
      end
    end
  end)
end)

describe("base.number writes", function()
  it("integers in decimal", function()
    for _, number in ipairs { 0, 5, -5, 10, -10, 4294967296, -4294967297 } do
      assert.equal(("%d"):format(number), (write(hex(number))))
    end
    assert.equal(MAX_TEXT, (write(MAX)))
    assert.equal(MIN_TEXT, (write(MIN)))
  end)

  it("floats so that they stay floats", function()
    for text, number in pairs { ["3.0"] = 3, ["-3.0"] = -3, ["0.0"] = 0,
      ["0.1"] = 0.1, ["0.5"] = 0.5, ["1e+15"] = 1e15, ["1e+20"] = 1e20,
      ["100000000000000.0"] = 1e14, ["123456789012345.0"] = 123456789012345,
      ["1e-05"] = 0.00001, ["0.30000000000000004"] = 0.1 + 0.2,
      ["1.7976931348623157e+308"] = 1.7976931348623157e308,
      ["5e-324"] = 5e-324, ["-5e-324"] = -5e-324, ["1e-320"] = 1e-320,
      ["2.2250738585072014e-308"] = 2 ^ -1022,
      ["9007199254740992.0"] = 2 ^ 53 } do
      assert.equal(text, (write(number + 0.0)))
    end
    assert.equal("-0.0", (write(-1 / HUGE)))
  end)

  it("a text that ends", function()
    for _, number in ipairs { MIN, hex(0), -1.2345678901234567e-300, 3.0 } do
      local _, ends = write(number)
      assert.is_true(ends)
    end
  end)

  it("what it reads again, and no more digits than that needs", function()
    local seed = binary.seed("numbers")
    local random = binary.random(seed)
    for i = 1, os.getenv("MMCMAP_LONG") and 300000 or 20000 do
      local mantissa = random(2 ^ 26) * 2 ^ 27 + random(2 ^ 27)
      local exponent = i % 3 == 0 and random(2000) - 1070 or random(80) - 90
      local number = mantissa * 2.0 ^ exponent * (i % 2 * 2 - 1)
      if i % 5 == 0 then number = number - number % 0.001 end
      if number - number == 0 then
        local what = ("MMCMAP_SEED=%d: %.17g"):format(seed, number)
        local text = write(number)
        assert.equal(number, (read(text)), what)
        assert.equal(number, tonumber(text), what)
        assert.equal(number, (read((("%.17g"):format(number)
          :gsub("^[-%d]+$", "%0.0")))), what)
        local digits = #text:gsub("e.*", ""):gsub("%.0$", ""):gsub("[-.]", "")
          :gsub("^0+", "")
        if digits >= 2 and text:find("[.e]") and not text:find("%.0$") then
          local shorter = ("%." .. digits - 1 .. "g"):format(number)
          assert.not_equal(number, tonumber(shorter), what)
        end
      end
    end
  end)

  it("every integer so that it is read again", function()
    local random = binary.random(binary.seed("integers"))
    for _ = 1, 5000 do
      local number = ("%08x%08x"):format(random(4294967296) - 1,
        random(4294967296) - 1)
      assert.equal(number, (read((write(number)))))
    end
  end)
end)

describe("base.number adds", function()
  local function overflows(a, b)
    for _ = 1, 2 do
      local sum, name = add(a, b)
      assert.is_nil(sum)
      assert.equal("ENUMBER", name)
      a, b = b, a
    end
  end

  it("integers", function()
    assert.equal(hex(5), add(hex(2), hex(3)))
    assert.equal(hex(-1), add(hex(2), hex(-3)))
    assert.equal(hex(0), add(hex(-3), hex(3)))
  end)

  it("up to every edge of 64 bits, and not beyond", function()
    assert.equal(MAX, add(MAX, hex(0)))
    assert.equal(MAX, add("7ffffffffffffffe", hex(1)))
    assert.equal(MIN, add(MIN, hex(0)))
    assert.equal(MIN, add("8000000000000001", hex(-1)))
    assert.equal(hex(-1), add(MIN, MAX))
    assert.equal("c000000000000000", add(MIN, "4000000000000000"))
    assert.equal(MIN, add("c000000000000000", "c000000000000000"))
    overflows(MAX, hex(1))
    overflows(MAX, MAX)
    overflows(MIN, hex(-1))
    overflows(MIN, MIN)
    overflows("4000000000000000", "4000000000000000")
    overflows("c000000000000000", "bfffffffffffffff")
  end)

  it("floats, and integers to floats", function()
    assert.equal(0.75, add(0.5, 0.25))
    assert.equal(1.5, add(hex(1), 0.5))
    assert.equal(1.5, add(0.5, hex(1)))
    assert.equal(0.0, add(hex(-1), 1.0))
    assert.equal(2 ^ 63, add(MAX, 1.0 / 4))
    assert.equal(-2 ^ 63, add(-0.5, MIN))
  end)

  it("no sum that is not finite", function()
    overflows(1.7976931348623157e308, 1e308)
    overflows(-1e308, -1e308)
    overflows(HUGE, 1.0 / 2)
    overflows(HUGE, hex(1))
    overflows(HUGE, -HUGE)
    overflows(HUGE - HUGE, hex(1))
    assert.equal(0.0, add(1e308, -1e308))
  end)
end)

describe("base.number in a locale whose decimal point is a comma", function()
  -- A locale's name and the folder that it is in, or nil and why not.
  local function comma_locale()
    for name in scratch.shell("locale -a 2>/dev/null"):gmatch("[^\n]+") do
      if name:find("^de_") or name:find("^fr_") then return name, "" end
    end
    local folder = scratch.path("locales")
    scratch.shell(("mkdir -p %s && localedef -c -i de_DE -f UTF-8 %s/de_DE.UTF-8 "
      .. "2>&1"):format(scratch.quoted(folder), scratch.quoted(folder)))
    if scratch.read(folder .. "/de_DE.UTF-8/LC_NUMERIC") then
      return "de_DE.UTF-8", folder
    end
    return nil, "no locale with a comma is installed, and none can be made"
  end

  it("reads and writes a point all the same", function()
    local name, folder = comma_locale()
    if not name then
      pending(folder)
      return
    end
    local file = scratch.write(scratch.path("comma"), [[
      local base = require("mmcmap_probe").base
      if not os.setlocale(arg[1], "numeric") then print("no such locale") return end
      local half = 1 / 2
      assert(jit or ("%.1f"):format(half) == "0,5", "the locale has no comma")
      assert(base.number_write(half) == "0.5")
      assert(base.number_write(1e300) == "1e+300")
      assert(base.number_write(3 + half - half) == "3.0")
      assert(base.number_write(-1 / 3) == "-0.3333333333333333")
      assert(base.number_read("0.5") == half)
      assert(base.number_read("-.5e1") == -10 * half)
      assert(base.number_read("1." .. ("0"):rep(398)) == 1)
      for _, text in ipairs { "0,5", "1.5,5", "1,5.5", ",5", "1.000.000,5" } do
        assert(select(2, base.number_read(text)) == "ENUMBER", text)
      end
      local mmcmap = require "mmcmap"
      local db = assert(mmcmap.open(arg[2]))
      assert(db:incr("n", half) == half and db:get("n") == "0.5")
      assert(db:incr("n", half) == 1 and db:get("n") == "1.0")
      assert(db:remove())
      print("ok")
    ]])
    local preload = scratch.quoted(os.getenv("LD_PRELOAD") or "")
    local output = scratch.shell(
      ('LOCPATH=%s LC_ALL=C LD_PRELOAD=%s "$MMCMAP_LUA" %s %s %s 2>&1'):format(
        scratch.quoted(folder), preload, scratch.quoted(file),
        scratch.quoted(name), scratch.quoted(scratch.path("comma.mmc"))))
    if output == "no such locale" then
      pending(name .. " cannot be set")
      return
    end
    assert.equal("ok", output)
  end)
end)
