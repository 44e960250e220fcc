-- SPDX-License-Identifier: MIT
--
-- Named maps: a shop that keeps products, stock and orders apart, and changes
-- them together.
--
--   lua5.4 examples/05-maps.lua [FILE]
--
-- FILE (default: one with the other temporary files) must not exist; it is
-- deleted at the end.

local mmcmap = require "mmcmap"

local path = arg[1]
if not path then
  path = os.tmpname()
  os.remove(path)
end
local db = assert(mmcmap.open(path, { exclusive = true }))

-- A map is made by the first record that is put into it. The same key may be in
-- each of them.
local products, stock = db:map("products"), db:map("stock")
assert(products:put_many { tea = "Darjeeling, 100 g", pot = "a pot of clay" })
assert(stock:put_many { tea = 3, pot = 1 })

-- One transaction spans all maps, and the store's own records.
local function order(customer, product)
  return db:update(function(tx)
    if assert(tx:map("stock"):incr(product, -1)) < 0 then
      error("no " .. product .. " left", 0)
    end
    local number = assert(tx:incr("last order"))
    assert(tx:map("orders"):put(number, customer .. ": " .. product))
    return number
  end)
end

print("order", order("alice", "tea"))
print("order", order("bob", "pot"))
local ok, message = pcall(order, "carol", "pot")
print("refused:", message:match("[^\n]+"))
assert(not ok and stock:get("pot") == "0" and db:get("last order") == "2")

local names = db:maps()
table.sort(names)
for _, name in ipairs(names) do
  print(("%-9s %d records"):format(name, db:map(name):count()))
end

-- A loop over one map does not meet the records of others.
for number, what in db:map("orders"):pairs() do print(number, what) end

-- Dropping one takes no time, however many records it has.
assert(db:drop("orders") and not db:drop("orders"))
assert(db:map("orders"):count() == 0 and products:count() == 2)
assert(db:remove())
print("All is as it should be.")
