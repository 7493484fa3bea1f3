/* SPDX-License-Identifier: ISC */
/* The words of filter_rules.h: default actions and verdicts. */
#include "actors/filter_rules.h"
#include "base/assert.h"

static const struct {
	const char *name, *alias;
} actions[OM_FILTER_ACTIONS] = {
	[OM_FILTER_ACCEPT_TRUSTED_HOLD] = { "accept_trusted_hold_others", "acceptAll" },
	[OM_FILTER_ACCEPT_TRUSTED_REJECT] = { "accept_trusted_reject_others", "acceptTrustedOnly" },
	[OM_FILTER_HOLD_ALL] = { "hold_all", "requireApproval" },
	[OM_FILTER_REJECT_ALL] = { "reject_all", "rejectAll" },
	[OM_FILTER_ACCEPT_EVERYONE] = { "accept_everyone", NULL },
};

enum om_err
om_filter_action_parse(struct om_str text, enum om_filter_action *out)
{
	for (unsigned i = 0; i < OM_FILTER_ACTIONS; i++) {
		if (om_str_is(text, actions[i].name) ||
		    (actions[i].alias != NULL && om_str_is(text, actions[i].alias))) {
			*out = (enum om_filter_action)i;
			return OM_OK;
		}
	}
	return OM_ERR_INVALID;
}

const char *
om_filter_action_text(enum om_filter_action action)
{
	OM_ASSERT((unsigned)action < OM_FILTER_ACTIONS);
	return actions[action].name;
}

const char *
om_filter_verdict_text(enum om_filter_verdict verdict)
{
	switch (verdict) {
	case OM_FILTER_ACCEPT:
		return "accepted";
	case OM_FILTER_HOLD:
		return "pending_approval";
	case OM_FILTER_REJECT:
		break;
	}
	return "rejected";
}
