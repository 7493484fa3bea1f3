#!/bin/sh
# SPDX-License-Identifier: ISC
# conf_manual.sh OMERTAD: puts the table of settings into docs/man/omertad.conf.5, as the program has it.
set -eu
omertad=$1
page=$(dirname "$0")/../docs/man/omertad.conf.5
new=$(mktemp)
trap 'rm -f "$new"' EXIT
sed -n '1,/^\.Sh SETTINGS$/p' "$page" >"$new"
"$omertad" config generate --man >>"$new"
sed -n '/^\.Sh RULES$/,$p' "$page" >>"$new"
cat "$new" >"$page"
