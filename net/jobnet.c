/* SPDX-License-Identifier: ISC */
/*
 * One job's network, as an ordered list of steps, each with its undo.
 *
 * 1. A step that fails leaves nothing of its own; the undo of the steps before it runs in reverse.
 *    If broken: links and processes stay behind for the sweep.
 * 2. The tap is never up before the guest's wall stands.  If broken: frames pass unseen.
 * 3. No copy of a key is kept: keys go from the caller's config to WireGuard.
 */
#include "net/jobnet.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "net/jobnet_impl.h"
#include "net/link.h"
#include "net/netns.h"
#include "net/nftables.h"
#include "net/wireguard.h"

#define JOBNET_MAGIC 0x6f6d6a6eu /* "omjn" */
#define NAME_TRIES   8 /* 32 random bits: a second try is rare */
#define RULES_MAX    65536 /* bytes of rules; 64 allowed networks need 8 KiB */

struct om_jobnet {
	uint32_t magic;
	struct om_jobnet_info info;
	struct om_mac gateway_mac; /* the tap's own */
	struct om_cidr allowed[OM_WG_ALLOWED_MAX];
	size_t allowed_count;
	uint32_t noise;
	uint64_t rate_kbit;
	int ns;
	bool has_tap; /* the tap exists and is ours to remove */
	bool is_attached;
	struct om_wg *wg;
	struct om_nflog *log;
	struct om_nl walls; /* NETLINK_NETFILTER in the namespace, for the counters */
	size_t done; /* steps */
};

/* What only the way up needs. */
struct jobnet_up {
	const struct om_jobnet_env *env;
	const struct om_jobnet_spec *spec;
	struct om_why *why;
};

/* --- names ----------------------------------------------------------------------------------------------- */

/* "om" + kind + instance (4) + tag (8): 15 bytes, as long as a name may be. */
void
om_jobnet_name(char kind, const char *instance, const char *tag, char out[OM_IFNAME_MAX])
{
	(void)snprintf(out, OM_IFNAME_MAX, "om%c%.4s%.8s", kind, instance, tag);
}

static void
random_tag(char tag[9])
{
	uint8_t bytes[4];

	om_random(bytes, sizeof(bytes));
	(void)snprintf(tag, 9, "%02x%02x%02x%02x", bytes[0], bytes[1], bytes[2], bytes[3]);
}

/* --- steps ----------------------------------------------------------------------------------------------- */

static enum om_err
step_ns(struct om_jobnet *net, const struct jobnet_up *up)
{
	enum om_err err = om_netns_new(&net->ns, up->why);

	if (err == OM_OK) {
		om_netns_text(net->ns, net->info.netns, sizeof(net->info.netns));
	}
	return err;
}

static void
undo_ns(struct om_jobnet *net)
{
	/* The last descriptor: the kernel takes links, rules and routes apart. */
	if (net->ns >= 0) {
		(void)close(net->ns);
		net->ns = -1;
	}
}

static enum om_err
step_tap(struct om_jobnet *net, const struct jobnet_up *up)
{
	enum om_err err;

	if (up->spec->tap != NULL) {
		(void)snprintf(net->info.tap, sizeof(net->info.tap), "%s", up->spec->tap);
		net->has_tap = true;
		return OM_OK;
	}
	err = om_jobnet_tap_new(up->env, net->info.tap, up->why);
	net->has_tap = err == OM_OK;
	return err;
}

static void
undo_tap(struct om_jobnet *net)
{
	/* Attached, it goes with the namespace. */
	if (net->has_tap && !net->is_attached) {
		om_jobnet_tap_free(net->info.tap);
	}
	net->has_tap = false;
}

static enum om_err
step_wireguard(struct om_jobnet *net, const struct jobnet_up *up)
{
	enum om_err err = OM_ERR_EXISTS;

	for (int i = 0; i < NAME_TRIES && err == OM_ERR_EXISTS; i++) {
		char tag[9];

		random_tag(tag);
		om_jobnet_name('w', up->env->instance, tag, net->info.link);
		err = om_wg_new(up->env->backend, up->env->wireguard_go, net->info.link, net->ns,
				net->info.mtu, &net->wg, up->why);
	}
	return err;
}

