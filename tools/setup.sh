#!/bin/sh
# SPDX-License-Identifier: ISC
#
# Installs the Debian packages that are missing: tools/setup.sh WHAT...  (build image run test bench)
# Does nothing, and needs no network, when all of them are there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

missing=
for what; do
	for package in $(sed -n "s/^$what //p" "$here/packages"); do
		case $(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true) in
		ii*) ;;
		*) missing="$missing $package" ;;
		esac
	done
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "setup: not root; as root, install:$missing" >&2
	exit 1
fi
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Services of the packages are not started by us: the daemon uses a system's libvirtd where one
# runs, and starts a private one where none does.
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -30 "$log" >&2
	echo "setup: apt-get failed" >&2
	exit 1
fi
