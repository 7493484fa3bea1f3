/* SPDX-License-Identifier: ISC */
/*
 * Reading a configuration: defaults, files, live settings, environment, flags.
 *
 * 1. A value is taken when its rank is at least that of the value that is there, so the order of
 *    reading does not matter except inside one rank.
 * 2. A problem is a line in `problems`; reading goes on, so that one run tells them all.
 * 3. The result is thrown away when there was a problem.  If broken: a half-read configuration
 *    runs.
 */
#include "daemon/config_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/parse.h"

struct loader {
	struct om_config *config;
	const struct om_conf_sources *sources;
	struct om_buf *problems;
	enum om_err err; /* the first */
	const char *file;
	enum conf_rank rank;
	unsigned source;
	struct om_rule *rule; /* of the section being read */
};

static void OM_PRINTF(3, 4) load_problem(struct loader *ld, unsigned line, const char *fmt, ...)
{
	char text[OM_WHY_MAX + OM_CONFIG_ORIGIN_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (ld->err == OM_OK) {
		ld->err = OM_ERR_INVALID;
	}
	if (ld->problems == NULL) {
		return;
	}
	if (line > 0) {
		om_buf_printf(ld->problems, "%s:%u: %s\n", ld->file, line, text);
	} else {
		om_buf_printf(ld->problems, "%s: %s\n", ld->file, text);
	}
}

static const char *
load_printf(struct loader *ld, const char *fmt, const char *a, const char *b)
{
	char text[OM_CONFIG_ORIGIN_MAX * 2];
	const char *copy;

	snprintf(text, sizeof(text), fmt, a, b);
	copy = om_arena_str(&ld->config->arena, om_str_of(text));
	if (copy == NULL) {
		ld->err = OM_ERR_NOMEM;
		return "";
	}
	return copy;
}

/* --- one value ------------------------------------------------------------------------------- */

static void
load_value(struct loader *ld, enum om_conf_item item, struct om_str text, unsigned line,
	   const char *origin)
{
	struct conf_value *v = &ld->config->values[item];
	const struct om_conf_info *info = om_conf_info(item);
	bool again = ld->source > 0 && v->source == ld->source;
	struct om_why why = { "" };
	enum om_err err;

	if (again && info->kind != OM_CONF_LIST) {
		load_problem(ld, line, "%s is set twice, first at %s", info->key, v->origin);
		return;
	}
	if (v->rank > ld->rank) {
		err = om_conf_check(item, text, &why);
	} else {
		err = conf_value_set(ld->config, item, text, again, &why);
	}
	if (err == OM_ERR_NOMEM) {
		ld->err = err;
		return;
	}
	if (err != OM_OK) {
		load_problem(ld, line, "%s", why.text);
		return;
	}
	if (v->rank > ld->rank) {
		return;
	}
	if (again) {
		char *old = om_arena_str(&ld->config->arena, text);

		v->text = load_printf(ld, "%s, %s", v->text, old != NULL ? old : "");
	} else {
		v->text = om_arena_str(&ld->config->arena, text);
		v->origin = origin;
	}
	v->rank = ld->rank;
	v->source = ld->source;
	if (v->text == NULL) {
		ld->err = OM_ERR_NOMEM;
	}
}

/* --- [rule NAME] ----------------------------------------------------------------------------- */

static void
load_rule_begin(struct loader *ld, struct om_str name, unsigned line)
{
	struct om_config *c = ld->config;
	char number[16];
	size_t i;

	ld->rule = NULL;
	if (name.len == 0 || name.len > 64) {
		load_problem(ld, line, "a rule is written [rule NAME], a name of 1 to 64 bytes");
		return;
	}
	for (i = 0; i < c->rule_count && !om_str_eq(c->rules[i].name, name); i++) {
	}
	if (i < c->rule_count && c->rule_source[i] == ld->source) {
		load_problem(ld, line, "the rule %.*s is there twice, first at %s",
			     OM_STR_ARG(name), c->rule_origin[i]);
		return;
	}
	if (i == OM_CONFIG_RULES_MAX) {
		load_problem(ld, line, "more than %d rules", OM_CONFIG_RULES_MAX);
		return;
	}
	snprintf(number, sizeof(number), "%u", line);
	ld->rule = &c->rules[i];
	memset(ld->rule, 0, sizeof(*ld->rule));
	OM_SET(ld->rule, rule, name, ((struct om_str){ om_arena_str(&c->arena, name), name.len }));
	OM_SET(ld->rule, rule, enabled, true);
	c->rule_source[i] = ld->source;
	c->rule_origin[i] = load_printf(ld, "%s:%s", ld->file, number);
	c->rule_count += i == c->rule_count;
	if (ld->rule->name.ptr == NULL) {
		ld->err = OM_ERR_NOMEM;
	}
}

/* A key of the rule's kind; a repeated one joins the values by a comma. */
static void
load_rule_setting(struct loader *ld, const struct om_ini_entry *e)
{
	struct om_rule *rule = ld->rule;
	struct om_arena *arena = &ld->config->arena;
	struct om_pair *pairs;
	struct om_buf joined = { 0 };
	size_t i;

	for (i = 0; i < rule->settings.n && !om_str_eq(rule->settings.v[i].key, e->key); i++) {
	}
	if (i == 64) {
		load_problem(ld, e->line, "a rule has at most 64 settings");
		return;
	}
	pairs = om_arena_alloc(arena,
			       (i == rule->settings.n ? i + 1 : rule->settings.n) * sizeof(*pairs));
	if (pairs == NULL) {
		ld->err = OM_ERR_NOMEM;
		return;
	}
	if (rule->settings.n > 0) {
		memcpy(pairs, rule->settings.v, rule->settings.n * sizeof(*pairs));
	}
	if (i < rule->settings.n) {
		om_buf_add(&joined, pairs[i].value.ptr, pairs[i].value.len);
		om_buf_add_str(&joined, ",");
	} else {
		pairs[i].key = (struct om_str){ om_arena_str(arena, e->key), e->key.len };
		rule->settings.n++;
	}
	om_buf_add(&joined, e->value.ptr, e->value.len);
	pairs[i].value = (struct om_str){ (const char *)joined.data, joined.len };
	pairs[i].value.ptr = om_arena_str(arena, pairs[i].value);
	if (joined.failed || pairs[i].key.ptr == NULL || pairs[i].value.ptr == NULL) {
		ld->err = OM_ERR_NOMEM;
	}
	om_buf_fini(&joined);
	rule->settings.v = pairs;
	OM_SET(rule, rule, settings, rule->settings);
}

static void
load_rule_entry(struct loader *ld, const struct om_ini_entry *e)
{
	struct om_rule *rule = ld->rule;
	uint64_t number;
	bool on;

	if (rule == NULL) {
		return; /* its beginning was a problem already */
	}
	if (!om_utf8_valid(e->key) || !om_utf8_valid(e->value)) {
		load_problem(ld, e->line, "not UTF-8");
	} else if (conf_name_eq(e->key, "kind")) {
		OM_SET(
		    rule, rule, kind,
		    ((struct om_str){ om_arena_str(&ld->config->arena, e->value), e->value.len }));
	} else if (conf_name_eq(e->key, "priority")) {
		if (om_parse_u64(e->value, 0, 1000, &number) != OM_OK) {
			load_problem(ld, e->line, "priority: '%.*s' is not between 0 and 1000",
				     OM_STR_ARG(e->value));
		} else {
			OM_SET(rule, rule, priority, number);
		}
	} else if (conf_name_eq(e->key, "enabled")) {
		if (om_parse_bool(e->value, &on) != OM_OK) {
			load_problem(ld, e->line, "enabled: '%.*s' is neither yes nor no",
				     OM_STR_ARG(e->value));
		} else {
			OM_SET(rule, rule, enabled, on);
		}
	} else {
		load_rule_setting(ld, e);
	}
}

static void
load_check_rules(struct loader *ld)
{
	struct om_config *c = ld->config;
	struct om_why why;

	for (size_t i = 0; i < c->rule_count; i++) {
		ld->file = c->rule_origin[i];
		why.text[0] = '\0';
		if (!OM_HAS(&c->rules[i], rule, kind)) {
			load_problem(ld, 0, "the rule %.*s has no kind",
				     OM_STR_ARG(c->rules[i].name));
		} else if (ld->sources->check_rule != NULL &&
			   ld->sources->check_rule(&c->rules[i], &why) != OM_OK) {
			load_problem(ld, 0, "the rule %.*s: %s", OM_STR_ARG(c->rules[i].name),
				     why.text);
		}
	}
}

/* --- files ----------------------------------------------------------------------------------- */

static void
load_unknown(struct loader *ld, struct om_str key, unsigned line)
{
	const char *near = om_conf_nearest(key);

	if (near != NULL) {
		load_problem(ld, line, "unknown setting %.*s; did you mean %s?",
			     (int)(key.len < 80 ? key.len : 80), key.ptr, near);
	} else {
		load_problem(ld, line, "unknown setting %.*s", (int)(key.len < 80 ? key.len : 80),
			     key.ptr);
	}
}

static void
load_on_entry(void *arg, const struct om_ini_entry *e)
{
	struct loader *ld = arg;
	char key[160], number[16];
	enum om_conf_item item;

	if (om_str_is(e->section, "rule")) {
		load_rule_entry(ld, e);
		return;
	}
	if (e->section.len > 64 || e->key.len > 64) {
		load_problem(ld, e->line, "the name is too long");
		return;
	}
	snprintf(key, sizeof(key), "%.*s%s%.*s", OM_STR_ARG(e->section),
		 e->section.len > 0 ? "." : "", OM_STR_ARG(e->key));
	snprintf(number, sizeof(number), "%u", e->line);
	if (!om_conf_find(om_str_of(key), &item)) {
		load_unknown(ld, om_str_of(key), e->line);
	} else {
		load_value(ld, item, e->value, e->line, load_printf(ld, "%s:%s", ld->file, number));
	}
}

static void
load_on_section(void *arg, struct om_str section, struct om_str name, unsigned line)
{
	const char *known[OM_CONF_COUNT + 1] = { "rule" };
	struct loader *ld = arg;
	const char *near;
	char word[64];

	if (om_str_is(section, "rule")) {
		load_rule_begin(ld, name, line);
		return;
	}
	ld->rule = NULL;
	if (name.len > 0) {
		load_problem(ld, line, "only a rule has a name behind its section");
		return;
	}
	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		known[i + 1] = om_conf_info((enum om_conf_item)i)->section;
		if (conf_name_eq(section, known[i + 1])) {
			return;
		}
	}
	if (om_str_copy(section, word, sizeof(word)) != OM_OK) {
		word[0] = '\0';
	}
	near = om_nearest(word, known, OM_COUNT(known));
	load_problem(ld, line, "unknown section [%s]%s%s%s", word, near ? "; did you mean [" : "",
		     near ? near : "", near ? "]?" : "");
}

