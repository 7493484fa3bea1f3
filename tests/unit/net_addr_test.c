/* SPDX-License-Identifier: ISC */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "net/addr.h"

static struct om_ip
ip(const char *text)
{
	struct om_ip out;

	assert_int_equal(om_ip_parse(om_str_of(text), &out), OM_OK);
	return out;
}

static struct om_cidr
cidr(const char *text)
{
	struct om_cidr out;

	assert_int_equal(om_cidr_parse(om_str_of(text), &out), OM_OK);
	return out;
}

static struct om_endpoint
endpoint(const char *text)
{
	struct om_endpoint out;

	assert_int_equal(om_endpoint_parse(om_str_of(text), &out), OM_OK);
	return out;
}

static void
test_ip_round_trip(void **state)
{
	static const char *const good[] = { "0.0.0.0", "10.99.0.2", "255.255.255.255",     "::",
					    "::1",     "fe80::1",   "2001:db8:1:2:3:4:5:6" };
	static const char *const bad[] = {
		"",          "10", "10.0.0",       "10.0.0.256", "010.0.0.1",    "10.0.0.1 ",
		"1.2.3.4.5", ":",  "fe80::1%eth0", "g::1",       "host.example", "1:2:3:4:5:6:7:8:9"
	};
	char text[OM_IP_TEXT];
	struct om_ip out;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(good); i++) {
		out = ip(good[i]);
		assert_string_equal(om_ip_format(&out, text), good[i]);
	}
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		assert_int_equal(om_ip_parse(om_str_of(bad[i]), &out), OM_ERR_INVALID);
	}
	assert_int_equal(om_ip_parse((struct om_str){ "1.2.3.4\0x", 9 }, &out), OM_ERR_INVALID);
	out.family = 0;
	assert_string_equal(om_ip_format(&out, text), "none");
}

static void
test_cidr(void **state)
{
	static const char *const bad[] = { "10.0.0.0/33",  "10.0.0.0/", "/8",         "10.0.0.0/-1",
					   "10.0.0.0/8/8", "::/129",    "10.0.0.0/ 8" };
	char text[OM_CIDR_TEXT];
	struct om_cidr c = cidr("10.99.7.9/20"), out;

	(void)state;
	assert_string_equal(om_cidr_format(&c, text), "10.99.7.9/20");
	c = om_cidr_network(&c);
	assert_string_equal(om_cidr_format(&c, text), "10.99.0.0/20");
	c = cidr("fd00::1");
	assert_int_equal(c.prefix, 128);
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		assert_int_equal(om_cidr_parse(om_str_of(bad[i]), &out), OM_ERR_INVALID);
	}
}

static void
test_cidr_contains(void **state)
{
	static const struct {
		const char *net, *ip;
		bool inside;
	} rows[] = {
		{ "10.99.0.0/24", "10.99.0.255", true },
		{ "10.99.0.0/24", "10.99.1.0", false },
		{ "0.0.0.0/0", "8.8.8.8", true },
		{ "0.0.0.0/0", "::1", false },
		{ "::/0", "8.8.8.8", false },
		{ "10.0.0.1/32", "10.0.0.1", true },
		{ "10.0.0.1/32", "10.0.0.0", false },
		{ "fd00::/127", "fd00::1", true },
		{ "fd00::/127", "fd00::2", false },
		{ "128.0.0.0/1", "127.255.255.255", false },
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(rows); i++) {
		struct om_cidr c = cidr(rows[i].net);
		struct om_ip a = ip(rows[i].ip);

		assert_int_equal(om_cidr_contains(&c, &a), rows[i].inside);
	}
}

static void
test_endpoint(void **state)
{
	static const char *const good[] = { "192.0.2.1:51820", "[2001:db8::1]:1", "1.2.3.4:65535" };
	static const char *const bad[] = { "192.0.2.1",      "192.0.2.1:0",   "192.0.2.1:65536",
					   "2001:db8::1:1",  "[192.0.2.1]:1", "[2001:db8::1]",
					   "[2001:db8::1]:", ":51820",        "host:51820",
					   "1.2.3.4:1:2",    "1.2.3.4:+1",    "" };
	char text[OM_ENDPOINT_TEXT];
	struct om_endpoint out;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(good); i++) {
		out = endpoint(good[i]);
		assert_string_equal(om_endpoint_format(&out, text), good[i]);
	}
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		assert_int_equal(om_endpoint_parse(om_str_of(bad[i]), &out), OM_ERR_INVALID);
	}
}

