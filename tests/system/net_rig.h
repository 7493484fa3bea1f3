/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_SYSTEM_NET_RIG_H
#define OM_TESTS_SYSTEM_NET_RIG_H

/*
 * A small world for the network's system tests, gone with the test's process:
 *
 *	guest ns -- tap ~pump~ tap -- job ns -- WireGuard ~ UDP ~ "host" ns -- veth -- requester ns
 *
 * The "host" is a namespace of this process's own, and so are its mounts: /run/wireguard is a fresh
 * tmpfs.  The requester runs plain wireguard-go, set up by wg(8), so both ends do not share a mistake
 * of ours.  The guest is a kernel too: a namespace whose tap is joined to the job's by a pump thread,
 * which stands where qemu would.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/id.h"
#include "base/parse.h"
#include "base/spawn.h"
#include "net/jobnet.h"
#include "net/link.h"
#include "net/netns.h"
#include "net/nftables.h"
#include "net/wireguard.h"

#define RIG_HOST_IP     "10.250.0.1/24"
#define RIG_REQ_IP      "10.250.0.2/24"
#define RIG_REQ_UDP     51820
#define RIG_REQ_TUNNEL  "10.99.0.1"
#define RIG_GUEST       "10.99.0.2"
#define RIG_REQ_TUNNEL6 "fd99::1"
#define RIG_GUEST6      "fd99::2"
#define RIG_VNET_HDR    10
#define RIG_WAIT_MS     5000
#define RIG_QUIET_MS    100 /* how long "no event" is waited for; the kernel tells at once */

#define rig_ok(call)                                                                     \
	do {                                                                             \
		struct om_why *rig_w = &rig_why;                                         \
		enum om_err rig_e;                                                       \
		rig_w->text[0] = '\0';                                                   \
		rig_e = (call);                                                          \
		if (rig_e != OM_OK) {                                                    \
			fail_msg("%s: %s: %s", #call, om_err_code(rig_e), rig_why.text); \
		}                                                                        \
	} while (0)

static struct om_why rig_why;

/* The world. */
struct rig {
	int req_ns;
	pid_t req_go;
	int req_go_fd;
	char req_private[OM_WG_KEY_TEXT];
	char req_public[OM_WG_KEY_TEXT];
	char job_private[OM_WG_KEY_TEXT];
	char job_public[OM_WG_KEY_TEXT];
	char psk[OM_WG_KEY_TEXT];
	struct om_jobnet_env env;
	struct om_job_id job;
	struct om_mac carrier_mac[2]; /* between the host and the requester */
};

static struct rig rig;

/* --- pieces ---------------------------------------------------------------------------------------- */

static inline struct om_cidr
rig_cidr(const char *text)
{
	struct om_cidr cidr;

	assert_int_equal(om_cidr_parse(om_str_of(text), &cidr), OM_OK);
	return cidr;
}

static inline struct om_ip
rig_ip(const char *text)
{
	return rig_cidr(text).ip;
}

/* Runs a program; its output (trimmed) goes to out. */
static inline void
rig_run(const char *const *argv, char *out, size_t size)
{
	struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1 };
	struct om_buf buf = { .max = 65536 };
	struct om_str text;
	int status = -1;

	rig_ok(om_spawn_run(&how, 10000, &buf, &status, &rig_why));
	text = (struct om_str){ (const char *)buf.data, buf.len };
	while (text.len > 0 && text.ptr[text.len - 1] == '\n') {
		text.len--;
	}
	if (status != 0) {
		fail_msg("%s: status %d: %.*s", argv[0], status, OM_STR_ARG(text));
	}
	if (out != NULL) {
		assert_int_equal(om_str_copy(text, out, size), OM_OK);
	}
	om_buf_fini(&buf);
}

static inline void
rig_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static inline void
rig_pubkey(const char *private_key, char out[OM_WG_KEY_TEXT])
{
	const char *const argv[] = { "/bin/sh", "-c", "wg pubkey </run/wireguard/key", NULL };

	rig_write_file("/run/wireguard/key", private_key);
	rig_run(argv, out, OM_WG_KEY_TEXT);
}

