/* SPDX-License-Identifier: ISC */
/*
 * Taking a new configuration: all or nothing.
 *
 * 1. Only one thing can refuse it by now: the filter, which lays what was changed live over the lists and
 *    rules of the files.  So a reload asks the filter first; what comes after its answer cannot fail.
 *    If broken: half of a file is in force.
 * 2. The filter is asked at every reload, also when nothing of its own has changed: after a question
 *    without an answer nobody knows what it has.
 */
#include "daemon/control_apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "daemon/endpoint.h"

#define APPLY_ASK_MS  5000
#define BASE_ASK_MS   30000 /* lists of 100,000 names */
#define TOLD_MAX      1000 /* the schema's limit of config_changes.changes */
#define SETTING_SHOWN 400 /* bytes of a value in a line */
#define TRAIL_MAX     2048 /* the schema's limit of audit_entry.details */

void
control_change_free(void *arg)
{
	struct control_change *ch = arg;

	if (ch != NULL) {
		OM_ASSERT(ch->magic == CHANGE_MAGIC);
		om_config_free(ch->config);
		om_auth_free(ch->auth);
		om_config_free(ch->current);
		om_arena_fini(&ch->arena);
		free(ch->value);
		free(ch->live_file);
		free(ch);
	}
}

void
control_change_refuse(struct om_service *sv, struct control *c, struct control_change *ch,
		      enum om_err err)
{
	c->config_busy = false;
	om_error("config.refused", "%s", ch->why.text);
	control_fail(sv, c, ch->cookie, err, ch->why.text);
	control_change_free(ch);
}

static void
apply_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	if (answer->err != OM_OK) {
		om_warn("config.apply", "%s", answer->text);
	}
}

static bool
has_changed(const struct control_change *ch, enum om_conf_item item)
{
	return strcmp(om_config_text(ch->current, item), om_config_text(ch->config, item)) != 0;
}

/* --- what is different, in words -------------------------------------------------------------- */

/* Without memory a line is left out: the change itself does not hang on it. */
static void
told_add(struct control_change *ch, struct om_str line)
{
	struct om_str copy = om_str_of(om_arena_str(&ch->arena, line));

	if (copy.ptr != NULL && ch->told_count < TOLD_MAX) {
		ch->told[ch->told_count++] = copy;
	}
}

static void
told_settings(struct control_change *ch)
{
	char line[2 * SETTING_SHOWN + 128];

	for (int i = 0; i < OM_CONF_COUNT; i++) {
		const enum om_conf_item item = (enum om_conf_item)i;
		const struct om_conf_info *info = om_conf_info(item);

		/* The filter tells of its lists name by name. */
		if ((info->flags & OM_CONF_RELOAD) == 0 && has_changed(ch, item)) {
			(void)snprintf(line, sizeof(line), "%s: %.*s -> %.*s", info->key,
				       SETTING_SHOWN, om_config_text(ch->current, item),
				       SETTING_SHOWN, om_config_text(ch->config, item));
			told_add(ch, om_str_of(line));
		}
	}
}

/* One line for the audit trail with all that is new; what does not fit is hinted at. */
static void
change_audit(struct om_service *sv, const struct control_change *ch)
{
	static const char more[] = " ...";
	struct om_audit_entry entry = { 0 };
	struct om_buf text = { .max = TRAIL_MAX - sizeof(more) };

	for (size_t i = 0; i < ch->told_count; i++) {
		om_buf_printf(&text, "%s%.*s", text.len > 0 ? ", " : "", OM_STR_ARG(ch->told[i]));
	}
	if (ch->told_count == 0) {
		om_buf_add_str(&text, "nothing has changed");
	}
	if (text.failed) {
		text.failed = false;
		text.max = TRAIL_MAX;
		om_buf_add_str(&text, more);
	}
	om_info("config.changed", "by %s: %s", ch->by, om_buf_cstr(&text));
	entry.event = OM_STR("config_changed");
	OM_SET(&entry, audit_entry, peer, om_str_of(ch->by));
	OM_SET(&entry, audit_entry, details,
	       ((struct om_str){ (const char *)text.data, text.len }));
	if (om_service_ask(sv, "ledger", OM_MSG_AUDIT_APPEND, &entry, NULL, APPLY_ASK_MS,
			   apply_on_answer, 0) != OM_OK) {
		om_warn("config.audit", "the change is not in the audit trail");
	}
	om_buf_fini(&text);
}