static void
test_mac(void **state)
{
	char text[OM_MAC_TEXT];
	struct om_mac a = om_mac_random(), b = om_mac_random(), out;

	(void)state;
	assert_int_equal(a.bytes[0], 0x52); /* unicast, locally administered */
	assert_memory_not_equal(a.bytes, b.bytes, 6);
	assert_int_equal(om_mac_parse(om_str_of(om_mac_format(&a, text)), &out), OM_OK);
	assert_memory_equal(a.bytes, out.bytes, 6);
	assert_int_equal(om_mac_parse(OM_STR("52:54:00:00:00"), &out), OM_ERR_INVALID);
	assert_int_equal(om_mac_parse(OM_STR("52:54:00:00:00:00:00"), &out), OM_ERR_INVALID);
	assert_int_equal(om_mac_parse(OM_STR("52:54:00:00:00:0g"), &out), OM_ERR_INVALID);
}

static void
test_kinds(void **state)
{
	static const struct {
		const char *ip;
		enum om_ip_kind kind;
	} rows[] = {
		{ "8.8.8.8", OM_IP_PUBLIC },
		{ "2001:db8::1", OM_IP_PUBLIC },
		{ "10.1.2.3", OM_IP_PRIVATE },
		{ "172.31.255.1", OM_IP_PRIVATE },
		{ "172.32.0.1", OM_IP_PUBLIC },
		{ "192.168.0.1", OM_IP_PRIVATE },
		{ "100.64.0.1", OM_IP_PRIVATE },
		{ "fd00::1", OM_IP_PRIVATE },
		{ "0.0.0.0", OM_IP_UNSPECIFIED },
		{ "0.1.2.3", OM_IP_UNSPECIFIED },
		{ "::", OM_IP_UNSPECIFIED },
		{ "127.0.0.1", OM_IP_LOOPBACK },
		{ "::1", OM_IP_LOOPBACK },
		{ "169.254.169.254", OM_IP_LINK_LOCAL },
		{ "fe80::1", OM_IP_LINK_LOCAL },
		{ "224.0.0.1", OM_IP_MULTICAST },
		{ "ff02::1", OM_IP_MULTICAST },
		{ "255.255.255.255", OM_IP_RESERVED },
		{ "240.0.0.1", OM_IP_RESERVED },
		/* an IPv4 address in IPv6 clothes is no way around the rules */
		{ "::ffff:127.0.0.1", OM_IP_RESERVED },
		{ "64:ff9b::7f00:1", OM_IP_RESERVED },
		{ "2002:7f00:1::", OM_IP_RESERVED },
		{ "::127.0.0.1", OM_IP_RESERVED },
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(rows); i++) {
		struct om_ip a = ip(rows[i].ip);

		assert_string_equal(om_ip_kind_name(om_ip_kind(&a)), om_ip_kind_name(rows[i].kind));
	}
}

/* --- EndpointAllowlistTests -------------------------------------------------------------------------- */

static enum om_err
check(const struct om_endpoint_policy *p, const char *text, struct om_why *why)
{
	struct om_endpoint ep = endpoint(text);

	return om_endpoint_check(p, &ep, why);
}

static void
test_empty_allowlist_blocks_all(void **state)
{
	const struct om_endpoint_policy p = { .only_allowed = true };
	struct om_why why;

	(void)state;
	assert_int_equal(check(&p, "8.8.8.8:51820", &why), OM_ERR_DENIED);
	assert_non_null(strstr(why.text, "not on the provider's list"));
	assert_int_equal(check(&p, "[2001:db8::1]:51820", &why), OM_ERR_DENIED);
}

