#!/bin/sh
# SPDX-License-Identifier: ISC
#
# `make demo`: sets up a fresh Debian 12 machine, starts a daemon of its own (private directories, so
# a system's omertad is not touched), submits a Python job and shows what came back and what is
# stored.  The last line is "demo: ok in N s (...)".  Leaves nothing running.
set -eu
cd "$(dirname "$0")/.."

now_ms() { date +%s%3N; }
took() { echo "$(($(now_ms) - $1))" | sed 's/\([0-9]*\)\([0-9][0-9]\)[0-9]$/\1.\2/; s/^\./0./'; }
begin=$(now_ms)
die() {
	echo "demo: failed: $*" >&2
	exit 1
}

if [ "$(id -u)" -ne 0 ]; then
	echo "demo: needs root: it installs packages and starts virtual machines with libvirt" >&2
	exit 1
fi

dir=$(mktemp -d /tmp/omerta-demo.XXXXXX)
chmod 711 "$dir" # the hypervisor runs as a user of its own
daemon=
cleanup() {
	if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step=$(now_ms)
tools/setup.sh build image run
t_packages=$(took "$step")

step=$(now_ms)
make -j"$(nproc)" --no-print-directory all >"$dir/build.log" 2>&1 || {
	tail -40 "$dir/build.log"
	die "the build"
}
t_build=$(took "$step")

step=$(now_ms)
make --no-print-directory image >"$dir/image.log" 2>&1 || {
	tail -40 "$dir/image.log"
	die "the guest image"
}
t_image=$(took "$step")
bin=build/gcc
export OMERTA_ENDPOINT="ipc://$dir/run/control.sock"

echo "== a daemon of its own"
cat >"$dir/omertad.conf" <<CONF
[daemon]
state_dir = $dir/state
run_dir = $dir/run
[jobs]
max_jobs = 2
CONF
mkfifo "$dir/log"
step=$(now_ms)
$bin/omertad start --config "$dir/omertad.conf" >"$dir/log" 2>&1 &
daemon=$!
exec 3<"$dir/log"
ready=no
while IFS= read -r line <&3; do
	echo "   $line"
	case $line in *ready:*)
		ready=yes
		break
		;;
	esac
done
[ "$ready" = yes ] || die "the daemon ended before it was ready"
t_start=$(took "$step")
cat <&3 >"$dir/daemon.log" &

echo "== a Python job, without a network, in a VM of its own"
cat >"$dir/hello.py" <<'PY'
import os, platform, sys
print("Hello from VM")
print("kernel", platform.release(), "python", platform.python_version(), file=sys.stderr)
print("cards", sorted(os.listdir("/sys/class/net")))
PY
step=$(now_ms)
$bin/omerta submit --network none --activity "the demo" --wait "$dir/hello.py" >"$dir/out" 2>"$dir/err" || {
	cat "$dir/out" "$dir/err"
	die "the job"
}
t_job=$(took "$step")
sed 's/^/   stdout: /' "$dir/out"
sed 's/^/   stderr: /' "$dir/err"
grep -q '^Hello from VM$' "$dir/out" || die "the job's output did not come back"

echo "== what is stored"
$bin/omerta list | sed 's/^/   /'
$bin/omerta show "$($bin/omerta list --json | sed -n 's/.*"job": *"\([^"]*\)".*/\1/p' | head -1)" | sed 's/^/   /'
$bin/omertad audit verify | sed 's/^/   /'

echo "== the daemon stops"
kill -TERM "$daemon"
wait "$daemon" || die "the daemon's exit status is $?"
daemon=
sqlite3 "$dir/state/ledger.db" 'select id, state, exit_code, wall_ms, cpu_ms, mem_peak_kib from jobs' |
	sed 's/^/   sqlite3: /'
left=$(pgrep -f "$dir" || true)
[ -z "$left" ] || die "processes are left: $left"

echo "demo: ok in $(took "$begin") s (packages $t_packages, build $t_build, image $t_image, start $t_start, job $t_job)"
