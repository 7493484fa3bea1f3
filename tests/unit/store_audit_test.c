/* SPDX-License-Identifier: ISC */
#include "base/parse.h"
#include "store/audit_chain.h"
#include "tests/unit/store_fixture.h"

/* Ten rows: 1-3 submitted, 4-6 one job's way, 7 a cancel, 8-10 not about jobs. */
static void
fill(struct fx *fx)
{
	const struct om_audit_note note = { .event = OM_STR("config"),
					    .actor = OM_STR("uid:0"),
					    .details = OM_STR("queue.max_jobs = 4") };
	int i;

	fx_put(fx, "a1");
	fx_put(fx, "a2");
	fx_put(fx, "a3");
	fx_run(fx, "a1", 10);
	OK(fx_try_move(fx, "a2", OM_JOB_CANCELLED, 20));
	OK(om_store_begin(fx->st));
	for (i = 0; i < 3; i++) {
		OK(om_store_audit_append(fx->st, fx_at(30 + i), &note));
	}
	OK(om_store_commit(fx->st));
}

static void
test_intact(void **state)
{
	struct fx *fx = *state;
	struct om_audit_check check;
	struct om_audit_mark head;

	check = fx_verify(fx, NULL);
	assert_false(check.broken); /* an empty chain is intact */
	assert_int_equal(check.rows, 0);
	fill(fx);
	fx_close(fx);
	fx_open(fx);
	fx_put(fx, "a4"); /* goes on from what was stored */
	check = fx_verify(fx, NULL);
	assert_false(check.broken);
	assert_int_equal(check.rows, 11);
	assert_int_equal(check.last.ns, fx_at(0).ns);
	OK(om_store_audit_head(fx->st, &head));
	assert_int_equal(head.seq, 11);
	assert_memory_equal(head.hash, check.at.hash, OM_HASH_LEN);
}

/* The hash as documented, written out once more, so that it can be checked by other programs. */
static void
test_hash_is_the_documented_one(void **state)
{
	static const char row[] = "omerta-audit-1"
				  "................................"
				  "\0\0\0\0\0\0\0\1"
				  "\x17\x97\x9c\xfe\x3d\xbd\x00\x00"
				  "\0\0\0\x06"
				  "config"
				  "\0\0\0\x05"
				  "uid:0"
				  "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
				  "\0\0\0\x12"
				  "queue.max_jobs = 4";
	const struct om_audit_note note = { .event = OM_STR("config"),
					    .actor = OM_STR("uid:0"),
					    .details = OM_STR("queue.max_jobs = 4") };
	struct om_hasher *hasher = om_hasher_new();
	struct fx *fx = *state;
	struct om_audit_mark head;
	uint8_t data[sizeof(row) - 1], want[OM_HASH_LEN];
	char hex[2 * OM_HASH_LEN + 1];

	memcpy(data, row, sizeof(data));
	memset(data + 14, 0, OM_HASH_LEN);
	assert_non_null(hasher);
	assert_true(om_hash(hasher, (struct om_bin){ data, sizeof(data) }, want));
	om_hasher_free(hasher);
	OK(om_store_begin(fx->st));
	OK(om_store_audit_append(fx->st, (struct om_wall){ INT64_C(0x17979cfe3dbd0000) }, &note));
	OK(om_store_commit(fx->st));
	OK(om_store_audit_head(fx->st, &head));
	assert_memory_equal(head.hash, want, OM_HASH_LEN);
	om_hex(want, sizeof(want), hex);
	FX_ASK_IS(fx, "SELECT hash FROM audit_log", hex);
}

struct tamper {
	const char *sql;
	uint64_t bad_seq;
	const char *text;
};

