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
#include "base/parse.h"
#include "net/jobnet_impl.h"
#include "net/link.h"
#include "net/netns.h"

#define JOBNET_MAGIC 0x6f6d6a6eu /* "omjn" */
#define RULES_MAX    65536 /* bytes of rules; 64 allowed networks need 8 KiB */

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

void
om_jobnet_fresh_name(char kind, const char *instance, char out[OM_IFNAME_MAX])
{
	uint8_t bytes[4];
	char tag[2 * sizeof(bytes) + 1];

	om_random(bytes, sizeof(bytes));
	om_hex(bytes, sizeof(bytes), tag);
	om_jobnet_name(kind, instance, tag, out);
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
	return om_jobnet_tap_make(net, up->env, up->why);
}

static enum om_err
step_wireguard(struct om_jobnet *net, const struct jobnet_up *up)
{
	enum om_err err = OM_ERR_EXISTS;

	for (int i = 0; i < OM_JOBNET_NAME_TRIES && err == OM_ERR_EXISTS; i++) {
		om_jobnet_fresh_name('w', up->env->instance, net->info.link);
		err = om_wg_new(up->env->backend, up->env->wireguard_go, net->info.link, net->ns,
				OM_WG_MTU_DEFAULT, &net->wg, up->why);
	}
	return err;
}

static void
undo_wireguard(struct om_jobnet *net)
{
	om_wg_free(&net->wg);
}

/* IPv6 is off until a job asks for it.  A kernel without IPv6 has nothing to turn off. */
static enum om_err
ipv6_off(struct om_why *why)
{
	enum om_err err = om_sysctl_set("ipv6/conf/default/disable_ipv6", "1", why);

	if (err == OM_OK) {
		err = om_sysctl_set("ipv6/conf/all/disable_ipv6", "1", why);
	}
	return err == OM_ERR_NOT_FOUND ? OM_OK : err;
}

static enum om_err
ipv6_on(struct om_why *why)
{
	static const char *const list[][2] = {
		{ "ipv6/conf/all/accept_ra", "0" },    { "ipv6/conf/default/accept_ra", "0" },
		{ "ipv6/conf/all/disable_ipv6", "0" }, { "ipv6/conf/default/disable_ipv6", "0" },
		{ "ipv6/conf/all/forwarding", "1" },
	};
	enum om_err err = OM_OK;

	for (size_t i = 0; err == OM_OK && i < OM_COUNT(list); i++) {
		err = om_sysctl_set(list[i][0], list[i][1], why);
	}
	return err;
}

