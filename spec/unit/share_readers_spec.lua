-- SPDX-License-Identifier: MIT
--
-- The reader table: pins that nest, the horizon that they hold back, rows that
-- threads claim and give back, tables that come and go.

local probe = require "mmcmap_probe"
local scratch = require "spec.support.scratch"
local readers = probe.readers

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
