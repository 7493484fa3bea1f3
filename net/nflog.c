/* SPDX-License-Identifier: ISC */
/*
 * The socket and the netlink half: from a datagram to struct om_flow_event with raw bytes.  The
 * packet's own headers are net/flow_dissect.c's.
 */
#include "net/nflog.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_arp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "net/netlink.h"

#define NFLOG_MAGIC   0x6f6d6c67u /* "omlg" */
#define NFLOG_RECV    32768 /* one datagram; at 256 bytes a packet the kernel sends far less */
#define NFLOG_RCVBUF  (1 << 20) /* some thousand events between two reads */
#define NFLOG_QTHRESH 1 /* one packet, one datagram: the first refusal is told at once */
#define NFLOG_TIMEOUT 1 /* 1/100 s; the kernel batches for a second otherwise */
#define ETH_HEADER    14

struct om_nflog {
	uint32_t magic;
	struct om_nl nl;
};

static enum om_err
nflog_bind(struct om_nl *nl, uint16_t group, struct om_why *why)
{
	struct nfulnl_msg_config_cmd cmd = { .command = NFULNL_CFG_CMD_BIND };
	struct nfulnl_msg_config_mode mode = { .copy_range = htonl(OM_FLOW_PACKET_MAX),
					       .copy_mode = NFULNL_COPY_PACKET };
	struct nfgenmsg *nfg;
	struct nlmsghdr *nlh;
	void *body;

	nlh = om_nl_begin(nl, (NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG, 0, sizeof(*nfg), &body);
	nfg = body;
	nfg->version = NFNETLINK_V0;
	nfg->res_id = htons(group);
	mnl_attr_put(nlh, NFULA_CFG_CMD, sizeof(cmd), &cmd);
	mnl_attr_put(nlh, NFULA_CFG_MODE, sizeof(mode), &mode);
	mnl_attr_put_u32(nlh, NFULA_CFG_QTHRESH, htonl(NFLOG_QTHRESH));
	mnl_attr_put_u32(nlh, NFULA_CFG_TIMEOUT, htonl(NFLOG_TIMEOUT));
	return om_nl_ack(nl, nlh, why, "bind the NFLOG group");
}

enum om_err
om_nflog_open(uint16_t group, struct om_nflog **out, struct om_why *why)
{
	struct om_nflog *log;
	enum om_err err;
	int size = NFLOG_RCVBUF;
	int fd;

	*out = NULL;
	log = calloc(1, sizeof(*log));
	if (log == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "NFLOG socket: out of memory");
	}
	log->magic = NFLOG_MAGIC;
	err = om_nl_open(&log->nl, NETLINK_NETFILTER, why);
	if (err != OM_OK) {
		goto out;
	}
	fd = mnl_socket_get_fd(log->nl.sock);
	/* Room for a burst; the ordinary size works too, so a refusal is no error. */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	err = nflog_bind(&log->nl, group, why);
	if (err == OM_OK && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
		err = om_why_errno(why, om_err_from_errno(errno), "NFLOG socket");
	}
out:
	if (err != OM_OK) {
		om_nflog_close(log);
		log = NULL;
	}
	*out = log;
	return err;
}

int
om_nflog_fd(const struct om_nflog *log)
{
	return mnl_socket_get_fd(log->nl.sock);
}

void
om_nflog_close(struct om_nflog *log)
{
	if (log == NULL) {
		return;
	}
	OM_ASSERT(log->magic == NFLOG_MAGIC);
	om_nl_close(&log->nl);
	log->magic = 0;
	free(log);
}

/* --- one message --------------------------------------------------------------------------------------- */

/* What the attributes of one message say; the pointers are views into the datagram. */
struct nflog_attrs {
	uint16_t protocol; /* ethertype as the kernel took it; 0: none */
	struct nfulnl_msg_packet_timestamp stamp; /* zero: none */
	const char *prefix;
	struct om_bin link; /* link-layer header */
	struct om_bin payload; /* from the network header on */
	bool is_ethernet;
};

static void
attrs_take(struct nflog_attrs *a, const struct nlattr *attr)
{
	size_t len = mnl_attr_get_payload_len(attr);
	const void *data = mnl_attr_get_payload(attr);
	struct nfulnl_msg_packet_hdr hdr;

	switch (mnl_attr_get_type(attr)) {
	case NFULA_PACKET_HDR:
		/* Attributes are aligned to 4 only: structures are copied out. */
		if (len >= sizeof(hdr)) {
			memcpy(&hdr, data, sizeof(hdr));
			a->protocol = ntohs(hdr.hw_protocol);
		}
		break;
	case NFULA_TIMESTAMP:
		if (len >= sizeof(a->stamp)) {
			memcpy(&a->stamp, data, sizeof(a->stamp));
		}
		break;
	case NFULA_PREFIX:
		a->prefix = len > 0 && memchr(data, '\0', len) != NULL ? data : NULL;
		break;
	case NFULA_HWTYPE:
		a->is_ethernet = len >= 2 && mnl_attr_get_u16(attr) == htons(ARPHRD_ETHER);
		break;
	case NFULA_HWHEADER:
		a->link = (struct om_bin){ data, len };
		break;
	case NFULA_PAYLOAD:
		a->payload = (struct om_bin){ data, len };
		break;
	default:
		break;
	}
}