static const struct tamper tampers[] = {
	{ "UPDATE trail SET details = 'queue.max_jobs = 5' WHERE seq = 8", 8, "changed" },
	{ "UPDATE trail SET at = at + 1 WHERE seq = 5", 5, "changed" },
	{ "UPDATE trail SET job = NULL WHERE seq = 4", 4, "changed" },
	{ "UPDATE trail SET requester = 'bob' WHERE seq = 1", 1, "changed" },
	/* The same bytes, moved over the border of two fields. */
	{ "UPDATE trail SET event = 'confi', actor = 'guid:0' WHERE seq = 9", 9, "changed" },
	{ "UPDATE trail SET hash = printf('%064d', 0) WHERE seq = 10", 10, "changed" },
	{ "UPDATE trail SET hash = '00' WHERE seq = 3", 3, "changed" },
	{ "DELETE FROM trail WHERE seq = 6", 6, "removed" },
	{ "DELETE FROM trail WHERE seq = 1", 1, "removed" },
	{ "DELETE FROM trail WHERE seq = 10", 10, "cut off" },
	{ "DELETE FROM trail WHERE seq > 4", 5, "cut off" },
	{ "DELETE FROM trail", 1, "cut off" },
	/* Two rows change places. */
	{ "UPDATE trail SET seq = -1 WHERE seq = 4; UPDATE trail SET seq = 4 WHERE seq = 5;"
	  "UPDATE trail SET seq = 5 WHERE seq = -1",
	  4, "changed" },
	/* A row goes and the others move up. */
	{ "DELETE FROM trail WHERE seq = 7; UPDATE trail SET seq = seq - 1 WHERE seq > 7", 7,
	  "changed" },
	{ "INSERT INTO trail SELECT 11, at, event, actor, job, requester, network, activity,"
	  " details, hash FROM trail WHERE seq = 10",
	  11, "changed" },
};

static void
test_tampering_is_found_and_named(void **state)
{
	struct fx *fx;
	struct om_audit_check check;
	size_t i;

	(void)state;
	for (i = 0; i < OM_COUNT(tampers); i++) {
		void *one = NULL;

		assert_int_equal(fx_setup(&one), 0);
		fx = one;
		fill(fx);
		assert_false(fx_verify(fx, NULL).broken);
		fx_tamper(fx, tampers[i].sql);
		check = fx_verify(fx, NULL);
		if (!check.broken || check.bad_seq != tampers[i].bad_seq ||
		    strstr(check.text, tampers[i].text) == NULL) {
			fail_msg("%s: broken %d, row %d, %s", tampers[i].sql, check.broken,
				 (int)check.bad_seq, check.text);
		}
		/* And for ever: it does not heal when the chain goes on. */
		fx_close(fx);
		fx_open(fx);
		if (tampers[i].bad_seq != 11) {
			fx_put(fx, "later");
			check = fx_verify(fx, NULL);
			assert_true(check.broken);
			assert_int_equal(check.bad_seq, tampers[i].bad_seq);
		}
		assert_int_equal(fx_teardown(&one), 0);
	}
}

/* Someone who knows the format changes a row and gives it the hash that fits. */
static void
test_row_replaced_with_its_hash(void **state)
{
	struct om_hasher *hasher = om_hasher_new();
	struct om_audit_check check;
	struct fx *fx;
	uint64_t seq;

	(void)state;
	assert_non_null(hasher);
	for (seq = 9; seq <= 10; seq++) {
		struct om_audit_row row = { .seq = seq,
					    .at = fx_at(0),
					    .event = OM_STR("config"),
					    .actor = OM_STR("uid:0"),
					    .details = OM_STR("nothing happened") };
		char sql[512], hex[2 * OM_HASH_LEN + 1], *prev_hex;
		uint8_t prev[OM_HASH_LEN];
		void *one = NULL;

		assert_int_equal(fx_setup(&one), 0);
		fx = one;
		fill(fx);
		(void)snprintf(sql, sizeof(sql), "SELECT hash FROM audit_log WHERE seq = %d",
			       (int)seq - 1);
		prev_hex = fx_ask(fx, sql);
		OK(om_parse_hex(om_str_of(prev_hex), prev, sizeof(prev)));
		free(prev_hex);
		assert_true(om_audit_hash(hasher, prev, &row, row.hash));
		om_hex(row.hash, OM_HASH_LEN, hex);
		(void)snprintf(sql, sizeof(sql),
			       "UPDATE trail SET at = %lld, details = 'nothing happened',"
			       " hash = '%s' WHERE seq = %d",
			       (long long)row.at.ns, hex, (int)seq);
		fx_tamper(fx, sql);
		check = fx_verify(fx, NULL);
		/* The next row does not follow it; after the last row the end does not. */
		assert_true(check.broken);
		assert_int_equal(check.bad_seq, 10);
		assert_non_null(strstr(check.text, seq == 9 ? "does not belong" : "replaced"));
		assert_int_equal(fx_teardown(&one), 0);
	}
	om_hasher_free(hasher);
}

