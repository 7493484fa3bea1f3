/* SPDX-License-Identifier: ISC */
/* Who is at the other end: uids, groups, authorized keys, the provider's own key pair. */
#include "daemon/auth.h"

#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/spawn.h"

#define KEY_A "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define KEY_B "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
#define KEY_C "0ne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"

static char dir[64], peers_path[128];
static struct om_settings settings;

static int
make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/omerta-auth-XXXXXX");
	if (mkdtemp(dir) == NULL) {
		return -1;
	}
	snprintf(peers_path, sizeof(peers_path), "%s/authorized_peers", dir);
	memset(&settings, 0, sizeof(settings));
	settings.control_authorized_peers = peers_path;
	settings.control_operator_group = "";
	return 0;
}

static int
drop_dir(void **state)
{
	const char *argv[] = { "/bin/rm", "-rf", dir, NULL };
	const struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };

	(void)state;
	return om_spawn_run(&how, 10000, NULL, NULL, NULL) == OM_OK ? 0 : -1;
}

static void
put_file(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static struct om_auth *
load_good(void)
{
	struct om_auth *auth = NULL;
	struct om_buf problems = { 0 };

	if (om_auth_load(&settings, &auth, &problems) != OM_OK) {
		fail_msg("%s", om_buf_cstr(&problems));
	}
	om_buf_fini(&problems);
	return auth;
}

static void
refused(const char *text, const char *want)
{
	struct om_auth *auth = NULL;
	struct om_buf problems = { 0 };

	put_file(peers_path, text, 0644);
	assert_int_equal(om_auth_load(&settings, &auth, &problems), OM_ERR_INVALID);
	assert_null(auth);
	if (strstr(om_buf_cstr(&problems), want) == NULL) {
		fail_msg("no '%s' in: %s", want, om_buf_cstr(&problems));
	}
	om_buf_fini(&problems);
}

static void
test_local_peers(void **state)
{
	struct om_auth *auth = load_good();
	struct om_caller who;

	(void)state;
	assert_int_equal(om_auth_local(auth, "localhost:0:0:32735", &who), OM_OK);
	assert_int_equal(who.role, OM_ROLE_OPERATOR);
	assert_string_equal(who.peer, "uid:0");
	assert_string_equal(who.network, OM_AUTH_LOCAL_NETWORK);
	assert_int_equal(om_auth_local(auth, "some:host:1000:1000:7", &who), OM_OK);
	assert_int_equal(who.role, OM_ROLE_REQUESTER);
	assert_string_equal(who.peer, "uid:1000");
	om_auth_free(auth);
}

/* Whatever is not exactly uid:gid:pid at the end is nobody. */
static void
test_strange_addresses(void **state)
{
	static const char *const bad[] = { "",
					   ":",
					   "0",
					   "0:0",
					   "0:0:0",
					   "host::0:1",
					   "host:0::1",
					   "host:0:0:",
					   "host:-1:0:1",
					   "host:0x0:0:1",
					   "host:0:0:1 ",
					   "host: 0:0:1",
					   "host:4294967296:0:1",
					   "127.0.0.1" };
	struct om_auth *auth = load_good();
	struct om_caller who;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		if (om_auth_local(auth, bad[i], &who) != OM_ERR_DENIED) {
			fail_msg("accepted '%s' as %s", bad[i], who.peer);
		}
	}
	om_auth_free(auth);
}

static void
test_operators_by_name_and_uid(void **state)
{
	struct om_str names[] = { OM_STR("daemon"), OM_STR("4242") };
	struct om_str nobody[] = { OM_STR("no-such-user-here") };
	struct passwd *pw = getpwnam("daemon");
	struct om_auth *auth = NULL;
	struct om_caller who;
	struct om_buf problems = { 0 };
	char address[64];

	(void)state;
	assert_non_null(pw);
	settings.control_operators = (struct om_strs){ names, 2 };
	auth = load_good();
	snprintf(address, sizeof(address), "h:%u:9999:1", (unsigned)pw->pw_uid);
	assert_int_equal(om_auth_local(auth, address, &who), OM_OK);
	assert_int_equal(who.role, OM_ROLE_OPERATOR);
	assert_int_equal(om_auth_local(auth, "h:4242:9999:1", &who), OM_OK);
	assert_int_equal(who.role, OM_ROLE_OPERATOR);
	assert_int_equal(om_auth_local(auth, "h:4243:9999:1", &who), OM_OK);
	assert_int_equal(who.role, OM_ROLE_REQUESTER);
	om_auth_free(auth);
	auth = NULL;
	settings.control_operators = (struct om_strs){ nobody, 1 };
	assert_int_equal(om_auth_load(&settings, &auth, &problems), OM_ERR_INVALID);
	assert_non_null(strstr(om_buf_cstr(&problems), "there is no user no-such-user-here"));
	om_buf_fini(&problems);
}

