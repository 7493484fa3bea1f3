#!/bin/sh
# SPDX-License-Identifier: ISC
#
# `make demo`: sets up a fresh Debian 12 machine, starts a daemon of its own (private directories, so
# a system's omertad is not touched), submits a Python job and shows what came back and what is
# stored.  The last line is "demo: ok in N s (...)".  Leaves nothing running.
set -eu
cd "$(dirname "$0")/.."

now_ms() { date +%s%3N; }
took() { awk -v ms="$(($(now_ms) - $1))" 'BEGIN { printf "%.2f\n", ms / 1000 }'; }
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
daemon= requester=
cleanup() {
	if [ -n "$requester" ]; then
		exec 8>&- || true # its end of file
		wait "$requester" 2>/dev/null || true
	fi
	if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
		kill -TERM "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

step=$(now_ms)
tools/setup.sh build image run demo
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
[network]
# The requester below lives in a namespace of this machine, on a private address.
allow_endpoints = 10.250.2.0/30
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

echo "== a requester in a network namespace of its own: a WireGuard end and a web server"
mkdir "$dir/www"
echo "a page that only the tunnel reaches" >"$dir/www/index.html"
mkfifo "$dir/req.in" "$dir/req.out"
/usr/bin/python3 tests/system/tunnel_rig.py "$dir/www" <"$dir/req.in" >"$dir/req.out" 2>"$dir/req.err" &
requester=$!
exec 8>"$dir/req.in" 9<"$dir/req.out"
read -r word host outer _ <&9 || die "the requester's end: $(cat "$dir/req.err")"
[ "$word" = ready ] || die "the requester's end"
echo "   host $host, requester $outer, inside the tunnel 10.99.0.1 and 10.99.0.2"

echo "== a job that fetches a page through the tunnel"
cat >"$dir/fetch.py" <<'PY'
import urllib.request
print("fetched:", urllib.request.urlopen("http://10.99.0.1/", timeout=30).read().decode().strip())
PY
$bin/omerta submit --wg "$dir/www/job.conf" --wait "$dir/fetch.py" >"$dir/out" 2>"$dir/err" || {
	cat "$dir/out" "$dir/err"
	die "the job behind the tunnel"
}
sed 's/^/   stdout: /' "$dir/out"
tail -1 "$dir/err" | sed 's/^/   /'
grep -q 'only the tunnel reaches' "$dir/out" || die "the page did not come through"

kill_ms=
for target in "$host 22" "192.0.2.1 443"; do
	set -- $target
	echo "== a job that tries $1 port $2 directly"
	cat >"$dir/rogue.py" <<PY
import socket, time
print("trying $1", flush=True)
socket.create_connection(("$1", $2), timeout=10)
time.sleep(60)
PY
	if $bin/omerta submit --wg "$dir/www/job.conf" --wait "$dir/rogue.py" >"$dir/out" 2>"$dir/err"; then
		die "a rogue job ended well"
	fi
	tail -1 "$dir/err" | sed 's/^/   /'
	grep -q rogue_killed "$dir/err" || die "the rogue job was not killed as one"
	kill_ms=$(sed -n 's/.*killed after \([0-9.]*\) ms.*/\1/p' "$dir/err" | tail -1)
done
echo "   evidence:"
newest=$($bin/omerta list | head -1 | cut -f1)
$bin/omerta show "$newest" | grep -E 'destination|source|protocol|kind|killed_after' | sed 's/^/   /'
exec 8>&-
wait "$requester" || die "the requester's end"
requester=
sed 's/^/   /' <&9

echo "== what is stored"
$bin/omerta list | sed 's/^/   /'
$bin/omertad audit verify | sed 's/^/   /'

echo "== the daemon stops"
kill -TERM "$daemon"
wait "$daemon" || die "the daemon's exit status is $?"
daemon=
sqlite3 "$dir/state/ledger.db" 'select id, state, exit_code, wall_ms, cpu_ms, mem_peak_kib from jobs' |
	sed 's/^/   sqlite3: /'
left=$(pgrep -f "$dir" || true)
[ -z "$left" ] || die "processes are left: $left"

echo "demo: ok in $(took "$begin") s (packages $t_packages, build $t_build, image $t_image, start $t_start, cold job $t_job, kill $kill_ms ms)"
