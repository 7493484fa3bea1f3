/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_NFLOG_H
#define OM_NET_NFLOG_H

/*
 * Refused packets as events.  The walls of a job's namespace log every packet that they refuse to an
 * NFLOG group of that namespace; this socket is opened inside it and works from anywhere after that.
 *
 * Everything behind the netlink header is what a hostile guest sent: the parser copies with bounds
 * and follows no length that it has not checked.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/clock.h"
#include "net/addr.h"

#define OM_FLOW_PACKET_MAX 256 /* bytes of a packet that are kept as evidence */
#define OM_FLOW_RULE_MAX   16 /* bytes of a rule's name and the NUL */
#define OM_NFLOG_GROUP     7 /* each namespace has its own groups */

struct om_flow_event {
	struct om_wall at; /* when the kernel saw it; our clock when it did not say */
	char rule[OM_FLOW_RULE_MAX]; /* the wall's rule that refused it: "source", "outside", ... */
	uint16_t ethertype; /* 0x0800 ...; 0 when the packet had no Ethernet header */
	struct om_mac mac_src; /* zero when there was no Ethernet header */
	struct om_mac mac_dst;
	struct om_ip src; /* family 0 when the packet has none, or is cut */
	struct om_ip dst;
	uint8_t proto; /* IP protocol; 0 when not IP */
	bool fragment; /* not the first one: no ports */
	uint16_t sport; /* TCP, UDP, SCTP, UDP-Lite; else 0 */
	uint16_t dport;
	uint8_t icmp_type; /* ICMP and ICMPv6 */
	uint8_t icmp_code;
	uint16_t packet_len; /* bytes in packet[] */
	uint32_t wire_len; /* bytes of the whole packet as far as known, at least packet_len */
	uint8_t packet[OM_FLOW_PACKET_MAX]; /* from the Ethernet header on, if there was one */
};

struct om_nflog; /* opaque */

/*
 * Blocking, one thread: opens the socket in the namespace that the calling thread is in and binds
 * the group.  Gives *out.
 */
enum om_err om_nflog_open(uint16_t group, struct om_nflog **out, struct om_why *why) OM_MUST_CHECK;

/* Any thread.  Nonblocking, level triggered: readable when events wait.  Borrowed until close. */
int om_nflog_fd(const struct om_nflog *log);

/*
 * Owner thread.  Reads what is there, at most max events; *count says how many (0: nothing waits).
 * OM_ERR_FULL: the kernel lost events (ENOBUFS); OM_ERR_NET: the socket failed.  With an error
 * *count is valid too.  After an error nothing is known about the guest: end the job.
 */
enum om_err om_nflog_read(struct om_nflog *log, struct om_flow_event *events, size_t max,
			  size_t *count, struct om_why *why) OM_MUST_CHECK;

/* Owner thread.  NULL is accepted. */
void om_nflog_close(struct om_nflog *log);

/*
 * Any thread.  The parser alone: one datagram of NFLOG messages to events.  Malformed netlink is
 * OM_ERR_CORRUPT; a malformed packet is an event with what could be read.
 */
enum om_err om_nflog_parse(const void *data, size_t len, struct om_flow_event *events, size_t max,
			   size_t *count) OM_MUST_CHECK;

/* Any thread.  Fills the header fields of ev from ev->packet; ethernet says how it begins. */
void om_flow_dissect(struct om_flow_event *ev, bool ethernet);

#define OM_FLOW_TEXT 200
/* Any thread.  One line: "outside udp 10.99.0.2:5353 -> 192.0.2.2:53".  Gives out. */
const char *om_flow_format(const struct om_flow_event *ev, char out[OM_FLOW_TEXT]);

#endif /* OM_NET_NFLOG_H */
