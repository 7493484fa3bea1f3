/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_SYSTEM_NET_JOB_H
#define OM_TESTS_SYSTEM_NET_JOB_H

/* A job's network with a guest behind it. */
#include "tests/system/net_rig.h"

/* One network with a guest behind it. */
struct job {
	struct om_wg_config cfg;
	struct om_jobnet *net;
	struct om_nflog *log;
	struct rig_guest guest;
};

static inline void
job_up(struct job *j, const char *allowed, bool with_ip6, uint64_t rate_kbit)
{
	struct om_jobnet_spec spec = { .job = &rig.job, .wg = &j->cfg, .rate_kbit = rate_kbit };
	int tap;

	rig_config(&j->cfg, allowed, with_ip6);
	rig_ok(om_jobnet_up(&rig.env, &spec, &j->net, &rig_why));
	tap = rig_open_tap(om_jobnet_info(j->net)->tap);
	rig_ok(om_jobnet_attach_tap(j->net, &rig_why));
	j->log = om_jobnet_take_nflog(j->net);
	assert_non_null(j->log);
	assert_null(om_jobnet_take_nflog(j->net));
	rig_guest_start(&j->guest, om_jobnet_info(j->net), tap);
}

static inline void
job_down(struct job *j)
{
	rig_guest_stop(&j->guest);
	om_nflog_close(j->log);
	om_jobnet_down(&j->net);
	assert_null(j->net);
	om_jobnet_down(&j->net); /* a second time does nothing */
}

static inline void
assert_no_event(struct om_nflog *log)
{
	struct om_flow_event ev;
	char text[OM_FLOW_TEXT];
	size_t n = 0;

	if (rig_wait_readable(om_nflog_fd(log), RIG_QUIET_MS)) {
		rig_ok(om_nflog_read(log, &ev, 1, &n, &rig_why));
		fail_msg("event: %s", om_flow_format(&ev, text));
	}
}

#endif /* OM_TESTS_SYSTEM_NET_JOB_H */
