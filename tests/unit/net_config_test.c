/* SPDX-License-Identifier: ISC */
/* WireGuard settings: typed fields, the wg-quick file, and what goes to the two back ends. */
#include <linux/genetlink.h>
#include <linux/wireguard.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/buf.h"
#include "net/wg_quick.h"
#include "net/wireguard_impl.h"

#define KEY_A "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
#define KEY_B "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
#define KEY_0 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static struct om_str addresses[4], allowed[65], dns[8];

/* A valid configuration; each test breaks one thing. */
static struct om_wg_config_text
valid(void)
{
	addresses[0] = OM_STR("10.99.0.2/24");
	addresses[1] = OM_STR("fd99::2/64");
	allowed[0] = OM_STR("10.99.0.7/24");
	allowed[1] = OM_STR("fd99::/64");
	dns[0] = OM_STR("10.99.0.1");
	return (struct om_wg_config_text){
		.private_key = OM_STR(KEY_A),
		.peer_public_key = OM_STR(KEY_B),
		.endpoint = OM_STR("203.0.113.1:51820"),
		.addresses = addresses,
		.address_count = 2,
		.allowed_ips = allowed,
		.allowed_count = 2,
		.dns = dns,
		.dns_count = 1,
		.keepalive_s = 25,
	};
}

static void
refuses(const struct om_wg_config_text *text, enum om_err want, const char *begins)
{
	static const struct om_wg_config zero;
	struct om_wg_config cfg;
	struct om_why why;

	assert_int_equal(om_wg_config_parse(text, &cfg, &why), want);
	if (strncmp(why.text, begins, strlen(begins)) != 0) {
		fail_msg("\"%s\" does not begin with \"%s\"", why.text, begins);
	}
	assert_null(strstr(why.text, "AQIDBAUG")); /* no key in a reason */
	assert_memory_equal(&cfg, &zero, sizeof(cfg));
}

/* VPNManager: testValidateConfiguration */
static void
test_validate_configuration(void **state)
{
	struct om_wg_config_text text = valid();
	struct om_wg_config cfg;
	char out[OM_CIDR_TEXT], key[OM_WG_KEY_TEXT];
	struct om_ip ip;

	(void)state;
	assert_int_equal(om_wg_config_parse(&text, &cfg, NULL), OM_OK);
	assert_int_equal(cfg.private_key[0], 1);
	assert_int_equal(cfg.private_key[31], 32);
	assert_false(cfg.has_preshared_key);
	assert_int_equal(cfg.mtu, OM_WG_MTU_DEFAULT);
	assert_int_equal(cfg.keepalive_s, 25);
	assert_string_equal(om_cidr_format(&cfg.addresses[0], out), "10.99.0.2/24");
	assert_string_equal(om_cidr_format(&cfg.allowed[0], out), "10.99.0.0/24");
	assert_string_equal(om_ip_format(om_wg_config_address(&cfg, 6), out), "fd99::2");
	om_wg_key_format(cfg.peer_public_key, key);
	assert_string_equal(key, KEY_B);
	assert_int_equal(om_ip_parse(OM_STR("10.99.0.200"), &ip), OM_OK);
	assert_true(om_wg_config_allows(&cfg, &ip));
	assert_int_equal(om_ip_parse(OM_STR("10.98.0.200"), &ip), OM_OK);
	assert_false(om_wg_config_allows(&cfg, &ip));
	om_wg_config_wipe(&cfg);
	assert_int_equal(cfg.private_key[0], 0);
	om_wg_config_wipe(NULL);
}

/* VPNManager: testInvalidConfigurationEmptyWireguardConfig, ...EmptyEndpoint, ...BadEndpointFormat */
static void
test_invalid_configuration(void **state)
{
	struct om_wg_config_text t;

	(void)state;
	t = (struct om_wg_config_text){ .mtu = 0 };
	refuses(&t, OM_ERR_INVALID, "private_key: is missing");
	t = valid();
	t.private_key = OM_STR("AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHw==");
	refuses(&t, OM_ERR_INVALID, "private_key: is not a key");
	t.private_key = OM_STR("!QIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=");
	refuses(&t, OM_ERR_INVALID, "private_key: is not a key");
	t.private_key = OM_STR(KEY_0);
	refuses(&t, OM_ERR_INVALID, "private_key: is all zero");
	t = valid();
	t.preshared_key = OM_STR("short");
	refuses(&t, OM_ERR_INVALID, "preshared_key: ");
	t = valid();
	t.endpoint = OM_STR("");
	refuses(&t, OM_ERR_INVALID, "endpoint: ");
	t.endpoint = OM_STR("203.0.113.1");
	refuses(&t, OM_ERR_INVALID, "endpoint: ");
	t.endpoint = OM_STR("203.0.113.1:99999");
	refuses(&t, OM_ERR_INVALID, "endpoint: ");
	t.endpoint = OM_STR("vpn.example:51820");
	refuses(&t, OM_ERR_INVALID, "endpoint: ");
}

