#!/bin/sh
# SPDX-License-Identifier: ISC
#
# The version script of libomerta-actor: exactly what its public headers declare.
#
# tools/actor_map.sh		writes runtime/actor.map
# tools/actor_map.sh --check	says whether it is what it should be
# tools/actor_map.sh --names	prints the names
set -u
cd "$(dirname "$0")/.." || exit 1
headers=$(make -s --no-print-directory actor-headers) || exit 1
tmp=$(mktemp) || exit 1
trap 'rm -f "$tmp"' EXIT

names() {
	for h in $headers; do
		printf '#include "%s"\n' "$h" |
			gcc -std=gnu11 -D_GNU_SOURCE -I. -aux-info "$tmp" -S -o /dev/null -x c - || exit 1
		# /* runtime/actor.h:136:NC */ extern void *om_msg_obj (const struct om_msg *);
		sed -n "s|^/\\* $h:.*extern .*[ *]\\(om_[a-z0-9_]*\\) (.*|\\1|p" "$tmp"
		sed -n 's|^extern const struct [a-z_]* \(om_[a-z0-9_]*\);|\1|p' "$h"
	done | LC_ALL=C sort -u
}

map() {
	echo '/* What the public headers declare: tools/actor_map.sh */'
	echo 'OMERTA_ACTOR_0 {'
	printf '\tglobal:\n'
	names | sed 's/.*/\t\t&;/'
	printf '\tlocal:\n\t\t*;\n};\n'
}

case ${1:-} in
--names) names ;;
--check) map | cmp -s - runtime/actor.map ;;
*) map >runtime/actor.map ;;
esac