static inline void
rig_keys(char private_key[OM_WG_KEY_TEXT], char public_key[OM_WG_KEY_TEXT])
{
	const char *const argv[] = { "/usr/bin/wg", "genkey", NULL };

	rig_run(argv, private_key, OM_WG_KEY_TEXT);
	rig_pubkey(private_key, public_key);
}

static inline int
rig_wait_readable(int fd, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n;

	do {
		n = poll(&p, 1, timeout_ms);
	} while (n < 0 && errno == EINTR);
	return n == 1;
}

/* A socket of namespace ns (-1: this one). */
static inline int
rig_socket(int ns, int family, int type, int proto)
{
	struct om_netns_scope scope = { .home = -1 };
	int fd;

	if (ns >= 0) {
		rig_ok(om_netns_enter(&scope, ns, &rig_why));
	}
	fd = socket(family, type | SOCK_CLOEXEC, proto);
	om_netns_leave(&scope);
	assert_true(fd >= 0);
	return fd;
}

static inline socklen_t
rig_sockaddr(struct sockaddr_storage *out, const char *ip_text, uint16_t port)
{
	struct om_ip ip = rig_ip(ip_text);

	memset(out, 0, sizeof(*out));
	if (ip.family == 4) {
		struct sockaddr_in *sin = (struct sockaddr_in *)out;

		sin->sin_family = AF_INET;
		sin->sin_port = htons(port);
		memcpy(&sin->sin_addr, ip.bytes, 4);
		return sizeof(*sin);
	}
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)out;

	sin6->sin6_family = AF_INET6;
	sin6->sin6_port = htons(port);
	memcpy(&sin6->sin6_addr, ip.bytes, 16);
	return sizeof(*sin6);
}

static inline int
rig_listen(int ns, const char *ip, uint16_t port)
{
	struct sockaddr_storage ss;
	socklen_t len = rig_sockaddr(&ss, ip, port);
	int fd = rig_socket(ns, ss.ss_family, SOCK_STREAM, 0);
	int on = 1;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

/* Connects; 0, or the errno after at most timeout_ms. */
static inline int
rig_connect(int ns, const char *ip, uint16_t port, int timeout_ms, int *out)
{
	struct sockaddr_storage ss;
	socklen_t len = rig_sockaddr(&ss, ip, port);
	int fd = rig_socket(ns, ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	int err = 0;
	socklen_t err_len = sizeof(err);

	*out = -1;
	if (connect(fd, (struct sockaddr *)&ss, len) != 0 && errno != EINPROGRESS) {
		err = errno;
	} else if (poll(&p, 1, timeout_ms) != 1) {
		err = ETIMEDOUT;
	} else {
		assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_len), 0);
	}
	if (err != 0) {
		close(fd);
		return err;
	}
	assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
	*out = fd;
	return 0;
}

/* In ns: one end of the carrier, which says nothing by itself: each packet on it is a tunnel's or a leak.
 * Made before either end is up. */
static inline void
rig_quiet_end(int ns, const char *name, struct om_mac *mac)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_link link;
	struct om_nl nl;
	char path[64];

	if (ns >= 0) {
		rig_ok(om_netns_enter(&scope, ns, &rig_why));
	}
	(void)snprintf(path, sizeof(path), "ipv6/conf/%s/disable_ipv6", name);
	rig_ok(om_sysctl_set(path, "1", &rig_why));
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_get(&nl, name, &link, &rig_why));
	*mac = link.mac;
	om_nl_close(&nl);
	om_netns_leave(&scope);
}

