/* SPDX-License-Identifier: ISC */
/*
 * What the files give and what was changed live, kept apart, so that a reload can exchange the one
 * under the other.
 *
 * 1. In force is the base, without what was removed live, and with what was added or put live: after
 *    a reload the same as after a restart with the same files and the same ledger.  If broken: an
 *    operator's block is undone by a reload, or comes back by a restart.
 * 2. A new base is taken whole or not at all: everything that can fail is done on a filter of its
 *    own, and then the two are swapped.
 * 3. What cannot be in force beside the new base (a rule too many) refuses the new base; at a start,
 *    where there is no other, it is told and left out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/filter_manager_impl.h"
#include "base/log.h"
#include "msg/codec.h"

#define TOLD_MAX 200 /* changes that are told one by one */

static const char *const list_words[FILTER_LISTS] = { "trusted network", "trusted peer",
						      "blocked peer" };

struct filter_base {
	struct om_buf
	    bytes; /* what the strings of rules are views into, when it came as a message */
	struct om_arena arena;
	struct om_name_set lists[FILTER_LISTS];
	const struct om_rule *rules;
	size_t rule_count;
};

static struct om_name_set *
list_in_force(struct om_filter *f, enum filter_list which)
{
	switch (which) {
	case FILTER_TRUSTED:
		return om_filter_trusted(f);
	case FILTER_TRUSTED_PEERS:
		return om_filter_trusted_peers(f);
	case FILTER_BLOCKED:
	case FILTER_LISTS:
		break;
	}
	return om_filter_blocked(f);
}

/* --- the base --------------------------------------------------------------------------------- */

void
filter_base_free(struct filter_base *base)
{
	if (base != NULL) {
		for (size_t i = 0; i < FILTER_LISTS; i++) {
			om_name_set_fini(&base->lists[i]);
		}
		om_arena_fini(&base->arena);
		om_buf_fini(&base->bytes);
		free(base);
	}
}

static struct filter_base *
base_new(void)
{
	struct filter_base *base = calloc(1, sizeof(*base));

	for (size_t i = 0; base != NULL && i < FILTER_LISTS; i++) {
		om_name_set_init(&base->lists[i]);
	}
	return base;
}

enum om_err
filter_base_of_conf(const struct om_filter_manager_conf *conf, struct filter_base **out)
{
	const struct {
		const char *const *names;
		size_t count;
	} lists[FILTER_LISTS] = {
		[FILTER_TRUSTED] = { conf->trusted, conf->trusted_count },
		[FILTER_TRUSTED_PEERS] = { conf->trusted_peers, conf->trusted_peer_count },
		[FILTER_BLOCKED] = { conf->blocked, conf->blocked_count },
	};
	struct filter_base *base = base_new();
	enum om_err err = base != NULL ? OM_OK : OM_ERR_NOMEM;

	for (size_t l = 0; err == OM_OK && l < FILTER_LISTS; l++) {
		for (size_t i = 0; err == OM_OK && i < lists[l].count; i++) {
			err = om_name_set_add(&base->lists[l], om_str_of(lists[l].names[i]));
		}
	}
	if (err != OM_OK) {
		filter_base_free(base);
		return err;
	}
	base->rules = conf->rules;
	base->rule_count = conf->rule_count;
	*out = base;
	return OM_OK;
}

enum om_err
filter_base_of_message(struct om_bin encoded, struct filter_base **out, struct om_why *why)
{
	const struct om_strs *lists[FILTER_LISTS];
	struct om_filter_base m = { 0 };
	struct filter_base *base = base_new();
	enum om_err err = OM_ERR_NOMEM;

	if (base == NULL) {
		return err;
	}
	om_buf_add(&base->bytes, encoded.ptr, encoded.len);
	if (base->bytes.failed) {
		goto out;
	}
	err = om_body_decode(OM_BODY_filter_base,
			     (struct om_bin){ base->bytes.data, base->bytes.len }, &m, &base->arena,
			     why);
	lists[FILTER_TRUSTED] = &m.trusted;
	lists[FILTER_TRUSTED_PEERS] = &m.trusted_peers;
	lists[FILTER_BLOCKED] = &m.blocked;
	for (size_t l = 0; err == OM_OK && l < FILTER_LISTS; l++) {
		for (size_t i = 0; err == OM_OK && i < lists[l]->n; i++) {
			err = om_name_set_add(&base->lists[l], lists[l]->v[i]);
		}
	}
	base->rules = m.rules.v;
	base->rule_count = m.rules.n;
out:
	if (err != OM_OK) {
		filter_base_free(base);
		return err;
	}
	*out = base;
	return OM_OK;
}

