#!/bin/sh
# SPDX-License-Identifier: ISC
#
# Breaks each promise of the runtime once, in a copy of the tree, and expects the test that is named
# in the patch to fail.  A patch begins with two lines: "Promise N: ..." and "Test: KIND/PROGRAM".
#
# tests/mutants/run.sh [PATTERN]	BUILD=build/gcc: objects that are copied, to save time
set -u
cd "$(dirname "$0")/../.." || exit 1
pattern=${1:-}
build=${BUILD:-build/gcc}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
git ls-files Makefile base runtime bench client daemon dist docs/docs.mk msg tests/sim tests/stress \
	tests/unit/runtime_\* tests/unit/nomem.h tests/fuzz tests/mutants tests/run.sh | cpio -pdm --quiet "$work"
for part in base runtime tests; do
	[ -d "$build/obj/$part" ] && mkdir -p "$work/build/gcc/obj" &&
		cp -a "$build/obj/$part" "$work/build/gcc/obj/"
done
cd "$work" || exit 1
export SEEDS=1000 STRESS_ROUNDS=4
passed=0 failed=0
verdict() { # ok|bad, text
	if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	printf '%-4s %-18s %-62s %s\n' "$1" "$name" "$promise" "$2"
}
program() { make -s CC=gcc "build/gcc/$1" >make.log 2>&1; }

for patch in tests/mutants/*.patch; do
	name=$(basename "$patch" .patch)
	case $name in *"$pattern"*) ;; *) continue ;; esac
	promise=$(sed -n 's/^Promise //p' "$patch")
	test=$(sed -n 's/^Test: //p' "$patch")
	if ! program "$test" || ! timeout 120 "build/gcc/$test" >test.log 2>&1; then
		verdict bad "$test fails without the patch too"
		tail -5 make.log test.log
		continue
	fi
	if ! patch -p1 -s -F3 <"$patch"; then
		verdict bad "does not apply"
		exit 1
	fi
	if ! program "$test"; then
		verdict bad "does not build"
		cat make.log
	else
		timeout 60 "build/gcc/$test" >test.log 2>&1
		status=$?
		if [ "$status" -eq 0 ]; then
			verdict bad "$test does NOT fail"
		else
			how=$(grep -o '^FAIL .*\|^\[  FAILED  \] test.*' test.log | head -1)
			verdict ok "$test: ${how:-status $status}"
		fi
	fi
	patch -p1 -s -R -F3 <"$patch" || exit 1
done
echo "mutants: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
