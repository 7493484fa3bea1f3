#!/bin/sh
# SPDX-License-Identifier: ISC
#
# The runtime as others use it, without omertad: installed into a place of its own, found by
# pkg-config, linked both ways; the programs of its manual and of the README compile and run.  Ends
# with "standalone: N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build/gcc}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
lib=$dir/root/opt/actor/lib
suite=standalone
. tests/check.sh

pc() {
	PKG_CONFIG_PATH="$lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$dir/root" pkg-config "$@" omerta-actor
}

# The example of the manual, as a C file.
manual_program() {
	sed -n '/^\.Sh EXAMPLES/,/^\.Ed/p' docs/man/om-actor.3 | sed -e '1,/^\.Bd/d' -e '/^\.Ed/d' -e 's/\\e/\\/g'
}

# The README's program counts; a main for it.
readme_program() {
	sed -n '/^#include "runtime\/system.h"/,/^```/p' README.md | sed '$d'
	cat <<-'END'
		#include <stdio.h>
		int
		main(void)
		{
			printf("%lu\n", (unsigned long)count_to(100));
			return 0;
		}
	END
}

# Of the shared library: the names that it offers.
exports() {
	nm -D --defined-only "$lib/libomerta-actor.so" | sed -n 's/.* [TDRB] \([a-z_0-9]*\)@.*/\1/p' | LC_ALL=C sort >"$dir/offered"
	tools/actor_map.sh --names >"$dir/declared"
	diff "$dir/declared" "$dir/offered"
}

prints() {
	[ "$(LD_LIBRARY_PATH="$lib" "$1")" = "$2" ]
}

# Each function of the runtime's headers and each field of what a user fills in is in the manual.
manual_names_all() {
	bad=0
	for name in $(cat runtime/actor.h runtime/system.h runtime/supervisor.h runtime/stats.h runtime/mailbox.h |
		grep -o '\bom_[a-z0-9_]*(' | tr -d '(' | grep -x -F -f "$dir/declared" | sort -u) $(
		for s in om_actor_def om_system_conf om_supervisor_spec om_child_spec; do
			cat runtime/actor.h runtime/system.h runtime/supervisor.h | sed -n "/^struct $s {/,/^};/p" |
				grep -v '^struct om_[a-z_]* {' | sed -e 's|/\*.*||' -e 's/(\*\([a-z_]*\)).*/\1;/' |
				grep -o '[a-z_]*;' | tr -d ';'
		done | sort -u); do
		grep -q -w -e "$name" docs/man/om-actor.3 || { echo "om-actor(3) does not name $name"; bad=1; }
	done
	return $bad
}

needs_only_ck() {
	! readelf -d "$lib/libomerta-actor.so" | grep NEEDED | grep -v -e 'libck\.so' -e 'libc\.so' -e ld-linux
}

check "make install-actor" make -s install-actor BUILD="$build" DESTDIR="$dir/root" PREFIX=/opt/actor
check "runtime/actor.map is up to date" tools/actor_map.sh --check
check "what is declared is exported, and nothing else" exports
check "no library but Concurrency Kit" needs_only_ck
check "the manual names every function and field" manual_names_all
manual_program >"$dir/manual.c"
readme_program >"$dir/readme.c"
for program in manual readme; do
	# shellcheck disable=SC2046 # the words of pkg-config are meant to split
	check "$program: link with the shared library" cc -Wall -Wextra -Werror "$dir/$program.c" \
		$(pc --cflags --libs) -o "$dir/$program"
	# shellcheck disable=SC2046
	check "$program: link with the static library" cc -static -Wall -Wextra -Werror "$dir/$program.c" \
		$(pc --static --cflags --libs) -o "$dir/$program-static"
done
check "manual: run, shared" prints "$dir/manual" 42
check "manual: run, static" prints "$dir/manual-static" 42
check "readme: run, shared" prints "$dir/readme" 100
check "readme: run, static" prints "$dir/readme-static" 100
check "the header alone, as C and as C++" sh -c "
	echo '#include <omerta/actor.h>' >'$dir/a.c' && cp '$dir/a.c' '$dir/a.cc' &&
	cc -Wall -Wextra -Werror $(pc --cflags) -c -o '$dir/a.o' '$dir/a.c' &&
	{ ! command -v c++ >/dev/null || c++ -Wall -Werror $(pc --cflags) -c -o '$dir/a.o' '$dir/a.cc'; }"
cat >"$dir/b.cc" <<-'END'
	#include <omerta/actor.h>
	int
	main()
	{
		om_log_set_level(OM_LOG_ERROR);
		return om_crash_hook(nullptr) == 0 && om_err_text(OM_ERR_FULL) != nullptr ? 0 : 1;
	}
END
if command -v c++ >/dev/null; then
	# shellcheck disable=SC2046
	check "C++ finds the functions" c++ -Wall -Werror "$dir/b.cc" $(pc --cflags --libs) -o "$dir/b"
	check "C++: run" prints "$dir/b" ""
fi

echo "standalone: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
