#!/bin/sh
# SPDX-License-Identifier: ISC
# Checks the models exhaustively with spin.  Exit status 1 when one fails, 77 without spin.
command -v spin >/dev/null || { echo "model: skipped, spin is not installed"; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
status=0
for model in mailbox park; do
	cd "$work" || exit 1
	rm -f pan*
	spin -a "$here/$model.pml" >spin.log 2>&1 && gcc -w -O2 -DSAFETY -DVECTORSZ=2048 -o pan pan.c || {
		cat spin.log; exit 1; }
	./pan -m200000 >pan.log 2>&1
	if grep -q 'errors: 0' pan.log && ! grep -q 'max search depth' pan.log; then
		echo "model: $model ok, $(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log) states"
	else
		echo "model: $model FAILED"; cat pan.log; status=1
		[ -f "$model.pml.trail" ] && spin -t -p "$here/$model.pml" | tail -60
	fi
done
exit $status
