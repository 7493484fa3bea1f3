/* SPDX-License-Identifier: ISC */
/* Showing settings, making the sample file and the manual's table, writing live.conf. */
#include "daemon/config_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/parse.h"
#include "daemon/json.h"

static bool
print_hidden(const struct om_config *config, enum om_conf_item item)
{
	return (om_conf_info(item)->flags & OM_CONF_HIDDEN) != 0 &&
	       om_config_is_default(config, item);
}

/* What a line that was written reads as. */
struct read_back {
	const char *text;
	unsigned same, other;
};

static void
read_entry(void *arg, const struct om_ini_entry *entry)
{
	struct read_back *rb = arg;

	rb->same += om_str_is(entry->value, rb->text);
	rb->other += !om_str_is(entry->value, rb->text);
}

static void
read_error(void *arg, unsigned line, const char *text)
{
	struct read_back *rb = arg;

	(void)line;
	(void)text;
	rb->other++;
}

static bool
reads_back(const char *text, const char *form)
{
	struct read_back rb = { .text = text };
	const struct om_ini ini = { .entry = read_entry, .error = read_error, .arg = &rb };
	struct om_buf line = { 0 };
	bool ok;

	om_buf_add_str(&line, "key = ");
	om_buf_printf(&line, form, text);
	if (!line.failed) {
		om_ini_parse((struct om_str){ (const char *)line.data, line.len }, &ini);
	}
	ok = rb.same == 1 && rb.other == 0;
	om_buf_fini(&line);
	return ok;
}

/*
 * Quoted when it would be read as something else.  false: it cannot be written, for a file has no way
 * to say it (a line break; a quote with a comment sign behind it).
 */
static bool
print_value(struct om_buf *out, const char *text)
{
	static const char *const forms[] = { "%s", "\"%s\"" };

	for (size_t i = 0; i < OM_COUNT(forms); i++) {
		if (reads_back(text, forms[i])) {
			om_buf_printf(out, forms[i], text);
			return true;
		}
	}
	om_buf_printf(out, "%s", text);
	return false;
}

void
om_config_print(const struct om_config *config, bool origin, struct om_buf *out)
{
	const char *section = "";

	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);
		size_t from;

		if (print_hidden(config, (enum om_conf_item)i)) {
			continue;
		}
		if (strcmp(section, info->section) != 0) {
			section = info->section;
			om_buf_printf(out, "%s[%s]\n", out->len > 0 ? "\n" : "", section);
		}
		from = out->len;
		om_buf_printf(out, "%s = ", info->name);
		(void)print_value(out, config->values[i].text); /* it was read: it can be written */
		if (origin) {
			om_buf_printf(out, "%*s # %s",
				      (int)(from + 44 > out->len ? from + 44 - out->len : 0), "",
				      config->values[i].origin);
		}
		om_buf_add_str(out, "\n");
	}
	for (size_t i = 0; i < config->rule_count; i++) {
		const struct om_rule *rule = &config->rules[i];

		om_buf_printf(out, "\n[rule %.*s]%s%s\n", OM_STR_ARG(rule->name),
			      origin ? " # " : "", origin ? config->rule_origin[i] : "");
		om_buf_printf(out, "kind = %.*s\n", OM_STR_ARG(rule->kind));
		if (OM_HAS(rule, rule, priority)) {
			om_buf_printf(out, "priority = %llu\n", (unsigned long long)rule->priority);
		}
		om_buf_printf(out, "enabled = %s\n", rule->enabled ? "yes" : "no");
		for (size_t k = 0; k < rule->settings.n; k++) {
			om_buf_printf(out, "%.*s = %.*s\n", OM_STR_ARG(rule->settings.v[k].key),
				      OM_STR_ARG(rule->settings.v[k].value));
		}
	}
}

