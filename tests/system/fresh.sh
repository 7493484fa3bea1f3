#!/bin/sh
# SPDX-License-Identifier: ISC
#
# Proves the package lists: a bare Debian 12 (debootstrap, minbase) with nothing of this project
# installed, the tree copied in, then a command, by default `make demo`.  Needs root, debootstrap and
# the package registry; removes everything at the end.  Not part of `make test`: it takes minutes.
#
# tests/system/fresh.sh [COMMAND...]
set -eu
cd "$(dirname "$0")/../.."
root=$(mktemp -d /var/tmp/omerta-fresh.XXXXXX)
cleanup() {
	for m in dev/pts dev proc sys run; do
		umount -l "$root/$m" 2>/dev/null || true
	done
	umount -l "$root" 2>/dev/null || true
	rm -rf --one-file-system "$root"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

start=$(date +%s)
chmod 755 "$root"
mount --bind "$root" "$root" # so that / is a mount point in there, as on any machine
debootstrap --variant=minbase --include=make,ca-certificates,git bookworm "$root" \
	"${MIRROR:-$(sed -n 's/^deb \([^ [][^ ]*\).*/\1/p; s/^URIs: *//p' /etc/apt/sources.list \
		/etc/apt/sources.list.d/* 2>/dev/null | head -1)}" >/dev/null
cp -a /etc/apt/. "$root/etc/apt/"
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
mount --bind /dev "$root/dev"
mount --bind /dev/pts "$root/dev/pts"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --make-rslave "$root/sys"
mount -t tmpfs tmpfs "$root/run"
git clone -q . "$root/omerta"
echo "fresh: bare system of $(du -sm --one-file-system "$root" | cut -f1) MB after $(($(date +%s) - start)) s"
[ $# -gt 0 ] || set -- make demo
chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
	$(env | grep -iE '^(https?_proxy|no_proxy)=' || true) sh -c 'cd /omerta && exec "$@"' sh "$@"
