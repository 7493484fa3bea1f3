/* SPDX-License-Identifier: ISC */
#include "net/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/secret.h"

#define NL_RECV      32768 /* libmnl's advice for dumps */
#define NL_TIMEOUT_S 5 /* the kernel answers at once; only our own bug makes us wait */

static enum om_err
nl_options(struct om_nl *nl)
{
	struct timeval limit = { .tv_sec = NL_TIMEOUT_S };
	int on = 1;

	/* Extended acks carry the reason in words; without them errors still work. */
	(void)mnl_socket_setsockopt(nl->sock, NETLINK_EXT_ACK, &on, sizeof(on));
	(void)mnl_socket_setsockopt(nl->sock, NETLINK_CAP_ACK, &on, sizeof(on));
	if (setsockopt(mnl_socket_get_fd(nl->sock), SOL_SOCKET, SO_RCVTIMEO, &limit,
		       sizeof(limit)) != 0) {
		return om_err_from_errno(errno);
	}
	return mnl_socket_bind(nl->sock, 0, MNL_SOCKET_AUTOPID) == 0 ? OM_OK
								     : om_err_from_errno(errno);
}

enum om_err
om_nl_open(struct om_nl *nl, int bus, struct om_why *why)
{
	enum om_err err;

	nl->seq = 0;
	nl->sock = mnl_socket_open2(bus, SOCK_CLOEXEC);
	if (nl->sock == NULL) {
		return om_why_errno(why, om_err_from_errno(errno), "netlink socket (bus %d)", bus);
	}
	err = nl_options(nl);
	if (err != OM_OK) {
		err = om_why_errno(why, err, "netlink socket (bus %d)", bus);
		om_nl_close(nl);
		return err;
	}
	nl->portid = mnl_socket_get_portid(nl->sock);
	return OM_OK;
}

void
om_nl_close(struct om_nl *nl)
{
	if (nl->sock != NULL) {
		(void)mnl_socket_close(nl->sock);
		nl->sock = NULL;
		om_secret_wipe(nl->buf, sizeof(nl->buf));
	}
}

struct nlmsghdr *
om_nl_begin(struct om_nl *nl, uint16_t type, uint16_t flags, size_t extra, void **body)
{
	struct nlmsghdr *nlh;

	/* Requests may hold keys: nothing of an earlier one stays behind in a later one. */
	memset(nl->buf, 0, sizeof(nl->buf));
	nlh = mnl_nlmsg_put_header(nl->buf);
	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	nlh->nlmsg_seq = ++nl->seq;
	*body = mnl_nlmsg_put_extra_header(nlh, extra);
	return nlh;
}

/* The kernel's text from the attributes behind an error, "" if there is none. */
static const char *
nl_ext_text(const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);
	size_t skip = sizeof(*e);
	const struct nlattr *attr;

	if ((nlh->nlmsg_flags & NLM_F_ACK_TLVS) == 0) {
		return "";
	}
	if ((nlh->nlmsg_flags & NLM_F_CAPPED) == 0) {
		skip += mnl_nlmsg_get_payload_len(nlh) > sizeof(*e)
			    ? e->msg.nlmsg_len - sizeof(struct nlmsghdr)
			    : 0;
	}
	OM_NL_EACH(attr, nlh, skip)
	{
		if (mnl_attr_get_type(attr) == NLMSGERR_ATTR_MSG &&
		    mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0) {
			return mnl_attr_get_str(attr);
		}
	}
	return "";
}

static enum om_err
nl_error(const struct nlmsghdr *nlh, struct om_why *why, const char *what)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);
	const char *text;
	int errnum;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(*e)) {
		return om_why_set(why, OM_ERR_NET, "%s: short answer of the kernel", what);
	}
	if (e->error == 0) {
		return OM_OK;
	}
	errnum = e->error < 0 ? -e->error : e->error;
	text = nl_ext_text(nlh);
	return om_why_set(why, om_err_from_errno(errnum), "%s: %s%s%s", what, strerror(errnum),
			  text[0] != '\0' ? ": " : "", text);
}

/* One datagram.  *done when the answer is complete. */
static enum om_err
nl_datagram(struct om_nl *nl, const void *data, int len, om_nl_fn cb, void *arg, bool *done,
	    struct om_why *why, const char *what)
{
	for (const struct nlmsghdr *nlh = data; mnl_nlmsg_ok(nlh, len);
	     nlh = mnl_nlmsg_next(nlh, &len)) {
		enum om_err err;

		if (!mnl_nlmsg_seq_ok(nlh, nl->seq) || !mnl_nlmsg_portid_ok(nlh, nl->portid)) {
			continue;
		}
		if (nlh->nlmsg_type == NLMSG_ERROR) {
			*done = true;
			return nl_error(nlh, why, what);
		}
		if (nlh->nlmsg_type == NLMSG_DONE) {
			*done = true;
			return OM_OK;
		}
		err = cb != NULL ? cb(nlh, arg) : OM_OK;
		if (err != OM_OK) {
			return om_why_set(why, err, "%s: unexpected answer of the kernel", what);
		}
	}
	return OM_OK;
}

static enum om_err
nl_talk(struct om_nl *nl, struct nlmsghdr *nlh, om_nl_fn cb, void *arg, struct om_why *why,
	const char *what)
{
	char data[NL_RECV] __attribute__((aligned(8)));
	bool done = false;
	enum om_err err = OM_OK;
	size_t most = 0;

	OM_ASSERT(nlh->nlmsg_len <= OM_NL_BUF);
	if (mnl_socket_sendto(nl->sock, nlh, nlh->nlmsg_len) < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "%s: send", what);
	}
	while (!done && err == OM_OK) {
		ssize_t len = mnl_socket_recvfrom(nl->sock, data, sizeof(data));

		if (len < 0 && errno == EINTR) {
			continue;
		}
		if (len <= 0) {
			err = om_why_errno(why, OM_ERR_NET, "%s: no answer", what);
			break;
		}
		most = (size_t)len > most ? (size_t)len : most;
		err = nl_datagram(nl, data, (int)len, cb, arg, &done, why, what);
	}
	om_secret_wipe(data, most); /* WireGuard's answers hold the private key */
	return err;
}

enum om_err
om_nl_ack(struct om_nl *nl, struct nlmsghdr *nlh, struct om_why *why, const char *what)
{
	nlh->nlmsg_flags |= NLM_F_ACK;
	return nl_talk(nl, nlh, NULL, NULL, why, what);
}

enum om_err
om_nl_query(struct om_nl *nl, struct nlmsghdr *nlh, om_nl_fn cb, void *arg, struct om_why *why,
	    const char *what)
{
	/* The acknowledgement behind the object ends the answer. */
	nlh->nlmsg_flags |= NLM_F_ACK;
	return nl_talk(nl, nlh, cb, arg, why, what);
}

enum om_err
om_nl_dump(struct om_nl *nl, struct nlmsghdr *nlh, om_nl_fn cb, void *arg, struct om_why *why,
	   const char *what)
{
	nlh->nlmsg_flags |= NLM_F_DUMP;
	return nl_talk(nl, nlh, cb, arg, why, what);
}
