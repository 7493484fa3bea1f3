# SPDX-License-Identifier: ISC
#
# Sourced by a test that is a shell script, with its $suite and its folder $dir: `check NAME COMMAND...`
# counts the command in $passed or $failed, and shows its output when it fails.
passed=0 failed=0

check() {
	name=$1
	shift
	if "$@" >"$dir/log" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAIL $suite: $name"
		cat "$dir/log"
	fi
}