static void
undo_wireguard(struct om_jobnet *net)
{
	om_wg_free(&net->wg);
}

/* Forwarding on, everything that would listen to the guest or the requester off. */
static enum om_err
ns_sysctls(const struct om_jobnet *net, struct om_why *why)
{
	bool has6 = net->info.guest6.ip.family == 6;
	const struct {
		const char *path;
		const char *value;
		bool want;
	} list[] = {
		{ "ipv4/ip_forward", "1", true },
		{ "ipv4/conf/all/rp_filter", "1", true },
		{ "ipv4/conf/default/rp_filter", "1", true },
		{ "ipv4/conf/all/accept_redirects", "0", true },
		{ "ipv4/conf/all/send_redirects", "0", true },
		{ "ipv4/conf/default/send_redirects", "0", true },
		{ "ipv4/conf/all/accept_source_route", "0", true },
		{ "ipv4/conf/default/accept_source_route", "0", true },
		{ "ipv6/conf/all/disable_ipv6", "1", !has6 },
		{ "ipv6/conf/default/disable_ipv6", "1", !has6 },
		{ "ipv6/conf/all/forwarding", "1", has6 },
		{ "ipv6/conf/default/forwarding", "1", has6 },
		{ "ipv6/conf/default/accept_ra", "0", has6 },
		{ "ipv6/conf/default/addr_gen_mode", "1", has6 },
	};

	for (size_t i = 0; i < OM_COUNT(list); i++) {
		enum om_err err =
		    list[i].want ? om_sysctl_set(list[i].path, list[i].value, why) : OM_OK;

		/* A kernel without IPv6 has nothing to turn off. */
		if (err != OM_OK && !(err == OM_ERR_NOT_FOUND && !has6 && i >= 8)) {
			return err;
		}
	}
	return OM_OK;
}

static void
walls_of(const struct om_jobnet *net, struct om_walls *walls)
{
	*walls = (struct om_walls){
		.tap = net->info.tap,
		.link = net->info.link,
		.guest_mac = net->info.guest_mac,
		.gateway_mac = net->gateway_mac,
		.guest4 = net->info.guest4.ip,
		.guest6 = net->info.guest6.ip,
		.allowed = net->allowed,
		.allowed_count = net->allowed_count,
		.noise = net->noise,
		.rate_kbit = net->rate_kbit,
		.group = OM_NFLOG_GROUP,
	};
}

static enum om_err
load_walls(const struct om_jobnet *net, void (*text)(const struct om_walls *, struct om_buf *),
	   struct om_why *why)
{
	struct om_buf rules = { .max = RULES_MAX };
	struct om_walls walls;
	const char *cstr;
	enum om_err err;

	walls_of(net, &walls);
	text(&walls, &rules);
	cstr = om_buf_cstr(&rules);
	if (cstr == NULL) {
		err = om_why_set(why, OM_ERR_NOMEM, "rules: out of memory");
	} else {
		err = om_nft_load(cstr, why);
	}
	om_buf_fini(&rules);
	return err;
}

/* Walls before routes: there is no moment in which the namespace forwards without rules. */
static enum om_err
ns_fill(struct om_jobnet *net, struct om_nl *rt, struct om_why *why)
{
	enum om_err err;

	err = load_walls(net, om_nft_inet_text, why);
	if (err == OM_OK) {
		err = om_nflog_open(OM_NFLOG_GROUP, &net->log, why);
	}
	if (err == OM_OK) {
		err = om_nl_open(&net->walls, NETLINK_NETFILTER, why);
	}
	for (size_t i = 0; err == OM_OK && i < net->allowed_count; i++) {
		/* IPv6 routes exist only where IPv6 does. */
		if (net->allowed[i].ip.family == 4 || net->info.guest6.ip.family == 6) {
			err = om_route_add(rt, om_wg_index(net->wg), &net->allowed[i], NULL, why);
			err = err == OM_ERR_EXISTS ? OM_OK : err; /* listed twice */
		}
	}
	return err;
}

