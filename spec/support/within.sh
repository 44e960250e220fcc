#!/bin/sh
# SPDX-License-Identifier: MIT
# within.sh SECONDS FOLDER COMMAND...
#
# Runs COMMAND, which gives MMCMAP_TMP_DIR=FOLDER to all that it starts, and
# exits as it does. After SECONDS (0: never) it tells, as comments of TAP, which
# processes there are with that, and where they are if there is gdb, kills them
# and exits with 124. However COMMAND ends, processes that it leaves behind are
# killed: each holds the pipe to who reads the results, and keeps that waiting. So
# they are when it is told to end (a TERM to it alone waits for COMMAND).
limit=$1 folder=$2
shift 2

# Known by their environment: they may be in groups and sessions of their own.
at_work() {
  grep -lzxFs -- "MMCMAP_TMP_DIR=$folder" /proc/[0-9]*/environ | cut -d / -f 3
}

command_of() {
  tr '\0\n' '  ' <"/proc/$1/cmdline" | cut -c 1-120
}

stacks_of() {
  timeout 20 gdb -p "$1" -batch -ex 'thread apply all bt 16' </dev/null |
    grep -E '^(Thread|#)' | cut -c 1-160
}

kill_all() {
  for pid in "$@"; do kill -9 "$pid" 2>/dev/null; done
}

tell() {
  echo "# after $limit s there were:"
  for pid in $(at_work); do
    echo "$pid $(command_of "$pid")"
    ! command -v gdb >/dev/null || stacks_of "$pid"
  done 2>/dev/null | sed 's/^/#   /'
}

late=$folder/../late
watcher=
if test "$limit" -gt 0; then
  {
    trap 'kill "$!"; exit' TERM
    sleep "$limit" 3>&- &
    wait "$!"
    trap '' TERM
    : >"$late"
    tell >&3
    # shellcheck disable=SC2046
    kill_all $(at_work)
  } 3>&1 >/dev/null 2>&1 &
  watcher=$!
fi

# shellcheck disable=SC2317
finish() {
  trap '' INT TERM HUP
  if test -n "$watcher"; then
    test -e "$late" || kill "$watcher"
    wait "$watcher"
  fi
  for pid in $(at_work); do
    echo "# left behind, and killed: $(command_of "$pid" 2>/dev/null)"
    kill_all "$pid"
  done
}

# The watcher, in the background, is not told of a ^C, which ends COMMAND.
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
"$@"
status=$?
test ! -e "$late" || status=124
exit $status