/* Forwarding on, everything that would listen to the guest or the requester off. */
static enum om_err
step_sysctls(struct om_jobnet *net, const struct jobnet_up *up)
{
	static const char *const list[][2] = {
		{ "ipv4/ip_forward", "1" },
		{ "ipv4/conf/all/rp_filter", "1" },
		{ "ipv4/conf/default/rp_filter", "1" },
		{ "ipv4/conf/all/accept_redirects", "0" },
		{ "ipv4/conf/all/send_redirects", "0" },
		{ "ipv4/conf/default/send_redirects", "0" },
		{ "ipv4/conf/all/accept_source_route", "0" },
		{ "ipv4/conf/default/accept_source_route", "0" },
	};
	struct om_netns_scope scope = { .home = -1 };
	enum om_err err = om_netns_enter(&scope, net->ns, up->why);

	for (size_t i = 0; err == OM_OK && i < OM_COUNT(list); i++) {
		err = om_sysctl_set(list[i][0], list[i][1], up->why);
	}
	if (err == OM_OK) {
		err = ipv6_off(up->why);
	}
	om_netns_leave(&scope);
	return err;
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

enum om_err
om_jobnet_load_walls(const struct om_jobnet *net,
		     void (*text)(const struct om_walls *, struct om_buf *), struct om_why *why)
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
	bool has6 = net->info.guest6.ip.family == 6;
	int index = om_wg_index(net->wg);
	enum om_err err;

	err = om_jobnet_load_walls(net, om_nft_inet_text, why);
	if (err == OM_OK && net->info.mtu != OM_WG_MTU_DEFAULT) {
		err = om_link_shape(rt, index, NULL, net->info.mtu, why);
	}
	if (err == OM_OK && has6) {
		err = ipv6_on(why);
	}
	for (size_t i = 0; err == OM_OK && i < net->allowed_count; i++) {
		if (net->allowed[i].ip.family == 4 || has6) {
			err = om_route_add(rt, index, &net->allowed[i], NULL, why);
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

/* The group's socket and the counters' socket, opened inside, used from anywhere. */
static enum om_err
step_sockets(struct om_jobnet *net, const struct jobnet_up *up)
{
	struct om_netns_scope scope = { .home = -1 };
	enum om_err err;

	err = om_netns_enter(&scope, net->ns, up->why);
	if (err == OM_OK) {
		err = om_nflog_open(OM_NFLOG_GROUP, &net->log, up->why);
	}
	if (err == OM_OK) {
		err = om_nl_open(&net->walls, NETLINK_NETFILTER, up->why);
	}
	om_netns_leave(&scope);
	return err;
}

static void
undo_sockets(struct om_jobnet *net)
{
	om_nflog_close(net->log);
	net->log = NULL;
	om_nl_close(&net->walls);
}

static void
undo_nothing(struct om_jobnet *net)
{
	(void)net; /* it goes with the namespace */
}

static enum om_err
step_configure(struct om_jobnet *net, const struct jobnet_up *up)
{
	return om_wg_configure(net->wg, up->spec->wg, up->why);
}

/* Last: from here on packets may come. */
static enum om_err
step_settle(struct om_jobnet *net, const struct jobnet_up *up)
{
	net->is_up = true;
	return net->is_attached ? om_jobnet_tap_settle(net, up->why) : OM_OK;
}

struct jobnet_step {
	const char *name;
	enum om_err (*run)(struct om_jobnet *net, const struct jobnet_up *up);
	void (*undo)(struct om_jobnet *net); /* also of a step that failed half-way */
};

static const struct jobnet_step steps[] = {
	/* without a job */
	{ "namespace", step_ns, undo_ns },
	{ "sysctls", step_sysctls, undo_nothing },
	{ "wireguard", step_wireguard, undo_wireguard },
	{ "tap", step_tap, om_jobnet_tap_remove },
	{ "sockets", step_sockets, undo_sockets },
	/* with it */
	{ "walls", step_walls, undo_nothing },
	{ "configure", step_configure, undo_nothing },
	{ "settle", step_settle, undo_nothing },
};
#define STEPS_RESERVE 5
#define STEPS_ALL     OM_COUNT(steps)

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
	info->mtu = spec->wg->mtu;
	info->dns_count = spec->wg->dns_count;
	memcpy(info->dns, spec->wg->dns, sizeof(info->dns));
	net->rate_kbit = spec->rate_kbit;
	memcpy(net->allowed, spec->wg->allowed, sizeof(net->allowed));
	net->allowed_count = spec->wg->allowed_count;
}

static struct om_jobnet *
jobnet_new(const struct om_jobnet_env *env)
{
	struct om_jobnet *net = calloc(1, sizeof(*net));

	if (net == NULL) {
		return NULL;
	}
	net->magic = JOBNET_MAGIC;
	net->ns = -1;
	net->noise = env->noise;
	net->info.guest_mac = om_mac_random();
	do {
		net->gateway_mac = om_mac_random();
	} while (memcmp(&net->gateway_mac, &net->info.guest_mac, sizeof(net->gateway_mac)) == 0);
	return net;
}

/* Runs the steps up to `end`.  Takes *netp on failure. */
static enum om_err
jobnet_run(struct om_jobnet **netp, size_t end, const struct jobnet_up *up)
{
	struct om_jobnet *net = *netp;
	enum om_err err = OM_OK;

	while (err == OM_OK && net->done < end) {
		err = steps[net->done++].run(net, up);
	}
	if (err != OM_OK && net->wg != NULL && om_wg_has_ended(net->wg)) {
		err = om_why_set(up->why, OM_ERR_NET, "wireguard-go has ended at start");
	}
	if (err != OM_OK) {
		om_debug("net.step_failed", "%s: step %s: %s", net->info.link,
			 steps[net->done - 1].name,
			 up->why != NULL ? up->why->text : om_err_code(err));
		om_jobnet_down(netp);
	}
	return err;
}

enum om_err
om_jobnet_reserve(const struct om_jobnet_env *env, struct om_jobnet **out, struct om_why *why)
{
	struct jobnet_up up = { env, NULL, why };

	*out = jobnet_new(env);
	if (*out == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "the job's network: out of memory");
	}
	return jobnet_run(out, STEPS_RESERVE, &up);
}

enum om_err
om_jobnet_up(struct om_jobnet_env *env, const struct om_jobnet_spec *spec, struct om_jobnet **out,
	     struct om_why *why)
{
	struct jobnet_up up = { env, spec, why };
	struct om_jobnet *net = spec->reserved;
	enum om_err err;

	*out = NULL;
	err = om_wg_config_check(spec->wg, why);
	if (err == OM_OK) {
		err = om_jobnet_env_refresh(env, why);
	}
	if (err == OM_OK) {
		err = om_jobnet_endpoint_check(env, &spec->wg->endpoint, why);
	}
	if (err == OM_OK && net != NULL && net->is_up) {
		err = om_why_set(why, OM_ERR_STATE, "%s is another job's", net->info.link);
	}
	if (err == OM_OK && net == NULL) {
		err = om_jobnet_reserve(env, &net, why);
	}
	if (err != OM_OK) {
		om_jobnet_down(&net);
		return err;
	}
	info_fill(net, spec);
	err = jobnet_run(&net, STEPS_ALL, &up);
	*out = net;
	return err;
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
		} else if (strcmp(c->name, "to_tunnel") == 0) {
			out->sent = c->packets;
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
	err = om_nft_counters(&net->walls, out->counters, OM_JOBNET_COUNTERS_MAX,
			      &out->counter_count, why);
	if (err != OM_OK) {
		return err;
	}
	stats_sum(out);
	out->has_walls = true;
	err = om_wg_get_stats(net->wg, &wg, why);
	if (err != OM_OK) {
		return err;
	}
	out->has_link = true;
	out->tx_bytes = wg.tx_bytes;
	out->rx_bytes = wg.rx_bytes;
	out->handshake_at = wg.handshake_at;
	out->endpoint = wg.endpoint;
	return OM_OK;
}
