#!/bin/sh
# SPDX-License-Identifier: ISC
#
# System tests: every executable tests/system/*_test.{sh,py} and every compiled
# build/*/system/*_test, with the real libvirt, WireGuard, nftables and SQLite.  Needs root; without
# it, says so and skips.  Each test makes its own directories and namespaces and removes them, also
# when it is killed; a test's output lines "NAME: N passed, N failed[, N skipped]" are added up by the caller.
#
# A VM's boot is one thread of qemu and a job's end is often waited for, so two tests share two cores well: JOBS
# at a time (default: one for each core, at most 2), then, one after the other, those of $alone.
#
# tests/system/run.sh [PATTERN]
set -u

# They judge times (daemon_life: silence), or see all of the machine (chaos: every namespace, stop: as many
# VMs at once as are good for).
alone='daemon_life_test hostile_test net_jobnet_test net_speed_test vm_cold_test chaos_test stop_test'
# The longest first: what begins last must not be what is waited for.
first='crash_test tunnel_test tunnel_faults_test jobs_test policy_test redteam_test redteam_frames_test'

# How many tests of a kind (OK, FAILED, SKIPPED) cmocka's output, or "NAME: N passed...", tells of.
count() { # LOG KIND
	if grep -q '^\[  *OK \]\|^\[  FAILED\|^\[  SKIPPED' "$1"; then
		case $2 in
		OK) grep -c '^\[       OK \]' "$1" ;;
		*) sed -n "s/^\\[ *$2 *\\] \\([0-9][0-9]*\\) test.*/\\1/p" "$1" | tail -1 ;;
		esac
		return
	fi
	case $2 in OK) n=1 ;; FAILED) n=2 ;; *) n=4 ;; esac
	sed -n "s/^[a-z0-9_-]*: \\([0-9]*\\) passed, \\([0-9]*\\) failed\\(, \\([0-9]*\\) skipped\\)\\{0,1\\}\$/\\$n/p" "$1" |
		tail -1
}

# tests/system/run.sh --one DIR TEST: runs it, tells what came of it all at once; DIR/failed: it failed.
one() { # DIR TEST
	name=$(basename "$2" | sed 's/\.[a-z]*$//')
	log=$1/$name.log
	start=$(date +%s)
	status=0
	timeout -k 10 "${TEST_TIMEOUT:-300}" "$2" >"$log" 2>&1 || status=$?
	ok=$(count "$log" OK) no=$(count "$log" FAILED) not=$(count "$log" SKIPPED)
	ok=${ok:-0} no=${no:-0} not=${not:-0}
	[ "$status" -eq 0 ] || [ "$no" -gt 0 ] || no=1
	if [ "$ok" -eq 0 ] && [ "$no" -eq 0 ] && [ "$not" -eq 0 ]; then
		if grep -q '^skip' "$log"; then not=1; else ok=1; fi
	fi
	{
		if [ "$not" -gt 0 ]; then
			grep '^skip\|\.\.\. skipped\|SKIPPED' "$log"
			echo "$name: $ok passed, $no failed, $not skipped"
		else
			echo "$name: $ok passed, $no failed"
		fi
		echo "   $name took $(($(date +%s) - start)) s"
		if [ "$no" -gt 0 ]; then
			echo "$name" >>"$1/failed"
			tail -80 "$log" | sed 's/^/   | /' # its own sum is not to be added a second time
		fi
	} >"$1/$name.told"
	cat "$1/$name.told" # one write: another test may tell of itself
}

if [ "${1:-}" = --one ]; then
	one "$2" "$3"
	exit 0
fi

cd "$(dirname "$0")/../.." || exit 1
pattern=${1:-}
if [ "$(id -u)" -ne 0 ]; then
	echo "skip system tests: they need root (VMs, network namespaces)"
	echo "system: 0 passed, 0 failed, 1 skipped"
	exit 0
fi
BUILD=${BUILD:-build/gcc}
export BUILD
jobs=${JOBS:-$(nproc)}
[ "$jobs" -le 2 ] || jobs=2
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

# Numbered: 0 and its place in $first, 1, or 2 for those of $alone.
for t in tests/system/*_test.sh tests/system/*_test.py "$BUILD"/system/*_test; do
	[ -x "$t" ] || continue
	case $t in *"$pattern"*) ;; *) continue ;; esac
	name=$(basename "$t" | sed 's/\.[a-z]*$//')
	case " $alone " in *" $name "*) echo "2 $t"; continue ;; esac
	case " $first " in *" $name "*) ;; *) echo "1 $t"; continue ;; esac
	before=${first%"$name"*}
	echo "0.$((100 + ${#before})) $t"
done | sort >"$dir/list"
sed -n 's/^[01][0-9.]* //p' "$dir/list" | xargs -r -P "$jobs" -n 1 tests/system/run.sh --one "$dir"
sed -n 's/^2 //p' "$dir/list" | xargs -r -n 1 tests/system/run.sh --one "$dir"
[ ! -e "$dir/failed" ]