static void
load_on_error(void *arg, unsigned line, const char *text)
{
	load_problem(arg, line, "%s", text);
}

/* false with errno: it could not be read. */
static bool
read_file(const char *path, struct om_buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	char piece[16384];
	struct stat st;
	ssize_t n = -1;

	if (fd < 0) {
		return false;
	}
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		errno = EISDIR;
		goto out;
	}
	out->max = OM_INI_FILE_MAX;
	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		om_buf_add(out, piece, (size_t)n);
		if (out->failed) {
			errno = EFBIG;
			n = -1;
			break;
		}
	}
out:
	close(fd);
	return n == 0;
}

static void
load_file(struct loader *ld, const char *path, enum conf_rank rank, bool must_exist)
{
	struct om_ini ini = { load_on_entry, load_on_section, load_on_error, ld };
	struct om_buf text = { 0 };

	ld->file = load_printf(ld, "%s%s", path, "");
	ld->rank = rank;
	ld->source++;
	ld->rule = NULL;
	if (!read_file(path, &text)) {
		if (must_exist || errno != ENOENT) {
			load_problem(ld, 0, "%s", strerror(errno));
		}
	} else {
		om_ini_parse((struct om_str){ (const char *)text.data, text.len }, &ini);
	}
	om_buf_fini(&text);
}