static void
test_invalid_addresses(void **state)
{
	struct om_wg_config_text t = valid();

	(void)state;
	t.address_count = 0;
	refuses(&t, OM_ERR_INVALID, "addresses: is empty");
	t.address_count = 3;
	refuses(&t, OM_ERR_TOO_BIG, "addresses: more than 2");
	t.address_count = 2;
	addresses[1] = OM_STR("10.99.0.3");
	refuses(&t, OM_ERR_INVALID, "addresses: two of IPv4");
	addresses[1] = OM_STR("fe80::1");
	refuses(&t, OM_ERR_INVALID, "addresses: fe80::1 is a link-local address");
	addresses[1] = OM_STR("10.99.0.2/33");
	refuses(&t, OM_ERR_INVALID, "addresses: \"10.99.0.2/33\"");
	t = valid();
	t.allowed_count = 0;
	refuses(&t, OM_ERR_INVALID, "allowed_ips: is empty");
	t.allowed_count = 65;
	refuses(&t, OM_ERR_TOO_BIG, "allowed_ips: more than 64");
	t = valid();
	allowed[1] = OM_STR("everything");
	refuses(&t, OM_ERR_INVALID, "allowed_ips: \"everything\"");
	t = valid();
	dns[0] = OM_STR("8.8.8.8");
	refuses(&t, OM_ERR_INVALID, "dns: 8.8.8.8 is not inside allowed_ips");
	dns[0] = OM_STR("resolver");
	refuses(&t, OM_ERR_INVALID, "dns: \"resolver\"");
	t = valid();
	t.keepalive_s = 65536;
	refuses(&t, OM_ERR_INVALID, "keepalive: ");
	t = valid();
	t.mtu = 1279; /* IPv6 needs 1280 */
	refuses(&t, OM_ERR_INVALID, "mtu: not in 1280 to 9000");
	t.mtu = 9001;
	refuses(&t, OM_ERR_INVALID, "mtu: ");
	t.mtu = UINT64_MAX;
	refuses(&t, OM_ERR_INVALID, "mtu: ");
	t.address_count = 1;
	t.mtu = 575;
	refuses(&t, OM_ERR_INVALID, "mtu: not in 576 to 9000");
}

/* Addresses that mean "this link" or "this host" are no tunnel's, also with AllowedIPs 0.0.0.0/0. */
static void
test_special_addresses_are_never_allowed(void **state)
{
	static const char *const never[] = { "127.0.0.1",       "169.254.169.254", "224.0.0.251",
					     "255.255.255.255", "0.0.0.0",         "::1",
					     "fe80::1",         "ff02::1" };
	struct om_wg_config_text t = valid();
	struct om_wg_config cfg;
	struct om_ip ip;

	(void)state;
	allowed[0] = OM_STR("0.0.0.0/0");
	allowed[1] = OM_STR("::/0");
	assert_int_equal(om_wg_config_parse(&t, &cfg, NULL), OM_OK);
	for (size_t i = 0; i < OM_COUNT(never); i++) {
		assert_int_equal(om_ip_parse(om_str_of(never[i]), &ip), OM_OK);
		assert_false(om_wg_config_allows(&cfg, &ip));
	}
}

/* --- wg-quick ------------------------------------------------------------------------------------------ */

#define QUICK                                                                                      \
	"# a comment\r\n[Interface]\nPrivateKey = " KEY_A "\nAddress = 10.99.0.2/24, fd99::2/64\n" \
	"DNS=10.99.0.1 # the requester\nmtu = 1380\n\n[Peer]\nPublicKey=" KEY_B                    \
	"\nPresharedKey = " KEY_A "\nEndpoint = 203.0.113.1:51820\nAllowedIPs = 10.99.0.0/24\n"    \
	"AllowedIPs = fd99::/64\nPersistentKeepalive = 25\n"

