#!/bin/sh
# Runs test programs one after the other and ends with one line: "N passed, N failed".
# Usage: tests/run.sh NAME PROGRAM...    Exit status 1 when a test failed.
name=$1; shift
passed=0 failed=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
for program; do
	if timeout -k 5 "${TEST_TIMEOUT:-300}" "$program" >"$log" 2>&1; then status=0; else status=$?; fi
	ok=$(grep -c '^\[       OK \]' "$log")
	# A program may run its tests several times (seeds), each with a sum of its own.
	bad=$(sed -n 's,^\[  FAILED  \] \([0-9][0-9]*\) test.*,\1,p' "$log" | awk '{ n += $1 } END { print n + 0 }')
	# A crash or a time-out fails at least one test, also when cmocka could not say so.
	if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
	if [ "$status" -eq 0 ] && [ "$ok" -eq 0 ]; then ok=1; fi
	passed=$((passed + ok)) failed=$((failed + bad))
	if [ "$status" -ne 0 ]; then
		echo "FAIL $program (status $status)"
		cat "$log"
	else
		echo "ok   $(basename "$program") ($ok)"
	fi
done
echo "$name: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
