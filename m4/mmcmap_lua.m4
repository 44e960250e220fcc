# SPDX-License-Identifier: MIT
#
# MMCMAP_LUA: finds a Lua interpreter and the headers that belong to it.
#
# It sets LUA, LUA_CFLAGS, LUA_VERSION, luadir and luaexecdir, and the
# conditional WITH_LUA. Headers are accepted only if they are of the version
# that the interpreter names itself: a module built with other headers would
# load, and crash later. (AX_PROG_LUA does not look for 5.4, and takes the
# headers of Lua 5.1 for LuaJIT's.)

AC_DEFUN([MMCMAP_LUA], [
AC_ARG_WITH([lua],
  [AS_HELP_STRING([--without-lua], [build the C library only])],
  [], [with_lua=yes])
AC_ARG_WITH([luajit],
  [AS_HELP_STRING([--with-luajit], [build the Lua module for LuaJIT])],
  [], [with_luajit=no])
AC_ARG_VAR([LUA], [the Lua interpreter, such as /usr/bin/lua5.3])
AC_ARG_VAR([LUA_CFLAGS], [where the headers of LUA are, such as -I/opt/lua5.3])
AC_ARG_VAR([PKG_CONFIG], [the pkg-config program])
AC_PATH_PROGS([PKG_CONFIG], [pkg-config pkgconf])

lua_summary=none
AS_VAR_IF([with_lua], [no], [], [_MMCMAP_LUA_INTERPRETER
_MMCMAP_LUA_HEADERS
lua_summary="$LUA ($lua_name), headers $lua_headers"
AC_SUBST([LUA_VERSION], [$lua_version])
AC_SUBST([luadir], ['${datarootdir}/lua/'$lua_version])
AC_SUBST([luaexecdir], ['${libdir}/lua/'$lua_version])])
AM_CONDITIONAL([WITH_LUA], [test "x$with_lua" != xno])
])

# The first interpreter there is; 5.4 before others.
AC_DEFUN([_MMCMAP_LUA_INTERPRETER], [
AS_VAR_IF([with_luajit], [no],
  [lua_candidates="lua5.4 lua54 lua-5.4 lua luajit lua5.3 lua53 lua5.2 lua52 lua5.1 lua51"],
  [lua_candidates=luajit])
AC_PATH_PROGS([LUA], [$lua_candidates])
AS_IF([test -z "$LUA"], [AC_MSG_ERROR([no Lua interpreter is found (tried
  $lua_candidates). Install one, such as Debian's lua5.4, or name it:
  ./configure LUA=/path/of/lua. For the C library alone: --without-lua])])

AC_MSG_CHECKING([which Lua $LUA is])
lua_version=`"$LUA" -e 'io.write((_VERSION:gsub("^Lua ", "")))' 2>&AS_MESSAGE_LOG_FD`
lua_jit=`"$LUA" -e 'io.write(jit and "yes" or "no")' 2>&AS_MESSAGE_LOG_FD`
AS_CASE([$lua_version/$lua_jit],
  [5.1/yes], [lua_name=LuaJIT lua_number=501],
  [5.@<:@1234@:>@/no], [lua_name="Lua $lua_version"
    lua_number=`AS_ECHO(["$lua_version"]) | sed 's/\./0/'`],
  [AC_MSG_RESULT([unknown])
   AC_MSG_ERROR([$LUA is not Lua 5.1 to 5.4 or LuaJIT])])
AC_MSG_RESULT([$lua_name])
AS_IF([test "x$with_luajit" != xno && test "x$lua_jit" != xyes],
  [AC_MSG_ERROR([--with-luajit was given, but LUA=$LUA is $lua_name])])
])

# The first of: what LUA_CFLAGS says (and nothing else then), what pkg-config
# knows, the usual folders.
AC_DEFUN([_MMCMAP_LUA_HEADERS], [
AS_IF([test "x$lua_jit" = xyes],
  [lua_packages=luajit lua_include='#include <luajit.h>'
   lua_folders="luajit-2.1 luajit-2.0" lua_debian="libluajit-5.1-dev or libluajit2-5.1-dev"],
  [lua_short=`AS_ECHO(["$lua_version"]) | tr -d .`
   lua_packages="lua$lua_version lua-$lua_version lua$lua_short lua" lua_include=
   lua_folders="lua$lua_version lua-$lua_version lua$lua_short lua/$lua_version"
   lua_debian=liblua$lua_version-dev
   AS_VAR_IF([lua_version], [5.1], [lua_debian=liblua5.1-0-dev])])

AC_MSG_CHECKING([for the headers of $lua_name])
lua_headers=
AS_IF([test "${LUA_CFLAGS+set}" = set], [_MMCMAP_LUA_TRY([$LUA_CFLAGS])], [
  AS_IF([test -n "$PKG_CONFIG"], [
    for lua_package in $lua_packages; do
      AS_IF([lua_flags=`"$PKG_CONFIG" --cflags $lua_package 2>&AS_MESSAGE_LOG_FD`],
        [_MMCMAP_LUA_TRY([$lua_flags])])
    done])
  for lua_folder in /usr/include /usr/local/include; do
    for lua_name_of_folder in $lua_folders; do
      AS_IF([test -d "$lua_folder/$lua_name_of_folder"],
        [_MMCMAP_LUA_TRY([-I$lua_folder/$lua_name_of_folder])])
    done
  done
  _MMCMAP_LUA_TRY([])])
AS_IF([test -z "$lua_headers"], [
  AC_MSG_RESULT([no])
  AC_MSG_ERROR([no lua.h and lauxlib.h of $lua_name are found. Debian and
  Ubuntu have them in $lua_debian. Elsewhere:
  ./configure LUA=$LUA LUA_CFLAGS=-I/folder/of/lua.h])])
AC_MSG_RESULT([$lua_headers])
])

# _MMCMAP_LUA_TRY(FLAGS): takes them if nothing has been taken yet and they
# lead to headers of the right version.
AC_DEFUN([_MMCMAP_LUA_TRY], [
AS_IF([test -z "$lua_headers"], [
  lua_saved_CPPFLAGS=$CPPFLAGS
  CPPFLAGS="$CPPFLAGS $1"
  AC_COMPILE_IFELSE([AC_LANG_SOURCE([
#include <lua.h>
#include <lauxlib.h>
$lua_include
#if LUA_VERSION_NUM != $lua_number
#error "headers of another version"
#endif
#if $lua_number == 501 && defined(LUA_JITLIBNAME) && !defined(LUAJIT_VERSION)
#error "headers of LuaJIT"
#endif
    ])], [LUA_CFLAGS="$1"; lua_headers="$1"
      AS_IF([test -z "$lua_headers"], [lua_headers="in the default folders"])])
  CPPFLAGS=$lua_saved_CPPFLAGS])
])
