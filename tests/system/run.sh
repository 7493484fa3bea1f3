#!/bin/sh
# SPDX-License-Identifier: ISC
#
# System tests: every executable tests/system/*_test.{sh,py} and every compiled
# build/*/system/*_test, with the real libvirt, WireGuard, nftables and SQLite.  Needs root; without
# it, says so and skips.  Each test makes its own directories and namespaces and removes them, also
# when it is killed; a test's output lines "NAME: N passed, N failed[, N skipped]" are added up by the caller.
#
# tests/system/run.sh [PATTERN]
set -u
cd "$(dirname "$0")/../.."
pattern=${1:-}
if [ "$(id -u)" -ne 0 ]; then
	echo "skip system tests: they need root (VMs, network namespaces)"
	echo "system: 0 passed, 0 failed, 1 skipped"
	exit 0
fi
build=${BUILD:-build/gcc}
bad=0
for t in tests/system/*_test.sh tests/system/*_test.py "$build"/system/*_test; do
	[ -x "$t" ] || continue
	case $t in *"$pattern"*) ;; *) continue ;; esac
	name=$(basename "$t" | sed 's/\.[a-z]*$//')
	log=$(mktemp)
	start=$(date +%s)
	if BUILD=$build timeout -k 10 "${TEST_TIMEOUT:-300}" "$t" >"$log" 2>&1; then status=0; else status=$?; fi
	if grep -q '^\[  *OK \]\|^\[  FAILED\|^\[  SKIPPED' "$log"; then # cmocka
		ok=$(grep -c '^\[       OK \]' "$log")
		no=$(sed -n 's,^\[  FAILED  \] \([0-9][0-9]*\) test.*,\1,p' "$log" | tail -1)
		not=$(sed -n 's,^\[  SKIPPED \] \([0-9][0-9]*\) test.*,\1,p' "$log" | tail -1)
	else
		counts=$(sed -n 's/^[a-z0-9_-]*: \([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p' "$log" | tail -1)
		ok=$(echo "$counts" | cut -d' ' -f1) no=$(echo "$counts" | cut -d' ' -f2) not=$(echo "$counts" | cut -d' ' -f3)
	fi
	ok=${ok:-0} no=${no:-0} not=${not:-0}
	[ "$status" -eq 0 ] || [ "$no" -gt 0 ] || no=1
	if [ "$ok" -eq 0 ] && [ "$no" -eq 0 ] && [ "$not" -eq 0 ]; then
		if grep -q '^skip' "$log"; then not=1; else ok=1; fi
	fi
	if [ "$not" -gt 0 ]; then
		grep '^skip\|\.\.\. skipped\|SKIPPED' "$log"
		echo "$name: $ok passed, $no failed, $not skipped"
	else
		echo "$name: $ok passed, $no failed"
	fi
	echo "   $name took $(($(date +%s) - start)) s"
	if [ "$no" -gt 0 ]; then
		bad=1
		tail -80 "$log" | sed 's/^/   | /' # its own sum is not to be added a second time
	fi
	rm -f "$log"
done
exit "$bad"