void
om_config_print_json(const struct om_config *config, struct om_buf *out)
{
	bool first = true;

	om_buf_add_str(out, "{\"version\":1,\"settings\":[");
	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);

		if (print_hidden(config, (enum om_conf_item)i)) {
			continue;
		}
		om_buf_add_str(out, first ? "\n{" : ",\n{");
		first = false;
		om_json_member(out, "key", info->key, true);
		om_json_member(out, "value", config->values[i].text, false);
		om_json_member(out, "origin", config->values[i].origin, false);
		om_json_member(out, "default", info->def, false);
		om_buf_printf(out, ",\"live\":%s",
			      (info->flags & (OM_CONF_LIVE | OM_CONF_RELOAD)) != 0 ? "true"
										   : "false");
		om_json_member(out, "help", info->help, false);
		om_buf_add_str(out, "}");
	}
	om_buf_add_str(out, "],\"rules\":[");
	for (size_t i = 0; i < config->rule_count; i++) {
		const struct om_rule *rule = &config->rules[i];

		om_buf_add_str(out, i == 0 ? "\n{" : ",\n{");
		om_buf_add_str(out, "\"name\":");
		om_json_str(out, rule->name);
		om_buf_add_str(out, ",\"kind\":");
		om_json_str(out, rule->kind);
		om_buf_printf(out, ",\"priority\":%llu,\"enabled\":%s,\"settings\":{",
			      (unsigned long long)rule->priority, rule->enabled ? "true" : "false");
		for (size_t k = 0; k < rule->settings.n; k++) {
			om_buf_add_str(out, k == 0 ? "" : ",");
			om_json_str(out, rule->settings.v[k].key);
			om_buf_add_str(out, ":");
			om_json_str(out, rule->settings.v[k].value);
		}
		om_buf_add_str(out, "}");
		om_json_member(out, "origin", config->rule_origin[i], false);
		om_buf_add_str(out, "}");
	}
	om_buf_add_str(out, "]}\n");
}

/* --- generated text -------------------------------------------------------------------------- */

/* A whole number of the largest unit that fits. */
static void
put_limit(struct om_buf *out, enum om_conf_kind kind, uint64_t v)
{
	static const struct {
		uint64_t ms;
		const char *unit;
	} times[] = { { 86400000, "d" }, { 3600000, "h" }, { 60000, "m" }, { 1000, "s" } };

	if (kind == OM_CONF_MIB) {
		om_buf_printf(out, v % 1024 == 0 && v > 0 ? "%lluG" : "%lluM",
			      (unsigned long long)(v % 1024 == 0 && v > 0 ? v / 1024 : v));
		return;
	}
	for (size_t i = 0; kind == OM_CONF_MS && i < OM_COUNT(times); i++) {
		if (v % times[i].ms == 0 && v > 0) {
			om_buf_printf(out, "%llu%s", (unsigned long long)(v / times[i].ms),
				      times[i].unit);
			return;
		}
	}
	om_buf_printf(out, "%llu%s", (unsigned long long)v, kind == OM_CONF_MS ? "ms" : "");
}

/* "1 to 10000", "yes or no", "auto|yes|no", "path" */
static void
put_domain(struct om_buf *out, const struct om_conf_info *info)
{
	switch (info->kind) {
	case OM_CONF_U64:
	case OM_CONF_MIB:
	case OM_CONF_MS:
		put_limit(out, info->kind, info->least);
		om_buf_add_str(out, " to ");
		put_limit(out, info->kind, info->most);
		break;
	case OM_CONF_BOOL:
		om_buf_add_str(out, "yes or no");
		break;
	case OM_CONF_CHOICE:
		om_buf_add_str(out, info->choices);
		break;
	case OM_CONF_LIST:
		om_buf_add_str(out, "list");
		break;
	case OM_CONF_PATH:
		om_buf_add_str(out, "path");
		break;
	case OM_CONF_TEXT:
		om_buf_add_str(out, "text");
		break;
	}
}

static const char sample_rules[] =
    "\n# Rules decide on a job before jobs.default_action does: the enabled one with the highest\n"
    "# priority that does not pass wins.  See omertad.conf(5) for the kinds.\n"
    "\n[rule quiet-hours]\n"
    "kind = quiet_hours\n"
    "priority = 60\n"
    "enabled = no\n"
    "start = 22:00\n"
    "end = 08:00\n"
    "action = hold\n"
    "\n[rule resources]\n"
    "kind = resources\n"
    "priority = 50\n"
    "max_cores = 8\n"
    "max_mem_mib = 16384\n"
    "max_runtime_s = 3600\n";

/* When a change of it is in force. */
static const char *
when_word(const struct om_conf_info *info)
{
	if ((info->flags & OM_CONF_LIVE) != 0) {
		return "live";
	}
	return (info->flags & OM_CONF_RELOAD) != 0 ? "by a reload" : "needs a restart";
}

void
om_config_generate(struct om_buf *out)
{
	const char *section = "";

	om_buf_add_str(out, "# omertad.conf: every setting with its default.  omertad.conf(5)\n"
			    "# Check it with: omertad config check FILE\n");
	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);

		if ((info->flags & OM_CONF_HIDDEN) != 0) {
			continue;
		}
		if (strcmp(section, info->section) != 0) {
			section = info->section;
			om_buf_printf(out, "\n[%s]\n", section);
		}
		om_buf_printf(out, "# %s\n# (", info->help);
		put_domain(out, info);
		om_buf_printf(out, "; %s)\n#%s = %s\n", when_word(info), info->name, info->def);
	}
	om_buf_add_str(out, sample_rules);
}