bool
filter_base_has(const struct filter_base *base, enum filter_list which, struct om_str name)
{
	return om_name_set_has(&base->lists[which], name);
}

const struct om_rule *
filter_base_rule(const struct filter_base *base, struct om_str name)
{
	for (size_t i = 0; i < base->rule_count; i++) {
		if (om_str_eq(base->rules[i].name, name)) {
			return &base->rules[i];
		}
	}
	return NULL;
}

/* --- live changes ----------------------------------------------------------------------------- */

void
filter_lay_name(struct filter_manager *fm, enum filter_list which, struct om_str name,
		enum filter_lay how)
{
	struct filter_live_list *live = &fm->live[which];
	struct om_name_set *set = list_in_force(fm->filter, which);
	enum om_err err = OM_OK;

	(void)om_name_set_remove(&live->added, name);
	(void)om_name_set_remove(&live->removed, name);
	if (how != FILTER_AS_BASE) {
		err = om_name_set_add(how == FILTER_ADDED ? &live->added : &live->removed, name);
	}
	if (how == FILTER_REMOVED ||
	    (how == FILTER_AS_BASE && !filter_base_has(fm->base, which, name))) {
		(void)om_name_set_remove(set, name);
	} else if (err == OM_OK) {
		err = om_name_set_add(set, name);
	}
	if (err != OM_OK) {
		om_error("filter.change", "out of memory: \"%.*s\" is in force from the next start",
			 OM_STR_ARG(name));
	}
}

void
filter_live_rule_free(struct filter_live_rule *live)
{
	if (live != NULL) {
		om_arena_fini(&live->arena);
		free(live);
	}
}

enum om_err
filter_live_rule_new(const struct om_rule *from, struct filter_live_rule **out)
{
	struct filter_live_rule *live = calloc(1, sizeof(*live));
	struct om_buf buf = { 0 };
	struct om_why why;
	enum om_err err = OM_ERR_NOMEM;
	char *bytes;

	if (live == NULL) {
		return err;
	}
	err = om_body_encode(OM_BODY_rule, from, &buf);
	if (err == OM_OK) {
		bytes =
		    om_arena_str(&live->arena, (struct om_str){ (const char *)buf.data, buf.len });
		err = bytes == NULL
			  ? OM_ERR_NOMEM
			  : om_body_decode(OM_BODY_rule,
					   (struct om_bin){ (const uint8_t *)bytes, buf.len },
					   &live->rule, &live->arena, &why);
	}
	om_buf_fini(&buf);
	if (err != OM_OK) {
		filter_live_rule_free(live);
		return err;
	}
	*out = live;
	return OM_OK;
}

struct filter_live_rule *
filter_live_rule_find(const struct filter_manager *fm, struct om_str name)
{
	struct filter_live_rule *live;

	LIST_FOREACH(live, &fm->live_rules, link)
	{
		if (om_str_eq(live->rule.name, name)) {
			return live;
		}
	}
	return NULL;
}

enum om_err
filter_lay_rule(struct filter_manager *fm, struct om_str name, struct filter_live_rule **livep,
		struct om_why *why)
{
	struct filter_live_rule *old = filter_live_rule_find(fm, name);
	const struct om_rule *rule = filter_base_rule(fm->base, name);
	enum om_err err = OM_OK;

	if (*livep != NULL) {
		rule = om_str_is((*livep)->rule.kind, KIND_REMOVED) ? NULL : &(*livep)->rule;
	}
	if (rule == NULL) {
		(void)om_filter_rule_remove(fm->filter, name);
	} else {
		err =
		    om_filter_rule_put(fm->filter, rule, om_filter_rule_has(fm->filter, name), why);
	}
	if (err == OM_OK && *livep != NULL) {
		LIST_INSERT_HEAD(&fm->live_rules, *livep, link);
		*livep = NULL;
	}
	if (err == OM_OK && old != NULL) { /* last: the name may be a view into it */
		LIST_REMOVE(old, link);
		filter_live_rule_free(old);
	}
	return err;
}

void
filter_live_fini(struct filter_manager *fm)
{
	for (size_t i = 0; i < FILTER_LISTS; i++) {
		om_name_set_fini(&fm->live[i].added);
		om_name_set_fini(&fm->live[i].removed);
	}
	while (!LIST_EMPTY(&fm->live_rules)) {
		struct filter_live_rule *live = LIST_FIRST(&fm->live_rules);

		LIST_REMOVE(live, link);
		filter_live_rule_free(live);
	}
}