/* --- what takes it ---------------------------------------------------------------------------- */

/* What the filter, the queue and the provider may change in a running daemon. */
static void
change_tell_policy(struct om_service *sv, const struct control_change *ch)
{
	static const enum om_conf_item items[] = { OM_CONF_jobs_default_action,
						   OM_CONF_jobs_approval_expiry,
						   OM_CONF_jobs_queue_max, OM_CONF_jobs_peer_max,
						   OM_CONF_jobs_age_after };
	static const char *const takers[] = { "filter_manager", "job_queue", "provider" };
	const struct om_settings *s = om_config_settings(ch->config);
	char action[64];
	struct om_policy policy = { .approval_expiry_ms = s->jobs_approval_expiry,
				    .queue_max = s->jobs_queue_max,
				    .peer_max = s->jobs_peer_max,
				    .age_after_ms = s->jobs_age_after };
	bool changed = false;

	for (size_t i = 0; i < OM_COUNT(items); i++) {
		changed = changed || has_changed(ch, items[i]);
	}
	policy.default_action = om_str_of(
	    om_config_choice(ch->config, OM_CONF_jobs_default_action, action, sizeof(action)));
	for (size_t i = 0; changed && i < OM_COUNT(takers); i++) {
		if (om_service_ask(sv, takers[i], OM_MSG_CONFIG_POLICY, &policy, NULL, APPLY_ASK_MS,
				   apply_on_answer, 0) != OM_OK) {
			om_warn("config.apply", "%s cannot be told of the change", takers[i]);
		}
	}
}

/* Tells the services what is theirs. */
static void
change_tell_services(struct om_service *sv, const struct control_change *ch)
{
	const struct om_settings *s = om_config_settings(ch->config);
	struct om_queue_limits limits = { 0 };

	/* `queue limit` may have changed what the text does not tell: who sets it means it. */
	if (has_changed(ch, OM_CONF_jobs_max_jobs) ||
	    (ch->set && ch->item == OM_CONF_jobs_max_jobs)) {
		OM_SET(&limits, queue_limits, max_jobs, s->jobs_max_jobs);
		if (om_service_ask(sv, "job_queue", OM_MSG_QUEUE_LIMITS, &limits, NULL,
				   APPLY_ASK_MS, apply_on_answer, 0) != OM_OK) {
			om_warn("config.apply", "the job queue cannot be told of max_jobs");
		}
	}
	change_tell_policy(sv, ch);
}

/* Takes ch: its configuration is in force. */
static void
change_finish(struct om_service *sv, struct control *c, struct control_change *ch)
{
	const struct om_settings *s = om_config_settings(ch->config);
	struct om_config_changes changes = { .changes = { ch->told, ch->told_count } };
	const struct om_empty ok = { 0 };
	struct om_clients_conf limits;

	change_tell_services(sv, ch);
	change_audit(sv, ch);
	om_log_set_level((enum om_log_level)s->daemon_log_level);
	control_clients_conf(s, &limits);
	om_clients_limit(c->clients, &limits);
	om_auth_free(c->auth);
	c->auth = ch->auth;
	ch->auth = NULL;
	om_config_free(c->config);
	c->config = ch->config;
	ch->config = NULL;
	if (c->conf->live != NULL) {
		om_config_free(c->conf->live->config);
		c->conf->live->config = om_config_ref(c->config);
	}
	c->config_busy = false;
	if (ch->set) {
		control_answer(sv, c, ch->cookie, OM_MSG_OK, &ok);
	} else {
		control_answer(sv, c, ch->cookie, OM_MSG_CONFIG_CHANGES, &changes);
	}
	control_change_free(ch);
}