/* Who rewrites everything, hashes and end included, is caught by a mark that is kept elsewhere. */
static void
test_mark_kept_elsewhere(void **state)
{
	struct fx *fx = *state;
	struct om_audit_mark kept, later;
	struct om_audit_check check;
	char sql[256], *hash;

	fill(fx);
	OK(om_store_audit_head(fx->st, &kept));
	fx_put(fx, "a4");
	OK(om_store_audit_head(fx->st, &later));
	assert_false(fx_verify(fx, &kept).broken);
	assert_false(fx_verify(fx, &later).broken);
	/* Another history of the same length. */
	fx_sql(fx, "DELETE FROM audit; UPDATE chain SET seq = 0, hash = zeroblob(32);"
		   "DELETE FROM job; DELETE FROM job_spec; DELETE FROM state_count");
	fx_close(fx);
	fx_open(fx);
	fill(fx);
	fx_put(fx, "a5");
	assert_false(fx_verify(fx, NULL).broken);
	assert_false(fx_verify(fx, &kept).broken); /* the same ten rows, as it happens */
	check = fx_verify(fx, &later);
	assert_true(check.broken);
	assert_int_equal(check.bad_seq, 11);
	/* A shorter one. */
	hash = fx_ask(fx, "SELECT hash FROM audit_log WHERE seq = 9");
	(void)snprintf(sql, sizeof(sql),
		       "DELETE FROM trail WHERE seq > 9; UPDATE chain SET seq = 9, hash = x'%s'",
		       hash);
	free(hash);
	fx_tamper(fx, sql);
	fx_close(fx);
	fx_open(fx);
	assert_false(fx_verify(fx, NULL).broken);
	check = fx_verify(fx, &kept);
	assert_true(check.broken);
	assert_int_equal(check.bad_seq, 10);
}

struct rows {
	char text[512];
	int limit;
};

static bool
row_add(void *arg, const struct om_audit_row *row)
{
	struct rows *r = arg;

	(void)snprintf(r->text + strlen(r->text), sizeof(r->text) - strlen(r->text),
		       "%d:%.*s:%.*s ", (int)row->seq, OM_STR_ARG(row->event),
		       OM_STR_ARG(row->job));
	return --r->limit > 0;
}

static void
test_reading(void **state)
{
	struct fx *fx = *state;
	struct om_audit_filter all = { 0 };
	struct om_audit_filter one = { .job = OM_STR("a1") };
	struct om_audit_filter since = { .since = fx_at(31) };
	struct rows r = { .limit = 99 };
	bool more;

	fill(fx);
	OK(om_store_audit_each(fx->st, &all, 4, row_add, &r, &more));
	assert_true(more);
	assert_string_equal(r.text, "1:received:a1 2:received:a2 3:received:a3 4:moved:a1 ");
	r = (struct rows){ .limit = 2 };
	OK(om_store_audit_each(fx->st, &all, 99, row_add, &r, &more));
	assert_true(more);
	assert_string_equal(r.text, "5:moved:a1 6:moved:a1 ");
	r = (struct rows){ .limit = 99 };
	OK(om_store_audit_each(fx->st, &all, 99, row_add, &r, &more));
	assert_false(more);
	assert_string_equal(r.text, "7:moved:a2 8:config: 9:config: 10:config: ");
	/* Asked again: what came since. */
	fx_put(fx, "new");
	r = (struct rows){ .limit = 99 };
	OK(om_store_audit_each(fx->st, &all, 99, row_add, &r, &more));
	assert_string_equal(r.text, "11:received:new ");
	r = (struct rows){ .limit = 99 };
	OK(om_store_audit_each(fx->st, &one, 99, row_add, &r, &more));
	assert_string_equal(r.text, "1:received:a1 4:moved:a1 5:moved:a1 6:moved:a1 ");
	r = (struct rows){ .limit = 99 };
	OK(om_store_audit_each(fx->st, &since, 99, row_add, &r, &more));
	assert_string_equal(r.text, "9:config: 10:config: ");
}

