/* SPDX-License-Identifier: ISC */
/*
 * Quiet hours that act on the jobs that are here: the queue is told when they begin and end, and
 * asks at its own start.  There is a clock (a look at the beginning of every minute) only while a rule
 * asks for one, or while the queue could not be told: an idle daemon makes no wake-ups.
 *
 * fm->quiet is what the queue knows, and changes only when it was told.  If broken: a message that was
 * refused is never sent again, and the queue holds its jobs after the quiet hours.
 */
#include <string.h>

#include "actors/filter_manager_impl.h"
#include "actors/names.h"
#include "base/log.h"

#define MINUTE_MS UINT64_C(60000)

static void
quiet_message(const struct om_filter_quiet *quiet, struct om_quiet *out)
{
	*out = (struct om_quiet){ .hold_starts = quiet->hold_starts, .pause = quiet->pause };
	if (quiet->text[0] != '\0') {
		OM_SET(out, quiet, text, om_str_of(quiet->text));
	}
}

static bool
quiet_differs(const struct om_filter_quiet *a, const struct om_filter_quiet *b)
{
	return a->hold_starts != b->hold_starts || a->pause != b->pause ||
	       strcmp(a->text, b->text) != 0;
}

static void
quiet_arm(struct om_service *sv, struct filter_manager *fm)
{
	const uint64_t now_ms = (uint64_t)(fm->wall().ns / OM_NS_PER_MS);

	if (!fm->quiet.timed) {
		om_timer_cancel(om_service_cx(sv), fm->quiet_timer);
		fm->quiet_timer = 0;
	} else if (fm->quiet_timer == 0 &&
		   om_timer_start(om_service_cx(sv), MINUTE_MS - now_ms % MINUTE_MS + 1, 0,
				  FILTER_TIMER_QUIET, &fm->quiet_timer) != OM_OK) {
		om_service_fail(sv, OM_ERR_NOMEM); /* the quiet hours would not end */
	}
}

/* The queue knows it. */
static void
quiet_told(struct filter_manager *fm, const struct om_filter_quiet *now)
{
	if (quiet_differs(now, &fm->quiet)) {
		om_info("filter.quiet", "%s",
			now->hold_starts ? now->text : "the quiet hours are over");
	}
	fm->quiet = *now;
}

void
filter_quiet_look(struct om_service *sv, struct filter_manager *fm)
{
	struct om_filter_quiet now;
	struct om_quiet m;
	enum om_err err = OM_OK;

	if (fm->load != LOADED) {
		return;
	}
	om_filter_quiet(fm->filter, fm->wall(), &now);
	if (quiet_differs(&now, &fm->quiet)) {
		quiet_message(&now, &m);
		err = om_service_send(sv, OM_JOB_QUEUE, OM_MSG_QUEUE_QUIET, &m);
	}
	if (err == OM_OK || err == OM_ERR_GONE || err == OM_ERR_NOT_FOUND) {
		quiet_told(fm, &now); /* a queue that starts asks */
	} else {
		om_warn("filter.quiet", "the queue is not told, in a minute again: %s",
			om_err_text(err));
		now.timed = true;
	}
	fm->quiet.timed = now.timed;
	quiet_arm(sv, fm);
}

enum om_err
filter_on_quiet(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct om_filter_quiet now;
	struct om_quiet m;
	enum om_err err;

	if (fm->load != LOADED) {
		/* The queue asks while both start, and holds all jobs until it knows: told to come
		 * again it would hold them a second longer than need be. */
		om_service_reply_err_to(sv, &fm->quiet_asker, OM_ERR_STATE, "asked again");
		fm->quiet_asker = om_service_later(sv, in);
		return OM_OK;
	}
	om_filter_quiet(fm->filter, fm->wall(), &now);
	quiet_message(&now, &m);
	err = om_service_reply(sv, in, OM_MSG_QUIET_STATE, &m);
	if (err == OM_OK) {
		quiet_told(fm, &now);
		quiet_arm(sv, fm);
	}
	return err;
}

void
filter_quiet_loaded(struct om_service *sv, struct filter_manager *fm)
{
	struct om_filter_quiet now;
	struct om_quiet m;

	if (fm->quiet_asker.id == 0) {
		filter_quiet_look(sv, fm);
		return;
	}
	om_filter_quiet(fm->filter, fm->wall(), &now);
	quiet_message(&now, &m);
	om_service_reply_to(sv, &fm->quiet_asker, OM_MSG_QUIET_STATE, &m);
	quiet_told(fm, &now);
	quiet_arm(sv, fm);
}
