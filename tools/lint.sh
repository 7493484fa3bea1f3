#!/bin/sh
# SPDX-License-Identifier: ISC
#
# What a reader may rely on: format, layers, headers that compile alone, file length.
set -u
cd "$(dirname "$0")/.."
bad=0
found=$(mktemp) || exit 1
trap 'rm -f "$found"' EXIT
say() { echo "lint: $*"; bad=1; }

sources=$(git ls-files '*.c' '*.h')
present=
for f in $sources; do [ -f "$f" ] && present="$present $f"; done

# 1. Format.  Its messages begin with the file; one without a message is a clang-format that does not work.
if ! printf '%s\n' $present | xargs -P "$(nproc)" -n 16 clang-format --dry-run -Werror >/dev/null 2>"$found"; then
	for f in $(sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: error: .*/\1/p' "$found" | sort -u); do
		say "$f: not formatted (clang-format -i)"
	done
	[ "$bad" -ne 0 ] || say "clang-format: $(head -1 "$found")"
fi

# 2. Layers: a folder includes itself and those named here.
allowed() {
	case $1 in
	base) echo base ;;
	runtime) echo "base runtime" ;;
	msg) echo "base runtime msg" ;;
	vm) echo "base vm" ;;
	net) echo "base net" ;;
	store) echo "base store" ;;
	actors) echo "base runtime msg vm net store actors" ;;
	daemon) echo "base runtime msg vm net store actors daemon client" ;;
	client) echo "base msg net client" ;;
	*) echo "base runtime msg vm net store actors daemon client tests bench" ;;
	esac
}
for f in $present; do
	dir=${f%%/*}
	ok=" $(allowed "$dir") "
	for inc in $(sed -n 's/^#include "\([a-z]*\)\/.*"/\1/p' "$f"); do
		case $ok in
		*" $inc "*) ;;
		*) say "$f: includes $inc/, which is not below $dir/" ;;
		esac
	done
	# An _impl.h is for its own folder.
	for inc in $(sed -n 's/^#include "\([a-z/_]*_impl\.h\)"/\1/p' "$f"); do
		case $dir in
		tests | bench) ;;
		*) [ "${inc%%/*}" = "$dir" ] || say "$f: includes $inc of another folder" ;;
		esac
	done
done
# The daemon's client library is for its command line alone.
for f in $(grep -l '"client/' daemon/*.c 2>/dev/null); do
	case $f in
	daemon/main.c | daemon/cli*.c | daemon/verbs*.c) ;;
	*) say "$f: only the command line may use client/" ;;
	esac
done

# 3. Atomics and CK stay in the files that are about them.
for f in $(grep -lE '#include <(ck_|stdatomic)' $present 2>/dev/null); do
	case $f in
	base/* | runtime/* | bench/* | tests/*) ;;
	*) say "$f: atomics outside runtime/" ;;
	esac
done

# 4. The protocol manual is what the schema says, the README's program is the test's.
make -s --no-print-directory docs-check >/dev/null 2>&1 || say "docs/protocol.md or omerta-protocol.7: out of date (make docs)"
tools/actor_map.sh --check || say "runtime/actor.map: out of date (tools/actor_map.sh)"
sed -n '/README begin/,/README end/p' tests/unit/runtime_readme_test.c | sed '1d;$d' >/tmp/omerta-lint.$$
sed -n '/^#include "runtime\/system.h"/,/^```/p' README.md | sed '$d' | cmp -s - /tmp/omerta-lint.$$ ||
	say "README.md: the first program is not that of tests/unit/runtime_readme_test.c"
rm -f /tmp/omerta-lint.$$

# 5. Headers compile alone.
flags="-std=gnu11 -D_GNU_SOURCE -I. -Wall -Wextra $(pkg-config --cflags libzmq libvirt sqlite3)"
compile_alone() {
	printf '%s\n' $present | grep '\.h$' | flags=$flags xargs -P "$(nproc)" -I{} sh -c \
		'printf "#include \"%s\"\n" "{}" | ${CC:-gcc} $flags -fsyntax-only -x c - 2>/dev/null || echo "{}"'
}
for h in $(compile_alone); do
	say "$h: does not compile alone"
done

# 6. The examples in the runtime's headers compile.
tools/examples.sh >/dev/null || say "an example in a public header does not compile (tools/examples.sh)"

# 7. Length, licence line, and what does not belong into a tree.
for f in $present; do
	lines=$(wc -l <"$f")
	# A test file is a list of cases: it may be longer.
	case $f in tests/*) most=1000 ;; *) most=600 ;; esac
	[ "$lines" -le "$most" ] || say "$f: $lines lines (at most $most)"
	head -1 "$f" | grep -q 'SPDX-License-Identifier: ISC' || say "$f: first line is no SPDX licence"
done
for f in $(git ls-files | grep -E '\.(o|a|so|d|sqfs|img|qcow2|sqlite)$'); do
	say "$f: build output is tracked"
done

[ "$bad" -eq 0 ] && echo "lint: ok ($(echo $present | wc -w) files)"
exit "$bad"