static void
test_multiple_endpoints_others_blocked(void **state)
{
	struct om_endpoint_policy p = { .only_allowed = true };
	struct om_cidr a = cidr("203.0.113.0/24"), b = cidr("2001:db8::/32");

	(void)state;
	assert_int_equal(om_endpoint_policy_add(p.allow, &p.allow_count, &a), OM_OK);
	assert_int_equal(om_endpoint_policy_add(p.allow, &p.allow_count, &b), OM_OK);
	assert_int_equal(check(&p, "203.0.113.7:1", NULL), OM_OK);
	assert_int_equal(check(&p, "[2001:db8:1::1]:1", NULL), OM_OK);
	assert_int_equal(check(&p, "203.0.114.7:1", NULL), OM_ERR_DENIED);
}

static void
test_ip_mismatch_blocked(void **state)
{
	struct om_endpoint_policy p = { .only_allowed = true };
	struct om_cidr a = cidr("203.0.113.7/32");

	(void)state;
	assert_int_equal(om_endpoint_policy_add(p.allow, &p.allow_count, &a), OM_OK);
	assert_int_equal(check(&p, "203.0.113.7:1", NULL), OM_OK);
	assert_int_equal(check(&p, "203.0.113.8:1", NULL), OM_ERR_DENIED);
}

/* The default: the public Internet, not the provider's own side of the world. */
static void
test_own_side_is_denied(void **state)
{
	static const char *const denied[] = {
		"127.0.0.1:1",    "169.254.169.254:80",  "224.0.0.1:1",  "255.255.255.255:1",
		"0.0.0.0:1",      "10.0.0.1:1",          "[::1]:1",      "[fe80::1]:1",
		"[ff02::1]:1",    "[fd00::1]:1",         "[::]:1",       "192.168.1.1:1",
		"198.51.100.9:1", "[::ffff:10.0.0.1]:1", "100.64.0.1:1",
	};
	struct om_endpoint_policy p = { .own_count = 0 };
	struct om_cidr own = cidr("198.51.100.77/24"), lan = cidr("192.168.1.0/24");
	struct om_cidr bad = cidr("203.0.113.0/24"), good = cidr("192.168.1.5/32");
	struct om_why why;

	(void)state;
	assert_int_equal(om_endpoint_policy_add(p.own, &p.own_count, &own), OM_OK);
	assert_int_equal(om_endpoint_policy_add(p.own, &p.own_count, &lan), OM_OK);
	for (size_t i = 0; i < OM_COUNT(denied); i++) {
		assert_int_equal(check(&p, denied[i], &why), OM_ERR_DENIED);
		assert_memory_equal(why.text, "endpoint: ", 10);
	}
	assert_int_equal(check(&p, "8.8.8.8:51820", NULL), OM_OK);
	/* Private networks of others, not our own. */
	p.allow_private = true;
	assert_int_equal(check(&p, "10.0.0.1:1", NULL), OM_OK);
	assert_int_equal(check(&p, "192.168.1.1:1", &why), OM_ERR_DENIED);
	assert_non_null(strstr(why.text, "own network"));
	/* deny, and an exception that wins. */
	assert_int_equal(om_endpoint_policy_add(p.deny, &p.deny_count, &bad), OM_OK);
	assert_int_equal(check(&p, "203.0.113.1:1", NULL), OM_ERR_DENIED);
	assert_int_equal(om_endpoint_policy_add(p.allow, &p.allow_count, &good), OM_OK);
	assert_int_equal(check(&p, "192.168.1.5:1", NULL), OM_OK);
}

static void
test_policy_is_bounded(void **state)
{
	struct om_endpoint_policy p = { .deny_count = 0 };
	struct om_cidr c = cidr("203.0.113.0/24");

	(void)state;
	for (int i = 0; i < OM_ENDPOINT_RULES_MAX; i++) {
		assert_int_equal(om_endpoint_policy_add(p.deny, &p.deny_count, &c), OM_OK);
	}
	assert_int_equal(om_endpoint_policy_add(p.deny, &p.deny_count, &c), OM_ERR_FULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ip_round_trip),
		cmocka_unit_test(test_cidr),
		cmocka_unit_test(test_cidr_contains),
		cmocka_unit_test(test_endpoint),
		cmocka_unit_test(test_mac),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_empty_allowlist_blocks_all),
		cmocka_unit_test(test_multiple_endpoints_others_blocked),
		cmocka_unit_test(test_ip_mismatch_blocked),
		cmocka_unit_test(test_own_side_is_denied),
		cmocka_unit_test(test_policy_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
