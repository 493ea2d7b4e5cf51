#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# run.sh MODEL DIRECTORY [--trio]: without a flaw spin finds nothing, with each planted one it finds something. One line each.
set -eu
model=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
mkdir -p "$2"
cd "$2"

check() { # NAME DEFINES...: prints what spin found
  name=$1
  shift
  mkdir -p "$name"
  (cd "$name" && rm -f ./*.trail && spin -a "$@" "$model" >spin.log 2>&1 &&
    cc -O2 -w -DSAFETY -DNOREDUCE -DCOLLAPSE -DMEMLIM=3000 -o pan pan.c && ./pan -m2000000 -w24 >pan.log 2>&1) || true
  grep -q '^State-vector' "$name/pan.log" || { cat "$name/spin.log" "$name/pan.log" >&2; exit 1; }
  states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$name/pan.log")
  seconds=$(sed -n 's/^pan: elapsed time \([0-9.]*\) seconds/\1/p' "$name/pan.log")
  errors=$(sed -n 's/.*errors: \([0-9]*\)/\1/p' "$name/pan.log")
  if grep -q 'Search not completed\|max search depth too small\|out of memory' "$name/pan.log" && [ "$errors" = 0 ]; then
    echo "$name: the search was not complete" >&2
    exit 1
  fi
  printf '%-22s %s states, %s s, errors: %s\n' "$name" "$states" "${seconds:-0}" "$errors"
  [ "$errors" = 0 ]
}

scope=${3:-}
[ "$scope" = --trio ] && set -- -DTRIO -DREVISIONS=3 || set --
check none "$@" || { echo "the model itself fails: spin -t -p -g in $PWD/none" >&2; exit 1; }
for flaw in NO_MARGIN STALE_PROMISE LEASE_FROM_ACK NO_SILENCE VOTES_TWICE OWN_CLAIM JOIN_BEFORE_WAIT REMOVE_EARLY; do
  if check "$flaw" "-DFLAW_$flaw" "$@"; then
    echo "spin does not find FLAW_$flaw" >&2
    exit 1
  fi
done