/* EphemeralVPN: testClientConfigurationGeneration, read back */
static void
test_wg_quick_file(void **state)
{
	struct om_wg_config cfg;
	struct om_why why = { "" };

	(void)state;
	assert_int_equal(om_wg_quick_parse(OM_STR(QUICK), &cfg, &why), OM_OK);
	assert_int_equal(cfg.address_count, 2);
	assert_int_equal(cfg.allowed_count, 2);
	assert_int_equal(cfg.mtu, 1380);
	assert_int_equal(cfg.keepalive_s, 25);
	assert_int_equal(cfg.endpoint.port, 51820);
	assert_true(cfg.has_preshared_key);
	assert_int_equal(cfg.dns_count, 1);
}

/* --- the cases that every reader of such a file has in common: tests/data/wg_quick.txt --------------- */

#define CASES "tests/data/wg_quick.txt"

/* What a file gave, as the cases write it. */
static void
case_fields(const struct om_wg_config *cfg, struct om_buf *out)
{
	char key[OM_WG_KEY_TEXT], text[OM_CIDR_TEXT], ip[OM_IP_TEXT], endpoint[OM_ENDPOINT_TEXT];

	om_wg_key_format(cfg->private_key, key);
	om_buf_printf(out, "private_key %s\n", key);
	for (size_t i = 0; i < cfg->address_count; i++) {
		om_buf_printf(out, "addresses %s\n", om_cidr_format(&cfg->addresses[i], text));
	}
	om_wg_key_format(cfg->peer_public_key, key);
	om_buf_printf(out, "peer_public_key %s\n", key);
	if (cfg->has_preshared_key) {
		om_wg_key_format(cfg->preshared_key, key);
		om_buf_printf(out, "preshared_key %s\n", key);
	}
	om_buf_printf(out, "endpoint %s\n", om_endpoint_format(&cfg->endpoint, endpoint));
	for (size_t i = 0; i < cfg->allowed_count; i++) {
		om_buf_printf(out, "allowed_ips %s\n", om_cidr_format(&cfg->allowed[i], text));
	}
	for (size_t i = 0; i < cfg->dns_count; i++) {
		om_buf_printf(out, "dns %s\n", om_ip_format(&cfg->dns[i], ip));
	}
	om_buf_printf(out, "keepalive %u\nmtu %u\n", (unsigned)cfg->keepalive_s,
		      (unsigned)cfg->mtu);
}

/* One case, "CODE: what it says", the file, and for one that is taken "---" and its fields. */
static void
case_run(char *text)
{
	char *file = strchr(text, '\n') + 1, *says = strstr(text, ": ") + 2;
	char *fields = strstr(file, "---\n");
	struct om_wg_config cfg;
	struct om_buf got = { 0 };
	struct om_why why = { "" };
	enum om_err err;

	says[strcspn(says, "\n")] = '\0';
	says[-2] = '\0';
	if (fields != NULL) {
		*fields = '\0';
		fields += 4;
	}
	err = om_wg_quick_parse(om_str_of(file), &cfg, &why);
	if (strcmp(om_err_code(err), text) != 0) {
		fail_msg("%s: %s, not %s: %s", says, om_err_code(err), text, why.text);
	}
	if (err != OM_OK) {
		if (strstr(why.text, says) == NULL) {
			fail_msg("\"%s\" does not say \"%s\"", why.text, says);
		}
		assert_null(strstr(why.text, "AQIDBAUG"));
		return;
	}
	case_fields(&cfg, &got);
	om_buf_add(&got, "", 1);
	assert_string_equal((const char *)got.data, fields);
	om_buf_fini(&got);
}

/* Bug 5 of the reference: the requester's text ran as root.  Hooks are refused by name. */
static void
test_wg_quick_cases(void **state)
{
	static char text[32768];
	FILE *f = fopen(CASES, "r");
	size_t n, count = 0;
	char *at, *next;

	(void)state;
	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	assert_true(n < sizeof(text) - 1);
	for (at = strstr(text, "\n=== "); at != NULL; at = next, count++) {
		at += strlen("\n=== ");
		next = strstr(at, "\n=== ");
		if (next != NULL) {
			next[1] = '\0'; /* the last line keeps its end */
		}
		case_run(at);
	}
	assert_true(count > 30);
}