static int
is_conf_file(const struct dirent *entry)
{
	size_t len = strlen(entry->d_name);

	return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name); /* not alphasort: the locale must not matter */
}

static void
load_dropins(struct loader *ld)
{
	struct dirent **names = NULL;
	const char *dir = load_printf(ld, "%s%s", ld->sources->file, ".d");
	int n = scandir(dir, &names, is_conf_file, by_name);

	ld->file = dir;
	if (n < 0 && errno != ENOENT && errno != ENOTDIR) {
		load_problem(ld, 0, "%s", strerror(errno));
	} else if (n > OM_CONFIG_DROPINS_MAX) {
		load_problem(ld, 0, "more than %d files", OM_CONFIG_DROPINS_MAX);
	}
	for (int i = 0; i < n; i++) {
		if (n <= OM_CONFIG_DROPINS_MAX) {
			load_file(ld, load_printf(ld, "%s/%s", dir, names[i]->d_name), RANK_DROPIN,
				  true);
		}
		free(names[i]);
	}
	free(names);
}

/* --- environment and flags ------------------------------------------------------------------- */

/* OMERTAD_JOBS_MAX_JOBS; the alias OMERTAD_MAX_JOBS. */
static bool
env_find(struct om_str name, enum om_conf_item *out)
{
	char key[96];

	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		snprintf(key, sizeof(key), "%s_%s", om_conf_info((enum om_conf_item)i)->section,
			 om_conf_info((enum om_conf_item)i)->name);
		if (conf_name_eq(name, key)) {
			*out = (enum om_conf_item)i;
			return true;
		}
	}
	return om_conf_find(name, out);
}

