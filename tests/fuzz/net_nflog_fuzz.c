/* SPDX-License-Identifier: ISC */
/*
 * libFuzzer target: NFLOG datagrams and the packets in them, as a hostile guest shapes them.  The
 * first byte chooses: a whole datagram, or a packet behind a given ethertype.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "net/flow_policy.h"

#define EVENTS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
look_at(const struct om_flow_event *ev)
{
	char text[OM_FLOW_TEXT];
	const char *label = NULL;
	enum om_flow_verdict none, all;

	OM_ASSERT(ev->packet_len <= OM_FLOW_PACKET_MAX);
	OM_ASSERT(ev->wire_len >= ev->packet_len);
	OM_ASSERT(strlen(om_flow_format(ev, text)) < OM_FLOW_TEXT);
	none = om_flow_judge(ev, 0, &label);
	OM_ASSERT(label != NULL);
	all = om_flow_judge(ev, UINT32_MAX, &label);
	OM_ASSERT(label != NULL);
	/* Without a list nothing is noise; a list never makes a rogue out of something else. */
	OM_ASSERT(none != OM_FLOW_NOISE);
	OM_ASSERT(all == none || all == OM_FLOW_NOISE);
}

static void
try_datagram(const uint8_t *data, size_t size)
{
	struct om_flow_event events[EVENTS_MAX];
	void *copy = malloc(size + 1); /* aligned, and its end is guarded */
	size_t n = 0;

	if (copy == NULL) {
		return;
	}
	memcpy(copy, data, size);
	(void)!om_nflog_parse(copy, size, events, EVENTS_MAX, &n);
	OM_ASSERT(n <= EVENTS_MAX);
	for (size_t i = 0; i < n; i++) {
		look_at(&events[i]);
	}
	free(copy);
}

static void
try_packet(const uint8_t *data, size_t size, bool ethernet)
{
	struct om_flow_event ev;

	memset(&ev, 0, sizeof(ev));
	ev.ethertype = (data[0] & 1) != 0 ? 0x0800 : 0x86dd;
	ev.packet_len = (uint16_t)(size < OM_FLOW_PACKET_MAX ? size : OM_FLOW_PACKET_MAX);
	memcpy(ev.packet, data, ev.packet_len);
	memcpy(ev.rule, "r_special", sizeof("r_special"));
	om_flow_dissect(&ev, ethernet);
	look_at(&ev);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2) {
		return 0;
	}
	switch (data[0] % 3) {
	case 0:
		try_datagram(data + 1, size - 1);
		break;
	case 1:
		try_packet(data + 1, size - 1, true);
		break;
	default:
		try_packet(data + 1, size - 1, false);
		break;
	}
	return 0;
}
