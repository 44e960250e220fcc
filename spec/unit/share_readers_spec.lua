-- SPDX-License-Identifier: MIT
--
-- The reader table: pins that nest, the horizon that they hold back, rows that
-- threads claim and give back, tables that come and go; what processes see of
-- each other, and what the dead leave.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local readers = probe.readers
local unpack_ = table.unpack or unpack -- luacheck: ignore 113

describe("share.readers", function()
  local table_, workers

  before_each(function()
    table_ = assert(readers.new())
    workers = {}
  end)

  after_each(function()
    for _, worker in ipairs(workers) do worker:finish() end
    table_:destroy()
  end)

  local function new_worker(of)
    local worker = assert((of or table_):worker())
    workers[#workers + 1] = worker
    return worker
  end

  it("moves on when nobody is pinned", function()
    assert.equal(1, table_:tick())
    for tick = 2, 10 do
      assert.equal(tick, table_:advance())
      assert.equal(tick, table_:tick())
    end
  end)

  it("stays at the oldest pin", function()
    local a, b = new_worker(), new_worker()
    a:pin() -- at 1
    assert.equal(1, table_:advance())
    b:pin() -- at 2
    assert.equal(1, table_:advance())
    assert.equal(1, table_:advance())
    a:unpin()
    assert.equal(2, table_:advance())
    a:pin() -- at 5
    assert.equal(2, table_:advance())
    b:unpin()
    assert.equal(5, table_:advance())
    a:unpin()
    assert.equal(8, table_:advance())
  end)

  it("lets what was unlinked at a pin's tick be, not what was before",
    function()
      table_:advance() -- 2
      table_:pin()
      local unlinked = table_:tick()
      assert.is_false(unlinked < table_:advance())
      assert.is_true(unlinked - 1 < table_:advance())
      table_:unpin()
      assert.is_true(unlinked < table_:advance())
    end)

  it("nests pins: the outermost counts", function()
    table_:pin()
    table_:advance()
    table_:pin()
    table_:pin()
    assert.equal(1, table_:advance())
    table_:unpin()
    table_:unpin()
    assert.equal(1, table_:advance())
    table_:unpin()
    assert.equal(5, table_:advance())
    table_:pin()
    assert.equal(5, table_:advance())
    table_:unpin()
  end)

  it("gives a thread one row, and takes it back at its end", function()
    assert.equal(0, (table_:owned_rows()))
    table_:pin()
    table_:unpin()
    table_:pin()
    table_:unpin()
    assert.equal(1, (table_:owned_rows()))
    local worker = new_worker()
    worker:pin()
    worker:unpin()
    worker:pin()
    worker:unpin()
    assert.equal(2, (table_:owned_rows()))
    worker:finish()
    assert.equal(1, (table_:owned_rows()))
    for _ = 1, 200 do
      local short = new_worker()
      short:pin()
      short:unpin()
      short:finish()
    end
    local owned, all = table_:owned_rows()
    assert.equal(1, owned)
    assert.equal(63, all)
    assert.equal(2, table_:row_count())
  end)

  it("grows for more threads than a chunk has rows", function()
    for i = 1, 130 do
      new_worker():pin()
      assert.equal(i, (table_:owned_rows()))
    end
    local _, all = table_:owned_rows()
    assert.equal(189, all)
    assert.equal(1, table_:advance())
    for i = 1, 129 do workers[i]:unpin() end
    assert.equal(1, table_:advance())
    workers[130]:unpin()
    assert.equal(4, table_:advance())
    table_:pin()
    assert.equal(4, table_:advance())
    table_:unpin()
  end)

  it("keeps tables apart, more of them than a thread remembers", function()
    local others = {}
    for i = 1, 10 do
      others[i] = assert(readers.new())
      others[i]:pin()
      others[i]:pin()
    end
    assert.equal(2, table_:advance())
    for _ = 1, 2 do
      for i = 10, 1, -1 do
        assert.equal(1, others[i]:advance())
        others[i]:unpin()
      end
    end
    for i = 1, 10 do
      assert.equal(1, (others[i]:owned_rows()))
      assert.equal(4, others[i]:advance())
      others[i]:destroy()
    end
  end)

  it("may be destroyed while threads own rows of it", function()
    local worker, other = new_worker(), assert(readers.new())
    local both = new_worker(other)
    worker:pin()
    worker:unpin()
    both:pin()
    both:unpin()
    other:destroy()
    local another = assert(readers.new())
    assert.equal(0, (another:owned_rows()))
    both:finish()
    assert.equal(0, (another:owned_rows()))
    another:pin()
    another:unpin()
    another:destroy()
    worker:finish()
    assert.equal(0, (table_:owned_rows()))
  end)

  it("holds for a crowd", function()
    local count = probe.sanitizer and 60 or 200
    local started, failures = table_:crowd(count, 3000)
    assert.equal(count, started)
    assert.equal(0, failures)
    assert.equal(0, (table_:owned_rows()))
    local tick = table_:tick()
    assert.equal(tick + 1, table_:advance())
  end)

  -- Two processors' doing: with the fence of R1, and without. What goes wrong then
  -- takes hardly longer than a store needs to become visible; it is tried for a
  -- while.
  it("sees every pin that came too late to see what was unlinked", function()
    if (os.getenv("MMCMAP_RUN_WITH") or ""):find("valgrind", 1, true) then
      return pending("needs two threads at a time")
    end
    local late, reads = table_:race(500)
    assert.equal(0, late)
    assert.is_true(reads > 1000)
    if not probe.crash.has_hooks then return end
    probe.crash.breaks("NO_FENCE")
    for _ = 1, 20 do
      late = table_:race(500)
      if late > 0 then break end
    end
    probe.crash.breaks()
    assert.is_true(late > 0)
  end)

  -- A child that closed its parent's store freed the table in it, which was
  -- still in the list that a thread's end goes through.
  it("forgets the parent's tables in a child", function()
    local db = assert(probe.store.open(scratch.path("store"),
      { durability = "manual" }))
    assert(db:put("a", "1"))
    assert.equal("1", db:get("a"))
    local said, how, status = probe.child.run(function()
      local inherited = db
      db = nil
      assert(inherited:close())
      local own = assert(readers.new())
      local worker = assert(own:worker())
      worker:pin()
      worker:unpin()
      own:destroy()
      worker:finish()
      local second = assert(probe.store.open(scratch.path("second")))
      assert(second:put("b", "2"))
      assert(second:get("b") == "2")
      assert(second:close())
      return "well"
    end)
    assert.same({ "well", "exit", 0 }, { said, how, status })
    assert.equal("1", db:get("a"))
    assert(db:close())
  end)
end)

-- ---- A table that processes share ---------------------------------------------

describe("share.readers between processes", function()
  local share = probe.share
  local STUCK_COUNT, ROWS = 64, 63
  local SNAPSHOT = 2 -- what owns a row
  local NO_SNAPSHOT = ("0"):rep(16)
  local data, path, opened, threads, connection

  local function connect()
    local new = assert(share.connect(path, data))
    opened[#opened + 1] = new
    return new
  end

  local function join()
    local new = connect()
    assert(new:join())
    return new
  end

  before_each(function()
    data = scratch.write(scratch.path("data"), "the data file")
    path = data .. "-lock"
    opened, threads = {}, {}
    connection = join()
  end)

  after_each(function()
    probe.crash.breaks()
    for _, thread in ipairs(threads) do thread:finish() end
    for _, other in ipairs(opened) do other:close() end
  end)

  local function start_thread(of)
    local thread = assert((of or connection):thread())
    threads[#threads + 1] = thread
    return thread
  end

  -- A process that has joined and done `act`; it waits for a line then.
  local function start_child(act)
    local child = probe.child.start(function()
      local own = assert(share.connect(path, data))
      assert(own:join())
      probe.child.say(tostring(act and act(own)))
      probe.child.hear()
    end)
    return child, child:line()
  end

  -- An owner is a line of the file; a chunk has 64, after the header's 64.
  local function chunk_of(owner) return math.floor(owner / 64) - 1 end

  local function kill(child)
    child:kill()
    child:wait()
  end

  -- So often that a horizon that does not move is looked into; the last one.
  local function advance_for_long()
    local horizon
    for _ = 1, STUCK_COUNT + 2 do horizon = connection:advance() end
    return horizon
  end

  it("gives each its own chunks, and the first tick to all", function()
    local second, third = join(), join()
    assert.equal(3, connection:get("chunk_count"))
    for index = 0, 2 do
      local chunk = connection:chunk(index)
      assert.equal(1, chunk.state)
      assert.equal(0, chunk.is_further)
      assert.equal((probe.os.process_ids()), chunk.process)
    end
    connection:advance()
    assert.equal(2, second:tick())
    assert.equal(3, second:advance())
    assert.equal(3, third:tick())
    local late = join()
    assert.equal(3, late:tick())
    second:close()
    assert.equal(0, connection:chunk(1).state)
    join()
    assert.equal(1, connection:chunk(1).state)
    assert.equal(4, connection:get("chunk_count"))
  end)

  it("sees the pins of all", function()
    local second, third = join(), join()
    second:pin() -- at 1
    assert.equal(1, connection:advance())
    third:pin() -- at 2
    connection:pin() -- at 2
    assert.equal(1, third:advance())
    second:unpin()
    assert.equal(2, third:advance())
    third:unpin()
    assert.equal(2, second:advance())
    connection:unpin()
    assert.equal(6, second:advance())
  end)

  it("goes on in a second chunk when the first has no row left", function()
    local second = join()
    for _ = 1, ROWS do start_thread():pin() end
    assert.equal(2, connection:get("chunk_count"))
    start_thread():pin()
    assert.equal(3, connection:get("chunk_count"))
    assert.equal(1, connection:chunk(2).is_further)
    assert.equal(1, second:advance())
    connection:close()
    for _, thread in ipairs(threads) do thread:finish() end
    threads = {}
    assert.equal(0, second:chunk(0).state)
    assert.equal(0, second:chunk(2).state)
    assert.equal(3, second:advance())
  end)

  -- ---- The dead ---------------------------------------------------------------

  describe("rows of a process that was killed", function()
    it("hold the horizon until they are buried", function()
      local child = start_child(function(own) own:pin() end)
      assert.equal(1, connection:advance())
      connection:bury_dead() -- it lives
      assert.equal(1, connection:advance())
      kill(child)
      assert.equal(1, connection:advance())
      assert.equal(1, connection:row(1, 0).pin)
      connection:bury_dead()
      assert.equal(0, connection:chunk(1).state)
      assert.equal(0, connection:row(1, 0).pin)
      assert.equal(connection:tick() + 1, connection:advance())
    end)

    it("hold it for some tries only", function()
      local child = start_child(function(own) own:pin() end)
      for _ = 1, 3 do assert.equal(1, advance_for_long()) end
      kill(child)
      local horizon, tries = 1, 0
      while horizon == 1 and tries < 3 * STUCK_COUNT do
        horizon, tries = connection:advance(), tries + 1
      end
      assert.equal(connection:tick(), horizon)
    end)

    it("hold it still where another living one has the oldest pin", function()
      connection:pin() -- at 1
      connection:advance()
      local child = start_child(function(own) own:pin() end)
      kill(child)
      assert.equal(1, advance_for_long())
      assert.equal(0, connection:chunk(1).state)
      connection:unpin()
      assert.equal(connection:tick() + 1, connection:advance())
    end)

    it("are used again by the next that joins", function()
      local child = start_child(function(own)
        own:pin()
        own:name_snapshot(assert(own:claim_snapshot(7)), 40)
      end)
      assert.not_equal(NO_SNAPSHOT, connection:row(1, 1).snapshot)
      kill(child)
      join()
      assert.equal(2, connection:get("chunk_count"))
      assert.same({ 1, 0 }, { connection:chunk(1).state,
        connection:chunk(1).row_limit })
      for index = 0, 2 do
        local row = connection:row(1, index)
        assert.same({ 0, NO_SNAPSHOT, 0 }, { row.pin, row.snapshot, row.owned })
      end
      assert.equal(2, connection:advance())
    end)

    it("stay as they are while one of them owns a lock", function()
      for _, lock in ipairs { "writer", "growth", "leader" } do
        local child, owner = start_child(function(own)
          own:pin()
          assert(own:acquire(0, lock) == false)
          return own:owner()
        end)
        local index = chunk_of(tonumber(owner))
        kill(child)
        connection:bury_dead()
        advance_for_long()
        assert.equal(1, connection:chunk(index).state)
        assert.is_true(connection:row(index, 0).pin > 0)
        local other = join()
        assert.not_equal(index, chunk_of(other:owner()))
        assert.equal(tonumber(owner), (connection:word(lock)))
        assert.is_true(other:acquire(0, lock))
        connection:bury_dead()
        assert.equal(0, connection:chunk(index).state)
        other:release(lock)
        assert.equal(connection:tick() + 1, connection:advance())
        other:close()
      end
    end)

    it("are not claimed for a further chunk either", function()
      local child = start_child(function(own) own:acquire(0) end)
      kill(child)
      for _ = 1, ROWS + 1 do start_thread():pin() end
      assert.equal(3, connection:get("chunk_count"))
      assert.equal(1, connection:chunk(2).is_further)
      assert.is_true(connection:acquire(0))
      connection:release()
    end)
  end)

  -- ---- Snapshots --------------------------------------------------------------

  it("gives snapshots rows, which pin nothing", function()
    connection:set("change.appended_bytes", 5000)
    local row = connection:claim_snapshot(9)
    local chunk, index = connection:place(row)
    local shown = connection:row(chunk, index)
    assert.equal(NO_SNAPSHOT, shown.snapshot)
    assert.equal(0, shown.pin)
    assert.equal(SNAPSHOT, shown.owned)
    assert.equal(9, shown.limit_ns)
    assert.equal(5000, shown.log_bytes)
    assert.equal(select(2, probe.os.process_ids()), shown.thread)
    assert.is_true(shown.since_ns > 0)
    local mark = connection:name_snapshot(row, 0) -- an empty store's
    assert.not_equal(NO_SNAPSHOT, mark)
    assert.equal(mark, connection:row(chunk, index).snapshot)
    assert.is_true(connection:has_snapshot(row, mark))
    assert.not_equal(mark, connection:name_snapshot(row, 1))
    assert.is_false(connection:has_snapshot(row, mark))
    assert.equal(2, connection:advance())
    connection:give_back_snapshot(row)
    assert.equal(NO_SNAPSHOT, connection:row(chunk, index).snapshot)
    assert.equal(0, connection:row(chunk, index).owned)
    local again = connection:claim_snapshot(0)
    assert.same({ chunk, index }, { connection:place(again) })
    assert.is_false(connection:has_snapshot(again, mark))
    connection:give_back_snapshot(again)
  end)

  it("gives as many snapshots as there are, in further chunks", function()
    local rows, marks = {}, {}
    for i = 1, 2 * ROWS + 1 do
      rows[i] = assert(connection:claim_snapshot(0))
      marks[i] = connection:name_snapshot(rows[i], i)
    end
    assert.equal(3, connection:get("chunk_count"))
    for i = 1, #rows do
      assert.is_true(connection:has_snapshot(rows[i], marks[i]))
      connection:give_back_snapshot(rows[i])
    end
  end)

  it("ends snapshots that are older than they may become", function()
    local row = connection:claim_snapshot(1000)
    local mark = connection:name_snapshot(row, 7)
    local since = connection:row(connection:place(row)).since_ns
    connection:end_if_old(row, since)
    connection:end_if_old(row, since + 1000)
    connection:end_if_old(row, since - 1000000) -- a clock that disagrees
    assert.is_true(connection:has_snapshot(row, mark))
    connection:end_if_old(row, since + 1001)
    assert.is_false(connection:has_snapshot(row, mark))
    assert.equal(SNAPSHOT, connection:row(connection:place(row)).owned)
    connection:give_back_snapshot(row)
  end)

  it("lets snapshots without a limit become any age", function()
    local row = connection:claim_snapshot(0)
    local mark = connection:name_snapshot(row, 7)
    connection:end_if_old(row, 2 ^ 53)
    assert.is_true(connection:has_snapshot(row, mark))
    connection:give_back_snapshot(row)
  end)

  it("ends a snapshot, and not a younger one in the same row", function()
    local row = connection:claim_snapshot(1000)
    local chunk, index = connection:place(row)
    local mark = connection:name_snapshot(row, 7)
    local old = connection:row(chunk, index).since_ns
    connection:give_back_snapshot(row)
    local younger = connection:claim_snapshot(3600e9)
    assert.same({ chunk, index }, { connection:place(younger) })
    -- Of the same moment, and yet told apart by whoever ends the older one.
    local its_mark = connection:name_snapshot(younger, 7)
    assert.not_equal(mark, its_mark)
    connection:end_if_old(younger, old + 1001)
    connection:end_old()
    assert.is_true(connection:has_snapshot(younger, its_mark))
    assert.is_false(connection:has_snapshot(younger, mark))
    connection:give_back_snapshot(younger)
  end)

  it("ends old snapshots of all processes, and only those", function()
    local child, named = start_child(function(own)
      local mark
      for i = 1, 3 do
        local row = own:claim_snapshot(i == 2 and 3600e9 or 1)
        local its_mark = own:name_snapshot(row, i)
        if i == 2 then mark = its_mark end
      end
      return mark
    end)
    local own = connection:claim_snapshot(1)
    local own_mark = connection:name_snapshot(own, 4)
    local kept = connection:claim_snapshot(0)
    local kept_mark = connection:name_snapshot(kept, 5)
    probe.os.sleep_ms(2)
    connection:end_old()
    -- The highest bit says that it is ended: nothing is its own any more.
    local function is_ended(row) return connection:row(1, row).snapshot:find("^[89a-f]") end
    assert.is_truthy(is_ended(0))
    assert.equal(named, connection:row(1, 1).snapshot)
    assert.is_truthy(is_ended(2))
    assert.is_false(connection:has_snapshot(own, own_mark))
    assert.is_true(connection:has_snapshot(kept, kept_mark))
    child:tell("end")
    child:wait()
  end)

  -- ---- The report -------------------------------------------------------------

  -- Entries of processes, in order, each with its snapshots.
  local function report()
    local processes = {}
    for _, entry in ipairs(connection:report()) do
      if entry.is_snapshot then
        local snapshots = processes[#processes].snapshots
        assert.equal(processes[#processes].process, entry.process)
        assert.equal(processes[#processes].is_ours, entry.is_ours)
        snapshots[#snapshots + 1] = entry
      else
        entry.snapshots = {}
        processes[#processes + 1] = entry
      end
    end
    return processes
  end

  it("tells of processes, their threads, and who is pinned", function()
    local before = probe.os.monotonic_ns()
    local child, pid = start_child(function(own)
      own:pin()
      return (probe.os.process_ids())
    end)
    connection:pin()
    connection:unpin()
    start_thread():pin()
    start_thread():owner()
    local ours, others, more = unpack_(report())
    assert.is_nil(more)
    assert.is_true(ours.is_ours)
    assert.same({ (probe.os.process_ids()), 3, 1 },
      { ours.process, ours.thread_rows, ours.pinned_rows })
    assert.is_false(others.is_ours)
    assert.same({ tonumber(pid), 1, 1 },
      { others.process, others.thread_rows, others.pinned_rows })
    assert.is_true(ours.since_ns <= before)
    assert.is_true(others.since_ns >= before)
    assert.is_true(others.since_ns <= probe.os.monotonic_ns())
    assert.equal(2, connection:advance() + 1)
    kill(child)
    assert.equal(1, #report()) -- which buries the dead
    assert.equal(0, connection:chunk(1).state)
  end)

  it("tells of snapshots: epoch, age, what was written since", function()
    local before = probe.os.monotonic_ns()
    local child = start_child(function(own)
      own:set("change.appended_bytes", 1000)
      own:name_snapshot(own:claim_snapshot(0), 12)
      own:claim_snapshot(0) -- not named yet: it is not shown
    end)
    connection:set("change.appended_bytes", 1800)
    local row = connection:claim_snapshot(0)
    connection:name_snapshot(row, 13)
    connection:set("change.appended_bytes", 2000)
    local ours, others = unpack_(report())
    assert.same({ 1, 1 }, { #ours.snapshots, #others.snapshots })
    local mine, theirs = ours.snapshots[1], others.snapshots[1]
    assert.same({ 13, 200 }, { mine.epoch, mine.log_bytes })
    assert.same({ 12, 1000 }, { theirs.epoch, theirs.log_bytes })
    assert.equal(select(2, probe.os.process_ids()), mine.thread)
    assert.equal(theirs.process, theirs.thread) -- a child has one thread
    assert.is_true(theirs.since_ns >= before)
    assert.is_true(mine.since_ns >= theirs.since_ns)
    assert.equal(0, ours.thread_rows)
    connection:give_back_snapshot(row)
    assert.equal(0, #report()[1].snapshots)
    child:tell("end")
    child:wait()
  end)

  it("tells of a process of several chunks once", function()
    for _ = 1, ROWS + 2 do start_thread():owner() end
    local row = connection:claim_snapshot(0)
    connection:name_snapshot(row, 5)
    local other = join()
    other:pin()
    other:name_snapshot(other:claim_snapshot(0), 6)
    for _ = 1, ROWS do start_thread():pin() end -- a third chunk, behind it
    local first, second, more = unpack_(report())
    assert.is_nil(more)
    assert.same({ true, 2 * ROWS + 2, ROWS },
      { first.is_ours, first.thread_rows, first.pinned_rows })
    assert.same({ 1, 5 }, { #first.snapshots, first.snapshots[1].epoch })
    assert.same({ false, 1, 1 },
      { second.is_ours, second.thread_rows, second.pinned_rows })
    assert.same({ 1, 6 }, { #second.snapshots, second.snapshots[1].epoch })
    connection:give_back_snapshot(row)
  end)

  -- ---- Tables that nobody can have made ---------------------------------------

  it("bears any count of chunks: nothing is used again then", function()
    local child = start_child(function(own) own:pin() end)
    kill(child)
    for _, count in ipairs { 4294967295, 16384, 16383, 3 } do
      connection:set("chunk_count", count)
      assert.equal(0, connection:advance())
      connection:end_old()
      connection:bury_dead()
      assert.equal(0, advance_for_long())
    end
    connection:set("chunk_count", 0)
    assert.equal(connection:tick() + 1, connection:advance())
    connection:end_old()
    connection:bury_dead()
    assert.same({}, connection:report())
  end)

  it("reports in an instant, whatever the count of chunks", function()
    local said, how, status = probe.child.run(function() -- it may hang
      local own = assert(share.connect(path, data))
      assert(own:join())
      own:set("chunk_count", 4294967295)
      return tostring(#own:report())
    end)
    assert.same({ "2", "exit", 0 }, { said, how, status }) -- and the parent
  end)

  it("bears any chunk and row", function()
    local other = connect()
    assert.is_true(other:take_chunk(6))
    other:give_chunk(6)
    -- States that are none, and one that is: with more rows than there are.
    local file = assert(io.open(path, "r+b"))
    file:seek("set", 4096 * 2)
    file:write(("\255"):rep(4096 * 5), "\1\0\0\0", ("\255"):rep(4096 - 4))
    file:close()
    assert.equal(2, connection:advance())
    connection:end_old()
    assert.equal(1, connection:chunk(6).state)
    connection:bury_dead()
    assert.equal(0, connection:chunk(6).state)
    assert.equal(1, #connection:report())
    assert.is_true(join():pin())
    assert.equal(1, connection:chunk(1).state)
    assert.equal(2, connection:row(1, 0).pin)
  end)

  -- ---- Deliberate mistakes ----------------------------------------------------

  if not probe.crash.has_hooks then
    it("notices mistakes", function() pending("needs --enable-debug-checks") end)
    return
  end

  it("shows it if the living are buried", function()
    local other = join()
    other:pin()
    connection:bury_dead()
    assert.equal(1, connection:advance())
    probe.crash.breaks("BURY_ALIVE")
    connection:bury_dead()
    assert.not_equal(1, connection:advance())
    assert.equal(0, connection:row(1, 0).pin)
  end)

  -- Its heir is then asked to inherit from a row whose new owner lives.
  it("shows it if rows that own a lock are used again", function()
    local function claim_after_death()
      local child, owner = start_child(function(own)
        own:acquire(0)
        return own:owner()
      end)
      kill(child)
      local other = join()
      local names = {}
      for i = 1, 3 do names[i] = start_thread(other):owner() end
      local used = false
      for _, name in ipairs(names) do used = used or name == tonumber(owner) end
      return used, connection:acquire(0)
    end
    assert.same({ false, true }, { claim_after_death() })
    connection:release()
    probe.crash.breaks("CLAIM_OWNER")
    local used, inherited, code = claim_after_death()
    assert.is_true(used)
    assert.same({ nil, "EBUSY" }, { inherited, code })
  end)
end)
