/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_NETLINK_H
#define OM_NET_NETLINK_H

/*
 * One request, one answer, over libmnl; the kernel's own words (extended ack) end up in why.
 * A socket belongs to the network namespace in which it was opened.  One thread at a time.
 */
#include <libmnl/libmnl.h>
#include "base/err.h"

#define OM_NL_BUF 8192 /* bytes of one request; dumps are read in pieces of OM_NL_RECV */

struct om_nl {
	struct mnl_socket *sock;
	unsigned seq;
	unsigned portid;
	char buf[OM_NL_BUF] __attribute__((aligned(8)));
};

/* Blocking calls.  bus is NETLINK_ROUTE, NETLINK_GENERIC or NETLINK_NETFILTER. */
enum om_err om_nl_open(struct om_nl *nl, int bus, struct om_why *why) OM_MUST_CHECK;
void om_nl_close(struct om_nl *nl); /* a zeroed or closed one is accepted */

/*
 * Begins a request in nl->buf: header, and extra bytes of family header (zeroed) in *body.
 * Attributes are then added with mnl_attr_put_*.
 */
struct nlmsghdr *om_nl_begin(struct om_nl *nl, uint16_t type, uint16_t flags, size_t extra,
			     void **body);

/*
 * Sends nlh (with NLM_F_ACK) and waits for the answer.  `what` opens the reason: "create link omw1".
 * Kernel errors keep their meaning: EEXIST, ENOENT/ENODEV, EPERM, ENOMEM, ... by om_err_from_errno.
 */
enum om_err om_nl_ack(struct om_nl *nl, struct nlmsghdr *nlh, struct om_why *why,
		      const char *what) OM_MUST_CHECK;

/* Takes one answer; an error ends the call and is returned. */
typedef enum om_err (*om_nl_fn)(const struct nlmsghdr *nlh, void *arg);
/* Sends nlh for one object: cb gets it.  OM_ERR_NOT_FOUND and the like as om_nl_ack. */
enum om_err om_nl_query(struct om_nl *nl, struct nlmsghdr *nlh, om_nl_fn cb, void *arg,
			struct om_why *why, const char *what) OM_MUST_CHECK;
/* Sends nlh as a dump: cb gets each object. */
enum om_err om_nl_dump(struct om_nl *nl, struct nlmsghdr *nlh, om_nl_fn cb, void *arg,
		       struct om_why *why, const char *what) OM_MUST_CHECK;

/* libmnl's loops over attributes, without their implicit conversion of a pointer difference. */
#define OM_NL_EACH(attr, nlh, skip)                                                    \
	for ((attr) = mnl_nlmsg_get_payload_offset((nlh), (skip));                     \
	     mnl_attr_ok((attr), (int)((const char *)mnl_nlmsg_get_payload_tail(nlh) - \
				       (const char *)(attr)));                         \
	     (attr) = mnl_attr_next(attr))
#define OM_NL_EACH_NESTED(attr, nest)                                                           \
	for ((attr) = mnl_attr_get_payload(nest);                                               \
	     mnl_attr_ok((attr), (int)((const char *)mnl_attr_get_payload(nest) +               \
				       mnl_attr_get_payload_len(nest) - (const char *)(attr))); \
	     (attr) = mnl_attr_next(attr))

#endif /* OM_NET_NETLINK_H */