/* mdoc(7): a backslash is written \e; text lines here never begin with a dot. */
static void
put_mdoc(struct om_buf *out, const char *text)
{
	for (; *text != '\0'; text++) {
		if (*text == '\\') {
			om_buf_add_str(out, "\\e");
		} else {
			om_buf_add(out, text, 1);
		}
	}
}

void
om_config_generate_man(struct om_buf *out)
{
	const char *section = "";

	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);

		if ((info->flags & OM_CONF_HIDDEN) != 0) {
			continue;
		}
		if (strcmp(section, info->section) != 0) {
			om_buf_printf(out, "%s.Ss [%s]\n.Bl -tag -width Ds\n",
				      section[0] != '\0' ? ".El\n" : "", info->section);
			section = info->section;
		}
		om_buf_printf(out, ".It Sy %s No = ", info->name);
		put_mdoc(out, info->def[0] != '\0' ? info->def : "(empty)");
		om_buf_add_str(out, "\n");
		put_mdoc(out, info->help);
		om_buf_add_str(out, "\n(");
		put_domain(out, info);
		om_buf_printf(out, "; %s)\n", when_word(info));
	}
	om_buf_add_str(out, ".El\n");
}

/* --- live.conf ------------------------------------------------------------------------------- */

static enum om_err
live_write_file(const char *path, const struct om_buf *text, struct om_why *why)
{
	char temp[OM_CONFIG_ORIGIN_MAX * 2], dir[OM_CONFIG_ORIGIN_MAX * 2];
	enum om_err err = OM_OK;
	char *slash;
	int fd, dir_fd = -1;

	snprintf(temp, sizeof(temp), "%s.new", path);
	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash == NULL) {
		return om_why_set(why, OM_ERR_INVALID, "%s is no absolute path", path);
	}
	*slash = '\0';
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_IO, "%s", temp);
	}
	if (write(fd, text->data, text->len) != (ssize_t)text->len || fsync(fd) != 0 ||
	    rename(temp, path) != 0) {
		err = om_why_errno(why, OM_ERR_IO, "write %s", path);
		unlink(temp);
		goto out;
	}
	/* Without this the new name may be lost at a power cut, though the bytes are there. */
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fsync(dir_fd) != 0) {
		err = om_why_errno(why, OM_ERR_IO, "sync %s", dir);
	}
out:
	if (dir_fd >= 0) {
		close(dir_fd);
	}
	close(fd);
	return err;
}

enum om_err
om_config_write_live(const char *path, enum om_conf_item item, struct om_str value,
		     struct om_why *why)
{
	struct om_conf_sources sources = { .file = path };
	struct om_config *old = NULL;
	struct om_buf text = { 0 }, problems = { 0 };
	enum om_err err;
	char *word;

	err = om_config_load(&sources, &old, &problems);
	if (err != OM_OK) {
		om_why_set(why, err, "%s", problems.len > 0 ? om_buf_cstr(&problems) : path);
		goto out;
	}
	om_buf_add_str(&text, "# Written by `omertad config set`; higher than omertad.conf, lower\n"
			      "# than the environment and flags.\n");
	for (size_t i = 0; i < OM_CONF_COUNT; i++) {
		const struct om_conf_info *info = om_conf_info((enum om_conf_item)i);

		if ((enum om_conf_item)i == item && value.ptr != NULL) {
			word = om_arena_str(&old->arena, value);
			om_buf_printf(&text, "[%s]\n%s = ", info->section, info->name);
			if (word == NULL || !print_value(&text, word)) {
				err = om_why_set(why, OM_ERR_INVALID,
						 "%s.%s: a file cannot hold this value: a line "
						 "break, or a quote before a comment sign",
						 info->section, info->name);
				goto out;
			}
			om_buf_add_str(&text, "\n");
		} else if ((enum om_conf_item)i != item &&
			   !om_config_is_default(old, (enum om_conf_item)i)) {
			om_buf_printf(&text, "[%s]\n%s = ", info->section, info->name);
			(void)print_value(&text, old->values[i].text);
			om_buf_add_str(&text, "\n");
		}
	}
	err = text.failed ? OM_ERR_NOMEM : live_write_file(path, &text, why);
out:
	om_config_free(old);
	om_buf_fini(&text);
	om_buf_fini(&problems);
	return err;
}
