/* SPDX-License-Identifier: ISC */
/* The guest's end: a tap that is made in the host's namespace, and lives in the job's. */
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "net/jobnet_impl.h"
#include "net/link.h"
#include "net/netns.h"

enum om_err
om_jobnet_tap_make(struct om_jobnet *net, const struct om_jobnet_env *env, struct om_why *why)
{
	enum om_err err = OM_ERR_EXISTS;

	for (int i = 0; i < OM_JOBNET_NAME_TRIES && err == OM_ERR_EXISTS; i++) {
		om_jobnet_fresh_name('t', env->instance, net->info.tap);
		err = om_tap_new(net->info.tap, env->tap_uid, env->tap_gid, why);
	}
	net->has_tap = err == OM_OK;
	return err;
}

void
om_jobnet_tap_remove(struct om_jobnet *net)
{
	struct om_nl host = { .sock = NULL };
	struct om_why why = { "" };
	enum om_err err;

	/* Attached, it goes with the namespace. */
	if (!net->has_tap || net->is_attached) {
		return;
	}
	net->has_tap = false;
	err = om_nl_open(&host, NETLINK_ROUTE, &why);
	if (err == OM_OK) {
		err = om_link_delete(&host, net->info.tap, &why);
	}
	if (err != OM_OK) {
		om_warn("net.tap_left", "%s: %s", net->info.tap, why.text);
	}
	om_nl_close(&host);
}

/* One family's way to the guest: the gateway's address, a host route, a neighbour that cannot change. */
static enum om_err
tap_family(const struct om_jobnet *net, struct om_nl *rt, int index, const struct om_cidr *guest,
	   const struct om_cidr *gateway, struct om_why *why)
{
	enum om_err err;

	if (guest->ip.family == 0) {
		return OM_OK;
	}
	err = om_addr_add(rt, index, gateway, why);
	if (err == OM_OK) {
		err = om_route_add(rt, index, guest, NULL, why);
	}
	if (err == OM_OK) {
		err = om_neigh_add(rt, index, &guest->ip, &net->info.guest_mac, why);
	}
	return err;
}

static enum om_err
tap_setup(struct om_jobnet *net, struct om_nl *rt, struct om_why *why)
{
	const struct om_jobnet_info *info = &net->info;
	const struct om_cidr gateway4 = { info->gateway4, 32 };
	const struct om_cidr gateway6 = { info->gateway6, 64 };
	struct om_link link;
	enum om_err err;

	err = om_link_get(rt, info->tap, &link, why);
	if (err == OM_OK) {
		err = om_link_shape(rt, link.index, &net->gateway_mac, info->mtu, why);
	}
	if (err == OM_OK) {
		err = om_jobnet_load_walls(net, om_nft_guest_text, why);
	}
	if (err == OM_OK) {
		err = om_link_up(rt, link.index, why);
	}
	if (err == OM_OK) {
		err = tap_family(net, rt, link.index, &info->guest4, &gateway4, why);
	}
	if (err == OM_OK) {
		err = tap_family(net, rt, link.index, &info->guest6, &gateway6, why);
	}
	return err;
}

enum om_err
om_jobnet_tap_settle(struct om_jobnet *net, struct om_why *why)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_nl rt = { .sock = NULL };
	enum om_err err;

	OM_ASSERT(net->is_attached && net->is_up);
	err = om_netns_enter(&scope, net->ns, why);
	if (err == OM_OK) {
		err = om_nl_open(&rt, NETLINK_ROUTE, why);
	}
	if (err == OM_OK) {
		err = tap_setup(net, &rt, why);
	}
	om_nl_close(&rt);
	om_netns_leave(&scope);
	return err;
}

enum om_err
om_jobnet_attach_tap(struct om_jobnet *net, struct om_why *why)
{
	struct om_nl host = { .sock = NULL };
	struct om_link link;
	enum om_err err;

	if (net->is_attached) {
		return om_why_set(why, OM_ERR_STATE, "%s is attached already", net->info.tap);
	}
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
	return err == OM_OK && net->is_up ? om_jobnet_tap_settle(net, why) : err;
}