static void
test_wg_quick_is_bounded(void **state)
{
	char big[OM_WG_QUICK_MAX + 2];
	struct om_wg_config cfg;

	(void)state;
	memset(big, '#', sizeof(big));
	assert_int_equal(om_wg_quick_parse((struct om_str){ big, sizeof(big) }, &cfg, NULL),
			 OM_ERR_TOO_BIG);
}

/* --- the back ends --------------------------------------------------------------------------------------- */

static void
test_uapi_request(void **state)
{
	struct om_wg_config_text t = valid();
	char text[OM_WG_UAPI_MAX];
	struct om_wg_config cfg;
	size_t len;

	(void)state;
	assert_int_equal(om_wg_config_parse(&t, &cfg, NULL), OM_OK);
	assert_int_equal(om_wg_uapi_encode(&cfg, text, sizeof(text), &len), OM_OK);
	text[len] = '\0';
	assert_string_equal(
	    text, "set=1\n"
		  "private_key=0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20\n"
		  "replace_peers=true\n"
		  "public_key=202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f\n"
		  "endpoint=203.0.113.1:51820\npersistent_keepalive_interval=25\n"
		  "replace_allowed_ips=true\nallowed_ip=10.99.0.0/24\nallowed_ip=fd99::/64\n\n");
	for (size_t size = 1; size <= len; size++) {
		size_t cut;

		assert_int_equal(om_wg_uapi_encode(&cfg, text, size, &cut), OM_ERR_TOO_BIG);
	}
}

/* As many networks as there may be fit into one request of either back end. */
static void
test_biggest_configuration_fits(void **state)
{
	static char names[OM_WG_ALLOWED_MAX][OM_CIDR_TEXT];
	struct om_wg_config_text t = valid();
	char text[OM_WG_UAPI_MAX];
	static struct om_nl nl;
	struct om_wg_config cfg;
	size_t len;

	(void)state;
	for (int i = 0; i < OM_WG_ALLOWED_MAX; i++) {
		(void)snprintf(names[i], sizeof(names[i]),
			       "fd99:1234:5678:9abc:def0:1234:5678:%x/128", 0x1000 + i);
		allowed[i] = om_str_of(names[i]);
	}
	t.allowed_count = OM_WG_ALLOWED_MAX;
	t.dns_count = 0;
	t.preshared_key = OM_STR(KEY_B);
	assert_int_equal(om_wg_config_parse(&t, &cfg, NULL), OM_OK);
	assert_int_equal(om_wg_uapi_encode(&cfg, text, sizeof(text), &len), OM_OK);
	assert_true(om_wg_genl_encode(&nl, 25, "omw0123456789ab", &cfg)->nlmsg_len <= OM_NL_BUF);
}

static void
test_uapi_answers(void **state)
{
	struct om_wg_stats st;

	(void)state;
	assert_int_equal(om_wg_uapi_errno(OM_STR("errno=0\n\n")), 0);
	assert_int_equal(om_wg_uapi_errno(OM_STR("errno=-22\n\n")), 22);
	assert_int_equal(om_wg_uapi_errno(OM_STR("errno=x\n\n")), -1);
	assert_int_equal(om_wg_uapi_errno(OM_STR("")), -1);
	assert_int_equal(om_wg_uapi_stats(OM_STR("private_key=00\nlisten_port=1\npublic_key=00\n"
						 "last_handshake_time_sec=17\n"
						 "last_handshake_time_nsec=5\nrx_bytes=7\n"
						 "tx_bytes=18446744073709551615\nerrno=0\n\n"),
					  &st),
			 OM_OK);
	assert_int_equal(st.rx_bytes, 7);
	assert_true(st.tx_bytes == UINT64_MAX);
	assert_true(st.handshake_at.ns == 17 * OM_NS_PER_S + 5);
	assert_int_equal(st.endpoint.ip.family, 0);
	assert_int_equal(om_wg_uapi_stats(OM_STR("rx_bytes=7\n"), &st), OM_ERR_CORRUPT);
	assert_int_equal(om_wg_uapi_stats(OM_STR("rx_bytes=-7\nerrno=0\n"), &st), OM_ERR_CORRUPT);
	assert_int_equal(om_wg_uapi_stats(OM_STR("last_handshake_time_sec=99999999999999999\n"
						 "errno=0\n"),
					  &st),
			 OM_ERR_CORRUPT);
	assert_int_equal(om_wg_uapi_stats(OM_STR("errno=2\n"), &st), OM_ERR_NET);
}