/* --- both together ---------------------------------------------------------------------------- */

static enum om_err
add_all(struct om_name_set *to, const struct om_name_set *from, const struct om_name_set *but)
{
	struct om_name_walk walk = { 0 };
	enum om_err err = OM_OK;

	while (err == OM_OK) {
		struct om_str name = om_name_set_next(from, &walk);

		if (name.ptr == NULL) {
			break;
		}
		if (but == NULL || !om_name_set_has(but, name)) {
			err = om_name_set_add(to, name);
		}
	}
	return err;
}

enum om_err
filter_build(const struct filter_manager *fm, const struct filter_base *base,
	     struct om_filter *into, struct om_why *why)
{
	const struct filter_live_rule *live;
	enum om_err err = OM_OK;

	for (size_t l = 0; err == OM_OK && l < FILTER_LISTS; l++) {
		struct om_name_set *set = list_in_force(into, (enum filter_list)l);

		err = add_all(set, &base->lists[l], &fm->live[l].removed);
		if (err == OM_OK) {
			err = add_all(set, &fm->live[l].added, NULL);
		}
	}
	for (size_t i = 0; err == OM_OK && i < base->rule_count; i++) {
		if (filter_live_rule_find(fm, base->rules[i].name) == NULL) {
			err = om_filter_rule_put(into, &base->rules[i], false, why);
		}
	}
	LIST_FOREACH(live, &fm->live_rules, link)
	{
		if (err == OM_OK && !om_str_is(live->rule.kind, KIND_REMOVED)) {
			err = om_filter_rule_put(into, &live->rule, false, why);
		}
	}
	return err;
}

/* --- what is new ------------------------------------------------------------------------------ */

/* As the rule would be told, encoded: what is left out and what is said as the default are the same. */
static enum om_err
rule_canon(struct om_filter *scratch, const struct om_rule *from, struct om_buf *out)
{
	struct om_rule told;
	struct om_why why;
	enum om_err err =
	    om_filter_rule_put(scratch, from, om_filter_rule_has(scratch, from->name), &why);

	if (err == OM_OK) {
		om_filter_rule_at(scratch, 0, &told);
		told.has &= ~(UINT64_C(1) << OM_FIELD_rule_hits);
		err = om_body_encode(OM_BODY_rule, &told, out);
	}
	return err;
}

bool
filter_rule_equal(const struct om_rule *a, const struct om_rule *b)
{
	struct om_buf as = { 0 }, bs = { 0 };
	struct om_filter *scratch = NULL;
	bool equal = false;

	if (om_filter_new((struct om_str){ NULL, 0 }, OM_FILTER_HOLD_ALL, &scratch) == OM_OK &&
	    rule_canon(scratch, a, &as) == OM_OK && rule_canon(scratch, b, &bs) == OM_OK) {
		equal = as.len == bs.len && memcmp(as.data, bs.data, as.len) == 0;
	}
	om_filter_free(scratch);
	om_buf_fini(&as);
	om_buf_fini(&bs);
	return equal;
}

/* What a reload changes, in words. */
struct telling {
	struct om_arena arena;
	struct om_str v[TOLD_MAX + 1];
	size_t n, more;
	bool failed;
};

static void
tell(struct telling *t, const char *what, struct om_str name, const char *how, const char *but)
{
	char text[256];
	struct om_str *out = &t->v[t->n];

	if (t->n == TOLD_MAX) {
		t->more++;
		return;
	}
	(void)snprintf(text, sizeof(text), "%s \"%.*s\": %s%s", what, OM_STR_ARG(name), how, but);
	*out = om_str_of(om_arena_str(&t->arena, om_str_of(text)));
	t->failed = t->failed || out->ptr == NULL;
	t->n++;
}

/* The names of a that b has not, and whether a live change makes that one vain. */
static void
tell_names(struct telling *t, const struct filter_manager *fm, enum filter_list which,
	   const struct filter_base *a, const struct filter_base *b, bool added)
{
	const struct filter_live_list *live = &fm->live[which];
	struct om_name_walk walk = { 0 };

	for (;;) {
		struct om_str name = om_name_set_next(&a->lists[which], &walk);
		const char *but = "";

		if (name.ptr == NULL) {
			return;
		}
		if (om_name_set_has(&b->lists[which], name)) {
			continue;
		}
		if (added && om_name_set_has(&live->removed, name)) {
			but = ", not in force: it was removed live";
		} else if (!added && om_name_set_has(&live->added, name)) {
			but = ", still in force: it was added live";
		}
		tell(t, list_words[which], name, added ? "added" : "removed", but);
	}
}

