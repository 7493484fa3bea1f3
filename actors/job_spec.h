/* SPDX-License-Identifier: ISC */
#ifndef OM_ACTORS_JOB_SPEC_H
#define OM_ACTORS_JOB_SPEC_H

/*
 * What a job.submit means: defaults filled in, limits checked, in the form that the guest channel
 * takes.  Plain logic, used where a job is accepted and again where it is run, so that both agree.
 */
#include "msg/schema.h"
#include "net/wg_config.h"
#include "vm/guest_channel.h"

#define OM_JOB_CORES_DEFAULT     1
#define OM_JOB_MEM_MIB_DEFAULT   512
#define OM_JOB_DISK_MIB_DEFAULT  256
#define OM_JOB_RUNTIME_S_DEFAULT 3600
#define OM_JOB_FILES_OUT_MAX     (UINT64_C(64) << 20) /* bytes of all files taken from one job */

struct om_job_spec {
	uint64_t cores;
	uint64_t mem_mib;
	uint64_t disk_mib;
	uint64_t runtime_s;
	bool tunnel; /* false: network = none, the VM gets no network card */
	struct om_endpoint endpoint; /* of the tunnel; policy is om_jobnet_endpoint_check's */
	struct om_guest_job guest;
};

/*
 * Any thread.  Views in *out point into m and the arena; both must outlive it.
 * OM_ERR_INVALID or OM_ERR_TOO_BIG with the field's name and the reason; OM_ERR_NOMEM.
 */
enum om_err om_job_spec_from(const struct om_job_submit *m, struct om_arena *arena,
			     struct om_job_spec *out, struct om_why *why) OM_MUST_CHECK;

/*
 * Any thread.  The tunnel of a job as typed fields; the caller wipes *out.  OM_ERR_INVALID or
 * OM_ERR_UNSUPPORTED with the field's name; *out is wiped then.
 */
enum om_err om_job_tunnel_parse(const struct om_vpn_config *m, struct om_wg_config *out,
				struct om_why *why) OM_MUST_CHECK;

#endif /* OM_ACTORS_JOB_SPEC_H */