/* ... and knows the other end without asking. */
static inline void
rig_know(int ns, const char *name, const char *other, const struct om_mac *mac)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_cidr ip = rig_cidr(other);
	struct om_link link;
	struct om_nl nl;

	if (ns >= 0) {
		rig_ok(om_netns_enter(&scope, ns, &rig_why));
	}
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_get(&nl, name, &link, &rig_why));
	rig_ok(om_neigh_add(&nl, link.index, &ip.ip, mac, &rig_why));
	om_nl_close(&nl);
	om_netns_leave(&scope);
}

/* In ns: a link gets addresses and goes up. */
static inline void
rig_link_setup(int ns, const char *name, const char *addr, const char *addr6)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_nl nl;
	struct om_link link;

	if (ns >= 0) {
		rig_ok(om_netns_enter(&scope, ns, &rig_why));
	}
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_get(&nl, name, &link, &rig_why));
	rig_ok(om_link_up(&nl, link.index, &rig_why));
	if (addr != NULL) {
		struct om_cidr cidr = rig_cidr(addr);
		rig_ok(om_addr_add(&nl, link.index, &cidr, &rig_why));
	}
	if (addr6 != NULL) {
		struct om_cidr cidr = rig_cidr(addr6);
		rig_ok(om_addr_add(&nl, link.index, &cidr, &rig_why));
	}
	om_nl_close(&nl);
	om_netns_leave(&scope);
}

static inline void
rig_delete_link(const char *name)
{
	struct om_nl nl;

	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_delete(&nl, name, &rig_why));
	om_nl_close(&nl);
}

static inline bool
rig_path_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* --- the requester ---------------------------------------------------------------------------------- */

static inline void
rig_wg_set(const char *peer_public, const char *psk, const char *allowed)
{
	char port[8];
	const char *argv[] = { "/usr/bin/wg",
			       "set",
			       "rqwg",
			       "listen-port",
			       port,
			       "private-key",
			       "/run/wireguard/key",
			       "peer",
			       peer_public,
			       "preshared-key",
			       "/run/wireguard/psk",
			       "allowed-ips",
			       allowed,
			       NULL };

	(void)snprintf(port, sizeof(port), "%d", RIG_REQ_UDP);
	rig_write_file("/run/wireguard/key", rig.req_private);
	rig_write_file("/run/wireguard/psk", psk);
	rig_run(argv, NULL, 0);
}

static inline void
rig_req_start(void)
{
	const char *const argv[] = { "/usr/bin/wireguard-go", "-f", "rqwg", NULL };
	struct om_spawn how = { .argv = argv, .in_fd = -1, .out_fd = -1, .err_fd = -1, .cwd = "/" };
	struct om_netns_scope scope = { .home = -1 };

	rig_ok(om_netns_enter(&scope, rig.req_ns, &rig_why));
	rig_ok(om_spawn_start(&how, &rig.req_go, &rig.req_go_fd, &rig_why));
	om_netns_leave(&scope);
	for (int i = 0; !rig_path_exists("/run/wireguard/rqwg.sock"); i++) {
		assert_true(i < 500);
		assert_false(rig_wait_readable(rig.req_go_fd, 10)); /* it has ended */
	}
	rig_wg_set(rig.job_public, rig.psk, RIG_GUEST "/32," RIG_GUEST6 "/128");
	rig_link_setup(rig.req_ns, "rqwg", RIG_REQ_TUNNEL "/24", RIG_REQ_TUNNEL6 "/64");
}

static inline void
rig_req_stop(void)
{
	if (rig.req_go > 0) {
		(void)kill(rig.req_go, SIGKILL);
		(void)waitpid(rig.req_go, NULL, 0);
		close(rig.req_go_fd);
		rig.req_go = 0;
		(void)unlink("/run/wireguard/rqwg.sock");
	}
}

/* --- the world ---------------------------------------------------------------------------------------- */