/* Where the peer is now, whatever was configured. */
static void
test_uapi_endpoint(void **state)
{
	static const struct {
		const char *line, *ep;
	} good[] = {
		{ "endpoint=203.0.113.9:1\nerrno=0\n\n", "203.0.113.9:1" },
		{ "endpoint=[2001:db8::9]:51820\nerrno=0\n\n", "[2001:db8::9]:51820" },
		{ "endpoint=[fe80::1%eth0]:7\nerrno=0\n\n", "[fe80::1]:7" },
	};
	static const char *const bad[] = { "endpoint=here\nerrno=0\n\n",
					   "endpoint=203.0.113.9\nerrno=0\n\n",
					   "endpoint=[fe80::1%eth0:7\nerrno=0\n\n" };
	char text[OM_ENDPOINT_TEXT];
	struct om_wg_stats st;

	(void)state;
	for (size_t i = 0; i < OM_COUNT(good); i++) {
		assert_int_equal(om_wg_uapi_stats(om_str_of(good[i].line), &st), OM_OK);
		assert_string_equal(om_endpoint_format(&st.endpoint, text), good[i].ep);
	}
	for (size_t i = 0; i < OM_COUNT(bad); i++) {
		assert_int_equal(om_wg_uapi_stats(om_str_of(bad[i]), &st), OM_ERR_CORRUPT);
	}
}

static const struct nlattr *
find(const struct nlattr *nest, const struct nlmsghdr *nlh, uint16_t type)
{
	const struct nlattr *attr;

	if (nest == NULL) {
		OM_NL_EACH(attr, nlh, sizeof(struct genlmsghdr))
		{
			if (mnl_attr_get_type(attr) == type) {
				return attr;
			}
		}
	} else {
		OM_NL_EACH_NESTED(attr, nest)
		{
			if (mnl_attr_get_type(attr) == type) {
				return attr;
			}
		}
	}
	fail_msg("no attribute %u", type);
	return NULL;
}

/* The kernel's request, read back attribute by attribute. */
static void
test_kernel_request(void **state)
{
	struct om_wg_config_text t = valid();
	static struct om_nl nl;
	const struct nlattr *peer, *list, *one;
	const struct sockaddr_in *sin;
	struct om_wg_config cfg;
	struct nlmsghdr *nlh;

	(void)state;
	t.preshared_key = OM_STR(KEY_A);
	assert_int_equal(om_wg_config_parse(&t, &cfg, NULL), OM_OK);
	nlh = om_wg_genl_encode(&nl, 25, "omw0123456789ab", &cfg);
	assert_int_equal(nlh->nlmsg_type, 25);
	assert_int_equal(((struct genlmsghdr *)mnl_nlmsg_get_payload(nlh))->cmd, WG_CMD_SET_DEVICE);
	assert_string_equal(mnl_attr_get_str(find(NULL, nlh, WGDEVICE_A_IFNAME)),
			    "omw0123456789ab");
	assert_memory_equal(mnl_attr_get_payload(find(NULL, nlh, WGDEVICE_A_PRIVATE_KEY)),
			    cfg.private_key, 32);
	assert_int_equal(mnl_attr_get_u32(find(NULL, nlh, WGDEVICE_A_FLAGS)),
			 WGDEVICE_F_REPLACE_PEERS);
	peer = find(find(NULL, nlh, WGDEVICE_A_PEERS), nlh, 0);
	assert_memory_equal(mnl_attr_get_payload(find(peer, nlh, WGPEER_A_PUBLIC_KEY)),
			    cfg.peer_public_key, 32);
	assert_memory_equal(mnl_attr_get_payload(find(peer, nlh, WGPEER_A_PRESHARED_KEY)),
			    cfg.preshared_key, 32);
	assert_int_equal(mnl_attr_get_u16(find(peer, nlh, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL)),
			 25);
	sin = mnl_attr_get_payload(find(peer, nlh, WGPEER_A_ENDPOINT));
	assert_int_equal(sin->sin_family, AF_INET);
	assert_int_equal(ntohs(sin->sin_port), 51820);
	assert_memory_equal(&sin->sin_addr, "\xcb\x00\x71\x01", 4);
	list = find(peer, nlh, WGPEER_A_ALLOWEDIPS);
	one = find(list, nlh, 0);
	assert_int_equal(mnl_attr_get_u16(find(one, nlh, WGALLOWEDIP_A_FAMILY)), AF_INET);
	assert_int_equal(mnl_attr_get_u8(find(one, nlh, WGALLOWEDIP_A_CIDR_MASK)), 24);
	assert_memory_equal(mnl_attr_get_payload(find(one, nlh, WGALLOWEDIP_A_IPADDR)),
			    "\x0a\x63\x00\x00", 4);
}

