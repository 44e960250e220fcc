# SPDX-License-Identifier: MIT
# What the scripts in this folder share; they source it. It sets `top` (the
# source folder, absolute).

top=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 99

# c_files (C++ too), lua_files: the project's own, one a line, relative to $top. Folders
# of a build in place or under build/ hold none.
c_files() {
  (cd "$top" && find src spec fuzz bench examples -type f \
    \( -name '*.[ch]' -o -name '*.cc' \) 2>/dev/null | LC_ALL=C sort)
}
lua_files() {
  (cd "$top" && find lua spec tools bench examples -type f -name '*.lua' \
    2>/dev/null | LC_ALL=C sort)
}

# every_file FOLDER...: what is in them, but for what a build in place makes.
every_file() {
  (cd "$top" && find "$@" \( -name .deps -o -name .libs \) -prune -o -type f \
    ! -name .dirstamp ! -name '*.o' ! -name '*.lo' ! -name '*.log' \
    ! -name '*.trs' -print 2>/dev/null | LC_ALL=C sort)
}

# has PROGRAM
has() { command -v "$1" >/dev/null 2>&1; }

# needs PROGRAM PACKAGE: ends the check as skipped if PROGRAM is not there.
needs() {
  has "$1" && return 0
  echo "SKIP: needs $2"
  exit 77
}

# Prints the name of clang-format 14, the version that the sources agree with.
clang_format_14() {
  for program in clang-format-14 clang-format; do
    if "$program" --version 2>/dev/null | grep -q 'version 14\.'; then
      echo "$program"
      return 0
    fi
  done
  return 1
}