/* Returns -1 with a line that says why when the test cannot run here. */
static inline int
rig_enter(void)
{
	if (geteuid() != 0) {
		printf("skip: needs root (network namespaces)\n");
		return -1;
	}
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) {
		printf("skip: unshare: %s\n", strerror(errno));
		return -1;
	}
	(void)mkdir(OM_WG_SOCKET_DIR, 0700);
	if (mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", OM_WG_SOCKET_DIR, "tmpfs", 0, "mode=0700") != 0) {
		printf("skip: mount: %s\n", strerror(errno));
		return -1;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	return 0;
}

static inline int
rig_setup(void **state)
{
	char state_dir[64];
	struct om_nl nl;

	(void)state;
	memset(&rig, 0, sizeof(rig));
	rig_keys(rig.req_private, rig.req_public);
	rig_keys(rig.job_private, rig.job_public);
	rig_run((const char *const[]){ "/usr/bin/wg", "genpsk", NULL }, rig.psk, sizeof(rig.psk));
	rig_ok(om_netns_new(&rig.req_ns, &rig_why));
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_new_veth(&nl, "rq0", "rq1", rig.req_ns, &rig_why));
	om_nl_close(&nl);
	rig_link_setup(-1, "lo", NULL, NULL);
	rig_quiet_end(-1, "rq0", &rig.carrier_mac[0]);
	rig_quiet_end(rig.req_ns, "rq1", &rig.carrier_mac[1]);
	rig_link_setup(-1, "rq0", RIG_HOST_IP, NULL);
	rig_link_setup(rig.req_ns, "rq1", RIG_REQ_IP, NULL);
	rig_know(-1, "rq0", RIG_REQ_IP, &rig.carrier_mac[1]);
	rig_know(rig.req_ns, "rq1", RIG_HOST_IP, &rig.carrier_mac[0]);
	rig_req_start();
	/* An instance of this process's own: two runs at once do not sweep each other's processes. */
	(void)snprintf(state_dir, sizeof(state_dir), "/var/lib/omertad-test-%d", (int)getpid());
	rig_ok(om_jobnet_env_init(&rig.env, state_dir, OM_WG_BACKEND_NONE, &rig_why));
	rig.env.tap_uid = rig.env.tap_gid = 0;
	rig.env.policy.allow_count = 0;
	struct om_cidr net = rig_cidr(RIG_REQ_IP);
	rig_ok(om_endpoint_policy_add(rig.env.policy.allow, &rig.env.policy.allow_count, &net));
	rig.job = om_job_id_new();
	return 0;
}

static inline int
rig_teardown(void **state)
{
	struct om_nl nl;

	(void)state;
	rig_req_stop();
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_delete(&nl, "rq0", &rig_why));
	om_nl_close(&nl);
	close(rig.req_ns);
	return 0;
}

/* The job's settings; allowed is a list with commas. */
static inline void
rig_config(struct om_wg_config *cfg, const char *allowed, bool with_ip6)
{
	struct om_str addresses[] = { OM_STR(RIG_GUEST "/32"), OM_STR(RIG_GUEST6 "/128") };
	struct om_str nets[OM_WG_ALLOWED_MAX];
	struct om_str rest = om_str_of(allowed), piece;
	struct om_wg_config_text text = {
		.private_key = om_str_of(rig.job_private),
		.peer_public_key = om_str_of(rig.req_public),
		.preshared_key = om_str_of(rig.psk),
		.endpoint = OM_STR("10.250.0.2:51820"),
		.addresses = addresses,
		.address_count = with_ip6 ? 2 : 1,
		.allowed_ips = nets,
	};

	while (om_str_next(&rest, ',', &piece)) {
		nets[text.allowed_count++] = piece;
	}
	rig_ok(om_wg_config_parse(&text, cfg, &rig_why));
}

/* --- the guest ---------------------------------------------------------------------------------------- */

/* Opens the tap as the hypervisor would, by name, in the host's namespace. */
static inline int
rig_open_tap(const char *name)
{
	int fd;

	rig_ok(om_tun_open(OM_TUN_TAP, name, &fd, &rig_why));
	assert_int_equal(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK), 0);
	return fd;
}

