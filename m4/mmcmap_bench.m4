# SPDX-License-Identifier: MIT
#
# MMCMAP_BENCH: finds the stores that bench/driver measures beside mmcmap. None
# is needed for anything else. For each NAME that is there it sets the conditional
# BENCH_NAME, adds to BENCH_CPPFLAGS and BENCH_LIBS, and adds the Debian package
# of one that is not there to bench_left_out.

AC_DEFUN([MMCMAP_BENCH], [
AC_ARG_WITH([peers],
  [AS_HELP_STRING([--without-peers],
    [leave other stores out of bench/driver (default: take those there are)])],
  [], [with_peers=yes])
BENCH_CPPFLAGS=
BENCH_LIBS=
bench_left_out=
bench_cxx=no
AS_VAR_IF([with_peers], [no], [], [
AC_LANG_PUSH([C++])
bench_saved_CXXFLAGS=$CXXFLAGS
CXXFLAGS="$CXXFLAGS -std=c++20"
AC_MSG_CHECKING([for a C++20 compiler])
AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <string_view>
#include <unordered_map>
    struct point { int x, y; };]],
  [[constexpr point p = {.x = 1, .y = 0};
    return static_cast<int>(std::string_view("a").size()) - p.x;]])],
  [bench_cxx=yes])
AC_MSG_RESULT([$bench_cxx])
CXXFLAGS=$bench_saved_CXXFLAGS
AC_LANG_POP([C++])])
AM_CONDITIONAL([BENCH_CXX], [test $bench_cxx = yes])
AS_IF([test $bench_cxx = yes],
  [AS_VAR_APPEND([BENCH_CPPFLAGS], [" -DBENCH_CXX"]); BENCH_LD='$(CXX)'],
  [AS_VAR_APPEND([bench_left_out], [" g++"]); BENCH_LD='$(CC)'])
AC_SUBST([BENCH_LD])

_MMCMAP_PEER([LMDB], [C], [liblmdb-dev], [-llmdb],
  [[#include <lmdb.h>]], [[MDB_env *env; return mdb_env_create(&env);]])
_MMCMAP_PEER([TDB], [C], [libtdb-dev], [-ltdb],
  [[#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/types.h>
#include <tdb.h>]], [[return tdb_open("x", 1, 0, O_RDWR, 0) == 0;]])
_MMCMAP_PEER([GDBM], [C], [libgdbm-dev], [-lgdbm],
  [[#include <gdbm.h>]], [[return gdbm_open("x", 0, GDBM_READER, 0, 0) == 0;]])
_MMCMAP_PEER([SQLITE], [C], [libsqlite3-dev], [-lsqlite3],
  [[#include <sqlite3.h>]], [[return sqlite3_prepare_v3(0, "", 0, 0, 0, 0);]])
_MMCMAP_PEER([TKRZW], [C++], [libtkrzw-dev], [-ltkrzw],
  [[#include <tkrzw_dbm_hash.h>]], [[tkrzw::HashDBM dbm; return dbm.IsOpen();]])
_MMCMAP_PEER([KYOTO], [C++], [libkyotocabinet-dev], [-lkyotocabinet],
  [[#include <kchashdb.h>]],
  [[kyotocabinet::HashDB db; return static_cast<int>(db.count());]])
_MMCMAP_PEER([LEVELDB], [C++], [libleveldb-dev], [-lleveldb],
  [[#include <leveldb/db.h>]],
  [[leveldb::DB *db; return leveldb::DB::Open({}, "", &db).ok();]])
_MMCMAP_PEER([ROCKSDB], [C++], [librocksdb-dev], [-lrocksdb],
  [[#include <rocksdb/db.h>]],
  [[rocksdb::DB *db; return rocksdb::DB::Open({}, "", &db).ok();]])
bench_absl=
AS_IF([test -n "$PKG_CONFIG"],
  [bench_absl=`"$PKG_CONFIG" --libs absl_flat_hash_map 2>&AS_MESSAGE_LOG_FD`])
_MMCMAP_PEER([ABSL], [C++], [libabsl-dev], [$bench_absl],
  [[#include <string>
#include <absl/container/flat_hash_map.h>]],
  [[absl::flat_hash_map<std::string, int> map; return map["a"];]])

# What of mmcmap itself the adapter can use.
_MMCMAP_BENCH_HAS([TXN], [transactions], [[mmcmap_txn *txn;
  return mmcmap_txn_begin(0, &txn) + mmcmap_txn_put(txn, key, key)
    + mmcmap_txn_commit(txn);]])
_MMCMAP_BENCH_HAS([GET_MANY], [get_many],
  [[return mmcmap_get_many(0, &key, 1, visit, 0);]])
bench_left_out=`AS_ECHO(["$bench_left_out"]) | sed 's/^ //'`
AC_SUBST([BENCH_CPPFLAGS])
AC_SUBST([BENCH_LIBS])
AC_SUBST([bench_left_out])
])

# _MMCMAP_PEER(NAME, LANGUAGE, PACKAGE, LIBRARIES, PROLOGUE, BODY)
AC_DEFUN([_MMCMAP_PEER], [
bench_has=no
AS_IF([test "x$with_peers/$2" != xno/$2 && test "$2/$bench_cxx" != C++/no], [
AC_LANG_PUSH([$2])
bench_saved_LIBS=$LIBS
bench_saved_CXXFLAGS=$CXXFLAGS
LIBS="$4 $LIBS"
m4_if([$2], [C++], [CXXFLAGS="$CXXFLAGS -std=c++20"])
AC_MSG_CHECKING([for $3])
AC_LINK_IFELSE([AC_LANG_PROGRAM([$5], [$6])], [bench_has=yes])
AC_MSG_RESULT([$bench_has])
LIBS=$bench_saved_LIBS
CXXFLAGS=$bench_saved_CXXFLAGS
AC_LANG_POP([$2])])
AS_IF([test $bench_has = yes],
  [AS_VAR_APPEND([BENCH_CPPFLAGS], [" -DBENCH_$1"])
   AS_VAR_APPEND([BENCH_LIBS], [" $4"])],
  [AS_VAR_APPEND([bench_left_out], [" $3"])])
AM_CONDITIONAL([BENCH_$1], [test $bench_has = yes])
])

# _MMCMAP_BENCH_HAS(NAME, WORDS, BODY)
AC_DEFUN([_MMCMAP_BENCH_HAS], [
bench_saved_CPPFLAGS=$CPPFLAGS
bench_saved_CFLAGS=$CFLAGS
CPPFLAGS="$CPPFLAGS -I$srcdir/src"
CFLAGS="$CFLAGS -Werror=implicit-function-declaration"
AC_MSG_CHECKING([whether mmcmap.h has $2])
AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include "mmcmap.h"
mmcmap_slice key;
int visit(void *context, size_t index, mmcmap_slice value);]], [$3])],
  [AC_MSG_RESULT([yes])
   AS_VAR_APPEND([BENCH_CPPFLAGS], [" -DBENCH_HAVE_$1"])],
  [AC_MSG_RESULT([no])])
CPPFLAGS=$bench_saved_CPPFLAGS
CFLAGS=$bench_saved_CFLAGS
])
