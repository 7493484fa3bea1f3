#!/bin/sh
# SPDX-License-Identifier: ISC
#
# Records the operator's first ten minutes for docs/operations.md: starts a daemon in directories of
# its own with the guest image of this machine, runs the commands that are shown, and prints them with
# what they answered.
#
#   tools/first_minutes.sh > /tmp/session.md      as root, in the root of the tree, after make image
set -eu
root=$PWD
build=${BUILD:-build/gcc}
dir=$(mktemp -d /tmp/omerta-session.XXXXXX)
chmod 711 "$dir"
daemon=
end() {
	[ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon" || true; }
	rm -rf "$dir"
}
trap end EXIT INT TERM

cat > "$dir/omertad.conf" <<CONF
[daemon]
state_dir = $dir/state
run_dir = $dir/run
[jobs]
max_jobs = 2
owner_peer = alice
trusted_networks = home, lab
[rule resources]
kind = resources
max_mem_mib = 16384
[rule quiet-hours]
kind = quiet_hours
start = 22:00
end = 08:00
zone = +12:00
CONF
printf 'import platform\nprint("hello from", platform.system())\n' > "$dir/hello.py"
export OMERTA_ENDPOINT="ipc://$dir/run/control.sock" NO_COLOR=1

# The command as a person types it, then what it shows on a terminal (script(1) plays one).
run() {
	printf '$ %s\n' "$*"
	(cd "$dir" && PATH="$root/$build:$PATH" script -qec "stty cols 118; $*" /dev/null < /dev/null) |
	    sed "s/\r\$//; s/.*\r//; s/\x1b\[K//g; s#$dir/state#/var/lib/omertad#g; s#$dir/run#/run/omerta#g; s#$dir/##g"
}

echo '```console'
echo '$ omertad start'
"$build/omertad" start --config "$dir/omertad.conf" > "$dir/start.log" 2> "$dir/log" &
daemon=$!
i=0
until grep -q '^ready' "$dir/start.log"; do
	i=$((i + 1))
	[ "$i" -lt 600 ] && kill -0 "$daemon" 2>/dev/null || { cat "$dir/start.log" "$dir/log" >&2; exit 1; }
	sleep 0.2
done
sed "s#$dir/state#/var/lib/omertad#g; s#$dir/run#/run/omerta#g" "$dir/start.log"
echo '```'
echo
echo '```console'
run omerta submit --quiet --network none --job first --on-behalf bob --network-id cafe hello.py
run omertad pending
run omertad approve first
run omerta wait first
run omerta output first
run omertad rules test --peer bob --memory 32G
run omertad config trust cafe
run omertad config block mallory
run omertad config set jobs.max_jobs 3
run omertad config set control.port 1
run omerta submit --quiet --network none --job many --array 0-3%2 --wait hello.py
run omerta list --array many
run omertad audit --limit 5
run omertad audit verify
run omertad status
run "omertad metrics | grep '^omertad_jobs_total' | grep -v ' 0\$'"
run omertad stop
wait "$daemon" || true
daemon=
echo '```'
