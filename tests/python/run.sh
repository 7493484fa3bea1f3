#!/bin/sh
# SPDX-License-Identifier: ISC
#
# The clients as others use them: the Python module, and the C library installed, found by pkg-config
# and linked both ways.  Ends with "python: N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
python=${PYTHON:-/usr/bin/python3}
build=${BUILD:-build/gcc}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
suite=python
. tests/check.sh

"$python" -W error::DeprecationWarning tests/python/test_omerta.py -v >"$dir/python" 2>&1
status=$?
ok=$(grep -c ' \.\.\. ok$' "$dir/python")
bad=$(grep -c -E ' \.\.\. (ERROR|FAIL)$' "$dir/python")
if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
if [ "$status" -ne 0 ]; then cat "$dir/python"; fi
not=$(grep -c ' \.\.\. skipped' "$dir/python")
passed=$((passed + ok)) failed=$((failed + bad))

check "make install-client" make -s install-client BUILD="$build" DESTDIR="$dir/root" PREFIX=/opt/omerta
pc() {
	PKG_CONFIG_PATH="$dir/root/opt/omerta/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$dir/root" pkg-config "$@" omerta-client
}
# shellcheck disable=SC2046 # the words of pkg-config are meant to split
check "link an example with the shared library" cc -Wall -Werror client/examples/submit.c \
	$(pc --cflags --libs) -o "$dir/shared"
# shellcheck disable=SC2046
check "link an example with the static library" cc -Wall -Werror client/examples/many.c \
	$(pc --cflags) "$dir/root/opt/omerta/lib/libomerta-client.a" -lzmq -lmsgpackc -lpthread -o "$dir/static"
# No daemon there: said so, with the code; a crash or silence would be neither.
says_unreachable() {
	OMERTA_ENDPOINT=/nonexistent/sock LD_LIBRARY_PATH="$dir/root/opt/omerta/lib" "$1" 2>&1 | grep "$2"
}
check "run the shared one" says_unreachable "$dir/shared" '^unreachable: no daemon'
check "run the static one" says_unreachable "$dir/static" 'no daemon'
check "the header alone, as C and as C++" sh -c "
	echo '#include <omerta.h>' >'$dir/a.c' && cp '$dir/a.c' '$dir/a.cc' &&
	cc -std=c99 -Wall -Wextra -Werror -pedantic $(pc --cflags) -c -o '$dir/a.o' '$dir/a.c' &&
	{ ! command -v c++ >/dev/null || c++ -Wall -Werror $(pc --cflags) -c -o '$dir/a.o' '$dir/a.cc'; }"
exports() {
	[ "$(nm -D --defined-only "$dir/root/opt/omerta/lib/libomerta-client.so" | grep -c -v -i omerta_)" -eq 0 ]
}
check "only omerta_ is exported" exports
check "the completion is a shell script" bash -n client/completion/omerta.bash

end=''
if [ "$not" -gt 0 ]; then end=", $not skipped"; fi
echo "python: $passed passed, $failed failed$end"
[ "$failed" -eq 0 ]
