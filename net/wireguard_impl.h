/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_WIREGUARD_IMPL_H
#define OM_NET_WIREGUARD_IMPL_H

#include "net/netlink.h"
#include "net/wireguard.h"

/* The kernel's back end; nl is a NETLINK_GENERIC socket of the link's namespace. */
enum om_err om_wg_genl_family(struct om_nl *nl, uint16_t *family, struct om_why *why) OM_MUST_CHECK;
/* Builds the request in nl->buf. */
struct nlmsghdr *om_wg_genl_encode(struct om_nl *nl, uint16_t family, const char *name,
				   const struct om_wg_config *cfg);
enum om_err om_wg_genl_set(struct om_nl *nl, uint16_t family, const char *name,
			   const struct om_wg_config *cfg, struct om_why *why) OM_MUST_CHECK;
enum om_err om_wg_genl_stats(struct om_nl *nl, uint16_t family, const char *name,
			     struct om_wg_stats *out, struct om_why *why) OM_MUST_CHECK;
/* One message of the answer to "get device": an om_nl_fn over a struct om_wg_stats. */
enum om_err om_wg_genl_on_device(const struct nlmsghdr *nlh, void *arg);

#endif /* OM_NET_WIREGUARD_IMPL_H */