static void
load_env(struct loader *ld)
{
	const size_t skip = sizeof(OM_CONFIG_ENV) - 1;
	enum om_conf_item item;
	struct om_str name;
	char text[96];

	ld->rank = RANK_ENV;
	ld->source = 0;
	for (char *const *e = ld->sources->env; e != NULL && *e != NULL; e++) {
		const char *eq = strchr(*e, '=');

		if (eq == NULL || strncmp(*e, OM_CONFIG_ENV, skip) != 0) {
			continue;
		}
		name = (struct om_str){ *e + skip, (size_t)(eq - *e) - skip };
		if (om_str_is(name, "CONFIG")) { /* names the file itself */
			continue;
		}
		snprintf(text, sizeof(text), "%.*s", (int)(eq - *e), *e);
		ld->file = load_printf(ld, "environment %s%s", text, "");
		if (!env_find(name, &item)) {
			load_problem(ld, 0, "no such setting");
		} else {
			load_value(ld, item, om_str_of(eq + 1), 0, ld->file);
		}
	}
}

static void
load_flags(struct loader *ld)
{
	enum om_conf_item item;

	ld->rank = RANK_FLAG;
	ld->source = 0;
	for (size_t i = 0; i < ld->sources->flag_count; i++) {
		const struct om_conf_flag *flag = &ld->sources->flags[i];

		ld->file = load_printf(ld, "flag %s%s", flag->origin, "");
		if (!om_conf_find(om_str_of(flag->key), &item)) {
			load_unknown(ld, om_str_of(flag->key), 0);
		} else {
			load_value(ld, item, om_str_of(flag->value), 0, ld->file);
		}
	}
}

/* --- together -------------------------------------------------------------------------------- */

static void
load_defaults(struct loader *ld)
{
	ld->rank = RANK_DEFAULT;
	ld->file = "default";
	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		load_value(ld, (enum om_conf_item)i,
			   om_str_of(om_conf_info((enum om_conf_item)i)->def), 0, "default");
	}
}

static const char *
load_path(struct loader *ld, const char *set, const char *dir, const char *name)
{
	return set[0] != '\0' ? set : load_printf(ld, "%s/%s", dir, name);
}

static void
load_paths(struct loader *ld)
{
	struct om_config *c = ld->config;
	const struct om_settings *s = &c->settings;

	c->control_socket = load_path(ld, s->control_socket, s->daemon_run_dir, "control.sock");
	c->events_socket = load_path(ld, "", s->daemon_run_dir, "events.sock");
	c->server_key = load_path(ld, s->control_server_key, s->daemon_state_dir, "curve.key");
	c->image_dir = load_path(ld, s->vm_image_dir, s->daemon_cache_dir, "images");
	c->live_file = load_path(ld, "", s->daemon_state_dir, OM_CONFIG_LIVE_FILE);
}

enum om_err
om_config_load(const struct om_conf_sources *sources, struct om_config **out,
	       struct om_buf *problems)
{
	struct loader ld = { .sources = sources, .problems = problems };

	ld.config = calloc(1, sizeof(*ld.config));
	if (ld.config == NULL) {
		return OM_ERR_NOMEM;
	}
	ld.config->refs = 1;
	pthread_mutex_init(&ld.config->lock, NULL);
	ld.config->arena.max = OM_CONFIG_MEMORY_MAX;
	load_defaults(&ld);
	if (sources->file != NULL) {
		load_file(&ld, sources->file, RANK_FILE, sources->file_must_exist);
		load_dropins(&ld);
	}
	load_env(&ld);
	load_flags(&ld);
	if (ld.err == OM_OK) {
		load_paths(&ld);
	}
	if (sources->with_live && ld.err == OM_OK) {
		/* After the others, because they say where it is; its rank is below theirs. */
		ld.source = 1u << 16;
		load_file(&ld, ld.config->live_file, RANK_LIVE, false);
	}
	load_check_rules(&ld);
	if (ld.err != OM_OK) {
		om_config_free(ld.config);
		return ld.err;
	}
	*out = ld.config;
	return OM_OK;
}
