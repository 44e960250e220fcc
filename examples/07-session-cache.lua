-- SPDX-License-Identifier: MIT
--
-- Expiry: a cache of sessions, each of which ends some time after its user was
-- last seen, and a lock that nobody can hold for ever.
--
--   lua5.4 examples/07-session-cache.lua [FILE [SECONDS]]
--
-- FILE (default: one with the other temporary files) must not exist; it is
-- deleted at the end. A session lives for SECONDS (0.2).

local mmcmap = require "mmcmap"

local path, lifetime = arg[1], tonumber(arg[2] or 0.2)
if not path then
  path = os.tmpname()
  os.remove(path)
  path = path .. ".mmc"
end
local db = assert(mmcmap.open(path, { exclusive = true, durability = "manual" }))
local sessions = db:map("sessions")

-- ---- Sessions ---------------------------------------------------------------

-- A new session; its key is there for `lifetime` seconds.
local function log_in(user, token)
  assert(sessions:put(token, user, { ttl = lifetime }))
end

-- Who is it? Whoever is seen stays for as long again.
local function who(token)
  if sessions:expire(token, lifetime) then return sessions:get(token) end
end

local function wait(seconds)
  os.execute(("sleep %.3f"):format(seconds))
end

log_in("alice", "token 1")
log_in("bob", "token 2")
assert(sessions:put("token 3", "the operator"))   -- without an end
print(("alice's session ends in %.1f seconds"):format(sessions:ttl("token 1")))
assert(sessions:ttl("token 3") == nil)

local since = 0
while since < 1.5 * lifetime do                   -- alice goes on, bob does not
  wait(lifetime / 4)
  since = since + lifetime / 4
  if not who("token 1") then log_in("alice", "token 1") end
end
print(("still there: %s, and %s"):format(who("token 1"), sessions["token 3"]))
assert(who("token 2") == nil, "bob has been away for too long")

-- ---- Many of them -----------------------------------------------------------

-- Nobody ever deletes a session. What has expired is no longer there for get(),
-- pairs() and all the others; count() includes it until it is swept: by a thread
-- of the library with the durability "async", and else by step().
for i = 1, 2000 do log_in("guest " .. i, "guest token " .. i) end
local before = sessions:count()
wait(lifetime + 0.05)
local left = 0
for _ in sessions:pairs() do left = left + 1 end
local steps = 0
while sessions:count() > left and steps < 1000 do
  assert(db:step(0.001))
  steps = steps + 1
  if steps % 10 == 0 then wait(0.01) end
end
print(("%d sessions, of which %d are left"):format(before, left))
assert(before >= 2001 and sessions:count() == left)

-- ---- A lock that ends by itself ---------------------------------------------

-- Of all processes that try, one gets it; if it dies, the lock is free again soon.
assert(db:add("lock", "me", { ttl = 60 }))
assert(not db:add("lock", "somebody else", { ttl = 60 }))
print("the lock is refused to somebody else")
assert(db:expire("lock", lifetime))               -- most of its time is over
wait(lifetime + 0.05)
assert(db:add("lock", "somebody else", { ttl = 60 }))
print("the lock went to " .. db:get("lock"))

assert(db:remove())
