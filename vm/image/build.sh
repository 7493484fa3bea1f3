#!/bin/sh
# SPDX-License-Identifier: ISC
#
# Builds the guest image from Debian packages: kernel, initramfs with our agent, read-only root.
#
#   build.sh --agent FILE [--out DIR] [--check]
#
# The result is DIR/<recipe>/ with vmlinux, initramfs, root.sqfs, MANIFEST and SHA256SUMS, and
# DIR/current, a symbolic link that is replaced in one step.  <recipe> is the hash of this script,
# of the package list beside it and of the agent, so the script does nothing when the image is of
# this recipe and its hashes are right.  --check says by its exit status whether that is so.
#
# Runs as root on Debian 12; needs mmdebstrap squashfs-tools cpio lz4 xz-utils.  Nothing is
# installed on the host: the kernel package is only unpacked.
set -eu
umask 022
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
agent='' out=/var/cache/omertad/images check=no
while [ $# -gt 0 ]; do
	case $1 in
	--agent) agent=$2; shift 2 ;;
	--out) out=$2; shift 2 ;;
	--check) check=yes; shift ;;
	*) echo "usage: $0 --agent FILE [--out DIR] [--check]" >&2; exit 2 ;;
	esac
done

die() {
	echo "image: $*" >&2
	exit 1
}

[ -n "$agent" ] || die "--agent FILE is missing"
[ -r "$agent" ] || die "no agent at $agent (make builds it)"

suite=bookworm
kernel_meta=linux-image-cloud-amd64
# What the agent loads (it has no modprobe), after what each needs.  The first word says when:
# always, with a PCI bus, without one, with a network card.
modules='
pci virtio_pci
mmio virtio_mmio
all virtio_console
all virtio_blk
all squashfs
all overlay
net virtio_net'

recipe=$(cat "$here/build.sh" "$here/packages" "$agent" | sha256sum | cut -c1-64)
dest=$out/$recipe

is_whole() {
	[ -f "$dest/SHA256SUMS" ] && (cd "$dest" && sha256sum --check --status SHA256SUMS)
}

set_current() {
	ln -sfn "$recipe" "$out/.current.$$"
	mv -T "$out/.current.$$" "$out/current"
}

if [ $check = yes ]; then
	[ "$(readlink "$out/current" 2>/dev/null || true)" = "$recipe" ] && is_whole
	exit
fi

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9			# two builders at once: the second finds the work done
if is_whole; then
	set_current
	echo "image: $dest is current"
	exit 0
fi
[ "$(id -u)" = 0 ] || die "must run as root (mmdebstrap unpacks packages as root)"
for tool in mmdebstrap mksquashfs cpio lz4 xz dpkg-deb apt-get; do
	command -v $tool >/dev/null || die "$tool is missing: apt-get install mmdebstrap squashfs-tools cpio lz4 xz-utils"
done

# What an interrupted build left is of nobody else: the lock is ours.
rm -rf "$out"/.build.*
work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
chmod 0755 "$work"
mkdir "$work/image"

