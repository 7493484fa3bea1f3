#!/bin/sh
# SPDX-License-Identifier: ISC
#
# Checks the models exhaustively with spin.  Exit status 1 when one fails, 77 without spin.
#
# tests/model/run.sh		each model in each of its configurations, one for each core at a time
# tests/model/run.sh --one MODEL CONFIGURATION
# tests/model/run.sh --mutants	each MUTANT of each model must be found wrong in one of them
set -u
command -v spin >/dev/null || { echo "model: skipped, spin is not installed"; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cp "$here"/*.pml "$work" # spin leaves its files beside the model
cd "$work" || exit 1

# configurations MODEL: words for -D
configurations() {
	case $1 in
	mailbox) echo "ORDER FULL RESTART" ;;
	*) echo ALL ;;
	esac
}

# check MODEL DEFINE...: leaves pan.log.  0: no error, 1: an error, 2: not checked to the end
check() {
	model=$1
	shift
	defines=
	for d; do defines="$defines -D$d"; done
	rm -f pan* ./*.trail
	# shellcheck disable=SC2086
	spin -a $defines "$model.pml" >pan.log 2>&1 &&
		gcc -w -O2 -DSAFETY -DVECTORSZ=2048 -o pan pan.c >>pan.log 2>&1 || return 2
	./pan -m200000 -w24 >pan.log 2>&1
	grep -q 'max search depth\|out of memory\|aborted' pan.log && return 2
	grep -q 'errors: 0' pan.log && return 0
	grep -q 'errors: 1' pan.log && return 1
	return 2
}

states() {
	sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log
}

bad=0
if [ "${1:-}" = --mutants ]; then
	for model in mailbox slot; do
		for mutant in $(grep -o '\bMUTANT_[A-Z_]*' $model.pml | sort -u); do
			found=
			for conf in $(configurations $model); do
				check $model "$conf" "$mutant"
				result=$?
				if [ $result -eq 2 ]; then
					cat pan.log
				elif [ $result -eq 1 ]; then
					found="$conf: $(sed -n 's/^pan:1: //p' pan.log)"
					break
				fi
			done
			if [ -n "$found" ]; then
				echo "model: $model $mutant is found by $found"
			else
				echo "model: $model $mutant is NOT found"
				bad=1
			fi
		done
	done
	exit $bad
fi
if [ "${1:-}" = --one ]; then
	if check "$2" "$3"; then
		echo "model: $2 $3 ok, $(states) states"
		exit 0
	fi
	echo "model: $2 $3 FAILED"
	cat pan.log
	[ -f "$2.pml.trail" ] && spin "-D$3" -t -p "$2.pml" | tail -60
	exit 1
fi
for model in mailbox slot park; do
	for conf in $(configurations $model); do
		echo "$model $conf"
	done
done | xargs -P "$(nproc)" -n 2 "$here/run.sh" --one