static void
test_cut_by_retention(void **state)
{
	struct fx *fx = *state;
	struct om_purge purge = { .audit_before = fx_at(20) };
	struct om_audit_mark kept;
	struct om_audit_check check;
	struct om_audit_filter all = { 0 };
	struct rows r = { .limit = 99 };
	bool more;

	fill(fx);
	OK(om_store_audit_head(fx->st, &kept));
	OK(om_store_begin(fx->st));
	OK(om_store_purge(fx->st, &purge));
	OK(om_store_commit(fx->st));
	assert_int_equal(purge.audit_rows, 6);
	OK(om_store_audit_each(fx->st, &all, 99, row_add, &r, &more));
	assert_string_equal(r.text, "7:moved:a2 8:config: 9:config: 10:config: 11:audit.cut: ");
	fx_close(fx);
	fx_open(fx);
	check = fx_verify(fx, &kept);
	assert_false(check.broken);
	assert_int_equal(check.rows, 5);
	/* The chain still begins where it was cut. */
	fx_tamper(fx, "DELETE FROM trail WHERE seq = 7");
	check = fx_verify(fx, NULL);
	assert_true(check.broken);
	assert_int_equal(check.bad_seq, 7);
	/* Retention does not hide it. */
	OK(om_store_begin(fx->st));
	purge.audit_before = fx_at(1000);
	OK(om_store_purge(fx->st, &purge));
	OK(om_store_commit(fx->st));
	assert_int_equal(purge.audit_rows, 0);
}

/* Rows are added and purged between the steps of a verification. */
static void
test_verify_while_it_grows(void **state)
{
	struct fx *fx = *state;
	struct om_purge purge = { .audit_before = fx_at(31) };
	struct om_audit_check check = { 0 };

	fill(fx);
	OK(om_store_audit_verify(fx->st, &check, 2));
	assert_int_equal(check.at.seq, 2);
	fx_put(fx, "a4");
	OK(om_store_audit_verify(fx->st, &check, 2));
	OK(om_store_begin(fx->st));
	OK(om_store_purge(fx->st, &purge));
	OK(om_store_commit(fx->st));
	while (!check.done) {
		OK(om_store_audit_verify(fx->st, &check, 2));
		assert_false(check.broken);
	}
	assert_int_equal(check.at.seq, 12);
}

/* By another process, beside the one that writes. */
static void
test_verify_read_only(void **state)
{
	struct fx *fx = *state;
	struct om_sqlite_conf conf = fx->conf;
	struct om_audit_check check = { 0 };
	struct om_store *second = NULL;
	struct om_why why;

	conf.read_only = true;
	OK(om_sqlite_open(&conf, &second, &why));
	fill(fx);
	fx_fold(fx);
	while (!check.done) {
		OK(om_store_audit_verify(second, &check, 3));
	}
	assert_false(check.broken);
	assert_int_equal(check.rows, 10);
	om_store_close(second);
}

static void
test_long_texts_are_cut(void **state)
{
	struct fx *fx = *state;
	char text[OM_AUDIT_TEXT_MAX + 10];
	const struct om_audit_note note = { .event = OM_STR("config"),
					    .actor = { text, sizeof(text) },
					    .details = { text, sizeof(text) } };

	memset(text, 'x', sizeof(text));
	memcpy(text + OM_AUDIT_TEXT_MAX - 1, "\xe2\x82\xac", 3);
	OK(om_store_begin(fx->st));
	OK(om_store_audit_append(fx->st, fx_at(0), &note));
	OK(om_store_commit(fx->st));
	assert_false(fx_verify(fx, NULL).broken);
	FX_ASK_IS(fx, "SELECT length(details) || ' ' || length(actor) FROM audit_log", "2047 64");
}

int
main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fx_setup, fx_teardown)
	const struct CMUnitTest tests[] = {
		T(test_intact),
		T(test_hash_is_the_documented_one),
		cmocka_unit_test(test_tampering_is_found_and_named),
		cmocka_unit_test(test_row_replaced_with_its_hash),
		T(test_mark_kept_elsewhere),
		T(test_reading),
		T(test_cut_by_retention),
		T(test_verify_while_it_grows),
		T(test_verify_read_only),
		T(test_long_texts_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
