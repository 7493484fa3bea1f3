#!/bin/sh
# SPDX-License-Identifier: ISC
#
# Runs test programs, JOBS at a time (default 1), and ends with one line: "N passed, N failed",
# and ", N skipped" when some were: what they need is not here.
# A program's whole output is shown when it fails.  Exit status 1 when a test failed.
#
# tests/run.sh NAME PROGRAM...
set -u

# tests/run.sh --one DIR PROGRAM: leaves DIR/<name>.log and DIR/<name>.status.
if [ "$1" = --one ]; then
	out=$2/$(basename "$3")
	status=0
	timeout -k 5 "${TEST_TIMEOUT:-300}" "$3" >"$out.log" 2>&1 || status=$?
	echo "$status" >"$out.status"
	exit 0
fi

name=$1
shift
if [ $# -eq 0 ]; then
	echo "$name: there is no such test" >&2
	exit 1
fi
TSAN_OPTIONS=suppressions=$(dirname "$0")/tsan.supp:${TSAN_OPTIONS:-}
export TSAN_OPTIONS
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
printf '%s\n' "$@" | xargs -P "${JOBS:-1}" -n 1 "$0" --one "$dir"
passed=0 failed=0 skipped=0
for program; do
	out=$dir/$(basename "$program")
	status=$(cat "$out.status" 2>/dev/null || echo "not run")
	ok=$(grep -c '^\[       OK \]' "$out.log")
	# A program may run its tests several times (seeds), each with a sum of its own.
	bad=$(sed -n 's,^\[  FAILED  \] \([0-9][0-9]*\) test.*,\1,p' "$out.log" | awk '{ n += $1 } END { print n + 0 }')
	not=$(sed -n 's,^\[  SKIPPED \] \([0-9][0-9]*\) test.*,\1,p' "$out.log" | awk '{ n += $1 } END { print n + 0 }')
	# A crash or a time-out fails at least one test, also when cmocka could not say so.
	if [ "$status" != 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
	if [ "$status" = 0 ] && [ "$ok" -eq 0 ] && [ "$not" -eq 0 ]; then ok=1; fi
	passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + not))
	if [ "$status" != 0 ]; then
		echo "FAIL $program (status $status)"
		cat "$out.log"
	else
		echo "ok   $(basename "$program") ($ok)"
	fi
done
end=''
if [ "$skipped" -gt 0 ]; then end=", $skipped skipped"; fi
echo "$name: $passed passed, $failed failed$end"
[ "$failed" -eq 0 ]