static enum om_err
step_walls(struct om_jobnet *net, const struct jobnet_up *up)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_nl rt = { .sock = NULL };
	enum om_err err;

	err = om_netns_enter(&scope, net->ns, up->why);
	if (err == OM_OK) {
		err = om_nl_open(&rt, NETLINK_ROUTE, up->why);
	}
	if (err == OM_OK) {
		err = ns_fill(net, &rt, up->why);
	}
	om_nl_close(&rt);
	om_netns_leave(&scope);
	return err;
}

static void
undo_walls(struct om_jobnet *net)
{
	om_nflog_close(net->log);
	net->log = NULL;
	om_nl_close(&net->walls);
}

/* Before the link is made: `default` values are taken over by what is made later. */
static enum om_err
step_sysctls(struct om_jobnet *net, const struct jobnet_up *up)
{
	struct om_netns_scope scope = { .home = -1 };
	enum om_err err = om_netns_enter(&scope, net->ns, up->why);

	if (err == OM_OK) {
		err = ns_sysctls(net, up->why);
	}
	om_netns_leave(&scope);
	return err;
}

static void
undo_nothing(struct om_jobnet *net)
{
	(void)net; /* it goes with the namespace */
}

/* Last: from here on packets may come. */
static enum om_err
step_configure(struct om_jobnet *net, const struct jobnet_up *up)
{
	return om_wg_configure(net->wg, up->spec->wg, up->why);
}

struct jobnet_step {
	const char *name;
	enum om_err (*run)(struct om_jobnet *net, const struct jobnet_up *up);
	void (*undo)(struct om_jobnet *net); /* also of a step that failed half-way */
};

static const struct jobnet_step steps[] = {
	{ "namespace", step_ns, undo_ns },
	{ "sysctls", step_sysctls, undo_nothing },
	{ "wireguard", step_wireguard, undo_wireguard },
	{ "tap", step_tap, undo_tap },
	{ "walls", step_walls, undo_walls },
	{ "configure", step_configure, undo_nothing },
};

/* --- up and down ------------------------------------------------------------------------------------------ */

static void
info_fill(struct om_jobnet *net, const struct om_jobnet_spec *spec)
{
	const struct om_ip *ip4 = om_wg_config_address(spec->wg, 4);
	const struct om_ip *ip6 = om_wg_config_address(spec->wg, 6);
	struct om_jobnet_info *info = &net->info;

	if (ip4 != NULL) {
		info->guest4 = (struct om_cidr){ *ip4, 32 };
		OM_ASSERT(om_ip_parse(OM_STR(OM_JOBNET_GATEWAY4), &info->gateway4) == OM_OK);
	}
	if (ip6 != NULL) {
		info->guest6 = (struct om_cidr){ *ip6, 128 };
		OM_ASSERT(om_ip_parse(OM_STR(OM_JOBNET_GATEWAY6), &info->gateway6) == OM_OK);
	}
	info->guest_mac = spec->mac != NULL ? *spec->mac : om_mac_random();
	do {
		net->gateway_mac = om_mac_random();
	} while (memcmp(&net->gateway_mac, &info->guest_mac, sizeof(net->gateway_mac)) == 0);
	info->mtu = spec->wg->mtu;
	info->dns_count = spec->wg->dns_count;
	memcpy(info->dns, spec->wg->dns, sizeof(info->dns));
}

static struct om_jobnet *
jobnet_new(const struct om_jobnet_env *env, const struct om_jobnet_spec *spec)
{
	struct om_jobnet *net = calloc(1, sizeof(*net));

	if (net == NULL) {
		return NULL;
	}
	net->magic = JOBNET_MAGIC;
	net->ns = -1;
	net->noise = env->noise;
	net->rate_kbit = spec->rate_kbit;
	memcpy(net->allowed, spec->wg->allowed, sizeof(net->allowed));
	net->allowed_count = spec->wg->allowed_count;
	info_fill(net, spec);
	return net;
}

