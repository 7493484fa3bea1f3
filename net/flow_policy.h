/* SPDX-License-Identifier: ISC */
#ifndef OM_NET_FLOW_POLICY_H
#define OM_NET_FLOW_POLICY_H

/*
 * What a refused packet means.  There is no legitimate traffic outside the tunnel, so the answer is
 * "rogue" but for two cases: a short list of packets that a stock guest kernel sends by itself to
 * link-local addresses (noise), and packets that came from the requester's end (inbound), for
 * which the guest can do nothing.  Plain logic, any thread.
 */
#include "net/nflog.h"

/* The noise list: each bit is one kind of packet, to a link-local or multicast address only. */
#define OM_NOISE_TABLE(X)                                                                  \
	X(OM_NOISE_ND_RS, 0, "nd_rs", "IPv6 router solicitation to ff02::2")               \
	X(OM_NOISE_ND_DAD, 1, "nd_dad",                                                    \
	  "IPv6 duplicate address check, from :: to ff02::1:ff00:0/104")                   \
	X(OM_NOISE_MLD, 2, "mld",                                                          \
	  "IPv6 multicast listener report to ff02::16 or ff02::1:ff00:0/104")              \
	X(OM_NOISE_IGMP, 3, "igmp", "IPv4 multicast membership report to 224.0.0.0/24")    \
	X(OM_NOISE_MDNS, 4, "mdns", "multicast DNS to 224.0.0.251 or ff02::fb, port 5353") \
	X(OM_NOISE_LLMNR, 5, "llmnr", "LLMNR to 224.0.0.252 or ff02::1:3, port 5355")      \
	X(OM_NOISE_DHCP4, 6, "dhcp4", "DHCP request from 0.0.0.0 to 255.255.255.255")      \
	X(OM_NOISE_DHCP6, 7, "dhcp6", "DHCPv6 request to ff02::1:2")

enum om_noise {
#define OM_NOISE_ENUM(name, bit, word, what) name = 1 << (bit),
	OM_NOISE_TABLE(OM_NOISE_ENUM)
#undef OM_NOISE_ENUM
};
#define OM_NOISE_COUNT   8
#define OM_NOISE_DEFAULT (OM_NOISE_ND_RS | OM_NOISE_ND_DAD | OM_NOISE_MLD)

enum om_flow_verdict {
	OM_FLOW_ROGUE, /* ends the job */
	OM_FLOW_NOISE, /* counted */
	OM_FLOW_INBOUND, /* from the requester's side; counted */
};

/* "nd_rs mld" (blanks or commas; "none" or "" is the empty list) to a mask; names the bad word. */
enum om_err om_noise_parse(struct om_str text, uint32_t *mask, struct om_why *why) OM_MUST_CHECK;
/* The word of one bit, NULL if there is none; and what it stands for. */
const char *om_noise_name(uint32_t bit);
const char *om_noise_text(uint32_t bit);

/* The kind of noise that this packet is, whatever the configured list says; 0: none. */
uint32_t om_flow_noise(const struct om_flow_event *ev);

/* The verdict; *label (may be NULL) gets a stable word for the evidence: "arp_spoof", "metadata". */
enum om_flow_verdict om_flow_judge(const struct om_flow_event *ev, uint32_t noise_mask,
				   const char **label);

#endif /* OM_NET_FLOW_POLICY_H */