static void
tell_rule(struct telling *t, const struct filter_manager *fm, struct om_str name, const char *how,
	  bool gone)
{
	const struct filter_live_rule *live = filter_live_rule_find(fm, name);
	const char *but = "";

	if (live != NULL && om_str_is(live->rule.kind, KIND_REMOVED)) {
		but = gone ? "" : ", not in force: it was removed live";
	} else if (live != NULL) {
		but = gone ? ", still in force: it was changed live"
			   : ", not in force: it was changed live";
	}
	tell(t, "rule", name, how, but);
}

static int
by_text(const void *a, const void *b)
{
	const struct om_str *as = a, *bs = b;

	return strcmp(as->ptr, bs->ptr);
}

static void
tell_all(struct telling *t, const struct filter_manager *fm, const struct filter_base *next)
{
	char text[64];

	for (size_t l = 0; l < FILTER_LISTS; l++) {
		tell_names(t, fm, (enum filter_list)l, next, fm->base, true);
		tell_names(t, fm, (enum filter_list)l, fm->base, next, false);
	}
	for (size_t i = 0; i < next->rule_count; i++) {
		const struct om_rule *rule = &next->rules[i];
		const struct om_rule *old = filter_base_rule(fm->base, rule->name);

		if (old == NULL || !filter_rule_equal(old, rule)) {
			tell_rule(t, fm, rule->name, old == NULL ? "added" : "changed", false);
		}
	}
	for (size_t i = 0; i < fm->base->rule_count; i++) {
		struct om_str name = fm->base->rules[i].name;

		if (filter_base_rule(next, name) == NULL) {
			tell_rule(t, fm, name, "removed", true);
		}
	}
	if (!t->failed) { /* the sets have no order */
		qsort(t->v, t->n, sizeof(t->v[0]), by_text);
	}
	if (t->more > 0) {
		(void)snprintf(text, sizeof(text), "and %zu more", t->more);
		t->v[t->n] = om_str_of(om_arena_str(&t->arena, om_str_of(text)));
		t->failed = t->failed || t->v[t->n].ptr == NULL;
		t->n++;
	}
}

/* Answers before it takes: the answer can fail, what follows cannot. */
static enum om_err
base_take(struct om_service *sv, struct filter_manager *fm, const struct om_in *in,
	  struct filter_base **basep, struct om_filter **nextp)
{
	struct om_config_changes out = { 0 };
	struct telling *t = calloc(1, sizeof(*t));
	struct om_buf keep = { 0 };
	enum om_err err = OM_ERR_NOMEM;

	if (t == NULL) {
		return err;
	}
	om_buf_add(&keep, in->raw.ptr, in->raw.len);
	tell_all(t, fm, *basep);
	if (keep.failed || t->failed) {
		goto out;
	}
	out.changes = (struct om_strs){ t->v, t->n };
	err = om_service_reply(sv, in, OM_MSG_CONFIG_CHANGES, &out);
	if (err != OM_OK) {
		goto out;
	}
	om_filter_take(fm->filter, *nextp);
	*nextp = NULL;
	filter_base_free(fm->base);
	fm->base = *basep;
	*basep = NULL;
	if (fm->conf->live != NULL) { /* a restart of the actor begins with it */
		om_buf_fini(&fm->conf->live->base);
		fm->conf->live->base = keep;
		keep = (struct om_buf){ 0 };
	}
	filter_quiet_look(sv, fm);
out:
	om_buf_fini(&keep);
	om_arena_fini(&t->arena);
	free(t);
	return err;
}

enum om_err
filter_on_base(struct om_service *sv, void *state, const struct om_in *in)
{
	struct filter_manager *fm = fm_of(state);
	struct filter_base *base = NULL;
	struct om_filter *next = NULL;
	struct om_why why = { "" };
	enum om_err err;

	if (!om_caller_may(in->caller, in->type)) {
		return OM_ERR_DENIED;
	}
	if (fm->load != LOADED) {
		return filter_not_loaded(sv, in);
	}
	err = filter_base_of_message(in->raw, &base, &why);
	if (err == OM_OK) {
		err = om_filter_new((struct om_str){ NULL, 0 }, OM_FILTER_HOLD_ALL, &next);
	}
	if (err == OM_OK) {
		err = filter_build(fm, base, next, &why);
	}
	if (err == OM_OK) {
		err = base_take(sv, fm, in, &base, &next);
	}
	om_filter_free(next);
	filter_base_free(base);
	return err == OM_OK || why.text[0] == '\0'
		   ? err
		   : om_service_reply_err(sv, in, err, "%s", why.text);
}
