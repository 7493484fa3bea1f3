/* SPDX-License-Identifier: ISC */
/*
 * Settings in a running daemon.
 *
 * Reading and writing files happens on the offload pool; what comes back is a whole new
 * configuration, or nothing.  It is taken when nothing that needs a restart has changed: all or
 * nothing (control_apply.c).  One change at a time.
 */
#include "daemon/control_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"
#include "daemon/control_apply.h"
#include "msg/codec.h"

#define SHOW_MEMORY_MAX (4u * 1024 * 1024)
#define VALUE_SHOWN_MAX 4096 /* the schema's limit of config_entry.value */

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
		OM_SET(e, config_entry, live, (info->flags & (OM_CONF_LIVE | OM_CONF_RELOAD)) != 0);
		OM_SET(e, config_entry, help, om_str_of(info->help));
	}
	OM_SET(&body, config_table, entries,
	       ((struct om_config_entry_list){ .v = entries, .n = n }));
	control_answer(sv, c, call->cookie, OM_MSG_CONFIG_TABLE, &body);
	om_arena_fini(&arena);
	return OM_OK;
}

/* --- one change, on the offload pool ---------------------------------------------------------- */

static void
change_forget(struct control_change *ch)
{
	om_config_free(ch->config);
	om_auth_free(ch->auth);
	ch->config = NULL;
	ch->auth = NULL;
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

/* The first rule with a setting that a message cannot carry: the filter would refuse all. */
static enum om_err
check_rules_fit(const struct om_config *next, struct om_why *why)
{
	size_t n;
	const struct om_rule *rules = om_config_rules(next, &n);

	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < rules[i].settings.n; k++) {
			if (rules[i].settings.v[k].value.len > OM_STRS_ITEM_MAX) {
				return om_why_set(why, OM_ERR_STATE,
						  "needs a restart, nothing was changed: the rule "
						  "%.*s has a setting of more than %d bytes",
						  OM_STR_ARG(rules[i].name), OM_STRS_ITEM_MAX);
			}
		}
	}
	return OM_OK;
}

/* The settings that differ and have none of these flags. */
static void
check_settings(const struct om_config *now, const struct om_config *next, unsigned flags,
	       struct om_buf *names)
{
	for (int i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);

		if ((info->flags & flags) == 0 &&
		    strcmp(om_config_text(now, (enum om_conf_item)i),
			   om_config_text(next, (enum om_conf_item)i)) != 0) {
			om_buf_printf(names, "%s%s", names->len > 0 ? ", " : "", info->key);
		}
	}
}

/*
 * Names what would need a restart, and for the change of one setting what is a reload's: it is written
 * before it is in force, so nothing may be among it that the filter can refuse.
 */
static enum om_err
change_check(const struct control_change *ch, struct om_why *why)
{
	struct om_buf names = { 0 };
	enum om_err err = OM_OK;

	check_settings(ch->current, ch->config, OM_CONF_LIVE | OM_CONF_RELOAD, &names);
	if (names.len > 0) {
		err = om_why_set(why, OM_ERR_STATE, "needs a restart, nothing was changed: %s",
				 om_buf_cstr(&names));
	} else if (ch->set) {
		check_settings(ch->current, ch->config, OM_CONF_LIVE, &names);
		if (!rules_equal(ch->current, ch->config)) {
			om_buf_printf(&names, "%s[rule ...]", names.len > 0 ? ", " : "");
		}
		if (names.len > 0) {
			err = om_why_set(why, OM_ERR_STATE,
					 "the files have changed, nothing was set (config reload "
					 "takes it): %s",
					 om_buf_cstr(&names));
		}
	} else {
		err = check_rules_fit(ch->config, why);
	}
	om_buf_fini(&names);
	return err;
}

/* Reads everything again; with a setting that is to be changed, as if it were changed. */
static enum om_err
change_load(struct control_change *ch, bool trial, struct om_why *why)
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

/* Any thread; blocks.  Nothing is written before it is known that the result can be taken. */
static enum om_err
change_work(void *arg)
{
	struct control_change *ch = arg;
	enum om_err err = change_load(ch, true, &ch->why);

	if (err == OM_OK) {
		err = change_check(ch, &ch->why);
	}
	if (err == OM_OK && ch->set) {
		change_forget(ch);
		err = om_config_write_live(ch->live_file, ch->item, om_str_of(ch->value), &ch->why);
		if (err == OM_OK) {
			err = change_load(ch, false, &ch->why);
		}
	}
	return err;
}

static void
change_done(struct om_ctx *cx, void *actor_state, void *arg, enum om_err result)
{
	struct om_service *sv = om_service_of_actor(cx, actor_state);
	struct control *c = om_service_state(sv);
	struct control_change *ch = arg;

	OM_ASSERT(c->magic == CONTROL_MAGIC && ch->magic == CHANGE_MAGIC);
	if (result == OM_OK) {
		control_change_take(sv, c, ch);
	} else {
		control_change_refuse(sv, c, ch, result);
	}
}

static enum om_err
change_start(struct om_service *sv, struct control *c, uint64_t cookie, const char *by,
	     struct control_change **out, struct om_why *why)
{
	struct control_change *ch;

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
change_run(struct om_service *sv, struct control *c, struct control_change *ch)
{
	enum om_err err =
	    om_offload(om_service_cx(sv), change_work, ch, change_done, control_change_free);

	if (err == OM_OK) {
		c->config_busy = true;
	} else {
		control_change_free(ch);
	}
	return err;
}

enum om_err
control_reload(struct om_service *sv, struct control *c, uint64_t cookie, const char *by,
	       struct om_why *why)
{
	struct control_change *ch = NULL;
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
	if ((om_conf_info(*item)->flags & OM_CONF_RELOAD) != 0) {
		return om_why_set(
		    why, OM_ERR_STATE,
		    "%s is changed name by name (trust, trust_peer, block), or in the "
		    "configuration file and by a reload",
		    om_conf_info(*item)->key);
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
	struct control_change *ch = NULL;
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
		control_change_free(ch);
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
