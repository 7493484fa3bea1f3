/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "actors/filter_text.h"

static bool
contains(const char *text, const char *keyword, bool as_word)
{
	char a[256], b[256];
	struct om_str t = { a, om_text_fold(om_str_of(text), a) };
	struct om_str k = { b, om_text_fold(om_str_of(keyword), b) };

	return om_text_contains(t, k, as_word);
}

static void
folds(const char *text, const char *want)
{
	size_t len = strlen(text);
	char *out = malloc(OM_TEXT_FOLDED_MAX(len)); /* exact, so that ASan sees an overrun */
	size_t n;

	assert_non_null(out);
	n = om_text_fold(om_str_of(text), out);
	assert_int_equal(n, strlen(want));
	assert_memory_equal(out, want, n);
	free(out);
}

static void
case_in_any_script(void **state)
{
	(void)state;
	folds("", "");
	folds("Hello, World 42!", "hello, world 42!");
	folds("STRASSE \xc3\x84RGER", "strasse \xc3\xa4rger");
	folds("\xce\xa3\xcf\x83\xcf\x82", "\xcf\x83\xcf\x83\xcf\x83"); /* sigma, three forms */
	folds("\xd0\x9c\xd0\x98\xd0\xa0", "\xd0\xbc\xd0\xb8\xd1\x80"); /* Cyrillic */
	folds("\xc4\xb0\xc4\xb1I", "iii"); /* dotted, dotless */
	folds("\xe2\x84\xaa", "k"); /* the Kelvin sign */
	folds("\xf0\x90\x90\x80", "\xf0\x90\x90\xa8"); /* Deseret, four bytes */
	/* Becomes longer: U+023A is two bytes, its lower case three. */
	folds("\xc8\xba\xc8\xba\xc8\xba", "\xe2\xb1\xa5\xe2\xb1\xa5\xe2\xb1\xa5");
	assert_false(contains("Stra\xc3\x9f"
			      "e",
			      "STRASSE", false)); /* documented: one to one */
}

static void
words_and_substrings(void **state)
{
	(void)state;
	assert_true(contains("html page", "ML", false));
	assert_false(contains("html page", "ML", true));
	assert_true(contains("ML", "ml", true));
	assert_true(contains("ml, training", "ML", true));
	assert_true(contains("deep-ml", "ml", true));
	assert_false(contains("ml2", "ml", true));
	assert_true(contains("html and ml", "ml", true)); /* the first hit is inside a word */
	assert_true(contains("use C++ here", "c++", true));
	assert_true(contains("c++20", "c++", true)); /* its edge is no letter */
	assert_true(contains("machine  learning, machine learning", "Machine Learning", true));
	assert_false(contains("", "x", false));
	assert_false(contains("abc", "", false));
	assert_false(contains("ab", "abc", false));
}

static void
words_in_any_script(void **state)
{
	(void)state;
	assert_true(contains("\xd0\x9c\xd0\x98\xd0\xa0!", "\xd0\xbc\xd0\xb8\xd1\x80", true));
	/* A letter of any script beside it makes it part of a word ... */
	assert_false(contains("\xc3\xa4ml", "ml", true));
	assert_false(contains("ml\xd1\x8f", "ml", true));
	/* ... and a dash of any script does not. */
	assert_true(contains("mining\xe2\x80\x94job", "mining", true));
	assert_true(contains("a\xe2\x80\x94mining", "mining", true));
}

static void
broken_utf8_is_survived(void **state)
{
	static const char *const bad[] = { "\xff\xfe",
					   "\xc3",
					   "\xe2\x82",
					   "\xf0\x90\x80",
					   "\x80\x80",
					   "a\xc3",
					   "\xf8\x88\x80\x80\x80" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		size_t len = strlen(bad[i]);
		char *copy = malloc(len), *out = malloc(OM_TEXT_FOLDED_MAX(len));
		struct om_str text = { copy, len };

		assert_non_null(copy);
		assert_non_null(out);
		memcpy(copy, bad[i], len);
		assert_true(om_text_fold(text, out) <= OM_TEXT_FOLDED_MAX(len));
		(void)om_text_contains(text, (struct om_str){ copy, 1 }, true);
		free(copy);
		free(out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(case_in_any_script),
		cmocka_unit_test(words_and_substrings),
		cmocka_unit_test(words_in_any_script),
		cmocka_unit_test(broken_utf8_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
