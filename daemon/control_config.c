/* SPDX-License-Identifier: ISC */
/*
 * Settings in a running daemon.
 *
 * Reading and writing files happens on the offload pool; what comes back is a whole new
 * configuration, or nothing.  It is taken when nothing that needs a restart has changed: all or
 * nothing.  One change at a time.
 */
#include "daemon/control_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "daemon/endpoint.h"
#include "msg/codec.h"

#define SHOW_MEMORY_MAX (4u * 1024 * 1024)
#define VALUE_SHOWN_MAX 4096 /* the schema's limit of config_entry.value */
#define APPLY_ASK_MS    5000
#define CHANGE_MAGIC    0x6f6d4368u

/* --- config.show ----------------------------------------------------------------------------- */

static struct om_str
cut_text(const char *text, size_t max)
{
	struct om_str s = om_str_of(text);

	if (s.len > max) {
		s.len = max;
		while (s.len > 0 && ((unsigned char)s.ptr[s.len] & 0xc0) == 0x80) {
			s.len--; /* not inside a character */
		}
	}
	return s;
}

enum om_err
control_verb_config_show(struct om_service *sv, struct control *c, const struct control_call *call,
			 struct om_why *why)
{
	struct om_arena arena = { .max = SHOW_MEMORY_MAX };
	struct om_config_entry *entries;
	struct om_config_table body = { 0 };
	size_t n = 0;

	(void)why;
	entries = om_arena_alloc(&arena, OM_CONF_COUNT * sizeof(*entries));
	if (entries == NULL) {
		return OM_ERR_NOMEM;
	}
	for (int i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);
		struct om_config_entry *e = &entries[n];

		if ((info->flags & OM_CONF_HIDDEN) != 0 &&
		    om_config_is_default(c->config, (enum om_conf_item)i)) {
			continue;
		}
		n++;
		e->key = om_str_of(info->key);
		e->value =
		    cut_text(om_config_text(c->config, (enum om_conf_item)i), VALUE_SHOWN_MAX);
		OM_SET(e, config_entry, origin,
		       cut_text(om_config_origin(c->config, (enum om_conf_item)i), 256));
		OM_SET(e, config_entry, live, (info->flags & OM_CONF_LIVE) != 0);
		OM_SET(e, config_entry, help, om_str_of(info->help));
	}
	OM_SET(&body, config_table, entries,
	       ((struct om_config_entry_list){ .v = entries, .n = n }));
	control_answer(sv, c, call->cookie, OM_MSG_CONFIG_TABLE, &body);
	om_arena_fini(&arena);
	return OM_OK;
}

/* --- one change, on the offload pool ---------------------------------------------------------- */

struct change {
	uint32_t magic;
	uint64_t cookie; /* 0: nobody waits */
	char by[OM_PEER_MAX + 1];
	const struct om_conf_sources *sources;
	const struct om_config *current; /* held: control may be restarted meanwhile */
	/* config.set and config.unset only */
	bool set;
	enum om_conf_item item;
	char *value; /* NULL: unset */
	char *live_file;
	/* what came of it */
	struct om_config *config;
	struct om_auth *auth;
	struct om_why why;
};

static void
change_forget(struct change *ch)
{
	om_config_free(ch->config);
	om_auth_free(ch->auth);
	ch->config = NULL;
	ch->auth = NULL;
}

static void
change_free(void *arg)
{
	struct change *ch = arg;

	OM_ASSERT(ch->magic == CHANGE_MAGIC);
	change_forget(ch);
	om_config_free(ch->current);
	free(ch->value);
	free(ch->live_file);
	free(ch);
}

static bool
rules_equal(const struct om_config *a, const struct om_config *b)
{
	size_t na, nb;
	const struct om_rule *ra = om_config_rules(a, &na), *rb = om_config_rules(b, &nb);
	struct om_buf x = { 0 }, y = { 0 };
	bool equal = na == nb;

	for (size_t i = 0; equal && i < na; i++) {
		om_buf_reset(&x);
		om_buf_reset(&y);
		equal = om_body_encode(OM_BODY_rule, &ra[i], &x) == OM_OK &&
			om_body_encode(OM_BODY_rule, &rb[i], &y) == OM_OK && x.len == y.len &&
			memcmp(x.data, y.data, x.len) == 0;
	}
	om_buf_fini(&x);
	om_buf_fini(&y);
	return equal;
}

