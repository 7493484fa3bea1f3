/* SPDX-License-Identifier: ISC */
#include <string.h>
#include "store/job_state.h"

#define BIT(state) OM_JOB_BIT(OM_JOB_##state)

static const uint32_t may_become[OM_JOB_STATES] = {
	[OM_JOB_RECEIVED] = BIT(REJECTED) | BIT(PENDING) | BIT(QUEUED),
	[OM_JOB_PENDING] = BIT(QUEUED) | BIT(DENIED) | BIT(EXPIRED) | BIT(CANCELLED),
	[OM_JOB_QUEUED] = BIT(PROVISIONING) | BIT(CANCELLED) | BIT(FAILED) | BIT(REJECTED),
	[OM_JOB_PROVISIONING] = BIT(RUNNING) | BIT(FAILED) | BIT(CANCELLED) | BIT(TIMED_OUT) |
				BIT(ROGUE_KILLED) | BIT(LOST) | BIT(QUEUED),
	[OM_JOB_RUNNING] = BIT(COMPLETED) | BIT(FAILED) | BIT(TIMED_OUT) | BIT(CANCELLED) |
			   BIT(ROGUE_KILLED) | BIT(LOST),
	[OM_JOB_FAILED] = BIT(QUEUED) | BIT(DEAD),
	[OM_JOB_TIMED_OUT] = BIT(QUEUED) | BIT(DEAD),
	[OM_JOB_LOST] = BIT(QUEUED) | BIT(DEAD),
	[OM_JOB_DEAD] = BIT(QUEUED),
	/* completed, rejected, cancelled, rogue_killed, denied, expired: nothing follows. */
};

static const char *const state_text[OM_JOB_STATES] = {
#define STATE_TEXT(name, text) [name] = text,
	OM_JOB_STATE_TABLE(STATE_TEXT)
#undef STATE_TEXT
};

#define SUCCESS BIT(COMPLETED)
#define FAILURE (BIT(FAILED) | BIT(TIMED_OUT) | BIT(ROGUE_KILLED) | BIT(LOST) | BIT(DEAD))

static bool
state_in(enum om_job_state state, uint32_t set)
{
	return (unsigned)state < OM_JOB_STATES && (OM_JOB_BIT(state) & set) != 0;
}

const char *
om_job_state_text(enum om_job_state state)
{
	return (unsigned)state < OM_JOB_STATES ? state_text[state] : "?";
}

enum om_err
om_job_state_parse(const char *text, size_t len, enum om_job_state *out)
{
	unsigned i;

	for (i = 0; i < OM_JOB_STATES; i++) {
		if (strlen(state_text[i]) == len && memcmp(state_text[i], text, len) == 0) {
			*out = (enum om_job_state)i;
			return OM_OK;
		}
	}
	return OM_ERR_INVALID;
}

bool
om_job_may_become(enum om_job_state from, enum om_job_state to)
{
	return (unsigned)from < OM_JOB_STATES && state_in(to, may_become[from]);
}

bool
om_job_is_final(enum om_job_state state)
{
	return state_in(state, OM_JOB_ALL & ~OM_JOB_LIVE);
}

bool
om_job_is_success(enum om_job_state state)
{
	return state_in(state, SUCCESS);
}

bool
om_job_is_failure(enum om_job_state state)
{
	return state_in(state, FAILURE);
}