static void
test_operator_group(void **state)
{
	struct group *gr = getgrnam("daemon");
	struct om_auth *auth;
	struct om_caller who;
	char address[64];

	(void)state;
	assert_non_null(gr);
	settings.control_operator_group = "daemon";
	auth = load_good();
	snprintf(address, sizeof(address), "h:7777:%u:1", (unsigned)gr->gr_gid);
	assert_int_equal(om_auth_local(auth, address, &who), OM_OK);
	assert_int_equal(who.role, OM_ROLE_OPERATOR);
	om_auth_free(auth);
	/* A group that does not exist makes nobody an operator, not group 0. */
	settings.control_operator_group = "no-such-group-here";
	auth = load_good();
	assert_int_equal(om_auth_local(auth, "h:7777:0:1", &who), OM_OK);
	assert_int_equal(who.role, OM_ROLE_REQUESTER);
	om_auth_free(auth);
}

static void
test_authorized_keys(void **state)
{
	struct om_auth *auth;
	struct om_caller who;

	(void)state;
	put_file(peers_path,
		 "# a comment\n#\n\n"
		 "  " KEY_B "\tbob network=lab  \n" KEY_A
		 " alice role=operator network=home\r\n" KEY_C " carol\n",
		 0600);
	auth = load_good();
	assert_int_equal(om_auth_peer_count(auth), 3);
	assert_int_equal(om_auth_key(auth, KEY_A, &who), OM_OK);
	assert_string_equal(who.peer, "alice");
	assert_string_equal(who.network, "home");
	assert_int_equal(who.role, OM_ROLE_OPERATOR);
	assert_int_equal(om_auth_key(auth, KEY_B, &who), OM_OK);
	assert_string_equal(who.peer, "bob");
	assert_int_equal(who.role, OM_ROLE_REQUESTER);
	assert_int_equal(om_auth_key(auth, KEY_C, &who), OM_OK);
	assert_string_equal(who.network, "");
	assert_int_equal(om_auth_key(auth, "Zne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", &who),
			 OM_ERR_DENIED);
	assert_int_equal(om_auth_key(auth, "", &who), OM_ERR_DENIED);
	assert_int_equal(om_auth_key(auth, NULL, &who), OM_ERR_DENIED);
	om_auth_free(auth);
}

static void
test_bad_peer_files(void **state)
{
	(void)state;
	refused("short alice\n", "authorized_peers:1: a line begins with a public key");
	refused("\n\n" KEY_A "\n", ":3: behind the key comes the peer's id");
	refused(KEY_A " uid:0\n", "not uid:...");
	refused(KEY_A " tcp\n", "not tcp");
	refused(KEY_A " network=x\n", "behind the key comes");
	refused(KEY_A " alice role=root\n", "unknown word role=root");
	refused(KEY_A " alice network=\n", "no name of a network");
	refused(KEY_A " alice network=local\n", "no name of a network");
	refused(KEY_A " alice\n" KEY_A " bob\n", "is there twice");
	put_file(peers_path, KEY_A " alice\n", 0666);
	assert_int_equal(chmod(peers_path, 0666), 0);
	{
		struct om_auth *auth = NULL;
		struct om_buf problems = { 0 };

		assert_int_equal(om_auth_load(&settings, &auth, &problems), OM_ERR_INVALID);
		assert_non_null(strstr(om_buf_cstr(&problems), "others may write it"));
		om_buf_fini(&problems);
	}
}

static void
test_no_file_means_no_peers(void **state)
{
	struct om_auth *auth = load_good();
	struct om_caller who;

	(void)state;
	assert_int_equal(om_auth_peer_count(auth), 0);
	assert_int_equal(om_auth_key(auth, KEY_A, &who), OM_ERR_DENIED);
	om_auth_free(auth);
}

static void
test_server_key(void **state)
{
	char path[128], pub[41], secret[41], pub2[41], secret2[41];
	struct om_why why = { "" };
	struct stat st;

	(void)state;
	snprintf(path, sizeof(path), "%s/curve.key", dir);
	assert_int_equal(om_auth_server_key(path, pub, secret, &why), OM_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(om_auth_server_key(path, pub2, secret2, &why), OM_OK);
	assert_string_equal(pub, pub2);
	assert_string_equal(secret, secret2);
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(om_auth_server_key(path, pub2, secret2, &why), OM_ERR_DENIED);
	put_file(path, "public = short\n", 0600);
	assert_int_equal(om_auth_server_key(path, pub2, secret2, &why), OM_ERR_CORRUPT);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, make_dir, drop_dir)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_local_peers),
		TEST(test_strange_addresses),
		TEST(test_operators_by_name_and_uid),
		TEST(test_operator_group),
		TEST(test_authorized_keys),
		TEST(test_bad_peer_files),
		TEST(test_no_file_means_no_peers),
		TEST(test_server_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
