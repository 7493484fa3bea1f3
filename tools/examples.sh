#!/bin/sh
# SPDX-License-Identifier: ISC
#
# The examples in the public headers of runtime/ compile, with all warnings as errors.  An example is
# what stands between " * Example:" and the end of the comment; it includes nothing but its header
# and those that it names itself.
set -u
cd "$(dirname "$0")/.."
bad=0
count=0
for h in runtime/actor.h runtime/system.h runtime/supervisor.h runtime/stats.h runtime/mailbox.h; do
	code=$(sed -n '/^ \* Example:$/,/^ \*\//p' "$h" | sed -e '/^ \* Example:$/d' -e '/^ \*\/$/d' -e 's/^ \*	\{0,1\}//')
	if [ -z "$code" ]; then
		echo "examples: $h has none"
		bad=1
		continue
	fi
	count=$((count + 1))
	# -Wno-unused: an example shows functions that nobody calls here.
	printf '#include "%s"\n%s\n' "$h" "$code" |
		${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -I. -Wall -Wextra -Wconversion -Werror -Wno-unused -Wno-unused-parameter \
			-fsyntax-only -x c - || { echo "examples: $h does not compile"; bad=1; }
done
[ "$bad" -eq 0 ] && echo "examples: ok ($count headers)"
exit "$bad"