enum om_err
om_jobnet_up(const struct om_jobnet_env *env, const struct om_jobnet_spec *spec,
	     struct om_jobnet **out, struct om_why *why)
{
	struct jobnet_up up = { env, spec, why };
	struct om_jobnet *net;
	enum om_err err;

	*out = NULL;
	err = om_wg_config_check(spec->wg, why);
	if (err == OM_OK) {
		err = om_endpoint_check(&env->policy, &spec->wg->endpoint, why);
	}
	if (err != OM_OK) {
		return err;
	}
	net = jobnet_new(env, spec);
	if (net == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "the job's network: out of memory");
	}
	while (err == OM_OK && net->done < OM_COUNT(steps)) {
		err = steps[net->done++].run(net, &up);
	}
	if (err != OM_OK) {
		om_debug("net.up_failed", "%s: step %s: %s", spec->job->text,
			 steps[net->done - 1].name, why != NULL ? why->text : om_err_code(err));
		om_jobnet_down(&net);
		return err;
	}
	*out = net;
	return OM_OK;
}

void
om_jobnet_down(struct om_jobnet **netp)
{
	struct om_jobnet *net = *netp;

	*netp = NULL;
	if (net == NULL) {
		return;
	}
	OM_ASSERT(net->magic == JOBNET_MAGIC);
	while (net->done > 0) {
		steps[--net->done].undo(net);
	}
	net->magic = 0;
	free(net);
}

/* --- the tap ------------------------------------------------------------------------------------------------ */

/* In the namespace: shape, walls, up, addresses.  Up comes after the walls (invariant 2). */
static enum om_err
tap_settle(struct om_jobnet *net, struct om_nl *rt, struct om_why *why)
{
	const struct om_jobnet_info *info = &net->info;
	const struct {
		const struct om_ip *guest;
		struct om_cidr gateway;
	} families[] = {
		{ &info->guest4.ip, { info->gateway4, 32 } },
		{ &info->guest6.ip, { info->gateway6, 64 } },
	};
	struct om_link link;
	enum om_err err;

	err = om_link_get(rt, info->tap, &link, why);
	if (err == OM_OK) {
		err = om_link_shape(rt, link.index, &net->gateway_mac, info->mtu, why);
	}
	if (err == OM_OK) {
		err = load_walls(net, om_nft_guest_text, why);
	}
	if (err == OM_OK) {
		err = om_link_up(rt, link.index, why);
	}
	for (size_t i = 0; err == OM_OK && i < OM_COUNT(families); i++) {
		const struct om_ip *guest = families[i].guest;

		if (guest->family == 0) {
			continue;
		}
		err = om_addr_add(rt, link.index, &families[i].gateway, why);
		if (err == OM_OK) {
			struct om_cidr host = { *guest, guest->family == 4 ? 32 : 128 };

			err = om_route_add(rt, link.index, &host, NULL, why);
		}
		if (err == OM_OK) {
			err = om_neigh_add(rt, link.index, guest, &info->guest_mac, why);
		}
	}
	return err;
}

static enum om_err
tap_move(struct om_jobnet *net, struct om_why *why)
{
	struct om_nl host = { .sock = NULL };
	struct om_link link;
	enum om_err err;

	err = om_nl_open(&host, NETLINK_ROUTE, why);
	if (err == OM_OK) {
		err = om_link_get(&host, net->info.tap, &link, why);
	}
	if (err == OM_OK && strcmp(link.kind, "tun") != 0) {
		err = om_why_set(why, OM_ERR_STATE, "%s is no tap", net->info.tap);
	}
	if (err == OM_OK) {
		err = om_link_move(&host, link.index, net->ns, why);
	}
	net->is_attached = err == OM_OK;
	om_nl_close(&host);
	return err;
}

