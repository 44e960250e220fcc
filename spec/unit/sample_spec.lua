-- SPDX-License-Identifier: MIT
describe("sample #1", function()
  it("has dirs", function()
    assert.is_string(os.getenv("MMCMAP_TMP_DIR"))
  end)
  it("is pending", function() pending("later") end)
end)
