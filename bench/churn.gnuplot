# SPDX-License-Identifier: MIT
#
# The size of the file over what is alive against the work done, from `timeline`, a
# churn-time.csv: a panel for each level of durability, a line for each load. `levels`
# and `loads` name them; `picture` is given, too.
set terminal svg size 960,420 dynamic font "sans-serif,12" background "#ffffff"
set output picture
set datafile separator ","
set grid ytics lt rgb "#dddddd"
set xtics nomirror
set border 3
set xlabel "put, times what is alive"
set logscale y 2
set yrange [0.5:16]
set ytics nomirror (0.5, 1, 1.5, 2, 4, 8, 16)
set xrange [0:*]
set linetype 1 lc rgb "#c0392b" lw 1.5
set linetype 2 lc rgb "#1f618d" lw 1.5
set linetype 3 lc rgb "#52be80" lw 1.5
set linetype 4 lc rgb "#d4ac0d" lw 1.5
set linetype 5 lc rgb "#6c3483" lw 1.5
set linetype 6 lc rgb "#af601a" lw 1.5
set linetype 7 lc rgb "#909497" lw 1.5
set multiplot layout 1,words(levels) \
  title "The file's size over what is alive"
panel(n) = word(levels, n)
is(load, level) = strcol("load") eq load && strcol("level") eq level
do for [p = 1:words(levels)] {
  set title panel(p)
  if (p == 1) { set key top left samplen 2 } else { unset key }
  plot for [i = 1:words(loads)] timeline \
      using (is(word(loads, i), panel(p)) ? column("work") : NaN): \
      (column("size_over_alive")) with lines lt i title word(loads, i), \
    1.5 notitle with lines lc rgb "#000000" dt 2
}
unset multiplot