/* Names what would need a restart. */
static enum om_err
change_check(const struct om_config *now, const struct om_config *next, struct om_why *why)
{
	struct om_buf names = { 0 };
	enum om_err err = OM_OK;

	for (int i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);

		if ((info->flags & OM_CONF_LIVE) == 0 &&
		    strcmp(om_config_text(now, (enum om_conf_item)i),
			   om_config_text(next, (enum om_conf_item)i)) != 0) {
			om_buf_printf(&names, "%s%s", names.len > 0 ? ", " : "", info->key);
		}
	}
	if (!rules_equal(now, next)) {
		om_buf_printf(&names, "%s[rule ...]", names.len > 0 ? ", " : "");
	}
	if (names.len > 0) {
		err = om_why_set(why, OM_ERR_STATE, "needs a restart, nothing was changed: %s",
				 om_buf_cstr(&names));
	}
	om_buf_fini(&names);
	return err;
}

/* Reads everything again; with a setting that is to be changed, as if it were changed. */
static enum om_err
change_load(struct change *ch, bool trial, struct om_why *why)
{
	const struct om_conf_sources *from = ch->sources;
	struct om_conf_flag *flags = calloc(from->flag_count + 1, sizeof(*flags));
	struct om_conf_sources sources = *from;
	struct om_buf problems = { 0 };
	enum om_err err;

	if (flags == NULL) {
		return OM_ERR_NOMEM;
	}
	if (from->flag_count > 0) {
		memcpy(flags, from->flags, from->flag_count * sizeof(*flags));
	}
	sources.flags = flags;
	if (trial && ch->set && ch->value != NULL) {
		flags[sources.flag_count++] =
		    (struct om_conf_flag){ om_conf_info(ch->item)->key, ch->value, "live" };
	}
	err = om_config_load(&sources, &ch->config, &problems);
	if (err == OM_OK) {
		err = om_auth_load(om_config_settings(ch->config), &ch->auth, &problems);
	}
	if (err != OM_OK) {
		om_why_set(why, err, "%s",
			   problems.len > 0 ? om_buf_cstr(&problems) : om_err_text(err));
	}
	om_buf_fini(&problems);
	free(flags);
	return err;
}

/* Who may listen to what happens to jobs is who is an operator. */
static void
change_share_events(const struct change *ch)
{
	const struct om_settings *was = om_config_settings(ch->current);
	const struct om_settings *is = om_config_settings(ch->config);
	struct om_why why = { "" };

	if (was->control_events &&
	    strcmp(was->control_operator_group, is->control_operator_group) != 0 &&
	    om_endpoint_share(om_config_events_socket(ch->current), om_auth_operator_gid(ch->auth),
			      &why) != OM_OK) {
		om_warn("control.events", "the operators' group cannot listen: %s", why.text);
	}
}

/* Any thread; blocks.  Nothing is written before it is known that the result can be taken. */
static enum om_err
change_work(void *arg)
{
	struct change *ch = arg;
	enum om_err err = change_load(ch, true, &ch->why);

	if (err == OM_OK) {
		err = change_check(ch->current, ch->config, &ch->why);
	}
	if (err == OM_OK && ch->set) {
		change_forget(ch);
		err = om_config_write_live(ch->live_file, ch->item, om_str_of(ch->value), &ch->why);
		if (err == OM_OK) {
			err = change_load(ch, false, &ch->why);
		}
	}
	if (err == OM_OK) {
		change_share_events(ch);
	}
	return err;
}

/* --- taking it -------------------------------------------------------------------------------- */

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
has_changed(const struct control *c, const struct change *ch, enum om_conf_item item)
{
	return strcmp(om_config_text(c->config, item), om_config_text(ch->config, item)) != 0;
}

