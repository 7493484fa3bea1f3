/* SPDX-License-Identifier: ISC */
/*
 * The table of settings: finding, checking and turning text into values.  Reading the files is
 * daemon/config_load.c.
 */
#include "daemon/config_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/parse.h"

static const struct om_conf_info conf_table[OM_CONF_COUNT] = {
#define OM_CONF(s, n, kind, def, least, most, flags, choices, help) \
	[OM_CONF_##s##_##n] = { #s,                                 \
				#n,                                 \
				#s "." #n,                          \
				OM_CONF_##kind,                     \
				def,                                \
				least,                              \
				most,                               \
				flags,                              \
				choices,                            \
				help,                               \
				offsetof(struct om_settings, s##_##n) },
#include "daemon/config.tbl"
};

/* Names of the reference and short names; `old` is written without a section. */
static const struct {
	const char *old;
	enum om_conf_item item;
} conf_aliases[] = {
	{ "port", OM_CONF_control_port },
	{ "max_jobs", OM_CONF_jobs_max_jobs },
	{ "max_concurrent_jobs", OM_CONF_jobs_max_jobs },
	{ "owner_peer", OM_CONF_jobs_owner_peer },
	{ "owner_peer_id", OM_CONF_jobs_owner_peer },
	{ "trusted_networks", OM_CONF_jobs_trusted_networks },
	{ "blocked_peers", OM_CONF_jobs_blocked_peers },
	{ "default_action", OM_CONF_jobs_default_action },
};

/* The reference's names of the default actions: accepted, though two of them lie. */
static const struct {
	const char *old;
	const char *choice;
} action_aliases[] = {
	{ "acceptall", "accept_trusted_hold_others" },
	{ "rejectall", "reject_all" },
	{ "requireapproval", "hold_all" },
	{ "accepttrustedonly", "accept_trusted_reject_others" },
};

const struct om_conf_info *
om_conf_info(enum om_conf_item item)
{
	OM_ASSERT((unsigned)item < OM_CONF_COUNT);
	return &conf_table[item];
}

bool
conf_name_eq(struct om_str a, const char *b)
{
	size_t i = 0;

	for (;;) {
		while (i < a.len && (a.ptr[i] == '-' || a.ptr[i] == '_')) {
			i++;
		}
		while (*b == '-' || *b == '_') {
			b++;
		}
		if (i == a.len || *b == '\0') {
			return i == a.len && *b == '\0';
		}
		if (tolower((unsigned char)a.ptr[i]) != tolower((unsigned char)*b)) {
			return false;
		}
		i++;
		b++;
	}
}

bool
om_conf_find(struct om_str key, enum om_conf_item *out)
{
	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		if (conf_name_eq(key, conf_table[i].key)) {
			*out = (enum om_conf_item)i;
			return true;
		}
	}
	for (size_t i = 0; i < OM_COUNT(conf_aliases); i++) {
		if (conf_name_eq(key, conf_aliases[i].old)) {
			*out = conf_aliases[i].item;
			return true;
		}
	}
	return false;
}

const char *
om_conf_nearest(struct om_str key)
{
	const char *names[OM_CONF_COUNT];
	const char *last_parts[OM_CONF_COUNT];
	const char *near;
	char word[OM_CONFIG_ORIGIN_MAX];
	size_t n = 0;

	if (om_str_copy(key, word, sizeof(word)) != OM_OK) {
		return NULL;
	}
	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		if ((conf_table[i].flags & OM_CONF_HIDDEN) == 0) {
			names[n] = conf_table[i].key;
			last_parts[n++] = conf_table[i].name;
		}
	}
	near = om_nearest(word, names, n);
	if (near != NULL) {
		return near;
	}
	/* The right name in the wrong section, or without one. */
	near =
	    om_nearest(strrchr(word, '.') != NULL ? strrchr(word, '.') + 1 : word, last_parts, n);
	for (size_t i = 0; near != NULL && i < n; i++) {
		if (strcmp(last_parts[i], near) == 0) {
			return names[i];
		}
	}
	return NULL;
}

/* --- values ---------------------------------------------------------------------------------- */

