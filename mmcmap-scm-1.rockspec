-- SPDX-License-Identifier: MIT
-- From the folder of the sources: luarocks make mmcmap-scm-1.rockspec
rockspec_format = "3.0"
package = "mmcmap"
version = "scm-1"
source = {
  url = "git+file://.",
}
description = {
  summary = "An embedded key-value store: one memory mapped file, lock-free readers",
  license = "MIT",
}
dependencies = {
  "lua >= 5.1, < 5.5",
}
supported_platforms = { "linux" }
external_dependencies = {
  XXHASH = { header = "xxhash.h" },
}
-- The sources stay as they are: everything is made in build/luarocks.
build = {
  type = "command",
  build_command = [[
    (test -x configure || autoreconf -fi) &&
    mkdir -p build/luarocks && cd build/luarocks &&
    ../../configure --disable-static LUA="$(LUA)" \
      LUA_CFLAGS="-I$(LUA_INCDIR)" CPPFLAGS="-I$(XXHASH_INCDIR)" &&
    make clean && make
  ]],
  install_command = [[
    cd build/luarocks &&
    make install-lua luadir="$(LUADIR)" luaexecdir="$(LIBDIR)"
  ]],
}
