# SPDX-License-Identifier: MIT
#
# Bars from a table of tools/bench-plot: `table`, `columns`, `picture`, `heading`
# are given.
set terminal svg size 960,420 dynamic font "sans-serif,12" background "#ffffff"
set output picture
set title heading
set datafile separator "\t"
set datafile missing "-"
set style data histogram
set style histogram clustered gap 1
set style fill solid 0.9 border rgb "#ffffff"
set logscale y
set yrange [0.1:*]
set grid ytics lt rgb "#dddddd"
set xtics nomirror scale 0
set ytics nomirror
set border 3
set key outside right top
set linetype 1 lc rgb "#c0392b"
set linetype 2 lc rgb "#1f618d"
set linetype 3 lc rgb "#5dade2"
set linetype 4 lc rgb "#117a65"
set linetype 5 lc rgb "#52be80"
set linetype 6 lc rgb "#7d6608"
set linetype 7 lc rgb "#d4ac0d"
set linetype 8 lc rgb "#af601a"
set linetype 9 lc rgb "#6c3483"
set linetype 10 lc rgb "#af7ac5"
set linetype 11 lc rgb "#d98880"
set linetype 12 lc rgb "#424949"
set linetype 13 lc rgb "#909497"
set linetype cycle 13
plot for [column = 2:columns] table using column:xtic(1) title columnheader(column) lt column - 1, \
  1 notitle with lines lc rgb "#000000" dt 2