struct rig_guest {
	int ns;
	int job_tap; /* the fd that qemu would hold */
	int own_tap;
	int stop[2];
	pthread_t pump;
};

/* Copies what one read gives; the virtio header goes along, so checksums and segments stay deferred. */
static inline void
rig_pump_one(int from, int to)
{
	char frame[70000];
	ssize_t n;

	for (int i = 0; i < 64; i++) {
		n = read(from, frame, sizeof(frame));
		if (n <= 0) {
			return;
		}
		(void)!write(to, frame, (size_t)n);
	}
}

static inline void *
rig_pump_main(void *arg)
{
	struct rig_guest *g = arg;
	struct pollfd p[3] = {
		{ .fd = g->stop[0], .events = POLLIN },
		{ .fd = g->job_tap, .events = POLLIN },
		{ .fd = g->own_tap, .events = POLLIN },
	};

	while (poll(p, 3, -1) >= 0 && p[0].revents == 0) {
		if (p[1].revents != 0) {
			rig_pump_one(g->job_tap, g->own_tap);
		}
		if (p[2].revents != 0) {
			rig_pump_one(g->own_tap, g->job_tap);
		}
	}
	return NULL;
}

/* A guest that is set up as info says: static, with the gateway on the link. */
static inline void
rig_guest_start(struct rig_guest *g, const struct om_jobnet_info *info, int job_tap)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_cidr gw = { info->gateway4, 32 }, all = rig_cidr("0.0.0.0/0");
	struct om_cidr all6 = rig_cidr("::/0");
	struct om_nl nl;
	struct om_link link;
	int offload = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

	g->job_tap = job_tap;
	rig_ok(om_netns_new(&g->ns, &rig_why));
	rig_ok(om_netns_enter(&scope, g->ns, &rig_why));
	if (info->guest6.ip.family == 0) {
		rig_ok(om_sysctl_set("ipv6/conf/default/disable_ipv6", "1", &rig_why));
	}
	rig_ok(om_tun_open(OM_TUN_TAP, "eth0", &g->own_tap, &rig_why));
	assert_int_equal(fcntl(g->own_tap, F_SETFL, O_RDWR | O_NONBLOCK), 0);
	rig_ok(om_nl_open(&nl, NETLINK_ROUTE, &rig_why));
	rig_ok(om_link_get(&nl, "eth0", &link, &rig_why));
	rig_ok(om_link_shape(&nl, link.index, &info->guest_mac, info->mtu, &rig_why));
	rig_ok(om_link_up(&nl, link.index, &rig_why));
	if (info->guest4.ip.family == 4) {
		rig_ok(om_addr_add(&nl, link.index, &info->guest4, &rig_why));
		rig_ok(om_route_add(&nl, link.index, &gw, NULL, &rig_why));
		rig_ok(om_route_add(&nl, link.index, &all, &info->gateway4, &rig_why));
	}
	if (info->guest6.ip.family == 6) {
		rig_ok(om_addr_add(&nl, link.index, &info->guest6, &rig_why));
		rig_ok(om_route_add(&nl, link.index, &all6, &info->gateway6, &rig_why));
	}
	om_nl_close(&nl);
	om_netns_leave(&scope);
	(void)ioctl(g->own_tap, TUNSETOFFLOAD, (unsigned long)offload);
	(void)ioctl(g->job_tap, TUNSETOFFLOAD, (unsigned long)offload);
	assert_int_equal(pipe2(g->stop, O_CLOEXEC), 0);
	assert_int_equal(pthread_create(&g->pump, NULL, rig_pump_main, g), 0);
}

static inline void
rig_guest_stop(struct rig_guest *g)
{
	assert_int_equal(write(g->stop[1], "x", 1), 1);
	assert_int_equal(pthread_join(g->pump, NULL), 0);
	close(g->stop[0]);
	close(g->stop[1]);
	close(g->own_tap);
	close(g->job_tap);
	close(g->ns);
}

#endif /* OM_TESTS_SYSTEM_NET_RIG_H */
