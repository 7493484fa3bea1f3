/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_CLIENT_CLI_RIG_H
#define OM_TESTS_CLIENT_CLI_RIG_H

/* Runs the command line inside the test, and gives it a directory with some files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include "client/cli_impl.h"
#include "tests/unit/client_fake.h"

/* --- running it ------------------------------------------------------------------------------------ */

struct ran {
	char *out, *err;
	size_t out_len, err_len;
	int status;
};

static inline void
ran_free(struct ran *r)
{
	free(r->out);
	free(r->err);
}

/* Runs "omerta" with the words of `line`; a word with blanks stands in single quotes. */
static inline struct ran
run_at(const char *endpoint, const char *line)
{
	struct ran r = { .status = -1 };
	FILE *out = open_memstream(&r.out, &r.out_len), *err = open_memstream(&r.err, &r.err_len);
	char *argv[64] = { (char *)(uintptr_t) "omerta" };
	char *copy = strdup(line), *c = copy;
	int argc = 1;

	if (endpoint != NULL) {
		argv[argc++] = (char *)(uintptr_t) "-e";
		argv[argc++] = (char *)(uintptr_t)endpoint;
	}
	while (*c != '\0') {
		char quote = *c == '\'' ? '\'' : ' ';

		c += quote == '\'' ? 1 : 0;
		argv[argc++] = c;
		while (*c != '\0' && *c != quote) {
			c++;
		}
		while (*c == quote || *c == ' ') {
			*c++ = '\0';
			if (quote == '\'') {
				quote = ' ';
			}
		}
	}
	r.status = om_cli_run("omerta", argc, argv, NULL, out, err);
	(void)fclose(out);
	(void)fclose(err);
	free(copy);
	return r;
}

static inline struct ran
run(struct fake *f, const char *line)
{
	return run_at(f->endpoint, line);
}

#define assert_has(text, part)                                           \
	do {                                                             \
		if (strstr(text, part) == NULL) {                        \
			fail_msg("\"%s\" is not in \"%s\"", part, text); \
		}                                                        \
	} while (0)

/* A directory of our own with a script, as the current one. */
struct place {
	char dir[32], home[256];
};

static inline void
write_file(const char *name, const char *text)
{
	FILE *out = fopen(name, "we");

	assert_non_null(out);
	assert_true(fputs(text, out) >= 0);
	assert_int_equal(fclose(out), 0);
}

static inline void
place_enter(struct place *p)
{
	assert_non_null(getcwd(p->home, sizeof(p->home)));
	(void)strcpy(p->dir, "/tmp/omerta-cli.XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	assert_int_equal(chdir(p->dir), 0);
	assert_int_equal(setenv("XDG_CONFIG_HOME", p->dir, 1), 0);
	write_file("train.py", "print(1)\n");
	write_file("data.csv", "1,2\n");
	write_file("in.txt", "input");
	write_file("wg.conf", "[Interface]\n"
			      "PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
			      "Address = 10.200.1.2/32\n[Peer]\n"
			      "PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n"
			      "Endpoint = 192.0.2.1:51820\nAllowedIPs = 10.200.1.0/24\n");
	write_file("bad.conf", "[Interface]\nPostUp = rm -rf /\n");
}

static inline void
place_leave(struct place *p)
{
	static const char *const files[] = { "train.py", "data.csv", "in.txt",
					     "wg.conf",  "bad.conf", "got" };

	for (size_t i = 0; i < OM_COUNT(files); i++) {
		(void)unlink(files[i]);
	}
	assert_int_equal(chdir(p->home), 0);
	assert_int_equal(rmdir(p->dir), 0);
}

#endif /* OM_TESTS_CLIENT_CLI_RIG_H */