static struct om_wall
stamp_time(const struct nfulnl_msg_packet_timestamp *stamp)
{
	uint64_t sec = be64toh(stamp->sec);
	uint64_t usec = be64toh(stamp->usec);

	if (sec == 0 || sec > (uint64_t)(INT64_MAX / OM_NS_PER_S - 1) || usec >= 1000000) {
		return om_wall_now();
	}
	return (struct om_wall){ (int64_t)sec * OM_NS_PER_S + (int64_t)usec * 1000 };
}

static void
event_copy(struct om_flow_event *ev, struct om_bin from)
{
	size_t room = OM_FLOW_PACKET_MAX - ev->packet_len;
	size_t n = from.len < room ? from.len : room;

	if (n > 0) {
		memcpy(ev->packet + ev->packet_len, from.ptr, n);
		ev->packet_len = (uint16_t)(ev->packet_len + n);
	}
	ev->wire_len += (uint32_t)from.len;
}

static void
event_fill(struct om_flow_event *ev, const struct nflog_attrs *a)
{
	bool ethernet = a->is_ethernet && a->link.len == ETH_HEADER;

	memset(ev, 0, sizeof(*ev));
	ev->at = stamp_time(&a->stamp);
	(void)snprintf(ev->rule, sizeof(ev->rule), "%s", a->prefix != NULL ? a->prefix : "");
	if (ethernet) {
		event_copy(ev, a->link);
	} else {
		ev->ethertype = a->protocol;
	}
	event_copy(ev, a->payload);
	om_flow_dissect(ev, ethernet);
}

static enum om_err
message_take(const struct nlmsghdr *nlh, struct om_flow_event *events, size_t max, size_t *count)
{
	struct nflog_attrs a = { .prefix = NULL };
	const struct nlattr *attr;

	if (nlh->nlmsg_type != ((NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_PACKET)) {
		return OM_OK; /* the end of a batch, a late acknowledgement */
	}
	if (nlh->nlmsg_len < NLMSG_HDRLEN + sizeof(struct nfgenmsg)) {
		return OM_ERR_CORRUPT;
	}
	if (*count == max) {
		return OM_ERR_FULL;
	}
	OM_NL_EACH(attr, nlh, sizeof(struct nfgenmsg))
	{
		attrs_take(&a, attr);
	}
	event_fill(&events[(*count)++], &a);
	return OM_OK;
}

enum om_err
om_nflog_parse(const void *data, size_t len, struct om_flow_event *events, size_t max,
	       size_t *count)
{
	const struct nlmsghdr *nlh = data;
	enum om_err err = OM_OK;
	int left;

	*count = 0;
	if (len > NFLOG_RECV) {
		return OM_ERR_TOO_BIG;
	}
	left = (int)len;
	while (err == OM_OK && left >= (int)sizeof(*nlh)) {
		/* libmnl compares as int, so a length over 2^31 would pass for a small one. */
		if (nlh->nlmsg_len > (uint32_t)left || !mnl_nlmsg_ok(nlh, left)) {
			return OM_ERR_CORRUPT;
		}
		err = message_take(nlh, events, max, count);
		nlh = mnl_nlmsg_next(nlh, &left);
	}
	/* Bytes that are no message: the kernel does not do that. */
	return err == OM_OK && left > 0 ? OM_ERR_CORRUPT : err;
}

/* --- reading ------------------------------------------------------------------------------------------- */

/* One datagram; *len 0: nothing waits. */
static enum om_err
nflog_recv(struct om_nflog *log, void *data, size_t size, size_t *len, struct om_why *why)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { data, size };
	struct msghdr msg = {
		.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1
	};
	ssize_t n;

	*len = 0;
	do {
		n = recvmsg(om_nflog_fd(log), &msg, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		return OM_OK;
	}
	if (n < 0 && errno == ENOBUFS) {
		return om_why_set(why, OM_ERR_FULL, "NFLOG: the kernel lost events");
	}
	if (n <= 0) {
		return om_why_errno(why, OM_ERR_NET, "NFLOG: read");
	}
	if ((msg.msg_flags & MSG_TRUNC) != 0) {
		return om_why_set(why, OM_ERR_NET, "NFLOG: a datagram was cut");
	}
	if (from.nl_pid != 0) {
		/* The kernel has port 0: somebody here forges evidence. */
		return om_why_set(why, OM_ERR_NET, "NFLOG: a datagram of process %u",
				  (unsigned)from.nl_pid);
	}
	*len = (size_t)n;
	return OM_OK;
}

enum om_err
om_nflog_read(struct om_nflog *log, struct om_flow_event *events, size_t max, size_t *count,
	      struct om_why *why)
{
	char data[NFLOG_RECV] __attribute__((aligned(8)));
	bool lost = false;

	OM_ASSERT(log->magic == NFLOG_MAGIC);
	*count = 0;
	/* QTHRESH 1: a datagram is one event, so there is room for the next while count < max. */
	while (*count < max) {
		size_t len = 0, n = 0;
		enum om_err err;

		err = nflog_recv(log, data, sizeof(data), &len, why);
		if (err == OM_ERR_FULL && !lost) {
			/* Told once, before the events that are still there: they are the evidence. */
			lost = true;
			continue;
		}
		if (err != OM_OK) {
			return err;
		}
		if (len == 0) {
			break;
		}
		err = om_nflog_parse(data, len, events + *count, max - *count, &n);
		*count += n;
		if (err != OM_OK) {
			return om_why_set(why, err == OM_ERR_FULL ? err : OM_ERR_NET,
					  "NFLOG: datagram not understood");
		}
	}
	return lost ? OM_ERR_FULL : OM_OK;
}