static void
test_kernel_counters(void **state)
{
	struct om_wg_stats st = { .tx_bytes = 0 };
	const int64_t at[2] = { 17, 5 };
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(51820) };
	char text[OM_ENDPOINT_TEXT];
	static struct om_nl nl;
	struct nlattr *peers, *peer;
	struct nlmsghdr *nlh;
	void *body;

	(void)state;
	nlh = om_nl_begin(&nl, 25, 0, sizeof(struct genlmsghdr), &body);
	peers = mnl_attr_nest_start(nlh, WGDEVICE_A_PEERS);
	peer = mnl_attr_nest_start(nlh, 0);
	mnl_attr_put_u64(nlh, WGPEER_A_RX_BYTES, 7);
	mnl_attr_put_u64(nlh, WGPEER_A_TX_BYTES, 9);
	mnl_attr_put(nlh, WGPEER_A_LAST_HANDSHAKE_TIME, sizeof(at), at);
	memcpy(&sin.sin_addr, "\xcb\x00\x71\x01", 4);
	mnl_attr_put(nlh, WGPEER_A_ENDPOINT, sizeof(sin), &sin);
	mnl_attr_nest_end(nlh, peer);
	mnl_attr_nest_end(nlh, peers);
	assert_int_equal(om_wg_genl_on_device(nlh, &st), OM_OK);
	assert_int_equal(st.rx_bytes, 7);
	assert_int_equal(st.tx_bytes, 9);
	assert_true(st.handshake_at.ns == 17 * OM_NS_PER_S + 5);
	assert_string_equal(om_endpoint_format(&st.endpoint, text), "203.0.113.1:51820");
}

/* network.wireguard was looked at for "none" alone: who said userspace got the kernel's. */
static void
test_back_end_is_the_one_that_is_wanted(void **state)
{
	static const struct {
		enum om_wg_backend want;
		bool has_kernel, has_program;
		enum om_wg_backend got;
		const char *missing;
	} cases[] = {
		{ OM_WG_BACKEND_NONE, true, true, OM_WG_BACKEND_KERNEL, NULL },
		{ OM_WG_BACKEND_NONE, false, true, OM_WG_BACKEND_USERSPACE, NULL },
		{ OM_WG_BACKEND_NONE, false, false, OM_WG_BACKEND_NONE, "no WireGuard" },
		{ OM_WG_BACKEND_KERNEL, true, true, OM_WG_BACKEND_KERNEL, NULL },
		{ OM_WG_BACKEND_KERNEL, false, true, OM_WG_BACKEND_NONE, "= kernel" },
		{ OM_WG_BACKEND_USERSPACE, true, true, OM_WG_BACKEND_USERSPACE, NULL },
		{ OM_WG_BACKEND_USERSPACE, true, false, OM_WG_BACKEND_NONE, "= userspace" },
	};

	(void)state;
	for (size_t i = 0; i < OM_COUNT(cases); i++) {
		struct om_why why = { "" };
		enum om_wg_backend got;
		enum om_err err = om_wg_choose(cases[i].want, cases[i].has_kernel,
					       cases[i].has_program, &got, &why);

		assert_int_equal(got, cases[i].got);
		assert_int_equal(err, cases[i].missing == NULL ? OM_OK : OM_ERR_MISSING);
		assert_true(cases[i].missing == NULL || strstr(why.text, cases[i].missing) != NULL);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_back_end_is_the_one_that_is_wanted),
		cmocka_unit_test(test_validate_configuration),
		cmocka_unit_test(test_invalid_configuration),
		cmocka_unit_test(test_invalid_addresses),
		cmocka_unit_test(test_special_addresses_are_never_allowed),
		cmocka_unit_test(test_wg_quick_file),
		cmocka_unit_test(test_wg_quick_cases),
		cmocka_unit_test(test_wg_quick_is_bounded),
		cmocka_unit_test(test_uapi_request),
		cmocka_unit_test(test_biggest_configuration_fits),
		cmocka_unit_test(test_uapi_answers),
		cmocka_unit_test(test_uapi_endpoint),
		cmocka_unit_test(test_kernel_request),
		cmocka_unit_test(test_kernel_counters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