static enum om_err
value_number(const struct om_conf_info *info, struct om_str text, uint64_t *out, struct om_why *why)
{
	enum om_err err;
	uint64_t v = 0;

	if (info->kind == OM_CONF_MIB) {
		err = om_parse_mib(text, &v);
	} else if (info->kind == OM_CONF_MS) {
		err = om_parse_ms(text, &v);
	} else {
		err = om_parse_u64(text, 0, UINT64_MAX, &v);
	}
	if (err != OM_OK) {
		return om_why_set(why, OM_ERR_INVALID, "%s: '%.*s' is no %s", info->key,
				  (int)(text.len < 40 ? text.len : 40), text.ptr ? text.ptr : "",
				  info->kind == OM_CONF_MIB  ? "size such as 512M or 16G"
				  : info->kind == OM_CONF_MS ? "time such as 90s, 10m or 2h"
							     : "whole number");
	}
	if (v < info->least || v > info->most) {
		return om_why_set(why, OM_ERR_INVALID, "%s: %.*s is not between %llu and %llu%s",
				  info->key, OM_STR_ARG(text), (unsigned long long)info->least,
				  (unsigned long long)info->most,
				  info->kind == OM_CONF_MIB  ? " MiB"
				  : info->kind == OM_CONF_MS ? " ms"
							     : "");
	}
	*out = v;
	return OM_OK;
}

static enum om_err
value_bool(const struct om_conf_info *info, struct om_str text, bool *out, struct om_why *why)
{
	char lower[8];

	if (text.len < sizeof(lower)) {
		for (size_t i = 0; i < text.len; i++) {
			lower[i] = (char)tolower((unsigned char)text.ptr[i]);
		}
		if (om_parse_bool((struct om_str){ lower, text.len }, out) == OM_OK) {
			return OM_OK;
		}
	}
	return om_why_set(why, OM_ERR_INVALID, "%s: '%.*s' is neither yes nor no", info->key,
			  (int)(text.len < 40 ? text.len : 40), text.ptr ? text.ptr : "");
}

static enum om_err
value_choice(const struct om_conf_info *info, struct om_str text, unsigned *out, struct om_why *why)
{
	struct om_str rest = om_str_of(info->choices), choice;
	char word[64];

	if (info == &conf_table[OM_CONF_jobs_default_action]) {
		for (size_t i = 0; i < OM_COUNT(action_aliases); i++) {
			if (conf_name_eq(text, action_aliases[i].old)) {
				text = om_str_of(action_aliases[i].choice);
			}
		}
	}
	for (unsigned i = 0; om_str_next(&rest, '|', &choice); i++) {
		if (om_str_copy(choice, word, sizeof(word)) == OM_OK && conf_name_eq(text, word)) {
			*out = i;
			return OM_OK;
		}
	}
	return om_why_set(why, OM_ERR_INVALID, "%s: '%.*s' is none of %s", info->key,
			  (int)(text.len < 40 ? text.len : 40), text.ptr ? text.ptr : "",
			  info->choices);
}

static enum om_err
value_text(const struct om_conf_info *info, struct om_str text, struct om_why *why)
{
	if (text.len > info->most || (text.len < info->least && info->kind != OM_CONF_LIST)) {
		return om_why_set(why, OM_ERR_INVALID, "%s: %zu bytes; %llu to %llu are allowed",
				  info->key, text.len, (unsigned long long)info->least,
				  (unsigned long long)info->most);
	}
	if (!om_utf8_valid(text)) {
		return om_why_set(why, OM_ERR_INVALID, "%s: not UTF-8", info->key);
	}
	for (size_t i = 0; i < text.len; i++) {
		if ((unsigned char)text.ptr[i] < 0x20 || text.ptr[i] == 0x7f) {
			return om_why_set(why, OM_ERR_INVALID, "%s: holds a control byte",
					  info->key);
		}
	}
	if (info->kind == OM_CONF_PATH && text.len > 0 && text.ptr[0] != '/') {
		return om_why_set(why, OM_ERR_INVALID, "%s: the path must begin with /", info->key);
	}
	return OM_OK;
}

/* Entries separated by commas, blanks around them and empty ones left out. */
static enum om_err
value_list(struct om_arena *arena, const struct om_conf_info *info, struct om_str text,
	   struct om_strs *list, struct om_why *why)
{
	struct om_str rest = text, piece, *v;
	size_t most = list->n + 1;
	enum om_err err;

	for (size_t i = 0; i < text.len; i++) {
		most += text.ptr[i] == ',';
	}
	if (most > OM_CONFIG_LIST_MAX) {
		return om_why_set(why, OM_ERR_TOO_BIG, "%s: more than %d entries", info->key,
				  OM_CONFIG_LIST_MAX);
	}
	v = om_arena_alloc(arena, most * sizeof(*v));
	if (v == NULL) {
		return OM_ERR_NOMEM;
	}
	if (list->n > 0) {
		memcpy(v, list->v, list->n * sizeof(*v));
	}
	list->v = v;
	while (om_str_next(&rest, ',', &piece)) {
		piece = om_str_trim(piece);
		if (piece.len == 0) {
			continue;
		}
		err = value_text(info, piece, why);
		if (err != OM_OK) {
			return err;
		}
		v[list->n].ptr = om_arena_str(arena, piece);
		if (v[list->n].ptr == NULL) {
			return OM_ERR_NOMEM;
		}
		v[list->n++].len = piece.len;
	}
	return OM_OK;
}

