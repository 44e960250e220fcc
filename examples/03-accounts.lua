-- SPDX-License-Identifier: MIT
--
-- Accounts, and transfers between them: a transaction happens as a whole or not
-- at all, whoever looks and whatever goes wrong.
--
--   lua5.4 examples/03-accounts.lua [FILE]
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

-- Many records at one instant, in one call.
assert(db:put_many { alice = 100, bob = 20, carol = 0 })

-- Takes an amount from one account to another. What the function raises undoes
-- what it has done, and is raised again by update. A failure that is only returned
-- (an account that is no number, a full disk) would not: assert() raises it.
local function transfer(from, to, amount)
  return db:update(function(tx)
    if assert(tx:incr(from, -amount)) < 0 then
      error(("%s does not have %d"):format(from, amount), 0)
    end
    assert(tx:incr(to, amount))
    assert(tx:incr("transfers"))
    return tx:get(from), tx:get(to) -- what update returns
  end)
end

local function sum()
  local total = 0
  for key, value in db:pairs() do -- one moment: never in the middle of a transfer
    if key ~= "transfers" then total = total + value end
  end
  return total
end

print("alice and bob:", assert(transfer("alice", "bob", 30)))
print("bob and carol:", assert(transfer("bob", "carol", 50)))

local ok, message = pcall(transfer, "carol", "alice", 1000)
print("refused:", message:match("[^\n]+"))
assert(not ok and db:get("carol") == "50" and db:get("alice") == "70")

-- Inside, the transaction sees its own changes, and everybody else what was before.
assert(db:update(function(tx)
  for key, value in tx:pairs() do -- as it was when the loop began
    if key ~= "transfers" then assert(tx:put(key, ("%d"):format(value * 2))) end
  end
  assert(tx:get("alice") == "140" and db:get("alice") == "70")
end)) -- true: the function returns nothing

assert(sum() == 240 and db:get("transfers") == "2")
assert(db:clear() and #db == 0)
assert(db:remove())
print("All is as it should be.")