enum om_err
om_jobnet_attach_tap(struct om_jobnet *net, struct om_why *why)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_nl rt = { .sock = NULL };
	enum om_err err;

	OM_ASSERT(net->magic == JOBNET_MAGIC);
	if (net->is_attached) {
		return om_why_set(why, OM_ERR_STATE, "%s is attached already", net->info.tap);
	}
	err = tap_move(net, why);
	if (err == OM_OK) {
		err = om_netns_enter(&scope, net->ns, why);
	}
	if (err == OM_OK) {
		err = om_nl_open(&rt, NETLINK_ROUTE, why);
	}
	if (err == OM_OK) {
		err = tap_settle(net, &rt, why);
	}
	om_nl_close(&rt);
	om_netns_leave(&scope);
	return err;
}

enum om_err
om_jobnet_tap_new(const struct om_jobnet_env *env, char out[OM_IFNAME_MAX], struct om_why *why)
{
	enum om_err err = OM_ERR_EXISTS;
	char tag[9];

	for (int i = 0; i < NAME_TRIES && err == OM_ERR_EXISTS; i++) {
		random_tag(tag);
		om_jobnet_name('t', env->instance, tag, out);
		err = om_tap_new(out, env->tap_uid, env->tap_gid, why);
	}
	return err;
}

void
om_jobnet_tap_free(const char *tap)
{
	struct om_nl host = { .sock = NULL };
	struct om_why why = { "" };
	enum om_err err;

	err = om_nl_open(&host, NETLINK_ROUTE, &why);
	if (err == OM_OK) {
		err = om_link_delete(&host, tap, &why);
	}
	if (err != OM_OK) {
		om_warn("net.tap_left", "%s: %s", tap, why.text);
	}
	om_nl_close(&host);
}

/* --- looking -------------------------------------------------------------------------------------------------- */

const struct om_jobnet_info *
om_jobnet_info(const struct om_jobnet *net)
{
	return &net->info;
}

struct om_nflog *
om_jobnet_take_nflog(struct om_jobnet *net)
{
	struct om_nflog *log = net->log;

	net->log = NULL;
	return log;
}

int
om_jobnet_pidfd(const struct om_jobnet *net)
{
	return om_wg_pidfd(net->wg);
}

static void
stats_sum(struct om_jobnet_stats *out)
{
	for (size_t i = 0; i < out->counter_count; i++) {
		const struct om_jobnet_counter *c = &out->counters[i];

		if (om_nft_is_refusal(c->name)) {
			out->refused += c->packets;
		} else if (strcmp(c->name, "noise") == 0) {
			out->noise += c->packets;
		} else if (strcmp(c->name, "inbound") == 0) {
			out->inbound += c->packets;
		}
	}
}

enum om_err
om_jobnet_stats(struct om_jobnet *net, struct om_jobnet_stats *out, struct om_why *why)
{
	struct om_wg_stats wg;
	enum om_err err;

	OM_ASSERT(net->magic == JOBNET_MAGIC);
	memset(out, 0, sizeof(*out));
	out->handshake_age_ms = -1;
	err = om_nft_counters(&net->walls, out->counters, OM_JOBNET_COUNTERS_MAX,
			      &out->counter_count, why);
	if (err != OM_OK) {
		return err;
	}
	stats_sum(out);
	err = om_wg_get_stats(net->wg, &wg, why);
	if (err != OM_OK) {
		return err;
	}
	out->tx_bytes = wg.tx_bytes;
	out->rx_bytes = wg.rx_bytes;
	out->handshake_at = wg.handshake_at;
	if (wg.handshake_at.ns != 0) {
		int64_t age = om_wall_now().ns - wg.handshake_at.ns;

		/* A wall clock that was set back must not make an age negative: -1 means none. */
		out->handshake_age_ms = age > 0 ? age / OM_NS_PER_MS : 0;
	}
	return OM_OK;
}