/* What the filter, the queue and the provider may change in a running daemon. */
static void
change_tell_policy(struct om_service *sv, const struct control *c, const struct change *ch)
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
		changed = changed || has_changed(c, ch, items[i]);
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
change_tell_services(struct om_service *sv, const struct control *c, const struct change *ch)
{
	const struct om_settings *s = om_config_settings(ch->config);
	struct om_queue_limits limits = { 0 };

	/* `queue limit` may have changed what the text does not tell: who sets it means it. */
	if (has_changed(c, ch, OM_CONF_jobs_max_jobs) ||
	    (ch->set && ch->item == OM_CONF_jobs_max_jobs)) {
		OM_SET(&limits, queue_limits, max_jobs, s->jobs_max_jobs);
		if (om_service_ask(sv, "job_queue", OM_MSG_QUEUE_LIMITS, &limits, NULL,
				   APPLY_ASK_MS, apply_on_answer, 0) != OM_OK) {
			om_warn("config.apply", "the job queue cannot be told of max_jobs");
		}
	}
	change_tell_policy(sv, c, ch);
}

/* One line for the audit trail with all that is new. */
static void
change_audit(struct om_service *sv, const struct control *c, const struct change *ch)
{
	struct om_audit_entry entry = { 0 };
	struct om_buf text = { .max = 2048 };

	for (int i = 0; i < OM_CONF_COUNT; i++) {
		if (has_changed(c, ch, (enum om_conf_item)i)) {
			om_buf_printf(&text, "%s%s: %s -> %s", text.len > 0 ? ", " : "",
				      om_conf_info((enum om_conf_item)i)->key,
				      om_config_text(c->config, (enum om_conf_item)i),
				      om_config_text(ch->config, (enum om_conf_item)i));
		}
	}
	if (text.len == 0) {
		om_buf_add_str(&text, "no setting changed");
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

/* Takes ch's configuration. */
static void
change_apply(struct om_service *sv, struct control *c, struct change *ch)
{
	const struct om_settings *s = om_config_settings(ch->config);
	struct om_clients_conf limits;

	change_tell_services(sv, c, ch);
	change_audit(sv, c, ch);
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
}

static void
change_done(struct om_ctx *cx, void *actor_state, void *arg, enum om_err result)
{
	struct om_service *sv = om_service_of_actor(cx, actor_state);
	struct control *c = om_service_state(sv);
	const struct om_empty ok = { 0 };
	struct change *ch = arg;

	OM_ASSERT(c->magic == CONTROL_MAGIC && ch->magic == CHANGE_MAGIC);
	c->config_busy = false;
	if (result == OM_OK) {
		change_apply(sv, c, ch);
		control_answer(sv, c, ch->cookie, OM_MSG_OK, &ok);
	} else {
		om_error("config.refused", "%s", ch->why.text);
		control_fail(sv, c, ch->cookie, result, ch->why.text);
	}
	change_free(ch);
}

static enum om_err
change_start(struct om_service *sv, struct control *c, uint64_t cookie, const char *by,
	     struct change **out, struct om_why *why)
{
	struct change *ch;

	if (c->conf->sources == NULL) {
		return om_why_set(why, OM_ERR_UNSUPPORTED, "this daemon has no configuration file");
	}
	if (c->config_busy) {
		return om_why_set(why, OM_ERR_STATE, "another change is under way");
	}
	(void)sv;
	ch = calloc(1, sizeof(*ch));
	if (ch == NULL) {
		return OM_ERR_NOMEM;
	}
	ch->magic = CHANGE_MAGIC;
	ch->cookie = cookie;
	ch->sources = c->conf->sources;
	ch->current = om_config_ref(c->config);
	snprintf(ch->by, sizeof(ch->by), "%s", by);
	*out = ch;
	return OM_OK;
}

/* Takes ch. */
static enum om_err
change_run(struct om_service *sv, struct control *c, struct change *ch)
{
	enum om_err err = om_offload(om_service_cx(sv), change_work, ch, change_done, change_free);

	if (err == OM_OK) {
		c->config_busy = true;
	} else {
		change_free(ch);
	}
	return err;
}

enum om_err
control_reload(struct om_service *sv, struct control *c, uint64_t cookie, const char *by,
	       struct om_why *why)
{
	struct change *ch = NULL;
	enum om_err err = change_start(sv, c, cookie, by, &ch, why);

	return err == OM_OK ? change_run(sv, c, ch) : err;
}

enum om_err
control_verb_config_reload(struct om_service *sv, struct control *c,
			   const struct control_call *call, struct om_why *why)
{
	return control_reload(sv, c, call->cookie, call->caller->peer, why);
}

/* Finds the setting and says whether it may be changed now. */
static enum om_err
set_check(const struct control *c, struct om_str key, enum om_conf_item *item, struct om_why *why)
{
	const char *near;

	if (!om_conf_find(key, item)) {
		near = om_conf_nearest(key);
		return om_why_set(why, OM_ERR_NOT_FOUND, "unknown setting %.*s%s%s",
				  OM_STR_ARG(key), near != NULL ? "; did you mean " : "",
				  near != NULL ? near : "");
	}
	if ((om_conf_info(*item)->flags & OM_CONF_LIVE) == 0) {
		return om_why_set(why, OM_ERR_STATE,
				  "%s needs a restart: put it into the configuration file",
				  om_conf_info(*item)->key);
	}
	if (om_config_is_pinned(c->config, *item)) {
		return om_why_set(why, OM_ERR_STATE, "%s is fixed by %s", om_conf_info(*item)->key,
				  om_config_origin(c->config, *item));
	}
	return OM_OK;
}

/* value absent: as the files have it. */
static enum om_err
set_run(struct om_service *sv, struct control *c, const struct control_call *call,
	enum om_conf_item item, struct om_str value, struct om_why *why)
{
	struct change *ch = NULL;
	enum om_err err = change_start(sv, c, call->cookie, call->caller->peer, &ch, why);

	if (err != OM_OK) {
		return err;
	}
	ch->set = true;
	ch->item = item;
	ch->live_file = strdup(om_config_live_file(c->config));
	if (value.ptr != NULL) {
		ch->value = strndup(value.ptr, value.len);
	}
	if (ch->live_file == NULL || (ch->value == NULL && value.ptr != NULL)) {
		change_free(ch);
		return OM_ERR_NOMEM;
	}
	return change_run(sv, c, ch);
}

enum om_err
control_verb_config_set(struct om_service *sv, struct control *c, const struct control_call *call,
			struct om_why *why)
{
	struct om_arena arena = { .max = SHOW_MEMORY_MAX };
	struct om_config_entry body = { 0 };
	enum om_conf_item item = OM_CONF_jobs_max_jobs;
	enum om_err err = om_body_decode(OM_BODY_config_entry, call->body, &body, &arena, why);

	if (err == OM_OK) {
		err = set_check(c, body.key, &item, why);
	}
	if (err == OM_OK) {
		err = om_conf_check(item, body.value, why);
	}
	if (err == OM_OK) {
		err = set_run(sv, c, call, item, body.value.ptr != NULL ? body.value : OM_STR(""),
			      why);
	}
	om_arena_fini(&arena);
	return err;
}

enum om_err
control_verb_config_unset(struct om_service *sv, struct control *c, const struct control_call *call,
			  struct om_why *why)
{
	struct om_arena arena = { .max = SHOW_MEMORY_MAX };
	struct om_config_key body = { 0 };
	enum om_conf_item item = OM_CONF_jobs_max_jobs;
	enum om_err err = om_body_decode(OM_BODY_config_key, call->body, &body, &arena, why);

	if (err == OM_OK) {
		err = set_check(c, body.key, &item, why);
	}
	if (err == OM_OK) {
		err = set_run(sv, c, call, item, (struct om_str){ NULL, 0 }, why);
	}
	om_arena_fini(&arena);
	return err;
}