# --- kernel ------------------------------------------------------------------------------------
fetch_kernel() {
	[ -n "$(ls /var/lib/apt/lists/*_Packages* 2>/dev/null)" ] || apt-get update -q >&2
	package=$(apt-cache depends --no-recommends --no-suggests $kernel_meta |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	[ -n "$package" ] || die "apt knows no $kernel_meta: apt-get update"
	mkdir "$work/kernel"
	# A list that is older than the mirror names a package that is gone: refresh, try once more.
	(cd "$work/kernel" && chmod 0777 . &&
		{ apt-get download -q "$package" || { apt-get update -q && apt-get download -q "$package"; }; }) \
		>"$work/log" 2>&1 || { cat "$work/log" >&2; die "cannot download $package"; }
	dpkg-deb -x "$work"/kernel/*.deb "$work/kernel"
	release=$(basename "$work"/kernel/lib/modules/*)
}

# qemu starts an uncompressed ELF kernel without firmware (PVH): take it out of the bzImage.
unpack_with() {	# $1: magic as octal escapes for grep -P, rest: the command
	magic=$1; shift
	grep -aboP "$magic" "$bz" | cut -d: -f1 >"$work/offsets" || return 1
	while read -r at; do
		tail -c "+$((at + 1))" "$bz" | "$@" >"$work/vmlinux" 2>/dev/null || true
		if [ "$(head -c 4 "$work/vmlinux" | tail -c 3)" = ELF ]; then
			return 0
		fi
	done <"$work/offsets"
	return 1
}

carve_kernel() {
	bz=$work/kernel/boot/vmlinuz-$release
	unpack_with '\x02\x21\x4c\x18' lz4 -dc ||
		unpack_with '\xfd7zXZ\x00' xz -dc ||
		unpack_with '\x1f\x8b\x08' gzip -dc ||
		die "cannot unpack the kernel $bz"
	mv "$work/vmlinux" "$work/image/vmlinux"
}

# --- initramfs: the agent as /init and the modules it loads; raw, compression gains nothing -------

# Takes the signature off a module: checking them costs an emulated CPU 0.2 s a boot, and the hash of the
# image covers all modules.  The file ends in signature, 12 bytes that end in its length (big
# endian), and 28 bytes of magic.
strip_signature() {
	if [ "$(tail -c 28 "$1")" = '~Module signature appended~' ]; then
		# shellcheck disable=SC2046 # four numbers
		set -- "$1" $(tail -c 32 "$1" | head -c 4 | od -An -tu1)
		truncate -s "-$(((($2 * 256 + $3) * 256 + $4) * 256 + $5 + 40))" "$1"
	fi
}

add_module() {	# $1: when, $2: name; what it needs comes first
	# Not there: built into this kernel.  There twice: another one needed it under its condition,
	# and loading a module that is loaded is no error.
	ko=$(find "$work/kernel/lib/modules/$release" -name "$2.ko")
	if [ -z "$ko" ] || grep -qx "$1 $2.ko" "$root/modules/order"; then
		return 0
	fi
	for needed in $(grep -aoP '(?<=\0)depends=\K[^\0]+' "$ko" | tr , ' '); do
		add_module "$1" "$needed"
	done
	ko=$(find "$work/kernel/lib/modules/$release" -name "$2.ko")
	cp "$ko" "$root/modules/"
	strip_signature "$root/modules/$2.ko"
	echo "$1 $2.ko" >>"$root/modules/order"
}

make_initramfs() {
	root=$work/initramfs
	mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/modules" "$root/root" "$root/disk"
	install -m 0755 "$agent" "$root/init"
	: >"$root/modules/order"
	echo "$modules" | while read -r when name; do
		[ -z "$name" ] || add_module "$when" "$name"
	done
	# /dev/console gives PID 1 its stdin, stdout and stderr.
	mknod -m 0600 "$root/dev/console" c 5 1
	find "$root" -exec touch -h -d @0 {} +
	(cd "$root" && find . | sort | cpio --quiet --reproducible -o -H newc) >"$work/image/initramfs"
}

# --- root --------------------------------------------------------------------------------------
write_root_files() {
	cat >"$1/etc/passwd" <<-'PASSWD'
	root:x:0:0:root:/root:/bin/sh
	job:x:1000:1000:job:/job:/bin/sh
	nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
	PASSWD
	cat >"$1/etc/group" <<-'GROUP'
	root:x:0:
	tty:x:5:
	job:x:1000:
	nogroup:x:65534:
	GROUP
	printf 'passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n' \
		>"$1/etc/nsswitch.conf"
	printf '127.0.0.1 localhost guest\n' >"$1/etc/hosts"
	echo guest >"$1/etc/hostname"
	: >"$1/etc/resolv.conf"
	mkdir -p "$1/job" "$1/etc/ssl/certs"
	chown 1000:1000 "$1/job"
	chmod 0750 "$1/job"
	# A job that is killed at its time limit keeps the lines that it has printed.
	rm -f "$1"/usr/lib/python3.*/sitecustomize.py
	cat >"$1/usr/lib/python3/dist-packages/sitecustomize.py" <<-'PYTHON'
	import sys
	sys.stdout.reconfigure(line_buffering=True)
	PYTHON
	# No maintainer script has run: what ca-certificates would have made.
	cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"
}

make_root() {
	root=$work/root
	include=$(sed 's/#.*//' "$here/packages" | tr -s ' \n' ',' | sed 's/^,//; s/,$//')
	# extract: unpacks, runs no maintainer script, so what those do follows by hand.
	mmdebstrap --quiet --mode=root --variant=extract --include="$include" \
		--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr $suite "$root" \
		>"$work/log" 2>&1 || { cat "$work/log" >&2; die "mmdebstrap failed"; }
	chroot "$root" /bin/busybox --install -s /usr/bin
	# busybox-static's wget crashes at name look-up (static glibc): better none than that.
	rm -f "$root/usr/bin/wget" "$root/usr/bin/nslookup"
	ln -sf python3 "$root/usr/bin/python"
	for must in sh bash env python3 perl awk; do
		[ -e "$root/usr/bin/$must" ] || [ -L "$root/usr/bin/$must" ] || die "the root has no $must"
	done
	chroot "$root" ldconfig
	write_root_files "$root"
	chroot "$root" python3 -m compileall -q --invalidation-mode unchecked-hash \
		/usr/lib/python3.11 /usr/lib/python3
	(
		cd "$root"
		rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/i18n usr/share/zoneinfo \
			usr/share/perl5 usr/share/ca-certificates usr/share/lintian usr/share/bug \
			usr/lib/x86_64-linux-gnu/gconv var/lib/dpkg var/lib/apt var/log
		rm -rf var/cache/* etc/apt
		find . -xdev -perm /6000 -type f -exec chmod ug-s {} +
	)
	mksquashfs "$root" "$work/image/root.sqfs" -comp lz4 -Xhc -all-time 0 -mkfs-time 0 \
		-noappend -no-progress -quiet -processors 2 >"$work/log" 2>&1 ||
		{ cat "$work/log" >&2; die "mksquashfs failed"; }
}

start=$(date +%s)
fetch_kernel
carve_kernel
make_initramfs
make_root
{
	echo "recipe $recipe"
	echo "release $release"
	echo "built $(date +%s)"
	echo "bytes $(cat "$work"/image/vmlinux "$work"/image/initramfs "$work"/image/root.sqfs | wc -c)"
} >"$work/image/MANIFEST"
(cd "$work/image" && sha256sum vmlinux initramfs root.sqfs MANIFEST >SHA256SUMS)
chmod 0644 "$work"/image/*
before=$(readlink "$out/current" 2>/dev/null || true)
rm -rf "$dest"
mv "$work/image" "$dest"
set_current
# A daemon that runs may still start VMs of the image before this one; older ones nobody needs.
for old in "$out"/*; do
	case $old in
	"$dest" | "$out/current" | "$out/${before:-none}") ;;
	*) [ -f "$old/MANIFEST" ] && rm -rf "$old" ;;
	esac
done
echo "image: built $dest in $(($(date +%s) - start)) s"