enum om_err
conf_value_set(struct om_config *config, enum om_conf_item item, struct om_str text, bool add,
	       struct om_why *why)
{
	const struct om_conf_info *info = om_conf_info(item);
	void *at = (char *)&config->settings + info->offset;
	const char *copy;
	enum om_err err;

	switch (info->kind) {
	case OM_CONF_U64:
	case OM_CONF_MIB:
	case OM_CONF_MS:
		return value_number(info, text, at, why);
	case OM_CONF_BOOL:
		return value_bool(info, text, at, why);
	case OM_CONF_CHOICE:
		return value_choice(info, text, at, why);
	case OM_CONF_LIST:
		if (!add) {
			memset(at, 0, sizeof(struct om_strs));
		}
		return value_list(&config->arena, info, text, at, why);
	case OM_CONF_TEXT:
	case OM_CONF_PATH:
		break;
	}
	err = value_text(info, text, why);
	if (err != OM_OK) {
		return err;
	}
	copy = om_arena_str(&config->arena, text);
	if (copy == NULL) {
		return OM_ERR_NOMEM;
	}
	*(const char **)at = copy;
	return OM_OK;
}

enum om_err
om_conf_check(enum om_conf_item item, struct om_str value, struct om_why *why)
{
	struct om_config *scratch = calloc(1, sizeof(*scratch));
	enum om_err err;

	if (scratch == NULL) {
		return OM_ERR_NOMEM;
	}
	err = conf_value_set(scratch, item, value, false, why);
	om_arena_fini(&scratch->arena);
	free(scratch);
	return err;
}

/* --- reading --------------------------------------------------------------------------------- */

const struct om_settings *
om_config_settings(const struct om_config *config)
{
	return &config->settings;
}

const struct om_rule *
om_config_rules(const struct om_config *config, size_t *count)
{
	*count = config->rule_count;
	return config->rules;
}

const char *
om_config_text(const struct om_config *config, enum om_conf_item item)
{
	return config->values[item].text;
}

const char *
om_config_origin(const struct om_config *config, enum om_conf_item item)
{
	return config->values[item].origin;
}

const char *
om_config_choice(const struct om_config *config, enum om_conf_item item, char *out, size_t size)
{
	const struct om_conf_info *info = om_conf_info(item);
	struct om_str rest = om_str_of(info->choices), word;
	unsigned wanted;

	OM_ASSERT(info->kind == OM_CONF_CHOICE && size > 0);
	wanted = *(const unsigned *)(const void *)((const char *)&config->settings + info->offset);
	out[0] = '\0';
	for (unsigned i = 0; om_str_next(&rest, '|', &word); i++) {
		if (i == wanted && om_str_copy(word, out, size) != OM_OK) {
			out[0] = '\0';
		}
	}
	return out;
}

bool
om_config_is_default(const struct om_config *config, enum om_conf_item item)
{
	return config->values[item].rank == RANK_DEFAULT;
}

bool
om_config_is_pinned(const struct om_config *config, enum om_conf_item item)
{
	return config->values[item].rank >= RANK_ENV;
}

const char *
om_config_control_socket(const struct om_config *config)
{
	return config->control_socket;
}

const char *
om_config_events_socket(const struct om_config *config)
{
	return config->events_socket;
}

const char *
om_config_server_key(const struct om_config *config)
{
	return config->server_key;
}

const char *
om_config_image_dir(const struct om_config *config)
{
	return config->image_dir;
}

const char *
om_config_live_file(const struct om_config *config)
{
	return config->live_file;
}

const struct om_config *
om_config_ref(const struct om_config *config)
{
	struct om_config *c = (struct om_config *)(uintptr_t)config;

	pthread_mutex_lock(&c->lock);
	c->refs++;
	pthread_mutex_unlock(&c->lock);
	return config;
}

void
om_config_free(const struct om_config *config)
{
	struct om_config *c = (struct om_config *)(uintptr_t)config;
	unsigned left;

	if (c == NULL) {
		return;
	}
	pthread_mutex_lock(&c->lock);
	left = --c->refs;
	pthread_mutex_unlock(&c->lock);
	if (left == 0) {
		pthread_mutex_destroy(&c->lock);
		om_arena_fini(&c->arena);
		free(c);
	}
}
