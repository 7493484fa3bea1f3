#!/bin/sh
# SPDX-License-Identifier: ISC
#
# The whole test suite, as `make test` runs it: lint, unit, sim, stress and model with gcc; the clients
# and the runtime alone as others link them; the build with clang; unit, sim, stress and the hostile
# clients under ASan+UBSan; unit, sim and stress under TSan; stress and the runtime's unit tests on one
# core, plain and under TSan; system tests with the real libvirt, WireGuard, nftables and SQLite.
# Ends with "N passed, N failed", and ", N skipped" when tests were skipped: what
# they need is not here.
#
# tests/all.sh [PART...]	only these parts
set -u
cd "$(dirname "$0")/.."
parts=${*:-lint unit sim stress model python standalone clang asan tsan system}
jobs=$(nproc)
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0 began=$(date +%s)

# Adds up the lines "NAME: N passed, N failed[, N skipped]" that a part printed.
run_part() {
	part=$1
	shift
	start=$(date +%s)
	echo "== $part"
	if "$@" >"$log" 2>&1; then status=0; else status=$?; fi
	if [ "$status" -eq 77 ]; then # what it needs is not installed
		cat "$log"
		skipped=$((skipped + 1))
		return
	fi
	counts=$(sed -n 's/^[a-z0-9_-]*: \([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p' "$log" |
		awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }')
	p=${counts%% *} s=${counts##* } f=${counts#* } f=${f% *}
	# A part without counts (lint, a build) is one test.
	if [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && [ "$s" -eq 0 ]; then
		if [ "$status" -eq 0 ]; then p=1; else f=1; fi
	elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
		f=1
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	if [ "$f" -ne 0 ]; then cat "$log"; else grep -E '(passed, |^skip|^lint)' "$log" | tail -5; fi
	if [ "$s" -gt 0 ]; then f="$f failed, $s skipped"; else f="$f failed"; fi
	echo "   $part: $p passed, $f in $(($(date +%s) - start)) s"
}

for part in $parts; do
	case $part in
	lint) run_part lint tools/lint.sh ;;
	unit) run_part unit make -j"$jobs" --no-print-directory unit ;;
	sim) run_part sim make -j"$jobs" --no-print-directory sim ;;
	stress) run_part stress make -j"$jobs" --no-print-directory stress onecore ;;
	model) run_part model tests/model/run.sh ;;
	python) run_part python tests/python/run.sh ;;
	standalone) run_part standalone tests/standalone/run.sh ;;
	clang) run_part clang make -j"$jobs" --no-print-directory CC=clang all libs ;;
	asan) run_part asan make -j"$jobs" --no-print-directory SAN=asan unit sim stress hostile ;;
	tsan) # the simulation has one thread: its seeds are for the other builds
		run_part tsan make -j"$jobs" --no-print-directory SAN=tsan SEEDS=1000 unit sim stress onecore ;;
	system) run_part system make -j"$jobs" --no-print-directory system ;;
	*) echo "no such part: $part" >&2; exit 2 ;;
	esac
done
echo "test: $((passed + failed + skipped)) tests in $(($(date +%s) - began)) s"
end=''
if [ "$skipped" -gt 0 ]; then end=", $skipped skipped"; fi
echo "$passed passed, $failed failed$end"
[ "$failed" -eq 0 ]
