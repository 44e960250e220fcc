# SPDX-License-Identifier: MIT
# What tools/demo and tools/check share; bash sources it. Everything they make
# is under build/, a folder for each build, so that a second run finds it.

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# Each call of the compiler goes through libtool, a script, which bash takes twice as long
# for.
if test -z "${CONFIG_SHELL-}" && has dash; then
  CONFIG_SHELL=$(command -v dash)
  export CONFIG_SHELL
fi

jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
logs=$top/build/logs

say() { printf '%s\n' "$*"; }
step() { printf '\n==> %s\n' "$*"; }
die() {
  printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
  exit 1
}

# ---- Packages ----------------------------------------------------------------

# Every word is a Debian package, or several "a|b" of which one will do; one
# that ends in "?" is done without where apt does not know it.
packages_build='gcc make autoconf automake libtool lua5.4 liblua5.4-dev libxxhash-dev'
packages_check="$packages_build pkg-config|pkgconf lua-busted lua-check? lua-ldoc?
  lua-cjson? cppcheck? clang-format-14? shellcheck? lua5.3? liblua5.3-dev? lua5.2? liblua5.2-dev?
  lua5.1? liblua5.1-0-dev? luajit2|luajit? libluajit2-5.1-dev|libluajit-5.1-dev?"
packages_ci="$packages_check clang libclang-rt-14-dev? valgrind luarocks g++ musl-tools?"

is_installed() {
  test "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = \
    'install ok installed'
}

# lacking WORD...: prints those of which no package is installed.
lacking() {
  local word name names
  for word in "$@"; do
    IFS='|' read -ra names <<<"${word%\?}"
    for name in "${names[@]}"; do
      is_installed "$name" && continue 2
    done
    say "$word"
  done
}

# names_of WORD...: prints a package for each, the first that apt knows.
names_of() {
  local word name names
  for word in "$@"; do
    IFS='|' read -ra names <<<"${word%\?}"
    for name in "${names[@]}"; do
      if apt-cache show "$name" >/dev/null 2>&1; then
        say "$name"
        continue 2
      fi
    done
    # Let apt-get complain, unless it can be done without.
    test "$word" != "${word%\?}" || say "${names[0]}"
  done
}

# Without apt: the programs must be there already.
require_programs() {
  local name absent=
  for name in cc make autoconf automake libtoolize lua5.4; do
    has "$name" || absent="$absent $name"
  done
  test -z "$absent" || die "this is not Debian or Ubuntu, and these programs are
missing:$absent. Install them, and the headers of Lua 5.4 and of xxHash, with
your system's package manager, and run this again."
  say 'Not Debian or Ubuntu: going on with the programs that are here.'
}

# install_packages WORD...
install_packages() {
  local words names root=()
  if ! has apt-get || ! has dpkg-query; then
    require_programs
    return
  fi
  words=$(lacking "$@")
  # Without any lists, as in a fresh container, apt knows no name.
  if test -n "$words" && apt-cache show make >/dev/null 2>&1; then
    # shellcheck disable=SC2086
    words=$(names_of $words)
  fi
  if test -z "$words"; then
    say 'all are installed'
    return
  fi
  if test "$(id -u)" -ne 0; then
    # shellcheck disable=SC2086
    has sudo || die 'please run, as root: apt-get install' $words
    root=(sudo)
  fi
  mkdir -p "$logs"
  "${root[@]}" apt-get update >"$logs/packages.log" 2>&1 ||
    say 'apt-get update failed; going on with the old lists'
  # shellcheck disable=SC2046
  names=$(names_of $(lacking "$@"))
  # shellcheck disable=SC2086
  say "installing:" $names
  # shellcheck disable=SC2086
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends $names >>"$logs/packages.log" 2>&1 || {
    tail -n 20 "$logs/packages.log"
    die 'apt-get install failed; all of it: build/logs/packages.log'
  }
}

# ---- Builds ------------------------------------------------------------------

# Makes configure, if it is not there or older than what it is made from.
prepare_sources() {
  cd "$top" || exit 1
  if test -f config.status; then
    say 'make distclean: this folder holds a build in place, beside which'
    say '  automake makes no other.'
    make -s distclean >/dev/null 2>&1
    test ! -f config.status || die 'make distclean failed; do it by hand, please'
  fi
  local source
  for source in configure.ac Makefile.am m4/mmcmap_bench.m4 m4/mmcmap_lua.m4; do
    if test ! -f configure || test ! -f Makefile.in ||
      test "$source" -nt configure || test "$source" -nt Makefile.in; then
      mkdir -p "$logs"
      autoreconf -fi >"$logs/autoreconf.log" 2>&1 || {
        tail -n 20 "$logs/autoreconf.log"
        die 'autoreconf failed'
      }
      # All of them, whatever autoreconf left as it was.
      touch aclocal.m4 && sleep 0.01 && touch Makefile.in configure
      return
    fi
  done
}

# in_build NAME COMMAND...: runs it in build/NAME; the output is added to
# build/NAME/build.log.
in_build() {
  local folder=$top/build/$1
  shift
  (
    cd "$folder" || exit 1
    exec >>build.log 2>&1
    "$@"
  )
}

# configure_build NAME [ARGUMENT of configure ...]: build/NAME, ready for make.
configure_build() {
  local name=$1 folder=$top/build/$1 is_new=
  shift
  mkdir -p "$folder" || return 1
  : >"$folder/build.log"
  if test ! -f "$folder/config.status" ||
    test "$*" != "$(cat "$folder/configured" 2>/dev/null)" ||
    test "$top/configure" -nt "$folder/config.status"; then
    rm -f "$folder/configured"
    test -f "$folder/config.status" || is_new=yes
    in_build "$name" "${CONFIG_SHELL:-sh}" ../../configure "$@" || return 1
    test -n "$is_new" || in_build "$name" make clean || return 1
    say "$*" >"$folder/configured"
  fi
}

# build NAME [ARGUMENT of configure ...]: build/NAME, up to date. The output is
# in build/NAME/build.log.
build() {
  configure_build "$@" && in_build "$1" make -j"$jobs"
}