/* Who may listen to what happens to jobs is who is an operator.  Any thread; blocks. */
static enum om_err
share_work(void *arg)
{
	const struct control_change *ch = arg;
	struct om_why why = { "" };

	if (om_endpoint_share(om_config_events_socket(ch->current), om_auth_operator_gid(ch->auth),
			      &why) != OM_OK) {
		om_warn("control.events", "the operators' group cannot listen: %s", why.text);
	}
	return OM_OK;
}

static void
share_done(struct om_ctx *cx, void *actor_state, void *arg, enum om_err result)
{
	struct om_service *sv = om_service_of_actor(cx, actor_state);

	(void)result;
	change_finish(sv, om_service_state(sv), arg);
}

static void
change_share(struct om_service *sv, struct control *c, struct control_change *ch)
{
	bool share = om_config_settings(ch->current)->control_events &&
		     has_changed(ch, OM_CONF_control_operator_group);

	if (share && om_offload(om_service_cx(sv), share_work, ch, share_done,
				control_change_free) == OM_OK) {
		return;
	}
	if (share) {
		om_warn("control.events", "the operators' group cannot listen: out of memory");
	}
	change_finish(sv, c, ch);
}

/* --- the filter's say ------------------------------------------------------------------------- */

static void
base_on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct control *c = state;
	struct control_change *ch = c->config_asked;
	const struct om_config_changes *m = answer->body;

	OM_ASSERT(ch != NULL && ch->magic == CHANGE_MAGIC);
	c->config_asked = NULL;
	if (answer->err == OM_ERR_TIMEOUT || answer->err == OM_ERR_GONE) {
		om_why_set(&ch->why, answer->err,
			   "the filter has not answered: reload again, to know what is in force");
		control_change_refuse(sv, c, ch, answer->err);
	} else if (answer->err != OM_OK) {
		om_why_set(&ch->why, answer->err, "nothing was changed: %s", answer->text);
		control_change_refuse(sv, c, ch, answer->err);
	} else {
		for (size_t i = 0; i < m->changes.n; i++) {
			told_add(ch, m->changes.v[i]);
		}
		change_share(sv, c, ch);
	}
}

static enum om_err
base_ask(struct om_service *sv, struct control_change *ch)
{
	const struct om_settings *s = om_config_settings(ch->config);
	struct om_filter_base base = { .trusted = s->jobs_trusted_networks,
				       .trusted_peers = s->jobs_trusted_peers,
				       .blocked = s->jobs_blocked_peers };
	const struct om_rule *rules = om_config_rules(ch->config, &base.rules.n);
	enum om_err err;

	base.rules.v = calloc(base.rules.n + 1, sizeof(*base.rules.v));
	if (base.rules.v == NULL) {
		return OM_ERR_NOMEM;
	}
	if (base.rules.n > 0) {
		memcpy(base.rules.v, rules, base.rules.n * sizeof(*rules));
	}
	err = om_service_ask(sv, "filter_manager", OM_MSG_FILTER_BASE, &base, NULL, BASE_ASK_MS,
			     base_on_answer, 0);
	free(base.rules.v);
	return err;
}

void
control_change_take(struct om_service *sv, struct control *c, struct control_change *ch)
{
	enum om_err err;

	ch->told = om_arena_alloc(&ch->arena, TOLD_MAX * sizeof(*ch->told));
	err = ch->told != NULL ? OM_OK : OM_ERR_NOMEM;
	if (err == OM_OK) {
		told_settings(ch);
	}
	if (err == OM_OK && ch->set) {
		change_share(sv, c, ch); /* the files' lists and rules are as they were */
		return;
	}
	if (err == OM_OK) {
		err = base_ask(sv, ch);
	}
	if (err == OM_OK) {
		c->config_asked = ch;
	} else {
		om_why_set(&ch->why, err, "nothing was changed: %s", om_err_text(err));
		control_change_refuse(sv, c, ch, err);
	}
}
